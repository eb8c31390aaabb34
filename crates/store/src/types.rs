//! What openraft is instantiated with, and the translation of its types to and from `raft.proto`.

use model::{Batch, Change, Conflict, Event, NodeId};
use openraft::{EntryPayload, alias};
use prost::Message as _;
use proto::{SpecCache, WireId as _, raft as wire, types};
use std::{collections::BTreeSet, fmt, net::SocketAddr, sync::Arc};

/// Batches that share one log entry. Cloning shares; the encoded form is made once.
#[derive(Clone)]
pub(crate) struct Command {
    pub(crate) batches: Arc<[Batch]>,
    /// A prost `Command`.
    pub(crate) encoded: Arc<[u8]>,
}

impl Command {
    /// Returns the command of batches and their messages.
    pub(crate) fn new(batches: impl Iterator<Item = (Batch, types::Batch)>) -> Self {
        let (batches, messages): (Vec<_>, Vec<_>) = batches.unzip();
        let message = wire::Command { batches: messages };
        Self { batches: batches.into(), encoded: message.encode_to_vec().into() }
    }

    /// `specs`: what tasks decoded before refer to, so that this one's do not bring a copy each.
    fn decode(encoded: Vec<u8>, specs: &mut SpecCache) -> Result<Self, DecodeError> {
        let message = wire::Command::decode(encoded.as_slice())?;
        let mut batches = message.batches.into_iter().map(Batch::try_from).collect::<Result<Vec<_>, _>>()?;
        for change in batches.iter_mut().flat_map(|b| &mut b.changes) {
            if let Change::Put(object) = change {
                specs.share(object);
            }
        }
        Ok(Self { batches: batches.into(), encoded: encoded.into() })
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} batches, {} bytes)", self.batches.len(), self.encoded.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a member is, and which node it is: nobody else takes part under its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) addr: String,
    /// `None`: from a log written before members were bound to nodes.
    pub(crate) node: Option<NodeId>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addr)
    }
}

/// What each batch of a command did. Empty for entries without a command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply(pub(crate) Vec<Result<Vec<Event>, Conflict>>);

openraft::declare_raft_types!(
    /// The types of the one Raft group.
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        Node = Place,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = crate::supervise::Supervised,
);

pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Place>;

/// A message that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("not a valid message")]
    Prost(#[from] prost::DecodeError),
    #[error("not a valid object")]
    Object(#[from] proto::Invalid),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("the membership is not consistent: {0}")]
    Membership(String),
    #[error("two objects claim the same thing")]
    Conflict(#[source] Conflict),
}

impl From<DecodeError> for std::io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(crate) fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId { term: **id.committed_leader_id(), index: id.index }
}

pub(crate) fn log_id_from_wire(id: wire::LogId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote_from_wire(vote: wire::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.voted_for)
    } else {
        Vote::new(vote.term, vote.voted_for)
    }
}

/// Reads a vote a message must have.
pub(crate) fn required_vote(vote: Option<wire::Vote>) -> Result<Vote, DecodeError> {
    vote.map(vote_from_wire).ok_or(DecodeError::Missing("vote"))
}

pub(crate) fn membership_to_wire(membership: &Membership) -> wire::Membership {
    wire::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| wire::Voters { raft_ids: voters.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, place)| wire::Member {
                raft_id: *id,
                addr: place.addr.clone(),
                node: place.node.map(|n| n.to_wire()).unwrap_or_default(),
            })
            .collect(),
    }
}

pub(crate) fn membership_from_wire(membership: wire::Membership) -> Result<Membership, DecodeError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|c| c.raft_ids.into_iter().collect()).collect();
    let place = |m: wire::Member| {
        let node = if m.node.is_empty() { None } else { Some(NodeId::from_wire(&m.node)?) };
        Ok((m.raft_id, Place { addr: m.addr, node }))
    };
    let nodes = membership.members.into_iter().map(place);
    let nodes: std::collections::BTreeMap<u64, Place> = nodes.collect::<Result<_, DecodeError>>()?;
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|e| DecodeError::Membership(e.to_string()))
}

pub(crate) fn entry_to_wire(entry: &Entry) -> wire::Entry {
    use wire::entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(true),
        EntryPayload::Normal(command) => Payload::Command(command.encoded.to_vec()),
        EntryPayload::Membership(m) => Payload::Membership(membership_to_wire(m)),
    };
    wire::Entry { id: Some(log_id_to_wire(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry_from_wire(entry: wire::Entry, specs: &mut SpecCache) -> Result<Entry, DecodeError> {
    use wire::entry::Payload;
    let payload = match entry.payload.ok_or(DecodeError::Missing("entry payload"))? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(encoded) => EntryPayload::Normal(Command::decode(encoded, specs)?),
        Payload::Membership(m) => EntryPayload::Membership(membership_from_wire(m)?),
    };
    Ok(Entry { log_id: log_id_from_wire(entry.id.ok_or(DecodeError::Missing("entry id"))?), payload })
}

/// Returns about how many bytes an entry takes on the wire and on disk.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Blank => 32,
        EntryPayload::Normal(command) => command.encoded.len() + 32,
        EntryPayload::Membership(m) => 32 + m.nodes().count() * 64,
    }
}

/// Returns about how much memory an entry holds with all that it says. *Unit:* bytes. What is decoded takes more than
/// its encoded form: a struct has room for what is not said, and each small text is an allocation.
pub(crate) fn entry_memory(entry: &Entry) -> usize {
    const ENTRY: usize = 256;
    const CHANGE: usize = 1024;
    const DECODED: usize = 3;
    match &entry.payload {
        EntryPayload::Blank => ENTRY,
        EntryPayload::Normal(command) => {
            let changes: usize = command.batches.iter().map(|batch| batch.changes.len()).sum();
            ENTRY + command.encoded.len() * (1 + DECODED) + changes * CHANGE
        }
        EntryPayload::Membership(m) => ENTRY + m.nodes().count() * ENTRY,
    }
}

pub(crate) fn meta_to_wire(meta: &SnapshotMeta) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id_to_wire),
        membership_at: meta.last_membership.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(meta.last_membership.membership())),
    }
}

pub(crate) fn meta_from_wire(meta: wire::SnapshotMeta) -> Result<SnapshotMeta, DecodeError> {
    let membership = membership_from_wire(meta.membership.ok_or(DecodeError::Missing("membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last.map(log_id_from_wire),
        last_membership: StoredMembership::new(meta.membership_at.map(log_id_from_wire), membership),
    })
}

/// Returns a member's address.
pub(crate) fn addr_of(place: &Place) -> Option<SocketAddr> {
    place.addr.parse().ok()
}
