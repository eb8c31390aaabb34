//! Why a build made no image.

use image::dockerfile::SyntaxError;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error("Cannot locate specified Dockerfile: {0}")]
    NoDockerfile(String),
    #[error("failed to reach build target {0} in Dockerfile")]
    NoTarget(String),
    #[error("build context is not a tar archive, plain or compressed")]
    NoArchive,
    #[error("cannot unpack the build context: {0}")]
    Context(#[source] std::io::Error),
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command { command: String, code: i32 },
    #[error("{instruction} failed: {reason} (Dockerfile line {line})")]
    Step { instruction: String, line: usize, reason: String },
    #[error("unable to prepare context: {url}: {reason}")]
    Remote { url: String, reason: String },
    #[error("the client of the build has gone away")]
    Abandoned,
}

impl BuildError {
    pub(super) fn step(instruction: impl Into<String>, line: usize, reason: impl Into<String>) -> Self {
        Self::Step { instruction: instruction.into(), line, reason: reason.into() }
    }
}
