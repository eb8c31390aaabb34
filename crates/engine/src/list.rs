//! Lists and prunes containers. The filters are Docker's.

use crate::{
    container::*,
    engine::Engine,
    error::{Error, Result},
};
use model::Timestamp;
use std::{collections::BTreeSet, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const KNOWN: [&str; 17] = [
    "id",
    "name",
    "label",
    "label!",
    "status",
    "ancestor",
    "before",
    "since",
    "exited",
    "health",
    "network",
    "volume",
    "publish",
    "expose",
    "is-task",
    "isolation",
    "until",
];

pub(crate) async fn list(engine: &Engine, options: ListOptions) -> Result<Vec<Arc<Container>>> {
    let filters = &options.filters;
    if let Some(unknown) = filters.0.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
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
    let ports = |wanted: &str| {
        let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        (low.parse::<u16>().unwrap_or(0), high.parse::<u16>().unwrap_or(0), protocol.to_owned())
    };
    let in_range = |number: u16, port: crate::config::Port, wanted: &str| {
        let (low, high, protocol) = ports(wanted);
        (low..=high).contains(&number) && port.to_string().ends_with(&protocol)
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

/// Reads filter `until`: RFC 3339, Unix seconds, or `10m`, `1h30m` ago.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let Some(text) = filters.get("until").first() else { return Ok(None) };
    let invalid = || Error::invalid(format!("invalid until filter: {text}"));
    if let Ok(seconds) = text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "seconds of this age fit")]
        return Ok(Some(Timestamp((seconds * 1e9) as i64)));
    }
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(Some(Timestamp(i64::try_from(at.unix_timestamp_nanos()).unwrap_or(i64::MAX))));
    }
    let (mut seconds, mut number) = (0i64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let n: i64 = number.parse().map_err(|_| invalid())?;
        number.clear();
        seconds += n * match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(invalid()),
        };
    }
    if number.is_empty() {
        Ok(Some(Timestamp(crate::now().0 - seconds * 1_000_000_000)))
    } else {
        Err(invalid())
    }
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
        assert!(until(&filter("soon")).is_err());
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
