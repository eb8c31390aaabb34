//! What runs inside a task: image, process, mounts, limits. Source: Docker API `TaskTemplate`,
//! compose specification "services".

use crate::{
    ConfigId, Duration, GenericRequests, Labels, OwnNamespaces, SecretId,
    confine::{self, Unfit, is_near},
    sysctl_path,
};
use std::net::IpAddr;

/// Capabilities that Docker gives every container. Source: moby `oci/caps/defaults.go`.
const USUAL_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

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

    /// Judges a container as a service asks for it, field by field: one without a line does not compile. `host_network`: it
    /// shares the network of its node.
    ///
    /// The node judges it again, with all templates filled in.
    ///
    /// # Errors
    /// For the first value that does not fit.
    pub fn check(&self, host_network: bool) -> Result<(), Unfit> {
        let Self {
            image: _,  // the manager's validation, and the image store
            labels: _, // kept and shown, given to nobody
            command,
            args,
            env,
            hostname,
            working_dir,
            user,
            groups,
            tty: _,
            open_stdin: _,
            read_only: _,
            mounts,
            stop_signal,
            stop_grace_period: _,
            healthcheck,
            hosts,
            dns,
            secrets,
            configs,
            init: _,
            sysctls,
            cap_add: _, // the node, whose kernel has them or not
            cap_drop: _,
            ulimits,
            privileged: _,
            no_new_privileges: _,
            shm_size_bytes,
            oom_score_adj,
            host,
            post_start: _, // as an exec: the node
            pre_stop: _,
        } = self;
        for word in command.iter().chain(args) {
            confine::argument("ContainerSpec.Command", word)?;
        }
        for entry in env {
            confine::variable("ContainerSpec.Env", entry)?;
        }
        if let Some(wanted) = hostname.as_deref().filter(|text| !text.is_empty()) {
            if wanted.contains("{{") {
                confine::line("ContainerSpec.Hostname", wanted)?
            } else {
                confine::hostname("ContainerSpec.Hostname", wanted)?
            }
        }
        if let Some(path) = working_dir.as_deref().filter(|path| !path.is_empty()) {
            confine::working_directory("ContainerSpec.Dir", path)?;
        }
        if let Some(wanted) = user {
            confine::user("ContainerSpec.User", wanted)?;
        }
        for group in groups {
            confine::user("ContainerSpec.Groups", group)?;
        }
        for mount in mounts {
            // As with Docker, a service may have one that is not absolute: its tasks are rejected, and say why.
            if mount.target.starts_with('/') {
                let filesystem = matches!(mount.kind, MountKind::Tmpfs { .. });
                confine::mount_target("ContainerSpec.Mounts", &mount.target, filesystem)?;
            }
        }
        if let Some(signal) = stop_signal {
            confine::word("ContainerSpec.StopSignal", signal)?;
        }
        for entry in hosts {
            confine::line("ContainerSpec.Hosts", entry)?;
            let mut words = entry.split_whitespace();
            let address = words.next().unwrap_or_default();
            if address.parse::<std::net::IpAddr>().is_err() && address != "host-gateway" {
                return Err(confine::unfit(
                    "ContainerSpec.Hosts",
                    format!("{entry:?} does not begin with an address"),
                ));
            }
            for alias in words {
                confine::name("ContainerSpec.Hosts", alias)?;
            }
        }
        for domain in &dns.search {
            confine::word("ContainerSpec.DNSConfig.Search", domain)?;
        }
        for option in &dns.options {
            confine::word("ContainerSpec.DNSConfig.Options", option)?;
        }
        let targets = secrets.iter().map(|file| &file.target).chain(configs.iter().map(|file| &file.target));
        for target in targets {
            let path = if target.starts_with('/') { target.clone() } else { format!("/{target}") };
            confine::mount_target("ContainerSpec.Secrets, Configs", &path, true)?;
            if target.split('/').any(|part| part == "..") {
                return Err(confine::unfit(
                    "ContainerSpec.Secrets, Configs",
                    format!("{target:?} must not contain \"..\""),
                ));
            }
        }
        let own = OwnNamespaces {
            network: !host_network,
            ipc: host.as_ref().and_then(|host| host.ipc.as_deref()) != Some("host"),
            uts: host.as_ref().and_then(|host| host.uts.as_deref()) != Some("host"),
        };
        for (parameter, value) in sysctls {
            sysctl_path(parameter, value, own)
                .map_err(|e| confine::unfit("ContainerSpec.Sysctls", e.to_string()))?;
        }
        for limit in ulimits {
            limit.check("ContainerSpec.Ulimits")?;
        }
        confine::memory_size("ContainerSpec.ShmSize", *shm_size_bytes)?;
        confine::oom_score_adj("ContainerSpec.OomScoreAdj", (*oom_score_adj).into())?;
        if let Some(check) = healthcheck {
            let Healthcheck { test, interval, timeout, start_period, start_interval, retries: _ } = check;
            for word in test {
                confine::argument("ContainerSpec.Healthcheck.Test", word)?;
            }
            confine::health_times([*interval, *timeout, *start_period, *start_interval])?;
        }
        host.as_ref().map_or(Ok(()), HostOptions::check)
    }

    /// Returns what of it would reach beyond itself into the host that runs it; `None`: nothing. Named one by one, so that
    /// a new field asks to be judged.
    #[must_use]
    pub fn reach(&self) -> Option<String> {
        let Self {
            mounts,
            cap_add,
            privileged,
            oom_score_adj,
            host,
            post_start,
            pre_stop,
            ulimits,
            dns,
            // What stays inside: the process, its files from the swarm, and what only takes away.
            image: _,
            labels: _,
            command: _,
            args: _,
            env: _,
            hostname: _,
            working_dir: _,
            user: _,
            groups: _,
            tty: _,
            open_stdin: _,
            read_only: _,
            stop_signal: _,
            stop_grace_period: _,
            healthcheck: _,
            hosts: _,
            secrets: _,
            configs: _,
            init: _,
            // Those of the container's own namespaces only, which is judged for everybody.
            sysctls: _,
            cap_drop: _,
            no_new_privileges: _,
            shm_size_bytes: _,
        } = self;
        for mount in mounts {
            match &mount.kind {
                MountKind::Bind { source, .. } => return Some(format!("bind mount of {source}")),
                MountKind::Volume { driver, driver_opts, .. } => {
                    if driver.as_deref().is_some_and(|d| !d.is_empty() && d != "local")
                        || !driver_opts.is_empty()
                    {
                        return Some(format!("volume at {} with a driver or its options", mount.target));
                    }
                }
                MountKind::Tmpfs { .. } => {}
            }
        }
        if *privileged {
            return Some("privileged".to_owned());
        }
        let unusual = cap_add.iter().find(|cap| {
            let cap = cap.to_ascii_uppercase();
            !USUAL_CAPABILITIES.contains(&cap.strip_prefix("CAP_").unwrap_or(&cap))
        });
        if let Some(cap) = unusual {
            return Some(format!("capability {cap}"));
        }
        // A process with these comes before all of the host's own, on every processor.
        let comes_first = |name: &str| ["rtprio", "nice"].iter().any(|word| name.eq_ignore_ascii_case(word));
        if let Some(limit) = ulimits.iter().find(|limit| comes_first(&limit.name)) {
            return Some(format!("ulimit {}", limit.name));
        }
        if *oom_score_adj < 0 {
            return Some("a negative oom_score_adj".to_owned());
        }
        if post_start.iter().chain(pre_stop).any(|Hook { privileged, .. }| *privileged) {
            return Some("a privileged hook".to_owned());
        }
        // The node asks in the container's place.
        if let Some(server) = dns.nameservers.iter().find(|server| is_near(**server)) {
            return Some(format!("name server {server}"));
        }
        host.as_ref().and_then(HostOptions::reach).map(str::to_owned)
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

impl HostOptions {
    /// What only the stack file of one host can say; the node judges the rest.
    fn check(&self) -> Result<(), Unfit> {
        let Self {
            devices,
            device_cgroup_rules: _, // the node
            ipc: _,
            pid: _,
            uts: _,
            users,
            cgroup: _,
            cgroup_parent,
            domainname,
            runtime: _,
            security_opts: _,
            annotations: _,
            cpu_shares: _,
            cpu_period: _,
            cpu_quota: _,
            cpuset,
            memory_swap_bytes: _,
            memory_swappiness,
            blkio_weight,
            oom_kill_disable: _,
        } = self;
        for DeviceMapping { host_path, container_path, permissions: _ } in devices {
            confine::inner_path("devices", host_path)?;
            confine::inner_path("devices", container_path)?;
        }
        if let Some(parent) = cgroup_parent {
            confine::cgroup_parent("cgroup_parent", parent)?;
        }
        if let Some(domain) = domainname.as_deref().filter(|text| !text.is_empty()) {
            confine::hostname("domainname", domain)?;
        }
        confine::user_namespace("userns_mode", users.as_deref().unwrap_or_default())?;
        confine::memory_swappiness("mem_swappiness", memory_swappiness.map(i64::from))?;
        confine::blkio_weight("blkio_config.weight", *blkio_weight)?;
        confine::cpu_list("cpuset", cpuset)
    }

    /// Returns the option that a host would notice.
    fn reach(&self) -> Option<&'static str> {
        let Self {
            devices,
            device_cgroup_rules,
            ipc,
            pid,
            uts,
            users,
            cgroup,
            cgroup_parent,
            runtime,
            security_opts,
            oom_kill_disable,
            domainname: _,
            annotations: _,
            // Shares of what the container may have.
            cpu_shares: _,
            cpu_period: _,
            cpu_quota: _,
            cpuset: _,
            memory_swap_bytes: _,
            memory_swappiness: _,
            blkio_weight: _,
        } = self;
        let own = |namespace: &Option<String>| {
            namespace.as_deref().is_none_or(|word| matches!(word, "" | "private" | "shareable" | "none"))
        };
        if !devices.is_empty() {
            return Some("a device");
        }
        if !device_cgroup_rules.is_empty() {
            return Some("a device cgroup rule");
        }
        let namespaces =
            [("ipc", ipc), ("pid", pid), ("uts", uts), ("userns_mode", users), ("cgroup", cgroup)];
        if let Some((name, _)) = namespaces.into_iter().find(|(_, word)| !own(word)) {
            return Some(name);
        }
        if cgroup_parent.as_deref().is_some_and(|p| !p.is_empty()) {
            return Some("cgroup_parent");
        }
        if runtime.as_deref().is_some_and(|r| !r.is_empty()) {
            return Some("runtime");
        }
        if !security_opts.is_empty() {
            return Some("security_opt");
        }
        oom_kill_disable.then_some("oom_kill_disable")
    }
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
