//! `HostConfig` of a container as Docker shows it: what `container_create` reads, written back.

use super::container_json::signed;
use crate::{
    convert::{self, bind_recursion_json},
    types,
};
use engine::{Device, DeviceRequest, HostConfig, LogConfig, MountKind, PortBinding, Resources};
use model::ContainerRestart;
use std::{collections::BTreeMap, time::Duration};

/// `null` instead of an empty list, as Go has it.
fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn word(text: &str, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text.to_owned() }
}

fn nanos(duration: Option<Duration>) -> i64 {
    duration.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

pub(super) fn health(from: &engine::Healthcheck) -> types::Health {
    let engine::Healthcheck { test, interval, timeout, start_period, start_interval, retries } = from;
    types::Health {
        test: test.clone(),
        interval: nanos(*interval),
        timeout: nanos(*timeout),
        start_period: nanos(*start_period),
        start_interval: nanos(*start_interval),
        retries: retries.map_or(0, i64::from),
    }
}

fn restart(policy: ContainerRestart) -> types::RestartPolicy {
    types::RestartPolicy { name: policy.word().to_owned(), maximum_retry_count: policy.retries().into() }
}

fn mount(from: &engine::Mount) -> types::Mount {
    let engine::Mount { target, read_only, kind } = from;
    let mut json = types::Mount { target: target.clone(), read_only: *read_only, ..types::Mount::default() };
    match kind {
        // `idmap`: only binds can say it.
        MountKind::Bind { source, propagation, create, recursion, idmap: _ } => {
            json.kind = "bind".to_owned();
            json.source.clone_from(source);
            let options = types::BindOptions {
                propagation: propagation.clone().unwrap_or_default(),
                create_mountpoint: *create,
                ..types::BindOptions::default()
            };
            let options = bind_recursion_json(*recursion, options);
            json.bind_options = Some(options).filter(|o| *o != types::BindOptions::default());
        }
        MountKind::Volume { name, driver, driver_opts, labels, no_copy, subpath } => {
            json.kind = "volume".to_owned();
            json.source = name.clone().unwrap_or_default();
            let driver =
                types::DriverState { name: driver.clone().unwrap_or_default(), options: driver_opts.clone() };
            let options = types::VolumeOptions {
                no_copy: *no_copy,
                labels: labels.clone(),
                subpath: subpath.clone().unwrap_or_default(),
                driver_config: Some(driver).filter(|d| *d != types::DriverState::default()),
            };
            json.volume_options = Some(options).filter(|o| *o != types::VolumeOptions::default());
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            json.kind = "tmpfs".to_owned();
            let options = types::TmpfsOptions {
                size_bytes: signed(size_bytes.unwrap_or(0)),
                mode: mode.unwrap_or(0),
                ..types::TmpfsOptions::default()
            };
            json.tmpfs_options = Some(options).filter(|o| *o != types::TmpfsOptions::default());
        }
        MountKind::Image { reference, subpath } => {
            json.kind = "image".to_owned();
            json.source.clone_from(reference);
            json.image_options = subpath.clone().map(|subpath| types::ImageOptions { subpath });
        }
    }
    json
}

fn port_bindings(from: &[PortBinding]) -> BTreeMap<String, Option<Vec<types::PortBinding>>> {
    let mut all: BTreeMap<String, Option<Vec<types::PortBinding>>> = BTreeMap::new();
    for PortBinding { container, host_ip, host_port, last_port } in from {
        let binding = types::PortBinding {
            host_ip: host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: match (host_port, last_port) {
                (Some(first), Some(last)) => format!("{first}-{last}"),
                (Some(port), None) => port.to_string(),
                (None, _) => String::new(),
            },
        };
        all.entry(container.to_string()).or_default().get_or_insert_default().push(binding);
    }
    all
}

fn device(from: &Device) -> types::Device {
    let Device { host_path, container_path, permissions } = from.clone();
    types::Device {
        path_on_host: host_path,
        path_in_container: container_path,
        cgroup_permissions: permissions,
    }
}

fn device_request(from: &DeviceRequest) -> types::DeviceRequest {
    let DeviceRequest { driver, count, device_ids, capabilities } = from;
    types::DeviceRequest {
        driver: driver.clone(),
        count: *count,
        device_ids: some(device_ids),
        capabilities: some(capabilities),
        options: None,
    }
}

/// What `host` says of limits, and what Docker keeps beside them.
fn resources(host: &HostConfig) -> types::ContainerResources {
    let Resources {
        cpu_nanos,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        memory_bytes,
        memory_reservation_bytes,
        memory_swap_bytes,
        memory_swappiness,
        pids_limit,
        blkio_weight,
        oom_kill_disable,
    } = &host.resources;
    types::ContainerResources {
        cpu_shares: signed(*cpu_shares),
        memory: signed(*memory_bytes),
        nano_cpus: signed(*cpu_nanos),
        cgroup_parent: host.cgroup_parent.clone().unwrap_or_default(),
        blkio_weight: *blkio_weight,
        cpu_period: signed(*cpu_period),
        cpu_quota: *cpu_quota,
        cpu_realtime_period: signed(*cpu_realtime_period),
        cpu_realtime_runtime: *cpu_realtime_runtime,
        cpuset_cpus: cpuset_cpus.clone(),
        cpuset_mems: cpuset_mems.clone(),
        devices: host.devices.iter().map(device).collect(),
        device_cgroup_rules: some(&host.device_cgroup_rules),
        device_requests: some(&host.device_requests.iter().map(device_request).collect::<Vec<_>>()),
        memory_reservation: signed(*memory_reservation_bytes),
        // Docker writes down what it makes of 0.
        memory_swap: match *memory_swap_bytes {
            0 => signed(memory_bytes.saturating_mul(2)),
            given => given,
        },
        memory_swappiness: memory_swappiness.map(i64::from),
        oom_kill_disable: Some(*oom_kill_disable),
        pids_limit: pids_limit.filter(|n| *n > 0),
        ulimits: Some(host.ulimits.iter().map(convert::ulimit_json).collect()),
        // What is refused.
        blkio_weight_device: Vec::new(),
        blkio_device_read_bps: Some(Vec::new()),
        blkio_device_write_bps: Some(Vec::new()),
        blkio_device_read_iops: Some(Vec::new()),
        blkio_device_write_iops: Some(Vec::new()),
        cpu_count: 0,
        cpu_percent: 0,
        io_maximum_iops: 0,
        io_maximum_bandwidth: 0,
    }
}

pub(super) fn json(host: &HostConfig) -> types::HostConfig {
    let HostConfig {
        binds,
        mounts,
        volumes_from,
        tmpfs,
        port_bindings: ports,
        publish_all_ports,
        network_mode,
        swarm: _, // a task's; its service is asked
        dns,
        dns_search,
        dns_options,
        extra_hosts,
        links,
        cap_add,
        cap_drop,
        privileged,
        read_only,
        init,
        ulimits: _, // `resources`
        sysctls,
        devices: _,
        device_cgroup_rules: _,
        device_requests: _,
        resources: _,
        restart: policy,
        auto_remove,
        log: LogConfig { driver, options },
        shm_size_bytes,
        oom_score_adj,
        security_opts,
        group_add,
        pid_mode,
        ipc_mode,
        uts_mode,
        userns_mode,
        cgroupns_mode,
        cgroup_parent: _, // `resources`
        runtime,
        console_size,
        isolation,
        volume_driver,
        masked_paths: _, // what they are beside the usual ones: `hidden_paths`
        readonly_paths: _,
        files: _, // secrets
        annotations,
        build: _, // nobody sees the container of a step
    } = host;
    types::HostConfig {
        binds: some(binds),
        container_id_file: String::new(), // the client's
        log_config: types::LogConfig { kind: word(driver, "json-file"), config: options.clone() },
        network_mode: network_mode.to_string(),
        port_bindings: port_bindings(ports),
        restart_policy: restart(*policy),
        auto_remove: *auto_remove,
        volumes_from: some(volumes_from),
        annotations: annotations.clone(),
        cap_add: some(cap_add).map(types::StrSlice),
        cap_drop: some(cap_drop).map(types::StrSlice),
        cgroup: String::new(), // refused
        cgroupns_mode: word(cgroupns_mode, "private"),
        dns: dns.iter().map(ToString::to_string).collect(),
        dns_options: dns_options.clone(),
        dns_search: dns_search.clone(),
        extra_hosts: some(extra_hosts),
        group_add: some(group_add),
        ipc_mode: word(ipc_mode, "private"),
        links: some(links),
        oom_score_adj: *oom_score_adj,
        pid_mode: pid_mode.clone(),
        privileged: *privileged,
        publish_all_ports: *publish_all_ports,
        readonly_rootfs: *read_only,
        security_opt: some(security_opts),
        storage_opt: types::StringMap::new(), // refused
        tmpfs: tmpfs.clone(),
        uts_mode: uts_mode.clone(),
        userns_mode: userns_mode.clone(),
        shm_size: signed(shm_size_bytes.unwrap_or(64 << 20)),
        sysctls: sysctls.clone(),
        runtime: runtime.clone().unwrap_or_else(|| engine::RUNTIMES[0].to_owned()),
        resources: resources(host),
        mounts: mounts.iter().map(mount).collect(),
        console_size: console_size.map_or([0, 0], |(rows, columns)| [rows.into(), columns.into()]),
        isolation: isolation.clone(),
        volume_driver: volume_driver.clone(),
        masked_paths: Some(host.hidden_paths()).filter(|p| !(*privileged && p.is_empty())),
        readonly_paths: Some(host.unwritable_paths()).filter(|p| !(*privileged && p.is_empty())),
        init: *init,
    }
}
