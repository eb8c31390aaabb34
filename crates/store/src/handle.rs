//! What the rest of a manager sees of the store.

use crate::{
    contact::Contact,
    feed::{Applied, Feed},
    leadership::{Leadership, TurnedAway, leader_now, turned_away},
    machine::{Machine, Published},
    members::{Member, Members, MembershipError},
    propose::{self, ProposeError, Proposer},
    rhythm::Rhythm,
    supervise::Failure,
    types::TypeConfig,
};
use model::{Batch, Duration, Event, NodeId, Tables, Timing, Timings};
use openraft::{
    Instant as _, Raft, ReadPolicy, ServerState,
    async_runtime::watch::WatchReceiver as _,
    error::{LinearizableReadError, RaftError},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

const READ: Duration = Duration::from_secs(10);

/// Why a read cannot be promised to be fresh.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("this manager is not the leader")]
    NotLeader { leader: Option<(u64, SocketAddr)> },
    #[error("the managers have no majority: {0}")]
    Unavailable(String),
}

/// The store of this manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) published: Arc<Published>,
    pub(crate) proposer: Proposer,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) failure: Failure,
    pub(crate) rhythm: Arc<Rhythm>,
    pub(crate) contact: Arc<Contact>,
    /// How long a member may serve others without having heard its leader.
    pub(crate) lease: Duration,
    /// The disk is full.
    pub(crate) low: watch::Receiver<bool>,
    /// The last term in which this member led with a view that had all that was agreed on before the term; 0: none.
    pub(crate) caught_up_in: Arc<AtomicU64>,
    pub(crate) syncs: Arc<Timings>,
    pub(crate) proposals: Arc<Timings>,
}

/// How long things took since this member started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreTimings {
    /// Each sync of the log.
    pub syncs: Timing,
    /// Each batch that became part of the state here, from the proposal on.
    pub proposals: Timing,
}

impl Handle {
    /// Returns this member's raft id.
    pub fn raft_id(&self) -> u64 {
        *self.raft.node_id()
    }

    /// Returns the state as this member last applied it; `index` in it is the Raft index it stands at. It may be
    /// behind the leader's: for a fresh one call [`Handle::read_index`] first.
    pub fn view(&self) -> Arc<Tables> {
        self.published.view.load_full()
    }

    /// Makes a batch part of the state, and returns its Raft index and what it did. This member's view then has it.
    ///
    /// # Errors
    /// [`ProposeError`]; only after `OutcomeUnknown` something may still happen. Gives up after 10 s.
    ///
    /// # Cancel safety
    /// Dropping it leaves the outcome unknown.
    pub async fn propose(&self, batch: Batch) -> Result<(u64, Vec<Event>), ProposeError> {
        self.propose_within(batch, propose::LARGEST, None).await
    }

    /// The same for what must not be cut and may be large: see [`ProposeError::TooLarge`].
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub async fn propose_whole(&self, batch: Batch) -> Result<(u64, Vec<Event>), ProposeError> {
        self.propose_within(batch, propose::WHOLE, None).await
    }

    /// The same for what was decided on the view of a leader of this term: it becomes part of the state in no other
    /// one. See [`Handle::leading_term`].
    ///
    /// # Errors
    /// As [`Self::propose`]; [`ProposeError::NotLeader`] also when this member has led in another term since.
    pub async fn propose_whole_in(&self, term: u64, batch: Batch) -> Result<(u64, Vec<Event>), ProposeError> {
        self.propose_within(batch, propose::WHOLE, Some(term)).await
    }

    async fn propose_within(
        &self,
        batch: Batch,
        limit: usize,
        term: Option<u64>,
    ) -> Result<(u64, Vec<Event>), ProposeError> {
        if let Some(failure) = self.failure() {
            return Err(ProposeError::Unavailable(failure));
        }
        if *self.low.borrow() {
            return Err(ProposeError::Unavailable(
                "the disk of this manager is full; hint: free some room on it, it goes on by itself"
                    .to_owned(),
            ));
        }
        let now = self.leader_now();
        if !now.me || term.is_some_and(|term| term != now.term) {
            return Err(ProposeError::NotLeader { leader: now.leader.filter(|_| !now.me) });
        }
        let begun = Instant::now();
        let proposed = self.proposer.propose(batch, limit, now.term).await;
        if proposed.is_ok() {
            self.proposals.note(begun.elapsed());
        }
        proposed
    }

    /// Returns the term in which this member leads, with a view that has every change acknowledged before the call *if
    /// it leads still*. Whether it does, a write in this term shows ([`Handle::propose_whole_in`]): a leader that was
    /// replaced unseen gets nothing agreed on. Whoever answers without a write needs [`Handle::read_index`].
    ///
    /// The first call of a term costs a round of the managers, later ones nothing: a leader's view has what it
    /// acknowledged itself, and nobody else acknowledges anything in its term.
    ///
    /// # Errors
    /// As [`Self::read_index`].
    pub async fn leading_term(&self) -> Result<u64, ReadError> {
        let now = self.leader_now();
        if !now.me {
            return Err(ReadError::NotLeader { leader: now.leader });
        }
        if self.caught_up_in.load(Ordering::Acquire) < now.term {
            self.read_index().await?;
            self.caught_up_in.fetch_max(now.term, Ordering::AcqRel);
        }
        Ok(now.term)
    }

    /// Waits until this member's view has every change acknowledged before the call, and returns the index it then
    /// has. Only the leader can promise that; another member asks it for the index, then [`Handle::wait_applied`].
    ///
    /// # Errors
    /// Not the leader, or no majority within 10 s.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        match timeout(READ, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(id)) => {
                // Raft's own mark may run ahead of what is published.
                let index = id.index();
                self.wait_applied(index).await?;
                Ok(index)
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(why)))) => {
                Err(match turned_away(&self.raft, &why) {
                    TurnedAway::To(leader) => ReadError::NotLeader { leader },
                    TurnedAway::NoMajority => {
                        ReadError::Unavailable("the leader reaches too few of them".to_owned())
                    }
                })
            }
            Ok(Err(other)) => Err(ReadError::Unavailable(other.to_string())),
            Err(_) => Err(ReadError::Unavailable("no answer in time".to_owned())),
        }
    }

    /// Waits until this member has applied the entry at `index`.
    ///
    /// # Errors
    /// Not within 10 s.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.watch();
        match timeout(READ, applied.wait_for(|applied| *applied >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Unavailable("the store is shut down".to_owned())),
            Err(_) => Err(ReadError::Unavailable(format!("entry {index} did not arrive in time"))),
        }
    }

    /// Returns a watch on the index of the last applied entry.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.published.ring.applied()
    }

    /// Follows the changes behind `after`, usually the index of a view.
    pub fn feed(&self, after: u64) -> Feed {
        self.published.ring.follow(after)
    }

    /// Returns the changes that are kept for who is late, oldest first.
    pub fn kept_changes(&self) -> Vec<Applied> {
        self.published.ring.kept()
    }

    /// Returns a watch on who leads.
    pub fn leader(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Returns who leads now; nobody when this member has stopped: what Raft last said of itself stands still then.
    pub fn leader_now(&self) -> Leadership {
        let now = leader_now(&self.raft);
        if self.has_stopped() { Leadership { leader: None, me: false, term: now.term } } else { now }
    }

    fn has_stopped(&self) -> bool {
        self.leadership.has_changed().is_err() || self.failure.is_set()
    }

    /// Returns true while this member knows what the managers agree on, up to a lease of some seconds: it leads and hears
    /// of a majority, or hears its leader and keeps up with it. Another one serves nobody from its replica.
    pub fn is_current(&self) -> bool {
        if self.has_stopped() {
            return false;
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.state == ServerState::Leader {
            let alone = metrics.membership_config.voter_ids().eq([metrics.id]);
            return alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < self.lease);
        }
        self.contact.is_current(Instant::now(), self.lease, self.view().index)
    }

    /// Returns true if this member votes, as far as it knows, and it knows what the others agree on.
    pub fn is_voter(&self) -> bool {
        let own = self.raft_id();
        self.is_current() && self.members().iter().any(|m| m.raft_id == own && m.voter)
    }

    /// Returns how long a member that hears nothing still counts as current. An election is over by then.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns why this member has stopped for good (a disk error, a panic), if it has; it must then be restarted.
    pub fn failure(&self) -> Option<String> {
        self.failure.get()
    }

    /// Returns a watch on [`Handle::failure`].
    pub fn watch_failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.watch()
    }

    /// Sets after how many entries a snapshot is made, how many are kept beside the newest, and how many entries stay in
    /// the log `behind` one: fewer where they are large.
    pub fn set_snapshots(&self, interval: u64, old: u64, behind: u64) {
        self.rhythm.set(interval, old, behind);
    }

    /// Returns how long things took.
    pub fn timings(&self) -> StoreTimings {
        StoreTimings { syncs: self.syncs.read(), proposals: self.proposals.read() }
    }

    /// Returns the Raft members.
    pub fn members(&self) -> Vec<Member> {
        self.members_of().list()
    }

    /// Returns the node that takes part in Raft under this number, as far as this member knows.
    pub fn member_node(&self, raft_id: u64) -> Option<NodeId> {
        member_node(&self.raft, &self.published, raft_id)
    }

    /// Adds a member: it must already serve Raft at `addr`. It votes once it has caught up. Repeating is harmless.
    ///
    /// # Errors
    /// [`MembershipError`]; after `Behind` the members are as before.
    pub async fn add_member(
        &self,
        raft_id: u64,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<(), MembershipError> {
        self.members_of().add(raft_id, node, addr).await
    }

    /// Removes a member; `Ok` if there is none. If it is this member, leadership is handed over and the error is
    /// `NotLeader` with the successor, who must be asked instead.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn remove_member(&self, raft_id: u64) -> Result<(), MembershipError> {
        self.members_of().remove(raft_id).await
    }

    /// Hands leadership over, to the member furthest in the log if `to` is `None`.
    ///
    /// # Errors
    /// [`MembershipError`]; this member then still leads, or nobody does for a moment.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), MembershipError> {
        self.members_of().transfer(to).await
    }

    pub(crate) fn members_of(&self) -> Members {
        Members { raft: self.raft.clone(), failure: self.failure.clone() }
    }
}

/// Returns whose number a member's is: by the membership, or by the state where the membership is older than that.
pub(crate) fn member_node(
    raft: &Raft<TypeConfig, Machine>,
    published: &Published,
    raft_id: u64,
) -> Option<NodeId> {
    let metrics = raft.server_metrics().borrow_watched().clone();
    let place = metrics.membership_config.membership().get_node(&raft_id)?.clone();
    place.node.or_else(|| {
        let view = published.view.load_full();
        view.nodes.values().find(|n| n.manager.is_some_and(|m| m.raft_id == raft_id)).map(|n| n.id)
    })
}
