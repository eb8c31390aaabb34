//! What end-to-end tests are made of: a lab of namespaced hosts, driven through the real binary, and waiting for
//! a state with a deadline; the judge of what clients of a store saw ([`history`]); hostile JSON for whatever reads some
//! ([`hostile`]); what earlier versions wrote ([`earlier`]); and a disk that forgets ([`lossy`]). Never a dependency outside tests.

mod api;
mod cgroup;
mod disk;
mod dockerd;
pub mod earlier;
pub mod history;
pub mod hostile;
mod lab;
mod load;
pub mod lossy;
mod programs;
mod signals;
mod traces;
mod wires;

pub use api::{dumps_are_alike, request};
pub use cgroup::{fresh_group, v1_hierarchy, v2_hierarchy};
pub use disk::Disk;
pub use dockerd::{Dockerd, Networks};
pub use lab::{Door, Exec, Failure, Lab, NoAnswer, Output};
pub use programs::{copy_program, write_program};
pub use wires::Cut;

use std::{
    path::Path,
    time::{Duration, Instant},
};

/// What a test gives to something that is promised within `promise` on a machine that has nothing else to do: tests
/// run beside each other, and on machines of every kind. Whether a promise is kept to the moment, a bench tells.
pub const fn on_a_shared_machine(promise: Duration) -> Duration {
    promise.saturating_mul(5)
}

/// Asks `probe` again and again until it answers, and returns the answer.
///
/// # Panics
/// When `deadline` has passed, with `what` and the last refusal.
pub fn wait_for<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match probe() {
            Ok(answer) => return answer,
            Err(last) => assert!(Instant::now() < end, "{what}: not within {deadline:?}; last seen: {last}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns a program that others wrote and a test compares us with: one that only oracles may run, since `cargo test`
/// needs Rust and a C compiler alone.
///
/// # Panics
/// In a run of the tests that are not ignored, whether the program is there or not.
pub fn peer(program: &str) -> &Path {
    let asked_for = std::env::args().any(|word| word == "--ignored" || word == "--include-ignored");
    assert!(
        asked_for,
        "{program} is for oracles alone, which `cargo xtask oracles` runs: use our own means, or make the test one"
    );
    Path::new(program)
}
