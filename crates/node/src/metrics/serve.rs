//! The address that Prometheus asks. *Source:* moby `cmd/dockerd/metrics.go`; OpenMetrics 1.0, "Negotiation".

use super::{Sources, ready};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// *Limit* of connections; others wait.
const CONNECTIONS_MAX: usize = 32;
/// A client sends its request within this time, and asks again after an answer, or is left.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// *Limit* of a connection's life: who does not read its answer gives its place back.
const LIFETIME: Duration = Duration::from_secs(600);
/// After an error that stands for all connections, as of too many open files.
const PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers at an address until it is dropped.
///
/// # Errors
/// Nobody can listen there.
pub(crate) async fn serve(address: &str, sources: Sources) -> Result<Serving> {
    // As in Go, `:9323` is every address of the host.
    let whole = if address.starts_with(':') { format!("[::]{address}") } else { address.to_owned() };
    let listener = TcpListener::bind(&whole).await;
    let listener = listener.with_context(|| format!("metrics-addr: cannot listen on {address}"))?;
    let at = listener.local_addr().context("metrics-addr")?;
    if at.ip().is_loopback() {
        tracing::info!(address = %at, "numbers are served for Prometheus");
    } else {
        tracing::warn!(
            address = %at,
            "numbers are served for Prometheus to whoever reaches this address, with the names of containers, images and \
             services; hint: 127.0.0.1"
        );
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, Arc::new(sources)));
    Ok(Serving { _tasks: tasks })
}

/// Ends what serves when it is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    _tasks: JoinSet<()>,
}

async fn accept(listener: TcpListener, sources: Arc<Sources>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let sources = Arc::clone(&sources);
                connections.spawn(async move {
                    if tokio::time::timeout(LIFETIME, answer_all(stream, sources)).await.is_err() {
                        tracing::debug!("a connection for numbers has had its time");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for numbers is not taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer_all(stream: TcpStream, sources: Arc<Sources>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(answer(&sources, &request).await) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "a connection for numbers broke off");
    }
}

async fn answer(sources: &Sources, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let accepts = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let open_metrics =
                accepts.into_iter().any(|value| value.contains("application/openmetrics-text"));
            let families = sources.look().await;
            text(
                StatusCode::OK,
                if open_metrics { OPEN_METRICS } else { PROMETHEUS },
                families.text(open_metrics),
            )
        }
        // Who can answer lives.
        "/healthz" => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => match ready::waits_for(&sources.swarm) {
            waits if waits.is_empty() => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
            waits => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{}\n", waits.join("\n"))),
        },
        _ => text(StatusCode::NOT_FOUND, PLAIN, "/metrics, /healthz, /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
