//! Raft messages in from the other members.

use crate::{
    machine::Machine,
    snapshot::Builder,
    types::{
        DecodeError, TypeConfig, entry_from_wire, log_id_from_wire, log_id_to_wire, meta_from_wire,
        required_vote, vote_to_wire,
    },
};
use model::{Duration, Role};
use openraft::{
    Raft,
    alias::SnapshotOf,
    raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest},
};
use prost::Message as _;
use proto::{
    raft::{self as wire, raft_server, snapshot_chunk::Chunk},
    types,
};
use std::sync::Arc;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

/// A snapshot whose next chunk takes longer is given up.
const CHUNK_DEADLINE: Duration = Duration::from_secs(30);

/// Serves `rswarm.raft.v1.Raft`. Over TLS only managers are answered.
#[derive(Debug, Clone)]
pub struct RaftService {
    pub(crate) raft: Raft<TypeConfig, Machine>,
}

impl RaftService {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match pki::tls::Peer::of(request) {
            // Not through our TLS listener: a test, or a socket nobody else reaches.
            None => Ok(()),
            Some(peer) => match peer.identity {
                Some(identity) if identity.role == Role::Manager => Ok(()),
                _ => Err(Status::permission_denied("only managers take part in Raft")),
            },
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
        self.admit(&request)?;
        let request = request.into_inner();
        self.is_me(request.target)?;
        let entries =
            request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>().map_err(malformed)?;
        let request = AppendEntriesRequest {
            vote: required_vote(request.vote).map_err(malformed)?,
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
        self.admit(&request)?;
        let request = request.into_inner();
        self.is_me(request.target)?;
        let mut vote = VoteRequest::new(
            required_vote(request.vote).map_err(malformed)?,
            request.last.map(log_id_from_wire),
        );
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
        self.admit(&request)?;
        let mut chunks = request.into_inner();
        let Some(Chunk::Head(head)) = next_chunk(&mut chunks).await? else {
            return Err(Status::invalid_argument("a snapshot must begin with its head"));
        };
        self.is_me(head.target)?;
        let vote = required_vote(head.vote).map_err(malformed)?;
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
        self.admit(&request)?;
        let request = request.into_inner();
        self.is_me(request.target)?;
        let from = required_vote(request.from).map_err(malformed)?;
        let request = TransferLeaderRequest::new(from, request.target, request.last.map(log_id_from_wire));
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
