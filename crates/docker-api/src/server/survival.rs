//! `/rswarm/swarm/...`: a swarm's backup, and its new beginning from one or from the manager that is left. Not in Docker,
//! whose `POST /swarm/init` with `ForceNewCluster` is the same as `recover`.

use super::answer::Answer;
use super::{
    ApiError, RecoverRequest, RestoreRequest, State,
    request::{Params, Use},
    routing::{get, post},
    swarms::wanted_availability,
};
use crate::convert::given;
use axum::{
    Router,
    body::Body,
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, TryStreamExt as _};
use hyper::{StatusCode, header::CONTENT_TYPE};
use proto::control::BackupRequest;
use std::time::Duration;

/// *Limit* of a backup: ten times the largest swarm that we tried. *Unit:* bytes.
const BACKUP_BYTES_MAX: usize = 1 << 30;
/// How long the next piece of a backup may take.
const PIECE: Duration = Duration::from_secs(60);

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/rswarm/swarm/backup", get(backup))
        .route("/rswarm/swarm/restore", post(restore))
        .route("/rswarm/swarm/recover", post(recover))
        .route("/rswarm/swarm/readdress", post(readdress))
}

async fn backup(Use(state): Use<State>) -> Result<Response, ApiError> {
    let pieces = state.control().await?.backup(BackupRequest {}).await?.into_inner();
    let pieces = pieces.map_ok(|piece| bytes::Bytes::from(piece.data)).map_err(std::io::Error::other);
    Ok(([(CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces)).into_response())
}

async fn recover(Use(state): Use<State>, params: Params) -> Result<Answer<String>, ApiError> {
    state.of_the_host()?;
    let request = recover_request(&state, &params);
    Ok(Answer(state.swarm().recover(request).await?.to_string()))
}

async fn readdress(Use(state): Use<State>, params: Params) -> Result<(), ApiError> {
    state.of_the_host()?;
    let request = recover_request(&state, &params);
    if request.advertise_addr.is_none() {
        return Err(ApiError::bad_request("an address to be reached at is needed: advertiseaddr"));
    }
    state.swarm().readdress(request).await
}

fn recover_request(state: &State, params: &Params) -> RecoverRequest {
    let address = |key| params.get(key).and_then(|addr| given(addr.to_owned()));
    RecoverRequest {
        advertise_addr: address("advertiseaddr"),
        listen_addr: address("listenaddr"),
        data_path_addr: address("datapathaddr"),
        force: params.flag("force"),
        person: state.asker().person(),
    }
}

async fn restore(Use(state): Use<State>, params: Params, body: Body) -> Result<Answer<String>, ApiError> {
    state.of_the_host()?;
    let mut pieces = body.into_data_stream();
    let mut backup = Vec::new();
    loop {
        let next = tokio::time::timeout(PIECE, pieces.next()).await;
        let next = next.map_err(|_| ApiError {
            status: StatusCode::REQUEST_TIMEOUT,
            message: format!("the next piece of the backup did not come within {} s", PIECE.as_secs()),
        })?;
        let Some(piece) = next else { break };
        let piece = piece.map_err(|e| ApiError::bad_request(format!("cannot read the backup: {e}")))?;
        if backup.len() + piece.len() > BACKUP_BYTES_MAX {
            return Err(ApiError {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                message: format!("a backup has {BACKUP_BYTES_MAX} bytes at most"),
            });
        }
        backup.extend_from_slice(&piece);
    }
    let address = |key| params.get(key).and_then(|addr| given(addr.to_owned()));
    let request = RestoreRequest {
        backup,
        advertise_addr: address("advertiseaddr"),
        listen_addr: address("listenaddr"),
        data_path_addr: address("datapathaddr"),
        availability: wanted_availability(params.get("availability").unwrap_or_default())?,
        force: params.flag("force"),
        person: state.asker().person(),
    };
    Ok(Answer(state.swarm().restore(request).await?.to_string()))
}
