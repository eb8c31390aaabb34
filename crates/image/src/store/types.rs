//! What callers give to the store and get from it.

use crate::{
    config::ImageConfiguration, digest::Digest, manifest::Platform, reference::Reference, source::BlobSource,
};
use std::{sync::Arc, time::Duration};
use time::OffsetDateTime;
use tokio::sync::mpsc;

/// How long a listener of progress may hold up the work at each line.
const PATIENCE: Duration = Duration::from_secs(1);

/// An image that is here, complete and unpacked.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration: Docker's image id.
    pub id: Digest,
    /// What a container of it runs with.
    pub config: Arc<ImageConfiguration>,
    /// Digest services pin: of the index if it was pulled through one, else of the manifest.
    pub manifest: Digest,
    /// `redis:7`, sorted.
    pub repo_tags: Vec<String>,
    /// `redis@sha256:..`, sorted; where it was pulled from or pushed to.
    pub repo_digests: Vec<String>,
    /// *Unit:* bytes of all layers, unpacked.
    pub size_bytes: u64,
    /// When it was built, as its configuration says.
    pub created: Option<OffsetDateTime>,
    /// When a name was last given to it.
    pub last_tagged: Option<OffsetDateTime>,
    /// Image it was committed from, if that is known.
    pub parent: Option<Digest>,
    /// Diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// Nobody named it; a build keeps it to build on.
    pub intermediate: bool,
}

/// One image out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Image id.
    pub id: Digest,
    /// Names it got.
    pub tags: Vec<Reference>,
}

/// What [`crate::Store::import`] makes of a root tarball.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name to give.
    pub reference: Option<Reference>,
    /// Dockerfile instructions: `CMD ["/bin/sh"]`.
    pub changes: Vec<String>,
    /// Comment in the history; empty: `Imported from -`.
    pub message: String,
    /// Unset: this machine's.
    pub platform: Option<Platform>,
    /// Unset: now. The same tarball, changes and time give the same image id.
    pub created: Option<OffsetDateTime>,
}

/// One line of progress, Docker's `status` messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// 12 hex digits of the layer, the tag, or empty.
    pub id: String,
    /// Docker's words: `Downloading`, `Extracting`, `Pull complete` ...
    pub status: String,
    /// *Unit:* bytes.
    pub current: u64,
    /// *Unit:* bytes; 0 when unknown.
    pub total: u64,
}

impl Progress {
    /// Says how far it is, if someone listens and keeps up: from blocking code too.
    pub(crate) fn hint(sender: &mpsc::Sender<Self>, id: &str, status: &str, current: u64, total: u64) {
        let line = Self { id: id.to_owned(), status: status.to_owned(), current, total };
        // A slow or absent listener misses hints, never results.
        drop(sender.try_send(line));
    }

    /// Says what changed; waits for a slow listener, but not for one that has stopped listening: others may wait for
    /// the same layer.
    pub(crate) async fn say(sender: &mpsc::Sender<Self>, id: &str, status: impl Into<String>) {
        let line = Self { id: id.to_owned(), status: status.into(), ..Self::default() };
        // Nobody listens: fine.
        drop(sender.send_timeout(line, PATIENCE).await);
    }
}

/// Who we are to a registry. *Source:* Docker API, `X-Registry-Auth`.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Name and password.
    Basic {
        /// Name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// A refresh token for the token server.
    Identity(String),
    /// A ready bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(..)")
    }
}

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// `host[:port]` or CIDR that may be talked to without (verified) TLS; `localhost` and 127.0.0.0/8 always may.
    pub insecure: Vec<String>,
    /// Base URLs asked before `docker.io`: `https://mirror.example:5000`.
    pub mirrors: Vec<String>,
    /// Layers of an image that are fetched at a time, and sent; `None` = Docker's numbers. *Range:* from 1.
    pub downloads_at_once: Option<usize>,
    pub uploads_at_once: Option<usize>,
    /// How often something is tried that brings nothing. *Range:* from 1.
    pub attempts: Option<u32>,
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// For the image's registry only.
    pub auth: Option<Auth>,
    /// Unset: this machine's.
    pub platform: Option<Platform>,
    /// Asked before any registry, in this order.
    pub peers: Vec<Arc<dyn BlobSource>>,
    /// Mirrors, insecure hosts.
    pub registries: RegistryOptions,
    /// Do not ask any registry.
    pub peers_only: bool,
}

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// For the image's registry only.
    pub auth: Option<Auth>,
    /// Insecure hosts.
    pub registries: RegistryOptions,
}

/// What a removal did, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone (familiar form).
    Untagged(String),
    /// An image or layer is gone.
    Deleted(Digest),
}
