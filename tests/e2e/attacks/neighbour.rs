//! What a host has of its own, against networks that ask for it. Frames, packets and ports are attacked in `crates/network/tests/kernel/attacks.rs`.

use crate::{SOON, lab, load_hello, program, swarm, wait_for_replicas};
use testkit::{Lab, wait_for};

#[test]
fn a_network_with_the_name_of_the_hosts_uplink_is_refused() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let named = |name: &str| {
        let option = format!("com.docker.network.bridge.name={name}");
        lab.rswarm(1, &["network", "create", "-o", &option, "x"]).fails()
    };
    let refused = named("eth0");
    assert!(refused.contains("interface eth0 exists and is not of rswarm's making"), "{refused}");
    assert!(named("rs-ing").contains("cannot be the name of a bridge"));
    assert_eq!(lab.rswarm(1, &["network", "ls", "-q", "-f", "name=x"]).ok(), "");
    // By the uplink.
    lab.rswarm(1, &["run", "-d", "-p", "8090:80", "-e", "COUNTER=127.0.0.1:1", "rswarm/hello", "web"]).ok();
    wait_for("the port to answer", SOON, || match lab.http(1, 8090) {
        Err(text) if text.contains("No counter") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_port_is_nobodys_but_its_holders_and_one_of_loopback_stays_there() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
    // A program of the host: this one, under the name by which it answers.
    let hello = lab.dir().join("hello");
    std::os::unix::fs::symlink(program(), &hello).expect("a link");
    let hello = hello.to_str().expect("a readable path");
    let _held = lab.exec(1, &[hello, "web"]).expect("a program");
    let check =
        |lab: &mut Lab, to: &str| lab.exec(1, &[hello, "check", to]).unwrap().wait(SOON).unwrap().code;
    wait_for("the host's program to listen", SOON, || match check(&mut lab, "127.0.0.1:80") {
        0 => Ok(()),
        code => Err(code.to_string()),
    });
    for (port, holder) in
        [("80:80", "hello"), ("2377:80", "rswarm"), ("4789:80/udp", "the tunnels of the swarm")]
    {
        let said = lab.rswarm(1, &["run", "-d", "-p", port, "rswarm/hello", "web"]).fails();
        assert!(said.contains("address already in use") && said.contains(holder), "{port}: {said}");
    }
    for (port, why) in [("2377:80", "managers of the swarm listen on it"), ("4789:80/udp", "data path port")]
    {
        let create = ["service", "create", "--detach", "--name", "taken", "-p", port, "rswarm/hello", "web"];
        let said = lab.rswarm(1, &create).fails();
        assert!(said.contains(why), "{port}: {said}");
    }
    // A service's port that a program of the node has is not taken from it, and the node says so.
    lab.rswarm(1, &["service", "create", "--detach", "--name", "x", "-p", "80:80", "rswarm/hello", "web"])
        .ok();
    wait_for_replicas(&lab, 1, "x", "1/1");
    assert_eq!(check(&mut lab, "127.0.0.1:80"), 0, "the program of the host still answers");
    wait_for("the node to say who has it", SOON, || {
        let logs = std::fs::read_to_string(lab.dir().join("h1/daemon.log")).expect("the log");
        if logs.contains("80/tcp: address already in use") { Ok(()) } else { Err(logs) }
    });

    lab.rswarm(
        1,
        &["run", "-d", "-p", "127.0.0.1:8071:80", "-e", "COUNTER=127.0.0.1:1", "rswarm/hello", "web"],
    )
    .ok();
    wait_for("loopback to answer", SOON, || match check(&mut lab, "127.0.0.1:8071") {
        0 => Ok(()),
        code => Err(code.to_string()),
    });
    assert_ne!(check(&mut lab, &format!("{}:8071", Lab::address(1))), 0, "by its other address");
    lab.http(1, 8071).expect_err("from outside");
}

/// Docker makes such a network without a word. It is its own containers that do not reach the LAN; hosts and others do.
/// One that holds a host's own address is not made.
#[test]
fn a_network_of_the_swarm_over_the_hosts_own_addresses_is_told_of_and_takes_nothing_from_them() {
    let mut lab = swarm(2, 1);
    load_hello(&lab, 1);
    let lan: std::net::Ipv4Addr = Lab::address(1).parse().expect("an address");
    let [a, b, c, _] = lan.octets();
    let create = ["network", "create", "-d", "overlay", "--subnet"];
    let all = lab.rswarm(1, &[&create[..], &[&format!("{a}.{b}.{c}.0/24"), "lan"]].concat());
    assert!(all.code != 0 && all.stderr.contains(&format!("holds {a}.{b}.{c}.")), "{all:?}");
    let over = format!("{a}.{b}.{c}.128/25");
    // A node tells what it reaches a moment after it is ready.
    wait_for("the nodes to have told what they reach", SOON, || {
        let said = lab.rswarm(1, &[&create[..], &[&over, "lan"]].concat());
        assert_eq!(said.code, 0, "{said:?}");
        if said.stderr.contains("WARNING: subnet") && said.stderr.contains("1 other node") {
            assert!(said.stderr.contains("do not reach what is there"), "{said:?}");
            return Ok(());
        }
        lab.rswarm(1, &["network", "rm", "lan"]).ok();
        Err(said.stderr)
    });
    let apart = lab.rswarm(1, &[&create[..], &["10.77.0.0/24", "apart"]].concat());
    assert_eq!((apart.code, apart.stderr.as_str()), (0, ""));

    let create = ["service", "create", "--detach", "--replicas", "2", "-e", "COUNTER=127.0.0.1:1"];
    for (name, more) in [("on-it", ["--network", "lan"]), ("beside", ["-p", "8095:80"])] {
        lab.rswarm(1, &[&create[..], &["--name", name], &more, &["rswarm/hello", "web"]].concat()).ok();
        wait_for_replicas(&lab, 1, name, "2/2");
    }
    for n in [1, 2] {
        wait_for("the port to answer", SOON, || match lab.http(n, 8095) {
            Err(text) if text.contains("No counter") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Status}}"]).ok();
    assert_eq!(nodes, "Ready\nReady\n");
}
