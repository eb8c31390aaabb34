//! The connections of a front door: bounded in number, so that clients that only hold one cost nothing but theirs.
//!
//! A connection that has no request under way (idle, half a head, a handshake that does not go on) loses its seat
//! to a newcomer when there is none left, the oldest of whoever has most first. So does one whose request has had no
//! byte of its body for [`PATIENCE`]. A request that is being answered is never cut; so that those who have many going
//! on shut nobody out, one of them has at most half of the seats, and some are left to root.

use axum::body::{Body, HttpBody};
use hyper::body::{Bytes, Frame, SizeHint};
use model::{NodeId, PlaceLimits, Places, Ticket};
use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// How long a request may send nothing of its body before its seat can be given to another.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who sits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// An account of this host, on a unix socket.
    Here {
        uid: u32,
    },
    Address(IpAddr),
    /// Those at the front door of another node.
    Node(NodeId),
}

impl Holder {
    /// Returns true for everybody but root, who mends what others do.
    fn is_guest(&self) -> bool {
        !matches!(self, Self::Here { uid: 0 })
    }
}

/// All seats of a front door; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    places: Arc<Mutex<Places<Holder, CancellationToken>>>,
    guests: PlaceLimits,
    patience: Duration,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        let count = count.max(4);
        let limits = PlaceLimits { total: count, per_holder: count };
        let guests = PlaceLimits { total: count - count.div_ceil(8), per_holder: count / 2 };
        Self { places: Arc::new(Mutex::new(Places::new(limits))), guests, patience: PATIENCE }
    }

    /// Gives a seat; `None`: each one that its holder may have has a request under way.
    pub(super) fn take(&self, holder: Holder) -> Option<Arc<Seat>> {
        let lost = CancellationToken::new();
        let (ticket, loser) = if holder.is_guest() {
            self.lock().take_as_guest(holder, lost.clone(), Holder::is_guest, self.guests)?
        } else {
            self.lock().take(holder, lost.clone())?
        };
        if let Some(loser) = loser {
            loser.cancel();
        }
        let (busy, stalled) = Default::default();
        Some(Arc::new(Seat { seats: self.clone(), ticket, lost, busy, stalled }))
    }

    /// Gives up the connection that would be the next to go: descriptors have run out.
    pub(super) fn make_room(&self) {
        if let Some(loser) = self.lock().make_room() {
            loser.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Places<Holder, CancellationToken>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seat of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    ticket: Ticket,
    /// Cancelled when somebody else has got the seat.
    pub(super) lost: CancellationToken,
    /// Requests, and what became of hijacked ones.
    busy: AtomicUsize,
    stalled: AtomicBool,
}

impl Seat {
    /// Keeps the seat until the result is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.tell();
        Busy(Arc::clone(self))
    }

    fn stalled(&self, stalled: bool) {
        if self.stalled.swap(stalled, Ordering::SeqCst) != stalled {
            self.tell();
        }
    }

    fn tell(&self) {
        let mut seats = self.seats.lock();
        let kept = self.busy.load(Ordering::SeqCst) > 0 && !self.stalled.load(Ordering::SeqCst);
        seats.keep(self.ticket, kept);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().leave(self.ticket);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
        self.0.tell();
    }
}

/// Returns the body of an answer, which keeps the seat until it has been sent.
pub(super) fn kept(body: Body, busy: Busy) -> Body {
    Body::new(Sat { body, seat: Arc::clone(&busy.0), busy: Some(busy), waiting: None })
}

/// Returns the body of a request, which may lose its seat while nothing of it comes.
pub(super) fn watched(body: Body, seat: &Arc<Seat>) -> Body {
    Body::new(Sat { body, seat: Arc::clone(seat), busy: None, waiting: None })
}

struct Sat {
    body: Body,
    seat: Arc<Seat>,
    /// Of an answer.
    busy: Option<Busy>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Sat {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.busy.is_some() {
            return frame; // an answer may take its time: events, logs that are followed
        }
        if frame.is_ready() {
            self.waiting = None;
            self.seat.stalled(false);
            return frame;
        }
        let patience = self.seat.seats.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        if waiting.as_mut().poll(cx).is_ready() {
            self.seat.stalled(true);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sat {
    fn drop(&mut self) {
        if self.busy.is_none() {
            self.seat.stalled(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Holder = Holder::Here { uid: 0 };

    /// Streams that go on for ever, as `/events` does, are all that it takes to hold a seat.
    #[test]
    fn who_holds_all_that_he_can_shuts_out_neither_root_nor_others() {
        let seats = Seats::new(16);
        let sit = |holder: Holder| seats.take(holder).map(|seat| (seat.busy(), seat));
        let address = |n: u8| Holder::Address([192, 0, 2, n].into());
        let first: Vec<_> = (0..20).filter_map(|_| sit(address(1))).collect();
        assert_eq!(first.len(), 8, "half of them");
        let others: Vec<_> = (2..20).filter_map(|n| sit(address(n))).collect();
        let account = sit(Holder::Here { uid: 1000 });
        let node = sit(Holder::Node(NodeId(1)));
        assert_eq!(
            (others.len(), account.is_some(), node.is_some()),
            (6, false, false),
            "what is not root's"
        );
        let root: Vec<_> = (0..3).filter_map(|_| sit(ROOT)).collect();
        assert_eq!(root.len(), 2, "root has what is left");
        drop(first);
        assert!(sit(Holder::Here { uid: 1000 }).is_some() && sit(ROOT).is_some());
    }

    async fn loop_until_taken(seats: &Seats) -> Arc<Seat> {
        let taken = async {
            loop {
                if let Some(seat) = seats.take(ROOT) {
                    return seat;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), taken).await.expect("a seat")
    }

    #[tokio::test]
    async fn a_request_keeps_its_seat_until_its_body_stalls() {
        let seats = Seats { patience: Duration::from_millis(20), ..Seats::new(4) };
        let (first, second) = (seats.take(ROOT).unwrap(), seats.take(ROOT).unwrap());
        let (busy, also_busy) = (first.busy(), second.busy());
        let others = [seats.take(ROOT).unwrap(), seats.take(ROOT).unwrap()];
        let _others_busy = others.each_ref().map(Seat::busy);
        assert!(seats.take(ROOT).is_none());

        let pending = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut body = watched(pending, &first);
        // Nothing is done for the body but to wait for it.
        let (mut tries, third) = (0, loop_until_taken(&seats));
        let frame = std::future::poll_fn(|cx| {
            tries += 1;
            Pin::new(&mut body).poll_frame(cx)
        });
        let third = tokio::select! {
            _ = frame => unreachable!("it never comes"),
            third = third => third,
        };
        assert!(tries >= 2, "its patience is what woke it");
        assert!(first.lost.is_cancelled() && !second.lost.is_cancelled());

        drop((busy, also_busy));
        let _fourth = seats.take(ROOT).unwrap();
        assert!(second.lost.is_cancelled() && !third.lost.is_cancelled(), "the oldest idle one");
    }
}
