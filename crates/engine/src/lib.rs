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
//! *Folders*, in the order in which they are best read; each opens with its own story. Below `inner` stand records (of
//! volumes, networks, builds, containers), on it what is done with them:
//!
//! | folder | what is in it |
//! |---|---|
//! | `disk` | the engine's own files: whole records, closed folders |
//! | `ask` | what is wanted: configuration, defaults, the gate that judges them |
//! | `seen` | what is: snapshots, events, statistics, lists |
//! | `networks`, `volumes`, `logs` | what containers are given, and what they say |
//! | `inner` | what every operation stands on: the rooms below take it, or less |
//! | `files` | layers, `docker cp`, commit, secrets |
//! | `spec` | the OCI spec: users, devices, namespaces, limits |
//! | `life` | made, started, looked after, ended |
//! | `build` | a Dockerfile's stages, carried out |
//! | `engine`, `open` | the door, which no room knows, and what happens when it opens |
//!
//! *Start reading at* [`Engine`], then `life::owner` and `life::start`.

mod ask;
mod build;
mod disk;
mod engine;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod inner;
mod life;
mod logs;
mod networks;
mod open;
mod seen;
mod spec;
mod volumes;

pub use ask::{
    config::*,
    defaults::{AddressPool, BridgeIpv6, ContainerDefaults, Defaults},
    defaults_gate::check as check_defaults,
    execs::{Exec, ExecConfig, ExecStart},
    gate::RUNTIMES,
    names::random as random_name,
};
pub use build::{
    AgentIo, BuildContext, BuildLine, BuildOptions, CachedStep, CopyError, SshAgents, failure::BuildError,
};
pub use disk::folders;
pub use engine::Engine;
pub use error::{Cause, Error, ErrorKind, Result};
pub use files::{
    archive::{ArchiveReader, PathStat, PutOptions},
    commit::CommitOptions,
};
pub use inner::Options;
pub use life::{
    host::StoppedForHost,
    start::kept_name_sockets,
    streams::{AttachOptions, Streams, Wanted},
};
pub use logs::{
    driver::{DRIVERS as LOG_DRIVERS, size as parse_size},
    read::*,
};
pub use networks::{
    any::{AttachmentRequest, OverlayNetwork, Overlays},
    local::*,
};
pub use seen::{
    container::*,
    counts::Counts,
    event::{Event, EventKind, Events},
    list::read_ports,
    stats::*,
    until::read_until,
    waiting::Waiting,
};
pub use spec::{
    cdi::CDI_SPEC_DIRS,
    security::{AppArmor, apparmor_in_effect},
    userns,
};
pub use volumes::local::{Volume, VolumeConfig, VolumeUsage};

use futures::{FutureExt as _, future::Map};
use model::Timestamp;
use tokio::task::JoinError;

/// Returns the time of this host's clock.
pub(crate) fn now() -> Timestamp {
    Timestamp(sys::clock::nanos())
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

/// Work whose panic is its caller's.
pub(crate) type Done<T> =
    Map<image::Blocking<Result<T>>, fn(std::result::Result<Result<T>, JoinError>) -> Result<T>>;

/// Runs work that may block on a thread where it may.
pub(crate) fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Done<T> {
    image::blocking(work).map(|ended| match ended {
        Ok(result) => result,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => Err(Error::ShuttingDown),
    })
}
