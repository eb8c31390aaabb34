//! The body of a daemon's answer, which holds the connection that it comes over.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::task::JoinSet;

/// What a daemon answers, as it comes; when this is dropped, the connection is closed.
#[derive(Debug)]
pub struct Answer {
    body: Incoming,
    /// Who moves the connection's bytes.
    #[expect(dead_code, reason = "held for its drop")]
    driver: JoinSet<()>,
}

impl Answer {
    pub(super) fn new(body: Incoming, driver: JoinSet<()>) -> Self {
        Self { body, driver }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use crate::client::Client;
    use axum::body::Body;
    use bytes::Bytes;
    use hyper::{HeaderMap, Method, Response};
    use std::{convert::Infallible, time::Duration};
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn who_is_behind_an_answer_ends_when_it_is_dropped() {
        let (alive, mut ended) = mpsc::channel::<()>(1);
        let client = Client::new("unix:///nowhere").unwrap().answered_by(move |_| {
            let alive = alive.clone();
            let endless = futures::stream::once(async move {
                let _alive = alive;
                std::future::pending::<Result<Bytes, Infallible>>().await
            });
            Box::pin(async { Response::new(Body::from_stream(endless)) })
        });
        let answer =
            client.request(Method::GET, "/events", &[], HeaderMap::new(), Body::empty()).await.unwrap();
        assert!(ended.try_recv() == Err(mpsc::error::TryRecvError::Empty), "it is being answered");
        drop((answer, client));
        let end = tokio::time::timeout(Duration::from_secs(30), ended.recv()).await;
        assert_eq!(end.expect("an end in time"), None);
    }
}
