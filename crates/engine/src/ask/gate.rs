//! The gate of requests: each field of a container's configuration is judged here before anything is made of it, or
//! its line says where else. A field without a line does not compile.
//!
//! The runtime asks the same of the spec that it is given (namespaces of sysctls, mounts below /proc, the working
//! directory, devices' places), so a bundle that somebody wrote by hand passes no less.

use crate::{
    ask::{
        config::{ContainerConfig, EndpointConfig, Healthcheck, HostConfig, NetworkMode, Resources},
        execs::ExecConfig,
        names,
    },
    error::{Error, Result, unfit},
    files::mounts,
    networks::endpoint,
    seen::container::Update,
    spec::{capabilities, devices, limits, security},
};
use model::{ContainerRestart, confine};
use std::{fs, net::Ipv4Addr};

/// Names of the one runtime there is, first the one it has where nobody asked. The first two are what clients say for,
/// and look for as, "the usual one": `runc` is to them no program but the word for it, as `local` is of volumes.
pub const RUNTIMES: [&str; 3] = ["runc", "io.containerd.runc.v2", "rswarm"];
/// Bytes of all arguments and variables together. Source: execve(2), a quarter of the usual stack, 8 MiB.
const ARGUMENTS_BYTES_MAX: usize = 2 << 20;

/// Reads a signal's name or number.
///
/// # Errors
/// `InvalidParameter` with Docker's text.
pub(crate) fn signal_number(text: &str) -> Result<i32> {
    runtime::parse_signal(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}

/// Refuses now what could only fail at the start, or reach what is not the container's.
///
/// # Errors
/// `InvalidParameter` that names the field.
pub(crate) fn check(config: &ContainerConfig) -> Result<()> {
    let ContainerConfig {
        name,
        image: _, // found in the store, or not
        cmd,
        entrypoint,
        env,
        user,
        working_dir,
        hostname,
        domainname,
        labels: _, // kept and shown, given to nobody
        tty: _,
        open_stdin: _,
        stdin_once: _,
        attach_stdin: _,
        attach_stdout: _,
        attach_stderr: _,
        stop_signal,
        stop_timeout: _,
        healthcheck,
        exposed_ports: _, // numbers by type
        volumes: _,       // mounts::Plan
        host,
        endpoints,
    } = config;
    if let Some(name) = name.as_deref().map(|n| n.strip_prefix('/').unwrap_or(n)).filter(|n| !n.is_empty()) {
        names::check(name)?;
    }
    arguments("Cmd", cmd.iter().chain(entrypoint).flatten(), env)?;
    if let Some(user) = user {
        confine::user("User", user).map_err(unfit)?;
    }
    if let Some(path) = working_dir {
        confine::working_directory("WorkingDir", path).map_err(unfit)?;
    }
    if let Some(name) = hostname {
        confine::hostname("Hostname", name).map_err(unfit)?;
    }
    if let Some(name) = domainname.as_deref().filter(|name| !name.is_empty()) {
        confine::hostname("Domainname", name).map_err(unfit)?;
    }
    if let Some(name) = stop_signal {
        signal_number(name)?;
    }
    if let Some(check) = healthcheck {
        health(check)?;
    }
    for endpoint in endpoints.values() {
        of_endpoint(endpoint)?;
    }
    self::host(host)?;
    mounts::Plan::of(config, |_| Ok(vec![])).map(drop)
}

/// Judges one more process of a container.
///
/// # Errors
/// As [`check`].
pub(crate) fn exec(config: &ExecConfig) -> Result<()> {
    arguments("Cmd", config.cmd.iter(), &config.env)?;
    if let Some(user) = &config.user {
        confine::user("User", user).map_err(unfit)?;
    }
    match config.working_dir.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => confine::working_directory("WorkingDir", path).map_err(unfit),
        None => Ok(()),
    }
}

fn arguments<'a>(key: &'static str, words: impl Iterator<Item = &'a String>, env: &[String]) -> Result<()> {
    let mut bytes = 0;
    for word in words {
        confine::argument(key, word).map_err(unfit)?;
        bytes += word.len() + 1;
    }
    for variable in env {
        confine::variable("Env", variable).map_err(unfit)?;
        bytes += variable.len() + 1;
    }
    if bytes > ARGUMENTS_BYTES_MAX {
        return Err(Error::invalid(format!(
            "invalid {key}, Env: {bytes} bytes together are more than the kernel takes ({ARGUMENTS_BYTES_MAX})"
        )));
    }
    Ok(())
}

fn health(check: &Healthcheck) -> Result<()> {
    let Healthcheck { test, interval, timeout, start_period, start_interval, retries: _ } = check;
    arguments("Healthcheck.Test", test.iter(), &[])?;
    confine::health_times([*interval, *timeout, *start_period, *start_interval]).map_err(unfit)
}

/// Judges what a container is to be on a network.
///
/// # Errors
/// As [`check`].
pub(crate) fn of_endpoint(endpoint: &EndpointConfig) -> Result<()> {
    let EndpointConfig {
        aliases,
        ipv4_address: _, // by type; the network's subnet decides
        ipv6_address: _,
        mac_address: _, // create::networks
        links,
        gateway_priority: _, // any number
        driver_opts,
        link_local,
    } = endpoint;
    for alias in aliases {
        confine::name("EndpointsConfig.Aliases", alias).map_err(unfit)?;
    }
    // 169.254.0.0 and 169.254.255.255 are nobody's. *Source:* moby `api/types/network/endpoint.go`; RFC 3927.
    let is_fine = |a: &&Ipv4Addr| a.is_link_local() && !matches!(a.octets(), [_, _, 0, 0] | [_, _, 255, 255]);
    if let Some(other) = link_local.iter().find(|address| !is_fine(address)) {
        return Err(Error::invalid(format!(
            "invalid EndpointsConfig.IPAMConfig.LinkLocalIPs: invalid link-local IP address: {other}; hint: one of \
             169.254.0.0/16"
        )));
    }
    if (1..link_local.len()).any(|n| link_local[..n].contains(&link_local[n])) {
        return Err(Error::invalid(
            "invalid EndpointsConfig.IPAMConfig.LinkLocalIPs: an address is named twice",
        ));
    }
    endpoint::options(links, 0, driver_opts).map(drop)
}

fn host(host: &HostConfig) -> Result<()> {
    let HostConfig {
        binds: _, // mounts::Plan judges targets, create::make sources
        mounts: _,
        volumes_from: _,
        tmpfs: _,
        port_bindings: _, // numbers by type; the network room finds out what is taken
        publish_all_ports: _,
        network_mode,
        swarm: _, // the swarm's own, by type
        dns: _,   // addresses by type
        dns_search,
        dns_options,
        extra_hosts,
        links,
        cap_add,
        cap_drop,
        privileged,
        read_only: _,
        init: _,
        ulimits,
        sysctls,
        devices: asked_devices,
        device_cgroup_rules,
        device_requests: _, // cdi: only what vendors describe
        resources,
        restart,
        auto_remove,
        log,
        shm_size_bytes,
        oom_score_adj,
        security_opts,
        group_add,
        pid_mode,
        ipc_mode,
        uts_mode,
        userns_mode,
        cgroupns_mode,
        cgroup_parent,
        runtime,
        console_size: _, // numbers by type
        isolation,
        volume_driver: _, // create: only where a volume is made
        masked_paths,
        readonly_paths,
        files,
        annotations,
        build: _, // the engine's own
    } = host;
    for domain in dns_search {
        confine::word("DnsSearch", domain).map_err(unfit)?;
    }
    for option in dns_options {
        confine::word("DnsOptions", option).map_err(unfit)?;
    }
    for line in extra_hosts {
        extra_host(line)?;
    }
    for link in links {
        for name in link.split(':') {
            confine::name("Links", name.trim_start_matches('/')).map_err(unfit)?;
        }
    }
    let caps = capabilities::of(cap_add, cap_drop, *privileged)?;
    security::check(&security::read(security_opts)?, &caps)?;
    for limit in ulimits {
        limits::rlimit(limit)?;
    }
    sysctls.iter().try_for_each(|(name, value)| {
        model::sysctl_path(name, value, own_namespaces(host))
            .map(drop)
            .map_err(|e| Error::invalid(e.to_string()))
    })?;
    for device in asked_devices {
        devices::check(device)?;
    }
    for rule in device_cgroup_rules {
        devices::rule(rule)?;
    }
    self::resources(resources)?;
    if *auto_remove && *restart != ContainerRestart::No {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    crate::logs::driver::check(log)?;
    confine::memory_size("ShmSize", *shm_size_bytes).map_err(unfit)?;
    confine::oom_score_adj("OomScoreAdj", (*oom_score_adj).into()).map_err(unfit)?;
    for group in group_add {
        if group.contains(':') || group.is_empty() {
            return Err(Error::invalid(format!("invalid GroupAdd: {group:?} is no group")));
        }
        confine::user("GroupAdd", group).map_err(unfit)?;
    }
    let joined = true;
    namespace_mode("PidMode", "PID mode", pid_mode, &["host", "private"], joined)?;
    namespace_mode("IpcMode", "IPC mode", ipc_mode, &["host", "private", "shareable", "none"], joined)?;
    namespace_mode("UTSMode", "UTS mode", uts_mode, &["host"], !joined)?;
    // What it forbids beside it depends on the daemon: userns::decide.
    confine::user_namespace("UsernsMode", userns_mode).map_err(unfit)?;
    namespace_mode("CgroupnsMode", "cgroup namespace mode", cgroupns_mode, &["host", "private"], !joined)?;
    if let NetworkMode::Container(other) = network_mode
        && other.is_empty()
    {
        return Err(Error::invalid("invalid NetworkMode: invalid container format container:<name|id>"));
    }
    if let Some(parent) = cgroup_parent {
        confine::cgroup_parent("CgroupParent", parent).map_err(unfit)?;
    }
    if let Some(name) = runtime.as_deref().filter(|name| !RUNTIMES.contains(name)) {
        return Err(Error::invalid(format!("invalid Runtime: unknown or invalid runtime name: {name}")));
    }
    if !matches!(isolation.as_str(), "" | "default") {
        // Source: moby `daemon/verifyPlatformContainerSettings`.
        return Err(Error::invalid(format!(
            "invalid Isolation: invalid isolation mode on linux: {isolation}"
        )));
    }
    for path in masked_paths.iter().flatten() {
        confine::inner_path("MaskedPaths", path).map_err(unfit)?;
    }
    for path in readonly_paths.iter().flatten() {
        confine::inner_path("ReadonlyPaths", path).map_err(unfit)?;
    }
    for file in files {
        confine::mount_target("Secrets, Configs", &file.target, true).map_err(unfit)?;
    }
    if annotations.keys().any(String::is_empty) {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    Ok(())
}

impl ContainerConfig {
    /// Judges it as [`Engine::create`](crate::Engine::create) does, and makes nothing.
    ///
    /// # Errors
    /// `InvalidParameter` that names the field.
    pub fn check(&self) -> Result<()> {
        check(self)
    }
}

/// Returns what an update makes of a container's configuration.
///
/// # Errors
/// As [`check`]; `Conflict` for what does not go with what stays.
pub(crate) fn updated(host: &HostConfig, update: &Update) -> Result<HostConfig> {
    let Update { resources: asked, restart } = update;
    let mut host = host.clone();
    host.resources.overlay(asked);
    resources(&host.resources)?;
    if let Some(restart) = *restart {
        // Source: moby `container/container_unix.go`, `UpdateContainer`.
        if host.auto_remove && restart != ContainerRestart::No {
            return Err(Error::Conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container".to_owned(),
            ));
        }
        host.restart = restart;
    }
    Ok(host)
}

/// The namespaces that hold the kernel parameters which a container may set.
pub(crate) fn own_namespaces(host: &HostConfig) -> model::OwnNamespaces {
    model::OwnNamespaces {
        network: !matches!(host.network_mode, NetworkMode::Host | NetworkMode::Container(_)),
        ipc: matches!(host.ipc_mode.as_str(), "" | "private" | "shareable" | "none"),
        uts: host.uts_mode != "host",
    }
}

fn extra_host(line: &str) -> Result<()> {
    let bad = || Error::invalid(format!("invalid ExtraHosts: bad format for add-host: {line:?}"));
    let (name, address) = line.split_once('=').or_else(|| line.split_once(':')).ok_or_else(bad)?;
    confine::name("ExtraHosts", name).map_err(unfit)?;
    let is_address = address.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    if is_address || address == "host-gateway" {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid ExtraHosts: invalid IP address in add-host: {address:?}")))
}

/// `kind`: Docker's word for the field; `joins`: another container's namespace will do.
fn namespace_mode(field: &str, kind: &str, asked: &str, words: &[&str], joins: bool) -> Result<()> {
    let known = match asked.strip_prefix("container:") {
        Some(other) if joins => !other.is_empty() && !other.contains('/'),
        _ => asked.is_empty() || words.contains(&asked),
    };
    if known { Ok(()) } else { Err(Error::invalid(format!("invalid {field}: invalid {kind}: {asked}"))) }
}

/// Judges limits, also those of an update.
///
/// # Errors
/// As [`check`].
pub(crate) fn resources(asked: &Resources) -> Result<()> {
    /// *Unit:* bytes. *Source:* moby `daemon/daemon_unix.go`, `linuxMinMemory`.
    const MEMORY_RESERVATION_MIN: u64 = 6 << 20;

    let Resources {
        cpu_nanos, // its range: limits::cgroup
        cpu_shares: _,
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
        oom_kill_disable: _,
    } = asked;
    for (what, is_set) in [("CPU Period", *cpu_period > 0), ("CPU Quota", *cpu_quota > 0)] {
        if *cpu_nanos > 0 && is_set {
            return Err(Error::invalid(format!(
                "Conflicting options: Nano CPUs and {what} cannot both be set"
            )));
        }
    }
    if *cpu_period != 0 && !(1_000..=1_000_000).contains(cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if *cpu_quota != 0 && *cpu_quota != -1 && *cpu_quota < 1_000 {
        return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    realtime(*cpu_realtime_period, *cpu_realtime_runtime)?;
    confine::cpu_list("CpusetCpus", cpuset_cpus).map_err(unfit)?;
    confine::cpu_list("CpusetMems", cpuset_mems).map_err(unfit)?;
    available("CPUs", cpuset_cpus, "/sys/devices/system/cpu/online")?;
    available("memory nodes", cpuset_mems, "/sys/devices/system/node/online")?;
    if (1..MEMORY_RESERVATION_MIN).contains(memory_reservation_bytes) {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if *memory_bytes > 0 && memory_reservation_bytes > memory_bytes {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if *memory_swap_bytes < -1 {
        return Err(Error::invalid(format!(
            "invalid MemorySwap: {memory_swap_bytes} is less than -1 (unlimited)"
        )));
    }
    if *memory_bytes == 0 && *memory_swap_bytes > 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if pids_limit.is_some_and(|limit| limit < -1) {
        return Err(Error::invalid("invalid PidsLimit: less than -1 (unlimited)"));
    }
    confine::blkio_weight("BlkioWeight", (*blkio_weight).into()).map_err(unfit)?;
    confine::memory_swappiness("MemorySwappiness", memory_swappiness.map(i64::from)).map_err(unfit)?;
    limits::cgroup(asked).map(drop)
}

/// *Source:* moby `runconfig/hostconfig_unix.go`, `validateResources`.
fn realtime(period_micros: u64, runtime_micros: i64) -> Result<()> {
    if period_micros == 0 && runtime_micros == 0 {
        return Ok(());
    }
    if !runtime::cgroup::has_realtime() {
        return Err(Error::invalid(
            "invalid CpuRealtimePeriod, CpuRealtimeRuntime: kernel does not support CPU real-time scheduler",
        ));
    }
    if period_micros != 0 && u64::try_from(runtime_micros).is_ok_and(|runtime| runtime > period_micros) {
        return Err(Error::invalid(
            "invalid CpuRealtimeRuntime: cpu real-time runtime cannot be higher than cpu real-time period",
        ));
    }
    Ok(())
}

/// Refuses a list with a number that this host does not have.
fn available(what: &str, asked: &str, file: &str) -> Result<()> {
    // A kernel without the file has one of them.
    let online = fs::read_to_string(file).unwrap_or_else(|_| "0".into());
    let online = online.trim();
    let ranges = |text: &str| {
        text.split(',')
            .filter_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                Some((first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?))
            })
            .collect::<Vec<_>>()
    };
    let there = ranges(online);
    let is_there = |n: u32| there.iter().any(|(first, last)| (*first..=*last).contains(&n));
    if ranges(asked).iter().all(|(first, last)| (*first..=*last).all(is_there)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Requested {what} are not available - requested {asked}, available: {online}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::config::Device;
    use model::Ulimit;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut ContainerConfig), words: &str) {
        let mut config = ContainerConfig { cmd: Some(vec!["true".into()]), ..ContainerConfig::default() };
        check(&config).unwrap();
        change(&mut config);
        match check(&config) {
            Err(Error::InvalidParameter(text)) => assert!(text.contains(words), "{words}: {text}"),
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn what_reaches_the_host_is_refused_by_the_name_of_its_field() {
        refused(|c| c.host.cgroup_parent = Some("/../../../escape".into()), "CgroupParent");
        refused(|c| c.host.userns_mode = "auto".into(), "UsernsMode: invalid user namespace mode: auto");
        refused(|c| c.host.userns_mode = "container:x".into(), "UsernsMode");
        refused(|c| c.host.extra_hosts = vec!["evil:1.2.3.4\n6.6.6.6 x".into()], "ExtraHosts");
        refused(|c| c.host.extra_hosts = vec!["e\nvil:1.2.3.4".into()], "ExtraHosts");
        refused(|c| c.host.dns_search = vec!["a\nnameserver 6.6.6.6".into()], "DnsSearch");
        refused(|c| c.host.dns_options = vec!["a b".into()], "DnsOptions");
        refused(|c| c.host.links = vec!["db:a\nb".into()], "Links");
        refused(|c| c.hostname = Some("a\n6.6.6.6 x".into()), "Hostname");
        refused(|c| c.domainname = Some("b c".into()), "Domainname");
        refused(|c| c.name = Some("../../x".into()), "Invalid container name");
        refused(|c| c.host.binds = vec!["/etc:/proc/sys".into()], "inside /proc");
        refused(|c| c.host.binds = vec!["/etc:/x/../proc".into()], "inside /proc");
        refused(|c| c.volumes.extend(["/proc/self".to_owned()]), "inside /proc");
        refused(|c| drop(c.host.tmpfs.insert("/proc".into(), String::new())), "inside /proc");
        refused(|c| drop(c.host.tmpfs.insert("/t".into(), "size=1m,context=evil".into())), "Tmpfs");
        refused(|c| c.working_dir = Some("/proc/self/fd/5".into()), "WorkingDir");
        refused(|c| c.user = Some("4294967295".into()), "User");
        refused(|c| c.host.group_add = vec!["-1".into()], "GroupAdd");
        refused(|c| c.env = vec!["A=\0".into()], "Env");
        refused(|c| c.env = (0..40).map(|n| format!("A{n}={}", "x".repeat(100_000))).collect(), "Env");
        refused(|c| c.cmd = Some(vec!["a\0b".into()]), "Cmd");
        let device = |host: &str, inside: &str, access: &str| Device {
            host_path: host.into(),
            container_path: inside.into(),
            permissions: access.into(),
        };
        refused(|c| c.host.devices = vec![device("/dev/../etc/shadow", "/dev/x", "rwm")], "PathOnHost");
        refused(|c| c.host.devices = vec![device("/dev/null", "/../../tmp/zz", "rwm")], "PathInContainer");
        refused(|c| c.host.devices = vec![device("/dev/null", "/dev/x", "rwx")], "CgroupPermissions");
        refused(|c| c.host.ipc_mode = "container:".into(), "IpcMode");
        refused(|c| c.host.pid_mode = "container:../1".into(), "PidMode");
        refused(|c| c.host.uts_mode = "private".into(), "UTSMode");
        refused(|c| c.host.cgroupns_mode = "evil".into(), "CgroupnsMode");
        refused(|c| c.host.runtime = Some("../../bin/sh".into()), "Runtime");
        refused(|c| c.host.isolation = "hyperv".into(), "Isolation");
        refused(|c| c.host.masked_paths = Some(vec!["/../etc".into()]), "MaskedPaths");
        refused(|c| c.host.oom_score_adj = 5000, "oom score adj");
        refused(|c| c.host.resources.pids_limit = Some(-5), "PidsLimit");
        refused(|c| c.host.resources.memory_swappiness = Some(101), "valid memory swappiness range is 0-100");
        refused(|c| c.host.resources.cpuset_cpus = "0-999999999".into(), "CpusetCpus");
        refused(|c| c.host.resources.cpuset_cpus = "0-8000".into(), "Requested CPUs");
        let link_local = |addresses: &'static [&'static str]| {
            move |c: &mut ContainerConfig| {
                let link_local = addresses.iter().map(|a| a.parse().unwrap()).collect();
                let endpoint = EndpointConfig { link_local, ..EndpointConfig::default() };
                c.endpoints.insert("bridge".into(), endpoint);
            }
        };
        for addresses in [&["10.0.0.1"][..], &["169.254.0.0"], &["169.254.8.8", "169.254.8.8"]] {
            refused(link_local(addresses), "LinkLocalIPs");
        }
        refused(|c| c.host.resources.cpu_quota = 10, "CPU cfs quota");
        let realtime = |c: &mut ContainerConfig| {
            (c.host.resources.cpu_realtime_period, c.host.resources.cpu_realtime_runtime) = (1_000, 2_000);
        };
        let can = runtime::cgroup::has_realtime();
        refused(realtime, if can { "cannot be higher" } else { "does not support CPU real-time" });
        refused(|c| c.host.resources.memory_swap_bytes = -2, "MemorySwap");
        refused(|c| c.host.resources.memory_swap_bytes = 50 << 20, "set the Memory limit");
        refused(|c| c.host.resources.memory_reservation_bytes = 1, "Minimum memory reservation");
        refused(
            |c| (c.host.resources.cpu_nanos, c.host.resources.cpu_quota) = (10_000_000, 50_000),
            "Nano CPUs and CPU Quota",
        );
        refused(
            |c| c.host.ulimits = vec![Ulimit { name: "nofile".into(), soft: 1 << 62, hard: 1 << 62 }],
            "nofile",
        );
        refused(|c| c.host.ulimits = vec![Ulimit { name: "cpu".into(), soft: -2, hard: 1 }], "cpu");
        refused(|c| c.host.cap_add = vec!["../x".into()], "capability");
        refused(|c| c.stop_signal = Some("999".into()), "signal");
    }

    #[test]
    fn kernel_parameters_go_with_the_namespaces_that_a_container_has() {
        let with = |name: &'static str| {
            move |c: &mut ContainerConfig| drop(c.host.sysctls.insert(name.into(), "1".into()))
        };
        refused(with("kernel.core_pattern"), "not in a separate kernel namespace");
        refused(with("net.ipv4/../../kernel/core_pattern"), "no name of a kernel parameter");
        let shared = |c: &mut ContainerConfig| {
            c.host.network_mode = NetworkMode::Container("web".into());
            with("net.core.somaxconn")(c);
        };
        refused(shared, "not allowed in host network namespace");
        let shared = |c: &mut ContainerConfig| {
            c.host.ipc_mode = "host".into();
            with("kernel.shmmax")(c);
        };
        refused(shared, "hosts ipc namespace");
    }

    #[test]
    fn security_options_that_this_host_cannot_honour_are_refused() {
        let with =
            |option: &'static str| move |c: &mut ContainerConfig| c.host.security_opts = vec![option.into()];
        refused(with("seccomp={\"defaultAction\":\"SCMP_ACT_KILL\""), "seccomp");
        refused(with("seccomp={\"defaultAction\":\"SCMP_ACT_NOTIFY\"}"), "SCMP_ACT_NOTIFY");
        refused(with("label=type:svirt"), "label");
        refused(with("credentialspec=file://x"), "credentialspec");
        refused(with("systempaths=all"), "systempaths");
        refused(with("apparmor="), "apparmor");
        if !runtime::apparmor_enabled() {
            refused(with("apparmor=strict-profile"), "AppArmor is not enabled");
        }
    }

    #[test]
    fn an_update_changes_what_it_says_and_nothing_else() {
        let limits = |update: &mut Update| update.resources.memory_bytes = 64 << 20;
        let of = |host: &HostConfig, change: &dyn Fn(&mut Update)| {
            let mut update = Update::default();
            change(&mut update);
            updated(host, &update)
        };
        let stays = HostConfig { restart: ContainerRestart::Always, ..HostConfig::default() };
        let limited = of(&stays, &limits).unwrap();
        assert_eq!((limited.restart, limited.resources.memory_bytes), (ContainerRestart::Always, 64 << 20));
        let changed = of(&limited, &|update| update.restart = Some(ContainerRestart::No)).unwrap();
        assert_eq!((changed.restart, changed.resources.memory_bytes), (ContainerRestart::No, 64 << 20));
        assert!(of(&stays, &|update| update.resources.pids_limit = Some(-5)).is_err());

        let goes = HostConfig { auto_remove: true, ..HostConfig::default() };
        assert!(of(&goes, &|update| update.restart = Some(ContainerRestart::No)).is_ok());
        let error = of(&goes, &|update| update.restart = Some(ContainerRestart::Always)).unwrap_err();
        assert!(matches!(&error, Error::Conflict(text) if text.contains("AutoRemove")), "{error}");
    }
}
