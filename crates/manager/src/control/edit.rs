//! Specs into objects: what creating, changing and removing makes of the state. Pure.

use super::{object_ref, stacks, validate};
use crate::ingress;
use model::{
    Change, Cluster, Meta, Mode, NetworkDriver, Node, NodeSpec, NodeState, Object, ObjectRef, Role, Service,
    ServiceId, ServiceSpec, Tables, Timestamp, UpdateState, UpdateStatus,
};
use proto::types::ObjectKind;
use std::sync::Arc;
use tonic::Status;

pub(super) fn new_service(view: &Tables, id: ServiceId, spec: ServiceSpec) -> Service {
    Service {
        id,
        meta: Meta::default(),
        stack: stacks::owner(view, &spec.labels),
        spec: Arc::new(as_all_understand(view, spec)),
        spec_version: 1,
        previous: None,
        endpoint: model::Endpoint::default(),
        update: None,
        pending_delete: false,
        job_iteration: 0,
        registry_auth: None,
    }
}

/// Leaves out of a spec what a manager of an older version would drop, where nothing but its looks is lost.
fn as_all_understand(view: &Tables, mut spec: ServiceSpec) -> ServiceSpec {
    if view.cluster.as_ref().is_none_or(|cluster| cluster.feature_level < model::SAID_LEVEL) {
        spec.said = model::Said::default();
    }
    spec
}

/// Returns the service with a new spec. Also where that is the spec it has, it has a new version, as in SwarmKit: whoever
/// read it before must read it again, and an update that was paused goes on. The way back stays the one to another spec.
pub(super) fn updated_service(view: &Tables, old: &Service, spec: ServiceSpec) -> Result<Service, Status> {
    if old.pending_delete {
        return Err(Status::not_found(format!("service {} not found", old.id)));
    }
    validate::service_change(&old.spec, &spec)?;
    validate::service(view, &spec, Some(old.id))?;
    let spec = as_all_understand(view, spec);
    if *old.spec == spec {
        return Ok(Service { spec_version: old.spec_version + 1, update: None, ..old.clone() });
    }
    // Without the label it is no stack's any more.
    let had = old.stack.filter(|_| spec.labels.contains_key(model::STACK_LABEL));
    let stack = stacks::owner(view, &spec.labels).or(had);
    Ok(Service { stack, ..with_spec(old, spec) })
}

/// Returns the service with another spec, or as it is if that is the spec it has.
pub(super) fn with_spec(old: &Service, spec: ServiceSpec) -> Service {
    if *old.spec == spec {
        return old.clone();
    }
    let runs_again = is_job(&spec) && spec.task.force_update != old.spec.task.force_update;
    Service {
        spec: Arc::new(spec),
        spec_version: old.spec_version + 1,
        previous: Some(old.spec.clone()),
        update: None,
        job_iteration: old.job_iteration + u64::from(runs_again),
        ..old.clone()
    }
}

fn is_job(spec: &ServiceSpec) -> bool {
    matches!(spec.mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
}

/// Returns the service with its previous spec, and the present one as previous. What that one used may be gone since. A job
/// has it at once: what ran is not rolled out, and there is nothing to wait for.
pub(super) fn rolled_back_service(view: &Tables, old: &Service, now: Timestamp) -> Result<Service, Status> {
    if old.pending_delete {
        return Err(Status::not_found(format!("service {} not found", old.id)));
    }
    let previous = old.previous.clone().ok_or_else(|| {
        Status::failed_precondition(format!("service {} does not have a previous spec", old.id))
    })?;
    validate::service(view, &previous, Some(old.id))?;
    if is_job(&previous) {
        return Ok(with_spec(old, ServiceSpec::clone(&previous)));
    }
    Ok(Service {
        spec: previous,
        spec_version: old.spec_version + 1,
        previous: Some(old.spec.clone()),
        update: Some(UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: now,
            completed_at: None,
            message: "manually requested rollback".to_owned(),
        }),
        ..old.clone()
    })
}

/// `members`: what the leader's Raft sees of the managers.
pub(super) fn updated_node(
    view: &Tables,
    members: &[store::Member],
    old: &Node,
    spec: NodeSpec,
) -> Result<Node, Status> {
    if old.spec.role == Role::Manager && spec.role == Role::Worker {
        may_demote(view, members, old)?;
    }
    if old.spec.role == Role::Worker && spec.role == Role::Manager {
        may_promote(old)?;
    }
    Ok(Node { spec, ..old.clone() })
}

/// Refuses to promote a node that will not come back: the spec would say for ever what nothing makes true.
///
/// # Errors
/// FAILED_PRECONDITION.
fn may_promote(node: &Node) -> Result<(), Status> {
    match node.status.state {
        NodeState::Disconnected => Err(Status::failed_precondition(format!(
            "node {} has left the swarm and can become no manager; hint: remove it (docker node rm) and let its host \
             join again",
            node.display_name()
        ))),
        NodeState::Ready | NodeState::Unknown | NodeState::Away | NodeState::Down => Ok(()),
    }
}

/// Refuses to demote the last manager, or one without which those that answer are no majority.
///
/// # Errors
/// FAILED_PRECONDITION, in Docker's words.
pub(crate) fn may_demote(view: &Tables, members: &[store::Member], node: &Node) -> Result<(), Status> {
    let managers = view.nodes.values().filter(|n| is_to_be_manager(n));
    if managers.filter(|n| n.id != node.id).count() == 0 {
        return Err(Status::failed_precondition("attempting to demote the last manager of the swarm"));
    }
    if !members.iter().any(|m| is_of(m, node)) {
        return Ok(());
    }
    // Those that are about to leave Raft themselves do not count: else the last two could be demoted side by side.
    let stays = |m: &&store::Member| view.nodes.values().any(|n| is_to_be_manager(n) && is_of(m, n));
    let rest: Vec<_> = members.iter().filter(|m| m.voter && !is_of(m, node)).filter(stays).collect();
    let answering = rest.iter().filter(|m| m.reachable == Some(true)).count();
    if answering < rest.len() / 2 + 1 {
        return Err(Status::failed_precondition(
            "can't remove member from the raft: this would result in a loss of quorum",
        ));
    }
    Ok(())
}

fn is_to_be_manager(node: &Node) -> bool {
    node.spec.role == Role::Manager && node.status.state != NodeState::Disconnected
}

/// Tells whose number in Raft a member's is, also while the state does not know of it yet.
pub(crate) fn is_of(member: &store::Member, node: &Node) -> bool {
    member.node == Some(node.id) || node.manager.is_some_and(|m| m.raft_id == member.raft_id)
}

pub(super) fn only_labels(only: bool) -> Result<(), Status> {
    if only { Ok(()) } else { Err(Status::invalid_argument("only updates to Labels are allowed")) }
}

/// Returns what the removal of an object changes. `members`: what the leader's Raft sees of the managers.
pub(super) fn removal(
    view: &Tables,
    members: &[store::Member],
    kind: ObjectKind,
    id: &[u8],
    force: bool,
    now: Timestamp,
) -> Result<Vec<Change>, Status> {
    let key = object_ref(kind, id)?;
    let object = view.get(key).ok_or_else(|| Status::not_found(format!("{key} not found")))?;
    let delete = Change::Delete { key, version: object.version() };
    Ok(match object {
        Object::Service(service) => {
            vec![Change::Put(Object::Service(Arc::new(Service {
                pending_delete: true,
                ..(*service).clone()
            })))]
        }
        Object::Network(network) if network.spec.driver == NetworkDriver::Ingress => {
            ingress::removal(view, &network)?
        }
        Object::Network(network) => {
            validate::network_unused(view, network.id)?;
            let network = model::Network { pending_delete: true, ..(*network).clone() };
            vec![Change::Put(Object::Network(Arc::new(network)))]
        }
        Object::Secret(secret) => {
            validate::secret_unused(view, &secret)?;
            vec![delete]
        }
        Object::Config(config) => {
            validate::config_unused(view, &config)?;
            vec![delete]
        }
        Object::Node(node) => {
            may_remove_node(&node, members, force)?;
            removed_node(view, &node, now)
        }
        Object::Stack(stack) => stacks::removal(view, &stack),
        Object::User(_) => vec![delete],
        Object::Task(_) | Object::Cluster(_) | Object::Audit(_) => {
            return Err(Status::invalid_argument(format!("{key} cannot be removed")));
        }
    })
}

/// Returns what removing a node changes: it goes, and its certificate is worth nothing any more.
pub(crate) fn removed_node(view: &Tables, node: &Node, now: Timestamp) -> Vec<Change> {
    let revoked = view.cluster.as_ref().map(|cluster| {
        let mut cluster = Cluster::clone(cluster);
        cluster.revoke(node.id, node.index, now);
        Change::Put(Object::Cluster(Arc::new(cluster)))
    });
    let delete = Change::Delete { key: ObjectRef::Node(node.id), version: node.meta.version };
    std::iter::once(delete).chain(revoked).collect()
}

/// One that is in Raft is not removed, by force either: once its certificate is revoked the others would wait for its
/// consent to its own removal.
fn may_remove_node(node: &Node, members: &[store::Member], force: bool) -> Result<(), Status> {
    let in_raft = node.manager.is_some() || members.iter().any(|m| is_of(m, node));
    if in_raft || node.spec.role == Role::Manager {
        return Err(Status::failed_precondition(format!(
            "node {} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
            node.id
        )));
    }
    match node.status.state {
        NodeState::Ready | NodeState::Unknown | NodeState::Away if !force => {
            Err(Status::failed_precondition(format!("node {} is not down and can't be removed", node.id)))
        }
        NodeState::Ready
        | NodeState::Unknown
        | NodeState::Away
        | NodeState::Down
        | NodeState::Disconnected => Ok(()),
    }
}

/// Returns every object of a kind.
pub(super) fn all(view: &Tables, kind: ObjectKind) -> Box<dyn Iterator<Item = Object> + '_> {
    match kind {
        ObjectKind::Unspecified => Box::new(std::iter::empty()),
        ObjectKind::Cluster => Box::new(view.cluster.iter().cloned().map(Object::Cluster)),
        ObjectKind::Node => Box::new(view.nodes.values().cloned().map(Object::Node)),
        ObjectKind::Service => Box::new(view.services.values().cloned().map(Object::Service)),
        ObjectKind::Task => Box::new(view.tasks.values().cloned().map(Object::Task)),
        ObjectKind::Network => Box::new(view.networks.values().cloned().map(Object::Network)),
        ObjectKind::Secret => Box::new(view.secrets.values().cloned().map(Object::Secret)),
        ObjectKind::Config => Box::new(view.configs.values().cloned().map(Object::Config)),
        ObjectKind::Stack => Box::new(view.stacks.values().cloned().map(Object::Stack)),
        ObjectKind::User => Box::new(view.users.values().cloned().map(Object::User)),
        ObjectKind::Audit => Box::new(view.audit.values().cloned().map(Object::Audit)),
    }
}

/// Returns the object with this id, else this name, else the only one whose id begins so. Source: moby
/// `daemon/cluster/helpers.go`.
pub(crate) fn find(view: &Tables, kind: ObjectKind, text: &str) -> Result<Object, Status> {
    if kind == ObjectKind::Cluster {
        return all(view, kind).next().ok_or_else(|| Status::not_found("no swarm"));
    }
    let word = word(kind);
    let objects: Vec<Object> = all(view, kind).collect();
    let ids: Vec<String> = objects.iter().map(|o| id_text(o.key())).collect();
    if let Some(position) = ids.iter().position(|id| id == text) {
        return Ok(objects[position].clone());
    }
    // What is being removed is known by its id alone: another may have its name.
    let is_leaving: Vec<bool> = objects.iter().map(Object::is_leaving).collect();
    let one_of = |found: Vec<&Object>, by: &str| match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        many => Err(Status::invalid_argument(format!(
            "{word} {text} is ambiguous ({} matches found{by})",
            many.len()
        ))),
    };
    let here = || objects.iter().zip(&ids).zip(&is_leaving).filter(|(_, leaving)| !**leaving).map(|(o, _)| o);
    let named = here().filter(|(o, _)| o.name().as_deref() == Some(text)).map(|(o, _)| o).collect();
    if let Some(object) = one_of(named, " by name")? {
        return Ok(object);
    }
    let begins = here().filter(|(_, id)| !text.is_empty() && id.starts_with(text));
    one_of(begins.map(|(o, _)| o).collect(), " by ID prefix")?
        .ok_or_else(|| Status::not_found(format!("{word} {text} not found")))
}

fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Unspecified => "object",
        ObjectKind::Cluster => "swarm",
        ObjectKind::Node => "node",
        ObjectKind::Service => "service",
        ObjectKind::Task => "task",
        ObjectKind::Network => "network",
        ObjectKind::Secret => "secret",
        ObjectKind::Config => "config",
        ObjectKind::Stack => "stack",
        ObjectKind::User => "user",
        ObjectKind::Audit => "audit record",
    }
}

fn id_text(key: ObjectRef) -> String {
    match key {
        ObjectRef::Cluster => String::new(),
        ObjectRef::Node(id) => id.to_string(),
        ObjectRef::Service(id) => id.to_string(),
        ObjectRef::Task(id) => id.to_string(),
        ObjectRef::Network(id) => id.to_string(),
        ObjectRef::Secret(id) => id.to_string(),
        ObjectRef::Config(id) => id.to_string(),
        ObjectRef::Stack(id) => id.to_string(),
        ObjectRef::User(id) => id.to_string(),
        ObjectRef::Audit(id) => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::{service_spec, state};
    use model::{NodeId, ServiceId};
    use proto::WireId as _;

    #[test]
    fn every_update_counts_up_and_the_way_back_leads_to_the_last_other_spec() {
        let tables = state().service(1, &[], &[]).tables();
        let old = tables.services.get(&ServiceId(1)).unwrap();
        let mut spec = (*old.spec).clone();
        spec.labels.insert("a".into(), "b".into());
        let new = updated_service(&tables, old, spec.clone()).unwrap();
        assert_eq!((new.spec_version, new.previous.as_ref()), (old.spec_version + 1, Some(&old.spec)));
        let paused = UpdateStatus {
            state: UpdateState::Paused,
            started_at: Timestamp(1),
            completed_at: None,
            message: String::new(),
        };
        let paused = Service { update: Some(paused), ..new.clone() };
        let again = updated_service(&tables, &paused, spec).unwrap();
        assert_eq!(again, Service { spec_version: new.spec_version + 1, ..new.clone() });
        let back = rolled_back_service(&tables, &new, Timestamp(1)).unwrap();
        assert_eq!((&back.spec, back.spec_version), (&old.spec, old.spec_version + 2));
        assert_eq!(back.update.unwrap().state, UpdateState::RollbackStarted);
        assert!(rolled_back_service(&tables, old, Timestamp(1)).is_err());
    }

    #[test]
    fn a_job_that_is_rolled_back_waits_for_nothing() {
        for mode in [Mode::ReplicatedJob { max_concurrent: 1, total: 2 }, Mode::GlobalJob] {
            let tables = state().service(1, &[], &[]).tables();
            let mut old = Service::clone(tables.services.get(&ServiceId(1)).unwrap());
            Arc::make_mut(&mut old.spec).mode = mode;
            let mut spec = (*old.spec).clone();
            spec.labels.insert("a".into(), "b".into());
            let new = updated_service(&tables, &old, spec).unwrap();
            let back = rolled_back_service(&tables, &new, Timestamp(1)).unwrap();
            assert_eq!((&back.spec, back.previous.as_ref()), (&old.spec, Some(&new.spec)), "{mode:?}");
            assert_eq!(back.update, None, "{mode:?}: it would say for ever that it is rolled back");
        }
    }

    #[test]
    fn objects_are_found_by_id_name_or_unique_prefix() {
        let tables = state().service(1, &[], &[]).service(2, &[], &[]).tables();
        let find = |text: &str| find(&tables, ObjectKind::Service, text);
        assert_eq!(find("service1").unwrap().key(), ObjectRef::Service(ServiceId(1)));
        assert_eq!(find(&ServiceId(2).to_string()).unwrap().key(), ObjectRef::Service(ServiceId(2)));
        assert_eq!(find("000").unwrap_err().code(), tonic::Code::InvalidArgument);
        assert_eq!(find("nope").unwrap_err().message(), "service nope not found");
    }

    #[test]
    fn what_is_being_removed_is_known_by_its_id_and_its_name_is_anothers() {
        let state = state().service(1, &[], &[(80, 8080)]).change_service(1, |s| s.pending_delete = true);
        let tables = state.tables();
        let leaving = ServiceId(1).to_string();
        assert_eq!(
            find(&tables, ObjectKind::Service, "service1").unwrap_err().message(),
            "service service1 not found"
        );
        assert!(find(&tables, ObjectKind::Service, &leaving).is_ok());
        let again = new_service(&tables, ServiceId(2), service_spec("service1"));
        validate::service(&tables, &again.spec, None).unwrap();
        let mut after = tables.clone();
        let batch =
            model::Batch { at: Timestamp(1), changes: vec![Change::Put(Object::Service(Arc::new(again)))] };
        after.apply(tables.index + 1, &batch).unwrap();
        let found = find(&after, ObjectKind::Service, "service1").unwrap().key();
        assert_eq!(found, ObjectRef::Service(ServiceId(2)));
    }

    #[test]
    fn nodes_are_removed_only_when_down_or_by_force_and_never_as_managers() {
        let members = std::cell::RefCell::new(Vec::new());
        let may = |change: fn(&mut Node), force: bool| {
            let tables = state().node(1).change_node(1, change).tables();
            removal(&tables, &members.borrow(), ObjectKind::Node, &NodeId(1).to_wire(), force, Timestamp(1))
                .map_err(|s| s.message().to_owned())
        };
        assert!(may(|_| {}, false).unwrap_err().contains("is not down and can't be removed"));
        assert!(may(|_| {}, true).is_ok());
        assert!(may(|n| n.status.state = NodeState::Down, false).is_ok());
        assert!(
            may(|n| n.spec.role = Role::Manager, true).unwrap_err().contains("must be demoted to worker")
        );
        members.borrow_mut().push(member(7, NodeId(1), true));
        assert!(
            may(|_| {}, true).unwrap_err().contains("must be demoted"),
            "a voter whose join was not recorded"
        );
    }

    fn member(raft_id: u64, node: NodeId, reachable: bool) -> store::Member {
        store::Member {
            raft_id,
            node: Some(node),
            addr: "192.0.2.1:1".parse().unwrap(),
            voter: true,
            leader: raft_id == 1,
            reachable: Some(reachable),
            behind: Some(0),
        }
    }

    #[test]
    fn who_has_left_becomes_no_manager() {
        let promote = |from: Role, state: NodeState| {
            let tables = state_of(from, state);
            let old = tables.nodes.get(&NodeId(1)).unwrap();
            let spec = NodeSpec { role: Role::Manager, name: Some("new".into()), ..old.spec.clone() };
            updated_node(&tables, &[], old, spec).map(drop).map_err(|s| s.message().to_owned())
        };
        let refused = promote(Role::Worker, NodeState::Disconnected).unwrap_err();
        assert!(refused.contains("node1 has left the swarm") && refused.contains("node rm"), "{refused}");
        for state in [NodeState::Ready, NodeState::Down, NodeState::Away, NodeState::Unknown] {
            assert_eq!(promote(Role::Worker, state), Ok(()), "it comes back: {state:?}");
        }
        assert_eq!(promote(Role::Manager, NodeState::Disconnected), Ok(()), "its role stays");
    }

    fn state_of(role: Role, at: NodeState) -> Tables {
        let change = |n: &mut Node| (n.spec.role, n.status.state) = (role, at);
        state().node(1).change_node(1, change).tables()
    }

    #[test]
    fn a_demotion_that_breaks_the_quorum_is_refused() {
        let manager = |n: &mut Node| {
            n.spec.role = Role::Manager;
            n.manager = Some(model::ManagerStatus {
                raft_id: n.id.0 as u64,
                addr: "192.0.2.1:1".parse().unwrap(),
                seen: None,
            });
        };
        let alone = state().node(1).change_node(1, manager).tables();
        let three = state().node(1).node(2).node(3);
        let three = three.change_node(1, manager).change_node(2, manager).change_node(3, manager);
        let three = three.tables();
        let members = |tables: &Tables, down: &[u128]| -> Vec<store::Member> {
            let nodes = tables.nodes.values();
            nodes.map(|n| member(n.id.0 as u64, n.id, !down.contains(&n.id.0))).collect()
        };
        let demote = |tables: &Tables, down: &[u128], id| {
            let old = tables.nodes.get(&NodeId(id)).unwrap();
            let spec = NodeSpec { role: Role::Worker, ..old.spec.clone() };
            let members = members(tables, down);
            updated_node(tables, &members, old, spec).map(drop).map_err(|s| s.message().to_owned())
        };
        assert!(demote(&alone, &[], 1).unwrap_err().contains("last manager"));
        assert_eq!(demote(&three, &[], 1), Ok(()));
        // Whether its agent is heard says nothing of its part in Raft.
        assert!(demote(&three, &[3], 1).unwrap_err().contains("loss of quorum"));
        assert_eq!(demote(&three, &[3], 3), Ok(()));
        // Nobody would be left: one is on its way out already, one not yet in.
        let joins = |n: &mut Node| n.spec.role = Role::Manager;
        let leaves = |n: &mut Node| {
            manager(n);
            n.spec.role = Role::Worker;
        };
        let two = state().node(1).node(2).node(3);
        let two = two.change_node(1, manager).change_node(2, leaves).change_node(3, joins).tables();
        assert!(demote(&two, &[3], 1).unwrap_err().contains("loss of quorum"));
    }

    #[test]
    fn removing_a_service_marks_it() {
        let tables = state().service(1, &[], &[]).tables();
        let changes =
            removal(&tables, &[], ObjectKind::Service, &ServiceId(1).to_wire(), false, Timestamp(1)).unwrap();
        let [Change::Put(Object::Service(service))] = changes.as_slice() else { panic!("{changes:?}") };
        assert!(service.pending_delete);
        assert_eq!(service_spec("service1").name, service.spec.name);
    }
}
