//! The store: signatures others build on.

use crate::{
    config::{HistoryEntry, ImageConfiguration},
    digest::Digest,
    error::{Error, Result},
    manifest::{Manifest, Platform},
    reference::Reference,
    source::BlobSource,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

/// Handle of a content store on disk.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

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
    /// `redis@sha256:..`, sorted.
    pub repo_digests: Vec<String>,
    /// *Unit:* bytes of all layers, unpacked.
    pub size_bytes: u64,
    /// When it was built, as its configuration says.
    pub created: Option<OffsetDateTime>,
    /// When a name was last given to it.
    pub last_tagged: Option<OffsetDateTime>,
    /// Image it was committed from, if that is known.
    pub parent: Option<Digest>,
}

/// Unpacked layers of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Directories, top first: the `lowerdir`s of an overlay. Paths contain no `:`, `,` or `\` unless the root does.
    pub dirs: Vec<PathBuf>,
}

impl Layers {
    /// Returns the content of a file as a container would see it, `None` if there is none. Symlinks stay in the root.
    ///
    /// # Errors
    /// The file is there and cannot be read. Blocking: a few small reads.
    pub fn read_file(&self, _path: &str) -> Result<Option<Vec<u8>>> {
        Err(unbuilt())
    }
}

/// One image out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Image id.
    pub id: Digest,
    /// Names it got.
    pub tags: Vec<Reference>,
}

/// What [`Store::import`] makes of a root tarball.
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
    /// Base URLs asked before `docker.io`.
    pub mirrors: Vec<String>,
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

fn unbuilt() -> Error {
    Error::Unusable { what: "store", reason: "being built".to_owned() }
}

#[expect(clippy::unused_async, reason = "signatures come first")]
impl Store {
    /// Opens or makes the store under `root`; half-made things of a crash are cleared away. `userns_squash`: all files
    /// belong to the caller, `user.overlay.*` instead of `trusted.overlay.*` (mount with `userxattr`).
    ///
    /// # Errors
    /// The directory cannot be used, or `images.json` cannot be read (it is never replaced by an empty one).
    pub async fn open(root: &Path, _userns_squash: bool) -> Result<Self> {
        Ok(Self { root: root.to_owned() })
    }

    /// Loads all images of a `docker save` archive (old or new) or OCI layout, plain, gzip or zstd.
    ///
    /// # Errors
    /// A broken archive, a wrong digest, a full disk; images completed before stay.
    pub async fn load(
        &self,
        _reader: impl AsyncRead + Send + Unpin + 'static,
        _progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>> {
        Err(unbuilt())
    }

    /// Makes an image of one layer from a root tarball (plain, gzip or zstd) and returns its id.
    ///
    /// # Errors
    /// A broken tarball, a bad change, a full disk; nothing is left.
    pub async fn import(
        &self,
        _reader: impl AsyncRead + Send + Unpin + 'static,
        _options: ImportOptions,
    ) -> Result<Digest> {
        Err(unbuilt())
    }

    /// Fetches an image from peers or its registry, verified and unpacked, and names it.
    ///
    /// # Errors
    /// No source has it, is allowed to give it, or gives the right bytes.
    ///
    /// # Cancel safety
    /// May be dropped; what was fetched is used by the next try.
    pub async fn pull(
        &self,
        _reference: &Reference,
        _options: PullOptions,
        _progress: mpsc::Sender<Progress>,
    ) -> Result<Image> {
        Err(unbuilt())
    }

    /// Uploads an image under its name; returns the manifest's digest.
    ///
    /// # Errors
    /// No such image here; the registry refuses.
    pub async fn push(
        &self,
        _reference: &Reference,
        _options: PushOptions,
        _progress: mpsc::Sender<Progress>,
    ) -> Result<Digest> {
        Err(unbuilt())
    }

    /// Writes images (names or ids) as one tar that is both an OCI layout and a `docker save` archive.
    ///
    /// # Errors
    /// An unknown name (before anything is written); the writer's error.
    pub async fn save(
        &self,
        _names: &[String],
        _writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<()> {
        Err(unbuilt())
    }

    /// Gives an image (name, id or prefix) one more name.
    ///
    /// # Errors
    /// No such image.
    pub async fn tag(&self, _image: &str, _name: &Reference) -> Result<()> {
        Err(unbuilt())
    }

    /// Removes a name, or an image by id; the last name takes the image, its blobs and its layers along.
    ///
    /// # Errors
    /// [`Error::InUse`] as Docker says it: several names (force helps), or held by a container (see [`Store::hold`]).
    pub async fn remove(&self, _name_or_id: &str, _force: bool) -> Result<Vec<Removed>> {
        Err(unbuilt())
    }

    /// Keeps an image (its layers) for `holder`, a container id, until [`Store::release`]. Persistent.
    ///
    /// # Errors
    /// No such image; the disk.
    pub async fn hold(&self, _image: &Digest, _holder: &str) -> Result<()> {
        Err(unbuilt())
    }

    /// Ends what [`Store::hold`] began; unknown holders are fine.
    ///
    /// # Errors
    /// The disk.
    pub async fn release(&self, _holder: &str) -> Result<()> {
        Err(unbuilt())
    }

    /// Returns all holders and their images.
    pub async fn holders(&self) -> Vec<(String, Digest)> {
        Vec::new()
    }

    /// Returns all images, newest first.
    pub async fn list(&self) -> Vec<Image> {
        Vec::new()
    }

    /// Returns the image of that name (`redis`, `redis:7`, `redis:7@sha256:..`), id or unambiguous id prefix.
    pub async fn get(&self, _name_or_id: &str) -> Option<Image> {
        None
    }

    /// As [`Store::get`], with Docker's error.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Ambiguous`].
    pub async fn find(&self, _name_or_id: &str) -> Result<Image> {
        Err(unbuilt())
    }

    /// Returns the image with exactly this id.
    pub async fn by_id(&self, _id: &Digest) -> Option<Image> {
        None
    }

    /// Returns the build steps, newest first, each with the unpacked bytes of its layer.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn history(&self, _name_or_id: &str) -> Result<Vec<(HistoryEntry, u64)>> {
        Err(unbuilt())
    }

    /// Removes images nobody names or holds (`all`: also named ones not held) and all bytes nobody needs.
    ///
    /// # Errors
    /// The disk.
    pub async fn prune(&self, _all: bool) -> Result<(Vec<Removed>, u64)> {
        Err(unbuilt())
    }

    /// Returns the unpacked layers of an image.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn rootfs(&self, _image: &Digest) -> Result<Layers> {
        Err(unbuilt())
    }

    /// Returns the file with exactly these bytes, if it is here and complete.
    #[must_use]
    pub fn blob_path(&self, _digest: &Digest) -> Option<PathBuf> {
        let _ = &self.root;
        None
    }

    /// Returns the manifest or index a name stands for here; by digest alone if the name has one.
    pub async fn manifest_for(&self, _reference: &Reference) -> Option<Manifest> {
        None
    }
}
