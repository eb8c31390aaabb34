//! The nftables table of each namespace, computed from [`State`]: static rules, and maps that hold all
//! that changes.
//!
//! Chains `n<k>` ("pick one of k") are shared by everything with k backends: `VIP -> goto n<k> -> dnat to
//! (VIP . random index) -> backend`. nat chains see only the first packet of a flow, so a change of
//! backends leaves established flows alone.
//!
//! Policies are always accept and only our own interfaces are judged: other firewalls keep their rules.
//!
//! ```text
//!  container --frame--> port of a bridge    table bridge: own MAC, own addresses, ARP, IPv4, IPv6 and no other
//!  container --packet--> routed leg         raw_in: own address
//!  anybody --VXLAN--> host                  tunnel: from nodes of the swarm, by the underlay
//!  mesh --packet--> host                    in_flt: answers only; a task's published port is forwarded
//! ```

use crate::{
    address::{self, DNS, MARK_MASK, Mac, v4},
    desired::{MESH_LINK, vips},
    nft::{
        Chain, ETHER, Hook, IFNAME, IPV4, IPV6, MARK, PORT, PROTO, Rule, Ruleset, Set, concat,
        field::{
            ArpSender, ArpSenderEther, Destination, Destination6, DestinationNet24, DestinationPort,
            EtherSource, FrameSource, FrameSource6, Iif, L4Proto, NeighbourTarget, Oif, Random, Source,
        },
        ifname,
    },
    ports,
    rt::LOOPBACK,
    spec::NodeIdentity,
    state::{Leg, Sandbox, State, routed_link},
};
use model::Protocol;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

const RAW: i32 = -300;
const MANGLE: i32 = -150;
const NAT_IN: i32 = -100;
const FILTER: i32 = 0;
const NAT_OUT: i32 = 100;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const OF_IPV4: u16 = 0x0800;
const OF_ARP: u16 = 0x0806;
const OF_IPV6: u16 = 0x86dd;
/// Types of ICMPv6. Source: RFC 4861.
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT6: u8 = 137;
/// Type of ICMP. Source: RFC 792.
const REDIRECT: u8 = 5;
/// Bit of the connection mark of flows that turn round at a local bridge; outside of `MARK_MASK`.
const HAIRPIN: u32 = 0x2_0000;
/// Every host end of a routed leg.
const ROUTED: &str = "g-*";

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
    }
}

fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    concat(&[&[number(protocol)], &port.to_be_bytes()])
}

fn endpoint(address: Ipv4Addr, port: u16) -> Vec<u8> {
    concat(&[&address.octets(), &port.to_be_bytes()])
}

fn named(sets: Vec<(&str, Set)>) -> BTreeMap<String, Set> {
    sets.into_iter().map(|(name, set)| (name.to_owned(), set)).collect()
}

fn chains(chains: Vec<(&str, Chain)>) -> BTreeMap<String, Chain> {
    chains.into_iter().map(|(name, chain)| (name.to_owned(), chain)).collect()
}

/// The table of a sandbox: virtual addresses of the services on its networks, and its name server.
pub(crate) fn of_sandbox(state: &State, sandbox: &Sandbox) -> Ruleset {
    let mut known = Set::new(&[IPV4]);
    let mut services = Set::verdict_map(&[IPV4]);
    let mut backends = Set::map(&[IPV4, MARK], &[IPV4]);
    let mut sizes = BTreeSet::new();
    let overlays = sandbox.legs.iter().filter_map(|leg| state.tables.get(&leg.overlay()?));
    for (vip, members) in overlays.flat_map(vips) {
        known.insert(vip.octets().to_vec());
        let Some(count) = u32::try_from(members.len()).ok().filter(|count| *count > 0) else { continue };
        sizes.insert(count);
        services.insert_goto(vip.octets().to_vec(), format!("n{count}"));
        for (index, member) in (0u32..).zip(members) {
            let key = concat(&[&vip.octets(), &index.to_ne_bytes()]);
            backends.insert_value(key, member.octets().to_vec());
        }
    }
    let to_dns = |l4| Rule::new().destination(DNS).l4(l4).port(53).dnat(DNS, sandbox.dns_port);
    let mut chains = chains(vec![
        (
            "out_nat",
            Chain::base(
                "nat",
                Hook::Output,
                NAT_IN,
                vec![to_dns(UDP), to_dns(TCP), Rule::new().verdict_map(&[Destination], "svc")],
            ),
        ),
        (
            // Still a virtual address after nat: no backend. Tell the caller at once.
            "out_flt",
            Chain::base(
                "filter",
                Hook::Output,
                FILTER,
                vec![
                    Rule::new().in_set(&[Destination], "vips").l4(TCP).tcp_reset(),
                    Rule::new().in_set(&[Destination], "vips").reject_host_unreachable(),
                ],
            ),
        ),
    ]);
    for k in sizes {
        let rule = Rule::new().dnat_to_address_of(&[Destination, Random(k)], "be");
        chains.insert(format!("n{k}"), Chain::plain(vec![rule]));
    }
    Ruleset {
        sets: named(vec![("svc", services), ("be", backends), ("vips", known)]),
        chains,
        ..Ruleset::default()
    }
}

/// The bridge table of a namespace whose ports lead to these legs: a container speaks for itself only. A raw socket,
/// which every container may open, could otherwise take its neighbours' traffic by an ARP message.
pub(crate) fn of_ports<'a>(state: &State, legs: impl Iterator<Item = (&'a str, &'a Leg)>) -> Ruleset {
    let mut ports = Set::new(&[IFNAME]);
    let mut macs = Set::new(&[IFNAME, ETHER]);
    let mut senders = Set::new(&[IFNAME, ETHER, IPV4]);
    let mut addresses = Set::new(&[IFNAME, IPV4]);
    let mut addresses6 = Set::new(&[IFNAME, IPV6]);
    for (sandbox, leg) in legs {
        let (port, mac) = (ifname(&leg.outer(sandbox)), state.mac(leg));
        ports.insert(port.to_vec());
        macs.insert(concat(&[&port, &mac.0]));
        for address in std::iter::once(&leg.address).chain(leg.link_local()) {
            senders.insert(concat(&[&port, &mac.0, &address.octets()]));
            addresses.insert(concat(&[&port, &address.octets()]));
        }
        if let Some(address6) = leg.address6 {
            for own in [address6.addr(), mac.link_local()] {
                addresses6.insert(concat(&[&port, &own.octets()]));
            }
        }
    }
    let arp = || Rule::new().protocol(OF_ARP);
    let ipv4 = || Rule::new().protocol(OF_IPV4);
    let ipv6 = || Rule::new().protocol(OF_IPV6);
    let rules = vec![
        // Tunnels, and other people's bridges.
        Rule::new().not_in_set(&[Iif], "ports").accept(),
        Rule::new().not_in_set(&[Iif, EtherSource], "macs").drop(),
        arp().not_in_set(&[Iif, ArpSenderEther, ArpSender], "senders").drop(),
        arp().accept(),
        ipv4().not_in_set(&[Iif, FrameSource], "addresses").drop(),
        ipv4().icmp(ICMP, REDIRECT).drop(),
        // The answers of a DHCP server.
        ipv4().l4(UDP).source_port(67).port(68).drop(),
        ipv4().accept(),
        ipv6().icmp(ICMP6, ROUTER_ADVERTISEMENT).drop(),
        ipv6().icmp(ICMP6, REDIRECT6).drop(),
        ipv6().icmp(ICMP6, NEIGHBOUR_ADVERTISEMENT).not_in_set(&[Iif, NeighbourTarget], "addresses6").drop(),
        // Who asks whether its own address is free has none yet.
        ipv6()
            .icmp(ICMP6, NEIGHBOUR_SOLICITATION)
            .frame_source_unspecified6()
            .in_set(&[Iif, NeighbourTarget], "addresses6")
            .accept(),
        ipv6().in_set(&[Iif, FrameSource6], "addresses6").accept(),
        // What is left: IPv6 with a borrowed address, and protocols that nobody checks.
        Rule::new().drop(),
    ];
    Ruleset {
        sets: named(vec![
            ("ports", ports),
            ("macs", macs),
            ("senders", senders),
            ("addresses", addresses),
            ("addresses6", addresses6),
        ]),
        chains: chains(vec![("ports_in", Chain::base("filter", Hook::Prerouting, RAW, rules))]),
        ..Ruleset::default()
    }
}

/// The table of the host: published ports, mesh, ways out, isolation.
pub(crate) fn of_host(state: &State) -> Ruleset {
    let identity = state.identity.as_ref();
    let mut chains = chains(vec![
        ("raw_in", Chain::base("filter", Hook::Prerouting, RAW, raw_in(identity))),
        ("raw_out", Chain::base("filter", Hook::Output, RAW, raw_out(identity))),
        ("mark_in", Chain::base("filter", Hook::Prerouting, MANGLE, mark_in())),
        ("lb", Chain::plain(balance())),
        ("pre_nat", Chain::base("nat", Hook::Prerouting, NAT_IN, pre_nat())),
        ("tunnel", Chain::plain(tunnel(state))),
        ("in_flt", Chain::base("filter", Hook::Input, FILTER, input(identity))),
        ("out_nat", Chain::base("nat", Hook::Output, NAT_IN, published(Rule::new()))),
        (
            // Said at once, so that who asks for localhost goes on to 127.0.0.1.
            "out_flt",
            Chain::base(
                "filter",
                Hook::Output,
                FILTER,
                vec![
                    Rule::new()
                        .destination_loopback6()
                        .in_set(&[L4Proto, DestinationPort], "open6")
                        .l4(TCP)
                        .tcp_reset(),
                ],
            ),
        ),
        ("post_nat", Chain::base("nat", Hook::Postrouting, NAT_OUT, post_nat(identity))),
        ("mss", Chain::base("filter", Hook::Postrouting, MANGLE, mangle_out())),
        ("forw", Chain::base("filter", Hook::Forward, FILTER, forward(identity))),
    ]);
    let mut sets = BTreeMap::new();
    mesh_sets(state, &mut sets);
    let sizes = ingress_sets(state, &mut sets);
    for k in sizes {
        let key = [L4Proto, DestinationPort, Random(k)];
        chains.insert(format!("n{k}"), Chain::plain(vec![Rule::new().dnat_to_endpoint_of(&key, "pub_be")]));
    }
    host_port_sets(state, &mut sets);
    bridge_sets(state, &mut sets);
    Ruleset { sets, chains, ..Ruleset::default() }
}

fn mesh_sets(state: &State, sets: &mut BTreeMap<String, Set>) {
    let mut node_of_mac = Set::map(&[ETHER], &[MARK]);
    let mut self_hop = Set::new(&[IPV4, IPV4]);
    let mut self_task = Set::new(&[IPV4, IPV4]);
    let mut legs = Set::new(&[IFNAME, IPV4]);
    let mut vteps = Set::new(&[IPV4]);
    if let Some(identity) = &state.identity {
        for (node, peer) in &state.ingress.nodes {
            if *node == identity.node {
                continue;
            }
            let mark = address::mark(peer.index).to_ne_bytes().to_vec();
            node_of_mac.insert_value(Mac::of_node(peer.index).0.to_vec(), mark);
            if let Ok(vtep) = v4(peer.vtep, "mesh") {
                let tasks = address::task_subnet(identity.task_pool, peer.index).network();
                self_hop.insert(concat(&[&vtep.octets(), &tasks.octets()]));
            }
        }
    }
    for (id, sandbox) in &state.sandboxes {
        let Some(address) = sandbox.gateway() else { continue };
        self_task.insert(concat(&[&address.octets(), &address.octets()]));
        legs.insert(concat(&[&ifname(&routed_link(id)), &address.octets()]));
    }
    for peer in peers(state) {
        vteps.insert(peer.octets().to_vec());
    }
    sets.extend(named(vec![
        ("node_of_mac", node_of_mac),
        ("self_hop", self_hop),
        ("self_task", self_task),
        ("legs", legs),
        ("vteps", vteps),
    ]));
}

/// Data addresses of the other nodes, from every table that names some.
fn peers(state: &State) -> BTreeSet<Ipv4Addr> {
    let Some(identity) = &state.identity else { return BTreeSet::new() };
    let mesh = state.ingress.nodes.iter().map(|(node, peer)| (*node, peer.vtep));
    let tables = state.tables.values().flat_map(|overlay| overlay.table.endpoints.values());
    let all = mesh.chain(tables.map(|endpoint| (endpoint.node, endpoint.vtep)));
    all.filter(|(node, _)| *node != identity.node)
        .filter_map(|(_, vtep)| if let IpAddr::V4(v4) = vtep { Some(v4) } else { None })
        .collect()
}

/// Returns the sizes of backend sets in use.
fn ingress_sets(state: &State, sets: &mut BTreeMap<String, Set>) -> BTreeSet<u32> {
    let mut ports = Set::verdict_map(&[PROTO, PORT]);
    let mut backends = Set::map(&[PROTO, PORT, MARK], &[IPV4, PORT]);
    let mut local = Set::new(&[IPV4, PROTO, PORT]);
    let mut sizes = BTreeSet::new();
    if let Some(identity) = &state.identity {
        for ((protocol, port), slots) in &state.published {
            if slots.count() == 0 || state.withheld.contains(&(*protocol, *port)) {
                continue;
            }
            sizes.insert(slots.count());
            ports.insert_goto(port_key(*protocol, *port), format!("n{}", slots.count()));
            for (index, (address, target)) in (0u32..).zip(slots.members()) {
                let key = concat(&[&[number(*protocol)], &port.to_be_bytes(), &index.to_ne_bytes()]);
                backends.insert_value(key, endpoint(*address, *target));
            }
        }
        for ((protocol, _), members) in &state.ingress.ports {
            for backend in members.iter().filter(|b| b.node == identity.node) {
                if let Ok(address) = v4(backend.address, "mesh") {
                    let parts: [&[u8]; 3] =
                        [&address.octets(), &[number(*protocol)], &backend.port.to_be_bytes()];
                    local.insert(concat(&parts));
                }
            }
        }
    }
    sets.extend(named(vec![("pub", ports), ("pub_be", backends), ("local_be", local)]));
    sizes
}

fn host_port_sets(state: &State, sets: &mut BTreeMap<String, Set>) {
    let mut everywhere = Set::map(&[PROTO, PORT], &[IPV4, PORT]);
    let mut one_address = Set::map(&[IPV4, PROTO, PORT], &[IPV4, PORT]);
    let mut everywhere6 = Set::map(&[PROTO, PORT], &[IPV6, PORT]);
    let mut open6 = Set::new(&[PROTO, PORT]);
    let mut one_address6 = Set::map(&[IPV6, PROTO, PORT], &[IPV6, PORT]);
    for sandbox in state.sandboxes.values() {
        let (v4, v6) = (sandbox.published_address(state), sandbox.published_address6(state));
        for binding in &sandbox.spec.ports {
            let Some(port) = binding.host_port else { continue };
            if state.lost.contains(&(sandbox.spec.id.clone(), binding.protocol, port)) {
                continue;
            }
            let to = binding.container_port;
            let at = |ip: &[u8]| concat(&[ip, &[number(binding.protocol)], &port.to_be_bytes()]);
            let anywhere = || port_key(binding.protocol, port);
            let families = ports::families(binding.host_ip, v6.is_some());
            if let (Some(host_ip), Some(target)) = (families.v4, v4) {
                let value = endpoint(target, to);
                match host_ip {
                    Some(ip) => one_address.insert_value(at(&ip.octets()), value),
                    None => everywhere.insert_value(anywhere(), value),
                }
            }
            if let (Some(host_ip), Some(target)) = (families.v6, v6) {
                let value = concat(&[&target.octets(), &to.to_be_bytes()]);
                match host_ip {
                    Some(ip) => one_address6.insert_value(at(&ip.octets()), value),
                    None => {
                        open6.insert(anywhere());
                        everywhere6.insert_value(anywhere(), value);
                    }
                }
            }
        }
    }
    sets.extend(named(vec![
        ("hostp", everywhere),
        ("hostp_ip", one_address),
        ("hostp6", everywhere6),
        ("hostp6_ip", one_address6),
        ("open6", open6),
    ]));
}

fn bridge_sets(state: &State, sets: &mut BTreeMap<String, Set>) {
    let mut bridges = Set::new(&[IFNAME]);
    let mut internal = Set::new(&[IFNAME]);
    let mut within = Set::new(&[IFNAME, IFNAME]);
    let mut gates = Set::new(&[IPV4]);
    let mut gates6 = Set::new(&[IPV6]);
    for bridge in state.bridges.values().filter(|b| b.spec.macvlan.is_none()) {
        let name = ifname(&bridge.interface);
        bridges.insert(name.to_vec());
        if bridge.spec.internal {
            internal.insert(name.to_vec());
        }
        gates.insert(bridge.gateway.octets().to_vec());
        if let Some(v6) = &bridge.spec.ipv6 {
            gates6.insert(v6.gateway().octets().to_vec());
        }
        if bridge.spec.icc {
            within.insert(concat(&[&name, &name]));
        }
    }
    sets.extend(named(vec![
        ("bridges", bridges),
        ("internal", internal),
        ("within", within),
        ("gates", gates),
        ("gates6", gates6),
    ]));
}

fn raw_in(identity: Option<&NodeIdentity>) -> Vec<Rule> {
    // route_localnet opens 127.0.0.0/8 to whoever is next door: close it again.
    let ours =
        || [Rule::new().in_set(&[Iif], "bridges"), Rule::new().iif(ROUTED), Rule::new().iif(MESH_LINK)];
    let mut rules: Vec<Rule> = ours().map(|rule| rule.destination_loopback().drop()).into();
    rules.extend(ours().map(|rule| rule.source_loopback().drop()));
    rules.extend([
        // A routed leg has one address, and the mesh plane no IPv6.
        Rule::new().iif(ROUTED).not_in_set(&[Iif, Source], "legs").drop(),
        Rule::new().iif(ROUTED).of_ipv6().drop(),
        Rule::new().iif(MESH_LINK).of_ipv6().drop(),
        Rule::new().iif(ROUTED).icmp(ICMP, REDIRECT).drop(),
        Rule::new().iif(MESH_LINK).icmp(ICMP, REDIRECT).drop(),
    ]);
    if identity.is_some() {
        // One client may ask by two nodes from one port at once, or by a second while this node still knows of what it
        // asked by a first that has died: each answer goes back by the node that was asked.
        rules.push(Rule::new().iif(MESH_LINK).ct_original_zone_of_sender());
    }
    rules.extend(raw_out(identity));
    rules
}

/// Packets of the tunnels, that arrive or pass through: only from a node of the swarm, and by the underlay. Whoever
/// can send one is on every overlay network, whatever the network's ports are locked to.
fn tunnel(state: &State) -> Vec<Rule> {
    let mut rules = vec![
        Rule::new().in_set(&[Iif], "bridges").drop(),
        Rule::new().iif(ROUTED).drop(),
        Rule::new().iif(MESH_LINK).drop(),
        Rule::new().iif(LOOPBACK).drop(),
        Rule::new().not_in_set(&[Source], "vteps").drop(),
    ];
    // The ways to a peer may differ there and back, but not away from the link that has the data address.
    let other_way = match &state.underlay_link {
        Some(link) => Rule::new().not_iif(link),
        None => Rule::new(),
    };
    rules.push(other_way.off_route().drop());
    rules
}

fn input(identity: Option<&NodeIdentity>) -> Vec<Rule> {
    let Some(identity) = identity else { return Vec::new() };
    let mesh = address::mesh_address(identity.mesh_subnet, identity.index);
    let gateway = address::task_gateway(identity.task_pool, identity.index);
    vec![
        Rule::new().of_ipv4().l4(UDP).port(identity.data_port).jump("tunnel"),
        // To this host itself, other nodes only answer. Published ports are forwarded.
        Rule::new().iif(MESH_LINK).not_established().drop(),
        // Nor is it to be reached by its addresses on the mesh from anywhere else; the tasks' way out is their own.
        Rule::new().not_iif(LOOPBACK).destination(mesh).not_established().drop(),
        Rule::new().not_iif(LOOPBACK).not_iif(ROUTED).destination(gateway).not_established().drop(),
    ]
}

fn pre_nat() -> Vec<Rule> {
    // Translation comes before the kernel's own judgement of who may use 127.0.0.0/8: not for a neighbour.
    let mut rules = vec![Rule::new().destination_loopback().accept()];
    rules.extend(published(Rule::new().not_iif(MESH_LINK)));
    rules
}

/// Tunnel packets need no tracking, and must not be lost when its table is full.
fn raw_out(identity: Option<&NodeIdentity>) -> Vec<Rule> {
    identity.map(|i| Rule::new().l4(UDP).port(i.data_port).notrack()).into_iter().collect()
}

fn mark_in() -> Vec<Rule> {
    vec![
        Rule::new().iif(MESH_LINK).new_flow().ct_mark_from_map(&[EtherSource], "node_of_mac"),
        Rule::new().iif(ROUTED).reply().ct_mark(MARK_MASK).mark_from_ct(),
    ]
}

fn balance() -> Vec<Rule> {
    vec![
        Rule::new().dnat_to_endpoint_of(&[Destination, L4Proto, DestinationPort], "hostp_ip"),
        Rule::new().of_ipv4().dnat_to_endpoint_of(&[L4Proto, DestinationPort], "hostp"),
        // The kernel does not let an answer from elsewhere through to ::1: see `out_flt`.
        Rule::new().destination_loopback6().accept(),
        Rule::new().dnat_to_endpoint6_of(&[Destination6, L4Proto, DestinationPort], "hostp6_ip"),
        Rule::new().of_ipv6().dnat_to_endpoint6_of(&[L4Proto, DestinationPort], "hostp6"),
        Rule::new().of_ipv4().verdict_map(&[L4Proto, DestinationPort], "pub"),
    ]
}

fn published(to: Rule) -> Vec<Rule> {
    [TCP, UDP, SCTP].map(|l4| to.clone().for_this_host().l4(l4).jump("lb")).into()
}

fn post_nat(identity: Option<&NodeIdentity>) -> Vec<Rule> {
    let mut rules = vec![
        // What reaches a container through a port of the host while that container has a nearer way back to the sender:
        // localhost:port and the addresses of other bridges on the host itself, and containers, be they its neighbours,
        // itself, or on another network that it is on too. The answer must come back this way.
        Rule::new().in_set(&[Oif], "bridges").source_loopback().masquerade(),
        Rule::new().in_set(&[Oif], "bridges").translated().in_set(&[Source], "gates").masquerade(),
        Rule::new()
            .in_set(&[Oif], "bridges")
            .translated()
            .of_ipv6()
            .in_set(&[FrameSource6], "gates6")
            .masquerade(),
        Rule::new().ct_mark(HAIRPIN).masquerade(),
    ];
    if let Some(identity) = identity {
        let gateway = address::task_gateway(identity.task_pool, identity.index);
        let tasks = address::task_subnet(identity.task_pool, identity.index).network();
        rules.extend([
            Rule::new().oif(ROUTED).source_loopback().snat(gateway),
            Rule::new().oif(MESH_LINK).source_loopback().snat(gateway),
            // A host that comes in here and is sent back to a task of its own: its own address would be a
            // martian there.
            Rule::new().oif(MESH_LINK).in_set(&[Source, DestinationNet24], "self_hop").masquerade(),
            // A task that picked itself.
            Rule::new().oif(ROUTED).iif(ROUTED).in_set(&[Source, Destination], "self_task").snat(gateway),
            // Local bridges mean nothing to other hosts.
            Rule::new().oif(MESH_LINK).in_set(&[Iif], "bridges").masquerade(),
            ours_to_outside(Rule::new().source_in(tasks, 3)).masquerade(),
        ]);
    }
    rules.push(ours_to_outside(Rule::new().in_set(&[Iif], "bridges")).masquerade());
    rules
}

fn ours_to_outside(from: Rule) -> Rule {
    from.not_oif(ROUTED).not_oif(MESH_LINK).not_oif("lo").not_in_set(&[Oif], "bridges")
}

fn mangle_out() -> Vec<Rule> {
    vec![
        // Here and not in forward: flows made on the host itself would offer a segment size of 65495.
        Rule::new().oif(MESH_LINK).syn().clamp_mss(),
        // The kernel routes the tunnel's outer packet by the inner packet's mark: into the tunnel itself.
        Rule::new().oif(MESH_LINK).mark(MARK_MASK).clear_mark(),
    ]
}

fn forward(identity: Option<&NodeIdentity>) -> Vec<Rule> {
    // What a container sends to another node's tunnel leaves with this node's address on it.
    let tunnel = |i: &NodeIdentity| {
        Rule::new().l4(UDP).port(i.data_port).in_set(&[Destination], "vteps").jump("tunnel")
    };
    let mut rules: Vec<Rule> = identity.map(tunnel).into_iter().collect();
    rules.extend([
        // Noted here for post_nat: with br_netfilter on, that hook does not know the incoming interface.
        Rule::new()
            .in_set(&[Iif], "bridges")
            .in_set(&[Oif], "bridges")
            .new_flow()
            .translated()
            .set_ct_mark(HAIRPIN),
        Rule::new().established().accept(),
        Rule::new()
            .iif(MESH_LINK)
            .oif(ROUTED)
            .in_set(&[Destination, L4Proto, DestinationPort], "local_be")
            .accept(),
        Rule::new().iif(MESH_LINK).drop(),
        // Tasks do not see each other on this plane, nor does anybody see what is not published.
        Rule::new().oif(ROUTED).not_translated().drop(),
        Rule::new().oif(MESH_LINK).not_translated().drop(),
        Rule::new().in_set(&[Iif, Oif], "within").accept(),
        Rule::new().in_set(&[Iif], "internal").drop(),
        Rule::new().in_set(&[Oif], "internal").drop(),
        Rule::new().in_set(&[Oif], "bridges").not_translated().drop(),
    ]);
    rules
}
