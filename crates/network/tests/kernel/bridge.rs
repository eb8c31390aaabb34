//! Local bridge networks: the way out, published ports, names, isolation, adoption.

use crate::{by_hand, lab::*};
use ::network::*;
use std::{net::Ipv4Addr, path::Path};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_outside_masqueraded_and_resolves_foreign_names() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    let made = network.create_bridge(bridge("b1", "10.71.0.0/24")).await.unwrap();
    assert_eq!(made.gateway, Ipv4Addr::new(10, 71, 0, 1));
    let info = network.create_sandbox(bridge_sandbox("c1", &["b1"])).await.unwrap();
    assert_eq!(info.interfaces[0].address.to_string(), "10.71.0.2/24");

    let _server = Server::start(&lab.client(), "outside", 7000);
    assert_eq!(greet(&info.netns_path, &format!("{OUTSIDE}:7000")), "outside 192.168.77.11");
    outside_name_server(&lab.client());
    assert_eq!(resolve(&info.netns_path, "example.org", "A"), (0, vec!["203.0.113.7".into()]));
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_leads_in_from_everywhere() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(bridge("b1", "10.72.0.0/24")).await.unwrap();
    let spec = SandboxSpec {
        ports: vec![tcp_port(Some(8080), 80), tcp_port(None, 80)],
        ..bridge_sandbox("c1", &["b1"])
    };
    let web = network.create_sandbox(spec).await.unwrap();
    let other = network.create_sandbox(bridge_sandbox("c2", &["b1"])).await.unwrap();
    let _server = Server::start(&web.netns_path, "web", 80);

    let chosen = web.ports[1].host_port.unwrap();
    assert_eq!(
        greet(&lab.client(), "192.168.77.11:8080"),
        "web 192.168.77.100",
        "keeps the client's address"
    );
    assert_eq!(greet(&lab.client(), &format!("192.168.77.11:{chosen}")), "web 192.168.77.100");
    assert!(greet(&lab.host(1), "127.0.0.1:8080").starts_with("web "), "localhost");
    assert!(greet(&lab.host(1), "192.168.77.11:8080").starts_with("web "), "the host's own address");
    assert!(greet(&other.netns_path, "192.168.77.11:8080").starts_with("web "), "a neighbour");
    assert!(greet(&web.netns_path, "192.168.77.11:8080").starts_with("web "), "hairpin");
    assert_eq!(greet(&other.netns_path, "10.72.0.2:80"), "web 10.72.0.3", "neighbours talk directly");

    let clash = SandboxSpec { ports: vec![tcp_port(Some(8080), 1)], ..bridge_sandbox("c3", &["b1"]) };
    let refused = network.create_sandbox(clash).await.unwrap_err();
    assert_eq!(refused.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
    assert_eq!(network.sandboxes().await.unwrap().len(), 2, "a refused sandbox leaves nothing");

    network.remove_sandbox("c1").await.unwrap();
    assert!(unreachable(&lab.client(), "192.168.77.11:8080"));
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_of_a_container_on_two_bridges_leads_in_from_either() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(bridge("b1", "10.75.1.0/24")).await.unwrap();
    network.create_bridge(bridge("b2", "10.75.2.0/24")).await.unwrap();
    let spec = SandboxSpec { ports: vec![tcp_port(Some(8080), 80)], ..bridge_sandbox("both", &["b1", "b2"]) };
    let both = network.create_sandbox(spec).await.unwrap();
    let one = network.create_sandbox(bridge_sandbox("one", &["b1"])).await.unwrap();
    let two = network.create_sandbox(bridge_sandbox("two", &["b2"])).await.unwrap();
    let _server = Server::start(&both.netns_path, "both", 80);

    // It has a way of its own to each of them: the answer must not take it.
    for gate in ["10.75.1.1:8080", "10.75.2.1:8080", "192.168.77.11:8080"] {
        assert!(greet(&lab.host(1), gate).starts_with("both "), "the host itself, by {gate}");
        assert!(greet(&one.netns_path, gate).starts_with("both "), "a neighbour on b1, by {gate}");
        assert!(greet(&two.netns_path, gate).starts_with("both "), "a neighbour on b2, by {gate}");
        assert!(greet(&both.netns_path, gate).starts_with("both "), "hairpin, by {gate}");
    }
    assert_eq!(
        greet(&lab.client(), "192.168.77.11:8080"),
        "both 192.168.77.100",
        "keeps the client's address"
    );
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bridges_are_isolated_and_names_are_answered_within_them() {
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(bridge("b1", "10.73.1.0/24")).await.unwrap();
    network.create_bridge(BridgeSpec { internal: true, ..bridge("b2", "10.73.2.0/24") }).await.unwrap();
    let one = network.create_sandbox(bridge_sandbox("one", &["b1"])).await.unwrap();
    let two = network.create_sandbox(bridge_sandbox("two", &["b2"])).await.unwrap();
    let both = network.create_sandbox(bridge_sandbox("both", &["b1", "b2"])).await.unwrap();
    let _one = Server::start(&one.netns_path, "one", 80);
    let _two = Server::start(&two.netns_path, "two", 80);
    let _outside = Server::start(&lab.client(), "outside", 7000);
    outside_name_server(&lab.client());

    assert!(unreachable(&two.netns_path, "10.73.1.2:80"));
    assert!(unreachable(&one.netns_path, "10.73.2.2:80"));
    assert!(unreachable(&two.netns_path, &format!("{OUTSIDE}:7000")), "internal");
    assert!(unreachable(&lab.client(), "10.73.1.2:80"), "not published");
    assert_eq!(greet(&both.netns_path, "10.73.1.2:80"), "one 10.73.1.3");
    assert_eq!(greet(&both.netns_path, "10.73.2.2:80"), "two 10.73.2.3");

    assert_eq!(resolve(&both.netns_path, "one", "A"), (0, vec!["10.73.1.2".into()]));
    assert_eq!(resolve(&both.netns_path, "TWO.b2-net", "A"), (0, vec!["10.73.2.2".into()]));
    assert_eq!(resolve(&both.netns_path, "one", "AAAA"), (0, vec![]));
    assert_eq!(resolve_tcp(&one.netns_path, "both", "A"), (0, vec!["10.73.1.3".into()]));
    assert_eq!(resolve(&one.netns_path, "3.1.73.10.in-addr.arpa", "PTR"), (0, vec!["both.b1-net.".into()]));

    // What a name says must not leave an internal network either.
    let (answered, refused) = ((0, vec!["203.0.113.7".to_owned()]), (2, vec![]));
    assert_eq!(resolve(&both.netns_path, "secret.example.com", "A"), answered);
    assert_eq!(resolve(&two.netns_path, "secret.example.com", "A"), refused);
    assert_eq!(resolve_tcp(&two.netns_path, "secret.example.com", "A"), refused);
    network.connect("two", bridge_sandbox("two", &["b1"]).attachments.remove(0)).await.unwrap();
    assert_eq!(resolve(&two.netns_path, "secret.example.com", "A"), answered);
    network.disconnect("two", "b1").await.unwrap();
    assert_eq!(resolve(&two.netns_path, "secret.example.com", "A"), refused);

    network.connect("one", bridge_sandbox("one", &["b2"]).attachments.remove(0)).await.unwrap();
    assert_eq!(greet(&one.netns_path, "10.73.2.2:80"), "two 10.73.2.4");
    network.disconnect("one", "b2").await.unwrap();
    assert!(unreachable(&one.netns_path, "10.73.2.2:80"));
    assert!(network.remove_bridge("b1").await.is_err(), "in use");
    network.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_was_made_before_becomes_the_sandbox_and_goes_with_it() {
    use std::{fs, os::unix::fs::MetadataExt as _};
    let lab = Lab::new(1);
    let network = lab.start(1).await;
    network.create_bridge(bridge("b1", "10.79.0.0/24")).await.unwrap();
    let fresh = || {
        let made = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests need root");
            fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        made.join().unwrap()
    };
    let made = fresh();
    let inode = made.metadata().unwrap().ino();
    let info = network.create_sandbox_in(bridge_sandbox("c1", &["b1"]), made.into()).await.unwrap();
    assert_eq!(fs::metadata(&info.netns_path).unwrap().ino(), inode);
    assert_eq!(ipv4_of_eth0(&info.netns_path), ["10.79.0.2/24"]);
    let again = network.create_sandbox(bridge_sandbox("c1", &["b1"])).await.unwrap();
    assert_eq!(fs::metadata(&again.netns_path).unwrap().ino(), inode);
    let other = fresh();
    let inode = other.metadata().unwrap().ino();
    let info = network.create_sandbox_in(bridge_sandbox("c1", &["b1"]), other.into()).await.unwrap();
    assert_eq!(fs::metadata(&info.netns_path).unwrap().ino(), inode, "a new one is a new one");
    assert_eq!(ipv4_of_eth0(&info.netns_path), [info.interfaces[0].address.to_string()]);
    network.remove_sandbox("c1").await.unwrap();
    assert!(!info.netns_path.exists());
    network.destroy().await.unwrap();
}

fn ipv4_of_eth0(netns: &Path) -> Vec<String> {
    let addresses = by_hand::addresses_of(netns).into_iter();
    let of_eth0 = addresses.filter(|one| one.link == "eth0" && one.address.is_ipv4());
    of_eth0.map(|one| format!("{}/{}", one.address, one.prefix)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_reaches_by_itself_is_told_and_nothing_of_ours() {
    let lab = Lab::new(1);
    by_hand::add_route(&lab.host(1), "10.33.0.0/16", "192.168.77.100");
    by_hand::add_address(&lab.host(1), "lo", "10.44.0.1/32");
    let one = lab.node(1).await;
    one.apply_table(Overlay::new(1).task(1, 11, false).0).await.unwrap();
    one.create_bridge(bridge("b1", "10.72.0.0/24")).await.unwrap();
    one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    let texts = |nets: Vec<ipnet::IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        texts(one.foreign_networks().await.unwrap()),
        ["10.33.0.0/16", "192.168.77.0/24", "10.44.0.1/32", &format!("{OUTSIDE}/32")]
    );
    assert_eq!(texts(one.swarm_subnets().await.unwrap()), ["10.254.0.0/16", "10.255.0.0/16", "10.0.1.0/24"]);
    one.destroy().await.unwrap();
}
