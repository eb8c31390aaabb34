//! Networks, ports, and the endpoint tables that managers stream to nodes.

use crate::{Labels, Meta, NetworkId, NodeId, ServiceId, TaskId};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Option of a network: the size of its packets in bytes. *Source:* moby `libnetwork/netlabel`.
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// What the kernel takes. *Unit:* bytes. *Source:* Linux `include/uapi/linux/if_ether.h`, `ETH_MIN_MTU`, `ETH_MAX_MTU`.
pub const MTU_BYTES: std::ops::RangeInclusive<u32> = 68..=65_535;

/// Reads the value of [`MTU_OPTION`]; `None`: no link can have it.
pub fn mtu_bytes(text: &str) -> Option<u32> {
    text.parse().ok().filter(|mtu| MTU_BYTES.contains(mtu))
}

/// Source: Docker API `NetworkCreate`, compose `networks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Labels,
    pub driver: NetworkDriver,
    pub options: Labels,
    /// `None` = cut from the swarm's pools.
    pub subnet: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    pub ip_range: Option<IpNet>,
    /// Plain containers may join.
    pub attachable: bool,
    /// No way to the outside.
    pub internal: bool,
    pub encrypted: bool,
    pub ipv6: bool,
}

impl NetworkSpec {
    /// Returns one that nothing else was said of.
    #[must_use]
    pub fn new(name: impl Into<String>, driver: NetworkDriver) -> Self {
        Self {
            name: name.into(),
            labels: Labels::new(),
            driver,
            options: Labels::new(),
            subnet: None,
            gateway: None,
            ip_range: None,
            attachable: false,
            internal: false,
            encrypted: false,
            ipv6: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkDriver {
    /// VXLAN across nodes.
    Overlay,
    /// The node's own network namespace (`network_mode: host`).
    Host,
    /// Loopback only.
    None,
    /// The node's own network `bridge`.
    Bridge,
    /// The routing mesh: how published ports reach tasks from every node. No task is on it, and there is one at most.
    Ingress,
}

/// The first feature level at which there is [`NetworkDriver::Ingress`].
pub const INGRESS_LEVEL: u32 = 3;

/// A network of its node that a task is on, in place of the swarm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeNetwork {
    /// The node's own namespace.
    Host,
    /// Loopback only.
    None,
    Bridge,
}

/// The first feature level at which a task says on which network of its node it is ([`NodeNetwork`]): before, an agent
/// takes every one without addresses for one on the host's, so there is neither [`NetworkDriver::None`] nor
/// [`NetworkDriver::Bridge`].
pub const NODE_NETWORK_LEVEL: u32 = 3;

/// A stored cluster network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    /// Writer: control.
    pub spec: NetworkSpec,
    /// Writer: plan. `None` until allocated; set for `Overlay` alone.
    pub allocation: Option<NetworkAllocation>,
    pub pending_delete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkAllocation {
    /// VXLAN network identifier, from 4097 (4096 is the mesh between hosts).
    pub vni: u32,
    pub subnet: IpNet,
    /// First address of the subnet; kept free for people's habits, no interface holds it.
    pub gateway: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointSpec {
    pub mode: EndpointMode,
    pub ports: Vec<PortConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointMode {
    #[default]
    Vip,
    DnsRr,
}

/// Source: Docker API `EndpointPortConfig`, compose `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortConfig {
    pub name: String,
    pub protocol: Protocol,
    /// Port in the container.
    pub target: u16,
    /// Port on the host; 0 = choose from 30000-32767 (ingress) or any free one (host).
    pub published: u16,
    pub mode: PublishMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// As in `80/tcp`.
impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublishMode {
    /// Every node answers.
    Ingress,
    /// Only the task's node.
    Host,
}

/// *Limit* of the names that a service has beside its own on one network. Every node of the network answers for each, with
/// the addresses of all of its tasks.
pub const ALIASES_MAX: usize = 256;

/// Everything a node must know of one overlay network. Derived from the tables, never stored by managers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkTable {
    pub network: NetworkId,
    pub name: String,
    /// Raft index this was computed at. A later one replaces it.
    pub version: u64,
    pub allocation: NetworkAllocation,
    pub internal: bool,
    /// *Unit:* bytes; of container interfaces.
    pub mtu_bytes: u32,
    pub endpoints: BTreeMap<TaskId, NetworkEndpoint>,
    pub services: BTreeMap<ServiceId, NetworkService>,
}

/// One task's interface on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkEndpoint {
    pub address: IpAddr,
    pub node: NodeId,
    /// Underlay address of the node (VXLAN tunnel end point).
    pub vtep: IpAddr,
    pub service: ServiceId,
    /// The container's name and network aliases, answered by DNS.
    pub names: Vec<String>,
    /// RUNNING (healthy) and not being stopped: takes new connections of its service.
    pub ready: bool,
    /// Its node was given up: connections with it end.
    pub lost: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkService {
    pub name: String,
    /// `None` for `endpoint_mode: dnsrr`.
    pub vip: Option<IpAddr>,
    /// More names that answer like `name`.
    pub aliases: Vec<String>,
}

/// The routing mesh as every node must set it up. Derived from the tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IngressTable {
    /// Raft index this was computed at.
    pub version: u64,
    pub nodes: BTreeMap<NodeId, MeshNode>,
    /// Published port -> backends that are ready.
    pub ports: BTreeMap<(Protocol, u16), Vec<IngressBackend>>,
    /// Those of `nodes` that were given up: connections with their tasks end.
    pub lost: BTreeSet<NodeId>,
}

/// A member of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshNode {
    /// 1..=65534, unique in the swarm; fixes the node's mesh address, task subnet and mark.
    pub index: u16,
    /// Underlay address.
    pub vtep: IpAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IngressBackend {
    pub task: TaskId,
    pub node: NodeId,
    /// The task's gateway address.
    pub address: IpAddr,
    pub port: u16,
}
