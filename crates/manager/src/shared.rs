//! What the parts of a manager share.

use crate::{
    Clock, Connect, Options,
    authorize::{Caller, Method, authorize},
    dispatcher::Sessions,
    forward::propose_error,
    leader::Inbox,
    presence::{ClusterAcks, Presence},
    publisher::Published,
};
use model::{Batch, Change, NodeId};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Status};

pub(crate) struct Shared {
    pub(crate) store: store::Handle,
    pub(crate) node: NodeId,
    pub(crate) connect: Connect,
    pub(crate) clock: Clock,
    /// Filled while this manager leads.
    presence: Mutex<Presence>,
    pub(crate) presence_changed: Notify,
    /// Observations waiting for the leader loop.
    pub(crate) inbox: Inbox,
    pub(crate) published: watch::Sender<Arc<Published>>,
    pub(crate) sessions: Sessions,
    pub(crate) sessions_tracker: TaskTracker,
    /// What every live subscriber holds, as the leader last said.
    pub(crate) cluster_acks: watch::Sender<ClusterAcks>,
    /// Raft members whose join is under way here.
    joining: Mutex<BTreeSet<u64>>,
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
        Self {
            store: options.store,
            node: options.node,
            connect: options.connect,
            clock: options.clock,
            presence: Mutex::default(),
            presence_changed: Notify::new(),
            inbox: Inbox::default(),
            published: watch::Sender::new(Arc::new(Published::of(view, None))),
            sessions: Sessions::default(),
            sessions_tracker: TaskTracker::new(),
            cluster_acks: watch::Sender::new(ClusterAcks::default()),
            joining: Mutex::default(),
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn joining(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the caller of `request`, if it may call `method`.
    pub(crate) fn authorize<T>(&self, method: Method, request: &Request<T>) -> Result<Caller, Status> {
        authorize(method, request, self.store.view().cluster.as_ref().map(|c| c.id))
    }

    /// Proposes changes and returns the index at which they are in the state.
    ///
    /// # Errors
    /// As people are told them.
    pub(crate) async fn change(&self, changes: Vec<Change>) -> Result<u64, Status> {
        let batch = Batch { at: (self.clock)(), changes };
        self.store.propose_whole(batch).await.map(|(index, _)| index).map_err(|e| propose_error(&e))
    }
}

/// Returns 128 random bits: a new id.
///
/// # Errors
/// The system has none to give.
pub(crate) fn random_id() -> Result<u128, Status> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Status::internal(format!("no randomness: {e}")))?;
    Ok(u128::from_be_bytes(bytes))
}
