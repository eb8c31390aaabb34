//! gRPC connections from this node to the others: one per peer, expectation and lane, kept, encrypted and mutual.
//!
//! HTTP/2 has one window for all streams of a connection, and so many streams: what somebody asks for and does not take
//! holds up whatever else is on the same one. So Raft, sessions and what managers ask each other have connections that
//! nothing else uses ([`Lane`]), also not what a manager passes on for others; and all that users may have under way at a
//! manager ([`UnderWay`]), left where it is, does not fill one of theirs.

use crate::gate::Gate;
use manager::{Account, InNameOf, USERS_UNDER_WAY_MAX, UnderWay};
use model::{NodeId, Role};
use pki::{Credentials, Expected};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher as _},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

/// Whom a channel must end at, beside its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Manager,
    Node(NodeId),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// What keeps the swarm together: this node's own words.
    Swarm,
    /// Content of images: as fast as a disk takes it.
    Images,
    /// What a manager passes on for nodes: a few lanes, that of one node the same one.
    Nodes(u64),
    /// What people ask, at whatever pace they take the answers: a few lanes, those of one account in the same one.
    People(u64),
    /// Passwords that somebody tries out, at the pace of a slow hash, and what is told of those who were refused.
    Strangers,
    /// Hosts that would be nodes.
    Joiners,
}

/// How many lanes the users of the swarm have, and nodes; one more is the operators'.
const LANES: u64 = 4;
/// How much of one answer may be under way to somebody who does not take it. *Unit:* bytes.
const ANSWER_WINDOW: u32 = 128 << 10;
/// Of all answers in a lane, which are held in memory: as much as those have that users may have under way at a manager.
/// *Unit:* bytes.
const ANSWERS_WINDOW: u32 = 64 << 20;
const _: () = assert!(ANSWERS_WINDOW as usize >= USERS_UNDER_WAY_MAX * ANSWER_WINDOW as usize);

/// Returns one of a few numbers, the same one each time.
fn lane(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() % LANES
}

impl Lane {
    fn of_people(account: &Account) -> Self {
        Self::People(match account {
            Account::Operator { .. } => LANES,
            Account::User(_) | Account::Nobody => lane(account),
        })
    }
}

/// Channels to other nodes. A channel connects when first used and again whenever it broke.
#[derive(Debug)]
pub(crate) struct Connections {
    credentials: Credentials,
    gate: Arc<Gate>,
    channels: Mutex<BTreeMap<(SocketAddr, Whom, Lane), Channel>>,
    under_way: UnderWay,
    /// Where the connections live, whoever asks for them first.
    runtime: Handle,
}

impl Connections {
    /// The connections live on the threads of whoever calls this.
    pub(crate) fn new(credentials: Credentials, gate: Arc<Gate>) -> Self {
        let (channels, under_way) = Default::default();
        Self { credentials, gate, channels, under_way, runtime: Handle::current() }
    }

    /// Returns who may be called on.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns the places of what people have under way at this node, if it is a manager.
    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// Returns a channel that ends at a manager, if named at this very one, or nowhere.
    pub(crate) fn manager(&self, addr: SocketAddr, node: Option<NodeId>) -> Channel {
        self.channel(addr, node.map_or(Whom::Manager, Whom::Node), Lane::Swarm)
    }

    /// Returns a channel for content of images that ends at this very node or nowhere.
    pub(crate) fn images(&self, addr: SocketAddr, node: NodeId) -> Channel {
        self.channel(addr, Whom::Node(node), Lane::Images)
    }

    /// Returns a channel for what a person asks, that ends at a manager, if named at this very node, or nowhere.
    pub(crate) fn people(&self, addr: SocketAddr, node: Option<NodeId>, account: &Account) -> Channel {
        self.channel(addr, node.map_or(Whom::Manager, Whom::Node), Lane::of_people(account))
    }

    /// Returns a channel for what a manager asks another in somebody's name, that ends at a manager, if named at this very
    /// node, or nowhere.
    pub(crate) fn in_name_of(&self, addr: SocketAddr, node: Option<NodeId>, name: &InNameOf) -> Channel {
        let lane = match name {
            InNameOf::Manager => Lane::Swarm,
            InNameOf::Node(node) => Lane::Nodes(lane(node)),
            InNameOf::Person(account) => Lane::of_people(account),
            InNameOf::Stranger => Lane::Strangers,
            InNameOf::Joiner => Lane::Joiners,
        };
        self.channel(addr, node.map_or(Whom::Manager, Whom::Node), lane)
    }

    /// Returns a new channel to a manager that begins with the certificate of now; it is not kept.
    pub(crate) fn new_to_manager(&self, addr: SocketAddr) -> Channel {
        self.dial(addr, Whom::Manager, Lane::Swarm)
    }

    /// Forgets all channels: what they began with counts no more.
    pub(crate) fn renew(&self) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn channel(&self, addr: SocketAddr, whom: Whom, lane: Lane) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.entry((addr, whom, lane)).or_insert_with(|| self.dial(addr, whom, lane)).clone()
    }

    fn dial(&self, addr: SocketAddr, whom: Whom, lane: Lane) -> Channel {
        let (expected, as_manager) = match whom {
            Whom::Manager => (Expected::Role(Role::Manager), true),
            Whom::Node(node) => (Expected::Node(node), false),
        };
        let gate = Arc::clone(&self.gate);
        let admit: pki::tls::Admit = Arc::new(move |identity| gate.may_be_called(identity.node, as_manager));
        let connector = pki::tls::connector(&self.credentials, expected);
        let endpoint = match lane {
            Lane::Swarm | Lane::Images | Lane::Nodes(_) | Lane::Strangers | Lane::Joiners => endpoint(addr),
            Lane::People(_) => endpoint(addr)
                .initial_stream_window_size(ANSWER_WINDOW)
                .initial_connection_window_size(ANSWERS_WINDOW),
        };
        let _there = self.runtime.enter();
        endpoint.connect_with_connector_lazy(connector.known_to(&self.gate.guests, admit))
    }
}

/// Returns an endpoint with the timeouts every node-to-node connection has. The scheme is `http` because our own
/// connector adds the TLS.
pub(crate) fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{addr}"))
        .expect("an address is a valid authority")
        .connect_timeout(Duration::from_secs(3))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::open_tunnel;
    use futures::{StreamExt as _, stream::BoxStream};
    use model::{ClusterId, UserId};
    use pki::{NodeKey, RootCa, tls::Listener};
    use proto::node::{
        AnnounceReply, AnnounceRequest, Bytes as Chunk, ReadBlobRequest, ResolveImageReply,
        ResolveImageRequest,
        peer_client::PeerClient,
        peer_server::{Peer, PeerServer},
    };
    use tokio::{io::AsyncReadExt as _, net::TcpListener, task::JoinSet, time::timeout};
    use tokio_util::sync::CancellationToken;
    use tonic::{Request, Response, Status, Streaming};

    /// Long enough for anything, on any machine.
    const SOON: Duration = Duration::from_secs(60);

    /// A node that answers whatever it is asked through a tunnel without end.
    struct Endless;

    type Answers = BoxStream<'static, Result<Chunk, Status>>;

    fn endless() -> Response<Answers> {
        let chunk = || Ok(Chunk { data: vec![b'x'; 16 << 10].into() });
        Response::new(futures::stream::repeat_with(chunk).boxed())
    }

    #[tonic::async_trait]
    impl Peer for Endless {
        type TunnelStream = Answers;
        type RelayStream = Answers;
        type ReadBlobStream = Answers;

        async fn tunnel(&self, _: Request<Streaming<Chunk>>) -> Result<Response<Answers>, Status> {
            Ok(endless())
        }

        async fn relay(&self, _: Request<Streaming<Chunk>>) -> Result<Response<Answers>, Status> {
            Ok(endless())
        }

        async fn read_blob(&self, _: Request<ReadBlobRequest>) -> Result<Response<Answers>, Status> {
            Ok(endless())
        }

        async fn resolve_image(
            &self,
            _: Request<ResolveImageRequest>,
        ) -> Result<Response<ResolveImageReply>, Status> {
            Err(Status::unimplemented("not asked for here"))
        }

        async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
            Ok(Response::new(AnnounceReply {}))
        }
    }

    /// A `read` user has logs shown, of as many tasks as he likes, and reads none of it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn answers_that_nobody_takes_hold_up_neither_the_swarm_nor_others() {
        let cluster = ClusterId(7);
        let ca = RootCa::generate(cluster).unwrap();
        let member = |id: u128| {
            let key = NodeKey::generate().unwrap();
            let hour = Duration::from_secs(3600);
            let csr = key.csr_pem().unwrap();
            let chain = ca.sign_csr(&csr, NodeId(id), Role::Manager, cluster, hour).unwrap();
            Credentials::in_memory(&key.pem(), &chain, ca.cert_pem()).unwrap()
        };
        let listener = Listener::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), &member(1)).unwrap();
        let (addr, there) = (listener.local_addr(), NodeId(1));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let routes = tonic::service::Routes::new(PeerServer::new(Endless));
            crate::port::serve(routes, listener, CancellationToken::new()).await.unwrap();
        });
        let connections = Connections::new(member(2), Arc::new(Gate::new(cluster)));
        let user = |id: u128| Account::User(UserId(id));
        // Somebody of each lane.
        let one_of = |lane: u64| (0..).map(user).find(|user| self::lane(user) == lane).expect("a user");
        let users: Vec<Account> = (0..LANES).map(one_of).collect();
        let operator = Account::Operator { uid: 0, name: "root".into(), host: "h".into() };
        let asked = |account: &Account| {
            let place = connections.under_way().take(account.clone()).expect("a place");
            open_tunnel(connections.people(addr, Some(there), account), place)
        };
        let mut untaken = Vec::new();
        for _ in 0..64 {
            untaken.push(timeout(SOON, asked(&users[0])).await.expect("a way").unwrap());
        }
        let answered = async |channel: Channel| {
            let mut other = PeerClient::new(channel);
            timeout(SOON, other.announce(AnnounceRequest::default())).await.expect("an answer").unwrap();
        };
        answered(connections.manager(addr, Some(there))).await;
        answered(connections.manager(addr, None)).await;
        answered(connections.images(addr, there)).await;
        for name in [InNameOf::Manager, InNameOf::Node(NodeId(5)), InNameOf::Stranger, InNameOf::Joiner] {
            answered(connections.in_name_of(addr, None, &name)).await;
        }
        for account in [&operator, &users[1], &users[0]] {
            let mut other = timeout(SOON, asked(account)).await.expect("a way").unwrap();
            let mut answer = vec![0; 4 << 20];
            timeout(SOON, other.read_exact(&mut answer)).await.expect("all of it").unwrap();
        }
        // And each of his own goes on as soon as he takes it.
        let mut answer = vec![0; 4 << 20];
        let last = untaken.last_mut().unwrap();
        timeout(SOON, last.read_exact(&mut answer)).await.expect("all of it").unwrap();
        let channels = connections.channels.lock().unwrap();
        let lanes: Vec<Lane> = channels.keys().map(|(_, _, lane)| *lane).collect();
        let others = [Lane::Images, Lane::Nodes(lane(&NodeId(5))), Lane::Strangers, Lane::Joiners];
        let people = [0, 1, LANES].map(Lane::People);
        assert!(people.iter().chain(&others).all(|lane| lanes.contains(lane)), "{lanes:?}");
        assert_eq!(lanes.len(), 9, "each has its own, and two are the swarm's: {lanes:?}");

        // A way that is over leaves its place to another.
        let under_way = connections.under_way();
        let full: Vec<_> = std::iter::from_fn(|| under_way.take(users[0].clone()).ok()).collect();
        untaken.pop();
        drop(under_way.take(users[0].clone()).expect("the place of a way that is over"));
        drop(full);
    }
}
