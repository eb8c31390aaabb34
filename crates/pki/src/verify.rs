//! Checking a peer's certificate, in both directions, against the swarm's root as it is at that moment.

use crate::{
    Identity,
    credentials::Current,
    identity::{Facts, common_name, role_name},
    provider, sha256,
};
use arc_swap::ArcSwap;
use model::{Duration, NodeId, Role, Timestamp};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Clocks may differ by this much (*unit:* seconds) before a certificate's dates count against it.
const SKEW_SECONDS: u64 = 300;

/// Whom a caller means to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anyone of the swarm in this role.
    Role(Role),
    /// This very node.
    Node(NodeId),
    /// Any member of the swarm.
    Member,
}

impl Expected {
    fn check(self, found: &Identity) -> Result<(), Error> {
        let text = match self {
            Self::Role(role) if found.role != role => {
                format!("peer {} is not a {} but a {}", found.node, role_name(role), role_name(found.role))
            }
            Self::Node(node) if found.node != node => {
                format!("peer is node {}, not node {node}: its address was given to another node", found.node)
            }
            Self::Role(_) | Self::Node(_) | Self::Member => return Ok(()),
        };
        Err(Error::General(text))
    }
}

/// Runs a chain check now, then as a clock 5 minutes slow and fast would see it.
pub(crate) fn with_skew<T>(
    now: UnixTime,
    cert: &[u8],
    check: impl Fn(UnixTime) -> Result<T, Error>,
) -> Result<T, Error> {
    let shifted = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let error = match check(now) {
        Err(Error::InvalidCertificate(e)) => e,
        other => return other,
    };
    let (retry, fault) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (shifted(now.as_secs().saturating_sub(SKEW_SECONDS)), "has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (shifted(now.as_secs().saturating_add(SKEW_SECONDS)), "is not valid yet")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let text = format!("certificate of {} was not issued by this swarm", common_name(cert));
            return Err(Error::General(text));
        }
        other => return Err(other.into()),
    };
    check(retry).map_err(|_| {
        Error::General(format!(
            "certificate of {} {fault} by this host's clock ({} seconds since 1970): compare the clocks of both hosts",
            common_name(cert),
            now.as_secs()
        ))
    })
}

/// The clock of this process, for TLS.
#[derive(Debug)]
pub(crate) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = sys::clock::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

fn now() -> Result<UnixTime, Error> {
    Clock.current_time().ok_or(Error::FailedToGetCurrentTime)
}

/// Returns the last second of a certificate's life.
fn expiry(cert: &[u8]) -> Option<UnixTime> {
    let seconds = u64::try_from(Facts::from_der(cert).ok()?.not_after.0 / 1_000_000_000).ok()?;
    Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

/// Tells whether a certificate has expired, also by a clock that is a little slow.
pub(crate) fn has_expired(facts: &Facts, now: Timestamp) -> bool {
    now.since(facts.not_after) > Duration::from_secs(SKEW_SECONDS)
}

/// Checks that a certificate is good for a node, at both ends of a connection, in the eyes of one who trusts this root.
///
/// # Errors
/// In rustls' words.
pub(crate) fn is_taken(cert: &CertificateDer<'_>, root: &CertificateDer<'_>) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    let (roots, now) = (Arc::new(roots), now()?);
    let all = algorithms(&provider()).all;
    verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(cert)?, &roots, &[], now, all)?;
    let clients = client_chain_check(roots).map_err(|e| Error::General(e.to_string()))?;
    clients.verify_client_cert(cert, &[], now).map(drop)
}

fn identity_of(cert: &CertificateDer<'_>) -> Result<Identity, Error> {
    Identity::from_der(cert).map_err(|e| Error::General(e.to_string()))
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

/// Checks servers.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) trust: Trust,
    pub(crate) expected: Expected,
    pub(crate) provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
pub(crate) enum Trust {
    /// The swarm's bundle, as of now.
    Swarm(Arc<ArcSwap<Current>>),
    /// The root whose SHA-256 this is; the server must send it along.
    Digest([u8; 32]),
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = match &self.trust {
            Trust::Swarm(current) => current.load().roots.clone(),
            Trust::Digest(digest) => {
                let root = intermediates
                    .iter()
                    .find(|c| aws_lc_rs::constant_time::verify_slices_are_equal(&sha256(c), digest).is_ok());
                let root = root.ok_or_else(|| {
                    Error::General(
                        "the manager's certificate authority does not match the join token: \
                         the token is of another swarm, or this address does not belong to the swarm"
                            .to_owned(),
                    )
                })?;
                let mut store = RootCertStore::empty();
                store.add(root.clone().into_owned())?;
                Arc::new(store)
            }
        };
        let cert = ParsedCertificate::try_from(end_entity)?;
        with_skew(now, end_entity, |at| {
            let all = algorithms(&self.provider).all;
            verify_server_cert_signed_by_trust_anchor(&cert, &roots, intermediates, at, all)
        })?;
        self.expected.check(&identity_of(end_entity)?)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &algorithms(&self.provider))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms(&self.provider))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms(&self.provider).supported_schemes()
    }
}

/// Checks clients: none is needed (a joiner has no certificate), but one that is shown must be the swarm's.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) current: Arc<ArcSwap<Current>>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.current.load();
        let check = |at| current.clients.verify_client_cert(end_entity, intermediates, at);
        if let Err(error) = with_skew(now, end_entity, check) {
            // Who was off for longer than its certificate lasts may ask for a new one, and nothing else: the listener
            // tells such a peer from the others.
            let end = expiry(end_entity).filter(|end| end.as_secs() < now.as_secs()).ok_or(error.clone())?;
            check(end).map_err(|_| error)?;
        }
        identity_of(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &algorithms(&self.provider))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &algorithms(&self.provider))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms(&self.provider).supported_schemes()
    }
}

/// Returns the chain check for clients under these roots.
pub(crate) fn client_chain_check(
    roots: Arc<RootCertStore>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::server::VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(roots, provider()).build()
}
