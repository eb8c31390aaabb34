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
            // What is left of an old session, if another manager heard the node clearly later.
            if seen.heard.is_some() && until + period / 2 < seen.until {
                continue;
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
                None if node.description.is_none() => {} // never had a session
                // It may hold tables from the time of an earlier leader.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::TaskState;

    const PERIOD: Duration = Duration::from_secs(1);
    const NET: Subject = Some(NetworkId(1));

    fn alive(node: u128, silent_ms: u64, acks: &[(Subject, u64)]) -> Alive {
        let silent = Duration::from_millis(silent_ms);
        Alive { node: NodeId(node), addr: None, silent, acks: acks.iter().copied().collect() }
    }

    fn two_nodes() -> Tables {
        let running = Some(TaskState::Running);
        state()
            .node(1)
            .node(2)
            .network(1)
            .service(1, &[1], &[])
            .task(1, 1, 1, running)
            .task(2, 1, 2, running)
            .tables()
    }

    #[test]
    fn a_node_is_lost_three_periods_after_its_last_heartbeat_and_a_new_leader_gives_six() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes(), Instant::now());
        assert_eq!(presence.lost(start, PERIOD, &tables), (vec![], Some(start + PERIOD * 6)));
        presence.record(start + PERIOD * 5, PERIOD, vec![alive(1, 500, &[])]);
        let (lost, next) = presence.lost(start + PERIOD * 6, PERIOD, &tables);
        assert_eq!((lost, next), (vec![NodeId(2)], Some(start + PERIOD * 7 + PERIOD / 2)));
    }

    #[test]
    fn a_node_that_is_heard_again_is_news() {
        let down = state().node(1).change_node(1, |n| n.status.state = NodeState::Down).tables();
        let (mut presence, now) = (Presence::default(), Instant::now());
        assert!(presence.record(now, PERIOD, vec![alive(1, 0, &[])]));
        assert!(!presence.record(now, PERIOD, vec![alive(1, 0, &[])]), "still there");
        assert_eq!(presence.returned(now, &down), [(NodeId(1), None)]);
        let left = state().node(1).change_node(1, |n| n.status.state = NodeState::Disconnected).tables();
        assert_eq!(presence.returned(now, &left), []);
    }

    #[test]
    fn the_slowest_live_subscriber_counts_and_one_not_yet_heard_holds_nothing() {
        let (mut presence, tables, now) = (Presence::default(), two_nodes(), Instant::now());
        presence.record(now, PERIOD, vec![alive(1, 0, &[(NET, 9), (None, 9)])]);
        assert_eq!(presence.cluster_acks(now, &tables), [(NET, 0), (None, 0)].into());
        presence.record(now, PERIOD, vec![alive(2, 0, &[(NET, 7), (None, 9)])]);
        assert_eq!(presence.cluster_acks(now, &tables), [(NET, 7), (None, 9)].into());
        let late = now + PERIOD * 2;
        presence.record(late, PERIOD, vec![alive(1, 0, &[(NET, 12), (None, 12)])]);
        let acks = presence.cluster_acks(late + PERIOD * 2, &tables);
        assert_eq!(acks, [(NET, 12), (None, 12)].into(), "node 2 is silent");
    }

    #[test]
    fn what_is_left_of_an_old_session_does_not_count() {
        let (mut presence, tables, now) = (Presence::default(), two_nodes(), Instant::now());
        presence.record(now, PERIOD, vec![alive(1, 0, &[(NET, 9)]), alive(2, 0, &[(NET, 9)])]);
        presence.record(now, PERIOD, vec![alive(1, 2000, &[(NET, 3)])]);
        assert_eq!(presence.cluster_acks(now, &tables)[&NET], 9);
        // The same heartbeat told twice, with new acknowledgements.
        presence.record(now, PERIOD, vec![alive(1, 1, &[(NET, 11)]), alive(2, 1, &[(NET, 10)])]);
        assert_eq!(presence.cluster_acks(now, &tables)[&NET], 10);
    }
}
