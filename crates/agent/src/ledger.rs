//! What this node was told and what became of it, on disk: so that an agent that starts without managers in reach
//! knows which containers are its own, and says again what it could not say before.
//!
//! One file per task (`tasks/<id>.pb`, the task with its last status) and `welcome.pb`,
//! `networks`. Files are replaced whole and synced: a task that a power cut took from here would be believed to run
//! by the managers, and never again be told of. How far it has come on its way to running is not worth a sync, as
//! nothing of that outlives the host: it stands beside it (`tasks/<id>.now`), and counts until the host is booted
//! again. Never holds secrets: a task only names them.

use model::{Duration, NetworkId, Task, TaskId, TaskState, TaskStatus};
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

/// Permission bits of its files.
const MODE: u32 = 0o600;

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

/// What shall become of files.
type Writes = BTreeMap<PathBuf, Write>;

#[derive(Debug)]
enum Write {
    /// Outlives a power cut.
    Lasting(Vec<u8>),
    /// Outlives this process.
    UntilBoot(Vec<u8>),
    Removal,
}

/// Where the kernel names this boot. *Source:* Documentation/admin-guide/sysctl/kernel.rst, random.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Handle of the ledger. Writes are queued, the newest of each file wins.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    dir: Arc<Path>,
    /// Stands before what counts until the next one. Empty if the kernel does not say: then nothing does.
    boot: Arc<[u8]>,
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
        let boot: Arc<[u8]> = fs::read(BOOT_ID).unwrap_or_default().into();
        let mut remembered = Remembered::default();
        let list = |source| LedgerError::List { path: tasks_dir.clone(), source };
        for entry in fs::read_dir(&tasks_dir).map_err(list)? {
            let path = entry.map_err(list)?.path();
            if path.extension().is_none_or(|e| e != "pb") {
                continue; // half-written, or read with its task
            }
            match read_task(&path) {
                Ok(task) => remembered.tasks.push(with_progress(task, &boot, &path)),
                Err(error) => warn!(path = %path.display(), error, "task of the ledger is lost"),
            }
        }
        remembered.tasks.sort_by_key(|t| t.id);
        remembered.welcome =
            fs::read(dir.join("welcome.pb")).ok().and_then(|bytes| Welcome::decode(bytes.as_slice()).ok());
        let networks = fs::read(dir.join("networks")).unwrap_or_default();
        remembered.networks =
            networks.chunks_exact(16).filter_map(|id| NetworkId::from_wire(id).ok()).collect();
        Ok((Self { dir: dir.into(), boot, queue: Arc::default(), writing: Arc::default() }, remembered))
    }

    /// Remembers a task as it was assigned, with its status.
    pub(crate) fn put_task(&self, task: &Task) {
        self.queue(self.task_path(task.id), Write::Lasting(types::Task::from(task).encode_to_vec()));
    }

    /// Remembers a new status of a task that is remembered: for good once it runs, for it is not started a second time.
    pub(crate) fn put_status(&self, task: &Task) {
        if task.status.state >= Some(TaskState::Running) || self.boot.is_empty() {
            return self.put_task(task);
        }
        let status = types::TaskStatus::from(&task.status).encode_to_vec();
        self.queue(
            progress_path(&self.task_path(task.id)),
            Write::UntilBoot([&self.boot, &*status].concat()),
        );
    }

    pub(crate) fn remove_task(&self, task: TaskId) {
        self.queue(self.task_path(task), Write::Removal);
        self.queue(progress_path(&self.task_path(task)), Write::Removal);
    }

    pub(crate) fn put_welcome(&self, welcome: &Welcome) {
        self.queue(self.dir.join("welcome.pb"), Write::Lasting(welcome.encode_to_vec()));
    }

    /// Remembers the networks whose tables this host holds: 16 bytes each.
    pub(crate) fn put_networks(&self, networks: &BTreeSet<NetworkId>) {
        let ids = networks.iter().flat_map(|n| n.to_wire()).collect();
        self.queue(self.dir.join("networks"), Write::Lasting(ids));
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
        let mut writes = std::mem::take(&mut *self.queue.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failed: Vec<(PathBuf, io::Error)> = Vec::new();
        let lasting = writes.iter().filter_map(|(path, write)| match write {
            Write::Lasting(content) => Some((path.as_path(), Some(content.as_slice()))),
            Write::Removal => Some((path.as_path(), None)),
            Write::UntilBoot(_) => None,
        });
        let refused = sys::durable::change_all(lasting, MODE);
        failed.extend(refused.into_iter().map(|(path, error)| (path.to_owned(), error)));
        for (path, write) in &writes {
            if let Write::UntilBoot(content) = write
                && let Err(error) = sys::durable::replace_for_this_boot(path, content, MODE)
            {
                failed.push((path.clone(), error));
            }
        }
        let all = failed.is_empty();
        let mut queue = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, error) in failed {
            warn!(path = %path.display(), %error, "cannot write the ledger");
            if let Some(write) = writes.remove(&path) {
                queue.entry(path).or_insert(write); // unless something newer came
            }
        }
        all
    }

    fn queue(&self, path: PathBuf, write: Write) {
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, write);
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

/// Returns the path of how far the task of `path` has come.
fn progress_path(path: &Path) -> PathBuf {
    path.with_extension("now")
}

/// Returns the task of `path` with how far it has come since it was written there, if the host is still up.
fn with_progress(mut task: Task, boot: &[u8], path: &Path) -> Task {
    let said = fs::read(progress_path(path)).unwrap_or_default();
    let status = said
        .strip_prefix(boot)
        .filter(|_| !boot.is_empty())
        .and_then(|said| types::TaskStatus::decode(said).ok())
        .and_then(|status| TaskStatus::try_from(status).ok());
    // One of before what was written for good is left behind, and says less.
    if let Some(status) = status.filter(|status| status.state > task.status.state) {
        task.status = status;
    }
    task
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: TaskState) -> Task {
        Task {
            status: TaskStatus { state: Some(state), ..TaskStatus::default() },
            ..crate::tests::task(7, "web")
        }
    }

    fn states(dir: &Path) -> Vec<Option<TaskState>> {
        let (_, remembered) = Ledger::open(dir).unwrap();
        remembered.tasks.into_iter().map(|task| task.status.state).collect()
    }

    #[test]
    fn how_far_a_task_has_come_counts_until_the_host_is_booted_again() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.put_task(&task(TaskState::Accepted));
        ledger.put_status(&task(TaskState::Starting));
        assert!(ledger.flush());
        assert_eq!(states(dir.path()), [Some(TaskState::Starting)]);

        let path = progress_path(&ledger.task_path(TaskId(7)));
        let said = fs::read(&path).unwrap();
        for torn in [&[][..], &said[..20], b"of another boot, as long as the name of one and more"] {
            fs::write(&path, torn).unwrap();
            assert_eq!(states(dir.path()), [Some(TaskState::Accepted)], "{torn:?}");
        }
    }

    #[test]
    fn what_was_written_for_good_is_not_taken_back_by_what_was_said_before() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.put_task(&task(TaskState::Accepted));
        for state in [TaskState::Starting, TaskState::Running, TaskState::Failed] {
            ledger.put_status(&task(state));
            assert!(ledger.flush());
            assert_eq!(states(dir.path()), [Some(state)]);
        }
        ledger.remove_task(TaskId(7));
        assert!(ledger.flush());
        assert_eq!(fs::read_dir(dir.path().join("tasks")).unwrap().count(), 0);
    }
}
