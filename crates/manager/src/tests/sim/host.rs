//! A model of a host: its agent's ledger, its containers, and the tables in its kernel.

use super::{Planted, SILENT_PERIODS, Sim, TICK};
use crate::presence::MISSED_PERIODS;
use model::{
    Desired, Duration, NetworkId, NetworkTable, NodeId, Task, TaskId, TaskState, TaskStatus, Timestamp,
};
use proto::{
    WireId as _,
    dispatcher::{
        AgentMessage, Heartbeat, ManagerMessage, NetworkAck, StatusReport, TaskReport,
        agent_message::Message as Up, manager_message::Message as Down,
    },
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Preparing,
    Ready,
    Starting,
    Running,
    Stopping,
}

impl Phase {
    /// It has its addresses, and its program may run.
    pub(super) fn is_alive(self) -> bool {
        match self {
            Self::Preparing | Self::Ready => false,
            Self::Starting | Self::Running | Self::Stopping => true,
        }
    }
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) task: Task,
    pub(super) phase: Phase,
    due: Duration,
    /// Its node was lost since it began: another may run in its place.
    pub(super) given_up: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub(super) manager: usize,
    id: u64,
    heard_at: Duration,
    /// When it said what a manager heard last: so long after it, nothing new is begun.
    answered_at: Duration,
    heartbeat_at: Duration,
    /// It was told of everything there is for it.
    is_told: bool,
}

/// A table that waits to be set in the kernel; of each network the newest.
enum Queued {
    Hold(NetworkTable),
    Drop(u64),
}

pub(super) struct Host {
    pub(super) node: NodeId,
    pub(super) power: bool,
    pub(super) daemon: bool,
    pub(super) cut: bool,
    /// When it is cut off no more by itself.
    pub(super) heals_at: Option<Duration>,
    /// When any of these changed last, and the time before.
    pub(super) changed_at: [Duration; 2],
    /// It was lost, and has not been told everything since.
    pub(super) is_behind: bool,
    pub(super) session: Option<Session>,
    pub(super) to_agent: VecDeque<(Duration, u64, ManagerMessage)>,
    pub(super) to_manager: VecDeque<(Duration, u64, AgentMessage)>,
    /// When the heartbeats were sent that its manager has not answered.
    heartbeats: VecDeque<Duration>,
    /// On disk: what its managers want of it, what ended, and what they have not acknowledged.
    pub(super) wanted: BTreeMap<TaskId, Task>,
    pub(super) ended: BTreeMap<TaskId, TaskState>,
    /// Of which it made a container.
    begun: BTreeSet<TaskId>,
    /// With the session in which it was said last.
    reports: BTreeMap<u64, (TaskId, TaskState, Option<u64>)>,
    last_report: u64,
    pub(super) containers: BTreeMap<TaskId, Container>,
    pub(super) kernel: BTreeMap<NetworkId, NetworkTable>,
    queue: BTreeMap<NetworkId, (Duration, Queued)>,
    connect_at: Duration,
}

impl Host {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            power: true,
            daemon: true,
            cut: false,
            heals_at: None,
            changed_at: [Duration::ZERO; 2],
            is_behind: false,
            session: None,
            to_agent: VecDeque::new(),
            to_manager: VecDeque::new(),
            heartbeats: VecDeque::new(),
            wanted: BTreeMap::new(),
            ended: BTreeMap::new(),
            begun: BTreeSet::new(),
            reports: BTreeMap::new(),
            last_report: 0,
            containers: BTreeMap::new(),
            kernel: BTreeMap::new(),
            queue: BTreeMap::new(),
            connect_at: Duration::ZERO,
        }
    }

    /// Returns the networks whose tables are in its kernel, or on their way there. *Source:* `agent::session`, `Hello`.
    pub(super) fn may_hold(&self) -> BTreeSet<NetworkId> {
        self.kernel.keys().chain(self.queue.keys()).copied().collect()
    }

    fn end_session(&mut self, again_at: Duration) {
        self.session = None;
        self.to_agent.clear();
        self.to_manager.clear();
        self.connect_at = again_at;
    }

    /// The daemon ends; containers and kernel stay.
    pub(super) fn stop_daemon(&mut self, at: Duration) {
        self.daemon = false;
        self.queue.clear();
        self.end_session(at);
    }

    /// Everything that is not on disk is gone; with `disk`, that too.
    pub(super) fn power_off(&mut self, at: Duration, disk: bool) {
        self.stop_daemon(at);
        self.power = false;
        if disk {
            (self.wanted, self.ended, self.reports) = Default::default();
            self.begun.clear();
        }
        self.containers.clear();
        self.kernel.clear();
    }

    /// Managers have given it up: it may hold what is no more, until it has been told everything in a new session.
    pub(super) fn is_lost(&mut self) {
        self.is_behind = true;
        self.session.iter_mut().for_each(|session| session.is_told = false);
    }

    /// Its manager's word may be older than that somebody gave this host up.
    fn assigned_too_late(&self, at: Duration) -> bool {
        self.session.is_some_and(|session| at >= session.answered_at + PERIOD * MISSED_PERIODS)
    }

    fn report(&mut self, task: TaskId, state: TaskState) {
        self.last_report += 1;
        self.reports.insert(self.last_report, (task, state, None));
    }

    fn end(&mut self, task: TaskId, state: TaskState) {
        self.containers.remove(&task);
        self.ended.insert(task, state);
        self.report(task, state);
    }
}

impl Sim {
    pub(super) fn host_steps(&mut self, host: usize) {
        if !(self.hosts[host].power && self.hosts[host].daemon) {
            return;
        }
        self.talk(host);
        self.set_tables(host);
        self.catches_up(host);
        self.run_containers(host);
        self.send_reports(host);
    }

    fn talk(&mut self, host: usize) {
        let at = self.at;
        let Some(session) = self.hosts[host].session else {
            if at >= self.hosts[host].connect_at {
                self.connect(host);
            }
            return;
        };
        let cut = session.manager != host && (self.hosts[host].cut || self.hosts[session.manager].cut);
        let served = self.managers[session.manager].sessions.get(&host).is_some_and(|s| s.id == session.id);
        if at > session.heard_at + PERIOD * SILENT_PERIODS || (!cut && !served) {
            let again = at + self.random.millis(200, 700);
            self.hosts[host].end_session(again);
            return;
        }
        while !cut && self.hosts[host].to_agent.front().is_some_and(|(due, ..)| *due <= at) {
            let Some((_, id, message)) = self.hosts[host].to_agent.pop_front() else { break };
            if id == session.id {
                self.told(host, message);
            }
        }
        if at >= session.heartbeat_at {
            if let Some(session) = &mut self.hosts[host].session {
                session.heartbeat_at = at + PERIOD;
            }
            self.hosts[host].heartbeats.push_back(at);
            self.send_up(host, Up::Heartbeat(Heartbeat::default()));
        }
    }

    fn connect(&mut self, host: usize) {
        let manager = self.random.below(self.managers.len());
        let reachable = manager == host || !self.hosts[host].cut && !self.hosts[manager].cut;
        let id = reachable.then(|| self.open_session(manager, host)).flatten();
        let again = self.at + self.random.millis(200, 700);
        let Some(id) = id else {
            self.hosts[host].connect_at = again;
            return;
        };
        let (at, this) = (self.at, &mut self.hosts[host]);
        // What was on the wire of the old session is lost; what was not acknowledged is said again.
        this.to_agent.retain(|(_, session, _)| *session == id);
        this.to_manager.clear();
        this.session =
            Some(Session { manager, id, heard_at: at, answered_at: at, heartbeat_at: at, is_told: false });
        this.heartbeats.clear();
        let states: Vec<_> = this.ended.iter().map(|(task, state)| (*task, *state)).collect();
        for (task, state) in states {
            this.report(task, state);
        }
    }

    fn send_up(&mut self, host: usize, message: Up) {
        let Some(session) = self.hosts[host].session else { return };
        let due = self.at + self.random.millis(1, 120);
        self.hosts[host].to_manager.push_back((due, session.id, AgentMessage { message: Some(message) }));
    }

    fn told(&mut self, host: usize, message: ManagerMessage) {
        // Now and then the kernel takes its time, above all for what it is to give up.
        let is_drop = matches!(message.message, Some(Down::NetworkGone(_)));
        let longest = match self.random.below(8) {
            0 => 3000,
            1 | 2 if is_drop => 20_000,
            _ => 400,
        };
        let (at, delay) = (self.at, self.random.millis(1, longest));
        let this = &mut self.hosts[host];
        if let Some(session) = &mut this.session {
            session.heard_at = at;
        }
        let begins_anything = self.has(Planted::AssignedTooLate);
        let this = &mut self.hosts[host];
        match message.message {
            Some(Down::Assignments(_)) if !begins_anything && this.assigned_too_late(at) => {
                let again = at + self.random.millis(200, 700);
                self.hosts[host].end_session(again);
            }
            Some(Down::Assignments(assigned)) => {
                let tasks: Vec<Task> =
                    assigned.tasks.into_iter().map(|task| task.try_into().expect("a task")).collect();
                if assigned.complete {
                    this.session.iter_mut().for_each(|session| session.is_told = true);
                    let named = |id: &TaskId| tasks.iter().any(|task| task.id == *id);
                    this.wanted.retain(|id, _| named(id));
                }
                for id in &assigned.removed_tasks {
                    this.wanted.remove(&TaskId::from_wire(id).expect("an id"));
                }
                for task in tasks {
                    this.wanted.insert(task.id, task);
                }
                let wanted = &this.wanted;
                this.ended.retain(|id, _| wanted.contains_key(id));
                this.begun.retain(|id| wanted.contains_key(id));
            }
            Some(Down::NetworkTable(table)) => {
                let table: NetworkTable = table.try_into().expect("a table");
                this.queue.insert(table.network, (at + delay, Queued::Hold(table)));
            }
            Some(Down::NetworkGone(network)) => {
                let network = NetworkId::from_wire(&network).expect("an id");
                this.queue.insert(network, (at + delay, Queued::Drop(message.gone_at)));
            }
            Some(Down::Ingress(table)) => {
                let ack = NetworkAck { network: Vec::new(), version: table.version, gone: false };
                self.send_up(host, Up::NetworkAck(ack));
            }
            Some(Down::StatusAck(ack)) => drop(this.reports.remove(&ack.sequence)),
            Some(Down::Heartbeat(_)) => {
                if let (Some(session), Some(sent)) = (&mut this.session, this.heartbeats.pop_front()) {
                    session.answered_at = sent;
                }
            }
            Some(Down::Welcome(_) | Down::Node(_) | Down::Managers(_) | Down::RootCa(_)) | None => {}
        }
    }

    fn set_tables(&mut self, host: usize) {
        let at = self.at;
        let due = self.hosts[host].queue.iter().filter(|(_, (due, _))| *due <= at).map(|(id, _)| *id);
        for network in due.collect::<Vec<_>>() {
            let this = &mut self.hosts[host];
            let used = this
                .containers
                .values()
                .any(|c| c.phase.is_alive() && c.task.attachments.iter().any(|a| a.network == network));
            let ack = match this.queue.remove(&network) {
                Some((_, Queued::Hold(table))) => {
                    let version = table.version;
                    this.kernel.insert(network, table);
                    NetworkAck { network: network.to_wire(), version, gone: false }
                }
                Some((due, queued @ Queued::Drop(_))) if used => {
                    this.queue.insert(network, (due, queued));
                    continue;
                }
                Some((_, Queued::Drop(index))) => {
                    this.kernel.remove(&network);
                    NetworkAck { network: network.to_wire(), version: index, gone: true }
                }
                None => continue,
            };
            self.send_up(host, Up::NetworkAck(ack));
        }
    }

    /// What a lost node holds from before is gone once it has set all that it was told in a new session.
    fn catches_up(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        let told = this.session.is_some_and(|session| session.is_told) && this.to_agent.is_empty();
        this.is_behind &= !(told && this.queue.is_empty());
    }

    fn run_containers(&mut self, host: usize) {
        let (at, silent) = (self.at, self.has(Planted::LostContainerUntold));
        let ids: Vec<TaskId> = self.hosts[host].wanted.keys().copied().collect();
        for id in ids {
            let this = &mut self.hosts[host];
            let Some(task) = this.wanted.get(&id).cloned().filter(|_| !this.ended.contains_key(&id)) else {
                continue;
            };
            let Some(container) = this.containers.get_mut(&id) else {
                let started = task.status.state.is_some_and(|state| state >= TaskState::Starting);
                if task.desired >= Desired::Shutdown {
                    this.end(id, TaskState::Shutdown);
                } else if !started && this.begun.insert(id) {
                    let due = at + self.random.millis(50, 600);
                    let this = &mut self.hosts[host];
                    this.containers
                        .insert(id, Container { task, phase: Phase::Preparing, due, given_up: false });
                } else if !silent {
                    this.end(id, TaskState::Failed);
                }
                continue;
            };
            container.task = task;
            let task = &container.task;
            let has_networks = task.attachments.iter().all(|a| this.kernel.contains_key(&a.network));
            let (grace, start) = (self.random.millis(50, 2500), self.random.millis(50, 400));
            let container = this.containers.get_mut(&id).expect("it is there");
            let stops = container.task.desired >= Desired::Shutdown;
            match container.phase {
                Phase::Preparing | Phase::Ready if stops => this.end(id, TaskState::Shutdown),
                Phase::Preparing if at >= container.due => {
                    container.phase = Phase::Ready;
                    this.report(id, TaskState::Ready);
                }
                Phase::Ready if container.task.desired >= Desired::Running && has_networks => {
                    (container.phase, container.due) = (Phase::Starting, at + start);
                    this.report(id, TaskState::Starting);
                }
                Phase::Starting | Phase::Running if stops => {
                    (container.phase, container.due) = (Phase::Stopping, at + grace);
                    self.truth_stops(host, id);
                }
                Phase::Starting if at >= container.due => {
                    container.phase = Phase::Running;
                    this.report(id, TaskState::Running);
                }
                Phase::Running if at < self.calm_since && self.random.once_in(4000) => {
                    this.end(id, TaskState::Failed);
                }
                Phase::Stopping if at >= container.due => this.end(id, TaskState::Shutdown),
                Phase::Preparing | Phase::Ready | Phase::Starting | Phase::Running | Phase::Stopping => {}
            }
        }
        self.stop_what_nobody_wants(host);
    }

    fn stop_what_nobody_wants(&mut self, host: usize) {
        let (at, this) = (self.at, &mut self.hosts[host]);
        let unwanted: Vec<TaskId> =
            this.containers.keys().filter(|id| !this.wanted.contains_key(id)).copied().collect();
        for id in unwanted {
            let this = &mut self.hosts[host];
            let Some(container) = this.containers.get_mut(&id) else { continue };
            match container.phase {
                Phase::Preparing | Phase::Ready => drop(this.containers.remove(&id)),
                Phase::Starting | Phase::Running => {
                    (container.phase, container.due) = (Phase::Stopping, at + TICK * 4);
                    self.truth_stops(host, id);
                }
                Phase::Stopping if at >= container.due => drop(this.containers.remove(&id)),
                Phase::Stopping => {}
            }
        }
    }

    fn send_reports(&mut self, host: usize) {
        let Some(session) = self.hosts[host].session else { return };
        let wall = self.wall(host);
        let waiting = self.hosts[host].reports.iter_mut().filter(|(_, (.., said))| *said != Some(session.id));
        let due: Vec<(u64, TaskId, TaskState)> = waiting
            .map(|(sequence, (task, state, said))| {
                *said = Some(session.id);
                (*sequence, *task, *state)
            })
            .collect();
        for (sequence, task, state) in due {
            let report = TaskReport { task: task.to_wire(), status: Some((&status(state, wall)).into()) };
            self.send_up(host, Up::Statuses(StatusReport { sequence, tasks: vec![report] }));
        }
    }
}

fn status(state: TaskState, at: Timestamp) -> TaskStatus {
    TaskStatus { state: Some(state), at, ..TaskStatus::default() }
}
