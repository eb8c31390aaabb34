//! Removes directories that somebody else has filled: a container may nest them deeper than this process has stack or
//! descriptors, and put links anywhere.

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::Path,
};

/// How deep directories may be nested that cannot be moved.
const DEPTH_MAX: u32 = 1024;

/// Removes a directory with all that is in it. Blocking.
///
/// # Errors
/// Part of it may be gone.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    remove_at(&parent, name)
}

/// The same, by the directory it is in.
pub(crate) fn remove_at(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    remove(parent, name, 0)
}

/// What holds more directories is moved up beside its parent, to have its turn there. So nothing is ever deep.
fn remove(parent: &OwnedFd, name: &OsStr, depth: u32) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    let top = open(parent, name)?;
    let mut waiting: Vec<OsString> = Vec::new();
    for name in names(&top)? {
        if !is_gone(&top, &name)? {
            waiting.push(name);
        }
    }
    let mut moved = 0_u64;
    while let Some(name) = waiting.pop() {
        let directory = open(&top, &name)?;
        for child in names(&directory)? {
            if is_gone(&directory, &child)? {
                continue;
            }
            match move_up(&directory, &child, &top, &mut moved) {
                Ok(name) => waiting.push(name),
                // Overlayfs does not move what is in a lower layer.
                Err(Errno::XDEV) => remove(&directory, &child, depth + 1)?,
                Err(e) => return Err(e.into()),
            }
        }
        rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn open(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(OsString::from_vec(name.to_vec())),
        }
    }
    Ok(names)
}

/// Removes a file or an empty directory; returns false for a directory with content.
fn is_gone(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            other => Ok(other.map(|()| true)?),
        },
        other => Ok(other.map(|()| true)?),
    }
}

fn move_up(from: &OwnedFd, name: &OsStr, to: &OwnedFd, moved: &mut u64) -> Result<OsString, Errno> {
    loop {
        *moved += 1;
        let new = OsString::from_vec(format!(".gone-{moved}").into_bytes());
        match rustix::fs::renameat(from, name, to, &new) {
            // The name is taken.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            other => return other.map(|()| new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn deep_wide_and_misleading_directories_are_removed_and_what_links_point_to_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, tree) = (dir.path().join("outside"), dir.path().join("tree"));
        fs::create_dir_all(tree.join("a/b/.gone-1/x")).unwrap();
        fs::create_dir_all(tree.join(".gone-1/y/z")).unwrap();
        fs::write(tree.join(".gone-2"), "").unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        for link in ["link", "a/link", "a/b/link"] {
            std::os::unix::fs::symlink(&outside, tree.join(link)).unwrap();
        }
        let mut deep: OwnedFd = fs::File::open(&tree).unwrap().into();
        for _ in 0..20_000 {
            rustix::fs::mkdirat(&deep, "d", Mode::RWXU).unwrap();
            deep = open(&deep, OsStr::new("d")).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
        assert_eq!(remove_tree(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
