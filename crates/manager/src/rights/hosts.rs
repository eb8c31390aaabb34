//! What of a service would reach beyond its containers into the hosts that run it: that takes an admin.

use model::{ContainerSpec, Hook, HostOptions, MountKind, ServiceSpec, confine::is_near};

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
pub(super) fn stays_off_hosts(spec: &ServiceSpec) -> Result<(), String> {
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
        ulimits,
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
        no_new_privileges: _,
        shm_size_bytes: _,
    } = &spec.task.container;
    for mount in mounts {
        match &mount.kind {
            MountKind::Bind { source, .. } => return admin(format!("bind mount of {source}")),
            MountKind::Volume { driver, driver_opts, .. } => {
                if driver.as_deref().is_some_and(|d| !d.is_empty() && d != "local") || !driver_opts.is_empty()
                {
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
    // A process with these comes before all of the host's own, on every processor.
    let comes_first = |name: &str| ["rtprio", "nice"].iter().any(|word| name.eq_ignore_ascii_case(word));
    if let Some(limit) = ulimits.iter().find(|limit| comes_first(&limit.name)) {
        return admin(format!("ulimit {}", limit.name));
    }
    if *oom_score_adj < 0 {
        return admin("a negative oom_score_adj".to_owned());
    }
    if post_start.iter().chain(pre_stop).any(|Hook { privileged, .. }| *privileged) {
        return admin("a privileged hook".to_owned());
    }
    if let Some(driver) = &spec.task.log_driver
        && let Some(address) = driver.options.values().find(|value| is_of_the_host(value))
    {
        return admin(format!("a log driver that writes to {address}"));
    }
    host.as_ref().map_or(Ok(()), |host| match host_option(host) {
        Some(option) => admin(option.to_owned()),
        None => Ok(()),
    })
}

/// Returns true for the address of a log service that only the host itself reaches: a socket of a file, or one that
/// listens on loopback. Names that mean such addresses are refused on the node, which looks them up.
fn is_of_the_host(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return false };
    if scheme.trim().to_ascii_lowercase().starts_with("unix") {
        return true;
    }
    let host = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => rest.split([':', '/']).next().unwrap_or_default(),
    };
    let lower = host.trim_end_matches('.').to_ascii_lowercase();
    lower == "localhost" || lower.ends_with(".localhost") || host.parse().is_ok_and(is_near)
}

/// Returns the option that a host would notice.
fn host_option(options: &HostOptions) -> Option<&'static str> {
    let HostOptions {
        devices,
        device_cgroup_rules,
        ipc,
        pid,
        uts,
        users,
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
    let namespaces = [("ipc", ipc), ("pid", pid), ("uts", uts), ("userns_mode", users), ("cgroup", cgroup)];
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
