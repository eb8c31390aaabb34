//! What nodes need beside their sessions: places on networks for containers started by hand, images, and leaving.
//!
//! Whatever a node asks for is its own: the node is the one that its certificate names, never one that it chooses.

use crate::{
    WORK_BYTES_MAX,
    authorize::{Method, on_behalf_of},
    control::{find, is_of, may_demote, removed_node, validate_attachment},
    forward::{InNameOf, Leader},
    refusals::{membership_error, no_leader},
    shared::Shared,
    standing::{Known, Standing},
};
use model::{
    Change, Duration, NetworkDriver, Node, NodeId, NodeState, Object, Placement, Role, Slot, Tables, Task,
    TaskId,
};
use proto::{
    WireId as _,
    dispatcher::{
        AttachReply, AttachRequest, AttachmentReply, AttachmentRequest, DepartReply, DepartRequest,
        FindNetworkReply, FindNetworkRequest, ImageSource, ImageSourcesReply, ImageSourcesRequest,
        LeaveReply, LeaveRequest, MayFetchReply, MayFetchRequest, NetworksReply, NetworksRequest,
        work_client::WorkClient,
        work_server::{Work, WorkServer},
    },
    types::ObjectKind,
};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::info;

/// How long a leaving manager waits for a majority of those that stay.
const QUORUM_LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn service(shared: Arc<Shared>) -> WorkServer<WorkService> {
    WorkServer::new(WorkService(shared)).max_decoding_message_size(WORK_BYTES_MAX)
}

pub(crate) struct WorkService(Arc<Shared>);

/// Continues with the calling node and message of a request if this manager leads; else returns the leader's answer.
macro_rules! on_the_leader {
    ($self:ident, $request:ident, $method:ident, $rpc:ident) => {{
        let caller = $self.0.authorize(Method::$method, &$request).await?;
        let message = $request.into_inner();
        if let Leader::At(channel) = $self.0.leader(Method::$method, &caller)? {
            let mut leader = WorkClient::new(channel);
            return $self.0.answer(leader.$rpc(on_behalf_of(&caller, message))).await;
        }
        $self.0.fresh().await?;
        (caller, message)
    }};
}

#[tonic::async_trait]
impl Work for WorkService {
    async fn find_network(
        &self,
        request: Request<FindNetworkRequest>,
    ) -> Result<Response<FindNetworkReply>, Status> {
        let (_, request) = on_the_leader!(self, request, FindNetwork, find_network);
        let view = self.0.store.view();
        let wanted = &request.id_or_name;
        let unknown = || Status::not_found(format!("network {wanted} not found"));
        let Object::Network(network) = find(&view, ObjectKind::Network, wanted)? else {
            return Err(unknown());
        };
        if network.spec.driver != NetworkDriver::Overlay || network.pending_delete {
            return Err(unknown());
        }
        let name = network.spec.name.clone();
        if !network.spec.attachable {
            return Err(Status::permission_denied(format!("network {name} not manually attachable")));
        }
        Ok(Response::new(FindNetworkReply { id: network.id.to_wire(), name }))
    }

    async fn networks(&self, request: Request<NetworksRequest>) -> Result<Response<NetworksReply>, Status> {
        // From any replica, as the node's session has them.
        let node = self.0.authorize(Method::Networks, &request).await?.node()?;
        let view = self.0.store.view();
        let on = crate::presence::subjects_of(&view, node);
        let networks = on.into_iter().flatten().filter_map(|id| view.networks.get(&id));
        Ok(Response::new(NetworksReply { networks: networks.map(|n| (&**n).into()).collect() }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, Attach, attach);
        let node = caller.node()?;
        let id = TaskId::from_wire(&request.task).map_err(invalid)?;
        let networks = request.networks.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>, _>>();
        let task = Task::attachment(id, &request.container, &request.name, node, networks.map_err(invalid)?);
        self.0
            .decide(0, |view| {
                if let Some(there) = view.tasks.get(&id) {
                    // Asked again, or a number that is taken.
                    let same = is_attachment_of(there, node);
                    return if same { Ok(((), Vec::new())) } else { Err(taken(id)) };
                }
                if view.services.contains(&task.service) {
                    return Err(taken(id)); // it would pass for one of that service's tasks
                }
                validate_attachment(view, &task)?;
                Ok(((), vec![Change::Put(Object::Task(Arc::new(task.clone())))]))
            })
            .await?;
        info!(task.id = %id, node.id = %node, container = request.container, "attachment asked for");
        Ok(Response::new(AttachReply {}))
    }

    async fn attachment(
        &self,
        request: Request<AttachmentRequest>,
    ) -> Result<Response<AttachmentReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, Attachment, attachment);
        let (node, id) = (caller.node()?, TaskId::from_wire(&request.task).map_err(invalid)?);
        let view = self.0.store.view();
        let task = view.tasks.get(&id).filter(|t| is_attachment_of(t, node));
        let task = task.ok_or_else(|| Status::not_found(format!("task {id} not found")))?;
        let reason = match &task.placement {
            Placement::Pending { reason } => reason.clone(),
            _ => String::new(),
        };
        Ok(Response::new(AttachmentReply { reason }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let (caller, message) = on_the_leader!(self, request, Leave, leave);
        let id = caller.node()?;
        for raft_id in self.retire(id).await? {
            match self.take_out_of_raft(raft_id).await {
                Ok(()) => {}
                // It was this one: leadership is handed over, and the successor goes on.
                Err(store::MembershipError::NotLeader { leader: Some((raft_id, addr)) })
                    if !caller.forwarded && self.is_to_be_manager() =>
                {
                    let way = InNameOf::caller(Method::Leave, &caller);
                    let mut leader = WorkClient::new(self.0.member(raft_id, addr, &way));
                    return leader.leave(on_behalf_of(&caller, message)).await;
                }
                Err(error) => return Err(membership_error(&error)),
            }
        }
        if message.undone && self.forget(id).await? {
            info!(node.id = %id, "a node whose join failed is forgotten");
            return Ok(Response::new(LeaveReply {}));
        }
        self.mark_left(id).await?;
        info!(node.id = %id, "node left");
        Ok(Response::new(LeaveReply {}))
    }

    async fn depart(&self, request: Request<DepartRequest>) -> Result<Response<DepartReply>, Status> {
        let (caller, request) = on_the_leader!(self, request, Depart, depart);
        let id = caller.node()?;
        self.0.presence().departs(id, request.process);
        let news = self.0.decide(0, |view| {
            let known = view.nodes.get(&id).filter(|node| match node.status.state {
                NodeState::Unknown | NodeState::Ready | NodeState::Away => true,
                NodeState::Down | NodeState::Disconnected => false,
            });
            let Some(node) = known else { return Ok((false, Vec::new())) };
            let mut node = Node::clone(node);
            node.status.state = NodeState::Down;
            node.status.since = self.0.stamp();
            "its host goes down".clone_into(&mut node.status.message);
            Ok((true, vec![Change::Put(Object::Node(Arc::new(node)))]))
        });
        if news.await?.1 {
            info!(node.id = %id, "a node's host goes down");
        }
        Ok(Response::new(DepartReply {}))
    }

    async fn image_sources(
        &self,
        request: Request<ImageSourcesRequest>,
    ) -> Result<Response<ImageSourcesReply>, Status> {
        // Answered by any manager from its own replica, as the session is that gave the node its task.
        let caller = self.0.authorize(Method::ImageSources, &request).await?;
        let (node, image) = (caller.node()?, request.into_inner().image);
        if !self.needs(node, &image).await {
            return Err(Status::permission_denied(format!("no task of this node is made from {image}")));
        }
        let view = self.0.store.view();
        let others = view.nodes.values().filter(|n| n.id != node && n.status.state == NodeState::Ready);
        let sources = others.filter_map(|n| {
            let addr = n.description.as_ref()?.addr.to_string();
            Some(ImageSource { node: n.id.to_wire(), addr })
        });
        Ok(Response::new(ImageSourcesReply { sources: sources.collect() }))
    }

    async fn may_fetch(&self, request: Request<MayFetchRequest>) -> Result<Response<MayFetchReply>, Status> {
        self.0.authorize(Method::MayFetch, &request).await?;
        let request = request.into_inner();
        let node = NodeId::from_wire(&request.node).map_err(invalid)?;
        let may = self.needs(node, &request.image).await;
        Ok(Response::new(MayFetchReply { may }))
    }
}

impl WorkService {
    /// Returns true if a node may have an image. One that seems not to may only be ahead of this replica.
    async fn needs(&self, node: NodeId, image: &str) -> bool {
        may_have(&self.0.store.view(), node, image)
            || (self.0.catch_up().await.is_ok() && may_have(&self.0.store.view(), node, image))
    }

    /// Tells whether others take this node's word for what it forwards.
    fn is_to_be_manager(&self) -> bool {
        self.0.store.view().nodes.get(&self.0.node).is_some_and(|n| n.spec.role == Role::Manager)
    }

    /// Demotes a node that is about to leave, so that nobody counts on it any more, and returns its numbers in Raft. This
    /// manager itself is only judged: it hands leadership over as a manager, and its successor demotes it.
    ///
    /// # Errors
    /// FAILED_PRECONDITION: those that stay would be no majority, or none of them is to be a manager; nothing was
    /// changed then.
    async fn retire(&self, id: NodeId) -> Result<Vec<u64>, Status> {
        let decide = |view: &Tables| {
            let Some(node) = view.nodes.get(&id) else { return Ok((Vec::new(), Vec::new())) };
            let members = self.0.store.members();
            let own: Vec<u64> = members.iter().filter(|m| is_of(m, node)).map(|m| m.raft_id).collect();
            if node.spec.role == Role::Worker {
                return Ok((own, Vec::new()));
            }
            may_demote(view, &members, node)?;
            let me = self.0.store.raft_id();
            if own.contains(&me) {
                return Ok((vec![me], Vec::new()));
            }
            let mut demoted = Node::clone(node);
            demoted.spec.role = Role::Worker;
            Ok((own, vec![Change::Put(Object::Node(Arc::new(demoted)))]))
        };
        let view = self.0.store.view();
        let stays = |n: &Node| n.id != id && n.spec.role == Role::Manager;
        if view.nodes.get(&id).is_some_and(|n| n.spec.role == Role::Manager)
            && !view.nodes.values().any(|n| stays(n))
        {
            // Whoever leaves nevertheless takes the swarm with it.
            return Err(Status::failed_precondition("this is the last manager of the swarm"));
        }
        let give_up = Instant::now() + QUORUM_LIMIT;
        loop {
            match self.0.decide(0, decide).await {
                // A leader that is new does not know for a moment which of the others answer.
                Err(status)
                    if status.code() == tonic::Code::FailedPrecondition && Instant::now() < give_up =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                outcome => return outcome.map(|(_, own)| own),
            }
        }
    }

    /// Removes a Raft member. A leader that is new does not know for a moment which of the others answer.
    async fn take_out_of_raft(&self, raft_id: u64) -> Result<(), store::MembershipError> {
        let give_up = Instant::now() + QUORUM_LIMIT;
        loop {
            match self.0.remove_member(raft_id).await {
                Err(store::MembershipError::Quorum(_) | store::MembershipError::NoSuccessor)
                    if Instant::now() < give_up =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Removes a node that never became one. Returns false if it has tasks, whatever it says of itself: what they hold is
    /// theirs until they are gone.
    async fn forget(&self, id: NodeId) -> Result<bool, Status> {
        let now = self.0.stamp();
        let decide = |view: &Tables| {
            if view.tasks_of_node(id).next().is_some() {
                return Ok((false, Vec::new()));
            }
            let gone = view.nodes.get(&id).map(|node| removed_node(view, node, now));
            Ok((true, gone.unwrap_or_default()))
        };
        self.0.decide(0, decide).await.map(|(_, forgotten)| forgotten)
    }

    /// Records that a node left by itself.
    async fn mark_left(&self, id: NodeId) -> Result<(), Status> {
        for _ in 0..10 {
            let view = self.0.store.view();
            let Some(node) = view.nodes.get(&id) else { return Ok(()) };
            let mut node = Node::clone(node);
            node.manager = None;
            node.spec.role = Role::Worker;
            node.certified_role = Role::Worker;
            if node.status.state != NodeState::Disconnected {
                node.status.since = self.0.stamp();
            }
            node.status.state = NodeState::Disconnected;
            "node left the swarm".clone_into(&mut node.status.message);
            match self.0.change(vec![Change::Put(Object::Node(Arc::new(node)))]).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == tonic::Code::Aborted => {}
                Err(status) => return Err(status),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(no_leader())
    }
}

fn is_attachment_of(task: &Task, node: NodeId) -> bool {
    task.attaches.is_some() && task.slot == Slot::Node(node)
}

fn taken(id: TaskId) -> Status {
    Status::already_exists(format!("the number {id} is taken"))
}

fn invalid(error: proto::Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Returns true if an image may be given to a node: it is a manager, or has a task made from it that is not over.
fn may_have(tables: &Tables, node: NodeId, image: &str) -> bool {
    match Known::State(tables).standing(node) {
        Standing::Member => true,
        Standing::Worker | Standing::Manager => tables
            .tasks_of_node(node)
            .any(|t| t.may_hold_resources() && t.attaches.is_none() && t.spec.container.image == image),
        Standing::Removed | Standing::Left | Standing::Unknown => false,
    }
}
