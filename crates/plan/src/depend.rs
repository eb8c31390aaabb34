//! `depends_on`: a service's first tasks wait for what they need. Source: compose specification "depends_on".

use crate::{
    draft::Draft,
    slots::{self, Slots},
};
use model::{DependencyCondition, Mode, Service, Tables, Task, TaskState};
use std::sync::Arc;

/// Returns what tasks of this version of the service still wait for. Once one of them has been placed, they
/// wait no more: a dependency that falters later must not take its users down with it.
pub(crate) fn waits_for(draft: &mut Draft<'_>, service: &Service, spec_version: u64) -> Option<String> {
    if service.spec.depends_on.is_empty() {
        return None;
    }
    let is_placed = |t: &Arc<Task>| t.spec_version == spec_version && t.node().is_some();
    let started = draft.tables().tasks_of_service(service.id).any(is_placed);
    if started {
        return None;
    }
    service.spec.depends_on.iter().find_map(|dependency| {
        let target = draft.tables().service_named(&dependency.service).cloned();
        let stand = target.map(|target| draft.stand(&target)).unwrap_or_default();
        let (holds, verb) = match dependency.condition {
            DependencyCondition::Started => (stand.is_running, "be running"),
            DependencyCondition::Healthy => (stand.is_running, "be healthy"),
            DependencyCondition::CompletedSuccessfully => (stand.is_complete, "complete successfully"),
        };
        (!holds).then(|| format!("waits for service {:?} to {verb}", dependency.service))
    })
}

/// Where a service stands for those that depend on it; one that is not there stands nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stand {
    is_running: bool,
    is_complete: bool,
}

impl Stand {
    pub(crate) fn of(tables: &Tables, service: &Service) -> Self {
        let slots = slots::of(tables, service.id);
        let is_complete = is_complete(&slots, service);
        Self { is_running: is_running(&slots, service, is_complete), is_complete }
    }
}

fn is_running(slots: &Slots, service: &Service, is_complete: bool) -> bool {
    let running = slots
        .values()
        .filter(|tasks| tasks.iter().any(|t| slots::is_live(t) && slots::is_running(t)))
        .count();
    match service.spec.mode {
        Mode::Replicated { replicas } => running as u64 >= replicas,
        Mode::Global => running > 0 && running == slots.values().filter(|t| has_live(t)).count(),
        Mode::ReplicatedJob { .. } | Mode::GlobalJob => running > 0 || is_complete,
    }
}

fn has_live(tasks: &[Arc<Task>]) -> bool {
    tasks.iter().any(|t| slots::is_live(t))
}

fn is_complete(slots: &Slots, service: &Service) -> bool {
    let complete = slots
        .values()
        .filter(|tasks| tasks.last().is_some_and(|t| t.status.state == Some(TaskState::Complete)))
        .filter(|tasks| tasks.iter().any(|t| t.job_iteration == service.job_iteration))
        .count() as u64;
    match service.spec.mode {
        Mode::Replicated { replicas } => complete >= replicas,
        Mode::ReplicatedJob { total, .. } => complete >= total,
        Mode::Global | Mode::GlobalJob => !slots.is_empty() && complete == slots.len() as u64,
    }
}
