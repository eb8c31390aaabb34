//! What a host has of its own, its uplink and its ports, against networks and services that ask for it. Frames and
//! packets are attacked in `crates/network/tests/attacks.rs`.

use crate::{SOON, lab, load_hello};
use testkit::wait_for;

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
fn a_port_that_somebody_has_cannot_be_published_over() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    lab.exec(1, &["hello", "sink", "9100"]).expect("a program of the host");
    let in_use = "port 0.0.0.0:9100/tcp: address already in use by ";
    wait_for("the program to listen", SOON, || {
        let refused = lab.rswarm(1, &["run", "--rm", "-p", "9100:80", "rswarm/hello"]);
        if refused.stderr.contains(in_use) { Ok(()) } else { Err(format!("{refused:?}")) }
    });

    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &testkit::Lab::address(1)]).ok();
    let create = |name: &str, port: &str| {
        lab.rswarm(1, &["service", "create", "-d", "--name", name, "-p", port, "rswarm/hello", "deaf"])
    };
    let refused = create("hijack", "2377:80").fails();
    assert!(refused.contains("port '2377/tcp' cannot be published: the managers of the swarm"), "{refused}");
    let refused = create("hijack", "4789:80/udp").fails();
    assert!(refused.contains("data path port"), "{refused}");

    create("held", "mode=host,target=80,published=9100").ok();
    wait_for("the task to be told", SOON, || {
        let tasks = lab.rswarm(1, &["service", "ps", "held", "--no-trunc"]);
        if tasks.stdout.contains(in_use) { Ok(()) } else { Err(format!("{tasks:?}{}", lab.daemon_logs())) }
    });
    lab.rswarm(1, &["service", "rm", "held"]).ok();
    wait_for("the service to be gone", SOON, || {
        let created = create("web", "9100:80");
        if created.code == 0 { Ok(()) } else { Err(format!("{created:?}")) }
    });
    wait_for("the node to leave the port to its program", SOON, || {
        let logs = lab.daemon_logs();
        let said = logs.lines().any(|l| l.contains("leads nowhere on this node") && l.contains("9100"));
        if said { Ok(()) } else { Err(logs) }
    });
    // The program takes what it is sent and says nothing.
    assert!(lab.http(1, 9100).is_err());
}
