//! Nodes, the cluster object, and what people store in it.

use super::{enums, messages};

messages! {
    model::NodeSpec => NodeSpec { name, labels, role, availability }
    model::Node => Node { id, meta, spec, index, certified_role, description, status, manager }
    model::NodeDescription => NodeDescription {
        hostname, platform, resources, engine_version, engine_labels, addr, data_addr, generic,
    }
    model::NodeStatus => NodeStatus { state, message, since, addr }
    model::ManagerStatus => ManagerStatus { raft_id, addr }
    model::ClusterSpec => ClusterSpec {
        labels, task_history_limit, heartbeat_period, node_cert_expiry, autolock, snapshot_interval,
    }
    model::Cluster => Cluster {
        id, meta, spec, root_ca_cert, root_ca_key, worker_token, manager_token, unlock_key, address_pools,
        subnet_prefix, data_path_port, mesh_subnet, task_pool, feature_level, removed,
    }
    model::RemovedNode => RemovedNode { node, until }
    model::SecretSpec => SecretSpec { name, labels, data }
    model::Secret => Secret { id, meta, spec }
    model::ConfigSpec => ConfigSpec { name, labels, data }
    model::Config => Config { id, meta, spec }
    model::Stack => Stack { id, meta, name, revisions, pending_delete }
    model::StackRevision => StackRevision { number, at, author, source, services, restores, came_up }
}

enums! {
    Role { Worker, Manager }
    Availability { Active, Pause, Drain }
    NodeState { Unknown, Ready, Down, Disconnected }
}
