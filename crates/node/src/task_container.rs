//! A task's container in the words of the engine. Pure: whatever was looked up comes in.
//!
//! Each key is taken, or its line says who takes it: one that is added to a task's container does not compile here until
//! somebody has decided that, and so for one that is added to the engine's.

use engine::{
    ContainerConfig, ContainerFile, Device, DeviceRequest, HostConfig, LogConfig, NetworkMode, Port,
    PortBinding, SwarmAttachments,
};
use model::{
    ContainerRestart, ContainerSpec, DeviceMapping, DnsConfig, GenericResources, Healthcheck, HostOptions,
    Labels, Mount, MountKind, NodeId, ResourceRequirements, Resources, Supply, Task, TaskSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Label by which Docker's tools look for a task's container.
pub(crate) const LABEL_TASK: &str = "com.docker.swarm.task.id";

/// What a task's node adds.
pub(crate) struct Around {
    pub(crate) node: NodeId,
    pub(crate) network_mode: NetworkMode,
    pub(crate) swarm: Option<SwarmAttachments>,
    /// Secrets and configs, filled in.
    pub(crate) files: Vec<ContainerFile>,
}

/// Returns the container of a task; `spec`: the task's, with its templates filled in.
pub(crate) fn config(task: &Task, spec: &ContainerSpec, around: Around) -> ContainerConfig {
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
        healthcheck: check,
        hosts,
        dns: DnsConfig { nameservers, search, options: dns_options },
        secrets: _, // around.files
        configs: _,
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
        post_start: _, // hooks, once it runs
        pre_stop: _,
    } = spec;
    let TaskSpec {
        container: _, // `spec`
        resources: wanted,
        restart: _,   // the managers'
        placement: _, // the plan's
        networks: _,  // around.swarm
        log_driver,
        force_update: _, // the plan's
    } = &*task.spec;
    let Around { node, network_mode, swarm, files } = around;
    let nothing = HostOptions::default();
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
        cpu_shares: _, // `resources`
        cpu_period: _,
        cpu_quota: _,
        cpuset: _,
        memory_swap_bytes: _,
        memory_swappiness: _,
        blkio_weight: _,
        oom_kill_disable: _,
    } = host.as_ref().unwrap_or(&nothing);
    let list = |items: &Vec<String>| (!items.is_empty()).then(|| items.clone());
    let driver = log_driver.as_ref().or(task.log_driver.as_ref());
    let log = driver.map_or_else(LogConfig::default, |log| LogConfig {
        driver: log.name.clone(),
        options: log.options.clone(),
    });
    let no_new = no_new_privileges.then(|| "no-new-privileges".to_owned());
    let host = HostConfig {
        binds: Vec::new(), // `mounts` says all of them
        mounts: mounts.iter().map(mount).collect(),
        volumes_from: Vec::new(),
        tmpfs: BTreeMap::new(),
        port_bindings: task
            .host_ports
            .iter()
            .map(|p| PortBinding {
                container: Port { number: p.target, protocol: p.protocol },
                host_ip: None,
                host_port: Some(p.published),
                last_port: None,
            })
            .collect(),
        publish_all_ports: false,
        network_mode,
        swarm,
        dns: nameservers.clone(),
        dns_search: search.clone(),
        dns_options: dns_options.clone(),
        extra_hosts: extra_hosts(task, hosts),
        links: Vec::new(),
        cap_add: cap_add.clone(),
        cap_drop: cap_drop.clone(),
        privileged: *privileged,
        read_only: *read_only,
        init: *init,
        ulimits: ulimits.clone(),
        sysctls: sysctls.clone(),
        devices: devices.iter().map(device).collect(),
        device_cgroup_rules: device_cgroup_rules.clone(),
        device_requests: vendor_devices(&task.generic),
        resources: resources(wanted, host.as_ref().unwrap_or(&nothing)),
        // A task never runs twice: the managers make another one.
        restart: ContainerRestart::No,
        auto_remove: false,
        log,
        shm_size_bytes: *shm_size_bytes,
        oom_score_adj: *oom_score_adj,
        security_opts: no_new.into_iter().chain(security_opts.iter().cloned()).collect(),
        group_add: groups.clone(),
        pid_mode: pid.clone().unwrap_or_default(),
        ipc_mode: ipc.clone().unwrap_or_default(),
        uts_mode: uts.clone().unwrap_or_default(),
        userns_mode: users.clone().unwrap_or_default(),
        cgroupns_mode: cgroup.clone().unwrap_or_default(),
        cgroup_parent: cgroup_parent.clone(),
        runtime: runtime.clone(),
        console_size: None,
        isolation: String::new(),
        volume_driver: String::new(), // each mount says its own
        masked_paths: None,
        readonly_paths: None,
        files,
        annotations: annotations.clone(),
        build: None,
    };
    ContainerConfig {
        name: Some(task.container_name()),
        image: image.clone(),
        cmd: list(args),
        entrypoint: list(command),
        env: env.iter().cloned().chain(resource_env(&task.generic)).collect(),
        user: user.clone(),
        working_dir: working_dir.clone(),
        hostname: hostname.clone(),
        domainname: domainname.clone(),
        labels: labels_of(task, node, labels),
        tty: *tty,
        open_stdin: *open_stdin,
        stdin_once: false,
        attach_stdin: false,
        attach_stdout: false,
        attach_stderr: false,
        stop_signal: stop_signal.clone(),
        stop_timeout: *stop_grace_period,
        healthcheck: check.as_ref().map(healthcheck),
        exposed_ports: BTreeSet::new(),
        volumes: BTreeSet::new(),
        host,
        endpoints: BTreeMap::new(), // those of `swarm`
    }
}

/// Docker's tools tell by these whose container it is.
fn labels_of(task: &Task, node: NodeId, own: &Labels) -> Labels {
    let mut labels = own.clone();
    labels.extend([
        ("com.docker.swarm.node.id".to_owned(), node.to_string()),
        ("com.docker.swarm.service.id".to_owned(), task.service.to_string()),
        ("com.docker.swarm.service.name".to_owned(), task.service_name.clone()),
        ("com.docker.swarm.task".to_owned(), String::new()),
        (LABEL_TASK.to_owned(), task.id.to_string()),
        ("com.docker.swarm.task.name".to_owned(), task.container_name()),
    ]);
    labels
}

/// `web 10.0.0.1` lines of /etc/hosts are `IP name..` in a service and `name:IP` in a container.
fn extra_hosts(task: &Task, lines: &[String]) -> Vec<String> {
    let host_gateway = task.gateway_address.map(|address| match address {
        IpAddr::V4(v4) => network::node_of_task(v4).to_string(),
        IpAddr::V6(v6) => v6.to_string(),
    });
    let of_line = |line: &String| {
        let mut words = line.split_whitespace();
        let ip = words.next().unwrap_or_default().to_owned();
        // The node's own address on the leg that leads outside.
        let ip = if ip == "host-gateway" { host_gateway.clone().unwrap_or(ip) } else { ip };
        words.map(|name| format!("{name}:{ip}")).collect::<Vec<_>>()
    };
    lines.iter().flat_map(of_line).collect()
}

fn resources(wanted: &ResourceRequirements, host: &HostOptions) -> engine::Resources {
    let ResourceRequirements { limits, reservations, generic: _ } = wanted; // what it got: task.generic
    let Resources { cpu_nanos, memory_bytes, pids } = limits;
    let Resources { cpu_nanos: _, memory_bytes: memory_reserved, pids: _ } = reservations; // the scheduler counts them
    engine::Resources {
        cpu_nanos: *cpu_nanos,
        cpu_shares: host.cpu_shares,
        cpu_period: host.cpu_period,
        cpu_quota: host.cpu_quota,
        cpu_realtime_period: 0,
        cpu_realtime_runtime: 0,
        cpuset_cpus: host.cpuset.clone(),
        cpuset_mems: String::new(),
        memory_bytes: *memory_bytes,
        memory_reservation_bytes: *memory_reserved,
        memory_swap_bytes: host.memory_swap_bytes,
        // Too much stays too much: the engine refuses it by name.
        memory_swappiness: host.memory_swappiness.map(|n| u8::try_from(n).unwrap_or(u8::MAX)),
        pids_limit: i64::try_from(*pids).ok().filter(|n| *n > 0),
        blkio_weight: u16::try_from(host.blkio_weight).unwrap_or(u16::MAX),
        oom_kill_disable: host.oom_kill_disable,
    }
}

fn healthcheck(from: &Healthcheck) -> engine::Healthcheck {
    let Healthcheck { test, interval, timeout, start_period, start_interval, retries } = from;
    engine::Healthcheck {
        test: test.clone(),
        interval: *interval,
        timeout: *timeout,
        start_period: *start_period,
        start_interval: *start_interval,
        retries: *retries,
    }
}

/// Tells a task what of its node is its own: `DOCKER_RESOURCE_GPU=a,b`. *Source:* swarmkit
/// `genericresource.EnvFormat`.
fn resource_env(generic: &GenericResources) -> impl Iterator<Item = String> + '_ {
    generic.iter().map(|(kind, supply)| {
        let value = match supply {
            Supply::Count(n) => n.to_string(),
            Supply::Named(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        };
        format!("{}={value}", format!("DOCKER_RESOURCE_{kind}").to_uppercase())
    })
}

/// Returns the requests for the devices among a task's resources: those whose kind is a vendor's.
fn vendor_devices(generic: &GenericResources) -> Vec<DeviceRequest> {
    let named =
        generic.iter().filter(|(kind, _)| kind.contains('/')).filter_map(|(kind, supply)| match supply {
            Supply::Named(names) => Some(names.iter().map(move |name| format!("{kind}={name}"))),
            Supply::Count(_) => None,
        });
    let device_ids: Vec<String> = named.flatten().collect();
    if device_ids.is_empty() {
        return Vec::new();
    }
    vec![DeviceRequest { driver: "cdi".into(), device_ids, ..DeviceRequest::default() }]
}

fn device(from: &DeviceMapping) -> Device {
    let DeviceMapping { host_path, container_path, permissions } = from.clone();
    Device { host_path, container_path, permissions }
}

fn mount(from: &Mount) -> engine::Mount {
    let Mount { kind, target, read_only } = from.clone();
    let kind = match kind {
        MountKind::Bind { source, propagation, create, recursion } => {
            engine::MountKind::Bind { source, propagation, create, recursion, idmap: false }
        }
        MountKind::Volume { name, driver, driver_opts, labels, no_copy } => {
            engine::MountKind::Volume { name, driver, driver_opts, labels, no_copy, subpath: None }
        }
        MountKind::Tmpfs { size_bytes, mode } => engine::MountKind::Tmpfs { size_bytes, mode },
    };
    engine::Mount { kind, target, read_only }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        BindRecursion, Duration, Hook, LogDriver, PortConfig, Protocol, PublishMode, Slot, TaskId, Ulimit,
    };
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// A container that asks for everything, each time something else.
    fn everything() -> ContainerSpec {
        ContainerSpec {
            image: "shop".into(),
            labels: [("own".to_owned(), "label".to_owned())].into(),
            command: words(&["/entry"]),
            args: words(&["arg"]),
            env: words(&["A=1"]),
            hostname: Some("host".into()),
            working_dir: Some("/work".into()),
            user: Some("user".into()),
            groups: words(&["group"]),
            tty: true,
            open_stdin: true,
            read_only: true,
            mounts: vec![Mount {
                kind: MountKind::Bind {
                    source: "/srv".into(),
                    propagation: Some("rslave".into()),
                    create: true,
                    recursion: BindRecursion::Disabled,
                },
                target: "/mnt".into(),
                read_only: true,
            }],
            stop_signal: Some("SIGINT".into()),
            stop_grace_period: Some(Duration::from_secs(7)),
            healthcheck: Some(Healthcheck {
                test: words(&["CMD", "true"]),
                interval: Some(Duration::from_secs(1)),
                timeout: Some(Duration::from_secs(2)),
                start_period: Some(Duration::from_secs(3)),
                start_interval: Some(Duration::from_secs(4)),
                retries: Some(5),
            }),
            hosts: words(&["10.0.0.1 db store", "host-gateway outside"]),
            dns: DnsConfig {
                nameservers: vec!["1.1.1.1".parse().unwrap()],
                search: words(&["search"]),
                options: words(&["ndots:1"]),
            },
            secrets: Vec::new(),
            configs: Vec::new(),
            init: Some(true),
            sysctls: [("net.core.somaxconn".to_owned(), "9".to_owned())].into(),
            cap_add: words(&["ALL"]),
            cap_drop: words(&["CAP_KILL"]),
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: 2 }],
            privileged: true,
            no_new_privileges: true,
            shm_size_bytes: Some(11),
            oom_score_adj: -12,
            host: Some(HostOptions {
                devices: vec![DeviceMapping {
                    host_path: "/dev/a".into(),
                    container_path: "/dev/b".into(),
                    permissions: "rw".into(),
                }],
                device_cgroup_rules: words(&["c 1:* r"]),
                ipc: Some("shareable".into()),
                pid: Some("host".into()),
                uts: Some("host".into()),
                users: Some("private".into()),
                cgroup: Some("private".into()),
                cgroup_parent: Some("/parent".into()),
                domainname: Some("lan".into()),
                runtime: Some("runc".into()),
                security_opts: words(&["seccomp=unconfined"]),
                annotations: [("note".to_owned(), "text".to_owned())].into(),
                cpu_shares: 13,
                cpu_period: 14,
                cpu_quota: 15,
                cpuset: "0-1".into(),
                memory_swap_bytes: 16,
                memory_swappiness: Some(17),
                blkio_weight: 18,
                oom_kill_disable: true,
            }),
            post_start: vec![Hook::default()],
            pre_stop: vec![Hook::default()],
        }
    }

    fn task(spec: TaskSpec) -> Task {
        let task = Task::attachment(TaskId(1), "", "web", NodeId(2), Vec::new());
        Task {
            slot: Slot::Replica(3),
            spec: Arc::new(spec),
            generic: [
                ("a.com/gpu".to_owned(), Supply::Named(["0".to_owned()].into())),
                ("seats".to_owned(), Supply::Count(4)),
            ]
            .into(),
            host_ports: vec![PortConfig {
                name: String::new(),
                protocol: Protocol::Udp,
                target: 53,
                published: 5353,
                mode: PublishMode::Host,
            }],
            attaches: None,
            ..task
        }
    }

    /// Every key of a task's container is in the engine's, or here with a reason.
    #[test]
    fn all_that_a_task_asks_for_reaches_the_engine() {
        let container = everything();
        let limits = Resources { cpu_nanos: 21, memory_bytes: 22, pids: 23 };
        let reservations = Resources { cpu_nanos: 24, memory_bytes: 25, pids: 0 };
        let spec = TaskSpec {
            container: container.clone(),
            resources: ResourceRequirements { limits, reservations, ..Default::default() },
            log_driver: Some(LogDriver {
                name: "syslog".into(),
                options: [("tag".into(), "t".into())].into(),
            }),
            ..TaskSpec::default()
        };
        let task = task(spec);
        let file = ContainerFile {
            target: "/run/secrets/key".into(),
            uid: 31,
            gid: 32,
            mode: 0o400,
            content: engine::SecretBytes::default(),
        };
        let around =
            Around { node: NodeId(2), network_mode: NetworkMode::Host, swarm: None, files: vec![file] };
        let made = serde_json::to_value(config(&task, &container, around)).expect("JSON");
        let seconds = |n: u64| json!({"secs": n, "nanos": 0});
        let name = format!("web.3.{}", task.id);
        let wanted: Vec<(&str, Value)> = vec![
            ("/name", json!(name)),
            ("/image", json!("shop")),
            ("/entrypoint", json!(["/entry"])),
            ("/cmd", json!(["arg"])),
            ("/env", json!(["A=1", "DOCKER_RESOURCE_A.COM/GPU=0", "DOCKER_RESOURCE_SEATS=4"])),
            ("/hostname", json!("host")),
            ("/domainname", json!("lan")),
            ("/working_dir", json!("/work")),
            ("/user", json!("user")),
            ("/labels/own", json!("label")),
            ("/labels/com.docker.swarm.task.name", json!(name)),
            ("/tty", json!(true)),
            ("/open_stdin", json!(true)),
            ("/stop_signal", json!("SIGINT")),
            ("/stop_timeout", seconds(7)),
            ("/healthcheck/test", json!(["CMD", "true"])),
            ("/healthcheck/interval", seconds(1)),
            ("/healthcheck/timeout", seconds(2)),
            ("/healthcheck/start_period", seconds(3)),
            ("/healthcheck/start_interval", seconds(4)),
            ("/healthcheck/retries", json!(5)),
            ("/host/group_add", json!(["group"])),
            ("/host/read_only", json!(true)),
            ("/host/mounts/0/target", json!("/mnt")),
            ("/host/mounts/0/read_only", json!(true)),
            ("/host/mounts/0/kind/Bind/source", json!("/srv")),
            ("/host/mounts/0/kind/Bind/propagation", json!("rslave")),
            ("/host/mounts/0/kind/Bind/create", json!(true)),
            ("/host/mounts/0/kind/Bind/recursion", json!("disabled")),
            ("/host/port_bindings/0/host_port", json!(5353)),
            ("/host/network_mode", json!("Host")),
            // A task without a leg that leads outside keeps the word, which the engine knows too.
            ("/host/extra_hosts", json!(["db:10.0.0.1", "store:10.0.0.1", "outside:host-gateway"])),
            ("/host/dns", json!(["1.1.1.1"])),
            ("/host/dns_search", json!(["search"])),
            ("/host/dns_options", json!(["ndots:1"])),
            ("/host/init", json!(true)),
            ("/host/sysctls", json!({"net.core.somaxconn": "9"})),
            ("/host/cap_add", json!(["ALL"])),
            ("/host/cap_drop", json!(["CAP_KILL"])),
            ("/host/ulimits", json!([{"name": "nofile", "soft": 1, "hard": 2}])),
            ("/host/privileged", json!(true)),
            ("/host/security_opts", json!(["no-new-privileges", "seccomp=unconfined"])),
            ("/host/shm_size_bytes", json!(11)),
            ("/host/oom_score_adj", json!(-12)),
            ("/host/devices/0/host_path", json!("/dev/a")),
            ("/host/devices/0/container_path", json!("/dev/b")),
            ("/host/devices/0/permissions", json!("rw")),
            ("/host/device_cgroup_rules", json!(["c 1:* r"])),
            ("/host/device_requests/0/device_ids", json!(["a.com/gpu=0"])),
            ("/host/ipc_mode", json!("shareable")),
            ("/host/pid_mode", json!("host")),
            ("/host/uts_mode", json!("host")),
            ("/host/userns_mode", json!("private")),
            ("/host/cgroupns_mode", json!("private")),
            ("/host/cgroup_parent", json!("/parent")),
            ("/host/runtime", json!("runc")),
            ("/host/annotations", json!({"note": "text"})),
            ("/host/resources/cpu_shares", json!(13)),
            ("/host/resources/cpu_period", json!(14)),
            ("/host/resources/cpu_quota", json!(15)),
            ("/host/resources/cpuset_cpus", json!("0-1")),
            ("/host/resources/memory_swap_bytes", json!(16)),
            ("/host/resources/memory_swappiness", json!(17)),
            ("/host/resources/blkio_weight", json!(18)),
            ("/host/resources/oom_kill_disable", json!(true)),
            ("/host/resources/cpu_nanos", json!(21)),
            ("/host/resources/memory_bytes", json!(22)),
            ("/host/resources/pids_limit", json!(23)),
            ("/host/resources/memory_reservation_bytes", json!(25)),
            ("/host/log", json!({"driver": "syslog", "options": {"tag": "t"}})),
            ("/host/files/0/target", json!("/run/secrets/key")),
            ("/host/files/0/uid", json!(31)),
            ("/host/restart", json!("No")),
        ];
        let lost: Vec<String> = wanted
            .into_iter()
            .filter(|(path, value)| made.pointer(path) != Some(value))
            .map(|(path, value)| format!("{path}: {:?}, not {value}", made.pointer(path)))
            .collect();
        assert!(lost.is_empty(), "{}", lost.join("\n"));
    }

    /// A manager of before such values were judged may have let them pass.
    #[test]
    fn what_is_beyond_its_range_stays_so_and_is_refused() {
        let asks = |change: &dyn Fn(&mut HostOptions)| {
            let mut host = HostOptions::default();
            change(&mut host);
            let container =
                ContainerSpec { args: words(&["arg"]), host: Some(host), ..ContainerSpec::default() };
            let task = task(TaskSpec { container: container.clone(), ..TaskSpec::default() });
            let around =
                Around { node: NodeId(2), network_mode: NetworkMode::Host, swarm: None, files: Vec::new() };
            config(&task, &container, around).check().map_err(|error| error.to_string())
        };
        assert_eq!(asks(&|_| {}), Ok(()));
        let weight = asks(&|host| host.blkio_weight = 70_000).expect_err("a weight");
        assert!(weight.contains("BlkioWeight"), "{weight}");
        let swappiness = asks(&|host| host.memory_swappiness = Some(300)).expect_err("a swappiness");
        assert!(swappiness.contains("MemorySwappiness"), "{swappiness}");
    }
}
