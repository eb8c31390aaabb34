//! Unpacks a tar below one directory, and never anywhere else: a layer's into an empty one, anybody's into one that is
//! in use (the files of a container or a volume).
//!
//! Every path is opened with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)` from a descriptor of that directory, and
//! the last component is made with calls that do not follow links, then changed through its descriptor: `..`, absolute
//! links and symlinks that somebody swaps in meanwhile stay inside.
//!
//! Of a layer, what a lower one lost (`.wh.x`) becomes overlayfs' own mark, a character device 0:0; a directory that
//! hides all below it (`.wh..wh..opq`) gets the opaque attribute. *Source:* OCI image-spec `layer.md`, kernel
//! Documentation/filesystems/overlayfs.rst; of other trees moby `pkg/archive`.

use crate::{
    compression::{Compression, sniff},
    remove::remove_at,
    tarball::{self, Entry},
};
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    rc::Rc,
};
use tar::EntryType;

/// *Unit:* bytes that may always be unpacked, however small the archive.
const FREE_BYTES: u64 = 2 << 30;
/// How much larger than its compressed form a layer may be beyond that.
const MAX_RATIO: u64 = 200;
const MAX_ENTRIES: u64 = 8 << 20;
/// Mode of directories that no entry describes.
const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o755);
/// *Unit:* bytes of disk that an unpack leaves to others.
const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// *Unit:* bytes between two looks at the disk.
const DISK_CHECK_BYTES: u64 = 64 << 20;

/// How to unpack a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// One uid is all there is: no chown, no devices, `user.overlay.*`.
    pub(crate) squash: bool,
    /// *Unit:* bytes of the archive as stored; bounds what it may grow to.
    pub(crate) stored_bytes: u64,
}

/// How [`unpack_tree`] treats a directory that may be in use.
#[derive(Debug, Clone, Copy, Default)]
pub struct TreeOptions {
    /// One uid is all there is: no chown, no devices.
    pub squash: bool,
    /// A directory never takes the place of another kind of file, nor the other way round.
    pub keep_type: bool,
    /// The archive is all that the directory will hold: its entry `.` describes the directory itself, a cut archive is
    /// an error even between two entries, and the disk is not filled to the brim.
    pub whole: bool,
}

/// Whose tar it is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// *Unit:* bytes of the layer as stored.
    Layer {
        stored_bytes: u64,
    },
    Tree {
        keep_type: bool,
        whole: bool,
    },
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
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack {entry}")]
pub struct UnpackError {
    /// Path in the archive, or what was being done.
    pub entry: String,
    /// `InvalidData` and `UnexpectedEof` are the archive's fault.
    #[source]
    pub source: io::Error,
}

struct Unpacker {
    root: OwnedFd,
    squash: bool,
    /// Where the owner of an entry, user and group, is on the disk; `None` = as the entry says.
    owners: Option<Box<Owners>>,
    kind: Kind,
    done: Unpacked,
    /// Directory of the entry before: most entries follow a sibling.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Set last, because making children changes them.
    directory_times: Vec<(Vec<u8>, Timestamps)>,
    unchecked_bytes: u64,
}

fn at(entry: &str) -> impl FnOnce(io::Error) -> UnpackError {
    move |source| UnpackError { entry: entry.to_owned(), source }
}

/// Unpacks a layer's `tar` into the directory `into` and reads the stream to its end.
///
/// # Errors
/// Whatever is there by then stays; the caller throws the directory away.
pub(crate) fn unpack(tar: impl Read, into: &Path, options: Options) -> Result<Unpacked, UnpackError> {
    let root = rustix::fs::open(into, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|e| at("layer directory")(e.into()))?;
    let kind = Kind::Layer { stored_bytes: options.stored_bytes };
    Unpacker::new(root, options.squash, kind).all(tar)
}

/// Unpacks a tar, plain or compressed, below an opened directory (`O_PATH` will do) and reads the stream to its end.
/// What has the name of an entry is replaced; directories are merged. Attributes that the file system or the user
/// cannot hold, overlayfs' own, and with `squash` device nodes are left out. Blocking.
///
/// *Source:* moby `pkg/archive`, `Unpack`.
///
/// # Errors
/// Whatever is there by then stays.
pub fn unpack_tree(tar: impl Read + Send, into: OwnedFd, options: TreeOptions) -> Result<(), UnpackError> {
    unpack_tree_for(tar, into, options, None)
}

/// User and group of an entry to those on the disk; `None` = they have no place there.
pub type Owners = dyn Fn(u32, u32) -> Option<(u32, u32)>;

/// As [`unpack_tree`], with the owners of entries turned into others.
///
/// # Errors
/// As there, and when one has no place on the disk.
pub fn unpack_tree_for(
    tar: impl Read + Send,
    into: OwnedFd,
    options: TreeOptions,
    owners: Option<Box<Owners>>,
) -> Result<(), UnpackError> {
    let (head, tar) = sniff(tar).map_err(at("the stream"))?;
    let compression = Compression::of(&head);
    let tar = compression.reader(tar).map_err(at("the stream"))?;
    let kind = Kind::Tree { keep_type: options.keep_type, whole: options.whole };
    let unpacker = Unpacker { owners, ..Unpacker::new(into, options.squash, kind) };
    let done = unpacker.all(tar)?;
    if done.skipped_devices > 0 || done.skipped_xattrs > 0 {
        let (devices, xattrs) = (done.skipped_devices, done.skipped_xattrs);
        tracing::debug!(devices, xattrs, "device nodes or attributes of an archive left out");
    }
    Ok(())
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
            b".." => drop(parts.pop().ok_or_else(|| refused("path leaves the archive"))?),
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
    fn new(root: OwnedFd, squash: bool, kind: Kind) -> Self {
        Self {
            root,
            squash,
            owners: None,
            kind,
            done: Unpacked::default(),
            last_parent: None,
            directory_times: Vec::new(),
            unchecked_bytes: 0,
        }
    }

    fn all(mut self, tar: impl Read) -> Result<Unpacked, UnpackError> {
        self.check_disk(0).map_err(at("disk"))?;
        let mut reader = tarball::Reader::new(tar);
        while let Some(entry) = reader.next_entry().map_err(at("tar stream"))? {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            self.entry(&entry, &mut reader)
                .map_err(|source| UnpackError { entry: format!("{name:?}"), source })?;
        }
        if matches!(self.kind, Kind::Tree { whole: true, .. }) && !reader.at_end_mark() {
            return Err(at("tar stream")(io::ErrorKind::UnexpectedEof.into()));
        }
        reader.drain().map_err(at("tar stream"))?;
        self.finish().map_err(at("directory times"))?;
        Ok(self.done)
    }

    fn is_layer(&self) -> bool {
        matches!(self.kind, Kind::Layer { .. })
    }

    fn entry(&mut self, entry: &Entry, data: &mut impl Read) -> io::Result<()> {
        self.done.entries += 1;
        if self.is_layer() && self.done.entries > MAX_ENTRIES {
            return Err(refused("layer has too many entries"));
        }
        let path = clean(&entry.path)?;
        if path.is_empty() {
            return match self.kind {
                _ if !entry.kind.is_dir() => Err(refused("entry has no name")),
                Kind::Tree { whole: false, .. } => Ok(()),
                Kind::Tree { whole: true, .. } | Kind::Layer { .. } => self.root_metadata(entry),
            };
        }
        let (parent_path, name) = split_last(&path);
        let parent = self.parent(parent_path)?;
        match name.strip_prefix(b".wh.").filter(|_| self.is_layer()) {
            Some(gone) => self.whiteout(&parent, gone),
            None => self.make(entry, &path, &parent, name, data),
        }
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
                self.metadata(entry, &made)?;
                self.directory_times.push((path.to_vec(), times(entry)));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.clear(parent, name)?;
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
                let file = self.content(entry, File::from(file), data)?;
                self.metadata(entry, &file)?;
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
                // As Docker counts. *Source:* containerd `continuity/fs.DiskUsage`, moby `directory.Size`.
                self.done.bytes += entry.link.len() as u64;
                self.owner(entry, parent, name)?;
                self.done.skipped_xattrs += entry.xattrs.len() as u64;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                if self.squash && entry.kind != EntryType::Fifo {
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
                self.owner(entry, parent, name)?;
                change_mode(entry, parent, name)?;
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
                if self.is_layer() {
                    self.directory(&above, name)?;
                } else {
                    // What is in the way was there before: it stays, and the entry has no place.
                    rustix::fs::mkdirat(&above, name, NEW_DIRECTORY).map_err(|errno| match errno {
                        Errno::EXIST => Errno::NOTDIR,
                        other => other,
                    })?;
                }
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
        let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            stat => Some(stat?),
        };
        let opaque = match there {
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => return Ok(()),
            Some(_) if self.keeps_type() => {
                return Err(io::Error::other("cannot overwrite non-directory with directory"));
            }
            Some(stat) => {
                self.clear(parent, name)?;
                self.is_layer() && is_whiteout(&stat)
            }
            None => false,
        };
        rustix::fs::mkdirat(parent, name, NEW_DIRECTORY)?;
        if opaque { self.opaque(parent, name) } else { Ok(()) }
    }

    fn keeps_type(&self) -> bool {
        matches!(self.kind, Kind::Tree { keep_type: true, .. })
    }

    /// Takes away what is there before something else than a directory comes.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) if self.keeps_type() => {
                return Err(io::Error::other("cannot overwrite directory with non-directory"));
            }
            Err(Errno::ISDIR) => remove_at(parent, OsStr::from_bytes(name))?,
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
        let attribute = opaque_attribute(self.squash);
        Ok(rustix::fs::fsetxattr(&directory, attribute, b"y", XattrFlags::empty())?)
    }

    fn hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let target = clean(&entry.link).map_err(|_| refused("hard link leaves the archive"))?;
        let (above, last) = split_last(&target);
        if last.is_empty() {
            return Err(refused("hard link without a target"));
        }
        let above = self.open_directory(above)?;
        match rustix::fs::linkat(&above, last, parent, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(refused("hard link to a file that is not there")),
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
        if let Kind::Layer { stored_bytes } = self.kind {
            let most = FREE_BYTES.saturating_add(stored_bytes.saturating_mul(MAX_RATIO));
            if self.done.bytes > most {
                return Err(refused(&format!(
                    "layer unpacks to more than {most} bytes, {MAX_RATIO} times its size"
                )));
            }
        }
        self.unchecked_bytes += bytes;
        if self.unchecked_bytes < DISK_CHECK_BYTES {
            return Ok(());
        }
        self.check_disk(0)
    }

    /// Refuses before the disk is full to the brim, which would hurt everyone else on it.
    fn check_disk(&mut self, wanted: u64) -> io::Result<()> {
        // Into a container's files a few bytes may go while the disk is nearly full: they may be what frees it.
        let few = wanted > 0 && wanted < DISK_CHECK_BYTES;
        if few || matches!(self.kind, Kind::Tree { whole: false, .. }) {
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
        self.metadata(entry, &root)?;
        self.directory_times.push((Vec::new(), times(entry)));
        Ok(())
    }

    fn owner_of(&self, entry: &Entry) -> io::Result<(Uid, Gid)> {
        let (uid, gid) = owner(entry)?;
        let Some(owners) = &self.owners else { return Ok((uid, gid)) };
        let there = owners(uid.as_raw(), gid.as_raw());
        let (uid, gid) = there.ok_or_else(|| refused("owner is not among the ids of the container"))?;
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn owner(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if self.squash {
            return Ok(());
        }
        let (uid, gid) = self.owner_of(entry)?;
        Ok(rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets what an opened file or directory has. Owner before mode and attributes: chown takes setuid and
    /// capabilities away.
    fn metadata(&mut self, entry: &Entry, file: impl AsFd) -> io::Result<()> {
        if !self.squash {
            let (uid, gid) = self.owner_of(entry)?;
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&file, mode(entry))?;
        self.xattrs(entry, file)
    }

    fn xattrs(&mut self, entry: &Entry, file: impl AsFd) -> io::Result<()> {
        for (name, value) in &entry.xattrs {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                // A layer that speaks overlayfs could reach into other layers (redirect) or hide them.
                if self.is_layer() {
                    return Err(refused("entry carries overlayfs attributes"));
                }
                self.done.skipped_xattrs += 1;
                continue;
            }
            match rustix::fs::fsetxattr(&file, &**name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP) => self.done.skipped_xattrs += 1,
                Err(Errno::PERM) if !self.is_layer() => self.done.skipped_xattrs += 1,
                Err(Errno::PERM | Errno::INVAL) if self.squash => self.done.skipped_xattrs += 1,
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

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

fn owner(entry: &Entry) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| {
        let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        id.ok_or_else(|| refused("owner is out of range"))
    };
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

/// Sets the mode of a device or fifo, which must not be opened, and whose name may have become a symlink, which
/// fchmodat(2) would follow, out of the root.
fn change_mode(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", node.as_raw_fd()), mode(entry))?)
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

/// Flushes the file system that holds `path`.
pub(crate) fn sync_file_system(path: &Path) -> io::Result<()> {
    let directory = rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::syncfs(&directory)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::MetadataExt, os::unix::fs::PermissionsExt, os::unix::fs::symlink};

    const TREE: TreeOptions = TreeOptions { squash: true, keep_type: false, whole: false };

    fn tar_of(entries: &[(EntryType, &str)]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (kind, path) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o700);
            header.set_size(0);
            out.append_data(&mut header, path, io::empty()).unwrap();
        }
        out.into_inner().unwrap()
    }

    fn into(folder: &Path, tar: &[u8], options: TreeOptions) -> Result<(), UnpackError> {
        unpack_tree(tar, fs::File::open(folder).unwrap().into(), options)
    }

    #[test]
    fn in_a_tree_whiteouts_are_files_and_the_folder_itself_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("kept"), "").unwrap();
        let tar = tar_of(&[
            (EntryType::Directory, "./"),
            (EntryType::Regular, ".wh.kept"),
            (EntryType::Regular, ".wh..wh..opq"),
        ]);
        into(dir.path(), &tar, TREE).unwrap();
        for file in ["kept", ".wh.kept", ".wh..wh..opq"] {
            assert!(dir.path().join(file).is_file(), "{file}");
        }
        assert_eq!(dir.path().metadata().unwrap().mode() & 0o777, 0o755);
        into(dir.path(), &tar, TreeOptions { whole: true, ..TREE }).unwrap();
        assert_eq!(dir.path().metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn in_a_tree_what_is_on_the_way_to_an_entry_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "kept").unwrap();
        symlink("nowhere", dir.path().join("link")).unwrap();
        for path in ["file/below", "link/below"] {
            let error = into(dir.path(), &tar_of(&[(EntryType::Regular, path)]), TREE).unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::NotADirectory, "{path}");
        }
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"kept");
        assert!(dir.path().join("link").is_symlink());
    }

    #[test]
    fn types_are_kept_if_asked() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("folder/sub")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let swapped = [(EntryType::Regular, "folder"), (EntryType::Directory, "file")];
        for entry in swapped {
            let error = into(dir.path(), &tar_of(&[entry]), TreeOptions { keep_type: true, ..TREE });
            let error = error.unwrap_err().source.to_string();
            assert!(error.starts_with("cannot overwrite"), "{error}");
        }
        into(dir.path(), &tar_of(&swapped), TREE).unwrap();
        assert!(dir.path().join("folder").is_file() && dir.path().join("file").is_dir());
    }

    #[test]
    fn a_whole_tree_has_to_come_whole_and_may_be_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let whole = TreeOptions { whole: true, ..TREE };
        let tar = tar_of(&[(EntryType::Regular, "a")]);
        into(dir.path(), &zstd::encode_all(tar.as_slice(), 1).unwrap(), whole).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        into(dir.path(), &gzip.finish().unwrap(), whole).unwrap();
        for (bytes, options, fits) in [(512, TREE, true), (512, whole, false), (300, TREE, false)] {
            assert_eq!(into(dir.path(), &tar[..bytes], options).is_ok(), fits, "{bytes} {options:?}");
        }
    }

    #[test]
    fn the_mode_of_a_node_is_never_set_through_a_link_that_took_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&outside, dir.path().join("node")).unwrap();
        let mut tar = tarball::Reader::new(io::Cursor::new(tar_of(&[(EntryType::Fifo, "node")])));
        let entry = tar.next_entry().unwrap().unwrap();
        let parent = fs::File::open(dir.path()).unwrap().into();
        // Some kernels refuse, some change the link; none follows it.
        change_mode(&entry, &parent, b"node").ok();
        assert_eq!(outside.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
