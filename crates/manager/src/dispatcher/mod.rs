//! Agents and what is heard of them: sessions, their liveness, and the way of reports to the leader.
//!
//! Any manager serves sessions from its own replica. What it hears goes to the leader, which alone writes:
//! heartbeats and acknowledgements in batches (`Alive`), statuses and descriptions as they come (`Observe`).

mod heard;
mod held;
mod session;
pub(crate) mod sessions;
pub(crate) mod term;
pub(crate) mod told;

use crate::{
    InNameOf, NEWS_BYTES_MAX,
    authorize::Method,
    clock::heartbeat_period,
    doubts::Marks,
    inbox::Observation,
    presence::{Alive, ClusterAcks, Subject},
    refusals::{no_leader, read_error},
    shared::Shared,
};
use model::{Duration, NodeId, TaskId, TaskStatus};
use proto::{
    Invalid, Problem, WireId as _,
    dispatcher::{
        AgentMessage, AliveNode, AliveReply, AliveRequest, ManagerMessage, NetworkAck, ObserveReply,
        ObserveRequest, ObservedNode, ObservedTask, TaskReport,
        dispatcher_server::{Dispatcher, DispatcherServer},
        liveness_client::LivenessClient,
        liveness_server::{Liveness, LivenessServer},
    },
};
use std::sync::Arc;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

/// How long news are gathered before they go to the leader.
const GATHER: Duration = Duration::from_millis(10);
/// How often a follower asks the leader while tasks wait for others' acknowledgements.
const DRAIN_POLL: Duration = Duration::from_millis(50);
const OUT_QUEUE: usize = 64;

pub(crate) fn service(shared: Arc<Shared>) -> DispatcherServer<DispatcherService> {
    DispatcherServer::new(DispatcherService(shared)).max_decoding_message_size(proto::AGENT_MESSAGE_BYTES_MAX)
}

pub(crate) fn liveness_service(shared: Arc<Shared>) -> LivenessServer<DispatcherService> {
    LivenessServer::new(DispatcherService(shared)).max_decoding_message_size(NEWS_BYTES_MAX)
}

pub(crate) struct DispatcherService(Arc<Shared>);

#[tonic::async_trait]
impl Dispatcher for DispatcherService {
    type SessionStream = ReceiverStream<Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = self.0.authorize(Method::Session, &request).await?;
        let node = caller.node()?;
        if self.0.cancel.is_cancelled() {
            return Err(Status::unavailable("this manager is stopping"));
        }
        if !self.0.store.is_current() {
            return Err(no_leader());
        }
        let (out, stream) = mpsc::channel(OUT_QUEUE);
        let serve = session::serve(self.0.clone(), node, caller.addr.ip(), request.into_inner(), out);
        self.0.sessions_tracker.spawn(serve);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Liveness for DispatcherService {
    async fn alive(&self, request: Request<AliveRequest>) -> Result<Response<AliveReply>, Status> {
        let reporter = self.0.authorize(Method::Alive, &request).await?.node()?;
        if !self.0.store.leader_now().me {
            return Err(no_leader());
        }
        let request = request.into_inner();
        let ahead_ms = self.0.ahead_ms(request.wall);
        let nodes = request.nodes.into_iter().map(alive_from_wire);
        let nodes =
            nodes.collect::<Result<Vec<_>, _>>().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let acks = self.0.record_alive(reporter, ahead_ms, nodes);
        let index = self.0.fresh().await?;
        let acks = acks.into_iter().map(|(subject, version)| ack_to_wire(subject, version)).collect();
        Ok(Response::new(AliveReply { acks, index }))
    }

    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<ObserveReply>, Status> {
        self.0.authorize(Method::Observe, &request).await?;
        if !self.0.store.leader_now().me {
            return Err(no_leader());
        }
        let observation = observation_from_wire(request.into_inner())
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.0.inbox.put(observation).await?;
        Ok(Response::new(ObserveReply {}))
    }
}

impl Shared {
    /// Takes what a manager hears (this one or another) into the leader's memory, and returns what all hold.
    /// `ahead_ms`: how far its even time is ahead of ours.
    fn record_alive(&self, reporter: NodeId, ahead_ms: i64, nodes: Vec<Alive>) -> ClusterAcks {
        let view = self.store.view();
        let now = Instant::now();
        let odd = {
            let mut doubts = self.doubts();
            doubts.heard(now, ahead_ms, &nodes);
            // Once a period is often enough.
            reporter == self.node && !doubts.news(now, &view).is_empty()
        };
        let (news, acks) = {
            let mut presence = self.presence();
            presence.reported_by(now, reporter, &nodes);
            let news = presence.record(now, heartbeat_period(&view), nodes);
            (news, presence.cluster_acks(&view))
        };
        self.learn_acks(acks.clone());
        if news || odd {
            self.presence_changed.notify_one();
        }
        acks
    }

    /// Returns how far somebody's clock is ahead of this manager's even time. *Unit:* milliseconds.
    fn ahead_ms(&self, wall: i64) -> i64 {
        wall.saturating_sub(self.even_time().0) / 1_000_000
    }

    fn learn_acks(&self, acks: ClusterAcks) {
        self.cluster_acks.send_if_modified(|known| {
            let changed = *known != acks;
            *known = acks;
            changed
        });
    }

    /// Tells the leader which nodes this manager hears; returns an index: a view that has it is fresh.
    async fn report_alive(&self) -> Result<u64, Status> {
        let (alive, heard) = self.sessions.alive();
        let was_taken_in = self.is_taken_in();
        let leadership = self.store.leader_now();
        if leadership.me {
            self.note_turned_away(false);
            self.record_alive(self.node, 0, alive);
            let index = self.fresh().await?;
            self.sessions.renew(&heard, heartbeat_period(&self.store.view()), index);
            return Ok(index);
        }
        let (raft_id, addr) = leadership.leader.ok_or_else(no_leader)?;
        let wall = self.even_time().0;
        let request = AliveRequest { nodes: alive.into_iter().map(alive_to_wire).collect(), wall };
        let mut client = LivenessClient::new(self.member(raft_id, addr, &InNameOf::Manager))
            .max_decoding_message_size(NEWS_BYTES_MAX);
        let reply = tokio::time::timeout(Duration::from_secs(5), client.alive(request))
            .await
            .map_err(|_| Status::deadline_exceeded("the leader does not answer"))?;
        let turned_away = reply.as_ref().is_err_and(|s| s.code() == tonic::Code::PermissionDenied);
        self.note_turned_away(turned_away && was_taken_in);
        let reply = reply?.into_inner();
        let acks = reply.acks.into_iter().map(ack_from_wire).collect::<Result<_, Invalid>>();
        self.learn_acks(acks.map_err(|e| Status::internal(e.to_string()))?);
        self.sessions.renew(&heard, heartbeat_period(&self.store.view()), reply.index);
        Ok(reply.index)
    }

    /// Waits until this manager's view has everything acknowledged before the call.
    ///
    /// # Errors
    /// UNAVAILABLE: no leader, or no majority.
    pub(crate) async fn catch_up(&self) -> Result<(), Status> {
        let index = self.report_alive().await?;
        self.store.wait_applied(index).await.map_err(read_error)
    }

    /// Hands what a session heard to the leader and returns once it is replicated.
    async fn observe(&self, observation: Observation) -> Result<(), Status> {
        let leadership = self.store.leader_now();
        if leadership.me {
            return self.inbox.put(observation).await;
        }
        let (raft_id, addr) = leadership.leader.ok_or_else(no_leader)?;
        let mut client = LivenessClient::new(self.member(raft_id, addr, &InNameOf::Manager));
        tokio::time::timeout(Duration::from_secs(15), client.observe(observation_to_wire(observation)))
            .await
            .map_err(|_| Status::deadline_exceeded("the leader does not answer"))??;
        Ok(())
    }
}

/// Tells the leader what this manager hears: each heartbeat period, and soon after something changed.
pub(crate) async fn reporter(shared: Arc<Shared>) {
    loop {
        if let Err(error) = shared.report_alive().await {
            debug!(%error, "cannot tell the leader which nodes are heard");
        }
        let period = heartbeat_period(&shared.store.view());
        let me = shared.store.leader_now().me;
        let pause = if !me && shared.sessions.any_draining() { DRAIN_POLL.min(period) } else { period };
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = shared.sessions.changed.notified() => tokio::time::sleep(GATHER).await,
        }
    }
}

/// Ends all sessions when this manager has not heard its leader for a lease, or is too far behind it: agents look for a
/// manager that knows what the others agree on.
pub(crate) async fn lease(shared: Arc<Shared>) {
    let period = shared.store.lease() / 8;
    loop {
        if !shared.store.is_current() && shared.sessions.keep(|_| false) > 0 {
            warn!("this manager has lost touch with the leader: its agents look for another one");
        }
        tokio::time::sleep(period).await;
    }
}

fn ack_to_wire(subject: Subject, version: u64) -> NetworkAck {
    NetworkAck { network: subject.map(proto::WireId::to_wire).unwrap_or_default(), version, gone: false }
}

fn subject_from_wire(network: &[u8]) -> Result<Subject, Invalid> {
    if network.is_empty() { Ok(None) } else { model::NetworkId::from_wire(network).map(Some) }
}

fn ack_from_wire(ack: NetworkAck) -> Result<(Subject, u64), Invalid> {
    Ok((subject_from_wire(&ack.network)?, ack.version))
}

fn alive_to_wire(alive: Alive) -> AliveNode {
    AliveNode {
        unreported: alive.acks.is_none(),
        node: alive.node.to_wire(),
        addr: alive.addr.map(|a| a.to_string()).unwrap_or_default(),
        acks: alive
            .acks
            .into_iter()
            .flatten()
            .map(|(subject, version)| ack_to_wire(subject, version))
            .collect(),
        silent_ms: u64::try_from(alive.silent.as_millis()).unwrap_or(u64::MAX),
        process: alive.marks.process,
        ahead_ms: alive.marks.ahead_ms,
    }
}

fn alive_from_wire(alive: AliveNode) -> Result<Alive, Invalid> {
    Ok(Alive {
        node: NodeId::from_wire(&alive.node)?,
        addr: alive.addr.parse().ok(),
        silent: Duration::from_millis(alive.silent_ms),
        marks: Marks { process: alive.process, ahead_ms: alive.ahead_ms },
        acks: match alive.unreported {
            true => None,
            false => Some(alive.acks.into_iter().map(ack_from_wire).collect::<Result<_, _>>()?),
        },
    })
}

pub(crate) fn report_from_wire(report: TaskReport) -> Result<(TaskId, TaskStatus), Invalid> {
    let status = report.status.ok_or_else(|| Problem::Missing.of("status"))?;
    Ok((TaskId::from_wire(&report.task)?, status.try_into()?))
}

fn observation_to_wire(observation: Observation) -> ObserveRequest {
    let nodes = observation.nodes.iter().map(|(node, description)| ObservedNode {
        node: node.to_wire(),
        description: Some(description.into()),
    });
    let tasks = observation.tasks.iter().map(|(node, task, status)| ObservedTask {
        node: node.to_wire(),
        report: Some(TaskReport { task: task.to_wire(), status: Some(status.into()) }),
    });
    ObserveRequest { nodes: nodes.collect(), tasks: tasks.collect() }
}

fn observation_from_wire(wire: ObserveRequest) -> Result<Observation, Invalid> {
    let nodes = wire.nodes.into_iter().map(|n| {
        let description = n.description.ok_or_else(|| Problem::Missing.of("description"))?;
        Ok((NodeId::from_wire(&n.node)?, description.try_into()?))
    });
    let tasks = wire.tasks.into_iter().map(|t| {
        let (task, status) = report_from_wire(t.report.ok_or_else(|| Problem::Missing.of("report"))?)?;
        Ok((NodeId::from_wire(&t.node)?, task, status))
    });
    Ok(Observation {
        nodes: nodes.collect::<Result<_, Invalid>>()?,
        tasks: tasks.collect::<Result<_, Invalid>>()?,
    })
}
