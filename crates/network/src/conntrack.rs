//! Forgetting tracked connections, so that the next packet of a flow is judged anew.
//!
//! Source: kernel include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use crate::netlink::{DUMP, Message, Socket, attribute, read_be32};
use std::{io, net::Ipv4Addr};

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const AF_INET: u8 = 2;
const UDP: u8 = 17;

/// One tracked connection, as far as we judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: u8,
    pub(crate) source: Ipv4Addr,
    /// Where the first packet was sent.
    pub(crate) destination: Ipv4Addr,
    /// Who answers: the backend.
    pub(crate) answers: Ipv4Addr,
}

impl Flow {
    pub(crate) fn is_udp(&self) -> bool {
        self.protocol == UDP
    }

    /// True when somebody else answers than was asked.
    pub(crate) fn translated(&self) -> bool {
        self.destination != self.answers
    }
}

/// Deletes every IPv4 flow of the calling thread's namespace that `condemned` picks; returns how many.
pub(crate) fn forget(condemned: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let mut socket = Socket::netfilter()?;
    let replies = socket.exchange(Message::new(GET, DUMP, &[AF_INET, 0, 0, 0]))?;
    let mut count = 0;
    for reply in replies {
        let Some(body) = reply.body.get(4..) else { continue };
        let Some(tuple) = attribute(body, TUPLE_ORIG) else { continue };
        if !read(body).is_some_and(|flow| condemned(&flow)) {
            continue;
        }
        let mut delete = Message::new(DELETE, 0, &[AF_INET, 0, 0, 0]);
        delete.raw(TUPLE_ORIG | 0x8000, tuple);
        if let Some(id) = attribute(body, CTA_ID) {
            delete.raw(CTA_ID, id);
        }
        match socket.request(delete) {
            Ok(()) => count += 1,
            // It ended by itself meanwhile.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

fn read(body: &[u8]) -> Option<Flow> {
    let ip = |tuple: u16, end: u16| {
        let tuple = attribute(body, tuple)?;
        attribute(attribute(tuple, 1)?, end).map(|v| Ipv4Addr::from(read_be32(v)))
    };
    let protocol = *attribute(attribute(attribute(body, TUPLE_ORIG)?, 2)?, 1)?.first()?;
    Some(Flow {
        protocol,
        source: ip(TUPLE_ORIG, 1)?,
        destination: ip(TUPLE_ORIG, 2)?,
        answers: ip(TUPLE_REPLY, 1)?,
    })
}
