//! Join tokens: what a new node must know to trust the swarm (the digest) and to be trusted by it (the secret).

use std::{fmt, str::FromStr};

const PREFIX: &str = "SWMTKN";
const VERSION: &str = "1";
const DIGEST_CHARS: usize = 50;
const SECRET_CHARS: usize = 25;

/// `SWMTKN-1-<base 36 SHA-256 of the root certificate, 50 characters>-<base 36 secret, 25 characters>`.
/// Source: SwarmKit `ca.GenerateJoinToken`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the DER of the swarm's root certificate.
    pub digest: [u8; 32],
    secret: [u8; 16],
}

/// A text that is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error(
        "join token must begin with \"SWMTKN-1-\"; print a fresh one on a manager with `swarm join-token`"
    )]
    Prefix,
    #[error("join token is incomplete or mistyped; copy it whole from `swarm join-token` on a manager")]
    Malformed,
}

impl JoinToken {
    /// Returns a token with a fresh random secret.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate(digest: [u8; 32]) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        Ok(Self { digest, secret })
    }

    /// Returns the token made of a stored secret; `None` unless it has 16 bytes.
    pub fn from_secret(digest: [u8; 32], secret: &[u8]) -> Option<Self> {
        Some(Self { digest, secret: secret.try_into().ok()? })
    }

    /// Returns the secret half, as the managers keep it.
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// Returns true if `secret` is this token's. Takes the same time whatever the difference.
    pub fn matches(&self, secret: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.secret, secret).is_ok()
    }
}

/// The text is a password: only `to_string` shows it.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken(..)")
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}-{VERSION}-{}-{}",
            base36(&self.digest, DIGEST_CHARS),
            base36(&self.secret, SECRET_CHARS)
        )
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.trim().split('-');
        if parts.next() != Some(PREFIX) || parts.next() != Some(VERSION) {
            return Err(InvalidToken::Prefix);
        }
        let (Some(digest), Some(secret), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidToken::Malformed);
        };
        let mut token = Self { digest: [0; 32], secret: [0; 16] };
        unbase36(digest, DIGEST_CHARS, &mut token.digest).ok_or(InvalidToken::Malformed)?;
        unbase36(secret, SECRET_CHARS, &mut token.secret).ok_or(InvalidToken::Malformed)?;
        Ok(token)
    }
}

/// Returns a big-endian number in base 36, `chars` long.
fn base36(bytes: &[u8], chars: usize) -> String {
    let mut number = bytes.to_vec();
    let mut out = vec![b'0'; chars];
    for slot in out.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 36).expect("rest < 36, so the quotient is below 256");
            rest = value % 36;
        }
        *slot = b"0123456789abcdefghijklmnopqrstuvwxyz"[rest as usize];
    }
    String::from_utf8(out).expect("the alphabet is ASCII")
}

/// Reads what [`base36`] wrote; `None` if it is of another length or alphabet or does not fit.
fn unbase36(text: &str, chars: usize, out: &mut [u8]) -> Option<()> {
    if text.len() != chars {
        return None;
    }
    for c in text.bytes() {
        let mut carry = match c {
            b'0'..=b'9' => u32::from(c - b'0'),
            b'a'..=b'z' => u32::from(c - b'a') + 10,
            _ => return None,
        };
        for byte in out.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_copied_as_text() {
        for (digest, secret) in [([0; 32], [0; 16]), ([0xff; 32], [0xff; 16]), ([7; 32], [200; 16])] {
            let token = JoinToken { digest, secret };
            let text = token.to_string();
            assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
            assert_eq!(text.parse::<JoinToken>().unwrap(), token);
            assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        }
    }

    #[test]
    fn only_the_same_secret_matches() {
        let token = JoinToken::generate([1; 32]).unwrap();
        assert!(token.matches(token.clone().secret()));
        assert!(!token.matches(&[0; 16]));
        assert!(!token.matches(&token.secret()[..15]));
    }

    #[test]
    fn mistyped_tokens_say_what_to_do() {
        let good = JoinToken { digest: [9; 32], secret: [3; 16] }.to_string();
        for (text, error) in [
            ("hello".to_owned(), InvalidToken::Prefix),
            (good.replace("SWMTKN-1", "SWMTKN-2"), InvalidToken::Prefix),
            (good[..good.len() - 1].to_owned(), InvalidToken::Malformed),
            (format!("{good}Z").replace('0', "O"), InvalidToken::Malformed),
            (format!("{good}-x"), InvalidToken::Malformed),
            (format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25)), InvalidToken::Malformed),
        ] {
            assert_eq!(text.parse::<JoinToken>(), Err(error), "{text}");
            assert!(error.to_string().contains("join-token"));
        }
    }
}
