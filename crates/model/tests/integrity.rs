//! What no two writes may break together, each right on the view it was decided on.

use model::*;
use std::sync::Arc;

fn cluster(feature_level: u32) -> Object {
    Object::Cluster(Arc::new(Cluster { feature_level, ..Cluster::new(ClusterId(1)) }))
}

fn node(id: u128) -> Object {
    Object::Node(Arc::new(Node {
        id: NodeId(id),
        meta: Meta::default(),
        spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
        index: u16::try_from(id).expect("a small number"),
        certified_role: Role::Manager,
        description: None,
        status: NodeStatus::default(),
        manager: None,
    }))
}

fn secret() -> Object {
    let spec = SecretSpec {
        templated: false,
        name: "s".into(),
        labels: Labels::new(),
        data: SecretBytes(b"x".to_vec()),
    };
    Object::Secret(Arc::new(Secret { id: SecretId(1), meta: Meta::default(), spec }))
}

fn config() -> Object {
    let spec = ConfigSpec { templated: false, name: "c".into(), labels: Labels::new(), data: b"x".to_vec() };
    Object::Config(Arc::new(Config { id: ConfigId(1), meta: Meta::default(), spec }))
}

fn network(id: u128, subnet: Option<&str>) -> Object {
    let spec = NetworkSpec {
        subnet: subnet.map(|s| s.parse().expect("a subnet")),
        ..NetworkSpec::new(format!("net{id}"), NetworkDriver::Overlay)
    };
    let (id, meta) = (NetworkId(id), Meta::default());
    Object::Network(Arc::new(Network { id, meta, spec, allocation: None, pending_delete: false }))
}

fn stack() -> Object {
    let (id, meta, name) = (StackId(1), Meta::default(), "shop".to_owned());
    Object::Stack(Arc::new(Stack { id, meta, name, revisions: Vec::new(), pending_delete: false }))
}

fn user(id: u128) -> Object {
    let (id, meta, name) = (UserId(id), Meta::default(), format!("user{id}"));
    Object::User(Arc::new(User {
        id,
        meta,
        name,
        role: PersonRole::Read,
        password: None,
        tokens: Vec::new(),
        certificates: Vec::new(),
    }))
}

fn service(id: u128, change: impl FnOnce(&mut Service, &mut TaskSpec, &mut ServiceSpec)) -> Object {
    let mut task = TaskSpec::default();
    let mut spec = ServiceSpec {
        name: format!("service{id}"),
        labels: Labels::new(),
        task: Arc::default(),
        mode: Mode::Replicated { replicas: 1 },
        update: UpdatePolicy::default(),
        rollback: UpdatePolicy::default(),
        endpoint: EndpointSpec::default(),
        depends_on: Vec::new(),
        said: model::Said::default(),
    };
    let mut service = Service {
        id: ServiceId(id),
        meta: Meta::default(),
        spec: Arc::new(spec.clone()),
        spec_version: 1,
        previous: None,
        stack: None,
        endpoint: Endpoint::default(),
        update: None,
        pending_delete: false,
        job_iteration: 0,
        registry_auth: None,
    };
    change(&mut service, &mut task, &mut spec);
    spec.task = Arc::new(task);
    service.spec = Arc::new(spec);
    Object::Service(Arc::new(service))
}

fn file<T>(id: T) -> FileRef<T> {
    FileRef { id, name: "f".into(), target: "f".into(), uid: "0".into(), gid: "0".into(), mode: 0o444 }
}

fn port(mode: PublishMode) -> PortConfig {
    PortConfig { name: String::new(), protocol: Protocol::Tcp, target: 80, published: 8080, mode }
}

fn on_network(id: u128) -> NetworkAttachmentSpec {
    NetworkAttachmentSpec::new(NetworkId(id), Vec::new())
}

fn change(tables: &mut Tables, changes: Vec<Change>) -> Result<(), Conflict> {
    let index = tables.index + 1;
    tables.apply(index, &Batch { at: Timestamp(5), changes }).map(drop)
}

fn put(object: Object) -> Vec<Change> {
    vec![Change::Put(object)]
}

fn delete(tables: &Tables, key: ObjectRef) -> Vec<Change> {
    vec![Change::Delete { key, version: tables.get(key).expect("it is there").version() }]
}

/// Marks what goes only when nothing uses it any more.
fn leave(tables: &Tables, key: ObjectRef) -> Vec<Change> {
    let object = match tables.get(key).expect("it is there") {
        Object::Network(o) => {
            Object::Network(Arc::new(Network { pending_delete: true, ..Network::clone(&o) }))
        }
        Object::Stack(o) => Object::Stack(Arc::new(Stack { pending_delete: true, ..Stack::clone(&o) })),
        other => other,
    };
    put(object)
}

fn demote(tables: &Tables, id: u128) -> Vec<Change> {
    let mut node = Node::clone(tables.nodes.get(&NodeId(id)).expect("it is there"));
    node.spec.role = Role::Worker;
    put(Object::Node(Arc::new(node)))
}

type Write = Box<dyn Fn(&Tables) -> Vec<Change>>;

fn write(decide: impl Fn(&Tables) -> Vec<Change> + 'static) -> Write {
    Box::new(decide)
}

/// Pairs that are right each alone, and what is there before them.
fn pairs() -> Vec<(&'static str, Vec<Object>, Write, Write)> {
    let publishes = |id: u128, mode: PublishMode| {
        write(move |_| put(service(id, |_, _, spec| spec.endpoint.ports.push(port(mode)))))
    };
    let attach = |_: &Tables| {
        let networks = vec![on_network(1)];
        put(Object::Task(Arc::new(Task::attachment(TaskId(9), "c", "c", NodeId(1), networks))))
    };
    let (ingress, host) = (PublishMode::Ingress, PublishMode::Host);
    vec![
        ("two ingress ports", vec![], publishes(1, ingress), publishes(2, ingress)),
        ("an ingress port and a host's", vec![], publishes(1, ingress), publishes(2, host)),
        (
            "a port that is asked for and one that is given",
            vec![service(1, |_, _, _| ())],
            write(|tables| {
                let mut given = Service::clone(tables.services.get(&ServiceId(1)).expect("it is there"));
                given.endpoint.ports.push(port(PublishMode::Ingress));
                put(Object::Service(Arc::new(given)))
            }),
            publishes(2, host),
        ),
        (
            "a secret and its user",
            vec![secret()],
            write(|t| delete(t, ObjectRef::Secret(SecretId(1)))),
            write(|_| put(service(1, |_, task, _| task.container.secrets.push(file(SecretId(1)))))),
        ),
        (
            "a config and its user",
            vec![config()],
            write(|t| delete(t, ObjectRef::Config(ConfigId(1)))),
            write(|_| put(service(1, |_, task, _| task.container.configs.push(file(ConfigId(1)))))),
        ),
        (
            "a network and its service",
            vec![network(1, None)],
            write(|t| leave(t, ObjectRef::Network(NetworkId(1)))),
            write(|_| put(service(1, |_, task, _| task.networks.push(on_network(1))))),
        ),
        (
            "a network and a container on it",
            vec![network(1, None)],
            write(|t| leave(t, ObjectRef::Network(NetworkId(1)))),
            write(attach),
        ),
        (
            "a stack and its service",
            vec![stack()],
            write(|t| leave(t, ObjectRef::Stack(StackId(1)))),
            write(|_| {
                put(service(1, |service, _, spec| {
                    service.stack = Some(StackId(1));
                    spec.labels.insert(STACK_LABEL.into(), "shop".into());
                }))
            }),
        ),
        (
            "two subnets that were asked for",
            vec![],
            write(|_| put(network(1, Some("10.7.0.0/16")))),
            write(|_| put(network(2, Some("10.7.3.0/24")))),
        ),
        (
            "a subnet that is asked for and one that is given",
            vec![network(1, None)],
            write(|tables| {
                let mut given = Network::clone(tables.networks.get(&NetworkId(1)).expect("it is there"));
                let subnet = "10.0.0.0/24".parse().expect("a subnet");
                let gateway = "10.0.0.1".parse().expect("an address");
                given.allocation = Some(NetworkAllocation { vni: 4097, subnet, gateway });
                put(Object::Network(Arc::new(given)))
            }),
            write(|_| put(network(2, Some("10.0.0.128/25")))),
        ),
        ("the last two managers", vec![node(1), node(2)], write(|t| demote(t, 1)), write(|t| demote(t, 2))),
        (
            "a manager that is removed and one that is demoted",
            vec![node(1), node(2)],
            write(|t| delete(t, ObjectRef::Node(NodeId(1)))),
            write(|t| demote(t, 2)),
        ),
        (
            "two users at the limit",
            (1..USERS_MAX as u128).map(user).collect(),
            write(|_| put(user(5_000))),
            write(|_| put(user(5_001))),
        ),
    ]
}

fn begin(feature_level: u32, objects: Vec<Object>) -> Tables {
    let mut tables = Tables::default();
    change(&mut tables, put(cluster(feature_level))).expect("the first");
    change(&mut tables, objects.into_iter().map(Change::Put).collect()).expect("they are new");
    tables
}

#[test]
fn of_two_writes_that_are_right_each_alone_and_wrong_together_the_second_is_refused() {
    for (what, before, one, other) in pairs() {
        let tables = begin(FEATURE_LEVEL, before);
        for (first, second) in [(&one, &other), (&other, &one)] {
            let (first, second) = (first(&tables), second(&tables)); // decided on the same view
            let mut now = tables.clone();
            change(&mut now, first).unwrap_or_else(|e| panic!("{what}: {e}"));
            let stood = now.clone();
            let refused = change(&mut now, second).expect_err(what);
            assert!(!matches!(refused, Conflict::OutOfSequence { .. }), "{what}: {refused}");
            assert_eq!(now, stood, "{what}: nothing of it was done");
        }
    }
}

#[test]
fn entries_of_a_log_from_before_the_rules_are_applied_as_they_were_and_can_be_mended() {
    for (what, before, one, other) in pairs() {
        let mut tables = begin(INTEGRITY_LEVEL - 1, before);
        let (first, second) = (one(&tables), other(&tables));
        change(&mut tables, first).unwrap_or_else(|e| panic!("{what}: {e}"));
        change(&mut tables, second).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut raised = Cluster::clone(tables.cluster.as_ref().expect("it is there"));
        raised.feature_level = FEATURE_LEVEL;
        change(&mut tables, put(Object::Cluster(Arc::new(raised)))).unwrap_or_else(|e| panic!("{what}: {e}"));
        // Every object can be written as it is, and a service that stands in the way removed.
        for object in tables.objects().collect::<Vec<_>>() {
            let key = object.key();
            change(&mut tables, put(object)).unwrap_or_else(|e| panic!("{what}: {key}: {e}"));
        }
        for id in tables.services.values().map(|s| s.id).collect::<Vec<_>>() {
            let gone = delete(&tables, ObjectRef::Service(id));
            change(&mut tables, gone).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
}

#[test]
fn what_changes_places_in_one_batch_is_judged_as_it_will_be() {
    let with_port = |id: u128| service(id, |_, _, spec| spec.endpoint.ports.push(port(PublishMode::Ingress)));
    let mut tables = begin(FEATURE_LEVEL, vec![with_port(1), service(2, |_, _, _| ())]);
    let version = tables.services.get(&ServiceId(1)).expect("it is there").meta.version;
    let at_version = |object: Object| match object {
        Object::Service(mut o) => {
            Arc::make_mut(&mut o).meta.version = version;
            Change::Put(Object::Service(o))
        }
        other => Change::Put(other),
    };
    let swap = vec![at_version(with_port(2)), at_version(service(1, |_, _, _| ()))];
    change(&mut tables, swap).expect("each port has one owner afterwards");
    let holder = tables.port_holder(&port(PublishMode::Host), None).map(|(s, _)| s.id);
    assert_eq!(holder, Some(ServiceId(2)));
    assert!(tables.port_holder(&port(PublishMode::Host), Some(ServiceId(2))).is_none());
}

#[test]
fn the_last_manager_may_leave_by_itself() {
    let mut tables = begin(FEATURE_LEVEL, vec![node(1)]);
    let mut left = Node::clone(tables.nodes.get(&NodeId(1)).expect("it is there"));
    left.spec.role = Role::Worker;
    left.status.state = NodeState::Disconnected;
    change(&mut tables, put(Object::Node(Arc::new(left)))).expect("it is gone, whatever the state says");
}

#[test]
fn an_object_knows_at_which_index_it_was_made() {
    for (level, known) in [(FEATURE_LEVEL, true), (INTEGRITY_LEVEL - 1, false)] {
        let mut tables = begin(level, vec![secret()]);
        let made = tables.index;
        let stored = tables.get(ObjectRef::Secret(SecretId(1))).expect("it is there");
        change(&mut tables, put(stored)).expect("as it is");
        let meta = tables.get(ObjectRef::Secret(SecretId(1))).expect("it is there").meta();
        assert_eq!((meta.version, meta.created), (made + 1, if known { made } else { 0 }));
    }
}

/// A swarm whose pool has four subnets, with this many networks that wait for theirs.
fn with_pool_of_four(feature_level: u32, networks: u128) -> Tables {
    let pools = vec!["10.1.0.0/22".parse().expect("a pool")];
    let cluster = Cluster { feature_level, address_pools: pools, ..Cluster::new(ClusterId(1)) };
    let mut tables = Tables::default();
    change(&mut tables, put(Object::Cluster(Arc::new(cluster)))).expect("the first");
    for id in 1..=networks {
        change(&mut tables, put(network(id, None))).expect("there is room");
    }
    tables
}

#[test]
fn of_two_networks_that_each_saw_the_last_subnet_free_the_second_is_refused() {
    let (pool, first_of_pool, elsewhere) = (None, Some("10.1.0.0/24"), Some("10.7.0.0/24"));
    let one_left = with_pool_of_four(FEATURE_LEVEL, 3);
    for (one, other) in [(pool, pool), (pool, first_of_pool), (first_of_pool, pool)] {
        let mut tables = one_left.clone();
        change(&mut tables, put(network(8, one))).expect("there is room");
        let refused = change(&mut tables, put(network(9, other))).expect_err("there is none");
        assert_eq!(refused, Conflict::NoSubnetLeft { network: ObjectRef::Network(NetworkId(9)) });
        change(&mut tables, put(network(9, elsewhere))).expect("it takes nothing of the pool");
        let gone = delete(&tables, ObjectRef::Network(NetworkId(8)));
        change(&mut tables, gone).expect("it may go");
        change(&mut tables, put(network(10, other))).expect("there is room again");
    }
    let mut tables = one_left;
    let both = vec![Change::Put(network(8, pool)), Change::Put(network(9, pool))];
    change(&mut tables, both).expect_err("one of them has no room");
    assert_eq!(tables.room_for_networks(10), 1);
}

#[test]
fn where_networks_wait_for_more_than_there_is_others_can_still_be_made_and_they_can_go() {
    let mut tables = with_pool_of_four(POOLS_LEVEL - 1, 6);
    let raised = Cluster {
        feature_level: FEATURE_LEVEL,
        ..Cluster::clone(tables.cluster.as_ref().expect("it is there"))
    };
    change(&mut tables, put(Object::Cluster(Arc::new(raised)))).expect("two have no room already");
    change(&mut tables, put(network(7, None))).expect_err("a third that has none");
    change(&mut tables, put(network(7, Some("10.7.0.0/24")))).expect("it takes nothing of the pool");
    let leaving = leave(&tables, ObjectRef::Network(NetworkId(1)));
    change(&mut tables, leaving).expect("one may go");
    assert_eq!(tables.room_for_networks(10), 0);
}

fn given(tables: &mut Tables, id: u128, vni: u32) -> Result<(), Conflict> {
    let mut network = Network::clone(tables.networks.get(&NetworkId(id)).expect("it is there"));
    let subnet = network.spec.subnet.expect("it asked for one");
    let gateway = subnet.hosts().next().expect("an address");
    network.allocation = Some(NetworkAllocation { vni, subnet, gateway });
    change(tables, put(Object::Network(Arc::new(network))))
}

#[test]
fn a_subnet_may_be_asked_for_while_its_network_is_being_removed_and_is_given_when_that_is_gone() {
    let (whole, part) = (Some("10.7.0.0/16"), Some("10.7.3.0/24"));
    let mut tables = begin(FEATURE_LEVEL, vec![network(1, whole)]);
    given(&mut tables, 1, 5000).expect("it is free");
    change(&mut tables, put(network(2, part))).expect_err("its network stays");
    let leaving = leave(&tables, ObjectRef::Network(NetworkId(1)));
    change(&mut tables, leaving).expect("nobody uses it");
    change(&mut tables, put(network(2, part))).expect("it waits");
    let refused = change(&mut tables, put(network(3, whole))).expect_err("that is asked for");
    assert!(matches!(refused, Conflict::SubnetTaken { owner: Some(ObjectRef::Network(NetworkId(2))), .. }));
    given(&mut tables, 2, 5001).expect_err("nodes still have it");
    // Removed before it got anything, it holds nothing.
    let leaving = leave(&tables, ObjectRef::Network(NetworkId(2)));
    change(&mut tables, leaving).expect("nobody uses it");
    change(&mut tables, put(network(3, whole))).expect("it waits");
    let gone = delete(&tables, ObjectRef::Network(NetworkId(1)));
    change(&mut tables, gone).expect("all have let go");
    given(&mut tables, 3, 5000).expect("it is free");

    let mut before = begin(POOLS_LEVEL - 1, vec![network(1, whole)]);
    let leaving = leave(&before, ObjectRef::Network(NetworkId(1)));
    change(&mut before, leaving).expect("nobody uses it");
    change(&mut before, put(network(2, part))).expect_err("as it was judged then");
}
