//! Where blobs come from: other nodes, mirrors, registries. All look the same to a pull.

use crate::{digest::Digest, manifest::Manifest, reference::Reference};
use std::pin::Pin;
use tokio::io::AsyncRead;

/// Bytes of a blob, as they arrive.
pub type BoxAsyncRead = Pin<Box<dyn AsyncRead + Send>>;

/// Whatever a source fails with.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Something that may have images. Nothing it says is believed before its digest is checked.
#[async_trait::async_trait]
pub trait BlobSource: Send + Sync + std::fmt::Debug {
    /// Returns what `reference` names there; `None` if it has no such image.
    ///
    /// # Errors
    /// The source cannot be asked; the next one will be.
    async fn resolve(&self, reference: &Reference) -> Result<Option<Manifest>, SourceError>;

    /// Opens a blob from byte `offset` on; `None` if it is not there.
    ///
    /// # Errors
    /// The source cannot be asked; the next one will be.
    async fn open(&self, digest: &Digest, offset: u64) -> Result<Option<BoxAsyncRead>, SourceError>;

    /// Returns the name for logs.
    fn name(&self) -> String;

    /// Returns how often a blob is asked for again that has not brought a byte.
    fn attempts(&self) -> u32 {
        4
    }
}
