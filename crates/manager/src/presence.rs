//! Which nodes are heard by any manager, and what their kernels hold: the leader's memory, never replicated.
//!
//! A leader that is new gives every node a grace. A node that has not said what its kernel holds, to this leader or in
//! its new session, may hold any table of any age: nothing that was given up before is free.
//!
//! A daemon that is not heard is not a host that is dead: before a node's time is up, its address is asked whether
//! anything answers there (module `reach`). A host that does, be it by refusing, has its containers still.

use crate::doubts::Marks;
use model::{DAEMON_GRACE, Duration, NetworkId, Node, NodeId, NodeState, Tables};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};
use tokio::time::Instant;

/// A network, or (`None`) the routing mesh.
pub(crate) type Subject = Option<NetworkId>;
/// Index up to which tables are known to be in the kernels.
pub(crate) type ClusterAcks = BTreeMap<Subject, u64>;

/// Heartbeats that may be missed before a node is down, or away.
pub(crate) const MISSED_PERIODS: u32 = 3;
/// A manager that has told nothing for more periods than this is silent.
const REPORTS_MISSED: u32 = 2;
/// How long the agents of a silent manager have to find another one: it ends their sessions after the store's lease, or
/// they miss its heartbeats.
const HANDOVER: Duration = Duration::from_secs(5);
/// Periods that nodes have to come back to a new leader.
const GRACE_PERIODS: u32 = 6;

/// What a manager says of a node it hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) node: NodeId,
    pub(crate) addr: Option<IpAddr>,
    /// Since its last heartbeat.
    pub(crate) silent: Duration,
    /// `None`: it has not said yet what its kernel holds.
    pub(crate) acks: Option<BTreeMap<Subject, u64>>,
    pub(crate) marks: Marks,
}

#[derive(Debug)]
struct Seen {
    /// Heard by then, or it is away or down.
    until: Instant,
    /// `None`: not heard since this manager leads.
    heard: Option<Alive>,
    /// As `until`, by that report alone, without what is excused.
    heard_until: Instant,
    host: Host,
}

impl Seen {
    fn until(until: Instant) -> Self {
        Self { until, heard: None, heard_until: until, host: Host::default() }
    }
}

/// What is known of the host of a node that is late.
#[derive(Debug, Default)]
struct Host {
    /// When it was asked last.
    asked: Option<Instant>,
    /// The answer to that is still to come.
    waiting: bool,
    answered: Option<Instant>,
    /// It did not answer the last question that was answered or given up, whatever is asked meanwhile.
    silent: bool,
    /// When its daemon was first found to be away.
    away_since: Option<Instant>,
}

/// What the leader finds of the nodes that it does not hear.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Silent {
    /// Neither the daemon nor its host answers, or the daemon was away for too long.
    pub(crate) lost: Vec<NodeId>,
    /// The host answers and the daemon does not, and the state does not say so yet.
    pub(crate) away: Vec<NodeId>,
    /// When to look again.
    pub(crate) next: Option<Instant>,
}

impl Silent {
    fn look_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Presence {
    nodes: BTreeMap<NodeId, Seen>,
    /// When each manager last told whom it hears.
    reports: BTreeMap<NodeId, Instant>,
    /// The agents that said that their hosts go down, by the number of their process: what is still heard of them does not
    /// count. Outlives a term: numbers are drawn anew by each agent.
    departed: BTreeMap<NodeId, u64>,
    /// The manager that last spoke of a node.
    via: BTreeMap<NodeId, NodeId>,
    /// This manager leads, but hears of no majority: it has ended its sessions, and may hear nobody.
    out_of_touch: bool,
}

impl Presence {
    /// Forgets everything: this manager begins to lead.
    pub(crate) fn begin(&mut self) {
        self.nodes.clear();
        self.reports.clear();
        self.via.clear();
    }

    /// Notes whether the leader hears of a majority, and returns it. When it does again, all nodes have time to come back:
    /// it was this manager that did not serve them.
    pub(crate) fn in_touch(&mut self, is: bool) -> bool {
        if is && self.out_of_touch {
            self.begin();
        }
        self.out_of_touch = !is;
        is
    }

    /// Gives every node as long as this manager stood still: what it said meanwhile was not heard yet. After so long that
    /// agents heard nothing and ended their sessions, they need a moment to find a manager again.
    pub(crate) fn excuse(&mut self, now: Instant, period: Duration, stall: Duration) {
        let back = if stall >= period * (MISSED_PERIODS - 1) { HANDOVER } else { Duration::ZERO };
        self.nodes.values_mut().for_each(|seen| seen.until = (seen.until + stall).max(now + back));
    }

    /// Notes that a manager told whom it hears.
    pub(crate) fn reported_by(&mut self, now: Instant, manager: NodeId, alive: &[Alive]) {
        self.reports.insert(manager, now);
        self.via.extend(alive.iter().map(|a| (a.node, manager)));
    }

    /// Returns how much longer than others a node may be silent: when it is its manager that is silent, the node itself
    /// may be fine, and needs a moment to notice and to find another one.
    fn handover(&self, now: Instant, period: Duration, node: NodeId) -> Duration {
        let is_silent = |at: &Instant| now.saturating_duration_since(*at) > period * REPORTS_MISSED;
        let via = self.via.get(&node).filter(|via| **via != node);
        match via.and_then(|via| self.reports.get(via)) {
            Some(at) if is_silent(at) => HANDOVER,
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Records what a manager hears; returns true if there is news beyond "still there".
    pub(crate) fn record(&mut self, now: Instant, period: Duration, alive: Vec<Alive>) -> bool {
        let mut news = false;
        for alive in alive {
            match self.departed.get(&alive.node) {
                Some(process) if *process == alive.marks.process => continue,
                Some(_) => drop(self.departed.remove(&alive.node)),
                None => {}
            }
            let until = now + (period * MISSED_PERIODS).saturating_sub(alive.silent);
            // The leader before may have been told of another session just now: what was told in that has its term.
            let seen =
                self.nodes.entry(alive.node).or_insert_with(|| Seen::until(now + period * MISSED_PERIODS));
            // What is left of an old session, if another manager heard the node clearly later.
            if seen.heard.is_some() && until + period / 2 < seen.heard_until {
                continue;
            }
            let late = seen.until <= now && until > now;
            news |= late || seen.heard.as_ref().is_none_or(|h| h.acks != alive.acks || h.addr != alive.addr);
            seen.until = seen.until.max(until);
            (seen.heard, seen.heard_until) = (Some(alive), until);
            if seen.until > now {
                (seen.host.away_since, seen.host.silent) = (None, false);
            }
        }
        news
    }

    /// Notes that a node's host goes down: what this process of its agent still says does not bring the node back.
    pub(crate) fn departs(&mut self, node: NodeId, process: u64) {
        self.departed.insert(node, process);
        self.nodes.remove(&node);
    }

    /// Returns the nodes that are heard but not READY in the state, with their addresses.
    pub(crate) fn returned(&self, now: Instant, tables: &Tables) -> Vec<(NodeId, Option<IpAddr>)> {
        let heard = self.nodes.iter().filter(|(_, seen)| seen.until > now);
        heard
            .filter_map(|(id, seen)| seen.heard.as_ref().map(|h| (*id, h.addr)))
            .filter(|(id, _)| {
                tables.nodes.get(id).is_some_and(|n| match n.status.state {
                    NodeState::Unknown | NodeState::Away | NodeState::Down => true,
                    NodeState::Ready | NodeState::Disconnected => false, // who left is not back by being heard
                })
            })
            .collect()
    }

    /// Returns the nodes whose hosts are to be asked now, at most `limit`, and takes them as asked:
    /// [`Self::host_was_asked`] follows within a period.
    pub(crate) fn ask_hosts(
        &mut self,
        now: Instant,
        period: Duration,
        tables: &Tables,
        limit: usize,
    ) -> Vec<(NodeId, SocketAddr)> {
        let due = |seen: &Seen| {
            let asked_lately = seen.host.asked.is_some_and(|at| at + period > now);
            seen.until <= now + period && !seen.host.waiting && !asked_lately
        };
        let due = self.nodes.iter().filter(|(_, seen)| due(seen)).filter_map(|(id, _)| tables.nodes.get(id));
        let hosts = due
            .filter(|node| may_be_late(node.status.state) && !self.is_replaced(now, node, tables))
            .filter_map(|node| Some((node.id, node.description.as_ref()?.addr)))
            .take(limit)
            .collect::<Vec<_>>();
        for (id, _) in &hosts {
            if let Some(seen) = self.nodes.get_mut(id) {
                (seen.host.asked, seen.host.waiting) = (Some(now), true);
            }
        }
        hosts
    }

    /// Looks for nodes whose time is up.
    pub(crate) fn silent(&mut self, now: Instant, period: Duration, tables: &Tables) -> Silent {
        self.nodes.retain(|id, _| tables.nodes.contains(id));
        self.reports.retain(|id, _| tables.nodes.contains(id));
        self.departed.retain(|id, _| tables.nodes.contains(id));
        self.via.retain(|id, _| tables.nodes.contains(id));
        let grace = tables.cluster.as_ref().and_then(|c| c.spec.daemon_grace).unwrap_or(DAEMON_GRACE);
        let mut silent = Silent::default();
        for node in tables.nodes.values().filter(|node| may_be_late(node.status.state)) {
            let until =
                self.nodes.entry(node.id).or_insert_with(|| Seen::until(now + period * GRACE_PERIODS)).until;
            let until = until + self.handover(now, period, node.id);
            if until > now {
                silent.look_at(until);
                continue;
            }
            let asked = node.description.is_some() && !self.is_replaced(now, node, tables);
            let Some(seen) = self.nodes.get_mut(&node.id) else { continue };
            let host = &mut seen.host;
            let answers = host.answered.is_some_and(|at| at + period * MISSED_PERIODS > now);
            let is_to_answer = if host.silent {
                None
            } else if host.waiting {
                host.asked.map(|at| at + period * 2)
            } else if host.asked.is_none_or(|at| at + period < until) {
                Some(until + period)
            } else {
                None
            };
            let gives_up_at = match (asked, answers) {
                (false, _) => None,
                (true, true) => Some(*host.away_since.get_or_insert(now) + grace),
                (true, false) => is_to_answer,
            };
            match gives_up_at.filter(|at| *at > now) {
                None => silent.lost.push(node.id),
                Some(at) => {
                    silent.look_at(if answers { at.min(now + period) } else { at });
                    if answers && node.status.state != NodeState::Away {
                        silent.away.push(node.id);
                    }
                }
            }
        }
        silent
    }

    /// Returns true if another node is heard where this one should be: whoever answers there is that other one.
    fn is_replaced(&self, now: Instant, node: &Node, tables: &Tables) -> bool {
        let Some(addr) = node.description.as_ref().map(|d| d.addr) else { return false };
        let heard = self
            .nodes
            .iter()
            .filter(|(id, seen)| **id != node.id && seen.heard.is_some() && seen.until > now);
        let mut described = heard.filter_map(|(id, _)| tables.nodes.get(id)?.description.as_ref());
        described.any(|d| d.addr == addr)
    }

    /// Notes whether the host of a node that is late answers.
    pub(crate) fn host_was_asked(&mut self, now: Instant, node: NodeId, answers: bool) {
        if let Some(seen) = self.nodes.get_mut(&node) {
            seen.host.waiting = false;
            seen.host.silent = !answers;
            seen.host.answered = if answers { Some(now) } else { seen.host.answered };
        }
    }

    /// Returns the lowest index that every live subscriber of a network holds; absent: nobody subscribes.
    pub(crate) fn cluster_acks(&self, tables: &Tables) -> ClusterAcks {
        let mut lowest = ClusterAcks::new();
        let mut count = |subject: Subject, index: u64| {
            lowest.entry(subject).and_modify(|low| *low = index.min(*low)).or_insert(index);
        };
        for node in tables.nodes.values().filter(|node| may_be_late(node.status.state)) {
            // A daemon that is away left its kernel as it was: that it is silent says nothing of what is held there.
            // Whoever waits for it waits until it is back, or down.
            let seen = self.nodes.get(&node.id);
            match seen.and_then(|s| s.heard.as_ref()).and_then(|heard| heard.acks.as_ref()) {
                Some(acks) => acks.iter().for_each(|(subject, index)| count(*subject, *index)),
                None if node.description.is_none() => {} // never had a session
                None => {
                    let networks = tables.networks.values().map(|network| Some(network.id));
                    networks.chain([None]).for_each(|subject| count(subject, 0));
                }
            }
        }
        lowest
    }
}

/// Returns true of a node that is expected to be heard.
fn may_be_late(state: NodeState) -> bool {
    match state {
        NodeState::Unknown | NodeState::Ready | NodeState::Away => true,
        NodeState::Down | NodeState::Disconnected => false,
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
    use crate::tests::state::{State, state};
    use model::TaskState;

    const PERIOD: Duration = Duration::from_secs(1);
    const NET: Subject = Some(NetworkId(1));

    fn alive(node: u128, silent_ms: u64, acks: &[(Subject, u64)]) -> Alive {
        let silent = Duration::from_millis(silent_ms);
        let acks = Some(acks.iter().copied().collect());
        Alive { node: NodeId(node), addr: None, silent, acks, marks: Marks::default() }
    }

    fn two_nodes() -> State {
        let running = Some(TaskState::Running);
        state().node(1).node(2).network(1).service(1, &[1], &[]).task(1, 1, 1, running).task(2, 1, 2, running)
    }

    #[test]
    fn a_node_is_lost_three_periods_after_its_last_heartbeat_and_a_new_leader_gives_six() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes().tables(), Instant::now());
        assert_eq!(presence.silent(start, PERIOD, &tables), nothing_before(start + PERIOD * 6));
        presence.record(start + PERIOD * 5, PERIOD, vec![alive(1, 500, &[])]);
        let up = start + PERIOD * 6;
        assert_eq!(presence.ask_hosts(up, PERIOD, &tables, 9).len(), 1);
        presence.host_was_asked(up, NodeId(2), false);
        let silent = presence.silent(up, PERIOD, &tables);
        assert_eq!(silent, Silent { lost: vec![NodeId(2)], ..nothing_before(up + PERIOD * 3 / 2) });
    }

    #[test]
    fn a_new_leader_waits_as_long_as_others_may_tell_a_node_by_the_word_of_the_one_before() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes().tables(), Instant::now());
        // What is left of an old session. Since when another manager hears the node, this leader has yet to be told.
        presence.record(start, PERIOD, vec![alive(2, 3500, &[])]);
        let over = start + PERIOD * MISSED_PERIODS;
        let before = over - Duration::from_millis(1);
        presence.record(before, PERIOD, vec![alive(1, 0, &[])]);
        assert_eq!(lost(&mut presence, before, &tables), []);
        assert_eq!(lost(&mut presence, over, &tables), [NodeId(2)]);
    }

    /// Returns who is lost when no host answers.
    fn lost(presence: &mut Presence, now: Instant, tables: &Tables) -> Vec<NodeId> {
        for (node, _) in presence.ask_hosts(now, PERIOD, tables, 9) {
            presence.host_was_asked(now, node, false);
        }
        presence.silent(now, PERIOD, tables).lost
    }

    fn nothing_before(next: Instant) -> Silent {
        Silent { next: Some(next), ..Silent::default() }
    }

    /// Two nodes of one host that answer at these ports.
    fn at_ports(ports: [u16; 2]) -> Tables {
        let at = |port| {
            move |n: &mut Node| {
                n.description.as_mut().unwrap().addr = SocketAddr::from(([10, 0, 0, 1], port));
            }
        };
        two_nodes().change_node(1, at(ports[0])).change_node(2, at(ports[1])).tables()
    }

    #[test]
    fn a_daemon_that_is_away_keeps_its_tasks_as_long_as_its_host_answers_and_its_grace_lasts() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        let tables = at_ports([1, 2]);
        let hear = |presence: &mut Presence, at: Instant| {
            presence.record(at, PERIOD, vec![alive(1, 0, &[])]);
        };
        presence.record(start, PERIOD, vec![alive(2, 0, &[])]);
        hear(&mut presence, start + PERIOD);
        assert_eq!(presence.ask_hosts(start + PERIOD, PERIOD, &tables, 9), [], "not late yet");
        let late = start + PERIOD * 2;
        let asked = presence.ask_hosts(late, PERIOD, &tables, 9);
        assert_eq!(asked, [(NodeId(2), SocketAddr::from(([10, 0, 0, 1], 2)))]);
        assert_eq!(presence.ask_hosts(late, PERIOD, &tables, 9), [], "one question at a time");
        let up = start + PERIOD * 3;
        hear(&mut presence, up);
        assert_eq!(presence.silent(up, PERIOD, &tables).lost, [], "the answer is to come");
        presence.host_was_asked(up, NodeId(2), true);
        let silent = presence.silent(up, PERIOD, &tables);
        assert_eq!((silent.lost, silent.away), (vec![], vec![NodeId(2)]));

        // It goes on answering, until the grace is over.
        for periods in 4..=62 {
            let now = start + PERIOD * periods;
            hear(&mut presence, now);
            assert_eq!(presence.ask_hosts(now, PERIOD, &tables, 9).len(), 1, "at {periods}");
            presence.host_was_asked(now, NodeId(2), true);
            assert_eq!(presence.silent(now, PERIOD, &tables).lost, [], "at {periods}");
        }
        let over = start + PERIOD * 63;
        hear(&mut presence, over);
        assert_eq!(presence.silent(over, PERIOD, &tables).lost, [NodeId(2)]);
    }

    #[test]
    fn a_host_that_falls_silent_or_whose_address_another_node_has_is_lost() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        let tables = at_ports([1, 2]);
        presence.record(start, PERIOD, vec![alive(1, 0, &[]), alive(2, 0, &[])]);
        let up = start + PERIOD * 3;
        presence.record(up, PERIOD, vec![alive(1, 0, &[])]);
        let not_asked = presence.silent(up, PERIOD, &tables);
        assert_eq!((not_asked.lost, not_asked.next), (vec![], Some(up + PERIOD)), "whoever asks is late");
        assert_eq!(presence.ask_hosts(up, PERIOD, &tables, 9).len(), 1);
        presence.host_was_asked(up, NodeId(2), true);
        assert_eq!(presence.silent(up, PERIOD, &tables).away, [NodeId(2)]);
        let same = at_ports([1, 1]);
        assert_eq!(presence.silent(up, PERIOD, &same).lost, [NodeId(2)]);
        assert_eq!(presence.ask_hosts(up + PERIOD, PERIOD, &same, 9), []);

        let silent_since = up + PERIOD * 3;
        presence.record(silent_since, PERIOD, vec![alive(1, 0, &[])]);
        assert_eq!(presence.ask_hosts(silent_since, PERIOD, &tables, 9).len(), 1);
        presence.host_was_asked(silent_since, NodeId(2), false);
        // It is asked again at once, and silent it is.
        let again = silent_since + PERIOD;
        assert_eq!(presence.ask_hosts(again, PERIOD, &tables, 9).len(), 1);
        assert_eq!(presence.silent(again, PERIOD, &tables).lost, [NodeId(2)]);
    }

    #[test]
    fn a_leader_that_had_no_majority_begins_anew_with_all_nodes() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes().tables(), Instant::now());
        presence.record(start, PERIOD, vec![alive(1, 0, &[]), alive(2, 0, &[])]);
        presence.in_touch(false);
        let later = start + PERIOD * 100;
        presence.in_touch(true);
        assert_eq!(lost(&mut presence, later, &tables), []);
        presence.in_touch(true);
        assert_eq!(lost(&mut presence, later + PERIOD * 6, &tables), [NodeId(1), NodeId(2)]);
    }

    #[test]
    fn no_node_is_lost_for_the_time_in_which_the_leader_stood_still() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes().tables(), Instant::now());
        presence.record(start, PERIOD, vec![alive(1, 0, &[]), alive(2, 0, &[])]);
        presence.excuse(start + PERIOD, PERIOD, PERIOD);
        assert_eq!(lost(&mut presence, start + PERIOD * 3, &tables), []);
        assert_eq!(lost(&mut presence, start + PERIOD * 4, &tables), [NodeId(1), NodeId(2)]);
    }

    #[test]
    fn after_a_long_stall_agents_have_time_to_find_a_manager_again() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes().tables(), Instant::now());
        presence.record(start, PERIOD, vec![alive(1, 0, &[]), alive(2, 0, &[])]);
        let later = start + PERIOD * 6;
        presence.excuse(later, PERIOD, PERIOD * 6 - Duration::from_millis(10));
        assert_eq!(lost(&mut presence, later + HANDOVER - Duration::from_millis(1), &tables), []);
        assert_eq!(lost(&mut presence, later + HANDOVER, &tables), [NodeId(1), NodeId(2)]);
    }

    #[test]
    fn what_a_node_says_counts_however_long_the_leader_stood_still() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes().tables(), Instant::now());
        presence.record(start, PERIOD, vec![Alive { acks: None, ..alive(1, 0, &[]) }, alive(2, 0, &[])]);
        presence.excuse(start, PERIOD, PERIOD);
        assert!(presence.record(start, PERIOD, vec![alive(1, 10, &[(NET, 7)])]), "it is news");
        assert_eq!(presence.cluster_acks(&tables), [(NET, 7)].into());
    }

    #[test]
    fn the_nodes_of_a_silent_manager_have_time_to_find_another_one() {
        let (mut presence, tables, start) = (Presence::default(), two_nodes().tables(), Instant::now());
        let manager = NodeId(1);
        let heard = |presence: &mut Presence, now, nodes: &[u128]| {
            let alive: Vec<Alive> = nodes.iter().map(|n| alive(*n, 0, &[])).collect();
            presence.reported_by(now, manager, &alive);
            presence.record(now, PERIOD, alive);
        };
        heard(&mut presence, start, &[1, 2]);
        // It is silent, and so is its own node: that one is lost, the other one may have lost its manager only.
        assert_eq!(lost(&mut presence, start + PERIOD * 3, &tables), [manager]);
        assert_eq!(lost(&mut presence, start + PERIOD * 7, &tables), [manager]);
        assert_eq!(lost(&mut presence, start + PERIOD * 8, &tables), [manager, NodeId(2)]);
        // A manager that speaks, but not of the node: the node is lost.
        heard(&mut presence, start + PERIOD * 8, &[1, 2]);
        heard(&mut presence, start + PERIOD * 10, &[1]);
        heard(&mut presence, start + PERIOD * 11, &[1]);
        assert_eq!(lost(&mut presence, start + PERIOD * 11, &tables), [NodeId(2)]);
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
    fn a_node_whose_host_goes_down_is_not_brought_back_by_what_its_agent_still_says() {
        let of = |process| Alive { marks: Marks { process, ..Marks::default() }, ..alive(2, 0, &[]) };
        let (mut presence, now) = (Presence::default(), Instant::now());
        presence.record(now, PERIOD, vec![of(7)]);
        presence.departs(NodeId(2), 7);
        let down = two_nodes().change_node(2, |n| n.status.state = NodeState::Down).tables();
        presence.begin(); // also to a leader that was led for a while
        assert!(!presence.record(now, PERIOD, vec![of(7)]));
        assert_eq!(presence.returned(now, &down), []);
        assert_eq!(lost(&mut presence, now, &down), []);
        assert_eq!(lost(&mut presence, now + PERIOD * 9, &down), [NodeId(1)], "it is down already");
        assert!(presence.record(now, PERIOD, vec![of(8)]), "after the boot");
        assert_eq!(presence.returned(now, &down), [(NodeId(2), None)]);
    }

    #[test]
    fn the_slowest_live_subscriber_counts_and_one_not_yet_heard_may_hold_anything() {
        let (mut presence, tables, now) = (Presence::default(), two_nodes().tables(), Instant::now());
        presence.record(now, PERIOD, vec![alive(1, 0, &[(NET, 9), (None, 9)])]);
        assert_eq!(presence.cluster_acks(&tables), [(NET, 0), (None, 0)].into());
        presence.record(now, PERIOD, vec![alive(2, 0, &[(NET, 7), (None, 9)])]);
        assert_eq!(presence.cluster_acks(&tables), [(NET, 7), (None, 9)].into());
        presence.record(now, PERIOD, vec![Alive { acks: None, ..alive(1, 0, &[]) }]);
        assert_eq!(presence.cluster_acks(&tables), [(NET, 0), (None, 0)].into(), "a new session");
        let late = now + PERIOD * 2;
        presence.record(late, PERIOD, vec![alive(1, 0, &[(NET, 12), (None, 12)])]);
        let acks = presence.cluster_acks(&tables);
        assert_eq!(acks, [(NET, 7), (None, 9)].into(), "node 2 is silent, and holds what it held");
        let gone = two_nodes().change_node(2, |n| n.status.state = NodeState::Down).tables();
        assert_eq!(presence.cluster_acks(&gone), [(NET, 12), (None, 12)].into());
    }

    #[test]
    fn what_is_left_of_an_old_session_does_not_count() {
        let (mut presence, tables, now) = (Presence::default(), two_nodes().tables(), Instant::now());
        presence.record(now, PERIOD, vec![alive(1, 0, &[(NET, 9)]), alive(2, 0, &[(NET, 9)])]);
        presence.record(now, PERIOD, vec![alive(1, 2000, &[(NET, 3)])]);
        assert_eq!(presence.cluster_acks(&tables)[&NET], 9);
        // The same heartbeat told twice, with new acknowledgements.
        presence.record(now, PERIOD, vec![alive(1, 1, &[(NET, 11)]), alive(2, 1, &[(NET, 10)])]);
        assert_eq!(presence.cluster_acks(&tables)[&NET], 10);
    }
}
