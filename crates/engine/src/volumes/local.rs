//! Volumes of the local driver: folders under `DATA_ROOT/volumes/<name>/_data`, or another folder of the host
//! (`type=none o=bind device=/path`), or a filesystem that is mounted there ([`mount`]).
//!
//! A volume appears by one rename and disappears by one rename, so a killed daemon leaves no half of one.

use crate::{
    disk::{folders, persist},
    error::{Error, Result},
    seen::container::Filters,
    volumes::mount::{self, Users},
};
use model::Timestamp;
use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Source: Docker API `VolumeCreateOptions`.
#[derive(Debug, Clone, Default)]
pub struct VolumeConfig {
    /// Empty = 64 random hex digits.
    pub name: String,
    /// Empty = `local`, the only one.
    pub driver: String,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// Source: Docker API `Volume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    /// Where its content is on this host.
    pub mountpoint: PathBuf,
    #[serde(with = "persist::nanos")]
    pub created_at: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Made without a name.
    pub anonymous: bool,
}

/// What `volumes` says of the use of a volume. *Unit:* bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    pub volume: Volume,
    pub size: u64,
    pub containers: usize,
}

/// All volumes of this host. Its calls are blocking and short.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    known: Mutex<BTreeMap<String, Volume>>,
    users: Mutex<Users>,
}

/// Content that is no volume's yet, or no longer. Gone when dropped, or at the next open.
#[derive(Debug)]
pub(crate) struct Staged {
    folder: PathBuf,
}

impl Staged {
    /// Where it is: an empty folder at first.
    pub(crate) fn content(&self) -> PathBuf {
        self.folder.join(CONTENT)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(e) = crate::disk::folders::remove_tree(&self.folder) {
            tracing::warn!(path = %self.folder.display(), error = %e, "staged content could not be removed");
        }
    }
}

/// The content's folder in a volume's.
const CONTENT: &str = "_data";
const REMOVED: &str = ".removed-";
const MAKING: &str = ".new-";

impl Volumes {
    /// Reads what is there and deletes halves that a killed daemon left. A volume whose record is damaged is not
    /// known, and its name not free, until the record is mended or the volume removed by force.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        folders::close(&root, folders::PRIVATE_MODE)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&root).map_err(Error::io("list", &root))? {
            let entry = entry.map_err(Error::io("list", &root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(REMOVED) || name.starts_with(MAKING) {
                crate::disk::folders::remove_tree(&entry.path())
                    .map_err(Error::io("remove", entry.path()))?;
            } else if let Some(mut volume) =
                persist::read_or_set_aside::<Volume>(&entry.path().join("volume.json"))
            {
                if bind_device(&volume.options).is_none() {
                    volume.mountpoint = entry.path().join(CONTENT); // the data root may have been moved
                }
                known.insert(volume.name.clone(), volume);
            }
        }
        Ok(Self { root, known: Mutex::new(known), users: Mutex::default() })
    }

    pub(crate) fn users(&self) -> std::sync::MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Volume>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the volume of that name, making it if needed; `true` = it is new. Without a name it is anonymous.
    pub(crate) fn create(&self, config: VolumeConfig) -> Result<(Volume, bool)> {
        let anonymous = config.name.is_empty();
        let name = if anonymous { crate::random_id() } else { config.name.clone() };
        self.create_as(name, anonymous, config)
    }

    /// As [`Self::create`], where the caller has chosen the name, also that of an anonymous one.
    pub(crate) fn create_as(
        &self,
        name: String,
        anonymous: bool,
        config: VolumeConfig,
    ) -> Result<(Volume, bool)> {
        if !matches!(config.driver.as_str(), "" | "local") {
            return Err(Error::NoSuchDriver { kind: "volume", name: config.driver });
        }
        check_name(&name)?;
        self.check_whole(&name)?;
        let mut known = self.lock();
        if let Some(volume) = known.get(&name) {
            return Ok((volume.clone(), false));
        }
        let volume = self.describe(name, anonymous, config)?;
        self.place(&mut known, &volume, &self.root.join(format!("{MAKING}{}", volume.name)))?;
        Ok((volume, true))
    }

    fn describe(&self, name: String, anonymous: bool, config: VolumeConfig) -> Result<Volume> {
        let device = checked_device(&config.driver_opts)?;
        Ok(Volume {
            mountpoint: device.unwrap_or_else(|| self.root.join(&name).join(CONTENT)),
            name,
            driver: "local".into(),
            created_at: crate::now(),
            labels: config.labels,
            options: config.driver_opts,
            anonymous,
        })
    }

    /// Makes the folder `making` that of a new volume.
    fn place(&self, known: &mut BTreeMap<String, Volume>, volume: &Volume, making: &Path) -> Result<()> {
        folders::close(making, folders::PRIVATE_MODE)?;
        fs::create_dir_all(making.join(CONTENT)).map_err(Error::io("create folder", making))?;
        persist::write_json(&making.join("volume.json"), volume)?;
        fs::rename(making, self.root.join(&volume.name)).map_err(Error::io("rename", making))?;
        sync_folder(&self.root)?;
        known.insert(volume.name.clone(), volume.clone());
        Ok(())
    }

    /// Makes an empty folder beside the volumes.
    pub(crate) fn stage(&self) -> Result<Staged> {
        let staged = Staged { folder: self.root.join(format!("{MAKING}{}", crate::random_id())) };
        folders::close(&staged.folder, folders::PRIVATE_MODE)?;
        fs::create_dir_all(staged.content()).map_err(Error::io("create folder", &staged.folder))?;
        Ok(staged)
    }

    /// Refuses what [`Self::install`] would refuse.
    ///
    /// # Errors
    /// `InvalidParameter` for a name; `Conflict` for a volume with content unless forced, and for one that is a folder
    /// of the host, which is not ours to exchange.
    pub(crate) fn check_fillable(&self, name: &str, force: bool) -> Result<()> {
        match self.lock().get(name) {
            Some(volume) => fillable(volume, force),
            None => check_name(name),
        }
    }

    /// Makes staged content that of a volume, which is made with these labels if it is not there; `true` = it is new.
    /// Nobody may have the volume mounted.
    ///
    /// # Errors
    /// As [`Self::check_fillable`]; the volume is as before.
    pub(crate) fn install(
        &self,
        staged: Staged,
        name: String,
        labels: BTreeMap<String, String>,
        force: bool,
    ) -> Result<(Volume, bool)> {
        check_name(&name)?;
        self.check_whole(&name)?;
        let mut known = self.lock();
        let Some(volume) = known.get(&name).cloned() else {
            let volume = self.describe(name, false, VolumeConfig { labels, ..VolumeConfig::default() })?;
            self.place(&mut known, &volume, &staged.folder)?;
            return Ok((volume, true));
        };
        fillable(&volume, force)?;
        let (old, new) = (&volume.mountpoint, staged.content());
        rustix::fs::renameat_with(CWD, &new, CWD, old, RenameFlags::EXCHANGE)
            .map_err(|e| Error::io("exchange", old)(e.into()))?;
        sync_folder(&self.root.join(&volume.name))?;
        Ok((volume, false))
    }

    pub(crate) fn get(&self, name: &str) -> Result<Volume> {
        if let Some(volume) = self.lock().get(name) {
            return Ok(volume.clone());
        }
        self.check_whole(name)?;
        Err(Error::NoSuchVolume(name.to_owned()))
    }

    /// Refuses the name of a volume whose record is damaged.
    fn check_whole(&self, name: &str) -> Result<()> {
        let record = persist::set_aside(&self.root.join(name).join("volume.json"));
        if check_name(name).is_ok() && record.exists() && !self.lock().contains_key(name) {
            return Err(Error::Conflict(format!(
                "the record of volume {name} is damaged: {}; hint: mend it, name it volume.json and restart the \
                 daemon, or remove the volume and its content with `volume rm --force {name}`",
                record.display()
            )));
        }
        Ok(())
    }

    /// Returns those that pass the filters `name driver label`, by name; `dangling` is judged by the caller.
    pub(crate) fn list(&self, filters: &Filters) -> Vec<Volume> {
        let passes = |v: &&Volume| {
            filters.name_matches(&v.name)
                && filters.any("driver", |d| v.driver == d)
                && filters.labels_match(&v.labels)
        };
        self.lock().values().filter(passes).cloned().collect()
    }

    /// Removes one; the caller has checked that nobody uses it. With `force` a missing one is no error.
    pub(crate) fn remove(&self, name: &str, force: bool) -> Result<Option<Volume>> {
        let damaged = self.check_whole(name);
        let mut known = self.lock();
        let volume = known.get(name).cloned();
        if volume.is_none() && damaged.is_ok() {
            return if force { Ok(None) } else { Err(Error::NoSuchVolume(name.to_owned())) };
        }
        if !force {
            damaged?;
        }
        let folder = self.root.join(name);
        let gone = self.root.join(format!("{REMOVED}{}", crate::random_id()));
        fs::rename(&folder, &gone).map_err(Error::io("rename", &folder))?;
        sync_folder(&self.root)?;
        known.remove(name);
        drop(known);
        crate::disk::folders::remove_tree(&gone).map_err(Error::io("remove", &gone))?;
        Ok(volume)
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|f| f.sync_all()).map_err(Error::io("sync", path))
}

fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first
        && name.len() > 1
        && name.len() <= 255
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

fn fillable(volume: &Volume, force: bool) -> Result<()> {
    let Volume { name, mountpoint, options, .. } = volume;
    if bind_device(options).is_some() {
        return Err(Error::Conflict(format!(
            "volume {name} is the folder {} of this host: unpack the archive there",
            mountpoint.display()
        )));
    }
    if volume.is_filesystem() {
        return Err(Error::Conflict(format!(
            "volume {name} is a filesystem: its content cannot be exchanged"
        )));
    }
    let mut content = fs::read_dir(mountpoint).map_err(Error::io("list", mountpoint))?;
    if !force && content.next().is_some() {
        return Err(Error::Conflict(format!(
            "volume {name} is not empty; use --force to replace its content"
        )));
    }
    Ok(())
}

impl Volume {
    /// Tells whether it is mounted when it is used, and not just a folder.
    pub(crate) fn is_filesystem(&self) -> bool {
        !self.options.is_empty() && bind_device(&self.options).is_none()
    }
}

fn bind_device(options: &BTreeMap<String, String>) -> Option<PathBuf> {
    let binds = options.get("o").is_some_and(|o| o.split(',').any(|w| w == "bind" || w == "rbind"));
    binds.then(|| options.get("device").map(PathBuf::from)).flatten()
}

fn checked_device(options: &BTreeMap<String, String>) -> Result<Option<PathBuf>> {
    if options.is_empty() {
        return Ok(None);
    }
    if let Some(unknown) = options.keys().find(|k| !matches!(k.as_str(), "type" | "o" | "device" | "size")) {
        return Err(Error::invalid(format!("invalid option: {unknown:?}")));
    }
    match bind_device(options) {
        Some(device) if device.is_absolute() && device.is_dir() => Ok(Some(device)),
        Some(device) => {
            Err(Error::invalid(format!("volume device {} is not a folder of this host", device.display())))
        }
        None => mount::check(options).map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> VolumeConfig {
        VolumeConfig { name: name.into(), ..VolumeConfig::default() }
    }

    #[test]
    fn volumes_survive_reopening_and_halves_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path().join("v")).unwrap();
        let (made, new) = volumes.create(named("web")).unwrap();
        assert!(new && made.mountpoint.is_dir());
        assert!(!volumes.create(named("web")).unwrap().1);
        fs::create_dir_all(dir.path().join("v/.new-x/_data")).unwrap();
        fs::create_dir_all(dir.path().join("v/.removed-y/_data")).unwrap();
        let again = Volumes::open(dir.path().join("v")).unwrap();
        assert_eq!(again.list(&Filters::default()), vec![made]);
        assert_eq!(fs::read_dir(dir.path().join("v")).unwrap().count(), 1);
        again.remove("web", false).unwrap();
        assert!(matches!(again.get("web"), Err(Error::NoSuchVolume(_))));
        assert_eq!(fs::read_dir(dir.path().join("v")).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_record_costs_its_volume_until_it_is_removed_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        let open = || Volumes::open(root.clone()).unwrap();
        for damage in ["", "{\"name\":\"we", "\u{0}\u{1}", "[]", "{\"name\":\"other\"}"] {
            let volumes = open();
            volumes.create(named("whole")).unwrap();
            volumes.create(named("web")).unwrap();
            fs::write(root.join("web/volume.json"), damage).unwrap();
            fs::write(root.join("web/_data/file"), "kept").unwrap();
            for _ in 0..2 {
                let volumes = open();
                assert_eq!(volumes.list(&Filters::default()).len(), 1, "{damage:?}");
                for refused in [volumes.get("web").err(), volumes.create(named("web")).err()] {
                    let said = refused.unwrap().to_string();
                    assert!(said.contains("web/volume.json.damaged"), "{damage:?}: {said}");
                }
                assert!(volumes.remove("web", false).is_err());
                assert_eq!(fs::read(root.join("web/_data/file")).unwrap(), b"kept");
            }
            open().remove("web", true).unwrap();
            assert!(matches!(open().get("web"), Err(Error::NoSuchVolume(_))));
        }
        fs::create_dir_all(root.join("dir/volume.json")).unwrap();
        fs::write(root.join("stray"), "").unwrap();
        assert_eq!(open().list(&Filters::default()).len(), 1);
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path().to_owned()).unwrap();
        for bad in ["..", "a/b", ".hidden", "x", "sp ace"] {
            assert!(matches!(volumes.create(named(bad)), Err(Error::InvalidParameter(_))), "{bad}");
        }
    }

    #[test]
    fn a_bind_volume_shows_the_device() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path().join("v")).unwrap();
        let opts = |device: &str| VolumeConfig {
            name: "data".into(),
            driver_opts: [("type", "none"), ("o", "bind"), ("device", device)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..VolumeConfig::default()
        };
        assert!(volumes.create(opts("/does/not/exist")).is_err());
        let device = dir.path().to_str().unwrap();
        assert_eq!(volumes.create(opts(device)).unwrap().0.mountpoint, dir.path());
        volumes.remove("data", false).unwrap();
        assert!(dir.path().exists());
    }
}
