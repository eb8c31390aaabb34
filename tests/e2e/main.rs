//! The whole of rswarm on the real kernel: hosts in namespaces, real daemons, containers, networks and faults.
//!
//! Each test has a lab of its own, so they run side by side; a lab ends with its test, whatever happened.

mod attachable;
mod attacks;
mod clis;
mod cluster;
mod cluster_commands;
mod completion;
mod compose;
mod compose_flags;
mod contexts;
mod demo;
mod devices;
mod docker_cli;
mod docker_commands;
mod docker_engine;
mod docker_flags;
mod docker_inspect;
mod docker_py;
mod dockerfiles;
mod doctor;
mod dry_run;
mod examples;
mod faults;
mod flask;
mod front_door;
mod host_goes;
mod jobs;
mod leaving;
mod metrics;
mod names;
mod oci;
mod own_cli;
mod pasted;
mod plugins;
mod power;
mod private_registry;
mod provided;
mod published;
mod reasons;
mod registry;
mod service_logs;
mod service_manager;
mod single_host;
mod sockets;
mod stack_config;
mod stacks;
mod survival;
mod swarm_ca;
mod swarm_events;

use std::{path::Path, time::Duration};
use testkit::{Lab, wait_for};

/// The program under test.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rswarm"))
}

/// Time for anything that needs an election, a heartbeat to be missed, or an image to travel. Machines are slow.
const SOON: Duration = Duration::from_secs(60);

/// Starts a lab of `hosts` hosts.
fn lab(hosts: u8) -> Lab {
    Lab::start(program(), hosts).expect("a lab of hosts")
}

/// Starts a lab whose first `managers` hosts are managers and the rest workers of one swarm.
fn swarm(hosts: u8, managers: u8) -> Lab {
    let lab = lab(hosts);
    join_all(&lab, hosts, managers);
    lab
}

/// Makes one swarm of the hosts of a lab.
fn join_all(lab: &Lab, hosts: u8, managers: u8) {
    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
    for n in 2..=hosts {
        let role = if n <= managers { "manager" } else { "worker" };
        let token = lab.rswarm(1, &["swarm", "join-token", "-q", role]).ok();
        let first = format!("{}:2377", Lab::address(1));
        let join = ["swarm", "join", "--token", token.trim(), "--advertise-addr", &Lab::address(n), &first];
        lab.rswarm(n, &join).ok();
    }
    wait_for("all nodes to be ready", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Status}}"]);
        let ready = nodes.stdout.lines().filter(|l| *l == "Ready").count();
        if ready == usize::from(hosts) { Ok(()) } else { Err(format!("{nodes:?}{}", lab.daemon_logs())) }
    });
}

/// Loads the hello image, which is the program itself, on host `n`.
fn load_hello(lab: &Lab, n: u8) {
    lab.rswarm(n, &["image", "hello"]).ok();
}

/// Waits until a service runs as many tasks as it should; how many a node may have stands behind that.
fn wait_for_replicas(lab: &Lab, n: u8, service: &str, replicas: &str) {
    wait_for(&format!("{service} to run {replicas}"), SOON, || {
        let list = lab.rswarm(n, &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]);
        let counted = |line: &str| {
            line.split_once(" (").map_or(line, |(counted, _)| counted) == format!("{service} {replicas}")
        };
        if list.stdout.lines().any(counted) {
            return Ok(());
        }
        let tasks = lab.rswarm(n, &["service", "ps", service, "--no-trunc"]);
        Err(format!("{}{}{}{}", list.stdout, list.stderr, tasks.stdout, lab.daemon_logs()))
    });
}

/// Waits until the update of a service is in a state. Just after its request there is none yet, as with Docker.
fn wait_for_update(lab: &Lab, service: &str, wanted: &str) {
    let state = ["service", "inspect", "--format", "{{with .UpdateStatus}}{{.State}}{{end}}", service];
    wait_for(&format!("{service} to be {wanted}"), SOON, || {
        let state = lab.rswarm(1, &state).ok();
        if state.trim() == wanted { Ok(()) } else { Err(format!("{state:?}{}", lab.daemon_logs())) }
    });
}

/// Asks a published port until it answers and returns what it says.
fn ask(lab: &mut Lab, n: u8, port: u16) -> String {
    let logs = lab.daemon_logs();
    wait_for(&format!("host {n} to answer on port {port}"), SOON, || {
        lab.http(n, port).map_err(|e| format!("{e}{logs}"))
    })
}
