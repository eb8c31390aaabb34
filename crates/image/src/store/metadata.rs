//! What is called how: `images.json`, written new, synced and renamed, so that a crash leaves the old or the new one.

use crate::{
    config::ImageConfiguration,
    digest::Digest,
    error::{Error, Result},
    manifest::Descriptor,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

const VERSION: u32 = 1;

/// All that is known about images. The order of the maps makes the file stable.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Metadata {
    version: u32,
    /// By configuration digest, Docker's image id.
    pub(super) images: BTreeMap<Digest, Record>,
    /// Canonical name with tag -> manifest or index.
    pub(super) tags: BTreeMap<String, Digest>,
    /// Canonical name with digest -> manifest or index: where an image was pulled from or pushed to.
    pub(super) digests: BTreeMap<String, Digest>,
    /// Every manifest and index kept -> its image.
    pub(super) documents: BTreeMap<Digest, Document>,
    /// Container -> image it needs; the containers' own records are the truth.
    #[serde(skip)]
    pub(super) holders: BTreeMap<String, Digest>,
    /// Read from the configuration blobs at open.
    #[serde(skip)]
    pub(super) configs: BTreeMap<Digest, Arc<ImageConfiguration>>,
}

/// A manifest or index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) media_type: String,
    pub(super) image: Digest,
}

/// One image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The manifest its layers come from.
    pub(super) manifest: Digest,
    /// What it was last fetched by: the manifest or the index around it.
    pub(super) target: Digest,
    /// Lowest first. Shared: each change of what is known is made to a copy of all records.
    pub(super) layers: Arc<[LayerRecord]>,
    /// Seconds since 1970.
    pub(super) last_tagged: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<Digest>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) blob: Descriptor,
    pub(super) diff_id: Digest,
    /// *Unit:* bytes, unpacked.
    pub(super) size_bytes: u64,
}

/// Returns where the file is kept as it was before the last change.
pub(super) fn before(path: &Path) -> PathBuf {
    path.with_extension("json.before")
}

impl Metadata {
    /// Reads the file; none yet is an empty store, a broken one is an error.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { version: VERSION, ..Self::default() });
            }
            text => text.map_err(Error::io("read", path))?,
        };
        let metadata: Self = serde_json::from_slice(&text).map_err(|e| Error::io("read", path)(e.into()))?;
        if metadata.version != VERSION {
            let reason =
                format!("{} has version {}, this program knows {VERSION}", path.display(), metadata.version);
            return Err(Error::Unusable { what: "image store", reason });
        }
        Ok(metadata)
    }

    /// Replaces the file; what it was before stays beside it, for [`recovery`](super::recovery).
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let before = before(path);
        match fs::remove_file(&before).and_then(|()| fs::hard_link(path, &before)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => drop(fs::hard_link(path, &before)),
            Err(error) => tracing::warn!(path = %before.display(), %error, "not kept as it was before"),
            Ok(()) => {}
        }
        let text = serde_json::to_vec(self).map_err(|e| Error::io("write", path)(e.into()))?;
        sys::durable::replace(path, &text, 0o600).map_err(Error::io("write", path))
    }

    /// Returns the blobs and the diff ids that images need.
    pub(super) fn needed(&self) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
        let layers = || self.images.values().flat_map(|record| &*record.layers);
        let blobs = layers().map(|layer| layer.blob.digest);
        let documents =
            self.documents.iter().filter(|(_, d)| self.images.contains_key(&d.image)).map(|(d, _)| *d);
        (
            blobs.chain(self.images.keys().copied()).chain(documents).collect(),
            layers().map(|layer| layer.diff_id).collect(),
        )
    }

    /// Returns the canonical names that stand for an image.
    pub(super) fn tags_of(&self, image: Digest) -> Vec<String> {
        self.names_of(&self.tags, image)
    }

    /// Returns the canonical names with digest that stand for an image.
    pub(super) fn digests_of(&self, image: Digest) -> Vec<String> {
        self.names_of(&self.digests, image)
    }

    fn names_of(&self, names: &BTreeMap<String, Digest>, image: Digest) -> Vec<String> {
        let ours =
            |target: &Digest| self.documents.get(target).is_some_and(|document| document.image == image);
        names.iter().filter(|(_, target)| ours(target)).map(|(name, _)| name.clone()).collect()
    }

    /// Forgets an image and all its names.
    pub(super) fn forget(&mut self, image: Digest) {
        let gone: BTreeSet<Digest> = self
            .documents
            .iter()
            .filter(|(_, document)| document.image == image)
            .map(|(digest, _)| *digest)
            .collect();
        self.tags.retain(|_, target| !gone.contains(target));
        self.digests.retain(|_, target| !gone.contains(target));
        self.documents.retain(|digest, _| !gone.contains(digest));
        self.images.remove(&image);
        self.configs.remove(&image);
        self.holders.retain(|_, held| *held != image);
    }
}
