//! Raft messages in from the other members.

use crate::{
    contact::Contact,
    handle::{Handle, member_node},
    machine::{Machine, Published},
    network::TERM_JUMP_MAX,
    snapshot::{Builder, Snapshots},
    types::{
        DecodeError, Entry, LogId, SnapshotMeta, TypeConfig, Vote, entry_from_wire, log_id_from_wire,
        log_id_to_wire, meta_from_wire, required_vote, vote_to_wire,
    },
    wal::Reader,
};
use futures::future::BoxFuture;
use model::{Duration, NodeId, Role};
use openraft::{
    Raft, ServerState,
    alias::SnapshotOf,
    async_runtime::watch::WatchReceiver as _,
    raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest},
};
use pki::{Identity, tls::Peer};
use prost::Message as _;
use proto::{
    SpecCache,
    raft::{self as wire, raft_server, snapshot_chunk::Chunk},
    types,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};

/// A snapshot whose next chunk takes longer is given up.
const CHUNK_DEADLINE: Duration = Duration::from_secs(30);

/// Asks other members whether a node takes part in Raft under a number that this member does not know: it may have
/// been away, or have no state yet. False when none says so in time.
pub type Vouch = Arc<dyn Fn(NodeId, u64) -> BoxFuture<'static, bool> + Send + Sync>;

/// Who may send Raft messages.
#[derive(Clone)]
pub enum Admission {
    /// Whoever reaches the socket: for stores in one process.
    Anyone,
    /// Over TLS, the nodes that are members, each under its own number.
    Members(Vouch),
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anyone => "Anyone",
            Self::Members(_) => "Members",
        })
    }
}

/// How long another member's word counts that somebody is a member, and that it is not.
const VOUCHED_LASTS: Duration = Duration::from_secs(10);
const REFUSED_LASTS: Duration = Duration::from_secs(1);
/// *Limit* of what is remembered so.
const WORDS_MAX: usize = 256;

/// What was said of a node under a number, and when.
type Words = BTreeMap<(NodeId, u64), (bool, Instant)>;

/// Serves `rswarm.raft.v1.Raft`: only to current members, each under the number it joined with, and only in terms that
/// elections can have reached. A member that was removed is nobody, whatever its certificate says.
#[derive(Debug, Clone)]
pub struct RaftService {
    raft: Raft<TypeConfig, Machine>,
    published: Arc<Published>,
    contact: Arc<Contact>,
    lease: Duration,
    snapshots: Snapshots,
    log: Reader,
    admission: Admission,
    /// What others said of members that are not known here.
    words: Arc<Mutex<Words>>,
    /// What tasks that came before refer to.
    specs: Arc<Mutex<SpecCache>>,
}

impl RaftService {
    pub(crate) fn new(handle: &Handle, snapshots: Snapshots, log: Reader, admission: Admission) -> Self {
        let (raft, published) = (handle.raft.clone(), handle.published.clone());
        let (contact, lease) = (handle.contact.clone(), handle.lease);
        let (words, specs) = (Arc::default(), Arc::default());
        Self { raft, published, contact, lease, snapshots, log, admission, words, specs }
    }

    /// Notes that the leader was heard, and what it says is agreed on.
    fn heard(&self, committed: u64) {
        self.contact.hear(Instant::now(), committed, self.published.view.load().index);
    }

    /// Returns the node that sends a message, if its certificate is a manager's; `None` where anyone may.
    fn sender<T>(&self, request: &Request<T>) -> Result<Option<Identity>, Status> {
        match &self.admission {
            Admission::Anyone => Ok(None),
            Admission::Members(_) => match Peer::of(request).and_then(|p| p.identity) {
                Some(identity) if identity.role == Role::Manager => {
                    self.is_of_the_swarm(&identity)?;
                    Ok(Some(identity))
                }
                Some(_) | None => Err(Status::permission_denied("only managers take part in Raft")),
            },
        }
    }

    /// Turns nodes away that were removed, whatever they have to say; and where the state is of now, those that do not take
    /// part (any more). Elsewhere they may have joined since: a member that is learning the state reads that its leader
    /// once was a worker, long before it reads that it is none.
    fn is_of_the_swarm(&self, identity: &Identity) -> Result<(), Status> {
        let view = self.published.view.load_full();
        let Some(cluster) = &view.cluster else { return Ok(()) };
        if cluster.id != identity.cluster || cluster.removed.iter().any(|r| r.node == identity.node) {
            return Err(Status::permission_denied("this node is not of this swarm (any more)"));
        }
        let Some(node) = view.nodes.get(&identity.node) else { return Ok(()) };
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let mut members = metrics.membership_config.membership().nodes();
        let is_of_now = metrics.state == ServerState::Leader
            || self.contact.is_caught_up(Instant::now(), self.lease, view.index);
        let may_take_part = !is_of_now
            || node.spec.role == Role::Manager
            || node.manager.is_some()
            || members.any(|(_, place)| place.node == Some(identity.node));
        if may_take_part { Ok(()) } else { Err(Status::permission_denied("this node is a manager no more")) }
    }

    /// Lets a message in that a node sends as the member of this vote.
    async fn admit(&self, identity: Option<Identity>, vote: &Vote) -> Result<(), Status> {
        let (Admission::Members(vouch), Some(identity)) = (&self.admission, identity) else {
            return self.reachable(vote);
        };
        let sender = vote.leader_id.voted_for;
        let view = self.published.view.load_full();
        if let Some(cluster) = &view.cluster
            && (cluster.id != identity.cluster || cluster.removed.iter().any(|r| r.node == identity.node))
        {
            return Err(Status::permission_denied("this node is not of this swarm (any more)"));
        }
        let not_a_member =
            || Status::permission_denied(format!("node {} is not Raft member {sender}", identity.node));
        match member_node(&self.raft, &self.published, sender) {
            Some(node) if node == identity.node => {}
            Some(_) => return Err(not_a_member()),
            None if self.is_vouched_for(vouch, identity.node, sender).await => {}
            None => return Err(not_a_member()),
        }
        self.reachable(vote)
    }

    /// Refuses terms that are out of the reach of elections.
    fn reachable(&self, vote: &Vote) -> Result<(), Status> {
        let term = vote.leader_id.term;
        let known = self.raft.server_metrics().borrow_watched().vote.leader_id.term;
        if term.saturating_sub(known) > TERM_JUMP_MAX {
            return Err(Status::invalid_argument(format!(
                "no election can have reached term {term}: it is {known} here"
            )));
        }
        Ok(())
    }

    async fn is_vouched_for(&self, vouch: &Vouch, node: NodeId, raft_id: u64) -> bool {
        let key = (node, raft_id);
        let word = self.words().get(&key).copied();
        if let Some((is, at)) = word
            && at.elapsed() < if is { VOUCHED_LASTS } else { REFUSED_LASTS }
        {
            return is;
        }
        // A node that tries one number after the other costs the others no more than one that has one.
        let refused = |((of, _), (is, at)): (&(NodeId, u64), &(bool, Instant))| {
            *of == node && !is && at.elapsed() < REFUSED_LASTS
        };
        if self.words().iter().any(refused) {
            return false;
        }
        let is = vouch(node, raft_id).await;
        let mut words = self.words();
        if words.len() >= WORDS_MAX {
            words.clear();
        }
        words.insert(key, (is, Instant::now()));
        is
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what is signed with this member's own number: nobody else speaks for it.
    fn by_another(&self, vote: &Vote, committed: bool) -> Result<(), Status> {
        if vote.leader_id.voted_for == *self.raft.node_id() {
            return Err(Status::invalid_argument("this member did not send that"));
        }
        if vote.committed != committed {
            let (is, must) =
                if committed { ("a candidate", "a leader") } else { ("a leader", "a candidate") };
            return Err(Status::invalid_argument(format!("{is} sent what only {must} sends")));
        }
        Ok(())
    }

    /// Refuses entries other than those that are agreed on already: no leader can have them.
    fn keep_what_is_agreed(&self, ids: impl IntoIterator<Item = LogId>) -> Result<(), Status> {
        let committed = self.raft.data_metrics().borrow_watched().local_committed;
        let agreed = |id: &LogId| committed.is_some_and(|c| id.index <= c.index && c != *id);
        for theirs in ids.into_iter().filter(agreed) {
            // What was purged is in a snapshot, without its term.
            let Some(here) = self.log.id_at(theirs.index).filter(|here| *here != theirs) else { continue };
            return Err(Status::failed_precondition(format!(
                "entry {theirs} contradicts entry {here}, which the managers agreed on"
            )));
        }
        Ok(())
    }

    /// Refuses a snapshot that ends at another entry than the one that was agreed on there.
    fn follows_what_is_agreed(&self, meta: &SnapshotMeta) -> Result<(), Status> {
        let committed = self.raft.data_metrics().borrow_watched().local_committed;
        match (meta.last_log_id, committed) {
            (Some(last), Some(here)) if last > here && last.index <= here.index => {
                Err(Status::failed_precondition(format!(
                    "a snapshot that ends at entry {last} contradicts entry {here}, which the managers agreed on"
                )))
            }
            (Some(last), _) if meta.last_membership.log_id().is_some_and(|at| at > last) => {
                Err(Status::invalid_argument(format!(
                    "a snapshot that ends at entry {last} has members of later"
                )))
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn is_me(&self, target: u64) -> Result<(), Status> {
        let me = *self.raft.node_id();
        if target == me {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("this is Raft member {me}, not {target}")))
    }
}

/// No log gets so long: a million entries a second take 146,000 years.
const INDEX_MAX: u64 = 1 << 62;

/// Refuses places in the log that are of later terms than the sender's own, or that no log has.
fn not_ahead<'a>(vote: &Vote, ids: impl IntoIterator<Item = &'a wire::LogId>) -> Result<(), Status> {
    let term = vote.leader_id.term;
    match ids.into_iter().find(|id| id.term > term || id.index > INDEX_MAX) {
        None => Ok(()),
        Some(id) => Err(Status::invalid_argument(format!(
            "entry {} of term {} in a message of term {term}: there can be none",
            id.index, id.term
        ))),
    }
}

/// Refuses entries that do not follow each other, and the one that they are to follow.
fn consecutive(previous: Option<&LogId>, entries: &[Entry]) -> Result<(), Status> {
    let mut last = previous.copied();
    for entry in entries {
        let (id, next) = (entry.log_id, last.map_or(0, |last| last.index + 1));
        if id.index != next || last.is_some_and(|last| last.committed_leader_id() > id.committed_leader_id())
        {
            return Err(Status::invalid_argument(format!("entry {id} cannot follow entry {last:?}")));
        }
        last = Some(id);
    }
    Ok(())
}

fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(format!("cannot understand the message: {error}"))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("Raft has stopped here: {error}"))
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendReply>, Status> {
        use wire::append_reply::Result as Reply;
        let sender = self.sender(&request)?;
        let request = request.into_inner();
        let vote = required_vote(request.vote).map_err(malformed)?;
        self.admit(sender, &vote).await?;
        self.is_me(request.target)?;
        self.by_another(&vote, true)?;
        let places = request.entries.iter().filter_map(|e| e.id.as_ref());
        not_ahead(&vote, places.chain(&request.previous).chain(&request.committed))?;
        let entries: Vec<Entry> = {
            let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
            let decoded = request.entries.into_iter().map(|entry| entry_from_wire(entry, &mut specs));
            decoded.collect::<Result<_, _>>().map_err(malformed)?
        };
        let previous = request.previous.map(log_id_from_wire);
        consecutive(previous.as_ref(), &entries)?;
        self.keep_what_is_agreed(previous.into_iter().chain(entries.iter().map(|e| e.log_id)))?;
        let committed = request.committed.map_or(0, |id| id.index);
        let request = AppendEntriesRequest {
            vote,
            prev_log_id: previous,
            entries,
            leader_commit: request.committed.map(log_id_from_wire),
        };
        let result = match self.raft.append_entries(request).await.map_err(stopped)? {
            AppendEntriesResponse::Success => Reply::Matched(true),
            AppendEntriesResponse::PartialSuccess(Some(id)) => Reply::Partly(log_id_to_wire(&id)),
            AppendEntriesResponse::PartialSuccess(None) | AppendEntriesResponse::Conflict => {
                Reply::Conflict(true)
            }
            AppendEntriesResponse::HigherVote(vote) => Reply::HigherVote(vote_to_wire(&vote)),
        };
        if !matches!(result, Reply::HigherVote(_)) {
            self.heard(committed);
        }
        Ok(Response::new(wire::AppendReply { result: Some(result) }))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteReply>, Status> {
        let sender = self.sender(&request)?;
        let request = request.into_inner();
        let vote = required_vote(request.vote).map_err(malformed)?;
        self.admit(sender, &vote).await?;
        self.is_me(request.target)?;
        self.by_another(&vote, false)?;
        not_ahead(&vote, &request.last)?;
        let mut vote = VoteRequest::new(vote, request.last.map(log_id_from_wire));
        vote.leadership_transfer = request.leadership_transfer;
        let reply =
            if request.pre_vote { self.raft.pre_vote(vote).await } else { self.raft.vote(vote).await };
        let reply = reply.map_err(stopped)?;
        Ok(Response::new(wire::VoteReply {
            vote: Some(vote_to_wire(&reply.vote)),
            granted: reply.vote_granted,
            last: reply.last_log_id.as_ref().map(log_id_to_wire),
        }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        let sender = self.sender(&request)?;
        let mut chunks = request.into_inner();
        let Some(Chunk::Head(head)) = next_chunk(&mut chunks).await? else {
            return Err(Status::invalid_argument("a snapshot must begin with its head"));
        };
        let vote = required_vote(head.vote).map_err(malformed)?;
        self.admit(sender, &vote).await?;
        self.is_me(head.target)?;
        self.by_another(&vote, true)?;
        not_ahead(&vote, head.meta.iter().flat_map(|m| m.last.iter().chain(&m.membership_at)))?;
        let meta = meta_from_wire(head.meta.ok_or_else(|| malformed(DecodeError::Missing("meta")))?);
        let meta = meta.map_err(malformed)?;
        self.follows_what_is_agreed(&meta)?;
        let mut builder = Builder::default();
        let mut announced = None;
        let mut received = 0_u64;
        let mut pending = Vec::new();
        while let Some(chunk) = next_chunk(&mut chunks).await? {
            let Chunk::Data(bytes) = chunk else {
                return Err(Status::invalid_argument("a snapshot has one head"));
            };
            // Packed it takes less: a disk that has room for this has room for it.
            received += bytes.len() as u64;
            self.snapshots.admit(received).map_err(|e| Status::resource_exhausted(e.to_string()))?;
            pending.extend(bytes);
            take_objects(&mut pending, &mut announced, &mut builder)?;
        }
        if announced != Some(builder.objects) || !pending.is_empty() {
            return Err(Status::data_loss("the snapshot ended early"));
        }
        // Agreed on meanwhile: openraft takes a contradiction for the end of the world.
        self.follows_what_is_agreed(&meta)?;
        let snapshot = Arc::new(builder.finish(&meta));
        let snapshot = SnapshotOf::<TypeConfig, _> { meta, snapshot };
        let reply = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        if reply.vote == vote {
            self.heard(0);
        }
        Ok(Response::new(wire::SnapshotReply { vote: Some(vote_to_wire(&reply.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderReply>, Status> {
        let sender = self.sender(&request)?;
        let request = request.into_inner();
        let from = required_vote(request.from).map_err(malformed)?;
        self.admit(sender, &from).await?;
        self.is_me(request.target)?;
        self.by_another(&from, true)?;
        not_ahead(&from, &request.last)?;
        let to = if request.to == 0 { request.target } else { request.to };
        let request = TransferLeaderRequest::new(from, to, request.last.map(log_id_from_wire));
        let outcome = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        let refusal = outcome.err().map(|e| e.to_string()).unwrap_or_default();
        Ok(Response::new(wire::TransferLeaderReply { refusal }))
    }
}

async fn next_chunk(chunks: &mut Streaming<wire::SnapshotChunk>) -> Result<Option<Chunk>, Status> {
    let next = timeout(CHUNK_DEADLINE, chunks.message()).await;
    let next =
        next.map_err(|_| Status::deadline_exceeded("the next chunk of the snapshot did not come"))??;
    next.map(|c| c.chunk.ok_or_else(|| malformed(DecodeError::Missing("chunk")))).transpose()
}

/// Takes the complete records at the front of `pending`: first the number of objects, then each of them.
fn take_objects(
    pending: &mut Vec<u8>,
    announced: &mut Option<u64>,
    builder: &mut Builder,
) -> Result<(), Status> {
    let mut rest = pending.as_slice();
    if announced.is_none() {
        let Some((count, behind)) = rest.split_first_chunk::<8>() else { return Ok(()) };
        *announced = Some(u64::from_le_bytes(*count));
        rest = behind;
    }
    loop {
        let mut body = rest;
        // A delimiter of up to ten bytes may be cut in two by the chunks.
        let Ok(len) = prost::decode_length_delimiter(&mut body) else { break };
        let Some((object, behind)) = body.split_at_checked(len) else { break };
        let object = types::Object::decode(object).map_err(|e| malformed(e.into()))?;
        builder.add(object).map_err(malformed)?;
        rest = behind;
    }
    let taken = pending.len() - rest.len();
    pending.drain(..taken);
    Ok(())
}
