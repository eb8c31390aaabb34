//! Which nodes are heard by any manager, and what their kernels hold: the leader's memory, never replicated.
//!
//! A leader that is new gives every node a grace, and takes a node it has not heard yet as holding nothing.

use model::{Duration, NetworkId, NodeId, NodeState, Tables};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tokio::time::Instant;

/// A network, or (`None`) the routing mesh.
pub(crate) type Subject = Option<NetworkId>;
/// Index up to which tables are known to be in the kernels.
pub(crate) type ClusterAcks = BTreeMap<Subject, u64>;

/// Heartbeats that may be missed before a node is down.
const MISSED_PERIODS: u32 = 3;
/// Periods that nodes have to come back to a new leader.
const GRACE_PERIODS: u32 = 6;

/// What a manager says of a node it hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) node: NodeId,
    pub(crate) addr: Option<IpAddr>,
    /// Since its last heartbeat.
    pub(crate) silent: Duration,
    pub(crate) acks: BTreeMap<Subject, u64>,
}

#[derive(Debug)]
struct Seen {
    /// Heard by then, or it is down.
    until: Instant,
    /// `None`: not heard since this manager leads.
    heard: Option<Alive>,
}

#[derive(Debug, Default)]
pub(crate) struct Presence {
    nodes: BTreeMap<NodeId, Seen>,
}

impl Presence {
    /// Forgets everything: this manager begins to lead.
    pub(crate) fn begin(&mut self) {
        self.nodes.clear();
    }

    /// Records what a manager hears; returns true if there is news beyond "still there".
    pub(crate) fn record(&mut self, now: Instant, period: Duration, alive: Vec<Alive>) -> bool {
        let mut news = false;
        for alive in alive {
            let until = now + (period * MISSED_PERIODS).saturating_sub(alive.silent);
            let seen = self.nodes.entry(alive.node).or_insert(Seen { until: now, heard: None });
            if seen.heard.is_some() && until < seen.until {
                continue; // another manager heard it later: this is what is left of an old session
            }
            let late = seen.until <= now && until > now;
            news |= late || seen.heard.as_ref().is_none_or(|h| h.acks != alive.acks || h.addr != alive.addr);
            seen.until = seen.until.max(until);
            seen.heard = Some(alive);
        }
        news
    }

    /// Returns the nodes that are heard but not READY in the state, with their addresses.
    pub(crate) fn returned(&self, now: Instant, tables: &Tables) -> Vec<(NodeId, Option<IpAddr>)> {
        let heard = self.nodes.iter().filter(|(_, seen)| seen.until > now);
        heard
            .filter_map(|(id, seen)| seen.heard.as_ref().map(|h| (*id, h.addr)))
            .filter(|(id, _)| {
                tables.nodes.get(id).is_some_and(|n| match n.status.state {
                    NodeState::Unknown | NodeState::Down => true,
                    NodeState::Ready | NodeState::Disconnected => false, // who left is not back by being heard
                })
            })
            .collect()
    }

    /// Returns the nodes that have been silent for too long, and when the next will be.
    pub(crate) fn lost(
        &mut self,
        now: Instant,
        period: Duration,
        tables: &Tables,
    ) -> (Vec<NodeId>, Option<Instant>) {
        self.nodes.retain(|id, _| tables.nodes.contains(id));
        let mut lost = Vec::new();
        let mut next: Option<Instant> = None;
        for node in tables.nodes.values() {
            match node.status.state {
                NodeState::Down | NodeState::Disconnected => continue,
                NodeState::Unknown | NodeState::Ready => {}
            }
            let grace = Seen { until: now + period * GRACE_PERIODS, heard: None };
            let seen = self.nodes.entry(node.id).or_insert(grace);
            if seen.until <= now {
                lost.push(node.id);
            } else {
                next = Some(next.map_or(seen.until, |n| n.min(seen.until)));
            }
        }
        (lost, next)
    }

    /// Returns the lowest index that every live subscriber of a network holds; absent: nobody subscribes.
    pub(crate) fn cluster_acks(&self, now: Instant, tables: &Tables) -> ClusterAcks {
        let mut lowest = ClusterAcks::new();
        let mut count = |subject: Subject, index: u64| {
            lowest.entry(subject).and_modify(|low| *low = index.min(*low)).or_insert(index);
        };
        for node in tables.nodes.values() {
            match node.status.state {
                NodeState::Down | NodeState::Disconnected => continue,
                NodeState::Unknown | NodeState::Ready => {}
            }
            let seen = self.nodes.get(&node.id);
            if seen.is_some_and(|s| s.until <= now) {
                continue; // about to be marked down
            }
            match seen.and_then(|s| s.heard.as_ref()) {
                Some(heard) => heard.acks.iter().for_each(|(subject, index)| count(*subject, *index)),
                // It may hold tables of an earlier leader.
                None => subjects_of(tables, node.id).into_iter().for_each(|subject| count(subject, 0)),
            }
        }
        lowest
    }
}

/// Returns what a node must hold tables of: the mesh, and the networks of its tasks.
pub(crate) fn subjects_of(tables: &Tables, node: NodeId) -> BTreeSet<Subject> {
    let tasks = tables.tasks_of_node(node).filter(|t| t.may_hold_resources());
    tasks.flat_map(|t| t.attachments.iter().map(|a| Some(a.network))).chain([None]).collect()
}
