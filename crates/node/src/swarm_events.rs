//! What happens in the swarm, told on a manager as dockerd tells it: services, nodes, networks, secrets and configs that
//! come, change and go are events with scope `swarm`. *Source:* Docker API `SystemEvents`; moby `daemon/events.go`.
//!
//! Each manager tells from its own replica, with the times that the change has in it. So all of them tell the same, and
//! who listened to one that is gone asks another for what came `since` the last event that it heard. What the replica
//! still knows of earlier changes when this begins is for those who ask so too; it is no news.

use crate::clock::clock;
use docker_api::convert::{availability_word, node_state_shown, role_word, update_state_word};
use engine::{Engine, Event, EventKind};
use model::{ClusterId, Mode, Node, Object, ObjectRef, Service, Tables, Timestamp};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How far the changes of a swarm were told on this host, by whichever manager ran here last.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Option<(ClusterId, u64)>>);

impl Told {
    fn up_to(&self, cluster: ClusterId) -> Option<u64> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.filter(|(of, _)| *of == cluster).map(|(_, index)| index)
    }

    fn set(&self, cluster: ClusterId, index: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((cluster, index));
    }
}

/// Tells of every change until the store is shut down.
///
/// # Cancel safety
/// What was told is in `told`; what came after is told by the next one.
pub(crate) async fn tell(store: store::Handle, cluster: ClusterId, told: Arc<Told>, engine: Engine) {
    let index = *store.watch().borrow();
    let before = told.up_to(cluster);
    for (at, changes) in store.kept_changes().into_iter().filter(|(at, _)| *at <= index) {
        for event in changes.iter().filter_map(event_of) {
            match before {
                None => engine.recall(event),
                Some(done) if at > done => engine.publish(event),
                Some(_) => {}
            }
        }
    }
    let mut known = Known::of(&store.view());
    let mut feed = store.feed(index);
    loop {
        told.set(cluster, feed.position());
        match feed.next().await {
            Ok(None) => return,
            Ok(Some((_, changes))) => {
                for change in changes.iter() {
                    known.note(change);
                    if let Some(event) = event_of(change) {
                        engine.publish(event);
                    }
                }
            }
            Err(_) => {
                // Another manager sent the state as a whole: what is different is told.
                let index = *store.watch().borrow();
                let now = Known::of(&store.view());
                for change in known.until(&now) {
                    let Some(event) = event_of(&change) else { continue };
                    let at = match &change {
                        // When that was is not known.
                        model::Event::Deleted(_) => clock(),
                        model::Event::Created(_) | model::Event::Updated(..) => event.at,
                    };
                    engine.publish(Event { at, ..event });
                }
                (known, feed) = (now, store.feed(index));
            }
        }
    }
}

/// The objects that are told of, as they were told last.
#[derive(Debug, Default)]
struct Known(BTreeMap<ObjectRef, Object>);

impl Known {
    fn of(state: &Tables) -> Self {
        let nodes = state.nodes.values().cloned().map(Object::Node);
        let all = nodes
            .chain(state.services.values().cloned().map(Object::Service))
            .chain(state.networks.values().cloned().map(Object::Network))
            .chain(state.secrets.values().cloned().map(Object::Secret))
            .chain(state.configs.values().cloned().map(Object::Config));
        Self(all.map(|object| (object.key(), object)).collect())
    }

    fn note(&mut self, change: &model::Event) {
        match change {
            model::Event::Created(new) | model::Event::Updated(_, new) if kind_of(new).is_some() => {
                self.0.insert(new.key(), new.clone());
            }
            model::Event::Deleted(old) => drop(self.0.remove(&old.key())),
            model::Event::Created(_) | model::Event::Updated(..) => {}
        }
    }

    /// Returns the changes that lead from one state to another.
    fn until(&self, now: &Self) -> Vec<model::Event> {
        let gone = self.0.iter().filter(|(key, _)| !now.0.contains_key(key));
        let gone = gone.map(|(_, old)| model::Event::Deleted(old.clone()));
        let there = now.0.iter().filter_map(|(key, new)| match self.0.get(key) {
            None => Some(model::Event::Created(new.clone())),
            Some(old) if old.version() != new.version() => {
                Some(model::Event::Updated(old.clone(), new.clone()))
            }
            Some(_) => None,
        });
        let mut changes: Vec<_> = gone.chain(there).collect();
        changes.sort_by_key(|change| match change {
            // As it came about: the versions are Raft's.
            model::Event::Created(new) | model::Event::Updated(_, new) => new.version(),
            model::Event::Deleted(_) => u64::MAX,
        });
        changes
    }
}

fn kind_of(object: &Object) -> Option<(EventKind, String, String)> {
    Some(match object {
        Object::Node(o) => (EventKind::Node, o.id.to_string(), o.display_name()),
        Object::Service(o) => (EventKind::Service, o.id.to_string(), o.spec.name.clone()),
        Object::Network(o) => (EventKind::Network, o.id.to_string(), o.spec.name.clone()),
        Object::Secret(o) => (EventKind::Secret, o.id.to_string(), o.spec.name.clone()),
        Object::Config(o) => (EventKind::Config, o.id.to_string(), o.spec.name.clone()),
        Object::Cluster(_) | Object::Task(_) | Object::Stack(_) | Object::User(_) | Object::Audit(_) => {
            return None;
        }
    })
}

/// Returns what is told of a change; `None`: nothing. What is being removed is gone for whoever listens.
fn event_of(change: &model::Event) -> Option<Event> {
    let (action, object, old) = match change {
        model::Event::Created(new) => ("create", new, None),
        model::Event::Updated(old, _) | model::Event::Deleted(old) if old.is_leaving() => return None,
        model::Event::Updated(_, new) if new.is_leaving() => ("remove", new, None),
        // That is the allocator: nobody changes a network.
        model::Event::Updated(_, Object::Network(_)) => return None,
        model::Event::Updated(old, new) => ("update", new, Some(old)),
        model::Event::Deleted(old) => ("remove", old, None),
    };
    let (kind, actor, name) = kind_of(object)?;
    let mut attributes = BTreeMap::from([("name".to_owned(), name)]);
    match (old, object) {
        (Some(Object::Node(old)), Object::Node(new)) => node_changes(old, new, &mut attributes),
        (Some(Object::Service(old)), Object::Service(new)) => service_changes(old, new, &mut attributes),
        _ => {}
    }
    let at: Timestamp = object.meta().updated_at;
    Some(Event { kind, action: action.to_owned(), actor, attributes, scope: "swarm", at })
}

/// Adds what something was and what it is, if that differs.
fn differ(to: &mut BTreeMap<String, String>, what: &str, old: &str, new: &str) {
    if old != new {
        to.insert(format!("{what}.old"), old.to_owned());
        to.insert(format!("{what}.new"), new.to_owned());
    }
}

fn node_changes(old: &Node, new: &Node, to: &mut BTreeMap<String, String>) {
    let (was, is) = (old.spec.availability, new.spec.availability);
    differ(to, "availability", availability_word(was), availability_word(is));
    differ(to, "role", role_word(old.certified_role), role_word(new.certified_role));
    differ(to, "state", node_state_shown(old.status.state), node_state_shown(new.status.state));
}

fn service_changes(old: &Service, new: &Service, to: &mut BTreeMap<String, String>) {
    differ(to, "image", &old.spec.task.container.image, &new.spec.task.container.image);
    if let (Mode::Replicated { replicas: was }, Mode::Replicated { replicas: is }) =
        (old.spec.mode, new.spec.mode)
    {
        differ(to, "replicas", &was.to_string(), &is.to_string());
    }
    match (&old.update, &new.update) {
        (None, Some(is)) => {
            to.insert("updatestate.new".to_owned(), update_state_word(is.state).to_owned());
        }
        (Some(was), Some(is)) => {
            differ(to, "updatestate", update_state_word(was.state), update_state_word(is.state));
        }
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        Availability, Batch, Change, Meta, NodeId, NodeSpec, NodeState, NodeStatus, Role, Secret,
        SecretBytes, SecretId, SecretSpec,
    };

    fn node(state: NodeState, availability: Availability) -> Object {
        Object::Node(Arc::new(Node {
            id: NodeId(7),
            meta: Meta { updated_at: Timestamp(70), ..Meta::default() },
            spec: NodeSpec { name: Some("h7".into()), availability, ..NodeSpec::default() },
            index: 1,
            certified_role: Role::Worker,
            description: None,
            status: NodeStatus { state, ..NodeStatus::default() },
            manager: None,
        }))
    }

    fn secret(name: &str, version: u64) -> Object {
        Object::Secret(Arc::new(Secret {
            id: SecretId(name.len() as u128),
            meta: Meta { version, ..Meta::default() },
            spec: SecretSpec {
                templated: false,
                name: name.into(),
                labels: model::Labels::new(),
                data: SecretBytes(b"hidden".to_vec()),
            },
        }))
    }

    fn shown(event: &Event) -> String {
        let attributes: Vec<_> =
            event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{} {} {}", event.kind.as_str(), event.action, attributes.join(" "))
    }

    #[test]
    fn a_nodes_event_says_what_is_different_in_dockers_words() {
        use {
            Availability::{Active, Drain},
            NodeState::{Away, Down, Ready},
        };
        let told = |old, new| {
            let event = event_of(&model::Event::Updated(old, new)).unwrap();
            assert_eq!((event.scope, event.at, event.actor.len()), ("swarm", Timestamp(70), 25));
            shown(&event)
        };
        let ready = || node(Ready, Active);
        assert_eq!(told(ready(), node(Down, Active)), "node update name=h7 state.new=down state.old=ready");
        let drained = "node update availability.new=drain availability.old=active name=h7";
        assert_eq!(told(ready(), node(Ready, Drain)), drained);
        // Docker has no word for a daemon that is away.
        assert_eq!(told(ready(), node(Away, Active)), "node update name=h7");
    }

    #[test]
    fn what_lies_between_two_states_is_told_as_if_it_had_been_followed() {
        let mut state = Tables::default();
        let batch = |at, changes| Batch { at: Timestamp(at), changes };
        let puts = ["a", "bb", "ccc"].map(|name| Change::Put(secret(name, 0))).into();
        let mut known = Known::of(&state);
        let first = state.apply(1, &batch(10, puts)).unwrap();
        first.iter().for_each(|change| known.note(change));
        let before = Known::of(&state);
        assert_eq!(before.0, known.0);
        let changes = vec![
            Change::Delete { key: secret("a", 0).key(), version: 1 },
            Change::Put(secret("bb", 1)),
            Change::Put(secret("dddd", 0)),
        ];
        let followed = state.apply(2, &batch(20, changes)).unwrap();
        let events: Vec<_> = followed.iter().filter_map(event_of).collect();
        let told: Vec<_> = events.iter().map(shown).collect();
        assert_eq!(told, ["secret remove name=a", "secret update name=bb", "secret create name=dddd"]);
        // Each with the time that all managers have for it.
        assert!(events.iter().all(|event| event.at == Timestamp(20)), "{events:?}");
        let mut again: Vec<_> =
            before.until(&Known::of(&state)).iter().filter_map(event_of).map(|e| shown(&e)).collect();
        again.rotate_right(1);
        assert_eq!(again, told);
    }

    #[test]
    fn only_the_host_that_told_a_swarm_knows_how_far() {
        let told = Told::default();
        told.set(ClusterId(1), 9);
        assert_eq!((told.up_to(ClusterId(1)), told.up_to(ClusterId(2))), (Some(9), None));
    }
}
