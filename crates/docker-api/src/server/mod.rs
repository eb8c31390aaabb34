//! Answers the Docker Engine REST API.

mod error;
mod swarm;

pub use error::{ApiError, NOT_IN_SWARM};
pub use swarm::{BoxedIo, Control, InitRequest, Io, JoinRequest, Membership, Swarm, SwarmStatus};
