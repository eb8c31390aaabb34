//! Which tracked flows lead elsewhere than new ones would: to a backend that left, past a service that came later, to
//! an address that nobody has any more. Plain functions; [`crate::conntrack`] carries out.
//!
//! A flow is judged by the state alone, not by what changed: so it is the same judgement after a change, after a
//! restart, and after a change that nobody announced (a crash, a host without power). Rules of nat see the first
//! packet of a flow only, and a sender of UDP that goes on has no second first packet: it is stuck until its entry is
//! forgotten. So is who asks for a connection, and goes on asking: until he is answered he is judged alike. A connection is
//! left with a backend that takes no *new* ones, as long as its address is somebody's and the node is not given up.

use crate::{
    address,
    conntrack::{Flow, SCTP, TCP, UDP},
    desired::vips,
    ports,
    state::{Overlay, Sandbox, State},
};
use ipnet::{IpNet, Ipv4Net};
use model::Protocol;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Where one namespace leads new flows, and whose addresses it knows.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Backends of virtual addresses, which keep the port.
    virtuals: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// Backends of a port on one address of the host.
    at: BTreeMap<(IpAddr, u8, u16), BTreeSet<(IpAddr, u16)>>,
    /// The same on every address of the host, of IPv4 (`false`) or IPv6 (`true`).
    anywhere: BTreeMap<(bool, u8, u16), BTreeSet<(IpAddr, u16)>>,
    /// Addresses of this host.
    own: BTreeSet<IpAddr>,
    /// Networks that nobody but us leads to by translation.
    ours: Vec<IpNet>,
    /// Networks all of whose addresses in use are among `inhabitants`.
    inhabited: Vec<IpNet>,
    inhabitants: BTreeSet<IpAddr>,
    /// Addresses on nodes that were given up.
    lost: BTreeSet<IpAddr>,
    /// The pool of all nodes' task subnets, and the indexes of the nodes that are there.
    tasks: Option<(Ipv4Net, BTreeSet<u16>)>,
}

impl Ways {
    /// Those of the host's own namespace. `own`: the addresses of its links.
    pub(crate) fn of_host(state: &State, own: BTreeSet<IpAddr>) -> Self {
        let mut ways = Self { own, ..Self::default() };
        ways.add_swarm(state);
        for bridge in state.bridges.values().filter(|b| b.spec.macvlan.is_none()) {
            ways.inhabit(bridge.spec.subnet.into());
            ways.inhabitants.insert(bridge.gateway.into());
            if let Some(ipv6) = &bridge.spec.ipv6 {
                ways.inhabit(ipv6.subnet.into());
                ways.inhabitants.insert(ipv6.gateway().into());
            }
            for (_, leg) in state.on_bridge(&bridge.spec.id) {
                ways.inhabitants.insert(leg.address.into());
                ways.inhabitants.extend(leg.address6.map(|net| IpAddr::from(net.addr())));
            }
        }
        for sandbox in state.sandboxes.values() {
            ways.add_host_ports(state, sandbox);
        }
        ways
    }

    fn add_swarm(&mut self, state: &State) {
        let Some(identity) = &state.identity else { return };
        let tasks = address::task_subnet(identity.task_pool, identity.index);
        self.ours.push(identity.task_pool.into());
        self.inhabited.push(tasks.into());
        self.inhabitants.insert(address::task_gateway(identity.task_pool, identity.index).into());
        self.inhabitants.extend(state.sandboxes.values().filter_map(Sandbox::gateway).map(IpAddr::from));
        // Before the first table nobody is known, which does not mean that nobody is there.
        if !state.ingress.nodes.is_empty() {
            let there = state.ingress.nodes.iter().filter(|(node, _)| !state.ingress.lost.contains(node));
            let indexes = there.map(|(_, peer)| peer.index).chain([identity.index]);
            self.tasks = Some((identity.task_pool, indexes.collect()));
        }
        for ((protocol, port), slots) in &state.published {
            if slots.count() > 0 && !state.withheld.contains(&(*protocol, *port)) {
                let members = slots.members().iter().map(|(address, port)| ((*address).into(), *port));
                self.anywhere.insert((false, number(*protocol), *port), members.collect());
            }
        }
    }

    /// The ports of one container. They come before those of the swarm, as in the rules.
    fn add_host_ports(&mut self, state: &State, sandbox: &Sandbox) {
        let (v4, v6) = (sandbox.published_address(state), sandbox.published_address6(state));
        for binding in &sandbox.spec.ports {
            let Some(port) = binding.host_port else { continue };
            if state.lost.contains(&(sandbox.spec.id.clone(), binding.protocol, port)) {
                continue;
            }
            let families = ports::families(binding.host_ip, v6.is_some());
            let protocol = number(binding.protocol);
            let mut lead = |of_v6: bool, host_ip: Option<IpAddr>, target: IpAddr| {
                let members = BTreeSet::from([(target, binding.container_port)]);
                match host_ip {
                    Some(ip) => drop(self.at.insert((ip, protocol, port), members)),
                    None => drop(self.anywhere.insert((of_v6, protocol, port), members)),
                }
            };
            if let (Some(host_ip), Some(target)) = (families.v4, v4) {
                lead(false, host_ip.map(IpAddr::from), target.into());
            }
            if let (Some(host_ip), Some(target)) = (families.v6, v6) {
                lead(true, host_ip.map(IpAddr::from), target.into());
            }
        }
    }

    /// Those of a sandbox: the virtual addresses on its networks.
    pub(crate) fn of_sandbox(state: &State, sandbox: &Sandbox) -> Self {
        let mut ways = Self::default();
        for overlay in sandbox.legs.iter().filter_map(|leg| state.tables.get(&leg.overlay()?)) {
            ways.add_overlay(overlay);
            // A node that hears that it was given up is back.
            let own = state.identity.as_ref().map(|identity| identity.node);
            let lost = overlay.table.endpoints.values().filter(|e| e.lost && Some(e.node) != own);
            ways.lost.extend(lost.map(|endpoint| endpoint.address));
        }
        ways
    }

    fn add_overlay(&mut self, overlay: &Overlay) {
        self.inhabit(overlay.table.allocation.subnet);
        self.inhabitants.insert(overlay.table.allocation.gateway);
        self.inhabitants.extend(overlay.table.endpoints.values().map(|endpoint| endpoint.address));
        for (vip, members) in vips(overlay) {
            self.inhabitants.insert(vip.into());
            self.virtuals.insert(vip.into(), members.iter().copied().map(IpAddr::from).collect());
        }
    }

    fn inhabit(&mut self, net: IpNet) {
        self.ours.push(net);
        self.inhabited.push(net);
    }

    /// Tells whether a flow leads elsewhere than a new one of the same sender would.
    pub(crate) fn outdated(&self, flow: &Flow) -> bool {
        if self.vanished(flow.source) || self.vanished(flow.answers) || self.severed(flow) {
            return true;
        }
        if flow.protocol != UDP && flow.answered {
            return false;
        }
        match self.leads(flow) {
            Some(led) => !led,
            None => flow.translated() && self.ours.iter().any(|net| net.contains(&flow.answers)),
        }
    }

    /// Tells whether one end of a flow is on a node that was given up: nobody will ever say that it is over.
    pub(crate) fn severed(&self, flow: &Flow) -> bool {
        [flow.source, flow.answers].into_iter().any(|address| {
            let elsewhere = |(pool, there): &(Ipv4Net, BTreeSet<u16>)| {
                let IpAddr::V4(v4) = address else { return false };
                pool.contains(&v4) && !there.contains(&address::index_of_task(*pool, v4))
            };
            self.lost.contains(&address) || self.tasks.as_ref().is_some_and(elsewhere)
        })
    }

    /// Returns whether who answers is among those that a new flow would be led to; `None` = it would not be led.
    fn leads(&self, flow: &Flow) -> Option<bool> {
        let to = flow.destination;
        if let Some(members) = self.virtuals.get(&to) {
            return Some(members.contains(&flow.answers));
        }
        // Of IPv6, ::1 is not led: see `firewall::balance`.
        let local = self.own.contains(&to) && to != IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        let loopback = matches!(to, IpAddr::V4(v4) if v4.is_loopback());
        if !local && !loopback {
            return None;
        }
        let port = flow.destination_port;
        let members = self
            .at
            .get(&(to, flow.protocol, port))
            .or_else(|| self.anywhere.get(&(to.is_ipv6(), flow.protocol, port)))?;
        Some(members.contains(&(flow.answers, flow.answers_port)))
    }

    fn vanished(&self, address: IpAddr) -> bool {
        !self.inhabitants.contains(&address) && self.inhabited.iter().any(|net| net.contains(&address))
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::Mac,
        spec::SandboxSpec,
        spec::{BridgeSpec, DnsOptions, Gateway, LegOptions, NodeIdentity, PortBinding, SandboxAttachment},
        state::Leg,
    };
    use model::{
        IngressBackend, IngressTable, NetworkAllocation, NetworkEndpoint, NetworkId, NetworkService,
        NetworkTable, NodeId, ServiceId, TaskId,
    };

    const HOST: &str = "192.0.2.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(text: &str) -> (IpAddr, u16) {
        let address: std::net::SocketAddr = text.parse().unwrap();
        (address.ip(), address.port())
    }

    fn flow(protocol: u8, source: &str, destination: &str, answers: &str) -> Flow {
        let ((destination, destination_port), (answers, answers_port)) = (at(destination), at(answers));
        let source = ip(source);
        Flow {
            protocol,
            source,
            source_port: 9,
            destination,
            destination_port,
            answers,
            answers_port,
            answered: true,
        }
    }

    /// Node 1 of a swarm where 53/udp and 80/tcp lead to two tasks, one of them here; a container on a bridge with a
    /// host port; an overlay with a virtual address.
    fn state() -> State {
        let identity = NodeIdentity {
            node: NodeId(1),
            index: 1,
            data_addr: ip(HOST),
            data_port: 4789,
            mesh_subnet: "10.254.0.0/16".parse().unwrap(),
            task_pool: "10.255.0.0/16".parse().unwrap(),
        };
        let mut state = State { identity: Some(identity), ..State::default() };
        let backend = |node: u128, address: &str| IngressBackend {
            task: TaskId(node),
            node: NodeId(node),
            address: ip(address),
            port: 5,
        };
        let both = vec![backend(1, "10.255.1.7"), backend(2, "10.255.2.7")];
        state.put_ingress(IngressTable {
            ports: [((Protocol::Udp, 53), both.clone()), ((Protocol::Tcp, 80), both)].into(),
            ..IngressTable::default()
        });
        let endpoint = |address: &str, ready| NetworkEndpoint {
            address: ip(address),
            node: NodeId(2),
            vtep: ip("192.0.2.2"),
            service: ServiceId(1),
            names: vec![],
            ready,
            lost: false,
        };
        state.put_table(NetworkTable {
            network: NetworkId(1),
            name: "back".into(),
            version: 1,
            allocation: NetworkAllocation {
                vni: 4097,
                subnet: "10.0.1.0/24".parse().unwrap(),
                gateway: ip("10.0.1.1"),
            },
            internal: false,
            mtu_bytes: 1450,
            endpoints: [
                (TaskId(1), endpoint("10.0.1.11", true)),
                (TaskId(2), endpoint("10.0.1.12", true)),
                (TaskId(3), endpoint("10.0.1.13", false)),
            ]
            .into(),
            services: [(
                ServiceId(1),
                NetworkService { name: "web".into(), vip: Some(ip("10.0.1.200")), aliases: vec![] },
            )]
            .into(),
        });
        let bridge = BridgeSpec {
            id: "b".into(),
            name: "b".into(),
            subnet: "10.9.0.0/24".parse().unwrap(),
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
        let planned = state.plan_bridge(bridge).unwrap();
        state.bridges.insert("b".into(), planned);
        let overlay = SandboxAttachment::Overlay {
            network: NetworkId(1),
            task: TaskId(1),
            address: "10.0.1.11/24".parse().unwrap(),
            aliases: vec![],
        };
        let bridged = SandboxAttachment::Bridge {
            network: "b".into(),
            address: None,
            address6: None,
            mac: None::<Mac>,
            names: vec![],
            options: LegOptions::default(),
        };
        let leg = |attachment: &SandboxAttachment, address: &str| Leg {
            number: 0,
            attachment: attachment.clone(),
            address: address.parse().unwrap(),
            prefix: 24,
            address6: None,
        };
        let port =
            PortBinding { protocol: Protocol::Udp, host_ip: None, host_port: Some(99), container_port: 9 };
        let sandbox = |id: &str, gateway: Option<&str>, ports, leg: Leg| Sandbox {
            spec: SandboxSpec {
                id: id.into(),
                hostname: String::new(),
                attachments: vec![leg.attachment.clone()],
                gateway: gateway.map(|address| Gateway { address: ip(address) }),
                ports,
                dns: DnsOptions::default(),
                sysctls: vec![],
            },
            legs: vec![leg],
            dns_port: 0,
        };
        let task = sandbox("t", Some("10.255.1.7"), vec![], leg(&overlay, "10.0.1.11"));
        let container = sandbox("c", None, vec![port], leg(&bridged, "10.9.0.2"));
        state.sandboxes = [("t".to_owned(), task), ("c".to_owned(), container)].into();
        state
    }

    #[track_caller]
    fn check(ways: &Ways, cases: &[(u8, &str, &str, &str, bool)]) {
        for (protocol, source, destination, answers, outdated) in cases {
            let flow = flow(*protocol, source, destination, answers);
            assert_eq!(ways.outdated(&flow), *outdated, "{flow:?}");
        }
    }

    #[test]
    fn on_the_host_a_flow_is_outdated_that_goes_elsewhere_than_a_new_one_would() {
        let ways = Ways::of_host(&state(), [ip(HOST), ip("fd00::1"), ip("::1")].into());
        let outside = "203.0.113.9";
        check(
            &ways,
            &[
                (UDP, outside, "192.0.2.1:53", "10.255.2.7:5", false),
                (UDP, outside, "192.0.2.1:53", "10.255.2.8:5", true),
                (UDP, outside, "192.0.2.1:53", "10.255.2.7:6", true),
                // It began before the port was there.
                (UDP, outside, "192.0.2.1:53", "192.0.2.1:53", true),
                (UDP, "127.0.0.1", "127.0.0.1:53", "127.0.0.1:53", true),
                (UDP, "10.9.0.2", "192.0.2.1:99", "10.9.0.2:9", false),
                (UDP, outside, "192.0.2.1:99", "10.9.0.3:9", true),
                // A port that nothing of ours has: a program of the host, and one that was published once.
                (UDP, outside, "192.0.2.1:54", "192.0.2.1:54", false),
                (UDP, outside, "192.0.2.1:54", "10.255.2.7:5", true),
                // Somebody else's translation.
                (UDP, outside, "192.0.2.1:54", "172.17.0.2:54", false),
                // The same port of another machine.
                (UDP, "10.9.0.2", "198.51.100.1:53", "198.51.100.1:53", false),
                (UDP, "fd00::2", "[fd00::1]:53", "[fd00::1]:53", false),
                // Connections stay with a backend that takes no new ones, while there is somebody.
                (TCP, outside, "192.0.2.1:80", "10.255.2.8:5", false),
                (TCP, outside, "192.0.2.1:80", "10.255.1.7:5", false),
                (TCP, outside, "192.0.2.1:80", "10.255.1.8:5", true),
                (TCP, outside, "10.255.1.8:5", "10.255.1.8:5", true),
                (TCP, "10.9.0.77", "198.51.100.1:80", "198.51.100.1:80", true),
                (TCP, "10.9.0.2", "198.51.100.1:80", "198.51.100.1:80", false),
                (TCP, "10.9.0.1", "10.9.0.2:80", "10.9.0.2:80", false),
            ],
        );
    }

    #[test]
    fn a_connection_that_nobody_has_answered_is_judged_as_a_new_one() {
        let ways = Ways::of_host(&state(), [ip(HOST)].into());
        for (to, answers, outdated) in [
            ("192.0.2.1:80", "10.255.2.8:5", true),
            ("192.0.2.1:80", "10.255.2.7:5", false),
            // Not ours to lead.
            ("198.51.100.1:80", "198.51.100.1:80", false),
            ("192.0.2.1:22", "192.0.2.1:22", false),
        ] {
            let asked = Flow { answered: false, ..flow(TCP, "203.0.113.9", to, answers) };
            assert_eq!(ways.outdated(&asked), outdated, "{to} by {answers}");
        }
    }

    #[test]
    fn what_is_open_with_a_node_that_was_given_up_is_over() {
        let mut state = state();
        let node = |index: u16| model::MeshNode { index, vtep: ip("192.0.2.9") };
        let mesh = IngressTable {
            nodes: [(NodeId(1), node(1)), (NodeId(2), node(2)), (NodeId(3), node(3))].into(),
            // Of itself a node that is back may hear it, too.
            lost: [NodeId(1), NodeId(2)].into(),
            ..state.ingress.clone()
        };
        state.put_ingress(mesh);
        let ways = Ways::of_host(&state, [ip(HOST)].into());
        let outside = "203.0.113.9";
        check(
            &ways,
            &[
                (TCP, outside, "192.0.2.1:80", "10.255.2.7:5", true),
                (TCP, outside, "192.0.2.1:80", "10.255.3.7:5", false),
                (TCP, outside, "192.0.2.1:80", "10.255.1.7:5", false),
                // Of a node that the mesh does not have.
                (TCP, outside, "192.0.2.1:80", "10.255.4.7:5", true),
            ],
        );
        let mut table = state.tables[&NetworkId(1)].table.clone();
        table.endpoints.get_mut(&TaskId(2)).unwrap().lost = true;
        state.put_table(table);
        let ways = Ways::of_sandbox(&state, &state.sandboxes["t"]);
        check(
            &ways,
            &[
                (TCP, "10.0.1.11", "10.0.1.200:80", "10.0.1.12:80", true),
                (TCP, "10.0.1.12", "10.0.1.11:80", "10.0.1.11:80", true),
                (TCP, "10.0.1.11", "10.0.1.200:80", "10.0.1.13:80", false),
            ],
        );
    }

    #[test]
    fn a_port_that_a_program_of_the_host_has_is_not_ours_to_lead() {
        let mut state = state();
        state.withheld.insert((Protocol::Udp, 53));
        let ways = Ways::of_host(&state, [ip(HOST)].into());
        check(
            &ways,
            &[
                (UDP, "203.0.113.9", "192.0.2.1:53", "192.0.2.1:53", false),
                (UDP, "203.0.113.9", "192.0.2.1:53", "10.255.2.7:5", true),
            ],
        );
    }

    #[test]
    fn in_a_sandbox_a_flow_is_outdated_whose_virtual_address_leads_elsewhere() {
        let state = state();
        let ways = Ways::of_sandbox(&state, &state.sandboxes["t"]);
        let own = "10.0.1.11";
        check(
            &ways,
            &[
                (UDP, own, "10.0.1.200:53", "10.0.1.12:53", false),
                (UDP, own, "10.0.1.200:53", "10.0.1.11:53", false),
                // Not ready, not there, and from before the address was one.
                (UDP, own, "10.0.1.200:53", "10.0.1.13:53", true),
                (UDP, own, "10.0.1.200:53", "10.0.1.14:53", true),
                (UDP, own, "10.0.1.200:53", "10.0.1.200:53", true),
                (UDP, own, "10.0.1.13:53", "10.0.1.13:53", false),
                (UDP, "127.0.0.1", "127.0.0.11:53", "127.0.0.11:40000", false),
                (UDP, own, "8.8.8.8:53", "8.8.8.8:53", false),
                (TCP, own, "10.0.1.200:80", "10.0.1.13:80", false),
                (TCP, own, "10.0.1.200:80", "10.0.1.14:80", true),
                (TCP, "10.0.1.14", "10.0.1.11:80", "10.0.1.11:80", true),
            ],
        );
    }
}
