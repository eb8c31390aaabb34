//! The content store: what is here, what it is called, who needs it, and what may go.
//!
//! ```text
//! root/images.json         names and images: the one truth (metadata)
//! root/blobs/sha256/<hex>  complete, verified blobs (blobs)
//! root/ingest/             blobs being written; `<hex>.part` is taken up by the next pull
//! root/layers/<hex24>/diff unpacked layers, beside `layer.json` that names the whole diff id (unpacked)
//! ```

mod blobs;
mod metadata;
mod recovery;
mod removal;
mod types;
mod unpacked;

pub(crate) use blobs::{Blobs, Ingest, make_private, verify};
pub use types::{
    Auth, Image, ImportOptions, Loaded, Progress, PullOptions, PushOptions, RegistryOptions, Removed,
};

use crate::{
    blocking::Blocking,
    config::{HistoryEntry, ImageConfiguration},
    digest::Digest,
    error::{Error, Result},
    layers::Layers,
    manifest::{Descriptor, ImageManifest, Manifest},
    reference::Reference,
    registry::Proxies,
};
use futures::{FutureExt as _, future::Map};
use metadata::{Document, LayerRecord, Metadata, Record};
use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinError,
};

/// How long an unnamed blob or a half download waits for a second try.
const KEEP_UNUSED: Duration = Duration::from_secs(24 * 3600);

/// *Limit* of an image's layers. Source: Linux `fs/overlayfs`, `OVL_MAX_STACK`.
const LAYERS_MAX: usize = 500;
/// *Limit* of an image's configuration, which is read into memory. *Unit:* bytes.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// What the names of holders begin with that keep results of builds: they are no use of an image, and go when the
/// image is removed.
pub const CACHE_HOLDER: &str = "build-cache:";

/// Handle of a content store on disk.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    squash: bool,
    blobs: Blobs,
    current: Mutex<Arc<Metadata>>,
    /// One change at a time.
    writer: Mutex<()>,
    /// One fetch per blob and one unpack per layer at a time.
    gates: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    /// Blobs and layers that running operations need.
    pins: Mutex<HashMap<Digest, usize>>,
    unpackers: Semaphore,
    flusher: unpacked::Flusher,
    http: crate::registry::Http,
}

/// What unpacked layers take, each counted once. *Unit:* bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerUsage {
    pub total_bytes: u64,
    /// Of each image, by id: layers that another image has too.
    pub shared_bytes: BTreeMap<Digest, u64>,
}

/// An image whose blobs are all in the store, about to be unpacked and named.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) manifest: Manifest,
    /// The index it was chosen from.
    pub(crate) index: Option<Manifest>,
    pub(crate) tags: Vec<Reference>,
    /// Where it came from, with the digest it has there.
    pub(crate) digests: Vec<Reference>,
    pub(crate) parent: Option<Digest>,
}

/// Keeps digests from being swept away while it lives.
#[derive(Debug)]
pub(crate) struct Pins {
    store: Store,
    digests: Vec<Digest>,
}

impl Pins {
    pub(crate) fn add(&mut self, digest: Digest) {
        *lock(&self.store.inner.pins).entry(digest).or_default() += 1;
        self.digests.push(digest);
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = lock(&self.store.inner.pins);
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No section under these locks leaves its data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work whose failing is a fault of the program.
pub(crate) type Done<T> = Map<Blocking<T>, fn(Result<T, JoinError>) -> T>;

/// Runs blocking work off the runtime's threads.
pub(crate) fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Done<T> {
    crate::blocking::blocking(work).map(|done| done.expect("blocking work neither panics nor is aborted"))
}

pub(crate) fn random_name() -> String {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn parse_config(digest: Digest, bytes: &[u8]) -> Result<ImageConfiguration> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document { what: "configuration", digest, source })
}

pub(crate) fn parse_manifest(manifest: &Manifest) -> Result<ImageManifest> {
    let invalid = |source| Error::Document { what: "manifest", digest: manifest.digest, source };
    let parsed: ImageManifest = serde_json::from_slice(&manifest.bytes).map_err(invalid)?;
    if parsed.schema_version != 2 {
        let reason = format!("schema version {} is not supported", parsed.schema_version);
        return Err(Error::Unusable { what: "manifest", reason });
    }
    if parsed.layers.len() > LAYERS_MAX {
        let reason = format!("it has {} layers, more than {LAYERS_MAX}", parsed.layers.len());
        return Err(Error::Unusable { what: "manifest", reason });
    }
    if parsed.config.size_bytes > CONFIG_BYTES_MAX {
        let size = parsed.config.size_bytes;
        let reason = format!("its configuration has {size} bytes, more than {CONFIG_BYTES_MAX}");
        return Err(Error::Unusable { what: "manifest", reason });
    }
    Ok(parsed)
}

impl Store {
    /// Opens or makes the store under `root`; half-made things of a crash are cleared away. `userns_squash`: all files
    /// belong to the caller, `user.overlay.*` instead of `trusted.overlay.*` (mount with `userxattr`).
    ///
    /// A damaged `images.json` is made anew from what it said before and from the blobs; it is never replaced by an
    /// empty one.
    ///
    /// # Errors
    /// The directory cannot be used, or `images.json` is of another version of this program.
    pub async fn open(root: &Path, userns_squash: bool) -> Result<Self> {
        Self::open_through(root, userns_squash, Proxies::default()).await
    }

    /// The same, with proxies that registries and web servers are reached through.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_through(root: &Path, userns_squash: bool, proxies: Proxies) -> Result<Self> {
        let root = root.to_owned();
        blocking(move || Self::open_blocking(root, userns_squash, proxies)).await
    }

    /// Returns the proxies that registries and web servers are reached through.
    pub fn proxies(&self) -> &Proxies {
        self.inner.http.proxies()
    }

    fn open_blocking(root: PathBuf, squash: bool, proxies: Proxies) -> Result<Self> {
        let blobs = Blobs::open(&root)?;
        let layers = root.join("layers");
        make_private(&layers)?;
        let mut metadata = recovery::read(&root, &blobs)?;
        for (id, record) in metadata.images.clone() {
            // A damaged document is as good as none: the next pull or load brings it again.
            for document in [record.manifest, id] {
                if let Err(error @ (Error::DigestMismatch { .. } | Error::Io { .. })) = blobs.read(&document)
                {
                    blobs.discard(&document, &error);
                }
            }
            let complete =
                blobs.has(&record.manifest) && record.layers.iter().all(|l| blobs.has(&l.blob.digest));
            let config = blobs.read(&id).and_then(|bytes| parse_config(id, &bytes));
            match config {
                Ok(config) if complete => drop(metadata.configs.insert(id, Arc::new(config))),
                Ok(_) => {
                    tracing::error!(image.id = %id, "image has lost blobs and is forgotten");
                    metadata.forget(id);
                }
                Err(error) => {
                    tracing::error!(image.id = %id, %error, "image has lost its configuration and is forgotten");
                    metadata.forget(id);
                }
            }
        }
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let store = Self {
            inner: Arc::new(Inner {
                root,
                squash,
                blobs,
                current: Mutex::new(Arc::new(metadata)),
                writer: Mutex::default(),
                gates: Mutex::default(),
                pins: Mutex::default(),
                unpackers: Semaphore::new(cores.clamp(2, 8)),
                flusher: unpacked::Flusher::default(),
                http: crate::registry::Http::new(proxies),
            }),
        };
        store.clear_half_made()?;
        store.sweep(KEEP_UNUSED)?;
        Ok(store)
    }

    fn clear_half_made(&self) -> Result<()> {
        let layers = self.layers_directory();
        for name in directory_names(&layers)? {
            if name.starts_with('.') {
                let path = layers.join(&name);
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        let ingest = self.inner.blobs.ingest_directory();
        for name in directory_names(ingest)? {
            let path = ingest.join(&name);
            if !name.ends_with(".part") || is_older(&path, KEEP_UNUSED) {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    pub(crate) fn http(&self) -> &crate::registry::Http {
        &self.inner.http
    }

    pub(crate) fn squash(&self) -> bool {
        self.inner.squash
    }

    fn layers_directory(&self) -> PathBuf {
        self.inner.root.join("layers")
    }

    fn view(&self) -> Arc<Metadata> {
        Arc::clone(&lock(&self.inner.current))
    }

    /// Changes the metadata: on disk first, then for all to see.
    async fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Metadata) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        // Runs to its end even if the caller goes away: disk and memory never part.
        blocking(move || {
            let _writer = lock(&inner.writer);
            let mut next = Metadata::clone(&lock(&inner.current));
            let answer = change(&mut next)?;
            next.write(&inner.root.join("images.json"))?;
            *lock(&inner.current) = Arc::new(next);
            Ok(answer)
        })
        .await
    }

    /// As [`Store::update`], for what is not in the file: in place, unless somebody looks at it. A refusal has to change
    /// nothing.
    async fn update_unwritten<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Metadata) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let _writer = lock(&inner.writer);
            change(Arc::make_mut(&mut lock(&inner.current)))
        })
        .await
    }

    pub(crate) fn pins(&self) -> Pins {
        Pins { store: self.clone(), digests: Vec::new() }
    }

    /// Returns the lock of one blob or layer.
    pub(crate) fn gate(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = lock(&self.inner.gates);
        if let Some(gate) = gates.get(&digest).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::default();
        gates.insert(digest, Arc::downgrade(&gate));
        gate
    }

    /// Unpacks what is not unpacked yet, keeps the documents and gives the image its names.
    pub(crate) async fn install(
        &self,
        candidate: Candidate,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Image> {
        let Candidate { manifest, index, tags, digests, parent } = candidate;
        let parsed = parse_manifest(&manifest)?;
        let id = parsed.config.digest;
        let blobs = self.inner.blobs.clone();
        let mut pins = self.pins();
        let documents: Vec<Manifest> = std::iter::once(manifest.clone()).chain(index.clone()).collect();
        [id].into_iter()
            .chain(documents.iter().map(|document| document.digest))
            .chain(parsed.layers.iter().map(|layer| layer.digest))
            .for_each(|digest| pins.add(digest));
        let kept = documents.clone();
        let config = blocking(move || {
            for document in &kept {
                blobs.put(&document.bytes)?;
            }
            parse_config(id, &blobs.read(&id)?)
        })
        .await?;
        check_usable(&config, &parsed)?;
        config.rootfs.diff_ids.iter().for_each(|diff_id| pins.add(*diff_id));

        let unpacks = parsed.layers.iter().zip(&config.rootfs.diff_ids);
        let unpacks = unpacks.map(|(blob, diff_id)| async move {
            let size_bytes = self.unpack_layer(blob, *diff_id, progress).await?;
            Ok::<_, Error>(LayerRecord { blob: blob.clone(), diff_id: *diff_id, size_bytes })
        });
        let layers = futures::future::try_join_all(unpacks).await?;

        let target = index.as_ref().map_or(manifest.digest, |index| index.digest);
        let manifest = manifest.digest;
        self.update(move |metadata| {
            for document in documents {
                metadata
                    .documents
                    .insert(document.digest, Document { media_type: document.media_type, image: id });
            }
            let now = OffsetDateTime::now_utc().unix_timestamp();
            let parent = parent.or_else(|| metadata.images.get(&id).and_then(|record| record.parent));
            metadata
                .images
                .insert(id, Record { manifest, target, layers: layers.into(), last_tagged: now, parent });
            metadata.configs.insert(id, Arc::new(config));
            metadata.tags.extend(tags.iter().map(|tag| (tag.canonical(), target)));
            metadata.digests.extend(digests.iter().filter_map(|name| Some((name.canonical(), name.digest?))));
            Ok(())
        })
        .await?;
        drop(pins);
        self.by_id(&id).await.ok_or_else(|| Error::NotFound(id.to_string()))
    }

    /// Gives an image (name, id or prefix) one more name.
    ///
    /// # Errors
    /// No such image, or the new name has a digest.
    pub async fn tag(&self, image: &str, name: &Reference) -> Result<()> {
        let Some(tag) = name.tag.clone().filter(|_| name.digest.is_none()) else {
            let reason = "refusing to create a tag with a digest reference".to_owned();
            return Err(Error::Unusable { what: "name", reason });
        };
        let canonical = name.with_tag(&tag).canonical();
        let (id, target) = self.look_up(image)?;
        // When it has that name already, the time is all there is to note: that comes with the next change.
        let again = self.view().tags.get(&canonical) == Some(&target);
        let named = move |metadata: &mut Metadata| {
            if again && metadata.tags.get(&canonical) != Some(&target) {
                return Ok(false);
            }
            let record = metadata.images.get_mut(&id).ok_or_else(|| Error::NotFound(id.to_string()))?;
            record.last_tagged = OffsetDateTime::now_utc().unix_timestamp();
            metadata.tags.insert(canonical, target);
            Ok(true)
        };
        let done = if again { self.update_unwritten(named).await? } else { self.update(named).await? };
        // Renamed by somebody in between.
        if done { Ok(()) } else { Box::pin(self.tag(image, name)).await }
    }

    /// Keeps an image (its layers) for `holder`, a container id, until [`Store::release`]. Not written down: who
    /// opens the store again holds again, before anything may be removed.
    ///
    /// # Errors
    /// [`Error::NotFound`]: no such image (any more).
    pub async fn hold(&self, image: &Digest, holder: &str) -> Result<()> {
        let (image, holder) = (*image, holder.to_owned());
        self.update_unwritten(move |metadata| {
            if !metadata.images.contains_key(&image) {
                return Err(Error::NotFound(image.to_string()));
            }
            metadata.holders.insert(holder, image);
            Ok(())
        })
        .await
    }

    /// Ends what [`Store::hold`] began; unknown holders are fine.
    pub async fn release(&self, holder: &str) {
        if !self.view().holders.contains_key(holder) {
            return;
        }
        let holder = holder.to_owned();
        let released = self.update_unwritten(move |metadata| {
            metadata.holders.remove(&holder);
            Ok(())
        });
        released.await.expect("nothing here can fail");
    }

    /// Returns all holders and their images.
    #[expect(clippy::unused_async, reason = "the store may look at the disk one day")]
    pub async fn holders(&self) -> Vec<(String, Digest)> {
        self.view().holders.iter().map(|(holder, image)| (holder.clone(), *image)).collect()
    }

    /// Returns what the unpacked layers take.
    #[must_use]
    pub fn layer_usage(&self) -> LayerUsage {
        let view = self.view();
        let mut users: BTreeMap<Digest, (u64, usize)> = BTreeMap::new();
        for record in view.images.values() {
            let layers: BTreeMap<Digest, u64> =
                record.layers.iter().map(|layer| (layer.diff_id, layer.size_bytes)).collect();
            for (layer, size) in layers {
                users.entry(layer).or_insert((size, 0)).1 += 1;
            }
        }
        let shared = |record: &Record| {
            let of_others =
                |layer: &&LayerRecord| users.get(&layer.diff_id).is_some_and(|(_, users)| *users > 1);
            record.layers.iter().filter(of_others).map(|layer| layer.size_bytes).sum()
        };
        LayerUsage {
            total_bytes: users.values().map(|(size, _)| size).sum(),
            shared_bytes: view.images.iter().map(|(id, record)| (*id, shared(record))).collect(),
        }
    }

    /// Returns all images, newest first.
    #[expect(clippy::unused_async, reason = "the store may look at the disk one day")]
    pub async fn list(&self) -> Vec<Image> {
        let view = self.view();
        let mut images: Vec<Image> = view.images.keys().filter_map(|id| describe(&view, *id)).collect();
        images.sort_by_key(|image| std::cmp::Reverse((image.created, image.id)));
        images
    }

    /// Returns the image of that name (`redis`, `redis:7`, `redis:7@sha256:..`), id or unambiguous id prefix.
    pub async fn get(&self, name_or_id: &str) -> Option<Image> {
        self.find(name_or_id).await.ok()
    }

    /// As [`Store::get`], with Docker's error.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Ambiguous`].
    pub async fn find(&self, name_or_id: &str) -> Result<Image> {
        let (id, _) = self.look_up(name_or_id)?;
        self.by_id(&id).await.ok_or_else(|| Error::NotFound(name_or_id.to_owned()))
    }

    /// Returns the image with exactly this id.
    #[expect(clippy::unused_async, reason = "the store may look at the disk one day")]
    pub async fn by_id(&self, id: &Digest) -> Option<Image> {
        describe(&self.view(), *id)
    }

    /// Returns image id and document (manifest or index) of a name, id or prefix.
    fn look_up(&self, text: &str) -> Result<(Digest, Digest)> {
        let view = self.view();
        let by_id = |id: Digest| view.images.get(&id).map(|record| (id, record.target));
        let by_document =
            |digest: Digest| view.documents.get(&digest).map(|document| (document.image, digest));
        let unknown = || Error::NotFound(text.to_owned());
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() {
            return by_id(digest).or_else(|| by_document(digest)).ok_or_else(unknown);
        }
        if let Ok(reference) = text.parse::<Reference>() {
            let target = reference.digest.or_else(|| view.tags.get(&reference.canonical()).copied());
            if let Some(found) = target.and_then(by_document) {
                return Ok(found);
            }
        }
        if hex.is_empty() || !hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)) {
            return Err(unknown());
        }
        let mut matching = view.images.iter().filter(|(id, _)| id.hex().starts_with(hex));
        match (matching.next(), matching.next()) {
            (Some((id, record)), None) => Ok((*id, record.target)),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
            (None, _) => Err(unknown()),
        }
    }

    /// Returns the build steps, newest first, each with the unpacked bytes of its layer.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    #[expect(clippy::unused_async, reason = "the store may look at the disk one day")]
    pub async fn history(&self, name_or_id: &str) -> Result<Vec<(HistoryEntry, u64)>> {
        let (id, _) = self.look_up(name_or_id)?;
        let view = self.view();
        let unknown = || Error::NotFound(name_or_id.to_owned());
        let (record, config) =
            (view.images.get(&id).ok_or_else(unknown)?, view.configs.get(&id).ok_or_else(unknown)?);
        let mut layers = record.layers.iter().map(|layer| layer.size_bytes);
        let steps = config.history.iter();
        let mut steps: Vec<_> = steps
            .map(|step| (step.clone(), if step.empty_layer { 0 } else { layers.next().unwrap_or(0) }))
            .collect();
        // Layers nobody wrote a step for.
        steps.extend(layers.map(|size| (HistoryEntry::default(), size)));
        steps.reverse();
        Ok(steps)
    }

    /// Returns the unpacked layers of an image; one that was lost is unpacked again.
    ///
    /// # Errors
    /// [`Error::NotFound`]; or a layer has to be unpacked and cannot be.
    pub async fn rootfs(&self, image: &Digest) -> Result<Layers> {
        let view = self.view();
        let record = view.images.get(image).ok_or_else(|| Error::NotFound(image.to_string()))?;
        let (progress, _) = mpsc::channel(1);
        let mut dirs = Vec::with_capacity(record.layers.len());
        for layer in record.layers.iter().rev() {
            self.unpack_layer(&layer.blob, layer.diff_id, &progress).await?;
            let directory = self.layer_directory(&layer.diff_id).join("diff");
            // A layer may be in an image twice; overlayfs wants a directory once, and the upper one decides.
            if !dirs.contains(&directory) {
                dirs.push(directory);
            }
        }
        Ok(Layers { dirs })
    }

    /// Returns the file with exactly these bytes, if it is here and complete.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.inner.blobs.has(digest).then(|| self.inner.blobs.path(digest))
    }

    /// Returns the manifest or index a name stands for here; by digest alone if the name has one.
    pub async fn manifest_for(&self, reference: &Reference) -> Option<Manifest> {
        let view = self.view();
        let digest = reference.digest.or_else(|| view.tags.get(&reference.canonical()).copied())?;
        self.document(digest).await
    }

    /// Returns true if a blob is part of what a name stands for here: its manifest or index, and what they name.
    pub async fn is_part_of(&self, reference: &Reference, digest: &Digest) -> bool {
        let mut ahead: Vec<Manifest> = self.manifest_for(reference).await.into_iter().collect();
        while let Some(manifest) = ahead.pop() {
            if manifest.digest == *digest {
                return true;
            }
            for named in manifest.named() {
                if named == *digest {
                    return true;
                }
                // Of an index; the platforms that are not here are passed over. A document names only what it was
                // made after, by digest: there are no circles.
                ahead.extend(self.document(named).await);
            }
        }
        false
    }

    pub(crate) async fn document(&self, digest: Digest) -> Option<Manifest> {
        let media_type = self.view().documents.get(&digest)?.media_type.clone();
        let blobs = self.inner.blobs.clone();
        match blocking(move || blobs.read(&digest)).await {
            Ok(bytes) => Some(Manifest { media_type, digest, bytes: bytes.into() }),
            Err(error) => {
                tracing::error!(%digest, %error, "manifest cannot be read");
                None
            }
        }
    }

    /// Returns the manifest (never the index) of an image.
    pub(crate) async fn manifest_of(&self, image: Digest) -> Result<Manifest> {
        let manifest = self.view().images.get(&image).map(|record| record.manifest);
        let unknown = || Error::NotFound(image.to_string());
        self.document(manifest.ok_or_else(unknown)?).await.ok_or_else(unknown)
    }

    /// Remembers that a registry has this image under that digest.
    pub(crate) async fn note_digest(&self, name: Reference) -> Result<()> {
        let Some(digest) = name.digest else { return Ok(()) };
        let canonical = Reference { tag: None, ..name }.canonical();
        self.update(move |metadata| {
            metadata.digests.insert(canonical, digest);
            Ok(())
        })
        .await
    }
}

fn check_usable(config: &ImageConfiguration, manifest: &ImageManifest) -> Result<()> {
    let unusable = |reason| Err(Error::Unusable { what: "image", reason });
    if !config.os.is_empty() && config.os != "linux" {
        return unusable(format!("image operating system \"{}\" cannot be used on this platform", config.os));
    }
    let (ids, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
    if ids != layers {
        return unusable(format!("its configuration names {ids} layers, its manifest {layers}"));
    }
    Ok(())
}

fn describe(view: &Metadata, id: Digest) -> Option<Image> {
    let record = view.images.get(&id)?;
    let config = Arc::clone(view.configs.get(&id)?);
    let parse = |name: &String| name.parse::<Reference>().ok();
    let created = config.created.as_ref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    Some(Image {
        id,
        manifest: record.target,
        repo_tags: view.tags_of(id).iter().filter_map(|name| parse(name)?.familiar_tag()).collect(),
        repo_digests: view.digests_of(id).iter().filter_map(|name| Some(parse(name)?.to_string())).collect(),
        size_bytes: record.layers.iter().map(|layer| layer.size_bytes).sum(),
        created,
        last_tagged: OffsetDateTime::from_unix_timestamp(record.last_tagged).ok(),
        parent: record.parent,
        layers: record.layers.iter().map(|layer| layer.diff_id).collect(),
        intermediate: view.tags_of(id).is_empty()
            && view.digests_of(id).is_empty()
            && view.holders.iter().any(|(holder, held)| *held == id && holder.starts_with(CACHE_HOLDER)),
        config,
    })
}

fn directory_names(path: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(Error::io("list", path))
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    modified
        .is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|passed| passed >= age))
}

impl Descriptor {
    /// Returns the id shown in progress lines.
    pub(crate) fn short(&self) -> String {
        self.digest.short()
    }
}
