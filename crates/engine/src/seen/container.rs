//! A container as it is: what `inspect` and `list` show. Kept on disk as `state.json`.

use crate::{
    ask::config::{ContainerConfig, OverlayAttachment, Port},
    disk::persist,
};
use model::{BindRecursion, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// A snapshot of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    #[serde(with = "persist::nanos")]
    pub created_at: Timestamp,
    /// `sha256:..` of the image's configuration.
    pub image_id: String,
    /// What runs: entrypoint and cmd of caller and image together.
    pub path: String,
    pub args: Vec<String>,
    /// As asked for, with the image's defaults merged in (as Docker shows it).
    /// Kept apart, in `config.json`.
    #[serde(skip)]
    pub config: Arc<ContainerConfig>,
    pub state: ContainerState,
    pub restart_count: u32,
    pub mounts: Vec<MountPoint>,
    /// By network name.
    pub networks: BTreeMap<String, Endpoint>,
    /// Its places on overlay networks, while a run of it that a person started has them.
    #[serde(default)]
    pub overlays: Vec<OverlayAttachment>,
    /// The ids of the host that its own are; `None` = the same ones.
    #[serde(default)]
    pub users: Option<runtime::IdMap>,
    /// Published ports as they are now; empty while not running.
    pub ports: Vec<PublishedPort>,
    /// Path of its network namespace while running.
    pub netns: Option<PathBuf>,
    /// Empty for log driver `none`.
    pub log_path: PathBuf,
    pub hosts_path: PathBuf,
    pub hostname_path: PathBuf,
    pub resolv_conf_path: PathBuf,
    /// Ids of its exec instances that run.
    #[serde(skip)]
    pub exec_ids: Vec<String>,
    /// Times it ended; changes at each exit.
    pub exits: u64,
    /// Its last end was wished by a person: `unless-stopped` leaves it down.
    pub manually_stopped: bool,
    /// Its last end was that of its host, and its policy starts it again with the next daemon.
    #[serde(default)]
    pub stopped_for_host: bool,
}

impl Container {
    /// Returns the health, if a check is configured.
    pub fn health(&self) -> Option<&Health> {
        self.state.health.as_ref()
    }
}

/// Where a container stands. Source: Docker API `ContainerState`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub status: Status,
    /// Pid in the host's pid namespace while running.
    pub pid: Option<u32>,
    /// Of the last run; signal exits are 128 + n.
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why the last start failed; empty if it did not.
    pub error: String,
    #[serde(with = "persist::nanos_option")]
    pub started_at: Option<Timestamp>,
    #[serde(with = "persist::nanos_option")]
    pub finished_at: Option<Timestamp>,
    pub health: Option<Health>,
}

impl Default for ContainerState {
    fn default() -> Self {
        Self {
            status: Status::Created,
            pid: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_at: None,
            finished_at: None,
            health: None,
        }
    }
}

impl ContainerState {
    /// Returns true while there is a process (paused counts).
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// Source: Docker API `ContainerState.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    /// Ended, waits for its next start by the restart policy.
    Restarting,
    Removing,
    Exited,
    /// Could not be removed completely.
    Dead,
}

impl Status {
    /// Returns Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Source: Docker API `Health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    pub failing_streak: u32,
    /// The last five, oldest first.
    pub log: Vec<HealthProbe>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// Returns Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Source: Docker API `HealthcheckResult`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProbe {
    #[serde(with = "persist::nanos")]
    pub start: Timestamp,
    #[serde(with = "persist::nanos")]
    pub end: Timestamp,
    /// -1 = timed out or could not be run.
    pub exit_code: i32,
    /// At most 4096 bytes.
    pub output: String,
}

/// Source: Docker API `MountPoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub kind: MountPointKind,
    /// Volume name, or what names the image; empty otherwise.
    pub name: String,
    /// Path on the host; empty for a tmpfs and an image.
    pub source: PathBuf,
    /// What of the source is mounted, below it; empty = all. Looked up at each start: what is there is a container's.
    #[serde(default)]
    pub subpath: String,
    pub destination: String,
    /// Volume driver; empty otherwise.
    pub driver: String,
    /// As given, e.g. `z`.
    pub mode: String,
    pub writable: bool,
    pub propagation: String,
    #[serde(default, with = "crate::ask::config::recursion_word")]
    pub recursion: BindRecursion,
    /// What is in it belongs to the container's ids on the disk, not to the host's. Volumes always are so.
    #[serde(default)]
    pub idmap: bool,
    /// Made for this container without a name: removed with it on `rm -v`.
    #[serde(default)]
    pub anonymous: bool,
    /// Id of the image that is seen there; empty otherwise.
    #[serde(default)]
    pub image: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountPointKind {
    Bind,
    Volume,
    Tmpfs,
    Image,
}

impl MountPointKind {
    /// Returns Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
        }
    }
}

/// One interface of a container. Source: Docker API `EndpointSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    pub network_id: String,
    /// Empty while not running.
    pub endpoint_id: String,
    pub address: Option<IpAddr>,
    pub prefix_len: u8,
    pub gateway: Option<IpAddr>,
    pub address6: Option<Ipv6Addr>,
    pub prefix6_len: u8,
    pub gateway6: Option<Ipv6Addr>,
    pub mac: String,
    pub aliases: Vec<String>,
    /// As asked for, kept over restarts.
    pub wanted_address: Option<IpAddr>,
    pub wanted_address6: Option<Ipv6Addr>,
    #[serde(default)]
    pub wanted_mac: Option<String>,
    /// It is an overlay network, and a person put the container on it.
    #[serde(default)]
    pub overlay: bool,
    /// These four as in [`EndpointConfig`](crate::ask::config::EndpointConfig).
    #[serde(default)]
    pub links: Vec<String>,
    #[serde(default)]
    pub gateway_priority: i64,
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(default)]
    pub link_local: Vec<Ipv4Addr>,
}

impl Endpoint {
    /// Forgets what only a running container has.
    pub(crate) fn leave(&mut self) {
        *self = Self {
            network_id: std::mem::take(&mut self.network_id),
            aliases: std::mem::take(&mut self.aliases),
            wanted_address: self.wanted_address,
            wanted_address6: self.wanted_address6,
            wanted_mac: self.wanted_mac.take(),
            overlay: self.overlay,
            links: std::mem::take(&mut self.links),
            gateway_priority: self.gateway_priority,
            driver_opts: std::mem::take(&mut self.driver_opts),
            link_local: std::mem::take(&mut self.link_local),
            ..Self::default()
        };
    }
}

/// A port that answers on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub container: Port,
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
}

/// What `create` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    /// Set if the container could not be waited for or started.
    pub error: Option<String>,
}

/// What `wait` waits for. Source: Docker API `ContainerWait`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// `None` = the container's stop signal.
    pub signal: Option<String>,
    /// `None` = the container's, else 10 s. `Duration::MAX` = wait for ever.
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kills it first if it runs.
    pub force: bool,
    /// Removes its anonymous volumes too.
    pub volumes: bool,
}

/// Which containers `list` returns. Source: Docker API `ContainerList`.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The n newest, of any state.
    pub limit: Option<usize>,
    pub filters: Filters,
}

/// Docker's filters: key -> accepted values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, Vec<String>>);

impl Filters {
    /// Returns the values of a key; empty = no such filter.
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns true if there is no such filter, or one of its values satisfies `accepts`.
    pub fn any(&self, key: &str, accepts: impl Fn(&str) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|v| accepts(v))
    }

    /// Returns true if there is no `name` filter, or one fits: a regular expression that may fit in the middle. What is no
    /// regular expression is taken as it stands. *Source:* moby `filters.Args.Match`.
    pub fn name_matches(&self, name: &str) -> bool {
        self.any("name", |pattern| match regex_lite::Regex::new(pattern) {
            Ok(regex) => regex.is_match(name),
            Err(_) => pattern == name,
        })
    }

    /// Reads filter `until`: RFC 3339, Unix seconds, or `10m`, `1h30m` ago.
    ///
    /// # Errors
    /// `InvalidParameter` for anything else.
    pub fn until(&self) -> crate::error::Result<Option<Timestamp>> {
        crate::seen::until::until(self)
    }

    /// Returns true if all `label` filters (`key` or `key=value`) hold and no `label!` filter does.
    pub fn labels_match(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |filter: &String| match filter.split_once('=') {
            Some((k, v)) => labels.get(k).is_some_and(|have| have == v),
            None => labels.contains_key(filter),
        };
        self.get("label").iter().all(holds) && !self.get("label!").iter().any(holds)
    }
}

/// What `update` changes; `None` = leave. Source: Docker API `ContainerUpdate`.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Fields that are zero, empty or `None` stay as they are.
    pub resources: crate::ask::config::Resources,
    pub restart: Option<model::ContainerRestart>,
}

/// Processes of a container. Source: Docker API `ContainerTop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids or names.
    pub removed: Vec<String>,
    pub reclaimed_bytes: u64,
}

/// Space a container takes. *Unit:* bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Its own changes.
    pub writable: u64,
    /// With its image.
    pub root: u64,
}

/// A path that differs from the image. Source: Docker API `ContainerChanges`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub path: String,
    pub kind: ChangeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}
