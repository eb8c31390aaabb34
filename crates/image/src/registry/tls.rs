//! Whom we believe: the system's certificate authorities, and those put beside a registry's name by the administrator.
//!
//! *Source:* Docker docs, "Verify repository client with certificates"; Go's `crypto/x509`, `SSL_CERT_FILE` and
//! `SSL_CERT_DIR`, which dockerd keeps to.

use super::http::TlsConnectorDebug;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use std::{
    env,
    ffi::OsString,
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
        let system = SystemRoots::named(env::var_os("SSL_CERT_FILE"), env::var_os("SSL_CERT_DIR"));
        builder.with_root_certificates(roots(&system, &directories)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    };
    let config = match client_certificate(&directories)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?,
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnectorDebug(tokio_rustls::TlsConnector::from(Arc::new(config))))
}

/// Where the certificates of the authorities are that this host believes.
#[derive(Debug, Default, PartialEq, Eq)]
struct SystemRoots {
    /// In place of the system's own.
    file: Option<PathBuf>,
    /// Whose files count too.
    directories: Vec<PathBuf>,
}

impl SystemRoots {
    /// Reads what the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` (some, by colons) say; empty ones say nothing.
    fn named(file: Option<OsString>, directories: Option<OsString>) -> Self {
        let said = |value: Option<OsString>| value.filter(|value| !value.is_empty());
        let directories = said(directories).map(|all| env::split_paths(&all).collect()).unwrap_or_default();
        Self { file: said(file).map(PathBuf::from), directories }
    }
}

fn roots(system: &SystemRoots, directories: &[PathBuf]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let usual = || SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
    // Systems carry a few roots that no parser likes; the others count.
    if let Some(file) = system.file.clone().or_else(usual) {
        roots.add_parsable_certificates(certificates(&file)?);
    }
    for path in files(&system.directories)? {
        // Beside certificates there may be lists of revoked ones, and links to what is gone.
        match certificates(&path) {
            Ok(found) => {
                roots.add_parsable_certificates(found);
            }
            Err(error) => tracing::debug!(%error, "a file of SSL_CERT_DIR is not read"),
        }
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
    let mut files = files(directories)?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(files)
}

/// Returns what is in the folders that are there.
fn files(directories: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        for entry in fs::read_dir(directory)? {
            files.push(entry?.path());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_other_programs_name_the_authorities() {
        let named = |file: &str, directories: &str| {
            SystemRoots::named(Some(file.to_owned().into()), Some(directories.to_owned().into()))
        };
        assert_eq!(named("", ""), SystemRoots::default());
        let made = rcgen::generate_simple_self_signed(["registry.example".to_owned()]).unwrap();
        let root = made.cert.pem();
        let folder = tempfile::tempdir().unwrap();
        let (inside, file) = (folder.path().join("inside"), folder.path().join("roots.pem"));
        fs::create_dir(&inside).unwrap();
        fs::write(&file, &root).unwrap();
        fs::write(inside.join("0a1b2c3d.0"), &root).unwrap();
        fs::write(inside.join("notes.txt"), "no certificate").unwrap();
        let (file, inside) = (file.to_str().unwrap(), inside.to_str().unwrap());
        assert_eq!(roots(&named(file, ""), &[]).unwrap().len(), 1);
        let none = format!("{inside}/notes.txt");
        assert_eq!(roots(&named(&none, &format!("/nowhere:{inside}")), &[]).unwrap().len(), 1);
        let missing = roots(&named("/nowhere/roots.pem", ""), &[]).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/roots.pem"), "{missing}");
    }
}
