//! What is left of a request's body when its answer is ready. Clients send all of it before they read: who is refused
//! in the middle of a large build context, and finds the connection closed, is told of a broken pipe and not of the
//! reason. So the rest is read and thrown away while the refusal is on its way.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures::StreamExt as _;
use hyper::body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// How long the rest of a refused body may take.
const LIMIT: Duration = Duration::from_secs(60);
/// *Limit* of it. *Unit:* bytes.
const REST_MAX: usize = 4 << 30;

/// A body that comes back if nobody has read all of it.
struct Lent {
    body: Option<Body>,
    back: Option<oneshot::Sender<Body>>,
}

/// Waits for a body that was lent.
pub(super) struct Rest(oneshot::Receiver<Body>);

/// Lends a body; `None`: there is nothing in it.
pub(super) fn lend(body: Body) -> (Body, Option<Rest>) {
    if body.is_end_stream() {
        return (body, None);
    }
    let (back, rest) = oneshot::channel();
    (Body::new(Lent { body: Some(body), back: Some(back) }), Some(Rest(rest)))
}

impl Rest {
    /// Reads what is left, within bounds.
    pub(super) async fn read(self) {
        let read = async {
            let Ok(body) = self.0.await else { return };
            let (mut stream, mut seen) = (body.into_data_stream(), 0);
            while let Some(Ok(bytes)) = stream.next().await {
                seen += bytes.len();
                if seen > REST_MAX {
                    return;
                }
            }
        };
        if timeout(LIMIT, read).await.is_err() {
            tracing::debug!("the rest of a refused request did not come in time");
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            drop(back.send(body)); // an error only says that nobody waits for it
        }
    }
}
