//! `/exec`: more processes in running containers.

use super::answer::Answer;
use super::{
    ApiError, State,
    containers::{STDOUT, frame},
    hijack::{Session, hijack},
    request::{Json as JsonBody, Params, Use, look_into, says_json},
    routing::{get, post},
};
use crate::{detach_keys::DetachKeys, types};
use axum::{
    Router,
    extract::{Path, Request},
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
) -> Result<(StatusCode, Answer<types::Created>), ApiError> {
    if request.privileged && state.asker().is_confined() {
        return Err(ApiError::forbidden("a privileged process reaches into the host: that takes role admin"));
    }
    DetachKeys::parse(&request.detach_keys)?;
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
    Ok((StatusCode::CREATED, Answer(types::Created { id, warnings: Vec::new() })))
}

async fn start(
    Use(state): Use<State>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    says_json(&request)?;
    let (asked, request) = look_into::<types::ExecStart>(request).await?;
    let engine = state.engine()?;
    let exec = engine.exec_inspect(&id)?.config;
    let console_size = asked.console_size.filter(|_| !asked.detach).map(|[rows, columns]| (rows, columns));
    if console_size.is_some() && !asked.tty {
        return Err(ApiError::bad_request("console size is only supported with tty"));
    }
    let start = engine::ExecStart { detach: asked.detach, console_size };
    if asked.detach {
        engine.exec_start(&id, start).await?;
        return Ok(StatusCode::OK.into_response());
    }
    engine.exec_can_start(&id)?;
    // As dockerd: who starts it says whether he reads frames, whatever there is in the container.
    let framed = !asked.tty;
    let leaving = if exec.tty {
        let (engine, id) = (engine.clone(), id.clone());
        let told: Box<dyn FnOnce() + Send> = Box::new(move || engine.exec_detached(&id));
        Some((DetachKeys::parse(&exec.detach_keys)?, told))
    } else {
        None
    };
    let (starting, waiting, started) = (engine.clone(), engine.clone(), id.clone());
    // As dockerd: what fails from here on is told on the stream, its exit code by inspect.
    let open = async move {
        match starting.exec_start(&started, start).await {
            Ok(streams) => (streams, Vec::new()),
            Err(error) => {
                let text = format!("{}\r\n", ApiError::from(error)).into_bytes();
                let said = if framed { frame(STDOUT, &text) } else { text.into() };
                (engine::Streams::default(), vec![said])
            }
        }
    };
    let ended = Box::pin(async move {
        // An instance that is forgotten has ended.
        drop(waiting.exec_wait(&id).await);
    });
    hijack(&state, request, Session { framed, leaving, ended }, open)
}

async fn resize(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let (rows, columns) = params.terminal_size()?;
    state.engine()?.exec_resize(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}

async fn inspect(
    Use(state): Use<State>,
    Path(id): Path<String>,
) -> Result<Answer<types::ExecInspect>, ApiError> {
    let exec = state.engine()?.exec_inspect(&id)?;
    let (entrypoint, arguments) = match exec.config.cmd.split_first() {
        Some((first, rest)) => (first.clone(), rest.to_vec()),
        None => Default::default(),
    };
    Ok(Answer(types::ExecInspect {
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
