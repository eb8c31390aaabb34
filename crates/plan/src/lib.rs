//! Decides what a swarm should do next: the whole control loop as one pure function.
//!
//! ```text
//!  tables, now, acks --> orchestrate --> allocate --> schedule --> reap --> batches, wake_at, report
//!                        per service:    networks,    pending      ended tasks,
//!                        delete, scale,  services,    tasks ->     removed services
//!                        restart, update tasks        nodes        and networks
//! ```
//!
//! [`step`] reads a view of the replicated state and returns the changes that bring it nearer to what was
//! asked for, and why. It is called whenever the store changed or `wake_at` has come, by the leader only;
//! on a settled state it returns nothing. Everything it must remember is in the stored objects, so the next
//! leader goes on where this one stopped.
//!
//! Stages meet only in the draft (`draft.rs`): each sees what the ones before it decided.
//!
//! Time is the leader's ([`Clock`]), and order is the Raft index: no moment is compared with one of another clock.
//!
//! Invariants: no clock, no randomness, no I/O, no map without an order. It writes desired state, slot,
//! placement, addresses and update status; never a spec (but for an automatic rollback) and never observed
//! state (but ORPHANED, for nodes that can no longer speak).
//!
//! # Why
//! - *Only an end of its own delays a task's replacement.* Swarm also waits after a node went down, which
//!   adds five seconds to every failover; the delay is there to slow down crash loops.
//! - *Changed ingress ports do not replace tasks*: the mesh is set up beside them.
//! - *A dead node does not hold back `service rm`*: its tasks are remembered by id until it returns, or is
//!   given up after a day; their addresses rest as long.
//!
//! *Start reading at* [`step`].

mod allocate;
mod constraint;
mod depend;
mod draft;
mod foresee;
mod generic;
mod nodes;
mod orchestrate;
mod reap;
mod restart;
mod schedule;
mod slots;
mod update;

pub use allocate::task_subnet;
pub use constraint::matches as constraint_matches;
pub use foresee::{Outlook, Verdict, foresee, verdicts};

use model::{Batch, NetworkId, Tables, Timestamp};
use std::collections::BTreeMap;

/// The lowest table version that every live subscriber has acknowledged; what nobody subscribes to is absent.
///
/// A subscriber whose acknowledged table is still the current one counts as having acknowledged the index of
/// the view that `step` is given: otherwise addresses of ended tasks on a quiet network would never be freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    pub networks: BTreeMap<NetworkId, u64>,
    /// Of the routing mesh, which every node subscribes to.
    pub mesh: Option<u64>,
}

impl Acks {
    /// Returns true if no node holds a table of the network that is older than `version`.
    fn has_heard(&self, network: NetworkId, version: u64) -> bool {
        self.networks.get(&network).is_none_or(|held| *held >= version)
    }
}

/// The leader's time.
///
/// The moments in the state were written by leaders one after the other, each by its own clock, and a clock can be set.
/// So a moment says how long ago something was only if it is of the time that runs now; everything else is taken to
/// have been learnt of when that began, and its delays and deadlines begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    pub now: Timestamp,
    /// When this leader began to lead, or its clock was set since: from then to `now` it ran evenly.
    pub since: Timestamp,
}

impl Clock {
    fn learnt(&self, stored: Timestamp) -> Timestamp {
        if self.since < stored && stored <= self.now { stored } else { self.since }
    }
}

/// What to do now, when to look again, and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// To be proposed in this order; each has at most 200 changes and no object is in two of them.
    /// A conflict in one does not spoil the others: propose on, then call [`step`] again.
    pub batches: Vec<Batch>,
    /// The next moment at which something falls due although nothing in the tables changes.
    pub wake_at: Option<Timestamp>,
    pub report: Report,
}

/// Why the plan did, or did not, act.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub lines: Vec<Line>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Name of the service, task (`web.1`), network or node it is about.
    pub subject: String,
    pub what: &'static str,
    pub reason: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.subject, self.what)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// Returns the changes that bring the swarm nearer to what was asked for.
///
/// `ids` gives fresh random bits for each new task. Without a cluster object there is nothing to plan.
#[must_use]
pub fn step(tables: &Tables, clock: Clock, acks: &Acks, ids: &mut dyn FnMut() -> u128) -> Plan {
    let Some(cluster) = tables.cluster.clone() else { return Plan::default() };
    let mut draft = draft::Draft::new(tables, clock, ids);
    orchestrate::run(&mut draft);
    allocate::run(&mut draft, &cluster, acks);
    schedule::run(&mut draft, &cluster);
    reap::run(&mut draft, &cluster, acks);
    draft.finish()
}
