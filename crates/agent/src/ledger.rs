//! What this node was told and what became of it, on disk: so that an agent that starts without managers in reach
//! knows which containers are its own, and says again what it could not say before.
//!
//! One file of records by key ([`journal`](crate::journal)): `task/<id>` (the task with its last status), `welcome`,
//! `networks`. Records are synced: a task that a power cut took from here would be believed to run by the managers,
//! and never again be told of. How far it has come on its way to running is not worth a sync, as nothing of that
//! outlives the host: it stands beside it (`now/<id>`), and counts until the host is booted again. Never holds
//! secrets: a task only names them.

use crate::journal::{Durability, Journal, Records};
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
use tracing::{error, warn};

/// Name of the file in the agent's folder.
const FILE: &str = "ledger";
const WELCOME: &str = "welcome";
const NETWORKS: &str = "networks";

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot make the agent's state directory {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the agent's ledger {path}, or write it anew")]
    Open {
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

/// What shall become of records; `None`: it goes.
type Writes = BTreeMap<String, (Option<Vec<u8>>, Durability)>;

/// Where the kernel names this boot. *Source:* Documentation/admin-guide/sysctl/kernel.rst, random.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Handle of the ledger. Writes are queued, the newest of each record wins.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// Stands before what counts until the next one. Empty if the kernel does not say: then nothing does.
    boot: Arc<[u8]>,
    queue: Arc<(Mutex<Writes>, Notify)>,
    /// Locked while records are written: who flushes last waits for who flushes already.
    journal: Arc<Mutex<Journal>>,
}

impl Ledger {
    /// Opens the ledger in `dir` and reads it. A record that cannot be read is said to be lost.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Remembered), LedgerError> {
        fs::create_dir_all(dir).map_err(|source| LedgerError::Create { path: dir.to_owned(), source })?;
        let boot: Arc<[u8]> = fs::read(BOOT_ID).unwrap_or_default().into();
        let path = dir.join(FILE);
        let opened = Journal::open(&path, || files::read(dir));
        let opened = opened.map_err(|source| LedgerError::Open { path, source })?;
        files::remove(dir);
        if let Some(copy) = opened.damaged {
            error!(copy = %copy.display(), "records of the agent's ledger are damaged; the others count");
        }
        let remembered = remembered(opened.journal.records(), &boot);
        Ok((Self { boot, queue: Arc::default(), journal: Arc::new(Mutex::new(opened.journal)) }, remembered))
    }

    /// Remembers a task as it was assigned, with its status.
    pub(crate) fn put_task(&self, task: &Task) {
        let record = types::Task::from(task).encode_to_vec();
        self.queue(task_key(task.id), Some(record), Durability::Machine);
    }

    /// Remembers a new status of a task that is remembered: for good once it runs, for it is not started a second time.
    pub(crate) fn put_status(&self, task: &Task) {
        if task.status.state >= Some(TaskState::Running) || self.boot.is_empty() {
            return self.put_task(task);
        }
        let status = types::TaskStatus::from(&task.status).encode_to_vec();
        let record = [&self.boot, &*status].concat();
        self.queue(progress_key(&task.id.to_string()), Some(record), Durability::Process);
    }

    pub(crate) fn remove_task(&self, task: TaskId) {
        self.queue(task_key(task), None, Durability::Machine);
        self.queue(progress_key(&task.to_string()), None, Durability::Machine);
    }

    pub(crate) fn put_welcome(&self, welcome: &Welcome) {
        self.queue(WELCOME.to_owned(), Some(welcome.encode_to_vec()), Durability::Machine);
    }

    /// Remembers the networks whose tables this host holds: 16 bytes each.
    pub(crate) fn put_networks(&self, networks: &BTreeSet<NetworkId>) {
        let ids = networks.iter().flat_map(|n| n.to_wire()).collect();
        self.queue(NETWORKS.to_owned(), Some(ids), Durability::Machine);
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

    /// Writes what is queued, and what could not be written before, and returns true if it could be.
    pub(crate) fn flush(&self) -> bool {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = std::mem::take(&mut *self.queue.0.lock().unwrap_or_else(PoisonError::into_inner));
        let durability = writes.values().map(|(_, durability)| *durability).max();
        let changes = writes.into_iter().map(|(key, (record, _))| (key.into_bytes(), record));
        let written = journal.change(changes, durability.unwrap_or(Durability::Process));
        written.inspect_err(|error| warn!(%error, "cannot write the ledger")).is_ok()
    }

    fn queue(&self, key: String, record: Option<Vec<u8>>, durability: Durability) {
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (record, durability));
        self.queue.1.notify_one();
    }
}

const TASK: &str = "task/";

fn task_key(task: TaskId) -> String {
    format!("{TASK}{task}")
}

/// Returns the key of how far a task has come.
fn progress_key(task: &str) -> String {
    format!("now/{task}")
}

/// Reads the records.
fn remembered(records: &Records, boot: &[u8]) -> Remembered {
    let record = |key: &str| records.get(key.as_bytes()).map(Vec::as_slice);
    let mut remembered = Remembered::default();
    for (key, bytes) in records {
        let Some(id) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(TASK)) else { continue };
        match read_task(bytes) {
            Ok(task) => remembered.tasks.push(with_progress(task, boot, record(&progress_key(id)))),
            Err(error) => warn!(task = id, error, "task of the ledger is lost"),
        }
    }
    remembered.tasks.sort_by_key(|t| t.id);
    remembered.welcome = record(WELCOME).and_then(|bytes| Welcome::decode(bytes).ok());
    let networks = record(NETWORKS).unwrap_or_default();
    remembered.networks = networks.chunks_exact(16).filter_map(|id| NetworkId::from_wire(id).ok()).collect();
    remembered
}

fn read_task(bytes: &[u8]) -> Result<Task, String> {
    let wire = types::Task::decode(bytes).map_err(|e| e.to_string())?;
    Task::try_from(wire).map_err(|e| e.to_string())
}

/// Returns the task with how far it has come since it was written, if the host is still up.
fn with_progress(mut task: Task, boot: &[u8], said: Option<&[u8]>) -> Task {
    let status = said
        .and_then(|said| said.strip_prefix(boot))
        .filter(|_| !boot.is_empty())
        .and_then(|said| types::TaskStatus::decode(said).ok())
        .and_then(|status| TaskStatus::try_from(status).ok());
    // One of before what was written for good is left behind, and says less.
    if let Some(status) = status.filter(|status| status.state > task.status.state) {
        task.status = status;
    }
    task
}

/// The ledger as older versions have it: a file per task (`tasks/<id>.pb`, `.now`), `welcome.pb`, `networks`.
mod files {
    use super::{NETWORKS, Records, WELCOME, progress_key};
    use std::{fs, path::Path};

    /// Reads what there is.
    pub(super) fn read(dir: &Path) -> Records {
        let mut records = Records::new();
        for entry in fs::read_dir(dir.join("tasks")).into_iter().flatten().flatten() {
            let path = entry.path();
            let task = path.file_stem().unwrap_or_default().to_string_lossy();
            let key = match path.extension().and_then(|extension| extension.to_str()) {
                Some("pb") => format!("task/{task}"),
                Some("now") => progress_key(&task),
                _ => continue, // half-written
            };
            put(&mut records, &key, &path);
        }
        put(&mut records, WELCOME, &dir.join("welcome.pb"));
        put(&mut records, NETWORKS, &dir.join("networks"));
        records
    }

    fn put(records: &mut Records, key: &str, path: &Path) {
        match fs::read(path) {
            Ok(bytes) => drop(records.insert(key.as_bytes().to_vec(), bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "a record of the ledger is lost"),
        }
    }

    /// Removes it; what stays is removed the next time.
    pub(super) fn remove(dir: &Path) {
        let tasks = fs::remove_dir_all(dir.join("tasks"));
        for removed in [tasks, fs::remove_file(dir.join("welcome.pb")), fs::remove_file(dir.join("networks"))]
        {
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %dir.display(), %error, "cannot remove the ledger of before");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::earlier;

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

        let key = progress_key(&TaskId(7).to_string());
        let said = ledger.journal.lock().unwrap().records()[key.as_bytes()].clone();
        for torn in [&[][..], &said[..20], b"of another boot, as long as the name of one and more"] {
            ledger.queue(key.clone(), Some(torn.to_vec()), Durability::Process);
            assert!(ledger.flush());
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
        assert!(ledger.journal.lock().unwrap().records().is_empty());
    }

    /// Two tasks of one service on one network, as the agents of earlier versions have left them.
    #[test]
    fn what_earlier_versions_left_is_remembered() {
        for commit in earlier::COMMITS {
            let dir = tempfile::tempdir().unwrap();
            earlier::copy(
                &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/earlier").join(commit),
                dir.path(),
            );
            // Twice: what this version makes of it, it reads as well.
            for _ in 0..2 {
                let (ledger, remembered) = Ledger::open(dir.path()).unwrap();
                // One of the two has a job besides, which has ended.
                let tasks = remembered.tasks.iter().filter(|task| task.service_name == "web");
                let is: Vec<_> =
                    tasks.map(|t| (&*t.service_name, t.status.state, t.attachments.len())).collect();
                assert_eq!(is, [("web", Some(TaskState::Running), 1); 2], "{commit}");
                let containers = remembered.tasks.iter().filter(|t| t.status.container.is_some());
                assert!(containers.count() >= 2, "{commit}: they are not started a second time");
                let welcome = remembered.welcome.unwrap();
                assert_eq!(welcome.managers.unwrap().addrs, ["192.0.2.1:2377"], "{commit}");
                assert_eq!(remembered.networks.len(), 1, "{commit}");
                remembered.tasks.iter().for_each(|task| ledger.put_task(task));
                assert!(ledger.flush());
            }
            assert!(!dir.path().join("ledger.damaged").exists(), "{commit}");
        }
    }

    #[test]
    fn a_task_with_what_a_newer_version_knows_of_it_is_a_task() {
        let mut bytes = types::Task::from(&task(TaskState::Running)).encode_to_vec();
        prost::encoding::string::encode(15_000, &"news".to_owned(), &mut bytes);
        assert_eq!(read_task(&bytes).unwrap(), task(TaskState::Running));
    }

    #[test]
    fn the_ledger_of_an_older_version_is_taken_over_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: String| dir.path().join(name);
        fs::create_dir(path("tasks".to_owned())).unwrap();
        let accepted = types::Task::from(&task(TaskState::Accepted)).encode_to_vec();
        fs::write(path(format!("tasks/{}.pb", TaskId(7))), accepted).unwrap();
        let starting = types::TaskStatus::from(&task(TaskState::Starting).status).encode_to_vec();
        let boot = fs::read(BOOT_ID).unwrap();
        fs::write(path(format!("tasks/{}.now", TaskId(7))), [boot, starting].concat()).unwrap();
        let welcome = Welcome { heartbeat_period_ms: 3_000, ..Welcome::default() };
        fs::write(path("welcome.pb".to_owned()), welcome.encode_to_vec()).unwrap();
        fs::write(path("networks".to_owned()), NetworkId(5).to_wire()).unwrap();
        for _ in 0..2 {
            let (_, remembered) = Ledger::open(dir.path()).unwrap();
            assert_eq!(remembered.tasks, [task(TaskState::Starting)]);
            assert_eq!(remembered.welcome.as_ref(), Some(&welcome));
            assert_eq!(remembered.networks, BTreeSet::from([NetworkId(5)]));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the files of before are gone");
        }
    }
}
