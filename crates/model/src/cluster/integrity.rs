//! What holds between objects, judged where writes are serial.
//!
//! A writer decides on a view. Two that decide at once may each be right on it and wrong together: one removes a
//! secret while the other makes a service that uses it. What one object holds alone (a name, an address) is a claim
//! of [`super`]; here is what is said of one object and read off others:
//!
//! - a service that stays refers to secrets, configs, networks and a stack that are there and stay;
//! - so does the place of a container on a network;
//! - an ingress port has its number on every node to itself, also against ports of hosts;
//! - subnets do not overlap, neither with each other nor with the swarm's own; one that is asked for may be that of a
//!   network which is being removed, and is given when that has let go of it;
//! - somebody is a manager, unless the last one left by itself; there are no more users than allowed.
//!
//! Only what a batch brings is judged, never what it found: an object that breaks a rule already, of a log that was
//! written before the rule, can still be changed and removed. A swarm is judged from [`INTEGRITY_LEVEL`] on: entries
//! that were applied without, by this version or another, are applied without again.

use super::{Conflict, Event, Object, ObjectRef, POOLS_LEVEL, Subnets, Tables};
use crate::{
    Desired, NetworkDriver, NetworkId, Node, NodeState, PortConfig, PublishMode, Role, STACK_LABEL, Service,
    ServiceSpec, Task, TaskState, USERS_MAX,
};
use std::{collections::BTreeSet, sync::Arc};

/// The first feature level at which a batch is refused that breaks what holds between objects.
pub const INTEGRITY_LEVEL: u32 = 2;

/// Judges what a batch did to the state.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn judge(after: &Tables, events: &[Event]) -> Result<(), Conflict> {
    events.iter().try_for_each(|event| {
        let (old, new) = match event {
            Event::Created(new) => (None, Some(new)),
            Event::Updated(old, new) => (Some(old), Some(new)),
            Event::Deleted(old) => (Some(old), None),
        };
        if let Some(old) = old
            && !old.is_leaving()
            && new.is_none_or(Object::is_leaving)
        {
            may_go(after, old)?;
        }
        match (old, new) {
            (None, Some(Object::Service(new))) => service(after, None, new),
            (Some(Object::Service(old)), Some(Object::Service(new))) => service(after, Some(old), new),
            (None, Some(Object::Task(new))) => place_on_networks(after, new),
            (None, Some(Object::Network(new))) => subnets(after, None, new),
            (Some(Object::Network(old)), Some(Object::Network(new))) => subnets(after, Some(old), new),
            (None, Some(Object::User(_))) if after.users.len() > USERS_MAX => {
                Err(Conflict::TooMany { kind: "users", limit: USERS_MAX })
            }
            (Some(Object::Node(old)), Some(Object::Node(new))) => managers(after, old, Some(new)),
            (Some(Object::Node(old)), None) => managers(after, old, None),
            _ => Ok(()), // nothing is read off others for these
        }
    })
}

fn may_go(after: &Tables, object: &Object) -> Result<(), Conflict> {
    let key = object.key();
    let user = match object {
        Object::Secret(_) | Object::Config(_) => {
            after.services_using(key).next().map(|s| ObjectRef::Service(s.id))
        }
        Object::Network(network) => after.user_of_network(network.id),
        Object::Stack(stack) => {
            let is_its = |s: &&Arc<Service>| {
                s.stack == Some(stack.id) && s.spec.labels.get(STACK_LABEL) == Some(&stack.name)
            };
            let mut staying = after.services.values().filter(|s| !s.pending_delete);
            staying.find(is_its).map(|s| ObjectRef::Service(s.id))
        }
        Object::Cluster(_)
        | Object::Node(_)
        | Object::Service(_)
        | Object::Task(_)
        | Object::User(_)
        | Object::Audit(_) => None,
    };
    user.map_or(Ok(()), |user| Err(Conflict::InUse { key, user }))
}

fn service(after: &Tables, old: Option<&Service>, new: &Service) -> Result<(), Conflict> {
    if new.pending_delete {
        return Ok(());
    }
    let old = old.filter(|s| !s.pending_delete);
    let had: BTreeSet<ObjectRef> = old.into_iter().flat_map(all_references).collect();
    for key in all_references(new).filter(|key| !had.contains(key)) {
        stays(after, key, ObjectRef::Service(new.id))?;
    }
    let published: BTreeSet<_> = old.into_iter().flat_map(ports).map(number).collect();
    for port in ports(new).filter(|port| !published.contains(&number(port))) {
        if let Some((owner, _)) = after.port_holder(port, Some(new.id)) {
            let (port, protocol) = (port.published, port.protocol);
            return Err(Conflict::PortTaken { port, protocol, owner: ObjectRef::Service(owner.id) });
        }
    }
    Ok(())
}

fn number(port: &PortConfig) -> (crate::Protocol, u16, PublishMode) {
    (port.protocol, port.published, port.mode)
}

fn stays(after: &Tables, key: ObjectRef, user: ObjectRef) -> Result<(), Conflict> {
    match after.get(key) {
        Some(object) if !object.is_leaving() => Ok(()),
        Some(_) | None => Err(Conflict::Missing { key, user }),
    }
}

fn place_on_networks(after: &Tables, task: &Task) -> Result<(), Conflict> {
    if task.attaches.is_none() {
        return Ok(()); // the plan's: it goes on from what it finds
    }
    let mut networks = task.spec.networks.iter().map(|n| ObjectRef::Network(n.network));
    networks.try_for_each(|network| stays(after, network, ObjectRef::Task(task.id)))
}

fn subnets(after: &Tables, old: Option<&crate::Network>, new: &crate::Network) -> Result<(), Conflict> {
    if new.spec.driver == NetworkDriver::Ingress {
        return Ok(()); // its subnet is the swarm's own
    }
    let of = |network: &crate::Network| network.allocation.map(|a| a.subnet).or(network.spec.subnet);
    let Some(subnet) = of(new).map(|subnet| subnet.trunc()) else { return Ok(()) };
    let is_given = |network: &crate::Network| network.allocation.is_some() && after.is_at(POOLS_LEVEL);
    let same = |old: &crate::Network| {
        of(old).is_some_and(|had| had.trunc() == subnet) && is_given(old) == is_given(new)
    };
    if old.is_some_and(same) {
        return Ok(());
    }
    let others = if new.allocation.is_some() { Subnets::All } else { Subnets::Staying };
    match after.overlapping_subnet(subnet, Some(new.id), others) {
        Some((other, owner)) => Err(Conflict::SubnetTaken { subnet, other, owner }),
        None => Ok(()),
    }
}

/// One that left by itself is out of Raft: what it was is only written down.
fn managers(after: &Tables, old: &Node, new: Option<&Node>) -> Result<(), Conflict> {
    let left = |node: &Node| node.status.state == NodeState::Disconnected;
    let stands = |node: &Node| node.spec.role == Role::Manager && !left(node);
    let demoted = stands(old) && new.is_none_or(|new| !stands(new) && !left(new));
    if demoted && !after.nodes.values().any(|node| stands(node)) {
        return Err(Conflict::LastManager { node: ObjectRef::Node(old.id) });
    }
    Ok(())
}

/// Returns what a service that stays refers to by its spec.
pub(super) fn references(spec: &ServiceSpec) -> impl Iterator<Item = ObjectRef> + '_ {
    let container = &spec.task.container;
    let secrets = container.secrets.iter().map(|s| ObjectRef::Secret(s.id));
    let configs = container.configs.iter().map(|c| ObjectRef::Config(c.id));
    let networks = spec.task.networks.iter().map(|n| ObjectRef::Network(n.network));
    secrets.chain(configs).chain(networks)
}

fn all_references(service: &Service) -> impl Iterator<Item = ObjectRef> + '_ {
    references(&service.spec).chain(service.stack.map(ObjectRef::Stack))
}

/// Returns the ports that a service publishes: those it asks for and those it was given.
pub(super) fn ports(service: &Service) -> impl Iterator<Item = &PortConfig> {
    service.spec.endpoint.ports.iter().chain(&service.endpoint.ports).filter(|p| p.published != 0)
}

/// Returns the networks on which a task is a container's place that a person gave it; none for a task of a service.
pub(super) fn attached_to(task: &Task) -> impl Iterator<Item = NetworkId> + '_ {
    let given = task.attachments.iter().map(|a| a.network);
    let asked = task.spec.networks.iter().map(|n| n.network);
    given.chain(asked).filter(|_| task.attaches.is_some())
}

impl Tables {
    /// Returns the services that use a secret, config or network, without those that are being removed.
    pub fn services_using(&self, key: ObjectRef) -> impl Iterator<Item = &Arc<Service>> {
        self.used_by.of(key).filter_map(|id| self.services.get(&id))
    }

    /// Returns which service, if not `except`, publishes a port so that nobody else can publish it like this, and how:
    /// an ingress port has every node's to itself, two ports of hosts do not meet.
    /// Source: swarmkit `checkPortConflicts`.
    pub fn port_holder(
        &self,
        port: &PortConfig,
        except: Option<crate::ServiceId>,
    ) -> Option<(&Arc<Service>, &PortConfig)> {
        let of = |mode: PublishMode| {
            let mut others = self.published_by.of((port.protocol, port.published, mode));
            others.find(|id| Some(*id) != except)
        };
        let by_host = if port.mode == PublishMode::Ingress { of(PublishMode::Host) } else { None };
        let first = [of(PublishMode::Ingress), by_host].into_iter().flatten().min()?;
        let service = self.services.get(&first)?;
        let meets = |p: &&PortConfig| {
            (p.protocol, p.published) == (port.protocol, port.published)
                && (p.mode == PublishMode::Ingress || port.mode == PublishMode::Ingress)
        };
        ports(service).find(meets).map(|p| (service, p))
    }

    /// Returns who keeps a network from going: a service, or a container that a person attached.
    pub fn user_of_network(&self, id: NetworkId) -> Option<ObjectRef> {
        if let Some(service) = self.services_using(ObjectRef::Network(id)).next() {
            return Some(ObjectRef::Service(service.id));
        }
        let stays = |task: &&Arc<Task>| {
            task.desired < Desired::Shutdown && !task.status.state.is_some_and(TaskState::is_terminal)
        };
        let mut attached = self.attached_to.of(id).filter_map(|id| self.tasks.get(&id));
        attached.find(stays).map(|task| ObjectRef::Task(task.id))
    }
}
