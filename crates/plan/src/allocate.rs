//! Gives out what may have one owner only: VXLAN identifiers, subnets, virtual addresses, published ports,
//! addresses of tasks.
//!
//! An address that is freed in this step is not given out in it: others must first hear that it is free.
//! What cannot be given leaves its task pending with the reason, and is tried again at the next step.

use crate::{Acks, draft::Draft, slots};
use ipnet::{IpNet, Ipv4Net};
use model::{
    Attachment, Cluster, EndpointMode, Network, NetworkAllocation, NetworkDriver, NetworkId, NodeId, Object,
    ObjectRef, Placement, PortConfig, Protocol, PublishMode, Service, ServiceId, Subnets, Tables, Taken,
    Task, TaskId, Vip,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

/// 4096 is the mesh between hosts.
const FIRST_VNI: u32 = 4097;
const LAST_VNI: u32 = (1 << 24) - 1;
/// Source: swarmkit `manager/allocator/cnmallocator/portallocator.go`.
pub(crate) const DYNAMIC_PORTS: RangeInclusive<u16> = 30_000..=32_767;
const TASK_SUBNET_PREFIX: u8 = 24;

pub(crate) fn run(draft: &mut Draft<'_>, cluster: &Cluster, acks: &Acks) {
    networks(draft, cluster);
    let mut left = Left::default();
    let blocked = services(draft, acks, &mut left);
    tasks(draft, &blocked, &mut left);
}

/// What is known of what is left to give out. Nothing becomes free within a step: what has run out once need not be
/// looked for again, by however many tasks.
#[derive(Default)]
struct Left {
    /// Networks without a free address.
    exhausted: BTreeSet<NetworkId>,
    ports: BTreeMap<Protocol, Unpublished>,
}

// ---- networks -----------------------------------------------------------------------------------------

fn networks(draft: &mut Draft<'_>, cluster: &Cluster) {
    let waiting: Vec<Arc<Network>> = draft
        .tables()
        .networks
        .values()
        .filter(|n| n.allocation.is_none() && n.spec.driver == NetworkDriver::Overlay && !n.pending_delete)
        .cloned()
        .collect();
    let mut pools = None;
    for network in waiting {
        if let Some(holder) = network.spec.subnet.and_then(|subnet| holder(draft, &network, subnet.trunc())) {
            let reason =
                format!("network {holder}, which is being removed, still holds its subnet on some node");
            draft.say(&network.spec.name, "not allocated", reason);
            continue;
        }
        let subnet = network.spec.subnet.or_else(|| {
            let pools = pools.get_or_insert_with(|| Pools::survey(draft, cluster));
            pools.free(draft.tables().last_allocation().map(|a| a.subnet)).map(IpNet::V4)
        });
        let (Some(subnet), Some(vni)) = (subnet, free_vni(draft)) else {
            draft.say(&network.spec.name, "not allocated", "no subnet left in the swarm's address pools");
            continue;
        };
        let subnet = subnet.trunc();
        let gateway = network.spec.gateway.unwrap_or_else(|| at(subnet, 1));
        draft.say(&network.spec.name, "allocated", format!("{subnet}, VNI {vni}"));
        let mut new = Network::clone(&network);
        new.allocation = Some(NetworkAllocation { vni, subnet, gateway });
        if draft.put(Object::Network(Arc::new(new)))
            && let (Some(pools), IpNet::V4(subnet)) = (&mut pools, subnet)
        {
            pools.take(subnet);
        }
    }
}

/// Returns the network that has addresses of the subnet that another one asks for. What is freed in this step counts.
fn holder(draft: &Draft<'_>, network: &Network, subnet: IpNet) -> Option<ObjectRef> {
    let of = |tables: &Tables| tables.overlapping_subnet(subnet, Some(network.id), Subnets::All);
    [draft.tables(), draft.base()].into_iter().find_map(of).and_then(|(_, owner)| owner)
}

/// Returns the identifier behind the one given out last: one that was freed rests as long as possible.
fn free_vni(draft: &Draft<'_>) -> Option<u32> {
    let used = |vni| draft.tables().owner_of_vni(vni).is_some() || draft.base().owner_of_vni(vni).is_some();
    let last =
        draft.tables().last_allocation().map_or(FIRST_VNI - 1, |a| a.vni).clamp(FIRST_VNI - 1, LAST_VNI);
    (last + 1..=LAST_VNI).chain(FIRST_VNI..=last).find(|vni| !used(*vni))
}

/// The address pools of the swarm, and what is free of them.
struct Pools<'a> {
    cluster: &'a Cluster,
    /// Without what a node has a link or a route to; then with it. Only as far as possible is that avoided: a route to all
    /// of 10.0.0.0/8, as many a company has, leaves nothing of the pool.
    rounds: [Round; 2],
}

/// A search through the pools.
struct Round {
    taken: Taken,
    /// All before this one are taken.
    first: Option<Ipv4Net>,
    is_over: bool,
}

impl<'a> Pools<'a> {
    fn survey(draft: &Draft<'_>, cluster: &'a Cluster) -> Self {
        let used: Taken = draft.tables().subnets_in_use().chain(draft.base().subnets_in_use()).collect();
        let described = draft.tables().nodes.values().filter_map(|node| node.description.as_ref());
        let mut avoided = used.clone();
        for net in described.flat_map(|description| &description.networks) {
            if let IpNet::V4(v4) = net {
                avoided.insert(*v4);
            }
        }
        let round = |taken| Round { taken, first: None, is_over: false };
        Self { cluster, rounds: [round(avoided), round(used)] }
    }

    /// Returns a subnet that no network has and, as far as the pools have one, that no node has a link or a route to:
    /// behind the one given out last, if it was cut from these pools, going round once.
    fn free(&mut self, last: Option<IpNet>) -> Option<Ipv4Net> {
        self.rounds.iter_mut().find_map(|round| round.next(self.cluster, last))
    }

    fn take(&mut self, subnet: Ipv4Net) {
        self.rounds.iter_mut().for_each(|round| round.taken.insert(subnet));
    }
}

impl Round {
    fn next(&mut self, cluster: &Cluster, last: Option<IpNet>) -> Option<Ipv4Net> {
        if self.is_over {
            return None;
        }
        let free = |candidate: &Ipv4Net| !self.taken.meets(*candidate);
        let behind = |one: IpNet| cluster.pool_subnets_behind(one);
        if let Some(found) = last.and_then(|last| behind(last).find(free)) {
            return Some(found);
        }
        let found = match self.first {
            Some(first) => std::iter::once(first).chain(behind(first.into())).find(free),
            None => cluster.pool_subnets().find(free),
        };
        (self.first, self.is_over) = (found, found.is_none());
        found
    }
}

// ---- services -----------------------------------------------------------------------------------------

/// Gives services their virtual addresses and ports; returns why some did not get all of theirs.
fn services(draft: &mut Draft<'_>, acks: &Acks, left: &mut Left) -> BTreeMap<ServiceId, String> {
    let mut blocked = BTreeMap::new();
    let services: Vec<Arc<Service>> =
        draft.tables().services.values().filter(|s| !s.pending_delete).cloned().collect();
    for service in services {
        if let Err(reason) = endpoint(draft, &service, acks, left) {
            draft.say(&service.spec.name, "not allocated", reason.clone());
            blocked.insert(service.id, reason);
        }
    }
    blocked
}

fn endpoint(draft: &mut Draft<'_>, service: &Service, acks: &Acks, left: &mut Left) -> Result<(), String> {
    let ports = ports(draft, service, &mut left.ports)?;
    let wanted = overlays(draft, service.spec.task.networks.iter().map(|n| n.network))?;
    let (mut needed, mut vips) = (BTreeSet::new(), Vec::new());
    if service.spec.endpoint.mode == EndpointMode::Vip {
        let had: BTreeMap<NetworkId, Vip> =
            service.endpoint.vips.iter().rev().map(|vip| (vip.network, *vip)).collect();
        for network in wanted {
            let vip = match had.get(&network.id) {
                Some(vip) => *vip,
                None => {
                    let address = free_address(draft, &network, &mut left.exhausted);
                    Vip { network: network.id, address: address.ok_or_else(|| exhausted(&network))? }
                }
            };
            needed.insert(network.id);
            vips.push(vip);
        }
    }
    // What it needs no more is in no table from now on, and its own until every node has heard that.
    let needless = service.endpoint.vips.iter().filter(|old| !needed.contains(&old.network));
    let needless: Vec<Vip> =
        needless.filter(|vip| !is_forgotten(draft, service, vip, acks)).copied().collect();
    vips.extend(needless);
    let fresh = model::Endpoint { vips, ports };
    if fresh == service.endpoint || draft.edit_service(service.id, |s| s.endpoint = fresh) {
        Ok(())
    } else {
        Err("what it needs is held by another service".to_owned())
    }
}

/// Returns true if no node has a table with a service's virtual address in it, which the service as it is stored does not
/// need.
pub(crate) fn is_forgotten(draft: &Draft<'_>, service: &Service, vip: &Vip, acks: &Acks) -> bool {
    // Tables made at or behind the version at which it was stored so are without it.
    let stored = draft.base().services.get(&service.id);
    let is_stored = stored.is_some_and(|stored| {
        stored.spec_version == service.spec_version && stored.pending_delete == service.pending_delete
    });
    !draft.tables().networks.contains(&vip.network)
        || is_stored && stored.is_some_and(|stored| acks.has_heard(vip.network, stored.meta.version))
}

fn exhausted(network: &Network) -> String {
    format!("no address left in network {:?}", network.spec.name)
}

/// Returns the overlay networks among those named, each once.
fn overlays(draft: &Draft<'_>, ids: impl Iterator<Item = NetworkId>) -> Result<Vec<Arc<Network>>, String> {
    let (mut found, mut seen): (Vec<Arc<Network>>, _) = (Vec::new(), BTreeSet::new());
    for id in ids {
        let network =
            draft.tables().networks.get(&id).ok_or_else(|| format!("network {id} does not exist"))?;
        if network.spec.driver != NetworkDriver::Overlay || !seen.insert(id) {
            continue;
        }
        if network.allocation.is_none() {
            return Err(format!("network {:?} has no subnet yet", network.spec.name));
        }
        found.push(network.clone());
    }
    Ok(found)
}

/// Returns the ports with every ingress port chosen; a chosen one is kept while its target stays.
fn ports(
    draft: &Draft<'_>,
    service: &Service,
    left: &mut BTreeMap<Protocol, Unpublished>,
) -> Result<Vec<PortConfig>, String> {
    let mut ports = service.spec.endpoint.ports.clone();
    let is_ingress = |p: &PortConfig| p.mode == PublishMode::Ingress;
    if ports.iter().any(|p| is_ingress(p) && p.published == 0) {
        choose_ports(draft, service, &mut ports, left).ok_or("no port left in 30000-32767")?;
    }
    for port in ports.iter().filter(|p| is_ingress(p)) {
        let owner = match port_owner(draft, port.protocol, port.published) {
            Some(ObjectRef::Service(owner)) => Some(owner),
            _ => None,
        };
        if let Some(owner) = owner.filter(|owner| *owner != service.id) {
            let name = draft.tables().services.get(&owner).map_or(String::new(), |s| s.spec.name.clone());
            return Err(format!("port {} is already in use by service {name:?}", port.published));
        }
    }
    Ok(ports)
}

/// Chooses the ingress ports that are left to us; `None` if there are not enough.
fn choose_ports(
    draft: &Draft<'_>,
    service: &Service,
    ports: &mut [PortConfig],
    left: &mut BTreeMap<Protocol, Unpublished>,
) -> Option<()> {
    let is_ingress = |p: &PortConfig| p.mode == PublishMode::Ingress;
    let is_dynamic = |p: &PortConfig| DYNAMIC_PORTS.contains(&p.published);
    let mut mine: BTreeSet<(Protocol, u16)> =
        ports.iter().filter(|p| is_ingress(p)).map(|p| (p.protocol, p.published)).collect();
    let mut before: BTreeMap<(Protocol, u16), VecDeque<u16>> = BTreeMap::new();
    for old in service.endpoint.ports.iter().filter(|p| is_ingress(p) && is_dynamic(p)) {
        before.entry((old.protocol, old.target)).or_default().push_back(old.published);
    }
    // On a host of its own it may publish them as well.
    let stored = draft.base().services.get(&service.id).map(|stored| &**stored);
    let all = [Some(service), stored].into_iter().flatten();
    let all = all.flat_map(|s| s.spec.endpoint.ports.iter().chain(&s.endpoint.ports));
    let own: BTreeSet<(Protocol, u16)> =
        all.filter(|p| !is_ingress(p) && is_dynamic(p)).map(|p| (p.protocol, p.published)).collect();
    // All below are others' or chosen already.
    let mut from: BTreeMap<Protocol, u16> = BTreeMap::new();
    for port in ports.iter_mut().filter(|p| is_ingress(p) && p.published == 0) {
        let protocol = port.protocol;
        let kept = before.get_mut(&(protocol, port.target)).and_then(|old| {
            std::iter::from_fn(|| old.pop_front()).find(|number| !mine.contains(&(protocol, *number)))
        });
        port.published = match kept {
            Some(number) => number,
            None => {
                let from = from.entry(protocol).or_insert(*DYNAMIC_PORTS.start());
                let left = left.entry(protocol).or_default();
                let is_free = |number: u16, except: Option<ServiceId>| {
                    let wanted = PortConfig { published: number, ..port.clone() };
                    port_owner(draft, protocol, number).is_none()
                        && [draft.tables(), draft.base()]
                            .iter()
                            .all(|tables| tables.port_holder(&wanted, except).is_none())
                };
                loop {
                    let own = own.range((protocol, *from)..=(protocol, u16::MAX)).next();
                    let nobodys = left.next(*from, |number| is_free(number, None));
                    let number = [own.map(|(_, number)| *number), nobodys].into_iter().flatten().min()?;
                    *from = number + 1; // of at most 32768
                    if mine.contains(&(protocol, number)) {
                        continue;
                    }
                    if is_free(number, Some(service.id)) {
                        break number;
                    }
                    left.remove(number);
                }
            }
        };
        mine.insert((protocol, port.published));
    }
    Some(())
}

/// Ports of the dynamic range that no service publishes, found as far as they were asked for.
#[derive(Default)]
struct Unpublished {
    free: BTreeSet<u16>,
    /// How many of the range have been looked at.
    seen: u16,
}

impl Unpublished {
    /// Returns the first one from `from` on.
    fn next(&mut self, from: u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        loop {
            if let Some(number) = self.free.range(from..).next() {
                return Some(*number);
            }
            let number = DYNAMIC_PORTS.start() + self.seen;
            if !DYNAMIC_PORTS.contains(&number) {
                return None;
            }
            self.seen += 1;
            if is_free(number) {
                self.free.insert(number);
            }
        }
    }

    /// Somebody was given it in this step.
    fn remove(&mut self, number: u16) {
        self.free.remove(&number);
    }
}

fn port_owner(draft: &Draft<'_>, protocol: Protocol, port: u16) -> Option<ObjectRef> {
    draft.tables().owner_of_port(protocol, port).or_else(|| draft.base().owner_of_port(protocol, port))
}

// ---- tasks --------------------------------------------------------------------------------------------

fn tasks(draft: &mut Draft<'_>, blocked: &BTreeMap<ServiceId, String>, left: &mut Left) {
    let waiting: Vec<Arc<Task>> = draft
        .tables()
        .tasks
        .values()
        .filter(|t| t.node().is_none() && slots::is_live(t) && !slots::is_over(t))
        .cloned()
        .collect();
    for task in waiting {
        let outcome = match blocked.get(&task.service) {
            Some(reason) => Err(reason.clone()),
            None => attachments(draft, &task, &mut left.exhausted),
        };
        match outcome {
            Ok(attachments) => {
                draft.edit_task(task.id, |t| {
                    t.attachments = attachments;
                    if t.placement == Placement::Unallocated {
                        t.placement = Placement::Pending { reason: String::new() };
                    }
                });
            }
            Err(reason) => set_pending(draft, task.id, reason),
        }
    }
}

pub(crate) fn set_pending(draft: &mut Draft<'_>, task: TaskId, reason: String) {
    draft.edit_task(task, |t| t.placement = Placement::Pending { reason });
}

/// Returns true if a task has all the addresses its networks give.
pub(crate) fn is_attached(draft: &Draft<'_>, task: &Task) -> bool {
    overlays(draft, task.spec.networks.iter().map(|n| n.network)).is_ok_and(|wanted| {
        let has: BTreeSet<NetworkId> = task.attachments.iter().map(|a| a.network).collect();
        wanted.len() == task.attachments.len() && wanted.iter().all(|n| has.contains(&n.id))
    })
}

fn attachments(
    draft: &Draft<'_>,
    task: &Task,
    full: &mut BTreeSet<NetworkId>,
) -> Result<Vec<Attachment>, String> {
    if is_attached(draft, task) {
        return Ok(task.attachments.clone());
    }
    let wanted = overlays(draft, task.spec.networks.iter().map(|n| n.network))?;
    let specs: BTreeMap<NetworkId, _> = task.spec.networks.iter().rev().map(|n| (n.network, n)).collect();
    let mut attachments = Vec::with_capacity(wanted.len());
    for network in wanted {
        let address = free_address(draft, &network, full).ok_or_else(|| exhausted(&network))?;
        let prefix = network.allocation.map_or(0, |a| a.subnet.prefix_len());
        let address = IpNet::new(address, prefix).map_err(|e| e.to_string())?;
        let aliases = specs.get(&network.id).map_or_else(Vec::new, |n| n.aliases.clone());
        attachments.push(Attachment { network: network.id, address, aliases });
    }
    Ok(attachments)
}

// ---- addresses ----------------------------------------------------------------------------------------

/// Returns the next free address of a network behind the one given out last; notes that it is `full` when there is none.
fn free_address(draft: &Draft<'_>, network: &Network, full: &mut BTreeSet<NetworkId>) -> Option<IpAddr> {
    if full.contains(&network.id) {
        return None;
    }
    let allocation = network.allocation?;
    let hosts = hosts(allocation.subnet);
    let range = match network.spec.ip_range {
        Some(range) => {
            let inner = bounds(range.trunc());
            (*hosts.start()).max(*inner.start())..=(*hosts.end()).min(*inner.end())
        }
        None => hosts,
    };
    let is_free = |address: &IpAddr| {
        *address != allocation.gateway
            && *address != at(allocation.subnet, 1)
            && draft.tables().owner_of_address(network.id, *address).is_none()
            && draft.base().owner_of_address(network.id, *address).is_none()
    };
    let found = next_in(range, draft.tables().last_address(network.id), allocation.subnet.addr(), is_free);
    if found.is_none() {
        full.insert(network.id);
    }
    found
}

/// Returns the subnet of task addresses of the node with this index, the first address of which is the
/// host's own; `None` when the pool has no such subnet.
pub fn task_subnet(pool: Ipv4Net, index: u16) -> Option<Ipv4Net> {
    let base = u32::from(pool.network()).checked_add(u32::from(index) << (32 - TASK_SUBNET_PREFIX))?;
    let subnet = Ipv4Net::new(Ipv4Addr::from(base), TASK_SUBNET_PREFIX).ok()?;
    pool.contains(&subnet).then_some(subnet)
}

/// Returns the next free gateway address on a node behind `last`.
pub(crate) fn free_gateway(
    draft: &Draft<'_>,
    cluster: &Cluster,
    node: NodeId,
    last: Option<IpAddr>,
) -> Option<IpAddr> {
    let index = draft.tables().nodes.get(&node)?.index;
    let subnet = IpNet::V4(task_subnet(cluster.task_pool, index)?);
    let is_free = |address: &IpAddr| {
        *address != at(subnet, 1)
            && draft.tables().owner_of_gateway(*address).is_none()
            && draft.base().owner_of_gateway(*address).is_none()
    };
    next_in(hosts(subnet), last, subnet.addr(), is_free)
}

/// Returns the first address behind `last` that is free, going round once.
fn next_in(
    range: RangeInclusive<u128>,
    last: Option<IpAddr>,
    like: IpAddr,
    is_free: impl Fn(&IpAddr) -> bool,
) -> Option<IpAddr> {
    let (first, end) = (*range.start(), *range.end());
    let from = last.map(bits).filter(|l| range.contains(l) && *l < end).map_or(first, |l| l + 1);
    (from..=end).chain(first..from).map(|b| address(b, like)).find(is_free)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

/// Returns the n-th address of a subnet.
fn at(subnet: IpNet, n: u128) -> IpAddr {
    address(bits(subnet.network()) + n, subnet.addr())
}

fn bounds(subnet: IpNet) -> RangeInclusive<u128> {
    bits(subnet.network())..=bits(subnet.broadcast())
}

/// Returns the addresses of a subnet without its own and the broadcast address.
fn hosts(subnet: IpNet) -> RangeInclusive<u128> {
    let all = bounds(subnet);
    match subnet {
        IpNet::V4(_) => all.start() + 1..=all.end().saturating_sub(1),
        IpNet::V6(_) => all.start() + 1..=*all.end(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_skip_what_is_taken() {
        let subnet: IpNet = "10.0.0.0/29".parse().unwrap();
        let like = subnet.addr();
        let next = |last: &str, taken: &[&str]| {
            let taken: Vec<IpAddr> = taken.iter().map(|t| t.parse().unwrap()).collect();
            next_in(hosts(subnet), last.parse().ok(), like, |a| !taken.contains(a)).map(|a| a.to_string())
        };
        assert_eq!(next("", &[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(next("10.0.0.2", &[]).as_deref(), Some("10.0.0.3"));
        assert_eq!(next("10.0.0.6", &[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(next("10.0.0.5", &["10.0.0.6", "10.0.0.1"]).as_deref(), Some("10.0.0.2"));
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        assert_eq!(next("10.0.0.5", &all), None);
    }

    #[test]
    fn each_node_has_its_part_of_the_task_pool() {
        let pool: Ipv4Net = "10.255.0.0/16".parse().unwrap();
        assert_eq!(task_subnet(pool, 3).map(|s| s.to_string()).as_deref(), Some("10.255.3.0/24"));
        assert_eq!(task_subnet(pool, 255).map(|s| s.to_string()).as_deref(), Some("10.255.255.0/24"));
        assert_eq!(task_subnet(pool, 256), None);
    }
}
