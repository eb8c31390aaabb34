//! A disk that forgets what was not synced when its power is cut; and one that is full.
//!
//! What is done to it is done to real files, too, so that it is read as ever; beside them stands what a power cut would
//! leave. Of a file that was not synced, each sector has what it had after some of the changes, not the same ones in each
//! sector, and so has its length; of a folder that was not synced, the first few changes of names are there, in their
//! order, as file systems with a journal keep them. Which ones a seed says. Stricter than ext4, which makes a new file's
//! name durable with the file: that is not promised by fsync(2).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use sys::disk::{Disk, Open, Os};

/// What a disk writes whole or not at all. *Unit:* bytes.
const SECTOR: usize = 512;

/// Numbers that look drawn by lot, the same for the same seed. Source: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
struct Lot(u64);

impl Lot {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap_or(0)
    }
}

/// How much of what was not synced is there.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Nothing,
    Everything,
    ByLot,
}

impl Kept {
    /// Returns how many of some changes are there.
    fn of(self, changes: usize, lot: &mut Lot) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Everything => changes,
            Self::ByLot => lot.below(changes + 1),
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Contents {
    durable: Vec<u8>,
    /// Since the last sync, in their order.
    changes: Vec<Change>,
}

impl Contents {
    fn with(&self, kept: Kept, lot: &mut Lot) -> Vec<u8> {
        let ends = self.changes.iter().map(|change| match change {
            Change::Write { offset, bytes } => offset + bytes.len(),
            Change::Length(length) => *length,
        });
        let room = ends.fold(self.durable.len(), usize::max);
        let mut out = self.durable.clone();
        out.resize(room, 0);
        let sectors: Vec<usize> =
            (0..room.div_ceil(SECTOR)).map(|_| kept.of(self.changes.len(), lot)).collect();
        let upto = kept.of(self.changes.len(), lot);
        let mut length = self.durable.len();
        for (number, change) in self.changes.iter().enumerate() {
            let (from, to, bytes) = match change {
                Change::Write { offset, bytes } => (*offset, offset + bytes.len(), Some(bytes)),
                Change::Length(length) => (*length, room, None),
            };
            let mut at = from;
            while at < to {
                let end = to.min((at / SECTOR + 1) * SECTOR);
                if number < sectors[at / SECTOR] {
                    match bytes {
                        Some(bytes) => out[at..end].copy_from_slice(&bytes[at - from..end - from]),
                        None => out[at..end].fill(0),
                    }
                }
                at = end;
            }
            if number < upto {
                length = if bytes.is_some() { length.max(to) } else { from };
            }
        }
        out.truncate(length);
        out
    }
}

/// Names that change together: each with the file that is there then.
type Renaming = Vec<(PathBuf, Option<u64>)>;

/// What a disk says that it has synced, and has not: to see that a test notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// What is in files.
    Files,
    /// The names in folders.
    Folders,
}

/// One thing that was done to a disk.
#[derive(Debug, Clone)]
enum Deed {
    Names {
        folder: PathBuf,
        change: Renaming,
    },
    /// A new file, which has no name yet.
    File(u64),
    Change {
        file: u64,
        change: Change,
    },
    SyncFile(u64),
    SyncFolder(PathBuf),
}

/// What is on a disk, and what is only on its way there.
#[derive(Debug, Clone, Default)]
pub struct Platter {
    files: BTreeMap<u64, Contents>,
    /// Names that are durable.
    names: BTreeMap<PathBuf, u64>,
    /// Changes of them since the last sync of their folder, in their order.
    renamings: BTreeMap<PathBuf, Vec<Renaming>>,
}

impl Platter {
    fn take(&mut self, deed: &Deed) {
        match deed {
            Deed::Names { folder, change } => {
                self.renamings.entry(folder.clone()).or_default().push(change.clone());
            }
            Deed::File(file) => {
                self.files.insert(*file, Contents::default());
            }
            Deed::Change { file, change } => {
                self.files.entry(*file).or_default().changes.push(change.clone());
            }
            Deed::SyncFile(file) => {
                let contents = self.files.entry(*file).or_default();
                contents.durable = contents.with(Kept::Everything, &mut Lot(0));
                contents.changes.clear();
            }
            Deed::SyncFolder(folder) => {
                for change in self.renamings.remove(folder).unwrap_or_default() {
                    rename(&mut self.names, &change);
                }
            }
        }
    }

    /// Returns what a power cut at this moment leaves. Of four seeds in a row one leaves all that was written, and one
    /// nothing that was not synced.
    pub fn after_a_cut(&self, seed: u64) -> Image {
        let (mut lot, kept) = (
            Lot(seed),
            match seed % 4 {
                0 => Kept::Nothing,
                1 => Kept::Everything,
                _ => Kept::ByLot,
            },
        );
        let mut names = self.names.clone();
        for changes in self.renamings.values() {
            let upto = kept.of(changes.len(), &mut lot);
            changes[..upto].iter().for_each(|change| rename(&mut names, change));
        }
        let mut contents = |file: &u64| self.files[file].with(kept, &mut lot);
        Image(names.iter().map(|(path, file)| (path.clone(), contents(file))).collect())
    }
}

fn rename(names: &mut BTreeMap<PathBuf, u64>, change: &Renaming) {
    for (path, file) in change {
        match file {
            Some(file) => drop(names.insert(path.clone(), *file)),
            None => drop(names.remove(path)),
        }
    }
}

/// The files that a power cut has left, by their names below the disk's folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image(BTreeMap<PathBuf, Vec<u8>>);

impl Image {
    /// Puts the files into a folder; returns it as a disk on which they are durable.
    ///
    /// # Errors
    /// They cannot be written there.
    pub fn disk(self, root: &Path) -> io::Result<Lossy> {
        let (mut platter, mut names) = (Platter::default(), BTreeMap::new());
        for (number, (name, durable)) in (0..).zip(self.0) {
            let path = root.join(&name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, &durable)?;
            platter.files.insert(number, Contents { durable, changes: Vec::new() });
            names.insert(name, number);
        }
        platter.names.clone_from(&names);
        Ok(Lossy::with(root, platter, names))
    }
}

#[derive(Debug)]
struct State {
    platter: Platter,
    /// The names as everybody sees them.
    names: BTreeMap<PathBuf, u64>,
    next: u64,
    deeds: Option<Vec<Deed>>,
    lie: Option<Lie>,
    off: bool,
    /// After so many deeds the power is cut.
    left: Option<usize>,
    at_once: bool,
}

/// A disk that is a folder.
#[derive(Debug, Clone)]
pub struct Lossy {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct Opened {
    disk: Lossy,
    number: u64,
    real: Box<dyn Open>,
}

impl Lossy {
    /// An empty one, in a folder where nothing is that it is asked for.
    pub fn new(root: &Path) -> Self {
        Self::with(root, Platter::default(), BTreeMap::new())
    }

    fn with(root: &Path, platter: Platter, names: BTreeMap<PathBuf, u64>) -> Self {
        let next = names.len() as u64;
        let state =
            State { platter, names, next, deeds: None, lie: None, off: false, left: None, at_once: false };
        Self { root: root.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    /// It remembers everything that is done to it, for [`Self::each_moment`].
    #[must_use]
    pub fn recording(self) -> Self {
        self.lock().deeds = Some(Vec::new());
        self
    }

    /// It does not sync all that it says.
    #[must_use]
    pub fn lying(self, lie: Lie) -> Self {
        self.lock().lie = Some(lie);
        self
    }

    /// Nobody waits for it: see [`Disk::is_at_once`].
    #[must_use]
    pub fn at_once(self) -> Self {
        self.lock().at_once = true;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how much was done to it so far.
    ///
    /// # Panics
    /// When it is not [`Self::recording`].
    pub fn deeds(&self) -> usize {
        self.lock().deeds.as_ref().expect("it records").len()
    }

    /// Shows what was on it after each thing that was done to it, and how many those were.
    ///
    /// # Panics
    /// When it is not [`Self::recording`].
    pub fn each_moment(&self, mut look: impl FnMut(usize, &Platter)) {
        let deeds = self.lock().deeds.clone().expect("it records");
        let mut platter = Platter::default();
        look(0, &platter);
        for (number, deed) in deeds.iter().enumerate() {
            platter.take(deed);
            look(number + 1, &platter);
        }
    }

    /// Has its power cut after so many deeds more; the one that is under way fails, as do all that follow.
    pub fn cut_after(&self, deeds: usize) {
        self.lock().left = Some(deeds);
    }

    /// Cuts its power now.
    pub fn cut(&self) {
        self.lock().off = true;
    }

    /// Tells whether its power is cut.
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Gives the power back once nobody uses the disk any more: returns one that has what is left, in the same folder.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn boot(&self, seed: u64) -> io::Result<Self> {
        let state = self.lock();
        for path in state.names.keys() {
            match fs::remove_file(self.root.join(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let booted = state.platter.after_a_cut(seed).disk(&self.root)?;
        let mut new = booted.lock();
        (new.lie, new.at_once) = (state.lie, state.at_once);
        drop(new);
        Ok(booted)
    }

    fn below_root(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("the disk is asked for what is on it").to_owned()
    }

    /// Takes note of deeds and does `real`, unless the power is off.
    fn act<T>(
        &self,
        deeds: impl FnOnce(&mut State) -> Vec<Deed>,
        real: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let no_power = || io::Error::other("the power is off");
        let mut state = self.lock();
        if state.off {
            return Err(no_power());
        }
        state.off = state.left == Some(0);
        state.left = state.left.map(|left| left.saturating_sub(1));
        // What is under way when the power goes may have been done; a sync that did not return has promised nothing.
        let counts = |state: &State, deed: &Deed| match deed {
            Deed::SyncFile(_) => !state.off && state.lie != Some(Lie::Files),
            Deed::SyncFolder(_) => !state.off && state.lie != Some(Lie::Folders),
            Deed::Names { .. } | Deed::File(_) | Deed::Change { .. } => true,
        };
        let done = if state.off { Err(no_power()) } else { real() };
        if done.is_ok() || state.off {
            for deed in deeds(&mut state) {
                if counts(&state, &deed) {
                    state.platter.take(&deed);
                    if let Some(all) = &mut state.deeds {
                        all.push(deed);
                    }
                }
            }
        }
        done
    }
}

/// What becomes of names: of the folder in which they change, all of them are.
fn names(state: &mut State, change: Renaming) -> Deed {
    rename(&mut state.names, &change);
    let folder = change[0].0.parent().unwrap_or(Path::new("")).to_owned();
    assert!(change.iter().all(|(path, _)| path.parent() == Some(&folder)), "names stay in their folder");
    Deed::Names { folder, change }
}

impl Disk for Lossy {
    fn make(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Open>> {
        let (name, mut number) = (self.below_root(path), 0);
        let real = self.act(
            |state| match state.names.get(&name) {
                Some(there) => {
                    number = *there;
                    vec![Deed::Change { file: number, change: Change::Length(0) }]
                }
                None => {
                    (number, state.next) = (state.next, state.next + 1);
                    vec![Deed::File(number), names(state, vec![(name, Some(number))])]
                }
            },
            || Os.make(path, mode),
        )?;
        Ok(Box::new(Opened { disk: self.clone(), number, real }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Open>> {
        let real = self.act(|_| Vec::new(), || Os.open(path))?;
        let number = *self.lock().names.get(&self.below_root(path)).expect("it was made here");
        Ok(Box::new(Opened { disk: self.clone(), number, real }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.below_root(from), self.below_root(to));
        self.act(
            |state| {
                let file = state.names.get(&old).copied();
                vec![names(state, vec![(new, file), (old, None)])]
            },
            || Os.rename(from, to),
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = self.below_root(path);
        self.act(|state| vec![names(state, vec![(name, None)])], || Os.remove(path))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let name = self.below_root(folder);
        // The real folder need not be synced: this machine's power is not cut.
        self.act(|_| vec![Deed::SyncFolder(name)], || Ok(()))
    }

    fn is_at_once(&self) -> bool {
        self.lock().at_once
    }
}

impl Opened {
    fn change(&self, change: Change, real: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.disk.act(|_| vec![Deed::Change { file: self.number, change }], real)
    }
}

impl Open for Opened {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let change = Change::Write { offset: at, bytes: bytes.to_vec() };
        self.change(change, || self.real.write_all_at(bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let change = Change::Length(usize::try_from(len).map_err(io::Error::other)?);
        self.change(change, || self.real.set_len(len))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.act(|_| vec![Deed::SyncFile(self.number)], || Ok(()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The kernel's disk, without room for a file of one name.
#[derive(Debug)]
pub struct FullAt(String);

impl FullAt {
    /// `name`: of the file, without its folders.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl Disk for FullAt {
    fn make(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Open>> {
        if path.ends_with(&self.0) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Os.make(path, mode)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Open>> {
        Os.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Os.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Os.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Os.sync_folder(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn after(disk: &Lossy, name: &str) -> BTreeSet<Option<Vec<u8>>> {
        let state = disk.lock();
        (0..200).map(|seed| state.platter.after_a_cut(seed).0.get(Path::new(name)).cloned()).collect()
    }

    #[test]
    fn what_was_not_synced_is_there_or_not_and_what_was_always_is() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (Lossy::new(dir.path()), dir.path().join("a"));
        let file = disk.make(&path, 0o600).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.sync_all().unwrap();
        assert_eq!(after(&disk, "a"), [None, Some(b"one".to_vec())].into(), "its name was not synced");
        disk.sync_folder(dir.path()).unwrap();
        assert_eq!(after(&disk, "a"), [Some(b"one".to_vec())].into());
        assert_eq!(fs::read(&path).unwrap(), b"one", "it is read as any file");

        file.write_all_at(b"two more", 0).unwrap();
        let seen = after(&disk, "a");
        let some =
            [b"one".as_slice(), b"two", b"two more", b"one\0\0\0\0\0"].map(|bytes| Some(bytes.to_vec()));
        assert_eq!(seen, some.into(), "length and contents come apart");
        file.sync_data().unwrap();
        file.set_len(3).unwrap();
        let seen = after(&disk, "a");
        assert!(
            seen.contains(&Some(b"two".to_vec())) && seen.contains(&Some(b"two more".to_vec())),
            "{seen:?}"
        );
    }

    #[test]
    fn sectors_are_written_in_any_order_and_each_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (Lossy::new(dir.path()), dir.path().join("a"));
        let file = disk.make(&path, 0o600).unwrap();
        file.set_len(3 * SECTOR as u64).unwrap();
        file.sync_all().unwrap();
        disk.sync_folder(dir.path()).unwrap();
        file.write_all_at(&[1; 2 * SECTOR], SECTOR as u64).unwrap();
        let seen = after(&disk, "a");
        let of = |middle: u8, last: u8| {
            Some([0, middle, last].into_iter().flat_map(|byte| vec![byte; SECTOR]).collect::<Vec<u8>>())
        };
        assert_eq!(seen, [of(0, 0), of(0, 1), of(1, 0), of(1, 1)].into());
    }

    #[test]
    fn names_change_in_their_order_until_their_folder_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let disk = Lossy::new(dir.path());
        sys::durable::replace_on(&disk, &at("a"), b"one", 0o600).unwrap();
        assert_eq!(after(&disk, "a"), [Some(b"one".to_vec())].into());
        let file = disk.make(&at("a.new"), 0o600).unwrap();
        file.write_all_at(b"two", 0).unwrap();
        disk.rename(&at("a.new"), &at("a")).unwrap();
        let seen = after(&disk, "a");
        assert!(seen.contains(&Some(Vec::new())), "a name may be there before what it stands for: {seen:?}");
        disk.remove(&at("a")).unwrap();
        assert!(after(&disk, "a").contains(&None));
        disk.sync_folder(dir.path()).unwrap();
        assert_eq!(after(&disk, "a"), [None].into());
    }

    #[test]
    fn after_a_cut_nothing_is_done_any_more_and_it_boots_with_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (Lossy::new(dir.path()), dir.path().join("a"));
        sys::durable::replace_on(&disk, &path, b"one", 0o600).unwrap();
        let file = disk.open(&path).unwrap();
        file.write_all_at(b"two", 0).unwrap();
        disk.cut_after(0);
        assert!(!disk.is_off());
        assert!(file.sync_all().is_err() && disk.is_off());
        assert!(file.write_all_at(b"three", 0).is_err() && disk.remove(&path).is_err());
        let booted = disk.boot(0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(
            booted.open(&path).is_ok() && file.sync_all().is_err(),
            "who was there before is not any more"
        );
        assert_eq!(after(&booted, "a"), [Some(b"one".to_vec())].into());
    }

    #[test]
    fn a_disk_that_lies_is_one_on_which_nothing_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Lossy::new(dir.path()).lying(Lie::Files);
        sys::durable::replace_on(&disk, &dir.path().join("a"), b"one", 0o600).unwrap();
        assert!(after(&disk, "a").contains(&Some(Vec::new())));
        let dir = tempfile::tempdir().unwrap();
        let disk = Lossy::new(dir.path()).recording().lying(Lie::Folders);
        sys::durable::replace_on(&disk, &dir.path().join("a"), b"one", 0o600).unwrap();
        assert!(after(&disk, "a").contains(&None));
        let mut moments = Vec::new();
        disk.each_moment(|deeds, platter| moments.push((deeds, platter.after_a_cut(1).0.len())));
        // Everything is kept: the new file, then its name, its contents, their sync, and the one name for the other.
        assert_eq!(moments, [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 1)]);
        assert_eq!(disk.deeds(), 5);
    }
}
