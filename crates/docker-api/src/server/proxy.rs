//! Requests about a container of another host: the same request, through a tunnel to that host's front door.
//!
//! ```text
//!  manager  --- tunnel, with the role that it made sure of --->  the container's host
//!  worker   --- relay, with the person's token --->  a manager  --- tunnel --->  the container's host
//! ```

use super::{
    ApiError, BoxedIo, State, SwarmStatus,
    containers::RAW,
    judge::Role,
    request::with_whole_body,
    takeover::{Taken, ask_for_upgrade},
};
use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    },
    response::Response,
};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use model::{NodeId, Role as ModelRole, Task};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// *Limit* of an answer that is read here. *Unit:* bytes.
const ANSWER_MAX: usize = 1 << 20;

/// Returns the task that a request belongs to, and its container if the request names that: one that is not here but
/// elsewhere in the swarm, or an exec there. `None`: this host answers, if only that there is no such thing. `engine`
/// is this host's.
pub(super) async fn elsewhere(
    state: &State,
    engine: &engine::Engine,
    path: &str,
) -> Option<(Arc<Task>, Option<String>)> {
    let mut segments = path.trim_start_matches('/').split('/');
    let (kind, id) = (segments.next()?, segments.next()?);
    let in_a_swarm = || matches!(state.swarm().status(), SwarmStatus::Active(_));
    match kind {
        "containers" if !matches!(id, "json" | "create" | "prune") && in_a_swarm() => {
            match engine.inspect(id) {
                Err(error) if error.kind() == engine::ErrorKind::NotFound => {}
                _ => return None,
            }
            let task = task_of(state, id).await?;
            let container = task.status.container.as_ref().map(|c| c.container_id.clone());
            Some((task, container))
        }
        "exec" if in_a_swarm() => {
            let container = state.remote_execs.container(id)?;
            task_of(state, &container).await.map(|task| (task, None))
        }
        _ => None,
    }
}

async fn task_of(state: &State, container: &str) -> Option<Arc<Task>> {
    let tasks = state.list::<Task>().await.ok()?;
    tasks.into_iter().find(|task| is_named(task, container))
}

/// A task's container is named by its id (or the beginning of it) or by its name. Not by the id of the task: that
/// names the task itself, also to `docker inspect`.
pub(super) fn is_named(task: &Task, wanted: &str) -> bool {
    let by_id = task
        .status
        .container
        .as_ref()
        .is_some_and(|c| wanted.len() >= 4 && c.container_id.starts_with(wanted));
    by_id || task.container_name() == wanted
}

/// Returns true where managers have to be asked for a way to another host.
pub(super) fn is_on_a_worker(state: &State) -> bool {
    state.swarm().status().membership().is_some_and(|me| me.role == ModelRole::Worker)
}

/// Sends a request to the front door of `node` and returns its answer; a connection that is taken over there is
/// taken over here too. `container` replaces the name in the path, which that host may not know.
///
/// # Errors
/// 503 when the node does not answer.
pub(super) async fn forward(
    state: &State,
    node: NodeId,
    container: Option<String>,
    role: &Role,
    mut request: Request,
) -> Result<Response, ApiError> {
    let broken = |e: hyper::Error| ApiError::unavailable(format!("node {node} broke the connection: {e}"));
    let (io, via) = if is_on_a_worker(state) {
        // What a manager remembers of an exec, others do not know.
        let known = exec_named(request.uri().path()).and_then(|exec| state.remote_execs.via(exec));
        let (addr, io) = state.swarm().relay(state.asker(), known).await?;
        (io, Some(addr))
    } else {
        (state.swarm().tunnel(node, state.asker()).await?, None)
    };
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let makes_exec = request.method() == Method::POST && request.uri().path().ends_with("/exec");
    let path = match &container {
        Some(id) => with_container(&path, id),
        None => path,
    };
    *request.uri_mut() = path.parse().map_err(|_| ApiError::bad_request("invalid path"))?;
    role.put_on(request.headers_mut());
    // A token is for managers, not for every node.
    request.headers_mut().remove(AUTHORIZATION);
    if takes_over(&request) {
        // Also for a client that did not ask: between hosts there is one way.
        request = with_whole_body(request).await?;
        ask_for_upgrade(request.headers_mut());
    }
    let mut ours = std::mem::take(request.extensions_mut());
    let mut answer = over(state, io, request).await.map_err(broken)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut answer);
        let taken = Taken::of(&mut ours)?;
        let answer = match &taken {
            Taken::Upgrade(_) => answer.map(|_| Body::empty()),
            Taken::Plain(_) => {
                let mut plain = taken.answer();
                plain.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(RAW));
                plain
            }
        };
        state.spawn(async move {
            if let (Ok(ours), Ok(theirs)) = (taken.connection().await, theirs.await) {
                let (mut ours, mut theirs) = (ours.into_io(), TokioIo::new(theirs));
                // Either side may hang up; there is nobody to tell.
                drop(tokio::io::copy_bidirectional(&mut ours, &mut theirs).await);
            }
        });
        return Ok(answer);
    }
    if makes_exec && answer.status() == StatusCode::CREATED {
        let (parts, body) = answer.into_parts();
        let limited = http_body_util::Limited::new(body, ANSWER_MAX);
        let bytes = limited
            .collect()
            .await
            .map_err(|e| ApiError::unavailable(format!("node {node}: {e}")))?
            .to_bytes();
        if let Ok(created) = crate::types::parse::<crate::types::Created>(&bytes)
            && let Some(container) = container
        {
            state.remote_execs.remember(RemoteExec { id: created.id, container, via });
        }
        return Ok(Response::from_parts(parts, Body::from(bytes)));
    }
    Ok(answer.map(Body::new))
}

/// Sends a request over a connection to another front door; returns the answer.
///
/// # Errors
/// The connection broke.
pub(super) async fn over(
    state: &State,
    io: BoxedIo,
    mut request: Request,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    state.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a tunnel ended");
        }
    });
    request.headers_mut().insert(HOST, HeaderValue::from_static("rswarm"));
    sender.send_request(request).await
}

/// Returns true for a request whose answer is a stream both ways, unless it is a refusal.
fn takes_over(request: &Request) -> bool {
    let path = request.uri().path();
    let has = |start: &str, end: &str| path.starts_with(start) && path.ends_with(end);
    request.method() == Method::POST && (has("/containers/", "/attach") || has("/exec/", "/start"))
}

/// Returns the id in `/exec/{id}/...`.
fn exec_named(path: &str) -> Option<&str> {
    path.strip_prefix("/exec/")?.split('/').next()
}

/// Puts another id into `/containers/{id}/...`.
fn with_container(path: &str, id: &str) -> String {
    let rest = path.trim_start_matches("/containers/");
    match rest.find(['/', '?']) {
        Some(end) => format!("/containers/{id}{}", &rest[end..]),
        None => format!("/containers/{id}"),
    }
}

/// How many exec instances are remembered.
const REMEMBERED: usize = 4096;

/// In which containers of other hosts the exec instances are that were made through this door.
#[derive(Debug, Default)]
pub(super) struct RemoteExecs(Mutex<VecDeque<RemoteExec>>);

#[derive(Debug)]
pub(super) struct RemoteExec {
    id: String,
    container: String,
    /// The manager that relayed it; `None`: there was no need.
    via: Option<SocketAddr>,
}

impl RemoteExecs {
    fn remember(&self, exec: RemoteExec) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back(exec);
    }

    fn find<T>(&self, exec: &str, get: impl FnOnce(&RemoteExec) -> T) -> Option<T> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().rev().find(|known| known.id == exec).map(get)
    }

    pub(super) fn container(&self, exec: &str) -> Option<String> {
        self.find(exec, |known| known.container.clone())
    }

    fn via(&self, exec: &str) -> Option<SocketAddr> {
        self.find(exec, |known| known.via).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_all_but_the_name() {
        assert_eq!(with_container("/containers/web.1.x/logs?tail=1", "abc"), "/containers/abc/logs?tail=1");
        assert_eq!(with_container("/containers/web?force=1", "abc"), "/containers/abc?force=1");
        assert_eq!(with_container("/containers/web", "abc"), "/containers/abc");
    }

    #[test]
    fn an_exec_goes_on_by_the_manager_that_made_it() {
        let execs = RemoteExecs::default();
        let via = Some("192.0.2.1:2377".parse().unwrap());
        execs.remember(RemoteExec { id: "e1".into(), container: "c".into(), via });
        execs.remember(RemoteExec { id: "e2".into(), container: "c".into(), via: None });
        let way = |path: &str| exec_named(path).and_then(|exec| execs.via(exec));
        assert_eq!([way("/exec/e1/start"), way("/exec/e1/json")], [via, via]);
        assert_eq!([way("/exec/e2/start"), way("/exec/e3/start"), way("/containers/e1/exec")], [None; 3]);
    }
}
