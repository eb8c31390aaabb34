//! Encryption at rest: every log record and snapshot block is sealed with the node's own data key.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use std::{fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

const NONCE: usize = 24;

/// The key that encrypts one manager's log and snapshots. Made by the node for itself; it never travels.
#[derive(Clone)]
pub struct Dek(Arc<XChaCha20Poly1305>);

impl std::fmt::Debug for Dek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dek(..)")
    }
}

/// A record whose seal is broken: another key, another place, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record does not decrypt")]
pub(crate) struct Unsealed;

impl Dek {
    /// Returns the cipher of a key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Arc::new(XChaCha20Poly1305::new(key.into())))
    }

    /// Returns the key kept in a file (32 bytes, mode 0600), making it if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or has another length.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => {
                let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
                    let text = format!("{} has {} bytes instead of 32", path.display(), bytes.len());
                    io::Error::new(io::ErrorKind::InvalidData, text)
                })?;
                Ok(Self::new(&key))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
                write_whole(path, &key)?;
                Ok(Self::new(&key))
            }
            Err(e) => Err(e),
        }
    }

    /// Returns nonce and ciphertext; `place` must be the same to open it.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|e| io::Error::other(e.to_string()))?;
        let payload = Payload { msg: plain, aad: place };
        let sealed =
            self.0.encrypt(&XNonce::from(nonce), payload).map_err(|e| io::Error::other(e.to_string()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(Unsealed)?;
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| Unsealed)?;
        self.0.decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: place }).map_err(|_| Unsealed)
    }
}

/// Replaces a file so that after a crash it has its old content or its new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes renames and deletions in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_only_where_it_was_written_and_with_its_key() {
        let dek = Dek::new(&[1; 32]);
        let sealed = dek.seal(b"here", b"text").unwrap();
        assert_eq!(dek.open(b"here", &sealed).unwrap(), b"text");
        assert_eq!(dek.open(b"there", &sealed), Err(Unsealed));
        assert_eq!(Dek::new(&[2; 32]).open(b"here", &sealed), Err(Unsealed));
        assert_eq!(dek.open(b"here", &sealed[..10]), Err(Unsealed));
    }

    #[test]
    fn a_key_file_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dek");
        let sealed = Dek::load_or_create(&path).unwrap().seal(b"", b"x").unwrap();
        assert_eq!(Dek::load_or_create(&path).unwrap().open(b"", &sealed).unwrap(), b"x");
    }
}
