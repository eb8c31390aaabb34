//! What would become of services, if every task came up: the plan carried out in a copy of the state, for someone who
//! asks before he changes anything. And how each node stands to a service's tasks.

use crate::{Acks, Clock, schedule, slots, step};
use model::{Change, Duration, NodeId, Object, Placement, ServiceId, Tables, Task, TaskState};
use std::{collections::BTreeMap, sync::Arc};

/// Steps that are looked ahead: enough for an update of some hundred tasks, one after the other; and how many tasks all
/// of them may look at, for large swarms.
const STEPS_MAX: usize = 1000;
const WORK_MAX: usize = 400_000;
/// A stack that is new has settled by then, however large.
const STEPS_MIN: usize = 8;
/// Time that is looked ahead without anything new in it: delays and watches of updates pass, deadlines do not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the tasks of a service would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    pub service: ServiceId,
    /// How many on which node.
    pub placed: BTreeMap<NodeId, u64>,
    /// How many have no node, by reason.
    pub waiting: BTreeMap<String, u64>,
    /// Whether it was looked to the end: of a large update only so many steps are.
    pub is_whole: bool,
}

/// How a node stands to a service's tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub node: NodeId,
    /// What is in the way of one more task, all of it, in Docker's words and with the numbers; empty = nothing.
    pub obstacles: Vec<String>,
}

/// Returns where the tasks of services would be in the end, were `tables` the state and came every task up.
///
/// `ids` gives fresh random bits for each task that is tried.
#[must_use]
pub fn foresee(
    tables: &Tables,
    mut clock: Clock,
    services: &[ServiceId],
    ids: &mut dyn FnMut() -> u128,
) -> Vec<Outlook> {
    let mut tables = tables.clone();
    let mut is_whole = false;
    let objects = tables.tasks.values().count() + tables.services.values().count();
    let steps = (WORK_MAX / objects.max(1)).clamp(STEPS_MIN, STEPS_MAX);
    for _ in 0..steps {
        let plan = step(&tables, clock, &Acks::default(), ids);
        let mut is_settled = true;
        for batch in plan.batches {
            let Ok(next) = tables.assume(&batch.changes) else { continue };
            tables = next;
            is_settled = false;
        }
        let reports = reports(&tables, services, clock);
        if !reports.is_empty()
            && let Ok(next) = tables.assume(&reports)
        {
            tables = next;
            is_settled = false;
        }
        if !is_settled {
            continue;
        }
        match plan.wake_at {
            Some(at) if at.since(clock.now) <= PATIENCE => clock.now = at,
            _ => {
                is_whole = true;
                break;
            }
        }
    }
    services.iter().map(|service| outlook(&tables, *service, is_whole)).collect()
}

/// What the nodes of these services' tasks would say: what was placed runs, what is to stop has stopped.
fn reports(tables: &Tables, services: &[ServiceId], clock: Clock) -> Vec<Change> {
    let tasks = services.iter().flat_map(|service| tables.tasks_of_service(*service));
    let said = tasks.filter(|task| task.node().is_some()).filter_map(|task| {
        let state = match task.status.state {
            _ if slots::is_over(task) => return None,
            Some(TaskState::Running) if slots::is_live(task) => return None,
            _ if !slots::is_live(task) => TaskState::Shutdown,
            Some(TaskState::Ready) if task.desired == model::Desired::Ready => return None,
            _ if task.desired == model::Desired::Ready => TaskState::Ready,
            _ => TaskState::Running,
        };
        let mut task = Task::clone(task);
        task.status.state = Some(state);
        task.status.at = clock.now;
        Some(Change::Put(Object::Task(Arc::new(task))))
    });
    said.collect()
}

fn outlook(tables: &Tables, service: ServiceId, is_whole: bool) -> Outlook {
    let mut outlook = Outlook { service, placed: BTreeMap::new(), waiting: BTreeMap::new(), is_whole };
    for task in tables.tasks_of_service(service).filter(|task| slots::is_live(task) && !slots::is_over(task))
    {
        match &task.placement {
            Placement::On(node) => *outlook.placed.entry(*node).or_default() += 1,
            Placement::Pending { reason } => *outlook.waiting.entry(reason.clone()).or_default() += 1,
            Placement::Unallocated => {
                *outlook.waiting.entry("no address or port for it yet".to_owned()).or_default() += 1;
            }
        }
    }
    outlook
}

/// Returns how each node stands to one more task of a service; nothing if there is no such service.
#[must_use]
pub fn verdicts(tables: &Tables, clock: Clock, service: ServiceId) -> Vec<Verdict> {
    schedule::verdicts(tables, clock, service)
}
