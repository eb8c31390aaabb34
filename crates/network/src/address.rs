//! Addresses computed, not allocated: MACs from (VNI, IPv4), and a node's mesh address, task subnet and
//! mark from its index.

use crate::spec::{Error, NodeIdentity};
use ipnet::Ipv4Net;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// VNI of the mesh between hosts.
pub(crate) const MESH_VNI: u32 = 4096;
/// Every task's way out: an address no interface holds; its neighbour entry is permanent.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Host side of every routed veth.
pub(crate) const GATEWAY_MAC: Mac = Mac([0x0a, 0, 0, 0, 0xff, 0xff]);
/// Where containers find their name server.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Of every bridge with IPv6, as Docker has it. The kernel asks for neighbours from the link's own address, and one
/// that it makes itself is of no use in its first second.
pub(crate) const BRIDGE_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Bits of the packet mark that carry the entry host.
pub(crate) const MARK_MASK: u32 = 0x1_ffff;
/// VNI that stands for the routed legs in [`Mac::of`].
const ROUTED_VNI: u32 = 4095;

/// An Ethernet address of one machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// The MAC of an address on a network: the same whichever task holds the address, so that a cached
    /// ARP entry in a peer never goes stale.
    pub(crate) fn of(vni: u32, address: Ipv4Addr) -> Self {
        let [_, b, c, d] = address.octets();
        let [_, _, high, low] = vni.to_be_bytes();
        Self([0x0a, low, b, c, d, high])
    }

    pub(crate) fn of_routed(address: Ipv4Addr) -> Self {
        Self::of(ROUTED_VNI, address)
    }

    /// Docker's form for local bridges.
    pub(crate) fn of_bridged(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The address that an interface with this MAC makes itself. Source: RFC 4291, appendix A.
    pub(crate) fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// A node's MAC on the mesh.
    pub(crate) fn of_node(index: u16) -> Self {
        let [high, low] = index.to_be_bytes();
        Self([0x0a, 0, 0, 0, high, low])
    }
}

impl std::str::FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidMac(text.to_owned());
        let bytes: Result<Vec<u8>, _> =
            text.split([':', '-']).map(|byte| u8::from_str_radix(byte, 16)).collect();
        let bytes: [u8; 6] = bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(invalid)?;
        // The lowest bit of the first byte marks groups.
        if bytes[0] & 1 != 0 || bytes == [0; 6] { Err(invalid()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's place on the mesh, by its index.
pub(crate) fn mesh_address(mesh: Ipv4Net, index: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(mesh.network()) + u32::from(index))
}

/// The /24 that a node's routed legs are cut from.
pub(crate) fn task_subnet(pool: Ipv4Net, index: u16) -> Ipv4Net {
    let base = Ipv4Addr::from(u32::from(pool.network()).wrapping_add(u32::from(index) << 8));
    Ipv4Net::new(base, 24).expect("24 is a prefix length")
}

/// Index of the node whose task has this address of the pool.
pub(crate) fn index_of_task(pool: Ipv4Net, address: Ipv4Addr) -> u16 {
    let offset = u32::from(address).wrapping_sub(u32::from(pool.network()));
    u16::try_from(offset >> 8).unwrap_or(u16::MAX)
}

/// The node's own address, as its task with this gateway address sees it.
pub fn node_of_task(gateway: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = gateway.octets();
    Ipv4Addr::new(a, b, c, 1)
}

/// A node's own address in its task subnet.
pub(crate) fn task_gateway(pool: Ipv4Net, index: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(task_subnet(pool, index).network()) + 1)
}

pub(crate) fn mark(index: u16) -> u32 {
    0x1_0000 + u32::from(index)
}

pub(crate) fn return_table(index: u16) -> u32 {
    7000 + u32::from(index)
}

/// Checks what the functions above take for granted.
pub(crate) fn check(identity: &NodeIdentity) -> Result<(), Error> {
    let (index, pool) = (identity.index, identity.task_pool);
    if index == 0 || !pool.contains(&task_subnet(pool, index)) || !fits(identity.mesh_subnet, index) {
        return Err(Error::IndexOutOfPool { index, pool });
    }
    Ok(())
}

fn fits(mesh: Ipv4Net, index: u16) -> bool {
    mesh.contains(&mesh_address(mesh, index))
}

pub(crate) fn v4(address: IpAddr, what: &'static str) -> Result<Ipv4Addr, Error> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(_) => Err(Error::Ipv6(what)),
    }
}

/// Twelve characters that stand for a sandbox in interface names.
pub(crate) fn key(id: &str) -> String {
    match id.get(..12) {
        Some(head) if head.bytes().all(|b| b.is_ascii_hexdigit()) => head.to_ascii_lowercase(),
        _ => {
            // FNV-1a: stable over restarts and releases, as names of things that outlive the daemon must be.
            let hash = id
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            format!("{:012x}", hash >> 16)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_differ_by_network_and_address_only() {
        let a = Ipv4Addr::new(10, 0, 1, 11);
        assert_eq!(Mac::of(4097, a).to_string(), "0a:01:00:01:0b:10");
        assert_ne!(Mac::of(4097, a), Mac::of(4098, a));
        assert_ne!(Mac::of(4097, a), Mac::of(4097, Ipv4Addr::new(10, 0, 1, 12)));
    }

    #[test]
    fn a_link_local_address_is_made_of_the_mac() {
        let mac: Mac = "02:42:0a:47:00:02".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::42:aff:fe47:2");
    }

    #[test]
    fn a_node_index_fixes_its_addresses() {
        let (mesh, pool) = ("10.254.0.0/16".parse().unwrap(), "10.255.0.0/16".parse().unwrap());
        assert_eq!(mesh_address(mesh, 258), Ipv4Addr::new(10, 254, 1, 2));
        assert_eq!(task_subnet(pool, 3).to_string(), "10.255.3.0/24");
        assert_eq!(task_gateway(pool, 3), Ipv4Addr::new(10, 255, 3, 1));
    }

    #[test]
    fn keys_fit_into_interface_names() {
        assert_eq!(key("0123456789abcdef"), "0123456789ab");
        assert_eq!(key("test-web").len(), 12);
        assert_ne!(key("test-web"), key("test-web2"));
    }
}
