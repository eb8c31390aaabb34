//! IPv6 on local bridge networks: addresses, the way out, published ports, names, adoption.

use crate::{by_hand, lab::*};
use ::network::*;

/// The client's address on the switch, and that of something behind it.
const CLIENT: &str = "fd77::100";
const OUTSIDE6: &str = "fd99::1";

/// A lab whose host 1 and client have IPv6, too.
pub(crate) fn dual_stack() -> Lab {
    let lab = Lab::new(1);
    for (name, address) in [("h1", "fd77::11"), ("client", CLIENT)] {
        by_hand::add_address(&lab.netns(name), "eth0", &format!("{address}/64"));
    }
    by_hand::add_address(&lab.client(), "lo", &format!("{OUTSIDE6}/128"));
    by_hand::add_route(&lab.host(1), &format!("{OUTSIDE6}/128"), CLIENT);
    lab
}

pub(crate) fn bridge6(id: &str, subnet: &str, subnet6: &str) -> BridgeSpec {
    let subnet6 = subnet6.parse().expect("an IPv6 network");
    BridgeSpec {
        ipv6: Some(BridgeIpv6 { subnet: subnet6, gateway: None, ip_range: None }),
        ..bridge(id, subnet)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_an_ipv6_address_a_way_out_and_neighbours() {
    let lab = dual_stack();
    let network = lab.start(1).await;
    let made = network.create_bridge(bridge6("b1", "10.71.0.0/24", "fd71::/64")).await.unwrap();
    assert_eq!(made.gateway6.unwrap().to_string(), "fd71::1");
    let one = network.create_sandbox(bridge_sandbox("c1", &["b1"])).await.unwrap();
    let two = network.create_sandbox(bridge_sandbox("c2", &["b1"])).await.unwrap();
    assert_eq!(one.interfaces[0].address6.unwrap().to_string(), "fd71::2/64");
    assert_eq!(one.interfaces[0].gateway6, made.gateway6);

    let _outside = Server::start(&lab.client(), "outside", 7000);
    assert_eq!(greet(&one.netns_path, &format!("[{OUTSIDE6}]:7000")), "outside fd77::11", "masqueraded");
    let _server = Server::start(&one.netns_path, "one", 80);
    assert_eq!(greet(&two.netns_path, "[fd71::2]:80"), "one fd71::3");
    assert_eq!(resolve(&two.netns_path, "c1", "AAAA"), (0, vec!["fd71::2".into()]));
    assert_eq!(resolve(&two.netns_path, "c1", "A"), (0, vec!["10.71.0.2".into()]));
    assert!(unreachable(&lab.client(), "[fd71::2]:80"), "not published");
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_leads_in_by_ipv6_too() {
    let lab = dual_stack();
    let network = lab.start(1).await;
    network.create_bridge(bridge6("b1", "10.72.0.0/24", "fd72::/64")).await.unwrap();
    network.create_bridge(bridge("b4", "10.73.0.0/24")).await.unwrap();
    let on_one = PortBinding { host_ip: Some("fd77::11".parse().unwrap()), ..tcp_port(Some(8081), 80) };
    let ports = vec![tcp_port(Some(8080), 80), on_one.clone()];
    let web = SandboxSpec { ports, ..bridge_sandbox("c1", &["b1"]) };
    let web = network.create_sandbox(web).await.unwrap();
    let other = network.create_sandbox(bridge_sandbox("c2", &["b1"])).await.unwrap();
    let _server = Server::start(&web.netns_path, "web", 80);

    assert_eq!(greet(&lab.client(), "[fd77::11]:8080"), "web fd77::100", "keeps the client's address");
    assert_eq!(greet(&lab.client(), "192.168.77.11:8080"), "web 192.168.77.100");
    assert!(refused_at_once(&lab.host(1), "[::1]:8080"), "who asks for localhost goes on to 127.0.0.1");
    assert_eq!(greet(&lab.client(), "[fd77::11]:8081"), "web fd77::100", "bound to one address");
    assert!(unreachable(&lab.client(), "192.168.77.11:8081"), "bound to one address");
    assert!(greet(&lab.host(1), "[fd77::11]:8080").starts_with("web "), "the host's own address");
    assert!(greet(&other.netns_path, "[fd77::11]:8080").starts_with("web "), "a neighbour");
    assert!(greet(&web.netns_path, "[fd77::11]:8080").starts_with("web "), "hairpin");

    let behind_ipv4 = SandboxSpec { ports: vec![on_one], ..bridge_sandbox("c3", &["b4"]) };
    let refused = network.create_sandbox(behind_ipv4).await.unwrap_err();
    assert!(matches!(refused, Error::NoIpv6Behind { port: 8081, .. }), "{refused}");
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_of_a_container_on_two_bridges_leads_in_from_either_by_ipv6() {
    let lab = dual_stack();
    let network = lab.start(1).await;
    network.create_bridge(bridge6("b1", "10.72.1.0/24", "fd72:1::/64")).await.unwrap();
    network.create_bridge(bridge6("b2", "10.72.2.0/24", "fd72:2::/64")).await.unwrap();
    let spec = SandboxSpec { ports: vec![tcp_port(Some(8080), 80)], ..bridge_sandbox("both", &["b1", "b2"]) };
    let both = network.create_sandbox(spec).await.unwrap();
    let two = network.create_sandbox(bridge_sandbox("two", &["b2"])).await.unwrap();
    let _server = Server::start(&both.netns_path, "both", 80);
    for gate in ["[fd72:1::1]:8080", "[fd72:2::1]:8080", "[fd77::11]:8080"] {
        assert!(greet(&lab.host(1), gate).starts_with("both "), "the host itself, by {gate}");
        assert!(greet(&two.netns_path, gate).starts_with("both "), "a neighbour on b2, by {gate}");
    }
    assert_eq!(greet(&lab.client(), "[fd77::11]:8080"), "both fd77::100", "keeps the client's address");
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_adopts_ipv6_and_mends_it() {
    let lab = dual_stack();
    let network = lab.start(1).await;
    network.create_bridge(bridge6("b1", "10.74.0.0/24", "fd74::/64")).await.unwrap();
    let web = SandboxSpec { ports: vec![tcp_port(Some(8080), 80)], ..bridge_sandbox("c1", &["b1"]) };
    let web = network.create_sandbox(web).await.unwrap();
    let _server = Server::start(&web.netns_path, "web", 80);
    let mut talk = Talk::open(&lab.client(), "[fd77::11]:8080").unwrap();
    network.shutdown().await;

    let network = lab.start(1).await;
    assert_eq!(talk.ask("still there?").unwrap(), "web");
    assert_eq!(network.audit_now().await.unwrap(), AuditReport::default());
    let link = network.bridges().await.unwrap()[0].interface.clone();
    by_hand::delete_address(&lab.host(1), &link, "fd74::1/64");
    let report = network.audit_now().await.unwrap();
    assert_eq!(report.repairs.len(), 1, "{report:?}");
    assert_eq!(greet(&lab.client(), "[fd77::11]:8080"), "web fd77::100");
    network.destroy().await.unwrap();
}
