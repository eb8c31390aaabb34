//! A swarm in one process: real managers, stores, certificates and TLS on loopback, real agents on fake hosts.

use super::links::Links;
use crate::{InNameOf, Manager, Options, ca};
use agent::{Agent, fake::FakeHost};
use model::*;
use pki::{Credentials, Expected, NodeKey, RootCa, tls};
use proto::{
    PersonalClaim, WireId as _,
    ca::{
        IssueCertificateRequest, JoinRaftRequest, ca_client::CaClient, membership_client::MembershipClient,
    },
    control::{
        CreateRequest, GetSwarmRequest, ListRequest, Operator, PersonClaim, RemoveRequest, UpdateRequest,
        control_client::ControlClient, create_request, person_claim::Proof, update_request,
    },
    dispatcher::work_client::WorkClient,
    types::{self, ObjectKind},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};
use store::{Dek, Store};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server},
};

pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

/// Asks until the answer is yes.
pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < limit, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn channel(credentials: &Credentials, addr: SocketAddr) -> Channel {
    channel_to(credentials, addr, None)
}

fn channel_to(credentials: &Credentials, addr: SocketAddr, node: Option<NodeId>) -> Channel {
    let expected = node.map_or(Expected::Role(Role::Manager), Expected::Node);
    let connector = tls::connector(credentials, expected);
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_with_connector_lazy(connector)
}

pub(super) type Control = ControlClient<InterceptedService<Channel, PersonalClaim>>;

/// Asks the manager at this address as people do through the front door of a node.
pub(super) fn control_by(credentials: &Credentials, addr: SocketAddr) -> Control {
    ControlClient::with_interceptor(channel(credentials, addr), PersonalClaim::new(&operator()))
}

pub(super) fn operator() -> PersonClaim {
    let operator = Operator { uid: 0, name: "root".into(), host: "host".into() };
    PersonClaim { proof: Some(Proof::Operator(operator)), from: "unix uid 0 on host".into() }
}

/// What can be made wrong with a manager, and what became of it.
#[derive(Debug, Default, Clone)]
pub(super) struct Faults {
    /// Raft messages of others do not reach it.
    pub(super) deaf: Arc<AtomicBool>,
    /// It panics when it looks at its clock.
    pub(super) broken_clock: Arc<AtomicBool>,
    /// Why it has ended by itself.
    pub(super) ended: Arc<OnceLock<String>>,
    /// In whose names it called on other managers, but its own.
    pub(super) called_for: Arc<Mutex<Vec<InNameOf>>>,
}

/// Returns the managers that a node last heard of.
pub(super) type Seeds = Arc<dyn Fn() -> Vec<SocketAddr> + Send + Sync>;

fn no_seeds() -> Seeds {
    Arc::new(Vec::new)
}

/// A manager that runs, with the port it is reached at.
pub(super) struct Running {
    pub(super) node: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) credentials: Credentials,
    pub(super) store: store::Handle,
    pub(super) faults: Faults,
    pub(super) manager: Manager,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    opened: Option<Store>,
    dir: Option<tempfile::TempDir>,
    links: Links,
    /// By how much the clock of its host is ahead. *Unit:* nanoseconds.
    pub(super) clock_ahead: Arc<AtomicI64>,
}

impl Running {
    pub(super) async fn start(
        credentials: Credentials,
        raft_id: u64,
        listener: TcpListener,
        first: Option<Batch>,
        seeds: Seeds,
        links: Links,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, credentials, raft_id, listener, first, seeds, links).await
    }

    /// Starts it again after [`Self::kill`], with the state it had.
    pub(super) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.addr).await.unwrap();
        let (dir, raft_id, links) = (self.dir.take().unwrap(), self.store.raft_id(), self.links.clone());
        let credentials = self.credentials.clone();
        *self = Self::start_in(dir, credentials, raft_id, listener, None, no_seeds(), links).await;
    }

    async fn start_in(
        dir: tempfile::TempDir,
        credentials: Credentials,
        raft_id: u64,
        listener: TcpListener,
        first: Option<Batch>,
        seeds: Seeds,
        links: Links,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let node = credentials.identity().node;
        let (peers, wires) = (credentials.clone(), links.clone());
        let connect = move |node: Option<NodeId>, to: SocketAddr| {
            let channel = channel_to(&peers, wires.through(addr, to), node);
            async move { Ok::<_, store::ConnectError>(channel) }
        };
        let options = store::Options::new(raft_id, node, addr, Dek::new(&[7; 32]), Arc::new(connect));
        let opened = Store::open(dir.path(), options).await.unwrap();
        if let Some(first) = first {
            opened.bootstrap().await.unwrap();
            let mut leader = opened.handle().leader();
            leader.wait_for(|l| l.me).await.unwrap();
            opened.handle().propose(first).await.unwrap();
        }
        let (peers, wires, faults) = (credentials.clone(), links.clone(), Faults::default());
        let noted = faults.called_for.clone();
        let to_manager: crate::Connect = Arc::new(move |to, node, name: &InNameOf| {
            if *name != InNameOf::Manager {
                noted.lock().unwrap().push(name.clone());
            }
            channel_to(&peers, wires.through(addr, to), node)
        });
        let vouch = crate::voucher(opened.handle(), to_manager.clone(), move || seeds());
        let broken = faults.broken_clock.clone();
        let clock_ahead = Arc::new(AtomicI64::new(0));
        let ahead = clock_ahead.clone();
        let clock = Arc::new(move || {
            assert!(!broken.load(Relaxed), "the clock is broken");
            Timestamp(now().0 + ahead.load(Relaxed))
        });
        let manager = Manager::new(Options {
            store: opened.handle(),
            node,
            connect: to_manager,
            // All hosts are this one, which always answers.
            answers: Arc::new(|_| Box::pin(std::future::ready(false))),
            clock,
            recovering: Arc::default(),
            under_way: crate::UnderWay::default(),
        });
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let incoming = tls::Listener::start(listener, &credentials).unwrap();
        let deaf = faults.deaf.clone();
        let hear = move |request| {
            if deaf.load(Relaxed) { Err(Status::unavailable("cut off")) } else { Ok(request) }
        };
        let raft = InterceptedService::new(opened.service(store::Admission::Members(vouch)), hear);
        let routes = manager.routes().add_service(raft);
        tasks.spawn(async move {
            Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        let (stop, running, ended) = (cancel.clone(), manager.clone(), faults.ended.clone());
        tasks.spawn(async move {
            if let Err(error) = running.run(stop).await {
                ended.get_or_init(|| error.to_string());
            }
        });
        Self {
            node,
            addr,
            credentials,
            store: opened.handle(),
            faults,
            manager,
            cancel,
            tasks,
            opened: Some(opened),
            dir: Some(dir),
            links,
            clock_ahead,
        }
    }

    /// Ends it at once, as a crash does.
    pub(super) async fn kill(&mut self) {
        self.tasks.shutdown().await;
        self.cancel.cancel();
        if let Some(opened) = self.opened.take() {
            opened.shutdown().await;
        }
    }
}

/// An agent with its host.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) host: Arc<FakeHost>,
    pub(super) credentials: Credentials,
    /// As [`Running::clock_ahead`].
    pub(super) clock_ahead: Arc<AtomicI64>,
    agent: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Node {
    pub(super) fn start(credentials: &Credentials, managers: Vec<SocketAddr>, number: u8) -> Self {
        let addr = SocketAddr::from(([192, 0, 2, number], 2377));
        let host = Arc::new(FakeHost::new(&format!("host{number}"), addr));
        let dir = tempfile::tempdir().unwrap();
        let mine = credentials.clone();
        let clock_ahead = Arc::new(AtomicI64::new(0));
        let ahead = clock_ahead.clone();
        let agent = Agent::new(agent::Options {
            managers: watch::channel(managers).1,
            connect: Arc::new(move |addr| channel(&mine, addr)),
            executor: host.clone(),
            state_dir: dir.path().to_owned(),
            clock: Arc::new(move || Timestamp(now().0 + ahead.load(Relaxed))),
            incarnation: watch::Sender::new(None),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { agent.run(CancellationToken::new()).await.unwrap() });
        Self {
            id: credentials.identity().node,
            host,
            credentials: credentials.clone(),
            clock_ahead,
            agent: tasks,
            _dir: dir,
        }
    }

    /// Cuts it off: it is heard no more, its containers go on.
    pub(super) fn kill(&mut self) {
        self.agent.abort_all();
    }
}

pub(super) struct Swarm {
    pub(super) managers: Vec<Running>,
    pub(super) nodes: Vec<Node>,
    links: Links,
}

impl Swarm {
    /// A swarm of one manager, with heartbeats so short that a loss is soon known, and so long that a busy machine
    /// misses none.
    pub(super) async fn new() -> Self {
        Self::on(Links::default()).await
    }

    /// The same, with these wires between the managers.
    pub(super) async fn on(links: Links) -> Self {
        pki::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut init = ca::Init::new(1, listener.local_addr().unwrap());
        init.spec.heartbeat_period = Duration::from_secs(1);
        let made = ca::bootstrap(init, now()).unwrap();
        let key = String::from_utf8(made.key.0).unwrap();
        let credentials = Credentials::in_memory(&key, &made.chain, &made.root).unwrap();
        let manager =
            Running::start(credentials, 1, listener, Some(made.batch), no_seeds(), links.clone()).await;
        Self { managers: vec![manager], nodes: Vec::new(), links }
    }

    pub(super) fn leader(&self) -> &Running {
        let alive = self.managers.iter().filter(|m| m.opened.is_some());
        alive.clone().find(|m| m.store.leader_now().me).or(alive.clone().next()).expect("a manager")
    }

    pub(super) fn view(&self) -> Arc<Tables> {
        self.leader().store.view()
    }

    pub(super) fn addrs(&self) -> Vec<SocketAddr> {
        self.managers.iter().filter(|m| m.opened.is_some()).map(|m| m.addr).collect()
    }

    pub(super) async fn token(&self, role: Role) -> String {
        let cluster = self.control().get_swarm(GetSwarmRequest::default()).await.unwrap().into_inner();
        let token = match role {
            Role::Worker => cluster.worker_token,
            Role::Manager => cluster.manager_token,
        };
        assert!(cluster.root_ca_key.is_empty(), "the CA key stays");
        String::from_utf8(token).unwrap()
    }

    /// Gets a certificate as a joiner does, from the manager at `addr`.
    pub(super) async fn certify(&self, addr: SocketAddr, token: &str) -> Result<Credentials, Status> {
        Self::certify_through(&self.managers[0].credentials.root_pem(), addr, token).await
    }

    /// The same in any swarm with this root certificate.
    pub(super) async fn certify_through(
        root_pem: &str,
        addr: SocketAddr,
        token: &str,
    ) -> Result<Credentials, Status> {
        let digest = RootCa::digest_of(root_pem).unwrap();
        let connector = tls::bootstrap_connector(digest);
        let channel =
            Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_with_connector_lazy(connector);
        let key = NodeKey::generate().unwrap();
        let request = IssueCertificateRequest {
            csr_pem: key.csr_pem().unwrap(),
            token: token.to_owned(),
            availability: types::Availability::Active as i32,
        };
        let reply = CaClient::new(channel).issue_certificate(request).await?.into_inner();
        Ok(Credentials::in_memory(&key.pem(), &reply.certificate_pem, &reply.root_pem).unwrap())
    }

    /// Renews a certificate as a node does.
    pub(super) async fn renew(&self, credentials: &Credentials) -> Result<Credentials, Status> {
        self.renew_through(credentials, self.leader().addr).await
    }

    /// The same, asking a manager by its number.
    pub(super) async fn renew_at(
        &self,
        credentials: &Credentials,
        manager: usize,
    ) -> Result<Credentials, Status> {
        self.renew_through(credentials, self.managers[manager].addr).await
    }

    async fn renew_through(
        &self,
        credentials: &Credentials,
        addr: SocketAddr,
    ) -> Result<Credentials, Status> {
        let key = NodeKey::generate().unwrap();
        let request = IssueCertificateRequest { csr_pem: key.csr_pem().unwrap(), ..Default::default() };
        let channel = channel(credentials, addr);
        let reply = CaClient::new(channel).issue_certificate(request).await?.into_inner();
        Ok(Credentials::in_memory(&key.pem(), &reply.certificate_pem, &reply.root_pem).unwrap())
    }

    pub(super) fn work_as(&self, credentials: &Credentials) -> WorkClient<Channel> {
        WorkClient::new(channel(credentials, self.leader().addr))
    }

    pub(super) async fn join_worker(&mut self) -> usize {
        let token = self.token(Role::Worker).await;
        let credentials = self.certify(self.managers[0].addr, &token).await.unwrap();
        let number = u8::try_from(self.nodes.len() + 1).unwrap();
        self.nodes.push(Node::start(&credentials, self.addrs(), number));
        self.nodes.len() - 1
    }

    pub(super) async fn join_manager(&mut self) {
        let token = self.token(Role::Manager).await;
        // Any manager takes it: a follower forwards to the leader.
        let addr = *self.addrs().last().unwrap();
        let credentials = self.certify(addr, &token).await.unwrap();
        let raft_id = self.managers.len() as u64 + 1;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let manager = Running::start(
            credentials,
            raft_id,
            listener,
            None,
            Arc::new(move || vec![addr]),
            self.links.clone(),
        )
        .await;
        let request =
            JoinRaftRequest { raft_id, addr: manager.addr.to_string(), feature_level: FEATURE_LEVEL };
        let mut client = MembershipClient::new(channel(&manager.credentials, addr));
        let give_up = Instant::now() + LIMIT;
        // As a node does: one that was taken in a moment ago may not know yet that it is a manager.
        let members = loop {
            match client.join_raft(request.clone()).await {
                Ok(reply) => break reply.into_inner().members,
                Err(status) if status.code() == tonic::Code::Unavailable && Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(status) => panic!("manager {raft_id} is not taken in: {status}"),
            }
        };
        assert!(members.iter().any(|m| m.raft_id == raft_id));
        // It is asked for things only when it knows that it is one.
        while !manager.manager.shared.is_taken_in() {
            assert!(Instant::now() < give_up, "manager {raft_id} does not hear that it is taken in");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.managers.push(manager);
    }

    pub(super) fn control(&self) -> Control {
        self.control_at(self.leader())
    }

    /// As a manager's own people ask, through its front door.
    pub(super) fn control_at(&self, manager: &Running) -> Control {
        self.dial(manager)()
    }

    /// Returns what connects people to a manager anew each time, also after it was restarted.
    pub(super) fn dial(&self, manager: &Running) -> impl Fn() -> Control + Send + use<> {
        let (credentials, addr) = (manager.credentials.clone(), manager.addr);
        move || control_by(&credentials, addr)
    }

    pub(super) async fn create(&self, spec: create_request::Spec) -> Result<u128, Status> {
        let reply = self
            .control()
            .create(CreateRequest { spec: Some(spec), registry_auth: None })
            .await?
            .into_inner();
        Ok(ServiceId::from_wire(&reply.id).unwrap().0)
    }

    pub(super) async fn create_service(&self, spec: &ServiceSpec) -> Result<ServiceId, Status> {
        self.create(create_request::Spec::Service(spec.into())).await.map(ServiceId)
    }

    pub(super) async fn update_service(
        &self,
        id: ServiceId,
        change: impl Fn(&mut ServiceSpec),
    ) -> Result<(), Status> {
        // The plan writes the service too: whoever updates it reads it again when it was out of sequence.
        for _ in 0..20 {
            let service = self.view().services.get(&id).unwrap().clone();
            let mut spec = (*service.spec).clone();
            change(&mut spec);
            let spec = Some(update_request::Spec::Service((&spec).into()));
            let request =
                UpdateRequest { id: id.to_wire(), version: service.spec_version, spec, registry_auth: None };
            match self.control().update(request).await {
                Err(status) if status.code() == tonic::Code::Aborted => continue,
                outcome => return outcome.map(drop),
            }
        }
        panic!("always out of sequence");
    }

    pub(super) async fn update_node(&self, id: NodeId, change: impl Fn(&mut NodeSpec)) -> Result<(), Status> {
        for _ in 0..20 {
            let node = self.view().nodes.get(&id).unwrap().clone();
            let mut spec = node.spec.clone();
            change(&mut spec);
            let spec = Some(update_request::Spec::Node((&spec).into()));
            let request =
                UpdateRequest { id: id.to_wire(), version: node.meta.version, spec, registry_auth: None };
            match self.control().update(request).await {
                Err(status) if status.code() == tonic::Code::Aborted => continue,
                outcome => return outcome.map(drop),
            }
        }
        panic!("always out of sequence");
    }

    pub(super) async fn remove(&self, kind: ObjectKind, id: u128) -> Result<(), Status> {
        let request = RemoveRequest { kind: kind as i32, id: id.to_be_bytes().to_vec(), force: false };
        self.control().remove(request).await.map(drop)
    }

    pub(super) async fn list(&self, at: &Running, kind: ObjectKind) -> Vec<Object> {
        self.list_as(at, ListRequest { kind: kind as i32, brief: false }).await
    }

    pub(super) async fn list_as(&self, at: &Running, request: ListRequest) -> Vec<Object> {
        let mut chunks = self.control_at(at).list(request).await.unwrap().into_inner();
        let mut objects = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            objects.extend(chunk.objects.into_iter().map(|o| Object::try_from(o).unwrap()));
        }
        objects
    }

    /// Returns how many of a service's tasks are wanted and run.
    pub(super) fn running(&self, service: ServiceId) -> usize {
        let view = self.view();
        let tasks = view.tasks_of_service(service);
        tasks.filter(|t| t.desired == Desired::Running && t.status.state == Some(TaskState::Running)).count()
    }

    pub(super) async fn until_running(&self, service: ServiceId, count: usize) {
        until(&format!("{count} tasks run: {:#?}", Vec::<()>::new()), || self.running(service) == count)
            .await;
    }
}
