//! This node as a running member of a swarm: its gRPC server, its agent, and on a manager its store and loops.
//!
//! ```text
//!  start -> serve Peer (+ manager routes + Raft)  -> agent
//!        -> renew: certificate at 50..80 % of its life, or at once when the role is to change
//!        -> ends with Outcome::Restart when the role changed: the caller starts it anew in the new role
//! ```
//!
//! Tasks (of tokio), all in one `JoinSet`: the gRPC server, the gate that closes connections, the agent, the manager, the
//! keeper of certificate, role and known managers. They end together.

use crate::{
    connect::{Connections, endpoint},
    control::Hop,
    descriptors, lock,
    peer::{FrontDoorCell, PeerService},
    record::{Folder, Record},
    recover, strangers,
};
use agent::{Agent, Executor};
use anyhow::{Context, Result, bail};
use model::{ClusterId, NodeId, Role, Timestamp, with_causes};
use pki::{Credentials, NodeKey, UnlockKey};
use proto::{
    ca::{
        IssueCertificateReply, IssueCertificateRequest, JoinRaftRequest, ca_client::CaClient,
        membership_client::MembershipClient,
    },
    node::peer_server::PeerServer,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// How long a certificate request or a join may take.
const CA_LIMIT: Duration = Duration::from_secs(20);
/// Between two tries of what failed for a passing reason.
const RETRY: Duration = Duration::from_secs(1);
/// How long the port of this node's last life may still be taken.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);
/// How long the others have to take a member out of Raft that they do not want.
const DISMISSAL: Duration = Duration::from_secs(15);
/// How long a manager may take to write down that another one has another address.
const RELOCATE_LIMIT: Duration = Duration::from_secs(5);
/// Between two tries to open a store that cannot be opened: it reads the whole log.
const REOPEN_MIN: Duration = Duration::from_secs(1);
const REOPEN_MAX: Duration = Duration::from_secs(30);
/// How long a manager that was taken in waits to read so itself.
const RECORDED: Duration = Duration::from_secs(5);
/// How often a node compares what it is with what it is to be.
const LOOK: Duration = Duration::from_secs(1);
/// How long a manager that takes part in Raft may seem not to, by its session: it may be news.
const OUT_OF_RAFT: Duration = Duration::from_secs(3);

/// *Limit* of calls at once on one connection: another node's front door follows logs and tunnels through it.
const STREAMS_MAX: u32 = 1024;
/// *Limit* of the headers of one call. *Unit:* bytes.
const HEADERS_MAX: u32 = 16 << 10;
/// *Limit* of one HTTP/2 frame. *Unit:* bytes.
const FRAME_MAX: u32 = 16 << 10;

/// How a store begins.
#[derive(Debug, Clone)]
pub(crate) enum Begin {
    /// From what is on disk.
    Resume,
    /// As the first manager of a new swarm, with these first objects.
    Bootstrap(Box<model::Batch>),
}

/// Why a member ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Cancelled,
    /// The role changed: start again.
    Restart,
}

/// What a member is started from.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) folder: Folder,
    pub(crate) credentials: Credentials,
    pub(crate) executor: Arc<Hop>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) images: image::Store,
    pub(crate) door: FrontDoorCell,
    /// The threads of the rest of the daemon.
    pub(crate) work: Handle,
}

/// What others may see of a running member.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) role: Role,
    pub(crate) addr: SocketAddr,
    /// Managers by address, as last heard.
    pub(crate) managers: Vec<SocketAddr>,
    /// When it was started.
    pub(crate) begun: Instant,
    pub(crate) store: Option<store::Handle>,
    /// Why a manager runs without its store; else empty.
    pub(crate) lacks: String,
    /// Why the managers refuse this node, and what to do; else empty.
    pub(crate) error: String,
}

/// A running member.
pub(crate) struct Member {
    view: watch::Receiver<View>,
    cancel: CancellationToken,
    tasks: JoinSet<Result<Outcome>>,
    /// How the first part ended, if one has.
    first: Option<Result<Result<Outcome>, tokio::task::JoinError>>,
    store: Option<store::Store>,
}

pub(crate) fn clock() -> Timestamp {
    let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Returns true if a host is there: its kernel takes a connection or refuses it. A refusal comes from the host itself
/// (or from a firewall that stands for it); all else, from silence to "no route", tells of no host.
async fn host_answers(addr: SocketAddr) -> bool {
    match TcpStream::connect(addr).await {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
    }
}

fn random_u64() -> u64 {
    getrandom::u64().expect("the kernel has random numbers")
}

/// Returns a number no other member has or had.
pub(crate) fn new_raft_id() -> u64 {
    random_u64()
}

impl Member {
    /// Starts everything a member runs and returns once it serves and, on a manager, has its place in Raft.
    ///
    /// # Errors
    /// The address is in use, the store cannot be opened, or no manager takes this one in; what was started is
    /// stopped again.
    pub(crate) async fn start(start: Start, record: Record, begin: Begin) -> Result<Self> {
        let cancel = CancellationToken::new();
        let (mut tasks, mut store) = (JoinSet::new(), None);
        match Self::start_parts(start, record, begin, &cancel, &mut tasks, &mut store).await {
            Ok(view) => Ok(Self { view, cancel, tasks, first: None, store }),
            Err(error) => {
                // Whoever tries again finds the address, the log and its lock free.
                cancel.cancel();
                tasks.shutdown().await;
                if let Some(store) = store {
                    store.shutdown().await;
                }
                Err(error)
            }
        }
    }

    async fn start_parts(
        start: Start,
        mut record: Record,
        begin: Begin,
        cancel: &CancellationToken,
        tasks: &mut JoinSet<Result<Outcome>>,
        started: &mut Option<store::Store>,
    ) -> Result<watch::Receiver<View>> {
        let identity = start.credentials.identity();
        let tcp = listen(record.listen_addr).await?;
        recover::finish(&start.folder, &mut record)?;
        if identity.role == Role::Worker {
            record.raft_id = None;
            record.raft_joined = false;
        }
        if record.raft_id.is_none() {
            // Left by an earlier life as a manager; a new one begins from nothing, under a new number.
            discard_raft(&start.folder)?;
        }
        let goes_on_without =
            matches!(begin, Begin::Resume) && record.raft_joined && others(&record).next().is_some();
        let mut lacks = String::new();
        let dek = match identity.role {
            Role::Worker => None,
            Role::Manager => match open_store(&start, &mut record).await {
                Ok((store, dek)) => {
                    *started = Some(store);
                    Some(dek)
                }
                Err(error) if goes_on_without => {
                    lacks = format!("{error:#}");
                    tracing::error!(
                        error = lacks,
                        hint = "mend what it names and the manager goes on by itself; or demote and promote this node",
                        "this node cannot be a manager now; its agent goes on with the other managers"
                    );
                    tasks.spawn(until_store_opens(start.clone(), record.clone(), cancel.clone()));
                    None
                }
                Err(error) => return Err(error),
            },
        };
        let store = started.as_ref();
        let handle = store.map(store::Store::handle);
        let connections = Arc::clone(&start.connections);
        let to_agents: agent::Connect = Arc::new(move |addr| connections.manager(addr, None));
        let connections = Arc::clone(&start.connections);
        let to_manager: manager::Connect = Arc::new(move |addr, node| connections.manager(addr, node));

        let gate = Arc::clone(start.connections.gate());
        if let Some(handle) = &handle {
            gate.judge_by(handle);
        }
        let peer = PeerServer::new(PeerService::new(
            start.images.clone(),
            start.door.clone(),
            Arc::clone(&start.connections),
            start.folder.clone(),
            start.work.clone(),
        ))
        .max_decoding_message_size(crate::peer::MESSAGE_BYTES_MAX);
        let mut own = None;
        let mut routes = tonic::service::Routes::new(peer.clone());
        if let (Some(store), Some(handle)) = (store, &handle) {
            let manager = manager::Manager::new(manager::Options {
                store: handle.clone(),
                node: identity.node,
                connect: Arc::clone(&to_manager),
                answers: Arc::new(|addr| Box::pin(host_answers(addr))),
                clock: Arc::new(clock),
                recovering: Arc::clone(&gate.recovering),
            });
            let folder = start.folder.clone();
            let seeds =
                move || folder.load().ok().flatten().map(|record| record.managers).unwrap_or_default();
            let vouch = manager::voucher(handle.clone(), to_manager, seeds);
            let raft = store.service(store::Admission::Members(vouch));
            routes = manager.routes().add_service(peer).add_service(raft);
            tasks.spawn(watch_store(handle.watch_failure(), cancel.clone()));
            let cancel = cancel.clone();
            own = Some(manager.clone());
            tasks.spawn(async move {
                manager.run(cancel).await?;
                Ok(Outcome::Cancelled)
            });
        }
        let limits = pki::tls::Limits::for_descriptors(descriptors::count());
        let listener =
            pki::tls::Listener::start_with(tcp, &start.credentials, limits).context("cannot serve TLS")?;
        let listener = listener.known_to(&gate.guests);
        tasks.spawn(serve(routes, listener, cancel.clone()));
        let gate_cancel = cancel.clone();
        tasks.spawn(async move {
            gate.watch(gate_cancel).await;
            Ok(Outcome::Cancelled)
        });

        if let (Some(store), Begin::Bootstrap(batch)) = (store, begin) {
            store.bootstrap().await.context("cannot make the first member of Raft")?;
            propose_first(&store.handle(), *batch).await?;
            record.raft_joined = true;
        }
        // Before this node is taken in as a manager: it hears meanwhile which others there are.
        let known = watch::Sender::new(managers_of(&record, store.is_some()));
        let agent = Agent::new(agent::Options {
            managers: known.subscribe(),
            connect: to_agents,
            executor: Arc::clone(&start.executor) as Arc<dyn Executor>,
            state_dir: start.folder.agent(),
            clock: Arc::new(clock),
            incarnation: start.connections.gate().incarnation.clone(),
        });
        let heard = agent.view();
        let agent_cancel = cancel.clone();
        tasks.spawn(async move {
            agent.run(agent_cancel).await?;
            Ok(Outcome::Cancelled)
        });
        if let Some(store) = store.filter(|_| !record.raft_joined) {
            let joined = join_raft(&start, &mut record, &store.handle(), &heard, &known).await;
            if joined.as_ref().is_err_and(|error| error.is::<NotTakenIn>()) {
                until_out_of_raft(&store.handle()).await;
            }
            joined?;
            record.raft_joined = true;
            until_recorded(&store.handle(), identity.node).await;
        }
        if lacks.is_empty() {
            start.folder.store(&record)?;
        }

        let view = watch::Sender::new(View {
            begun: Instant::now(),
            node: identity.node,
            cluster: identity.cluster,
            role: identity.role,
            addr: record.advertise_addr,
            managers: record.managers.clone(),
            store: handle.clone(),
            lacks,
            error: String::new(),
        });
        let receiver = view.subscribe();
        let keeper = Keeper { start, record: Mutex::new(record), dek, manager: own, heard, view, known };
        let keeper_cancel = cancel.clone();
        tasks.spawn(async move { keeper.run(keeper_cancel).await });
        Ok(receiver)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    pub(crate) fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Waits until one of its parts has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost: [`Member::ended`] reports it.
    pub(crate) async fn part_ended(&mut self) {
        if self.first.is_none() {
            self.first = self.tasks.join_next().await;
        }
    }

    /// Waits until the member ends by itself or is cancelled, then stops what is left of it.
    pub(crate) async fn ended(mut self) -> Result<Outcome> {
        let mut outcome = Ok(Outcome::Cancelled);
        let mut first = self.first.take();
        while let Some(joined) = match first.take() {
            Some(joined) => Some(joined),
            None => self.tasks.join_next().await,
        } {
            let result = joined.context("a part of the member failed").and_then(|r| r);
            if !self.cancel.is_cancelled() {
                outcome = result;
                self.cancel.cancel();
            }
        }
        if let Some(store) = self.store {
            store.shutdown().await;
        }
        outcome
    }
}

/// Returns the socket that others reach this node at. The one of a member before may take a moment to be closed.
async fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let give_up = Instant::now() + LISTEN_LIMIT;
    loop {
        match TcpListener::bind(addr).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome.with_context(|| format!("cannot listen on {addr}")),
        }
    }
}

/// Ends the member when its store has stopped: without it a manager would only look alive.
async fn watch_store(
    mut failure: watch::Receiver<Option<String>>,
    cancel: CancellationToken,
) -> Result<Outcome> {
    tokio::select! {
        () = cancel.cancelled() => Ok(Outcome::Cancelled),
        why = failure.wait_for(Option::is_some) => {
            let why = why.context("the store is gone")?.clone().unwrap_or_default();
            bail!("this manager's part in Raft has ended: {why}")
        }
    }
}

/// Returns the managers to ask: also this node itself if it `serves` as one.
fn managers_of(record: &Record, serves: bool) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = others(record).collect();
    if serves {
        all.push(record.advertise_addr);
    }
    all
}

fn others(record: &Record) -> impl Iterator<Item = SocketAddr> {
    record.managers.iter().copied().filter(|addr| *addr != record.advertise_addr)
}

/// Ends the member when the store of this manager can be opened again, for it to begin anew with it.
async fn until_store_opens(start: Start, record: Record, cancel: CancellationToken) -> Result<Outcome> {
    let mut pause = REOPEN_MIN;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(Outcome::Cancelled),
            () = sleep(pause) => {}
        }
        match open_store(&start, &mut record.clone()).await {
            Ok((store, _)) => {
                store.shutdown().await;
                tracing::info!(
                    "the replicated store of this manager can be opened again: it takes part in Raft"
                );
                return Ok(Outcome::Restart);
            }
            Err(error) => tracing::debug!(error = format!("{error:#}"), "the store still cannot be opened"),
        }
        pause = (pause * 2).min(REOPEN_MAX);
    }
}

async fn serve(
    routes: tonic::service::Routes,
    listener: pki::tls::Listener,
    cancel: CancellationToken,
) -> Result<Outcome> {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .max_frame_size(FRAME_MAX)
        .layer(strangers::Layer::default())
        .add_routes(routes)
        .serve_with_incoming_shutdown(listener, async move {
            cancel.cancelled().await;
            // Streams that never end by themselves would hold the shutdown up.
            sleep(Duration::from_millis(200)).await;
        })
        .await
        .context("the node-to-node server failed")?;
    Ok(Outcome::Cancelled)
}

async fn open_store(start: &Start, record: &mut Record) -> Result<(store::Store, store::Dek)> {
    let joined = record.raft_id.filter(|_| record.raft_joined);
    if let Some(lost) =
        joined.filter(|_| matches!(store::Store::stored_raft_id(&start.folder.raft()), Ok(None)))
    {
        // Under its old number it would vote again where it has voted, and not know what it has acknowledged.
        tracing::error!(
            raft.id = lost,
            dir = %start.folder.raft().display(),
            "the Raft log of this manager is gone: it takes part under a new number, and learns everything anew"
        );
        record.raft_id = None;
        record.raft_joined = false;
        discard_raft(&start.folder)?;
    }
    let raft_id = match record.raft_id {
        Some(id) => id,
        None => {
            // Durable before the store exists: a restart must not open it under another number.
            let id = new_raft_id();
            record.raft_id = Some(id);
            start.folder.store(record)?;
            id
        }
    };
    let dek = store::Dek::load_or_create(&start.folder.raft_key(), start.credentials.lock().as_ref())
        .with_context(|| {
            format!("cannot read the key of the Raft log, {}", start.folder.raft_key().display())
        })?;
    let connections = Arc::clone(&start.connections);
    let connect = move |node: Option<NodeId>, addr: SocketAddr| {
        let channel = connections.manager(addr, node);
        async move { Ok::<_, store::ConnectError>(channel) }
    };
    let mut options = store::Options::new(
        raft_id,
        start.credentials.identity().node,
        record.advertise_addr,
        dek.clone(),
        Arc::new(connect),
    );
    // Nothing is removed before the state says how many are to be kept.
    options.old_snapshots = u64::MAX;
    let opened = store::Store::open(&start.folder.raft(), options).await;
    let opened = opened
        .with_context(|| format!("cannot open the replicated store in {}", start.folder.raft().display()))?;
    Ok((opened, dek))
}

/// Writes the first objects of a new swarm; the first leader needs a moment to be elected by itself.
async fn propose_first(handle: &store::Handle, batch: model::Batch) -> Result<()> {
    if handle.view().cluster.is_some() {
        return Ok(());
    }
    let mut leader = handle.leader();
    timeout(CA_LIMIT, leader.wait_for(|l| l.me)).await.context("no leader was elected")??;
    handle.propose(batch).await.context("cannot write the swarm's first objects")?;
    Ok(())
}

/// The managers do not take this node for one of them (any more): its certificate may be of yesterday.
#[derive(Debug, thiserror::Error)]
#[error("the managers do not take this node in as one of them: manager {0}")]
pub(crate) struct NotTakenIn(String);

/// Gets this node, which does not run, a certificate of the role that it is to have now.
///
/// # Errors
/// No manager gives one.
pub(crate) async fn certify_anew(start: &Start, mut record: Record) -> Result<Record> {
    let mut last = anyhow::anyhow!("no manager is known");
    for addr in record.managers.clone().into_iter().filter(|a| *a != record.advertise_addr) {
        match issue(start.connections.new_to_manager(addr), "", model::Availability::Active).await {
            Ok(issued) => {
                let (key, chain, root) = (&issued.key_pem, &issued.chain_pem, &issued.root_pem);
                start.credentials.replace_and_lock(key, chain, root, issued.lock)?;
                record.lock_version = issued.lock_version;
                record.raft_id = None;
                record.raft_joined = false;
                start.folder.store(&record)?;
                tracing::info!(role = ?issued.role, "this node was certified anew");
                return Ok(record);
            }
            Err(status) => last = anyhow::Error::from(status).context(format!("manager {addr}")),
        }
    }
    Err(last)
}

/// Goes on in Raft until the others have taken this member out: one that was demoted while it joined may be a voter,
/// whose silence could cost them their majority.
async fn until_out_of_raft(store: &store::Handle) {
    let give_up = Instant::now() + DISMISSAL;
    while store.is_current() && Instant::now() < give_up {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until this manager reads in its own replica that it was taken in: before, it sends whoever asks it to others.
async fn until_recorded(store: &store::Handle, node: NodeId) {
    let own = store.raft_id();
    let mut applied = store.watch();
    let read = async {
        while store.view().nodes.get(&node).and_then(|n| n.manager).is_none_or(|m| m.raft_id != own) {
            if applied.changed().await.is_err() {
                return;
            }
        }
    };
    if timeout(RECORDED, read).await.is_err() {
        tracing::warn!(raft.id = own, "this manager takes part in Raft and has yet to be recorded");
    }
}

/// Asks the managers to take this one in, until one does. Those known at first may all be gone by then: the agent's
/// session tells of others.
async fn join_raft(
    start: &Start,
    record: &mut Record,
    store: &store::Handle,
    heard: &watch::Receiver<agent::View>,
    known: &watch::Sender<Vec<SocketAddr>>,
) -> Result<()> {
    let raft_id = record.raft_id.context("a manager has a raft id")?;
    let addr = record.advertise_addr.to_string();
    let ask = JoinRaftRequest { raft_id, addr, feature_level: model::FEATURE_LEVEL };
    let attempt = async {
        let mut last = anyhow::anyhow!("no manager is known");
        loop {
            let managers = heard.borrow().managers.clone();
            if !managers.is_empty() && managers != record.managers {
                record.managers = managers;
                start.folder.store(record)?;
                known.send_replace(managers_of(record, true));
            }
            for addr in others(record) {
                match MembershipClient::new(start.connections.manager(addr, None))
                    .join_raft(ask.clone())
                    .await
                {
                    Ok(_) => return Ok(()),
                    Err(status) if is_passing(&status) => {
                        last = anyhow::Error::from(status).context(format!("manager {addr}"));
                    }
                    Err(status) if status.code() == tonic::Code::PermissionDenied => {
                        return Err(anyhow::Error::from(NotTakenIn(format!("{addr}: {}", status.message()))));
                    }
                    Err(status) => bail!("manager {addr} refuses this node: {}", status.message()),
                }
            }
            // The one that took it in may be gone before it said so; this one may lead by now.
            if store.is_voter() {
                return Ok(());
            }
            tracing::debug!(error = format!("{last:#}"), "not taken in yet");
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(60), attempt).await.context("no manager took this node in within 60 s")?
}

pub(crate) fn is_passing(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled | Code::Unknown
    )
}

/// What a joiner or renewer gets.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) key_pem: String,
    pub(crate) chain_pem: String,
    pub(crate) root_pem: String,
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    /// Of a manager, while autolock is on.
    pub(crate) lock: Option<UnlockKey>,
    /// Version of the swarm object that says so.
    pub(crate) lock_version: u64,
}

/// Has a fresh key certified over `channel`.
///
/// # Errors
/// The manager's refusal, or it does not answer.
pub(crate) async fn issue(
    channel: Channel,
    token: &str,
    availability: model::Availability,
) -> Result<Issued, tonic::Status> {
    let (key, csr_pem) = new_key()?;
    let request = IssueCertificateRequest {
        csr_pem,
        token: token.to_owned(),
        availability: proto::types::Availability::from(availability).into(),
    };
    let answer = timeout(CA_LIMIT, CaClient::new(channel).issue_certificate(request))
        .await
        .map_err(|_| tonic::Status::deadline_exceeded("the manager did not answer in time"))?;
    issued(&key, answer?.into_inner())
}

/// Returns a key and the request to certify it.
fn new_key() -> Result<(NodeKey, String), tonic::Status> {
    let broken = |e: pki::CaError| tonic::Status::internal(with_causes(&e));
    let key = NodeKey::generate().map_err(broken)?;
    let csr_pem = key.csr_pem().map_err(broken)?;
    Ok((key, csr_pem))
}

fn issued(key: &NodeKey, reply: IssueCertificateReply) -> Result<Issued, tonic::Status> {
    let id: [u8; 16] = reply
        .node_id
        .as_slice()
        .try_into()
        .map_err(|_| tonic::Status::internal("the manager sent a malformed node id"))?;
    let role = match reply.role() {
        proto::types::Role::Manager => Role::Manager,
        proto::types::Role::Worker | proto::types::Role::Unspecified => Role::Worker,
    };
    let lock = match reply.unlock_key.as_deref().map(std::str::from_utf8) {
        None => None,
        Some(text) => Some(
            text.ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| tonic::Status::internal("the manager sent a malformed unlock key"))?,
        ),
    };
    Ok(Issued {
        key_pem: key.pem(),
        chain_pem: reply.certificate_pem,
        root_pem: reply.root_pem,
        node: NodeId(u128::from_be_bytes(id)),
        role,
        lock,
        lock_version: reply.swarm_version,
    })
}

/// Keeps certificate, role, known managers and the lock of a manager's keys up to date.
struct Keeper {
    start: Start,
    record: Mutex<Record>,
    /// Of a manager.
    dek: Option<store::Dek>,
    manager: Option<manager::Manager>,
    heard: watch::Receiver<agent::View>,
    view: watch::Sender<View>,
    known: watch::Sender<Vec<SocketAddr>>,
}

impl Keeper {
    async fn run(mut self, cancel: CancellationToken) -> Result<Outcome> {
        let role = self.start.credentials.identity().role;
        let random = random_u64();
        let mut out_since: Option<Instant> = None;
        let mut applied = self.view.borrow().store.as_ref().map(store::Handle::watch);
        loop {
            let (not_before, not_after) = self.start.credentials.validity();
            let due = pki::renewal_due(not_before, not_after, random).since(clock());
            let renew = tokio::select! {
                () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                () = sleep(due) => true,
                () = sleep(LOOK) => {
                    let heard = self.heard.borrow().clone();
                    if self.follow_incarnation(role)? {
                        return Ok(Outcome::Restart);
                    }
                    self.tell_new_address(role).await;
                    if role == Role::Manager && self.seems_out_of_raft(&heard) {
                        if out_since.get_or_insert_with(Instant::now).elapsed() > OUT_OF_RAFT {
                            tracing::warn!("this manager was taken out of Raft: it takes part under a new number");
                            self.change_role(Role::Manager)?;
                            return Ok(Outcome::Restart);
                        }
                    } else {
                        out_since = None;
                    }
                    role_changes(&heard, role)
                }
                () = next_entry(&mut applied) => match self.follow_settings() {
                    // The key was on disk without a lock: a new one never is.
                    Ok(first) => first,
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "cannot change the lock of this manager's keys; will retry");
                        tokio::select! {
                            () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                            () = sleep(RETRY) => {}
                        }
                        applied.iter_mut().for_each(watch::Receiver::mark_changed);
                        false
                    }
                },
                changed = self.heard.changed() => {
                    if changed.is_err() {
                        return Ok(Outcome::Cancelled);
                    }
                    let heard = self.heard.borrow_and_update().clone();
                    self.learn(&heard)?;
                    role_changes(&heard, role) || (heard.root_ca.is_some() && self.has_an_old_root())
                }
            };
            if !renew {
                continue;
            }
            match self.renew(role).await {
                Ok(new) if new == role => tracing::info!("certificate renewed"),
                Ok(new) => {
                    tracing::info!(from = ?role, to = ?new, "role changed");
                    self.change_role(new)?;
                    return Ok(Outcome::Restart);
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "certificate not renewed; will retry");
                    tokio::select! {
                        () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                        () = sleep(RETRY) => {}
                    }
                    self.heard.mark_changed();
                }
            }
        }
    }

    /// Tells the others where this manager is, if the state says otherwise: it has come back at another address. Raft
    /// reaches it there from then on.
    async fn tell_new_address(&self, role: Role) {
        let store = self.view.borrow().store.clone().filter(|_| role == Role::Manager);
        let Some(store) = store else { return };
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(raft_id), addr) = (record.raft_id, record.advertise_addr) else { return };
        let node = self.start.credentials.identity().node;
        let known = store.view().nodes.get(&node).and_then(|n| n.manager);
        if known.is_none_or(|known| known.raft_id != raft_id || known.addr == addr) {
            return;
        }
        let ask = JoinRaftRequest { raft_id, addr: addr.to_string(), feature_level: model::FEATURE_LEVEL };
        for manager in managers_of(&record, true) {
            let mut asked = MembershipClient::new(self.start.connections.manager(manager, None));
            match timeout(RELOCATE_LIMIT, asked.join_raft(ask.clone())).await {
                Ok(Ok(_)) => {
                    tracing::info!(%addr, "the managers know the new address of this one");
                    return;
                }
                Ok(Err(status)) => {
                    tracing::debug!(%manager, error = status.message(), "not told of the new address");
                }
                Err(_) => tracing::debug!(%manager, "not told of the new address: no answer"),
            }
        }
    }

    /// Tells whether the session says that this manager is to be one, but under no number or another one's.
    fn seems_out_of_raft(&self, heard: &agent::View) -> bool {
        let own = self.record.lock().unwrap_or_else(PoisonError::into_inner).raft_id;
        // While the leader sends it entries it is in Raft, whatever is recorded: the leader will put that right.
        let in_raft = self.view.borrow().store.as_ref().is_some_and(store::Handle::is_current);
        !in_raft
            && heard.manager.is_some()
            && heard
                .node
                .as_ref()
                .is_some_and(|n| n.spec.role == Role::Manager && n.manager.map(|m| m.raft_id) != own)
    }

    /// Tells whether this node's certificate is of a root that another is to replace.
    fn has_an_old_root(&self) -> bool {
        let credentials = &self.start.credentials;
        let desired = pki::Authority::last_of(&credentials.root_pem()).ok();
        desired.is_some() && credentials.issuer() != desired
    }

    /// Notes what the session told of managers and root certificates, and whether there is one at all.
    fn learn(&self, heard: &agent::View) -> Result<()> {
        match &heard.error {
            Some(why) if heard.refused => self.refused(why),
            Some(_) => {}
            None => {
                self.view.send_if_modified(|view| !std::mem::take(&mut view.error).is_empty());
            }
        }
        if let Some(root) = &heard.root_ca
            && *root != self.start.credentials.root_pem()
        {
            self.start.credentials.replace_roots(root).context("cannot take over new root certificates")?;
        }
        let gate = self.start.connections.gate();
        if heard.incarnation < *gate.incarnation.borrow() {
            return Ok(()); // the swarm has begun anew since, with other managers
        }
        gate.hear(&heard.roster, &heard.removed);
        if heard.managers.is_empty() {
            return Ok(());
        }
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.managers != heard.managers {
            record.managers.clone_from(&heard.managers);
            if let Err(error) = self.start.folder.store(&record) {
                // They are told again; a full disk must not end what runs.
                tracing::warn!(error = format!("{error:#}"), "the addresses of the managers are not on disk");
            }
            self.known.send_replace(managers_of(&record, self.manager.is_some()));
            self.view.send_modify(|view| view.managers.clone_from(&heard.managers));
        }
        Ok(())
    }

    /// Follows the swarm where it has begun anew: keeps its managers in mind, and returns true when this manager's own
    /// state is of an earlier life. It lets go of its state then, and finds out what it is to be now.
    fn follow_incarnation(&self, role: Role) -> Result<bool> {
        let gate = self.start.connections.gate();
        let state = self.view.borrow().store.as_ref().map(store::Handle::view);
        let own = state.as_ref().and_then(|state| state.cluster.as_ref());
        let latest = gate.raise(own.and_then(|cluster| cluster.incarnation));
        let announced = gate.take_announced();
        let left_behind = role == Role::Manager && own.is_some_and(|cluster| cluster.incarnation < latest);
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.incarnation() == latest && announced.is_none() && !left_behind {
            return Ok(false);
        }
        record.set_incarnation(latest);
        if let Some(managers) = announced {
            tracing::info!(?managers, "the swarm has begun anew, with these managers");
            record.managers = managers;
            self.known.send_replace(managers_of(&record, self.manager.is_some()));
            self.view.send_modify(|view| view.managers.clone_from(&record.managers));
        }
        self.start.folder.store(&record)?;
        drop(record);
        if left_behind {
            tracing::warn!(
                "the swarm was recovered or restored without this manager: it lets go of its own state"
            );
            self.change_role(Role::Manager)?;
        }
        Ok(left_behind)
    }

    /// Follows the swarm's settings: how often a snapshot is made, and the lock of this manager's keys. Returns true
    /// if they had none before.
    fn follow_settings(&self) -> Result<bool> {
        let Some(dek) = &self.dek else { return Ok(false) };
        let Some(state) = self.view.borrow().store.as_ref().map(store::Handle::view) else {
            return Ok(false);
        };
        let Some(cluster) = &state.cluster else { return Ok(false) };
        let spec = &cluster.spec;
        self.view
            .borrow()
            .store
            .iter()
            .for_each(|s| s.set_snapshots(spec.snapshot_interval, spec.old_snapshots));
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if cluster.meta.version <= record.lock_version {
            return Ok(false);
        }
        let new = match &cluster.unlock_key {
            None => None,
            Some(key) => Some(std::str::from_utf8(&key.0)?.parse::<UnlockKey>()?),
        };
        let credentials = &self.start.credentials;
        let old = credentials.lock();
        if old == new {
            return Ok(false);
        }
        let locked = new.is_some();
        lock::change(&self.start.folder, credentials, dek, new)?;
        record.lock_version = cluster.meta.version;
        self.start.folder.store(&record)?;
        tracing::info!(locked, "the lock of this manager's keys changed");
        Ok(old.is_none() && locked)
    }

    /// Gets a new certificate and puts it into use; returns its role. A manager that leads gives itself one; others
    /// ask any manager, also with a certificate that has expired.
    async fn renew(&self, role: Role) -> Result<Role> {
        let mut last = anyhow::anyhow!("no manager is known");
        if let Some(manager) = &self.manager {
            let (key, csr_pem) = new_key()?;
            match timeout(CA_LIMIT, manager.renew(&csr_pem)).await {
                Ok(Ok(reply)) => return self.adopt(role, issued(&key, reply)?),
                Ok(Err(status)) => last = anyhow::Error::from(status).context("this manager"),
                Err(_) => {}
            }
        }
        let managers = {
            let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            managers_of(&record, self.manager.is_some())
        };
        let mut refusal = None;
        for addr in managers {
            let channel = self.start.connections.new_to_manager(addr);
            match issue(channel, "", model::Availability::Active).await {
                Ok(issued) => return self.adopt(role, issued),
                Err(status) => {
                    if status.code() == tonic::Code::PermissionDenied {
                        refusal = Some(status.message().to_owned());
                    }
                    last = anyhow::Error::from(status).context(format!("manager {addr}"));
                }
            }
        }
        if let Some(refusal) = refusal {
            self.refused(&refusal);
        }
        Err(last)
    }

    /// Puts a new certificate into use. Asked too early, it still has the old role.
    fn adopt(&self, role: Role, issued: Issued) -> Result<Role> {
        let credentials = &self.start.credentials;
        let had_expired = credentials.validity().1 <= clock();
        let (key, chain, root) = (&issued.key_pem, &issued.chain_pem, &issued.root_pem);
        if issued.role == role {
            credentials.replace(key, chain, root)?;
        } else {
            credentials.replace_and_lock(key, chain, root, issued.lock)?;
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            record.lock_version = issued.lock_version;
        }
        if had_expired {
            self.start.connections.renew();
        }
        self.view.send_if_modified(|view| !std::mem::take(&mut view.error).is_empty());
        Ok(issued.role)
    }

    /// Tells people, once, that the swarm knows this node no more.
    fn refused(&self, why: &str) {
        let text = format!(
            "the managers refuse this node: {why}; hint: `swarm leave --force` on this host, then `swarm join` with a \
             token that `swarm join-token` shows on a manager"
        );
        let news = self.view.send_if_modified(|view| {
            let news = view.error != text;
            view.error.clone_from(&text);
            news
        });
        if news {
            tracing::error!(error = text, "this node is no member of the swarm any more");
        }
    }

    /// Prepares the disk for the new role. A demoted manager's part in Raft is over for good.
    fn change_role(&self, new: Role) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.raft_id = None;
        record.raft_joined = false;
        if new == Role::Worker {
            let own = record.advertise_addr;
            record.managers.retain(|a| *a != own);
        }
        self.start.folder.store(&record)
    }
}

/// Tells whether a node in this role is to be certified for another one. A demoted manager is so only once it is out of
/// Raft.
fn role_changes(heard: &agent::View, role: Role) -> bool {
    heard.node.as_ref().is_some_and(|n| match n.spec.role {
        Role::Manager => role != Role::Manager,
        Role::Worker => role != Role::Worker && n.manager.is_none(),
    })
}

/// Waits until the replica of a manager has applied something.
async fn next_entry(applied: &mut Option<watch::Receiver<u64>>) {
    let stopped = match applied {
        Some(applied) => applied.changed().await.is_err(),
        None => true,
    };
    if stopped {
        std::future::pending().await
    }
}

/// Removes what a former manager kept of Raft, and the key of it.
fn discard_raft(folder: &Folder) -> Result<()> {
    let gone = |path: &std::path::Path, outcome: std::io::Result<()>| match outcome {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    };
    let (dir, key) = (folder.raft(), folder.raft_key());
    gone(&dir, std::fs::remove_dir_all(&dir))?;
    gone(&key, std::fs::remove_file(&key))
}

/// Connects to a manager known only by address and token, which pins its root certificate.
///
/// # Errors
/// Nobody answers there, or not whom the token promises.
pub(crate) async fn bootstrap_channel(
    addr: SocketAddr,
    token: &pki::JoinToken,
) -> Result<Channel, tonic::transport::Error> {
    endpoint(addr).connect_with_connector(pki::tls::bootstrap_connector(token.digest)).await
}
