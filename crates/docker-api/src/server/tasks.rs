//! `/tasks`

use super::answer::Answer;
use super::{
    ApiError, State, filters,
    request::{Params, Use},
    routing::get,
};
use crate::{convert, types};
use axum::{Router, extract::Path};
use model::{Mode, Node, NodeId, Service, ServiceId, Task};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) fn routes() -> Router<State> {
    Router::new().route("/tasks", get(list)).route("/tasks/{id}", get(inspect))
}

fn is_job(service: Option<&Arc<Service>>) -> bool {
    service.is_some_and(|s| matches!(s.spec.mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob))
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<Vec<types::Task>>, ApiError> {
    let filters = params.filters(filters::TASKS)?;
    let services: BTreeMap<ServiceId, Arc<Service>> =
        state.list::<Service>().await?.into_iter().map(|s| (s.id, s)).collect();
    let networks = state.cluster_networks().await?;
    let chosen_services: Option<BTreeSet<ServiceId>> = (!filters.get("service").is_empty()).then(|| {
        let named = |s: &Service| {
            filters.get("service").iter().any(|wanted| {
                s.spec.name == *wanted || (!wanted.is_empty() && s.id.to_string().starts_with(wanted))
            })
        };
        services.values().filter(|s| named(s)).map(|s| s.id).collect()
    });
    let chosen_nodes = state.nodes_named(filters.get("node")).await?;
    let up_to_date = filters.flag("_up-to-date").unwrap_or(false);
    let passes = |task: &Task| {
        let service = services.get(&task.service);
        chosen_services.as_ref().is_none_or(|c| c.contains(&task.service))
            && chosen_nodes.as_ref().is_none_or(|c| task.node().is_some_and(|n| c.contains(&n)))
            && filters.prefix("id", &task.id.to_string())
            && filters.any("name", |n| task.service_name.starts_with(n) || task.name().starts_with(n))
            && filters.labels("label", service.map_or(&model::Labels::new(), |s| &s.spec.labels))
            && filters.any("runtime", |runtime| runtime == "container")
            && filters.any("desired-state", |d| d == convert::desired_word(task.desired))
            && (!up_to_date || service.is_some_and(|s| convert::is_up_to_date(task, s)))
    };
    let tasks = state.list::<Task>().await?;
    Ok(Answer(
        tasks
            .iter()
            .filter(|t| t.attaches.is_none() && passes(t))
            .map(|t| convert::task_json(t, is_job(services.get(&t.service)), &networks))
            .collect(),
    ))
}

async fn inspect(Use(state): Use<State>, Path(id): Path<String>) -> Result<Answer<types::Task>, ApiError> {
    let task = state.find::<Task>(&id).await?;
    let networks = state.cluster_networks().await?;
    let service = state.find::<Service>(&task.service.to_string()).await.ok();
    Ok(Answer(convert::task_json(&task, is_job(service.as_ref()), &networks)))
}

impl State {
    /// Returns the nodes that filter values name (by id, id prefix, host name, or `self`); `None` = no filter.
    pub(super) async fn nodes_named(&self, wanted: &[String]) -> Result<Option<BTreeSet<NodeId>>, ApiError> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let me = self.swarm().status().membership().map(|m| m.node_id);
        let named = |node: &Node| {
            wanted.iter().any(|w| {
                (w == "self" && me == Some(node.id))
                    || node.display_name() == *w
                    || node.description.as_ref().is_some_and(|d| d.hostname == *w)
                    || (!w.is_empty() && node.id.to_string().starts_with(w.as_str()))
            })
        };
        let nodes = self.list::<Node>().await?;
        Ok(Some(nodes.iter().filter(|n| named(n)).map(|n| n.id).collect()))
    }
}
