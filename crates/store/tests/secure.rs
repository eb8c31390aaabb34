//! Raft between managers over mutual TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{Batch, ClusterId, Duration, NodeId, Role};
use pki::{
    Credentials, Expected, NodeKey, RootCa,
    tls::{Listener, connector},
};
use proto::raft::{
    self, AppendRequest, TransferLeaderRequest, VoteRequest, raft_client::RaftClient, snapshot_chunk::Chunk,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use store::{Admission, ConnectError, Dek, Handle, Options, Store, Vouch};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Server},
};

const DEADLINE: Duration = Duration::from_secs(60);

fn credentials(ca: &RootCa, node: u128, role: Role) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let chain = ca.sign_csr(&key.csr_pem().unwrap(), NodeId(node), role, ClusterId(1), day).unwrap();
    Credentials::in_memory(&key.pem(), &chain, ca.cert_pem()).unwrap()
}

async fn dial(credentials: &Credentials, addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let connector = connector(credentials, Expected::Role(Role::Manager));
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// The managers that others may be asked about, and how often they were.
#[derive(Clone, Default)]
struct Others {
    stores: Arc<Mutex<Vec<(u64, Handle)>>>,
    asked: Arc<AtomicUsize>,
}

impl Others {
    /// Answers for the member `me` as the other members would over the network.
    fn vouch(&self, me: u64) -> Vouch {
        let others = self.clone();
        Arc::new(move |node, raft_id| {
            others.asked.fetch_add(1, Ordering::Relaxed);
            let stores = others.stores.lock().unwrap();
            let mine = stores.iter().find(|(id, _)| *id == me).map(|(_, store)| store.members());
            let known: Vec<u64> = mine.into_iter().flatten().map(|m| m.raft_id).collect();
            let is_asked = |id: u64| id != me && (known.is_empty() || known.contains(&id));
            let is = stores
                .iter()
                .filter(|(id, _)| is_asked(*id))
                .any(|(_, store)| store.member_node(raft_id) == Some(node));
            Box::pin(async move { is })
        })
    }
}

struct Manager {
    raft_id: u64,
    credentials: Credentials,
    store: Option<Store>,
    addr: SocketAddr,
    others: Others,
    dir: TempDir,
    serving: JoinSet<()>,
}

impl Manager {
    async fn start(raft_id: u64, credentials: Credentials, others: &Others) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let (dir, serving) = (tempfile::tempdir().unwrap(), JoinSet::new());
        let others = others.clone();
        let mut manager = Self { raft_id, credentials, store: None, addr, others, dir, serving };
        manager.run(socket).await;
        manager
    }

    async fn run(&mut self, socket: TcpListener) {
        let listener = Listener::start(socket, &self.credentials).unwrap();
        let credentials = self.credentials.clone();
        let connect = Arc::new(move |node: Option<NodeId>, addr: SocketAddr| {
            let expected = node.map_or(Expected::Role(Role::Manager), Expected::Node);
            let connector = connector(&credentials, expected);
            async move {
                let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
                Ok::<_, ConnectError>(endpoint.connect_with_connector(connector).await?)
            }
        });
        let node = self.credentials.identity().node;
        let options = Options::new(self.raft_id, node, self.addr, Dek::new(&[1; 32]), connect);
        let store = Store::open(self.dir.path(), options).await.unwrap();
        self.others.stores.lock().unwrap().push((self.raft_id, store.handle()));
        let service = store.service(Admission::Members(self.others.vouch(self.raft_id)));
        let router = Server::builder().add_service(service);
        self.serving.spawn(async move { router.serve_with_incoming(listener).await.unwrap() });
        self.store = Some(store);
    }

    fn handle(&self) -> Handle {
        self.store.as_ref().unwrap().handle()
    }

    async fn stop(&mut self) {
        self.others.stores.lock().unwrap().retain(|(id, _)| *id != self.raft_id);
        self.serving.shutdown().await;
        self.store.take().unwrap().shutdown().await;
    }

    async fn restart(&mut self) {
        let socket = timeout(DEADLINE, async {
            loop {
                match TcpListener::bind(self.addr).await {
                    Ok(socket) => break socket,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        let socket = socket.await.unwrap();
        self.run(socket).await;
    }
}

struct Swarm {
    ca: RootCa,
    others: Others,
    managers: Vec<Manager>,
}

/// Managers 1 to `size`, of which 1 leads; node and number are the same.
async fn swarm(size: u64) -> Swarm {
    let ca = RootCa::generate(ClusterId(1)).unwrap();
    let mut swarm = Swarm { ca, others: Others::default(), managers: Vec::new() };
    for raft_id in 1..=size {
        swarm.join(raft_id).await;
    }
    swarm
}

impl Swarm {
    async fn join(&mut self, raft_id: u64) {
        let credentials = credentials(&self.ca, raft_id.into(), Role::Manager);
        let manager = Manager::start(raft_id, credentials, &self.others).await;
        if raft_id == 1 {
            manager.store.as_ref().unwrap().bootstrap().await.unwrap();
            let mut leader = manager.handle().leader();
            timeout(DEADLINE, leader.wait_for(|l| l.me)).await.unwrap().unwrap();
        } else {
            let node = NodeId(raft_id.into());
            self.leader().await.add_member(raft_id, node, manager.addr).await.unwrap();
        }
        self.managers.push(manager);
    }

    async fn leader(&self) -> Handle {
        let found = async {
            loop {
                let running = self.managers.iter().filter(|m| m.store.is_some());
                if let Some(leader) = running.map(Manager::handle).find(|h| h.leader_now().me) {
                    return leader;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, found).await.expect("somebody leads")
    }

    fn manager(&mut self, raft_id: u64) -> &mut Manager {
        self.managers.iter_mut().find(|m| m.raft_id == raft_id).unwrap()
    }

    async fn write(&self) -> u64 {
        self.leader().await.propose(Batch::default()).await.unwrap().0
    }

    async fn stop(self) {
        for mut manager in self.managers.into_iter().filter(|m| m.store.is_some()) {
            manager.stop().await;
        }
    }
}

/// Sends each kind of message as member `sender` of `term`, and returns what member `target` answers.
async fn each_message(channel: Channel, target: u64, sender: u64, term: u64) -> Vec<Code> {
    let mut raft = RaftClient::new(channel).max_decoding_message_size(1 << 20);
    let vote = Some(raft::Vote { term, voted_for: sender, committed: true });
    let last = Some(raft::LogId { term, index: 1 << 40 });
    let code = |outcome: Result<(), Status>| outcome.map_or_else(|s| s.code(), |()| Code::Ok);
    let asks = |pre_vote: bool| VoteRequest {
        target,
        vote: Some(raft::Vote { term, voted_for: sender, committed: false }),
        last,
        leadership_transfer: !pre_vote,
        pre_vote,
    };
    let append = AppendRequest { target, vote, previous: None, entries: Vec::new(), committed: last };
    let membership = Some(raft::Membership {
        configs: vec![raft::Voters { raft_ids: vec![sender] }],
        members: vec![raft::Member { raft_id: sender, addr: "192.0.2.9:1".into(), node: Vec::new() }],
    });
    let meta = Some(raft::SnapshotMeta { last, membership_at: last, membership });
    let head = raft::SnapshotOffer { target, vote, meta };
    let chunks = [Chunk::Head(head), Chunk::Data(0u64.to_le_bytes().to_vec())];
    let chunks = chunks.map(|chunk| raft::SnapshotChunk { chunk: Some(chunk) });
    vec![
        code(raft.vote(asks(true)).await.map(drop)),
        code(raft.vote(asks(false)).await.map(drop)),
        code(raft.append(append).await.map(drop)),
        code(raft.snapshot(tokio_stream::iter(chunks)).await.map(drop)),
        code(
            raft.transfer_leader(TransferLeaderRequest { target, from: vote, last, to: target })
                .await
                .map(drop),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_take_part_each_under_its_own_number() {
    let swarm = swarm(3).await;
    let target = swarm.managers[1].addr;
    let before = swarm.managers[1].handle().leader_now();
    let nameless = Endpoint::from_shared(format!("http://{target}")).unwrap();
    let nameless =
        nameless.connect_with_connector(pki::tls::bootstrap_connector(swarm.ca.digest())).await.unwrap();
    let worker = credentials(&swarm.ca, 8, Role::Worker);
    let outsider = credentials(&swarm.ca, 9, Role::Manager); // certified, but not in Raft (any more)
    let member = &swarm.managers[2].credentials;
    for (who, channel, sender) in [
        ("no certificate", nameless, 1),
        ("a worker", dial(&worker, target).await, 1),
        ("an outsider as itself", dial(&outsider, target).await, 9),
        ("an outsider as the leader", dial(&outsider, target).await, 1),
        ("a member as the leader", dial(member, target).await, 1),
        ("a member as nobody", dial(member, target).await, 99),
    ] {
        let answers = each_message(channel, 2, sender, before.term + 1).await;
        assert_eq!(answers, [Code::PermissionDenied; 5], "{who}");
    }
    // What comes from members is of terms that elections can reach, and of no later ones than they are in.
    for term in [u64::MAX, u64::MAX - 1, 1 << 40, before.term + (1 << 25)] {
        let answers = each_message(dial(member, target).await, 2, 3, term).await;
        assert_eq!(answers, [Code::InvalidArgument; 5], "{term}");
    }
    assert_eq!(swarm.managers[1].handle().leader_now(), before);
    let index = swarm.write().await;
    swarm.managers[1].handle().wait_applied(index).await.unwrap();
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_an_outsider_at_once() {
    let swarm = swarm(3).await;
    swarm.leader().await.remove_member(3).await.unwrap();
    let removed = &swarm.managers[2].credentials;
    let term = swarm.leader().await.leader_now().term + 1;
    for manager in &swarm.managers[..2] {
        let answers = each_message(dial(removed, manager.addr).await, manager.raft_id, 3, term).await;
        assert_eq!(answers, [Code::PermissionDenied; 5], "{}", manager.raft_id);
    }
    swarm.write().await;
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_takes_the_word_of_those_it_knows_for_newer_ones() {
    let mut swarm = swarm(3).await;
    swarm.manager(3).stop().await;
    swarm.join(4).await;
    swarm.join(5).await;
    // A newer one leads when the one that lags comes back.
    swarm.leader().await.transfer_leadership(Some(5)).await.unwrap();
    swarm.manager(3).restart().await;
    let index = swarm.write().await;
    swarm.manager(3).handle().wait_applied(index).await.unwrap();
    let mut leadership = swarm.manager(3).handle().leader();
    let by_the_newer = leadership.wait_for(|now| now.leader.is_some_and(|(raft_id, _)| raft_id == 5));
    timeout(DEADLINE, by_the_newer).await.expect("it hears the newer one lead").unwrap();
    // All but one of those that it knew are replaced.
    swarm.manager(3).stop().await;
    swarm.leader().await.remove_member(2).await.unwrap();
    swarm.join(6).await;
    swarm.leader().await.remove_member(4).await.unwrap();
    swarm.join(7).await;
    swarm.leader().await.transfer_leadership(Some(7)).await.unwrap();
    swarm.manager(3).restart().await;
    let index = swarm.write().await;
    swarm.manager(3).handle().wait_applied(index).await.unwrap();
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_are_unknown_are_asked_about_seldom() {
    let swarm = swarm(2).await;
    let outsider = credentials(&swarm.ca, 9, Role::Manager);
    let channel = dial(&outsider, swarm.managers[1].addr).await;
    let before = swarm.others.asked.load(Ordering::Relaxed);
    for _ in 0..10 {
        each_message(channel.clone(), 2, 9, 2).await;
    }
    let asked = swarm.others.asked.load(Ordering::Relaxed) - before;
    assert!(asked < 10, "50 messages, asked {asked} times");
    swarm.stop().await;
}
