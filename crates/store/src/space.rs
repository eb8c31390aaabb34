//! Room on the disk. A disk that is full must not surprise the log: a snapshot is refused before it takes the last
//! room, and a file of zeros keeps some for the log, which gives it up when there is no other.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What a snapshot leaves free. *Unit:* bytes.
const SNAPSHOT_LEAVES: u64 = 8 << 20;
/// A reserve that was given up is put back once there is this much more than it takes. *Unit:* bytes.
const BEFORE_RESERVE: u64 = 8 << 20;

/// Tells whether an error means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns the bytes that may still be written to the file system of `dir`.
fn free(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Allows a snapshot another `bytes`.
///
/// # Errors
/// `StorageFull`: the log would be left with too little.
pub(crate) fn admit_snapshot(dir: &Path, bytes: u64) -> io::Result<()> {
    let free = free(dir)?;
    if free >= bytes.saturating_add(SNAPSHOT_LEAVES) {
        return Ok(());
    }
    let text = format!(
        "{free} bytes are free in {}: less than a snapshot may use up; hint: free some, the next one is tried by itself",
        dir.display()
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

/// The file that keeps room for the log.
#[derive(Debug, Clone)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// 0: none is kept. *Unit:* bytes.
    bytes: u64,
}

impl Reserve {
    /// `bytes` of the file system of `dir`.
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        Self { path: dir.join("reserve"), bytes }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the room aside; nothing if it is already. Blocks.
    ///
    /// # Errors
    /// There is not enough: none of it is taken then.
    pub(crate) fn keep(&self) -> io::Result<()> {
        if self.bytes == 0 || fs::metadata(&self.path).is_ok_and(|m| m.len() == self.bytes) {
            return Ok(());
        }
        self.take_room().inspect_err(|_| drop(fs::remove_file(&self.path)))
    }

    fn take_room(&self) -> io::Result<()> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let zeros = io::Read::take(io::repeat(0), self.bytes);
                io::copy(&mut { zeros }, &mut &file)?;
            }
            outcome => outcome?,
        }
        file.sync_all()?;
        sys::durable::sync_folder(self.path.parent().unwrap_or(Path::new(".")))
    }

    /// Lets the log have the room; false if there is none (any more). Blocks.
    pub(crate) fn give_up(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }

    /// Tells whether the room is set aside.
    pub(crate) fn is_kept(&self) -> bool {
        self.bytes == 0 || self.path.exists()
    }

    /// Sets the room aside again once there is enough beside it; returns whether it is. Blocks.
    pub(crate) fn restore(&self) -> bool {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        self.is_kept()
            || (free(dir).is_ok_and(|free| free >= self.bytes.saturating_add(BEFORE_RESERVE))
                && self.keep().is_ok())
    }
}
