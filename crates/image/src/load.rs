//! Takes images out of an archive: `docker save` of old (`manifest.json` and `layer.tar` files) and new (also an OCI
//! layout), `skopeo`'s and `buildah`'s OCI layouts; plain, gzip or zstd.
//!
//! The archive may come through a pipe and in any order, so every file is first written under `ingest/` with its
//! digest; only what a manifest asks for becomes a blob. *Source:* OCI image-spec `image-layout.md`, moby
//! `image/tarexport`.

use crate::{
    compression::{Compression, sniff},
    digest::Digest,
    error::{Error, Result},
    manifest::{Descriptor, ImageIndex, ImageManifest, Manifest, OCI_CONFIG, Platform},
    reference::Reference,
    store::{Blobs, Candidate, Ingest, Loaded, Pins, Progress, Store, blocking, parse_config, verify},
    tarball,
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::{self, Read},
};
use tar::EntryType;
use tokio::{io::AsyncRead, sync::mpsc};
use tokio_util::io::SyncIoBridge;

const MAX_FILES: usize = 100_000;
/// *Unit:* bytes of a JSON document in an archive.
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// One image of `manifest.json`. *Source:* moby `image/tarexport/tarexport.go`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The files of an archive, none of them a blob yet.
#[derive(Debug, Default)]
struct Spool {
    files: BTreeMap<String, Spooled>,
    links: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Spooled {
    Written(Ingest),
    Committed(Digest, u64),
}

impl Store {
    /// Loads all images of a `docker save` archive (old or new) or OCI layout, plain, gzip or zstd.
    ///
    /// # Errors
    /// A broken archive, a wrong digest, a full disk; images completed before stay, nothing else does.
    pub async fn load(
        &self,
        reader: impl AsyncRead + Send + Unpin + 'static,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>> {
        let reader = SyncIoBridge::new(reader);
        let blobs = self.blobs().clone();
        let mut pins = self.pins();
        let (candidates, _pins) = blocking(move || {
            let mut spool = Spool::read(reader, &blobs)?;
            let candidates = spool.candidates(&blobs, &mut pins)?;
            Ok::<_, Error>((candidates, pins))
        })
        .await?;
        let mut loaded = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let tags = candidate.tags.clone();
            let image = self.install(candidate, &progress).await?;
            match tags.is_empty() {
                true => Progress::say(&progress, "", format!("Loaded image ID: {}", image.id)).await,
                false => {
                    for tag in &tags {
                        Progress::say(&progress, "", format!("Loaded image: {tag}")).await;
                    }
                }
            }
            loaded.push(Loaded { id: image.id, tags });
        }
        Ok(loaded)
    }
}

fn unfit(reason: impl Into<String>) -> Error {
    Error::InvalidArchive(reason.into())
}

/// `./blobs/sha256/x` is `blobs/sha256/x`; these are only keys, never opened as paths.
fn key(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn blob_key(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn document<T: for<'de> Deserialize<'de>>(what: &'static str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document {
        what,
        digest: Digest::of(bytes),
        source,
    })
}

impl Spool {
    fn read(reader: impl Read + Send, blobs: &Blobs) -> Result<Self> {
        let (head, reader) = sniff(reader).map_err(Error::Archive)?;
        let reader = Compression::of(&head).reader(reader).map_err(Error::Archive)?;
        let mut reader = tarball::Reader::new(reader);
        let mut spool = Self::default();
        while let Some(entry) = reader.next_entry().map_err(Error::Archive)? {
            let path = key(&String::from_utf8_lossy(&entry.path));
            if spool.files.len() + spool.links.len() >= MAX_FILES {
                return Err(unfit("it holds too many files to be an image"));
            }
            match entry.kind {
                EntryType::Regular | EntryType::Continuous => {
                    let mut ingest = blobs.begin()?;
                    copy(&mut reader, &mut ingest)?;
                    spool.files.insert(path, Spooled::Written(ingest));
                }
                EntryType::Symlink => {
                    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
                    let target = key(&format!("{above}/{}", String::from_utf8_lossy(&entry.link)));
                    spool.links.insert(path, target);
                }
                EntryType::Link => drop(spool.links.insert(path, key(&String::from_utf8_lossy(&entry.link)))),
                _ => {}
            }
        }
        reader.drain().map_err(Error::Archive)?;
        Ok(spool)
    }

    /// Follows links to the name of a file that is there.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut path = key(path);
        for _ in 0..8 {
            if self.files.contains_key(&path) {
                return Some(path);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    fn document(&self, path: &str, blobs: &Blobs) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.resolve(path) else { return Ok(None) };
        let mut bytes = Vec::new();
        let file = match &self.files[&path] {
            Spooled::Written(ingest) => ingest.reopen()?,
            Spooled::Committed(digest, _) => return blobs.read(digest).map(Some),
        };
        file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes).map_err(Error::Archive)?;
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(unfit(format!("{path} is too large")));
        }
        Ok(Some(bytes))
    }

    /// Makes a file of the archive a blob; returns its digest and size.
    fn commit(&mut self, path: &str, expected: Option<Digest>, pins: &mut Pins) -> Result<(Digest, u64)> {
        let missing = || unfit(format!("{path} is missing"));
        let path = self.resolve(path).ok_or_else(missing)?;
        let (digest, size) = match self.files.remove(&path).ok_or_else(missing)? {
            Spooled::Written(ingest) => {
                pins.add(ingest.digest());
                let size = ingest.written;
                (ingest.commit(expected)?, size)
            }
            Spooled::Committed(digest, size) => (digest, size),
        };
        if let Some(expected) = expected {
            verify("blob", expected, digest)?;
        }
        self.files.insert(path, Spooled::Committed(digest, size));
        Ok((digest, size))
    }

    fn candidates(&mut self, blobs: &Blobs, pins: &mut Pins) -> Result<Vec<Candidate>> {
        let index = self.document("index.json", blobs)?;
        let archived = self.document("manifest.json", blobs)?;
        if index.is_none() && archived.is_none() {
            return Err(unfit(
                "it has neither manifest.json nor index.json (for a root file system use import)",
            ));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        if let Some(index) = index {
            for descriptor in document::<ImageIndex>("index", &index)?.manifests {
                candidates.extend(self.layout_image(&descriptor, blobs, pins)?);
            }
        }
        for image in archived
            .map(|bytes| document::<Vec<ArchivedImage>>("manifest.json", &bytes))
            .transpose()?
            .unwrap_or_default()
        {
            let (config, _) = self.commit(&image.config, None, pins)?;
            let tags: Vec<Reference> = image
                .repo_tags
                .iter()
                .flatten()
                .map(|tag| tag.parse::<Reference>())
                .collect::<Result<_, _>>()?;
            let same = |candidate: &&mut Candidate| {
                crate::store::parse_manifest(&candidate.manifest)
                    .is_ok_and(|manifest| manifest.config.digest == config)
            };
            match candidates.iter_mut().find(same) {
                Some(candidate) => candidate.tags.extend(tags),
                None => candidates.push(self.archived_image(&image, config, tags, blobs, pins)?),
            }
        }
        for candidate in &mut candidates {
            candidate.tags.sort();
            candidate.tags.dedup();
        }
        if candidates.is_empty() { Err(unfit("it holds no image for this platform")) } else { Ok(candidates) }
    }

    /// An image as the layout has it, its manifest kept to the byte. One of another platform is `None`.
    fn layout_image(
        &mut self,
        descriptor: &Descriptor,
        blobs: &Blobs,
        pins: &mut Pins,
    ) -> Result<Option<Candidate>> {
        let tags = names(&descriptor.annotations);
        let missing = || unfit(format!("blob {} is missing", descriptor.digest));
        let read = |spool: &Self, digest: &Digest| spool.document(&blob_key(digest), blobs);
        let bytes = read(self, &descriptor.digest)?.ok_or_else(missing)?;
        verify("manifest", descriptor.digest, Digest::of(&bytes))?;
        let document_here = Manifest::new(&descriptor.media_type, bytes.into());
        let (manifest, index) = if document_here.is_index() {
            let parsed: ImageIndex = document("index", &document_here.bytes)?;
            let Some(chosen) = parsed.choose(&Platform::default()) else { return Ok(None) };
            // `docker save` of a pulled image keeps the index but only the manifests it has.
            let Some(bytes) = read(self, &chosen.digest)? else { return Ok(None) };
            verify("manifest", chosen.digest, Digest::of(&bytes))?;
            (Manifest::new(&chosen.media_type, bytes.into()), Some(document_here))
        } else {
            (document_here, None)
        };
        let parsed: ImageManifest = document("manifest", &manifest.bytes)?;
        for blob in std::iter::once(&parsed.config).chain(&parsed.layers) {
            self.commit(&blob_key(&blob.digest), Some(blob.digest), pins)?;
        }
        Ok(Some(Candidate { manifest, index, tags, digests: Vec::new(), parent: None }))
    }

    /// An image of `manifest.json`; gets the manifest it came without.
    fn archived_image(
        &mut self,
        image: &ArchivedImage,
        config: Digest,
        tags: Vec<Reference>,
        blobs: &Blobs,
        pins: &mut Pins,
    ) -> Result<Candidate> {
        let config_bytes = blobs.read(&config)?;
        let parsed = parse_config(config, &config_bytes)?;
        let paths = image.layers.clone().unwrap_or_default();
        if paths.len() != parsed.rootfs.diff_ids.len() {
            let (ids, layers) = (parsed.rootfs.diff_ids.len(), paths.len());
            return Err(unfit(format!("{} names {ids} layers, manifest.json {layers}", image.config)));
        }
        let mut layers = Vec::new();
        for path in &paths {
            let (digest, size) = self.commit(path, None, pins)?;
            let file = std::fs::File::open(blobs.path(&digest)).map_err(Error::Archive)?;
            let (head, _) = sniff(file).map_err(Error::Archive)?;
            let media_type = Compression::of(&head).media_type();
            let media_type = media_type.ok_or(Error::Compression("xz or bzip2"))?;
            layers.push(Descriptor::new(media_type, digest, size));
        }
        let manifest = make_manifest(Descriptor::new(OCI_CONFIG, config, config_bytes.len() as u64), layers);
        Ok(Candidate { manifest, index: None, tags, digests: Vec::new(), parent: None })
    }
}

/// Returns the names a layout gives to a manifest. A bare tag (`skopeo`'s habit) names no image.
fn names(annotations: &BTreeMap<String, String>) -> Vec<Reference> {
    let full = annotations.get("io.containerd.image.name").and_then(|name| name.parse::<Reference>().ok());
    let reference =
        annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
    let named = full.or_else(|| reference.and_then(|name| name.parse().ok()));
    named
        .filter(|name: &Reference| name.tag.is_some())
        .map(|name| Reference { digest: None, ..name })
        .into_iter()
        .collect()
}

/// Makes the manifest of an image that came without one. Equal images get equal manifests on every node.
pub(crate) fn make_manifest(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
    let manifest = ImageManifest::oci(config, layers);
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain JSON");
    Manifest::new(&manifest.media_type, bytes.into())
}

/// Copies and tells a failing archive from a failing disk.
pub(crate) fn copy(from: &mut impl Read, to: &mut Ingest) -> Result<()> {
    use std::io::Write;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(Error::io("write", &to.path))?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::Archive(e)),
        }
    }
}
