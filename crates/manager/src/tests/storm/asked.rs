//! What people asked for. Nothing changes that nobody asked to be changed, and what they were told was done is done.
//!
//! A request is written down before it is made, whether it is answered or not, with the version that it was made of: so
//! each spec that a service or a node comes to have is that of one request, and what goes is what somebody wanted gone.

use model::*;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ask {
    /// The service of this name is to have this spec, if its spec has this version; 0: there is none.
    Service { name: String, version: u64, spec: Arc<ServiceSpec> },
    /// So is a node.
    Node { node: NodeId, version: u64, spec: NodeSpec },
    /// It leaves the swarm by itself.
    Leaves(NodeId),
    /// It is to be gone; a stack with all that is its.
    Removal(ObjectRef),
}

/// What somebody was told that something is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Is {
    /// At this version of its spec.
    Service(u64, Arc<ServiceSpec>),
    Node(NodeSpec),
    Gone,
}

#[derive(Debug, Default)]
struct State {
    asks: Vec<Ask>,
    /// With the index at which it was so.
    told: BTreeMap<ObjectRef, (u64, Is)>,
}

/// All that was asked for, and answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Asks(Arc<Mutex<State>>);

impl Asks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask(&self, ask: Ask) {
        self.lock().asks.push(ask);
    }

    pub(super) fn was_asked_for(&self, ask: &Ask) -> bool {
        self.lock().asks.contains(ask)
    }

    /// Notes what somebody was told: the newest is what counts.
    pub(super) fn told(&self, key: ObjectRef, index: u64, is: Is) {
        let mut state = self.lock();
        let known = state.told.entry(key).or_insert_with(|| (index, is.clone()));
        if known.0 < index {
            *known = (index, is);
        }
    }

    /// Judges what the managers agree on now by what was asked, by what people were told, and by what was before.
    ///
    /// # Errors
    /// What is not as it must be.
    pub(super) fn judge(&self, before: &Tables, view: &Tables) -> Result<(), String> {
        let state = self.lock();
        state.nothing_else_changes(before, view)?;
        state.nothing_else_goes(before, view)?;
        state.holds(view)
    }
}

impl State {
    fn nothing_else_changes(&self, before: &Tables, view: &Tables) -> Result<(), String> {
        for service in view.services.values() {
            let old = before.services.get(&service.id);
            if old.is_some_and(|old| old.spec_version == service.spec_version && old.spec == service.spec) {
                continue;
            }
            if !self.was_asked(service) && !rolled_itself_back(old, service) {
                return Err(format!(
                    "service {} has version {} of its spec, which nobody asked for: {:?}; it had {:?}",
                    service.spec.name,
                    service.spec_version,
                    service.spec,
                    old.map(|old| (old.spec_version, &old.spec))
                ));
            }
        }
        for node in view.nodes.values() {
            let Some(old) = before.nodes.get(&node.id).filter(|old| old.spec != node.spec) else { continue };
            let since = old.meta.version..node.meta.version;
            let is_asked = |ask: &Ask| match ask {
                Ask::Node { node: of, version, spec } => {
                    *of == node.id && since.contains(version) && *spec == node.spec
                }
                Ask::Leaves(of) => {
                    *of == node.id && NodeSpec { role: Role::Worker, ..old.spec.clone() } == node.spec
                }
                Ask::Service { .. } | Ask::Removal(_) => false,
            };
            if !self.asks.iter().any(is_asked) {
                return Err(format!(
                    "node {} is {:?}, which nobody asked for; it was {:?}",
                    node.display_name(),
                    node.spec,
                    old.spec
                ));
            }
        }
        Ok(())
    }

    fn was_asked(&self, service: &Service) -> bool {
        self.asks.iter().any(|ask| match ask {
            Ask::Service { name, version, spec } => {
                *name == service.spec.name && version + 1 == service.spec_version && *spec == service.spec
            }
            Ask::Node { .. } | Ask::Leaves(_) | Ask::Removal(_) => false,
        })
    }

    fn nothing_else_goes(&self, before: &Tables, view: &Tables) -> Result<(), String> {
        let goes = |object: &Object| {
            !object.is_leaving() && view.get(object.key()).is_none_or(|object| object.is_leaving())
        };
        let stack_goes = |labels: &Labels| {
            let stack = labels.get(STACK_LABEL).and_then(|name| before.stack_named(name));
            stack.is_some_and(|stack| self.is_to_go(ObjectRef::Stack(stack.id)))
        };
        let services = before.services.values().map(|o| (Object::Service(o.clone()), Some(&o.spec.labels)));
        let networks = before.networks.values().map(|o| (Object::Network(o.clone()), Some(&o.spec.labels)));
        let secrets = before.secrets.values().map(|o| (Object::Secret(o.clone()), Some(&o.spec.labels)));
        let configs = before.configs.values().map(|o| (Object::Config(o.clone()), Some(&o.spec.labels)));
        let stacks = before.stacks.values().map(|o| (Object::Stack(o.clone()), None));
        let nodes = before.nodes.values().map(|o| (Object::Node(o.clone()), None));
        let all = services.chain(networks).chain(secrets).chain(configs).chain(stacks).chain(nodes);
        for (object, labels) in all.filter(|(object, _)| goes(object)) {
            let is_asked = self.is_to_go(object.key())
                || labels
                    .is_some_and(|labels| stack_goes(labels) || is_of_no_revision(&object, labels, view));
            if !is_asked {
                let name = object.name();
                return Err(format!("{} {name:?} goes, which nobody asked for", object.key()));
            }
        }
        Ok(())
    }

    fn is_to_go(&self, key: ObjectRef) -> bool {
        self.asks.contains(&Ask::Removal(key))
    }

    /// What people were told is so, or something else was asked for since.
    fn holds(&self, view: &Tables) -> Result<(), String> {
        for (key, (index, told)) in self.told.iter().filter(|(_, (index, _))| *index <= view.index) {
            let is = view.get(*key);
            let holds = match (told, &is) {
                (Is::Gone, is) => is.as_ref().is_none_or(Object::is_leaving),
                // That it is gone was judged when it went.
                (_, None) => true,
                (Is::Service(version, spec), Some(Object::Service(service))) => {
                    service.spec_version > *version
                        || (service.spec_version == *version && service.spec == *spec)
                }
                (Is::Node(spec), Some(Object::Node(node))) => {
                    node.meta.version > *index || (node.meta.version == *index && node.spec == *spec)
                }
                (Is::Service(..) | Is::Node(_), Some(_)) => false,
            };
            if !holds {
                return Err(format!("{key} was said to be {told:?} at {index}, and is {is:?}"));
            }
        }
        Ok(())
    }
}

/// The plan may put back what a service was before, when what it is to be does not run.
fn rolled_itself_back(old: Option<&Arc<Service>>, service: &Service) -> bool {
    let rolls_back = service.update.as_ref().is_some_and(|update| match update.state {
        UpdateState::RollbackStarted | UpdateState::RollbackPaused | UpdateState::RollbackCompleted => true,
        UpdateState::Updating | UpdateState::Paused | UpdateState::Completed => false,
    });
    let is_before = old.is_none_or(|old| {
        // Else something else was asked for between.
        old.spec_version + 1 != service.spec_version || old.previous.as_ref() == Some(&service.spec)
    });
    rolls_back && service.previous.is_none() && is_before
}

/// Secrets and configs of a stack go with the last revision that has them.
fn is_of_no_revision(object: &Object, labels: &Labels, view: &Tables) -> bool {
    let Some(stack) = labels.get(STACK_LABEL).and_then(|name| view.stack_named(name)) else { return false };
    let mut specs = stack.revisions.iter().flat_map(|revision| &revision.services);
    let uses = |spec: &ServiceSpec| match object.key() {
        ObjectRef::Secret(id) => spec.task.container.secrets.iter().any(|file| file.id == id),
        ObjectRef::Config(id) => spec.task.container.configs.iter().any(|file| file.id == id),
        _ => true,
    };
    stack.revisions.first().is_some_and(|first| first.number > 1) && !specs.any(|spec| uses(spec))
}
