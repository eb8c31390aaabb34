//! Whole managers under one seed: real stores on disks that forget what was not synced, real Raft, control and dispatcher,
//! real agents on fake hosts, on one thread, while power, wires, daemons and clocks fail and people ask for all kinds of
//! things, roles of hosts among them.
//!
//! ```text
//!  people --Control--> [host 1: manager, agent] ~~wires~~ [host 2: manager, agent] ~~ ... ~~ [host 6: agent]
//!                         its disk, containers               its disk, containers               containers
//! ```
//! What people were told must be true at any time ([`people`], [`stacks`]), and what managers have agreed on be possible
//! ([`judge`]); when the last fault has passed, all must be as asked in bounded time, and roles sooner ([`roles`]), nothing
//! acknowledged be lost, all managers have the same tables, and one order explain what clients of a register saw.
//!
//! What happens follows from the seed, but for what the libraries draw by themselves: tokio's `select!`, the pauses of
//! agents, keys. A seed that fails most often fails again; what it tells then is what happened.
//!
//! `STORM_SEEDS=FROM..TO` runs other seeds than the fixed ones, `STORM_SECONDS` says for how long, `STORM_STORY=1` prints
//! what happened in each. With
//! `--features virtual-time` time is virtual: a minute of trouble takes twenty seconds of a processor however busy it is. (It
//! is a feature because tokio is another one then, and all that stands on it is built anew.)

mod asked;
mod host;
mod judge;
#[cfg_attr(not(feature = "virtual-time"), expect(dead_code, reason = "they take virtual time to be found"))]
mod mistakes;
mod net;
mod people;
mod roles;
mod stacks;

use super::lot::Random;
use crate::{ca, planted, random};
use asked::Asks;
use host::{BEGIN, Door, Host, addr_of};
use mistakes::Mistake;
use model::*;
use net::Net;
use people::People;
use pki::Identity;
use proto::{
    ca::{JoinRaftRequest, membership_client::MembershipClient},
    control::{CreateRequest, GetSwarmRequest},
};
use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed};
use testkit::{lossy::Lie, on_a_shared_machine};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const HOSTS: u8 = 6;
/// The first hosts are managers, to begin with.
const MANAGERS: u8 = 3;
/// Time passes as fast as there is nothing to do.
const VIRTUAL: bool = cfg!(feature = "virtual-time");
/// How long people and bad luck are at work, unless `STORM_SECONDS` says otherwise. *Unit:* seconds.
const TROUBLE: u64 = if VIRTUAL { 60 } else { 12 };
/// By when all must be well after that.
const HEALS: Duration = Duration::from_secs(120);
/// By when roles must be as they were given, after the last fault.
const ROLES: Duration =
    if VIRTUAL { Duration::from_secs(10) } else { on_a_shared_machine(Duration::from_secs(10)) };
/// By when a host is empty that is to have no tasks.
const DRAINS: Duration = Duration::from_secs(20);
/// What is asked at the beginning takes no longer.
const BEGINS: Duration = Duration::from_secs(60);
const FIXED: std::ops::Range<u64> = if VIRTUAL { 0..4 } else { 0..1 };

/// A fault that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The power of a host goes; a manager's in the middle of what it writes, or of all.
    PowerCut(u8),
    /// A daemon ends and comes back.
    Away(u8),
    /// Nothing reaches a host, or nothing comes from it, or neither.
    Wires(u8),
}

/// What happened, for who reads of a failure.
#[derive(Debug, Clone)]
struct Story {
    start: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Story {
    fn tell(&self, what: &str) {
        let line = format!("{:>8.2} s  {what}", self.start.elapsed().as_secs_f64());
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

struct Storm {
    seed: u64,
    /// All disks of managers lie so.
    lie: Option<Lie>,
    random: Random,
    start: Instant,
    net: Net,
    hosts: Vec<Host>,
    last_raft_id: u64,
    worker_token: String,
    /// What has yet to pass, and when.
    passing: Vec<(Instant, Fault)>,
    story: Story,
    asks: Asks,
    /// What somebody does wrong.
    mistake: Option<Mistake>,
    /// What the managers had agreed on a moment ago.
    before: judge::Before,
}

impl Storm {
    /// A swarm of managers and workers in which all is well.
    async fn begin(seed: u64, lie: Option<Lie>) -> Self {
        pki::install_crypto();
        random::drawn::by(seed);
        let mut random = Random::new(seed);
        let net = Net::new(Random::new(random.below(1 << 40) as u64));
        let start = Instant::now();
        let mut init = ca::Init::new(1, addr_of(1));
        init.spec.heartbeat_period = Duration::from_secs(1);
        init.spec.daemon_grace = Some(Duration::from_secs(12));
        init.address_pools = vec!["10.128.0.0/22".parse().unwrap()];
        init.subnet_prefix = 27;
        let made = ca::bootstrap(init, BEGIN).unwrap();
        let mut storm = Self {
            seed,
            lie,
            random,
            start,
            net,
            hosts: Vec::new(),
            last_raft_id: 1,
            worker_token: String::new(),
            passing: Vec::new(),
            story: Story { start, lines: Arc::default() },
            asks: Asks::default(),
            mistake: None,
            before: judge::Before::default(),
        };
        let identity = Identity { node: made.node, role: Role::Manager, cluster: made.cluster };
        let mut first = Host::new(1, identity, storm.net.clone(), lie);
        first.record.raft_id = Some(1);
        storm.hosts.push(first);
        storm.start_daemon(0).await.unwrap();
        let store = &storm.hosts[0].running.as_ref().unwrap().store;
        store.bootstrap().await.unwrap();
        store.handle().leader().wait_for(|leader| leader.me).await.unwrap();
        store.handle().propose(made.batch).await.unwrap();
        storm.hosts[0].record.raft_joined = true;
        let door = storm.hosts[0].door.clone();
        let cluster = answered(async || door.control().get_swarm(GetSwarmRequest::default()).await).await;
        storm.worker_token = String::from_utf8(cluster.worker_token).unwrap();
        let manager_token = String::from_utf8(cluster.manager_token).unwrap();
        for number in 2..=HOSTS {
            let token = if number <= MANAGERS { &manager_token } else { &storm.worker_token };
            storm.join(number, &token.clone()).await;
        }
        storm
    }

    fn tell(&self, what: String) {
        self.story.tell(&what);
    }

    /// Adds a host to the swarm.
    async fn join(&mut self, number: u8, token: &str) {
        let from = addr_of(number).ip();
        let dial = |identity| self.net.channel(from, identity, addr_of(1));
        let certified = async || roles::certify(vec![dial(None)], token).await.map(tonic::Response::new);
        let identity = answered(certified).await;
        let mut host = Host::new(number, identity, self.net.clone(), self.lie);
        host.record.managers = vec![addr_of(1)];
        self.hosts.push(host);
        let position = usize::from(number) - 1;
        self.start_daemon(position).await.unwrap();
        if identity.role == Role::Manager {
            let raft_id = self.hosts[position].record.raft_id.expect("a manager has a number");
            let addr = addr_of(number).to_string();
            let request = JoinRaftRequest { raft_id, addr, feature_level: FEATURE_LEVEL };
            let leader = MembershipClient::new(self.net.channel(from, Some(identity), addr_of(1)));
            answered(async || leader.clone().join_raft(request.clone()).await).await;
            self.hosts[position].record.raft_joined = true;
        }
    }

    fn doors(&self) -> Vec<Door> {
        self.hosts.iter().map(|host| host.door.clone()).collect()
    }

    /// Bad luck, for some moments.
    async fn luck_changes(&mut self) {
        let passes = Instant::now() + self.random.millis(300, 9000);
        let any = u8::try_from(self.random.below(HOSTS.into())).unwrap() + 1;
        let managers: Vec<u8> =
            self.hosts.iter().filter(|host| host.running.is_some()).map(|host| host.number).collect();
        let manager = if managers.is_empty() { any } else { managers[self.random.below(managers.len())] };
        let faults = match self.random.below(12) {
            0 => (1..=HOSTS).map(Fault::PowerCut).collect(),
            1..=3 => vec![Fault::PowerCut(manager)],
            4 => vec![Fault::Away(manager)],
            5 | 6 => vec![Fault::Wires(manager)],
            7 => vec![Fault::Away(any)],
            8 => vec![Fault::PowerCut(any)],
            9 => vec![Fault::Wires(any)],
            10 => {
                self.a_container_ends(any);
                vec![]
            }
            _ => {
                let ahead = [0, 3600, -3600, 90_000][self.random.below(4)] * 1_000_000_000;
                self.tell(format!("the clock of host {manager} is set by {} s", ahead / 1_000_000_000));
                self.hosts[usize::from(manager) - 1].ahead.store(ahead, Relaxed);
                vec![]
            }
        };
        for fault in faults {
            if self.passing.iter().all(|(_, other)| place(*other) != place(fault)) {
                self.tell(format!("{fault:?}"));
                self.happens(fault).await;
                self.passing.push((passes, fault));
            }
        }
    }

    fn a_container_ends(&mut self, number: u8) {
        let containers = self.hosts[usize::from(number) - 1].containers.clone();
        if let Some(task) = containers.running().first() {
            self.tell(format!("task {task} fails on host {number}"));
            containers.exit(*task, 1);
        }
    }

    async fn happens(&mut self, fault: Fault) {
        match fault {
            Fault::PowerCut(number) => {
                // Now, or in the middle of one of the next things that it does to its disk.
                let deeds = self.random.below(25);
                let host = &mut self.hosts[usize::from(number) - 1];
                if host.running.is_some() {
                    host.disk.cut_after(deeds);
                } else {
                    host.disk.cut();
                }
            }
            Fault::Away(number) => self.hosts[usize::from(number) - 1].end_daemon().await,
            Fault::Wires(number) => {
                let way = self.random.below(3);
                let here = addr_of(number).ip();
                // All of them, or only some.
                let partly = self.random.once_in(2);
                for other in (1..=HOSTS).map(|n| addr_of(n).ip()).filter(|other| *other != here) {
                    if partly && self.random.once_in(2) {
                        continue;
                    }
                    if way != 1 {
                        self.net.cut(here, other);
                    }
                    if way != 0 {
                        self.net.cut(other, here);
                    }
                }
            }
        }
    }

    async fn is_over(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::PowerCut(number) => {
                let position = usize::from(number) - 1;
                // One that had little to do is off now all the same.
                self.hosts[position].disk.cut();
                self.loses_power(position).await;
                let outcome = self.random.below(1 << 20) as u64;
                let host = &mut self.hosts[position];
                host.disk = host.disk.boot(outcome).unwrap();
                self.net.set_power(addr_of(number).ip(), true);
                self.comes_back(position).await?;
            }
            Fault::Away(number) => self.comes_back(usize::from(number) - 1).await?,
            Fault::Wires(number) => self.net.mend(addr_of(number).ip()),
        }
        self.tell(format!("over: {fault:?}"));
        Ok(())
    }

    async fn comes_back(&mut self, position: usize) -> Result<(), String> {
        if self.hosts[position].daemon.is_some() || self.hosts[position].errands.is_out() {
            return Ok(());
        }
        let started = self.start_daemon(position).await;
        started.map_err(|error| format!("host {} does not start again: {error:?}", position + 1))
    }

    /// What ran on a host whose power is off runs no more, and nobody hears of it.
    async fn loses_power(&mut self, position: usize) {
        let addr = addr_of(self.hosts[position].number);
        if self.net.set_power(addr.ip(), false) {
            let host = &mut self.hosts[position];
            host.end_daemon().await;
            host.containers.reboot();
            self.tell(format!("host {} has no power", position + 1));
        }
    }

    /// Lets a moment pass.
    async fn moment(&mut self) -> Result<(), String> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for position in 0..self.hosts.len() {
            if self.hosts[position].disk.is_off() {
                self.loses_power(position).await;
            }
        }
        let now = Instant::now();
        let (over, passing) = std::mem::take(&mut self.passing).into_iter().partition(|(at, _)| *at <= now);
        self.passing = passing;
        for (_, fault) in over {
            self.is_over(fault).await?;
        }
        for position in 0..self.hosts.len() {
            self.follow(position).await?;
        }
        self.judge_moment()
    }

    async fn register(&self) -> (ConfigId, u64) {
        let request = CreateRequest { spec: Some(people::first_register()), registry_auth: None };
        let door = &self.hosts[0].door;
        let made = answered(async || door.control().create(request.clone()).await).await;
        (proto::WireId::from_wire(&made.id).unwrap(), made.version)
    }
}
/// Asks until there is an answer, while a swarm begins: on a machine with much else to do there may be an election.
async fn answered<T>(ask: impl AsyncFn() -> Result<tonic::Response<T>, tonic::Status>) -> T {
    let end = Instant::now() + BEGINS;
    loop {
        match ask().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) if status.code() == tonic::Code::Unavailable && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(status) => panic!("the swarm does not begin: {status}"),
        }
    }
}

/// Where a fault is: two at once are at two places.
fn place(fault: Fault) -> u8 {
    match fault {
        Fault::PowerCut(n) | Fault::Away(n) | Fault::Wires(n) => n,
    }
}

/// Runs one seed; returns how many requests were answered, or what went wrong.
async fn run(storm: &mut Storm) -> Result<usize, String> {
    let (register, version) = storm.register().await;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let people = People::begin(storm, register, &stop, &mut tasks);
    let seconds = std::env::var("STORM_SECONDS").map(|seconds| seconds.parse().expect("a number"));
    let calm = Instant::now() + Duration::from_secs(seconds.unwrap_or(TROUBLE));
    let is_wrong = |people: &People| people.lock().wrong.clone().map_or(Ok(()), Err);
    while Instant::now() < calm {
        if storm.random.once_in(15) {
            storm.luck_changes().await;
        }
        storm.moment().await?;
        is_wrong(&people)?;
        storm.judge_stacks(&people)?;
    }
    for (_, fault) in std::mem::take(&mut storm.passing) {
        storm.is_over(fault).await?;
    }
    storm.hosts.iter().for_each(|host| host.ahead.store(0, Relaxed));
    storm.net.calm();
    storm.tell("calm".to_owned());
    stop.cancel();
    // What they asked for last may take its time.
    while !tasks.is_empty() {
        storm.moment().await?;
        while tasks.try_join_next().is_some() {}
    }
    is_wrong(&people)?;
    heals(storm).await?;
    storm.tell("all is well".to_owned());
    drains(storm).await?;
    storm.roll_back_all().await;
    heals(storm).await?;
    storm.judge(&people, (version, 0))?;
    Ok(people.lock().answered)
}

/// Waits until all is as it was asked for.
async fn heals(storm: &mut Storm) -> Result<(), String> {
    let (mut roles_by, end) = (Instant::now() + ROLES, Instant::now() + HEALS);
    let (mut roles, mut missing) = (storm.roles_missing(), storm.missing().await);
    while missing.is_some() && Instant::now() < end {
        storm.moment().await?;
        if storm.hosts.iter().any(Host::is_on_its_way) || storm.has_left_overs() {
            // What its people have yet to ask for.
            roles_by = Instant::now() + ROLES;
        }
        roles = roles.and_then(|_| storm.roles_missing());
        if let Some(roles) = roles.as_ref().filter(|_| Instant::now() > roles_by) {
            return Err(format!("after {ROLES:?} of calm: {roles}"));
        }
        missing = storm.missing().await;
    }
    missing.map_or(Ok(()), |missing| Err(format!("after {HEALS:?} of calm: {missing}")))
}

/// Whoever drains the busiest host finds it empty soon.
async fn drains(storm: &mut Storm) -> Result<(), String> {
    let tasks = |host: &Host| host.containers.running().len();
    let busiest = (0..storm.hosts.len()).max_by_key(|position| tasks(&storm.hosts[*position])).unwrap_or(0);
    let end = Instant::now() + DRAINS;
    while let Some(missing) = storm.drained_missing(busiest).await {
        if Instant::now() > end {
            return Err(format!("after {DRAINS:?} of calm: {missing}"));
        }
        storm.moment().await?;
    }
    storm.tell(format!("host {} is empty", busiest + 1));
    Ok(())
}

/// Everything happens on one thread.
fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    #[cfg(feature = "virtual-time")]
    runtime.start_paused(true);
    runtime.enable_all().build().unwrap()
}

/// Runs one seed; returns what happened, and how it ended.
fn storm(seed: u64, lie: Option<Lie>) -> (String, Result<usize, String>) {
    storm_of(seed, lie, None)
}

/// Runs one seed, in which somebody has made this mistake.
fn storm_of(seed: u64, lie: Option<Lie>, mistake: Option<Mistake>) -> (String, Result<usize, String>) {
    planted::plant(None);
    runtime().block_on(async {
        let mut storm = Storm::begin(seed, lie).await;
        storm.mistake = mistake;
        if let Some(mistake) = mistake {
            mistake.plant(&storm);
        }
        let outcome = run(&mut storm).await;
        let story = storm.story.text();
        if std::env::var_os("STORM_STORY").is_some() {
            eprintln!("seed {seed}\n{story}");
        }
        (story, outcome)
    })
}

#[test]
fn whatever_fails_what_managers_acknowledge_is_true_and_all_is_well_in_the_end() {
    let (from, to) = match std::env::var("STORM_SEEDS") {
        Ok(asked) => {
            let (from, to) = asked.split_once("..").expect("STORM_SEEDS=FROM..TO");
            (from.parse().expect("a number"), to.parse().expect("a number"))
        }
        Err(_) => (FIXED.start, FIXED.end),
    };
    for seed in from..to {
        match storm(seed, None) {
            (_, Ok(answered)) => println!("seed {seed}: {answered} answers, all of them true"),
            (story, Err(wrong)) => {
                panic!("seed {seed}: {wrong}\n{story}\nSTORM_SEEDS={seed}..{} again", seed + 1)
            }
        }
    }
}

/// Seeds by which a disk that lies must be found.
#[cfg(feature = "virtual-time")]
const SOUGHT: u64 = 20;

#[cfg(feature = "virtual-time")]
#[test]
fn a_disk_that_lies_is_found() {
    for lie in [Lie::Files, Lie::Folders] {
        let found = (0..SOUGHT).find_map(|seed| Some((seed, storm(seed, Some(lie)).1.err()?)));
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{lie:?} is found by none of {SOUGHT} seeds"));
        println!("{lie:?} is found by seed {seed}: {wrong}");
    }
}
