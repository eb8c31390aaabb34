//! Lists and prunes containers. The filters are Docker's.

use crate::{
    error::Result,
    inner::Inner,
    seen::{container::*, event::EventKind},
};
use model::Timestamp;
use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

pub(crate) async fn list(inner: &Inner, options: ListOptions) -> Result<Vec<Arc<Container>>> {
    let filters = &options.filters;
    let all = options.all
        || options.limit.is_some()
        || ["status", "exited", "before", "since"].iter().any(|k| !filters.get(k).is_empty());
    let created = |key: &str| -> Result<Option<Timestamp>> {
        filters.get(key).first().map(|c| inner.inspect(c).map(|c| c.created_at)).transpose()
    };
    let (before, since) = (created("before")?, created("since")?);
    let mut ancestors = BTreeSet::new();
    for wanted in filters.get("ancestor") {
        // An unknown image matches nothing.
        ancestors.extend(inner.images.get(wanted).await.map(|i| i.id.to_string()));
    }
    let mut found = inner.registry.snapshots();
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
    let in_range = |number: u16, port: crate::ask::config::Port, wanted: &str| {
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

pub(crate) async fn prune(inner: &Inner, filters: &Filters) -> Result<Pruned> {
    let before = filters.until()?;
    let mut pruned = Pruned::default();
    for container in inner.registry.snapshots() {
        let stopped = matches!(container.state.status, Status::Created | Status::Exited | Status::Dead);
        let old = before.is_none_or(|t| container.created_at < t);
        if !stopped || !old || !filters.labels_match(&container.config.labels) {
            continue;
        }
        let size = crate::seen::usage::size(inner, &container).await?.writable;
        match inner.remove(&container.id, RemoveOptions::default()).await {
            Ok(()) => {
                pruned.reclaimed_bytes += size;
                pruned.removed.push(container.id.clone());
            }
            // Started or removed meanwhile.
            Err(e) => tracing::debug!(container.id = %container.id, error = %e, "not pruned"),
        }
    }
    inner.pruned_event(EventKind::Container, pruned.reclaimed_bytes);
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use super::*;

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
