//! TLS with client certificates, as Docker protects its TCP socket. *Source:* Docker docs, "Protect the Docker daemon
//! socket"; dockerd(8), `--tlsverify`.

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The three files (PEM) that prove who one is and who is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `--tlscacert`: who signs the other side's certificate.
    pub ca: PathBuf,
    /// `--tlscert`
    pub cert: PathBuf,
    /// `--tlskey`
    pub key: PathBuf,
}

impl Files {
    /// Docker's names in a folder: `ca.pem`, `cert.pem`, `key.pem`.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { ca: folder.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") }
    }
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {what} {}", path.display())]
    Read { what: &'static str, path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("cannot use {what} {}", path.display())]
    Use { what: &'static str, path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = |source| Error::Read { what, path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    if found.is_empty() { Err(read(rustls_pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn roots(files: &Files) -> Result<RootCertStore, Error> {
    let what = "the CA certificate";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, &files.ca)? {
        roots.add(certificate).map_err(|e| Error::Use { what, path: files.ca.clone(), source: e.into() })?;
    }
    Ok(roots)
}

fn key(files: &Files) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(&files.key).map_err(|source| Error::Read {
        what: "the private key",
        path: files.key.clone(),
        source,
    })
}

fn unusable<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |e| Error::Use { what, path, source: e.into() }
}

/// Returns the check of clients: their certificate must be signed by the CA.
///
/// # Errors
/// The CA's file cannot be read or used.
pub fn client_verifier(files: &Files) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(files)?), provider())
        .build()
        .map_err(unusable("the CA certificate", &files.ca))
}

/// Returns what a daemon serves with; with `verify` it serves those alone whom that lets in.
///
/// # Errors
/// A file cannot be read, or certificate and key do not go together.
pub fn server_config(
    files: &Files,
    verify: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable("the certificate", &files.cert))?;
    let builder = match verify {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificates("the certificate", &files.cert)?, key(files)?)
        .map_err(unusable("the certificate", &files.cert))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Returns what a client connects with. Without a certificate and key it shows none.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(files: &Files) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable("the CA certificate", &files.ca))?
        .with_root_certificates(roots(files)?);
    let config = if files.cert.exists() || files.key.exists() {
        builder
            .with_client_auth_cert(certificates("the certificate", &files.cert)?, key(files)?)
            .map_err(unusable("the certificate", &files.cert))?
    } else {
        builder.with_no_client_auth()
    };
    Ok(Arc::new(config))
}
