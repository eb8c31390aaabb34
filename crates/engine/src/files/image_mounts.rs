//! Images whose files a container sees at a path, read-only: mounts of type `image`. The image is held for as long as the
//! container is there, beside its own. *Source:* Docker API `Mount.ImageOptions`.

use crate::{
    ask::config::LayerMount,
    error::{Error, Result},
    files::layers::{Found, Layers},
    inner::Inner,
    seen::container::{Container, MountPointKind},
};
use image::{Digest, Image};
use std::path::{Path, PathBuf};

/// Finds the image of a mount that is being made, and looks whether it has what is to be mounted.
///
/// # Errors
/// No such image, or nothing at the path in it.
pub(crate) async fn find(images: &image::Store, reference: &str, subpath: &str) -> Result<Image> {
    let found = images.get(reference).await.ok_or_else(|| Error::NoSuchImage(reference.to_owned()))?;
    shown(images, &found.id, subpath).await?;
    Ok(found)
}

/// Holds the images that a container mounts.
///
/// # Errors
/// One has been removed.
pub(crate) async fn hold<'a>(
    images: &image::Store,
    container: &str,
    mounted: impl Iterator<Item = &'a str>,
) -> Result<()> {
    for (n, image) in mounted.enumerate() {
        let id = id_of(image)?;
        let held = images.hold(&id, &format!("{container}/{n}")).await;
        held.map_err(|_| Error::NoSuchImage(image.to_owned()))?;
    }
    Ok(())
}

/// Lets go of all images that a container holds: its own too.
pub(crate) async fn release(inner: &Inner, container: &str) {
    let mounted = format!("{container}/");
    for (holder, _) in inner.images.holders().await {
        if holder == container || holder.starts_with(&mounted) {
            inner.images.release(&holder).await;
        }
    }
}

/// Returns what a container that starts sees of images.
///
/// # Errors
/// One cannot be unpacked.
pub(crate) async fn all(images: &image::Store, container: &Container) -> Result<Vec<LayerMount>> {
    let mut all = Vec::new();
    for point in container.mounts.iter().filter(|point| point.kind == MountPointKind::Image) {
        let lowers = shown(images, &id_of(&point.image)?, &point.subpath).await?;
        all.push(LayerMount { target: point.destination.clone(), lowers, scratch: None });
    }
    Ok(all)
}

fn id_of(image: &str) -> Result<Digest> {
    image.parse().map_err(|_| Error::NoSuchImage(image.to_owned()))
}

/// Returns the folders that make up a folder of an image, top first, or the one file at the path.
async fn shown(images: &image::Store, id: &Digest, subpath: &str) -> Result<Vec<PathBuf>> {
    let unpacked = images.rootfs(id).await;
    let failed = |e: image::Error| Error::Image { operation: format!("unpack image {id}"), source: e.into() };
    let folders = unpacked.map_err(failed)?.dirs;
    if subpath.is_empty() {
        return Ok(folders);
    }
    let subpath = subpath.to_owned();
    crate::blocking(move || match (Layers { folders }).find(Path::new(&subpath)) {
        Ok(Found::Folder(folders)) => Ok(folders),
        Ok(Found::Other(file)) => Ok(vec![file]),
        // Docker's words, as for a volume.
        Ok(Found::Missing) => {
            Err(Error::invalid(format!("cannot access path {subpath}: no such file or directory")))
        }
        Err(error) => Err(Error::invalid(format!("cannot access path {subpath}: {error}"))),
    })
    .await
}
