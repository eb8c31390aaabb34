//! The lock of a manager's keys: with autolock on, what opens its log and its certificate is on disk only sealed
//! by the swarm's unlock key, which people keep.
//!
//! A sealed key is a block of text between `-----BEGIN RSWARM LOCKED KEY-----` and its end: base 64 of a random salt
//! and AES-256-GCM's output. The cipher's key is derived (HKDF-SHA-256) from the unlock key, the salt and the purpose,
//! so that no two blocks share one, and a block of one file does not open as that of another.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use std::{fmt, io, str::FromStr};

const PREFIX: &str = "SWMKEY-1-";
const BEGIN: &str = "-----BEGIN RSWARM LOCKED KEY-----";
const END: &str = "-----END RSWARM LOCKED KEY-----";
const SALT: usize = 32;
const LINE: usize = 64;

/// `SWMKEY-1-` and 32 random bytes in base 64. *Source:* SwarmKit `encryption.HumanReadableKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; 32]);

/// A text that is not an unlock key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an unlock key is \"SWMKEY-1-\" and 43 characters; `swarm unlock-key` on an unlocked manager shows it"
)]
pub struct InvalidUnlockKey;

/// The text is a password: only `to_string` shows it.
impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnlockKey(..)")
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl FromStr for UnlockKey {
    type Err = InvalidUnlockKey;
    fn from_str(text: &str) -> Result<Self, InvalidUnlockKey> {
        let key = text.trim().strip_prefix(PREFIX).ok_or(InvalidUnlockKey)?;
        let key = STANDARD_NO_PAD.decode(key.trim_end_matches('=')).map_err(|_| InvalidUnlockKey)?;
        key.try_into().map(Self).map_err(|_| InvalidUnlockKey)
    }
}

impl UnlockKey {
    /// Returns a new key.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// Returns `plain` sealed for `purpose`, as a block of text.
    ///
    /// # Errors
    /// No randomness.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> io::Result<String> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|e| io::Error::other(e.to_string()))?;
        let mut sealed = plain.to_vec();
        self.cipher(&salt, purpose)
            .and_then(|cipher| {
                let aad = Aad::from(purpose.as_bytes());
                cipher.seal_in_place_append_tag(once(), aad, &mut sealed).ok()
            })
            .ok_or_else(|| io::Error::other("cannot encrypt a key"))?;
        let text = STANDARD.encode([salt.as_slice(), &sealed].concat());
        let mut block = format!("{BEGIN}\n");
        for line in text.as_bytes().chunks(LINE) {
            block.push_str(&String::from_utf8_lossy(line));
            block.push('\n');
        }
        block.push_str(END);
        block.push('\n');
        Ok(block)
    }

    /// Returns what one of the blocks in `text` hides; `None`: this key opens none of them for this purpose.
    pub fn open(&self, purpose: &str, text: &str) -> Option<Vec<u8>> {
        blocks(text).find_map(|block| {
            let block: String = block.split_whitespace().collect();
            let bytes = STANDARD.decode(block).ok()?;
            let (salt, sealed) = bytes.split_at_checked(SALT)?;
            let mut sealed = sealed.to_vec();
            let cipher = self.cipher(salt, purpose)?;
            let plain = cipher.open_in_place(once(), Aad::from(purpose.as_bytes()), &mut sealed).ok()?;
            Some(plain.to_vec())
        })
    }

    fn cipher(&self, salt: &[u8], purpose: &str) -> Option<LessSafeKey> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let info = [b"rswarm key file: ".as_slice(), purpose.as_bytes()];
        let key = UnboundKey::from(derived.expand(&info, &AES_256_GCM).ok()?);
        Some(LessSafeKey::new(key))
    }
}

/// Tells whether a text has a sealed key.
pub fn is_locked(text: &str) -> bool {
    blocks(text).next().is_some()
}

/// Returns the insides of the blocks in a text.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END).map(|(block, _)| block))
}

/// Returns the nonce of a cipher that is used for one message.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_with_its_unlock_key_and_for_its_purpose_only() {
        let (key, other) = (UnlockKey::generate().unwrap(), UnlockKey::generate().unwrap());
        let block = key.seal("a", b"the key itself").unwrap();
        assert!(is_locked(&block) && !block.contains("the key itself"));
        assert_eq!(key.open("a", &block).unwrap(), b"the key itself");
        assert_eq!(other.open("a", &block), None);
        assert_eq!(key.open("b", &block), None);
        assert_ne!(
            block,
            key.seal("a", b"the key itself").unwrap(),
            "the same text twice tells that it is the same"
        );
        let damaged = block.replacen(|c: char| c.is_ascii_lowercase(), "A", 1);
        assert_eq!(key.open("a", &damaged), None);
    }

    #[test]
    fn the_block_that_a_key_opens_is_found_among_others() {
        let (old, new) = (UnlockKey::generate().unwrap(), UnlockKey::generate().unwrap());
        let text = format!("{}{}", old.seal("a", b"k").unwrap(), new.seal("a", b"k").unwrap());
        assert_eq!(old.open("a", &text).unwrap(), b"k");
        assert_eq!(new.open("a", &text).unwrap(), b"k");
    }

    #[test]
    fn an_unlock_key_is_read_as_it_is_shown_and_does_not_show_otherwise() {
        let key = UnlockKey::generate().unwrap();
        assert_eq!(format!(" {key}\n").parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "UnlockKey(..)");
        for wrong in ["", "SWMKEY-1-", "SWMKEY-1-abc", "SWMKEY-2-AAAA", "secret"] {
            assert_eq!(wrong.parse::<UnlockKey>(), Err(InvalidUnlockKey), "{wrong}");
        }
    }
}
