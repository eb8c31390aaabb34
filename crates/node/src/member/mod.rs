//! This node as a running member of a swarm: its gRPC server, its agent, and on a manager its store and loops.
//!
//! ```text
//!  start -> serve Peer (+ manager routes + Raft)  -> agent
//!        -> renew: certificate at 50..80 % of its life, or at once when the role is to change
//!        -> ends with Outcome::Restart when the role changed: the caller starts it anew in the new role
//! ```
//!
//! Tasks (of tokio), all in one `JoinSet`: the gRPC server, the gate that closes connections, the agent, the manager, what
//! tells the front door of the swarm's events, the keeper of certificate, role and known managers. They end together.

mod certificate;
mod keeper;

pub(crate) use certificate::{Issued, bootstrap_channel, issue};

use crate::{
    clock::clock,
    connect::Connections,
    control::Hop,
    descriptors,
    managers::is_passing,
    peer::{FrontDoorCell, PeerService},
    port,
    record::{Folder, Record},
    swarm_events::{self, Told},
};
use agent::{Agent, Executor};
use anyhow::{Context, Result, bail};
use certificate::CA_LIMIT;
use keeper::Keeper;
use model::{ClusterId, NodeId, Role};
use pki::Credentials;
use proto::{
    ca::{JoinRaftRequest, membership_client::MembershipClient},
    node::peer_server::PeerServer,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
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

/// Between two tries of what failed for a passing reason.
const RETRY: Duration = Duration::from_secs(1);
/// How long the port of this node's last life may still be taken.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);
/// How long the others have to take a member out of Raft that they do not want.
const DISMISSAL: Duration = Duration::from_secs(15);
/// Between two tries to open a store that cannot be opened: it reads the whole log.
const REOPEN_MIN: Duration = Duration::from_secs(1);
const REOPEN_MAX: Duration = Duration::from_secs(30);
/// How long a manager that was taken in waits to read so itself.
const RECORDED: Duration = Duration::from_secs(5);

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
    /// Told of what happens in the swarm.
    pub(crate) engine: engine::Engine,
    pub(crate) told: Arc<Told>,
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
    /// Of a manager with its store.
    pub(crate) manager: Option<manager::Manager>,
    /// Why a manager runs without its store; else empty.
    pub(crate) lacks: String,
    /// Why the managers refuse this node, and what to do; else empty.
    pub(crate) error: String,
    /// What its agent hears of the managers.
    pub(crate) heard: watch::Receiver<agent::View>,
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
        start.folder.finish(&mut record)?;
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
        let to_manager: manager::Connect =
            Arc::new(move |addr, node, name| connections.in_name_of(addr, node, name));

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
                under_way: start.connections.under_way().clone(),
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
        let serving = cancel.clone();
        tasks.spawn(async move {
            port::serve(routes, listener, serving).await.context("the node-to-node server failed")?;
            Ok(Outcome::Cancelled)
        });
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

        if let Some(handle) = handle.clone() {
            let tell = swarm_events::tell(handle, identity.cluster, start.told.clone(), start.engine.clone());
            let cancel = cancel.clone();
            tasks.spawn(async move {
                cancel.run_until_cancelled(tell).await;
                // That the store has ended is for others to say.
                cancel.cancelled().await;
                Ok(Outcome::Cancelled)
            });
        }

        let view = watch::Sender::new(View {
            begun: Instant::now(),
            node: identity.node,
            cluster: identity.cluster,
            role: identity.role,
            addr: record.advertise_addr,
            managers: record.managers.clone(),
            store: handle.clone(),
            manager: own.clone(),
            lacks,
            error: String::new(),
            heard: heard.clone(),
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
    // Nothing is removed before the state says how much is to be kept.
    (options.old_snapshots, options.keep_entries) = (u64::MAX, u64::MAX);
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
