//! `/plugins`: there are none. Docker's plugins are programs that the daemon runs and calls; here its parts are all
//! built in, so the list is empty, a name is not found, and what would add one says so.
//!
//! *Source:* Docker API "Plugin"; moby `api/server/router/plugin`.

use super::{
    ApiError, State, filters,
    request::{Params, Use},
    routing::{delete, door, get, post},
};
use axum::{Json, Router, extract::Path};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/plugins", get(list))
        .route("/plugins/privileges", get(refused))
        .route("/plugins/pull", post(refused))
        .route("/plugins/create", post(refused))
        .route("/plugins/{*rest}", get(unknown).post(door(unknown)))
        .route("/plugins/{*rest}", delete(unknown))
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Json<[(); 0]>, ApiError> {
    state.of_the_host()?;
    params.filters(filters::PLUGINS)?;
    Ok(Json([]))
}

async fn refused(Use(state): Use<State>) -> Result<(), ApiError> {
    state.of_the_host()?;
    Err(ApiError::not_implemented(
        "plugins are not supported: volumes have the driver \"local\", networks bridge, macvlan, overlay, host and \
         none, logs the drivers that `info` lists",
    ))
}

/// `GET /plugins/{name}/json`, `POST /plugins/{name}/enable` and the others of one plugin.
async fn unknown(Use(state): Use<State>, Path(rest): Path<String>) -> Result<(), ApiError> {
    state.of_the_host()?;
    const ACTIONS: [&str; 6] = ["json", "enable", "disable", "upgrade", "push", "set"];
    let name = match rest.rsplit_once('/') {
        Some((name, action)) if ACTIONS.contains(&action) => name,
        _ => &rest,
    };
    Err(ApiError::not_found(format!("plugin {name:?} not found")))
}
