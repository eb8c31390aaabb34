//! Connections that only take up room: on the port of nodes, which everybody can reach, and on the front door.

use crate::{SOON, lab, load_hello};
use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use std::{
    fs::File,
    io::Write as _,
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};
use testkit::{Lab, on_a_shared_machine, wait_for};

/// Returns the pid of a host's daemon, as it is seen from here.
fn daemon_of(lab: &Lab, n: u8) -> Pid {
    let socket = UnixStream::connect(lab.socket(n)).expect("the daemon's socket");
    rustix::net::sockopt::socket_peercred(&socket).expect("who listens").pid
}

/// Opens connections to an address from host `n` itself; each says what belongs to its number.
fn connections(lab: &Lab, n: u8, count: usize, to: String, says: fn(usize) -> Vec<u8>) -> Vec<TcpStream> {
    let network =
        File::open(format!("/proc/{}/ns/net", daemon_of(lab, n).as_raw_pid())).expect("its network");
    let from_there = move || {
        setns(network, CloneFlags::CLONE_NEWNET).expect("to be in its network");
        let open = |number| {
            let mut stream = TcpStream::connect(&to).expect("a connection");
            // Whoever was given up already hears nothing.
            drop(stream.write_all(&says(number)));
            stream
        };
        (0..count).map(open).collect()
    };
    std::thread::spawn(from_there).join().expect("the connections")
}

/// Silence, the beginning of a TLS handshake that does not go on, what is no TLS, and one that promises much.
fn hostile(number: usize) -> Vec<u8> {
    match number % 4 {
        0 => Vec::new(),
        1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        _ => [&b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc"[..], &[0; 2000]].concat(),
    }
}

#[test]
fn a_node_joins_and_containers_start_beside_twelve_hundred_hostile_connections() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("descriptors for the attack");
    let lab = lab(2);
    load_hello(&lab, 1);
    let few = Rlimit { current: Some(1024), maximum: Some(1024) };
    prlimit(Some(daemon_of(&lab, 1)), Resource::Nofile, few).expect("the daemon to have few descriptors");
    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
    let token = lab.rswarm(1, &["swarm", "join-token", "-q", "worker"]).ok();

    // From the very address that the honest node has.
    let port = format!("{}:2377", Lab::address(1));
    let flood = connections(&lab, 2, 1200, port.clone(), hostile);
    let doors: Vec<_> = (0..600)
        .map(|_| {
            let mut half = UnixStream::connect(lab.socket(1)).expect("a connection");
            drop(half.write_all(b"GET /_ping HTTP/1.1\r\nA"));
            half
        })
        .collect();
    let asked = Instant::now();
    lab.api(1, "/_ping").expect("an answer beside half heads");
    let limit = on_a_shared_machine(Duration::from_secs(2));
    assert!(asked.elapsed() < limit, "{:?}", asked.elapsed());

    lab.rswarm(2, &["swarm", "join", "--token", token.trim(), "--advertise-addr", &Lab::address(2), &port])
        .ok();
    let ran = lab.rswarm(1, &["run", "--rm", "rswarm/hello"]);
    assert!(ran.code == 1 && ran.stderr.contains("usage: hello"), "{ran:?}{}", lab.daemon_logs());
    wait_for("both nodes to be ready", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Status}}"]);
        let ready = nodes.stdout.lines().filter(|l| *l == "Ready").count();
        if ready == 2 { Ok(()) } else { Err(format!("{nodes:?}{}", lab.daemon_logs())) }
    });
    let open =
        std::fs::read_dir(format!("/proc/{}/fd", daemon_of(&lab, 1).as_raw_pid())).expect("its fds").count();
    assert!(open < 700, "{open} of 1024 descriptors are in use");
    drop((flood, doors));
}
