//! TLS connections between nodes, in the form tonic takes them.
//!
//! Tasks: one accept loop per [`Listener`], and under it one task per handshake (at most 256 at once, 10 s each),
//! so that a slow or silent client delays nobody. All end when the listener is dropped.

use crate::{Credentials, Expected, Identity, credentials::client_config, verify::Trust};
use hyper_util::rt::TokioIo;
use model::{Duration, Role};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_stream::Stream;
use tonic::{codegen::http::Uri, transport::server::Connected};
use tracing::{debug, warn};

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const HANDSHAKES_AT_ONCE: usize = 256;

/// Who is at the other end of a connection; in the extensions of every tonic request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// `None`: it showed no certificate, so it may only ask the Ca service.
    pub identity: Option<Identity>,
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
    /// Aborts the accept loop when dropped.
    _accepting: JoinSet<()>,
}

impl Listener {
    /// Starts to accept. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The socket has no local address.
    pub fn start(tcp: TcpListener, credentials: &Credentials) -> io::Result<Self> {
        let local_addr = tcp.local_addr()?;
        let acceptor = TlsAcceptor::from(credentials.server_config());
        let (send, ready) = mpsc::channel(HANDSHAKES_AT_ONCE);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(tcp, acceptor, send));
        Ok(Self { ready, local_addr, _accepting: accepting })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

async fn accept(tcp: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Connection>) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= HANDSHAKES_AT_ONCE {
            handshakes.join_next().await;
            continue;
        }
        let (stream, addr) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, usually: closing connections cures it, spinning does not.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        handshakes.spawn(async move {
            match timeout(HANDSHAKE_LIMIT, handshake(stream, addr, acceptor)).await {
                Ok(Ok(connection)) => drop(ready.send(connection).await), // a closed listener wants no more
                Ok(Err(error)) => debug!(peer.addr = %addr, %error, "TLS handshake failed"),
                Err(_) => debug!(peer.addr = %addr, "TLS handshake timed out"),
            }
        });
    }
}

async fn handshake(stream: TcpStream, addr: SocketAddr, acceptor: TlsAcceptor) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = leaf.map(|der| Identity::from_der(der)).transpose().map_err(io::Error::other)?;
    Ok(Connection { tls, peer: Peer { identity, addr } })
}

impl Stream for Listener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// An accepted connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    tls: server::TlsStream<TcpStream>,
    peer: Peer,
}

impl Connection {
    pub fn peer(&self) -> Peer {
        self.peer
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
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Dials a node: for tonic's `Endpoint::connect_with_connector`. The URI is `http://HOST:PORT`; TLS is ours.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// Returns a connector that shows this node's certificate and accepts only `expected`.
pub fn connector(credentials: &Credentials, expected: Expected) -> Connector {
    Connector { config: credentials.client_config(expected) }
}

/// Returns the connector of a node that has only a join token: it shows no certificate, and accepts a manager
/// whose root has this digest.
pub fn bootstrap_connector(root_digest: [u8; 32]) -> Connector {
    Connector { config: client_config(Trust::Digest(root_digest), Expected::Role(Role::Manager), None) }
}

impl Connector {
    /// Returns a TLS connection to `host:port`.
    ///
    /// # Errors
    /// Nobody answers within 5 s, or it is not whom we expect.
    pub async fn connect(&self, authority: &str) -> io::Result<client::TlsStream<TcpStream>> {
        let attempt = async {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            // Names are checked by our verifier; this one only fills the field.
            let name = ServerName::try_from("swarm-node").expect("a valid DNS name");
            TlsConnector::from(self.config.clone()).connect(name, stream).await
        };
        timeout(CONNECT_LIMIT, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<client::TlsStream<TcpStream>>;
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
