//! `/containers`: the containers of this host, and (through `proxy`) those of the swarm's tasks elsewhere.

use super::answer::Answer;
use super::{
    ApiError, ApiVersion, State, container_create, container_json, container_then, filters,
    hijack::{self, Leaving, Session, hijack},
    request::{Json as JsonBody, Params, Use, with_whole_body},
    routing::{delete, door, get, post},
    rows::Rows,
};
use crate::{
    detach_keys::DetachKeys,
    types::{self, Written as _},
};
use axum::{
    Extension, Router,
    body::Body,
    extract::{
        Path, Request,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use engine::{
    AttachOptions, ListOptions, LogEntry, LogOptions, LogStream, RemoveOptions, Size, StopOptions,
    WaitCondition, Wanted,
};
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};
use model::Duration;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/{action}", post(act).delete(door(remove_link)))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/attach/ws", get(attach_websocket))
        .route("/containers/{id}/logs", get(logs))
        .route("/containers/{id}/top", get(top))
        .route("/containers/{id}/stats", get(stats))
        .route("/containers/{id}/changes", get(changes))
        .route("/containers/{id}/export", get(export))
        .route("/containers/{id}/archive", get(archive_get).put(door(archive_put)))
        .route("/containers/{id}", delete(remove))
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<impl types::Written>, ApiError> {
    let filters = params.filters(filters::CONTAINERS)?;
    let options = ListOptions {
        // Asking for a state means asking for all of that state.
        all: params.flag("all") || !filters.get("status").is_empty(),
        limit: params.number::<i64>("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
        filters: filters.engine(),
    };
    let engine = state.engine()?;
    let mut found = Vec::new();
    for container in engine.list(options).await? {
        let size = if params.flag("size") { engine.size(&container.id).await? } else { Size::default() };
        found.push((container, size));
    }
    let links = engine.link_names();
    let row = move |(container, size): &(Arc<engine::Container>, Size), to: &mut types::Text| {
        let mut row = container_json::summary(container, *size);
        row.names.extend(links.get(&container.id).into_iter().flatten().map(|name| format!("/{name}")));
        row.write(to);
    };
    Ok(Answer(Rows(found, row)))
}

async fn create(
    Use(state): Use<State>,
    Extension(version): Extension<ApiVersion>,
    params: Params,
    JsonBody(mut request): JsonBody<types::ContainerCreate>,
) -> Result<(StatusCode, Answer<types::Created>), ApiError> {
    container_create::not_of_nothing(&request.config)?;
    container_then::as_meant(version, &mut request)?;
    let config = container_create::container_config(params.get("name"), request)?;
    if let Some(platform) = params.get("platform").filter(|_| version >= ApiVersion(1, 41))
        && let Some(image) = state.engine()?.images().get(&config.image).await
    {
        check_platform(platform, &config.image, &image.config)?;
    }
    let created = state.engine()?.create(config).await.map_err(missing_is_the_image)?;
    Ok((StatusCode::CREATED, Answer(types::Created { id: created.id, warnings: created.warnings })))
}

/// At a 404 Docker's clients pull the image anew and ask again: whatever else is not there is a mistake of the request.
fn missing_is_the_image(error: engine::Error) -> ApiError {
    let is_image = matches!(error, engine::Error::NoSuchImage(_));
    let refused = ApiError::from(error);
    match refused.status {
        StatusCode::NOT_FOUND if !is_image => ApiError::bad_request(refused.message),
        _ => refused,
    }
}

/// Refuses an image of another platform; 404, so that clients pull the right one.
fn check_platform(wanted: &str, name: &str, image: &image::ImageConfiguration) -> Result<(), ApiError> {
    let asked: image::Platform = wanted.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    if asked.os == image.os && asked.architecture == image.architecture {
        return Ok(());
    }
    Err(ApiError::not_found(format!(
        "image with reference {name} was found but its platform ({}/{}) does not match the specified platform \
         ({wanted})",
        image.os, image.architecture
    )))
}

async fn inspect(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Answer<types::ContainerInspect>, ApiError> {
    let engine = state.engine()?;
    let container = engine.inspect(&id)?;
    let mut json = container_json::inspect(&container);
    if params.flag("size") {
        let size = engine.size(&id).await?;
        json.size_rw = i64::try_from(size.writable).ok();
        json.size_root_fs = i64::try_from(size.root).ok();
    }
    Ok(Answer(json))
}

/// Docker's seconds: negative means for ever.
fn timeout(params: &Params) -> Result<Option<Duration>, ApiError> {
    Ok(params.number::<i64>("t")?.map(|t| u64::try_from(t).map_or(Duration::MAX, Duration::from_secs)))
}

async fn update(
    Use(state): Use<State>,
    Path(id): Path<String>,
    JsonBody(update): JsonBody<types::ContainerUpdate>,
) -> Result<Answer<types::ContainerUpdated>, ApiError> {
    state.engine()?.update(&id, container_create::update(update)?).await?;
    Ok(Answer(types::ContainerUpdated::default()))
}

/// What answers with nothing but success.
async fn act(
    Use(state): Use<State>,
    Path((id, action)): Path<(String, String)>,
    params: Params,
) -> Result<Response, ApiError> {
    let asked = ["checkpoint", "checkpoint-dir"].into_iter().find(|key| params.get(key).is_some());
    if let Some(key) = asked.filter(|_| action == "start") {
        return Err(ApiError::not_implemented(format!(
            "{key}: there are no checkpoints; hint: without it the container starts anew"
        )));
    }
    let engine = state.engine()?;
    let stop = || {
        Ok::<_, ApiError>(StopOptions {
            signal: params.get("signal").map(str::to_owned),
            timeout: timeout(&params)?,
        })
    };
    match action.as_str() {
        "start" => engine.start(&id).await?,
        "stop" => engine.stop(&id, stop()?).await?,
        "restart" => engine.restart(&id, stop()?).await?,
        "kill" => engine.kill(&id, params.get("signal")).await?,
        "pause" => engine.pause(&id).await?,
        "unpause" => engine.unpause(&id).await?,
        "rename" => {
            let name = params
                .get("name")
                .ok_or_else(|| ApiError::bad_request("New container name cannot be empty"))?;
            engine.rename(&id, name).await?;
        }
        "resize" => {
            let (rows, columns) = params.terminal_size()?;
            engine.resize(&id, rows, columns).await?;
            return Ok(StatusCode::OK.into_response());
        }
        _ => return Err(ApiError::not_found("page not found")),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn remove(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let options = RemoveOptions { force: params.flag("force"), volumes: params.flag("v") };
    state.engine()?.remove(&id, options).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `docker rm --link web/db`: the container `web` is linked to another one no more.
async fn remove_link(
    Use(state): Use<State>,
    Path((id, alias)): Path<(String, String)>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    if !params.flag("link") {
        return Err(ApiError::not_found("page not found"));
    }
    state.engine()?.unlink(&id, &alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(Use(state): Use<State>, params: Params) -> Result<Answer<types::ContainersPruned>, ApiError> {
    let pruned = state.engine()?.prune_containers(&params.filters(filters::PRUNED)?.engine()).await?;
    Ok(Answer(types::ContainersPruned {
        containers_deleted: types::some_of(pruned.removed),
        space_reclaimed: pruned.reclaimed_bytes,
    }))
}

/// The headers go out at once: a client starts the container only once it knows that it is waited for.
async fn wait(Use(state): Use<State>, Path(id): Path<String>, params: Params) -> Result<Response, ApiError> {
    let condition = match params.get("condition").unwrap_or("not-running") {
        "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::bad_request(format!("invalid condition: {other:?}"))),
    };
    let waiting = state.engine()?.wait(&id, condition)?;
    let answer = futures::stream::once(async move {
        let exit = waiting.exit().await;
        // `Error` is for a wait that fails. Why a container did not start, its start has said.
        let waited = types::ContainerWaited { status_code: i64::from(exit.code), error: None };
        Ok::<_, std::convert::Infallible>(types::Text::of(&waited))
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(answer)).into_response())
}

async fn attach(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    // Some clients say here again what the query says. Nobody reads it, but it is no input.
    let request = with_whole_body(request).await?;
    let container = state.engine()?.inspect(&id)?;
    let tty = container.config.tty;
    let leaving = leaving(&state, &container, &params)?;
    let next_exit = state.engine()?.wait(&id, WaitCondition::NextExit)?;
    let opened = open_attached(&state, &id, &params, tty).await?;
    let ended: BoxFuture<'static, ()> = if hijack::only_types(&opened.0) {
        Box::pin(async { drop(next_exit.exit().await) })
    } else {
        Box::pin(std::future::ready(()))
    };
    let session = Session { framed: !tty, leaving, ended };
    hijack(&state, request, session, std::future::ready(opened))
}

/// Returns at which keys a client leaves a container: those of terminals have some.
fn leaving(state: &State, container: &engine::Container, params: &Params) -> Result<Leaving, ApiError> {
    let keys = DetachKeys::parse(params.get("detachKeys").unwrap_or_default())?;
    let (engine, id) = (state.engine()?.clone(), container.id.clone());
    let told = move || engine.detached(&id);
    Ok(container.config.tty.then(|| (keys, Box::new(told) as Box<dyn FnOnce() + Send>)))
}

/// Source: Docker API `ContainerAttachWebsocket`: bytes as they are, not framed.
async fn attach_websocket(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let leaving = leaving(&state, &*state.engine()?.inspect(&id)?, &params)?;
    let opened = open_attached(&state, &id, &params, true).await?;
    let cancel = state.cancel.clone();
    Ok(upgrade.on_upgrade(async move |socket| {
        let joined = hijack::join_websocket(socket, opened, leaving);
        if let Some(Err(error)) = cancel.run_until_cancelled(joined).await {
            tracing::debug!(%error, "an attached client has gone");
        }
    }))
}

/// Opens the streams of a container that are asked for; what it has said before comes first, `raw` or framed.
async fn open_attached(
    state: &State,
    id: &str,
    params: &Params,
    raw: bool,
) -> Result<hijack::Opened, ApiError> {
    let engine = state.engine()?;
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    let wanted = if params.flag("stream") {
        Wanted { stdin: params.flag("stdin"), stdout, stderr }
    } else {
        Wanted::default()
    };
    let mut before = Vec::new();
    if params.flag("logs") {
        let options = LogOptions { stdout, stderr, ..LogOptions::default() };
        let mut entries = engine.logs(id, options).await?;
        while let Some(entry) = entries.recv().await {
            before.push(entry_bytes(&entry?, raw, false, false));
        }
    }
    Ok((engine.attach(id, AttachOptions { streams: wanted }).await?, before))
}

/// Reads which log entries are wanted.
///
/// # Errors
/// 400 when no stream is chosen, or a time or number is none.
pub(super) fn log_options(params: &Params) -> Result<LogOptions, ApiError> {
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    Ok(LogOptions {
        stdout,
        stderr,
        since: params.moment("since")?,
        until: params.moment("until")?,
        tail: params.get("tail").filter(|t| *t != "all").and_then(|t| t.parse().ok()),
        follow: params.flag("follow"),
    })
}

/// Returns an entry as it goes out: framed unless the container has a terminal.
fn entry_bytes(entry: &LogEntry, raw: bool, timestamps: bool, details: bool) -> Bytes {
    let mut line = Vec::new();
    if timestamps {
        line.extend_from_slice(types::Time::nano_padded(entry.at).as_bytes());
        line.push(b' ');
    }
    if details {
        let attrs: Vec<String> = entry.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        line.extend_from_slice(attrs.join(",").as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(&entry.line);
    if raw {
        return line.into();
    }
    frame(if entry.stream == LogStream::Stderr { 2 } else { 1 }, &line)
}

/// Puts Docker's 8-byte header in front: stream, three zeros, length big-endian.
pub(super) fn frame(stream: u8, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + bytes.len());
    out.put_slice(&[stream, 0, 0, 0]);
    out.put_u32(u32::try_from(bytes.len()).expect("a line is far below 4 GiB"));
    out.put_slice(bytes);
    out.freeze()
}

pub(super) const RAW: &str = "application/vnd.docker.raw-stream";
/// Stream number in a frame. Source: Docker API `ContainerAttach`.
pub(super) const STDOUT: u8 = 1;
pub(super) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

async fn logs(Use(state): Use<State>, Path(id): Path<String>, params: Params) -> Result<Response, ApiError> {
    let engine = state.engine()?;
    let tty = engine.inspect(&id)?.config.tty;
    let entries = engine.logs(&id, log_options(&params)?).await?;
    let (timestamps, details) = (params.flag("timestamps"), params.flag("details"));
    let body = ReceiverStream::new(entries).map(move |entry| match entry {
        Ok(entry) => Ok::<_, std::convert::Infallible>(entry_bytes(&entry, tty, timestamps, details)),
        Err(error) => Ok(frame(3, format!("cannot read the log: {}", ApiError::from(error)).as_bytes())),
    });
    let kind = if tty { RAW } else { MULTIPLEXED };
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

async fn top(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Answer<types::ContainerTop>, ApiError> {
    let top = state.engine()?.top(&id, params.get("ps_args").unwrap_or("-ef")).await?;
    Ok(Answer(types::ContainerTop { titles: top.titles, processes: top.processes }))
}

/// Docker sends a sample a second; each holds the one before it, from which clients compute rates.
async fn stats(Use(state): Use<State>, Path(id): Path<String>, params: Params) -> Result<Response, ApiError> {
    let engine = state.engine()?.clone();
    let container = engine.inspect(&id)?;
    let first = engine.stats(&id).await?;
    if !params.flag_or("stream", true) {
        let before = if params.flag("one-shot") { engine::Stats::default() } else { first };
        if !params.flag("one-shot") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let now = engine.stats(&id).await?;
        return Ok(Answer(container_json::stats(&container, &before, &now)).into_response());
    }
    let mut view = engine.watch(&container.id)?;
    let samples = futures::stream::unfold((engine, first), move |(engine, before)| {
        let container = container.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = engine.stats(&container.id).await.ok()?;
            let mut json = serde_json::to_vec(&container_json::stats(&container, &before, &now)).ok()?;
            json.push(b'\n');
            Some((Ok::<_, std::convert::Infallible>(json), (engine, now)))
        }
    });
    // Not with the sample that would come next: who has removed a container waits for the end of what it said.
    let removed = async move { while view.changed().await.is_ok() {} };
    let samples = samples.take_until(removed);
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(samples)).into_response())
}

async fn changes(
    Use(state): Use<State>,
    Path(id): Path<String>,
) -> Result<Answer<Vec<types::ContainerChange>>, ApiError> {
    let changes = state.engine()?.changes(&id).await?;
    let kind = |kind| match kind {
        engine::ChangeKind::Modified => 0,
        engine::ChangeKind::Added => 1,
        engine::ChangeKind::Deleted => 2,
    };
    Ok(Answer(
        changes.into_iter().map(|c| types::ContainerChange { kind: kind(c.kind), path: c.path }).collect(),
    ))
}

async fn export(Use(state): Use<State>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let tar = state.engine()?.export(&id).await?;
    Ok(([(CONTENT_TYPE, "application/x-tar")], Body::from_stream(ReaderStream::new(tar))).into_response())
}

/// Source: Docker API `ContainerArchiveInfo`: base64 of a JSON object in a header.
fn path_stat(stat: &engine::PathStat) -> HeaderMap {
    let json = container_json::path_stat(stat).to_string();
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&BASE64_STANDARD.encode(json)) {
        headers.insert("X-Docker-Container-Path-Stat", value);
    }
    headers
}

/// Also answers HEAD, which asks for the header alone.
async fn archive_get(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let path = params.get("path").ok_or_else(|| ApiError::bad_request("missing parameter: path"))?;
    let engine = state.engine()?;
    if request.method() == axum::http::Method::HEAD {
        return Ok(path_stat(&engine.archive_stat(&id, path).await?).into_response());
    }
    let (stat, tar) = engine.archive_get(&id, path).await?;
    let body = Body::from_stream(ReaderStream::new(tar));
    Ok((path_stat(&stat), [(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

async fn archive_put(
    Use(state): Use<State>,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let path = params.get("path").ok_or_else(|| ApiError::bad_request("missing parameter: path"))?;
    let tar = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let options = engine::PutOptions {
        keep_type: params.flag("noOverwriteDirNonDir"),
        of_the_user: params.flag("copyUIDGID"),
    };
    state.engine()?.archive_put(&id, path, tar, options).await?;
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_than_the_image_is_not_there_sends_no_client_to_pull() {
        let status = |error| missing_is_the_image(error).status;
        assert_eq!(status(engine::Error::NoSuchImage("web".into())), StatusCode::NOT_FOUND);
        for error in [
            engine::Error::NoSuchContainer("web".into()),
            engine::Error::NoSuchNetwork("web".into()),
            engine::Error::NoSuchVolume("web".into()),
        ] {
            assert_eq!(status(error), StatusCode::BAD_REQUEST);
        }
        assert_eq!(status(engine::Error::Conflict("x".into())), StatusCode::CONFLICT);
    }

    #[test]
    fn frames_have_dockers_header() {
        assert_eq!(&frame(2, b"hi")[..], b"\x02\0\0\0\0\0\0\x02hi");
    }
}
