//! What volumes hold, as tars: out of one, into one, from one into another.
//!
//! New content is unpacked beside the volumes and becomes a volume's by one rename, in which old and new content change
//! places. So a broken tar, a full disk or a killed daemon leaves a volume as it was, and a new one is not there at
//! all. What a running container has mounted would still be the old content, so then it is refused; moving file by
//! file into the mounted folder instead would show the container, and leave after a crash, a mixture of both.

use crate::{
    error::{Error, Result},
    files::archive::{self, ArchiveReader, Root},
    inner::Inner,
    volumes::local::Volume,
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    sync::Arc,
};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

/// What is still read of a tar that is refused. *Unit:* bytes.
const REST_MAX: u64 = 64 << 20;

impl Inner {
    pub(crate) async fn volume_export(self: &Arc<Self>, name: &str) -> Result<ArchiveReader> {
        let (volume, inner) = (self.volume(name)?, self.clone());
        let root = crate::blocking(move || {
            // The open folder keeps what is mounted there.
            let user = crate::random_id();
            inner.volumes.acquire(&volume, &user)?;
            let root = Root::of(&volume.mountpoint).map_err(Error::io("open", &volume.mountpoint));
            inner.volumes.release(&user);
            root
        })
        .await?;
        Ok(archive::whole(self, root))
    }

    pub(crate) async fn volume_import(
        self: &Arc<Self>,
        name: &str,
        tar: impl AsyncRead + Send + Unpin + 'static,
        force: bool,
    ) -> Result<Volume> {
        self.fill_volume(name, BTreeMap::new(), tar, force).await
    }

    pub(crate) async fn volume_copy(
        self: &Arc<Self>,
        source: &str,
        target: &str,
        force: bool,
    ) -> Result<Volume> {
        let labels = self.volume(source)?.labels;
        let tar = self.volume_export(source).await?;
        self.fill_volume(target, labels, tar, force).await
    }

    async fn fill_volume(
        self: &Arc<Self>,
        name: &str,
        labels: BTreeMap<String, String>,
        tar: impl AsyncRead + Send + Unpin + 'static,
        force: bool,
    ) -> Result<Volume> {
        let (inner, target) = (self.clone(), name.to_owned());
        let mut tar = SyncIoBridge::new(tar);
        let (volume, new) = crate::blocking(move || {
            let filled = inner.fill(&target, labels, &mut tar, force);
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
        let (volumes, squash) = (&self.volumes, self.userns_squash);
        volumes.check_fillable(target, force)?;
        self.nobody_mounts(target)?;
        let staged = volumes.stage()?;
        unpack(target, tar, &staged.content(), squash)?;
        // No container can be between having mounted the old content and being known to run.
        let _still = self.mounting.blocking_write();
        self.nobody_mounts(target)?;
        volumes.install(staged, target.to_owned(), labels, force)
    }

    /// Refuses a volume that a running container has.
    fn nobody_mounts(&self, volume: &str) -> Result<()> {
        let mut containers = self.registry.snapshots();
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
