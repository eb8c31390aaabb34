//! Fills a new volume with what the image has at its path, as Docker does; a volume with content is left alone.
//!
//! Another container may have the volume already and change what is in it meanwhile. So everything is made by
//! descriptors, by calls that follow no link and take nothing that is there.

use crate::files::layers::{self, Found, Layers};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// Copies; returns false if there was nothing to do. Blocking. With `squash` owners stay ours.
pub(crate) fn copy_up(image: &Layers, path: &str, volume: &Path, squash: bool) -> io::Result<bool> {
    if fs::read_dir(volume)?.next().is_some() {
        return Ok(false);
    }
    let folder = fs::File::open(volume)?.into();
    match image.find(Path::new(path))? {
        Found::Folder(folders) => copy_folder(&folders, folder, squash).map(|()| true),
        Found::Other(_) | Found::Missing => Ok(false),
    }
}

fn copy_folder(sources: &[PathBuf], target: OwnedFd, squash: bool) -> io::Result<()> {
    let mut names = BTreeSet::new();
    for source in sources {
        for entry in fs::read_dir(source)? {
            names.insert(entry?.file_name());
        }
    }
    for name in names {
        match layers::child(sources, &name)? {
            Found::Missing => {}
            Found::Folder(folders) => {
                rustix::fs::mkdirat(&target, &name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&target, &name, flags, Mode::empty())?;
                copy_folder(&folders, made, squash)?;
            }
            Found::Other(from) => copy_other(&from, &target, &name, squash)?,
        }
    }
    set_metadata(&target, &fs::symlink_metadata(&sources[0])?, squash)
}

fn copy_other(from: &Path, folder: &OwnedFd, name: &OsStr, squash: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let kind = meta.file_type();
    if kind.is_file() {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut to = fs::File::from(rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
        io::copy(&mut fs::File::open(from)?, &mut to)?;
        set_metadata(&to, &meta, squash)?;
        let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
        return Ok(rustix::fs::futimens(&to, &Timestamps { last_access: time, last_modification: time })?);
    }
    if kind.is_symlink() {
        rustix::fs::symlinkat(fs::read_link(from)?, folder, name)?;
    } else if kind.is_fifo() {
        rustix::fs::mknodat(folder, name, FileType::Fifo, Mode::from_raw_mode(meta.mode() & 0o7777), 0)?;
    } else {
        return Ok(()); // devices and sockets have no place in a volume
    }
    if !squash {
        let (uid, gid) = owner(&meta);
        rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn owner(meta: &fs::Metadata) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())))
}

/// Owner before mode: chown clears set-uid.
pub(crate) fn set_metadata(to: impl AsFd, meta: &fs::Metadata, squash: bool) -> io::Result<()> {
    if !squash {
        let (uid, gid) = owner(meta);
        rustix::fs::fchown(&to, uid, gid)?;
    }
    Ok(rustix::fs::fchmod(&to, Mode::from_raw_mode(meta.mode() & 0o7777))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_new_volume_gets_the_merged_content_and_a_used_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower, volume) = (dir.path().join("u"), dir.path().join("l"), dir.path().join("v"));
        for path in [upper.join("data"), lower.join("data/sub"), volume.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(lower.join("data/a"), "old").unwrap();
        fs::write(upper.join("data/a"), "new").unwrap();
        fs::write(lower.join("data/sub/b"), "b").unwrap();
        symlink("a", lower.join("data/link")).unwrap();
        fs::set_permissions(upper.join("data"), fs::Permissions::from_mode(0o750)).unwrap();
        let image = Layers { folders: vec![upper, lower] };
        assert!(copy_up(&image, "/data", &volume, false).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "new");
        assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "b");
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("a"));
        assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o777, 0o750);
        assert!(!copy_up(&image, "/data", &volume, false).unwrap());
        fs::remove_dir_all(&volume).unwrap();
        fs::create_dir(&volume).unwrap();
        assert!(!copy_up(&image, "/none", &volume, false).unwrap());
    }
}
