//! The one way changes enter the log: a task on the leader that gathers what is waiting into few entries and keeps
//! at most eight of them in flight; a small one waits while any is.

use crate::{
    leadership::{TurnedAway, turned_away},
    machine::{Machine, Published},
    supervise::Failure,
    types::{Command, Reply, TypeConfig},
};
use model::{Batch, Conflict, Duration, Event};
use openraft::{
    Raft,
    error::{ClientWriteError, Fatal, RaftError},
    impls::ProgressResponder,
    raft::ClientWriteResponse,
};
use prost::Message as _;
use proto::types;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Beyond this a batch is refused. *Unit:* bytes. Source: SwarmKit `store.MaxTransactionBytes`.
pub(crate) const LARGEST: usize = 1_500_000;
/// What a person wants as a whole may have more: a stack of thousands of services. It must fit into a message between
/// managers. *Unit:* bytes.
pub(crate) const WHOLE: usize = 12_000_000;
/// Batches are gathered up to this. *Unit:* bytes.
const ENTRY: usize = 64 << 10;
const ENTRY_CHANGES: usize = 200;
/// More would only queue in Raft. Measured: 450k changes/s at 8, collapse at 64.
const IN_FLIGHT: usize = 8;
/// While so many are under way, what comes in small pieces is gathered: an entry costs all managers about the same,
/// whatever is in it. Measured with 64 writers: at 1 they write a tenth more than at 2 and two fifths more than at 8;
/// one writer never has two under way.
const IN_FLIGHT_SMALL: usize = 1;
/// So many proposals are no small piece.
const MANY: usize = 64;
/// Proposals that may wait.
const QUEUE: usize = 1024;
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a leader without a majority, as each is at first, looks for one.
const MAJORITY: Duration = Duration::from_secs(3);

/// Why a batch was not applied, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// It contradicts the state; nothing of it was applied.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Nothing was applied; ask the leader.
    #[error("this manager is not the leader")]
    NotLeader { leader: Option<(u64, SocketAddr)> },
    /// Nothing was applied; try again later.
    #[error("the swarm accepts no changes: {0}")]
    Unavailable(String),
    /// It may be applied or not, now or later: read before trying again.
    #[error("the managers did not confirm the change in time; it may still take effect")]
    OutcomeUnknown,
    /// Nothing was applied; propose less at once.
    #[error("the change has {bytes} bytes, more than the {limit} allowed")]
    TooLarge { bytes: usize, limit: usize },
}

/// A proposal's way through the queue, so that one that timed out is either refused for sure or unknown.
const QUEUED: u8 = 0;
const SUBMITTED: u8 = 1;
const WITHDRAWN: u8 = 2;

pub(crate) struct Proposal {
    batch: Batch,
    message: types::Batch,
    bytes: usize,
    /// Of the leader that it was decided by.
    term: u64,
    stage: Arc<AtomicU8>,
    done: oneshot::Sender<Result<(u64, Vec<Event>), ProposeError>>,
}

/// Puts proposals into the queue.
#[derive(Debug, Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    published: Arc<Published>,
    failure: Failure,
}

impl std::fmt::Debug for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proposal({} bytes)", self.bytes)
    }
}

impl Proposer {
    pub(crate) fn new(published: Arc<Published>, failure: Failure) -> (Self, mpsc::Receiver<Proposal>) {
        let (queue, proposals) = mpsc::channel(QUEUE);
        (Self { queue, published, failure }, proposals)
    }

    pub(crate) async fn propose(
        &self,
        batch: Batch,
        limit: usize,
        term: u64,
    ) -> Result<(u64, Vec<Event>), ProposeError> {
        let message = types::Batch::from(&batch);
        let bytes = message.encoded_len();
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        // What cannot apply now will hardly apply later: say so before it costs a round of the managers.
        let view = self.published.view.load_full();
        let index = view.index + 1;
        (*view).clone().apply(index, &batch)?;

        let stage = Arc::new(AtomicU8::new(QUEUED));
        let (done, outcome) = oneshot::channel();
        let proposal = Proposal { batch, message, bytes, term, stage: stage.clone(), done };
        let stopped = || ProposeError::Unavailable("the store is shut down".to_owned());
        let wait = async {
            self.queue.send(proposal).await.map_err(|_| stopped())?;
            outcome.await.unwrap_or(Err(ProposeError::OutcomeUnknown))
        };
        let mut failure = self.failure.watch();
        let why = tokio::select! {
            biased;
            outcome = timeout(DEADLINE, wait) => match outcome {
                Ok(outcome) => return outcome,
                Err(_) => "too many changes are waiting".to_owned(),
            },
            // Raft has died under it: nobody will answer.
            Ok(why) = failure.wait_for(Option::is_some) => why.clone().unwrap_or_default(),
        };
        if withdraw(&stage) { Err(ProposeError::Unavailable(why)) } else { Err(ProposeError::OutcomeUnknown) }
    }
}

fn withdraw(stage: &AtomicU8) -> bool {
    stage.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Tells whether the next entry goes out now. `waiting`: proposals behind the first one; `under_way`: entries.
fn may_go(first: &Proposal, waiting: usize, under_way: usize) -> bool {
    let is_large =
        first.bytes > ENTRY / 2 || first.batch.changes.len() > ENTRY_CHANGES / 2 || waiting >= MANY;
    under_way < if is_large { IN_FLIGHT } else { IN_FLIGHT_SMALL }
}

/// Runs until cancelled; what is waiting then is refused.
pub(crate) async fn run(
    raft: Raft<TypeConfig, Machine>,
    mut proposals: mpsc::Receiver<Proposal>,
    cancel: CancellationToken,
) {
    let mut in_flight = JoinSet::new();
    let mut left_over = None;
    'run: loop {
        while in_flight.try_join_next().is_some() {}
        let first = match left_over.take() {
            Some(proposal) => proposal,
            None => tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                proposal = proposals.recv() => match proposal {
                    Some(proposal) => proposal,
                    None => break,
                },
            },
        };
        // What arrives while this waits for its turn joins the entry.
        while !may_go(&first, proposals.len(), in_flight.len()) {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break 'run,
                _ = in_flight.join_next() => {}
            }
        }
        let (group, rest) = gather(first, &mut proposals);
        left_over = rest;
        if group.is_empty() {
            continue;
        }
        let raft = raft.clone();
        in_flight.spawn(async move { submit(&raft, group).await });
    }
    // Entries in flight end with Raft itself, which is shut down next.
    while in_flight.join_next().await.is_some() {}
}

/// Takes what is waiting, up to one entry's worth of one term; returns what no longer fits.
fn gather(first: Proposal, proposals: &mut mpsc::Receiver<Proposal>) -> (Vec<Proposal>, Option<Proposal>) {
    let (mut bytes, mut changes, term) = (0, 0, first.term);
    let mut group = Vec::new();
    let mut next = Some(first);
    while let Some(proposal) = next {
        let full = bytes + proposal.bytes > ENTRY || changes + proposal.batch.changes.len() > ENTRY_CHANGES;
        if proposal.term != term || (full && !group.is_empty()) {
            return (group, Some(proposal));
        }
        let submitted =
            proposal.stage.compare_exchange(QUEUED, SUBMITTED, Ordering::AcqRel, Ordering::Acquire);
        if submitted.is_ok() {
            bytes += proposal.bytes;
            changes += proposal.batch.changes.len();
            group.push(proposal);
        }
        next = proposals.try_recv().ok();
    }
    (group, None)
}

async fn submit(raft: &Raft<TypeConfig, Machine>, group: Vec<Proposal>) {
    let Some(term) = group.first().map(|proposal| proposal.term) else { return };
    let mut waiting = Vec::with_capacity(group.len());
    let batches = group.into_iter().map(|proposal| {
        waiting.push(proposal.done);
        (proposal.batch, proposal.message)
    });
    let command = Command::new(batches);
    let outcome = timeout(DEADLINE, write(raft, term, &command)).await;
    let answers: Vec<Result<(u64, Vec<Event>), ProposeError>> = match outcome {
        Ok(Ok(ClientWriteResponse { log_id, data: Reply(results), .. })) => {
            results.into_iter().map(|r| r.map(|events| (log_id.index, events)).map_err(Into::into)).collect()
        }
        Ok(Err(error)) => waiting.iter().map(|_| Err(refused(raft, &error))).collect(),
        Err(_) => Vec::new(), // the outcome stays unknown
    };
    let mut answers = answers.into_iter();
    for done in waiting {
        // One who no longer waits learns nothing.
        drop(done.send(answers.next().unwrap_or(Err(ProposeError::OutcomeUnknown))));
    }
}

type WriteError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// Writes an entry of a term; while this leader lacks a majority nothing enters the log, so it can be tried again.
async fn write(
    raft: &Raft<TypeConfig, Machine>,
    term: u64,
    command: &Command,
) -> Result<ClientWriteResponse<TypeConfig>, WriteError> {
    let give_up = Instant::now() + MAJORITY;
    loop {
        let (responder, outcome) = ProgressResponder::complete_only();
        raft.write(command.clone()).with_leader(term).responder(responder).await.map_err(RaftError::Fatal)?;
        let outcome = outcome.await.map_err(|_| RaftError::Fatal(Fatal::Stopped))?;
        match outcome.map_err(RaftError::APIError) {
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(why)))
                if turned_away(raft, &why) == TurnedAway::NoMajority && Instant::now() < give_up =>
            {
                sleep(Duration::from_millis(25)).await;
            }
            outcome => return outcome,
        }
    }
}

fn refused(raft: &Raft<TypeConfig, Machine>, error: &WriteError) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(why)) => match turned_away(raft, why) {
            TurnedAway::To(leader) => ProposeError::NotLeader { leader },
            TurnedAway::NoMajority => {
                ProposeError::Unavailable("the leader does not reach a majority of the managers".to_owned())
            }
        },
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::OutcomeUnknown,
        RaftError::APIError(other) => ProposeError::Unavailable(other.to_string()),
        // It may have been sent to others before Raft stopped here.
        RaftError::Fatal(_) => ProposeError::OutcomeUnknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectError, Dek, Options, Store};
    use model::NodeId;

    #[test]
    fn small_entries_wait_for_each_other_and_large_ones_do_not() {
        let proposal = |bytes, changes| {
            let key = model::ObjectRef::Node(NodeId(1));
            let batch = Batch {
                changes: vec![model::Change::Delete { key, version: 1 }; changes],
                ..Batch::default()
            };
            let (message, stage) = (types::Batch::default(), Arc::default());
            Proposal { batch, message, bytes, term: 1, stage, done: oneshot::channel().0 }
        };
        let goes_up_to = |proposal: &Proposal, waiting| {
            (0..100).take_while(|under_way| may_go(proposal, waiting, *under_way)).count()
        };
        let small = proposal(200, 2);
        assert_eq!(goes_up_to(&small, 0), 1);
        assert_eq!(goes_up_to(&small, 63), 1);
        assert_eq!(goes_up_to(&small, 64), 8, "they fill entries of their own");
        assert_eq!(goes_up_to(&proposal(200, 200), 0), 8, "a batch of the plan");
        assert_eq!(goes_up_to(&proposal(60_000, 1), 0), 8);
    }

    #[tokio::test]
    async fn the_log_itself_takes_nothing_of_another_term() {
        let dir = tempfile::tempdir().unwrap();
        let connect = |_: Option<NodeId>, _: SocketAddr| async {
            Err::<tonic::transport::Channel, ConnectError>("there is nobody else".into())
        };
        let addr = "127.0.0.1:1".parse().unwrap();
        let options = Options::new(1, NodeId(1), addr, Dek::new(&[7; 32]), Arc::new(connect));
        let store = Store::open(dir.path(), options).await.unwrap();
        store.bootstrap().await.unwrap();
        let handle = store.handle();
        let term = handle.leader().wait_for(|now| now.me).await.unwrap().term;
        for other in [term - 1, term + 1] {
            let refused = handle.proposer.propose(Batch::default(), LARGEST, other).await;
            assert!(matches!(refused, Err(ProposeError::NotLeader { leader: None })), "{refused:?}");
        }
        handle.proposer.propose(Batch::default(), LARGEST, term).await.unwrap();
        store.shutdown().await;
    }
}
