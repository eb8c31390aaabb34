//! Putting the parts together, and taking them down in order.

use crate::{
    cipher::Dek,
    handle::Handle,
    leadership::{Leadership, herald},
    machine::Machine,
    members::Members,
    network::{Connect, MESSAGE_LIMIT, Network, Places},
    propose::{self, Proposer},
    rhythm::{self, Rhythm},
    service::{Admission, RaftService},
    snapshot::{SnapshotError, Snapshots},
    steward,
    supervise::{Failure, reporting_to},
    types::{Place, TypeConfig},
    wal::{Log, OpenLogError, Reader, Writing},
};
use model::{Duration, NodeId};
use openraft::{Config, Raft, SnapshotPolicy, async_runtime::watch::WatchReceiver as _};
use proto::raft::raft_server::RaftServer;
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use sys::disk::{Disk, Os};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// A new member that is no further behind than this is about to be as far as the others.
const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// How a member takes part.
#[derive(Clone)]
pub struct Options {
    /// A random number made for this join; never used by another.
    pub raft_id: u64,
    /// The node it is.
    pub node: NodeId,
    /// Where the other managers reach this one.
    pub addr: SocketAddr,
    pub dek: Dek,
    pub connect: Arc<dyn Connect>,
    /// Where the log and the snapshots are written.
    pub disk: Arc<dyn Disk>,
    /// Entries between two snapshots, until [`Handle::set_snapshots`] says otherwise.
    /// Source: `ClusterSpec::snapshot_interval`.
    pub snapshot_interval: u64,
    /// Log between two snapshots, whatever the number of its entries; a quarter of it may stay behind one. *Unit:* bytes.
    pub log_bytes: u64,
    /// Snapshots kept beside the newest, until [`Handle::set_snapshots`] says otherwise.
    pub old_snapshots: u64,
    /// Entries kept behind a snapshot for members that are a little late, until [`Handle::set_snapshots`] says otherwise.
    pub keep_entries: u64,
    pub timing: Timing,
}

/// Heartbeats and elections. A follower calls an election when it has not heard of the leader for the leader's lease,
/// which is `election_max`, and then for a random time between `election_min` and `election_max`: with the usual
/// values 2 to 2.5 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(750),
            election_max: Duration::from_millis(1250),
        }
    }
}

impl Options {
    /// Returns the usual options: the kernel's disk, a snapshot every 10,000 entries or 64 MiB, 500 or 16 MiB kept.
    pub fn new(raft_id: u64, node: NodeId, addr: SocketAddr, dek: Dek, connect: Arc<dyn Connect>) -> Self {
        Self {
            raft_id,
            node,
            addr,
            dek,
            connect,
            disk: Arc::new(Os),
            snapshot_interval: 10_000,
            log_bytes: 64 << 20,
            old_snapshots: 0,
            keep_entries: 500,
            timing: Timing::default(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("raft_id", &self.raft_id)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// Why the store cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use {dir}")]
    Dir {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{dir} is in use by another process")]
    InUse { dir: PathBuf },
    #[error(transparent)]
    Log(#[from] OpenLogError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the log in {dir} begins behind entry {purged}, but there is no snapshot that has it")]
    NoSnapshot { dir: PathBuf, purged: u64 },
    #[error("Raft settings are contradictory: {0}")]
    Settings(String),
    #[error("Raft cannot start: {0}")]
    Raft(String),
}

/// A running store. [`Store::shutdown`] ends it; dropping it only stops its own tasks.
#[derive(Debug)]
pub struct Store {
    handle: Handle,
    snapshots: Snapshots,
    log: Reader,
    node: NodeId,
    addr: SocketAddr,
    cancel: CancellationToken,
    tasks: JoinSet<Option<()>>,
    writer: Mutex<Option<Writing>>,
}

impl Store {
    /// Returns the raft id of the store in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn stored_raft_id(dir: &Path) -> io::Result<Option<u64>> {
        Log::raft_id(&dir.join("log"))
    }

    /// Opens the store in `dir`, making an empty one if there is none, and starts to take part in Raft. An empty
    /// one waits: the first manager of a swarm calls [`Store::bootstrap`], any other is added by the leader
    /// ([`Handle::add_member`]) once it serves [`Store::service`].
    ///
    /// # Errors
    /// [`OpenError`]; nothing on disk was changed then.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let (root, dek, raft_id) = (dir.to_owned(), options.dek.clone(), options.raft_id);
        let Options { snapshot_interval, log_bytes, old_snapshots, keep_entries, .. } = options;
        let rhythm = Arc::new(Rhythm::new(snapshot_interval, log_bytes, old_snapshots, keep_entries));
        let (kept, disk) = (rhythm.clone(), options.disk.clone());
        let blocking = tokio::task::spawn_blocking(move || {
            let lock = lock(&root)?;
            let snapshots = Snapshots::open(disk.clone(), &root.join("snapshots"), &dek, kept)?;
            let opened = Log::open(disk, &root.join("log"), &dek, raft_id, Some(lock))?;
            let last = snapshots.newest().and_then(|(meta, _)| meta.last_log_id).map(|id| id.index);
            match opened.log.purged() {
                Some(purged) if last.is_none_or(|last| last < purged.index) => {
                    Err(OpenError::NoSnapshot { dir: root, purged: purged.index })
                }
                _ => Ok((snapshots, opened)),
            }
        });
        let (snapshots, opened) = blocking.await.map_err(|e| OpenError::Raft(e.to_string()))??;
        let kept_snapshots = snapshots.clone();
        let machine = Machine::new(snapshots);
        let published = machine.published();
        let places = Places::default();
        let network = Network::new(options.connect.clone(), places.clone());
        let failure = Failure::new();
        let log = opened.log.reader();
        let starting = Raft::new(raft_id, Arc::new(config(&options)?), network, opened.log, machine);
        let raft = reporting_to(&failure, starting).await.map_err(|e| OpenError::Raft(e.to_string()))?;

        let known = raft.server_metrics();
        places.get_or_init(|| {
            Box::new(move |raft_id| {
                let metrics = known.borrow_watched().clone();
                metrics.membership_config.membership().get_node(&raft_id).cloned()
            })
        });
        stand_if_alone(&raft).await?;
        let (proposer, proposals) = Proposer::new(published.clone(), failure.clone());
        let (told, leadership) = watch::channel(Leadership::default());
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let herald = herald(raft.clone(), told, failure.clone(), opened.failure, cancel.clone());
        let rhythms = rhythm::run(raft.clone(), rhythm.clone(), log.clone(), cancel.clone());
        let members = Members { raft: raft.clone(), failure: failure.clone() };
        let low = opened.low.subscribe();
        let steward = steward::run(members, opened.low, opened.reserve, cancel.clone());
        let proposing = propose::run(raft.clone(), proposals, cancel.clone());
        tasks.spawn(failure.clone().covers("the proposer", proposing));
        tasks.spawn(failure.clone().covers("the herald", herald));
        tasks.spawn(failure.clone().covers("the rhythm of snapshots", rhythms));
        tasks.spawn(failure.clone().covers("the steward", steward));
        // Long enough for an election; after it, whoever still hears nobody is cut off.
        let lease = options.timing.election_max * 2 + options.timing.heartbeat * 2;
        let contact = Arc::default();
        let caught_up_in = Arc::default();
        let syncs = log.syncs();
        let handle = Handle {
            raft,
            published,
            proposer,
            leadership,
            failure,
            rhythm,
            contact,
            lease,
            low,
            caught_up_in,
            syncs,
            proposals: Arc::default(),
        };
        let writer = Mutex::new(Some(opened.writer));
        Ok(Self {
            handle,
            snapshots: kept_snapshots,
            log,
            node: options.node,
            addr: options.addr,
            cancel,
            tasks,
            writer,
        })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Returns the gRPC service the other members call.
    pub fn service(&self, admission: Admission) -> RaftServer<RaftService> {
        RaftServer::new(RaftService::new(&self.handle, self.snapshots.clone(), self.log.clone(), admission))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Makes this the only member of a new swarm; it leads at once. Does nothing if it is a member already.
    ///
    /// # Errors
    /// The store failed.
    pub async fn bootstrap(&self) -> Result<(), OpenError> {
        let raft = &self.handle.raft;
        let failed = |e: &dyn std::fmt::Display| OpenError::Raft(e.to_string());
        if raft.is_initialized().await.map_err(|e| failed(&e))? {
            return Ok(());
        }
        let me = Place { addr: self.addr.to_string(), node: Some(self.node) };
        let members = std::collections::BTreeMap::from([(self.handle.raft_id(), me)]);
        raft.initialize(members).await.map_err(|e| failed(&e))
    }

    /// Ends it: refuses new proposals, stops Raft, and returns when the last record is on disk. Handles that are
    /// left keep the last view; everything else fails.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        if let Err(error) = self.handle.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not end in order");
        }
        while self.tasks.join_next().await.is_some() {}
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.ended().await;
        }
    }
}

/// A swarm with one manager need not wait for the silence of a leader that it would have to be itself.
async fn stand_if_alone(raft: &Raft<TypeConfig, Machine>) -> Result<(), OpenError> {
    let me = *raft.node_id();
    let alone = raft.metrics().borrow_watched().membership_config.voter_ids().eq([me]);
    if alone { raft.trigger().elect(false).await.map_err(|e| OpenError::Raft(e.to_string())) } else { Ok(()) }
}

pub(crate) fn lock(dir: &Path) -> Result<fs::File, OpenError> {
    let failed = |source| OpenError::Dir { dir: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let file = fs::File::create(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn config(options: &Options) -> Result<Config, OpenError> {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "rswarm".to_owned(),
        heartbeat_interval: millis(options.timing.heartbeat),
        election_timeout_min: millis(options.timing.election_min),
        election_timeout_max: millis(options.timing.election_max),
        enable_pre_vote: Some(true),
        // Module `rhythm` does, whose interval may change.
        snapshot_policy: SnapshotPolicy::Never,
        // Nor does Raft cut the log by itself.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        max_payload_entries: 300,
        replication_lag_threshold: CAUGHT_UP_ENTRIES,
        install_snapshot_timeout: 60_000,
        // A member that starts is a follower. A leader that resumed its term would number new entries as those that
        // its disk lost in a power cut and that followers may still hold: two entries under one log id, acknowledged
        // writes gone, members apart for good. And it would answer reads before it knows what is committed.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|e| OpenError::Settings(e.to_string()))
}
