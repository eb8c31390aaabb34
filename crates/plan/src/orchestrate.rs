//! How many tasks each service should have, and where their slots are.
//!
//! Sources: swarmkit `manager/orchestrator/{replicated,global,jobs}`, `constraintenforcer`.

use crate::{
    constraint,
    draft::Draft,
    generic, nodes, restart,
    slots::{self, Slots},
    update,
};
use model::{
    Desired, GenericResources, Mode, Node, NodeId, NodeState, Service, Slot, TASKS_MAX, Tables, Task, TaskId,
    TaskState,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(crate) fn run(draft: &mut Draft<'_>) {
    let crowded = crowded_out(draft.tables());
    let services: Vec<Arc<Service>> = draft.tables().services.values().cloned().collect();
    for service in services {
        if service.pending_delete {
            remove_all(draft, &service);
            continue;
        }
        let slots = slots::of(draft.tables(), service.id);
        match service.spec.mode {
            // Nobody may ask for more; whoever could, before there was a limit, did not get the managers to their end.
            Mode::Replicated { replicas } => scale(draft, &service, &slots, replicas.min(TASKS_MAX)),
            Mode::Global => cover_nodes(draft, &service, &slots, Desired::Running),
            Mode::ReplicatedJob { max_concurrent, total } => {
                run_job(draft, &service, max_concurrent, total.min(TASKS_MAX));
            }
            Mode::GlobalJob => {
                drop_old_iterations(draft, &service);
                let slots = slots::of(draft.tables(), service.id);
                cover_nodes(draft, &service, &slots, Desired::Complete);
            }
        }
        if matches!(service.spec.mode, Mode::Replicated { .. } | Mode::Global) {
            let mut slots = slots::of(draft.tables(), service.id);
            slots.retain(|slot, tasks| may_have_task(draft.tables(), &service, *slot, tasks));
            update::run(draft, &service, &slots);
        }
        // The update may have rolled the service back: what is replaced now is made from that.
        let service = draft.tables().services.get(&service.id).cloned().unwrap_or(service);
        restart::heal(draft, &service, &slots::of(draft.tables(), service.id), &crowded);
        restart::promote(draft, &service);
    }
}

fn remove_all(draft: &mut Draft<'_>, service: &Service) {
    let tasks: Vec<TaskId> = draft.tables().tasks_of_service(service.id).map(|t| t.id).collect();
    for id in tasks {
        draft.want(id, Desired::Remove);
    }
}

fn remove_slot(draft: &mut Draft<'_>, tasks: &[Arc<Task>]) {
    for task in tasks {
        draft.want(task.id, Desired::Remove);
    }
}

/// Returns true if a slot needs no new task: it has one, or had its last.
fn is_taken(service: &Service, tasks: &[Arc<Task>]) -> bool {
    tasks.iter().any(|t| slots::is_live(t)) || is_given_up(service, tasks)
}

fn is_given_up(service: &Service, tasks: &[Arc<Task>]) -> bool {
    tasks.last().is_some_and(|newest| !restart::may_restart(service, tasks, newest))
}

// ---- replicated ---------------------------------------------------------------------------------------

fn scale(draft: &mut Draft<'_>, service: &Service, slots: &Slots, replicas: u64) {
    let (taken, dead): (Vec<_>, Vec<_>) = slots.iter().partition(|(_, tasks)| is_taken(service, tasks));
    let have = taken.len() as u64;
    if have < replicas {
        let used: BTreeSet<Slot> = taken.iter().map(|(slot, _)| **slot).collect();
        let missing = usize::try_from(replicas - have).unwrap_or(usize::MAX);
        // In order.
        let free: Vec<Slot> =
            (1..).map(Slot::Replica).filter(|slot| !used.contains(slot)).take(missing).collect();
        draft.say(&service.spec.name, "scaled up", format!("{have} of {replicas} tasks wanted"));
        let before = slots::with_removed(draft.tables(), service.id);
        for slot in &free {
            restart::fill(draft, service, *slot, &before, Desired::Running);
        }
        for (_, tasks) in dead.iter().filter(|(slot, _)| free.binary_search(slot).is_err()) {
            remove_slot(draft, tasks);
        }
        return;
    }
    for (_, tasks) in dead {
        remove_slot(draft, tasks);
    }
    if have > replicas {
        draft.say(&service.spec.name, "scaled down", format!("{have} tasks, {replicas} wanted"));
        let keep = usize::try_from(replicas).unwrap_or(usize::MAX);
        for (_, tasks) in by_worth(taken).into_iter().skip(keep) {
            remove_slot(draft, tasks);
        }
    }
}

type Taken<'a> = (&'a Slot, &'a Vec<Arc<Task>>);

/// Orders slots so that those worth keeping come first: balanced over nodes, running before not running,
/// low numbers before high ones.
fn by_worth(mut taken: Vec<Taken<'_>>) -> Vec<Taken<'_>> {
    let running = |tasks: &[Arc<Task>]| tasks.iter().any(|t| slots::is_live(t) && slots::is_running(t));
    taken.sort_by_key(|(slot, tasks)| (!running(tasks), **slot));
    let mut copies: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, Taken<'_>)> = taken
        .into_iter()
        .map(|(slot, tasks)| {
            let node = tasks.iter().rev().find(|t| slots::is_live(t)).and_then(|t| t.node());
            let nth = node.map_or(usize::MAX, |n| {
                let count = copies.entry(n).or_insert(0);
                *count += 1;
                *count
            });
            (nth, (slot, tasks))
        })
        .collect();
    ranked.sort_by_key(|(nth, _)| *nth); // stable: keeps the order above among equals
    ranked.into_iter().map(|(_, taken)| taken).collect()
}

// ---- global -------------------------------------------------------------------------------------------

/// One task on each node that may have one. Paused nodes are left as they are.
fn cover_nodes(draft: &mut Draft<'_>, service: &Service, slots: &Slots, desired: Desired) {
    let nodes: Vec<Arc<Node>> = draft.tables().nodes.values().cloned().collect();
    let before = slots::with_removed(draft.tables(), service.id);
    for node in nodes {
        let slot = Slot::Node(node.id);
        let tasks = slots.get(&slot).map_or(&[][..], Vec::as_slice);
        let suits = suits(service, &node);
        if tasks.iter().any(|t| slots::is_live(t)) {
            let gone = nodes::is_lost(Some(&node)) || nodes::is_drained(&node);
            for task in tasks.iter().filter(|t| slots::is_live(t) && (!suits || (gone && t.node().is_none())))
            {
                draft.say(task.name(), "shut down", "node does not take this service");
                draft.want(task.id, Desired::Shutdown);
            }
            continue;
        }
        let ended_for_good =
            tasks.last().is_some_and(|t| slots::ended_by_itself(t)) && is_given_up(service, tasks);
        let accepts = node.status.state == NodeState::Ready && node.accepts_tasks();
        if suits && accepts && !ended_for_good {
            draft.say(&service.spec.name, "placed on one more node", node.display_name());
            restart::fill(draft, service, slot, &before, desired);
        }
    }
    for (slot, tasks) in slots {
        let is_gone = match slot {
            Slot::Node(id) => !draft.base().nodes.contains(id),
            Slot::Replica(_) => true,
        };
        if is_gone {
            remove_slot(draft, tasks);
        }
    }
}

/// Returns true if the updater may fill this slot anew: not so on a node that takes no tasks.
fn may_have_task(tables: &Tables, service: &Service, slot: Slot, tasks: &[Arc<Task>]) -> bool {
    let Slot::Node(node) = slot else { return true };
    let accepts = tables.nodes.get(&node).is_some_and(|n| n.accepts_tasks() && suits(service, n));
    accepts || tasks.iter().any(|t| slots::is_live(t))
}

/// Constraints of an undescribed node cannot be judged: it keeps what it has.
fn suits(service: &Service, node: &Node) -> bool {
    let placement = &service.spec.task.placement;
    node.description.is_none()
        || (constraint::allows(placement, node) && constraint::runs_platform(placement, node))
}

// ---- jobs ---------------------------------------------------------------------------------------------

/// Slots 0 to `total - 1`, at most `max_concurrent` at once, until each has completed or is given up.
fn run_job(draft: &mut Draft<'_>, service: &Service, max_concurrent: u64, total: u64) {
    drop_old_iterations(draft, service);
    let slots = slots::of(draft.tables(), service.id);
    let complete = |tasks: &[Arc<Task>]| tasks.iter().any(|t| t.status.state == Some(TaskState::Complete));
    let (mut running, mut finished) = (0u64, 0u64);
    let mut used = BTreeSet::new();
    for (slot, tasks) in &slots {
        if complete(tasks) || (!tasks.iter().any(|t| slots::is_live(t)) && is_given_up(service, tasks)) {
            finished += 1;
        } else if tasks.iter().any(|t| slots::is_live(t)) {
            running += 1;
        } else {
            continue;
        }
        used.insert(*slot);
    }
    let limit = if max_concurrent == 0 { total } else { max_concurrent };
    let new = limit.saturating_sub(running).min(total.saturating_sub(finished + running));
    let free = (0..total).map(Slot::Replica).filter(|slot| !used.contains(slot));
    let before = slots::with_removed(draft.tables(), service.id);
    for slot in free.take(usize::try_from(new).unwrap_or(usize::MAX)).collect::<Vec<_>>() {
        restart::fill(draft, service, slot, &before, Desired::Complete);
    }
}

fn drop_old_iterations(draft: &mut Draft<'_>, service: &Service) {
    let old: Vec<TaskId> = draft
        .tables()
        .tasks_of_service(service.id)
        .filter(|t| t.job_iteration != service.job_iteration)
        .map(|t| t.id)
        .collect();
    for id in old {
        draft.want(id, Desired::Remove);
    }
}

// ---- nodes that shrank --------------------------------------------------------------------------------

/// Returns the tasks whose reservations a node cannot hold any more: the newest of it.
fn crowded_out(tables: &Tables) -> BTreeSet<TaskId> {
    let mut out = BTreeSet::new();
    for node in tables.nodes.values() {
        let Some(description) = &node.description else { continue };
        let have = description.resources;
        let mut tasks: Vec<_> = tables
            .tasks_of_node(node.id)
            .filter(|t| slots::is_live(t) && t.may_hold_resources())
            .filter(|t| {
                let wants = &t.spec.resources.reservations;
                wants.cpu_nanos > 0 || wants.memory_bytes > 0 || !t.generic.is_empty()
            })
            .collect();
        tasks.sort_by_key(|t| slots::age_key(t));
        let (mut cpu, mut memory) = (have.cpu_nanos, have.memory_bytes);
        let mut taken = GenericResources::new();
        for task in tasks {
            let wants = &task.spec.resources.reservations;
            match (cpu.checked_sub(wants.cpu_nanos), memory.checked_sub(wants.memory_bytes)) {
                (Some(cpu_left), Some(memory_left))
                    if generic::holds_more(&description.generic, &taken, &task.generic) =>
                {
                    (cpu, memory) = (cpu_left, memory_left);
                    generic::take(&mut taken, &task.generic);
                }
                _ => {
                    out.insert(task.id);
                }
            }
        }
    }
    out
}
