//! Networks that containers are on: of this host (`local`: records, `api`: calls), and overlays of the swarm.
//!
//! *Start reading at* `local::LocalNetworks`, then `any`. What the kernel is told is the network room's business.

pub(crate) mod any;
pub(crate) mod api;
pub(crate) mod endpoint;
pub(crate) mod links;
pub(crate) mod local;
pub(crate) mod overlay;
