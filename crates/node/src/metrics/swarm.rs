//! This node's part in a swarm: Raft, what the swarm has, what the leader decides, sessions of agents. *Source:* swarmkit
//! `manager/metrics`, whose names these are where it has them.

use super::{
    families::Families,
    process::{number, wide},
};
use crate::swarm::NodeSwarm;
use docker_api::{
    convert::task_word,
    server::{Swarm as _, SwarmStatus},
};
use model::{NodeState, Role};
use std::collections::BTreeMap;

/// Every state has a row, also where nothing is in it: a board must not lose it.
const TASK_STATES: [&str; 14] = [
    "new",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
    "remove",
    "orphaned",
];
const NODE_STATES: [&str; 4] = ["ready", "down", "unknown", "disconnected"];

fn node_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Ready => "ready",
        NodeState::Down => "down",
        NodeState::Unknown | NodeState::Away => "unknown",
        NodeState::Disconnected => "disconnected",
    }
}

pub(super) fn look(swarm: &NodeSwarm, to: &mut Families) {
    let truth = |is: bool| f64::from(u8::from(is));
    let SwarmStatus::Active(me) = swarm.status() else {
        to.gauge("swarm_node_manager", "This node is a manager.", Vec::new(), 0.0);
        return;
    };
    to.gauge("swarm_node_manager", "This node is a manager.", Vec::new(), truth(me.role == Role::Manager));
    let about = vec![("swarm_id", me.cluster_id.to_string()), ("node_id", me.node_id.to_string())];
    to.gauge("swarm_node_info", "The swarm and this node in it.", about, 1.0);
    let Some(current) = swarm.current() else { return };
    let view = current.view.borrow().clone();
    let heard = view.heard.borrow().manager.is_some();
    to.gauge(
        "rswarm_agent_session",
        "This node's agent has a session with a manager.",
        Vec::new(),
        truth(heard),
    );
    let (Some(store), Some(manager)) = (&view.store, &view.manager) else { return };

    let leads = store.leader_now();
    to.gauge("swarm_manager_leader", "This manager leads.", Vec::new(), truth(leads.me));
    to.gauge("rswarm_raft_term", "Term of Raft.", Vec::new(), wide(leads.term));
    let tables = store.view();
    to.gauge("rswarm_raft_applied_index", "What this manager has applied.", Vec::new(), wide(tables.index));
    let help = "This manager knows what the others agree on.";
    to.gauge("rswarm_raft_current", help, Vec::new(), truth(store.is_current()));
    for member in store.members() {
        let node = member.node.map_or_else(|| member.raft_id.to_string(), |node| node.to_string());
        let labels = || vec![("node", node.clone())];
        let help = "Members of Raft; those that vote.";
        to.gauge("rswarm_raft_voter", help, labels(), truth(member.voter));
        // Only the leader knows.
        if let Some(reachable) = member.reachable {
            to.gauge("rswarm_raft_member_reachable", "The leader hears of it.", labels(), truth(reachable));
        }
        if let Some(behind) = member.behind {
            let help = "Entries that it has not acknowledged.";
            to.gauge("rswarm_raft_member_behind_entries", help, labels(), wide(behind));
        }
    }
    let timings = store.timings();
    let help = "How long a batch of changes took until it was agreed on and applied.";
    to.timing("swarm_raft_transaction_latency_seconds", help, Vec::new(), timings.proposals);
    to.timing("rswarm_raft_fsync_seconds", "How long a sync of the log took.", Vec::new(), timings.syncs);

    let mut nodes: BTreeMap<&str, usize> = NODE_STATES.into_iter().map(|state| (state, 0)).collect();
    for node in tables.nodes.values() {
        *nodes.entry(node_word(node.status.state)).or_default() += 1;
    }
    for (state, count) in nodes {
        let labels = vec![("state", state.to_owned())];
        to.gauge("swarm_manager_nodes", "Nodes by state.", labels, number(count));
    }
    let mut tasks: BTreeMap<&str, usize> = TASK_STATES.into_iter().map(|state| (state, 0)).collect();
    for task in tables.tasks.values() {
        *tasks.entry(task_word(task)).or_default() += 1;
    }
    for (state, count) in tasks {
        let labels = vec![("state", state.to_owned())];
        to.gauge("swarm_manager_tasks_total", "Tasks by state.", labels, number(count));
    }
    for (name, help, count) in [
        ("swarm_manager_services_total", "Services.", tables.services.values().count()),
        ("swarm_manager_networks_total", "Networks.", tables.networks.values().count()),
        ("swarm_manager_secrets_total", "Secrets.", tables.secrets.values().count()),
        ("swarm_manager_configs_total", "Configs.", tables.configs.values().count()),
    ] {
        to.gauge(name, help, Vec::new(), number(count));
    }
    let numbers = manager.numbers();
    let help = "Agents whose sessions this manager serves.";
    to.gauge("rswarm_dispatcher_sessions", help, Vec::new(), number(numbers.sessions));
    let help = "How long the leader took to decide.";
    to.timing("swarm_scheduler_latency_seconds", help, Vec::new(), numbers.plans);
}
