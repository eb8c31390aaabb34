//! States built with words.

use model::*;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// A state under construction. Objects are numbered; `service1` is the name of service 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct State(Tables);

pub(crate) fn state() -> State {
    State::default()
}

pub(crate) fn service_spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: Labels::new(),
        task: Arc::new(TaskSpec {
            container: ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() },
            ..TaskSpec::default()
        }),
        mode: Mode::Replicated { replicas: 1 },
        update: UpdatePolicy::default(),
        rollback: UpdatePolicy::default(),
        endpoint: EndpointSpec::default(),
        depends_on: Vec::new(),
        said: model::Said::default(),
    }
}

fn octet(number: u128) -> u8 {
    u8::try_from(number).unwrap()
}

impl State {
    pub(crate) fn tables(self) -> Tables {
        self.0
    }

    fn change(mut self, changes: Vec<Change>) -> Self {
        let index = self.0.index + 1;
        self.0.apply(index, &Batch { at: Timestamp(1), changes }).unwrap();
        self
    }

    pub(crate) fn put(self, object: Object) -> Self {
        self.change(vec![Change::Put(object)])
    }

    pub(crate) fn cluster(self) -> Self {
        let addr = "192.0.2.1:2377".parse().unwrap();
        let made = crate::ca::bootstrap(crate::ca::Init::new(1, addr), Timestamp(1)).unwrap();
        let cluster = made.batch.changes.into_iter().next().unwrap();
        self.change(vec![cluster])
    }

    /// A node that was there once and was removed.
    pub(crate) fn revoke(self, number: u128) -> Self {
        let mut cluster = Cluster::clone(self.0.cluster.as_ref().unwrap());
        cluster.revoke(NodeId(number), u16::from(octet(number)), Timestamp(1));
        self.put(Object::Cluster(Arc::new(cluster)))
    }

    /// A node that is ready, with index and address after its number.
    pub(crate) fn node(self, number: u128) -> Self {
        let addr = IpAddr::from([192, 0, 2, octet(number)]);
        self.put(Object::Node(Arc::new(Node {
            id: NodeId(number),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            index: u16::from(octet(number)),
            certified_role: Role::Worker,
            description: Some(NodeDescription {
                tls: model::NodeTls::default(),
                hostname: format!("node{number}"),
                platform: Platform::default(),
                resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 8 << 30, pids: 0 },
                generic: model::GenericResources::new(),
                engine_version: String::new(),
                engine_labels: Labels::new(),
                addr: (addr, 2377).into(),
                data_addr: addr,
                feature_level: model::FEATURE_LEVEL,
                networks: vec![],
                unfit: vec![],
            }),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager: None,
        })))
    }

    /// Makes a node a manager that others reach at this port.
    pub(crate) fn manager(self, number: u128, port: u16) -> Self {
        let node = self.0.nodes.get(&NodeId(number)).unwrap();
        let addr = SocketAddr::from(([192, 0, 2, octet(number)], port));
        let node = Node { manager: Some(ManagerStatus { raft_id: 1, addr, seen: None }), ..(**node).clone() };
        self.put(Object::Node(Arc::new(node)))
    }

    /// An overlay network with the subnet 10.N.0.0/24.
    pub(crate) fn network(self, number: u128) -> Self {
        let subnet = ipnet::Ipv4Net::new([10, octet(number), 0, 0].into(), 24).unwrap();
        self.put(Object::Network(Arc::new(Network {
            id: NetworkId(number),
            meta: Meta::default(),
            spec: NetworkSpec::new(format!("network{number}"), NetworkDriver::Overlay),
            allocation: Some(NetworkAllocation {
                vni: 4096 + u32::from(octet(number)),
                subnet: subnet.into(),
                gateway: IpAddr::from([10, octet(number), 0, 1]),
            }),
            pending_delete: false,
        })))
    }

    pub(crate) fn secret(self, number: u128) -> Self {
        let spec = SecretSpec {
            templated: false,
            name: format!("secret{number}"),
            labels: Labels::new(),
            data: SecretBytes(b"secret".to_vec()),
        };
        self.put(Object::Secret(Arc::new(Secret { id: SecretId(number), meta: Meta::default(), spec })))
    }

    /// A service on these networks that publishes these (published, target) TCP ports in the mesh.
    pub(crate) fn service(self, number: u128, networks: &[u128], ports: &[(u16, u16)]) -> Self {
        let mut spec = service_spec(&format!("service{number}"));
        Arc::make_mut(&mut spec.task).networks =
            networks.iter().map(|n| NetworkAttachmentSpec::new(NetworkId(*n), Vec::new())).collect();
        spec.endpoint.ports = ports
            .iter()
            .map(|(published, target)| PortConfig {
                name: String::new(),
                protocol: Protocol::Tcp,
                target: *target,
                published: *published,
                mode: PublishMode::Ingress,
            })
            .collect();
        let vips = networks.iter().map(|n| Vip {
            network: NetworkId(*n),
            address: IpAddr::from([10, octet(*n), 0, 200 + octet(number)]),
        });
        let endpoint = Endpoint { vips: vips.collect(), ports: spec.endpoint.ports.clone() };
        self.put(Object::Service(Arc::new(Service {
            id: ServiceId(number),
            meta: Meta::default(),
            spec: Arc::new(spec),
            spec_version: 1,
            previous: None,
            stack: None,
            endpoint,
            update: None,
            pending_delete: false,
            job_iteration: 0,
            registry_auth: None,
        })))
    }

    pub(crate) fn service_secret(self, service: u128, secret: u128) -> Self {
        self.change_service(service, |s| refer(&mut Arc::make_mut(&mut s.spec).task, secret))
    }

    /// A task of a service on a node, with addresses after its number.
    pub(crate) fn task(self, number: u128, service: u128, node: u128, state: Option<TaskState>) -> Self {
        let owner = self.0.services.get(&ServiceId(service)).unwrap().clone();
        let attachments = owner.spec.task.networks.iter().map(|n| Attachment {
            network: n.network,
            address: format!("10.{}.0.{}/24", n.network.0, 10 + number).parse().unwrap(),
            aliases: n.aliases.clone(),
        });
        let task = Task {
            id: TaskId(number),
            meta: Meta::default(),
            service: owner.id,
            service_name: owner.spec.name.clone(),
            service_labels: model::Labels::new(),
            slot: Slot::Replica(u64::try_from(number).unwrap()),
            spec: owner.spec.task.clone(),
            spec_version: owner.spec_version,
            job_iteration: 0,
            log_driver: None,
            host_ports: Vec::new(),
            generic: model::GenericResources::new(),
            placement: Placement::On(NodeId(node)),
            desired: Desired::Running,
            attachments: attachments.collect(),
            gateway_address: Some(IpAddr::from([10, 255, octet(node), octet(number)])),
            status: TaskStatus { state, ..TaskStatus::default() },
            desired_at: Timestamp(0),
            node_network: None,
            attaches: None,
        };
        self.put(Object::Task(Arc::new(task)))
    }

    pub(crate) fn use_secret(self, task: u128, secret: u128) -> Self {
        self.change_task(task, |t| refer(&mut t.spec, secret))
    }

    pub(crate) fn delete_task(self, number: u128) -> Self {
        let version = self.0.tasks.get(&TaskId(number)).unwrap().meta.version;
        self.change(vec![Change::Delete { key: ObjectRef::Task(TaskId(number)), version }])
    }

    pub(crate) fn change_task(self, number: u128, change: impl FnOnce(&mut Task)) -> Self {
        let mut new = Task::clone(self.0.tasks.get(&TaskId(number)).unwrap());
        change(&mut new);
        self.put(Object::Task(Arc::new(new)))
    }

    pub(crate) fn change_node(self, number: u128, change: impl FnOnce(&mut Node)) -> Self {
        let mut new = Node::clone(self.0.nodes.get(&NodeId(number)).unwrap());
        change(&mut new);
        self.put(Object::Node(Arc::new(new)))
    }

    pub(crate) fn change_service(self, number: u128, change: impl FnOnce(&mut Service)) -> Self {
        let mut new = Service::clone(self.0.services.get(&ServiceId(number)).unwrap());
        change(&mut new);
        self.put(Object::Service(Arc::new(new)))
    }

    pub(crate) fn change_network(self, number: u128, change: impl FnOnce(&mut Network)) -> Self {
        let mut new = Network::clone(self.0.networks.get(&NetworkId(number)).unwrap());
        change(&mut new);
        self.put(Object::Network(Arc::new(new)))
    }
}

fn refer(spec: &mut Arc<TaskSpec>, secret: u128) {
    Arc::make_mut(spec).container.secrets.push(FileRef {
        id: SecretId(secret),
        name: format!("secret{secret}"),
        target: "s".into(),
        uid: "0".into(),
        gid: "0".into(),
        mode: 0o444,
    });
}
