//! A store whose `images.json` is damaged: the file of the change before has the names, the blobs have the images.
//!
//! Every image can be found again, because its manifest is a blob. A name that was given by the very last change is
//! lost; tag or pull it again.

use super::{
    Blobs, LayerRecord, Metadata, Record, directory_names,
    metadata::{self, Document},
    parse_config, parse_manifest, unpacked,
};
use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::Manifest,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// *Limit* of a manifest. *Unit:* bytes. Source: OCI distribution-spec, "Pushing Manifests".
const DOCUMENT_MAX: u64 = 4 << 20;

/// Reads what is called how; a damaged file is put aside, and what it said found out from the rest.
///
/// # Errors
/// Another version of this program wrote it; the disk.
pub(super) fn read(root: &Path, blobs: &Blobs) -> Result<Metadata> {
    let path = root.join("images.json");
    let damage = match Metadata::read(&path) {
        Err(error @ Error::Io { .. }) => error,
        read => return read,
    };
    let aside = PathBuf::from(format!("{}.damaged", path.display()));
    fs::rename(&path, &aside).map_err(Error::io("move", &path))?;
    let before = Metadata::read(&metadata::before(&path));
    let names = before.as_ref().map_or(0, |metadata| metadata.tags.len());
    let mut metadata = before.or_else(|_| Metadata::read(&path))?;
    let known = metadata.images.len();
    for name in directory_names(blobs.directory())? {
        let Ok(digest) = format!("sha256:{name}").parse() else { continue };
        if let Some((id, document, record)) = image_of(root, blobs, digest)
            && !metadata.images.contains_key(&id)
        {
            metadata.documents.insert(digest, document);
            metadata.images.insert(id, record);
        }
    }
    tracing::error!(
        path = %aside.display(), error = chain(&damage), names, images = metadata.images.len(),
        nameless = metadata.images.len() - known,
        hint = "tag or pull what has no name; delete the damaged file when nothing is missing",
        "the list of images is damaged: it was set aside and made anew"
    );
    metadata.write(&path)?;
    Ok(metadata)
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Returns the image whose manifest this blob is.
fn image_of(root: &Path, blobs: &Blobs, digest: Digest) -> Option<(Digest, Document, Record)> {
    if fs::metadata(blobs.path(&digest)).ok()?.len() > DOCUMENT_MAX {
        return None;
    }
    let manifest = Manifest::new("", blobs.read(&digest).ok()?.into());
    let parsed = parse_manifest(&manifest).ok()?;
    let id = parsed.config.digest;
    let config = parse_config(id, &blobs.read(&id).ok()?).ok()?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != parsed.layers.len() || !parsed.layers.iter().all(|blob| blobs.has(&blob.digest)) {
        return None;
    }
    let layers = parsed.layers.into_iter().zip(diff_ids).map(|(blob, diff_id)| {
        let place = root.join("layers").join(&diff_id.hex()[..24]);
        LayerRecord { blob, diff_id, size_bytes: unpacked::noted_size(&place, diff_id).unwrap_or(0) }
    });
    let record = Record {
        manifest: digest,
        target: digest,
        layers: layers.collect(),
        last_tagged: time::OffsetDateTime::now_utc().unix_timestamp(),
        parent: None,
    };
    Some((id, Document { media_type: manifest.media_type, image: id }, record))
}
