//! Secrets and configs are never changed: another content is another object, and its services roll over to it.
//!
//! The first one of a stack has Docker's name, `<stack>_<key>`; those after it end with a piece of their hash.

use anyhow::{Context, Result, bail};
use image::Digest;
use std::collections::BTreeMap;

/// By the name in the file: name and id in the swarm; the id is empty while it is to be made.
pub(super) type Names = BTreeMap<String, (String, String)>;

/// Says of a secret what its content is, to who knows the content: `<salt>:<hash of salt and content>`.
pub(super) const LABEL: &str = "rswarm.content";

/// One that is in the swarm.
pub(super) struct Stored<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// Its stack.
    pub(super) stack: Option<&'a str>,
    /// `None` = nobody can say: Docker made it.
    pub(super) same: Option<bool>,
}

pub(super) enum Found {
    There {
        name: String,
        id: String,
    },
    New {
        /// There is none of the plain name.
        first: bool,
    },
}

/// Looks for an object with the content of the file. `own` = the stack chose its name.
///
/// # Errors
/// A name that a person chose has another content.
pub(super) fn find<'a>(
    stack: &str,
    name: &str,
    own: bool,
    stored: impl Iterator<Item = Stored<'a>>,
    kind: &str,
) -> Result<Found> {
    let later = format!("{name}-");
    let mut plain = None;
    for one in
        stored.filter(|s| s.name == name || (own && s.stack == Some(stack) && s.name.starts_with(&later)))
    {
        if one.same == Some(true) {
            return Ok(Found::There { name: one.name.to_owned(), id: one.id.to_owned() });
        }
        if one.name == name {
            plain = Some(one);
        }
    }
    match plain {
        None => Ok(Found::New { first: true }),
        // As with Docker, it stays.
        Some(one) if one.same.is_none() => {
            Ok(Found::There { name: one.name.to_owned(), id: one.id.to_owned() })
        }
        Some(_) if own => Ok(Found::New { first: false }),
        Some(_) => bail!(
            "{kind} {name} has another content than the one in the swarm, and a {kind} cannot be changed; hint: give it \
             a new name (`name:` under {kind}s), or none"
        ),
    }
}

/// Ten hex digits of a content.
pub(super) fn short(data: &[u8]) -> String {
    let text = Digest::of(data).to_string();
    text.trim_start_matches("sha256:").chars().take(10).collect()
}

/// Returns the label of a new secret, and a piece of its hash for its name.
pub(super) fn secret_label(data: &[u8]) -> Result<(String, String)> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).context("no randomness")?;
    let salt: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = salted(&salt, data);
    Ok((format!("{salt}:{hash}"), hash.chars().take(10).collect()))
}

fn salted(salt: &str, data: &[u8]) -> String {
    let text = Digest::of(&[salt.as_bytes(), data].concat()).to_string();
    text.trim_start_matches("sha256:").to_owned()
}

/// True when a secret's label is that of this content; `None` if it has none.
pub(super) fn is_secret(labels: &BTreeMap<String, String>, data: &[u8]) -> Option<bool> {
    let (salt, hash) = labels.get(LABEL)?.split_once(':')?;
    Some(salted(salt, data) == hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_again_by_its_content_alone() {
        let (label, short) = secret_label(b"pw").unwrap();
        let labels = BTreeMap::from([(LABEL.to_owned(), label.clone())]);
        assert_eq!(is_secret(&labels, b"pw"), Some(true));
        assert_eq!(is_secret(&labels, b"other"), Some(false));
        assert_eq!(is_secret(&BTreeMap::new(), b"pw"), None);
        assert_eq!(short.len(), 10);
        assert_ne!(label, secret_label(b"pw").unwrap().0, "two of one content do not show it");
    }

    #[test]
    fn another_content_gets_another_name_unless_a_person_chose_it() {
        let stored = |same| [Stored { id: "1", name: "shop_motd", stack: Some("shop"), same }].into_iter();
        let found = find("shop", "shop_motd", true, stored(Some(false)), "config").unwrap();
        assert!(matches!(found, Found::New { first: false }));
        let found = find("shop", "shop_motd", true, stored(Some(true)), "config").unwrap();
        assert!(matches!(found, Found::There { .. }));
        assert!(find("shop", "shop_motd", false, stored(Some(false)), "config").is_err());
    }
}
