//! Sockets: a unix socket for this host's people, tcp where the operator wants it, tunnels from other nodes.

use super::{FrontDoor, Origin};
use axum::body::Body;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    fs::Permissions,
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// *Limit* of open connections per listener: a client that leaks them must not starve the daemon.
const CONNECTIONS_MAX: usize = 4096;
/// A client that connects must send its request's head within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a front door listens.
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    /// For those who show a certificate, if the configuration asks for one.
    Tls(TcpListener, TlsAcceptor),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(listener) => listener.fmt(f),
            Self::Tcp(listener) | Self::Tls(listener, _) => listener.fmt(f),
        }
    }
}

impl Listener {
    /// Listens on a unix socket that only its owner and group may use. A socket that a dead daemon left is
    /// replaced; one that somebody answers is not.
    ///
    /// # Errors
    /// When the path is in use or cannot be made.
    pub async fn unix(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                if tokio::net::UnixStream::connect(path).await.is_ok() {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        format!("another daemon listens on {}", path.display()),
                    ));
                }
                std::fs::remove_file(path)?;
            }
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} exists and is no socket", path.display()),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Bound under another name, so that nobody connects before the permissions are right.
        let making = path.with_extension("new");
        let _gone = std::fs::remove_file(&making);
        let listener = UnixListener::bind(&making)?;
        std::fs::set_permissions(&making, Permissions::from_mode(0o660))?;
        std::fs::rename(&making, path)?;
        Ok(Self::Unix(listener))
    }

    /// Listens on a TCP address. There is no access control: loopback or a trusted network only.
    pub async fn tcp(addr: &str) -> io::Result<Self> {
        TcpListener::bind(addr).await.map(Self::Tcp)
    }

    /// Listens on a TCP address with TLS: see [`server_config`](crate::tls::server_config).
    pub async fn tls(addr: &str, config: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        Ok(Self::Tls(TcpListener::bind(addr).await?, config.into()))
    }
}

impl FrontDoor {
    /// Serves a listener until the front door's token is cancelled; then waits for its connections.
    pub async fn serve(&self, listener: Listener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = self.state.cancel.cancelled() => break,
                accepted = accept(&listener), if connections.len() < CONNECTIONS_MAX => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            match accepted {
                Ok(Accepted::Unix(io)) => {
                    let door = self.clone();
                    connections.spawn(async move { door.connection(io, Origin::Client).await });
                }
                Ok(Accepted::Tcp(io)) => {
                    let door = self.clone();
                    connections.spawn(async move { door.connection(io, Origin::Client).await });
                }
                Ok(Accepted::Tls(io, acceptor)) => {
                    let door = self.clone();
                    connections.spawn(async move { door.handshake(io, acceptor).await });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: let some close
                }
            }
        }
        while connections.join_next().await.is_some() {}
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }

    async fn handshake(&self, io: TcpStream, acceptor: TlsAcceptor) {
        let peer = io.peer_addr().ok();
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(io)).await {
            Ok(Ok(io)) => self.connection(io, Origin::Client).await,
            Ok(Err(error)) => tracing::info!(?peer, %error, "a client is refused"),
            Err(_) => tracing::info!(?peer, "a client is too slow with its TLS handshake"),
        }
    }

    /// Serves one connection until it ends or the front door's token is cancelled. `Origin::Peer` is for
    /// tunnels from other nodes: such requests are answered from this host alone.
    pub async fn connection(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, origin: Origin) {
        let service = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(self.answer(request.map(Body::new), origin).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.state.cancel.cancelled() => {
                // Requests under way get a moment; endless ones (events, logs -f) are cut.
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(Duration::from_secs(1), connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "connection ended early");
        }
    }
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tcp(TcpStream),
    Tls(TcpStream, TlsAcceptor),
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Unix(listener) => listener.accept().await.map(|(io, _)| Accepted::Unix(io)),
        Listener::Tcp(listener) => {
            let (io, _) = listener.accept().await?;
            io.set_nodelay(true)?;
            Ok(Accepted::Tcp(io))
        }
        Listener::Tls(listener, acceptor) => {
            let (io, _) = listener.accept().await?;
            io.set_nodelay(true)?;
            Ok(Accepted::Tls(io, acceptor.clone()))
        }
    }
}
