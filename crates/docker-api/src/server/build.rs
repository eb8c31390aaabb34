//! `POST /build` (the classic builder), `POST /build/prune`.
//!
//! The answer begins with the first line of the build: what is wrong with the request or the Dockerfile has a status of
//! its own. A client that goes away ends its build.

use super::answer::Answer;
use super::{
    ApiError, State, buildkit, container_create, filters, images,
    request::{Params, Use},
    routing::post,
};
use crate::{convert, types};
use axum::{Router, body::Body, extract::DefaultBodyLimit, http::HeaderMap, response::Response};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use engine::{BuildContext, BuildError, BuildLine, BuildOptions, SecretBytes};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Lines that wait for a slow client; the build waits with them.
const LINES: usize = 64;

/// Base64 of any client: padded or not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/build", post(build).layer(DefaultBodyLimit::disable()))
        .route("/build/prune", post(prune))
}

/// Reads a parameter that is JSON; absent is the default.
fn json<T: types::Wire + Default>(params: &Params, key: &str) -> Result<T, ApiError> {
    let Some(text) = params.get(key) else { return Ok(T::default()) };
    types::parse::<Option<T>>(text.as_bytes())
        .map(Option::unwrap_or_default)
        .map_err(|e| ApiError::bad_request(format!("invalid value for {key}: {e}")))
}

/// Reads a header that is base64 of JSON.
fn header<T: types::Wire + Default>(headers: &HeaderMap, name: &str) -> Result<T, ApiError> {
    let bad = || ApiError::bad_request(format!("invalid {name} header"));
    let Some(value) = headers.get(name) else { return Ok(T::default()) };
    let text = value.to_str().map_err(|_| bad())?.replace('-', "+").replace('_', "/");
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(text).map_err(|_| bad())?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    // Go's client sends `null` where it has nothing.
    types::parse::<Option<T>>(&bytes).map(Option::unwrap_or_default).map_err(|_| bad())
}

/// Reads what is asked for. *Source:* Docker API `ImageBuild`; the header `X-Rswarm-Build-Secrets` (base64 of a JSON map
/// of base64 values by id) is ours.
fn options(state: &State, params: &Params, headers: &HeaderMap) -> Result<BuildOptions, ApiError> {
    if !matches!(params.get("version"), None | Some("1" | "2")) {
        return Err(ApiError::bad_request("version: there are two builders, 1 and 2"));
    }
    if params.flag("squash") {
        return Err(ApiError::bad_request("squash is not supported: use a multi-stage build"));
    }
    // Who confines a build believes that it is confined.
    if let Some(option) = json::<Vec<String>>(params, "securityopt")?.first() {
        return Err(ApiError::bad_request(format!(
            "securityopt: {option:?} is not supported: steps of a build are confined as containers are by default"
        )));
    }
    if let Some(parent) = params.get("cgroupparent") {
        return Err(ApiError::bad_request(format!(
            "cgroupparent: {parent:?} is not supported: steps of a build are in groups of the daemon's; hint: memory, \
             cpuquota and the like bound them"
        )));
    }
    if let Some(isolation) = params.get("isolation").filter(|word| *word != "default") {
        return Err(ApiError::bad_request(format!("isolation: {isolation:?} is not supported on Linux")));
    }
    let platform = params.get("platform").map(str::parse).transpose();
    let mut tags = Vec::new();
    for name in params.all("t").iter().filter(|name| !name.is_empty()) {
        let tag = images::parse(name)?;
        if tag.digest.is_some() {
            return Err(ApiError::bad_request("the name of an image that is built cannot have a digest"));
        }
        let wanted = tag.tag.clone().unwrap_or_else(|| "latest".to_owned());
        tags.push(tag.with_tag(&wanted));
    }
    let args: BTreeMap<String, Option<String>> = json(params, "buildargs")?;
    let secrets: BTreeMap<String, String> = header(headers, "X-Rswarm-Build-Secrets")?;
    let secrets = secrets.into_iter().map(|(id, text)| {
        let content = GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(text);
        let content = content.map_err(|_| ApiError::bad_request(format!("secret {id} is not base64")))?;
        Ok((id, SecretBytes(content.into())))
    });
    let registries: BTreeMap<String, types::AuthConfig> = header(headers, "X-Registry-Config")?;
    let credentials = registries.into_iter().filter_map(|(server, account)| {
        let host = server.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        Some((host.to_owned(), images::credentials(account)?))
    });
    let resources = types::ContainerResources {
        memory: params.number("memory")?.unwrap_or_default(),
        memory_swap: params.number("memswap")?.unwrap_or_default(),
        cpu_shares: params.number("cpushares")?.unwrap_or_default(),
        cpu_period: params.number("cpuperiod")?.unwrap_or_default(),
        cpu_quota: params.number("cpuquota")?.unwrap_or_default(),
        cpuset_cpus: params.get("cpusetcpus").unwrap_or_default().to_owned(),
        cpuset_mems: params.get("cpusetmems").unwrap_or_default().to_owned(),
        ..types::ContainerResources::default()
    };
    let ulimits: Vec<types::Ulimit> = json(params, "ulimits")?;
    Ok(BuildOptions {
        dockerfile: params.get("dockerfile").unwrap_or_default().to_owned(),
        dockerfile_text: None,
        tags,
        args: args.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        labels: json(params, "labels")?,
        target: params.get("target").unwrap_or_default().to_owned(),
        platform: platform.map_err(|e: image::InvalidPlatform| ApiError::bad_request(e.to_string()))?,
        no_cache: params.flag("nocache"),
        pull: params.flag("pull"),
        network: params.get("networkmode").unwrap_or_default().into(),
        extra_hosts: params.all("extrahosts").iter().flat_map(|h| h.split(',')).map(str::to_owned).collect(),
        resources: container_create::resources(&resources)?,
        ulimits: ulimits.into_iter().map(convert::ulimit).collect(),
        shm_size_bytes: params.number("shmsize")?,
        secrets: secrets.collect::<Result<_, ApiError>>()?,
        ssh: None,
        credentials: credentials.collect(),
        registries: state.registries(),
    })
}

async fn build(
    Use(state): Use<State>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut options = options(&state, &params, &headers)?;
    let named: Vec<String> = json(&params, "cachefrom")?;
    // Images to take results from; where none is here, there are none. *Source:* moby `daemon/images`, `MakeImageCache`.
    options.no_cache |= !named.is_empty() && !is_here(&state, &named).await?;
    if params.get("version") == Some("2") {
        return build_traced(&state, &params, options, body).await;
    }
    let context = match params.get("remote").filter(|url| !url.is_empty()) {
        Some(url) => BuildContext::Remote(url.to_owned()),
        None => BuildContext::tar(images::reader(body)),
    };
    let engine = state.engine()?.clone();
    let quiet = params.flag("q");
    let (said, mut lines) = mpsc::channel(LINES);
    let (out, answer) = mpsc::channel::<types::JsonMessage>(LINES);
    let (begun, first) = tokio::sync::oneshot::channel::<Result<(), ApiError>>();
    let teller = state.clone();
    state.spawn(async move {
        let mut begun = Some(begun);
        let show = async {
            while let Some(line) = lines.recv().await {
                if let Some(begun) = begun.take() {
                    drop(begun.send(Ok(())));
                }
                let message = match line {
                    BuildLine::Pull(step) if !quiet => images::line(step),
                    BuildLine::Image(id) if quiet => stream(format!("{id}\n")),
                    BuildLine::Image(id) => types::JsonMessage {
                        aux: Some(serde_json::json!({ "ID": id.to_string() })),
                        ..Default::default()
                    },
                    line => match line.text().filter(|_| !quiet) {
                        Some(text) => stream(text),
                        None => continue,
                    },
                };
                if out.send(message).await.is_err() {
                    break;
                }
            }
            begun
        };
        let built = async { tokio::join!(engine.build(options, context, said), show) };
        let (built, begun) = tokio::select! {
            ended = built => ended,
            // Nobody listens any more: what runs is ended.
            () = out.closed() => return,
        };
        match built {
            Ok(id) => teller.image_event("build", &id.to_string(), &id.to_string()),
            Err(error) => {
                let code = match &error {
                    engine::Error::Build(BuildError::Command { code, .. }) => i64::from(*code),
                    _ => 0,
                };
                let error = ApiError::from(error);
                match begun {
                    Some(begun) => drop(begun.send(Err(error))),
                    None => {
                        let message = error.message;
                        let detail = types::ErrorDetail { code, message: message.clone() };
                        let last = types::JsonMessage {
                            error_detail: Some(detail),
                            error: message,
                            ..Default::default()
                        };
                        drop(out.send(last).await);
                    }
                }
            }
        }
    });
    // The sender goes away with the front door.
    first.await.map_err(|_| ApiError::unavailable("the daemon is shutting down"))??;
    Ok(images::messages(ReceiverStream::new(answer)))
}

async fn is_here(state: &State, images: &[String]) -> Result<bool, ApiError> {
    let store = state.engine()?.images();
    for name in images {
        if store.get(name).await.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A build of version 2: told in BuildKit's messages; of a client's session, or of a tar as body.
async fn build_traced(
    state: &State,
    params: &Params,
    options: BuildOptions,
    body: Body,
) -> Result<Response, ApiError> {
    let outputs: Vec<types::BuildOutput> = json(params, "outputs")?;
    if let Some(other) = outputs.iter().find(|output| !matches!(output.kind.as_str(), "moby" | "image")) {
        return Err(ApiError::bad_request(format!(
            "the output {:?} is not available: build an image, and take the files out with `docker cp` or `docker save`",
            other.kind
        )));
    }
    let source = match params.get("remote") {
        None => buildkit::Source::Context(BuildContext::tar(images::reader(body))),
        Some("client-session") => {
            let session = params.get("session").unwrap_or_default().to_owned();
            buildkit::Source::Session(session)
        }
        Some("upload-request") => {
            return Err(ApiError::bad_request(
                "a context of its own request (upload-request) is not available: send the tar as body of the build",
            ));
        }
        Some(url) => buildkit::Source::Context(BuildContext::Remote(url.to_owned())),
    };
    let reference = match params.get("buildid") {
        Some(id) => id.to_owned(),
        None => hex_id()?,
    };
    buildkit::build_over_http(state, reference, source, options, params.flag("q"))
}

/// Returns an id for a build whose client has none for it.
fn hex_id() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| ApiError::internal(format!("no randomness: {e}")))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

fn stream(text: String) -> types::JsonMessage {
    types::JsonMessage { stream: text, ..Default::default() }
}

/// Source: Docker API `BuildPrune`.
async fn prune(Use(state): Use<State>, params: Params) -> Result<Answer<types::BuildPruned>, ApiError> {
    let filters = params.filters(filters::BUILDS_PRUNED)?.engine();
    if params.number::<u64>("min-free-space")?.is_some_and(|bytes| bytes > 0) {
        return Err(ApiError::bad_request(
            "min-free-space is not supported here; hint: max-used-space says how much of the cache is kept",
        ));
    }
    let mut kept = None;
    // The newest name first; the older ones mean the same.
    for name in ["max-used-space", "reserved-space", "keep-storage"] {
        kept = kept.or(params.number::<u64>(name)?.filter(|bytes| *bytes > 0));
    }
    let engine = state.engine()?;
    let (caches_deleted, space_reclaimed) = engine.prune_builds(&filters, kept.unwrap_or(0)).await?;
    engine.pruned_event(engine::EventKind::Builder, space_reclaimed);
    Ok(Answer(types::BuildPruned { caches_deleted: types::some_of(caches_deleted), space_reclaimed }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    #[test]
    fn headers_are_read_in_any_base64() {
        let text = r#"{"a?~":"eA=="}"#;
        for encoded in [BASE64_STANDARD.encode(text), BASE64_URL_SAFE_NO_PAD.encode(text)] {
            let mut headers = HeaderMap::new();
            headers.insert("X-Rswarm-Build-Secrets", encoded.parse().unwrap());
            let read: BTreeMap<String, String> = header(&headers, "X-Rswarm-Build-Secrets").unwrap();
            assert_eq!(read["a?~"], "eA==");
        }
        assert!(header::<BTreeMap<String, String>>(&HeaderMap::new(), "X").unwrap().is_empty());
        for nothing in ["bnVsbA==", "e30=", ""] {
            let headers = HeaderMap::from_iter([("x".parse().unwrap(), nothing.parse().unwrap())]);
            assert!(header::<BTreeMap<String, types::AuthConfig>>(&headers, "X").unwrap().is_empty());
        }
    }
}
