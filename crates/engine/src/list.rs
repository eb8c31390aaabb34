//! Lists and prunes containers. The filters are Docker's.

use crate::{
    container::*,
    engine::Engine,
    error::{Error, Result},
    event::EventKind,
};
use model::Timestamp;
use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(crate) async fn list(engine: &Engine, options: ListOptions) -> Result<Vec<Arc<Container>>> {
    let filters = &options.filters;
    let all = options.all
        || options.limit.is_some()
        || ["status", "exited", "before", "since"].iter().any(|k| !filters.get(k).is_empty());
    let created = |key: &str| -> Result<Option<Timestamp>> {
        filters.get(key).first().map(|c| engine.inspect(c).map(|c| c.created_at)).transpose()
    };
    let (before, since) = (created("before")?, created("since")?);
    let mut ancestors = BTreeSet::new();
    for wanted in filters.get("ancestor") {
        // An unknown image matches nothing.
        ancestors.extend(engine.inner.images.get(wanted).await.map(|i| i.id.to_string()));
    }
    let mut found = engine.inner.registry.snapshots();
    found.retain(|c| {
        (all || c.state.is_running() || c.state.status == Status::Restarting)
            && before.is_none_or(|t| c.created_at < t)
            && since.is_none_or(|t| c.created_at > t)
            && (filters.get("ancestor").is_empty() || ancestors.contains(&c.image_id))
            && passes(c, filters)
    });
    found.truncate(options.limit.unwrap_or(usize::MAX));
    Ok(found)
}

fn passes(c: &Container, filters: &Filters) -> bool {
    let in_range = |number: u16, port: crate::config::Port, wanted: &str| {
        read_ports(wanted).is_some_and(|(range, protocol)| {
            range.contains(&number) && port.to_string().ends_with(&format!("/{protocol}"))
        })
    };
    filters.any("id", |id| c.id.starts_with(id))
        // Some clients put Docker's slash before a name.
        && (filters.name_matches(&c.name) || filters.name_matches(&format!("/{}", c.name)))
        && filters.any("status", |s| c.state.status.as_str() == s)
        && filters
            .any("exited", |code| code.parse() == Ok(c.state.exit_code) && c.state.status == Status::Exited)
        && filters.any("health", |h| c.health().map_or("none", |have| have.status.as_str()) == h)
        && filters
            .any("network", |n| c.networks.iter().any(|(name, e)| name == n || e.network_id.starts_with(n)))
        && filters.any("volume", |v| c.mounts.iter().any(|m| m.name == v || m.destination == v))
        && filters.any("publish", |p| c.ports.iter().any(|have| in_range(have.host_port, have.container, p)))
        && filters
            .any("expose", |p| c.config.exposed_ports.iter().any(|have| in_range(have.number, *have, p)))
        && filters.any("is-task", |v| {
            matches!(v, "1" | "true") == c.config.labels.contains_key("com.docker.swarm.task.id")
        })
        && filters.labels_match(&c.config.labels)
}

/// Reads filter `publish` or `expose`: `80`, `80-90`, `80/udp`; `None`: it is no such thing.
pub fn read_ports(text: &str) -> Option<(RangeInclusive<u16>, &str)> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high && matches!(protocol, "tcp" | "udp" | "sctp")).then_some((low..=high, protocol))
}

pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    filters.get("until").first().map(|text| read_until(text)).transpose()
}

/// Reads a moment as filters say it: RFC 3339, a day or a time of UTC without its zone, seconds since 1970, or an age
/// (`10m`, `1h30m`, `1.5h`). *Source:* moby `api/types/time`.
///
/// # Errors
/// `InvalidParameter` for anything else.
pub fn read_until(text: &str) -> Result<Timestamp> {
    let invalid = || Error::invalid(format!("invalid until filter: {text}"));
    if let Some(at) = seconds_since_1970(text).or_else(|| moment(text)) {
        return Ok(at);
    }
    let age = age(text).ok_or_else(invalid)?;
    Ok(Timestamp(crate::now().0.saturating_sub(age)))
}

fn seconds_since_1970(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.is_empty() || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

fn moment(text: &str) -> Option<Timestamp> {
    let zoned = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = zoned(text)
        .or_else(|| zoned(&format!("{text}Z")))
        .or_else(|| zoned(&format!("{text}:00Z")))
        .or_else(|| zoned(&format!("{text}T00:00:00Z")))?;
    i64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp)
}

/// Reads a duration as Go writes it, and days. *Unit:* nanoseconds.
fn age(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_ends);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let nanos: i64 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut part = nanos.checked_mul(whole.parse().ok()?)?;
        let mut digit = nanos;
        for c in fraction.chars() {
            digit /= 10;
            part = part.checked_add(digit.checked_mul(i64::from(c.to_digit(10)?))?)?;
        }
        (total, rest) = (total.checked_add(part)?, tail);
    }
    (!text.is_empty()).then_some(total)
}

pub(crate) async fn prune(engine: &Engine, filters: &Filters) -> Result<Pruned> {
    let before = until(filters)?;
    let mut pruned = Pruned::default();
    for container in engine.inner.registry.snapshots() {
        let stopped = matches!(container.state.status, Status::Created | Status::Exited | Status::Dead);
        let old = before.is_none_or(|t| container.created_at < t);
        if !stopped || !old || !filters.labels_match(&container.config.labels) {
            continue;
        }
        let size = crate::usage::size(engine, &container).await?.writable;
        match engine.remove(&container.id, RemoveOptions::default()).await {
            Ok(()) => {
                pruned.reclaimed_bytes += size;
                pruned.removed.push(container.id.clone());
            }
            // Started or removed meanwhile.
            Err(e) => tracing::debug!(container.id = %container.id, error = %e, "not pruned"),
        }
    }
    engine.pruned_event(EventKind::Container, pruned.reclaimed_bytes);
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn filter(text: &str) -> Filters {
        Filters(BTreeMap::from([("until".to_owned(), vec![text.to_owned()])]))
    }

    #[test]
    fn until_takes_times_and_ages() {
        assert_eq!(until(&filter("100")).unwrap(), Some(Timestamp(100_000_000_000)));
        assert_eq!(until(&filter("1970-01-01T00:00:01Z")).unwrap(), Some(Timestamp(1_000_000_000)));
        let age = crate::now().since(until(&filter("1h30m")).unwrap().unwrap()).as_secs();
        assert!((5399..=5401).contains(&age));
        let age = crate::now().since(until(&filter("1.5h0m0s500ms")).unwrap().unwrap()).as_secs();
        assert!((5400..=5402).contains(&age));
        let day = Timestamp(1_767_225_600_000_000_000);
        for text in ["2026-01-01", "2026-01-01T00:00", "2026-01-01T00:00:00", "2026-01-01T01:00:00+01:00"] {
            assert_eq!(until(&filter(text)).unwrap(), Some(day), "{text}");
        }
        for text in
            ["soon", "", "inf", "NaN", "1", "9999999999h", "99999999999999", "h", "1h2", "1.2.3h", "-1h"]
        {
            let read = until(&filter(text));
            assert!(read.is_err() || text == "1", "{text:?}: {read:?}");
        }
        assert_eq!(until(&Filters::default()).unwrap(), None);
    }

    #[test]
    fn name_patterns_may_be_anchored() {
        let named = |pattern: &str| Filters([("name".to_owned(), vec![pattern.to_owned()])].into());
        for (pattern, name, fits) in [
            ("^web$", "web", true),
            ("we", "my-web", true),
            ("^web", "my-web", false),
            ("w.b", "web", true),
            ("[", "web", false),
        ] {
            assert_eq!(named(pattern).name_matches(name), fits, "{pattern} {name}");
        }
    }
}
