//! A container as it is asked for. Kept on disk as `config.json`, so fields are only ever added, with defaults.
//!
//! Source: Docker API `ContainerConfig`, `HostConfig`, `NetworkingConfig`.

use crate::{ask::kept, disk::persist};
use ipnet::IpNet;
use model::{BindRecursion, ContainerRestart, NetworkId, TaskId, Ulimit};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// A container as it is asked for. What is `None` or empty is taken from the image, then from Docker's defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Without the leading slash; `None` = a random one (`brave_turing`).
    pub name: Option<String>,
    /// Reference, image id or unique prefix of an id.
    pub image: String,
    pub cmd: Option<Vec<String>>,
    /// `Some([])` or `Some([""])` clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `KEY=value`; a bare `KEY` removes the image's variable.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub tty: bool,
    pub open_stdin: bool,
    /// Closes stdin when the first attached client leaves.
    pub stdin_once: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    /// Name or number; `None` = the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// `None` = 10 s.
    pub stop_timeout: Option<Duration>,
    pub healthcheck: Option<Healthcheck>,
    pub exposed_ports: BTreeSet<Port>,
    /// Paths that get an anonymous volume.
    pub volumes: BTreeSet<String>,
    pub host: HostConfig,
    /// Per network name or id: addresses and aliases asked for.
    pub endpoints: BTreeMap<String, EndpointConfig>,
}

/// The part of a container that depends on this host. Source: Docker API `HostConfig`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `-v` strings: `/host:/path[:opts]`, `volume:/path[:opts]`; a missing host path is made. `idmap`: what is there
    /// belongs to the ids of the container's user namespace.
    pub binds: Vec<String>,
    pub mounts: Vec<Mount>,
    /// `container[:ro|rw]`
    pub volumes_from: Vec<String>,
    /// Path -> mount options as `size=64m,mode=1777`.
    pub tmpfs: BTreeMap<String, String>,
    pub port_bindings: Vec<PortBinding>,
    pub publish_all_ports: bool,
    pub network_mode: NetworkMode,
    /// Overlay attachments of a swarm task; used with [`NetworkMode::Swarm`].
    pub swarm: Option<SwarmAttachments>,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `host:ip`; ip may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// `container[:alias]`, kept for old clients; alias resolves by /etc/hosts.
    pub links: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub read_only: bool,
    pub init: Option<bool>,
    #[serde(with = "kept::ulimits")]
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    /// A folder stands for all devices below it.
    pub devices: Vec<Device>,
    /// `c 13:* rwm`: devices that it may make and use besides.
    pub device_cgroup_rules: Vec<String>,
    /// `--gpus`, and `--device` with the name of a vendor's device.
    pub device_requests: Vec<DeviceRequest>,
    pub resources: Resources,
    #[serde(with = "kept::Restart")]
    pub restart: ContainerRestart,
    pub auto_remove: bool,
    pub log: LogConfig,
    /// *Unit:* bytes; `None` = 64 MiB.
    pub shm_size_bytes: Option<u64>,
    pub oom_score_adj: i32,
    /// `no-new-privileges[:true]`, `seccomp=unconfined`, `seccomp=<json>`, `apparmor=..`, `label=..`, `systempaths=unconfined`.
    pub security_opts: Vec<String>,
    /// More groups of the process, names or numbers.
    pub group_add: Vec<String>,
    /// `""`, `host` or `container:<id>`.
    pub pid_mode: String,
    /// `""`, `private`, `shareable`, `none`, `host` or `container:<id>`.
    pub ipc_mode: String,
    /// `""` or `host`.
    pub uts_mode: String,
    /// `""` = as the daemon's `userns-remap` says, `private` or `host`.
    pub userns_mode: String,
    /// `""`, `private` or `host`.
    pub cgroupns_mode: String,
    pub cgroup_parent: Option<String>,
    /// Kept and shown, not used: there is one runtime.
    pub runtime: Option<String>,
    /// Rows and columns of its terminal, if it has one, from the first moment on; `None` = 0 and 0, as the kernel has
    /// it.
    pub console_size: Option<(u16, u16)>,
    /// `""` or `default`: there is no other isolation. Shown as it was given.
    pub isolation: String,
    /// The driver of volumes that it makes without a word of another; `""` = local.
    pub volume_driver: String,
    /// Overrides the default set when present.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    /// Secrets and configs: files in memory, never written to a disk.
    pub files: Vec<ContainerFile>,
    pub annotations: BTreeMap<String, String>,
    /// Set if this is a step of a build: the image's volumes are ordinary folders then, and the container goes when
    /// the engine is opened again.
    pub build: Option<BuildStep>,
}

/// What a step of a build gets besides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildStep {
    pub mounts: Vec<LayerMount>,
}

/// Folders of the host that are seen as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMount {
    /// Absolute path in the container.
    pub target: String,
    /// Top first; at least one.
    pub lowers: Vec<std::path::PathBuf>,
    /// Its folders `upper` and `work` take what is written; `None` = nothing may be.
    pub scratch: Option<std::path::PathBuf>,
}

/// Source: Docker API `HealthConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `[]` = the image's; `["NONE"]` = off; `["CMD", ..]`; `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// `None` = 30 s; and so on as in Docker.
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
    pub retries: Option<u32>,
}

/// A port of a container, e.g. `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    pub number: u16,
    pub protocol: model::Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            model::Protocol::Tcp => "tcp",
            model::Protocol::Udp => "udp",
            model::Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

/// A text that is not a port such as `80` or `53/udp`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid port specification: \"{0}\"")]
pub struct InvalidPort(pub String);

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidPort> {
        let bad = || InvalidPort(text.to_owned());
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => model::Protocol::Tcp,
            "udp" => model::Protocol::Udp,
            "sctp" => model::Protocol::Sctp,
            _ => return Err(bad()),
        };
        Ok(Self { number: number.parse().map_err(|_| bad())?, protocol })
    }
}

impl Serialize for Port {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A port of the container to be published on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub container: Port,
    /// `None` = all addresses.
    pub host_ip: Option<IpAddr>,
    /// `None` = any free one.
    pub host_port: Option<u16>,
    /// Of a range that begins with `host_port`: its last one. The first that is free is taken.
    #[serde(default)]
    pub last_port: Option<u16>,
}

/// Source: Docker API `Mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
    pub kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host; must exist unless `create` is set.
    Bind {
        source: String,
        propagation: Option<String>,
        create: bool,
        #[serde(default, with = "recursion_word")]
        recursion: BindRecursion,
        /// What is there belongs to the ids of the container's user namespace, not to the host's.
        #[serde(default)]
        idmap: bool,
    },
    /// A volume, made on first use; `None` = anonymous.
    Volume {
        name: Option<String>,
        driver: Option<String>,
        driver_opts: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        no_copy: bool,
        #[serde(default)]
        subpath: Option<String>,
    },
    /// *Units:* bytes, permission bits.
    Tmpfs { size_bytes: Option<u64>, mode: Option<u32> },
    /// The files of an image of this host, or what is at a path in it.
    Image { reference: String, subpath: Option<String> },
}

/// Keeps a [`BindRecursion`] as its word.
pub(crate) mod recursion_word {
    use model::BindRecursion;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
    pub(crate) fn serialize<S: Serializer>(recursion: &BindRecursion, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(recursion.word())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BindRecursion, D::Error> {
        let word = String::deserialize(from)?;
        BindRecursion::of_word(&word).ok_or_else(|| D::Error::custom(format!("{word:?} is no recursion")))
    }
}

/// Which network namespace the container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The local network `bridge`.
    #[default]
    Bridge,
    /// The host's own.
    Host,
    /// Loopback only.
    None,
    /// That of another container, by name or id.
    Container(String),
    /// A user-defined local network, by name or id.
    Named(String),
    /// As [`HostConfig::swarm`] says.
    Swarm,
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::Host => f.write_str("host"),
            Self::None => f.write_str("none"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Named(name) => f.write_str(name),
            Self::Swarm => f.write_str("default"),
        }
    }
}

impl From<&str> for NetworkMode {
    /// Reads Docker's `NetworkMode` text.
    fn from(text: &str) -> Self {
        match text {
            "" | "default" | "bridge" => Self::Bridge,
            "host" => Self::Host,
            "none" => Self::None,
            other => match other.strip_prefix("container:") {
                Some(id) => Self::Container(id.to_owned()),
                None => Self::Named(other.to_owned()),
            },
        }
    }
}

/// The interfaces of a swarm task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwarmAttachments {
    pub overlays: Vec<OverlayAttachment>,
    /// Address on the routed outside leg (ingress and masquerade); `None` = no way out.
    pub gateway: Option<IpAddr>,
}

/// One interface on an overlay network; the network's table must have been applied before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayAttachment {
    #[serde(with = "persist::display")]
    pub network: NetworkId,
    /// Shown by inspect.
    pub network_name: String,
    #[serde(with = "persist::display")]
    pub task: TaskId,
    /// Address with the subnet's prefix length.
    #[serde(with = "persist::display")]
    pub address: IpNet,
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// Source: Docker API `EndpointSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConfig {
    pub aliases: Vec<String>,
    pub ipv4_address: Option<IpAddr>,
    pub ipv6_address: Option<Ipv6Addr>,
    /// `aa:bb:cc:dd:ee:ff`
    pub mac_address: Option<String>,
    /// `CONTAINER[:ALIAS]`: what this container alone calls others on the network.
    pub links: Vec<String>,
    /// The network with the highest leads outside.
    pub gateway_priority: i64,
    /// See `endpoint::options`.
    pub driver_opts: BTreeMap<String, String>,
    /// Further addresses, out of 169.254.0.0/16.
    pub link_local: Vec<Ipv4Addr>,
}

/// Zero and `None` mean "not set". Source: Docker API `Resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// *Unit:* 10^-9 of a CPU.
    pub cpu_nanos: u64,
    pub cpu_shares: u64,
    /// *Unit:* microseconds.
    pub cpu_period: u64,
    /// *Unit:* microseconds per period.
    pub cpu_quota: i64,
    /// For real-time tasks. *Unit:* microseconds.
    pub cpu_realtime_period: u64,
    /// *Unit:* microseconds per period.
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub memory_bytes: u64,
    pub memory_reservation_bytes: u64,
    /// Memory and swap together; -1 = unlimited swap.
    pub memory_swap_bytes: i64,
    /// *Range:* 0 to 100. Not on cgroup v2.
    pub memory_swappiness: Option<u8>,
    /// `None`, 0 or -1 = unlimited.
    pub pids_limit: Option<i64>,
    pub blkio_weight: u16,
    pub oom_kill_disable: bool,
}

impl Resources {
    /// Replaces what is set in `changes`.
    pub(crate) fn overlay(&mut self, changes: &Self) {
        fn set<T: PartialEq + Default + Clone>(mine: &mut T, theirs: &T) {
            if *theirs != T::default() {
                mine.clone_from(theirs);
            }
        }
        set(&mut self.cpu_nanos, &changes.cpu_nanos);
        set(&mut self.cpu_shares, &changes.cpu_shares);
        set(&mut self.cpu_period, &changes.cpu_period);
        set(&mut self.cpu_quota, &changes.cpu_quota);
        set(&mut self.cpu_realtime_period, &changes.cpu_realtime_period);
        set(&mut self.cpu_realtime_runtime, &changes.cpu_realtime_runtime);
        set(&mut self.cpuset_cpus, &changes.cpuset_cpus);
        set(&mut self.cpuset_mems, &changes.cpuset_mems);
        set(&mut self.memory_bytes, &changes.memory_bytes);
        set(&mut self.memory_reservation_bytes, &changes.memory_reservation_bytes);
        set(&mut self.memory_swap_bytes, &changes.memory_swap_bytes);
        set(&mut self.memory_swappiness, &changes.memory_swappiness);
        set(&mut self.pids_limit, &changes.pids_limit);
        set(&mut self.blkio_weight, &changes.blkio_weight);
        set(&mut self.oom_kill_disable, &changes.oom_kill_disable);
    }
}

/// A device of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub host_path: String,
    pub container_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Devices that vendors describe. *Source:* Docker API `DeviceRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `nvidia`, `amd`; `cdi` if the ids are qualified names (`nvidia.com/gpu=0`); empty = whoever has it.
    pub driver: String,
    /// -1 = all.
    pub count: i64,
    pub device_ids: Vec<String>,
    /// One of the lists must hold; `gpu` for GPUs.
    pub capabilities: Vec<Vec<String>>,
}

/// Source: Docker API `LogConfig`. Drivers: `json-file` (default; `local` is taken for it), `none`, and
/// besides the file `journald` and `syslog`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// Empty = `json-file`.
    pub driver: String,
    /// `max-size`, `max-file`, `labels`, `env`, ...
    pub options: BTreeMap<String, String>,
}

/// A file that exists only in memory (a secret or config).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerFile {
    /// Absolute path in the container.
    pub target: String,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Not kept in `config.json`; it lives in a tmpfs of the host while the container exists.
    #[serde(skip)]
    pub content: SecretBytes,
}

/// Bytes that never show up in logs or on disk.
#[derive(Clone, Default)]
pub struct SecretBytes(pub Arc<[u8]>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        assert_eq!("80".parse::<Port>().unwrap().to_string(), "80/tcp");
        assert_eq!("53/UDP".parse::<Port>().unwrap().to_string(), "53/udp");
        for bad in ["", "x", "80/icmp", "70000", "-1/tcp"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_stay_out_of_the_persisted_form_and_of_debug_output() {
        let file = ContainerFile {
            target: "/run/secrets/s".into(),
            uid: 0,
            gid: 0,
            mode: 0o400,
            content: SecretBytes(Arc::from(&b"hunter2"[..])),
        };
        assert!(!serde_json::to_string(&file).unwrap().contains("hunter"));
        assert!(!format!("{file:?}").contains("hunter"));
    }
}
