//! The replicated state of a swarm: `model::Tables` agreed on by the managers with Raft, encrypted on disk.
//!
//! ```text
//!  propose(Batch) -> proposer -> openraft -> wal (fsync) + other members -> committed -> machine -> view
//!                                                                             |-> watch (applied index)
//!                                                                             |-> feed  (what each entry did)
//! ```
//!
//! Everything of openraft is hidden behind [`Handle`]; nobody outside knows which Raft library this is.
//!
//! Tasks: openraft's own; the log's writer thread (`wal`); the rhythm (`rhythm`: has snapshots made); the proposer
//! (`propose`: reads the queue of proposals, emits log entries); the herald (`leadership`: reads Raft's metrics, emits
//! [`Leadership`]); the steward (`steward`: gives leadership away while the disk is full). All end with
//! [`Store::shutdown`]. When one of them panics, or Raft or its log stops, the member has failed
//! ([`Handle::watch_failure`]): it leads no more at once, Raft is shut down, and whoever opened the store must close it
//! and may open it again.
//!
//! Invariants: an acknowledged change is on the disks of a majority; a change that conflicts is applied nowhere; a
//! view never goes back while the process lives; `apply` reads no clock, no randomness and no map of undefined
//! order; a raft id is never used by two joins.
//!
//! *Start reading at* [`Handle::propose`].
//!
//! # Why
//! 2026-11: the snapshot handed to openraft is the state itself (cloning it is O(1)), not a file: the file is
//! encrypted with this node's key, so a member that needs it gets the objects, and writes its own.
//! 2026-11: the purge mark and the vote are in a file of their own, not in the log: the end of the log may be cut off
//! after a crash, a vote never.

pub mod backup;
mod cipher;
mod contact;
mod feed;
mod handle;
mod leadership;
mod machine;
mod members;
mod network;
mod propose;
mod rhythm;
mod seed;
mod service;
mod snapshot;
mod space;
mod steward;
mod store;
mod supervise;
mod types;
mod wal;

#[cfg(test)]
mod conformance;

pub use cipher::{Dek, KeyError};
pub use feed::{Applied, Feed, Lagged};
pub use handle::{Handle, ReadError, StoreTimings};
pub use leadership::Leadership;
pub use members::{Member, MembershipError};
pub use network::{Connect, ConnectError};
pub use propose::ProposeError;
pub use seed::{Salvaged, Seed, salvage, seed};
pub use service::{Admission, RaftService, Vouch};
pub use snapshot::SnapshotError;
pub use store::{OpenError, Options, Store, Timing};
pub use wal::OpenLogError;
