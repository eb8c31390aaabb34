//! Docker's `filters` parameter: `{"label": {"a=b": true}}`, or the older `{"label": ["a=b"]}`.
//!
//! What is asked for with a filter that was not understood would be every object there is: a script takes that for an
//! answer, and a prune removes it. So each route says here which filters it has and what their values are, and there is
//! no other way to a route's filters than past that list.

use super::ApiError;
use model::Labels;
use std::collections::BTreeMap;

/// *Limit* of the values of all filters of a request.
const VALUES_MAX: usize = 1000;

/// The filters of one route.
pub(crate) type Known = [(&'static str, Kind)];

/// What the values of a filter are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Anything: names, labels, patterns.
    Text,
    /// One name.
    One,
    /// One of Docker's words for yes and no.
    Flag,
    /// One moment, or an age.
    Moment,
    Integer,
    /// `80`, `80-90`, `80/udp`.
    Ports,
    /// One of these.
    Word(&'static [&'static str]),
}

use Kind::{Flag, Integer, Moment, One, Ports, Text, Word};

const SCOPES: Kind = Word(&["local", "global", "swarm"]);
const KINDS_OF_EVENTS: Kind = Word(&[
    "builder",
    "config",
    "container",
    "daemon",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "volume",
]);

// *Source:* Docker API 1.51; moby `daemon/{list,prune,images}*.go`, `daemon/cluster/filters.go`.

pub(crate) const CONTAINERS: &Known = &[
    ("ancestor", Text),
    ("before", One),
    ("exited", Integer),
    ("expose", Ports),
    ("health", Word(&["starting", "healthy", "unhealthy", "none"])),
    ("id", Text),
    ("is-task", Flag),
    // Containers of Linux are isolated in one way only.
    ("isolation", Word(&["default"])),
    ("label", Text),
    ("label!", Text),
    ("name", Text),
    ("network", Text),
    ("publish", Ports),
    ("since", One),
    ("status", Word(&["created", "running", "paused", "restarting", "removing", "exited", "dead"])),
    ("volume", Text),
];
pub(crate) const PRUNED: &Known = &[("label", Text), ("label!", Text), ("until", Moment)];
pub(crate) const IMAGES: &Known = &[
    ("before", Text),
    ("dangling", Flag),
    ("label", Text),
    ("label!", Text),
    ("reference", Text),
    ("since", Text),
    ("until", Moment),
];
pub(crate) const IMAGES_PRUNED: &Known =
    &[("dangling", Flag), ("label", Text), ("label!", Text), ("until", Moment)];
pub(crate) const IMAGES_FOUND: &Known = &[("is-automated", Flag), ("is-official", Flag), ("stars", Integer)];
pub(crate) const BUILDS_PRUNED: &Known = &[
    ("description", Text),
    ("id", Text),
    ("inuse", Flag),
    ("label", Text),
    ("label!", Text),
    ("parent", Text),
    ("private", Flag),
    ("shared", Flag),
    ("type", Text),
    ("until", Moment),
    ("unused-for", Moment),
];
pub(crate) const VOLUMES: &Known =
    &[("dangling", Flag), ("driver", Text), ("label", Text), ("label!", Text), ("name", Text)];
pub(crate) const VOLUMES_PRUNED: &Known = &[("all", Flag), ("label", Text), ("label!", Text)];
pub(crate) const NETWORKS: &Known = &[
    ("dangling", Flag),
    ("driver", Text),
    ("id", Text),
    ("label", Text),
    ("name", Text),
    ("scope", SCOPES),
    ("type", Word(&["builtin", "custom"])),
];
pub(crate) const EVENTS: &Known = &[
    ("config", Text),
    ("container", Text),
    ("daemon", Text),
    ("event", Text),
    ("image", Text),
    ("label", Text),
    ("network", Text),
    ("node", Text),
    ("plugin", Text),
    ("scope", SCOPES),
    ("secret", Text),
    ("service", Text),
    ("type", KINDS_OF_EVENTS),
    ("volume", Text),
];
pub(crate) const NODES: &Known = &[
    ("id", Text),
    ("label", Text),
    ("membership", Word(&["accepted", "pending"])),
    ("name", Text),
    ("node.label", Text),
    ("role", Word(&["manager", "worker"])),
];
const RUNTIMES: Kind = Word(&["container", "plugin"]);
pub(crate) const SERVICES: &Known = &[
    ("id", Text),
    ("label", Text),
    ("mode", Word(&["replicated", "global", "replicated-job", "global-job"])),
    ("name", Text),
    ("runtime", RUNTIMES),
];
pub(crate) const TASKS: &Known = &[
    ("_up-to-date", Flag),
    ("desired-state", Word(&["running", "shutdown", "accepted", "ready", "complete", "remove"])),
    ("id", Text),
    ("label", Text),
    ("name", Text),
    ("node", Text),
    ("runtime", RUNTIMES),
    ("service", Text),
];
/// Secrets and configs.
pub(crate) const FILES: &Known = &[("id", Text), ("label", Text), ("name", Text), ("names", Text)];
pub(crate) const PLUGINS: &Known = &[("capability", Text), ("enabled", Flag)];
pub(crate) const STACKS: &Known = &[("name", Text)];
pub(crate) const USERS: &Known = &[("id", Text), ("name", Text), ("role", Text)];

fn invalid(key: &str, value: &str) -> ApiError {
    ApiError::bad_request(format!("invalid filter '{key}={value}'"))
}

impl Kind {
    /// # Errors
    /// 400 for what this kind of filter cannot have.
    fn judge(self, key: &str, values: &[String]) -> Result<(), ApiError> {
        // Of some, there is exactly one: with none, nothing was said; of two, one would have no effect.
        match (self, values) {
            (One | Flag | Moment, [_]) | (Text | Integer | Ports | Word(_), _) => {}
            (One | Flag | Moment, _) => return Err(invalid(key, &format!("[{}]", values.join(" ")))),
        }
        let fits = |value: &str| match self {
            Text | One => true,
            Flag => matches!(value, "0" | "1" | "false" | "true"),
            Moment => engine::read_until(value).is_ok(),
            Integer => value.parse::<i32>().is_ok(),
            Ports => engine::read_ports(value).is_some(),
            Word(words) => words.contains(&value),
        };
        values.iter().find(|value| !fits(value)).map_or(Ok(()), |value| Err(invalid(key, value)))
    }
}

/// Filter name -> accepted values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads either form.
    ///
    /// # Errors
    /// 400 when it is neither, or there are too many.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Values {
            Map(BTreeMap<String, bool>),
            List(Vec<String>),
        }
        let read: Option<BTreeMap<String, Values>> = serde_json::from_str(text)
            .map_err(|e| ApiError::bad_request(format!("invalid filters {text:?}: {e}")))?;
        let mut filters = Self::default();
        for (key, values) in read.unwrap_or_default() {
            let values = match values {
                // Taken for absent, it would let everything pass.
                Values::Map(map) => match map.iter().find(|(_, on)| !**on) {
                    Some((value, _)) => return Err(invalid(&key, value)),
                    None => map.into_keys().collect(),
                },
                Values::List(list) => list,
            };
            filters.0.insert(key, values);
        }
        // Each is held against each object.
        if filters.0.values().map(Vec::len).sum::<usize>() > VALUES_MAX {
            return Err(ApiError::bad_request(format!("invalid filters: more than {VALUES_MAX} values")));
        }
        Ok(filters)
    }

    /// Refuses filters that a route does not have, and values that can fit nothing.
    ///
    /// # Errors
    /// 400 in Docker's words.
    pub(crate) fn judged(self, known: &Known) -> Result<Self, ApiError> {
        for (key, values) in &self.0 {
            let Some((_, kind)) = known.iter().find(|(name, _)| name == key) else {
                return Err(ApiError::bad_request(format!("invalid filter '{key}'")));
            };
            kind.judge(key, values)?;
        }
        Ok(self)
    }

    pub(crate) fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns true if there is no such filter, or one of its values satisfies `accepts`.
    pub(crate) fn any(&self, key: &str, accepts: impl Fn(&str) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|v| accepts(v))
    }

    pub(crate) fn prefix(&self, key: &str, of: &str) -> bool {
        self.any(key, |wanted| of.starts_with(wanted))
    }

    /// Returns true if all `key` filters (`name` or `name=value`) hold of the labels.
    pub(crate) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.get(key).iter().all(|filter| match filter.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(filter),
        })
    }

    /// Returns what a filter of kind [`Flag`] says; `None`: it is not there.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).first().map(|word| matches!(word.as_str(), "1" | "true"))
    }

    /// Adds a value.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.0.entry(key.to_owned()).or_default().push(value.to_owned());
        self
    }

    /// Returns the same filters for the engine.
    pub(crate) fn engine(self) -> engine::Filters {
        engine::Filters(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let new = Filters::parse(r#"{"label":{"a=b":true}}"#).unwrap();
        assert_eq!(new, Filters::parse(r#"{"label":["a=b"]}"#).unwrap());
        assert_eq!(Filters::parse("null").unwrap(), Filters::default());
        assert!(Filters::parse("[1]").is_err());
        let refused = Filters::parse(r#"{"label":{"a=b":true,"c":false}}"#).unwrap_err();
        assert_eq!(refused.message, "invalid filter 'label=c'", "what is not so is not the same as nothing");
        let many = |count: usize| serde_json::json!({ "name": vec!["x"; count] }).to_string();
        assert!(Filters::parse(&many(VALUES_MAX)).is_ok());
        assert!(Filters::parse(&many(VALUES_MAX + 1)).unwrap_err().message.contains("more than 1000"));
    }

    #[test]
    fn what_can_fit_nothing_is_refused() {
        let check = |known: &Known, key: &str, values: &[&str]| {
            let text = serde_json::json!({ key: values }).to_string();
            Filters::parse(&text).unwrap().judged(known).map(drop).map_err(|e| (e.status.as_u16(), e.message))
        };
        for (known, key, values) in [
            (CONTAINERS, "status", &["running", "exited"][..]),
            (CONTAINERS, "publish", &["80", "8000-8010/udp"]),
            (CONTAINERS, "exited", &["137", "-1"]),
            (PRUNED, "until", &["24h"]),
            (PRUNED, "until", &["2026-01-02T03:04:05Z"]),
            (IMAGES_PRUNED, "dangling", &["0"]),
            (VOLUMES, "label", &[]),
            (TASKS, "desired-state", &["shutdown"]),
        ] {
            assert_eq!(check(known, key, values), Ok(()), "{key}={values:?}");
        }
        for (known, key, values) in [
            (CONTAINERS, "status", &["runing"][..]),
            (CONTAINERS, "health", &["ok"]),
            (CONTAINERS, "exited", &["x"]),
            (CONTAINERS, "is-task", &["x"]),
            (CONTAINERS, "publish", &["70000"]),
            (CONTAINERS, "publish", &["9-8"]),
            (CONTAINERS, "expose", &["80/icmp"]),
            (CONTAINERS, "since", &["a", "b"]),
            (CONTAINERS, "until", &["1h"]),
            (PRUNED, "until", &["soon"]),
            (PRUNED, "until", &["1h", "2h"]),
            (PRUNED, "until", &["inf"]),
            (PRUNED, "lable", &["a"]),
            (IMAGES_PRUNED, "dangling", &["maybe"]),
            (IMAGES_PRUNED, "dangling", &["true", "false"]),
            (IMAGES_PRUNED, "dangling", &[]),
            (IMAGES_PRUNED, "reference", &["a"]),
            (VOLUMES_PRUNED, "until", &["1h"]),
            (VOLUMES_PRUNED, "all", &["yes"]),
            (NETWORKS, "type", &["x"]),
            (NETWORKS, "scope", &["host"]),
            (NODES, "role", &["leader"]),
            (SERVICES, "mode", &["daemon"]),
            (EVENTS, "type", &["containers"]),
        ] {
            let (status, message) = check(known, key, values).unwrap_err();
            assert_eq!(status, 400);
            assert!(message.starts_with(&format!("invalid filter '{key}")), "{message}");
        }
    }

    #[test]
    fn labels_must_all_hold_and_other_values_any() {
        let filters = Filters::parse(r#"{"label":["a=1","b"],"name":["x","we"]}"#).unwrap();
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert!(filters.labels("label", &labels(&[("a", "1"), ("b", "")])));
        assert!(!filters.labels("label", &labels(&[("a", "1")])));
        assert!(filters.prefix("name", "web") && !filters.prefix("name", "db"));
        assert_eq!(filters.judged(&[("label", Text)]).unwrap_err().message, "invalid filter 'name'");
    }
}
