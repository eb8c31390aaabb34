//! This node's part in a swarm as the front door sees it: init, join, leave, and the ways to managers and to
//! other nodes.
//!
//! Tasks (of tokio): one *supervisor* ([`Supervisor`]), made by [`NodeSwarm::new`], owns the running member and is told
//! what to do over a channel; it starts the member anew when its role changed.

mod supervisor;

pub(crate) use supervisor::{Order, Supervisor};

use crate::{
    InForce,
    address::{self, interfaces},
    clock::clock,
    connect::Connections,
    control::Hop,
    executor::{HostExecutor, Wanted},
    gate::Gate,
    images,
    managers::{MANAGER_LIMIT, ask_a_manager, is_passing},
    member::{self, Begin, Start, bootstrap_channel},
    peer::{FrontDoorCell, open_relay, open_tunnel},
    record::{Folder, Record},
    swarm_events::Told,
    waiting::Waiting,
};
use anyhow::Context as _;
use docker_api::server::{
    ApiError, Asker, BoxedIo, Control, HostGone, InitRequest, JoinRequest, Link, Membership, RecoverRequest,
    RestoreRequest, Swarm, SwarmStatus, link,
};
use engine::Engine;
use manager::Account;
use model::{NodeId, NodeState, Object, Role, with_causes};
use pki::{Credentials, CredentialsError, JoinToken, UnlockKey, tls::Peer};
use proto::{
    PersonalClaim, WireId as _,
    control::{GetRequest, control_client::ControlClient},
    dispatcher::{ImageSourcesRequest, LeaveRequest, NetworksRequest, work_client::WorkClient},
    types::ObjectKind,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use store::Leadership;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tonic::{Status, body::Body, codegen::http, transport::Channel};
use tower::ServiceExt as _;

/// How long one of them is waited for before another is asked to relay.
const RELAY_LIMIT: Duration = Duration::from_secs(3);
/// How long the managers are told that this node leaves: longer than they elect a leader. It leaves anyway.
const LEAVE_LIMIT: Duration = Duration::from_secs(6);
const PAUSE_LEAVE: Duration = Duration::from_millis(200);
/// How long a manager that starts may take to hear the others, on a host that is busy with its start.
const STARTING: Duration = Duration::from_secs(10);
/// How long who makes or joins a swarm waits for this node to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// What is wrong with a manager that is cut off, or has no majority.
const NO_TOUCH: &str = "this manager does not hear what the others agree on: too few of them are online, or it is cut \
                        off from them";
/// Largest gRPC message taken from a manager. *Unit:* bytes.
const MESSAGE_MAX: usize = 64 << 20;

/// What a member is made of besides its membership.
pub(crate) struct Parts {
    pub(crate) folder: Folder,
    pub(crate) engine: Engine,
    pub(crate) hostname: String,
    /// Those that hold; they may change.
    pub(crate) settings: InForce,
    pub(crate) door: FrontDoorCell,
    pub(crate) waiting: Arc<Waiting>,
    /// The threads of everything but the swarm.
    pub(crate) work: Handle,
}

/// Shared by the front door, the supervisor and the image fetcher.
struct Shared {
    parts: Parts,
    /// The running member, if any.
    current: RwLock<Option<Current>>,
    /// Why the member that is on disk does not run.
    failed: RwLock<Option<String>>,
    /// A manager whose keys wait for `swarm unlock`.
    locked: AtomicBool,
    /// Of what happens in the swarm.
    told: Arc<Told>,
    /// Serialises init, join, unlock and leave.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) view: watch::Receiver<member::View>,
    pub(crate) connections: Arc<Connections>,
}

/// Implements [`Swarm`]. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeSwarm {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

pub(crate) fn internal(error: &anyhow::Error) -> ApiError {
    ApiError::internal(format!("{error:#}"))
}

fn already() -> ApiError {
    ApiError::unavailable(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
    )
}

impl NodeSwarm {
    pub(crate) fn new(parts: Parts) -> (Self, Supervisor) {
        let shared = Arc::new(Shared {
            parts,
            current: RwLock::new(None),
            failed: RwLock::new(None),
            locked: AtomicBool::new(false),
            told: Arc::default(),
            changing: tokio::sync::Mutex::new(()),
        });
        // One order at a time: `changing` is held while it is carried out.
        let (orders, received) = mpsc::channel(1);
        (Self { shared: Arc::clone(&shared), orders }, Supervisor { shared, orders: received })
    }

    /// Returns true if this host is a member, also while its part in the swarm is only being taken up.
    pub(crate) fn is_member(&self) -> bool {
        self.current().is_some() || matches!(self.shared.parts.folder.load(), Ok(Some(_)))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.parts.engine
    }

    /// Returns how long containers have at least when the host goes down; `None`: as long as they like.
    pub(crate) fn shutdown_timeout(&self) -> Option<Duration> {
        self.shared.parts.settings.load().shutdown_timeout()
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.shared.parts.folder
    }

    /// Waits until nothing else changes what this host is in the swarm.
    pub(crate) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.changing.lock().await
    }

    /// Returns the connections of a member that does not run.
    pub(crate) fn connections_of(&self, credentials: &Credentials, record: &Record) -> Arc<Connections> {
        self.shared.start(credentials, record).connections
    }

    pub(crate) fn current(&self) -> Option<Current> {
        self.shared.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn order(
        &self,
        make: impl FnOnce(oneshot::Sender<anyhow::Result<()>>) -> Order,
    ) -> anyhow::Result<()> {
        let (done, answer) = oneshot::channel();
        self.orders.send(make(done)).await.ok().context("the daemon is stopping")?;
        answer.await.context("the daemon is stopping")?
    }

    pub(crate) fn addresses(
        listen: Option<&str>,
        advertise: Option<&str>,
        data_path: Option<&str>,
    ) -> Result<Record, ApiError> {
        let interfaces = interfaces();
        let bad = |e: address::InvalidAddress| ApiError::bad_request(e.to_string());
        let listen_addr = address::listen(listen, &interfaces).map_err(bad)?;
        // A manager that listens on one address only is reached there.
        let listened = (!listen_addr.ip().is_unspecified()).then(|| listen_addr.to_string());
        let advertise_addr =
            address::advertise(advertise.or(listened.as_deref()), listen_addr.port(), &interfaces)
                .map_err(bad)?;
        let data_addr = match data_path.filter(|d| !d.is_empty()) {
            Some(typed) => address::advertise(Some(typed), 0, &interfaces).map_err(bad)?.ip(),
            None => advertise_addr.ip(),
        };
        Ok(Record {
            listen_addr,
            advertise_addr,
            data_addr,
            follows: address::follows(advertise.or(listened.as_deref())),
            raft_id: None,
            raft_joined: false,
            managers: Vec::new(),
            lock_version: 0,
            successor: None,
            incarnation: None,
        })
    }

    /// Returns where this host is advertised: as somebody says, else as the settings do.
    fn advertised(&self, said: Option<&str>) -> Option<String> {
        let settings = self.shared.parts.settings.load();
        said.map(str::to_owned).or_else(|| settings.swarm_default_advertise_addr.clone())
    }

    /// Returns what is wrong while this host has no running member.
    fn absent(&self) -> ApiError {
        if self.shared.locked.load(Relaxed) { ApiError::swarm_locked() } else { ApiError::not_in_swarm() }
    }

    /// Returns the managers to ask, the likeliest first.
    fn managers(view: &member::View) -> Vec<SocketAddr> {
        let mut all = view.managers.clone();
        all.retain(|a| *a != view.addr);
        if view.store.is_some() {
            all.insert(0, view.addr);
        }
        all
    }
}

impl Shared {
    fn start(&self, credentials: &Credentials, record: &Record) -> Start {
        let gate = Arc::new(Gate::new(credentials.identity().cluster));
        gate.raise(record.incarnation());
        let connections = Arc::new(Connections::new(credentials.clone(), gate));
        let fetch = self.fetcher(&connections);
        Start {
            folder: self.parts.folder.clone(),
            credentials: credentials.clone(),
            executor: Arc::new(self.executor(record, fetch, Some(credentials.clone()))),
            work: self.parts.work.clone(),
            connections,
            images: self.parts.engine.images().clone(),
            door: Arc::clone(&self.parts.door),
            engine: self.parts.engine.clone(),
            told: Arc::clone(&self.told),
        }
    }

    fn executor(
        &self,
        record: &Record,
        fetch: crate::executor::Fetch,
        credentials: Option<Credentials>,
    ) -> Hop {
        let host = HostExecutor {
            engine: self.parts.engine.clone(),
            settings: Arc::clone(&self.parts.settings),
            hostname: self.parts.hostname.clone(),
            addr: record.advertise_addr,
            data_addr: record.data_addr,
            fetch,
            credentials,
            node: Mutex::default(),
            network_names: Mutex::default(),
            found: Mutex::default(),
            waiting: Arc::clone(&self.parts.waiting),
        };
        Hop::new(Arc::new(host), self.parts.work.clone())
    }

    /// Returns how images come here: from nodes that have them, then from their registry.
    fn fetcher(&self, connections: &Arc<Connections>) -> crate::executor::Fetch {
        let images = self.parts.engine.images().clone();
        let settings = Arc::clone(&self.parts.settings);
        let connections = Arc::clone(connections);
        let folder = self.parts.folder.clone();
        Arc::new(move |wanted: Wanted, news: agent::News| {
            let Wanted { image, reference, auth } = wanted;
            let (images, connections) = (images.clone(), Arc::clone(&connections));
            let registries = settings.load().registries();
            let folder = folder.clone();
            Box::pin(async move {
                let sources = image_sources(&folder, &connections, &image).await;
                let peers = images::peers(&connections, &sources, &image);
                let options = image::PullOptions { peers, registries, auth, ..image::PullOptions::default() };
                let (progress, mut steps) = mpsc::channel(64);
                let pull = images.pull(&reference, options, progress);
                let watched = async {
                    let mut seen = images::Pulled::default();
                    while let Some(step) = steps.recv().await {
                        news.send_if_modified(|text| seen.step(&step, text));
                    }
                };
                let (pulled, ()) = tokio::join!(pull, watched);
                pulled.map(drop).map_err(|e| with_causes(&e))
            })
        })
    }
}

fn account(asker: &Asker) -> Account {
    asker.claim().map_or(Account::Nobody, Account::of)
}

/// Returns true for a refusal of somebody who could have answered.
fn is_an_answer(status: &Status) -> bool {
    use tonic::Code;
    matches!(status.code(), Code::NotFound | Code::PermissionDenied | Code::Unauthenticated)
}

/// Returns the nodes that may have an image; none if no manager answers (the registry is asked then).
async fn image_sources(folder: &Folder, connections: &Connections, image: &str) -> Vec<(NodeId, SocketAddr)> {
    let Ok(Some(record)) = folder.load() else { return Vec::new() };
    let managers = record.managers.into_iter().chain([record.advertise_addr]);
    let request = ImageSourcesRequest { image: image.to_owned() };
    let asked = ask_a_manager(managers, connections, |mut manager| {
        let request = request.clone();
        async move { manager.image_sources(request).await }
    });
    match asked.await {
        Ok(reply) => reply
            .sources
            .into_iter()
            .filter_map(|s| Some((NodeId::from_wire(&s.node).ok()?, s.addr.parse().ok()?)))
            .collect(),
        Err(status) => {
            tracing::debug!(error = status.message(), image, "no node is known to have the image");
            Vec::new()
        }
    }
}

#[async_trait::async_trait]
impl Swarm for NodeSwarm {
    fn status(&self) -> SwarmStatus {
        let Some(current) = self.current() else {
            if self.shared.locked.load(Relaxed) {
                return SwarmStatus::Locked;
            }
            let failed = self.shared.failed.read().unwrap_or_else(PoisonError::into_inner).clone();
            return failed.map_or(SwarmStatus::Inactive, SwarmStatus::Failed);
        };
        let view = current.view.borrow().clone();
        let (mut managers, mut leader, mut control_available) = (Vec::new(), None, false);
        let mut error = if view.error.is_empty() { view.lacks } else { view.error };
        if let Some(store) = &view.store {
            let tables = store.view();
            // What a manager out of touch last heard of the leader is no news.
            control_available = store.is_current();
            let now = if control_available { store.leader_now() } else { Leadership::default() };
            // One that has just begun has not failed to hear anybody.
            if !control_available && error.is_empty() && view.begun.elapsed() > STARTING {
                NO_TOUCH.clone_into(&mut error);
            }
            let all = tables.nodes.values().filter_map(|n| Some((n.id, n.manager?)));
            for (id, status) in all {
                managers.push((id, status.addr));
                if now.leader.is_some_and(|(raft_id, _)| raft_id == status.raft_id) {
                    leader = Some(id);
                }
            }
        }
        SwarmStatus::Active(Membership {
            node_id: view.node,
            cluster_id: view.cluster,
            role: view.role,
            addr: view.addr,
            managers,
            control_available: control_available && view.role == Role::Manager,
            leader,
            error,
        })
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        if request.force_new_cluster && self.is_member() {
            // Docker's clients always name an address to listen on: it counts with one to be reached at only.
            return self
                .recover_here(RecoverRequest {
                    advertise_addr: request.advertise_addr,
                    listen_addr: request.listen_addr,
                    data_path_addr: request.data_path_addr,
                    force: false,
                    person: request.person,
                })
                .await;
        }
        let _changing = self.shared.changing.lock().await;
        if self.current().is_some() || self.shared.parts.folder.load().map_err(|e| internal(&e))?.is_some() {
            return Err(already());
        }
        let mut record = Self::addresses(
            request.listen_addr.as_deref(),
            self.advertised(request.advertise_addr.as_deref()).as_deref(),
            request.data_path_addr.as_deref(),
        )?;
        let (node, credentials, batch) = self.new_swarm(&request, &mut record).map_err(|e| internal(&e))?;
        let begin = Box::new(Begin::Bootstrap(Box::new(batch)));
        let record = Box::new(record);
        let started = self.order(|done| Order::Start { record, credentials, begin, done }).await;
        if let Err(error) = started {
            self.shared.parts.folder.forget().map_err(|e| internal(&e))?;
            return Err(internal(&error));
        }
        self.until_ready().await;
        Ok(node)
    }

    async fn recover(&self, request: RecoverRequest) -> Result<NodeId, ApiError> {
        self.recover_here(request).await
    }

    async fn readdress(&self, request: RecoverRequest) -> Result<(), ApiError> {
        self.readdress_here(request).await
    }

    async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ApiError> {
        self.restore_here(request).await
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        let _changing = self.shared.changing.lock().await;
        if self.current().is_some() || self.shared.parts.folder.load().map_err(|e| internal(&e))?.is_some() {
            return Err(already());
        }
        let token = request
            .token
            .parse::<JoinToken>()
            .map_err(|e| ApiError::bad_request(format!("invalid join token: {e}")))?;
        let mut record = Self::addresses(
            request.listen_addr.as_deref(),
            self.advertised(request.advertise_addr.as_deref()).as_deref(),
            request.data_path_addr.as_deref(),
        )?;
        if request.remotes.is_empty() {
            return Err(ApiError::bad_request("at least 1 remote address must be given to join a swarm"));
        }
        let mut last = None;
        for remote in &request.remotes {
            let addr = address::remote(remote).map_err(|e| ApiError::bad_request(e.to_string()))?;
            let asked = async {
                let channel = bootstrap_channel(addr, &token).await.map_err(|e| {
                    ApiError::internal(format!("cannot join through manager {addr}: {}", with_causes(&e)))
                })?;
                member::issue(channel, &request.token, request.availability)
                    .await
                    .map_err(|e| ApiError::internal(format!("manager {addr} refuses: {}", e.message())))
            };
            match asked.await {
                Ok(issued) => {
                    record.managers = vec![addr];
                    self.become_member(record, issued).await?;
                    self.until_ready().await;
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ApiError::internal("no manager answered")))
    }

    async fn leave(&self, force: bool) -> Result<(), ApiError> {
        let _changing = self.shared.changing.lock().await;
        let on_disk = self.shared.parts.folder.load();
        let current = self.current();
        if current.is_none() && matches!(on_disk, Ok(None)) {
            return Err(ApiError::unavailable("This node is not part of a swarm"));
        }
        if self.shared.locked.load(Relaxed) && !force {
            return Err(ApiError::unavailable(
                "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
            ));
        }
        if !force {
            on_disk.map_err(|e| internal(&e))?;
        }
        let role = current.as_ref().map(|c| c.view.borrow().role);
        if role == Some(Role::Manager) && !force {
            return Err(ApiError::unavailable(
                "You are attempting to leave the swarm on a node that is participating as a manager. The only way \
                 to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use \
                 `--force` to suppress this message.",
            ));
        }
        // Managers are told so that they need not wait for silence; leaving does not depend on their answer.
        if current.is_some() {
            let told = async {
                loop {
                    let told = self
                        .work(|mut manager| async move { manager.leave(LeaveRequest::default()).await })
                        .await;
                    // While leadership moves nobody answers, and one that is not told waits for this node's voice.
                    match told {
                        Err(status) if is_passing(&status) => tokio::time::sleep(PAUSE_LEAVE).await,
                        told => return told,
                    }
                }
            };
            match timeout(LEAVE_LIMIT, told).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => tracing::warn!(error = status.message(), "managers not told of the leave"),
                Err(_) => tracing::warn!("managers not told of the leave: no answer"),
            }
        }
        self.order(|done| Order::Leave { done }).await.map_err(|e| internal(&e))
    }

    async fn go_down(&self) -> Result<HostGone, ApiError> {
        NodeSwarm::go_down(self).await
    }

    async fn unlock(&self, key: String) -> Result<(), ApiError> {
        let _changing = self.shared.changing.lock().await;
        let folder = &self.shared.parts.folder;
        let Some(record) = folder.load().map_err(|e| internal(&e))? else {
            return Err(ApiError::unavailable("This node is not part of a swarm"));
        };
        if !self.shared.locked.load(Relaxed) {
            return Err(ApiError::conflict("swarm is not locked"));
        }
        let wrong = || ApiError::unauthorized("swarm could not be unlocked: invalid key provided");
        let key: UnlockKey = key.parse().map_err(|_| wrong())?;
        let credentials = match Credentials::load(&folder.credentials(), Some(&key)) {
            Ok(Some(credentials)) => credentials,
            Ok(None) => return Err(ApiError::internal("this node has no certificate")),
            Err(CredentialsError::WrongUnlockKey) => return Err(wrong()),
            Err(error) => return Err(ApiError::internal(with_causes(&error))),
        };
        let (record, begin) = (Box::new(record), Box::new(Begin::Resume));
        self.order(|done| Order::Start { record, credentials, begin, done }).await.map_err(|e| internal(&e))
    }

    async fn control(&self, asker: &Asker) -> Result<Control, ApiError> {
        let current = self.current().ok_or_else(|| self.absent())?;
        let view = current.view.borrow().clone();
        let claim = Self::claim(view.role, asker)?;
        let client = |link| {
            ControlClient::with_interceptor(link, claim.clone())
                .max_decoding_message_size(MESSAGE_MAX)
                .max_encoding_message_size(MESSAGE_MAX)
        };
        let account = account(asker);
        let dial = |addr| link(current.connections.people(addr, None, &account));
        // A manager that knows a leader passes on to it what it cannot answer itself: no need to ask around.
        if view.store.as_ref().is_some_and(store::Handle::is_current) {
            return Ok(client(own_manager(&view, &current).unwrap_or_else(|| dial(view.addr))));
        }
        let mut last = "no manager is known".to_owned();
        let managers = Self::managers(&view);
        let attempt = async {
            for addr in managers {
                let mut client = client(dial(addr));
                // A cheap question, answered by the replica's leader: whoever answers can serve the request.
                let ask = client
                    .get(GetRequest { kind: ObjectKind::Node.into(), id_or_name: view.node.to_string() });
                match timeout(Duration::from_secs(3), ask).await {
                    Ok(Ok(_)) => return Ok(client),
                    // Whom it refuses it will refuse again, and say why.
                    Ok(Err(status)) if is_an_answer(&status) => return Ok(client),
                    Ok(Err(status)) => last = format!("manager {addr}: {}", status.message()),
                    Err(_) => last = format!("manager {addr} does not answer"),
                }
            }
            Err(ApiError::unavailable(format!("no manager can serve this request: {last}")))
        };
        timeout(MANAGER_LIMIT, attempt)
            .await
            .unwrap_or_else(|_| Err(ApiError::unavailable("no manager answered in time")))
    }

    async fn own_networks(&self) -> Result<Vec<model::Network>, ApiError> {
        let asked = self.work(|mut manager| async move { manager.networks(NetworksRequest {}).await });
        let networks = asked.await?.networks.into_iter().map(model::Network::try_from);
        Ok(networks.collect::<Result<_, _>>()?)
    }

    async fn tunnel(&self, node: NodeId, asker: &Asker) -> Result<BoxedIo, ApiError> {
        let current = self.current().ok_or_else(|| self.absent())?;
        let mut control = self.control(asker).await?;
        let found = control
            .get(GetRequest { kind: ObjectKind::Node.into(), id_or_name: node.to_string() })
            .await?
            .into_inner();
        let unreadable = |e: &dyn std::error::Error| ApiError::internal(with_causes(e));
        let Object::Node(found) = Object::try_from(found).map_err(|e| unreadable(&e))? else {
            return Err(ApiError::internal("a manager answered with something that is no node"));
        };
        let addr = found
            .description
            .as_ref()
            .map(|d| d.addr)
            .ok_or_else(|| ApiError::unavailable(format!("node {node} has not been seen yet")))?;
        // A manager has just told him something: he is who he says.
        let account = account(asker);
        let place = current.connections.under_way().take(account.clone())?;
        let channel = current.connections.people(addr, Some(node), &account);
        let opened = timeout(MANAGER_LIMIT, open_tunnel(channel, place)).await;
        opened
            .map_err(|_| ApiError::unavailable(format!("node {} does not answer", found.display_name())))?
            .map_err(|e| ApiError::unavailable(format!("node {}: {}", found.display_name(), e.message())))
    }

    async fn relay(&self, asker: &Asker, via: Option<SocketAddr>) -> Result<(SocketAddr, BoxedIo), ApiError> {
        let current = self.current().ok_or_else(|| self.absent())?;
        let view = current.view.borrow().clone();
        let claim = Self::claim(view.role, asker)?;
        let managers = via.map_or_else(|| Self::managers(&view), |addr| vec![addr]);
        let mut last = "no manager is known".to_owned();
        let attempt = async {
            for addr in managers {
                let channel = current.connections.people(addr, None, &account(asker));
                match timeout(RELAY_LIMIT, open_relay(channel, claim.clone())).await {
                    Ok(Ok(io)) => return Ok((addr, io)),
                    Ok(Err(status)) if is_an_answer(&status) => return Err(status.into()),
                    Ok(Err(status)) => last = format!("manager {addr}: {}", status.message()),
                    Err(_) => last = format!("manager {addr} does not answer"),
                }
            }
            Err(ApiError::unavailable(format!("no manager can pass this on to the container's host: {last}")))
        };
        timeout(MANAGER_LIMIT, attempt)
            .await
            .unwrap_or_else(|_| Err(ApiError::unavailable("no manager answered in time")))
    }
}

/// Returns the way to this node's own manager, which needs no connection. `None`: it has none, or its certificate is
/// not valid now, and what others would think of it, it shall think, too.
fn own_manager(view: &member::View, current: &Current) -> Option<Link> {
    let credentials = current.connections.credentials();
    let ((from, to), now) = (credentials.validity(), clock());
    let peer = Peer { identity: Some(credentials.identity()), expired: None, addr: view.addr };
    let control = view.manager.as_ref().filter(|_| from <= now && now < to)?.control();
    Some(link(control.map_request(move |mut request: http::Request<Body>| {
        request.extensions_mut().insert(peer);
        request
    })))
}

impl NodeSwarm {
    /// Returns what managers are told of the person who asks.
    ///
    /// # Errors
    /// 503: this node is a worker, whose word counts for nobody; 403: nobody knows who asks.
    fn claim(role: Role, asker: &Asker) -> Result<PersonalClaim, ApiError> {
        if asker.is_at_the_door() {
            return Ok(PersonalClaim::nobody());
        }
        if role != Role::Manager && !asker.has_token() {
            return Err(ApiError::not_a_manager(asker));
        }
        asker.claim().map(PersonalClaim::new).ok_or_else(ApiError::nobody)
    }

    /// Returns this node's credentials while it is a member.
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        self.current().map(|current| current.connections.credentials().clone())
    }

    /// Asks a manager something in the name of this node.
    pub(crate) async fn work<T, Fut>(&self, ask: impl Fn(WorkClient<Channel>) -> Fut) -> Result<T, Status>
    where
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let current = self.current().ok_or_else(|| Status::unavailable("this node is in no swarm"))?;
        let view = current.view.borrow().clone();
        ask_a_manager(Self::managers(&view), &current.connections, ask).await
    }

    /// Waits until the agent of a new member has its session, or is refused it, and on a manager until its state says that
    /// this node is ready: whoever then asks for the nodes finds one that takes tasks and stays as it was read. A member
    /// that is not ready in time is one all the same. *Source:* moby `daemon/cluster/swarm.go`.
    async fn until_ready(&self) {
        let Some(current) = self.current() else { return };
        let member::View { node, store, mut heard, .. } = current.view.borrow().clone();
        let ready = async {
            let has_answer = |heard: &agent::View| heard.manager.is_some() || heard.refused;
            let refused = heard.wait_for(has_answer).await.map_or(true, |heard| heard.refused);
            let Some(store) = store.filter(|_| !refused) else { return };
            let is_ready =
                |node: &model::Node| node.status.state == NodeState::Ready && node.description.is_some();
            let mut applied = store.watch();
            let seen = applied.wait_for(|_| store.view().nodes.get(&node).is_some_and(|node| is_ready(node)));
            drop(seen.await); // else the member has ended
        };
        if timeout(READY_LIMIT, ready).await.is_err() {
            tracing::warn!(
                limit = ?READY_LIMIT,
                "this node is a member of the swarm, but not ready: `info` says what it lacks"
            );
        }
    }

    /// Makes the keys and first objects of a new swarm, and this node's credentials.
    fn new_swarm(
        &self,
        request: &InitRequest,
        record: &mut Record,
    ) -> anyhow::Result<(NodeId, Credentials, model::Batch)> {
        let raft_id = member::new_raft_id();
        record.raft_id = Some(raft_id);
        let mut init = manager::ca::Init::new(raft_id, record.advertise_addr);
        init.availability = request.availability;
        init.subnet_prefix = request.subnet_prefix.unwrap_or(init.subnet_prefix);
        init.data_path_port = request.data_path_port.unwrap_or(init.data_path_port);
        if !request.default_addr_pool.is_empty() {
            init.address_pools.clone_from(&request.default_addr_pool);
        }
        init.spec.clone_from(&request.spec);
        let made = manager::ca::bootstrap(init, clock())?;
        let key = String::from_utf8(made.key.0).context("the key is not PEM")?;
        let dir = self.shared.parts.folder.credentials();
        let lock = match &made.unlock_key {
            Some(key) => Some(std::str::from_utf8(&key.0)?.parse()?),
            None => None,
        };
        let credentials = Credentials::create(&dir, &key, &made.chain, &made.root, lock)?;
        Ok((made.node, credentials, made.batch))
    }

    async fn become_member(&self, mut record: Record, issued: member::Issued) -> Result<(), ApiError> {
        let folder = &self.shared.parts.folder;
        record.lock_version = issued.lock_version;
        let (key, chain, root) = (&issued.key_pem, &issued.chain_pem, &issued.root_pem);
        let credentials = Credentials::create(&folder.credentials(), key, chain, root, issued.lock.clone())
            .map_err(|e| ApiError::internal(with_causes(&e)))?;
        tracing::info!(node.id = %issued.node, role = ?issued.role, "joining");
        let (record, managers) = (Box::new(record.clone()), record.managers);
        let (begin, joiner) = (Box::new(Begin::Resume), credentials.clone());
        let started = self.order(|done| Order::Start { record, credentials, begin, done }).await;
        if let Err(error) = started {
            undo_join(joiner, managers).await;
            // Its agent may have been given tasks by then.
            self.shared.forget().await.map_err(|e| internal(&e))?;
            return Err(internal(&error));
        }
        Ok(())
    }
}

/// Has the managers forget a node that did not become one. Where they cannot be told it stays in their list, without a
/// name, until somebody removes it.
async fn undo_join(joiner: Credentials, managers: Vec<SocketAddr>) {
    let gate = Arc::new(Gate::new(joiner.identity().cluster));
    let connections = Connections::new(joiner, gate);
    let undo = LeaveRequest { undone: true };
    let told = ask_a_manager(managers, &connections, |mut manager| async move { manager.leave(undo).await });
    if let Err(status) = told.await {
        tracing::warn!(error = status.message(), "managers not told that the join failed");
    }
}
