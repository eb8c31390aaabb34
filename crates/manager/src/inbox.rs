//! Observations of nodes on their way to the leader loop.

use crate::refusals::no_leader;
use model::{NodeDescription, NodeId, TaskId, TaskStatus};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, oneshot};
use tonic::Status;

/// What nodes say of themselves and their tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observation {
    pub(crate) nodes: Vec<(NodeId, NodeDescription)>,
    /// The node that says so, the task, its status.
    pub(crate) tasks: Vec<(NodeId, TaskId, TaskStatus)>,
}

impl Observation {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.tasks.is_empty()
    }
}

pub(crate) type Done = oneshot::Sender<Result<(), Status>>;

/// Observations on their way into the state.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Vec<(Observation, Done)>>,
    pub(crate) arrived: Notify,
}

impl Inbox {
    /// Returns once the observation is replicated.
    ///
    /// # Errors
    /// UNAVAILABLE when this manager does not lead (any more).
    pub(crate) async fn put(&self, observation: Observation) -> Result<(), Status> {
        if observation.is_empty() {
            return Ok(());
        }
        let (done, outcome) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((observation, done));
        self.arrived.notify_one();
        outcome.await.unwrap_or_else(|_| Err(no_leader()))
    }

    pub(crate) fn take(&self) -> Vec<(Observation, Done)> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn put_back(&self, mut old: Vec<(Observation, Done)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        old.append(&mut waiting); // older first: the newest state of a task wins
        *waiting = old;
    }
}
