//! What callers ask of this room: nodes, sandboxes, local bridges, ports, and why a request failed.

use crate::address::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{NetworkId, NodeId, Protocol, TaskId};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Where the network service keeps its things, and in which namespace its host is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pinned namespaces live in `<run_root>/netns`; gone after a reboot, as they are.
    pub run_root: PathBuf,
    /// Tables and sandbox records; survive reboots.
    pub state_dir: PathBuf,
    /// Running as uid 0 of a user namespace: knobs the kernel withholds there are warnings, not errors.
    pub rootless: bool,
    /// Name servers for what this room does not know. `None` = those of the host's /etc/resolv.conf.
    pub resolvers: Option<Vec<IpAddr>>,
    /// The network namespace that stands for the host. `None` = the one of this process.
    pub host_netns: Option<PathBuf>,
    /// Time between two audits.
    pub audit_period: Duration,
    /// By sandbox: sockets of name servers that somebody kept open for the time without a daemon.
    pub name_sockets: BTreeMap<String, NameSockets>,
}

impl Options {
    /// Returns the options of an ordinary daemon with these two roots.
    pub fn new(run_root: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            run_root: run_root.into(),
            state_dir: state_dir.into(),
            rootless: false,
            resolvers: None,
            host_netns: None,
            audit_period: Duration::from_secs(30),
            name_sockets: BTreeMap::new(),
        }
    }
}

/// This node, as the swarm knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    pub node: NodeId,
    /// 1.., unique in the swarm: fixes mesh address, task subnet and mark.
    pub index: u16,
    /// Source of VXLAN packets.
    pub data_addr: IpAddr,
    /// UDP port of VXLAN packets, 4789 by default.
    pub data_port: u16,
    /// Node N holds address N of it on the mesh.
    pub mesh_subnet: Ipv4Net,
    /// Node N's tasks get their gateway addresses from the N-th /24 of it.
    pub task_pool: Ipv4Net,
}

/// One container's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Container id, at least 12 characters of hex for readable interface names.
    pub id: String,
    pub hostname: String,
    /// In order of `eth0`, `eth1`, ... Empty and no gateway: loopback only.
    pub attachments: Vec<SandboxAttachment>,
    /// The way out for tasks on overlay networks.
    pub gateway: Option<Gateway>,
    pub ports: Vec<PortBinding>,
    pub dns: DnsOptions,
    /// `net.*` settings of the container, key to value.
    pub sysctls: Vec<(String, String)>,
}

/// A network a container is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxAttachment {
    Overlay {
        network: NetworkId,
        task: TaskId,
        /// The task's address with the network's prefix length.
        address: IpNet,
        aliases: Vec<String>,
    },
    Bridge {
        /// Id of a local bridge network.
        network: String,
        /// `None` = the next free one.
        address: Option<IpAddr>,
        /// `None` = one made of the IPv4 address; none at all on a network without IPv6.
        address6: Option<Ipv6Addr>,
        /// `None` = Docker's `02:42` and the address.
        mac: Option<Mac>,
        /// The container's name and aliases on this network, answered by DNS.
        names: Vec<String>,
        options: LegOptions,
    },
}

/// What a container asks of its interface on a local network beside addresses. *Source:* Docker API
/// `EndpointSettings`; moby `libnetwork/netlabel`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LegOptions {
    /// The network with the highest leads outside; of equals the first.
    pub gateway_priority: i64,
    /// Name inside; `None` = `eth0`, `eth1`, ...
    pub interface: Option<String>,
    /// Settings of the interface, key to value; `IFNAME` in a key stands for its name.
    pub sysctls: Vec<(String, String)>,
    /// Names of others on this network, and what this container alone calls them.
    pub links: Vec<(String, String)>,
    /// Further addresses of the interface, out of 169.254.0.0/16: for who is on the same link, and has one too.
    pub link_local: Vec<Ipv4Addr>,
}

/// The routed leg to the outside: a /32 out of the node's task subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    pub address: IpAddr,
}

/// A port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    pub protocol: Protocol,
    /// `None` = every address of the host, of IPv6 only when the container has one.
    pub host_ip: Option<IpAddr>,
    /// `None` in a request = choose one; always `Some` in an answer.
    pub host_port: Option<u16>,
    pub container_port: u16,
}

/// How a container resolves names beyond its networks. Source: Docker API `HostConfig.Dns*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsOptions {
    /// Asked for foreign names; empty = the host's.
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// The sockets of a sandbox's name server. Whoever keeps a copy open keeps the questions that arrive while no
/// daemon runs: the next one answers them (see [`Options::name_sockets`]).
#[derive(Debug, Clone)]
pub struct NameSockets(Arc<[OwnedFd; 2]>);

impl NameSockets {
    /// Takes a bound UDP socket and a listening TCP socket.
    pub fn new(udp: OwnedFd, tcp: OwnedFd) -> Self {
        Self(Arc::new([udp, tcp]))
    }

    /// Returns the UDP and the TCP socket.
    pub fn as_fds(&self) -> [BorrowedFd<'_>; 2] {
        let [udp, tcp] = &*self.0;
        [udp.as_fd(), tcp.as_fd()]
    }
}

impl PartialEq for NameSockets {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for NameSockets {}

/// A sandbox as made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxInfo {
    pub id: String,
    /// To be joined by `setns`.
    pub netns_path: PathBuf,
    pub interfaces: Vec<InterfaceInfo>,
    /// As asked, every `host_port` filled in.
    pub ports: Vec<PortBinding>,
    /// Name server for the container's resolv.conf; `None` when it has loopback only.
    pub dns_server: Option<IpAddr>,
    /// Search domains for the container's resolv.conf.
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// Of a name server that was started just now; told once.
    pub name_sockets: Option<NameSockets>,
}

/// One interface in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Network id as printed; empty for the routed leg `ethg`.
    pub network: String,
    pub name: String,
    /// `aa:bb:cc:dd:ee:ff`
    pub mac: String,
    pub address: IpNet,
    pub gateway: Option<IpAddr>,
    pub address6: Option<Ipv6Net>,
    pub gateway6: Option<Ipv6Addr>,
}

/// A network of this host. Source: Docker API `NetworkCreate`, drivers `bridge` and `macvlan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// 64 hex digits as Docker's; unique.
    pub id: String,
    pub name: String,
    pub subnet: Ipv4Net,
    /// Held by the bridge. `None` = first address of the subnet.
    pub gateway: Option<IpAddr>,
    /// Addresses are handed out from here. `None` = the whole subnet.
    pub ip_range: Option<Ipv4Net>,
    pub ipv6: Option<BridgeIpv6>,
    /// Addresses on it that other machines have.
    pub aux_addresses: Vec<IpAddr>,
    /// Its containers hang on a link of the host, not on a bridge of ours.
    pub macvlan: Option<Macvlan>,
    /// No way to the outside.
    pub internal: bool,
    /// Containers on it may talk to each other.
    pub icc: bool,
    /// *Unit:* bytes; `None` = 1500.
    pub mtu_bytes: Option<u32>,
    /// Interface name; `None` = `br-` and 12 digits of the id.
    pub interface: Option<String>,
}

/// The IPv6 side of a network of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeIpv6 {
    pub subnet: Ipv6Net,
    /// Held by the bridge. `None` = first address of the subnet.
    pub gateway: Option<Ipv6Addr>,
    /// Addresses are handed out from here. `None` = the whole subnet.
    pub ip_range: Option<Ipv6Net>,
}

impl BridgeIpv6 {
    /// Returns the address of the way out.
    pub fn gateway(&self) -> Ipv6Addr {
        self.gateway.unwrap_or_else(|| Ipv6Addr::from(u128::from(self.subnet.network()) | 1))
    }
}

/// Source: Docker's driver `macvlan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macvlan {
    /// Link of the host; its owner makes it.
    pub parent: String,
    pub mode: MacvlanMode,
}

/// How containers on one parent see each other. Source: kernel `include/uapi/linux/if_link.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MacvlanMode {
    Private = 1,
    Vepa = 2,
    #[default]
    Bridge = 4,
    Passthru = 8,
}

/// A network of this host as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub spec: BridgeSpec,
    pub interface: String,
    pub gateway: IpAddr,
    pub gateway6: Option<Ipv6Addr>,
    /// Sandbox id and address of each container on it.
    pub endpoints: Vec<BridgeEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeEndpoint {
    pub sandbox: String,
    pub address: IpAddr,
    pub mac: String,
}

/// What an audit found and put right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// One line per object that was missing, wrong or surplus.
    pub repairs: Vec<String>,
    /// What could not be put right.
    pub errors: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the network service has stopped")]
    Stopped,
    #[error("network {0} not found")]
    UnknownNetwork(String),
    #[error("sandbox {0} not found")]
    UnknownSandbox(String),
    #[error("{0:?} is not the MAC address of one machine (aa:bb:cc:dd:ee:ff)")]
    InvalidMac(String),
    #[error("{0:?} cannot be an id")]
    InvalidId(String),
    #[error("this node is in no swarm")]
    NotInSwarm,
    #[error("node index {index} does not fit into task pool {pool}")]
    IndexOutOfPool { index: u16, pool: Ipv4Net },
    #[error("network {0} has active endpoints")]
    NetworkInUse(String),
    #[error("subnet {subnet} overlaps {other}")]
    SubnetInUse { subnet: IpNet, other: String },
    #[error("address {address} is in use on network {network}")]
    AddressInUse { address: IpAddr, network: String },
    #[error("address {address} is not in subnet {subnet}")]
    AddressOutsideSubnet { address: IpAddr, subnet: IpNet },
    #[error("network {0} has no IPv6")]
    NoIpv6(String),
    #[error("port {port} cannot be published on {host_ip}: the container is on no network with IPv6")]
    NoIpv6Behind { host_ip: IpAddr, port: u16 },
    #[error("port {port} cannot be published on ::1: the kernel does not translate it; hint: 127.0.0.1")]
    Loopback6 { port: u16 },
    #[error("there is no interface {0} on this host to be the parent of a macvlan network")]
    NoParent(String),
    #[error("interface {0} is one of rswarm's own and cannot be the parent of a macvlan network")]
    OwnParent(String),
    #[error(
        "interface {0} exists and is not of rswarm's making: it stays as it is; hint: remove it if nothing needs it any more (ip link delete {0}), or choose another name by the option com.docker.network.bridge.name"
    )]
    ForeignLink(String),
    #[error(
        "{0:?} cannot be the name of a bridge; hint: 1 to 15 letters, digits, \".\", \"_\" or \"-\", and not of a form that rswarm uses itself"
    )]
    InvalidInterface(String),
    #[error("a container cannot have two interfaces of the name {0}")]
    InterfaceTwice(String),
    #[error("interface {interface} belongs to network {network}")]
    InterfaceInUse { interface: String, network: String },
    #[error("nftables table {0} exists and is not of rswarm's making; hint: nft list table {0}")]
    ForeignTable(String),
    #[error("no free address in network {0}")]
    PoolExhausted(String),
    /// Docker's words.
    #[error("Bind for {host_ip}:{port} failed: port is already allocated")]
    PortInUse { host_ip: IpAddr, port: u16 },
    /// Docker's words, and by whom.
    #[error("failed to bind host port {host_ip}:{port}/{protocol}: address already in use{by}", by = held_by(.holder.as_deref()))]
    PortHeld { host_ip: IpAddr, port: u16, protocol: Protocol, holder: Option<String> },
    #[error("more than {0} published ports, a quarter of this node's descriptors; hint: LimitNOFILE")]
    TooManyPorts(usize),
    #[error("no free port for {0:?}")]
    NoFreePort(Protocol),
    #[error("a sandbox has at most 30 networks")]
    TooManyNetworks,
    #[error("IPv6 is not supported for {0}")]
    Ipv6(&'static str),
    #[error("cannot {what}")]
    Kernel {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what} {path}", path = path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn held_by(holder: Option<&str>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

impl Error {
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }

    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
