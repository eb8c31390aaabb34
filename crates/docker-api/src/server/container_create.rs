//! `POST /containers/create`: Docker's JSON to what the engine takes. What the engine cannot do is refused by
//! name, never dropped.

use super::ApiError;
use crate::{
    convert::{self, bind_recursion, refuse_foreign_options},
    types,
};
use engine::{
    ContainerConfig, Device, DeviceRequest, EndpointConfig, Healthcheck, HostConfig, LogConfig, Mount,
    MountKind, NetworkMode, Port, PortBinding, Resources,
};
use model::{ContainerRestart, Duration, confine};
use std::{collections::BTreeMap, net::IpAddr};

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::bad_request(text)
}

fn unsigned(what: &str, value: i64) -> Result<u64, ApiError> {
    u64::try_from(value).map_err(|_| bad(format!("{what} must not be negative")))
}

fn parse<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| bad(format!("invalid {what}: {text:?}")))
}

fn addresses(what: &str, texts: &[String]) -> Result<Vec<IpAddr>, ApiError> {
    texts.iter().map(|t| parse(what, t)).collect()
}

/// Refuses a request for a container of nothing.
/// *Source:* moby `daemon/internal/runconfig/config.go`, `decodeCreateRequest`, and `daemon/create.go`, `mergeAndVerifyConfig`.
pub(super) fn not_of_nothing(config: &types::ContainerConfig) -> Result<(), ApiError> {
    if *config == types::ContainerConfig::default() {
        return Err(bad("config cannot be empty in order to create a container"));
    }
    let has_program = config.cmd.as_ref().is_some_and(|cmd| !cmd.0.is_empty());
    if config.image.is_empty() && !has_program && config.entrypoint.is_none() {
        return Err(bad("no command specified"));
    }
    Ok(())
}

/// Reads a whole request.
///
/// # Errors
/// 400 for what means nothing, 501 for what the engine cannot do; both name the field.
pub(super) fn container_config(
    name: Option<&str>,
    request: types::ContainerCreate,
) -> Result<ContainerConfig, ApiError> {
    let types::ContainerCreate { config, host_config, networking_config } = request;
    let types::ContainerConfig {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports,
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck: check,
        image,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        mac_address,
        labels,
        stop_signal,
        stop_timeout,
        on_build: _, // of images
        shell: _,
    } = config;
    let stop_timeout = match stop_timeout {
        Some(seconds) if seconds < 0 => Some(Duration::MAX),
        Some(seconds) => Some(Duration::from_secs(unsigned("StopTimeout", seconds)?)),
        None => None,
    };
    let endpoints = networking_config.unwrap_or_default().endpoints_config;
    let endpoints = endpoints
        .into_iter()
        .map(|(network, settings)| Ok((network, endpoint(settings.unwrap_or_default())?)));
    let mut endpoints = endpoints.collect::<Result<BTreeMap<_, _>, ApiError>>()?;
    let mut host = host(host_config.unwrap_or_default())?;
    if network_disabled {
        host.network_mode = NetworkMode::None;
    }
    if let Some(mac) = given(mac_address) {
        // Before API 1.44 there was one for the container: that of its first network.
        let first = match &host.network_mode {
            NetworkMode::Named(name) => name.clone(),
            _ if endpoints.contains_key("default") => "default".to_owned(),
            _ => "bridge".to_owned(),
        };
        endpoints.entry(first).or_default().mac_address.get_or_insert(mac);
    }
    Ok(ContainerConfig {
        name: name.map(|n| n.strip_prefix('/').filter(|bare| !bare.is_empty()).unwrap_or(n).to_owned()),
        image,
        cmd: cmd.map(|c| c.0),
        entrypoint: entrypoint.map(|e| e.0),
        env,
        user: given(user),
        working_dir: given(working_dir),
        hostname: given(hostname),
        domainname: given(domainname),
        labels,
        tty,
        open_stdin,
        stdin_once,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        stop_signal: given(stop_signal),
        stop_timeout,
        healthcheck: check.map(healthcheck).transpose()?,
        exposed_ports: exposed_ports.keys().map(|p| parse("port", p)).collect::<Result<_, _>>()?,
        volumes: volumes.unwrap_or_default().into_keys().collect(),
        host,
        endpoints,
    })
}

pub(super) fn endpoint(settings: types::EndpointSettings) -> Result<EndpointConfig, ApiError> {
    let types::EndpointSettings {
        ipam_config,
        links,
        aliases,
        mac_address,
        driver_opts,
        gw_priority,
        network_id: _, // what only answers say
        endpoint_id: _,
        gateway: _,
        ip_address: _,
        ip_prefix_len: _,
        ipv6_gateway: _,
        global_ipv6_address: _,
        global_ipv6_prefix_len: _,
        dns_names: _,
    } = settings;
    let types::EndpointIpam { ipv4_address, ipv6_address, link_local_ips } = ipam_config.unwrap_or_default();
    let link_local = link_local_ips.iter().map(|text| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Ok(address),
        // An interface has one of its own, which others find it by.
        Ok(IpAddr::V6(_)) => Err(ApiError::not_implemented(format!(
            "EndpointSettings.IPAMConfig.LinkLocalIPs of IPv6 are not supported: {text}"
        ))),
        Err(_) => Err(bad(format!("invalid link-local IP address: {text}"))),
    });
    Ok(EndpointConfig {
        aliases: aliases.unwrap_or_default(),
        ipv4_address: given(ipv4_address).map(|t| parse("IPv4 address", &t)).transpose()?,
        ipv6_address: given(ipv6_address).map(|t| parse("IPv6 address", &t)).transpose()?,
        mac_address: given(mac_address),
        links: links.unwrap_or_default(),
        gateway_priority: gw_priority,
        driver_opts: driver_opts.unwrap_or_default(),
        link_local: link_local.collect::<Result<_, _>>()?,
    })
}

fn healthcheck(from: types::Health) -> Result<Healthcheck, ApiError> {
    let model::Healthcheck { test, interval, timeout, start_period, start_interval, retries } =
        convert::healthcheck(from)?;
    Ok(Healthcheck { test, interval, timeout, start_period, start_interval, retries })
}

fn host(from: types::HostConfig) -> Result<HostConfig, ApiError> {
    let types::HostConfig {
        binds,
        log_config,
        network_mode,
        port_bindings: ports,
        restart_policy: policy,
        auto_remove,
        volume_driver,
        volumes_from,
        console_size: console,
        annotations,
        cap_add,
        cap_drop,
        cgroupns_mode,
        dns,
        dns_options,
        dns_search,
        extra_hosts,
        group_add,
        ipc_mode,
        cgroup,
        links,
        oom_score_adj,
        pid_mode,
        privileged,
        publish_all_ports,
        readonly_rootfs,
        security_opt,
        storage_opt,
        tmpfs,
        uts_mode,
        userns_mode,
        shm_size,
        sysctls,
        runtime,
        isolation,
        resources: limits,
        mounts,
        masked_paths,
        readonly_paths,
        init,
        container_id_file: _, // the client's own
    } = from;
    let resources = resources(&limits)?;
    let types::ContainerResources {
        cpu_shares: _, // `resources`
        memory: _,
        nano_cpus: _,
        blkio_weight: _,
        cpu_period: _,
        cpu_quota: _,
        cpuset_cpus: _,
        cpuset_mems: _,
        cpu_realtime_period: _,
        cpu_realtime_runtime: _,
        memory_reservation: _,
        memory_swap: _,
        memory_swappiness: _,
        oom_kill_disable: _,
        pids_limit: _,
        cgroup_parent,
        devices,
        device_cgroup_rules,
        device_requests,
        ulimits,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_count,
        cpu_percent,
        io_maximum_iops,
        io_maximum_bandwidth,
    } = limits;
    let listed = |list: Option<Vec<serde_json::Value>>| list.is_some_and(|l| !l.is_empty());
    let refused = [
        ("HostConfig.StorageOpt", !storage_opt.is_empty()),
        ("HostConfig.Cgroup", !cgroup.is_empty()),
        ("HostConfig.CpuCount", cpu_count != 0),
        ("HostConfig.CpuPercent", cpu_percent != 0),
        ("HostConfig.IOMaximumIOps", io_maximum_iops != 0),
        ("HostConfig.IOMaximumBandwidth", io_maximum_bandwidth != 0),
        ("HostConfig.BlkioWeightDevice", !blkio_weight_device.is_empty()),
        ("HostConfig.BlkioDeviceReadBps", listed(blkio_device_read_bps)),
        ("HostConfig.BlkioDeviceWriteBps", listed(blkio_device_write_bps)),
        ("HostConfig.BlkioDeviceReadIOps", listed(blkio_device_read_iops)),
        ("HostConfig.BlkioDeviceWriteIOps", listed(blkio_device_write_iops)),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, asked)| *asked) {
        return Err(ApiError::not_implemented(format!("{field} is not supported")));
    }
    let restart = restart_policy(&policy)?;
    let types::LogConfig { kind: driver, config: options } = log_config;
    Ok(HostConfig {
        binds: binds.unwrap_or_default(),
        mounts: mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        volumes_from: volumes_from.unwrap_or_default(),
        tmpfs,
        port_bindings: port_bindings(&ports)?,
        publish_all_ports,
        network_mode: NetworkMode::from(network_mode.as_str()),
        dns: addresses("Dns", &dns)?,
        dns_search,
        dns_options,
        extra_hosts: extra_hosts.unwrap_or_default(),
        links: links.unwrap_or_default(),
        cap_add: cap_add.map(|c| c.0).unwrap_or_default(),
        cap_drop: cap_drop.map(|c| c.0).unwrap_or_default(),
        privileged,
        read_only: readonly_rootfs,
        init,
        ulimits: ulimits.unwrap_or_default().into_iter().map(convert::ulimit).collect(),
        sysctls,
        devices: devices.into_iter().map(device).collect(),
        device_cgroup_rules: device_cgroup_rules.unwrap_or_default(),
        device_requests: device_requests
            .unwrap_or_default()
            .into_iter()
            .map(device_request)
            .collect::<Result<_, _>>()?,
        resources,
        restart,
        auto_remove,
        log: LogConfig { driver, options },
        shm_size_bytes: Some(
            u64::try_from(shm_size).map_err(|_| bad("invalid ShmSize: SHM size can not be less than 0"))?,
        )
        .filter(|size| *size > 0),
        oom_score_adj,
        security_opts: security_opt.unwrap_or_default(),
        group_add: group_add.unwrap_or_default(),
        pid_mode,
        ipc_mode,
        uts_mode,
        userns_mode,
        cgroupns_mode,
        cgroup_parent: given(cgroup_parent),
        runtime: given(runtime),
        console_size: console_size(console)?,
        isolation,
        volume_driver,
        masked_paths,
        readonly_paths,
        annotations,
        // What only the engine's own callers ask for.
        swarm: None,
        files: Vec::new(),
        build: None,
    })
}

/// Docker's rows and columns; 0 and 0 are "not given".
fn console_size([rows, columns]: [u32; 2]) -> Result<Option<(u16, u16)>, ApiError> {
    let cells = |n: u32| {
        u16::try_from(n).map_err(|_| bad(format!("invalid ConsoleSize: {n} is more than {}", u16::MAX)))
    };
    Ok(Some((cells(rows)?, cells(columns)?)).filter(|size| *size != (0, 0)))
}

fn device_request(from: types::DeviceRequest) -> Result<DeviceRequest, ApiError> {
    let types::DeviceRequest { driver, count, device_ids, capabilities, options } = from;
    let device_ids = device_ids.unwrap_or_default();
    if count != 0 && !device_ids.is_empty() {
        return Err(bad("cannot set both Count and DeviceIDs on device request"));
    }
    if options.is_some_and(|options| !options.is_empty()) {
        return Err(ApiError::not_implemented("HostConfig.DeviceRequests.Options is not supported"));
    }
    Ok(DeviceRequest { driver, count, device_ids, capabilities: capabilities.unwrap_or_default() })
}

fn device(from: types::Device) -> Device {
    let types::Device { path_on_host, path_in_container, cgroup_permissions } = from;
    Device { host_path: path_on_host, container_path: path_in_container, permissions: cgroup_permissions }
}

/// Reads Docker's limits.
///
/// # Errors
/// 400 for a negative one.
pub(super) fn resources(from: &types::ContainerResources) -> Result<Resources, ApiError> {
    let types::ContainerResources {
        cpu_shares,
        memory,
        nano_cpus,
        blkio_weight,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        cpu_realtime_period,
        cpu_realtime_runtime,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        oom_kill_disable,
        pids_limit,
        // `host`
        cgroup_parent: _,
        devices: _,
        device_cgroup_rules: _,
        device_requests: _,
        ulimits: _,
        blkio_weight_device: _,
        blkio_device_read_bps: _,
        blkio_device_write_bps: _,
        blkio_device_read_iops: _,
        blkio_device_write_iops: _,
        cpu_count: _,
        cpu_percent: _,
        io_maximum_iops: _,
        io_maximum_bandwidth: _,
    } = from;
    Ok(Resources {
        cpu_nanos: unsigned("NanoCpus", *nano_cpus)?,
        cpu_shares: unsigned("CpuShares", *cpu_shares)?,
        cpu_period: unsigned("CpuPeriod", *cpu_period)?,
        cpu_quota: *cpu_quota,
        cpu_realtime_period: unsigned("CpuRealtimePeriod", *cpu_realtime_period)?,
        cpu_realtime_runtime: *cpu_realtime_runtime,
        cpuset_cpus: cpuset_cpus.clone(),
        cpuset_mems: cpuset_mems.clone(),
        memory_bytes: unsigned("Memory", *memory)?,
        memory_reservation_bytes: unsigned("MemoryReservation", *memory_reservation)?,
        memory_swap_bytes: *memory_swap,
        memory_swappiness: confine::memory_swappiness("MemorySwappiness", *memory_swappiness)
            .map_err(|unfit| bad(unfit.to_string()))?,
        pids_limit: *pids_limit,
        blkio_weight: *blkio_weight,
        oom_kill_disable: oom_kill_disable.unwrap_or(false),
    })
}

fn restart_policy(from: &types::RestartPolicy) -> Result<ContainerRestart, ApiError> {
    let types::RestartPolicy { name, maximum_retry_count } = from;
    ContainerRestart::read(name, *maximum_retry_count).map_err(|unfit| bad(unfit.to_string()))
}

/// Reads what an update changes.
///
/// # Errors
/// 400 for what means nothing.
pub(super) fn update(from: types::ContainerUpdate) -> Result<engine::Update, ApiError> {
    let types::ContainerUpdate { resources: limits, restart_policy: policy } = from;
    // Docker's CLI sends a policy without a name when none is to be changed.
    let named = policy.filter(|policy| !policy.name.is_empty());
    let restart = named.as_ref().map(restart_policy).transpose()?;
    Ok(engine::Update { resources: resources(&limits)?, restart })
}

/// Reads `{"80/tcp": [{"HostIp", "HostPort"}]}`; a host port may be a range, of which the first free one is taken when
/// the container starts.
fn port_bindings(
    from: &BTreeMap<String, Option<Vec<types::PortBinding>>>,
) -> Result<Vec<PortBinding>, ApiError> {
    let mut all = Vec::new();
    for (port, bindings) in from {
        let container: Port = parse("port", port)?;
        for binding in bindings.iter().flatten() {
            let types::PortBinding { host_ip, host_port: ports } = binding;
            let read = |text: &str| parse::<u16>("port specification", text);
            let (host_port, last_port) = match ports.split_once('-') {
                Some((first, last)) => (Some(read(first)?), Some(read(last)?)),
                None if matches!(ports.as_str(), "" | "0") => (None, None),
                None => (Some(read(ports)?), None),
            };
            if last_port.is_some() && (last_port < host_port || host_port == Some(0)) {
                return Err(bad(format!("invalid port specification: {ports:?}")));
            }
            let last_port = last_port.filter(|last| Some(*last) != host_port);
            let host_ip = given(host_ip.clone()).map(|t| parse("host IP", &t)).transpose()?;
            all.push(PortBinding { container, host_ip, host_port, last_port });
        }
    }
    Ok(all)
}

fn mount(from: types::Mount) -> Result<Mount, ApiError> {
    refuse_foreign_options(&from)?;
    let types::Mount {
        kind,
        source,
        target,
        read_only,
        consistency: _, // Docker, too, takes any here: it is other systems' business
        bind_options,
        volume_options,
        tmpfs_options,
        image_options,
    } = from;
    let kind = match kind.as_str() {
        "bind" => {
            let options = bind_options.unwrap_or_default();
            let recursion = bind_recursion(&options, read_only)?;
            let types::BindOptions {
                propagation,
                create_mountpoint: create,
                non_recursive: _, // `recursion`
                read_only_non_recursive: _,
                read_only_force_recursive: _,
            } = options;
            MountKind::Bind { source, recursion, propagation: given(propagation), create, idmap: false }
        }
        "volume" | "" => {
            let types::VolumeOptions { no_copy, labels, subpath, driver_config } =
                volume_options.unwrap_or_default();
            let types::DriverState { name: driver, options: driver_opts } = driver_config.unwrap_or_default();
            MountKind::Volume {
                name: given(source),
                driver: given(driver),
                driver_opts,
                labels,
                no_copy,
                subpath: given(subpath),
            }
        }
        "tmpfs" => {
            let types::TmpfsOptions { size_bytes, mode, options } = tmpfs_options.unwrap_or_default();
            if !options.is_empty() {
                return Err(ApiError::not_implemented("Mounts.TmpfsOptions.Options is not supported"));
            }
            MountKind::Tmpfs {
                size_bytes: Some(unsigned("TmpfsOptions.SizeBytes", size_bytes)?).filter(|s| *s > 0),
                mode: Some(mode).filter(|m| *m > 0),
            }
        }
        "image" => {
            let types::ImageOptions { subpath } = image_options.unwrap_or_default();
            MountKind::Image { reference: source, subpath: given(subpath) }
        }
        other => return Err(bad(format!("mount type unknown: {other:?}"))),
    };
    Ok(Mount { target, read_only, kind })
}

/// Which gate judges each key of a request that makes a container. `engine`: `engine::ask::gate`, whose own table is by the
/// compiler; `here`: this file; `type`: any value of its type is harmless or read by a parser; `refused`: not supported;
/// `client`: not the daemon's business, kept and shown at most.
#[cfg(test)]
const GATES: &[(&str, &str, &[&str])] = &[
    (
        "ContainerConfig",
        "engine",
        &[
            "Hostname",
            "Domainname",
            "User",
            "Env",
            "Cmd",
            "Healthcheck",
            "Volumes",
            "WorkingDir",
            "Entrypoint",
            "StopSignal",
            "Image",
        ],
    ),
    (
        "ContainerConfig",
        "type",
        &[
            "AttachStdin",
            "AttachStdout",
            "AttachStderr",
            "ExposedPorts",
            "Tty",
            "OpenStdin",
            "StdinOnce",
            "MacAddress",
            "StopTimeout",
            "Labels",
        ],
    ),
    ("ContainerConfig", "client", &["OnBuild", "Shell"]),
    ("ContainerConfig", "here", &["NetworkDisabled"]),
    (
        "HostConfig",
        "engine",
        &[
            "Binds",
            "NetworkMode",
            "VolumesFrom",
            "Annotations",
            "CapAdd",
            "CapDrop",
            "CgroupnsMode",
            "DnsOptions",
            "DnsSearch",
            "ExtraHosts",
            "GroupAdd",
            "IpcMode",
            "Isolation",
            "Links",
            "OomScoreAdj",
            "PidMode",
            "SecurityOpt",
            "Tmpfs",
            "UTSMode",
            "UsernsMode",
            "VolumeDriver",
            "ShmSize",
            "Sysctls",
            "Runtime",
            "Mounts",
            "MaskedPaths",
            "ReadonlyPaths",
            "LogConfig",
        ],
    ),
    (
        "HostConfig",
        "type",
        &["PortBindings", "AutoRemove", "Dns", "Privileged", "PublishAllPorts", "ReadonlyRootfs", "Init"],
    ),
    ("HostConfig", "here", &["RestartPolicy", "ConsoleSize"]),
    ("HostConfig", "refused", &["StorageOpt", "Cgroup"]),
    ("HostConfig", "client", &["ContainerIDFile"]),
    (
        "ContainerResources",
        "engine",
        &[
            "CpuShares",
            "Memory",
            "NanoCpus",
            "CgroupParent",
            "BlkioWeight",
            "CpuPeriod",
            "CpuQuota",
            "CpuRealtimePeriod",
            "CpuRealtimeRuntime",
            "CpusetCpus",
            "CpusetMems",
            "Devices",
            "DeviceCgroupRules",
            "DeviceRequests",
            "MemoryReservation",
            "MemorySwap",
            "PidsLimit",
            "Ulimits",
        ],
    ),
    ("ContainerResources", "here", &["MemorySwappiness"]),
    ("ContainerResources", "type", &["OomKillDisable"]),
    (
        "ContainerResources",
        "refused",
        &[
            "BlkioWeightDevice",
            "BlkioDeviceReadBps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteIOps",
            "CpuCount",
            "CpuPercent",
            "IOMaximumIOps",
            "IOMaximumBandwidth",
        ],
    ),
    ("EndpointSettings", "engine", &["Aliases", "MacAddress", "Links", "DriverOpts"]),
    ("EndpointSettings", "type", &["IPAMConfig", "GwPriority"]),
    (
        // What only answers say.
        "EndpointSettings",
        "client",
        &[
            "NetworkID",
            "EndpointID",
            "Gateway",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "DNSNames",
        ],
    ),
];

#[cfg(test)]
mod tests;
