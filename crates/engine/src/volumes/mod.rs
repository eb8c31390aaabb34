//! Volumes of this host: their records (`local`) and filesystems (`mount`), then the calls that clients make (`api`),
//! and what they hold as tars.
//!
//! *Start reading at* `local::Volumes`.

pub(crate) mod api;
pub(crate) mod archive;
pub(crate) mod local;
pub(crate) mod mount;
