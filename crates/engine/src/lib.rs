//! The engine: containers of this host, their volumes, local networks, logs and events.
//!
//! ```text
//!   docker-api, node ----> Engine (handle) ---- commands ----> one owner task per container ----> shim
//!                             |   ^                                   |            <--- exit, oom ---'
//!                             |   '------ snapshots (watch) ----------'
//!                             +--> Volumes, LocalNetworks, Events
//! ```
//!
//! *Tasks.* One **owner** per container: it alone changes that container's state, writes its `state.json`, talks to
//! its shim, and publishes a snapshot of it; so operations on one container happen one after the other. Readers
//! (`inspect`, `list`, `wait`) look at snapshots and never wait for an owner. All tasks end with the engine; the
//! containers do not: their shims keep them, and [`Engine::open`] adopts them again.
//!
//! *Invariants.* Nothing is answered before it is on disk. Whatever is made belongs to a container folder under
//! `DATA_ROOT/containers`, and what has no such folder is removed at the next open. Secrets are in memory only.
//!
//! *Start reading at* [`Engine`], then `owner`.

mod any_network;
mod archive;
mod below;
mod build;
mod cdi;
mod changes;
mod command;
mod commit;
mod config;
mod container;
mod copy_up;
mod create;
mod defaults;
mod devices;
mod down_tree;
mod endpoint;
mod engine;
mod error;
mod etc;
mod event;
mod exec;
mod execs;
pub mod folders;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod health;
mod image_defaults;
mod image_mounts;
mod init_layer;
mod inner;
mod layers;
mod lifecycle;
mod links;
mod list;
mod local_network;
mod log_driver;
mod logs;
mod merge;
mod mounts;
mod names;
mod network_api;
mod open;
mod overlay;
mod owner;
mod persist;
mod probe;
mod registry;
mod restart;
mod secrets;
mod spec;
mod start;
mod stats;
mod streams;
mod top;
mod trees;
mod until;
mod usage;
pub mod userns;
mod users;
mod volume;
mod volume_api;
mod volume_archive;
mod volume_mount;

pub use any_network::{AttachmentRequest, OverlayNetwork, Overlays};
pub use archive::{ArchiveReader, PathStat, PutOptions};
pub use build::{
    AgentIo, BuildContext, BuildLine, BuildOptions, CachedStep, CopyError, SshAgents, failure::BuildError,
};
pub use cdi::CDI_SPEC_DIRS;
pub use commit::CommitOptions;
pub use config::*;
pub use container::*;
pub use defaults::{AddressPool, BridgeIpv6, Defaults};
pub use engine::Waiting;
pub use error::{Cause, Error, ErrorKind, Result};
pub use event::{Event, EventKind, Events};
pub use execs::{Exec, ExecConfig, ExecStart};
pub use gate::RUNTIMES;
pub use inner::{Engine, Options};
pub use list::read_ports;
pub use local_network::*;
pub use log_driver::{DRIVERS as LOG_DRIVERS, size as parse_size};
pub use logs::*;
pub use names::random as random_name;

pub use spec::{AppArmor, apparmor_in_effect};
pub use start::kept_name_sockets;
pub use stats::*;
pub use streams::{AttachOptions, Streams, Wanted};
pub use until::read_until;
pub use volume::{Volume, VolumeConfig, VolumeUsage};

use model::Timestamp;

/// Returns the time of this host's clock.
pub(crate) fn now() -> Timestamp {
    let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Returns 64 random hex digits.
pub(crate) fn random_id() -> String {
    use std::fmt::Write as _;
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes.iter().fold(String::with_capacity(64), |mut out, b| {
        write!(out, "{b:02x}").expect("writing to a String cannot fail");
        out
    })
}

/// Runs work that may block on a thread where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match image::blocking(work).await {
        Ok(result) => result,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => Err(Error::ShuttingDown),
    }
}
