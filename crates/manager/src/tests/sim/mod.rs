//! A whole swarm in one thread, driven by a seed: what the planner, the leader's memory and the sessions decide is the
//! real thing; Raft is a list of states, and agents, kernels, wires and clocks are models that lose and delay.
//!
//! ```text
//!  people, faults --> [log] --> replicas, behind --> [Told] ~~wire~~> [host] ledger, containers, kernel's tables
//!                       ^                                               |
//!    observed, plan::step, Presence <-- reports, acknowledgements <~~~~~'
//! ```
//! After each step the *truth* is judged, what hosts really run and hold, not what managers believe ([`truth`]). When
//! the last fault has passed, the swarm must be as it was asked to be in bounded time. A seed replays to the same step.
//!
//! `SIM_SEEDS=FROM..TO` runs other seeds than the fixed ones, `SIM_SEEDS=FROM..` as many as `SIM_SECONDS` allow, and
//! `SIM_STORY=1` prints what happened in each.

mod host;
mod people;
mod tests;
mod truth;

use super::lot::Random;
use crate::{
    clock::{LeaderClock, heartbeat_period},
    dispatcher::{term::Term, told::Told},
    doubts::Marks,
    inbox::Observation,
    leader::observed,
    presence::{Alive, ClusterAcks, Presence, Subject},
    published::Published,
    tests::state::state,
};
use host::Host;
use model::*;
use plan::Acks;
use proto::dispatcher::{AgentMessage, ManagerMessage, StatusAck, manager_message::Message as Down};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::time::Instant;

const TICK: Duration = Duration::from_millis(50);
/// How long a manager that hears no majority serves on.
const LEASE: Duration = Duration::from_secs(3);
/// Periods after which either end of a session takes the other for gone.
const SILENT_PERIODS: u32 = 4;
const MANAGERS: usize = 3;
const HOSTS: usize = 5;
/// Views that replicas may be behind.
const VIEWS_MAX: usize = 400;

/// A mistake that someone could make, to see that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// An acknowledgement counts for the newest table, not for the one that was sent.
    AcksCountForTheNewest,
    /// A node that has not reported holds nothing.
    UnheardHoldsNothing,
    /// What is given up is free at once.
    NobodyWaitsForAcks,
    /// A daemon that is away holds nothing.
    AwayHoldsNothing,
    /// Nodes have no time to come to a new leader.
    NoGrace,
    /// A session begins on a replica that is behind.
    StaleReplica,
    /// A node is taken to have dropped a network when it was told to.
    DroppedWhenTold,
    /// What a node holds from an earlier session is not asked for.
    EarlierNetworksForgotten,
    /// Statuses are acknowledged before they are in the log.
    AckedBeforeWritten,
    /// Statuses are taken in any order.
    StatusGoesBack,
    /// A host that lost a container says nothing of it.
    LostContainerUntold,
    /// A host is dead when its daemon is.
    HostsAreNotAsked,
    /// Nodes were silent while the managers stood still.
    StallsAreNotExcused,
    /// The leader's time begins anew whenever it is read.
    TimeBeginsAnew,
    /// The tasks of a node that is down hold nothing.
    DownHoldsNothing,
    /// A message to an agent is lost, and its session goes on.
    LostMessagesAreNotNoticed,
    /// An agent begins what it is told, however late.
    AssignedTooLate,
}

/// The manager's side of a session.
struct Served {
    id: u64,
    /// When it has caught up with the leader: it publishes nothing before.
    begins_at: Duration,
    /// It was told what there is.
    begun: bool,
    told: Told,
    term: Term,
    /// There was something that it could not be told yet.
    held_back: bool,
    heard_at: Duration,
    /// For how long the managers had stood still by then.
    stalled_before: Duration,
    /// As in `Sessions`: `None` until it has said what it holds.
    acks: Option<BTreeMap<Subject, u64>>,
    pending: Vec<(Vec<u64>, Observation)>,
    /// With the number of the leader it went to.
    in_flight: Option<(u64, Vec<u64>, Observation)>,
}

struct Manager {
    node: NodeId,
    view: usize,
    published: Arc<Published>,
    sessions: BTreeMap<usize, Served>,
    acks: ClusterAcks,
    report_at: Duration,
    touched_at: Duration,
    /// It applies nothing until then: it is slow.
    slow_until: Duration,
    /// It caught up for a session that began; its others have yet to hear of that.
    caught_up: bool,
    /// Of its reports to the leader so many in a row, up to the last one.
    lost_reports: u32,
}

struct Leader {
    number: u64,
    manager: usize,
    presence: Presence,
    clock: LeaderClock,
    /// When it is there, the manager, the host and the session it is from.
    waiting: Vec<(Duration, usize, usize, u64, Observation)>,
    wake_at: Duration,
    seen: usize,
}

pub(super) struct Sim {
    random: Random,
    planted: Option<Planted>,
    start: Instant,
    pub(super) at: Duration,
    views: VecDeque<Arc<Tables>>,
    first_view: usize,
    managers: Vec<Manager>,
    hosts: Vec<Host>,
    leader: Option<Leader>,
    leaders: u64,
    lead_at: Duration,
    /// How far each host's wall clock is ahead.
    ahead: Vec<Duration>,
    ids: u128,
    last_session: u64,
    names: u64,
    /// When the last fault was over.
    calm_since: Duration,
    pub(super) steps: u64,
    story: Vec<String>,
    /// What must never be and was.
    pub(super) wrong: Option<String>,
    /// When a host, a wire or the leader last changed.
    disturbed_at: Duration,
    /// All managers stand still until then, as on machines that are paused together: nobody leads instead.
    stalled_until: Duration,
    /// For how long they did in all.
    stalled: Duration,
    /// And for how long as far as they have noticed.
    noticed: Duration,
}

impl Sim {
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut random = Random::new(seed);
        let cluster = Cluster {
            // Small pools: what is given up is soon wanted again.
            address_pools: vec!["10.0.0.0/25".parse().unwrap()],
            subnet_prefix: 28,
            spec: ClusterSpec { daemon_grace: Some(Duration::from_secs(12)), ..ClusterSpec::default() },
            ..Cluster::new(ClusterId(1))
        };
        let mut first = state().put(Object::Cluster(Arc::new(cluster)));
        for host in 1..=HOSTS as u128 {
            first = first.node(host);
        }
        let view = Arc::new(first.tables());
        let manager = |position: usize| Manager {
            node: NodeId(position as u128 + 1),
            view: 0,
            published: Arc::new(Published::of(view.clone(), None)),
            sessions: BTreeMap::new(),
            acks: ClusterAcks::new(),
            report_at: Duration::ZERO,
            touched_at: Duration::ZERO,
            slow_until: Duration::ZERO,
            caught_up: false,
            lost_reports: 0,
        };
        Self {
            ahead: (0..HOSTS).map(|_| random.millis(0, 7_200_000)).collect(),
            random,
            planted,
            start: Instant::now(),
            at: Duration::ZERO,
            managers: (0..MANAGERS).map(manager).collect(),
            hosts: (0..HOSTS).map(|position| Host::new(NodeId(position as u128 + 1))).collect(),
            views: VecDeque::from([view]),
            first_view: 0,
            leader: None,
            leaders: 0,
            lead_at: Duration::ZERO,
            ids: 1000,
            last_session: 0,
            names: 0,
            calm_since: Duration::ZERO,
            steps: 0,
            story: Vec::new(),
            wrong: None,
            disturbed_at: Duration::ZERO,
            stalled_until: Duration::ZERO,
            stalled: Duration::ZERO,
            noticed: Duration::ZERO,
        }
    }

    pub(super) fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{:>8.2} s  {what}", self.at.as_secs_f64()));
    }

    /// Returns what happened, the last 60 lines of it.
    pub(super) fn story(&self) -> String {
        self.story[self.story.len().saturating_sub(60)..].join("\n")
    }

    fn now(&self) -> Instant {
        self.start + self.at
    }

    /// What a host's wall clock shows.
    fn wall(&self, host: usize) -> Timestamp {
        Timestamp(1_700_000_000_000_000_000).after(self.at + self.ahead[host])
    }

    pub(super) fn newest(&self) -> &Arc<Tables> {
        self.views.back().expect("there is a first state")
    }

    fn newest_number(&self) -> usize {
        self.first_view + self.views.len() - 1
    }

    fn view(&self, number: usize) -> Arc<Tables> {
        self.views[number.saturating_sub(self.first_view)].clone()
    }

    /// Writes to the log as Raft does: judged in the order of the log.
    fn commit(&mut self, batch: &Batch) -> Result<(), Conflict> {
        let mut tables = Tables::clone(self.newest());
        let index = tables.index + 1;
        tables.apply(index, batch)?;
        let tables = Arc::new(tables);
        self.written(&tables);
        self.views.push_back(tables);
        if self.views.len() > VIEWS_MAX {
            self.views.pop_front();
            self.first_view += 1;
        }
        Ok(())
    }

    /// A host's manager takes part.
    fn takes_part(&self, manager: usize) -> bool {
        let host = &self.hosts[manager];
        host.power && host.daemon && !host.cut
    }

    fn has_majority(&self) -> bool {
        (0..MANAGERS).filter(|m| self.takes_part(*m)).count() * 2 > MANAGERS
    }

    /// Lets one tick pass.
    pub(super) fn step(&mut self) {
        self.at += TICK;
        self.steps += 1;
        for host in 0..HOSTS {
            if self.hosts[host].heals_at.is_some_and(|at| at <= self.at) {
                self.mend(host);
            }
        }
        if self.at < self.stalled_until {
            self.stand_still();
        } else {
            self.notice_stall();
            self.elect();
            for manager in 0..MANAGERS {
                self.manage(manager);
            }
            self.turn();
        }
        for host in 0..HOSTS {
            self.host_steps(host);
        }
        self.judge();
    }

    /// A tick in which no manager does anything.
    fn stand_still(&mut self) {
        self.stalled += TICK;
        for manager in &mut self.managers {
            manager.touched_at += TICK;
        }
    }

    fn notice_stall(&mut self) {
        let stall = self.stalled - std::mem::replace(&mut self.noticed, self.stalled);
        let (now, excused) = (self.now(), !self.has(Planted::StallsAreNotExcused));
        let period = heartbeat_period(self.newest());
        if let Some(leader) = self.leader.as_mut().filter(|_| excused && stall > Duration::ZERO) {
            leader.presence.excuse(now, period, stall);
        }
    }

    fn elect(&mut self) {
        let deposed =
            self.leader.as_ref().is_some_and(|l| !self.takes_part(l.manager) || !self.has_majority());
        if deposed {
            self.depose();
        }
        if self.leader.is_some() || !self.has_majority() || self.at < self.lead_at {
            return;
        }
        let able: Vec<usize> = (0..MANAGERS).filter(|m| self.takes_part(*m)).collect();
        let manager = able[self.random.below(able.len())];
        self.leaders += 1;
        self.disturbed_at = self.at;
        let mut presence = Presence::default();
        presence.begin();
        self.leader = Some(Leader {
            number: self.leaders,
            manager,
            presence,
            clock: LeaderClock::begin(self.wall(manager), self.now()),
            waiting: Vec::new(),
            wake_at: self.at,
            seen: usize::MAX,
        });
        self.managers[manager].view = self.newest_number();
        self.tell(format!("manager {} leads", manager + 1));
    }

    fn depose(&mut self) {
        if let Some(leader) = self.leader.take() {
            self.tell(format!("manager {} leads no longer", leader.manager + 1));
            self.lead_at = self.at + self.random.millis(300, 1500);
        }
    }

    /// One turn of the leader loop, as `leader::turn`.
    fn turn(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        let (now, view) = (self.now(), self.newest().clone());
        let period = heartbeat_period(&view);
        if !self.has(Planted::HostsAreNotAsked) {
            for (node, _) in leader.presence.ask_hosts(now, period, &view, 128) {
                let host = &self.hosts[position(node)];
                leader.presence.host_was_asked(now, node, host.power && !host.cut);
            }
        } else {
            for host in &self.hosts {
                leader.presence.host_was_asked(now, host.node, false);
            }
        }
        if leader.seen == self.newest_number() && leader.waiting.is_empty() && self.at < leader.wake_at {
            self.leader = Some(leader);
            return;
        }
        let hurried = if self.has(Planted::NoGrace) { now + period * 6 } else { now };
        leader.presence.in_touch(true);
        let silent = leader.presence.silent(hurried, period, &view);
        let returned = leader.presence.returned(now, &view);
        let at = self.at;
        let (waiting, later) = std::mem::take(&mut leader.waiting).into_iter().partition(|w| w.0 <= at);
        leader.waiting = later;
        let waiting: Vec<(Duration, usize, usize, u64, Observation)> = waiting;
        let stamp = leader.clock.read(self.wall(leader.manager), now).0.now;
        if self.has(Planted::StatusGoesBack) {
            self.write_whatever(&waiting, stamp);
        }
        let heard = waiting.iter().map(|(.., observation)| observation);
        let batches = observed(&view, stamp, heard, &silent, &returned, &[]);
        let mut written = true;
        for batch in &batches {
            written &= self.commit(batch).is_ok();
        }
        if self.has(Planted::DownHoldsNothing) {
            self.forget_tasks_of_the_down(stamp);
        }
        for node in &silent.lost {
            self.tell(format!("node {} is lost", node.0));
        }
        if written {
            for (_, manager, host, session, _) in waiting {
                self.acknowledge_statuses(manager, host, session);
            }
        } else {
            leader.waiting.extend(waiting);
        }

        let view = self.newest().clone();
        let mut acks = leader.presence.cluster_acks(&view);
        if self.has(Planted::AwayHoldsNothing) {
            acks = leader.presence.cluster_acks(&truth::without_away(&view));
        }
        if self.has(Planted::NobodyWaitsForAcks) {
            acks.values_mut().for_each(|index| *index = view.index);
        }
        self.managers[leader.manager].acks.clone_from(&acks);
        let acks = Acks {
            mesh: acks.get(&None).copied(),
            networks: acks.into_iter().filter_map(|(subject, index)| Some((subject?, index))).collect(),
        };
        let mut clock = leader.clock.read(self.wall(leader.manager), now).0;
        if self.has(Planted::TimeBeginsAnew) {
            clock.since = clock.now;
        }
        let mut ids = self.ids;
        let plan = plan::step(&view, clock, &acks, &mut || {
            ids += 1;
            ids
        });
        self.ids = ids;
        let mut again = false;
        let mut left = plan.batches.len();
        for batch in &plan.batches {
            // Now and then it is deposed between two of them.
            if left > 1 && self.random.once_in(40) && self.at < self.calm_since {
                break;
            }
            left -= 1;
            again |= self.commit(batch).is_err();
        }
        leader.seen = if again || !written { usize::MAX } else { self.newest_number() };
        let planned = plan.wake_at.map(|at| self.at + at.since(clock.now).max(TICK));
        let looks = silent.next.map(|at| at.saturating_duration_since(self.start));
        leader.wake_at = [planned, looks].into_iter().flatten().min().unwrap_or(Duration::MAX);
        if !plan.batches.is_empty() {
            leader.seen = usize::MAX; // to see that nothing follows
        }
        let deposed = left > 0;
        self.leader = Some(leader);
        if deposed {
            self.depose();
        }
    }

    fn forget_tasks_of_the_down(&mut self, stamp: Timestamp) {
        let tables = self.newest().clone();
        let down = tables.nodes.values().filter(|node| node.status.state == NodeState::Down);
        let tasks = down.flat_map(|node| tables.tasks_of_node(node.id));
        let given_up = tasks.filter(|task| task.desired >= Desired::Shutdown);
        let changes: Vec<Change> = given_up
            .map(|task| Change::Delete { key: ObjectRef::Task(task.id), version: task.meta.version })
            .collect();
        if !changes.is_empty() {
            self.commit(&Batch { at: stamp, changes }).expect("tasks that are there");
        }
    }

    fn write_whatever(&mut self, waiting: &[(Duration, usize, usize, u64, Observation)], stamp: Timestamp) {
        let reports = waiting.iter().flat_map(|(.., observation)| &observation.tasks);
        let mut changes: BTreeMap<TaskId, Change> = BTreeMap::new();
        for (_, id, status) in reports {
            let Some(task) = self.newest().tasks.get(id) else { continue };
            let mut task = Task::clone(task);
            task.status = status.clone();
            changes.insert(*id, Change::Put(Object::Task(Arc::new(task))));
        }
        let changes: Vec<Change> = changes.into_values().collect();
        if !changes.is_empty() {
            self.commit(&Batch { at: stamp, changes }).ok();
        }
    }

    /// The leader has written what this session reported.
    fn acknowledge_statuses(&mut self, manager: usize, host: usize, session: u64) {
        let Some(served) = self.managers[manager].sessions.get_mut(&host).filter(|s| s.id == session) else {
            return;
        };
        let Some((_, sequences, _)) = served.in_flight.take() else { return };
        for sequence in sequences {
            let ack = Down::StatusAck(StatusAck { sequence });
            self.send_down(host, session, ManagerMessage { message: Some(ack), gone_at: 0 });
        }
    }

    fn send_down(&mut self, host: usize, session: u64, message: ManagerMessage) {
        let due = self.at + self.random.millis(1, 120);
        self.hosts[host].to_agent.push_back((due, session, message));
    }

    /// One manager applies, publishes, hears its sessions and tells the leader.
    fn manage(&mut self, manager: usize) {
        if !(self.hosts[manager].power && self.hosts[manager].daemon) {
            self.managers[manager].sessions.clear();
            return;
        }
        if self.hosts[manager].cut || !self.has_majority() {
            if self.at > self.managers[manager].touched_at + LEASE {
                self.managers[manager].sessions.clear();
            }
        } else {
            self.managers[manager].touched_at = self.at;
            let newest = self.newest_number();
            let behind = self.managers[manager].view.max(self.first_view);
            if self.random.once_in(60) && self.at < self.calm_since {
                self.managers[manager].slow_until = self.at + self.random.millis(500, 2900);
            }
            let to = if self.at < self.managers[manager].slow_until {
                behind
            } else if self.random.once_in(4) {
                behind + self.random.below(newest - behind + 1)
            } else {
                newest
            };
            self.managers[manager].view = to;
        }
        let view = self.view(self.managers[manager].view);
        let new = self.managers[manager].published.view.index != view.index;
        let tells = std::mem::take(&mut self.managers[manager].caught_up) || new;
        if new {
            let before = self.managers[manager].published.clone();
            self.managers[manager].published = Arc::new(Published::of(view.clone(), Some(&before)));
        }
        let period = heartbeat_period(&view);
        let (at, stalled) = (self.at, self.stalled);
        let excused = |served: &Served| stalled - served.stalled_before;
        self.managers[manager]
            .sessions
            .retain(|_, served| at < served.heard_at + excused(served) + period * SILENT_PERIODS);
        for host in 0..HOSTS {
            self.hear(manager, host);
            let served = self.managers[manager].sessions.get(&host);
            let due = served.is_some_and(|s| s.told.is_draining() || s.held_back || !s.begun);
            if tells || due {
                self.publish(manager, host);
            }
            self.report(manager, host);
        }
        self.tell_leader(manager, period);
    }

    /// Takes in what has arrived from a host.
    fn hear(&mut self, manager: usize, host: usize) {
        let reachable = !self.hosts[host].cut && !self.hosts[manager].cut || manager == host;
        while reachable
            && self.hosts[host].session.is_some_and(|s| s.manager == manager)
            && self.hosts[host].to_manager.front().is_some_and(|(due, ..)| *due <= self.at)
        {
            let Some((_, session, message)) = self.hosts[host].to_manager.pop_front() else { return };
            self.heard(manager, host, session, message);
        }
    }

    fn heard(&mut self, manager: usize, host: usize, session: u64, message: AgentMessage) {
        use proto::dispatcher::{Heartbeat, agent_message::Message as Up};
        let (node, at, stalled) = (self.hosts[host].node, self.at, self.stalled);
        let (eager, early) =
            (self.has(Planted::AcksCountForTheNewest), self.has(Planted::AckedBeforeWritten));
        let Some(served) = self.managers[manager].sessions.get_mut(&host).filter(|s| s.id == session) else {
            return;
        };
        (served.heard_at, served.stalled_before) = (at, stalled);
        match message.message {
            Some(Up::Heartbeat(_)) => {
                let answer = Down::Heartbeat(Heartbeat::default());
                self.send_down(host, session, ManagerMessage { message: Some(answer), gone_at: 0 });
            }
            Some(Up::Statuses(report)) => {
                let mut tasks = Vec::new();
                for task in report.tasks {
                    let (id, status) = crate::dispatcher::report_from_wire(task).expect("a report");
                    tasks.push((node, id, status));
                }
                let observation = Observation { nodes: Vec::new(), tasks };
                if early {
                    let ack = Down::StatusAck(StatusAck { sequence: report.sequence });
                    served.pending.push((Vec::new(), observation));
                    self.send_down(host, session, ManagerMessage { message: Some(ack), gone_at: 0 });
                } else {
                    served.pending.push((vec![report.sequence], observation));
                }
            }
            Some(Up::NetworkAck(ack)) => {
                served.told.hear(&ack).expect("an acknowledgement");
                let mut acks = served.told.acks();
                if eager {
                    let newest = self.managers[manager].published.view.index;
                    acks.values_mut().for_each(|index| *index = newest);
                }
                let served = self.managers[manager].sessions.get_mut(&host).expect("it is there");
                served.acks = Some(acks);
                self.managers[manager].report_at = at;
            }
            Some(Up::Hello(_) | Up::Description(_)) | None => {}
        }
    }

    fn publish(&mut self, manager: usize, host: usize) {
        let (now, eager) = (self.now(), self.has(Planted::AcksCountForTheNewest));
        let (stalled, skips) =
            (self.stalled, self.has(Planted::LostMessagesAreNotNoticed) && self.random.once_in(200));
        let anything = self.has(Planted::StaleReplica);
        let this = &mut self.managers[manager];
        let (published, acks) = (this.published.clone(), this.acks.clone());
        let at = self.at;
        let Some(served) = this.sessions.get_mut(&host).filter(|served| served.begins_at <= at) else {
            return;
        };
        let session = served.id;
        served.held_back = !anything && !served.term.may_tell(now, published.view.index);
        if served.held_back {
            return;
        }
        let deaf = skips && served.acks.is_some();
        match served.told.publish(now, stalled, &published, &acks) {
            Ok(news) => {
                served.begun = true;
                let mut acks = served.told.acks();
                if eager && served.acks.is_some() {
                    acks.values_mut().for_each(|index| *index = published.view.index);
                }
                if served.acks.as_ref() != Some(&acks) {
                    served.acks = Some(acks);
                    this.report_at = self.at;
                }
                for message in news.into_iter().filter(|_| !deaf) {
                    self.send_down(host, session, message);
                }
            }
            Err(_) => drop(this.sessions.remove(&host)),
        }
    }

    /// Sends what a session said to the leader, one report at a time, until it is written.
    fn report(&mut self, manager: usize, host: usize) {
        let Some(leader) = self.leader.as_mut() else { return };
        let takes_part = manager == leader.manager || !self.hosts[manager].cut;
        let Some(served) = self.managers[manager].sessions.get_mut(&host).filter(|_| takes_part) else {
            return;
        };
        if served.in_flight.as_ref().is_some_and(|(number, ..)| *number == leader.number) {
            return;
        }
        let next = match served.in_flight.take() {
            Some((_, sequences, observation)) => Some((sequences, observation)),
            None if served.pending.is_empty() => None,
            None => {
                let mut all: (Vec<u64>, Observation) = Default::default();
                for (sequences, observation) in served.pending.drain(..) {
                    all.0.extend(sequences);
                    all.1.tasks.extend(observation.tasks);
                }
                Some(all)
            }
        };
        let Some((sequences, observation)) = next else { return };
        let due =
            self.at + if manager == leader.manager { Duration::ZERO } else { self.random.millis(5, 200) };
        leader.waiting.push((due, manager, host, served.id, observation.clone()));
        served.in_flight = Some((leader.number, sequences, observation));
    }

    fn tell_leader(&mut self, manager: usize, period: Duration) {
        if self.at < self.managers[manager].report_at || self.hosts[manager].cut {
            return;
        }
        let now = self.now();
        let view = self.newest().clone();
        let unheard_holds_nothing = self.has(Planted::UnheardHoldsNothing);
        let without = self.has(Planted::AwayHoldsNothing).then(|| truth::without_away(&view));
        let lost_on_the_way = self.at < self.calm_since && self.random.once_in(30);
        let Some(leader) = self.leader.as_mut() else { return };
        let this = &mut self.managers[manager];
        this.report_at = self.at + period;
        this.lost_reports = if lost_on_the_way { this.lost_reports + 1 } else { 0 };
        if lost_on_the_way {
            // One is made good by the next. Of several in a row nobody can tell that the nodes behind them work.
            if this.lost_reports > 1 {
                self.disturbed_at = self.at;
                self.tell(format!("the leader hears nothing of manager {}", manager + 1));
            }
            return;
        }
        let alive = this.sessions.iter().map(|(host, served)| Alive {
            node: self.hosts[*host].node,
            addr: None,
            silent: self.at.saturating_sub(served.heard_at),
            marks: Marks::default(),
            acks: if unheard_holds_nothing {
                Some(served.acks.clone().unwrap_or_default())
            } else {
                served.acks.clone()
            },
        });
        let alive: Vec<Alive> = alive.collect();
        leader.presence.reported_by(now, this.node, &alive);
        if leader.presence.record(now, period, alive) {
            leader.wake_at = self.at;
        }
        this.acks = leader.presence.cluster_acks(without.as_ref().unwrap_or(&view));
        for served in this.sessions.values_mut() {
            served.term.renew(now, now, self.at.saturating_sub(served.heard_at), period, view.index);
        }
    }

    /// A session begins at a manager that has caught up; false if it cannot.
    fn open_session(&mut self, manager: usize, host: usize) -> Option<u64> {
        self.leader.as_ref()?;
        if !self.takes_part(manager) || self.at < self.stalled_until {
            return None;
        }
        if !self.has(Planted::StaleReplica) {
            self.managers[manager].view = self.newest_number();
            let (view, before) = (self.newest().clone(), self.managers[manager].published.clone());
            self.managers[manager].published = Arc::new(Published::of(view, Some(&before)));
            self.managers[manager].caught_up = true;
        }
        self.last_session += 1;
        let forgets = self.has(Planted::EarlierNetworksForgotten);
        let networks = self.hosts[host].may_hold().into_iter().filter(|_| !forgets);
        let told = Told::new(self.hosts[host].node, networks, !self.has(Planted::DroppedWhenTold));
        let takes = if self.random.once_in(4) { self.random.millis(100, 2000) } else { Duration::ZERO };
        let served = Served {
            id: self.last_session,
            begins_at: self.at + takes,
            begun: false,
            told,
            term: Term::default(),
            held_back: false,
            heard_at: self.at,
            stalled_before: self.stalled,
            acks: None,
            pending: Vec::new(),
            in_flight: None,
        };
        self.managers[manager].sessions.insert(host, served);
        self.managers[manager].report_at = self.at;
        self.publish(manager, host);
        Some(self.last_session)
    }
}

fn position(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap_or(0) - 1
}
