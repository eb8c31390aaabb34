//! `/networks`: this host's from the engine, the swarm's from a manager.

use super::answer::Answer;
use super::{
    ApiError, ApiVersion, Filters, State, SwarmStatus, filters,
    request::{Json, Params, Use},
    routing::{door, get, post},
};
use crate::{convert, types};
use axum::{Extension, Router, extract::Path, http::StatusCode};
use ipnet::IpNet;
use model::{Network, NetworkDriver, NetworkId, Node, Service};
use proto::control::create_request;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(door(remove)))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

fn local_json(network: engine::LocalNetwork) -> types::Network {
    let text = |value: Option<String>| value.unwrap_or_default();
    let aux = |v4: bool| {
        let mine = network.aux_addresses.iter().filter(|(_, address)| address.is_ipv4() == v4);
        mine.map(|(name, address)| (name.clone(), address.to_string())).collect()
    };
    let config = network.subnet.map(|subnet| types::IpamConfig {
        subnet: subnet.to_string(),
        ip_range: text(network.ip_range.map(|r| r.to_string())),
        gateway: text(network.gateway.map(|g| g.to_string())),
        auxiliary_addresses: aux(true),
    });
    let config6 = network.subnet6.map(|subnet| types::IpamConfig {
        subnet: subnet.to_string(),
        ip_range: text(network.ip_range6.map(|r| r.to_string())),
        gateway: text(network.gateway6.map(|g| g.to_string())),
        auxiliary_addresses: aux(false),
    });
    types::Network {
        name: network.name,
        id: network.id,
        created: types::Time(Some(network.created_at)),
        scope: "local".to_owned(),
        driver: network.driver,
        enable_ipv4: true,
        enable_ipv6: network.subnet6.is_some(),
        ipam: types::Ipam {
            driver: "default".to_owned(),
            options: network.ipam_options.then(types::StringMap::new),
            config: config.into_iter().chain(config6).collect(),
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
        ipv6_address: member
            .endpoint
            .address6
            .map_or_else(String::new, |a| format!("{a}/{}", member.endpoint.prefix6_len)),
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
    if from.config_only || from.config_from.is_some_and(|config| !config.network.is_empty()) {
        return Err(ApiError::not_implemented("configuration-only networks are not supported"));
    }
    if from.ingress {
        return Err(ApiError::bad_request("only overlay driver is currently supported for ingress network"));
    }
    if !matches!(from.scope.as_str(), "" | "local") {
        return Err(ApiError::bad_request("Scope: it is neither \"local\" nor \"swarm\""));
    }
    if from.enable_ipv4 == Some(false) {
        return Err(ApiError::not_implemented("a local network always has IPv4"));
    }
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return Err(ApiError::not_found(format!(
            "could not find plugin {}: IPAM driver not found",
            ipam.driver
        )));
    }
    if let Some(option) = ipam.options.as_ref().and_then(|options| options.keys().next()) {
        return Err(ApiError::bad_request(format!(
            "IPAM.Options: the default driver has no option {option:?}"
        )));
    }
    let is_v6 = |c: &types::IpamConfig| c.subnet.contains(':') || c.gateway.contains(':');
    let (v6, v4): (Vec<_>, Vec<_>) = ipam.config.into_iter().partition(is_v6);
    if v4.len() > 1 || v6.len() > 1 {
        return Err(ApiError::not_implemented("a local network has one IPv4 subnet and one IPv6 subnet"));
    }
    if from.enable_ipv6 == Some(false) && !v6.is_empty() {
        return Err(ApiError::bad_request("the network has an IPv6 subnet, but no IPv6; hint: --ipv6"));
    }
    // Who names an IPv6 subnet and says nothing else wants IPv6.
    let ipv6 = from.enable_ipv6.unwrap_or(!v6.is_empty());
    let (v4, v6) = (v4.into_iter().next().unwrap_or_default(), v6.into_iter().next().unwrap_or_default());
    let mut aux_addresses = BTreeMap::new();
    for (name, address) in v4.auxiliary_addresses.into_iter().chain(v6.auxiliary_addresses) {
        aux_addresses.extend(read("auxiliary address", &address)?.map(|address| (name, address)));
    }
    Ok(engine::NetworkConfig {
        name: from.name,
        driver: from.driver,
        subnet: read("subnet", &v4.subnet)?,
        gateway: read("gateway", &v4.gateway)?,
        ip_range: read("IP range", &v4.ip_range)?,
        ipv6,
        subnet6: read("subnet", &v6.subnet)?,
        gateway6: read("gateway", &v6.gateway)?,
        ip_range6: read("IP range", &v6.ip_range)?,
        ipam_options: ipam.options.is_some(),
        aux_addresses,
        internal: from.internal,
        attachable: from.attachable,
        labels: from.labels,
        options: from.options,
    })
}

async fn prune(Use(state): Use<State>, params: Params) -> Result<Answer<types::NetworksPruned>, ApiError> {
    let pruned = state.engine()?.network_prune(&params.filters(filters::PRUNED)?.engine()).await?;
    Ok(Answer(types::NetworksPruned { networks_deleted: types::some_of(pruned.removed) }))
}

async fn connect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    Json(request): Json<types::NetworkConnect>,
) -> Result<StatusCode, ApiError> {
    let endpoint = super::container_create::endpoint(request.endpoint_config.unwrap_or_default())?;
    state.engine()?.network_connect(&id, &request.container, endpoint).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    Json(request): Json<types::NetworkDisconnect>,
) -> Result<StatusCode, ApiError> {
    let engine = state.engine()?;
    match engine.network_disconnect(&id, &request.container).await {
        // By force the endpoint goes of a container that is not there; here none outlives its container.
        Err(engine::Error::NoSuchContainer(name)) if request.force => {
            Err(ApiError::not_found(format!("endpoint {name} not found")))
        }
        outcome => Ok(outcome.map(|()| StatusCode::OK)?),
    }
}

/// `used`: by containers of this host, or by services.
fn passes(network: &types::Network, used: bool, filters: &Filters) -> bool {
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
        && filters.flag("dangling").is_none_or(|dangling| dangling != (used || builtin || network.ingress))
        && filters.labels("label", &network.labels)
}

impl State {
    /// Returns the swarm's networks that people see: its stand-ins for the hosts' own are not.
    async fn swarm_networks(&self) -> Result<Vec<types::Network>, ApiError> {
        match self.swarm().status() {
            SwarmStatus::Active(_) => {
                let mut all = match self.list::<Network>().await {
                    // A worker shows what its tasks are on, as Docker's do.
                    Err(error)
                        if error == ApiError::not_a_manager(self.asker()) && self.of_the_host().is_ok() =>
                    {
                        self.swarm().own_networks().await?.into_iter().map(Arc::new).collect()
                    }
                    listed => listed?,
                };
                all.retain(|n| {
                    matches!(n.spec.driver, NetworkDriver::Overlay | NetworkDriver::Ingress)
                        && !n.pending_delete
                });
                Ok(all.iter().map(|n| convert::network_json(n)).collect())
            }
            SwarmStatus::Inactive | SwarmStatus::Locked | SwarmStatus::Failed(_) => Ok(Vec::new()),
        }
    }

    /// Returns the ids of the networks that services are on.
    async fn networks_of_services(&self) -> Result<BTreeSet<String>, ApiError> {
        let services = self.list::<Service>().await?;
        let networks = services.iter().flat_map(|service| &service.spec.task.networks);
        Ok(networks.map(|attachment| attachment.network.to_string()).collect())
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
        let of_all_hosts = all.clone().into_iter().filter(|n| matches!(&*n.name, "host" | "none" | "bridge"));
        let unknown = match self.swarm_networks().await {
            Ok(swarm) => {
                // Every host has them, so services may be on them: whoever makes one asks for its networks so.
                if scope == Some("swarm") && matches!(self.swarm().status(), SwarmStatus::Active(_)) {
                    all.extend(of_all_hosts.map(|n| types::Network { scope: "swarm".to_owned(), ..n }));
                }
                all.extend(swarm);
                None
            }
            // This host's own are there all the same.
            Err(error) => Some(error),
        };
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
        if let Some(found) =
            one(all.iter().filter(|n| n.id.starts_with(wanted)).collect(), "based on the ID prefix")?
        {
            return Ok(found);
        }
        // Those of every host are in no list; services name them by id.
        if let Some(error) = unknown {
            return Err(error);
        }
        let hidden = self.cluster_networks().await.unwrap_or_default();
        let found = hidden.values().find(|n| n.id.to_string() == wanted);
        found
            .map(|n| convert::network_json(n))
            .ok_or_else(|| ApiError::not_found(format!("network {wanted} not found")))
    }
}

async fn list(
    Use(state): Use<State>,
    Extension(version): Extension<ApiVersion>,
    params: Params,
) -> Result<Answer<Vec<types::Network>>, ApiError> {
    let filters = params.filters(filters::NETWORKS)?;
    let mut all = state.local_networks().await?;
    // `docker network ls` must work while the managers are away.
    match state.swarm_networks().await {
        Ok(swarm) => all.extend(swarm),
        Err(error) => tracing::warn!(error = %error, "networks of the swarm are not shown"),
    }
    let served = match filters.flag("dangling") {
        Some(_) if all.iter().any(|network| network.scope == "swarm") => state.networks_of_services().await?,
        _ => BTreeSet::new(),
    };
    all.retain(|network| {
        let used = !network.containers.is_empty() || served.contains(&network.id);
        passes(network, used, &filters)
    });
    // Until then lists told who is on a network. *Source:* moby `router/network`.
    if version >= ApiVersion(1, 28) {
        all.iter_mut().for_each(|network| network.containers.clear());
    }
    Ok(Answer(all))
}

async fn inspect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Answer<types::Network>, ApiError> {
    let mut network = state.any_network(&id, params.get("scope")).await?;
    if network.scope == "swarm"
        && let Ok(engine) = state.engine()
    {
        // As in Docker: those of this host.
        network.containers = members_json(engine.network_members(&network.id));
    }
    Ok(Answer(network))
}

/// Says what nodes reach by addresses that somebody wants for a network of the swarm. Docker makes such a network, and so
/// do we, as it does nobody harm but whom it is for; its bridges, which would take the host's own routes, are refused.
/// `nodes`: their names, and what they reach.
fn meets_hosts<'a>(subnet: IpNet, nodes: impl Iterator<Item = (&'a str, &'a [IpNet])>) -> Option<String> {
    let mut met = nodes.filter_map(|(host, reached)| {
        Some((host, reached.iter().find(|net| net.contains(&subnet) || subnet.contains(*net))?))
    });
    let (host, net) = met.next()?;
    let more = match met.count() {
        0 => String::new(),
        1 => " (and so has 1 other node)".to_owned(),
        many => format!(" (and so have {many} other nodes)"),
    };
    Some(format!(
        "subnet {subnet} meets {net}, which node {host} has a link or route to{more}: containers on this network do not \
         reach what is there, and their published ports do not answer it; hint: take other addresses, or none to have some chosen that no node knows"
    ))
}

async fn create(
    Use(state): Use<State>,
    Json(from): Json<types::NetworkCreate>,
) -> Result<(StatusCode, Answer<types::NetworkCreated>), ApiError> {
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
        let warning = match spec.subnet {
            Some(subnet) => {
                // Only said; the network is there.
                let nodes = state.list::<Node>().await.unwrap_or_default();
                let described = nodes.iter().filter_map(|node| node.description.as_ref());
                meets_hosts(subnet, described.map(|node| (node.hostname.as_str(), node.networks.as_slice())))
            }
            None => None,
        };
        let created = types::NetworkCreated { id: id.to_string(), warning: warning.unwrap_or_default() };
        return Ok((StatusCode::CREATED, Answer(created)));
    }
    let network = state.engine()?.network_create(local_config(from)?).await?;
    let created = types::NetworkCreated { id: network.id, warning: String::new() };
    Ok((StatusCode::CREATED, Answer(created)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_local_network_cannot_be_is_refused_by_its_key() {
        let said = |more: &str| {
            let json = format!(r#"{{"Name":"n"{more}}}"#);
            local_config(types::parse(json.as_bytes()).unwrap()).err().map_or_else(String::new, |e| e.message)
        };
        assert_eq!(said(r#","Scope":"local","ConfigFrom":{"Network":""}"#), "");
        for (more, named) in [
            (r#","ConfigOnly":true"#, "configuration-only"),
            (r#","ConfigFrom":{"Network":"x"}"#, "configuration-only"),
            (r#","Ingress":true"#, "ingress"),
            (r#","Scope":"global""#, "Scope"),
            (r#","EnableIPv4":false"#, "IPv4"),
            (r#","IPAM":{"Driver":"dhcp"}"#, "dhcp"),
            (r#","IPAM":{"Options":{"a":"b"}}"#, "IPAM.Options"),
            (r#","IPAM":{"Config":[{"Subnet":"10.0.0.0/24"},{"Subnet":"10.1.0.0/24"}]}"#, "one IPv4 subnet"),
        ] {
            assert!(said(more).contains(named), "{more}: {}", said(more));
        }
    }

    #[test]
    fn who_asks_for_addresses_that_a_node_reaches_is_told_which_node() {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        let (one, two) = (nets(&["192.168.7.0/24"]), nets(&["10.1.0.0/16", "fd00:1::/32"]));
        let said = |subnet: &str| {
            let nodes = [("a", one.as_slice()), ("b", two.as_slice()), ("c", two.as_slice())];
            meets_hosts(subnet.parse().unwrap(), nodes.into_iter()).unwrap_or_default()
        };
        assert!(
            said("192.168.7.64/26").contains("meets 192.168.7.0/24, which node a has a link or route to:")
        );
        assert!(said("192.168.0.0/16").contains("node a"));
        assert!(
            said("10.1.2.0/24").contains("which node b has a link or route to (and so has 1 other node):")
        );
        assert!(said("fd00:1:2::/64").contains("fd00:1::/32"));
        for subnet in ["192.168.8.0/24", "10.2.0.0/16", "fd00:2::/64"] {
            assert_eq!(said(subnet), "", "{subnet}");
        }
    }
}
