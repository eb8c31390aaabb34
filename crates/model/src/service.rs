//! Services and the policies that keep them running.

use crate::{
    ContainerSpec, Duration, EndpointSpec, Labels, LogDriver, Meta, NetworkId, ResourceRequirements,
    SecretBytes, ServiceId, StackId, Timestamp,
};
use std::{net::IpAddr, sync::Arc};

/// What a person asked for. Source: Docker API `ServiceSpec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: Labels,
    pub task: Arc<TaskSpec>,
    pub mode: Mode,
    pub update: UpdatePolicy,
    pub rollback: UpdatePolicy,
    pub endpoint: EndpointSpec,
    /// Tasks stay PENDING, with the reason shown, until these hold. Source: compose `depends_on`.
    pub depends_on: Vec<Dependency>,
    /// How it was said; nothing is done differently.
    pub said: Said,
}

/// The first feature level at which a service can have a [`Said`]: who does not know it drops it.
pub const SAID_LEVEL: u32 = 3;

/// In which way a person said what can be said in several: a service is given back as it came. *Source:* Docker API
/// `ServiceSpec`, whose clients compare what they get with what they sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said(u32);

impl Said {
    /// Without `UpdateConfig`: the defaults hold.
    pub const NO_UPDATE: Self = Self(1);
    /// Without `RollbackConfig`.
    pub const NO_ROLLBACK: Self = Self(2);
    /// With a `RestartPolicy.Window` that is zero.
    pub const ZERO_WINDOW: Self = Self(4);
    /// With the networks beside the template of its tasks, their old place.
    pub const NETWORKS_OUTSIDE: Self = Self(8);
    /// With `Privileges.SELinuxContext.Disable`: no container has a label of SELinux here.
    pub const NO_SELINUX: Self = Self(16);
    const ALL: u32 = 31;

    /// Returns the same and one thing more, if that is so.
    #[must_use]
    pub fn with(self, other: Self, so: bool) -> Self {
        if so { Self(self.0 | other.0) } else { self }
    }

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn bits(self) -> u32 {
        self.0
    }

    /// Returns what the bits stand for; `None`: some are not known here.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits & !Self::ALL == 0).then_some(Self(bits))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Full service name (with the stack's prefix).
    pub service: String,
    pub condition: DependencyCondition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyCondition {
    /// All wanted tasks have been RUNNING. A task with a healthcheck is RUNNING only when healthy, so
    /// compose's `service_healthy` means the same.
    Started,
    Healthy,
    CompletedSuccessfully,
}

/// Everything about a task that, when changed, replaces it. Source: Docker API `TaskSpec`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub resources: ResourceRequirements,
    pub restart: RestartPolicy,
    pub placement: PlacementSpec,
    pub networks: Vec<NetworkAttachmentSpec>,
    pub log_driver: Option<LogDriver>,
    /// Raised by `service update --force`: replaces tasks although nothing else changed.
    pub force_update: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAttachmentSpec {
    pub network: NetworkId,
    pub aliases: Vec<String>,
    /// Options for drivers that know them; the swarm's own networks know none. *Source:* Docker API
    /// `NetworkAttachmentConfig.DriverOpts`.
    pub driver_opts: Labels,
}

impl NetworkAttachmentSpec {
    /// Returns one that asks for nothing of a driver.
    #[must_use]
    pub fn new(network: NetworkId, aliases: Vec<String>) -> Self {
        Self { network, aliases, driver_opts: Labels::new() }
    }
}

/// What Docker's own network options begin with.
pub const DOCKER_NETWORK_OPTIONS: &str = "com.docker.network.";

/// The first feature level at which the state has [`NetworkAttachmentSpec::driver_opts`].
pub const ATTACHMENT_OPTIONS_LEVEL: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Replicated {
        replicas: u64,
    },
    Global,
    /// Runs until `total` tasks completed, at most `max_concurrent` at once.
    ReplicatedJob {
        max_concurrent: u64,
        total: u64,
    },
    GlobalJob,
}

/// *Limit* of tasks that all services of a swarm ask for by number. Each costs every manager memory and the leader time,
/// also while no node takes it: who may ask for one service more must not bring all of them to their end.
pub const TASKS_MAX: u64 = 1 << 14;

/// *Limit* of ports that all services of a swarm publish. Every node holds each of them by a descriptor, and takes its own
/// connections out of the ports that are left: with all 28,232 of them taken no manager would reach another.
pub const PORTS_MAX: usize = 1 << 14;

/// *Limit* of what the tasks of all services say together: each carries its service's spec, in the memory and the log of
/// every manager. Services whose tasks say less than [`TASKS_BYTES_FEW`] do not count. *Unit:* bytes.
pub const TASKS_BYTES_MAX: u64 = 256 << 20;

/// What is not multiplied by much. *Unit:* bytes.
pub const TASKS_BYTES_FEW: u64 = 1 << 20;

/// *Limit* of tasks behind published ports, each counted once for each port of the routing mesh: every node hears of all
/// of them whenever one changes.
pub const BACKENDS_MAX: u64 = 1 << 16;

/// *Limit* of ended tasks that are kept because attempts are counted by them, of all services that have more attempts than
/// the history of a slot is long.
pub const ATTEMPTS_MAX: u64 = 1 << 16;

impl Mode {
    /// Returns how many slots are asked for by number; those of global services are as many as there are nodes.
    pub fn slots(self) -> u64 {
        match self {
            Self::Replicated { replicas } => replicas,
            Self::ReplicatedJob { total, .. } => total,
            Self::Global | Self::GlobalJob => 0,
        }
    }
}

/// Source: compose `deploy.placement`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlacementSpec {
    pub constraints: Vec<Constraint>,
    /// Node-label or engine-label keys to spread over, outermost first, e.g. `node.labels.rack`.
    pub spread: Vec<String>,
    /// 0 = no limit.
    pub max_replicas_per_node: u64,
    /// Platforms of the image; empty = any.
    pub platforms: Vec<Platform>,
}

/// Source: `GOOS`/`GOARCH` names as in OCI image indexes. Empty field = any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

/// `key == value` or `key != value`, parsed. Source: Docker service create `--constraint`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    /// `node.id`, `node.hostname`, `node.role`, `node.ip`, `node.platform.os`, `node.platform.arch`,
    /// `node.labels.<key>` or `engine.labels.<key>`.
    pub key: String,
    pub equal: bool,
    pub value: String,
}

/// A constraint that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid constraint {0:?}: want KEY==VALUE or KEY!=VALUE with a node.* or engine.labels.* key")]
pub struct InvalidConstraint(pub String);

impl std::str::FromStr for Constraint {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Self, InvalidConstraint> {
        let bad = || InvalidConstraint(text.to_owned());
        let (equal, (key, value)) = match (text.split_once("!="), text.split_once("==")) {
            (Some(parts), _) => (false, parts),
            (None, Some(parts)) => (true, parts),
            (None, None) => return Err(bad()),
        };
        let (key, value) = (key.trim(), value.trim());
        // Of labels only the prefix is the same in any case.
        let lower = key.to_ascii_lowercase();
        let key = match lower.as_str() {
            "node.id" | "node.hostname" | "node.role" | "node.ip" | "node.platform.os"
            | "node.platform.arch" => lower,
            _ => {
                let prefixes = ["node.labels.", "engine.labels."];
                let prefix =
                    prefixes.iter().find(|p| key.len() > p.len() && lower.starts_with(*p)).ok_or_else(bad)?;
                format!("{prefix}{}", &key[prefix.len()..])
            }
        };
        if value.is_empty() {
            return Err(bad());
        }
        Ok(Self { key, equal, value: value.to_owned() })
    }
}

impl std::fmt::Display for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.key, if self.equal { "==" } else { "!=" }, self.value)
    }
}

/// Source: compose `deploy.restart_policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    pub delay: Duration,
    /// 0 = no limit.
    pub max_attempts: u64,
    /// Zero = all time.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartCondition {
    None,
    OnFailure,
    Any,
}

/// Source: compose `deploy.update_config`, `deploy.rollback_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdatePolicy {
    /// Tasks replaced at once; 0 = all.
    pub parallelism: u64,
    pub delay: Duration,
    /// How long after RUNNING a task's failure counts against the update.
    pub monitor: Duration,
    pub on_failure: FailureAction,
    /// *Unit:* millionths (0.1 = 100 000), so that specs compare exactly.
    pub max_failure_ratio_ppm: u32,
    pub order: UpdateOrder,
    /// After this long a task of the new spec that no node has taken up counts as failed: an update that cannot go on is
    /// told of, and undone if it was asked to be. `None` = [`PROGRESS_DEADLINE`].
    pub progress_deadline: Option<Duration>,
}

/// How long an update waits for a node to take a task up, if its policy does not say.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            monitor: Duration::from_secs(5),
            on_failure: FailureAction::Pause,
            max_failure_ratio_ppm: 0,
            order: UpdateOrder::StopFirst,
            progress_deadline: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureAction {
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOrder {
    StopFirst,
    StartFirst,
}

/// A stored service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub id: ServiceId,
    pub meta: Meta,
    /// Writer: control (and plan's automatic rollback).
    pub spec: Arc<ServiceSpec>,
    /// Raised each time `spec` changes; tasks remember the one they were made from.
    pub spec_version: u64,
    /// What `spec` was before, for `service rollback`.
    pub previous: Option<Arc<ServiceSpec>>,
    /// The stack that owns it.
    pub stack: Option<StackId>,
    /// Writer: plan. The addresses the allocator gave.
    pub endpoint: Endpoint,
    /// Writer: plan (control resets it when the spec changes).
    pub update: Option<UpdateStatus>,
    /// Set by control on removal: plan stops the tasks, then deletes the object.
    pub pending_delete: bool,
    /// Writer: control. Raised by each forced run of a job.
    pub job_iteration: u64,
    /// Writer: control. What its registry is shown when an image is pulled; goes to nodes with a task of it only.
    /// *Source:* Docker API "Authentication": the text of `X-Registry-Auth`.
    pub registry_auth: Option<SecretBytes>,
}

/// Virtual addresses and published ports a service holds. Source: Docker API `Endpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    pub vips: Vec<Vip>,
    /// Ports with every `published` filled in.
    pub ports: Vec<crate::PortConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vip {
    pub network: NetworkId,
    pub address: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateStatus {
    pub state: UpdateState,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    pub message: String,
}

/// Source: Docker API `UpdateStatus.State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}
