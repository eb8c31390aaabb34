//! Hosts that are network namespaces of one machine, on one switch: for `rswarm demo` and the end-to-end tests.
//! Nothing here bears our mark: to a daemon in such a namespace it is what a host has anyway. It goes away with its
//! namespaces.

use super::{
    AF_INET, CREATE, EXCL, IFA_ADDRESS, IFA_LOCAL, IFF_UP, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND,
    IFLA_LINKINFO, IFLA_MASTER, IFLA_NET_NS_FD, LOOPBACK, Message, RTA_GATEWAY, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWROUTE, RTN_UNICAST, Rt, SCOPE_UNIVERSE, TABLE_MAIN, VETH_INFO_PEER, ifinfo,
};
use ipnet::Ipv4Net;
use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

/// What a host calls its link to the switch.
pub const UPLINK: &str = "eth0";

/// Who made a route: somebody by hand. Source: rtnetlink(7), `rtm_protocol`.
const RTPROT_STATIC: u8 = 4;

/// A bridge between hosts.
#[derive(Debug)]
pub struct Switch {
    bridge: u32,
    rt: Rt,
}

impl Switch {
    /// Makes the bridge `name` in the network namespace of this thread, with the address that hosts take for their
    /// gateway.
    ///
    /// # Errors
    /// The kernel's; what was made until then stays.
    pub fn new(name: &str, gateway: Ipv4Net) -> io::Result<Self> {
        let mut rt = Rt::open()?;
        rt.set_up(LOOPBACK)?;
        let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP, IFF_UP));
        message.str(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |m| {
            m.str(IFLA_INFO_KIND, "bridge");
        });
        rt.socket.request(message)?;
        rt.give(name, gateway)?;
        Ok(Self { bridge: rt.index(name)?, rt })
    }

    /// Gives network namespace `netns` the link [`UPLINK`], whose other end is `port` of the switch.
    ///
    /// # Errors
    /// The kernel's, e.g. when either end is there already; neither is made then.
    pub fn plug(&mut self, port: &str, netns: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP, IFF_UP));
        message.str(IFLA_IFNAME, port).u32(IFLA_MASTER, self.bridge).nest(IFLA_LINKINFO, |m| {
            m.str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.plain(&ifinfo(0, 0, 0))
                        .str(IFLA_IFNAME, UPLINK)
                        .u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
                });
            });
        });
        self.rt.socket.request(message)
    }

    /// Pulls the cable out of `port`, or puts it back.
    ///
    /// # Errors
    /// There is no such port, or the kernel's.
    pub fn cable(&mut self, port: &str, plugged: bool) -> io::Result<()> {
        let flags = if plugged { IFF_UP } else { 0 };
        let index = self.rt.index(port)?;
        self.rt.socket.request(Message::new(RTM_NEWLINK, 0, &ifinfo(index, flags, IFF_UP)))
    }
}

/// Tells whether the network namespace of this thread has its [`UPLINK`] yet.
///
/// # Errors
/// The kernel's.
pub fn is_plugged_in() -> io::Result<bool> {
    match Rt::open()?.index(UPLINK) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the network namespace of this thread, which is plugged in, its address and its way out.
///
/// # Errors
/// The kernel's; what was done until then stays.
pub fn configure(address: Ipv4Net, gateway: Ipv4Addr) -> io::Result<()> {
    let mut rt = Rt::open()?;
    rt.set_up(LOOPBACK)?;
    rt.give(UPLINK, address)?;
    rt.set_up(UPLINK)?;
    let table = u8::try_from(TABLE_MAIN).expect("the main table's number is one of the small ones");
    let fixed = [AF_INET, 0, 0, 0, table, RTPROT_STATIC, SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
    let mut route = Message::new(RTM_NEWROUTE, CREATE | EXCL, &fixed);
    route.raw(RTA_GATEWAY, &gateway.octets());
    rt.socket.request(route)
}

impl Rt {
    fn give(&mut self, link: &str, address: Ipv4Net) -> io::Result<()> {
        let mut fixed = vec![AF_INET, address.prefix_len(), 0, SCOPE_UNIVERSE];
        fixed.extend(self.index(link)?.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, CREATE | EXCL, &fixed);
        let bytes = address.addr().octets();
        message.raw(IFA_LOCAL, &bytes).raw(IFA_ADDRESS, &bytes);
        self.socket.request(message)
    }
}
