//! The agent loop: one session with one manager at a time, and what must survive its end.

mod assigned;
mod link;

use crate::{
    Held, LedgerError, NodeConfig, Options,
    backoff::{Backoff, random},
    ledger::Ledger,
    tables::{Accepted, Subject, Tables, Update},
    task::{Surroundings, TaskEvent},
};
use assigned::Assigned;
use futures::future::BoxFuture;
use link::{DESCRIBE_PERIOD, Dialled, Link, Session, SessionEnd, dial, incarnation_of, period_of};
use model::{
    Config, ConfigId, Duration, Incarnation, NetworkId, Node, NodeDescription, NodeId, Panicked, Secret,
    SecretBytes, SecretId, ServiceId, TaskId, TaskStatus, caught,
};
use prost::Message as _;
use proto::{
    Invalid, WireId as _,
    dispatcher::{
        Heartbeat, Hello, ManagerList, ManagerMessage, NetworkAck, StatusReport, TaskReport, Welcome,
        agent_message::Message as Up, manager_message::Message as Down,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, info, warn};

/// Between descriptions after news that change the node.
const DESCRIBE_SOON: Duration = Duration::from_millis(500);
const DESCRIPTIONS_SOON: u32 = 20;
/// Longest wait before another manager is tried: a new leader gives nodes six heartbeats to come back.
const REDIAL_MAX: Duration = Duration::from_secs(4);
/// How long statuses are collected before they are sent.
const REPORT_DELAY: Duration = Duration::from_millis(10);
/// A report that has this much is followed by another: managers take no more than
/// [`proto::AGENT_MESSAGE_BYTES_MAX`]. *Unit:* bytes.
const REPORT_BYTES: usize = proto::AGENT_MESSAGE_BYTES_MAX / 4;

/// What others may see of the agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// The number of this agent, drawn by lot: two with one certificate are told apart.
    pub process: u64,
    /// This node as the managers last described it: role, availability, labels.
    pub node: Option<Arc<Node>>,
    /// The manager of the session, while there is one.
    pub manager: Option<SocketAddr>,
    /// Every manager heard of in sessions.
    pub managers: Vec<SocketAddr>,
    /// The life of the swarm that they were said to be of.
    pub incarnation: Option<Incarnation>,
    /// The managers by name, as last told; empty until told.
    pub roster: BTreeSet<NodeId>,
    /// Nodes that were removed from the swarm, as last told.
    pub removed: BTreeSet<NodeId>,
    /// Why the last attempt to open a session failed; `None` while there is one.
    pub error: Option<String>,
    /// That failure was a manager's refusal of this node, not a passing trouble.
    pub refused: bool,
    /// Root certificates (PEM) the managers last sent.
    pub root_ca: Option<String>,
}

/// Keeps this node's tasks as assigned.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    view: watch::Sender<View>,
}

impl Agent {
    pub fn new(options: Options) -> Self {
        let process = random().max(1);
        Self { options, view: watch::Sender::new(View { process, ..View::default() }) }
    }

    /// Returns what the agent knows, as it changes.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Runs until cancelled; containers stay as they are then.
    ///
    /// # Errors
    /// The ledger cannot be opened: nothing was done. Or a part of the agent ended: it must be run anew, and goes on
    /// from the ledger.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), AgentError> {
        let dir = self.options.state_dir.clone();
        let (ledger, remembered) =
            tokio::task::spawn_blocking(move || Ledger::open(&dir)).await.expect("opening does not panic")?;
        let held = self.options.executor.list().await;

        let (event_sender, mut events) = mpsc::channel(1024);
        let (accepted_sender, mut accepted) = mpsc::channel(64);
        let (configured_sender, configured) = watch::channel(false);
        let (config_sender, config) = watch::channel(None);
        let (networks_sender, networks) = watch::channel(BTreeSet::new());
        let tables = Tables::default();
        let executor = self.options.executor.clone();
        let mut helpers = JoinSet::new();
        helpers.spawn(ledger.clone().run());
        helpers.spawn(configure(executor.clone(), config, configured_sender));
        helpers.spawn(tables.clone().run(executor, configured.clone(), networks_sender, accepted_sender));

        let around = Surroundings {
            executor: self.options.executor.clone(),
            clock: self.options.clock.clone(),
            configured,
            networks,
            events: event_sender,
        };
        let process = self.view.borrow().process;
        let mut agent = Loop {
            ledger: ledger.clone(),
            tables,
            around,
            view: self.view,
            config: config_sender,
            actors: JoinSet::new(),
            tasks: BTreeMap::new(),
            held: held.into_iter().map(|h| (h.task, h)).collect(),
            unacknowledged: BTreeMap::new(),
            acks: BTreeMap::new(),
            networks: remembered.networks,
            leaving: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            auths: BTreeMap::new(),
            report_sequence: 0,
            backoff: Backoff::new(Duration::from_millis(100), REDIAL_MAX),
            last_tried: None,
            describing: None,
            process,
            options: self.options,
        };
        if let Some(welcome) = &remembered.welcome {
            agent.welcome(welcome);
        }
        for task in remembered.tasks {
            let status = task.status.clone();
            agent.unacknowledged.insert(task.id, Unacknowledged { status, sent: None });
            agent.assign(Arc::new(task));
        }
        let ended = tokio::select! {
            // What happens here happens to every task: the agent begins anew.
            outcome = caught(agent.run(&cancel, &mut events, &mut accepted)) => outcome.map_err(|p| p.to_string()),
            ended = helpers.join_next() => Err(match ended {
                Some(Err(error)) => format!("a part of it {error}"),
                Some(Ok(())) | None => "a part of it ended by itself".to_owned(),
            }),
        };
        drop(agent);
        helpers.shutdown().await;
        tokio::task::spawn_blocking(move || ledger.flush()).await.expect("writing does not panic");
        ended.map_err(|why| AgentError::Ended { why })
    }
}

/// Why an agent has ended although nobody told it to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent's ledger cannot be used")]
    Ledger(#[from] LedgerError),
    #[error("the agent {why}")]
    Ended { why: String },
}

/// Makes the host a member, each time it is told who it is.
async fn configure(
    executor: Arc<dyn crate::Executor>,
    mut config: watch::Receiver<Option<NodeConfig>>,
    configured: watch::Sender<bool>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let wanted: Option<NodeConfig> = config.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            match executor.configure(wanted).await {
                Ok(()) => {
                    backoff.reset();
                    configured.send_replace(true);
                }
                Err(error) => {
                    warn!(%error, "cannot make this host a member, will retry");
                    tokio::time::sleep(backoff.delay()).await;
                    continue;
                }
            }
        }
        if config.changed().await.is_err() {
            return;
        }
    }
}

struct Unacknowledged {
    status: TaskStatus,
    /// The report of this session that carries it.
    sent: Option<u64>,
}

struct Loop {
    options: Options,
    ledger: Ledger,
    tables: Tables,
    around: Surroundings,
    view: watch::Sender<View>,
    config: watch::Sender<Option<NodeConfig>>,
    actors: JoinSet<Option<(TaskId, Panicked)>>,
    tasks: BTreeMap<TaskId, Assigned>,
    /// Containers found at the start that no assignment has claimed yet.
    held: BTreeMap<TaskId, Held>,
    unacknowledged: BTreeMap<TaskId, Unacknowledged>,
    /// What the kernel took and the managers have not been told.
    acks: BTreeMap<Subject, Accepted>,
    /// Networks whose tables the kernel may hold: from the moment a table comes until the network is dropped.
    networks: BTreeSet<NetworkId>,
    /// Those of them that are being dropped, with the index at which the managers said so.
    leaving: BTreeMap<NetworkId, u64>,
    secrets: BTreeMap<SecretId, Arc<Secret>>,
    configs: BTreeMap<ConfigId, Arc<Config>>,
    /// What registries are shown, by service.
    auths: BTreeMap<ServiceId, SecretBytes>,
    report_sequence: u64,
    backoff: Backoff,
    last_tried: Option<SocketAddr>,
    /// A look at this host that is under way.
    describing: Option<BoxFuture<'static, NodeDescription>>,
    /// Drawn by lot: two agents with one certificate are told apart.
    process: u64,
}

/// Everything the loop wakes for.
enum Event {
    Dialled(SocketAddr, Dialled),
    Message(Box<Result<Option<ManagerMessage>, Status>>),
    Task(TaskEvent),
    Accepted(Accepted),
    /// What this host is now.
    Described(Box<NodeDescription>),
    Timer,
}

impl Loop {
    async fn run(
        &mut self,
        cancel: &CancellationToken,
        events: &mut mpsc::Receiver<TaskEvent>,
        accepted: &mut mpsc::Receiver<Accepted>,
    ) {
        let mut link = self.dial(Duration::ZERO);
        let mut report_at: Option<Instant> = None;
        loop {
            let timer = match &link {
                Link::Dialling(_) => None,
                Link::Up(s) => Some(
                    report_at
                        .unwrap_or(s.heartbeat_at)
                        .min(s.heartbeat_at)
                        .min(s.silent_at())
                        .min(s.describe_at),
                ),
            };
            let event = tokio::select! {
                () = cancel.cancelled() => return,
                event = next(&mut link) => event,
                Some(event) = events.recv() => Event::Task(event),
                Some(event) = accepted.recv() => Event::Accepted(event),
                description = described(&mut self.describing) => Event::Described(Box::new(description)),
                Some(ended) = self.actors.join_next(), if !self.actors.is_empty() => {
                    if let Ok(Some((id, panicked))) = ended {
                        self.restart_actor(id, &panicked);
                    }
                    continue;
                }
                () = until(timer) => Event::Timer,
            };
            match event {
                Event::Dialled(addr, Ok(dialled)) => {
                    let (session, welcome) = *dialled;
                    info!(manager.addr = %addr, "session is open");
                    self.open(&session, &welcome);
                    link = Link::Up(Box::new(session));
                    report_at = Some(Instant::now());
                }
                Event::Dialled(addr, Err(error)) => {
                    let delay = self.backoff.delay();
                    self.view.send_modify(|view| {
                        view.error = Some(error.message().to_owned());
                        view.refused = error.code() == tonic::Code::PermissionDenied;
                    });
                    debug!(manager.addr = %addr, %error, ?delay, "cannot open a session, will retry");
                    link = self.dial(delay);
                }
                Event::Task(event) => {
                    self.on_task(event);
                    report_at.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
                }
                Event::Accepted(accepted) => {
                    self.on_accepted(accepted);
                    report_at.get_or_insert_with(|| Instant::now() + REPORT_DELAY);
                }
                Event::Message(_) | Event::Timer | Event::Described(_) => {
                    if matches!(event, Event::Described(_)) {
                        self.describing = None;
                    }
                    let Link::Up(session) = &mut link else { continue };
                    let outcome = match event {
                        Event::Described(description) => session.describe(*description),
                        Event::Message(message) => self.on_message(session, *message),
                        _ => self.on_timer(session, timer.unwrap_or_else(Instant::now), &mut report_at),
                    };
                    if let Err(error) = outcome {
                        warn!(manager.addr = %session.addr, %error, "session ended");
                        self.view.send_modify(|view| view.manager = None);
                        for waiting in self.unacknowledged.values_mut() {
                            waiting.sent = None;
                        }
                        let delay = self.backoff.delay();
                        link = self.dial(delay);
                    }
                }
            }
        }
    }

    /// Returns the attempt to open a session with some manager after `delay`.
    fn dial(&mut self, delay: Duration) -> Link {
        let known: BTreeSet<SocketAddr> = self
            .options
            .managers
            .borrow()
            .iter()
            .copied()
            .chain(self.view.borrow().managers.clone())
            .collect();
        let (connect, executor) = (self.options.connect.clone(), self.options.executor.clone());
        let (networks, process) = (self.networks.iter().map(|id| id.to_wire()).collect(), self.process);
        let hello = move |description: &NodeDescription| Hello {
            description: Some(description.into()),
            networks,
            process,
        };
        let latest = self.options.incarnation.clone();
        let mut seeds = self.options.managers.clone();
        let other: Vec<_> = known.iter().copied().filter(|a| Some(*a) != self.last_tried).collect();
        let choice = if other.is_empty() { known.into_iter().collect() } else { other };
        let index = usize::try_from(random()).unwrap_or(0).checked_rem(choice.len());
        let Some(addr) = index.and_then(|i| choice.get(i).copied()) else {
            // Nobody is known: wait to be told.
            return Link::Dialling(Box::pin(async move {
                let told = seeds.wait_for(|s| !s.is_empty()).await.map(|s| s.first().copied());
                match told {
                    Ok(Some(addr)) => {
                        (addr, dial(connect, addr, executor.describe().await, hello, &latest).await)
                    }
                    Ok(None) | Err(_) => std::future::pending().await,
                }
            }));
        };
        self.last_tried = Some(addr);
        Link::Dialling(Box::pin(async move {
            tokio::time::sleep(delay).await;
            (addr, dial(connect, addr, executor.describe().await, hello, &latest).await)
        }))
    }

    fn open(&mut self, session: &Session, welcome: &Welcome) {
        self.backoff.reset();
        self.last_tried = None;
        self.ledger.put_welcome(welcome);
        self.welcome(welcome);
        self.view.send_modify(|view| {
            view.manager = Some(session.addr);
            view.error = None;
            view.refused = false;
        });
    }

    fn welcome(&mut self, welcome: &Welcome) {
        let incarnation = incarnation_of(welcome);
        self.view
            .send_if_modified(|view| std::mem::replace(&mut view.incarnation, incarnation) != incarnation);
        self.options.incarnation.send_if_modified(|latest| {
            let later = incarnation > *latest;
            *latest = incarnation.max(*latest);
            later
        });
        if let Some(managers) = &welcome.managers {
            self.learn(managers);
        }
        match node_config(welcome) {
            Ok((node, config)) => {
                self.view.send_modify(|view| view.node = Some(Arc::new(node)));
                self.config.send_if_modified(|current| {
                    let changed = current.as_ref() != Some(&config);
                    *current = Some(config);
                    changed
                });
            }
            Err(error) => warn!(%error, "cannot read who this node is"),
        }
    }

    fn learn(&mut self, managers: &ManagerList) {
        let addrs: Vec<SocketAddr> = managers.addrs.iter().filter_map(|a| a.parse().ok()).collect();
        let ids = |wire: &mut dyn Iterator<Item = &Vec<u8>>| -> BTreeSet<NodeId> {
            wire.filter_map(|id| NodeId::from_wire(id).ok()).collect()
        };
        let roster = ids(&mut managers.managers.iter().map(|m| &m.node));
        let removed = ids(&mut managers.removed.iter());
        if !addrs.is_empty() {
            self.view.send_if_modified(|view| {
                let told = (&addrs, &roster, &removed);
                let changed = (&view.managers, &view.roster, &view.removed) != told;
                (view.managers, view.roster, view.removed) = (addrs, roster, removed);
                changed
            });
        }
    }

    fn on_task(&mut self, event: TaskEvent) {
        match event {
            TaskEvent::Observed(id, status) => {
                let Some(assigned) = self.tasks.get_mut(&id) else { return };
                Arc::make_mut(&mut assigned.task).status = status.clone();
                self.ledger.put_status(&assigned.task);
                self.unacknowledged.insert(id, Unacknowledged { status, sent: None });
            }
            TaskEvent::Gone(id) => {
                self.tasks.remove(&id);
                self.unacknowledged.remove(&id);
                self.ledger.remove_task(id);
            }
        }
    }

    /// Refuses a manager of an earlier life of the swarm than one that was heard of since.
    fn still_counts(&self, session: &Session) -> Result<(), SessionEnd> {
        let left_behind = session.incarnation < *self.options.incarnation.borrow();
        if left_behind { Err(SessionEnd::LeftBehind) } else { Ok(()) }
    }

    fn on_message(
        &mut self,
        session: &mut Session,
        message: Result<Option<ManagerMessage>, Status>,
    ) -> Result<(), SessionEnd> {
        let message = message.map_err(Box::new)?.ok_or(SessionEnd::Closed)?;
        self.still_counts(session)?;
        session.heard_at = Instant::now();
        match message.message {
            Some(Down::Assignments(assignments)) => self.on_assignments(session, assignments)?,
            Some(Down::StatusAck(ack)) => self.unacknowledged.retain(|_, u| u.sent != Some(ack.sequence)),
            Some(Down::NetworkTable(table)) => {
                let table: model::NetworkTable = table.try_into()?;
                session.networks.insert(table.network);
                self.leaving.remove(&table.network);
                if self.networks.insert(table.network) {
                    self.ledger.put_networks(&self.networks);
                }
                self.tables.push(Update::Table(Box::new(table)));
            }
            Some(Down::NetworkGone(network)) => {
                let network = NetworkId::from_wire(&network)?;
                session.networks.remove(&network);
                self.drop_network(network, message.gone_at);
            }
            Some(Down::Ingress(table)) => self.tables.push(Update::Ingress(Box::new(table.try_into()?))),
            Some(Down::Managers(managers)) => self.learn(&managers),
            Some(Down::Node(node)) => {
                let node: Node = node.try_into()?;
                self.view.send_modify(|view| view.node = Some(Arc::new(node)));
            }
            Some(Down::RootCa(pem)) => {
                self.view.send_modify(|view| view.root_ca = Some(pem));
                // A new certificate follows, of which the managers wait to be told.
                session.describe_soon = DESCRIPTIONS_SOON;
                session.describe_at = Instant::now() + DESCRIBE_SOON;
            }
            Some(Down::Welcome(welcome)) => {
                session.period = period_of(&welcome);
                session.incarnation = incarnation_of(&welcome);
                self.ledger.put_welcome(&welcome);
                self.welcome(&welcome);
            }
            Some(Down::Heartbeat(_)) => {
                if let Some(sent) = session.heartbeats.pop_front() {
                    session.answered_at = sent;
                }
            }
            None => {}
        }
        Ok(())
    }

    /// It is remembered until the kernel has dropped it.
    fn drop_network(&mut self, network: NetworkId, index: u64) {
        self.leaving.insert(network, index);
        self.tables.push(Update::Gone(network, index));
    }

    fn on_accepted(&mut self, accepted: Accepted) {
        if let Some(network) = accepted.subject.filter(|_| accepted.gone)
            && self.leaving.get(&network) == Some(&accepted.version)
        {
            self.leaving.remove(&network);
            self.networks.remove(&network);
            self.ledger.put_networks(&self.networks);
        }
        self.acks.insert(accepted.subject, accepted);
    }

    /// `due`: when this was to be.
    fn on_timer(
        &mut self,
        session: &mut Session,
        due: Instant,
        report_at: &mut Option<Instant>,
    ) -> Result<(), SessionEnd> {
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        if late > session.period / 4 {
            // It is this process that stood still: what the manager said meanwhile waits to be read.
            session.heard_at = (session.heard_at + late).min(now);
        }
        if now >= session.silent_at() {
            return Err(SessionEnd::Silent);
        }
        self.still_counts(session)?;
        if now >= session.heartbeat_at {
            session.heartbeat_at = now + session.period;
            session.heartbeats.push_back(now);
            session.send(Up::Heartbeat(Heartbeat { wall: (self.options.clock)().0 }))?;
        }
        if now >= session.describe_at {
            session.describe_at = match session.describe_soon.checked_sub(1) {
                Some(left) => {
                    session.describe_soon = left;
                    now + DESCRIBE_SOON
                }
                None => now + DESCRIBE_PERIOD,
            };
            // A busy host takes its time to look at itself; heartbeats do not wait for that.
            if self.describing.is_none() {
                let executor = self.options.executor.clone();
                self.describing = Some(Box::pin(async move { executor.describe().await }));
            }
        }
        if report_at.is_some_and(|at| now >= at) {
            *report_at = None;
            self.report(session)?;
        }
        Ok(())
    }

    /// Sends what the managers do not know yet.
    fn report(&mut self, session: &Session) -> Result<(), SessionEnd> {
        for (subject, Accepted { version, gone, .. }) in std::mem::take(&mut self.acks) {
            let network = subject.map(proto::WireId::to_wire).unwrap_or_default();
            session.send(Up::NetworkAck(NetworkAck { network, version, gone }))?;
        }
        let fresh: Vec<_> = self.unacknowledged.iter_mut().filter(|(_, u)| u.sent.is_none()).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        self.report_sequence += 1;
        let mut sequence = self.report_sequence;
        let (mut tasks, mut bytes) = (Vec::with_capacity(fresh.len()), 0);
        for (id, waiting) in fresh {
            let report = TaskReport { task: id.to_wire(), status: Some((&waiting.status).into()) };
            let length = report.encoded_len();
            if bytes + length > REPORT_BYTES && !tasks.is_empty() {
                session.send(Up::Statuses(StatusReport { sequence, tasks: std::mem::take(&mut tasks) }))?;
                sequence += 1;
                bytes = 0;
            }
            bytes += length;
            waiting.sent = Some(sequence);
            tasks.push(report);
        }
        self.report_sequence = sequence;
        session.send(Up::Statuses(StatusReport { sequence, tasks }))
    }
}

async fn next(link: &mut Link) -> Event {
    match link {
        Link::Dialling(attempt) => {
            let (addr, outcome) = attempt.await;
            Event::Dialled(addr, outcome)
        }
        Link::Up(session) => Event::Message(Box::new(session.down.message().await)),
    }
}

async fn described(describing: &mut Option<BoxFuture<'static, NodeDescription>>) -> NodeDescription {
    match describing {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

async fn until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn node_config(welcome: &Welcome) -> Result<(Node, NodeConfig), Invalid> {
    let missing = |field: &str| proto::Problem::Missing.of(field);
    let node: Node = welcome.node.clone().ok_or_else(|| missing("node"))?.try_into()?;
    let narrow =
        |field: &str, v: u32| u16::try_from(v).map_err(|_| proto::Problem::OutOfRange(v.into()).of(field));
    let net = |field: &str, text: &str| {
        text.parse().map_err(|_| proto::Problem::NotAnAddress(text.to_owned()).of(field))
    };
    let config = NodeConfig {
        id: node.id,
        index: narrow("index", welcome.index)?,
        data_port: narrow("data_path_port", welcome.data_path_port)?,
        mesh_subnet: net("mesh_subnet", &welcome.mesh_subnet)?,
        task_pool: net("task_pool", &welcome.task_pool)?,
    };
    Ok((node, config))
}
