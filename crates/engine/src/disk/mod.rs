//! How the engine keeps its own state: whole records, durable before anybody is told, in folders that are closed to the
//! host's other users.

pub mod folders;
pub(crate) mod persist;
