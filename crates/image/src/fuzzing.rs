//! What the fuzz targets of `tests/fuzz` need and nobody else.

use crate::{
    config::ImageConfiguration,
    manifest::{ImageIndex, ImageManifest},
    registry,
};

/// Reads bytes as everything that a registry can send.
pub fn registry_answer(bytes: &[u8]) {
    drop(serde_json::from_slice::<ImageManifest>(bytes));
    drop(serde_json::from_slice::<ImageIndex>(bytes));
    drop(serde_json::from_slice::<ImageConfiguration>(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(registry::parse_parameters(text));
        drop(text.parse::<crate::Platform>());
        drop(text.parse::<crate::Digest>());
    }
}
