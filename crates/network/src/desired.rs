//! What each namespace must hold, computed from [`State`]: plain functions, no effects.
//!
//! ```text
//!  host namespace:  rs-ing (mesh)   g-* (routed legs)   br-* + v*-* (local bridges)
//!  data namespace:  br<VNI> + vx<VNI> + v*-* per overlay network; no address at all
//!  sandbox:         lo  eth<i>  ethg
//! ```
//! Source: network.md of the design, section 2, and the pitfalls named at each object.

use crate::{
    address::{self, BRIDGE_LINK_LOCAL, GATEWAY, GATEWAY_MAC, MARK_MASK, MESH_VNI, Mac, v4},
    rt::{Behind, Kind, Link, Object, PortFlags, Route, TABLE_MAIN, Via},
    spec::{BridgeIpv6, NodeIdentity},
    state::{Overlay, Sandbox, State, routed_link},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::MeshNode;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

/// VXLAN adds an outer Ethernet, IPv4, UDP and VXLAN header. *Unit:* bytes.
const VXLAN_OVERHEAD: u32 = 50;
const ORDINARY_MTU: u32 = 1500;
/// Behind every real route.
const LAST_RESORT: u32 = 4_278_198_272;
pub(crate) const MESH_LINK: &str = "rs-ing";
/// Source: RFC 3927, section 2.1.
const LINK_LOCAL_PREFIX: u8 = 16;

/// Links and objects of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) links: BTreeMap<String, Link>,
    pub(crate) objects: BTreeSet<Object>,
}

impl Desired {
    fn link(&mut self, name: String, kind: Kind, mtu: u32, mac: Option<Mac>) {
        self.links.insert(name.clone(), Link { name, kind, mtu, mac });
    }

    fn route(&mut self, to: impl Into<IpNet>, via: Via) {
        let route = Route { table: TABLE_MAIN, via, to: to.into(), metric: 0, source: None };
        self.objects.insert(Object::Route(route));
    }
}

fn host(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}

fn everywhere() -> Ipv4Net {
    Ipv4Net::default()
}

/// The host's namespace: mesh, routed legs, local bridges.
pub(crate) fn of_host(state: &State) -> Desired {
    let mut desired = Desired::default();
    if let Some(identity) = &state.identity {
        mesh(state, identity, &mut desired);
    }
    for (id, sandbox) in &state.sandboxes {
        if let Some(address) = sandbox.gateway() {
            routed_leg(state, id, address, &mut desired);
        }
    }
    for (id, bridge) in state.bridges.iter().filter(|(_, bridge)| bridge.spec.macvlan.is_none()) {
        let mtu = bridge.spec.mtu_bytes.unwrap_or(ORDINARY_MTU);
        // A fixed MAC: else the bridge takes its lowest port's and changes it under the containers' feet.
        let mac = Mac::of_bridged(bridge.gateway);
        desired.link(bridge.interface.clone(), Kind::Bridge, mtu, Some(mac));
        desired.objects.insert(Object::Address {
            link: bridge.interface.clone(),
            address: bridge.gateway.into(),
            prefix: bridge.spec.subnet.prefix_len(),
        });
        if let Some(ipv6) = &bridge.spec.ipv6 {
            let addresses = [(ipv6.gateway(), ipv6.subnet.prefix_len()), (BRIDGE_LINK_LOCAL, 64)];
            desired.objects.extend(addresses.map(|(address, prefix)| Object::Address {
                link: bridge.interface.clone(),
                address: address.into(),
                prefix,
            }));
        }
        let flags = PortFlags { learning: true, flood: true, hairpin: true, isolated: !bridge.spec.icc };
        for (sandbox, leg) in state.on_bridge(id) {
            let (link, bridge) = (leg.outer(sandbox), bridge.interface.clone());
            let kind =
                Kind::Veth { sandbox: sandbox.into(), peer: leg.interface(), peer_mac: state.mac(leg) };
            desired.link(link.clone(), kind, mtu, None);
            desired.objects.insert(Object::Port { link, bridge, flags });
        }
    }
    desired
}

/// Whether [`of_host`] has any link.
pub(crate) fn any_link_on_host(state: &State) -> bool {
    state.identity.is_some()
        || state.sandboxes.values().any(|sandbox| sandbox.gateway().is_some())
        || state.bridges.values().any(|bridge| bridge.spec.macvlan.is_none())
}

fn mesh(state: &State, identity: &NodeIdentity, desired: &mut Desired) {
    let NodeIdentity { index, mesh_subnet, task_pool, .. } = *identity;
    let kind =
        Kind::Vxlan { vni: MESH_VNI, local: identity.data_addr, port: identity.data_port, proxy: false };
    let mtu = state.underlay_mtu.saturating_sub(VXLAN_OVERHEAD);
    desired.link(MESH_LINK.into(), kind, mtu, Some(Mac::of_node(index)));
    let address = |link: &str, address: Ipv4Addr| Object::Address {
        link: link.into(),
        address: address.into(),
        prefix: 32,
    };
    desired.objects.insert(address(MESH_LINK, address::mesh_address(mesh_subnet, index)));
    desired.objects.insert(address("lo", address::task_gateway(task_pool, index)));
    // A task that is gone fails fast.
    desired.objects.insert(Object::Route(Route {
        table: TABLE_MAIN,
        via: Via::Unreachable,
        to: address::task_subnet(task_pool, index).into(),
        metric: LAST_RESORT,
        source: None,
    }));
    for (node, peer) in &state.ingress.nodes {
        if *node != identity.node {
            mesh_peer(identity, *peer, desired);
        }
    }
}

fn mesh_peer(identity: &NodeIdentity, peer: MeshNode, desired: &mut Desired) {
    let mac = Mac::of_node(peer.index);
    let gateway = address::mesh_address(identity.mesh_subnet, peer.index);
    let link = || MESH_LINK.to_owned();
    let via = || Via::Gateway { link: link(), gateway: gateway.into(), onlink: true };
    let table = address::return_table(peer.index);
    desired.objects.insert(Object::Neighbour { link: link(), address: gateway, mac });
    desired.objects.insert(Object::Forwarding { link: link(), mac, to: Behind::Tunnel(peer.vtep) });
    // Loose rp_filter still wants some route to a source.
    desired.route(host(gateway), Via::Link(link()));
    desired.route(address::task_subnet(identity.task_pool, peer.index), via());
    // Answers to what came in through the peer go back through it.
    desired.objects.insert(Object::Route(Route {
        table,
        via: via(),
        to: everywhere().into(),
        metric: 0,
        source: None,
    }));
    desired.objects.insert(Object::Rule { mark: address::mark(peer.index), mask: MARK_MASK, table });
}

fn routed_leg(state: &State, sandbox: &str, address: Ipv4Addr, desired: &mut Desired) {
    let link = routed_link(sandbox);
    let peer_mac = Mac::of_routed(address);
    let kind = Kind::Veth { sandbox: sandbox.into(), peer: "ethg".into(), peer_mac };
    let mtu = if state.underlay_mtu == 0 { ORDINARY_MTU } else { state.underlay_mtu };
    desired.link(link.clone(), kind, mtu, Some(GATEWAY_MAC));
    let source = state.identity.as_ref().map(|i| address::task_gateway(i.task_pool, i.index));
    desired.objects.insert(Object::Route(Route {
        table: TABLE_MAIN,
        via: Via::Link(link.clone()),
        to: host(address).into(),
        metric: 0,
        source,
    }));
    desired.objects.insert(Object::Neighbour { link, address, mac: peer_mac });
}

/// The data namespace: a bridge and a VXLAN per overlay network.
pub(crate) fn of_data(state: &State) -> Desired {
    let mut desired = Desired::default();
    let Some(identity) = &state.identity else { return desired };
    for overlay in state.tables.values() {
        overlay_network(state, identity, overlay, &mut desired);
    }
    desired
}

fn overlay_network(state: &State, identity: &NodeIdentity, overlay: &Overlay, desired: &mut Desired) {
    let table = &overlay.table;
    let vni = table.allocation.vni;
    let mtu = table.mtu_bytes;
    let (bridge, tunnel) = (format!("br{vni}"), format!("vx{vni}"));
    desired.link(bridge.clone(), Kind::Bridge, mtu, None);
    let kind = Kind::Vxlan { vni, local: identity.data_addr, port: identity.data_port, proxy: true };
    desired.link(tunnel.clone(), kind, mtu, None);
    // Nothing is learned and no unknown unicast is sent out; broadcast reaches the VXLAN only so that its
    // proxy answers ARP from our table: without a default entry everything else is dropped there.
    let flags = PortFlags { learning: false, flood: false, hairpin: false, isolated: false };
    desired.objects.insert(Object::Port { link: tunnel.clone(), bridge: bridge.clone(), flags });
    let mut here = BTreeSet::new();
    for (id, sandbox) in &state.sandboxes {
        for leg in sandbox.legs.iter().filter(|l| l.overlay() == Some(table.network)) {
            let link = leg.outer(id);
            let mac = state.mac(leg);
            here.insert(leg.address);
            let kind = Kind::Veth { sandbox: id.clone(), peer: leg.interface(), peer_mac: mac };
            desired.link(link.clone(), kind, mtu, None);
            desired.objects.insert(Object::Port { link: link.clone(), bridge: bridge.clone(), flags });
            desired.objects.insert(Object::Forwarding { link, mac, to: Behind::Bridge });
        }
    }
    for endpoint in table.endpoints.values().filter(|e| e.node != identity.node) {
        let IpAddr::V4(address) = endpoint.address else { continue };
        if here.contains(&address) {
            continue;
        }
        let mac = Mac::of(vni, address);
        let link = || tunnel.clone();
        desired.objects.insert(Object::Forwarding { link: link(), mac, to: Behind::Bridge });
        desired.objects.insert(Object::Forwarding { link: link(), mac, to: Behind::Tunnel(endpoint.vtep) });
        desired.objects.insert(Object::Neighbour { link: link(), address, mac });
    }
}

/// A sandbox's own side: addresses and the way out. Its links are born with their outer ends.
pub(crate) fn of_sandbox(state: &State, sandbox: &Sandbox) -> BTreeSet<Object> {
    let mut desired = Desired::default();
    for leg in &sandbox.legs {
        let (link, address, prefix) = (leg.interface(), leg.address.into(), leg.prefix);
        desired.objects.insert(Object::Address { link, address, prefix });
        if let Some(net) = leg.address6 {
            let (link, address, prefix) = (leg.interface(), net.addr().into(), net.prefix_len());
            desired.objects.insert(Object::Address { link, address, prefix });
        }
        for address in leg.link_local() {
            let (link, address) = (leg.interface(), IpAddr::from(*address));
            desired.objects.insert(Object::Address { link, address, prefix: LINK_LOCAL_PREFIX });
        }
    }
    // Overlays have no IPv6: the way out for it is a network of this host, if one has it.
    let way_out6 = sandbox.ways_out(state).find_map(|(leg, bridge)| Some((leg, bridge.spec.ipv6.as_ref()?)));
    if let Some((leg, ipv6)) = way_out6 {
        let gateway = BridgeIpv6::gateway(ipv6).into();
        desired.route(Ipv6Net::default(), Via::Gateway { link: leg.interface(), gateway, onlink: false });
    }
    if let Some(address) = sandbox.gateway() {
        let link = || "ethg".to_owned();
        desired.objects.insert(Object::Address { link: link(), address: address.into(), prefix: 32 });
        desired.objects.insert(Object::Neighbour { link: link(), address: GATEWAY, mac: GATEWAY_MAC });
        desired.route(everywhere(), Via::Gateway { link: link(), gateway: GATEWAY.into(), onlink: true });
    } else if let Some((leg, bridge)) = sandbox.ways_out(state).next() {
        let gateway = bridge.gateway.into();
        let via = Via::Gateway { link: leg.interface(), gateway, onlink: false };
        desired.route(everywhere(), via);
    }
    desired.objects
}

/// Underlay addresses this host sends VXLAN packets to.
#[cfg(test)]
fn tunnels(desired: &Desired) -> BTreeSet<IpAddr> {
    let tunnel = |object: &Object| match object {
        Object::Forwarding { to: Behind::Tunnel(host), .. } => Some(*host),
        _ => None,
    };
    desired.objects.iter().filter_map(tunnel).collect()
}

/// Returns the IPv4 VIP and the network of each service with a VIP.
pub(crate) fn vips(overlay: &Overlay) -> impl Iterator<Item = (Ipv4Addr, &[Ipv4Addr])> {
    overlay.table.services.iter().filter_map(|(id, service)| {
        let vip = v4(service.vip?, "virtual addresses").ok()?;
        Some((vip, overlay.backends.get(id).map_or(&[][..], |slots| slots.members())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::*;

    pub(super) fn state_with_remote_endpoint() -> State {
        let endpoint = |last: u8, node: u128| NetworkEndpoint {
            address: Ipv4Addr::new(10, 0, 1, last).into(),
            node: NodeId(node),
            vtep: Ipv4Addr::new(192, 0, 2, u8::try_from(node).unwrap()).into(),
            service: ServiceId(1),
            names: vec![],
            ready: true,
            lost: false,
        };
        let mut state = State {
            identity: Some(NodeIdentity {
                node: NodeId(1),
                index: 1,
                data_addr: "192.0.2.1".parse().unwrap(),
                data_port: 4789,
                mesh_subnet: "10.254.0.0/16".parse().unwrap(),
                task_pool: "10.255.0.0/16".parse().unwrap(),
            }),
            underlay_mtu: 1500,
            ..State::default()
        };
        state.put_table(NetworkTable {
            network: NetworkId(1),
            name: "web".into(),
            version: 1,
            allocation: NetworkAllocation {
                vni: 4097,
                subnet: "10.0.1.0/24".parse().unwrap(),
                gateway: "10.0.1.1".parse().unwrap(),
            },
            internal: false,
            mtu_bytes: 1450,
            endpoints: [(TaskId(1), endpoint(11, 1)), (TaskId(2), endpoint(12, 2))].into(),
            services: BTreeMap::new(),
        });
        state
    }

    #[test]
    fn only_remote_endpoints_are_behind_the_tunnel() {
        let desired = of_data(&state_with_remote_endpoint());
        assert_eq!(tunnels(&desired), ["192.0.2.2".parse::<IpAddr>().unwrap()].into());
        // Forwarding entry of the bridge, of the tunnel, neighbour, and the tunnel's port.
        assert_eq!(desired.objects.len(), 4);
        assert_eq!(desired.links.keys().collect::<Vec<_>>(), ["br4097", "vx4097"]);
    }

    #[test]
    fn out_of_the_swarm_there_are_no_overlays() {
        let state = State { identity: None, ..state_with_remote_endpoint() };
        assert_eq!(of_data(&state), super::Desired::default());
        assert_eq!(of_host(&state), super::Desired::default());
    }
}
