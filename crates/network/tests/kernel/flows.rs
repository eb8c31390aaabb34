//! Open flows of UDP, whose sender goes on with one socket, and connections that nobody has answered yet: they move to where
//! a new one would be led, those of UDP within two seconds, whatever happened to the old backend and whether anybody
//! announced it.

use crate::{
    ipv6::{bridge6, dual_stack},
    lab::*,
    nft::{self, Family},
};
use ::network::*;
use model::{IngressBackend, IngressTable, MeshNode, NodeId, Protocol, TaskId};
use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// 8082/udp on every host leads to port 82 of tasks 10.255.<host>.<last>.
fn ingress(version: u64, tasks: &[(u8, u8)]) -> IngressTable {
    let node = |host: u8| (NodeId(host.into()), MeshNode { index: host.into(), vtep: underlay(host) });
    let backend = |(host, last): &(u8, u8)| IngressBackend {
        task: TaskId((*last).into()),
        node: NodeId((*host).into()),
        address: Ipv4Addr::new(10, 255, *host, *last).into(),
        port: 82,
    };
    let ports = if tasks.is_empty() && version == 1 {
        [].into()
    } else {
        [((Protocol::Udp, 8082), tasks.iter().map(backend).collect())].into()
    };
    IngressTable { version, nodes: [node(1), node(2)].into(), ports, lost: [].into() }
}

async fn apply(hosts: &[&Network], table: &IngressTable) {
    for host in hosts {
        host.apply_ingress(table.clone()).await.unwrap();
    }
}

/// Goes on with every socket until each is answered by `number`.
fn all_reach(flows: &[(&str, UdpSocket)], number: u8) {
    each_comes_to(flows, Some(number));
}

fn none_reaches(flows: &[(&str, UdpSocket)]) {
    each_comes_to(flows, None);
}

/// All at once: silence takes its time.
fn each_comes_to(flows: &[(&str, UdpSocket)], wanted: Option<u8>) {
    let end = Instant::now() + testkit::on_a_shared_machine(Duration::from_secs(2));
    let go_on = |(kind, flow): &(&str, UdpSocket)| {
        loop {
            let answered = udp_ask(flow);
            if answered == wanted {
                return;
            }
            assert!(Instant::now() < end, "{kind}: {answered:?} answers, not {wanted:?}");
        }
    };
    thread::scope(|scope| {
        for flow in flows {
            scope.spawn(|| go_on(flow));
        }
    });
}

async fn serve(host: &Network, spec: SandboxSpec, number: u8) {
    let made = host.create_sandbox(spec).await.unwrap();
    udp_server(&made.netns_path, number);
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_to_a_published_port_move_when_it_appears_and_when_its_backend_dies() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let both = [&one, &two];
    apply(&both, &ingress(1, &[])).await;
    one.create_bridge(bridge("b1", "10.74.0.0/24")).await.unwrap();
    one.create_sandbox(bridge_sandbox("local", &["b1"])).await.unwrap();
    one.create_sandbox(task_sandbox("task", 1, 9, &[])).await.unwrap();
    // Somebody outside, the host itself by both its addresses, a container on a bridge and a task of this host.
    let flows = [
        ("outside", udp_client(&lab.client(), "192.168.77.11:8082")),
        ("host", udp_client(&lab.host(1), "192.168.77.11:8082")),
        ("loopback", udp_client(&lab.host(1), "127.0.0.1:8082")),
        ("bridge", udp_client(&lab.pinned(1, "local"), "192.168.77.11:8082")),
        ("task", udp_client(&lab.pinned(1, "task"), "192.168.77.11:8082")),
        ("own host", udp_client(&lab.pinned(1, "task"), "10.255.1.1:8082")),
    ];
    none_reaches(&flows);

    serve(&two, task_sandbox("t5", 2, 5, &[]), 5).await;
    apply(&both, &ingress(2, &[(2, 5)])).await;
    all_reach(&flows, 5);

    // It dies at once, without a word before: the only one, and another one comes after that.
    two.remove_sandbox("t5").await.unwrap();
    apply(&both, &ingress(3, &[])).await;
    none_reaches(&flows);
    serve(&one, task_sandbox("t6", 1, 6, &[]), 6).await;
    apply(&both, &ingress(4, &[(1, 6)])).await;
    all_reach(&flows, 6);

    // Its host is gone: the other hosts hear of another backend, and of the dead host nothing more.
    serve(&two, task_sandbox("t7", 2, 7, &[]), 7).await;
    apply(&both, &ingress(5, &[(2, 7)])).await;
    all_reach(&flows, 7);
    lab.unplug(2);
    one.apply_ingress(ingress(6, &[(1, 6)])).await.unwrap();
    all_reach(&flows, 6);
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_went_astray_while_no_daemon_ran_are_found_at_the_start() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let table = Overlay::new(1).task(1, 11, false).task(1, 12, true);
    one.apply_table(table.0.clone()).await.unwrap();
    one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    serve(&one, task_sandbox("t12", 1, 12, &[1]), 12).await;
    apply(&[&one, &two], &ingress(2, &[(1, 12)])).await;
    one.shutdown().await;
    nft::flush_chain(&lab.host(1), Family::Inet, "lb");
    nft::flush_chain(&lab.pinned(1, "a"), Family::Inet, "out_nat");
    nft::flush_chain(&lab.pinned(1, "a"), Family::Inet, "out_flt");
    let flows = [
        ("outside", udp_client(&lab.client(), "192.168.77.11:8082")),
        ("virtual address", udp_client(&lab.pinned(1, "a"), "10.0.1.200:82")),
    ];
    none_reaches(&flows);
    let one = lab.start(1).await;
    all_reach(&flows, 12);
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_to_a_virtual_address_move_also_those_of_a_backend_itself() {
    let lab = Lab::new(1);
    let one = lab.node(1).await;
    let mut before = Overlay::new(1).task(1, 11, false).task(1, 12, true).task(1, 13, true);
    let services = std::mem::take(&mut before.0.services);
    one.apply_table(before.0.clone()).await.unwrap();
    one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    for last in [12, 13] {
        serve(&one, task_sandbox(&format!("t{last}"), 1, last, &[1]), last).await;
    }
    let flows = [
        ("beside", udp_client(&lab.pinned(1, "a"), "10.0.1.200:82")),
        ("hairpin", udp_client(&lab.pinned(1, "t13"), "10.0.1.200:82")),
    ];
    // There is no such address yet.
    none_reaches(&flows);
    let mut table = before.next();
    table.0.services = services;
    let only = table.without(12);
    one.apply_table(only.0.clone()).await.unwrap();
    all_reach(&flows, 13);
    let mut stopping = only.next().task(1, 12, true);
    stopping.0.endpoints.get_mut(&TaskId(13)).unwrap().ready = false;
    one.apply_table(stopping.0.clone()).await.unwrap();
    all_reach(&flows, 12);
    one.apply_table(stopping.next().without(12).0).await.unwrap();
    none_reaches(&flows);
    one.apply_table(stopping.next().next().without(12).task(1, 13, true).0).await.unwrap();
    all_reach(&flows, 13);
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_to_a_port_of_one_host_move_to_the_container_that_takes_its_place() {
    let lab = Lab::new(1);
    let one = lab.node(1).await;
    one.create_bridge(bridge("b1", "10.74.0.0/24")).await.unwrap();
    one.create_sandbox(bridge_sandbox("beside", &["b1"])).await.unwrap();
    let port =
        PortBinding { protocol: Protocol::Udp, host_ip: None, host_port: Some(9082), container_port: 82 };
    let web = |id: &str| SandboxSpec { ports: vec![port.clone()], ..bridge_sandbox(id, &["b1"]) };
    let mut flows = vec![
        ("outside", udp_client(&lab.client(), "192.168.77.11:9082")),
        ("host", udp_client(&lab.host(1), "127.0.0.1:9082")),
        ("beside", udp_client(&lab.pinned(1, "beside"), "192.168.77.11:9082")),
    ];
    none_reaches(&flows);
    serve(&one, web("w1"), 1).await;
    all_reach(&flows, 1);
    // Its server dies and another container takes the port, at another address.
    one.remove_sandbox("w1").await.unwrap();
    none_reaches(&flows);
    serve(&one, web("w2"), 2).await;
    flows.push(("hairpin", udp_client(&lab.pinned(1, "w2"), "192.168.77.11:9082")));
    all_reach(&flows, 2);
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_of_ipv4_and_ipv6_move_alike_and_those_to_others_stay() {
    let lab = dual_stack();
    let one = lab.start(1).await;
    one.create_bridge(bridge6("b1", "10.74.0.0/24", "fd74::/64")).await.unwrap();
    let port = |host_port| PortBinding { protocol: Protocol::Udp, ..tcp_port(Some(host_port), 82) };
    let web =
        |id: &str, host_port| SandboxSpec { ports: vec![port(host_port)], ..bridge_sandbox(id, &["b1"]) };
    serve(&one, web("stays", 9083), 7).await;
    let others = [("v4", "192.168.77.11:9083"), ("v6", "[fd77::11]:9083")]
        .map(|(kind, to)| (kind, udp_client(&lab.client(), to)));
    all_reach(&others, 7);
    let flows = [("v4", "192.168.77.11:9082"), ("v6", "[fd77::11]:9082")]
        .map(|(kind, to)| (kind, udp_client(&lab.client(), to)));
    none_reaches(&flows);
    for (id, number) in [("w1", 1), ("w2", 2)] {
        serve(&one, web(id, 9082), number).await;
        all_reach(&flows, number);
        one.remove_sandbox(id).await.unwrap();
        none_reaches(&flows);
    }
    all_reach(&others, 7);
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_waits_for_a_connection_gets_it_from_a_backend_that_came_later() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let web = |version, tasks: &[(u8, u8)]| {
        let table = ingress(version, tasks);
        let backends = table.ports[&(Protocol::Udp, 8082)].clone();
        IngressTable { ports: [((Protocol::Tcp, 8080), backends)].into(), ..table }
    };
    let mut table = Overlay::new(1).task(1, 11, false).task(1, 13, true).task(2, 12, true);
    table.0.endpoints.get_mut(&TaskId(13)).unwrap().ready = false;
    one.apply_table(table.0.clone()).await.unwrap();
    one.apply_ingress(web(1, &[(2, 12)])).await.unwrap();
    let a = one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    let b = one.create_sandbox(task_sandbox("b", 1, 13, &[1])).await.unwrap();
    let _server = Server::start(&b.netns_path, "b", 82);
    // Its host says nothing any more, and nobody has noticed.
    lab.unplug(2);
    let asked = [
        ("outside", Talk::asked_for(&lab.client(), "192.168.77.11:8080")),
        ("loopback", Talk::asked_for(&lab.host(1), "127.0.0.1:8080")),
        ("virtual address", Talk::asked_for(&a.netns_path, "10.0.1.200:82")),
    ];
    let mut other = table.next();
    other.0.endpoints.get_mut(&TaskId(12)).unwrap().ready = false;
    other.0.endpoints.get_mut(&TaskId(13)).unwrap().ready = true;
    one.apply_table(other.0).await.unwrap();
    one.apply_ingress(web(2, &[(1, 13)])).await.unwrap();
    for (who, stream) in asked {
        let greeting = Talk::answered(who, stream).greeting;
        assert!(greeting.starts_with("b "), "{who}: {greeting}");
    }
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_task_of_a_host_that_is_given_up_ends() {
    let lab = Lab::new(2);
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let table = Overlay::new(1).task(1, 11, false).task(2, 12, true);
    let mesh = IngressTable { ports: [].into(), ..ingress(1, &[]) };
    let web = |tasks: &[(u8, u8)]| {
        let backends = ingress(2, tasks).ports.remove(&(Protocol::Udp, 8082)).unwrap();
        [((Protocol::Tcp, 8080), backends)].into()
    };
    for host in [&one, &two] {
        host.apply_table(table.0.clone()).await.unwrap();
        host.apply_ingress(IngressTable { version: 2, ports: web(&[(2, 12)]), ..mesh.clone() })
            .await
            .unwrap();
    }
    let a = one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    let b = two.create_sandbox(task_sandbox("b", 2, 12, &[1])).await.unwrap();
    let (_server, _own) = (Server::start(&b.netns_path, "b", 82), Server::start(&a.netns_path, "a", 82));
    // These only listen.
    let quiet = |netns: &std::path::Path, to: &str| Talk::open(netns, to).unwrap();
    let mut flows = [
        ("virtual address", quiet(&a.netns_path, "10.0.1.200:82")),
        ("task", quiet(&a.netns_path, "10.0.1.12:82")),
        ("loopback", quiet(&lab.host(1), "127.0.0.1:8080")),
    ];
    let mut outside = Talk::open(&lab.client(), "192.168.77.11:8080").unwrap();
    let mut stays = Talk::open(&a.netns_path, "10.0.1.11:82").unwrap();
    lab.unplug(2);
    let mut dead = table.next();
    let endpoint = dead.0.endpoints.get_mut(&TaskId(12)).unwrap();
    (endpoint.ready, endpoint.lost) = (false, true);
    one.apply_table(dead.0).await.unwrap();
    let lost = [NodeId(2)].into();
    one.apply_ingress(IngressTable { version: 3, ports: web(&[]), lost, ..mesh }).await.unwrap();
    for (kind, flow) in &mut flows {
        let said = flow.listen().unwrap_err();
        assert_eq!(said.kind(), std::io::ErrorKind::ConnectionAborted, "{kind}");
    }
    // From outside nobody can be told before he says something.
    let said = outside.ask("anybody there?").unwrap_err();
    assert_eq!(said.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(stays.ask("and you?").unwrap(), "a");
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}
