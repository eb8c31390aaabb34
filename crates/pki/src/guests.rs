//! The TLS connections that are open, by who is at the other end: whoever must go takes its connections with it, and
//! with them every call and stream that they carry.

use crate::Identity;
use std::{
    collections::BTreeMap,
    future::Future as _,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Knows the open connections, accepted and dialled. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Guests(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_number: BTreeMap<u64, (Identity, CancellationToken)>,
}

impl Guests {
    /// Closes the connections of those for whom `may_stay` is false; returns how many.
    pub fn keep(&self, mut may_stay: impl FnMut(&Identity) -> bool) -> usize {
        let open = self.lock();
        let leaving = open.by_number.values().filter(|(identity, _)| !may_stay(identity));
        leaving.map(|(_, close)| close.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, identity: Identity) -> Stay {
        let mut open = self.lock();
        open.last += 1;
        let (number, close) = (open.last, CancellationToken::new());
        open.by_number.insert(number, (identity, close.clone()));
        Stay { guests: self.clone(), number, closed: Box::pin(close.cancelled_owned()) }
    }
}

/// A connection's entry, for as long as it is open.
struct Stay {
    guests: Guests,
    number: u64,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.guests.lock().by_number.remove(&self.number);
    }
}

/// A connection that ends when its peer must go.
pub struct Guarded<S> {
    io: S,
    /// `None`: nobody can close it (no certificate was shown, or nobody keeps guests).
    stay: Option<Stay>,
}

impl<S> std::fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("known", &self.stay.is_some()).finish_non_exhaustive()
    }
}

impl<S> Guarded<S> {
    pub(crate) fn new(io: S, guests: Option<&Guests>, identity: Option<Identity>) -> Self {
        Self { io, stay: guests.zip(identity).map(|(guests, identity)| guests.enter(identity)) }
    }

    /// Makes it known to `guests`, unless it is already known or nobody knows who is at its other end.
    pub(crate) fn known_to(self, guests: Option<&Guests>, identity: Option<Identity>) -> Self {
        if self.stay.is_some() { self } else { Self::new(self.io, guests, identity) }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let closed = self.stay.as_mut().is_some_and(|stay| stay.closed.as_mut().poll(cx).is_ready());
        if !closed {
            return Ok(());
        }
        let reason = "the peer is no longer what it was in this swarm";
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
