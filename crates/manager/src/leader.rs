//! The leader loop: while this manager leads, it alone writes what was observed and what is to be done.
//!
//! One loop, one writer: first what nodes reported, then what follows from it. A conflict (a person changed
//! something meanwhile) costs another turn and nothing else.

use crate::{
    PartEnded, announce,
    clock::heartbeat_period,
    departed,
    doubts::Doubt,
    first_of,
    inbox::{Done, Observation},
    level, part,
    presence::Silent,
    random, reach,
    refusals::propose_error,
    roles, rotation,
    shared::Shared,
    trouble::Trouble,
};
use model::{
    Batch, Change, Duration, NETWORKS_MAX, NODE_NETWORKS_LEVEL, Node, NodeDescription, NodeId, NodeState,
    Object, Tables, Task, TaskId, TaskStatus, Timestamp, UNFIT_LEVEL, UNFIT_MAX,
};
use plan::{Acks, Plan};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use store::ProposeError;
use tokio::{task::JoinSet, time::Instant};
use tonic::Status;
use tracing::{debug, info, warn};

/// How long causes are gathered before a turn.
const GATHER: Duration = Duration::from_millis(15);
/// Wait after a failure that is not a conflict.
const PAUSE: Duration = Duration::from_millis(500);
const CHANGES_MAX: usize = 200;

/// Leads whenever the managers agree that this one does, until the store stops or a part of the work ends.
pub(crate) async fn run(shared: Arc<Shared>) -> PartEnded {
    let stopped = || PartEnded { part: "leader", why: "has no store any more".to_owned() };
    let mut leadership = shared.store.leader();
    loop {
        let now = *leadership.borrow_and_update();
        if now.me {
            info!(raft.term = now.term, "this manager leads");
            shared.set_leading(true);
            let mut work = JoinSet::new();
            work.spawn(part("leader loop", lead(shared.clone())));
            work.spawn(part("look for silent hosts", reach::run(shared.clone())));
            work.spawn(part("feature level", level::run(shared.clone())));
            work.spawn(part("role loop", roles::run(shared.clone())));
            work.spawn(part("look for dead managers", departed::run(shared.clone())));
            work.spawn(part("announcements", announce::run(shared.clone())));
            work.spawn(part("root rotation", rotation::run(shared.clone())));
            let ended = tokio::select! {
                biased;
                lost = leadership.wait_for(|l| !l.me || l.term != now.term) => lost.is_err().then(stopped),
                ended = work.join_next() => Some(first_of(ended)),
            };
            work.shutdown().await;
            shared.set_leading(false);
            drop(shared.inbox.take());
            info!(raft.term = now.term, "this manager leads no longer");
            if let Some(ended) = ended {
                return ended;
            }
        } else {
            drop(shared.inbox.take()); // came too late
            if leadership.changed().await.is_err() {
                return stopped();
            }
        }
    }
}

/// The leader loop.
async fn lead(shared: Arc<Shared>) {
    shared.presence().begin();
    shared.doubts().begin();
    let mut trouble = Trouble::new("the leader's decisions are not recorded");
    let mut applied = shared.store.watch();
    loop {
        // The view may lack what the leader before us did.
        match shared.fresh().await {
            Ok(_) => break,
            Err(error) => {
                debug!(%error, "cannot lead yet");
                tokio::time::sleep(GATHER).await;
            }
        }
    }
    loop {
        applied.borrow_and_update();
        let turn = turn(&shared).await;
        match &turn {
            Turn::Failed(error) => trouble.note(error),
            Turn::Again | Turn::Until(_) => trouble.is_over(),
        }
        let wake_at = match turn {
            Turn::Again => {
                tokio::time::sleep(GATHER).await;
                continue;
            }
            Turn::Failed(_) => Some(Instant::now() + PAUSE),
            Turn::Until(at) => at,
        };
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = shared.inbox.arrived.notified() => {}
            () = shared.presence_changed.notified() => {}
            () = until(wake_at) => continue,
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

enum Turn {
    /// Something changed under our hands.
    Again,
    /// The managers took nothing.
    Failed(ProposeError),
    /// Nothing to do before.
    Until(Option<Instant>),
}

async fn turn(shared: &Arc<Shared>) -> Turn {
    let now = Instant::now();
    let view = shared.store.view();
    let period = heartbeat_period(&view);
    let waiting = shared.inbox.take();
    let silent = {
        let mut presence = shared.presence();
        // Nobody is declared lost by a leader that may be lost itself.
        if presence.in_touch(shared.store.is_current()) {
            presence.silent(now, period, &view)
        } else {
            Silent { next: Some(now + PAUSE), ..Silent::default() }
        }
    };
    let returned = shared.presence().returned(now, &view);
    let doubts = shared.doubts().news(now, &view);

    let heard = waiting.iter().map(|(observation, _)| observation);
    let batches = observed(&view, shared.stamp(), heard, &silent, &returned, &doubts);
    match propose_all(shared, batches).await {
        Ok(()) => waiting.into_iter().for_each(|(_, done)| answer(done, Ok(()))),
        Err(ProposeError::Conflict(conflict)) => {
            debug!(%conflict, "an observation came across a change, once more");
            shared.inbox.put_back(waiting);
            return Turn::Again;
        }
        Err(error) => {
            let status = propose_error(&error);
            waiting.into_iter().for_each(|(_, done)| answer(done, Err(status.clone())));
            return Turn::Failed(error);
        }
    }

    let acks = shared.presence().cluster_acks(&shared.store.view());
    shared.cluster_acks.send_if_modified(|known| {
        let changed = *known != acks;
        known.clone_from(&acks);
        changed
    });
    let acks = Acks {
        mesh: acks.get(&None).copied(),
        networks: acks.into_iter().filter_map(|(subject, index)| Some((subject?, index))).collect(),
    };
    let (view, clock) = (shared.store.view(), shared.time());
    let mut ids = random::ids();
    let step = tokio::task::spawn_blocking(move || {
        let mut ids = || ids().expect("the system has randomness");
        (plan::step(&view, clock, &acks, &mut ids), clock.now)
    });
    let begun = Instant::now();
    let (Plan { batches, wake_at, report }, planned_at) = step.await.expect("planning does not panic");
    shared.plans.note(begun.elapsed());
    for line in &report.lines {
        debug!(decision = %line, "planned");
    }
    match propose_all(shared, batches).await {
        Ok(()) => {
            let wake_at = wake_at.map(|at| now + at.since(planned_at).max(GATHER));
            Turn::Until([wake_at, silent.next].into_iter().flatten().min())
        }
        Err(ProposeError::Conflict(conflict)) => {
            debug!(%conflict, "the plan came across a change, once more");
            Turn::Again
        }
        Err(error) => Turn::Failed(error),
    }
}

fn answer(done: Done, outcome: Result<(), Status>) {
    if done.send(outcome).is_err() {
        debug!("whoever observed this has left");
    }
}

/// Proposes batches in order, several at once, and returns the first failure.
async fn propose_all(shared: &Shared, batches: Vec<Batch>) -> Result<(), ProposeError> {
    let outcomes = futures::future::join_all(batches.into_iter().map(|batch| propose(shared, batch))).await;
    outcomes.into_iter().collect()
}

/// Proposes a batch; one that is too large goes in halves.
async fn propose(shared: &Shared, batch: Batch) -> Result<(), ProposeError> {
    #[cfg(test)]
    let batch = crate::planted::in_batch(&shared.store.view(), batch);
    let mut rest = vec![batch];
    while let Some(batch) = rest.pop() {
        if batch.changes.is_empty() {
            continue;
        }
        match shared.store.propose(batch.clone()).await {
            Ok(_) => {}
            Err(ProposeError::TooLarge { .. }) if batch.changes.len() > 1 => {
                let (first, second) = batch.changes.split_at(batch.changes.len() / 2);
                rest.push(Batch { at: batch.at, changes: second.to_vec() });
                rest.push(Batch { at: batch.at, changes: first.to_vec() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Refuses a description that claims an address of another node that is up: what is meant for that one (its tunnels,
/// images, the packets of its tasks) would go astray. Once it is down, whoever is there now may have its address.
pub(crate) fn may_describe(view: &Tables, id: NodeId, description: &NodeDescription) -> Result<(), Status> {
    view.nodes.values().try_for_each(|other| may_stand_beside(other, id, description))
}

fn may_stand_beside(other: &Node, id: NodeId, description: &NodeDescription) -> Result<(), Status> {
    let up = match other.status.state {
        NodeState::Ready | NodeState::Unknown => other.id != id,
        NodeState::Away | NodeState::Down | NodeState::Disconnected => false,
    };
    let Some(theirs) = other.description.as_ref().filter(|_| up) else { return Ok(()) };
    let taken = if theirs.addr == description.addr {
        description.addr.to_string()
    } else if theirs.data_addr == description.data_addr {
        description.data_addr.to_string()
    } else {
        return Ok(());
    };
    Err(Status::already_exists(format!(
        "address {taken} is that of node {}, which is up",
        other.display_name()
    )))
}

/// Returns what nodes said, and what is found of those that are not heard or are again, as changes of the view.
pub(crate) fn observed<'a>(
    view: &Tables,
    now: Timestamp,
    heard: impl IntoIterator<Item = &'a Observation>,
    silent: &Silent,
    returned: &[(NodeId, Option<IpAddr>)],
    doubts: &[Doubt],
) -> Vec<Batch> {
    let mut record = Record::new(view, now);
    for observation in heard {
        record.observe(observation);
    }
    for node in &silent.lost {
        warn!(node.id = %node, "node is down");
        record.node_state(*node, NodeState::Down, "heartbeat failure", None);
    }
    let level = view.cluster.as_ref().map_or(0, |c| c.feature_level);
    for node in silent.away.iter().filter(|_| level >= model::AWAY_LEVEL) {
        warn!(node.id = %node, "a node's daemon is away, its host is not");
        record.node_state(*node, NodeState::Away, "daemon restarting", None);
    }
    for (node, addr) in returned {
        info!(node.id = %node, "node is ready");
        record.node_state(*node, NodeState::Ready, "", *addr);
    }
    for Doubt { node, said } in doubts {
        let name = view.nodes.get(node).map_or_else(String::new, |node| node.display_name());
        match said.as_str() {
            "" => info!(node.id = %node, name, "nothing is odd about a node any more"),
            said => warn!(node.id = %node, name, said, "something is odd about a node"),
        }
        record.node_message(*node, said);
    }
    record.into_batches()
}

/// What observations make of a view: each object at most once.
struct Record<'a> {
    tables: &'a Tables,
    now: Timestamp,
    nodes: BTreeMap<NodeId, Node>,
    tasks: BTreeMap<TaskId, Task>,
}

impl<'a> Record<'a> {
    fn new(tables: &'a Tables, now: Timestamp) -> Self {
        Self { tables, now, nodes: BTreeMap::new(), tasks: BTreeMap::new() }
    }

    fn observe(&mut self, observation: &Observation) {
        let level = self.tables.cluster.as_ref().map_or(0, |cluster| cluster.feature_level);
        for (id, description) in &observation.nodes {
            if let Err(error) = self.may_describe(*id, description) {
                warn!(node.id = %id, error = error.message(), "a node's description is not taken");
                continue;
            }
            let mut description = description.clone();
            description.networks.truncate(if level < NODE_NETWORKS_LEVEL { 0 } else { NETWORKS_MAX });
            description.unfit.truncate(if level < UNFIT_LEVEL { 0 } else { UNFIT_MAX });
            if let Some(node) = self.node(*id)
                && node.description.as_ref() != Some(&description)
            {
                // It moved, and was not lost meanwhile.
                let old = node.description.as_ref().map(|old| old.addr.ip());
                if old.is_some() && node.status.addr == old {
                    node.status.addr = Some(description.addr.ip());
                }
                node.description = Some(description);
            }
        }
        for (node, id, status) in &observation.tasks {
            self.task_status(*node, *id, status);
        }
    }

    /// As [`may_describe`], with what this record changes.
    fn may_describe(&self, id: NodeId, description: &NodeDescription) -> Result<(), Status> {
        self.nodes.values().try_for_each(|other| may_stand_beside(other, id, description))?;
        let untouched = self.tables.nodes.values().filter(|n| !self.nodes.contains_key(&n.id));
        untouched.map(|n| &**n).try_for_each(|other| may_stand_beside(other, id, description))
    }

    /// Takes a task's status if it is from the node the task is on, and does not go back. Its time is ours, of the
    /// moment when we learnt of the state: delays, windows and monitors must not hang on the clocks of the nodes.
    fn task_status(&mut self, node: NodeId, id: TaskId, status: &TaskStatus) {
        let known = self.tasks.get(&id).or_else(|| self.tables.tasks.get(&id).map(|t| &**t));
        let Some(task) = known.filter(|t| t.node() == Some(node)) else { return };
        let old = &task.status;
        let at = if status.state == old.state { old.at } else { self.now };
        let status = TaskStatus { at, ..status.clone() };
        if status.state.is_some() && status.state >= old.state && status != *old {
            let mut task = task.clone();
            task.status = status;
            self.tasks.insert(id, task);
        }
    }

    fn node_state(&mut self, id: NodeId, state: NodeState, message: &str, addr: Option<IpAddr>) {
        let now = self.now;
        let Some(node) = self.node(id) else { return };
        if node.status.state != state {
            node.status.state = state;
            node.status.since = now;
        }
        message.clone_into(&mut node.status.message);
        node.status.addr = addr.or(node.status.addr);
    }

    /// Of one that is ready, and stays so.
    fn node_message(&mut self, id: NodeId, message: &str) {
        if let Some(node) = self.node(id).filter(|node| node.status.state == NodeState::Ready) {
            message.clone_into(&mut node.status.message);
        }
    }

    fn node(&mut self, id: NodeId) -> Option<&mut Node> {
        let stored = self.tables.nodes.get(&id)?;
        Some(self.nodes.entry(id).or_insert_with(|| (**stored).clone()))
    }

    fn into_batches(self) -> Vec<Batch> {
        let tables = self.tables;
        let nodes = self.nodes.into_values();
        let nodes = nodes.filter(|n| tables.nodes.get(&n.id).is_some_and(|old| **old != *n));
        let nodes = nodes.map(|n| Change::Put(Object::Node(Arc::new(n))));
        let tasks = self.tasks.into_values().map(|t| Change::Put(Object::Task(Arc::new(t))));
        let changes: Vec<Change> = nodes.chain(tasks).collect();
        changes.chunks(CHANGES_MAX).map(|c| Batch { at: self.now, changes: c.to_vec() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::TaskState;

    #[test]
    fn a_node_that_moves_is_shown_where_it_is() {
        let old: IpAddr = [192, 0, 2, 1].into();
        let moved = |shown: IpAddr| {
            let tables = state().node(1).change_node(1, |n| n.status.addr = Some(shown)).tables();
            let mut description = tables.nodes.get(&NodeId(1)).unwrap().description.clone().unwrap();
            description.addr = "192.0.2.33:2377".parse().unwrap();
            let observation = Observation { nodes: vec![(NodeId(1), description)], tasks: Vec::new() };
            let batches = observed(&tables, Timestamp(9), [&observation], &Silent::default(), &[], &[]);
            let Change::Put(Object::Node(node)) = &batches[0].changes[0] else { panic!("{batches:?}") };
            node.status.addr
        };
        assert_eq!(moved(old), Some([192, 0, 2, 33].into()));
        // It comes through a translation of addresses, which its own say nothing of.
        assert_eq!(moved([203, 0, 113, 9].into()), Some([203, 0, 113, 9].into()));
    }

    fn reported(node: u128, state: TaskState, at: i64) -> Observation {
        let status = TaskStatus { state: Some(state), at: Timestamp(at), ..TaskStatus::default() };
        Observation { nodes: Vec::new(), tasks: vec![(NodeId(node), TaskId(1), status)] }
    }

    /// Returns the state that task 1 has after these reports.
    fn check(reports: &[Observation]) -> Option<TaskState> {
        status_after(reports).state
    }

    fn status_after(reports: &[Observation]) -> TaskStatus {
        let mut tables =
            state().node(1).node(2).service(1, &[], &[]).task(1, 1, 1, Some(TaskState::Ready)).tables();
        let view = tables.clone();
        let mut record = Record::new(&view, Timestamp(9));
        reports.iter().for_each(|r| record.observe(r));
        for batch in record.into_batches() {
            tables.apply(tables.index + 1, &batch).unwrap();
        }
        tables.tasks.get(&TaskId(1)).unwrap().status.clone()
    }

    #[test]
    fn the_time_of_a_state_is_when_the_leader_learnt_of_it_whatever_the_nodes_clock_says() {
        for at in [-3_600, 0, 3_600_000_000_000] {
            assert_eq!(status_after(&[reported(1, TaskState::Running, at)]).at, Timestamp(9));
        }
    }

    #[test]
    fn observed_states_only_advance_and_only_by_the_word_of_the_tasks_node() {
        use TaskState::{Failed, Preparing, Ready, Running};
        assert_eq!(check(&[reported(1, Running, 1)]), Some(Running));
        assert_eq!(check(&[reported(1, Preparing, 1)]), Some(Ready));
        assert_eq!(check(&[reported(2, Running, 1)]), Some(Ready));
        assert_eq!(check(&[reported(1, Failed, 3), reported(1, Running, 2)]), Some(Failed));
    }

    #[test]
    fn a_node_cannot_take_the_address_of_one_that_is_up() {
        let describe = |tables: &Tables, id: u128, like: u128, change: fn(&mut NodeDescription)| {
            let mut description = tables.nodes.get(&NodeId(like)).unwrap().description.clone().unwrap();
            change(&mut description);
            let observation =
                Observation { nodes: vec![(NodeId(id), description)], ..Observation::default() };
            let mut record = Record::new(tables, Timestamp(9));
            record.observe(&observation);
            !record.into_batches().is_empty()
        };
        let tables = state().node(1).node(2).tables();
        assert!(!describe(&tables, 2, 1, |_| {}), "both addresses");
        assert!(!describe(&tables, 2, 1, |d| d.data_addr = "192.0.2.77".parse().unwrap()), "its own service");
        assert!(!describe(&tables, 2, 1, |d| d.addr = "192.0.2.77:2377".parse().unwrap()), "its packets");
        assert!(describe(&tables, 1, 1, |d| d.hostname = "other".into()), "what it had before is its own");
        let down = state().node(1).node(2).change_node(1, |n| n.status.state = NodeState::Down).tables();
        assert!(describe(&down, 2, 1, |_| {}), "who had it is gone");
    }

    #[test]
    fn what_a_node_reaches_and_lacks_is_kept_to_a_limit_and_from_managers_that_would_lose_it() {
        let kept = |level: u32| {
            let cluster = state().cluster().tables().cluster.clone().unwrap();
            let mut cluster = model::Cluster::clone(&cluster);
            (cluster.meta, cluster.feature_level) = (model::Meta::default(), level);
            let tables = state().node(1).put(Object::Cluster(Arc::new(cluster))).tables();
            let mut observed = tables.nodes.get(&NodeId(1)).unwrap().description.clone().unwrap();
            observed.hostname = "other".into();
            observed.unfit = vec!["no overlayfs".into(); UNFIT_MAX + 1];
            observed.networks = vec!["10.1.0.0/16".parse().unwrap(); NETWORKS_MAX + 1];
            let mut record = Record::new(&tables, Timestamp(9));
            record.observe(&Observation { nodes: vec![(NodeId(1), observed)], ..Observation::default() });
            let description = record.node(NodeId(1)).unwrap().description.as_ref().unwrap();
            (description.networks.len(), description.unfit.len())
        };
        assert_eq!(kept(NODE_NETWORKS_LEVEL.max(UNFIT_LEVEL)), (NETWORKS_MAX, UNFIT_MAX));
        assert_eq!(kept(NODE_NETWORKS_LEVEL.min(UNFIT_LEVEL) - 1), (0, 0));
    }

    #[test]
    fn nodes_are_written_only_when_something_changed() {
        let tables = state().node(1).tables();
        let node = tables.nodes.get(&NodeId(1)).unwrap();
        let same = Observation {
            nodes: vec![(NodeId(1), node.description.clone().unwrap())],
            ..Observation::default()
        };
        let mut record = Record::new(&tables, Timestamp(9));
        record.observe(&same);
        assert_eq!(record.into_batches(), []);
        let mut record = Record::new(&tables, Timestamp(9));
        record.node_state(NodeId(1), NodeState::Down, "heartbeat failure", None);
        assert_eq!(record.into_batches().len(), 1);
    }
}
