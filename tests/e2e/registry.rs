//! A registry in the test's own process: it keeps what it is given, and may want an account.
//!
//! *Source:* the OCI Distribution Specification; its words are those of Docker's registry.

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Response, StatusCode, Uri, header},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use testkit::Lab;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Runtime,
};

/// Manifests of images have it, and of all that is no image, too.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that keeps what it is given, by path; it may take only manifests of OCI 1.0.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    kept: Arc<Mutex<BTreeMap<String, Bytes>>>,
    knows_types: bool,
    /// Who is let in, as the header has it: `Basic ..`; anybody, without.
    account: Option<String>,
}

impl Registry {
    /// One that knows types of artifacts, or not.
    pub(crate) fn of_artifacts(knows_types: bool) -> Self {
        Self { knows_types, ..Self::default() }
    }

    /// One that lets nobody else in.
    pub(crate) fn of_account(account: String) -> Self {
        Self { account: Some(account), ..Self::default() }
    }

    /// Serves on this machine as long as the runtime lives; returns its name.
    pub(crate) fn serve(&self, runtime: &Runtime) -> String {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let name = listener.local_addr().expect("an address").to_string();
        let router = self.router();
        runtime.spawn(async move { axum::serve(listener, router).await });
        name
    }

    /// Serves the hosts of a lab, as long as the runtime lives; returns its name there.
    pub(crate) fn serve_hosts(&self, lab: &mut Lab, runtime: &Runtime) -> String {
        let (name, socket) = lab.serve(5000).expect("the lab");
        let router = self.router();
        let listener = runtime.block_on(async { UnixListener::bind(socket) }).expect("a socket");
        runtime.spawn(async move { axum::serve(listener, router).await });
        name
    }

    /// Has something at a path, as if it had been given.
    pub(crate) fn keep(&self, path: &str, bytes: impl Into<Bytes>) {
        self.kept().insert(path.to_owned(), bytes.into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    pub(crate) fn manifest(&self, path: &str) -> String {
        String::from_utf8_lossy(self.kept().get(path).expect("a manifest")).into_owned()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn router(&self) -> Router {
        let registry = self.clone();
        Router::new()
            .fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
                let registry = registry.clone();
                async move { registry.answer(&method, &uri, &headers, &body) }
            })
            // Layers are large.
            .layer(axum::extract::DefaultBodyLimit::disable())
    }

    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        let path = uri.path().to_owned();
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if self.account.as_deref().is_some_and(|account| shown != Some(account)) {
            let mut refused = refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
            let challenge = header::HeaderValue::from_static("Basic realm=\"test\"");
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return refused;
        }
        let mut kept = self.kept();
        let answer = Response::builder();
        let answered = match method.as_str() {
            "POST" => answer.status(StatusCode::ACCEPTED).header(header::LOCATION, path).body(Body::empty()),
            // An upload says at its end what it was.
            "PUT" if path.contains("/uploads/") => {
                let digest = uri.query().and_then(|q| q.split("digest=").nth(1)).expect("a digest");
                kept.insert(path.replace("uploads/", &digest.replace("%3A", ":")), body.clone());
                answer.status(StatusCode::CREATED).body(Body::empty())
            }
            "PUT" if !self.knows_types && String::from_utf8_lossy(body).contains("artifactType") => {
                answer.status(StatusCode::BAD_REQUEST).body(Body::empty())
            }
            // A manifest is found by its tag and by its digest.
            "PUT" => {
                let (repository, _) = path.split_once("/manifests/").expect("a manifest");
                let digest = image::Digest::of(body);
                kept.insert(format!("{repository}/manifests/{digest}"), body.clone());
                kept.insert(path, body.clone());
                answer.status(StatusCode::CREATED).body(Body::empty())
            }
            _ if path == "/v2/" => answer.body(Body::empty()),
            _ => match kept.get(&path) {
                Some(found) => answer.header(header::CONTENT_TYPE, MANIFEST).body(Body::from(found.clone())),
                None if path.contains("/manifests/") => {
                    return refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
                }
                None => answer.status(StatusCode::NOT_FOUND).body(Body::empty()),
            },
        };
        answered.expect("an answer")
    }
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
    let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    answer.body(Body::from(body.to_string())).expect("an answer")
}
