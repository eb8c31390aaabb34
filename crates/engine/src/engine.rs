//! The handle: every operation on containers that the REST server and the agent's executor call.
//! Volumes and networks have their calls in [`crate::volumes::api`] and [`crate::networks::api`].

use crate::{
    ask::{
        config::ContainerConfig,
        execs::{Exec, ExecConfig, ExecStart},
    },
    error::{Error, Result},
    files::{
        archive::{self, ArchiveReader, PathStat, PutOptions},
        commit::CommitOptions,
    },
    inner::{Engine, Options},
    life::{
        command::Command,
        create,
        streams::{self, AttachOptions, Streams},
    },
    logs::read::{LogOptions, Logs},
    open,
    seen::{
        container::*,
        event::{Event, EventKind},
        stats::Stats,
    },
    spec::cdi::Inventory,
};
use model::{GenericResources, Supply};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tokio::sync::{broadcast, watch};

impl Engine {
    /// Opens the engine: adopts running containers, collects exit codes of those that ended meanwhile, removes what
    /// a killed daemon left half-made, and starts again those whose restart policy asks for it.
    ///
    /// # Errors
    /// When the roots cannot be used. One container that cannot be read does not keep the others from opening.
    pub async fn open(options: Options) -> Result<Self> {
        open::open(options).await
    }

    /// Ends all tasks of the engine. Containers keep running.
    pub async fn shutdown(&self) {
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Returns the image store.
    pub fn images(&self) -> &image::Store {
        &self.inner.images
    }

    /// Returns the plugins that are kept here; none runs.
    pub fn plugins(&self) -> &image::Plugins {
        &self.inner.plugins
    }

    /// Returns the network service.
    pub fn network_service(&self) -> &network::Network {
        &self.inner.network
    }

    /// Returns what tasks of a swarm can reserve here beside CPUs and memory: what the operator says, and the devices
    /// that vendors describe now (`nvidia.com/gpu`: the name of each). Then what keeps descriptions from being used:
    /// file and reason.
    ///
    /// # Errors
    /// When the engine is closing.
    pub async fn generic_resources(&self) -> Result<(GenericResources, Vec<String>)> {
        let folders = self.inner.defaults.cdi_spec_dirs.clone();
        let found = crate::blocking(move || Ok(Inventory::read(&folders))).await?;
        let mut all: GenericResources =
            found.all().into_iter().map(|(kind, names)| (kind, Supply::Named(names))).collect();
        all.extend(self.inner.defaults.generic_resources.clone());
        Ok((all, found.problems))
    }

    /// Returns the ids of the host that containers' own ids are, unless they say otherwise; `None` = the same ones.
    pub fn userns_remap(&self) -> Option<&runtime::IdMap> {
        self.inner.userns_remap.as_ref()
    }

    /// Returns the log driver of containers that name none.
    pub fn log_driver(&self) -> &str {
        match self.inner.defaults.log.driver.as_str() {
            "" => "json-file",
            driver => driver,
        }
    }

    /// Returns the folders where vendors describe their devices.
    pub fn cdi_spec_dirs(&self) -> &[PathBuf] {
        &self.inner.defaults.cdi_spec_dirs
    }

    // ---- life of a container ----

    /// Makes a container; it does not run yet.
    ///
    /// # Errors
    /// `NoSuchImage`, `NameInUse`, `InvalidParameter`; nothing is left behind.
    /// *Source:* API `ContainerCreate`.
    pub async fn create(&self, config: ContainerConfig) -> Result<Created> {
        create::create(self, config).await
    }

    /// Starts it; returns when its process has been executed.
    ///
    /// # Errors
    /// `AlreadyStarted`; `Start` with exit code 125, 126 or 127 when the process cannot be made or executed.
    pub async fn start(&self, container: &str) -> Result<()> {
        self.ask(container, Command::Start).await
    }

    /// Sends the stop signal, after the timeout SIGKILL; returns when it has ended. No restart policy applies.
    ///
    /// # Errors
    /// `AlreadyStopped`.
    pub async fn stop(&self, container: &str, options: StopOptions) -> Result<()> {
        self.ask(container, |reply| Command::Stop(options, reply)).await
    }

    /// Sends a signal (name or number; `None` = SIGKILL) to its first process.
    pub async fn kill(&self, container: &str, signal: Option<&str>) -> Result<()> {
        let signal = crate::ask::gate::signal_number(signal.unwrap_or("KILL"))?;
        self.ask(container, |reply| Command::Kill(signal, reply)).await
    }

    /// Stops it if it runs, then starts it.
    pub async fn restart(&self, container: &str, options: StopOptions) -> Result<()> {
        self.ask(container, |reply| Command::Restart(options, reply)).await
    }

    pub async fn pause(&self, container: &str) -> Result<()> {
        self.ask(container, Command::Pause).await
    }

    pub async fn unpause(&self, container: &str) -> Result<()> {
        self.ask(container, Command::Unpause).await
    }

    /// # Errors
    /// `NameInUse`, `InvalidParameter`.
    pub async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name).to_owned();
        crate::ask::names::check(&name)?;
        self.ask(container, |reply| Command::Rename(name, reply)).await
    }

    /// Changes limits and restart policy, also while it runs.
    pub async fn update(&self, container: &str, update: Update) -> Result<()> {
        self.ask(container, |reply| Command::Update(Box::new(update), reply)).await
    }

    /// Takes a legacy link away from a container: its line in /etc/hosts, and its variables at the next start.
    ///
    /// # Errors
    /// `NoSuchContainer` in Docker's words when there is no such link.
    pub async fn unlink(&self, container: &str, alias: &str) -> Result<()> {
        self.ask(container, |reply| Command::Unlink(alias.to_owned(), reply)).await
    }

    /// Returns by what names containers are known through links of others, by id: `LINKED/ALIAS`.
    pub fn link_names(&self) -> BTreeMap<String, Vec<String>> {
        crate::networks::links::names_of_all(self)
    }

    /// Removes it with all that is its own.
    ///
    /// # Errors
    /// `RemoveRunning` unless forced; `RemovalInProgress`.
    pub async fn remove(&self, container: &str, options: RemoveOptions) -> Result<()> {
        if self.find(container).is_err()
            && let Some(id) = self.inner.registry.unreadable(container)
        {
            if !options.force {
                return Err(Error::Conflict(format!(
                    "the record of container {id} is damaged (see the daemon's log); hint: mend it and restart the \
                     daemon, or remove the container with --force"
                )));
            }
            return crate::open::remove_unreadable(self, &id).await;
        }
        self.ask(container, |reply| Command::Remove(options, reply)).await
    }

    /// Begins to wait; the answer comes from [`Waiting::exit`]. What happens after this call returns is not missed.
    pub fn wait(&self, container: &str, condition: WaitCondition) -> Result<Waiting> {
        let view = self.find(container)?.view;
        let exits = view.borrow().exits;
        Ok(Waiting { view, condition, exits })
    }

    /// Returns a snapshot of one container that changes as the container does; closed when it is removed.
    pub fn watch(&self, container: &str) -> Result<watch::Receiver<Arc<Container>>> {
        Ok(self.find(container)?.view)
    }

    pub fn inspect(&self, container: &str) -> Result<Arc<Container>> {
        Ok(self.find(container)?.view.borrow().clone())
    }

    /// Returns containers, newest first. Filters: `id name label status ancestor before since exited health network
    /// volume publish expose`.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<Arc<Container>>> {
        crate::seen::list::list(self, options).await
    }

    /// Removes all stopped containers. Filters: `label until`.
    pub async fn prune_containers(&self, filters: &Filters) -> Result<Pruned> {
        crate::seen::list::prune(self, filters).await
    }

    /// Measures the space a container takes; walks its folder.
    pub async fn size(&self, container: &str) -> Result<Size> {
        crate::seen::usage::size(self, &*self.inspect(container)?).await
    }

    // ---- looking into a running container ----

    /// Lists processes as `ps -ef` would; `ps_args` other than `-ef` or empty and `aux` are refused.
    pub async fn top(&self, container: &str, ps_args: &str) -> Result<Top> {
        let container = self.inspect(container)?;
        let top = crate::seen::top::top(self, &container, ps_args).await?;
        self.publish(crate::seen::event::container_event(&container, "top", []));
        Ok(top)
    }

    /// Takes one sample; all zero if it does not run.
    pub async fn stats(&self, container: &str) -> Result<Stats> {
        crate::seen::usage::stats(self, &*self.inspect(container)?).await
    }

    /// Opens its streams. A container that does not run yet gets them at its next start, so attaching before
    /// `start` loses nothing.
    pub async fn attach(&self, container: &str, options: AttachOptions) -> Result<Streams> {
        let view = self.inspect(container)?;
        let wanted =
            streams::Wanted { stdin: options.streams.stdin && view.config.open_stdin, ..options.streams };
        let (ours, theirs) =
            streams::pair(wanted, view.config.tty).map_err(Error::io("make socket pair for", &view.id))?;
        self.ask(container, |reply| Command::Attach(theirs, reply)).await?;
        Ok(ours)
    }

    /// Tells that somebody who was attached left it, and it goes on.
    pub fn detached(&self, container: &str) {
        if let Ok(container) = self.inspect(container) {
            self.publish(crate::seen::event::container_event(&container, "detach", []));
        }
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, container: &str, rows: u16, cols: u16) -> Result<()> {
        self.ask(container, |reply| Command::Resize { exec: None, rows, cols, reply }).await
    }

    /// Returns a stream of log entries; it ends at the end, with `follow` when the container has ended.
    ///
    /// # Errors
    /// `InvalidParameter` if the log driver keeps nothing.
    pub async fn logs(&self, container: &str, options: LogOptions) -> Result<Logs> {
        crate::logs::read::open(self, self.find(container)?.view, options)
    }

    /// # Errors
    /// `NotRunning`, `ExecPaused`, `InvalidParameter` for an empty command.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        crate::life::exec::create(self, &*self.inspect(container)?, config)
    }

    /// Checks that an exec instance can be started now.
    ///
    /// # Errors
    /// `NoSuchExec`, `ExecRunning`, `ExecHasRun`, `NotRunning`, `ExecPaused`.
    pub fn exec_can_start(&self, exec: &str) -> Result<()> {
        crate::life::exec::can_start(self, exec)
    }

    /// Starts it; returns its streams (none when detached).
    pub async fn exec_start(&self, exec: &str, start: ExecStart) -> Result<Streams> {
        crate::life::exec::start(self, exec, start).await
    }

    pub fn exec_inspect(&self, exec: &str) -> Result<Exec> {
        self.inner.execs().get(exec).cloned().ok_or_else(|| Error::NoSuchExec(exec.to_owned()))
    }

    /// Tells that somebody left it, and it goes on.
    pub fn exec_detached(&self, exec: &str) {
        crate::life::exec::detached(self, exec);
    }

    /// Waits until it has ended and returns it then.
    pub async fn exec_wait(&self, exec: &str) -> Result<Exec> {
        crate::life::exec::wait(self, exec).await
    }

    pub async fn exec_resize(&self, exec: &str, rows: u16, cols: u16) -> Result<()> {
        let container = self.exec_inspect(exec)?.container_id;
        let exec = Some(exec.to_owned());
        self.ask(&container, |reply| Command::Resize { exec, rows, cols, reply }).await
    }

    // ---- files ----

    /// Describes a path in the container, running or not.
    pub async fn archive_stat(&self, container: &str, path: &str) -> Result<PathStat> {
        archive::stat(self, self.inspect(container)?, path.to_owned()).await
    }

    /// Returns a tar of a path. *Source:* API `ContainerArchive`.
    pub async fn archive_get(&self, container: &str, path: &str) -> Result<(PathStat, ArchiveReader)> {
        let container = self.inspect(container)?;
        let found = archive::get(self, Arc::clone(&container), path.to_owned()).await?;
        self.publish(crate::seen::event::container_event(&container, "archive-path", []));
        Ok(found)
    }

    /// Unpacks a tar into a folder of the container.
    ///
    /// # Errors
    /// `Conflict` when nothing may be written there; `NoSuchPath`.
    pub async fn archive_put(
        &self,
        container: &str,
        path: &str,
        tar: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        options: PutOptions,
    ) -> Result<()> {
        archive::put(self, self.inspect(container)?, path.to_owned(), tar, options).await
    }

    /// Returns a tar of the whole file system.
    pub async fn export(&self, container: &str) -> Result<ArchiveReader> {
        archive::export(self, self.inspect(container)?).await
    }

    /// Returns what differs from the image.
    pub async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        crate::files::changes::changes(self, &*self.inspect(container)?).await
    }

    /// Makes an image of what a container changed. *Source:* API `ImageCommit`.
    pub async fn commit(&self, container: &str, options: CommitOptions) -> Result<image::Digest> {
        crate::files::commit::commit(self, container, options).await
    }

    // ---- events ----

    /// Tells that objects of a kind were pruned, and how many bytes that freed. *Source:* moby, events `prune`.
    pub fn pruned_event(&self, kind: EventKind, bytes: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
        self.publish(Event::now(kind, "prune", "", attributes));
    }

    /// Keeps what happened before, for those who ask for the past: nobody is told.
    pub fn recall(&self, event: Event) {
        self.inner.events.recall(event);
    }

    /// Returns the kept events and a receiver of what follows; filter with [`Event::passes`].
    pub fn events(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        self.inner.events.subscribe()
    }
}

/// A wait that has begun.
#[derive(Debug)]
pub struct Waiting {
    view: watch::Receiver<Arc<Container>>,
    condition: WaitCondition,
    exits: u64,
}

impl Waiting {
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
