//! Each check of the whole host where all is well, and where there is a fault of its kind.

use super::{
    host::{Daemon, Host},
    probes::{Peer, Probes, Reach, Space},
    tests::{answers, checks, found, host as secure, plant, read},
    *,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

fn node(n: u8, manager: bool) -> Value {
    let mut node = json!({
        "ID": format!("id{n}"), "Version": {"Index": 1}, "Spec": {"Role": "worker", "Availability": "active"},
        "Description": {"Hostname": format!("host{n}"), "Engine": {"EngineVersion": "1.0"}},
        "Status": {"State": "ready", "Addr": format!("192.0.2.{n}")},
    });
    if manager {
        node["ManagerStatus"] =
            json!({"Leader": n == 1, "Reachability": "reachable", "Addr": format!("192.0.2.{n}:2377")});
    }
    node
}

fn info() -> Value {
    json!({"ServerVersion": "1.0", "Swarm": {"NodeID": "id1", "LocalNodeState": "active", "ControlAvailable": true}})
}

fn peer() -> Peer {
    Peer {
        name: "host2".to_owned(),
        node_addr: "192.0.2.2:2377".parse().unwrap(),
        node_port: Reach::Answers,
        data_addr: "192.0.2.2:4789".parse().unwrap(),
        data_port: Reach::Answers,
        link_mtu: 1500,
        path_mtu: 1500,
    }
}

/// A manager of three where there is nothing to find.
fn host(root: &Path) -> Host {
    let mut host = secure(root);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        plant(&host, &format!("proc/self/ns/{kind}"), "");
    }
    plant(&host, "proc/sys/kernel/osrelease", "6.18.5-cloud\n");
    plant(&host, "proc/filesystems", "nodev\tsysfs\nnodev\toverlay\n\text4\n");
    plant(&host, "proc/sys/net/netfilter/nf_conntrack_count", "100\n");
    plant(&host, "proc/sys/net/netfilter/nf_conntrack_max", "262144\n");
    answers(&mut host).info = Ok(read(&info()));
    answers(&mut host).nodes = Ok([1, 2, 3].map(|n| read(&node(n, true))).into());
    host.probes = Some(Probes {
        sync: Ok(Duration::from_millis(2)),
        space: Ok(Space { bytes: 100 << 30, free: 50 << 30, files: 1000, free_files: 900 }),
        clock_is_held: Ok(true),
        peers: vec![peer(), peer()],
    });
    host
}

fn probes(host: &mut Host) -> &mut Probes {
    host.probes.as_mut().unwrap()
}

fn with_peer(host: &mut Host, change: impl FnOnce(&mut Peer)) {
    change(&mut probes(host).peers[1]);
}

fn with_nodes(host: &mut Host, nodes: &[Value]) {
    answers(host).nodes = Ok(nodes.iter().map(read).collect());
}

fn of_swarm(host: &mut Host, swarm: Value) {
    let mut changed = info();
    changed["Swarm"] = swarm;
    answers(host).info = Ok(read(&changed));
}

/// A check, what it must say, a word of it, and the fault.
type Case = (&'static str, State, &'static str, fn(&mut Host));

const FAULTS: &[Case] = &[
    ("daemon", State::Warn, "AppArmor confines", |h| {
        let mut warned = info();
        warned["Warnings"] = json!(["WARNING: AppArmor confines no container"]);
        answers(h).info = Ok(read(&warned));
    }),
    ("settings", State::Bad, "unknown field", |h| {
        h.settings = Err("line 3: unknown field `icc2`".to_owned())
    }),
    ("settings", State::Warn, "line 2: exec-opts", |h| {
        let file = h.root.join("daemon.json");
        fs::write(&file, "{\n\"exec-opts\": [\"native.cgroupdriver=systemd\"]}").unwrap();
        h.settings = crate::Settings::read(&file).map_err(|e| e.to_string());
    }),
    ("descriptors", State::Warn, "", |h| {
        plant(h, "proc/4242/limits", "Max open files            256              256\n")
    }),
    ("cgroups", State::Bad, "for memory", |h| plant(h, "sys/fs/cgroup/cgroup.controllers", "cpu pids\n")),
    ("namespaces", State::Bad, "of kind user", |h| fs::remove_file(h.path("/proc/self/ns/user")).unwrap()),
    ("overlay file system", State::Bad, "this is Linux 5.10.0-36-cloud-amd64, and it takes 5.14", |h| {
        plant(h, "proc/sys/kernel/osrelease", "5.10.0-36-cloud-amd64\n");
    }),
    ("overlay file system", State::Bad, "no overlayfs", |h| {
        plant(h, "proc/filesystems", "nodev\toverlayx\n")
    }),
    ("seccomp", State::Bad, "", |h| plant(h, "proc/sys/kernel/seccomp/actions_avail", "\n")),
    ("nftables", State::Bad, "no networks and no ports", |h| {
        (h.uid, h.guards) = (0, Err("cannot read tables: protocol not supported".to_owned()));
    }),
    ("nftables", State::Unknown, "cannot be read", |h| {
        (h.uid, h.guards) = (1000, Err("not permitted".to_owned()));
    }),
    ("connections", State::Warn, "new ones are dropped", |h| {
        plant(h, "proc/sys/net/netfilter/nf_conntrack_count", "250000\n");
    }),
    ("sync", State::Warn, "60.0 ms", |h| probes(h).sync = Ok(Duration::from_millis(60))),
    ("sync", State::Bad, "900.0 ms", |h| probes(h).sync = Ok(Duration::from_millis(900))),
    ("sync", State::Unknown, "Permission denied", |h| probes(h).sync = Err("Permission denied".to_owned())),
    ("space", State::Warn, "of 102400 MiB are free", |h| probes(h).space.as_mut().unwrap().free = 10 << 30),
    ("space", State::Bad, "are free", |h| probes(h).space.as_mut().unwrap().free = 1 << 30),
    ("files", State::Bad, "10 of 1000 files", |h| probes(h).space.as_mut().unwrap().free_files = 10),
    ("node port", State::Bad, "host2 at 192.0.2.2:2377 refuses", |h| {
        with_peer(h, |p| p.node_port = Reach::Refused)
    }),
    ("node port", State::Bad, "does not answer", |h| with_peer(h, |p| p.node_port = Reach::Silent)),
    ("node port", State::Bad, "unreachable", |h| {
        with_peer(h, |p| p.node_port = Reach::NoWay("Network is unreachable".to_owned()));
    }),
    ("overlay port", State::Bad, "192.0.2.2:4789/udp refuses", |h| {
        with_peer(h, |p| p.data_port = Reach::Refused)
    }),
    ("packet size", State::Bad, "host2: 1400 of 1500 bytes", |h| with_peer(h, |p| p.path_mtu = 1400)),
    ("published ports", State::Bad, "", |h| {
        h.guards.as_mut().unwrap().host = network::Guard::Broken("table inet rswarm is gone".to_owned());
    }),
    ("other firewalls", State::Unknown, "xtables", |h| {
        h.other_firewalls = Ok(network::OtherFirewalls { stopped: vec![], old_tables: true });
    }),
    ("clock", State::Warn, "nobody holds", |h| probes(h).clock_is_held = Ok(false)),
    ("odd nodes", State::Warn, "host2: clock is 9 s behind", |h| {
        let mut odd = node(2, true);
        odd["Status"]["Message"] = "clock is 9 s behind".into();
        with_nodes(h, &[node(1, true), odd]);
    }),
    ("membership", State::Bad, "cut off", |h| {
        of_swarm(h, json!({"LocalNodeState": "error", "Error": "this manager is cut off"}));
    }),
    ("membership", State::Bad, "locked", |h| of_swarm(h, json!({"LocalNodeState": "locked"}))),
    ("managers", State::Warn, "there is one manager", |h| with_nodes(h, &[node(1, true), node(2, false)])),
    ("managers", State::Warn, "an even number", |h| with_nodes(h, &[1, 2, 3, 4].map(|n| node(n, true)))),
    ("managers", State::Bad, "with one less nothing can be changed", |h| {
        let mut lost = node(3, true);
        lost["ManagerStatus"]["Reachability"] = "unreachable".into();
        with_nodes(h, &[node(1, true), node(2, true), lost]);
    }),
    ("nodes", State::Warn, "host2 is down (heartbeat failure)", |h| {
        let mut down = node(2, true);
        down["Status"] = json!({"State": "down", "Message": "heartbeat failure"});
        with_nodes(h, &[node(1, true), down]);
    }),
    ("versions", State::Warn, "versions 0.9, 1.0", |h| {
        let mut old = node(2, true);
        old["Description"]["Engine"]["EngineVersion"] = "0.9".into();
        with_nodes(h, &[node(1, true), old]);
    }),
    ("node certificate", State::Bad, "", |h| {
        plant(h, "data/swarm/certificates/node.pem", "no certificate");
    }),
];

#[test]
fn a_healthy_host_has_nothing_to_mend() {
    let dir = tempfile::tempdir().unwrap();
    for row in examine(HOST, &host(dir.path())) {
        assert!(row.finding.state == State::Ok && row.finding.hint.is_empty(), "{row:?}");
        assert!(!row.finding.found.is_empty(), "{row:?}");
    }
}

#[test]
fn each_planted_fault_is_found_with_what_to_type() {
    assert!(FAULTS.len() >= 15);
    for (name, state, words, fault) in FAULTS {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(dir.path());
        fault(&mut host);
        let finding = found(HOST, &host, name);
        assert_eq!(finding.state, *state, "{name}: {finding:?}");
        assert!(finding.found.contains(words), "{name}: {words} is not in {finding:?}");
        assert!(*state == State::Unknown || !finding.hint.is_empty(), "{name}: {finding:?}");
        // Only what is wrong is said to be.
        let others = examine(HOST, &host).into_iter().filter(|row| row.finding.state == State::Bad);
        let bad: Vec<&str> = others.map(|row| row.check).filter(|check| check != name).collect();
        assert!(bad.iter().all(|check| ["nftables", "published ports"].contains(check)), "{name}: {bad:?}");
    }
    let tried: BTreeSet<&str> = FAULTS.iter().map(|(name, ..)| *name).collect();
    let all: Vec<&str> = checks(HOST).iter().map(|check| check.name).collect();
    assert_eq!(tried, all.iter().copied().collect());
    assert_eq!(tried.len(), all.len(), "two checks have one name");
}

#[test]
fn a_host_that_was_not_tried_or_has_no_daemon_is_not_said_to_be_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path());
    host.probes = None;
    for name in ["sync", "space", "files", "node port", "overlay port", "packet size", "clock"] {
        assert_eq!(found(HOST, &host, name).state, State::Unknown, "{name}");
    }
    host.daemon = Daemon::Down("cannot connect".to_owned());
    for name in ["daemon", "membership", "managers", "nodes", "versions", "node port"] {
        assert_eq!(found(HOST, &host, name).state, State::Unknown, "{name}");
    }
}

#[test]
fn a_host_by_itself_has_no_swarm_to_be_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path());
    of_swarm(&mut host, json!({"LocalNodeState": "inactive"}));
    for name in ["membership", "managers", "nodes", "versions", "node port", "overlay port", "packet size"] {
        assert_eq!(found(HOST, &host, name).state, State::None, "{name}");
    }
}
