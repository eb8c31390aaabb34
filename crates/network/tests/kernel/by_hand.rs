//! What an administrator does by hand in a network namespace, and what he sees there: links, addresses, routes, rules,
//! neighbours. Said with the types of the crate `rtnetlink`, of which `network` uses nothing, so that what is tested is
//! not its own judge.

use crate::{
    lab::{At, Lab, inside},
    netlink,
};
use ipnet::IpNet;
use nix::sys::socket::SockProtocol;
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
        NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
        link::{
            InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
            LinkMessage, MacVlanMode, State,
        },
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
        rule::{RuleAttribute, RuleMessage},
    },
};
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::Path,
};

/// The routing table of what is on this host itself.
pub(crate) const TABLE_LOCAL: u32 = 255;
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Something done by hand, and the command that does the same: [`oracle`](crate::oracle) holds that it does.
pub(crate) struct Deed {
    pub(crate) at: At,
    pub(crate) command: String,
    pub(crate) by_hand: fn(&Path),
}

impl Deed {
    pub(crate) fn new(at: At, command: impl Into<String>, by_hand: fn(&Path)) -> Self {
        Self { at, command: command.into(), by_hand }
    }

    pub(crate) fn do_it(&self, lab: &Lab) {
        (self.by_hand)(&lab.at(self.at));
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.command, self.at)
    }
}

/// A link, without counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `veth`, `bridge`...; empty for the loopback.
    pub(crate) kind: String,
    pub(crate) flags: LinkFlags,
    pub(crate) state: State,
    pub(crate) mtu: u32,
    pub(crate) mac: Vec<u8>,
    pub(crate) group: u32,
    /// Index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    /// Of such a port: whether the bridge learns who is behind it.
    pub(crate) learning: Option<bool>,
    /// Index of the other end, or of the link below.
    pub(crate) other: Option<u32>,
    pub(crate) queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: String,
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) broadcast: Option<Ipv4Addr>,
    pub(crate) scope: AddressScope,
    pub(crate) flags: AddressFlags,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) kind: RouteType,
    pub(crate) to: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) link: Option<String>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) metric: u32,
    /// Who made it, by number.
    pub(crate) protocol: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    /// With its mask.
    pub(crate) mark: Option<(u32, u32)>,
    pub(crate) table: u32,
}

/// Who is at an address, or, in a forwarding table, where a MAC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) link: String,
    /// Of a forwarding entry of a tunnel the host behind it.
    pub(crate) address: Option<IpAddr>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) state: NeighbourState,
    /// Since it was changed. *Unit:* hundredths of a second.
    pub(crate) age: u32,
    /// Of a forwarding entry: kept by the bridge, not by the link itself.
    pub(crate) of_bridge: bool,
}

/// Whose forwarding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The link's own: a tunnel knows hosts.
    Link,
    /// The bridge's that it is a port of.
    Bridge,
}

pub(crate) fn links_of(netns: &Path) -> BTreeMap<String, Link> {
    let read = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewLink(message) => Some(read_link(&message)),
        _ => None,
    };
    let links =
        dump(netns, RouteNetlinkMessage::GetLink(LinkMessage::default())).into_iter().filter_map(read);
    links.map(|link| (link.name.clone(), link)).collect()
}

pub(crate) fn addresses_of(netns: &Path) -> Vec<Address> {
    let names = names(netns);
    let read = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewAddress(message) => read_address(&message, &names),
        _ => None,
    };
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    dump(netns, request).into_iter().filter_map(read).collect()
}

/// Those of all tables.
pub(crate) fn routes_of(netns: &Path) -> Vec<Route> {
    let names = names(netns);
    route_messages(netns).iter().filter_map(|message| read_route(message, &names)).collect()
}

/// Those of IPv4, in the order in which the kernel asks them.
pub(crate) fn rules_of(netns: &Path) -> Vec<Rule> {
    let mut request = RuleMessage::default();
    request.header.family = AddressFamily::Inet;
    let read = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewRule(message) => Some(read_rule(&message)),
        _ => None,
    };
    dump(netns, RouteNetlinkMessage::GetRule(request)).into_iter().filter_map(read).collect()
}

/// Those of IPv4 and IPv6.
pub(crate) fn neighbours_of(netns: &Path) -> Vec<Neighbour> {
    FAMILIES.into_iter().flat_map(|family| entries(netns, family)).collect()
}

/// Forwarding entries of bridges and tunnels.
pub(crate) fn forwarding_of(netns: &Path) -> Vec<Neighbour> {
    entries(netns, AddressFamily::Bridge)
}

pub(crate) fn mac_of(netns: &Path, link: &str) -> [u8; 6] {
    link_of(netns, link).mac.try_into().expect("a link of Ethernet")
}

/// What a namespace believes about who is at an address.
pub(crate) fn neighbour_at(netns: &Path, address: impl Into<IpAddr>) -> Option<Neighbour> {
    let address = Some(address.into());
    neighbours_of(netns).into_iter().find(|one| one.address == address)
}

pub(crate) fn add_bridge(netns: &Path, name: &str) {
    // Its builder would have it up.
    make(netns, LinkBridge::new(name).down().build());
}

/// A cable: one end here, the other in a namespace that may be another one.
pub(crate) fn add_veth(netns: &Path, name: &str, (peer, peer_netns): (&str, &Path)) {
    let there = File::open(peer_netns).unwrap_or_else(|e| panic!("{}: {e}", peer_netns.display()));
    let peer = LinkUnspec::new_with_name(peer).setns_by_fd(there.as_raw_fd()).build();
    let veth = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    make(netns, veth.build());
}

pub(crate) fn add_macvlan(netns: &Path, name: &str, parent: &str) {
    make(netns, LinkMacVlan::new(name, link_of(netns, parent).index, MacVlanMode::Vepa).build());
}

pub(crate) fn set_up(netns: &Path, link: &str) {
    set(netns, LinkUnspec::new_with_index(link_of(netns, link).index).up().build());
}

pub(crate) fn set_down(netns: &Path, link: &str) {
    set(netns, LinkUnspec::new_with_index(link_of(netns, link).index).down().build());
}

pub(crate) fn set_group(netns: &Path, link: &str, group: u32) {
    set(netns, LinkUnspec::new_with_index(link_of(netns, link).index).link_group(group).build());
}

/// Makes a link a port of a bridge, and brings it up.
pub(crate) fn plug(netns: &Path, link: &str, bridge: &str) {
    let links = links_of(netns);
    let port = LinkUnspec::new_with_index(links[link].index).controller(links[bridge].index);
    set(netns, port.up().build());
}

/// Has a bridge learn who is behind a port.
pub(crate) fn learn_behind(netns: &Path, port: &str) {
    set(netns, LinkBridgePort::new(link_of(netns, port).index).learning(true).build());
}

pub(crate) fn delete_link(netns: &Path, link: &str) {
    let gone = LinkUnspec::new_with_index(link_of(netns, link).index).build();
    done(&format!("delete link {link}"), ask(netns, RouteNetlinkMessage::DelLink(gone), NLM_F_ACK));
}

/// `address` with its prefix.
pub(crate) fn add_address(netns: &Path, link: &str, address: &str) {
    let message = address_message(netns, link, address);
    let asked = ask(netns, RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    done(&format!("add address {address} to {link}"), asked);
}

pub(crate) fn delete_address(netns: &Path, link: &str, address: &str) {
    let message = address_message(netns, link, address);
    done(
        &format!("delete address {address} of {link}"),
        ask(netns, RouteNetlinkMessage::DelAddress(message), NLM_F_ACK),
    );
}

pub(crate) fn flush_addresses(netns: &Path, link: &str) {
    let of_link: Vec<_> = addresses_of(netns).into_iter().filter(|a| a.link == link).collect();
    assert!(!of_link.is_empty(), "{link} has no address to delete");
    for Address { address, prefix, .. } in of_link {
        delete_address(netns, link, &format!("{address}/{prefix}"));
    }
}

/// `to` with its prefix.
pub(crate) fn add_route(netns: &Path, to: &str, gateway: &str) {
    add_route_from(netns, to, gateway, None);
}

/// The same, with the address that who goes there takes.
pub(crate) fn add_route_from(netns: &Path, to: &str, gateway: &str, source: Option<&str>) {
    let (net, via): (IpNet, IpAddr) = (to.parse().unwrap(), gateway.parse().unwrap());
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(net.addr(), net.prefix_len())
        .and_then(|route| route.gateway(via))
        .unwrap();
    if let Some(source) = source {
        route = route.pref_source(source.parse().unwrap()).unwrap();
    }
    let asked =
        ask(netns, RouteNetlinkMessage::NewRoute(route.build()), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    done(&format!("add route to {to} by {gateway}"), asked);
}

/// Deletes the routes that `condemned` picks: one at least.
pub(crate) fn delete_routes(netns: &Path, condemned: impl Fn(&Route) -> bool) {
    let names = names(netns);
    let mut deleted = 0;
    for mut message in route_messages(netns) {
        let Some(route) = read_route(&message, &names).filter(|route| condemned(route)) else { continue };
        message.header.flags = RouteFlags::empty();
        let asked = ask(netns, RouteNetlinkMessage::DelRoute(message), NLM_F_ACK);
        done(&format!("delete {route:?}"), asked);
        deleted += 1;
    }
    assert_ne!(deleted, 0, "no such route");
}

/// Deletes the first rule of IPv4 of a priority.
pub(crate) fn delete_rule(netns: &Path, priority: u32) {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.attributes.push(RuleAttribute::Priority(priority));
    done(
        &format!("delete the rule of priority {priority}"),
        ask(netns, RouteNetlinkMessage::DelRule(rule), NLM_F_ACK),
    );
}

/// Has a namespace believe that `mac` is at `address`, whatever it believed before.
pub(crate) fn set_neighbour(
    netns: &Path,
    link: &str,
    address: impl Into<IpAddr>,
    mac: [u8; 6],
    state: NeighbourState,
) {
    let address = address.into();
    let mut message = neighbour_message(netns, link, address);
    message.header.state = state;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    let asked =
        ask(netns, RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
    done(&format!("set neighbour {address} of {link}"), asked);
}

pub(crate) fn delete_neighbour(netns: &Path, link: &str, address: impl Into<IpAddr>) {
    let address = address.into();
    let message = neighbour_message(netns, link, address);
    done(
        &format!("delete neighbour {address} of {link}"),
        ask(netns, RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK),
    );
}

/// Has a namespace forget what it has learned behind a link.
pub(crate) fn forget_neighbours(netns: &Path, link: &str) {
    let fixed = [NeighbourState::Permanent, NeighbourState::Noarp];
    for learned in neighbours_of(netns).into_iter().filter(|n| n.link == link && !fixed.contains(&n.state)) {
        let message = neighbour_message(netns, link, learned.address.expect("of IP"));
        match ask(netns, RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK) {
            // It ended by itself meanwhile.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => {}
            asked => done(&format!("delete {learned:?}"), asked),
        }
    }
}

/// Tells a tunnel that a MAC is behind a host.
pub(crate) fn add_forwarding(netns: &Path, tunnel: &str, mac: [u8; 6], host: &str) {
    let mut message = forwarding_message(netns, tunnel, mac, Of::Link);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(host.parse::<IpAddr>().unwrap().into()));
    let asked = ask(netns, RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    done(&format!("add a forwarding entry to {tunnel}"), asked);
}

pub(crate) fn delete_forwarding(netns: &Path, link: &str, mac: [u8; 6], of: Of) {
    let message = forwarding_message(netns, link, mac, of);
    done(
        &format!("delete a forwarding entry of {link}"),
        ask(netns, RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK),
    );
}

/// Sets a kernel parameter of a namespace: `net.ipv4.conf.all.rp_filter`.
pub(crate) fn set_sysctl(netns: &Path, name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let value = value.to_owned();
    inside(netns, move || std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}")));
}

#[track_caller]
fn link_of(netns: &Path, name: &str) -> Link {
    let mut links = links_of(netns);
    links.remove(name).unwrap_or_else(|| panic!("no link {name} among {:?}", links.keys()))
}

/// Names of links by index.
fn names(netns: &Path) -> BTreeMap<u32, String> {
    links_of(netns).into_values().map(|link| (link.index, link.name)).collect()
}

fn make(netns: &Path, link: LinkMessage) {
    let asked = ask(netns, RouteNetlinkMessage::NewLink(link.clone()), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    done(&format!("make {link:?}"), asked);
}

fn set(netns: &Path, link: LinkMessage) {
    done(&format!("set {link:?}"), ask(netns, RouteNetlinkMessage::NewLink(link.clone()), NLM_F_ACK));
}

#[track_caller]
fn done(what: &str, asked: io::Result<Vec<RouteNetlinkMessage>>) {
    if let Err(error) = asked {
        panic!("cannot {what}: {error}");
    }
}

fn dump(netns: &Path, request: RouteNetlinkMessage) -> Vec<RouteNetlinkMessage> {
    ask(netns, request, NLM_F_DUMP).expect("the kernel dumps what it has")
}

fn ask(netns: &Path, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let read = |answer: Vec<u8>| match NetlinkMessage::deserialize(&answer).map(|answer| answer.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => message,
        other => panic!("not an answer of rtnetlink: {other:?}"),
    };
    let answers = netlink::exchange(netns, SockProtocol::NetlinkRoute, bytes, 1)?;
    Ok(answers.into_iter().map(read).collect())
}

fn address_message(netns: &Path, link: &str, address: &str) -> AddressMessage {
    let net: IpNet = address.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.index = link_of(netns, link).index;
    message.header.prefix_len = net.prefix_len();
    message.header.family = family(net.addr());
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    if net.addr().is_ipv6() {
        // Nobody else has it: it can be used at once.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn neighbour_message(netns: &Path, link: &str, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = link_of(netns, link).index;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn forwarding_message(netns: &Path, link: &str, mac: [u8; 6], of: Of) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link_of(netns, link).index;
    message.header.flags = match of {
        Of::Link => NeighbourFlags::Own,
        Of::Bridge => NeighbourFlags::Controller,
    };
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_messages(netns: &Path) -> Vec<RouteMessage> {
    let of = |family| {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        dump(netns, RouteNetlinkMessage::GetRoute(request))
    };
    let read = |message| match message {
        RouteNetlinkMessage::NewRoute(message) => Some(message),
        _ => None,
    };
    FAMILIES.into_iter().flat_map(of).filter_map(read).collect()
}

fn entries(netns: &Path, family: AddressFamily) -> Vec<Neighbour> {
    let names = names(netns);
    let mut request = NeighbourMessage::default();
    request.header.family = family;
    let read = |message| match message {
        RouteNetlinkMessage::NewNeighbour(message) => read_neighbour(&message, &names),
        _ => None,
    };
    dump(netns, RouteNetlinkMessage::GetNeighbour(request)).into_iter().filter_map(read).collect()
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        flags: message.header.flags,
        state: State::Unknown,
        mtu: 0,
        mac: Vec::new(),
        group: 0,
        master: None,
        learning: None,
        other: None,
        queue: String::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::OperState(state) => link.state = *state,
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Link(other) => link.other = Some(*other),
            LinkAttribute::Qdisc(queue) => link.queue.clone_from(queue),
            LinkAttribute::LinkInfo(parts) => {
                for part in parts {
                    match part {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::PortData(InfoPortData::BridgePort(flags)) => {
                            link.learning = flags.iter().find_map(learning);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn learning(flag: &InfoBridgePort) -> Option<bool> {
    match flag {
        InfoBridgePort::Learning(on) => Some(*on),
        _ => None,
    }
}

fn read_address(message: &AddressMessage, names: &BTreeMap<u32, String>) -> Option<Address> {
    let (mut own, mut local, mut broadcast, mut flags) = (None, None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => own = Some(*address),
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Broadcast(address) => broadcast = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        link: names.get(&message.header.index)?.clone(),
        // Of a link to one peer `Address` is that peer.
        address: local.or(own)?,
        prefix: message.header.prefix_len,
        broadcast,
        scope: message.header.scope,
        flags,
    })
}

fn read_route(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<Route> {
    let nowhere: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        table: message.header.table.into(),
        kind: message.header.kind,
        to: IpNet::new(nowhere, message.header.destination_prefix_length).ok()?,
        gateway: None,
        link: None,
        source: None,
        metric: 0,
        protocol: message.header.protocol.into(),
    };
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Destination(to) => {
                route.to = IpNet::new(ip(to)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::Oif(link) => route.link = names.get(link).cloned(),
            RouteAttribute::PrefSource(source) => route.source = ip(source),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}

fn read_rule(message: &RuleMessage) -> Rule {
    let (mut priority, mut mark, mut mask, mut table) = (0, None, u32::MAX, message.header.table.into());
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::FwMark(number) => mark = Some(*number),
            RuleAttribute::FwMask(number) => mask = *number,
            RuleAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    Rule { priority, mark: mark.map(|mark| (mark, mask)), table }
}

fn read_neighbour(message: &NeighbourMessage, names: &BTreeMap<u32, String>) -> Option<Neighbour> {
    let (mut address, mut mac, mut age, mut of_bridge) = (None, None, 0, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            // An entry of a bridge's tunnel comes without its family.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => address = ip_of(bytes),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::CacheInfo(times) => age = times.updated,
            NeighbourAttribute::Controller(_) => of_bridge = true,
            _ => {}
        }
    }
    let link = names.get(&message.header.ifindex)?.clone();
    Some(Neighbour { link, address, mac, state: message.header.state, age, of_bridge })
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
