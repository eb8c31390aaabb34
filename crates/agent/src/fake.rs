//! A host without containers: what tests and simulations run an agent on.
//!
//! The image says how a task behaves: `missing` cannot be prepared, `flaky` fails to prepare once, `exit-N` ends
//! with code N as soon as it is started, `broken` cannot be started, `large` is prepared in four seconds and says how
//! far it is, `bomb` panics when it is prepared for the first time, `work-N` ends with code 0 when it has run for N
//! milliseconds, `stubborn` takes two seconds to stop; anything else runs until it is stopped.

use crate::{Executor, Held, News, NodeConfig, TaskAssignment, TaskError};
use async_trait::async_trait;
use model::{
    ContainerStatus, IngressTable, Labels, NetworkId, NetworkTable, NodeDescription, Platform, Resources,
    TaskId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// How long a `stubborn` container goes on after it was told to stop.
const STUBBORN: Duration = Duration::from_secs(2);

/// What a fake host holds.
#[derive(Debug, Default)]
pub struct State {
    pub config: Option<NodeConfig>,
    pub containers: BTreeMap<TaskId, FakeContainer>,
    pub networks: BTreeMap<NetworkId, NetworkTable>,
    pub ingress: Option<IngressTable>,
    /// Every step made, e.g. `start 0000..1`, oldest first.
    pub steps: Vec<String>,
    flaked: BTreeSet<TaskId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeContainer {
    pub image: String,
    pub started: bool,
    pub exit_code: Option<i32>,
    /// Names and contents of its secrets.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// When its work is done, if it ends by itself.
    ends_at: Option<Instant>,
}

impl FakeContainer {
    /// Tells whether it runs now.
    pub fn is_alive(&self) -> bool {
        self.started && self.exit_code.is_none()
    }
}

/// A fake host. Shared by agents that come and go, as a real one is.
#[derive(Debug)]
pub struct FakeHost {
    description: NodeDescription,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// It has no time to look at itself.
    pub busy: watch::Sender<bool>,
}

impl FakeHost {
    /// Returns an empty host with 4 CPUs and 8 GiB.
    pub fn new(hostname: &str, addr: SocketAddr) -> Self {
        let description = NodeDescription {
            tls: model::NodeTls::default(),
            hostname: hostname.to_owned(),
            platform: Platform { os: "linux".to_owned(), architecture: "x86_64".to_owned() },
            resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 8 << 30, pids: 0 },
            generic: model::GenericResources::new(),
            engine_version: "fake".to_owned(),
            engine_labels: Labels::new(),
            addr,
            data_addr: addr.ip(),
            feature_level: model::FEATURE_LEVEL,
            networks: vec![],
            unfit: vec![],
        };
        Self {
            description,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            busy: watch::Sender::new(false),
        }
    }

    /// Returns what it holds now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for container in state.containers.values_mut().filter(|c| c.is_alive()) {
            if container.ends_at.is_some_and(|at| at <= Instant::now()) {
                container.exit_code = Some(0);
            }
        }
        state
    }

    /// Returns the tasks whose containers run.
    pub fn running(&self) -> Vec<TaskId> {
        let state = self.state();
        let running = state.containers.iter().filter(|(_, c)| c.is_alive());
        running.map(|(id, _)| *id).collect()
    }

    /// Ends a container.
    pub fn exit(&self, task: TaskId, code: i32) {
        if let Some(container) = self.state().containers.get_mut(&task) {
            container.exit_code = Some(code);
        }
        self.tell();
    }

    /// Forgets every container, as a reboot does.
    pub fn reboot(&self) {
        self.state().containers.clear();
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    fn step(&self, step: &str, task: TaskId) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.steps.push(format!("{step} {task}"));
        state
    }
}

fn status(task: TaskId, container: &FakeContainer) -> ContainerStatus {
    ContainerStatus {
        container_id: format!("{:064x}", task.0),
        pid: if container.exit_code.is_some() { 0 } else { 1 },
        exit_code: container.exit_code,
        oom_killed: false,
    }
}

#[async_trait]
impl Executor for FakeHost {
    async fn describe(&self) -> NodeDescription {
        drop(self.busy.subscribe().wait_for(|busy| !busy).await);
        self.description.clone()
    }

    async fn configure(&self, node: NodeConfig) -> Result<(), TaskError> {
        self.state().config = Some(node);
        Ok(())
    }

    async fn prepare(&self, assignment: &TaskAssignment, news: &News) -> Result<(), TaskError> {
        let id = assignment.task.id;
        let image = assignment.task.spec.container.image.clone();
        if image == "large" {
            news.send_replace("pulling 10.0 MB of 100.0 MB".to_owned());
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        let mut state = self.step("prepare", id);
        match image.as_str() {
            "bomb" if state.flaked.insert(id) => {
                drop(state);
                panic!("the executor is broken");
            }
            "missing" => return Err(TaskError::fatal("No such image: missing:latest")),
            "flaky" if state.flaked.insert(id) => return Err(TaskError::temporary("registry is busy")),
            _ => {}
        }
        let secrets =
            assignment.secrets.values().map(|s| (s.spec.name.clone(), s.spec.data.0.clone())).collect();
        state.containers.entry(id).or_insert(FakeContainer { image, secrets, ..FakeContainer::default() });
        Ok(())
    }

    async fn start(&self, assignment: &TaskAssignment) -> Result<ContainerStatus, TaskError> {
        let id = assignment.task.id;
        let mut state = self.step("start", id);
        let container = state.containers.get_mut(&id).ok_or_else(|| TaskError::fatal("no such container"))?;
        if container.exit_code.is_some() {
            let container = Some(Box::new(status(id, container)));
            return Err(TaskError::Fatal { reason: "the container has exited".to_owned(), container });
        }
        if container.image == "broken" {
            return Err(TaskError::fatal("exec: \"broken\": executable file not found in $PATH"));
        }
        container.started = true;
        let started = status(id, container);
        container.exit_code = container.image.strip_prefix("exit-").and_then(|code| code.parse().ok());
        let work = container.image.strip_prefix("work-").and_then(|millis| millis.parse().ok());
        container.ends_at = work.map(|millis| Instant::now() + Duration::from_millis(millis));
        Ok(started)
    }

    async fn wait(&self, task: TaskId) -> Result<ContainerStatus, TaskError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let ends_at = match self.state().containers.get(&task) {
                None => return Err(TaskError::fatal("no such container")),
                Some(container) if container.exit_code.is_some() => return Ok(status(task, container)),
                Some(container) => container.ends_at,
            };
            let its_end = async {
                match ends_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = its_end => {}
                told = changed.changed() => if told.is_err() {
                    return Err(TaskError::temporary("the host is gone"));
                }
            }
        }
    }

    async fn shutdown(&self, assignment: &TaskAssignment) -> Result<Option<ContainerStatus>, TaskError> {
        let id = assignment.task.id;
        let is_stubborn =
            self.state().containers.get(&id).is_some_and(|c| c.image == "stubborn" && c.is_alive());
        if is_stubborn {
            tokio::time::sleep(STUBBORN).await;
        }
        let stopped = {
            let mut state = self.step("shutdown", id);
            state.containers.get_mut(&id).map(|container| {
                container.exit_code.get_or_insert(143);
                status(id, container)
            })
        };
        self.tell();
        Ok(stopped)
    }

    async fn remove(&self, task: TaskId) -> Result<(), TaskError> {
        self.step("remove", task).containers.remove(&task);
        self.tell();
        Ok(())
    }

    async fn list(&self) -> Vec<Held> {
        let held = |(id, c): (&TaskId, &FakeContainer)| Held {
            task: *id,
            container: status(*id, c),
            running: c.is_alive(),
        };
        self.state().containers.iter().map(held).collect()
    }

    async fn apply_network(&self, table: NetworkTable) -> Result<(), TaskError> {
        let mut state = self.state();
        let held = state.networks.get(&table.network).map_or(0, |t| t.version);
        if table.version >= held {
            state.networks.insert(table.network, table);
        }
        Ok(())
    }

    async fn drop_network(&self, network: NetworkId) -> Result<(), TaskError> {
        self.state().networks.remove(&network);
        Ok(())
    }

    async fn apply_ingress(&self, table: IngressTable) -> Result<(), TaskError> {
        self.state().ingress = Some(table);
        Ok(())
    }
}
