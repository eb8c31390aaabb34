//! Connections that stop being HTTP: attach and exec.
//!
//! Source: Docker API `ContainerAttach`, "Stream format": after `101 UPGRADED` (or a plain 200 for clients that do
//! not ask to upgrade) both sides speak raw bytes, framed unless there is a terminal.

use super::{
    ApiError, State,
    containers::{MULTIPLEXED, RAW, frame},
    seats::Seat,
};
use axum::{
    body::Body,
    extract::{
        Request,
        ws::{Message, WebSocket},
    },
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE, UPGRADE},
    },
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use engine::Streams;
use futures::{SinkExt as _, StreamExt as _, future::BoxFuture};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
};

/// How long the end of a process may lag behind the end of its output.
const EXIT_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to read the head of the answer before it is sent more.
const HEAD_READ_LIMIT: Duration = Duration::from_millis(500);
/// *Unit:* bytes of one frame.
const FRAME_MAX: usize = 32 << 10;

/// What the connection is joined with: streams, and what goes out before theirs.
pub(super) type Opened = (Streams, Vec<Bytes>);

/// Answers the request, and joins the connection with what `open` gives; that runs after the answer has been sent:
/// docker-py throws away what comes together with it. The connection is closed only once the output and `ended` are
/// over.
///
/// # Errors
/// 400 when the connection cannot be taken over.
pub(super) fn hijack(
    state: &State,
    mut request: Request,
    tty: bool,
    open: impl Future<Output = Opened> + Send + 'static,
    ended: BoxFuture<'static, ()>,
) -> Result<Response, ApiError> {
    let upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or_else(|| ApiError::bad_request("this connection cannot be hijacked"))?;
    let seat = request.extensions().get::<Arc<Seat>>().map(Seat::busy);
    state.spawn(async move {
        let _kept = seat;
        match upgrade.await {
            Ok(connection) => {
                let joined = match connection.downcast::<TokioIo<UnixStream>>() {
                    Ok(Parts { io, read_buf, .. }) => {
                        let (from, to) = io.into_inner().into_split();
                        has_read(to.as_ref()).await;
                        let from = std::io::Cursor::new(read_buf).chain(from);
                        join(from, to, open.await, tty, ended).await
                    }
                    Err(connection) => {
                        let (from, to) = tokio::io::split(TokioIo::new(connection));
                        join(from, to, open.await, tty, ended).await
                    }
                };
                if let Err(error) = joined {
                    tracing::debug!(%error, "an attached client has gone");
                }
            }
            Err(error) => tracing::debug!(%error, "a client went before its connection was taken over"),
        }
    });
    let kind = if tty { RAW } else { MULTIPLEXED };
    let mut answer = StatusCode::SWITCHING_PROTOCOLS.into_response();
    *answer.body_mut() = Body::empty();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    Ok(answer)
}

/// Waits until a client has read what was sent so far, but not for one that reads nothing.
async fn has_read(client: &UnixStream) {
    let limit = tokio::time::Instant::now() + HEAD_READ_LIMIT;
    while sys::socket::unread(client).is_ok_and(|unread| unread > 0) && tokio::time::Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Copies until the output has ended. The client closing its side ends stdin, not the output.
async fn join(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (streams, before): Opened,
    tty: bool,
    ended: BoxFuture<'static, ()>,
) -> std::io::Result<()> {
    let Streams { stdin, stdout, stderr } = streams;
    let input = async {
        if let Some(mut stdin) = stdin {
            // A container that reads no more is no reason to cut its output off.
            drop(tokio::io::copy(&mut from, &mut stdin).await);
            drop(stdin.shutdown().await);
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        for bytes in before {
            to.write_all(&bytes).await?;
        }
        let (mut out, mut err) = (Source::new(stdout), Source::new(stderr));
        while out.open() || err.open() {
            let (stream, bytes) = tokio::select! {
                read = out.next(), if out.open() => (1, read?),
                read = err.next(), if err.open() => (2, read?),
            };
            if bytes.is_empty() {
                continue;
            }
            let bytes = if tty { bytes } else { frame(stream, &bytes) };
            to.write_all(&bytes).await?;
            to.flush().await?;
        }
        // Clients ask for the exit code as soon as the stream ends: it must be known by then.
        drop(tokio::time::timeout(EXIT_LIMIT, ended).await);
        to.shutdown().await
    };
    tokio::select! {
        done = output => done,
        () = input => Ok(()),
    }
}

/// Copies between a container and a WebSocket until the output has ended or the client has gone.
pub(super) async fn join_websocket(socket: WebSocket, (streams, before): Opened) -> Result<(), axum::Error> {
    let Streams { stdin, stdout, stderr } = streams;
    let (mut to, mut from) = socket.split();
    let input = async {
        let mut stdin = stdin;
        while let Some(Ok(message)) = from.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if let Some(writer) = &mut stdin
                && writer.write_all(&bytes).await.is_err()
            {
                stdin = None; // it reads no more, but may still have something to say
            }
        }
    };
    let output = async {
        for bytes in before {
            to.send(Message::Binary(bytes)).await?;
        }
        let (mut out, mut err) = (Source::new(stdout), Source::new(stderr));
        while out.open() || err.open() {
            let bytes = tokio::select! {
                read = out.next(), if out.open() => read,
                read = err.next(), if err.open() => read,
            };
            let bytes = bytes.map_err(axum::Error::new)?;
            if !bytes.is_empty() {
                to.send(Message::Binary(bytes)).await?;
            }
        }
        Ok(())
    };
    tokio::select! {
        done = output => done?,
        () = input => return Ok(()),
    }
    to.send(Message::Close(None)).await?;
    // The client's own goodbye.
    let goodbye = async { while let Some(Ok(_)) = from.next().await {} };
    drop(tokio::time::timeout(HEAD_READ_LIMIT, goodbye).await);
    Ok(())
}

/// One output stream of the container; closed once it has ended.
struct Source {
    reader: Option<UnixStream>,
    buffer: Vec<u8>,
}

impl Source {
    fn new(reader: Option<UnixStream>) -> Self {
        Self { reader, buffer: vec![0; FRAME_MAX] }
    }

    fn open(&self) -> bool {
        self.reader.is_some()
    }

    /// Returns the next bytes; none at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn next(&mut self) -> std::io::Result<Bytes> {
        let Some(reader) = &mut self.reader else { return Ok(Bytes::new()) };
        let read = reader.read(&mut self.buffer).await?;
        if read == 0 {
            self.reader = None;
        }
        Ok(Bytes::copy_from_slice(&self.buffer[..read]))
    }
}
