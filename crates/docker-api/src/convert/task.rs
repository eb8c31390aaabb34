//! Tasks, outward only: nobody but the plan makes one.

use super::{
    Networks, desired_word, generic_resources_json, network::network_json, service::port_json,
    task_spec_json, task_state_word,
};
use crate::types::{self, AttachedNetwork, ObjectVersion};
use model::{Mode, Placement, Service, Slot, Task};

/// Returns Docker's single word for where a task stands. *Source:* swarmkit `design/task_model.md`.
pub fn task_word(task: &Task) -> &'static str {
    match (task.status.state, &task.placement) {
        (Some(state), _) => task_state_word(state),
        (None, Placement::Unallocated) => "new",
        (None, Placement::Pending { .. }) => "pending",
        (None, Placement::On(_)) => "assigned",
    }
}

/// Returns true if the service would not replace this task. *Source:* swarmkit `IsTaskDirty`.
pub fn is_up_to_date(task: &Task, service: &Service) -> bool {
    let job = matches!(service.spec.mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob);
    if job {
        return task.job_iteration == service.job_iteration;
    }
    task.spec_version == service.spec_version || task.spec == service.spec.task
}

/// Writes a task.
pub fn task_json(from: &Task, is_job: bool, networks: &Networks) -> types::Task {
    let status = &from.status;
    let (message, err) = match (&from.placement, status.state) {
        (Placement::Unallocated, None) => ("created".to_owned(), String::new()),
        (Placement::Pending { reason }, None) => ("pending task scheduling".to_owned(), reason.clone()),
        (Placement::On(_), None) => {
            ("scheduler assigned task to node".to_owned(), status.error.clone().unwrap_or_default())
        }
        (_, Some(_)) => (status.message.clone(), status.error.clone().unwrap_or_default()),
    };
    let timestamp = if status.state.is_some() { status.at } else { from.meta.updated_at };
    types::Task {
        id: from.id.to_string(),
        version: ObjectVersion { index: from.meta.version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        name: String::new(),
        labels: types::StringMap::new(),
        spec: task_spec_json(&from.spec),
        service_id: from.service.to_string(),
        slot: match from.slot {
            Slot::Replica(n) => n,
            Slot::Node(_) => 0,
        },
        node_id: match (from.node(), from.slot) {
            (Some(node), _) | (None, Slot::Node(node)) => node.to_string(),
            (None, Slot::Replica(_)) => String::new(),
        },
        status: types::TaskStatus {
            timestamp: timestamp.into(),
            state: task_word(from).into(),
            message,
            err,
            container_status: status.container.as_ref().map(|c| types::ContainerStatus {
                container_id: c.container_id.clone(),
                pid: i64::from(c.pid),
                exit_code: i64::from(c.exit_code.unwrap_or_default()),
            }),
            port_status: types::PortStatus { ports: from.host_ports.iter().map(port_json).collect() },
        },
        generic_resources: generic_resources_json(&from.generic),
        desired_state: desired_word(from.desired).into(),
        networks_attachments: from
            .attachments
            .iter()
            .filter_map(|a| {
                let network = networks.get(&a.network)?;
                Some(types::NetworkAttachment {
                    network: AttachedNetwork::of(&network_json(network), network.meta.version),
                    addresses: vec![a.address.to_string()],
                })
            })
            .collect(),
        job_iteration: is_job.then_some(ObjectVersion { index: from.job_iteration }),
    }
}
