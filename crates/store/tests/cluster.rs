//! Managers agreeing over loopback gRPC, with members that die, come back, lag and leave.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{
    Batch, Change, Cluster, ClusterId, Conflict, FEATURE_LEVEL, Labels, Meta, NodeId, Object, ObjectRef,
    Secret, SecretBytes, SecretId, SecretSpec, Timestamp,
};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Admission, Connect, ConnectError, Dek, Handle, MembershipError, OpenError, Options, ProposeError,
    ReadError, Store,
};
use sys::disk::{Disk, Os};
use tempfile::TempDir;
use testkit::lossy::FullAt;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, server::TcpIncoming};

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `check` gives something.
async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < give_up, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn dial(addr: SocketAddr) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(1)).connect().await?)
}

fn node(raft_id: u64) -> NodeId {
    NodeId(u128::from(raft_id))
}

fn connect() -> Arc<dyn Connect> {
    Arc::new(|_node: Option<NodeId>, addr: SocketAddr| dial(addr))
}

/// One manager: its directory outlives it.
struct Manager {
    raft_id: u64,
    addr: SocketAddr,
    dir: TempDir,
    snapshot_interval: u64,
    keep_entries: u64,
    log_bytes: u64,
    disk: Arc<dyn Disk>,
    running: Option<(Store, JoinSet<()>, CancellationToken)>,
}

impl Manager {
    async fn start(raft_id: u64, snapshot_interval: u64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut manager = Self {
            raft_id,
            addr,
            dir,
            snapshot_interval,
            keep_entries: 5,
            log_bytes: 64 << 20,
            disk: Arc::new(Os),
            running: None,
        };
        manager.run(socket).await;
        manager
    }

    fn options(&self) -> Options {
        let mut options =
            Options::new(self.raft_id, node(self.raft_id), self.addr, Dek::new(&[9; 32]), connect());
        options.snapshot_interval = self.snapshot_interval;
        options.keep_entries = self.keep_entries;
        options.log_bytes = self.log_bytes;
        options.disk = self.disk.clone();
        options
    }

    async fn open(&self) -> Result<Store, OpenError> {
        Store::open(self.dir.path(), self.options()).await
    }

    async fn run(&mut self, socket: TcpListener) {
        let store = self.open().await.unwrap();
        let cancel = CancellationToken::new();
        let mut serving = JoinSet::new();
        let server = tonic::transport::Server::builder().add_service(store.service(Admission::Anyone));
        let stopped = cancel.clone().cancelled_owned();
        serving.spawn(async move {
            server.serve_with_incoming_shutdown(TcpIncoming::from(socket), stopped).await.unwrap();
        });
        self.running = Some((store, serving, cancel));
    }

    /// Ends it without telling the others.
    async fn stop(&mut self) {
        let (store, mut serving, _cancel) = self.running.take().expect("it runs");
        serving.abort_all();
        store.shutdown().await;
        while serving.join_next().await.is_some() {}
    }

    async fn restart(&mut self) {
        let give_up = Instant::now() + DEADLINE;
        let socket = loop {
            match TcpListener::bind(self.addr).await {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < give_up, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        self.run(socket).await;
    }

    fn store(&self) -> &Store {
        &self.running.as_ref().expect("it runs").0
    }

    fn handle(&self) -> Handle {
        self.store().handle()
    }

    fn snapshots(&self) -> usize {
        files(&self.dir.path().join("snapshots"), "snap")
    }
}

fn files(dir: &Path, extension: &str) -> usize {
    let all = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == extension)).count()
}

/// `size` managers that agree, the first of them the leader.
async fn cluster(size: u64, snapshot_interval: u64) -> Vec<Manager> {
    let mut managers = vec![Manager::start(1, snapshot_interval).await];
    managers[0].store().bootstrap().await.unwrap();
    let leader = managers[0].handle();
    eventually("the first manager leads", || leader.leader_now().me.then_some(())).await;
    for raft_id in 2..=size {
        let manager = Manager::start(raft_id, snapshot_interval).await;
        leader.add_member(raft_id, node(raft_id), manager.addr).await.unwrap();
        managers.push(manager);
    }
    managers
}

fn secret(id: u64, name: &str, version: u64) -> Change {
    let spec = SecretSpec {
        templated: false,
        name: name.to_owned(),
        labels: Labels::new(),
        data: SecretBytes(vec![1; 64]),
    };
    let meta = Meta { version, ..Meta::default() };
    Change::Put(Object::Secret(Arc::new(Secret { id: SecretId(u128::from(id)), meta, spec })))
}

fn put(id: u64) -> Batch {
    Batch { at: Timestamp(1), changes: vec![secret(id, &format!("s{id}"), 0)] }
}

/// Proposes to whoever leads, until it is acknowledged.
async fn write(managers: &[Manager], id: u64) -> u64 {
    let give_up = Instant::now() + DEADLINE;
    loop {
        for manager in managers.iter().filter(|m| m.running.is_some()) {
            match manager.handle().propose(put(id)).await {
                Ok((index, _)) => return index,
                // An attempt whose outcome was unknown did take effect.
                Err(ProposeError::Conflict(Conflict::OutOfSequence { stored, .. })) if stored > 0 => {
                    return stored;
                }
                Err(_) => {}
            }
        }
        assert!(Instant::now() < give_up, "no manager accepted the change");
        sleep(Duration::from_millis(20)).await;
    }
}

fn has(handle: &Handle, ids: std::ops::Range<u64>) -> bool {
    let view = handle.view();
    ids.into_iter().all(|id| view.secrets.contains(&SecretId(u128::from(id))))
}

async fn arrive(manager: &Manager, ids: std::ops::Range<u64>) {
    let handle = manager.handle();
    eventually("all changes arrive", || has(&handle, ids.clone()).then_some(())).await;
}

fn leader_of(managers: &[Manager]) -> Option<usize> {
    managers.iter().position(|m| m.running.is_some() && m.handle().leader_now().me)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_reach_every_member_and_survive_a_restart_of_all() {
    let mut managers = cluster(3, 1000).await;
    for id in 0..20 {
        write(&managers, id).await;
    }
    for manager in &managers {
        arrive(manager, 0..20).await;
    }
    let before = managers[0].handle().view();
    for manager in &mut managers {
        manager.stop().await;
    }
    for manager in &mut managers {
        manager.restart().await;
    }
    write(&managers, 20).await;
    for manager in &managers {
        arrive(manager, 0..21).await;
        for secret in before.secrets.values() {
            assert_eq!(manager.handle().view().secrets.get(&secret.id), Some(secret));
        }
        assert_eq!(manager.handle().members().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_manager_takes_over_when_the_leader_dies() {
    let mut managers = cluster(3, 1000).await;
    for id in 0..5 {
        write(&managers, id).await;
    }
    let mut told = managers[1].handle().leader();
    let term = told.borrow_and_update().term;
    managers[0].stop().await;
    write(&managers, 5).await;
    let leader = leader_of(&managers).expect("one leads");
    assert!(managers[leader].handle().leader_now().term > term);
    told.wait_for(|l| l.leader.is_some_and(|(id, _)| id != 1)).await.unwrap();
    for manager in &managers[1..] {
        arrive(manager, 0..6).await;
    }
    managers[0].restart().await;
    arrive(&managers[0], 0..6).await;
}

/// Followers may hold entries of the old term that the leader's disk lost in a power cut: new ones must not get
/// the same log ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_starts_again_follows_until_it_is_elected_in_a_new_term() {
    let mut managers = cluster(3, 1000).await;
    write(&managers, 0).await;
    let leader = leader_of(&managers).expect("one leads");
    let term = managers[leader].handle().leader_now().term;
    managers[leader].stop().await;
    managers[leader].restart().await;
    let again = managers[leader].handle();
    assert!(!again.leader_now().me || again.leader_now().term > term, "it resumed its term");
    write(&managers, 1).await;
    arrive(&managers[leader], 0..2).await;
    let next = leader_of(&managers).expect("one leads");
    assert!(managers[next].handle().leader_now().term > term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_without_others_leads_again_at_once_in_a_new_term() {
    let mut managers = cluster(1, 1000).await;
    write(&managers, 0).await;
    let term = managers[0].handle().leader_now().term;
    managers[0].stop().await;
    managers[0].restart().await;
    write(&managers, 1).await;
    assert!(managers[0].handle().leader_now().term > term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_stopped_does_not_say_that_it_leads() {
    let mut managers = cluster(1, 1000).await;
    let handle = managers[0].handle();
    assert!(handle.leader_now().me);
    managers[0].stop().await;
    let last = handle.leader_now();
    assert!(!last.me && last.leader.is_none(), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_acknowledges_nothing() {
    let mut managers = cluster(3, 1000).await;
    write(&managers, 0).await;
    managers[1].stop().await;
    managers[2].stop().await;
    let alone = managers[0].handle();
    let outcome = alone.propose(put(1)).await;
    assert!(
        matches!(
            outcome,
            Err(ProposeError::OutcomeUnknown | ProposeError::NotLeader { .. } | ProposeError::Unavailable(_))
        ),
        "{outcome:?}"
    );
    assert!(!has(&alone, 1..2), "what is not agreed on is not seen");
    assert!(alone.read_index().await.is_err(), "nor can it promise a fresh read");
    managers[1].restart().await;
    write(&managers, 2).await;
    arrive(&managers[0], 0..1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_asks_the_others_once_a_term_what_was_agreed_on() {
    let mut managers = cluster(3, 1000).await;
    write(&managers, 0).await;
    let leader = eventually("one leads", || leader_of(&managers)).await;
    let handle = managers[leader].handle();
    let Ok(term) = handle.leading_term().await else { return }; // it was replaced at this very moment
    for other in [(leader + 1) % 3, (leader + 2) % 3] {
        managers[other].stop().await;
    }
    let again = handle.leading_term().await;
    let now = handle.leader_now();
    assert!(again.ok() == Some(term) || !now.me || now.term != term, "nobody need answer");
    assert!(handle.read_index().await.is_err(), "nobody does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_in_one_term_is_written_in_no_other() {
    let mut managers = cluster(1, 1000).await;
    let term = managers[0].handle().leading_term().await.unwrap();
    managers[0].handle().propose_whole_in(term, put(1)).await.unwrap();
    managers[0].stop().await;
    managers[0].restart().await;
    let handle = managers[0].handle();
    eventually("it leads again", || handle.leader_now().me.then_some(())).await;
    let late = handle.propose_whole_in(term, put(2)).await;
    assert!(matches!(late, Err(ProposeError::NotLeader { leader: None })), "{late:?}");
    let now = handle.leading_term().await.unwrap();
    assert!(now > term);
    handle.propose_whole_in(now, put(3)).await.unwrap();
    assert!(has(&handle, 3..4) && !has(&handle, 2..3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_often_snapshots_are_made_and_how_many_stay_may_change_while_it_runs() {
    let managers = cluster(1, 1_000_000).await;
    let manager = &managers[0];
    for id in 0..20 {
        write(&managers, id).await;
    }
    assert_eq!(manager.snapshots(), 0);
    manager.handle().set_snapshots(5, 2, 5);
    eventually("a snapshot is made", || (manager.snapshots() == 1).then_some(())).await;
    let mut kept = 0;
    for id in 20..200 {
        write(&managers, id).await;
        kept = kept.max(manager.snapshots());
    }
    // One more for a moment, before the oldest goes.
    assert!((3..=4).contains(&kept), "{kept}");
    manager.handle().set_snapshots(5, 0, 5);
    for id in 200..220 {
        write(&managers, id).await;
    }
    eventually("only the newest stays", || (manager.snapshots() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_large_changes_are_as_good_a_reason_for_a_snapshot_as_many_small_ones() {
    const LOG_BYTES: u32 = 1 << 20;
    let large = LOG_BYTES as usize / 6;
    let mut managers = cluster(1, 1_000_000).await;
    managers[0].stop().await;
    managers[0].keep_entries = 1_000_000;
    managers[0].log_bytes = u64::from(LOG_BYTES);
    managers[0].restart().await;
    let leader = managers[0].handle();
    eventually("it leads again", || leader.leader_now().me.then_some(())).await;
    for n in 0..8 {
        let spec = SecretSpec {
            templated: false,
            name: "s".to_owned(),
            labels: Labels::new(),
            data: SecretBytes(vec![n; large]),
        };
        // The same one again and again: the state stays small.
        let version = leader.view().secrets.get(&SecretId(1)).map_or(0, |s| s.meta.version);
        let meta = Meta { version, ..Meta::default() };
        let change = Change::Put(Object::Secret(Arc::new(Secret { id: SecretId(1), meta, spec })));
        leader.propose(Batch { at: Timestamp(1), changes: vec![change] }).await.unwrap();
    }
    eventually("a snapshot is made", || (managers[0].snapshots() == 1).then_some(())).await;
    // A million entries may stay behind it, but not of this size: whoever comes needs the snapshot.
    let newcomer = Manager::start(2, 1_000_000).await;
    leader.add_member(2, node(2), newcomer.addr).await.unwrap();
    eventually("the newcomer has what was written last", || {
        newcomer.handle().view().secrets.get(&SecretId(1)).filter(|s| s.spec.data.0[0] == 7).map(drop)
    })
    .await;
    assert!(newcomer.handle().feed(0).next().await.is_err(), "its feed begins behind the snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_catches_up_by_snapshot_when_the_log_is_cut() {
    let mut managers = cluster(1, 50).await;
    for id in 0..200 {
        write(&managers, id).await;
    }
    eventually("a snapshot is made", || (managers[0].snapshots() == 1).then_some(())).await;
    let newcomer = Manager::start(2, 1_000_000).await;
    managers[0].handle().add_member(2, node(2), newcomer.addr).await.unwrap();
    arrive(&newcomer, 0..200).await;
    assert_eq!(newcomer.snapshots(), 1, "it would make none by itself");
    assert_eq!(newcomer.handle().view().secrets, managers[0].handle().view().secrets);
    assert!(newcomer.handle().feed(0).next().await.is_err(), "its feed begins behind the snapshot");
    managers.push(newcomer);
    write(&managers, 200).await;
    for manager in &mut managers {
        manager.stop().await;
        manager.restart().await;
    }
    for manager in &managers {
        arrive(manager, 0..201).await;
    }

    // The log alone does not have it all any more: that it says so proves that it was cut.
    managers[0].stop().await;
    std::fs::remove_dir_all(managers[0].dir.path().join("snapshots")).unwrap();
    let opened = managers[0].open().await;
    assert!(matches!(opened, Err(OpenError::NoSnapshot { purged, .. }) if purged > 50), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_written_snapshot_is_ignored_and_a_damaged_one_refused() {
    let mut managers = cluster(1, 20).await;
    for id in 0..50 {
        write(&managers, id).await;
    }
    let dir = managers[0].dir.path().join("snapshots");
    eventually("a snapshot is made", || (managers[0].snapshots() == 1).then_some(())).await;
    managers[0].stop().await;
    std::fs::write(dir.join("ffffffffffffffff-ffffffffffffffff.tmp"), b"RSSNAPv1 half").unwrap();
    managers[0].restart().await;
    arrive(&managers[0], 0..50).await;
    assert_eq!(files(&dir, "tmp"), 0);

    managers[0].stop().await;
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 7]).unwrap();
    let error = managers[0].open().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("is damaged") && error.contains(".snap"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_reported_and_changes_nothing() {
    let managers = cluster(1, 1000).await;
    let handle = managers[0].handle();
    let (index, events) = handle.propose(put(1)).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(handle.view().get(ObjectRef::Secret(SecretId(1))).unwrap().version(), index);

    let stale = Batch { changes: vec![secret(2, "fine", 0), secret(1, "s1", index + 7)], ..Batch::default() };
    let outcome = handle.propose(stale).await;
    assert!(matches!(outcome, Err(ProposeError::Conflict(Conflict::OutOfSequence { .. }))), "{outcome:?}");
    let taken = Batch { changes: vec![secret(3, "s1", 0)], ..Batch::default() };
    let outcome = handle.propose(taken).await;
    assert!(matches!(outcome, Err(ProposeError::Conflict(Conflict::NameTaken { .. }))), "{outcome:?}");
    assert_eq!(handle.view().secrets.len(), 1);

    // Of writers that race for one version, one wins, even in one entry.
    let race = (0..20).map(|_| {
        let change = Batch { changes: vec![secret(1, "s1", index)], ..Batch::default() };
        let handle = handle.clone();
        async move { handle.propose(change).await.is_ok() }
    });
    let won = futures::future::join_all(race).await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);

    let huge = SecretSpec {
        templated: false,
        name: "huge".to_owned(),
        labels: Labels::new(),
        data: SecretBytes(vec![0; 2_000_000]),
    };
    let huge = Object::Secret(Arc::new(Secret { id: SecretId(9), meta: Meta::default(), spec: huge }));
    let outcome = handle.propose(Batch { changes: vec![Change::Put(huge)], ..Batch::default() }).await;
    assert!(matches!(outcome, Err(ProposeError::TooLarge { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader_and_catches_up_with_its_index() {
    let managers = cluster(3, 1000).await;
    let (leader, follower) = (managers[0].handle(), managers[1].handle());
    eventually("the follower knows the leader", || follower.leader_now().leader).await;
    let there = Some((1, managers[0].addr));
    let outcome = follower.propose(put(1)).await;
    assert!(matches!(&outcome, Err(ProposeError::NotLeader { leader }) if *leader == there), "{outcome:?}");
    let outcome = follower.read_index().await;
    assert!(matches!(&outcome, Err(ReadError::NotLeader { leader }) if *leader == there), "{outcome:?}");

    let (index, _) = leader.propose(put(1)).await.unwrap();
    let fresh = leader.read_index().await.unwrap();
    assert!(fresh >= index);
    follower.wait_applied(fresh).await.unwrap();
    assert!(has(&follower, 1..2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_before_the_leader_leaves() {
    let mut managers = cluster(3, 1000).await;
    write(&managers, 0).await;
    let outcome = managers[0].handle().remove_member(1).await;
    let Err(MembershipError::NotLeader { leader: Some((successor, _)) }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_ne!(successor, 1);
    let position = usize::try_from(successor - 1).unwrap();
    let next = managers[position].handle();
    eventually("the successor leads", || next.leader_now().me.then_some(())).await;
    next.remove_member(1).await.unwrap();
    next.remove_member(1).await.unwrap();
    managers[0].stop().await;
    write(&managers, 1).await;
    let left: Vec<u64> = next.members().iter().map(|m| m.raft_id).collect();
    assert_eq!(left, [2, 3]);

    let other = managers.iter().find(|m| m.running.is_some() && m.raft_id != successor).unwrap();
    next.transfer_leadership(Some(other.raft_id)).await.unwrap();
    let other = other.handle();
    eventually("the other one leads", || other.leader_now().me.then_some(())).await;
    other.remove_member(successor).await.unwrap();
    let outcome = other.remove_member(other.raft_id()).await;
    assert!(matches!(outcome, Err(MembershipError::Last(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_nobody_reaches_is_not_made_a_voter() {
    let managers = cluster(1, 1000).await;
    let handle = managers[0].handle();
    // Somebody else answers at this address: the message names its target, so nothing is taken in by mistake.
    let stranger = Manager::start(77, 1000).await;
    let adding =
        tokio::time::timeout(Duration::from_secs(3), handle.add_member(2, node(2), stranger.addr)).await;
    assert!(adding.is_err(), "{adding:?}");
    assert!(handle.members().iter().all(|m| m.raft_id != 2 || !m.voter));
    handle.propose(put(1)).await.unwrap();
    assert!(stranger.handle().view().secrets.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_tells_every_change_once_and_in_order() {
    let managers = cluster(1, 1000).await;
    let handle = managers[0].handle();
    let mut feed = handle.feed(handle.view().index);
    let writers = (0..100).map(|id| {
        let handle = handle.clone();
        async move { handle.propose(put(id)).await.unwrap().0 }
    });
    let mut indexes = futures::future::join_all(writers).await;
    indexes.sort_unstable();
    let (mut seen, mut last) = (0, 0);
    while seen < 100 {
        let (index, events) = feed.next().await.unwrap().unwrap();
        assert!(index > last, "in order");
        (last, seen) = (index, seen + events.len());
    }
    assert_eq!(last, *indexes.last().unwrap());
    indexes.dedup();
    assert!(indexes.len() < 100, "proposals that wait together share entries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_member_and_says_why() {
    let mut manager = Manager::start(1, 1_000_000).await;
    manager.stop().await;
    manager.disk = Arc::new(FullAt::new("0000000000000002.wal"));
    manager.restart().await;
    manager.store().bootstrap().await.unwrap();
    let handle = manager.handle();
    eventually("it leads", || handle.leader_now().me.then_some(())).await;
    // Fill the first segment (16 MiB).
    let next = AtomicU64::new(0);
    let failed = loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let spec = SecretSpec {
            templated: false,
            name: format!("s{id}"),
            labels: Labels::new(),
            data: SecretBytes(vec![5; 1_000_000]),
        };
        let change = Change::Put(Object::Secret(Arc::new(Secret {
            id: SecretId(u128::from(id)),
            meta: Meta::default(),
            spec,
        })));
        let asked = Instant::now();
        match handle.propose(Batch { changes: vec![change], ..Batch::default() }).await {
            Ok(_) => assert!(id < 40, "the disk never gets full"),
            Err(error) => {
                assert!(
                    asked.elapsed() < Duration::from_secs(5),
                    "who waits is told as soon as Raft has died"
                );
                break error;
            }
        }
    };
    assert!(
        matches!(failed, ProposeError::OutcomeUnknown | ProposeError::Unavailable(_)),
        "what failed is not called refused: {failed}"
    );
    let why = eventually("the failure is told", || handle.failure()).await;
    assert!(why.contains("No space left"), "{why}");
    let outcome = handle.propose(put(1000)).await;
    assert!(matches!(outcome, Err(ProposeError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_know_the_rules_of_the_swarm_applies_nothing_more() {
    let managers = cluster(1, 1000).await;
    let handle = managers[0].handle();
    let rules = Cluster { feature_level: FEATURE_LEVEL + 1, ..Cluster::new(ClusterId(1)) };
    let newer = Object::Cluster(Arc::new(rules));
    handle.propose(Batch { at: Timestamp(1), changes: vec![Change::Put(newer)] }).await.unwrap();
    let index = handle.view().index;
    handle.propose(put(1)).await.unwrap_err();
    let why = eventually("it ends", || handle.failure()).await;
    assert!(why.contains("hint: install the version of the other managers"), "{why}");
    assert_eq!(handle.view().index, index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_at_another_address_is_reached_there_by_the_same_leader() {
    let mut managers = cluster(3, 1000).await;
    let leader = managers[0].handle();
    managers[2].stop().await;
    write(&managers[..2], 1).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    managers[2].addr = socket.local_addr().unwrap();
    managers[2].run(socket).await;
    assert!(leader.leader_now().me, "the leader is who it was");
    leader.add_member(3, node(3), managers[2].addr).await.unwrap();
    let index = write(&managers[..2], 2).await;
    let moved = managers[2].handle();
    eventually("it has what was written", || (moved.view().index >= index).then_some(())).await;
    let places: Vec<_> = leader.members().into_iter().map(|m| (m.raft_id, m.addr, m.voter)).collect();
    let expected: Vec<_> = managers.iter().map(|m| (m.raft_id, m.addr, true)).collect();
    assert_eq!(places, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_has_one_user_at_a_time() {
    let managers = cluster(1, 1000).await;
    assert!(matches!(managers[0].open().await.map(drop), Err(OpenError::InUse { .. })));
    assert_eq!(Store::stored_raft_id(managers[0].dir.path()).unwrap(), Some(1));
    // The port is still taken by the one that runs.
    TcpStream::connect(managers[0].addr).await.unwrap();
}

/// Copies a directory file by file, as the disk looks at that moment.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if let Err(error) = std::fs::copy(&path, &target) {
            // Renamed or deleted between listing and copying.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_is_on_disk_at_that_moment() {
    let managers = cluster(1, 1_000_000).await;
    let handle = managers[0].handle();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writer = {
        let (handle, acknowledged) = (handle.clone(), acknowledged.clone());
        async move {
            for id in 0..400 {
                handle.propose(put(id)).await.unwrap();
                acknowledged.store(id + 1, Ordering::SeqCst);
            }
        }
    };
    let mut writing = JoinSet::new();
    writing.spawn(writer);
    for round in 1..=4 {
        eventually("more is written", || (acknowledged.load(Ordering::SeqCst) >= round * 80).then_some(()))
            .await;
        let promised = acknowledged.load(Ordering::SeqCst);
        let image = tempfile::tempdir().unwrap();
        copy(managers[0].dir.path(), image.path());
        let store = Store::open(image.path(), managers[0].options()).await.unwrap();
        // It was alone: it elects itself, and then everything in its log counts.
        let crashed = store.handle();
        eventually("it leads again", || crashed.leader_now().me.then_some(())).await;
        eventually("all is there", || has(&crashed, 0..promised).then_some(())).await;
        store.shutdown().await;
    }
    writing.join_next().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_would_stop_the_swarm_is_refused() {
    let mut managers = cluster(3, 1000).await;
    let leader = managers[0].handle();
    eventually("all are reachable", || {
        leader.members().iter().all(|m| m.reachable == Some(true)).then_some(())
    })
    .await;
    managers[2].stop().await;
    let gone = |m: &store::Member| m.raft_id == 3 && m.reachable == Some(false);
    eventually("the dead one is noticed", || leader.members().iter().any(gone).then_some(())).await;
    let outcome = leader.remove_member(2).await;
    assert!(matches!(outcome, Err(MembershipError::Quorum(2))), "{outcome:?}");
    leader.remove_member(3).await.unwrap();
    write(&managers, 1).await;
    assert_eq!(leader.members().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_current_only_while_it_hears_of_the_others() {
    let mut managers = cluster(3, 1000).await;
    write(&managers, 0).await;
    for manager in &managers {
        eventually("all are current", || manager.handle().is_current().then_some(())).await;
    }
    let leader = leader_of(&managers).expect("one leads");
    let follower = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    managers[third].stop().await;
    managers[leader].stop().await;
    let alone = managers[follower].handle();
    eventually("it hears nobody", || (!alone.is_current()).then_some(())).await;
    managers[leader].restart().await;
    eventually("it hears or leads again", || alone.is_current().then_some(())).await;
    // Now a leader that is left alone.
    let leads = eventually("one leads", || leader_of(&managers)).await;
    let other = if leads == leader { follower } else { leader };
    managers[other].stop().await;
    let alone = managers[leads].handle();
    eventually("it hears of no majority", || (!alone.is_current()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_reachable_by_what_they_acknowledge() {
    let mut managers = cluster(3, 1000).await;
    write(&managers, 0).await;
    let leader = leader_of(&managers).expect("one leads");
    let handle = managers[leader].handle();
    let seen = |id: u64| handle.members().into_iter().find(|m| m.raft_id == id).unwrap();
    let silent = (leader + 1) % 3;
    let id = managers[silent].raft_id;
    eventually("it has all", || {
        (seen(id).behind == Some(0) && seen(id).reachable == Some(true)).then_some(())
    })
    .await;
    managers[silent].stop().await;
    for id in 1..30 {
        write(&managers, id).await;
    }
    eventually("it is known to be silent and behind", || {
        let member = seen(id);
        (member.reachable == Some(false) && member.behind > Some(20)).then_some(())
    })
    .await;
}

/// A file system of its own, so small that it gets full; it is mounted on a manager's directory.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, bytes: u64) -> Self {
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", dir, "tmpfs", flags, size.as_c_str()).unwrap();
        Self(dir.to_owned())
    }

    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        assert!(std::io::copy(&mut std::io::repeat(7), &mut ballast).is_err());
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// Starts the first manager of a swarm on a disk of this size.
async fn on_a_small_disk(bytes: u64) -> (Manager, SmallDisk) {
    let mut manager = Manager::start(1, 1_000_000).await;
    manager.stop().await;
    let disk = SmallDisk::mount(manager.dir.path(), bytes);
    manager.restart().await;
    manager.store().bootstrap().await.unwrap();
    eventually("it leads", || manager.handle().leader_now().me.then_some(())).await;
    (manager, disk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_room_is_no_reason_to_die() {
    let (manager, disk) = on_a_small_disk(48 << 20).await;
    let managers = [manager];
    for id in 0..20 {
        write(&managers, id).await;
    }
    disk.fill();
    managers[0].handle().set_snapshots(5, 0, 5);
    let refused = || managers[0].snapshots() == 0 && managers[0].handle().failure().is_none();
    for id in 20..60 {
        // Within the room that the log has taken already.
        write(&managers, id).await;
        assert!(refused());
    }
    disk.make_room();
    for id in 60..70 {
        write(&managers, id).await;
    }
    eventually("a later one is made", || (managers[0].snapshots() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_gives_leadership_away_and_comes_back_when_there_is_room() {
    let (first, disk) = on_a_small_disk(64 << 20).await;
    let mut managers = vec![first];
    for raft_id in 2..=3 {
        let manager = Manager::start(raft_id, 1_000_000).await;
        managers[0].handle().add_member(raft_id, node(raft_id), manager.addr).await.unwrap();
        managers.push(manager);
    }
    disk.fill();
    let leader = managers[0].handle();
    let big = |id: u64| {
        let spec = SecretSpec {
            templated: false,
            name: format!("big{id}"),
            labels: Labels::new(),
            data: SecretBytes(vec![5; 200_000]),
        };
        let secret = Secret { id: SecretId(u128::from(id)), meta: Meta::default(), spec };
        Batch { changes: vec![Change::Put(Object::Secret(Arc::new(secret)))], ..Batch::default() }
    };
    for id in 1000.. {
        match leader.propose(big(id)).await {
            Ok(_) => assert!(id < 1100, "the disk never gets full"),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("full") || text.contains("not the leader"), "{error}");
                break;
            }
        }
    }
    eventually("another one leads", || leader_of(&managers).filter(|leader| *leader != 0)).await;
    write(&managers, 1).await;
    assert_eq!(leader.failure(), None, "it lives on its reserve");
    disk.make_room();
    eventually("its reserve is back", || disk.0.join("log/reserve").exists().then_some(())).await;
    arrive(&managers[0], 1..2).await;
    let next = managers[leader_of(&managers).expect("one leads")].handle();
    next.transfer_leadership(Some(1)).await.unwrap();
    eventually("it leads", || leader.leader_now().me.then_some(())).await;
    leader.propose(put(2)).await.unwrap();
}
