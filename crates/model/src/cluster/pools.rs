//! The address pools of a swarm: which subnets they are cut into, which of them are taken, and how many networks still
//! wait for one.

use super::{Conflict, Event, Object, ObjectRef, Tables};
use crate::{Cluster, Network, NetworkDriver, table::look};
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets};
use std::collections::BTreeMap;

/// The first feature level at which a batch is refused whose networks the pools have no subnets for, and at which a
/// network may ask for the subnet of one that is being removed.
pub const POOLS_LEVEL: u32 = 3;

/// Addresses of IPv4 that somebody has: ranges that are apart, the last address of each by its first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken(BTreeMap<u32, u32>);

impl FromIterator<Ipv4Net> for Taken {
    fn from_iter<T: IntoIterator<Item = Ipv4Net>>(subnets: T) -> Self {
        let mut taken = Self::default();
        subnets.into_iter().for_each(|subnet| taken.insert(subnet));
        taken
    }
}

impl Taken {
    /// Takes a subnet. O(log n), and what is within it once more.
    pub fn insert(&mut self, subnet: Ipv4Net) {
        let (first, last) = bounds(subnet);
        // Subnets are apart or one within the other.
        if self.0.range(..=first).next_back().is_some_and(|(_, end)| *end >= last) {
            return;
        }
        let within: Vec<u32> = self.0.range(first..=last).map(|(begin, _)| *begin).collect();
        for begin in within {
            self.0.remove(&begin);
        }
        self.0.insert(first, last);
    }

    /// Returns true if a subnet shares addresses with what is taken. O(log n).
    pub fn meets(&self, subnet: Ipv4Net) -> bool {
        look();
        let (first, last) = bounds(subnet);
        self.0.range(..=last).next_back().is_some_and(|(_, end)| *end >= first)
    }
}

fn bounds(net: Ipv4Net) -> (u32, u32) {
    (u32::from(net.network()), u32::from(net.broadcast()))
}

impl Cluster {
    /// Returns the subnets that the pools are cut into, in the order in which they are given out.
    pub fn pool_subnets(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.address_pools.iter().flat_map(|pool| pool.subnets(self.prefix_in(*pool)).into_iter().flatten())
    }

    /// Returns those of them that stand behind one; nothing if it is none of them. O(1) up to the first.
    pub fn pool_subnets_behind(&self, one: IpNet) -> impl Iterator<Item = Ipv4Net> + '_ {
        let is_of = |pool: &Ipv4Net| match one {
            IpNet::V4(one) => {
                one == one.trunc() && one.prefix_len() == self.prefix_in(*pool) && pool.contains(&one)
            }
            IpNet::V6(_) => false,
        };
        let at = self.address_pools.iter().position(is_of);
        let (pool, others) = at.map_or((None, &[][..]), |at| {
            (self.address_pools.get(at).copied(), self.address_pools.get(at + 1..).unwrap_or_default())
        });
        let rest = pool.and_then(|pool| {
            let IpNet::V4(one) = one else { return None };
            let next =
                u32::from(one.broadcast()).checked_add(1).filter(|n| *n <= u32::from(pool.broadcast()));
            Some(Ipv4Subnets::new(next?.into(), pool.broadcast(), self.prefix_in(pool)))
        });
        let others = others.iter().flat_map(|pool| pool.subnets(self.prefix_in(*pool)).into_iter().flatten());
        rest.into_iter().flatten().chain(others)
    }

    fn prefix_in(&self, pool: Ipv4Net) -> u8 {
        self.subnet_prefix.max(pool.prefix_len())
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
        let mut grown = Taken::default();
        nets(&["10.0.3.0/24", "10.0.0.0/16", "10.2.0.0/30", "10.9.0.0/24"])
            .into_iter()
            .for_each(|n| grown.insert(n));
        assert_eq!(grown, taken, "in whatever order");
    }

    #[test]
    fn what_stands_behind_a_subnet_is_the_rest_of_the_pools() {
        let mut cluster = Cluster::new(crate::ClusterId(1));
        let pools = ["10.1.0.0/22", "10.9.0.0/28", "10.5.0.0/23"];
        (cluster.address_pools, cluster.subnet_prefix) = (pools.map(|p| p.parse().unwrap()).into(), 24);
        let all: Vec<Ipv4Net> = cluster.pool_subnets().collect();
        assert_eq!(all.len(), 7);
        for (at, one) in all.iter().enumerate() {
            let behind: Vec<Ipv4Net> = cluster.pool_subnets_behind(IpNet::V4(*one)).collect();
            assert_eq!(behind, all[at + 1..], "{one}");
        }
        for stranger in ["10.2.0.0/24", "10.1.0.0/25", "10.1.0.0/22", "fd00::/24"] {
            assert_eq!(cluster.pool_subnets_behind(stranger.parse().unwrap()).count(), 0, "{stranger}");
        }
    }
}
