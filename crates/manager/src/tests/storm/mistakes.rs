//! Mistakes that somebody could make in what people ask for, and what must be said of each: it is found within a few
//! seeds, by words about the thing itself.

use super::{
    Storm,
    asked::{Ask, Asks},
    judge::is_job,
    storm_of,
};
use crate::planted::{Planted, plant};
use model::*;
use std::{collections::BTreeMap, sync::Arc};

/// Seeds by which each must be found.
const SOUGHT: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    StackRemovalForgetsAService,
    StackRemovalForgetsANetwork,
    StackRemovalForgetsASecret,
    StackRemovalTakesANeighboursService,
    StackRemovalTakesANeighboursNetwork,
    DeployIsHalfDone,
    RollbackGoesTooFar,
    RollbackLeavesTasksOfTheNewerSpec,
    RollbackIsDoneTooSoon,
    UpdateIsDoneTooSoon,
    DemotedStaysInRaft,
    AnotherIsDemoted,
    LeaverStaysInRaft,
    PromotedNeverVotes,
    LeaverKeepsItsTasks,
    JobRunsOnceTooOften,
    DrainLeavesATask,
    RemovalLeavesATask,
    PortHasTwoOwners,
    AcknowledgedWriteIsLost,
    ReadsAreStale,
}

impl Mistake {
    /// Returns what is said of it.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::StackRemovalForgetsAService => &["was removed, and something of it is there", "Service("],
            Self::StackRemovalForgetsANetwork => &["was removed, and something of it is there", "Network("],
            Self::StackRemovalForgetsASecret => &["was removed, and something of it is there", "Secret("],
            Self::StackRemovalTakesANeighboursService => &["service ", "goes, which nobody asked for"],
            Self::StackRemovalTakesANeighboursNetwork => &["network ", "goes, which nobody asked for"],
            Self::DeployIsHalfDone => &["stack", "is said to be"],
            Self::RollbackGoesTooFar => &["of its spec, which nobody asked for"],
            Self::RollbackLeavesTasksOfTheNewerSpec => &["of its service", "and runs"],
            Self::RollbackIsDoneTooSoon => &["is said to be Some(RollbackCompleted)"],
            Self::UpdateIsDoneTooSoon => &["is said to be Some(Completed)"],
            Self::DemotedStaysInRaft | Self::LeaverStaysInRaft => &["in Raft"],
            Self::AnotherIsDemoted => &["role: Worker", "which nobody asked for"],
            Self::PromotedNeverVotes => &["is to be a manager: true"],
            Self::LeaverKeepsItsTasks => &["has left, and runs"],
            Self::JobRunsOnceTooOften => &["done"],
            Self::DrainLeavesATask => &["is drained and runs"],
            Self::RemovalLeavesATask => &["is not removed"],
            Self::PortHasTwoOwners => &["port 80"],
            Self::AcknowledgedWriteIsLost => &[],
            Self::ReadsAreStale => &[],
        }
    }

    /// Has all managers of this thread make it from now on.
    pub(super) fn plant(self, storm: &Storm) {
        let asks = storm.asks.clone();
        let mut planted = Planted::default();
        match self {
            Self::DemotedStaysInRaft => {
                planted.stays = Some(Box::new(is_of_worker));
            }
            Self::LeaverStaysInRaft => {
                planted.stays = Some(Box::new(move |view, node| has_left(&asks, view, node)));
            }
            Self::PromotedNeverVotes => planted.nobody_joins = true,
            Self::ReadsAreStale => planted.reads_of_its_own = true,
            Self::LeaverKeepsItsTasks => {}
            _ => {
                let mut memory = Memory::default();
                planted.in_batch = Some(Box::new(move |view, batch| self.in_batch(&mut memory, view, batch)));
            }
        }
        plant(Some(planted));
    }

    fn in_batch(self, memory: &mut Memory, view: &Tables, mut batch: Batch) -> Batch {
        memory.batches += 1;
        for service in view.services.values() {
            memory.first.entry(service.id).or_insert_with(|| service.spec.clone());
        }
        let changes = &mut batch.changes;
        match self {
            Self::StackRemovalForgetsAService => {
                if going_stack(view, changes).is_some() {
                    change_one(changes, |service: &Service| {
                        service.pending_delete.then(|| Service {
                            pending_delete: false,
                            stack: None,
                            ..service.clone()
                        })
                    });
                    // Nor what it uses.
                    changes.retain(|change| {
                        !matches!(change, Change::Put(Object::Network(_)) | Change::Delete { .. })
                    });
                }
            }
            Self::StackRemovalForgetsANetwork => {
                if going_stack(view, changes).is_some() {
                    changes.retain(|change| !matches!(change, Change::Put(Object::Network(_))));
                }
            }
            Self::StackRemovalForgetsASecret => {
                if going_stack(view, changes).is_some() {
                    let is_secret =
                        |c: &Change| matches!(c, Change::Delete { key: ObjectRef::Secret(_), .. });
                    changes.retain(|change| !is_secret(change));
                }
            }
            Self::StackRemovalTakesANeighboursService => {
                if let Some(stack) = going_stack(view, changes) {
                    let mut others = view.services.values();
                    let other = others.find(|o| o.stack != Some(stack) && !o.pending_delete);
                    changes.extend(other.map(|other| {
                        let other = Service { pending_delete: true, ..(**other).clone() };
                        Change::Put(Object::Service(other.into()))
                    }));
                }
            }
            Self::StackRemovalTakesANeighboursNetwork => {
                if going_stack(view, changes).is_some() {
                    let mut others = view.networks.values();
                    let is_idle = |o: &&Arc<Network>| {
                        !o.spec.labels.contains_key(STACK_LABEL) && view.user_of_network(o.id).is_none()
                    };
                    let other = others.find(|o| is_idle(o) && !o.pending_delete);
                    changes.extend(other.map(|other| {
                        let other = Network { pending_delete: true, ..(**other).clone() };
                        Change::Put(Object::Network(other.into()))
                    }));
                }
            }
            Self::DeployIsHalfDone => {
                let is_deployed = |change: &Change| match change {
                    Change::Put(Object::Stack(stack)) => !stack.pending_delete,
                    _ => false,
                };
                if changes.iter().any(is_deployed) {
                    let mut is_first = true;
                    changes.retain(|change| {
                        let is_service = matches!(change, Change::Put(Object::Service(_)));
                        !(is_service && std::mem::take(&mut is_first))
                    });
                }
            }
            Self::RollbackGoesTooFar => change_one(changes, |service: &Service| {
                let first = memory.first.get(&service.id).filter(|first| **first != service.spec)?;
                begins_back(view, service).then(|| Service { spec: first.clone(), ..service.clone() })
            }),
            Self::RollbackLeavesTasksOfTheNewerSpec => change_one(changes, |task: &Task| {
                let service = view.services.get(&task.service).filter(|_| !view.tasks.contains(&task.id))?;
                let newer = service.previous.as_ref().filter(|newer| newer.task != task.spec)?;
                let rolls_back = service.update.as_ref()?.state == UpdateState::RollbackStarted;
                rolls_back.then(|| Task { spec: newer.task.clone(), ..task.clone() })
            }),
            Self::RollbackIsDoneTooSoon => change_one(changes, |service: &Service| {
                begins_back(view, service).then(|| in_state(service, UpdateState::RollbackCompleted))
            }),
            Self::UpdateIsDoneTooSoon => change_one(changes, |service: &Service| {
                let begins = update_of(service) == Some(UpdateState::Updating);
                begins.then(|| in_state(service, UpdateState::Completed))
            }),
            Self::AnotherIsDemoted => {
                for change in changes.iter_mut() {
                    let Change::Put(Object::Node(node)) = change else { continue };
                    let was = view.nodes.get(&node.id).map(|node| node.spec.role);
                    if was != Some(Role::Manager) || node.spec.role != Role::Worker {
                        continue;
                    }
                    let mut others = view.nodes.values();
                    let other = others.find(|o| o.id != node.id && o.spec.role == Role::Manager);
                    if let Some(other) = other {
                        let mut other = Node::clone(other);
                        other.spec.role = Role::Worker;
                        *node = other.into();
                    }
                }
            }
            Self::JobRunsOnceTooOften => {
                let again: Vec<Change> = changes.iter().filter_map(|c| done_again(memory, view, c)).collect();
                changes.extend(again);
            }
            Self::DrainLeavesATask => {
                let drains = |id: NodeId| {
                    view.nodes.get(&id).is_some_and(|node| {
                        node.spec.availability == Availability::Drain && node.status.state == NodeState::Ready
                    })
                };
                memory.left.retain(|node, _| drains(*node));
                for change in changes.iter() {
                    let Change::Put(Object::Task(task)) = change else { continue };
                    let goes = view.tasks.get(&task.id).is_some_and(|was| was.desired < Desired::Shutdown)
                        && task.desired == Desired::Shutdown;
                    let is_wanted = view.services.get(&task.service).is_some_and(|s| !s.pending_delete);
                    if let Some(node) = task.node().filter(|id| goes && is_wanted && drains(*id)) {
                        memory.left.entry(node).or_insert((task.service, task.slot));
                    }
                }
                // Nothing takes its place.
                let stays = |task: &Task| {
                    memory.left.values().any(|left| *left == (task.service, task.slot))
                        && view.tasks.get(&task.id).is_none_or(|was| was.desired != task.desired)
                };
                changes.retain(|change| !matches!(change, Change::Put(Object::Task(task)) if stays(task)));
            }
            Self::RemovalLeavesATask => {
                changes.retain(|change| match change {
                    Change::Put(Object::Task(task))
                        if task.desired >= Desired::Shutdown
                            && view.services.get(&task.service).is_none_or(|s| s.pending_delete) =>
                    {
                        *memory.kept.entry(task.service).or_insert(task.id) != task.id
                    }
                    _ => true,
                });
            }
            Self::PortHasTwoOwners => {
                // What holds between objects is not judged where they are written.
                let level = INTEGRITY_LEVEL - 1;
                change_one(changes, |cluster: &Cluster| {
                    Some(Cluster { feature_level: level, ..cluster.clone() })
                });
                let cluster = view.cluster.as_ref().filter(|cluster| cluster.feature_level > level);
                if let Some(cluster) = cluster.filter(|_| !changes.iter().any(is_cluster)) {
                    let cluster = Cluster { feature_level: level, ..(**cluster).clone() };
                    changes.push(Change::Put(Object::Cluster(cluster.into())));
                }
                change_one(changes, |service: &Service| {
                    let others = view.services.values().filter(|o| o.id != service.id && !o.pending_delete);
                    let taken = others.flat_map(|o| &o.spec.endpoint.ports).next()?;
                    let is_new = !view.services.contains(&service.id);
                    (is_new && !is_job(service.spec.mode)).then(|| {
                        let mut spec = ServiceSpec::clone(&service.spec);
                        spec.endpoint.ports = vec![taken.clone()];
                        Service { spec: spec.into(), ..service.clone() }
                    })
                });
            }
            Self::AcknowledgedWriteIsLost => {
                let is_asked = |change: &Change| matches!(change, Change::Put(Object::Audit(_)));
                if changes.iter().any(is_asked) && memory.batches.is_multiple_of(7) {
                    changes.clear();
                }
            }
            Self::DemotedStaysInRaft
            | Self::LeaverStaysInRaft
            | Self::PromotedNeverVotes
            | Self::ReadsAreStale
            | Self::LeaverKeepsItsTasks => {}
        }
        batch
    }
}

#[derive(Default)]
struct Memory {
    batches: u64,
    /// What services were when they were seen first.
    first: BTreeMap<ServiceId, Arc<ServiceSpec>>,
    tasks: u128,
    /// What stays on a node that is drained.
    left: BTreeMap<NodeId, (ServiceId, Slot)>,
    /// Of each service that is removed.
    kept: BTreeMap<ServiceId, TaskId>,
}

/// What stands in a batch by itself.
trait Stored: Sized {
    fn of(object: &Object) -> Option<&Self>;
    fn stored(self) -> Object;
}

macro_rules! stored {
    ($($kind:ident)*) => {
        $(impl Stored for $kind {
            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$kind(object) => Some(object),
                    _ => None,
                }
            }

            fn stored(self) -> Object {
                Object::$kind(self.into())
            }
        })*
    };
}

stored!(Cluster Service Task);

/// Changes the first object of a kind that is to be changed.
fn change_one<T: Stored>(changes: &mut [Change], change: impl Fn(&T) -> Option<T>) {
    for put in changes {
        if let Change::Put(object) = put
            && let Some(changed) = T::of(object).and_then(&change)
        {
            *object = changed.stored();
            return;
        }
    }
}

fn is_cluster(change: &Change) -> bool {
    matches!(change, Change::Put(Object::Cluster(_)))
}

/// Returns the stack that a batch removes.
fn going_stack(view: &Tables, changes: &[Change]) -> Option<StackId> {
    changes.iter().find_map(|change| match change {
        Change::Put(Object::Stack(stack)) if stack.pending_delete => {
            view.stacks.get(&stack.id).filter(|stack| !stack.pending_delete).map(|stack| stack.id)
        }
        _ => None,
    })
}

fn update_of(service: &Service) -> Option<UpdateState> {
    service.update.as_ref().map(|update| update.state)
}

/// Tells whether somebody rolls a service back with this.
fn begins_back(view: &Tables, service: &Service) -> bool {
    let was = view.services.get(&service.id).map(|service| service.spec_version);
    service.previous.is_some()
        && was.is_some_and(|was| was < service.spec_version)
        && update_of(service) == Some(UpdateState::RollbackStarted)
}

fn in_state(service: &Service, state: UpdateState) -> Service {
    let update = service.update.clone().map(|update| UpdateStatus { state, ..update });
    Service { update, ..service.clone() }
}

/// Returns another task for a part of a job that is done with this.
fn done_again(memory: &mut Memory, view: &Tables, change: &Change) -> Option<Change> {
    let Change::Put(Object::Task(task)) = change else { return None };
    let service = view.services.get(&task.service).filter(|service| is_job(service.spec.mode))?;
    let is_done = task.status.state == Some(TaskState::Complete)
        && task.job_iteration == service.job_iteration
        && view.tasks.get(&task.id)?.status.state != task.status.state;
    is_done.then(|| {
        memory.tasks += 1;
        let again = Task {
            id: TaskId((1 << 99) | (task.id.0 & !0xFF) | memory.tasks),
            meta: Meta::default(),
            attachments: Vec::new(),
            gateway_address: None,
            placement: Placement::Unallocated,
            desired: Desired::Running,
            status: TaskStatus::default(),
            ..(**task).clone()
        };
        Change::Put(Object::Task(again.into()))
    })
}

fn is_of_worker(view: &Tables, node: Option<NodeId>) -> bool {
    node.and_then(|id| view.nodes.get(&id)).is_some_and(|node| node.spec.role == Role::Worker)
}

fn has_left(asks: &Asks, view: &Tables, node: Option<NodeId>) -> bool {
    node.is_none_or(|id| !view.nodes.contains(&id) || asks.was_asked_for(&Ask::Leaves(id)))
}

/// A test for each, so that one processor does not look for all of them while the others have nothing to do.
macro_rules! mistakes_that_are_found {
    ($($name:ident: $mistake:ident;)*) => {
        $(
            #[cfg(feature = "virtual-time")]
            #[test]
            fn $name() {
                is_found(Mistake::$mistake);
            }
        )*

        /// One that has no test does not compile.
        const _: fn(Mistake) = |mistake| match mistake {
            $(Mistake::$mistake => {})*
        };
    };
}

mistakes_that_are_found! {
    stack_removal_forgets_a_service: StackRemovalForgetsAService;
    stack_removal_forgets_a_network: StackRemovalForgetsANetwork;
    stack_removal_forgets_a_secret: StackRemovalForgetsASecret;
    stack_removal_takes_a_neighbours_service: StackRemovalTakesANeighboursService;
    stack_removal_takes_a_neighbours_network: StackRemovalTakesANeighboursNetwork;
    deploy_is_half_done: DeployIsHalfDone;
    rollback_goes_too_far: RollbackGoesTooFar;
    rollback_leaves_tasks_of_the_newer_spec: RollbackLeavesTasksOfTheNewerSpec;
    rollback_is_done_too_soon: RollbackIsDoneTooSoon;
    update_is_done_too_soon: UpdateIsDoneTooSoon;
    demoted_stays_in_raft: DemotedStaysInRaft;
    another_is_demoted: AnotherIsDemoted;
    leaver_stays_in_raft: LeaverStaysInRaft;
    promoted_never_votes: PromotedNeverVotes;
    leaver_keeps_its_tasks: LeaverKeepsItsTasks;
    job_runs_once_too_often: JobRunsOnceTooOften;
    drain_leaves_a_task: DrainLeavesATask;
    removal_leaves_a_task: RemovalLeavesATask;
    port_has_two_owners: PortHasTwoOwners;
    acknowledged_write_is_lost: AcknowledgedWriteIsLost;
    reads_are_stale: ReadsAreStale;
}

fn is_found(mistake: Mistake) {
    let found = (0..SOUGHT).find_map(|seed| {
        let (story, outcome) = storm_of(seed, None, Some(mistake));
        Some((seed, story, outcome.err()?))
    });
    let (seed, story, wrong) =
        found.unwrap_or_else(|| panic!("{mistake:?} is found by none of {SOUGHT} seeds"));
    let is_said = mistake.words().iter().all(|word| wrong.contains(word));
    assert!(is_said, "{mistake:?} is found by seed {seed}, which says {wrong}\n{story}");
    println!("{mistake:?} is found by seed {seed}: {}", wrong.chars().take(300).collect::<String>());
}
