//! Who may call what: one table, deny by default.
//!
//! A caller is whom the connection's certificate names. Managers forward calls to the leader in the name of their
//! caller; such a claim counts only from a manager, and what is forwarded is not forwarded again.

use model::{ClusterId, NodeId, Role};
use pki::tls::Peer;
use std::net::SocketAddr;
use tonic::{Request, Status, metadata::MetadataValue};

const CALLER_KEY: &str = "rswarm-caller-bin";

/// Every RPC of a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    GetRootCa,
    IssueCertificate,
    JoinRaft,
    Session,
    Alive,
    Observe,
    Get,
    List,
    Create,
    Update,
    Remove,
    Watch,
    GetSwarm,
    UpdateSwarm,
    ApplyStack,
    RollbackStack,
    JudgeStack,
    Attach,
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Also without a certificate: how a node gets its first one.
    Anyone,
    /// Any node of this swarm.
    Node,
    Manager,
}

fn rule(method: Method) -> Rule {
    match method {
        Method::GetRootCa | Method::IssueCertificate => Rule::Anyone,
        // A worker's front door forwards what people ask.
        Method::Get
        | Method::List
        | Method::Create
        | Method::Update
        | Method::Remove
        | Method::Watch
        | Method::GetSwarm
        | Method::UpdateSwarm
        | Method::ApplyStack
        | Method::RollbackStack
        | Method::JudgeStack
        | Method::Attach
        | Method::Leave
        | Method::Session => Rule::Node,
        Method::JoinRaft | Method::Alive | Method::Observe => Rule::Manager,
    }
}

/// On whose behalf a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// `None`: showed no certificate.
    pub(crate) node: Option<(NodeId, Role)>,
    /// Where the connection comes from.
    pub(crate) addr: SocketAddr,
    /// Another manager took us for the leader.
    pub(crate) forwarded: bool,
}

impl Caller {
    /// Returns the calling node.
    ///
    /// # Errors
    /// UNAUTHENTICATED when it showed no certificate.
    pub(crate) fn node(&self) -> Result<NodeId, Status> {
        self.node.map(|(node, _)| node).ok_or_else(|| Status::unauthenticated("a node certificate is needed"))
    }
}

/// Returns the caller of `request` if it may call `method`.
pub(crate) fn authorize<T>(
    method: Method,
    request: &Request<T>,
    cluster: Option<ClusterId>,
) -> Result<Caller, Status> {
    let peer = Peer::of(request).ok_or_else(|| Status::unauthenticated("the connection has no identity"))?;
    if let (Some(identity), Some(cluster)) = (peer.identity, cluster)
        && identity.cluster != cluster
    {
        return Err(Status::permission_denied("the certificate is of another swarm"));
    }
    let direct = peer.identity.map(|i| (i.node, i.role));
    let claim = request.metadata().get_bin(CALLER_KEY);
    let (node, forwarded) = match claim {
        None => (direct, false),
        Some(value) => {
            if direct.is_none_or(|(_, role)| role != Role::Manager) {
                return Err(Status::permission_denied("only managers forward calls"));
            }
            let bytes = value.to_bytes().map_err(|_| Status::invalid_argument("malformed caller"))?;
            (decode(&bytes)?, true)
        }
    };
    let allowed = match (rule(method), node) {
        (Rule::Anyone, _) | (Rule::Node, Some(_)) | (Rule::Manager, Some((_, Role::Manager))) => true,
        (Rule::Node | Rule::Manager, None) | (Rule::Manager, Some((_, Role::Worker))) => false,
    };
    if !allowed {
        return Err(Status::permission_denied(format!("this node may not call {method:?}")));
    }
    Ok(Caller { node, addr: peer.addr, forwarded })
}

/// Returns `message` as a call in the name of `caller`, for the leader.
pub(crate) fn on_behalf_of<T>(caller: &Caller, message: T) -> Request<T> {
    let mut bytes = Vec::with_capacity(17);
    if let Some((node, role)) = caller.node {
        bytes.extend_from_slice(&node.0.to_be_bytes());
        bytes.push(u8::from(role == Role::Manager));
    }
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(CALLER_KEY, MetadataValue::from_bytes(&bytes));
    request
}

fn decode(bytes: &[u8]) -> Result<Option<(NodeId, Role)>, Status> {
    let malformed = || Status::invalid_argument("malformed caller");
    if bytes.is_empty() {
        return Ok(None);
    }
    let (id, role) = bytes.split_at_checked(16).ok_or_else(malformed)?;
    let id = NodeId(u128::from_be_bytes(id.try_into().map_err(|_| malformed())?));
    match role {
        [0] => Ok(Some((id, Role::Worker))),
        [1] => Ok(Some((id, Role::Manager))),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::Identity;

    const ALL: [Method; 19] = [
        Method::GetRootCa,
        Method::IssueCertificate,
        Method::JoinRaft,
        Method::Session,
        Method::Alive,
        Method::Observe,
        Method::Get,
        Method::List,
        Method::Create,
        Method::Update,
        Method::Remove,
        Method::Watch,
        Method::GetSwarm,
        Method::UpdateSwarm,
        Method::ApplyStack,
        Method::RollbackStack,
        Method::JudgeStack,
        Method::Attach,
        Method::Leave,
    ];
    const SWARM: ClusterId = ClusterId(1);

    fn from(role: Option<Role>, cluster: ClusterId) -> Request<()> {
        let mut request = Request::new(());
        let identity = role.map(|role| Identity { node: NodeId(7), role, cluster });
        let addr = "192.0.2.1:5".parse().unwrap();
        request.extensions_mut().insert(Peer { identity, addr });
        request
    }

    #[test]
    fn each_kind_of_peer_may_call_only_what_the_table_says() {
        let only_managers = [Method::JoinRaft, Method::Alive, Method::Observe];
        let open = [Method::GetRootCa, Method::IssueCertificate];
        for method in ALL {
            let may = |role| authorize(method, &from(role, SWARM), Some(SWARM)).is_ok();
            assert!(may(Some(Role::Manager)), "{method:?}");
            assert_eq!(may(Some(Role::Worker)), !only_managers.contains(&method), "{method:?}");
            assert_eq!(may(None), open.contains(&method), "{method:?}");
            assert!(authorize(method, &Request::new(()), Some(SWARM)).is_err(), "{method:?}");
            assert!(authorize(method, &from(Some(Role::Manager), ClusterId(2)), Some(SWARM)).is_err());
        }
    }

    #[test]
    fn a_forwarded_call_is_the_callers_and_counts_only_from_a_manager() {
        let worker = Caller {
            node: Some((NodeId(9), Role::Worker)),
            addr: "192.0.2.9:1".parse().unwrap(),
            forwarded: false,
        };
        let forward = |through: Option<Role>| {
            let mut request = on_behalf_of(&worker, ());
            request.extensions_mut().extend(from(through, SWARM).extensions().clone());
            request
        };
        let caller = authorize(Method::Create, &forward(Some(Role::Manager)), Some(SWARM)).unwrap();
        assert_eq!((caller.node, caller.forwarded), (worker.node, true));
        assert!(authorize(Method::JoinRaft, &forward(Some(Role::Manager)), Some(SWARM)).is_err());
        assert!(authorize(Method::Create, &forward(Some(Role::Worker)), Some(SWARM)).is_err());
        assert!(authorize(Method::GetRootCa, &forward(None), Some(SWARM)).is_err());
    }
}
