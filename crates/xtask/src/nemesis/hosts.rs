//! The swarm that faults happen to: three managers with disks of their own, two workers, and services.

use super::seen::{Seen, judge};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use testkit::{Cut, Disk, Door, Exec, Lab, dumps_are_alike, request};

pub(super) const HOSTS: u8 = 5;
pub(super) const MANAGERS: u8 = 3;
/// What a service with a port publishes: TCP, UDP.
const PORTS: (u16, u16) = (8080, 9953);
/// What is made at the beginning takes no longer, however slow the machine.
pub(super) const WAIT: Duration = Duration::from_secs(120);
/// What of a host's traces is of its containers.
const OF_CONTAINERS: [&str; 3] = ["/containers/", "/run/c/", "link rsx"];
/// A question waits so long for its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Somebody pressed Ctrl-C.
pub(super) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Waits for a state.
///
/// # Errors
/// It is not there in time, with what was missing last; or somebody does not want to wait.
pub(super) fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            Ok(answer) => return Ok(answer),
            Err(last) if Instant::now() > end => bail!("{what}: not within {limit:?}: {last}"),
            Err(_) => {}
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn succeed(output: testkit::Output) -> Result<String> {
    if output.code != 0 {
        bail!("exit code {}: {}{}", output.code, output.stdout, output.stderr);
    }
    Ok(output.stdout)
}

/// Returns the time as the clients of UDP print it. *Unit:* milliseconds since 1970.
pub(super) fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A client of UDP on a host, which asks all the time over one socket.
#[derive(Debug)]
struct Flow {
    client: Exec,
    /// How much of what it said was read.
    read: u64,
    /// When answers came, as [`millis`] has it.
    answers: Vec<u64>,
}

impl Flow {
    /// Reads what it has said meanwhile, whole lines.
    fn catch_up(&mut self) -> Result<()> {
        let mut file = fs::File::open(self.client.output()).context("a client without output")?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut said = Vec::new();
        file.read_to_end(&mut said)?;
        let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        let lines = String::from_utf8_lossy(&said[..whole]).into_owned();
        self.answers.extend(lines.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()));
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Swarm {
    // Before the disks: its hosts have them mounted.
    pub(super) lab: Lab,
    disks: Vec<Disk>,
    /// Wires that are cut now.
    pub(super) cut: Cut,
    programs: [String; 2],
    /// Which of the programs a host runs.
    runs: BTreeMap<u8, usize>,
    goes_back: bool,
    doors: BTreeMap<u8, Door>,
    flows: BTreeMap<u8, Flow>,
    /// What each host had when it had no containers.
    bare: BTreeMap<u8, BTreeSet<String>>,
}

impl Swarm {
    /// Starts the hosts and their services with `program`; `next`: what an upgrade puts in its place, by default a copy
    /// of it, from which hosts go back again.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) fn start(program: &Path, next: Option<&Path>) -> Result<Self> {
        let mut lab = Lab::start(program, 0)?;
        let disks = (1..=MANAGERS).map(|n| Disk::make(&lab, n)).collect::<Result<Vec<_>>>()?;
        let goes_back = next.is_none();
        let next = match next {
            Some(next) => next.canonicalize().with_context(|| format!("{}", next.display()))?,
            None => {
                let copy = lab.dir().join("next-rswarm");
                fs::copy(program, &copy).context("cannot copy the program")?;
                copy
            }
        };
        // Whoever builds meanwhile upgrades nobody.
        let this = lab.dir().join("this-rswarm");
        fs::copy(program, &this).context("cannot copy the program")?;
        let programs = [this, next].map(|path| path.display().to_string());
        for n in 1..=HOSTS {
            lab.tell(&format!("start {n}"))?;
        }
        let mut this = Self {
            lab,
            disks,
            cut: Cut::new(),
            programs,
            runs: BTreeMap::new(),
            goes_back,
            doors: BTreeMap::new(),
            flows: BTreeMap::new(),
            bare: BTreeMap::new(),
        };
        this.join_all()?;
        // The first services make what stays on each host: the mesh, the namespace of networks.
        this.make_services()?;
        let everywhere = ["service", "create", "--detach", "--name", "first", "--mode", "global"];
        let everywhere = [&everywhere[..], &["--network", "back", "rswarm/hello", "web"]].concat();
        succeed(this.lab.rswarm(1, &everywhere))?;
        this.until_whole(0, false, WAIT)?;
        this.remove_services()?;
        for n in 1..=HOSTS {
            let traces = until("a bare host", WAIT, || {
                let traces = this.lab.traces(n).map_err(|error| format!("{error:#}"))?;
                // Folders are swept up after the containers are gone.
                let is_of_container = |t: &String| OF_CONTAINERS.iter().any(|part| t.contains(part));
                if traces.iter().any(is_of_container) { Err(format!("{traces:?}")) } else { Ok(traces) }
            })?;
            this.bare.insert(n, traces);
        }
        this.make_services()?;
        for n in 1..=HOSTS {
            let door = this.lab.door(n, PORTS.0)?;
            this.doors.insert(n, door);
            this.ask_udp(n)?;
        }
        this.until_whole(millis(), true, WAIT)?;
        Ok(this)
    }

    fn join_all(&self) -> Result<()> {
        let lab = &self.lab;
        let ping = |n: u8| {
            until("the daemon to answer", WAIT, || {
                lab.api(n, "/_ping").map_err(|e| format!("host {n}: {e:#}"))
            })
        };
        for n in 1..=HOSTS {
            ping(n)?;
            succeed(lab.rswarm(n, &["image", "hello"]))?;
        }
        succeed(lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]))?;
        for n in 2..=HOSTS {
            let role = if n <= MANAGERS { "manager" } else { "worker" };
            let token = succeed(lab.rswarm(1, &["swarm", "join-token", "-q", role]))?;
            let first = format!("{}:2377", Lab::address(1));
            let join =
                ["swarm", "join", "--token", token.trim(), "--advertise-addr", &Lab::address(n), &first];
            succeed(lab.rswarm(n, &join))?;
        }
        Ok(())
    }

    /// Makes the services that clients use; those that clients themselves make are not among them.
    fn make_services(&self) -> Result<()> {
        let create = |name: &str, more: &[&str], command: &[&str]| {
            let first = ["service", "create", "--detach", "--name", name];
            succeed(self.lab.rswarm(1, &[&first, more, &["rswarm/hello"], command].concat())).map(drop)
        };
        let publish = format!("{}:53/udp", PORTS.1);
        succeed(self.lab.rswarm(1, &["network", "create", "-d", "overlay", "back"]))?;
        self.make_web()?;
        create("echo", &["--replicas", "2", "-p", &publish], &["echo", "53"])?;
        // A task that fails with its host is no reason to stop an update; and all at once, or the end of the last update
        // would be what recoveries are measured by.
        let at_once = ["--update-failure-action", "continue", "--update-parallelism", "0"];
        create("churn", &[&["--replicas", "2", "--network", "back"], &at_once[..]].concat(), &["web"])
    }

    /// Makes the service whose requests are counted. A task of it runs once it answers: else a request that comes between
    /// a program's start and its listening is refused, and tells nothing.
    fn make_web(&self) -> Result<()> {
        let seconds = |seconds: u64| seconds * 1_000_000_000;
        let health = json!({
            "Test": ["CMD", "/hello", "check", "127.0.0.1:80"],
            "StartPeriod": seconds(60), "StartInterval": seconds(1) / 4,
            // Machines that have much else to do are no reason to give a task up.
            "Interval": seconds(10), "Timeout": seconds(10), "Retries": 10,
        });
        let spec = json!({
            "Name": "web",
            "Mode": {"Replicated": {"Replicas": 4}},
            "TaskTemplate": {"ContainerSpec": {"Image": "rswarm/hello", "Args": ["web"], "Healthcheck": health}},
            "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": PORTS.0}]},
        });
        let socket = self.lab.socket(1);
        match request(&socket, "POST", "/services/create", &spec.to_string(), WAIT)? {
            (201, _) => Ok(()),
            (status, body) => bail!("service web: {status} {body}"),
        }
    }

    /// Removes all services and waits until no host has a container.
    fn remove_services(&self) -> Result<()> {
        let names = succeed(self.lab.rswarm(1, &["service", "ls", "-q"]))?;
        for name in names.lines() {
            succeed(self.lab.rswarm(1, &["service", "rm", name]))?;
        }
        until("no containers", WAIT, || {
            let mut left = String::new();
            for n in 1..=HOSTS {
                let all = self.list(n, "/containers/json?all=1")?;
                left +=
                    &all.iter().map(|c| format!(" host{n} {} {}", c["Id"], c["Names"])).collect::<String>();
            }
            if left.is_empty() { Ok(()) } else { Err(left) }
        })?;
        until("the network to be removed", WAIT, || {
            let removed = self.lab.rswarm(1, &["network", "rm", "back"]);
            if removed.code == 0 { Ok(()) } else { Err(removed.stderr) }
        })
    }

    pub(super) fn doors(&self) -> impl Iterator<Item = (u8, Door)> {
        self.doors.iter().map(|(n, door)| (*n, door.clone()))
    }

    /// Starts a client of UDP on a host.
    pub(super) fn ask_udp(&mut self, n: u8) -> Result<()> {
        let client = self.lab.exec(n, &["hello", "ask", &format!("127.0.0.1:{}", PORTS.1)])?;
        let answers = self.flows.remove(&n).map(|flow| flow.answers).unwrap_or_default();
        self.flows.insert(n, Flow { client, read: 0, answers });
        Ok(())
    }

    /// Returns for how long the clients of UDP on these hosts heard nothing, the longest of all, between two moments.
    /// Forgets what was before.
    pub(super) fn longest_silence(&mut self, hosts: &[u8], from: u64, to: u64) -> Result<Duration> {
        let mut longest = 0;
        for (n, flow) in &mut self.flows {
            flow.catch_up()?;
            flow.answers.retain(|at| *at >= from);
            if hosts.contains(n) {
                let answers = flow.answers.iter().copied().filter(|at| *at <= to);
                let ends: Vec<u64> = [from].into_iter().chain(answers).chain([to]).collect();
                let gaps = ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
                longest = gaps.fold(longest, u64::max);
            }
        }
        Ok(Duration::from_millis(longest))
    }

    /// Returns which program host `n` runs.
    pub(super) fn program_of(&self, n: u8) -> String {
        self.programs[self.runs.get(&n).copied().unwrap_or_default()].clone()
    }

    /// Returns which one it runs after the next upgrade.
    pub(super) fn next_program(&mut self, n: u8) -> String {
        let runs = self.runs.entry(n).or_default();
        *runs = if self.goes_back { 1 - *runs } else { 1 };
        self.program_of(n)
    }

    pub(super) fn has_disk_mounted(&self, n: u8) -> bool {
        self.disks.get(usize::from(n) - 1).is_some_and(Disk::is_mounted)
    }

    /// Asks `GET path` of a host for a list.
    fn list(&self, n: u8, path: &str) -> Result<Vec<Value>, String> {
        match self.get(n, path)? {
            Value::Array(list) => Ok(list),
            other => Err(format!("host {n}: {path}: {other}")),
        }
    }

    /// Asks `GET path` of a host.
    pub(super) fn get(&self, n: u8, path: &str) -> Result<Value, String> {
        let (status, body) = request(&self.lab.socket(n), "GET", path, "", PATIENCE)
            .map_err(|error| format!("host {n}: {path}: {error:#}"))?;
        if status != 200 {
            return Err(format!("host {n}: {path}: {status} {body}"));
        }
        serde_json::from_str(&body).map_err(|error| format!("host {n}: {path}: {error}"))
    }

    /// Returns who leads, as some manager has it.
    pub(super) fn leader(&self) -> Option<u8> {
        (1..=MANAGERS).find_map(|n| {
            let nodes = self.list(n, "/nodes").ok()?;
            let leader = nodes.iter().find(|node| node["ManagerStatus"]["Leader"] == true)?;
            leader["Description"]["Hostname"].as_str()?.strip_prefix("host")?.parse().ok()
        })
    }

    /// Sets a key of a node's spec through any manager that takes it.
    pub(super) fn change_node(&self, host: u8, key: &str, value: &str) -> Result<()> {
        let name = format!("host{host}");
        let through = |n: u8| {
            let nodes = self.list(n, "/nodes")?;
            let node = nodes.iter().find(|node| node["Description"]["Hostname"] == name.as_str());
            let node = node.ok_or_else(|| format!("host {n} knows no {name}"))?;
            let mut spec = node["Spec"].clone();
            if spec[key] == value {
                return Ok(());
            }
            spec[key] = value.into();
            let (id, version) = (node["ID"].as_str().unwrap_or_default(), &node["Version"]["Index"]);
            let path = format!("/nodes/{id}/update?version={version}");
            match request(&self.lab.socket(n), "POST", &path, &spec.to_string(), PATIENCE) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("host {n}: {other:?}")),
            }
        };
        until(&format!("{name} to be {value}"), WAIT, || {
            let mut said = Vec::new();
            for n in 1..=MANAGERS {
                match through(n) {
                    Ok(()) => return Ok(()),
                    Err(error) => said.push(error),
                }
            }
            Err(said.join("; "))
        })
    }

    /// Waits until everything is as asked: nodes, roles, tasks and their containers; with `clients` also that each host
    /// answers on the published ports, by UDP since the moment `since`. Returns what was missing last.
    ///
    /// # Errors
    /// It is not, in time: with what was wrong last.
    pub(super) fn until_whole(&mut self, since: u64, clients: bool, limit: Duration) -> Result<String> {
        let mut missing = String::new();
        until("everything to be as asked", limit, || {
            let whole = self.is_whole(since, clients);
            if let Err(error) = &whole {
                missing.clone_from(error);
            }
            whole
        })?;
        Ok(missing)
    }

    fn is_whole(&mut self, since: u64, clients: bool) -> Result<(), String> {
        let faults = judge(&self.look()?);
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
        if !clients {
            return Ok(());
        }
        for (n, door) in &self.doors {
            let said = door.get("/healthz").map_err(|error| format!("port of host {n}: {error}"))?;
            if said != "ok\n" {
                return Err(format!("port of host {n}: {said:?}"));
            }
        }
        for (n, flow) in &mut self.flows {
            flow.catch_up().map_err(|error| format!("UDP on host {n}: {error:#}"))?;
            if flow.answers.last().is_none_or(|at| *at < since) {
                return Err(format!("UDP on host {n}: no answer since {since}"));
            }
        }
        Ok(())
    }

    fn look(&self) -> Result<Seen, String> {
        let managers = || 1..=MANAGERS;
        let nodes = managers().map(|n| Ok((n, self.list(n, "/nodes")?))).collect::<Result<_, String>>()?;
        let standing = (1..=HOSTS).map(|n| Ok((n, self.get(n, "/info")?["Swarm"].take())));
        let standing = standing.collect::<Result<_, String>>()?;
        let containers = (1..=HOSTS).map(|n| Ok((n, self.list(n, "/containers/json")?)));
        let containers = containers.collect::<Result<_, String>>()?;
        let services = self.list(1, "/services?status=true")?;
        Ok(Seen { nodes, standing, services, tasks: self.list(1, "/tasks")?, containers })
    }

    /// Has each manager lead, and compares what they have in their tables.
    ///
    /// # Errors
    /// They differ, or one never leads.
    pub(super) fn tables_are_alike(&mut self) -> Result<()> {
        let mut dumps: BTreeMap<u8, Value> = BTreeMap::new();
        for round in 0..30 {
            self.until_whole(0, false, WAIT)?;
            let leader = self.leader().context("nobody leads")?;
            let dump = self.lab.dump(leader)?;
            if self.leader() != Some(leader) {
                continue;
            }
            dumps.insert(leader, dump);
            if dumps.len() == usize::from(MANAGERS) {
                return dumps_are_alike(&dumps.into_iter().collect::<Vec<_>>());
            }
            // How long a member waits before it stands is drawn once, when it starts: who drew long draws anew.
            let waiting = (1..=MANAGERS).filter(|n| round % 4 == 3 && !dumps.contains_key(n));
            for n in waiting.chain([leader]).collect::<Vec<_>>() {
                self.lab.tell(&format!("kill-daemon {n}"))?;
                if n == leader {
                    until("another to lead", WAIT, || match self.leader() {
                        Some(now) if now != leader => Ok(()),
                        now => Err(format!("{now:?} leads")),
                    })?;
                }
                self.lab.tell(&format!("start-daemon {n}"))?;
                until("the daemon to answer", WAIT, || {
                    self.lab.api(n, "/_ping").map_err(|error| format!("host {n}: {error:#}"))
                })?;
            }
        }
        Err(anyhow!("some never led, only {:?}", dumps.keys()))
    }

    /// Removes the services and looks for what is left of them on the hosts.
    ///
    /// # Errors
    /// Something is.
    pub(super) fn leaves_nothing(&self) -> Result<()> {
        self.remove_services()?;
        for (n, bare) in &self.bare {
            until(&format!("nothing to be left on host {n}"), WAIT, || {
                let now = self.lab.traces(*n).map_err(|error| format!("{error:#}"))?;
                let is_ours = |trace: &&String| {
                    // Programs that this has started there, some under another name than at the beginning.
                    let words = [" daemon ", " lab-host ", " hello ask "];
                    !(trace.starts_with("process ") && words.iter().any(|word| trace.contains(word)))
                };
                let left: Vec<&String> = now.difference(bare).filter(is_ours).collect();
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            })?;
        }
        Ok(())
    }

    /// Copies what the daemons logged to a folder.
    pub(super) fn save_logs(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for n in 1..=HOSTS {
            let log = self.lab.dir().join(format!("h{n}/daemon.log"));
            fs::copy(&log, folder.join(format!("host{n}.log")))
                .with_context(|| format!("{}", log.display()))?;
        }
        Ok(())
    }

    /// Returns the front doors of the managers.
    pub(super) fn front_doors(&self) -> Vec<PathBuf> {
        (1..=MANAGERS).map(|n| self.lab.socket(n)).collect()
    }
}
