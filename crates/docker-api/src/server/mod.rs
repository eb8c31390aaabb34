//! Answers the Docker Engine REST API.

mod error;
mod swarm;

/// The newest API version spoken here.
pub const API_VERSION: &str = "1.51";
/// The oldest.
pub const MIN_API_VERSION: &str = "1.40";

pub use error::{ApiError, NOT_IN_SWARM};
pub use swarm::{BoxedIo, Control, InitRequest, Io, JoinRequest, Membership, Swarm, SwarmStatus};
