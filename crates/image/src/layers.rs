//! Unpacked layers of an image, and looking into them without mounting anything.

use crate::{
    error::{Error, Result},
    unpack::is_whiteout,
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::PathBuf,
    rc::Rc,
};

/// *Unit:* bytes of a file read through the layers (`/etc/passwd` and its like).
const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_SYMLINKS: u32 = 40;

/// Unpacked layers of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Directories, top first: the `lowerdir`s of an overlay. Paths contain no `:`, `,` or `\` unless the root does.
    pub dirs: Vec<PathBuf>,
}

/// One directory as overlayfs would merge it: the same path in each layer that takes part, top first.
type Merged = Rc<Vec<OwnedFd>>;

enum Found {
    Nothing,
    Directory(Merged),
    /// Anything else, by the directory it is in.
    Other {
        parent: Merged,
        layer: usize,
        kind: FileType,
    },
}

impl Layers {
    /// Returns the content of a file as a container would see it, `None` if there is none (or no regular file).
    /// Whiteouts count and symlinks stay inside the root. Blocking: a few small reads.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is larger than 64 MiB.
    pub fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.read(path).map_err(Error::io("read image file", path))
    }

    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let open = |dir: &PathBuf| rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root: Merged = Rc::new(self.dirs.iter().map(open).collect::<Result<_, _>>()?);
        let mut stack = vec![root];
        let mut todo: VecDeque<Vec<u8>> = components(path.as_bytes());
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let here = stack.last().expect("the root is never taken off the stack");
            match look_up(here, &name)? {
                Found::Nothing => return Ok(None),
                Found::Directory(directory) => stack.push(directory),
                Found::Other { parent, layer, kind: FileType::Symlink } => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = rustix::fs::readlinkat(&parent[layer], &*name, Vec::new())?;
                    let target = target.as_bytes();
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    for part in components(target).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Found::Other { parent, layer, kind: FileType::RegularFile } if todo.is_empty() => {
                    return read_at(&parent[layer], &name).map(Some);
                }
                Found::Other { .. } => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

fn look_up(here: &Merged, name: &[u8]) -> io::Result<Found> {
    let mut merged = Vec::new();
    for (layer, directory) in here.iter().enumerate() {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            let opaque = is_opaque(&fd);
            merged.push(fd);
            if opaque {
                break;
            }
        } else if merged.is_empty() && !is_whiteout(&stat) {
            return Ok(Found::Other { parent: Rc::clone(here), layer, kind });
        } else {
            break;
        }
    }
    Ok(if merged.is_empty() { Found::Nothing } else { Found::Directory(Rc::new(merged)) })
}

fn is_opaque(directory: &OwnedFd) -> bool {
    [true, false].into_iter().any(|squash| {
        let mut value = [0; 2];
        let name = crate::unpack::opaque_attribute(squash);
        rustix::fs::fgetxattr(directory, name, &mut value).is_ok_and(|length| value[..length] == *b"y")
    })
}

fn read_at(directory: &OwnedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let mut content = Vec::new();
    if file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)? as u64 > MAX_FILE_BYTES {
        return Err(Errno::FBIG.into());
    }
    Ok(content)
}
