//! Gives out what may have one owner only: VXLAN identifiers, subnets, virtual addresses, published ports,
//! addresses of tasks.
//!
//! An address that is freed in this step is not given out in it: others must first hear that it is free.
//! What cannot be given leaves its task pending with the reason, and is tried again at the next step.

use crate::{Acks, draft::Draft, slots};
use ipnet::{IpNet, Ipv4Net};
use model::{
    Attachment, Cluster, EndpointMode, Network, NetworkAllocation, NetworkDriver, NetworkId, NodeId, Object,
    ObjectRef, Placement, PortConfig, Protocol, PublishMode, Service, Subnets, Tables, Taken, Task, TaskId,
    Vip,
};
use std::{
    collections::{BTreeMap, BTreeSet},
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
    let blocked = services(draft, acks);
    tasks(draft, &blocked);
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
    for network in waiting {
        if let Some(holder) = network.spec.subnet.and_then(|subnet| holder(draft, &network, subnet.trunc())) {
            let reason =
                format!("network {holder}, which is being removed, still holds its subnet on some node");
            draft.say(&network.spec.name, "not allocated", reason);
            continue;
        }
        let subnet = network.spec.subnet.or_else(|| free_subnet(draft, cluster).map(IpNet::V4));
        let (Some(subnet), Some(vni)) = (subnet, free_vni(draft)) else {
            draft.say(&network.spec.name, "not allocated", "no subnet left in the swarm's address pools");
            continue;
        };
        let subnet = subnet.trunc();
        let gateway = network.spec.gateway.unwrap_or_else(|| at(subnet, 1));
        draft.say(&network.spec.name, "allocated", format!("{subnet}, VNI {vni}"));
        let mut new = Network::clone(&network);
        new.allocation = Some(NetworkAllocation { vni, subnet, gateway });
        draft.put(Object::Network(Arc::new(new)));
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

/// Returns a subnet that no network has and, as far as the pools have one, that no node has a link or a route to.
fn free_subnet(draft: &Draft<'_>, cluster: &Cluster) -> Option<Ipv4Net> {
    let used = || draft.tables().subnets_in_use().chain(draft.base().subnets_in_use());
    // Only as far as possible: a route to all of 10.0.0.0/8, as many a company has, leaves nothing of the pool.
    let described = draft.tables().nodes.values().filter_map(|node| node.description.as_ref());
    let elsewhere = described.flat_map(|description| &description.networks);
    let elsewhere = elsewhere.filter_map(|net| if let IpNet::V4(v4) = net { Some(*v4) } else { None });
    let avoided: Taken = used().chain(elsewhere).collect();
    // Behind the one given out last, if it was cut from these pools, going round once.
    let last = draft.tables().last_allocation().map(|a| a.subnet);
    [avoided, used().collect()].into_iter().find_map(|taken| {
        let free = |candidate: &Ipv4Net| !taken.meets(*candidate);
        let behind = cluster.pool_subnets().skip_while(|c| Some(IpNet::V4(*c)) != last).skip(1).find(free);
        behind.or_else(|| cluster.pool_subnets().find(free))
    })
}

// ---- services -----------------------------------------------------------------------------------------

/// Gives services their virtual addresses and ports; returns why some did not get all of theirs.
fn services(draft: &mut Draft<'_>, acks: &Acks) -> BTreeMap<model::ServiceId, String> {
    let mut blocked = BTreeMap::new();
    let services: Vec<Arc<Service>> =
        draft.tables().services.values().filter(|s| !s.pending_delete).cloned().collect();
    for service in services {
        if let Err(reason) = endpoint(draft, &service, acks) {
            draft.say(&service.spec.name, "not allocated", reason.clone());
            blocked.insert(service.id, reason);
        }
    }
    blocked
}

fn endpoint(draft: &mut Draft<'_>, service: &Service, acks: &Acks) -> Result<(), String> {
    let ports = ports(draft, service)?;
    let wanted = overlays(draft, service.spec.task.networks.iter().map(|n| n.network))?;
    let mut vips: Vec<Vip> = Vec::new();
    if service.spec.endpoint.mode == EndpointMode::Vip {
        for network in wanted {
            match service.endpoint.vips.iter().find(|v| v.network == network.id) {
                Some(vip) => vips.push(*vip),
                None => {
                    let taken: BTreeSet<_> = vips.iter().map(|v| (v.network, v.address)).collect();
                    let address = free_address(draft, &network, &taken).ok_or_else(|| exhausted(&network))?;
                    vips.push(Vip { network: network.id, address });
                }
            }
        }
    }
    // What it needs no more is in no table from now on, and its own until every node has heard that.
    let left = service.endpoint.vips.iter().filter(|old| vips.iter().all(|vip| vip.network != old.network));
    let left: Vec<Vip> = left.filter(|vip| !is_forgotten(draft, service, vip, acks)).copied().collect();
    vips.extend(left);
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
    let mut found: Vec<Arc<Network>> = Vec::new();
    for id in ids {
        let network =
            draft.tables().networks.get(&id).ok_or_else(|| format!("network {id} does not exist"))?;
        if network.spec.driver != NetworkDriver::Overlay || found.iter().any(|n| n.id == id) {
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
fn ports(draft: &Draft<'_>, service: &Service) -> Result<Vec<PortConfig>, String> {
    let mut ports = service.spec.endpoint.ports.clone();
    let is_ingress = |p: &PortConfig| p.mode == PublishMode::Ingress;
    let mut mine: BTreeSet<(Protocol, u16)> =
        ports.iter().filter(|p| is_ingress(p)).map(|p| (p.protocol, p.published)).collect();
    for port in ports.iter_mut().filter(|p| is_ingress(p) && p.published == 0) {
        let before = service.endpoint.ports.iter().find(|old| {
            is_ingress(old)
                && old.target == port.target
                && old.protocol == port.protocol
                && old.published != 0
                && DYNAMIC_PORTS.contains(&old.published)
                && !mine.contains(&(old.protocol, old.published))
        });
        port.published = match before {
            Some(old) => old.published,
            None => DYNAMIC_PORTS
                .clone()
                .find(|p| {
                    let wanted = PortConfig { published: *p, ..port.clone() };
                    !mine.contains(&(port.protocol, *p))
                        && port_owner(draft, port.protocol, *p).is_none()
                        && [draft.tables(), draft.base()]
                            .iter()
                            .all(|tables| tables.port_holder(&wanted, Some(service.id)).is_none())
                })
                .ok_or("no port left in 30000-32767")?,
        };
        mine.insert((port.protocol, port.published));
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

fn port_owner(draft: &Draft<'_>, protocol: Protocol, port: u16) -> Option<ObjectRef> {
    draft.tables().owner_of_port(protocol, port).or_else(|| draft.base().owner_of_port(protocol, port))
}

// ---- tasks --------------------------------------------------------------------------------------------

fn tasks(draft: &mut Draft<'_>, blocked: &BTreeMap<model::ServiceId, String>) {
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
            None => attachments(draft, &task),
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
        wanted.len() == task.attachments.len()
            && wanted.iter().all(|n| task.attachments.iter().any(|a| a.network == n.id))
    })
}

fn attachments(draft: &Draft<'_>, task: &Task) -> Result<Vec<Attachment>, String> {
    if is_attached(draft, task) {
        return Ok(task.attachments.clone());
    }
    let wanted = overlays(draft, task.spec.networks.iter().map(|n| n.network))?;
    let mut attachments = Vec::with_capacity(wanted.len());
    for network in wanted {
        let address = free_address(draft, &network, &BTreeSet::new()).ok_or_else(|| exhausted(&network))?;
        let prefix = network.allocation.map_or(0, |a| a.subnet.prefix_len());
        let address = IpNet::new(address, prefix).map_err(|e| e.to_string())?;
        let spec = task.spec.networks.iter().find(|n| n.network == network.id);
        let aliases = spec.map_or_else(Vec::new, |n| n.aliases.clone());
        attachments.push(Attachment { network: network.id, address, aliases });
    }
    Ok(attachments)
}

// ---- addresses ----------------------------------------------------------------------------------------

/// Returns the next free address of a network behind the one given out last.
fn free_address(
    draft: &Draft<'_>,
    network: &Network,
    taken: &BTreeSet<(NetworkId, IpAddr)>,
) -> Option<IpAddr> {
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
            && !taken.contains(&(network.id, *address))
    };
    next_in(range, draft.tables().last_address(network.id), allocation.subnet.addr(), is_free)
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
