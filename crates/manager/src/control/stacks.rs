//! Stacks: applied as a whole, put back as a whole, and what goes with a stack when it is removed.
//! Membership is Docker's label, so stacks deployed by `docker stack deploy` are stacks too.

use super::{edit, validate};
use crate::random::random_id;
use model::{
    Change, Config, Labels, Meta, Network, Object, ObjectRef, STACK_LABEL as LABEL, Secret, SecretBytes,
    Service, ServiceId, ServiceSpec, Stack, StackId, StackRevision, Tables, Timestamp,
};
use proto::{
    WireId as _,
    control::{ApplyStackRequest, JudgeStackRequest, RollbackStackRequest},
};
use std::sync::Arc;
use tonic::Status;

const REVISIONS_MAX: usize = 10;
/// *Limit* of what is said about a deploy. *Unit:* bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// *Limit* of the name of a commit. *Unit:* bytes. *Source:* git, `hash-function-transition`: SHA-256.
const COMMIT_BYTES_MAX: usize = 64;

/// Returns the stored stack that an object with these labels belongs to.
pub(super) fn owner(view: &Tables, labels: &Labels) -> Option<StackId> {
    view.stack_named(labels.get(LABEL)?).map(|stack| stack.id)
}

/// Returns what applying a stack changes: all of it, or an error and nothing.
pub(super) fn apply(
    view: &Tables,
    now: Timestamp,
    author: &str,
    request: &ApplyStackRequest,
) -> Result<(StackId, Vec<Change>), Status> {
    if request.message.len() > MESSAGE_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a message has at most {MESSAGE_BYTES_MAX} bytes")));
    }
    if request.name.is_empty() {
        return Err(Status::invalid_argument("a stack needs a name"));
    }
    if request.git.len() > COMMIT_BYTES_MAX || !request.git.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Status::invalid_argument(format!(
            "a commit of git is at most {COMMIT_BYTES_MAX} hexadecimal digits"
        )));
    }
    let mut stack = known_or_new(view, &request.name)?;
    let mut changes = new_objects(view, request)?;
    let mut specs = Vec::new();
    let mut judged = Vec::new();
    for planned in &request.services {
        let spec =
            planned.spec.clone().ok_or_else(|| Status::invalid_argument("a service without a spec"))?;
        let spec: ServiceSpec = spec.try_into().map_err(super::invalid)?;
        let old = view.service_named(&spec.name);
        if old.map_or(0, |s| s.spec_version) != planned.version {
            return Err(out_of_sequence(&format!("service {}", spec.name)));
        }
        let service = match old {
            None => {
                Service { stack: Some(stack.id), ..edit::new_service(view, ServiceId(random_id()?), spec) }
            }
            Some(old) => put_spec(old, spec, stack.id)?,
        };
        let service = match &planned.registry_auth {
            Some(auth) => Service { registry_auth: Some(SecretBytes(auth.clone())), ..service },
            None => service,
        };
        judged.push(service.id);
        specs.push(service.spec.clone());
        if old.is_none_or(|old| **old != service) {
            changes.push(Change::Put(Object::Service(Arc::new(service))));
        }
    }
    for planned in &request.removed {
        let id = ServiceId::from_wire(&planned.service).map_err(super::invalid)?;
        // It may be gone already: nobody misses it.
        let Some(old) = view.services.get(&id).filter(|s| !s.pending_delete) else { continue };
        if old.spec_version != planned.version {
            return Err(out_of_sequence(&format!("service {}", old.spec.name)));
        }
        changes.push(removed_service(old));
    }
    let after = applied(view, &changes)?;
    // Judged in the state that all of them make: two services may swap a port.
    for id in judged {
        if let Some(service) = after.services.get(&id) {
            validate::service(&after, &service.spec, Some(id))
                .map_err(|e| of_service(&service.spec.name, &e))?;
        }
    }
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let revision = StackRevision {
        number: 0,
        at: now,
        author: author.to_owned(),
        source: request.source.clone(),
        services: specs,
        restores: 0,
        came_up: None,
        message: request.message.clone(),
        git: if remembers_commits(view) { request.git.clone() } else { String::new() },
    };
    let forgotten = add_revision(&mut stack, revision);
    changes.extend(surplus(&after, &stack, &forgotten, &request.kept));
    let id = stack.id;
    changes.push(Change::Put(Object::Stack(Arc::new(stack))));
    Ok((id, changes))
}

/// Older managers would drop what they do not know.
fn remembers_commits(view: &Tables) -> bool {
    view.cluster.as_ref().is_some_and(|cluster| cluster.feature_level >= model::GIT_LEVEL)
}

/// Records whether the services of a revision came up.
pub(super) fn judge(view: &Tables, request: &JudgeStackRequest) -> Result<(StackId, Vec<Change>), Status> {
    let mut stack = Stack::clone(existing(view, &request.name)?);
    let revision = stack.revisions.iter_mut().find(|r| r.number == request.revision);
    let revision = revision.ok_or_else(|| {
        Status::not_found(format!("stack {} has no revision {}", request.name, request.revision))
    })?;
    if revision.came_up == Some(request.came_up) {
        return Ok((stack.id, Vec::new()));
    }
    revision.came_up = Some(request.came_up);
    Ok((stack.id, vec![Change::Put(Object::Stack(Arc::new(stack)))]))
}

fn existing<'a>(view: &'a Tables, name: &str) -> Result<&'a Arc<Stack>, Status> {
    let stack = view.stack_named(name).filter(|s| !s.pending_delete);
    stack.ok_or_else(|| Status::not_found(format!("stack {name} not found")))
}

/// Returns the revision to go back to when none is named: the last before the newest that is known to have come up;
/// else the last that is not known to have failed; else the one before.
fn last_good(stack: &Stack) -> u64 {
    let Some((_, earlier)) = stack.revisions.split_last() else { return 0 };
    let last = |fits: &dyn Fn(&StackRevision) -> bool| earlier.iter().rev().find(|r| fits(r));
    let found = last(&|r| r.came_up == Some(true)).or_else(|| last(&|r| r.came_up.is_none()));
    found.or(earlier.last()).map_or(0, |r| r.number)
}

/// Returns what putting an earlier revision back changes. `revision` 0 = the [last good](last_good) one.
pub(super) fn rollback(
    view: &Tables,
    now: Timestamp,
    author: &str,
    request: &RollbackStackRequest,
) -> Result<(StackId, Vec<Change>), Status> {
    let stack = existing(view, &request.name)?;
    let newest = stack.revisions.last().map_or(0, |r| r.number);
    if request.newest != 0 && request.newest != newest {
        return Err(Status::failed_precondition(format!(
            "stack {} is at revision {newest} by now, deployed by somebody else",
            request.name
        )));
    }
    let number = if request.revision == 0 { last_good(stack) } else { request.revision };
    let kept = || stack.revisions.iter().map(|r| r.number.to_string()).collect::<Vec<_>>().join(", ");
    let revision = stack.revisions.iter().find(|r| r.number == number).ok_or_else(|| {
        Status::not_found(format!("stack {} has no revision {number}; there are {}", request.name, kept()))
    })?;
    let mut changes = Vec::new();
    let mut back = Vec::new();
    for spec in &revision.services {
        let old = view.service_named(&spec.name);
        let mut spec = ServiceSpec::clone(spec);
        let service = match old {
            None => {
                let new = edit::new_service(view, ServiceId(random_id()?), spec);
                Service { stack: Some(stack.id), ..new }
            }
            Some(old) => {
                // A restart since then is no part of the revision: taking it back would be another.
                Arc::make_mut(&mut spec.task).force_update = old.spec.task.force_update;
                put_spec(old, spec, stack.id)?
            }
        };
        back.push(service.id);
        if old.is_none_or(|old| **old != service) {
            changes.push(Change::Put(Object::Service(Arc::new(service))));
        }
    }
    let others = members(stack, view.services.values(), |s| &s.spec.labels);
    changes.extend(others.filter(|s| !s.pending_delete && !back.contains(&s.id)).map(removed_service));
    let after = applied(view, &changes)?;
    for id in back {
        if let Some(service) = after.services.get(&id) {
            validate::service(&after, &service.spec, Some(id))
                .map_err(|e| of_service(&service.spec.name, &e))?;
        }
    }
    let mut stack = Stack::clone(stack);
    let restored = StackRevision {
        number: 0,
        at: now,
        author: author.to_owned(),
        restores: number,
        came_up: None,
        message: String::new(),
        ..revision.clone()
    };
    let forgotten = add_revision(&mut stack, restored);
    changes.extend(surplus(&after, &stack, &forgotten, &[]));
    let id = stack.id;
    changes.push(Change::Put(Object::Stack(Arc::new(stack))));
    Ok((id, changes))
}

fn known_or_new(view: &Tables, name: &str) -> Result<Stack, Status> {
    match view.stack_named(name) {
        Some(known) => Ok(Stack::clone(known)),
        None => Ok(Stack {
            id: StackId(random_id()?),
            meta: Meta::default(),
            name: name.to_owned(),
            revisions: Vec::new(),
            pending_delete: false,
        }),
    }
}

fn out_of_sequence(what: &str) -> Status {
    Status::failed_precondition(format!(
        "{what} was changed by somebody else since the plan was made; hint: plan again"
    ))
}

/// Networks, secrets and configs that are new, with the ids that the caller chose.
fn new_objects(view: &Tables, request: &ApplyStackRequest) -> Result<Vec<Change>, Status> {
    let mut changes = Vec::new();
    let mut put = |object: Object| {
        if view.get(object.key()).is_some() {
            return Err(Status::already_exists(format!("{} exists already", object.key())));
        }
        changes.push(Change::Put(object));
        Ok(())
    };
    let networks: Vec<Network> = request
        .networks
        .iter()
        .map(|network| network.clone().try_into())
        .collect::<Result<_, _>>()
        .map_err(super::invalid)?;
    validate::room_for(view, networks.iter().map(|network| &network.spec))?;
    for network in networks {
        if view.networks.values().any(|n| n.spec.name == network.spec.name && !n.pending_delete) {
            return Err(out_of_sequence(&format!("network {}", network.spec.name)));
        }
        validate::network(view, &network.spec)?;
        put(Object::Network(Arc::new(Network {
            allocation: None,
            pending_delete: false,
            meta: Meta::default(),
            ..network
        })))?;
    }
    for secret in &request.secrets {
        let secret: Secret = secret.clone().try_into().map_err(super::invalid)?;
        validate::secret(view, &secret.spec)?;
        put(Object::Secret(Arc::new(Secret { meta: Meta::default(), ..secret })))?;
    }
    for config in &request.configs {
        let config: Config = config.clone().try_into().map_err(super::invalid)?;
        validate::config(view, &config.spec)?;
        put(Object::Config(Arc::new(Config { meta: Meta::default(), ..config })))?;
    }
    Ok(changes)
}

/// Returns the state after some changes, for what is in it to be judged.
fn applied(view: &Tables, changes: &[Change]) -> Result<Tables, Status> {
    view.assume(changes).map_err(|e| Status::failed_precondition(e.to_string()))
}

fn put_spec(old: &Service, spec: ServiceSpec, stack: StackId) -> Result<Service, Status> {
    if old.pending_delete {
        return Err(Status::failed_precondition(format!(
            "service {} is being removed; hint: try again in a moment",
            old.spec.name
        )));
    }
    validate::service_change(&old.spec, &spec).map_err(|e| of_service(&spec.name, &e))?;
    let changed = edit::with_spec(old, spec);
    Ok(Service { stack: Some(stack), ..changed })
}

/// Says which of many services a refusal is about.
fn of_service(name: &str, refusal: &Status) -> Status {
    Status::new(refusal.code(), format!("service {name}: {}", refusal.message()))
}

fn removed_service(old: &Arc<Service>) -> Change {
    Change::Put(Object::Service(Arc::new(Service { pending_delete: true, ..(**old).clone() })))
}

/// Adds the newest revision; returns those that are too old to be kept.
fn add_revision(stack: &mut Stack, revision: StackRevision) -> Vec<StackRevision> {
    let number = stack.revisions.last().map_or(1, |r| r.number + 1);
    stack.revisions.push(StackRevision { number, ..revision });
    let surplus = stack.revisions.len().saturating_sub(REVISIONS_MAX);
    stack.revisions.drain(..surplus).collect()
}

/// Secrets and configs of the stack that only revisions had which cannot be put back any more: they go with them.
fn surplus(after: &Tables, stack: &Stack, forgotten: &[StackRevision], kept: &[Vec<u8>]) -> Vec<Change> {
    let had = |revisions: &[StackRevision], uses: &dyn Fn(&ServiceSpec) -> bool| {
        revisions.iter().flat_map(|r| &r.services).any(|spec| uses(spec))
    };
    let only_forgotten =
        |uses: &dyn Fn(&ServiceSpec) -> bool| had(forgotten, uses) && !had(&stack.revisions, uses);
    let secrets = members(stack, after.secrets.values(), |s| &s.spec.labels)
        .filter(|s| only_forgotten(&|spec| spec.task.container.secrets.iter().any(|f| f.id == s.id)))
        .filter(|s| !kept.contains(&s.id.to_wire()) && validate::secret_unused(after, s).is_ok())
        .map(|s| (ObjectRef::Secret(s.id), s.meta.version));
    let configs = members(stack, after.configs.values(), |c| &c.spec.labels)
        .filter(|c| only_forgotten(&|spec| spec.task.container.configs.iter().any(|f| f.id == c.id)))
        .filter(|c| !kept.contains(&c.id.to_wire()) && validate::config_unused(after, c).is_ok())
        .map(|c| (ObjectRef::Config(c.id), c.meta.version));
    secrets.chain(configs).map(|(key, version)| Change::Delete { key, version }).collect()
}

/// Returns what removing a stack changes: its services and networks go, and the secrets and configs that no other
/// service uses.
pub(super) fn removal(view: &Tables, stack: &Arc<Stack>) -> Vec<Change> {
    let mut changes = Vec::new();
    let services = members(stack, view.services.values(), |s| &s.spec.labels);
    changes.extend(
        services.filter(|s| !s.pending_delete).map(|s| {
            Change::Put(Object::Service(Arc::new(Service { pending_delete: true, ..(**s).clone() })))
        }),
    );
    // What is still in use is asked of the state in which the services are gone.
    let after = view.assume(&changes).unwrap_or_else(|_| view.clone());
    // One that services or containers outside the stack use stays, as with Docker.
    let networks = members(stack, view.networks.values(), |n| &n.spec.labels);
    changes.extend(
        networks.filter(|n| !n.pending_delete && after.user_of_network(n.id).is_none()).map(|n| {
            Change::Put(Object::Network(Arc::new(Network { pending_delete: true, ..(**n).clone() })))
        }),
    );
    let secrets = members(stack, view.secrets.values(), |s| &s.spec.labels);
    changes.extend(
        secrets
            .filter(|s| validate::secret_unused(&after, s).is_ok())
            .map(|s| Change::Delete { key: ObjectRef::Secret(s.id), version: s.meta.version }),
    );
    let configs = members(stack, view.configs.values(), |c| &c.spec.labels);
    changes.extend(
        configs
            .filter(|c| validate::config_unused(&after, c).is_ok())
            .map(|c| Change::Delete { key: ObjectRef::Config(c.id), version: c.meta.version }),
    );
    changes.push(Change::Put(Object::Stack(Arc::new(Stack { pending_delete: true, ..(**stack).clone() }))));
    changes
}

fn members<'a, T: 'a>(
    stack: &'a Stack,
    objects: impl Iterator<Item = &'a Arc<T>> + 'a,
    labels: impl Fn(&T) -> &Labels + 'a,
) -> impl Iterator<Item = &'a Arc<T>> + 'a {
    objects.filter(move |o| labels(o).get(LABEL) == Some(&stack.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::ServiceId;

    fn request() -> ApplyStackRequest {
        ApplyStackRequest {
            name: "shop".into(),
            author: "me".into(),
            source: "services: {}".into(),
            ..ApplyStackRequest::default()
        }
    }

    /// Applies a request to the state.
    fn put(tables: &mut Tables, request: &ApplyStackRequest) -> Result<(), Status> {
        let (_, changes) = apply(tables, Timestamp(5), "me", request)?;
        tables.apply(tables.index + 1, &model::Batch { at: Timestamp(5), changes }).unwrap();
        Ok(())
    }

    /// A service of the stack with this image, planned against `version`.
    fn planned(tables: &Tables, image: &str, version: u64) -> proto::control::PlannedService {
        let mut spec = ServiceSpec::clone(&tables.services.get(&ServiceId(1)).unwrap().spec);
        Arc::make_mut(&mut spec.task).container.image = image.into();
        proto::control::PlannedService { spec: Some((&spec).into()), version, registry_auth: None }
    }

    fn labelled() -> Tables {
        state()
            .network(1)
            .service(1, &[1], &[])
            .change_service(1, |s| {
                Arc::make_mut(&mut s.spec).labels.insert(LABEL.into(), "shop".into());
            })
            .change_network(1, |n| {
                n.spec.labels.insert(LABEL.into(), "shop".into());
            })
            .tables()
    }

    #[test]
    fn a_stack_keeps_its_last_ten_revisions() {
        let mut tables = labelled();
        for _ in 0..12 {
            put(&mut tables, &request()).unwrap();
        }
        let stack = tables.stack_named("shop").unwrap();
        let numbers: Vec<u64> = stack.revisions.iter().map(|r| r.number).collect();
        assert_eq!(numbers, (3..=12).collect::<Vec<_>>());
    }

    #[test]
    fn a_revision_remembers_the_commit_it_was_made_of_where_all_managers_do() {
        let at = |level: u32, git: &str| {
            let mut cluster = model::Cluster::clone(state().cluster().tables().cluster.as_ref().unwrap());
            (cluster.meta, cluster.feature_level) = (Meta::default(), level);
            let mut tables = state().put(Object::Cluster(Arc::new(cluster))).tables();
            put(&mut tables, &ApplyStackRequest { git: git.into(), ..request() })?;
            Ok::<_, Status>(tables.stack_named("shop").unwrap().revisions[0].git.clone())
        };
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(at(model::GIT_LEVEL, commit).unwrap(), commit);
        assert_eq!(at(model::GIT_LEVEL, "").unwrap(), "");
        assert_eq!(at(model::GIT_LEVEL - 1, commit).unwrap(), "", "an older manager would drop it");
        for bad in ["main", "\u{1b}[2J", &"a".repeat(65)] {
            assert_eq!(
                at(model::GIT_LEVEL, bad).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_stack_is_changed_as_planned_or_not_at_all() {
        let mut tables = labelled();
        let version = tables.services.get(&ServiceId(1)).unwrap().spec_version;
        let with = |services| ApplyStackRequest { services, ..request() };
        put(&mut tables, &with(vec![planned(&labelled(), "a:2", version)])).unwrap();
        let service = tables.services.get(&ServiceId(1)).unwrap();
        assert_eq!(service.spec.task.container.image, "a:2");
        assert_eq!(service.stack, tables.stack_named("shop").map(|s| s.id));
        let late = put(&mut tables, &with(vec![planned(&labelled(), "a:3", version)])).unwrap_err();
        assert!(late.message().contains("was changed by somebody else since the plan was made"), "{late}");
        assert_eq!(tables.stack_named("shop").unwrap().revisions.len(), 1);
    }

    #[test]
    fn an_account_at_a_registry_comes_with_a_deploy_and_stays_until_another_does() {
        let mut tables = labelled();
        for (image, auth, kept) in [
            ("a:2", None, None),
            ("a:3", Some("ann"), Some("ann")),
            ("a:4", None, Some("ann")),
            ("a:4", Some("bob"), Some("bob")),
        ] {
            let version = tables.services.get(&ServiceId(1)).unwrap().spec_version;
            let registry_auth = auth.map(|auth: &str| auth.as_bytes().to_vec());
            let planned =
                proto::control::PlannedService { registry_auth, ..planned(&tables, image, version) };
            put(&mut tables, &ApplyStackRequest { services: vec![planned], ..request() }).unwrap();
            let found = tables.services.get(&ServiceId(1)).unwrap().registry_auth.clone();
            assert_eq!(found, kept.map(|auth: &str| SecretBytes(auth.as_bytes().to_vec())), "{image}");
        }
    }

    #[test]
    fn a_rollback_puts_all_services_of_a_revision_back() {
        let mut tables = labelled();
        let with = |services| ApplyStackRequest { services, ..request() };
        for image in ["a:1", "a:2"] {
            let version = tables.services.get(&ServiceId(1)).unwrap().spec_version;
            put(&mut tables, &with(vec![planned(&labelled(), image, version)])).unwrap();
        }
        let back = RollbackStackRequest { name: "shop".into(), author: "me".into(), ..Default::default() };
        let (_, changes) = rollback(&tables, Timestamp(6), "me", &back).unwrap();
        tables.apply(tables.index + 1, &model::Batch { at: Timestamp(6), changes }).unwrap();
        assert_eq!(tables.services.get(&ServiceId(1)).unwrap().spec.task.container.image, "a:1");
        let newest = tables.stack_named("shop").unwrap().revisions.last().unwrap();
        assert_eq!((newest.number, newest.restores), (3, 1));
        let none =
            rollback(&tables, Timestamp(6), "me", &RollbackStackRequest { revision: 9, ..back }).unwrap_err();
        assert_eq!(none.message(), "stack shop has no revision 9; there are 1, 2, 3");
    }

    #[test]
    fn a_rollback_is_no_reason_to_restart_what_was_restarted_since() {
        let mut tables = labelled();
        let version = tables.services.get(&ServiceId(1)).unwrap().spec_version;
        let services = vec![planned(&labelled(), "a:1", version)];
        put(&mut tables, &ApplyStackRequest { services, ..request() }).unwrap();
        let old = tables.services.get(&ServiceId(1)).unwrap();
        let mut spec = ServiceSpec::clone(&old.spec);
        Arc::make_mut(&mut spec.task).force_update += 1;
        let restarted = Object::Service(Arc::new(edit::with_spec(old, spec)));
        let changes = vec![Change::Put(restarted)];
        tables.apply(tables.index + 1, &model::Batch { at: Timestamp(6), changes }).unwrap();
        let back = RollbackStackRequest { name: "shop".into(), revision: 1, ..Default::default() };
        let (_, changes) = rollback(&tables, Timestamp(7), "me", &back).unwrap();
        let services = changes.iter().filter(|c| matches!(c, Change::Put(Object::Service(_))));
        assert_eq!(services.count(), 0, "{changes:?}");
    }

    #[test]
    fn the_way_back_leads_to_what_came_up() {
        let mut tables = labelled();
        let judged = |tables: &mut Tables, revision, came_up| {
            let request = JudgeStackRequest { name: "shop".into(), revision, came_up };
            let (_, changes) = judge(tables, &request).unwrap();
            tables.apply(tables.index + 1, &model::Batch { at: Timestamp(6), changes }).unwrap();
        };
        for (number, came_up) in [(1, Some(true)), (2, None), (3, Some(false)), (4, Some(false))] {
            put(&mut tables, &request()).unwrap();
            if let Some(came_up) = came_up {
                judged(&mut tables, number, came_up);
            }
        }
        let good = |tables: &Tables| last_good(tables.stack_named("shop").unwrap());
        assert_eq!(good(&tables), 1);
        judged(&mut tables, 1, false);
        assert_eq!(good(&tables), 2, "of which nobody knows");
        judged(&mut tables, 2, false);
        assert_eq!(good(&tables), 3, "the one before");
        let back = RollbackStackRequest { name: "shop".into(), newest: 3, ..Default::default() };
        let late = rollback(&tables, Timestamp(7), "me", &back).unwrap_err();
        assert_eq!(late.message(), "stack shop is at revision 4 by now, deployed by somebody else");
    }

    #[test]
    fn removing_a_stack_removes_what_it_made() {
        let mut tables = labelled();
        let (id, changes) = apply(&tables, Timestamp(5), "me", &request()).unwrap();
        tables.apply(tables.index + 1, &model::Batch { at: Timestamp(5), changes }).unwrap();
        let changes = removal(&tables, tables.stacks.get(&id).unwrap());
        tables.apply(tables.index + 1, &model::Batch { at: Timestamp(6), changes }).unwrap();
        assert!(tables.services.values().all(|s| s.pending_delete));
        assert!(tables.networks.values().all(|n| n.pending_delete));
        assert!(tables.stacks.values().all(|s| s.pending_delete));
    }
    #[test]
    fn a_service_whose_label_was_taken_away_outlives_its_stack_and_does_not_hold_it_back() {
        let mut tables = labelled();
        let put = |tables: &mut Tables, changes| {
            tables.apply(tables.index + 1, &model::Batch { at: Timestamp(5), changes }).unwrap();
        };
        let swarm = crate::ca::Init::new(1, "192.0.2.1:2377".parse().unwrap());
        put(&mut tables, crate::ca::bootstrap(swarm, Timestamp(1)).unwrap().batch.changes);
        let (id, changes) = apply(&tables, Timestamp(5), "me", &request()).unwrap();
        put(&mut tables, changes);
        let old = tables.services.get(&ServiceId(1)).unwrap();
        let old = Service { stack: Some(id), ..(**old).clone() };
        put(&mut tables, vec![Change::Put(Object::Service(Arc::new(old.clone())))]);
        let old = tables.services.get(&old.id).unwrap().clone();
        let mut spec = ServiceSpec::clone(&old.spec);
        spec.labels.remove(LABEL);
        let freed = edit::updated_service(&tables, &old, spec).unwrap();
        assert_eq!(freed.stack, None);
        // As it was written once.
        let freed = Service { stack: Some(id), ..freed };
        put(&mut tables, vec![Change::Put(Object::Service(Arc::new(freed)))]);
        let changes = removal(&tables, tables.stacks.get(&id).unwrap());
        put(&mut tables, changes);
        let mut next = 1 << 64;
        for _ in 0..5 {
            let mut ids = || {
                next += 1;
                next
            };
            let clock = plan::Clock { now: Timestamp(9), since: Timestamp(1) };
            let plan = plan::step(&tables, clock, &plan::Acks::default(), &mut ids);
            plan.batches.into_iter().for_each(|batch| put(&mut tables, batch.changes));
        }
        assert_eq!(tables.stacks.get(&id), None);
        let left: Vec<_> = tables.services.values().map(|s| (s.id, s.pending_delete)).collect();
        assert!(left.contains(&(old.id, false)), "{left:?}");
    }
}
