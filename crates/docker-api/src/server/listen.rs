//! Sockets: a unix socket for this host's people, tcp where the operator wants it, tunnels from other nodes.

use super::{
    ApiError, FrontDoor, Group, Origin, Shown,
    seats::{Holder, Seat, kept, watched},
    takeover::{Claimable, Raw, Takeover},
};
use axum::{
    body::Body,
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, ORIGIN, TRANSFER_ENCODING},
    },
    response::IntoResponse as _,
};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use std::{
    convert::Infallible,
    fs::Permissions,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
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

/// A client that connects must send its request's head within this time, and again after each answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a front door listens.
pub enum Listener {
    /// For root and a group of this host.
    Unix(UnixListener, Arc<Group>),
    Tcp(TcpListener),
    /// For those who show a certificate, if the configuration asks for one.
    Tls(TcpListener, TlsAcceptor, Whose),
}

/// Says whose certificate (leaf first) a client showed that the configuration let in.
pub type Whose = Arc<dyn Fn(&[CertificateDer<'static>]) -> Option<Shown> + Send + Sync>;

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(listener, _) => listener.fmt(f),
            Self::Tcp(listener) | Self::Tls(listener, ..) => listener.fmt(f),
        }
    }
}

impl Listener {
    /// Listens on a unix socket that only its owner and a group may use: the given one, else the one that it has by
    /// itself. A socket that a dead daemon left is replaced; one that somebody answers is not.
    ///
    /// # Errors
    /// When the path is in use or cannot be made, or not be given to the group.
    pub async fn unix(path: &Path, group: Option<Group>) -> io::Result<Self> {
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
        let group = match group {
            Some(group) => {
                chown(&making, None, Some(group.id)).map_err(|e| {
                    io::Error::new(e.kind(), format!("cannot give the socket to group {}: {e}", group.name))
                })?;
                group
            }
            None => Group::with_id(std::fs::metadata(&making)?.gid()),
        };
        std::fs::rename(&making, path)?;
        Ok(Self::Unix(listener, Arc::new(group)))
    }

    /// Listens on a TCP address. There is no access control: loopback or a trusted network only.
    pub async fn tcp(addr: &str) -> io::Result<Self> {
        TcpListener::bind(addr).await.map(Self::Tcp)
    }

    /// Listens on a TCP address with TLS: see [`server_config`](crate::tls::server_config).
    pub async fn tls(addr: &str, config: Arc<rustls::ServerConfig>, whose: Whose) -> io::Result<Self> {
        Ok(Self::Tls(TcpListener::bind(addr).await?, config.into(), whose))
    }
}

impl FrontDoor {
    /// Serves a listener until the front door's token is cancelled; then waits for its connections.
    pub async fn serve(&self, listener: Listener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = self.state.cancel.cancelled() => break,
                accepted = accept(&listener) => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let (accepted, holder) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    self.state.seats.make_room();
                    tokio::time::sleep(Duration::from_millis(20)).await; // out of descriptors: let some close
                    continue;
                }
            };
            let Some(seat) = self.state.seats.take(holder) else {
                tracing::warn!("a connection is refused: every other one has a request under way");
                continue;
            };
            let door = self.clone();
            connections.spawn(async move {
                match accepted {
                    Accepted::Unix(io, origin) => {
                        door.seated(io, origin, Some((seat, Browsers::Unheard))).await
                    }
                    Accepted::Tcp(io, addr) => {
                        door.seated(io, Origin::Tcp { addr }, Some((seat, Browsers::Refused))).await
                    }
                    Accepted::Tls(io, addr, acceptor, whose) => {
                        door.handshake(io, addr, acceptor, &whose, seat).await
                    }
                }
            });
        }
        while connections.join_next().await.is_some() {}
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }

    async fn handshake(
        &self,
        io: TcpStream,
        addr: SocketAddr,
        acceptor: TlsAcceptor,
        whose: &Whose,
        seat: Arc<Seat>,
    ) {
        let peer = Some(addr);
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(io));
        match seat.lost.run_until_cancelled(shaken).await {
            Some(Ok(Ok(io))) => {
                let (origin, browsers) = match io.get_ref().1.peer_certificates() {
                    None => (Origin::Tcp { addr }, Browsers::Refused),
                    Some(chain) => match whose(chain) {
                        Some(shown) => (Origin::Tls { addr, shown }, Browsers::Unheard),
                        None => {
                            tracing::info!(?peer, "a client is refused: its certificate names nobody");
                            return;
                        }
                    },
                };
                self.seated(io, origin, Some((seat, browsers))).await;
            }
            Some(Ok(Err(error))) => tracing::info!(?peer, %error, "a client is refused"),
            Some(Err(_)) => tracing::info!(?peer, "a client is too slow with its TLS handshake"),
            None => tracing::info!(?peer, "a handshake is given up for a newer connection"),
        }
    }

    /// Serves one connection until it ends or the front door's token is cancelled. `Origin::Peer` is for
    /// tunnels from other nodes: such requests are answered from this host alone. Those that are relayed have a seat.
    pub async fn connection(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, origin: Origin) {
        let Origin::Relay(relayed) = &origin else { return self.seated(io, origin, None).await };
        match self.state.seats.take(Holder::Node(relayed.node)) {
            Some(seat) => self.seated(io, origin, Some((seat, Browsers::Unheard))).await,
            None => {
                tracing::warn!("a relayed connection is refused: every other one has a request under way")
            }
        }
    }

    /// As [`connection`](Self::connection), for one that has a seat, which it may lose.
    async fn seated(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        origin: Origin,
        seat: Option<(Arc<Seat>, Browsers)>,
    ) {
        let takeover = Takeover::default();
        let lost = seat.as_ref().map(|(seat, _)| seat.lost.clone()).unwrap_or_default();
        let origin = &origin;
        let service = service_fn(|request: Request<Incoming>| {
            let (seat, takeover) = (seat.clone(), takeover.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(takeover);
                let browsers = seat.as_ref().map_or(Browsers::Unheard, |(_, browsers)| *browsers);
                if let Err(refusal) = judge(request.headers(), browsers) {
                    return Ok::<_, Infallible>(refusal.into_response());
                }
                let Some((seat, _)) = seat else { return Ok(self.answer(request, origin).await) };
                let busy = seat.busy();
                request = request.map(|body| watched(body, &seat));
                request.extensions_mut().insert(seat);
                Ok(self.answer(request, origin).await.map(|body| kept(body, busy)))
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(Claimable::new(io, takeover.clone())), service)
            .with_upgrades();
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = lost.cancelled() => return tracing::debug!("a connection is given up for a newer one"),
            () = self.state.cancel.cancelled() => {
                // Requests under way get a moment; endless ones (events, logs -f) are cut.
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                match tokio::time::timeout(Duration::from_secs(1), &mut connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            return tracing::debug!(error = %error, "connection ended early");
        }
        if let Some(claimant) = takeover.claimant()
            && let Some(parts) = connection.into_parts()
        {
            // Who claimed it may have been told to stop.
            drop(
                claimant.send(Raw { io: Box::new(parts.io.into_inner().into_inner()), read: parts.read_buf }),
            );
        }
    }
}

/// Whether what a browser sends is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Browsers {
    /// None can be at the other end: a unix socket, or a client that showed a certificate.
    Unheard,
    /// An address that everybody on this host, and with a name of his that leads here any web page, can reach.
    Refused,
}

/// # Errors
/// 400 for a head whose body's length can be read in two ways; 403 for a page in somebody's browser.
fn judge(headers: &HeaderMap, browsers: Browsers) -> Result<(), ApiError> {
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Err(ApiError::bad_request("a request has a Content-Length or a Transfer-Encoding, not both"));
    }
    if browsers == Browsers::Refused
        && (headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site"))
    {
        return Err(ApiError::forbidden(
            "requests of web pages are not answered here; hint: use a client of the API, or TLS with a client \
             certificate",
        ));
    }
    Ok(())
}

enum Accepted {
    /// And who is at its other end.
    Unix(tokio::net::UnixStream, Origin),
    Tcp(TcpStream, SocketAddr),
    Tls(TcpStream, SocketAddr, TlsAcceptor, Whose),
}

async fn accept(listener: &Listener) -> io::Result<(Accepted, Holder)> {
    let (listener, acceptor) = match listener {
        Listener::Unix(listener, group) => {
            let (io, _) = listener.accept().await?;
            let peer = io.peer_cred()?;
            // A kernel that does not tell them has told the first one.
            let groups = sys::socket::peer_groups(&io).unwrap_or_default();
            let origin = group.origin(peer.uid(), peer.gid(), &groups);
            return Ok((Accepted::Unix(io, origin), Holder::Here { uid: peer.uid() }));
        }
        Listener::Tcp(listener) => (listener, None),
        Listener::Tls(listener, acceptor, whose) => (listener, Some((acceptor, whose))),
    };
    let (io, addr) = listener.accept().await?;
    io.set_nodelay(true)?;
    let accepted = match acceptor {
        Some((acceptor, whose)) => Accepted::Tls(io, addr, acceptor.clone(), Arc::clone(whose)),
        None => Accepted::Tcp(io, addr),
    };
    Ok((accepted, Holder::Address(addr.ip().to_canonical())))
}
