//! What must be so in every step, judged by what hosts really run and hold.

use super::{HOSTS, Sim, host::Phase, position};
use crate::presence::subjects_of;
use model::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Within this time of a change of a host, a wire or the leader, a node that works may be taken for lost.
const SETTLES: Duration = Duration::from_secs(20);

/// A host that had not changed for so long was heard.
const RESTS: Duration = Duration::from_secs(8);
/// A daemon may take so long to come back; the swarm's grace is a little more.
const RESTARTS: Duration = Duration::from_secs(10);

/// The state as if the nodes whose daemons are away had been given up.
pub(super) fn without_away(tables: &Tables) -> Tables {
    let mut tables = tables.clone();
    let away = tables.nodes.values().filter(|n| n.status.state == NodeState::Away);
    let changes = away.map(|node| {
        let mut node = Node::clone(node);
        node.status.state = NodeState::Down;
        Change::Put(Object::Node(Arc::new(node)))
    });
    let changes: Vec<Change> = changes.collect();
    let index = tables.index;
    if !changes.is_empty() {
        tables.apply(index + 1, &Batch { at: Timestamp(1), changes }).expect("nodes may be down");
    }
    tables
}

impl Sim {
    fn is_wrong(&mut self, what: String) {
        if self.wrong.is_none() {
            self.tell(format!("WRONG: {what}"));
            self.wrong = Some(what);
        }
    }

    /// A state follows the newest one.
    pub(super) fn written(&mut self, after: &Tables) {
        let before = self.newest().clone();
        for task in after.tasks.values() {
            let Some(old) = before.tasks.get(&task.id).filter(|old| !Arc::ptr_eq(old, task)) else {
                continue;
            };
            if task.status.state < old.status.state {
                self.is_wrong(format!("{} went back to {:?}", task.name(), task.status.state));
            }
        }
        for node in after.nodes.values() {
            let was = before.nodes.get(&node.id).map(|old| old.status.state);
            if was == Some(node.status.state) {
                continue;
            }
            self.tell(format!("node {} is {:?}", node.id.0, node.status.state));
            let host = &mut self.hosts[position(node.id)];
            if node.status.state == NodeState::Down {
                host.is_lost();
            }
            let works = host.power && host.daemon && !host.cut;
            if node.status.state == NodeState::Away && works && self.at > self.disturbed_at + SETTLES {
                self.is_wrong(format!("node {} works and was said to be away", node.id.0));
            }
            let host = &mut self.hosts[position(node.id)];
            if node.status.state != NodeState::Down {
                continue;
            }
            host.containers.values_mut().for_each(|container| container.given_up = true);
            let [changed, before_that] = host.changed_at;
            let restarts = host.power && !host.cut && !host.daemon;
            if restarts && changed > before_that + RESTS && self.at < changed + RESTARTS {
                self.is_wrong(format!("node {} was given up while its daemon restarts", node.id.0));
                continue;
            }
            let works = host.power && host.daemon && !host.cut;
            if works && self.at > self.disturbed_at + SETTLES {
                self.is_wrong(format!("node {} works and was given up", node.id.0));
            }
        }
    }

    /// A host stops a container: somebody must have wanted that.
    pub(super) fn truth_stops(&mut self, host: usize, id: TaskId) {
        let wanted = self.newest().tasks.get(&id).is_some_and(|task| {
            task.desired < Desired::Shutdown && !task.status.state.is_some_and(TaskState::is_terminal)
        });
        if wanted {
            self.is_wrong(format!("host {} stops a task that is wanted", host + 1));
        }
    }

    pub(super) fn judge(&mut self) {
        let mut found = Vec::new();
        let mut copies: BTreeMap<(ServiceId, Slot), Vec<(TaskId, Phase)>> = BTreeMap::new();
        let mut addresses: BTreeMap<(Option<NetworkId>, IpAddr), TaskId> = BTreeMap::new();
        let newest = self.newest().clone();
        for host in self.hosts.iter().filter(|host| host.power) {
            for (id, container) in host.containers.iter().filter(|(_, c)| c.phase.is_alive()) {
                let task = &container.task;
                if !container.given_up {
                    copies.entry((task.service, task.slot)).or_default().push((*id, container.phase));
                }
                let on_networks = task.attachments.iter().map(|a| (Some(a.network), a.address.addr()));
                for place in on_networks.chain(task.gateway_address.map(|address| (None, address))) {
                    if let Some(other) = addresses.insert(place, *id) {
                        found.push(format!("{:?} and {:?} both have {place:?}", other.0, id.0));
                    }
                }
            }
        }
        for ((service, slot), tasks) in copies.into_iter().filter(|(_, tasks)| tasks.len() > 1) {
            let overlaps = |spec: &ServiceSpec| {
                spec.update.order == UpdateOrder::StartFirst || spec.rollback.order == UpdateOrder::StartFirst
            };
            let may_overlap = newest.services.get(&service).is_none_or(|s| overlaps(&s.spec));
            // With start-first, nobody waits for what is to stop.
            let goes_on = |id: &TaskId| newest.tasks.get(id).is_some_and(|t| t.desired < Desired::Shutdown);
            let going_on = tasks.iter().filter(|(id, _)| goes_on(id)).count();
            if going_on > 2 || !may_overlap {
                found.push(format!("slot {slot:?} of {:?} runs {} times: {tasks:?}", service.0, tasks.len()));
            }
        }
        found.extend(self.misdirected(&addresses));
        found.extend(self.shared_identifiers());
        if let Some(first) = found.into_iter().next() {
            self.is_wrong(first);
        }
    }

    /// Kernels of nodes in touch that send what is meant for one task to another one. (A node that was lost holds what
    /// was given up without it until it is told, when it is back.)
    fn misdirected(&self, addresses: &BTreeMap<(Option<NetworkId>, IpAddr), TaskId>) -> Option<String> {
        let in_touch = self.hosts.iter().filter(|host| host.power && !host.cut && !host.is_behind);
        for host in in_touch {
            for (network, table) in &host.kernel {
                for (task, endpoint) in &table.endpoints {
                    if let Some(other) = addresses.get(&(Some(*network), endpoint.address))
                        && other != task
                    {
                        let place = endpoint.address;
                        return Some(format!(
                            "host {} takes {place} for {:?}'s, it is {:?}'s",
                            host.node.0, task.0, other.0
                        ));
                    }
                }
                for service in table.services.values() {
                    let Some(vip) = service.vip else { continue };
                    if let Some(task) = addresses.get(&(Some(*network), vip)) {
                        return Some(format!(
                            "host {}: {vip} is {}'s and {:?}'s",
                            host.node.0, service.name, task.0
                        ));
                    }
                }
            }
        }
        None
    }

    /// Two networks in any kernels with one identifier or one subnet.
    fn shared_identifiers(&self) -> Option<String> {
        let mut networks: BTreeMap<NetworkId, (NetworkAllocation, usize)> = BTreeMap::new();
        for host in self.hosts.iter().filter(|host| host.power) {
            for (id, table) in &host.kernel {
                networks.entry(*id).or_insert((table.allocation, position(host.node)));
            }
        }
        let all: Vec<_> = networks.into_iter().collect();
        for (nth, (id, (one, host))) in all.iter().enumerate() {
            for (other_id, (other, beside)) in &all[..nth] {
                let same = one.vni == other.vni || one.subnet.contains(&other.subnet.network());
                if same {
                    return Some(format!(
                        "networks {:?} on host {} and {:?} on host {} share {one:?}",
                        id.0,
                        host + 1,
                        other_id.0,
                        beside + 1
                    ));
                }
            }
        }
        None
    }

    /// Returns what is not yet as it was asked for.
    pub(super) fn missing(&self) -> Option<String> {
        let newest = self.newest();
        let live = |task: &Task| !task.status.state.is_some_and(TaskState::is_terminal);
        for service in newest.services.values() {
            if service.pending_delete {
                return Some(format!("{} is not removed", service.spec.name));
            }
            let Mode::Replicated { replicas } = service.spec.mode else { continue };
            let tasks: Vec<_> = newest.tasks_of_service(service.id).filter(|task| live(task)).collect();
            let run =
                |t: &&Arc<Task>| t.status.state == Some(TaskState::Running) && t.desired == Desired::Running;
            if tasks.len() as u64 != replicas || !tasks.iter().all(run) {
                let states: Vec<_> = tasks.iter().map(|t| (t.id.0, t.desired, t.status.state)).collect();
                return Some(format!("{} of {replicas} has {states:?}", service.spec.name));
            }
            let updating = service
                .update
                .as_ref()
                .is_some_and(|u| matches!(u.state, UpdateState::Updating | UpdateState::RollbackStarted));
            if updating {
                return Some(format!("{} is being updated", service.spec.name));
            }
        }
        if let Some(network) = newest.networks.values().find(|network| network.pending_delete) {
            return Some(format!("network {} is not removed", network.spec.name));
        }
        if let Some(node) = newest.nodes.values().find(|node| node.status.state != NodeState::Ready) {
            return Some(format!("node {} is {:?}", node.id.0, node.status.state));
        }
        for host in 0..HOSTS {
            let host = &self.hosts[host];
            let should: BTreeSet<TaskId> =
                newest.tasks_of_node(host.node).filter(|task| live(task)).map(|task| task.id).collect();
            let running = host.containers.iter().filter(|(_, c)| c.phase == Phase::Running);
            let running: BTreeSet<TaskId> = running.map(|(id, _)| *id).collect();
            if running != should || host.containers.len() != should.len() {
                return Some(format!("host {} runs {running:?} and should {should:?}", host.node.0));
            }
            let needs: BTreeSet<NetworkId> = subjects_of(newest, host.node).into_iter().flatten().collect();
            let holds: BTreeSet<NetworkId> = host.kernel.keys().copied().collect();
            if holds != needs {
                return Some(format!("host {} holds {holds:?} and needs {needs:?}", host.node.0));
            }
        }
        None
    }
}
