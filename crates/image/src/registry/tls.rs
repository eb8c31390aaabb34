//! Whom we believe: the system's certificate authorities, and those put beside a registry's name by the administrator.
//!
//! *Source:* Docker docs, "Verify repository client with certificates".

use super::http::TlsConnectorDebug;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

const SYSTEM_ROOTS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
const HOST_ROOTS: [&str; 2] = ["/etc/rswarm/certs.d", "/etc/docker/certs.d"];

/// Returns the connector for `host[:port]`; `verify` off takes any certificate (insecure registries).
///
/// # Errors
/// A certificate file is there and cannot be read.
pub(super) fn connector(host: &str, verify: bool) -> io::Result<TlsConnectorDebug> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let directories: Vec<PathBuf> = HOST_ROOTS.iter().map(|root| Path::new(root).join(host)).collect();
    let builder = if verify {
        builder.with_root_certificates(roots(&directories)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    };
    let config = match client_certificate(&directories)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?,
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnectorDebug(tokio_rustls::TlsConnector::from(Arc::new(config))))
}

fn roots(directories: &[PathBuf]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(system) = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()) {
        // Systems carry a few roots that no parser likes; the others count.
        roots.add_parsable_certificates(certificates(system)?);
    }
    for path in files_with(directories, "crt")? {
        for certificate in certificates(&path)? {
            roots.add(certificate).map_err(io::Error::other)?;
        }
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The first `x.cert` that has an `x.key`.
fn client_certificate(directories: &[PathBuf]) -> io::Result<Option<Identity>> {
    for path in files_with(directories, "cert")? {
        let key = path.with_extension("key");
        if key.exists() {
            let key = PrivateKeyDer::from_pem_file(&key)
                .map_err(|e| io::Error::other(format!("{}: {e}", key.display())))?;
            return Ok(Some((certificates(&path)?, key)));
        }
    }
    Ok(None)
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let named = |e| io::Error::other(format!("{}: {e}", path.display()));
    CertificateDer::pem_file_iter(path).map_err(named)?.collect::<Result<_, _>>().map_err(named)
}

fn files_with(directories: &[PathBuf], extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Believes everyone: for registries the administrator calls insecure.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
