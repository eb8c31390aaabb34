//! The mesh: published ports on every host, the client's address, host-mode ports, the way out.

use crate::{by_hand, lab::*};
use ::network::*;
use std::collections::BTreeSet;

fn routed(id: &str, host: u8, last: u8) -> SandboxSpec {
    task_sandbox(id, host, last, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_leads_to_every_task_and_tasks_see_the_client() {
    let lab = Lab::new(3);
    let hosts = [lab.node(1).await, lab.node(2).await, lab.node(3).await];
    // A common default of distributions, and the strictest.
    for host in 1..=3 {
        for which in ["all", "eth0"] {
            by_hand::set_sysctl(&lab.host(host), &format!("net.ipv4.conf.{which}.rp_filter"), "1");
        }
    }
    let table = ingress(1, 3, &[(2, 5), (3, 5), (3, 6)]);
    for host in &hosts {
        host.apply_ingress(table.clone()).await.unwrap();
    }
    let mut servers = Vec::new();
    for (host, last) in [(2u8, 5), (3, 5), (3, 6)] {
        let name = format!("t{host}{last}");
        let made = hosts[usize::from(host) - 1].create_sandbox(routed(&name, host, last)).await.unwrap();
        servers.push(Server::start(&made.netns_path, &name, 80));
    }
    let lonely = hosts[0].create_sandbox(routed("t19", 1, 9)).await.unwrap();

    for host in 1..=3 {
        let greetings: BTreeSet<String> =
            (0..30).map(|_| greet(&lab.client(), &format!("192.168.77.1{host}:8080"))).collect();
        let wanted = ["t25", "t35", "t36"].map(|t| format!("{t} 192.168.77.100"));
        assert_eq!(greetings, BTreeSet::from(wanted), "through host {host}");
    }
    assert!(greet(&lab.host(1), "192.168.77.11:8080").starts_with('t'), "a host to its own address");
    assert!(greet(&lab.host(1), "127.0.0.1:8080").starts_with('t'), "loopback");
    for _ in 0..8 {
        assert!(greet(&lab.host(2), "192.168.77.11:8080").starts_with('t'), "also back to a task of its own");
        let own = greet(&lab.pinned(3, "t35"), "10.255.3.1:8080");
        assert!(own.starts_with('t'), "a task to its own host, also to itself");
    }
    assert!(greet(&lonely.netns_path, "192.168.77.12:8080").starts_with('t'), "a task to another host");

    assert!(unreachable(&lonely.netns_path, "10.255.3.5:80"), "tasks do not see each other on this plane");
    assert!(unreachable(&lab.pinned(3, "t35"), "10.255.3.6:80"));
    let _outside = Server::start(&lab.client(), "outside", 7000);
    assert_eq!(greet(&lab.pinned(3, "t35"), &format!("{OUTSIDE}:7000")), "outside 192.168.77.13");

    // One backend leaves while clients are connected through another host.
    let mut open: Vec<Talk> =
        (0..12).map(|_| Talk::open(&lab.client(), "192.168.77.11:8080").unwrap()).collect();
    let less = ingress(2, 3, &[(3, 5), (3, 6)]);
    for host in &hosts {
        host.apply_ingress(less.clone()).await.unwrap();
    }
    for talk in &mut open {
        let first = talk.greeting.split(' ').next().unwrap().to_owned();
        assert_eq!(talk.ask("again").unwrap(), first);
    }
    for _ in 0..12 {
        assert!(!greet(&lab.client(), "192.168.77.11:8080").starts_with("t25"));
    }
    for host in hosts {
        host.destroy().await.unwrap();
    }
}

/// Returns three hosts whose port 8080 leads to `t35`, a task on the third, and what answers there.
async fn one_task_for_three_hosts(lab: &Lab) -> ([Network; 3], Server) {
    let hosts = [lab.node(1).await, lab.node(2).await, lab.node(3).await];
    for host in &hosts {
        host.apply_ingress(ingress(1, 3, &[(3, 5)])).await.unwrap();
    }
    let task = hosts[2].create_sandbox(routed("t35", 3, 5)).await.unwrap();
    let server = Server::start(&task.netns_path, "t35", 80);
    (hosts, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_of_a_client_may_be_on_every_host_at_once() {
    let lab = Lab::new(3);
    let (hosts, _server) = one_task_for_three_hosts(&lab).await;

    // The one task sees all of it from one address; by two of the ways it comes from the same host.
    let mut talks: Vec<Talk> = [1, 2, 3]
        .map(|host| Talk::open_from(&lab.client(), 40_000, &format!("192.168.77.1{host}:8080")))
        .map(|talk| talk.expect("it is answered"))
        .into();
    for talk in &mut talks {
        assert_eq!(talk.greeting, "t35 192.168.77.100");
        assert_eq!(talk.ask("again").unwrap(), "t35");
    }
    for host in hosts {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_flow_by_one_host_does_not_swallow_the_same_by_another() {
    let lab = Lab::new(3);
    let (hosts, _server) = one_task_for_three_hosts(&lab).await;

    let before = Talk::open_from(&lab.client(), 40_000, "192.168.77.11:8080").expect("it is answered");
    lab.unplug(1);
    // Nobody there hears of its end.
    drop(before);
    let now = Talk::open_from(&lab.client(), 40_000, "192.168.77.12:8080").expect("it is answered");
    assert_eq!(now.greeting, "t35 192.168.77.100");
    for host in hosts {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_mode_port_leads_to_its_task_only() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let spec = SandboxSpec { ports: vec![tcp_port(Some(9000), 80)], ..routed("web", 1, 5) };
    let web = one.create_sandbox(spec).await.unwrap();
    let _server = Server::start(&web.netns_path, "web", 80);
    assert_eq!(greet(&lab.client(), "192.168.77.11:9000"), "web 192.168.77.100");
    assert!(refused_at_once(&lab.client(), "192.168.77.12:9000"));
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_container_reaches_a_published_service_of_another_host() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    for host in [&one, &two] {
        host.apply_ingress(ingress(1, 2, &[(2, 5)])).await.unwrap();
    }
    let task = two.create_sandbox(routed("t25", 2, 5)).await.unwrap();
    let _server = Server::start(&task.netns_path, "t25", 80);
    one.create_bridge(bridge("b1", "10.74.0.0/24")).await.unwrap();
    let local = one.create_sandbox(bridge_sandbox("c1", &["b1"])).await.unwrap();
    assert_eq!(greet(&local.netns_path, "192.168.77.11:8080"), "t25 10.254.0.1");
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}
