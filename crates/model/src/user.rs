//! People: who may use the swarm without being one of its nodes, and what was done by whom.

use crate::{AuditId, Meta, NodeId, PersonRole, SecretBytes, Timestamp, UserId};

/// *Limit* of users in a swarm.
pub const USERS_MAX: usize = 1_000;
/// *Limit* of tokens that one user has.
pub const TOKENS_MAX: usize = 32;
/// *Limit* of certificates that one user has, those that were revoked and have not expired yet among them.
pub const CERTIFICATES_MAX: usize = 32;
/// *Limit* of stack patterns of one user.
pub const STACK_PATTERNS_MAX: usize = 64;
/// *Limit* of audit records that are kept: the oldest goes when one more comes.
pub const AUDIT_MAX: usize = 10_000;

/// A person whom the swarm knows. Whoever removes it ends its access, its tokens' and its certificates'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub meta: Meta,
    /// Unique; letters, digits, `.`, `_` and `-`.
    pub name: String,
    pub role: PersonRole,
    /// `None`: no login by password.
    pub password: Option<SecretBytes>,
    /// At most [`TOKENS_MAX`].
    pub tokens: Vec<UserToken>,
    /// Those that were issued and may not have expired yet; at most [`CERTIFICATES_MAX`].
    pub certificates: Vec<UserCertificate>,
}

/// A certificate that the swarm signed for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCertificate {
    /// Hexadecimal; unique in a swarm.
    pub serial: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
    /// It is worth nothing any more. Kept until it expires by itself.
    pub revoked: bool,
}

impl User {
    /// Returns true if the user's certificate of this serial number was revoked.
    pub fn has_revoked(&self, serial: &str) -> bool {
        self.certificates.iter().any(|certificate| certificate.revoked && certificate.serial == serial)
    }
}

impl PersonRole {
    /// Returns the role's name as it is typed.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Deploy { .. } => "deploy",
            Self::Read => "read",
        }
    }
}

/// Lets whoever shows it act as its user; what is shown is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserToken {
    /// Part of what is shown; unique among the user's.
    pub id: String,
    /// SHA-256 of the secret part.
    pub hash: SecretBytes,
    /// What it is for, in the user's words.
    pub label: String,
    pub created: Timestamp,
    /// `None`: it does not expire.
    pub expires: Option<Timestamp>,
}

impl UserToken {
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// One thing that was done to the swarm: written together with what it tells of. Its version is the one that the
/// object has since; its creation the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    pub id: AuditId,
    pub meta: Meta,
    /// Who: a user's name, or somebody's on a manager's host.
    pub person: String,
    /// Where the request came from.
    pub from: String,
    /// The node whose front door took it; `None`: not known.
    pub via: Option<NodeId>,
    /// What was asked for, e.g. `create`.
    pub action: String,
    /// Kind and name, e.g. `service web`.
    pub object: String,
    /// Version of the object before; 0 = it was not there.
    pub before: u64,
    /// What the person said about it.
    pub message: String,
}

impl AuditId {
    /// Returns an id that sorts by time.
    pub fn new(at: Timestamp, random: u64) -> Self {
        let nanos = u64::try_from(at.0).unwrap_or(0);
        Self((u128::from(nanos) << 64) | u128::from(random))
    }
}

/// Returns true if `pattern` matches the whole of `text`: `*` stands for any characters, `?` for one.
///
/// Takes time proportional to the product of both lengths at worst.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut again: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                again = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match again {
                Some((after, from)) => {
                    again = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, fits) in [
            ("shop", "shop", true),
            ("shop", "shopping", false),
            ("shop*", "shopping", true),
            ("*-test", "shop-test", true),
            ("*-test", "shop-tests", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("team?-*", "team1-web", true),
            ("team?-*", "team12-web", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_token_ends_at_its_expiry() {
        let token = |expires| UserToken {
            id: "1".into(),
            hash: SecretBytes::default(),
            label: String::new(),
            created: Timestamp(0),
            expires,
        };
        assert!(token(None).is_valid_at(Timestamp(i64::MAX)));
        assert!(token(Some(Timestamp(5))).is_valid_at(Timestamp(4)));
        assert!(!token(Some(Timestamp(5))).is_valid_at(Timestamp(5)));
    }
}
