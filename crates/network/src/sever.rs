//! Ending connections of sockets whose peer is gone for good: else who only listens waits for as long as it likes.
//!
//! The kernel looks a socket up as for a packet: where there is no connection (any more) it finds the socket that listens,
//! and would end that. So a connection is looked at first, and ended by its cookie, which no other socket has.
//!
//! Source: kernel net/ipv4/inet_diag.c, tcp_diag.c (`SOCK_DESTROY`), include/uapi/linux/inet_diag.h, include/net/tcp_states.h.

use crate::netlink::{Message, Reply, Socket};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
const LISTEN: u8 = 10;
/// `INET_DIAG_NOCOOKIE`
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// Ends the TCP connections that sockets of the calling thread's namespace have at `local` with `peer`; their owners
/// are told ECONNABORTED. No such socket is fine, and so is a kernel that cannot.
pub(crate) fn tcp(connections: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> io::Result<()> {
    let mut socket = None;
    for (local, peer) in connections {
        let socket = match &mut socket {
            Some(socket) => socket,
            None => socket.insert(Socket::diagnosis()?),
        };
        for sought in forms(local, peer) {
            let asked = socket.exchange(sought.message(SOCK_DIAG_BY_FAMILY, ANY_COOKIE));
            let Some(replies) = unless_it_is_gone(asked)? else { continue };
            for cookie in replies.iter().filter_map(|reply| sought.cookie(reply)) {
                unless_it_is_gone(socket.request(sought.message(SOCK_DESTROY, cookie)))?;
            }
        }
    }
    Ok(())
}

fn unless_it_is_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    use nix::libc::{EINVAL, ENOENT, EOPNOTSUPP, ESTALE};
    match outcome {
        Err(e) if matches!(e.raw_os_error(), Some(ENOENT | ESTALE | EOPNOTSUPP | EINVAL)) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// A connection in one of the forms in which the kernel may have it.
struct Sought {
    family: u8,
    ports: [[u8; 2]; 2],
    addresses: [[u8; 16]; 2],
}

impl Sought {
    /// `struct inet_diag_req_v2`
    fn message(&self, kind: u16, cookie: [u8; 8]) -> Message {
        let mut fixed = vec![self.family, TCP, 0, 0];
        // In every state.
        fixed.extend(u32::MAX.to_ne_bytes());
        fixed.extend(self.ports.concat());
        fixed.extend(self.addresses.concat());
        // No interface.
        fixed.extend(0u32.to_ne_bytes());
        fixed.extend(cookie);
        Message::new(kind, 0, &fixed)
    }

    /// Returns the cookie of the socket that was found, if it is this connection. (`struct inet_diag_msg`)
    fn cookie(&self, reply: &Reply) -> Option<[u8; 8]> {
        let body = reply.body.get(..52)?;
        let is_it = body[1] != LISTEN && body[4..8] == *self.ports.as_flattened();
        if is_it { body[44..].try_into().ok() } else { None }
    }
}

/// A socket of IPv6 may have a connection of IPv4, so that is asked for in both forms.
fn forms(local: SocketAddr, peer: SocketAddr) -> Vec<Sought> {
    let ports = [local.port().to_be_bytes(), peer.port().to_be_bytes()];
    let one = |family: u8, addresses: [[u8; 16]; 2]| Sought { family, ports, addresses };
    match (local.ip(), peer.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let plain = [a, b].map(|v4| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                bytes
            });
            let mapped = [a, b].map(|v4| v4.to_ipv6_mapped().octets());
            vec![one(AF_INET, plain), one(AF_INET6, mapped)]
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => vec![one(AF_INET6, [a.octets(), b.octets()])],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{ErrorKind, Read as _},
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn a_connection_is_ended_and_who_listens_goes_on() {
        for at in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(at).unwrap();
            let port = listener.local_addr().unwrap().port();
            let to = if at == "[::1]:0" { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
            let here = TcpStream::connect(&to).unwrap();
            let (mut there, _) = listener.accept().unwrap();
            let (local, peer) = (to.parse().unwrap(), here.local_addr().unwrap());
            tcp([(local, peer)]).unwrap();
            assert_eq!(there.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted, "{at}");
            drop((here, there));
            // There is none any more, and there never was one.
            tcp([(local, peer), (local, SocketAddr::new(peer.ip(), 1))]).unwrap();
            let again = TcpStream::connect(&to).unwrap();
            listener.accept().unwrap();
            drop(again);
        }
    }
}
