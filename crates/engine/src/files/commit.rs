//! `docker commit`: what a container changed, as one more layer, with its configuration, as an image.

use crate::{
    ask::{config::ContainerConfig, merge},
    error::{Error, Result},
    files::{
        archive::{self, ArchiveReader, Root},
        changes, layers,
    },
    inner::Inner,
    life::command::Command,
    seen::container::{Change, ChangeKind, Container, Status},
};
use rustix::fs::OFlags;
use std::{
    fs, io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a commit is given. Source: Docker API `ImageCommit`.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    pub reference: Option<image::Reference>,
    pub author: String,
    pub comment: String,
    /// Stop its processes while its files are read.
    pub pause: bool,
    /// What goes before the container's own configuration.
    pub config: Option<Box<ContainerConfig>>,
    /// Instructions of a Dockerfile, applied to the configuration.
    pub changes: Vec<String>,
}

pub(crate) async fn commit(inner: &Inner, container: &str, options: CommitOptions) -> Result<image::Digest> {
    let container = inner.inspect(container)?;
    let base: image::Digest =
        container.image_id.parse().map_err(|_| Error::NoSuchImage(container.image_id.clone()))?;
    // One that has ended by itself meanwhile stands as still as one that is paused.
    let pause = options.pause && container.state.status == Status::Running;
    let paused = pause && as_far_as_it_can(inner.ask(&container.id, Command::Pause).await)?;
    let reference = options.reference.as_ref().map(ToString::to_string).unwrap_or_default();
    let made = make(inner, &container, &base, options).await;
    if paused {
        as_far_as_it_can(inner.ask(&container.id, Command::Unpause).await)?;
    }
    let id = made?;
    let of_image = [("imageID", id.to_string()), ("imageRef", reference)];
    inner.publish(crate::seen::event::container_event(&container, "commit", of_image));
    Ok(id)
}

/// Returns true if it was done. What has no cgroup, as without root, is committed while it runs: so podman does.
///
/// # Errors
/// Anything but that the container does not run any more, or cannot be paused at all.
fn as_far_as_it_can(done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(Error::NotRunning(_) | Error::NotPaused(_)) => Ok(false),
        Err(error @ Error::NoCgroup { .. }) => {
            tracing::warn!(%error, "a container is committed without a pause");
            Ok(false)
        }
        Err(other) => Err(other),
    }
}

async fn make(
    inner: &Inner,
    container: &Arc<Container>,
    base: &image::Digest,
    options: CommitOptions,
) -> Result<image::Digest> {
    let config = match options.config {
        Some(asked) => Arc::new(merge::merge(*asked, defaults(&container.config))?),
        None => container.config.clone(),
    };
    let layer = layer(inner, container).await?;
    let commit = image::Commit {
        reference: options.reference,
        author: options.author,
        comment: options.comment,
        container: container.id.clone(),
        image: container.config.image.clone(),
        created_by: merge::command(&container.config).join(" "),
        config: image_config(&config),
        changes: options.changes,
    };
    let made = inner.images.commit(base, layer, commit).await;
    made.map_err(|e| Error::Image {
        operation: format!("commit container {}", container.name),
        source: e.into(),
    })
}

/// Returns the changes as a layer's tar; `None` if there are none.
///
/// *Source:* OCI image-spec `layer.md`, "Whiteouts".
async fn layer(inner: &Inner, container: &Arc<Container>) -> Result<Option<ArchiveReader>> {
    let changes = changes::changes(inner, container).await?;
    Ok(layer_of(inner, inner.container_dir(&container.id).join("upper"), changes))
}

/// As [`layer`], of any upper folder.
pub(crate) fn layer_of(inner: &Inner, upper: PathBuf, changes: Vec<Change>) -> Option<ArchiveReader> {
    if changes.is_empty() {
        return None;
    }
    Some(archive::stream(inner, move |out| {
        let root = Root::of(&upper)?;
        for change in &changes {
            let path = Path::new(change.path.trim_start_matches('/'));
            let parent = path.parent().unwrap_or(Path::new(""));
            if change.kind == ChangeKind::Deleted {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                archive::append_empty(out, &parent.join(format!(".wh.{name}")))?;
                continue;
            }
            let folder = root.resolve(parent, OFlags::PATH | OFlags::DIRECTORY)?;
            match archive::append_one(out, &folder, path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // removed meanwhile
                other => other?,
            }
            // No link is followed on this way.
            let held = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
            let way = held.join(path.file_name().unwrap_or_default());
            if fs::symlink_metadata(&way).is_ok_and(|found| found.is_dir()) && layers::is_opaque(&way) {
                archive::append_empty(out, &path.join(".wh..wh..opq"))?;
            }
        }
        Ok(())
    }))
}

/// What a container's configuration says where nothing else does.
fn defaults(config: &ContainerConfig) -> merge::ImageDefaults {
    merge::ImageDefaults {
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        env: config.env.clone(),
        user: config.user.clone().unwrap_or_default(),
        working_dir: config.working_dir.clone().unwrap_or_default(),
        labels: config.labels.clone(),
        exposed_ports: config.exposed_ports.iter().copied().collect(),
        volumes: config.volumes.iter().cloned().collect(),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.clone(),
    }
}

/// What of a container's configuration its image keeps.
fn image_config(config: &ContainerConfig) -> image::Config {
    let healthcheck = config.healthcheck.as_ref().map(|h| image::Healthcheck {
        test: h.test.clone(),
        interval: h.interval.unwrap_or_default(),
        timeout: h.timeout.unwrap_or_default(),
        start_period: h.start_period.unwrap_or_default(),
        start_interval: h.start_interval.unwrap_or_default(),
        retries: h.retries.unwrap_or_default(),
    });
    image::Config {
        user: config.user.clone().unwrap_or_default(),
        exposed_ports: config.exposed_ports.iter().map(ToString::to_string).collect(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        volumes: config.volumes.iter().cloned().collect(),
        working_dir: config.working_dir.clone().unwrap_or_default(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        healthcheck,
        ..image::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::runtime_failed;

    #[test]
    fn what_has_no_cgroup_is_committed_without_a_pause_and_what_cannot_be_frozen_is_not() {
        let failed = |operation, kind: io::ErrorKind| {
            let error = runtime::Error::Cgroup { operation, path: "/c".to_owned(), source: kind.into() };
            as_far_as_it_can(Err(runtime_failed("pause", "abc", error)))
        };
        assert!(matches!(failed("find", io::ErrorKind::NotFound), Ok(false)));
        for (operation, kind) in
            [("freeze", io::ErrorKind::TimedOut), ("find", io::ErrorKind::PermissionDenied)]
        {
            assert!(matches!(failed(operation, kind), Err(Error::Runtime { .. })), "{operation}");
        }
        assert!(matches!(as_far_as_it_can(Ok(())), Ok(true)));
        assert!(matches!(as_far_as_it_can(Err(Error::NotRunning("abc".to_owned()))), Ok(false)));
        assert!(as_far_as_it_can(Err(Error::AlreadyPaused("abc".to_owned()))).is_err());
    }
}
