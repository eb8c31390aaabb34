//! What happened, told to whoever listens: the last 256 events of this host are kept, and those of the swarm; filters as
//! Docker's.
//!
//! Source: Docker API `SystemEvents`.

use crate::seen::container::{Container, Filters};
use model::Timestamp;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::broadcast;

const KEPT: usize = 256;
/// *Limit* of what an event says: it is kept, and waits for every listener. *Unit:* bytes.
const EVENT_BYTES_MAX: usize = 64 << 10;
/// *Limit* of one word of an event that says more in all. *Unit:* characters.
const WORD_MAX: usize = 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// Docker's word: `create`, `start`, `die`, `exec_start: ls`, `health_status: healthy`, ...
    pub action: String,
    /// Container or network id, volume name, image id or reference.
    pub actor: String,
    /// Name, image, labels, exit code, ...
    pub attributes: BTreeMap<String, String>,
    /// `local` or `swarm`.
    pub scope: &'static str,
    pub at: Timestamp,
}

/// Source: Docker API event `Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    Builder,
    Config,
    Container,
    Daemon,
    Image,
    Network,
    Node,
    Plugin,
    Secret,
    Service,
    Volume,
}

impl EventKind {
    /// Returns Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::Config => "config",
            Self::Container => "container",
            Self::Daemon => "daemon",
            Self::Image => "image",
            Self::Network => "network",
            Self::Node => "node",
            Self::Plugin => "plugin",
            Self::Secret => "secret",
            Self::Service => "service",
            Self::Volume => "volume",
        }
    }
}

impl Event {
    /// Makes an event of this host that happens now.
    pub fn now(
        kind: EventKind,
        action: impl Into<String>,
        actor: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) -> Self {
        Self {
            kind,
            action: action.into(),
            actor: actor.into(),
            attributes,
            scope: "local",
            at: crate::now(),
        }
    }

    /// Cuts what is too long to be told to everybody: a label or a command line may be as long as a request. What does not
    /// fit even so is left out, but for the names of what it is about.
    fn shortened(mut self) -> Self {
        let said = |event: &Self| {
            let attributes = event.attributes.iter().map(|(name, value)| name.len() + value.len());
            event.action.len() + event.actor.len() + attributes.sum::<usize>()
        };
        if said(&self) <= EVENT_BYTES_MAX {
            return self;
        }
        for text in [&mut self.action, &mut self.actor].into_iter().chain(self.attributes.values_mut()) {
            if let Some((end, _)) = text.char_indices().nth(WORD_MAX) {
                text.truncate(end);
                text.push_str("...");
            }
        }
        let mut rest = said(&self).saturating_sub(EVENT_BYTES_MAX);
        // Labels among them: what Docker says itself is short.
        self.attributes.retain(|name, value| {
            let stays =
                rest == 0 || matches!(name.as_str(), "name" | "image" | "container" | "exitCode" | "execID");
            rest = if stays { rest } else { rest.saturating_sub(name.len() + value.len()) };
            stays
        });
        self
    }

    /// Returns true if the event passes Docker's event filters (`type event container image volume network label
    /// scope ...`).
    pub fn passes(&self, filters: &Filters) -> bool {
        let actor_is = |wanted: &str| {
            self.actor == wanted
                || (wanted.len() >= 4 && self.actor.starts_with(wanted))
                || self.attributes.get("name").is_some_and(|n| n == wanted.trim_start_matches('/'))
        };
        let of_kind = |key: &str, kind: EventKind| {
            filters.get(key).is_empty() || (self.kind == kind && filters.any(key, actor_is))
        };
        let base_action = self.action.split(':').next().unwrap_or_default();
        filters.any("type", |t| t == self.kind.as_str())
            && filters.any("event", |e| e == self.action || e == base_action)
            && filters.any("scope", |s| s == self.scope)
            && of_kind("container", EventKind::Container)
            && of_kind("volume", EventKind::Volume)
            && of_kind("network", EventKind::Network)
            && of_kind("service", EventKind::Service)
            && of_kind("node", EventKind::Node)
            && of_kind("secret", EventKind::Secret)
            && of_kind("config", EventKind::Config)
            && of_kind("daemon", EventKind::Daemon)
            && of_kind("plugin", EventKind::Plugin)
            && filters.any("image", |i| {
                actor_is(i)
                    || self.attributes.get("image").is_some_and(|have| {
                        have == i || have.rsplit_once(':').is_some_and(|(name, _)| name == i)
                    })
            })
            && filters.labels_match(&self.attributes)
    }
}

/// Docker's attributes of a container event: labels, image, name, and more.
pub(crate) fn container_event<const N: usize>(
    container: &Container,
    action: impl Into<String>,
    more: [(&str, String); N],
) -> Event {
    let mut attributes: BTreeMap<String, String> = container.config.labels.clone();
    attributes.insert("image".into(), container.config.image.clone());
    attributes.insert("name".into(), container.name.clone());
    attributes.extend(more.map(|(k, v)| (k.to_owned(), v)));
    Event::now(EventKind::Container, action, container.id.clone(), attributes)
}

/// The engine's bulletin board; cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    kept: Arc<Mutex<Kept>>,
    told: Arc<AtomicU64>,
}

/// What a busy host does must not push out what the swarm did, which happens once.
#[derive(Debug, Default)]
struct Kept {
    local: VecDeque<Arc<Event>>,
    swarm: VecDeque<Arc<Event>>,
}

impl Kept {
    fn keep(&mut self, event: Arc<Event>) {
        let kept = if event.scope == "swarm" { &mut self.swarm } else { &mut self.local };
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(1024), kept: Arc::default(), told: Arc::default() }
    }
}

impl Events {
    /// Tells everybody. Never blocks; a listener that is 1024 events behind loses the oldest.
    pub fn publish(&self, event: Event) {
        let event = Arc::new(event.shortened());
        // Under the lock, so that `subscribe` neither misses an event nor gets it twice.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keep(event.clone());
        self.told.fetch_add(1, Relaxed);
        self.sender.send(event).ok(); // an error only says that nobody listens
    }

    /// Returns how many events were published.
    pub fn told(&self) -> u64 {
        self.told.load(Relaxed)
    }

    /// Keeps what happened before, for those who ask for the past: nobody is told.
    pub fn recall(&self, event: Event) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).keep(Arc::new(event.shortened()));
    }

    /// Returns the kept events, oldest first, and a receiver of everything after them.
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = kept.local.iter().chain(&kept.swarm).cloned().collect();
        all.sort_by_key(|event| event.at);
        (all, self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        let attributes = BTreeMap::from([
            ("name".to_owned(), "web".to_owned()),
            ("image".to_owned(), "busybox:latest".to_owned()),
        ]);
        Event {
            kind: EventKind::Container,
            action: action.into(),
            actor: "abcdef".into(),
            attributes,
            scope: "local",
            at: Timestamp(1),
        }
    }

    fn filter(key: &str, value: &str) -> Filters {
        Filters(BTreeMap::from([(key.to_owned(), vec![value.to_owned()])]))
    }

    #[test]
    fn filters_choose_by_type_action_actor_and_image() {
        let e = event("health_status: healthy");
        for (key, value) in [
            ("type", "container"),
            ("event", "health_status"),
            ("event", "health_status: healthy"),
            ("container", "web"),
            ("container", "abcd"),
            ("image", "busybox"),
            ("label", "name=web"),
        ] {
            assert!(e.passes(&filter(key, value)), "{key}={value}");
        }
        for (key, value) in
            [("type", "image"), ("event", "die"), ("container", "db"), ("volume", "web"), ("label", "x")]
        {
            assert!(!e.passes(&filter(key, value)), "{key}={value}");
        }
    }

    #[test]
    fn an_event_says_no_more_than_everybody_can_be_told() {
        let bytes = |event: &Event| {
            event.action.len()
                + event.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let labelled = |count: usize, length: usize| {
            let mut event = event("start");
            event.attributes.extend((0..count).map(|n| (format!("label{n}"), "é".repeat(length / 2))));
            event
        };
        let small = labelled(10, 1000);
        assert_eq!(small.clone().shortened(), small);
        for long in [labelled(3, 4 << 20), labelled(20_000, 100), event(&"exec_create: x".repeat(1 << 18))] {
            let cut = long.shortened();
            assert!(bytes(&cut) <= EVENT_BYTES_MAX, "{}", bytes(&cut));
            assert_eq!(cut.attributes["name"], "web");
            assert_eq!(cut.attributes["image"], "busybox:latest");
            assert!(cut.passes(&filter("event", cut.action.split(':').next().unwrap())));
        }
    }

    #[test]
    fn only_the_last_256_events_are_kept() {
        let events = Events::default();
        for n in 0..300 {
            events.publish(event(&n.to_string()));
        }
        let (kept, _) = events.subscribe();
        assert_eq!((kept.len(), kept[0].action.as_str()), (256, "44"));
    }

    #[test]
    fn a_busy_host_pushes_out_nothing_of_the_swarm() {
        let events = Events::default();
        let of_swarm = |action, at| Event { scope: "swarm", at: Timestamp(at), ..event(action) };
        events.recall(of_swarm("remembered", 0));
        let (_, mut live) = events.subscribe();
        events.publish(of_swarm("late", 2));
        (0..300).for_each(|n| events.publish(event(&n.to_string())));
        let (kept, _) = events.subscribe();
        let ends = [&kept[0], &kept[257]].map(|event| event.action.as_str());
        assert_eq!((kept.len(), ends), (258, ["remembered", "late"]));
        assert_eq!(live.try_recv().unwrap().action, "late", "what was recalled is no news");
    }
}
