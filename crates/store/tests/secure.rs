//! Raft between managers over mutual TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{ClusterId, Duration, NodeId, Role};
use pki::{
    Credentials, Expected, NodeKey, RootCa,
    tls::{Listener, connector},
};
use proto::raft::{VoteRequest, raft_client::RaftClient};
use std::{net::SocketAddr, sync::Arc};
use store::{ConnectError, Dek, Options, Store};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tonic::{
    Code,
    transport::{Channel, Endpoint, Server},
};

const DEADLINE: Duration = Duration::from_secs(60);

fn credentials(ca: &RootCa, node: u128, role: Role) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let chain = ca.sign_csr(&key.csr_pem().unwrap(), NodeId(node), role, ClusterId(1), day).unwrap();
    Credentials::in_memory(&key.pem(), &chain, ca.cert_pem()).unwrap()
}

async fn dial(credentials: Credentials, addr: SocketAddr) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
    Ok(endpoint.connect_with_connector(connector(&credentials, Expected::Role(Role::Manager))).await?)
}

struct Manager {
    store: Store,
    addr: SocketAddr,
    _dir: TempDir,
    _serving: JoinSet<()>,
}

async fn manager(raft_id: u64, credentials: Credentials) -> Manager {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::start(socket, &credentials).unwrap();
    let addr = listener.local_addr();
    let dir = tempfile::tempdir().unwrap();
    let connect = Arc::new(move |_raft_id: u64, addr: SocketAddr| dial(credentials.clone(), addr));
    let store =
        Store::open(dir.path(), Options::new(raft_id, addr, Dek::new(&[1; 32]), connect)).await.unwrap();
    let mut serving = JoinSet::new();
    let router = Server::builder().add_service(store.service());
    serving.spawn(async move { router.serve_with_incoming(listener).await.unwrap() });
    Manager { store, addr, _dir: dir, _serving: serving }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_agree_and_workers_are_turned_away() {
    let ca = RootCa::generate(ClusterId(1)).unwrap();
    let first = manager(1, credentials(&ca, 1, Role::Manager)).await;
    let second = manager(2, credentials(&ca, 2, Role::Manager)).await;
    first.store.bootstrap().await.unwrap();
    let leader = first.store.handle();
    timeout(DEADLINE, leader.leader().wait_for(|l| l.me)).await.unwrap().unwrap();
    leader.add_member(2, second.addr).await.unwrap();
    let (index, _) = leader.propose(model::Batch::default()).await.unwrap();
    second.store.handle().wait_applied(index).await.unwrap();

    let worker = dial(credentials(&ca, 3, Role::Worker), first.addr).await.unwrap();
    let request = VoteRequest { target: 1, ..VoteRequest::default() };
    let refused = RaftClient::new(worker).vote(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let bootstrap = Endpoint::from_shared(format!("http://{}", first.addr)).unwrap();
    let nameless =
        bootstrap.connect_with_connector(pki::tls::bootstrap_connector(ca.digest())).await.unwrap();
    let refused = RaftClient::new(nameless).vote(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    second.store.shutdown().await;
    first.store.shutdown().await;
}
