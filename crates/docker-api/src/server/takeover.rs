//! Taking a connection over from HTTP, which a client may ask for in two ways.
//!
//! ```text
//!  Connection: Upgrade, Upgrade: tcp    101, hyper's own upgrade
//!  neither                              200, no length: all that follows is the stream, until it is closed
//! ```
//!
//! The second is how Docker answered before there was the first, and how dockerode, curl and scripts ask today; hyper
//! has no upgrade for it. So each connection of the front door carries a [`Takeover`]: who claims it answers with a
//! head alone, at which hyper is done with the connection; it is then not closed, but given to who claimed it, with
//! the bytes that were read beyond the request.
//!
//! Source: moby `api/server/router/container/container_routes.go`, `postContainersAttach`; `exec.go`,
//! `postContainerExecStart`.

use super::{ApiError, BoxedIo};
use axum::{
    body::Body,
    http::{
        Extensions, HeaderMap, HeaderValue, StatusCode, Version,
        header::{CONNECTION, UPGRADE},
    },
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// A connection as it was accepted, and what had been read of it.
pub(super) struct Raw {
    pub(super) io: BoxedIo,
    pub(super) read: Bytes,
}

/// Whether a connection goes on as something else after the answer that is being given. A clone is the same.
#[derive(Clone, Default)]
pub(super) struct Takeover(Arc<Claims>);

#[derive(Default)]
struct Claims {
    claimed: AtomicBool,
    claimant: Mutex<Option<oneshot::Sender<Raw>>>,
}

impl std::fmt::Debug for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Takeover").field("claimed", &self.is_claimed()).finish()
    }
}

impl Takeover {
    fn is_claimed(&self) -> bool {
        self.0.claimed.load(Ordering::Acquire)
    }

    fn claim(&self) -> oneshot::Receiver<Raw> {
        let (give, get) = oneshot::channel();
        *self.0.claimant.lock().unwrap_or_else(PoisonError::into_inner) = Some(give);
        self.0.claimed.store(true, Ordering::Release);
        get
    }

    /// Returns who gets the connection, once HTTP is over.
    pub(super) fn claimant(&self) -> Option<oneshot::Sender<Raw>> {
        self.0.claimant.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A connection that is not shut down when HTTP is over, if somebody has claimed it.
pub(super) struct Claimable<I> {
    io: I,
    takeover: Takeover,
}

impl<I> Claimable<I> {
    pub(super) fn new(io: I, takeover: Takeover) -> Self {
        Self { io, takeover }
    }

    pub(super) fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Claimable<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Claimable<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.takeover.is_claimed() {
            return Pin::new(&mut self.io).poll_flush(cx);
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connection that will be this side's once the answer has gone out.
pub(super) enum Taken {
    /// The client asked for the upgrade.
    Upgrade(OnUpgrade),
    /// It did not: it gets a 200.
    Plain(oneshot::Receiver<Raw>),
}

impl Taken {
    /// Takes the connection of the request over that has these extensions. Of one without upgrade the
    /// body must have been read by then: what follows it is the stream.
    ///
    /// # Errors
    /// 400 when it cannot be taken over: it came neither by HTTP/1.1 nor from a listener.
    pub(super) fn of(extensions: &mut Extensions) -> Result<Self, ApiError> {
        if let Some(upgrade) = extensions.remove::<OnUpgrade>() {
            return Ok(Self::Upgrade(upgrade));
        }
        let takeover = extensions.remove::<Takeover>();
        takeover
            .map(|takeover| Self::Plain(takeover.claim()))
            .ok_or_else(|| ApiError::bad_request("this connection cannot be hijacked"))
    }

    /// Returns the head to answer with.
    pub(super) fn answer(&self) -> Response {
        match self {
            Self::Upgrade(_) => {
                let mut answer = StatusCode::SWITCHING_PROTOCOLS.into_response();
                *answer.body_mut() = Body::empty();
                ask_for_upgrade(answer.headers_mut());
                answer
            }
            Self::Plain(_) => {
                // As HTTP/1.0, as 1.1 would put the body into chunks.
                let nothing = futures::stream::empty::<io::Result<Bytes>>();
                let mut answer = Body::from_stream(nothing).into_response();
                *answer.version_mut() = Version::HTTP_10;
                answer
            }
        }
    }

    /// Waits until the answer has gone out.
    ///
    /// # Errors
    /// The client went before.
    pub(super) async fn connection(self) -> Result<Connection, Gone> {
        match self {
            Self::Upgrade(upgrade) => {
                upgrade.await.map(Connection::Upgraded).map_err(|e| Gone(e.to_string()))
            }
            Self::Plain(connection) => {
                let raw = connection.await.map_err(|_| Gone("the connection was closed".into()))?;
                Ok(Connection::Raw(raw))
            }
        }
    }
}

/// Puts on what says that the connection goes on as raw bytes.
pub(super) fn ask_for_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
}

/// Why a connection was not handed over.
#[derive(Debug, thiserror::Error)]
#[error("a client went before its connection was taken over: {0}")]
pub(super) struct Gone(String);

/// What has been taken over.
pub(super) enum Connection {
    Upgraded(hyper::upgrade::Upgraded),
    Raw(Raw),
}

impl Connection {
    /// Returns both directions.
    pub(super) fn into_io(self) -> BoxedIo {
        match self {
            Self::Upgraded(io) => Box::new(TokioIo::new(io)),
            Self::Raw(Raw { io, read }) => {
                let (from, to) = tokio::io::split(io);
                Box::new(tokio::io::join(io::Cursor::new(read).chain(from), to))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{server::conn::http1, service::service_fn};
    use std::convert::Infallible;
    use tokio::{
        io::{AsyncWriteExt as _, DuplexStream},
        task::JoinSet,
    };
    use tokio_util::task::TaskTracker;

    /// Serves one connection whose requests to `/echo` are taken over: what comes is sent back, in capitals.
    async fn serve(io: DuplexStream) {
        let (takeover, streams) = (Takeover::default(), TaskTracker::new());
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let (takeover, streams) = (takeover.clone(), streams.clone());
            async move {
                if request.uri() != "/echo" {
                    return Ok::<_, Infallible>("plain".into_response());
                }
                let (mut parts, body) = request.into_parts();
                axum::body::to_bytes(Body::new(body), 1 << 10).await.expect("a short body");
                parts.extensions.insert(takeover);
                let taken = Taken::of(&mut parts.extensions).expect("it comes from here");
                let answer = taken.answer();
                streams.spawn(async move {
                    let mut io = taken.connection().await.expect("the client waits").into_io();
                    let mut bytes = [0; 64];
                    loop {
                        let read = io.read(&mut bytes).await.expect("a read");
                        if read == 0 {
                            return;
                        }
                        io.write_all(&bytes[..read].to_ascii_uppercase()).await.expect("a write");
                    }
                });
                Ok(answer)
            }
        });
        let mut connection = http1::Builder::new()
            .serve_connection(TokioIo::new(Claimable::new(io, takeover.clone())), service)
            .with_upgrades();
        (&mut connection).await.expect("no error");
        if let Some(claimant) = takeover.claimant() {
            let parts = connection.into_parts().expect("hyper has not given it away");
            let io = Box::new(parts.io.into_inner().into_inner());
            drop(claimant.send(Raw { io, read: parts.read_buf }));
        }
        streams.close();
        streams.wait().await;
    }

    /// Sends a request with bytes behind it, then more once the answer's head is there, and returns head and stream.
    async fn ask(request: &str, more: &str) -> (String, String) {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let mut served = JoinSet::new();
        served.spawn(serve(theirs));
        ours.write_all(request.as_bytes()).await.expect("a write");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(ours.read_u8().await.expect("a whole head"));
        }
        ours.write_all(more.as_bytes()).await.expect("a write");
        ours.shutdown().await.expect("an end");
        let mut stream = String::new();
        ours.read_to_string(&mut stream).await.expect("text");
        served.join_next().await.expect("it was begun").expect("no panic");
        (String::from_utf8(head).expect("text"), stream)
    }

    #[tokio::test]
    async fn without_upgrade_the_connection_is_the_stream_after_a_plain_200() {
        let (head, stream) = ask("POST /echo HTTP/1.1\r\nHost: d\r\n\r\n", "later").await;
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        assert_eq!(stream, "LATER");
    }

    #[tokio::test]
    async fn what_follows_a_request_at_once_is_in_the_stream_and_its_body_is_not() {
        let request = "POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\nbodyat once ";
        let (_, stream) = ask(request, "later").await;
        assert_eq!(stream, "AT ONCE LATER");
    }

    #[tokio::test]
    async fn with_upgrade_it_is_101() {
        let request = "POST /echo HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        let (head, stream) = ask(request, "later").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(stream, "LATER");
    }

    #[tokio::test]
    async fn an_earlier_request_of_the_connection_is_answered_as_ever() {
        let request = "GET / HTTP/1.1\r\nHost: d\r\n\r\nPOST /echo HTTP/1.1\r\nHost: d\r\n\r\n";
        let (head, stream) = ask(request, "x").await;
        assert!(head.contains("200") && stream.contains("plain"), "{head}{stream}");
        assert!(stream.ends_with("\r\n\r\nX"), "{stream}");
    }
}
