//! The state as it will be once this step's changes are applied: every stage reads and writes it, so later
//! stages see what earlier ones decided. At the end it becomes the batches.
//!
//! An object that several stages touched becomes one change, made from the version it was read at. What a
//! change frees in this step (an address, a port) is not handed out in the same step: see
//! [`Draft::base`]. So the batches apply in any order.

use crate::{Clock, Line, Plan, Report, depend::Stand, nodes::Replicas, slots};
use model::{
    Batch, Change, Conflict, Desired, Event, Labels, Meta, NodeId, Object, ObjectRef, Placement, Service,
    ServiceId, Slot, TEMPLATES_LEVEL, Tables, Task, TaskId, TaskStatus, Timestamp,
};
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Changes in one batch at most. Source: swarmkit `MaxChangesPerTransaction`.
const BATCH_LIMIT: usize = 200;

pub(crate) struct Draft<'a> {
    base: &'a Tables,
    tables: Tables,
    clock: Clock,
    /// In the order of first touch: an old task stands before its replacement.
    touched: Vec<ObjectRef>,
    seen: BTreeSet<ObjectRef>,
    report: Report,
    wake_at: Option<Timestamp>,
    ids: &'a mut dyn FnMut() -> u128,
    /// Counted when it is first asked for, and kept up to date.
    replicas: OnceCell<Replicas>,
    /// Where services that others depend on stand, until their tasks change.
    stands: BTreeMap<ServiceId, Stand>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(base: &'a Tables, clock: Clock, ids: &'a mut dyn FnMut() -> u128) -> Self {
        Self {
            base,
            tables: base.clone(),
            clock,
            touched: Vec::new(),
            seen: BTreeSet::new(),
            report: Report::default(),
            wake_at: None,
            ids,
            replicas: OnceCell::new(),
            stands: BTreeMap::new(),
        }
    }

    /// Returns the state with what was decided so far.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Returns the state this step began with: what is claimed there is not free yet.
    pub(crate) fn base(&self) -> &'a Tables {
        self.base
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now
    }

    /// Returns the moment from which a delay or a deadline counts that began with a stored moment.
    pub(crate) fn learnt(&self, stored: Timestamp) -> Timestamp {
        self.clock.learnt(stored)
    }

    /// Returns how many replicas of each service every node has, by what was decided so far.
    pub(crate) fn replicas(&self) -> &Replicas {
        self.replicas.get_or_init(|| Replicas::count(&self.tables))
    }

    /// Returns where a service stands for those that depend on it.
    pub(crate) fn stand(&mut self, service: &Service) -> Stand {
        *self.stands.entry(service.id).or_insert_with(|| Stand::of(&self.tables, service))
    }

    /// Asks to be called again at `at`, if that is still to come.
    pub(crate) fn wake(&mut self, at: Timestamp) {
        if at > self.now() {
            self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
        }
    }

    pub(crate) fn say(&mut self, subject: impl Into<String>, what: &'static str, reason: impl Into<String>) {
        self.report.lines.push(Line { subject: subject.into(), what, reason: reason.into() });
    }

    /// Stores an object; false (and a line in the report) if something else holds what it claims.
    pub(crate) fn put(&mut self, object: Object) -> bool {
        self.apply(object.key(), Change::Put(object))
    }

    pub(crate) fn delete(&mut self, key: ObjectRef) {
        if let Some(stored) = self.tables.get(key) {
            self.apply(key, Change::Delete { key, version: stored.version() });
        }
    }

    /// Changes a task, if it is there and the edit makes a difference.
    pub(crate) fn edit_task(&mut self, id: TaskId, edit: impl FnOnce(&mut Task)) -> bool {
        let Some(old) = self.tables.tasks.get(&id) else { return false };
        let mut new = Task::clone(old);
        edit(&mut new);
        if new == **old { true } else { self.put(Object::Task(Arc::new(new))) }
    }

    /// Changes a service, if it is there and the edit makes a difference.
    pub(crate) fn edit_service(&mut self, id: model::ServiceId, edit: impl FnOnce(&mut Service)) -> bool {
        let Some(old) = self.tables.services.get(&id) else { return false };
        let mut new = Service::clone(old);
        edit(&mut new);
        if new == **old { true } else { self.put(Object::Service(Arc::new(new))) }
    }

    /// Returns why an object could not be stored now.
    pub(crate) fn refusal(&self, object: Object) -> Option<Conflict> {
        let batch = Batch { at: self.now(), changes: vec![Change::Put(object)] };
        self.tables.clone().apply(self.base.index + 1, &batch).err()
    }

    /// Sets what is wanted of a task, noting when.
    pub(crate) fn want(&mut self, id: TaskId, desired: Desired) {
        let now = self.now();
        self.edit_task(id, |task| {
            if task.desired != desired {
                task.desired = desired;
                task.desired_at = now;
            }
        });
    }

    /// Makes a fresh task for a slot of a service.
    pub(crate) fn create_task(&mut self, service: &Service, slot: Slot, desired: Desired) -> TaskId {
        let id = TaskId((self.ids)());
        let default = self.tables.cluster.as_ref().and_then(|cluster| cluster.spec.log_driver.clone());
        let log_driver = default.filter(|_| service.spec.task.log_driver.is_none());
        let level = self.tables.cluster.as_ref().map_or(0, |cluster| cluster.feature_level);
        let container = &service.spec.task.container;
        let templated = |tables: &Tables| {
            let mut secrets = container.secrets.iter().filter_map(|file| tables.secrets.get(&file.id));
            let mut configs = container.configs.iter().filter_map(|file| tables.configs.get(&file.id));
            secrets.any(|secret| secret.spec.templated) || configs.any(|config| config.spec.templated)
        };
        let asked =
            level >= TEMPLATES_LEVEL && (container.asks_for_service_labels() || templated(&self.tables));
        let task = Task {
            id,
            meta: Meta::default(),
            service: service.id,
            service_name: service.spec.name.clone(),
            service_labels: if asked { service.spec.labels.clone() } else { Labels::new() },
            slot,
            spec: service.spec.task.clone(),
            spec_version: service.spec_version,
            job_iteration: service.job_iteration,
            log_driver,
            host_ports: Vec::new(),
            generic: model::GenericResources::new(),
            placement: Placement::Unallocated,
            desired,
            attachments: Vec::new(),
            gateway_address: None,
            node_network: slots::node_network(&self.tables, &service.spec.task)
                .filter(|_| level >= model::NODE_NETWORK_LEVEL),
            status: TaskStatus::default(),
            desired_at: self.now(),
            attaches: None,
        };
        self.put(Object::Task(Arc::new(task)));
        id
    }

    /// Returns a node's name for the report.
    pub(crate) fn node_name(&self, id: NodeId) -> String {
        self.tables.nodes.get(&id).map_or_else(|| id.to_string(), |n| n.display_name())
    }

    fn apply(&mut self, key: ObjectRef, change: Change) -> bool {
        let batch = Batch { at: self.now(), changes: vec![change] };
        match self.tables.apply(self.base.index + 1, &batch) {
            Ok(events) => events.iter().for_each(|event| self.note(event)),
            Err(conflict) => {
                self.say(key.to_string(), "not changed", conflict.to_string());
                return false;
            }
        }
        if self.seen.insert(key) {
            self.touched.push(key);
        }
        true
    }

    /// Keeps what was counted of the tables as they are now.
    fn note(&mut self, event: &Event) {
        let (old, new) = match event {
            Event::Created(new) => (None, Some(new)),
            Event::Updated(old, new) => (Some(old), Some(new)),
            Event::Deleted(old) => (Some(old), None),
        };
        let task = |object: Option<&Object>| match object {
            Some(Object::Task(task)) => Some(task.clone()),
            _ => None,
        };
        match (task(old), task(new)) {
            (None, None) => {
                if let ObjectRef::Service(id) = event.key() {
                    self.stands.remove(&id);
                }
            }
            (old, new) => {
                if let Some(replicas) = self.replicas.get_mut() {
                    replicas.change(old.as_deref(), new.as_deref());
                }
                let seen = |task: &Task| (task.desired, task.status.state);
                if old.as_deref().map(seen) != new.as_deref().map(seen)
                    && let Some(task) = new.or(old)
                {
                    self.stands.remove(&task.service);
                }
            }
        }
    }

    pub(crate) fn finish(self) -> Plan {
        let changes: Vec<Change> = self.touched.iter().filter_map(|key| self.net_change(*key)).collect();
        let batches = changes
            .chunks(BATCH_LIMIT)
            .map(|part| Batch { at: self.now(), changes: part.to_vec() })
            .collect();
        Plan { batches, wake_at: self.wake_at, report: self.report }
    }

    /// Returns what became of one object in the whole step, made from the version in the base.
    fn net_change(&self, key: ObjectRef) -> Option<Change> {
        match (self.base.get(key), self.tables.get(key)) {
            (None, None) => None,
            (Some(old), None) => Some(Change::Delete { key, version: old.version() }),
            (None, Some(new)) => Some(Change::Put(with_meta(new, Meta::default()))),
            (Some(old), Some(new)) => {
                let new = with_meta(new, old.meta());
                (new != old).then_some(Change::Put(new))
            }
        }
    }
}

fn with_meta(mut object: Object, meta: Meta) -> Object {
    match &mut object {
        Object::Cluster(o) => Arc::make_mut(o).meta = meta,
        Object::Node(o) => Arc::make_mut(o).meta = meta,
        Object::Service(o) => Arc::make_mut(o).meta = meta,
        Object::Task(o) => Arc::make_mut(o).meta = meta,
        Object::Network(o) => Arc::make_mut(o).meta = meta,
        Object::Secret(o) => Arc::make_mut(o).meta = meta,
        Object::Config(o) => Arc::make_mut(o).meta = meta,
        Object::Stack(o) => Arc::make_mut(o).meta = meta,
        Object::User(o) => Arc::make_mut(o).meta = meta,
        Object::Audit(o) => Arc::make_mut(o).meta = meta,
    }
    object
}
