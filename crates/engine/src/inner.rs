//! What every operation of the engine stands on.

use crate::{
    ask::{
        defaults::Defaults,
        execs::{Exec, Execs},
    },
    error::{Error, Result},
    files::trees::Trees,
    life::{
        command::{Command, Reply},
        registry::{Handle, Registry},
    },
    networks::{any::Overlays, local::LocalNetworks},
    seen::{
        container::{Container, RemoveOptions},
        counts::Counting,
        event::{Event, EventKind, Events},
    },
    volumes::local::Volumes,
};
use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What an engine is made of.
#[derive(Debug)]
pub struct Options {
    /// Containers, volumes and local networks survive reboots here.
    pub data_root: PathBuf,
    /// Sockets and bundles of running containers; gone after a reboot, as they are.
    pub run_root: PathBuf,
    pub images: image::Store,
    pub network: network::Network,
    pub shim: runtime::ShimProgram,
    /// All of this runs in a user namespace with one uid.
    pub userns_squash: bool,
    /// Ids of the host that are those of containers which do not say otherwise; `None` = they have the host's own. Not
    /// together with `userns_squash`.
    pub userns_remap: Option<runtime::IdMap>,
    /// Name of this host, which containers on its network share.
    pub hostname: String,
    /// Cgroup below which containers' cgroups are made; `rswarm` if empty.
    pub cgroup_parent: String,
    pub defaults: Defaults,
}

/// What is behind the door: whoever has it needs no handle.
pub(crate) struct Inner {
    pub(crate) data_root: PathBuf,
    pub(crate) run_root: PathBuf,
    pub(crate) images: image::Store,
    pub(crate) plugins: image::Plugins,
    pub(crate) network: network::Network,
    pub(crate) shim: runtime::ShimProgram,
    pub(crate) userns_squash: bool,
    pub(crate) userns_remap: Option<runtime::IdMap>,
    pub(crate) hostname: String,
    pub(crate) cgroup_parent: String,
    /// Exchanged whole when the operator's settings are read anew.
    pub(crate) defaults: RwLock<Arc<Defaults>>,
    /// The host goes down: nothing is started any more.
    pub(crate) host_goes: AtomicBool,
    pub(crate) registry: Registry,
    pub(crate) execs: Mutex<Execs>,
    /// Changes when any exec ends.
    pub(crate) exec_ended: watch::Sender<()>,
    pub(crate) volumes: Volumes,
    /// Held by all who use a volume's folder before the registry says so, and alone by who exchanges one.
    pub(crate) mounting: tokio::sync::RwLock<()>,
    pub(crate) trees: Trees,
    pub(crate) networks: LocalNetworks,
    pub(crate) overlays: watch::Sender<Option<Arc<dyn Overlays>>>,
    pub(crate) builds: crate::build::cache::Cache,
    pub(crate) events: Events,
    pub(crate) counting: Counting,
    pub(crate) tasks: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("data_root", &self.data_root).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn find(&self, container: &str) -> Result<Handle> {
        self.registry.find(container)
    }

    pub(crate) fn inspect(&self, container: &str) -> Result<Arc<Container>> {
        Ok(self.find(container)?.view.borrow().clone())
    }

    /// Sends a command to a container's owner and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        container: &str,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T> {
        let handle = self.find(container)?;
        let (reply, answer) = oneshot::channel();
        let gone = || {
            if self.cancel.is_cancelled() {
                Error::ShuttingDown
            } else {
                Error::NoSuchContainer(container.to_owned())
            }
        };
        handle.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Removes a container whose record is known.
    pub(crate) async fn remove(&self, container: &str, options: RemoveOptions) -> Result<()> {
        self.ask(container, |reply| Command::Remove(options, reply)).await
    }

    /// Tells everybody what happened.
    pub(crate) fn publish(&self, event: Event) {
        self.events.publish(event);
    }

    /// Tells that objects of a kind were pruned, and how many bytes that freed. *Source:* moby, events `prune`.
    pub(crate) fn pruned_event(&self, kind: EventKind, bytes: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
        self.publish(Event::now(kind, "prune", "", attributes));
    }

    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id)
    }

    /// Where the shim's socket is; kept short, a socket path has 107 bytes.
    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.run_root.join("c").join(id)
    }

    /// Returns what the operator has set for all containers and networks.
    pub(crate) fn defaults(&self) -> Arc<Defaults> {
        Arc::clone(&self.defaults.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns true once the host goes down.
    pub(crate) fn host_goes(&self) -> bool {
        self.host_goes.load(Relaxed)
    }

    pub(crate) fn execs(&self) -> MutexGuard<'_, Execs> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn exec(&self, exec: &str) -> Result<Exec> {
        self.execs().get(exec).cloned().ok_or_else(|| Error::NoSuchExec(exec.to_owned()))
    }

    pub(crate) fn cgroup_path(&self, container: &Container) -> String {
        let parent = container.config.host.cgroup_parent.as_deref().filter(|p| !p.is_empty());
        let parent = parent.unwrap_or(&self.cgroup_parent).trim_matches('/');
        format!("/{parent}/{}", container.id)
    }
}
