//! `/networks`: this host's from the engine, the swarm's from a manager.

use super::{
    ApiError, Filters, State, SwarmStatus,
    request::{Json, Params},
};
use crate::{convert, types};
use axum::{
    Router,
    extract::{Path, State as Use},
    http::StatusCode,
    routing::{get, post},
};
use model::{Network, NetworkDriver, NetworkId};
use proto::control::create_request;
use std::sync::Arc;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/{id}", get(inspect).delete(remove))
}

fn passes(network: &types::Network, filters: &Filters) -> bool {
    let builtin = matches!(network.name.as_str(), "bridge" | "host" | "none");
    filters.any("id", |i| network.id.starts_with(i))
        && filters.any("name", |n| network.name.contains(n))
        && filters.any("driver", |d| network.driver == d)
        && filters.any("scope", |s| network.scope == s)
        && filters.any("type", |t| match t {
            "custom" => !builtin,
            "builtin" => builtin,
            _ => false,
        })
        && filters.labels("label", &network.labels)
}

impl State {
    /// Returns the swarm's networks that people see: its stand-ins for `host` and `none` are not.
    async fn swarm_networks(&self) -> Result<Vec<Arc<Network>>, ApiError> {
        match self.swarm().status() {
            SwarmStatus::Active(_) => {
                let mut all = self.list::<Network>().await?;
                all.retain(|n| n.spec.driver == NetworkDriver::Overlay && !n.pending_delete);
                Ok(all)
            }
            SwarmStatus::Inactive | SwarmStatus::Locked => Ok(Vec::new()),
        }
    }

    async fn local_networks(&self) -> Result<Vec<types::Network>, ApiError> {
        Ok(Vec::new())
    }

    /// Returns the name of this host's network of that name or id.
    pub(super) async fn local_network_name(&self, id_or_name: &str) -> Option<String> {
        let local = self.local_networks().await.ok()?;
        local.into_iter().find(|n| n.id == id_or_name || n.name == id_or_name).map(|n| n.name)
    }

    /// Finds a network by id, name or unique id prefix, in this order, as Docker does.
    async fn any_network(&self, wanted: &str, scope: Option<&str>) -> Result<types::Network, ApiError> {
        let mut all = self.local_networks().await?;
        all.extend(self.swarm_networks().await?.iter().map(|n| convert::network_json(n)));
        all.retain(|n| scope.is_none_or(|s| s == n.scope));
        let one = |matches: Vec<&types::Network>, by: &str| match matches.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            many => Err(ApiError::bad_request(format!(
                "network {wanted} is ambiguous ({} matches found {by})",
                many.len()
            ))),
        };
        if let Some(found) = one(all.iter().filter(|n| n.id == wanted).collect(), "on ID")? {
            return Ok(found);
        }
        if let Some(found) = one(all.iter().filter(|n| n.name == wanted).collect(), "on name")? {
            return Ok(found);
        }
        one(all.iter().filter(|n| n.id.starts_with(wanted)).collect(), "based on the ID prefix")?
            .ok_or_else(|| ApiError::not_found(format!("network {wanted} not found")))
    }
}

async fn list(Use(state): Use<State>, params: Params) -> Result<axum::Json<Vec<types::Network>>, ApiError> {
    let filters = params.filters()?.only(&["id", "name", "driver", "scope", "type", "label", "dangling"])?;
    let mut all = state.local_networks().await?;
    // `docker network ls` must work while the managers are away.
    match state.swarm_networks().await {
        Ok(swarm) => all.extend(swarm.iter().map(|n| convert::network_json(n))),
        Err(error) => tracing::warn!(error = %error, "networks of the swarm are not shown"),
    }
    all.retain(|n| passes(n, &filters));
    Ok(axum::Json(all))
}

async fn inspect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<axum::Json<types::Network>, ApiError> {
    Ok(axum::Json(state.any_network(&id, params.get("scope")).await?))
}

async fn create(
    Use(state): Use<State>,
    Json(from): Json<types::NetworkCreate>,
) -> Result<(StatusCode, axum::Json<types::NetworkCreated>), ApiError> {
    if from.driver == "overlay" || from.scope == "swarm" {
        if matches!(state.swarm().status(), SwarmStatus::Inactive) {
            return Err(ApiError::not_in_swarm());
        }
        let spec = convert::network_spec(from)?;
        if state.local_network_name(&spec.name).await.is_some() {
            return Err(ApiError::conflict(format!("network with name {} already exists", spec.name)));
        }
        let id: NetworkId = match state.create(create_request::Spec::Network((&spec).into())).await {
            Err(error) if error.status == StatusCode::CONFLICT => {
                return Err(ApiError::conflict(format!("network with name {} already exists", spec.name)));
            }
            other => other?,
        };
        let created = types::NetworkCreated { id: id.to_string(), warning: String::new() };
        return Ok((StatusCode::CREATED, axum::Json(created)));
    }
    Err(ApiError::unavailable("local networks need an engine"))
}

async fn remove(Use(state): Use<State>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let network = state.any_network(&id, None).await?;
    if network.scope == "swarm" {
        let id: NetworkId =
            network.id.parse().map_err(|_| ApiError::internal(format!("bad network id {}", network.id)))?;
        state.remove::<Network>(id, false).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::unavailable("local networks need an engine"))
}
