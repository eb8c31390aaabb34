//! Encryption at rest: every log record and snapshot block is sealed with the node's own data key.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use pki::UnlockKey;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

const NONCE: usize = 24;

/// What the key is sealed for, where autolock is on.
const PURPOSE: &str = "raft log";
const PLAIN_BEGIN: &str = "-----BEGIN RSWARM KEY-----";
const PLAIN_END: &str = "-----END RSWARM KEY-----";

/// The key that encrypts one manager's log and snapshots. Made by the node for itself; it never travels.
#[derive(Clone)]
pub struct Dek(Arc<Inner>);

struct Inner {
    cipher: XChaCha20Poly1305,
    key: [u8; 32],
}

impl std::fmt::Debug for Dek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dek(..)")
    }
}

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot use {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has no key")]
    Damaged { path: PathBuf },
    #[error("the unlock key does not open {path}")]
    WrongUnlockKey { path: PathBuf },
}

/// A record whose seal is broken: another key, another place, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record does not decrypt")]
pub(crate) struct Unsealed;

impl Dek {
    /// Returns the cipher of a key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Arc::new(Inner { cipher: XChaCha20Poly1305::new(key.into()), key: *key }))
    }

    /// Returns the key kept in a file (mode 0600), making it if there is none. With a `lock`, the file has it sealed
    /// by that unlock key only; without, it is 32 plain bytes. A change of lock that a crash cut short is finished.
    ///
    /// # Errors
    /// [`KeyError`]; nothing was changed then.
    pub fn load_or_create(path: &Path, lock: Option<&UnlockKey>) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|e| failed(io::Error::other(e.to_string())))?;
                let made = Self::new(&key);
                made.store(path, &[lock]).map_err(failed)?;
                return Ok(made);
            }
            Err(e) => return Err(failed(e)),
        };
        let damaged = || KeyError::Damaged { path: path.to_owned() };
        if let Ok(key) = <[u8; 32]>::try_from(bytes.as_slice()) {
            let dek = Self::new(&key);
            if lock.is_some() {
                dek.store(path, &[lock]).map_err(failed)?;
            }
            return Ok(dek);
        }
        let text = String::from_utf8(bytes).map_err(|_| damaged())?;
        let key = match lock {
            Some(_) if !pki::is_locked(&text) => return Err(damaged()),
            Some(lock) => {
                lock.open(PURPOSE, &text).ok_or_else(|| KeyError::WrongUnlockKey { path: path.to_owned() })?
            }
            None => plain_block(&text).ok_or_else(damaged)?,
        };
        let dek = Self::new(&key.try_into().map_err(|_| damaged())?);
        if text.matches("-----BEGIN").count() > 1 {
            dek.store(path, &[lock]).map_err(failed)?;
        }
        Ok(dek)
    }

    /// Writes the key so that each of these locks opens it; `None` is no lock. Durable, or not done at all.
    ///
    /// # Errors
    /// The disk refuses; the file is as before.
    pub fn store(&self, path: &Path, locks: &[Option<&UnlockKey>]) -> io::Result<()> {
        if let [None] = locks {
            return sys::durable::replace(path, &self.0.key, 0o600);
        }
        let mut text = String::new();
        for lock in locks {
            match lock {
                Some(lock) => text.push_str(&lock.seal(PURPOSE, &self.0.key)?),
                None => {
                    let hex: String = self.0.key.iter().map(|byte| format!("{byte:02x}")).collect();
                    text.push_str(&format!("{PLAIN_BEGIN}\n{hex}\n{PLAIN_END}\n"));
                }
            }
        }
        sys::durable::replace(path, text.as_bytes(), 0o600)
    }

    /// Returns nonce and ciphertext; `place` must be the same to open it.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|e| io::Error::other(e.to_string()))?;
        let payload = Payload { msg: plain, aad: place };
        let sealed = self
            .0
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|e| io::Error::other(e.to_string()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(Unsealed)?;
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| Unsealed)?;
        self.0.cipher.decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: place }).map_err(|_| Unsealed)
    }
}

/// Returns the key that a file has beside sealed ones, while its lock is being put on or taken off.
fn plain_block(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(PLAIN_BEGIN)?;
    let hex = rest.split_once(PLAIN_END)?.0.trim();
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(byte).collect()
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
        let sealed = Dek::load_or_create(&path, None).unwrap().seal(b"", b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 32);
        assert_eq!(Dek::load_or_create(&path, None).unwrap().open(b"", &sealed).unwrap(), b"x");
    }

    /// Tells whether the file opens, and has the right key then.
    fn opens(path: &Path, lock: Option<&UnlockKey>, sealed: &[u8]) -> bool {
        Dek::load_or_create(path, lock).is_ok_and(|dek| dek.open(b"", sealed).is_ok())
    }

    #[test]
    fn a_locked_key_file_opens_with_its_unlock_key_only_and_has_no_plain_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dek");
        let (key, other) = (UnlockKey::generate().unwrap(), UnlockKey::generate().unwrap());
        let dek = Dek::load_or_create(&path, Some(&key)).unwrap();
        let sealed = dek.seal(b"", b"x").unwrap();
        assert!(opens(&path, Some(&key), &sealed));
        let wrong = Dek::load_or_create(&path, Some(&other)).unwrap_err();
        assert!(matches!(wrong, KeyError::WrongUnlockKey { .. }), "{wrong}");
        assert!(Dek::load_or_create(&path, None).is_err());
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(32).any(|w| w == dek.0.key));
    }

    #[test]
    fn while_the_lock_changes_both_open_the_file_and_the_next_start_keeps_the_one_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dek");
        let (old, new) = (UnlockKey::generate().unwrap(), UnlockKey::generate().unwrap());
        for (before, after) in [(None, Some(&new)), (Some(&old), Some(&new)), (Some(&old), None)] {
            for kept in [before, after] {
                fs::remove_file(&path).ok();
                let dek = Dek::load_or_create(&path, before).unwrap();
                let sealed = dek.seal(b"", b"x").unwrap();
                dek.store(&path, &[before, after]).unwrap();
                assert!(opens(&path, kept, &sealed));
                let dropped = if kept == before { after } else { before };
                if kept.is_some() {
                    assert!(!opens(&path, dropped, &sealed));
                }
                assert!(opens(&path, kept, &sealed));
            }
        }
    }
}
