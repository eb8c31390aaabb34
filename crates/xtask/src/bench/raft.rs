//! Acknowledged writes of three managers, every one on the disks of a majority before it is acknowledged.
//!
//! `raft-store`: three stores in this process, over mutual TLS on loopback: Raft, log, encryption and gRPC, nothing
//! else. `raft-api`: `POST /configs/create` at three daemons, with all that lies between.

use super::{Row, front_door::FrontDoor, hosts::swarm, milliseconds, quantile};
use anyhow::{Context, Result, anyhow};
use base64::Engine;
use model::{
    Batch, Change, ClusterId, Labels, Meta, NodeId, Object, Role, Secret, SecretBytes, SecretId, SecretSpec,
    Timestamp,
};
use pki::{Credentials, Expected, NodeKey, RootCa, tls};
use serde_json::json;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use store::{Admission, Dek, Handle, Options, Store};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::transport::{Endpoint, Server};

const WRITERS: [usize; 2] = [1, 64];
/// How long each number of writers writes.
const SPAN: Duration = Duration::from_secs(5);
/// What a write carries: the size of a small object.
const PAYLOAD_BYTES: usize = 200;
/// Acknowledged writes a second asked of the store, by number of writers.
const TARGETS: [u32; 2] = [1_000, 15_000];

/// The three stores.
pub(super) fn store(_program: &Path) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        let members = Members::start(3, known()).await?;
        let ids = Arc::new(AtomicU64::new(0));
        let mut rows = Vec::new();
        for (writers, target) in WRITERS.into_iter().zip(TARGETS) {
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..writers {
                tasks.spawn(write(members.leader(), Arc::clone(&ids), start + SPAN));
            }
            let mut latencies = Vec::new();
            while let Some(done) = tasks.join_next().await {
                latencies.extend(done??);
            }
            let note = format!(
                "in process: Raft, encrypted log with fsync, mutual TLS, gRPC; both ends on this machine; target {target}"
            );
            rows.extend(figures("three stores", writers, latencies, start.elapsed(), &note));
        }
        members.stop().await;
        anyhow::Ok(rows)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    rows
}

/// Returns how many writes a second three stores acknowledge that let in whom `admission` says.
pub(super) async fn writes_a_second(writers: usize, admission: Admission) -> Result<f64> {
    let members = Members::start(3, admission).await?;
    let ids = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        tasks.spawn(write(members.leader(), Arc::clone(&ids), start + SPAN));
    }
    let mut writes = 0;
    while let Some(done) = tasks.join_next().await {
        writes += done??.len();
    }
    let each_second = writes as f64 / start.elapsed().as_secs_f64();
    members.stop().await;
    Ok(each_second)
}

/// Members only; one that is new takes the leader for one, as it would by the word of the manager it joins through.
fn known() -> Admission {
    Admission::Members(Arc::new(|_, _| Box::pin(async { true })))
}

/// Three daemons.
pub(super) fn api(program: &Path) -> Result<Vec<Row>> {
    let lab = swarm(program, 3, 3)?;
    let payload = base64::engine::general_purpose::STANDARD.encode([1; PAYLOAD_BYTES]);
    let ids = AtomicU64::new(0);
    let mut rows = Vec::new();
    for writers in WRITERS {
        let start = Instant::now();
        let latencies = std::thread::scope(|scope| {
            let write = || {
                let mut door = FrontDoor::open(&lab.socket(1))?;
                let mut latencies = Vec::new();
                while start.elapsed() < SPAN {
                    let name = format!("c{}", ids.fetch_add(1, Ordering::Relaxed));
                    let sent = Instant::now();
                    door.post("/configs/create", &json!({"Name": name, "Data": payload}))?;
                    latencies.push(milliseconds(sent.elapsed()));
                }
                anyhow::Ok(latencies)
            };
            let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
            let done = threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a writer panicked"))?);
            anyhow::Ok(done.collect::<Result<Vec<_>>>()?.concat())
        })?;
        let note = "config create at the leader's Unix socket, keep-alive: HTTP, control, Raft, fsync; 3 daemons on one disk";
        rows.extend(figures("three daemons", writers, latencies, start.elapsed(), note));
    }
    Ok(rows)
}

fn figures(of: &str, writers: usize, latencies: Vec<f64>, took: Duration, note: &str) -> Vec<Row> {
    let name = format!("{of}, {writers} writer(s)");
    let each_second = latencies.len() as f64 / took.as_secs_f64();
    vec![
        Row::new(format!("{name}: acknowledged writes"), each_second, "1/s").note(note),
        Row::new(format!("{name}: latency p50"), quantile(latencies.clone(), 0.5), "ms"),
        Row::new(format!("{name}: latency p99"), quantile(latencies, 0.99), "ms"),
    ]
}

async fn write(store: Handle, ids: Arc<AtomicU64>, end: Instant) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let spec = SecretSpec {
            templated: false,
            name: format!("s{id}"),
            labels: Labels::new(),
            data: SecretBytes(vec![1; PAYLOAD_BYTES]),
        };
        let secret = Secret { id: SecretId(u128::from(id)), meta: Meta::default(), spec };
        let change = Change::Put(Object::Secret(Arc::new(secret)));
        let sent = Instant::now();
        store.propose(Batch { at: Timestamp(1), changes: vec![change] }).await?;
        latencies.push(milliseconds(sent.elapsed()));
    }
    Ok(latencies)
}

/// Stores that agree, the first of them the leader.
struct Members {
    stores: Vec<Store>,
    _serving: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Members {
    async fn start(count: u64, admission: Admission) -> Result<Self> {
        pki::install_crypto();
        let dir = tempfile::tempdir()?;
        let cluster = ClusterId(1);
        let root = RootCa::generate(cluster)?;
        let mut serving = JoinSet::new();
        let mut stores: Vec<Store> = Vec::new();
        for raft_id in 1..=count {
            let credentials = credentials(&root, cluster, raft_id)?;
            let listener = tls::Listener::start(TcpListener::bind("127.0.0.1:0").await?, &credentials)?;
            let addr = listener.local_addr();
            let connect = move |_node: Option<NodeId>, addr: SocketAddr| {
                let connector = tls::connector(&credentials, Expected::Role(Role::Manager));
                async move {
                    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?.tcp_nodelay(true);
                    Ok::<_, store::ConnectError>(endpoint.connect_with_connector_lazy(connector))
                }
            };
            let options = Options::new(
                raft_id,
                NodeId(u128::from(raft_id)),
                addr,
                Dek::new(&[7; 32]),
                Arc::new(connect),
            );
            let store = Store::open(&dir.path().join(raft_id.to_string()), options).await?;
            let server = Server::builder().add_service(store.service(admission.clone()));
            serving.spawn(async move {
                if let Err(error) = server.serve_with_incoming(listener).await {
                    eprintln!("store {raft_id}: {error}");
                }
            });
            match stores.first() {
                None => {
                    store.bootstrap().await?;
                    store.handle().leader().wait_for(|l| l.me).await?;
                }
                Some(first) => first.handle().add_member(raft_id, NodeId(u128::from(raft_id)), addr).await?,
            }
            stores.push(store);
        }
        Ok(Self { stores, _serving: serving, _dir: dir })
    }

    fn leader(&self) -> Handle {
        self.stores[0].handle()
    }

    async fn stop(self) {
        for store in self.stores {
            store.shutdown().await;
        }
    }
}

fn credentials(root: &RootCa, cluster: ClusterId, n: u64) -> Result<Credentials> {
    let key = NodeKey::generate()?;
    let year = Duration::from_secs(365 * 24 * 3600);
    let chain = root.sign_csr(&key.csr_pem()?, NodeId(u128::from(n)), Role::Manager, cluster, year)?;
    Credentials::in_memory(&key.pem(), &chain, root.cert_pem()).context("credentials")
}
