//! Raft messages in from the other members.

use crate::{
    handle::member_node,
    machine::{Machine, Published},
    network::TERM_JUMP_MAX,
    snapshot::Builder,
    types::{
        DecodeError, TypeConfig, Vote, entry_from_wire, log_id_from_wire, log_id_to_wire, meta_from_wire,
        required_vote, vote_to_wire,
    },
};
use futures::future::BoxFuture;
use model::{Duration, NodeId, Role};
use openraft::{
    Raft,
    alias::SnapshotOf,
    async_runtime::watch::WatchReceiver as _,
    raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest},
};
use pki::{Identity, tls::Peer};
use prost::Message as _;
use proto::{
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
    admission: Admission,
    /// What others said of members that are not known here.
    words: Arc<Mutex<Words>>,
}

impl RaftService {
    pub(crate) fn new(
        raft: Raft<TypeConfig, Machine>,
        published: Arc<Published>,
        admission: Admission,
    ) -> Self {
        Self { raft, published, admission, words: Arc::default() }
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

    /// Turns nodes away that the state here knows not to take part (any more), whatever they have to say. Those that it
    /// does not know may have joined while this member was away.
    fn is_of_the_swarm(&self, identity: &Identity) -> Result<(), Status> {
        let view = self.published.view.load_full();
        let Some(cluster) = &view.cluster else { return Ok(()) };
        if cluster.id != identity.cluster || cluster.removed.iter().any(|r| r.node == identity.node) {
            return Err(Status::permission_denied("this node is not of this swarm (any more)"));
        }
        let Some(node) = view.nodes.get(&identity.node) else { return Ok(()) };
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let mut members = metrics.membership_config.membership().nodes();
        let takes_part = node.spec.role == Role::Manager
            || node.manager.is_some()
            || members.any(|(_, place)| place.node == Some(identity.node));
        if takes_part { Ok(()) } else { Err(Status::permission_denied("this node is a manager no more")) }
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

    fn is_me(&self, target: u64) -> Result<(), Status> {
        let me = *self.raft.node_id();
        if target == me {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("this is Raft member {me}, not {target}")))
    }
}

/// Refuses places in the log that are of later terms than the sender's own.
fn not_ahead<'a>(vote: &Vote, ids: impl IntoIterator<Item = &'a wire::LogId>) -> Result<(), Status> {
    let term = vote.leader_id.term;
    match ids.into_iter().find(|id| id.term > term) {
        None => Ok(()),
        Some(id) => {
            Err(Status::invalid_argument(format!("an entry of term {} in a message of term {term}", id.term)))
        }
    }
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
        let places = request.entries.iter().filter_map(|e| e.id.as_ref());
        not_ahead(&vote, places.chain(&request.previous).chain(&request.committed))?;
        let entries =
            request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>().map_err(malformed)?;
        let request = AppendEntriesRequest {
            vote,
            prev_log_id: request.previous.map(log_id_from_wire),
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
        Ok(Response::new(wire::AppendReply { result: Some(result) }))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteReply>, Status> {
        let sender = self.sender(&request)?;
        let request = request.into_inner();
        let vote = required_vote(request.vote).map_err(malformed)?;
        self.admit(sender, &vote).await?;
        self.is_me(request.target)?;
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
        not_ahead(&vote, head.meta.iter().flat_map(|m| m.last.iter().chain(&m.membership_at)))?;
        let meta = meta_from_wire(head.meta.ok_or_else(|| malformed(DecodeError::Missing("meta")))?);
        let meta = meta.map_err(malformed)?;
        let mut builder = Builder::default();
        let mut announced = None;
        let mut pending = Vec::new();
        while let Some(chunk) = next_chunk(&mut chunks).await? {
            let Chunk::Data(bytes) = chunk else {
                return Err(Status::invalid_argument("a snapshot has one head"));
            };
            pending.extend(bytes);
            take_objects(&mut pending, &mut announced, &mut builder)?;
        }
        if announced != Some(builder.objects) || !pending.is_empty() {
            return Err(Status::data_loss("the snapshot ended early"));
        }
        let snapshot = Arc::new(builder.finish(&meta));
        let snapshot = SnapshotOf::<TypeConfig, _> { meta, snapshot };
        let reply = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
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
