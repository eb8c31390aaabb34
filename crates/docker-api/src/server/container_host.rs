//! `HostConfig` of a container as Docker shows it: what `container_create` reads, written back.

use super::container_json::signed;
use crate::{
    convert::{self, bind_recursion_json},
    types,
};
use engine::{Container, HostConfig, MountKind};
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
    types::Health {
        test: from.test.clone(),
        interval: nanos(from.interval),
        timeout: nanos(from.timeout),
        start_period: nanos(from.start_period),
        start_interval: nanos(from.start_interval),
        retries: from.retries.map_or(0, i64::from),
    }
}

fn restart(policy: ContainerRestart) -> types::RestartPolicy {
    types::RestartPolicy { name: policy.word().to_owned(), maximum_retry_count: policy.retries().into() }
}

fn mount(from: &engine::Mount) -> types::Mount {
    let mut json =
        types::Mount { target: from.target.clone(), read_only: from.read_only, ..types::Mount::default() };
    match &from.kind {
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

fn port_bindings(host: &HostConfig) -> BTreeMap<String, Option<Vec<types::PortBinding>>> {
    let mut all: BTreeMap<String, Option<Vec<types::PortBinding>>> = BTreeMap::new();
    for asked in &host.port_bindings {
        let binding = types::PortBinding {
            host_ip: asked.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: match (asked.host_port, asked.last_port) {
                (Some(first), Some(last)) => format!("{first}-{last}"),
                (Some(port), None) => port.to_string(),
                (None, _) => String::new(),
            },
        };
        all.entry(asked.container.to_string()).or_default().get_or_insert_default().push(binding);
    }
    all
}

fn resources(host: &HostConfig) -> types::ContainerResources {
    let limits = &host.resources;
    let device = |d: &engine::Device| types::Device {
        path_on_host: d.host_path.clone(),
        path_in_container: d.container_path.clone(),
        cgroup_permissions: d.permissions.clone(),
    };
    types::ContainerResources {
        cpu_shares: signed(limits.cpu_shares),
        memory: signed(limits.memory_bytes),
        nano_cpus: signed(limits.cpu_nanos),
        cgroup_parent: host.cgroup_parent.clone().unwrap_or_default(),
        blkio_weight: limits.blkio_weight,
        blkio_weight_device: Vec::new(),
        cpu_period: signed(limits.cpu_period),
        cpu_quota: limits.cpu_quota,
        cpu_realtime_period: signed(limits.cpu_realtime_period),
        cpu_realtime_runtime: limits.cpu_realtime_runtime,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        devices: host.devices.iter().map(device).collect(),
        device_cgroup_rules: some(&host.device_cgroup_rules),
        device_requests: some(&host.device_requests.iter().map(device_request).collect::<Vec<_>>()),
        memory_reservation: signed(limits.memory_reservation_bytes),
        // Docker writes down what it makes of 0.
        memory_swap: match limits.memory_swap_bytes {
            0 => signed(limits.memory_bytes.saturating_mul(2)),
            given => given,
        },
        memory_swappiness: limits.memory_swappiness.map(i64::from),
        oom_kill_disable: Some(limits.oom_kill_disable),
        pids_limit: limits.pids_limit.filter(|n| *n > 0),
        ulimits: Some(host.ulimits.iter().map(convert::ulimit_json).collect()),
        blkio_device_read_bps: Some(Vec::new()),
        blkio_device_write_bps: Some(Vec::new()),
        blkio_device_read_iops: Some(Vec::new()),
        blkio_device_write_iops: Some(Vec::new()),
        ..types::ContainerResources::default()
    }
}

fn device_request(from: &engine::DeviceRequest) -> types::DeviceRequest {
    types::DeviceRequest {
        driver: from.driver.clone(),
        count: from.count,
        device_ids: some(&from.device_ids),
        capabilities: some(&from.capabilities),
        options: None,
    }
}

pub(super) fn json(container: &Container) -> types::HostConfig {
    let host = &container.config.host;
    types::HostConfig {
        binds: some(&host.binds),
        log_config: types::LogConfig {
            kind: word(&host.log.driver, "json-file"),
            config: host.log.options.clone(),
        },
        network_mode: host.network_mode.to_string(),
        port_bindings: port_bindings(host),
        restart_policy: restart(host.restart),
        auto_remove: host.auto_remove,
        volumes_from: some(&host.volumes_from),
        annotations: host.annotations.clone(),
        cap_add: some(&host.cap_add).map(types::StrSlice),
        cap_drop: some(&host.cap_drop).map(types::StrSlice),
        cgroupns_mode: word(&host.cgroupns_mode, "private"),
        dns: host.dns.iter().map(ToString::to_string).collect(),
        dns_options: host.dns_options.clone(),
        dns_search: host.dns_search.clone(),
        extra_hosts: some(&host.extra_hosts),
        group_add: some(&host.group_add),
        ipc_mode: word(&host.ipc_mode, "private"),
        links: some(&host.links),
        oom_score_adj: host.oom_score_adj,
        pid_mode: host.pid_mode.clone(),
        privileged: host.privileged,
        publish_all_ports: host.publish_all_ports,
        readonly_rootfs: host.read_only,
        security_opt: some(&host.security_opts),
        tmpfs: host.tmpfs.clone(),
        uts_mode: host.uts_mode.clone(),
        userns_mode: host.userns_mode.clone(),
        shm_size: signed(host.shm_size_bytes.unwrap_or(64 << 20)),
        sysctls: host.sysctls.clone(),
        runtime: host.runtime.clone().unwrap_or_else(|| engine::RUNTIMES[0].to_owned()),
        resources: resources(host),
        mounts: host.mounts.iter().map(mount).collect(),
        console_size: host.console_size.map_or([0, 0], |(rows, columns)| [rows.into(), columns.into()]),
        isolation: host.isolation.clone(),
        volume_driver: host.volume_driver.clone(),
        masked_paths: Some(host.hidden_paths()).filter(|p| !(host.privileged && p.is_empty())),
        readonly_paths: Some(host.unwritable_paths()).filter(|p| !(host.privileged && p.is_empty())),
        init: host.init,
        ..types::HostConfig::default()
    }
}
