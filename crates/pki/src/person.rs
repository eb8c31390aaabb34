//! How people prove who they are: tokens and certificates that a swarm gave them, and passwords.

use crate::{InvalidCertificate, identity::first, sha256};
use aws_lc_rs::{constant_time::verify_slices_are_equal, pbkdf2};
use model::{ClusterId, UserId};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{fmt, num::NonZeroU32, str::FromStr};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const PREFIX: &str = "RSUTKN-1-";
/// Characters of a token's own id.
const ID_CHARS: usize = 8;
const SECRET_BYTES: usize = 32;

/// `RSUTKN-1-<user id>-<token id, 8 hexadecimal digits>-<secret, 64 hexadecimal digits>`.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonToken {
    pub user: UserId,
    /// Which of the user's tokens; no secret.
    pub id: String,
    secret: [u8; SECRET_BYTES],
}

/// A text that is not a user's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a user's token; copy it whole from `rswarm user token create`")]
pub struct InvalidPersonToken;

impl PersonToken {
    /// Returns a fresh token of a user.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate(user: UserId) -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID_CHARS / 2], [0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { user, id: hex(&id), secret })
    }

    /// Returns what is stored in its place: the SHA-256 of the secret. With 256 random bits there is nothing to guess,
    /// so a slow hash would slow down nobody but its owner.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.secret)
    }

    /// Returns true if `hash` is this token's. Takes the same time whatever the difference.
    pub fn matches(&self, hash: &[u8]) -> bool {
        verify_slices_are_equal(&self.hash(), hash).is_ok()
    }
}

/// The text is a password: only `to_string` shows it.
impl fmt::Debug for PersonToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PersonToken({} of {})", self.id, self.user)
    }
}

impl fmt::Display for PersonToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.user, self.id, hex(&self.secret))
    }
}

impl FromStr for PersonToken {
    type Err = InvalidPersonToken;
    fn from_str(text: &str) -> Result<Self, InvalidPersonToken> {
        let mut parts = text.trim().strip_prefix(PREFIX).ok_or(InvalidPersonToken)?.split('-');
        let (Some(user), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidPersonToken);
        };
        let user = user.parse().map_err(|_| InvalidPersonToken)?;
        let mut bytes = [0; ID_CHARS / 2];
        unhex(id, &mut bytes).ok_or(InvalidPersonToken)?;
        let mut token = Self { user, id: hex(&bytes), secret: [0; SECRET_BYTES] };
        unhex(secret, &mut token.secret).ok_or(InvalidPersonToken)?;
        Ok(token)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        write!(out, "{b:02x}").expect("writing to a String cannot fail");
        out
    })
}

fn unhex(text: &str, out: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != 2 * out.len() {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
    for (slot, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *slot = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(())
}

/// What stands in the place of a node's role in a user's certificate.
pub(crate) const USER_UNIT: &str = "swarm-user";

/// A user of a swarm, as his certificate names him: CN user id, OU `swarm-user`, O cluster id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonCertificate {
    pub user: UserId,
    pub cluster: ClusterId,
    /// Hexadecimal.
    pub serial: String,
}

impl PersonCertificate {
    /// Returns the user in the first certificate of a PEM text; see [`PersonCertificate::from_der`].
    ///
    /// # Errors
    /// There is none, or it is not shaped as a user's.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidCertificate> {
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
        Self::from_der(&leaf.map_err(|e| InvalidCertificate::Pem(e.to_string()))?)
    }

    /// Returns the user in a certificate. Does not check who signed it.
    ///
    /// # Errors
    /// It is not shaped as a user's certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| InvalidCertificate::Der(e.to_string()))?;
        let subject = cert.subject();
        let user = first(subject.iter_common_name(), "common name")?;
        let unit = first(subject.iter_organizational_unit(), "organizational unit")?;
        let cluster = first(subject.iter_organization(), "organization")?;
        let bad = |field, value: &str| InvalidCertificate::Field { field, value: value.to_owned() };
        if unit != USER_UNIT {
            return Err(bad("organizational unit", unit));
        }
        Ok(Self {
            user: user.parse().map_err(|_| bad("common name", user))?,
            cluster: cluster.parse().map_err(|_| bad("organization", cluster))?,
            serial: hex(cert.tbs_certificate.raw_serial()),
        })
    }
}

/// *Range* of a password's length. *Unit:* bytes.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 10..=1024;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Source: OWASP Password Storage Cheat Sheet, PBKDF2-HMAC-SHA256.
const ROUNDS: u32 = 600_000;
const ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;

/// Returns what is stored of a password: rounds (4 bytes), salt, PBKDF2-HMAC-SHA256. Takes some tenths of a second of
/// one processor: not for an asynchronous thread.
///
/// # Errors
/// The system has no randomness to give.
pub fn hash_password(password: &str) -> Result<Vec<u8>, getrandom::Error> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)?;
    Ok(derived(password, ROUNDS, &salt))
}

fn derived(password: &str, rounds: u32, salt: &[u8; SALT_BYTES]) -> Vec<u8> {
    let mut hash = [0; HASH_BYTES];
    let count = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MAX);
    pbkdf2::derive(ALGORITHM, count, salt, password.as_bytes(), &mut hash);
    [rounds.to_be_bytes().as_slice(), salt, &hash].concat()
}

/// Returns true if `stored` was made of this password; as slow as [`hash_password`]. Without a stored one it takes the
/// same time to say no, so that nobody learns who has one.
pub fn password_matches(password: &str, stored: Option<&[u8]>) -> bool {
    let parts = stored.and_then(|s| {
        let (rounds, rest) = s.split_first_chunk::<4>()?;
        let (salt, hash) = rest.split_first_chunk::<SALT_BYTES>()?;
        // A shorter one would be compared as the beginning it is.
        (hash.len() == HASH_BYTES).then_some((u32::from_be_bytes(*rounds), salt, hash))
    });
    let Some((rounds, salt, hash)) = parts else {
        derived(password, ROUNDS, &[0; SALT_BYTES]);
        return false;
    };
    let Some(rounds) = NonZeroU32::new(rounds) else { return false };
    pbkdf2::verify(ALGORITHM, rounds, salt, password.as_bytes(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn a_token_survives_being_copied_as_text() {
        for user in [UserId(0), UserId(7), UserId(u128::MAX)] {
            let token = PersonToken::generate(user).unwrap();
            assert_eq!(format!(" {token}\n").parse::<PersonToken>().unwrap(), token);
            assert!(token.matches(&token.hash()));
            assert!(!token.matches(&PersonToken::generate(user).unwrap().hash()));
            assert!(!token.matches(&[]));
            assert!(!format!("{token:?}").contains(&hex(&token.secret)));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = PersonToken::generate(UserId(5)).unwrap().to_string();
        for bad in ["", "RSUTKN-1-", "RSUTKN-1---", &good[..good.len() - 1], &format!("{good}0"), &good[1..]]
        {
            assert_eq!(bad.parse::<PersonToken>(), Err(InvalidPersonToken), "{bad}");
        }
        assert_eq!(good.replace("RSUTKN-1", "RSUTKN-2").parse::<PersonToken>(), Err(InvalidPersonToken));
        assert_eq!(format!("{good}-x").parse::<PersonToken>(), Err(InvalidPersonToken));
    }

    #[test]
    fn a_users_certificate_is_his_and_no_nodes() {
        let root = crate::RootCa::generate(ClusterId(5)).unwrap();
        let csr = crate::NodeKey::generate().unwrap().csr_pem().unwrap();
        let at = model::Timestamp(1_700_000_000_000_000_000);
        let day = model::Duration::from_secs(86_400);
        let chain = root.sign_user_csr_at(at, &csr, UserId(7), ClusterId(5), day).unwrap();
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let found = PersonCertificate::from_der(&leaf).unwrap();
        assert_eq!((found.user, found.cluster), (UserId(7), ClusterId(5)));
        assert!(!found.serial.is_empty());
        assert_eq!(PersonCertificate::from_pem(&chain).unwrap(), found);
        assert!(PersonCertificate::from_pem("nothing").is_err());
        assert!(Identity::from_der(&leaf).is_err(), "it opens no node's door");
        let node = root.sign_csr(&csr, model::NodeId(7), model::Role::Manager, ClusterId(5), day).unwrap();
        let node = CertificateDer::from_pem_slice(node.as_bytes()).unwrap();
        assert!(PersonCertificate::from_der(&node).is_err());
    }

    #[test]
    fn only_the_same_password_matches() {
        let stored = derived("correct horse", 10, &[3; SALT_BYTES]);
        assert!(password_matches("correct horse", Some(&stored)));
        assert!(!password_matches("correct horsf", Some(&stored)));
        assert!(!password_matches("", Some(&stored)));
        assert!(!password_matches("correct horse", Some(&stored[..30])));
        assert!(!password_matches("correct horse", Some(&[])));
    }

    #[test]
    fn the_stored_form_has_its_own_salt_and_enough_rounds() {
        let (a, b) = (hash_password("secret words").unwrap(), hash_password("secret words").unwrap());
        assert_ne!(a, b);
        assert_eq!(a[..4], 600_000_u32.to_be_bytes());
        assert!(password_matches("secret words", Some(&a)));
    }
}
