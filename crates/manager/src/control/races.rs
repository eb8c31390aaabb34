//! Two people at once: whatever they ask for, what comes of it is what would have come of it one after the other.
//!
//! Each decides on the state that both found; the second to be applied decides anew when it is refused, as
//! [`crate::shared::Shared::decide`] does. Every pair of requests is tried on states that other requests made.

use super::{edit, new_object, stacks, users, validate};
use crate::tests::state::{service_spec, state};
use model::*;
use proto::{
    WireId as _,
    control::{
        ApplyStackRequest, PlannedService, RollbackStackRequest, UserSpec, create_request::Spec as NewSpec,
    },
    types::{self, ObjectKind},
};
use std::sync::Arc;
use tonic::{Code, Status};

/// What people (and nodes, for containers that people start) ask for, in words.
fn requests() -> Vec<&'static str> {
    vec![
        "create service one",
        "create service one secret config",
        "create service one network",
        "create service one port=80",
        "create service two port=80",
        "create service two host=80",
        "create service two stack",
        "create service two secret network stack port=90",
        "update web",
        "update web port=80",
        "update web secret",
        "update web network",
        "update web config stack",
        "roll back web",
        "remove service web",
        "remove secret",
        "remove config",
        "remove network",
        "remove stack",
        "create network wide",
        "create network narrow",
        "create network elsewhere",
        "create secret fresh",
        "apply stack",
        "apply stack port=80",
        "apply stack secret network",
        "roll back stack",
        "demote 1",
        "demote 2",
        "remove node 3",
        "create user a",
        "create user b",
        "attach network",
    ]
}

const NOW: Timestamp = Timestamp(5);

/// A swarm of two managers and a lost worker; one more user is one too many. Service `web` has an earlier spec.
fn base(feature_level: u32) -> Tables {
    let manager = |node: &mut Node| {
        node.spec.role = Role::Manager;
        node.certified_role = Role::Manager;
    };
    let mut cluster = Cluster::clone(state().cluster().tables().cluster.as_ref().unwrap());
    (cluster.meta, cluster.feature_level) = (Meta::default(), feature_level);
    let mut base = state()
        .put(Object::Cluster(Arc::new(cluster)))
        .node(1)
        .node(2)
        .node(3)
        .change_node(1, manager)
        .change_node(2, manager)
        .change_node(3, |node| node.status.state = NodeState::Down)
        .network(1)
        .change_network(1, |network| network.spec.attachable = true)
        .secret(1);
    for number in 1..USERS_MAX as u128 {
        let (id, meta, name) = (UserId(number), Meta::default(), format!("user{number}"));
        let user = User {
            id,
            meta,
            name,
            role: PersonRole::Read,
            password: None,
            tokens: Vec::new(),
            certificates: Vec::new(),
        };
        base = base.put(Object::User(Arc::new(user)));
    }
    let config =
        ConfigSpec { templated: false, name: "config1".into(), labels: Labels::new(), data: b"x".to_vec() };
    let config = Config { id: ConfigId(1), meta: Meta::default(), spec: config };
    let mut tables = base.put(Object::Config(Arc::new(config))).tables();
    for request in ["apply stack", "apply stack host=70", "create service web host=60", "update web"] {
        let found = tables.clone();
        assert!(ask(&mut tables, &found, found.clone(), request), "{request}");
    }
    tables
}

fn spec(name: &str, words: &[&str]) -> ServiceSpec {
    let mut spec = service_spec(name);
    for word in words {
        let task = Arc::make_mut(&mut spec.task);
        match word.split_once('=') {
            None if *word == "secret" => task.container.secrets.push(file(SecretId(1))),
            None if *word == "config" => task.container.configs.push(file(ConfigId(1))),
            None if *word == "network" => {
                task.networks.push(NetworkAttachmentSpec::new(NetworkId(1), Vec::new()));
            }
            None => drop(spec.labels.insert(STACK_LABEL.into(), "shop".into())),
            Some((mode, published)) => spec.endpoint.ports.push(PortConfig {
                name: String::new(),
                protocol: Protocol::Tcp,
                target: 80,
                published: published.parse().unwrap(),
                mode: if mode == "port" { PublishMode::Ingress } else { PublishMode::Host },
            }),
        }
    }
    spec
}

fn file<T>(id: T) -> FileRef<T> {
    FileRef { id, name: "f".into(), target: "f".into(), uid: "0".into(), gid: "0".into(), mode: 0o444 }
}

/// Decides a request on a view. `found`: what its author saw, and names.
fn decide(request: &str, found: &Tables, view: &Tables) -> Result<Vec<Change>, Status> {
    let words: Vec<&str> = request.split(' ').collect();
    let put = |object: Object| Ok(vec![Change::Put(object)]);
    let web = || found.service_named("web").cloned().ok_or_else(|| Status::not_found("no web"));
    let removal = |kind, id: Vec<u8>| edit::removal(view, &[], kind, &id, false, NOW);
    match words.as_slice() {
        ["create", "service", name, rest @ ..] => {
            put(new_object(view, NewSpec::Service((&spec(name, rest)).into()))?)
        }
        ["create", "network", name] => {
            let subnet = match *name {
                "wide" => "10.9.0.0/16",
                "narrow" => "10.9.3.0/24",
                _ => "10.10.0.0/24",
            };
            let mut spec = NetworkSpec::new(*name, NetworkDriver::Overlay);
            spec.subnet = Some(subnet.parse().unwrap());
            put(new_object(view, NewSpec::Network((&spec).into()))?)
        }
        ["create", "secret", name] => {
            let spec = SecretSpec {
                templated: false,
                name: (*name).into(),
                labels: Labels::new(),
                data: SecretBytes(vec![1]),
            };
            put(new_object(view, NewSpec::Secret((&spec).into()))?)
        }
        ["create", "user", name] => {
            let role = Some(types::PersonRole::from(&PersonRole::Read));
            let spec = UserSpec { name: (*name).into(), role };
            put(Object::User(Arc::new(users::new_user(view, UserId(random()), spec)?)))
        }
        ["update", "web", rest @ ..] => {
            let found = web()?;
            let stored = view.services.get(&found.id).ok_or_else(|| Status::not_found("service"))?;
            super::in_sequence(stored.spec_version, found.spec_version)?;
            let mut spec = spec("web", rest);
            Arc::make_mut(&mut spec.task).container.env = vec![request.to_owned()];
            let new = edit::updated_service(view, stored, spec)?;
            put(Object::Service(Arc::new(new)))
        }
        ["roll", "back", "web"] => {
            let found = web()?;
            let stored = view.services.get(&found.id).ok_or_else(|| Status::not_found("service"))?;
            super::in_sequence(stored.spec_version, found.spec_version)?;
            put(Object::Service(Arc::new(edit::rolled_back_service(view, stored, NOW)?)))
        }
        ["remove", "service", "web"] => removal(ObjectKind::Service, web()?.id.to_wire()),
        ["remove", "secret"] => removal(ObjectKind::Secret, SecretId(1).to_wire()),
        ["remove", "config"] => removal(ObjectKind::Config, ConfigId(1).to_wire()),
        ["remove", "network"] => removal(ObjectKind::Network, NetworkId(1).to_wire()),
        ["remove", "node", id] => removal(ObjectKind::Node, NodeId(id.parse().unwrap()).to_wire()),
        ["remove", "stack"] => {
            let stack = found.stack_named("shop").ok_or_else(|| Status::not_found("no stack"))?;
            removal(ObjectKind::Stack, stack.id.to_wire())
        }
        ["apply", "stack", rest @ ..] => {
            let version = found.service_named("shop_api").map_or(0, |s| s.spec_version);
            let mut spec = spec("shop_api", rest);
            spec.labels.insert(STACK_LABEL.into(), "shop".into());
            Arc::make_mut(&mut spec.task).container.env = vec![request.to_owned()];
            let services = vec![PlannedService { spec: Some((&spec).into()), version, registry_auth: None }];
            let request = ApplyStackRequest { name: "shop".into(), services, ..Default::default() };
            stacks::apply(view, NOW, "me", &request).map(|(_, changes)| changes)
        }
        ["roll", "back", "stack"] => {
            let request = RollbackStackRequest { name: "shop".into(), ..Default::default() };
            stacks::rollback(view, NOW, "me", &request).map(|(_, changes)| changes)
        }
        ["demote", id] => {
            let id = NodeId(id.parse().unwrap());
            let version = |tables: &Tables| tables.nodes.get(&id).map_or(0, |n| n.meta.version);
            super::in_sequence(version(view), version(found))?;
            let old = view.nodes.get(&id).ok_or_else(|| Status::not_found("node"))?;
            let spec = NodeSpec { role: Role::Worker, ..old.spec.clone() };
            let members = view.nodes.values().filter_map(member_in_touch).collect::<Vec<_>>();
            put(Object::Node(Arc::new(edit::updated_node(view, &members, old, spec)?)))
        }
        ["attach", "network"] => {
            let networks = vec![NetworkAttachmentSpec::new(NetworkId(1), Vec::new())];
            let task = Task::attachment(TaskId(random()), "c", "c", NodeId(1), networks);
            validate::attachment(view, &task)?;
            put(Object::Task(Arc::new(task)))
        }
        other => panic!("unknown request {other:?}"),
    }
}

/// Returns what Raft's leader sees of a node that is a manager.
fn member_in_touch(node: &Arc<Node>) -> Option<store::Member> {
    let manager = node.manager?;
    Some(store::Member {
        raft_id: manager.raft_id,
        node: Some(node.id),
        addr: manager.addr,
        voter: true,
        leader: false,
        reachable: Some(true),
        behind: Some(0),
    })
}

fn random() -> u128 {
    crate::random::random_id().unwrap()
}

/// Has a request applied that is first decided on `view`, then anew as long as it is refused for what others did, as
/// [`crate::shared::Shared::decide`] does. `found`: what its author saw. Returns whether it was done.
fn ask(tables: &mut Tables, found: &Tables, mut view: Tables, request: &str) -> bool {
    for _ in 0..20 {
        let Ok(changes) = decide(request, found, &view) else { return false };
        let index = tables.index + 1;
        let Err(conflict) = tables.apply(index, &Batch { at: NOW, changes }) else { return true };
        if crate::refusals::propose_error(&conflict.into()).code() != Code::Aborted {
            return false;
        }
        view = tables.clone();
    }
    panic!("{request} is refused whenever it is decided");
}

/// What came of two requests: which of them were done, and the state without what chance made.
type Outcome = ([bool; 2], Vec<String>);

/// Both have seen `tables`. Applied first is the one of index `first`; the other is decided before that (`at_once`) or
/// after it.
fn outcome(tables: &Tables, requests: [&str; 2], first: usize, at_once: bool) -> Outcome {
    let (mut now, mut done) = (tables.clone(), [false; 2]);
    for of in [first, 1 - first] {
        let view = if at_once { tables.clone() } else { now.clone() };
        done[of] = ask(&mut now, tables, view, requests[of]);
    }
    (done, summary(&now))
}

fn is_serial(tables: &Tables, requests: [&str; 2], first: usize) -> bool {
    let seen = outcome(tables, requests, first, true);
    [first, 1 - first].into_iter().any(|first| outcome(tables, requests, first, false) == seen)
}

/// Says how what came of two requests at once differs from each order.
fn differences(tables: &Tables, requests: [&str; 2]) -> String {
    let (done, state) = outcome(tables, requests, 0, true);
    let orders = [0, 1].map(|first| {
        let (serial_done, serial) = outcome(tables, requests, first, false);
        let only = |these: &[String], those: &[String]| {
            these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>()
        };
        format!(
            "\n{} first: done {serial_done:?}, at once {done:?}; only at once {:#?}, only then {:#?}",
            requests[first],
            only(&state, &serial),
            only(&serial, &state)
        )
    });
    orders.concat()
}

fn summary(tables: &Tables) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for service in tables.services.values() {
        let stack = service.stack.and_then(|id| tables.stacks.get(&id)).map(|s| (&s.name, s.pending_delete));
        let (spec, previous, leaving) = (&service.spec, &service.previous, service.pending_delete);
        lines.push(format!("{spec:?} {previous:?} {} {stack:?} {leaving}", service.spec_version));
    }
    for stack in tables.stacks.values() {
        lines.push(format!("{} {} {:?}", stack.name, stack.pending_delete, stack.revisions));
    }
    for network in tables.networks.values() {
        lines.push(format!("{:?} {:?} {}", network.spec, network.allocation, network.pending_delete));
    }
    lines.extend(tables.secrets.values().map(|s| s.spec.name.clone()));
    lines.extend(tables.configs.values().map(|c| c.spec.name.clone()));
    lines.extend(tables.users.values().skip(USERS_MAX - 2).map(|u| u.name.clone()));
    lines.extend(tables.nodes.values().map(|n| format!("{} {:?}", n.id, n.spec)));
    lines.extend(tables.tasks.values().map(|t| t.name()));
    lines.sort();
    lines
}

#[test]
fn two_requests_at_once_come_out_as_if_one_had_been_first() {
    let (base, requests) = (base(model::FEATURE_LEVEL), requests());
    let mut tried = 0;
    for (n, one) in requests.iter().enumerate() {
        for (m, other) in requests.iter().enumerate() {
            // Beside the first state, one that another request made, each time another.
            for before in [None, Some(requests[(n * 7 + m) % requests.len()])] {
                let mut tables = base.clone();
                if let Some(before) = before {
                    ask(&mut tables, &base, base.clone(), before);
                }
                let pair = [*one, *other];
                assert!(
                    is_serial(&tables, pair, 0),
                    "{pair:?} after {before:?}: {}",
                    differences(&tables, pair)
                );
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 2 * requests.len().pow(2));
}

/// So that the test above is known to see what it is for: the judgement of the state is what it hangs on.
#[test]
fn without_the_judgement_of_the_serial_apply_they_would_not() {
    let base = base(model::INTEGRITY_LEVEL - 1);
    for pair in [
        ["create service one port=80", "create service two port=80"],
        ["create service one port=80", "create service two host=80"],
        ["create service one secret config", "remove secret"],
        ["update web config stack", "remove config"],
        ["update web network", "remove network"],
        ["attach network", "remove network"],
        ["create service two stack", "remove stack"],
        ["create network wide", "create network narrow"],
        ["demote 1", "demote 2"],
        ["create user a", "create user b"],
    ] {
        assert!(!is_serial(&base, pair, 0), "{pair:?}");
    }
}
