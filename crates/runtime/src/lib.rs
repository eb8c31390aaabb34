//! One container: its namespaces, cgroup, overlay mount, seccomp filter, and the shim process that outlives the
//! daemon. For the engine; synchronous, never tokio, because a copy of a threaded process hangs sooner or later.
//!
//! ```text
//!   daemon (threads)                    shim (one thread)                         container
//!   ContainerPlan
//!     | launch::translate: spec -> plain data, file `plan`
//!     | Shim::spawn ---- exec --------> reads `plan`, makes the cgroup
//!     |                                 clone3 ----------------------------------> child: namespaces, mounts,
//!     | <--- Hello{pid} --------------- <---- ready (and the terminal) ----------- pivot_root, terminal; waits
//!     | start ------------------------> ----- go --------------------------------> user, seccomp, caps, execve
//!     | <--- Done --------------------- <---- end of file: executed
//!     | <--- Exited ------------------- log drained, `exit` written <------------- ends
//! ```
//!
//! With a user namespace another process goes before the child, which has no right on the host: `shim::users`.
//!
//! *Invariants:* whatever needs the spec is done by the daemon, so the shim stays small; the shim holds no state
//! that is not in its directory; signals and waiting go by pidfd, never by number; nothing is mounted in the
//! host's mount namespace.
//!
//! *Start reading at* [`Shim::spawn`], then [`shim::main`].

mod client;
mod error;
mod hooks;
mod launch;
mod plan;
mod userns;

pub mod caps;
pub mod cgroup;
pub mod config;
pub mod oci;
pub mod seccomp;

mod remove;
mod signal;
mod spec;

pub use caps::{Capabilities, Capability, default_caps, held_caps};
pub use cgroup::{IoOperation, Stats, kill_all, pause, stats, unpause, update};
pub use client::{Shim, ShimProgram};
pub use error::Error;
pub use hooks::{poststart, poststop};
pub use plan::{AttachFds, ContainerPlan, Event, ExecPlan, LogService, LogTarget, Rootfs, SyslogAddress};
pub use remove::remove;
pub use seccomp::{default_seccomp, read_seccomp};
use shim::state;
pub use shim::{self, ExitStatus, state::read_exit, userns::making_files_as};
pub use signal::parse_signal;
pub use spec::{
    default_device_rules, default_masked_paths, default_mounts, default_readonly_paths, default_spec,
};
pub use userns::{IdMap, IdRange, UserNamespace, try_layers};

/// Tells whether the kernel confines programs by AppArmor. Source: kernel Documentation/admin-guide/LSM/apparmor.rst.
#[must_use]
pub fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|bytes| bytes.first() == Some(&b'Y'))
}

/// Tells whether an AppArmor profile is loaded; `None` = this process may not see the list.
#[must_use]
pub fn apparmor_loaded(profile: &str) -> Option<bool> {
    let list = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").ok()?;
    // Each line is `name (mode)`.
    Some(list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile)))
}

/// Tells whether this process is in a user namespace that knows one uid only, what an ordinary user gets without
/// subordinate ids: then [`ContainerPlan::userns_squash`] is what works. Source: user_namespaces(7).
#[must_use]
pub fn single_uid() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let uids: u64 = map.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    uids == 1
}
