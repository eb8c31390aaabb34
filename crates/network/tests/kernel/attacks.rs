//! Attackers: a container with raw sockets, a machine next door, and names that are somebody else's. Each attack is
//! also made once where the gate is taken away, so that it would be seen to work.

use crate::{
    by_hand::{self, Address, TABLE_LOCAL, mac_of},
    lab::*,
    nft::{self, Family, Verdict},
};
use ::network::*;
use ipnet::{IpNet, Ipv6Net};
use model::Protocol;
use rtnetlink::packet_route::neighbour::NeighbourState;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// Nobody's.
const OTHER_MAC: [u8; 6] = [0x02, 0x42, 0x0a, 0x49, 0x00, 0x04];
/// Where a default route leads.
const EVERYWHERE6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);

fn named(id: &str, subnet: &str, interface: &str) -> BridgeSpec {
    BridgeSpec { interface: Some(interface.into()), ..bridge(id, subnet) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_of_the_host_is_left_alone_whatever_a_network_is_called() {
    let lab = Lab::new(1);
    let host = lab.host(1);
    by_hand::add_bridge(&host, "lan0");
    by_hand::add_address(&host, "lan0", "10.8.8.1/24");
    by_hand::set_up(&host, "lan0");
    by_hand::add_macvlan(&host, "own0", "eth0");
    // A number on a link proves as little as its name.
    by_hand::set_group(&host, "own0", 29299);
    let look = || (of_ipv4(by_hand::addresses_of(&host)), by_hand::links_of(&host));
    let before = look();
    let network = lab.start(1).await;
    for (n, name) in ["eth0", "lan0", "own0"].iter().enumerate() {
        let refused = network.create_bridge(named("n", &format!("10.70.{n}.0/24"), name)).await.unwrap_err();
        assert!(matches!(&refused, Error::ForeignLink(link) if link == name), "{refused}");
        network.remove_bridge("n").await.unwrap();
    }
    for name in
        ["lo", "rs-ing", "g-0123", "v0-0123", "all", "default", "a/b", "", "..", "x y", "sixteen-letters-"]
    {
        let refused = network.create_bridge(named("n", "10.70.9.0/24", name)).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidInterface(_)), "{name}: {refused}");
    }
    network.create_bridge(named("one", "10.71.1.0/24", "shop0")).await.unwrap();
    let twice = network.create_bridge(named("two", "10.71.2.0/24", "shop0")).await.unwrap_err();
    assert!(matches!(twice, Error::InterfaceInUse { .. }), "{twice}");
    let macvlan = Macvlan { parent: "shop0".into(), mode: MacvlanMode::Bridge };
    let inside = BridgeSpec { macvlan: Some(macvlan), ..bridge("three", "10.71.3.0/24") };
    assert!(matches!(network.create_bridge(inside).await, Err(Error::OwnParent(_))));
    network.audit_now().await.unwrap();
    network.destroy().await.unwrap();
    assert_eq!(look(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_place_of_ours_meanwhile_is_not_taken_for_it() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(named("one", "10.71.1.0/24", "shop0")).await.unwrap();
    network.create_bridge(bridge("b1", "10.71.2.0/24")).await.unwrap();
    let host = lab.host(1);
    by_hand::delete_link(&host, "shop0");
    by_hand::add_bridge(&host, "shop0");
    by_hand::add_address(&host, "shop0", "10.8.8.1/24");
    let look = || (addresses_on(&host, "shop0"), by_hand::links_of(&host).remove("shop0"));
    let before = look();
    let report = network.audit_now().await.unwrap();
    assert!(report.errors.iter().any(|e| e.contains("shop0")), "{report:?}");
    let refused = network.create_sandbox(bridge_sandbox("c1", &["one"])).await.unwrap_err();
    assert!(model::with_causes(&refused).contains("shop0"), "{}", model::with_causes(&refused));
    network.create_sandbox(bridge_sandbox("c2", &["b1"])).await.unwrap();
    network.shutdown().await;
    let network = lab.start(1).await;
    network.remove_bridge("one").await.unwrap();
    network.destroy().await.unwrap();
    assert_eq!(look(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_addresses_and_routes_of_others_stay() {
    let lab = Lab::new(2);
    // What an administrator may have in the ranges that we use by default.
    let host = lab.host(1);
    by_hand::add_address(&host, "lo", "10.255.77.1/32");
    by_hand::add_route(&host, "10.255.2.0/24", "192.168.77.100");
    nft::add_table_of_somebody(&host, "mine");
    let to_next_door = || {
        let mut routes = by_hand::routes_of(&host);
        routes.retain(|route| route.to.to_string() == "10.255.2.0/24");
        routes
    };
    let look = || (nft::table_of(&host, Family::Inet), addresses_on(&host, "lo"), to_next_door());
    let before = look();
    assert!(before.0.is_some() && before.2.len() == 1, "{before:?}");
    let network = lab.start(1).await;
    let refused = network.create_bridge(bridge("b1", "10.71.2.0/24")).await.unwrap_err();
    assert!(matches!(&refused, Error::ForeignTable(table) if table == "inet rswarm"), "{refused}");
    network.audit_now().await.unwrap();
    assert_eq!(look(), before);

    nft::delete_table(&host, Family::Inet);
    network.join_swarm(identity(1)).await.unwrap();
    let refused = network.apply_ingress(ingress(1, 2, &[])).await.unwrap_err();
    assert!(model::with_causes(&refused).contains("10.255.2.0/24"), "{}", model::with_causes(&refused));
    network.destroy().await.unwrap();
    assert_eq!((addresses_on(&host, "lo"), to_next_door()), (before.1, before.2));
}

/// What the kernel gives itself, it gives when it likes.
fn of_ipv4(mut addresses: Vec<Address>) -> Vec<Address> {
    addresses.retain(|one| one.address.is_ipv4());
    addresses
}

fn addresses_on(netns: &Path, link: &str) -> Vec<Address> {
    let mut addresses = by_hand::addresses_of(netns);
    addresses.retain(|one| one.link == link);
    addresses
}

/// Two nodes of a swarm with one overlay task each, at 10.0.1.11 and 10.0.1.12.
async fn two_nodes(lab: &Lab) -> [Network; 2] {
    let nodes = [lab.node(1).await, lab.node(2).await];
    let table = Overlay::new(1).task(1, 11, false).task(2, 12, false);
    for node in &nodes {
        node.apply_table(table.0.clone()).await.unwrap();
        node.apply_ingress(ingress(1, 2, &[])).await.unwrap();
    }
    nodes[0].create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    nodes[1].create_sandbox(task_sandbox("b", 2, 12, &[1])).await.unwrap();
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnel_packets_are_taken_from_nodes_only() {
    let lab = Lab::new(2);
    let [one, two] = two_nodes(&lab).await;
    one.create_bridge(bridge("b1", "10.71.0.0/24")).await.unwrap();
    two.create_bridge(bridge("b2", "10.72.0.0/24")).await.unwrap();
    let local = one.create_sandbox(bridge_sandbox("local", &["b1"])).await.unwrap();
    let remote = two.create_sandbox(bridge_sandbox("remote", &["b2"])).await.unwrap();
    let (a, b) = (lab.pinned(1, "a"), lab.pinned(2, "b"));
    let ear = udp_ear(&a, 82);
    // A datagram from b's address, in a frame from b's MAC, in a tunnel packet of the network.
    let packet = |word: &str| {
        let [from, to] = [12, 11].map(|last| Ipv4Addr::new(10, 0, 1, last));
        let inner = ipv4_udp(from, to, 82, word.as_bytes());
        let frame = ethernet(mac_of(&a, "eth0"), mac_of(&b, "eth0"), 0x0800, &inner);
        let [_, high, middle, low] = 4097u32.to_be_bytes();
        [&[8, 0, 0, 0, high, middle, low, 0][..], &frame].concat()
    };
    let attack = |word: &str| {
        udp_send(&lab.client(), "192.168.77.11:4789", packet(word));
        udp_send(&local.netns_path, "10.71.0.1:4789", packet(word));
        udp_send(&local.netns_path, "192.168.77.11:4789", packet(word));
        // These leave their host with the address of a node on them.
        udp_send(&remote.netns_path, "192.168.77.11:4789", packet(word));
        udp_send(&b, "192.168.77.11:4789", packet(word));
        udp_send(&a, "10.255.1.1:4789", packet(word));
        udp_send(&a, "192.168.77.11:4789", packet(word));
        udp_send(&b, "10.254.0.1:4789", packet(word));
        for own in ["127.0.0.1", "192.168.77.11", "10.254.0.1"] {
            udp_send(&lab.host(1), &format!("{own}:4789"), packet(word));
        }
    };
    attack("forged");
    udp_send(&lab.host(2), "192.168.77.11:4789", packet("node"));
    assert_eq!(heard(&ear), "node");

    // Before there are peers, nobody is one.
    one.apply_ingress(ingress(2, 1, &[])).await.unwrap();
    let alone = Overlay::new(1).task(1, 11, false).next();
    one.apply_table(alone.0.clone()).await.unwrap();
    udp_send(&lab.host(2), "192.168.77.11:4789", packet("stranger"));
    let behind_it = udp_ear(&lab.host(1), 83);
    udp_send(&lab.host(2), "192.168.77.11:83", b"refused by now".into());
    assert_eq!(heard(&behind_it), "refused by now");
    nft::flush_chain(&lab.host(1), Family::Inet, "tunnel");
    attack("open");
    assert_eq!(heard(&ear), "open", "the attack itself works");
    for node in [one, two] {
        node.destroy().await.unwrap();
    }
    assert_eq!(nft::tables_of(&lab.host(1)), Vec::<String>::new());
}

/// The attacker tells `victim` that `claimed` is with it, then speaks to it in earnest: when that is through, the lie
/// would be, too.
struct Spoof<'a> {
    attacker: &'a std::path::Path,
    attacker_ip: Ipv4Addr,
    victim: &'a std::path::Path,
    victim_ip: Ipv4Addr,
    claimed: Ipv4Addr,
}

impl Spoof<'_> {
    fn victim_believes(&self, frame_from: [u8; 6], ear: &std::net::UdpSocket) -> bool {
        // A victim that takes back what it has learned, as soon as the kernel's clock has gone on.
        by_hand::set_sysctl(self.victim, "net.ipv4.neigh.eth0.locktime", "0");
        let known = || by_hand::neighbour_at(self.victim, self.claimed);
        eventually("the clock goes on", || known().filter(|entry| entry.age > 0));
        let own = mac_of(self.attacker, "eth0");
        let victim_mac = mac_of(self.victim, "eth0");
        let lie = arp_reply(own, self.claimed, (victim_mac, self.victim_ip));
        send_frame(self.attacker, "eth0", ethernet(victim_mac, frame_from, 0x0806, &lie));
        // Not its address, but its MAC; and neither.
        for from in [frame_from, [2, 0x42, 9, 9, 9, 9]] {
            let forged = ipv4_udp(self.claimed, self.victim_ip, 83, b"forged");
            send_frame(self.attacker, "eth0", ethernet(victim_mac, from, 0x0800, &forged));
        }
        let honest = ipv4_udp(self.attacker_ip, self.victim_ip, 83, b"honest");
        send_frame(self.attacker, "eth0", ethernet(victim_mac, own, 0x0800, &honest));
        let first = heard(ear);
        let believed = known().and_then(|entry| entry.mac) == Some(own);
        assert_eq!(believed, first == "forged", "frames and ARP are held alike");
        if believed {
            while heard(ear) != "honest" {}
        }
        believed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_pass_for_another_on_a_bridge() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(bridge("b1", "10.73.0.0/24")).await.unwrap();
    let mut paths = Vec::new();
    for id in ["attacker", "victim", "friend"] {
        paths.push(network.create_sandbox(bridge_sandbox(id, &["b1"])).await.unwrap().netns_path);
    }
    let _friend = Server::start(&paths[2], "friend", 80);
    let ear = udp_ear(&paths[1], 83);
    let ip = |last| Ipv4Addr::new(10, 73, 0, last);
    let lies = |claimed| Spoof {
        attacker: &paths[0],
        attacker_ip: ip(2),
        victim: &paths[1],
        victim_ip: ip(3),
        claimed,
    };
    let believed = |claimed: Ipv4Addr, from| {
        // So that there is an entry to be overwritten.
        by_hand::set_neighbour(&paths[1], "eth0", claimed, OTHER_MAC, NeighbourState::Stale);
        lies(claimed).victim_believes(from, &ear)
    };
    let own = mac_of(&paths[0], "eth0");
    for claimed in [ip(4), ip(1)] {
        assert!(!believed(claimed, own), "{claimed}");
        assert!(!believed(claimed, mac_of(&paths[2], "eth0")), "{claimed} in frames of the friend");
    }
    assert_eq!(greet(&paths[1], "10.73.0.4:80"), "friend 10.73.0.3");

    nft::delete_table(&lab.host(1), Family::Bridge);
    assert!(believed(ip(4), own), "the attack itself works");
    let report = network.audit_now().await.unwrap();
    assert!(!report.repairs.is_empty());
    by_hand::forget_neighbours(&paths[1], "eth0");
    assert!(!believed(ip(4), own), "locked again");

    // An address that a container gave itself is not its own.
    by_hand::add_address(&paths[0], "eth0", "10.73.0.99/24");
    assert!(unreachable(&paths[1], "10.73.0.99:80"));
    network.destroy().await.unwrap();
    assert_eq!(nft::tables_of(&lab.host(1)), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_pass_for_another_on_an_overlay_network() {
    let lab = Lab::new(1);
    let one = lab.node(1).await;
    let table = Overlay::new(1).task(1, 11, false).task(1, 12, false).task(1, 13, false);
    one.apply_table(table.0.clone()).await.unwrap();
    let mut paths = Vec::new();
    for last in [11, 12, 13] {
        let made = one.create_sandbox(task_sandbox(&format!("t{last}"), 1, last, &[1])).await.unwrap();
        paths.push(made.netns_path);
    }
    let ip = |last| Ipv4Addr::new(10, 0, 1, last);
    let ear = udp_ear(&paths[1], 83);
    let spoof = Spoof {
        attacker: &paths[0],
        attacker_ip: ip(11),
        victim: &paths[1],
        victim_ip: ip(12),
        claimed: ip(13),
    };
    let own = mac_of(&paths[0], "eth0");
    let believed = || {
        by_hand::set_neighbour(&paths[1], "eth0", ip(13), OTHER_MAC, NeighbourState::Stale);
        spoof.victim_believes(own, &ear)
    };
    assert!(!believed());
    nft::delete_table(&lab.pinned(1, "rswarm-data"), Family::Bridge);
    assert!(believed(), "the attack itself works");

    // The leg to the outside has one address, too.
    let ear = udp_ear(&lab.host(1), 84);
    let send = |from: Ipv4Addr, word: &str| {
        let packet = ipv4_udp(from, Ipv4Addr::new(10, 255, 1, 1), 84, word.as_bytes());
        let gateway = [0x0a, 0, 0, 0, 0xff, 0xff];
        send_frame(&paths[0], "ethg", ethernet(gateway, mac_of(&paths[0], "ethg"), 0x0800, &packet));
    };
    for from in [[10, 255, 1, 12], [127, 0, 0, 1], [192, 168, 77, 100], [192, 168, 77, 12]] {
        send(from.into(), "forged");
    }
    send(Ipv4Addr::new(10, 255, 1, 11), "honest");
    assert_eq!(heard(&ear), "honest");
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_pass_for_a_router_or_a_neighbour_of_ipv6() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(bridge("b1", "10.73.0.0/24")).await.unwrap();
    let subnet = "fd74::/64".parse().unwrap();
    let with_ipv6 = BridgeSpec {
        ipv6: Some(BridgeIpv6 { subnet, gateway: None, ip_range: None }),
        ..bridge("b2", "10.74.0.0/24")
    };
    let attacker = network.create_sandbox(bridge_sandbox("attacker", &["b1"])).await.unwrap().netns_path;
    let ear = udp_ear(&lab.host(1), 84);
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let advertise = |word: &str| {
        let own = mac_of(&attacker, "eth0");
        // Hop limit, flags, lifetime of half an hour, reachable and retransmission times.
        let packet =
            icmp6("fe80::bad".parse().unwrap(), all_nodes, 134, &[&[64, 0, 7, 8][..], &[0; 8]].concat());
        send_frame(&attacker, "eth0", ethernet([0x33, 0x33, 0, 0, 0, 1], own, 0x86dd, &packet));
        udp_send(&attacker, "10.73.0.1:84", word.into());
        assert_eq!(heard(&ear), word);
    };
    let routers = || -> Vec<_> {
        let defaults =
            by_hand::routes_of(&lab.host(1)).into_iter().filter(|route| route.to == IpNet::from(EVERYWHERE6));
        defaults.filter_map(|route| route.gateway).collect()
    };
    advertise("locked");
    assert_eq!(routers(), Vec::<IpAddr>::new());
    nft::delete_table(&lab.host(1), Family::Bridge);
    advertise("open");
    assert_eq!(routers(), ["fe80::bad".parse::<IpAddr>().unwrap()], "the attack itself works");

    network.create_bridge(with_ipv6).await.unwrap();
    let mut paths = Vec::new();
    for id in ["liar", "victim", "friend"] {
        paths.push(network.create_sandbox(bridge_sandbox(id, &["b2"])).await.unwrap().netns_path);
    }
    let _friend = Server::start(&paths[2], "friend", 80);
    assert_eq!(greet(&paths[1], "[fd74::4]:80"), "friend fd74::3");
    let (liar, victim) = (mac_of(&paths[0], "eth0"), mac_of(&paths[1], "eth0"));
    let ear = udp_ear(&paths[1], 85);
    let friend: Ipv6Addr = "fd74::4".parse().unwrap();
    let believed = |word: &str| {
        for from in ["fd74::2", "fd74::4"] {
            // Solicited, to override; target; the target's MAC as an option.
            let body = [&[0x60, 0, 0, 0][..], &friend.octets(), &[2, 1], &liar].concat();
            let packet = icmp6(from.parse().unwrap(), "fd74::3".parse().unwrap(), 136, &body);
            send_frame(&paths[0], "eth0", ethernet(victim, liar, 0x86dd, &packet));
        }
        udp_send(&paths[0], "10.74.0.3:85", word.into());
        assert_eq!(heard(&ear), word);
        by_hand::neighbour_at(&paths[1], friend).and_then(|entry| entry.mac) == Some(liar)
    };
    assert!(!believed("locked"));
    nft::delete_table(&lab.host(1), Family::Bridge);
    assert!(believed("open"), "the attack itself works");
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_leads_to_published_ports_and_to_nothing_of_the_host() {
    let lab = Lab::new(2);
    let [one, two] = two_nodes(&lab).await;
    for node in [&one, &two] {
        node.apply_ingress(ingress(2, 2, &[(1, 11)])).await.unwrap();
    }
    one.create_bridge(bridge("b1", "10.71.0.0/24")).await.unwrap();
    two.create_bridge(bridge("b2", "10.72.0.0/24")).await.unwrap();
    let (local, far) = (
        one.create_sandbox(bridge_sandbox("local", &["b1"])).await.unwrap(),
        two.create_sandbox(bridge_sandbox("far", &["b2"])).await.unwrap(),
    );
    let (a, b) = (lab.pinned(1, "a"), lab.pinned(2, "b"));
    let _host = Server::start(&lab.host(1), "host", 7000);
    let _task = Server::start(&a, "a", 80);
    for ours in ["10.254.0.1/32", "10.255.1.0/24", "10.255.2.0/24"] {
        by_hand::add_route(&lab.client(), ours, "192.168.77.11");
    }
    let _b = Server::start(&b, "b", 80);
    let (host2, client) = (lab.host(2), lab.client());
    let outside: [&Path; 5] = [&host2, &client, &b, &local.netns_path, &far.netns_path];
    let host_itself = outside.into_iter().chain([a.as_path()]).map(|from| (from, "10.254.0.1:7000"));
    let way_out = outside.into_iter().map(|from| (from, "10.255.1.1:7000"));
    let tasks = outside.into_iter().filter(|from| *from != host2).map(|from| (from, "10.255.1.11:80"));
    let far_tasks = outside.into_iter().filter(|from| *from != host2 && *from != b);
    let far_tasks = far_tasks.map(|from| (from, "10.255.2.12:80"));
    all_unreachable(host_itself.chain(way_out).chain(tasks).chain(far_tasks));
    assert_eq!(greet(&a, "10.255.1.1:7000"), "host 10.255.1.11", "a task's own way out");
    assert_eq!(greet(&lab.host(1), "10.254.0.1:7000"), "host 10.254.0.1");
    assert!(greet(&lab.client(), "192.168.77.12:8080").starts_with("a "));
    assert!(greet(&far.netns_path, "192.168.77.12:8080").starts_with("a "));
    assert!(greet(&lab.host(2), "127.0.0.1:8080").starts_with("a "));
    for node in [one, two] {
        node.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_published_on_loopback_answers_on_loopback_only() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(bridge("b1", "10.73.0.0/24")).await.unwrap();
    network.create_bridge(bridge("b2", "10.74.0.0/24")).await.unwrap();
    let on = |ip: [u8; 4], port| PortBinding { host_ip: Some(ip.into()), ..tcp_port(Some(port), 80) };
    let ports = vec![on([127, 0, 0, 1], 8081), on([127, 0, 0, 2], 8082), tcp_port(Some(8083), 80)];
    let web = network.create_sandbox(SandboxSpec { ports, ..bridge_sandbox("web", &["b1"]) }).await.unwrap();
    let beside = network.create_sandbox(bridge_sandbox("beside", &["b1"])).await.unwrap();
    let other = network.create_sandbox(bridge_sandbox("other", &["b2"])).await.unwrap();
    let _web = Server::start(&web.netns_path, "web", 80);
    // A neighbour for whom 127.0.0.0/8, and the container's address, are behind this host.
    let client = lab.client();
    by_hand::delete_routes(&client, |route| {
        route.table == TABLE_LOCAL && route.to.to_string() == "127.0.0.0/8"
    });
    by_hand::delete_address(&client, "lo", "127.0.0.1/8");
    by_hand::add_route_from(&client, "127.0.0.0/8", "192.168.77.11", Some("192.168.77.100"));
    by_hand::add_route(&client, "10.73.0.0/24", "192.168.77.11");
    by_hand::set_sysctl(&client, "net.ipv4.conf.eth0.route_localnet", "1");

    assert!(greet(&lab.host(1), "127.0.0.1:8081").starts_with("web "));
    assert!(greet(&lab.host(1), "127.0.0.2:8082").starts_with("web "));
    assert!(greet(&lab.client(), "192.168.77.11:8083").starts_with("web "));
    let from_next_door =
        ["127.0.0.1:8081", "127.0.0.2:8082", "127.0.0.1:8083", "10.73.0.2:80", "192.168.77.11:8081"];
    let from_inside = ["10.73.0.1:8081", "192.168.77.11:8081"];
    all_unreachable(
        from_next_door
            .map(|to| (client.as_path(), to))
            .into_iter()
            .chain(from_inside.map(|to| (beside.netns_path.as_path(), to)))
            .chain(from_inside.map(|to| (other.netns_path.as_path(), to))),
    );
    // All that comes is led to containers, whatever its destination.
    nft::flush_chain(&lab.host(1), Family::Inet, "pre_nat");
    nft::add_rule(&lab.host(1), "pre_nat", Verdict::Jump("lb"));
    assert!(greet(&lab.client(), "127.0.0.1:8081").starts_with("web "), "the attack itself works");
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_a_program_of_the_host_is_not_led_away_from_it() {
    let lab = Lab::new(2);
    let [one, two] = two_nodes(&lab).await;
    let _task = Server::start(&lab.pinned(2, "b"), "b", 80);
    let program = Server::start(&lab.host(1), "program", 8080);
    for node in [&one, &two] {
        node.apply_ingress(ingress(2, 2, &[(2, 12)])).await.unwrap();
    }
    assert!(greet(&lab.client(), "192.168.77.11:8080").starts_with("program "));
    assert!(greet(&lab.host(1), "127.0.0.1:8080").starts_with("program "));
    assert!(greet(&lab.client(), "192.168.77.12:8080").starts_with("b "), "the other node has it free");
    one.create_bridge(bridge("b1", "10.71.0.0/24")).await.unwrap();
    let publish = |ports: Vec<PortBinding>| SandboxSpec { ports, ..bridge_sandbox("c1", &["b1"]) };
    let refused = one.create_sandbox(publish(vec![tcp_port(Some(8080), 80)])).await.unwrap_err();
    let by = format!("rswarm itself, process {}", std::process::id());
    assert_eq!(
        refused.to_string(),
        format!("failed to bind host port 0.0.0.0:8080/tcp: address already in use by {by}")
    );
    let tunnels = PortBinding { protocol: Protocol::Udp, ..tcp_port(Some(4789), 80) };
    let refused = one.create_sandbox(publish(vec![tunnels])).await.unwrap_err();
    assert!(refused.to_string().ends_with("by the tunnels of the swarm"), "{refused}");

    drop(program);
    eventually("the swarm has the port", || {
        let netns = lab.host(1);
        let free = inside(&netns, || std::net::TcpListener::bind("0.0.0.0:8080").is_ok());
        free.then_some(())
    });
    one.audit_now().await.unwrap();
    assert!(greet(&lab.client(), "192.168.77.11:8080").starts_with("b "));
    let taken = inside(&lab.host(1), || std::net::TcpListener::bind("0.0.0.0:8080").map(drop));
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "held for the swarm now");
    one.apply_ingress(ingress(3, 2, &[])).await.unwrap();
    assert!(refused_at_once(&lab.client(), "192.168.77.11:8080"), "nobody waits in a socket of ours");
    for node in [one, two] {
        node.destroy().await.unwrap();
    }
}
