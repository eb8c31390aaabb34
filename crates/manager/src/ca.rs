//! Identity: who becomes a node, and which certificate it holds. The only place that makes nodes.
//!
//! A new node is one with a join token; the token's kind is its role. A known node renews with the certificate it
//! has, and gets the role that the swarm wants of it, but a demoted manager only after it has left Raft.

use crate::{
    JOIN_BYTES_MAX,
    authorize::{Method, on_behalf_of},
    forward::Leader,
    level,
    notes::{self, Kind, Note},
    random::random_id,
    refusals::{membership_error, no_leader},
    shared::Shared,
};
use ipnet::Ipv4Net;
use model::{
    Availability, Batch, Change, Cluster, ClusterId, ClusterSpec, ManagerStatus, Meta, NetworkId, Node,
    NodeId, NodeSpec, NodeState, NodeStatus, Object, Role, RootRotation, SecretBytes, Tables, Timestamp,
};
use pki::{CaError, JoinToken, NodeKey, RootCa, UnlockKey, role_name};
use proto::{
    WireId as _,
    ca::{
        GetRootCaReply, GetRootCaRequest, IssueCertificateReply, IssueCertificateRequest, JoinRaftReply,
        JoinRaftRequest, Member, NoteReply, NoteRequest, SurvivingReply, SurvivingRequest, VouchReply,
        VouchRequest,
        ca_client::CaClient,
        ca_server::{Ca, CaServer},
        membership_client::MembershipClient,
        membership_server::{Membership, MembershipServer},
    },
    types,
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tonic::{Request, Response, Status};
use tracing::info;

const ATTEMPTS: usize = 10;
/// Of nodes: see [`Node::index`].
const INDEXES: RangeInclusive<u16> = 1..=65534;

/// What the first manager of a swarm decides.
#[derive(Debug, Clone)]
pub struct Init {
    pub spec: ClusterSpec,
    /// Of the first node.
    pub availability: Availability,
    /// Random, as every member's.
    pub raft_id: u64,
    /// Where other nodes reach this one.
    pub addr: SocketAddr,
    /// Pools that overlay subnets are cut from.
    pub address_pools: Vec<Ipv4Net>,
    pub subnet_prefix: u8,
    pub data_path_port: u16,
    pub mesh_subnet: Ipv4Net,
    pub task_pool: Ipv4Net,
}

impl Init {
    /// Returns Docker's defaults, those of [`Cluster::new`].
    pub fn new(raft_id: u64, addr: SocketAddr) -> Self {
        let Cluster { spec, address_pools, subnet_prefix, data_path_port, mesh_subnet, task_pool, .. } =
            Cluster::new(ClusterId(0));
        Self {
            spec,
            availability: Availability::Active,
            raft_id,
            addr,
            address_pools,
            subnet_prefix,
            data_path_port,
            mesh_subnet,
            task_pool,
        }
    }
}

/// A new swarm: what to store, and the credentials of its first node.
#[derive(Debug)]
pub struct Bootstrap {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// To be proposed first of all: the cluster object, the first node and the network `ingress`.
    pub batch: Batch,
    /// PEM.
    pub key: SecretBytes,
    /// PEM, leaf first.
    pub chain: String,
    /// PEM.
    pub root: String,
    /// While autolock is on.
    pub unlock_key: Option<SecretBytes>,
}

/// Why a swarm cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("the system has no randomness")]
    Random(#[source] getrandom::Error),
    #[error("cannot make the swarm's certificates")]
    Ca(#[from] CaError),
}

/// Makes a new swarm with its root certificate, tokens and first manager.
///
/// # Errors
/// No randomness; nothing was made.
pub fn bootstrap(init: Init, now: Timestamp) -> Result<Bootstrap, BootstrapError> {
    let random = || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map(|()| u128::from_be_bytes(bytes)).map_err(BootstrapError::Random)
    };
    let (cluster_id, node_id) = (ClusterId(random()?), NodeId(random()?));
    let root = RootCa::generate(cluster_id)?;
    let key = NodeKey::generate()?;
    let chain =
        root.sign_csr(&key.csr_pem()?, node_id, Role::Manager, cluster_id, init.spec.node_cert_expiry)?;
    let token = || {
        let token = JoinToken::generate(root.digest()).map_err(BootstrapError::Random)?;
        Ok::<_, BootstrapError>(SecretBytes(token.to_string().into_bytes()))
    };
    let unlock_key =
        if init.spec.autolock { Some(new_unlock_key().map_err(BootstrapError::Random)?) } else { None };
    let cluster = Cluster {
        spec: init.spec,
        root_ca_cert: root.cert_pem().to_owned(),
        root_ca_key: SecretBytes(root.key_pem().into_bytes()),
        worker_token: token()?,
        manager_token: token()?,
        unlock_key: unlock_key.clone(),
        address_pools: init.address_pools,
        subnet_prefix: init.subnet_prefix,
        data_path_port: init.data_path_port,
        mesh_subnet: init.mesh_subnet,
        task_pool: init.task_pool,
        ..Cluster::new(cluster_id)
    };
    let ingress = crate::ingress::usual(NetworkId(random()?), &cluster);
    let mut node = new_node(node_id, 1, Role::Manager, init.availability);
    node.manager = Some(ManagerStatus { raft_id: init.raft_id, addr: init.addr, seen: None });
    let objects = [
        Object::Cluster(Arc::new(cluster)),
        Object::Node(Arc::new(node)),
        Object::Network(Arc::new(ingress)),
    ];
    Ok(Bootstrap {
        cluster: cluster_id,
        node: node_id,
        batch: Batch { at: now, changes: objects.into_iter().map(Change::Put).collect() },
        key: SecretBytes(key.pem().into_bytes()),
        chain,
        root: root.cert_pem().to_owned(),
        unlock_key,
    })
}

/// Returns a fresh unlock key.
///
/// # Errors
/// No randomness.
pub(crate) fn new_unlock_key() -> Result<SecretBytes, getrandom::Error> {
    Ok(SecretBytes(UnlockKey::generate()?.to_string().into_bytes()))
}

/// Returns a fresh join token for the swarm with this root.
///
/// # Errors
/// INTERNAL: the root is unreadable or there is no randomness.
pub(crate) fn new_token(root_pem: &str) -> Result<SecretBytes, Status> {
    let digest = RootCa::digest_of(root_pem).map_err(|e| Status::internal(e.to_string()))?;
    let token = JoinToken::generate(digest).map_err(|e| Status::internal(e.to_string()))?;
    Ok(SecretBytes(token.to_string().into_bytes()))
}

pub(crate) fn new_node(id: NodeId, index: u16, role: Role, availability: Availability) -> Node {
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec { role, availability, ..NodeSpec::default() },
        index,
        certified_role: role,
        description: None,
        status: NodeStatus::default(),
        manager: None,
    }
}

/// Returns the role a join token stands for; `None`: it is no token of this swarm.
fn role_of_token(cluster: &Cluster, text: &str) -> Option<Role> {
    let given: JoinToken = text.parse().ok()?;
    let is = |stored: &SecretBytes| {
        let stored = std::str::from_utf8(&stored.0).ok().and_then(|t| t.parse::<JoinToken>().ok());
        stored.is_some_and(|stored| stored.matches(given.secret()))
    };
    // Both are always compared, so that the time taken tells nothing.
    let (worker, manager) = (is(&cluster.worker_token), is(&cluster.manager_token));
    if manager { Some(Role::Manager) } else { worker.then_some(Role::Worker) }
}

/// Returns the role a node's next certificate carries. `members`: of Raft, as the leader sees it. One that takes part in
/// it goes on until it is out, also where its join was not recorded: as a worker it would be a silent voter.
fn role_to_certify(node: &Node, members: &[store::Member]) -> Role {
    let in_raft = node.manager.is_some() || members.iter().any(|m| m.node == Some(node.id));
    if in_raft { Role::Manager } else { node.spec.role }
}

/// Returns an index that no node has; as long as there is one, one that no removed node had either: its host may still
/// run, and answer with the addresses that follow from its index. Then the one that was freed first.
pub(crate) fn free_index(tables: &Tables) -> Option<u16> {
    let is_free = |index: &u16| *index != 0 && tables.owner_of_index(*index).is_none();
    let removed = tables.cluster.as_ref().map_or(&[][..], |cluster| &cluster.removed);
    let resting: BTreeSet<u16> = removed.iter().map(|r| r.index).collect();
    let unused = INDEXES.filter(|index| !resting.contains(index)).find(is_free);
    unused.or_else(|| removed.iter().map(|r| r.index).find(is_free))
}

pub(crate) fn service(shared: Arc<Shared>) -> CaServer<CaService> {
    CaServer::new(CaService(shared)).max_decoding_message_size(JOIN_BYTES_MAX)
}

pub(crate) fn membership_service(shared: Arc<Shared>) -> MembershipServer<CaService> {
    MembershipServer::new(CaService(shared)).max_decoding_message_size(JOIN_BYTES_MAX)
}

pub(crate) struct CaService(Arc<Shared>);

#[tonic::async_trait]
impl Ca for CaService {
    async fn get_root_ca(
        &self,
        request: Request<GetRootCaRequest>,
    ) -> Result<Response<GetRootCaReply>, Status> {
        self.0.authorize(Method::GetRootCa, &request).await?;
        let view = self.0.store.view();
        let cluster = view.cluster.as_ref().ok_or_else(|| Status::unavailable("the swarm is not ready"))?;
        Ok(Response::new(GetRootCaReply { pem: cluster.trusted_roots() }))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateReply>, Status> {
        let caller = self.0.authorize(Method::IssueCertificate, &request).await?;
        let request = request.into_inner();
        if let Leader::At(channel) = self.0.leader(Method::IssueCertificate, &caller)? {
            let mut leader = CaClient::new(channel);
            return self.0.answer(leader.issue_certificate(on_behalf_of(&caller, request))).await;
        }
        self.0.fresh().await?;
        let node = if request.token.is_empty() {
            let node = self.renewing_node(caller.node()?).await?;
            self.0.tell(renewal(&node, caller.addr.ip().to_string())).await;
            node
        } else {
            self.joining_node(&request, caller.addr).await?
        };
        let view = self.0.store.view();
        let cluster = view.cluster.as_ref().ok_or_else(|| Status::unavailable("the swarm is not ready"))?;
        let reply = sign(cluster, &node, &request.csr_pem)?;
        info!(node.id = %node.id, role = ?node.certified_role, "certificate issued");
        Ok(Response::new(reply))
    }
}

/// Renews the certificate of this manager's own node: it needs no connection, which an expired certificate would not
/// get either.
///
/// # Errors
/// UNAVAILABLE when this manager does not lead; PERMISSION_DENIED when its node was removed.
pub(crate) async fn renew_own(shared: Arc<Shared>, csr_pem: &str) -> Result<IssueCertificateReply, Status> {
    if !shared.store.leader_now().me {
        return Err(no_leader());
    }
    shared.fresh().await?;
    let node = CaService(shared.clone()).renewing_node(shared.node).await?;
    shared.tell(renewal(&node, "this manager".to_owned())).await;
    let view = shared.store.view();
    let cluster = view.cluster.as_ref().ok_or_else(|| Status::unavailable("the swarm is not ready"))?;
    sign(cluster, &node, csr_pem)
}

/// Says that a node got another certificate, and for which role.
fn renewal(node: &Node, from: String) -> Note {
    let name = node.display_name();
    Note {
        kind: Kind::Renewal,
        person: format!("node {name}"),
        from,
        via: Some(node.id),
        action: "renew certificate".to_owned(),
        object: format!("node {name}"),
        message: role_name(node.certified_role).to_owned(),
    }
}

/// Says who asked to become a node.
fn of_a_joiner(from: SocketAddr, action: &str, object: String, message: String) -> Note {
    Note {
        kind: Kind::Refusal,
        person: "join token".to_owned(),
        from: from.ip().to_string(),
        via: None,
        action: action.to_owned(),
        object,
        message,
    }
}

/// Returns the root that signs now: while the root changes it is the new one already.
pub(crate) fn signing_root(cluster: &Cluster) -> Result<RootCa, Status> {
    let root = |cert: &str, key: &SecretBytes| {
        let key = std::str::from_utf8(&key.0).map_err(|_| Status::internal("the root key is unreadable"))?;
        RootCa::from_pem(cert, key).map_err(|e| Status::internal(e.to_string()))
    };
    match &cluster.rotation {
        None => root(&cluster.root_ca_cert, &cluster.root_ca_key),
        Some(new) => Ok(root(&new.cert, &new.key)?.with_cross_signed(&new.cross_signed)),
    }
}

/// Returns the change to another root: the given one (PEM), or a new one if there is none.
///
/// # Errors
/// INVALID_ARGUMENT: what is given can be no root, or is the one there is.
pub(crate) fn new_rotation(cluster: &Cluster, cert: &str, key: &[u8]) -> Result<RootRotation, Status> {
    let internal = |e: CaError| Status::internal(e.to_string());
    let invalid = |e: &dyn std::error::Error| Status::invalid_argument(model::with_causes(e));
    let old_key = std::str::from_utf8(&cluster.root_ca_key.0).map_err(|e| invalid(&e))?;
    let old = RootCa::from_pem(&cluster.root_ca_cert, old_key).map_err(internal)?;
    let new = if cert.is_empty() {
        RootCa::generate(cluster.id).map_err(internal)?
    } else {
        let key = std::str::from_utf8(key).map_err(|e| invalid(&e))?;
        RootCa::given(cert, key).map_err(|e| invalid(&e))?
    };
    if new.digest() == old.digest() {
        return Err(Status::invalid_argument("this is the root certificate that the swarm has"));
    }
    Ok(RootRotation {
        cert: new.cert_pem().to_owned(),
        key: SecretBytes(new.key_pem().into_bytes()),
        cross_signed: old.cross_sign(&new).map_err(internal)?,
    })
}

fn sign(cluster: &Cluster, node: &Node, csr_pem: &str) -> Result<IssueCertificateReply, Status> {
    let root = signing_root(cluster)?;
    let certificate_pem = root
        .sign_csr(csr_pem, node.id, node.certified_role, cluster.id, cluster.spec.node_cert_expiry)
        .map_err(|e| Status::invalid_argument(e.to_string()))?;
    Ok(IssueCertificateReply {
        node_id: node.id.to_wire(),
        cluster_id: cluster.id.to_wire(),
        role: types::Role::from(node.certified_role) as i32,
        certificate_pem,
        root_pem: cluster.trusted_roots(),
        unlock_key: match node.certified_role {
            Role::Manager => cluster.unlock_key.as_ref().map(|key| key.0.clone()),
            Role::Worker => None,
        },
        swarm_version: cluster.meta.version,
    })
}

impl CaService {
    /// Makes the node object of a joiner with a good token.
    async fn joining_node(
        &self,
        request: &IssueCertificateRequest,
        from: SocketAddr,
    ) -> Result<Node, Status> {
        let availability = match types::Availability::try_from(request.availability) {
            Ok(types::Availability::Unspecified) => Availability::Active,
            Ok(known) => {
                known.try_into().map_err(|e: proto::Invalid| Status::invalid_argument(e.to_string()))?
            }
            Err(_) => return Err(Status::invalid_argument("unknown availability")),
        };
        for _ in 0..ATTEMPTS {
            let view = self.0.store.view();
            let cluster =
                view.cluster.as_ref().ok_or_else(|| Status::unavailable("the swarm is not ready"))?;
            let Some(role) = role_of_token(cluster, &request.token) else {
                let reason = "A valid join token is necessary to join this cluster";
                self.0.tell(of_a_joiner(from, "join refused", "swarm".to_owned(), reason.to_owned())).await;
                return Err(Status::invalid_argument(reason));
            };
            let index = free_index(&view)
                .ok_or_else(|| Status::resource_exhausted("the swarm has no room for a node"))?;
            let node = new_node(NodeId(random_id()?), index, role, availability);
            // In one step: no node is there that the history does not tell of.
            let message = role_name(role).to_owned();
            let note = of_a_joiner(from, "join", format!("node {}", node.id), message);
            let record = notes::record(note, (self.0.clock)())?;
            let changes = vec![Object::Node(Arc::new(node.clone())), Object::Audit(Arc::new(record))];
            match self.0.change(changes.into_iter().map(Change::Put).collect()).await {
                Ok(_) => return Ok(node),
                Err(status) if status.code() == tonic::Code::Aborted => {} // another joiner took the index
                Err(status) => return Err(status),
            }
        }
        Err(Status::unavailable("too many nodes are joining at once, try again"))
    }

    /// Returns a known node with the role its next certificate carries.
    async fn renewing_node(&self, id: NodeId) -> Result<Node, Status> {
        for _ in 0..ATTEMPTS {
            let view = self.0.store.view();
            let stored = view
                .nodes
                .get(&id)
                .ok_or_else(|| Status::permission_denied("this node was removed from the swarm"))?;
            let certified_role = role_to_certify(stored, &self.0.store.members());
            let node = Node { certified_role, ..(**stored).clone() };
            if node == **stored {
                return Ok(node);
            }
            match self.0.change(vec![Change::Put(Object::Node(Arc::new(node.clone())))]).await {
                Ok(_) => return Ok(node),
                Err(status) if status.code() == tonic::Code::Aborted => {} // its status changed meanwhile
                Err(status) => return Err(status),
            }
        }
        Err(Status::unavailable("the node changes all the time, try again"))
    }

    /// Records that a node is a Raft member.
    async fn record_member(&self, id: NodeId, manager: ManagerStatus) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let view = self.0.store.view();
            let stored = view
                .nodes
                .get(&id)
                .ok_or_else(|| Status::permission_denied("this node was removed from the swarm"))?;
            if stored.manager == Some(manager) {
                return Ok(());
            }
            let node = Node { manager: Some(manager), ..(**stored).clone() };
            match self.0.change(vec![Change::Put(Object::Node(Arc::new(node)))]).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == tonic::Code::Aborted => {}
                Err(status) => return Err(status),
            }
        }
        Err(Status::unavailable("the node changes all the time, try again"))
    }
}

#[tonic::async_trait]
impl Membership for CaService {
    async fn note(&self, request: Request<NoteRequest>) -> Result<Response<NoteReply>, Status> {
        self.0.authorize(Method::Note, &request).await?;
        self.0.note_of_another(request.into_inner()).await?;
        Ok(Response::new(NoteReply {}))
    }

    async fn join_raft(&self, request: Request<JoinRaftRequest>) -> Result<Response<JoinRaftReply>, Status> {
        let caller = self.0.authorize(Method::JoinRaft, &request).await?;
        let request = request.into_inner();
        if let Leader::At(channel) = self.0.leader(Method::JoinRaft, &caller)? {
            let mut leader = MembershipClient::new(channel);
            return self.0.answer(leader.join_raft(on_behalf_of(&caller, request))).await;
        }
        self.0.fresh().await?;
        let id = caller.node()?;
        let addr: SocketAddr =
            request.addr.parse().map_err(|_| Status::invalid_argument("the address is not IP:PORT"))?;
        if addr.ip().is_unspecified() || request.raft_id == 0 {
            return Err(Status::invalid_argument(
                "a manager needs a raft id and an address others can reach",
            ));
        }
        let view = self.0.store.view();
        let node = view
            .nodes
            .get(&id)
            .ok_or_else(|| Status::permission_denied("this node was removed from the swarm"))?;
        if node.spec.role != Role::Manager {
            return Err(Status::permission_denied("this node is to be a worker"));
        }
        let is_up = |n: &Node| matches!(n.status.state, NodeState::Ready | NodeState::Unknown);
        let mut others = view.nodes.values().filter(|n| n.id != id && is_up(n));
        if let Some(other) = others.find(|n| n.manager.is_some_and(|m| m.addr == addr)) {
            return Err(Status::already_exists(format!(
                "address {addr} is that of manager {}, which is up",
                other.display_name()
            )));
        }
        level::may_join(&view, request.feature_level)?;
        if let Some(old) = node.manager.filter(|m| m.raft_id != request.raft_id) {
            // It lost its state and begins anew: the old member will never answer again.
            self.0.remove_member(old.raft_id).await.map_err(|e| membership_error(&e))?;
        }
        let joining = Joining::begin(&self.0, request.raft_id);
        self.0.add_member(request.raft_id, id, addr).await.map_err(|e| membership_error(&e))?;
        self.record_member(id, ManagerStatus { raft_id: request.raft_id, addr, seen: None }).await?;
        drop(joining);
        info!(node.id = %id, raft.id = request.raft_id, "manager joined");
        let members = self.0.store.members().into_iter();
        let members = members.map(|m| Member { raft_id: m.raft_id, addr: m.addr.to_string() }).collect();
        Ok(Response::new(JoinRaftReply { members }))
    }

    async fn vouch(&self, request: Request<VouchRequest>) -> Result<Response<VouchReply>, Status> {
        self.0.authorize(Method::Vouch, &request).await?;
        let VouchRequest { node, raft_id } = request.into_inner();
        let node = NodeId::from_wire(&node).map_err(|e| Status::invalid_argument(e.to_string()))?;
        // It may have been taken in a moment ago, by a leader that this one has yet to hear from.
        let is_member = || self.0.store.member_node(raft_id) == Some(node);
        let member = is_member() || (self.0.catch_up().await.is_ok() && is_member());
        Ok(Response::new(VouchReply { member }))
    }

    async fn surviving(
        &self,
        request: Request<SurvivingRequest>,
    ) -> Result<Response<SurvivingReply>, Status> {
        self.0.authorize(Method::Surviving, &request).await?;
        let incarnation = self.0.store.view().cluster.as_ref().and_then(|cluster| cluster.incarnation);
        Ok(Response::new(SurvivingReply {
            recovering: self.0.recovering.load(Relaxed),
            in_touch: self.0.store.is_current(),
            incarnation: incarnation.as_ref().map(Into::into),
        }))
    }
}

/// Marks a Raft member as no stray while it is being added, also if the caller goes away.
struct Joining<'a> {
    shared: &'a Shared,
    raft_id: u64,
}

impl<'a> Joining<'a> {
    fn begin(shared: &'a Shared, raft_id: u64) -> Self {
        shared.joining().insert(raft_id);
        Self { shared, raft_id }
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.shared.joining().remove(&self.raft_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swarm() -> (Bootstrap, Tables) {
        let made = bootstrap(Init::new(7, "192.0.2.1:2377".parse().unwrap()), Timestamp(1)).unwrap();
        let mut tables = Tables::default();
        tables.apply(1, &made.batch).unwrap();
        (made, tables)
    }

    #[test]
    fn a_new_swarm_has_one_manager_whose_certificate_its_root_signed() {
        let (made, tables) = swarm();
        let node = tables.nodes.get(&made.node).unwrap();
        assert_eq!((node.index, node.spec.role, node.manager.unwrap().raft_id), (1, Role::Manager, 7));
        let key = String::from_utf8(made.key.0).unwrap();
        let credentials = pki::Credentials::in_memory(&key, &made.chain, &made.root).unwrap();
        let identity = credentials.identity();
        assert_eq!(
            (identity.node, identity.role, identity.cluster),
            (made.node, Role::Manager, made.cluster)
        );
    }

    #[test]
    fn a_token_gives_its_role_and_a_strange_one_none() {
        let (_, tables) = swarm();
        let cluster = tables.cluster.as_ref().unwrap();
        let text = |t: &SecretBytes| String::from_utf8(t.0.clone()).unwrap();
        assert_eq!(role_of_token(cluster, &text(&cluster.worker_token)), Some(Role::Worker));
        assert_eq!(role_of_token(cluster, &text(&cluster.manager_token)), Some(Role::Manager));
        let strange = new_token(&cluster.root_ca_cert).unwrap();
        assert_eq!(role_of_token(cluster, &text(&strange)), None);
        assert_eq!(role_of_token(cluster, ""), None);
    }

    #[test]
    fn the_index_of_a_removed_node_rests_until_all_others_are_used() {
        use crate::tests::state::state;
        let removed = state().cluster().node(2).node(4).revoke(3).revoke(1).tables();
        assert_eq!(free_index(&removed), Some(5), "1 and 3 were somebody's, 2 and 4 are");

        let mut full = Cluster::clone(removed.cluster.as_ref().unwrap());
        full.removed = INDEXES.filter(|i| *i > 4).map(|i| removed_node(i.into(), i)).collect();
        full.removed.insert(0, removed_node(70_000, 0)); // of an earlier release
        full.removed.insert(9, removed_node(70_001, 3));
        full.removed.push(removed_node(70_002, 1));
        let full = state().node(5).put(Object::Cluster(Arc::new(Cluster { meta: Meta::default(), ..full })));
        assert_eq!(free_index(&full.tables()), Some(2), "nobody had it");

        let mut rest = Cluster::clone(removed.cluster.as_ref().unwrap());
        rest.meta = Meta::default();
        rest.removed = INDEXES.rev().map(|i| removed_node(i.into(), i)).collect();
        let all = state().node(1).put(Object::Cluster(Arc::new(rest.clone())));
        assert_eq!(free_index(&all.tables()), Some(65534), "the one that was freed first");
        rest.removed.rotate_right(1);
        assert_eq!(free_index(&state().node(1).put(Object::Cluster(Arc::new(rest))).tables()), Some(65534));
    }

    fn removed_node(node: u128, index: u16) -> model::RemovedNode {
        model::RemovedNode { node: NodeId(node), until: Timestamp(9), index }
    }

    #[test]
    fn a_demoted_manager_is_certified_as_worker_only_after_it_left_raft() {
        let (made, tables) = swarm();
        let mut node = (**tables.nodes.get(&made.node).unwrap()).clone();
        node.spec.role = Role::Worker;
        let member = store::Member {
            raft_id: 7,
            node: Some(node.id),
            addr: "192.0.2.1:2377".parse().unwrap(),
            voter: true,
            leader: false,
            reachable: Some(true),
            behind: Some(0),
        };
        assert_eq!(role_to_certify(&node, &[member]), Role::Manager);
        node.manager = None;
        assert_eq!(role_to_certify(&node, &[member]), Role::Manager, "its join was not recorded");
        assert_eq!(role_to_certify(&node, &[]), Role::Worker);
    }
}
