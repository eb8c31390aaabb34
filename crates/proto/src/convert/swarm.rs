//! Nodes, the cluster object, and what people store in it.

use super::{Field, Invalid, Problem, enums, messages, public};
use crate::types;
use model::PersonRole;

messages! {
    model::NodeSpec => NodeSpec { name, labels, role, availability }
    model::Node => Node { id, meta, spec, index, certified_role, description, status, manager }
    model::NodeDescription => NodeDescription {
        hostname, platform, resources, engine_version, engine_labels, addr, data_addr, generic, tls,
        feature_level, networks,
    }
    model::NodeTls => NodeTls { trust, issuer_subject, issuer_public_key }
    model::RootRotation => RootRotation { cert, key, cross_signed }
    model::NodeStatus => NodeStatus { state, message, since, addr }
    model::ManagerStatus => ManagerStatus { raft_id, addr, seen }
    model::ManagerSeen => ManagerSeen { reachable, behind }
    model::ClusterSpec => ClusterSpec {
        labels, task_history_limit, heartbeat_period, node_cert_expiry, autolock, snapshot_interval,
        old_snapshots, daemon_grace, log_driver, dead_manager_after, slow_follower_entries, force_rotate,
    }
    model::Cluster => Cluster {
        id, meta, spec, root_ca_cert, root_ca_key, worker_token, manager_token, unlock_key, address_pools,
        subnet_prefix, data_path_port, mesh_subnet, task_pool, feature_level, removed, rotation,
        incarnation, ingress_removed,
    }
    model::Incarnation => Incarnation { number, tag }
    model::RemovedNode => RemovedNode { node, until, index }
    model::SecretSpec => SecretSpec { name, labels, data, templated }
    model::Secret => Secret { id, meta, spec }
    model::ConfigSpec => ConfigSpec { name, labels, data, templated }
    model::Config => Config { id, meta, spec }
    model::Stack => Stack { id, meta, name, revisions, pending_delete }
    model::StackRevision => StackRevision {
        number, at, author, source, services, restores, came_up, message, git,
    }
    model::User => User { id, meta, name, role, password, tokens, certificates }
    model::UserCertificate => UserCertificate { serial, issued, expires, revoked }
    model::UserToken => UserToken { id, hash, label, created, expires }
    model::AuditRecord => AuditRecord { id, meta, person, from, via, action, object, before, message }
}

impl Field<types::PersonRole> for PersonRole {
    fn put(&self) -> types::PersonRole {
        use types::person_role::{Admin, Deploy, Read, Role};
        let role = match self {
            Self::Admin => Role::Admin(Admin {}),
            Self::Deploy { stacks } => Role::Deploy(Deploy { stacks: stacks.clone() }),
            Self::Read => Role::Read(Read {}),
        };
        types::PersonRole { role: Some(role) }
    }
    fn take(wire: types::PersonRole) -> Result<Self, Invalid> {
        use types::person_role::Role;
        Ok(match wire.role.ok_or_else(|| Problem::Missing.of("role"))? {
            Role::Admin(_) => Self::Admin,
            Role::Deploy(deploy) => Self::Deploy { stacks: deploy.stacks },
            Role::Read(_) => Self::Read,
        })
    }
}
public!(PersonRole => types::PersonRole);

enums! {
    Role { Worker, Manager }
    Availability { Active, Pause, Drain }
    NodeState { Unknown, Ready, Away, Down, Disconnected }
}
