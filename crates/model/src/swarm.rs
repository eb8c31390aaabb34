//! The swarm itself, and the small objects people give it: secrets, configs, stacks.

use crate::{
    ClusterId, ConfigId, Duration, Labels, LogDriver, Meta, NodeId, SecretId, ServiceSpec, StackId, Timestamp,
};
use ipnet::Ipv4Net;
use std::{net::Ipv4Addr, sync::Arc};

/// Default of [`ClusterSpec::daemon_grace`]: a daemon is replaced by a newer one, or a host that is short of memory
/// gets to start it again, within that.
pub const DAEMON_GRACE: Duration = Duration::from_secs(60);
/// *Limit* of [`ClusterSpec::daemon_grace`].
pub const DAEMON_GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Default of [`ClusterSpec::slow_follower_entries`], Docker's.
pub const SLOW_FOLLOWER_ENTRIES: u64 = 500;

/// *Limit* of [`ClusterSpec::dead_manager_after`], from below: a daemon that is started anew is no dead manager.
pub const DEAD_MANAGER_AFTER_MIN: Duration = Duration::from_secs(10);

/// Source: Docker API `SwarmSpec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    pub labels: Labels,
    /// Ended tasks kept per slot.
    pub task_history_limit: i64,
    pub heartbeat_period: Duration,
    /// How long tasks stay on a node whose daemon is away while its host answers. *Limit:* [`DAEMON_GRACE_MAX`]; `None`:
    /// [`DAEMON_GRACE`].
    pub daemon_grace: Option<Duration>,
    /// How long a manager is not heard of before it is made a worker, where the others can do without it. *Limit:*
    /// [`DEAD_MANAGER_AFTER_MIN`]; `None`: never.
    pub dead_manager_after: Option<Duration>,
    pub node_cert_expiry: Duration,
    pub autolock: bool,
    /// Entries between Raft snapshots.
    pub snapshot_interval: u64,
    /// Raft snapshots kept beside the newest.
    pub old_snapshots: u64,
    /// Entries that managers keep behind a snapshot, for members that are a little late; `None`: [`SLOW_FOLLOWER_ENTRIES`].
    pub slow_follower_entries: Option<u64>,
    /// Counted up, or set to anything else, by whoever wants a new root certificate. *Source:* Docker API
    /// `CAConfig.ForceRotate`.
    pub force_rotate: u64,
    /// Of tasks made from now on whose service names none; `None`: as each node has it.
    pub log_driver: Option<LogDriver>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            labels: Labels::new(),
            task_history_limit: 5,
            heartbeat_period: Duration::from_secs(1),
            daemon_grace: None,
            dead_manager_after: None,
            node_cert_expiry: Duration::from_secs(90 * 24 * 3600),
            autolock: false,
            snapshot_interval: 10_000,
            old_snapshots: 0,
            slow_follower_entries: None,
            force_rotate: 0,
            log_driver: None,
        }
    }
}

/// The first feature level at which a node can be [`NodeState::Away`](crate::NodeState) and
/// [`ClusterSpec::daemon_grace`] be set.
pub const AWAY_LEVEL: u32 = 2;

/// The first feature level at which a service can ask for a user namespace ([`crate::HostOptions::users`]) and for
/// what becomes of the mounts below a bind mount ([`crate::BindRecursion`]): who does not know them drops them.
pub const CONFINEMENT_LEVEL: u32 = 3;

/// The first feature level at which a swarm can have an [`Incarnation`].
pub const INCARNATION_LEVEL: u32 = 3;

/// The first feature level at which [`ClusterSpec::dead_manager_after`] can be set.
pub const DEAD_MANAGERS_LEVEL: u32 = 3;

/// The first feature level at which [`ClusterSpec::slow_follower_entries`] can be set and
/// [`ClusterSpec::force_rotate`] is kept.
pub const RAFT_AND_CA_SETTINGS_LEVEL: u32 = 3;

/// The first feature level at which a swarm remembers the index of a node that was removed.
pub const REMOVED_INDEX_LEVEL: u32 = 3;

/// From here on tasks carry the labels of their service for templates that ask for them, and secrets and configs may be
/// templates.
pub const TEMPLATES_LEVEL: u32 = 3;

/// The first feature level at which a [`StackRevision`] remembers the commit that it was made of.
pub const GIT_LEVEL: u32 = 3;

/// The newest feature level that this version understands; new swarms begin with it.
///
/// 1: the first. 2: [`crate::INTEGRITY_LEVEL`] and [`AWAY_LEVEL`]; nodes say which networks they hold, and when one is
/// gone; objects know at which index they were made. 3: [`CONFINEMENT_LEVEL`], [`INCARNATION_LEVEL`],
/// [`DEAD_MANAGERS_LEVEL`], [`GIT_LEVEL`], [`RAFT_AND_CA_SETTINGS_LEVEL`], [`REMOVED_INDEX_LEVEL`], [`TEMPLATES_LEVEL`],
/// [`crate::POOLS_LEVEL`], [`crate::SAID_LEVEL`], [`crate::NODE_NETWORKS_LEVEL`], [`crate::UNFIT_LEVEL`], [`crate::NODE_NETWORK_LEVEL`],
/// [`crate::INGRESS_LEVEL`], [`crate::ATTACHMENT_OPTIONS_LEVEL`] and [`crate::resource::TOGETHER_LEVEL`].
pub const FEATURE_LEVEL: u32 = 3;

/// Which life of a swarm something belongs to. Each recovery from the loss of a majority, and each restored backup,
/// begins a later one with managers of its own; whoever has heard of a later one has no more to do with the managers
/// of an earlier. A swarm that was never recovered has none, which is earlier than any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// Greater than that of every life that was known when it began: seconds since 1970, or one more than the last.
    pub number: u64,
    /// Random: two that began at once are told apart, and one of them is the later.
    pub tag: u64,
}

/// The one cluster object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    /// PEM. The key never leaves the managers' encrypted state.
    pub root_ca_cert: String,
    pub root_ca_key: SecretBytes,
    pub worker_token: SecretBytes,
    pub manager_token: SecretBytes,
    /// `SWMKEY-1-..` while autolock is on.
    pub unlock_key: Option<SecretBytes>,
    /// Pools that overlay subnets are cut from.
    pub address_pools: Vec<Ipv4Net>,
    /// Prefix length of such a subnet.
    pub subnet_prefix: u8,
    pub data_path_port: u16,
    /// /16 of mesh addresses, `10.254.0.0/16` by default: node N holds .N.
    pub mesh_subnet: Ipv4Net,
    /// Pool of per-node task subnets (gateway addresses), `10.255.0.0/16` by default cut into /24.
    pub task_pool: Ipv4Net,
    /// Feature level all managers understand, at most [`FEATURE_LEVEL`]; newer fields are written, and newer rules
    /// applied, only from their level on.
    pub feature_level: u32,
    /// Nodes that were removed, as long as a certificate of theirs may be valid. *Limit:* [`REMOVED_MAX`], oldest out
    /// first: who is not here is unknown, and refused as well.
    pub removed: Vec<RemovedNode>,
    /// A change of the root certificate that has not reached every node yet.
    pub rotation: Option<RootRotation>,
    /// `None`: it was never recovered or restored.
    pub incarnation: Option<Incarnation>,
    /// Its people have removed the routing mesh: nothing is published through it.
    pub ingress_removed: bool,
}

/// A root certificate on its way in. *Source:* SwarmKit `api.RootRotation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRotation {
    /// PEM.
    pub cert: String,
    pub key: SecretBytes,
    /// PEM: the new root's key certified by the old root, for nodes that trust only that one yet.
    pub cross_signed: String,
}

/// *Limit* of removed nodes that are remembered.
pub const REMOVED_MAX: usize = 1024;

/// A node whose certificates are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedNode {
    pub node: NodeId,
    /// When the last of its certificates has expired.
    pub until: Timestamp,
    /// As [`crate::Node::index`], which rests as long as there are others; 0: not noted.
    pub index: u16,
}

impl Cluster {
    /// Returns a swarm of Docker's default sizes at the newest feature level, which has no certificate and no tokens yet:
    /// 10.0.0.0/8 cut into /24 (without the mesh 10.254.0.0/16 and the task pool 10.255.0.0/16, which the allocator
    /// leaves out), VXLAN on 4789. *Source:* `docker swarm init --default-addr-pool`, `--data-path-port`.
    pub fn new(id: ClusterId) -> Self {
        let net = |second, prefix| Ipv4Net::new_assert(Ipv4Addr::new(10, second, 0, 0), prefix);
        Self {
            id,
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            root_ca_cert: String::new(),
            root_ca_key: SecretBytes::default(),
            worker_token: SecretBytes::default(),
            manager_token: SecretBytes::default(),
            unlock_key: None,
            address_pools: vec![net(0, 8)],
            subnet_prefix: 24,
            data_path_port: 4789,
            mesh_subnet: net(254, 16),
            task_pool: net(255, 16),
            feature_level: FEATURE_LEVEL,
            removed: Vec::new(),
            rotation: None,
            incarnation: None,
            ingress_removed: false,
        }
    }

    /// Returns the root certificates that nodes trust as PEM, the one that is to stay last.
    pub fn trusted_roots(&self) -> String {
        let new = self.rotation.as_ref().map_or("", |rotation| &rotation.cert);
        format!("{}{new}", self.root_ca_cert)
    }

    /// Returns the root certificate that is to stay, as PEM.
    pub fn desired_root(&self) -> &str {
        self.rotation.as_ref().map_or(&self.root_ca_cert, |rotation| &rotation.cert)
    }

    /// Notes that a node with this index was removed at `now`, and forgets those whose certificates have expired by now.
    pub fn revoke(&mut self, node: NodeId, index: u16, now: Timestamp) {
        self.removed.retain(|r| r.until > now && r.node != node);
        let excess = (self.removed.len() + 1).saturating_sub(REMOVED_MAX);
        self.removed.drain(..excess);
        let index = if self.feature_level >= REMOVED_INDEX_LEVEL { index } else { 0 };
        self.removed.push(RemovedNode { node, until: now.after(self.spec.node_cert_expiry), index });
    }
}

/// Bytes that must not reach a log.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretBytes(pub Vec<u8>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// *Limit:* data below 500 KiB. Source: swarmkit `api/validation/secrets.go`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    pub name: String,
    pub labels: Labels,
    pub data: SecretBytes,
    /// The data is a template, filled in for each task: Docker's template driver `golang`.
    pub templated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub id: SecretId,
    pub meta: Meta,
    pub spec: SecretSpec,
}

/// *Limit:* data below 1000 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpec {
    pub name: String,
    pub labels: Labels,
    pub data: Vec<u8>,
    /// As of [`SecretSpec`].
    pub templated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub id: ConfigId,
    pub meta: Meta,
    pub spec: ConfigSpec,
}

/// A deployed stack with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    pub id: StackId,
    pub meta: Meta,
    pub name: String,
    /// Newest last; at most ten.
    pub revisions: Vec<StackRevision>,
    pub pending_delete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackRevision {
    pub number: u64,
    pub at: Timestamp,
    pub author: String,
    /// The resolved compose file, canonical YAML.
    pub source: String,
    /// What it came to, sorted by name.
    pub services: Vec<Arc<ServiceSpec>>,
    /// Number of the revision that this one puts back; 0 = none.
    pub restores: u64,
    /// Did its services come up? `None` = nobody has waited for them.
    pub came_up: Option<bool>,
    /// What its author said about it.
    pub message: String,
    /// The commit that was checked out where its files are, hexadecimal; empty: not known. From [`GIT_LEVEL`] on.
    pub git: String,
}
