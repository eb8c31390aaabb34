//! Judges a call by its head, before a byte of its message is read: who may not call costs no memory. A person's call has
//! a place from there until its answer has been taken.
//!
//! The services judge again what they then do: a message may take its time to come, and rights end meanwhile.

use crate::{authorize::Method, forward::InNameOf, shared::Shared};
use http_body_util::BodyExt as _;
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
            let mut place = None;
            // What is no method is answered as that.
            if let Some(method) = Method::at(request.uri().path()) {
                let judged = shared.authorize(method, &head(&request)).await;
                let entered = judged.and_then(|caller| match InNameOf::caller(method, &caller) {
                    InNameOf::Person(account) => shared.under_way.take(account).map(Some),
                    InNameOf::Manager | InNameOf::Node(_) | InNameOf::Stranger | InNameOf::Joiner => Ok(None),
                });
                match entered {
                    Ok(taken) => place = taken,
                    Err(refusal) => return Ok(refusal.into_http()),
                }
            }
            let mut answer = inner.call(request).await?;
            shorten(answer.headers_mut());
            let Some(place) = place else { return Ok(answer) };
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _held_until_it_is_taken = &place;
                    frame
                }))
            }))
        })
    }
}

/// *Limit* of the text of a refusal: it travels as a header, of which nodes read 16 KiB in all; at more they give up the
/// connection, with everything else on it. *Unit:* bytes, as sent.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Source: gRPC over HTTP2, "Status-Message".
const TEXT: http::HeaderName = http::HeaderName::from_static("grpc-message");

/// Cuts a text that repeats what somebody asked for, however long that was.
fn shorten(headers: &mut http::HeaderMap) {
    let Some(text) = headers.get(&TEXT).map(|text| text.as_bytes()).filter(|t| t.len() > TEXT_BYTES_MAX)
    else {
        return;
    };
    let mut kept = &text[..TEXT_BYTES_MAX];
    // Not within `%XX`, nor within a character of several such bytes.
    if let Some(at) = kept.iter().rev().take(2).position(|byte| *byte == b'%') {
        kept = &kept[..kept.len() - at - 1];
    }
    while let [rest @ .., b'%', b'8'..=b'9' | b'A'..=b'F' | b'a'..=b'f', _] = kept {
        kept = rest;
    }
    if let Ok(text) = http::HeaderValue::from_bytes(&[kept, b"%20..."].concat()) {
        headers.insert(TEXT, text);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn a_refusal_that_repeats_what_was_asked_for_is_no_longer_than_a_header_may_be() {
        for piece in ["x", "é", "x/é", "漢字 ", "%", "a\n"] {
            for long in [100, 5000, 200_000] {
                let text = format!("no such thing: {}", piece.repeat(long / piece.len()));
                let mut headers = Status::not_found(&text).into_http::<()>().headers().clone();
                shorten(&mut headers);
                let sent = headers.get(TEXT).unwrap().len();
                assert!(sent <= TEXT_BYTES_MAX + 6, "{piece}: {sent}");
                let read = Status::from_header_map(&headers).unwrap();
                let whole = read.message().strip_suffix(" ...").unwrap_or(read.message());
                assert!(text.starts_with(whole) && whole.starts_with("no such thing"), "{piece}: {read}");
                assert_eq!(read.code(), tonic::Code::NotFound);
            }
        }
    }
}
