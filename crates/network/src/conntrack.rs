//! Forgetting tracked connections, so that the next packet of a flow is judged anew.
//!
//! Source: kernel include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use crate::netlink::{DUMP, Message, Socket, attribute, read_be32};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const GET_STATS: u16 = (1 << 8) | 5;
const STATS_ENTRIES: u16 = 1;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
/// `IPS_SEEN_REPLY`
const SEEN_REPLY: u32 = 1 << 1;
const CTA_ID: u16 = 12;
/// IPv4 and IPv6.
const AF_UNSPEC: u8 = 0;
/// Source and destination follow each other, in a tuple of each family.
const V4_SRC: u16 = 1;
const V6_SRC: u16 = 3;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

/// One tracked connection, as far as we judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: u8,
    pub(crate) source: IpAddr,
    /// 0 for protocols without ports, as all ports here.
    pub(crate) source_port: u16,
    /// Where the first packet was sent.
    pub(crate) destination: IpAddr,
    pub(crate) destination_port: u16,
    /// Who answers: the backend.
    pub(crate) answers: IpAddr,
    pub(crate) answers_port: u16,
    /// Something has come back. Until then there is nothing that a first packet anew could break.
    pub(crate) answered: bool,
}

impl Flow {
    pub(crate) fn is_udp(&self) -> bool {
        self.protocol == UDP
    }

    /// The ends of a TCP connection as sockets of this namespace have them, if they are here: its own first.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let source = SocketAddr::new(self.source, self.source_port);
        let asked = SocketAddr::new(self.destination, self.destination_port);
        let answers = SocketAddr::new(self.answers, self.answers_port);
        let tcp = self.protocol == TCP;
        [(source, asked), (answers, source)].into_iter().filter(move |_| tcp)
    }

    /// True when somebody else answers than was asked.
    pub(crate) fn translated(&self) -> bool {
        self.destination != self.answers
    }
}

/// Deletes every flow of the calling thread's namespace that `condemned` picks; returns these.
///
/// The kernel has the flows of all namespaces in one table, and goes through the whole of it for a dump of one: some
/// milliseconds, and none of that where there is nothing to find.
pub(crate) fn forget(condemned: impl Fn(&Flow) -> bool) -> io::Result<Vec<Flow>> {
    let mut socket = Socket::netfilter()?;
    let mut forgotten = Vec::new();
    if none_tracked(&mut socket)? {
        return Ok(forgotten);
    }
    for reply in socket.exchange(Message::new(GET, DUMP, &[AF_UNSPEC, 0, 0, 0]))? {
        let Some((header, body)) = reply.body.split_at_checked(4) else { continue };
        let Some(tuple) = attribute(body, TUPLE_ORIG) else { continue };
        let Some(flow) = read(body).filter(|flow| condemned(flow)) else { continue };
        let mut delete = Message::new(DELETE, 0, &[header[0], 0, 0, 0]);
        delete.raw(TUPLE_ORIG | 0x8000, tuple);
        if let Some(id) = attribute(body, CTA_ID) {
            delete.raw(CTA_ID, id);
        }
        match socket.request(delete) {
            Ok(()) => forgotten.push(flow),
            // It ended by itself meanwhile.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(forgotten)
}

/// Tells whether no flow of the namespace is tracked; `false` also where the kernel does not count.
fn none_tracked(socket: &mut Socket) -> io::Result<bool> {
    let replies = socket.exchange(Message::new(GET_STATS, 0, &[AF_UNSPEC, 0, 0, 0]))?;
    let entries = replies.first().and_then(|reply| attribute(reply.body.get(4..)?, STATS_ENTRIES));
    Ok(entries.is_some_and(|entries| read_be32(entries) == 0))
}

fn read(body: &[u8]) -> Option<Flow> {
    let ip = |tuple: u16, end: u16| {
        let addresses = attribute(attribute(body, tuple)?, 1)?;
        match attribute(addresses, V4_SRC + end) {
            Some(v4) => Some(IpAddr::V4(Ipv4Addr::from(read_be32(v4)))),
            None => {
                let v6: [u8; 16] = attribute(addresses, V6_SRC + end)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(v6)))
            }
        }
    };
    // What the protocol says: its number, then the ports of source and destination.
    let of_protocol = |tuple: u16, field: u16| attribute(attribute(attribute(body, tuple)?, 2)?, field);
    let port = |tuple: u16, field: u16| {
        let port = of_protocol(tuple, field)?.try_into().ok()?;
        Some(u16::from_be_bytes(port))
    };
    Some(Flow {
        protocol: *of_protocol(TUPLE_ORIG, 1)?.first()?,
        source: ip(TUPLE_ORIG, 0)?,
        source_port: port(TUPLE_ORIG, 2).unwrap_or_default(),
        destination: ip(TUPLE_ORIG, 1)?,
        destination_port: port(TUPLE_ORIG, 3).unwrap_or_default(),
        answers: ip(TUPLE_REPLY, 0)?,
        answers_port: port(TUPLE_REPLY, 2).unwrap_or_default(),
        answered: attribute(body, STATUS).is_none_or(|status| read_be32(status) & SEEN_REPLY != 0),
    })
}
