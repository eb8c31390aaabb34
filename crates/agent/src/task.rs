//! One task, one step at a time.
//!
//! ```text
//!  (none) -> ACCEPTED -> PREPARING -> READY ----------> STARTING -> RUNNING --exit 0--> COMPLETE
//!                 prepare |    waits while    start |        wait |----exit n---> FAILED
//!                  fatal: v    desired = READY      v fatal: FAILED
//!                     REJECTED
//!  desired >= SHUTDOWN, or no longer assigned, at any point before an end: shutdown -> SHUTDOWN
//!  an end, and no longer assigned: remove -> the actor is over
//! ```

use crate::{Clock, Executor, TaskAssignment, TaskError, backoff::Backoff};
use model::{ContainerStatus, Desired, Duration, NetworkId, TaskId, TaskState, TaskStatus};
use std::{collections::BTreeSet, future::Future, sync::Arc};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, info, info_span, warn};

/// How long a task waits for its networks' tables before it tries without.
const TABLES_LIMIT: Duration = Duration::from_secs(10);
/// Time between two pieces of news of one step: each is a write of the swarm.
const NEWS_PERIOD: Duration = Duration::from_secs(2);
/// How often `release` is tried before the end is reported anyway.
const RELEASE_ATTEMPTS: u32 = 5;

/// What is wanted of a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Directive {
    pub(crate) assignment: TaskAssignment,
    /// No manager assigns it any more: stop it, then remove every trace.
    pub(crate) removed: bool,
}

impl Directive {
    fn stops(&self) -> bool {
        self.removed || self.assignment.task.desired >= Desired::Shutdown
    }

    /// True once everything the task refers to is here; after a restart without managers secrets are not.
    fn is_complete(&self) -> bool {
        let container = &self.assignment.task.spec.container;
        container.secrets.iter().all(|s| self.assignment.secrets.contains_key(&s.id))
            && container.configs.iter().all(|c| self.assignment.configs.contains_key(&c.id))
    }
}

#[derive(Debug)]
pub(crate) enum TaskEvent {
    Observed(TaskId, TaskStatus),
    /// Every trace of it is removed.
    Gone(TaskId),
}

/// What all actors share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Clock,
    /// True once the host is a member.
    pub(crate) configured: watch::Receiver<bool>,
    /// Networks whose tables are applied.
    pub(crate) networks: watch::Receiver<BTreeSet<NetworkId>>,
    pub(crate) events: mpsc::Sender<TaskEvent>,
}

/// The actor of one task.
pub(crate) struct Actor {
    around: Surroundings,
    id: TaskId,
    status: TaskStatus,
    /// `prepare` succeeded since this process began.
    prepared: bool,
    directive: watch::Receiver<Directive>,
    backoff: Backoff,
}

/// The agent is ending: leave everything as it is.
struct Ending;

impl Actor {
    /// Returns an actor that continues from `status`, the last one known.
    pub(crate) fn new(
        around: Surroundings,
        id: TaskId,
        status: TaskStatus,
        directive: watch::Receiver<Directive>,
    ) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        Self { around, id, status, prepared: false, directive, backoff }
    }

    /// Runs until the task is removed, or the agent ends.
    pub(crate) async fn run(mut self) {
        let span = info_span!("task", task.id = %self.id);
        async move { while let Ok(true) = self.step().await {} }.instrument(span).await;
    }

    /// Makes one step; false when the task is no more.
    async fn step(&mut self) -> Result<bool, Ending> {
        let wanted = self.directive.borrow_and_update().clone();
        match self.status.state {
            Some(
                TaskState::Complete
                | TaskState::Shutdown
                | TaskState::Failed
                | TaskState::Rejected
                | TaskState::Orphaned,
            ) => {
                if wanted.removed {
                    self.remove().await?;
                    return Ok(false);
                }
                self.changed().await?;
            }
            None
            | Some(
                TaskState::Accepted
                | TaskState::Preparing
                | TaskState::Ready
                | TaskState::Starting
                | TaskState::Running,
            ) if wanted.stops() => self.stop(&wanted.assignment).await?,
            None => self.advance(TaskState::Accepted, "accepted").await?,
            Some(TaskState::Accepted) => self.advance(TaskState::Preparing, "preparing").await?,
            Some(TaskState::Preparing) if !wanted.is_complete() => self.changed().await?,
            Some(TaskState::Preparing) => {
                if self.prepare(wanted.assignment).await? {
                    self.advance(TaskState::Ready, "prepared").await?;
                }
            }
            Some(TaskState::Ready) if wanted.assignment.task.desired == Desired::Ready => {
                self.changed().await?;
            }
            Some(TaskState::Ready) => self.advance(TaskState::Starting, "starting").await?,
            Some(TaskState::Starting) if !self.prepared && !wanted.is_complete() => self.changed().await?,
            Some(TaskState::Starting) => {
                // Taken over from a process before us: its container may be missing or half made.
                if self.prepared || self.prepare(wanted.assignment.clone()).await? {
                    self.start(wanted.assignment).await?;
                }
            }
            Some(TaskState::Running) => self.wait(wanted.assignment).await?,
        }
        Ok(true)
    }

    async fn prepare(&mut self, assignment: TaskAssignment) -> Result<bool, Ending> {
        let around = self.around.clone();
        let message = self.status.message.clone();
        let (news, mut told) = watch::channel(String::new());
        let step = async move {
            around.ready_for(&assignment).await;
            around.executor.prepare(&assignment, &news).await
        };
        let mut step = std::pin::pin!(step);
        let outcome = loop {
            let heard = async {
                tokio::time::sleep(NEWS_PERIOD).await;
                if told.changed().await.is_err() {
                    std::future::pending::<()>().await; // the step is about to end
                }
            };
            let next = async {
                tokio::select! {
                    biased;
                    outcome = &mut step => Some(outcome),
                    () = heard => None,
                }
            };
            match self.unless_stopped(next).await {
                None => break None,
                Some(Some(outcome)) => break Some(outcome),
                Some(None) => {
                    self.status.message = told.borrow_and_update().clone();
                    self.observe().await?;
                }
            }
        };
        match outcome {
            None => Ok(false),
            Some(Ok(())) => {
                self.prepared = true;
                self.backoff.reset();
                Ok(true)
            }
            Some(Err(TaskError::Temporary { reason })) => self.retry(reason).await.map(|()| false),
            Some(Err(TaskError::Fatal { reason, container })) => {
                let end = if self.status.state >= Some(TaskState::Starting) {
                    TaskState::Failed
                } else {
                    TaskState::Rejected
                };
                self.end(end, &message, Some(reason), container.map(|c| *c)).await.map(|()| false)
            }
        }
    }

    async fn start(&mut self, assignment: TaskAssignment) -> Result<(), Ending> {
        let executor = self.around.executor.clone();
        let subject = assignment.clone();
        match self.unless_stopped(async move { executor.start(&subject).await }).await {
            None => Ok(()),
            Some(Ok(container)) => {
                self.backoff.reset();
                self.status.container = Some(container);
                self.advance(TaskState::Running, "started").await
            }
            Some(Err(TaskError::Temporary { reason })) => self.retry(reason).await,
            Some(Err(TaskError::Fatal { reason, container })) => {
                let stopped = self.shutdown(&assignment).await?;
                let container = container.map(|c| *c).or(stopped);
                self.end(TaskState::Failed, "starting", Some(reason), container).await
            }
        }
    }

    async fn wait(&mut self, assignment: TaskAssignment) -> Result<(), Ending> {
        let (executor, id) = (self.around.executor.clone(), self.id);
        match self.unless_stopped(async move { executor.wait(id).await }).await {
            None => Ok(()),
            Some(Ok(container)) => match container.exit_code {
                Some(0) => self.end(TaskState::Complete, "finished", None, Some(container)).await,
                code => {
                    let error = exit_error(code, &container);
                    self.end(TaskState::Failed, "started", Some(error), Some(container)).await
                }
            },
            Some(Err(TaskError::Temporary { reason })) => {
                warn!(error = reason, "cannot wait for the container, will retry");
                self.pause().await
            }
            Some(Err(TaskError::Fatal { reason, container })) => {
                let stopped = self.shutdown(&assignment).await?;
                let container = stopped.or(container.map(|c| *c)).or(self.status.container.take());
                self.end(TaskState::Failed, "started", Some(reason), container).await
            }
        }
    }

    async fn stop(&mut self, assignment: &TaskAssignment) -> Result<(), Ending> {
        let container = self.shutdown(assignment).await?.or(self.status.container.take());
        self.end(TaskState::Shutdown, "shutdown", None, container).await
    }

    /// Stops the container, however often it takes.
    async fn shutdown(&mut self, assignment: &TaskAssignment) -> Result<Option<ContainerStatus>, Ending> {
        loop {
            match self.around.executor.shutdown(assignment).await {
                Ok(container) => return Ok(container),
                Err(error) => warn!(%error, "cannot stop the task, will retry"),
            }
            self.wait_a_little().await;
        }
    }

    /// Removes every trace, however often it takes.
    async fn remove(&mut self) -> Result<(), Ending> {
        while let Err(error) = self.around.executor.remove(self.id).await {
            warn!(%error, "cannot remove the task, will retry");
            self.wait_a_little().await;
        }
        self.around.events.send(TaskEvent::Gone(self.id)).await.map_err(|_| Ending)
    }

    /// Returns what `step` does, or `None` if the task is to stop: the step is then abandoned.
    async fn unless_stopped<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            if self.directive.wait_for(Directive::stops).await.is_err() {
                std::future::pending::<()>().await; // the agent ends, and we with it
            }
        };
        tokio::select! {
            biased;
            outcome = step => Some(outcome),
            () = stopped => None,
        }
    }

    /// Shows why the step failed and waits before the next attempt.
    async fn retry(&mut self, reason: String) -> Result<(), Ending> {
        warn!(error = reason, "task step failed, will retry");
        if self.status.error.as_ref() != Some(&reason) {
            self.status.error = Some(reason);
            self.observe().await?;
        }
        self.pause().await
    }

    /// Waits for the next attempt, or until something else is wanted.
    async fn pause(&mut self) -> Result<(), Ending> {
        let delay = self.backoff.delay();
        match tokio::time::timeout(delay, self.directive.changed()).await {
            Ok(Err(_)) => Err(Ending),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    async fn wait_a_little(&mut self) {
        tokio::time::sleep(self.backoff.delay()).await;
    }

    async fn changed(&mut self) -> Result<(), Ending> {
        self.directive.changed().await.map_err(|_| Ending)
    }

    async fn advance(&mut self, state: TaskState, message: &str) -> Result<(), Ending> {
        info!(from = ?self.status.state, to = ?state, "task state changed");
        self.status.state = Some(state);
        message.clone_into(&mut self.status.message);
        self.status.error = None;
        self.observe().await
    }

    async fn end(
        &mut self,
        state: TaskState,
        message: &str,
        error: Option<String>,
        container: Option<ContainerStatus>,
    ) -> Result<(), Ending> {
        for _ in 0..RELEASE_ATTEMPTS {
            match self.around.executor.release(self.id).await {
                Ok(()) => break,
                Err(error) => warn!(%error, "cannot free what the ended task held, will retry"),
            }
            self.wait_a_little().await;
        }
        info!(from = ?self.status.state, to = ?state, error, "task state changed");
        self.status.state = Some(state);
        message.clone_into(&mut self.status.message);
        self.status.error = error;
        if container.is_some() {
            self.status.container = container;
        }
        self.backoff.reset();
        self.observe().await
    }

    async fn observe(&mut self) -> Result<(), Ending> {
        self.status.at = (self.around.clock)();
        let event = TaskEvent::Observed(self.id, self.status.clone());
        self.around.events.send(event).await.map_err(|_| Ending)
    }
}

impl Surroundings {
    /// Returns when the host can prepare this task: it is a member, and has the tables of the task's networks.
    async fn ready_for(&self, assignment: &TaskAssignment) {
        let mut configured = self.configured.clone();
        if configured.wait_for(|done| *done).await.is_err() {
            std::future::pending::<()>().await; // the agent ends
        }
        let wanted: Vec<NetworkId> = assignment.task.attachments.iter().map(|a| a.network).collect();
        let mut networks = self.networks.clone();
        let all = networks.wait_for(|held| wanted.iter().all(|network| held.contains(network)));
        if tokio::time::timeout(TABLES_LIMIT, all).await.is_err() {
            warn!("the tables of the task's networks are late, preparing without");
        }
    }
}

/// Source: moby `daemon/cluster/executor/container/errors.go`.
fn exit_error(code: Option<i32>, container: &ContainerStatus) -> String {
    match (code, container.oom_killed) {
        (Some(code), false) => format!("task: non-zero exit ({code})"),
        (Some(code), true) => format!("task: non-zero exit ({code}): out of memory"),
        (None, _) => "task: exit code is unknown".to_owned(),
    }
}
