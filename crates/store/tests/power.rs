//! Managers whose disks forget what was not synced: what they acknowledged together outlives power cuts of one of them and
//! of all, in the middle of whatever they were doing to their disks. What is cut, when, and what is left follows from a
//! seed; in which order they run does not. `POWER_SEEDS=FROM..TO` has other seeds, `POWER_CUTS` more cuts of each.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{
    Batch, Change, Labels, Meta, NodeId, Object, Secret, SecretBytes, SecretId, SecretSpec, Tables, Timestamp,
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Admission, Connect, ConnectError, Dek, Handle, Options, ProposeError, Store, Timing};
use tempfile::TempDir;
use testkit::lossy::Lossy;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, server::TcpIncoming};

const DEADLINE: Duration = Duration::from_secs(60);
const MEMBERS: usize = 3;
const WRITERS: u64 = 4;

async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < give_up, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Numbers that follow from a seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % end as u64).unwrap()
    }
}

async fn dial(addr: SocketAddr) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(1)).connect().await?)
}

struct Member {
    raft_id: u64,
    addr: SocketAddr,
    dir: TempDir,
    disk: Lossy,
    running: Option<(Store, JoinSet<()>)>,
}

impl Member {
    async fn start(raft_id: u64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, dir) = (socket.local_addr().unwrap(), tempfile::tempdir().unwrap());
        let disk = Lossy::new(dir.path());
        let mut member = Self { raft_id, addr, dir, disk, running: None };
        member.run(socket).await.unwrap();
        member
    }

    async fn run(&mut self, socket: TcpListener) -> Result<(), store::OpenError> {
        let connect: Arc<dyn Connect> = Arc::new(|_node: Option<NodeId>, addr: SocketAddr| dial(addr));
        let node = NodeId(u128::from(self.raft_id));
        let mut options = Options::new(self.raft_id, node, self.addr, Dek::new(&[9; 32]), connect);
        options.disk = Arc::new(self.disk.clone());
        // So that snapshots, purged entries and members who need them are a part of it.
        (options.snapshot_interval, options.keep_entries) = (40, 5);
        options.timing = Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(500),
        };
        let store = Store::open(self.dir.path(), options).await?;
        let mut serving = JoinSet::new();
        let server = tonic::transport::Server::builder().add_service(store.service(Admission::Anyone));
        serving.spawn(async move {
            server.serve_with_incoming(TcpIncoming::from(socket)).await.unwrap();
        });
        self.running = Some((store, serving));
        Ok(())
    }

    fn handle(&self) -> Handle {
        self.running.as_ref().expect("it runs").0.handle()
    }

    /// Ends what the power cut has ended.
    async fn stop(&mut self) {
        let (store, mut serving) = self.running.take().expect("it runs");
        serving.shutdown().await;
        store.shutdown().await;
    }

    /// Starts it with what is left on its disk.
    async fn boot(&mut self, seed: u64) -> Result<(), store::OpenError> {
        self.disk = self.disk.boot(seed).unwrap();
        let give_up = Instant::now() + DEADLINE;
        let socket = loop {
            match TcpListener::bind(self.addr).await {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < give_up, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        self.run(socket).await
    }
}

fn put(id: u64) -> Batch {
    let spec = SecretSpec {
        templated: false,
        name: format!("s{id}"),
        labels: Labels::new(),
        data: SecretBytes(vec![u8::try_from(id % 256).unwrap(); 100 + usize::try_from(id % 700).unwrap()]),
    };
    let secret = Secret { id: SecretId(u128::from(id)), meta: Meta::default(), spec };
    Batch { at: Timestamp(1), changes: vec![Change::Put(Object::Secret(Arc::new(secret)))] }
}

/// What writers share.
#[derive(Default)]
struct Written {
    /// By those who run.
    handles: Mutex<Vec<Handle>>,
    acknowledged: Mutex<BTreeSet<u64>>,
}

impl Written {
    fn acknowledged(&self) -> BTreeSet<u64> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, members: &[Member]) {
        let running = members.iter().filter(|m| m.running.is_some()).map(Member::handle).collect();
        *self.handles.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

async fn write(written: Arc<Written>, writer: u64, stop: CancellationToken) {
    for number in 0.. {
        let id = number * WRITERS + writer;
        // One of which nobody knows whether it was done is left alone.
        loop {
            if stop.is_cancelled() {
                return;
            }
            let handles = written.handles.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(leader) = handles.iter().find(|handle| handle.leader_now().me) else {
                sleep(Duration::from_millis(5)).await;
                continue;
            };
            match leader.propose(put(id)).await {
                Ok(_) => {
                    written.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                    break;
                }
                // Who has just lost its power refuses at once: others must have time to notice.
                Err(error) => {
                    sleep(Duration::from_millis(5)).await;
                    if !matches!(error, ProposeError::NotLeader { .. }) {
                        break;
                    }
                }
            }
        }
    }
}

/// Tells which of the acknowledged writes a member does not have.
fn lost(view: &Tables, acknowledged: &BTreeSet<u64>) -> Vec<u64> {
    acknowledged.iter().copied().filter(|id| !view.secrets.contains(&SecretId(u128::from(*id)))).collect()
}

/// Cuts the power again and again; returns how many writes were acknowledged, or what is wrong.
async fn live(seed: u64, cuts: usize) -> Result<usize, String> {
    let mut random = Random(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut members = Vec::new();
    for raft_id in 1..=MEMBERS as u64 {
        members.push(Member::start(raft_id).await);
    }
    members[0].running.as_ref().unwrap().0.bootstrap().await.unwrap();
    let first = members[0].handle();
    eventually("the first leads", || first.leader_now().me.then_some(())).await;
    for member in &members[1..] {
        first.add_member(member.raft_id, NodeId(u128::from(member.raft_id)), member.addr).await.unwrap();
    }
    let (written, stop, mut writers) =
        (Arc::new(Written::default()), CancellationToken::new(), JoinSet::new());
    written.serve(&members);
    for writer in 0..WRITERS {
        writers.spawn(write(written.clone(), writer, stop.clone()));
    }
    for cut in 0..cuts {
        let enough = written.acknowledged().len() + 20 + random.below(40);
        eventually("writes are acknowledged", || (written.acknowledged().len() >= enough).then_some(()))
            .await;
        // All at once every third time; else the leader or another one.
        let leader = members.iter().position(|m| m.handle().leader_now().me).unwrap_or(0);
        let victims: Vec<usize> = match random.below(3) {
            0 => (0..MEMBERS).collect(),
            1 => vec![leader],
            _ => vec![random.below(MEMBERS)],
        };
        for victim in &victims {
            members[*victim].disk.cut_after(random.below(12));
        }
        // One that has little to do is off a moment later all the same.
        let soon = Instant::now() + Duration::from_secs(1);
        eventually("their power is off", || {
            if Instant::now() > soon {
                victims.iter().for_each(|victim| members[*victim].disk.cut());
            }
            victims.iter().all(|victim| members[*victim].disk.is_off()).then_some(())
        })
        .await;
        for victim in &victims {
            members[*victim].stop().await;
        }
        written.serve(&members);
        for victim in &victims {
            let outcome = random.below(1 << 20) as u64;
            let booted = members[*victim].boot(outcome).await;
            booted.map_err(|error| format!("cut {cut} of {victims:?}: member {victim}: {error:?}"))?;
        }
        written.serve(&members);
    }
    let enough = written.acknowledged().len() + 20;
    eventually("writes are acknowledged", || (written.acknowledged().len() >= enough).then_some(())).await;
    stop.cancel();
    while writers.join_next().await.is_some() {}
    let acknowledged = written.acknowledged();
    let views = || members.iter().map(|m| m.handle().view()).collect::<Vec<_>>();
    let alike = |views: &[Arc<Tables>]| {
        let all: Vec<Vec<Object>> = views.iter().map(|view| view.objects().collect()).collect();
        all.windows(2).all(|pair| pair[0] == pair[1])
    };
    let views = eventually("all are as far", || {
        let views = views();
        views.windows(2).all(|pair| pair[0].index == pair[1].index).then_some(views)
    })
    .await;
    for (member, view) in views.iter().enumerate() {
        let lost = lost(view, &acknowledged);
        if !lost.is_empty() {
            return Err(format!("member {member} does not have {lost:?} of {}", acknowledged.len()));
        }
    }
    if !alike(&views) {
        return Err("members have come apart".to_owned());
    }
    for member in &mut members {
        member.stop().await;
    }
    Ok(acknowledged.len())
}

fn asked<T: std::str::FromStr>(variable: &str, usual: T) -> T {
    std::env::var(variable).ok().map_or(usual, |text| text.parse().ok().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_members_acknowledged_outlives_power_cuts_of_one_and_of_all() {
    let seeds = std::env::var("POWER_SEEDS").unwrap_or_else(|_| "0..1".to_owned());
    let (from, to) = seeds.split_once("..").expect("POWER_SEEDS=FROM..TO");
    let cuts = asked("POWER_CUTS", 5);
    for seed in from.parse::<u64>().expect("a number")..to.parse().expect("a number") {
        match live(seed, cuts).await {
            Ok(count) => println!("seed {seed}: {cuts} cuts, {count} writes acknowledged, none lost"),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
}
