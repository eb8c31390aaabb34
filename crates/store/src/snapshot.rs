//! Snapshots: the whole state at one index, as a file here and as a stream to a member that is far behind.
//!
//! ```text
//!  <dir>/<term>-<index>.snap   "RSSNAPv1" then blocks: [len u32][crc32c u32][sealed: zstd of records]
//!  records                     length-delimited prost: one SnapshotHeader, then every Object
//! ```
//! A block's seal is bound to its number and to whether it is the last; the header tells how many objects must come.
//! Files are written under a temporary name; one that a crash left half-written is deleted at the next start.

use crate::{
    cipher::Dek,
    rhythm::Rhythm,
    space::{admit_snapshot, is_full},
    types::{DecodeError, SnapshotMeta, meta_from_wire, meta_to_wire},
};
use model::{Object, Tables};
use prost::Message as _;
use proto::{SpecCache, raft as wire, types};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use sys::disk::{Disk, InOrder};

const MAGIC: &[u8; 8] = b"RSSNAPv1";
const FORMAT: u32 = 1;
/// Records are gathered into blocks of about this. *Unit:* bytes.
const BLOCK: usize = 256 << 10;
const FRAME: usize = 8;
const SUFFIX: &str = "snap";

/// Why the stored snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot access snapshots in {dir}")]
    Io {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("snapshot {file} is damaged: {why}")]
    Damaged { file: PathBuf, why: String },
}

/// The snapshots of one member: the newest, and as many older ones as the settings say.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    dek: Dek,
    /// What is stored, so that it need not be read back.
    newest: Arc<Mutex<Option<Stored>>>,
    rhythm: Arc<Rhythm>,
}

/// A snapshot that is on disk.
pub(crate) type Stored = (SnapshotMeta, Arc<Tables>);

impl Snapshots {
    /// Opens the directory, makes it if needed, deletes unfinished files, and returns the newest snapshot. Blocks.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        dek: &Dek,
        rhythm: Arc<Rhythm>,
    ) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::Io { dir: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let this = Self { disk, dir: dir.to_owned(), dek: dek.clone(), newest: Arc::default(), rhythm };
        let mut finished = Vec::new();
        for file in fs::read_dir(dir).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("tmp") => this.disk.remove(&path).map_err(failed)?,
                Some(SUFFIX) => finished.push(path),
                _ => {}
            }
        }
        finished.sort();
        let Some(newest) = finished.pop() else { return Ok(this) };
        let bytes = fs::read(&newest).map_err(failed)?;
        let (meta, tables) =
            this.decode(&bytes).map_err(|why| SnapshotError::Damaged { file: newest, why })?;
        this.remember(meta, Arc::new(tables));
        Ok(this)
    }

    /// Returns the snapshot that is stored.
    pub(crate) fn newest(&self) -> Option<Stored> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, meta: SnapshotMeta, tables: Arc<Tables>) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, tables));
    }

    /// Stores a snapshot durably, and returns what is then the newest: for want of room, that is the one before. A disk
    /// without room for a snapshot is no reason to end: the log goes on, and a later one may have it.
    ///
    /// # Errors
    /// What else can be wrong with a disk.
    pub(crate) async fn save_if_room(&self, meta: &SnapshotMeta, tables: &Arc<Tables>) -> io::Result<Stored> {
        match self.save(meta, tables).await {
            Ok(()) => Ok((meta.clone(), tables.clone())),
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "no snapshot is made for want of room; the log grows meanwhile");
                Ok(self.newest().unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    /// Allows one with these tables to be taken over from another member.
    ///
    /// # Errors
    /// `StorageFull`.
    pub(crate) fn admit(&self, bytes: u64) -> io::Result<()> {
        admit_snapshot(&self.dir, bytes)
    }

    /// Stores a snapshot durably, then deletes the others.
    pub(crate) async fn save(&self, meta: &SnapshotMeta, tables: &Arc<Tables>) -> io::Result<()> {
        let (this, meta, tables) = (self.clone(), meta.clone(), tables.clone());
        let saving = tokio::task::spawn_blocking(move || {
            this.save_blocking(&meta, &tables)?;
            this.remember(meta, tables);
            Ok(())
        });
        saving.await.map_err(io::Error::other)?
    }

    fn save_blocking(&self, meta: &SnapshotMeta, tables: &Tables) -> io::Result<()> {
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (**id.committed_leader_id(), id.index));
        let path = self.dir.join(format!("{term:016x}-{index:016x}.{SUFFIX}"));
        let temporary = path.with_extension("tmp");
        let written = self.write(&temporary, meta, tables).and_then(|()| self.disk.rename(&temporary, &path));
        if let Err(error) = written {
            // The space is needed; the name would be cleaned at the next start anyway.
            drop(self.disk.remove(&temporary));
            return Err(error);
        }
        self.disk.sync_folder(&self.dir)?;
        let mut others = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let other = file?.path();
            if other != path && other.extension().is_some_and(|e| e == SUFFIX) {
                others.push(other);
            }
        }
        // Names are in the order of their making.
        others.sort();
        others.reverse();
        others.into_iter().skip(self.rhythm.old()).try_for_each(|old| self.disk.remove(&old))
    }

    fn write(&self, path: &Path, meta: &SnapshotMeta, tables: &Tables) -> io::Result<()> {
        let mut file = InOrder::new(self.disk.make(path, 0o600)?);
        file.write_all(MAGIC)?;
        let header = wire::SnapshotHeader {
            format: FORMAT,
            meta: Some(meta_to_wire(meta)),
            objects: tables.objects().count() as u64,
        };
        let mut block = header.encode_length_delimited_to_vec();
        let mut number = 0;
        for object in tables.objects() {
            if block.len() >= BLOCK {
                self.write_block(&mut file, number, false, &block)?;
                number += 1;
                block.clear();
            }
            types::Object::from(&object).encode_length_delimited(&mut block).map_err(io::Error::other)?;
        }
        self.write_block(&mut file, number, true, &block)?;
        file.sync_all()
    }

    fn write_block(&self, file: &mut InOrder, number: u64, last: bool, plain: &[u8]) -> io::Result<()> {
        let sealed = self.dek.seal(&block_place(number, last), &zstd::bulk::compress(plain, 3)?)?;
        admit_snapshot(&self.dir, sealed.len() as u64)?;
        let len = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        file.write_all(&len.to_le_bytes())?;
        file.write_all(&crc32c::crc32c(&sealed).to_le_bytes())?;
        file.write_all(&sealed)
    }

    fn decode(&self, bytes: &[u8]) -> Result<(SnapshotMeta, Tables), String> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or("wrong head")?;
        let mut records = Vec::new();
        let mut number = 0;
        loop {
            let (frame, behind) = rest.split_first_chunk::<FRAME>().ok_or("cut short")?;
            let word =
                |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
            let (sealed, behind) = behind.split_at_checked(word(0) as usize).ok_or("cut short")?;
            if crc32c::crc32c(sealed) != word(4) {
                return Err(format!("wrong checksum of block {number}"));
            }
            let last = behind.is_empty();
            let packed = self.dek.open(&block_place(number, last), sealed).map_err(|_| {
                format!("block {number} does not decrypt: wrong key, or the file is cut short")
            })?;
            let plain = zstd::stream::decode_all(packed.as_slice()).map_err(|e| e.to_string())?;
            records.extend(plain);
            if last {
                break;
            }
            rest = behind;
            number += 1;
        }
        let mut records = records.as_slice();
        let header =
            wire::SnapshotHeader::decode_length_delimited(&mut records).map_err(|e| e.to_string())?;
        if header.format != FORMAT {
            return Err(format!("format {} is not known to this version", header.format));
        }
        let meta = header.meta.ok_or("no meta")?;
        let meta = meta_from_wire(meta).map_err(|e| e.to_string())?;
        let mut builder = Builder::default();
        for _ in 0..header.objects {
            let object = types::Object::decode_length_delimited(&mut records).map_err(|e| e.to_string())?;
            builder.add(object).map_err(|e| e.to_string())?;
        }
        if !records.is_empty() {
            return Err("more records than it announces".to_owned());
        }
        Ok((meta.clone(), builder.finish(&meta)))
    }
}

fn block_place(number: u64, last: bool) -> [u8; 9] {
    let mut out = [u8::from(last); 9];
    out[..8].copy_from_slice(&number.to_le_bytes());
    out
}

/// Builds a state object by object.
#[derive(Default)]
pub(crate) struct Builder {
    tables: Tables,
    specs: SpecCache,
    pub(crate) objects: u64,
}

impl Builder {
    pub(crate) fn add(&mut self, object: types::Object) -> Result<(), DecodeError> {
        let mut object = Object::try_from(object)?;
        self.specs.share(&mut object);
        self.tables.restore(object).map_err(DecodeError::Conflict)?;
        self.objects += 1;
        Ok(())
    }

    pub(crate) fn finish(mut self, meta: &SnapshotMeta) -> Tables {
        self.tables.index = meta.last_log_id.map_or(0, |id| id.index);
        self.tables
    }
}
