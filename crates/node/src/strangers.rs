//! Those who reach the port of nodes without a certificate: all they may do is ask for one, in few and small words.
//!
//! Stands before every service, so that nothing of a stranger's message is read that no service would answer. What
//! those with a certificate may do is judged by the services; but Raft's messages are read from managers only, and
//! what a worker begins to say is bounded.

use crate::beginnings::Beginnings;
use http_body_util::{BodyExt as _, Full, Limited};
use model::Role;
use proto::raft::raft_server;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{Request, Response},
    },
};

/// *Limit* of a stranger's message: a certificate request and a token. *Unit:* bytes.
const MESSAGE_MAX: usize = 64 << 10;
/// *Limit* of questions at once on one connection of a stranger.
const AT_ONCE_MAX: usize = 2;
/// How long a stranger may take to put its question.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);

/// Puts a [`Gate`] before a service.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Questions under way, by connection.
    asking: Asking,
    limit: Duration,
    /// Of nodes that are no managers.
    beginnings: Beginnings,
}

impl Default for Layer {
    fn default() -> Self {
        Self { asking: Asking::default(), limit: QUESTION_LIMIT, beginnings: Beginnings::default() }
    }
}

type Asking = Arc<Mutex<BTreeMap<SocketAddr, usize>>>;

impl<S> tower::Layer<S> for Layer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            inner,
            asking: Arc::clone(&self.asking),
            limit: self.limit,
            beginnings: self.beginnings.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    asking: Asking,
    limit: Duration,
    beginnings: Beginnings,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready answers; its copy waits to be.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let peer = request.extensions().get::<pki::tls::Peer>().copied();
        if let Some(identity) = peer.and_then(|peer| peer.identity) {
            // Entries of the log are large: those only may send any whose certificate is a manager's.
            if identity.role != Role::Manager && service_of(&request) == Some(raft_server::SERVICE_NAME) {
                let refusal = Status::permission_denied("only managers take part in Raft");
                return Box::pin(std::future::ready(Ok(refusal.into_http())));
            }
            let request = match identity.role {
                Role::Worker => self.beginnings.watch(identity.node, request),
                Role::Manager => request,
            };
            return Box::pin(inner.call(request));
        }
        let limit = self.limit;
        let question = peer
            .ok_or_else(|| Status::internal("a request came from nowhere"))
            .and_then(|peer| Question::begin(&self.asking, peer.addr));
        Box::pin(async move {
            let asked = match question {
                Ok(question) => whole(request, limit).await.map(|request| (request, question)),
                Err(refusal) => Err(refusal),
            };
            match asked {
                Ok((request, _question)) => inner.call(request).await,
                Err(refusal) => Ok(refusal.into_http()),
            }
        })
    }
}

/// Returns the full name of the service that a request is for.
fn service_of(request: &Request<Body>) -> Option<&str> {
    request.uri().path().split('/').nth(1)
}

/// Returns the request with the whole of its body, if a stranger may make it.
async fn whole(request: Request<Body>, limit: Duration) -> Result<Request<Body>, Status> {
    if service_of(&request) != Some(proto::ca::ca_server::SERVICE_NAME) {
        return Err(Status::unauthenticated("a node certificate is needed"));
    }
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(limit, Limited::new(body, MESSAGE_MAX).collect())
        .await
        .map_err(|_| Status::deadline_exceeded("the request did not come in time"))?
        .map_err(|e| Status::resource_exhausted(format!("cannot read the request: {e}")))?;
    Ok(Request::from_parts(parts, Body::new(Full::new(body.to_bytes()))))
}

/// A question under way, counted until dropped.
struct Question {
    asking: Asking,
    connection: SocketAddr,
}

impl Question {
    fn begin(asking: &Asking, connection: SocketAddr) -> Result<Self, Status> {
        let mut counts = asking.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(connection).or_default();
        if *count >= AT_ONCE_MAX {
            return Err(Status::resource_exhausted("too many requests at once without a certificate"));
        }
        *count += 1;
        Ok(Self { asking: Arc::clone(asking), connection })
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut counts = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.connection) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::tls::Peer;
    use std::convert::Infallible;
    use tower::{Layer as _, ServiceExt as _, service_fn};

    const CA: &str = "/rswarm.ca.v1.Ca/IssueCertificate";

    fn request(peer: Peer, path: &str, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(peer);
        request
    }

    /// Sends requests, and returns the code of each answer; `0` = the service was asked.
    async fn code(gate: &Gate<impl Asked>, request: Request<Body>) -> i32 {
        let answer = gate.clone().oneshot(request).await.unwrap();
        Status::from_header_map(answer.headers()).map_or(0, |status| status.code().into())
    }

    trait Asked:
        Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
    {
    }
    impl<T> Asked for T where
        T: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static
    {
    }

    fn full(bytes: usize) -> Body {
        Body::new(Full::new(vec![0; bytes].into()))
    }

    #[tokio::test]
    async fn a_stranger_asks_the_ca_briefly_or_nobody() {
        let layer = Layer { limit: Duration::from_millis(100), ..Layer::default() };
        let gate = layer
            .layer(service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty()))));
        let stranger = Peer { identity: None, expired: None, addr: "192.0.2.9:1000".parse().unwrap() };
        assert_eq!(code(&gate, request(stranger, CA, full(1000))).await, 0);
        assert_eq!(code(&gate, request(stranger, CA, full(MESSAGE_MAX + 1))).await, 8);
        let other = "/rswarm.control.v1.Control/List";
        assert_eq!(code(&gate, request(stranger, other, full(10))).await, 16);

        let identity =
            pki::Identity { node: model::NodeId(1), role: Role::Worker, cluster: model::ClusterId(2) };
        let node = Peer { identity: Some(identity), ..stranger };
        assert_eq!(code(&gate, request(node, other, full(MESSAGE_MAX + 1))).await, 0);
        let raft = "/rswarm.raft.v1.Raft/Append";
        assert_eq!(code(&gate, request(node, raft, full(10))).await, 7);
        let manager = Peer { identity: Some(pki::Identity { role: Role::Manager, ..identity }), ..node };
        assert_eq!(code(&gate, request(manager, raft, full(10))).await, 0);

        // Two that never finish their question; a third is not listened to until they are given up.
        let endless = || {
            Body::new(http_body_util::StreamBody::new(futures::stream::pending::<
                Result<hyper::body::Frame<tonic::codegen::Bytes>, Status>,
            >()))
        };
        let third = async { code(&gate, request(stranger, CA, full(10))).await };
        let (first, second, third) = tokio::join!(
            code(&gate, request(stranger, CA, endless())),
            code(&gate, request(stranger, CA, endless())),
            third
        );
        assert_eq!((first, second, third), (4, 4, 8));
        assert_eq!(code(&gate, request(stranger, CA, full(10))).await, 0);
        assert!(gate.asking.lock().unwrap().is_empty());
    }
}
