//! Containers as Docker's JSON. Source: Docker API `ContainerSummary`, `ContainerInspectResponse`, `ContainerStats`.

use super::container_host;
use crate::types;
use engine::{Container, Size, Status};
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeMap};

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn time(at: Option<model::Timestamp>) -> types::Time {
    types::Time(at)
}

/// Words an age as Docker's CLI does: `5 minutes`.
fn ago(nanos: i64) -> String {
    let seconds = nanos.max(0) / 1_000_000_000;
    let count = |n: i64, unit: &str| if n == 1 { format!("{n} {unit}") } else { format!("{n} {unit}s") };
    match seconds {
        0 => "Less than a second".to_owned(),
        1..60 => count(seconds, "second"),
        60..120 => "About a minute".to_owned(),
        120..3600 => count(seconds / 60, "minute"),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => count(seconds / 3600, "hour"),
        _ => count(seconds / 86_400, "day"),
    }
}

/// Docker's status line: `Up 5 minutes (healthy)`, `Exited (1) 2 hours ago`.
fn status_line(container: &Container) -> String {
    let now = sys::clock::nanos();
    let since = |at: Option<model::Timestamp>| ago(now.saturating_sub(at.unwrap_or_default().0));
    let state = &container.state;
    let health = container.health().map(|h| match h.status.as_str() {
        "starting" => " (health: starting)".to_owned(),
        word => format!(" ({word})"),
    });
    match state.status {
        Status::Running => format!("Up {}{}", since(state.started_at), health.unwrap_or_default()),
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

fn mounts(container: &Container) -> Vec<types::MountPoint> {
    let is_asked = |target: &str| container.config.host.mounts.iter().any(|mount| mount.target == target);
    let json = |m: &engine::MountPoint| types::MountPoint {
        kind: m.kind.as_str().to_owned(),
        name: m.name.clone(),
        source: m.source.display().to_string(),
        destination: m.destination.clone(),
        driver: m.driver.clone(),
        // A volume that has a name, or was asked for as a mount, may be shared, says Docker.
        mode: match m.mode.as_str() {
            "" if m.kind == engine::MountPointKind::Volume && (!m.anonymous || is_asked(&m.destination)) => {
                "z".to_owned()
            }
            mode => mode.to_owned(),
        },
        rw: m.writable,
        propagation: m.propagation.clone(),
    };
    // Those of `--tmpfs` are in HostConfig.
    let shown = |m: &&engine::MountPoint| {
        m.kind != engine::MountPointKind::Tmpfs || !container.config.host.tmpfs.contains_key(&m.destination)
    };
    container.mounts.iter().filter(shown).map(json).collect()
}

fn networks(container: &Container) -> BTreeMap<String, types::EndpointSettings> {
    let text = |ip: Option<std::net::IpAddr>| ip.map(|a| a.to_string()).unwrap_or_default();
    let text6 = |ip: Option<std::net::Ipv6Addr>| text(ip.map(Into::into));
    let short_id = &container.id[..container.id.len().min(12)];
    let names = |network: &str, e: &engine::Endpoint| {
        // As Docker: those of the default networks have none.
        let own = !matches!(network, "bridge" | "host" | "none");
        own.then(|| {
            let mut names = vec![container.name.clone()];
            for name in e.aliases.iter().map(String::as_str).chain([short_id]) {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
            names
        })
    };
    let json = |name: &str, e: &engine::Endpoint| types::EndpointSettings {
        ipam_config: Some(types::EndpointIpam {
            ipv4_address: text(e.wanted_address),
            ipv6_address: text6(e.wanted_address6),
            link_local_ips: e.link_local.iter().map(ToString::to_string).collect(),
        })
        .filter(|asked| *asked != types::EndpointIpam::default()),
        // Without the one that each has: since API 1.45 that is among the DNS names.
        aliases: Some(e.aliases.iter().filter(|alias| *alias != short_id).cloned().collect::<Vec<_>>())
            .filter(|aliases| !aliases.is_empty()),
        dns_names: names(name, e),
        links: (!e.links.is_empty()).then(|| e.links.clone()),
        driver_opts: (!e.driver_opts.is_empty()).then(|| e.driver_opts.clone()),
        gw_priority: e.gateway_priority,
        mac_address: match e.mac.as_str() {
            // Of one that does not run, what it asks for.
            "" => e.wanted_mac.clone().unwrap_or_default(),
            mac => mac.to_owned(),
        },
        network_id: e.network_id.clone(),
        endpoint_id: e.endpoint_id.clone(),
        gateway: text(e.gateway),
        ip_address: text(e.address),
        ip_prefix_len: i64::from(e.prefix_len),
        ipv6_gateway: text6(e.gateway6),
        global_ipv6_address: text6(e.address6),
        global_ipv6_prefix_len: i64::from(e.prefix6_len),
    };
    // They are in their order already: collected, they would be sorted once more, and each is large.
    let mut all = BTreeMap::new();
    for (name, endpoint) in &container.networks {
        all.insert(name.clone(), json(name, endpoint));
    }
    all
}

/// What a list shows of it. *Source:* Docker API `ContainerSummary.HostConfig`.
fn summary_host(from: &engine::HostConfig) -> types::SummaryHostConfig {
    types::SummaryHostConfig {
        network_mode: from.network_mode.to_string(),
        annotations: from.annotations.clone(),
    }
}

/// A `size` of zero is not shown.
pub(super) fn summary(container: &Container, size: Size) -> types::ContainerSummary<'_> {
    let command: Vec<&str> =
        std::iter::once(container.path.as_str()).chain(container.args.iter().map(String::as_str)).collect();
    let mut ports: Vec<types::SummaryPort> = container
        .ports
        .iter()
        .map(|p| {
            let (private_port, kind) = split_port(&p.container);
            let ip = p.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
            types::SummaryPort { ip, private_port, public_port: p.host_port, kind }
        })
        .collect();
    let published: std::collections::BTreeSet<_> = container.ports.iter().map(|p| p.container).collect();
    for port in &container.config.exposed_ports {
        if !published.contains(port) {
            let (private_port, kind) = split_port(port);
            ports.push(types::SummaryPort { private_port, kind, ..Default::default() });
        }
    }
    types::ContainerSummary {
        id: Cow::Borrowed(&container.id),
        names: vec![format!("/{}", container.name)],
        image: Cow::Borrowed(&container.config.image),
        image_id: Cow::Borrowed(&container.image_id),
        command: command.join(" "),
        created: container.created_at.0 / 1_000_000_000,
        ports,
        labels: Cow::Borrowed(&container.config.labels),
        state: Cow::Borrowed(container.state.status.as_str()),
        status: status_line(container),
        host_config: summary_host(&container.config.host),
        network_settings: types::SummaryNetworks { networks: networks(container) },
        mounts: mounts(container),
        size_rw: signed(size.writable),
        size_root_fs: signed(size.root),
    }
}

fn split_port(port: &engine::Port) -> (u16, String) {
    let text = port.to_string();
    (port.number, text.rsplit_once('/').map_or("tcp", |(_, kind)| kind).to_owned())
}

fn state(container: &Container) -> types::ContainerState {
    let state = &container.state;
    types::ContainerState {
        status: state.status.as_str().to_owned(),
        running: state.is_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: state.pid.unwrap_or(0),
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        health: container.health().map(|h| types::HealthState {
            status: h.status.as_str().to_owned(),
            failing_streak: h.failing_streak,
            log: h
                .log
                .iter()
                .map(|p| types::HealthProbe {
                    start: time(Some(p.start)),
                    end: time(Some(p.end)),
                    exit_code: p.exit_code,
                    output: p.output.clone(),
                })
                .collect(),
        }),
    }
}

pub(super) fn inspect(container: &Container) -> types::ContainerInspect {
    let config = &container.config;
    let mut ports: BTreeMap<String, Option<Vec<types::PortBinding>>> = if container.state.is_running() {
        config.exposed_ports.iter().map(|p| (p.to_string(), None)).collect()
    } else {
        BTreeMap::new()
    };
    for port in &container.ports {
        let binding = types::PortBinding {
            host_ip: port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string()),
            host_port: port.host_port.to_string(),
        };
        ports.entry(port.container.to_string()).or_default().get_or_insert_default().push(binding);
    }
    let bridge = container.networks.get("bridge").cloned().unwrap_or_default();
    let text = |ip: Option<std::net::IpAddr>| ip.map(|a| a.to_string()).unwrap_or_default();
    types::ContainerInspect {
        id: container.id.clone(),
        created: time(Some(container.created_at)),
        path: container.path.clone(),
        args: container.args.clone(),
        state: state(container),
        image: container.image_id.clone(),
        resolv_conf_path: container.resolv_conf_path.display().to_string(),
        hostname_path: container.hostname_path.display().to_string(),
        hosts_path: container.hosts_path.display().to_string(),
        log_path: container.log_path.display().to_string(),
        name: format!("/{}", container.name),
        restart_count: i64::from(container.restart_count),
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        exec_ids: (!container.exec_ids.is_empty()).then(|| container.exec_ids.clone()),
        host_config: container_host::json(&config.host),
        graph_driver: types::GraphDriver { name: "overlay2".to_owned(), ..Default::default() },
        mounts: mounts(container),
        config: config_json(config, &container.id),
        network_settings: types::NetworkSettings {
            sandbox_key: container.netns.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            sandbox_id: if container.netns.is_some() { container.id.clone() } else { String::new() },
            endpoint_id: bridge.endpoint_id.clone(),
            ports,
            gateway: text(bridge.gateway),
            ip_address: text(bridge.address),
            ip_prefix_len: i64::from(bridge.prefix_len),
            ipv6_gateway: text(bridge.gateway6.map(Into::into)),
            global_ipv6_address: text(bridge.address6.map(Into::into)),
            global_ipv6_prefix_len: i64::from(bridge.prefix6_len),
            mac_address: bridge.mac,
            networks: networks(container),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// The container's configuration as its own answers show it.
fn config_json(from: &engine::ContainerConfig, id: &str) -> types::ContainerConfig {
    let engine::ContainerConfig {
        name: _, // the container's
        image,
        cmd,
        entrypoint,
        env,
        user,
        working_dir,
        hostname,
        domainname,
        labels,
        tty,
        open_stdin,
        stdin_once,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        stop_signal,
        stop_timeout,
        healthcheck,
        exposed_ports,
        volumes,
        host: _,      // HostConfig
        endpoints: _, // NetworkSettings
    } = from;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    types::ContainerConfig {
        hostname: hostname.clone().unwrap_or_else(|| id.chars().take(12).collect()),
        domainname: text(domainname),
        user: text(user),
        attach_stdin: *attach_stdin,
        attach_stdout: *attach_stdout,
        attach_stderr: *attach_stderr,
        exposed_ports: exposed_ports.iter().map(|p| (p.to_string(), types::Empty::default())).collect(),
        tty: *tty,
        open_stdin: *open_stdin,
        stdin_once: *stdin_once,
        env: env.clone(),
        cmd: cmd.clone().map(types::StrSlice),
        image: image.clone(),
        working_dir: text(working_dir),
        entrypoint: entrypoint.clone().map(types::StrSlice),
        network_disabled: false,    // said by the network mode
        mac_address: String::new(), // an endpoint's
        on_build: None,             // an image's
        shell: None,
        labels: labels.clone(),
        stop_signal: text(stop_signal),
        stop_timeout: stop_timeout.map(|t| signed(t.as_secs())),
        healthcheck: healthcheck.as_ref().map(container_host::health),
        volumes: (!volumes.is_empty())
            .then(|| volumes.iter().map(|v| (v.clone(), types::Empty::default())).collect()),
    }
}

/// Two samples as Docker's CLI wants them: the one before beside the one now.
pub(super) fn stats(container: &Container, before: &engine::Stats, now: &engine::Stats) -> Value {
    let cpu = |s: &engine::Stats| {
        json!({
            "cpu_usage": {
                "total_usage": s.cpu.total, "usage_in_usermode": s.cpu.user, "usage_in_kernelmode": s.cpu.kernel,
            },
            "system_cpu_usage": s.cpu.system,
            "online_cpus": s.cpu.online_cpus,
            "throttling_data": {
                "periods": s.cpu.periods, "throttled_periods": s.cpu.throttled_periods,
                "throttled_time": s.cpu.throttled,
            },
        })
    };
    let networks: BTreeMap<&String, Value> = now
        .networks
        .iter()
        .map(|(name, n)| {
            let counters = json!({
                "rx_bytes": n.rx_bytes, "rx_packets": n.rx_packets, "rx_errors": n.rx_errors,
                "rx_dropped": n.rx_dropped, "tx_bytes": n.tx_bytes, "tx_packets": n.tx_packets,
                "tx_errors": n.tx_errors, "tx_dropped": n.tx_dropped,
            });
            (name, counters)
        })
        .collect();
    let io: Vec<Value> = now
        .blkio
        .iter()
        .flat_map(|d| {
            [("read", d.read_bytes), ("write", d.write_bytes)]
                .map(|(op, value)| json!({"major": d.major, "minor": d.minor, "op": op, "value": value}))
        })
        .collect();
    json!({
        "id": container.id, "name": format!("/{}", container.name),
        "read": types::Time(Some(now.read_at)), "preread": types::Time(Some(before.read_at)),
        "cpu_stats": cpu(now), "precpu_stats": cpu(before),
        "memory_stats": {
            "usage": now.memory.usage, "max_usage": now.memory.max_usage, "limit": now.memory.limit,
            "stats": now.memory.stats,
        },
        "networks": networks,
        "blkio_stats": {"io_service_bytes_recursive": io},
        "pids_stats": {"current": now.pids_current, "limit": now.pids_limit},
        "num_procs": 0, "storage_stats": {},
    })
}

/// Source: Docker API `ContainerArchiveInfo`; `mode` is Go's `os.FileMode`, which has bits of its own for kinds.
pub(super) fn path_stat(stat: &engine::PathStat) -> Value {
    let kind = match stat.mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0u32,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| stat.mode & bit != 0).fold(0u32, |all, (_, go)| all | go);
    json!({
        "name": stat.name, "size": stat.size, "mode": kind | special | stat.mode & 0o777,
        "mtime": types::Time(Some(stat.modified_at)), "linkTarget": stat.link_target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_annotations() {
        let annotations = [("note".to_owned(), "text".to_owned())].into();
        let host = engine::HostConfig { annotations, ..engine::HostConfig::default() };
        let shown = serde_json::to_value(summary_host(&host)).expect("JSON");
        assert_eq!(shown, json!({"NetworkMode": "bridge", "Annotations": {"note": "text"}}));
    }

    #[test]
    fn ages_are_worded_as_docker_does() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (7300, "2 hours"),
        ] {
            assert_eq!(ago(seconds * 1_000_000_000), words);
        }
    }
}
