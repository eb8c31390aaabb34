//! Published ports in Docker's short form. Source: docker/go-connections `nat.ParsePortSpec`; docker/cli
//! `opts/swarmopts.ConvertPortToPortConfig`.

use super::canon::{entry, text};
use crate::{
    Error,
    read::Item,
    tree::{Node, Value},
};
use std::net::IpAddr;

type Range = (u32, u32);

/// More than there are of all protocols is a mistake, or an attack.
const PORTS_MAX: usize = 3 * 65536;

/// Returns the long forms of a list of ports.
pub(super) fn long(
    items: &[Item<'_>],
    as_written: impl Fn(&Item<'_>) -> Result<Option<Node>, Error>,
) -> Result<Vec<Node>, Error> {
    let mut all = Vec::new();
    for item in items {
        match &item.node.value {
            Value::Str(spec) => all.extend(short(item, spec)?),
            Value::Int(number) => all.extend(short(item, &number.to_string())?),
            _ => all.extend(as_written(item)?),
        }
        if all.len() > PORTS_MAX {
            return Err(item.invalid(format!("the service has more than {PORTS_MAX} ports")));
        }
    }
    Ok(all)
}

fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let number = digits.parse().ok().filter(|n| *n <= 65535);
    number.filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn range(text: &str) -> Option<Range> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (number(start)?, number(end)?);
    (start <= end).then_some((start, end))
}

/// `[[address:]host:]container[/protocol]`, where both may be ranges.
fn short(item: &Item<'_>, spec: &str) -> Result<Vec<Node>, Error> {
    let invalid = |why: String| item.invalid(format!("invalid port {spec:?}: {why}"));
    let (before, container) = spec.rsplit_once(':').map_or((None, spec), |(b, c)| (Some(b), c));
    let (address, host) = before.map(|b| b.rsplit_once(':').unwrap_or(("", b))).unwrap_or_default();
    let (container, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid(format!("want tcp, udp or sctp, not {protocol:?}")));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(invalid(format!("{address:?} is no address")));
    }
    let wrong = |what: &str, text: &str| invalid(format!("want a {what} port from 0 to 65535, not {text:?}"));
    let (first, last) = range(container).ok_or_else(|| wrong("container", container))?;
    let hosts = if host.is_empty() { None } else { Some(range(host).ok_or_else(|| wrong("host", host))?) };
    if let Some((start, end)) = hosts
        && end - start != last - first
        && first != last
    {
        return Err(invalid(format!("the ranges {host} and {container} are not of one length")));
    }
    let mut targets: Vec<u32> = (first..=last).collect();
    // As texts, says docker/cli.
    targets.sort_by_key(ToString::to_string);
    let one = |target: u32, published: u32| {
        let at = &item.node.at;
        let mut entries =
            vec![entry("mode", text("ingress", at)), entry("protocol", text(protocol.as_str(), at))];
        for (key, number) in
            [("target", target), ("published", published)].into_iter().filter(|(_, n)| *n != 0)
        {
            entries.push(entry(key, Node::new(Value::Int(number.into()), at.clone())));
        }
        Node::new(Value::Map(entries), at.clone())
    };
    Ok(targets
        .into_iter()
        .flat_map(|target| match hosts {
            None => vec![one(target, 0)],
            Some((start, end)) if first == last => {
                (start..=end).map(|published| one(target, published)).collect()
            }
            Some((start, _)) => vec![one(target, start + (target - first))],
        })
        .collect())
}
