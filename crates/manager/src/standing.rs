//! What is known of the swarm's nodes: on a manager from the state, on a worker from what managers told it.

use model::{ClusterId, NodeId, NodeState, Role, Tables};
use std::collections::BTreeSet;

/// What a node is, whatever its certificate claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its certificate was revoked with it.
    Removed,
    /// It left by itself and does not come back.
    Left,
    /// Not in the state.
    Unknown,
    Worker,
    /// To be a manager, but not in Raft (yet).
    Manager,
    /// A manager that takes part in Raft.
    Member,
}

/// Where a node's standing is looked up.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// The replicated state.
    State(&'a Tables),
    /// What a session told a worker.
    Told(&'a Told),
}

/// What managers tell every node of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of this node's own certificate.
    pub cluster: ClusterId,
    pub managers: BTreeSet<NodeId>,
    /// Removed, with certificates that have not expired yet.
    pub removed: BTreeSet<NodeId>,
}

impl Known<'_> {
    /// Returns the swarm all certificates must be of; `None`: nothing is known yet.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        match self {
            Self::State(tables) => tables.cluster.as_ref().map(|c| c.id),
            Self::Told(told) => Some(told.cluster),
        }
    }

    /// Returns what a node is. A worker cannot tell which other workers there are: it takes who was not removed for
    /// one, and asks a manager what that one may.
    pub fn standing(&self, id: NodeId) -> Standing {
        match self {
            Self::State(tables) => in_state(tables, id),
            Self::Told(told) if told.removed.contains(&id) => Standing::Removed,
            Self::Told(told) if told.managers.contains(&id) => Standing::Member,
            Self::Told(_) => Standing::Worker,
        }
    }
}

fn in_state(tables: &Tables, id: NodeId) -> Standing {
    let Some(node) = tables.nodes.get(&id) else {
        let removed = tables.cluster.as_ref().is_some_and(|c| c.removed.iter().any(|r| r.node == id));
        return if removed { Standing::Removed } else { Standing::Unknown };
    };
    match (node.status.state, node.spec.role) {
        (NodeState::Disconnected, _) => Standing::Left,
        (_, Role::Worker) => Standing::Worker,
        (_, Role::Manager) if node.manager.is_some() => Standing::Member,
        (_, Role::Manager) => Standing::Manager,
    }
}
