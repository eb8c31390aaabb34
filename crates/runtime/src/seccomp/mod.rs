//! System call filters: Docker's default profile, and the compiler from an OCI profile to BPF.

mod compile;
mod numbers;
mod profile;

pub(crate) use compile::compile;
pub use profile::{default_seccomp, read_seccomp};
