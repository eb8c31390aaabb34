//! Replaces tasks that ended or lost their node, as the restart policy says. A retry is a new task in the
//! same slot: made at once with desired READY, so that its node can prepare it, and promoted when the delay
//! is over and the old one has stopped. Source: swarmkit `manager/orchestrator/restart`.

use crate::{
    constraint,
    draft::Draft,
    nodes::{self, Home},
    slots::{self, Slots},
};
use model::{Desired, RestartCondition, Service, Slot, Tables, Task, TaskId, TaskState, Timestamp};
use std::{collections::BTreeSet, sync::Arc};

/// Shuts down what cannot go on in these slots, and makes the replacements the policy allows.
pub(crate) fn heal(draft: &mut Draft<'_>, service: &Service, slots: &Slots, crowded: &BTreeSet<TaskId>) {
    for (slot, tasks) in slots {
        let mut is_filled = false;
        for task in tasks.iter().rev().filter(|t| slots::is_live(t)) {
            let home = home(draft.tables(), service, task, crowded);
            let done = task.desired == Desired::Complete && task.status.state == Some(TaskState::Complete);
            if done || (home == Home::Fine && !slots::is_over(task)) {
                continue;
            }
            // Rejected before its delay was over, for it was prepared meanwhile: so would be the next one, and the next.
            if task.desired == Desired::Ready
                && slots::ended_by_itself(task)
                && let Some(at) = rests_until(draft, tasks, task)
                && at > draft.now()
            {
                draft.wake(at);
                is_filled = true;
                continue;
            }
            is_filled |= replace(draft, service, *slot, tasks, task, home, is_filled);
        }
    }
}

/// Shuts a task down; true if another one was made for it. A slot whose tasks of a start-first update end
/// together is filled once.
fn replace(
    draft: &mut Draft<'_>,
    service: &Service,
    slot: Slot,
    tasks: &[Arc<Task>],
    task: &Task,
    home: Home,
    is_filled: bool,
) -> bool {
    draft.want(task.id, Desired::Shutdown);
    let why = if slots::is_over(task) { ended_reason(task) } else { home.reason().to_owned() };
    let has_successor = tasks.iter().any(|t| {
        t.id != task.id && slots::is_live(t) && t.spec_version >= task.spec_version && !slots::is_over(t)
    });
    // A global task lives and dies with its node.
    let bound_to_node = matches!(slot, Slot::Node(_)) && !matches!(home, Home::Fine | Home::Crowded);
    if is_filled || has_successor || bound_to_node || !may_restart(service, tasks, task) {
        draft.say(task.name(), "shut down", why);
        return false;
    }
    draft.say(task.name(), "replaced", why);
    draft.create_task(service, slot, Desired::Ready);
    true
}

fn ended_reason(task: &Task) -> String {
    let error = task.status.error.clone().unwrap_or_else(|| task.status.message.clone());
    let state = match task.status.state {
        Some(TaskState::Complete) => "complete",
        Some(TaskState::Rejected) => "rejected",
        Some(TaskState::Orphaned) => "orphaned",
        Some(TaskState::Shutdown) => "was shut down",
        _ => "failed",
    };
    if error.is_empty() { state.to_owned() } else { format!("{state}: {error}") }
}

/// Returns whether a task's node still is a place for it.
fn home(tables: &Tables, service: &Service, task: &Task, crowded: &BTreeSet<TaskId>) -> Home {
    let Some(id) = task.node() else { return Home::Fine };
    let Some(node) = tables.nodes.get(&id) else { return Home::Lost };
    // Both the constraints it was made with and the present ones: a change of the spec is the updater's to
    // roll out, only a change of the node is ours.
    let placements = [&task.spec.placement, &service.spec.task.placement];
    if nodes::is_lost(Some(node)) {
        Home::Lost
    } else if nodes::is_drained(node) {
        Home::Drained
    } else if node.description.is_some() && placements.iter().all(|p| !constraint::allows(p, node)) {
        Home::Unfit
    } else if crowded.contains(&task.id) {
        Home::Crowded
    } else {
        Home::Fine
    }
}

/// Returns true if the policy lets the slot be filled again after this task.
pub(crate) fn may_restart(service: &Service, tasks: &[Arc<Task>], task: &Task) -> bool {
    let policy = &task.spec.restart;
    let succeeded = task.status.state == Some(TaskState::Complete);
    let condition = match (policy.condition, service.spec.mode) {
        // A job that ran to its end is done.
        (RestartCondition::Any, model::Mode::ReplicatedJob { .. } | model::Mode::GlobalJob) => {
            RestartCondition::OnFailure
        }
        (condition, _) => condition,
    };
    let wanted = match condition {
        RestartCondition::Any => true,
        RestartCondition::OnFailure => !succeeded,
        RestartCondition::None => false,
    };
    if !wanted || policy.max_attempts == 0 || !slots::ended_by_itself(task) {
        return wanted;
    }
    // Looked at from the moment of its end: a slot that was given up does not come back as time goes by. Ends that
    // different leaders noted are as far apart as their clocks say: nothing better is known of them.
    let in_window = |t: &Task| policy.window.is_zero() || task.status.at.since(t.status.at) < policy.window;
    let ended = tasks
        .iter()
        .filter(|t| t.spec_version == task.spec_version && t.job_iteration == task.job_iteration)
        .filter(|t| slots::ended_by_itself(t) && in_window(t))
        .count() as u64;
    // The first start was no restart.
    ended <= policy.max_attempts
}

/// Lets tasks that wait at READY go on, once they may.
pub(crate) fn promote(draft: &mut Draft<'_>, service: &Service) {
    let goal = match service.spec.mode {
        model::Mode::Replicated { .. } | model::Mode::Global => Desired::Running,
        model::Mode::ReplicatedJob { .. } | model::Mode::GlobalJob => Desired::Complete,
    };
    for tasks in slots::with_removed(draft.tables(), service.id).values() {
        for task in tasks.iter().filter(|t| t.desired == Desired::Ready) {
            if is_stopping(draft.tables(), tasks, task.id) {
                continue;
            }
            match rests_until(draft, tasks, task) {
                Some(at) if at > draft.now() => draft.wake(at),
                _ => draft.want(task.id, goal),
            }
        }
    }
}

/// Makes a fresh task for a slot: to wait at READY while an old one of the slot has not stopped, else to go on to
/// `goal` at once. `before`: the tasks of the service, also those to be removed.
pub(crate) fn fill(draft: &mut Draft<'_>, service: &Service, slot: Slot, before: &Slots, goal: Desired) {
    let tasks = before.get(&slot).map_or(&[][..], Vec::as_slice);
    let waits = is_stopping(draft.tables(), tasks, TaskId(0));
    draft.create_task(service, slot, if waits { Desired::Ready } else { goal });
}

/// Returns true while a container of the slot that was told to stop may still run, other than `but`'s. However long
/// it takes: only its node's word, or the loss of the node, ends it. A bound would make two copies of a slot run.
pub(crate) fn is_stopping(tables: &Tables, tasks: &[Arc<Task>], but: TaskId) -> bool {
    tasks
        .iter()
        .filter(|t| t.id != but && t.desired > Desired::Complete)
        .any(|t| t.may_hold_resources() && !nodes::on_lost_node(tables, t))
}

/// Returns when the restart delay of the task before this one is over; `None`: there is none.
fn rests_until(draft: &Draft<'_>, tasks: &[Arc<Task>], task: &Task) -> Option<Timestamp> {
    tasks
        .iter()
        .filter(|t| t.id != task.id && t.desired > Desired::Complete)
        .filter(|t| t.desired_at == task.desired_at && t.spec_version == task.spec_version)
        .filter(|t| slots::ended_by_itself(t))
        .map(|t| draft.learnt(task.desired_at).after(t.spec.restart.delay))
        .max()
}
