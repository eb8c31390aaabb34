//! One session with one manager, from its dialling to its end: what is open, and why it is over.

use crate::Connect;
use futures::future::BoxFuture;
use model::{Duration, Incarnation, NetworkId, NodeDescription};
use proto::{
    Invalid,
    dispatcher::{
        AgentMessage, Hello, ManagerMessage, Welcome, agent_message::Message as Up,
        dispatcher_client::DispatcherClient, manager_message::Message as Down,
    },
};
use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

const DIAL_LIMIT: Duration = Duration::from_secs(10);
pub(super) const DESCRIBE_PERIOD: Duration = Duration::from_secs(20);
/// A manager silent for this many heartbeat periods is left.
pub(super) const MISSED_PERIODS: u32 = 3;
/// Largest message taken: assignments carry secrets and configs.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A session that has been welcomed.
pub(super) struct Session {
    pub(super) addr: SocketAddr,
    pub(super) up: mpsc::Sender<AgentMessage>,
    pub(super) down: Streaming<ManagerMessage>,
    pub(super) period: Duration,
    pub(super) heard_at: Instant,
    /// When the last heartbeat was sent that the manager has answered: it had heard this node by then.
    pub(super) answered_at: Instant,
    /// When those were sent that it has not.
    pub(super) heartbeats: VecDeque<Instant>,
    pub(super) heartbeat_at: Instant,
    pub(super) describe_at: Instant,
    /// Descriptions that follow each other quickly: the node is about to change.
    pub(super) describe_soon: u32,
    pub(super) description: NodeDescription,
    /// The life of the swarm that the manager is of.
    pub(super) incarnation: Option<Incarnation>,
    /// Sequence of the last assignments.
    pub(super) assignments: Option<u64>,
    /// Networks this session sent a table of.
    pub(super) networks: BTreeSet<NetworkId>,
}

/// A session with the welcome it began with.
pub(super) type Dialled = Result<Box<(Session, Welcome)>, Status>;

pub(super) enum Link {
    Dialling(BoxFuture<'static, (SocketAddr, Dialled)>),
    Up(Box<Session>),
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error("the manager closed it")]
    Closed,
    #[error("the manager refused: {0}")]
    Refused(#[from] Box<Status>),
    #[error("the manager is silent")]
    Silent,
    #[error("assignments are missing between {have:?} and {got}")]
    Gap { have: Option<u64>, got: u64 },
    #[error("what it assigns came so late that this node may have been given up before")]
    Late,
    #[error("the manager sent what this version does not understand")]
    Invalid(#[from] Invalid),
    #[error("the manager does not take messages")]
    Stuck,
    #[error("{LEFT_BEHIND}")]
    LeftBehind,
}

/// What is wrong with a manager of an earlier life of the swarm.
const LEFT_BEHIND: &str =
    "the manager is of a swarm that was recovered without it since: it is not listened to";

impl Session {
    /// A manager that says nothing is left.
    pub(super) fn silent_at(&self) -> Instant {
        self.heard_at + self.period * MISSED_PERIODS
    }

    /// Says what this host is, if that is news.
    pub(super) fn describe(&mut self, description: NodeDescription) -> Result<(), SessionEnd> {
        if description != self.description {
            self.send(Up::Description((&description).into()))?;
            self.description = description;
        }
        Ok(())
    }

    /// Queues a message; a full queue means that nothing gets through any more.
    pub(super) fn send(&self, message: Up) -> Result<(), SessionEnd> {
        self.up.try_send(AgentMessage { message: Some(message) }).map_err(|_| SessionEnd::Stuck)
    }
}

/// Opens a session and waits for its welcome.
pub(super) async fn dial(
    connect: Connect,
    addr: SocketAddr,
    description: NodeDescription,
    hello: impl FnOnce(&NodeDescription) -> Hello,
    latest: &watch::Sender<Option<Incarnation>>,
) -> Dialled {
    let attempt = async {
        let (up, messages) = mpsc::channel(256);
        up.try_send(AgentMessage { message: Some(Up::Hello(hello(&description))) })
            .expect("the queue is empty");
        let mut client = DispatcherClient::new(connect(addr)).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut down = client.session(ReceiverStream::new(messages)).await?.into_inner();
        let first = down.message().await?.and_then(|m| m.message);
        let Some(Down::Welcome(welcome)) = first else {
            return Err(Status::failed_precondition("the manager did not begin with a welcome"));
        };
        let incarnation = incarnation_of(&welcome);
        if incarnation < *latest.borrow() {
            return Err(Status::failed_precondition(LEFT_BEHIND));
        }
        let now = Instant::now();
        let period = period_of(&welcome);
        let session = Session {
            addr,
            up,
            down,
            period,
            heard_at: now,
            answered_at: now,
            heartbeats: VecDeque::new(),
            heartbeat_at: now + period,
            describe_at: now + DESCRIBE_PERIOD,
            describe_soon: 0,
            description,
            incarnation,
            assignments: None,
            networks: BTreeSet::new(),
        };
        Ok(Box::new((session, welcome)))
    };
    tokio::time::timeout(DIAL_LIMIT, attempt)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the manager does not answer")))
}

pub(super) fn period_of(welcome: &Welcome) -> Duration {
    Duration::from_millis(welcome.heartbeat_period_ms.max(10))
}

pub(super) fn incarnation_of(welcome: &Welcome) -> Option<Incarnation> {
    welcome.incarnation.map(|i| Incarnation { number: i.number, tag: i.tag })
}
