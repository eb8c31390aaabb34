//! Fills a new volume with what the image has at its path, as Docker does; a volume with content is left alone.

use crate::layers::{self, Found, Layers};
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
};

/// Copies; returns false if there was nothing to do. Blocking. With `squash` owners stay ours.
pub(crate) fn copy_up(image: &Layers, path: &str, volume: &Path, squash: bool) -> io::Result<bool> {
    if fs::read_dir(volume)?.next().is_some() {
        return Ok(false);
    }
    match image.find(Path::new(path))? {
        Found::Folder(folders) => copy_folder(&folders, volume, squash).map(|()| true),
        Found::Other(_) | Found::Missing => Ok(false),
    }
}

fn copy_folder(sources: &[PathBuf], target: &Path, squash: bool) -> io::Result<()> {
    let mut names = BTreeSet::new();
    for source in sources {
        for entry in fs::read_dir(source)? {
            names.insert(entry?.file_name());
        }
    }
    for name in names {
        let to = target.join(&name);
        match layers::child(sources, &name)? {
            Found::Missing => {}
            Found::Folder(folders) => {
                fs::create_dir(&to)?;
                copy_folder(&folders, &to, squash)?;
            }
            Found::Other(from) => copy_other(&from, &to, squash)?,
        }
    }
    let meta = fs::symlink_metadata(&sources[0])?;
    if !squash {
        chown(target, Some(meta.uid()), Some(meta.gid()))?;
    }
    fs::set_permissions(target, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

fn copy_other(from: &Path, to: &Path, squash: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
        fs::File::options().write(true).open(to)?.set_modified(meta.modified()?)?;
    } else if kind.is_fifo() {
        let mode = rustix::fs::Mode::from_raw_mode(meta.mode());
        rustix::fs::mknodat(rustix::fs::CWD, to, rustix::fs::FileType::Fifo, mode, 0)?;
    } else {
        return Ok(()); // devices and sockets have no place in a volume
    }
    if !squash {
        lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    }
    if kind.is_file() {
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?; // chown clears set-uid
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
