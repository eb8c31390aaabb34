//! What a person may do to which object: one place, deny by default.
//!
//! ```text
//!            reads                       writes
//!  admin     everything                  everything
//!  deploy    all but users and audit     services, networks, secrets, configs, stacks; with patterns: of those stacks
//!  read      all but users               nothing
//! ```
//!
//! A write is judged object by object, as it was before and as it will be: neither may belong to somebody else. What a
//! deployer writes must not reach beyond what he may do: a service that mounts a host's folder, or is privileged, is
//! root on that host, so it takes an admin; one that is limited to stacks uses the secrets, networks and volumes of
//! those stacks only.

use model::{
    ContainerSpec, HostOptions, Hook, Labels, MountKind, NetworkDriver, Object, PersonRole, ServiceSpec, Tables,
    matches_pattern,
};
use proto::types::ObjectKind;

/// Source: docker CLI `cli/compose/convert`.
pub(crate) const STACK_LABEL: &str = "com.docker.stack.namespace";

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

fn is_one_of(patterns: &[String], stack: &str) -> bool {
    patterns.iter().any(|pattern| matches_pattern(pattern, stack))
}

/// What Docker gives every container. Source: moby `oci/caps/defaults.go`.
const USUAL_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Returns an error if containers of this service would reach beyond themselves into their host.
fn stays_off_hosts(spec: &ServiceSpec) -> Result<(), String> {
    let admin = |what: String| Err(format!("{what} reaches into the host: that takes role admin"));
    // Named one by one, so that a new field asks to be judged.
    let ContainerSpec {
        mounts,
        cap_add,
        privileged,
        oom_score_adj,
        host,
        post_start,
        pre_stop,
        // What stays inside: the process, its files from the swarm, and what only takes away.
        image: _,
        labels: _,
        command: _,
        args: _,
        env: _,
        hostname: _,
        working_dir: _,
        user: _,
        groups: _,
        tty: _,
        open_stdin: _,
        read_only: _,
        stop_signal: _,
        stop_grace_period: _,
        healthcheck: _,
        hosts: _,
        dns: _,
        secrets: _,
        configs: _,
        init: _,
        // Those of the container's own namespaces only, which is judged for everybody.
        sysctls: _,
        cap_drop: _,
        ulimits: _,
        no_new_privileges: _,
        shm_size_bytes: _,
    } = &spec.task.container;
    for mount in mounts {
        match &mount.kind {
            MountKind::Bind { source, .. } => return admin(format!("bind mount of {source}")),
            MountKind::Volume { driver, driver_opts, .. } => {
                if driver.as_deref().is_some_and(|d| !d.is_empty() && d != "local") || !driver_opts.is_empty() {
                    return admin(format!("volume at {} with a driver or its options", mount.target));
                }
            }
            MountKind::Tmpfs { .. } => {}
        }
    }
    if *privileged {
        return admin("privileged".to_owned());
    }
    let unusual = cap_add.iter().find(|cap| {
        let cap = cap.to_ascii_uppercase();
        !USUAL_CAPABILITIES.contains(&cap.strip_prefix("CAP_").unwrap_or(&cap))
    });
    if let Some(cap) = unusual {
        return admin(format!("capability {cap}"));
    }
    if *oom_score_adj < 0 {
        return admin("a negative oom_score_adj".to_owned());
    }
    if post_start.iter().chain(pre_stop).any(|Hook { privileged, .. }| *privileged) {
        return admin("a privileged hook".to_owned());
    }
    if let Some(driver) = &spec.task.log_driver
        && driver.options.values().any(|value| value.starts_with("unix"))
    {
        return admin("a log driver that writes to a socket".to_owned());
    }
    host.as_ref().map_or(Ok(()), |host| match host_option(host) {
        Some(option) => admin(option.to_owned()),
        None => Ok(()),
    })
}

/// Returns the option that a host would notice.
fn host_option(options: &HostOptions) -> Option<&'static str> {
    let HostOptions {
        devices,
        device_cgroup_rules,
        ipc,
        pid,
        uts,
        cgroup,
        cgroup_parent,
        runtime,
        security_opts,
        oom_kill_disable,
        domainname: _,
        annotations: _,
        // Shares of what the container may have.
        cpu_shares: _,
        cpu_period: _,
        cpu_quota: _,
        cpuset: _,
        memory_swap_bytes: _,
        memory_swappiness: _,
        blkio_weight: _,
    } = options;
    let own = |namespace: &Option<String>| {
        namespace.as_deref().is_none_or(|word| matches!(word, "" | "private" | "shareable" | "none"))
    };
    if !devices.is_empty() {
        return Some("a device");
    }
    if !device_cgroup_rules.is_empty() {
        return Some("a device cgroup rule");
    }
    let namespaces = [("ipc", ipc), ("pid", pid), ("uts", uts), ("cgroup", cgroup)];
    if let Some((name, _)) = namespaces.into_iter().find(|(_, word)| !own(word)) {
        return Some(name);
    }
    if cgroup_parent.as_deref().is_some_and(|p| !p.is_empty()) {
        return Some("cgroup_parent");
    }
    if runtime.as_deref().is_some_and(|r| !r.is_empty()) {
        return Some("runtime");
    }
    if !security_opts.is_empty() {
        return Some("security_opt");
    }
    oom_kill_disable.then_some("oom_kill_disable")
}

/// Returns an error if a service uses what belongs to stacks that none of the patterns match.
fn uses_its_own(patterns: &[String], view: &Tables, spec: &ServiceSpec) -> Result<(), String> {
    let networks = spec.task.networks.iter().filter_map(|n| view.networks.get(&n.network));
    for network in networks {
        if network.spec.driver != NetworkDriver::Overlay {
            return Err(format!("network {} reaches into the host: that takes role admin", network.spec.name));
        }
        // One of no stack is everybody's.
        let others = network.spec.labels.get(STACK_LABEL).filter(|stack| !is_one_of(patterns, stack));
        if let Some(stack) = others
            && !patterns.is_empty()
            && !network.spec.attachable
        {
            return Err(format!("network {} is of stack {stack}", network.spec.name));
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
        let own = name.split_once('_').is_some_and(|_| {
            let ends = name.match_indices('_').map(|(at, _)| &name[..at]);
            ends.into_iter().any(|stack| is_one_of(patterns, stack))
        });
        if !own {
            return Err(format!("volume {name} does not begin with the name of one of this user's stacks"));
        }
    }
    Ok(())
}
