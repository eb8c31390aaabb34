//! Raft messages out to the other members.

use crate::types::{
    Entry, LogId, Place, TypeConfig, Vote, entry_bytes, entry_to_wire, log_id_from_wire, log_id_to_wire,
    meta_to_wire, required_vote, vote_from_wire, vote_to_wire,
};
use futures::future::BoxFuture;
use model::{Duration, NodeId, Tables};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    alias::SnapshotOf,
    error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use prost::Message as _;
use proto::{
    raft::{self as wire, raft_client::RaftClient, snapshot_chunk::Chunk},
    types,
};
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Greatest message. *Unit:* bytes.
pub(crate) const MESSAGE_LIMIT: usize = 16 << 20;
/// One append has entries up to this much. *Unit:* bytes.
const APPEND_LIMIT: usize = 4 << 20;
/// One chunk of a snapshot. *Unit:* bytes.
const CHUNK: usize = 1 << 20;
/// How far a term may be ahead of the one known here. With an election each second it takes half a year to get so far;
/// with pre-votes, a term is used up only by an election that a majority wants.
pub(crate) const TERM_JUMP_MAX: u64 = 1 << 24;
const APPEND_DEADLINE: Duration = Duration::from_secs(2);
const VOTE_DEADLINE: Duration = Duration::from_secs(1);
/// Between two chunks of a snapshot, and for installing it.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// A failure to reach a member.
pub type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// Opens a connection to a member: to the node it is, or to any manager where that is not known, and its address. Made
/// by `node`, which knows TLS.
pub trait Connect: Send + Sync + 'static {
    fn connect(
        &self,
        node: Option<NodeId>,
        addr: SocketAddr,
    ) -> BoxFuture<'static, Result<Channel, ConnectError>>;
}

impl<F, Fut> Connect for F
where
    F: Fn(Option<NodeId>, SocketAddr) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Channel, ConnectError>> + Send + 'static,
{
    fn connect(
        &self,
        node: Option<NodeId>,
        addr: SocketAddr,
    ) -> BoxFuture<'static, Result<Channel, ConnectError>> {
        Box::pin(self(node, addr))
    }
}

/// What a connection is for: each has its own, so that a snapshot delays no heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Entries,
    Heartbeats,
    Snapshots,
}

/// Returns where a member is by the newest membership; set once there is one.
pub(crate) type Places = Arc<OnceLock<Box<dyn Fn(u64) -> Option<Place> + Send + Sync>>>;

/// Keeps the connections to all members.
pub(crate) struct Network {
    connect: Arc<dyn Connect>,
    places: Places,
    links: Mutex<BTreeMap<(u64, Purpose), Arc<Link>>>,
    acknowledged: Arc<Acknowledged>,
}

/// Up to where each member said that it has the log of the leader that this member is, by term.
#[derive(Default)]
struct Acknowledged(Mutex<BTreeMap<u64, Ack>>);

#[derive(Clone, Copy)]
struct Ack {
    term: u64,
    index: u64,
    /// That it has lost some of it was told.
    lost: bool,
}

impl Acknowledged {
    fn note(&self, raft_id: u64, term: u64, index: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(raft_id).or_insert(Ack { term, index, lost: false });
        if known.term != term {
            *known = Ack { term, index, lost: false };
        }
        known.index = known.index.max(index);
    }

    /// Returns an error if a member denies to have an entry that it has acknowledged.
    fn deny(&self, raft_id: u64, term: u64, index: u64) -> Result<(), NetworkError<TypeConfig>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = all.get_mut(&raft_id).filter(|ack| ack.term == term && ack.index >= index) else {
            return Ok(());
        };
        let text = format!(
            "member {raft_id} has lost entry {index}, which it had acknowledged; hint: demote that manager and \
             promote it again: it begins anew then"
        );
        if !std::mem::replace(&mut known.lost, true) {
            tracing::error!(raft.target = raft_id, raft.index = index, "{text}");
        }
        Err(NetworkError::from_string(text))
    }
}

struct Link {
    raft_id: u64,
    /// Where it was when openraft began to send to it. It goes on with the same link when that changes.
    place: Place,
    places: Places,
    connect: Arc<dyn Connect>,
    acknowledged: Arc<Acknowledged>,
    channel: tokio::sync::Mutex<Option<Channel>>,
}

/// A member as openraft reaches it.
pub(crate) struct Peer(Arc<Link>);

impl Network {
    pub(crate) fn new(connect: Arc<dyn Connect>, places: Places) -> Self {
        Self { connect, places, links: Mutex::default(), acknowledged: Arc::default() }
    }

    fn link(&self, raft_id: u64, place: &Place, purpose: Purpose) -> Peer {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let channel = tokio::sync::Mutex::default();
            let (place, places, connect) = (place.clone(), self.places.clone(), self.connect.clone());
            let acknowledged = self.acknowledged.clone();
            Arc::new(Link { raft_id, place, places, connect, acknowledged, channel })
        };
        let link = links.entry((raft_id, purpose)).or_insert_with(fresh);
        if link.place != *place {
            *link = fresh();
        }
        Peer(link.clone())
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, place: &Place) -> Peer {
        self.link(target, place, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, place: &Place) -> Peer {
        self.link(target, place, Purpose::Heartbeats)
    }

    async fn new_snapshot_client(&mut self, target: u64, place: &Place) -> Peer {
        self.link(target, place, Purpose::Snapshots)
    }
}

impl Link {
    async fn client(&self) -> Result<RaftClient<Channel>, Unreachable<TypeConfig>> {
        let mut channel = self.channel.lock().await;
        let channel = match &*channel {
            Some(channel) => channel.clone(),
            None => {
                let now = self.places.get().and_then(|place_of| place_of(self.raft_id));
                let place = now.as_ref().unwrap_or(&self.place);
                let addr = place.addr.parse().map_err(|e| Unreachable::new(&e))?;
                let fresh = self.connect.connect(place.node, addr).await;
                let fresh = fresh.map_err(|e| Unreachable::from_string(e.to_string()))?;
                channel.insert(fresh).clone()
            }
        };
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT))
    }

    /// Runs one call within `deadline`, dialling included. A connection that failed is not used again.
    async fn call<T, Fut>(
        &self,
        deadline: Duration,
        call: impl FnOnce(RaftClient<Channel>) -> Fut,
    ) -> Result<T, RPCError<TypeConfig>>
    where
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let outcome = timeout(deadline, async {
            let client = self.client().await?;
            Ok::<_, Unreachable<TypeConfig>>(call(client).await)
        });
        let status = match outcome.await {
            Ok(Ok(Ok(reply))) => return Ok(reply.into_inner()),
            Ok(Ok(Err(status))) => status,
            Ok(Err(unreachable)) => return Err(unreachable.into()),
            Err(_) => tonic::Status::deadline_exceeded(format!("member {} did not answer", self.raft_id)),
        };
        if matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled) {
            *self.channel.lock().await = None;
            return Err(Unreachable::new(&status).into());
        }
        Err(NetworkError::new(&status).into())
    }
}

fn malformed(error: impl std::error::Error + 'static) -> RPCError<TypeConfig> {
    NetworkError::new(&error).into()
}

/// Returns a vote that a member answered with, unless no election could have reached its term.
fn believable(told: Vote, asked: &Vote) -> Result<Vote, NetworkError<TypeConfig>> {
    let (told_term, ours) = (told.leader_id.term, asked.leader_id.term);
    if told_term.saturating_sub(ours) > TERM_JUMP_MAX {
        let text =
            format!("the member says that its term is {told_term}, ours is {ours}: no election went so far");
        return Err(NetworkError::from_string(text));
    }
    Ok(told)
}

/// Returns how many entries fit in one message, at least one.
fn fitting(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fit = entries.iter().take_while(|entry| {
        bytes += entry_bytes(entry);
        bytes <= APPEND_LIMIT
    });
    fit.count().max(1).min(entries.len())
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Arc<Tables>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        use wire::append_reply::Result as Reply;
        let sent = &rpc.entries[..fitting(&rpc.entries)];
        let cut: Option<LogId> =
            if sent.len() < rpc.entries.len() { sent.last().map(|e| e.log_id) } else { None };
        let request = wire::AppendRequest {
            target: self.0.raft_id,
            vote: Some(vote_to_wire(&rpc.vote)),
            previous: rpc.prev_log_id.as_ref().map(log_id_to_wire),
            entries: sent.iter().map(entry_to_wire).collect(),
            committed: rpc.leader_commit.as_ref().map(log_id_to_wire),
        };
        let reply = self.0.call(APPEND_DEADLINE, |mut c| async move { c.append(request).await }).await?;
        let (raft_id, term) = (self.0.raft_id, rpc.vote.leader_id.term);
        let has = |id: Option<LogId>| {
            id.iter().for_each(|id| self.0.acknowledged.note(raft_id, term, id.index));
        };
        Ok(match reply.result {
            Some(Reply::Matched(_)) => {
                has(sent.last().map(|e| e.log_id).or(rpc.prev_log_id));
                match cut {
                    Some(last) => AppendEntriesResponse::PartialSuccess(Some(last)),
                    None => AppendEntriesResponse::Success,
                }
            }
            Some(Reply::Partly(id)) => {
                let id = log_id_from_wire(id);
                if rpc.prev_log_id != Some(id) && !sent.iter().any(|entry| entry.log_id == id) {
                    let text = format!("member {raft_id} says that it has entry {id}, which was not sent");
                    return Err(NetworkError::from_string(text).into());
                }
                has(Some(id));
                AppendEntriesResponse::PartialSuccess(Some(id))
            }
            Some(Reply::Conflict(_)) => {
                let Some(previous) = rpc.prev_log_id else {
                    let text = format!("member {raft_id} refuses the beginning of the log");
                    return Err(NetworkError::from_string(text).into());
                };
                self.0.acknowledged.deny(raft_id, term, previous.index)?;
                AppendEntriesResponse::Conflict
            }
            Some(Reply::HigherVote(vote)) => {
                AppendEntriesResponse::HigherVote(believable(vote_from_wire(vote), &rpc.vote)?)
            }
            None => return Err(malformed(crate::types::DecodeError::Missing("result"))),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(rpc, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(rpc, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Arc<Tables>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let head = wire::SnapshotOffer {
            target: self.0.raft_id,
            vote: Some(vote_to_wire(&vote)),
            meta: Some(meta_to_wire(&snapshot.meta)),
        };
        let (send, chunks) = mpsc::channel(4);
        let produce = send_chunks(head, snapshot.snapshot, send);
        let call = self
            .0
            .call(SNAPSHOT_DEADLINE, |mut c| async move { c.snapshot(ReceiverStream::new(chunks)).await });
        let transfer = async { tokio::join!(produce, call).1 };
        let reply = tokio::select! {
            closed = cancel => return Err(closed.into()),
            reply = transfer => reply?,
        };
        let told = required_vote(reply.vote).map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
        Ok(SnapshotResponse::new(believable(told, &vote)?))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = wire::TransferLeaderRequest {
            target: self.0.raft_id,
            from: Some(vote_to_wire(req.from_leader())),
            last: req.last_log_id().map(log_id_to_wire),
            to: *req.to_node_id(),
        };
        let reply =
            self.0.call(VOTE_DEADLINE, |mut c| async move { c.transfer_leader(request).await }).await?;
        if reply.refusal.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!(raft.target = self.0.raft_id, reason = reply.refusal, "leadership was not taken over");
        let expected = req.last_log_id().copied();
        Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual: None }))
    }
}

impl Peer {
    async fn ask_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = wire::VoteRequest {
            target: self.0.raft_id,
            vote: Some(vote_to_wire(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(log_id_to_wire),
            leadership_transfer: rpc.leadership_transfer,
            pre_vote,
        };
        let reply = self.0.call(VOTE_DEADLINE, |mut c| async move { c.vote(request).await }).await?;
        let vote = believable(required_vote(reply.vote).map_err(malformed)?, &rpc.vote)?;
        Ok(VoteResponse::new(vote, reply.last.map(log_id_from_wire), reply.granted))
    }
}

/// Streams a state: the head, then length-delimited objects in chunks. Ends early when the receiver is gone.
async fn send_chunks(
    head: wire::SnapshotOffer,
    tables: Arc<Tables>,
    send: mpsc::Sender<wire::SnapshotChunk>,
) {
    let chunk = |chunk| wire::SnapshotChunk { chunk: Some(chunk) };
    let mut bytes = (tables.objects().count() as u64).to_le_bytes().to_vec();
    if send.send(chunk(Chunk::Head(head))).await.is_err() {
        return;
    }
    let mut objects = tables.objects();
    loop {
        let object = objects.next();
        if let Some(object) = &object {
            bytes.extend(types::Object::from(object).encode_length_delimited_to_vec());
        }
        if bytes.len() >= CHUNK || object.is_none() {
            // Messages stay below the limit even if one object is large.
            for part in bytes.chunks(CHUNK) {
                if send.send(chunk(Chunk::Data(part.to_vec()))).await.is_err() {
                    return;
                }
            }
            bytes.clear();
        }
        if object.is_none() {
            return;
        }
    }
}
