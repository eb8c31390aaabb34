//! `ports`. Source: compose specification "ports"; docker/cli `opts/port.go`.

use crate::{Error, read::Item};
use model::{PortConfig, Protocol, PublishMode};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn read(ports: &Item<'_>) -> Result<Vec<PortConfig>, Error> {
    let mut all: Vec<PortConfig> = Vec::new();
    // A range may be of all ports there are.
    let mut published = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for item in ports.items()? {
        let more = if item.is_map() { vec![long(&item)?] } else { short(&item)? };
        for port in more {
            let first = *published.entry((port.protocol, port.published)).or_insert(port.target);
            if port.published != 0 && first != port.target {
                return Err(item.invalid(format!(
                    "port {} is published twice, to {first} and {}",
                    port.published, port.target
                )));
            }
            let host = port.mode == PublishMode::Host;
            if seen.insert((port.protocol, port.published, port.target, host)) {
                all.push(port);
            }
        }
    }
    Ok(all)
}

const PROTOCOLS: &[(&str, Protocol)] =
    &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
const NO_HOST_IP: &str = "published ports answer on every address of every host: leave the address out";

fn long(item: &Item<'_>) -> Result<PortConfig, Error> {
    item.only(&["target", "published", "protocol", "mode", "name", "app_protocol", "host_ip"], &[])?;
    if item.get("host_ip").is_some() {
        // The whole port: one that was meant for a single address is not to answer on all.
        return Err(item.unsupported(NO_HOST_IP));
    }
    let target = item.get("target").ok_or_else(|| item.invalid("a port needs a target"))?;
    let published = match item.get("published") {
        Some(p) if !p.string()?.is_empty() => p.integer::<u16>()?,
        _ => 0,
    };
    Ok(PortConfig {
        name: item.get("name").map_or(Ok(String::new()), |n| n.string())?,
        protocol: item.get("protocol").map_or(Ok(Protocol::Tcp), |p| p.one_of(PROTOCOLS))?,
        target: nonzero(&target, target.integer::<u16>()?)?,
        published,
        mode: item.get("mode").map_or(Ok(PublishMode::Ingress), |m| {
            m.one_of(&[("ingress", PublishMode::Ingress), ("host", PublishMode::Host)])
        })?,
    })
}

fn nonzero(item: &Item<'_>, port: u16) -> Result<u16, Error> {
    if port == 0 { Err(item.invalid("0 is no port")) } else { Ok(port) }
}

/// `[published:]target[/protocol]`, each a port or a range.
fn short(item: &Item<'_>) -> Result<Vec<PortConfig>, Error> {
    let text = item.string()?;
    let bad = |why: &str| item.invalid(format!("invalid port {text:?}: {why}"));
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let protocol = PROTOCOLS.iter().find(|(name, _)| *name == protocol.to_ascii_lowercase());
    let (_, protocol) = protocol.ok_or_else(|| bad("the protocol is tcp, udp or sctp"))?;
    let (published, target) = match ports.rsplit_once(':') {
        None => (None, ports),
        Some((published, _)) if published.contains(':') || published.contains('.') => {
            return Err(item.unsupported(format!("invalid port {text:?}: {NO_HOST_IP}")));
        }
        Some((published, target)) => (Some(published).filter(|p| !p.is_empty()), target),
    };
    let range = |text: &str| -> Option<(u16, u16)> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first > 0 && first <= last).then_some((first, last))
    };
    let targets = range(target).ok_or_else(|| bad("want [PUBLISHED:]TARGET[/PROTOCOL]"))?;
    let published = match published {
        None => None,
        Some(p) => Some(range(p).ok_or_else(|| bad("want [PUBLISHED:]TARGET[/PROTOCOL]"))?),
    };
    if let Some((first, last)) = published
        && last - first != targets.1 - targets.0
    {
        return Err(bad("both ranges must be of the same length"));
    }
    let port = |target: u16| PortConfig {
        name: String::new(),
        protocol: *protocol,
        target,
        published: published.map_or(0, |(first, _)| first + (target - targets.0)),
        mode: PublishMode::Ingress,
    };
    Ok((targets.0..=targets.1).map(port).collect())
}
