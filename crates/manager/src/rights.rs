//! What a person may do to which object: one place, deny by default.
//!
//! ```text
//!            reads                       writes
//!  admin     everything                  everything
//!  deploy    all but users and audit     services, networks, secrets, configs, stacks; with patterns: of those stacks;
//!                                        acts (exec, attach, cp) in containers that it could have deployed
//!  read      all but users               nothing
//! ```
//!
//! A write is judged object by object, as it was before and as it will be: neither may belong to somebody else. What a
//! deployer writes must not reach beyond what he may do: a service that mounts a host's folder, or is privileged, is
//! root on that host, so it takes an admin; one that is limited to stacks uses the secrets, networks and volumes of
//! those stacks only.

mod hosts;

use hosts::stays_off_hosts;
use model::{
    Labels, MountKind, Network, NetworkDriver, Object, ObjectRef, PersonRole, STACK_LABEL, Service,
    ServiceSpec, Tables, Task, matches_pattern,
};
use proto::types::ObjectKind;
use std::sync::Arc;

/// Every kind of object.
pub(crate) const KINDS: [ObjectKind; 10] = [
    ObjectKind::Cluster,
    ObjectKind::Node,
    ObjectKind::Service,
    ObjectKind::Task,
    ObjectKind::Network,
    ObjectKind::Secret,
    ObjectKind::Config,
    ObjectKind::Stack,
    ObjectKind::User,
    ObjectKind::Audit,
];

/// Returns an error, as people are told it, unless the role may read objects of this kind.
pub(crate) fn may_read(role: &PersonRole, kind: ObjectKind) -> Result<(), String> {
    let allowed = match kind {
        ObjectKind::Cluster
        | ObjectKind::Node
        | ObjectKind::Service
        | ObjectKind::Task
        | ObjectKind::Network
        | ObjectKind::Secret
        | ObjectKind::Config
        | ObjectKind::Stack => true,
        ObjectKind::Audit => matches!(role, PersonRole::Admin | PersonRole::Read),
        ObjectKind::User => matches!(role, PersonRole::Admin),
        ObjectKind::Unspecified => false,
    };
    if allowed { Ok(()) } else { Err(format!("role {} may not read {}", role.word(), plural(kind))) }
}

fn plural(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Audit => "the audit history",
        ObjectKind::User => "users",
        ObjectKind::Cluster => "the swarm",
        ObjectKind::Node => "nodes",
        ObjectKind::Service => "services",
        ObjectKind::Task => "tasks",
        ObjectKind::Network => "networks",
        ObjectKind::Secret => "secrets",
        ObjectKind::Config => "configs",
        ObjectKind::Stack => "stacks",
        ObjectKind::Unspecified => "this",
    }
}

/// Returns an error, as people are told it, unless the role may make `after` of `before`; `None`: it is not there.
/// `view` is the state in which `after` will be.
pub(crate) fn may_write(
    role: &PersonRole,
    view: &Tables,
    before: Option<&Object>,
    after: Option<&Object>,
) -> Result<(), String> {
    let patterns = match role {
        PersonRole::Admin => return Ok(()),
        PersonRole::Read => return Err("role read may not change anything".to_owned()),
        PersonRole::Deploy { stacks } => stacks,
    };
    for object in [before, after].into_iter().flatten() {
        owned(patterns, object)?;
    }
    if let (None, Some(new)) = (before, after) {
        takes_no_name_of_others(patterns, view, new)?;
    }
    match after {
        Some(Object::Service(new)) => {
            let known = match before {
                Some(Object::Service(old)) => Some(&*old.spec),
                _ => None,
            };
            // Marking what an admin made for removal, or running it again, makes nothing new.
            if known != Some(&*new.spec) {
                stays_off_hosts(&new.spec)
                    .and_then(|()| uses_its_own(patterns, view, &new.spec))
                    .map_err(|reason| format!("service {}: {reason}", new.spec.name))?;
            }
            Ok(())
        }
        Some(Object::Network(new)) if new.spec.driver != NetworkDriver::Overlay => {
            Err(format!("network {} is one of the hosts': that takes role admin", new.spec.name))
        }
        _ => Ok(()),
    }
}

/// Returns an error, as people are told it, unless the role may act in the container of a task. A deployer acts where he
/// could have deployed the very same: in a container that an admin has let into its host he would be root there.
pub(crate) fn may_enter(role: &PersonRole, view: &Tables, task: &Task) -> Result<(), String> {
    let patterns = match role {
        PersonRole::Admin => return Ok(()),
        PersonRole::Read => return Err("role read may not act in containers".to_owned()),
        PersonRole::Deploy { stacks } => stacks,
    };
    let name = task.name();
    let Some(service) = view.services.get(&task.service) else {
        return Err(format!("task {name} is of no service: that takes role admin"));
    };
    owned(patterns, &Object::Service(Arc::clone(service)))?;
    // As the task is, whatever the service is by now.
    let spec = ServiceSpec { task: Arc::clone(&task.spec), ..(*service.spec).clone() };
    stays_off_hosts(&spec)
        .and_then(|()| uses_its_own(patterns, view, &spec))
        .map_err(|reason| format!("task {name}: {reason}"))
}

/// Returns an error unless objects of this kind are a deployer's at all, and this one of his stacks.
fn owned(patterns: &[String], object: &Object) -> Result<(), String> {
    let label = |labels: &Labels| labels.get(STACK_LABEL).cloned();
    let (what, stack) = match object {
        Object::Service(o) => (format!("service {}", o.spec.name), label(&o.spec.labels)),
        Object::Network(o) => (format!("network {}", o.spec.name), label(&o.spec.labels)),
        Object::Secret(o) => (format!("secret {}", o.spec.name), label(&o.spec.labels)),
        Object::Config(o) => (format!("config {}", o.spec.name), label(&o.spec.labels)),
        Object::Stack(o) => (format!("stack {}", o.name), Some(o.name.clone())),
        Object::Cluster(_) => return Err("changing the swarm takes role admin".to_owned()),
        Object::Node(_) => return Err("changing nodes takes role admin".to_owned()),
        Object::Task(_) => return Err("tasks are not changed by people".to_owned()),
        Object::User(_) => return Err("changing users takes role admin".to_owned()),
        Object::Audit(_) => return Err("the audit history is not changed by people".to_owned()),
    };
    if patterns.is_empty() {
        return Ok(());
    }
    let stack = stack.ok_or_else(|| {
        format!("{what} is of no stack; this user may change those of {} only", patterns.join(", "))
    })?;
    if !is_one_of(patterns, &stack) {
        return Err(format!(
            "{what} is of stack {stack}; this user may change those of {} only",
            patterns.join(", ")
        ));
    }
    // The name is what others find a service by.
    if let Object::Service(service) = object
        && !service.spec.name.starts_with(&format!("{stack}_"))
    {
        return Err(format!("{what} is of stack {stack}, so its name must begin with {stack}_"));
    }
    Ok(())
}

/// Returns an error if a new service, network, secret or config would have the name that one of another stack would get:
/// who deploys that stack, or names it from outside, would take it for theirs.
fn takes_no_name_of_others(patterns: &[String], view: &Tables, new: &Object) -> Result<(), String> {
    let (what, name, labels) = match new {
        Object::Network(o) => ("network", &o.spec.name, &o.spec.labels),
        Object::Secret(o) => ("secret", &o.spec.name, &o.spec.labels),
        Object::Config(o) => ("config", &o.spec.name, &o.spec.labels),
        Object::Service(o) => ("service", &o.spec.name, &o.spec.labels),
        // They have none, or are no deployer's.
        Object::Stack(_)
        | Object::Cluster(_)
        | Object::Node(_)
        | Object::Task(_)
        | Object::User(_)
        | Object::Audit(_) => return Ok(()),
    };
    let own = labels.get(STACK_LABEL).filter(|stack| is_prefix(stack, name)).map_or(0, String::len);
    match stack_of_others(patterns, view, name) {
        // `a_b_net` is of stack `a_b` although there is a stack `a`.
        Some(stack) if stack.len() > own => {
            Err(format!("{what} {name} would pass for one of stack {stack}, which is not this user's"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns the stack of others, if there is one, whose objects have names that begin as this one does.
fn stack_of_others<'a>(patterns: &[String], view: &'a Tables, name: &str) -> Option<&'a str> {
    if patterns.is_empty() {
        return None;
    }
    stacks_of_others(patterns, view).filter(|stack| is_prefix(stack, name)).max_by_key(|stack| stack.len())
}

fn stacks_of_others<'a>(patterns: &[String], view: &'a Tables) -> impl Iterator<Item = &'a str> {
    let by_label = view.services.values().filter_map(|service| service.spec.labels.get(STACK_LABEL));
    let all = view.stacks.values().map(|stack| &stack.name).chain(by_label);
    all.filter(|stack| !is_one_of(patterns, stack)).map(String::as_str)
}

/// Returns true for `STACK_NAME`, as who looks for a name does: in capitals or not.
fn is_prefix(stack: &str, name: &str) -> bool {
    begins_with(name, stack) && name.as_bytes().get(stack.len()) == Some(&b'_')
}

fn begins_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn is_one_of(patterns: &[String], stack: &str) -> bool {
    patterns.iter().any(|pattern| matches_pattern(pattern, stack))
}

/// Returns an error if a service uses what belongs to stacks that none of the patterns match.
fn uses_its_own(patterns: &[String], view: &Tables, spec: &ServiceSpec) -> Result<(), String> {
    let networks = spec.task.networks.iter().filter_map(|n| Some((n, view.networks.get(&n.network)?)));
    for (attachment, network) in networks {
        if network.spec.driver != NetworkDriver::Overlay {
            return Err(format!(
                "network {} reaches into the host: that takes role admin",
                network.spec.name
            ));
        }
        // One of no stack is everybody's.
        let others = network.spec.labels.get(STACK_LABEL).filter(|stack| !is_one_of(patterns, stack));
        if let Some(stack) = others
            && !patterns.is_empty()
            && !network.spec.attachable
        {
            return Err(format!("network {} is of stack {stack}", network.spec.name));
        }
        let own = network.spec.labels.get(STACK_LABEL).is_some_and(|stack| is_one_of(patterns, stack));
        if !own && !patterns.is_empty() {
            attachment
                .aliases
                .iter()
                .try_for_each(|alias| is_nobody_elses(patterns, view, network, alias))?;
        }
    }
    if patterns.is_empty() {
        return Ok(());
    }
    // A secret is what its service can read, so it is only its stack's.
    let secrets = spec.task.container.secrets.iter().filter_map(|file| view.secrets.get(&file.id));
    for secret in secrets {
        if !secret.spec.labels.get(STACK_LABEL).is_some_and(|stack| is_one_of(patterns, stack)) {
            return Err(format!(
                "secret {} is not of this user's stacks; hint: an admin gives it with label {STACK_LABEL}",
                secret.spec.name
            ));
        }
    }
    for mount in &spec.task.container.mounts {
        let MountKind::Volume { name: Some(name), .. } = &mount.kind else { continue };
        // What a template becomes is known on the node; what stands before it stays.
        let certain = name.split("{{").next().unwrap_or_default();
        let mut ends = certain.match_indices('_').map(|(at, _)| &certain[..at]);
        let own = ends.rfind(|stack| is_one_of(patterns, stack)).ok_or_else(|| {
            format!("volume {name} does not begin with the name of one of this user's stacks")
        })?;
        // `a_b_data` is of stack `a_b` although it begins as those of `a` do.
        if let Some(stack) = stack_of_others(patterns, view, certain).filter(|stack| stack.len() > own.len())
        {
            return Err(format!("volume {name} is of stack {stack}, which is not this user's"));
        }
        if certain.len() < name.len()
            && let Some(stack) = stacks_of_others(patterns, view).find(|stack| begins_with(stack, certain))
        {
            return Err(format!("volume {name} may become one of stack {stack}, which is not this user's"));
        }
    }
    Ok(())
}

/// Returns an error if an alias would answer for somebody else on a network that others are on, too: for one of their
/// services, one that their stacks would have, or a host outside.
fn is_nobody_elses(patterns: &[String], view: &Tables, network: &Network, alias: &str) -> Result<(), String> {
    let on = &network.spec.name;
    // `tasks.NAME` and `NAME.NETWORK` are the swarm's own, the others are the world's.
    if alias.contains('.') {
        return Err(format!(
            "alias {alias} on network {on}, where others are, has a dot, as names elsewhere have"
        ));
    }
    let lower = alias.to_ascii_lowercase();
    if let Some(stack) = stack_of_others(patterns, view, &lower) {
        return Err(format!("alias {alias} on network {on} would pass for a service of stack {stack}"));
    }
    let is_theirs = |service: &&Arc<Service>| {
        let stack = service.spec.labels.get(STACK_LABEL);
        service.spec.name.eq_ignore_ascii_case(&lower)
            && !stack.is_some_and(|stack| is_one_of(patterns, stack))
    };
    match view.services_using(ObjectRef::Network(network.id)).find(is_theirs) {
        Some(service) => {
            Err(format!("alias {alias} on network {on} is the name of service {}", service.spec.name))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::{State, state};
    use model::{
        AuditId, AuditRecord, Config, ConfigId, ConfigSpec, ContainerSpec, DeviceMapping, Hook, HostOptions,
        Meta, Mount, Secret, SecretBytes, SecretId, SecretSpec, ServiceId, Stack, StackId, TaskId, Timestamp,
        User, UserId,
    };

    fn labels(stack: Option<&str>) -> Labels {
        stack.into_iter().map(|s| (STACK_LABEL.to_owned(), s.to_owned())).collect()
    }

    /// An object of each kind, those that can be of this stack.
    fn objects(stack: Option<&str>) -> Vec<Object> {
        let tables = tables(stack);
        let mut all: Vec<Object> = tables.objects().collect();
        let name = stack.unwrap_or("none").to_owned();
        let meta = Meta::default();
        all.push(Object::Config(Arc::new(Config {
            id: ConfigId(1),
            meta,
            spec: ConfigSpec { templated: false, name: "c".into(), labels: labels(stack), data: vec![1] },
        })));
        all.push(Object::Stack(Arc::new(Stack {
            id: StackId(1),
            meta,
            name,
            revisions: Vec::new(),
            pending_delete: false,
        })));
        all.push(Object::User(Arc::new(User {
            id: UserId(1),
            meta,
            name: "ann".into(),
            role: PersonRole::Read,
            password: None,
            tokens: Vec::new(),
            certificates: Vec::new(),
        })));
        all.push(Object::Audit(Arc::new(AuditRecord {
            id: AuditId::new(Timestamp(1), 1),
            meta,
            person: "ann".into(),
            from: String::new(),
            via: None,
            action: "create".into(),
            object: "service web".into(),
            before: 0,
            message: String::new(),
        })));
        all
    }

    fn secret(id: u128, stack: Option<&str>) -> Object {
        let spec = SecretSpec {
            templated: false,
            name: format!("s{id}"),
            labels: labels(stack),
            data: SecretBytes(vec![1]),
        };
        Object::Secret(Arc::new(Secret { id: SecretId(id), meta: Meta::default(), spec }))
    }

    fn world(stack: Option<&str>) -> State {
        state()
            .cluster()
            .node(1)
            .network(1)
            .change_network(1, |n| n.spec.labels = labels(stack))
            .service(1, &[1], &[])
            .change_service(1, |s| {
                let spec = Arc::make_mut(&mut s.spec);
                spec.labels = labels(stack);
                spec.name = format!("{}_web", stack.unwrap_or("none"));
            })
    }

    fn tables(stack: Option<&str>) -> Tables {
        let mut tables = world(stack).tables();
        tables.restore(secret(1, stack)).unwrap();
        tables
    }

    fn kind(object: &Object) -> ObjectKind {
        let wire = proto::types::ObjectRef::from(&object.key());
        ObjectKind::try_from(wire.kind).unwrap()
    }

    fn deployer(patterns: &[&str]) -> PersonRole {
        PersonRole::Deploy { stacks: patterns.iter().map(|p| (*p).to_owned()).collect() }
    }

    #[test]
    fn each_role_writes_what_the_table_says_of_each_kind() {
        let deployed = [
            ObjectKind::Service,
            ObjectKind::Network,
            ObjectKind::Secret,
            ObjectKind::Config,
            ObjectKind::Stack,
        ];
        let mut seen = std::collections::BTreeSet::new();
        for object in objects(Some("shop")) {
            let kind = kind(&object);
            seen.insert(kind as i32);
            let view = tables(Some("shop"));
            // Made, changed, removed.
            for (before, after) in
                [(None, Some(&object)), (Some(&object), Some(&object)), (Some(&object), None)]
            {
                let may = |role: &PersonRole| may_write(role, &view, before, after).is_ok();
                assert!(may(&PersonRole::Admin), "{kind:?}");
                assert!(!may(&PersonRole::Read), "{kind:?}");
                assert_eq!(may(&deployer(&[])), deployed.contains(&kind), "{kind:?}");
                assert_eq!(may(&deployer(&["bank", "sh*"])), deployed.contains(&kind), "{kind:?}");
                assert!(!may(&deployer(&["bank"])), "{kind:?}");
            }
        }
        let all: std::collections::BTreeSet<_> = KINDS.iter().map(|k| *k as i32).collect();
        let missing: Vec<_> = all.difference(&seen).copied().collect();
        // Tasks are made by the plan only; there is none in this state.
        assert_eq!(missing, [ObjectKind::Task as i32], "a kind is not tested");
    }

    #[test]
    fn each_role_reads_what_the_table_says_of_each_kind() {
        for kind in KINDS {
            let reads = |role: &PersonRole| may_read(role, kind).is_ok();
            assert!(reads(&PersonRole::Admin));
            assert_eq!(reads(&PersonRole::Read), kind != ObjectKind::User, "{kind:?}");
            let hidden = matches!(kind, ObjectKind::User | ObjectKind::Audit);
            assert_eq!(reads(&deployer(&[])), !hidden, "{kind:?}");
            assert_eq!(reads(&deployer(&["shop"])), !hidden, "{kind:?}");
        }
        assert!(may_read(&PersonRole::Admin, ObjectKind::Unspecified).is_err());
    }

    #[test]
    fn nothing_is_moved_from_stack_to_stack_by_who_has_one_of_them() {
        let role = deployer(&["shop"]);
        let view = tables(Some("shop"));
        let (mine, theirs, nobodys) = (objects(Some("shop")), objects(Some("bank")), objects(None));
        for ((mine, theirs), nobodys) in mine.iter().zip(&theirs).zip(&nobodys) {
            for (before, after) in [(mine, theirs), (theirs, mine), (mine, nobodys), (nobodys, mine)] {
                assert!(may_write(&role, &view, Some(before), Some(after)).is_err(), "{}", mine.key());
            }
        }
    }

    fn service_with(view: &Tables, change: impl Fn(&mut ServiceSpec)) -> Object {
        let mut service = (**view.services.get(&ServiceId(1)).unwrap()).clone();
        change(Arc::make_mut(&mut service.spec));
        Object::Service(Arc::new(service))
    }

    /// A service whose tasks have a volume of this name.
    fn with_volume(view: &Tables, name: &str) -> Object {
        service_with(view, |s| {
            let kind = MountKind::Volume {
                name: Some(name.to_owned()),
                driver: None,
                driver_opts: Labels::new(),
                labels: Labels::new(),
                no_copy: false,
            };
            Arc::make_mut(&mut s.task).container.mounts =
                vec![Mount { kind, target: "/v".into(), read_only: false }];
        })
    }

    #[test]
    fn what_reaches_into_hosts_takes_an_admin() {
        type Edit = fn(&mut ContainerSpec);
        fn host(set: fn(&mut HostOptions)) -> HostOptions {
            let mut options = HostOptions::default();
            set(&mut options);
            options
        }
        let volume = |options: Labels, driver: Option<&str>| MountKind::Volume {
            name: None,
            driver: driver.map(str::to_owned),
            driver_opts: options,
            labels: Labels::new(),
            no_copy: false,
        };
        let view = tables(Some("shop"));
        let before = service_with(&view, |_| {});
        let judge = |role: &PersonRole, change: &dyn Fn(&mut ContainerSpec)| {
            let after = service_with(&view, |spec| change(&mut Arc::make_mut(&mut spec.task).container));
            may_write(role, &view, Some(&before), Some(&after))
        };
        let edits: [Edit; 16] = [
            |c| c.privileged = true,
            |c| c.cap_add = vec!["SYS_ADMIN".into()],
            |c| c.cap_add = vec!["ALL".into()],
            |c| c.oom_score_adj = -1,
            |c| c.post_start = vec![Hook { privileged: true, ..Hook::default() }],
            |c| c.pre_stop = vec![Hook { privileged: true, ..Hook::default() }],
            |c| c.host = Some(host(|h| h.pid = Some("host".into()))),
            |c| c.host = Some(host(|h| h.ipc = Some("container:x".into()))),
            |c| c.host = Some(host(|h| h.uts = Some("host".into()))),
            |c| c.host = Some(host(|h| h.users = Some("host".into()))),
            |c| c.host = Some(host(|h| h.cgroup = Some("host".into()))),
            |c| c.host = Some(host(|h| h.cgroup_parent = Some("/".into()))),
            |c| c.host = Some(host(|h| h.security_opts = vec!["seccomp=unconfined".into()])),
            |c| c.host = Some(host(|h| h.device_cgroup_rules = vec!["a *:* rwm".into()])),
            |c| c.host = Some(host(|h| h.runtime = Some("runc".into()))),
            |c| c.host = Some(host(|h| h.oom_kill_disable = true)),
        ];
        let mount = |kind| Mount { kind, target: "/m".into(), read_only: true };
        let bind = || MountKind::Bind {
            source: "/".into(),
            propagation: None,
            create: false,
            recursion: model::BindRecursion::Enabled,
        };
        let nfs = || volume([("type".to_owned(), "nfs".to_owned())].into(), None);
        for role in [deployer(&[]), deployer(&["shop"])] {
            for (n, edit) in edits.iter().enumerate() {
                assert!(judge(&role, edit).is_err(), "{n}");
                assert!(judge(&PersonRole::Admin, edit).is_ok());
            }
            assert!(judge(&role, &|c| c.mounts = vec![mount(bind())]).is_err());
            assert!(judge(&role, &|c| c.mounts = vec![mount(nfs())]).is_err());
            assert!(judge(&role, &|c| c.mounts = vec![mount(volume(Labels::new(), Some("x")))]).is_err());
            let device = |c: &mut ContainerSpec| {
                let path = "/dev/kmsg".to_owned();
                let device =
                    DeviceMapping { host_path: path.clone(), container_path: path, permissions: "r".into() };
                c.host = Some(HostOptions { devices: vec![device], ..HostOptions::default() });
            };
            assert!(judge(&role, &device).is_err());
            // What takes away, or stays inside.
            assert!(judge(&role, &|c| c.cap_add = vec!["CAP_CHOWN".into(), "kill".into()]).is_ok());
            assert!(judge(&role, &|c| c.mounts = vec![mount(volume(Labels::new(), Some("local")))]).is_ok());
            assert!(judge(&role, &|c| c.host = Some(host(|h| h.cpu_shares = 5))).is_ok());
            assert!(judge(&role, &|c| c.host = Some(host(|h| h.users = Some("private".into())))).is_ok());
        }
        // What an admin has let in may be run again and removed, but not changed.
        let privileged = service_with(&view, |s| Arc::make_mut(&mut s.task).container.privileged = true);
        let Object::Service(service) = &privileged else { panic!() };
        let gone = model::Service { pending_delete: true, ..(**service).clone() };
        let gone = Object::Service(Arc::new(gone));
        assert!(may_write(&deployer(&["shop"]), &view, Some(&privileged), Some(&gone)).is_ok());
        let other = service_with(&view, |s| {
            let container = &mut Arc::make_mut(&mut s.task).container;
            (container.privileged, container.image) = (true, "other".into());
        });
        assert!(may_write(&deployer(&["shop"]), &view, Some(&privileged), Some(&other)).is_err());
    }

    #[test]
    fn who_could_have_deployed_a_task_may_act_in_it() {
        let of = |stack: Option<&str>, change: &dyn Fn(&mut ServiceSpec)| {
            let world = world(stack).change_service(1, |s| change(Arc::make_mut(&mut s.spec)));
            world.task(7, 1, 1, None).tables()
        };
        let may = |role: &PersonRole, view: &Tables| {
            may_enter(role, view, view.tasks.get(&TaskId(7)).unwrap()).is_ok()
        };
        let privileged = |s: &mut ServiceSpec| Arc::make_mut(&mut s.task).container.privileged = true;
        let (any, shop) = (deployer(&[]), deployer(&["shop*"]));
        for (stack, change, roles) in [
            (Some("shop"), &(|_: &mut ServiceSpec| {}) as &dyn Fn(&mut ServiceSpec), [true, true]),
            (Some("shop2"), &|_| {}, [true, true]),
            (Some("bank"), &|_| {}, [true, false]),
            (None, &|_| {}, [true, false]),
            (Some("shop"), &privileged, [false, false]),
        ] {
            let view = of(stack, change);
            assert_eq!([may(&any, &view), may(&shop, &view)], roles, "{stack:?}");
            assert!(may(&PersonRole::Admin, &view) && !may(&PersonRole::Read, &view));
        }
        // What counts is the task, not what its service is by now.
        let mut view = of(Some("shop"), &privileged);
        let mut service = (**view.services.get(&ServiceId(1)).unwrap()).clone();
        Arc::make_mut(&mut Arc::make_mut(&mut service.spec).task).container.privileged = false;
        view.restore(Object::Service(Arc::new(service))).unwrap();
        assert!(!may(&shop, &view));
        // One that a person has attached to a network is of no service.
        let mut task = (**view.tasks.get(&TaskId(7)).unwrap()).clone();
        task.service = ServiceId(99);
        assert!(may_enter(&any, &view, &task).is_err());
    }

    #[test]
    fn a_service_uses_what_is_of_its_makers_stacks() {
        let role = deployer(&["shop*"]);
        let file = |id| model::FileRef {
            id: SecretId(id),
            name: format!("s{id}"),
            target: "s".into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o400,
        };
        for (stack, fits) in
            [(Some("shop"), true), (Some("shop2"), true), (Some("bank"), false), (None, false)]
        {
            let mut view = tables(Some("shop"));
            view.restore(secret(2, stack)).unwrap();
            let after = service_with(&view, |s| {
                Arc::make_mut(&mut s.task).container.secrets = vec![file(2)];
            });
            assert_eq!(may_write(&role, &view, None, Some(&after)).is_ok(), fits, "secret of {stack:?}");
            assert!(may_write(&deployer(&[]), &view, None, Some(&after)).is_ok());
        }
        for (name, fits) in
            [("shop_data", true), ("shop2_a_b", true), ("bank_data", false), ("data", false), ("", false)]
        {
            let view = tables(Some("shop"));
            let after = with_volume(&view, name);
            assert_eq!(may_write(&role, &view, None, Some(&after)).is_ok(), fits, "volume {name}");
        }
        for (stack, attachable, fits) in
            [(Some("bank"), false, false), (Some("bank"), true, true), (None, false, true)]
        {
            let view = world(Some("shop"))
                .change_network(1, |n| {
                    n.spec.labels = labels(stack);
                    n.spec.attachable = attachable;
                })
                .tables();
            let after = service_with(&view, |s| s.mode = model::Mode::Global);
            assert_eq!(may_write(&role, &view, None, Some(&after)).is_ok(), fits, "network of {stack:?}");
        }
    }

    #[test]
    fn no_object_gets_the_name_that_one_of_another_stack_would_get() {
        let view = tables(Some("bank"));
        let named = |stack: &str, name: &str| {
            let named = objects(Some(stack)).into_iter().filter_map(|mut object| {
                match &mut object {
                    Object::Network(o) => Arc::make_mut(o).spec.name = name.to_owned(),
                    Object::Secret(o) => Arc::make_mut(o).spec.name = name.to_owned(),
                    Object::Config(o) => Arc::make_mut(o).spec.name = name.to_owned(),
                    _ => return None,
                }
                Some(object)
            });
            named.collect::<Vec<_>>()
        };
        let may = |role: &PersonRole, object: &Object| may_write(role, &view, None, Some(object)).is_ok();
        for (stack, name, fits) in [
            ("shop", "bank_default", false),
            ("shop", "bank__", false),
            ("shop", "shop_default", true),
            ("shop", "bankrupt", true),
            ("shop", "bank", true),
            ("bank_eu", "bank_eu_default", true),
            ("bank_eu", "bank_default", false),
        ] {
            let objects = named(stack, name);
            assert_eq!(objects.len(), 3);
            for object in &objects {
                assert_eq!(may(&deployer(&["shop*", "bank_eu"]), object), fits, "{stack} {}", object.key());
                assert!(may(&deployer(&[]), object) && may(&PersonRole::Admin, object));
                // What has its name already keeps it.
                let role = deployer(&["shop*", "bank_eu"]);
                assert!(may_write(&role, &view, Some(object), Some(object)).is_ok());
            }
        }
    }

    #[test]
    fn on_a_network_of_others_an_alias_is_nobody_elses_name() {
        let judge = |patterns: &[&str], network: Option<&str>, alias: &str| {
            let view = world(Some("bank"))
                .change_network(1, |n| {
                    n.spec.labels = labels(network);
                    n.spec.attachable = true;
                })
                .service(2, &[1], &[])
                .change_service(2, |s| Arc::make_mut(&mut s.spec).name = "registry".into())
                .service(3, &[1], &[])
                .change_service(3, |s| {
                    let spec = Arc::make_mut(&mut s.spec);
                    (spec.name, spec.labels) = ("shop_web".into(), labels(Some("shop")));
                    Arc::make_mut(&mut spec.task).networks[0].aliases = vec![alias.to_owned()];
                })
                .tables();
            let Some(service) = view.services.get(&ServiceId(3)) else { panic!("it was made") };
            let service = Object::Service(Arc::clone(service));
            may_write(&deployer(patterns), &view, None, Some(&service))
        };
        for alias in ["bank_web", "BANK_web", "bank_db", "registry", "tasks.bank_web", "example.com"] {
            for network in [None, Some("bank")] {
                let refused = judge(&["shop*"], network, alias).expect_err(alias);
                assert!(refused.contains(alias), "{refused}");
            }
            judge(&["shop*"], Some("shop"), alias).expect("one's own network is one's own affair");
            judge(&[], None, alias).expect("who deploys everything is nobody else");
        }
        for alias in ["web", "shop_api", "shop_web", "bank"] {
            judge(&["shop*"], None, alias).expect(alias);
        }
    }

    #[test]
    fn the_name_of_a_volume_is_not_judged_by_what_a_template_leaves_out() {
        let view = tables(Some("x-dev"));
        let with_volume = |name: &str| with_volume(&view, name);
        for (name, fits) in [
            ("x-dev_data", true),
            ("x-dev_data{{.Task.Slot}}", true),
            ("{{/*x-dev_*/}}bank_data", false),
            ("{{if false}}x-dev_{{end}}bank_data", false),
            ("x{{/*-dev_*/}}_bank_data", false),
        ] {
            let after = with_volume(name);
            assert_eq!(may_write(&deployer(&["*-dev"]), &view, None, Some(&after)).is_ok(), fits, "{name}");
        }
    }

    /// A stack's name may begin as another's does: `shop` and `shop_eu`.
    #[test]
    fn what_begins_as_ones_own_stack_may_be_of_a_longer_one() {
        let role = deployer(&["shop"]);
        let view = tables(Some("shop_eu"));
        for (name, fits) in [
            ("shop_data", true),
            ("shop_eu2_data", true),
            ("shop_eu_data", false),
            ("shop_EU_data", false),
            ("shop_eu_{{.Task.Slot}}", false),
            ("shop_{{.Task.Slot}}", false),
            ("shop_e{{index .Service.Labels \"rest\"}}", false),
            ("shop_data{{.Task.Slot}}", true),
        ] {
            let after = with_volume(&view, name);
            let Object::Service(mut service) = after else { panic!("a service") };
            let spec = Arc::make_mut(&mut Arc::make_mut(&mut service).spec);
            (spec.name, spec.labels) = ("shop_web".into(), labels(Some("shop")));
            Arc::make_mut(&mut spec.task).networks.clear();
            let after = Object::Service(service);
            assert_eq!(may_write(&role, &view, None, Some(&after)).is_ok(), fits, "volume {name}");
            assert!(may_write(&deployer(&["shop*"]), &view, None, Some(&after)).is_ok(), "both are his");
        }
        for (name, fits) in
            [("shop_web", true), ("shop_eu2_web", true), ("shop_eu_db", false), ("shop_Eu_db", false)]
        {
            let after = service_with(&view, |s| {
                (s.name, s.labels) = (name.into(), labels(Some("shop")));
                Arc::make_mut(&mut s.task).networks.clear();
            });
            assert_eq!(may_write(&role, &view, None, Some(&after)).is_ok(), fits, "service {name}");
            assert!(
                may_write(&role, &view, Some(&after), Some(&after)).is_ok(),
                "what has its name keeps it"
            );
        }
    }

    #[test]
    fn a_deployers_processes_do_not_come_before_the_hosts_own() {
        let view = tables(Some("shop"));
        for (limit, fits) in [("nofile", true), ("memlock", true), ("RtPrio", false), ("nice", false)] {
            let after = service_with(&view, |s| {
                let limit = model::Ulimit { name: limit.to_owned(), soft: 99, hard: 99 };
                Arc::make_mut(&mut s.task).container.ulimits = vec![limit];
            });
            assert_eq!(may_write(&deployer(&["shop"]), &view, None, Some(&after)).is_ok(), fits, "{limit}");
            assert!(may_write(&PersonRole::Admin, &view, None, Some(&after)).is_ok());
        }
    }

    #[test]
    fn names_of_a_deployer_are_not_asked_for_at_the_host_itself() {
        let view = tables(Some("shop"));
        for (server, fits) in [
            ("127.0.0.1", false),
            ("127.0.0.53", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("192.0.2.53", true),
            ("2001:db8::53", true),
        ] {
            let after = service_with(&view, |s| {
                let container = &mut Arc::make_mut(&mut s.task).container;
                container.dns.nameservers = vec!["192.0.2.1".parse().unwrap(), server.parse().unwrap()];
            });
            for role in [deployer(&[]), deployer(&["shop"])] {
                assert_eq!(may_write(&role, &view, None, Some(&after)).is_ok(), fits, "{server}");
            }
            assert!(may_write(&PersonRole::Admin, &view, None, Some(&after)).is_ok());
        }
    }

    #[test]
    fn logs_of_a_deployer_go_to_no_socket_of_the_host() {
        let view = tables(Some("shop"));
        let with_log = |address: &str| {
            service_with(&view, |s| {
                let options = [("syslog-address".to_owned(), address.to_owned())].into();
                let driver = model::LogDriver { name: "syslog".into(), options };
                Arc::make_mut(&mut s.task).log_driver = Some(driver);
            })
        };
        for (address, fits) in [
            ("unix:///run/rswarm/docker.sock", false),
            ("unixgram:///dev/log", false),
            ("UNIX:///dev/log", false),
            ("udp://127.0.0.1:8125", false),
            ("udp://localhost", false),
            ("udp://LOCALHOST.:53", false),
            ("udp://x.localhost:53", false),
            ("udp://[::1]:514", false),
            ("udp://[::ffff:127.0.0.1]:514", false),
            ("udp://0.0.0.0:514", false),
            ("udp://169.254.169.254:80", false),
            ("udp://192.0.2.1:514", true),
            ("udp://logs.example.com", true),
            ("udp://[2001:db8::1]:514", true),
        ] {
            let after = with_log(address);
            for role in [deployer(&[]), deployer(&["shop"])] {
                assert_eq!(may_write(&role, &view, None, Some(&after)).is_ok(), fits, "{address}");
            }
            assert!(may_write(&PersonRole::Admin, &view, None, Some(&after)).is_ok());
        }
    }
}
