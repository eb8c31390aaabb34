//! `/secrets` and `/configs`: the same, but that a secret's data is never shown.

use super::answer::Answer;
use super::{
    ApiError, State,
    cluster::Stored,
    filters,
    request::{Json, Params, Use},
    routing::{door, get, post},
};
use crate::{convert, types};
use axum::{Router, extract::Path, http::StatusCode};
use model::{Config, ConfigId, Labels, Secret, SecretId};
use proto::control::{create_request, update_request};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/secrets", get(list::<Secret>))
        .route("/secrets/create", post(create_secret))
        .route("/secrets/{id}", get(inspect::<Secret>).delete(door(remove::<Secret>)))
        .route("/secrets/{id}/update", post(update_secret))
        .route("/configs", get(list::<Config>))
        .route("/configs/create", post(create_config))
        .route("/configs/{id}", get(inspect::<Config>).delete(door(remove::<Config>)))
        .route("/configs/{id}/update", post(update_config))
}

/// What secrets and configs have in common.
trait File: Stored + Send + Sync + 'static {
    type Json: serde::Serialize + Send;
    type Id: proto::WireId + std::fmt::Display + Send;
    fn id(&self) -> Self::Id;
    fn name(&self) -> &str;
    fn labels(&self) -> &Labels;
    fn json(&self) -> Self::Json;
}

macro_rules! file {
    ($type:ident, $id:ident, $json:ident) => {
        impl File for $type {
            type Json = types::$type;
            type Id = $id;
            fn id(&self) -> $id {
                self.id
            }
            fn name(&self) -> &str {
                &self.spec.name
            }
            fn labels(&self) -> &Labels {
                &self.spec.labels
            }
            fn json(&self) -> types::$type {
                convert::$json(self)
            }
        }
    };
}
file!(Secret, SecretId, secret_json);
file!(Config, ConfigId, config_json);

async fn list<T: File>(Use(state): Use<State>, params: Params) -> Result<Answer<Vec<T::Json>>, ApiError> {
    let filters = params.filters(filters::FILES)?;
    let all = state.list::<T>().await?;
    let shown = all.iter().filter(|f| {
        filters.prefix("id", &f.id().to_string())
            && filters.prefix("name", f.name())
            && filters.any("names", |n| n == f.name())
            && filters.labels("label", f.labels())
    });
    Ok(Answer(shown.map(|f| f.json()).collect()))
}

async fn inspect<T: File>(
    Use(state): Use<State>,
    Path(id): Path<String>,
) -> Result<Answer<T::Json>, ApiError> {
    Ok(Answer(state.find::<T>(&id).await?.json()))
}

async fn remove<T: File>(Use(state): Use<State>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let found = state.find::<T>(&id).await?;
    state.remove::<T>(found.id(), false).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create_secret(
    Use(state): Use<State>,
    Json(spec): Json<types::SecretSpec>,
) -> Result<(StatusCode, Answer<types::ObjectId>), ApiError> {
    let spec = convert::secret_spec(spec)?;
    let id: SecretId = state.create(create_request::Spec::Secret((&spec).into())).await?;
    Ok((StatusCode::CREATED, Answer(types::ObjectId { id: id.to_string() })))
}

async fn create_config(
    Use(state): Use<State>,
    Json(spec): Json<types::ConfigSpec>,
) -> Result<(StatusCode, Answer<types::ObjectId>), ApiError> {
    let spec = convert::config_spec(spec)?;
    let id: ConfigId = state.create(create_request::Spec::Config((&spec).into())).await?;
    Ok((StatusCode::CREATED, Answer(types::ObjectId { id: id.to_string() })))
}

async fn update_secret(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    Json(spec): Json<types::SecretSpec>,
) -> Result<(), ApiError> {
    let version = params.version("secret")?;
    let spec = convert::secret_change(spec)?;
    let secret = state.find::<Secret>(&id).await?;
    state.update(secret.id, version, update_request::Spec::Secret((&spec).into())).await
}

async fn update_config(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    Json(spec): Json<types::ConfigSpec>,
) -> Result<(), ApiError> {
    let version = params.version("config")?;
    let spec = convert::config_change(spec)?;
    let config = state.find::<Config>(&id).await?;
    state.update(config.id, version, update_request::Spec::Config((&spec).into())).await
}
