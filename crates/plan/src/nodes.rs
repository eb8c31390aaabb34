//! What a node means for the tasks that are on it.

use crate::slots;
use model::{Availability, Node, NodeId, NodeState, ServiceId, Slot, Tables, Task};
use std::collections::{BTreeMap, btree_map::Entry};

/// Why a task cannot stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// It may stay, or has no node yet.
    Fine,
    Drained,
    /// Down, left or removed: it will not answer.
    Lost,
    /// Constraints do not hold there any more.
    Unfit,
    /// The node has become too small for all its reservations.
    Crowded,
}

impl Home {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Fine => "",
            Self::Drained => "node is being drained",
            Self::Lost => "node is down or gone",
            Self::Unfit => "node no longer satisfies the scheduling constraints",
            Self::Crowded => "node no longer has the reserved resources",
        }
    }
}

/// Returns true if nothing on this node will be reported soon.
pub(crate) fn is_lost(node: Option<&Node>) -> bool {
    node.is_none_or(|n| match n.status.state {
        NodeState::Down | NodeState::Disconnected => true,
        NodeState::Unknown | NodeState::Ready | NodeState::Away => false,
    })
}

pub(crate) fn on_lost_node(tables: &Tables, task: &Task) -> bool {
    task.node().is_some_and(|id| is_lost(tables.nodes.get(&id).map(AsRef::as_ref)))
}

pub(crate) fn is_drained(node: &Node) -> bool {
    node.spec.availability == Availability::Drain
}

/// How many replicas of each service every node has: tasks that are to be there and have not ended.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    of_service: BTreeMap<(ServiceId, NodeId), u64>,
    of_slot: BTreeMap<(ServiceId, Slot, NodeId), u64>,
}

impl Replicas {
    pub(crate) fn count(tables: &Tables) -> Self {
        let mut all = Self::default();
        tables.tasks.values().for_each(|task| all.change(None, Some(task)));
        all
    }

    /// A task became another, came or went.
    pub(crate) fn change(&mut self, old: Option<&Task>, new: Option<&Task>) {
        if let Some((node, task)) = old.and_then(counted) {
            less(&mut self.of_service, (task.service, node));
            less(&mut self.of_slot, (task.service, task.slot, node));
        }
        if let Some((node, task)) = new.and_then(counted) {
            *self.of_service.entry((task.service, node)).or_default() += 1;
            *self.of_slot.entry((task.service, task.slot, node)).or_default() += 1;
        }
    }

    /// Returns how many replicas of the task's service, in other slots than its own, a node has. The own slot is
    /// left out so that a start-first update fits under `max_replicas_per_node`.
    pub(crate) fn elsewhere(&self, task: &Task, node: NodeId) -> u64 {
        let all = self.of_service.get(&(task.service, node)).copied().unwrap_or(0);
        all - self.of_slot.get(&(task.service, task.slot, node)).copied().unwrap_or(0)
    }

    /// Returns true if some node has a replica of the task's slot.
    pub(crate) fn has_slot(&self, task: &Task) -> bool {
        let (from, to) = (NodeId(0), NodeId(u128::MAX));
        let range = (task.service, task.slot, from)..=(task.service, task.slot, to);
        self.of_slot.range(range).next().is_some()
    }
}

fn counted(task: &Task) -> Option<(NodeId, &Task)> {
    task.node().filter(|_| slots::is_live(task) && !slots::is_over(task)).map(|node| (node, task))
}

fn less<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    match counts.entry(key) {
        Entry::Occupied(entry) if *entry.get() == 1 => drop(entry.remove()),
        Entry::Occupied(mut entry) => *entry.get_mut() -= 1,
        Entry::Vacant(_) => {}
    }
}
