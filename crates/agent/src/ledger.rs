//! What this node was told and what became of it, on disk: so that an agent that starts without managers in reach
//! knows which containers are its own, and says again what it could not say before.
//!
//! One file per task (`tasks/<id>.pb`, the task with its last status) and `welcome.pb`,
//! `networks`. Files are replaced whole and synced: a task that a power cut took from here would be believed to run
//! by the managers, and never again be told of. Never holds secrets: a task only names them.

use model::{Duration, NetworkId, Task, TaskId};
use prost::Message as _;
use proto::{WireId as _, dispatcher::Welcome, types};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;
use tracing::warn;

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot make the agent's state directory {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot list the agent's tasks in {path}")]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What was in the ledger.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) tasks: Vec<Task>,
    pub(crate) welcome: Option<Welcome>,
    /// Networks a table was taken of.
    pub(crate) networks: BTreeSet<NetworkId>,
}

/// Contents by path; `None` = remove.
type Writes = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Handle of the ledger. Writes are queued, the newest of each file wins.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    dir: Arc<Path>,
    queue: Arc<(Mutex<Writes>, Notify)>,
    /// Held while files are written: what is older must not land on what is newer, and who flushes last waits for
    /// who flushes already.
    writing: Arc<Mutex<()>>,
}

impl Ledger {
    /// Opens the ledger in `dir` and reads it. A file that cannot be read is set aside as lost.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Remembered), LedgerError> {
        let tasks_dir = dir.join("tasks");
        fs::create_dir_all(&tasks_dir)
            .map_err(|source| LedgerError::Create { path: tasks_dir.clone(), source })?;
        let mut remembered = Remembered::default();
        let list = |source| LedgerError::List { path: tasks_dir.clone(), source };
        for entry in fs::read_dir(&tasks_dir).map_err(list)? {
            let path = entry.map_err(list)?.path();
            if path.extension().is_none_or(|e| e != "pb") {
                continue; // half-written
            }
            match read_task(&path) {
                Ok(task) => remembered.tasks.push(task),
                Err(error) => warn!(path = %path.display(), error, "task of the ledger is lost"),
            }
        }
        remembered.tasks.sort_by_key(|t| t.id);
        remembered.welcome =
            fs::read(dir.join("welcome.pb")).ok().and_then(|bytes| Welcome::decode(bytes.as_slice()).ok());
        let networks = fs::read(dir.join("networks")).unwrap_or_default();
        remembered.networks =
            networks.chunks_exact(16).filter_map(|id| NetworkId::from_wire(id).ok()).collect();
        Ok((Self { dir: dir.into(), queue: Arc::default(), writing: Arc::default() }, remembered))
    }

    pub(crate) fn put_task(&self, task: &Task) {
        self.queue(self.task_path(task.id), Some(types::Task::from(task).encode_to_vec()));
    }

    pub(crate) fn remove_task(&self, task: TaskId) {
        self.queue(self.task_path(task), None);
    }

    pub(crate) fn put_welcome(&self, welcome: &Welcome) {
        self.queue(self.dir.join("welcome.pb"), Some(welcome.encode_to_vec()));
    }

    /// Remembers the networks whose tables this host holds: 16 bytes each.
    pub(crate) fn put_networks(&self, networks: &BTreeSet<NetworkId>) {
        self.queue(self.dir.join("networks"), Some(networks.iter().flat_map(|n| n.to_wire()).collect()));
    }

    /// Writes what is queued, for ever.
    pub(crate) async fn run(self) {
        loop {
            self.queue.1.notified().await;
            let ledger = self.clone();
            let written = tokio::task::spawn_blocking(move || ledger.flush()).await;
            if !matches!(written, Ok(true)) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.queue.1.notify_one();
            }
        }
    }

    /// Writes what is queued and returns true if all of it could be; the rest stays queued.
    pub(crate) fn flush(&self) -> bool {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = std::mem::take(&mut *self.queue.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all = true;
        for (path, content) in writes {
            if let Err(error) = write(&path, content.as_deref()) {
                warn!(path = %path.display(), %error, "cannot write the ledger");
                all = false;
                let mut queue = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
                queue.entry(path).or_insert(content); // unless something newer came
            }
        }
        all
    }

    fn queue(&self, path: PathBuf, content: Option<Vec<u8>>) {
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, content);
        self.queue.1.notify_one();
    }

    fn task_path(&self, task: TaskId) -> PathBuf {
        self.dir.join(format!("tasks/{task}.pb"))
    }
}

fn read_task(path: &Path) -> Result<Task, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let wire = types::Task::decode(bytes.as_slice()).map_err(|e| e.to_string())?;
    Task::try_from(wire).map_err(|e| e.to_string())
}

fn write(path: &Path, content: Option<&[u8]>) -> io::Result<()> {
    match content {
        Some(content) => sys::durable::replace(path, content, 0o600),
        None => sys::durable::remove(path),
    }
}
