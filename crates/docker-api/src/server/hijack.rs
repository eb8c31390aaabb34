//! Connections that stop being HTTP: attach and exec.
//!
//! Source: Docker API `ContainerAttach`, "Stream format": after `101 UPGRADED` (or a plain 200 for clients that do
//! not ask to upgrade) both sides speak raw bytes, framed unless there is a terminal.

use super::{
    ApiError, State,
    containers::{MULTIPLEXED, RAW, frame},
    seats::Seat,
    takeover::{Claimable, Connection, Taken},
};
use crate::detach_keys::DetachKeys;
use axum::{
    extract::{
        Request,
        ws::{Message, WebSocket},
    },
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use engine::Streams;
use futures::{SinkExt as _, StreamExt as _, future::BoxFuture};
use hyper::upgrade::Parts;
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

/// At which keys a client leaves, and who is told; `None` = at none.
pub(super) type Leaving = Option<(DetachKeys, Box<dyn FnOnce() + Send>)>;

/// How a client and a process are joined.
pub(super) struct Session {
    /// Each piece says which stream it is of; else all are one.
    pub(super) framed: bool,
    pub(super) leaving: Leaving,
    /// Is over when the process is. Without output it is what ends the session, else it is waited for shortly.
    pub(super) ended: BoxFuture<'static, ()>,
}

/// Answers the request, and joins the connection with what `open` gives; that runs after the answer has been sent:
/// docker-py throws away what comes together with it. The connection is closed only once the output and the process
/// are over, or the client has detached.
///
/// # Errors
/// 400 when the connection cannot be taken over.
pub(super) fn hijack(
    state: &State,
    mut request: Request,
    session: Session,
    open: impl Future<Output = Opened> + Send + 'static,
) -> Result<Response, ApiError> {
    let taken = Taken::of(request.extensions_mut())?;
    let mut answer = taken.answer();
    let kind = if session.framed && matches!(taken, Taken::Upgrade(_)) { MULTIPLEXED } else { RAW };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let seat = request.extensions().get::<Arc<Seat>>().map(Seat::busy);
    state.spawn(async move {
        let _kept = seat;
        let joined = match taken.connection().await {
            Ok(Connection::Upgraded(upgraded)) => {
                match upgraded.downcast::<TokioIo<Claimable<UnixStream>>>() {
                    Ok(Parts { io, read_buf, .. }) => {
                        let (from, to) = io.into_inner().into_inner().into_split();
                        has_read(to.as_ref()).await;
                        let from = std::io::Cursor::new(read_buf).chain(from);
                        join(from, to, open.await, session).await
                    }
                    Err(upgraded) => {
                        let (from, to) = tokio::io::split(TokioIo::new(upgraded));
                        join(from, to, open.await, session).await
                    }
                }
            }
            Ok(raw) => {
                let (from, to) = tokio::io::split(raw.into_io());
                join(from, to, open.await, session).await
            }
            Err(gone) => return tracing::debug!(error = %gone, "nobody is attached"),
        };
        if let Err(error) = joined {
            tracing::debug!(%error, "an attached client has gone");
        }
    });
    Ok(answer)
}

/// Waits until a client has read what was sent so far, but not for one that reads nothing.
async fn has_read(client: &UnixStream) {
    let limit = tokio::time::Instant::now() + HEAD_READ_LIMIT;
    while sys::socket::unread(client).is_ok_and(|unread| unread > 0) && tokio::time::Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Copies until the output has ended or the client has detached. The client closing its side ends stdin, not the
/// output.
async fn join(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (streams, before): Opened,
    Session { framed, leaving, ended }: Session,
) -> std::io::Result<()> {
    let silent = only_types(&streams);
    let Streams { stdin, stdout, stderr } = streams;
    let (mut keys, detached) = leaving.unzip();
    let input = async {
        if let Some(mut stdin) = stdin {
            // A container that reads no more is no reason to cut its output off.
            match &mut keys {
                None => drop(tokio::io::copy(&mut from, &mut stdin).await),
                Some(keys) => {
                    if copy_typed(&mut from, &mut stdin, keys)
                        .await
                        .is_ok_and(|typed| typed == Typed::Detached)
                    {
                        return true;
                    }
                }
            }
            drop(stdin.shutdown().await);
            if silent {
                return false;
            }
        }
        std::future::pending().await
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
            let bytes = if framed { frame(stream, &bytes) } else { bytes };
            to.write_all(&bytes).await?;
            to.flush().await?;
        }
        if silent {
            ended.await;
        } else {
            // Clients ask for the exit code as soon as the stream ends: it must be known by then.
            drop(tokio::time::timeout(EXIT_LIMIT, ended).await);
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        done = output => done?,
        has_detached = input => {
            if let Some(told) = detached.filter(|_| has_detached) {
                told();
            }
        }
    }
    to.shutdown().await
}

/// Returns true for a client that hears nothing of the end of what it types for.
pub(super) fn only_types(streams: &Streams) -> bool {
    streams.stdin.is_some() && streams.stdout.is_none() && streams.stderr.is_none()
}

/// How the typing ended.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    /// The client closed its side.
    All,
    Detached,
}

/// Copies what is typed, up to the keys that detach.
async fn copy_typed(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    keys: &mut DetachKeys,
) -> std::io::Result<Typed> {
    let mut buffer = vec![0; FRAME_MAX];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            to.write_all(keys.rest()).await?;
            return Ok(Typed::All);
        }
        let (passed, detached) = keys.pass(&buffer[..read]);
        to.write_all(&passed).await?;
        if detached {
            return Ok(Typed::Detached);
        }
    }
}

/// Copies between a container and a WebSocket until the output has ended, or the client has gone or detached.
pub(super) async fn join_websocket(
    socket: WebSocket,
    (streams, before): Opened,
    leaving: Leaving,
) -> Result<(), axum::Error> {
    let Streams { stdin, stdout, stderr } = streams;
    let (mut to, mut from) = socket.split();
    let (mut keys, told) = leaving.unzip();
    let input = async {
        let mut stdin = stdin;
        while let Some(Ok(message)) = from.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            let (bytes, detached) = match &mut keys {
                Some(keys) => keys.pass(&bytes),
                None => (bytes.into(), false),
            };
            if let Some(writer) = &mut stdin
                && writer.write_all(&bytes).await.is_err()
            {
                stdin = None; // it reads no more, but may still have something to say
            }
            if detached {
                return true;
            }
        }
        false
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
        detached = input => {
            if !detached {
                return Ok(());
            }
            if let Some(told) = told {
                told();
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_only_types_stays_and_who_only_reads_what_was_said_does_not() {
        let one = || Some(UnixStream::pair().expect("a pair").0);
        assert!(only_types(&Streams { stdin: one(), stdout: None, stderr: None }));
        assert!(!only_types(&Streams { stdin: one(), stdout: one(), stderr: None }));
        assert!(!only_types(&Streams { stdin: None, stdout: None, stderr: None }), "attach with logs alone");
    }
}
