//! A client whose requests reach no daemon by themselves: something in this process answers in its place.

use super::{
    Client,
    dial::{Connection, Held},
};
use axum::body::Body;
use futures::future::BoxFuture;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, fmt, sync::Arc};
use tokio::task::JoinSet;

/// *Unit:* bytes on their way.
const PIPE: usize = 64 << 10;

type Answer = dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// See [`Client::answered_by`].
#[derive(Clone)]
pub(super) struct StandIn(Arc<Answer>);

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StandIn(..)")
    }
}

impl StandIn {
    /// Returns one end of a connection, whose other end is answered as long as this one is held.
    pub(super) fn connect(&self) -> Box<dyn Connection> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let answer = Arc::clone(&self.0);
        let mut answering = JoinSet::new();
        answering.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answered = answer(request.map(Body::new));
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            if let Err(error) = server.serve_connection(TokioIo::new(theirs), service).with_upgrades().await {
                tracing::debug!(error = %error, "a connection within this process ended early");
            }
        });
        Box::new(Held { io: ours, _by: answering })
    }
}

impl Client {
    /// Has every request of this client answered by `answer`, in its daemon's place.
    #[must_use]
    pub fn answered_by(
        self,
        answer: impl Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        Self { stand_in: Some(StandIn(Arc::new(answer))), ..self }
    }
}
