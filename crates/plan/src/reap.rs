//! Ends what is over: frees addresses, forgets old tasks, deletes services and networks nobody needs.
//!
//! An address is free only when every node that could still send to it has heard that its task ended
//! ([`Acks`]). A task is deleted no earlier than that. Source: swarmkit `manager/orchestrator/taskreaper`.

use crate::{
    Acks, allocate,
    draft::Draft,
    nodes,
    slots::{self, Slots},
};
use model::{
    Cluster, Desired, Duration, NetworkId, NodeId, NodeState, ObjectRef, Service, ServiceId, StackId, Task,
    TaskId, TaskState, UpdateState,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// After this long a node that is down is taken to be gone for good, with all its containers.
const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// After this long a node that left the swarm has ended its containers: it does so once it was let go, and nobody will ever
/// hear from it that it did.
const LEFT_AFTER: Duration = Duration::from_secs(60);

/// A node that has no address for its container by then has told whoever started it so.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(draft: &mut Draft<'_>, cluster: &Cluster, acks: &Acks) {
    let tasks: Vec<Arc<Task>> = draft.tables().tasks.values().cloned().collect();
    for task in &tasks {
        orphan(draft, task);
        let is_done = match task.attaches {
            Some(_) => is_detached(draft, task),
            None => !draft.tables().services.contains(&task.service),
        };
        if is_done {
            draft.want(task.id, Desired::Remove);
        }
    }
    let forgettable = beyond_history(draft, cluster);
    let mut slots = BTreeMap::new();
    for task in &tasks {
        settle(draft, task.id, &forgettable, acks, &mut slots);
    }
    delete_services(draft, acks);
    delete_networks(draft);
    delete_stacks(draft);
}

/// Returns true once a container needs its addresses no more, or its node has stopped waiting for them.
fn is_detached(draft: &mut Draft<'_>, task: &Task) -> bool {
    if task.node().is_some() {
        return slots::is_over(task);
    }
    let due = draft.learnt(task.meta.created_at).after(ATTACH_LIMIT);
    draft.wake(due);
    due <= draft.now()
}

/// Gives up on a task whose node will not speak again.
fn orphan(draft: &mut Draft<'_>, task: &Task) {
    let Some(id) = task.node() else { return };
    if slots::is_over(task) {
        return;
    }
    let now = draft.now();
    if !nodes::on_lost_node(draft.tables(), task) || is_waited_for(draft, id) {
        return;
    }
    let name = draft.node_name(id);
    draft.say(task.name(), "orphaned", format!("node {name} is gone"));
    draft.edit_task(task.id, |t| {
        t.status.state = Some(TaskState::Orphaned);
        t.status.at = now;
        "node is gone".clone_into(&mut t.status.message);
    });
}

/// Returns true of a node that is lost and may come back, with all that it held.
fn is_waited_for(draft: &mut Draft<'_>, id: NodeId) -> bool {
    let Some(node) = draft.tables().nodes.get(&id).filter(|node| nodes::is_lost(Some(node))) else {
        return false;
    };
    let left = node.status.state == NodeState::Disconnected;
    let due = draft.learnt(node.status.since).after(if left { LEFT_AFTER } else { ORPHAN_AFTER });
    let waits = due > draft.now();
    if waits {
        draft.wake(due);
    }
    waits
}

/// Frees the addresses of an ended task, and deletes it if nobody will ask for it any more.
fn settle(
    draft: &mut Draft<'_>,
    id: TaskId,
    forgettable: &BTreeSet<TaskId>,
    acks: &Acks,
    slots: &mut SlotsByService,
) {
    let Some(task) = draft.tables().tasks.get(&id).cloned() else { return };
    let never_placed = task.node().is_none();
    let kept = never_placed && says_what_is_renewed(draft, &task, slots);
    let unwanted = task.desired == Desired::Remove
        || (never_placed && task.desired == Desired::Shutdown && !kept)
        || forgettable.contains(&id);
    // A node that was lost before it had dropped a network has it still, with its identifier and its subnet.
    let may_hold_networks = |draft: &mut Draft<'_>| {
        !task.attachments.is_empty() && task.node().is_some_and(|id| is_waited_for(draft, id))
    };
    let free = never_placed
        || (slots::is_over(&task) && is_forgotten_by_all(draft, &task, acks) && !may_hold_networks(draft));
    if !free {
        return;
    }
    if unwanted {
        draft.delete(ObjectRef::Task(id));
    } else if (!never_placed || kept) && (!task.attachments.is_empty() || task.gateway_address.is_some()) {
        draft.edit_task(id, |t| {
            t.attachments.clear();
            t.gateway_address = None;
        });
    }
}

/// Tasks by slot, of services that were asked for. Of what is settled meanwhile only the going changes what they say.
type SlotsByService = BTreeMap<ServiceId, Slots>;

/// Returns true for the newest task of an earlier spec in a slot while an update goes on: without it the slot would not
/// be one that the update renews, and its new task not one to wait for. What was placed is remembered anyway.
fn says_what_is_renewed(draft: &Draft<'_>, task: &Task, slots: &mut SlotsByService) -> bool {
    let Some(service) = draft.tables().services.get(&task.service) else { return false };
    let goes_on = service
        .update
        .as_ref()
        .is_some_and(|u| matches!(u.state, UpdateState::Updating | UpdateState::RollbackStarted));
    let is_earlier = |t: &Task| t.slot == task.slot && t.spec_version < service.spec_version;
    if !(goes_on && task.desired == Desired::Shutdown && is_earlier(task)) {
        return false;
    }
    let of_service =
        slots.entry(task.service).or_insert_with(|| slots::with_removed(draft.tables(), task.service));
    let in_slot = of_service.get(&task.slot).map_or(&[][..], Vec::as_slice);
    let left = || in_slot.iter().filter(|t| draft.tables().tasks.contains(&t.id));
    !left().any(|t| is_earlier(t) && t.spec_version > task.spec_version) && left().any(|t| slots::is_live(t))
}

/// Returns true if no node has a table with this task's addresses in it.
fn is_forgotten_by_all(draft: &Draft<'_>, task: &Task, acks: &Acks) -> bool {
    // Tables made at or behind the version at which it was stored as ended are without it.
    let Some(stored) = draft.base().tasks.get(&task.id).filter(|t| slots::is_over(t)) else { return false };
    let networks = task.attachments.iter().all(|a| acks.has_heard(a.network, stored.meta.version));
    // The mesh may still send what comes to a published port to its address.
    let mesh = acks.mesh.is_none_or(|held| held >= stored.meta.version);
    networks && (task.gateway_address.is_none() || mesh)
}

/// Returns ended tasks that are older than the history each slot keeps.
fn beyond_history(draft: &Draft<'_>, cluster: &Cluster) -> BTreeSet<TaskId> {
    let mut forgettable = BTreeSet::new();
    let Ok(limit) = usize::try_from(cluster.spec.task_history_limit) else { return forgettable }; // < 0: keep all
    for service in draft.tables().services.values() {
        let slots: Slots = slots::of(draft.tables(), service.id);
        for tasks in slots.values() {
            let attempts = service.spec.task.restart.max_attempts;
            // Attempts are counted by the tasks that are left.
            let attempts =
                if attempts == 0 { 0 } else { usize::try_from(attempts).unwrap_or(usize::MAX - 1) + 1 };
            let keep = limit.max(attempts);
            let has_live = tasks.iter().any(|t| slots::is_live(t));
            let needed = needed_by_update(service, tasks);
            let ended = tasks.iter().rev().filter(|t| slots::is_over(t) && !is_result(service, t));
            for (nth, task) in ended.enumerate() {
                // The last task of a slot says why there is no other.
                let tells_why = nth == 0 && !has_live;
                if nth >= keep && !tells_why && !needed.contains(&task.id) {
                    forgettable.insert(task.id);
                }
            }
        }
    }
    forgettable
}

/// A job's completed tasks are its memory of what is done.
fn is_result(service: &Service, task: &Task) -> bool {
    task.desired == Desired::Complete
        && task.status.state == Some(TaskState::Complete)
        && task.job_iteration == service.job_iteration
}

/// What an update that goes on reads off: the task it replaced and one that failed.
fn needed_by_update(service: &Service, tasks: &[Arc<Task>]) -> BTreeSet<TaskId> {
    let active = service
        .update
        .as_ref()
        .is_some_and(|u| matches!(u.state, UpdateState::Updating | UpdateState::RollbackStarted));
    if !active {
        return BTreeSet::new();
    }
    let old = tasks.iter().rev().find(|t| t.spec_version < service.spec_version);
    let failed = tasks.iter().find(|t| t.spec_version == service.spec_version && slots::failed(t));
    old.into_iter().chain(failed).map(|t| t.id).collect()
}

/// A service goes with its last task, when every node has heard that its virtual addresses are nobody's. Tasks on lost nodes do not hold it back: they are known by their own
/// id, and are stopped when the node returns.
fn delete_services(draft: &mut Draft<'_>, acks: &Acks) {
    let done: Vec<Arc<Service>> = draft
        .tables()
        .services
        .values()
        .filter(|s| s.pending_delete)
        .filter(|s| draft.tables().tasks_of_service(s.id).all(|t| nodes::on_lost_node(draft.tables(), t)))
        .filter(|s| s.endpoint.vips.iter().all(|vip| allocate::is_forgotten(draft, s, vip, acks)))
        .cloned()
        .collect();
    for service in done {
        draft.say(&service.spec.name, "deleted", "its tasks are gone");
        draft.delete(ObjectRef::Service(service.id));
    }
}

fn delete_networks(draft: &mut Draft<'_>) {
    if !draft.tables().networks.values().any(|n| n.pending_delete) {
        return;
    }
    let used = used_networks(draft);
    let done: Vec<_> = draft
        .tables()
        .networks
        .values()
        .filter(|n| n.pending_delete && !used.contains(&n.id))
        .cloned()
        .collect();
    for network in done {
        draft.say(&network.spec.name, "deleted", "nothing uses it");
        draft.delete(ObjectRef::Network(network.id));
    }
}

fn used_networks(draft: &Draft<'_>) -> BTreeSet<NetworkId> {
    let tables = draft.tables();
    let by_services = tables.services.values().flat_map(|s| {
        let named = s.spec.task.networks.iter().map(|n| n.network);
        named.chain(s.endpoint.vips.iter().map(|v| v.network)).collect::<Vec<_>>()
    });
    // A lost node's too: its containers may run on, and use the identifier and the subnet.
    let by_tasks = tables.tasks.values().flat_map(|t| t.attachments.iter().map(|a| a.network));
    by_services.chain(by_tasks).collect()
}

/// A stack goes with the last of the services that go with it. One whose label was taken away stays, and is nobody's.
fn delete_stacks(draft: &mut Draft<'_>) {
    if !draft.tables().stacks.values().any(|stack| stack.pending_delete) {
        return;
    }
    let leaving = draft.tables().services.values().filter(|s| s.pending_delete);
    let held: BTreeSet<StackId> = leaving.filter_map(|s| s.stack).collect();
    let done: Vec<_> = draft
        .tables()
        .stacks
        .values()
        .filter(|stack| stack.pending_delete && !held.contains(&stack.id))
        .cloned()
        .collect();
    for stack in done {
        draft.say(&stack.name, "deleted", "its services are gone");
        draft.delete(ObjectRef::Stack(stack.id));
    }
}
