//! `/nodes`

use super::answer::Answer;
use super::{
    ApiError, Filters, State, filters,
    request::{Json, Params, Use},
    routing::{door, get, post},
};
use crate::{convert, types};
use axum::{Router, extract::Path};
use model::{Cluster, Node};
use proto::control::update_request::Spec;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/nodes", get(list))
        .route("/nodes/{id}", get(inspect).delete(door(remove)))
        .route("/nodes/{id}/update", post(update))
}

impl State {
    /// Returns the node of that id or name; `self` is this one.
    pub(super) async fn node(&self, id: &str) -> Result<std::sync::Arc<Node>, ApiError> {
        match (id, self.swarm().status().membership()) {
            ("self", Some(me)) => self.find(&me.node_id.to_string()).await,
            _ => self.find(id).await,
        }
    }

    fn node_json(&self, node: &Node, cluster: &Cluster) -> types::Node {
        let leader = self.swarm().status().membership().and_then(|m| m.leader);
        convert::node_json(node, leader, cluster)
    }
}

fn passes(node: &Node, filters: &Filters) -> bool {
    let description = node.description.as_ref();
    let hostname = description.map_or("", |d| d.hostname.as_str());
    let no_labels = model::Labels::new();
    filters.prefix("id", &node.id.to_string())
        && filters.any("name", |n| hostname.starts_with(n) || node.display_name().starts_with(n))
        && filters.any("role", |r| r == convert::role_word(node.spec.role))
        && filters.any("membership", |m| m == "accepted")
        && filters.labels("node.label", &node.spec.labels)
        && filters.labels("label", description.map_or(&no_labels, |d| &d.engine_labels))
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<Vec<types::Node>>, ApiError> {
    let filters = params.filters(filters::NODES)?;
    let nodes = state.list::<Node>().await?;
    let cluster = state.public_cluster().await?;
    Ok(Answer(nodes.iter().filter(|n| passes(n, &filters)).map(|n| state.node_json(n, &cluster)).collect()))
}

async fn inspect(Use(state): Use<State>, Path(id): Path<String>) -> Result<Answer<types::Node>, ApiError> {
    let node = state.node(&id).await?;
    let cluster = state.public_cluster().await?;
    Ok(Answer(state.node_json(&node, &cluster)))
}

async fn update(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    Json(spec): Json<types::NodeSpec>,
) -> Result<(), ApiError> {
    let version = params.version("node")?;
    let spec = convert::node_spec(spec)?;
    let node = state.node(&id).await?;
    state.update(node.id, version, Spec::Node((&spec).into())).await
}

async fn remove(Use(state): Use<State>, Path(id): Path<String>, params: Params) -> Result<(), ApiError> {
    let node = state.node(&id).await?;
    state.remove::<Node>(node.id, params.flag("force")).await
}
