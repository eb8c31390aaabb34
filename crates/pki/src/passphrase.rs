//! Sealing by a passphrase what leaves the swarm's machines: a backup.
//!
//! ```text
//!  "RSSEALv1" [rounds u32 BE][salt: 16 bytes] [AES-256-GCM of the whole, with what is before as additional data]
//! ```
//! The cipher's key is PBKDF2-HMAC-SHA256 of the passphrase, and of a fresh salt each time: it is used for one message.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    pbkdf2,
};
use std::num::NonZeroU32;

const MAGIC: &[u8; 8] = b"RSSEALv1";
const SALT_BYTES: usize = 16;
const HEAD_BYTES: usize = MAGIC.len() + 4 + SALT_BYTES;
/// Source: OWASP Password Storage Cheat Sheet, PBKDF2-HMAC-SHA256.
const ROUNDS: u32 = 600_000;
/// *Limit* of what a file may ask for: some seconds.
const ROUNDS_MAX: u32 = 20_000_000;

/// Why something cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the passphrase is too short: {0} characters at least")]
    TooShort(usize),
    #[error("the passphrase is wrong, or the file is damaged or was cut short")]
    Wrong,
    #[error("the system has no randomness to give")]
    Random,
}

/// *Limit* of a passphrase. *Unit:* characters, at least.
pub const PASSPHRASE_CHARS_MIN: usize = 10;

/// Tells whether bytes are sealed by a passphrase.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Returns `plain` sealed by a passphrase. Takes some tenths of a second of a processor.
///
/// # Errors
/// The passphrase is too short, or there is no randomness.
pub fn seal(passphrase: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    if passphrase.chars().count() < PASSPHRASE_CHARS_MIN {
        return Err(SealError::TooShort(PASSPHRASE_CHARS_MIN));
    }
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|_| SealError::Random)?;
    let head = [MAGIC.as_slice(), &ROUNDS.to_be_bytes(), &salt].concat();
    let mut sealed = plain.to_vec();
    let key = key(passphrase, ROUNDS, &salt)?;
    key.seal_in_place_append_tag(once(), Aad::from(&head), &mut sealed).map_err(|_| SealError::Wrong)?;
    Ok([head, sealed].concat())
}

/// Returns what [`seal`] was given.
///
/// # Errors
/// The passphrase is wrong, or a byte is not as it was.
pub fn open(passphrase: &str, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let (head, sealed) = bytes.split_at_checked(HEAD_BYTES).ok_or(SealError::Wrong)?;
    let rest = head.strip_prefix(MAGIC).ok_or(SealError::Wrong)?;
    let (rounds, salt) = rest.split_first_chunk::<4>().ok_or(SealError::Wrong)?;
    let rounds = u32::from_be_bytes(*rounds);
    if rounds > ROUNDS_MAX {
        return Err(SealError::Wrong);
    }
    let mut sealed = sealed.to_vec();
    let key = key(passphrase, rounds, salt)?;
    let plain = key.open_in_place(once(), Aad::from(head), &mut sealed).map_err(|_| SealError::Wrong)?;
    Ok(plain.to_vec())
}

fn key(passphrase: &str, rounds: u32, salt: &[u8]) -> Result<LessSafeKey, SealError> {
    let rounds = NonZeroU32::new(rounds).ok_or(SealError::Wrong)?;
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, passphrase.as_bytes(), &mut key);
    UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new).map_err(|_| SealError::Wrong)
}

/// Returns the nonce of a cipher that is used for one message.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_whole_and_with_its_passphrase_only() {
        let sealed = seal("correct horse", b"the root key").unwrap();
        assert!(is_sealed(&sealed) && !is_sealed(b"the root key"));
        assert!(!sealed.windows(8).any(|w| w == b"root key"));
        assert_eq!(open("correct horse", &sealed).unwrap(), b"the root key");
        assert_ne!(sealed, seal("correct horse", b"the root key").unwrap());
        assert_eq!(open("correct horsf", &sealed), Err(SealError::Wrong));
        for cut in [0, 4, HEAD_BYTES, sealed.len() - 1] {
            assert_eq!(open("correct horse", &sealed[..cut]), Err(SealError::Wrong), "cut at {cut}");
        }
        // One place in each part: rounds are few then, or very many.
        for place in [0, 8, 10, 12, HEAD_BYTES, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[place] ^= 0x40;
            assert_eq!(open("correct horse", &changed), Err(SealError::Wrong), "changed at {place}");
        }
        assert_eq!(seal("short", b""), Err(SealError::TooShort(PASSPHRASE_CHARS_MIN)));
    }
}
