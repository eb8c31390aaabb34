//! TLS connections between nodes, in the form tonic takes them, on a port that everybody can reach.
//!
//! ```text
//!  accept -> a stranger's place -> paced per address -> handshake --certificate--> a node's place
//!            (few, short-lived)                             '--none--> stays a stranger: may ask the Ca service
//! ```
//!
//! Places are bounded in total and per holder (an address; a node), see [`Limits`]. When they are taken, whoever
//! holds most loses its oldest: a flood costs the flooder, and an honest joiner gets in beside it. A connection
//! that does not take what we send ends too.
//!
//! Tasks: one accept loop per [`Listener`], and under it one task per handshake (as many as strangers have places,
//! 10 s each), so that a slow or silent client delays nobody. All end when the listener is dropped.

use crate::{
    Credentials, Expected, Identity,
    credentials::client_config,
    guests::{Guarded, Guests},
    identity::Facts,
    now,
    verify::{Trust, has_expired},
};
use hyper_util::rt::TokioIo;
use model::{Duration, NodeId, PlaceLimits, Places, Role, Ticket};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinSet, coop},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{codegen::http::Uri, transport::server::Connected};
use tracing::{debug, warn};

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Between two handshakes of one address, on average.
const HANDSHAKE_EVERY: Duration = Duration::from_millis(20);
/// How far an address may be ahead of its average: 100 handshakes.
const HANDSHAKE_BURST: Duration = Duration::from_secs(2);
/// The longest that a handshake waits for its turn; by then most of a flood has lost its places.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(1);
/// How much of what came is one unit of work, of which tokio gives a task 128 before it is others' turn: a read is one,
/// however many small frames are in it. *Unit:* bytes.
const WORK: usize = 1 << 10;
/// *Limit* of addresses whose pace is remembered.
const ADDRESSES_MAX: usize = 4096;

/// What a [`Listener`] takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that have shown no certificate, or not yet; per address (IPv6: per /64).
    pub strangers: PlaceLimits,
    /// How long a connection without certificate lasts.
    pub stranger_life: Duration,
    /// How much is listened to on a connection without certificate: its one question, twice. *Unit:* bytes.
    pub stranger_bytes: usize,
    /// Connections of nodes; per node.
    pub nodes: PlaceLimits,
    /// How long the other end may take nothing of what we have to send.
    pub stall: Duration,
}

impl Limits {
    /// Returns the limits for a process that may have so many descriptors: three eighths of them, so that those of
    /// containers are never used up from outside.
    pub fn for_descriptors(count: u64) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let strangers = (count / 8).clamp(8, 512);
        let nodes = (count / 4).clamp(16, 8192);
        Self {
            strangers: PlaceLimits { total: strangers, per_holder: strangers.div_ceil(4) },
            stranger_life: Duration::from_secs(30),
            stranger_bytes: 128 << 10,
            nodes: PlaceLimits { total: nodes, per_holder: (nodes / 4).min(64) },
            stall: Duration::from_secs(30),
        }
    }
}

/// Who is at the other end of a connection; in the extensions of every tonic request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// `None`: it showed no certificate, so it may only ask the Ca service.
    pub identity: Option<Identity>,
    /// Whom a certificate named that has expired: good for asking for a new one, and for nothing else.
    pub expired: Option<Identity>,
    pub addr: SocketAddr,
}

impl Peer {
    /// Returns the peer a request came from; `None` if it did not come through a [`Listener`].
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        request.extensions().get::<Self>().copied()
    }
}

/// Accepts TLS connections: a stream of [`Connection`] for tonic's `serve_with_incoming`.
#[derive(Debug)]
pub struct Listener {
    ready: mpsc::Receiver<Connection>,
    local_addr: SocketAddr,
    guests: Option<Guests>,
    /// Aborts the accept loop when dropped.
    _accepting: JoinSet<()>,
}

impl Listener {
    /// Starts to accept, within the limits of a process with 1024 descriptors. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The socket has no local address.
    pub fn start(tcp: TcpListener, credentials: &Credentials) -> io::Result<Self> {
        Self::start_with(tcp, credentials, Limits::for_descriptors(1024))
    }

    /// Starts to accept within these limits. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The socket has no local address.
    pub fn start_with(tcp: TcpListener, credentials: &Credentials, limits: Limits) -> io::Result<Self> {
        let local_addr = tcp.local_addr()?;
        let acceptor = TlsAcceptor::from(credentials.server_config());
        let (send, ready) = mpsc::channel(64);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(tcp, acceptor, send, Arc::new(Hall::new(limits))));
        Ok(Self { ready, local_addr, guests: None, _accepting: accepting })
    }

    /// Has what it accepts from now on known to `guests`, who can close it.
    #[must_use]
    pub fn known_to(mut self, guests: &Guests) -> Self {
        self.guests = Some(guests.clone());
        self
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

async fn accept(tcp: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Connection>, hall: Arc<Hall>) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let (stream, addr) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, usually: a stranger goes. Spinning would cure nothing.
                warn!(%error, "cannot accept a connection");
                hall.make_room();
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Some(place) = Place::of_stranger(&hall, addr) else { continue };
        let (acceptor, ready, turn) = (acceptor.clone(), ready.clone(), hall.turn(addr));
        handshakes.spawn(async move {
            let lost = place.lost.clone();
            let entering = async {
                sleep_until(turn).await;
                timeout(HANDSHAKE_LIMIT, handshake(stream, addr, acceptor, place)).await
            };
            match lost.run_until_cancelled(entering).await {
                Some(Ok(Ok(connection))) => drop(ready.send(connection).await), // a closed listener wants no more
                Some(Ok(Err(error))) => debug!(peer.addr = %addr, %error, "TLS handshake failed"),
                Some(Err(_)) => debug!(peer.addr = %addr, "TLS handshake timed out"),
                None => debug!(peer.addr = %addr, "connection given up for a newer one"),
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    addr: SocketAddr,
    acceptor: TlsAcceptor,
    place: Place,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let facts = leaf.map(|der| Facts::from_der(der)).transpose().map_err(io::Error::other)?;
    let (expired, valid): (Vec<_>, Vec<_>) = facts.into_iter().partition(|facts| has_expired(facts, now()));
    let named = |facts: &[Facts]| facts.first().map(|facts| facts.identity);
    let (identity, expired) = (named(&valid), named(&expired));
    let (place, ends) = match identity {
        Some(identity) => (Place::of_node(&place.hall, identity.node), None),
        None => {
            let ends = sleep(place.hall.limits.stranger_life);
            (Some(place), Some(Box::pin(ends)))
        }
    };
    let place = place.ok_or_else(|| io::Error::other("no place for another connection"))?;
    let lost = Box::pin(place.lost.clone().cancelled_owned());
    let left = place.hall.limits.stranger_bytes;
    Ok(Connection {
        tls: Guarded::new(tls, None, None),
        peer: Peer { identity, expired, addr },
        place,
        lost,
        ends,
        left,
        stalled: None,
    })
}

/// Who has which place.
#[derive(Debug)]
struct Hall {
    limits: Limits,
    strangers: Mutex<Places<IpAddr, CancellationToken>>,
    nodes: Mutex<Places<NodeId, CancellationToken>>,
    /// Until when each address has used up its handshakes.
    pace: Mutex<BTreeMap<IpAddr, Instant>>,
}

impl Hall {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            strangers: Mutex::new(Places::new(limits.strangers)),
            nodes: Mutex::new(Places::new(limits.nodes)),
            pace: Mutex::default(),
        }
    }

    fn make_room(&self) {
        if let Some(lost) = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).make_room() {
            lost.cancel();
        }
    }

    /// Returns when an address may begin its next handshake, and counts it.
    fn turn(&self, addr: SocketAddr) -> Instant {
        let now = Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.len() >= ADDRESSES_MAX {
            pace.retain(|_, until| *until > now);
        }
        let until = pace.get(&subnet(addr)).map_or(now, |until| *until).max(now);
        let turn = now + (until - now).saturating_sub(HANDSHAKE_BURST);
        if pace.len() < ADDRESSES_MAX || pace.contains_key(&subnet(addr)) {
            let next = (until + HANDSHAKE_EVERY).min(now + HANDSHAKE_BURST + HANDSHAKE_WAIT);
            pace.insert(subnet(addr), next);
        }
        turn
    }
}

/// Returns what stands for everybody at this address. One customer's line has a whole /64 of IPv6.
fn subnet(addr: SocketAddr) -> IpAddr {
    match addr.ip().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// A place in the hall, given back when dropped.
#[derive(Debug)]
struct Place {
    hall: Arc<Hall>,
    ticket: Ticket,
    of_node: bool,
    /// Cancelled when somebody else gets the place.
    lost: CancellationToken,
}

impl Place {
    fn of_stranger(hall: &Arc<Hall>, addr: SocketAddr) -> Option<Self> {
        let lost = CancellationToken::new();
        let taken =
            hall.strangers.lock().unwrap_or_else(PoisonError::into_inner).take(subnet(addr), lost.clone());
        Self::taken(hall, taken, lost, false)
    }

    fn of_node(hall: &Arc<Hall>, node: NodeId) -> Option<Self> {
        let lost = CancellationToken::new();
        let taken = hall.nodes.lock().unwrap_or_else(PoisonError::into_inner).take(node, lost.clone());
        Self::taken(hall, taken, lost, true)
    }

    fn taken(
        hall: &Arc<Hall>,
        taken: Option<(Ticket, Option<CancellationToken>)>,
        lost: CancellationToken,
        of_node: bool,
    ) -> Option<Self> {
        let (ticket, loser) = taken?;
        if let Some(loser) = loser {
            loser.cancel();
        }
        Some(Self { hall: Arc::clone(hall), ticket, of_node, lost })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.of_node {
            self.hall.nodes.lock().unwrap_or_else(PoisonError::into_inner).leave(self.ticket);
        } else {
            self.hall.strangers.lock().unwrap_or_else(PoisonError::into_inner).leave(self.ticket);
        }
    }
}

impl Stream for Listener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let guests = self.guests.clone();
        self.ready.poll_recv(cx).map(|connection| {
            connection.map(|connection| {
                let tls = connection.tls.known_to(guests.as_ref(), connection.peer.identity);
                Ok(Connection { tls, ..connection })
            })
        })
    }
}

/// An accepted connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    tls: Guarded<server::TlsStream<TcpStream>>,
    peer: Peer,
    place: Place,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    /// A stranger's time is short.
    ends: Option<Pin<Box<Sleep>>>,
    /// What a stranger has left to say. *Unit:* bytes.
    left: usize,
    /// Runs while the other end takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Fails once the connection has lost its place or its time is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.lost.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "given up for a newer connection"));
        }
        if self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(cx).is_ready()) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a connection without certificate is short"));
        }
        Ok(())
    }

    /// Counts what was read: what a stranger says has an end, and whoever says much gives others their turn.
    fn count(&mut self, bytes: usize, cx: &mut Context<'_>) -> io::Result<()> {
        for _ in 0..bytes / WORK {
            match coop::poll_proceed(cx) {
                Poll::Ready(turn) => turn.made_progress(),
                Poll::Pending => break,
            }
        }
        if self.ends.is_some() {
            self.left = self.left.checked_sub(bytes).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "a connection without certificate says little",
                )
            })?;
        }
        Ok(())
    }

    /// Passes on what became of a write; fails when nothing has been taken for too long.
    fn watched<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.place.hall.limits.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing")))
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_over(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tls).poll_read(cx, buf);
        if let Err(over) = self.count(buf.filled().len() - before, cx) {
            buf.set_filled(before); // what fails has read nothing
            return Poll::Ready(Err(over));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_over(cx)?;
        let written = Pin::new(&mut self.tls).poll_write(cx, buf);
        self.watched(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_over(cx)?;
        let flushed = Pin::new(&mut self.tls).poll_flush(cx);
        self.watched(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.tls).poll_shutdown(cx);
        self.watched(closed, cx)
    }
}

/// Dials a node: for tonic's `Endpoint::connect_with_connector`. The URI is `http://HOST:PORT`; TLS is ours.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    guests: Option<Guests>,
    admit: Option<Admit>,
}

/// Says whether a connection to this node may be used, beyond what its certificate shows.
pub type Admit = Arc<dyn Fn(&Identity) -> bool + Send + Sync>;

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// Returns a connector that shows this node's certificate and accepts only `expected`.
pub fn connector(credentials: &Credentials, expected: Expected) -> Connector {
    Connector { config: credentials.client_config(expected), guests: None, admit: None }
}

/// Returns the connector of a node that has only a join token: it shows no certificate, and accepts a manager
/// whose root has this digest.
pub fn bootstrap_connector(root_digest: [u8; 32]) -> Connector {
    let config = client_config(Trust::Digest(root_digest), Expected::Role(Role::Manager), None);
    Connector { config, guests: None, admit: None }
}

impl Connector {
    /// Connects only to those whom `admit` lets pass, and has the connections known to `guests`, who can close them.
    #[must_use]
    pub fn known_to(mut self, guests: &Guests, admit: Admit) -> Self {
        self.guests = Some(guests.clone());
        self.admit = Some(admit);
        self
    }

    /// Returns a TLS connection to `host:port`.
    ///
    /// # Errors
    /// Nobody answers within 5 s, or it is not whom we expect.
    pub async fn connect(&self, authority: &str) -> io::Result<Guarded<client::TlsStream<TcpStream>>> {
        let attempt = async {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            // Names are checked by our verifier; this one only fills the field.
            let name = ServerName::try_from("swarm-node").expect("a valid DNS name");
            let tls = TlsConnector::from(self.config.clone()).connect(name, stream).await?;
            let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let identity = leaf.map(|der| Identity::from_der(der)).transpose().map_err(io::Error::other)?;
            if let (Some(admit), Some(identity)) = (&self.admit, &identity)
                && !admit(identity)
            {
                return Err(io::Error::other(format!(
                    "node {} is no manager of this swarm any more",
                    identity.node
                )));
            }
            Ok(Guarded::new(tls, self.guests.as_ref(), identity))
        };
        timeout(CONNECT_LIMIT, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Guarded<client::TlsStream<TcpStream>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let authority = uri.authority().ok_or_else(|| io::Error::other(format!("no host in {uri}")))?;
            this.connect(authority.as_str()).await.map(TokioIo::new)
        })
    }
}
