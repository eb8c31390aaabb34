//! Members of the swarm.

use crate::{GenericResources, Labels, Meta, NodeId, Platform, Resources, Timestamp};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Source: Docker API `NodeSpec`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSpec {
    pub name: Option<String>,
    pub labels: Labels,
    pub role: Role,
    pub availability: Availability,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    #[default]
    Worker,
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Availability {
    #[default]
    Active,
    /// No new tasks.
    Pause,
    /// Tasks are moved away.
    Drain,
}

/// A stored node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub meta: Meta,
    /// Writer: control (ca sets role and id when it first signs).
    pub spec: NodeSpec,
    /// Writer: ca, when the node joins. 1..=65534, unique; freed with the node, and given out again when none
    /// is left that nobody had.
    pub index: u16,
    /// Role its current certificate carries. Writer: ca.
    pub certified_role: Role,
    /// Writer: dispatcher, from the agent's hello. `None` until first seen.
    pub description: Option<NodeDescription>,
    /// Writer: dispatcher.
    pub status: NodeStatus,
    /// Set while the node is a Raft member. Writer: manager's role loop.
    pub manager: Option<ManagerStatus>,
}

impl Node {
    /// Returns the host name, or the id while it is unknown.
    pub fn display_name(&self) -> String {
        self.spec
            .name
            .clone()
            .or_else(|| self.description.as_ref().map(|d| d.hostname.clone()))
            .unwrap_or_else(|| self.id.to_string())
    }

    /// Returns true if new tasks may be placed here.
    pub fn accepts_tasks(&self) -> bool {
        self.status.state == NodeState::Ready && self.spec.availability == Availability::Active
    }

    /// Returns true if tasks that are here may stay.
    pub fn keeps_tasks(&self) -> bool {
        self.status.state != NodeState::Down && self.spec.availability != Availability::Drain
    }
}

/// What an agent says of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDescription {
    pub hostname: String,
    pub platform: Platform,
    pub resources: Resources,
    /// What else tasks can ask for.
    pub generic: GenericResources,
    pub engine_version: String,
    pub engine_labels: Labels,
    /// Where this node answers node-to-node gRPC.
    pub addr: SocketAddr,
    /// Underlay address for VXLAN.
    pub data_addr: IpAddr,
    pub tls: NodeTls,
    /// [`crate::FEATURE_LEVEL`] of the version that it runs; 0: one that did not tell yet, which understands 1.
    pub feature_level: u32,
    /// What links and routes of this host lead to that are not rswarm's: networks that get their addresses from the
    /// swarm keep away from them. At most [`NETWORKS_MAX`].
    pub networks: Vec<IpNet>,
    /// Why no container can run on this host, in words for people; empty: they can. Such a node gets no tasks. At most
    /// [`UNFIT_MAX`].
    pub unfit: Vec<String>,
}

/// *Limit* of [`NodeDescription::unfit`].
pub const UNFIT_MAX: usize = 8;

/// The first feature level at which the state has [`NodeDescription::unfit`].
pub const UNFIT_LEVEL: u32 = 3;

/// *Limit* of [`NodeDescription::networks`].
pub const NETWORKS_MAX: usize = 256;

/// The first feature level at which the state has [`NodeDescription::networks`].
pub const NODE_NETWORKS_LEVEL: u32 = 3;

/// Whom a node trusts and who certified it. *Source:* Docker API `TLSInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeTls {
    /// SHA-256 of the PEM text of the roots it trusts.
    pub trust: Vec<u8>,
    /// DER of the issuer's name and public key.
    pub issuer_subject: Vec<u8>,
    pub issuer_public_key: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatus {
    pub state: NodeState,
    pub message: String,
    /// When `state` last changed.
    pub since: Timestamp,
    /// Address the managers see it at.
    pub addr: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeState {
    /// Not seen since the leader took over; its tasks stay.
    #[default]
    Unknown,
    Ready,
    /// Its daemon is not heard but its host answers: containers live on, so its tasks stay, for
    /// [`ClusterSpec::daemon_grace`](crate::ClusterSpec::daemon_grace); it gets no new ones.
    Away,
    /// Its host is silent, or its daemon was away for too long; its tasks are replaced.
    Down,
    /// Left on its own.
    Disconnected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManagerStatus {
    /// Identifier of the Raft member; new for each join.
    pub raft_id: u64,
    pub addr: SocketAddr,
    /// What the leader sees of it, in its answers; never stored.
    pub seen: Option<ManagerSeen>,
}

/// What Raft's leader sees of another manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManagerSeen {
    /// It acknowledged something within the last seconds.
    pub reachable: bool,
    /// Entries of the log that it has not acknowledged.
    pub behind: u64,
}
