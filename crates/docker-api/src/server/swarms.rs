//! `/swarm`: make, join, leave, change.

use super::answer::Answer;
use super::{
    ApiError, InitRequest, JoinRequest, State, SwarmStatus,
    error::SWARM_LOCKED,
    request::{Json, Params, Use},
    routing::{get, post},
};
use crate::{
    convert::{self, availability, given},
    types,
};
use axum::Router;
use proto::control::{RotateRoot, UpdateSwarmRequest, get_swarm_request::Wanted};
use std::time::Duration;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/swarm", get(inspect))
        .route("/swarm/init", post(init))
        .route("/swarm/join", post(join))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(update))
        .route("/swarm/unlockkey", get(unlock_key))
        .route("/swarm/unlock", post(unlock))
        .merge(super::survival::routes())
}

pub(super) fn wanted_availability(word: &str) -> Result<model::Availability, ApiError> {
    Ok(if word.is_empty() { model::Availability::Active } else { availability(word)? })
}

async fn init(
    Use(state): Use<State>,
    Json(from): Json<types::SwarmInit>,
) -> Result<Answer<String>, ApiError> {
    state.of_the_host()?;
    // A rotation that is asked for by CAConfig.ForceRotate is to have a new root certificate: so a new swarm has.
    let ca = &from.spec.ca_config;
    if !ca.signing_ca_cert.is_empty() || !ca.signing_ca_key.is_empty() {
        return Err(ApiError::bad_request(
            "CAConfig.SigningCACert, SigningCAKey: a new swarm makes its own root certificate; hint: `swarm ca --rotate` \
             replaces it by one of yours",
        ));
    }
    let mut spec = convert::cluster_spec(from.spec, &model::ClusterSpec::default())?;
    spec.autolock |= from.auto_lock_managers;
    let narrow = |value: u32, what: &str| -> Result<Option<u16>, ApiError> {
        let value =
            u16::try_from(value).map_err(|_| ApiError::bad_request(format!("invalid {what}: {value}")))?;
        Ok((value > 0).then_some(value))
    };
    let data_path_port = narrow(from.data_path_port, "DataPathPort")?;
    if data_path_port.is_some_and(|p| !(1024..=49151).contains(&p)) {
        return Err(ApiError::bad_request("Default data path port must be in 1024 to 49151"));
    }
    let subnet_prefix = narrow(from.subnet_size, "SubnetSize")?
        .map(|n| {
            u8::try_from(n)
                .ok()
                .filter(|n| *n <= 29)
                .ok_or_else(|| ApiError::bad_request("invalid SubnetSize"))
        })
        .transpose()?;
    let default_addr_pool = from
        .default_addr_pool
        .iter()
        .map(|p| p.parse().map_err(|_| ApiError::bad_request(format!("invalid CIDR address: {p}"))))
        .collect::<Result<Vec<ipnet::Ipv4Net>, _>>()?;
    address_pools(&default_addr_pool, subnet_prefix.unwrap_or(24))?;
    let request = InitRequest {
        advertise_addr: given(from.advertise_addr),
        listen_addr: given(from.listen_addr),
        data_path_addr: given(from.data_path_addr),
        data_path_port,
        default_addr_pool,
        subnet_prefix,
        availability: wanted_availability(&from.availability)?,
        force_new_cluster: from.force_new_cluster,
        spec,
        person: state.asker().person(),
    };
    Ok(Answer(state.swarm().init(request).await?.to_string()))
}

/// Checks the pools that networks' subnets are cut from.
fn address_pools(pools: &[ipnet::Ipv4Net], subnet_prefix: u8) -> Result<(), ApiError> {
    for (at, pool) in pools.iter().enumerate() {
        if subnet_prefix < pool.prefix_len() {
            return Err(ApiError::bad_request(format!(
                "invalid SubnetSize: a network of /{subnet_prefix} does not fit into the address pool {pool}"
            )));
        }
        if let Some(other) = pools[..at].iter().find(|o| o.contains(pool) || pool.contains(*o)) {
            return Err(ApiError::bad_request(format!("address pools {other} and {pool} overlap")));
        }
    }
    Ok(())
}

async fn join(Use(state): Use<State>, Json(from): Json<types::SwarmJoin>) -> Result<(), ApiError> {
    state.of_the_host()?;
    if from.remote_addrs.is_empty() {
        return Err(ApiError::bad_request("at least one RemoteAddr is required to join"));
    }
    let request = JoinRequest {
        remotes: from.remote_addrs,
        token: from.join_token,
        advertise_addr: given(from.advertise_addr),
        listen_addr: given(from.listen_addr),
        data_path_addr: given(from.data_path_addr),
        availability: wanted_availability(&from.availability)?,
    };
    state.swarm().join(request).await
}

async fn leave(Use(state): Use<State>, params: Params) -> Result<(), ApiError> {
    state.of_the_host()?;
    state.swarm().leave(params.flag("force")).await
}

async fn inspect(Use(state): Use<State>) -> Result<Answer<types::Swarm>, ApiError> {
    Ok(Answer(convert::swarm_json(&state.cluster_with(Wanted::JoinTokens).await?, true)))
}

async fn update(
    Use(state): Use<State>,
    params: Params,
    Json(spec): Json<types::SwarmSpec>,
) -> Result<(), ApiError> {
    let version = params.version("swarm")?;
    let ca = &spec.ca_config;
    if ca.signing_ca_cert.is_empty() != ca.signing_ca_key.is_empty() {
        return Err(ApiError::bad_request(
            "a root certificate and its key are needed, both: an external authority that keeps the key is not supported",
        ));
    }
    let current = state.public_cluster().await?;
    // The number that was read, or none, asks for nothing. *Source:* swarmkit `controlapi/ca_rotation.go`.
    let asked = ca.force_rotate != 0 && ca.force_rotate != current.spec.force_rotate;
    let rotates = asked || !ca.signing_ca_cert.is_empty();
    let rotate_root = rotates.then(|| RotateRoot {
        cert: ca.signing_ca_cert.clone(),
        key: ca.signing_ca_key.clone().into_bytes(),
    });
    let spec = convert::cluster_spec(spec, &current.spec)?;
    // A leader of an earlier version would not see it, and say yes.
    if spec.dead_manager_after.is_some() && current.feature_level < model::DEAD_MANAGERS_LEVEL {
        return Err(ApiError::unavailable(
            "dead managers can be dismissed once every manager has this version; hint: upgrade the others first",
        ));
    }
    if spec.slow_follower_entries.is_some() && current.feature_level < model::RAFT_AND_CA_SETTINGS_LEVEL {
        return Err(ApiError::unavailable(
            "Raft.LogEntriesForSlowFollowers can be set once every manager has this version; hint: upgrade the others \
             first",
        ));
    }
    let request = UpdateSwarmRequest {
        version,
        spec: Some((&spec).into()),
        rotate_worker_token: params.flag("rotateWorkerToken"),
        rotate_manager_token: params.flag("rotateManagerToken"),
        rotate_unlock_key: params.flag("rotateManagerUnlockKey"),
        rotate_root,
    };
    state.control().await?.update_swarm(request).await?;
    Ok(())
}

async fn unlock_key(Use(state): Use<State>) -> Result<Answer<types::UnlockKey>, ApiError> {
    let key = state.cluster_with(Wanted::UnlockKey).await?.unlock_key.unwrap_or_default();
    Ok(Answer(types::UnlockKey { unlock_key: String::from_utf8_lossy(&key.0).into_owned() }))
}

async fn unlock(Use(state): Use<State>, Json(key): Json<types::UnlockKey>) -> Result<(), ApiError> {
    state.of_the_host()?;
    state.swarm().unlock(key.unlock_key).await
}

impl State {
    /// Returns the `Swarm` block of `/info`; what managers would tell is left out when none answers in 2 s.
    pub(super) async fn swarm_info(&self) -> types::SwarmInfo {
        let me = match self.swarm().status() {
            SwarmStatus::Inactive => {
                return types::SwarmInfo {
                    local_node_state: "inactive".into(),
                    ..types::SwarmInfo::default()
                };
            }
            SwarmStatus::Locked => {
                return types::SwarmInfo {
                    local_node_state: "locked".into(),
                    error: SWARM_LOCKED.into(),
                    ..types::SwarmInfo::default()
                };
            }
            SwarmStatus::Failed(error) => {
                return types::SwarmInfo {
                    local_node_state: "error".into(),
                    error,
                    ..types::SwarmInfo::default()
                };
            }
            SwarmStatus::Active(me) => me,
        };
        let mut to = types::SwarmInfo {
            node_id: me.node_id.to_string(),
            node_addr: me.addr.ip().to_string(),
            local_node_state: if me.error.is_empty() { "active" } else { "error" }.into(),
            control_available: me.control_available,
            error: me.error,
            remote_managers: me
                .managers
                .iter()
                .map(|(id, addr)| types::PeerManager { node_id: id.to_string(), addr: addr.to_string() })
                .collect(),
            ..types::SwarmInfo::default()
        };
        if !me.control_available {
            return to;
        }
        let ask =
            async { Ok::<_, ApiError>((self.public_cluster().await?, self.list::<model::Node>().await?)) };
        match tokio::time::timeout(Duration::from_secs(2), ask).await {
            Ok(Ok((cluster, nodes))) => {
                to.cluster = Some(convert::swarm_json(&cluster, false));
                to.nodes = nodes.len() as u64;
                to.managers = nodes.iter().filter(|n| n.spec.role == model::Role::Manager).count() as u64;
            }
            Ok(Err(error)) => to.error = error.message,
            Err(_) => to.error = "no manager answers".into(),
        }
        to
    }
}
