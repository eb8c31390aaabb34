//! The thread that alone writes the log (on disks of tests a task): it takes what has queued up, writes it in one piece, syncs once, and only
//! then tells those who wait.

use super::{
    LogError, Place, Shared,
    segment::{self, Kind},
};
use crate::{
    cipher::Dek,
    space::{Reserve, is_full},
    types::{Entry, LogId, TypeConfig, Vote, entry_to_wire, log_id_to_wire, vote_to_wire},
};
use openraft::storage::IOFlushed;
use prost::Message as _;
use proto::raft as wire;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};
use sys::disk::{Disk, Open};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// Space is taken from the file system in steps of this, or of a whole segment, so that a sync writes no metadata.
/// *Unit:* bytes.
const STEP: u64 = 1 << 20;
/// Operations taken into one sync.
const GROUP: usize = 256;

pub(super) enum Op {
    Append { entries: Vec<Entry>, done: IOFlushed<TypeConfig> },
    Committed(Option<LogId>),
    Vote { vote: Vote, done: oneshot::Sender<Result<(), LogError>> },
    TruncateAfter { last: Option<LogId>, done: oneshot::Sender<Result<(), LogError>> },
    Purge { upto: LogId, done: oneshot::Sender<Result<(), LogError>> },
}

/// Where the writer goes on.
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) dek: Dek,
    pub(super) shared: Arc<Shared>,
    pub(super) raft_id: u64,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    /// Greatest entry index in each segment that is there.
    pub(super) segments: BTreeMap<u64, Option<u64>>,
    pub(super) active: Active,
    /// A segment is closed when it would grow beyond this. *Unit:* bytes.
    pub(super) segment: u64,
    pub(super) reserve: Reserve,
}

/// The segment being written.
pub(super) struct Active {
    pub(super) sequence: u64,
    pub(super) file: Box<dyn Open>,
    /// End of what is written.
    pub(super) end: u64,
    /// End of the space taken.
    pub(super) allocated: u64,
    /// End of what is synced.
    pub(super) synced: u64,
    /// What the last `Synced` record says.
    pub(super) announced: u64,
}

/// What is written but not yet synced.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    placed: Vec<(LogId, Place)>,
    done: Vec<IOFlushed<TypeConfig>>,
    committed: Option<LogId>,
    must_sync: bool,
}

/// Who writes the log.
#[derive(Debug)]
pub(crate) enum Writing {
    /// A thread, which waits for the disk.
    Thread(JoinHandle<()>),
    /// A task, on a disk that nobody has to wait for.
    Task(JoinSet<()>),
}

impl Writing {
    /// Begins to write; keeps `lock` until it has ended.
    pub(super) fn begin(writer: Writer, ops: mpsc::Receiver<Op>, lock: Option<fs::File>) -> io::Result<Self> {
        if writer.disk.is_at_once() {
            let mut task = JoinSet::new();
            task.spawn(async move {
                writer.run_at_once(ops).await;
                drop(lock);
            });
            return Ok(Self::Task(task));
        }
        let thread = std::thread::Builder::new().name("raft-log".to_owned());
        let thread = thread.spawn(move || {
            writer.run(ops);
            drop(lock);
        });
        thread.map(Self::Thread)
    }

    /// Waits until the last record is written, once every sender is gone.
    pub(crate) async fn ended(self) {
        let ended = match self {
            Self::Thread(thread) => {
                let joined = tokio::task::spawn_blocking(move || thread.join());
                joined.await.is_ok_and(|joined| joined.is_ok())
            }
            Self::Task(mut task) => task.join_next().await.is_some_and(|joined| joined.is_ok()),
        };
        if !ended {
            tracing::warn!("the log's writer panicked");
        }
    }

    /// The same for a thread, without a runtime.
    #[cfg(test)]
    pub(crate) fn join(self) -> std::thread::Result<()> {
        match self {
            Self::Thread(thread) => thread.join(),
            Self::Task(_) => panic!("it is a task"),
        }
    }
}

pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.wal"))
}

impl Active {
    /// Makes a new segment file; durable when it returns.
    pub(super) fn create(disk: &dyn Disk, dir: &Path, sequence: u64) -> io::Result<Self> {
        let file = disk.make(&segment_path(dir, sequence), 0o600)?;
        file.write_all_at(&segment::head(sequence), 0)?;
        file.sync_all()?;
        disk.sync_folder(dir)?;
        let head = segment::HEAD as u64;
        Ok(Self { sequence, file, end: head, allocated: head, synced: head, announced: head })
    }

    fn reserve(&mut self, upto: u64, step: u64) -> io::Result<()> {
        if upto <= self.allocated {
            return Ok(());
        }
        let zeros = vec![0; usize::try_from(step).map_err(io::Error::other)?];
        while self.allocated < upto {
            self.file.write_all_at(&zeros, self.allocated)?;
            self.allocated += step;
        }
        self.file.sync_all()
    }
}

impl Writer {
    /// Runs until every sender is gone.
    fn run(mut self, mut ops: mpsc::Receiver<Op>) {
        let mut queue = Vec::with_capacity(GROUP);
        while ops.blocking_recv_many(&mut queue, GROUP) > 0 {
            self.take_all(&mut queue);
        }
        self.close();
    }

    /// The same, where nobody minds that a disk is waited for.
    async fn run_at_once(mut self, mut ops: mpsc::Receiver<Op>) {
        let mut queue = Vec::with_capacity(GROUP);
        while ops.recv_many(&mut queue, GROUP).await > 0 {
            self.take_all(&mut queue);
        }
        self.close();
    }

    fn take_all(&mut self, queue: &mut Vec<Op>) {
        let mut group = Group::default();
        for op in queue.drain(..) {
            self.take(op, &mut group);
        }
        self.flush(&mut group);
    }

    /// Has the last word, so that damage to the tail after an orderly end is told from a torn write.
    fn close(&mut self) {
        if self.shared.check().is_ok()
            && let Err(error) = self.last_word()
        {
            self.shared.fail("cannot close the log", &error);
        }
    }

    fn last_word(&mut self) -> io::Result<()> {
        let mut group = Group::default();
        self.write(&mut group, true)?;
        let synced = self.active.synced;
        self.push(&mut group, Kind::Synced, &synced.to_le_bytes())?;
        self.write(&mut group, true)?;
        self.note()
    }

    fn take(&mut self, op: Op, group: &mut Group) {
        match op {
            Op::Append { entries, done } => {
                group.must_sync = true;
                for entry in &entries {
                    if let Err(error) = self.add_entry(group, entry) {
                        self.shared.fail("cannot write the log", &error);
                        break;
                    }
                }
                group.done.push(done);
            }
            Op::Committed(id) => group.committed = id.or(group.committed),
            Op::Vote { vote, done } => {
                self.flush(group);
                self.vote = Some(vote);
                let outcome = self.shared.check().and_then(|()| self.save_meta());
                answer(done, outcome);
            }
            Op::TruncateAfter { last, done } => {
                group.must_sync = true;
                let plain = last.as_ref().map(|id| log_id_to_wire(id).encode_to_vec()).unwrap_or_default();
                let added = self.shared.check().and_then(|()| {
                    self.add(group, Kind::TruncateAfter, &plain)
                        .map_err(|e| self.shared.fail("cannot write the log", &e))?;
                    self.flush(group);
                    self.shared.check()
                });
                answer(done, added);
            }
            Op::Purge { upto, done } => {
                self.flush(group);
                self.purged = self.purged.max(Some(upto));
                // Recorded before anything is deleted, or a crash in between would look like a lost segment.
                let outcome =
                    self.shared.check().and_then(|()| self.save_meta()).and_then(|()| self.delete_old());
                answer(done, outcome);
            }
        }
    }

    fn add_entry(&mut self, group: &mut Group, entry: &Entry) -> io::Result<()> {
        let offset = self.add(group, Kind::Entry, &entry_to_wire(entry).encode_to_vec())?;
        let sequence = self.active.sequence;
        let len = self.active.end + group.bytes.len() as u64 - offset;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        group.placed.push((entry.log_id, Place { sequence, offset, len }));
        let greatest = self.segments.entry(sequence).or_default();
        *greatest = (*greatest).max(Some(entry.log_id.index));
        Ok(())
    }

    /// Adds a record to the group and returns its offset.
    fn add(&mut self, group: &mut Group, kind: Kind, plain: &[u8]) -> io::Result<u64> {
        if self.active.end + group.bytes.len() as u64 + plain.len() as u64 > self.segment {
            self.write(group, true)?;
            self.rotate()?;
        }
        if group.bytes.is_empty() && self.active.announced < self.active.synced {
            let synced = self.active.synced;
            self.push(group, Kind::Synced, &synced.to_le_bytes())?;
            self.active.announced = synced;
        }
        self.push(group, kind, plain)
    }

    fn push(&self, group: &mut Group, kind: Kind, plain: &[u8]) -> io::Result<u64> {
        let offset = self.active.end + group.bytes.len() as u64;
        group.bytes.extend(segment::frame(&self.dek, self.active.sequence, offset, kind, plain)?);
        Ok(offset)
    }

    /// Closes the active segment at its exact length and begins the next.
    fn rotate(&mut self) -> io::Result<()> {
        self.active.file.set_len(self.active.end)?;
        self.active.file.sync_all()?;
        let sequence = self.active.sequence + 1;
        self.active = self.with_room(|this| Active::create(&*this.disk, &this.dir, sequence))?;
        self.segments.insert(sequence, None);
        // Noted when it is there: a crash in between leaves a segment more than noted, never one less.
        self.with_room(|this| this.note())
    }

    /// Does what takes room on the disk; where there is none, once more with the reserve's.
    fn with_room<T>(&mut self, take: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match take(self) {
            Err(error) if is_full(&error) && self.reserve.give_up() => {
                tracing::error!(
                    dir = %self.dir.display(),
                    reserve_bytes = self.reserve.bytes(),
                    "the disk is full: the Raft log lives on its reserve; this manager gives leadership away and \
                     takes no changes from people until there is room again"
                );
                self.shared.low.send_replace(true);
                take(self)
            }
            outcome => outcome,
        }
    }

    /// Writes the group, syncs it if somebody waits for that, and tells them how it went.
    fn flush(&mut self, group: &mut Group) {
        if let Some(id) = group.committed.take()
            && self.shared.check().is_ok()
            && let Err(error) = self.add(group, Kind::Committed, &log_id_to_wire(&id).encode_to_vec())
        {
            self.shared.fail("cannot write the log", &error);
        }
        if self.shared.check().is_ok()
            && let Err(error) = self.write(group, group.must_sync)
        {
            self.shared.fail("cannot write the log", &error);
        }
        group.must_sync = false;
        for done in group.done.drain(..) {
            done.io_completed(self.shared.check().map_err(io::Error::from));
        }
    }

    /// An error here is final: after a failed sync nobody can know what is on the disk.
    fn write(&mut self, group: &mut Group, sync: bool) -> io::Result<()> {
        if !group.bytes.is_empty() {
            let end = self.active.end + group.bytes.len() as u64;
            let step = STEP.min(self.segment);
            self.with_room(|this| this.active.reserve(end, step))?;
            self.active.file.write_all_at(&group.bytes, self.active.end)?;
            self.active.end = end;
            group.bytes.clear();
        }
        if sync && self.active.synced < self.active.end {
            let begun = std::time::Instant::now();
            self.active.file.sync_data()?;
            self.shared.syncs.note(begun.elapsed());
            self.active.synced = self.active.end;
        }
        self.shared.placed(group.placed.drain(..));
        Ok(())
    }

    fn save_meta(&mut self) -> Result<(), LogError> {
        self.with_room(|this| this.note())
            .map_err(|e| self.shared.fail("cannot write the log's meta file", &e))
    }

    /// Writes the meta file, with how far the log is known to be on disk.
    fn note(&self) -> io::Result<()> {
        let meta = wire::LogMeta {
            raft_id: self.raft_id,
            vote: self.vote.as_ref().map(vote_to_wire),
            purged: self.purged.as_ref().map(log_id_to_wire),
            segment: self.active.sequence,
            synced: self.active.synced,
        };
        write_meta(&*self.disk, &self.dir, &meta)
    }

    /// Deletes the oldest segments whose entries are all purged.
    fn delete_old(&mut self) -> Result<(), LogError> {
        let Some(purged) = self.purged else { return Ok(()) };
        let mut deleted = false;
        while let Some((&sequence, &greatest)) = self.segments.first_key_value()
            && sequence != self.active.sequence
            && greatest.is_none_or(|index| index <= purged.index)
        {
            self.disk
                .remove(&segment_path(&self.dir, sequence))
                .map_err(|e| self.shared.fail("cannot delete a log segment", &e))?;
            self.segments.remove(&sequence);
            deleted = true;
        }
        if deleted {
            self.disk
                .sync_folder(&self.dir)
                .map_err(|e| self.shared.fail("cannot delete a log segment", &e))?;
        }
        Ok(())
    }
}

fn answer(done: oneshot::Sender<Result<(), LogError>>, outcome: Result<(), LogError>) {
    // Nobody waits any more when the Raft core has stopped.
    drop(done.send(outcome));
}

pub(super) const META: &str = "meta";

/// `[crc32c u32][prost LogMeta]`
pub(super) fn write_meta(disk: &dyn Disk, dir: &Path, meta: &wire::LogMeta) -> io::Result<()> {
    let encoded = meta.encode_to_vec();
    let content = [crc32c::crc32c(&encoded).to_le_bytes().as_slice(), &encoded].concat();
    sys::durable::replace_on(disk, &dir.join(META), &content, 0o600)
}

pub(super) fn read_meta(dir: &Path) -> io::Result<Option<wire::LogMeta>> {
    let path = dir.join(META);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()));
    let (crc, encoded) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    if crc32c::crc32c(encoded) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    wire::LogMeta::decode(encoded).map(Some).map_err(|_| damaged())
}
