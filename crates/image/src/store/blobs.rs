//! Blobs on their way into the store: written under `ingest/`, moved to `blobs/sha256/` once their digest is right.

use crate::{
    digest::{Digest, Hasher},
    error::{Error, Result},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// *Limit* of a document (manifest, index, configuration): it is read into memory. *Unit:* bytes.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// Makes a folder that no other user of the host can look into, and those above it, if they are missing: what an image
/// has inside may be anybody's outside.
pub(crate) fn make_private(folder: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(Error::io("make", folder))
}

/// Where blobs live.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    complete: PathBuf,
    ingest: PathBuf,
}

impl Blobs {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let blobs = Self { complete: root.join("blobs/sha256"), ingest: root.join("ingest") };
        for directory in [&blobs.complete, &blobs.ingest] {
            make_private(directory)?;
        }
        Ok(blobs)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.complete
    }

    pub(crate) fn ingest_directory(&self) -> &Path {
        &self.ingest
    }

    /// Returns where the blob is or would be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.complete.join(digest.hex())
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Reads a document (manifest, configuration) and checks it.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let reason = format!("{digest} has more than {DOCUMENT_BYTES_MAX} bytes");
            return Err(Error::Unusable { what: "document", reason });
        }
        verify("blob", *digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Removes a document that is not what its name says.
    pub(super) fn discard(&self, digest: &Digest, damage: &Error) {
        let path = self.path(digest);
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if gone.is_ok() {
            tracing::error!(path = %path.display(), error = %damage, "a damaged blob is removed");
        }
    }

    /// Keeps a document.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut ingest = self.begin()?;
        ingest.write_all(bytes).map_err(Error::io("write", &ingest.path))?;
        ingest.commit(None)
    }

    /// Begins a blob of unknown digest.
    pub(crate) fn begin(&self) -> Result<Ingest> {
        let path = self.ingest.join(super::random_name());
        let file =
            OpenOptions::new().write(true).create_new(true).open(&path).map_err(Error::io("make", &path))?;
        Ok(Ingest { blobs: self.clone(), path, file, hasher: Hasher::default(), written: 0, keep: false })
    }

    /// Takes up (or begins) a download: what an earlier try wrote is hashed again and stays.
    pub(crate) fn resume(&self, digest: &Digest) -> Result<Ingest> {
        let path = self.ingest.join(format!("{}.part", digest.hex()));
        let open = || -> io::Result<(File, Hasher, u64)> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let (mut hasher, mut written) = (Hasher::default(), 0);
            let mut buffer = vec![0; 128 << 10];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok((file, hasher, written)),
                    count => {
                        hasher.update(&buffer[..count]);
                        written += count as u64;
                    }
                }
            }
        };
        let (file, hasher, written) = open().map_err(Error::io("open", &path))?;
        Ok(Ingest { blobs: self.clone(), path, file, hasher, written, keep: true })
    }
}

/// A blob being written. Dropped without commit it is gone, or kept for the next try if it is a resumable download.
#[derive(Debug)]
pub(crate) struct Ingest {
    blobs: Blobs,
    pub(crate) path: PathBuf,
    file: File,
    hasher: Hasher,
    /// *Unit:* bytes.
    pub(crate) written: u64,
    keep: bool,
}

impl Ingest {
    /// Returns the digest of what is written so far.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Reads what was written.
    pub(crate) fn reopen(&self) -> Result<File> {
        File::open(&self.path).map_err(Error::io("open", &self.path))
    }

    /// Throws away what was written, to begin anew.
    pub(crate) fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(Error::io("truncate", &self.path))?;
        self.hasher = Hasher::default();
        self.written = 0;
        Ok(())
    }

    /// Makes the blob complete and durable.
    ///
    /// # Errors
    /// The digest is not `expected` (what was written is thrown away); the disk.
    pub(crate) fn commit(mut self, expected: Option<Digest>) -> Result<Digest> {
        let found = self.digest();
        if let Some(expected) = expected
            && let Err(mismatch) = verify("blob", expected, found)
        {
            self.keep = false;
            return Err(mismatch);
        }
        let target = self.blobs.path(&found);
        if target.is_file() {
            self.keep = false;
            return Ok(found);
        }
        self.file.sync_all().map_err(Error::io("sync", &self.path))?;
        fs::rename(&self.path, &target).map_err(Error::io("move", &self.path))?;
        self.keep = true;
        sys::durable::sync_folder(&self.blobs.complete).map_err(Error::io("sync", &self.blobs.complete))?;
        Ok(found)
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a half-written blob");
        }
    }
}

pub(crate) fn verify(what: &'static str, expected: Digest, found: Digest) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::DigestMismatch { what, expected, found }) }
}
