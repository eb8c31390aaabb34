//! Members of the swarm.

use super::{
    Result, availability, availability_word, generic_resources_json, given, node_state_word, role, role_word,
    signed,
};
use crate::types::{self, ObjectVersion};
use model::{Availability, Cluster, Node, NodeId, NodeSpec, NodeState, Role};

/// Reads a node's spec.
pub fn node_spec(from: types::NodeSpec) -> Result<NodeSpec> {
    Ok(NodeSpec {
        name: given(from.name),
        labels: from.labels,
        role: if from.role.is_empty() { Role::Worker } else { role(&from.role)? },
        availability: if from.availability.is_empty() {
            Availability::Active
        } else {
            availability(&from.availability)?
        },
    })
}

/// Writes a node's spec.
pub fn node_spec_json(from: &NodeSpec) -> types::NodeSpec {
    types::NodeSpec {
        name: from.name.clone().unwrap_or_default(),
        labels: from.labels.clone(),
        role: role_word(from.role).into(),
        availability: availability_word(from.availability).into(),
    }
}

/// Returns the word that Docker's clients know for a node's state; where it is not ours, the message tells.
pub fn node_state_shown(state: NodeState) -> &'static str {
    node_state_word(match state {
        NodeState::Away => NodeState::Ready,        // Docker has no word for it
        NodeState::Disconnected => NodeState::Down, // Docker's word for who has left
        state => state,
    })
}

/// Writes a node. `leader`: who leads, as far as this host knows; `root_ca`: PEM.
pub fn node_json(from: &Node, leader: Option<NodeId>, cluster: &Cluster) -> types::Node {
    let description = from.description.as_ref();
    types::Node {
        id: from.id.to_string(),
        version: ObjectVersion { index: from.meta.version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        spec: node_spec_json(&from.spec),
        description: description.map_or_else(types::NodeDescription::default, |d| types::NodeDescription {
            hostname: d.hostname.clone(),
            platform: types::Platform {
                // Docker says x86_64 here and amd64 in images; its clients only show it.
                architecture: match d.platform.architecture.as_str() {
                    "amd64" => "x86_64".into(),
                    "arm64" => "aarch64".into(),
                    other => other.into(),
                },
                os: d.platform.os.clone(),
            },
            resources: types::ResourceReservation {
                nano_cpus: signed(d.resources.cpu_nanos),
                memory_bytes: signed(d.resources.memory_bytes),
                generic_resources: generic_resources_json(&d.generic),
            },
            engine: types::EngineDescription {
                engine_version: d.engine_version.clone(),
                labels: d.engine_labels.clone(),
                plugins: [
                    ("Log", "json-file"),
                    ("Network", "bridge"),
                    ("Network", "host"),
                    ("Network", "null"),
                    ("Network", "overlay"),
                    ("Volume", "local"),
                ]
                .map(|(kind, name)| types::PluginDescription { kind: kind.into(), name: name.into() })
                .into(),
            },
            tls_info: super::cluster::node_tls(&d.tls, cluster),
        }),
        status: types::NodeStatus {
            state: node_state_shown(from.status.state).into(),
            message: match description.map(|d| d.unfit.join("; ")).unwrap_or_default() {
                why if from.status.message.is_empty() && !why.is_empty() => {
                    format!("no containers can run here: {why}")
                }
                _ => from.status.message.clone(),
            },
            addr: from
                .status
                .addr
                .or_else(|| description.map(|d| d.addr.ip()))
                .map_or_else(String::new, |a| a.to_string()),
        },
        manager_status: from.manager.map(|m| types::ManagerStatus {
            leader: leader == Some(from.id),
            // Raft's word: that its agent answers says nothing of the manager.
            reachability: match m.seen {
                Some(seen) if seen.reachable => "reachable",
                Some(_) => "unreachable",
                None => "unknown",
            }
            .into(),
            addr: m.addr.to_string(),
        }),
    }
}
