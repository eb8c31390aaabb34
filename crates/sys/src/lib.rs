//! Safe functions over what Linux offers and no crate wraps safely: the only crate with `unsafe`.
//!
//! Where `rustix` has a safe function, rooms use `rustix` directly; here is the rest. Nothing here knows about
//! containers. Every function says which manual page it is, and every unsafe block why it is needed
//! (JUSTIFICATION) and why it is sound (SAFETY).
//!
//! *Start reading at* [`process::clone3`].
#![allow(
    unsafe_code,
    clippy::allow_attributes,
    reason = "this is the room for it; every block is documented, which the two lints below enforce"
)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

pub mod bpf;
pub mod caps;
pub mod clock;
pub mod disk;
pub mod durable;
pub mod memfd;
pub mod memory;
pub mod mount;
pub mod overlay;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;
