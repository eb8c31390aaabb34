//! Files in and out of containers and volumes: `docker cp`, `docker export`, `rswarm volume export`.
//!
//! A tar keeps what a tar can keep: further names of a file are hard links, `user.*` attributes and capabilities are
//! PAX records. Sockets and holes are not kept. *Source:* moby `pkg/archive`.
//!
//! A running container is reached through `/proc/<pid>/root`, one that is down through mounts that vanish with their
//! descriptors ([`down_tree`]). Either way every path is resolved by `openat2(RESOLVE_IN_ROOT)`: a symlink in the
//! container can never lead to the host. What is found is held by a descriptor before it is looked at, so a name that
//! the container turns into something else meanwhile is still what it was.

use crate::{
    ask::config::LayerMount,
    error::{Error, Result},
    files::{
        below::names_in,
        down_tree, image_mounts,
        layers::{self, Layers},
    },
    inner::Inner,
    seen::container::Container,
    spec::users,
};
use model::Timestamp;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, DuplexStream, ReadBuf},
    sync::OwnedRwLockReadGuard,
};
use tokio_util::io::SyncIoBridge;

/// *Unit:* bytes on the way from the maker of a tar to its reader.
const PIPE: usize = 256 << 10;
/// How deep folders may be nested; each holds a descriptor while what is in it is read.
const DEPTH_MAX: usize = 4096;

/// A tar as it is made. Where its maker fails, reading fails: a cut tar is never taken for a whole one.
#[derive(Debug)]
pub struct ArchiveReader {
    pipe: DuplexStream,
    /// Set before the pipe is closed.
    outcome: Arc<OnceLock<io::Result<()>>>,
}

impl AsyncRead for ArchiveReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, space) = (buf.filled().len(), buf.remaining());
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        if space == 0 || buf.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match self.outcome.get() {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(io::Error::new(e.kind(), e.to_string())),
            None => Err(io::Error::other("the archive's maker has ended")),
        })
    }
}

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

/// How files are put into a container. Source: Docker API `PutContainerArchive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// A folder never replaces a file, nor the reverse.
    pub keep_type: bool,
    /// All is the container's user's, if it has one; else whose it is in the tar.
    pub of_the_user: bool,
}

/// The root folder of a container, and what keeps it there.
pub(crate) struct Root {
    fd: OwnedFd,
    /// Of a container that runs: the ids that its own are there. On the disk they are its own.
    ids: Option<runtime::IdMap>,
    /// Where the mounts are of one that is down.
    _namespace: Option<File>,
    /// Keeps one that is down from being started.
    _held: Option<OwnedRwLockReadGuard<()>>,
}

impl Root {
    /// Opens a folder as a root. Blocking.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: rustix::fs::open(folder, flags, Mode::empty())?,
            ids: None,
            _namespace: None,
            _held: None,
        })
    }

    /// Opens the file tree; `images`: what one that is down sees of other images. Blocking.
    fn open(
        container: &Container,
        folders: &[PathBuf],
        images: &[LayerMount],
        work: &Path,
    ) -> io::Result<Self> {
        let path_only = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Some(pid) = container.state.pid {
            let fd = rustix::fs::open(format!("/proc/{pid}/root"), path_only, Mode::empty())?;
            return Ok(Self { fd, ids: container.users.clone(), _namespace: None, _held: None });
        }
        let (fd, namespace) = down_tree::open(container, folders, images, work)?;
        Ok(Self { fd, ids: None, _namespace: Some(namespace), _held: None })
    }

    /// Opens the file tree of one that is down without what is mounted in it; of one that runs as [`Root::open`]. Blocking.
    fn open_bare(container: &Container, folders: &[PathBuf], work: &Path) -> io::Result<Self> {
        match container.state.pid {
            Some(_) => Self::open(container, folders, &[], work),
            None => {
                Ok(Self { fd: down_tree::overlay(folders, work)?, ids: None, _namespace: None, _held: None })
            }
        }
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

/// Returns a container as it is once it is not being started; one that is down is not started before what comes with it
/// is dropped.
async fn held(
    inner: &Inner,
    container: Arc<Container>,
) -> Result<(Arc<Container>, Option<OwnedRwLockReadGuard<()>>)> {
    if container.state.pid.is_some() {
        return Ok((container, None));
    }
    let held = inner.trees.look(&container.id).await;
    let now = inner.inspect(&container.id)?;
    let is_down = now.state.pid.is_none();
    Ok((now, is_down.then_some(held)))
}

async fn with_root<T: Send + 'static>(
    inner: &Arc<Inner>,
    container: Arc<Container>,
    path: String,
    work: impl FnOnce(Root, &Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let (container, held) = held(inner, container).await?;
    let folders = layers::of_container(inner, &container).await?;
    let images = match container.state.pid {
        Some(_) => Vec::new(),
        None => image_mounts::all(&inner.images, &container).await?,
    };
    let work_dir = inner.container_dir(&container.id).join("work");
    let inner = inner.clone();
    crate::blocking(move || {
        // Only until it is open: its mounts are copies.
        let user = format!("archive-{}", crate::random_id());
        let mut volumes = container.mounts.iter().filter_map(|m| inner.volumes.get(&m.name).ok());
        let mounted = volumes.try_for_each(|volume| inner.volumes.acquire(&volume, &user));
        let opened = mounted.map(|()| Root::open(&container, &folders, &images, &work_dir));
        inner.volumes.release(&user);
        let result = opened?.and_then(|root| work(Root { _held: held, ..root }, Path::new(&path)));
        result.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::NoSuchPath { container: container.name.clone(), path: path.clone() }
            }
            _ => match Errno::from_io_error(&e) {
                Some(Errno::INVAL | Errno::NAMETOOLONG | Errno::LOOP) => {
                    Error::invalid(format!("cannot reach {path:?} in container {}: {e}", container.name))
                }
                _ => Error::io("reach", &path)(e),
            },
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

pub(crate) async fn stat(inner: &Arc<Inner>, container: Arc<Container>, path: String) -> Result<PathStat> {
    with_root(inner, container, path, |root, path| {
        let (parent, name) = root.parent(path)?;
        describe(parent.as_fd(), &name)
    })
    .await
}

pub(crate) async fn get(
    inner: &Arc<Inner>,
    container: Arc<Container>,
    path: String,
) -> Result<(PathStat, ArchiveReader)> {
    let follow = path.ends_with("/.") || path.ends_with('/');
    let (stat, root, parent, name) = with_root(inner, container, path, move |root, path| {
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
    let reader = stream(inner, move |out| {
        let alive = root;
        out.get_mut().ids.clone_from(&alive.ids);
        let top = if shown == "/" { PathBuf::from("./") } else { PathBuf::from(shown) };
        append(out, parent.as_fd(), &name, &top, None)
    });
    Ok((stat, reader))
}

pub(crate) async fn export(inner: &Inner, container: Arc<Container>) -> Result<ArchiveReader> {
    let (container, held) = held(inner, container).await?;
    let folders = layers::of_container(inner, &container).await?;
    let work = inner.container_dir(&container.id).join("work");
    let opened = container.clone();
    let open = move || Root::open_bare(&opened, &folders, &work).map_err(Error::io("reach", "/"));
    let root = Root { _held: held, ..crate::blocking(open).await? };
    let reader = stream(inner, move |out| {
        out.get_mut().ids.clone_from(&root.ids);
        let folder = root.resolve(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let device = rustix::fs::fstat(&folder)?.st_dev;
        append_children(out, folder, Path::new(""), Some(device))
    });
    inner.publish(crate::seen::event::container_event(&container, "export", []));
    Ok(reader)
}

/// Returns a tar of a folder and all below it, to the nanosecond; the folder is its first entry, `./`.
pub(crate) fn whole(inner: &Inner, folder: Root) -> ArchiveReader {
    stream(inner, move |out| {
        out.get_mut().exact_times = true;
        append(out, folder.fd.as_fd(), OsStr::new(""), Path::new("./"), None)
    })
}

/// A tar that is being made.
pub(crate) type TarOut = tar::Builder<Output>;

/// Where a tar goes, and what is remembered while it is made.
pub(crate) struct Output {
    sink: Box<dyn Write + Send>,
    /// Of files with several names, by device and inode, the name they have in the tar.
    names: HashMap<(u64, u64), PathBuf>,
    /// Docker's archives have whole seconds.
    exact_times: bool,
    /// The ids that those in the tar are where it is made of.
    ids: Option<runtime::IdMap>,
}

impl Output {
    fn new(sink: impl Write + Send + 'static) -> Self {
        Self { sink: Box::new(sink), names: HashMap::new(), exact_times: false, ids: None }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Returns a tar that `work` makes, on a thread of its own, while it is read.
pub(crate) fn stream(
    inner: &Inner,
    work: impl FnOnce(&mut TarOut) -> io::Result<()> + Send + 'static,
) -> ArchiveReader {
    let (pipe, writer) = tokio::io::duplex(PIPE);
    let outcome = Arc::new(OnceLock::new());
    let reader = ArchiveReader { pipe, outcome: Arc::clone(&outcome) };
    let bridge = SyncIoBridge::new(writer);
    inner.tasks.spawn_blocking(move || {
        let mut out = tar::Builder::new(Output::new(bridge));
        let written = work(&mut out).and_then(|()| out.finish()).and_then(|()| out.get_mut().flush());
        if let Err(e) = &written {
            tracing::debug!(error = %e, "archive broke off");
        }
        // Set once, here.
        outcome.set(written).ok();
    });
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
    append_alone(out, parent.as_fd(), shown.file_name().unwrap_or_default(), shown).map(drop)
}

/// Appends one name (empty: the folder `parent` itself) and what is below it; with `device`, other file systems are
/// left empty.
fn append(
    out: &mut TarOut,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    shown: &Path,
    device: Option<u64>,
) -> io::Result<()> {
    match append_alone(out, parent, name, shown)? {
        Some(folder) => append_children(out, folder.open()?, shown, device),
        None => Ok(()),
    }
}

/// A folder that is in the tar, without what is in it.
struct Folder {
    place: OwnedFd,
    device: u64,
}

impl Folder {
    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.place, ".", flags, Mode::empty())?)
    }
}

/// A folder whose names are being appended.
struct Level {
    folder: OwnedFd,
    names: std::vec::IntoIter<OsString>,
}

impl Level {
    fn of(folder: OwnedFd) -> io::Result<Self> {
        let names = names_in(&folder)?;
        Ok(Self { folder, names: names.into_iter() })
    }
}

/// Appends all that is in a folder. No recursion: a container may nest its folders as deep as it likes.
fn append_children(out: &mut TarOut, folder: OwnedFd, shown: &Path, device: Option<u64>) -> io::Result<()> {
    let mut shown = if shown == Path::new("./") { PathBuf::new() } else { shown.to_owned() };
    let mut levels = vec![Level::of(folder)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            shown.pop();
            continue;
        };
        shown.push(&name);
        let deeper = match append_alone(out, level.folder.as_fd(), &name, &shown) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None, // removed meanwhile
            other => other?,
        };
        match deeper.filter(|folder| device.is_none_or(|d| d == folder.device)) {
            Some(_) if levels.len() == DEPTH_MAX => {
                return Err(io::Error::other(format!("more than {DEPTH_MAX} folders are in each other")));
            }
            Some(folder) => levels.push(Level::of(folder.open()?)?),
            None => drop(shown.pop()),
        }
    }
    Ok(())
}

/// Appends one name without what is in it; returns the folder if it is one.
fn append_alone(
    out: &mut TarOut,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    shown: &Path,
) -> io::Result<Option<Folder>> {
    let name = if name.is_empty() { OsStr::new(".") } else { name };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if matches!(kind, FileType::Socket | FileType::Unknown) {
        return Ok(None);
    }
    let inode = (kind != FileType::Directory && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
    if let Some(first) = inode.and_then(|inode| out.get_ref().names.get(&inode).cloned()) {
        let mut header = header(&stat, &[], out.get_ref().ids.as_ref());
        header.set_entry_type(tar::EntryType::Link);
        out.append_link(&mut header, shown, first)?;
        return Ok(None);
    }
    // A location cannot be read from or asked for attributes; its name in /proc can, and leads nowhere else.
    let through = format!("/proc/self/fd/{}", place.as_raw_fd());
    let mut records = if kind == FileType::Symlink { vec![] } else { attributes(&through)? };
    records.extend(out.get_ref().exact_times.then(|| exact_time(&stat)).flatten());
    let mut header = header(&stat, &records, out.get_ref().ids.as_ref());
    let records = |out: &mut TarOut| match &records[..] {
        [] => Ok(()),
        some => out.append_pax_extensions(some.iter().map(|(key, value)| (key.as_str(), value.as_slice()))),
    };
    match kind {
        FileType::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            let mut folder_name = shown.as_os_str().to_owned();
            if !folder_name.as_bytes().ends_with(b"/") {
                folder_name.push("/");
            }
            records(out)?;
            out.append_data(&mut header, &folder_name, io::empty())?;
            return Ok(Some(Folder { place, device: stat.st_dev }));
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(through, flags, Mode::empty())?);
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            header.set_size(size);
            records(out)?;
            // A file that shrinks or grows meanwhile must not break the archive.
            out.append_data(&mut header, shown, file.chain(io::repeat(0)).take(size))?;
        }
        FileType::Symlink => {
            header.set_entry_type(tar::EntryType::Symlink);
            let target = rustix::fs::readlinkat(&place, "", Vec::new())?;
            records(out)?;
            out.append_link(&mut header, shown, OsStr::from_bytes(target.as_bytes()))?;
        }
        kind => {
            header.set_entry_type(match kind {
                FileType::CharacterDevice => tar::EntryType::Char,
                FileType::BlockDevice => tar::EntryType::Block,
                _ => tar::EntryType::Fifo,
            });
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
            records(out)?;
            out.append_data(&mut header, shown, io::empty())?;
        }
    }
    if let Some(inode) = inode {
        out.get_mut().names.insert(inode, shown.to_owned());
    }
    Ok(None)
}

fn header(stat: &rustix::fs::Stat, records: &[Record], ids: Option<&runtime::IdMap>) -> tar::Header {
    /// As whom the kernel shows who has no id. Source: proc_sys_kernel(5), `overflowuid`.
    const NOBODY: u32 = 65_534;
    let (uid, gid) = match ids {
        None => (stat.st_uid, stat.st_gid),
        Some(map) => {
            (map.uid_inside(stat.st_uid).unwrap_or(NOBODY), map.gid_inside(stat.st_gid).unwrap_or(NOBODY))
        }
    };
    let mut header = if records.is_empty() { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// Key and value of a PAX record.
type Record = (String, Vec<u8>);

fn exact_time(stat: &rustix::fs::Stat) -> Option<Record> {
    let whole = stat.st_mtime_nsec == 0 || stat.st_mtime < 0;
    (!whole)
        .then(|| ("mtime".to_owned(), format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec).into_bytes()))
}

/// Returns the extended attributes that travel. *Source:* libarchive `tar.5`, "SCHILY.xattr".
fn attributes(path: &str) -> io::Result<Vec<Record>> {
    let names = grown(|buffer| rustix::fs::listxattr(path, buffer))?.unwrap_or_default();
    let mut records = Vec::new();
    for name in names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        // `=` would end the record's key.
        let ours = name.starts_with("user.") && !name.starts_with("user.overlay.") && !name.contains('=');
        if !ours && name != CAPABILITY {
            continue;
        }
        if let Some(value) = grown(|buffer| rustix::fs::getxattr(path, name, buffer))? {
            let value = if name == CAPABILITY { without_namespace(value) } else { value };
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
    }
    Ok(records)
}

const CAPABILITY: &str = "security.capability";

/// Turns revision 3 of a file's capabilities, which names a user namespace's root, into revision 2, which any host
/// understands. *Source:* linux/capability.h, moby `ReadSecurityXattrToTarHeader`.
fn without_namespace(mut value: Vec<u8>) -> Vec<u8> {
    const REVISION_BYTE: usize = 3;
    const REVISION_2_BYTES: usize = 20;
    if value.get(REVISION_BYTE) == Some(&3) {
        value[REVISION_BYTE] = 2;
        value.truncate(REVISION_2_BYTES);
    }
    value
}

/// Reads what has no length known beforehand; `None` = there is none (any more).
fn grown(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    /// *Unit:* bytes. Source: linux/limits.h, `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`.
    const MAX: usize = 64 << 10;
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) if buffer.len() < MAX => buffer.resize(MAX, 0),
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

pub(crate) async fn put(
    inner: &Arc<Inner>,
    container: Arc<Container>,
    path: String,
    tar: impl AsyncRead + Send + Unpin + 'static,
    options: PutOptions,
) -> Result<()> {
    let place = Path::new("/").join(&path);
    let in_mounts = container.mounts.iter().filter(|mount| place.starts_with(&mount.destination));
    match in_mounts.max_by_key(|mount| mount.destination.len()) {
        Some(mount) if !mount.writable => {
            return Err(Error::invalid("mounted volume is marked read-only"));
        }
        None if container.config.host.read_only => {
            return Err(Error::invalid("container rootfs is marked read-only"));
        }
        Some(_) | None => {}
    }
    let owner = match container.config.user.as_deref().filter(|user| options.of_the_user && !user.is_empty())
    {
        Some(user) => Some(owner(inner, &container, user.to_owned()).await?),
        None => None,
    };
    let squash = inner.userns_squash;
    let bridge = SyncIoBridge::new(tar);
    let event = crate::seen::event::container_event(&container, "extract-to-dir", []);
    let unpacked = with_root(inner, container, path.clone(), move |root, path| {
        let fd = root.resolve(path, OFlags::PATH)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::Directory {
            return Ok(None);
        }
        let target = Root { fd, ids: root.ids.clone(), _namespace: None, _held: None };
        Ok(Some(unpack(&target, bridge, options.keep_type, squash, owner)))
    });
    let not_a_folder = || Error::invalid("extraction point is not a directory");
    unpacked.await?.ok_or_else(not_a_folder)?.map_err(Error::io("unpack into", path))?;
    inner.publish(event);
    Ok(())
}

/// Returns the ids of a user in the container's own files.
async fn owner(inner: &Inner, container: &Container, user: String) -> Result<(u32, u32)> {
    let folders = layers::of_container(inner, container).await?;
    let identity = crate::blocking(move || users::resolve(&Layers { folders }, &user, &[])).await?;
    Ok((identity.uid, identity.gid))
}

/// Unpacks below a folder; no entry can get out of it. With `owner` all is that user's.
pub(crate) fn unpack(
    target: &Root,
    tar: impl Read + Send,
    keep_type: bool,
    squash: bool,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let options = image::TreeOptions { squash, keep_type, whole: false };
    let into = target.fd.try_clone()?;
    let Some(map) = target.ids.clone() else {
        let owners = owner.map(|owner| Box::new(move |_, _| Some(owner)) as Box<image::Owners>);
        return image::unpack_tree_for(tar, into, options, owners).map_err(io::Error::other);
    };
    let root = map.uid_outside(0).zip(map.gid_outside(0));
    let (uid, gid) = root.ok_or_else(|| io::Error::other("the user namespace has no root"))?;
    let owners = move |uid, gid| {
        let (uid, gid) = owner.unwrap_or((uid, gid));
        map.uid_outside(uid).zip(map.gid_outside(gid))
    };
    // Each file is its root's before it has its owner.
    runtime::making_files_as(uid, gid, || image::unpack_tree_for(tar, into, options, Some(Box::new(owners))))?
        .map_err(io::Error::other)
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
        unpack(&root(&inside), tar.as_slice(), false, true, None).unwrap_err(); // `link` points to nothing inside
        assert_eq!(std::fs::read_to_string(inside.join("a/b/c")).unwrap(), "deep");
        assert!(!dir.path().join("escape").exists());
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_is_not_replaced_by_a_file_when_types_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let tar = tar_of(&[("d", "file")]);
        assert!(unpack(&root(dir.path()), tar.as_slice(), true, true, None).is_err());
        unpack(&root(dir.path()), tar.as_slice(), false, true, None).unwrap();
        assert!(dir.path().join("d").is_file());
    }

    /// Packs `from` by `append` and unpacks it into `to`.
    fn carry(from: &Path, to: &Path, exact: bool) {
        let mut tar = tempfile::tempfile().unwrap();
        let mut out = tar::Builder::new(Output::new(tar.try_clone().unwrap()));
        out.get_mut().exact_times = exact;
        append(&mut out, root(from).fd.as_fd(), OsStr::new(""), Path::new("./"), None).unwrap();
        out.finish().unwrap();
        io::Seek::rewind(&mut tar).unwrap();
        unpack(&root(to), tar, false, squash(), None).unwrap();
    }

    /// In a user namespace with one uid, as an ordinary user's tests run.
    fn squash() -> bool {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        map.split_ascii_whitespace().nth(2) == Some("1")
    }

    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        (dir, from, to)
    }

    fn set(path: &Path, name: &str, value: &[u8]) {
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }

    fn get_attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
        grown(|buffer| rustix::fs::lgetxattr(path, name, buffer)).unwrap()
    }

    #[test]
    fn names_of_one_file_are_hard_links_and_special_files_come_along() {
        let (_dir, from, to) = folders();
        std::fs::create_dir(from.join("a")).unwrap();
        std::fs::write(from.join("a/first"), "shared").unwrap();
        std::fs::hard_link(from.join("a/first"), from.join("second")).unwrap();
        std::os::unix::fs::symlink("nowhere", from.join("link")).unwrap();
        std::fs::hard_link(from.join("link"), from.join("link2")).unwrap();
        let mode = Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, from.join("fifo"), FileType::Fifo, mode, 0).unwrap();
        if !squash() {
            let null = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(rustix::fs::CWD, from.join("null"), FileType::CharacterDevice, mode, null)
                .unwrap();
        }
        carry(&from, &to, false);
        let stat = |name: &str| rustix::fs::lstat(to.join(name)).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("second")).unwrap(), "shared");
        assert_eq!((stat("second").st_ino, stat("second").st_nlink), (stat("a/first").st_ino, 2));
        assert_eq!(std::fs::read_link(to.join("link2")).unwrap(), Path::new("nowhere"));
        assert_eq!(stat("link").st_ino, stat("link2").st_ino);
        assert_eq!(stat("fifo").st_mode, libc_mode(FileType::Fifo, 0o640));
        if !squash() {
            assert_eq!(stat("null").st_mode, libc_mode(FileType::CharacterDevice, 0o640));
            assert_eq!(stat("null").st_rdev, rustix::fs::makedev(1, 3));
        }
    }

    fn libc_mode(kind: FileType, mode: u32) -> u32 {
        kind.as_raw_mode() | mode
    }

    #[test]
    fn attributes_travel_and_those_of_overlayfs_do_not() {
        let (_dir, from, to) = folders();
        let long = "long/".repeat(50);
        std::fs::create_dir_all(from.join(&long)).unwrap();
        let files = [from.join("file"), from.join(&long).join("file")];
        // `cap_net_bind_service=ep`, revision 2, with a byte that is a line's end.
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for file in &files {
            std::fs::write(file, "x").unwrap();
            set(file, "user.note", b"two\nlines\0");
            set(file, "user.overlay.opaque", b"y");
            set(file, CAPABILITY, &capability);
        }
        set(&from.join("long"), "user.folder", &[7; 3000]);
        carry(&from, &to, false);
        for file in ["file".to_owned(), format!("{long}file")] {
            let file = to.join(file);
            assert_eq!(get_attribute(&file, "user.note").unwrap(), b"two\nlines\0");
            assert_eq!(get_attribute(&file, "user.overlay.opaque"), None);
            assert_eq!(get_attribute(&file, CAPABILITY).unwrap(), capability);
        }
        assert_eq!(get_attribute(&to.join("long"), "user.folder").unwrap(), [7; 3000]);
    }

    #[test]
    fn a_namespaces_capabilities_are_those_of_any_host() {
        let (mut third, mut second) = (vec![1, 0, 0, 3], vec![1, 0, 0, 2]);
        third.extend([9; 20]); // the last four bytes are the namespace's root
        second.extend([9; 16]);
        assert_eq!(without_namespace(third), second);
        assert_eq!(without_namespace(second.clone()), second);
    }

    #[test]
    fn times_are_dockers_whole_seconds_or_exact() {
        use std::time::{Duration, UNIX_EPOCH};
        let (_dir, from, to) = folders();
        let time = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        std::fs::create_dir(from.join("folder")).unwrap();
        std::fs::write(from.join("folder/file"), "x").unwrap();
        for path in ["folder/file", "folder"] {
            File::open(from.join(path)).unwrap().set_modified(time).unwrap();
        }
        let times = |exact| {
            carry(&from, &to, exact);
            ["folder/file", "folder"].map(|path| to.join(path).metadata().unwrap().modified().unwrap())
        };
        assert_eq!(times(false), [UNIX_EPOCH + Duration::from_secs(1_000_000_000); 2]);
        assert_eq!(times(true), [time; 2]);
    }

    #[tokio::test]
    async fn an_archive_that_broke_off_is_an_error_for_its_reader() {
        use tokio::io::AsyncReadExt;
        for (outcome, whole) in
            [(Some(Ok(())), true), (Some(Err(io::ErrorKind::Other.into())), false), (None, false)]
        {
            let (pipe, writer) = tokio::io::duplex(8);
            drop(writer);
            let set = OnceLock::new();
            if let Some(outcome) = outcome {
                set.set(outcome).unwrap();
            }
            let mut reader = ArchiveReader { pipe, outcome: Arc::new(set) };
            assert_eq!(reader.read_to_end(&mut Vec::new()).await.is_ok(), whole);
        }
    }
}
