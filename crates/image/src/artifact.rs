//! What registries keep besides images: manifests that tie small documents together, without a store here.
//!
//! *Source:* OCI distribution-spec, "Pull", "Push"; OCI image-spec `manifest.md`, "Guidelines for Artifact Usage".

use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::Manifest,
    push,
    reference::Reference,
    registry::{Access, Endpoint, Http, Payload},
    store::{Auth, RegistryOptions},
};
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

/// One repository of a registry.
#[derive(Debug, Clone)]
pub struct Repository {
    endpoint: Endpoint,
    reference: Reference,
}

impl Repository {
    /// Finds out how to talk to the registry of `reference`; `writes`: something is to be put there.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn open(
        reference: &Reference,
        writes: bool,
        auth: Option<Auth>,
        options: &RegistryOptions,
    ) -> Result<Self> {
        let access = if writes { Access::Push { mount_from: Vec::new() } } else { Access::Pull };
        let endpoint = Endpoint::of(&Http::default(), reference, access, auth, options).await?;
        Ok(Self { endpoint, reference: reference.clone() })
    }

    /// Returns the document that a digest, else the reference itself, stands for.
    ///
    /// # Errors
    /// There is none; its bytes are others than the digest says; the registry refuses.
    pub async fn manifest(&self, digest: Option<Digest>) -> Result<Manifest> {
        let wanted = match digest {
            Some(digest) => self.reference.with_digest(digest),
            None => self.reference.clone(),
        };
        let unknown = || Error::ManifestUnknown { reference: wanted.to_string() };
        let manifest = self.endpoint.manifest(&wanted.wanted()).await?.ok_or_else(unknown)?;
        match wanted.digest {
            Some(digest) if digest != manifest.digest => Err(mismatch("manifest", &digest, &manifest.digest)),
            _ => Ok(manifest),
        }
    }

    /// Returns a blob of so many bytes.
    ///
    /// # Errors
    /// There is none; its bytes are others than the digest says, or more or fewer; the registry refuses.
    pub async fn blob(&self, digest: &Digest, size_bytes: u64) -> Result<Bytes> {
        let gone = || Error::NotFound(digest.to_string());
        let reader = self.endpoint.blob(digest, 0).await?.ok_or_else(gone)?;
        let mut bytes = Vec::new();
        // One byte more shows that there are more.
        let read = reader.take(size_bytes.saturating_add(1)).read_to_end(&mut bytes).await;
        read.map_err(|e| Error::Network { url: format!("blob {digest}"), source: e.into() })?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(mismatch("blob", digest, &found));
        }
        Ok(bytes.into())
    }

    /// Puts a blob there; returns its digest.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        push::put_blob(&self.endpoint, &digest, Payload::Bytes(bytes)).await?;
        Ok(digest)
    }

    /// Puts a manifest there, under the tag of the reference; what it names is there already.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        push::put_manifest(&self.endpoint, &self.reference.wanted(), manifest).await
    }
}

fn mismatch(what: &'static str, expected: &Digest, found: &Digest) -> Error {
    Error::DigestMismatch { what, expected: *expected, found: *found }
}
