//! Ending connections of sockets whose peer is gone for good: else who only listens waits for as long as it likes.
//!
//! Source: kernel net/ipv4/tcp_diag.c (`SOCK_DESTROY`), include/uapi/linux/inet_diag.h.

use crate::netlink::{Message, Socket};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;

/// Ends the TCP connections that sockets of the calling thread's namespace have at `local` with `peer`; their owners
/// are told ECONNABORTED. No such socket is fine, and so is a kernel that cannot.
pub(crate) fn tcp(connections: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> io::Result<()> {
    let mut socket = None;
    for (local, peer) in connections {
        let socket = match &mut socket {
            Some(socket) => socket,
            None => socket.insert(Socket::diagnosis()?),
        };
        for request in requests(local, peer) {
            match socket.request(request) {
                Err(e)
                    if !matches!(
                        e.raw_os_error(),
                        Some(nix::libc::ENOENT | nix::libc::EOPNOTSUPP | nix::libc::EINVAL)
                    ) =>
                {
                    return Err(e);
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// `struct inet_diag_req_v2`: a socket of IPv6 may have a connection of IPv4, so that is asked for in both forms.
fn requests(local: SocketAddr, peer: SocketAddr) -> Vec<Message> {
    let one = |family: u8, addresses: [[u8; 16]; 2]| {
        let mut fixed = vec![family, TCP, 0, 0];
        // In every state.
        fixed.extend(u32::MAX.to_ne_bytes());
        fixed.extend(local.port().to_be_bytes());
        fixed.extend(peer.port().to_be_bytes());
        fixed.extend(addresses.concat());
        // No interface, no cookie.
        fixed.extend(0u32.to_ne_bytes());
        fixed.extend([0xff; 8]);
        Message::new(SOCK_DESTROY, 0, &fixed)
    };
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
