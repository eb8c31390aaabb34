//! The door: every operation that the REST server and the agent's executor call. What it takes the rooms carry out; they
//! know what is behind the door ([`Inner`]), and not the door.

use crate::{
    ask::{
        config::{ContainerConfig, EndpointConfig},
        defaults::Defaults,
        execs::{Exec, ExecConfig, ExecStart},
    },
    build::{BuildContext, BuildLine, BuildOptions, CachedStep},
    error::{Error, Result},
    files::{
        archive::{self, ArchiveReader, PathStat, PutOptions},
        commit::CommitOptions,
    },
    inner::{Inner, Options},
    life::{
        attach,
        command::Command,
        create,
        host::StoppedForHost,
        streams::{AttachOptions, Streams},
    },
    logs::read::{LogOptions, Logs},
    networks::{
        any::Overlays,
        local::{LocalNetwork, NetworkConfig, NetworkMember},
    },
    open,
    seen::{
        container::*,
        counts::{Action, Counts},
        event::{Event, EventKind},
        stats::Stats,
        waiting::Waiting,
    },
    spec::cdi::Inventory,
    volumes::local::{Volume, VolumeConfig, VolumeUsage},
};
use model::{GenericResources, Supply, TaskId};
use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    io::AsyncRead,
    sync::{broadcast, mpsc, watch},
};

/// The engine of this host; cheap to clone. Names of containers may be full ids, names or unique id prefixes.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("data_root", &self.inner.data_root).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine: adopts running containers, collects exit codes of those that ended meanwhile, removes what
    /// a killed daemon left half-made, and starts again those whose restart policy asks for it.
    ///
    /// # Errors
    /// When the roots cannot be used. One container that cannot be read does not keep the others from opening.
    pub async fn open(options: Options) -> Result<Self> {
        Ok(Self { inner: open::open(options).await? })
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
        let folders = self.inner.defaults().cdi_spec_dirs.clone();
        let found = crate::blocking(move || Ok(Inventory::read(&folders))).await?;
        let mut all: GenericResources =
            found.all().into_iter().map(|(kind, names)| (kind, Supply::Named(names))).collect();
        all.extend(self.inner.defaults().generic_resources.clone());
        Ok((all, found.problems))
    }

    /// Returns the ids of the host that containers' own ids are, unless they say otherwise; `None` = the same ones.
    pub fn userns_remap(&self) -> Option<&runtime::IdMap> {
        self.inner.userns_remap.as_ref()
    }

    /// Looks why no container can run on this host, in words that say what to do; empty: nothing is in the way.
    /// (Without nftables the engine does not open at all.)
    pub fn unfit(&self) -> Vec<String> {
        let mut unfit = Vec::new();
        if let Err(error) = sys::overlay::is_there() {
            unfit.push(format!("the kernel mounts no overlayfs: {error}; modprobe overlay, as root"));
        }
        // Limits of a daemon without root are best effort.
        let groups = if self.inner.userns_squash { Ok(()) } else { runtime::cgroup::usable() };
        unfit.extend(groups.err());
        unfit
    }

    /// Returns the log driver of containers that name none.
    pub fn log_driver(&self) -> String {
        match self.inner.defaults().log.driver.as_str() {
            "" => "json-file",
            driver => driver,
        }
        .to_owned()
    }

    /// Returns the folders where vendors describe their devices.
    pub fn cdi_spec_dirs(&self) -> Vec<PathBuf> {
        self.inner.defaults().cdi_spec_dirs.clone()
    }

    /// Has what is made and started from now on follow other settings of the operator. The network `bridge` stays as it
    /// is.
    ///
    /// # Errors
    /// `InvalidParameter` with the key that cannot be used; nothing has changed then.
    pub fn set_defaults(&self, defaults: Defaults) -> Result<()> {
        crate::ask::defaults_gate::check(&defaults)?;
        *self.inner.defaults.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(defaults);
        Ok(())
    }

    // ---- life of a container ----

    /// Makes a container; it does not run yet.
    ///
    /// # Errors
    /// `NoSuchImage`, `NameInUse`, `InvalidParameter`; nothing is left behind.
    /// *Source:* API `ContainerCreate`.
    pub async fn create(&self, config: ContainerConfig) -> Result<Created> {
        self.inner.counting.timed(Action::Create, create::create(&self.inner, config)).await
    }

    /// Starts it; returns when its process has been executed.
    ///
    /// # Errors
    /// `AlreadyStarted`; `Start` with exit code 125, 126 or 127 when the process cannot be made or executed.
    pub async fn start(&self, container: &str) -> Result<()> {
        self.inner.counting.timed(Action::Start, self.inner.ask(container, Command::Start)).await
    }

    /// Sends the stop signal, after the timeout SIGKILL; returns when it has ended. No restart policy applies.
    ///
    /// # Errors
    /// `AlreadyStopped`.
    pub async fn stop(&self, container: &str, options: StopOptions) -> Result<()> {
        self.inner.ask(container, |reply| Command::Stop(options, reply)).await
    }

    /// Stops everything because the host goes down: each container gets its stop signal and its grace, at the same time.
    /// Nothing is started by this engine any more; the next one starts those whose restart policy asks for it.
    pub async fn stop_for_host(&self) -> StoppedForHost {
        crate::life::host::stop_all(&self.inner).await
    }

    /// Returns how long the slowest container that runs may take to stop.
    pub fn longest_grace(&self) -> Duration {
        crate::life::host::longest_grace(&self.inner)
    }

    /// Sends a signal (name or number; `None` = SIGKILL) to its first process.
    pub async fn kill(&self, container: &str, signal: Option<&str>) -> Result<()> {
        let signal = crate::ask::gate::signal_number(signal.unwrap_or("KILL"))?;
        self.inner.ask(container, |reply| Command::Kill(signal, reply)).await
    }

    /// Stops it if it runs, then starts it.
    pub async fn restart(&self, container: &str, options: StopOptions) -> Result<()> {
        self.inner.ask(container, |reply| Command::Restart(options, reply)).await
    }

    pub async fn pause(&self, container: &str) -> Result<()> {
        self.inner.ask(container, Command::Pause).await
    }

    pub async fn unpause(&self, container: &str) -> Result<()> {
        self.inner.ask(container, Command::Unpause).await
    }

    /// # Errors
    /// `NameInUse`, `InvalidParameter`.
    pub async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name).to_owned();
        crate::ask::names::check(&name)?;
        self.inner.ask(container, |reply| Command::Rename(name, reply)).await
    }

    /// Changes limits and restart policy, also while it runs.
    pub async fn update(&self, container: &str, update: Update) -> Result<()> {
        self.inner.ask(container, |reply| Command::Update(Box::new(update), reply)).await
    }

    /// Takes a legacy link away from a container: its line in /etc/hosts, and its variables at the next start.
    ///
    /// # Errors
    /// `NoSuchContainer` in Docker's words when there is no such link.
    pub async fn unlink(&self, container: &str, alias: &str) -> Result<()> {
        self.inner.ask(container, |reply| Command::Unlink(alias.to_owned(), reply)).await
    }

    /// Returns by what names containers are known through links of others, by id: `LINKED/ALIAS`.
    pub fn link_names(&self) -> BTreeMap<String, Vec<String>> {
        crate::networks::links::names_of_all(&self.inner)
    }

    /// Removes it with all that is its own.
    ///
    /// # Errors
    /// `RemoveRunning` unless forced; `RemovalInProgress`.
    pub async fn remove(&self, container: &str, options: RemoveOptions) -> Result<()> {
        if self.inner.find(container).is_err()
            && let Some(id) = self.inner.registry.unreadable(container)
        {
            if !options.force {
                return Err(Error::Conflict(format!(
                    "the record of container {id} is damaged (see the daemon's log); hint: mend it and restart the \
                     daemon, or remove the container with --force"
                )));
            }
            return crate::open::remove_unreadable(&self.inner, &id).await;
        }
        self.inner.counting.timed(Action::Delete, self.inner.remove(container, options)).await
    }

    /// Begins to wait; the answer comes from [`Waiting::exit`]. What happens after this call returns is not missed.
    pub fn wait(&self, container: &str, condition: WaitCondition) -> Result<Waiting> {
        Waiting::begin(&self.inner, container, condition)
    }

    /// Returns a snapshot of one container that changes as the container does; closed when it is removed.
    pub fn watch(&self, container: &str) -> Result<watch::Receiver<Arc<Container>>> {
        Ok(self.inner.find(container)?.view)
    }

    pub fn inspect(&self, container: &str) -> Result<Arc<Container>> {
        self.inner.inspect(container)
    }

    /// Returns containers, newest first. Filters: `id name label status ancestor before since exited health network
    /// volume publish expose`.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<Arc<Container>>> {
        crate::seen::list::list(&self.inner, options).await
    }

    /// Removes all stopped containers. Filters: `label until`.
    pub async fn prune_containers(&self, filters: &Filters) -> Result<Pruned> {
        crate::seen::list::prune(&self.inner, filters).await
    }

    /// Measures the space a container takes; walks its folder.
    pub async fn size(&self, container: &str) -> Result<Size> {
        crate::seen::usage::size(&self.inner, &*self.inspect(container)?).await
    }

    // ---- looking into a running container ----

    /// Lists processes as `ps -ef` would; `ps_args` other than `-ef` or empty and `aux` are refused.
    pub async fn top(&self, container: &str, ps_args: &str) -> Result<Top> {
        let container = self.inspect(container)?;
        let top = crate::seen::top::top(&container, ps_args).await?;
        self.inner.publish(crate::seen::event::container_event(&container, "top", []));
        Ok(top)
    }

    /// Takes one sample; all zero if it does not run.
    pub async fn stats(&self, container: &str) -> Result<Stats> {
        crate::seen::usage::stats(&self.inner, &*self.inspect(container)?).await
    }

    /// Opens its streams. A container that does not run yet gets them at its next start, so attaching before
    /// `start` loses nothing.
    pub async fn attach(&self, container: &str, options: AttachOptions) -> Result<Streams> {
        attach::attach(&self.inner, container, options).await
    }

    /// Tells that somebody who was attached left it, and it goes on.
    pub fn detached(&self, container: &str) {
        if let Ok(container) = self.inspect(container) {
            self.inner.publish(crate::seen::event::container_event(&container, "detach", []));
        }
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, container: &str, rows: u16, cols: u16) -> Result<()> {
        self.inner.ask(container, |reply| Command::Resize { exec: None, rows, cols, reply }).await
    }

    /// Returns a stream of log entries; it ends at the end, with `follow` when the container has ended.
    ///
    /// # Errors
    /// `InvalidParameter` if the log driver keeps nothing.
    pub async fn logs(&self, container: &str, options: LogOptions) -> Result<Logs> {
        crate::logs::read::open(&self.inner, self.inner.find(container)?.view, options)
    }

    /// # Errors
    /// `NotRunning`, `ExecPaused`, `InvalidParameter` for an empty command.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        crate::life::exec::create(&self.inner, &*self.inspect(container)?, config)
    }

    /// Checks that an exec instance can be started now.
    ///
    /// # Errors
    /// `NoSuchExec`, `ExecRunning`, `ExecHasRun`, `NotRunning`, `ExecPaused`.
    pub fn exec_can_start(&self, exec: &str) -> Result<()> {
        crate::life::exec::can_start(&self.inner, exec)
    }

    /// Starts it; returns its streams (none when detached).
    pub async fn exec_start(&self, exec: &str, start: ExecStart) -> Result<Streams> {
        crate::life::exec::start(&self.inner, exec, start).await
    }

    pub fn exec_inspect(&self, exec: &str) -> Result<Exec> {
        self.inner.exec(exec)
    }

    /// Tells that somebody left it, and it goes on.
    pub fn exec_detached(&self, exec: &str) {
        crate::life::exec::detached(&self.inner, exec);
    }

    /// Waits until it has ended and returns it then.
    pub async fn exec_wait(&self, exec: &str) -> Result<Exec> {
        crate::life::exec::wait(&self.inner, exec).await
    }

    pub async fn exec_resize(&self, exec: &str, rows: u16, cols: u16) -> Result<()> {
        let container = self.exec_inspect(exec)?.container_id;
        let exec = Some(exec.to_owned());
        self.inner.ask(&container, |reply| Command::Resize { exec, rows, cols, reply }).await
    }

    // ---- files ----

    /// Describes a path in the container, running or not.
    pub async fn archive_stat(&self, container: &str, path: &str) -> Result<PathStat> {
        archive::stat(&self.inner, self.inspect(container)?, path.to_owned()).await
    }

    /// Returns a tar of a path. *Source:* API `ContainerArchive`.
    pub async fn archive_get(&self, container: &str, path: &str) -> Result<(PathStat, ArchiveReader)> {
        let container = self.inspect(container)?;
        let found = archive::get(&self.inner, Arc::clone(&container), path.to_owned()).await?;
        self.inner.publish(crate::seen::event::container_event(&container, "archive-path", []));
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
        archive::put(&self.inner, self.inspect(container)?, path.to_owned(), tar, options).await
    }

    /// Returns a tar of the whole file system.
    pub async fn export(&self, container: &str) -> Result<ArchiveReader> {
        archive::export(&self.inner, self.inspect(container)?).await
    }

    /// Returns what differs from the image.
    pub async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let container = self.inspect(container)?;
        let looking = crate::files::changes::changes(&self.inner, &container);
        self.inner.counting.timed(Action::Changes, looking).await
    }

    /// Makes an image of what a container changed. *Source:* API `ImageCommit`.
    pub async fn commit(&self, container: &str, options: CommitOptions) -> Result<image::Digest> {
        let committing = crate::files::commit::commit(&self.inner, container, options);
        self.inner.counting.timed(Action::Commit, committing).await
    }

    // ---- volumes ----

    /// Returns the volume of that name, making it if needed.
    pub async fn volume_create(&self, config: VolumeConfig) -> Result<Volume> {
        self.inner.volume_create(config).await
    }

    pub fn volume(&self, name: &str) -> Result<Volume> {
        self.inner.volume(name)
    }

    /// Returns volumes by name. Filters: `name driver label dangling`.
    pub fn volumes(&self, filters: &Filters) -> Vec<Volume> {
        self.inner.volumes(filters)
    }

    /// # Errors
    /// `VolumeInUse`; `NoSuchVolume` unless forced.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        self.inner.volume_remove(name, force).await
    }

    /// Removes unused volumes: anonymous ones, with filter `all=true` named ones too. Filters: `label all`.
    pub async fn volume_prune(&self, filters: &Filters) -> Result<Pruned> {
        self.inner.volume_prune(filters).await
    }

    /// Measures all volumes; walks their folders.
    pub async fn volume_usage(&self) -> Result<Vec<VolumeUsage>> {
        self.inner.volume_usage().await
    }

    /// Returns a tar of all that a volume holds: owners, modes, attributes, hard links, times to the nanosecond; its
    /// first entry, `./`, is the volume's own folder. What containers write meanwhile may be in it or not.
    pub async fn volume_export(&self, name: &str) -> Result<ArchiveReader> {
        self.inner.volume_export(name).await
    }

    /// Makes what a tar (plain, gzip or zstd) holds the content of a volume, which is made if it is not there. With
    /// `force`, of one that has other content.
    ///
    /// # Errors
    /// `Conflict` without `force` for a volume with content, with `force` while a running container has it, and for one
    /// that is a folder of the host; `InvalidParameter` for a broken tar. After any error everything is as before.
    pub async fn volume_import(
        &self,
        name: &str,
        tar: impl AsyncRead + Send + Unpin + 'static,
        force: bool,
    ) -> Result<Volume> {
        self.inner.volume_import(name, tar, force).await
    }

    /// Makes a volume with the content and the labels of another; the rest is as with [`Self::volume_import`].
    pub async fn volume_copy(&self, source: &str, target: &str, force: bool) -> Result<Volume> {
        self.inner.volume_copy(source, target, force).await
    }

    // ---- networks ----

    /// Makes a user-defined network.
    ///
    /// # Errors
    /// `NetworkExists`, `PredefinedName`, `InvalidParameter`, `Network` when its subnet is taken.
    pub async fn network_create(&self, config: NetworkConfig) -> Result<LocalNetwork> {
        self.inner.network_create(config).await
    }

    /// Returns local networks. Filters: `name id driver label type scope dangling`.
    pub fn networks(&self, filters: &Filters) -> Vec<LocalNetwork> {
        self.inner.networks(filters)
    }

    /// Finds a local network by name, id or unique prefix.
    pub fn network(&self, wanted: &str) -> Result<LocalNetwork> {
        self.inner.network(wanted)
    }

    /// Returns the running containers of this host on a network, local or overlay, by id.
    pub fn network_members(&self, id: &str) -> BTreeMap<String, NetworkMember> {
        self.inner.network_members(id)
    }

    /// # Errors
    /// `PredefinedNetwork`, `NetworkInUse` while a container is on it.
    pub async fn network_remove(&self, wanted: &str) -> Result<()> {
        self.inner.network_remove(wanted).await
    }

    /// Removes user-defined networks that no container uses, running or not. Filters: `label until`.
    pub async fn network_prune(&self, filters: &Filters) -> Result<Pruned> {
        self.inner.network_prune(filters).await
    }

    /// Puts a container, running or not, onto one more network.
    ///
    /// # Errors
    /// `EndpointExists` where it runs; `InvalidParameter` for the networks `host` and `none`, and for a container in the
    /// namespace of another or of the host, or in none.
    pub async fn network_connect(
        &self,
        network: &str,
        container: &str,
        endpoint: EndpointConfig,
    ) -> Result<()> {
        self.inner.network_connect(network, container, endpoint).await
    }

    /// Takes a container off a network.
    pub async fn network_disconnect(&self, network: &str, container: &str) -> Result<()> {
        self.inner.network_disconnect(network, container).await
    }

    /// Joins the engine with the swarm; called once, after [`Engine::open`]. Until then no overlay is found.
    pub fn set_overlays(&self, overlays: Arc<dyn Overlays>) {
        self.inner.set_overlays(overlays);
    }

    /// Returns the container that holds the places of this task, if one does.
    pub fn holder(&self, task: TaskId) -> Option<Arc<Container>> {
        self.inner.holder(task)
    }

    /// Takes a container off the networks that it is on by this task; no container is fine.
    pub async fn take_off(&self, task: TaskId) -> Result<()> {
        self.inner.take_off(task).await
    }

    // ---- builds ----

    /// Builds an image. What happens is said on `lines`, in Docker's words; the last is the image.
    ///
    /// # Errors
    /// `Build` says which step failed and why; results of the steps before it are kept for the next build.
    /// # Cancel safety
    /// May be dropped: commands are ended and everything half-made goes.
    /// *Source:* Docker API `ImageBuild`.
    pub async fn build(
        &self,
        options: BuildOptions,
        context: BuildContext,
        lines: mpsc::Sender<BuildLine>,
    ) -> Result<image::Digest> {
        self.inner.build(options, context, lines).await
    }

    /// Lists what builds can use again.
    pub fn build_cache(&self) -> Vec<CachedStep> {
        self.inner.build_cache()
    }

    /// Forgets results of builds, the longest unused first, until those that are left take `kept_bytes`; returns which, and
    /// the bytes that this freed. Filters: `until` or `unused-for` (of the last use), `id description type parent inuse
    /// shared private label label!`.
    ///
    /// # Errors
    /// A filter that makes no sense, or the disk.
    pub async fn prune_builds(&self, filters: &Filters, kept_bytes: u64) -> Result<(Vec<String>, u64)> {
        self.inner.prune_builds(filters, kept_bytes).await
    }

    // ---- numbers ----

    /// Returns what was done since the engine was opened.
    pub fn counts(&self) -> Counts {
        self.inner.counting.read(self.inner.events.told())
    }

    /// Returns the cgroup of a container that runs, as a path below the mount of each hierarchy.
    pub fn cgroup_of(&self, container: &Container) -> String {
        self.inner.cgroup_path(container)
    }

    // ---- events ----

    /// Tells everybody what happened (image events come from the REST server).
    pub fn publish(&self, event: Event) {
        self.inner.publish(event);
    }

    /// Tells that objects of a kind were pruned, and how many bytes that freed. *Source:* moby, events `prune`.
    pub fn pruned_event(&self, kind: EventKind, bytes: u64) {
        self.inner.pruned_event(kind, bytes);
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
