//! The engine of this host as the agent sees it: a task becomes a container.

use crate::{
    hooks,
    task_container::{self, Around, LABEL_TASK},
    waiting::{self, Waiting},
};
use agent::{Held, News, NodeConfig, TaskAssignment, TaskError};
use engine::{
    ContainerConfig, ContainerFile, Engine, ErrorKind, HealthStatus, NetworkMode, OverlayAttachment,
    RemoveOptions, Status, StopOptions, SwarmAttachments,
};
use futures::future::BoxFuture;
use model::{
    ContainerStatus, Duration, FileRef, GenericResources, IngressTable, NetworkId, NetworkTable,
    NodeDescription, NodeNetwork, NodeTls, Platform, Resources, Supply, Task, TaskId, with_causes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

/// How long a stop waits beyond the grace period before the task counts as stuck.
const STOP_SLACK: Duration = Duration::from_secs(10);
/// Longest that a task's hooks after its start may take together.
const HOOKS_LIMIT: Duration = Duration::from_secs(300);

/// Brings an image to this host: from a node that has it, else from its registry.
pub(crate) type Fetch = Arc<dyn Fn(Wanted, News) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// An image that a task needs.
pub(crate) struct Wanted {
    /// As the task names it.
    pub(crate) image: String,
    pub(crate) reference: image::Reference,
    /// What its registry is shown.
    pub(crate) auth: Option<image::Auth>,
}

/// Returns what this host is, in the words of Docker's node description.
fn platform() -> Platform {
    Platform { os: "linux".to_owned(), architecture: std::env::consts::ARCH.to_owned() }
}

fn node_tls(credentials: &pki::Credentials) -> NodeTls {
    let issuer = credentials.issuer();
    NodeTls {
        trust: pki::sha256(credentials.root_pem().as_bytes()).to_vec(),
        issuer_subject: issuer.as_ref().map(|i| i.subject.clone()).unwrap_or_default(),
        issuer_public_key: issuer.map(|i| i.public_key).unwrap_or_default(),
    }
}

/// What the host says of itself and where it finds images.
pub(crate) struct HostExecutor {
    /// Those that hold; they may change.
    pub(crate) settings: crate::InForce,
    pub(crate) engine: Engine,
    pub(crate) hostname: String,
    pub(crate) addr: SocketAddr,
    pub(crate) data_addr: IpAddr,
    pub(crate) fetch: Fetch,
    /// `None` while the node leaves.
    pub(crate) credentials: Option<pki::Credentials>,
    /// Set with the first welcome.
    pub(crate) node: Mutex<Option<NodeConfig>>,
    /// Names of the overlay networks seen, for inspect.
    pub(crate) network_names: Mutex<BTreeMap<NetworkId, String>>,
    /// What the last look at this host's devices found.
    pub(crate) found: Mutex<GenericResources>,
    /// Starts of people's containers that wait for a task.
    pub(crate) waiting: Arc<Waiting>,
}

impl std::fmt::Debug for HostExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostExecutor").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

fn fatal(error: &dyn std::error::Error) -> TaskError {
    TaskError::fatal(with_causes(error))
}

fn temporary(error: &dyn std::error::Error) -> TaskError {
    TaskError::temporary(with_causes(error))
}

fn status_of(container: &engine::Container) -> ContainerStatus {
    let ended = matches!(container.state.status, Status::Exited | Status::Dead);
    ContainerStatus {
        container_id: container.id.clone(),
        pid: container.state.pid.and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
        exit_code: ended.then_some(container.state.exit_code),
        oom_killed: container.state.oom_killed,
    }
}

fn ended(container: &engine::Container) -> TaskError {
    let state = &container.state;
    let reason = match (&state.error, state.exit_code) {
        (error, _) if !error.is_empty() => error.clone(),
        (_, code) if state.oom_killed => format!("task: non-zero exit ({code}): out of memory"),
        (_, code) => format!("task: non-zero exit ({code})"),
    };
    TaskError::Fatal { reason, container: Some(Box::new(status_of(container))) }
}

impl HostExecutor {
    /// Returns the container of a task, if there is one.
    async fn find(&self, task: TaskId) -> Result<Option<Arc<engine::Container>>, TaskError> {
        let mut options = engine::ListOptions { all: true, ..engine::ListOptions::default() };
        options.filters.0.insert("label".to_owned(), vec![format!("{LABEL_TASK}={task}")]);
        let found = self.engine.list(options).await.map_err(|e| temporary(&e))?;
        Ok(found.into_iter().next())
    }

    async fn ensure_image(&self, assignment: &TaskAssignment, news: &News) -> Result<(), TaskError> {
        let image = &assignment.task.spec.container.image;
        if self.engine.images().get(image).await.is_some() {
            return Ok(());
        }
        let reference = image.parse::<image::Reference>().map_err(|e| fatal(&e))?;
        let auth = match &assignment.registry_auth {
            None => None,
            Some(text) => docker_api::server::registry_auth(&text.0).map_err(|e| fatal(&e))?,
        };
        let wanted = Wanted { image: image.clone(), reference, auth };
        (self.fetch)(wanted, news.clone()).await.map_err(TaskError::fatal)
    }

    fn container_config(&self, assignment: &TaskAssignment) -> Result<ContainerConfig, TaskError> {
        let task = &assignment.task;
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let node = node.ok_or_else(|| TaskError::temporary("this node has not been welcomed yet"))?;
        let (platform, node_id) = (platform(), node.id);
        let node = template::task::Node { id: node.id, hostname: &self.hostname, platform: &platform };
        let values = template::task::Values::new(task, node);
        let spec = &template::task::container(&task.spec.container, &values).map_err(|e| fatal(&e))?;

        let (network_mode, swarm) = self.network_of(task);
        let around = Around { node: node_id, network_mode, swarm, files: files(assignment, spec, &values)? };
        Ok(task_container::config(task, spec, around))
    }

    /// What tasks can reserve here.
    async fn generic_resources(&self) -> GenericResources {
        let now = self.engine.generic_resources().await;
        let mut before = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match now {
            Ok((now, _)) => {
                let told = now_or_before(&now, &before);
                *before = now;
                told
            }
            // The engine is closing: nothing is gone for that.
            Err(_) => before.clone(),
        }
    }

    /// What this host reaches beside rswarm; nothing while the kernel does not say.
    async fn foreign_networks(&self) -> Vec<ipnet::IpNet> {
        let known = self.engine.network_service().foreign_networks().await;
        let mut known = known.unwrap_or_else(|error| {
            tracing::debug!(error = %model::with_causes(&error), "cannot tell which networks this host reaches");
            Vec::new()
        });
        known.truncate(model::NETWORKS_MAX);
        known
    }

    fn network_of(&self, task: &Task) -> (NetworkMode, Option<SwarmAttachments>) {
        match task.node_network {
            Some(NodeNetwork::Host) => return (NetworkMode::Host, None),
            Some(NodeNetwork::None) => return (NetworkMode::None, None),
            Some(NodeNetwork::Bridge) => return (NetworkMode::Bridge, None),
            None => {}
        }
        // A manager from before tasks said so gives neither attachment nor gateway to one on the host's network.
        if task.attachments.is_empty() && task.gateway_address.is_none() && !task.spec.networks.is_empty() {
            return (NetworkMode::Host, None);
        }
        let names = self.network_names.lock().unwrap_or_else(PoisonError::into_inner);
        let overlays = task.attachments.iter().map(|a| OverlayAttachment {
            network: a.network,
            network_name: names.get(&a.network).cloned().unwrap_or_else(|| a.network.to_string()),
            task: task.id,
            address: a.address,
            aliases: a.aliases.clone(),
        });
        let swarm = SwarmAttachments { overlays: overlays.collect(), gateway: task.gateway_address };
        (NetworkMode::Swarm, Some(swarm))
    }
}

/// Returns what is there `now` or was there at the look before. A device is gone when two looks in a row do not find it:
/// a vendor's tools write their descriptions anew while tasks use the devices.
fn now_or_before(now: &GenericResources, before: &GenericResources) -> GenericResources {
    let mut all = now.clone();
    for (kind, supply) in before {
        match (all.get_mut(kind), supply) {
            (Some(Supply::Named(names)), Supply::Named(more)) => names.extend(more.iter().cloned()),
            (Some(_), _) => {}
            (None, supply) => {
                all.insert(kind.clone(), supply.clone());
            }
        }
    }
    all
}

/// Returns the secrets and configs of a task as files in memory, those that are templates filled in.
fn files(
    assignment: &TaskAssignment,
    spec: &model::ContainerSpec,
    values: &template::task::Values,
) -> Result<Vec<ContainerFile>, TaskError> {
    let secret = |file: &FileRef<_>| assignment.secrets.get(&file.id).map(|s| &s.spec);
    let config = |file: &FileRef<_>| assignment.configs.get(&file.id).map(|c| &c.spec);
    let has = template::task::Payload {
        secrets: spec
            .secrets
            .iter()
            .filter_map(|file| Some((file.target.as_str(), secret(file)?.data.0.as_slice())))
            .collect(),
        configs: spec
            .configs
            .iter()
            .filter_map(|file| Some((file.target.as_str(), config(file)?.data.as_slice())))
            .collect(),
        env: spec.env.iter().filter_map(|variable| variable.split_once('=')).collect(),
    };
    let filled = |kind: &str, name: &str, templated: bool, data: &[u8]| {
        if !templated {
            return Ok(data.to_vec());
        }
        // Never the data itself.
        values
            .payload(data, &has)
            .map_err(|error| TaskError::fatal(format!("expanding {kind} {name} failed: {error}")))
    };
    let secrets = spec.secrets.iter().map(|file| {
        let data = secret(file).map(|spec| filled("secret", &file.name, spec.templated, &spec.data.0));
        container_file("secret", "/run/secrets/", file, data.transpose()?.as_deref())
    });
    let configs = spec.configs.iter().map(|file| {
        let data = config(file).map(|spec| filled("config", &file.name, spec.templated, &spec.data));
        container_file("config", "/", file, data.transpose()?.as_deref())
    });
    secrets.chain(configs).collect()
}

fn container_file<Id>(
    kind: &str,
    below: &str,
    file: &FileRef<Id>,
    data: Option<&[u8]>,
) -> Result<ContainerFile, TaskError> {
    let data =
        data.ok_or_else(|| TaskError::temporary(format!("{kind} {} has not arrived yet", file.name)))?;
    let number = |what: &str, text: &str| {
        if text.is_empty() {
            return Ok(0);
        }
        text.parse::<u32>()
            .map_err(|_| TaskError::fatal(format!("{kind} {}: {what} {text:?} is not a number", file.name)))
    };
    let target =
        if file.target.starts_with('/') { file.target.clone() } else { format!("{below}{}", file.target) };
    Ok(ContainerFile {
        target,
        uid: number("uid", &file.uid)?,
        gid: number("gid", &file.gid)?,
        mode: file.mode,
        content: engine::SecretBytes(Arc::from(data)),
    })
}

#[async_trait::async_trait]
impl agent::Executor for HostExecutor {
    async fn describe(&self) -> NodeDescription {
        let info = rustix::system::sysinfo();
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        NodeDescription {
            hostname: self.hostname.clone(),
            platform: platform(),
            resources: Resources {
                cpu_nanos: cpus * 1_000_000_000,
                memory_bytes: info.totalram as u64 * u64::from(info.mem_unit),
                pids: 0,
            },
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            generic: self.generic_resources().await,
            // They were read without an error when the settings were.
            engine_labels: self.settings.load().engine_labels().unwrap_or_default(),
            addr: self.addr,
            data_addr: self.data_addr,
            feature_level: model::FEATURE_LEVEL,
            networks: self.foreign_networks().await,
            unfit: self.engine.unfit(),
            tls: self.credentials.as_ref().map(node_tls).unwrap_or_default(),
        }
    }

    async fn configure(&self, node: NodeConfig) -> Result<(), TaskError> {
        let identity = network::NodeIdentity {
            node: node.id,
            index: node.index,
            data_addr: self.data_addr,
            data_port: node.data_port,
            mesh_subnet: node.mesh_subnet,
            task_pool: node.task_pool,
        };
        self.engine.network_service().join_swarm(identity).await.map_err(|e| temporary(&e))?;
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        Ok(())
    }

    async fn prepare(&self, assignment: &TaskAssignment, news: &News) -> Result<(), TaskError> {
        let task = &assignment.task;
        if task.attaches.is_some() || self.find(task.id).await?.is_some() {
            return Ok(());
        }
        self.ensure_image(assignment, news).await?;
        let config = self.container_config(assignment)?;
        match self.engine.create(config).await {
            Ok(_) => Ok(()),
            // Made by a call that was dropped before it answered.
            Err(error) if error.kind() == ErrorKind::Conflict && self.find(task.id).await?.is_some() => {
                Ok(())
            }
            Err(error) => Err(fatal(&error)),
        }
    }

    async fn start(&self, assignment: &TaskAssignment) -> Result<ContainerStatus, TaskError> {
        let task = &assignment.task;
        if task.attaches.is_some() {
            return self.waiting.start(&self.engine, task).await;
        }
        let Some(container) = self.find(task.id).await? else {
            return Err(TaskError::fatal("its container is gone"));
        };
        match container.state.status {
            Status::Exited | Status::Dead => return Err(ended(&container)),
            _ if container.state.is_running() => {}
            _ => {
                let started = self.engine.start(&container.id).await;
                match started {
                    // After a daemon that ended between the two, they are not run again: it is running already.
                    Ok(_) => {
                        let hooks = &task.spec.container.post_start;
                        hooks::run(&self.engine, &container.id, "post_start", hooks, HOOKS_LIMIT).await?;
                    }
                    Err(error) if error.kind() == ErrorKind::NotModified => {}
                    Err(error) => return Err(fatal(&error)),
                }
            }
        }
        let mut view = self.engine.watch(&container.id).map_err(|e| fatal(&e))?;
        loop {
            let now = view.borrow_and_update().clone();
            if !now.state.is_running() {
                return Err(ended(&now));
            }
            match now.health().map(|h| h.status) {
                None | Some(HealthStatus::Healthy) => return Ok(status_of(&now)),
                Some(HealthStatus::Unhealthy) => return Err(unhealthy(&now)),
                Some(_) => {}
            }
            if view.changed().await.is_err() {
                return Err(TaskError::fatal("its container was removed by somebody else"));
            }
        }
    }

    async fn wait(&self, task: TaskId) -> Result<ContainerStatus, TaskError> {
        if let Some(ended) = waiting::until_free(&self.engine, task).await {
            return Ok(ended);
        }
        let Some(container) = self.find(task).await? else {
            return Err(TaskError::fatal("its container is gone"));
        };
        let mut view = self.engine.watch(&container.id).map_err(|e| fatal(&e))?;
        loop {
            let now = view.borrow_and_update().clone();
            if now.state.status == Status::Created {
                // It ran, and a power cut has taken the note of that.
                return Err(TaskError::fatal("its host went down when it had just been started"));
            }
            if !now.state.is_running() {
                return if now.state.error.is_empty() { Ok(status_of(&now)) } else { Err(ended(&now)) };
            }
            if now.health().is_some_and(|h| h.status == HealthStatus::Unhealthy) {
                return Err(unhealthy(&now));
            }
            if view.changed().await.is_err() {
                return Err(TaskError::fatal("its container was removed by somebody else"));
            }
        }
    }

    async fn shutdown(&self, assignment: &TaskAssignment) -> Result<Option<ContainerStatus>, TaskError> {
        let task = &assignment.task;
        if task.attaches.is_some() {
            return self.engine.take_off(task.id).await.map(|()| None).map_err(|e| temporary(&e));
        }
        let Some(container) = self.find(task.id).await? else { return Ok(None) };
        let grace = task.spec.container.stop_grace_period.unwrap_or(Duration::from_secs(10));
        if container.state.is_running() {
            let hooks = &task.spec.container.pre_stop;
            if let Err(error) = hooks::run(&self.engine, &container.id, "pre_stop", hooks, grace).await {
                // It is to stop all the same.
                tracing::warn!(task.id = %task.id, %error, "a hook failed");
            }
        }
        if may_run(container.state.status) {
            let stop = self.engine.stop(&container.id, StopOptions { signal: None, timeout: Some(grace) });
            match tokio::time::timeout(grace.saturating_add(STOP_SLACK), stop).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if matches!(error.kind(), ErrorKind::NotModified | ErrorKind::NotFound) => {}
                Ok(Err(error)) => return Err(temporary(&error)),
                Err(_) => return Err(TaskError::temporary("it did not end after SIGKILL")),
            }
        }
        let last = self.find(task.id).await?;
        if let Err(error) = self.engine.network_service().drain(task.id).await {
            tracing::warn!(task.id = %task.id, error = with_causes(&error), "connections of an ended task not forgotten");
        }
        Ok(last.map(|c| status_of(&c)))
    }

    async fn remove(&self, task: TaskId) -> Result<(), TaskError> {
        self.engine.take_off(task).await.map_err(|e| temporary(&e))?;
        let Some(container) = self.find(task).await? else { return Ok(()) };
        match self.engine.remove(&container.id, RemoveOptions { force: true, volumes: true }).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(temporary(&error)),
        }
    }

    async fn list(&self) -> Vec<Held> {
        let options = engine::ListOptions { all: true, ..engine::ListOptions::default() };
        let containers = match self.engine.list(options).await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::error!(error = with_causes(&error), "cannot list the containers of tasks");
                return Vec::new();
            }
        };
        let mut seen = BTreeSet::new();
        let mut held = Vec::new();
        for container in &containers {
            let own = container.config.labels.get(LABEL_TASK).and_then(|id| id.parse::<TaskId>().ok());
            let attaching = container.overlays.iter().map(|place| place.task);
            for task in own.into_iter().chain(attaching).filter(|task| seen.insert(*task)) {
                let running = container.state.is_running();
                held.push(Held { task, container: status_of(container), running });
            }
        }
        held
    }

    async fn apply_network(&self, table: NetworkTable) -> Result<(), TaskError> {
        let (id, name) = (table.network, table.name.clone());
        self.engine.network_service().apply_table(table).await.map_err(|e| temporary(&e))?;
        self.network_names.lock().unwrap_or_else(PoisonError::into_inner).insert(id, name);
        Ok(())
    }

    async fn drop_network(&self, network: NetworkId) -> Result<(), TaskError> {
        self.engine.network_service().drop_table(network).await.map_err(|e| temporary(&e))?;
        self.network_names.lock().unwrap_or_else(PoisonError::into_inner).remove(&network);
        Ok(())
    }

    async fn apply_ingress(&self, table: IngressTable) -> Result<(), TaskError> {
        self.engine.network_service().apply_ingress(table).await.map_err(|e| temporary(&e))
    }
}

/// Does a container run, or will it by itself? A start that was abandoned goes on: a stop waits for it, and ends what
/// it began.
fn may_run(status: Status) -> bool {
    match status {
        Status::Created | Status::Running | Status::Paused | Status::Restarting | Status::Removing => true,
        Status::Exited | Status::Dead => false,
    }
}

fn unhealthy(container: &engine::Container) -> TaskError {
    let last = container.health().and_then(|h| h.log.last()).map(|p| p.output.trim().to_owned());
    let reason = match last {
        Some(output) if !output.is_empty() => format!("unhealthy container: {output}"),
        _ => "unhealthy container".to_owned(),
    };
    TaskError::Fatal { reason, container: Some(Box::new(status_of(container))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_is_being_started_is_stopped_too() {
        assert!(may_run(Status::Created), "until it runs, that is how it looks");
        assert!(may_run(Status::Running) && may_run(Status::Paused));
        assert!(!may_run(Status::Exited) && !may_run(Status::Dead));
    }

    #[test]
    fn a_device_that_is_not_found_once_is_not_gone() {
        let gpus = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            GenericResources::from([("a.com/gpu".to_owned(), Supply::Named(names))])
        };
        let nothing = GenericResources::new();
        assert_eq!(now_or_before(&nothing, &gpus(&["0"])), gpus(&["0"]));
        assert_eq!(now_or_before(&gpus(&["1"]), &gpus(&["0"])), gpus(&["0", "1"]));
        assert_eq!(now_or_before(&gpus(&["1"]), &nothing), gpus(&["1"]));
        assert_eq!(now_or_before(&nothing, &nothing), nothing);
    }
}
