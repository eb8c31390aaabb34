//! Who comes in at a TCP front door with TLS: the operator's own, and users of the swarm.

use docker_api::server::{Shown, Whose};
use pki::{Credentials, common_name};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{fmt, sync::Arc};

/// Returns this node's credentials, if it is in a swarm: whom it has signed changes with it.
pub(crate) type Membership = Arc<dyn Fn() -> Option<Credentials> + Send + Sync>;

/// Lets in whom the operator's CA or the swarm has signed.
pub(crate) struct Doorkeeper {
    operators: Arc<dyn ClientCertVerifier>,
    swarm: Membership,
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorkeeper").finish_non_exhaustive()
    }
}

impl Doorkeeper {
    pub(crate) fn new(operators: Arc<dyn ClientCertVerifier>, swarm: Membership) -> Self {
        Self { operators, swarm }
    }

    /// Returns whose certificate it is. The swarm is asked first: one who is its user is nothing more, whatever else
    /// the operator believes.
    fn whose(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Shown, Error> {
        let person = (self.swarm)().and_then(|s| s.verify_person(leaf, intermediates, now).ok());
        if let Some(person) = person {
            return Ok(Shown::User { id: person.user.0.to_be_bytes().to_vec(), serial: person.serial });
        }
        self.operators.verify_client_cert(leaf, intermediates, now)?;
        Ok(Shown::Operator { name: common_name(leaf) })
    }
}

/// Returns who stands behind a chain that was let in a moment ago.
pub(crate) fn whose(keeper: &Arc<Doorkeeper>) -> Whose {
    let keeper = Arc::clone(keeper);
    Arc::new(move |chain| {
        let (leaf, intermediates) = chain.split_first()?;
        keeper.whose(leaf, intermediates, UnixTime::now()).ok()
    })
}

impl ClientCertVerifier for Doorkeeper {
    /// None: clients that choose a certificate by its issuer would not show a user's, whose issuer may change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.whose(end_entity, intermediates, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.operators.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.operators.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.operators.supported_verify_schemes()
    }
}
