//! What can be seen of the tables, in the words of the scenarios.

use super::World;
use model::*;
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

impl World {
    pub(super) fn name_tasks(&mut self) {
        let mut tasks: Vec<&Arc<Task>> = self.tables.tasks.values().collect();
        tasks.sort_by_key(|t| (t.meta.created_at, t.id));
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (name, _) in self.ordinals.values() {
            *counts.entry(name.clone()).or_default() += 1;
        }
        for task in tasks {
            if !self.ordinals.contains_key(&task.id) {
                let name = self.short_name(task);
                let nth = counts.entry(name.clone()).or_default();
                *nth += 1;
                self.ordinals.insert(task.id, (name, *nth));
            }
        }
    }

    fn node_name(&self, id: NodeId) -> String {
        self.tables.nodes.get(&id).map_or_else(|| "(gone)".to_owned(), |n| n.display_name())
    }

    /// `web.1`, or `web.a` for the task of a global service on node a.
    pub(super) fn short_name(&self, task: &Task) -> String {
        match task.slot {
            _ if task.attaches.is_some() => task.name(),
            Slot::Replica(n) => format!("{}.{n}", task.service_name),
            Slot::Node(node) => format!("{}.{}", task.service_name, self.node_name(node)),
        }
    }

    /// `web.1`, its second attempt `web.1#2`.
    fn label(&self, id: TaskId) -> String {
        let Some((name, nth)) = self.ordinals.get(&id) else { return id.to_string() };
        if *nth == 1 { name.clone() } else { format!("{name}#{nth}") }
    }

    fn describe_task(&self, task: &Task) -> String {
        let mut out = self.label(task.id);
        match &task.placement {
            Placement::On(node) => write!(out, "@{}", self.node_name(*node)).unwrap(),
            Placement::Pending { reason } => write!(out, " pending: {reason}").unwrap(),
            Placement::Unallocated => out.push_str(" unallocated"),
        }
        let desired = format!("{:?}", task.desired).to_lowercase();
        let is = task.status.state.map(|s| format!("{s:?}").to_lowercase());
        match is {
            Some(is) if is == desired => write!(out, " {is}").unwrap(),
            Some(is) => write!(out, " {is} desired={desired}").unwrap(),
            None => write!(out, " desired={desired}").unwrap(),
        }
        if task.spec.container.image != "v1" && task.attaches.is_none() {
            write!(out, " image={}", task.spec.container.image).unwrap();
        }
        out
    }

    pub(super) fn difference(&self, before: &Tables) -> String {
        let mut lines = Vec::new();
        for old in before.tasks.values() {
            if !self.tables.tasks.contains(&old.id) {
                lines.push(format!("{} gone", self.label(old.id)));
            }
        }
        for new in self.tables.tasks.values() {
            let text = self.describe_task(new);
            let old = before.tasks.get(&new.id).map(|t| self.describe_task(t));
            if old.as_ref() != Some(&text) {
                lines.push(text);
            }
        }
        for old in before.services.values() {
            match self.tables.services.get(&old.id) {
                None => lines.push(format!("service {} gone", old.spec.name)),
                Some(new) if new.update != old.update => lines.push(self.describe_update(new)),
                Some(_) => {}
            }
        }
        for old in before.networks.values().filter(|n| !self.tables.networks.contains(&n.id)) {
            lines.push(format!("network {} gone", old.spec.name));
        }
        lines.sort();
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        if let Some(at) = self.last.wake_at {
            lines.push(format!("wakes in {:?}", at.since(self.now)));
        }
        lines.iter().fold(String::new(), |out, line| out + "  " + line + "\n")
    }

    fn describe_update(&self, service: &Service) -> String {
        let Some(update) = &service.update else {
            return format!("service {} update: none", service.spec.name);
        };
        let mut message = update.message.clone();
        for id in self.ordinals.keys() {
            message = message.replace(&id.to_string(), &self.label(*id));
        }
        format!("service {} {:?}: {message}", service.spec.name, update.state)
    }

    pub(super) fn list_tasks(&self, service: Option<&str>) -> String {
        let wanted = |t: &&Arc<Task>| service.is_none_or(|s| t.service_name == s);
        let mut lines: Vec<String> =
            self.tables.tasks.values().filter(wanted).map(|t| self.describe_task(t)).collect();
        lines.sort();
        if lines.is_empty() {
            lines.push("none".to_owned());
        }
        lines.iter().fold(String::new(), |out, line| out + "  " + line + "\n")
    }

    /// Addresses and ports of a service and its tasks, or of a network.
    /// Where a service's tasks would be in the end; nothing is changed.
    pub(super) fn foresee(&self, service: &str) -> String {
        let service = self.tables.service_named(service).expect("a service").id;
        let mut next_id = u128::MAX / 2;
        let mut ids = || {
            next_id += 1;
            next_id
        };
        let mut lines = String::new();
        for seen in plan::foresee(&self.tables, self.clock(), &[service], &mut ids) {
            for (node, tasks) in seen.placed {
                writeln!(lines, "  {tasks} on {}", self.tables.nodes.get(&node).unwrap().display_name())
                    .unwrap();
            }
            for (reason, tasks) in seen.waiting {
                writeln!(lines, "  {tasks} would wait: {reason}").unwrap();
            }
            assert!(seen.is_whole, "it is looked at to the end");
        }
        lines
    }

    /// How each node stands to one more task of a service.
    pub(super) fn explain(&self, service: &str) -> String {
        let service = self.tables.service_named(service).expect("a service").id;
        let mut lines = String::new();
        for verdict in plan::verdicts(&self.tables, self.clock(), service) {
            let node = self.tables.nodes.get(&verdict.node).unwrap().display_name().to_owned();
            let why =
                if verdict.obstacles.is_empty() { "fits".to_owned() } else { verdict.obstacles.join("; ") };
            writeln!(lines, "  {node}: {why}").unwrap();
        }
        lines
    }

    pub(super) fn show(&self, name: &str) -> String {
        let mut lines = Vec::new();
        if let Some(network) = self.tables.network_named(name) {
            let allocation = network.allocation;
            lines.push(allocation.map_or("not allocated".to_owned(), |a| {
                format!("vni {} subnet {} gateway {}", a.vni, a.subnet, a.gateway)
            }));
        }
        if let Some(service) = self.tables.service_named(name) {
            for vip in &service.endpoint.vips {
                let network = self.tables.networks.get(&vip.network).expect("a vip has a network");
                lines.push(format!("vip {} on {}", vip.address, network.spec.name));
            }
            for port in &service.endpoint.ports {
                lines.push(
                    format!("port {} -> {} {:?}", port.published, port.target, port.mode).to_lowercase(),
                );
            }
        }
        let mut tasks: Vec<_> = self.tables.tasks.values().filter(|t| t.service_name == name).collect();
        tasks.sort_by_key(|t| self.label(t.id));
        for task in tasks {
            let mut line = self.label(task.id);
            for attachment in &task.attachments {
                write!(line, " {}", attachment.address).unwrap();
            }
            if let Some(address) = task.gateway_address {
                write!(line, " gateway {address}").unwrap();
            }
            for (kind, supply) in &task.generic {
                write!(line, " {kind} {}", shown(supply)).unwrap();
            }
            for port in &task.host_ports {
                write!(line, " host port {} -> {}", port.published, port.target).unwrap();
            }
            lines.push(line);
        }
        assert!(!lines.is_empty(), "nothing is called {name}");
        lines.iter().fold(String::new(), |out, line| out + "  " + line + "\n")
    }
}

fn shown(supply: &Supply) -> String {
    match supply {
        Supply::Count(n) => n.to_string(),
        Supply::Named(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join("+"),
    }
}
