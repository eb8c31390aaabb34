//! The nouns of rswarm: what a service, task, node, network, secret, config, stack and user *are*.
//!
//! Every other room speaks in these types; none of them can be serialized here (the wire and disk form is
//! `proto`'s, the Docker JSON form is `docker-api`'s), so an inner type is never a promise to someone outside.
//!
//! ```text
//!  spec      what a person asked for           written by control only
//!  desired   what the plan wants of one task   written by plan only
//!  placement where the plan has put it         written by plan only
//!  observed  what the node's agent reports     written by dispatcher only
//! ```
//!
//! Invariants: no I/O, no clock, no randomness, no serde, no tokio. Iteration order of every collection is
//! defined (ordered maps only), because managers must compute the same result from the same state.
//!
//! *Start reading at* [`Task`], then [`cluster::Tables::apply`].

pub mod cluster;
pub mod confine;
pub mod container;
pub mod error;
pub mod id;
pub mod network;
pub mod node;
pub mod person;
pub mod places;
pub mod resource;
pub mod restart;
pub mod service;
pub mod swarm;
pub mod sysctl;
pub mod table;
pub mod task;
pub mod time;
pub mod timings;
pub mod user;

pub use cluster::{
    Batch, Change, Conflict, Event, INTEGRITY_LEVEL, Object, ObjectRef, POOLS_LEVEL, Subnets, Tables, Taken,
};
pub use container::*;
pub use error::{Panicked, caught, with_causes};
pub use id::*;
pub use network::*;
pub use node::*;
pub use person::{Person, PersonRole};
pub use places::{PlaceLimits, Places, Ticket};
pub use resource::{GenericRequests, GenericResources, Supply, Want};
pub use restart::ContainerRestart;
pub use service::*;
pub use swarm::*;
pub use sysctl::{OwnNamespaces, SysctlError, sysctl_path};
pub use task::*;
pub use time::{Duration, Timestamp};
pub use timings::{Timing, Timings};
pub use user::*;

/// User labels. Source: compose `labels`, Docker API `Labels`.
pub type Labels = std::collections::BTreeMap<String, String>;

/// The label by which objects belong to a stack. Source: docker CLI `cli/compose/convert`, `LabelNamespace`.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";

/// Where an object stands in the replicated log and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Raft index of the last change to this object; an update must name it. 0 = not stored yet.
    pub version: u64,
    /// Raft index at which it was made: what is older is told by this, never by clocks. 0 = before feature level 2.
    pub created: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
