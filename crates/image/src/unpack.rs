//! Unpacks one layer's tar into an empty directory, and never anywhere else.
//!
//! Every path is opened with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)` from a descriptor of that directory, and
//! the last component is made with calls that do not follow links: `..`, absolute links and swapped symlinks stay
//! inside. What a lower layer lost (`.wh.x`) becomes overlayfs' own mark, a character device 0:0; a directory that
//! hides all below it (`.wh..wh..opq`) gets the opaque attribute. *Source:* OCI image-spec `layer.md`, kernel
//! Documentation/filesystems/overlayfs.rst.

use crate::tarball::{self, Entry};
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
};
use tar::EntryType;

/// *Unit:* bytes that may always be unpacked, however small the archive.
const FREE_BYTES: u64 = 2 << 30;
/// How much larger than its compressed form a layer may be beyond that.
const MAX_RATIO: u64 = 200;
const MAX_ENTRIES: u64 = 8 << 20;
/// *Unit:* bytes of disk that an unpack leaves to others.
const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// *Unit:* bytes between two looks at the disk.
const DISK_CHECK_BYTES: u64 = 64 << 20;

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// One uid is all there is: no chown, no devices, `user.overlay.*`.
    pub(crate) squash: bool,
    /// *Unit:* bytes of the archive as stored; bounds what it may grow to.
    pub(crate) stored_bytes: u64,
}

/// What came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// *Unit:* bytes of regular files.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Device nodes left out because only real root may make them.
    pub(crate) skipped_devices: u64,
    /// Attributes this file system or user cannot hold.
    pub(crate) skipped_xattrs: u64,
}

/// Why it did not come out.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Path in the layer, or what was being done.
    pub(crate) entry: String,
    pub(crate) source: io::Error,
}

struct Unpacker {
    root: OwnedFd,
    options: Options,
    done: Unpacked,
    /// Directory of the entry before: most entries follow a sibling.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Set last, because making children changes them.
    directory_times: Vec<(Vec<u8>, Timestamps)>,
    unchecked_bytes: u64,
}

/// Unpacks `tar` into the directory `into` and reads the stream to its end.
///
/// # Errors
/// Whatever is there by then stays; the caller throws the directory away.
pub(crate) fn unpack(tar: impl Read, into: &Path, options: Options) -> Result<Unpacked, Failure> {
    let at = |entry: &str| {
        let entry = entry.to_owned();
        move |source: io::Error| Failure { entry, source }
    };
    let root = rustix::fs::open(into, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|e| at("layer directory")(e.into()))?;
    let mut unpacker = Unpacker {
        root,
        options,
        done: Unpacked::default(),
        last_parent: None,
        directory_times: Vec::new(),
        unchecked_bytes: 0,
    };
    unpacker.check_disk(0).map_err(at("disk"))?;
    let mut reader = tarball::Reader::new(tar);
    while let Some(entry) = reader.next_entry().map_err(at("tar stream"))? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        unpacker
            .entry(&entry, &mut reader)
            .map_err(|source| Failure { entry: format!("{name:?}"), source })?;
    }
    reader.drain().map_err(at("tar stream"))?;
    unpacker.finish().map_err(at("directory times"))?;
    Ok(unpacker.done)
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

/// Returns the path relative to the root, without `.` and `..`; the root itself is empty.
fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or_else(|| refused("path leaves the layer"))?),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, data: &mut impl Read) -> io::Result<()> {
        self.done.entries += 1;
        if self.done.entries > MAX_ENTRIES {
            return Err(refused("layer has too many entries"));
        }
        let path = clean(&entry.path)?;
        if path.is_empty() {
            return if entry.kind.is_dir() {
                self.root_metadata(entry)
            } else {
                Err(refused("entry has no name"))
            };
        }
        let (parent_path, name) = split_last(&path);
        let parent = self.parent(parent_path)?;
        if let Some(gone) = name.strip_prefix(b".wh.") {
            self.whiteout(&parent, gone)?;
        } else {
            self.make(entry, &path, &parent, name, data)?;
        }
        Ok(())
    }

    fn make(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        data: &mut impl Read,
    ) -> io::Result<()> {
        match entry.kind {
            EntryType::Directory => {
                self.directory(parent, name)?;
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
                self.metadata(entry, parent, name)?;
                self.xattrs(entry, &made)?;
                self.directory_times.push((path.to_vec(), times(entry)));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.clear(parent, name)?;
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
                let file = self.content(entry, File::from(file), data)?;
                self.metadata(entry, parent, name)?;
                self.xattrs(entry, file.as_fd())?;
            }
            EntryType::Link => {
                self.clear(parent, name)?;
                // The other name has set everything already, and is shared.
                return self.hard_link(entry, parent, name);
            }
            EntryType::Symlink => {
                if entry.link.is_empty() {
                    return Err(refused("symlink without a target"));
                }
                self.clear(parent, name)?;
                rustix::fs::symlinkat(&*entry.link, parent, name)?;
                self.owner(entry, parent, name)?;
                self.done.skipped_xattrs += entry.xattrs.len() as u64;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                if self.options.squash && entry.kind != EntryType::Fifo {
                    self.done.skipped_devices += 1;
                    return Ok(());
                }
                let (kind, device) = match entry.kind {
                    EntryType::Char => (FileType::CharacterDevice, entry.device),
                    EntryType::Block => (FileType::BlockDevice, entry.device),
                    _ => (FileType::Fifo, (0, 0)),
                };
                self.clear(parent, name)?;
                let device = rustix::fs::makedev(device.0, device.1);
                rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?;
                self.metadata(entry, parent, name)?;
                self.done.skipped_xattrs += entry.xattrs.len() as u64;
            }
            other => return Err(refused(&format!("unknown entry type {:?}", char::from(other.as_byte())))),
        }
        rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Returns the directory at `path`, made with all its parents if it is not there.
    fn parent(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if let Some((cached, fd)) = &self.last_parent
            && cached == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.open_directory(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => {
                let (above, name) = split_last(path);
                let above = self.parent(above)?;
                self.directory(&above, name)?;
                self.open_directory(path)?
            }
            Err(e) => return Err(e.into()),
        };
        let fd = Rc::new(fd);
        self.last_parent = Some((path.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // A rename elsewhere on the system raced with `..`: the kernel wants another try.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Makes a directory, or keeps the one that is there. Over a whiteout it hides what is below.
    fn directory(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            stat => Some(stat?),
        };
        let opaque = match there {
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => return Ok(()),
            Some(stat) => {
                self.clear(parent, name)?;
                is_whiteout(&stat)
            }
            None => false,
        };
        rustix::fs::mkdirat(parent, name, mode)?;
        if opaque { self.opaque(parent, name) } else { Ok(()) }
    }

    /// Takes away what this layer put there before.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => remove_tree(parent, name, 0)?,
            Err(e) => return Err(e.into()),
        }
        self.last_parent = None;
        Ok(())
    }

    fn whiteout(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match name {
            b".wh..opq" => return self.opaque(parent, b"."),
            b"" | b"." | b".." => return Err(refused("whiteout without a name")),
            // aufs' own files.
            name if name.starts_with(b".wh.") => return Ok(()),
            _ => {}
        }
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                let device = rustix::fs::makedev(0, 0);
                rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), device)?;
                Ok(())
            }
            // It hides what lower layers have, not what this layer puts there.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => self.opaque(parent, name),
            Ok(_) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn opaque(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let attribute = opaque_attribute(self.options.squash);
        Ok(rustix::fs::fsetxattr(&directory, attribute, b"y", XattrFlags::empty())?)
    }

    fn hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let target = clean(&entry.link).map_err(|_| refused("hard link leaves the layer"))?;
        let (above, last) = split_last(&target);
        if last.is_empty() {
            return Err(refused("hard link without a target"));
        }
        let above = self.open_directory(above)?;
        match rustix::fs::linkat(&above, last, parent, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(refused("hard link to a file that is not in the layer")),
            other => Ok(other?),
        }
    }

    fn content(&mut self, entry: &Entry, mut file: File, data: &mut impl Read) -> io::Result<File> {
        let mut buffer = vec![0; 128 << 10];
        let whole = [(0, entry.size)];
        for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
            if entry.sparse.is_some() {
                file.seek(SeekFrom::Start(*offset))?;
            }
            let mut left = *length;
            self.check_disk(left)?;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let count = data.read(&mut buffer[..most])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                file.write_all(&buffer[..count])?;
                left -= count as u64;
                self.count(count as u64)?;
            }
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size)?;
        }
        Ok(file)
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.done.bytes += bytes;
        let most = FREE_BYTES.saturating_add(self.options.stored_bytes.saturating_mul(MAX_RATIO));
        if self.done.bytes > most {
            return Err(refused(&format!(
                "layer unpacks to more than {most} bytes, {MAX_RATIO} times its size"
            )));
        }
        self.unchecked_bytes += bytes;
        if self.unchecked_bytes < DISK_CHECK_BYTES {
            return Ok(());
        }
        self.check_disk(0)
    }

    /// Refuses before the disk is full to the brim, which would hurt everyone else on it.
    fn check_disk(&mut self, wanted: u64) -> io::Result<()> {
        if wanted > 0 && wanted < DISK_CHECK_BYTES {
            return Ok(());
        }
        self.unchecked_bytes = 0;
        let stat = rustix::fs::fstatvfs(&self.root)?;
        // A small disk (a test's tmpfs) cannot spare as much.
        let reserve = DISK_RESERVE_BYTES.min(stat.f_blocks * stat.f_frsize / 64);
        let free = stat.f_bavail * stat.f_frsize;
        if stat.f_blocks > 0 && free < wanted.saturating_add(reserve) {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    fn root_metadata(&mut self, entry: &Entry) -> io::Result<()> {
        let root = rustix::fs::openat(&self.root, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        self.metadata(entry, &root, b".")?;
        self.xattrs(entry, &root)?;
        self.directory_times.push((Vec::new(), times(entry)));
        Ok(())
    }

    fn owner(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if self.options.squash {
            return Ok(());
        }
        let id = |id: u64| {
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| refused("owner is out of range"))
        };
        let (uid, gid) = (Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?));
        Ok(rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Owner before mode: chown takes setuid away. Never called for symlinks.
    fn metadata(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.owner(entry, parent, name)?;
        Ok(rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode & 0o7777), AtFlags::empty())?)
    }

    fn xattrs(&mut self, entry: &Entry, file: impl AsFd) -> io::Result<()> {
        for (name, value) in &entry.xattrs {
            // A layer that speaks overlayfs could reach into other layers (redirect) or hide them.
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                return Err(refused("entry carries overlayfs attributes"));
            }
            match rustix::fs::fsetxattr(&file, &**name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP) => self.done.skipped_xattrs += 1,
                Err(Errno::PERM | Errno::INVAL) if self.options.squash => self.done.skipped_xattrs += 1,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        while let Some((path, times)) = self.directory_times.pop() {
            match self.open_directory(&path) {
                Ok(directory) => rustix::fs::futimens(&directory, &times)?,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Returns the attribute that makes a directory hide what is below it.
pub(crate) fn opaque_attribute(squash: bool) -> &'static str {
    if squash { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn remove_tree(parent: impl AsFd, name: &[u8], depth: u32) -> io::Result<()> {
    if depth > 4096 {
        return Err(refused("directories are nested too deeply"));
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    for child in rustix::fs::Dir::read_from(&directory)? {
        let child = child?;
        let name = child.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(&directory, name, depth + 1)?,
            other => other?,
        }
    }
    Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}

/// Flushes the file system that holds `path`.
pub(crate) fn sync_file_system(path: &Path) -> io::Result<()> {
    let directory = rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::syncfs(&directory)?)
}
