//! Overlay networks between hosts: reachability, virtual addresses, names, isolation.

use crate::{by_hand, lab::*};
use ::network::*;
use model::{NetworkId, NetworkService, NetworkTable, ServiceId, TaskId};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread")]
async fn tasks_on_two_hosts_reach_each_other_with_the_right_mtu() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let table = Overlay::new(1).task(1, 11, false).task(2, 12, false);
    for host in [&one, &two] {
        host.apply_table(table.0.clone()).await.unwrap();
    }
    let a = one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    let b = two.create_sandbox(task_sandbox("b", 2, 12, &[1])).await.unwrap();
    let _server = Server::start(&b.netns_path, "b", 80);
    assert_eq!(greet(&a.netns_path, "10.0.1.12:80"), "b 10.0.1.11");
    udp_server(&b.netns_path, 12);
    let client = udp_client(&a.netns_path, "10.0.1.12:82");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(&[0; 1450 - 28]).unwrap();
    assert_eq!(client.recv(&mut [0]).unwrap(), 1, "a full packet goes through unfragmented");
    assert_eq!(by_hand::links_of(&a.netns_path)["eth0"].mtu, 1450);
    assert!(unreachable(&a.netns_path, "10.0.1.99:80"));

    // A second task of the same host, a newer table, and the first one gone.
    let table = Overlay(NetworkTable { version: 2, ..table.0 }).task(1, 13, false).without(12);
    one.apply_table(table.0.clone()).await.unwrap();
    let c = one.create_sandbox(task_sandbox("c", 1, 13, &[1])).await.unwrap();
    let _local = Server::start(&c.netns_path, "c", 80);
    assert_eq!(greet(&a.netns_path, "10.0.1.13:80"), "c 10.0.1.11");
    assert!(unreachable(&a.netns_path, "10.0.1.12:80"), "no longer in the table");
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_with_the_same_subnet_are_isolated() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    for id in [1, 2] {
        let table = Overlay::new(id).task(1, 11, false).task(2, 12, false);
        one.apply_table(table.0.clone()).await.unwrap();
        two.apply_table(table.0).await.unwrap();
    }
    let mut sandboxes = BTreeMap::new();
    for id in [1u8, 2] {
        let spec = |name: &str, host, last| SandboxSpec {
            gateway: None,
            ..task_sandbox(&format!("{name}{id}"), host, last, &[id.into()])
        };
        let a = one.create_sandbox(spec("a", 1, 11)).await.unwrap();
        let b = two.create_sandbox(spec("b", 2, 12)).await.unwrap();
        sandboxes.insert(id, (a.netns_path, b.netns_path));
    }
    let _first = Server::start(&sandboxes[&1].1, "first", 80);
    let _second = Server::start(&sandboxes[&2].1, "second", 80);
    let _only = Server::start(&sandboxes[&1].1, "only", 81);
    assert_eq!(greet(&sandboxes[&1].0, "10.0.1.12:80"), "first 10.0.1.11");
    assert_eq!(greet(&sandboxes[&2].0, "10.0.1.12:80"), "second 10.0.1.11");
    assert!(unreachable(&sandboxes[&2].0, "10.0.1.12:81"));
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_address_spreads_over_backends_and_keeps_open_flows() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let none = Overlay::new(1).task(1, 11, false);
    one.apply_table(none.0.clone()).await.unwrap();
    let a = one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    assert!(refused_at_once(&a.netns_path, "10.0.1.200:80"), "no backend");

    let three = none.next().task(1, 12, true).task(2, 13, true).task(2, 14, true);
    one.apply_table(three.0.clone()).await.unwrap();
    two.apply_table(three.0.clone()).await.unwrap();
    let mut servers = Vec::new();
    for (host, number, last) in [(&one, 1, 12), (&two, 2, 13), (&two, 2, 14)] {
        let name = format!("t{last}");
        let made = host.create_sandbox(task_sandbox(&name, number, last, &[1])).await.unwrap();
        servers.push(Server::start(&made.netns_path, &name, 80));
    }
    let mut open: Vec<Talk> = (0..30).map(|_| Talk::open(&a.netns_path, "10.0.1.200:80").unwrap()).collect();
    let mut spread: BTreeMap<String, u32> = BTreeMap::new();
    for talk in &open {
        *spread.entry(talk.greeting.clone()).or_default() += 1;
    }
    assert_eq!(
        spread.keys().collect::<Vec<_>>(),
        ["t12 10.0.1.11", "t13 10.0.1.11", "t14 10.0.1.11"],
        "every backend, and each sees the caller's own address"
    );

    let mut two_left = three.next();
    two_left.0.endpoints.get_mut(&TaskId(13)).unwrap().ready = false;
    one.apply_table(two_left.0.clone()).await.unwrap();
    for talk in &mut open {
        let first = talk.greeting.split(' ').next().unwrap().to_owned();
        assert_eq!(talk.ask("again").unwrap(), first, "established flows stay, also on the leaver");
    }
    for _ in 0..30 {
        assert!(!greet(&a.netns_path, "10.0.1.200:80").starts_with("t13"), "no new flow to the leaver");
    }
    let hairpin = lab.pinned(1, "t12");
    let alone = two_left.next().without(13).without(14);
    one.apply_table(alone.0).await.unwrap();
    assert_eq!(greet(&hairpin, "10.0.1.200:80"), "t12 10.0.1.12", "a task that is its own only backend");
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_udp_flow_moves_on_when_its_backend_leaves() {
    let lab = Lab::new(1);
    let one = lab.node(1).await;
    let table = Overlay::new(1).task(1, 11, false).task(1, 12, true).task(1, 13, true);
    one.apply_table(table.0.clone()).await.unwrap();
    let a = one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    for last in [12, 13] {
        let made = one.create_sandbox(task_sandbox(&format!("t{last}"), 1, last, &[1])).await.unwrap();
        udp_server(&made.netns_path, last);
    }
    let client = udp_client(&a.netns_path, "10.0.1.200:82");
    let answer = || eventually("an answer of a backend", || udp_ask(&client));
    let first = answer();
    assert_eq!(answer(), first, "a flow stays");
    one.apply_table(table.next().without(first).0).await.unwrap();
    let other = 25 - first;
    eventually("the flow moves to the other backend", || (udp_ask(&client) == Some(other)).then_some(()));
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_services_tasks_and_aliases_are_answered() {
    let lab = Lab::new(1);
    let one = lab.node(1).await;
    let mut table = Overlay::new(1).task(1, 11, true).task(2, 12, true).task(2, 13, true);
    let dnsrr = ServiceId(600);
    let service = NetworkService { name: "rr".into(), vip: None, aliases: vec![] };
    table.0.services.insert(dnsrr, service);
    let mut endpoint = table.0.endpoints[&TaskId(13)].clone();
    endpoint.service = dnsrr;
    table.0.endpoints.insert(TaskId(13), endpoint);
    one.apply_table(table.0.clone()).await.unwrap();
    let a = one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    let ask = |name: &str, kind: &str| resolve(&a.netns_path, name, kind);
    let addresses = |list: &[&str]| (0, list.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    assert_eq!(ask("web", "A"), addresses(&["10.0.1.200"]));
    assert_eq!(ask("WWW.net1", "A"), addresses(&["10.0.1.200"]));
    assert_eq!(ask("tasks.web", "A"), addresses(&["10.0.1.11", "10.0.1.12"]));
    assert_eq!(ask("rr", "A"), addresses(&["10.0.1.13"]));
    assert_eq!(ask("web.12.x", "A"), addresses(&["10.0.1.12"]));
    assert_eq!(ask("web", "AAAA"), addresses(&[]));
    assert_eq!(ask("web", "MX"), addresses(&[]));
    assert_eq!(ask("200.1.0.10.in-addr.arpa", "PTR"), addresses(&["web.net1."]));
    assert_eq!(ask("12.1.0.10.in-addr.arpa", "PTR"), addresses(&["web.12.x.net1."]));
    assert_eq!(ask("77.1.0.10.in-addr.arpa", "PTR").0, 3, "an address of ours that nobody has");
    assert_eq!(resolve_tcp(&a.netns_path, "web", "A"), addresses(&["10.0.1.200"]));

    let mut next = table.next();
    next.0.endpoints.get_mut(&TaskId(12)).unwrap().ready = false;
    one.apply_table(next.0).await.unwrap();
    assert_eq!(ask("tasks.web", "A"), addresses(&["10.0.1.11"]));
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_table_and_an_unknown_network_change_nothing() {
    let lab = Lab::new(1);
    let one = lab.node(1).await;
    let table = Overlay::new(1).task(1, 11, false);
    one.apply_table(table.next().0).await.unwrap();
    one.apply_table(table.0).await.unwrap();
    assert_eq!(one.tables().await.unwrap(), [(NetworkId(1), 2)]);
    let refused = one.create_sandbox(task_sandbox("a", 1, 11, &[9])).await.unwrap_err();
    assert!(matches!(refused, Error::UnknownNetwork(_)));
    assert!(one.sandboxes().await.unwrap().is_empty());
    one.drop_table(NetworkId(1)).await.unwrap();
    one.destroy().await.unwrap();
}
