//! Links, addresses, routes, neighbours, forwarding entries and rules of one network namespace, over rtnetlink.
//!
//! Every object this room makes is marked: links by [`GROUP`], addresses, routes and rules by [`PROTOCOL`]; so a
//! dump tells what is ours in a namespace shared with others. There, [`Rt::open_shared`] looks at the mark of a link
//! before it changes or deletes it or anything on it: a name alone proves nothing.
//! Source: kernel include/uapi/linux/{if_link,rtnetlink,neighbour,fib_rules}.h.

use crate::{
    address::{BRIDGE_LINK_LOCAL, Mac},
    netlink::{
        CREATE, DUMP, EXCL, Message, REPLACE, Socket, attribute, attributes, read_be32, read_str, read_u32,
    },
    spec::Macvlan,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

/// Link group of everything made here ("rs").
pub(crate) const GROUP: u32 = 0x7273;
/// Link group of what is only waiting for [`Rt::empty_graves`].
const GRAVE: u32 = 0x7278;
/// Origin number of our addresses, routes and rules; no routing daemon uses it.
pub(crate) const PROTOCOL: u8 = 147;
/// Priority of the rules that send answers back to the entry host.
pub(crate) const RULE_PRIORITY: u32 = 7000;
pub(crate) const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;
pub(crate) const LOOPBACK: &str = "lo";

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_TTL: u16 = 5;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PROXY: u16 = 11;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_UDP_CSUM: u16 = 18;
const IFLA_VXLAN_UDP_ZERO_CSUM6_TX: u16 = 19;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;

const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Ignored by kernels before 5.18.
const IFA_PROTO: u16 = 11;
/// Ours alone by construction: no need to ask the neighbours first.
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_PERMANENT: u8 = 0x80;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_MASTER: u8 = 0x04;

const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

/// A link as we want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) mtu: u32,
    /// `None` = the kernel's choice.
    pub(crate) mac: Option<Mac>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Bridge,
    Vxlan {
        vni: u32,
        local: IpAddr,
        port: u16,
        proxy: bool,
    },
    /// The other end is born in a sandbox.
    Veth {
        sandbox: String,
        peer: String,
        peer_mac: Mac,
    },
}

/// What hangs on links; in the order of making.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Port { link: String, bridge: String, flags: PortFlags },
    Address { link: String, address: IpAddr, prefix: u8 },
    Neighbour { link: String, address: Ipv4Addr, mac: Mac },
    Forwarding { link: String, mac: Mac, to: Behind },
    Route(Route),
    Rule { mark: u32, mask: u32, table: u32 },
}

impl Object {
    /// Returns the link this object goes away with.
    pub(crate) fn link(&self) -> Option<&str> {
        match self {
            Self::Port { link, .. }
            | Self::Address { link, .. }
            | Self::Neighbour { link, .. }
            | Self::Forwarding { link, .. } => Some(link),
            Self::Route(route) => route.via.link(),
            Self::Rule { .. } => None,
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port { link, bridge, .. } => write!(f, "port {link} of {bridge}"),
            Self::Address { link, address, prefix } => write!(f, "address {address}/{prefix} on {link}"),
            Self::Neighbour { link, address, mac } => write!(f, "neighbour {address} at {mac} on {link}"),
            Self::Forwarding { link, mac, to: Behind::Bridge } => {
                write!(f, "forwarding entry {mac} on {link}")
            }
            Self::Forwarding { link, mac, to: Behind::Tunnel(ip) } => {
                write!(f, "forwarding entry {mac} to {ip} on {link}")
            }
            Self::Route(route) => write!(f, "route {} in table {}", route.to, route.table),
            Self::Rule { mark, table, .. } => write!(f, "rule of mark {mark:#x} to table {table}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortFlags {
    pub(crate) learning: bool,
    /// Unknown unicast goes out of this port.
    pub(crate) flood: bool,
    pub(crate) hairpin: bool,
    /// May not talk to other isolated ports.
    pub(crate) isolated: bool,
}

/// Where a MAC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Behind {
    /// The bridge: behind this port.
    Bridge,
    /// The VXLAN: at this host.
    Tunnel(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) via: Via,
    pub(crate) to: IpNet,
    pub(crate) metric: u32,
    pub(crate) source: Option<Ipv4Addr>,
}

/// In the order of making: a gateway must be reachable first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    Link(String),
    Unreachable,
    /// The gateway need not be in any subnet of the link when `onlink`.
    Gateway {
        link: String,
        gateway: IpAddr,
        onlink: bool,
    },
}

impl Via {
    fn link(&self) -> Option<&str> {
        match self {
            Self::Link(link) | Self::Gateway { link, .. } => Some(link),
            Self::Unreachable => None,
        }
    }
}

/// A link as it is.
#[derive(Debug, Clone)]
pub(crate) struct LinkRow {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) ours: bool,
    group: u32,
    master: u32,
    port: Option<PortFlags>,
    vxlan: Option<(u32, Option<IpAddr>, u16, bool)>,
}

impl LinkRow {
    /// True when nothing but settings can differ from `link`: no need to make it anew.
    pub(crate) fn is(&self, link: &Link) -> bool {
        match &link.kind {
            Kind::Bridge => self.kind == "bridge",
            Kind::Veth { .. } => self.kind == "veth",
            Kind::Vxlan { vni, local, port, proxy } => {
                self.vxlan == Some((*vni, Some(*local), *port, *proxy))
            }
        }
    }

    /// True when the settings are right, too.
    pub(crate) fn set_as(&self, link: &Link) -> bool {
        self.up && self.mtu == link.mtu && link.mac.is_none_or(|mac| self.mac == Some(mac))
    }
}

/// All of one namespace's links and objects.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) links: BTreeMap<String, LinkRow>,
    pub(crate) objects: Vec<Object>,
    /// Those that bear our mark.
    pub(crate) own_addresses: BTreeSet<IpAddr>,
}

/// An rtnetlink socket in one namespace.
#[derive(Debug)]
pub(crate) struct Rt {
    socket: Socket,
    /// Others have links in the namespace, too.
    shared: bool,
}

/// An address of the namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressRow {
    /// Index of its link.
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) ours: bool,
}

fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![AF_UNSPEC, 0, 0, 0];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(change.to_ne_bytes());
    bytes
}

fn ndmsg(family: u8, index: u32, state: u16, flags: u8) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(state.to_ne_bytes());
    bytes.extend([flags, 0]);
    bytes
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn read_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(read_be32(value)).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|v| Ipv6Addr::from(v).into()),
        _ => None,
    }
}

fn read_v4(value: &[u8]) -> Option<Ipv4Addr> {
    (value.len() == 4).then(|| Ipv4Addr::from(read_be32(value)))
}

fn read_mac(value: &[u8]) -> Option<Mac> {
    value.try_into().ok().map(Mac)
}

impl Rt {
    /// Opens a socket in the namespace of the calling thread, where every link is ours to change.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::route()?, shared: false })
    }

    /// Opens a socket in the namespace of the calling thread, where only marked links are ours to change.
    pub(crate) fn open_shared() -> io::Result<Self> {
        Ok(Self { socket: Socket::route()?, shared: true })
    }

    /// Finds a link by its name, whosever it is.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<LinkRow> {
        let mut message = Message::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        message.str(IFLA_IFNAME, name);
        let replies = self.socket.exchange(message)?;
        let row = replies.first().and_then(|r| read_link(&r.body));
        row.ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ENODEV))
    }

    pub(crate) fn index(&mut self, name: &str) -> io::Result<u32> {
        Ok(self.link(name)?.index)
    }

    /// Returns the index of a link that may be changed, or have something put on it.
    fn ours(&mut self, name: &str) -> io::Result<u32> {
        let row = self.link(name)?;
        if self.shared && !row.ours && name != LOOPBACK {
            return Err(io::Error::other(format!("interface {name} is not of rswarm's making")));
        }
        Ok(row.index)
    }

    /// Returns the index of a link that something is to be taken from. What is somebody else's counts as gone: ours of
    /// that name must be.
    fn ours_still(&mut self, name: &str) -> io::Result<u32> {
        let row = self.link(name)?;
        if self.shared && !row.ours && name != LOOPBACK {
            return Err(io::Error::from_raw_os_error(nix::libc::ENODEV));
        }
        Ok(row.index)
    }

    /// Makes a link and brings it up. `born_in` is the namespace it appears in when not this one,
    /// `peer_in` that of a veth's other end.
    pub(crate) fn add_link(
        &mut self,
        link: &Link,
        born_in: Option<BorrowedFd<'_>>,
        peer_in: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP, IFF_UP));
        message.str(IFLA_IFNAME, &link.name).u32(IFLA_MTU, link.mtu).u32(IFLA_GROUP, GROUP);
        if let Some(mac) = link.mac {
            message.raw(IFLA_ADDRESS, &mac.0);
        }
        if let Some(fd) = born_in {
            message.u32(IFLA_NET_NS_FD, fd.as_raw_fd().cast_unsigned());
        }
        message.nest(IFLA_LINKINFO, |m| match &link.kind {
            Kind::Bridge => {
                m.str(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |m| {
                    m.u32(IFLA_BR_FORWARD_DELAY, 0).u32(IFLA_BR_STP_STATE, 0).u8(IFLA_BR_MCAST_SNOOPING, 0);
                });
            }
            Kind::Vxlan { vni, local, port, proxy } => {
                m.str(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |m| {
                    let local_kind = if local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
                    m.u32(IFLA_VXLAN_ID, *vni)
                        .raw(local_kind, &ip_bytes(*local))
                        .u8(IFLA_VXLAN_TTL, 64)
                        .u8(IFLA_VXLAN_LEARNING, 0)
                        .u8(IFLA_VXLAN_PROXY, u8::from(*proxy))
                        .be16(IFLA_VXLAN_PORT, *port)
                        .u8(IFLA_VXLAN_UDP_CSUM, 0)
                        .u8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 1)
                        .u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1);
                });
            }
            Kind::Veth { peer, peer_mac, .. } => {
                m.str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                    m.nest(VETH_INFO_PEER, |m| {
                        m.plain(&ifinfo(0, 0, 0))
                            .str(IFLA_IFNAME, peer)
                            .u32(IFLA_MTU, link.mtu)
                            .raw(IFLA_ADDRESS, &peer_mac.0);
                        if let Some(fd) = peer_in {
                            m.u32(IFLA_NET_NS_FD, fd.as_raw_fd().cast_unsigned());
                        }
                    });
                });
            }
        });
        self.socket.request(message)
    }

    /// Makes a macvlan of a link of this namespace; it is born in `netns`, down.
    pub(crate) fn add_macvlan(
        &mut self,
        name: &str,
        macvlan: &Macvlan,
        (mac, mtu): (Mac, Option<u32>),
        netns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, 0, 0));
        message.str(IFLA_IFNAME, name).u32(IFLA_LINK, self.index(&macvlan.parent)?).raw(IFLA_ADDRESS, &mac.0);
        if let Some(mtu) = mtu {
            message.u32(IFLA_MTU, mtu);
        }
        message.u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
        message.nest(IFLA_LINKINFO, |m| {
            m.str(IFLA_INFO_KIND, "macvlan").nest(IFLA_INFO_DATA, |m| {
                m.u32(IFLA_MACVLAN_MODE, macvlan.mode as u32);
            });
        });
        self.socket.request(message)
    }

    /// Sets MTU, MAC and state of a link that exists.
    pub(crate) fn set_link(&mut self, link: &Link) -> io::Result<()> {
        let index = self.ours(&link.name)?;
        let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP));
        message.u32(IFLA_MTU, link.mtu).u32(IFLA_GROUP, GROUP);
        if let Some(mac) = link.mac {
            message.raw(IFLA_ADDRESS, &mac.0);
        }
        self.socket.request(message)
    }

    pub(crate) fn set_up(&mut self, name: &str) -> io::Result<()> {
        let index = self.ours(name)?;
        self.socket.request(Message::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP)))
    }

    pub(crate) fn delete_link(&mut self, name: &str) -> io::Result<()> {
        let index = self.ours_still(name)?;
        self.socket.request(Message::new(RTM_DELLINK, 0, &ifinfo(index, 0, 0)))
    }

    /// Takes a link out of use at once and frees its name; [`Rt::empty_graves`] deletes it. Deleting waits
    /// some 40 ms for the kernel's readers, once for any number of links.
    pub(crate) fn bury_link(&mut self, name: &str) -> io::Result<()> {
        let index = self.ours_still(name)?;
        let mut out = Message::new(RTM_NEWLINK, 0, &ifinfo(index, 0, IFF_UP));
        out.u32(IFLA_MASTER, 0).u32(IFLA_GROUP, GRAVE);
        self.socket.request(out)?;
        let mut rename = Message::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
        rename.str(IFLA_IFNAME, &format!("rsx{index}"));
        self.socket.request(rename)
    }

    /// Deletes all buried links of the namespace; fine when there are none.
    pub(crate) fn empty_graves(&mut self) -> io::Result<()> {
        let mut message = Message::new(RTM_DELLINK, 0, &ifinfo(0, 0, 0));
        message.u32(IFLA_GROUP, GRAVE);
        match self.socket.request(message) {
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    pub(crate) fn add(&mut self, object: &Object) -> io::Result<()> {
        if let Object::Port { link, bridge, .. } = object {
            // The kernel looks for the bridge before it reads the port's flags: first make it a port.
            let mut enslave = Message::new(RTM_NEWLINK, 0, &ifinfo(self.ours(link)?, 0, 0));
            enslave.u32(IFLA_MASTER, self.ours(bridge)?);
            self.socket.request(enslave)?;
        }
        let message = self.message(object, true)?;
        match (self.socket.request(message), object) {
            (Err(e), Object::Route(route)) if e.raw_os_error() == Some(nix::libc::EEXIST) => {
                self.check_route(route)?;
                let index = route.via.link().map_or(Ok(0), |link| self.ours(link))?;
                self.socket.request(route_message(route, index, RTM_NEWROUTE, CREATE | REPLACE))
            }
            (result, _) => result,
        }
    }

    /// A route takes the place of another one to the same destination only if that is ours, too.
    fn check_route(&mut self, route: &Route) -> io::Result<()> {
        let there = self.route_dump()?.into_iter().any(|reply| {
            reply.body.get(5) != Some(&PROTOCOL)
                && read_place(&reply.body) == Some((route.table, route.to, route.metric))
        });
        if there && self.shared {
            return Err(io::Error::other(format!(
                "route {} of this host is not of rswarm's making",
                route.to
            )));
        }
        Ok(())
    }

    pub(crate) fn delete(&mut self, object: &Object) -> io::Result<()> {
        if let Object::Port { link, .. } = object {
            let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(self.ours_still(link)?, 0, 0));
            message.u32(IFLA_MASTER, 0);
            return self.socket.request(message);
        }
        let message = self.message(object, false)?;
        self.socket.request(message)
    }

    fn message(&mut self, object: &Object, add: bool) -> io::Result<Message> {
        let replace = if add { CREATE | REPLACE } else { 0 };
        let index = match object.link() {
            Some(link) if add => self.ours(link)?,
            Some(link) => self.ours_still(link)?,
            None => 0,
        };
        Ok(match object {
            Object::Port { flags, .. } => {
                let mut m = Message::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
                m.nest(IFLA_LINKINFO, |m| {
                    m.str(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |m| {
                        m.u8(IFLA_BRPORT_LEARNING, u8::from(flags.learning))
                            .u8(IFLA_BRPORT_UNICAST_FLOOD, u8::from(flags.flood))
                            .u8(IFLA_BRPORT_MODE, u8::from(flags.hairpin))
                            .u8(IFLA_BRPORT_ISOLATED, u8::from(flags.isolated));
                    });
                });
                m
            }
            Object::Address { address, prefix, .. } => {
                let mut fixed = vec![family(*address), *prefix, 0, SCOPE_UNIVERSE];
                fixed.extend(index.to_ne_bytes());
                let mut m = Message::new(if add { RTM_NEWADDR } else { RTM_DELADDR }, replace, &fixed);
                m.raw(IFA_LOCAL, &ip_bytes(*address)).raw(IFA_ADDRESS, &ip_bytes(*address));
                if add {
                    m.u8(IFA_PROTO, PROTOCOL);
                }
                if address.is_ipv6() && add {
                    m.u32(IFA_FLAGS, IFA_F_NODAD);
                }
                m
            }
            Object::Neighbour { address, mac, .. } => {
                let fixed = ndmsg(AF_INET, index, NUD_PERMANENT, 0);
                let mut m = Message::new(if add { RTM_NEWNEIGH } else { RTM_DELNEIGH }, replace, &fixed);
                m.raw(NDA_DST, &address.octets());
                if add {
                    m.raw(NDA_LLADDR, &mac.0);
                }
                m
            }
            Object::Forwarding { mac, to, .. } => {
                let fixed = match to {
                    Behind::Bridge => ndmsg(AF_BRIDGE, index, NUD_NOARP, NTF_MASTER),
                    Behind::Tunnel(_) => ndmsg(AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF),
                };
                let mut m = Message::new(if add { RTM_NEWNEIGH } else { RTM_DELNEIGH }, replace, &fixed);
                m.raw(NDA_LLADDR, &mac.0);
                if let Behind::Tunnel(host) = to {
                    m.raw(NDA_DST, &ip_bytes(*host));
                }
                m
            }
            Object::Route(route) if add => route_message(route, index, RTM_NEWROUTE, CREATE | EXCL),
            Object::Route(route) => route_message(route, index, RTM_DELROUTE, 0),
            Object::Rule { mark, mask, table } => {
                let fixed = [AF_INET, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
                // The kernel accepts the same rule twice, so EXCL.
                let flags = if add { CREATE | EXCL } else { 0 };
                let mut m = Message::new(if add { RTM_NEWRULE } else { RTM_DELRULE }, flags, &fixed);
                m.u32(FRA_PRIORITY, RULE_PRIORITY)
                    .u32(FRA_FWMARK, *mark)
                    .u32(FRA_FWMASK, *mask)
                    .u32(FRA_TABLE, *table)
                    .u8(FRA_PROTOCOL, PROTOCOL);
                m
            }
        })
    }

    /// Reads all links, and every object that could be of our making. Other people's are in it, too.
    pub(crate) fn dump(&mut self) -> io::Result<Dump> {
        let links = self.links()?;
        let names: BTreeMap<u32, String> = links.values().map(|l| (l.index, l.name.clone())).collect();
        let mut objects = Vec::new();
        for row in links.values() {
            if let (Some(bridge), Some(flags)) = (names.get(&row.master), row.port) {
                objects.push(Object::Port { link: row.name.clone(), bridge: bridge.clone(), flags });
            }
        }
        let mut own_addresses = BTreeSet::new();
        for row in self.all_addresses()? {
            if let Some(link) = names.get(&row.link) {
                let (link, address, prefix) = (link.clone(), row.address, row.prefix);
                objects.push(Object::Address { link, address, prefix });
                own_addresses.extend(row.ours.then_some(address));
            }
        }
        self.neighbours(&names, &mut objects)?;
        self.routes(&names, &mut objects)?;
        self.rules(&mut objects)?;
        Ok(Dump { links, objects, own_addresses })
    }

    pub(crate) fn links(&mut self) -> io::Result<BTreeMap<String, LinkRow>> {
        let replies = self.socket.exchange(Message::new(RTM_GETLINK, DUMP, &ifinfo(0, 0, 0)))?;
        Ok(replies
            .iter()
            .filter(|r| r.kind == RTM_NEWLINK)
            .filter_map(|r| read_link(&r.body))
            .filter(|row| row.group != GRAVE)
            .map(|row| (row.name.clone(), row))
            .collect())
    }

    /// Addresses of the namespace that somebody gave. Those of IPv6 that the kernel made itself, for a link or from
    /// what a router said, are left out.
    pub(crate) fn all_addresses(&mut self) -> io::Result<Vec<AddressRow>> {
        let given = |(flags, row): (u8, AddressRow)| {
            let given = match row.address {
                IpAddr::V4(_) => true,
                IpAddr::V6(BRIDGE_LINK_LOCAL) => true,
                IpAddr::V6(v6) => flags & IFA_F_PERMANENT != 0 && !v6.is_unicast_link_local(),
            };
            given.then_some(row)
        };
        Ok(self.address_rows()?.into_iter().filter_map(given).collect())
    }

    /// Every address that is this namespace's own, whoever made it.
    pub(crate) fn own_addresses(&mut self) -> io::Result<BTreeSet<IpAddr>> {
        Ok(self.address_rows()?.into_iter().map(|(_, row)| row.address).collect())
    }

    /// Flags and address.
    fn address_rows(&mut self) -> io::Result<Vec<(u8, AddressRow)>> {
        let replies =
            self.socket.exchange(Message::new(RTM_GETADDR, DUMP, &[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0]))?;
        Ok(replies
            .iter()
            .filter(|r| r.kind == RTM_NEWADDR)
            .filter_map(|r| {
                let (fixed, rest) = r.body.split_at_checked(8)?;
                let address =
                    attribute(rest, IFA_LOCAL).or(attribute(rest, IFA_ADDRESS)).and_then(read_ip)?;
                let row = AddressRow {
                    link: read_u32(&fixed[4..8]),
                    address,
                    prefix: fixed[1],
                    ours: attribute(rest, IFA_PROTO) == Some(&[PROTOCOL]),
                };
                Some((fixed[2], row))
            })
            .collect())
    }

    fn neighbours(&mut self, names: &BTreeMap<u32, String>, objects: &mut Vec<Object>) -> io::Result<()> {
        for family in [AF_INET, AF_BRIDGE] {
            let replies = self.socket.exchange(Message::new(RTM_GETNEIGH, DUMP, &ndmsg(family, 0, 0, 0)))?;
            for reply in replies.iter().filter(|r| r.kind == RTM_NEWNEIGH) {
                objects.extend(read_neighbour(&reply.body, names));
            }
        }
        Ok(())
    }

    fn routes(&mut self, names: &BTreeMap<u32, String>, objects: &mut Vec<Object>) -> io::Result<()> {
        for reply in self.route_dump()? {
            if reply.body.get(5) == Some(&PROTOCOL) {
                objects.extend(read_route(&reply.body, names).map(Object::Route));
            }
        }
        Ok(())
    }

    fn route_dump(&mut self) -> io::Result<Vec<crate::netlink::Reply>> {
        let mut routes = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut fixed = [0; 12];
            fixed[0] = family;
            let replies = self.socket.exchange(Message::new(RTM_GETROUTE, DUMP, &fixed))?;
            routes.extend(replies.into_iter().filter(|r| r.kind == RTM_NEWROUTE));
        }
        Ok(routes)
    }

    /// Destinations of other people's unicast routes, with the name of the link, default routes left out.
    pub(crate) fn foreign_destinations(&mut self) -> io::Result<Vec<(IpNet, String)>> {
        let links = self.links()?;
        let names: BTreeMap<u32, String> = links.values().map(|l| (l.index, l.name.clone())).collect();
        let ours = |name: &str| links.get(name).is_some_and(|row| row.ours);
        Ok(self
            .route_dump()?
            .iter()
            .filter(|r| r.body.get(5) != Some(&PROTOCOL))
            .filter_map(|r| read_route(&r.body, &names))
            .filter(|route| route.to.prefix_len() > 0 && route.table != TABLE_LOCAL)
            .filter_map(|route| Some((route.to, route.via.link()?.to_owned())))
            .filter(|(_, link)| !ours(link))
            .collect())
    }

    fn rules(&mut self, objects: &mut Vec<Object>) -> io::Result<()> {
        let mut fixed = [0; 12];
        fixed[0] = AF_INET;
        let replies = self.socket.exchange(Message::new(RTM_GETRULE, DUMP, &fixed))?;
        for reply in replies.iter().filter(|r| r.kind == RTM_NEWRULE) {
            let rest = reply.body.get(12..).unwrap_or_default();
            let number = |kind| attribute(rest, kind).map(read_u32);
            if attribute(rest, FRA_PROTOCOL) != Some(&[PROTOCOL]) {
                continue;
            }
            if let (Some(mark), Some(mask), Some(table)) =
                (number(FRA_FWMARK), number(FRA_FWMASK), number(FRA_TABLE))
            {
                objects.push(Object::Rule { mark, mask, table });
            }
        }
        Ok(())
    }
}

fn route_message(route: &Route, link: u32, message: u16, how: u16) -> Message {
    let (kind, scope, flags) = match &route.via {
        Via::Unreachable => (RTN_UNREACHABLE, SCOPE_UNIVERSE, 0),
        Via::Link(_) => (RTN_UNICAST, SCOPE_LINK, 0),
        Via::Gateway { onlink, .. } => (RTN_UNICAST, SCOPE_UNIVERSE, if *onlink { RTNH_F_ONLINK } else { 0 }),
    };
    let mut fixed = vec![family(route.to.addr()), route.to.prefix_len(), 0, 0, 0, PROTOCOL, scope, kind];
    fixed.extend(u32::to_ne_bytes(flags));
    let mut m = Message::new(message, how, &fixed);
    m.u32(RTA_TABLE, route.table).raw(RTA_DST, &ip_bytes(route.to.network()));
    if route.metric != 0 {
        m.u32(RTA_PRIORITY, route.metric);
    }
    if route.via.link().is_some() {
        m.u32(RTA_OIF, link);
    }
    if let Via::Gateway { gateway, .. } = &route.via {
        m.raw(RTA_GATEWAY, &ip_bytes(*gateway));
    }
    if let Some(source) = route.source {
        m.raw(RTA_PREFSRC, &source.octets());
    }
    m
}

fn read_link(body: &[u8]) -> Option<LinkRow> {
    let (fixed, rest) = body.split_at_checked(16)?;
    let mut row = LinkRow {
        index: read_u32(&fixed[4..8]),
        name: String::new(),
        kind: String::new(),
        mac: None,
        mtu: 0,
        up: read_u32(&fixed[8..12]) & IFF_UP != 0,
        ours: false,
        group: 0,
        master: 0,
        port: None,
        vxlan: None,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => row.name = read_str(value),
            IFLA_MTU => row.mtu = read_u32(value),
            IFLA_ADDRESS => row.mac = read_mac(value),
            IFLA_MASTER => row.master = read_u32(value),
            IFLA_GROUP => row.group = read_u32(value),
            IFLA_LINKINFO => read_link_kind(value, &mut row),
            _ => {}
        }
    }
    // A group alone can be set by anybody on anything.
    row.ours = row.group == GROUP && matches!(row.kind.as_str(), "bridge" | "veth" | "vxlan");
    Some(row)
}

fn read_link_kind(value: &[u8], row: &mut LinkRow) {
    row.kind = attribute(value, IFLA_INFO_KIND).map(read_str).unwrap_or_default();
    if let (Some(data), "vxlan") = (attribute(value, IFLA_INFO_DATA), row.kind.as_str()) {
        let vni = attribute(data, IFLA_VXLAN_ID).map_or(0, read_u32);
        let local =
            attribute(data, IFLA_VXLAN_LOCAL).or(attribute(data, IFLA_VXLAN_LOCAL6)).and_then(read_ip);
        let port =
            attribute(data, IFLA_VXLAN_PORT).and_then(|v| v.try_into().ok()).map_or(0, u16::from_be_bytes);
        row.vxlan = Some((vni, local, port, attribute(data, IFLA_VXLAN_PROXY) == Some(&[1])));
    }
    if let (Some(data), Some("bridge")) = (
        attribute(value, IFLA_INFO_SLAVE_DATA),
        attribute(value, IFLA_INFO_SLAVE_KIND).map(read_str).as_deref(),
    ) {
        let flag = |kind| attribute(data, kind) == Some(&[1]);
        row.port = Some(PortFlags {
            learning: flag(IFLA_BRPORT_LEARNING),
            flood: flag(IFLA_BRPORT_UNICAST_FLOOD),
            hairpin: flag(IFLA_BRPORT_MODE),
            isolated: flag(IFLA_BRPORT_ISOLATED),
        });
    }
}

fn read_neighbour(body: &[u8], names: &BTreeMap<u32, String>) -> Option<Object> {
    let (fixed, rest) = body.split_at_checked(12)?;
    let link = names.get(&read_u32(&fixed[4..8]))?.clone();
    let state = u16::from_ne_bytes([fixed[8], fixed[9]]);
    let mac = attribute(rest, NDA_LLADDR).and_then(read_mac)?;
    let destination = attribute(rest, NDA_DST).and_then(read_ip);
    match fixed[0] {
        AF_INET if state == NUD_PERMANENT => {
            let IpAddr::V4(address) = destination? else { return None };
            Some(Object::Neighbour { link, address, mac })
        }
        AF_BRIDGE if attribute(rest, NDA_MASTER).is_none() && destination.is_some() => {
            Some(Object::Forwarding { link, mac, to: Behind::Tunnel(destination?) })
        }
        // Permanent entries of a bridge are the MACs of its ports; learned ones are not ours to judge.
        AF_BRIDGE if attribute(rest, NDA_MASTER).is_some() && state == NUD_NOARP => {
            Some(Object::Forwarding { link, mac, to: Behind::Bridge })
        }
        AF_INET | AF_INET6 | AF_BRIDGE => None,
        _ => None,
    }
}

/// What tells one route from another: table, destination, metric.
fn read_place(body: &[u8]) -> Option<(u32, IpNet, u32)> {
    let (fixed, rest) = body.split_at_checked(12)?;
    let nowhere =
        if fixed[0] == AF_INET6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let destination = attribute(rest, RTA_DST).and_then(read_ip).unwrap_or(nowhere);
    Some((
        attribute(rest, RTA_TABLE).map_or(u32::from(fixed[4]), read_u32),
        IpNet::new(destination, fixed[1]).ok()?,
        attribute(rest, RTA_PRIORITY).map_or(0, read_u32),
    ))
}

fn read_route(body: &[u8], names: &BTreeMap<u32, String>) -> Option<Route> {
    let (fixed, rest) = body.split_at_checked(12)?;
    let (table, to, metric) = read_place(body)?;
    let link = attribute(rest, RTA_OIF).and_then(|v| names.get(&read_u32(v))).cloned();
    let gateway = attribute(rest, RTA_GATEWAY).and_then(read_ip);
    let via = match (fixed[7], link, gateway) {
        (RTN_UNREACHABLE, _, _) => Via::Unreachable,
        (RTN_UNICAST, Some(link), None) => Via::Link(link),
        (RTN_UNICAST, Some(link), Some(gateway)) => {
            Via::Gateway { link, gateway, onlink: read_u32(&fixed[8..12]) & RTNH_F_ONLINK != 0 }
        }
        _ => return None,
    };
    Some(Route { table, via, to, metric, source: attribute(rest, RTA_PREFSRC).and_then(read_v4) })
}
