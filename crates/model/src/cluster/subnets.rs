//! Which networks share addresses with a subnet, found without going over all of them.
//!
//! Subnets are apart or one within the other. So those that share addresses with one are those that begin where it, cut
//! to a shorter prefix, begins (it is within them), and those that begin within it.

use super::{ObjectRef, POOLS_LEVEL, Tables};
use crate::{Network, NetworkId, table::look};
use ipnet::IpNet;
use std::{collections::BTreeSet, net::IpAddr};

/// A subnet by its family, its first address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    is_v6: bool,
    first: u128,
    prefix: u8,
}

impl Range {
    fn of(subnet: IpNet) -> Self {
        Self {
            is_v6: matches!(subnet, IpNet::V6(_)),
            first: bits(subnet.network()),
            prefix: subnet.prefix_len(),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// Whose subnets count. From [`POOLS_LEVEL`] on; before, those of all networks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subnets {
    /// Of the swarm and of all networks, also while they are being removed: nodes hold them.
    All,
    /// Without networks that are being removed.
    Staying,
}

/// Returns the subnets that a network may count with.
pub(super) fn of(network: &Network) -> impl Iterator<Item = Range> {
    network.allocation.map(|a| a.subnet).into_iter().chain(network.spec.subnet).map(Range::of)
}

impl Tables {
    /// Returns a subnet that shares addresses with this one, and the network that has it (`None`: the swarm itself).
    pub fn overlapping_subnet(
        &self,
        subnet: IpNet,
        except: Option<NetworkId>,
        of: Subnets,
    ) -> Option<(IpNet, Option<ObjectRef>)> {
        let own = self.cluster.iter().flat_map(|c| [c.mesh_subnet, c.task_pool]);
        let own = own.map(|subnet| (IpNet::V4(subnet), None));
        let near = self.networks_near(subnet);
        let networks = near.into_iter().filter(|id| Some(*id) != except).filter_map(|id| {
            let network = self.networks.get(&id)?;
            let leaves = network.pending_delete && self.is_at(POOLS_LEVEL);
            let held = network.allocation.map(|a| a.subnet).filter(|_| !leaves || of == Subnets::All);
            let subnet = held.or(network.spec.subnet.filter(|_| !leaves))?;
            Some((subnet, Some(ObjectRef::Network(network.id))))
        });
        own.chain(networks).find(|(other, _)| other.contains(&subnet) || subnet.contains(other))
    }

    /// Returns the networks that have asked for or have a subnet around or within this one, by id.
    fn networks_near(&self, subnet: IpNet) -> BTreeSet<NetworkId> {
        let wanted = Range::of(subnet);
        let between = |from: Range, to: Range| {
            look();
            let range = (from, NetworkId(0))..=(to, NetworkId(u128::MAX));
            self.subnets.0.range(range).inspect(|_| look()).map(|(_, id)| *id)
        };
        let around = (0..wanted.prefix).filter_map(|prefix| {
            let wider = IpNet::new(subnet.addr(), prefix).ok()?;
            let range = Range::of(wider);
            Some(between(range, range))
        });
        let last = Range { first: bits(subnet.broadcast()), prefix: u8::MAX, ..wanted };
        around.flatten().chain(between(wanted, last)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Meta, NetworkDriver, NetworkSpec, Object, table::looks};
    use std::sync::Arc;

    fn tables(subnets: impl IntoIterator<Item = IpNet>) -> Tables {
        let mut tables = Tables::default();
        for (id, subnet) in (1..).zip(subnets) {
            let mut spec = NetworkSpec::new(format!("net{id}"), NetworkDriver::Overlay);
            spec.subnet = Some(subnet);
            let (id, meta) = (NetworkId(id), Meta::default());
            let network = Network { id, meta, spec, allocation: None, pending_delete: false };
            tables.restore(Object::Network(Arc::new(network))).unwrap();
        }
        tables
    }

    #[test]
    fn a_subnet_is_found_around_another_and_within_it_and_nothing_else_is() {
        let all = ["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/30", "10.9.0.0/24", "fd00:1::/64", "10.2.0.0/30"];
        let tables = tables(all.map(|net| net.parse().unwrap()));
        let meets = |net: &str, except: Option<u128>| {
            let found = tables.overlapping_subnet(net.parse().unwrap(), except.map(NetworkId), Subnets::All);
            found.map(|(_, owner)| owner.unwrap())
        };
        let network = |id| Some(ObjectRef::Network(NetworkId(id)));
        assert_eq!(meets("10.1.2.128/25", None), network(1), "the first by id of those that it is within");
        assert_eq!(meets("10.1.2.128/25", Some(1)), network(2));
        assert_eq!(meets("10.0.0.0/8", Some(1)), network(2), "within it");
        assert_eq!(meets("10.2.0.0/30", None), network(3), "just the same");
        assert_eq!(meets("10.2.0.0/30", Some(3)), network(6), "two may ask for the same");
        assert_eq!(meets("fd00::/16", None), network(5));
        assert_eq!(meets("0.0.0.0/0", None), network(1));
        for apart in ["10.2.0.4/30", "10.8.255.0/24", "10.9.1.0/24", "fd00:2::/64", "::a01:200/120"] {
            assert_eq!(meets(apart, None), None, "{apart}");
        }
    }

    #[test]
    fn a_subnet_is_looked_for_with_as_much_work_however_many_networks_there_are() {
        let work = |networks: u8| {
            let nets = (0..networks).map(|n| IpNet::new([10, n, 0, 0].into(), 24).unwrap());
            let tables = tables(nets);
            let before = looks();
            assert_eq!(tables.overlapping_subnet("11.0.0.0/24".parse().unwrap(), None, Subnets::All), None);
            looks() - before
        };
        assert_eq!(work(5), work(200));
    }
}
