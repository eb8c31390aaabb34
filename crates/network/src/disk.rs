//! Records of tables, bridges, sandboxes and the node's identity, so that a restarted daemon knows what
//! the kernel should hold. Each is a file of its own, replaced as a whole.
//!
//! ```text
//!  <state_dir>/identity  ingress  tables/<id>  bridges/<id>  sandboxes/<id>
//! ```

use crate::{
    spec::{
        BridgeIpv6, BridgeSpec, DnsOptions, Error, Gateway, LegOptions, Macvlan, MacvlanMode, NodeIdentity,
        PortBinding, SandboxAttachment, SandboxSpec,
    },
    state::{Leg, LocalBridge, Sandbox, State},
};
use model::{
    IngressBackend, IngressTable, MeshNode, NetworkAllocation, NetworkEndpoint, NetworkId, NetworkService,
    NetworkTable, Protocol,
};
use prost::Message;
use std::{
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};
use tracing::{error, warn};

/// *Limit* of a record. *Unit:* bytes.
const RECORD_MAX: u64 = 256 << 20;

#[derive(Clone, PartialEq, Message)]
struct TableRecord {
    #[prost(string, tag = "1")]
    network: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    version: u64,
    #[prost(uint32, tag = "4")]
    vni: u32,
    #[prost(string, tag = "5")]
    subnet: String,
    #[prost(string, tag = "6")]
    gateway: String,
    #[prost(bool, tag = "7")]
    internal: bool,
    #[prost(uint32, tag = "8")]
    mtu_bytes: u32,
    #[prost(message, repeated, tag = "9")]
    endpoints: Vec<EndpointRecord>,
    #[prost(message, repeated, tag = "10")]
    services: Vec<ServiceRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointRecord {
    #[prost(string, tag = "1")]
    task: String,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(string, tag = "3")]
    node: String,
    #[prost(string, tag = "4")]
    vtep: String,
    #[prost(string, tag = "5")]
    service: String,
    #[prost(string, repeated, tag = "6")]
    names: Vec<String>,
    #[prost(bool, tag = "7")]
    ready: bool,
    #[prost(bool, tag = "8")]
    lost: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, optional, tag = "3")]
    vip: Option<String>,
    #[prost(string, repeated, tag = "4")]
    aliases: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct IngressRecord {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(message, repeated, tag = "2")]
    nodes: Vec<MeshNodeRecord>,
    #[prost(message, repeated, tag = "3")]
    ports: Vec<PublishedRecord>,
    #[prost(string, repeated, tag = "4")]
    lost: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct MeshNodeRecord {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(uint32, tag = "2")]
    index: u32,
    #[prost(string, tag = "3")]
    vtep: String,
}

#[derive(Clone, PartialEq, Message)]
struct PublishedRecord {
    #[prost(uint32, tag = "1")]
    protocol: u32,
    #[prost(uint32, tag = "2")]
    port: u32,
    #[prost(message, repeated, tag = "3")]
    backends: Vec<BackendRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct BackendRecord {
    #[prost(string, tag = "1")]
    task: String,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(uint32, tag = "4")]
    port: u32,
}

#[derive(Clone, PartialEq, Message)]
struct IdentityRecord {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(uint32, tag = "2")]
    index: u32,
    #[prost(string, tag = "3")]
    data_addr: String,
    #[prost(uint32, tag = "4")]
    data_port: u32,
    #[prost(string, tag = "5")]
    mesh_subnet: String,
    #[prost(string, tag = "6")]
    task_pool: String,
}

#[derive(Clone, PartialEq, Message)]
struct BridgeRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    subnet: String,
    #[prost(string, optional, tag = "4")]
    gateway: Option<String>,
    #[prost(string, optional, tag = "5")]
    ip_range: Option<String>,
    #[prost(bool, tag = "6")]
    internal: bool,
    #[prost(bool, tag = "7")]
    icc: bool,
    #[prost(uint32, optional, tag = "8")]
    mtu_bytes: Option<u32>,
    #[prost(string, optional, tag = "9")]
    interface: Option<String>,
    #[prost(string, optional, tag = "10")]
    subnet6: Option<String>,
    #[prost(string, optional, tag = "11")]
    gateway6: Option<String>,
    /// Set on macvlans only.
    #[prost(string, optional, tag = "12")]
    parent: Option<String>,
    #[prost(uint32, tag = "13")]
    macvlan_mode: u32,
    #[prost(string, repeated, tag = "14")]
    aux_addresses: Vec<String>,
    #[prost(string, optional, tag = "15")]
    ip_range6: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(message, repeated, tag = "3")]
    legs: Vec<LegRecord>,
    #[prost(string, optional, tag = "4")]
    gateway: Option<String>,
    #[prost(message, repeated, tag = "5")]
    ports: Vec<PortRecord>,
    #[prost(string, repeated, tag = "6")]
    dns_servers: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    dns_search: Vec<String>,
    #[prost(string, repeated, tag = "8")]
    dns_options: Vec<String>,
    /// Key, value, key, value, ...
    #[prost(string, repeated, tag = "9")]
    sysctls: Vec<String>,
    #[prost(uint32, tag = "10")]
    dns_port: u32,
}

#[derive(Clone, PartialEq, Message)]
struct LegRecord {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    prefix: u32,
    /// Set on overlays only.
    #[prost(string, optional, tag = "4")]
    task: Option<String>,
    #[prost(string, tag = "5")]
    network: String,
    #[prost(string, repeated, tag = "6")]
    names: Vec<String>,
    #[prost(string, optional, tag = "7")]
    requested: Option<String>,
    #[prost(string, optional, tag = "8")]
    mac: Option<String>,
    #[prost(string, optional, tag = "9")]
    address6: Option<String>,
    #[prost(string, optional, tag = "10")]
    requested6: Option<String>,
    #[prost(int64, tag = "11")]
    gateway_priority: i64,
    #[prost(string, optional, tag = "12")]
    interface: Option<String>,
    /// Key, value, key, value, ...
    #[prost(string, repeated, tag = "13")]
    sysctls: Vec<String>,
    /// Name, alias, name, alias, ...
    #[prost(string, repeated, tag = "14")]
    links: Vec<String>,
    #[prost(string, repeated, tag = "15")]
    link_local: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct PortRecord {
    #[prost(uint32, tag = "1")]
    protocol: u32,
    #[prost(string, optional, tag = "2")]
    host_ip: Option<String>,
    #[prost(uint32, optional, tag = "3")]
    host_port: Option<u32>,
    #[prost(uint32, tag = "4")]
    container_port: u32,
}

/// What in a record makes no sense. Only logged.
type Unreadable = String;

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Unreadable> {
    text.parse().map_err(|e| format!("{text:?}: {e}"))
}

fn parse_optional<T: FromStr<Err: Display>>(text: Option<&String>) -> Result<Option<T>, Unreadable> {
    text.map(|t| parse(t)).transpose()
}

fn port(number: u32) -> Result<u16, Unreadable> {
    u16::try_from(number).map_err(|e| e.to_string())
}

fn protocol_number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol(number: u32) -> Result<Protocol, Unreadable> {
    match number {
        6 => Ok(Protocol::Tcp),
        17 => Ok(Protocol::Udp),
        132 => Ok(Protocol::Sctp),
        other => Err(format!("protocol {other}")),
    }
}

fn macvlan_mode(number: u32) -> Result<MacvlanMode, Unreadable> {
    let modes = [MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Bridge, MacvlanMode::Passthru];
    modes.into_iter().find(|mode| *mode as u32 == number).ok_or_else(|| format!("macvlan mode {number}"))
}

impl TableRecord {
    fn of(table: &NetworkTable) -> Self {
        Self {
            network: table.network.to_string(),
            name: table.name.clone(),
            version: table.version,
            vni: table.allocation.vni,
            subnet: table.allocation.subnet.to_string(),
            gateway: table.allocation.gateway.to_string(),
            internal: table.internal,
            mtu_bytes: table.mtu_bytes,
            endpoints: table
                .endpoints
                .iter()
                .map(|(task, e)| EndpointRecord {
                    task: task.to_string(),
                    address: e.address.to_string(),
                    node: e.node.to_string(),
                    vtep: e.vtep.to_string(),
                    service: e.service.to_string(),
                    names: e.names.clone(),
                    ready: e.ready,
                    lost: e.lost,
                })
                .collect(),
            services: table
                .services
                .iter()
                .map(|(id, s)| ServiceRecord {
                    id: id.to_string(),
                    name: s.name.clone(),
                    vip: s.vip.map(|v| v.to_string()),
                    aliases: s.aliases.clone(),
                })
                .collect(),
        }
    }

    fn read(self) -> Result<NetworkTable, Unreadable> {
        let endpoint = |e: EndpointRecord| {
            let endpoint = NetworkEndpoint {
                address: parse(&e.address)?,
                node: parse(&e.node)?,
                vtep: parse(&e.vtep)?,
                service: parse(&e.service)?,
                names: e.names,
                ready: e.ready,
                lost: e.lost,
            };
            Ok((parse(&e.task)?, endpoint))
        };
        let service = |s: ServiceRecord| {
            let vip = parse_optional(s.vip.as_ref())?;
            Ok((parse(&s.id)?, NetworkService { name: s.name, vip, aliases: s.aliases }))
        };
        Ok(NetworkTable {
            network: parse(&self.network)?,
            name: self.name,
            version: self.version,
            allocation: NetworkAllocation {
                vni: self.vni,
                subnet: parse(&self.subnet)?,
                gateway: parse(&self.gateway)?,
            },
            internal: self.internal,
            mtu_bytes: self.mtu_bytes,
            endpoints: self.endpoints.into_iter().map(endpoint).collect::<Result<_, Unreadable>>()?,
            services: self.services.into_iter().map(service).collect::<Result<_, Unreadable>>()?,
        })
    }
}

impl IngressRecord {
    fn of(table: &IngressTable) -> Self {
        let node = |(id, n): (&model::NodeId, &MeshNode)| MeshNodeRecord {
            node: id.to_string(),
            index: u32::from(n.index),
            vtep: n.vtep.to_string(),
        };
        let backend = |b: &IngressBackend| BackendRecord {
            task: b.task.to_string(),
            node: b.node.to_string(),
            address: b.address.to_string(),
            port: u32::from(b.port),
        };
        Self {
            version: table.version,
            nodes: table.nodes.iter().map(node).collect(),
            ports: table
                .ports
                .iter()
                .map(|((protocol, port), backends)| PublishedRecord {
                    protocol: protocol_number(*protocol),
                    port: u32::from(*port),
                    backends: backends.iter().map(backend).collect(),
                })
                .collect(),
            lost: table.lost.iter().map(ToString::to_string).collect(),
        }
    }

    fn read(self) -> Result<IngressTable, Unreadable> {
        let node = |n: MeshNodeRecord| {
            Ok((parse(&n.node)?, MeshNode { index: port(n.index)?, vtep: parse(&n.vtep)? }))
        };
        let backend = |b: BackendRecord| {
            Ok(IngressBackend {
                task: parse(&b.task)?,
                node: parse(&b.node)?,
                address: parse(&b.address)?,
                port: port(b.port)?,
            })
        };
        let published = |p: PublishedRecord| {
            let backends = p.backends.into_iter().map(backend).collect::<Result<_, Unreadable>>()?;
            Ok(((protocol(p.protocol)?, port(p.port)?), backends))
        };
        Ok(IngressTable {
            version: self.version,
            nodes: self.nodes.into_iter().map(node).collect::<Result<_, Unreadable>>()?,
            ports: self.ports.into_iter().map(published).collect::<Result<_, Unreadable>>()?,
            lost: self.lost.iter().map(|node| parse(node)).collect::<Result<_, Unreadable>>()?,
        })
    }
}

impl IdentityRecord {
    fn of(identity: &NodeIdentity) -> Self {
        Self {
            node: identity.node.to_string(),
            index: u32::from(identity.index),
            data_addr: identity.data_addr.to_string(),
            data_port: u32::from(identity.data_port),
            mesh_subnet: identity.mesh_subnet.to_string(),
            task_pool: identity.task_pool.to_string(),
        }
    }

    fn read(self) -> Result<NodeIdentity, Unreadable> {
        Ok(NodeIdentity {
            node: parse(&self.node)?,
            index: port(self.index)?,
            data_addr: parse(&self.data_addr)?,
            data_port: port(self.data_port)?,
            mesh_subnet: parse(&self.mesh_subnet)?,
            task_pool: parse(&self.task_pool)?,
        })
    }
}

impl BridgeRecord {
    fn of(spec: &BridgeSpec) -> Self {
        Self {
            id: spec.id.clone(),
            name: spec.name.clone(),
            subnet: spec.subnet.to_string(),
            gateway: spec.gateway.map(|g| g.to_string()),
            ip_range: spec.ip_range.map(|r| r.to_string()),
            internal: spec.internal,
            icc: spec.icc,
            mtu_bytes: spec.mtu_bytes,
            interface: spec.interface.clone(),
            subnet6: spec.ipv6.as_ref().map(|v6| v6.subnet.to_string()),
            gateway6: spec.ipv6.as_ref().and_then(|v6| v6.gateway).map(|g| g.to_string()),
            ip_range6: spec.ipv6.as_ref().and_then(|v6| v6.ip_range).map(|r| r.to_string()),
            parent: spec.macvlan.as_ref().map(|m| m.parent.clone()),
            aux_addresses: spec.aux_addresses.iter().map(ToString::to_string).collect(),
            macvlan_mode: spec.macvlan.as_ref().map_or(0, |m| m.mode as u32),
        }
    }

    fn read(self) -> Result<BridgeSpec, Unreadable> {
        let gateway6 = parse_optional(self.gateway6.as_ref())?;
        let ip_range6 = parse_optional(self.ip_range6.as_ref())?;
        let ipv6 = parse_optional(self.subnet6.as_ref())?;
        let macvlan =
            |parent| Ok::<_, Unreadable>(Macvlan { parent, mode: macvlan_mode(self.macvlan_mode)? });
        let macvlan = self.parent.map(macvlan).transpose()?;
        Ok(BridgeSpec {
            ipv6: ipv6.map(|subnet| BridgeIpv6 { subnet, gateway: gateway6, ip_range: ip_range6 }),
            macvlan,
            aux_addresses: self.aux_addresses.iter().map(|a| parse(a)).collect::<Result<_, Unreadable>>()?,
            subnet: parse(&self.subnet)?,
            gateway: parse_optional(self.gateway.as_ref())?,
            ip_range: parse_optional(self.ip_range.as_ref())?,
            id: self.id,
            name: self.name,
            internal: self.internal,
            icc: self.icc,
            mtu_bytes: self.mtu_bytes,
            interface: self.interface,
        })
    }
}

fn flat(pairs: Vec<(String, String)>) -> Vec<String> {
    pairs.into_iter().flat_map(|(a, b)| [a, b]).collect()
}

fn paired(flat: &[String]) -> Vec<(String, String)> {
    flat.as_chunks().0.iter().map(|[a, b]| (a.clone(), b.clone())).collect()
}

impl LegRecord {
    fn of(leg: &Leg) -> Self {
        let (task, network, names, requested, requested6, mac) = match &leg.attachment {
            SandboxAttachment::Overlay { network, task, address, aliases } => {
                (Some(task.to_string()), network.to_string(), aliases, Some(address.to_string()), None, None)
            }
            SandboxAttachment::Bridge { network, address, address6, mac, names, options: _ } => {
                let (address, address6) = (address.map(|a| a.to_string()), address6.map(|a| a.to_string()));
                (None, network.clone(), names, address, address6, mac.map(|m| m.to_string()))
            }
        };
        let LegOptions { gateway_priority, interface, sysctls, links, link_local } =
            leg.options().cloned().unwrap_or_default();
        Self {
            gateway_priority,
            interface,
            sysctls: flat(sysctls),
            links: flat(links),
            link_local: link_local.iter().map(ToString::to_string).collect(),
            number: u32::from(leg.number),
            address: leg.address.to_string(),
            prefix: u32::from(leg.prefix),
            task,
            network,
            names: names.clone(),
            requested,
            mac,
            address6: leg.address6.map(|a| a.to_string()),
            requested6,
        }
    }

    fn read(self) -> Result<Leg, Unreadable> {
        let attachment = match &self.task {
            Some(task) => SandboxAttachment::Overlay {
                network: parse(&self.network)?,
                task: parse(task)?,
                address: parse(self.requested.as_deref().unwrap_or_default())?,
                aliases: self.names,
            },
            None => SandboxAttachment::Bridge {
                network: self.network,
                address: parse_optional(self.requested.as_ref())?,
                address6: parse_optional(self.requested6.as_ref())?,
                mac: parse_optional(self.mac.as_ref())?,
                names: self.names,
                options: LegOptions {
                    gateway_priority: self.gateway_priority,
                    interface: self.interface,
                    sysctls: paired(&self.sysctls),
                    links: paired(&self.links),
                    link_local: self.link_local.iter().map(|a| parse(a)).collect::<Result<_, _>>()?,
                },
            },
        };
        let narrow = |n: u32| u8::try_from(n).map_err(|e| e.to_string());
        let (number, prefix) = (narrow(self.number)?, narrow(self.prefix)?);
        let address6 = parse_optional(self.address6.as_ref())?;
        Ok(Leg { number, attachment, address: parse(&self.address)?, prefix, address6 })
    }
}

impl SandboxRecord {
    fn of(sandbox: &Sandbox) -> Self {
        let spec = &sandbox.spec;
        let port = |p: &PortBinding| PortRecord {
            protocol: protocol_number(p.protocol),
            host_ip: p.host_ip.map(|ip| ip.to_string()),
            host_port: p.host_port.map(u32::from),
            container_port: u32::from(p.container_port),
        };
        Self {
            id: spec.id.clone(),
            hostname: spec.hostname.clone(),
            legs: sandbox.legs.iter().map(LegRecord::of).collect(),
            gateway: spec.gateway.map(|g| g.address.to_string()),
            ports: spec.ports.iter().map(port).collect(),
            dns_servers: spec.dns.servers.iter().map(ToString::to_string).collect(),
            dns_search: spec.dns.search.clone(),
            dns_options: spec.dns.options.clone(),
            sysctls: flat(spec.sysctls.clone()),
            dns_port: u32::from(sandbox.dns_port),
        }
    }

    fn read(self) -> Result<Sandbox, Unreadable> {
        let legs = self.legs.into_iter().map(LegRecord::read).collect::<Result<Vec<_>, _>>()?;
        let binding = |p: PortRecord| {
            Ok(PortBinding {
                protocol: protocol(p.protocol)?,
                host_ip: parse_optional(p.host_ip.as_ref())?,
                host_port: p.host_port.map(port).transpose()?,
                container_port: port(p.container_port)?,
            })
        };
        let servers = self.dns_servers.iter().map(|s| parse(s)).collect::<Result<_, Unreadable>>()?;
        let spec = SandboxSpec {
            attachments: legs.iter().map(|l| l.attachment.clone()).collect(),
            gateway: parse_optional(self.gateway.as_ref())?.map(|address| Gateway { address }),
            ports: self.ports.into_iter().map(binding).collect::<Result<_, Unreadable>>()?,
            dns: DnsOptions { servers, search: self.dns_search, options: self.dns_options },
            sysctls: paired(&self.sysctls),
            id: self.id,
            hostname: self.hostname,
        };
        Ok(Sandbox { spec, legs, dns_port: port(self.dns_port)? })
    }
}

/// How sure a record must be on disk when the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Survives a crash of the daemon; worthless after one of the machine.
    Process,
    /// Survives a crash of the machine.
    Machine,
}

/// The directory of records.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
}

impl Disk {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        for part in ["tables", "bridges", "sandboxes"] {
            let dir = root.join(part);
            fs::create_dir_all(&dir).map_err(Error::file("make directory", &dir))?;
        }
        Ok(Self::at(root))
    }

    /// The records in a directory that may be missing, to be read.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn write(&self, name: &str, record: &impl Message, durability: Durability) -> Result<(), Error> {
        let path = self.root.join(name);
        let content = record.encode_to_vec();
        let written = match durability {
            Durability::Machine => sys::durable::replace(&path, &content, 0o600),
            Durability::Process => sys::durable::replace_for_this_boot(&path, &content, 0o600),
        };
        written.map_err(Error::file("write record", &path))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove record", &path)(e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn put_identity(&self, identity: &NodeIdentity) -> Result<(), Error> {
        self.write("identity", &IdentityRecord::of(identity), Durability::Machine)
    }

    pub(crate) fn put_ingress(&self, table: &IngressTable) -> Result<(), Error> {
        self.write("ingress", &IngressRecord::of(table), Durability::Process)
    }

    pub(crate) fn put_table(&self, table: &NetworkTable) -> Result<(), Error> {
        self.write(&format!("tables/{}", table.network), &TableRecord::of(table), Durability::Process)
    }

    pub(crate) fn put_bridge(&self, spec: &BridgeSpec) -> Result<(), Error> {
        self.write(&format!("bridges/{}", spec.id), &BridgeRecord::of(spec), Durability::Machine)
    }

    pub(crate) fn put_sandbox(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let name = format!("sandboxes/{}", sandbox.spec.id);
        self.write(&name, &SandboxRecord::of(sandbox), Durability::Process)
    }

    pub(crate) fn remove_table(&self, network: NetworkId) -> Result<(), Error> {
        self.remove(&format!("tables/{network}"))
    }

    pub(crate) fn remove_bridge(&self, id: &str) -> Result<(), Error> {
        self.remove(&format!("bridges/{id}"))
    }

    pub(crate) fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        self.remove(&format!("sandboxes/{id}"))
    }

    /// Forgets identity, mesh and tables.
    pub(crate) fn remove_swarm(&self, networks: &[NetworkId]) -> Result<(), Error> {
        for network in networks {
            self.remove_table(*network)?;
        }
        self.remove("ingress")?;
        self.remove("identity")
    }

    /// Reads all records. One that cannot be read is logged and left out: managers send tables again, and
    /// a sandbox or bridge without a record is removed from the kernel as an orphan.
    pub(crate) fn load(&self) -> Result<State, Error> {
        let mut state = State { identity: self.read("identity", IdentityRecord::read), ..State::default() };
        if let Some(table) = self.read("ingress", IngressRecord::read) {
            state.put_ingress(table);
        }
        for table in self.read_all("tables", TableRecord::read)? {
            state.put_table(table);
        }
        for spec in self.read_all("bridges", BridgeRecord::read)? {
            match state.plan_bridge(spec) {
                Ok(bridge) => drop(state.bridges.insert(bridge.spec.id.clone(), bridge)),
                Err(error) => warn!(%error, "a bridge record makes no sense"),
            }
        }
        for sandbox in self.read_all("sandboxes", SandboxRecord::read)? {
            remember_address(&mut state, &sandbox);
            state.sandboxes.insert(sandbox.spec.id.clone(), sandbox);
        }
        Ok(state)
    }

    fn read<R: Message + Default, T>(
        &self,
        name: &str,
        read: impl Fn(R) -> Result<T, Unreadable>,
    ) -> Option<T> {
        let path = self.root.join(name);
        let bytes = fs::metadata(&path).and_then(|about| {
            if about.is_file() && about.len() <= RECORD_MAX {
                fs::read(&path)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file that was written here"))
            }
        });
        let value = match bytes {
            // Every record says something.
            Ok(bytes) if bytes.is_empty() => Err("it is empty".to_owned()),
            Ok(bytes) => R::decode(bytes.as_slice()).map_err(|e| e.to_string()).and_then(read),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => Err(e.to_string()),
        };
        value
            .inspect_err(|error| {
                error!(
                    path = %path.display(), error,
                    hint = "it is made anew when managers or containers next say what it held",
                    "a network record is damaged and left out"
                );
            })
            .ok()
    }

    fn read_all<R: Message + Default, T>(
        &self,
        part: &str,
        read: impl Fn(R) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Error> {
        let dir = self.root.join(part);
        let mut values = Vec::new();
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(values),
            entries => entries.map_err(Error::file("read directory", &dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::file("read directory", &dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What a crash left half-written.
            if !name.ends_with(".new") {
                values.extend(self.read(&format!("{part}/{name}"), &read));
            }
        }
        Ok(values)
    }
}

/// Goes on behind the addresses in use, so that a restart does not hand out recent ones at once.
fn remember_address(state: &mut State, sandbox: &Sandbox) {
    for leg in &sandbox.legs {
        let bridge: Option<&mut LocalBridge> = leg.bridge().and_then(|id| state.bridges.get_mut(id));
        if let Some(bridge) = bridge {
            bridge.last = bridge.last.max(Some(leg.address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::TaskId;

    /// A node of a swarm with an overlay network, the ingress, two bridges, and four containers on them.
    #[test]
    fn what_earlier_versions_wrote_is_read() {
        for commit in testkit::earlier::COMMITS {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/earlier").join(commit);
            let state = Disk::at(&root).load().unwrap();
            let identity = state.identity.as_ref().unwrap();
            assert_eq!(identity.data_addr.to_string(), "192.0.2.1", "{commit}");
            let files = |part: &str| fs::read_dir(root.join(part)).unwrap().count();
            assert_eq!((state.bridges.len(), files("bridges")), (2, 2), "{commit}");
            assert_eq!((state.sandboxes.len(), files("sandboxes")), (4, 4), "{commit}");
            let disk = Disk::at(&root);
            let tables = disk.read_all("tables", TableRecord::read).unwrap();
            assert_eq!((tables.len(), files("tables")), (1, 1), "{commit}");
            assert_eq!(tables[0].endpoints.len(), 2, "{commit}: both tasks of the service");
            assert!(disk.read("ingress", IngressRecord::read).is_some(), "{commit}");
        }
    }

    #[test]
    fn sandboxes_and_bridges_read_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let leg = |number, attachment, last| Leg {
            number,
            attachment,
            address: std::net::Ipv4Addr::new(10, 0, 0, last),
            prefix: 24,
            address6: (number == 1).then(|| "fd00::6/64".parse().unwrap()),
        };
        let overlay = SandboxAttachment::Overlay {
            network: NetworkId(7),
            task: TaskId(8),
            address: "10.0.0.5/24".parse().unwrap(),
            aliases: vec!["web".into()],
        };
        let bridge = SandboxAttachment::Bridge {
            network: "b".into(),
            address: None,
            address6: None,
            mac: None,
            names: vec!["db".into()],
            options: LegOptions {
                gateway_priority: -7,
                interface: Some("lan0".into()),
                sysctls: vec![("net.ipv4.conf.IFNAME.log_martians".into(), "1".into())],
                links: vec![("db".into(), "store".into())],
                link_local: vec!["169.254.8.8".parse().unwrap()],
            },
        };
        let legs = vec![leg(0, overlay, 5), leg(1, bridge, 6)];
        let spec = SandboxSpec {
            id: "s".into(),
            hostname: "h".into(),
            attachments: legs.iter().map(|l| l.attachment.clone()).collect(),
            gateway: Some(Gateway { address: "10.255.1.9".parse().unwrap() }),
            ports: vec![PortBinding {
                protocol: Protocol::Udp,
                host_ip: None,
                host_port: Some(53),
                container_port: 5353,
            }],
            dns: DnsOptions { servers: vec!["192.0.2.1".parse().unwrap()], ..DnsOptions::default() },
            sysctls: vec![("net.core.somaxconn".into(), "99".into())],
        };
        let sandbox = Sandbox { spec, legs, dns_port: 4242 };
        disk.put_sandbox(&sandbox).unwrap();
        let read = disk.load().unwrap().sandboxes.remove("s").unwrap();
        assert_eq!((read.spec, read.legs, read.dns_port), (sandbox.spec, sandbox.legs, 4242));
    }

    #[test]
    fn a_damaged_record_is_left_out_and_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let bridge = |id: &str, third: u8| BridgeSpec {
            id: id.into(),
            name: id.into(),
            subnet: format!("10.1.{third}.0/24").parse().unwrap(),
            gateway: None,
            ip_range: None,
            internal: false,
            icc: true,
            mtu_bytes: None,
            interface: None,
            ipv6: None,
            macvlan: None,
            aux_addresses: vec![],
        };
        for name in ["identity", "ingress", "tables/7", "bridges/hurt", "sandboxes/x"] {
            disk.put_bridge(&bridge("whole", 1)).unwrap();
            disk.put_bridge(&bridge("hurt", 2)).unwrap();
            let path = dir.path().join(name);
            let half = fs::read(&path).map_or(vec![10, 200], |bytes| bytes[..bytes.len() / 2].to_vec());
            for damage in [vec![], half, vec![0xff; 9], b"{}".to_vec()] {
                fs::write(&path, &damage).unwrap();
                let state = disk.load().unwrap();
                let others = state.bridges.keys().filter(|id| *id != "hurt").collect::<Vec<_>>();
                assert_eq!(others, ["whole"], "{name} {damage:?}");
                assert!(state.sandboxes.is_empty() && state.identity.is_none());
            }
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert!(disk.load().unwrap().bridges.contains_key("whole"), "{name} is a folder");
            fs::remove_dir(&path).unwrap();
        }
    }
}
