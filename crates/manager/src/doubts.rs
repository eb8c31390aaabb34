//! What is odd about nodes that are heard: a clock that is off, and two processes with one certificate. The leader's
//! memory; what it comes to stands in the node's status, for people (`node ls`).
//!
//! Nothing is decided by these clocks. Each heartbeat says what its host's clock shows; the manager that serves the
//! session compares it with its even time ([`crate::shared::Shared::even_time`]), and the leader puts the differences
//! together. The median of all counts as right, so that a leader whose own clock is off does not find everybody else's
//! wrong.
//!
//! An agent draws a number when it starts. One that is heard under a number, after another one was under the same
//! certificate, was copied with its disk: a restart never brings the old number back.

use crate::presence::Alive;
use model::{Duration, NodeId, NodeState, Tables};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};
use tokio::time::Instant;

/// A clock that is off by more is said to be; by less than half of it, no more.
const OFF_MS: u64 = 2000;
/// Differences that a manager looks at: the greatest is nearest, because messages only come late.
const SAMPLES: usize = 8;
/// Before so many, nothing is said.
const SAMPLES_MIN: usize = 4;
/// What was heard longer ago does not count.
const FRESH: Duration = Duration::from_secs(60);
/// By how much two processes must overlap; what is still under way from one that has ended is heard for less.
const OVERLAP: Duration = Duration::from_secs(2);
/// Processes of a node that are remembered.
const PROCESSES_MAX: usize = 4;

/// What a node's messages say beside their words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Of its process; 0: it did not say.
    pub(crate) process: u64,
    /// How far its clock is ahead of the even time of the manager that serves it, in milliseconds; `None`: it is not known yet.
    pub(crate) ahead_ms: Option<i64>,
}

/// The last differences between an agent's clock and our even time, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Differences(VecDeque<i64>);

impl Differences {
    pub(crate) fn add(&mut self, ahead_ms: i64) {
        self.0.push_back(ahead_ms);
        if self.0.len() > SAMPLES {
            self.0.pop_front();
        }
    }

    pub(crate) fn ahead_ms(&self) -> Option<i64> {
        if self.0.len() < SAMPLES_MIN { None } else { self.0.iter().max().copied() }
    }
}

#[derive(Debug)]
struct Process {
    number: u64,
    addr: Option<IpAddr>,
    first: Instant,
    last: Instant,
}

/// Something to say of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(crate) node: NodeId,
    /// For its status; empty: there is nothing odd any more.
    pub(crate) said: String,
}

#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// How far a clock is ahead of this leader's, and when it was compared.
    clocks: BTreeMap<NodeId, (i64, Instant)>,
    processes: BTreeMap<NodeId, Vec<Process>>,
    /// What was said of clocks.
    told_ms: BTreeMap<NodeId, i64>,
}

impl Doubts {
    /// Forgets everything: this manager begins to lead.
    pub(crate) fn begin(&mut self) {
        *self = Self::default();
    }

    /// Notes what a manager hears, whose even time is so far ahead of ours.
    pub(crate) fn heard(&mut self, now: Instant, manager_ahead_ms: i64, alive: &[Alive]) {
        for alive in alive.iter().filter(|alive| alive.silent < FRESH) {
            let heard = now.checked_sub(alive.silent).unwrap_or(now);
            if let Some(ahead) = alive.marks.ahead_ms
                && self.clocks.get(&alive.node).is_none_or(|(_, at)| *at <= heard)
            {
                self.clocks.insert(alive.node, (ahead.saturating_add(manager_ahead_ms), heard));
            }
            if alive.marks.process != 0 {
                self.process(heard, alive);
            }
        }
    }

    fn process(&mut self, heard: Instant, alive: &Alive) {
        let known = self.processes.entry(alive.node).or_default();
        match known.iter_mut().find(|process| process.number == alive.marks.process) {
            Some(process) => {
                process.last = process.last.max(heard);
                process.addr = alive.addr.or(process.addr);
            }
            None => {
                let (number, addr) = (alive.marks.process, alive.addr);
                known.push(Process { number, addr, first: heard, last: heard });
                known.sort_by_key(|process| std::cmp::Reverse(process.last));
                known.truncate(PROCESSES_MAX);
            }
        }
    }

    /// Returns of which nodes another thing is to be said than their status says.
    pub(crate) fn news(&mut self, now: Instant, tables: &Tables) -> Vec<Doubt> {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < FRESH;
        self.clocks.retain(|id, (_, at)| tables.nodes.contains(id) && fresh(at));
        self.processes.retain(|id, processes| {
            processes.retain(|process| fresh(&process.last));
            tables.nodes.contains(id) && !processes.is_empty()
        });
        self.told_ms.retain(|id, _| tables.nodes.contains(id));
        let right = median(self.clocks.values().map(|(ahead, _)| *ahead).collect());
        let mut news = Vec::new();
        for node in tables.nodes.values().filter(|node| node.status.state == NodeState::Ready) {
            let message = &node.status.message;
            let (clock, copies) = parts(message);
            let clock = match (self.clocks.get(&node.id), right) {
                (Some((ahead, _)), Some(right)) => self.clock(node.id, ahead.saturating_sub(right)),
                // Not compared yet, as by a new leader.
                (None, _) | (_, None) => clock.to_owned(),
            };
            let copies = match self.processes.get(&node.id) {
                Some(processes) => twins(processes),
                None => copies.to_owned(),
            };
            let said: Vec<String> = [clock, copies].into_iter().filter(|part| !part.is_empty()).collect();
            let said = said.join(JOINT);
            if said != *message && (message.is_empty() || is_ours(message)) {
                news.push(Doubt { node: node.id, said });
            }
        }
        news
    }

    /// What is to be said of a clock: no other number each time, that each would be written.
    fn clock(&mut self, node: NodeId, ahead_ms: i64) -> String {
        let told = self.told_ms.get(&node).copied().unwrap_or(0);
        let limit = if told == 0 { OFF_MS } else { OFF_MS / 2 };
        let off = ahead_ms.unsigned_abs();
        if off < limit {
            self.told_ms.remove(&node);
            return String::new();
        }
        let near = told != 0 && ahead_ms.abs_diff(told) <= (told.unsigned_abs() / 4).max(OFF_MS / 2);
        let said = if near { told } else { ahead_ms };
        self.told_ms.insert(node, said);
        let way = if said > 0 { "ahead" } else { "behind" };
        format!("{CLOCK}{} {way}", amount(said.unsigned_abs()))
    }
}

const CLOCK: &str = "clock is ";
const TWINS: &str = "two processes have its certificate";
const JOINT: &str = "; ";

fn is_ours(message: &str) -> bool {
    message.starts_with(CLOCK) || message.starts_with(TWINS)
}

/// Returns what a status says of the clock, and of processes.
fn parts(message: &str) -> (&str, &str) {
    let part = |begin: &str| message.split(JOINT).find(|part| part.starts_with(begin)).unwrap_or_default();
    (part(CLOCK), part(TWINS))
}

fn amount(ms: u64) -> String {
    let rounded = |unit_ms: u64| (ms + unit_ms / 2) / unit_ms;
    match ms / 1000 {
        0..=119 => format!("{}.{} s", rounded(100) / 10, rounded(100) % 10),
        120..=7199 => format!("{} min", rounded(60_000)),
        7200..=172_799 => format!("{} h", rounded(3_600_000)),
        _ => format!("{} days", rounded(86_400_000)),
    }
}

/// The value in the middle; of two, the one that is nearer to the leader's own.
fn median(mut all: Vec<i64>) -> Option<i64> {
    all.sort_unstable();
    let (low, high) = (all.len().checked_sub(1)? / 2, all.len() / 2);
    [all[low], all[high]].into_iter().min_by_key(|ahead| ahead.unsigned_abs())
}

fn twins(processes: &[Process]) -> String {
    let overlap = |one: &Process, other: &Process| {
        let (begin, end) = (one.first.max(other.first), one.last.min(other.last));
        end.saturating_duration_since(begin) > OVERLAP
    };
    for (nth, one) in processes.iter().enumerate() {
        if let Some(other) = processes[..nth].iter().find(|other| overlap(one, other)) {
            let mut at: Vec<IpAddr> = [one.addr, other.addr].into_iter().flatten().collect();
            at.sort_unstable();
            at.dedup();
            let at: Vec<String> = at.iter().map(ToString::to_string).collect();
            return format!("{TWINS}, at {}", at.join(" and "));
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::{State, state};

    const SECOND: Duration = Duration::from_secs(1);

    fn three() -> State {
        state().node(1).node(2).node(3)
    }

    fn alive(node: u128, process: u64, ahead_ms: i64) -> Alive {
        Alive {
            node: NodeId(node),
            addr: Some([192, 0, 2, u8::try_from(process).unwrap()].into()),
            silent: Duration::ZERO,
            acks: None,
            marks: Marks { process, ahead_ms: Some(ahead_ms) },
        }
    }

    fn says(doubts: &mut Doubts, now: Instant, tables: &Tables) -> Vec<(u128, String)> {
        doubts.news(now, tables).into_iter().map(|doubt| (doubt.node.0, doubt.said)).collect()
    }

    /// After nodes 1, 2 and 3 were heard with their clocks so far ahead of the leader's.
    fn clocks(ahead: [i64; 3]) -> Vec<(u128, String)> {
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        let all: Vec<Alive> = (1..).zip(ahead).map(|(node, ahead)| alive(node, 1, ahead)).collect();
        doubts.heard(now, 0, &all);
        says(&mut doubts, now, &three().tables())
    }

    #[test]
    fn a_clock_that_is_off_is_named_with_the_amount_whoever_leads() {
        assert_eq!(clocks([0, 1500, -1500]), []);
        assert_eq!(clocks([0, 3_600_000, 40]), [(2, "clock is 60 min ahead".into())]);
        assert_eq!(clocks([0, 20, -5300]), [(3, "clock is 5.3 s behind".into())]);
        // It is the leader's own.
        assert_eq!(clocks([0, 90_000_000, 90_000_100]), [(1, "clock is 25 h behind".into())]);
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![0, 5000]), Some(0), "of two, the other's");
    }

    #[test]
    fn what_a_manager_hears_is_seen_from_the_leader() {
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        doubts.heard(now, 0, &[alive(1, 1, 0), alive(2, 1, 0)]);
        // Served by a manager whose own clock is ahead by an hour, as it is.
        doubts.heard(now, 3_600_000, &[alive(3, 1, -3_600_000)]);
        assert_eq!(says(&mut doubts, now, &three().tables()), []);
        doubts.heard(now, 3_600_000, &[alive(3, 1, 0)]);
        assert_eq!(says(&mut doubts, now, &three().tables()), [(3, "clock is 60 min ahead".into())]);
    }

    #[test]
    fn what_was_said_stands_until_it_is_clearly_otherwise() {
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        let at = |ahead, said: &str, doubts: &mut Doubts| {
            let tables = three().change_node(3, |n| said.clone_into(&mut n.status.message)).tables();
            doubts.heard(now, 0, &[alive(1, 1, 0), alive(2, 1, 0), alive(3, 1, ahead)]);
            says(doubts, now, &tables)
        };
        assert_eq!(at(2500, "", &mut doubts), [(3, "clock is 2.5 s ahead".into())]);
        assert_eq!(at(3400, "clock is 2.5 s ahead", &mut doubts), []);
        assert_eq!(at(1100, "clock is 2.5 s ahead", &mut doubts), [(3, "clock is 1.1 s ahead".into())]);
        assert_eq!(at(900, "clock is 1.1 s ahead", &mut doubts), [(3, String::new())]);
        assert_eq!(at(1900, "", &mut doubts), []);
        assert_eq!(at(5000, "something of another kind", &mut doubts), [], "not ours to change");
        // A new leader has not compared yet.
        let mut new = Doubts::default();
        let tables =
            three().change_node(3, |n| "clock is 2 h ahead".clone_into(&mut n.status.message)).tables();
        assert_eq!(says(&mut new, now, &tables), []);
    }

    #[test]
    fn two_processes_with_one_certificate_are_noticed_and_a_restart_is_none() {
        let (mut doubts, start) = (Doubts::default(), Instant::now());
        let tables = three().tables();
        let hear = |doubts: &mut Doubts, second: u32, process: u64, silent: u32| {
            let alive = Alive { silent: SECOND * silent, ..alive(3, process, 0) };
            doubts.heard(start + SECOND * second, 0, &[alive]);
        };
        hear(&mut doubts, 0, 1, 0);
        hear(&mut doubts, 5, 1, 0);
        // It is started anew; a manager that has not noticed yet goes on telling of the old one.
        hear(&mut doubts, 6, 2, 0);
        hear(&mut doubts, 9, 1, 4);
        hear(&mut doubts, 10, 2, 0);
        assert_eq!(says(&mut doubts, start + SECOND * 10, &tables), []);
        // The old one is there again.
        hear(&mut doubts, 11, 1, 0);
        let said = "two processes have its certificate, at 192.0.2.1 and 192.0.2.2".to_owned();
        assert_eq!(says(&mut doubts, start + SECOND * 11, &tables), [(3, said.clone())]);
        // One of them ends.
        let tables = three().change_node(3, |n| n.status.message = said).tables();
        hear(&mut doubts, 60, 1, 0);
        assert_eq!(says(&mut doubts, start + SECOND * 60, &tables), []);
        hear(&mut doubts, 75, 1, 0);
        assert_eq!(says(&mut doubts, start + SECOND * 75, &tables), [(3, String::new())]);
    }

    #[test]
    fn a_message_that_came_late_makes_no_clock_slow() {
        let mut differences = Differences::default();
        for ahead in [-20, -9000, -15] {
            differences.add(ahead);
            assert_eq!(differences.ahead_ms(), None);
        }
        differences.add(-4000);
        assert_eq!(differences.ahead_ms(), Some(-15));
        (0..SAMPLES).for_each(|_| differences.add(-4000));
        assert_eq!(differences.ahead_ms(), Some(-4000), "it is slow");
    }
}
