//! The file tree of a container that is not mounted: its upper folder over the image's layers, read through
//! overlayfs' rules (whiteouts, opaque folders), symlinks resolved inside the tree and never on the host.

use crate::{
    error::{Error, Result},
    inner::Inner,
    seen::container::Container,
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Component, Path, PathBuf},
};

const MAX_LINKS: usize = 40;
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Folders that overlay each other, top first.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    pub(crate) folders: Vec<PathBuf>,
}

/// What is at a path.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// The folders that make up this folder, top first.
    Folder(Vec<PathBuf>),
    /// The real path of a file, device, socket or last symlink.
    Other(PathBuf),
    Missing,
}

impl Layers {
    /// Looks a path up, following symlinks, the last one included.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Found> {
        let mut stack = vec![self.folders.clone()];
        let mut left: VecDeque<OsString> = parts(path).collect();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let here = stack.last().expect("the root stays on the stack");
            match child(here, &part)? {
                Found::Missing => return Ok(Found::Missing),
                Found::Folder(folders) => stack.push(folders),
                Found::Other(real) => {
                    if !fs::symlink_metadata(&real)?.is_symlink() {
                        return Ok(if left.is_empty() { Found::Other(real) } else { Found::Missing });
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()));
                    }
                    let target = fs::read_link(&real)?;
                    if target.is_absolute() {
                        stack.truncate(1);
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                }
            }
        }
        Ok(Found::Folder(stack.pop().expect("the root stays on the stack")))
    }

    /// Returns the content of a regular file of at most 16 MiB; `None` if there is none.
    pub(crate) fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.find(Path::new(path))? {
            Found::Other(real) => {
                // A running container may have put a link or a fifo there by now.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = match rustix::fs::open(&real, flags | OFlags::NOCTTY, Mode::empty()) {
                    Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
                    opened => fs::File::from(opened?),
                };
                let meta = file.metadata()?;
                if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
                    return Ok(None);
                }
                let mut content = Vec::new();
                file.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
                Ok(Some(content))
            }
            Found::Folder(_) | Found::Missing => Ok(None),
        }
    }
}

/// The names of a path; `..` stays, `.` and slashes go.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Looks one name up in a merged folder, without following it.
pub(crate) fn child(folders: &[PathBuf], name: &OsString) -> io::Result<Found> {
    let mut merged = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(e),
        };
        if meta.is_dir() {
            let opaque = is_opaque(&path);
            merged.push(path);
            if opaque {
                break;
            }
            continue;
        }
        if is_whiteout(&path, &meta) || !merged.is_empty() {
            break;
        }
        return Ok(Found::Other(path));
    }
    Ok(if merged.is_empty() { Found::Missing } else { Found::Folder(merged) })
}

/// Overlayfs marks a removed name by a 0/0 character device, in user namespaces by an empty file with an xattr.
pub(crate) fn is_whiteout(path: &Path, meta: &fs::Metadata) -> bool {
    if meta.file_type().is_char_device() {
        return meta.rdev() == 0;
    }
    meta.is_file()
        && meta.len() == 0
        && ["trusted.overlay.whiteout", "user.overlay.whiteout"]
            .iter()
            .any(|name| rustix::fs::lgetxattr(path, *name, &mut [0u8; 8][..]).is_ok())
}

pub(crate) fn is_opaque(path: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 8];
        matches!(rustix::fs::lgetxattr(path, *name, &mut value[..]), Ok(1) if value[0] == b'y')
    })
}

/// The folders of a container's file tree, top first.
pub(crate) async fn of_container(inner: &Inner, container: &Container) -> Result<Vec<PathBuf>> {
    let id: image::Digest =
        container.image_id.parse().map_err(|_| Error::NoSuchImage(container.image_id.clone()))?;
    let operation = || format!("find layers of image {}", container.config.image);
    let layers = inner.images.rootfs(&id).await;
    let layers = layers.map_err(|e| Error::Image { operation: operation(), source: e.into() })?;
    let mut folders = vec![inner.container_dir(&container.id).join("upper")];
    folders.extend(layers.dirs);
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Layers) {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(lower.join("etc/sub")).unwrap();
        fs::create_dir_all(lower.join("real")).unwrap();
        let layers = Layers { folders: vec![upper, lower] };
        (dir, layers)
    }

    #[test]
    fn upper_hides_lower_and_folders_merge() {
        let (dir, layers) = tree();
        fs::write(dir.path().join("lower/etc/passwd"), "old").unwrap();
        fs::write(dir.path().join("lower/etc/group"), "group").unwrap();
        fs::write(dir.path().join("upper/etc/passwd"), "new").unwrap();
        assert_eq!(layers.read("/etc/passwd").unwrap().unwrap(), b"new");
        assert_eq!(layers.read("/etc/group").unwrap().unwrap(), b"group");
        assert!(layers.read("/etc/none").unwrap().is_none());
        assert!(matches!(layers.find(Path::new("/etc/sub")).unwrap(), Found::Folder(_)));
    }

    #[test]
    fn symlinks_never_leave_the_tree() {
        let (dir, layers) = tree();
        symlink("/real/../../../real/file", dir.path().join("upper/etc/link")).unwrap();
        symlink("../etc", dir.path().join("lower/real/up")).unwrap();
        symlink("/etc/shadow-of-host", dir.path().join("lower/etc/host")).unwrap();
        symlink("loop", dir.path().join("lower/etc/loop")).unwrap();
        fs::write(dir.path().join("lower/real/file"), "inside").unwrap();
        assert_eq!(layers.read("/etc/link").unwrap().unwrap(), b"inside");
        assert_eq!(layers.read("/real/up/link").unwrap().unwrap(), b"inside");
        assert!(layers.read("/etc/host").unwrap().is_none());
        assert!(layers.read("/etc/loop").is_err());
    }
}
