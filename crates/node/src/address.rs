//! Which addresses this node is reached at: what a person typed, or the only one there is.
//!
//! Source: Docker `swarm init`, `--advertise-addr <ip|interface>[:port]`, `--listen-addr`, `--data-path-addr`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Port of node-to-node gRPC when none is named.
pub(crate) const DEFAULT_PORT: u16 = 2377;

/// An address that is of no use; the text is for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAddress {
    #[error("{0:?} is neither an IP address nor a network interface of this host")]
    Unknown(String),
    #[error("invalid port in address {0:?}")]
    Port(String),
    #[error("interface {interface} has {count} IPv4 addresses; name one of them instead")]
    Interface { interface: String, count: usize },
    #[error(
        "advertise address must be a non-zero IP address or network interface (with optional port number)"
    )]
    Unspecified,
    #[error(
        "could not choose an IP address to advertise since this system has {} - specify one with --advertise-addr",
        describe(.0)
    )]
    Ambiguous(Vec<(String, IpAddr)>),
}

fn describe(found: &[(String, IpAddr)]) -> String {
    match found {
        [] => "no usable address".to_owned(),
        many => {
            let list: Vec<String> = many.iter().map(|(i, a)| format!("{a} on {i}")).collect();
            format!("multiple addresses ({})", list.join(" and "))
        }
    }
}

/// Interfaces this host has: name and address, loopback left out.
pub(crate) fn interfaces() -> Vec<(String, IpAddr)> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    all.filter_map(|i| {
        let address = IpAddr::V4(i.address?.as_sockaddr_in()?.ip());
        // Our own bridges and mesh are no way to reach this host.
        // Loopback bears some of ours, too.
        let ours = ["docker", "br-", "rs-", "veth", "g-"].iter().any(|p| i.interface_name.starts_with(p));
        let loopback = address.is_loopback() || i.interface_name == "lo";
        (!loopback && !ours).then_some((i.interface_name, address))
    })
    .collect()
}

/// Splits `host[:port]`; a bare IPv6 address has no port.
fn split(text: &str) -> Result<(&str, Option<u16>), InvalidAddress> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, None));
    }
    match text.rsplit_once(':') {
        None => Ok((text, None)),
        Some((host, port)) => {
            let port = port.parse().map_err(|_| InvalidAddress::Port(text.to_owned()))?;
            Ok((host.trim_start_matches('[').trim_end_matches(']'), Some(port)))
        }
    }
}

fn resolve(host: &str, interfaces: &[(String, IpAddr)]) -> Result<IpAddr, InvalidAddress> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let on: Vec<IpAddr> = interfaces.iter().filter(|(name, _)| name == host).map(|(_, a)| *a).collect();
    match on.as_slice() {
        [one] => Ok(*one),
        [] => Err(InvalidAddress::Unknown(host.to_owned())),
        many => Err(InvalidAddress::Interface { interface: host.to_owned(), count: many.len() }),
    }
}

/// Returns the address others reach this node at.
///
/// # Errors
/// The text names nothing of this host, or is missing and there is not exactly one choice.
pub(crate) fn advertise(
    typed: Option<&str>,
    port: u16,
    interfaces: &[(String, IpAddr)],
) -> Result<SocketAddr, InvalidAddress> {
    match typed.filter(|t| !t.is_empty()) {
        Some(text) => {
            let (host, typed_port) = split(text)?;
            let ip = resolve(host, interfaces)?;
            if ip.is_unspecified() {
                return Err(InvalidAddress::Unspecified);
            }
            Ok(SocketAddr::new(ip, typed_port.unwrap_or(port)))
        }
        None => match interfaces {
            [(_, only)] => Ok(SocketAddr::new(*only, port)),
            many => Err(InvalidAddress::Ambiguous(many.to_vec())),
        },
    }
}

/// Returns what an address that was typed leaves open: an interface, or (empty) everything. `None`: nothing.
pub(crate) fn follows(typed: Option<&str>) -> Option<String> {
    let typed = typed.unwrap_or_default();
    let is_address = split(typed).is_ok_and(|(host, _)| host.parse::<IpAddr>().is_ok());
    (!is_address).then(|| typed.to_owned())
}

/// Returns where to listen; `0.0.0.0:2377` when nothing was typed.
///
/// # Errors
/// The text names nothing of this host.
pub(crate) fn listen(
    typed: Option<&str>,
    interfaces: &[(String, IpAddr)],
) -> Result<SocketAddr, InvalidAddress> {
    let Some(text) = typed.filter(|t| !t.is_empty()) else {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), DEFAULT_PORT));
    };
    let (host, port) = split(text)?;
    Ok(SocketAddr::new(resolve(host, interfaces)?, port.unwrap_or(DEFAULT_PORT)))
}

/// Returns a manager's address as typed after `swarm join`.
///
/// # Errors
/// It is no IP address with an optional port.
pub(crate) fn remote(text: &str) -> Result<SocketAddr, InvalidAddress> {
    let (host, port) = split(text)?;
    let ip = host.parse().map_err(|_| InvalidAddress::Unknown(host.to_owned()))?;
    Ok(SocketAddr::new(ip, port.unwrap_or(DEFAULT_PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<(String, IpAddr)> {
        vec![("eth0".into(), "192.0.2.1".parse().unwrap()), ("eth1".into(), "198.51.100.1".parse().unwrap())]
    }

    #[test]
    fn the_only_address_is_advertised_without_asking() {
        assert_eq!(advertise(None, 2377, &two()[..1]).unwrap().to_string(), "192.0.2.1:2377");
    }

    #[test]
    fn with_several_addresses_the_person_must_choose_and_is_shown_them() {
        let error = advertise(None, 2377, &two()).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1 on eth0 and 198.51.100.1 on eth1"), "{error}");
        assert!(error.contains("--advertise-addr"), "{error}");
    }

    #[test]
    fn addresses_and_interfaces_are_taken_with_and_without_port() {
        for (typed, expected) in
            [("eth1", "198.51.100.1:2377"), ("eth1:99", "198.51.100.1:99"), ("192.0.2.9", "192.0.2.9:2377")]
        {
            assert_eq!(advertise(Some(typed), 2377, &two()).unwrap().to_string(), expected);
        }
        assert_eq!(advertise(Some("wlan9"), 2377, &two()), Err(InvalidAddress::Unknown("wlan9".into())));
        assert_eq!(advertise(Some("0.0.0.0"), 2377, &two()), Err(InvalidAddress::Unspecified));
        assert_eq!(remote("192.0.2.1").unwrap().to_string(), "192.0.2.1:2377");
        assert!(remote("192.0.2.1:x").is_err());
    }
}
