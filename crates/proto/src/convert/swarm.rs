//! Nodes, the cluster object, and what people store in it.

use super::{Field, Invalid, Problem, enums, messages, public};
use crate::types;
use model::PersonRole;

messages! {
    model::NodeSpec => NodeSpec
    model::Node => Node
    model::NodeDescription => NodeDescription
    model::RootRotation => RootRotation
    model::NodeStatus => NodeStatus
    model::ManagerStatus => ManagerStatus
    model::ManagerSeen => ManagerSeen
    model::ClusterSpec => ClusterSpec
    model::Cluster => Cluster
    model::Incarnation => Incarnation
    model::RemovedNode => RemovedNode
    model::SecretSpec => SecretSpec
    model::Secret => Secret
    model::ConfigSpec => ConfigSpec
    model::Config => Config
    model::Stack => Stack
    model::StackRevision => StackRevision
    model::User => User
    model::UserCertificate => UserCertificate
    model::UserToken => UserToken
    model::AuditRecord => AuditRecord
}

crate::generated::fields!([model::NodeTls] NodeTls);
public!(later model::NodeTls => types::NodeTls);

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
