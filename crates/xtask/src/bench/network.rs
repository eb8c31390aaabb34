//! TCP between containers on two hosts, through a VIP and a published port, against the bare underlay: the same
//! load between two hosts' namespaces. Rounds of all paths alternate, so that a busy machine slows all alike. Both
//! ends are on this machine: the ratios say what a path costs, not what a wire would carry.
//!
//! What locked ports cost is measured on one overlay network, by turns with the rules that lock them and without: `nft`
//! puts their table to sleep and wakes it, which changes nothing else. How much of a network they leave is measured on a
//! wire of [`WIRE`], which `tc` makes of the hosts' links: between two hosts in the memory of one machine nothing but its
//! processors is short, and a tunnel that the kernel makes without any of ours has 0.7 to 0.8 of what goes without.

use super::{
    Row,
    front_door::FrontDoor,
    hosts::{LIMIT, containers, running, succeed, swarm, until},
    median, quantile,
};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{path::Path, time::Duration};
use testkit::Lab;

const ROUNDS: usize = 5;
/// With locked ports and without: more than there are of the others, as the difference is smaller than they are.
const PAIRS: usize = 15;
/// The table that locks ports, asleep and awake. *Source:* nft(8), "TABLES".
const ASLEEP: [&str; 10] = ["nft", "add", "table", "bridge", "rswarm", "{", "flags", "dormant", ";", "}"];
const AWAKE: [&str; 5] = ["nft", "add", "table", "bridge", "rswarm"];
/// How much goes over each host's link, as `tc` says it. *Source:* tc-tbf(8).
const WIRE: &str = "10gbit";
const SECONDS: &str = "1";
const PORT: u16 = 9000;
const OTHER_SERVICES: usize = 2000;
/// Where the sink in a host's own namespace listens; [`PORT`] is published there.
const BARE_PORT: u16 = 9100;

/// Three hosts: clients on the first, backends on the second, the third an entry to the published port.
struct Bed {
    lab: Lab,
    /// The container on host 1 from which services are asked.
    client: String,
}

/// Who asks which address.
#[derive(Debug, Clone)]
enum Client {
    /// The client's container on host 1.
    Container(String),
    /// A process in the host's own namespace.
    Host(u8, String),
}

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let mut bed = Bed::start(program)?;
    let bare = Client::Host(1, format!("{}:{BARE_PORT}", Lab::address(2)));
    let task = Client::Container(format!("tasks.sink:{PORT}"));
    let vip = Client::Container(format!("sink:{PORT}"));
    let paths = [
        ("host to host, no container", bare.clone()),
        ("container to container, overlay", task.clone()),
        ("container to container, VIP", vip.clone()),
        ("host to published port, task there", Client::Host(1, format!("{}:{PORT}", Lab::address(2)))),
        ("host to published port, task elsewhere", Client::Host(1, format!("{}:{PORT}", Lab::address(3)))),
    ];
    let mut rows = Vec::new();
    for (kind, what, unit, scale) in [
        ("bytes", "TCP, 1 stream", "Gbit/s", 1e9),
        ("requests", "64-byte requests, 1 connection", "1/s", 1.0),
    ] {
        let rates = bed.compare(kind, &paths)?;
        rows.extend(rows_of(what, &paths, rates, unit, scale));
    }

    for backends in [1, 10, 100] {
        bed.scale(backends)?;
        let mut paths = vec![("host to host, no container".to_owned(), bare.clone())];
        if backends == 1 {
            paths.push(("container to container, overlay".to_owned(), task.clone()));
        }
        paths.push((format!("VIP, {backends} backend(s)"), vip.clone()));
        let rates = bed.compare("connections", &paths)?;
        // Each size runs beside the bare underlay, which needs to be shown only once.
        let known = usize::from(backends > 1);
        rows.extend(rows_of("new TCP connections", &paths, rates, "1/s", 1.0).into_iter().skip(known));
    }
    bed.add_services(OTHER_SERVICES)?;
    let paths = [
        ("host to host, no container".to_owned(), bare),
        (format!("VIP, 100 backends, {OTHER_SERVICES} other services on the network"), vip),
    ];
    let rates = bed.compare("connections", &paths)?;
    rows.extend(rows_of("new TCP connections", &paths, rates, "1/s", 1.0).into_iter().skip(1));
    Ok(rows)
}

/// What the rules cost that keep a container to its own addresses.
pub(super) fn locked_ports(program: &Path) -> Result<Vec<Row>> {
    let mut bed = Bed::start(program)?;
    let task = Client::Container(format!("tasks.sink:{PORT}"));
    let kinds = [("bytes", "TCP, 1 stream"), ("requests", "64-byte requests, 1 connection")];
    let rows: Result<Vec<Row>> =
        kinds.into_iter().map(|(kind, what)| bed.locked(kind, what, &task)).collect();
    let mut rows = rows?;
    bed.on_a_wire()?;
    let bare = Client::Host(1, format!("{}:{BARE_PORT}", Lab::address(2)));
    let paths =
        [("host to host, no container", bare), ("container to container, overlay with locked ports", task)];
    for (kind, what, unit, scale) in [
        ("bytes", "TCP, 1 stream", "Gbit/s", 1e9),
        ("requests", "64-byte requests, 1 connection", "1/s", 1.0),
    ] {
        let rates = bed.compare(kind, &paths)?;
        rows.extend(rows_of(&format!("{what}, on a wire of {WIRE}"), &paths, rates, unit, scale));
    }
    Ok(rows)
}

fn rows_of<N: AsRef<str>>(
    what: &str,
    paths: &[(N, Client)],
    rates: Vec<Vec<f64>>,
    unit: &'static str,
    scale: f64,
) -> Vec<Row> {
    let bare = rates[0].clone();
    let row = |((name, _), rates): (&(N, Client), Vec<f64>)| {
        let (low, high) = (quantile(rates.clone(), 0.0) / scale, quantile(rates.clone(), 1.0) / scale);
        let share = median(rates.iter().zip(&bare).map(|(rate, bare)| rate / bare).collect());
        Row::new(format!("{what}: {}", name.as_ref()), median(rates) / scale, unit).note(format!(
            "{share:.2} of host to host in the same round; {ROUNDS} rounds of {SECONDS} s, {low:.1} to {high:.1}"
        ))
    };
    paths.iter().zip(rates).map(row).collect()
}

impl Bed {
    fn start(program: &Path) -> Result<Self> {
        let mut lab = swarm(program, 3, 1)?;
        lab.exec(2, &["hello", "sink", &BARE_PORT.to_string()])?;
        succeed(lab.rswarm(1, &["network", "create", "-d", "overlay", "--subnet", "10.77.0.0/16", "load"]))?;
        let on = |name, host, rest: &[&str]| {
            let common = ["service", "create", "--name", name, "--network", "load", "--constraint", host];
            succeed(lab.rswarm(1, &[common.as_slice(), rest].concat()))
        };
        let (port, publish) = (PORT.to_string(), format!("{PORT}:{PORT}"));
        on("client", "node.hostname==host1", &["rswarm/hello", "deaf"])?;
        on("sink", "node.hostname==host2", &["--publish", &publish, "rswarm/hello", "sink", &port])?;
        let client = succeed(lab.rswarm(1, &["ps", "-q"]))?.trim().to_owned();
        Ok(Self { lab, client })
    }

    /// Returns the rates of every path, round by round.
    fn compare<N: AsRef<str>>(&mut self, kind: &str, paths: &[(N, Client)]) -> Result<Vec<Vec<f64>>> {
        let mut rates = vec![Vec::new(); paths.len()];
        for _ in 0..ROUNDS {
            for ((name, client), rates) in paths.iter().zip(&mut rates) {
                let rate = self.ask(kind, client).with_context(|| format!("{kind}, {}", name.as_ref()))?;
                rates.push(rate);
            }
        }
        Ok(rates)
    }

    /// Returns what is left of a rate on the overlay when its ports are locked.
    fn locked(&mut self, kind: &str, what: &str, client: &Client) -> Result<Row> {
        let mut shares = Vec::new();
        for pair in 0..PAIRS {
            let mut rate_of = |locked: bool| {
                self.lock_ports(locked)?;
                self.ask(kind, client).with_context(|| format!("{kind}, ports locked: {locked}"))
            };
            // What comes second may find the machine otherwise.
            let (with, without) = if pair % 2 == 0 {
                let with = rate_of(true)?;
                (with, rate_of(false)?)
            } else {
                let without = rate_of(false)?;
                (rate_of(true)?, without)
            };
            shares.push(with / without);
        }
        self.lock_ports(true)?;
        let (low, high) = (quantile(shares.clone(), 0.25), quantile(shares.clone(), 0.75));
        let name = format!("{what}: overlay with locked ports, of the same without");
        Ok(Row::new(name, median(shares), "")
            .note(format!("{PAIRS} pairs of {SECONDS} s by turns, half of them from {low:.2} to {high:.2}")))
    }

    /// Lets no more than [`WIRE`] leave a host.
    fn on_a_wire(&mut self) -> Result<()> {
        for n in [1, 2] {
            let shape = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf"];
            let rate = ["rate", WIRE, "burst", "512kb", "latency", "10ms"];
            let words = [["/usr/bin/env"].as_slice(), &shape, &rate].concat();
            self.run(n, &words.into_iter().map(str::to_owned).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn lock_ports(&mut self, locked: bool) -> Result<()> {
        for n in [1, 2] {
            let data = self.lab.dir().join(format!("h{n}/run/network/netns/rswarm-data"));
            let inside = format!("--net={}", data.display());
            let in_data = |words: &[&str]| -> Vec<String> {
                ["/usr/bin/nsenter", &inside].iter().chain(words).map(|word| (*word).to_owned()).collect()
            };
            let set = in_data(if locked { &AWAKE } else { &ASLEEP });
            self.run(n, &set)?;
            let listed = self.run(n, &in_data(&["nft", "list", "table", "bridge", "rswarm"]))?;
            ensure!(listed.contains("ports_in"), "the ports of host {n} have no rules:\n{listed}");
            ensure!(
                listed.contains("dormant") != locked,
                "the rules of host {n} are not as they were set:\n{listed}"
            );
        }
        Ok(())
    }

    fn run(&mut self, n: u8, words: &[String]) -> Result<String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        succeed(self.lab.exec(n, &words)?.wait(Duration::from_secs(30))?)
    }

    fn ask(&mut self, kind: &str, client: &Client) -> Result<f64> {
        let said = match client {
            Client::Container(address) => {
                self.lab.rswarm(1, &["exec", &self.client, "/hello", "blast", kind, address, SECONDS])
            }
            Client::Host(n, address) => {
                let program = self.lab.exec(*n, &["hello", "blast", kind, address, SECONDS])?;
                program.wait(Duration::from_secs(30))?
            }
        };
        let said = succeed(said)?;
        let (rate, failed) = said.trim().split_once(' ').context("no rate")?;
        if failed != "0" {
            eprintln!("{kind}, {client:?}: {failed} attempts failed");
        }
        Ok(rate.parse()?)
    }

    /// Adds services with a virtual address and no task.
    fn add_services(&self, count: usize) -> Result<()> {
        let mut manager = FrontDoor::open(&self.lab.socket(1))?;
        for n in 0..count {
            let spec = json!({
                "Name": format!("other{n}"),
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "rswarm/hello", "Args": ["deaf"]},
                    "Networks": [{"Target": "load"}],
                },
                "Mode": {"Replicated": {"Replicas": 0}},
            });
            manager.post("/services/create", &spec)?;
        }
        // The last one's name is known where the client is: so are all before it.
        let last = format!("other{}:{PORT}", count - 1);
        until("all names", LIMIT, || {
            let asked = self.lab.rswarm(1, &["exec", &self.client, "/hello", "check", &last]);
            Ok(asked.stderr.contains("refused"))
        })?;
        Ok(())
    }

    fn scale(&mut self, backends: u64) -> Result<()> {
        succeed(self.lab.rswarm(1, &["scale", "--detach", &format!("sink={backends}")]))?;
        let mut manager = FrontDoor::open(&self.lab.socket(1))?;
        let mut worker = FrontDoor::open(&self.lab.socket(2))?;
        until("backends", LIMIT, || {
            Ok(running(&mut manager, "sink")? == backends && containers(&mut worker)? as u64 == backends)
        })?;
        Ok(())
    }
}
