//! Image names as people write them, made whole by Docker's rules.
//!
//! *Source:* distribution/reference `normalize.go`, `regexp.go`.

use crate::digest::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

/// The name of an image: `redis` is `docker.io/library/redis:latest`. Shown in its familiar (short) form.
///
/// ```
/// let reference: image::Reference = "redis".parse()?;
/// assert_eq!(reference.canonical(), "docker.io/library/redis:latest");
/// assert_eq!(reference.to_string(), "redis:latest");
/// # Ok::<(), image::InvalidReference>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port, `docker.io` when none was written.
    pub registry: String,
    /// Path at the registry; `library/redis` for `redis`.
    pub repository: String,
    /// `latest` when neither tag nor digest was written.
    pub tag: Option<String>,
    /// Digest of the manifest (or of the index of several platforms).
    pub digest: Option<Digest>,
}

/// A text is not an image name. The text is Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidReference {
    /// Does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// 64 hex digits would be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// Longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The digest is not one we can verify.
    #[error("invalid reference format: {0}")]
    Digest(String),
}

impl Reference {
    /// Returns registry, repository and whatever of tag and digest there is, in full: `docker.io/library/redis:7`.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!("{}/{}{}", self.registry, self.repository, self.suffix())
    }

    /// Returns the name without tag and digest, in full: `docker.io/library/redis`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the name without tag and digest as people write it: `redis`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// Returns the same name with this tag and no digest.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// Returns the same name pinned to `digest`; the tag stays: `redis:7@sha256:..`, what services keep.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Returns the familiar form with tag only, as listed under `RepoTags`; `None` without a tag.
    #[must_use]
    pub fn familiar_tag(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.familiar_name()))
    }

    /// Returns what a registry is asked for: the digest if there is one, else the tag.
    #[must_use]
    pub(crate) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.familiar_name(), self.suffix())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_hex_id(text) {
            return Err(InvalidReference::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse::<Digest>().map_err(|e| InvalidReference::Digest(e.to_string()))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = split_registry(rest);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(InvalidReference::Format),
            None => (rest, None),
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(InvalidReference::UpperCase(path.to_owned()));
        }
        if path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(InvalidReference::Format);
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > 255 {
            return Err(InvalidReference::TooLong);
        }
        let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.canonical())
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The first component is a registry if it could not be a user name: it has a dot, a port, an upper-case letter,
/// or is `localhost`.
fn split_registry(text: &str) -> (String, &str) {
    let Some((first, rest)) = text.split_once('/') else { return (DEFAULT_REGISTRY.to_owned(), text) };
    let host =
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase());
    if !host || !is_registry(first) {
        return (DEFAULT_REGISTRY.to_owned(), text);
    }
    let registry = if first == "index.docker.io" { DEFAULT_REGISTRY } else { first };
    (registry.to_owned(), rest)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => {
            if v6.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", rest.strip_prefix(':').or(rest.is_empty().then_some("0")))
        }
        None => text.split_once(':').map_or((text, Some("0")), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    // Between alphanumerics: one `.`, one or two `_`, or any number of `-`.
    bytes.split(|c| alphanumeric(*c)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|c| *c == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.canonical(), canonical);
        assert_eq!(reference.to_string(), familiar);
        assert_eq!(canonical.parse::<Reference>().unwrap(), reference, "canonical form reads back");
    }

    #[test]
    fn short_names_are_completed_as_docker_does() {
        check("redis", "docker.io/library/redis:latest", "redis:latest");
        check("redis:7", "docker.io/library/redis:7", "redis:7");
        check("user/app", "docker.io/user/app:latest", "user/app:latest");
        check("index.docker.io/library/redis", "docker.io/library/redis:latest", "redis:latest");
        check("localhost/app", "localhost/app:latest", "localhost/app:latest");
        check("127.0.0.1:5000/a/b:1.0-x", "127.0.0.1:5000/a/b:1.0-x", "127.0.0.1:5000/a/b:1.0-x");
        check("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest");
        check("quay.io/a__b/c-----d", "quay.io/a__b/c-----d:latest", "quay.io/a__b/c-----d:latest");
    }

    #[test]
    fn a_digest_stands_for_the_tag_or_beside_it() {
        let digest = Digest::of(b"").to_string();
        check(
            &format!("redis@{digest}"),
            &format!("docker.io/library/redis@{digest}"),
            &format!("redis@{digest}"),
        );
        let both = format!("redis:7@{digest}");
        check(&both, &format!("docker.io/library/redis:7@{digest}"), &both);
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for text in [
            "",
            ":7",
            "redis:",
            "a//b",
            "-a",
            "a_",
            "a..b",
            "a___b",
            "redis:ä",
            "redis@sha256:1",
            "a b",
            "../x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert_eq!("Redis".parse::<Reference>(), Err(InvalidReference::UpperCase("Redis".into())));
        let id = "a".repeat(64);
        assert_eq!(id.parse::<Reference>(), Err(InvalidReference::LooksLikeId(id)));
    }
}
