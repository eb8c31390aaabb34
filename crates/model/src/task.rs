//! A task: one attempt at one slot. It is never restarted and never moves; a retry is a new task.
//!
//! ```text
//!  placement (plan)          observed (the node's agent, through dispatcher; only ever advances)
//!  Unallocated -> Pending -> On(node) -> ACCEPTED -> PREPARING -> READY -> STARTING -> RUNNING
//!                                                                             |-> COMPLETE | FAILED
//!                                            (before STARTING) REJECTED       |-> SHUTDOWN
//!  the node is gone for good: ORPHANED
//! ```

use crate::{
    GenericResources, Labels, LogDriver, Meta, NetworkAttachmentSpec, NetworkId, NodeId, NodeNetwork,
    PortConfig, ServiceId, TaskId, TaskSpec, Timestamp,
};
use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    pub service: ServiceId,
    /// Copied from the service at creation, for names and templates.
    pub service_name: String,
    /// Copied from the service at creation if a template of its container asks for them, or a secret or config is one;
    /// else empty.
    pub service_labels: Labels,
    pub slot: Slot,
    /// Shared by all tasks of one (service, spec version).
    pub spec: Arc<TaskSpec>,
    /// The service's `spec_version` this was made from.
    pub spec_version: u64,
    /// For jobs, the iteration it belongs to.
    pub job_iteration: u64,
    /// Host-mode ports it occupies on its node (published filled in by plan).
    pub host_ports: Vec<PortConfig>,
    /// Writer: plan.
    pub placement: Placement,
    /// Writer: plan. The swarm's log driver when it was made, if its spec names none. Source: swarmkit `api/objects.proto`,
    /// `Task.log_driver`.
    pub log_driver: Option<LogDriver>,
    /// Writer: plan. What of its node's resources is its own.
    pub generic: GenericResources,
    /// Writer: plan.
    pub desired: Desired,
    /// Writer: plan. Addresses per network, in the order of `spec.networks`.
    pub attachments: Vec<Attachment>,
    /// Writer: plan. The task's address in its node's task subnet (egress and published ports), if it has one.
    pub gateway_address: Option<IpAddr>,
    /// Writer: plan. The network of its node that it is on; `None`: the swarm's.
    pub node_network: Option<NodeNetwork>,
    /// Writer: dispatcher, on the agent's report.
    pub status: TaskStatus,
    /// Writer: plan. When the plan shut it down, for history order and restart windows.
    pub desired_at: Timestamp,
    /// Id of the container that a person started on the node and that this task holds addresses for: of no
    /// service, and nothing is run for it. Source: swarmkit `api/types.proto`, `NetworkAttachmentSpec`.
    pub attaches: Option<String>,
}

impl Task {
    /// Returns a task that asks for addresses for a container on a node.
    pub fn attachment(
        id: TaskId,
        container: &str,
        name: &str,
        node: NodeId,
        networks: Vec<NetworkAttachmentSpec>,
    ) -> Self {
        Self {
            id,
            meta: Meta::default(),
            // Of its own, so that its name is answered on its networks.
            service: ServiceId(id.0),
            service_name: name.to_owned(),
            service_labels: Labels::new(),
            slot: Slot::Node(node),
            spec: Arc::new(TaskSpec { networks, ..TaskSpec::default() }),
            spec_version: 1,
            job_iteration: 0,
            log_driver: None,
            host_ports: Vec::new(),
            placement: Placement::Unallocated,
            generic: GenericResources::new(),
            desired: Desired::Running,
            attachments: Vec::new(),
            gateway_address: None,
            node_network: None,
            status: TaskStatus::default(),
            desired_at: Timestamp::default(),
            attaches: Some(container.to_owned()),
        }
    }

    /// Returns `web.1` (replicated) or `web.<node id>` (global), Docker's short task name; the container's name
    /// of one that only attaches it.
    pub fn name(&self) -> String {
        if self.attaches.is_some() {
            return self.service_name.clone();
        }
        match self.slot {
            Slot::Replica(n) => format!("{}.{n}", self.service_name),
            Slot::Node(node) => format!("{}.{node}", self.service_name),
        }
    }

    /// Returns `web.1.<task id>`: the container's name on its node.
    pub fn container_name(&self) -> String {
        if self.attaches.is_some() {
            return self.name();
        }
        format!("{}.{}", self.name(), self.id)
    }

    /// Returns the node it was placed on.
    pub fn node(&self) -> Option<NodeId> {
        match self.placement {
            Placement::On(node) => Some(node),
            Placement::Unallocated | Placement::Pending { .. } => None,
        }
    }

    /// Returns true while a container may exist for it.
    pub fn may_hold_resources(&self) -> bool {
        self.node().is_some() && !self.status.state.is_some_and(TaskState::is_terminal)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Numbered from 1; numbers may have holes.
    Replica(u64),
    /// Global services: one per node.
    Node(NodeId),
}

/// What the managers know of a task before its agent has spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Waits for addresses and ports (Docker: NEW).
    Unallocated,
    /// Waits for a node (Docker: PENDING); `reason` is what `service ps` shows.
    Pending { reason: String },
    /// Docker: ASSIGNED until the agent reports.
    On(NodeId),
}

/// What the plan wants of a task. An agent stops advancing at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Desired {
    /// Prepare, but wait before starting.
    Ready,
    Running,
    /// Jobs: run to completion.
    Complete,
    Shutdown,
    /// Stop it, then forget it.
    Remove,
}

/// What the node observes. Ordered: a larger state wins. Source: SwarmKit `TaskState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Orphaned,
}

impl TaskState {
    /// Returns true if nothing follows this state.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

/// Writer: dispatcher.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskStatus {
    /// `None` until the agent has spoken.
    pub state: Option<TaskState>,
    pub at: Timestamp,
    pub message: String,
    /// Why it failed or was rejected.
    pub error: Option<String>,
    pub container: Option<ContainerStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerStatus {
    /// 64 hex digits.
    pub container_id: String,
    pub pid: i32,
    /// Set once it has exited.
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
}

/// A task's place on one network. Writer: plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub network: NetworkId,
    /// Address with the network's prefix length.
    pub address: IpNet,
    pub aliases: Vec<String>,
}
