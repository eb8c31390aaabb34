//! Writes images as one tar that is both an OCI layout and what `docker load` of any age reads.
//!
//! *Source:* OCI image-spec `image-layout.md`; moby 25+ `image/tarexport/save.go`.

use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::{Descriptor, ImageIndex, Manifest, OCI_INDEX},
    reference::Reference,
    store::{Blobs, Store, blocking, parse_manifest},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Write},
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::SyncIoBridge;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// All that goes into the archive.
#[derive(Default)]
struct Plan {
    blobs: BTreeSet<Digest>,
    documents: BTreeMap<Digest, Manifest>,
    index: Vec<Descriptor>,
    images: Vec<ArchivedImage>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Store {
    /// Writes images (names or ids) as one tar that is both an OCI layout and a `docker save` archive.
    ///
    /// # Errors
    /// An unknown name (before anything is written); the writer's error.
    pub async fn save(
        &self,
        names: &[String],
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<()> {
        let mut pins = self.pins();
        let mut plan = Plan::default();
        let mut wanted: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for name in names {
            let image = self.find(name).await?;
            let tags = wanted.entry(image.id).or_default();
            let reference = name.parse::<Reference>().ok();
            let tag = reference.filter(|r| r.digest.is_none() && image.repo_tags.contains(&r.to_string()));
            tags.extend(tag);
        }
        for (id, tags) in wanted {
            let manifest = self.manifest_of(id).await?;
            plan.add(id, &tags, manifest)?;
        }
        plan.blobs.iter().for_each(|digest| pins.add(*digest));
        let blobs = self.blobs().clone();
        let writer = SyncIoBridge::new(writer);
        let mut writer =
            blocking(move || plan.write(writer, &blobs).map_err(Error::Archive)).await?.into_inner();
        drop(pins);
        writer.shutdown().await.map_err(Error::Archive)
    }
}

impl Plan {
    fn add(&mut self, id: Digest, tags: &[Reference], manifest: Manifest) -> Result<()> {
        let parsed = parse_manifest(&manifest)?;
        self.blobs.insert(id);
        self.blobs.extend(parsed.layers.iter().map(|layer| layer.digest));
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let named = |tag: &Reference| {
            let annotations = [
                ("io.containerd.image.name".to_owned(), tag.canonical()),
                ("org.opencontainers.image.ref.name".to_owned(), tag.tag.clone().unwrap_or_default()),
            ];
            Descriptor { annotations: annotations.into(), ..manifest.descriptor() }
        };
        if tags.is_empty() {
            self.index.push(manifest.descriptor());
        }
        self.index.extend(tags.iter().map(named));
        for tag in tags {
            let versions = self.repositories.entry(tag.familiar_name()).or_default();
            versions.insert(tag.tag.clone().unwrap_or_default(), id.hex());
        }
        self.images.push(ArchivedImage {
            config: path(&id),
            repo_tags: (!tags.is_empty()).then(|| tags.iter().map(ToString::to_string).collect()),
            layers: parsed.layers.iter().map(|layer| path(&layer.digest)).collect(),
        });
        self.documents.insert(manifest.digest, manifest);
        Ok(())
    }

    fn write<W: Write>(self, writer: W, blobs: &Blobs) -> io::Result<W> {
        let mut tar = tar::Builder::new(writer);
        for directory in ["blobs/", "blobs/sha256/"] {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, directory, io::empty())?;
        }
        for digest in &self.blobs {
            let file = File::open(blobs.path(digest))?;
            let size = file.metadata()?.len();
            append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), size, file)?;
        }
        for (digest, document) in &self.documents {
            append(
                &mut tar,
                &format!("blobs/sha256/{}", digest.hex()),
                document.bytes.len() as u64,
                &*document.bytes,
            )?;
        }
        let index = ImageIndex { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests: self.index };
        append_json(&mut tar, "index.json", &index)?;
        append_json(&mut tar, "manifest.json", &self.images)?;
        append_json(&mut tar, "oci-layout", &BTreeMap::from([("imageLayoutVersion", "1.0.0")]))?;
        if !self.repositories.is_empty() {
            append_json(&mut tar, "repositories", &self.repositories)?;
        }
        let mut writer = tar.into_inner()?;
        writer.flush()?;
        Ok(writer)
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, size: u64, content: impl Read) -> io::Result<()> {
    tar.append_data(&mut header(tar::EntryType::Regular, 0o644, size), path, content.take(size))
}

fn append_json<W: Write>(tar: &mut tar::Builder<W>, path: &str, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    append(tar, path, text.len() as u64, &*text)
}
