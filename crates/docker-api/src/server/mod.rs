//! Answers the Docker Engine REST API.
//!
//! ```text
//!  connection (unix, tcp, or a tunnel from another node)
//!     '-> FrontDoor::answer   version prefix off, version judged, who asks, headers on
//!            '-> router       one module per noun
//!                  |-- this host's containers: engine
//!                  |-- objects of the swarm:   cluster (gRPC to a manager)
//!                  |-- a container elsewhere:  proxy   (the same request through a tunnel)
//!                  '-- those of all hosts:     everywhere (the same)
//! ```
//!
//! *Tasks.* [`FrontDoor::serve`] has one per connection; a hijacked stream (attach, exec) has one more. All end
//! when the token given to [`FrontDoor::new`] is cancelled; `serve` returns when they have.
//!
//! *Invariant:* a request that came through a tunnel is never sent on: there are no loops.

mod answer;
mod api_version;
mod asker;
mod build;
mod buildkit;
mod cluster;
mod container_create;
mod container_host;
mod container_json;
mod container_then;
mod containers;
mod error;
mod events;
mod everywhere;
mod execs;
mod filters;
mod group;
mod hijack;
mod images;
mod judge;
mod listen;
mod networks;
mod nodes;
mod plugins;
mod proxy;
mod request;
mod rest;
mod routing;
mod rows;
mod seats;
mod secrets;
mod service_logs;
mod services;
mod stacks;
mod survival;
mod swarm;
mod swarms;
mod system;
mod takeover;
mod tasks;
mod users;
mod volumes;

pub use api_version::ApiVersion;
pub use asker::{Asker, Origin, Relayed, Shown};
pub use error::{ApiError, NOT_A_MANAGER, NOT_IN_SWARM, SWARM_LOCKED};
pub use filters::Filters;
pub use group::Group;
pub use images::registry_auth;
pub use listen::{Listener, Whose};
pub use swarm::{
    BoxedIo, Control, HostGone, InitRequest, Io, JoinRequest, Link, Membership, RecoverRequest,
    RestoreRequest, Swarm, SwarmStatus, link,
};

use api_version::without_version;
use asker::Reach;
use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{HeaderValue, Method, Request, StatusCode, header::SERVER},
    response::{IntoResponse as _, Response},
};
use engine::Engine;
use judge::Way;
use std::sync::Arc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// The newest API version spoken here.
pub const API_VERSION: &str = "1.51";
/// The same.
pub const NEWEST: ApiVersion = ApiVersion(1, 51);
/// The oldest, unless an operator says otherwise. *Source:* moby 28, `daemon/config`.
pub const MIN_API_VERSION: ApiVersion = ApiVersion(1, 24);

/// *Limit* of a JSON request body. *Unit:* bytes. Above the largest config (1000 KiB in base64).
const BODY_MAX: usize = 8 << 20;

/// What a front door is made of.
#[derive(Clone)]
pub struct Options {
    /// The containers of this host; `None` = this door serves the swarm only.
    pub engine: Option<Engine>,
    pub swarm: Arc<dyn Swarm>,
    /// Host name as `/info` shows it.
    pub hostname: String,
    /// Where the engine keeps its state, as `/info` shows it.
    pub data_root: std::path::PathBuf,
    /// What of the settings may change while the daemon runs.
    pub live: Arc<dyn Fn() -> Live + Send + Sync>,
    /// *Limit* of open connections of all listeners together; see `seats`.
    pub connections_max: usize,
    /// The oldest API version that clients may speak.
    pub min_api: ApiVersion,
}

/// What an operator may change at any time.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// How registries are reached.
    pub registries: image::RegistryOptions,
    /// Of this host: `KEY=VALUE`.
    pub labels: Vec<String>,
    /// The daemon's own log tells everything.
    pub debug: bool,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// What every route may use: the door, and who asks.
#[derive(Debug, Clone)]
pub(crate) struct State {
    options: Arc<Options>,
    asker: Asker,
    /// Hijacked streams.
    tasks: TaskTracker,
    cancel: CancellationToken,
    remote_execs: Arc<proxy::RemoteExecs>,
    buildkit: Arc<buildkit::Hub>,
    seats: seats::Seats,
}

impl State {
    /// Returns the engine of this host, if who asks may use it.
    ///
    /// # Errors
    /// 403 when not; 503 when there is none.
    pub(crate) fn engine(&self) -> Result<&Engine, ApiError> {
        self.of_the_host()?;
        self.options
            .engine
            .as_ref()
            .ok_or_else(|| ApiError::unavailable("this front door has no container engine"))
    }

    /// Returns an error unless who asks may do as he likes with this host.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn of_the_host(&self) -> Result<(), ApiError> {
        match self.asker.reach() {
            Reach::Everything => Ok(()),
            Reach::Nothing => Err(ApiError::forbidden(
                "a user of the swarm may not use the containers, images, volumes and networks of a host by themselves; \
                 hint: this takes role admin, or the socket of that host",
            )),
        }
    }

    pub(crate) fn asker(&self) -> &Asker {
        &self.asker
    }

    fn asked_by(&self, asker: Asker) -> Self {
        Self { asker, ..self.clone() }
    }

    /// Answers a request from this host's containers alone. It has been judged already.
    pub(crate) async fn answer_here(&self, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(self.asker.with_engine());
        match containers::routes().with_state(self.clone()).oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    pub(crate) fn registries(&self) -> image::RegistryOptions {
        (self.options.live)().registries
    }

    pub(crate) fn swarm(&self) -> &dyn Swarm {
        &*self.options.swarm
    }

    /// Runs a stream's task until it ends or the front door closes.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        let gone = self.clone().rights_are_gone();
        self.tasks.spawn(cancel.run_until_cancelled_owned(async move {
            tokio::select! {
                () = task => {}
                () = gone => {}
            }
        }));
    }
}

/// The Docker Engine REST API of one host; cheap to clone.
#[derive(Debug, Clone)]
pub struct FrontDoor {
    state: State,
    router: Router,
}

impl FrontDoor {
    /// Returns a front door; [`serve`](Self::serve) opens it. All its work ends when `cancel` is cancelled.
    pub fn new(options: Options, cancel: CancellationToken) -> Self {
        let state = State {
            seats: seats::Seats::new(options.connections_max),
            options: Arc::new(options),
            asker: Asker::default(),
            tasks: TaskTracker::new(),
            cancel,
            remote_execs: Arc::default(),
            buildkit: Arc::default(),
        };
        Self { router: router(state.clone()), state }
    }

    /// Answers one request.
    pub async fn answer(&self, mut request: Request<Body>, origin: &Origin) -> Response {
        request.extensions_mut().insert(origin.clone());
        let head = request.method() == Method::HEAD;
        let (body, rest) = rest::lend(std::mem::take(request.body_mut()));
        *request.body_mut() = body;
        let mut answer = match without_version(request.uri(), self.state.options.min_api) {
            Ok((uri, version)) => {
                *request.uri_mut() = uri;
                request.extensions_mut().insert(version);
                self.route(request, origin).await
            }
            Err(refusal) => refusal.into_response(),
        };
        if head {
            *answer.body_mut() = Body::empty();
        }
        let status = answer.status();
        // What is too long or too slow is not waited for.
        let in_vain = matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT);
        if (status.is_client_error() || status.is_server_error())
            && !in_vain
            && let Some(rest) = rest
        {
            let cancel = self.state.cancel.clone();
            self.state.tasks.spawn(cancel.run_until_cancelled_owned(rest.read()));
        }
        let headers = answer.headers_mut();
        headers.insert("Api-Version", HeaderValue::from_static(API_VERSION));
        headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
        headers.insert("Ostype", HeaderValue::from_static("linux"));
        headers.insert(
            SERVER,
            HeaderValue::from_static(concat!("rswarm/", env!("CARGO_PKG_VERSION"), " (linux)")),
        );
        answer
    }
}

impl FrontDoor {
    /// Answers from this host, or from the host that has the container.
    async fn route(&self, request: Request<Body>, origin: &Origin) -> Response {
        let asker = match Asker::of(origin, request.headers(), &self.state.options.hostname) {
            Ok(asker) => asker,
            Err(refusal) => return refusal.into_response(),
        };
        let mut state = self.state.asked_by(asker);
        let judged = match origin {
            Origin::Peer => {
                judge::from_a_tunnel(&state.asker, &request).map(|asker| (Way::Here(asker), request))
            }
            Origin::Unix { .. }
            | Origin::Outsider { .. }
            | Origin::Tcp { .. }
            | Origin::Tls { .. }
            | Origin::Relay(_) => judge::way(&state, request).await,
        };
        let (way, mut request) = match judged {
            Ok(judged) => judged,
            Err(refusal) => return refusal.into_response(),
        };
        match way {
            Way::Here(asker) => {
                state.asker = asker.clone();
                request.extensions_mut().insert(asker);
            }
            Way::Elsewhere { node, container, role, asker } => {
                state.asker = asker;
                return match proxy::forward(&state, node, container, &role, request).await {
                    Ok(answer) => answer,
                    Err(error) => error.into_response(),
                };
            }
        }
        let answered = self.router.clone().oneshot(request);
        tokio::select! {
            // Infallible: a router answers everything.
            answer = answered => match answer {
                Ok(answer) => answer.map(|body| state.end_with_rights(body)),
                Err(never) => match never {},
            },
            // What is still being sent, or waited for, ends as what is being answered does.
            () = state.clone().rights_are_gone() => {
                ApiError::forbidden("who asked for this has lost the right to since it began").into_response()
            }
        }
    }
}

fn router(state: State) -> Router {
    Router::new()
        .merge(system::routes())
        .merge(events::routes())
        .merge(swarms::routes())
        .merge(nodes::routes())
        .merge(services::routes())
        .merge(service_logs::routes())
        .merge(tasks::routes())
        .merge(secrets::routes())
        .merge(stacks::routes())
        .merge(everywhere::routes())
        .merge(users::routes())
        .merge(networks::routes())
        .merge(containers::routes())
        .merge(execs::routes())
        .merge(images::routes())
        .merge(build::routes())
        .merge(buildkit::routes())
        .merge(volumes::routes())
        .merge(plugins::routes())
        .fallback(async || ApiError::not_found("page not found"))
        .method_not_allowed_fallback(async || ApiError::not_found("page not found"))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
}
