//! `/exec`: more processes in running containers.

use super::{
    ApiError, State,
    containers::{STDOUT, frame},
    hijack::hijack,
    request::{Json as JsonBody, Params, Use},
    routing::{get, post},
};
use crate::types;
use axum::{
    Json, Router,
    extract::{FromRequest as _, Path, Request},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    Use(state): Use<State>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<types::ExecCreate>,
) -> Result<(StatusCode, Json<types::Created>), ApiError> {
    if request.privileged && state.asker().is_confined() {
        return Err(ApiError::forbidden("a privileged process reaches into the host: that takes role admin"));
    }
    let given = |text: String| (!text.is_empty()).then_some(text);
    let config = engine::ExecConfig {
        cmd: request.cmd.0,
        env: request.env,
        tty: request.tty,
        attach_stdin: request.attach_stdin,
        attach_stdout: request.attach_stdout,
        attach_stderr: request.attach_stderr,
        privileged: request.privileged,
        user: given(request.user),
        working_dir: given(request.working_dir),
        detach_keys: request.detach_keys,
    };
    let id = state.engine()?.exec_create(&id, config).await?;
    Ok((StatusCode::CREATED, Json(types::Created { id, warnings: Vec::new() })))
}

async fn start(
    Use(state): Use<State>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    // The connection is taken over after the small JSON body has been read from it.
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let copy = Request::from_parts(parts, body);
    let (head, body) = copy.into_parts();
    let JsonBody(asked) =
        JsonBody::<types::ExecStart>::from_request(Request::from_parts(head.clone(), body), &state).await?;
    let engine = state.engine()?;
    let tty = engine.exec_inspect(&id)?.config.tty;
    let console_size = asked.console_size.map(|[rows, columns]| (rows, columns));
    let start = engine::ExecStart { detach: asked.detach, console_size };
    if asked.detach {
        engine.exec_start(&id, start).await?;
        return Ok(StatusCode::OK.into_response());
    }
    engine.exec_can_start(&id)?;
    let mut again = Request::from_parts(head, axum::body::Body::empty());
    if let Some(upgrade) = upgrade {
        again.extensions_mut().insert(upgrade);
    }
    let (starting, waiting, started) = (engine.clone(), engine.clone(), id.clone());
    // As dockerd: what fails from here on is told on the stream, its exit code by inspect.
    let open = async move {
        match starting.exec_start(&started, start).await {
            Ok(streams) => (streams, Vec::new()),
            Err(error) => {
                let text = format!("{}\r\n", ApiError::from(error)).into_bytes();
                let said = if tty { text.into() } else { frame(STDOUT, &text) };
                (engine::Streams::default(), vec![said])
            }
        }
    };
    let ended = Box::pin(async move {
        // An instance that is forgotten has ended.
        drop(waiting.exec_wait(&id).await);
    });
    hijack(&state, again, tty, open, ended)
}

async fn resize(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let (rows, columns) = (params.number("h")?.unwrap_or(0), params.number("w")?.unwrap_or(0));
    state.engine()?.exec_resize(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}

async fn inspect(
    Use(state): Use<State>,
    Path(id): Path<String>,
) -> Result<Json<types::ExecInspect>, ApiError> {
    let exec = state.engine()?.exec_inspect(&id)?;
    let (entrypoint, arguments) = match exec.config.cmd.split_first() {
        Some((first, rest)) => (first.clone(), rest.to_vec()),
        None => Default::default(),
    };
    Ok(Json(types::ExecInspect {
        id: exec.id,
        running: exec.running,
        exit_code: exec.exit_code,
        process_config: types::ProcessConfig {
            tty: exec.config.tty,
            entrypoint,
            arguments,
            privileged: exec.config.privileged,
            ..Default::default()
        },
        open_stdin: exec.config.attach_stdin,
        open_stderr: exec.config.attach_stderr,
        open_stdout: exec.config.attach_stdout,
        can_remove: exec.can_remove,
        container_id: exec.container_id,
        detach_keys: exec.config.detach_keys,
        pid: exec.pid.unwrap_or(0),
    }))
}
