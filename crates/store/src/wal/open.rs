//! Reading a log back after a restart or a crash.

use super::{
    Index, Log, Opened, Place, Reader, Shared,
    segment::{self, Fault, Kind, Record},
    writer::{Active, META, Writer, Writing, read_meta, segment_path, write_meta},
};
use crate::{
    cipher::Dek,
    space::Reserve,
    types::{DecodeError, LogId, entry_from_wire, log_id_from_wire, vote_from_wire},
};
use prost::Message as _;
use proto::{SpecCache, raft as wire};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};
use sys::disk::Disk;
use tokio::sync::{mpsc, watch};

/// Operations that may wait for the writer.
const QUEUE: usize = 1024;

/// Why a log cannot be opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    #[error("cannot open the Raft log in {dir}")]
    Io {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the Raft log in {dir} belongs to member {found}, not {wanted}")]
    OtherMember { dir: PathBuf, found: u64, wanted: u64 },
    #[error(
        "Raft log {file} is damaged at byte {offset} ({why}); committed changes may be in it, so it is not skipped: \
         restore it from a copy, or remove this manager from the swarm and let it join again with an empty directory"
    )]
    Damaged { file: PathBuf, offset: u64, why: String },
    #[error(
        "file {file} of the Raft log is missing: this manager would have forgotten what it promised; restore it from a \
         copy, or remove this manager from the swarm and let it join again with an empty directory"
    )]
    Missing { file: PathBuf },
    #[error(
        "the disk of {dir} has no room for the {bytes} bytes that are kept for the Raft log; free some: this manager \
         takes part again by itself"
    )]
    NoRoom {
        dir: PathBuf,
        bytes: u64,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the log's writer thread")]
    Thread(#[source] io::Error),
}

/// How much goes into a segment and stays in memory. *Unit:* bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) segment: u64,
    pub(super) cache: usize,
    /// Room on the disk that is kept for the log.
    pub(super) reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment: 16 << 20, cache: 16 << 20, reserve: 16 << 20 }
    }
}

/// `lock` is kept for as long as the writer may write.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    dek: &Dek,
    raft_id: u64,
    limits: Limits,
    lock: Option<fs::File>,
) -> Result<Opened, OpenLogError> {
    let failed = |source| OpenLogError::Io { dir: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let sequences = list(dir).map_err(failed)?;
    let reserve = Reserve::new(dir, limits.reserve);
    reserve.keep().map_err(|source| OpenLogError::NoRoom {
        dir: dir.to_owned(),
        bytes: limits.reserve,
        source,
    })?;
    let meta = match read_meta(dir).map_err(failed)? {
        Some(meta) if meta.raft_id != raft_id => {
            return Err(OpenLogError::OtherMember {
                dir: dir.to_owned(),
                found: meta.raft_id,
                wanted: raft_id,
            });
        }
        Some(meta) => meta,
        // Without it nobody knows for whom this member has voted.
        None if !sequences.is_empty() => return Err(OpenLogError::Missing { file: dir.join(META) }),
        None => {
            let meta = wire::LogMeta { raft_id, ..wire::LogMeta::default() };
            write_meta(&*disk, dir, &meta).map_err(failed)?;
            meta
        }
    };
    let vote = meta.vote.map(vote_from_wire);
    let purged = meta.purged.map(log_id_from_wire);
    let mut index = Index { vote, purged, cache: limits.cache, ..Index::default() };
    let mut segments = BTreeMap::new();
    if sequences.last().is_none_or(|last| *last < meta.segment) && meta.segment > 0 {
        return Err(OpenLogError::Missing { file: segment_path(dir, meta.segment) });
    }
    let mut active = None;
    let mut specs = SpecCache::default();
    for (position, &sequence) in sequences.iter().enumerate() {
        let previous = position.checked_sub(1).map_or(sequence - 1, |p| sequences[p]);
        let lost_first = position == 0 && sequence != 1 && purged.is_none();
        if previous + 1 != sequence || lost_first {
            return Err(OpenLogError::Missing { file: segment_path(dir, sequence - 1) });
        }
        let last = position + 1 == sequences.len();
        let synced = if sequence == meta.segment { meta.synced } else { 0 };
        let (index, specs) = (&mut index, &mut specs);
        let mut replay = Replay { dir, dek, sequence, last, synced, index, specs, greatest: None };
        let end = replay.run()?;
        segments.insert(sequence, replay.greatest);
        if last {
            active = Some(resume(&*disk, dir, sequence, end).map_err(failed)?);
        }
    }
    let active = match active {
        Some(active) => active,
        None => {
            segments.insert(1, None);
            Active::create(&*disk, dir, 1).map_err(failed)?
        }
    };
    // A mark that a crash cut off from the entries it names says less, never more.
    let last = index.slots.back().map(|s| s.id).or(index.purged);
    index.committed = index.committed.min(last).max(index.purged);

    let (failure, failure_watch) = watch::channel(None);
    let low = watch::Sender::new(false);
    let shared = Arc::new(Shared {
        index: Mutex::new(index),
        failed: OnceLock::new(),
        failure,
        low: low.clone(),
        syncs: Arc::default(),
    });
    let (ops, queue) = mpsc::channel(QUEUE);
    let writer = Writer {
        disk,
        dir: dir.to_owned(),
        dek: dek.clone(),
        shared: shared.clone(),
        raft_id,
        vote,
        purged,
        segments,
        active,
        segment: limits.segment,
        reserve: reserve.clone(),
    };
    let writing = Writing::begin(writer, queue, lock).map_err(OpenLogError::Thread)?;
    let reader = Reader { shared, dir: Arc::new(dir.to_owned()), dek: dek.clone() };
    Ok(Opened { log: Log { reader, ops }, writer: writing, failure: failure_watch, low, reserve })
}

/// Returns the sequence numbers of the segments, in order.
fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut out = Vec::new();
    for file in fs::read_dir(dir)? {
        let name = file?.file_name();
        let number =
            name.to_str().and_then(|n| n.strip_suffix(".wal")).and_then(|n| u64::from_str_radix(n, 16).ok());
        out.extend(number.filter(|n| *n > 0));
    }
    out.sort_unstable();
    Ok(out)
}

/// Opens the last segment for writing behind its last good record; what is behind that is erased.
fn resume(disk: &dyn Disk, dir: &Path, sequence: u64, end: Option<u64>) -> io::Result<Active> {
    let Some(end) = end else { return Active::create(disk, dir, sequence) };
    let file = disk.open(&segment_path(dir, sequence))?;
    file.set_len(end)?;
    file.sync_all()?;
    disk.sync_folder(dir)?;
    Ok(Active { sequence, file, end, allocated: end, synced: end, announced: segment::HEAD as u64 })
}

/// Puts the records of one segment into the index.
struct Replay<'a> {
    dir: &'a Path,
    dek: &'a Dek,
    sequence: u64,
    /// The one that was being written.
    last: bool,
    /// Everything before this offset is known to have been on disk.
    synced: u64,
    index: &'a mut Index,
    specs: &'a mut SpecCache,
    greatest: Option<u64>,
}

impl Replay<'_> {
    /// Returns the end of the good records; `None` if a crash came before the segment had a head.
    fn run(&mut self) -> Result<Option<u64>, OpenLogError> {
        let path = segment_path(self.dir, self.sequence);
        let bytes =
            fs::read(&path).map_err(|source| OpenLogError::Io { dir: self.dir.to_owned(), source })?;
        let head = segment::head(self.sequence);
        if bytes.get(..segment::HEAD) != Some(head.as_slice()) {
            let unfinished = bytes.len() <= segment::HEAD || bytes.iter().all(|b| *b == 0);
            let begun = self.last && unfinished && self.synced == 0;
            return if begun { Ok(None) } else { Err(self.damaged(0, "wrong head")) };
        }
        let mut offset = segment::HEAD;
        loop {
            match segment::read(self.dek, self.sequence, &bytes, offset) {
                Ok(record) => {
                    offset += record.len;
                    self.put(record)?;
                }
                Err(Fault::End) if self.last || offset == bytes.len() => break,
                Err(Fault::End) => return Err(self.damaged(offset, "zeros instead of a record")),
                Err(Fault::Foreign) => {
                    return Err(self.damaged(offset, "does not decrypt: wrong key, or moved from elsewhere"));
                }
                Err(Fault::Damaged(why)) => {
                    if !self.last || segment::was_synced(self.dek, self.sequence, &bytes, offset) {
                        return Err(self.damaged(offset, why));
                    }
                    tracing::warn!(file = %path.display(), offset, why, "a crash tore the end of the Raft log; cut off");
                    break;
                }
            }
        }
        // Zeros where there was a record once are damage too.
        if self.last && segment::was_synced(self.dek, self.sequence, &bytes, offset) {
            return Err(self.damaged(offset, "zeros instead of a record"));
        }
        if (offset as u64) < self.synced {
            let why = format!("cut off: it was on disk up to byte {}", self.synced);
            return Err(self.damaged(offset, why));
        }
        Ok(Some(offset as u64))
    }

    fn put(&mut self, record: Record) -> Result<(), OpenLogError> {
        let at = record.offset;
        let undecodable = |e: DecodeError| e.to_string();
        match record.kind {
            Kind::Entry => {
                let entry = wire::Entry::decode(record.plain.as_slice())
                    .map_err(DecodeError::from)
                    .and_then(|entry| entry_from_wire(entry, self.specs))
                    .map_err(|e| self.damaged(at, undecodable(e)))?;
                let entry_index = entry.log_id.index;
                self.greatest = self.greatest.max(Some(entry_index));
                if self.index.purged.is_some_and(|p| entry_index <= p.index) {
                    return Ok(());
                }
                if let Some(next) = self.index.next()
                    && next != entry_index
                {
                    return Err(self.damaged(at, format!("entry {entry_index} follows entry {}", next - 1)));
                }
                let place = Place { sequence: self.sequence, offset: at, len: record.len };
                self.index.push(entry, Some(place));
            }
            Kind::TruncateAfter => {
                let last = if record.plain.is_empty() { None } else { Some(self.log_id(&record)?) };
                self.index.truncate_after(last);
            }
            Kind::Committed => self.index.committed = Some(self.log_id(&record)?),
            Kind::Synced => {}
        }
        Ok(())
    }

    fn log_id(&self, record: &Record) -> Result<LogId, OpenLogError> {
        wire::LogId::decode(record.plain.as_slice())
            .map(log_id_from_wire)
            .map_err(|e| self.damaged(record.offset, e.to_string()))
    }

    fn damaged<O: TryInto<u64>>(&self, offset: O, why: impl Into<String>) -> OpenLogError {
        let offset = offset.try_into().unwrap_or(u64::MAX);
        OpenLogError::Damaged { file: segment_path(self.dir, self.sequence), offset, why: why.into() }
    }
}
