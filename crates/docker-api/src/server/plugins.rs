//! `/plugins`: Docker's managed plugins as what registries keep of them. One is made of a folder, listed, set, pushed,
//! pulled and removed here as with Docker, for the hosts that run it. None is run here: volumes, networks and logs have
//! the drivers that are built in, so enabling one is refused by name.
//!
//! *Source:* Docker API "Plugin"; moby `api/server/router/plugin`, `plugin/backend_linux.go`.

use super::answer::Answer;
use super::{
    ApiError, State, filters,
    images::{auth, parse, progress, reader},
    request::{self, Params, Use},
    routing::{delete, door, get, post},
};
use crate::{
    convert::{plugin_is_granted, plugin_privileges, plugin_settings, set_plugin},
    types,
};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest as _, Path, Request},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use engine::{Event, EventKind};
use image::{Plugin, Plugins, Reference, RemotePlugin};
use std::collections::BTreeMap;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/plugins", get(list))
        .route("/plugins/privileges", get(privileges))
        .route("/plugins/pull", post(pull))
        .route("/plugins/create", post(create).layer(DefaultBodyLimit::disable()))
        .route("/plugins/{*rest}", get(inspect).post(door(act)))
        .route("/plugins/{*rest}", delete(remove))
}

/// Returns the plugins of this host, which is not for everybody.
fn plugins(state: &State) -> Result<&Plugins, ApiError> {
    state.of_the_host()?;
    Ok(state.engine()?.plugins())
}

/// Splits `NAME/json`, `NAME/enable` and the like; names have slashes of their own.
fn split(rest: &str) -> (&str, &str) {
    const ACTIONS: [&str; 6] = ["json", "enable", "disable", "upgrade", "push", "set"];
    rest.rsplit_once('/').filter(|(_, action)| ACTIONS.contains(action)).unwrap_or((rest, ""))
}

fn read_config(name: &str, config: &[u8]) -> Result<types::PluginConfig, ApiError> {
    types::parse(config)
        .map_err(|e| ApiError::bad_request(format!("plugin {name}: invalid configuration: {e}")))
}

fn shown(plugin: Plugin) -> Result<types::Plugin, ApiError> {
    let Plugin { id, name, reference, config, settings } = plugin;
    let unreadable = |e| ApiError::internal(format!("plugin {name}: what is kept of it cannot be read: {e}"));
    let settings = types::parse(settings.to_string().as_bytes()).map_err(unreadable)?;
    let config = types::parse(&config).map_err(unreadable)?;
    Ok(types::Plugin { id, name, enabled: false, settings, plugin_reference: reference, config })
}

fn kept(settings: &types::PluginSettings) -> serde_json::Value {
    serde_json::to_value(settings).expect("settings are plain JSON")
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<Vec<types::Plugin>>, ApiError> {
    let plugins = plugins(&state)?;
    let filters = params.filters(filters::PLUGINS)?;
    let all = match filters.flag("enabled") {
        Some(true) => Vec::new(),
        Some(false) | None => plugins.list().await?,
    };
    let mut found = all.into_iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    // As Docker: one that can do several things has to do no other than those.
    found.retain(|p| {
        p.config.interface.types.iter().all(|t| filters.any("capability", |c| capability(t) == c))
    });
    Ok(Answer(found))
}

/// Returns the middle of `docker.volumedriver/1.0`.
fn capability(kind: &str) -> &str {
    let kind = kind.split('/').next().unwrap_or_default();
    kind.rsplit_once('.').map_or(kind, |(_, capability)| capability)
}

async fn inspect(
    Use(state): Use<State>,
    Path(rest): Path<String>,
) -> Result<Answer<types::Plugin>, ApiError> {
    let plugins = plugins(&state)?;
    match split(&rest) {
        (name, "json") => shown(plugins.find(name).await?).map(Answer),
        _ => Err(ApiError::not_found("page not found")),
    }
}

async fn create(Use(state): Use<State>, params: Params, body: Body) -> Result<StatusCode, ApiError> {
    let plugins = plugins(&state)?;
    let name = name_of(params.get("name").unwrap_or_default())?;
    plugins.check_free(&name)?;
    let context = plugins.read(reader(body)).await.map_err(|error| match error {
        image::Error::InvalidArchive(_) | image::Error::Archive(_) => {
            ApiError::bad_request(model::with_causes(&error))
        }
        error => error.into(),
    })?;
    let mut config = read_config(&name.to_string(), &context.config)?;
    let layers =
        types::PluginRootFs { kind: "layers".to_owned(), diff_ids: vec![context.diff_id.to_string()] };
    config.root_fs = Some(layers);
    let written = serde_json::to_vec(&config).expect("a configuration is plain JSON");
    let plugin = plugins.create(&name, context, written, kept(&plugin_settings(&config))).await?;
    tell(&state, "create", &plugin.id, &plugin.name);
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the name that a plugin is to have.
fn name_of(text: &str) -> Result<Reference, ApiError> {
    let name = parse(text)?;
    match name.digest {
        Some(_) => Err(ApiError::bad_request("canonical references are not permitted")),
        None => Ok(name),
    }
}

fn tell(state: &State, action: &str, id: &str, name: &str) {
    if let Ok(engine) = state.engine() {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        engine.publish(Event::now(EventKind::Plugin, action, id, attributes));
    }
}

/// What a registry has, and what its configuration says.
struct Found {
    reference: Reference,
    remote: RemotePlugin,
    config: types::PluginConfig,
}

/// Asks the registry for what `remote` names. The inner error: nobody answers there.
async fn find(
    state: &State,
    params: &Params,
    headers: &HeaderMap,
) -> Result<Result<Found, image::Error>, ApiError> {
    let reference = parse(params.get("remote").unwrap_or_default())?;
    let remote = match plugins(state)?.look_at(&reference, auth(headers), &state.registries()).await {
        Err(unreached @ image::Error::Network { .. }) => return Ok(Err(unreached)),
        looked => looked?,
    };
    let config = read_config(&reference.to_string(), &remote.config)?;
    Ok(Ok(Found { reference, remote, config }))
}

async fn privileges(
    Use(state): Use<State>,
    params: Params,
    headers: HeaderMap,
) -> Result<Answer<Vec<types::PluginPrivilege>>, ApiError> {
    match find(&state, &params, &headers).await? {
        Ok(found) => Ok(Answer(plugin_privileges(&found.config))),
        // As Docker: the pull that comes next does not reach it either, says so, and grants nothing by this.
        Err(unreached) => {
            tracing::warn!(error = model::with_causes(&unreached), "a plugin's registry cannot be asked");
            Ok(Answer(Vec::new()))
        }
    }
}

async fn pull(
    Use(state): Use<State>,
    params: Params,
    headers: HeaderMap,
    request::Json(granted): request::Json<Vec<types::PluginPrivilege>>,
) -> Result<Response, ApiError> {
    fetch(&state, &params, &headers, &granted, None).await
}

/// Fetches a plugin, as a new one or in place of another.
async fn fetch(
    state: &State,
    params: &Params,
    headers: &HeaderMap,
    granted: &[types::PluginPrivilege],
    replaced: Option<Plugin>,
) -> Result<Response, ApiError> {
    let plugins = plugins(state)?.clone();
    let Found { reference, remote, config } = find(state, params, headers).await??;
    let name = match (&replaced, params.get("name")) {
        (Some(old), _) => name_of(&old.name)?,
        (None, Some(name)) => name_of(name)?,
        (None, None) => name_of(&match &reference.tag {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()),
            None => reference.familiar_name(),
        })?,
    };
    if replaced.is_none() {
        plugins.check_free(&name)?;
    }
    if !plugin_is_granted(&plugin_privileges(&config), granted) {
        return Err(ApiError::bad_request(format!(
            "incorrect privileges: plugin {reference} asks for others than were granted; hint: GET \
             /plugins/privileges says which"
        )));
    }
    let (teller, called) = (state.clone(), HeaderValue::from_str(&name.to_string()));
    let mut answer = progress(state, move |lines| async move {
        let replaced = replaced.map(|old| old.id);
        let settings = kept(&plugin_settings(&config));
        let plugin = plugins.install(&name, remote, settings, replaced, &lines).await?;
        tell(&teller, "pull", &plugin.id, &reference.to_string());
        Ok(())
    });
    if let Ok(called) = called {
        answer.headers_mut().insert("Docker-Plugin-Name", called);
    }
    Ok(answer)
}

/// `POST /plugins/{name}/enable|disable|set|push|upgrade`
async fn act(
    Use(state): Use<State>,
    Path(rest): Path<String>,
    params: Params,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let plugins = plugins(&state)?;
    let (name, action) = split(&rest);
    let plugin = plugins.find(name).await?;
    match action {
        "enable" => Err(ApiError::not_implemented(format!(
            "plugin {} cannot be enabled: this daemon runs none; volumes have the driver \"local\", networks bridge, \
             macvlan, overlay, host and none, logs the drivers that `info` lists",
            plugin.name
        ))),
        "disable" => Err(ApiError::conflict(format!(
            "plugin {} found but disabled: it was never enabled",
            plugin.name
        ))),
        "set" => {
            let request::Json(args) = request::Json::<Vec<String>>::from_request(request, &state).await?;
            let plugin = shown(plugin)?;
            let mut settings = plugin.settings;
            set_plugin(&plugin.config, &mut settings, &args)?;
            plugins.set(&plugin.id, kept(&settings)).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        "push" => {
            let (plugins, registries, auth) = (plugins.clone(), state.registries(), auth(&headers));
            let teller = state.clone();
            Ok(progress(&state, move |lines| async move {
                plugins.push(&plugin.id, auth, &registries, &lines).await?;
                tell(&teller, "push", &plugin.id, &plugin.name);
                Ok(())
            }))
        }
        "upgrade" => {
            let granted =
                request::Json::<Vec<types::PluginPrivilege>>::from_request(request, &state).await?.0;
            fetch(&state, &params, &headers, &granted, Some(plugin)).await
        }
        _ => Err(ApiError::not_found("page not found")),
    }
}

async fn remove(Use(state): Use<State>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let plugin = plugins(&state)?.remove(&name).await?;
    tell(&state, "remove", &plugin.id, &plugin.name);
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_slashes_and_capabilities_lose_the_rest() {
        assert_eq!(split("a/b:latest/json"), ("a/b:latest", "json"));
        assert_eq!(split("a/b"), ("a/b", ""));
        assert_eq!(split("json"), ("json", ""));
        assert_eq!(capability("docker.volumedriver/1.0"), "volumedriver");
        assert_eq!(capability("logdriver"), "logdriver");
    }
}
