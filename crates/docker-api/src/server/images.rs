//! `/images`, `/distribution`: what this host's store has, gets and gives.

use super::answer::Answer;
use super::{
    ApiError, ApiVersion, Origin, State, container_create, filters,
    judge::Role,
    proxy,
    request::{AnyJson, Params, Use},
    routing::{delete, door, get, post},
};
use crate::types::{self, Text};
use axum::{
    Extension, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Request},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use engine::EventKind;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use image::{Auth, Image, ImportOptions, Progress, PullOptions, Reference, Removed, dockerfile::Pattern};
use model::{Node, NodeState};
use std::{collections::BTreeMap, convert::Infallible, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};

/// Progress lines waiting for a slow client; more are dropped, results never.
const LINES: usize = 64;

/// How long another node may take to say whether it knows an image.
const NODE_LIMIT: Duration = Duration::from_secs(3);

/// Results of a search if nobody says how many. Source: moby `daemon/pkg/registry/search.go`.
const SEARCH_DEFAULT: u32 = 25;
const SEARCH_MAX: u32 = 100;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create).layer(DefaultBodyLimit::disable()))
        .route("/images/load", post(load).layer(DefaultBodyLimit::disable()))
        .route("/images/get", get(save))
        .route("/images/search", get(search))
        .route("/images/prune", post(prune))
        .route("/commit", post(commit))
        .route("/images/{*rest}", get(get_one).post(door(act)))
        .route("/images/{*rest}", delete(remove))
        .route("/distribution/{*rest}", get(distribution))
}

impl From<image::Error> for ApiError {
    fn from(error: image::Error) -> Self {
        let text = model::with_causes(&error);
        match error {
            error if error.is_not_found() => Self::not_found(text),
            image::Error::InUse { .. } | image::Error::PluginExists(_) => Self::conflict(text),
            image::Error::Reference(_)
            | image::Error::Change(_)
            | image::Error::Ambiguous(_)
            | image::Error::AmbiguousPlugin(_) => Self::bad_request(text),
            _ => Self::internal(text),
        }
    }
}

pub(super) fn parse(name: &str) -> Result<Reference, ApiError> {
    name.parse()
        .map_err(|e: image::InvalidReference| ApiError::bad_request(format!("invalid reference format: {e}")))
}

/// Reads a name, and the tag or digest that a client says beside it: in place of the name's own. *Source:* moby
/// `api/server/router/image/image_routes.go`.
fn named(name: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let reference = parse(name)?;
    match tag.filter(|tag| !tag.is_empty()) {
        None => Ok(reference),
        Some(digest) if digest.contains(':') => parse(&format!("{}@{digest}", reference.name())),
        Some(tag) => parse(&format!("{}:{tag}", reference.name())),
    }
}

/// Splits `name/verb`; names have slashes of their own.
fn split(rest: &str) -> (&str, &str) {
    rest.rsplit_once('/').unwrap_or((rest, ""))
}

fn seconds(time: Option<time::OffsetDateTime>) -> i64 {
    time.map_or(0, time::OffsetDateTime::unix_timestamp)
}

fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

async fn list(
    Use(state): Use<State>,
    Extension(version): Extension<ApiVersion>,
    params: Params,
) -> Result<Answer<Vec<types::ImageSummary>>, ApiError> {
    let mut filters = params.filters(filters::IMAGES)?;
    // The parameter of clients from before 1.41.
    if let Some(name) = params.get("filter").filter(|_| version < ApiVersion(1, 41)) {
        filters = filters.with("reference", name);
    }
    let (filters, all) = (filters.engine(), params.flag("all"));
    let store = state.engine()?.images();
    let images = store.list().await;
    let mut bounds = BTreeMap::new();
    for key in ["before", "since"] {
        for name in filters.get(key) {
            let found = store.get(name).await;
            let found = found.ok_or_else(|| ApiError::not_found(format!("No such image: {name}")))?;
            bounds.insert((key, name), found.created);
        }
    }
    let until = filters.until()?.map(|at| i128::from(at.0));
    let patterns: Vec<Pattern> = filters
        .get("reference")
        .iter()
        .map(|n| {
            Pattern::of_path(n)
                .map_err(|e| ApiError::bad_request(format!("invalid filter reference={n}: {e}")))
        })
        .collect::<Result<_, _>>()?;
    let passes = |image: &Image| {
        let dangling = |d: &str| matches!(d, "1" | "true") == image.repo_tags.is_empty();
        // Images between the steps of builds are nobody's.
        (all || !image.intermediate)
            && filters.any("dangling", dangling)
            && filters.labels_match(&image.config.config.labels)
            && bounds.iter().all(|((key, _), bound)| {
                if *key == "before" { image.created < *bound } else { image.created > *bound }
            })
            && until.is_none_or(|until| image.created.is_none_or(|at| at.unix_timestamp_nanos() <= until))
    };
    let shown = images.iter().filter(|i| passes(i)).map(summary).filter_map(|mut image| {
        if !patterns.is_empty() {
            // Of its names those alone that were asked for.
            let fits = |name: &String| patterns.iter().any(|pattern| matches_reference(pattern, name));
            image.repo_tags.retain(fits);
            image.repo_digests.retain(fits);
        }
        (patterns.is_empty() || !image.repo_tags.is_empty() || !image.repo_digests.is_empty())
            .then_some(image)
    });
    Ok(Answer(shown.collect()))
}

/// Returns true if a pattern fits a name with or without its tag or digest. *Source:* distribution `reference.FamiliarMatch`.
fn matches_reference(pattern: &Pattern, reference: &str) -> bool {
    let name = match reference.split_once('@') {
        Some((name, _)) => name,
        None => reference.rsplit_once(':').map_or(reference, |(name, _)| name),
    };
    pattern.matches(reference) || pattern.matches(name)
}

pub(super) fn summary(image: &Image) -> types::ImageSummary {
    types::ImageSummary {
        id: image.id.to_string(),
        parent_id: image.parent.map(|p| p.to_string()).unwrap_or_default(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        created: seconds(image.created),
        size: bytes(image.size_bytes),
        shared_size: -1,
        labels: image.config.config.labels.clone(),
        containers: -1,
    }
}

/// `GET /images/{name}/json|history|get`
/// Source: Docker API `ImageSearch`.
async fn search(
    Use(state): Use<State>,
    params: Params,
    headers: HeaderMap,
) -> Result<Answer<Vec<types::ImageFound>>, ApiError> {
    let filters = params.filters(filters::IMAGES_FOUND)?;
    let term = params.get("term").filter(|term| !term.is_empty());
    let term = term.ok_or_else(|| ApiError::bad_request("\"term\" is what is looked for: it is missing"))?;
    let limit = params.number::<u32>("limit")?.filter(|limit| *limit != 0).unwrap_or(SEARCH_DEFAULT);
    if limit > SEARCH_MAX {
        return Err(ApiError::bad_request(format!(
            "limit {limit} is outside the range of [1, {SEARCH_MAX}]"
        )));
    }
    let mut stars = 0;
    for text in filters.get("stars") {
        let bad = |_| ApiError::bad_request(format!("invalid filter 'stars={text}'"));
        stars = stars.max(text.parse::<u64>().map_err(bad)?);
    }
    let images = state.engine()?.images();
    let found = images.search(term, limit, auth(&headers), &state.registries()).await;
    let found = found?;
    let passes = |image: &image::Found| {
        image.stars >= stars
            && filters.any("is-official", |wanted| matches!(wanted, "true" | "1") == image.official)
            // Docker Hub builds nothing by itself any more.
            && filters.any("is-automated", |wanted| !matches!(wanted, "true" | "1"))
    };
    let json = |image: image::Found| types::ImageFound {
        name: image.name,
        description: image.description,
        star_count: image.stars,
        is_official: image.official,
        is_automated: false,
    };
    Ok(Answer(found.into_iter().filter(passes).map(json).collect()))
}

async fn get_one(Use(state): Use<State>, Path(rest): Path<String>) -> Result<Response, ApiError> {
    match split(&rest) {
        (name, "json") => Ok(Answer(inspect(&state, name).await?).into_response()),
        (name, "history") => Ok(Answer(history(&state, name).await?).into_response()),
        (name, "get") => archive(&state, vec![name.to_owned()]).await,
        _ => Err(ApiError::not_found("page not found")),
    }
}

async fn inspect(state: &State, name: &str) -> Result<types::ImageInspect, ApiError> {
    let image = state.engine()?.images().find(name).await?;
    let config = &image.config.config;
    let empty = |keys: &[String]| {
        keys.iter().map(|k| (k.clone(), types::Empty::default())).collect::<BTreeMap<_, _>>()
    };
    let list = |items: &Vec<String>| (!items.is_empty()).then(|| types::StrSlice(items.clone()));
    Ok(types::ImageInspect {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        parent: image.parent.map(|p| p.to_string()).unwrap_or_default(),
        comment: image.config.comment.clone(),
        author: image.config.author.clone(),
        created: image.config.created.clone().unwrap_or_default(),
        container: image.config.container.clone(),
        container_config: (!image.config.container_config.is_unknown()).then(|| types::ContainerConfig {
            image: image.config.container_config.image.clone(),
            ..types::ContainerConfig::default()
        }),
        config: Some(types::ContainerConfig {
            user: config.user.clone(),
            exposed_ports: empty(&config.exposed_ports),
            env: config.env.clone(),
            cmd: list(&config.cmd),
            entrypoint: list(&config.entrypoint),
            volumes: (!config.volumes.is_empty()).then(|| empty(&config.volumes)),
            working_dir: config.working_dir.clone(),
            labels: config.labels.clone(),
            stop_signal: config.stop_signal.clone().unwrap_or_default(),
            on_build: (!config.on_build.is_empty()).then(|| config.on_build.clone()),
            shell: list(&config.shell),
            healthcheck: config.healthcheck.as_ref().map(health),
            ..Default::default()
        }),
        architecture: image.config.architecture.clone(),
        variant: image.config.variant.clone().unwrap_or_default(),
        os: image.config.os.clone(),
        size: bytes(image.size_bytes),
        graph_driver: types::GraphDriver { name: "overlay2".to_owned(), ..Default::default() },
        root_fs: types::RootFs {
            kind: "layers".to_owned(),
            layers: image.layers.iter().map(ToString::to_string).collect(),
        },
        ..Default::default()
    })
}

fn health(check: &image::Healthcheck) -> types::Health {
    let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    types::Health {
        test: check.test.clone(),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
        retries: i64::from(check.retries),
    }
}

async fn history(state: &State, name: &str) -> Result<Vec<types::ImageHistory>, ApiError> {
    let images = state.engine()?.images();
    let image = images.find(name).await?;
    let steps = images.history(name).await?;
    let rows = steps.into_iter().enumerate().map(|(n, (step, size))| types::ImageHistory {
        id: if n == 0 { image.id.to_string() } else { "<missing>".to_owned() },
        created: step.created.as_deref().and_then(types::Time::parse).map_or(0, types::Time::unix_seconds),
        created_by: step.created_by,
        tags: if n == 0 { image.repo_tags.clone() } else { Vec::new() },
        size: bytes(size),
        comment: step.comment,
    });
    Ok(rows.collect())
}

/// `POST /images/{name}/tag|push`
async fn act(
    Use(state): Use<State>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    match split(&rest) {
        (name, "tag") => {
            let repo = params.get("repo").ok_or_else(|| ApiError::bad_request("missing parameter: repo"))?;
            let target = named(repo, params.get("tag"))?;
            let target = if target.tag.is_some() { target } else { target.with_tag("latest") };
            let images = state.engine()?.images();
            images.tag(name, &target).await?;
            let id = images.get(name).await.map(|image| image.id.to_string()).unwrap_or_default();
            state.image_event("tag", &id, &target.to_string());
            Ok(StatusCode::CREATED.into_response())
        }
        (name, "push") => {
            let reference = named(name, params.get("tag"))?;
            let images = state.engine()?.images().clone();
            let options = image::PushOptions { auth: auth(&headers), registries: state.registries() };
            let teller = state.clone();
            Ok(progress(&state, move |lines| async move {
                images.push(&reference, options, lines).await?;
                teller.image_event("push", &reference.to_string(), &reference.familiar_name());
                Ok(())
            }))
        }
        _ => Err(ApiError::not_found("page not found")),
    }
}

/// What a client's credentials say. Source: Docker API "Authentication".
pub(super) fn credentials(config: types::AuthConfig) -> Option<Auth> {
    match config {
        c if !c.identity_token.is_empty() => Some(Auth::Identity(c.identity_token)),
        c if !c.registry_token.is_empty() => Some(Auth::Bearer(c.registry_token)),
        c if !c.username.is_empty() => Some(Auth::Basic { username: c.username, password: c.password }),
        _ => None,
    }
}

/// Reads `X-Registry-Auth`. One that says nothing is as good as none: so dockerd takes it, and clients send some where
/// they have no account. *Source:* moby `api/server/router/image/image_routes.go`.
pub(super) fn auth(headers: &HeaderMap) -> Option<Auth> {
    headers.get("X-Registry-Auth").and_then(|header| registry_auth(header.as_bytes()).ok().flatten())
}

/// Reads the text of an `X-Registry-Auth`: base64url JSON. *Source:* Docker API "Authentication".
///
/// # Errors
/// 400: it is something else.
pub fn registry_auth(text: &[u8]) -> Result<Option<Auth>, ApiError> {
    let bad = || ApiError::bad_request("invalid X-Registry-Auth header");
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    if text.is_empty() {
        return Ok(None);
    }
    let padded = format!("{text}{}", &"==="[..(4 - text.len() % 4) % 4]);
    let json = BASE64_URL_SAFE.decode(padded).map_err(|_| bad())?;
    // Go's client sends `null` where it has none.
    let config: Option<types::AuthConfig> = types::parse(&json).map_err(|_| bad())?;
    Ok(config.and_then(credentials))
}

/// `POST /images/create`: a pull, or (`fromSrc`) an import.
async fn create(
    Use(state): Use<State>,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, ApiError> {
    let images = state.engine()?.images().clone();
    let platform = params.get("platform").filter(|platform| !platform.is_empty());
    let platform = platform.map(str::parse::<image::Platform>).transpose();
    let platform = platform.map_err(|error| ApiError::bad_request(error.to_string()))?;
    if let Some(source) = params.get("fromSrc") {
        let url = (source != "-").then(|| match source.contains("://") {
            true => source.to_owned(),
            // As Docker: what is no URL is the beginning of one.
            false => format!("http://{source}"),
        });
        let reference = match params.get("repo") {
            Some(repo) if repo.contains('@') => {
                return Err(ApiError::bad_request("cannot import digest reference"));
            }
            Some(repo) => Some(parse(&match params.get("tag") {
                Some(tag) => format!("{repo}:{tag}"),
                None => repo.to_owned(),
            })?),
            None => None,
        };
        let name = reference.as_ref().map(ToString::to_string);
        let options = ImportOptions {
            reference,
            changes: params.all("changes"),
            message: params.get("message").unwrap_or_default().to_owned(),
            platform,
            ..ImportOptions::default()
        };
        // Answered once it is done: an import's only line is its result.
        let id = match url {
            Some(url) => images.import_url(&url, options).await?,
            None => images.import(reader(body), options).await?,
        };
        state.image_event("import", &id.to_string(), &id.to_string());
        if let Some(name) = name {
            state.image_event("tag", &id.to_string(), &name);
        }
        let line = types::JsonMessage { status: id.to_string(), ..Default::default() };
        return Ok(messages(stream::iter([line])));
    }
    let name =
        params.get("fromImage").ok_or_else(|| ApiError::bad_request("missing parameter: fromImage"))?;
    let reference = named(name, params.get("tag"))?;
    let options = PullOptions {
        auth: auth(&headers),
        registries: state.registries(),
        platform: platform.clone(),
        ..PullOptions::default()
    };
    let teller = state.clone();
    Ok(progress(&state, move |lines| async move {
        let image = images.pull(&reference, options, lines.clone()).await?;
        if let Some(warning) = platform.and_then(|wanted| other_platform(&wanted, &reference, &image)) {
            let line = Progress { status: warning, ..Progress::default() };
            drop(lines.send(line).await); // a client that has gone need not be warned
        }
        teller.image_event("pull", &reference.to_string(), &reference.familiar_name());
        Ok(())
    }))
}

/// Returns what is said of an image for one platform alone, which is not that which was asked for. *Source:* moby
/// `daemon/images/image_pull.go`.
fn other_platform(wanted: &image::Platform, reference: &Reference, image: &Image) -> Option<String> {
    let (os, architecture) = (&image.config.os, &image.config.architecture);
    (wanted.os != *os || wanted.architecture != *architecture).then(|| {
        format!(
            "WARNING: image with reference {reference} was found but does not match the specified platform: wanted \
             {wanted}, actual: {os}/{architecture}"
        )
    })
}

pub(super) fn reader(body: Body) -> impl tokio::io::AsyncRead + Send + Unpin + 'static {
    StreamReader::new(body.into_data_stream().map_err(std::io::Error::other))
}

/// Streams the progress of some work as JSON lines; its error is the last one.
pub(super) fn progress<F, W>(state: &State, work: W) -> Response
where
    F: Future<Output = Result<(), image::Error>> + Send + 'static,
    W: FnOnce(mpsc::Sender<Progress>) -> F + Send + 'static,
{
    let (lines, mut steps) = mpsc::channel(LINES);
    let (out, answer) = mpsc::channel::<types::JsonMessage>(LINES);
    state.spawn(async move {
        let show = async {
            while let Some(step) = steps.recv().await {
                // A client that has gone does not stop a pull that others wait for.
                drop(out.try_send(line(step)));
            }
        };
        let (result, ()) = tokio::join!(work(lines), show);
        if let Err(error) = result {
            drop(out.send(failure(error)).await);
        }
    });
    messages(ReceiverStream::new(answer))
}

/// Returns the line that ends an answer which went wrong.
fn failure(error: impl Into<ApiError>) -> types::JsonMessage {
    let message = error.into().message;
    types::JsonMessage {
        error_detail: Some(types::ErrorDetail { message: message.clone(), ..Default::default() }),
        error: message,
        ..Default::default()
    }
}

pub(super) fn line(step: Progress) -> types::JsonMessage {
    let detail = types::ProgressDetail { current: step.current, total: step.total };
    let counted = step.total > 0 || step.current > 0;
    types::JsonMessage {
        status: step.status,
        id: step.id,
        progress_detail: counted.then_some(detail),
        ..Default::default()
    }
}

/// An answer of messages, a line each, as they come. (In chunks, also where all are there: docker-py takes anything else for
/// one document.)
pub(super) fn messages(messages: impl Stream<Item = types::JsonMessage> + Send + 'static) -> Response {
    let lines = messages.map(|message| {
        let mut line = Text::of(&message);
        line.extend_from_slice(b"\r\n");
        Ok::<_, Infallible>(line)
    });
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

async fn load(Use(state): Use<State>, body: Body) -> Result<Response, ApiError> {
    let (sender, mut steps) = mpsc::channel(LINES);
    let images = state.engine()?.images();
    // The archive must be read while the answer waits, so progress would have nobody to read it.
    let drain = async { while steps.recv().await.is_some() {} };
    let (loaded, ()) = tokio::join!(images.load(reader(body), sender), drain);
    // Said in the answer, which has begun by then in Docker. *Source:* moby `router/image`, `postImagesLoad`.
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Ok(messages(stream::iter([failure(error)]))),
    };
    for image in &loaded {
        let id = image.id.to_string();
        let name = image.tags.first().map_or_else(|| id.clone(), ToString::to_string);
        state.image_event("load", &id, &name);
    }
    let said = loaded.into_iter().flat_map(|image| {
        if image.tags.is_empty() {
            return vec![format!("Loaded image ID: {}\n", image.id)];
        }
        image.tags.iter().map(|tag| format!("Loaded image: {tag}\n")).collect()
    });
    Ok(messages(stream::iter(said.map(|stream| types::JsonMessage { stream, ..Default::default() }))))
}

async fn save(Use(state): Use<State>, params: Params) -> Result<Response, ApiError> {
    archive(&state, params.all("names")).await
}

async fn archive(state: &State, names: Vec<String>) -> Result<Response, ApiError> {
    let images = state.engine()?.images().clone();
    for name in &names {
        images.find(name).await?;
    }
    let (ours, theirs) = tokio::io::duplex(256 << 10);
    state.spawn(async move {
        if let Err(error) = images.save(&names, ours).await {
            tracing::warn!(error = %ApiError::from(error), "saving images was cut short");
        }
    });
    Ok(([(CONTENT_TYPE, "application/x-tar")], Body::from_stream(ReaderStream::new(theirs))).into_response())
}

async fn remove(
    Use(state): Use<State>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Answer<Vec<types::ImageDeleted>>, ApiError> {
    let images = state.engine()?.images();
    let id = images.find(&name).await?.id.to_string();
    let removed = images.remove(&name, params.flag("force")).await?;
    tell_removed(&state, &id, &removed);
    Ok(Answer(removed.into_iter().map(deleted).collect()))
}

fn tell_removed(state: &State, id: &str, removed: &[Removed]) {
    for one in removed {
        match one {
            Removed::Untagged(name) => state.image_event("untag", id, name),
            // Layers go silently.
            Removed::Deleted(digest) if digest.to_string() == id => state.image_event("delete", id, id),
            Removed::Deleted(_) => {}
        }
    }
}

fn deleted(removed: Removed) -> types::ImageDeleted {
    match removed {
        Removed::Untagged(name) => types::ImageDeleted { untagged: name.to_string(), ..Default::default() },
        Removed::Deleted(digest) => types::ImageDeleted { deleted: digest.to_string(), ..Default::default() },
    }
}

/// Source: Docker API `ImageCommit`.
async fn commit(
    Use(state): Use<State>,
    params: Params,
    AnyJson(config): AnyJson<types::ContainerConfig>,
) -> Result<(StatusCode, Answer<types::Created>), ApiError> {
    let container =
        params.get("container").ok_or_else(|| ApiError::bad_request("missing parameter: container"))?;
    let reference = match params.get("repo") {
        Some(repo) => Some(parse(&format!("{repo}:{}", params.get("tag").unwrap_or("latest")))?),
        None => None,
    };
    let changes = params.all("changes");
    let is_given = config != types::ContainerConfig::default();
    let asked = types::ContainerCreate { config, ..Default::default() };
    let config = is_given.then(|| container_create::container_config(None, asked)).transpose()?;
    let options = engine::CommitOptions {
        reference,
        author: params.get("author").unwrap_or_default().to_owned(),
        comment: params.get("comment").unwrap_or_default().to_owned(),
        pause: params.flag_or("pause", true),
        config: config.map(Box::new),
        changes: changes.iter().flat_map(|c| c.lines()).map(str::to_owned).collect(),
    };
    let name = options.reference.as_ref().map(ToString::to_string);
    let id = state.engine()?.commit(container, options).await?;
    if let Some(name) = name {
        state.image_event("tag", &id.to_string(), &name);
    }
    Ok((StatusCode::CREATED, Answer(types::Created { id: id.to_string(), warnings: Vec::new() })))
}

async fn prune(Use(state): Use<State>, params: Params) -> Result<Answer<types::ImagesPruned>, ApiError> {
    let filters = params.filters(filters::IMAGES_PRUNED)?;
    let named_too = filters.flag("dangling") == Some(false);
    let filters = filters.engine();
    let until = filters.until()?.map(|at| i128::from(at.0));
    let wanted = |image: &Image| {
        filters.labels_match(&image.config.config.labels)
            && until.is_none_or(|until| image.created.is_none_or(|at| at.unix_timestamp_nanos() <= until))
    };
    let engine = state.engine()?;
    let (removed, space_reclaimed) = engine.images().prune(named_too, wanted).await?;
    // The names of an image come before the image itself.
    for of_one in removed.split_inclusive(|one| matches!(one, Removed::Deleted(_))) {
        if let Some(Removed::Deleted(id)) = of_one.last() {
            tell_removed(&state, &id.to_string(), of_one);
        }
    }
    engine.pruned_event(EventKind::Image, space_reclaimed);
    Ok(Answer(types::ImagesPruned {
        images_deleted: types::some_of(removed.into_iter().map(deleted).collect()),
        space_reclaimed,
    }))
}

/// What a reference stands for now, so that a service can pin it: here, else on another node of the swarm, else at
/// its registry.
async fn distribution(
    Use(state): Use<State>,
    Extension(origin): Extension<Origin>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (name, "json") = split(&rest) else { return Err(ApiError::not_found("page not found")) };
    let reference = parse(name)?;
    let images = state.engine()?.images();
    if let Some(manifest) = images.manifest_for(&reference).await {
        let image = images.find(name).await?;
        let platform = image::Platform {
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            variant: image.config.variant.clone(),
        };
        return Ok(Answer(distributed(manifest, vec![platform])).into_response());
    }
    if origin == Origin::Peer {
        return Err(ApiError::not_found(format!("no such image: {reference}")));
    }
    if let Some(answer) = asked_of_the_swarm(&state, &rest).await {
        return Ok(answer);
    }
    if matches!(origin, Origin::Relay(_)) {
        // Registries are the worker's own to ask.
        return Err(ApiError::not_found(format!("no such image: {reference}")));
    }
    let options =
        PullOptions { auth: auth(&headers), registries: state.registries(), ..PullOptions::default() };
    let (manifest, platforms) = images.resolve(&reference, options).await?;
    Ok(Answer(distributed(manifest, platforms)).into_response())
}

fn distributed(manifest: image::Manifest, platforms: Vec<image::Platform>) -> types::DistributionInspect {
    let platforms = platforms.into_iter().map(|platform| types::DistributionPlatform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant.unwrap_or_default(),
    });
    types::DistributionInspect {
        descriptor: types::Descriptor {
            size: bytes(manifest.bytes.len() as u64),
            media_type: manifest.media_type,
            digest: manifest.digest.to_string(),
        },
        platforms: platforms.collect(),
    }
}

/// Returns the first answer of a node that knows the image; nodes that do not answer in time are passed over.
async fn asked_of_the_swarm(state: &State, rest: &str) -> Option<Response> {
    let this = state.swarm().status().membership()?.node_id;
    let ask = async |node| {
        let request = Request::builder().uri(format!("/distribution/{rest}")).body(Body::empty());
        let asked = proxy::forward(state, node, None, &Role::Reads, request.ok()?);
        let answer = tokio::time::timeout(NODE_LIMIT, asked).await.ok()?.ok()?;
        (answer.status() == StatusCode::OK).then_some(answer)
    };
    if proxy::is_on_a_worker(state) {
        // The manager that relays it asks the others.
        return ask(this).await;
    }
    let nodes = state.list::<Node>().await.ok()?;
    let others = nodes.iter().filter(|n| n.id != this && n.status.state == NodeState::Ready);
    let mut answers: futures::stream::FuturesUnordered<_> = others.map(|node| ask(node.id)).collect();
    while let Some(answer) = answers.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_filters_take_names_and_tags_with_wildcards() {
        for (pattern, fits) in [
            ("redis", true),
            ("redis:7", true),
            ("red*", true),
            ("*:7", true),
            ("r*:?", true),
            ("redis:8", false),
            ("nginx", false),
        ] {
            let pattern = Pattern::of_path(pattern).unwrap();
            assert_eq!(matches_reference(&pattern, "redis:7"), fits, "{pattern:?}");
        }
        assert!(!matches_reference(&Pattern::of_path("*").unwrap(), "team/redis:7"), "a star is no slash");
        assert!(matches_reference(&Pattern::of_path("a:5000/x").unwrap(), "a:5000/x@sha256:00"));
    }

    #[test]
    fn credentials_come_from_dockers_header() {
        let mut headers = HeaderMap::new();
        assert!(auth(&headers).is_none());
        let text = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(r#"{"username":"u","password":"p"}"#);
        headers.insert("X-Registry-Auth", text.parse().unwrap());
        assert!(auth(&headers) == Some(Auth::Basic { username: "u".into(), password: "p".into() }));
        for nothing in ["bnVsbA==", "e30=", "", "FOOBAR", "!"] {
            headers.insert("X-Registry-Auth", nothing.parse().unwrap());
            assert!(auth(&headers).is_none(), "{nothing:?}");
        }
    }

    #[test]
    fn a_tag_beside_a_name_is_taken_in_place_of_its_own() {
        let read = |name, tag| named(name, tag).map(|reference| reference.to_string());
        assert_eq!(read("registry.lan:5000/web:1", Some("2")).unwrap(), "registry.lan:5000/web:2");
        assert_eq!(read("redis:7", Some("")).unwrap(), "redis:7");
        assert_eq!(read("redis:7", None).unwrap(), "redis:7");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(read("redis:7", Some(&digest)).unwrap(), format!("redis@{digest}"));
        assert!(read("redis", Some("a b")).is_err());
    }
}
