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
use std::{collections::BTreeMap, sync::Arc};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

fn local_json(network: engine::LocalNetwork) -> types::Network {
    let text = |value: Option<String>| value.unwrap_or_default();
    let config = network.subnet.map(|subnet| types::IpamConfig {
        subnet: subnet.to_string(),
        ip_range: text(network.ip_range.map(|r| r.to_string())),
        gateway: text(network.gateway.map(|g| g.to_string())),
        ..Default::default()
    });
    types::Network {
        name: network.name,
        id: network.id,
        created: types::Time(Some(network.created_at)),
        scope: "local".to_owned(),
        driver: network.driver,
        enable_ipv4: true,
        ipam: types::Ipam {
            driver: "default".to_owned(),
            config: config.into_iter().collect(),
            ..Default::default()
        },
        internal: network.internal,
        attachable: network.attachable,
        containers: members_json(network.containers),
        options: network.options,
        labels: network.labels,
        ..Default::default()
    }
}

fn members_json(
    members: BTreeMap<String, engine::NetworkMember>,
) -> BTreeMap<String, types::NetworkContainer> {
    let container = |member: engine::NetworkMember| types::NetworkContainer {
        name: member.name,
        ipv4_address: member
            .endpoint
            .address
            .map_or_else(String::new, |a| format!("{a}/{}", member.endpoint.prefix_len)),
        endpoint_id: member.endpoint.endpoint_id,
        mac_address: member.endpoint.mac,
        ipv6_address: String::new(),
    };
    members.into_iter().map(|(id, member)| (id, container(member))).collect()
}

/// Reads what a new local network should be. *Source:* Docker API `NetworkCreate`.
fn local_config(from: types::NetworkCreate) -> Result<engine::NetworkConfig, ApiError> {
    fn read<T: std::str::FromStr>(what: &str, text: &str) -> Result<Option<T>, ApiError> {
        if text.is_empty() {
            return Ok(None);
        }
        let bad =
            |_| ApiError::bad_request(format!("invalid {what} {text:?} in the network's IPAM configuration"));
        text.parse().map(Some).map_err(bad)
    }
    let ipam = from.ipam.unwrap_or_default();
    if from.enable_ipv6 == Some(true) || ipam.config.len() > 1 {
        return Err(ApiError::not_implemented("a local network has one IPv4 subnet"));
    }
    let config = ipam.config.into_iter().next().unwrap_or_default();
    Ok(engine::NetworkConfig {
        name: from.name,
        driver: from.driver,
        subnet: read("subnet", &config.subnet)?,
        gateway: read("gateway", &config.gateway)?,
        ip_range: read("IP range", &config.ip_range)?,
        internal: from.internal,
        attachable: from.attachable,
        labels: from.labels,
        options: from.options,
    })
}

async fn prune(
    Use(state): Use<State>,
    params: Params,
) -> Result<axum::Json<types::NetworksPruned>, ApiError> {
    let pruned = state.engine()?.network_prune(&params.filters()?.engine()).await?;
    Ok(axum::Json(types::NetworksPruned { networks_deleted: pruned.removed }))
}

async fn connect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    Json(request): Json<types::NetworkConnect>,
) -> Result<StatusCode, ApiError> {
    let asked = request.endpoint_config.unwrap_or_default();
    let address = asked.ipam_config.map(|c| c.ipv4_address).unwrap_or_default();
    let ipv4_address = if address.is_empty() {
        None
    } else {
        let bad = |_| ApiError::bad_request(format!("invalid IPv4 address: {address}"));
        Some(address.parse().map_err(bad)?)
    };
    let endpoint = engine::EndpointConfig {
        aliases: asked.aliases.unwrap_or_default(),
        ipv4_address,
        ..engine::EndpointConfig::default()
    };
    state.engine()?.network_connect(&id, &request.container, endpoint).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    Json(request): Json<types::NetworkDisconnect>,
) -> Result<StatusCode, ApiError> {
    state.engine()?.network_disconnect(&id, &request.container).await?;
    Ok(StatusCode::OK)
}

fn passes(network: &types::Network, filters: &Filters) -> bool {
    let builtin = matches!(network.name.as_str(), "bridge" | "host" | "none");
    filters.any("id", |i| network.id.starts_with(i))
        && filters.clone().engine().name_matches(&network.name)
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
        let Ok(engine) = self.engine() else { return Ok(Vec::new()) };
        Ok(engine.networks(&engine::Filters::default()).into_iter().map(local_json).collect())
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
    let mut network = state.any_network(&id, params.get("scope")).await?;
    if network.scope == "swarm"
        && let Ok(engine) = state.engine()
    {
        // As in Docker: those of this host.
        network.containers = members_json(engine.network_members(&network.id));
    }
    Ok(axum::Json(network))
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
    let network = state.engine()?.network_create(local_config(from)?).await?;
    let created = types::NetworkCreated { id: network.id, warning: String::new() };
    Ok((StatusCode::CREATED, axum::Json(created)))
}

async fn remove(Use(state): Use<State>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let network = state.any_network(&id, None).await?;
    if network.scope == "swarm" {
        let id: NetworkId =
            network.id.parse().map_err(|_| ApiError::internal(format!("bad network id {}", network.id)))?;
        state.remove::<Network>(id, false).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    state.engine()?.network_remove(&network.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
