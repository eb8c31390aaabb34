//! What was looked up before the spec is written, which itself looks nowhere.

use crate::{
    ask::config::{ContainerConfig, LayerMount},
    seen::container::MountPoint,
    spec::{cdi, users::Identity},
};
use std::path::{Path, PathBuf};

/// A tmpfs to be mounted, with its options.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tmpfs {
    pub(crate) destination: String,
    pub(crate) options: String,
}

/// What was looked up for the spec.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) hostname: &'a str,
    /// Variables that tell of what it is linked to.
    pub(crate) links: &'a [String],
    pub(crate) identity: &'a Identity,
    pub(crate) mounts: &'a [MountPoint],
    /// What is seen of images.
    pub(crate) images: &'a [LayerMount],
    pub(crate) tmpfs: &'a [Tmpfs],
    /// hosts, hostname, resolv.conf, secrets: (host path, container path, writable).
    pub(crate) files: &'a [(PathBuf, String, bool)],
    /// What the devices that were asked for bring along.
    pub(crate) edits: &'a cdi::Edits,
    /// `None` = the host's own network.
    pub(crate) netns: Option<&'a Path>,
    /// Pids of containers whose namespaces are joined.
    pub(crate) pid_of: Option<u32>,
    pub(crate) ipc_of: Option<u32>,
    pub(crate) cgroups_path: &'a str,
    pub(crate) userns_squash: bool,
    /// The ids that it has on the host and the user namespace that they are in, where it has one.
    pub(crate) users: Option<(&'a runtime::IdMap, &'a Path)>,
}
