//! Finds a node for each task that has none. Source: swarmkit `manager/scheduler`.
//!
//! Tasks of one service and version are alike, so they are placed as a group: the nodes that can ever take
//! one are found once, kept in order of preference, and each task takes the first that still has room. The
//! order is: few recent failures, few tasks of the service, few tasks in all, then the node's id. Spread
//! preferences come before it: they split the nodes into branches, and the emptiest branch is served first.

use crate::{
    Clock, Verdict,
    allocate::{DYNAMIC_PORTS, free_gateway, is_attached, set_pending},
    constraint, depend,
    draft::Draft,
    generic,
    slots::{self},
};
use model::{
    Cluster, Duration, EndpointSpec, GenericResources, Node, NodeId, Placement, PortConfig, Protocol,
    PublishMode, Resources, Service, ServiceId, Slot, Tables, Task, TaskState, Timestamp,
};
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// A node with this many failures of a service in this time is taken last, and so is one that rejected a task of it.
const MAX_FAILURES: u32 = 5;
const FAILURE_WINDOW: Duration = Duration::from_secs(5 * 60);

pub(crate) fn run(draft: &mut Draft<'_>, cluster: &Cluster) {
    attach(draft, cluster);
    let groups = waiting(draft);
    if groups.is_empty() {
        return;
    }
    let mut hosts = Hosts::survey(draft, cluster);
    for ((service, spec_version), tasks) in groups {
        let Some(service) = draft.tables().services.get(&service).cloned() else { continue };
        if let Some(reason) = depend::waits_for(draft, &service, spec_version) {
            for task in &tasks {
                set_pending(draft, task.id, reason.clone());
            }
            continue;
        }
        let (bound, free): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|t| matches!(t.slot, Slot::Node(_)));
        for task in bound {
            place_on_its_node(draft, &mut hosts, &service, &task);
        }
        place_group(draft, &mut hosts, &service, &free);
    }
}

/// Tasks that hold addresses for a container have their node: it asked for them.
fn attach(draft: &mut Draft<'_>, cluster: &Cluster) {
    let candidates = draft.tables().tasks.values().filter(|t| {
        t.attaches.is_some() && matches!(t.placement, Placement::Pending { .. }) && slots::is_live(t)
    });
    let ready: Vec<_> = candidates.filter(|t| is_attached(draft, t)).cloned().collect();
    let mut gateways: BTreeMap<NodeId, Gateways> = BTreeMap::new();
    for task in ready {
        let Slot::Node(id) = task.slot else { continue };
        if !draft.tables().nodes.contains(&id) {
            continue;
        }
        let wants_gateway = slots::needs_gateway(draft.tables(), &EndpointSpec::default(), &task.spec);
        let gateways = gateways.entry(id).or_insert_with(|| Gateways::survey(draft, id));
        let gateway = wants_gateway.then(|| gateways.next(draft, cluster, id)).flatten();
        if wants_gateway && gateway.is_none() {
            set_pending(draft, task.id, Obstacle::NoAddress.explain(1));
            continue;
        }
        draft.edit_task(task.id, |t| {
            t.placement = Placement::On(id);
            t.gateway_address = gateway;
        });
        if let Some(address) = gateway {
            gateways.note(task.meta.created, address);
        }
        draft.say(task.name(), "attached", format!("on {}", draft.node_name(id)));
    }
}

type Groups = BTreeMap<(ServiceId, u64), Vec<Arc<Task>>>;

/// Returns the tasks that have all they need but a node, alike ones together.
fn waiting(draft: &Draft<'_>) -> Groups {
    let mut groups = Groups::new();
    let candidates = draft.tables().tasks.values().filter(|t| {
        matches!(t.placement, Placement::Pending { .. }) && slots::is_live(t) && !slots::is_over(t)
    });
    for task in candidates.filter(|t| is_attached(draft, t)) {
        let ready = draft.tables().services.get(&task.service).is_some_and(|s| has_endpoint(s, task));
        if ready {
            groups.entry((task.service, task.spec_version)).or_default().push(task.clone());
        }
    }
    for tasks in groups.values_mut() {
        tasks.sort_by_key(|t| (t.slot, t.id));
    }
    groups
}

/// Ports and virtual addresses come before tasks: a service that did not get its own starts nothing.
fn has_endpoint(service: &Service, task: &Task) -> bool {
    let ports = service.spec.endpoint.ports.len() == service.endpoint.ports.len();
    let vips = service.spec.endpoint.mode == model::EndpointMode::DnsRr
        || task.attachments.iter().all(|a| {
            service.endpoint.vips.iter().any(|v| v.network == a.network)
                || !service.spec.task.networks.iter().any(|n| n.network == a.network)
        });
    ports && vips
}

// ---- what nodes have ----------------------------------------------------------------------------------

/// The addresses of a node's tasks, which are given out one behind the other.
#[derive(Default)]
struct Gateways {
    /// The newest task's, with the index at which that was made.
    last: Option<(u64, IpAddr)>,
    /// Looked for when it is asked for. `None`: none is left, and none becomes free within a step.
    next: OnceCell<Option<IpAddr>>,
}

impl Gateways {
    fn survey(draft: &Draft<'_>, node: NodeId) -> Self {
        let mut gateways = Self::default();
        for task in draft.tables().tasks_of_node(node) {
            task.gateway_address.into_iter().for_each(|address| gateways.note(task.meta.created, address));
        }
        gateways
    }

    /// A task that was made at `created` has an address.
    fn note(&mut self, created: u64, address: IpAddr) {
        self.last = self.last.max(Some((created, address)));
        self.next = OnceCell::new();
    }

    /// Returns the next one.
    fn next(&self, draft: &Draft<'_>, cluster: &Cluster, node: NodeId) -> Option<IpAddr> {
        let last = self.last.map(|(_, address)| address);
        *self.next.get_or_init(|| free_gateway(draft, cluster, node, last))
    }

    /// A task was given the next one in this step.
    fn take(&mut self, now: u64, address: IpAddr) {
        *self = Self { last: Some((now, address)), next: OnceCell::new() };
    }
}

/// One node as the scheduler sees it.
struct Host {
    node: Arc<Node>,
    tasks: u32,
    reserved: Resources,
    generic: GenericResources,
    ports: BTreeSet<(Protocol, u16)>,
    by_service: BTreeMap<ServiceId, u32>,
    failures: BTreeMap<ServiceId, u32>,
    gateways: Gateways,
}

struct Hosts<'a> {
    cluster: &'a Cluster,
    all: Vec<Host>,
    index: BTreeMap<NodeId, usize>,
    /// Published by every node.
    ingress_ports: BTreeSet<(Protocol, u16)>,
}

impl<'a> Hosts<'a> {
    fn survey(draft: &Draft<'_>, cluster: &'a Cluster) -> Self {
        let all: Vec<Host> = draft.tables().nodes.values().map(|n| Host::survey(draft, n.clone())).collect();
        let index = all.iter().enumerate().map(|(i, h)| (h.node.id, i)).collect();
        let ports = draft.tables().services.values().flat_map(|s| s.endpoint.ports.iter());
        let ingress_ports = ports
            .filter(|p| p.mode == PublishMode::Ingress && p.published != 0)
            .map(|p| (p.protocol, p.published))
            .collect();
        Self { cluster, all, index, ingress_ports }
    }
}

/// What a clock that was ahead wrote is no older than this leader's time.
fn is_recent(draft: &Draft<'_>, ended: Timestamp) -> bool {
    let ended = if ended > draft.now() { draft.learnt(ended) } else { ended };
    draft.now().since(ended) < FAILURE_WINDOW
}

impl Host {
    fn survey(draft: &Draft<'_>, node: Arc<Node>) -> Self {
        let mut host = Self {
            tasks: 0,
            reserved: Resources::default(),
            generic: GenericResources::new(),
            ports: BTreeSet::new(),
            by_service: BTreeMap::new(),
            failures: BTreeMap::new(),
            gateways: Gateways::default(),
            node,
        };
        for task in draft.tables().tasks_of_node(host.node.id) {
            if let Some(address) = task.gateway_address {
                host.gateways.note(task.meta.created, address);
            }
            // A process may fail for many reasons; a task is rejected because this node cannot run it.
            let weight = match task.status.state {
                Some(TaskState::Failed) => 1,
                Some(TaskState::Rejected) => MAX_FAILURES,
                _ => 0,
            };
            if weight > 0 && is_recent(draft, task.status.at) {
                *host.failures.entry(task.service).or_default() += weight;
            }
            if task.may_hold_resources() {
                host.take(task);
            }
        }
        host
    }

    /// Counts a task that is, or may still be, here. One that is being stopped holds what it reserved, but
    /// is no reason to go elsewhere.
    fn take(&mut self, task: &Task) {
        if slots::is_live(task) {
            self.tasks += 1;
            *self.by_service.entry(task.service).or_default() += 1;
        }
        let wants = &task.spec.resources.reservations;
        self.reserved.cpu_nanos += wants.cpu_nanos;
        self.reserved.memory_bytes += wants.memory_bytes;
        generic::take(&mut self.generic, &task.generic);
        self.ports.extend(task.host_ports.iter().map(|p| (p.protocol, p.published)));
    }

    fn preference(&self, service: ServiceId) -> (u32, u32, u32) {
        let failures = self.failures.get(&service).copied().unwrap_or(0);
        let unlucky = if failures >= MAX_FAILURES { failures } else { 0 };
        (unlucky, self.by_service.get(&service).copied().unwrap_or(0), self.tasks)
    }
}

// ---- filters ------------------------------------------------------------------------------------------

/// Why a node cannot take a task, in the order they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    NotReady,
    Unfit,
    Resources,
    Constraints,
    Platform,
    HostPort,
    MaxReplicas,
    NoAddress,
}

impl Obstacle {
    /// Returns Docker's words for it.
    fn explain(self, nodes: usize) -> String {
        let on = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        match self {
            Self::NotReady => format!("{on} not available for new tasks"),
            Self::Unfit => format!("no containers can run on {on}"),
            Self::Resources => format!("insufficient resources on {on}"),
            Self::Constraints => format!("scheduling constraints not satisfied on {on}"),
            Self::Platform => format!("unsupported platform on {on}"),
            Self::HostPort => format!("host-mode port already in use on {on}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
            Self::NoAddress => format!("no task address left on {on}"),
        }
    }

    /// Returns true if another task of the same group may still fit.
    fn is_of_this_slot_only(self) -> bool {
        self == Self::MaxReplicas
    }
}

/// In the order they are asked.
const OBSTACLES: [Obstacle; 8] = [
    Obstacle::NotReady,
    Obstacle::Unfit,
    Obstacle::Resources,
    Obstacle::Constraints,
    Obstacle::Platform,
    Obstacle::HostPort,
    Obstacle::MaxReplicas,
    Obstacle::NoAddress,
];

/// Returns the first thing that is in the way of a task here.
fn obstacle(
    draft: &Draft<'_>,
    hosts: &Hosts<'_>,
    host: &Host,
    service: &Service,
    task: &Task,
) -> Option<Obstacle> {
    OBSTACLES.into_iter().find(|obstacle| obstacle.is_there(draft, hosts, host, service, task))
}

impl Obstacle {
    fn is_there(
        self,
        draft: &Draft<'_>,
        hosts: &Hosts<'_>,
        host: &Host,
        service: &Service,
        task: &Task,
    ) -> bool {
        let placement = &task.spec.placement;
        match self {
            Self::NotReady => !host.node.accepts_tasks(),
            Self::Unfit => !unfit(host).is_empty(),
            Self::Resources => short_of(host, task) != (None, None) || choose_generic(host, task).is_none(),
            Self::Constraints => !constraint::allows(placement, &host.node),
            Self::Platform => !constraint::runs_platform(placement, &host.node),
            Self::HostPort => choose_host_ports(hosts, host, service).is_none(),
            Self::MaxReplicas => {
                let limit = placement.max_replicas_per_node;
                limit > 0 && draft.replicas().elsewhere(task, host.node.id) >= limit
            }
            Self::NoAddress => {
                slots::needs_gateway(draft.tables(), &service.spec.endpoint, &task.spec)
                    && host.gateways.next(draft, hosts.cluster, host.node.id).is_none()
            }
        }
    }

    /// Returns what of it is in the way here, with the numbers.
    fn detail(self, host: &Host, service: &Service, task: &Task) -> String {
        let placement = &task.spec.placement;
        match self {
            Self::NotReady => "not available for new tasks".to_owned(),
            Self::Unfit => format!("no containers can run here: {}", unfit(host).join("; ")),
            Self::Resources => shortages(host, task),
            Self::Constraints => {
                let unmet = placement.constraints.iter().filter(|one| {
                    let alone =
                        model::PlacementSpec { constraints: vec![(*one).clone()], ..Default::default() };
                    !constraint::allows(&alone, &host.node)
                });
                let unmet: Vec<String> = unmet.map(ToString::to_string).collect();
                format!("constraint not satisfied: {}", unmet.join(", "))
            }
            Self::Platform => {
                let is = host
                    .node
                    .description
                    .as_ref()
                    .map(|d| format!("{}/{}", d.platform.os, d.platform.architecture));
                format!("unsupported platform: the node is {}", is.unwrap_or_else(|| "unknown".to_owned()))
            }
            Self::HostPort => {
                let ports: Vec<String> = slots::host_ports(&service.spec.endpoint)
                    .filter(|p| host.ports.contains(&(p.protocol, p.published)))
                    .map(|p| p.published.to_string())
                    .collect();
                format!("host-mode port already in use: {}", ports.join(", "))
            }
            Self::MaxReplicas => format!("max replicas per node: {}", placement.max_replicas_per_node),
            Self::NoAddress => "no task address left".to_owned(),
        }
    }
}

/// Returns why no container can run here.
fn unfit(host: &Host) -> &[String] {
    host.node.description.as_ref().map_or(&[], |description| &description.unfit)
}

/// Returns how much is free here of the processors and the memory that a task reserves, of each that is not enough.
fn short_of(host: &Host, task: &Task) -> (Option<u64>, Option<u64>) {
    let wants = &task.spec.resources.reservations;
    let has = host.node.description.as_ref().map(|d| d.resources).unwrap_or_default();
    let short = |wanted: u64, reserved: u64, total: u64| {
        (wanted > 0 && reserved.saturating_add(wanted) > total).then(|| total.saturating_sub(reserved))
    };
    (
        short(wants.cpu_nanos, host.reserved.cpu_nanos, has.cpu_nanos),
        short(wants.memory_bytes, host.reserved.memory_bytes, has.memory_bytes),
    )
}

fn shortages(host: &Host, task: &Task) -> String {
    let wants = &task.spec.resources.reservations;
    let cpus = |nanos: u64| format!("{}.{:02}", nanos / 1_000_000_000, nanos % 1_000_000_000 / 10_000_000);
    let (cpu, memory) = short_of(host, task);
    let cpu = cpu.map(|free| format!("reserves {} CPUs, {} are free", cpus(wants.cpu_nanos), cpus(free)));
    let memory = memory
        .map(|free| format!("reserves {} MiB of memory, {} are free", wants.memory_bytes >> 20, free >> 20));
    let generic = choose_generic(host, task)
        .is_none()
        .then(|| "reserves generic resources that are not free".to_owned());
    [cpu, memory, generic].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Returns how each node stands to one more task of a service.
pub(crate) fn verdicts(tables: &Tables, clock: Clock, service: ServiceId) -> Vec<Verdict> {
    let (Some(cluster), Some(service)) = (tables.cluster.clone(), tables.services.get(&service).cloned())
    else {
        return Vec::new();
    };
    let mut ids = || u128::MAX;
    let mut draft = Draft::new(tables, clock, &mut ids);
    let slot = match service.spec.mode {
        model::Mode::Global | model::Mode::GlobalJob => Slot::Node(NodeId(0)),
        model::Mode::Replicated { .. } | model::Mode::ReplicatedJob { .. } => Slot::Replica(u64::MAX),
    };
    let id = draft.create_task(&service, slot, model::Desired::Running);
    let Some(task) = draft.tables().tasks.get(&id).cloned() else { return Vec::new() };
    let hosts = Hosts::survey(&draft, &cluster);
    let verdict = |host: &Host| Verdict {
        node: host.node.id,
        obstacles: OBSTACLES
            .into_iter()
            .filter(|obstacle| obstacle.is_there(&draft, &hosts, host, &service, &task))
            .map(|obstacle| obstacle.detail(host, &service, &task))
            .collect(),
    };
    hosts.all.iter().map(verdict).collect()
}

/// Returns the host-mode ports a task would get here; `None` when one is in use.
fn choose_host_ports(hosts: &Hosts<'_>, host: &Host, service: &Service) -> Option<Vec<PortConfig>> {
    let mut ports: Vec<PortConfig> = slots::host_ports(&service.spec.endpoint).cloned().collect();
    let mut mine: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    let is_free = |mine: &BTreeSet<(Protocol, u16)>, key: &(Protocol, u16)| {
        !host.ports.contains(key) && !hosts.ingress_ports.contains(key) && !mine.contains(key)
    };
    // Fixed ports first, so that a chosen one does not take theirs.
    for port in ports.iter().filter(|p| p.published != 0) {
        let key = (port.protocol, port.published);
        if !is_free(&mine, &key) {
            return None;
        }
        mine.insert(key);
    }
    let mut from: BTreeMap<Protocol, u16> = BTreeMap::new(); // all below are in use
    for port in ports.iter_mut().filter(|p| p.published == 0) {
        let from = from.entry(port.protocol).or_insert(*DYNAMIC_PORTS.start());
        port.published = (*from..=*DYNAMIC_PORTS.end()).find(|p| is_free(&mine, &(port.protocol, *p)))?;
        *from = port.published + 1; // of at most 32768
        mine.insert((port.protocol, port.published));
    }
    Some(ports)
}

/// Returns the counted and named resources a task would get here; `None` when there are not enough.
fn choose_generic(host: &Host, task: &Task) -> Option<GenericResources> {
    let wants = &task.spec.resources.generic;
    if wants.is_empty() {
        return Some(GenericResources::new());
    }
    generic::choose(&host.node.description.as_ref()?.generic, &host.generic, wants)
}

// ---- placing ------------------------------------------------------------------------------------------

fn place_on_its_node(draft: &mut Draft<'_>, hosts: &mut Hosts<'_>, service: &Service, task: &Task) {
    let Slot::Node(node) = task.slot else { return };
    let Some(&at) = hosts.index.get(&node) else {
        set_pending(draft, task.id, "no suitable node (its node does not exist)".to_owned());
        return;
    };
    match obstacle(draft, hosts, &hosts.all[at], service, task) {
        None => place(draft, hosts, service, task, at),
        Some(why) => set_pending(draft, task.id, format!("no suitable node ({})", why.explain(1))),
    }
}

fn place_group(draft: &mut Draft<'_>, hosts: &mut Hosts<'_>, service: &Service, tasks: &[Arc<Task>]) {
    let Some(first) = tasks.first() else { return };
    // What this group's tasks can never pass is asked once.
    let usable: Vec<usize> = (0..hosts.all.len())
        .filter(|&at| {
            obstacle(draft, hosts, &hosts.all[at], service, first).is_none_or(|o| o.is_of_this_slot_only())
        })
        .collect();
    let mut tree = Branch::grow(&hosts.all, service.id, usable, &first.spec.placement.spread);
    let limit = first.spec.placement.max_replicas_per_node;
    // Why no node takes a task of a slot that has none: what is in the way of one is in the way of all, until one finds
    // a place.
    let mut in_the_way: Option<String> = None;
    for task in tasks {
        let is_like_others = limit == 0 || !draft.replicas().has_slot(task);
        if let Some(reason) = in_the_way.as_ref().filter(|_| is_like_others) {
            leave(draft, task, reason.clone());
            continue;
        }
        let chosen =
            tree.pick(&hosts.all, service.id, &mut |host| obstacle(draft, hosts, host, service, task));
        match chosen {
            Some(at) => {
                place(draft, hosts, service, task, at);
                tree.put_back(&hosts.all, service.id, at);
                in_the_way = None;
            }
            None => {
                let reason = explain(draft, hosts, service, task);
                if is_like_others {
                    in_the_way = Some(reason.clone());
                }
                leave(draft, task, reason);
            }
        }
    }
}

/// Leaves a task without a node, and says why if that is new.
fn leave(draft: &mut Draft<'_>, task: &Task, reason: String) {
    if task.placement != (Placement::Pending { reason: reason.clone() }) {
        draft.say(task.name(), "cannot be placed", reason.clone());
    }
    set_pending(draft, task.id, reason);
}

fn place(draft: &mut Draft<'_>, hosts: &mut Hosts<'_>, service: &Service, task: &Task, at: usize) {
    let node = hosts.all[at].node.id;
    let ports = choose_host_ports(hosts, &hosts.all[at], service).unwrap_or_default();
    let generic = choose_generic(&hosts.all[at], task).unwrap_or_default();
    let gateway = slots::needs_gateway(draft.tables(), &service.spec.endpoint, &task.spec)
        .then(|| hosts.all[at].gateways.next(draft, hosts.cluster, node))
        .flatten();
    let placed = draft.edit_task(task.id, |t| {
        t.placement = Placement::On(node);
        t.host_ports = ports;
        t.generic = generic;
        t.gateway_address = gateway;
    });
    if !placed {
        return;
    }
    draft.say(task.name(), "placed", format!("on {}", hosts.all[at].node.display_name()));
    if let Some(task) = draft.tables().tasks.get(&task.id) {
        hosts.all[at].take(task);
        if let Some(address) = gateway {
            hosts.all[at].gateways.take(draft.base().index + 1, address);
        }
    }
}

/// Returns why no node takes a task, the most frequent reason first.
fn explain(draft: &Draft<'_>, hosts: &Hosts<'_>, service: &Service, task: &Task) -> String {
    let mut counts: BTreeMap<Obstacle, usize> = BTreeMap::new();
    for host in &hosts.all {
        if let Some(why) = obstacle(draft, hosts, host, service, task) {
            *counts.entry(why).or_default() += 1;
        }
    }
    if counts.is_empty() {
        return "no suitable node".to_owned();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(why, count)| (std::cmp::Reverse(*count), *why));
    let parts: Vec<String> = counts.into_iter().map(|(why, count)| why.explain(count)).collect();
    format!("no suitable node ({})", parts.join("; "))
}

// ---- spread -------------------------------------------------------------------------------------------

type Rank = ((u32, u32, u32), usize);

/// Nodes in order of preference, split by the values of the spread keys.
enum Branch {
    Leaf(BTreeSet<Rank>),
    /// The count is of the service's tasks below; children in the order of their label's value.
    Split(Vec<(u32, BTreeSet<usize>, Branch)>),
}

impl Branch {
    fn grow(all: &[Host], service: ServiceId, members: Vec<usize>, spread: &[String]) -> Self {
        let Some((key, deeper)) = spread.split_first() else {
            return Self::Leaf(members.into_iter().map(|at| (all[at].preference(service), at)).collect());
        };
        let mut by_value: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for at in members {
            by_value.entry(constraint::spread_value(key, &all[at].node)).or_default().push(at);
        }
        let children = by_value.into_values().map(|members| {
            let count = members.iter().map(|at| all[*at].preference(service).1).sum();
            let set = members.iter().copied().collect();
            (count, set, Self::grow(all, service, members, deeper))
        });
        Self::Split(children.collect())
    }

    /// Takes out the best node that has no obstacle. Nodes that cannot take any of the group are dropped.
    fn pick(
        &mut self,
        all: &[Host],
        service: ServiceId,
        obstacle: &mut dyn FnMut(&Host) -> Option<Obstacle>,
    ) -> Option<usize> {
        match self {
            Self::Leaf(ranks) => {
                let mut aside = Vec::new();
                let mut chosen = None;
                while let Some((_, at)) = ranks.pop_first() {
                    match obstacle(&all[at]) {
                        None => {
                            chosen = Some(at);
                            break;
                        }
                        Some(why) if why.is_of_this_slot_only() => aside.push(at),
                        Some(_) => {}
                    }
                }
                ranks.extend(aside.into_iter().map(|at| (all[at].preference(service), at)));
                chosen
            }
            Self::Split(children) => {
                let mut order: Vec<usize> = (0..children.len()).collect();
                order.sort_by_key(|i| children[*i].0);
                order.into_iter().find_map(|i| {
                    let at = children[i].2.pick(all, service, obstacle)?;
                    children[i].0 += 1;
                    Some(at)
                })
            }
        }
    }

    /// Ranks a node again after it took a task.
    fn put_back(&mut self, all: &[Host], service: ServiceId, at: usize) {
        match self {
            Self::Leaf(ranks) => {
                ranks.insert((all[at].preference(service), at));
            }
            Self::Split(children) => {
                if let Some((_, _, child)) = children.iter_mut().find(|(_, members, _)| members.contains(&at))
                {
                    child.put_back(all, service, at);
                }
            }
        }
    }
}
