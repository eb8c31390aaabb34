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
        name: name.map(|n| n.trim_start_matches('/').to_owned()),
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
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ContainerConfig, ApiError> {
        container_config(Some("web"), types::parse(json.as_bytes()).expect("valid JSON"))
    }

    #[test]
    fn what_docker_run_sends_is_understood() {
        let config = read(
            r#"{"Image":"x","Cmd":"ls","ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"default",
            "PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"RestartPolicy":{"Name":"on-failure",
            "MaximumRetryCount":3},"Memory":1048576,"Binds":["/a:/b:ro"]}}"#,
        )
        .unwrap();
        assert_eq!(config.name.as_deref(), Some("web"));
        assert_eq!(config.host.port_bindings[0].host_port, Some(8080));
        assert_eq!(config.host.restart, ContainerRestart::OnFailure { max_retries: Some(3) });
        assert_eq!(config.host.network_mode, NetworkMode::Bridge);
        assert_eq!(config.host.resources.memory_bytes, 1 << 20);
    }

    #[test]
    fn a_host_port_may_be_a_range() {
        let ports = |text: &str| {
            let json = format!(
                r#"{{"Image":"x","HostConfig":{{"PortBindings":{{"80/tcp":[{{"HostPort":"{text}"}}]}}}}}}"#
            );
            let binding = read(&json)?.host.port_bindings[0].clone();
            Ok::<_, ApiError>((binding.host_port, binding.last_port))
        };
        assert_eq!(ports("6005-6015").unwrap(), (Some(6005), Some(6015)));
        assert_eq!(ports("6005-6005").unwrap(), (Some(6005), None));
        assert_eq!(ports("0").unwrap(), (None, None));
        for bad in ["6015-6005", "0-5", "a-b", "1-", "1-2-3"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_key_of_a_request_has_a_gate() {
        for (of, keys) in [
            ("ContainerConfig", types::ContainerConfig::KEYS),
            ("HostConfig", types::HostConfig::KEYS),
            ("ContainerResources", types::ContainerResources::KEYS),
            ("EndpointSettings", types::EndpointSettings::KEYS),
        ] {
            let lines = GATES.iter().filter(|(name, ..)| *name == of);
            let mut judged: Vec<&str> = lines.flat_map(|(_, _, keys)| keys.iter().copied()).collect();
            let mut known: Vec<&str> = keys.to_vec();
            judged.sort_unstable();
            known.sort_unstable();
            assert_eq!(judged, known, "{of}: each key needs one line that says which gate judges it");
        }
    }

    #[test]
    fn what_is_marked_as_refused_is() {
        let of_type = |key: &str| match key {
            "StorageOpt" => r#"{"size":"1g"}"#,
            "Cgroup" => r#""x""#,
            key if key.starts_with("Blkio") => r#"[{"Path":"/dev/sda","Weight":1}]"#,
            _ => "1",
        };
        for (_, gate, keys) in GATES.iter().filter(|(_, gate, _)| *gate == "refused") {
            for key in *keys {
                let error = read(&format!(r#"{{"HostConfig":{{"{key}":{}}}}}"#, of_type(key))).unwrap_err();
                assert!(error.message.contains(key), "{gate} {key}: {error}");
            }
        }
    }

    /// Each field of a mount, and where it arrives: a new one has no line, and does not pass.
    #[test]
    fn every_field_of_a_mount_has_an_effect_or_is_refused() {
        let mount = |kind: &str, options: &str| {
            let source = if matches!(kind, "bind" | "image") { r#""Source":"/a","# } else { "" };
            let json = format!(r#"{{"Type":"{kind}",{source}"Target":"/x","ReadOnly":true,{options}}}"#);
            read(&format!(r#"{{"HostConfig":{{"Mounts":[{json}]}}}}"#)).map(|config| config.host.mounts)
        };
        /// Its kind, its group of options, their names, and a value of each.
        type Told =
            (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);
        let told: [Told; 4] = [
            (
                "bind",
                "BindOptions",
                types::BindOptions::KEYS,
                &[
                    ("Propagation", r#""rshared""#),
                    ("NonRecursive", "true"),
                    ("CreateMountpoint", "true"),
                    ("ReadOnlyNonRecursive", "true"),
                    ("ReadOnlyForceRecursive", "true"),
                ],
            ),
            (
                "volume",
                "VolumeOptions",
                types::VolumeOptions::KEYS,
                &[
                    ("NoCopy", "true"),
                    ("Labels", r#"{"a":"b"}"#),
                    ("Subpath", r#""sub""#),
                    ("DriverConfig", r#"{"Name":"local"}"#),
                ],
            ),
            (
                "tmpfs",
                "TmpfsOptions",
                types::TmpfsOptions::KEYS,
                &[("SizeBytes", "4096"), ("Mode", "448"), ("Options", r#"[["exec"]]"#)],
            ),
            ("image", "ImageOptions", types::ImageOptions::KEYS, &[("Subpath", r#""sub""#)]),
        ];
        for (kind, group, keys, values) in told {
            assert_eq!(values.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys, "{group}");
            let plain = mount(kind, &format!(r#""{group}":{{}}"#)).unwrap();
            for (key, value) in values {
                match mount(kind, &format!(r#""{group}":{{"{key}":{value}}}"#)) {
                    Ok(changed) => assert_ne!(changed, plain, "{group}.{key} has no effect"),
                    Err(refused) => assert!(refused.message.contains(key), "{group}.{key}: {refused}"),
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (json, field) in [
            (
                r#"{"HostConfig":{"DeviceRequests":[{"Count":1,"DeviceIDs":["0"]}]}}"#,
                "both Count and DeviceIDs",
            ),
            (r#"{"HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}"#, "sometimes"),
            (r#"{"HostConfig":{"Memory":-1}}"#, "Memory"),
            (r#"{"HostConfig":{"NanoCpus":-5}}"#, "NanoCpus"),
            (r#"{"HostConfig":{"ShmSize":-1}}"#, "ShmSize"),
            (r#"{"HostConfig":{"ConsoleSize":[1,70000]}}"#, "ConsoleSize"),
            (r#"{"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-1}}}"#, "negative"),
            (r#"{"HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":1}}}"#, "on-failure"),
            (r#"{"HostConfig":{"Dns":["8.8.8.8\nnameserver 6.6.6.6"]}}"#, "Dns"),
            (r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"99999"}]}}}"#, "99999"),
            (r#"{"HostConfig":{"PortBindings":{"1-65535/tcp":[{"HostPort":""}]}}}"#, "1-65535"),
            (r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"90-80"}]}}}"#, "90-80"),
            (r#"{"Healthcheck":{"Test":["CMD","true"],"Interval":-1}}"#, "Interval"),
            (r#"{"Healthcheck":{"Test":["CMD","true"],"Retries":-1}}"#, "Retries"),
            (r#"{"HostConfig":{"Mounts":[{"Type":"npipe","Target":"/x"}]}}"#, "npipe"),
            (r#"{"HostConfig":{"Mounts":[{"Type":"tmpfs","Source":"/a","Target":"/x"}]}}"#, "field Source"),
            (r#"{"HostConfig":{"Mounts":[{"Type":"image","Target":"/x"}]}}"#, "field Source"),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"volume","Target":"/x","BindOptions":{"NonRecursive":true}}]}}"#,
                "field BindOptions must not be specified",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x","TmpfsOptions":{"Mode":1}}]}}"#,
                "field TmpfsOptions must not be specified",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x",
                "BindOptions":{"ReadOnlyNonRecursive":true}}]}}"#,
                "!ReadOnly && BindOptions.ReadOnlyNonRecursive",
            ),
            (
                r#"{"NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":{"LinkLocalIPs":["fe80::1"]}}}}}"#,
                "LinkLocalIPs",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.message.contains(field), "{error}");
        }
    }

    #[test]
    fn an_update_that_names_no_policy_leaves_it() {
        let restart =
            |json: &str| update(types::parse(json.as_bytes()).expect("valid JSON")).map(|u| u.restart);
        assert_eq!(restart(r#"{"Memory":1}"#).unwrap(), None);
        assert_eq!(restart(r#"{"RestartPolicy":{"Name":"","MaximumRetryCount":0}}"#).unwrap(), None);
        let no = restart(r#"{"RestartPolicy":{"Name":"no"}}"#).unwrap();
        assert_eq!(no, Some(ContainerRestart::No));
        let error = restart(r#"{"RestartPolicy":{"Name":"always","MaximumRetryCount":3}}"#).unwrap_err();
        assert!(error.message.contains("only be used with 'on-failure'"), "{error}");
    }

    /// What a container may be given it may be given as a service's, and what is refused is refused to both.
    #[test]
    fn containers_and_services_are_judged_alike() {
        let container = |config: &str, host: &str| {
            let json = format!(r#"{{"Image":"x",{config}"HostConfig":{{{host}}}}}"#);
            let read = read(&json).map_err(|e| e.message)?;
            read.check().map_err(|e| e.to_string())
        };
        let service = |keys: &str| {
            let json = format!(r#"{{"Image":"x",{keys}}}"#);
            let read = types::parse(json.as_bytes()).expect("valid JSON");
            let spec = convert::container_spec(read).map_err(|e| e.to_string())?;
            spec.check(false).map_err(|e| e.to_string())
        };
        /// Where a container's JSON has it; a service's has what is `Options` in a part of its own.
        enum Place {
            Own,
            Host,
            Options,
        }
        use Place::{Host, Options, Own};
        for (place, keys, fits) in [
            (Host, r#""Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}]"#, true),
            (Host, r#""Ulimits":[{"Name":"core","Soft":-1,"Hard":-1}]"#, true),
            (Host, r#""Ulimits":[{"Name":"files","Soft":1,"Hard":2}]"#, false),
            (Host, r#""Ulimits":[{"Name":"","Soft":1,"Hard":2}]"#, false),
            (Host, r#""Ulimits":[{"Name":"cpu","Soft":-2,"Hard":2}]"#, false),
            (Host, r#""Ulimits":[{"Name":"cpu","Soft":3,"Hard":2}]"#, false),
            (Host, r#""Ulimits":[{"Name":"cpu","Soft":-1,"Hard":2}]"#, false),
            (Host, r#""OomScoreAdj":1000"#, true),
            (Host, r#""OomScoreAdj":1001"#, false),
            (Host, r#""OomScoreAdj":-5000"#, false),
            (Host, r#""Sysctls":{"net.core.somaxconn":"1"}"#, true),
            (Host, r#""Sysctls":{"kernel.core_pattern":"x"}"#, false),
            (Own, r#""Healthcheck":{"Test":["CMD","true"],"Interval":1000000,"Retries":1}"#, true),
            (Own, r#""Healthcheck":{"Test":["CMD","true"],"Interval":5}"#, false),
            (Own, r#""Healthcheck":{"Test":["CMD","true"],"Retries":-5}"#, false),
            (Own, r#""Healthcheck":{"Test":["CMD","true"],"StartPeriod":-1}"#, false),
            (Own, r#""User":"a:b""#, true),
            (Own, r#""User":"a:b:c""#, false),
            (Own, r#""Env":["A=b"]"#, true),
            (Own, r#""Env":["=b"]"#, false),
            (Own, r#""Hostname":"web""#, true),
            (Own, r#""Hostname":"a b""#, false),
            (Options, r#""MemorySwappiness":100"#, true),
            (Options, r#""MemorySwappiness":101"#, false),
            (Options, r#""MemorySwappiness":300"#, false),
            (Options, r#""BlkioWeight":10"#, true),
            (Options, r#""BlkioWeight":9"#, false),
            (Options, r#""BlkioWeight":1001"#, false),
            (Options, r#""UsernsMode":"private""#, true),
            (Options, r#""UsernsMode":"auto""#, false),
            (Options, r#""CgroupParent":"/a/../..""#, false),
            (Options, r#""CpusetCpus":"0-""#, false),
        ] {
            let (alone, task) = match place {
                Own => (container(&format!("{keys},"), ""), service(keys)),
                Host => (container("", keys), service(keys)),
                Options => (container("", keys), service(&format!(r#""HostOptions":{{{keys}}}"#))),
            };
            let fits = if fits { "fits" } else { "is refused" };
            let said = |verdict: &Result<(), String>| if verdict.is_ok() { "fits" } else { "is refused" };
            assert_eq!((said(&alone), said(&task)), (fits, fits), "{keys}: {alone:?}, {task:?}");
        }
    }

    /// A value of each key that a request may have, another one than is taken without it.
    fn sample(key: &str) -> &'static str {
        match key {
            "AttachStdin" | "AttachStdout" | "AttachStderr" | "Tty" | "OpenStdin" | "StdinOnce"
            | "NetworkDisabled" | "AutoRemove" | "Privileged" | "PublishAllPorts" | "ReadonlyRootfs"
            | "Init" | "OomKillDisable" => "true",
            "Hostname" | "Domainname" | "User" | "StopSignal" | "Image" | "CgroupnsMode" | "IpcMode"
            | "Isolation" | "PidMode" | "UTSMode" | "UsernsMode" | "VolumeDriver" | "Runtime"
            | "NetworkMode" | "WorkingDir" | "CgroupParent" | "CpusetCpus" | "CpusetMems" => r#""x""#,
            "MacAddress" => r#""02:00:00:00:00:01""#,
            "Env" | "Cmd" | "Entrypoint" | "Binds" | "VolumesFrom" | "CapAdd" | "CapDrop" | "DnsOptions"
            | "DnsSearch" | "ExtraHosts" | "GroupAdd" | "Links" | "SecurityOpt" | "MaskedPaths"
            | "ReadonlyPaths" | "DeviceCgroupRules" | "Aliases" => r#"["x"]"#,
            "Dns" => r#"["10.0.0.1"]"#,
            "Labels" | "Annotations" | "Tmpfs" | "Sysctls" | "DriverOpts" => r#"{"x":"y"}"#,
            "Volumes" => r#"{"/x":{}}"#,
            "ExposedPorts" => r#"{"80/tcp":{}}"#,
            "PortBindings" => r#"{"80/tcp":[{"HostPort":"80"}]}"#,
            "Healthcheck" => r#"{"Retries":3}"#,
            "Mounts" => r#"[{"Type":"volume","Target":"/x"}]"#,
            "LogConfig" => r#"{"Type":"none"}"#,
            "RestartPolicy" => r#"{"Name":"always"}"#,
            "ConsoleSize" => "[2,3]",
            "Devices" => r#"[{"PathOnHost":"/dev/null"}]"#,
            "DeviceRequests" => r#"[{"Count":1}]"#,
            "Ulimits" => r#"[{"Name":"core","Soft":1,"Hard":2}]"#,
            "IPAMConfig" => r#"{"IPv4Address":"10.0.0.9"}"#,
            "StopTimeout" | "OomScoreAdj" | "ShmSize" | "CpuShares" | "Memory" | "NanoCpus"
            | "BlkioWeight" | "CpuPeriod" | "CpuQuota" | "CpuRealtimePeriod" | "CpuRealtimeRuntime"
            | "MemoryReservation" | "MemorySwap" | "MemorySwappiness" | "PidsLimit" | "GwPriority" => "7",
            other => panic!("no sample of {other}"),
        }
    }

    /// What a request says is in what the engine is told: a key that is lost on the way makes no difference.
    #[test]
    fn every_key_of_a_request_reaches_the_engine() {
        let told = |json: &str| {
            let config = read(json).unwrap_or_else(|error| panic!("{json}: {error}"));
            serde_json::to_value(config).expect("JSON")
        };
        let mut lost = Vec::new();
        for (of, gate, keys) in
            GATES.iter().filter(|(_, gate, _)| matches!(*gate, "engine" | "type" | "here"))
        {
            let around = |member: &str| match *of {
                "ContainerConfig" => format!("{{{member}}}"),
                "EndpointSettings" => {
                    format!(r#"{{"NetworkingConfig":{{"EndpointsConfig":{{"net":{{{member}}}}}}}}}"#)
                }
                _ => format!(r#"{{"HostConfig":{{{member}}}}}"#),
            };
            for key in *keys {
                if told(&around(&format!(r#""{key}":{}"#, sample(key)))) == told(&around("")) {
                    lost.push(format!("{of}.{key} ({gate})"));
                }
            }
        }
        assert!(lost.is_empty(), "{lost:?}");
    }
}
