//! What volumes hold, as tars: out of one, into one, from one into another.
//!
//! New content is unpacked beside the volumes and becomes a volume's by one rename, in which old and new content change
//! places. So a broken tar, a full disk or a killed daemon leaves a volume as it was, and a new one is not there at
//! all. What a running container has mounted would still be the old content, so then it is refused; moving file by
//! file into the mounted folder instead would show the container, and leave after a crash, a mixture of both.

use crate::{
    error::{Error, Result},
    files::archive::{self, ArchiveReader, Root},
    inner::Engine,
    volumes::local::Volume,
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

/// What is still read of a tar that is refused. *Unit:* bytes.
const REST_MAX: u64 = 64 << 20;

impl Engine {
    /// Returns a tar of all that a volume holds: owners, modes, attributes, hard links, times to the nanosecond; its
    /// first entry, `./`, is the volume's own folder. What containers write meanwhile may be in it or not.
    pub async fn volume_export(&self, name: &str) -> Result<ArchiveReader> {
        let (volume, engine) = (self.volume(name)?, self.clone());
        let root = crate::blocking(move || {
            // The open folder keeps what is mounted there.
            let user = crate::random_id();
            engine.inner.volumes.acquire(&volume, &user)?;
            let root = Root::of(&volume.mountpoint).map_err(Error::io("open", &volume.mountpoint));
            engine.inner.volumes.release(&user);
            root
        })
        .await?;
        Ok(archive::whole(self, root))
    }

    /// Makes what a tar (plain, gzip or zstd) holds the content of a volume, which is made if it is not there. With
    /// `force`, of one that has other content.
    ///
    /// # Errors
    /// `Conflict` without `force` for a volume with content, with `force` while a running container has it, and for one
    /// that is a folder of the host; `InvalidParameter` for a broken tar. After any error everything is as before.
    pub async fn volume_import(
        &self,
        name: &str,
        tar: impl AsyncRead + Send + Unpin + 'static,
        force: bool,
    ) -> Result<Volume> {
        self.fill_volume(name, BTreeMap::new(), tar, force).await
    }

    /// Makes a volume with the content and the labels of another; the rest is as with [`Self::volume_import`].
    pub async fn volume_copy(&self, source: &str, target: &str, force: bool) -> Result<Volume> {
        let labels = self.volume(source)?.labels;
        let tar = self.volume_export(source).await?;
        self.fill_volume(target, labels, tar, force).await
    }

    async fn fill_volume(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        tar: impl AsyncRead + Send + Unpin + 'static,
        force: bool,
    ) -> Result<Volume> {
        let (engine, target) = (self.clone(), name.to_owned());
        let mut tar = SyncIoBridge::new(tar);
        let (volume, new) = crate::blocking(move || {
            let filled = engine.fill(&target, labels, &mut tar, force);
            if filled.is_err() {
                // Who still sends would not hear why it is refused: the connection would break under it.
                drop(io::copy(&mut tar.take(REST_MAX), &mut io::sink()));
            }
            filled
        })
        .await?;
        if new {
            self.volume_event("create", &volume.name, &volume.driver, None);
        }
        Ok(volume)
    }

    fn fill(
        &self,
        target: &str,
        labels: BTreeMap<String, String>,
        tar: impl Read + Send,
        force: bool,
    ) -> Result<(Volume, bool)> {
        let (volumes, squash) = (&self.inner.volumes, self.inner.userns_squash);
        volumes.check_fillable(target, force)?;
        self.nobody_mounts(target)?;
        let staged = volumes.stage()?;
        unpack(target, tar, &staged.content(), squash)?;
        // No container can be between having mounted the old content and being known to run.
        let _still = self.inner.mounting.blocking_write();
        self.nobody_mounts(target)?;
        volumes.install(staged, target.to_owned(), labels, force)
    }

    /// Refuses a volume that a running container has.
    fn nobody_mounts(&self, volume: &str) -> Result<()> {
        let mut containers = self.inner.registry.snapshots();
        containers.retain(|c| c.state.is_running());
        match crate::volumes::api::users(&containers, volume).as_slice() {
            [] => Ok(()),
            users => Err(Error::Conflict(format!(
                "volume {volume} is mounted by running containers; stop them first: {}",
                users.join(", ")
            ))),
        }
    }
}

/// Unpacks onto the disk.
fn unpack(volume: &str, tar: impl Read + Send, into: &Path, squash: bool) -> Result<()> {
    let failed = Error::io("unpack into", into);
    let unpacked = || -> io::Result<Result<(), image::UnpackError>> {
        let folder = std::fs::File::open(into)?;
        let options = image::TreeOptions { squash, keep_type: false, whole: true };
        let unpacked = image::unpack_tree(tar, folder.try_clone()?.into(), options);
        rustix::fs::syncfs(&folder)?;
        Ok(unpacked)
    };
    match unpacked() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e))
            if matches!(e.source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            let reason = e.source;
            Err(Error::invalid(format!(
                "volume {volume} stays as it was: cannot unpack {}: {reason}",
                e.entry
            )))
        }
        Ok(Err(e)) => Err(failed(io::Error::other(e))),
        Err(e) => Err(failed(e)),
    }
}
