//! `/services`

use super::answer::Answer;
use super::{
    ApiError, Filters, State, filters,
    request::{Json, Params, Use},
    routing::{door, get, post},
    rows::Rows,
};
use crate::{
    convert,
    types::{self, Written as _},
};
use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode},
};
use model::{
    Desired, Mode, Network, NetworkDriver, NetworkId, NetworkSpec, Service, ServiceId, Task, TaskState,
};
use proto::control::{create_request, update_request};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/services", get(list))
        .route("/services/create", post(create))
        .route("/services/{id}", get(inspect).delete(door(remove)))
        .route("/services/{id}/update", post(update))
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Replicated { .. } => "replicated",
        Mode::Global => "global",
        Mode::ReplicatedJob { .. } => "replicated-job",
        Mode::GlobalJob => "global-job",
    }
}

fn passes(service: &Service, filters: &Filters) -> bool {
    filters.prefix("id", &service.id.to_string())
        && filters.prefix("name", &service.spec.name)
        && filters.labels("label", &service.spec.labels)
        && filters.any("mode", |m| m == mode_word(service.spec.mode))
        && filters.any("runtime", |r| r == "container")
}

/// Counts tasks as `service ls` shows them. *Source:* swarmkit `ListServiceStatuses`.
fn status(service: &Service, tasks: &[Arc<Task>]) -> types::ServiceStatus {
    let is_job = matches!(service.spec.mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob);
    let mut to = types::ServiceStatus::default();
    let mut wanted = 0;
    // What an earlier run of a job has left does not count.
    for task in tasks.iter().filter(|task| !is_job || task.job_iteration == service.job_iteration) {
        let is_done = is_job && task.status.state == Some(TaskState::Complete);
        // What runs on a node that is lost, or is being stopped, does not serve.
        if task.status.state == Some(TaskState::Running) && task.desired < Desired::Shutdown {
            to.running_tasks += 1;
        }
        if is_done {
            to.completed_tasks += 1;
        } else if task.desired < Desired::Shutdown {
            wanted += 1;
        }
    }
    to.desired_tasks = match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::Global | Mode::GlobalJob => wanted,
        Mode::ReplicatedJob { max_concurrent, .. } => max_concurrent,
    };
    to
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<impl types::Written>, ApiError> {
    let filters = params.filters(filters::SERVICES)?;
    let networks = state.cluster_networks().await?;
    let mut services = state.list::<Service>().await?;
    services.retain(|s| passes(s, &filters) && !s.pending_delete);
    let mut tasks = BTreeMap::<ServiceId, Vec<Arc<Task>>>::new();
    if params.flag("status") {
        for task in state.tasks_in_brief().await? {
            tasks.entry(task.service).or_default().push(task);
        }
    }
    Ok(Answer(Rows(services, move |service: &Arc<Service>, to: &mut types::Text| {
        let mut json = convert::service_json(service, &networks);
        if params.flag("status") {
            json.service_status = Some(status(service, tasks.get(&service.id).map_or(&[], Vec::as_slice)));
        }
        json.write(to);
    })))
}

async fn inspect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Answer<types::Service>, ApiError> {
    let service = state.find::<Service>(&id).await?;
    let networks = state.cluster_networks().await?;
    let mut json = convert::service_json(&service, &networks);
    if params.flag("insertDefaults") {
        json.spec = convert::whole_spec_json(&service.spec);
    }
    Ok(Answer(json))
}

/// How many further names are tried for a service without one. *Source:* moby `daemon/cluster/services.go`: SwarmKit's
/// rule asks for one, Docker's daemon makes one up.
const NAMES_TRIED: u32 = 12;

/// Returns the text of `X-Registry-Auth`, for the nodes that will pull; `None`: nothing is said.
///
/// # Errors
/// 400: nobody can read it.
fn registry_auth(headers: &HeaderMap) -> Result<Option<Vec<u8>>, ApiError> {
    let Some(header) = headers.get("X-Registry-Auth") else { return Ok(None) };
    Ok(super::images::registry_auth(header.as_bytes())?.map(|_| header.as_bytes().to_vec()))
}

async fn create(
    Use(state): Use<State>,
    headers: HeaderMap,
    Json(mut spec): Json<types::ServiceSpec>,
) -> Result<(StatusCode, Answer<types::ServiceCreated>), ApiError> {
    let auth = registry_auth(&headers)?;
    let chosen = !spec.name.is_empty();
    if !chosen {
        spec.name = engine::random_name(0);
    }
    let mut spec = state.service_spec(spec).await?;
    let mut attempt = 0;
    let id: ServiceId = loop {
        let asked = create_request::Spec::Service((&spec).into());
        match state.create_with(asked, auth.clone()).await {
            Err(error) if error.status == StatusCode::CONFLICT && !chosen && attempt < NAMES_TRIED => {
                attempt += 1;
                spec.name = engine::random_name(attempt);
            }
            answer => break answer?,
        }
    };
    let created = types::ServiceCreated { id: id.to_string(), warnings: convert::service_warnings(&spec) };
    Ok((StatusCode::CREATED, Answer(created)))
}

async fn update(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
    Json(spec): Json<types::ServiceSpec>,
) -> Result<Answer<types::ServiceUpdated>, ApiError> {
    let version = params.version("service")?;
    let service = state.find::<Service>(&id).await?;
    let mut warnings = Vec::new();
    let change = match params.get("rollback") {
        Some("previous") => update_request::Spec::Rollback(true),
        None | Some("none") => {
            let spec = state.service_spec(spec).await?;
            warnings = convert::service_warnings(&spec);
            update_request::Spec::Service((&spec).into())
        }
        Some(other) => {
            return Err(ApiError::bad_request(format!("unrecognized rollback option {other}")));
        }
    };
    // The service keeps what it has, whichever of its specs that came with.
    if let Some(other) =
        params.get("registryAuthFrom").filter(|f| !matches!(*f, "" | "spec" | "previous-spec"))
    {
        return Err(ApiError::bad_request(format!("unsupported registryAuthFrom value: {other}")));
    }
    let auth = registry_auth(&headers)?;
    state.update_with(service.id, version, change, auth).await?;
    Ok(Answer(types::ServiceUpdated { warnings }))
}

async fn remove(Use(state): Use<State>, Path(id): Path<String>) -> Result<(), ApiError> {
    let service = state.find::<Service>(&id).await?;
    state.remove::<Service>(service.id, false).await
}

impl State {
    /// Reads a service's spec, finding its networks by name or id.
    async fn service_spec(&self, spec: types::ServiceSpec) -> Result<model::ServiceSpec, ApiError> {
        let networks = self.list::<Network>().await?;
        self.service_spec_among(spec, &networks).await
    }

    /// The same with the networks that there are, or will be.
    pub(super) async fn service_spec_among(
        &self,
        spec: types::ServiceSpec,
        networks: &[Arc<Network>],
    ) -> Result<model::ServiceSpec, ApiError> {
        let wanted: BTreeSet<&str> = [&spec.task_template.networks, &spec.networks]
            .into_iter()
            .flatten()
            .map(|n| n.target.as_str())
            .collect();
        let mut found = BTreeMap::<String, NetworkId>::new();
        for target in wanted {
            found.extend(self.service_network(target, networks).await?.map(|id| (target.to_owned(), id)));
        }
        Ok(convert::service_spec(spec, |target| found.get(target).copied())?)
    }

    /// Finds the cluster network a service names. `host`, `none` and `bridge` are made in the cluster when first used.
    async fn service_network(
        &self,
        target: &str,
        networks: &[Arc<Network>],
    ) -> Result<Option<NetworkId>, ApiError> {
        let named = |name: &str| networks.iter().find(|n| n.spec.name == name).map(|n| n.id);
        if let Some(network) = networks.iter().find(|n| n.id.to_string() == target) {
            return Ok(Some(network.id));
        }
        if let Some(id) = named(target) {
            return Ok(Some(id));
        }
        // The docker CLI sends the id of this host's network of that name.
        let local = self.local_network_name(target).await;
        let driver = match local.as_deref().unwrap_or(target) {
            "host" => NetworkDriver::Host,
            "none" => NetworkDriver::None,
            "bridge" => NetworkDriver::Bridge,
            _ if local.is_some() => {
                return Err(ApiError::forbidden(format!(
                    "The network {target} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver."
                )));
            }
            _ => return Ok(None),
        };
        let name = local.as_deref().unwrap_or(target);
        if let Some(id) = named(name) {
            return Ok(Some(id));
        }
        let spec = NetworkSpec::new(name, driver);
        match self.create::<NetworkId>(create_request::Spec::Network((&spec).into())).await {
            Ok(id) => Ok(Some(id)),
            // Somebody was faster.
            Err(error) if error.status == StatusCode::CONFLICT => {
                Ok(Some(self.find::<Network>(name).await?.id))
            }
            Err(error) => Err(error),
        }
    }
}
