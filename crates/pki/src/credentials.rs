//! A node's own key, chain and trusted roots: on disk, in memory, and in every TLS configuration made from them.
//!
//! ```text
//!  <dir>/node.pem   private key and certificate chain, one file so that they change together   0600
//!                   (of a manager with autolock on, the key is sealed: module `lock`)
//!  <dir>/root.pem   the roots this node trusts; written first, so that a new chain is never without its root
//! ```

use crate::{
    Authority, Identity, PersonCertificate,
    identity::{Facts, InvalidCertificate},
    lock::{UnlockKey, is_locked},
    provider,
    verify::{ClientVerifier, Clock, Expected, ServerVerifier, Trust, client_chain_check, with_skew},
};
use arc_swap::ArcSwap;
use model::{Role, Timestamp};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const NODE_FILE: &str = "node.pem";
const ROOT_FILE: &str = "root.pem";
/// What a node's private key is sealed for.
const PURPOSE: &str = "node certificate";
const FIRST_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Why credentials cannot be used, loaded or stored.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("node certificate is unusable")]
    Certificate(#[from] InvalidCertificate),
    #[error("node key is unusable: {0}")]
    Key(String),
    #[error("node key does not belong to its certificate")]
    Mismatch(#[source] rustls::Error),
    #[error("root certificates are unusable: {0}")]
    Roots(String),
    #[error("the node's key is locked")]
    Locked,
    #[error("the unlock key does not open the node's key")]
    WrongUnlockKey,
}

/// Everything made of one set of files.
#[derive(Debug)]
pub(crate) struct Current {
    facts: Facts,
    certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    key_pem: String,
    chain_pem: String,
    root_pem: String,
}

/// A node's credentials. Cheap to clone; all clones change together when they are renewed, and so does every
/// TLS configuration made from them (open connections keep what they began with).
#[derive(Debug, Clone)]
pub struct Credentials {
    dir: Option<Arc<Path>>,
    current: Arc<ArcSwap<Current>>,
    /// Seals the key on disk. Held while files are written, so that two changes do not mix.
    lock: Arc<Mutex<Option<UnlockKey>>>,
}

impl Credentials {
    /// Returns credentials that live in memory only.
    ///
    /// # Errors
    /// A text is not PEM of the right kind, or key and certificate do not belong together.
    pub fn in_memory(key_pem: &str, chain_pem: &str, root_pem: &str) -> Result<Self, CredentialsError> {
        Ok(Self::of(Current::parse(key_pem, chain_pem, root_pem)?, None, None))
    }

    fn of(current: Current, dir: Option<&Path>, lock: Option<UnlockKey>) -> Self {
        Self {
            dir: dir.map(Into::into),
            current: Arc::new(ArcSwap::from_pointee(current)),
            lock: Arc::new(Mutex::new(lock)),
        }
    }

    /// Checks credentials, stores them durably in `dir`, sealed by `lock` if there is one, and returns them.
    ///
    /// # Errors
    /// As [`Credentials::in_memory`], or the directory cannot be written; what was there then stays usable.
    pub fn create(
        dir: &Path,
        key_pem: &str,
        chain_pem: &str,
        root_pem: &str,
        lock: Option<UnlockKey>,
    ) -> Result<Self, CredentialsError> {
        let current = Current::parse(key_pem, chain_pem, root_pem)?;
        current.write(dir, lock.as_ref())?;
        Ok(Self::of(current, Some(dir), lock))
    }

    /// Returns the credentials stored in `dir`, or `None` if it has none.
    ///
    /// # Errors
    /// They are there but cannot be read or used: [`CredentialsError::Locked`] when `unlock` is missing,
    /// [`CredentialsError::WrongUnlockKey`] when it is another.
    pub fn load(dir: &Path, unlock: Option<&UnlockKey>) -> Result<Option<Self>, CredentialsError> {
        let read = |name| {
            let path = dir.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(CredentialsError::Read { path, source }),
            }
        };
        let (Some(node), Some(root)) = (read(NODE_FILE)?, read(ROOT_FILE)?) else { return Ok(None) };
        let (key, chain) = node.split_at(node.find(FIRST_CERTIFICATE).unwrap_or(node.len()));
        let (key, lock) = match (is_locked(key), unlock) {
            (false, _) => (key.to_owned(), None),
            (true, None) => return Err(CredentialsError::Locked),
            (true, Some(unlock)) => {
                let opened = unlock.open(PURPOSE, key).ok_or(CredentialsError::WrongUnlockKey)?;
                (String::from_utf8_lossy(&opened).into_owned(), Some(unlock.clone()))
            }
        };
        Ok(Some(Self::of(Current::parse(&key, chain, &root)?, Some(dir), lock)))
    }

    /// Replaces key and chain (renewal, promotion, demotion) and the roots; durable before it is used. The lock stays
    /// as it is, but a worker's key has none.
    ///
    /// # Errors
    /// As [`Credentials::create`]; the old ones then stay in use.
    pub fn replace(&self, key_pem: &str, chain_pem: &str, root_pem: &str) -> Result<(), CredentialsError> {
        let mut lock = self.locked_by();
        self.switch(Current::parse(key_pem, chain_pem, root_pem)?, &mut lock)
    }

    /// Replaces the trusted roots only.
    ///
    /// # Errors
    /// As [`Credentials::create`]; the old ones then stay in use.
    pub fn replace_roots(&self, root_pem: &str) -> Result<(), CredentialsError> {
        let mut lock = self.locked_by();
        let current = self.current.load();
        self.switch(Current::parse(&current.key_pem, &current.chain_pem, root_pem)?, &mut lock)
    }

    /// Replaces everything, the lock too: a worker becomes a manager, and the other way round.
    ///
    /// # Errors
    /// As [`Credentials::create`]; the old ones then stay in use.
    pub fn replace_and_lock(
        &self,
        key_pem: &str,
        chain_pem: &str,
        root_pem: &str,
        new: Option<UnlockKey>,
    ) -> Result<(), CredentialsError> {
        let (mut held, mut new) = (self.locked_by(), new);
        self.switch(Current::parse(key_pem, chain_pem, root_pem)?, &mut new)?;
        *held = new;
        Ok(())
    }

    /// Seals the key on disk with another unlock key, or with none.
    ///
    /// # Errors
    /// The directory cannot be written; the old lock then stays.
    pub fn relock(&self, new: Option<UnlockKey>) -> Result<(), CredentialsError> {
        let mut lock = self.locked_by();
        if let Some(dir) = &self.dir {
            self.current.load().write(dir, new.as_ref())?;
        }
        *lock = new;
        Ok(())
    }

    /// Returns what seals the key on disk.
    pub fn lock(&self) -> Option<UnlockKey> {
        self.locked_by().clone()
    }

    fn locked_by(&self) -> MutexGuard<'_, Option<UnlockKey>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switch(&self, next: Current, lock: &mut Option<UnlockKey>) -> Result<(), CredentialsError> {
        if next.facts.identity.role == Role::Worker {
            *lock = None;
        }
        if let Some(dir) = &self.dir {
            next.write(dir, lock.as_ref())?;
        }
        self.current.store(Arc::new(next));
        Ok(())
    }

    pub fn identity(&self) -> Identity {
        self.current.load().facts.identity
    }

    /// Returns when the certificate begins and ends to be valid.
    pub fn validity(&self) -> (Timestamp, Timestamp) {
        let current = self.current.load();
        (current.facts.not_before, current.facts.not_after)
    }

    /// Returns the trusted roots as PEM.
    pub fn root_pem(&self) -> String {
        self.current.load().root_pem.clone()
    }

    /// Returns the user whose certificate (chain, leaf first) this swarm has signed.
    ///
    /// # Errors
    /// It has not, the certificate is not valid now, or it is not a user's.
    pub fn verify_person(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PersonCertificate, rustls::Error> {
        let current = self.current.load();
        with_skew(now, leaf, |at| current.clients.verify_client_cert(leaf, intermediates, at))?;
        let person = PersonCertificate::from_der(leaf).map_err(|e| rustls::Error::General(e.to_string()))?;
        if person.cluster == current.facts.identity.cluster {
            Ok(person)
        } else {
            Err(rustls::Error::General("the certificate is of another swarm".to_owned()))
        }
    }

    /// Returns the authority that issued this node's certificate; `None`: nothing that came with it says.
    pub fn issuer(&self) -> Option<Authority> {
        let current = self.current.load();
        let (leaf, others) = current.certified.cert.split_first()?;
        others.iter().filter_map(|other| Authority::of(other).ok()).find(|a| a.has_issued(leaf))
    }

    /// Returns the TLS server configuration: client certificates are optional, but must be the swarm's.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let provider = provider();
        let verifier = ClientVerifier { current: self.current.clone(), provider: provider.clone() };
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(Clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("aws-lc-rs supports TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Resolver(self.current.clone())));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// Returns the TLS client configuration for reaching `expected`.
    pub fn client_config(&self, expected: Expected) -> Arc<ClientConfig> {
        let trust = Trust::Swarm(self.current.clone());
        client_config(trust, expected, Some(Resolver(self.current.clone())))
    }
}

/// Returns a client configuration; without a resolver the client shows no certificate.
pub(crate) fn client_config(
    trust: Trust,
    expected: Expected,
    resolver: Option<Resolver>,
) -> Arc<ClientConfig> {
    let provider = provider();
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(Clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("aws-lc-rs supports TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { trust, expected, provider }));
    let mut config = match resolver {
        Some(resolver) => builder.with_client_cert_resolver(Arc::new(resolver)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

impl Current {
    fn parse(key_pem: &str, chain_pem: &str, root_pem: &str) -> Result<Self, CredentialsError> {
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|e| CredentialsError::Key(e.to_string()))?;
        let mut chain = certificates(chain_pem)?;
        let leaf = chain.first().ok_or(InvalidCertificate::Missing("content"))?;
        let facts = Facts::from_der(leaf)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(root_pem)? {
            roots.add(root.clone()).map_err(|e| CredentialsError::Roots(e.to_string()))?;
            // A joiner knows only the root's digest, so the server sends the root along.
            if !chain.contains(&root) {
                chain.push(root);
            }
        }
        if roots.is_empty() {
            return Err(CredentialsError::Roots("no certificate".to_owned()));
        }
        let signer = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|e| CredentialsError::Key(e.to_string()))?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(CredentialsError::Mismatch)?;
        let roots = Arc::new(roots);
        Ok(Self {
            facts,
            certified: Arc::new(certified),
            clients: client_chain_check(roots.clone()).map_err(|e| CredentialsError::Roots(e.to_string()))?,
            roots,
            key_pem: key_pem.to_owned(),
            chain_pem: chain_pem.to_owned(),
            root_pem: root_pem.to_owned(),
        })
    }

    fn write(&self, dir: &Path, lock: Option<&UnlockKey>) -> Result<(), CredentialsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CredentialsError::Write { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
        let key = match lock {
            Some(lock) => lock.seal(PURPOSE, self.key_pem.as_bytes()).map_err(failed(dir))?,
            None => self.key_pem.clone(),
        };
        let node_pem = format!("{key}{}", self.chain_pem);
        for (name, text) in [(ROOT_FILE, &self.root_pem), (NODE_FILE, &node_pem)] {
            let path = dir.join(name);
            sys::durable::replace(&path, text.as_bytes(), 0o600).map_err(failed(&path))?;
        }
        Ok(())
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, InvalidCertificate> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| InvalidCertificate::Pem(e.to_string()))
}

/// Shows whatever certificate is current when a handshake begins.
#[derive(Debug)]
pub(crate) struct Resolver(Arc<ArcSwap<Current>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified.clone())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
