//! What is: a container as it shows itself to whoever asks, what happened to it, and what it takes.
//!
//! *Start reading at* [`container`]. Only a container's owner (`life::owner`) changes what is seen here.

pub(crate) mod container;
pub(crate) mod counts;
pub(crate) mod event;
pub(crate) mod list;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod until;
pub(crate) mod usage;
pub(crate) mod waiting;
