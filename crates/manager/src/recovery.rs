//! The state of a swarm that begins anew with one manager: after the loss of a majority, or from a backup.
//!
//! ```text
//!             the one manager     the other managers   workers, services, tokens, keys, secrets, users
//!  recovered  the survivor        become workers       as they were
//!  restored   a new node          become workers       as they were
//! ```
//! A lost manager that comes back finds itself a worker: it hears of the later life of the swarm, lets go of its state,
//! and keeps its containers. Pure: what is made here is written by the caller.

use crate::{
    ca::{free_index, new_node, signing_root},
    notes::{self, Kind, Note},
};
use model::{
    Availability, Batch, Change, Cluster, Conflict, FEATURE_LEVEL, Incarnation, ManagerStatus, Node, NodeId,
    Object, Role, SecretBytes, Tables, Timestamp,
};
use pki::NodeKey;
use std::{net::SocketAddr, sync::Arc};
use tonic::Status;

/// The manager that a swarm begins anew with.
#[derive(Debug, Clone)]
pub struct First {
    /// Random, as every member's.
    pub raft_id: u64,
    /// Where other nodes reach it.
    pub addr: SocketAddr,
    /// Who asked for it.
    pub person: String,
}

/// A restored swarm: its state, and the credentials of its first manager.
#[derive(Debug)]
pub struct Restored {
    pub tables: Tables,
    pub node: NodeId,
    /// PEM.
    pub key: SecretBytes,
    /// PEM, leaf first.
    pub chain: String,
    /// PEM.
    pub root: String,
    /// While autolock is on.
    pub unlock_key: Option<SecretBytes>,
}

/// Why a swarm cannot begin anew from a state.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("there is no swarm in this state")]
    NoSwarm,
    #[error("node {0} is not in this state")]
    Unknown(NodeId),
    #[error("the state has room for no other node")]
    Full,
    #[error("the new manager cannot be written into the state")]
    Conflict(#[from] Conflict),
    #[error("the keys in this state are of no use")]
    Keys(#[source] Status),
    #[error("no key can be made for the new manager")]
    Ca(#[from] pki::CaError),
    #[error("the system has no randomness")]
    Random(#[source] getrandom::Error),
}

/// Returns the incarnation that follows the one of a state.
fn next(cluster: &Cluster, now: Timestamp) -> Result<Incarnation, RecoveryError> {
    let last = cluster.incarnation.map_or(0, |i| i.number);
    let seconds = u64::try_from(now.0 / 1_000_000_000).unwrap_or(0);
    let tag = getrandom::u64().map_err(RecoveryError::Random)?;
    Ok(Incarnation { number: seconds.max(last.saturating_add(1)), tag })
}

/// Returns the state in which `node` is the one manager, and the incarnation that begins with it.
///
/// # Errors
/// [`RecoveryError`].
pub fn recovered(
    tables: &Tables,
    node: NodeId,
    first: &First,
    now: Timestamp,
) -> Result<(Tables, Incarnation), RecoveryError> {
    let survivor = tables.nodes.get(&node).ok_or(RecoveryError::Unknown(node))?;
    begin_anew(tables, Node::clone(survivor), first, "recover", now)
}

/// Returns the state of a backup with another node as its one manager, and that node's credentials.
///
/// # Errors
/// [`RecoveryError`].
pub fn restored(
    tables: &Tables,
    first: &First,
    availability: Availability,
    now: Timestamp,
) -> Result<(Restored, Incarnation), RecoveryError> {
    let cluster = tables.cluster.as_ref().ok_or(RecoveryError::NoSwarm)?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(RecoveryError::Random)?;
    let id = NodeId(u128::from_be_bytes(id));
    let index = free_index(tables).ok_or(RecoveryError::Full)?;
    let node = new_node(id, index, Role::Manager, availability);
    let key = NodeKey::generate()?;
    let root = signing_root(cluster).map_err(RecoveryError::Keys)?;
    let expiry = cluster.spec.node_cert_expiry;
    let chain = root.sign_csr(&key.csr_pem()?, id, Role::Manager, cluster.id, expiry)?;
    let (tables, incarnation) = begin_anew(tables, node, first, "restore", now)?;
    let cluster = tables.cluster.as_ref().ok_or(RecoveryError::NoSwarm)?;
    let restored = Restored {
        node: id,
        key: SecretBytes(key.pem().into_bytes()),
        chain,
        root: cluster.trusted_roots(),
        unlock_key: cluster.unlock_key.clone(),
        tables,
    };
    Ok((restored, incarnation))
}

fn begin_anew(
    tables: &Tables,
    manager: Node,
    first: &First,
    action: &str,
    now: Timestamp,
) -> Result<(Tables, Incarnation), RecoveryError> {
    let cluster = tables.cluster.as_ref().ok_or(RecoveryError::NoSwarm)?;
    let incarnation = next(cluster, now)?;
    let cluster = Cluster {
        incarnation: Some(incarnation),
        // No other manager is there that might not know it.
        feature_level: FEATURE_LEVEL.max(cluster.feature_level),
        ..Cluster::clone(cluster)
    };
    let others = tables.nodes.values().filter(|n| n.id != manager.id);
    let former = others.filter(|n| n.spec.role == Role::Manager || n.manager.is_some());
    let mut objects: Vec<Object> = former
        .map(|n| {
            let mut node = Node { manager: None, ..Node::clone(n) };
            node.spec.role = Role::Worker;
            Object::Node(Arc::new(node))
        })
        .collect();
    let mut manager = Node {
        manager: Some(ManagerStatus { raft_id: first.raft_id, addr: first.addr, seen: None }),
        certified_role: Role::Manager,
        ..manager
    };
    manager.spec.role = Role::Manager;
    let note = Note {
        kind: Kind::Read,
        person: first.person.clone(),
        from: "this manager".to_owned(),
        via: Some(manager.id),
        action: action.to_owned(),
        object: "swarm".to_owned(),
        message: format!("{} former managers become workers", objects.len()),
    };
    let record = notes::record(note, now).map_err(RecoveryError::Keys)?;
    objects.extend([
        Object::Cluster(Arc::new(cluster)),
        Object::Node(Arc::new(manager)),
        Object::Audit(Arc::new(record)),
    ]);
    let mut anew = tables.clone();
    let index = tables.index + 1;
    anew.apply(index, &Batch { at: now, changes: objects.into_iter().map(Change::Put).collect() })?;
    anew.index = index;
    Ok((anew, incarnation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ca::{Init, bootstrap},
        tests::state::state,
    };

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn first() -> First {
        First { raft_id: 77, addr: "192.0.2.9:2377".parse().unwrap(), person: "root@a".into() }
    }

    /// Node 1 and 2 are managers, node 3 is a worker.
    fn three() -> Tables {
        let manager = |raft_id| {
            move |n: &mut Node| {
                n.spec.role = Role::Manager;
                let addr = "192.0.2.1:2377".parse().unwrap();
                n.manager = Some(ManagerStatus { raft_id, addr, seen: None });
            }
        };
        let state = state().cluster().node(1).node(2).node(3);
        state.change_node(1, manager(1)).change_node(2, manager(2)).tables()
    }

    fn managers(tables: &Tables) -> Vec<(u128, Option<u64>)> {
        let managers = tables.nodes.values().filter(|n| n.spec.role == Role::Manager || n.manager.is_some());
        managers.map(|n| (n.id.0, n.manager.map(|m| m.raft_id))).collect()
    }

    #[test]
    fn the_survivor_is_the_one_manager_of_a_later_life_and_it_is_recorded() {
        let before = three();
        let (after, begun) = recovered(&before, NodeId(2), &first(), NOW).unwrap();
        assert_eq!(managers(&after), [(2, Some(77))]);
        assert_eq!(after.nodes.len(), 3);
        let (old, new) = (before.cluster.as_ref().unwrap(), after.cluster.as_ref().unwrap());
        assert_eq!((new.incarnation, new.feature_level), (Some(begun), FEATURE_LEVEL));
        assert!(new.incarnation > old.incarnation && begun.number == 1000, "by the clock");
        assert_eq!((&new.manager_token, &new.root_ca_key), (&old.manager_token, &old.root_ca_key));
        let told: Vec<_> = after.audit.values().map(|r| (r.person.clone(), r.action.clone())).collect();
        assert_eq!(told, [("root@a".to_owned(), "recover".to_owned())]);
        assert!(after.index > before.index);

        let (_, again) = recovered(&after, NodeId(2), &first(), Timestamp(5)).unwrap();
        assert_eq!(again.number, 1001, "later, although the clock went back");
        let unknown = recovered(&before, NodeId(9), &first(), NOW).unwrap_err();
        assert!(matches!(unknown, RecoveryError::Unknown(NodeId(9))), "{unknown}");
        let empty = recovered(&state().node(1).tables(), NodeId(1), &first(), NOW).unwrap_err();
        assert!(matches!(empty, RecoveryError::NoSwarm), "{empty}");
    }

    #[test]
    fn a_restored_swarm_has_a_manager_of_its_own_with_a_certificate_that_its_nodes_trust() {
        let mut init = Init::new(7, "192.0.2.1:2377".parse().unwrap());
        init.spec.autolock = true;
        let made = bootstrap(init, NOW).unwrap();
        let mut tables = Tables::default();
        tables.apply(1, &made.batch).unwrap();
        let (restored, begun) = restored(&tables, &first(), Availability::Active, NOW).unwrap();
        assert_ne!(restored.node, made.node);
        assert_eq!(managers(&restored.tables), [(restored.node.0, Some(77))]);
        assert_eq!(restored.tables.cluster.as_ref().unwrap().incarnation, Some(begun));
        assert_eq!(restored.unlock_key, made.unlock_key);
        let dir = tempfile::tempdir().unwrap();
        let key = String::from_utf8(restored.key.0).unwrap();
        let credentials =
            pki::Credentials::create(dir.path(), &key, &restored.chain, &made.root, None).unwrap();
        assert_eq!(credentials.identity().node, restored.node);
        assert_eq!(credentials.identity().role, Role::Manager);
    }
}
