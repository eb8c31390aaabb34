//! What people do: they describe nodes, networks and services, and change their minds.

use super::{World, duration};
use model::*;
use std::{net::IpAddr, sync::Arc};

impl World {
    /// A node asks for a place for a container that was started there.
    pub(super) fn attach(&mut self, container: &str, node: &str, network: &str) {
        let network = self.tables.network_named(network).expect("a network to attach to").id;
        let id = TaskId(self.fresh_id());
        let task = Task::attachment(
            id,
            container,
            container,
            self.node(node).id,
            vec![NetworkAttachmentSpec::new(network, Vec::new())],
        );
        self.put(Object::Task(Arc::new(task)));
    }

    pub(super) fn put(&mut self, object: Object) {
        let index = self.tables.index + 1;
        let batch = Batch { at: self.now, changes: vec![Change::Put(object)] };
        if let Err(conflict) = self.tables.apply(index, &batch) {
            let made_from_an_old_one = matches!(conflict, Conflict::OutOfSequence { .. });
            assert!(!made_from_an_old_one, "the scenario asks for something possible: {conflict}");
            self.refused.push(conflict.to_string());
        }
    }

    fn fresh_id(&mut self) -> u128 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn find_node(&self, name: &str) -> Option<Arc<Node>> {
        self.tables.nodes.values().find(|n| n.display_name() == name).cloned()
    }

    pub(super) fn node(&self, name: &str) -> Arc<Node> {
        self.find_node(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    pub(super) fn edit_node(&mut self, name: &str, words: &[&str]) {
        let mut node = match self.find_node(name) {
            Some(node) => Node::clone(&node),
            None => self.new_node(name),
        };
        let description = node.description.as_mut().expect("nodes here are described");
        for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
            match key {
                "cpu" => description.resources.cpu_nanos = number(value) * 1_000_000_000,
                "memory" => description.resources.memory_bytes = number(value),
                "has" => description.generic = resource::generic_resources(list(value)).unwrap(),
                "reaches" => description.networks = list(value).map(|net| net.parse().unwrap()).collect(),
                "unfit" => {
                    description.unfit =
                        list(value).filter(|why| !why.is_empty()).map(|why| why.replace('_', " ")).collect()
                }
                "arch" => value.clone_into(&mut description.platform.architecture),
                "role" => {
                    node.certified_role = if value == "manager" { Role::Manager } else { Role::Worker };
                    node.spec.role = node.certified_role;
                }
                _ => {
                    let label = key.strip_prefix("label.").unwrap_or_else(|| panic!("unknown {key}"));
                    node.spec.labels.insert(label.to_owned(), value.to_owned());
                }
            }
        }
        self.put(Object::Node(Arc::new(node)));
    }

    fn new_node(&mut self, name: &str) -> Node {
        let index = (1..).find(|i| self.tables.owner_of_index(*i).is_none()).expect("a free index");
        let address = IpAddr::from([192, 168, 0, index.to_le_bytes()[0]]);
        Node {
            id: NodeId(self.fresh_id()),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            index,
            certified_role: Role::Worker,
            description: Some(NodeDescription {
                tls: model::NodeTls::default(),
                hostname: name.to_owned(),
                platform: Platform { os: "linux".into(), architecture: "amd64".into() },
                resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 4 << 30, pids: 0 },
                generic: model::GenericResources::new(),
                engine_version: "test".into(),
                engine_labels: Labels::new(),
                addr: (address, 2377).into(),
                data_addr: address,
                feature_level: model::FEATURE_LEVEL,
                networks: vec![],
                unfit: vec![],
            }),
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                since: self.now,
                addr: Some(address),
            },
            manager: None,
        }
    }

    pub(super) fn set_state(&mut self, name: &str, state: NodeState) {
        let mut node = Node::clone(&self.node(name));
        node.status.state = state;
        node.status.since = self.now;
        self.put(Object::Node(Arc::new(node)));
    }

    pub(super) fn set_availability(&mut self, name: &str, availability: Availability) {
        let mut node = Node::clone(&self.node(name));
        node.spec.availability = availability;
        self.put(Object::Node(Arc::new(node)));
    }

    fn delete(&mut self, key: ObjectRef) {
        let version = self.tables.get(key).expect("it exists").version();
        let index = self.tables.index + 1;
        let batch = Batch { at: self.now, changes: vec![Change::Delete { key, version }] };
        self.tables.apply(index, &batch).expect("it can be deleted");
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        self.delete(ObjectRef::Node(self.node(name).id));
    }

    pub(super) fn edit_cluster(&mut self, words: &[&str]) {
        let mut cluster = Cluster::clone(self.tables.cluster.as_ref().expect("there is a cluster"));
        for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
            match key {
                "level" => cluster.feature_level = value.parse().unwrap(),
                "history" => cluster.spec.task_history_limit = value.parse().unwrap(),
                "prefix" => cluster.subnet_prefix = value.parse().unwrap(),
                "pool" => cluster.address_pools = vec![value.parse().unwrap()],
                "tasks" => cluster.task_pool = value.parse().unwrap(),
                _ => panic!("unknown {key}"),
            }
        }
        self.put(Object::Cluster(Arc::new(cluster)));
    }

    pub(super) fn create_network(&mut self, name: &str, words: &[&str]) {
        let id = NetworkId(self.fresh_id());
        let mut spec = NetworkSpec::new(name, NetworkDriver::Overlay);
        spec.internal = words.contains(&"internal");
        if words.contains(&"host") {
            spec.driver = NetworkDriver::Host;
        }
        for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
            match key {
                "subnet" => spec.subnet = Some(value.parse().unwrap()),
                "range" => spec.ip_range = Some(value.parse().unwrap()),
                _ => panic!("unknown {key}"),
            }
        }
        let network = Network { id, meta: Meta::default(), spec, allocation: None, pending_delete: false };
        self.put(Object::Network(Arc::new(network)));
    }

    pub(super) fn remove_network(&mut self, name: &str) {
        let mut network = Network::clone(self.tables.network_named(name).expect("it exists"));
        network.pending_delete = true;
        self.put(Object::Network(Arc::new(network)));
    }

    pub(crate) fn create_service(&mut self, name: &str, words: &[&str]) {
        let mut task = TaskSpec::default();
        "v1".clone_into(&mut task.container.image);
        let mut spec = ServiceSpec {
            name: name.to_owned(),
            labels: Labels::new(),
            task: Arc::new(task),
            mode: Mode::Replicated { replicas: 1 },
            update: UpdatePolicy::default(),
            rollback: UpdatePolicy::default(),
            endpoint: EndpointSpec::default(),
            depends_on: Vec::new(),
            said: model::Said::default(),
        };
        self.describe(&mut spec, words);
        let service = Service {
            id: ServiceId(self.fresh_id()),
            meta: Meta::default(),
            spec: Arc::new(spec),
            spec_version: 1,
            previous: None,
            stack: None,
            endpoint: Endpoint::default(),
            update: None,
            pending_delete: false,
            job_iteration: 0,
            registry_auth: None,
        };
        self.put(Object::Service(Arc::new(service)));
    }

    pub(crate) fn update_service(&mut self, name: &str, words: &[&str]) {
        let mut service = Service::clone(self.tables.service_named(name).expect("it exists"));
        let mut spec = ServiceSpec::clone(&service.spec);
        self.describe(&mut spec, words);
        service.previous = Some(service.spec.clone());
        service.spec = Arc::new(spec);
        service.spec_version += 1;
        service.update = None;
        self.put(Object::Service(Arc::new(service)));
    }

    pub(super) fn rollback(&mut self, name: &str) {
        let now = self.now;
        self.edit_service(name, |s| {
            s.spec = s.previous.take().expect("there is a previous spec");
            s.spec_version += 1;
            s.update = Some(UpdateStatus {
                state: UpdateState::RollbackStarted,
                started_at: now,
                completed_at: None,
                message: "manually requested rollback".into(),
            });
        });
    }

    pub(super) fn edit_service(&mut self, name: &str, edit: impl FnOnce(&mut Service)) {
        let mut service = Service::clone(self.tables.service_named(name).expect("it exists"));
        edit(&mut service);
        self.put(Object::Service(Arc::new(service)));
    }

    fn describe(&self, spec: &mut ServiceSpec, words: &[&str]) {
        let task = Arc::make_mut(&mut spec.task);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "replicas" => spec.mode = Mode::Replicated { replicas: number(value) },
                "global" => spec.mode = Mode::Global,
                "global-job" => spec.mode = Mode::GlobalJob,
                "job" => {
                    let (max_concurrent, total) = value.split_once('/').expect("job=CONCURRENT/TOTAL");
                    spec.mode =
                        Mode::ReplicatedJob { max_concurrent: number(max_concurrent), total: number(total) };
                }
                "image" => value.clone_into(&mut task.container.image),
                "grace" => task.container.stop_grace_period = Some(duration(value)),
                "cpu" => task.resources.reservations.cpu_nanos = number(value) * 1_000_000_000,
                "memory" => task.resources.reservations.memory_bytes = number(value),
                "wants" => task.resources.generic = list(value).map(want).collect(),
                "force" => task.force_update += 1,
                "networks" => {
                    task.networks = list(value)
                        .map(|n| {
                            let network = self.tables.network_named(n).expect("the network exists").id;
                            NetworkAttachmentSpec::new(network, vec![spec.name.clone()])
                        })
                        .collect();
                }
                "dnsrr" => spec.endpoint.mode = EndpointMode::DnsRr,
                "ports" => spec.endpoint.ports = list(value).map(port).collect(),
                "constraint" => {
                    task.placement.constraints = list(value).map(|c| c.parse().unwrap()).collect()
                }
                "spread" => task.placement.spread = list(value).map(str::to_owned).collect(),
                "max-per-node" => task.placement.max_replicas_per_node = number(value),
                "platform" => {
                    task.placement.platforms =
                        vec![Platform { os: "linux".into(), architecture: value.to_owned() }];
                }
                "restart" => {
                    task.restart.condition = match value {
                        "none" => RestartCondition::None,
                        "on-failure" => RestartCondition::OnFailure,
                        _ => RestartCondition::Any,
                    }
                }
                "delay" => task.restart.delay = duration(value),
                "attempts" => task.restart.max_attempts = number(value),
                "window" => task.restart.window = duration(value),
                "parallelism" => spec.update.parallelism = number(value),
                "update-delay" => spec.update.delay = duration(value),
                "monitor" => spec.update.monitor = duration(value),
                "progress" => spec.update.progress_deadline = Some(duration(value)),
                "ratio" => spec.update.max_failure_ratio_ppm = (value.parse::<f64>().unwrap() * 1e6) as u32,
                "start-first" => spec.update.order = UpdateOrder::StartFirst,
                "stop-first" => spec.update.order = UpdateOrder::StopFirst,
                "on-failure" => {
                    spec.update.on_failure = match value {
                        "continue" => FailureAction::Continue,
                        "rollback" => FailureAction::Rollback,
                        _ => FailureAction::Pause,
                    }
                }
                "rollback-parallelism" => spec.rollback.parallelism = number(value),
                "depends" => {
                    spec.depends_on = list(value)
                        .map(|d| {
                            let (service, condition) = d.split_once(':').unwrap_or((d, "started"));
                            let condition = match condition {
                                "healthy" => DependencyCondition::Healthy,
                                "completed" => DependencyCondition::CompletedSuccessfully,
                                _ => DependencyCondition::Started,
                            };
                            Dependency { service: service.to_owned(), condition }
                        })
                        .collect();
                }
                _ => panic!("unknown service word {word:?}"),
            }
        }
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|v| !v.is_empty())
}

fn number(text: &str) -> u64 {
    let (digits, factor) = match text.strip_suffix('g') {
        Some(digits) => (digits, 1 << 30),
        None => (text, 1),
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("bad number {text:?}")) * factor
}

/// `gpu:2`, `gpu:all`, `gpu:a+b`.
fn want(text: &str) -> (String, Want) {
    let (kind, value) = text.split_once(':').expect("KIND:WHAT");
    let want = match (value, value.parse()) {
        ("all", _) => Want::All,
        (_, Ok(n)) => Want::Count(n),
        _ => Want::These(value.split('+').map(str::to_owned).collect()),
    };
    (kind.to_owned(), want)
}

/// `80`, `8080:80`, `53:53/udp`, `host:8080:80`; published 0 = chosen.
fn port(text: &str) -> PortConfig {
    let (text, protocol) = match text.split_once('/') {
        Some((text, "udp")) => (text, Protocol::Udp),
        _ => (text, Protocol::Tcp),
    };
    let (text, mode) = match text.strip_prefix("host:") {
        Some(text) => (text, PublishMode::Host),
        None => (text, PublishMode::Ingress),
    };
    let (published, target) = text.split_once(':').unwrap_or(("0", text));
    PortConfig {
        name: String::new(),
        protocol,
        target: target.parse().unwrap(),
        published: published.parse().unwrap(),
        mode,
    }
}
