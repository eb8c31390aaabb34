//! What `proto/**.proto` become: the text of `crates/proto/src/generated.rs`, made when this crate is built.
//!
//! That file is kept with the sources because its generator takes longer to build than the crate that needs it. Nobody
//! depends on this crate: its test holds the file and what it is made from together.

/// The generated code, as it must be in `crates/proto/src/generated.rs`.
pub const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/generated.rs"));
