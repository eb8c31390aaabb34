//! Which way a request goes, and whether who asks may go it: containers of tasks are wherever they run, everything
//! else of a host is here.
//!
//! Who has this host (see [`asker`](super::asker)) does as he likes with it. A user of the swarm who has not may use
//! the swarm's routes, where managers judge, and of hosts what his role allows: an admin everything, others look at
//! the containers of tasks. Who deploys acts in those, too, that he could have deployed: managers say which, and keep
//! a record.
//!
//! What is asked at a worker's front door for a container elsewhere is judged where a manager relays it: a worker's
//! word for what somebody may counts for nothing.

use super::{ApiError, Asker, State, SwarmStatus, asker::Reach, everywhere, proxy, request};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode},
};
use futures::StreamExt as _;
use model::{ClusterId, Duration, NodeId, PersonRole, Task, TaskId};
use proto::{
    WireId as _,
    control::{EnterTaskRequest, WhoAmIRequest, person_claim::Proof},
};
use std::sync::Arc;

/// Where a request is answered.
pub(super) enum Way {
    /// Here, in the hands of this person.
    Here(Asker),
    Elsewhere {
        node: NodeId,
        container: Option<String>,
        role: Role,
        /// Who asks, with what his streams depend on.
        asker: Asker,
    },
}

/// What may be done to containers of tasks, wherever they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An operator, or a user with role admin.
    All,
    /// Looks, and acts in those that managers let him into: exec, attach, cp.
    Acts,
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
            Self::Acts => "acts",
            Self::Reads => "reads",
        };
        headers.insert(ROLE_HEADER, HeaderValue::from_static(word));
    }

    /// Who does not say otherwise only reads.
    fn named_in(headers: &HeaderMap) -> Self {
        match headers.get(ROLE_HEADER) {
            Some(word) if word == "all" => Self::All,
            Some(word) if word == "acts" => Self::Acts,
            Some(_) | None => Self::Reads,
        }
    }

    fn judge(self, method: &Method, path: &str) -> Result<(), ApiError> {
        let looks = reads_a_container(method, path);
        match self {
            Self::All => Ok(()),
            // Who only reads deploys nothing, and has no business with registries: this host would ask any for him.
            Self::Acts if looks || asks_for_a_digest(method, path) => Ok(()),
            Self::Acts if act_in_a_container(method, path).is_some() => Ok(()),
            Self::Acts => Err(ApiError::forbidden(
                "this user may look at containers of tasks and act in those of his stacks (exec, attach, cp), no more; \
                 hint: this takes role admin",
            )),
            Self::Reads if looks => Ok(()),
            Self::Reads => Err(ApiError::forbidden(
                "this user may look at containers of tasks, not act in them; hint: this takes role admin, or deploy",
            )),
        }
    }
}

/// The word for an exec that asks for every right on the host.
const PRIVILEGED_EXEC: &str = "privileged exec";

/// What a request does in a container.
#[derive(Debug, Clone, Copy)]
struct Act {
    /// Of the audit history.
    word: &'static str,
    privileged: bool,
}

impl Act {
    /// Returns what a request does, and the request: what an exec asks for stands in its body.
    ///
    /// # Errors
    /// The body cannot be read.
    async fn of(state: &State, request: Request<Body>) -> Result<(Option<Self>, Request<Body>), ApiError> {
        let Some(word) = act_in_a_container(request.method(), request.uri().path()) else {
            return Ok((None, request));
        };
        let in_a_swarm = matches!(state.swarm().status(), SwarmStatus::Active(_));
        if word != "exec" || !in_a_swarm {
            return Ok((Some(Self { word, privileged: false }), request));
        }
        let (asked, request) = request::look_into::<crate::types::ExecCreate>(request).await?;
        Ok((Some(Self { word, privileged: asked.privileged }), request))
    }
}

/// Returns what a request does in a container, in the word of the audit history: empty for what only goes on with it.
/// `None`: it does not act in one.
fn act_in_a_container(method: &Method, path: &str) -> Option<&'static str> {
    let mut segments = path.trim_start_matches('/').split('/');
    let words = [segments.next()?, segments.next()?, segments.next()?, segments.next().unwrap_or_default()];
    if segments.next().is_some() {
        return None;
    }
    let [kind, _, what, more] = words;
    match (method.as_str(), kind, what, more) {
        ("POST", "containers", "exec", "") => Some("exec"),
        ("POST", "containers", "attach", "") | ("GET", "containers", "attach", "ws") => Some("attach"),
        ("PUT", "containers", "archive", "") => Some("copy into"),
        ("GET", "containers", "archive", "") => Some("copy out of"),
        ("HEAD", "containers", "archive", "") => Some(""),
        // `docker attach` waits for the end, and follows the size of its terminal.
        ("POST", "containers", "resize" | "wait", "") => Some(""),
        ("POST", "exec", "start" | "resize", "") | ("GET", "exec", "json", "") => Some(""),
        _ => None,
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

/// Returns the role of who asks towards the containers of tasks, and what managers know a user as.
///
/// # Errors
/// 403 when nobody knows who it is; the managers' refusal.
pub(super) async fn role(state: &State) -> Result<(Role, Option<PersonRole>), ApiError> {
    match state.asker().claim().and_then(|claim| claim.proof.as_ref()) {
        None => Err(ApiError::nobody()),
        Some(Proof::Operator(_)) => Ok((Role::All, None)),
        Some(Proof::Token(_) | Proof::Certificate(_)) => {
            let known = state.who_am_i().await?.role;
            let role = match known {
                PersonRole::Admin => Role::All,
                PersonRole::Deploy { .. } => Role::Acts,
                PersonRole::Read => Role::Reads,
            };
            Ok((role, Some(known)))
        }
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
        let mut first = self.asker().judged_as().cloned();
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

    /// Has managers say whether who asks may act in the container of a task, and keep a record of it. Of those who may
    /// do everything, what needs no record is not asked.
    ///
    /// # Errors
    /// 403; managers do not answer.
    async fn enter(&self, task: TaskId, act: Act, role: Role) -> Result<(), ApiError> {
        if role == Role::All && act.word.is_empty() {
            return Ok(());
        }
        let mut control = self.control().await?;
        let mut ask = async |action: &str| {
            control.enter_task(EnterTaskRequest { task: task.to_wire(), action: action.to_owned() }).await
        };
        let answer = match ask(if act.privileged { PRIVILEGED_EXEC } else { act.word }).await {
            // An older leader does not know the word, and the container's host refuses it.
            Err(status) if act.privileged && status.code() == tonic::Code::InvalidArgument => {
                ask(act.word).await
            }
            answer => answer,
        };
        answer.map(drop).map_err(ApiError::from)
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
pub(super) async fn way(state: &State, request: Request<Body>) -> Result<(Way, Request<Body>), ApiError> {
    let (act, request) = Act::of(state, request).await?;
    let way = way_of(state, request.method(), request.uri().path(), act).await?;
    Ok((way, request))
}

async fn way_of(state: &State, method: &Method, path: &str, act: Option<Act>) -> Result<Way, ApiError> {
    let asker = state.asker();
    if let Some(engine) = &state.options.engine
        && let Some((task, container)) = proxy::elsewhere(state, engine, path).await
        && let Some(node) = task.node()
    {
        if proxy::is_on_a_worker(state) {
            return Ok(Way::Elsewhere { node, container, role: Role::Reads, asker: asker.tied() });
        }
        let (role, known) = role(state).await?;
        role.judge(method, path)?;
        if let Some(act) = act {
            state.enter(task.id, act, role).await?;
        }
        return Ok(Way::Elsewhere { node, container, role, asker: asker.tied_to(known) });
    }
    if asker.is_relayed() {
        return relayed(state, method, path, act).await;
    }
    if is_of_the_swarm(path) {
        return Ok(Way::Here(asker.tied()));
    }
    if asker.reach() == Reach::Everything {
        return Ok(Way::Here(asker.clone()));
    }
    let (role, known) = role(state).await?;
    let inside = asker.with_engine().tied_to(known);
    if role == Role::All {
        return Ok(Way::Here(inside));
    }
    if asks_for_a_digest(method, path) {
        role.judge(method, path)?;
        return Ok(Way::Here(inside));
    }
    let act = act.filter(|_| role == Role::Acts);
    if (act.is_some() || reads_a_container(method, path))
        && let Some(task) = task_here(state, path).await?
    {
        if let Some(act) = act {
            state.enter(task, act, role).await?;
        }
        return Ok(Way::Here(inside.confined()));
    }
    state.of_the_host()?;
    Ok(Way::Here(asker.clone()))
}

/// Returns the way of what a worker passes on: to the container of a task on this host, and to nothing else of it but
/// what an image's name stands for; to the list of all nodes' containers, which judges by itself.
async fn relayed(state: &State, method: &Method, path: &str, act: Option<Act>) -> Result<Way, ApiError> {
    if asks_for_a_digest(method, path) {
        let (role, known) = role(state).await?;
        role.judge(method, path)?;
        return Ok(Way::Here(state.asker().with_engine().tied_to(known)));
    }
    if path == everywhere::PATH {
        return Ok(Way::Here(state.asker().tied()));
    }
    let task = task_here(state, path).await?;
    let task = task.ok_or_else(|| ApiError::not_found("no container of a task has that name"))?;
    let (role, known) = role(state).await?;
    role.judge(method, path)?;
    if let Some(act) = act {
        state.enter(task, act, role).await?;
    }
    let inside = state.asker().with_engine().tied_to(known);
    Ok(Way::Here(if role == Role::All { inside } else { inside.confined() }))
}

/// Returns the task whose container on this host a request is about: the very one that the engine finds by that name. A
/// task's own idea of what it is called would do for another's container, whose name is the beginning of its id.
async fn task_here(state: &State, path: &str) -> Result<Option<TaskId>, ApiError> {
    let mut segments = path.trim_start_matches('/').split('/');
    let (kind, named) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let Some(engine) = &state.options.engine else { return Ok(None) };
    let found = match kind {
        "exec" => engine.exec_inspect(named).map(|exec| exec.container_id),
        _ => engine.inspect(named).map(|container| container.id.clone()),
    };
    let here = state.swarm().status().membership().map(|me| me.node_id);
    let (Ok(container), Some(here)) = (found, here) else { return Ok(None) };
    let tasks = state.list::<Task>().await?;
    let is_its = |task: &&Arc<Task>| {
        let holds = task.status.container.as_ref().is_some_and(|c| c.container_id == container);
        holds && task.node() == Some(here)
    };
    Ok(tasks.iter().find(is_its).map(|task| task.id))
}

/// Judges what a manager's front door passes on; returns who asks, as far as his role reaches.
///
/// # Errors
/// 403.
pub(super) fn from_a_tunnel(asker: &Asker, request: &Request<Body>) -> Result<Asker, ApiError> {
    let role = Role::named_in(request.headers());
    // Of what is on this host; no registry is asked for another node.
    if !asks_for_a_digest(request.method(), request.uri().path()) {
        role.judge(request.method(), request.uri().path())?;
    }
    Ok(if role == Role::All { asker.clone() } else { asker.confined() })
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
        for path in [
            // It would have this host ask any server that he names.
            "/distribution/127.0.0.1:2375/x/json",
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
    fn who_deploys_acts_in_containers_and_nothing_else() {
        let acts = |method: Method, path: &str| {
            let may = Role::Acts.judge(&method, path).is_ok();
            assert_eq!(may && !reads_a_container(&method, path), act_in_a_container(&method, path).is_some());
            may
        };
        for (method, path) in [
            (Method::POST, "/containers/a/exec"),
            (Method::POST, "/exec/a/start"),
            (Method::GET, "/exec/a/json"),
            (Method::POST, "/containers/a/attach"),
            (Method::GET, "/containers/a/attach/ws"),
            (Method::PUT, "/containers/a/archive"),
            (Method::GET, "/containers/a/archive"),
            (Method::HEAD, "/containers/a/archive"),
            (Method::GET, "/containers/a/logs"),
        ] {
            assert!(acts(method, path), "{path}");
        }
        assert!(Role::Acts.judge(&Method::GET, "/distribution/alpine/json").is_ok(), "he deploys it");
        for (method, path) in [
            (Method::POST, "/containers/create"),
            (Method::POST, "/containers/a/stop"),
            (Method::POST, "/containers/a/update"),
            (Method::POST, "/containers/a/exec/x"),
            (Method::POST, "/containers/a/attach/ws/x"),
            (Method::DELETE, "/containers/a"),
            (Method::GET, "/containers/a/export"),
            (Method::GET, "/images/json"),
            (Method::POST, "/build"),
            (Method::POST, "/commit"),
        ] {
            assert!(!acts(method, path), "{path}");
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
