//! Containers that a person starts on an overlay network of the swarm: to look around, to debug, to migrate.

use crate::{SOON, clis::Cli, load_hello, swarm, wait_for_replicas};
use testkit::{Lab, wait_for};

/// What a container of its own on a network sees of a name.
fn reaches(lab: &Lab, n: u8, network: &str, name: &str) -> Result<(), String> {
    let said = lab.rswarm(n, &["run", "--rm", "--network", network, "rswarm/hello", "check", name]);
    if said.code == 0 { Ok(()) } else { Err(format!("{said:?}{}", lab.daemon_logs())) }
}

fn until_reached(lab: &Lab, n: u8, name: &str) {
    wait_for(&format!("{name} to be reached from host {n}"), SOON, || reaches(lab, n, "open", name));
}

fn swarm_with_a_service() -> Lab {
    let lab = swarm(2, 1);
    for n in 1..=2 {
        load_hello(&lab, n);
    }
    lab.rswarm(1, &["network", "create", "-d", "overlay", "--attachable", "open"]).ok();
    let service = ["--name", "web", "--network", "open", "--replicas", "2", "rswarm/hello", "web"];
    lab.rswarm(1, &[&["service", "create"], service.as_slice()].concat()).ok();
    wait_for_replicas(&lab, 1, "web", "2/2");
    lab
}

#[test]
fn a_container_started_by_hand_meets_services_and_others_on_an_attachable_network() {
    attach(Cli::Ours);
}

pub(crate) fn attach(cli: Cli) {
    let mut lab = swarm_with_a_service();
    for n in 1..=2 {
        until_reached(&lab, n, "web:80");
        until_reached(&lab, n, "tasks.web:80");
    }

    let tool = ["run", "-d", "--name", "tool", "--network", "open", "--network-alias", "t", "-p", "8090:80"];
    lab.rswarm(2, &[tool.as_slice(), &["rswarm/hello", "web"]].concat()).ok();
    until_reached(&lab, 1, "tool:80");
    until_reached(&lab, 1, "t:80");
    let task = lab.rswarm(1, &["ps", "-q", "-f", "name=web"]).ok();
    lab.rswarm(1, &["exec", task.trim(), "/hello", "check", "tool:80"]).ok();
    wait_for("its published port", SOON, || lab.http_path(2, 8090, "/healthz"));
    let shown =
        cli.run(&lab, 2, &["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "open"]);
    assert!(shown.ok().split(' ').any(|name| name == "tool"));
    // It is nobody's task.
    assert!(!cli.run(&lab, 1, &["node", "ps", "host2", "--format", "{{.Name}}"]).ok().contains("tool"));

    let used = lab.rswarm(1, &["network", "rm", "open"]).fails();
    assert!(used.contains("is in use"), "{used}");

    lab.rswarm(2, &["restart", "-t", "1", "tool"]).ok();
    until_reached(&lab, 1, "tool:80");
    let address = ["inspect", "-f", "{{.NetworkSettings.Networks.open.IPAddress}}", "tool"];
    let before = cli.run(&lab, 2, &address).ok();
    lab.tell("kill-daemon 2").expect("the daemon to be killed");
    lab.tell("start-daemon 2").expect("the daemon to be started");
    lab.wait_for_daemon(2).expect("its answer");
    until_reached(&lab, 1, "tool:80");
    assert_eq!(cli.run(&lab, 2, &address).ok(), before, "a running container lost its place");

    lab.rswarm(2, &["rm", "-f", "tool"]).ok();
    lab.rswarm(1, &["service", "rm", "web"]).ok();
    wait_for("all addresses to be free", SOON, || {
        let removed = lab.rswarm(1, &["network", "rm", "open"]);
        if removed.code == 0 { Ok(()) } else { Err(format!("{removed:?}")) }
    });
}

#[test]
fn a_running_container_is_put_on_an_overlay_network_and_taken_off() {
    connect_and_disconnect(Cli::Ours);
}

pub(crate) fn connect_and_disconnect(cli: Cli) {
    let lab = swarm_with_a_service();
    lab.rswarm(2, &["run", "-d", "--name", "plain", "rswarm/hello", "web"]).ok();
    lab.rswarm(2, &["network", "connect", "--alias", "p", "open", "plain"]).ok();
    until_reached(&lab, 1, "plain:80");
    until_reached(&lab, 1, "p:80");
    lab.rswarm(2, &["exec", "plain", "/hello", "check", "web:80"]).ok();
    cli.run(&lab, 2, &["network", "disconnect", "open", "plain"]).ok();
    wait_for("its name to be gone", SOON, || match reaches(&lab, 1, "open", "plain:80") {
        Err(_) => Ok(()),
        Ok(()) => Err("it still answers".to_owned()),
    });
    assert_ne!(lab.rswarm(2, &["exec", "plain", "/hello", "check", "web:80"]).code, 0);

    // Whoever leaves the swarm leaves its networks; the container is the person's, and goes on.
    lab.rswarm(2, &["network", "connect", "open", "plain"]).ok();
    lab.rswarm(2, &["swarm", "leave"]).ok();
    let state = ["inspect", "-f", "{{.State.Status}} {{len .NetworkSettings.Networks}}", "plain"];
    assert_eq!(cli.run(&lab, 2, &state).ok(), "running 1\n");
    lab.rswarm(2, &["exec", "plain", "/hello", "check", "127.0.0.1:80"]).ok();
}

#[test]
fn what_may_not_be_attached_to_is_said_and_nothing_is_left() {
    attach_what_may_not_be(Cli::Ours);
}

pub(crate) fn attach_what_may_not_be(cli: Cli) {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["network", "create", "-d", "overlay", "closed"]).ok();
    lab.rswarm(
        1,
        &["network", "create", "-d", "overlay", "--attachable", "--subnet", "10.9.0.0/30", "small"],
    )
    .ok();
    for (flags, text) in [
        (["--network", "closed"].as_slice(), "network closed not manually attachable"),
        (&["--network", "small", "--ip", "10.9.0.2"], "the swarm chooses the addresses on its network small"),
        (&["--network", "nowhere"], "network nowhere not found"),
    ] {
        let said = cli.run(&lab, 1, &[&["run", "--rm"], flags, &["rswarm/hello", "web"]].concat());
        assert_eq!(said.code, 125, "{said:?}");
        assert!(said.stderr.contains(text), "{said:?}");
    }
    assert_eq!(lab.rswarm(1, &["ps", "-a", "-q"]).ok(), "");

    // Its one address is taken: the next is told so, and gets it once it is free.
    lab.rswarm(1, &["run", "-d", "--name", "one", "--network", "small", "rswarm/hello", "web"]).ok();
    let full = lab.rswarm(1, &["run", "--rm", "--network", "small", "rswarm/hello", "check", "one:80"]);
    assert_eq!(full.code, 125, "{full:?}");
    assert!(full.stderr.contains("no address left in network \"small\""), "{full:?}");
    lab.rswarm(1, &["rm", "-f", "one"]).ok();
    lab.rswarm(1, &["run", "-d", "--name", "two", "--network", "small", "rswarm/hello", "web"]).ok();
    lab.rswarm(1, &["rm", "-f", "two"]).ok();
}
