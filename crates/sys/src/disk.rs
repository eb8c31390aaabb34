//! A disk as those see it who must not lose what they have promised: what changes on it goes through here, so that a
//! test can put another one in its place, which forgets what was not synced. Reading goes to the files as ever.
//!
//! *Source:* open(2), pwrite(2), ftruncate(2), fsync(2), rename(2), unlink(2).

use std::{fmt::Debug, fs, io, os::unix::fs::OpenOptionsExt as _, path::Path};

/// What changes on a disk. All of it blocks.
pub trait Disk: Debug + Send + Sync {
    /// Makes an empty file, whatever was under its name. A link that somebody put there is not followed. `mode`:
    /// permission bits of a new file.
    ///
    /// # Errors
    /// The disk refuses.
    fn make(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Open>>;

    /// Opens a file that is there, to write to it.
    ///
    /// # Errors
    /// There is none, or the disk refuses.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Open>>;

    /// Gives a file another name, at which there may be one already.
    ///
    /// # Errors
    /// The disk refuses; both names are as they were.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// There is none, or the disk refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable: files that were made, renamed or removed in it.
    ///
    /// # Errors
    /// The disk refuses: nobody knows which names are durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Tells whether nobody has to wait for it: it may be written to by who has others to serve. Only a disk of a
    /// simulation is so, in which everything happens on one thread.
    fn is_at_once(&self) -> bool {
        false
    }
}

/// A file that is open for writing.
pub trait Open: Debug + Send + Sync {
    /// Writes all bytes from an offset on. *Unit:* bytes.
    ///
    /// # Errors
    /// The disk refuses; a part may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file off, or lengthens it with zeros. *Unit:* bytes.
    ///
    /// # Errors
    /// The disk refuses.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes its contents and its length durable.
    ///
    /// # Errors
    /// The disk refuses: nobody knows what of the file is durable, nor will another call tell.
    fn sync_all(&self) -> io::Result<()>;

    /// Makes its contents durable, and what of its length is needed to read them.
    ///
    /// # Errors
    /// As [`Self::sync_all`].
    fn sync_data(&self) -> io::Result<()>;
}

/// The kernel's disks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Os;

impl Disk for Os {
    fn make(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Open>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
        Ok(Box::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Open>> {
        Ok(Box::new(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }
}

impl Open for fs::File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

/// Writes a file from its beginning to its end.
#[derive(Debug)]
pub struct InOrder {
    file: Box<dyn Open>,
    /// *Unit:* bytes.
    written: u64,
}

impl InOrder {
    /// Goes on at the beginning of an empty file.
    pub fn new(file: Box<dyn Open>) -> Self {
        Self { file, written: 0 }
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// As [`Open::sync_all`].
    pub fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl io::Write for InOrder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
