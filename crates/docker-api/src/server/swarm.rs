//! What the front door needs of the swarm; `node` implements it.

use super::{ApiError, Asker};
use model::{Availability, ClusterId, NodeId, Role};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, StdError, http},
};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

/// A manager's control service; each call carries the claim of the person it is made for.
pub type Control = proto::control::control_client::ControlClient<
    tonic::service::interceptor::InterceptedService<Link, proto::PersonalClaim>,
>;

/// The way to a manager: a connection, or a call in this process.
pub type Link = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// Returns what answers a manager's calls as the way to it.
pub fn link<S>(service: S) -> Link
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<StdError>,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(service.map_err(|error| Status::from_error(error.into())))
}

/// A byte stream both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub type BoxedIo = Box<dyn Io>;

/// What became of a host that goes down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostGone {
    /// Whether the managers of its swarm know, or why not; `None`: it is in no swarm.
    pub told: Option<Result<(), String>>,
    /// How many containers have ended.
    pub stopped: usize,
    /// Those that have not, by name, and why.
    pub left: Vec<(String, String)>,
}

/// This node's part in a swarm.
#[async_trait::async_trait]
pub trait Swarm: Send + Sync + 'static {
    /// Returns where this node stands; never waits.
    fn status(&self) -> SwarmStatus;

    /// Makes a new swarm with this node as its first manager.
    ///
    /// # Errors
    /// 503 when it is already in one, 400 when an address is of no use.
    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError>;

    /// Makes this manager the only one of its swarm, from its own state.
    ///
    /// # Errors
    /// 503 when it is no manager, 409 when other managers could go on; nothing was changed then.
    async fn recover(&self, _: RecoverRequest) -> Result<NodeId, ApiError> {
        Err(ApiError::not_implemented("a swarm is not recovered here"))
    }

    /// Gives this host other addresses in its swarm; those that are `None` are chosen as at a join.
    ///
    /// # Errors
    /// 503 when it is in no swarm, 400 when an address is of no use.
    async fn readdress(&self, _: RecoverRequest) -> Result<(), ApiError> {
        Err(ApiError::not_implemented("addresses are not changed here"))
    }

    /// Makes this host the only manager of the swarm that a backup holds.
    ///
    /// # Errors
    /// 503 when it is in a swarm, 400 when the backup is of no use; nothing was changed then.
    async fn restore(&self, _: RestoreRequest) -> Result<NodeId, ApiError> {
        Err(ApiError::not_implemented("a swarm is not restored here"))
    }

    /// Joins the swarm that `remotes` manage.
    ///
    /// # Errors
    /// 503 when it is already in one; 400 for a token that is not one; 500 with the managers' refusal.
    async fn join(&self, request: JoinRequest) -> Result<(), ApiError>;

    /// Leaves the swarm and forgets it. A manager leaves only with `force`.
    async fn leave(&self, force: bool) -> Result<(), ApiError>;

    /// The host goes down: hands its part of the swarm over, and stops all containers of the host.
    ///
    /// # Errors
    /// None where this is carried out.
    async fn go_down(&self) -> Result<HostGone, ApiError> {
        Err(ApiError::not_implemented("a host is not taken down here"))
    }

    /// Opens the encrypted state of a manager that restarted with autolock on.
    ///
    /// # Errors
    /// 401 for another key, 409 when it is not locked, 503 when it is in no swarm.
    async fn unlock(&self, key: String) -> Result<(), ApiError>;

    /// Returns a client of a manager that asks in the name of `asker`, retried and bounded in time by the
    /// implementation.
    ///
    /// # Errors
    /// 503 when this node is in no swarm ([`ApiError::not_in_swarm`]), no manager answers, or this is a worker and
    /// `asker` has no token ([`ApiError::not_a_manager`]); 403 when nobody knows who asks.
    async fn control(&self, asker: &Asker) -> Result<Control, ApiError>;

    /// Returns the networks of the swarm that tasks of this node are on: what a worker can show without asking in
    /// somebody's name.
    ///
    /// # Errors
    /// 503 when no manager answers.
    async fn own_networks(&self) -> Result<Vec<model::Network>, ApiError> {
        Ok(Vec::new())
    }

    /// Opens a raw connection to the front door of another node, which `asker` may use.
    ///
    /// # Errors
    /// 503 when the node does not answer.
    async fn tunnel(&self, node: NodeId, asker: &Asker) -> Result<BoxedIo, ApiError>;

    /// Opens a raw connection to the front door of a manager, which answers there in the name of `asker`, and returns
    /// the manager's address. `via`: this one and no other.
    ///
    /// # Errors
    /// 503 when no manager answers; `asker` has no token ([`ApiError::not_a_manager`]).
    async fn relay(&self, asker: &Asker, via: Option<SocketAddr>) -> Result<(SocketAddr, BoxedIo), ApiError>;
}

/// Where this node stands.
#[derive(Debug, Clone, Default)]
pub enum SwarmStatus {
    #[default]
    Inactive,
    /// A manager whose state waits for `swarm unlock`.
    Locked,
    /// A member whose part in the swarm cannot be taken up, and why. Its containers run on.
    Failed(String),
    Active(Membership),
}

impl SwarmStatus {
    /// Returns the membership, if this node is in a swarm and unlocked.
    pub fn membership(&self) -> Option<&Membership> {
        match self {
            Self::Active(membership) => Some(membership),
            Self::Inactive | Self::Locked | Self::Failed(_) => None,
        }
    }
}

/// This node as a member.
#[derive(Debug, Clone)]
pub struct Membership {
    pub node_id: NodeId,
    pub cluster_id: ClusterId,
    pub role: Role,
    /// Where other nodes reach this one.
    pub addr: SocketAddr,
    /// The managers this node knows of.
    pub managers: Vec<(NodeId, SocketAddr)>,
    /// True on a manager that has contact with a leader.
    pub control_available: bool,
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Why it does not work, if it does not; else empty.
    pub error: String,
}

/// `swarm init`; `None` = chosen by `node`.
#[derive(Debug, Clone, Default)]
pub struct InitRequest {
    /// As typed: IP, interface or host name, with or without port.
    pub advertise_addr: Option<String>,
    pub listen_addr: Option<String>,
    pub data_path_addr: Option<String>,
    pub data_path_port: Option<u16>,
    pub default_addr_pool: Vec<ipnet::Ipv4Net>,
    pub subnet_prefix: Option<u8>,
    pub availability: Availability,
    pub force_new_cluster: bool,
    pub spec: model::ClusterSpec,
    /// Who asks, for the history.
    pub person: String,
}

/// `swarm recover` and `swarm readdress`; addresses that are `None` stay as they are.
#[derive(Debug, Clone, Default)]
pub struct RecoverRequest {
    /// As typed. With it the other two count.
    pub advertise_addr: Option<String>,
    pub listen_addr: Option<String>,
    pub data_path_addr: Option<String>,
    /// Also where other managers could go on.
    pub force: bool,
    /// Who asks, for the history.
    pub person: String,
}

/// `swarm restore`; `None` = chosen by `node`.
#[derive(Clone, Default)]
pub struct RestoreRequest {
    /// Has the swarm's keys.
    pub backup: Vec<u8>,
    pub advertise_addr: Option<String>,
    pub listen_addr: Option<String>,
    pub data_path_addr: Option<String>,
    pub availability: Availability,
    /// Gives up the membership that this host has.
    pub force: bool,
    /// Who asks, for the history.
    pub person: String,
}

impl std::fmt::Debug for RestoreRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreRequest").field("bytes", &self.backup.len()).finish_non_exhaustive()
    }
}

/// `swarm join`.
#[derive(Debug, Clone, Default)]
pub struct JoinRequest {
    /// Managers, as typed: `host[:2377]`.
    pub remotes: Vec<String>,
    pub token: String,
    pub advertise_addr: Option<String>,
    pub listen_addr: Option<String>,
    pub data_path_addr: Option<String>,
    pub availability: Availability,
}
