//! What is wanted: a container as it is asked for, what its image and the operator say where it says nothing, and the
//! gate that judges all of it before anything is made.
//!
//! *Start reading at* [`config`], then `gate::check`, which stands on the judges of all other folders. Nothing here is
//! changed by what runs.

pub(crate) mod config;
pub(crate) mod defaults;
pub(crate) mod defaults_gate;
pub(crate) mod execs;
pub(crate) mod gate;
pub(crate) mod image_defaults;
mod kept;
pub(crate) mod merge;
pub(crate) mod names;
