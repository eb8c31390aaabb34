//! Every noun survives the trip, and what is not understood is refused with its name.

use crate::{Problem, SpecCache, types};
use model::*;
use prost::Message as _;
use std::{collections::BTreeMap, sync::Arc};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}
fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}
fn meta() -> Meta {
    Meta { version: 7, created: 3, created_at: Timestamp(-5), updated_at: Timestamp(i64::MAX) }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        image: "web:1@sha256:00".into(),
        labels: labels(&[("a", "b")]),
        command: words(&["/bin/sh", "-c"]),
        args: words(&["true", ""]),
        env: words(&["A=1", "B"]),
        hostname: Some("{{.Task.Slot}}".into()),
        working_dir: Some("/".into()),
        user: Some("nobody".into()),
        groups: words(&["1000"]),
        tty: true,
        open_stdin: true,
        read_only: true,
        mounts: vec![
            Mount {
                kind: MountKind::Bind {
                    source: "/a".into(),
                    propagation: Some("rslave".into()),
                    create: true,
                    recursion: model::BindRecursion::Writable,
                },
                target: "/b".into(),
                read_only: true,
            },
            Mount {
                kind: MountKind::Volume {
                    name: None,
                    driver: Some("local".into()),
                    driver_opts: labels(&[("type", "nfs")]),
                    labels: labels(&[("x", "")]),
                    no_copy: true,
                },
                target: "/v".into(),
                read_only: false,
            },
            Mount {
                kind: MountKind::Tmpfs { size_bytes: Some(0), mode: Some(0o1777) },
                target: "/t".into(),
                read_only: false,
            },
        ],
        stop_signal: Some("SIGINT".into()),
        stop_grace_period: Some(Duration::ZERO),
        healthcheck: Some(Healthcheck {
            test: words(&["CMD", "true"]),
            interval: Some(Duration::from_millis(1)),
            timeout: None,
            start_period: Some(Duration::from_secs(3600)),
            start_interval: None,
            retries: Some(0),
        }),
        hosts: words(&["10.0.0.1 a b"]),
        dns: DnsConfig {
            nameservers: vec!["1.1.1.1".parse().unwrap(), "::1".parse().unwrap()],
            search: words(&["x"]),
            options: words(&["ndots:1"]),
        },
        secrets: vec![FileRef {
            id: SecretId(u128::MAX),
            name: "s".into(),
            target: "/s".into(),
            uid: "0".into(),
            gid: "1".into(),
            mode: 0o400,
        }],
        configs: vec![FileRef {
            id: ConfigId(0),
            name: "c".into(),
            target: "c".into(),
            uid: String::new(),
            gid: String::new(),
            mode: 0,
        }],
        init: Some(false),
        sysctls: labels(&[("net.core.somaxconn", "1")]),
        cap_add: words(&["ALL"]),
        cap_drop: words(&["CAP_KILL"]),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: -1, hard: 5 }],
        privileged: true,
        no_new_privileges: true,
        shm_size_bytes: Some(1),
        oom_score_adj: -1000,
        host: Some(HostOptions {
            devices: vec![DeviceMapping {
                host_path: "/dev/a".into(),
                container_path: "/dev/b".into(),
                permissions: "rw".into(),
            }],
            device_cgroup_rules: words(&["c 1:* r"]),
            ipc: Some("host".into()),
            pid: Some("host".into()),
            uts: Some("host".into()),
            users: Some("private".into()),
            cgroup: Some("private".into()),
            cgroup_parent: Some("/x".into()),
            domainname: Some("lan".into()),
            runtime: Some("runc".into()),
            security_opts: words(&["seccomp=unconfined"]),
            annotations: labels(&[("a", "b")]),
            cpu_shares: 1,
            cpu_period: 2,
            cpu_quota: -1,
            cpuset: "0".into(),
            memory_swap_bytes: -1,
            memory_swappiness: Some(0),
            blkio_weight: 10,
            oom_kill_disable: true,
        }),
        post_start: vec![Hook {
            command: words(&["/warm", "up"]),
            user: Some("0".into()),
            privileged: true,
            working_dir: Some("/".into()),
            env: words(&["A=1"]),
        }],
        pre_stop: vec![Hook { command: words(&["/drain"]), ..Hook::default() }],
    }
}

fn supplies() -> GenericResources {
    GenericResources::from([
        ("a".into(), Supply::Count(2)),
        ("nvidia.com/gpu".into(), Supply::Named(["0".to_owned()].into())),
    ])
}

fn task_spec() -> TaskSpec {
    TaskSpec {
        container: container(),
        resources: ResourceRequirements {
            limits: Resources { cpu_nanos: 1, memory_bytes: 2, pids: 3 },
            reservations: Resources { cpu_nanos: 4, memory_bytes: 5, pids: 0 },
            generic: GenericRequests::from([
                ("a".into(), Want::Count(2)),
                ("b".into(), Want::All),
                ("c".into(), Want::These(["0".to_owned()].into())),
                ("d".into(), Want::TheseAndMore { names: ["0".to_owned()].into(), more: 2 }),
            ]),
        },
        restart: RestartPolicy {
            condition: RestartCondition::OnFailure,
            delay: Duration::from_nanos(1),
            max_attempts: 3,
            window: Duration::from_secs(9),
        },
        placement: PlacementSpec {
            constraints: vec!["node.role!=manager".parse().unwrap()],
            spread: words(&["node.labels.rack"]),
            max_replicas_per_node: 2,
            platforms: vec![Platform { os: "linux".into(), architecture: "arm64".into() }],
        },
        networks: vec![NetworkAttachmentSpec {
            network: NetworkId(3),
            aliases: words(&["db"]),
            driver_opts: labels(&[("org.example.colour", "red")]),
        }],
        log_driver: Some(LogDriver { name: "json-file".into(), options: labels(&[("max-size", "1m")]) }),
        force_update: 4,
    }
}

fn ports() -> Vec<PortConfig> {
    [
        (Protocol::Tcp, PublishMode::Ingress),
        (Protocol::Udp, PublishMode::Host),
        (Protocol::Sctp, PublishMode::Host),
    ]
    .into_iter()
    .map(|(protocol, mode)| PortConfig { name: "p".into(), protocol, target: 65535, published: 0, mode })
    .collect()
}

fn service_spec(mode: Mode) -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        labels: labels(&[("l", "v")]),
        task: Arc::new(task_spec()),
        mode,
        update: UpdatePolicy {
            parallelism: 0,
            delay: Duration::from_secs(1),
            monitor: Duration::from_secs(2),
            on_failure: FailureAction::Rollback,
            max_failure_ratio_ppm: 100_000,
            order: UpdateOrder::StartFirst,
            progress_deadline: Some(Duration::from_secs(9)),
        },
        rollback: UpdatePolicy {
            on_failure: FailureAction::Continue,
            progress_deadline: None,
            ..UpdatePolicy::default()
        },
        endpoint: EndpointSpec { mode: EndpointMode::DnsRr, ports: ports() },
        depends_on: vec![
            Dependency { service: "a".into(), condition: DependencyCondition::Started },
            Dependency { service: "b".into(), condition: DependencyCondition::Healthy },
            Dependency { service: "c".into(), condition: DependencyCondition::CompletedSuccessfully },
        ],
        said: model::Said::NO_UPDATE.with(model::Said::NETWORKS_OUTSIDE, true),
    }
}

fn service(mode: Mode, state: UpdateState) -> Service {
    Service {
        id: ServiceId(11),
        meta: meta(),
        spec: Arc::new(service_spec(mode)),
        spec_version: 3,
        previous: Some(Arc::new(service_spec(Mode::Global))),
        stack: Some(StackId(8)),
        endpoint: Endpoint {
            vips: vec![Vip { network: NetworkId(3), address: "fd00::1".parse().unwrap() }],
            ports: ports(),
        },
        update: Some(UpdateStatus {
            state,
            started_at: Timestamp(1),
            completed_at: Some(Timestamp(0)),
            message: "m".into(),
        }),
        pending_delete: true,
        job_iteration: 2,
        registry_auth: Some(SecretBytes(vec![9])),
    }
}

fn task(slot: Slot, placement: Placement, desired: Desired, state: Option<TaskState>) -> Task {
    Task {
        id: TaskId(1 << 100),
        meta: meta(),
        service: ServiceId(11),
        service_name: "web".into(),
        service_labels: labels(&[("tier", "gold")]),
        slot,
        spec: Arc::new(task_spec()),
        spec_version: 3,
        job_iteration: 1,
        log_driver: Some(LogDriver { name: "local".into(), options: labels(&[("max-file", "2")]) }),
        host_ports: ports(),
        generic: supplies(),
        placement,
        desired,
        attachments: vec![Attachment {
            network: NetworkId(3),
            address: "10.0.0.9/24".parse().unwrap(),
            aliases: words(&["x"]),
        }],
        gateway_address: Some("10.255.1.2".parse().unwrap()),
        status: TaskStatus {
            state,
            at: Timestamp(5),
            message: "started".into(),
            error: Some(String::new()),
            container: Some(ContainerStatus {
                container_id: "ab".into(),
                pid: 4,
                exit_code: Some(-1),
                oom_killed: true,
            }),
        },
        desired_at: Timestamp(6),
        node_network: Some(NodeNetwork::None),
        attaches: None,
    }
}

fn node(state: NodeState, availability: Availability) -> Node {
    Node {
        id: NodeId(5),
        meta: meta(),
        spec: NodeSpec {
            name: Some("n".into()),
            labels: labels(&[("rack", "1")]),
            role: Role::Manager,
            availability,
        },
        index: 65534,
        certified_role: Role::Worker,
        description: Some(NodeDescription {
            tls: model::NodeTls { trust: vec![1], issuer_subject: vec![2], issuer_public_key: vec![3] },
            hostname: "h".into(),
            platform: Platform { os: "linux".into(), architecture: "amd64".into() },
            resources: Resources { cpu_nanos: 2, memory_bytes: 3, pids: 0 },
            generic: supplies(),
            engine_version: "1".into(),
            engine_labels: labels(&[("e", "f")]),
            addr: "[fe80::1]:2377".parse().unwrap(),
            data_addr: "192.0.2.1".parse().unwrap(),
            feature_level: 7,
            networks: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()],
            unfit: vec!["no overlayfs".into()],
        }),
        status: NodeStatus {
            state,
            message: "m".into(),
            since: Timestamp(3),
            addr: Some("192.0.2.1".parse().unwrap()),
        },
        manager: Some(ManagerStatus {
            raft_id: u64::MAX,
            addr: "192.0.2.1:2377".parse().unwrap(),
            seen: Some(ManagerSeen { reachable: true, behind: 7 }),
        }),
    }
}

fn network(driver: NetworkDriver) -> Network {
    Network {
        id: NetworkId(3),
        meta: meta(),
        spec: NetworkSpec {
            name: "net".into(),
            labels: labels(&[]),
            driver,
            options: labels(&[("mtu", "9000")]),
            subnet: Some("10.0.0.0/24".parse().unwrap()),
            gateway: Some("10.0.0.1".parse().unwrap()),
            ip_range: Some("10.0.0.0/25".parse().unwrap()),
            attachable: true,
            internal: true,
            encrypted: true,
            ipv6: true,
        },
        allocation: Some(NetworkAllocation {
            vni: 4097,
            subnet: "10.0.0.0/24".parse().unwrap(),
            gateway: "10.0.0.1".parse().unwrap(),
        }),
        pending_delete: true,
    }
}

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId(2),
        meta: meta(),
        spec: ClusterSpec {
            autolock: true,
            labels: labels(&[("a", "b")]),
            slow_follower_entries: Some(0),
            force_rotate: 6_000_000_000_000,
            ..ClusterSpec::default()
        },
        root_ca_cert: "PEM".into(),
        root_ca_key: SecretBytes(vec![0, 255]),
        worker_token: SecretBytes(vec![1]),
        manager_token: SecretBytes(vec![2]),
        unlock_key: Some(SecretBytes(vec![])),
        address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_prefix: 24,
        data_path_port: 4789,
        mesh_subnet: "10.254.0.0/16".parse().unwrap(),
        task_pool: "10.255.0.0/16".parse().unwrap(),
        feature_level: 1,
        removed: vec![model::RemovedNode { node: NodeId(9), until: Timestamp(5), index: 3 }],
        rotation: Some(model::RootRotation {
            cert: "NEW".into(),
            key: SecretBytes(vec![8]),
            cross_signed: "CROSS".into(),
        }),
        incarnation: Some(model::Incarnation { number: 3, tag: 4 }),
        ingress_removed: true,
    }
}

/// One object of each kind, and of each variant inside one.
fn examples() -> Vec<Object> {
    let mut all = vec![
        Object::Cluster(Arc::new(cluster())),
        Object::Secret(Arc::new(Secret {
            id: SecretId(1),
            meta: meta(),
            spec: SecretSpec {
                templated: false,
                name: "s".into(),
                labels: labels(&[]),
                data: SecretBytes((0..=255).collect()),
            },
        })),
        Object::Config(Arc::new(Config {
            id: ConfigId(1),
            meta: meta(),
            spec: ConfigSpec {
                templated: true,
                name: "c".into(),
                labels: labels(&[("k", "v")]),
                data: vec![],
            },
        })),
        Object::Stack(Arc::new(Stack {
            id: StackId(8),
            meta: meta(),
            name: "st".into(),
            revisions: vec![StackRevision {
                number: 1,
                at: Timestamp(9),
                author: "me".into(),
                source: "services: {}".into(),
                services: vec![service_spec(Mode::Global).into()],
                restores: 4,
                came_up: Some(false),
                message: "new logo".into(),
                git: "0a1b".into(),
            }],
            pending_delete: true,
        })),
        Object::Audit(Arc::new(AuditRecord {
            id: AuditId::new(Timestamp(3), 4),
            meta: meta(),
            person: "ann".into(),
            from: "192.0.2.1:5".into(),
            via: Some(NodeId(3)),
            action: "create".into(),
            object: "service web".into(),
            before: 6,
            message: "why".into(),
        })),
    ];
    for role in [PersonRole::Admin, PersonRole::Deploy { stacks: words(&["shop*"]) }, PersonRole::Read] {
        all.push(Object::User(Arc::new(User {
            id: UserId(9),
            meta: meta(),
            name: "ann".into(),
            role,
            password: Some(SecretBytes(vec![1])),
            tokens: vec![UserToken {
                id: "a1".into(),
                hash: SecretBytes(vec![2]),
                label: "laptop".into(),
                created: Timestamp(1),
                expires: Some(Timestamp(2)),
            }],
            certificates: vec![UserCertificate {
                serial: "0a".into(),
                issued: Timestamp(1),
                expires: Timestamp(3),
                revoked: true,
            }],
        })));
    }
    for mode in [
        Mode::Replicated { replicas: 0 },
        Mode::Global,
        Mode::ReplicatedJob { max_concurrent: 1, total: 2 },
        Mode::GlobalJob,
    ] {
        all.push(Object::Service(Arc::new(service(mode, UpdateState::Paused))));
    }
    for state in [
        UpdateState::Updating,
        UpdateState::Completed,
        UpdateState::RollbackStarted,
        UpdateState::RollbackPaused,
        UpdateState::RollbackCompleted,
    ] {
        all.push(Object::Service(Arc::new(service(Mode::Global, state))));
    }
    for driver in [
        NetworkDriver::Overlay,
        NetworkDriver::Host,
        NetworkDriver::None,
        NetworkDriver::Bridge,
        NetworkDriver::Ingress,
    ] {
        all.push(Object::Network(Arc::new(network(driver))));
    }
    for state in
        [NodeState::Unknown, NodeState::Ready, NodeState::Away, NodeState::Down, NodeState::Disconnected]
    {
        for availability in [Availability::Active, Availability::Pause, Availability::Drain] {
            all.push(Object::Node(Arc::new(node(state, availability))));
        }
    }
    let states = [
        None,
        Some(TaskState::Accepted),
        Some(TaskState::Preparing),
        Some(TaskState::Ready),
        Some(TaskState::Starting),
        Some(TaskState::Running),
        Some(TaskState::Complete),
        Some(TaskState::Shutdown),
        Some(TaskState::Failed),
        Some(TaskState::Rejected),
        Some(TaskState::Orphaned),
    ];
    let desires = [Desired::Ready, Desired::Running, Desired::Complete, Desired::Shutdown, Desired::Remove];
    let places = [
        Placement::Unallocated,
        Placement::Pending { reason: String::new() },
        Placement::On(NodeId(u128::MAX)),
    ];
    for (i, state) in states.into_iter().enumerate() {
        let slot = if i % 2 == 0 { Slot::Replica(i as u64) } else { Slot::Node(NodeId(i as u128)) };
        let task = task(slot, places[i % 3].clone(), desires[i % 5], state);
        all.push(Object::Task(Arc::new(task)));
    }
    all
}

#[test]
fn every_object_survives_the_trip_through_bytes() {
    for object in examples() {
        let bytes = types::Object::from(&object).encode_to_vec();
        let back = Object::try_from(types::Object::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(back, object);
    }
}

#[test]
fn a_batch_survives_the_trip_with_every_kind_of_reference() {
    let refs = [
        ObjectRef::Cluster,
        ObjectRef::Node(NodeId(1)),
        ObjectRef::Service(ServiceId(2)),
        ObjectRef::Task(TaskId(3)),
        ObjectRef::Network(NetworkId(4)),
        ObjectRef::Secret(SecretId(5)),
        ObjectRef::Config(ConfigId(6)),
        ObjectRef::Stack(StackId(7)),
        ObjectRef::User(UserId(8)),
        ObjectRef::Audit(AuditId::new(Timestamp(9), 1)),
    ];
    let deletions = refs.into_iter().map(|key| Change::Delete { key, version: 9 });
    let batch = Batch {
        at: Timestamp(4),
        changes: examples().into_iter().map(Change::Put).chain(deletions).collect(),
    };
    assert_eq!(Batch::try_from(types::Batch::from(&batch)), Ok(batch));
}

#[test]
fn endpoint_tables_survive_the_trip() {
    let table = NetworkTable {
        network: NetworkId(3),
        name: "net".into(),
        version: 12,
        allocation: network(NetworkDriver::Overlay).allocation.unwrap(),
        internal: true,
        mtu_bytes: 1450,
        endpoints: BTreeMap::from([(
            TaskId(1),
            NetworkEndpoint {
                address: "10.0.0.5".parse().unwrap(),
                node: NodeId(5),
                vtep: "192.0.2.1".parse().unwrap(),
                service: ServiceId(11),
                names: words(&["web.1.x"]),
                ready: true,
                lost: true,
            },
        )]),
        services: BTreeMap::from([
            (ServiceId(11), NetworkService { name: "web".into(), vip: None, aliases: words(&["w"]) }),
            (
                ServiceId(12),
                NetworkService { name: "db".into(), vip: Some("10.0.0.2".parse().unwrap()), aliases: vec![] },
            ),
        ]),
    };
    assert_eq!(NetworkTable::try_from(types::NetworkTable::from(&table)), Ok(table));

    let ingress = IngressTable {
        version: 3,
        nodes: BTreeMap::from([(NodeId(5), MeshNode { index: 1, vtep: "192.0.2.1".parse().unwrap() })]),
        ports: BTreeMap::from([
            (
                (Protocol::Tcp, 80),
                vec![IngressBackend {
                    task: TaskId(1),
                    node: NodeId(5),
                    address: "10.255.1.2".parse().unwrap(),
                    port: 8080,
                }],
            ),
            ((Protocol::Udp, 53), vec![]),
        ]),
        lost: [NodeId(5)].into(),
    };
    assert_eq!(IngressTable::try_from(types::IngressTable::from(&ingress)), Ok(ingress));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let good = types::Task::from(&task(Slot::Replica(1), Placement::Unallocated, Desired::Ready, None));
    let check = |change: fn(&mut types::Task), field: &str, problem: Problem| {
        let mut wire = good.clone();
        change(&mut wire);
        let error = Task::try_from(wire).unwrap_err();
        assert_eq!((error.field.as_str(), error.problem), (field, problem));
    };
    check(|t| t.id = vec![1], "id", Problem::IdLength(1));
    check(|t| t.desired = 0, "desired", Problem::UnknownValue(0));
    check(|t| t.desired = 99, "desired", Problem::UnknownValue(99));
    check(|t| t.spec = None, "spec", Problem::Missing);
    check(|t| t.slot = Some(types::Slot { slot: None }), "slot", Problem::Missing);
    check(|t| t.host_ports[0].target = 65536, "host_ports.target", Problem::OutOfRange(65536));
    check(|t| t.status.as_mut().unwrap().state = 1, "status.state", Problem::UnknownValue(1));
    check(
        |t| t.spec.as_mut().unwrap().container.as_mut().unwrap().mounts[0].kind = None,
        "spec.container.mounts.kind",
        Problem::Missing,
    );
    check(
        |t| t.attachments[0].address = "nowhere".into(),
        "attachments.address",
        Problem::NotAnAddress("nowhere".into()),
    );
}

#[test]
fn decoded_tasks_of_one_spec_version_share_the_spec() {
    let decode = || task(Slot::Replica(1), Placement::Unallocated, Desired::Ready, None);
    let (mut a, mut b) = (decode(), decode());
    let mut cache = SpecCache::default();
    cache.share_task(&mut a);
    cache.share_task(&mut b);
    assert!(Arc::ptr_eq(&a.spec, &b.spec));
    let mut other = decode();
    Arc::make_mut(&mut other.spec).force_update = 77;
    cache.share_task(&mut other);
    assert_eq!(other.spec.force_update, 77);
    let mut service = Object::Service(Arc::new(service(Mode::Global, UpdateState::Paused)));
    cache.share(&mut service);
}

/// One object of each kind and state, as the program of a commit has written it to logs and snapshots.
const EARLIER: [(&str, &[u8]); 1] = [("85afa86", include_bytes!("earlier/85afa86.bin"))];

#[test]
fn what_earlier_versions_wrote_is_read_and_nothing_of_it_is_lost() {
    for (commit, mut written) in EARLIER {
        let mut kinds = std::collections::HashSet::new();
        while !written.is_empty() {
            let wire = types::Object::decode_length_delimited(&mut written).unwrap();
            let object = Object::try_from(wire.clone());
            let object = object.unwrap_or_else(|error| panic!("{commit}: {error}: {wire:?}"));
            let mut again = types::Object::from(&object);
            if let Some(types::object::Kind::Node(node)) = &mut again.kind
                && let Some(description) = &mut node.description
            {
                assert_eq!(description.tls.take(), Some(types::NodeTls::default()), "it was not known");
            }
            assert_eq!(again, wire, "{commit}");
            kinds.insert(std::mem::discriminant(&object.key()));
        }
        assert_eq!(
            kinds.len(),
            8,
            "{commit}: tasks, services, networks, secrets, configs, nodes, stacks, the swarm"
        );
    }
}
