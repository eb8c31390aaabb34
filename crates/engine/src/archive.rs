//! Files in and out of containers: `docker cp`, `docker export`.
//!
//! A running container is reached through `/proc/<pid>/root`, one that is down through a detached overlay mount that
//! vanishes with its descriptor. Either way every path is resolved by `openat2(RESOLVE_IN_ROOT)`: a symlink in the
//! container can never lead to the host.

use crate::{
    container::Container,
    engine::Engine,
    error::{Error, Result},
    exec,
};
use model::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::io::{AsyncRead, DuplexStream};
use tokio_util::io::SyncIoBridge;

/// A tar as it is made.
pub type ArchiveReader = DuplexStream;

/// *Unit:* bytes on the way from the maker of a tar to its reader.
const PIPE: usize = 256 << 10;

/// What is at a path. Source: Docker API, header `X-Docker-Container-Path-Stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    pub name: String,
    pub size: u64,
    /// `st_mode`: kind and permission bits.
    pub mode: u32,
    pub modified_at: Timestamp,
    /// Of a symlink, else empty.
    pub link_target: String,
}

/// The root folder of a container, and what keeps it there.
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a folder as a root. Blocking.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(folder, flags, Mode::empty())? })
    }

    /// Opens the file tree. Blocking.
    fn open(container: &Container, folders: &[PathBuf], work: &Path) -> io::Result<Self> {
        let path_only = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Some(pid) = container.state.pid {
            let fd = rustix::fs::open(format!("/proc/{pid}/root"), path_only, Mode::empty())?;
            return Ok(Self { fd });
        }
        use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in &folders[1..] {
            rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", lower)?;
        }
        rustix::mount::fsconfig_set_string(fs.as_fd(), "upperdir", &folders[0])?;
        rustix::mount::fsconfig_set_string(fs.as_fd(), "workdir", work)?;
        rustix::mount::fsconfig_create(fs.as_fd())?;
        let fd = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Self { fd })
    }

    pub(crate) fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// Opens the folder that holds a path, and the last name. The name of `/` is empty.
    fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
        let parent = if name.is_empty() { path } else { path.parent().unwrap_or(Path::new("/")) };
        Ok((self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }
}

async fn with_root<T: Send + 'static>(
    engine: &Engine,
    container: Arc<Container>,
    path: String,
    work: impl FnOnce(Root, &Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let folders = exec::folders(engine, &container).await?;
    let work_dir = engine.inner.container_dir(&container.id).join("work");
    crate::blocking(move || {
        let result =
            Root::open(&container, &folders, &work_dir).and_then(|root| work(root, Path::new(&path)));
        result.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::NoSuchPath { container: container.name.clone(), path: path.clone() }
            }
            _ => Error::io("reach", &path)(e),
        })
    })
    .await
}

fn stat_at(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<rustix::fs::Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    Ok(rustix::fs::statat(parent, name, flags)?)
}

fn describe(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathStat> {
    let stat = stat_at(parent, name)?;
    let link = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => rustix::fs::readlinkat(parent, name, Vec::new())?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let shown = if name.is_empty() { "/".into() } else { name.to_string_lossy().into_owned() };
    Ok(PathStat {
        name: shown,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified_at: Timestamp(stat.st_mtime.saturating_mul(1_000_000_000)),
        link_target: link,
    })
}

pub(crate) async fn stat(engine: &Engine, container: Arc<Container>, path: String) -> Result<PathStat> {
    with_root(engine, container, path, |root, path| {
        let (parent, name) = root.parent(path)?;
        describe(parent.as_fd(), &name)
    })
    .await
}

pub(crate) async fn get(
    engine: &Engine,
    container: Arc<Container>,
    path: String,
) -> Result<(PathStat, ArchiveReader)> {
    let (reader, writer) = tokio::io::duplex(PIPE);
    let follow = path.ends_with("/.") || path.ends_with('/');
    let (stat, root, parent, name) = with_root(engine, container, path, move |root, path| {
        let (parent, name) = root.parent(path)?;
        // `dir/.` of a symlink means what it points to.
        if follow && !name.is_empty() {
            let folder = root.resolve(path, OFlags::PATH | OFlags::DIRECTORY)?;
            let mut stat = describe(folder.as_fd(), OsStr::new(""))?;
            stat.name = name.to_string_lossy().into_owned();
            return Ok((stat, root, folder, OsString::new()));
        }
        let stat = describe(parent.as_fd(), &name)?;
        Ok((stat, root, parent, name))
    })
    .await?;
    let shown = stat.name.clone();
    spawn_writer(engine, writer, move |out| {
        let _alive = root;
        let top = if shown == "/" { PathBuf::from("./") } else { PathBuf::from(shown) };
        append(out, parent.as_fd(), &name, &top)
    });
    Ok((stat, reader))
}

pub(crate) async fn export(engine: &Engine, container: Arc<Container>) -> Result<ArchiveReader> {
    let (reader, writer) = tokio::io::duplex(PIPE);
    let root = with_root(engine, container.clone(), "/".into(), |root, _| Ok(root)).await?;
    spawn_writer(engine, writer, move |out| {
        let folder = root.resolve(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY)?;
        append_children(out, &folder, Path::new(""), Some(device_of(&folder)?))
    });
    engine.publish(crate::owner::container_event(&container, "export", []));
    Ok(reader)
}

pub(crate) type TarOut = tar::Builder<SyncIoBridge<DuplexStream>>;

/// Returns a tar that `work` makes while it is read.
pub(crate) fn stream(
    engine: &Engine,
    work: impl FnOnce(&mut TarOut) -> io::Result<()> + Send + 'static,
) -> ArchiveReader {
    let (reader, writer) = tokio::io::duplex(PIPE);
    spawn_writer(engine, writer, work);
    reader
}

/// Appends an empty file.
pub(crate) fn append_empty(out: &mut TarOut, shown: &Path) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    out.append_data(&mut header, shown, io::empty())
}

/// Appends what is at `shown`, whose folder is `parent`; of a folder without what is in it.
pub(crate) fn append_one(out: &mut TarOut, parent: &OwnedFd, shown: &Path) -> io::Result<()> {
    // No file system has this number: the folder's children count as being on another one.
    append_on(out, parent.as_fd(), shown.file_name().unwrap_or_default(), shown, Some(u64::MAX))
}

/// Makes the tar on a thread of its own; an error ends the stream early, which readers of tars notice.
fn spawn_writer(
    engine: &Engine,
    writer: DuplexStream,
    work: impl FnOnce(&mut TarOut) -> io::Result<()> + Send + 'static,
) {
    let bridge = SyncIoBridge::new(writer);
    engine.inner.tasks.spawn_blocking(move || {
        let mut out = tar::Builder::new(bridge);
        let written = work(&mut out).and_then(|()| out.into_inner()?.flush());
        if let Err(e) = written {
            tracing::debug!(error = %e, "archive broke off");
        }
    });
}

fn device_of(folder: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(folder)?.st_dev)
}

fn header(stat: &rustix::fs::Stat) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

fn append(out: &mut TarOut, parent: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> io::Result<()> {
    append_on(out, parent, name, shown, None)
}

/// Appends one name and what is below it; with `device`, other file systems are left empty.
fn append_on(
    out: &mut TarOut,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    shown: &Path,
    device: Option<u64>,
) -> io::Result<()> {
    let stat = stat_at(parent, name)?;
    let mut header = header(&stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            let mut folder_name = shown.as_os_str().to_owned();
            if !folder_name.as_bytes().ends_with(b"/") {
                folder_name.push("/");
            }
            out.append_data(&mut header, &folder_name, io::empty())?;
            if device.is_some_and(|d| d != stat.st_dev) {
                return Ok(());
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let name = if name.is_empty() { OsStr::new(".") } else { name };
            let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            append_children(out, &folder, shown, device)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            header.set_size(size);
            // A file that shrinks or grows meanwhile must not break the archive.
            out.append_data(&mut header, shown, file.chain(io::repeat(0)).take(size))
        }
        FileType::Symlink => {
            header.set_entry_type(tar::EntryType::Symlink);
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            out.append_link(&mut header, shown, OsStr::from_bytes(target.as_bytes()))
        }
        kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
            header.set_entry_type(match kind {
                FileType::CharacterDevice => tar::EntryType::Char,
                FileType::BlockDevice => tar::EntryType::Block,
                _ => tar::EntryType::Fifo,
            });
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
            out.append_data(&mut header, shown, io::empty())
        }
        FileType::Socket | FileType::Unknown => Ok(()),
    }
}

fn append_children(out: &mut TarOut, folder: &OwnedFd, shown: &Path, device: Option<u64>) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    for name in names {
        let shown = if shown == Path::new("./") { PathBuf::from(&name) } else { shown.join(&name) };
        match append_on(out, folder.as_fd(), &name, &shown, device) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
            other => other?,
        }
    }
    Ok(())
}

pub(crate) async fn put(
    engine: &Engine,
    container: Arc<Container>,
    path: String,
    tar: impl AsyncRead + Send + Unpin + 'static,
    keep_type: bool,
) -> Result<()> {
    if container.config.host.read_only {
        return Err(Error::Conflict("container rootfs is marked read-only".into()));
    }
    let squash = engine.inner.userns_squash;
    let bridge = SyncIoBridge::new(tar);
    let event = crate::owner::container_event(&container, "extract-to-dir", []);
    with_root(engine, container, path, move |root, path| {
        let target = root.resolve(path, OFlags::PATH | OFlags::DIRECTORY)?;
        unpack(&Root { fd: target }, bridge, keep_type, squash)
    })
    .await?;
    engine.publish(event);
    Ok(())
}

/// Unpacks below a folder; no entry can get out of it.
pub(crate) fn unpack(target: &Root, tar: impl Read, keep_type: bool, squash: bool) -> io::Result<()> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let (parent, name) = make_parents(target, &path)?;
        if name.is_empty() || name == "." {
            continue;
        }
        let kind = entry.header().entry_type();
        replace(&parent, &name, kind.is_dir(), keep_type)?;
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        let owner = (entry.header().uid()?, entry.header().gid()?);
        if kind.is_dir() {
            match rustix::fs::mkdirat(&parent, &name, mode) {
                Err(rustix::io::Errno::EXIST) => {}
                other => other?,
            }
        } else if kind.is_file() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&parent, &name, flags, mode)?);
            io::copy(&mut entry, &mut file)?;
        } else if kind.is_symlink() {
            let to = entry.link_name()?.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            rustix::fs::symlinkat(to.as_os_str(), &parent, &name)?;
        } else if kind.is_hard_link() {
            let to = entry.link_name()?.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            let (folder, old) = target.parent(&Path::new("/").join(to))?;
            rustix::fs::linkat(&folder, &old, &parent, &name, AtFlags::empty())?;
            continue;
        } else {
            continue; // devices and pipes are not copied in
        }
        set_attributes(&parent, &name, &entry, mode, owner, squash)?;
    }
    Ok(())
}

fn set_attributes<R: Read>(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &tar::Entry<'_, R>,
    mode: Mode,
    (uid, gid): (u64, u64),
    squash: bool,
) -> io::Result<()> {
    let number = |n: u64| u32::try_from(n).unwrap_or(0);
    if !squash {
        let (uid, gid) = (rustix::fs::Uid::from_raw(number(uid)), rustix::fs::Gid::from_raw(number(gid)));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if !entry.header().entry_type().is_symlink() {
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
    }
    let seconds = i64::try_from(entry.header().mtime()?).unwrap_or(0);
    let at = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Opens the folder an entry goes into, making folders on the way.
fn make_parents(target: &Root, path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let full = Path::new("/").join(path);
    let name = full.file_name().map(OsStr::to_owned).unwrap_or_default();
    let mut so_far = PathBuf::from("/");
    let mut folder = target.resolve(&so_far, OFlags::PATH | OFlags::DIRECTORY)?;
    for part in full.parent().into_iter().flat_map(Path::components).skip(1) {
        so_far.push(part);
        folder = match target.resolve(&so_far, OFlags::PATH | OFlags::DIRECTORY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                rustix::fs::mkdirat(&folder, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                target.resolve(&so_far, OFlags::PATH | OFlags::DIRECTORY)?
            }
            other => other?,
        };
    }
    Ok((folder, name))
}

/// Makes room for an entry.
fn replace(parent: &OwnedFd, name: &OsStr, folder_comes: bool, keep_type: bool) -> io::Result<()> {
    let stat = match stat_at(parent.as_fd(), name) {
        Ok(stat) => stat,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    match (is_folder, folder_comes) {
        (true, true) => Ok(()),
        (true, false) | (false, true) if keep_type => Err(io::Error::other(format!(
            "cannot overwrite {} with {}",
            if is_folder { "directory" } else { "non-directory" },
            if folder_comes { "directory" } else { "non-directory" }
        ))),
        (true, false) => {
            let path = format!("/proc/self/fd/{}", parent.as_raw_fd());
            std::fs::remove_dir_all(Path::new(&path).join(name))
        }
        (false, _) => Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(path: &Path) -> Root {
        Root::of(path).unwrap()
    }

    fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o640);
            header.set_uid(0);
            header.set_gid(0);
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            out.append(&header, content.as_bytes()).unwrap();
        }
        out.into_inner().unwrap()
    }

    #[test]
    fn entries_never_leave_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        let outside = dir.path().join("out");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let tar = tar_of(&[("a/b/c", "deep"), ("../escape", "no"), ("link/x", "no")]);
        unpack(&root(&inside), tar.as_slice(), false, true).unwrap_err(); // `link` points to nothing inside
        assert_eq!(std::fs::read_to_string(inside.join("a/b/c")).unwrap(), "deep");
        assert!(!dir.path().join("escape").exists());
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_is_not_replaced_by_a_file_when_types_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let tar = tar_of(&[("d", "file")]);
        assert!(unpack(&root(dir.path()), tar.as_slice(), true, true).is_err());
        unpack(&root(dir.path()), tar.as_slice(), false, true).unwrap();
        assert!(dir.path().join("d").is_file());
    }
}
