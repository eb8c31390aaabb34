//! Images: from a name to verified, unpacked layers, and back out again.
//!
//! ```text
//! load, import, pull ──► ingest/ ──verify──► blobs/sha256/…   exact compressed bytes, for push, save and peers
//!                                               │ unpack (own code, openat2-rooted, parallel)
//!                                               ▼
//!                                         layers/<diff id>/diff ──► Layers: overlay's lowerdirs, top first
//! images.json: what is called how (written new, synced, renamed)
//! ```
//!
//! [`Store`] is a cheap handle; it starts no task of its own. Blocking work (hashing, unpacking) runs on tokio's blocking
//! threads. Several operations may run at once: one blob is fetched once, one layer unpacked once, and whatever
//! an operation needs is pinned against [`Store::prune`] until it ends. Every image has a manifest, made here if it came
//! without one, so peers can fetch any of them through [`BlobSource`].
//!
//! [`Plugins`] keeps Docker's plugins the same way, in a folder of their own: made, named, pushed and pulled.
//!
//! A digest decides, never a source: peers, mirrors and registries are all asked with suspicion.
//!
//! *Start reading at* [`Store::pull`], then `unpack`.

mod artifact;
mod blocking;
mod compression;
mod config;
mod digest;
pub mod dockerfile;
mod download;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod import;
mod layers;
mod load;
mod manifest;
mod plugin;
mod pull;
mod push;
mod reference;
mod registry;
mod remove;
mod save;
mod search;
mod source;
mod store;
mod tarball;
mod unpack;

pub use artifact::Repository;
pub use blocking::{Blocking, blocking};
pub use compression::plain_tar;
pub use config::{ChangeError, Config, Healthcheck, HistoryEntry, ImageConfiguration, Origin, RootFs};
pub use digest::{Digest, InvalidDigest};
pub use download::Downloaded;
pub use error::{Error, Result};
pub use import::Commit;
pub use layers::Layers;
pub use manifest::{Descriptor, InvalidPlatform, Manifest, Platform};
pub use plugin::{Context as PluginContext, Plugin, Plugins, Remote as RemotePlugin};
pub use reference::{InvalidReference, Reference};
pub use registry::{InvalidProxy, Proxies};
pub use remove::remove_tree;
pub use search::Found;
pub use source::{BlobSource, BoxAsyncRead, SourceError};
pub use store::{
    Auth, CACHE_HOLDER, Image, ImportOptions, LayerUsage, Loaded, Progress, PullOptions, PushOptions,
    RegistryOptions, Removed, Store,
};
pub use unpack::{Owners, TreeOptions, UnpackError, unpack_tree, unpack_tree_for};
