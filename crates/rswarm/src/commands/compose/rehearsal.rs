//! `--dry-run`: plays the daemon's part, so that every command can be gone through to its end and nothing happens.
//!
//! ```text
//!  command -> Client --looks----------------------> daemon -> answer, with what the notes say of it
//!                    --would change something-----> notes
//!                    --is known as neither--------> refused
//! ```
//! Requests are the one way in which a command reaches an engine. What is not known here is refused, so no command
//! changes something in a dry run because nobody thought of it. What commands do on this machine themselves (files that
//! are written, programs that are run) they ask [`Project::dry_run`](super::project::Project) about.
//!
//! Source: docker/compose `pkg/dryrun/dryrunclient.go`.

use axum::{
    body::Body,
    extract::Query,
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header},
};
use docker_api::client::{self, Client, escape};
use http_body_util::BodyExt as _;
use image::{Digest, Reference};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Returns a client that looks at the daemon, and changes nothing there.
pub(super) fn client(daemon: &Client) -> Client {
    let stage = Arc::new(Stage { daemon: daemon.clone(), notes: Mutex::default() });
    daemon.clone().answered_by(move |request| {
        let stage = Arc::clone(&stage);
        Box::pin(async move { stage.answer(request).await.unwrap_or_else(Refusal::into_response) })
    })
}

struct Stage {
    daemon: Client,
    notes: Mutex<Notes>,
}

/// What would be otherwise.
#[derive(Default)]
struct Notes {
    /// Containers that would be there, by id, as `GET /containers/{id}/json` has them.
    containers: BTreeMap<String, Value>,
    /// Networks and volumes that would be there, by name.
    networks: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    /// States and names of containers, by id.
    states: BTreeMap<String, &'static str>,
    names: BTreeMap<String, String>,
    /// Ids of containers and networks and names of volumes that would be gone, each with its kind in front.
    gone: BTreeSet<(&'static str, String)>,
    /// By whole name: the id that an image would have; `None` = it would be gone.
    images: BTreeMap<String, Option<String>>,
    /// How many commands would be run beside containers' own.
    execs: usize,
}

/// Why something would not work.
struct Refusal {
    status: StatusCode,
    message: String,
}

type Answer = Result<Response<Body>, Refusal>;

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    fn into_response(self) -> Response<Body> {
        answer(self.status, &json!({"message": self.message}))
    }
}

impl From<client::Error> for Refusal {
    fn from(error: client::Error) -> Self {
        let status = error.status().unwrap_or(StatusCode::BAD_GATEWAY);
        Self::new(status, format!("{:#}", anyhow::Error::from(error)))
    }
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Is a container in a state in which `ps` shows it?
fn runs(state: &str) -> bool {
    matches!(state, "running" | "paused" | "restarting")
}

/// Returns an id for what would be made.
fn id_of(what: &str) -> String {
    let digest = Digest::of(format!("rehearsed {what}").as_bytes()).to_string();
    digest.rsplit(':').next().unwrap_or_default().to_owned()
}

/// A request, taken apart.
struct Asked {
    method: Method,
    /// `/v1.51`
    version: String,
    path: String,
    query: Vec<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
}

impl Asked {
    fn query(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Returns the labels that objects are looked for by; `None` if they are looked for by something else too.
    fn labels(&self) -> Option<Vec<String>> {
        let filters = self.query("filters");
        if filters.is_empty() {
            return Some(Vec::new());
        }
        let filters: BTreeMap<String, Value> = serde_json::from_str(filters).ok()?;
        let mut labels = Vec::new();
        for (kind, wanted) in filters {
            match (kind.as_str(), wanted) {
                ("label", Value::Object(map)) => labels.extend(map.into_iter().map(|(label, _)| label)),
                ("label", Value::Array(list)) => {
                    labels.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                _ => return None,
            }
        }
        Some(labels)
    }
}

/// Does an object have all of these labels, each `KEY` or `KEY=VALUE`?
fn has_labels(labels: &Value, wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| match wanted.split_once('=') {
        Some((key, value)) => labels[key].as_str() == Some(value),
        None => !labels[wanted.as_str()].is_null(),
    })
}

impl Stage {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let query = query.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.to_string()))?.0;
        let (version, path) = match parts.uri.path()[1..].split_once('/') {
            Some((version, path)) => (format!("/{version}"), path.to_owned()),
            None => (String::new(), String::new()),
        };
        let asked =
            Asked { method: parts.method, version, path, query, uri: parts.uri, headers: parts.headers };
        let words: Vec<&str> = asked.path.split('/').collect();
        match (asked.method.as_str(), words.as_slice()) {
            ("GET", ["containers", "json"]) => self.containers(&asked).await,
            ("GET", ["containers", id, "json"]) => {
                Ok(answer(StatusCode::OK, &self.container(&asked, id).await?))
            }
            ("GET", [kind @ ("networks" | "volumes")]) => self.objects(&asked, kind).await,
            ("GET", [kind @ ("networks" | "volumes"), name]) => {
                Ok(answer(StatusCode::OK, &self.object(&asked, kind, name).await?))
            }
            ("GET", ["images", name @ .., "json"]) if !name.is_empty() => {
                Ok(answer(StatusCode::OK, &self.image(&asked, &name.join("/")).await?))
            }
            ("GET", ["exec", _, "json"]) => {
                Ok(answer(StatusCode::OK, &json!({"ExitCode": 0, "Running": false})))
            }
            ("GET" | "HEAD", _) | ("POST", ["containers", _, "wait"]) => self.forward(&asked).await,
            _ => {
                // Whoever sends much waits until it is read.
                let body = body.collect().await.map(http_body_util::Collected::to_bytes);
                let body = body.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.to_string()))?;
                self.change(&asked, &words, &body).await
            }
        }
    }

    /// Notes what a request would change.
    async fn change(&self, asked: &Asked, words: &[&str], body: &[u8]) -> Answer {
        let json = || {
            serde_json::from_slice::<Value>(body)
                .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.to_string()))
        };
        match (asked.method.as_str(), words) {
            ("POST", ["containers", "create"]) => self.create(asked, json()?).await,
            (
                "POST",
                [
                    "containers",
                    id,
                    action @ ("start" | "stop" | "restart" | "kill" | "pause" | "unpause" | "rename"),
                ],
            ) => self.act(asked, id, action).await,
            ("DELETE", ["containers", id]) => {
                let id = self.id(asked, id).await?;
                let mut notes = self.notes();
                notes.containers.remove(&id);
                notes.gone.insert(("containers", id));
                Ok(empty(StatusCode::NO_CONTENT))
            }
            ("PUT", ["containers", id, "archive"]) => {
                self.container(asked, id).await?;
                Ok(empty(StatusCode::OK))
            }
            ("POST", ["containers", id, "exec"]) => {
                self.container(asked, id).await?;
                let mut notes = self.notes();
                notes.execs += 1;
                Ok(answer(StatusCode::CREATED, &json!({"Id": id_of(&format!("exec {}", notes.execs))})))
            }
            // It says nothing, and has ended.
            ("POST", ["exec", _, "start"]) => {
                let mut ended = empty(StatusCode::OK);
                if asked.headers.contains_key(header::UPGRADE) {
                    *ended.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    let headers = ended.headers_mut();
                    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
                    headers.insert(header::UPGRADE, header::HeaderValue::from_static("tcp"));
                }
                Ok(ended)
            }
            ("POST", ["commit"]) => {
                self.container(asked, asked.query("container")).await?;
                let (repo, tag) = (asked.query("repo"), asked.query("tag"));
                let id = format!("sha256:{}", id_of(&format!("commit {}", asked.query("container"))));
                if !repo.is_empty() {
                    self.note_image(&tagged(repo, tag), id.clone())?;
                }
                Ok(answer(StatusCode::CREATED, &json!({"Id": id})))
            }
            ("POST", ["networks", "create"]) => self.make("networks", &json()?, asked).await,
            ("POST", ["volumes", "create"]) => self.make("volumes", &json()?, asked).await,
            ("POST", ["networks", name, action @ ("connect" | "disconnect")]) => {
                let network = self.object(asked, "networks", name).await?;
                let name = network["Name"].as_str().unwrap_or(name).to_owned();
                let id = self.id(asked, json()?["Container"].as_str().unwrap_or_default()).await?;
                if let Some(made) = self.notes().containers.get_mut(&id) {
                    let networks = &mut made["NetworkSettings"]["Networks"];
                    match *action {
                        "connect" => networks[&name] = json!({}),
                        _ => networks.as_object_mut().map_or((), |all| drop(all.remove(&name))),
                    }
                }
                Ok(empty(StatusCode::OK))
            }
            ("DELETE", [kind @ ("networks" | "volumes"), name]) => {
                let found = self.object(asked, kind, name).await?;
                let (kind, key) = match *kind {
                    "networks" => ("networks", "Id"),
                    _ => ("volumes", "Name"),
                };
                let name = found["Name"].as_str().unwrap_or(name).to_owned();
                let mut notes = self.notes();
                match kind {
                    "networks" => notes.networks.remove(&name),
                    _ => notes.volumes.remove(&name),
                };
                notes.gone.insert((kind, found[key].as_str().unwrap_or_default().to_owned()));
                Ok(empty(StatusCode::NO_CONTENT))
            }
            ("POST", ["images", "create"]) if !asked.query("fromImage").is_empty() => self.pull(asked).await,
            ("POST", ["build"]) => {
                let mut id = String::new();
                for (_, name) in asked.query.iter().filter(|(key, _)| key == "t") {
                    id = format!("sha256:{}", id_of(&format!("image {name}")));
                    self.note_image(name, id.clone())?;
                }
                Ok(answer(StatusCode::OK, &json!({"aux": {"ID": id}})))
            }
            ("POST", ["images", name @ .., "push"]) => {
                self.image(asked, &tagged(&name.join("/"), asked.query("tag"))).await?;
                Ok(empty(StatusCode::OK))
            }
            ("DELETE", ["images", name @ ..]) => {
                let name = name.join("/");
                self.image(asked, &name).await?;
                if let Ok(name) = name.parse::<Reference>() {
                    self.notes().images.insert(name.canonical(), None);
                }
                Ok(answer(StatusCode::OK, &json!([])))
            }
            (method, _) => Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("this is not supported in dry-run mode ({method} /{})", asked.path),
            )),
        }
    }

    /// Passes a request that changes nothing.
    async fn forward(&self, asked: &Asked) -> Answer {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = asked.uri.clone();
        *request.headers_mut() = asked.headers.clone();
        Ok(self.daemon.send(request).await?.map(Body::new))
    }

    /// Returns what the daemon says of something.
    async fn look(&self, uri: &str, headers: HeaderMap) -> Result<Value, Refusal> {
        let unreadable = |e: &dyn std::fmt::Display| Refusal::new(StatusCode::BAD_GATEWAY, e.to_string());
        let mut request = Request::get(uri).body(Body::empty()).map_err(|e| unreadable(&e))?;
        *request.headers_mut() = headers;
        let answer = self.daemon.send(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.map_err(|e| unreadable(&e))?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let message = value["message"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        Err(Refusal { status, message })
    }

    async fn containers(&self, asked: &Asked) -> Answer {
        let mut uri = format!("{}/containers/json?all=1", asked.version);
        if !asked.query("filters").is_empty() {
            uri = format!("{uri}&filters={}", escape(asked.query("filters")));
        }
        let found = self.look(&uri, HeaderMap::new()).await?;
        let mut all: Vec<Value> = found.as_array().cloned().unwrap_or_default();
        let notes = self.notes();
        all.retain(|c| {
            !notes.gone.contains(&("containers", c["Id"].as_str().unwrap_or_default().to_owned()))
        });
        for container in &mut all {
            let id = container["Id"].as_str().unwrap_or_default().to_owned();
            if let Some(state) = notes.states.get(&id) {
                container["State"] = json!(state);
                container["Status"] = json!(state);
            }
            if let Some(name) = notes.names.get(&id) {
                container["Names"] = json!([format!("/{name}")]);
            }
        }
        let wanted = asked.labels();
        let more = notes.containers.iter().filter(|(_, container)| {
            wanted.as_ref().is_some_and(|wanted| has_labels(&container["Config"]["Labels"], wanted))
        });
        all.extend(more.map(|(id, container)| {
            let state = &container["State"]["Status"];
            json!({
                "Id": id, "Names": [container["Name"]], "Image": container["Config"]["Image"],
                "ImageID": container["Image"], "Labels": container["Config"]["Labels"], "State": state,
                "Status": state, "Mounts": [], "NetworkSettings": container["NetworkSettings"],
            })
        }));
        let every = matches!(asked.query("all"), "1" | "true");
        all.retain(|c| every || runs(c["State"].as_str().unwrap_or_default()));
        Ok(answer(StatusCode::OK, &Value::Array(all)))
    }

    /// Returns a container as it would be.
    async fn container(&self, asked: &Asked, id: &str) -> Result<Value, Refusal> {
        let made = {
            let notes = self.notes();
            let named =
                |c: &&Value| c["Name"].as_str().is_some_and(|name| name.trim_start_matches('/') == id);
            let by_name = || notes.containers.values().find(named);
            notes.containers.get(id).or_else(by_name).cloned()
        };
        if let Some(made) = made {
            return Ok(made);
        }
        let uri = format!("{}/containers/{id}/json", asked.version);
        let mut found = self.look(&uri, HeaderMap::new()).await?;
        let key = found["Id"].as_str().unwrap_or_default().to_owned();
        let notes = self.notes();
        let renamed = notes.names.get(&key);
        if notes.gone.contains(&("containers", key.clone()))
            || renamed.is_some_and(|name| name != id && !key.starts_with(id))
        {
            return Err(Refusal::not_found(format!("No such container: {id}")));
        }
        if let Some(name) = renamed {
            found["Name"] = json!(format!("/{name}"));
        }
        if let Some(state) = notes.states.get(&key) {
            put_state(&mut found, state);
        }
        Ok(found)
    }

    async fn id(&self, asked: &Asked, id: &str) -> Result<String, Refusal> {
        Ok(self.container(asked, id).await?["Id"].as_str().unwrap_or_default().to_owned())
    }

    async fn create(&self, asked: &Asked, mut body: Value) -> Answer {
        let image = body["Image"].as_str().unwrap_or_default().to_owned();
        let image = self.image(asked, &image).await?["Id"].clone();
        let mut name = asked.query("name").to_owned();
        if name.is_empty() {
            name = id_of(&format!("name {}", self.notes().containers.len())).chars().take(12).collect();
        }
        match self.container(asked, &name).await {
            Ok(_) => {
                let message = format!("Conflict. The container name \"/{name}\" is already in use");
                return Err(Refusal::new(StatusCode::CONFLICT, message));
            }
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
            Err(refusal) => return Err(refusal),
        }
        let host = body.get_mut("HostConfig").map(Value::take).unwrap_or_default();
        let networks = body["NetworkingConfig"]["EndpointsConfig"].take();
        let mut notes = self.notes();
        let id = id_of(&format!("container {} {name}", notes.containers.len() + notes.gone.len()));
        let mut made = json!({
            "Id": id, "Name": format!("/{name}"), "Image": image, "Config": body, "HostConfig": host, "State": {},
            "Mounts": [], "NetworkSettings": {"Networks": if networks.is_null() { json!({}) } else { networks }},
        });
        put_state(&mut made, "created");
        notes.containers.insert(id.clone(), made);
        Ok(answer(StatusCode::CREATED, &json!({"Id": id, "Warnings": []})))
    }

    async fn act(&self, asked: &Asked, id: &str, action: &str) -> Answer {
        let container = self.container(asked, id).await?;
        let id = container["Id"].as_str().unwrap_or_default().to_owned();
        let running = container["State"]["Running"].as_bool().unwrap_or_default();
        let signal = asked.query("signal").trim_start_matches("SIG").to_uppercase();
        let state = match action {
            "start" if running => return Ok(empty(StatusCode::NOT_MODIFIED)),
            "stop" if !running => return Ok(empty(StatusCode::NOT_MODIFIED)),
            "start" | "restart" | "unpause" => "running",
            "stop" => "exited",
            "pause" => "paused",
            "kill" if matches!(signal.as_str(), "" | "KILL" | "9") => "exited",
            "kill" => return Ok(empty(StatusCode::NO_CONTENT)),
            _ => {
                let name = asked.query("name").to_owned();
                let mut notes = self.notes();
                match notes.containers.get_mut(&id) {
                    Some(made) => made["Name"] = json!(format!("/{name}")),
                    None => drop(notes.names.insert(id, name)),
                }
                return Ok(empty(StatusCode::NO_CONTENT));
            }
        };
        let mut notes = self.notes();
        match notes.containers.get_mut(&id) {
            Some(made) => put_state(made, state),
            None => drop(notes.states.insert(id, state)),
        }
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Networks or volumes.
    async fn objects(&self, asked: &Asked, kind: &str) -> Answer {
        let mut found = self.look(&asked.uri.to_string(), HeaderMap::new()).await?;
        let wanted = asked.labels();
        let notes = self.notes();
        let is_gone = |kind: &'static str, key: &Value| {
            notes.gone.contains(&(kind, key.as_str().unwrap_or_default().to_owned()))
        };
        let more = |made: &BTreeMap<String, Value>| -> Vec<Value> {
            let fits =
                |one: &&Value| wanted.as_ref().is_some_and(|wanted| has_labels(&one["Labels"], wanted));
            made.values().filter(fits).cloned().collect()
        };
        if kind == "networks" {
            let mut all = found.as_array().cloned().unwrap_or_default();
            all.retain(|network| !is_gone("networks", &network["Id"]));
            all.extend(more(&notes.networks));
            return Ok(answer(StatusCode::OK, &Value::Array(all)));
        }
        let mut all = found["Volumes"].as_array().cloned().unwrap_or_default();
        all.retain(|volume| !is_gone("volumes", &volume["Name"]));
        all.extend(more(&notes.volumes));
        found["Volumes"] = Value::Array(all);
        Ok(answer(StatusCode::OK, &found))
    }

    /// A network or a volume.
    async fn object(&self, asked: &Asked, kind: &str, name: &str) -> Result<Value, Refusal> {
        let (made, kind, key, singular) = {
            let notes = self.notes();
            match kind {
                "networks" => {
                    let by_id = || notes.networks.values().find(|made| made["Id"].as_str() == Some(name));
                    (notes.networks.get(name).or_else(by_id).cloned(), "networks", "Id", "network")
                }
                _ => (notes.volumes.get(name).cloned(), "volumes", "Name", "volume"),
            }
        };
        if let Some(made) = made {
            return Ok(made);
        }
        let found = self.look(&format!("{}/{kind}/{name}", asked.version), HeaderMap::new()).await?;
        if self.notes().gone.contains(&(kind, found[key].as_str().unwrap_or_default().to_owned())) {
            return Err(Refusal::not_found(format!("{singular} {name} not found")));
        }
        Ok(found)
    }

    async fn make(&self, kind: &str, body: &Value, asked: &Asked) -> Answer {
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        match self.object(asked, kind, &name).await {
            // A volume that is there is the one that is meant.
            Ok(found) if kind == "volumes" => return Ok(answer(StatusCode::CREATED, &found)),
            Ok(_) => {
                let message = format!("network with name {name} already exists");
                return Err(Refusal::new(StatusCode::CONFLICT, message));
            }
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
            Err(refusal) => return Err(refusal),
        }
        let mut made = body.clone();
        let mut notes = self.notes();
        if kind == "networks" {
            let id = id_of(&format!("network {name}"));
            made["Id"] = json!(id);
            notes.networks.insert(name, made);
            return Ok(answer(StatusCode::CREATED, &json!({"Id": id, "Warning": ""})));
        }
        notes.volumes.insert(name, made.clone());
        Ok(answer(StatusCode::CREATED, &made))
    }

    /// An image as it would be.
    async fn image(&self, asked: &Asked, name: &str) -> Result<Value, Refusal> {
        let whole = name.parse::<Reference>().map(|reference| reference.canonical()).ok();
        let noted = whole.and_then(|whole| self.notes().images.get(&whole).cloned());
        match noted {
            Some(Some(id)) => Ok(json!({"Id": id, "RepoTags": [name], "Config": {}})),
            Some(None) => Err(Refusal::not_found(format!("No such image: {name}"))),
            None => self.look(&format!("{}/images/{name}/json", asked.version), HeaderMap::new()).await,
        }
    }

    fn note_image(&self, name: &str, id: String) -> Result<(), Refusal> {
        let name: Reference =
            name.parse().map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, format!("{name}: {e}")))?;
        self.notes().images.insert(name.canonical(), Some(id));
        Ok(())
    }

    /// The registry is asked whether there is such an image; what is here already stays as it is.
    async fn pull(&self, asked: &Asked) -> Answer {
        let name = tagged(asked.query("fromImage"), asked.query("tag"));
        let headers = asked.headers.get("x-registry-auth").cloned();
        let headers = headers.map(|value| (header::HeaderName::from_static("x-registry-auth"), value));
        let uri = format!("{}/distribution/{name}/json", asked.version);
        let there = self.look(&uri, headers.into_iter().collect()).await?;
        let digest = there["Descriptor"]["digest"].as_str().unwrap_or_default();
        let same = match self.image(asked, &name).await {
            Ok(image) => image["RepoDigests"].as_array().is_some_and(|known| {
                known.iter().filter_map(Value::as_str).any(|known| known.ends_with(digest))
            }),
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => false,
            Err(refusal) => return Err(refusal),
        };
        if !same {
            self.note_image(&name, digest.to_owned())?;
        }
        Ok(empty(StatusCode::OK))
    }
}

fn put_state(container: &mut Value, state: &str) {
    container["State"] = json!({
        "Status": state, "Running": runs(state), "Paused": state == "paused", "ExitCode": 0,
        "Health": {"Status": if runs(state) { "healthy" } else { "none" }},
    });
}

/// Returns the name of an image that comes in two parts.
fn tagged(name: &str, tag: &str) -> String {
    match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    }
}
