//! Containers of persons that wait for their place on overlay networks, and tasks that wait for the containers to end.

use agent::TaskError;
use engine::Engine;
use model::{ContainerStatus, Task, TaskId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// How long the engine may take to note what it was given.
const NOTE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at what is not there yet.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts that wait for their task. Shared by who asks and by the agent's executor.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<BTreeMap<TaskId, oneshot::Sender<Arc<Task>>>>);

impl Waiting {
    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<TaskId, oneshot::Sender<Arc<Task>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a task to the start that waits for it, and returns once the engine holds it.
    pub(crate) async fn start(
        &self,
        engine: &Engine,
        task: &Arc<Task>,
    ) -> Result<ContainerStatus, TaskError> {
        let waiting = self.all().remove(&task.id);
        let is_given = waiting.is_some_and(|start| start.send(Arc::clone(task)).is_ok());
        if !is_given && engine.holder(task.id).is_none() {
            return Err(TaskError::fatal("its container waits for it no more"));
        }
        let give_up = Instant::now() + NOTE_LIMIT;
        loop {
            match engine.holder(task.id) {
                Some(container) => {
                    return Ok(ContainerStatus {
                        container_id: container.id.clone(),
                        ..ContainerStatus::default()
                    });
                }
                None if Instant::now() > give_up => {
                    return Err(TaskError::fatal("its container did not take it"));
                }
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Returns the container's status once it holds the task no more; `None` if no container did.
pub(crate) async fn until_free(engine: &Engine, task: TaskId) -> Option<ContainerStatus> {
    let container = engine.holder(task)?;
    let ended = ContainerStatus {
        container_id: container.id.clone(),
        exit_code: Some(0),
        ..ContainerStatus::default()
    };
    let Ok(mut view) = engine.watch(&container.id) else { return Some(ended) };
    while view.borrow_and_update().overlays.iter().any(|place| place.task == task) {
        if view.changed().await.is_err() {
            break; // removed
        }
    }
    Some(ended)
}
