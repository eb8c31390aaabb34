//! Records by key in one file that stays: a change is appended, and the file is written anew once most of it is history.
//!
//! For records that change often. One that is a file of its own and replaced whole costs a new file, a deleted one and
//! two syncs each time, and a file system looks for a free inode past all that were deleted lately (ext4's
//! `recently_deleted`); here any number of changes costs one sync.
//!
//! ```text
//! file  = frame*
//! frame = "rec1"  crc32c  length of key  length of value  key  value     numbers: u32, little endian
//! ```
//!
//! The checksum is of all that follows it; a removal has the length [`REMOVED`] and no value. A frame that a power cut
//! tore is at the end and was never acknowledged. One that is damaged before a good one costs its record: what the key
//! had before counts, and a copy of the file is kept beside it.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Permission bits of the file.
const MODE: u32 = 0o600;
const MAGIC: &[u8; 4] = b"rec1";
/// Of a frame, before its key. *Unit:* bytes.
const HEAD: usize = 16;
/// Stands for the length of a value that is no more.
const REMOVED: u32 = u32::MAX;
/// So much history is kept however little counts. *Unit:* bytes.
const HISTORY: u64 = 256 << 10;

/// What counts of the records, by key.
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a change must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// A crash of this process.
    Process,
    /// A crash of the machine.
    Machine,
}

/// The file, open to be changed.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: fs::File,
    records: Records,
    /// Frames of what counts. *Unit:* bytes.
    live: u64,
    /// Where the next frame goes. *Unit:* bytes.
    end: u64,
    /// A write or a sync has failed: what stands in the file is not known, so it is written anew.
    in_doubt: bool,
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// The copy of a file in which records were damaged.
    pub(crate) damaged: Option<PathBuf>,
}

impl Journal {
    /// Opens the file at `path`; one that is not there is made with `first`, all of it or nothing. Blocking, as all
    /// here.
    ///
    /// # Errors
    /// It cannot be read, made, or cleared of what is damaged.
    pub(crate) fn open(path: &Path, first: impl FnOnce() -> Records) -> io::Result<Opened> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = frames(&first());
                sys::durable::replace(path, &bytes, MODE)?;
                bytes
            }
            Err(error) => return Err(error),
        };
        let found = read(&bytes);
        let mut damaged = None;
        if found.damaged {
            let copy = path.with_extension("damaged");
            sys::durable::replace(&copy, &bytes, MODE)?;
            damaged = Some(copy);
        }
        let mut journal = Self {
            path: path.to_owned(),
            file: open(path)?,
            live: frames(&found.records).len() as u64,
            records: found.records,
            end: found.end as u64,
            in_doubt: false,
        };
        if found.damaged || found.end < bytes.len() {
            journal.rewrite()?;
        }
        Ok(Opened { journal, damaged })
    }

    /// What counts.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// Makes the changes, removals where there is no value, in their order. When it returns they outlive what
    /// `durability` says, and so do all that were made before.
    ///
    /// # Errors
    /// The disk refuses. The changes count here and are written with the next ones, of which there may be none.
    pub(crate) fn change(
        &mut self,
        changes: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
        durability: Durability,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (key, value) in changes {
            push_frame(&mut bytes, &key, value.as_deref());
            self.live += value.as_ref().map_or(0, |value| frame_len(&key, value));
            let len = key.len();
            let before = match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
            self.live -= before.map_or(0, |before| (HEAD + len + before.len()) as u64);
        }
        if self.in_doubt || self.end + bytes.len() as u64 > HISTORY + 3 * self.live {
            return self.rewrite();
        }
        self.in_doubt = true; // until it has gone well
        self.file.write_all_at(&bytes, self.end)?;
        if durability == Durability::Machine {
            self.file.sync_data()?;
        }
        self.end += bytes.len() as u64;
        self.in_doubt = false;
        Ok(())
    }

    /// Replaces the file by what counts.
    fn rewrite(&mut self) -> io::Result<()> {
        self.in_doubt = true;
        let bytes = frames(&self.records);
        sys::durable::replace(&self.path, &bytes, MODE)?;
        self.file = open(&self.path)?;
        self.end = bytes.len() as u64;
        self.in_doubt = false;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).open(path)
}

fn frame_len(key: &[u8], value: &[u8]) -> u64 {
    (HEAD + key.len() + value.len()) as u64
}

fn frames(records: &Records) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        push_frame(&mut bytes, key, Some(value));
    }
    bytes
}

/// # Panics
/// Key or value have 4 GiB; a task has no more than what one message carries.
fn push_frame(bytes: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let len =
        |part: &[u8]| u32::try_from(part.len()).ok().filter(|len| *len != REMOVED).expect("less than 4 GiB");
    let start = bytes.len();
    bytes.extend(MAGIC);
    bytes.extend([0; 4]);
    bytes.extend(len(key).to_le_bytes());
    bytes.extend(value.map_or(REMOVED, len).to_le_bytes());
    bytes.extend(key);
    bytes.extend(value.unwrap_or_default());
    let sum = crc32c::crc32c(&bytes[start + 8..]);
    bytes[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

/// What the content of a file says.
struct Found {
    records: Records,
    /// Where the last good frame ends.
    end: usize,
    /// Something that is no frame stands before a good one.
    damaged: bool,
}

fn read(bytes: &[u8]) -> Found {
    let mut found = Found { records: Records::new(), end: 0, damaged: false };
    let mut at = 0;
    while at < bytes.len() {
        let Some(frame) = frame_at(bytes, at) else {
            at += 1; // the next one may begin anywhere
            continue;
        };
        found.damaged |= at != found.end;
        let key = bytes[frame.key].to_vec();
        match frame.value {
            Some(value) => found.records.insert(key, bytes[value].to_vec()),
            None => found.records.remove(&key),
        };
        at = frame.end;
        found.end = at;
    }
    found
}

struct Frame {
    key: Range<usize>,
    value: Option<Range<usize>>,
    end: usize,
}

/// The whole frame that begins at `at`.
fn frame_at(bytes: &[u8], at: usize) -> Option<Frame> {
    let rest = &bytes[at..];
    let number = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    if !rest.starts_with(MAGIC) {
        return None;
    }
    let (sum, key, value) = (number(4)?, number(8)?, number(12)?);
    let key_end = HEAD.checked_add(key as usize)?;
    let end = key_end.checked_add(if value == REMOVED { 0 } else { value as usize })?;
    if crc32c::crc32c(rest.get(8..end)?) != sum {
        return None;
    }
    let value = (value != REMOVED).then_some(at + key_end..at + end);
    Some(Frame { key: at + HEAD..at + key_end, value, end: at + end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        (key.into(), Some(value.into()))
    }

    fn remove(key: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        (key.into(), None)
    }

    fn opened(path: &Path) -> Opened {
        Journal::open(path, Records::new).unwrap()
    }

    /// What counts, after it was opened anew.
    fn held(path: &Path) -> Vec<(String, String)> {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        opened(path).journal.records().iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    fn owned(records: &[(&str, &str)]) -> Vec<(String, String)> {
        records.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_was_said_last_of_a_key_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let mut journal = opened(&path).journal;
        journal.change([put("a", "one"), put("b", "two")], Durability::Machine).unwrap();
        journal.change([put("a", "three"), remove("b"), remove("never")], Durability::Process).unwrap();
        journal.change([put("c", "")], Durability::Machine).unwrap();
        assert_eq!(held(&path), owned(&[("a", "three"), ("c", "")]));
    }

    #[test]
    fn an_end_that_is_torn_anywhere_costs_what_was_not_acknowledged_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let mut journal = opened(&path).journal;
        journal.change([put("a", "one")], Durability::Machine).unwrap();
        let whole = fs::read(&path).unwrap();
        journal.change([put("a", "two")], Durability::Machine).unwrap();
        let both = fs::read(&path).unwrap();
        for len in whole.len()..both.len() {
            // As a file system may leave it: short, or as long as it was to be and empty.
            for torn in [both[..len].to_vec(), [&both[..len], &vec![0; both.len() - len]].concat()] {
                let expected = if torn == both { "two" } else { "one" };
                fs::write(&path, &torn).unwrap();
                let found = opened(&path);
                assert_eq!(found.damaged, None);
                // And goes on from there.
                let mut journal = found.journal;
                journal.change([put("b", "more")], Durability::Machine).unwrap();
                assert_eq!(held(&path), owned(&[("a", expected), ("b", "more")]));
            }
        }
    }

    #[test]
    fn a_record_that_is_damaged_costs_itself_and_is_kept_to_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let mut journal = opened(&path).journal;
        journal.change([put("a", "one"), put("b", "two"), put("c", "three")], Durability::Machine).unwrap();
        let good = fs::read(&path).unwrap();
        let second = push_len("a", "one")..push_len("a", "one") + push_len("b", "two");
        for at in second {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(&path, &bad).unwrap();
            let copy = opened(&path).damaged.expect("it is said");
            assert_eq!(fs::read(copy).unwrap(), bad);
            assert_eq!(held(&path), owned(&[("a", "one"), ("c", "three")]), "byte {at}");
            assert_eq!(opened(&path).damaged, None, "it is said once");
        }
    }

    fn push_len(key: &str, value: &str) -> usize {
        usize::try_from(frame_len(key.as_bytes(), value.as_bytes())).unwrap()
    }

    #[test]
    fn the_file_is_as_large_as_what_counts_and_some_history() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let mut journal = opened(&path).journal;
        let large = "x".repeat(10_000);
        for round in 0..200 {
            journal
                .change([put("a", &large), put(&format!("n{}", round % 3), &large)], Durability::Process)
                .unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= HISTORY + 4 * 4 * 10_100, "round {round}");
        }
        assert_eq!(held(&path).len(), 4);
        journal.change(["a", "n0", "n1", "n2"].map(remove), Durability::Machine).unwrap();
        assert_eq!(held(&path), []);
    }

    #[test]
    fn what_the_disk_refused_is_there_after_the_next_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let mut journal = opened(&path).journal;
        journal.change([put("a", "one")], Durability::Machine).unwrap();
        journal.file = fs::File::open(&path).unwrap(); // cannot be written
        assert!(journal.change([put("a", "two"), put("b", "two")], Durability::Machine).is_err());
        assert_eq!(held(&path), owned(&[("a", "one")]));
        journal.change([], Durability::Machine).unwrap();
        assert_eq!(held(&path), owned(&[("a", "two"), ("b", "two")]));
    }

    #[test]
    fn one_that_is_new_begins_with_what_was_there_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let first = || Records::from([(b"a".to_vec(), b"one".to_vec())]);
        Journal::open(&path, first).unwrap();
        assert_eq!(held(&path), owned(&[("a", "one")]));
        Journal::open(&path, || panic!("it is there")).unwrap();
    }
}
