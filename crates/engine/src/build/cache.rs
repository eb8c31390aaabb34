//! What builds can use again: the result of a step, by a digest of all that it depends on.
//!
//! `DATA_ROOT/build/cache/<key>.json` names the image that holds the layers. A record is worth nothing that could not be
//! made again: it is written without waiting for the disk, and one whose image is gone is a miss. Records that nobody
//! used for a month go, and so do the oldest where there are too many or their layers are too large together.

use crate::{
    disk::{folders, persist},
    error::{Error, Result},
    seen::container::Filters,
};
use model::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

const RECORDS_MAX: usize = 4096;
const KEPT_UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The result of one step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) image: String,
    /// The step, as `docker system df -v` shows it.
    pub(super) description: String,
    #[serde(with = "persist::nanos")]
    pub(super) created_at: Timestamp,
    #[serde(with = "persist::nanos")]
    pub(super) last_used_at: Timestamp,
    pub(super) uses: u64,
    /// Keeps its image; a finished image is kept by its names alone.
    pub(super) holds: bool,
    /// *Unit:* bytes of the step's own layer.
    #[serde(default)]
    pub(super) bytes: u64,
    /// When it was last written.
    #[serde(skip)]
    noted_at: Option<Timestamp>,
}

impl Record {
    /// *Unit:* bytes that are kept for its sake alone.
    fn held_bytes(&self) -> u64 {
        if self.holds { self.bytes } else { 0 }
    }
}

/// All results; of one engine.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
    /// Of cache mounts in use, by their folder.
    gates: Mutex<HashMap<PathBuf, Weak<tokio::sync::RwLock<()>>>>,
}

/// How old a written time of use may be: a rebuild should not write a file for each of its steps.
const WRITE_EVERY: Duration = Duration::from_secs(60);

impl Cache {
    /// Reads the records of earlier builds. Blocking.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        folders::close(&folder, folders::PRIVATE_MODE)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let path = entry.map_err(Error::io("list", &folder))?.path();
            let key = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            match persist::read_json::<Record>(&path) {
                Ok(Some(record)) if path.extension().is_some_and(|e| e == "json") => {
                    records.insert(key, record);
                }
                // Half-written by a crash, or damaged: the step is done again.
                _ => {
                    if let Err(error) = fs::remove_file(&path) {
                        tracing::warn!(path = %path.display(), %error, "a damaged record of a build stays");
                    }
                }
            }
        }
        Ok(Self { folder, records: Mutex::new(records), gates: Mutex::default() })
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lock of a cache mount's folder.
    pub(super) fn gate(&self, folder: &Path) -> Arc<tokio::sync::RwLock<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(folder).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::default();
        gates.insert(folder.to_owned(), Arc::downgrade(&gate));
        gate
    }

    fn holder(key: &str) -> String {
        format!("{}{key}", image::CACHE_HOLDER)
    }

    /// Holds the images of all records; those that are gone are forgotten. Before anything may be removed.
    pub(crate) async fn hold_all(&self, images: &image::Store) {
        let all: Vec<(String, Record)> = self.records().iter().map(|(k, r)| (k.clone(), r.clone())).collect();
        for (key, record) in all {
            let held = match record.image.parse() {
                Ok(id) if record.holds => images.hold(&id, &Self::holder(&key)).await.is_ok(),
                Ok(id) => images.by_id(&id).await.is_some(),
                Err(_) => false,
            };
            if !held {
                self.forget(&key);
            }
        }
    }

    /// Returns the image of a step's result, if it is still there.
    pub(super) async fn get(&self, images: &image::Store, key: &str) -> Option<image::Image> {
        let mut record = self.records().get(key).cloned()?;
        let found = match record.image.parse() {
            Ok(id) => images.by_id(&id).await,
            Err(_) => None,
        };
        if found.is_none() {
            self.forget(key);
            return None;
        }
        let now = crate::now();
        let old = now.since(record.noted_at.unwrap_or(record.last_used_at)) >= WRITE_EVERY;
        (record.last_used_at, record.uses) = (now, record.uses + 1);
        if old {
            self.note(key, record);
        } else {
            self.records().insert(key.to_owned(), record);
        }
        found
    }

    /// Remembers a step's result.
    pub(super) async fn put(
        &self,
        images: &image::Store,
        key: &str,
        image: &image::Digest,
        description: &str,
        holds: bool,
    ) -> Result<()> {
        if holds {
            let holder = Self::holder(key);
            images.hold(image, &holder).await.map_err(|_| Error::NoSuchImage(image.to_string()))?;
        }
        let layers = images.history(&image.to_string()).await.unwrap_or_default();
        let now = crate::now();
        let record = Record {
            image: image.to_string(),
            description: description.to_owned(),
            created_at: now,
            last_used_at: now,
            uses: 1,
            holds,
            bytes: layers.first().map_or(0, |(_, size)| *size),
            noted_at: None,
        };
        self.note(key, record);
        Ok(())
    }

    fn note(&self, key: &str, mut record: Record) {
        record.noted_at = Some(record.last_used_at);
        let path = self.folder.join(format!("{key}.json"));
        if let Err(error) = persist::write_json_lazily(&path, &record) {
            tracing::warn!(%error, "result of a build step is not remembered");
        }
        self.records().insert(key.to_owned(), record);
    }

    fn forget(&self, key: &str) {
        self.records().remove(key);
        let path = self.folder.join(format!("{key}.json"));
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "record of a build step was gone already");
        }
    }

    pub(super) fn list(&self) -> Vec<(String, Record)> {
        self.records().iter().map(|(key, record)| (key.clone(), record.clone())).collect()
    }

    /// Forgets records, and removes their images where nobody else has a use for them; returns what it forgot and
    /// the bytes that this freed. The caches of commands have no record: they go when everything is to go.
    pub(super) async fn prune(
        &self,
        images: &image::Store,
        filters: &Filters,
        kept_bytes: u64,
    ) -> Result<(Vec<String>, u64)> {
        let until = last_use(filters)?;
        let mut all = self.list();
        all.sort_by_key(|(_, record)| record.last_used_at);
        let mut left: u64 = all.iter().map(|(_, record)| record.held_bytes()).sum();
        let mut gone = Vec::new();
        for (key, record) in all {
            let idle = until.is_none_or(|until| record.last_used_at < until);
            if idle && passes(&key, &record, filters) && (kept_bytes == 0 || left > kept_bytes) {
                left -= record.held_bytes();
                gone.push((key, record));
            }
        }
        let (mut names, mut freed) = self.drop_records(images, gone).await?;
        if filters.0.is_empty() && kept_bytes == 0 {
            let (mounts, bytes) = self.remove_mounts().await?;
            names.extend(mounts);
            freed += bytes;
        }
        Ok((names, freed))
    }

    /// Removes the folders of cache mounts that no build uses now.
    async fn remove_mounts(&self) -> Result<(Vec<String>, u64)> {
        let root = self.folder.with_file_name("mounts");
        let mut found = Vec::new();
        for entry in fs::read_dir(&root).into_iter().flatten() {
            let path = entry.map_err(Error::io("list", &root))?.path();
            found.extend(self.gate(&path).try_write_owned().ok().map(|lock| (path, lock)));
        }
        crate::blocking(move || {
            let (mut names, mut freed) = (Vec::new(), 0);
            for (path, _lock) in &found {
                freed += crate::files::below::folder_bytes(path);
                crate::disk::folders::remove_tree(path).map_err(Error::io("remove", path))?;
                names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
            Ok((names, freed))
        })
        .await
    }

    /// Keeps the cache within its bounds; its layers may have so many bytes.
    pub(super) async fn tidy(&self, images: &image::Store, bytes_max: u64) -> Result<()> {
        let mut all = self.list();
        all.sort_by_key(|(_, record)| record.last_used_at);
        all.truncate(surplus(all.iter().map(|(_, record)| record), crate::now(), bytes_max));
        if all.is_empty() { Ok(()) } else { self.drop_records(images, all).await.map(drop) }
    }

    async fn drop_records(
        &self,
        images: &image::Store,
        gone: Vec<(String, Record)>,
    ) -> Result<(Vec<String>, u64)> {
        let before = images.layer_usage().total_bytes;
        for (key, record) in &gone {
            self.forget(key);
            images.release(&Self::holder(key)).await;
            let Ok(id) = record.image.parse::<image::Digest>() else { continue };
            let held = images.holders().await.iter().any(|(_, image)| *image == id);
            let unnamed = images.by_id(&id).await.is_some_and(|image| image.repo_tags.is_empty());
            if record.holds && unnamed && !held {
                images.remove(&id.to_string(), false).await.map_err(|e| Error::Image {
                    operation: format!("remove image {id}"),
                    source: e.into(),
                })?;
            }
        }
        let freed = before.saturating_sub(images.layer_usage().total_bytes);
        Ok((gone.into_iter().map(|(key, _)| key).collect(), freed))
    }
}

/// Returns when a record must have been used last, to stay.
fn last_use(filters: &Filters) -> Result<Option<Timestamp>> {
    let moments = ["until", "unused-for"].into_iter().flat_map(|key| filters.get(key));
    let moments: Vec<_> = moments.map(|text| crate::seen::until::read_until(text)).collect::<Result<_>>()?;
    Ok(moments.into_iter().min())
}

/// Returns true if a record is one that the filters mean. Records are all of one type, have no labels and no parent, are
/// used by nobody at rest, and are shared with nobody. *Source:* Docker API `BuildPrune`.
fn passes(key: &str, record: &Record, filters: &Filters) -> bool {
    let is = |filter: &str, so: bool| filters.any(filter, |v| matches!(v, "1" | "true") == so);
    filters.any("id", |id| !id.is_empty() && key.starts_with(id))
        && filters.any("description", |text| record.description == text)
        && filters.any("type", |kind| kind == "regular")
        && filters.get("parent").is_empty()
        && is("inuse", false)
        && is("shared", false)
        && is("private", true)
        && filters.labels_match(&BTreeMap::new())
}

/// Returns how many of these records, the longest unused first, are to go.
fn surplus<'a>(
    records: impl ExactSizeIterator<Item = &'a Record> + Clone,
    now: Timestamp,
    bytes_max: u64,
) -> usize {
    let many = records.len().saturating_sub(RECORDS_MAX);
    let old = records.clone().filter(|record| now.since(record.last_used_at) >= KEPT_UNUSED).count();
    let mut bytes: u64 = records.clone().map(Record::held_bytes).sum();
    let mut large = 0;
    for record in records {
        if bytes <= bytes_max {
            break;
        }
        bytes -= record.held_bytes();
        large += 1;
    }
    many.max(old).max(large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_what_it_means_and_nothing_else() {
        let record = Record {
            image: String::new(),
            description: "RUN make".into(),
            created_at: Timestamp(0),
            last_used_at: Timestamp(0),
            uses: 1,
            holds: true,
            bytes: 1,
            noted_at: None,
        };
        for (key, value, fits) in [
            ("id", "abc", true),
            ("id", "abd", false),
            ("id", "", false),
            ("description", "RUN make", true),
            ("description", "RUN", false),
            ("type", "regular", true),
            ("type", "source.local", false),
            ("parent", "abc", false),
            ("inuse", "false", true),
            ("inuse", "true", false),
            ("shared", "1", false),
            ("private", "1", true),
            ("label", "a", false),
            ("label!", "a", true),
        ] {
            let filters = Filters(BTreeMap::from([(key.to_owned(), vec![value.to_owned()])]));
            assert_eq!(passes("abcdef", &record, &filters), fits, "{key}={value}");
        }
    }

    #[test]
    fn the_longest_unused_go_when_there_is_too_much() {
        let day = 24 * 3600 * 1_000_000_000;
        let record = |days: i64, bytes, holds| Record {
            image: String::new(),
            description: String::new(),
            created_at: Timestamp(0),
            last_used_at: Timestamp(days * day),
            uses: 1,
            holds,
            bytes,
            noted_at: None,
        };
        let count = |records: &[Record], days: i64, max| surplus(records.iter(), Timestamp(days * day), max);
        let three = [record(1, 10, true), record(2, 20, true), record(3, 30, true)];
        assert_eq!(count(&three, 4, 60), 0);
        assert_eq!(count(&three, 4, 59), 1);
        assert_eq!(count(&three, 4, 30), 2);
        assert_eq!(count(&three, 4, 0), 3);
        assert_eq!(count(&three, 32, 60), 2, "unused for a month");
        // What is kept by its names takes nothing of the cache's.
        assert_eq!(count(&[record(1, 100, false), record(2, 5, true)], 3, 10), 0);
        assert_eq!(count(&vec![record(1, 0, true); RECORDS_MAX + 7], 2, 0), 7);
    }
}
