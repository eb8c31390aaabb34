//! Answers that come over time: JSON lines, hijacked connections, and the frames of output without a TTY.
//!
//! ```text
//!  frame:  stream (0 stdin, 1 stdout, 2 stderr) | 0 0 0 | length, u32 big endian | bytes
//! ```
//! *Source:* Docker API "ContainerAttach", stream format.

use super::{Answer, Error};
use crate::types::{Wire, parse};
use bytes::{Buf as _, Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, header::CONTENT_TYPE, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use std::{marker::PhantomData, pin::Pin};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A line longer than this is not from a daemon. *Unit:* bytes.
const LINE_MAX: usize = 16 << 20;

/// JSON values, one per line.
#[derive(Debug)]
pub struct JsonLines<T> {
    body: Answer,
    buffer: BytesMut,
    ended: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Wire> JsonLines<T> {
    pub(super) fn new(body: Answer) -> Self {
        Self { body, buffer: BytesMut::new(), ended: false, of: PhantomData }
    }

    /// Returns the next value, `None` at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return Some(parse(&line).map_err(Error::from));
                }
                continue;
            }
            if self.ended || self.buffer.len() > LINE_MAX {
                let rest = std::mem::take(&mut self.buffer);
                self.ended = true;
                let empty = rest.iter().all(u8::is_ascii_whitespace);
                return (!empty).then(|| parse(&rest).map_err(Error::from));
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error.into()));
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.buffer.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }

    /// Returns the same as a `Stream`.
    pub fn into_stream(self) -> Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>
    where
        T: Send + 'static,
    {
        Box::pin(futures::stream::unfold(self, |mut lines| async move {
            lines.next().await.map(|value| (value, lines))
        }))
    }
}

/// How output travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it is: a TTY.
    Raw,
    /// In frames.
    Multiplexed,
}

impl Kind {
    /// Reads the content type; frames unless it says raw.
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) {
            Some("application/vnd.docker.raw-stream") => Self::Raw,
            _ => Self::Multiplexed,
        }
    }
}

/// A connection that is a byte stream now. Shutting down its write half ends the container's stdin.
#[derive(Debug)]
pub struct Hijacked {
    pub io: TokioIo<Upgraded>,
    /// Of API 1.42 and newer; an exec without a TTY says `Multiplexed` too.
    pub kind: Kind,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Stdout(Bytes),
    Stderr(Bytes),
    /// An error the daemon found after the stream began (stream 3).
    SystemError(Bytes),
}

/// A stream that is cut or not in Docker's frames.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("cannot read the output stream")]
    Io(#[from] std::io::Error),
    #[error("unrecognized stream in output: {0}")]
    UnknownStream(u8),
    #[error("an output frame of {0} bytes is too large")]
    TooLarge(usize),
}

/// Takes frames apart.
#[derive(Debug)]
pub struct Demux<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Demux<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::with_capacity(32 << 10) }
    }

    /// Returns the next frame, `None` at the end (a cut frame counts as the end, as in Docker).
    ///
    /// # Errors
    /// When reading fails or the bytes are no frames.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<8>().copied() {
                let [stream, _, _, _, length @ ..] = header;
                let length = u32::from_be_bytes(length) as usize;
                if stream > 3 {
                    return Err(StreamError::UnknownStream(stream));
                }
                if length > LINE_MAX {
                    return Err(StreamError::TooLarge(length));
                }
                if self.buffer.len() >= 8 + length {
                    self.buffer.advance(8);
                    let bytes = self.buffer.split_to(length).freeze();
                    return Ok(Some(match stream {
                        2 => Frame::Stderr(bytes),
                        3 => Frame::SystemError(bytes),
                        _ => Frame::Stdout(bytes),
                    }));
                }
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_taken_apart_wherever_they_are_cut() {
        let wire = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!\x01\0\0\0\0\0\0\0".to_vec();
        for cut in 0..wire.len() {
            let (head, tail) = wire.split_at(cut);
            let mut demux = Demux::new(tokio::io::AsyncReadExt::chain(head, tail));
            let mut got = Vec::new();
            while let Some(frame) = demux.next().await.unwrap() {
                got.push(frame);
            }
            let want = [
                Frame::Stdout(Bytes::from_static(b"hi")),
                Frame::Stderr(Bytes::from_static(b"!")),
                Frame::Stdout(Bytes::new()),
            ];
            assert_eq!(got, want, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        let mut demux = Demux::new(&b"hello world"[..]);
        assert!(matches!(demux.next().await, Err(StreamError::UnknownStream(b'h'))));
    }
}
