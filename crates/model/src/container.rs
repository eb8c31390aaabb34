//! What runs inside a task: image, process, mounts, limits. Source: Docker API `TaskTemplate`,
//! compose specification "services".

use crate::{ConfigId, Duration, GenericRequests, Labels, SecretId, confine::Unfit};
use std::net::IpAddr;

/// A container as a service asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSpec {
    /// Image reference; pinned as `name:tag@sha256:..` at deploy when the digest is known.
    pub image: String,
    pub labels: Labels,
    /// Replaces the image's ENTRYPOINT when not empty. Source: compose `entrypoint`, API `Command`.
    pub command: Vec<String>,
    /// Replaces the image's CMD when not empty. Source: compose `command`, API `Args`.
    pub args: Vec<String>,
    /// `KEY=value`; a bare `KEY` removes the image's variable.
    pub env: Vec<String>,
    /// May hold Docker's templates, e.g. `{{.Task.Slot}}`; so may `env` and mount sources.
    pub hostname: Option<String>,
    pub working_dir: Option<String>,
    /// `user[:group]`, names resolved from the image.
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub tty: bool,
    pub open_stdin: bool,
    pub read_only: bool,
    pub mounts: Vec<Mount>,
    /// Signal name or number, e.g. `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL. `None` = 10 s.
    pub stop_grace_period: Option<Duration>,
    pub healthcheck: Option<Healthcheck>,
    /// `IP host..` lines for /etc/hosts. Source: API `Hosts`.
    pub hosts: Vec<String>,
    pub dns: DnsConfig,
    pub secrets: Vec<FileRef<SecretId>>,
    pub configs: Vec<FileRef<ConfigId>>,
    /// Runs a small init as pid 1 that reaps and forwards signals.
    pub init: Option<bool>,
    pub sysctls: Labels,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub privileged: bool,
    pub no_new_privileges: bool,
    /// *Unit:* bytes of /dev/shm; `None` = 64 MiB.
    pub shm_size_bytes: Option<u64>,
    pub oom_score_adj: i32,
    /// What of its host it shares or gets; Docker's services know none of it.
    pub host: Option<HostOptions>,
    /// Run one after the other when it has started; one that fails fails the task.
    pub post_start: Vec<Hook>,
    /// Run one after the other before it is told to stop; all of them have as long as its grace period, which begins
    /// after them.
    pub pre_stop: Vec<Hook>,
}

impl ContainerSpec {
    /// Says whether a template of it may ask for the labels of its service: its tasks are then told them.
    #[must_use]
    pub fn asks_for_service_labels(&self) -> bool {
        let asks = |text: &String| text.contains("{{") && text.contains("Labels");
        let mut mounts = self.mounts.iter();
        let mounts = mounts.any(|mount| {
            let of_source = match &mount.kind {
                MountKind::Bind { source, .. } => asks(source),
                MountKind::Volume { name, driver_opts, labels, .. } => {
                    name.as_ref().is_some_and(asks) || driver_opts.values().chain(labels.values()).any(asks)
                }
                MountKind::Tmpfs { .. } => false,
            };
            of_source || asks(&mount.target)
        });
        mounts || self.hostname.as_ref().is_some_and(asks) || self.env.iter().any(asks)
    }
}

/// A command beside the container's own. Source: compose `post_start`, `pre_stop`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hook {
    pub command: Vec<String>,
    /// `None` = the container's.
    pub user: Option<String>,
    pub privileged: bool,
    /// `None` = the container's.
    pub working_dir: Option<String>,
    /// `KEY=value`
    pub env: Vec<String>,
}

/// What a container shares with its host or gets of it. Zero, empty and `None` mean "not set". Source: compose
/// specification "services", keys of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostOptions {
    pub devices: Vec<DeviceMapping>,
    /// `c 13:* rwm`
    pub device_cgroup_rules: Vec<String>,
    /// `host`, or `private`, `shareable`, `none`.
    pub ipc: Option<String>,
    /// `host`
    pub pid: Option<String>,
    /// `host`
    pub uts: Option<String>,
    /// `host` or `private`; else as the node's `userns-remap` says.
    pub users: Option<String>,
    /// `host` or `private`.
    pub cgroup: Option<String>,
    pub cgroup_parent: Option<String>,
    pub domainname: Option<String>,
    pub runtime: Option<String>,
    /// Besides `no-new-privileges`.
    pub security_opts: Vec<String>,
    pub annotations: Labels,
    pub cpu_shares: u64,
    /// *Unit:* microseconds.
    pub cpu_period: u64,
    /// *Unit:* microseconds per period.
    pub cpu_quota: i64,
    pub cpuset: String,
    /// Memory and swap together; -1 = unlimited swap.
    pub memory_swap_bytes: i64,
    /// *Range:* 0 to 100.
    pub memory_swappiness: Option<u32>,
    /// *Range:* 10 to 1000.
    pub blkio_weight: u32,
    pub oom_kill_disable: bool,
}

/// Source: compose `devices`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMapping {
    pub host_path: String,
    pub container_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Source: API `Mount`, compose `volumes`, `tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the host; must exist unless `create` is set.
    Bind { source: String, propagation: Option<String>, create: bool, recursion: BindRecursion },
    /// A named volume of the node, made on first use; `None` = anonymous.
    Volume {
        name: Option<String>,
        driver: Option<String>,
        driver_opts: Labels,
        labels: Labels,
        no_copy: bool,
    },
    /// *Units:* bytes, permission bits.
    Tmpfs { size_bytes: Option<u64>, mode: Option<u32> },
}

/// What becomes of the mounts below the source of a bind mount. Source: docker/cli `opts/mount.go`, `bind-recursive`;
/// compose `bind.recursive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindRecursion {
    /// They come along, read-only where the mount is.
    #[default]
    Enabled,
    /// They stay behind: the folders under them are seen.
    Disabled,
    /// They come along, and stay writable where the mount is read-only.
    Writable,
    /// They come along read-only, or the container does not start.
    ReadOnly,
}

impl BindRecursion {
    /// Returns its word on the command line and in compose files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Writable => "writable",
            Self::ReadOnly => "readonly",
        }
    }

    /// Reads such a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        let all = [Self::Enabled, Self::Disabled, Self::Writable, Self::ReadOnly];
        all.into_iter().find(|one| one.word() == word)
    }
}

/// Source: API `HealthConfig`, compose `healthcheck`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `[]` = the image's; `["NONE"]` = off; `["CMD", ..]`; `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// `None` = 30 s.
    pub interval: Option<Duration>,
    /// `None` = 30 s.
    pub timeout: Option<Duration>,
    /// `None` = 0 s.
    pub start_period: Option<Duration>,
    /// `None` = 5 s.
    pub start_interval: Option<Duration>,
    /// `None` = 3.
    pub retries: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsConfig {
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// A secret or config shown to a container as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef<Id> {
    pub id: Id,
    pub name: String,
    /// Absolute, or relative to `/run/secrets` (secret) and `/` (config).
    pub target: String,
    /// Numeric, as Docker takes it.
    pub uid: String,
    pub gid: String,
    /// Permission bits.
    pub mode: u32,
}

/// Source: setrlimit(2); -1 = unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

impl Ulimit {
    /// What the kernel knows, in lower case. Source: setrlimit(2).
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];

    /// Reads `nofile=1024:2048`, or `nofile=1024` for both; `None` = it is neither. Source: docker/go-units `ulimit.go`.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let (name, limits) = text.split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Some(Self { name: name.to_owned(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
    }

    /// Judges it, but for what only a host knows (`fs.nr_open`).
    ///
    /// # Errors
    /// There is no such limit; less than -1; more at first than at most.
    pub fn check(&self, key: &'static str) -> Result<(), Unfit> {
        let Self { name, soft, hard } = self;
        let number = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX); // -1 = unlimited
        let why = if !Self::NAMES.contains(&name.to_ascii_lowercase().as_str()) {
            format!("invalid ulimit type: {name}")
        } else if *soft < -1 || *hard < -1 {
            format!("{name} is less than -1 (unlimited)")
        } else if number(*soft) > number(*hard) {
            format!("{name}: ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        } else {
            return Ok(());
        };
        Err(Unfit { key, why })
    }
}

/// Source: compose `deploy.resources`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceRequirements {
    pub limits: Resources,
    /// What the scheduler counts against a node.
    pub reservations: Resources,
    /// What a task has for itself alone beside these.
    pub generic: GenericRequests,
}

/// Zero means "not set".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// *Unit:* 10^-9 of a CPU.
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
    /// Limits only.
    pub pids: u64,
}

/// Source: compose `logging`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDriver {
    pub name: String,
    pub options: Labels,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_one_that_the_kernel_has_and_can_hold() {
        let why = |text: &str| Ulimit::of_text(text).expect(text).check("Ulimits").map_err(|e| e.why);
        for fine in ["nofile=1:2", "core=0", "CPU=-1", "stack=5:-1", "nproc=7"] {
            assert_eq!(why(fine), Ok(()), "{fine}");
        }
        for (text, part) in [
            ("files=1", "invalid ulimit type: files"),
            ("cpu=-2:1", "cpu is less than -1"),
            ("cpu=1:-2", "cpu is less than -1"),
            ("nofile=3:2", "must be less than or equal to hard limit: 3 > 2"),
            ("nofile=-1:2", "must be less than or equal to hard limit: -1 > 2"),
        ] {
            let why = why(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
        for text in ["nofile", "nofile=", "nofile=x", "nofile=1:2:3"] {
            assert_eq!(Ulimit::of_text(text), None, "{text}");
        }
    }
}
