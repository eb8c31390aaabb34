//! Raft messages and answers that no member can have sent: whoever gets them goes on.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{
    Batch, Change, Labels, Meta, NodeId, Object, Secret, SecretBytes, SecretId, SecretSpec, Timestamp,
};
use proto::raft::{
    self as wire, append_reply, entry::Payload, raft_client::RaftClient, raft_server, snapshot_chunk::Chunk,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{Admission, ConnectError, Dek, Handle, Options, Store};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    fn yes(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    /// A term near the one there is, or one that cannot be.
    fn term(&mut self, now: u64) -> u64 {
        self.one_of(&[
            0,
            now.saturating_sub(1),
            now,
            now,
            now,
            now + 1,
            now + (1 << 24),
            u64::MAX - 1,
            u64::MAX,
        ])
    }

    fn index(&mut self, last: u64) -> u64 {
        let near = [0, 1, last.saturating_sub(1), last, last, last + 1, last + 2, last + 1000];
        if self.below(8) == 0 { self.one_of(&[1 << 62, u64::MAX - 1, u64::MAX]) } else { self.one_of(&near) }
    }

    fn log_id(&mut self, term: u64, last: u64) -> wire::LogId {
        wire::LogId { term: self.term(term), index: self.index(last) }
    }

    fn maybe_log_id(&mut self, term: u64, last: u64) -> Option<wire::LogId> {
        (self.below(4) > 0).then(|| self.log_id(term, last))
    }

    fn vote(&mut self, term: u64) -> wire::Vote {
        wire::Vote { term: self.term(term), voted_for: self.one_of(&[0, 1, 2, 3, 9]), committed: self.yes() }
    }

    fn membership(&mut self) -> wire::Membership {
        let count = self.below(3);
        let voters = (0..count).map(|_| wire::Voters { raft_ids: (0..self.below(4) as u64).collect() });
        let configs = voters.collect();
        let member = |raft_id| wire::Member { raft_id, addr: "no address".into(), node: Vec::new() };
        wire::Membership { configs, members: (0..self.below(4) as u64).map(member).collect() }
    }

    fn entries(&mut self, term: u64, last: u64) -> Vec<wire::Entry> {
        let from = self.index(last);
        let ordered = self.yes();
        (0..self.below(4) as u64)
            .map(|n| {
                let id = if ordered {
                    wire::LogId { term, index: from.saturating_add(n) }
                } else {
                    self.log_id(term, last)
                };
                let payload = match self.below(4) {
                    0 => Payload::Command(vec![0xff; 7]),
                    1 => Payload::Command(Vec::new()),
                    2 => Payload::Membership(self.membership()),
                    _ => Payload::Blank(true),
                };
                wire::Entry { id: Some(id), payload: Some(payload) }
            })
            .collect()
    }
}

async fn dial(addr: SocketAddr) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(1)).connect().await?)
}

struct Manager {
    addr: SocketAddr,
    store: Store,
    _serving: JoinSet<()>,
    _dir: TempDir,
}

impl Manager {
    async fn start(raft_id: u64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let connect = Arc::new(|_node: Option<NodeId>, addr: SocketAddr| dial(addr));
        let options = Options::new(raft_id, NodeId(u128::from(raft_id)), addr, Dek::new(&[9; 32]), connect);
        let store = Store::open(dir.path(), options).await.unwrap();
        let mut serving = JoinSet::new();
        let server = Server::builder().add_service(store.service(Admission::Anyone));
        serving.spawn(async move { server.serve_with_incoming(TcpIncoming::from(socket)).await.unwrap() });
        Self { addr, store, _serving: serving, _dir: dir }
    }

    /// The first manager of a swarm, with a few entries.
    async fn leading() -> Self {
        let manager = Self::start(1).await;
        manager.store.bootstrap().await.unwrap();
        let handle = manager.store.handle();
        handle.leader().wait_for(|l| l.me).await.unwrap();
        for id in 0..5 {
            handle.propose(put(id)).await.unwrap();
        }
        manager
    }
}

fn put(id: u64) -> Batch {
    let spec = SecretSpec {
        templated: false,
        name: format!("s{id}"),
        labels: Labels::new(),
        data: SecretBytes(vec![1; 64]),
    };
    let secret = Secret { id: SecretId(u128::from(id)), meta: Meta::default(), spec };
    Batch { at: Timestamp(1), changes: vec![Change::Put(Object::Secret(Arc::new(secret)))] }
}

async fn send(raft: &mut RaftClient<Channel>, numbers: &mut Numbers, term: u64, last: u64) {
    let target = 1;
    let vote = Some(numbers.vote(term));
    let sent: Result<(), Status> = match numbers.below(8) {
        0..4 => {
            let request = wire::AppendRequest {
                target,
                vote,
                previous: numbers.maybe_log_id(term, last),
                entries: numbers.entries(term, last),
                committed: numbers.maybe_log_id(term, last),
            };
            raft.append(request).await.map(drop)
        }
        4 | 5 => {
            let request = wire::VoteRequest {
                target,
                vote,
                last: numbers.maybe_log_id(term, last),
                leadership_transfer: numbers.yes(),
                pre_vote: numbers.yes(),
            };
            raft.vote(request).await.map(drop)
        }
        6 => {
            let meta = wire::SnapshotMeta {
                last: numbers.maybe_log_id(term, last),
                membership_at: numbers.maybe_log_id(term, last),
                membership: Some(numbers.membership()),
            };
            let head = wire::SnapshotOffer { target, vote, meta: Some(meta) };
            let chunks = [Chunk::Head(head), Chunk::Data(vec![0; 8])];
            let chunks = chunks.map(|chunk| wire::SnapshotChunk { chunk: Some(chunk) });
            raft.snapshot(tokio_stream::iter(chunks)).await.map(drop)
        }
        _ => {
            let last = numbers.maybe_log_id(term, last);
            let to = numbers.one_of(&[0, 1, 2, 9]);
            let request = wire::TransferLeaderRequest { target, from: vote, last, to };
            raft.transfer_leader(request).await.map(drop)
        }
    };
    // What it thinks of the message is its own affair.
    drop(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_stops_a_member() {
    for seed in 1..=12_u64 {
        let manager = Manager::leading().await;
        let handle = manager.store.handle();
        let mut raft = RaftClient::new(dial(manager.addr).await.unwrap());
        let mut numbers = Numbers::new(seed);
        for message in 0..150 {
            let (term, last) = (handle.leader_now().term, handle.view().index);
            send(&mut raft, &mut numbers, term, last).await;
            assert_eq!(handle.failure(), None, "seed {seed}, message {message}");
        }
        manager.store.shutdown().await;
    }
}

/// A member that answers what it likes, once it is told to.
#[derive(Clone)]
struct Liar {
    numbers: Arc<Mutex<Numbers>>,
    lies: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Liar {
    fn answer<T>(
        &self,
        honest: impl FnOnce() -> T,
        lie: impl FnOnce(&mut Numbers) -> T,
    ) -> Result<Response<T>, Status> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Status::unavailable("gone"));
        }
        if !self.lies.load(Ordering::Relaxed) {
            return Ok(Response::new(honest()));
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(lie(&mut self.numbers.lock().unwrap())))
    }
}

#[tonic::async_trait]
impl raft_server::Raft for Liar {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendReply>, Status> {
        use append_reply::Result as Reply;
        let request = request.into_inner();
        let term = request.vote.as_ref().map_or(0, |v| v.term);
        let last = request.entries.last().and_then(|e| e.id).or(request.previous).map_or(0, |id| id.index);
        let reply = |result| wire::AppendReply { result: Some(result) };
        self.answer(
            || reply(Reply::Matched(true)),
            |numbers| match numbers.below(6) {
                0 => wire::AppendReply { result: None },
                1 => reply(Reply::Matched(true)),
                2 => reply(Reply::Partly(numbers.log_id(term, last))),
                3 | 4 => reply(Reply::Conflict(true)),
                _ => {
                    let vote =
                        wire::Vote { term: numbers.one_of(&[0, term, u64::MAX]), ..numbers.vote(term) };
                    reply(Reply::HigherVote(vote))
                }
            },
        )
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteReply>, Status> {
        let vote = request.into_inner().vote;
        let term = vote.as_ref().map_or(0, |v| v.term);
        self.answer(
            || wire::VoteReply { vote, granted: true, last: None },
            |numbers| wire::VoteReply {
                vote: numbers
                    .yes()
                    .then(|| wire::Vote { term: numbers.one_of(&[0, term, u64::MAX]), ..numbers.vote(term) }),
                granted: numbers.yes(),
                last: numbers.maybe_log_id(term, 9),
            },
        )
    }

    async fn snapshot(
        &self,
        _request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        Err(Status::unimplemented("it wants none"))
    }

    async fn transfer_leader(
        &self,
        _request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderReply>, Status> {
        Err(Status::unimplemented("it wants no leadership"))
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + DEADLINE;
    while !done().await {
        assert!(Instant::now() < give_up, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn writes(handles: &[Handle], id: u64) -> bool {
    for handle in handles {
        if handle.propose(put(id)).await.is_ok() || handle.view().secrets.contains(&SecretId(u128::from(id)))
        {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_stops_a_leader() {
    // Beside each other: they wait more than they work.
    futures::future::join_all((1..=3).map(answers_of_a_liar)).await;
}

async fn answers_of_a_liar(seed: u64) {
    let (leader, other) = (Manager::leading().await, Manager::start(2).await);
    let handles = [leader.store.handle(), other.store.handle()];
    handles[0].add_member(2, NodeId(2), other.addr).await.unwrap();
    let liar = Liar {
        numbers: Arc::new(Mutex::new(Numbers::new(seed))),
        lies: Arc::default(),
        gone: Arc::default(),
        answers: Arc::default(),
    };
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let mut serving = JoinSet::new();
    let server = Server::builder().add_service(raft_server::RaftServer::new(liar.clone()));
    serving.spawn(async move { server.serve_with_incoming(TcpIncoming::from(socket)).await.unwrap() });
    handles[0].add_member(3, NodeId(3), addr).await.unwrap();

    liar.lies.store(true, Ordering::Relaxed);
    for id in 100..140 {
        until("a change is taken", async || writes(&handles, id).await).await;
        for handle in &handles {
            assert_eq!(handle.failure(), None, "seed {seed}, change {id}");
        }
    }
    until("it was asked often", async || {
        for handle in &handles {
            assert_eq!(handle.failure(), None, "seed {seed}");
        }
        liar.answers.load(Ordering::Relaxed) > 60
    })
    .await;
    liar.gone.store(true, Ordering::Relaxed);
    until("the two that are honest agree", async || writes(&handles, 200).await).await;
    leader.store.shutdown().await;
    other.store.shutdown().await;
}
