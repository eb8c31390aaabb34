//! Host ports of sandboxes: chosen, and held by a socket so that no process of the host takes them
//! meanwhile. Packets never reach that socket: nftables leads them away first.

use crate::spec::{Error, PortBinding};
use model::Protocol;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, OwnedFd},
};

/// Linux's own ephemeral range.
const CHOICE: std::ops::RangeInclusive<u16> = 32768..=60999;

#[derive(Debug, Default)]
pub(crate) struct Reservations {
    /// By sandbox.
    held: BTreeMap<String, Vec<(PortBinding, Option<OwnedFd>)>>,
    last: u16,
}

fn host_ip(binding: &PortBinding) -> Result<Ipv4Addr, Error> {
    match binding.host_ip {
        None => Ok(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V4(ip)) => Ok(ip),
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => Ok(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V6(_)) => Err(Error::Ipv6("host addresses of published ports")),
    }
}

fn clash(a: &PortBinding, b: &PortBinding) -> bool {
    let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    a.protocol == b.protocol
        && a.host_port == b.host_port
        && (any(a.host_ip) || any(b.host_ip) || a.host_ip == b.host_ip)
}

impl Reservations {
    /// Fills in missing host ports and reserves all of them for `sandbox`; none on error.
    pub(crate) fn choose<'a>(
        &mut self,
        sandbox: &str,
        wanted: &mut [PortBinding],
        others: impl Iterator<Item = &'a PortBinding>,
    ) -> Result<(), Error> {
        let taken: Vec<&PortBinding> = others.collect();
        let before = self.held.remove(sandbox).unwrap_or_default();
        let mut held: Vec<(PortBinding, Option<OwnedFd>)> = Vec::new();
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        for binding in wanted.iter_mut() {
            let kept = before
                .iter_mut()
                .find(|slot| slot.as_ref().is_some_and(|(b, _)| b == binding))
                .and_then(Option::take);
            let one = match kept {
                Some(kept) => kept,
                None => match self.take(binding, &taken) {
                    Ok(fd) => (binding.clone(), fd),
                    Err(e) => {
                        held.extend(before.into_iter().flatten());
                        self.held.insert(sandbox.to_owned(), held);
                        return Err(e);
                    }
                },
            };
            held.push(one);
        }
        self.held.insert(sandbox.to_owned(), held);
        Ok(())
    }

    fn take(&mut self, binding: &mut PortBinding, taken: &[&PortBinding]) -> Result<Option<OwnedFd>, Error> {
        let address = host_ip(binding)?;
        if binding.host_port.is_some_and(|port| port != 0) {
            if taken.iter().any(|t| clash(t, binding)) {
                let port = binding.host_port.unwrap_or_default();
                return Err(Error::PortInUse { host_ip: address.into(), port });
            }
            return hold(binding, address);
        }
        for _ in CHOICE {
            self.last = if CHOICE.contains(&self.last) { self.last + 1 } else { *CHOICE.start() };
            binding.host_port = Some(self.last);
            if CHOICE.contains(&self.last)
                && !taken.iter().any(|t| clash(t, binding))
                && let Ok(fd) = hold(binding, address)
            {
                return Ok(fd);
            }
        }
        binding.host_port = None;
        Err(Error::NoFreePort(binding.protocol))
    }

    /// Takes a port again that was ours before a restart.
    pub(crate) fn reserve(&mut self, sandbox: &str, binding: &PortBinding) -> Result<(), Error> {
        let fd = hold(binding, host_ip(binding)?)?;
        self.held.entry(sandbox.to_owned()).or_default().push((binding.clone(), fd));
        Ok(())
    }

    pub(crate) fn release(&mut self, sandbox: &str) {
        self.held.remove(sandbox);
    }
}

/// Binds the port in the host's namespace, where the worker is at home.
fn hold(binding: &PortBinding, address: Ipv4Addr) -> Result<Option<OwnedFd>, Error> {
    let kind = match binding.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        // Not every kernel has SCTP sockets; the translation works without.
        Protocol::Sctp => return Ok(None),
    };
    let port = binding.host_port.unwrap_or_default();
    let failed = |e: nix::Error| match e {
        nix::Error::EADDRINUSE => Error::PortInUse { host_ip: address.into(), port },
        e => Error::kernel(format!("bind {address}:{port}"))(e.into()),
    };
    let fd = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    if binding.protocol == Protocol::Tcp {
        // Connections that are only waiting to end do not count.
        setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(failed)?;
    }
    let [a, b, c, d] = address.octets();
    bind(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, port)).map_err(failed)?;
    if binding.protocol == Protocol::Tcp {
        // A socket that is only bound would share the port with a server that reuses addresses, as most do.
        listen(&fd, Backlog::new(0).map_err(failed)?).map_err(failed)?;
    }
    Ok(Some(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host_ip: Option<&str>, host_port: Option<u16>) -> PortBinding {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortBinding { protocol: Protocol::Tcp, host_ip, host_port, container_port: 80 }
    }

    #[test]
    fn bindings_clash_on_one_port_unless_their_addresses_differ() {
        assert!(clash(&tcp(None, Some(80)), &tcp(Some("10.0.0.1"), Some(80))));
        assert!(!clash(&tcp(Some("10.0.0.2"), Some(80)), &tcp(Some("10.0.0.1"), Some(80))));
        assert!(!clash(&tcp(None, Some(81)), &tcp(None, Some(80))));
    }

    #[test]
    fn a_port_a_process_listens_on_is_refused_in_dockers_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut wanted = [tcp(Some("127.0.0.1"), Some(port))];
        let refused = Reservations::default().choose("x", &mut wanted, std::iter::empty()).unwrap_err();
        let words = format!("Bind for 127.0.0.1:{port} failed: port is already allocated");
        assert_eq!(refused.to_string(), words);
    }

    #[test]
    fn missing_ports_are_chosen() {
        let mut wanted = [tcp(Some("127.0.0.1"), None), tcp(Some("127.0.0.1"), None)];
        Reservations::default().choose("x", &mut wanted, std::iter::empty()).unwrap();
        assert_ne!(wanted[0].host_port, wanted[1].host_port);
        assert!(wanted.iter().all(|b| b.host_port.is_some_and(|p| CHOICE.contains(&p))));
    }
}
