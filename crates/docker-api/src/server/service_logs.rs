//! `/services/{id}/logs`, `/tasks/{id}/logs`: the logs of tasks on all hosts, merged as they arrive.
//!
//! A host that does not answer costs its own lines and a warning, nothing else.

use super::{
    ApiError, State,
    containers::{MULTIPLEXED, frame, log_options},
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
use model::{NodeId, Service, Task};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

/// Lines waiting for a slow client: the hosts wait with them.
const LINES: usize = 256;

pub(super) fn routes() -> Router<State> {
    Router::new().route("/services/{id}/logs", get(of_service)).route("/tasks/{id}/logs", get(of_task))
}

async fn of_service(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let service = state.find::<Service>(&id).await?;
    let mut tasks = state.list::<Task>().await?;
    tasks.retain(|t| t.service == service.id);
    merged(&state, &tasks, &params)
}

async fn of_task(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let task = state.find::<Task>(&id).await?;
    merged(&state, &[task], &params)
}

fn merged(state: &State, tasks: &[Arc<Task>], params: &Params) -> Result<Response, ApiError> {
    // Judged here once, so that a mistake is an answer and not a warning of each host.
    log_options(params)?;
    let (lines, body) = mpsc::channel::<Bytes>(LINES);
    for task in tasks {
        let (Some(node), Some(container)) = (task.node(), &task.status.container) else { continue };
        if container.container_id.is_empty() {
            continue;
        }
        let prefix = params.flag("details").then(|| details(task, node));
        let path = format!("/containers/{}/logs?{}", container.container_id, query(params));
        let (state_of_task, lines, task) = (state.clone(), lines.clone(), Arc::clone(task));
        state.spawn(async move {
            if let Err(error) = copy(&state_of_task, node, path, prefix.as_deref(), &lines).await {
                let text =
                    format!("warning: incomplete log stream: {} on node {node}: {error}\n", task.name());
                // A client that has gone needs no warning.
                drop(lines.send(frame(2, text.as_bytes())).await);
            }
        });
    }
    let body = ReceiverStream::new(body).map(Ok::<_, std::convert::Infallible>);
    Ok(([(CONTENT_TYPE, MULTIPLEXED)], Body::from_stream(body)).into_response())
}

/// What the docker CLI reads to print `web.1.abc@host | line`.
fn details(task: &Task, node: NodeId) -> String {
    format!(
        "com.docker.swarm.node.id={node},com.docker.swarm.service.id={},com.docker.swarm.task.id={} ",
        task.service, task.id
    )
}

/// The same question for one container, without details: those are the task's.
fn query(params: &Params) -> String {
    ["stdout", "stderr", "follow", "timestamps", "tail", "since", "until"]
        .iter()
        .filter_map(|key| params.get(key).map(|value| format!("{key}={value}")))
        .collect::<Vec<_>>()
        .join("&")
}

/// Copies one task's lines until its log ends or the client goes.
async fn copy(
    state: &State,
    node: NodeId,
    path: String,
    prefix: Option<&str>,
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
    let body = answer.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut frames = Demux::new(StreamReader::new(body));
    while let Some(found) = frames.next().await.map_err(|e| ApiError::unavailable(e.to_string()))? {
        let (stream, line) = match found {
            Frame::Stdout(line) => (1, line),
            Frame::Stderr(line) => (2, line),
            Frame::SystemError(line) => return Err(ApiError::unavailable(String::from_utf8_lossy(&line))),
        };
        let framed = match prefix {
            Some(prefix) => frame(stream, &[prefix.as_bytes(), &line].concat()),
            None => frame(stream, &line),
        };
        if lines.send(framed).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
