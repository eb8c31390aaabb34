//! Layers on disk: unpacked beside their place, synced, renamed into it.

use super::{Store, blocking, lock, random_name};
use crate::{
    compression::{Compression, sniff},
    digest::{Digest, Hasher},
    error::{Error, Result},
    manifest::Descriptor,
    store::{Progress, verify},
    unpack::{self, Options, Unpacked},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc as threads,
    },
};
use tokio::sync::mpsc;

/// *Unit:* bytes handed from the thread that decompresses to the one that writes files.
const CHUNK_BYTES: usize = 256 << 10;
/// *Unit:* compressed bytes between two progress lines.
const PROGRESS_BYTES: u64 = 512 << 10;

/// Beside each unpacked layer: which one it is.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    diff_id: Digest,
    size_bytes: u64,
    entries: u64,
}

/// Flushes the file system once for all who ask meanwhile.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    asked: AtomicU64,
    done: Mutex<u64>,
}

impl Flusher {
    fn flush(&self, path: &Path) -> io::Result<()> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = lock(&self.done);
        if *done >= mine {
            return Ok(());
        }
        let covered = self.asked.load(Ordering::SeqCst);
        unpack::sync_file_system(path)?;
        *done = covered;
        Ok(())
    }
}

impl Store {
    pub(super) fn layer_directory(&self, diff_id: &Digest) -> PathBuf {
        self.layers_directory().join(&diff_id.hex()[..24])
    }

    /// Makes sure that a layer whose blob is here is unpacked; returns its unpacked size.
    pub(crate) async fn unpack_layer(
        &self,
        blob: &Descriptor,
        diff_id: Digest,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<u64> {
        let gate = self.gate(diff_id);
        let _gate = gate.lock().await;
        let place = self.layer_directory(&diff_id);
        if let Some(size) = unpacked_size(&place, diff_id)? {
            return Ok(size);
        }
        let _permit = self.inner.unpackers.acquire().await.expect("the semaphore is never closed");
        let (store, blob, progress) = (self.clone(), blob.clone(), progress.clone());
        blocking(move || store.unpack_blocking(&blob, diff_id, &place, &progress)).await
    }

    fn unpack_blocking(
        &self,
        blob: &Descriptor,
        diff_id: Digest,
        place: &Path,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<u64> {
        let work = self.layers_directory().join(format!(".new-{}", random_name()));
        let made = self.unpack_into(blob, diff_id, &work, progress).and_then(|size| {
            self.inner.flusher.flush(&work).map_err(Error::io("sync", &work))?;
            match fs::rename(&work, place) {
                // Someone whose caller went away meanwhile was first.
                Err(_) if unpacked_size(place, diff_id)?.is_some() => remove_directory(&work)?,
                renamed => renamed.map_err(Error::io("move", &work))?,
            }
            sys::durable::sync_folder(&self.layers_directory()).map_err(Error::io("sync", place))?;
            Ok(size)
        });
        if made.is_err() && work.exists() {
            remove_directory(&work)?;
        }
        made
    }

    fn unpack_into(
        &self,
        blob: &Descriptor,
        diff_id: Digest,
        work: &Path,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<u64> {
        let target = work.join("diff");
        fs::create_dir_all(&target).map_err(Error::io("make", &target))?;
        let path = self.blobs().path(&blob.digest);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let stored_bytes = file.metadata().map_err(Error::io("open", &path))?.len();
        let layer = diff_id.short();
        let options = Options { squash: self.squash(), stored_bytes };
        let counted = Counted { file, read: 0, told: 0, total: stored_bytes, id: blob.short(), progress };
        let (done, found) = unpack_stream(counted, &target, options, &layer)?;
        verify("layer", diff_id, found)?;
        if done.skipped_devices > 0 {
            tracing::warn!(
                layer,
                count = done.skipped_devices,
                "device nodes left out: only real root can make them"
            );
        }
        if done.skipped_xattrs > 0 {
            tracing::debug!(layer, count = done.skipped_xattrs, "extended attributes left out");
        }
        let note = Note { diff_id, size_bytes: done.bytes, entries: done.entries };
        let note_path = work.join("layer.json");
        let text = serde_json::to_vec(&note).map_err(|e| Error::io("write", &note_path)(e.into()))?;
        fs::write(&note_path, text).map_err(Error::io("write", &note_path))?;
        Ok(done.bytes)
    }
}

/// Decompresses and hashes on one thread, unpacks on this one.
fn unpack_stream(
    stored: impl Read + Send,
    into: &Path,
    options: Options,
    layer: &str,
) -> Result<(Unpacked, Digest)> {
    let (sender, receiver) = threads::sync_channel::<io::Result<Vec<u8>>>(8);
    std::thread::scope(|scope| {
        let decompressor = scope.spawn(move || decompress(stored, &sender));
        let unpacked = unpack::unpack(Chunks { receiver, chunk: io::Cursor::default() }, into, options);
        // The receiver is gone by now, so the other thread ends.
        let digest = decompressor.join().expect("decompression does not panic");
        let digest = digest?;
        let failed = |failure: unpack::UnpackError| match failure.source.kind() {
            io::ErrorKind::InvalidData if failure.source.to_string().starts_with("layer ") => {
                Error::TooLarge { layer: layer.to_owned(), reason: failure.source.to_string() }
            }
            _ => Error::Unpack { layer: layer.to_owned(), entry: failure.entry, source: failure.source },
        };
        Ok((unpacked.map_err(failed)?, digest))
    })
}

/// Returns the digest of all decompressed bytes. Read errors go down the channel, where the unpacker finds them.
fn decompress(stored: impl Read + Send, chunks: &threads::SyncSender<io::Result<Vec<u8>>>) -> Result<Digest> {
    let mut hasher = Hasher::default();
    let (head, stored) = sniff(stored).map_err(Error::Archive)?;
    let mut plain = Compression::of(&head).reader(stored).map_err(Error::Archive)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut plain).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        let end = chunk.is_empty() || read.is_err();
        hasher.update(&chunk);
        if chunks.send(read.map(|_| chunk)).is_err() || end {
            return Ok(hasher.finish());
        }
    }
}

/// Reads what the other thread sends; an empty chunk is the end.
struct Chunks {
    receiver: threads::Receiver<io::Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.position() == self.chunk.get_ref().len() as u64 {
            match self.receiver.recv() {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk?),
                Err(_) => return Ok(0),
            }
        }
        self.chunk.read(buffer)
    }
}

/// Counts compressed bytes for the progress line.
struct Counted<'a> {
    file: File,
    read: u64,
    told: u64,
    total: u64,
    id: String,
    progress: &'a mpsc::Sender<Progress>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        if self.read >= self.told + PROGRESS_BYTES || (self.read == self.total && self.told < self.total) {
            self.told = self.read;
            Progress::hint(self.progress, &self.id, "Extracting", self.read, self.total);
        }
        Ok(count)
    }
}

/// Returns the size of the layer unpacked there; `None` if there is none.
fn unpacked_size(place: &Path, diff_id: Digest) -> Result<Option<u64>> {
    if !place.exists() {
        return Ok(None);
    }
    match noted_size(place, diff_id) {
        Ok(size) => Ok(Some(size)),
        Err(error @ Error::DigestMismatch { .. }) => Err(error),
        Err(error) => {
            // Nothing there can be trusted. Containers that have it mounted keep it until the next start.
            tracing::error!(path = %place.display(), %error, "a layer's note is damaged: it is unpacked again");
            let aside = place.with_file_name(format!(".damaged-{}", random_name()));
            fs::rename(place, &aside).map_err(Error::io("move", place))?;
            Ok(None)
        }
    }
}

/// Returns the size that the note of an unpacked layer tells.
pub(super) fn noted_size(place: &Path, diff_id: Digest) -> Result<u64> {
    let path = place.join("layer.json");
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    let note: Note = serde_json::from_slice(&text).map_err(|e| Error::io("read", &path)(e.into()))?;
    verify("unpacked layer", diff_id, note.diff_id)?;
    Ok(note.size_bytes)
}

pub(super) fn remove_directory(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(Error::io("remove", path))
}
