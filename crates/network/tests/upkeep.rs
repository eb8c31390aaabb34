//! Restarts, audits and removal: what is there stays, what is missing comes back, nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod lab;
use ::network::*;
use lab::*;
use model::{IngressBackend, IngressTable, MeshNode, NetworkId, NodeId, Protocol, TaskId};

/// A node with one overlay task, one routed leg and one container on a bridge; a second node for the far end.
async fn two_nodes(lab: &Lab) -> (Network, Network) {
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
fn traces(lab: &Lab, host: u8) -> String {
    let netns = lab.host(host);
    let mut all = run_inside(&netns, "ip -o link show");
    all = all.lines().filter(|l| !l.contains(": lo:") && !l.contains(": eth0@")).collect();
    all += &run_inside(&netns, "ip -4 -o addr show dev lo").replace("127.0.0.1/8", "");
    all = all.lines().filter(|l| l.contains("10.") || l.contains("mtu")).collect();
    all += &run_inside(&netns, "ip rule show").lines().filter(|l| l.contains("fwmark")).collect::<String>();
    all += &run_inside(&netns, "ip route show table all proto 147");
    all += &run_inside(&netns, "nft list tables");
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables, conntrack"]
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
#[ignore = "oracle: iproute2, nftables, conntrack"]
async fn what_somebody_deletes_by_hand_comes_back() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    let (data, host, a) = (lab.pinned(1, "rswarm-data"), lab.host(1), lab.pinned(1, "a"));
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
    // MAC of 10.0.1.12 on VNI 4097.
    let mac = "0a:01:00:01:0c:10";
    let damages = [
        (&data, format!("bridge fdb del {mac} dev vx4097 self")),
        (&data, format!("bridge fdb del {mac} dev vx4097 master")),
        (&data, "ip neigh del 10.0.1.12 dev vx4097".into()),
        (&data, "ip link del br4097".into()),
        (&data, "ip link del vx4097".into()),
        (&data, "ip link set br4097 down".into()),
        (&data, "bridge link set dev vx4097 learning on".into()),
        (&host, "ip rule del pref 7000".into()),
        (&host, "ip route flush table 7002".into()),
        (&host, "ip link del rs-ing".into()),
        (&host, "ip addr del 10.255.1.1/32 dev lo".into()),
        (&host, "nft flush chain inet rswarm post_nat".into()),
        (&host, "nft delete table inet rswarm".into()),
        (&host, "nft flush map inet rswarm hostp".into()),
        (&host, "ip link del br-".to_owned() + &bridge_key("b1")),
        (&a, "nft delete table inet rswarm".into()),
        (&a, "nft flush map inet rswarm be".into()),
        (&a, "ip link del eth0".into()),
        (&a, "ip link del ethg".into()),
        (&a, "ip addr flush dev eth0".into()),
    ];
    for (netns, damage) in damages {
        run_inside(netns, &damage);
        let report = one.audit_now().await.unwrap();
        assert!(!report.repairs.is_empty(), "nothing repaired after: {damage}");
        assert_eq!(report.errors, Vec::<String>::new(), "after: {damage}");
        assert_eq!(one.audit_now().await.unwrap(), AuditReport::default(), "second look after: {damage}");
        works();
    }
    // What does not belong goes.
    for (netns, surplus) in [
        (&data, "bridge fdb add 0a:00:00:00:00:99 dev vx4097 self dst 192.0.2.9"),
        (&data, "ip neigh add 10.0.1.99 lladdr 0a:00:00:00:00:99 dev vx4097 nud permanent"),
        (&host, "nft add element inet rswarm pub_be { tcp . 1 . 0x1 : 10.0.0.1 . 1 }"),
        (&host, "nft add rule inet rswarm forw drop"),
    ] {
        run_inside(netns, surplus);
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
#[ignore = "oracle: iproute2, nftables, conntrack"]
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
    let rules = run_inside(&lab.host(1), "nft list table inet rswarm");
    one.shutdown().await;
    assert!(one.sandboxes().await.is_err(), "stopped");
    for flow in &mut flows {
        flow.ask("while nobody is there").unwrap();
    }
    let one = lab.start(1).await;
    assert_eq!(one.sandboxes().await.unwrap(), before);
    assert_eq!(one.bridges().await.unwrap()[0].endpoints.len(), 1);
    assert_eq!(one.tables().await.unwrap(), [(NetworkId(1), 1)]);
    assert_eq!(run_inside(&lab.host(1), "nft list table inet rswarm"), rules);
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
#[ignore = "oracle: iproute2, nftables, conntrack"]
async fn what_changed_while_no_daemon_was_there_is_put_right_at_the_start() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    one.shutdown().await;
    // A crash between record and kernel, a namespace nobody knows, and a sandbox that lost its file.
    run_inside(&lab.host(1), "ip link add g-000000000000 group 29299 type veth peer name orphan");
    run_inside(&lab.pinned(1, "rswarm-data"), "ip link add br9999 type bridge");
    let orphan = lab.pinned(1, "orphan");
    std::fs::write(&orphan, "").unwrap();
    let lost = lab.pinned(1, "c");
    nix::mount::umount(&lost).unwrap();
    let one = lab.start(1).await;
    assert!(!orphan.exists() && !lost.exists());
    assert_eq!(one.sandboxes().await.unwrap().len(), 1);
    assert!(!run_inside(&lab.host(1), "ip -o link show").contains("g-000000000000"));
    assert!(!run_inside(&lab.pinned(1, "rswarm-data"), "ip -o link show").contains("br9999"));
    assert!(unreachable(&lab.client(), "192.168.77.11:9090"));
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables, conntrack"]
async fn removal_leaves_nothing_behind() {
    let lab = Lab::new(2);
    let clean = traces(&lab, 1);
    let (one, two) = two_nodes(&lab).await;
    assert_ne!(traces(&lab, 1), clean);
    one.remove_sandbox("a").await.unwrap();
    one.remove_sandbox("a").await.unwrap();
    one.remove_sandbox("c").await.unwrap();
    eventually("no veth but the underlay's is left", || {
        (run_inside(&lab.host(1), "ip -o link show").matches("@if").count() == 1).then_some(())
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
#[ignore = "oracle: iproute2, nftables, conntrack"]
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
    assert!(began.elapsed() < std::time::Duration::from_secs(30));
    one.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables, conntrack"]
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables, conntrack"]
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
    let data = lab.pinned(1, "rswarm-data");
    for (netns, command, broken) in [
        (lab.host(1), "nft flush chain inet rswarm forw", 0),
        (lab.host(1), "nft flush chain inet rswarm tunnel", 1),
        (lab.host(1), "nft add element inet rswarm vteps { 192.168.77.66 }", 1),
        (lab.host(1), "nft delete table bridge rswarm", 2),
        (data, "nft flush chain bridge rswarm ports_in", 3),
    ] {
        run_inside(&netns, command);
        for _ in 0..2 {
            for (part, guard) in seen().into_iter().enumerate() {
                assert_eq!(part == broken, matches!(guard, Guard::Broken(_)), "{command}: {part} {guard:?}");
            }
        }
        one.audit_now().await.unwrap();
        assert_eq!(seen(), [const { Guard::InForce }; 4], "after {command}");
    }
    one.shutdown().await;
    assert_eq!(seen(), [const { Guard::InForce }; 4], "no daemon is needed to look");
}

/// What another firewall stops on a host, in the doctor's words, and whether it is sworn to.
fn stopped(lab: &Lab, host: u8) -> Vec<(String, bool)> {
    let state = lab.options(host).state_dir;
    let found = inside(&lab.host(host), move || other_firewalls(&state).unwrap());
    found.stopped.iter().map(|s| (s.to_string(), s.certain)).collect()
}

fn nft(lab: &Lab, host: u8, text: &str) {
    let file = lab.run_root(host).with_extension("nft");
    std::fs::write(&file, text).unwrap();
    run_inside(&lab.host(host), &format!("nft -f {}", file.display()));
}

/// A table as dockerd's, one as firewalld's, one by hand; what each stops, and what opens it.
const OTHERS: [(&str, &str, &str); 3] = [
    (
        "table ip filter {
            chain DOCKER-USER { counter return; }
            chain DOCKER { iifname != docker0 oifname docker0 drop; }
            chain FORWARD { type filter hook forward priority 0; policy drop;
                jump DOCKER-USER
                ct state related,established counter accept
                oifname docker0 jump DOCKER
                iifname docker0 oifname != docker0 accept
            }
        }",
        "the policy of chain FORWARD of table ip filter",
        "insert rule ip filter DOCKER-USER oifname \"g-*\" accept; \
         insert rule ip filter DOCKER-USER oifname \"br-*\" accept; \
         insert rule ip filter DOCKER-USER oifname \"rs-ing\" accept; \
         insert rule ip filter DOCKER-USER iifname \"br-*\" accept; \
         insert rule ip filter DOCKER-USER iifname \"g-*\" accept",
    ),
    (
        "table inet firewalld {
            chain zones { iifname vmap { \"lan\" : goto lan, \"eth0\" : goto public }; }
            chain lan { accept; }
            chain public { meta l4proto icmp accept; }
            chain filter_FORWARD { type filter hook forward priority 10; policy accept;
                ct state { established, related } accept
                iifname \"lo\" accept
                jump zones
                ct state invalid drop
                reject with icmpx type admin-prohibited
            }
        }",
        "of chain filter_FORWARD of table inet firewalld",
        "insert rule inet firewalld filter_FORWARD ct state new accept",
    ),
    (
        "table inet hand { chain f { type filter hook forward priority -5; \
            tcp dport 80 ip daddr { 10.75.0.0/24, 10.255.0.0/16 } drop; }; }",
        "of chain f of table inet hand",
        "delete table inet hand",
    ),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: iproute2, nftables, conntrack"]
async fn what_another_firewall_stops_is_named_as_long_as_it_does() {
    let lab = Lab::new(2);
    let (one, two) = two_nodes(&lab).await;
    let _b = Server::start(&lab.pinned(2, "b"), "b", 80);
    let _c = Server::start(&lab.pinned(1, "c"), "c", 80);
    assert_eq!(stopped(&lab, 1), []);
    for (table, by, open) in OTHERS {
        nft(&lab, 1, table);
        let found = stopped(&lab, 1);
        for (port, at) in [("8080/tcp", "192.168.77.11:8080"), ("9090/tcp", "192.168.77.11:9090")] {
            let named = |(said, certain): &(String, bool)| {
                *certain && said.contains(by) && said.ends_with(&format!("stops port {port}"))
            };
            assert!(found.iter().any(named), "{port} {by}: {found:?}");
            assert!(unreachable(&lab.client(), at) || refused_at_once(&lab.client(), at), "{at}: {by}");
        }
        nft(&lab, 1, open);
        assert_eq!(stopped(&lab, 1), [], "{open}");
        assert_eq!(greet(&lab.client(), "192.168.77.11:8080"), "b 192.168.77.100", "{open}");
        assert_eq!(greet(&lab.client(), "192.168.77.11:9090"), "c 192.168.77.100", "{open}");
    }
    nft(&lab, 1, "table inet in { chain i { type filter hook input priority 0; udp dport 4789 drop; }; }");
    let found = stopped(&lab, 1);
    let [(said, true)] = found.as_slice() else { panic!("{found:?}") };
    assert!(
        said.ends_with("of chain i of table inet in stops tunnels of other nodes (port 4789/udp)"),
        "{said}"
    );
    for host in [one, two] {
        host.destroy().await.unwrap();
    }
}
