//! A file tree to copy out of or into: a build context, the layers of a stage, the layer that is being made.
//!
//! Every path is resolved by `openat2(RESOLVE_IN_ROOT)`: no symlink of a context or an image leads to the host. Layers
//! are seen through an overlay mount that belongs to a descriptor alone and vanishes with it.

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid},
    io::Errno,
};
use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

/// The root of a tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// Who new folders belong to.
pub(super) type Owner = Option<(u32, u32)>;

impl Tree {
    /// Opens a folder. Blocking.
    pub(super) fn folder(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens layers, top first; with `scratch`, its `upper` takes what is written. Blocking.
    pub(super) fn layers(lowers: &[PathBuf], scratch: Option<&Path>, squash: bool) -> io::Result<Self> {
        match (lowers, scratch) {
            ([], Some(scratch)) => return Self::folder(&scratch.join("upper")),
            ([one], None) => return Self::folder(one),
            ([], None) => return Err(io::Error::from(Errno::NOENT)),
            _ => {}
        }
        let folders = scratch.map(|scratch| (scratch.join("upper"), scratch.join("work")));
        let writable = folders.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path()));
        let root = sys::overlay::mount(sys::overlay::Layers { lowers, writable, userxattr: squash })?;
        Ok(Self { root })
    }

    /// Opens what is at a path, its last symlink followed unless `flags` say otherwise.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// Describes what is at a path; `follow`: what a last symlink points to. `None` if there is nothing.
    pub(super) fn stat(&self, path: &Path, follow: bool) -> io::Result<Option<Stat>> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        match self.open(path, flags) {
            Ok(found) => Ok(Some(rustix::fs::fstat(found)?)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns true if a path is a folder or leads to one.
    pub(super) fn is_folder(&self, path: &Path) -> io::Result<bool> {
        Ok(self.stat(path, true)?.is_some_and(|stat| kind(&stat) == FileType::Directory))
    }

    /// Returns the names in a folder, sorted.
    pub(super) fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        crate::files::below::names_in(&self.open(folder, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    /// Removes a file, or a symlink itself.
    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let parent = self.open(path.parent().unwrap_or(Path::new("/")), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(rustix::fs::unlinkat(parent, path.file_name().unwrap_or_default(), AtFlags::empty())?)
    }

    /// Opens a folder, making it and those on the way to it where they are missing.
    pub(super) fn make_folders(&self, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
        let mut so_far = PathBuf::from("/");
        let mut folder = self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY)?;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            so_far.push(name);
            folder = match self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
                    if let Some((uid, gid)) = owner {
                        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                        rustix::fs::chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                    }
                    self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY)?
                }
                other => other?,
            };
        }
        Ok(folder)
    }
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns a path that begins at the root of its tree, free of `.` and `..`.
pub(super) fn rooted(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}
