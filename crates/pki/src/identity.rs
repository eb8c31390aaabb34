//! Who a certificate says its holder is.

use model::{ClusterId, NodeId, Role, Timestamp};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// A member of a swarm, as its certificate names it: CN node id, OU role, O cluster id. Source: SwarmKit `ca`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    pub node: NodeId,
    pub role: Role,
    pub cluster: ClusterId,
}

/// Returns the name a role has in certificates.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Manager => "swarm-manager",
        Role::Worker => "swarm-worker",
    }
}

/// A certificate that is not one of a swarm's node.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    #[error("certificate is not valid DER: {0}")]
    Der(String),
    #[error("certificate is not valid PEM: {0}")]
    Pem(String),
    #[error("certificate has no {0}")]
    Missing(&'static str),
    #[error("certificate {field} {value:?} is not a node's")]
    Field { field: &'static str, value: String },
}

/// What is read from a certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) identity: Identity,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Identity {
    /// Returns the identity in a node certificate. Does not check who signed it.
    ///
    /// # Errors
    /// [`InvalidCertificate`] when it is not shaped as a node's certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        Facts::from_der(der).map(|f| f.identity)
    }
}

impl Facts {
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| InvalidCertificate::Der(e.to_string()))?;
        let subject = cert.subject();
        let node = first(subject.iter_common_name(), "common name")?;
        let role = first(subject.iter_organizational_unit(), "organizational unit")?;
        let cluster = first(subject.iter_organization(), "organization")?;
        let bad = |field, value: &str| InvalidCertificate::Field { field, value: value.to_owned() };
        let identity = Identity {
            node: node.parse().map_err(|_| bad("common name", node))?,
            role: match role {
                "swarm-manager" => Role::Manager,
                "swarm-worker" => Role::Worker,
                other => return Err(bad("organizational unit", other)),
            },
            cluster: cluster.parse().map_err(|_| bad("organization", cluster))?,
        };
        let san = cert
            .subject_alternative_name()
            .map_err(|e| InvalidCertificate::Der(e.to_string()))?
            .ok_or(InvalidCertificate::Missing("subject alternative name"))?;
        for name in [role, node] {
            let named =
                san.value.general_names.iter().any(|n| matches!(n, GeneralName::DNSName(d) if *d == name));
            if !named {
                return Err(bad("subject alternative name, which must have", name));
            }
        }
        let seconds = |s: i64| Timestamp(s.saturating_mul(1_000_000_000));
        Ok(Self {
            identity,
            not_before: seconds(cert.validity().not_before.timestamp()),
            not_after: seconds(cert.validity().not_after.timestamp()),
        })
    }
}

pub(crate) fn first<'a>(
    mut attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
    what: &'static str,
) -> Result<&'a str, InvalidCertificate> {
    let attribute = attributes.next().ok_or(InvalidCertificate::Missing(what))?;
    attribute.as_str().map_err(|_| InvalidCertificate::Missing(what))
}

/// Returns from when until when the first certificate of a PEM text is good, if it is a node's. Does not check who signed
/// it.
///
/// # Errors
/// There is none, or it is not shaped as a node's.
pub fn node_certificate_life(pem: &str) -> Result<(Timestamp, Timestamp), InvalidCertificate> {
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
    let facts = Facts::from_der(&leaf.map_err(|e| InvalidCertificate::Pem(e.to_string()))?)?;
    Ok((facts.not_before, facts.not_after))
}

/// Returns the common name of a certificate's subject, for messages.
pub fn common_name(der: &[u8]) -> String {
    let name = |subject: &X509Name<'_>| {
        subject.iter_common_name().next().and_then(|a| a.as_str().ok()).map(str::to_owned)
    };
    X509Certificate::from_der(der)
        .ok()
        .and_then(|(_, cert)| name(cert.subject()))
        .unwrap_or_else(|| "?".to_owned())
}
