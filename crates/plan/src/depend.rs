//! `depends_on`: a service's first tasks wait for what they need. Source: compose specification "depends_on".

use crate::slots;
use model::{DependencyCondition, Mode, Service, ServiceId, Tables, TaskState};

/// Returns what tasks of this version of the service still wait for. Once one of them has been placed, they
/// wait no more: a dependency that falters later must not take its users down with it.
pub(crate) fn waits_for(tables: &Tables, service: &Service, spec_version: u64) -> Option<String> {
    if service.spec.depends_on.is_empty() {
        return None;
    }
    let started =
        tables.tasks_of_service(service.id).any(|t| t.spec_version == spec_version && t.node().is_some());
    if started {
        return None;
    }
    service.spec.depends_on.iter().find_map(|dependency| {
        let target = tables.service_named(&dependency.service);
        let (holds, verb) = match dependency.condition {
            DependencyCondition::Started => (target.is_some_and(|s| is_running(tables, s)), "be running"),
            DependencyCondition::Healthy => (target.is_some_and(|s| is_running(tables, s)), "be healthy"),
            DependencyCondition::CompletedSuccessfully => {
                (target.is_some_and(|s| is_complete(tables, s)), "complete successfully")
            }
        };
        (!holds).then(|| format!("waits for service {:?} to {verb}", dependency.service))
    })
}

fn is_running(tables: &Tables, service: &Service) -> bool {
    let slots = slots::of(tables, service.id);
    let running = slots
        .values()
        .filter(|tasks| tasks.iter().any(|t| slots::is_live(t) && slots::is_running(t)))
        .count();
    match service.spec.mode {
        Mode::Replicated { replicas } => running as u64 >= replicas,
        Mode::Global => running > 0 && running == slots.values().filter(|t| has_live(t)).count(),
        Mode::ReplicatedJob { .. } | Mode::GlobalJob => running > 0 || is_complete(tables, service),
    }
}

fn has_live(tasks: &[std::sync::Arc<model::Task>]) -> bool {
    tasks.iter().any(|t| slots::is_live(t))
}

fn is_complete(tables: &Tables, service: &Service) -> bool {
    let complete = completed_slots(tables, service.id, service.job_iteration);
    let slots = slots::of(tables, service.id).len() as u64;
    match service.spec.mode {
        Mode::Replicated { replicas } => complete >= replicas,
        Mode::ReplicatedJob { total, .. } => complete >= total,
        Mode::Global | Mode::GlobalJob => slots > 0 && complete == slots,
    }
}

fn completed_slots(tables: &Tables, service: ServiceId, iteration: u64) -> u64 {
    slots::of(tables, service)
        .values()
        .filter(|tasks| tasks.last().is_some_and(|t| t.status.state == Some(TaskState::Complete)))
        .filter(|tasks| tasks.iter().any(|t| t.job_iteration == iteration))
        .count() as u64
}
