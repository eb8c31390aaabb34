//! Judges a call by its head, before a byte of its message is read: who may not call costs no memory.
//!
//! The services judge again what they then do: a message may take its time to come, and rights end meanwhile.

use crate::{authorize::Method, shared::Shared};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{
    Request,
    body::Body,
    codegen::{Service, http},
    metadata::MetadataMap,
    server::NamedService,
};

/// A service that is asked by those only who may ask it.
#[derive(Debug, Clone)]
pub(crate) struct Early<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Early<S> {
    pub(crate) fn new(shared: &Arc<Shared>, inner: S) -> Self {
        Self { shared: shared.clone(), inner }
    }
}

impl<S: NamedService> NamedService for Early<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Early<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that is ready answers; its copy waits to be.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let shared = self.shared.clone();
        Box::pin(async move {
            // What is no method is answered as that.
            if let Some(method) = Method::at(request.uri().path())
                && let Err(refusal) = shared.authorize(method, &head(&request)).await
            {
                return Ok(refusal.into_http());
            }
            inner.call(request).await
        })
    }
}

fn head(request: &http::Request<Body>) -> Request<()> {
    let mut head = Request::new(());
    *head.metadata_mut() = MetadataMap::from_headers(request.headers().clone());
    if let Some(peer) = request.extensions().get::<pki::tls::Peer>() {
        head.extensions_mut().insert(*peer);
    }
    head
}
