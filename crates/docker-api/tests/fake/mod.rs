//! A swarm in memory: a Control service over `model::Tables`, a plan that makes every wanted task run at once,
//! and a front door before it on a unix socket.
#![expect(dead_code, reason = "each test program uses another part")]

use docker_api::{
    client::Client,
    server::{
        ApiError, Asker, BoxedIo, Control, FrontDoor, InitRequest, JoinRequest, Listener, Membership,
        Options, Swarm, SwarmStatus, link,
    },
};
use model::{
    Batch, Change, Cluster, ClusterId, ContainerStatus, Desired, Meta, Mode, Network, NetworkAllocation,
    Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Object, ObjectRef, Placement, Platform,
    Resources, Role, SecretBytes, Service, Slot, Tables, Task, TaskId, TaskState, TaskStatus, Timestamp, Vip,
};
use proto::{
    WireId as _,
    control::{
        self, ApplyStackRequest, BackupPiece, BackupRequest, CreateReply, CreateRequest, GetRequest,
        GetSwarmRequest, JudgeStackRequest, ListChunk, ListRequest, RemoveReply, RemoveRequest,
        RollbackStackRequest, UpdateReply, UpdateRequest, UpdateSwarmRequest, WatchEvent, WatchRequest,
        control_server, create_request, update_request,
    },
    types::{self as wire, ObjectKind},
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Endpoint};

pub const CLUSTER: ClusterId = ClusterId(77);
/// Stands for the swarm's root certificate.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\n";

/// The state that all nodes of the fake swarm share.
#[derive(Default)]
pub struct World {
    pub tables: Tables,
    /// In which role everybody is who shows a token; none: as nobody.
    pub user: Option<model::PersonRole>,
    /// How often somebody asked who that is.
    pub asked_who: usize,
    next_id: u128,
    clock: i64,
}

impl World {
    fn fresh(&mut self) -> u128 {
        self.next_id += 1;
        // Spread over the id space, so that prefixes differ.
        self.next_id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Status> {
        self.clock += 1_000_000_000;
        let at = Timestamp(1_700_000_000_000_000_000 + self.clock);
        let index = self.tables.index + 1;
        self.tables.apply(index, &Batch { at, changes }).map(drop).map_err(|conflict| match conflict {
            model::Conflict::OutOfSequence { .. } => Status::aborted("update out of sequence"),
            model::Conflict::NameTaken { kind, name, .. } => Status::already_exists(format!(
                "name conflicts with an existing object: {kind} {name} already exists"
            )),
            other => Status::failed_precondition(other.to_string()),
        })
    }

    fn put(&mut self, object: Object) -> Result<(), Status> {
        self.apply(vec![Change::Put(object)])
    }

    fn find(&self, kind: ObjectKind, wanted: &str) -> Option<Object> {
        let all: Vec<Object> = self.tables.objects().filter(|o| kind_of(o) == kind).collect();
        let exact = all.iter().find(|o| id_of(o) == wanted);
        let named = || all.iter().find(|o| name_of(o) == wanted);
        let prefix = || {
            let mut found = all.iter().filter(|o| id_of(o).starts_with(wanted));
            found.next().filter(|_| found.next().is_none())
        };
        exact.or_else(named).or_else(prefix).cloned()
    }

    /// Makes what was asked for be so.
    fn settle(&mut self) {
        let networks: Vec<_> = self.tables.networks.values().cloned().collect();
        for network in networks {
            if network.allocation.is_none() && network.spec.driver == model::NetworkDriver::Overlay {
                let mut network = Network::clone(&network);
                let vni = 4097 + u32::try_from(self.tables.networks.len()).unwrap();
                let subnet = network.spec.subnet.unwrap_or("10.0.1.0/24".parse().unwrap());
                network.allocation = Some(NetworkAllocation {
                    vni,
                    subnet,
                    gateway: network.spec.gateway.unwrap_or("10.0.1.1".parse().unwrap()),
                });
                self.put(Object::Network(network.into())).unwrap();
            }
        }
        let services: Vec<_> = self.tables.services.values().cloned().collect();
        for service in services {
            self.settle_service(&service);
        }
    }

    fn settle_service(&mut self, service: &Arc<Service>) {
        let nodes: Vec<NodeId> = self.tables.nodes.values().map(|n| n.id).collect();
        let slots: Vec<(Slot, NodeId)> = match service.spec.mode {
            Mode::Replicated { replicas } => (1..=replicas)
                .map(|n| (Slot::Replica(n), nodes[usize::try_from(n).unwrap() % nodes.len()]))
                .collect(),
            Mode::Global => nodes.iter().map(|n| (Slot::Node(*n), *n)).collect(),
            Mode::ReplicatedJob { .. } | Mode::GlobalJob => Vec::new(),
        };
        let tasks: Vec<_> = self.tables.tasks_of_service(service.id).cloned().collect();
        let mut changes = Vec::new();
        let mut kept = Vec::new();
        for task in &tasks {
            let wanted = slots.iter().any(|(slot, _)| *slot == task.slot);
            if wanted && task.desired == Desired::Running && task.spec == service.spec.task {
                kept.push(task.slot);
            } else if task.desired == Desired::Running && wanted {
                let mut old = Task::clone(task);
                old.desired = Desired::Shutdown;
                old.status.state = Some(TaskState::Shutdown);
                changes.push(Change::Put(Object::Task(old.into())));
            } else if !wanted {
                changes.push(Change::Delete { key: ObjectRef::Task(task.id), version: task.meta.version });
            }
        }
        for (slot, node) in slots {
            if kept.contains(&slot) {
                continue;
            }
            let id = TaskId(self.fresh());
            changes.push(Change::Put(Object::Task(Arc::new(Task {
                id,
                meta: Meta::default(),
                service: service.id,
                service_name: service.spec.name.clone(),
                service_labels: model::Labels::new(),
                slot,
                spec: service.spec.task.clone(),
                spec_version: service.spec_version,
                job_iteration: 0,
                log_driver: None,
                host_ports: Vec::new(),
                generic: model::GenericResources::new(),
                placement: Placement::On(node),
                desired: Desired::Running,
                attachments: Vec::new(),
                gateway_address: None,
                status: TaskStatus {
                    state: Some(TaskState::Running),
                    at: Timestamp(1_700_000_000_000_000_000),
                    message: "started".into(),
                    error: None,
                    container: Some(ContainerStatus {
                        container_id: format!("{:064x}", id.0),
                        pid: 42,
                        exit_code: None,
                        oom_killed: false,
                    }),
                },
                desired_at: Timestamp(0),
                node_network: None,
                attaches: None,
            }))));
        }
        self.apply(changes).unwrap();
    }
}

fn kind_of(object: &Object) -> ObjectKind {
    ObjectKind::try_from(wire::ObjectRef::from(&object.key()).kind).unwrap()
}

fn id_of(object: &Object) -> String {
    object.key().to_string().split_whitespace().last().unwrap().to_owned()
}

fn name_of(object: &Object) -> String {
    match object {
        Object::Cluster(_) => "default".into(),
        Object::Node(o) => o.display_name(),
        Object::Service(o) => o.spec.name.clone(),
        Object::Task(o) => o.name(),
        Object::Network(o) => o.spec.name.clone(),
        Object::Secret(o) => o.spec.name.clone(),
        Object::Config(o) => o.spec.name.clone(),
        Object::Stack(o) => o.name.clone(),
        Object::User(o) => o.name.clone(),
        Object::Audit(o) => o.object.clone(),
    }
}

fn invalid(error: proto::Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

type Stream<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

struct ControlService(Arc<Mutex<World>>);

#[tonic::async_trait]
impl control_server::Control for ControlService {
    type ListStream = Stream<ListChunk>;
    type WatchStream = Stream<WatchEvent>;
    type BackupStream = Stream<BackupPiece>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<wire::Object>, Status> {
        let request = request.into_inner();
        let kind = ObjectKind::try_from(request.kind).unwrap();
        let found = self.0.lock().unwrap().find(kind, &request.id_or_name);
        found.map(|o| Response::new((&o).into())).ok_or_else(|| Status::not_found("not found"))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let ListRequest { kind, brief } = request.into_inner();
        let kind = ObjectKind::try_from(kind).unwrap();
        let world = self.0.lock().unwrap();
        let told = |mut object: Object| {
            if let Object::Task(task) = &mut object
                && brief
            {
                Arc::make_mut(task).spec = Arc::default();
            }
            (&object).into()
        };
        let objects = world.tables.objects().filter(|o| kind_of(o) == kind).map(told).collect();
        let chunk = ListChunk { index: world.tables.index, objects };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(chunk)]))))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateReply>, Status> {
        let mut world = self.0.lock().unwrap();
        let id = world.fresh();
        let object = match request.into_inner().spec.unwrap() {
            create_request::Spec::Service(spec) => {
                let spec: model::ServiceSpec = spec.try_into().map_err(invalid)?;
                let vips = spec
                    .task
                    .networks
                    .iter()
                    .map(|n| Vip { network: n.network, address: "10.0.1.2".parse().unwrap() })
                    .take(usize::from(world.tables.services.is_empty()))
                    .collect();
                Object::Service(Arc::new(Service {
                    id: model::ServiceId(id),
                    meta: Meta::default(),
                    endpoint: model::Endpoint { vips, ports: spec.endpoint.ports.clone() },
                    spec: Arc::new(spec),
                    spec_version: 1,
                    previous: None,
                    stack: None,
                    update: None,
                    pending_delete: false,
                    job_iteration: 0,
                    registry_auth: None,
                }))
            }
            create_request::Spec::Network(spec) => Object::Network(Arc::new(Network {
                id: model::NetworkId(id),
                meta: Meta::default(),
                spec: spec.try_into().map_err(invalid)?,
                allocation: None,
                pending_delete: false,
            })),
            create_request::Spec::Secret(spec) => Object::Secret(Arc::new(model::Secret {
                id: model::SecretId(id),
                meta: Meta::default(),
                spec: spec.try_into().map_err(invalid)?,
            })),
            create_request::Spec::User(_) => {
                return Err(Status::unimplemented("the fake swarm has no users"));
            }
            create_request::Spec::Config(spec) => Object::Config(Arc::new(model::Config {
                id: model::ConfigId(id),
                meta: Meta::default(),
                spec: spec.try_into().map_err(invalid)?,
            })),
        };
        world.put(object)?;
        let version = world.tables.index;
        world.settle();
        Ok(Response::new(CreateReply { id: id.to_be_bytes().to_vec(), version }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateReply>, Status> {
        let request = request.into_inner();
        let mut world = self.0.lock().unwrap();
        let id = &request.id;
        let gone = || Status::not_found("not found");
        let object = match request.spec.unwrap() {
            update_request::Spec::Service(spec) => {
                let id = model::ServiceId::from_wire(id).map_err(invalid)?;
                let mut service = Service::clone(world.tables.services.get(&id).ok_or_else(gone)?);
                let spec: Arc<model::ServiceSpec> = Arc::new(spec.try_into().map_err(invalid)?);
                service.previous = Some(std::mem::replace(&mut service.spec, spec));
                service.endpoint.ports = service.spec.endpoint.ports.clone();
                if service.spec_version != request.version {
                    return Err(Status::aborted("update out of sequence"));
                }
                service.spec_version += 1;
                Object::Service(service.into())
            }
            update_request::Spec::User(_) => {
                return Err(Status::unimplemented("the fake swarm has no users"));
            }
            update_request::Spec::Rollback(_) => {
                let id = model::ServiceId::from_wire(id).map_err(invalid)?;
                let mut service = Service::clone(world.tables.services.get(&id).ok_or_else(gone)?);
                service.spec = service.previous.take().ok_or_else(|| {
                    Status::failed_precondition(format!("service {id} does not have a previous spec"))
                })?;
                if service.spec_version != request.version {
                    return Err(Status::aborted("update out of sequence"));
                }
                service.spec_version += 1;
                Object::Service(service.into())
            }
            update_request::Spec::Node(spec) => {
                let id = NodeId::from_wire(id).map_err(invalid)?;
                let mut node = Node::clone(world.tables.nodes.get(&id).ok_or_else(gone)?);
                node.spec = spec.try_into().map_err(invalid)?;
                node.meta.version = request.version;
                Object::Node(node.into())
            }
            update_request::Spec::Secret(spec) => {
                let id = model::SecretId::from_wire(id).map_err(invalid)?;
                let mut secret = model::Secret::clone(world.tables.secrets.get(&id).ok_or_else(gone)?);
                if spec.name != secret.spec.name || (!spec.data.is_empty() && spec.data != secret.spec.data.0)
                {
                    return Err(Status::invalid_argument("only updates to Labels are allowed"));
                }
                secret.spec.labels = spec.labels;
                secret.meta.version = request.version;
                Object::Secret(secret.into())
            }
            update_request::Spec::Config(spec) => {
                let id = model::ConfigId::from_wire(id).map_err(invalid)?;
                let mut config = model::Config::clone(world.tables.configs.get(&id).ok_or_else(gone)?);
                if spec.name != config.spec.name || (!spec.data.is_empty() && spec.data != config.spec.data) {
                    return Err(Status::invalid_argument("only updates to Labels are allowed"));
                }
                config.spec.labels = spec.labels;
                config.meta.version = request.version;
                Object::Config(config.into())
            }
        };
        world.put(object)?;
        world.settle();
        Ok(Response::new(UpdateReply { version: world.tables.index }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        let request = request.into_inner();
        let mut world = self.0.lock().unwrap();
        let key: ObjectRef =
            wire::ObjectRef { kind: request.kind, id: request.id }.try_into().map_err(invalid)?;
        let object = world.tables.get(key).ok_or_else(|| Status::not_found("not found"))?;
        let users: Vec<String> = match &object {
            Object::Secret(secret) => world
                .tables
                .services
                .values()
                .filter(|s| s.spec.task.container.secrets.iter().any(|r| r.id == secret.id))
                .map(|s| s.spec.name.clone())
                .collect(),
            _ => Vec::new(),
        };
        if !users.is_empty() {
            return Err(Status::failed_precondition(format!(
                "secret '{}' is in use by the following service: {}",
                name_of(&object),
                users.join(", ")
            )));
        }
        let mut changes = vec![Change::Delete { key, version: object.version() }];
        if let Object::Service(service) = &object {
            changes.extend(
                world
                    .tables
                    .tasks_of_service(service.id)
                    .map(|t| Change::Delete { key: ObjectRef::Task(t.id), version: t.meta.version }),
            );
        }
        world.apply(changes)?;
        Ok(Response::new(RemoveReply {}))
    }

    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let piece = |data: &[u8]| Ok(BackupPiece { data: data.to_vec() });
        Ok(Response::new(Box::pin(futures::stream::iter([piece(b"first, "), piece(b"second")]))))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(futures::stream::pending())))
    }

    async fn get_swarm(&self, _: Request<GetSwarmRequest>) -> Result<Response<wire::Cluster>, Status> {
        let world = self.0.lock().unwrap();
        let cluster = world.tables.cluster.as_ref().ok_or_else(|| Status::not_found("no cluster"))?;
        Ok(Response::new((&**cluster).into()))
    }

    async fn update_swarm(
        &self,
        request: Request<UpdateSwarmRequest>,
    ) -> Result<Response<UpdateReply>, Status> {
        let request = request.into_inner();
        let mut world = self.0.lock().unwrap();
        let mut cluster = Cluster::clone(world.tables.cluster.as_ref().unwrap());
        cluster.meta.version = request.version;
        cluster.spec = request.spec.unwrap().try_into().map_err(invalid)?;
        if request.rotate_worker_token {
            cluster.worker_token = SecretBytes(b"SWMTKN-1-rotated".to_vec());
        }
        world.put(Object::Cluster(cluster.into()))?;
        Ok(Response::new(UpdateReply { version: world.tables.index }))
    }

    async fn apply_stack(
        &self,
        request: Request<ApplyStackRequest>,
    ) -> Result<Response<wire::Stack>, Status> {
        let request = request.into_inner();
        let mut world = self.0.lock().unwrap();
        let mut stack = match world.tables.stack_named(&request.name) {
            Some(stack) => model::Stack::clone(stack),
            None => model::Stack {
                id: model::StackId(world.fresh()),
                meta: Meta::default(),
                name: request.name.clone(),
                revisions: Vec::new(),
                pending_delete: false,
            },
        };
        stack.revisions.push(model::StackRevision {
            number: stack.revisions.len() as u64 + 1,
            at: Timestamp(1),
            author: request.author,
            source: request.source,
            services: Vec::new(),
            restores: 0,
            came_up: None,
            message: String::new(),
            git: request.git,
        });
        world.put(Object::Stack(stack.into()))?;
        let stored = world.tables.stack_named(&request.name).unwrap();
        Ok(Response::new((&**stored).into()))
    }

    async fn rollback_stack(
        &self,
        request: Request<RollbackStackRequest>,
    ) -> Result<Response<wire::Stack>, Status> {
        let name = request.into_inner().name;
        let world = self.0.lock().unwrap();
        let stored = world.tables.stack_named(&name).ok_or_else(|| Status::not_found("no such stack"))?;
        Ok(Response::new((&**stored).into()))
    }

    async fn judge_stack(
        &self,
        request: Request<JudgeStackRequest>,
    ) -> Result<Response<wire::Stack>, Status> {
        let name = request.into_inner().name;
        let world = self.0.lock().unwrap();
        let stored = world.tables.stack_named(&name).ok_or_else(|| Status::not_found("no such stack"))?;
        Ok(Response::new((&**stored).into()))
    }

    async fn foresee_stack(
        &self,
        _: Request<control::ApplyStackRequest>,
    ) -> Result<Response<control::ForeseeStackReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no planner"))
    }

    async fn explain_service(
        &self,
        _: Request<control::ExplainServiceRequest>,
    ) -> Result<Response<control::ExplainServiceReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no planner"))
    }

    async fn who_am_i(
        &self,
        _: Request<control::WhoAmIRequest>,
    ) -> Result<Response<control::WhoAmIReply>, Status> {
        let mut world = self.0.lock().unwrap();
        world.asked_who += 1;
        let role = world.user.clone().ok_or_else(|| Status::permission_denied("nobody has this token"))?;
        let (name, role) = ("ann".to_owned(), Some((&role).into()));
        Ok(Response::new(control::WhoAmIReply { name, role, cluster: CLUSTER.to_wire() }))
    }

    async fn enter_task(
        &self,
        _: Request<control::EnterTaskRequest>,
    ) -> Result<Response<control::EnterTaskReply>, Status> {
        // Whoever asks in these tests is an operator.
        Ok(Response::new(control::EnterTaskReply {}))
    }

    async fn create_user_token(
        &self,
        _: Request<control::CreateUserTokenRequest>,
    ) -> Result<Response<control::CreateUserTokenReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no users"))
    }

    async fn remove_user_token(
        &self,
        _: Request<control::RemoveUserTokenRequest>,
    ) -> Result<Response<control::RemoveUserTokenReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no users"))
    }

    async fn set_password(
        &self,
        _: Request<control::SetPasswordRequest>,
    ) -> Result<Response<control::SetPasswordReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no users"))
    }

    async fn login(
        &self,
        _: Request<control::LoginRequest>,
    ) -> Result<Response<control::CreateUserTokenReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no users"))
    }

    async fn revoke_user_certificate(
        &self,
        _: Request<control::RevokeUserCertificateRequest>,
    ) -> Result<Response<control::RevokeUserCertificateReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no users"))
    }

    async fn issue_user_certificate(
        &self,
        _: Request<control::IssueUserCertificateRequest>,
    ) -> Result<Response<control::IssueUserCertificateReply>, Status> {
        Err(Status::unimplemented("the fake swarm has no users"))
    }
}

/// One node's view of the fake swarm.
pub struct FakeSwarm {
    world: Arc<Mutex<World>>,
    control: Control,
    addr: SocketAddr,
    member: Mutex<bool>,
    /// Front doors of other nodes, reached by tunnels.
    pub peers: Mutex<std::collections::BTreeMap<NodeId, FrontDoor>>,
    tunnels: Mutex<JoinSet<()>>,
}

pub fn node_id(n: u128) -> NodeId {
    NodeId(n << 100)
}

fn node(n: u128) -> Node {
    let ip: std::net::IpAddr = format!("10.1.0.{n}").parse().unwrap();
    Node {
        id: node_id(n),
        meta: Meta::default(),
        spec: NodeSpec { role: if n == 1 { Role::Manager } else { Role::Worker }, ..NodeSpec::default() },
        index: u16::try_from(n).unwrap(),
        certified_role: Role::Worker,
        description: Some(NodeDescription {
            tls: model::NodeTls { trust: pki::sha256(ROOT.as_bytes()).to_vec(), ..model::NodeTls::default() },
            hostname: format!("host{n}"),
            platform: Platform { os: "linux".into(), architecture: "amd64".into() },
            resources: Resources { cpu_nanos: 2_000_000_000, memory_bytes: 1 << 30, pids: 0 },
            generic: model::GenericResources::new(),
            engine_version: "0.1.0".into(),
            engine_labels: model::Labels::new(),
            addr: SocketAddr::new(ip, 2377),
            data_addr: ip,
            feature_level: model::FEATURE_LEVEL,
            networks: vec![],
            unfit: vec![],
        }),
        status: NodeStatus { state: NodeState::Ready, addr: Some(ip), ..NodeStatus::default() },
        manager: (n == 1).then(|| model::ManagerStatus {
            raft_id: 1,
            addr: SocketAddr::new(ip, 2377),
            seen: Some(model::ManagerSeen { reachable: true, behind: 0 }),
        }),
    }
}

#[async_trait::async_trait]
impl Swarm for FakeSwarm {
    fn status(&self) -> SwarmStatus {
        if !*self.member.lock().unwrap() {
            return SwarmStatus::Inactive;
        }
        SwarmStatus::Active(Membership {
            node_id: node_id(1),
            cluster_id: CLUSTER,
            role: Role::Manager,
            addr: self.addr,
            managers: vec![(node_id(1), self.addr)],
            control_available: true,
            leader: Some(node_id(1)),
            error: String::new(),
        })
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        let mut member = self.member.lock().unwrap();
        if *member {
            return Err(ApiError::unavailable(
                "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
            ));
        }
        assert_eq!(request.advertise_addr.as_deref(), Some("127.0.0.1"));
        *member = true;
        let mut world = self.world.lock().unwrap();
        let cluster = Cluster {
            root_ca_cert: ROOT.into(),
            worker_token: SecretBytes(b"SWMTKN-1-worker".to_vec()),
            manager_token: SecretBytes(b"SWMTKN-1-manager".to_vec()),
            feature_level: 1,
            ..Cluster::new(CLUSTER)
        };
        world.put(Object::Cluster(cluster.into())).unwrap();
        for n in 1..=3 {
            world.put(Object::Node(node(n).into())).unwrap();
        }
        Ok(node_id(1))
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        Err(ApiError::internal(format!("cannot join {}", request.remotes.join(", "))))
    }

    async fn leave(&self, force: bool) -> Result<(), ApiError> {
        if !force {
            return Err(ApiError::unavailable(
                "You are attempting to leave the swarm on a node that is participating as a manager.",
            ));
        }
        *self.member.lock().unwrap() = false;
        Ok(())
    }

    async fn unlock(&self, _: String) -> Result<(), ApiError> {
        Err(ApiError::conflict("swarm is not locked"))
    }

    async fn control(&self, _: &Asker) -> Result<Control, ApiError> {
        if *self.member.lock().unwrap() { Ok(self.control.clone()) } else { Err(ApiError::not_in_swarm()) }
    }

    async fn relay(&self, _: &Asker, _: Option<SocketAddr>) -> Result<(SocketAddr, BoxedIo), ApiError> {
        Err(ApiError::unavailable("the fake is a manager"))
    }

    async fn tunnel(&self, node: NodeId, _: &Asker) -> Result<BoxedIo, ApiError> {
        let door = self.peers.lock().unwrap().get(&node).cloned();
        let Some(door) = door else {
            return Err(ApiError::unavailable(format!("node {node} does not answer")));
        };
        let (near, far) = tokio::io::duplex(64 << 10);
        let mut tunnels = self.tunnels.lock().unwrap();
        tunnels.spawn(async move { door.connection(far, docker_api::server::Origin::Peer).await });
        Ok(Box::new(near))
    }
}

/// A front door on a unix socket, a fake swarm behind it. Everything ends with it.
pub struct Door {
    pub client: Client,
    pub socket: PathBuf,
    pub swarm: Arc<FakeSwarm>,
    pub world: Arc<Mutex<World>>,
    pub front: FrontDoor,
    cancel: CancellationToken,
    _servers: JoinSet<()>,
    dir: tempfile::TempDir,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Door {
    /// Opens a door of a host that is in no swarm.
    pub async fn open() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let cancel = CancellationToken::new();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = grpc.local_addr().unwrap();
        let service = control_server::ControlServer::new(ControlService(world.clone()));
        let ended = cancel.clone();
        let mut servers = JoinSet::new();
        servers.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(grpc), ended.cancelled_owned())
                .await
                .unwrap();
        });
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy();
        let swarm = Arc::new(FakeSwarm {
            world: world.clone(),
            control: proto::control::control_client::ControlClient::with_interceptor(
                link(channel),
                proto::PersonalClaim::new(&proto::control::PersonClaim::default()),
            ),
            addr: "10.1.0.1:2377".parse().unwrap(),
            member: Mutex::new(false),
            peers: Mutex::default(),
            tunnels: Mutex::default(),
        });
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let options = Options {
            live: Arc::new(docker_api::server::Live::default),
            engine: None,
            swarm: swarm.clone(),
            hostname: "host1".into(),
            data_root: dir.path().to_owned(),
            connections_max: 64,
            min_api: docker_api::server::MIN_API_VERSION,
        };
        let door = FrontDoor::new(options, cancel.clone());
        let listener = Listener::unix(&socket, None).await.unwrap();
        let front = door.clone();
        servers.spawn(async move { door.serve(listener).await });
        let client = Client::new(&format!("unix://{}", socket.display())).unwrap();
        Self { client, socket, swarm, world, front, cancel, _servers: servers, dir }
    }

    /// Opens the door of a swarm of three nodes.
    pub async fn of_swarm() -> Self {
        let door = Self::open().await;
        let init = docker_api::types::SwarmInit {
            advertise_addr: "127.0.0.1".into(),
            ..docker_api::types::SwarmInit::default()
        };
        door.client.swarm_init(&init).await.unwrap();
        door
    }

    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Runs a command line with these arguments.
    pub async fn run(&self, program: &std::path::Path, args: &[&str]) -> Output {
        let output = tokio::time::timeout(
            std::time::Duration::from_secs(60),
            tokio::process::Command::new(program)
                .args(args)
                .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
                .env("DOCKER_CONFIG", self.dir.path())
                .env_remove("RSWARM_HOST")
                .env_remove("DOCKER_CONTEXT")
                .env_remove("DOCKER_API_VERSION")
                .stdin(std::process::Stdio::null())
                .kill_on_drop(true)
                .output(),
        )
        .await
        .unwrap_or_else(|_| panic!("{} {args:?} did not end", program.display()))
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Output {
            command: format!("{} {}", program.display(), args.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Output {
    command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Returns what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0 && self.stderr.is_empty(), "{} failed: {self:#?}", self.command);
        self.stdout
    }

    /// Returns what it printed, whatever it warned of.
    #[track_caller]
    pub fn ok_with_warnings(self) -> String {
        assert!(self.code == 0, "{} failed: {self:#?}", self.command);
        self.stdout
    }

    /// Returns the lines, words separated by single blanks.
    #[track_caller]
    pub fn lines(self) -> Vec<String> {
        self.ok().lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// Demands a failure with this text.
    #[track_caller]
    pub fn fails(self, with: &str) {
        assert!(self.code != 0 && self.stderr.contains(with), "want a failure with {with:?}, got {self:#?}");
    }
}
