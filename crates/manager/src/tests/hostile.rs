//! Hostile JSON for every field of what people ask of a swarm, through the real front door, gate and store: each value is
//! refused in words or taken as it is, none is a fault of ours, and the swarm goes on.
//!
//! What reaches a host's engine is attacked by `tests/e2e/attacks/fields.rs`.

use super::swarm::{Running, Swarm, channel, operator};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use docker_api::{
    server::{
        ApiError, Asker, BoxedIo, Control, FrontDoor, InitRequest, JoinRequest, Membership, Options, Origin,
        SwarmStatus, link,
    },
    types::{self, Wire},
};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use model::{ClusterId, NodeId, Role};
use proto::{PersonalClaim, control::control_client::ControlClient};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use testkit::hostile::{self, Field, Step};
use tokio_util::sync::CancellationToken;

/// How many requests are under way at once: they share what it takes to make their writes last.
const AT_ONCE: usize = 16;
/// How long one answer may take, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(60);

/// A manager's front door, without an engine.
struct Manager {
    node: NodeId,
    addr: SocketAddr,
    control: Control,
}

#[async_trait::async_trait]
impl docker_api::server::Swarm for Manager {
    fn status(&self) -> SwarmStatus {
        SwarmStatus::Active(Membership {
            node_id: self.node,
            cluster_id: ClusterId(1),
            role: Role::Manager,
            addr: self.addr,
            managers: vec![(self.node, self.addr)],
            control_available: true,
            leader: Some(self.node),
            error: String::new(),
        })
    }

    async fn init(&self, _: InitRequest) -> Result<NodeId, ApiError> {
        Err(ApiError::not_implemented("it is in a swarm"))
    }

    async fn join(&self, _: JoinRequest) -> Result<(), ApiError> {
        Err(ApiError::not_implemented("it is in a swarm"))
    }

    async fn leave(&self, _: bool) -> Result<(), ApiError> {
        Err(ApiError::not_implemented("it stays"))
    }

    async fn unlock(&self, _: String) -> Result<(), ApiError> {
        Err(ApiError::not_implemented("it is not locked"))
    }

    async fn control(&self, _: &Asker) -> Result<Control, ApiError> {
        Ok(self.control.clone())
    }

    async fn relay(&self, _: &Asker, _: Option<SocketAddr>) -> Result<(SocketAddr, BoxedIo), ApiError> {
        Err(ApiError::not_implemented("there are no other nodes"))
    }

    async fn tunnel(&self, _: NodeId, _: &Asker) -> Result<BoxedIo, ApiError> {
        Err(ApiError::not_implemented("there are no other nodes"))
    }
}

fn front_door(manager: &Running) -> FrontDoor {
    let way = link(channel(&manager.credentials, manager.addr));
    let control = ControlClient::with_interceptor(way, PersonalClaim::new(&operator()));
    let swarm = Arc::new(Manager { node: manager.node, addr: manager.addr, control });
    let options = Options {
        engine: None,
        swarm,
        hostname: "host".into(),
        data_root: "/nonexistent".into(),
        live: Arc::new(docker_api::server::Live::default),
        connections_max: 64,
        min_api: docker_api::server::MIN_API_VERSION,
    };
    FrontDoor::new(options, CancellationToken::new())
}

async fn ask(door: &FrontDoor, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    let request = request.body(body).unwrap();
    let answer = tokio::time::timeout(LIMIT, async {
        let answer = door.answer(request, &Origin::Unix { uid: 0 }).await;
        (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
    });
    let (status, body) =
        answer.await.unwrap_or_else(|_| panic!("{method} {path}: no answer within {LIMIT:?}"));
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn fields_of<T: Wire>() -> Vec<Field> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker-api/src/types");
    hostile::fields(&|json| types::parse::<T>(json).is_ok(), &hostile::vocabulary(&folder))
}

/// Returns what is wrong with an answer, if anything is: it must be taken, or refused in words for what was asked.
fn fault(status: StatusCode, said: &Value) -> Option<String> {
    let words = said["message"].as_str().unwrap_or_default();
    let fine = status.is_success() || status.is_client_error() && !words.is_empty() && words.len() < 10_000;
    (!fine && status != StatusCode::NOT_IMPLEMENTED).then(|| format!("{status} {words:.300}"))
}

/// Returns what is at a path, whose names may be spelled otherwise.
fn at<'a>(mut all: &'a Value, path: &[Step]) -> &'a Value {
    for step in path {
        all = match (step, all) {
            (Step::Key(name), Value::Object(members)) => {
                let called = members.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
                called.map_or(&Value::Null, |(_, value)| value)
            }
            (Step::Key(name), other) => &other[name.as_str()],
            (Step::Item, list) => &list[0],
        };
    }
    all
}

/// Returns true if a value was understood as it was meant: it is shown so, or not at all where it says nothing.
fn is_kept(shown: &Value, path: &[Step], value: &Value) -> bool {
    if value == "" {
        return true; // not said: whatever is the rule then
    }
    let seen = at(shown, path);
    let nothing = |v: &Value| match v {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    seen == value || nothing(seen) && nothing(value)
}

/// A kind of object that is made and removed.
struct Kind {
    what: &'static str,
    base: Value,
    fields: Vec<Field>,
    create: &'static str,
    folder: &'static str,
    /// It is named so in what follows, not by its id.
    by_name: bool,
    /// What is shown otherwise than it was said, and why.
    otherwise: &'static [&'static str],
}

/// Makes, looks at and removes an object for each hostile value.
async fn attack(door: &FrontDoor, kind: &Kind) -> (usize, usize, Vec<String>) {
    let bodies = hostile::bodies(&kind.base, &kind.fields);
    let sent = bodies.len();
    let outcomes =
        futures::stream::iter(bodies.into_iter().enumerate()).map(|(number, mut body)| async move {
            if body.json["Name"] == kind.base["Name"] {
                body.json["Name"] = json!(format!("{}{number}", kind.what));
            }
            let (status, answer) = ask(door, "POST", kind.create, &body.json).await;
            let mut faults: Vec<String> = fault(status, &answer).into_iter().collect();
            if status.is_success() {
                let named = if kind.by_name { &body.json["Name"] } else { &answer["ID"] };
                let id = named.as_str().or(answer["Id"].as_str()).unwrap_or_default();
                let path = format!("{}/{id}", kind.folder);
                let (seen, shown) = ask(door, "GET", &path, &Value::Null).await;
                if seen != StatusCode::OK {
                    faults.push(format!("made, and then {seen} {shown}"));
                }
                let shown = if shown["Spec"].is_object() { &shown["Spec"] } else { &shown };
                let text = body.to_string();
                if !is_kept(shown, &body.path, &body.value)
                    && !kind.otherwise.iter().any(|o| text.starts_with(o))
                {
                    faults.push(format!("taken for {:.200}", at(shown, &body.path).to_string()));
                }
                let (gone, why) = ask(door, "DELETE", &path, &Value::Null).await;
                if !gone.is_success() {
                    faults.push(format!("made, and not removed: {gone} {why}"));
                }
            }
            let faults: Vec<_> =
                faults.into_iter().map(|fault| format!("{} {body}: {fault}", kind.what)).collect();
            (status.is_success(), faults)
        });
    let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).collect().await;
    let taken = outcomes.iter().filter(|(taken, _)| *taken).count();
    (sent, taken, outcomes.into_iter().flat_map(|(_, faults)| faults).collect())
}

async fn attack_all(kinds: &[Kind]) {
    let swarm = Swarm::new().await;
    let door = front_door(&swarm.managers[0]);
    let mut faults = Vec::new();
    for kind in kinds {
        let began = std::time::Instant::now();
        let (sent, taken, bad) = attack(&door, kind).await;
        let (what, fields) = (kind.what, kind.fields.len());
        println!("{what}: {fields} fields, {sent} values, {taken} taken, {:.1?}", began.elapsed());
        // Much of what is hostile to one field is harmless in another.
        assert!(taken > 0 && taken < sent, "{what}: {taken} of {sent} taken");
        faults.extend(bad);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    let (status, _) = ask(&door, "GET", "/swarm", &Value::Null).await;
    assert_eq!((status, swarm.managers[0].faults.ended.get()), (StatusCode::OK, None), "it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_a_services_fields_is_a_fault_or_taken_for_another() {
    let mount = json!({"Type": "volume", "Source": "v", "Target": "/v"});
    let task = json!({"ContainerSpec": {"Image": "hello", "Mounts": [mount]}});
    let fields = fields_of::<types::ServiceSpec>();
    let shown: Vec<String> = fields.iter().map(ToString::to_string).collect();
    for field in [
        ".Mode.Replicated.Replicas",
        ".TaskTemplate.ContainerSpec.Secrets[].File.Name",
        ".TaskTemplate.Resources.Limits.MemoryBytes",
    ] {
        assert!(shown.iter().any(|found| found == field), "{field} is not found in {shown:#?}");
    }
    let base = json!({"Name": "s", "TaskTemplate": task, "Mode": {"Replicated": {"Replicas": 0}}});
    attack_all(&[Kind {
        what: "service",
        base,
        fields,
        create: "/services/create",
        folder: "/services",
        by_name: false,
        otherwise: &[],
    }])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_other_objects_fields_is_a_fault_or_taken_for_another() {
    let kind = |what, base, fields, create, folder, otherwise| Kind {
        what,
        base,
        fields,
        create,
        folder,
        by_name: false,
        otherwise,
    };
    let data = json!({"Name": "d", "Data": "eA=="});
    let overlay = json!({"Name": "n", "Driver": "overlay"});
    let mut of_overlays = fields_of::<types::NetworkCreate>();
    // Of another driver it is a network of the host.
    of_overlays.retain(|field| field.to_string() != ".Driver");
    attack_all(&[
        kind(
            "secret",
            data.clone(),
            fields_of::<types::SecretSpec>(),
            "/secrets/create",
            "/secrets",
            &[
                ".Data", // nobody is shown it
            ],
        ),
        kind("config", data, fields_of::<types::ConfigSpec>(), "/configs/create", "/configs", &[]),
        kind(
            "network",
            overlay,
            of_overlays,
            "/networks/create",
            "/networks",
            &[
                ".CheckDuplicate", // said of the request, and always done
            ],
        ),
        Kind {
            by_name: true,
            ..kind(
                "user",
                json!({"Name": "u", "Role": "read"}),
                fields_of::<types::UserSpec>(),
                "/rswarm/users",
                "/rswarm/users",
                &[],
            )
        },
    ])
    .await;
}

/// What is changed of something that stays; and what is only asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_settings_or_a_stack_is_a_fault() {
    let swarm = Swarm::new().await;
    let door = front_door(&swarm.managers[0]);
    let none = Value::Null;
    let mut faults = Vec::new();
    let (_, before) = ask(&door, "GET", "/swarm", &none).await;
    for body in hostile::bodies(&before["Spec"], &fields_of::<types::SwarmSpec>()) {
        let (_, now) = ask(&door, "GET", "/swarm", &none).await;
        let path = format!("/swarm/update?version={}", now["Version"]["Index"]);
        let (status, said) = ask(&door, "POST", &path, &body.json).await;
        faults.extend(fault(status, &said).map(|why| format!("swarm {body}: {why}")));
        // Members go on to be heard, and get certificates, with whatever was taken.
        if status.is_success() && body.to_string().contains("NodeCertExpiry") {
            let token = swarm.token(Role::Worker).await;
            if let Err(refused) = swarm.certify(swarm.managers[0].addr, &token).await {
                faults.push(format!("swarm {body}: taken, and then nobody joins: {refused}"));
            }
        }
    }
    let service = json!({"Name": "st_web", "TaskTemplate": {"ContainerSpec": {"Image": "hello"}}});
    let base = json!({"Services": [{"Spec": service}]});
    let mut fields = fields_of::<types::ApplyStack>();
    // Of services, as of other objects, the tests above know more.
    fields.retain(|field| !field.to_string().starts_with(".Services[].Spec."));
    for body in hostile::bodies(&base, &fields) {
        let (status, said) = ask(&door, "POST", "/rswarm/stacks/st/foresee", &body.json).await;
        faults.extend(fault(status, &said).map(|why| format!("stack {body}: {why}")));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(swarm.managers[0].faults.ended.get(), None, "it goes on");
}
