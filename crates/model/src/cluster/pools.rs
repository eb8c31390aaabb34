//! The address pools of a swarm: which subnets they are cut into, which of them are taken, and how many networks still
//! wait for one.

use super::{Conflict, Event, Object, ObjectRef, Tables};
use crate::{Cluster, Network, NetworkDriver};
use ipnet::{IpNet, Ipv4Net};

/// The first feature level at which a batch is refused whose networks the pools have no subnets for, and at which a
/// network may ask for the subnet of one that is being removed.
pub const POOLS_LEVEL: u32 = 3;

/// Addresses of IPv4 that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken(Vec<(u32, u32)>);

impl FromIterator<Ipv4Net> for Taken {
    fn from_iter<T: IntoIterator<Item = Ipv4Net>>(subnets: T) -> Self {
        let bounds = |net: Ipv4Net| (u32::from(net.network()), u32::from(net.broadcast()));
        let mut ranges: Vec<(u32, u32)> = subnets.into_iter().map(bounds).collect();
        ranges.sort_unstable();
        // Subnets are apart or one within the other: those within go.
        ranges.dedup_by(|next, kept| next.1 <= kept.1);
        Self(ranges)
    }
}

impl Taken {
    /// Returns true if a subnet shares addresses with what is taken. O(log n).
    pub fn meets(&self, subnet: Ipv4Net) -> bool {
        let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
        let at = self.0.partition_point(|(_, end)| *end < first);
        self.0.get(at).is_some_and(|(begin, _)| *begin <= last)
    }
}

impl Cluster {
    /// Returns the subnets that the pools are cut into, in the order in which they are given out.
    pub fn pool_subnets(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.address_pools.iter().flat_map(|pool| {
            let prefix = self.subnet_prefix.max(pool.prefix_len());
            pool.subnets(prefix).into_iter().flatten()
        })
    }
}

/// One that gets its subnet from the pools, and has none yet.
fn waits(network: &Network) -> bool {
    network.allocation.is_none()
        && network.spec.subnet.is_none()
        && network.spec.driver == NetworkDriver::Overlay
        && !network.pending_delete
}

impl Tables {
    /// Returns the subnets of IPv4 that networks have or have asked for, and the swarm's own.
    pub fn subnets_in_use(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        let own = self.cluster.iter().flat_map(|c| [c.mesh_subnet, c.task_pool]);
        let networks = self
            .networks
            .values()
            .flat_map(|n| n.allocation.map(|a| a.subnet).into_iter().chain(n.spec.subnet));
        own.chain(networks.filter_map(|subnet| if let IpNet::V4(v4) = subnet { Some(v4) } else { None }))
    }

    /// Returns how many more networks the pools have room for, networks that wait for their subnet taken off; counts
    /// no further than `limit`.
    pub fn room_for_networks(&self, limit: usize) -> usize {
        let waiting = self.networks.values().filter(|n| waits(n)).count();
        self.free_subnets(limit.saturating_add(waiting)).saturating_sub(waiting)
    }

    /// Returns how many of the networks that wait for a subnet will get none.
    fn networks_without_room(&self) -> usize {
        let waiting = self.networks.values().filter(|n| waits(n)).count();
        waiting - self.free_subnets(waiting)
    }

    /// At most `limit`.
    fn free_subnets(&self, limit: usize) -> usize {
        let Some(cluster) = &self.cluster else { return 0 };
        let taken: Taken = self.subnets_in_use().collect();
        cluster.pool_subnets().filter(|subnet| !taken.meets(*subnet)).take(limit).count()
    }
}

/// Refuses new networks that would get no subnet, or that take one which another waits for: two that are made at once
/// may each have seen the last one free.
///
/// # Errors
/// [`Conflict::NoSubnetLeft`], of the last such network of the batch.
pub(super) fn judge(before: &Tables, after: &Tables, events: &[Event]) -> Result<(), Conflict> {
    let new = events.iter().rev().find_map(|event| match event {
        Event::Created(Object::Network(network)) if network.spec.driver == NetworkDriver::Overlay => {
            Some(ObjectRef::Network(network.id))
        }
        _ => None,
    });
    match new {
        Some(network) if after.networks_without_room() > before.networks_without_room() => {
            Err(Conflict::NoSubnetLeft { network })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_found_in_and_around_other_subnets() {
        let nets = |texts: &[&str]| -> Vec<Ipv4Net> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        let taken: Taken = nets(&["10.9.0.0/24", "10.0.0.0/16", "10.0.3.0/24", "10.2.0.0/30", "10.9.0.0/24"])
            .into_iter()
            .collect();
        for net in nets(&["10.0.0.0/8", "10.0.3.128/25", "10.0.200.0/24", "10.2.0.0/24", "10.9.0.7/32"]) {
            assert!(taken.meets(net), "{net}");
        }
        for net in nets(&["10.1.0.0/16", "10.2.0.4/30", "10.8.255.0/24", "10.9.1.0/24", "9.0.0.0/8"]) {
            assert!(!taken.meets(net), "{net}");
        }
        assert!(!Taken::from_iter([]).meets("0.0.0.0/0".parse().unwrap()));
    }
}
