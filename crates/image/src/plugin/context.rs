//! Takes a plugin's folder apart, as it comes in one tarball: `config.json` into memory, `rootfs/` into a layer.
//!
//! *Source:* moby `plugin/backend_linux.go`, `splitConfigRootFSFromTar`.

use super::CONFIG_BYTES_MAX;
use crate::{
    compression::{Compression, sniff},
    digest::{Digest, Hasher},
    error::{Error, Result},
    store::Ingest,
    tarball::{Entry, Reader},
};
use flate2::write::GzEncoder;
use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Component, Path, PathBuf},
};
use tar::{Builder, EntryType, Header};

/// What a plugin is made of.
#[derive(Debug)]
pub struct Context {
    /// `config.json` as it came.
    pub config: Vec<u8>,
    /// Of the layer that the root is, before compression.
    pub diff_id: Digest,
    pub(super) rootfs: Ingest,
}

/// Reads a tarball; the layer goes into `rootfs`.
pub(super) fn split(tarball: impl Read + Send, rootfs: Ingest) -> Result<Context> {
    let (head, whole) = sniff(tarball).map_err(Error::Archive)?;
    let plain = Compression::of(&head).reader(whole).map_err(Error::Archive)?;
    let mut entries = Reader::new(plain);
    let layer =
        Layer { out: GzEncoder::new(rootfs, flate2::Compression::default()), hasher: Hasher::default() };
    let mut layer = Builder::new(layer);
    let (mut config, mut has_root) = (None, false);
    while let Some(entry) = entries.next_entry().map_err(Error::Archive)? {
        let path = relative(&entry.path)?;
        if path == Path::new("config.json") {
            config = Some(read_config(&mut entries)?);
        } else if let Ok(below) = path.strip_prefix("rootfs") {
            append(&mut layer, below, &entry, &mut entries).map_err(|source| refused(&entry, source))?;
            has_root = true;
        }
    }
    // So that the client is not cut off while it sends what comes behind the end mark.
    entries.drain().map_err(Error::Archive)?;
    if !has_root {
        return Err(Error::InvalidArchive("no rootfs found".to_owned()));
    }
    let config = config.ok_or_else(|| Error::InvalidArchive("config not found".to_owned()))?;
    let finished = layer.into_inner().and_then(|layer| Ok((layer.out.finish()?, layer.hasher.finish())));
    let (rootfs, diff_id) = finished.map_err(Error::Archive)?;
    Ok(Context { config, diff_id, rootfs })
}

/// A tar on its way into the store: its digest is that of the tar, not of what is stored.
struct Layer {
    out: GzEncoder<Ingest>,
    hasher: Hasher,
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns a path without what leads nowhere: `/`, `.`, and `a/..`.
fn relative(path: &[u8]) -> Result<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(path.to_owned()));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if !clean.pop() => {
                let reason = format!("{} leads out of the plugin's folder", path.display());
                return Err(Error::InvalidArchive(reason));
            }
            _ => {}
        }
    }
    Ok(clean)
}

fn read_config(reader: &mut impl Read) -> Result<Vec<u8>> {
    let mut config = Vec::new();
    reader.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut config).map_err(Error::Archive)?;
    super::bounded("configuration", config.len())?;
    Ok(config)
}

/// Appends an entry under a path that is relative to the root.
fn append(out: &mut Builder<Layer>, path: &Path, entry: &Entry, data: &mut impl Read) -> io::Result<()> {
    let unfit = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidData, reason.to_owned()));
    let path = if path.as_os_str().is_empty() { Path::new("./") } else { path };
    if entry.sparse.is_some() {
        return unfit("a sparse file has no place in a plugin");
    }
    let mut header = Header::new_gnu();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or_default());
    header.set_size(0);
    let xattrs = entry.xattrs.iter().map(|(name, value)| (xattr_key(name), value.as_slice()));
    let xattrs: Vec<_> = xattrs.collect();
    if !xattrs.is_empty() {
        out.append_pax_extensions(xattrs.iter().map(|(key, value)| (key.as_str(), *value)))?;
    }
    let link = Path::new(std::ffi::OsStr::from_bytes(&entry.link));
    match entry.kind {
        EntryType::Regular | EntryType::Continuous => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(entry.size);
            out.append_data(&mut header, path, data)
        }
        EntryType::Directory | EntryType::Fifo => out.append_data(&mut header, path, io::empty()),
        EntryType::Char | EntryType::Block => {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
            out.append_data(&mut header, path, io::empty())
        }
        EntryType::Symlink => out.append_link(&mut header, path, link),
        // It names another entry, and the layer begins where `rootfs` did.
        EntryType::Link => match link.strip_prefix("/").unwrap_or(link).strip_prefix("rootfs") {
            Ok(below) => out.append_link(&mut header, path, below),
            Err(_) => unfit("a hard link to a file that is not in rootfs"),
        },
        _ => unfit("neither file nor folder, link nor device"),
    }
}

fn xattr_key(name: &[u8]) -> String {
    format!("SCHILY.xattr.{}", String::from_utf8_lossy(name))
}

fn refused(entry: &Entry, source: io::Error) -> Error {
    let path = String::from_utf8_lossy(&entry.path);
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::InvalidArchive(format!("{path}: {source}"))
        }
        _ => Error::Archive(io::Error::new(source.kind(), format!("{path}: {source}"))),
    }
}
