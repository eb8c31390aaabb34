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

use crate::error::{Error, Result};
use serde_json::Value;

/// Reads a part of the specification.
fn parsed<T: serde::de::DeserializeOwned>(value: Value, id: &str) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|source| Error::Spec { id: id.to_owned(), source: oci_spec::OciSpecError::SerDe(source) })
}
