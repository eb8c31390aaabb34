//! What can go wrong with images, in Docker's words where Docker has some.

use crate::{config::ChangeError, digest::Digest, reference::InvalidReference, source::SourceError};
use std::{io, path::PathBuf};

/// Short for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on images failed. Nothing half-made is left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither name nor id of an image here.
    #[error("No such image: {0}")]
    NotFound(String),
    /// An id prefix that fits several images.
    #[error("invalid id prefix: {0} is ambiguous")]
    Ambiguous(String),
    /// Neither name nor id of a plugin here.
    #[error("plugin {0:?} not found")]
    NoPlugin(String),
    /// An id prefix that fits several plugins.
    #[error("multiple plugins found for {0:?}")]
    AmbiguousPlugin(String),
    /// Another plugin is called so.
    #[error("plugin {0} already exists")]
    PluginExists(String),
    /// Not an image name.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A `--change` that cannot be carried out.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The image cannot be removed as asked.
    #[error("conflict: unable to {action} ({reason}) - {hint}")]
    InUse {
        /// `remove repository reference "x"` or `delete SHORT_ID`.
        action: String,
        /// `must be forced`, `cannot be forced`.
        reason: &'static str,
        /// Who uses it.
        hint: String,
    },
    /// The store's own files failed: disk full, no permission.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The stream given to load or import broke off or is not what it should be.
    #[error("cannot read archive")]
    Archive(#[source] io::Error),
    /// The archive is readable, but is no image.
    #[error("invalid archive: {0}")]
    InvalidArchive(String),
    /// A compression other than gzip and zstd.
    #[error("unsupported compression: {0} (use gzip, zstd or none)")]
    Compression(&'static str),
    /// A layer that cannot be unpacked.
    #[error("cannot unpack layer {layer}: {entry}")]
    Unpack {
        /// Short diff id.
        layer: String,
        /// Path inside the layer, or what else was being done.
        entry: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A layer that would grow beyond all bounds.
    #[error("cannot unpack layer {layer}: {reason}")]
    TooLarge {
        /// Short diff id.
        layer: String,
        /// Which bound.
        reason: String,
    },
    /// Bytes are not what their digest says.
    #[error("{what} has digest {found}, but {expected} is wanted")]
    DigestMismatch {
        /// `blob`, `layer`, `manifest`.
        what: &'static str,
        /// As promised.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// A manifest or configuration that does not parse.
    #[error("invalid {what} {digest}")]
    Document {
        /// `manifest`, `index`, `configuration`.
        what: &'static str,
        /// Of the document.
        digest: Digest,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
    /// A document that parses, but cannot be used.
    #[error("unusable {what}: {reason}")]
    Unusable {
        /// `manifest`, `image`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The index has nothing for this machine.
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoPlatform {
        /// What was wanted.
        platform: String,
    },
    /// Every source was asked and none had it.
    #[error("manifest for {reference} not found: manifest unknown")]
    ManifestUnknown {
        /// In familiar form.
        reference: String,
    },
    /// The registry says no.
    #[error(
        "{} access denied for {repository}, repository does not exist or may require authorization: {reason}",
        if *push { "push" } else { "pull" }
    )]
    Denied {
        /// It was asked to take an image, not to give one.
        push: bool,
        /// In familiar form.
        repository: String,
        /// The registry's words.
        reason: String,
    },
    /// A registry could not be asked.
    #[error("{method} {url}: {reason}")]
    Registry {
        /// HTTP method.
        method: String,
        /// Without credentials.
        url: String,
        /// Status and the registry's words.
        reason: String,
        /// HTTP status, 0 when there was no answer.
        status: u16,
    },
    /// No connection, or it broke off.
    #[error("cannot reach {url}")]
    Network {
        /// Without credentials.
        url: String,
        /// The cause.
        #[source]
        source: SourceError,
    },
    /// A peer failed.
    #[error("cannot fetch {what} from {from}")]
    Source {
        /// Digest or name.
        what: String,
        /// Name of the source.
        from: String,
        /// The cause.
        #[source]
        source: SourceError,
    },
}

impl Error {
    /// Tells whether this is the user's mistake about a name, Docker's 404.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NotFound(_) | Self::NoPlugin(_) | Self::ManifestUnknown { .. } | Self::Denied { .. }
        )
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
