//! What the tests of this room share, and whole swarms in one process.

mod crowds;
mod hostile;
mod identity;
mod linear;
mod links;
mod lot;
mod own;
mod roles;
mod sim;
mod soak;
pub(crate) mod state;
mod storm;
mod swarm;
mod told;
mod whole;
