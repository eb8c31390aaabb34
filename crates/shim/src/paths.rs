//! Paths inside a root filesystem whose contents nobody trusts: resolved so that no link leads out of it.

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::{Errno, Result},
};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

/// Most links on one path. Source: path_resolution(7).
const LINKS_MAX: u32 = 40;
/// A rename somewhere in the kernel makes a lookup in a root fail now and then; it is to be tried again.
const ATTEMPTS_MAX: u32 = 128;

/// What a path is wanted to be when it does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// Opens what `path` names inside `root` (as a location, not for reading). Links are followed, inside `root`.
///
/// # Errors
/// As openat2(2).
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_for(root, path, OFlags::PATH, ResolveFlags::empty())
}

/// As [`open`], but a link anywhere on the path is an error: for mounts of filesystems whose place matters.
pub(super) fn open_without_links(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_for(root, path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
}

fn open_for(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, more: ResolveFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    for _ in 0..ATTEMPTS_MAX {
        match rustix::fs::openat2(
            root,
            OsStr::from_bytes(path),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens what `path` names inside `root`, making it and the directories above it where they are missing. The
/// target of a dangling link is made too, inside `root`.
///
/// # Errors
/// As openat2(2) and mkdir(2); `LOOP` for too many links.
pub(super) fn ensure(root: BorrowedFd<'_>, path: &[u8], kind: Kind) -> Result<OwnedFd> {
    match open(root, path) {
        Err(Errno::NOENT) => make(root, path, kind),
        result => result,
    }
}

fn make(root: BorrowedFd<'_>, path: &[u8], kind: Kind) -> Result<OwnedFd> {
    let mut pending: VecDeque<Vec<u8>> = components(path).collect();
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if name == b".." {
            at.pop();
            continue;
        }
        let parent = open(root, at.as_os_str().as_bytes())?;
        let file = OsStr::from_bytes(&name);
        match rustix::fs::openat(
            &parent,
            file,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(found) => {
                let stat = rustix::fs::fstat(&found)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&found, c"", Vec::new())?.into_bytes();
                    if target.first() == Some(&b'/') {
                        at = PathBuf::new();
                    }
                    for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        pending.push_front(part);
                    }
                    continue;
                }
            }
            Err(Errno::NOENT) if pending.is_empty() && kind == Kind::File => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, file, flags, Mode::from_raw_mode(0o755))?;
            }
            Err(Errno::NOENT) => match rustix::fs::mkdirat(&parent, file, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            },
            Err(errno) => return Err(errno),
        }
        at.push(file);
    }
    open(root, at.as_os_str().as_bytes())
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

/// Tells whether an opened location is a directory.
pub(super) fn is_directory(fd: &impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Tells whether an opened file is the null device, whatever its name.
pub(super) fn is_null_device(fd: &impl AsFd) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(kind == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3))
}

/// Refuses a file that is not the kernel's own, of a filesystem `proc`.
///
/// # Errors
/// `XDEV` for one that is of another.
pub(super) fn is_proc(fd: &impl AsFd) -> Result<()> {
    /// Source: linux/magic.h, `PROC_SUPER_MAGIC`.
    const MAGIC: i64 = 0x9fa0;
    if rustix::fs::fstatfs(fd)?.f_type == MAGIC { Ok(()) } else { Err(rustix::io::Errno::XDEV) }
}

/// Opens a file by its name in this process' root, which is a container's. Waits for nobody, and does not follow the
/// links of /proc, which would lead to this process' descriptors and with them out of the container.
///
/// # Errors
/// As openat2(2); `LOOP` for a link of /proc.
pub(super) fn open_here(path: &str, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Makes a link inside an opened directory unless something has that name.
pub(super) fn link(dir: &impl AsFd, name: &str, target: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dir, name) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Tells whether `dir` has an entry of this name, links not followed.
pub(super) fn has(dir: &impl AsFd, name: &str) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn root() -> (tempfile::TempDir, fs::File) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let file = fs::File::open(dir.path().join("root")).unwrap();
        (dir, file)
    }

    #[test]
    fn links_cannot_lead_out_of_the_root() {
        let (temp, root) = root();
        let dir = temp.path();
        fs::create_dir(dir.join("outside")).unwrap();
        symlink(dir.join("outside"), dir.join("root/absolute")).unwrap();
        symlink("../../../outside", dir.join("root/relative")).unwrap();
        for link in ["absolute", "relative"] {
            ensure(root.as_fd(), format!("/{link}/made/here").as_bytes(), Kind::Directory).unwrap();
        }
        ensure(root.as_fd(), b"../../outside/file", Kind::File).unwrap();
        assert_eq!(fs::read_dir(dir.join("outside")).unwrap().count(), 0, "nothing outside");
        assert!(dir.join("root/outside/made/here").is_dir() && dir.join("root/outside/file").is_file());
    }

    #[test]
    fn loops_end() {
        let (temp, root) = root();
        let dir = temp.path();
        symlink("b", dir.join("root/a")).unwrap();
        symlink("a", dir.join("root/b")).unwrap();
        assert_eq!(ensure(root.as_fd(), b"/a/x", Kind::Directory).unwrap_err(), Errno::LOOP);
    }
}
