//! Rolls a new spec out slot by slot, and back again when it fails.
//! Source: swarmkit `manager/orchestrator/update/updater.go`.
//!
//! ```text
//!  slot:   dirty --(a worker is free)--> in flight --(RUNNING, then delay)--> clean
//!                                            `--(a task ended)--> counts as a failure
//!  update: Updating --> Completed            after the last slot, one more `monitor`
//!                 |---> Paused               too many failures, or
//!                 `---> RollbackStarted --> RollbackCompleted | RollbackPaused
//! ```
//! All of it is read off the tasks: a slot is in flight while its task of the new version is on its way.
//! Stricter than Swarm in one point: an updated task that fails later than `monitor` after its start, but
//! while the update still goes on, counts too.

use crate::{
    depend,
    draft::Draft,
    restart,
    slots::{self, Slots},
};
use model::{
    Desired, Duration, FailureAction, Object, PROGRESS_DEADLINE, Placement, Service, Slot, Task, Timestamp,
    UpdateOrder, UpdatePolicy, UpdateState, UpdateStatus,
};
use std::sync::Arc;

/// Where one slot stands.
enum Progress {
    Clean,
    /// Holds nothing of the new spec.
    Dirty,
    InFlight,
    /// On its way until then: the pause between two slots.
    Cooling(Timestamp),
}

pub(crate) fn run(draft: &mut Draft<'_>, service: &Service, slots: &Slots) {
    let state = service.update.as_ref().map(|u| u.state);
    let back = matches!(state, Some(UpdateState::RollbackStarted | UpdateState::RollbackPaused));
    let policy = if back { &service.spec.rollback } else { &service.spec.update };
    // Also in a paused update: a task of the new spec that comes up later must not stay beside the old one.
    retire_overtaken(draft, service, policy.order, slots);
    if matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused)) {
        return; // until a person changes the service
    }
    let rolling_back = state == Some(UpdateState::RollbackStarted);
    let mut dirty = Vec::new();
    let mut busy = 0u64;
    for (slot, tasks) in slots {
        match progress(draft, service, policy, tasks) {
            Progress::Clean => {}
            Progress::Dirty => dirty.push((*slot, tasks)),
            Progress::InFlight => busy += 1,
            Progress::Cooling(until) => {
                draft.wake(until);
                busy += 1;
            }
        }
    }
    let active = matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted));
    if active && let Some(task) = too_many_failures(draft, service, policy, slots) {
        give_up(draft, service, policy, rolling_back, &task);
        return;
    }
    if dirty.is_empty() {
        if active && busy == 0 {
            finish(draft, service, policy, rolling_back, slots);
        }
        return;
    }
    if state.is_none() {
        begin(draft, service);
    }
    if let Some(reason) = depend::waits_for(draft, service, service.spec_version) {
        draft.say(&service.spec.name, "update waits", reason);
        return; // the old tasks go on meanwhile
    }
    let free = if policy.parallelism == 0 { u64::MAX } else { policy.parallelism.saturating_sub(busy) };
    for (slot, tasks) in dirty.into_iter().take(usize::try_from(free).unwrap_or(usize::MAX)) {
        renew(draft, service, policy.order, slot, tasks);
    }
}

/// Leaves a slot one task. Start-first: the new one, once it runs. Stop-first: at once, if the order was another
/// one when the slot got its second.
fn retire_overtaken(draft: &mut Draft<'_>, service: &Service, order: UpdateOrder, slots: &Slots) {
    for tasks in slots.values() {
        let live = || tasks.iter().rev().filter(|t| slots::is_live(t));
        let mut clean = live().filter(|t| slots::is_clean(draft.tables(), || draft.replicas(), service, t));
        let (kept, reason) = match order {
            UpdateOrder::StartFirst => (clean.find(|t| slots::is_running(t)), "its replacement is running"),
            UpdateOrder::StopFirst => {
                let serving = || live().find(|t| slots::is_running(t)).or_else(|| live().next());
                (clean.next().or_else(serving), "no two at once")
            }
        };
        let Some(kept) = kept else { continue };
        for task in live().filter(|t| t.id != kept.id) {
            draft.say(task.name(), "shut down", reason);
            draft.want(task.id, Desired::Shutdown);
        }
    }
}

fn progress(draft: &Draft<'_>, service: &Service, policy: &UpdatePolicy, tasks: &[Arc<Task>]) -> Progress {
    let clean = |t: &Task| slots::is_clean(draft.tables(), || draft.replicas(), service, t);
    let has_live = tasks.iter().any(|t| slots::is_live(t));
    let is_dirty = if has_live {
        !tasks.iter().any(|t| slots::is_live(t) && clean(t)) && !had_all_attempts(service, tasks)
    } else {
        tasks.last().is_some_and(|t| !clean(t)) // ended for good, but by another spec
    };
    if is_dirty {
        return Progress::Dirty;
    }
    let Some(last_dirty) = tasks.iter().rposition(|t| !clean(t)) else {
        return Progress::Clean; // made by scaling, not by the update
    };
    let new = &tasks[last_dirty + 1..];
    let ended = new.iter().filter(|t| slots::is_over(t)).map(|t| draft.learnt(t.status.at)).min();
    let running = new.iter().filter(|t| slots::is_live(t) && slots::is_running(t));
    let came_up = running.map(|t| draft.learnt(t.status.at)).min();
    match ended.into_iter().chain(came_up).min() {
        Some(since) if since.after(policy.delay) > draft.now() => {
            Progress::Cooling(since.after(policy.delay))
        }
        Some(_) => Progress::Clean,
        None => match new.iter().rev().find(|t| slots::is_live(t)) {
            Some(task) => match due_to_be_taken_up(draft, policy, tasks, task) {
                Some(due) if due > draft.now() => Progress::Cooling(due),
                Some(_) => Progress::Clean, // of no use to wait for
                None => Progress::InFlight,
            },
            None => Progress::Clean, // an older task is as good
        },
    }
}

/// Returns until when a node should have taken a task up; `None` if one has, or the task waits for the old one of its
/// slot to stop.
fn due_to_be_taken_up(
    draft: &Draft<'_>,
    policy: &UpdatePolicy,
    tasks: &[Arc<Task>],
    task: &Task,
) -> Option<Timestamp> {
    let waits = task.desired == Desired::Ready && restart::is_stopping(draft.tables(), tasks, task.id);
    let within = policy.progress_deadline.unwrap_or(PROGRESS_DEADLINE);
    let since = draft.learnt(task.desired_at).max(draft.learnt(task.meta.created_at));
    (task.status.state.is_none() && !waits).then(|| since.after(within))
}

/// Returns true if the new spec had all its attempts in this slot: what serves there now stays.
fn had_all_attempts(service: &Service, tasks: &[Arc<Task>]) -> bool {
    tasks.last().is_some_and(|newest| {
        newest.spec_version == service.spec_version
            && slots::ended_by_itself(newest)
            && !restart::may_restart(service, tasks, newest)
    })
}

/// Returns a task whose failure was one too many.
fn too_many_failures(
    draft: &Draft<'_>,
    service: &Service,
    policy: &UpdatePolicy,
    slots: &Slots,
) -> Option<Arc<Task>> {
    if policy.on_failure == FailureAction::Continue {
        return None;
    }
    let is_overdue = |tasks: &[Arc<Task>], task: &Task| {
        slots::is_live(task)
            && due_to_be_taken_up(draft, policy, tasks, task).is_some_and(|due| due <= draft.now())
    };
    let failed: Vec<_> = slots
        .values()
        .filter(|tasks| tasks.iter().any(|t| t.spec_version < service.spec_version))
        .filter_map(|tasks| {
            let mut new = tasks.iter().filter(|t| t.spec_version == service.spec_version);
            new.find(|t| slots::failed(t) || is_overdue(tasks, t))
        })
        .collect();
    let too_many =
        failed.len() as u64 * 1_000_000 > u64::from(policy.max_failure_ratio_ppm) * slots.len() as u64;
    if too_many { failed.last().map(|t| Arc::clone(t)) } else { None }
}

fn begin(draft: &mut Draft<'_>, service: &Service) {
    let now = draft.now();
    draft.say(&service.spec.name, "update started", "");
    draft.edit_service(service.id, |s| {
        s.update = Some(UpdateStatus {
            state: UpdateState::Updating,
            started_at: now,
            completed_at: None,
            message: "update in progress".to_owned(),
        });
    });
}

fn renew(draft: &mut Draft<'_>, service: &Service, order: UpdateOrder, slot: Slot, tasks: &[Arc<Task>]) {
    let name = tasks.last().map_or_else(|| service.spec.name.clone(), |t| t.name());
    let live = || tasks.iter().filter(|t| slots::is_live(t));
    // Start-first: the newest that runs serves on. One overtaken before it ran is not waited for.
    let (desired, serving) = match order {
        UpdateOrder::StopFirst => (Desired::Ready, None),
        UpdateOrder::StartFirst => {
            (Desired::Running, live().rev().find(|t| slots::is_running(t)).map(|t| t.id))
        }
    };
    for task in live().filter(|t| Some(t.id) != serving) {
        draft.want(task.id, Desired::Shutdown);
    }
    draft.say(name, "updated", format!("spec version {}", service.spec_version));
    draft.create_task(service, slot, desired);
}

fn finish(
    draft: &mut Draft<'_>,
    service: &Service,
    policy: &UpdatePolicy,
    rolling_back: bool,
    slots: &Slots,
) {
    let watch =
        if policy.delay > policy.monitor { policy.delay + Duration::from_secs(1) } else { policy.monitor };
    let last = slots
        .values()
        .filter(|tasks| tasks.iter().any(|t| t.spec_version < service.spec_version))
        .flat_map(|tasks| tasks.iter().filter(|t| t.spec_version == service.spec_version))
        .filter(|t| slots::is_running(t) || slots::is_over(t))
        .map(|t| draft.learnt(t.status.at))
        .max();
    if let Some(last) = last
        && last.after(watch) > draft.now()
    {
        draft.wake(last.after(watch));
        return;
    }
    let now = draft.now();
    let (state, message) = if rolling_back {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    draft.say(&service.spec.name, message, "");
    draft.edit_service(service.id, |s| {
        if let Some(update) = &mut s.update {
            update.state = state;
            update.completed_at = Some(now);
            message.clone_into(&mut update.message);
        }
    });
}

/// Pauses the update, or begins the way back. A rollback is never rolled back; nor is there a way back to what cannot
/// be any more: its secret was removed since, its port is another's.
fn give_up(draft: &mut Draft<'_>, service: &Service, policy: &UpdatePolicy, rolling_back: bool, task: &Task) {
    let mut previous =
        service.previous.clone().filter(|_| !rolling_back && policy.on_failure == FailureAction::Rollback);
    let barred = previous.as_ref().and_then(|previous| {
        let back = Service { spec: previous.clone(), ..service.clone() };
        draft.refusal(Object::Service(Arc::new(back)))
    });
    if barred.is_some() {
        previous = None;
    }
    let (state, what, verb) = match (rolling_back, &previous) {
        (true, _) => (UpdateState::RollbackPaused, "rollback paused", "rollback paused"),
        (false, None) => (UpdateState::Paused, "update paused", "update paused"),
        (false, Some(_)) => (UpdateState::RollbackStarted, "update rolled back", "update rolled back"),
    };
    let message = match &task.placement {
        Placement::On(_) if slots::is_over(task) => {
            format!("{verb} due to failure or early termination of task {}", task.id)
        }
        Placement::Pending { reason } => format!("{verb}: no node has taken task {} up: {reason}", task.id),
        Placement::On(_) | Placement::Unallocated => {
            format!("{verb}: task {} was not taken up in time", task.id)
        }
    };
    let message = match barred {
        Some(conflict) => format!("{message}; it cannot be rolled back: {conflict}"),
        None => message,
    };
    draft.say(&service.spec.name, what, message.clone());
    draft.edit_service(service.id, |s| {
        if let Some(update) = &mut s.update {
            update.state = state;
            update.message = message;
        }
        if let Some(previous) = previous {
            s.spec = previous;
            s.previous = None;
            s.spec_version += 1;
        }
    });
}
