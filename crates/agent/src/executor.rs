//! What the agent asks of its host.

use async_trait::async_trait;
use ipnet::Ipv4Net;
use model::{
    Config, ConfigId, ContainerStatus, IngressTable, NetworkId, NetworkTable, NodeDescription, NodeId,
    Secret, SecretBytes, SecretId, Task, TaskId,
};
use std::{collections::BTreeMap, sync::Arc};

/// A task for this node, with what it refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskAssignment {
    pub task: Arc<Task>,
    /// Those the task refers to, with their contents.
    pub secrets: BTreeMap<SecretId, Arc<Secret>>,
    pub configs: BTreeMap<ConfigId, Arc<Config>>,
    /// What the image's registry is shown, as the text of Docker's `X-Registry-Auth`. Not kept on disk.
    pub registry_auth: Option<SecretBytes>,
}

/// This node as the swarm knows it: what its networks are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    pub id: NodeId,
    /// 1..=65534, unique in the swarm.
    pub index: u16,
    /// UDP port of VXLAN.
    pub data_port: u16,
    /// Node N holds address N of it.
    pub mesh_subnet: Ipv4Net,
    pub task_pool: Ipv4Net,
}

/// A container that is there for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub task: TaskId,
    pub container: ContainerStatus,
    pub running: bool,
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The same step may succeed later: it is tried again.
    #[error("{reason}")]
    Temporary { reason: String },
    /// The task is over: REJECTED before it was started, FAILED after.
    #[error("{reason}")]
    Fatal {
        reason: String,
        /// What is known of its container.
        container: Option<Box<ContainerStatus>>,
    },
}

impl TaskError {
    pub fn temporary(reason: impl std::fmt::Display) -> Self {
        Self::Temporary { reason: reason.to_string() }
    }

    pub fn fatal(reason: impl std::fmt::Display) -> Self {
        Self::Fatal { reason: reason.to_string(), container: None }
    }
}

/// What a step says for people while it lasts: the newest counts. It is told on at most every two seconds.
pub type News = tokio::sync::watch::Sender<String>;

/// The host of the tasks. Every method may be called again after it succeeded, and after this process was
/// restarted, and then returns the same.
///
/// # Cancel safety
/// The futures of `prepare`, `start` and `wait` may be dropped at any point; `shutdown` and `remove` come after.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Returns what this host is; asked at each session and every 20 s.
    async fn describe(&self) -> NodeDescription;

    /// Makes the host a member: called with each session's welcome, and at the start with the last one known.
    ///
    /// # Errors
    /// Any: it is called again until it succeeds; no task is prepared before.
    async fn configure(&self, node: NodeConfig) -> Result<(), TaskError>;

    /// Makes the task ready to start: network sandbox, image, container. The tables of its networks have been
    /// applied before.
    /// What takes long is told in `news`.
    async fn prepare(&self, task: &TaskAssignment, news: &News) -> Result<(), TaskError>;

    /// Starts the container and returns once it runs and, with a healthcheck, is healthy. A container that runs
    /// already is left alone; one that has exited is not started again but a [`TaskError::Fatal`].
    async fn start(&self, task: &TaskAssignment) -> Result<ContainerStatus, TaskError>;

    /// Returns when the container has exited, with its exit code. A container that became unhealthy is a
    /// [`TaskError::Fatal`]; the agent then calls `shutdown`.
    async fn wait(&self, task: TaskId) -> Result<ContainerStatus, TaskError>;

    /// Stops the container: stop signal, grace period, kill. Returns its last status, `None` if there never was
    /// a container. Frees its network sandbox.
    async fn shutdown(&self, task: &TaskAssignment) -> Result<Option<ContainerStatus>, TaskError>;

    /// Frees what an ended container needs no more (its network sandbox) but keeps its record and logs. Called
    /// before the end is reported, because its addresses may be given away from then on. The default does
    /// nothing: for hosts where an exit frees by itself.
    async fn release(&self, task: TaskId) -> Result<(), TaskError> {
        let _ = task;
        Ok(())
    }

    /// Removes every trace of the task, killing what still runs.
    async fn remove(&self, task: TaskId) -> Result<(), TaskError>;

    /// Returns the tasks this host has containers for, running or not; asked once, at the start.
    async fn list(&self) -> Vec<Held>;

    /// Brings the kernel to this table. `Ok` = accepted by the kernel; an older version than the last is not an
    /// error and changes nothing.
    async fn apply_network(&self, table: NetworkTable) -> Result<(), TaskError>;

    /// Forgets a network: no task of it is here any more.
    async fn drop_network(&self, network: NetworkId) -> Result<(), TaskError>;

    async fn apply_ingress(&self, table: IngressTable) -> Result<(), TaskError>;
}
