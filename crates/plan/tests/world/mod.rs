//! A swarm to plan for: stored tables, a clock turned by hand, agents that do what they are told.
//!
//! Commands are text in the words of the domain; see [`World::run`]. After every step the invariants are
//! checked: batches apply, no slot runs twice, no address is given twice, nothing is overbooked.

mod invariants;
mod people;
mod seen;

use model::*;
use plan::{Acks, Clock, Plan};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

pub(crate) struct World {
    pub(crate) tables: Tables,
    pub(crate) now: Timestamp,
    /// When the present leader began to lead, by its own clock.
    since: Timestamp,
    next_id: u128,
    /// Nodes whose agents do not work.
    deaf: BTreeSet<NodeId>,
    /// Images whose containers fail at once.
    broken: BTreeSet<String>,
    /// Acknowledged versions stay where they are.
    acks_held: Option<Acks>,
    last: Plan,
    /// How often the last step looked into the tables: see [`table::looks`].
    pub(crate) looks: u64,
    /// Why what was asked for was not done.
    refused: Vec<String>,
    /// Ordinal of each task within its slot, for names.
    ordinals: BTreeMap<TaskId, (String, u64)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            tables: Tables::default(),
            now: START,
            since: START.before(duration("1s")),
            next_id: 0,
            deaf: BTreeSet::new(),
            broken: BTreeSet::new(),
            acks_held: None,
            last: Plan::default(),
            looks: 0,
            refused: Vec::new(),
            ordinals: BTreeMap::new(),
        };
        world.put(Object::Cluster(Arc::new(Cluster::new(ClusterId(1)))));
        world
    }

    /// Runs one command line (several commands with ` ; ` between) and returns what it shows.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let shown: String = line.split(" ; ").map(|command| self.command(command.trim())).collect();
        let refused: String = self.refused.drain(..).map(|why| format!("  refused: {why}\n")).collect();
        refused + &shown
    }

    fn command(&mut self, text: &str) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((verb, rest)) = words.split_first() else { return String::new() };
        match *verb {
            "nodes" => rest.iter().for_each(|name| self.edit_node(name, &[])),
            "node" => self.edit_node(rest[0], &rest[1..]),
            "cluster" => self.edit_cluster(rest),
            "network" => self.create_network(rest[0], &rest[1..]),
            "service" => self.create_service(rest[0], &rest[1..]),
            "update" => self.update_service(rest[0], &rest[1..]),
            "scale" => self.update_service(rest[0], &[&format!("replicas={}", rest[1])]),
            "rollback" => self.rollback(rest[0]),
            "rerun" => self.edit_service(rest[0], |s| s.job_iteration += 1),
            "rm" => self.edit_service(rest[0], |s| s.pending_delete = true),
            "attach" => self.attach(rest[0], rest[1], rest[2]),
            "detach" => {
                for task in self.live_tasks().iter().filter(|t| t.attaches.as_deref() == Some(rest[0])) {
                    self.report(task, TaskState::Complete, "");
                }
            }
            "rm-network" => self.remove_network(rest[0]),
            "down" => self.set_state(rest[0], NodeState::Down),
            "leave" => self.set_state(rest[0], NodeState::Disconnected),
            "away" => self.set_state(rest[0], NodeState::Away),
            "unknown" => self.set_state(rest[0], NodeState::Unknown),
            "up" => self.set_state(rest[0], NodeState::Ready),
            "drain" => self.set_availability(rest[0], Availability::Drain),
            "pause" => self.set_availability(rest[0], Availability::Pause),
            "activate" => self.set_availability(rest[0], Availability::Active),
            "rm-node" => self.remove_node(rest[0]),
            "label" => self.edit_node(rest[0], &[&format!("label.{}", rest[1])]),
            "deaf" => drop(self.deaf.insert(self.node(rest[0]).id)),
            "hears" => drop(self.deaf.remove(&self.node(rest[0]).id)),
            "broken" => drop(self.broken.insert(rest[0].to_owned())),
            "fixed" => drop(self.broken.remove(rest[0])),
            "end" => {
                let n = rest[0].parse::<usize>().unwrap();
                let live = self.live_tasks();
                if let Some(task) = live.get(n % live.len().max(1)).cloned() {
                    let state = if rest[1] == "well" { TaskState::Complete } else { TaskState::Failed };
                    self.report(&task, state, "");
                }
            }
            "fail" => self.end(rest[0], TaskState::Failed, "task: non-zero exit (1)"),
            "reject" => self.end(rest[0], TaskState::Rejected, "No such image"),
            "finish" => self.end(rest[0], TaskState::Complete, ""),
            "acks" => self.acks_held = (rest[0] == "hold").then(|| self.acks()),
            "lead" => self.lead(rest[0]),
            "tick" => self.now = self.now.after(duration(rest[0])),
            "agents" => drop(self.agents_run()),
            "step" => {
                let before = self.tables.clone();
                self.step();
                return self.difference(&before);
            }
            "settle" => {
                let before = self.tables.clone();
                self.settle();
                return self.difference(&before);
            }
            "wait" => {
                let before = self.tables.clone();
                self.wait(duration(rest[0]));
                return self.difference(&before);
            }
            "foresee" => return self.foresee(rest[0]),
            "explain" => return self.explain(rest[0]),
            "tasks" => return self.list_tasks(rest.first().copied()),
            "show" => return self.show(rest[0]),
            "why" => {
                return self.last.report.lines.iter().fold(String::new(), |mut out, line| {
                    writeln!(out, "  {line}").unwrap();
                    out
                });
            }
            other => panic!("unknown command {other:?} in {text:?}"),
        }
        String::new()
    }

    // ---- time and agents ------------------------------------------------------------------------------

    /// Plans once and applies it; true if anything changed.
    pub(crate) fn step(&mut self) -> bool {
        let acks = self.acks_held.clone().unwrap_or_else(|| self.acks());
        let mut next_id = self.next_id;
        let mut ids = || {
            next_id += 1;
            next_id
        };
        let looks = table::looks();
        let plan = plan::step(&self.tables, self.clock(), &acks, &mut ids);
        self.looks = table::looks() - looks;
        self.next_id = next_id;
        let before = self.tables.clone();
        let mut keys = BTreeSet::new();
        for batch in &plan.batches {
            assert!(!batch.changes.is_empty() && batch.changes.len() <= 200);
            for change in &batch.changes {
                let key = match change {
                    Change::Put(object) => object.key(),
                    Change::Delete { key, .. } => *key,
                };
                assert!(keys.insert(key), "{key} is changed twice in one plan");
            }
            let index = self.tables.index + 1;
            self.tables.apply(index, batch).expect("a plan applies to the tables it was made from");
        }
        self.check_placements(&before);
        let changed = !plan.batches.is_empty();
        self.last = plan;
        self.name_tasks();
        self.check(&before);
        changed
    }

    /// Lets manager and agents work, the clock standing still, until nobody has anything to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            let stepped = self.step();
            if !self.agents_run() && !stepped {
                return;
            }
        }
        panic!("does not settle; last report: {:#?}", self.last.report.lines);
    }

    /// Lets time pass; the manager wakes when it asked to.
    fn clock(&self) -> Clock {
        Clock { now: self.now, since: self.since }
    }

    /// Another leader takes over whose clock is ahead (`+1h`) or behind (`-1h`); or the leader's clock is set so.
    fn lead(&mut self, by: &str) {
        let offset = duration(&by[1..]);
        self.now = if by.starts_with('-') { self.now.before(offset) } else { self.now.after(offset) };
        self.since = self.now;
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now.after(time);
        self.settle();
        while let Some(at) = self.last.wake_at.filter(|at| *at <= end) {
            assert!(at > self.now, "asked to be woken in the past");
            self.now = at;
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Every agent that hears does what is wanted of its tasks, one state further each time.
    pub(crate) fn agents_run(&mut self) -> bool {
        let mut changed = false;
        let tasks: Vec<Arc<Task>> = self.tables.tasks.values().cloned().collect();
        for task in tasks {
            let Some(node) = task.node().and_then(|id| self.tables.nodes.get(&id)) else { continue };
            if node.status.state != NodeState::Ready || self.deaf.contains(&node.id) {
                continue;
            }
            let is = task.status.state;
            if is.is_some_and(TaskState::is_terminal) {
                continue;
            }
            let broken = self.broken.contains(&task.spec.container.image);
            let next = match task.desired {
                Desired::Ready => TaskState::Ready,
                Desired::Running | Desired::Complete if broken => TaskState::Failed,
                Desired::Running | Desired::Complete => TaskState::Running,
                Desired::Shutdown | Desired::Remove => TaskState::Shutdown,
            };
            if is.is_none_or(|is| is < next) {
                self.report(&task, next, if broken { "task: non-zero exit (1)" } else { "" });
                changed = true;
            }
        }
        changed
    }

    fn report(&mut self, task: &Task, state: TaskState, error: &str) {
        let mut task = task.clone();
        task.status.state = Some(state);
        task.status.at = self.now;
        task.status.error = (!error.is_empty()).then(|| error.to_owned());
        self.put(Object::Task(Arc::new(task)));
    }

    fn end(&mut self, name: &str, state: TaskState, error: &str) {
        let mut named = self.live_tasks().into_iter().filter(|t| self.short_name(t) == name);
        let task = named.next_back().unwrap_or_else(|| panic!("no live task {name}"));
        drop(named);
        self.report(&task, state, error);
    }

    /// Returns the placed tasks that are wanted and have not ended, oldest first.
    pub(crate) fn live_tasks(&self) -> Vec<Arc<Task>> {
        let wanted = |t: &&Arc<Task>| t.desired <= Desired::Complete && t.may_hold_resources();
        let mut tasks: Vec<_> = self.tables.tasks.values().filter(wanted).cloned().collect();
        tasks.sort_by_key(|t| (t.meta.created_at, t.id));
        tasks
    }

    /// Every node with a task on a network has the table of now.
    fn acks(&self) -> Acks {
        let held = self.tables.tasks.values().filter(|t| t.may_hold_resources());
        let networks = held.flat_map(|t| t.attachments.iter().map(|a| a.network));
        Acks { networks: networks.map(|n| (n, self.tables.index)).collect(), mesh: Some(self.tables.index) }
    }
}

pub(crate) fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let n: u64 = digits.parse().unwrap_or_else(|_| panic!("bad duration {text:?}"));
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        "m" => Duration::from_secs(n * 60),
        "h" => Duration::from_secs(n * 3600),
        other => panic!("bad unit {other:?}"),
    }
}
