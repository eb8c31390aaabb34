//! The container of a task: image, process, mounts, secrets.

use super::{Invalid, Result, duration, given, invalid, nanos, signed, unsigned};
use crate::types;
use model::{
    BindRecursion, ConfigId, ContainerSpec, DeviceMapping, DnsConfig, FileRef, Healthcheck, Hook,
    HostOptions, Mount, MountKind, SecretId, Ulimit, confine,
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
    if from.image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided");
    }
    if !matches!(from.isolation.as_str(), "" | "default") {
        return invalid(format!("ContainerSpec: isolation {:?} is not supported on Linux", from.isolation));
    }
    let privileges = privileges(from.privileges.unwrap_or_default())?;
    let dns = from.dns_config.unwrap_or_default();
    Ok(ContainerSpec {
        image: from.image,
        labels: from.labels,
        command: from.command,
        args: from.args,
        env: from.env,
        hostname: given(from.hostname),
        working_dir: given(from.dir),
        user: given(from.user),
        groups: from.groups,
        tty: from.tty,
        open_stdin: from.open_stdin,
        read_only: from.read_only,
        mounts: from.mounts.into_iter().map(mount).collect::<Result<_>>()?,
        stop_signal: given(from.stop_signal),
        stop_grace_period: from.stop_grace_period.map(|n| duration(n, "StopGracePeriod")).transpose()?,
        healthcheck: from.healthcheck.map(healthcheck).transpose()?,
        hosts: from.hosts,
        dns: DnsConfig {
            nameservers: dns
                .nameservers
                .iter()
                .map(|a| a.parse().map_err(|_| Invalid(format!("DNSConfig: invalid IP address: {a}"))))
                .collect::<Result<_>>()?,
            search: dns.search,
            options: dns.options,
        },
        secrets: from.secrets.into_iter().map(secret).collect::<Result<_>>()?,
        configs: from.configs.into_iter().map(config).collect::<Result<_>>()?,
        init: from.init,
        sysctls: from.sysctls,
        cap_add: from.capability_add,
        cap_drop: from.capability_drop,
        ulimits: from.ulimits.into_iter().map(ulimit).collect(),
        privileged: from.privileged,
        no_new_privileges: privileges.no_new_privileges,
        shm_size_bytes: (from.shm_size > 0).then_some(from.shm_size),
        oom_score_adj: confine::oom_score_adj("ContainerSpec.OomScoreAdj", from.oom_score_adj)
            .map_err(|e| Invalid(e.to_string()))?,
        host: from.host.map(host_options).filter(|host| *host != HostOptions::default()),
        post_start: from.post_start.into_iter().map(hook).collect(),
        pre_stop: from.pre_stop.into_iter().map(hook).collect(),
    })
}

/// Refuses what has no effect on a service's containers here.
fn privileges(from: types::Privileges) -> Result<types::Privileges> {
    let asks = |value: &Option<serde_json::Value>| value.as_ref().is_some_and(asks_for_something);
    for (name, given) in [
        ("CredentialSpec", asks(&from.credential_spec)),
        ("SELinuxContext", asks(&from.selinux_context)),
        ("Seccomp", asks(&from.seccomp)),
        ("AppArmor", asks(&from.apparmor)),
    ] {
        if given {
            return invalid(format!("ContainerSpec: Privileges.{name} is not supported"));
        }
    }
    Ok(from)
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
    Hook {
        command: from.command,
        user: given(from.user),
        privileged: from.privileged,
        working_dir: given(from.working_dir),
        env: from.env,
    }
}

fn hook_json(from: &Hook) -> types::Hook {
    types::Hook {
        command: from.command.clone(),
        user: from.user.clone().unwrap_or_default(),
        privileged: from.privileged,
        working_dir: from.working_dir.clone().unwrap_or_default(),
        env: from.env.clone(),
    }
}

fn host_options(from: types::HostOptions) -> HostOptions {
    let device = |d: types::Device| DeviceMapping {
        host_path: d.path_on_host,
        container_path: d.path_in_container,
        permissions: d.cgroup_permissions,
    };
    HostOptions {
        devices: from.devices.into_iter().map(device).collect(),
        device_cgroup_rules: from.device_cgroup_rules,
        ipc: given(from.ipc_mode),
        pid: given(from.pid_mode),
        uts: given(from.uts_mode),
        users: given(from.userns_mode),
        cgroup: given(from.cgroupns_mode),
        cgroup_parent: given(from.cgroup_parent),
        domainname: given(from.domainname),
        runtime: given(from.runtime),
        security_opts: from.security_opt,
        annotations: from.annotations,
        cpu_shares: from.cpu_shares,
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpuset: from.cpuset_cpus,
        memory_swap_bytes: from.memory_swap,
        memory_swappiness: from.memory_swappiness,
        blkio_weight: from.blkio_weight,
        oom_kill_disable: from.oom_kill_disable,
    }
}

fn host_options_json(from: &HostOptions) -> types::HostOptions {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let device = |d: &DeviceMapping| types::Device {
        path_on_host: d.host_path.clone(),
        path_in_container: d.container_path.clone(),
        cgroup_permissions: d.permissions.clone(),
    };
    types::HostOptions {
        devices: from.devices.iter().map(device).collect(),
        device_cgroup_rules: from.device_cgroup_rules.clone(),
        ipc_mode: text(&from.ipc),
        pid_mode: text(&from.pid),
        uts_mode: text(&from.uts),
        userns_mode: text(&from.users),
        cgroupns_mode: text(&from.cgroup),
        cgroup_parent: text(&from.cgroup_parent),
        domainname: text(&from.domainname),
        runtime: text(&from.runtime),
        security_opt: from.security_opts.clone(),
        annotations: from.annotations.clone(),
        cpu_shares: from.cpu_shares,
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpuset_cpus: from.cpuset.clone(),
        memory_swap: from.memory_swap_bytes,
        memory_swappiness: from.memory_swappiness,
        blkio_weight: from.blkio_weight,
        oom_kill_disable: from.oom_kill_disable,
    }
}

/// Writes what a task's container should be.
pub(super) fn container_spec_json(from: &ContainerSpec) -> types::ContainerSpec {
    let dns = &from.dns;
    types::ContainerSpec {
        image: from.image.clone(),
        labels: from.labels.clone(),
        command: from.command.clone(),
        args: from.args.clone(),
        hostname: from.hostname.clone().unwrap_or_default(),
        env: from.env.clone(),
        dir: from.working_dir.clone().unwrap_or_default(),
        user: from.user.clone().unwrap_or_default(),
        groups: from.groups.clone(),
        privileges: from
            .no_new_privileges
            .then(|| types::Privileges { no_new_privileges: true, ..types::Privileges::default() }),
        init: from.init,
        stop_signal: from.stop_signal.clone().unwrap_or_default(),
        tty: from.tty,
        open_stdin: from.open_stdin,
        read_only: from.read_only,
        mounts: from.mounts.iter().map(mount_json).collect(),
        stop_grace_period: from.stop_grace_period.map(nanos),
        healthcheck: from.healthcheck.as_ref().map(healthcheck_json),
        hosts: from.hosts.clone(),
        dns_config: (*dns != DnsConfig::default()).then(|| types::DnsConfig {
            nameservers: dns.nameservers.iter().map(ToString::to_string).collect(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        }),
        secrets: from
            .secrets
            .iter()
            .map(|s| types::SecretReference {
                file: Some(file_json(s)),
                secret_id: s.id.to_string(),
                secret_name: s.name.clone(),
            })
            .collect(),
        configs: from
            .configs
            .iter()
            .map(|c| types::ConfigReference {
                file: Some(file_json(c)),
                runtime: None,
                config_id: c.id.to_string(),
                config_name: c.name.clone(),
            })
            .collect(),
        isolation: "default".into(),
        sysctls: from.sysctls.clone(),
        capability_add: from.cap_add.clone(),
        capability_drop: from.cap_drop.clone(),
        ulimits: from.ulimits.iter().map(ulimit_json).collect(),
        oom_score_adj: i64::from(from.oom_score_adj),
        privileged: from.privileged,
        shm_size: from.shm_size_bytes.unwrap_or_default(),
        host: from.host.as_ref().map(host_options_json),
        post_start: from.post_start.iter().map(hook_json).collect(),
        pre_stop: from.pre_stop.iter().map(hook_json).collect(),
    }
}

fn mount(from: types::Mount) -> Result<Mount> {
    refuse_foreign_options(&from)?;
    // Of Docker on other systems; on Linux each of them is the same. *Source:* moby `daemon/cluster/convert`.
    if !matches!(
        from.consistency.to_ascii_lowercase().as_str(),
        "" | "default" | "consistent" | "cached" | "delegated"
    ) {
        return invalid(format!("invalid MountConsistency: {:?}", from.consistency));
    }
    let kind = match from.kind.as_str() {
        "bind" => {
            if from.source.is_empty() {
                return invalid("invalid mount config for type \"bind\": field Source must not be empty");
            }
            let options = from.bind_options.unwrap_or_default();
            MountKind::Bind {
                source: from.source,
                recursion: bind_recursion(&options, from.read_only)?,
                propagation: given(options.propagation),
                create: options.create_mountpoint,
            }
        }
        "" | "volume" => {
            let options = from.volume_options.unwrap_or_default();
            refuse_mount_option(&from.target, "Subpath", !options.subpath.is_empty())?;
            let driver = options.driver_config.unwrap_or_default();
            MountKind::Volume {
                name: given(from.source),
                driver: given(driver.name),
                driver_opts: driver.options,
                labels: options.labels,
                no_copy: options.no_copy,
            }
        }
        "tmpfs" => {
            let options = from.tmpfs_options.unwrap_or_default();
            refuse_mount_option(&from.target, "TmpfsOptions.Options", !options.options.is_empty())?;
            MountKind::Tmpfs {
                size_bytes: Some(unsigned(options.size_bytes, "SizeBytes")?).filter(|s| *s > 0),
                mode: Some(options.mode).filter(|m| *m > 0),
            }
        }
        other => return invalid(format!("invalid mount config: mount type {other:?} is not supported")),
    };
    Ok(Mount { kind, target: from.target, read_only: from.read_only })
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
    let mut to =
        types::Mount { target: from.target.clone(), read_only: from.read_only, ..types::Mount::default() };
    match &from.kind {
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
    let time = |nanos: i64, what: &str| -> Result<Option<model::Duration>> {
        if nanos != 0 && nanos < 1_000_000 {
            return invalid(format!("{what} in Healthcheck cannot be less than 1ms"));
        }
        Ok((nanos > 0).then(|| model::Duration::from_nanos(nanos.unsigned_abs())))
    };
    Ok(Healthcheck {
        interval: time(from.interval, "Interval")?,
        timeout: time(from.timeout, "Timeout")?,
        start_period: time(from.start_period, "StartPeriod")?,
        start_interval: time(from.start_interval, "StartInterval")?,
        retries: u32::try_from(from.retries)
            .map(|r| (r > 0).then_some(r))
            .map_err(|_| Invalid("Retries in Healthcheck cannot be negative".into()))?,
        test: from.test,
    })
}

pub(super) fn healthcheck_json(from: &Healthcheck) -> types::Health {
    let time = |d: Option<model::Duration>| d.map_or(0, nanos);
    types::Health {
        test: from.test.clone(),
        interval: time(from.interval),
        timeout: time(from.timeout),
        start_period: time(from.start_period),
        start_interval: time(from.start_interval),
        retries: from.retries.map_or(0, i64::from),
    }
}

fn secret(from: types::SecretReference) -> Result<FileRef<SecretId>> {
    let Some(file) = from.file else { return invalid("malformed secret reference") };
    let id = from.secret_id.parse().map_err(|_| Invalid(format!("secret {} not found", from.secret_id)))?;
    Ok(file_ref(id, from.secret_name, file))
}

fn config(from: types::ConfigReference) -> Result<FileRef<ConfigId>> {
    let Some(file) = from.file else {
        return invalid("malformed config reference: only configs that are mounted as files are supported");
    };
    let id = from.config_id.parse().map_err(|_| Invalid(format!("config {} not found", from.config_id)))?;
    Ok(file_ref(id, from.config_name, file))
}

fn file_ref<Id>(id: Id, name: String, file: types::FileTarget) -> FileRef<Id> {
    let or_root = |v: String| if v.is_empty() { "0".to_owned() } else { v };
    FileRef { id, name, target: file.name, uid: or_root(file.uid), gid: or_root(file.gid), mode: file.mode }
}

fn file_json<Id>(from: &FileRef<Id>) -> types::FileTarget {
    types::FileTarget {
        name: from.target.clone(),
        uid: from.uid.clone(),
        gid: from.gid.clone(),
        mode: from.mode,
    }
}
