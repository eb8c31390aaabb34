//! From a container's configuration to what its runtime is told: an OCI runtime spec, with the users, devices and
//! namespaces that it names.
//!
//! *Start reading at* `oci::spec`.

pub(crate) mod capabilities;
pub(crate) mod cdi;
pub(crate) mod devices;
pub(crate) mod limits;
mod mounts;
mod namespaces;
pub(crate) mod oci;
pub(crate) mod parts;
pub(crate) mod security;
pub mod userns;
pub(crate) mod users;
