//! The sessions that this manager serves, and what their nodes were heard to hold.

use super::term::Term;
use crate::{
    doubts::{Differences, Marks},
    presence::{Alive, Subject},
};
use model::{Duration, NodeId};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// The sessions this manager serves.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<Open>,
    /// An acknowledgement arrived, or a session began, or one whose term is over was heard.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_node: BTreeMap<NodeId, Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    end: CancellationToken,
    addr: IpAddr,
    heard_at: Instant,
    /// `None`: it has not said yet what its kernel holds.
    acks: Option<BTreeMap<Subject, u64>>,
    /// Tasks of it wait for others' acknowledgements.
    draining: bool,
    /// 0: it did not say.
    process: u64,
    differences: Differences,
    term: Term,
    /// The leader was to be told of it before its turn, because the term was over; once, however often it is heard then.
    hurried: bool,
}

/// Whom a report to the leader says to be heard.
pub(super) struct Heard {
    sent: Instant,
    /// With the number of its session, and for how long it was silent.
    nodes: Vec<(NodeId, u64, Duration)>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session: the one the node had before ends. Returns its number and what ends it.
    pub(super) fn begin(
        &self,
        node: NodeId,
        addr: IpAddr,
        parent: &CancellationToken,
    ) -> (u64, CancellationToken) {
        let mut open = self.lock();
        open.last += 1;
        let (id, end) = (open.last, parent.child_token());
        let entry = Entry {
            id,
            end: end.clone(),
            addr,
            heard_at: Instant::now(),
            acks: None,
            draining: false,
            process: 0,
            differences: Differences::default(),
            term: Term::default(),
            hurried: false,
        };
        if let Some(old) = open.by_node.insert(node, entry) {
            old.end.cancel();
        }
        self.changed.notify_one();
        (id, end)
    }

    /// Ends the sessions of nodes for which `may_stay` is false.
    /// Returns how many that are.
    pub(crate) fn keep(&self, may_stay: impl Fn(NodeId) -> bool) -> usize {
        let open = self.lock();
        let ending =
            open.by_node.iter().filter(|(node, entry)| !may_stay(**node) && !entry.end.is_cancelled());
        ending.map(|(_, entry)| entry.end.cancel()).count()
    }

    pub(super) fn end(&self, node: NodeId, id: u64) {
        let mut open = self.lock();
        if open.by_node.get(&node).is_some_and(|e| e.id == id) {
            open.by_node.remove(&node);
        }
    }

    pub(super) fn heard(&self, node: NodeId, id: u64) {
        if let Some(entry) = self.lock().by_node.get_mut(&node).filter(|e| e.id == id) {
            entry.heard_at = Instant::now();
            if entry.term.is_over(entry.heard_at) && !std::mem::replace(&mut entry.hurried, true) {
                self.changed.notify_one();
            }
        }
    }

    /// The leader has taken a report, and answered with this index.
    pub(super) fn renew(&self, heard: &Heard, period: Duration, index: u64) {
        let (mut open, now) = (self.lock(), Instant::now());
        for (node, id, silent) in &heard.nodes {
            if let Some(entry) = open.by_node.get_mut(node).filter(|e| e.id == *id) {
                entry.term.renew(heard.sent, now, *silent, period, index);
                entry.hurried = false;
            }
        }
    }

    /// Returns true if a session may tell its node what a view of this index says.
    pub(super) fn may_tell(&self, node: NodeId, id: u64, index: u64) -> bool {
        let open = self.lock();
        let entry = open.by_node.get(&node).filter(|e| e.id == id);
        entry.is_some_and(|e| e.term.may_tell(Instant::now(), index))
    }

    /// Notes which process a session is of.
    pub(super) fn is_of(&self, node: NodeId, id: u64, process: u64) {
        if let Some(entry) = self.lock().by_node.get_mut(&node).filter(|e| e.id == id) {
            entry.process = process;
        }
    }

    /// Notes how far the clock of an agent was ahead when it was heard.
    pub(super) fn compared(&self, node: NodeId, id: u64, ahead_ms: i64) {
        if let Some(entry) = self.lock().by_node.get_mut(&node).filter(|e| e.id == id) {
            entry.differences.add(ahead_ms);
        }
    }

    pub(super) fn holds(&self, node: NodeId, id: u64, acks: BTreeMap<Subject, u64>, draining: bool) {
        let mut open = self.lock();
        let Some(entry) = open.by_node.get_mut(&node).filter(|e| e.id == id) else { return };
        if entry.acks.as_ref() != Some(&acks) || entry.draining != draining {
            entry.acks = Some(acks);
            entry.draining = draining;
            self.changed.notify_one();
        }
    }

    pub(super) fn alive(&self) -> (Vec<Alive>, Heard) {
        let (open, now) = (self.lock(), Instant::now());
        let silent = |entry: &Entry| now.saturating_duration_since(entry.heard_at);
        let alive = open.by_node.iter().map(|(node, entry)| Alive {
            node: *node,
            addr: Some(entry.addr),
            silent: silent(entry),
            acks: entry.acks.clone(),
            marks: Marks { process: entry.process, ahead_ms: entry.differences.ahead_ms() },
        });
        let nodes = open.by_node.iter().map(|(node, entry)| (*node, entry.id, silent(entry))).collect();
        (alive.collect(), Heard { sent: now, nodes })
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().by_node.len()
    }

    #[cfg(test)]
    pub(crate) fn serves(&self, node: NodeId) -> bool {
        self.lock().by_node.contains_key(&node)
    }

    pub(super) fn any_draining(&self) -> bool {
        self.lock().by_node.values().any(|e| e.draining)
    }
}
