//! The one serialized form of rswarm: generated from `proto/`, used between nodes, in the Raft log and in
//! snapshots; and the conversions to and from `model`.
//!
//! Invariants: converting to `model` refuses what it does not understand (an unknown enum value, a malformed id)
//! instead of guessing; `model -> proto -> model` is the identity.

/// Generated messages and services; `protogen` holds them to what `proto/` says.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    reason = "generated code: which of these fire depends on the generator's version"
)]
#[rustfmt::skip]
mod generated;
pub use generated::rswarm::{
    ca::v1 as ca, control::v1 as control, dispatcher::v1 as dispatcher, node::v1 as node, raft::v1 as raft,
    types::v1 as types,
};

/// The builder's side of docker's buildx, on the wire as BuildKit has it.
pub mod buildkit {
    pub use super::generated::{
        fsutil::types as files,
        google::rpc,
        moby::{
            buildkit::{
                secrets::v1 as secrets,
                v1::{self as control, apicaps, frontend as gateway, types},
            },
            filesync::v1 as filesync,
            sshforward::v1 as ssh,
            upload::v1 as upload,
        },
        pb as ops,
    };
}

/// *Limit* of one message of an agent to its manager; what it has to say goes into several. *Unit:* bytes.
pub const AGENT_MESSAGE_BYTES_MAX: usize = 4 << 20;

mod claim;
mod convert;
pub use claim::{CALLER_KEY, PERSON_KEY, PersonalClaim};
pub use convert::{Invalid, Problem, SpecCache, WireId};

/// Returns the bytes of a message, for edges that carry them in something else than gRPC.
pub fn encoded(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}
