//! The file tree of a container that is down, as it would see it: its layers, and what is mounted in them.
//!
//! Its mounts are made in a mount namespace that nothing runs in: neither the host nor anything else sees them. Who
//! holds the tree holds the namespace; when it goes, all of it goes.

use crate::{
    ask::config::LayerMount,
    seen::container::{Container, MountPoint, MountPointKind},
};
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags},
    thread::UnshareFlags,
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
    thread,
};
use sys::{mount::Attributes, overlay::Layers};

/// What is mounted in a tree.
#[derive(Debug)]
struct Mounted<'a> {
    target: &'a str,
    source: Source<'a>,
}

#[derive(Debug)]
enum Source<'a> {
    Host(OfHost<'a>),
    /// Folders of an image that are seen as one, top first; or one file of it. Nothing is written to them.
    Image(&'a [PathBuf]),
}

#[derive(Debug)]
struct OfHost<'a> {
    path: &'a Path,
    /// Below the path; empty = all of it.
    subpath: &'a str,
    writable: bool,
    /// With what is mounted below the path.
    recursive: bool,
}

/// Opens the tree of a container; `folders` are its layers, top first, `images` what it sees of other images, `work` the
/// folder that overlayfs needs. Returns its root, and the namespace that has to be held with it. Blocking. Volumes that
/// are filesystems must be mounted.
pub(crate) fn open(
    container: &Container,
    folders: &[PathBuf],
    images: &[LayerMount],
    work: &Path,
) -> io::Result<(OwnedFd, File)> {
    let root = overlay(folders, work)?;
    make_etc(container)?;
    let mounts = mounts(container, images);
    // A thread of its own: it leaves the namespace of the host for good.
    let anchor = work.parent().unwrap_or(work);
    let made = thread::scope(|scope| scope.spawn(|| assemble(&root, &mounts, anchor)).join());
    let namespace = made.map_err(|_| io::Error::other("the thread that mounts has panicked"))??;
    Ok((root, namespace))
}

/// Returns the layers as a detached mount. Blocking.
pub(crate) fn overlay(folders: &[PathBuf], work: &Path) -> io::Result<OwnedFd> {
    let (upper, lowers) = folders.split_first().ok_or(Errno::NOENT)?;
    sys::overlay::mount(Layers { lowers, writable: Some((upper, work)), userxattr: false })
}

/// Returns what is mounted in it, what holds others first.
fn mounts<'a>(container: &'a Container, images: &'a [LayerMount]) -> Vec<Mounted<'a>> {
    let of_host = |point: &&MountPoint| !matches!(point.kind, MountPointKind::Tmpfs | MountPointKind::Image);
    let points = container.mounts.iter().filter(of_host);
    let mut all: Vec<_> = points
        .map(|point| Mounted {
            target: &point.destination,
            source: Source::Host(OfHost {
                path: &point.source,
                subpath: &point.subpath,
                writable: point.writable,
                recursive: point.recursion != model::BindRecursion::Disabled,
            }),
        })
        .collect();
    all.extend(
        images.iter().map(|seen| Mounted { target: &seen.target, source: Source::Image(&seen.lowers) }),
    );
    let etc = [
        (&container.hostname_path, "/etc/hostname"),
        (&container.hosts_path, "/etc/hosts"),
        (&container.resolv_conf_path, "/etc/resolv.conf"),
    ];
    for (source, target) in etc {
        // A mount of the caller's own at the same place wins.
        if !all.iter().any(|mount| mount.target == target) {
            let path = source;
            let source = Source::Host(OfHost { path, subpath: "", writable: true, recursive: false });
            all.push(Mounted { target, source });
        }
    }
    all.sort_by_key(|mount| mount.target);
    all
}

/// Mounts everything in a mount namespace of this thread's own, and returns that.
fn assemble(root: &OwnedFd, mounts: &[Mounted<'_>], anchor: &Path) -> io::Result<File> {
    let new = i32::try_from(UnshareFlags::NEWNS.bits()).map_err(io::Error::other)?;
    sys::process::unshare_namespaces(new)?;
    // Before anything else: what is mounted here is not to be seen on the host.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let namespace = File::open("/proc/thread-self/ns/mnt")?;
    let place = rustix::fs::open(anchor, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let sources: Vec<_> = mounts.iter().map(copied).collect::<io::Result<_>>()?;
    attach(root, &place)?;
    for (mount, source) in mounts.iter().zip(sources) {
        let Some(source) = source else { continue };
        let is_folder = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode) == FileType::Directory;
        attach(&source, &mount_place(root, Path::new(mount.target), is_folder)?)?;
    }
    Ok(namespace)
}

/// Makes the files that a container gets at its first start; they are empty before. *Source:* moby `daemon/initlayer`.
fn make_etc(container: &Container) -> io::Result<()> {
    for path in [&container.hostname_path, &container.hosts_path, &container.resolv_conf_path] {
        match File::create_new(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Returns what is to be mounted, detached; `None` if the host has it no more: that is for the next start to say.
fn copied(mount: &Mounted<'_>) -> io::Result<Option<OwnedFd>> {
    match &mount.source {
        Source::Host(mount) => copied_of_host(mount),
        Source::Image([only]) => {
            copied_of_host(&OfHost { path: only, subpath: "", writable: false, recursive: false })
        }
        Source::Image(lowers) => seen_as_one(lowers).map(Some),
    }
}

/// Returns folders as one detached mount that nothing is written to. Overlayfs wants two at least.
fn seen_as_one(lowers: &[PathBuf]) -> io::Result<OwnedFd> {
    let tree = sys::overlay::mount(Layers { lowers, writable: None, userxattr: false })?;
    read_only(&tree)?;
    Ok(tree)
}

fn read_only(tree: &OwnedFd) -> io::Result<()> {
    let set = MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into();
    Ok(sys::mount::set_attributes(tree.as_fd(), c"", Attributes { set, ..Attributes::default() }, false)?)
}

fn copied_of_host(mount: &OfHost<'_>) -> io::Result<Option<OwnedFd>> {
    let at = |e: Errno| io::Error::new(io::Error::from(e).kind(), format!("{}: {e}", mount.path.display()));
    let found = rustix::fs::open(mount.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let found = match (found, mount.subpath) {
        (Ok(source), below) if !below.is_empty() => in_root(&source, Path::new(below), OFlags::PATH),
        (found, _) => found,
    };
    let source = match found {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        found => found.map_err(at)?,
    };
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if mount.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(&source, c"", flags).map_err(at)?;
    if !mount.writable {
        read_only(&tree)?;
    }
    Ok(Some(tree))
}

fn attach(tree: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, c"", place, c"", flags)?)
}

/// Resolves a path in a container: no link in it leads out.
fn in_root(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Returns where something is mounted; what is missing is made, as at a start.
fn mount_place(root: &OwnedFd, target: &Path, is_folder: bool) -> io::Result<OwnedFd> {
    match in_root(root, target, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        found => return Ok(found?),
    }
    let mut parent = in_root(root, Path::new("/"), OFlags::PATH)?;
    let mut so_far = PathBuf::from("/");
    for name in target.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = name else { continue };
        so_far.push(name);
        parent = match in_root(root, &so_far, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                in_root(root, &so_far, OFlags::PATH | OFlags::DIRECTORY)?
            }
            found => found?,
        };
    }
    let name = target.file_name().unwrap_or_default();
    if is_folder {
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    }
    Ok(in_root(root, target, OFlags::PATH)?)
}
