//! `/rswarm/containers`: the containers of all nodes. Not in Docker.
//!
//! A manager asks each node through a tunnel, as `proxy` does for one container, and leaves out what who asks may not
//! see: all but admins see containers of tasks. A worker has a manager do it.

use super::answer::Answer;
use super::{
    ApiError, State, filters,
    judge::{self, Role},
    proxy,
    request::{Params, Use},
    routing::get,
};
use crate::types;
use axum::{
    Router,
    body::Body,
    extract::{RawQuery, Request},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use model::{Node, NodeId, NodeState, Task};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub(super) const PATH: &str = "/rswarm/containers";
/// Nodes that are asked at once.
const AT_ONCE: usize = 16;
/// How long one of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// *Limit* of the lists of all nodes together. *Unit:* bytes.
const LISTS_BYTES_MAX: usize = 128 << 20;
/// *Limit* of the list of one node. *Unit:* bytes.
const LIST_BYTES_MAX: usize = LISTS_BYTES_MAX / AT_ONCE;

pub(super) fn routes() -> Router<State> {
    Router::new().route(PATH, get(list))
}

/// `GET /rswarm/containers`, with the query of `/containers/json`.
async fn list(
    Use(state): Use<State>,
    params: Params,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    // What is wrong with it is said once, and not by each node.
    params.filters(filters::CONTAINERS)?;
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    if proxy::is_on_a_worker(&state) {
        let (_, io) = state.swarm().relay(state.asker(), None).await?;
        let answer = proxy::over(&state, io, get_of(&format!("{PATH}{query}"))?).await;
        let broken = |e| ApiError::unavailable(format!("the manager broke the connection: {e}"));
        return Ok(answer.map_err(broken)?.map(Body::new));
    }
    let (role, _) = judge::role(&state).await?;
    let seen = match role {
        Role::All => None,
        Role::Acts | Role::Reads => Some(containers_of_tasks(&state).await?),
    };
    let mut nodes = state.list::<Node>().await?;
    nodes.sort_by_key(|node| (node.display_name(), node.id));
    let asked: Vec<_> = nodes.iter().map(|node| on(&state, node, &query)).collect();
    let mut asked = futures::stream::iter(asked).buffered(AT_ONCE);
    let (mut all, mut room) = (Vec::new(), LISTS_BYTES_MAX);
    while let Some((mut of_node, bytes)) = asked.next().await {
        match room.checked_sub(bytes) {
            Some(left) => room = left,
            None => {
                of_node.containers = Vec::new();
                of_node.error = format!("the lists of all nodes have more than {LISTS_BYTES_MAX} bytes");
            }
        }
        if let Some(seen) = &seen {
            of_node.containers.retain(|container| seen.contains(&*container.id));
        }
        all.push(of_node);
    }
    Ok(Answer(all).into_response())
}

fn get_of(path: &str) -> Result<Request, ApiError> {
    Request::get(path).body(Body::empty()).map_err(|_| ApiError::bad_request("invalid query"))
}

async fn containers_of_tasks(state: &State) -> Result<BTreeSet<String>, ApiError> {
    let tasks = state.list::<Task>().await?;
    let id =
        |task: &Arc<Task>| task.status.container.as_ref().map(|container| container.container_id.clone());
    Ok(tasks.iter().filter_map(id).collect())
}

/// Returns the containers of a node, or why they are not known; and how long the list was.
async fn on(state: &State, node: &Node, query: &str) -> (types::NodeContainers, usize) {
    let mut of_node = types::NodeContainers {
        node_id: node.id.to_string(),
        hostname: node.display_name(),
        ready: node.status.state == NodeState::Ready,
        ..Default::default()
    };
    if !of_node.ready {
        of_node.error = match node.status.state {
            NodeState::Away => "its daemon is away",
            _ => "it is down",
        }
        .to_owned();
        return (of_node, 0);
    }
    let asked = tokio::time::timeout(PATIENCE, asked(state, node.id, query)).await;
    let said = asked.unwrap_or_else(|_| {
        Err(ApiError::unavailable(format!("it does not answer within {} s", PATIENCE.as_secs())))
    });
    match said {
        Ok((containers, bytes)) => {
            of_node.containers = containers;
            (of_node, bytes)
        }
        Err(error) => {
            of_node.error = error.message;
            (of_node, 0)
        }
    }
}

async fn asked(
    state: &State,
    node: NodeId,
    query: &str,
) -> Result<(Vec<types::ContainerSummary<'static>>, usize), ApiError> {
    let mut request = get_of(&format!("/containers/json{query}"))?;
    let here = state.swarm().status().membership().map(|me| me.node_id);
    let answer = if here == Some(node) {
        state.answer_here(request).await
    } else {
        // Judged here: the node shows all that it has.
        Role::All.put_on(request.headers_mut());
        let io = state.swarm().tunnel(node, state.asker()).await?;
        let answer = proxy::over(state, io, request).await;
        answer.map_err(|e| ApiError::unavailable(format!("the connection broke: {e}")))?.map(Body::new)
    };
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), LIST_BYTES_MAX).collect().await;
    let body = body.map_err(|e| ApiError::unavailable(format!("its list does not come: {e}")))?.to_bytes();
    if !status.is_success() {
        let refusal: types::ErrorBody = types::parse(&body).unwrap_or_default();
        return Err(ApiError { status, message: refusal.message });
    }
    let containers =
        types::parse(&body).map_err(|e| ApiError::unavailable(format!("its list is none: {e}")))?;
    Ok((containers, body.len()))
}
