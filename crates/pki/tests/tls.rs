//! Who can reach whom over TLS, and what those who cannot are told.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use model::{ClusterId, Duration, NodeId, PlaceLimits, Role, Timestamp};
use pki::{
    Authority, Credentials, Expected, Identity, NodeKey, RootCa,
    tls::{Connector, Limits, Listener, Peer, bootstrap_connector, connector},
};
use std::{os::unix::fs::PermissionsExt as _, task::Poll, time::SystemTime};
use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::StreamExt as _;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

struct Swarm {
    ca: RootCa,
    id: ClusterId,
}

impl Swarm {
    fn new(id: u128) -> Self {
        Self { ca: RootCa::generate(ClusterId(id)).unwrap(), id: ClusterId(id) }
    }

    /// Key and chain of a node whose certificate was signed `ago` for `life`.
    fn issue(&self, node: u128, role: Role, at: Timestamp, life: Duration) -> (String, String) {
        let key = NodeKey::generate().unwrap();
        let csr = key.csr_pem().unwrap();
        (key.pem(), self.ca.sign_csr_at(at, &csr, NodeId(node), role, self.id, life).unwrap())
    }

    fn node(&self, node: u128, role: Role) -> Credentials {
        let (key, chain) = self.issue(node, role, now(), DAY);
        Credentials::in_memory(&key, &chain, self.ca.cert_pem()).unwrap()
    }
}

/// A node that answers every connection with one byte and tells who came.
struct Server {
    authority: String,
    peers: mpsc::Receiver<Peer>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(credentials: &Credentials) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut listener = Listener::start(tcp, credentials).unwrap();
        let authority = listener.local_addr().to_string();
        let (send, peers) = mpsc::channel(16);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Some(connection) = listener.next().await {
                let mut connection = connection.unwrap();
                send.send(connection.peer()).await.unwrap();
                connection.write_all(b"!").await.unwrap();
                connection.shutdown().await.ok();
            }
        });
        Self { authority, peers, _serving: serving }
    }

    /// Connects and reads the byte: with TLS 1.3 a client learns only then that its certificate was refused.
    async fn reach(&self, connector: &Connector) -> Result<(), String> {
        let mut stream = connector.connect(&self.authority).await.map_err(|e| e.to_string())?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(|e| e.to_string())?;
        Ok(())
    }
}

#[tokio::test]
async fn members_of_one_swarm_know_each_other() {
    let swarm = Swarm::new(7);
    let mut server = Server::start(&swarm.node(1, Role::Manager)).await;
    let worker = swarm.node(2, Role::Worker);
    for expected in [Expected::Role(Role::Manager), Expected::Node(NodeId(1)), Expected::Member] {
        server.reach(&connector(&worker, expected)).await.unwrap();
        let peer = server.peers.recv().await.unwrap();
        let identity = Identity { node: NodeId(2), role: Role::Worker, cluster: ClusterId(7) };
        assert_eq!(peer.identity, Some(identity));
    }
}

#[tokio::test]
async fn a_server_that_is_someone_else_is_not_spoken_to() {
    let swarm = Swarm::new(7);
    let server = Server::start(&swarm.node(1, Role::Worker)).await;
    let manager = swarm.node(2, Role::Manager);
    let error = server.reach(&connector(&manager, Expected::Role(Role::Manager))).await.unwrap_err();
    assert!(error.contains("is not a swarm-manager but a swarm-worker"), "{error}");
    let error = server.reach(&connector(&manager, Expected::Node(NodeId(3)))).await.unwrap_err();
    assert!(error.contains("given to another node"), "{error}");
}

#[tokio::test]
async fn nodes_of_another_swarm_are_strangers_in_both_directions() {
    let (ours, theirs) = (Swarm::new(7), Swarm::new(8));
    let server = Server::start(&ours.node(1, Role::Manager)).await;
    let error = server.reach(&connector(&theirs.node(2, Role::Manager), Expected::Member)).await.unwrap_err();
    assert!(error.contains("was not issued by this swarm"), "{error}");

    // Theirs trusts our root, but shows its own certificate.
    let (key, chain) = theirs.issue(2, Role::Manager, now(), DAY);
    let intruder = Credentials::in_memory(&key, &chain, ours.ca.cert_pem()).unwrap();
    server.reach(&connector(&intruder, Expected::Member)).await.unwrap_err();
}

#[tokio::test]
async fn a_joiner_needs_only_the_digest_of_the_root() {
    let swarm = Swarm::new(7);
    let mut server = Server::start(&swarm.node(1, Role::Manager)).await;
    server.reach(&bootstrap_connector(swarm.ca.digest())).await.unwrap();
    assert_eq!(server.peers.recv().await.unwrap().identity, None);

    let error = server.reach(&bootstrap_connector(Swarm::new(7).ca.digest())).await.unwrap_err();
    assert!(error.contains("does not match the join token"), "{error}");

    let worker = Server::start(&swarm.node(2, Role::Worker)).await;
    assert!(worker.reach(&bootstrap_connector(swarm.ca.digest())).await.is_err(), "a worker is no manager");
}

#[tokio::test]
async fn expired_and_future_certificates_point_at_the_clocks() {
    let swarm = Swarm::new(7);
    let client = swarm.node(2, Role::Manager);
    let long_ago = Timestamp(now().0 - 10 * 24 * 3600 * 1_000_000_000);
    for (at, text) in [(long_ago, "has expired"), (now().after(DAY), "is not valid yet")] {
        let (key, chain) = swarm.issue(1, Role::Manager, at, DAY);
        let odd = Credentials::in_memory(&key, &chain, swarm.ca.cert_pem()).unwrap();
        let server = Server::start(&odd).await;
        let error = server.reach(&connector(&client, Expected::Member)).await.unwrap_err();
        assert!(error.contains(text) && error.contains("clocks"), "{error}");
        let mut server = Server::start(&client).await;
        let reached = server.reach(&connector(&odd, Expected::Member)).await;
        if at == long_ago {
            // It may ask for a new certificate: the server knows it for one that has expired.
            reached.unwrap();
            let peer = server.peers.recv().await.unwrap();
            assert_eq!((peer.identity, peer.expired.unwrap().node), (None, NodeId(1)));
        } else {
            reached.unwrap_err();
        }
    }
}

#[tokio::test]
async fn an_expired_certificate_of_another_swarm_is_a_strangers() {
    let (ours, theirs) = (Swarm::new(7), Swarm::new(7));
    let long_ago = Timestamp(now().0 - 10 * 24 * 3600 * 1_000_000_000);
    let (key, chain) = theirs.issue(1, Role::Manager, long_ago, DAY);
    let odd = Credentials::in_memory(&key, &chain, ours.ca.cert_pem()).unwrap();
    let server = Server::start(&ours.node(2, Role::Manager)).await;
    server.reach(&connector(&odd, Expected::Member)).await.unwrap_err();
}

#[tokio::test]
async fn clocks_a_few_minutes_apart_do_no_harm() {
    let swarm = Swarm::new(7);
    let minute = 60 * 1_000_000_000;
    // Expired two minutes ago; begins (an hour back-dated) in two minutes.
    for at in [Timestamp(now().0 - 24 * 60 * minute - 2 * minute), Timestamp(now().0 + 62 * minute)] {
        let (key, chain) = swarm.issue(1, Role::Manager, at, DAY);
        let odd = Credentials::in_memory(&key, &chain, swarm.ca.cert_pem()).unwrap();
        let server = Server::start(&odd).await;
        server.reach(&connector(&swarm.node(2, Role::Worker), Expected::Member)).await.unwrap();
    }
}

#[tokio::test]
async fn while_the_root_changes_everybody_reaches_everybody_and_afterwards_only_who_has_renewed() {
    let swarm = Swarm::new(7);
    let new = RootCa::generate(ClusterId(7)).unwrap();
    let cross = swarm.ca.cross_sign(&new).unwrap();
    let new = new.with_cross_signed(&cross);
    let both = format!("{}{}", swarm.ca.cert_pem(), new.cert_pem());
    let signed_by_new = |id: u128, roots: &str| {
        let key = NodeKey::generate().unwrap();
        let csr = key.csr_pem().unwrap();
        let chain = new.sign_csr(&csr, NodeId(id), Role::Manager, ClusterId(7), DAY).unwrap();
        Credentials::in_memory(&key.pem(), &chain, roots).unwrap()
    };
    let (old, heard) = (swarm.node(1, Role::Manager), swarm.node(2, Role::Manager));
    heard.replace_roots(&both).unwrap();
    let (renewed, done) = (signed_by_new(3, &both), signed_by_new(4, new.cert_pem()));
    for credentials in [&renewed, &done] {
        let issuer = credentials.issuer().unwrap();
        assert_eq!(issuer, Authority::last_of(&credentials.root_pem()).unwrap());
    }
    assert_ne!(heard.issuer().unwrap(), Authority::last_of(&heard.root_pem()).unwrap());

    for from in [&old, &heard, &renewed] {
        for to in [&old, &heard, &renewed] {
            Server::start(to).await.reach(&connector(from, Expected::Member)).await.unwrap();
        }
    }
    Server::start(&renewed).await.reach(&connector(&done, Expected::Member)).await.unwrap();
    Server::start(&done).await.reach(&connector(&old, Expected::Member)).await.unwrap_err();
    // A token of before the change, and one of after it.
    for digest in [swarm.ca.digest(), new.digest()] {
        Server::start(&renewed).await.reach(&bootstrap_connector(digest)).await.unwrap();
    }
    Server::start(&done).await.reach(&bootstrap_connector(swarm.ca.digest())).await.unwrap_err();
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let swarm = Swarm::new(7);
    let mut server = Server::start(&swarm.node(1, Role::Manager)).await;
    let client = swarm.node(2, Role::Worker);
    let connector = connector(&client, Expected::Member);
    server.reach(&connector).await.unwrap();
    assert_eq!(server.peers.recv().await.unwrap().identity.unwrap().role, Role::Worker);

    let (key, chain) = swarm.issue(2, Role::Manager, now(), DAY);
    client.replace(&key, &chain, swarm.ca.cert_pem()).unwrap();
    server.reach(&connector).await.unwrap();
    assert_eq!(server.peers.recv().await.unwrap().identity.unwrap().role, Role::Manager);
}

#[test]
fn credentials_survive_a_restart_and_only_their_owner_reads_them() {
    let swarm = Swarm::new(7);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("certificates");
    assert!(Credentials::load(&dir, None).unwrap().is_none());
    let (key, chain) = swarm.issue(1, Role::Worker, now(), DAY);
    Credentials::create(&dir, &key, &chain, swarm.ca.cert_pem(), None).unwrap();
    let loaded = Credentials::load(&dir, None).unwrap().unwrap();
    assert_eq!(loaded.identity(), Identity { node: NodeId(1), role: Role::Worker, cluster: ClusterId(7) });
    assert_eq!(loaded.root_pem(), swarm.ca.cert_pem());
    for file in std::fs::read_dir(&dir).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let (_, other_chain) = swarm.issue(1, Role::Manager, now(), DAY);
    loaded.replace(&key, &other_chain, swarm.ca.cert_pem()).unwrap_err();
    assert_eq!(
        Credentials::load(&dir, None).unwrap().unwrap().identity().role,
        Role::Worker,
        "a misfit changes nothing"
    );
    let (key, chain) = swarm.issue(1, Role::Manager, now(), DAY);
    loaded.replace(&key, &chain, swarm.ca.cert_pem()).unwrap();
    assert_eq!(Credentials::load(&dir, None).unwrap().unwrap().identity().role, Role::Manager);
}

/// Limits of a small server whose times are `short`.
fn small(short: Duration) -> Limits {
    Limits {
        strangers: PlaceLimits { total: 8, per_holder: 4 },
        stranger_life: short,
        stranger_bytes: 4096,
        nodes: PlaceLimits { total: 6, per_holder: 2 },
        stall: short,
    }
}

/// A server that does nothing with its connections but hold them.
async fn holder(swarm: &Swarm, limits: Limits) -> (String, mpsc::Receiver<Peer>, JoinSet<()>) {
    let tcp = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let mut listener = Listener::start_with(tcp, &swarm.node(1, Role::Manager), limits).unwrap();
    let port = listener.local_addr().port();
    let (send, peers) = mpsc::channel(64);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut open = JoinSet::new();
        while let Some(connection) = listener.next().await {
            let mut connection = connection.unwrap();
            send.send(connection.peer()).await.unwrap();
            // Reads to the end, which is how it learns of it; nothing is written.
            open.spawn(async move { drop(connection.read(&mut [0; 64]).await) });
        }
    });
    (format!("127.0.0.1:{port}"), peers, serving)
}

async fn silent(from: &str, to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to.parse().unwrap()).await.unwrap()
}

/// Waits for the other end to close.
async fn closed(stream: &mut TcpStream) {
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 64])).await;
    assert!(matches!(read.expect("to be closed in time"), Ok(0) | Err(_)));
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 64]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_flood_of_silent_connections_costs_only_the_address_it_comes_from() {
    let swarm = Swarm::new(7);
    let (addr, mut peers, _serving) = holder(&swarm, small(Duration::from_secs(60))).await;
    let neighbour = silent("127.0.0.3", &addr).await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.push(silent("127.0.0.2", &addr).await);
    }
    for stream in &mut flood[..36] {
        closed(stream).await;
    }
    assert!(is_open(&neighbour), "it came before all of them");
    assert!(flood[36..].iter().all(is_open));
    // Those who have a token, and those who have a certificate, get in beside it: from its very address, too.
    let bootstrap = bootstrap_connector(swarm.ca.digest());
    let _joiner = bootstrap.connect(&addr).await.unwrap();
    assert_eq!(peers.recv().await.unwrap().identity, None);
    let _node = connector(&swarm.node(2, Role::Worker), Expected::Member).connect(&addr).await.unwrap();
    assert_eq!(peers.recv().await.unwrap().identity.unwrap().node, NodeId(2));
}

#[tokio::test]
async fn a_node_that_opens_too_many_connections_loses_its_own() {
    let swarm = Swarm::new(7);
    let (addr, mut peers, _serving) = holder(&swarm, small(Duration::from_secs(60))).await;
    let honest = connector(&swarm.node(2, Role::Worker), Expected::Member);
    let mut honest = honest.connect(&addr).await.unwrap();
    peers.recv().await.unwrap();
    let greedy = connector(&swarm.node(3, Role::Worker), Expected::Member);
    let mut many = Vec::new();
    for _ in 0..5 {
        many.push(greedy.connect(&addr).await.unwrap());
        peers.recv().await.unwrap();
    }
    for stream in &mut many[..3] {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 8])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)));
    }
    let read = tokio::time::timeout(Duration::from_millis(50), honest.read(&mut [0; 8])).await;
    assert!(read.is_err(), "still open, with nothing to read: {read:?}");
}

#[tokio::test]
async fn a_connection_without_certificate_ends_by_itself() {
    let swarm = Swarm::new(7);
    let (addr, mut peers, _serving) = holder(&swarm, small(Duration::from_millis(300))).await;
    let mut stranger = bootstrap_connector(swarm.ca.digest()).connect(&addr).await.unwrap();
    peers.recv().await.unwrap();
    let node = connector(&swarm.node(2, Role::Worker), Expected::Member);
    let mut node = node.connect(&addr).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), stranger.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    let read = tokio::time::timeout(Duration::from_millis(50), node.read(&mut [0; 8])).await;
    assert!(read.is_err(), "a node stays: {read:?}");
}

#[tokio::test]
async fn a_connection_that_takes_nothing_of_what_is_sent_ends() {
    let swarm = Swarm::new(7);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let credentials = swarm.node(1, Role::Manager);
    let mut listener = Listener::start_with(tcp, &credentials, small(Duration::from_millis(300))).unwrap();
    let addr = listener.local_addr().to_string();
    let node = connector(&swarm.node(2, Role::Worker), Expected::Member);
    let (client, server) = tokio::join!(node.connect(&addr), listener.next());
    let (_client, mut server) = (client.unwrap(), server.unwrap().unwrap());
    let much = vec![0; 1 << 20];
    let failed = loop {
        if let Err(error) = server.write_all(&much).await {
            break error;
        }
    };
    assert_eq!(failed.kind(), std::io::ErrorKind::TimedOut);
}

/// Whatever it says: what HTTP/2 makes of it costs a node something for each byte.
#[tokio::test]
async fn what_is_listened_to_without_certificate_has_an_end() {
    let swarm = Swarm::new(7);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = small(Duration::from_secs(60));
    let mut listener = Listener::start_with(tcp, &swarm.node(1, Role::Manager), limits).unwrap();
    let addr = listener.local_addr().to_string();
    let mut heard = async |connector: Connector| {
        let (client, server) = tokio::join!(connector.connect(&addr), listener.next());
        let (mut client, mut server) = (client.unwrap(), server.unwrap().unwrap());
        let says = async {
            for _ in 0..20 {
                client.write_all(&[b'x'; 1024]).await?;
            }
            client.shutdown().await
        };
        let mut heard = Vec::new();
        let (_said, ended) = tokio::join!(says, server.read_to_end(&mut heard));
        (heard.len(), ended.map_err(|e| e.kind()))
    };
    let (bytes, ended) = heard(bootstrap_connector(swarm.ca.digest())).await;
    assert!(bytes <= 4096, "{bytes} bytes");
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionAborted));
    let node = connector(&swarm.node(2, Role::Worker), Expected::Member);
    assert_eq!(heard(node).await, (20 * 1024, Ok(20 * 1024)), "a node says what it has to");
}

/// One read is little work for tokio, and may have a thousand frames in it.
#[tokio::test]
async fn who_says_much_gives_others_their_turn() {
    let swarm = Swarm::new(7);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 20).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let limits = small(Duration::from_secs(60));
    let tcp = socket.listen(16).unwrap();
    let mut listener = Listener::start_with(tcp, &swarm.node(1, Role::Manager), limits).unwrap();
    let node = connector(&swarm.node(2, Role::Worker), Expected::Member);
    let addr = listener.local_addr().to_string();
    let (client, server) = tokio::join!(node.connect(&addr), listener.next());
    let (mut client, mut server) = (client.unwrap(), server.unwrap().unwrap());
    let says = async move {
        let mut said = 0;
        // As much as there is room for between the two.
        while let Ok(written) =
            tokio::time::timeout(Duration::from_millis(500), client.write(&[b'x'; 8192])).await
        {
            said += written.unwrap();
        }
        (client, said)
    };
    let (_client, said) = says.await;
    // The test's own task is never to yield; this one is.
    let mut hearing = JoinSet::new();
    hearing.spawn(async move {
        let (mut heard, mut room) = (0, vec![0; 8192]);
        std::future::poll_fn(|cx| {
            loop {
                let mut buf = tokio::io::ReadBuf::new(&mut room);
                match std::pin::Pin::new(&mut server).poll_read(cx, &mut buf) {
                    Poll::Ready(read) => heard += read.map(|()| buf.filled().len()).unwrap(),
                    Poll::Pending => return Poll::Ready(heard),
                }
            }
        })
        .await
    });
    let heard = hearing.join_next().await.unwrap().unwrap();
    assert!(heard > 0 && heard <= 160 << 10, "{heard} of {said} bytes at once");
}
