//! `/volumes`: the volumes of this host; `/rswarm/volumes`: what they hold, which is not in Docker.

use super::answer::Answer;
use super::{
    ApiError, ApiVersion, State, filters,
    request::{Json as Body, Params, Use},
    routing::{door, get, post},
};
use crate::types;
use axum::{
    Extension, Router,
    body::Body as Stream,
    extract::Path,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures::TryStreamExt as _;
use tokio_util::io::{ReaderStream, StreamReader};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(door(remove)))
        .route("/rswarm/volumes/{name}/archive", get(export).put(door(import)))
}

pub(super) fn json(volume: engine::Volume) -> types::Volume {
    types::Volume {
        created_at: types::Time(Some(volume.created_at)),
        driver: volume.driver,
        labels: Some(volume.labels).filter(|l| !l.is_empty()),
        mountpoint: volume.mountpoint.display().to_string(),
        name: volume.name,
        options: Some(volume.options).filter(|o| !o.is_empty()),
        scope: "local".to_owned(),
        usage_data: None,
    }
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<types::VolumeList>, ApiError> {
    let volumes = state.engine()?.volumes(&params.filters(filters::VOLUMES)?.engine());
    Ok(Answer(types::VolumeList { volumes: volumes.into_iter().map(json).collect(), warnings: Vec::new() }))
}

async fn create(
    Use(state): Use<State>,
    Body(request): Body<types::VolumeCreate>,
) -> Result<(StatusCode, Answer<types::Volume>), ApiError> {
    let config = engine::VolumeConfig {
        name: request.name,
        driver: request.driver,
        driver_opts: request.driver_opts,
        labels: request.labels,
    };
    Ok((StatusCode::CREATED, Answer(json(state.engine()?.volume_create(config).await?))))
}

async fn inspect(
    Use(state): Use<State>,
    Path(name): Path<String>,
) -> Result<Answer<types::Volume>, ApiError> {
    Ok(Answer(json(state.engine()?.volume(&name)?)))
}

async fn remove(
    Use(state): Use<State>,
    Path(name): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    state.engine()?.volume_remove(&name, params.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(
    Use(state): Use<State>,
    Extension(version): Extension<ApiVersion>,
    params: Params,
) -> Result<Answer<types::VolumesPruned>, ApiError> {
    let mut filters = params.filters(filters::VOLUMES_PRUNED)?;
    // Anonymous volumes alone since then; who speaks an older version means all. *Source:* moby `router/volume`.
    if version < ApiVersion(1, 42) && filters.flag("all").is_none() {
        filters = filters.with("all", "true");
    }
    let pruned = state.engine()?.volume_prune(&filters.engine()).await?;
    Ok(Answer(types::VolumesPruned {
        volumes_deleted: pruned.removed,
        space_reclaimed: pruned.reclaimed_bytes,
    }))
}

async fn export(Use(state): Use<State>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let tar = state.engine()?.volume_export(&name).await?;
    let body = Stream::from_stream(ReaderStream::new(tar));
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// Fills a volume with the body, or `?from=` another volume. `?force=1` replaces what it holds.
async fn import(
    Use(state): Use<State>,
    Path(name): Path<String>,
    params: Params,
    body: Stream,
) -> Result<Answer<types::Volume>, ApiError> {
    let (engine, force) = (state.engine()?, params.flag("force"));
    let filled = match params.get("from") {
        Some(source) => engine.volume_copy(source, &name, force).await?,
        None => {
            let tar = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
            engine.volume_import(&name, tar, force).await?
        }
    };
    Ok(Answer(json(filled)))
}
