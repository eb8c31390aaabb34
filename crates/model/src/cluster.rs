//! The replicated state of a swarm and the one way it changes.
//!
//! A writer reads a view, decides, and proposes a [`Batch`]: whole objects, each naming the version it was
//! decided on. [`Tables::apply`] is deterministic: every manager that applies the same batches in the same
//! order holds the same tables. A batch applies whole or not at all.
//!
//! What no decision may break is checked here, where writes are serial, not where they are decided: names,
//! addresses, VNIs, published ports and node indexes have one owner, and what an object refers to stays
//! (`integrity`), and the address pools are not promised to more networks than they hold (`pools`). So two leaders in a
//! row, or two writers at once, can lose a race but never hand out one address twice.

mod integrity;
mod pools;
mod subnets;

pub use integrity::INTEGRITY_LEVEL;
pub use pools::{POOLS_LEVEL, Taken};
pub use subnets::Subnets;

use crate::{
    AUDIT_MAX, AuditId, AuditRecord, Cluster, Config, ConfigId, Meta, Network, NetworkAllocation, NetworkId,
    Node, NodeId, Protocol, PublishMode, Secret, SecretId, Service, ServiceId, Stack, StackId, Task, TaskId,
    Timestamp, User, UserId,
    table::{Table, look},
};
use ipnet::IpNet;
use rpds::{RedBlackTreeMapSync as Map, RedBlackTreeSetSync as Set};
use std::{cell::LazyCell, collections::BTreeSet, net::IpAddr, sync::Arc};

/// From this feature level on, objects know at which index they were made.
const CREATED_LEVEL: u32 = 2;

/// Any stored object.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Cluster(Arc<Cluster>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    Task(Arc<Task>),
    Network(Arc<Network>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
    Stack(Arc<Stack>),
    User(Arc<User>),
    Audit(Arc<AuditRecord>),
}

/// Names a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectRef {
    Cluster,
    Node(NodeId),
    Service(ServiceId),
    Task(TaskId),
    Network(NetworkId),
    Secret(SecretId),
    Config(ConfigId),
    Stack(StackId),
    User(UserId),
    Audit(AuditId),
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster => write!(f, "cluster"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Service(id) => write!(f, "service {id}"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Secret(id) => write!(f, "secret {id}"),
            Self::Config(id) => write!(f, "config {id}"),
            Self::Stack(id) => write!(f, "stack {id}"),
            Self::User(id) => write!(f, "user {id}"),
            Self::Audit(id) => write!(f, "audit record {id}"),
        }
    }
}

/// Evaluates `$body` with `$o` bound to the `Arc` inside `$object`, whatever its kind.
macro_rules! each_kind {
    ($object:expr, $o:ident => $body:expr) => {
        match $object {
            Object::Cluster($o) => $body,
            Object::Node($o) => $body,
            Object::Service($o) => $body,
            Object::Task($o) => $body,
            Object::Network($o) => $body,
            Object::Secret($o) => $body,
            Object::Config($o) => $body,
            Object::Stack($o) => $body,
            Object::User($o) => $body,
            Object::Audit($o) => $body,
        }
    };
}

impl Object {
    pub fn key(&self) -> ObjectRef {
        match self {
            Self::Cluster(_) => ObjectRef::Cluster,
            Self::Node(o) => ObjectRef::Node(o.id),
            Self::Service(o) => ObjectRef::Service(o.id),
            Self::Task(o) => ObjectRef::Task(o.id),
            Self::Network(o) => ObjectRef::Network(o.id),
            Self::Secret(o) => ObjectRef::Secret(o.id),
            Self::Config(o) => ObjectRef::Config(o.id),
            Self::Stack(o) => ObjectRef::Stack(o.id),
            Self::User(o) => ObjectRef::User(o.id),
            Self::Audit(o) => ObjectRef::Audit(o.id),
        }
    }

    /// Returns what people call it; none of what has only an id.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Cluster(_) | Self::Audit(_) => None,
            Self::Node(node) => node.description.as_ref().map(|d| d.hostname.clone()),
            Self::Service(service) => Some(service.spec.name.clone()),
            Self::Task(task) => Some(task.name()),
            Self::Network(network) => Some(network.spec.name.clone()),
            Self::Secret(secret) => Some(secret.spec.name.clone()),
            Self::Config(config) => Some(config.spec.name.clone()),
            Self::Stack(stack) => Some(stack.name.clone()),
            Self::User(user) => Some(user.name.clone()),
        }
    }

    pub fn meta(&self) -> Meta {
        each_kind!(self, o => o.meta)
    }

    /// Returns the Raft index of its last change; in a proposal, the one it was decided on.
    pub fn version(&self) -> u64 {
        self.meta().version
    }

    /// Returns true while it is being removed: it is there for what still uses it, and nothing begins to.
    pub fn is_leaving(&self) -> bool {
        match self {
            Self::Service(service) => service.pending_delete,
            Self::Network(network) => network.pending_delete,
            Self::Stack(stack) => stack.pending_delete,
            Self::Cluster(_)
            | Self::Node(_)
            | Self::Task(_)
            | Self::Secret(_)
            | Self::Config(_)
            | Self::User(_)
            | Self::Audit(_) => false,
        }
    }

    fn stamp(&mut self, index: u64) {
        each_kind!(self, o => Arc::make_mut(o).meta.version = index);
    }
}

/// One change, valid only on the version it names.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Stores the object; its `meta.version` is the version it replaces, 0 = must not exist.
    Put(Object),
    Delete {
        key: ObjectRef,
        version: u64,
    },
}

/// Changes that apply together or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The proposer's clock, for `meta` times; apply itself reads none.
    pub at: Timestamp,
    pub changes: Vec<Change>,
}

/// What an applied change did; the change feed is made of these.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Created(Object),
    /// Old, then new.
    Updated(Object, Object),
    /// As it was; `updated_at` is when it was deleted.
    Deleted(Object),
}

impl Event {
    pub fn key(&self) -> ObjectRef {
        match self {
            Self::Created(o) | Self::Updated(_, o) | Self::Deleted(o) => o.key(),
        }
    }
}

/// Why a batch did not apply; nothing of it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("{key} is at version {stored}, the change was made from {named}: update out of sequence")]
    OutOfSequence { key: ObjectRef, named: u64, stored: u64 },
    #[error("{kind} name {name:?} is taken by {owner}")]
    NameTaken { kind: &'static str, name: String, owner: ObjectRef },
    #[error("address {address} of network {network} is held by {owner}")]
    AddressTaken { network: NetworkId, address: IpAddr, owner: ObjectRef },
    #[error("gateway address {address} is held by {owner}")]
    GatewayTaken { address: IpAddr, owner: ObjectRef },
    #[error("VXLAN network identifier {vni} is held by {owner}")]
    VniTaken { vni: u32, owner: ObjectRef },
    #[error("port {port}/{protocol} is already published by {owner}")]
    PortTaken { port: u16, protocol: Protocol, owner: ObjectRef },
    #[error("node index {index} is held by {owner}")]
    IndexTaken { index: u16, owner: ObjectRef },
    #[error("{user} refers to {key}, which is not there or is being removed")]
    Missing { key: ObjectRef, user: ObjectRef },
    #[error("{key} is in use by {user}")]
    InUse { key: ObjectRef, user: ObjectRef },
    #[error("subnet {subnet} overlaps with {other} of {}", owner.map_or("the swarm itself".to_owned(), |o| o.to_string()))]
    SubnetTaken { subnet: IpNet, other: IpNet, owner: Option<ObjectRef> },
    #[error("no address pool has a subnet left for {network}")]
    NoSubnetLeft { network: ObjectRef },
    #[error("{node} is the last manager")]
    LastManager { node: ObjectRef },
    #[error("the swarm has {limit} {kind} already")]
    TooMany { kind: &'static str, limit: usize },
}

/// Something that has at most one owner in the swarm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Name(&'static str, String),
    Address(NetworkId, IpAddr),
    Gateway(IpAddr),
    Vni(u32),
    Port(Protocol, u16),
    Index(u16),
}

impl Claim {
    fn taken_by(self, owner: ObjectRef) -> Conflict {
        match self {
            Self::Name(kind, name) => Conflict::NameTaken { kind, name, owner },
            Self::Address(network, address) => Conflict::AddressTaken { network, address, owner },
            Self::Gateway(address) => Conflict::GatewayTaken { address, owner },
            Self::Vni(vni) => Conflict::VniTaken { vni, owner },
            Self::Port(protocol, port) => Conflict::PortTaken { port, protocol, owner },
            Self::Index(index) => Conflict::IndexTaken { index, owner },
        }
    }
}

/// The state of a swarm at one Raft index. Cloning is O(1): a view is a clone.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Raft index of the last applied batch.
    pub index: u64,
    pub cluster: Option<Arc<Cluster>>,
    pub nodes: Table<NodeId, Node>,
    pub services: Table<ServiceId, Service>,
    pub tasks: Table<TaskId, Task>,
    pub networks: Table<NetworkId, Network>,
    pub secrets: Table<SecretId, Secret>,
    pub configs: Table<ConfigId, Config>,
    pub stacks: Table<StackId, Stack>,
    pub users: Table<UserId, User>,
    /// Oldest first; at most [`AUDIT_MAX`].
    pub audit: Table<AuditId, AuditRecord>,
    claims: Claims,
    tasks_by_service: PairSet<ServiceId, TaskId>,
    tasks_by_node: PairSet<NodeId, TaskId>,
    /// Which services use a secret, config or network, without those that are being removed.
    used_by: PairSet<ObjectRef, ServiceId>,
    /// Which services publish a port and how, without those that are being removed.
    published_by: PairSet<(Protocol, u16, PublishMode), ServiceId>,
    /// Which places that people gave to containers are on a network.
    attached_to: PairSet<NetworkId, TaskId>,
    /// Which networks ask for a subnet or have it, by its addresses.
    subnets: PairSet<subnets::Range, NetworkId>,
    /// Last address handed out per network: the next one is looked for behind it, so that a freed address
    /// rests as long as possible.
    cursors: Cursors,
    /// The VXLAN identifier and the subnet handed out last, for the same reason.
    last_allocation: Option<NetworkAllocation>,
}

#[derive(Debug, Clone)]
struct Claims(Map<Claim, ObjectRef>);
#[derive(Debug, Clone)]
struct PairSet<K: Ord, V: Ord>(Set<(K, V)>);
#[derive(Debug, Clone)]
struct Cursors(Map<NetworkId, IpAddr>);

impl Claims {
    fn owner(&self, claim: &Claim) -> Option<ObjectRef> {
        look();
        self.0.get(claim).copied()
    }
}
impl Default for Claims {
    fn default() -> Self {
        Self(Map::new_sync())
    }
}
impl<K: Ord, V: Ord> Default for PairSet<K, V> {
    fn default() -> Self {
        Self(Set::new_sync())
    }
}
impl<K: Ord, V: Ord> PairSet<K, V> {
    /// What is there already is left alone: to put it in again would copy the way to it.
    fn add(&mut self, pair: (K, V)) {
        if !self.0.contains(&pair) {
            self.0.insert_mut(pair);
        }
    }
}
impl<K: Ord + Copy> PairSet<K, ServiceId> {
    /// Returns the services of a key, by id.
    fn of(&self, key: K) -> impl Iterator<Item = ServiceId> + '_ {
        look();
        self.0.range((key, ServiceId(0))..=(key, ServiceId(u128::MAX))).map(|(_, id)| *id)
    }
}
impl<K: Ord + Copy> PairSet<K, TaskId> {
    /// Returns the tasks of a key, by id.
    fn of(&self, key: K) -> impl Iterator<Item = TaskId> + '_ {
        look();
        self.0.range((key, TaskId(0))..=(key, TaskId(u128::MAX))).map(|(_, id)| *id)
    }
}
impl Default for Cursors {
    fn default() -> Self {
        Self(Map::new_sync())
    }
}

/// Two states are equal when they hold the same objects; indexes follow from them.
impl PartialEq for Tables {
    fn eq(&self, other: &Self) -> bool {
        self.cluster == other.cluster
            && self.nodes == other.nodes
            && self.services == other.services
            && self.tasks == other.tasks
            && self.networks == other.networks
            && self.secrets == other.secrets
            && self.configs == other.configs
            && self.stacks == other.stacks
            && self.users == other.users
            && self.audit == other.audit
    }
}

impl Tables {
    /// Applies a batch at Raft index `index` and returns what it did.
    ///
    /// # Errors
    /// The first [`Conflict`]; the tables then hold the same objects as before.
    pub fn apply(&mut self, index: u64, batch: &Batch) -> Result<Vec<Event>, Conflict> {
        self.apply_all(index, [batch]).pop().expect("one result of one batch")
    }

    /// Applies the batches of one entry in turn, each whole or not at all, and returns what each did.
    ///
    /// A view that somebody holds shares its trees with the tables, so what is touched first after one was taken is
    /// copied. All batches share that copy: the way back is one for the entry, behind the last batch that failed, and
    /// what came between is applied anew from there.
    pub fn apply_all<'a>(
        &mut self,
        index: u64,
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> Vec<Result<Vec<Event>, Conflict>> {
        let mut sound = self.clone(); // O(1)
        let mut applied_since: Vec<&Batch> = Vec::new();
        let apply_next = |batch: &'a Batch| {
            let old = self.stored_as_named(batch)?;
            let outcome = self.change(index, batch, &old);
            if outcome.is_ok() {
                applied_since.push(batch);
                return outcome;
            }
            *self = sound.clone();
            for batch in applied_since.drain(..) {
                let again = self.stored_as_named(batch).and_then(|old| self.change(index, batch, &old));
                again.expect("it was applied to the same tables before");
            }
            sound = self.clone();
            outcome
        };
        batches.into_iter().map(apply_next).collect()
    }

    /// Returns the state that changes would make, for one who judges it: what holds between objects is not.
    ///
    /// # Errors
    /// A [`Conflict`] over versions, or over what has one owner.
    pub fn assume(&self, changes: &[Change]) -> Result<Self, Conflict> {
        let batch = Batch { at: Timestamp::default(), changes: changes.to_vec() };
        let old = self.stored_as_named(&batch)?;
        let mut next = self.clone(); // O(1)
        next.put_and_erase(self.index + 1, &batch, &old)?;
        Ok(next)
    }

    fn is_at(&self, feature_level: u32) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.feature_level >= feature_level)
    }

    /// Returns what each change of a batch replaces.
    ///
    /// # Errors
    /// [`Conflict::OutOfSequence`]: it was made from another version.
    fn stored_as_named(&self, batch: &Batch) -> Result<Vec<Option<Object>>, Conflict> {
        let replaced_by = |change: &Change| {
            let (key, named) = match change {
                Change::Put(object) => (object.key(), object.version()),
                Change::Delete { key, version } => (*key, *version),
            };
            let old = self.get(key);
            let stored = old.as_ref().map_or(0, Object::version);
            if stored != named || (named == 0 && matches!(change, Change::Delete { .. })) {
                return Err(Conflict::OutOfSequence { key, named, stored });
            }
            Ok(old)
        };
        batch.changes.iter().map(replaced_by).collect()
    }

    /// Makes the changes of a batch that replaces `old`, and judges what has become.
    ///
    /// # Errors
    /// A [`Conflict`]; the tables are between two states then.
    fn change(&mut self, index: u64, batch: &Batch, old: &[Option<Object>]) -> Result<Vec<Event>, Conflict> {
        let judges_integrity = self.is_at(INTEGRITY_LEVEL);
        // A copy is held for those only that compare with it.
        let makes_network = |change: &Change| matches!(change, Change::Put(Object::Network(_)));
        let judges_pools = self.is_at(POOLS_LEVEL) && batch.changes.iter().any(makes_network);
        let before = judges_pools.then(|| self.clone());
        let events = self.put_and_erase(index, batch, old)?;
        if judges_integrity {
            integrity::judge(self, &events)?;
        }
        if let Some(before) = before {
            pools::judge(&before, self, &events)?;
        }
        Ok(events)
    }

    fn put_and_erase(
        &mut self,
        index: u64,
        batch: &Batch,
        old: &[Option<Object>],
    ) -> Result<Vec<Event>, Conflict> {
        let made_at = if self.is_at(CREATED_LEVEL) { index } else { 0 };
        // Deletions free what they held before puts claim it, whatever the order in the batch.
        for (change, old) in batch.changes.iter().zip(old) {
            if let Some(old) = old {
                self.unindex(
                    old,
                    match change {
                        Change::Put(new) => Some(new),
                        Change::Delete { .. } => None,
                    },
                );
            }
        }
        let mut events = Vec::with_capacity(batch.changes.len());
        for (change, old) in batch.changes.iter().zip(old) {
            match change {
                Change::Put(object) => {
                    let mut new = object.clone();
                    new.stamp(index);
                    each_kind!(&mut new, o => {
                        let meta = &mut Arc::make_mut(o).meta;
                        meta.updated_at = batch.at;
                        meta.created_at = if old.is_some() { meta.created_at } else { batch.at };
                        meta.created = old.as_ref().map_or(made_at, |old| old.meta().created);
                    });
                    self.index_object(&new, old.as_ref())?;
                    self.store(new.clone());
                    events.push(match old {
                        Some(old) => Event::Updated(old.clone(), new),
                        None => Event::Created(new),
                    });
                }
                Change::Delete { key, .. } => {
                    if let Some(mut old) = old.clone() {
                        self.erase(*key);
                        each_kind!(&mut old, o => Arc::make_mut(o).meta.updated_at = batch.at);
                        events.push(Event::Deleted(old));
                    }
                }
            }
        }
        let surplus = self.audit.len().saturating_sub(AUDIT_MAX);
        let oldest: Vec<_> = self.audit.values().take(surplus).cloned().collect();
        for record in oldest {
            self.audit.remove(&record.id);
            events.push(Event::Deleted(Object::Audit(record)));
        }
        self.index = index;
        Ok(events)
    }

    /// Puts an object as it was stored, version included: how a snapshot is loaded.
    ///
    /// # Errors
    /// A [`Conflict`] when two objects of the snapshot claim the same thing: it is corrupt.
    pub fn restore(&mut self, object: Object) -> Result<(), Conflict> {
        self.index_object(&object, None)?;
        self.store(object);
        Ok(())
    }

    /// Returns every object, kinds in a fixed order, each kind by id: how a snapshot is written.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        cluster
            .chain(self.nodes.values().cloned().map(Object::Node))
            .chain(self.networks.values().cloned().map(Object::Network))
            .chain(self.secrets.values().cloned().map(Object::Secret))
            .chain(self.configs.values().cloned().map(Object::Config))
            .chain(self.stacks.values().cloned().map(Object::Stack))
            .chain(self.users.values().cloned().map(Object::User))
            .chain(self.audit.values().cloned().map(Object::Audit))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.tasks.values().cloned().map(Object::Task))
    }

    pub fn get(&self, key: ObjectRef) -> Option<Object> {
        match key {
            ObjectRef::Cluster => self.cluster.clone().map(Object::Cluster),
            ObjectRef::Node(id) => self.nodes.get(&id).cloned().map(Object::Node),
            ObjectRef::Service(id) => self.services.get(&id).cloned().map(Object::Service),
            ObjectRef::Task(id) => self.tasks.get(&id).cloned().map(Object::Task),
            ObjectRef::Network(id) => self.networks.get(&id).cloned().map(Object::Network),
            ObjectRef::Secret(id) => self.secrets.get(&id).cloned().map(Object::Secret),
            ObjectRef::Config(id) => self.configs.get(&id).cloned().map(Object::Config),
            ObjectRef::Stack(id) => self.stacks.get(&id).cloned().map(Object::Stack),
            ObjectRef::User(id) => self.users.get(&id).cloned().map(Object::User),
            ObjectRef::Audit(id) => self.audit.get(&id).cloned().map(Object::Audit),
        }
    }

    /// Returns the tasks of a service, by task id.
    pub fn tasks_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_service.of(service).filter_map(|id| self.tasks.get(&id))
    }

    /// Returns the tasks placed on a node, by task id.
    pub fn tasks_of_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_node.of(node).filter_map(|id| self.tasks.get(&id))
    }

    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        match self.owner_of_name("service", name)? {
            ObjectRef::Service(id) => self.services.get(&id),
            _ => None,
        }
    }

    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        match self.owner_of_name("network", name)? {
            ObjectRef::Network(id) => self.networks.get(&id),
            _ => None,
        }
    }

    pub fn stack_named(&self, name: &str) -> Option<&Arc<Stack>> {
        match self.owner_of_name("stack", name)? {
            ObjectRef::Stack(id) => self.stacks.get(&id),
            _ => None,
        }
    }

    pub fn user_named(&self, name: &str) -> Option<&Arc<User>> {
        match self.owner_of_name("user", name)? {
            ObjectRef::User(id) => self.users.get(&id),
            _ => None,
        }
    }

    /// Returns who holds an address of a network.
    pub fn owner_of_address(&self, network: NetworkId, address: IpAddr) -> Option<ObjectRef> {
        self.claims.owner(&Claim::Address(network, address))
    }

    pub fn owner_of_gateway(&self, address: IpAddr) -> Option<ObjectRef> {
        self.claims.owner(&Claim::Gateway(address))
    }

    pub fn owner_of_vni(&self, vni: u32) -> Option<ObjectRef> {
        self.claims.owner(&Claim::Vni(vni))
    }

    /// Returns the service that publishes an ingress port.
    pub fn owner_of_port(&self, protocol: Protocol, port: u16) -> Option<ObjectRef> {
        self.claims.owner(&Claim::Port(protocol, port))
    }

    pub fn owner_of_index(&self, index: u16) -> Option<ObjectRef> {
        self.claims.owner(&Claim::Index(index))
    }

    /// Returns the address last handed out on a network.
    pub fn last_address(&self, network: NetworkId) -> Option<IpAddr> {
        self.cursors.0.get(&network).copied()
    }

    /// Returns what was last handed out to a network.
    pub fn last_allocation(&self) -> Option<NetworkAllocation> {
        self.last_allocation
    }

    fn owner_of_name(&self, kind: &'static str, name: &str) -> Option<ObjectRef> {
        self.claims.owner(&Claim::Name(kind, name.to_owned()))
    }

    /// Claims what the object holds. `old`: what it replaces; who held an address then and still does has not been
    /// handed it anew.
    fn index_object(&mut self, object: &Object, old: Option<&Object>) -> Result<(), Conflict> {
        let owner = object.key();
        let held = LazyCell::new(|| old.map(claims_of).unwrap_or_default());
        for claim in claims_of(object) {
            let holder = self.claims.owner(&claim);
            if let Some(other) = holder.filter(|holder| *holder != owner) {
                return Err(claim.taken_by(other));
            }
            match (&claim, object) {
                (Claim::Address(network, address), _) if !held.contains(&claim) => {
                    self.cursors.0.insert_mut(*network, *address);
                }
                (Claim::Vni(_), Object::Network(network)) if !held.contains(&claim) => {
                    self.last_allocation = network.allocation;
                }
                _ => {} // it was there, or is handed out by nobody
            }
            if holder.is_none() {
                self.claims.0.insert_mut(claim, owner);
            }
        }
        if let Object::Task(task) = object {
            self.tasks_by_service.add((task.service, task.id));
            if let Some(node) = task.node() {
                self.tasks_by_node.add((node, task.id));
            }
            for network in integrity::attached_to(task) {
                self.attached_to.add((network, task.id));
            }
        }
        if let Object::Network(network) = object {
            for range in subnets::of(network) {
                self.subnets.add((range, network.id));
            }
        }
        if let Object::Service(service) = object
            && !service.pending_delete
        {
            for key in integrity::references(&service.spec) {
                self.used_by.add((key, service.id));
            }
            for port in integrity::ports(service) {
                let key = (port.protocol, port.published, port.mode);
                self.published_by.add((key, service.id));
            }
        }
        Ok(())
    }

    /// Frees what `old` holds and `new`, in its place, does not: most changes of a task are of its status, and cost no
    /// index anything.
    fn unindex(&mut self, old: &Object, new: Option<&Object>) {
        let kept: BTreeSet<Claim> = new.map(claims_of).into_iter().flatten().collect();
        for claim in claims_of(old).into_iter().filter(|claim| !kept.contains(claim)) {
            self.claims.0.remove_mut(&claim);
        }
        if let Object::Task(task) = old {
            let new = match new {
                Some(Object::Task(new)) => Some(new),
                _ => None,
            };
            if new.is_none_or(|new| new.service != task.service) {
                self.tasks_by_service.0.remove_mut(&(task.service, task.id));
            }
            if let Some(node) = task.node()
                && new.is_none_or(|new| new.node() != Some(node))
            {
                self.tasks_by_node.0.remove_mut(&(node, task.id));
            }
            let kept: BTreeSet<NetworkId> =
                new.into_iter().flat_map(|new| integrity::attached_to(new)).collect();
            for network in integrity::attached_to(task).filter(|network| !kept.contains(network)) {
                self.attached_to.0.remove_mut(&(network, task.id));
            }
        }
        if let Object::Network(network) = old {
            for range in subnets::of(network) {
                self.subnets.0.remove_mut(&(range, network.id));
            }
        }
        if let Object::Service(service) = old {
            for key in integrity::references(&service.spec) {
                self.used_by.0.remove_mut(&(key, service.id));
            }
            for port in integrity::ports(service) {
                let key = (port.protocol, port.published, port.mode);
                self.published_by.0.remove_mut(&(key, service.id));
            }
        }
    }

    fn store(&mut self, object: Object) {
        match object {
            Object::Cluster(o) => self.cluster = Some(o),
            Object::Node(o) => self.nodes.insert(o.id, o),
            Object::Service(o) => self.services.insert(o.id, o),
            Object::Task(o) => self.tasks.insert(o.id, o),
            Object::Network(o) => self.networks.insert(o.id, o),
            Object::Secret(o) => self.secrets.insert(o.id, o),
            Object::Config(o) => self.configs.insert(o.id, o),
            Object::Stack(o) => self.stacks.insert(o.id, o),
            Object::User(o) => self.users.insert(o.id, o),
            Object::Audit(o) => self.audit.insert(o.id, o),
        }
    }

    fn erase(&mut self, key: ObjectRef) {
        match key {
            ObjectRef::Cluster => self.cluster = None,
            ObjectRef::Node(id) => self.nodes.remove(&id),
            ObjectRef::Service(id) => self.services.remove(&id),
            ObjectRef::Task(id) => self.tasks.remove(&id),
            ObjectRef::Network(id) => {
                self.networks.remove(&id);
                self.cursors.0.remove_mut(&id);
            }
            ObjectRef::Secret(id) => self.secrets.remove(&id),
            ObjectRef::Config(id) => self.configs.remove(&id),
            ObjectRef::Stack(id) => self.stacks.remove(&id),
            ObjectRef::User(id) => self.users.remove(&id),
            ObjectRef::Audit(id) => self.audit.remove(&id),
        }
    }
}

/// Returns what an object holds alone in the swarm. What is being removed has given its names and published ports up,
/// as in Swarm, and keeps what its last tasks still use: addresses and the VXLAN identifier.
fn claims_of(object: &Object) -> Vec<Claim> {
    match object {
        Object::Cluster(_) => Vec::new(),
        Object::Node(node) => vec![Claim::Index(node.index)],
        Object::Service(service) => {
            let name = (!service.pending_delete).then(|| Claim::Name("service", service.spec.name.clone()));
            let vips = service.endpoint.vips.iter().map(|v| Claim::Address(v.network, v.address));
            let ports = service
                .endpoint
                .ports
                .iter()
                .filter(|p| !service.pending_delete && p.mode == PublishMode::Ingress && p.published != 0)
                .map(|p| Claim::Port(p.protocol, p.published));
            name.into_iter().chain(vips).chain(ports).collect()
        }
        Object::Task(task) => {
            let addresses = task.attachments.iter().map(|a| Claim::Address(a.network, a.address.addr()));
            addresses.chain(task.gateway_address.map(Claim::Gateway)).collect()
        }
        Object::Network(network) => {
            let name = (!network.pending_delete).then(|| Claim::Name("network", network.spec.name.clone()));
            name.into_iter().chain(network.allocation.map(|a| Claim::Vni(a.vni))).collect()
        }
        Object::Secret(secret) => vec![Claim::Name("secret", secret.spec.name.clone())],
        Object::Config(config) => vec![Claim::Name("config", config.spec.name.clone())],
        Object::Stack(stack) if stack.pending_delete => Vec::new(),
        Object::Stack(stack) => vec![Claim::Name("stack", stack.name.clone())],
        Object::User(user) => vec![Claim::Name("user", user.name.clone())],
        Object::Audit(_) => Vec::new(),
    }
}
