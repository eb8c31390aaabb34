//! Talks to registries.
#[derive(Debug, Default)]
pub(crate) struct Http;
