//! Files that are replaced whole: after a crash of the machine a path has its old content or its new one, never a
//! part of either and never nothing.
//!
//! The only place that knows how: write beside it, sync the file, rename, sync the folder. Without the first sync a
//! power cut leaves an empty file under the right name; without the second, the old one. All of it blocks.
//! Source: rename(2), fsync(2), kernel Documentation/filesystems/ext4 (`auto_da_alloc`).

use crate::disk::{Disk, Os};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Makes `content` what is under `path`, on the platter when it returns. `mode`: permission bits of a new file.
///
/// # Errors
/// The disk refuses; what was under `path` is still whole.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_on(&Os, path, content, mode)
}

/// As [`replace`], on another disk than the kernel's.
///
/// # Errors
/// As [`replace`].
pub fn replace_on(disk: &dyn Disk, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write_beside(disk, path, content, mode, true)?;
    disk.sync_folder(folder_of(path))
}

/// As [`replace`], for what is worthless after a crash of the machine: survives one of this process only.
///
/// # Errors
/// As [`replace`].
pub fn replace_for_this_boot(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write_beside(&Os, path, content, mode, false)
}

/// Removes `path`, also after a crash of the machine. `Ok` if there is nothing.
///
/// # Errors
/// The disk refuses; calling again goes on.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Does many at once, by path: [`replace`] with what there is a content for, [`remove`] for the rest. A folder is synced
/// once for all. Returns those that failed, with the reason; the others are done.
///
/// # Errors
/// As the two. Where a folder cannot be synced, everything in it has failed.
pub fn change_all<'a>(
    changes: impl IntoIterator<Item = (&'a Path, Option<&'a [u8]>)>,
    mode: u32,
) -> Vec<(&'a Path, io::Error)> {
    let (mut failed, mut folders) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for (path, content) in changes {
        let done = match content {
            Some(content) => write_beside(&Os, path, content, mode, true),
            None => fs::remove_file(path),
        };
        match done {
            Ok(()) => folders.entry(folder_of(path)).or_default().push(path),
            Err(error) if content.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failed.push((path, error)),
        }
    }
    for (folder, paths) in folders {
        if let Err(error) = sync_folder(folder) {
            let (kind, why) = (error.kind(), error.to_string());
            failed.extend(paths.into_iter().map(|path| (path, io::Error::new(kind, why.clone()))));
        }
    }
    failed
}

/// Makes the names in a folder durable: files that were made, renamed or removed in it.
///
/// # Errors
/// The disk refuses.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    Os.sync_folder(folder)
}

/// Returns the name under which the new content of `path` is written first; it may be left behind by a crash.
pub fn name_beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_beside(disk: &dyn Disk, path: &Path, content: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let new = name_beside(path);
    let write = || {
        let file = disk.make(&new, mode)?;
        file.write_all_at(content, 0)?;
        if sync {
            file.sync_all()?;
        }
        disk.rename(&new, path)
    };
    write().inspect_err(|_| drop(disk.remove(&new))) // the first error is the one that matters
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn of_many_changes_those_that_fail_are_named_and_the_others_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        replace(&path("gone"), b"one", 0o600).unwrap();
        let (new, gone, never, nowhere) = (path("new"), path("gone"), path("never"), path("no/folder"));
        let content: Option<&[u8]> = Some(b"two");
        let changes = [
            (new.as_path(), content),
            (&gone, None),
            (&never, None),
            (&nowhere, content),
            (&path("no/x"), None),
        ]
        .map(|(path, content)| (path.to_owned(), content));
        let failed = change_all(changes.iter().map(|(path, content)| (path.as_path(), *content)), 0o600);
        assert_eq!(failed.iter().map(|(path, _)| *path).collect::<Vec<_>>(), [nowhere.as_path()]);
        assert_eq!(failed[0].1.kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read(&new).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "theirs").unwrap();
        replace(&path, b"one", 0o600).unwrap();
        std::os::unix::fs::symlink(&elsewhere, name_beside(&path)).unwrap();
        assert!(replace(&path, b"two", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
    }
}
