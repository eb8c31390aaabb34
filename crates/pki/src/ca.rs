//! The swarm's own certificate authority.

use crate::{identity::role_name, now, person::USER_UNIT, sha256};
use model::{ClusterId, Duration, NodeId, Role, Timestamp, UserId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{asn1_rs::Tag, extensions::ParsedExtension, x509::X509Name};

/// Certificates begin this much in the past, for hosts whose clocks run late.
const BACKDATE: Duration = Duration::from_secs(3600);
/// Source: SwarmKit `ca.RootCAExpiration`: 20 years.
const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Why a key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot generate a key")]
    Generate(#[source] rcgen::Error),
    #[error("cannot read the certificate authority's key")]
    Key(#[source] rcgen::Error),
    #[error("cannot read the certificate authority's certificate: {0}")]
    Certificate(String),
    #[error("the certificate authority's key does not belong to its certificate")]
    Mismatch,
    #[error("cannot read the certificate signing request")]
    Request(#[source] rcgen::Error),
    #[error("the certificate signing request has a key that is not ECDSA P-256")]
    Algorithm,
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
    #[error("time {0} does not fit in a certificate")]
    Time(i64),
}

/// The root certificate with its key: whoever has it decides who is a member.
pub struct RootCa {
    cert_pem: String,
    cert: CertificateDer<'static>,
    key: KeyPair,
    /// PEM; sent along with what this root signs.
    cross_signed: String,
}

/// A certificate authority as those see it who have only a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// DER of its name.
    pub subject: Vec<u8>,
    /// DER of its public key, with the algorithm.
    pub public_key: Vec<u8>,
    key_id: Option<Vec<u8>>,
}

impl Authority {
    /// Reads the last certificate of a PEM text: of a node's trusted roots, the one that is to stay.
    ///
    /// # Errors
    /// The text has no certificate.
    pub fn last_of(pem: &str) -> Result<Self, CaError> {
        let unreadable = |e: String| CaError::Certificate(e);
        let last = CertificateDer::pem_slice_iter(pem.as_bytes()).last();
        let der = last
            .ok_or_else(|| unreadable("there is none".to_owned()))?
            .map_err(|e| unreadable(e.to_string()))?;
        Self::of(&der).map_err(unreadable)
    }

    pub(crate) fn of(der: &[u8]) -> Result<Self, String> {
        let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
        let key_id = cert.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let (subject, public_key) = (cert.subject().as_raw().to_vec(), cert.public_key().raw.to_vec());
        Ok(Self { subject, public_key, key_id })
    }

    /// Tells whether a certificate names this authority as its issuer.
    pub(crate) fn has_issued(&self, der: &[u8]) -> bool {
        let Ok((_, cert)) = x509_parser::parse_x509_certificate(der) else { return false };
        let issuer_key = cert.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        cert.issuer().as_raw() == self.subject && issuer_key.is_some() && issuer_key == self.key_id
    }
}

impl std::fmt::Debug for RootCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootCa").finish_non_exhaustive()
    }
}

impl RootCa {
    /// Returns a new root for a swarm, valid for 20 years.
    ///
    /// # Errors
    /// No randomness.
    pub fn generate(cluster: ClusterId) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Generate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "swarm-ca");
        params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(now(), ROOT_LIFE)?;
        let cert = params.self_signed(&key).map_err(CaError::Sign)?;
        Ok(Self { cert_pem: cert.pem(), cert: cert.der().clone(), key, cross_signed: String::new() })
    }

    /// Returns the root as it was stored.
    ///
    /// # Errors
    /// Either text is not PEM of the right kind, or they do not belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|e| CaError::Certificate(e.to_string()))?
            .into_owned();
        let key = KeyPair::from_pem(key_pem).map_err(CaError::Key)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&cert).map_err(|e| CaError::Certificate(e.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CaError::Mismatch);
        }
        drop(parsed);
        Ok(Self { cert_pem: cert_pem.to_owned(), cert, key, cross_signed: String::new() })
    }

    /// Returns a root that somebody made elsewhere, if it can be one.
    ///
    /// # Errors
    /// As [`RootCa::from_pem`], or the certificate may not sign others, has expired, has no key identifier (by which
    /// its certificates are known), or is not the only one in the text.
    pub fn given(cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let wrong = |why: &str| Err(CaError::Certificate(why.to_owned()));
        if CertificateDer::pem_slice_iter(cert_pem.as_bytes()).count() != 1 {
            return wrong("a PEM text with one certificate is wanted");
        }
        let root = Self::from_pem(cert_pem, key_pem)?;
        let authority = Authority::of(&root.cert).map_err(CaError::Certificate)?;
        if authority.key_id.is_none() {
            return wrong("it has no subject key identifier");
        }
        let (_, cert) = x509_parser::parse_x509_certificate(&root.cert)
            .map_err(|e| CaError::Certificate(e.to_string()))?;
        let signs = cert.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        if !cert.is_ca() || !signs {
            return wrong("it may not sign certificates");
        }
        if !cert.validity().is_valid() {
            return wrong("it has expired, or is not valid yet");
        }
        drop(cert);
        root.try_out()?;
        Ok(root)
    }

    /// Sees that nodes would take what this root signs: one that is limited to names of somebody's, or has a key that is
    /// too short, would leave a swarm of nodes that do not know each other.
    fn try_out(&self) -> Result<(), CaError> {
        let (node, cluster) = (NodeId(1), ClusterId(1));
        let csr = NodeKey::generate()?.csr_pem()?;
        let hour = Duration::from_secs(3600);
        let chain = self.sign_csr(&csr, node, Role::Manager, cluster, hour)?;
        let refused =
            |e: rustls::Error| CaError::Certificate(format!("no node would take what it signs: {e}"));
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes())
            .map_err(|e| CaError::Certificate(e.to_string()))?;
        crate::verify::is_taken(&leaf, &self.cert).map_err(refused)
    }

    /// Returns the certificate that this root gives another root's key, as PEM: who trusts this one trusts that one.
    ///
    /// # Errors
    /// The other certificate cannot be copied.
    pub fn cross_sign(&self, other: &Self) -> Result<String, CaError> {
        let unreadable = |e: String| CaError::Certificate(e);
        let (_, theirs) =
            x509_parser::parse_x509_certificate(&other.cert).map_err(|e| unreadable(e.to_string()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name_of(theirs.subject())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        if let Some(id) = Authority::of(&other.cert).map_err(unreadable)?.key_id {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        }
        (params.not_before, params.not_after) = validity(now(), ROOT_LIFE)?;
        let issuer = Issuer::from_ca_cert_der(&self.cert, &self.key).map_err(CaError::Sign)?;
        Ok(params.signed_by(&other.key, &issuer).map_err(CaError::Sign)?.pem())
    }

    /// Returns the root that sends a cross-signed certificate of its own along with what it signs.
    #[must_use]
    pub fn with_cross_signed(self, pem: &str) -> Self {
        Self { cross_signed: pem.to_owned(), ..self }
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Returns the private key, for the managers' encrypted state only.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Returns what join tokens carry: the SHA-256 of the certificate's DER.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.cert)
    }

    /// Returns the digest of the first certificate of a PEM text, to compare with a token's.
    ///
    /// # Errors
    /// The text has no certificate.
    pub fn digest_of(cert_pem: &str) -> Result<[u8; 32], CaError> {
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|e| CaError::Certificate(e.to_string()))?;
        Ok(sha256(&cert))
    }

    /// Signs a node's certificate from now on; see [`RootCa::sign_csr_at`].
    ///
    /// # Errors
    /// As there.
    pub fn sign_csr(
        &self,
        csr_pem: &str,
        node: NodeId,
        role: Role,
        cluster: ClusterId,
        expiry: Duration,
    ) -> Result<String, CaError> {
        self.sign_csr_at(now(), csr_pem, node, role, cluster, expiry)
    }

    /// Returns the chain (leaf, this root as another has cross-signed it, then this root) as PEM. Of the request only the key counts: names are ours to
    /// give. Valid from an hour before `at` to `expiry` after it.
    ///
    /// # Errors
    /// The request is malformed, not signed by its own key, or its key is not P-256.
    pub fn sign_csr_at(
        &self,
        at: Timestamp,
        csr_pem: &str,
        node: NodeId,
        role: Role,
        cluster: ClusterId,
        expiry: Duration,
    ) -> Result<String, CaError> {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(CaError::Request)?;
        if csr.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Algorithm);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, role_name(role));
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.subject_alt_names = [role_name(role).to_owned(), node.to_string()]
            .into_iter()
            .map(|name| name.try_into().map(SanType::DnsName))
            .collect::<Result<_, _>>()
            .map_err(CaError::Sign)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(at, expiry)?;
        csr.params = params;
        let issuer = Issuer::from_ca_cert_der(&self.cert, &self.key).map_err(CaError::Sign)?;
        let leaf = csr.signed_by(&issuer).map_err(CaError::Sign)?;
        Ok(format!("{}{}{}", leaf.pem(), self.cross_signed, self.cert_pem))
    }
}

impl RootCa {
    /// Returns a user's chain (leaf, then this root) as PEM, good for showing who one is and for nothing else. Of the
    /// request only the key counts. Valid from an hour before `at` to `expiry` after it.
    ///
    /// # Errors
    /// As [`RootCa::sign_csr_at`].
    pub fn sign_user_csr_at(
        &self,
        at: Timestamp,
        csr_pem: &str,
        user: UserId,
        cluster: ClusterId,
        expiry: Duration,
    ) -> Result<String, CaError> {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(CaError::Request)?;
        if csr.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Algorithm);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, USER_UNIT);
        params.distinguished_name.push(DnType::CommonName, user.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(at, expiry)?;
        csr.params = params;
        let issuer = Issuer::from_ca_cert_der(&self.cert, &self.key).map_err(CaError::Sign)?;
        let leaf = csr.signed_by(&issuer).map_err(CaError::Sign)?;
        Ok(format!("{}{}", leaf.pem(), self.cert_pem))
    }
}

/// Copies a name, text by text in the form it has: names are compared byte by byte.
fn name_of(name: &X509Name<'_>) -> Result<DistinguishedName, CaError> {
    let unreadable = || CaError::Certificate("its name has what cannot be copied".to_owned());
    let mut copy = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter().ok_or_else(unreadable)?.collect();
        let text = attribute.as_str().map_err(|_| unreadable())?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().map_err(|_| unreadable())?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(|_| unreadable())?),
            _ => return Err(unreadable()),
        };
        copy.push(DnType::from_oid(&oid), value);
    }
    Ok(copy)
}

fn validity(at: Timestamp, life: Duration) -> Result<(OffsetDateTime, OffsetDateTime), CaError> {
    let at_seconds = at.0 / 1_000_000_000;
    let point =
        |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Time(seconds));
    let back = i64::try_from(BACKDATE.as_secs()).unwrap_or(0);
    let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
    Ok((point(at_seconds.saturating_sub(back))?, point(at_seconds.saturating_add(life))?))
}

/// A node's private key: P-256, new for each certificate.
pub struct NodeKey(KeyPair);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey(..)")
    }
}

impl NodeKey {
    /// # Errors
    /// No randomness.
    pub fn generate() -> Result<Self, CaError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(CaError::Generate)
    }

    /// Returns the request to send to the swarm: it proves possession of the key and asks for nothing else.
    ///
    /// # Errors
    /// Signing failed.
    pub fn csr_pem(&self) -> Result<String, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.0).and_then(|csr| csr.pem()).map_err(CaError::Sign)
    }

    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_signed_certificate_names_node_role_and_swarm() {
        let ca = RootCa::generate(ClusterId(5)).unwrap();
        let csr = NodeKey::generate().unwrap().csr_pem().unwrap();
        let chain = ca.sign_csr(&csr, NodeId(1), Role::Manager, ClusterId(5), DAY * 90).unwrap();
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let expected = Identity { node: NodeId(1), role: Role::Manager, cluster: ClusterId(5) };
        assert_eq!(Identity::from_der(&leaf).unwrap(), expected);
        assert_eq!(CertificateDer::pem_slice_iter(chain.as_bytes()).count(), 2);
    }

    #[test]
    fn a_root_is_the_same_after_being_stored() {
        let ca = RootCa::generate(ClusterId(5)).unwrap();
        let again = RootCa::from_pem(ca.cert_pem(), &ca.key_pem()).unwrap();
        assert_eq!(again.digest(), ca.digest());
        assert_eq!(RootCa::digest_of(ca.cert_pem()).unwrap(), ca.digest());
        let other = RootCa::generate(ClusterId(5)).unwrap();
        assert!(matches!(RootCa::from_pem(ca.cert_pem(), &other.key_pem()), Err(CaError::Mismatch)));
    }

    #[test]
    fn a_request_with_another_kind_of_key_is_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let ca = RootCa::generate(ClusterId(5)).unwrap();
        let signed = ca.sign_csr(&csr, NodeId(1), Role::Worker, ClusterId(5), DAY);
        assert!(matches!(signed, Err(CaError::Algorithm)), "{signed:?}");
    }

    #[test]
    fn a_root_certificate_is_no_identity() {
        let ca = RootCa::generate(ClusterId(5)).unwrap();
        let der = CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap();
        assert!(Identity::from_der(&der).is_err());
    }

    #[test]
    fn a_root_whose_certificates_nobody_would_take_is_refused() {
        let of = |change: fn(&mut CertificateParams)| {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "ours");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.key_identifier_method = KeyIdMethod::Sha256;
            change(&mut params);
            let cert = params.self_signed(&key).unwrap();
            RootCa::given(&cert.pem(), &key.serialize_pem()).map(drop).map_err(|e| e.to_string())
        };
        of(|_| {}).expect("a plain one");
        of(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))
            .expect("one that makes no others");
        let refused = of(|params| {
            let permitted = vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())];
            params.name_constraints =
                Some(rcgen::NameConstraints { permitted_subtrees: permitted, excluded_subtrees: vec![] });
        });
        assert!(refused.as_ref().is_err_and(|e| e.contains("no node would take")), "{refused:?}");
        for (change, words) in [
            ((|params| params.is_ca = IsCa::NoCa) as fn(&mut CertificateParams), "no subject key identifier"),
            (|params| params.key_usages = vec![KeyUsagePurpose::CrlSign], "may not sign"),
            (|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1), "has expired"),
        ] {
            let refused = of(change);
            assert!(refused.as_ref().is_err_and(|e| e.contains(words)), "{words}: {refused:?}");
        }
    }
}
