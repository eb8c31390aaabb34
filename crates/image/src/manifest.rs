//! The documents that tie an image together: descriptors, manifests, indexes, platforms.
//!
//! Read leniently (both OCI's and Docker's media types), written as OCI. *Source:* OCI image-spec `manifest.md`,
//! `image-index.md`; distribution `manifest-v2-2.md`.

use crate::digest::Digest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or an index, exactly as received or made: its digest is the digest of `bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `application/vnd.oci.image.manifest.v1+json` and relatives.
    pub media_type: String,
    /// Digest of `bytes`.
    pub digest: Digest,
    /// The document itself.
    pub bytes: Bytes,
}

impl Manifest {
    /// Wraps `bytes`; the media type is taken from the document when `media_type` says nothing useful.
    #[must_use]
    pub fn new(media_type: &str, bytes: Bytes) -> Self {
        let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let media_type = if known.contains(&media_type) {
            media_type.to_owned()
        } else {
            Peek::media_type_of(&bytes).unwrap_or_else(|| media_type.to_owned())
        };
        Self { media_type, digest: Digest::of(&bytes), bytes }
    }

    /// Tells whether this is an index of several platforms.
    #[must_use]
    pub fn is_index(&self) -> bool {
        [OCI_INDEX, DOCKER_INDEX].contains(&self.media_type.as_str())
    }

    /// Returns what the document names: an index its manifests, a manifest its configuration and layers. A document
    /// that cannot be read names nothing.
    pub(crate) fn named(&self) -> Vec<Digest> {
        if self.is_index() {
            let index: Option<ImageIndex> = serde_json::from_slice(&self.bytes).ok();
            return index.into_iter().flat_map(|i| i.manifests).map(|d| d.digest).collect();
        }
        let manifest: Option<ImageManifest> = serde_json::from_slice(&self.bytes).ok();
        let parts = manifest.into_iter().flat_map(|m| std::iter::once(m.config).chain(m.layers));
        parts.map(|d| d.digest).collect()
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.bytes.len() as u64)
    }
}

/// What an untyped document says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peek {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl Peek {
    fn media_type_of(bytes: &[u8]) -> Option<String> {
        let peek: Self = serde_json::from_slice(bytes).ok()?;
        peek.media_type
            .or_else(|| peek.manifests.map(|_| OCI_INDEX.to_owned()))
            .or_else(|| peek.config.map(|_| OCI_MANIFEST.to_owned()))
    }
}

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Address of the blob.
    pub digest: Digest,
    /// *Unit:* bytes of the blob.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// Names and notes, `org.opencontainers.image.ref.name` and others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: for which machines this manifest is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size_bytes: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size_bytes,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageManifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl ImageManifest {
    /// Makes the OCI manifest of a config and its layers.
    pub(crate) fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let media_type = OCI_MANIFEST.to_owned();
        Self { schema_version: 2, media_type, config, layers, annotations: BTreeMap::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageIndex {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

impl ImageIndex {
    /// Returns the manifest that suits `wanted` best: exact variant before a lower one before none.
    pub(crate) fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX, ""];
        self.manifests
            .iter()
            .filter(|d| known.contains(&d.media_type.as_str()))
            .filter_map(|d| match &d.platform {
                Some(platform) => wanted.rank(platform).map(|rank| (rank, d)),
                // A layout saved without platforms: taken if nothing better is there.
                None => Some((u32::MAX, d)),
            })
            // `min_by_key` keeps the first of equals, as Docker does.
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, d)| d)
    }
}

/// An operating system and processor. *Source:* OCI image-spec `image-index.md`; containerd `platforms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name: `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7` of arm, `v2` of amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Default for Platform {
    /// Returns this machine's platform.
    fn default() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A text is no platform. In the words of containerd's `platforms`, as Docker's clients know them.
#[derive(Debug, thiserror::Error)]
#[error("{text:?}: {reason}: invalid argument; hint: os/arch[/variant], such as linux/amd64")]
pub struct InvalidPlatform {
    text: String,
    reason: &'static str,
}

/// What one word alone may be. *Source:* containerd `platforms/database.go`.
const SYSTEMS: [&str; 8] =
    ["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "dragonfly"];
const ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "sparc64", "wasm", "ppc",
];

impl std::str::FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |reason| Err(InvalidPlatform { text: text.to_owned(), reason });
        let mut parts = text.split('/').map(str::to_ascii_lowercase);
        let is_word =
            |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if text.split('/').any(|part| part.is_empty() || !is_word(part)) {
            return refused("platform specifier component must match \"^[A-Za-z0-9_.-]+$\"");
        }
        let (os, arch, variant) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(arch), variant, None) => (os, arch, variant),
            (Some(os), None, ..) if SYSTEMS.contains(&os.as_str()) => {
                (os, Self::default().architecture, None)
            }
            (Some(arch), None, ..) => ("linux".to_owned(), arch, None),
            _ => return refused("cannot parse platform specifier"),
        };
        let (architecture, variant) = match (arch.as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", None) => ("arm", Some("v7".to_owned())),
            ("armel", None) => ("arm", Some("v6".to_owned())),
            ("i386", variant) => ("386", variant),
            (other, variant) => (other, variant),
        };
        if !text.contains('/') && !ARCHITECTURES.contains(&architecture) {
            return refused("unknown operating system or architecture");
        }
        Ok(Self { architecture: architecture.to_owned(), os, variant })
    }
}

impl Platform {
    /// Tells how well an image for `offered` runs here: 0 is exact, `None` not at all.
    fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let level = |platform: &Self| {
            let default = match platform.architecture.as_str() {
                "amd64" => 1,
                "arm" => 7,
                "arm64" => 8,
                _ => 0,
            };
            platform.variant.as_ref().map_or(Some(default), |v| v.strip_prefix('v')?.parse::<u32>().ok())
        };
        // An unknown variant ("power9") fits only itself.
        let (Some(own), Some(theirs)) = (level(self), level(offered)) else {
            return (self.variant == offered.variant).then_some(0);
        };
        own.checked_sub(theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> ImageIndex {
        let manifests = platforms.iter().map(|text| Descriptor {
            platform: text.parse().ok(),
            ..Descriptor::new(OCI_MANIFEST, Digest::of(text.as_bytes()), 1)
        });
        ImageIndex { schema_version: 2, media_type: String::new(), manifests: manifests.collect() }
    }

    #[track_caller]
    fn check(offered: &[&str], wanted: &str, chosen: Option<&str>) {
        let index = index(offered);
        let found = index.choose(&wanted.parse().unwrap()).map(|d| d.digest);
        assert_eq!(found, chosen.map(|text| Digest::of(text.as_bytes())));
    }

    #[test]
    fn best_variant_that_runs_is_chosen() {
        check(&["linux/arm64", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
        check(&["linux/amd64/v3", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
        check(&["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v3", Some("linux/amd64/v2"));
        check(&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", Some("linux/arm/v6"));
        check(&["linux/arm64/v8"], "linux/arm64", Some("linux/arm64/v8"));
        check(&["windows/amd64", "linux/s390x"], "linux/amd64", None);
        check(&["unknown/unknown", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
    }

    #[test]
    fn platforms_are_read_as_containerd_reads_them() {
        let read = |text: &str| text.parse::<Platform>().map(|platform| platform.to_string());
        for (text, platform) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
            ("windows/own", "windows/own"),
        ] {
            assert_eq!(read(text).unwrap(), platform);
        }
        assert_eq!(read("linux").unwrap(), Platform { variant: None, ..Platform::default() }.to_string());
        for (text, reason) in [
            ("foo", "\"foo\": unknown operating system or architecture: invalid argument"),
            ("a/b/c/d", "cannot parse platform specifier"),
            ("linux/", "must match"),
            ("", "must match"),
            ("linux/a b", "must match"),
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(refused.contains(reason) && refused.contains("hint"), "{refused}");
        }
    }

    #[test]
    fn media_type_comes_from_the_document_when_the_server_is_vague() {
        let index = Manifest::new("application/json", Bytes::from_static(b"{\"manifests\":[]}"));
        assert!(index.is_index());
        let docker = format!("{{\"mediaType\":\"{DOCKER_MANIFEST}\"}}");
        assert_eq!(Manifest::new("text/plain; charset=utf-8", docker.into()).media_type, DOCKER_MANIFEST);
    }
}
