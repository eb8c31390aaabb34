//! `/services/{id}/logs`, `/tasks/{id}/logs`: the logs of tasks on all hosts, merged as they arrive.
//!
//! A host that does not answer costs its own lines and a warning, nothing else. Whoever follows a service is given the
//! tasks too that it gets later, from their first line on.
//!
//! ```text
//! time  details of the log, of the task  what was printed      in this order, where asked for
//! ```
//! Source: moby `api/server/httputils/write_log_stream.go`, `daemon/cluster/services.go`.

use super::{
    ApiError, State,
    containers::{MULTIPLEXED, RAW, frame, log_options},
    judge::Role,
    proxy,
    request::{Params, Use},
    routing::get,
};
use crate::client::{Demux, Frame};
use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use model::{NodeId, Object, Service, ServiceId, Task, TaskId};
use proto::{
    control::{WatchEvent, WatchRequest, watch_event::Action},
    types::ObjectKind,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{io::AsyncBufReadExt as _, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

/// Lines waiting for a slow client: the hosts wait with them.
const LINES: usize = 256;
/// Longest line of a terminal that is given on whole. *Unit:* bytes.
const TERMINAL_LINE_MAX: u64 = 64 << 10;
/// How long after the managers' changes broke off they are asked for anew.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<State> {
    Router::new().route("/services/{id}/logs", get(of_service)).route("/tasks/{id}/logs", get(of_task))
}

async fn of_service(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let service = state.find::<Service>(&id).await?;
    let (answer, merged) = Merged::new(&state, &params, service.spec.task.container.tty)?;
    if params.flag("follow") {
        state.clone().spawn(merged.follow(service.id));
        return Ok(answer);
    }
    let tasks = state.list::<Task>().await?;
    for task in tasks.into_iter().filter(|task| task.service == service.id) {
        merged.add(&task, &merged.asked);
    }
    Ok(answer)
}

async fn of_task(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let task = state.find::<Task>(&id).await?;
    let (answer, merged) = Merged::new(&state, &params, task.spec.container.tty)?;
    merged.add(&task, &merged.asked);
    Ok(answer)
}

/// Logs on their way into one answer, which ends when the last of them does.
struct Merged {
    state: State,
    lines: mpsc::Sender<Bytes>,
    shape: Shape,
    /// The question for one container.
    asked: String,
    /// The question for one that is there only now: all of it.
    asked_later: String,
}

/// How lines are told apart and what stands before them.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Without frames, as the log of a terminal is given.
    raw: bool,
    timestamps: bool,
    details: bool,
}

impl Merged {
    fn new(state: &State, params: &Params, raw: bool) -> Result<(Response, Self), ApiError> {
        // Judged here once, so that a mistake is an answer and not a warning of each host.
        log_options(params)?;
        let (lines, body) = mpsc::channel::<Bytes>(LINES);
        let body = ReceiverStream::new(body).map(Ok::<_, std::convert::Infallible>);
        let kind = if raw { RAW } else { MULTIPLEXED };
        let answer = ([(CONTENT_TYPE, kind)], Body::from_stream(body)).into_response();
        let shape = Shape { raw, timestamps: params.flag("timestamps"), details: params.flag("details") };
        let query = |keys: &[&str]| {
            let given = keys.iter().filter_map(|key| params.get(key).map(|value| format!("{key}={value}")));
            given.collect::<Vec<_>>().join("&")
        };
        let always = ["stdout", "stderr", "follow", "timestamps", "details", "since", "until"];
        let asked_later = query(&always);
        let asked = [query(&["tail"]), asked_later.clone()].join("&");
        Ok((answer, Self { state: state.clone(), lines, shape, asked, asked_later }))
    }

    /// Adds the log of a task; says whether it has a container that can have one.
    fn add(&self, task: &Arc<Task>, asked: &str) -> bool {
        let (Some(node), Some(container)) = (task.node(), &task.status.container) else { return false };
        if container.container_id.is_empty() {
            return false;
        }
        let path = format!("/containers/{}/logs?{asked}", container.container_id);
        let (state, lines, task, shape) =
            (self.state.clone(), self.lines.clone(), Arc::clone(task), self.shape);
        self.state.spawn(async move {
            if let Err(error) = copy(&state, node, path, &task, shape, &lines).await {
                let text =
                    format!("warning: incomplete log stream: {} on node {node}: {error}\n", task.name());
                // A client that has gone needs no warning.
                drop(lines.send(shape.framed(2, text.into_bytes())).await);
            }
        });
        true
    }

    /// Adds the logs of a service's tasks, those too that it gets later, until it is removed or the client goes.
    async fn follow(self, service: ServiceId) {
        let mut added = BTreeSet::new();
        let mut asked = &self.asked;
        loop {
            tokio::select! {
                () = self.lines.closed() => return,
                there = self.follow_once(service, &mut added, asked) => match there {
                    Ok(true) => {}
                    Ok(false) => return,
                    // Managers come and go; who follows waits for the next.
                    Err(error) => tracing::debug!(%error, "cannot follow the tasks of a service; trying again"),
                },
            }
            if !added.is_empty() {
                asked = &self.asked_later;
            }
            tokio::select! {
                () = self.lines.closed() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Returns when the changes break off: whether the service is still there.
    async fn follow_once(
        &self,
        service: ServiceId,
        added: &mut BTreeSet<TaskId>,
        asked: &str,
    ) -> Result<bool, ApiError> {
        // From now on, and only then what there is: nothing between the two is missed.
        let kinds = vec![ObjectKind::Task as i32, ObjectKind::Service as i32];
        let request = WatchRequest { since: 0, kinds };
        let mut changes = self.state.control().await?.watch(request).await?.into_inner();
        if !self.state.list::<Service>().await?.iter().any(|there| there.id == service) {
            return Ok(false);
        }
        let mut add = |task: &Arc<Task>, asked: &str| {
            if task.service == service && !added.contains(&task.id) && self.add(task, asked) {
                added.insert(task.id);
            }
        };
        for task in self.state.list::<Task>().await? {
            add(&task, asked);
        }
        while let Some(event) = changes.message().await? {
            let WatchEvent { action, object, old, .. } = event;
            let gone = action == Action::Deleted as i32;
            let Some(object) = object.or(old) else { continue };
            match Object::try_from(object)? {
                Object::Service(of) if gone && of.id == service => return Ok(false),
                Object::Task(task) if !gone => add(&task, &self.asked_later),
                _ => {}
            }
        }
        Ok(true)
    }
}

impl Shape {
    fn framed(self, stream: u8, line: Vec<u8>) -> Bytes {
        if self.raw { line.into() } else { frame(stream, &line) }
    }

    /// Puts what is known of the task where Docker has it: among the details, which stand behind the time.
    fn with_task(self, task: &Task, node: NodeId, line: &[u8]) -> Vec<u8> {
        if !self.details {
            return line.to_vec();
        }
        let word = |bytes: &[u8]| bytes.iter().position(|b| *b == b' ').map_or(bytes.len(), |at| at + 1);
        let (time, rest) = line.split_at(if self.timestamps { word(line) } else { 0 });
        let (attributes, printed) = rest.split_at(word(rest));
        let attributes = String::from_utf8_lossy(attributes);
        let mut all: Vec<String> =
            attributes.trim_end().split(',').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
        all.extend([
            format!("com.docker.swarm.node.id={node}"),
            format!("com.docker.swarm.service.id={}", task.service),
            format!("com.docker.swarm.task.id={}", task.id),
        ]);
        all.sort();
        [time, all.join(",").as_bytes(), b" ", printed].concat()
    }
}

/// Copies one task's lines until its log ends or the client goes.
async fn copy(
    state: &State,
    node: NodeId,
    path: String,
    task: &Task,
    shape: Shape,
    lines: &mpsc::Sender<Bytes>,
) -> Result<(), ApiError> {
    let request = Request::builder()
        .uri(path)
        .body(Body::empty())
        .map_err(|e| ApiError::bad_request(format!("invalid request: {e}")))?;
    let answer = if state.swarm().status().membership().is_some_and(|m| m.node_id == node) {
        state.answer_here(request).await
    } else {
        proxy::forward(state, node, None, &Role::Reads, request).await?
    };
    if answer.status() == axum::http::StatusCode::NOT_FOUND {
        return Ok(()); // removed since: its log went with it
    }
    if !answer.status().is_success() {
        return Err(ApiError::unavailable(format!("HTTP {}", answer.status())));
    }
    let failed = |error: std::io::Error| ApiError::unavailable(error.to_string());
    let body = answer.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut body = StreamReader::new(body);
    if task.spec.container.tty {
        // A terminal's log has no frames: its lines are what there is.
        loop {
            let mut line = Vec::new();
            let mut some = tokio::io::AsyncReadExt::take(&mut body, TERMINAL_LINE_MAX);
            if some.read_until(b'\n', &mut line).await.map_err(failed)? == 0 {
                return Ok(());
            }
            if lines.send(shape.framed(1, shape.with_task(task, node, &line))).await.is_err() {
                return Ok(());
            }
        }
    }
    let mut frames = Demux::new(body);
    while let Some(found) = frames.next().await.map_err(|e| ApiError::unavailable(e.to_string()))? {
        let (stream, line) = match found {
            Frame::Stdout(line) => (1, line),
            Frame::Stderr(line) => (2, line),
            Frame::SystemError(line) => return Err(ApiError::unavailable(String::from_utf8_lossy(&line))),
        };
        if lines.send(shape.framed(stream, shape.with_task(task, node, &line))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_details_and_line_are_in_dockers_order() {
        let task = Task::attachment(TaskId(3), "c", "tool", NodeId(1), Vec::new());
        let own = format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={}",
            NodeId(1),
            task.service,
            TaskId(3)
        );
        for (timestamps, details, line, shown) in [
            (false, false, "a line\n", "a line\n".to_owned()),
            (true, false, "2026-01-01T00:00:00Z a line\n", "2026-01-01T00:00:00Z a line\n".to_owned()),
            // Without details of its own the log has a blank in their place.
            (false, true, " a line\n", format!("{own} a line\n")),
            (false, true, "a=b,z=y a line\n", format!("a=b,{own},z=y a line\n")),
            (
                true,
                true,
                "2026-01-01T00:00:00Z a=b a line\n",
                format!("2026-01-01T00:00:00Z a=b,{own} a line\n"),
            ),
            (true, true, "2026-01-01T00:00:00Z  \n", format!("2026-01-01T00:00:00Z {own} \n")),
        ] {
            let shape = Shape { raw: true, timestamps, details };
            let text = String::from_utf8(shape.with_task(&task, NodeId(1), line.as_bytes())).expect("UTF-8");
            assert_eq!(text, shown, "{line:?}");
        }
    }
}
