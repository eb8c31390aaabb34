//! What the parts of a manager share.

#[cfg(test)]
use crate::planted;
use crate::{
    Answers, Clock, Connect, Options,
    authorize::{Caller, Evidence, Method, authorize},
    clock::{LeaderClock, Set},
    dispatcher::sessions::Sessions,
    doubts::Doubts,
    forward::InNameOf,
    inbox::Inbox,
    notes::{Kind, Note, Notes},
    presence::{ClusterAcks, Presence},
    published::Published,
    refusals::{propose_error, read_error},
    stalls::Stalls,
    standing::Known,
    turns::Turns,
    under_way::UnderWay,
};
use model::{Batch, Change, Duration, NodeId, Role, Tables, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use store::{MembershipError, ProposeError};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Status, transport::Channel};
use tracing::warn;

/// How often a write is decided anew when others write to the same objects.
const ATTEMPTS: usize = 20;
/// How long a node whose standing is not known waits before it is looked up in a newer state again.
const LOOK_AGAIN_PAUSE: Duration = Duration::from_millis(500);
/// *Limit* of nodes that are looked up so at once.
const LOOKS_AT_ONCE: usize = 256;
/// Passwords that are looked at at the same time: each takes some tenths of a second of a processor.
const LOGINS_AT_ONCE: usize = 2;

pub(crate) struct Shared {
    pub(crate) store: store::Handle,
    pub(crate) node: NodeId,
    pub(crate) connect: Connect,
    pub(crate) answers: Answers,
    /// The wall clock: for what people, tokens and certificates say of time. See [`Shared::stamp`] for the rest.
    pub(crate) clock: Clock,
    /// When this manager started, by both clocks.
    started: (Timestamp, Instant),
    /// This manager is about to go on without the others.
    pub(crate) recovering: Arc<AtomicBool>,
    /// Runs while this manager leads.
    leader_clock: Mutex<Option<LeaderClock>>,
    /// Filled while this manager leads.
    presence: Mutex<Presence>,
    doubts: Mutex<Doubts>,
    pub(crate) presence_changed: Notify,
    pub(crate) stalls: Stalls,
    /// Observations waiting for the leader loop.
    pub(crate) inbox: Inbox,
    pub(crate) published: watch::Sender<Arc<Published>>,
    pub(crate) sessions: Sessions,
    pub(crate) sessions_tracker: TaskTracker,
    /// What every live subscriber holds, as the leader last said.
    pub(crate) cluster_acks: watch::Sender<ClusterAcks>,
    /// Tasks that were told to stop although connections may still have been sent to them: somebody let go of them too
    /// late.
    pub(crate) late_drains: AtomicU64,
    /// Raft members whose join is under way here.
    joining: Mutex<BTreeSet<u64>>,
    /// The leader says that this node is no manager.
    turned_away: AtomicBool,
    /// This manager has read in its own replica that it was taken in.
    taken_in: AtomicBool,
    /// When nodes that are not known were last looked up in a newer state.
    looked_again: Mutex<BTreeMap<NodeId, Instant>>,
    /// What the history was told without a write.
    pub(crate) notes: Notes,
    /// What people were refused since this manager started.
    pub(crate) refusals: AtomicU64,
    /// Turns at looking at passwords, which is slow on purpose.
    pub(crate) logins: Arc<Semaphore>,
    /// Turns at looking ahead, which is a plan for all services, some times over.
    pub(crate) outlooks: Turns,
    pub(crate) under_way: UnderWay,
    /// How long the plans of this leader took.
    pub(crate) plans: model::Timings,
    pub(crate) cancel: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        let view = options.store.view();
        let started = ((options.clock)(), Instant::now());
        Self {
            started,
            store: options.store,
            node: options.node,
            connect: options.connect,
            answers: options.answers,
            clock: options.clock,
            recovering: options.recovering,
            leader_clock: Mutex::default(),
            presence: Mutex::default(),
            doubts: Mutex::default(),
            presence_changed: Notify::new(),
            stalls: Stalls::default(),
            inbox: Inbox::default(),
            published: watch::Sender::new(Arc::new(Published::of(view, None))),
            sessions: Sessions::default(),
            sessions_tracker: TaskTracker::new(),
            cluster_acks: watch::Sender::new(ClusterAcks::default()),
            late_drains: AtomicU64::new(0),
            joining: Mutex::default(),
            turned_away: AtomicBool::new(false),
            taken_in: AtomicBool::new(false),
            notes: Notes::default(),
            refusals: AtomicU64::new(0),
            logins: Arc::new(Semaphore::new(LOGINS_AT_ONCE)),
            outlooks: Turns::default(),
            plans: model::Timings::default(),
            under_way: options.under_way,
            looked_again: Mutex::default(),
            cancel: CancellationToken::new(),
        }
    }

    /// This manager begins to lead, or leads no longer.
    pub(crate) fn set_leading(&self, leads: bool) {
        let clock = leads.then(|| LeaderClock::begin((self.clock)(), Instant::now()));
        *self.leader_clock.lock().unwrap_or_else(PoisonError::into_inner) = clock;
    }

    /// Returns the leader's time.
    pub(crate) fn time(&self) -> plan::Clock {
        let wall = (self.clock)();
        let mut clock = self.leader_clock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(clock) = clock.as_mut() else { return plan::Clock { now: wall, since: wall } };
        let (time, set) = clock.read(wall, Instant::now());
        if let Some(Set { by, forward }) = set {
            warn!(?by, forward, "the clock of this host was set: what was waited for is waited for anew");
        }
        time
    }

    /// Returns what is written as the moment of something that happens now.
    pub(crate) fn stamp(&self) -> Timestamp {
        self.time().now
    }

    /// Returns what the wall clock would show, had nobody set it since this manager started: what others' clocks are
    /// compared with. What was compared a moment ago stays comparable while somebody sets ours.
    pub(crate) fn even_time(&self) -> Timestamp {
        let (wall, at) = self.started;
        wall.after(at.elapsed())
    }

    pub(crate) fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn joining(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the caller of `request`, if it may call `method`. A node that only a newer state would know, or know in
    /// its new role, is judged again once this replica has caught up.
    ///
    /// # Errors
    /// What the caller is told.
    pub(crate) fn authorize<T>(
        &self,
        method: Method,
        request: &Request<T>,
    ) -> impl Future<Output = Result<Caller, Status>> + Send + use<'_, T> {
        let evidence = Evidence::of(request);
        async move {
            let evidence = evidence?;
            // Who calls from this very process has no connection that would have been closed.
            if self.cancel.is_cancelled() {
                return Err(Status::unavailable("this manager is stopping: ask another one"));
            }
            if self.is_retired() {
                return Err(Status::unavailable("this node is a manager no more: ask another one"));
            }
            if !self.is_taken_in() && !self.store.leader_now().me {
                return Err(Status::unavailable("this manager is not taken in yet: ask another one"));
            }
            let judge = || authorize(method, &evidence, &Known::State(&self.store.view()), (self.clock)());
            match judge() {
                Ok(caller) => Ok(caller),
                Err(refused) if refused.perhaps_late && self.may_look_again(evidence.node()) => {
                    self.catch_up().await?;
                    match judge() {
                        Ok(caller) => Ok(caller),
                        Err(refused) => Err(self.turn_away(method, &evidence, refused.status).await),
                    }
                }
                Err(refused) => Err(self.turn_away(method, &evidence, refused.status).await),
            }
        }
    }

    /// Returns the refusal of a caller, told if it is a person's: one who shows what is nobody's, or not good any more.
    async fn turn_away(&self, method: Method, evidence: &Evidence, status: Status) -> Status {
        if let Some((shown, person)) = evidence.stranger(&self.store.view()) {
            let note = Note::of(Kind::Refusal, &person, "authorisation refused", &shown);
            let message = format!("{method:?}: {}", status.message());
            self.tell(Note { message, ..note }).await;
        }
        status
    }

    /// Returns true once this node is to be no manager any more, by its own state or by the leader's word: a state that
    /// nobody keeps up to date decides nothing.
    pub(crate) fn is_retired(&self) -> bool {
        // One that is joining reads of the time when it was a worker, and the leader has yet to record it.
        if !self.is_taken_in() {
            return false;
        }
        let view = self.store.view();
        let demoted = view.nodes.get(&self.node).is_some_and(|n| n.spec.role != Role::Manager);
        // While it leads, its state is the one that counts; it hands leadership over as soon as somebody can take it.
        (demoted && !self.store.leader_now().me) || self.turned_away.load(Ordering::Relaxed)
    }

    /// Returns true once this manager has read that it was taken in under its number: before, its replica is of a time
    /// that is over, and says nothing of what it is to be.
    pub(crate) fn is_taken_in(&self) -> bool {
        let own = self.store.raft_id();
        let is_recorded = || {
            let view = self.store.view();
            view.nodes.get(&self.node).and_then(|n| n.manager).is_some_and(|m| m.raft_id == own)
        };
        let is = self.taken_in.load(Ordering::Relaxed) || is_recorded();
        self.taken_in.fetch_or(is, Ordering::Relaxed);
        is
    }

    /// Notes whether the leader takes this node for a manager. Only what it says to one that knew before it asked that it
    /// was taken in counts: else the word may be of the time before.
    pub(crate) fn note_turned_away(&self, is: bool) {
        self.turned_away.store(is, Ordering::Relaxed);
        if is {
            let _ended = self.sessions.keep(|_| false);
        }
    }

    /// Allows a node one look at a newer state per pause: strangers cost the leader no more than that.
    fn may_look_again(&self, node: Option<NodeId>) -> bool {
        let Some(node) = node.filter(|_| !self.store.leader_now().me) else { return false };
        let mut looked = self.looked_again.lock().unwrap_or_else(PoisonError::into_inner);
        looked.retain(|_, at| at.elapsed() < LOOK_AGAIN_PAUSE);
        if looked.len() >= LOOKS_AT_ONCE || looked.contains_key(&node) {
            return false;
        }
        looked.insert(node, Instant::now());
        true
    }

    /// Returns a channel to a member of Raft: to the very node that the state says it is, if it says so.
    pub(crate) fn member(&self, raft_id: u64, addr: SocketAddr, name: &InNameOf) -> Channel {
        let view = self.store.view();
        let node = view.nodes.values().find(|n| n.manager.is_some_and(|m| m.raft_id == raft_id));
        (self.connect)(addr, node.map(|n| n.id), name)
    }

    /// Decides on the newest view and writes; decides anew when the plan or the dispatcher wrote to the same
    /// objects meanwhile. What the caller names (its version, a name) is judged each time. Returns the index of the
    /// write, `unchanged` if there was nothing to write, and what `decide` made.
    pub(crate) async fn decide<T>(
        &self,
        unchanged: u64,
        decide: impl Fn(&Tables) -> Result<(T, Vec<Change>), Status>,
    ) -> Result<(u64, T), Status> {
        for _ in 1..ATTEMPTS {
            let (made, changes) = decide(&self.store.view())?;
            if changes.is_empty() {
                return Ok((unchanged, made));
            }
            match self.change(changes).await {
                Ok(index) => return Ok((index, made)),
                Err(status) if status.code() == tonic::Code::Aborted => {}
                Err(status) => return Err(status),
            }
        }
        let (made, changes) = decide(&self.store.view())?;
        Ok((self.change(changes).await?, made))
    }

    /// As [`Shared::decide`], by a leader that has not made sure first that it leads still: what it writes shows that.
    /// What is answered without a write (a refusal, that nothing changes) shows nothing, so it costs a round of the
    /// managers, and is decided anew behind it.
    pub(crate) async fn decide_leading<T>(
        &self,
        unchanged: u64,
        decide: impl Fn(&Tables) -> Result<(T, Vec<Change>), Status>,
    ) -> Result<(u64, T), Status> {
        let term = self.store.leading_term().await.map_err(read_error)?;
        let decided = decide(&self.store.view());
        if let Ok((made, changes)) = decided
            && !changes.is_empty()
        {
            match self.store.propose_whole_in(term, self.batch(changes)).await {
                Ok((index, _)) => return Ok((index, made)),
                // Nothing was done: by this state, or because somebody else led meanwhile.
                Err(ProposeError::Conflict(_) | ProposeError::NotLeader { .. }) => {}
                Err(error) => return Err(propose_error(&error)),
            }
        }
        self.fresh().await?;
        self.decide(unchanged, decide).await
    }

    /// Takes a member out of Raft.
    ///
    /// # Errors
    /// As [`store::Handle::remove_member`].
    pub(crate) async fn remove_member(&self, raft_id: u64) -> Result<(), MembershipError> {
        #[cfg(test)]
        if planted::stays_in_raft(&self.store.view(), self.store.member_node(raft_id)) {
            return Ok(());
        }
        self.store.remove_member(raft_id).await
    }

    /// Takes a member into Raft.
    ///
    /// # Errors
    /// As [`store::Handle::add_member`].
    pub(crate) async fn add_member(
        &self,
        raft_id: u64,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<(), MembershipError> {
        #[cfg(test)]
        if planted::nobody_joins() {
            return Ok(());
        }
        self.store.add_member(raft_id, node, addr).await
    }

    fn batch(&self, changes: Vec<Change>) -> Batch {
        let batch = Batch { at: self.stamp(), changes };
        #[cfg(test)]
        let batch = planted::in_batch(&self.store.view(), batch);
        batch
    }

    /// Proposes changes and returns the index at which they are in the state.
    ///
    /// # Errors
    /// As people are told them.
    pub(crate) async fn change(&self, changes: Vec<Change>) -> Result<u64, Status> {
        self.store
            .propose_whole(self.batch(changes))
            .await
            .map(|(index, _)| index)
            .map_err(|e| propose_error(&e))
    }
}
