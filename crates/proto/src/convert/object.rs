//! Stored objects, their names, and batches of changes; and sharing of equal task specs.

use super::{Field, Invalid, Problem, public, take};
use crate::types;
use model::{Change, Object, ObjectRef, Service, ServiceId, Task, TaskSpec};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

public! {
    Object => types::Object,
    ObjectRef => types::ObjectRef,
    Change => types::Change,
    model::Batch => types::Batch,
}

impl Field<types::Object> for Object {
    fn put(&self) -> types::Object {
        use types::object::Kind;
        let kind = match self {
            Self::Cluster(o) => Kind::Cluster(o.put()),
            Self::Node(o) => Kind::Node(o.put()),
            Self::Service(o) => Kind::Service(o.put()),
            Self::Task(o) => Kind::Task(o.put()),
            Self::Network(o) => Kind::Network(o.put()),
            Self::Secret(o) => Kind::Secret(o.put()),
            Self::Config(o) => Kind::Config(o.put()),
            Self::Stack(o) => Kind::Stack(o.put()),
            Self::User(o) => Kind::User(o.put()),
            Self::Audit(o) => Kind::Audit(o.put()),
        };
        types::Object { kind: Some(kind) }
    }
    fn take(wire: types::Object) -> Result<Self, Invalid> {
        use types::object::Kind;
        Ok(match wire.kind.ok_or_else(|| Problem::Missing.of("kind"))? {
            Kind::Cluster(o) => Self::Cluster(take("cluster", o)?),
            Kind::Node(o) => Self::Node(take("node", o)?),
            Kind::Service(o) => Self::Service(take("service", o)?),
            Kind::Task(o) => Self::Task(take("task", o)?),
            Kind::Network(o) => Self::Network(take("network", o)?),
            Kind::Secret(o) => Self::Secret(take("secret", o)?),
            Kind::Config(o) => Self::Config(take("config", o)?),
            Kind::Stack(o) => Self::Stack(take("stack", o)?),
            Kind::User(o) => Self::User(take("user", o)?),
            Kind::Audit(o) => Self::Audit(take("audit", o)?),
        })
    }
}

impl Field<types::ObjectRef> for ObjectRef {
    fn put(&self) -> types::ObjectRef {
        use types::ObjectKind;
        let (kind, id) = match self {
            Self::Cluster => (ObjectKind::Cluster, Vec::new()),
            Self::Node(id) => (ObjectKind::Node, id.put()),
            Self::Service(id) => (ObjectKind::Service, id.put()),
            Self::Task(id) => (ObjectKind::Task, id.put()),
            Self::Network(id) => (ObjectKind::Network, id.put()),
            Self::Secret(id) => (ObjectKind::Secret, id.put()),
            Self::Config(id) => (ObjectKind::Config, id.put()),
            Self::Stack(id) => (ObjectKind::Stack, id.put()),
            Self::User(id) => (ObjectKind::User, id.put()),
            Self::Audit(id) => (ObjectKind::Audit, id.put()),
        };
        types::ObjectRef { kind: kind as i32, id }
    }
    fn take(wire: types::ObjectRef) -> Result<Self, Invalid> {
        use types::ObjectKind;
        Ok(match ObjectKind::try_from(wire.kind) {
            Ok(ObjectKind::Cluster) => Self::Cluster,
            Ok(ObjectKind::Node) => Self::Node(take("id", wire.id)?),
            Ok(ObjectKind::Service) => Self::Service(take("id", wire.id)?),
            Ok(ObjectKind::Task) => Self::Task(take("id", wire.id)?),
            Ok(ObjectKind::Network) => Self::Network(take("id", wire.id)?),
            Ok(ObjectKind::Secret) => Self::Secret(take("id", wire.id)?),
            Ok(ObjectKind::Config) => Self::Config(take("id", wire.id)?),
            Ok(ObjectKind::Stack) => Self::Stack(take("id", wire.id)?),
            Ok(ObjectKind::User) => Self::User(take("id", wire.id)?),
            Ok(ObjectKind::Audit) => Self::Audit(take("id", wire.id)?),
            Ok(ObjectKind::Unspecified) | Err(_) => return Err(Problem::UnknownValue(wire.kind).of("kind")),
        })
    }
}

impl Field<types::Change> for Change {
    fn put(&self) -> types::Change {
        use types::change::Change as Wire;
        let change = match self {
            Self::Put(object) => Wire::Put(object.put()),
            Self::Delete { key, version } => {
                Wire::Delete(types::Deletion { key: key.put(), version: *version })
            }
        };
        types::Change { change: Some(change) }
    }
    fn take(wire: types::Change) -> Result<Self, Invalid> {
        use types::change::Change as Wire;
        Ok(match wire.change.ok_or_else(|| Problem::Missing.of("change"))? {
            Wire::Put(object) => Self::Put(take("put", object)?),
            Wire::Delete(types::Deletion { key, version }) => {
                Self::Delete { key: take("key", key)?, version }
            }
        })
    }
}

impl Field<types::Batch> for model::Batch {
    fn put(&self) -> types::Batch {
        types::Batch { at: self.at.put(), changes: self.changes.put() }
    }
    fn take(wire: types::Batch) -> Result<Self, Invalid> {
        Ok(Self { at: take("at", wire.at)?, changes: take("changes", wire.changes)? })
    }
}

/// Makes decoded tasks and services of one spec version share one `Arc<TaskSpec>`, as they did where they were
/// written: without it every task of a thousand would hold its own copy.
#[derive(Debug, Default)]
pub struct SpecCache {
    specs: BTreeMap<(ServiceId, u64), Weak<TaskSpec>>,
    /// How many there were when those that nobody uses any more were last looked for. (A weak reference keeps the memory
    /// of what it pointed to, 1.3 KB for a spec.)
    swept: usize,
}

/// So few are not worth looking through.
const SPECS_FEW: usize = 32;

impl SpecCache {
    /// Replaces the object's task spec by the equal one seen before, if there is one.
    pub fn share(&mut self, object: &mut Object) {
        match object {
            Object::Task(task) => self.share_task(Arc::make_mut(task)),
            Object::Service(service) => self.share_service(Arc::make_mut(service)),
            Object::Cluster(_)
            | Object::Node(_)
            | Object::Network(_)
            | Object::Secret(_)
            | Object::Config(_)
            | Object::Stack(_)
            | Object::User(_)
            | Object::Audit(_) => {}
        }
    }

    /// As [`Self::share`], for a task alone.
    pub fn share_task(&mut self, task: &mut Task) {
        if let Some(known) = self.known((task.service, task.spec_version), &task.spec) {
            task.spec = known;
        }
    }

    fn share_service(&mut self, service: &mut Service) {
        if let Some(known) = self.known((service.id, service.spec_version), &service.spec.task) {
            Arc::make_mut(&mut service.spec).task = known;
        }
    }

    fn known(&mut self, key: (ServiceId, u64), spec: &Arc<TaskSpec>) -> Option<Arc<TaskSpec>> {
        if let Some(known) = self.specs.get(&key).and_then(Weak::upgrade)
            && known == *spec
        {
            return Some(known);
        }
        if self.specs.len() >= 2 * self.swept.max(SPECS_FEW) {
            self.specs.retain(|_, weak| weak.strong_count() > 0);
            self.swept = self.specs.len();
        }
        self.specs.insert(key, Arc::downgrade(spec));
        None
    }
}
