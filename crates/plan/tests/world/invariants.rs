//! What must hold after every step, whatever happened.

use super::World;
use model::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl World {
    /// A task goes only where it is allowed to.
    pub(super) fn check_placements(&self, before: &Tables) {
        for task in self.tables.tasks.values() {
            let was = before.tasks.get(&task.id).and_then(|t| t.node());
            assert!(was.is_none() || was == task.node(), "{} moved", task.name());
            let Some(node) = task.node().filter(|_| was.is_none()) else { continue };
            let node = self.tables.nodes.get(&node).expect("placed on a node that exists");
            assert!(
                task.attaches.is_some() || node.accepts_tasks(),
                "{} placed on {}",
                task.name(),
                node.display_name()
            );
            for constraint in &task.spec.placement.constraints {
                assert!(plan::constraint_matches(constraint, node), "{} against {constraint}", task.name());
            }
        }
    }

    fn is_lost(&self, node: NodeId) -> bool {
        let state = self.tables.nodes.get(&node).map(|node| node.status.state);
        state.is_none_or(|state| matches!(state, NodeState::Down | NodeState::Disconnected))
    }

    /// Nobody is let go while a container of its slot may still run, but for start-first.
    fn check_slots(&self, before: &Tables) {
        let goes_on = |task: &Task| matches!(task.desired, Desired::Running | Desired::Complete);
        let lost = |id| self.is_lost(id);
        let stops = |old: &&Arc<Task>| {
            old.desired > Desired::Complete && old.may_hold_resources() && !old.node().is_some_and(lost)
        };
        let stopping: BTreeMap<(ServiceId, Slot), TaskId> =
            self.tables.tasks.values().filter(stops).map(|t| ((t.service, t.slot), t.id)).collect();
        for task in self.tables.tasks.values().filter(|t| goes_on(t)) {
            if before.tasks.get(&task.id).is_some_and(|t| goes_on(t)) {
                continue;
            }
            let Some(service) = self.tables.services.get(&task.service) else { continue };
            if service.spec.update.order == UpdateOrder::StartFirst
                || service.spec.rollback.order == UpdateOrder::StartFirst
            {
                continue;
            }
            let beside = stopping.get(&(task.service, task.slot));
            assert!(beside.is_none(), "{} starts beside {beside:?}", task.name());
        }
    }

    /// What must hold after every step, whatever happened.
    pub(super) fn check(&self, before: &Tables) {
        self.check_slots(before);
        let mut live: BTreeMap<(ServiceId, Slot), u32> = BTreeMap::new();
        let mut reserved: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        let mut ports = BTreeSet::new();
        let mut named = BTreeSet::new();
        for task in self.tables.tasks.values() {
            let over = task.status.state.is_some_and(TaskState::is_terminal);
            if matches!(task.desired, Desired::Running | Desired::Complete) && !over {
                *live.entry((task.service, task.slot)).or_default() += 1;
            }
            if let Some(node) = task.node().filter(|_| task.may_hold_resources()) {
                let sum = reserved.entry(node).or_default();
                sum.0 += task.spec.resources.reservations.cpu_nanos;
                sum.1 += task.spec.resources.reservations.memory_bytes;
                for (kind, supply) in &task.generic {
                    let Supply::Named(names) = supply else { continue };
                    for name in names {
                        assert!(named.insert((node, kind, name)), "{kind} {name} belongs to two tasks");
                    }
                }
                let lost = self.is_lost(node);
                for port in task.host_ports.iter().filter(|_| !lost) {
                    assert!(ports.insert((node, port.protocol, port.published)), "{port:?} twice on a node");
                }
            }
            for attachment in &task.attachments {
                let Some(network) = self.tables.networks.get(&attachment.network) else { continue };
                let allocation = network.allocation.expect("attached to a network without a subnet");
                assert!(allocation.subnet.contains(&attachment.address.addr()));
                assert_ne!(attachment.address.addr(), allocation.gateway);
            }
        }
        for ((service, slot), count) in live {
            let Some(service) = self.tables.services.get(&service) else { continue };
            // A step that gives an update up changes the order; the next one goes by it.
            let orders = [Some(service), before.services.get(&service.id)].into_iter().flatten();
            let overlap = orders.map(|s| s.spec.update.order).any(|o| o == UpdateOrder::StartFirst);
            assert!(
                count <= if overlap { 2 } else { 1 },
                "{}.{slot:?} runs {count} times",
                service.spec.name
            );
        }
        for (node, (cpu, memory)) in reserved {
            let Some(node) = self.tables.nodes.get(&node).filter(|n| n.accepts_tasks()) else { continue };
            let has = node.description.as_ref().expect("nodes here are described").resources;
            // A node that shrank is relieved by stopping tasks, which takes a moment.
            let stopping = self.tables.tasks_of_node(node.id).any(|t| t.desired >= Desired::Shutdown);
            assert!(
                stopping || (cpu <= has.cpu_nanos && memory <= has.memory_bytes),
                "{node:?} is overbooked"
            );
        }
    }
}
