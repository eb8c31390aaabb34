//! Waiting for a container to end, or to be gone.

use crate::{
    error::Result,
    inner::Inner,
    seen::container::{Container, Exit, Status, WaitCondition},
};
use std::sync::Arc;
use tokio::sync::watch;

/// A wait that has begun.
#[derive(Debug)]
pub struct Waiting {
    view: watch::Receiver<Arc<Container>>,
    condition: WaitCondition,
    exits: u64,
}

impl Waiting {
    /// Begins; what happens after this call returns is not missed.
    pub(crate) fn begin(inner: &Inner, container: &str, condition: WaitCondition) -> Result<Self> {
        let view = inner.find(container)?.view;
        let exits = view.borrow().exits;
        Ok(Self { view, condition, exits })
    }

    /// Returns how the container ended, once the condition holds.
    pub async fn exit(mut self) -> Exit {
        loop {
            let now = self.view.borrow_and_update().clone();
            let done = match self.condition {
                // As Docker: one that is started again by its policy has ended nevertheless.
                WaitCondition::NotRunning => {
                    now.exits != self.exits
                        || !now.state.is_running() && now.state.status != Status::Restarting
                }
                WaitCondition::NextExit => now.exits != self.exits,
                WaitCondition::Removed => false,
            };
            // The owner drops its end when the container is gone.
            if done || self.view.changed().await.is_err() {
                let last = self.view.borrow();
                let error = Some(last.state.error.clone()).filter(|e| !e.is_empty());
                return Exit { code: last.state.exit_code, error };
            }
        }
    }
}
