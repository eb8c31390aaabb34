//! Host ports of sandboxes and of the swarm: chosen, and held by a socket so that no process of the host takes them
//! meanwhile. Packets never reach that socket: nftables leads them away first.
//!
//! The socket is the gate, too: a port that a program of the host or one of our own servers has cannot be bound, and
//! what is not bound is not led away.

use crate::{
    holder,
    spec::{Error, PortBinding},
};
use model::Protocol;
use nix::sys::{
    resource::{Resource, getrlimit},
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

/// Linux's own ephemeral range.
const CHOICE: std::ops::RangeInclusive<u16> = 32768..=60999;

#[derive(Debug, Default)]
pub(crate) struct Reservations {
    /// By sandbox.
    held: BTreeMap<String, Vec<(PortBinding, Vec<OwnedFd>)>>,
    /// Of the swarm, on every node.
    ingress: BTreeMap<(Protocol, u16), Vec<OwnedFd>>,
    /// Where the tunnels of the swarm arrive, over UDP.
    pub(crate) data_port: Option<u16>,
    last: u16,
}

/// The addresses of the host that a binding is for: outer `None` = none of this family, inner `None` = all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) v4: Option<Option<Ipv4Addr>>,
    pub(crate) v6: Option<Option<Ipv6Addr>>,
}

/// `ipv6`: the container has an IPv6 address that a port can lead to. Without one, `::` stands for IPv4, too: older
/// clients write it for "everywhere".
pub(crate) fn families(host_ip: Option<IpAddr>, ipv6: bool) -> Families {
    match host_ip {
        None => Families { v4: Some(None), v6: ipv6.then_some(None) },
        Some(IpAddr::V4(ip)) => Families { v4: Some((!ip.is_unspecified()).then_some(ip)), v6: None },
        Some(IpAddr::V6(ip)) if ip.is_unspecified() && !ipv6 => Families { v4: Some(None), v6: None },
        Some(IpAddr::V6(ip)) => Families { v4: None, v6: Some((!ip.is_unspecified()).then_some(ip)) },
    }
}

fn clash(a: &PortBinding, b: &PortBinding) -> bool {
    fn meet<T: PartialEq>(a: Option<Option<T>>, b: Option<Option<T>>) -> bool {
        let (Some(a), Some(b)) = (a, b) else { return false };
        a.is_none() || b.is_none() || a == b
    }
    // Whether the other one has IPv6 is not known here; its own socket tells.
    let (x, y) = (families(a.host_ip, true), families(b.host_ip, true));
    a.protocol == b.protocol && a.host_port == b.host_port && (meet(x.v4, y.v4) || meet(x.v6, y.v6))
}

impl Reservations {
    /// Fills in missing host ports and reserves all of them for `sandbox`; none on error. `ipv6`: it has an IPv6
    /// address that ports can lead to.
    pub(crate) fn choose<'a>(
        &mut self,
        sandbox: &str,
        wanted: &mut [PortBinding],
        ipv6: bool,
        others: impl Iterator<Item = &'a PortBinding>,
    ) -> Result<(), Error> {
        let taken: Vec<&PortBinding> = others.collect();
        let before = self.held.remove(sandbox).unwrap_or_default();
        let mut held: Vec<(PortBinding, Vec<OwnedFd>)> = Vec::new();
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        for binding in wanted.iter_mut() {
            let kept = before
                .iter_mut()
                .find(|slot| {
                    slot.as_ref().is_some_and(|(b, fds)| b == binding && fds.len() == sockets(b, ipv6))
                })
                .and_then(Option::take);
            let one = match kept {
                Some(kept) => kept,
                None => match self.take(binding, ipv6, &taken) {
                    Ok(fds) => (binding.clone(), fds),
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

    fn take(
        &mut self,
        binding: &mut PortBinding,
        ipv6: bool,
        taken: &[&PortBinding],
    ) -> Result<Vec<OwnedFd>, Error> {
        if let Some(Some(ip)) = families(binding.host_ip, ipv6).v6 {
            let port = binding.host_port.unwrap_or_default();
            if ip.is_loopback() {
                return Err(Error::Loopback6 { port });
            }
            if !ipv6 {
                return Err(Error::NoIpv6Behind { host_ip: ip.into(), port });
            }
        }
        if binding.host_port.is_some_and(|port| port != 0) {
            if taken.iter().any(|t| clash(t, binding)) {
                let port = binding.host_port.unwrap_or_default();
                let host_ip = binding.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
                return Err(Error::PortInUse { host_ip, port });
            }
            return self.hold(binding, ipv6);
        }
        for _ in CHOICE {
            self.last = if CHOICE.contains(&self.last) { self.last + 1 } else { *CHOICE.start() };
            binding.host_port = Some(self.last);
            if CHOICE.contains(&self.last)
                && !taken.iter().any(|t| clash(t, binding))
                && self.data_port != Some(self.last)
                && let Ok(fds) = hold(binding, ipv6)
            {
                return Ok(fds);
            }
        }
        binding.host_port = None;
        Err(Error::NoFreePort(binding.protocol))
    }

    /// Takes a port again that was ours before a restart.
    pub(crate) fn reserve(&mut self, sandbox: &str, binding: &PortBinding, ipv6: bool) -> Result<(), Error> {
        let before = self.held.get(sandbox);
        if before.is_some_and(|held| held.iter().any(|(b, _)| b == binding)) {
            return Ok(());
        }
        let fds = self.hold(binding, ipv6)?;
        self.held.entry(sandbox.to_owned()).or_default().push((binding.clone(), fds));
        Ok(())
    }

    /// Holds these published ports of the swarm and no other.
    ///
    /// # Errors
    /// One for each that somebody else has, who is looked for unless that is `known`; the rest is held.
    pub(crate) fn hold_ingress(
        &mut self,
        wanted: &BTreeSet<(Protocol, u16)>,
        known: &BTreeSet<(Protocol, u16)>,
    ) -> BTreeMap<(Protocol, u16), Error> {
        self.hold_ingress_within(ingress_room(), wanted, known)
    }

    fn hold_ingress_within(
        &mut self,
        room: usize,
        wanted: &BTreeSet<(Protocol, u16)>,
        known: &BTreeSet<(Protocol, u16)>,
    ) -> BTreeMap<(Protocol, u16), Error> {
        self.ingress.retain(|port, _| wanted.contains(port));
        let mut refused = BTreeMap::new();
        for (protocol, port) in wanted {
            if self.ingress.contains_key(&(*protocol, *port)) {
                continue;
            }
            let (protocol, port) = (*protocol, *port);
            if self.ingress.len() >= room {
                refused.insert((protocol, port), Error::TooManyPorts(room));
                continue;
            }
            // The mesh is of IPv4.
            let binding =
                PortBinding { protocol, host_ip: None, host_port: Some(port), container_port: port };
            let held = if known.contains(&(protocol, port)) && self.data_port != Some(port) {
                hold(&binding, false)
            } else {
                self.hold(&binding, false)
            };
            match held {
                Ok(fds) => drop(self.ingress.insert((protocol, port), fds)),
                Err(e) => drop(refused.insert((protocol, port), e)),
            }
        }
        refused
    }

    fn hold(&self, binding: &PortBinding, ipv6: bool) -> Result<Vec<OwnedFd>, Error> {
        let (protocol, port) = (binding.protocol, binding.host_port.unwrap_or_default());
        let in_use = |host_ip, holder| Error::PortHeld { host_ip, port, protocol, holder };
        let anywhere = || binding.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        if protocol == Protocol::Udp && self.data_port == Some(port) {
            return Err(in_use(anywhere(), Some("the tunnels of the swarm".into())));
        }
        hold(binding, ipv6).map_err(|e| match e {
            Error::PortInUse { host_ip, .. } => in_use(host_ip, self.holder(protocol, port)),
            e => e,
        })
    }

    fn holder(&self, protocol: Protocol, port: u16) -> Option<String> {
        let has =
            |(binding, _): &(PortBinding, _)| binding.protocol == protocol && binding.host_port == Some(port);
        if self.ingress.contains_key(&(protocol, port)) {
            return Some("a published port of the swarm".into());
        }
        match self.held.iter().find(|(_, held)| held.iter().any(has)) {
            Some((sandbox, _)) => Some(format!("container {}", sandbox.get(..12).unwrap_or(sandbox))),
            None => holder::of_port(protocol, port),
        }
    }

    pub(crate) fn release(&mut self, sandbox: &str) {
        self.held.remove(sandbox);
    }
}

/// How many ports of the swarm may be held: a quarter of the descriptors that this process may have, so that nobody's
/// services keep containers from being started.
fn ingress_room() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft / 4).unwrap_or(usize::MAX)
}

/// How many sockets a binding needs.
fn sockets(binding: &PortBinding, ipv6: bool) -> usize {
    let families = families(binding.host_ip, ipv6);
    match binding.protocol {
        // Not every kernel has SCTP sockets; the translation works without.
        Protocol::Sctp => 0,
        _ => usize::from(families.v4.is_some()) + usize::from(families.v6.is_some()),
    }
}

/// Binds the port in the host's namespace, where the worker is at home.
fn hold(binding: &PortBinding, ipv6: bool) -> Result<Vec<OwnedFd>, Error> {
    let kind = match binding.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => return Ok(Vec::new()),
    };
    let port = binding.host_port.unwrap_or_default();
    let families = families(binding.host_ip, ipv6);
    let v4 = families.v4.map(|ip| IpAddr::from(ip.unwrap_or(Ipv4Addr::UNSPECIFIED)));
    let v6 = families.v6.map(|ip| IpAddr::from(ip.unwrap_or(Ipv6Addr::UNSPECIFIED)));
    v4.into_iter().chain(v6).map(|address| hold_at(SocketAddr::new(address, port), kind)).collect()
}

fn hold_at(address: SocketAddr, kind: SockType) -> Result<OwnedFd, Error> {
    let failed = |e: nix::Error| match e {
        nix::Error::EADDRINUSE => Error::PortInUse { host_ip: address.ip(), port: address.port() },
        e => Error::kernel(format!("bind {address}"))(e.into()),
    };
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(failed)?;
    }
    if kind == SockType::Stream {
        // Connections that are only waiting to end do not count.
        setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(failed)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(failed)?;
    if kind == SockType::Stream {
        // A socket that is only bound would share the port with a server that reuses addresses, as most do.
        listen(&fd, Backlog::new(0).map_err(failed)?).map_err(failed)?;
    }
    Ok(fd)
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
        assert!(!clash(&tcp(Some("0.0.0.0"), Some(80)), &tcp(Some("::"), Some(80))));
        assert!(clash(&tcp(None, Some(80)), &tcp(Some("fd00::1"), Some(80))));
    }

    #[test]
    fn a_host_address_of_ipv6_needs_a_container_with_one() {
        let ask = |ip, ipv6| {
            Reservations::default().choose("x", &mut [tcp(Some(ip), None)], ipv6, std::iter::empty())
        };
        assert!(matches!(ask("fd00::1", false), Err(Error::NoIpv6Behind { .. })));
        assert!(matches!(ask("::1", true), Err(Error::Loopback6 { .. })));
        ask("::", true).unwrap();
        assert_eq!(families(None, true), Families { v4: Some(None), v6: Some(None) });
        assert_eq!(families(None, false).v6, None);
    }

    #[test]
    fn a_port_of_the_swarm_is_held_while_it_is_wanted_and_free_for_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wanted = BTreeSet::from([(Protocol::Tcp, port), (Protocol::Udp, 4789)]);
        let mut ports = Reservations { data_port: Some(4789), ..Reservations::default() };
        let refused = ports.hold_ingress(&wanted, &BTreeSet::new());
        assert_eq!(refused.keys().collect::<BTreeSet<_>>(), wanted.iter().collect());
        assert!(refused[&(Protocol::Udp, 4789)].to_string().ends_with("by the tunnels of the swarm"));
        drop(listener);
        assert!(!ports.hold_ingress(&wanted, &wanted).contains_key(&(Protocol::Tcp, port)));
        let bind = || std::net::TcpListener::bind(("127.0.0.1", port));
        assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        // What has no room is refused; what is held stays.
        let more = BTreeSet::from([(Protocol::Tcp, port), (Protocol::Sctp, 1)]);
        let without_room = ports.hold_ingress_within(1, &more, &BTreeSet::new());
        assert_eq!(without_room.keys().collect::<Vec<_>>(), [&(Protocol::Sctp, 1)]);
        assert!(matches!(without_room[&(Protocol::Sctp, 1)], Error::TooManyPorts(1)));
        ports.hold_ingress(&BTreeSet::new(), &wanted);
        bind().unwrap();
    }

    #[test]
    fn a_port_a_process_listens_on_is_refused_in_dockers_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut wanted = [tcp(Some("127.0.0.1"), Some(port))];
        let refused =
            Reservations::default().choose("x", &mut wanted, false, std::iter::empty()).unwrap_err();
        let words = format!(
            "failed to bind host port 127.0.0.1:{port}/tcp: address already in use by rswarm itself, process {}",
            std::process::id()
        );
        assert_eq!(refused.to_string(), words);
    }

    #[test]
    fn missing_ports_are_chosen() {
        let mut wanted = [tcp(Some("127.0.0.1"), None), tcp(Some("127.0.0.1"), None)];
        Reservations::default().choose("x", &mut wanted, false, std::iter::empty()).unwrap();
        assert_ne!(wanted[0].host_port, wanted[1].host_port);
        assert!(wanted.iter().all(|b| b.host_port.is_some_and(|p| CHOICE.contains(&p))));
    }
}
