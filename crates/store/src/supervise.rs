//! Tasks of Raft that must not end unnoticed.
//!
//! The library starts its tasks through an [`AsyncRuntime`], which has no `self`: whom to tell of a panic is a
//! task-local that every task hands down to those that it starts. Without it a task that panicked is simply missing:
//! a leader that sends heartbeats but replicates nothing, a state machine that applies nothing.

use model::{Panicked, caught};
use openraft::{AsyncRuntime, OptionalSend};
use std::{future::Future, panic::resume_unwind, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

type Tokio = openraft::impls::TokioRuntime;

/// Why this member has stopped; the first reason stays.
#[derive(Debug, Clone)]
pub(crate) struct Failure(watch::Sender<Option<String>>);

impl Failure {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn set(&self, why: String) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                tracing::error!(why, "this manager takes part in Raft no more until it is started again");
                *first = Some(why);
            }
            is_first
        });
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }

    /// Runs a task of the store to its end; a panic is this member's failure.
    pub(crate) async fn covers<T>(self, what: &'static str, task: impl Future<Output = T>) -> Option<T> {
        match REPORT.scope(self.clone(), caught(task)).await {
            Ok(output) => Some(output),
            Err(panicked) => {
                self.set(format!("{what} {panicked}"));
                None
            }
        }
    }
}

tokio::task_local! {
    static REPORT: Failure;
}

/// Runs `start`; tasks of Raft that it starts, and those that they start, report their panics to `failure`.
pub(crate) async fn reporting_to<T>(failure: &Failure, start: impl Future<Output = T>) -> T {
    REPORT.scope(failure.clone(), start).await
}

/// Tokio, with tasks that report their panics.
#[derive(Debug)]
pub(crate) struct Supervised;

impl AsyncRuntime for Supervised {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = <Tokio as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        // Whose they are the library knows, which keeps their handles.
        let Ok(failure) = REPORT.try_with(Failure::clone) else { return Tokio::spawn(future) };
        Tokio::spawn(REPORT.scope(failure.clone(), async move {
            match caught(future).await {
                Ok(output) => output,
                Err(panicked) => {
                    failure.set(format!("a task of Raft {panicked}"));
                    let Panicked(payload) = panicked;
                    resume_unwind(payload)
                }
            }
        }))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Tokio::thread_rng()
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        tokio::runtime::Handle::current().block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_task_that_another_one_started_is_told_once() {
        let failure = Failure::new();
        let outer = reporting_to(&failure, async {
            let inner = async { Supervised::spawn(async { panic!("no more") }).await.unwrap_err() };
            Supervised::spawn(inner).await.unwrap()
        });
        assert!(outer.await.is_panic());
        assert_eq!(failure.get().as_deref(), Some("a task of Raft panicked: no more"));
        failure.set("later".to_owned());
        assert_eq!(failure.get().as_deref(), Some("a task of Raft panicked: no more"));
    }
}
