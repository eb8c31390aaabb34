//! Netlink as this room speaks it: one message builder, one attribute reader and one blocking socket,
//! shared by links ([`crate::rt`]), nftables ([`crate::nft`]) and connection tracking ([`crate::conntrack`]).
//!
//! The kernel answers a request before `send` returns, so nothing here waits for long.
//! Source: kernel Documentation/userspace-api/netlink/intro.rst.

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
        socket, sockopt,
    },
    time::TimeVal,
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(crate) const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const ATTRIBUTE_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// An error quotes the refused message, which may be as long as a nest can be. Touched only as far as filled.
const RECEIVE_BYTES: usize = 1 << 18;

/// A request being built: header, fixed part, attributes.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `fixed` is the family's own struct (`ifinfomsg`, `nfgenmsg`, ...).
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    /// The bare attribute list of a nest, to be put into several messages.
    pub(crate) fn fragment() -> Self {
        Self { bytes: Vec::new() }
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(crate) fn raw(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = u16::try_from(value.len() + 4).expect("callers split lists before 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.raw(kind, &[value])
    }

    pub(crate) fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.raw(kind, &value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.raw(kind, &value.to_ne_bytes())
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.raw(kind, &value.to_be_bytes())
    }

    pub(crate) fn str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.raw(kind, &bytes)
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).expect("callers split lists before 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// Bytes without an attribute header, inside a nest (`struct ifinfomsg` of a veth peer).
    pub(crate) fn plain(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn sealed(mut self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).expect("a message is far below 4 GiB");
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// Walks the attributes in `bytes`: (type, value).
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & ATTRIBUTE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

pub(crate) fn read_u32(value: &[u8]) -> u32 {
    value.get(..4).and_then(|v| v.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

pub(crate) fn read_be32(value: &[u8]) -> u32 {
    value.get(..4).and_then(|v| v.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(crate) fn read_str(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// One message of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    /// Fixed part and attributes.
    pub(crate) body: Vec<u8>,
}

/// A blocking netlink socket. It speaks to the network namespace it was made in, whoever uses it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    /// Of sockets. Source: kernel include/uapi/linux/sock_diag.h.
    pub(crate) fn diagnosis() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkSockDiag)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let size = 4 << 20;
        // Beyond the limit of net.core only for the real root; the ordinary limit is enough for 5,000 elements.
        if setsockopt(&fd, sockopt::SndBufForce, &size).is_err() {
            setsockopt(&fd, sockopt::SndBuf, &size)?;
        }
        if setsockopt(&fd, sockopt::RcvBufForce, &size).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &size)?;
        }
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
        Ok(Self { fd, sequence: 0 })
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message).map(drop)
    }

    /// Sends a request and collects its answer: until the end of a dump, or one message and an acknowledgement.
    pub(crate) fn exchange(&mut self, mut message: Message) -> io::Result<Vec<Reply>> {
        let flags = u16::from_ne_bytes([message.bytes[6], message.bytes[7]]);
        if flags & DUMP != DUMP {
            // A single answer has no end of its own.
            message.bytes[6..8].copy_from_slice(&(flags | ACK).to_ne_bytes());
        }
        let sequence = self.next();
        send(self.fd.as_raw_fd(), &message.sealed(sequence), MsgFlags::empty())?;
        let mut replies = Vec::new();
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let len = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, seq, body) in messages(&buffer[..len]) {
                if seq != sequence {
                    continue;
                }
                match kind {
                    ERROR => {
                        return match errno(body) {
                            0 => Ok(replies),
                            e => Err(io::Error::from_raw_os_error(e)),
                        };
                    }
                    DONE => {
                        return match errno(body) {
                            0 => Ok(replies),
                            e => Err(io::Error::from_raw_os_error(e)),
                        };
                    }
                    kind => replies.push(Reply { kind, body: body.to_vec() }),
                }
            }
        }
    }

    /// Sends messages that the kernel takes all or none (an nftables batch).
    ///
    /// # Errors
    /// The position of the first refused message (`None`: the batch as a whole) and why.
    pub(crate) fn batch(&mut self, batch: Vec<Message>) -> Result<(), (Option<usize>, io::Error)> {
        let first = self.sequence.wrapping_add(1);
        let count = batch.len();
        let mut bytes = Vec::with_capacity(batch.iter().map(Message::len).sum());
        for message in batch {
            let sequence = self.next();
            bytes.extend(message.sealed(sequence));
        }
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(|e| (None, e.into()))?;
        let mut failure = None;
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            // Work is done when `send` returns; only refusals were queued.
            let len = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(e) => return Err((None, e.into())),
            };
            for (kind, seq, body) in messages(&buffer[..len]) {
                let at = usize::try_from(seq.wrapping_sub(first)).unwrap_or(usize::MAX);
                if kind == ERROR && at < count && errno(body) != 0 && failure.is_none() {
                    failure = Some((Some(at), io::Error::from_raw_os_error(errno(body))));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn errno(body: &[u8]) -> i32 {
    body.get(..4).and_then(|v| v.try_into().ok()).map_or(0, |v| -i32::from_ne_bytes(v))
}

/// Splits a datagram: (type, sequence, body).
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::try_from(read_u32(bytes.get(0..4)?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = read_u32(bytes.get(8..12)?);
        let body = bytes.get(HEADER_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_they_were_written() {
        let mut message = Message::fragment();
        message.str(1, "eth0").u8(2, 7).nest(3, |m| {
            m.be16(1, 4789);
        });
        let read: Vec<_> = attributes(message.as_bytes()).collect();
        assert_eq!(read[0], (1, &b"eth0\0"[..]));
        assert_eq!(read[1], (2, &[7][..]));
        assert_eq!(attribute(read[2].1, 1), Some(&4789u16.to_be_bytes()[..]));
    }

    #[test]
    fn a_cut_attribute_ends_the_walk() {
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
    }
}
