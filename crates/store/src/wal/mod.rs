//! The Raft log on disk: append-only segment files, one writer thread, group commit.
//!
//! ```text
//!  <dir>/meta                  raft id, vote, last purged entry; replaced whole
//!  <dir>/0000000000000001.wal  records, oldest segment first; only the last one is written
//! ```
//!
//! Invariants: an append is acknowledged after fdatasync only; the purge mark is durable before a segment is
//! deleted; a record that cannot be read is never skipped: if it is the torn end of the last segment it is cut
//! off, anything else refuses to open; after one failed write or sync nothing is written any more.

mod open;
mod segment;
mod writer;

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod tests;

use crate::{
    cipher::Dek,
    space::Reserve,
    types::{Entry, LogId, TypeConfig, Vote, entry_bytes, entry_from_wire, entry_memory},
};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use prost::Message as _;
use proto::{SpecCache, raft as wire};
use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use sys::disk::Disk;
use tokio::sync::{mpsc, oneshot, watch};
use writer::Op;
pub(crate) use writer::Writing;

pub use open::OpenLogError;

/// One replication message has entries up to about this much. *Unit:* bytes.
const MESSAGE: usize = 2 << 20;

/// The log has stopped for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LogError(Arc<str>);

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::other(error)
    }
}

/// Where an entry's record is.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u64,
    offset: u64,
    len: usize,
}

#[derive(Debug)]
struct Slot {
    id: LogId,
    /// On the wire and on disk. *Unit:* bytes.
    bytes: usize,
    /// Of all entries up to this one, since the log was opened. *Unit:* bytes.
    bytes_upto: u64,
    /// What `entry` holds. *Unit:* bytes.
    memory: usize,
    /// In memory: always until it has a place.
    entry: Option<Entry>,
    place: Option<Place>,
}

/// What the log holds.
#[derive(Debug, Default)]
struct Index {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Consecutive.
    slots: VecDeque<Slot>,
    cached_bytes: usize,
    /// Entries are kept in memory up to this much of it, newest first. *Unit:* bytes.
    cache: usize,
    /// Position of the first slot that is in memory.
    cached_from: usize,
}

impl Index {
    fn push(&mut self, entry: Entry, place: Option<Place>) {
        let (bytes, memory) = (entry_bytes(&entry), entry_memory(&entry));
        self.cached_bytes += memory;
        let bytes_upto = self.bytes_upto() + bytes as u64;
        self.slots.push_back(Slot { id: entry.log_id, bytes, bytes_upto, memory, entry: Some(entry), place });
        self.evict();
    }

    fn evict(&mut self) {
        while self.cached_bytes > self.cache
            && let Some(slot) = self.slots.get_mut(self.cached_from)
            && slot.place.is_some()
        {
            slot.entry = None;
            self.cached_bytes -= slot.memory;
            self.cached_from += 1;
        }
    }

    /// Returns the index of the entry that may be appended next; `None`: any.
    fn next(&self) -> Option<u64> {
        self.slots.back().map(|s| s.id).or(self.purged).map(|id| id.index + 1)
    }

    fn position(&self, index: u64) -> usize {
        let first = self.slots.front().map_or(0, |s| s.id.index);
        usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX).min(self.slots.len())
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let keep = last.map_or(0, |id| match self.slots.front() {
            Some(first) if first.id.index <= id.index => self.position(id.index + 1),
            _ => 0,
        });
        for slot in self.slots.drain(keep..) {
            self.cached_bytes -= slot.entry.map_or(0, |_| slot.memory);
        }
        self.cached_from = self.cached_from.min(self.slots.len());
    }

    fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        let gone = self.position(upto.index + 1);
        let gone = if self.slots.front().is_some_and(|s| s.id.index > upto.index) { 0 } else { gone };
        for slot in self.slots.drain(..gone) {
            self.cached_bytes -= slot.entry.map_or(0, |_| slot.memory);
        }
        self.cached_from = self.cached_from.saturating_sub(gone);
        // What was taken for a burst is given back.
        if self.slots.capacity() > 4 * self.slots.len().max(1024) {
            self.slots.shrink_to(2 * self.slots.len());
        }
    }

    fn bytes_upto(&self) -> u64 {
        self.slots.back().map_or(0, |slot| slot.bytes_upto)
    }

    /// Returns how much the entries behind `after` up to `upto` are.
    fn bytes_between(&self, after: u64, upto: u64) -> u64 {
        let before = |index: u64| {
            let position = self.position(index.saturating_add(1));
            let first = || self.slots.front().map_or(0, |slot| slot.bytes_upto - slot.bytes as u64);
            position.checked_sub(1).and_then(|n| self.slots.get(n)).map_or_else(first, |slot| slot.bytes_upto)
        };
        before(upto).saturating_sub(before(after))
    }

    /// Returns the last entry that must go, so that no more than `bytes` are left of what is up to `upto`.
    fn surplus(&self, upto: u64, bytes: u64) -> Option<u64> {
        let end = self.slots.get(self.position(upto)).filter(|slot| slot.id.index == upto)?.bytes_upto;
        let all = self.slots.front().map_or(0, |slot| end - (slot.bytes_upto - slot.bytes as u64));
        let left = self.slots.partition_point(|slot| end.saturating_sub(slot.bytes_upto) > bytes);
        self.slots.get(left).filter(|_| all > bytes).map(|slot| slot.id.index)
    }
}

/// Shared by the log, its readers and the writer thread.
#[derive(Debug)]
struct Shared {
    index: Mutex<Index>,
    failed: OnceLock<LogError>,
    failure: watch::Sender<Option<String>>,
    /// It lives on its reserve.
    low: watch::Sender<bool>,
    /// How long syncs took.
    syncs: Arc<model::Timings>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), LogError> {
        self.failed.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Stops the log for good.
    fn fail(&self, what: &str, error: &io::Error) -> LogError {
        let failed = self.failed.get_or_init(|| {
            tracing::error!(%error, "{what}: this manager accepts no more changes until it is restarted");
            LogError(format!("{what}: {error}").into())
        });
        self.failure.send_replace(Some(failed.to_string()));
        failed.clone()
    }

    fn placed(&self, places: impl Iterator<Item = (LogId, Place)>) {
        let mut index = self.lock();
        for (id, place) in places {
            let position = index.position(id.index);
            // It may be truncated or purged by now.
            if let Some(slot) = index.slots.get_mut(position)
                && slot.id == id
            {
                slot.place = Some(place);
            }
        }
        index.evict();
    }
}

/// The log; the writer thread ends when it and its clones are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    reader: Reader,
    ops: mpsc::Sender<Op>,
}

impl Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Op")
    }
}

/// An opened log.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) writer: Writing,
    /// Why the log has stopped, once it has.
    pub(crate) failure: watch::Receiver<Option<String>>,
    /// Whether the disk is full, and the log lives on the room that was kept for it.
    pub(crate) low: watch::Sender<bool>,
    pub(crate) reserve: Reserve,
}

impl Log {
    /// Opens the log in `dir`, making it if there is none; keeps `lock` until nothing is written any more. Blocks.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        dek: &Dek,
        raft_id: u64,
        lock: Option<std::fs::File>,
    ) -> Result<Opened, OpenLogError> {
        open::open(disk, dir, dek, raft_id, open::Limits::default(), lock)
    }

    /// Returns the raft id of the log in `dir`, if there is one.
    pub(crate) fn raft_id(dir: &Path) -> io::Result<Option<u64>> {
        Ok(writer::read_meta(dir)?.map(|m| m.raft_id))
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.reader.shared.lock().purged
    }

    pub(crate) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    async fn submit(&self, op: Op) -> io::Result<()> {
        self.reader.shared.check()?;
        self.ops.send(op).await.map_err(|_| io::Error::other("the log is closed"))
    }

    async fn ask(&self, op: impl FnOnce(oneshot::Sender<Result<(), LogError>>) -> Op) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.submit(op(done)).await?;
        Ok(outcome.await.map_err(|_| io::Error::other("the log is closed"))??)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let index = self.reader.shared.lock();
        let last_log_id = index.slots.back().map(|s| s.id).or(index.purged);
        Ok(LogState { last_purged_log_id: index.purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Reader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.ask(|done| Op::Vote { vote, done }).await?;
        self.reader.shared.lock().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.reader.shared.lock().committed = committed;
        self.submit(Op::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.reader.shared.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut index = self.reader.shared.lock();
            for entry in &entries {
                if index.next().is_some_and(|next| next != entry.log_id.index) {
                    return Err(io::Error::other(format!("entry {} leaves a hole in the log", entry.log_id)));
                }
                index.push(entry.clone(), None);
            }
        }
        self.submit(Op::Append { entries, done: callback }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.reader.shared.lock().truncate_after(last);
        self.ask(|done| Op::TruncateAfter { last, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.reader.shared.lock().purge(upto);
        self.ask(|done| Op::Purge { upto, done }).await
    }
}

/// Reads entries, from memory or disk.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    dir: Arc<PathBuf>,
    dek: Dek,
}

enum Found {
    Here(Entry),
    OnDisk(LogId, Place),
}

impl Reader {
    /// Returns how long syncs of the log took.
    pub(crate) fn syncs(&self) -> Arc<model::Timings> {
        Arc::clone(&self.shared.syncs)
    }

    /// Returns which entry the log has at an index, if it has (still) one.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        let log = self.shared.lock();
        let slot = log.slots.get(log.position(index))?;
        (slot.id.index == index).then_some(slot.id)
    }

    /// Returns how much the entries behind `after` up to `upto` take, of those that are here. *Unit:* bytes.
    pub(crate) fn bytes_between(&self, after: u64, upto: u64) -> u64 {
        self.shared.lock().bytes_between(after, upto)
    }

    /// Returns the last entry that must go, so that no more than `bytes` are left of what is up to `upto`; `None` if
    /// that is so.
    pub(crate) fn surplus(&self, upto: u64, bytes: u64) -> Option<u64> {
        self.shared.lock().surplus(upto, bytes)
    }

    fn find(&self, range: impl RangeBounds<u64>, limit: usize) -> io::Result<Vec<Found>> {
        let index = self.shared.lock();
        let Some(first) = index.slots.front().map(|s| s.id.index) else { return Ok(Vec::new()) };
        let from = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(i) => i.saturating_add(1),
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        if to <= first || from >= to {
            return Ok(Vec::new());
        }
        let (from, to) = (index.position(from.max(first)), index.position(to));
        let mut found = Vec::with_capacity(to.saturating_sub(from));
        let mut bytes = 0;
        for slot in index.slots.range(from.min(to)..to) {
            bytes += slot.bytes;
            if bytes > limit && !found.is_empty() {
                break;
            }
            found.push(match (&slot.entry, slot.place) {
                (Some(entry), _) => Found::Here(entry.clone()),
                (None, Some(place)) => Found::OnDisk(slot.id, place),
                (None, None) => return Err(io::Error::other(format!("entry {} is nowhere", slot.id))),
            });
        }
        Ok(found)
    }

    fn load(&self, id: LogId, place: Place) -> io::Result<Entry> {
        let path = writer::segment_path(&self.dir, place.sequence);
        let mut bytes = vec![0; place.len];
        std::fs::File::open(&path)?.read_exact_at(&mut bytes, place.offset)?;
        let damaged = |why: &str| {
            let text = format!("{} at {}: entry {id} {why}", path.display(), place.offset);
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let record = segment::read_at(&self.dek, place.sequence, &bytes, place.offset)
            .map_err(|fault| damaged(&format!("cannot be read: {fault:?}")))?;
        let entry = wire::Entry::decode(record.as_slice()).map_err(|_| damaged("is not an entry"))?;
        let entry = entry_from_wire(entry, &mut SpecCache::default())?;
        if entry.log_id == id { Ok(entry) } else { Err(damaged("is another one")) }
    }

    async fn read(&self, found: Vec<Found>) -> io::Result<Vec<Entry>> {
        if found.iter().all(|f| matches!(f, Found::Here(_))) {
            return Ok(found
                .into_iter()
                .filter_map(|f| if let Found::Here(e) = f { Some(e) } else { None })
                .collect());
        }
        let this = self.clone();
        let blocking = tokio::task::spawn_blocking(move || {
            let mut entries = Vec::with_capacity(found.len());
            for found in found {
                match found {
                    Found::Here(entry) => entries.push(entry),
                    Found::OnDisk(id, place) => match this.load(id, place) {
                        Ok(entry) => entries.push(entry),
                        // Purged meanwhile: it may be missing at the beginning.
                        Err(_) if this.shared.lock().purged.is_some_and(|p| id.index <= p.index) => {}
                        Err(error) => return Err(error),
                    },
                }
            }
            Ok(entries)
        });
        blocking.await.map_err(io::Error::other)?
    }
}

impl RaftLogReader<TypeConfig> for Reader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(self.find(range, usize::MAX)?).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(self.find(start..end, MESSAGE)?).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.lock().vote)
    }
}
