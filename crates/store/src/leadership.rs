//! Who leads.

use crate::{
    machine::Machine,
    supervise::Failure,
    types::{TypeConfig, addr_of},
};
use model::Duration;
use openraft::{
    Raft, ServerState,
    async_runtime::watch::WatchReceiver as _,
    error::{ForwardReason, ForwardToLeader},
    metrics::RaftServerMetrics,
};
use std::net::SocketAddr;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long Raft may take to end its tasks.
const SHUTDOWN: Duration = Duration::from_secs(5);

const LAST_WORDS: Duration = Duration::from_millis(50);

/// What a member knows of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Raft id and address, if one is known.
    pub leader: Option<(u64, SocketAddr)>,
    /// This member leads. Its view may still lack changes of the leader before it: call
    /// [`crate::Handle::read_index`] before deciding anything.
    pub me: bool,
    pub term: u64,
}

/// Returns who leads now. Metrics are cloned at once: holding the borrow would block the Raft core.
pub(crate) fn leader_now(raft: &Raft<TypeConfig, Machine>) -> Leadership {
    leadership(&raft.server_metrics().borrow_watched().clone())
}

pub(crate) fn leadership(metrics: &RaftServerMetrics<TypeConfig>) -> Leadership {
    let leader = metrics.current_leader.and_then(|id| {
        let node = metrics.membership_config.membership().get_node(&id)?;
        Some((id, addr_of(node)?))
    });
    Leadership { leader, me: metrics.state == ServerState::Leader, term: metrics.vote.leader_id.term }
}

/// Why the Raft core turned a request away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// Another member leads, or is about to.
    To(Option<(u64, SocketAddr)>),
    /// This member leads, but has not heard of a majority lately.
    NoMajority,
}

pub(crate) fn turned_away(raft: &Raft<TypeConfig, Machine>, why: &ForwardToLeader<TypeConfig>) -> TurnedAway {
    if why.reason == ForwardReason::LeaseExpired {
        return TurnedAway::NoMajority;
    }
    let named = why.leader_id.zip(why.leader_node.as_ref().and_then(addr_of));
    TurnedAway::To(named.or_else(|| leader_now(raft).leader).filter(|(id, _)| id != raft.node_id()))
}

/// Tells each change of leadership, and why Raft or its log stopped if they do, until cancelled. Raft is shut down when
/// anything of the member has failed: what is left of it would only look alive.
pub(crate) async fn herald(
    raft: Raft<TypeConfig, Machine>,
    told: watch::Sender<Leadership>,
    failure: Failure,
    mut log_failure: watch::Receiver<Option<String>>,
    cancel: CancellationToken,
) {
    let mut metrics = raft.server_metrics();
    let mut failed = failure.watch();
    loop {
        let next = leadership(&metrics.borrow_and_update().clone());
        told.send_if_modified(|old| std::mem::replace(old, next) != next);
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Ok(why) = log_failure.wait_for(Option::is_some) => {
                failure.set(why.clone().unwrap_or_default());
                break;
            }
            Ok(_) = failed.wait_for(Option::is_some) => break,
            changed = metrics.changed() => if changed.is_err() || metrics.borrow_watched().state == ServerState::Shutdown {
                break;
            }
        }
    }
    if !cancel.is_cancelled() {
        // A task that panicked tells so a moment after it let go of everything.
        let last_words = async { failed.wait_for(Option::is_some).await.is_ok() };
        if timeout(LAST_WORDS, last_words).await.is_err() {
            let state = raft.metrics().borrow_watched().running_state.clone();
            let why = state.err().map_or_else(|| "Raft has stopped".to_owned(), |e| e.to_string());
            failure.set(why);
        }
    }
    // Whoever led here must stop leading.
    told.send_modify(|last| *last = Leadership { leader: None, me: false, term: last.term });
    if failure.is_set() && timeout(SHUTDOWN, raft.shutdown()).await.is_err() {
        tracing::error!("Raft does not end");
    }
}
