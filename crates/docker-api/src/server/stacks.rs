//! `/rswarm/stacks`: deployed stacks with their history. Not in Docker.

use super::{
    ApiError, State,
    request::{Json, Params},
};
use crate::{convert, types};
use axum::{
    Router,
    extract::{Path, State as Use},
    http::StatusCode,
    routing::get,
};
use model::Stack;
use proto::control::RecordStackRequest;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/rswarm/stacks", get(list).post(record))
        .route("/rswarm/stacks/{name}", get(inspect).delete(remove))
}

async fn list(Use(state): Use<State>, params: Params) -> Result<axum::Json<Vec<types::Stack>>, ApiError> {
    let filters = params.filters()?.only(&["name"])?;
    let stacks = state.list::<Stack>().await?;
    let shown = stacks.iter().filter(|s| filters.prefix("name", &s.name));
    Ok(axum::Json(shown.map(|s| convert::stack_json(s)).collect()))
}

async fn inspect(
    Use(state): Use<State>,
    Path(name): Path<String>,
) -> Result<axum::Json<types::Stack>, ApiError> {
    Ok(axum::Json(convert::stack_json(&*state.find::<Stack>(&name).await?)))
}

async fn record(
    Use(state): Use<State>,
    Json(deployed): Json<types::RecordStack>,
) -> Result<(StatusCode, axum::Json<types::Stack>), ApiError> {
    convert::check_name(&deployed.name)?;
    let request =
        RecordStackRequest { name: deployed.name, author: deployed.author, source: deployed.source };
    let stack = state.control().await?.record_stack(request).await?.into_inner();
    Ok((StatusCode::CREATED, axum::Json(convert::stack_json(&Stack::try_from(stack)?))))
}

async fn remove(Use(state): Use<State>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let stack = state.find::<Stack>(&name).await?;
    state.remove::<Stack>(stack.id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}
