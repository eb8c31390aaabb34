//! What a node means for the tasks that are on it.

use crate::slots;
use model::{Availability, Node, NodeId, NodeState, Tables, Task};

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

/// Returns how many replicas of the task's service, in other slots than its own, a node has. The own slot is
/// left out so that a start-first update fits under `max_replicas_per_node`.
pub(crate) fn replicas_elsewhere_in_service(tables: &Tables, task: &Task, node: NodeId) -> u64 {
    tables
        .tasks_of_node(node)
        .filter(|t| t.service == task.service && t.slot != task.slot)
        .filter(|t| slots::is_live(t) && !slots::is_over(t))
        .count() as u64
}
