//! Restarts, audits and removal: what is there stays, what is missing comes back, nothing is left behind.

use crate::{
    by_hand::{self, Deed, Link, Of, Route, Rule},
    lab::*,
    nft::{self, Family, Verdict},
};
use ::network::*;
use model::{IngressBackend, IngressTable, MeshNode, NetworkId, NodeId, Protocol, TaskId};
use rtnetlink::packet_route::neighbour::NeighbourState;
use std::net::Ipv4Addr;

/// The mark of our links, and the number by which our routes are known.
const GROUP: u32 = 29299;
const PROTOCOL: u8 = 147;
/// Of 10.0.1.12 on the network with VNI 4097.
const MAC_OF_12: [u8; 6] = [0x0a, 0x01, 0x00, 0x01, 0x0c, 0x10];
/// Nobody's.
const STRANGE_MAC: [u8; 6] = [0x0a, 0x00, 0x00, 0x00, 0x00, 0x99];

/// A node with one overlay task, one routed leg and one container on a bridge; a second node for the far end.
pub(crate) async fn two_nodes(lab: &Lab) -> (Network, Network) {
    let (one, two) = (lab.node(1).await, lab.node(2).await);
    let table = Overlay::new(1).task(1, 11, false).task(2, 12, true);
    let node = |host: u8| (NodeId(host.into()), MeshNode { index: host.into(), vtep: underlay(host) });
    let ingress = IngressTable {
        version: 1,
        nodes: [node(1), node(2)].into(),
        ports: [(
            (Protocol::Tcp, 8080),
            vec![IngressBackend {
                task: TaskId(12),
                node: NodeId(2),
                address: "10.255.2.12".parse().unwrap(),
                port: 80,
            }],
        )]
        .into(),
        lost: [].into(),
    };
    for host in [&one, &two] {
        host.apply_table(table.0.clone()).await.unwrap();
        host.apply_ingress(ingress.clone()).await.unwrap();
    }
    one.create_sandbox(task_sandbox("a", 1, 11, &[1])).await.unwrap();
    two.create_sandbox(task_sandbox("b", 2, 12, &[1])).await.unwrap();
    one.create_bridge(bridge("b1", "10.75.0.0/24")).await.unwrap();
    let spec = SandboxSpec { ports: vec![tcp_port(Some(9090), 80)], ..bridge_sandbox("c", &["b1"]) };
    one.create_sandbox(spec).await.unwrap();
    (one, two)
}

/// Everything the kernel holds of us in a host's namespace.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    links: Vec<Link>,
    loopback: Vec<String>,
    rules: Vec<Rule>,
    routes: Vec<Route>,
    tables: Vec<String>,
}

fn traces(lab: &Lab, host: u8) -> Traces {
    let netns = lab.host(host);
    let links = by_hand::links_of(&netns).into_values().filter(|link| !["lo", "eth0"].contains(&&*link.name));
    let addresses = by_hand::addresses_of(&netns).into_iter().filter(|one| one.address.is_ipv4());
    let on_loopback = addresses.filter(|one| one.link == "lo" && !one.address.is_loopback());
    Traces {
        links: links.collect(),
        loopback: on_loopback.map(|one| one.address.to_string()).collect(),
        rules: by_hand::rules_of(&netns).into_iter().filter(|rule| rule.mark.is_some()).collect(),
        routes: by_hand::routes_of(&netns).into_iter().filter(|route| route.protocol == PROTOCOL).collect(),
        tables: nft::tables_of(&netns),
    }
}

/// What takes away what a node of [`two_nodes`] needs.
pub(crate) fn damages() -> Vec<Deed> {
    use At::{Data, Host, Task};
    fn bridge() -> String {
        format!("br-{}", bridge_key("b1"))
    }
    vec![
        Deed::new(Data, "bridge fdb del 0a:01:00:01:0c:10 dev vx4097 self", |data| {
            by_hand::delete_forwarding(data, "vx4097", MAC_OF_12, Of::Link);
        }),
        Deed::new(Data, "bridge fdb del 0a:01:00:01:0c:10 dev vx4097 master", |data| {
            by_hand::delete_forwarding(data, "vx4097", MAC_OF_12, Of::Bridge);
        }),
        Deed::new(Data, "ip neigh del 10.0.1.12 dev vx4097", |data| {
            by_hand::delete_neighbour(data, "vx4097", Ipv4Addr::new(10, 0, 1, 12));
        }),
        Deed::new(Data, "ip link del br4097", |data| by_hand::delete_link(data, "br4097")),
        Deed::new(Data, "ip link del vx4097", |data| by_hand::delete_link(data, "vx4097")),
        Deed::new(Data, "ip link set br4097 down", |data| by_hand::set_down(data, "br4097")),
        Deed::new(Data, "bridge link set dev vx4097 learning on", |data| {
            by_hand::learn_behind(data, "vx4097");
        }),
        Deed::new(Host, "ip rule del pref 7000", |host| by_hand::delete_rule(host, 7000)),
        Deed::new(Host, "ip route flush table 7002", |host| {
            by_hand::delete_routes(host, |route| route.table == 7002);
        }),
        Deed::new(Host, "ip link del rs-ing", |host| by_hand::delete_link(host, "rs-ing")),
        Deed::new(Host, "ip addr del 10.255.1.1/32 dev lo", |host| {
            by_hand::delete_address(host, "lo", "10.255.1.1/32");
        }),
        Deed::new(Host, "nft flush chain inet rswarm post_nat", |host| {
            nft::flush_chain(host, Family::Inet, "post_nat");
        }),
        Deed::new(Host, "nft delete table inet rswarm", |host| nft::delete_table(host, Family::Inet)),
        Deed::new(Host, "nft flush map inet rswarm hostp", |host| nft::flush_set(host, "hostp")),
        Deed::new(Host, format!("ip link del {}", bridge()), |host| by_hand::delete_link(host, &bridge())),
        Deed::new(Task, "nft delete table inet rswarm", |task| nft::delete_table(task, Family::Inet)),
        Deed::new(Task, "nft flush map inet rswarm be", |task| nft::flush_set(task, "be")),
        Deed::new(Task, "ip link del eth0", |task| by_hand::delete_link(task, "eth0")),
        Deed::new(Task, "ip link del ethg", |task| by_hand::delete_link(task, "ethg")),
        Deed::new(Task, "ip addr flush dev eth0", |task| by_hand::flush_addresses(task, "eth0")),
    ]
}

/// What does not belong on such a node.
pub(crate) fn surplus() -> Vec<Deed> {
    use At::{Data, Host};
    vec![
        Deed::new(Data, "bridge fdb add 0a:00:00:00:00:99 dev vx4097 self dst 192.0.2.9", |data| {
            by_hand::add_forwarding(data, "vx4097", STRANGE_MAC, "192.0.2.9");
        }),
        Deed::new(Data, "ip neigh add 10.0.1.99 lladdr 0a:00:00:00:00:99 dev vx4097 nud permanent", |data| {
            let address = Ipv4Addr::new(10, 0, 1, 99);
            by_hand::set_neighbour(data, "vx4097", address, STRANGE_MAC, NeighbourState::Permanent);
        }),
        Deed::new(Host, "nft add element inet rswarm pub_be { tcp . 1 . 0x1 : 10.0.0.1 . 1 }", |host| {
            let one = 1_u16.to_be_bytes();
            let key: [&[u8]; 3] = [&[6], &one, &1_u32.to_ne_bytes()];
            nft::add_element(host, "pub_be", &key, Some(&[&[10, 0, 0, 1], &one]));
        }),
        Deed::new(Host, "nft add rule inet rswarm forw drop", |host| {
            nft::add_rule(host, "forw", Verdict::Drop);
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_of_an_untouched_node_finds_nothing() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    for host in [&one, &two] {
        assert_eq!(host.audit_now().await.unwrap(), AuditReport::default());
    }
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deletes_by_hand_comes_back() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    let a = lab.pinned(1, "a");
    let _b = Server::start(&lab.pinned(2, "b"), "b", 80);
    let _c = Server::start(&lab.pinned(1, "c"), "c", 80);
    let works = || {
        assert_eq!(greet(&a, "10.0.1.12:80"), "b 10.0.1.11", "overlay");
        assert_eq!(greet(&a, "10.0.1.200:80"), "b 10.0.1.11", "virtual address");
        assert_eq!(greet(&lab.client(), "192.168.77.11:8080"), "b 192.168.77.100", "mesh");
        assert_eq!(greet(&lab.client(), "192.168.77.11:9090"), "c 192.168.77.100", "published port");
        assert_eq!(resolve(&a, "web", "A").1, ["10.0.1.200"]);
    };
    works();
    for damage in damages() {
        damage.do_it(&lab);
        let report = one.audit_now().await.unwrap();
        assert!(!report.repairs.is_empty(), "nothing repaired after: {damage}");
        assert_eq!(report.errors, Vec::<String>::new(), "after: {damage}");
        assert_eq!(one.audit_now().await.unwrap(), AuditReport::default(), "second look after: {damage}");
        works();
    }
    // What does not belong goes.
    for surplus in surplus() {
        surplus.do_it(&lab);
        assert!(!one.audit_now().await.unwrap().repairs.is_empty(), "still there: {surplus}");
        works();
    }
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

fn bridge_key(id: &str) -> String {
    let hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{:012x}", hash >> 16)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_adopts_everything_and_no_flow_breaks() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    let (a, client) = (lab.pinned(1, "a"), lab.client());
    let _b = Server::start(&lab.pinned(2, "b"), "b", 80);
    let _c = Server::start(&lab.pinned(1, "c"), "c", 80);
    let mut flows = vec![
        Talk::open(&a, "10.0.1.12:80").unwrap(),
        Talk::open(&a, "10.0.1.200:80").unwrap(),
        Talk::open(&client, "192.168.77.11:8080").unwrap(),
        Talk::open(&client, "192.168.77.11:9090").unwrap(),
    ];
    let before = one.sandboxes().await.unwrap();
    let rules = nft::table_of(&lab.host(1), Family::Inet);
    assert!(rules.is_some());
    one.shutdown().await;
    assert!(one.sandboxes().await.is_err(), "stopped");
    for flow in &mut flows {
        flow.ask("while nobody is there").unwrap();
    }
    let one = lab.start(1).await;
    assert_eq!(one.sandboxes().await.unwrap(), before);
    assert_eq!(one.bridges().await.unwrap()[0].endpoints.len(), 1);
    assert_eq!(one.tables().await.unwrap(), [(NetworkId(1), 1)]);
    assert_eq!(nft::table_of(&lab.host(1), Family::Inet), rules);
    assert_eq!(one.audit_now().await.unwrap(), AuditReport::default());
    for flow in &mut flows {
        flow.ask("after the restart").unwrap();
    }
    assert_eq!(resolve(&a, "web", "A").1, ["10.0.1.200"]);
    assert_eq!(greet(&client, "192.168.77.11:9090"), "c 192.168.77.100");
    let taken = SandboxSpec { ports: vec![tcp_port(Some(9090), 1)], ..bridge_sandbox("d", &["b1"]) };
    assert!(matches!(one.create_sandbox(taken).await, Err(Error::PortInUse { .. })));
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_no_daemon_was_there_is_put_right_at_the_start() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    one.shutdown().await;
    // A crash between record and kernel, a namespace nobody knows, and a sandbox that lost its file.
    let (host, data) = (lab.host(1), lab.pinned(1, "rswarm-data"));
    by_hand::add_veth(&host, "g-000000000000", ("orphan", &host));
    by_hand::set_group(&host, "g-000000000000", GROUP);
    by_hand::add_bridge(&data, "br9999");
    let orphan = lab.pinned(1, "orphan");
    std::fs::write(&orphan, "").unwrap();
    let lost = lab.pinned(1, "c");
    nix::mount::umount(&lost).unwrap();
    let one = lab.start(1).await;
    assert!(!orphan.exists() && !lost.exists());
    assert_eq!(one.sandboxes().await.unwrap().len(), 1);
    assert!(!by_hand::links_of(&host).contains_key("g-000000000000"));
    assert!(!by_hand::links_of(&data).contains_key("br9999"));
    assert!(unreachable(&lab.client(), "192.168.77.11:9090"));
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_leaves_nothing_behind() {
    let lab = Lab::new(2);
    let clean = traces(&lab, 1);
    let (one, two) = two_nodes(&lab).await;
    assert_ne!(traces(&lab, 1), clean);
    one.remove_sandbox("a").await.unwrap();
    one.remove_sandbox("a").await.unwrap();
    one.remove_sandbox("c").await.unwrap();
    eventually("no veth but the underlay's is left", || {
        let links = by_hand::links_of(&lab.host(1));
        (links.values().filter(|link| link.kind == "veth").count() == 1).then_some(())
    });
    one.remove_bridge("b1").await.unwrap();
    one.leave_swarm().await.unwrap();
    assert_eq!(traces(&lab, 1), clean);
    assert!(!lab.pinned(1, "rswarm-data").exists());
    one.destroy().await.unwrap();
    assert!(!lab.run_root(1).join("netns").exists());

    two.destroy().await.unwrap();
    assert_eq!(traces(&lab, 2), clean);
    let records = std::fs::read_dir(lab.dir.path().join("state2/sandboxes")).unwrap().count();
    assert_eq!(records, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sandboxes_come_and_go_without_delay() {
    let lab = Lab::new(1);
    let one = lab.node(1).await;
    let mut table = Overlay::new(1);
    for last in 1..=100 {
        table = table.task(1, last, true);
    }
    one.apply_table(table.0.clone()).await.unwrap();
    let began = std::time::Instant::now();
    for last in 1..=100 {
        one.create_sandbox(task_sandbox(&format!("{last:012x}"), 1, last, &[1])).await.unwrap();
    }
    let made = began.elapsed();
    for last in 1..=100 {
        table = table.next().without(last);
        one.apply_table(table.0.clone()).await.unwrap();
    }
    let drained = began.elapsed() - made;
    assert_eq!(one.audit_now().await.unwrap(), AuditReport::default());
    let audited = began.elapsed() - made - drained;
    for last in 1..=100 {
        one.remove_sandbox(&format!("{last:012x}")).await.unwrap();
    }
    let removed = began.elapsed() - made - drained - audited;
    println!("100 sandboxes: made {made:?}, 100 tables {drained:?}, audit {audited:?}, removed {removed:?}");
    assert!(began.elapsed() < testkit::on_a_shared_machine(std::time::Duration::from_secs(30)));
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_asked_while_no_daemon_runs_are_answered_by_the_next() {
    let lab = Lab::new(1);
    let one = lab.start(1).await;
    one.create_bridge(bridge("b1", "10.75.0.0/24")).await.unwrap();
    let made = one.create_sandbox(bridge_sandbox("c", &["b1"])).await.unwrap();
    let kept = made.name_sockets.expect("a name server was started");
    let again = one.create_sandbox(bridge_sandbox("c", &["b1"])).await.unwrap();
    assert_eq!(again.name_sockets, None, "it goes on");
    one.shutdown().await;

    let netns = lab.pinned(1, "c");
    let asked = [resolve, resolve_tcp].map(|ask| {
        let netns = netns.clone();
        std::thread::spawn(move || ask(&netns, "c", "A"))
    });
    eventually("both questions wait", || {
        let waiting = |table: &str| {
            inside(&netns, {
                let path = format!("/proc/thread-self/net/{table}");
                move || std::fs::read_to_string(path).unwrap()
            })
        };
        // 127.0.0.11 as the kernel prints it, and bytes or connections in the receive queue.
        let queued = |table: &str| {
            waiting(table).lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.get(1).is_some_and(|f| f.starts_with("0B00007F:"))
                    && fields.get(4).is_some_and(|f| !f.ends_with(":00000000"))
            })
        };
        (queued("udp") && queued("tcp")).then_some(())
    });
    let options = Options { name_sockets: [("c".to_owned(), kept)].into(), ..lab.options(1) };
    let two = Network::start(options).await.unwrap();
    for asked in asked {
        assert_eq!(asked.join().unwrap(), (0, vec!["10.75.0.2".to_owned()]));
    }
    two.destroy().await.unwrap();
}

/// What breaks a gate of such a node, and which: the host's rules, those of tunnels, local ports, overlay ports.
pub(crate) fn broken_gates() -> Vec<(Deed, usize)> {
    use At::{Data, Host};
    let forwarding = Deed::new(Host, "nft flush chain inet rswarm forw", |host| {
        nft::flush_chain(host, Family::Inet, "forw");
    });
    let tunnels = Deed::new(Host, "nft flush chain inet rswarm tunnel", |host| {
        nft::flush_chain(host, Family::Inet, "tunnel");
    });
    let stranger = Deed::new(Host, "nft add element inet rswarm vteps { 192.168.77.66 }", |host| {
        nft::add_element(host, "vteps", &[&[192, 168, 77, 66]], None);
    });
    let local_ports =
        Deed::new(Host, "nft delete table bridge rswarm", |host| nft::delete_table(host, Family::Bridge));
    let overlay_ports = Deed::new(Data, "nft flush chain bridge rswarm ports_in", |data| {
        nft::flush_chain(data, Family::Bridge, "ports_in");
    });
    vec![(forwarding, 0), (tunnels, 1), (stranger, 1), (local_ports, 2), (overlay_ports, 3)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_names_the_gate_that_is_broken_and_mends_nothing() {
    let lab = Lab::new(2);
    let (one, _two) = two_nodes(&lab).await;
    let seen = || {
        let options = lab.options(1);
        let guards = inside(&lab.host(1), move || look(&options.state_dir, &options.run_root));
        let Guards { host, tunnel, local_ports, overlay_ports } = guards.unwrap();
        [host, tunnel, local_ports, overlay_ports]
    };
    assert_eq!(seen(), [const { Guard::InForce }; 4]);
    let tables = || {
        let of = |at, family| nft::table_of(&lab.at(at), family);
        [of(At::Host, Family::Inet), of(At::Host, Family::Bridge), of(At::Data, Family::Bridge)]
    };
    for (deed, broken) in broken_gates() {
        deed.do_it(&lab);
        let found = tables();
        for (part, guard) in seen().into_iter().enumerate() {
            assert_eq!(part == broken, matches!(guard, Guard::Broken(_)), "{deed}: {part} {guard:?}");
        }
        assert_eq!(tables(), found, "{deed}: nothing is mended");
        one.audit_now().await.unwrap();
        assert_eq!(seen(), [const { Guard::InForce }; 4], "after {deed}");
    }
    one.shutdown().await;
    assert_eq!(seen(), [const { Guard::InForce }; 4], "no daemon is needed to look");
}
