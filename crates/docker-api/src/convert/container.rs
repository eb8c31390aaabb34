//! The container of a task: image, process, mounts, secrets.

use super::{Invalid, Result, duration, given, invalid, nanos, signed, unsigned};
use crate::types;
use model::{
    BindRecursion, ConfigId, ContainerSpec, DeviceMapping, DnsConfig, FileRef, Healthcheck, Hook,
    HostOptions, LogDriver, Mount, MountKind, ResourceRequirements, Resources, SecretId, Ulimit, Want,
    confine,
};

/// Reads a limit.
pub(crate) fn ulimit(from: types::Ulimit) -> Ulimit {
    let types::Ulimit { name, hard, soft } = from;
    Ulimit { name, soft, hard }
}

/// Writes a limit.
pub(crate) fn ulimit_json(from: &Ulimit) -> types::Ulimit {
    let Ulimit { name, soft, hard } = from;
    types::Ulimit { name: name.clone(), hard: *hard, soft: *soft }
}

/// Reads what a task's container should be.
pub fn container_spec(from: types::ContainerSpec) -> Result<ContainerSpec> {
    let types::ContainerSpec {
        image,
        labels,
        command,
        args,
        hostname,
        env,
        dir,
        user,
        groups,
        privileges,
        init,
        stop_signal,
        tty,
        open_stdin,
        read_only,
        mounts,
        stop_grace_period,
        healthcheck: check,
        hosts,
        dns_config,
        secrets,
        configs,
        isolation,
        sysctls,
        capability_add,
        capability_drop,
        ulimits,
        oom_score_adj,
        privileged,
        shm_size,
        host,
        post_start,
        pre_stop,
    } = from;
    if image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided");
    }
    if !matches!(isolation.as_str(), "" | "default") {
        return invalid(format!("ContainerSpec: isolation {isolation:?} is not supported on Linux"));
    }
    Ok(ContainerSpec {
        image,
        labels,
        command,
        args,
        env,
        hostname: given(hostname),
        working_dir: given(dir),
        user: given(user),
        groups,
        tty,
        open_stdin,
        read_only,
        mounts: mounts.into_iter().map(mount).collect::<Result<_>>()?,
        stop_signal: given(stop_signal),
        stop_grace_period: stop_grace_period.map(|n| duration(n, "StopGracePeriod")).transpose()?,
        healthcheck: check.map(healthcheck).transpose()?,
        hosts,
        dns: dns_config.map(dns).transpose()?.unwrap_or_default(),
        secrets: secrets.into_iter().map(secret).collect::<Result<_>>()?,
        configs: configs.into_iter().map(config).collect::<Result<_>>()?,
        init,
        sysctls,
        cap_add: capability_add,
        cap_drop: capability_drop,
        ulimits: ulimits.into_iter().map(ulimit).collect(),
        privileged,
        no_new_privileges: no_new_privileges(privileges.unwrap_or_default())?,
        shm_size_bytes: (shm_size > 0).then_some(shm_size),
        oom_score_adj: confine::oom_score_adj("ContainerSpec.OomScoreAdj", oom_score_adj)
            .map_err(|e| Invalid(e.to_string()))?,
        host: host.map(host_options).filter(|host| *host != HostOptions::default()),
        post_start: post_start.into_iter().map(hook).collect(),
        pre_stop: pre_stop.into_iter().map(hook).collect(),
    })
}

/// Reads whether its processes may gain privileges; refuses what has no effect on a service's containers here.
fn no_new_privileges(from: types::Privileges) -> Result<bool> {
    let types::Privileges { no_new_privileges, credential_spec, selinux_context, seccomp, apparmor } = from;
    for (name, given) in [
        ("CredentialSpec", credential_spec),
        ("SELinuxContext", selinux_context),
        ("Seccomp", seccomp),
        ("AppArmor", apparmor),
    ] {
        if given.as_ref().is_some_and(asks_for_something) {
            return invalid(format!("ContainerSpec: Privileges.{name} is not supported"));
        }
    }
    Ok(no_new_privileges)
}

fn dns(from: types::DnsConfig) -> Result<DnsConfig> {
    let types::DnsConfig { nameservers, search, options } = from;
    let address =
        |text: &String| text.parse().map_err(|_| Invalid(format!("DNSConfig: invalid IP address: {text}")));
    Ok(DnsConfig { nameservers: nameservers.iter().map(address).collect::<Result<_>>()?, search, options })
}

fn dns_json(from: &DnsConfig) -> types::DnsConfig {
    let DnsConfig { nameservers, search, options } = from;
    types::DnsConfig {
        nameservers: nameservers.iter().map(ToString::to_string).collect(),
        search: search.clone(),
        options: options.clone(),
    }
}

/// Tells whether there is more in a JSON value than defaults.
fn asks_for_something(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => false,
        serde_json::Value::Bool(true) | serde_json::Value::Number(_) => true,
        serde_json::Value::String(text) => !matches!(text.as_str(), "" | "default"),
        serde_json::Value::Array(items) => items.iter().any(asks_for_something),
        serde_json::Value::Object(fields) => fields.values().any(asks_for_something),
    }
}

fn hook(from: types::Hook) -> Hook {
    let types::Hook { command, user, privileged, working_dir, env } = from;
    Hook { command, user: given(user), privileged, working_dir: given(working_dir), env }
}

fn hook_json(from: &Hook) -> types::Hook {
    let Hook { command, user, privileged, working_dir, env } = from;
    types::Hook {
        command: command.clone(),
        user: user.clone().unwrap_or_default(),
        privileged: *privileged,
        working_dir: working_dir.clone().unwrap_or_default(),
        env: env.clone(),
    }
}

fn host_options(from: types::HostOptions) -> HostOptions {
    let types::HostOptions {
        devices,
        device_cgroup_rules,
        ipc_mode,
        pid_mode,
        uts_mode,
        userns_mode,
        cgroupns_mode,
        cgroup_parent,
        domainname,
        runtime,
        security_opt,
        annotations,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        memory_swap,
        memory_swappiness,
        blkio_weight,
        oom_kill_disable,
    } = from;
    let device = |from: types::Device| {
        let types::Device { path_on_host, path_in_container, cgroup_permissions } = from;
        DeviceMapping {
            host_path: path_on_host,
            container_path: path_in_container,
            permissions: cgroup_permissions,
        }
    };
    HostOptions {
        devices: devices.into_iter().map(device).collect(),
        device_cgroup_rules,
        ipc: given(ipc_mode),
        pid: given(pid_mode),
        uts: given(uts_mode),
        users: given(userns_mode),
        cgroup: given(cgroupns_mode),
        cgroup_parent: given(cgroup_parent),
        domainname: given(domainname),
        runtime: given(runtime),
        security_opts: security_opt,
        annotations,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset: cpuset_cpus,
        memory_swap_bytes: memory_swap,
        memory_swappiness,
        blkio_weight,
        oom_kill_disable,
    }
}

fn host_options_json(from: &HostOptions) -> types::HostOptions {
    let HostOptions {
        devices,
        device_cgroup_rules,
        ipc,
        pid,
        uts,
        users,
        cgroup,
        cgroup_parent,
        domainname,
        runtime,
        security_opts,
        annotations,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset,
        memory_swap_bytes,
        memory_swappiness,
        blkio_weight,
        oom_kill_disable,
    } = from;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let device = |from: &DeviceMapping| {
        let DeviceMapping { host_path, container_path, permissions } = from.clone();
        types::Device {
            path_on_host: host_path,
            path_in_container: container_path,
            cgroup_permissions: permissions,
        }
    };
    types::HostOptions {
        devices: devices.iter().map(device).collect(),
        device_cgroup_rules: device_cgroup_rules.clone(),
        ipc_mode: text(ipc),
        pid_mode: text(pid),
        uts_mode: text(uts),
        userns_mode: text(users),
        cgroupns_mode: text(cgroup),
        cgroup_parent: text(cgroup_parent),
        domainname: text(domainname),
        runtime: text(runtime),
        security_opt: security_opts.clone(),
        annotations: annotations.clone(),
        cpu_shares: *cpu_shares,
        cpu_period: *cpu_period,
        cpu_quota: *cpu_quota,
        cpuset_cpus: cpuset.clone(),
        memory_swap: *memory_swap_bytes,
        memory_swappiness: *memory_swappiness,
        blkio_weight: *blkio_weight,
        oom_kill_disable: *oom_kill_disable,
    }
}

/// Writes what a task's container should be.
pub(super) fn container_spec_json(from: &ContainerSpec) -> types::ContainerSpec {
    let ContainerSpec {
        image,
        labels,
        command,
        args,
        env,
        hostname,
        working_dir,
        user,
        groups,
        tty,
        open_stdin,
        read_only,
        mounts,
        stop_signal,
        stop_grace_period,
        healthcheck,
        hosts,
        dns: servers,
        secrets,
        configs,
        init,
        sysctls,
        cap_add,
        cap_drop,
        ulimits,
        privileged,
        no_new_privileges,
        shm_size_bytes,
        oom_score_adj,
        host,
        post_start,
        pre_stop,
    } = from;
    types::ContainerSpec {
        image: image.clone(),
        labels: labels.clone(),
        command: command.clone(),
        args: args.clone(),
        hostname: hostname.clone().unwrap_or_default(),
        env: env.clone(),
        dir: working_dir.clone().unwrap_or_default(),
        user: user.clone().unwrap_or_default(),
        groups: groups.clone(),
        privileges: no_new_privileges
            .then(|| types::Privileges { no_new_privileges: true, ..types::Privileges::default() }),
        init: *init,
        stop_signal: stop_signal.clone().unwrap_or_default(),
        tty: *tty,
        open_stdin: *open_stdin,
        read_only: *read_only,
        mounts: mounts.iter().map(mount_json).collect(),
        stop_grace_period: stop_grace_period.map(nanos),
        healthcheck: healthcheck.as_ref().map(healthcheck_json),
        hosts: hosts.clone(),
        dns_config: (*servers != DnsConfig::default()).then(|| dns_json(servers)),
        secrets: secrets.iter().map(secret_json).collect(),
        configs: configs.iter().map(config_json).collect(),
        isolation: "default".into(),
        sysctls: sysctls.clone(),
        capability_add: cap_add.clone(),
        capability_drop: cap_drop.clone(),
        ulimits: ulimits.iter().map(ulimit_json).collect(),
        oom_score_adj: i64::from(*oom_score_adj),
        privileged: *privileged,
        shm_size: shm_size_bytes.unwrap_or_default(),
        host: host.as_ref().map(host_options_json),
        post_start: post_start.iter().map(hook_json).collect(),
        pre_stop: pre_stop.iter().map(hook_json).collect(),
    }
}

/// Writes what a container by itself is that is to be as a service's: but for what knows of others (networks, ports,
/// names, other containers) and for secrets, configs and hooks, which somebody has to bring.
///
/// # Errors
/// For a number that has no room there.
pub fn container_alone(
    from: &ContainerSpec,
    resources: &ResourceRequirements,
    log: Option<&LogDriver>,
) -> Result<(types::ContainerConfig, types::HostConfig)> {
    let types::ContainerSpec {
        image,
        labels,
        command,
        args,
        hostname,
        env,
        dir,
        user,
        groups,
        privileges,
        init,
        stop_signal,
        tty,
        open_stdin,
        read_only,
        mounts,
        stop_grace_period,
        healthcheck,
        hosts,
        dns_config,
        secrets: _, // whose is to bring them
        configs: _,
        isolation: _, // there is one
        sysctls,
        capability_add,
        capability_drop,
        ulimits,
        oom_score_adj,
        privileged,
        shm_size,
        host,
        post_start: _, // whose is to run them
        pre_stop: _,
    } = container_spec_json(from);
    let types::HostOptions {
        devices,
        device_cgroup_rules,
        ipc_mode,
        pid_mode,
        uts_mode,
        userns_mode,
        cgroupns_mode,
        cgroup_parent,
        domainname,
        runtime,
        security_opt,
        annotations,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        memory_swap,
        memory_swappiness,
        blkio_weight,
        oom_kill_disable,
    } = host.unwrap_or_default();
    let ResourceRequirements { limits, reservations, generic } = resources;
    let Resources { cpu_nanos, memory_bytes, pids } = *limits;
    // CPUs of one host are not counted.
    let Resources { cpu_nanos: _, memory_bytes: memory_reserved, pids: _ } = *reservations;
    let types::DnsConfig { nameservers, search, options: dns_options } = dns_config.unwrap_or_default();
    let types::Privileges {
        no_new_privileges,
        credential_spec: _, // none of these is written
        selinux_context: _,
        seccomp: _,
        apparmor: _,
    } = privileges.unwrap_or_default();
    let number = |what: &str, n: u64| {
        i64::try_from(n).map_err(|_| Invalid(format!("invalid {what}: {n} is more than {}", i64::MAX)))
    };
    let words = |words: Vec<String>| some(words).map(types::StrSlice);
    let no_new = no_new_privileges.then(|| "no-new-privileges:true".to_owned());
    let config = types::ContainerConfig {
        hostname,
        domainname,
        user,
        tty,
        open_stdin,
        env,
        cmd: words(args),
        healthcheck,
        image,
        working_dir: dir,
        entrypoint: words(command),
        labels,
        stop_signal,
        stop_timeout: stop_grace_period.map(|nanos| nanos / 1_000_000_000),
        ..types::ContainerConfig::default()
    };
    let host = types::HostConfig {
        log_config: log.map_or_else(types::LogConfig::default, |LogDriver { name, options }| {
            types::LogConfig { kind: name.clone(), config: options.clone() }
        }),
        annotations,
        cap_add: words(capability_add),
        cap_drop: words(capability_drop),
        cgroupns_mode,
        dns: nameservers,
        dns_options,
        dns_search: search,
        extra_hosts: some(hosts.iter().flat_map(|line| extra_hosts(line)).collect()),
        group_add: some(groups),
        ipc_mode,
        oom_score_adj: confine::oom_score_adj("OomScoreAdj", oom_score_adj)
            .map_err(|unfit| Invalid(unfit.to_string()))?,
        pid_mode,
        privileged,
        readonly_rootfs: read_only,
        security_opt: some(security_opt.into_iter().chain(no_new).collect()),
        uts_mode,
        userns_mode,
        shm_size: number("ShmSize", shm_size)?,
        sysctls,
        runtime,
        resources: types::ContainerResources {
            cpu_shares: number("CpuShares", cpu_shares)?,
            memory: number("Memory", memory_bytes)?,
            nano_cpus: number("NanoCpus", cpu_nanos)?,
            cgroup_parent,
            blkio_weight: u16::try_from(blkio_weight)
                .map_err(|_| Invalid(format!("invalid BlkioWeight: {blkio_weight} is more than 1000")))?,
            cpu_period: number("CpuPeriod", cpu_period)?,
            cpu_quota,
            cpuset_cpus,
            devices,
            device_cgroup_rules: some(device_cgroup_rules),
            device_requests: some(generic.iter().map(device_request).collect()),
            memory_reservation: number("MemoryReservation", memory_reserved)?,
            memory_swap,
            memory_swappiness: memory_swappiness.map(i64::from),
            oom_kill_disable: oom_kill_disable.then_some(true),
            pids_limit: Some(number("PidsLimit", pids)?).filter(|limit| *limit != 0),
            ulimits: some(ulimits),
            ..types::ContainerResources::default()
        },
        mounts,
        init,
        ..types::HostConfig::default()
    };
    Ok((config, host))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// `IP host..` of a service is `host:IP` of a container.
fn extra_hosts(line: &str) -> impl Iterator<Item = String> + '_ {
    let mut words = line.split_whitespace();
    let ip = words.next().unwrap_or_default();
    words.map(move |host| format!("{host}:{ip}"))
}

/// What a service has for itself alone of vendors' devices a container only shares.
fn device_request((kind, want): (&String, &Want)) -> types::DeviceRequest {
    let (count, ids) = match want {
        Want::Count(n) => (signed(*n), None),
        Want::All => (-1, None),
        Want::These(names) => (0, Some(names)),
        Want::TheseAndMore { names, more } => (signed(*more), Some(names)),
    };
    let (vendor, class) = kind.split_once('/').unwrap_or(("", kind));
    types::DeviceRequest {
        // Docker knows the vendors that it knows by their short names.
        driver: vendor.strip_suffix(".com").unwrap_or(vendor).to_owned(),
        count,
        device_ids: ids.map(|ids| ids.iter().cloned().collect()),
        capabilities: Some(vec![vec![class.to_owned()]]),
        options: None,
    }
}

fn mount(from: types::Mount) -> Result<Mount> {
    refuse_foreign_options(&from)?;
    let types::Mount {
        kind,
        source,
        target,
        read_only,
        consistency,
        bind_options,
        volume_options,
        tmpfs_options,
        image_options: _, // of a kind that is refused
    } = from;
    // Of Docker on other systems; on Linux each of them is the same. *Source:* moby `daemon/cluster/convert`.
    if !matches!(
        consistency.to_ascii_lowercase().as_str(),
        "" | "default" | "consistent" | "cached" | "delegated"
    ) {
        return invalid(format!("invalid MountConsistency: {consistency:?}"));
    }
    let kind = match kind.as_str() {
        "bind" => {
            if source.is_empty() {
                return invalid("invalid mount config for type \"bind\": field Source must not be empty");
            }
            let options = bind_options.unwrap_or_default();
            let recursion = bind_recursion(&options, read_only)?;
            let types::BindOptions {
                propagation,
                create_mountpoint: create,
                non_recursive: _, // `recursion`
                read_only_non_recursive: _,
                read_only_force_recursive: _,
            } = options;
            MountKind::Bind { source, recursion, propagation: given(propagation), create }
        }
        "" | "volume" => {
            let types::VolumeOptions { no_copy, labels, subpath, driver_config } =
                volume_options.unwrap_or_default();
            refuse_mount_option(&target, "Subpath", !subpath.is_empty())?;
            let types::DriverState { name: driver, options: driver_opts } = driver_config.unwrap_or_default();
            MountKind::Volume { name: given(source), driver: given(driver), driver_opts, labels, no_copy }
        }
        "tmpfs" => {
            let types::TmpfsOptions { size_bytes, mode, options } = tmpfs_options.unwrap_or_default();
            refuse_mount_option(&target, "TmpfsOptions.Options", !options.is_empty())?;
            MountKind::Tmpfs {
                size_bytes: Some(unsigned(size_bytes, "SizeBytes")?).filter(|s| *s > 0),
                mode: Some(mode).filter(|m| *m > 0),
            }
        }
        other => return invalid(format!("invalid mount config: mount type {other:?} is not supported")),
    };
    Ok(Mount { kind, target, read_only })
}

/// Refuses options of another kind of mount than this one, which could have no effect. *Source:* moby
/// `volume/mounts/linux_parser.go`, `validateMountConfigImpl`.
///
/// # Errors
/// In Docker's words.
pub(crate) fn refuse_foreign_options(from: &types::Mount) -> Result<()> {
    let kind = if from.kind.is_empty() { "volume" } else { from.kind.as_str() };
    for (field, of, given) in [
        ("BindOptions", "bind", from.bind_options.is_some()),
        ("VolumeOptions", "volume", from.volume_options.is_some()),
        ("TmpfsOptions", "tmpfs", from.tmpfs_options.is_some()),
        ("ImageOptions", "image", from.image_options.is_some()),
    ] {
        if given && of != kind {
            return invalid(format!(
                "invalid mount config for type \"{kind}\": field {field} must not be specified"
            ));
        }
    }
    if kind == "image" && from.source.is_empty() {
        return invalid("invalid mount config for type \"image\": field Source must not be empty");
    }
    if kind == "tmpfs" && !from.source.is_empty() {
        return invalid("invalid mount config for type \"tmpfs\": field Source must not be specified");
    }
    Ok(())
}

/// Reads what becomes of the mounts below a bind mount's source.
///
/// # Errors
/// For a way to be read-only of a mount that is not, and for two ways at once. *Source:* moby
/// `volume/mounts/linux_parser.go`.
pub(crate) fn bind_recursion(from: &types::BindOptions, read_only: bool) -> Result<BindRecursion> {
    let (shallow, force) = (from.read_only_non_recursive, from.read_only_force_recursive);
    let conflict = |with: &str| {
        invalid(format!("invalid mount config for type \"bind\": mount options conflict: {with}"))
    };
    match (from.non_recursive, shallow, force) {
        (_, true, true) => conflict("ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"),
        (_, true, _) if !read_only => conflict("!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        (_, _, true) if !read_only => conflict("!ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        (true, true, _) => conflict("NonRecursive && BindOptions.ReadOnlyNonRecursive"),
        (true, _, true) => conflict("NonRecursive && BindOptions.ReadOnlyForceRecursive"),
        (true, false, false) => Ok(BindRecursion::Disabled),
        (false, true, false) => Ok(BindRecursion::Writable),
        (false, false, true) => Ok(BindRecursion::ReadOnly),
        (false, false, false) => Ok(BindRecursion::Enabled),
    }
}

/// Writes it.
pub(crate) fn bind_recursion_json(from: BindRecursion, to: types::BindOptions) -> types::BindOptions {
    types::BindOptions {
        non_recursive: from == BindRecursion::Disabled,
        read_only_non_recursive: from == BindRecursion::Writable,
        read_only_force_recursive: from == BindRecursion::ReadOnly,
        ..to
    }
}

fn refuse_mount_option(target: &str, name: &str, given: bool) -> Result<()> {
    if given {
        return invalid(format!("mount {target}: option {name} is not supported in services"));
    }
    Ok(())
}

fn mount_json(from: &Mount) -> types::Mount {
    let Mount { kind, target, read_only } = from;
    let mut to = types::Mount { target: target.clone(), read_only: *read_only, ..types::Mount::default() };
    match kind {
        MountKind::Bind { source, propagation, create, recursion } => {
            to.kind = "bind".into();
            to.source = source.clone();
            let options = types::BindOptions {
                propagation: propagation.clone().unwrap_or_default(),
                create_mountpoint: *create,
                ..types::BindOptions::default()
            };
            let options = bind_recursion_json(*recursion, options);
            to.bind_options = Some(options).filter(|options| *options != types::BindOptions::default());
        }
        MountKind::Volume { name, driver, driver_opts, labels, no_copy } => {
            to.kind = "volume".into();
            to.source = name.clone().unwrap_or_default();
            let driver_config = (driver.is_some() || !driver_opts.is_empty()).then(|| types::DriverState {
                name: driver.clone().unwrap_or_default(),
                options: driver_opts.clone(),
            });
            if driver_config.is_some() || !labels.is_empty() || *no_copy {
                to.volume_options = Some(types::VolumeOptions {
                    no_copy: *no_copy,
                    labels: labels.clone(),
                    subpath: String::new(),
                    driver_config,
                });
            }
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            to.kind = "tmpfs".into();
            if size_bytes.is_some() || mode.is_some() {
                to.tmpfs_options = Some(types::TmpfsOptions {
                    size_bytes: signed(size_bytes.unwrap_or_default()),
                    mode: mode.unwrap_or_default(),
                    options: Vec::new(),
                });
            }
        }
    }
    to
}

/// Reads a healthcheck, of a task or of a container by itself.
pub fn healthcheck(from: types::Health) -> Result<Healthcheck> {
    let types::Health { test, interval, timeout, start_period, start_interval, retries } = from;
    let time = |nanos: i64, what: &str| -> Result<Option<model::Duration>> {
        if nanos != 0 && nanos < 1_000_000 {
            return invalid(format!("{what} in Healthcheck cannot be less than 1ms"));
        }
        Ok((nanos > 0).then(|| model::Duration::from_nanos(nanos.unsigned_abs())))
    };
    Ok(Healthcheck {
        interval: time(interval, "Interval")?,
        timeout: time(timeout, "Timeout")?,
        start_period: time(start_period, "StartPeriod")?,
        start_interval: time(start_interval, "StartInterval")?,
        retries: match u32::try_from(retries) {
            Ok(retries) => (retries > 0).then_some(retries),
            Err(_) if retries < 0 => return invalid("Retries in Healthcheck cannot be negative"),
            Err(_) => return invalid(format!("Retries in Healthcheck cannot be more than {}", u32::MAX)),
        },
        test,
    })
}

pub(super) fn healthcheck_json(from: &Healthcheck) -> types::Health {
    let Healthcheck { test, interval, timeout, start_period, start_interval, retries } = from;
    let time = |d: Option<model::Duration>| d.map_or(0, nanos);
    types::Health {
        test: test.clone(),
        interval: time(*interval),
        timeout: time(*timeout),
        start_period: time(*start_period),
        start_interval: time(*start_interval),
        retries: retries.map_or(0, i64::from),
    }
}

fn secret(from: types::SecretReference) -> Result<FileRef<SecretId>> {
    let types::SecretReference { file, secret_id, secret_name } = from;
    let Some(file) = file else { return invalid("malformed secret reference") };
    let id = secret_id.parse().map_err(|_| Invalid(format!("secret {secret_id} not found")))?;
    Ok(file_ref(id, secret_name, file))
}

fn secret_json(from: &FileRef<SecretId>) -> types::SecretReference {
    let (id, name, file) = file_json(from);
    types::SecretReference { file: Some(file), secret_id: id, secret_name: name }
}

fn config(from: types::ConfigReference) -> Result<FileRef<ConfigId>> {
    let types::ConfigReference { file, runtime, config_id, config_name } = from;
    let (Some(file), None) = (file, runtime) else {
        return invalid("malformed config reference: only configs that are mounted as files are supported");
    };
    let id = config_id.parse().map_err(|_| Invalid(format!("config {config_id} not found")))?;
    Ok(file_ref(id, config_name, file))
}

fn config_json(from: &FileRef<ConfigId>) -> types::ConfigReference {
    let (id, name, file) = file_json(from);
    types::ConfigReference { file: Some(file), runtime: None, config_id: id, config_name: name }
}

fn file_ref<Id>(id: Id, name: String, file: types::FileTarget) -> FileRef<Id> {
    let types::FileTarget { name: target, uid, gid, mode } = file;
    let or_root = |v: String| if v.is_empty() { "0".to_owned() } else { v };
    FileRef { id, name, target, uid: or_root(uid), gid: or_root(gid), mode }
}

/// Returns id, name, and how a container sees it.
fn file_json<Id: ToString>(from: &FileRef<Id>) -> (String, String, types::FileTarget) {
    let FileRef { id, name, target, uid, gid, mode } = from;
    let file = types::FileTarget { name: target.clone(), uid: uid.clone(), gid: gid.clone(), mode: *mode };
    (id.to_string(), name.clone(), file)
}
