//! The threads of the swarm: what this node says and hears as a member (heartbeats, sessions, Raft, the leader's
//! decisions) has a runtime of its own, whose threads come first. A host that is busy with containers, images and
//! requests still says in time that it lives, and does not take others for dead.
//!
//! What a task makes of the host is done on the other threads: [`Hop`] carries the agent's steps there and back. So a
//! process that is started there begins with the priority that it should have.

use crate::executor::HostExecutor;
use agent::{Executor, Held, News, NodeConfig, TaskAssignment, TaskError};
use anyhow::{Context as _, Result};
use model::{ContainerStatus, IngressTable, NetworkId, NetworkTable, NodeDescription, TaskId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// One that waits for the disk shall not hold the other up.
const THREADS: usize = 2;
/// Weighs about nine times as much as an ordinary thread. *Source:* sched(7), nice values.
const NICE: i32 = -10;

/// The swarm's threads. They end with this value, also where a start fails half-way: a runtime must not be dropped by a
/// task, and is not waited for.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// # Errors
    /// The kernel gives no threads.
    pub(crate) fn start() -> Result<Self> {
        runtime().map(|runtime| Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("there until it is dropped").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("swarm")
        .on_thread_start(come_first)
        .enable_all()
        .build()
        .context("cannot start the swarm's threads")
}

/// Puts the calling thread before others. Without the privilege for it, it stays as it is: the swarm's threads are then
/// still kept apart from the rest.
fn come_first() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "the swarm's threads have no priority over others");
    }
}

/// This host as the agent sees it, with each step on the threads of the rest of the daemon.
#[derive(Debug)]
pub(crate) struct Hop {
    host: Arc<HostExecutor>,
    work: Handle,
    /// Held while a step of a task is under way: one that was given up may take a moment to end.
    steps: Mutex<BTreeMap<TaskId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Hop {
    /// `work`: where the steps are done.
    pub(crate) fn new(host: Arc<HostExecutor>, work: Handle) -> Self {
        Self { host, work, steps: Mutex::default() }
    }

    /// Does something on the other threads; giving it up ends it.
    async fn there<T, Fut>(&self, step: impl FnOnce(Arc<HostExecutor>) -> Fut) -> T
    where
        T: Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        match AbortOnDropHandle::new(self.work.spawn(step(Arc::clone(&self.host)))).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The daemon ends: nobody waits for this any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// The same for a step of a task: after what the task's last step still does.
    async fn step<T, Fut>(&self, task: TaskId, step: impl FnOnce(Arc<HostExecutor>) -> Fut) -> T
    where
        T: Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        let turn =
            Arc::clone(self.steps.lock().unwrap_or_else(PoisonError::into_inner).entry(task).or_default());
        let turn = turn.lock_owned().await;
        self.there(|host| {
            let doing = step(host);
            async move {
                let done = doing.await;
                drop(turn);
                done
            }
        })
        .await
    }
}

#[async_trait::async_trait]
impl Executor for Hop {
    async fn describe(&self) -> NodeDescription {
        self.there(|host| async move { host.describe().await }).await
    }

    async fn configure(&self, node: NodeConfig) -> Result<(), TaskError> {
        self.there(|host| async move { host.configure(node).await }).await
    }

    async fn prepare(&self, task: &TaskAssignment, news: &News) -> Result<(), TaskError> {
        let (task, news) = (task.clone(), news.clone());
        self.step(task.task.id, |host| async move { host.prepare(&task, &news).await }).await
    }

    async fn start(&self, task: &TaskAssignment) -> Result<ContainerStatus, TaskError> {
        let task = task.clone();
        self.step(task.task.id, |host| async move { host.start(&task).await }).await
    }

    async fn wait(&self, task: TaskId) -> Result<ContainerStatus, TaskError> {
        self.step(task, move |host| async move { host.wait(task).await }).await
    }

    async fn shutdown(&self, task: &TaskAssignment) -> Result<Option<ContainerStatus>, TaskError> {
        let task = task.clone();
        self.step(task.task.id, |host| async move { host.shutdown(&task).await }).await
    }

    async fn release(&self, task: TaskId) -> Result<(), TaskError> {
        self.step(task, move |host| async move { host.release(task).await }).await
    }

    async fn remove(&self, task: TaskId) -> Result<(), TaskError> {
        let removed = self.step(task, move |host| async move { host.remove(task).await }).await;
        if removed.is_ok() {
            self.steps.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        }
        removed
    }

    async fn list(&self) -> Vec<Held> {
        self.there(|host| async move { host.list().await }).await
    }

    async fn apply_network(&self, table: NetworkTable) -> Result<(), TaskError> {
        self.there(|host| async move { host.apply_network(table).await }).await
    }

    async fn drop_network(&self, network: NetworkId) -> Result<(), TaskError> {
        self.there(move |host| async move { host.drop_network(network).await }).await
    }

    async fn apply_ingress(&self, table: IngressTable) -> Result<(), TaskError> {
        self.there(|host| async move { host.apply_ingress(table).await }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            atomic::{AtomicBool, Ordering::Relaxed},
            mpsc,
        },
        time::{Duration, Instant},
    };

    #[test]
    fn the_swarms_threads_go_on_while_all_others_are_busy_and_come_first() {
        let (swarm, busy) =
            (runtime().unwrap(), Builder::new_multi_thread().worker_threads(2).build().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        // More than there are processors.
        for _ in 0..2 {
            let stop = Arc::clone(&stop);
            busy.spawn(async move {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let (beat, beats) = mpsc::sync_channel(50);
        swarm.spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(20));
            for _ in 0..50 {
                every.tick().await;
                beat.send(rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap())
                    .unwrap();
            }
        });
        let begun = Instant::now();
        let priorities: Vec<i32> = beats.iter().collect();
        assert_eq!(priorities.len(), 50);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let own = rustix::process::getpriority_process(None).unwrap();
        let may = rustix::process::setpriority_process(Some(rustix::thread::gettid()), own - 1).is_ok();
        assert!(!may || priorities.iter().all(|nice| *nice == NICE), "{priorities:?}");
        stop.store(true, Relaxed);
    }
}
