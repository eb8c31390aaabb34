//! Keeps this node's tasks as the managers assigned them, with or without managers in reach.
//!
//! ```text
//!   managers --Session--> [agent loop] --directives--> [one actor per task] --Executor--> containers
//!       ^                   |  |   ^                          |
//!       |                   |  |   '------- statuses ---------'
//!       '-- statuses, acks -'  '--> [tables] --Executor--> kernel network state
//!                              '--> [ledger] --> state_dir/ledger
//! ```
//!
//! Tasks (of tokio): the *agent loop* ([`Agent::run`]) owns the session, the assignments and the statuses not yet
//! acknowledged; one *actor* per task makes one step at a time (prepare, start, wait, shutdown, remove) and
//! reports each; *tables* applies the newest table of each network and acknowledges it; *ledger* writes what is
//! assigned and last known, newest wins. All end with [`Agent::run`]; containers do not.
//!
//! Invariants: an observed state only advances; a task's container is removed only when its assignment is; no
//! secret is ever written to disk here; losing every manager changes nothing for what runs; an actor that panics is
//! replaced by another one, any other part that does ends the agent, whose owner begins anew.
//!
//! *Start reading at* [`Agent::run`], then module `task`.

mod backoff;
mod executor;
pub mod fake;
mod journal;
mod ledger;
mod session;
mod tables;
mod task;
#[cfg(test)]
mod tests;

pub use executor::{Executor, Held, News, NodeConfig, TaskAssignment, TaskError};
pub use ledger::LedgerError;
pub use session::{Agent, AgentError, View};

use model::{Duration, Incarnation, Timestamp};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;
use tonic::transport::Channel;

/// Returns a (lazily connecting) channel to the manager at this address, authenticated both ways.
pub type Connect = Arc<dyn Fn(SocketAddr) -> Channel + Send + Sync>;
/// Returns the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What an agent needs.
#[derive(Clone)]
pub struct Options {
    /// Managers known from elsewhere (the join, this node's own manager); those learned in sessions are added.
    pub managers: watch::Receiver<Vec<SocketAddr>>,
    pub connect: Connect,
    pub executor: Arc<dyn Executor>,
    /// Holds the ledger; made if missing.
    pub state_dir: PathBuf,
    pub clock: Clock,
    /// The latest life of the swarm that this node has heard of, here or elsewhere: managers of an earlier one are
    /// left, and not listened to. Raised by what sessions say.
    pub incarnation: watch::Sender<Option<Incarnation>>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

/// Ends what the swarm ran on this host and forgets it: the node has left. Every container of a task is removed,
/// then the ledger. The agent must not run any more.
///
/// # Errors
/// What could not be removed; everything else was.
pub async fn forget(executor: &dyn Executor, state_dir: &Path) -> Result<(), Vec<ForgetError>> {
    let mut errors = Vec::new();
    for held in executor.list().await {
        for attempt in 1.. {
            match executor.remove(held.task).await {
                Ok(()) => break,
                Err(TaskError::Temporary { .. }) if attempt < 5 => {
                    tokio::time::sleep(Duration::from_millis(100 * attempt)).await;
                }
                Err(source) => {
                    errors.push(ForgetError::Remove { task: held.task, source });
                    break;
                }
            }
        }
    }
    let dir = state_dir.to_owned();
    match tokio::fs::remove_dir_all(&dir).await {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            errors.push(ForgetError::Ledger { path: dir, source });
        }
        Ok(()) | Err(_) => {}
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Something of a swarm that stayed on this host.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("cannot remove task {task}")]
    Remove {
        task: model::TaskId,
        #[source]
        source: TaskError,
    },
    #[error("cannot remove the agent's state in {path}")]
    Ledger {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}
