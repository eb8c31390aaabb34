//! What should be: identity, tables, bridges and sandboxes, as data. One writer: the worker thread.

use crate::{
    address::{self, Mac, v4},
    desired::MESH_LINK,
    rt::LOOPBACK,
    spec::{
        Bridge, BridgeEndpoint, BridgeIpv6, BridgeSpec, Error, InterfaceInfo, LegOptions, NodeIdentity,
        PortBinding, SandboxAttachment, SandboxInfo, SandboxSpec,
    },
};
use ipnet::{IpNet, Ipv6Net};
use model::{IngressTable, NetworkId, NetworkTable, Protocol, ServiceId};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

pub(crate) const MAX_NETWORKS: usize = 30;
/// The last number of a leg that has a digit in its outer name.
const NUMBER_MAX: u8 = 35;

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) identity: Option<NodeIdentity>,
    /// Of the interface that holds the data address. *Unit:* bytes.
    pub(crate) underlay_mtu: u32,
    /// The same interface.
    pub(crate) underlay_link: Option<String>,
    pub(crate) tables: BTreeMap<NetworkId, Overlay>,
    pub(crate) ingress: IngressTable,
    /// Slots of published ports, see [`Slots`].
    pub(crate) published: BTreeMap<(Protocol, u16), Slots<(Ipv4Addr, u16)>>,
    /// Published ports that a program of this host has: not led away from it here.
    pub(crate) withheld: BTreeSet<(Protocol, u16)>,
    /// Ports of sandboxes that a program of this host took while no daemon ran.
    pub(crate) lost: BTreeSet<(String, Protocol, u16)>,
    pub(crate) bridges: BTreeMap<String, LocalBridge>,
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
}

/// An overlay network on this host.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    pub(crate) table: NetworkTable,
    /// Backends of each service with a VIP.
    pub(crate) backends: BTreeMap<ServiceId, Slots<Ipv4Addr>>,
}

/// Members at numbered places, where one that leaves is replaced by the last: each change touches at
/// most two places, so that the kernel's maps change by a few elements however many members there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slots<T>(Vec<T>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord + Clone> Slots<T> {
    /// Brings the members to `wanted`, keeping places where it can.
    pub(crate) fn update(&mut self, wanted: &BTreeSet<T>) {
        let mut place = 0;
        while place < self.0.len() {
            if wanted.contains(&self.0[place]) {
                place += 1;
            } else {
                self.0.swap_remove(place);
            }
        }
        let known: BTreeSet<T> = self.0.iter().cloned().collect();
        self.0.extend(wanted.iter().filter(|w| !known.contains(w)).cloned());
    }

    pub(crate) fn members(&self) -> &[T] {
        &self.0
    }

    /// How many members, as a modulus.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("far fewer backends than 2^32")
    }
}

#[derive(Debug, Clone)]
pub(crate) struct LocalBridge {
    pub(crate) spec: BridgeSpec,
    /// The bridge, or the parent of macvlans.
    pub(crate) interface: String,
    pub(crate) gateway: Ipv4Addr,
    /// The address handed out last; the search goes on behind it, so that addresses are not reused at once.
    pub(crate) last: Option<Ipv4Addr>,
}

/// A sandbox with all its choices made.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    /// As asked, with every host port chosen.
    pub(crate) spec: SandboxSpec,
    pub(crate) legs: Vec<Leg>,
    /// Where the DNS server of this sandbox listens.
    pub(crate) dns_port: u16,
}

/// One `eth<i>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leg {
    /// Fixes the interface names; stays when other networks are left.
    pub(crate) number: u8,
    pub(crate) attachment: SandboxAttachment,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    /// With the prefix length of its subnet.
    pub(crate) address6: Option<Ipv6Net>,
}

impl Leg {
    pub(crate) fn interface(&self) -> String {
        let named = self.options().and_then(|options| options.interface.clone());
        named.unwrap_or_else(|| numbered(self.number))
    }

    /// Those of a leg on a local network.
    pub(crate) fn options(&self) -> Option<&LegOptions> {
        match &self.attachment {
            SandboxAttachment::Overlay { .. } => None,
            SandboxAttachment::Bridge { options, .. } => Some(options),
        }
    }

    pub(crate) fn link_local(&self) -> &[Ipv4Addr] {
        self.options().map_or(&[][..], |options| options.link_local.as_slice())
    }

    /// Name of the end outside the sandbox.
    pub(crate) fn outer(&self, sandbox: &str) -> String {
        let digit = char::from_digit(u32::from(self.number), 36).unwrap_or('z');
        format!("v{digit}-{}", address::key(sandbox))
    }

    pub(crate) fn network(&self) -> String {
        match &self.attachment {
            SandboxAttachment::Overlay { network, .. } => network.to_string(),
            SandboxAttachment::Bridge { network, .. } => network.clone(),
        }
    }

    pub(crate) fn overlay(&self) -> Option<NetworkId> {
        match &self.attachment {
            SandboxAttachment::Overlay { network, .. } => Some(*network),
            SandboxAttachment::Bridge { .. } => None,
        }
    }

    pub(crate) fn bridge(&self) -> Option<&str> {
        match &self.attachment {
            SandboxAttachment::Overlay { .. } => None,
            SandboxAttachment::Bridge { network, .. } => Some(network),
        }
    }
}

/// A name for a bridge that somebody chose: one that the kernel and our own settings of it take for a link alone, and
/// that no other link of ours can have.
fn check_interface(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ours = [MESH_LINK, LOOPBACK].contains(&name)
        || ["g-", "rsx"].iter().any(|own| name.starts_with(own))
        || (name.starts_with('v') && name.as_bytes().get(2) == Some(&b'-'));
    // Settings under these names are for every interface of the host.
    let general = matches!(name, "all" | "default" | "." | "..");
    if name.is_empty() || name.len() > 15 || !name.chars().all(fine) || ours || general {
        return Err(Error::InvalidInterface(name.to_owned()));
    }
    Ok(())
}

fn numbered(number: u8) -> String {
    format!("eth{number}")
}

/// Returns the name that an attachment asks for.
fn wanted_interface(attachment: &SandboxAttachment) -> Option<&str> {
    match attachment {
        SandboxAttachment::Overlay { .. } => None,
        SandboxAttachment::Bridge { options, .. } => options.interface.as_deref(),
    }
}

/// Name of the host's end of a sandbox's routed leg.
pub(crate) fn routed_link(sandbox: &str) -> String {
    format!("g-{}", address::key(sandbox))
}

impl Sandbox {
    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        match self.spec.gateway.map(|g| g.address) {
            Some(IpAddr::V4(v4)) => Some(v4),
            _ => None,
        }
    }

    /// The networks that it has a leg in.
    pub(crate) fn networks(&self) -> impl Iterator<Item = String> {
        self.legs.iter().map(Leg::network)
    }

    pub(crate) fn has_network(&self) -> bool {
        !self.legs.is_empty() || self.spec.gateway.is_some()
    }

    /// Where published ports lead: the routed leg, else the first bridge with a way out. Who hangs on a parent link
    /// is in the open by itself.
    pub(crate) fn published_address(&self, state: &State) -> Option<Ipv4Addr> {
        let bridged = || self.ways_out(state).find(|(_, bridge)| bridge.spec.macvlan.is_none());
        self.gateway().or_else(|| bridged().map(|(leg, _)| leg.address))
    }

    /// As [`Sandbox::published_address`], of IPv6.
    pub(crate) fn published_address6(&self, state: &State) -> Option<Ipv6Addr> {
        let mut bridged = self.ways_out(state).filter(|(_, bridge)| bridge.spec.macvlan.is_none());
        bridged.find_map(|(leg, _)| leg.address6).map(|net| net.addr())
    }

    /// Tells whether it is on any network that is not internal.
    pub(crate) fn has_way_out(&self, state: &State) -> bool {
        self.spec.gateway.is_some() || self.ways_out(state).next().is_some()
    }

    /// The networks of this host that lead to the outside, the one to be taken first.
    pub(crate) fn ways_out<'a>(&self, state: &'a State) -> impl Iterator<Item = (&Leg, &'a LocalBridge)> {
        let leads_out = |leg| {
            let bridge = state.bridges.get(Leg::bridge(leg)?)?;
            (!bridge.spec.internal).then_some((leg, bridge))
        };
        let mut ways: Vec<_> = self.legs.iter().filter_map(leads_out).collect();
        ways.sort_by_key(|(leg, _)| Reverse(leg.options().map_or(0, |options| options.gateway_priority)));
        ways.into_iter()
    }
}

/// Returns the addresses that take new connections, by their service, in the order of their tasks.
pub(crate) fn ready(table: &NetworkTable) -> BTreeMap<ServiceId, Vec<Ipv4Addr>> {
    let mut ready: BTreeMap<ServiceId, Vec<Ipv4Addr>> = BTreeMap::new();
    for endpoint in table.endpoints.values().filter(|e| e.ready) {
        ready.entry(endpoint.service).or_default().extend(v4(endpoint.address, "endpoints"));
    }
    ready
}

impl State {
    pub(crate) fn mac(&self, leg: &Leg) -> Mac {
        match leg.overlay().and_then(|id| self.tables.get(&id)) {
            Some(overlay) => Mac::of(overlay.table.allocation.vni, leg.address),
            None => match leg.attachment {
                SandboxAttachment::Bridge { mac: Some(mac), .. } => mac,
                _ => Mac::of_bridged(leg.address),
            },
        }
    }

    /// Returns the name of the service whose task a leg is of.
    pub(crate) fn service_of(&self, leg: &Leg) -> Option<&str> {
        let SandboxAttachment::Overlay { network, task, .. } = &leg.attachment else { return None };
        let table = &self.tables.get(network)?.table;
        let service = table.endpoints.get(task)?.service;
        table.services.get(&service).map(|service| service.name.as_str())
    }

    /// Replaces or adds a table and its backends.
    pub(crate) fn put_table(&mut self, table: NetworkTable) {
        let mut backends = self.tables.remove(&table.network).map(|o| o.backends).unwrap_or_default();
        backends.retain(|id, _| table.services.contains_key(id));
        let ready = ready(&table);
        for id in table.services.iter().filter(|(_, service)| service.vip.is_some()).map(|(id, _)| id) {
            let wanted = ready.get(id).into_iter().flatten().copied().collect();
            backends.entry(*id).or_default().update(&wanted);
        }
        self.tables.insert(table.network, Overlay { table, backends });
    }

    pub(crate) fn put_ingress(&mut self, table: IngressTable) {
        self.published.retain(|port, _| table.ports.contains_key(port));
        for (port, backends) in &table.ports {
            let wanted =
                backends.iter().filter_map(|b| Some((v4(b.address, "mesh").ok()?, b.port))).collect();
            self.published.entry(*port).or_default().update(&wanted);
        }
        self.ingress = table;
    }

    /// Makes a local bridge's choices.
    pub(crate) fn plan_bridge(&self, spec: BridgeSpec) -> Result<LocalBridge, Error> {
        let first = spec.subnet.hosts().next().unwrap_or(spec.subnet.network());
        let gateway = spec.gateway.map_or(Ok(first), |g| v4(g, "bridge gateways"))?;
        if !spec.subnet.contains(&gateway) {
            return Err(Error::AddressOutsideSubnet { address: gateway.into(), subnet: spec.subnet.into() });
        }
        if let Some(BridgeIpv6 { subnet, gateway: Some(gateway), .. }) = &spec.ipv6
            && !subnet.contains(gateway)
        {
            let (address, subnet) = ((*gateway).into(), (*subnet).into());
            return Err(Error::AddressOutsideSubnet { address, subnet });
        }
        for other in self.bridges.values().filter(|b| b.spec.id != spec.id) {
            for (theirs, ours) in subnets(&other.spec).flat_map(|a| subnets(&spec).map(move |b| (a, b))) {
                if overlap(theirs, ours) {
                    let other = format!("network {} ({theirs})", other.spec.name);
                    return Err(Error::SubnetInUse { subnet: ours, other });
                }
            }
        }
        let interface = match (&spec.macvlan, &spec.interface) {
            (Some(macvlan), _) => macvlan.parent.clone(),
            (None, Some(interface)) => {
                check_interface(interface)?;
                interface.clone()
            }
            (None, None) => format!("br-{}", address::key(&spec.id)),
        };
        let others = self.bridges.values().filter(|b| b.spec.id != spec.id && b.spec.macvlan.is_none());
        if let Some(other) = others.into_iter().find(|b| spec.macvlan.is_none() && b.interface == interface) {
            return Err(Error::InterfaceInUse { interface, network: other.spec.name.clone() });
        }
        Ok(LocalBridge { spec, interface, gateway, last: None })
    }

    /// Every end of a sandbox that is a port of a bridge in the host's namespace.
    pub(crate) fn local_ports(&self) -> impl Iterator<Item = (&str, &Leg)> {
        let bridged = |leg: &Leg| {
            let bridge = leg.bridge().and_then(|id| self.bridges.get(id));
            bridge.is_some_and(|bridge| bridge.spec.macvlan.is_none())
        };
        self.ports(bridged)
    }

    /// The same in the data namespace.
    pub(crate) fn overlay_ports(&self) -> impl Iterator<Item = (&str, &Leg)> {
        self.ports(|leg| leg.overlay().is_some_and(|id| self.tables.contains_key(&id)))
    }

    fn ports(&self, on: impl Fn(&Leg) -> bool) -> impl Iterator<Item = (&str, &Leg)> {
        let legs = self.sandboxes.iter().flat_map(|(id, s)| s.legs.iter().map(move |leg| (id.as_str(), leg)));
        legs.filter(move |(_, leg)| on(leg))
    }

    pub(crate) fn on_bridge<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a str, &'a Leg)> + 'a {
        self.sandboxes.iter().flat_map(move |(sandbox, s)| {
            s.legs.iter().filter(move |l| l.bridge() == Some(id)).map(move |l| (sandbox.as_str(), l))
        })
    }

    /// Chooses addresses for a sandbox. Legs of an earlier spec keep number and address.
    pub(crate) fn plan_legs(&mut self, spec: &SandboxSpec, before: &[Leg]) -> Result<Vec<Leg>, Error> {
        if spec.attachments.len() > MAX_NETWORKS {
            return Err(Error::TooManyNetworks);
        }
        let mut legs: Vec<Leg> = Vec::new();
        for attachment in &spec.attachments {
            let kept = before.iter().find(|leg| same_place(leg, attachment));
            if let Some(kept) = kept {
                legs.push(Leg { attachment: attachment.clone(), ..kept.clone() });
                continue;
            }
            let wanted = wanted_interface(attachment);
            let others = || legs.iter().chain(before);
            if let Some(name) = wanted
                && others().any(|leg| leg.interface() == name)
            {
                return Err(Error::InterfaceTwice(name.to_owned()));
            }
            // A number whose name is somebody's is left out.
            let free = |n: &u8| {
                let name = numbered(*n);
                let asked = || spec.attachments.iter().any(|a| wanted_interface(a) == Some(&name));
                !others().any(|leg| leg.number == *n || leg.interface() == name)
                    && (wanted.is_some() || !asked())
            };
            // Those with a name of their own are numbered from the other end: `eth0` is the first of the rest.
            let number = match wanted {
                Some(_) => (0..=NUMBER_MAX).rev().find(free),
                None => (0..=NUMBER_MAX).find(free),
            };
            let number = number.ok_or(Error::TooManyNetworks)?;
            self.check_link_local(attachment, &legs)?;
            let (address, prefix) = self.place(attachment, &legs)?;
            let address6 = self.place6(attachment, &legs, address)?;
            legs.push(Leg { number, attachment: attachment.clone(), address, prefix, address6 });
        }
        Ok(legs)
    }

    /// Nobody else on the network may have what a new leg asks for.
    fn check_link_local(&self, attachment: &SandboxAttachment, taken: &[Leg]) -> Result<(), Error> {
        let SandboxAttachment::Bridge { network, options, .. } = attachment else { return Ok(()) };
        let here = taken.iter().filter(|leg| leg.bridge() == Some(network));
        let mut used = self.on_bridge(network).map(|(_, leg)| leg).chain(here).flat_map(Leg::link_local);
        // The swarm's way out is behind that one.
        let ours = options.link_local.iter().find(|one| **one == address::GATEWAY);
        match ours.or_else(|| used.find(|address| options.link_local.contains(address))) {
            Some(address) => {
                let name = self.bridges.get(network).map_or(network, |bridge| &bridge.spec.name);
                Err(Error::AddressInUse { address: (*address).into(), network: name.clone() })
            }
            None => Ok(()),
        }
    }

    fn place(&mut self, attachment: &SandboxAttachment, taken: &[Leg]) -> Result<(Ipv4Addr, u8), Error> {
        match attachment {
            SandboxAttachment::Overlay { network, address, .. } => {
                if !self.tables.contains_key(network) {
                    return Err(Error::UnknownNetwork(network.to_string()));
                }
                Ok((v4(address.addr(), "overlay networks")?, address.prefix_len()))
            }
            SandboxAttachment::Bridge { network, address, .. } => {
                let mut used: BTreeSet<Ipv4Addr> = self.on_bridge(network).map(|(_, l)| l.address).collect();
                used.extend(taken.iter().filter(|l| l.bridge() == Some(network)).map(|l| l.address));
                let bridge =
                    self.bridges.get_mut(network).ok_or_else(|| Error::UnknownNetwork(network.clone()))?;
                let address = match address {
                    Some(address) => bridge.claim(*address, &used)?,
                    None => bridge.next_free(&used)?,
                };
                Ok((address, bridge.spec.subnet.prefix_len()))
            }
        }
    }

    /// The IPv6 address of a new leg: the one asked for, or one with the bits of its IPv4 address.
    fn place6(
        &self,
        attachment: &SandboxAttachment,
        taken: &[Leg],
        address: Ipv4Addr,
    ) -> Result<Option<Ipv6Net>, Error> {
        let SandboxAttachment::Bridge { network, address6: wanted, .. } = attachment else { return Ok(None) };
        let Some(bridge) = self.bridges.get(network) else { return Ok(None) };
        let Some(ipv6) = &bridge.spec.ipv6 else {
            return if wanted.is_some() { Err(Error::NoIpv6(bridge.spec.name.clone())) } else { Ok(None) };
        };
        let here = taken.iter().filter(|l| l.bridge() == Some(network));
        let used: BTreeSet<Ipv6Addr> = self
            .on_bridge(network)
            .map(|(_, l)| l)
            .chain(here)
            .filter_map(|l| l.address6)
            .map(|net| net.addr())
            .chain([ipv6.gateway(), ipv6.subnet.network()])
            .chain(
                bridge
                    .spec
                    .aux_addresses
                    .iter()
                    .filter_map(|a| if let IpAddr::V6(v6) = a { Some(*v6) } else { None }),
            )
            .collect();
        let subnet = ipv6.subnet;
        let address = match wanted {
            Some(wanted) if !subnet.contains(wanted) => {
                return Err(Error::AddressOutsideSubnet { address: (*wanted).into(), subnet: subnet.into() });
            }
            Some(wanted) if used.contains(wanted) => {
                let address = (*wanted).into();
                return Err(Error::AddressInUse { address, network: bridge.spec.name.clone() });
            }
            Some(wanted) => *wanted,
            None => {
                let range = ipv6.ip_range.unwrap_or(subnet);
                let base = u128::from(range.network());
                let hosts = u128::MAX.checked_shr(u32::from(range.prefix_len())).unwrap_or(0);
                // As far as the range has room, the number of the IPv4 address in its own: so the two go together.
                let number = u128::from(u32::from(address) - u32::from(bridge.spec.subnet.network()));
                (0..=hosts)
                    .map(|step| Ipv6Addr::from(base | (number.wrapping_add(step) & hosts)))
                    .find(|candidate| !used.contains(candidate))
                    .ok_or_else(|| Error::PoolExhausted(bridge.spec.name.clone()))?
            }
        };
        Ok(Ipv6Net::new(address, subnet.prefix_len()).ok())
    }

    pub(crate) fn describe(&self, sandbox: &Sandbox, netns: &Path) -> SandboxInfo {
        let spec = &sandbox.spec;
        let mut interfaces: Vec<InterfaceInfo> =
            sandbox.legs.iter().map(|leg| self.describe_leg(leg)).collect();
        if let Some(address) = sandbox.gateway() {
            interfaces.push(InterfaceInfo {
                network: String::new(),
                name: "ethg".into(),
                mac: Mac::of_routed(address).to_string(),
                address: net(address, 32),
                gateway: Some(address::GATEWAY.into()),
                address6: None,
                gateway6: None,
            });
        }
        let mut dns_options = spec.dns.options.clone();
        // Names of services have no dots; they must not wander through the search list first.
        if !dns_options.iter().any(|o| o.starts_with("ndots:")) {
            dns_options.push("ndots:0".into());
        }
        SandboxInfo {
            id: spec.id.clone(),
            netns_path: netns.to_owned(),
            interfaces,
            ports: spec.ports.clone(),
            dns_server: sandbox.has_network().then_some(address::DNS.into()),
            dns_search: spec.dns.search.clone(),
            dns_options,
            name_sockets: None,
        }
    }

    fn describe_leg(&self, leg: &Leg) -> InterfaceInfo {
        let bridge = leg.bridge().and_then(|id| self.bridges.get(id)).filter(|b| !b.spec.internal);
        InterfaceInfo {
            network: leg.network(),
            name: leg.interface(),
            mac: self.mac(leg).to_string(),
            address: net(leg.address, leg.prefix),
            gateway: bridge.map(|b| b.gateway.into()),
            address6: leg.address6,
            gateway6: bridge.and_then(|b| b.spec.ipv6.as_ref()).map(BridgeIpv6::gateway),
        }
    }

    pub(crate) fn describe_bridge(&self, bridge: &LocalBridge) -> Bridge {
        let endpoints = self.on_bridge(&bridge.spec.id).map(|(sandbox, leg)| BridgeEndpoint {
            sandbox: sandbox.to_owned(),
            address: leg.address.into(),
            mac: self.mac(leg).to_string(),
        });
        Bridge {
            spec: bridge.spec.clone(),
            interface: bridge.interface.clone(),
            gateway: bridge.gateway.into(),
            gateway6: bridge.spec.ipv6.as_ref().map(BridgeIpv6::gateway),
            endpoints: endpoints.collect(),
        }
    }

    /// Published ports of all sandboxes but `except`.
    pub(crate) fn bindings<'a>(&'a self, except: &'a str) -> impl Iterator<Item = &'a PortBinding> + 'a {
        self.sandboxes.values().filter(move |s| s.spec.id != except).flat_map(|s| &s.spec.ports)
    }
}

fn same_place(leg: &Leg, attachment: &SandboxAttachment) -> bool {
    match (&leg.attachment, attachment) {
        (
            SandboxAttachment::Overlay { network: a, .. },
            SandboxAttachment::Overlay { network: b, address, .. },
        ) => a == b && address.addr() == IpAddr::V4(leg.address),
        (
            SandboxAttachment::Bridge { network: a, .. },
            SandboxAttachment::Bridge { network: b, address, address6, options, .. },
        ) => {
            a == b
                && address.is_none_or(|address| address == IpAddr::V4(leg.address))
                && address6.is_none_or(|address| leg.address6.is_some_and(|net| net.addr() == address))
                && leg.link_local() == options.link_local
        }
        _ => false,
    }
}

fn net(address: Ipv4Addr, prefix: u8) -> IpNet {
    IpNet::new(address.into(), prefix).unwrap_or_else(|_| IpNet::from(IpAddr::V4(address)))
}

pub(crate) fn subnets(spec: &BridgeSpec) -> impl Iterator<Item = IpNet> + use<> {
    [Some(spec.subnet.into()), spec.ipv6.as_ref().map(|v6| v6.subnet.into())].into_iter().flatten()
}

pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

impl LocalBridge {
    fn claim(&self, address: IpAddr, used: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        let subnet = self.spec.subnet;
        let v4 = v4(address, "local bridges")?;
        if !subnet.contains(&v4) {
            return Err(Error::AddressOutsideSubnet { address, subnet: subnet.into() });
        }
        // Of a subnet with room for them, the first and the last address are no machine's: RFC 3021.
        let is_nobodys = subnet.prefix_len() < 31 && (v4 == subnet.network() || v4 == subnet.broadcast());
        let is_taken = v4 == self.gateway || used.contains(&v4) || self.spec.aux_addresses.contains(&address);
        if is_nobodys || is_taken {
            return Err(Error::AddressInUse { address, network: self.spec.name.clone() });
        }
        Ok(v4)
    }

    fn next_free(&mut self, used: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        let subnet = self.spec.subnet;
        let range = self.spec.ip_range.unwrap_or(subnet);
        let (first, end) = (u32::from(range.network()), u32::from(range.broadcast()));
        let start = self.last.filter(|l| range.contains(l)).map_or(first, u32::from);
        let candidates = (start..=end).skip(1).chain(first..=start);
        let free = candidates.map(Ipv4Addr::from).find(|a| {
            *a != self.gateway
                && *a != subnet.network()
                && *a != subnet.broadcast()
                && !used.contains(a)
                && !self.spec.aux_addresses.contains(&IpAddr::V4(*a))
        });
        let address = free.ok_or_else(|| Error::PoolExhausted(self.spec.name.clone()))?;
        self.last = Some(address);
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(subnet: &str) -> LocalBridge {
        let spec = BridgeSpec {
            id: "0123456789abcdef".into(),
            name: "bridge".into(),
            subnet: subnet.parse().unwrap(),
            gateway: None,
            ip_range: None,
            ipv6: None,
            aux_addresses: vec![],
            macvlan: None,
            internal: false,
            icc: true,
            mtu_bytes: None,
            interface: None,
        };
        State::default().plan_bridge(spec).unwrap()
    }

    #[test]
    fn one_leaving_backend_moves_only_the_last() {
        let mut slots = Slots::default();
        slots.update(&BTreeSet::from([1, 2, 3, 4]));
        slots.update(&BTreeSet::from([1, 3, 4]));
        assert_eq!(slots.members(), [1, 4, 3]);
        slots.update(&BTreeSet::from([1, 3, 4, 5]));
        assert_eq!(slots.members(), [1, 4, 3, 5]);
    }

    #[test]
    fn addresses_are_not_reused_at_once_and_run_out_clearly() {
        let mut b = bridge("10.9.0.0/29");
        let mut used = BTreeSet::new();
        let a = b.next_free(&used).unwrap();
        assert_eq!(a, Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(b.next_free(&used).unwrap(), Ipv4Addr::new(10, 9, 0, 3));
        b.spec.aux_addresses.push("10.9.0.4".parse().unwrap());
        for _ in 0..4 {
            used.insert(b.next_free(&used).unwrap());
        }
        assert!(matches!(b.next_free(&used), Err(Error::PoolExhausted(_))));
    }

    #[test]
    fn the_first_and_the_last_address_of_a_subnet_are_given_to_nobody() {
        let claim = |subnet: &str, address: &str| {
            let mut bridge = bridge(subnet);
            bridge.gateway = Ipv4Addr::UNSPECIFIED;
            bridge.claim(address.parse().unwrap(), &BTreeSet::new())
        };
        for (subnet, address) in
            [("10.9.0.0/24", "10.9.0.0"), ("10.9.0.0/24", "10.9.0.255"), ("10.9.0.0/30", "10.9.0.3")]
        {
            assert!(
                matches!(claim(subnet, address), Err(Error::AddressInUse { .. })),
                "{address} of {subnet}"
            );
        }
        for (subnet, address) in
            [("10.9.0.0/16", "10.9.0.255"), ("10.9.0.0/31", "10.9.0.1"), ("10.9.0.0/24", "10.9.0.9")]
        {
            assert_eq!(claim(subnet, address).unwrap(), address.parse::<Ipv4Addr>().unwrap(), "{subnet}");
        }
    }

    #[test]
    fn interfaces_have_names_of_their_own_and_the_highest_priority_leads_out() {
        let mut state = State::default();
        for (id, subnet) in [("a", "10.9.1.0/24"), ("b", "10.9.2.0/24"), ("c", "10.9.3.0/24")] {
            let spec = BridgeSpec { id: id.into(), name: id.into(), ..bridge(subnet).spec };
            let planned = state.plan_bridge(spec).unwrap();
            state.bridges.insert(id.into(), planned);
        }
        let on = |network: &str, gateway_priority, interface: Option<&str>| SandboxAttachment::Bridge {
            network: network.into(),
            address: None,
            address6: None,
            mac: None,
            names: vec![],
            options: LegOptions {
                gateway_priority,
                interface: interface.map(Into::into),
                ..LegOptions::default()
            },
        };
        let spec = |attachments| SandboxSpec {
            id: "s".into(),
            hostname: String::new(),
            attachments,
            gateway: None,
            ports: vec![],
            dns: crate::spec::DnsOptions::default(),
            sysctls: vec![],
        };
        let made = spec(vec![on("a", 0, None), on("b", 5, Some("eth0")), on("c", 5, Some("lan"))]);
        let legs = state.plan_legs(&made, &[]).unwrap();
        let names: Vec<String> = legs.iter().map(Leg::interface).collect();
        assert_eq!(names, ["eth1", "eth0", "lan"]);
        let sandbox = Sandbox { spec: made, legs: legs.clone(), dns_port: 0 };
        let out: Vec<String> = sandbox.ways_out(&state).map(|(leg, _)| leg.network()).collect();
        assert_eq!(out, ["b", "c", "a"]);
        assert_eq!(sandbox.published_address(&state), Some(legs[1].address));
        let twice = spec(vec![on("a", 0, None), on("b", 0, Some("eth0")), on("c", 0, Some("eth0"))]);
        let refused = state.plan_legs(&twice, &[]).unwrap_err();
        assert!(matches!(&refused, Error::InterfaceTwice(name) if name == "eth0"), "{refused}");
        // One more, later: what is there keeps its name.
        let more = spec(vec![on("a", 0, None), on("b", 0, Some("eth0")), on("c", 0, Some("eth1"))]);
        assert!(matches!(state.plan_legs(&more, &legs[..2]), Err(Error::InterfaceTwice(_))));
    }

    #[test]
    fn both_addresses_of_a_container_have_the_same_number() {
        let mut state = State::default();
        let mut spec = bridge("10.9.0.0/16").spec;
        let subnet = "fd00:9::/64".parse().unwrap();
        spec.ipv6 = Some(BridgeIpv6 { subnet, gateway: None, ip_range: None });
        let planned = state.plan_bridge(spec).unwrap();
        let mut ranged = planned.clone();
        state.bridges.insert(planned.spec.id.clone(), planned);
        let on_it = |address6: Option<&str>| SandboxAttachment::Bridge {
            network: "0123456789abcdef".into(),
            address: None,
            address6: address6.map(|a| a.parse().unwrap()),
            mac: None,
            names: vec![],
            options: LegOptions::default(),
        };
        let place = |state: &mut State, wanted| {
            let spec = SandboxSpec {
                id: "s".into(),
                hostname: String::new(),
                attachments: vec![on_it(wanted)],
                gateway: None,
                ports: vec![],
                dns: crate::spec::DnsOptions::default(),
                sysctls: vec![],
            };
            state.plan_legs(&spec, &[]).map(|legs| legs[0].address6.unwrap().to_string())
        };
        assert_eq!(place(&mut state, None).unwrap(), "fd00:9::2/64");
        assert_eq!(place(&mut state, Some("fd00:9::77")).unwrap(), "fd00:9::77/64");
        assert!(matches!(place(&mut state, Some("fd00:9::1")), Err(Error::AddressInUse { .. })));
        assert!(matches!(place(&mut state, Some("fd00:8::1")), Err(Error::AddressOutsideSubnet { .. })));
        // What nobody asks for comes out of the range, if there is one.
        if let Some(ipv6) = &mut ranged.spec.ipv6 {
            ipv6.ip_range = Some("fd00:9::a:0/112".parse().unwrap());
        }
        state.bridges.insert(ranged.spec.id.clone(), ranged);
        assert_eq!(place(&mut state, None).unwrap(), "fd00:9::a:2/64");
        assert_eq!(place(&mut state, Some("fd00:9::77")).unwrap(), "fd00:9::77/64");
    }

    #[test]
    fn an_address_of_the_link_has_one_owner() {
        let mut state = State::default();
        let planned = state.plan_bridge(bridge("10.9.0.0/16").spec).unwrap();
        state.bridges.insert(planned.spec.id.clone(), planned);
        let spec = |id: &str, link_local: &str| SandboxSpec {
            id: id.into(),
            hostname: String::new(),
            attachments: vec![SandboxAttachment::Bridge {
                network: "0123456789abcdef".into(),
                address: None,
                address6: None,
                mac: None,
                names: vec![],
                options: LegOptions {
                    link_local: vec![link_local.parse().unwrap()],
                    ..LegOptions::default()
                },
            }],
            gateway: None,
            ports: vec![],
            dns: crate::spec::DnsOptions::default(),
            sysctls: vec![],
        };
        let first = spec("a", "169.254.8.8");
        let legs = state.plan_legs(&first, &[]).unwrap();
        state.sandboxes.insert("a".into(), Sandbox { spec: first.clone(), legs: legs.clone(), dns_port: 0 });
        assert!(state.plan_legs(&first, &legs).is_ok(), "its own is no other's");
        let refused = state.plan_legs(&spec("b", "169.254.8.8"), &[]).unwrap_err();
        assert!(
            matches!(refused, Error::AddressInUse { address, .. } if address.to_string() == "169.254.8.8")
        );
        assert!(state.plan_legs(&spec("b", "169.254.8.9"), &[]).is_ok());
    }

    #[test]
    fn overlapping_bridges_are_refused() {
        let mut state = State::default();
        state.bridges.insert("x".into(), bridge("10.9.0.0/16"));
        let mut spec = bridge("10.9.5.0/24").spec;
        spec.id = "other".into();
        assert!(matches!(state.plan_bridge(spec), Err(Error::SubnetInUse { .. })));
    }
}
