//! What can go wrong around a container, in words that the engine can show.

use std::{io, path::PathBuf};

/// A failure of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec asks for something that cannot be translated; nothing was started.
    #[error("invalid spec of container {id}: {reason}")]
    Spec { id: String, reason: String },
    /// The state directory or the files in it cannot be written; nothing was started.
    #[error("cannot prepare the state directory {}", dir.display())]
    Prepare { dir: PathBuf, source: io::Error },
    /// The shim process could not be started.
    #[error("cannot start the shim of container {id}")]
    Spawn { id: String, source: io::Error },
    /// A user namespace could not be made; nothing is left.
    #[error("cannot make a user namespace")]
    Users { source: io::Error },
    /// The container could not be made; everything made for it is gone again.
    #[error("{message}")]
    Create { message: String },
    /// The program could not be executed. The text is runc's, e.g. `exec: "x": executable file not found in $PATH`.
    #[error("{message}")]
    Exec {
        message: String,
        /// Docker's exit code for it: 127 not found, 126 found but not executable.
        code: i32,
    },
    /// No shim listens in this directory: it has ended or was killed.
    #[error("cannot reach the shim in {}", dir.display())]
    Connect { dir: PathBuf, source: io::Error },
    /// The shim ended while it was asked.
    #[error("the shim of the container is gone")]
    Gone,
    /// The connection to the shim failed.
    #[error("cannot talk to the shim")]
    Talk { source: io::Error },
    /// The shim sent what this program does not understand.
    #[error("cannot understand the shim: {reason}")]
    Protocol { reason: String },
    /// No answer within 10 s.
    #[error("the shim did not answer {call} in time")]
    Timeout { call: &'static str },
    /// The shim understood and said no, e.g. `container is not running`.
    #[error("{message}")]
    Refused { message: String },
    /// An operation on the container's cgroup failed.
    #[error("cannot {operation} cgroup {path}")]
    Cgroup { operation: &'static str, path: String, source: io::Error },
    /// Something of a removed container could not be taken away.
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

impl Error {
    /// Returns the exit code that Docker gives a container whose start failed like this: 127 or 126 for the
    /// program, 128 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exec { code, .. } => *code,
            _ => 128,
        }
    }
}
