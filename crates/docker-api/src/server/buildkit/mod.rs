//! `docker build` with buildx: `POST /grpc` and `POST /session`, BuildKit's protocol in front of the engine's builder.
//!
//! ```text
//!  buildx -- /session --> a connection on which *we* ask: files, .dockerignore, secrets, accounts
//!         -- /grpc -----> Control.Solve      begins a build and ends with it
//!                         Control.Status     what happens in it
//!                         LLBBridge.Solve    files --> tar --> engine::build --> image
//!                         LLBBridge.Return   the client is content: names are given, Control.Solve answers
//! ```
//! `POST /build?version=2` is another door to the same builder: see `http`.
//!
//! buildx drives a build over `LLBBridge`; a client that names the frontend in `Control.Solve` is served too. The graph
//! of BuildKit's own operations (LLB) is not: only the frontend `dockerfile.v0`.
//!
//! *Source:* moby/buildkit `control/control.go`, `session/`; moby `api/server/router/{grpc,session}`.
//! *Start reading at* [`routes`].

mod build;
mod control;
mod files;
mod http;
mod progress;
mod session;

pub(super) use http::{Source, build_over_http};

use super::{ApiError, State, request::Use, routing::post};
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, UPGRADE},
    },
    response::{IntoResponse as _, Response},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use proto::buildkit::{control::control_server::ControlServer, gateway::llb_bridge_server::LlbBridgeServer};
use std::sync::Arc;

/// *Limit* of a message. *Unit:* bytes. Source: buildkit `util/grpcutil`, `MaxMessageSize` is 16 MiB too.
const MESSAGE_MAX: usize = 16 << 20;

/// What the connections of one front door share.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    sessions: session::Sessions,
    builds: build::Builds,
}

pub(super) fn routes() -> Router<State> {
    Router::new().route("/grpc", post(grpc)).route("/session", post(join))
}

/// Takes a connection over for HTTP/2 without TLS.
fn take_over(mut request: Request) -> Result<(OnUpgrade, Response), ApiError> {
    let asked = request.headers().get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if asked != "h2c" {
        return Err(ApiError::bad_request(format!("protocol {asked:?} not supported, only h2c is")));
    }
    let upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or_else(|| ApiError::bad_request("this connection cannot be hijacked"))?;
    let mut answer = StatusCode::SWITCHING_PROTOCOLS.into_response();
    *answer.body_mut() = Body::empty();
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("h2c"));
    Ok((upgrade, answer))
}

/// Source: Docker API `POST /grpc`.
async fn grpc(Use(state): Use<State>, request: Request) -> Result<Response, ApiError> {
    state.engine()?;
    let (upgrade, answer) = take_over(request)?;
    let server = state.clone();
    state.spawn(async move {
        match upgrade.await {
            Ok(connection) => serve(server, connection).await,
            Err(error) => {
                tracing::debug!(%error, "a builder's client went before its connection was taken over")
            }
        }
    });
    Ok(answer)
}

async fn serve(state: State, connection: Upgraded) {
    let control = ControlServer::new(control::Service(state.clone())).max_decoding_message_size(MESSAGE_MAX);
    let gateway = LlbBridgeServer::new(build::Service(state)).max_decoding_message_size(MESSAGE_MAX);
    let routes = tonic::service::Routes::new(control).add_service(gateway).prepare();
    let served = auto::Builder::new(TokioExecutor::new())
        .http2_only()
        .serve_connection(TokioIo::new(TokioIo::new(connection)), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a builder's client has gone");
    }
}

/// Source: Docker API `POST /session`.
async fn join(Use(state): Use<State>, request: Request) -> Result<Response, ApiError> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let id = header("X-Docker-Expose-Session-Uuid").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| ApiError::bad_request("a session needs an id"))?;
    let methods = request.headers().get_all("X-Docker-Expose-Session-Grpc-Method");
    let methods = methods.iter().filter_map(|m| m.to_str().ok()).map(str::to_ascii_lowercase).collect();
    let (upgrade, answer) = take_over(request)?;
    let hub = Arc::clone(&state.buildkit);
    state.spawn(async move {
        match upgrade.await {
            Ok(connection) => hub.sessions.run(id, methods, connection).await,
            Err(error) => tracing::debug!(%error, "a session went before its connection was taken over"),
        }
    });
    Ok(answer)
}
