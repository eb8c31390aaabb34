//! Docker's managed plugins as what registries keep of them: a configuration and the layers of a root. They are made
//! here of a folder, named, listed, pushed, pulled and removed; none is run, and what a configuration says is read by
//! whoever speaks Docker's JSON.
//!
//! ```text
//! root/records/<id>.json   one plugin: its name, its settings, its blobs (the one truth)
//! root/blobs/sha256/<hex>  configurations, layers, manifests
//! root/ingest/             blobs being written
//! ```
//!
//! A blob that is complete but in no record is there only while [`Inner::change`] holds the lock; what a crash leaves of
//! such goes when the store is opened.
//!
//! *Source:* moby `plugin/backend_linux.go`, `plugin/store.go`.

mod context;
mod exchange;

pub use context::Context;
pub use exchange::Remote;

use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::{DOCKER_MANIFEST, Descriptor, ImageManifest},
    reference::Reference,
    registry::Http,
    store::{Blobs, Ingest, Store, blocking, make_private},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

/// *Source:* distribution `manifest/schema2`, `MediaTypePluginConfig`.
const PLUGIN_CONFIG: &str = "application/vnd.docker.plugin.v1+json";
/// *Source:* distribution `manifest/schema2`, `MediaTypeLayer`; registries take plugins with Docker's types alone.
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// *Limit* of a configuration, and of the settings that are made of it. *Unit:* bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Handle of the plugins of this host.
#[derive(Debug, Clone)]
pub struct Plugins {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    records: PathBuf,
    blobs: Blobs,
    http: Http,
    /// By id.
    current: Mutex<BTreeMap<String, Record>>,
    /// Some record could not be read: nobody knows which blobs it needs.
    damaged: bool,
}

/// One plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// 64 hex digits.
    pub id: String,
    /// With its tag, as people write it: `vieux/sshfs:latest`.
    pub name: String,
    /// What it was made or fetched as.
    pub reference: String,
    /// The document, in Docker's JSON.
    pub config: Vec<u8>,
    /// As they were last set: whatever whoever reads the configuration keeps of it.
    pub settings: Value,
}

/// What a file in `records/` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    name: String,
    reference: String,
    config: Digest,
    manifest: Digest,
    /// Lowest first.
    layers: Vec<Digest>,
    settings: Value,
}

/// Blobs of a plugin that are written, but not yet named.
#[derive(Debug)]
struct Parts {
    config: Vec<u8>,
    manifest: Vec<u8>,
    /// With the digest that each must have; `None` is any.
    layers: Vec<(Ingest, Option<Digest>)>,
}

impl Plugins {
    /// Opens or makes the store under `root`; what a crash left half-made is cleared away. A record that cannot be read is
    /// told of in the log and left where it is. Registries are reached as `images` reaches them.
    ///
    /// # Errors
    /// The folders cannot be used.
    pub async fn open(root: &Path, images: &Store) -> Result<Self> {
        let (root, http) = (root.to_owned(), images.http().clone());
        blocking(move || {
            let (records, blobs) = (root.join("records"), Blobs::open(&root)?);
            make_private(&records)?;
            let (current, damaged) = read_all(&records)?;
            let inner = Inner { records, blobs, http, current: Mutex::new(current), damaged };
            let half = inner.blobs.ingest_directory();
            for name in names_in(half)? {
                let path = half.join(name);
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
            inner.sweep(&inner.lock())?;
            Ok(Self { inner: Arc::new(inner) })
        })
        .await
    }

    /// Returns all of them, by id.
    ///
    /// # Errors
    /// A configuration cannot be read or is damaged.
    pub async fn list(&self) -> Result<Vec<Plugin>> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let current = inner.lock();
            current.iter().map(|(id, record)| inner.plugin(id, record)).collect()
        })
        .await
    }

    /// Returns the one of this name, id or beginning of an id.
    ///
    /// # Errors
    /// [`Error::NoPlugin`], [`Error::AmbiguousPlugin`]; its configuration cannot be read or is damaged.
    pub async fn find(&self, name_or_id: &str) -> Result<Plugin> {
        let (inner, wanted) = (Arc::clone(&self.inner), name_or_id.to_owned());
        blocking(move || {
            let current = inner.lock();
            let id = look_up(&current, &wanted)?;
            inner.plugin(&id, &current[&id])
        })
        .await
    }

    /// Fails if a plugin is called so.
    ///
    /// # Errors
    /// [`Error::PluginExists`].
    pub fn check_free(&self, name: &Reference) -> Result<()> {
        free(&self.inner.lock(), &name.to_string())
    }

    /// Reads what a plugin is made of: a tarball (plain or compressed) of `config.json` and `rootfs/`. What is not
    /// passed on to [`Plugins::create`] is gone when the context is.
    ///
    /// # Errors
    /// One of the two is missing, the tarball is broken, the disk is full.
    pub async fn read(&self, tarball: impl AsyncRead + Send + Unpin + 'static) -> Result<Context> {
        let (inner, reader) = (Arc::clone(&self.inner), SyncIoBridge::new(tarball));
        blocking(move || context::split(reader, inner.blobs.begin()?)).await
    }

    /// Makes a plugin of what was read, and of a configuration that somebody made of its `config.json`.
    ///
    /// # Errors
    /// [`Error::PluginExists`]; the configuration is too long; the disk. Nothing is left.
    pub async fn create(
        &self,
        name: &Reference,
        context: Context,
        config: Vec<u8>,
        settings: Value,
    ) -> Result<Plugin> {
        let of_config = Descriptor::new(PLUGIN_CONFIG, Digest::of(&config), config.len() as u64);
        let layer = Descriptor::new(DOCKER_LAYER_GZIP, context.rootfs.digest(), context.rootfs.written);
        let media_type = DOCKER_MANIFEST.to_owned();
        let manifest = ImageManifest { media_type, ..ImageManifest::oci(of_config, vec![layer]) };
        let manifest = serde_json::to_vec(&manifest).expect("a manifest is plain JSON");
        let parts = Parts { config, manifest, layers: vec![(context.rootfs, None)] };
        self.keep(name, name, parts, settings, None).await
    }

    /// Changes the settings of a plugin.
    ///
    /// # Errors
    /// As [`Plugins::find`]; they are too long; the disk.
    pub async fn set(&self, name_or_id: &str, settings: Value) -> Result<()> {
        let wanted = name_or_id.to_owned();
        self.inner
            .change(move |inner, current| {
                let id = look_up(current, &wanted)?;
                let record = Record { settings, ..current[&id].clone() };
                inner.write(current, &id, record)
            })
            .await
    }

    /// Removes a plugin, and what no other needs; returns it.
    ///
    /// # Errors
    /// As [`Plugins::find`]; the disk.
    pub async fn remove(&self, name_or_id: &str) -> Result<Plugin> {
        let wanted = name_or_id.to_owned();
        self.inner
            .change(move |inner, current| {
                let id = look_up(current, &wanted)?;
                let plugin = inner.plugin(&id, &current[&id])?;
                let path = inner.record_path(&id);
                sys::durable::remove(&path).map_err(Error::io("remove", &path))?;
                current.remove(&id);
                Ok(plugin)
            })
            .await
    }

    /// Completes the blobs and writes the record: a new one, or in place of that of `replaced`.
    async fn keep(
        &self,
        name: &Reference,
        fetched_as: &Reference,
        parts: Parts,
        settings: Value,
        replaced: Option<String>,
    ) -> Result<Plugin> {
        let (name, reference) = (name.to_string(), fetched_as.to_string());
        self.inner
            .change(move |inner, current| {
                let id = match replaced {
                    Some(id) if current.contains_key(&id) => id,
                    Some(id) => return Err(Error::NoPlugin(id)),
                    None => {
                        free(current, &name)?;
                        new_id()
                    }
                };
                bounded("configuration", parts.config.len())?;
                let config = inner.blobs.put(&parts.config)?;
                let manifest = inner.blobs.put(&parts.manifest)?;
                let layers = parts.layers.into_iter();
                let layers =
                    layers.map(|(ingest, expected)| ingest.commit(expected)).collect::<Result<_>>()?;
                let record = Record { name, reference, config, manifest, layers, settings };
                inner.write(current, &id, record)?;
                inner.plugin(&id, &current[&id])
            })
            .await
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Record>> {
        // No section under this lock leaves the map other than the files say.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one change at a time; what no record needs after it goes, whether it succeeded or not.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&Self, &mut BTreeMap<String, Record>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(self);
        blocking(move || {
            let mut current = inner.lock();
            let changed = change(&inner, &mut current);
            if let Err(error) = inner.sweep(&current) {
                tracing::warn!(%error, "what no plugin needs is not removed");
            }
            changed
        })
        .await
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.records.join(format!("{id}.json"))
    }

    fn write(&self, current: &mut BTreeMap<String, Record>, id: &str, record: Record) -> Result<()> {
        let path = self.record_path(id);
        let text = serde_json::to_vec(&record).map_err(|e| Error::io("write", &path)(e.into()))?;
        bounded("settings", text.len())?;
        sys::durable::replace(&path, &text, 0o600).map_err(Error::io("write", &path))?;
        current.insert(id.to_owned(), record);
        Ok(())
    }

    fn plugin(&self, id: &str, record: &Record) -> Result<Plugin> {
        let Record { name, reference, config, manifest: _, layers: _, settings } = record;
        Ok(Plugin {
            id: id.to_owned(),
            name: name.clone(),
            reference: reference.clone(),
            config: self.blobs.read(config)?,
            settings: settings.clone(),
        })
    }

    /// Removes blobs that no record names.
    fn sweep(&self, current: &BTreeMap<String, Record>) -> Result<()> {
        if self.damaged {
            return Ok(());
        }
        let needed = current.values().flat_map(|r| r.layers.iter().chain([&r.config, &r.manifest]));
        let needed: BTreeSet<String> = needed.map(|digest| digest.hex()).collect();
        for name in names_in(self.blobs.directory())? {
            if !needed.contains(&name) {
                let path = self.blobs.directory().join(name);
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

fn bounded(what: &str, bytes: usize) -> Result<()> {
    if bytes as u64 <= CONFIG_BYTES_MAX {
        return Ok(());
    }
    let reason = format!("its {what} takes {bytes} bytes, more than {CONFIG_BYTES_MAX}");
    Err(Error::Unusable { what: "plugin", reason })
}

fn free(current: &BTreeMap<String, Record>, name: &str) -> Result<()> {
    match current.values().any(|record| record.name == name) {
        true => Err(Error::PluginExists(name.to_owned())),
        false => Ok(()),
    }
}

/// A whole id, a name, the beginning of an id: in this order. *Source:* moby `plugin/store.go`, `resolvePluginID`.
fn look_up(current: &BTreeMap<String, Record>, wanted: &str) -> Result<String> {
    let none = || Error::NoPlugin(wanted.to_owned());
    if current.contains_key(wanted) {
        return Ok(wanted.to_owned());
    }
    let name = wanted.parse::<Reference>().map_err(|_| none())?;
    let name = name.to_string();
    if let Some((id, _)) = current.iter().find(|(_, record)| record.name == name) {
        return Ok(id.clone());
    }
    let mut found = current.keys().filter(|id| id.starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id.clone()),
        (Some(_), Some(_)) => Err(Error::AmbiguousPlugin(wanted.to_owned())),
        (None, _) => Err(none()),
    }
}

/// Returns the records by id, and whether some cannot be read.
fn read_all(folder: &Path) -> Result<(BTreeMap<String, Record>, bool)> {
    let (mut records, mut damaged) = (BTreeMap::new(), false);
    for name in names_in(folder)? {
        let path = folder.join(&name);
        let Some(id) = name.strip_suffix(".json") else {
            // What a crash left of writing one.
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            continue;
        };
        let read = fs::read(&path).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
        match read {
            Ok(record) => drop(records.insert(id.to_owned(), record)),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a plugin's record cannot be read and is left out");
                damaged = true;
            }
        }
    }
    Ok((records, damaged))
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let names = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    names().map_err(Error::io("list", folder))
}

fn new_id() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
