//! `/rswarm/stacks`: deployed stacks with their history. Not in Docker.

use super::answer::Answer;
use super::{
    ApiError, State, filters,
    request::{Json, Params, Use},
    routing::{door, get, post},
};
use crate::{convert, types};
use axum::{Router, extract::Path, http::StatusCode};
use model::{Config, ConfigId, Meta, Network, NetworkId, NodeId, Secret, SecretId, ServiceId, Stack};
use proto::{
    WireId as _,
    control::{
        ApplyStackRequest, ExplainServiceRequest, JudgeStackRequest, PlannedRemoval, PlannedService,
        RollbackStackRequest,
    },
};
use std::{collections::BTreeMap, sync::Arc};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/rswarm/stacks", get(list))
        .route("/rswarm/stacks/{name}", get(inspect).post(door(apply)).delete(door(remove)))
        .route("/rswarm/stacks/{name}/rollback", post(rollback))
        .route("/rswarm/stacks/{name}/judge", post(judge))
        .route("/rswarm/stacks/{name}/foresee", post(door(foresee)))
        .route("/rswarm/services/{name}/explain", get(explain))
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<Vec<types::Stack>>, ApiError> {
    let filters = params.filters(filters::STACKS)?;
    let stacks = state.list::<Stack>().await?;
    let shown = stacks.iter().filter(|s| filters.prefix("name", &s.name));
    Ok(Answer(shown.map(|s| convert::stack_json(s)).collect()))
}

async fn inspect(Use(state): Use<State>, Path(name): Path<String>) -> Result<Answer<types::Stack>, ApiError> {
    Ok(Answer(convert::stack_json(&*state.find::<Stack>(&name).await?)))
}

async fn apply(
    Use(state): Use<State>,
    Path(name): Path<String>,
    Json(stack): Json<types::ApplyStack>,
) -> Result<(StatusCode, Answer<types::Stack>), ApiError> {
    let request = request(&state, name, stack).await?;
    let stack = state.control().await?.apply_stack(request).await?.into_inner();
    Ok((StatusCode::CREATED, Answer(convert::stack_json(&Stack::try_from(stack)?))))
}

/// Where its tasks would be; nothing is changed.
async fn foresee(
    Use(state): Use<State>,
    Path(name): Path<String>,
    Json(stack): Json<types::ApplyStack>,
) -> Result<Answer<Vec<types::Outlook>>, ApiError> {
    let request = request(&state, name, stack).await?;
    let foreseen = state.control().await?.foresee_stack(request).await?.into_inner();
    let outlook = |seen: proto::control::Outlook| {
        let placed = seen.placed.into_iter().map(|on| {
            Ok(types::OutlookPlaced { node_id: NodeId::from_wire(&on.node)?.to_string(), tasks: on.tasks })
        });
        let waiting = seen.waiting.into_iter();
        Ok(types::Outlook {
            service: seen.service,
            placed: placed.collect::<Result<_, ApiError>>()?,
            waiting: waiting.map(|w| types::OutlookWaiting { reason: w.reason, tasks: w.tasks }).collect(),
            is_whole: seen.is_whole,
        })
    };
    Ok(Answer(foreseen.services.into_iter().map(outlook).collect::<Result<_, ApiError>>()?))
}

/// How each node stands to one more task of a service.
async fn explain(
    Use(state): Use<State>,
    Path(name): Path<String>,
) -> Result<Answer<Vec<types::NodeVerdict>>, ApiError> {
    let request = ExplainServiceRequest { service: name };
    let answer = state.control().await?.explain_service(request).await?.into_inner();
    let verdicts = answer.nodes.into_iter().map(|verdict| {
        let node_id = NodeId::from_wire(&verdict.node)?.to_string();
        Ok(types::NodeVerdict { node_id, obstacles: verdict.obstacles })
    });
    Ok(Answer(verdicts.collect::<Result<_, ApiError>>()?))
}

/// Ids are chosen here, so that the services of the same request can name what it makes.
async fn request(
    state: &State,
    name: String,
    stack: types::ApplyStack,
) -> Result<ApplyStackRequest, ApiError> {
    convert::check_name(&name)?;
    let meta = Meta::default;
    let mut networks = Vec::new();
    for network in stack.networks {
        let (id, spec) = (NetworkId(random_id()?), convert::network_spec(network)?);
        networks.push(Arc::new(Network { id, meta: meta(), spec, allocation: None, pending_delete: false }));
    }
    let mut secrets = BTreeMap::new();
    for secret in stack.secrets {
        let spec = convert::secret_spec(secret)?;
        secrets.insert(spec.name.clone(), Secret { id: SecretId(random_id()?), meta: meta(), spec });
    }
    let mut configs = BTreeMap::new();
    for config in stack.configs {
        let spec = convert::config_spec(config)?;
        configs.insert(spec.name.clone(), Config { id: ConfigId(random_id()?), meta: meta(), spec });
    }
    let mut known = state.list::<Network>().await?;
    known.extend(networks.iter().cloned());
    let mut services = Vec::new();
    for planned in stack.services {
        let registry_auth = Some(planned.registry_auth.into_bytes()).filter(|auth| !auth.is_empty());
        if let Some(auth) = &registry_auth {
            // Refused here, by who can say why, not by a node that pulls.
            super::images::registry_auth(auth)?;
        }
        let mut spec = planned.spec;
        let container = spec.task_template.container_spec.get_or_insert_default();
        for file in container.secrets.iter_mut().filter(|f| f.secret_id.is_empty()) {
            file.secret_id = secrets.get(&file.secret_name).map(|s| s.id.to_string()).unwrap_or_default();
        }
        for file in container.configs.iter_mut().filter(|f| f.config_id.is_empty()) {
            file.config_id = configs.get(&file.config_name).map(|c| c.id.to_string()).unwrap_or_default();
        }
        let spec = state.service_spec_among(spec, &known).await?;
        services.push(PlannedService { spec: Some((&spec).into()), version: planned.version, registry_auth });
    }
    let removed = |planned: types::PlannedRemoval| {
        let id: ServiceId =
            planned.id.parse().map_err(|_| ApiError::bad_request(format!("invalid id {:?}", planned.id)))?;
        Ok(PlannedRemoval { service: id.to_wire(), version: planned.version })
    };
    // Secrets and configs have ids of one form.
    let kept = |id: String| {
        let id: SecretId = id.parse().map_err(|_| ApiError::bad_request(format!("invalid id {id:?}")))?;
        Ok(id.to_wire())
    };
    Ok(ApplyStackRequest {
        name,
        author: String::new(),
        message: stack.message,
        git: stack.git,
        source: stack.source,
        networks: networks.iter().map(|n| (&**n).into()).collect(),
        secrets: secrets.values().map(Into::into).collect(),
        configs: configs.values().map(Into::into).collect(),
        services,
        removed: stack.removed.into_iter().map(removed).collect::<Result<_, ApiError>>()?,
        kept: stack.kept.into_iter().map(kept).collect::<Result<_, ApiError>>()?,
    })
}

fn random_id() -> Result<u128, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| ApiError::internal(format!("no randomness: {e}")))?;
    Ok(u128::from_be_bytes(bytes))
}

async fn rollback(
    Use(state): Use<State>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Answer<types::Stack>, ApiError> {
    let revision = params.number("revision")?.unwrap_or(0);
    let newest = params.number("newest")?.unwrap_or(0);
    let request = RollbackStackRequest { name, revision, author: String::new(), newest };
    let stack = state.control().await?.rollback_stack(request).await?.into_inner();
    Ok(Answer(convert::stack_json(&Stack::try_from(stack)?)))
}

/// `?revision=N&cameup=1`: whether the services of a revision came up.
async fn judge(
    Use(state): Use<State>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Answer<types::Stack>, ApiError> {
    let revision = params.number("revision")?.unwrap_or(0);
    let came_up = params.flag("cameup");
    let request = JudgeStackRequest { name, revision, came_up };
    let stack = state.control().await?.judge_stack(request).await?.into_inner();
    Ok(Answer(convert::stack_json(&Stack::try_from(stack)?)))
}

async fn remove(Use(state): Use<State>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let stack = state.find::<Stack>(&name).await?;
    state.remove::<Stack>(stack.id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}
