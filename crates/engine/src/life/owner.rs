//! The owner task of one container: the only one that changes it.
//!
//! ```text
//!   created --start--> running <--pause/unpause--> paused
//!                        | exit
//!        .---------------+----------------.
//!        v policy                         v
//!   restarting --after back-off--> start  exited --start--> running
//!   any (stopped or forced) --remove--> removing --> gone
//! ```
//!
//! What wakes it: a command, the shim, a deadline (grace of a stop, back-off of a restart, healthcheck), the end of
//! the engine. `operations` holds what it then does, `probe` the healthcheck.

use crate::{
    disk::persist,
    error::{Error, Result, runtime_failed},
    inner::Inner,
    life::{
        command::{Command, Reply, answer},
        health,
        restart::Backoff,
        streams::ShimEnds,
    },
    seen::{
        container::*,
        event::{Event, EventKind, container_event},
    },
};
use model::Timestamp;
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// A probe under way.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Of its exec.
    pub(crate) id: String,
    pub(crate) begun: Timestamp,
    pub(crate) deadline: Instant,
    pub(crate) output: oneshot::Receiver<Vec<u8>>,
}

/// A stop under way.
#[derive(Debug)]
pub(crate) struct Stopping {
    /// When SIGKILL follows; `None` = never, or it has been sent.
    pub(crate) kill_at: Option<Instant>,
    /// Nobody asked for it: the host goes down.
    pub(crate) for_host: bool,
}

/// What to do when the present run has ended, and whom to tell.
#[derive(Debug, Default)]
pub(crate) struct AfterExit {
    pub(crate) stopped: Vec<Reply<()>>,
    pub(crate) restart: Vec<Reply<()>>,
    pub(crate) remove: Option<(RemoveOptions, Vec<Reply<()>>)>,
}

pub(crate) struct Owner {
    pub(crate) inner: Arc<Inner>,
    /// `DATA_ROOT/containers/<id>`
    pub(crate) dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) container: Container,
    pub(crate) view: watch::Sender<Arc<Container>>,
    pub(crate) inbox: mpsc::Receiver<Command>,
    pub(crate) shim: Option<Arc<std::sync::Mutex<runtime::Shim>>>,
    pub(crate) readiness: Option<AsyncFd<OwnedFd>>,
    /// Streams opened before the start.
    pub(crate) early: Vec<ShimEnds>,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) after_exit: AfterExit,
    pub(crate) backoff: Backoff,
    pub(crate) restart_at: Option<Instant>,
    pub(crate) started: Option<Instant>,
    pub(crate) health: Option<health::Plan>,
    pub(crate) probe_at: Option<Instant>,
    pub(crate) probe: Option<Probe>,
    pub(crate) gone: bool,
}

/// What ended a wait.
enum Wake {
    Command(Box<Command>),
    Shim,
    Deadline,
    /// The engine ends, or nobody can ask any more.
    End,
}

impl Owner {
    pub(crate) fn new(inner: Arc<Inner>, container: Container) -> (Self, crate::life::registry::Handle) {
        let (commands, inbox) = mpsc::channel(64);
        let (view, watched) = watch::channel(Arc::new(container.clone()));
        let owner = Self {
            dir: inner.container_dir(&container.id),
            run_dir: inner.run_dir(&container.id),
            inner,
            container,
            view,
            inbox,
            shim: None,
            readiness: None,
            early: Vec::new(),
            stopping: None,
            after_exit: AfterExit::default(),
            backoff: Backoff::default(),
            restart_at: None,
            started: None,
            health: None,
            probe_at: None,
            probe: None,
            gone: false,
        };
        (owner, crate::life::registry::Handle { commands, view: watched })
    }

    /// Runs until the container is removed or the engine ends.
    pub(crate) async fn run(mut self) {
        while !self.gone {
            match self.wake().await {
                Wake::Command(command) => self.obey(*command).await,
                Wake::Shim => self.hear_shim().await,
                Wake::Deadline => self.meet_deadlines().await,
                Wake::End => break,
            }
            // A call to the shim may have read events that came in between.
            if self.shim.is_some() {
                self.hear_shim().await;
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let kill_at = self.stopping.as_ref().and_then(|s| s.kill_at);
        let probe_ends = self.probe.as_ref().map(|p| p.deadline);
        let deadline = [kill_at, self.restart_at, self.probe_at, probe_ends].into_iter().flatten().min();
        let Self { inner, inbox, readiness, .. } = self;
        let shim = async {
            match readiness {
                Some(fd) => {
                    if let Ok(mut guard) = fd.ready(Interest::READABLE).await {
                        guard.clear_ready(); // before reading: what comes later wakes again
                    }
                }
                None => std::future::pending().await,
            }
        };
        let due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = inner.cancel.cancelled() => Wake::End,
            () = shim => Wake::Shim,
            () = due => Wake::Deadline,
            command = inbox.recv() => command.map_or(Wake::End, |c| Wake::Command(Box::new(c))),
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start(reply) => {
                let result = self.start_on_demand().await;
                answer(reply, result);
            }
            Command::Stop(options, reply) => self.stop(&options, reply).await,
            Command::HostGoes(reply) => self.host_goes(reply).await,
            Command::Kill(signal, reply) => self.kill(signal, reply).await,
            Command::Restart(options, reply) => self.restart(&options, reply).await,
            Command::Pause(reply) => {
                let result = self.pause().await;
                answer(reply, result);
            }
            Command::Unpause(reply) => {
                let result = self.unpause().await;
                answer(reply, result);
            }
            Command::Rename(name, reply) => {
                let result = self.rename(name).await;
                answer(reply, result);
            }
            Command::Update(update, reply) => {
                let result = self.update(*update).await;
                answer(reply, result);
            }
            Command::Unlink(alias, reply) => {
                let result = self.unlink(&alias).await;
                answer(reply, result);
            }
            Command::Remove(options, reply) => self.remove_on_demand(options, reply).await,
            Command::Attach(ends, reply) => {
                let result = self.attach(ends).await;
                answer(reply, result);
            }
            Command::Resize { exec, rows, cols, reply } => {
                let has_terminal = match &exec {
                    None => self.container.config.tty,
                    Some(id) => self.inner.exec(id).is_ok_and(|exec| exec.config.tty),
                };
                let resize = move |shim: &runtime::Shim| {
                    // What has none is of any size. *Source:* containerd `cmd/containerd-shim-runc-v2/process`, `Resize`.
                    if has_terminal { shim.resize(exec.as_deref(), rows, cols) } else { Ok(()) }
                };
                let result = self.with_shim("resize", resize).await;
                answer(reply, result);
            }
            Command::Exec { id, process, ends, reply } => {
                let result = self.exec(id, *process, ends).await;
                answer(reply, result);
            }
            Command::Connect(network, endpoint, reply) => {
                let result = self.connect(*network, endpoint).await;
                answer(reply, result);
            }
            Command::Disconnect(network, reply) => {
                let result = self.disconnect(&network).await;
                answer(reply, result);
            }
        }
    }

    async fn meet_deadlines(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.stopping.as_ref().and_then(|s| s.kill_at)) {
            if let Some(stopping) = &mut self.stopping {
                stopping.kill_at = None;
            }
            self.kill_hard().await;
        }
        if due(self.restart_at) {
            self.restart_at = None;
            self.start_again().await;
        }
        if due(self.probe.as_ref().map(|p| p.deadline)) {
            self.probe_timed_out().await;
        }
        if due(self.probe_at) {
            self.probe_at = None;
            self.start_probe().await;
        }
    }

    /// Reads all events that are there.
    pub(crate) async fn hear_shim(&mut self) {
        while let Some(shim) = self.shim.clone() {
            let next = shim.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next_event();
            match next {
                Ok(None) => return,
                Ok(Some(runtime::Event::Oom)) => self.event("oom", []),
                Ok(Some(runtime::Event::ExecExited { id, code })) => self.exec_ended(&id, code).await,
                Ok(Some(runtime::Event::Exited(status))) => self.ended(status).await,
                Err(e) => {
                    tracing::warn!(container.id = %self.container.id, error = %e, "shim lost");
                    let status = runtime::read_exit(&self.run_dir).unwrap_or_else(lost);
                    self.ended(status).await;
                }
            }
        }
    }

    /// Calls the shim on a thread where blocking is fine.
    ///
    /// # Errors
    /// `NotRunning` without a shim, else what the shim says.
    pub(crate) async fn with_shim<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&runtime::Shim) -> Result<T, runtime::Error> + Send + 'static,
    ) -> Result<T> {
        let id = self.container.id.clone();
        let Some(shim) = self.shim.clone().filter(|_| self.container.state.is_running()) else {
            return Err(Error::NotRunning(id));
        };
        crate::blocking(move || {
            let shim = shim.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            call(&shim).map_err(|e| runtime_failed(operation, &id, e))
        })
        .await
    }

    /// Takes a shim over: from now on its events are heard.
    pub(crate) fn adopt(&mut self, shim: runtime::Shim) -> Result<()> {
        let io = |source| Error::Io { operation: "watch", path: self.run_dir.clone(), source };
        let watched = shim.as_fd().try_clone_to_owned().map_err(io)?;
        let io = |source| Error::Io { operation: "watch", path: self.run_dir.clone(), source };
        self.readiness = Some(crate::logs::read::wait_readable(watched).map_err(io)?);
        self.shim = Some(Arc::new(std::sync::Mutex::new(shim)));
        Ok(())
    }

    /// Shows the present state to readers.
    pub(crate) fn publish(&self) {
        self.view.send_replace(Arc::new(self.container.clone()));
    }

    /// Writes `state.json`, on the platter, then publishes.
    pub(crate) async fn save(&self) -> Result<()> {
        let (path, container) = (self.dir.join("state.json"), self.container.clone());
        crate::blocking(move || persist::append_json(&path, &container, true)).await?;
        self.publish();
        Ok(())
    }

    /// Publishes, and writes what can also be found out after a crash: without waiting for the platter, and an error
    /// is only worth a line.
    pub(crate) async fn note(&self) {
        self.publish();
        let (path, container) = (self.dir.join("state.json"), self.container.clone());
        if let Err(e) = crate::blocking(move || persist::append_json(&path, &container, false)).await {
            tracing::warn!(container.id = %self.container.id, error = %e, "state not written");
        }
    }

    /// Publishes an event of this container.
    pub(crate) fn event<const N: usize>(&self, action: impl Into<String>, more: [(&str, String); N]) {
        self.inner.publish(container_event(&self.container, action, more));
    }
}

/// What becomes of a container's places on networks and in volumes when it starts and when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    Taken,
    Left,
}

impl Owner {
    /// Publishes the events of networks and volumes that go with a start or an end: who keeps a list of addresses (a
    /// proxy, a name server) listens to these. *Source:* moby `daemon/container_operations.go`, `volumes_unix.go`.
    pub(crate) fn tell_of_places(&self, places: Places) {
        let (inner, container) = (&self.inner, &self.container);
        let action = if places == Places::Taken { "connect" } else { "disconnect" };
        for (name, endpoint) in &container.networks {
            inner.membership_event(action, name, &endpoint.network_id, &container.id);
        }
        for mount in container.mounts.iter().filter(|m| m.kind == MountPointKind::Volume) {
            let mut attributes = BTreeMap::from([
                ("driver".to_owned(), mount.driver.clone()),
                ("container".to_owned(), container.id.clone()),
            ]);
            if places == Places::Taken {
                attributes.insert("destination".to_owned(), mount.destination.clone());
                attributes.insert("read/write".to_owned(), mount.writable.to_string());
                attributes.insert("propagation".to_owned(), mount.propagation.clone());
            }
            let action = if places == Places::Taken { "mount" } else { "unmount" };
            inner.publish(Event::now(EventKind::Volume, action, mount.name.clone(), attributes));
        }
    }
}

/// The end of a container whose shim vanished without a word.
pub(crate) fn lost() -> runtime::ExitStatus {
    runtime::ExitStatus { code: 137, signal: Some(9), oom: false, at: sys::clock::now() }
}

/// The grace between stop signal and SIGKILL when nobody says.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
