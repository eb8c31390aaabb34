//! What the tests of this room share, and whole swarms in one process.

pub(crate) mod state;
mod swarm;
mod whole;
