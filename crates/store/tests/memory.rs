//! What managers hold in memory does not grow with what was once written. A program of its own: it looks at all that
//! its process has allocated.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{Batch, Change, Config, ConfigId, ConfigSpec, Labels, Meta, NodeId, Object, Timestamp};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use store::{Admission, ConnectError, Dek, Handle, Options, Store};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tonic::transport::{Endpoint, Server, server::TcpIncoming};

const DEADLINE: Duration = Duration::from_secs(120);
/// Objects that there are; they are written again and again.
const OBJECTS: u64 = 100;
/// So many times each, until everything that is kept for who is late is full.
const FILL: u64 = 120;

async fn member(dir: &Path, raft_id: u64, serving: &mut JoinSet<()>) -> (Store, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let connect = |_node: Option<NodeId>, addr: SocketAddr| async move {
        Ok::<_, ConnectError>(Endpoint::from_shared(format!("http://{addr}"))?.connect_lazy())
    };
    let node = NodeId(u128::from(raft_id));
    let options = Options::new(raft_id, node, addr, Dek::new(&[9; 32]), Arc::new(connect));
    let store = Store::open(&dir.join(raft_id.to_string()), options).await.unwrap();
    let server = Server::builder().add_service(store.service(Admission::Anyone));
    serving.spawn(async move { server.serve_with_incoming(TcpIncoming::from(socket)).await.unwrap() });
    (store, addr)
}

/// Writes all objects as many times, and waits until both members have that.
async fn write(leader: &Handle, follower: &Handle, times: u64) {
    let mut last = 0;
    for _ in 0..times {
        let view = leader.view();
        let put = |n: u64| {
            let id = ConfigId(u128::from(n));
            let version = view.configs.get(&id).map_or(0, |config| config.meta.version);
            let spec = ConfigSpec {
                templated: false,
                name: format!("c{n}"),
                labels: Labels::new(),
                data: vec![1; 600],
            };
            let meta = Meta { version, ..Meta::default() };
            Change::Put(Object::Config(Arc::new(Config { id, meta, spec })))
        };
        let batch = Batch { at: Timestamp(1), changes: (0..OBJECTS).map(put).collect() };
        last = leader.propose(batch).await.unwrap().0;
    }
    timeout(DEADLINE, follower.watch().wait_for(|applied| *applied >= last)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_long_ago_is_held_by_nobody() {
    sys::memory::share_arenas().unwrap();
    let (dir, mut serving) = (tempfile::tempdir().unwrap(), JoinSet::new());
    let (first, _) = member(dir.path(), 1, &mut serving).await;
    first.bootstrap().await.unwrap();
    let leader = first.handle();
    timeout(DEADLINE, leader.leader().wait_for(|l| l.me)).await.unwrap().unwrap();
    let (second, addr) = member(dir.path(), 2, &mut serving).await;
    leader.add_member(2, NodeId(2), addr).await.unwrap();
    let follower = second.handle();

    let empty = sys::memory::allocated();
    write(&leader, &follower, FILL).await;
    let full = sys::memory::allocated();
    write(&leader, &follower, FILL).await;
    let after = sys::memory::allocated();
    let mb = |bytes: usize| bytes >> 20;
    let figures = format!("{} MB, full {} MB, then {} MB", mb(empty), mb(full), mb(after));
    println!("{figures}");
    // Two members, each with what the README's table of limits says.
    assert!(full < empty + (64 << 20), "{figures}");
    assert!(after < full + full / 10, "{figures}");
    for store in [first, second] {
        store.shutdown().await;
    }
}
