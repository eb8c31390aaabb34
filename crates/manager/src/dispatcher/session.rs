//! One agent's session: tells it what is new for its node, and hears what it says.
//! What there is to tell is decided by [`Told`].

use super::{
    heard::{Heard, judge},
    told::{Told, told_now},
};
use crate::{
    leader::may_describe,
    published::Published,
    refusals::no_leader,
    shared::Shared,
    standing::{Known, Standing},
};
use futures::future::BoxFuture;
use model::{Duration, NetworkId, NodeDescription, NodeId, caught};
use proto::{
    WireId as _,
    dispatcher::{
        AgentMessage, Heartbeat, ManagerMessage, StatusAck, agent_message::Message as Up,
        manager_message::Message as Down,
    },
};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, error, info};

const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// An agent that takes nothing for this long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(10);
const SILENT_PERIODS: u32 = 4;
const RETRY: Duration = Duration::from_millis(200);
/// How often it is tried to tell what a node may not be told yet ([`super::term`]).
const HELD_BACK: Duration = Duration::from_millis(50);
/// Nodes of this feature level say which networks they hold, and when they have dropped one.
const TELLS_GONE_LEVEL: u32 = 2;
/// *Limit* of networks that a node can say it holds: more than there are identifiers for on one host's links.
const NETWORKS_MAX: usize = 65_536;

/// Serves one session to its end.
pub(super) async fn serve(
    shared: Arc<Shared>,
    node: NodeId,
    addr: IpAddr,
    incoming: Streaming<AgentMessage>,
    out: mpsc::Sender<Result<ManagerMessage, Status>>,
) {
    let (id, end) = shared.sessions.begin(node, addr, &shared.cancel);
    let served = Session::open(shared.clone(), node, id, incoming, out.clone(), end.clone());
    let outcome = tokio::select! {
        // Also while it waits for the agent to take something.
        () = end.cancelled() => Err(why_ended(&shared, node)),
        outcome = caught(served) => outcome.unwrap_or_else(|panicked| {
            error!(node.id = %node, %panicked, "a session's task panicked; its agent opens another one");
            Err(Status::internal("the manager's side of the session failed"))
        }),
    };
    shared.sessions.end(node, id);
    match outcome {
        Ok(()) => debug!(node.id = %node, "session closed by its agent"),
        Err(status) => {
            info!(node.id = %node, error = %status, "session ended");
            if out.try_send(Err(status)).is_err() {
                debug!(node.id = %node, "the agent is gone already");
            }
        }
    }
}

fn why_ended(shared: &Shared, node: NodeId) -> Status {
    if !shared.store.is_current() {
        return no_leader();
    }
    match Known::State(&shared.store.view()).standing(node) {
        Standing::Removed | Standing::Left => {
            Status::permission_denied("this node was removed from the swarm")
        }
        Standing::Unknown | Standing::Worker | Standing::Manager | Standing::Member => {
            Status::aborted("the node has a newer session, or this manager is stopping or is one no more")
        }
    }
}

type Reported = (Vec<u64>, Result<(), Status>);

struct Session {
    shared: Arc<Shared>,
    node: NodeId,
    id: u64,
    out: mpsc::Sender<Result<ManagerMessage, Status>>,
    told: Told,
    /// What it said and the leader has not yet heard.
    pending: Heard,
    reporting: Option<BoxFuture<'static, Reported>>,
    heard_at: Instant,
    /// How long this process had stood still by then.
    stalled_before: Duration,
    /// When to try again to tell what it may not be told yet.
    held_back: Option<Instant>,
}

impl Session {
    async fn open(
        shared: Arc<Shared>,
        node: NodeId,
        id: u64,
        mut incoming: Streaming<AgentMessage>,
        out: mpsc::Sender<Result<ManagerMessage, Status>>,
        end: CancellationToken,
    ) -> Result<(), Status> {
        let hello = tokio::time::timeout(HELLO_LIMIT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let Some(Up::Hello(hello)) = hello.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("a session begins with a hello"));
        };
        let description =
            hello.description.ok_or_else(|| Status::invalid_argument("a hello has a description"))?;
        let description: NodeDescription = description.try_into().map_err(invalid)?;
        shared.sessions.is_of(node, id, hello.process);
        let networks = hello.networks.iter().map(|id| NetworkId::from_wire(id));
        let networks = networks.collect::<Result<BTreeSet<_>, _>>().map_err(invalid)?;
        if networks.len() > NETWORKS_MAX {
            return Err(Status::invalid_argument(format!("a node holds at most {NETWORKS_MAX} networks")));
        }
        judge(&description)?;
        let told = Told::new(node, networks, description.feature_level >= TELLS_GONE_LEVEL);
        may_describe(&shared.store.view(), node, &description)?;
        // A task that this replica has not heard of yet must not be taken for removed.
        shared.catch_up().await?;
        let index = shared.store.view().index;
        let mut published = shared.published.subscribe();
        let first = published.wait_for(|p| p.view.index >= index).await.map(|p| p.clone());
        let first = first.map_err(|_| Status::unavailable("this manager is stopping"))?;
        let stalled_before = shared.stalls.total();
        let mut pending = Heard::default();
        pending.description(node, description)?;
        let mut session = Self {
            shared,
            node,
            id,
            out,
            told,
            pending,
            reporting: None,
            heard_at: Instant::now(),
            stalled_before,
            held_back: None,
        };
        session.publish(&first).await?;
        info!(node.id = %node, "session is open");
        session.run(&mut incoming, &mut published, &end).await
    }

    async fn run(
        &mut self,
        incoming: &mut Streaming<AgentMessage>,
        published: &mut tokio::sync::watch::Receiver<Arc<Published>>,
        end: &CancellationToken,
    ) -> Result<(), Status> {
        let mut acks = self.shared.cluster_acks.subscribe();
        let mut check_at = Instant::now() + self.told.period();
        loop {
            self.report();
            let again = self.told.drained_at().into_iter().chain(self.held_back).min();
            tokio::select! {
                () = end.cancelled() => {
                    return Err(why_ended(&self.shared, self.node));
                }
                message = incoming.message(), if !self.pending.is_full() => {
                    let Some(message) = message? else { return Ok(()) };
                    self.heard(message).await?;
                }
                reported = wait(&mut self.reporting) => self.reported(reported).await?,
                changed = published.changed() => {
                    changed.map_err(|_| Status::unavailable("this manager is stopping"))?;
                    let new = published.borrow_and_update().clone();
                    self.publish(&new).await?;
                }
                changed = acks.changed(), if self.told.is_draining() => {
                    changed.map_err(|_| Status::unavailable("this manager is stopping"))?;
                    let now = published.borrow().clone();
                    self.publish(&now).await?;
                }
                () = tokio::time::sleep_until(again.map_or(check_at, |again| again.min(check_at))) => {
                    check_at = Instant::now() + self.told.period();
                    self.check_time()?;
                    if self.told.is_draining() || self.held_back.is_some() {
                        let now = published.borrow().clone();
                        self.publish(&now).await?;
                    }
                }
            }
        }
    }

    fn check_time(&mut self) -> Result<(), Status> {
        let stalled = self.shared.stalls.total().saturating_sub(self.stalled_before);
        if self.heard_at.elapsed().saturating_sub(stalled) > self.told.period() * SILENT_PERIODS {
            return Err(Status::deadline_exceeded("the agent is silent"));
        }
        Ok(())
    }

    async fn send(&mut self, message: ManagerMessage) -> Result<(), Status> {
        match tokio::time::timeout(SEND_LIMIT, self.out.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the agent is gone")),
            Err(_) => Err(Status::deadline_exceeded("the agent takes no messages")),
        }
    }

    async fn heard(&mut self, message: AgentMessage) -> Result<(), Status> {
        self.heard_at = Instant::now();
        self.stalled_before = self.shared.stalls.total();
        self.shared.sessions.heard(self.node, self.id);
        match message.message {
            Some(Up::Heartbeat(Heartbeat { wall })) => {
                if wall != 0 {
                    self.shared.sessions.compared(self.node, self.id, self.shared.ahead_ms(wall));
                }
                self.send(told_now(Down::Heartbeat(Heartbeat::default()))).await?;
            }
            Some(Up::Statuses(report)) => self.pending.statuses(self.node, report)?,
            Some(Up::NetworkAck(ack)) => {
                self.told.hear(&ack).map_err(invalid)?;
                self.tell_what_it_holds();
            }
            Some(Up::Description(description)) => {
                self.pending.description(self.node, description.try_into().map_err(invalid)?)?;
            }
            Some(Up::Hello(_)) => return Err(Status::invalid_argument("a session has one hello")),
            None => {}
        }
        Ok(())
    }

    /// Sends what is pending to the leader, one report at a time.
    fn report(&mut self) {
        if self.reporting.is_some() || self.pending.is_empty() {
            return;
        }
        let (sequences, observation) = self.pending.take();
        let shared = self.shared.clone();
        self.reporting = Some(Box::pin(async move {
            loop {
                let outcome = shared.observe(observation.clone()).await;
                match outcome {
                    Err(status) if is_passing(&status) => {
                        debug!(error = %status, "cannot report to the leader, will retry");
                        tokio::time::sleep(RETRY).await;
                    }
                    outcome => return (sequences, outcome),
                }
            }
        }));
    }

    async fn reported(&mut self, (sequences, outcome): Reported) -> Result<(), Status> {
        self.reporting = None;
        outcome?;
        for sequence in sequences {
            self.send(told_now(Down::StatusAck(StatusAck { sequence }))).await?;
        }
        Ok(())
    }

    /// Sends what is new for this node.
    async fn publish(&mut self, published: &Published) -> Result<(), Status> {
        self.held_back = None;
        if !self.shared.sessions.may_tell(self.node, self.id, published.view.index) {
            self.held_back = Some(Instant::now() + HELD_BACK);
            return Ok(());
        }
        let acks = self.shared.cluster_acks.borrow().clone();
        let news = self.told.publish(Instant::now(), self.shared.stalls.total(), published, &acks)?;
        self.shared.late_drains.fetch_add(self.told.take_late(), Relaxed);
        for message in news {
            self.send(message).await?;
        }
        self.tell_what_it_holds();
        Ok(())
    }

    /// Records up to which index the node's kernel agrees with the state.
    fn tell_what_it_holds(&self) {
        self.shared.sessions.holds(self.node, self.id, self.told.acks(), self.told.is_draining());
    }
}

async fn wait(reporting: &mut Option<BoxFuture<'static, Reported>>) -> Reported {
    match reporting {
        Some(report) => report.await,
        None => std::future::pending().await,
    }
}

fn is_passing(status: &Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Aborted
    )
}

fn invalid(error: proto::Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}
