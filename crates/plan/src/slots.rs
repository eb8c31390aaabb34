//! A service's tasks by slot, and what can be said of one task.

use crate::{constraint, nodes::Replicas};
use model::{
    Desired, EndpointSpec, NetworkDriver, NodeNetwork, PortConfig, PublishMode, RestartCondition, Service,
    ServiceId, Slot, Tables, Task, TaskSpec, TaskState,
};
use std::{collections::BTreeMap, sync::Arc};

/// Tasks of one slot, oldest first; those to be removed are left out.
pub(crate) type Slots = BTreeMap<Slot, Vec<Arc<Task>>>;

pub(crate) fn of(tables: &Tables, service: ServiceId) -> Slots {
    let mut slots = with_removed(tables, service);
    slots.retain(|_, tasks| {
        tasks.retain(|t| t.desired != Desired::Remove);
        !tasks.is_empty()
    });
    slots
}

/// The same with those to be removed: their containers may still run.
pub(crate) fn with_removed(tables: &Tables, service: ServiceId) -> Slots {
    let mut slots = Slots::new();
    for task in tables.tasks_of_service(service) {
        slots.entry(task.slot).or_default().push(task.clone());
    }
    for tasks in slots.values_mut() {
        tasks.sort_by_key(|t| age_key(t));
    }
    slots
}

/// Orders tasks of one slot by when they were made. The clock counts only among those that were made before objects knew
/// their index.
pub(crate) fn age_key(task: &Task) -> (u64, model::Timestamp, model::TaskId) {
    let at = if task.meta.created == 0 { task.meta.created_at } else { model::Timestamp::default() };
    (task.meta.created, at, task.id)
}

/// Returns true while the plan wants it to run.
pub(crate) fn is_live(task: &Task) -> bool {
    task.desired <= Desired::Complete
}

/// Returns true once nothing more will come of it.
pub(crate) fn is_over(task: &Task) -> bool {
    task.status.state.is_some_and(TaskState::is_terminal)
}

pub(crate) fn is_running(task: &Task) -> bool {
    task.status.state == Some(TaskState::Running)
}

/// Returns true if it ended although it was not asked to.
pub(crate) fn ended_by_itself(task: &Task) -> bool {
    match task.status.state {
        Some(TaskState::Complete | TaskState::Failed | TaskState::Rejected) => true,
        Some(
            TaskState::Accepted
            | TaskState::Preparing
            | TaskState::Ready
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Shutdown
            | TaskState::Orphaned,
        )
        | None => false,
    }
}

/// Returns true if its end was a failure. A task that is to run for ever fails by completing.
pub(crate) fn failed(task: &Task) -> bool {
    match task.status.state {
        Some(TaskState::Failed | TaskState::Rejected) => true,
        Some(TaskState::Complete) => task.spec.restart.condition == RestartCondition::Any,
        _ => false,
    }
}

/// Returns true if a task of this service should be just as this one is.
///
/// A change of placement alone does not dirty a task whose node still fits.
///
/// `replicas` are counted when they are asked for.
pub(crate) fn is_clean<'a>(
    tables: &Tables,
    replicas: impl Fn() -> &'a Replicas,
    service: &Service,
    task: &Task,
) -> bool {
    if task.spec_version == service.spec_version {
        return true;
    }
    let wanted = &service.spec.task;
    let same_spec = Arc::ptr_eq(wanted, &task.spec)
        || **wanted == *task.spec
        || (same_but_placement(wanted, &task.spec) && node_still_fits(tables, replicas, wanted, task));
    same_spec && (task.node().is_none() || has_its_endpoint(tables, &service.spec.endpoint, task))
}

fn same_but_placement(a: &TaskSpec, b: &TaskSpec) -> bool {
    a.container == b.container
        && a.resources == b.resources
        && a.restart == b.restart
        && a.networks == b.networks
        && a.log_driver == b.log_driver
        && a.force_update == b.force_update
}

fn node_still_fits<'a>(
    tables: &Tables,
    replicas: impl Fn() -> &'a Replicas,
    wanted: &TaskSpec,
    task: &Task,
) -> bool {
    let Some(node) = task.node() else { return false };
    let Some(node) = tables.nodes.get(&node) else { return false };
    constraint::allows(&wanted.placement, node)
        && constraint::runs_platform(&wanted.placement, node)
        && within_replica_limit(replicas, wanted, task, node.id)
}

fn within_replica_limit<'a>(
    replicas: impl Fn() -> &'a Replicas,
    wanted: &TaskSpec,
    task: &Task,
    node: model::NodeId,
) -> bool {
    let limit = wanted.placement.max_replicas_per_node;
    limit == 0 || replicas().elsewhere(task, node) < limit
}

/// Host ports are fixed when a task is placed, and so is whether it has a way in from outside. Ingress ports
/// are not the task's: they change under it.
fn has_its_endpoint(tables: &Tables, endpoint: &EndpointSpec, task: &Task) -> bool {
    let wanted: Vec<&PortConfig> = host_ports(endpoint).collect();
    let ports_fit = wanted.len() == task.host_ports.len()
        && wanted.iter().zip(&task.host_ports).all(|(want, have)| {
            want.protocol == have.protocol
                && want.target == have.target
                && (want.published == 0 || want.published == have.published)
        });
    ports_fit
        && (is_over(task) || task.gateway_address.is_some() || !needs_gateway(tables, endpoint, &task.spec))
}

pub(crate) fn host_ports(endpoint: &EndpointSpec) -> impl Iterator<Item = &PortConfig> {
    endpoint.ports.iter().filter(|p| p.mode == PublishMode::Host)
}

/// Returns the network of its node that a task of this spec is on; `None`: the swarm's.
pub(crate) fn node_network(tables: &Tables, spec: &TaskSpec) -> Option<NodeNetwork> {
    let networks = spec.networks.iter().filter_map(|n| tables.networks.get(&n.network));
    networks.map(|network| network.spec.driver).find_map(|driver| match driver {
        NetworkDriver::Overlay | NetworkDriver::Ingress => None,
        NetworkDriver::Host => Some(NodeNetwork::Host),
        NetworkDriver::None => Some(NodeNetwork::None),
        NetworkDriver::Bridge => Some(NodeNetwork::Bridge),
    })
}

/// Returns true if a task needs an address outside its overlay networks: to be reached from outside, or to
/// reach it.
pub(crate) fn needs_gateway(tables: &Tables, endpoint: &EndpointSpec, spec: &TaskSpec) -> bool {
    if node_network(tables, spec).is_some() {
        return false;
    }
    let networks: Vec<_> = spec.networks.iter().filter_map(|n| tables.networks.get(&n.network)).collect();
    if spec.networks.is_empty() || !endpoint.ports.is_empty() {
        return true;
    }
    networks.iter().any(|n| n.spec.driver == NetworkDriver::Overlay && !n.spec.internal)
}
