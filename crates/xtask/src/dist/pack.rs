//! Archives that are the same bytes for the same files.

use super::tree::{self, Tree};
use anyhow::{Context, Result};
use std::io::Write as _;

/// Packs files, sorted, under a folder such as `name-1.0/` or `./`, with the folders above them.
pub(crate) fn tar(files: &Tree, below: &str, epoch: u32) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_mtime(u64::from(epoch));
        header.set_size(content.len() as u64);
        // `append_data` would drop a leading `./`, which dpkg has in front of all.
        header.as_old_mut().name = name(path)?;
        header.set_cksum();
        tar.append(&header, content).with_context(|| format!("cannot pack {path}"))
    };
    add(below, tar::EntryType::Directory, 0o755, &[])?;
    for folder in tree::folders(files) {
        add(&format!("{below}{folder}/"), tar::EntryType::Directory, 0o755, &[])?;
    }
    for (path, file) in files {
        add(&format!("{below}{path}"), tar::EntryType::Regular, file.mode, &file.content)?;
    }
    Ok(tar.into_inner()?)
}

/// Returns the name's field of a header.
fn name(path: &str) -> Result<[u8; 100]> {
    let mut field = [0; 100];
    let place = field.get_mut(..path.len()).filter(|place| place.len() < 100);
    place.with_context(|| format!("{path} is too long for an archive"))?.copy_from_slice(path.as_bytes());
    Ok(field)
}

/// Compresses, without a checksum of its own: `SHA256SUMS` and the packages have theirs.
pub(crate) fn zstd(content: &[u8], level: i32) -> Result<Vec<u8>> {
    zstd::stream::encode_all(content, level).context("cannot compress")
}

/// Compresses; neither name nor time of the file are noted. *Source:* RFC 1952.
pub(crate) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    gzip.write_all(content)?;
    Ok(gzip.finish()?)
}

/// Returns the SHA-256 in hexadecimal digits.
pub(crate) fn sha256(content: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
