//! Looks at what is below a folder while somebody else may change it: the files of a container that runs, of a volume in
//! use. Every folder is opened from the first one without following a link, and what is in it is looked at through
//! that, so nothing outside is seen, whatever takes a folder's place meanwhile.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

/// A folder, and what is below it.
#[derive(Debug)]
pub(crate) struct Below(OwnedFd);

/// A folder below it, held.
#[derive(Debug)]
pub(crate) struct Held {
    fd: OwnedFd,
    /// From the first one.
    path: PathBuf,
}

/// A name in a held folder, as it was when it was looked at.
#[derive(Debug)]
pub(crate) struct Seen {
    /// From the first folder.
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
}

impl Seen {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Below {
    /// # Errors
    /// The folder cannot be opened. A link to one stands for it.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, folder, flags, Mode::empty())?))
    }

    /// Holds a folder below; an empty path is the first one itself.
    ///
    /// # Errors
    /// It is gone, is no folder any more, or a link is on the way.
    pub(crate) fn hold(&self, path: &Path) -> io::Result<Held> {
        let inside = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = rustix::fs::openat2(&self.0, inside, flags, Mode::empty(), resolve)?;
        Ok(Held { fd, path: path.to_owned() })
    }
}

impl Held {
    /// Returns what is in it, by name; what vanishes meanwhile is left out.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn names(&self) -> io::Result<Vec<Seen>> {
        let look = |name: &OsStr| {
            let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(Seen { path: self.path.join(name), stat })
        };
        Ok(names_in(&self.fd)?.iter().filter_map(|name| look(name)).collect())
    }

    /// Returns a path by which a name in it is reached, of which a link can be the last part only.
    pub(crate) fn way_to(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(name)
    }
}

/// Returns the names in a folder, sorted.
pub(crate) fn names_in(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// Returns the space of a folder's files. *Unit:* bytes. What vanishes meanwhile is not counted.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(below) = Below::of(folder) else { return 0 };
    let mut bytes = 0;
    // No recursion: a container may nest its folders as deep as it likes.
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        for seen in below.hold(&path).and_then(|held| held.names()).into_iter().flatten() {
            match seen.kind() {
                FileType::Directory => waiting.push(seen.path),
                _ => bytes += u64::try_from(seen.stat.st_blocks).unwrap_or(0) * 512,
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn what_takes_a_folders_place_is_not_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir_all(outside.join("b/secret")).unwrap();
        let below = Below::of(&inside).unwrap();
        let held = below.hold(Path::new("a")).unwrap();
        fs::rename(inside.join("a"), inside.join("was")).unwrap();
        symlink(&outside, inside.join("a")).unwrap();
        for path in ["a", "a/b", "../outside", "was/../a/b"] {
            assert!(below.hold(Path::new(path)).is_err(), "{path}");
        }
        let names: Vec<_> = held.names().unwrap().into_iter().map(|seen| seen.path).collect();
        assert_eq!(names, [Path::new("a/b")], "what is held is what it was");
        assert!(fs::symlink_metadata(held.way_to(OsStr::new("b"))).unwrap().is_dir());
        let top: Vec<_> = below.hold(Path::new("")).unwrap().names().unwrap();
        let kinds: Vec<_> = top.iter().map(|seen| (seen.path.as_path(), seen.kind())).collect();
        assert_eq!(kinds, [(Path::new("a"), FileType::Symlink), (Path::new("was"), FileType::Directory)]);
    }
}
