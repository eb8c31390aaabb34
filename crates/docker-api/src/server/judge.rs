//! Which way a request goes, and whether who asks may go it: containers of tasks are wherever they run, everything
//! else of a host is here.
//!
//! Who has this host (see [`asker`](super::asker)) does as he likes with it. A user of the swarm who has not may use
//! the swarm's routes, where managers judge, and of hosts what his role allows: an admin everything, others look at
//! the containers of tasks.

use super::{ApiError, Asker, State, asker::Reach, proxy};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode},
};
use futures::StreamExt as _;
use model::{ClusterId, Duration, NodeId, PersonRole, Task};
use proto::{
    WireId as _,
    control::{WhoAmIRequest, person_claim::Proof},
};

/// Where a request is answered.
pub(super) enum Way {
    /// Here, in the hands of this person.
    Here(Asker),
    Elsewhere {
        node: NodeId,
        container: Option<String>,
        role: Role,
    },
}

/// What may be done to containers of tasks, wherever they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An operator, or a user with role admin.
    All,
    /// Looks: state, processes, log, usage.
    Reads,
}

/// In what role a request is made that comes through a tunnel; read from tunnels only.
const ROLE_HEADER: HeaderName = HeaderName::from_static("rswarm-role");

impl Role {
    /// Names the role to the other end of a tunnel, in place of whatever a client wrote there.
    pub(super) fn put_on(self, headers: &mut HeaderMap) {
        let word = match self {
            Self::All => "all",
            Self::Reads => "reads",
        };
        headers.insert(ROLE_HEADER, HeaderValue::from_static(word));
    }

    /// Who does not say otherwise only reads.
    fn named_in(headers: &HeaderMap) -> Self {
        match headers.get(ROLE_HEADER) {
            Some(word) if word == "all" => Self::All,
            Some(_) | None => Self::Reads,
        }
    }

    fn judge(self, method: &Method, path: &str) -> Result<(), ApiError> {
        if self == Self::All || reads_a_container(method, path) || asks_for_a_digest(method, path) {
            return Ok(());
        }
        Err(ApiError::forbidden(
            "this user may look at containers of tasks, not act in them; hint: this takes role admin",
        ))
    }
}

fn reads_a_container(method: &Method, path: &str) -> bool {
    let mut segments = path.trim_start_matches('/').split('/');
    let words = (segments.next(), segments.next(), segments.next(), segments.next());
    method == Method::GET
        && matches!(words, (Some("containers"), Some(_), Some("json" | "logs" | "top" | "stats"), None))
}

/// What an image's name stands for: whoever deploys it asks.
fn asks_for_a_digest(method: &Method, path: &str) -> bool {
    method == Method::GET && path.starts_with("/distribution/")
}

/// Returns true for what managers judge, and for what everybody may know. What is not named here is the host's.
fn is_of_the_swarm(path: &str) -> bool {
    matches!(
        path.trim_start_matches('/').split('/').next().unwrap_or_default(),
        "_ping"
            | "version"
            | "info"
            | "swarm"
            | "nodes"
            | "services"
            | "tasks"
            | "secrets"
            | "configs"
            | "networks"
            | "rswarm"
    )
}

/// Returns the role of who asks towards the containers of tasks.
///
/// # Errors
/// 403 when nobody knows who it is; the managers' refusal.
async fn role(state: &State) -> Result<Role, ApiError> {
    match state.asker().claim().and_then(|claim| claim.proof.as_ref()) {
        None => Err(ApiError::nobody()),
        Some(Proof::Operator(_)) => Ok(Role::All),
        Some(Proof::Token(_) | Proof::Certificate(_)) => match state.who_am_i().await?.role {
            PersonRole::Admin => Ok(Role::All),
            PersonRole::Deploy { .. } | PersonRole::Read => Ok(Role::Reads),
        },
    }
}

/// A person as managers know it.
pub(super) struct Known {
    pub(super) name: String,
    pub(super) role: PersonRole,
    pub(super) swarm: ClusterId,
}

/// How often it is made sure that a user whose stream is open is one still. *Range:* with the time that an answer takes,
/// less than a second.
const PAUSE: Duration = Duration::from_millis(500);

impl State {
    /// Waits until who asks is not the user any more that he was, or has another role. Never ends for those whose streams
    /// do not depend on it. While managers are away nothing is known, and nothing changes.
    pub(super) async fn rights_are_gone(self) {
        if !self.asker().is_tied() {
            return std::future::pending().await;
        }
        let mut first = None;
        loop {
            tokio::time::sleep(PAUSE).await;
            match self.who_am_i().await {
                Ok(known) if *first.get_or_insert_with(|| known.role.clone()) == known.role => {}
                Ok(_) => return,
                Err(error) if error.status == StatusCode::FORBIDDEN => return,
                Err(_) => {}
            }
        }
    }

    /// Ends a body, if it goes on for long, with the rights of who asks.
    pub(super) fn end_with_rights(&self, body: Body) -> Body {
        if !self.asker().is_tied() {
            return body;
        }
        let gone = Box::pin(self.clone().rights_are_gone());
        Body::from_stream(body.into_data_stream().take_until(gone))
    }

    /// Asks a manager who asks.
    pub(super) async fn who_am_i(&self) -> Result<Known, ApiError> {
        let answer = self.control().await?.who_am_i(WhoAmIRequest {}).await?.into_inner();
        let role = answer.role.ok_or_else(|| ApiError::internal("a manager named no role"))?;
        let swarm = ClusterId::from_wire(&answer.cluster)?;
        Ok(Known { name: answer.name, role: role.try_into()?, swarm })
    }
}

/// Returns the way of a person's request.
///
/// # Errors
/// 403 when he may not go it.
pub(super) async fn way(state: &State, method: &Method, path: &str) -> Result<Way, ApiError> {
    let asker = state.asker();
    if let Some(engine) = &state.options.engine
        && let Some((node, container)) = proxy::elsewhere(state, engine, path).await
    {
        let role = role(state).await?;
        role.judge(method, path)?;
        return Ok(Way::Elsewhere { node, container, role });
    }
    if is_of_the_swarm(path) {
        return Ok(Way::Here(asker.tied()));
    }
    if asker.reach() == Reach::Everything {
        return Ok(Way::Here(asker.clone()));
    }
    let may = match role(state).await? {
        Role::All => true,
        Role::Reads => {
            asks_for_a_digest(method, path)
                || (reads_a_container(method, path) && is_of_a_task_here(state, path).await?)
        }
    };
    if may {
        return Ok(Way::Here(asker.with_engine().tied()));
    }
    state.of_the_host()?;
    Ok(Way::Here(asker.clone()))
}

async fn is_of_a_task_here(state: &State, path: &str) -> Result<bool, ApiError> {
    let named = path.split('/').nth(2).unwrap_or_default();
    let here = state.swarm().status().membership().map(|me| me.node_id);
    let tasks = state.list::<Task>().await?;
    Ok(here.is_some() && tasks.iter().any(|task| task.node() == here && proxy::is_named(task, named)))
}

/// Judges what a manager's front door passes on.
///
/// # Errors
/// 403.
pub(super) fn from_a_tunnel(request: &Request<Body>) -> Result<(), ApiError> {
    Role::named_in(request.headers()).judge(request.method(), request.uri().path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_reads_looks_at_containers_and_nothing_else() {
        let may = |method: Method, path: &str| Role::Reads.judge(&method, path).is_ok();
        for path in ["/containers/a/json", "/containers/a/logs", "/containers/a/top", "/containers/a/stats"] {
            assert!(may(Method::GET, path), "{path}");
            assert!(!may(Method::POST, path), "{path}");
        }
        assert!(may(Method::GET, "/distribution/alpine/json"));
        for path in [
            "/containers/json",
            "/containers/a/archive",
            "/containers/a/export",
            "/containers/a/attach/ws",
            "/containers/a/logs/x",
            "/images/json",
            "/volumes",
            "/exec/a/json",
            "/",
            "/session",
        ] {
            assert!(!may(Method::GET, path), "{path}");
        }
        for path in ["/containers/a/exec", "/containers/a/attach", "/exec/a/start", "/containers/create"] {
            assert!(!may(Method::POST, path), "{path}");
            assert!(Role::All.judge(&Method::POST, path).is_ok());
        }
    }

    #[test]
    fn what_a_client_writes_of_its_role_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        assert_eq!(Role::named_in(&headers), Role::Reads);
        headers.append(ROLE_HEADER, HeaderValue::from_static("all"));
        Role::Reads.put_on(&mut headers);
        assert_eq!(Role::named_in(&headers), Role::Reads);
        Role::All.put_on(&mut headers);
        assert_eq!(Role::named_in(&headers), Role::All);
    }

    #[test]
    fn routes_of_a_host_are_not_the_swarms() {
        for path in ["/services", "/nodes/x", "/rswarm/stacks", "/_ping", "/networks/create"] {
            assert!(is_of_the_swarm(path), "{path}");
        }
        for path in ["/containers/json", "/build", "/session", "/grpc", "/events", "/plugins", "/", "/auth"] {
            assert!(!is_of_the_swarm(path), "{path}");
        }
    }
}
