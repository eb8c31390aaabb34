//! Typed identifiers: 128 random bits, printed as SwarmKit does: 25 characters of base 36.

use std::{fmt, str::FromStr};

/// An identifier that is not 25 characters of `0-9a-z` below 2^128.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id (25 characters of 0-9 and a-z)")]
pub struct InvalidId(pub String);

const LEN: usize = 25;

fn write_base36(value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut out = [b'0'; LEN];
    let mut rest = value;
    for slot in out.iter_mut().rev() {
        *slot = b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(rest % 36).unwrap_or(0)];
        rest /= 36;
    }
    f.write_str(std::str::from_utf8(&out).unwrap_or_default())
}

fn parse_base36(s: &str) -> Result<u128, InvalidId> {
    let bad = || InvalidId(s.to_owned());
    if s.len() != LEN {
        return Err(bad());
    }
    s.bytes().try_fold(0u128, |acc, b| {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'z' => b - b'a' + 10,
            _ => return Err(bad()),
        };
        acc.checked_mul(36).and_then(|v| v.checked_add(u128::from(digit))).ok_or_else(bad)
    })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base36(self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base36(self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                parse_base36(s).map(Self)
            }
        }
    )*};
}

ids! {
    /// The swarm itself; organisation (O) of every node certificate.
    ClusterId,
    /// One member; common name (CN) of its certificate. New for each join.
    NodeId,
    ServiceId,
    /// One attempt at one slot.
    TaskId,
    NetworkId,
    SecretId,
    ConfigId,
    StackId,
    UserId,
    /// Sorts by time.
    AuditId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_at_both_ends_of_the_range() {
        for v in [0, 1, 35, 36, u128::MAX] {
            let id = TaskId(v);
            assert_eq!(id.to_string().len(), 25);
            assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        }
    }

    #[test]
    fn ids_out_of_range_or_alphabet_are_refused() {
        for s in ["", "abc", "zzzzzzzzzzzzzzzzzzzzzzzzz", "00000000000000000000000A0"] {
            assert!(s.parse::<NodeId>().is_err(), "{s}");
        }
    }
}
