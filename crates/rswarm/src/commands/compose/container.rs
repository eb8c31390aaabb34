//! A service of the file as a container of one host, in the words of the Docker API. Pure: what the project knows comes
//! in.
//!
//! Each key is taken, or its line says who takes it: one that is added to a service does not compile here until somebody
//! has decided that.

use anyhow::{Context, Result, bail};
use compose::{HostPort, OneHost, StackService};
use docker_api::{convert, types};
use model::{ServiceSpec, TaskSpec};
use std::collections::BTreeMap;

/// What the project adds.
pub(super) struct Around<'a> {
    /// The file's variables, and those of providers and models.
    pub(super) env: Vec<String>,
    /// Labels that say whose container it is.
    pub(super) identity: Vec<(String, String)>,
    /// Secrets and configs that are files of this host.
    pub(super) files: Vec<types::Mount>,
    /// The network that it is made with, if any.
    pub(super) network: Option<String>,
    /// The first container of each service so far.
    pub(super) containers: &'a BTreeMap<String, String>,
}

/// Returns what a service's containers are made of.
///
/// # Errors
/// A service that it shares something with has no container; a number that the API has no room for.
pub(super) fn of(
    service: &StackService,
    around: Around<'_>,
) -> Result<(types::ContainerConfig, types::HostConfig)> {
    let StackService {
        key,
        spec,
        build: _,    // its image is there
        networks: _, // around.network, and what is joined besides
        secrets: _,  // around.files, and what is written into it
        configs: _,
        host: of_host,
    } = service;
    let ServiceSpec {
        name: _,   // the project names containers
        labels: _, // of services: here is none
        task,
        mode: _, // how many: `up`
        update: _,
        rollback: _,
        endpoint: _,   // of_host.ports
        depends_on: _, // `up`, and a label
        said: _,
    } = spec;
    let TaskSpec {
        container,
        resources,
        restart: _, // of_host.restart
        placement: _,
        networks: _,
        log_driver,
        force_update: _,
    } = &**task;
    let OneHost {
        container_name: _, // the project names it
        network_mode,
        pid,
        ipc,
        restart,
        pull: _,
        ports,
        expose,
        mac_address: _, // its first endpoint's
        links,
        external_links,
        volumes_from,
        storage_opts,
        attach: _, // `up`
        profiles: _,
        restarts_with: _,
        optional: _,
        watch: _,
        provider: _,
        models: _,
    } = of_host.clone().unwrap_or_default();
    let Around { env, identity, files, network, containers } = around;
    // It would have no effect; a stack of a swarm with it is taken.
    let check = container.healthcheck.as_ref();
    if check.is_some_and(|check| check.start_interval.is_some() && check.start_period.is_none()) {
        bail!("service {key}: healthcheck.start_interval requires healthcheck.start_period to be set");
    }

    let (mut config, mut host) = convert::container_alone(container, resources, log_driver.as_ref())
        .with_context(|| format!("service {key}"))?;
    config.env = env;
    config.labels.extend(identity);
    for HostPort { ip, published, target, protocol } in ports {
        let name = format!("{target}/{protocol}");
        config.exposed_ports.insert(name.clone(), types::Empty::default());
        host.port_bindings.entry(name).or_default().get_or_insert_default().push(types::PortBinding {
            host_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: published,
        });
    }
    for port in expose {
        let name = if port.contains('/') { port } else { format!("{port}/tcp") };
        config.exposed_ports.insert(name, types::Empty::default());
    }

    host.mounts.extend(files);
    host.storage_opt = storage_opts;
    host.restart_policy = types::RestartPolicy {
        name: restart.word().to_owned(),
        maximum_retry_count: restart.retries().into(),
    };
    if let Some(other) = pid {
        host.pid_mode = shared(&other, "pid namespace", containers)?;
    }
    if let Some(other) = ipc {
        host.ipc_mode = shared(&other, "ipc namespace", containers)?;
    }
    // On networks of their own services are found by name; on the host's bridge only by a link.
    let mut all_links = external_links;
    if network_mode.as_deref() == Some("bridge") {
        for link in &links {
            let (service, alias) = link.split_once(':').unwrap_or((link, link));
            all_links.push(format!("{}:{alias}", first_of(service, "links", containers)?));
        }
    }
    host.links = Some(all_links).filter(|links| !links.is_empty());
    host.network_mode = match network_mode {
        Some(mode) => shared(&mode, "network namespace", containers)?,
        None => network.unwrap_or_else(|| "none".to_owned()),
    };
    let volumes_from = volumes_from.iter().map(|from| match from.strip_prefix("container:") {
        Some(other) => Ok(other.to_owned()),
        None => {
            let (service, mode) = from.split_once(':').unwrap_or((from, "rw"));
            Ok(format!("{}:{mode}", first_of(service, "volume", containers)?))
        }
    });
    host.volumes_from = Some(volumes_from.collect::<Result<Vec<_>>>()?).filter(|from| !from.is_empty());
    Ok((config, host))
}

/// Turns `service:KEY` into the container that this is.
fn shared(mode: &str, what: &str, containers: &BTreeMap<String, String>) -> Result<String> {
    match mode.strip_prefix("service:") {
        None => Ok(mode.to_owned()),
        Some(key) => Ok(format!("container:{}", first_of(key, what, containers)?)),
    }
}

/// Returns the container of a service that another one shares something with. Source: docker/compose
/// `pkg/compose/convergence.go`, `resolveSharedNamespaces`.
fn first_of<'a>(key: &str, what: &str, containers: &'a BTreeMap<String, String>) -> Result<&'a String> {
    containers.get(key).with_context(|| {
        format!("cannot share {what} with service {key}: container missing; hint: start it too")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use compose::{Place, Sources};
    use model::{ConfigId, FileRef, SecretId};
    use serde_json::{Value, json};
    use std::{path::PathBuf, sync::Arc};

    /// A service that asks for everything that a container can be, each time something else.
    const EVERYTHING: &str = "
name: shop
services:
  web:
    image: shop
    labels: {own: label}
    entrypoint: [/entry]
    command: [arg]
    environment: {A: '1'}
    hostname: host
    domainname: lan
    working_dir: /work
    user: user
    group_add: [group]
    tty: true
    stdin_open: true
    read_only: true
    volumes: ['/srv:/mnt:ro']
    stop_signal: SIGINT
    stop_grace_period: 7s
    healthcheck:
      {test: [CMD, 'true'], interval: 1s, timeout: 2s, start_period: 3s, start_interval: 4s, retries: 5}
    extra_hosts: ['db:10.0.0.1']
    dns: 1.1.1.1
    dns_search: search
    dns_opt: ['ndots:1']
    init: true
    sysctls: {net.core.somaxconn: 9}
    cap_add: [SYS_TIME]
    cap_drop: [KILL]
    ulimits: {nofile: {soft: 1, hard: 2}}
    privileged: true
    security_opt: ['no-new-privileges:true', 'seccomp=unconfined']
    shm_size: 11m
    oom_score_adj: -12
    devices: ['/dev/a:/dev/b:rw']
    device_cgroup_rules: ['c 1:3 r']
    ipc: shareable
    pid: host
    uts: host
    userns_mode: host
    cgroup: private
    cgroup_parent: /parent
    runtime: runc
    annotations: {note: text}
    cpu_shares: 13
    cpu_period: 14000
    cpu_quota: 15000
    cpuset: '0'
    cpus: '0.5'
    memswap_limit: 64m
    mem_limit: 32m
    mem_reservation: 16m
    mem_swappiness: 17
    blkio_config: {weight: 18}
    oom_kill_disable: true
    pids_limit: 19
    gpus: all
    logging: {driver: syslog, options: {tag: t}}
    restart: on-failure:3
    ports: ['127.0.0.1:8080:80/udp']
    expose: ['53']
    external_links: [other]
    volumes_from: ['container:files']
    storage_opt: {size: 1g}
    post_start: [{command: [/warm], user: a, privileged: true, working_dir: /w, environment: [B=2]}]
    pre_stop: [{command: [/drain]}]
";

    fn everything() -> StackService {
        let sources = Sources {
            files: vec![("/srv/compose.yml".into(), EVERYTHING.to_owned())],
            project_dir: "/srv".into(),
            place: Place::Host,
            ..Sources::default()
        };
        let none: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        let (stack, _) = compose::load(&sources, &none).expect("a good file");
        stack.services.into_iter().next().expect("its service")
    }

    #[test]
    fn what_a_file_asks_for_is_the_same_after_every_wire() {
        let mut spec = everything().spec;
        let container = &mut Arc::make_mut(&mut spec.task).container;
        let (name, target) = (String::from("key"), String::from("/run/key"));
        let (uid, gid, mode) = (String::from("1"), String::from("2"), 0o440);
        container.secrets = vec![FileRef {
            id: SecretId(3),
            name: name.clone(),
            target: target.clone(),
            uid: uid.clone(),
            gid: gid.clone(),
            mode,
        }];
        container.configs = vec![FileRef { id: ConfigId(4), name, target, uid, gid, mode }];
        let between_nodes = proto::types::ServiceSpec::from(&spec);
        assert_eq!(ServiceSpec::try_from(between_nodes).expect("its own form"), spec);
        let json = convert::service_spec_json(&spec);
        let text = serde_json::to_vec(&json).expect("JSON");
        let read: types::ServiceSpec = types::parse(&text).expect("Docker's JSON");
        assert_eq!(read, json);
        assert_eq!(convert::service_spec(read, |_| None).expect("its own form"), spec);
    }

    #[test]
    fn what_a_file_asks_for_is_asked_of_the_daemon() {
        let service = everything();
        let around = Around {
            env: service.spec.task.container.env.clone(),
            identity: vec![("whose".to_owned(), "ours".to_owned())],
            files: vec![types::Mount {
                kind: "bind".into(),
                source: "/key".into(),
                target: "/run/key".into(),
                ..types::Mount::default()
            }],
            network: Some("shop_default".into()),
            containers: &BTreeMap::new(),
        };
        let (config, host) = of(&service, around).expect("a container");
        let body = types::ContainerCreate { config, host_config: Some(host), networking_config: None };
        let made = serde_json::to_value(body).expect("JSON");
        let second = 1_000_000_000_u64;
        let wanted: Vec<(&str, Value)> = vec![
            ("/Image", json!("shop")),
            ("/Labels/own", json!("label")),
            ("/Labels/whose", json!("ours")),
            ("/Entrypoint", json!(["/entry"])),
            ("/Cmd", json!(["arg"])),
            ("/Env", json!(["A=1"])),
            ("/Hostname", json!("host")),
            ("/Domainname", json!("lan")),
            ("/WorkingDir", json!("/work")),
            ("/User", json!("user")),
            ("/Tty", json!(true)),
            ("/OpenStdin", json!(true)),
            ("/StopSignal", json!("SIGINT")),
            ("/StopTimeout", json!(7)),
            ("/Healthcheck/Test", json!(["CMD", "true"])),
            ("/Healthcheck/Interval", json!(second)),
            ("/Healthcheck/Timeout", json!(2 * second)),
            ("/Healthcheck/StartPeriod", json!(3 * second)),
            ("/Healthcheck/StartInterval", json!(4 * second)),
            ("/Healthcheck/Retries", json!(5)),
            ("/ExposedPorts", json!({"53/tcp": {}, "80/udp": {}})),
            ("/HostConfig/PortBindings/80~1udp/0/HostIp", json!("127.0.0.1")),
            ("/HostConfig/PortBindings/80~1udp/0/HostPort", json!("8080")),
            ("/HostConfig/NetworkMode", json!("shop_default")),
            ("/HostConfig/GroupAdd", json!(["group"])),
            ("/HostConfig/ReadonlyRootfs", json!(true)),
            ("/HostConfig/Mounts/0/Source", json!("/srv")),
            ("/HostConfig/Mounts/0/Target", json!("/mnt")),
            ("/HostConfig/Mounts/0/ReadOnly", json!(true)),
            ("/HostConfig/Mounts/1/Target", json!("/run/key")),
            ("/HostConfig/ExtraHosts", json!(["db:10.0.0.1"])),
            ("/HostConfig/Dns", json!(["1.1.1.1"])),
            ("/HostConfig/DnsSearch", json!(["search"])),
            ("/HostConfig/DnsOptions", json!(["ndots:1"])),
            ("/HostConfig/Init", json!(true)),
            ("/HostConfig/Sysctls", json!({"net.core.somaxconn": "9"})),
            ("/HostConfig/CapAdd", json!(["CAP_SYS_TIME"])),
            ("/HostConfig/CapDrop", json!(["CAP_KILL"])),
            ("/HostConfig/Ulimits", json!([{"Name": "nofile", "Soft": 1, "Hard": 2}])),
            ("/HostConfig/Privileged", json!(true)),
            ("/HostConfig/SecurityOpt", json!(["seccomp=unconfined", "no-new-privileges:true"])),
            ("/HostConfig/ShmSize", json!(11 << 20)),
            ("/HostConfig/OomScoreAdj", json!(-12)),
            ("/HostConfig/Devices/0/PathOnHost", json!("/dev/a")),
            ("/HostConfig/Devices/0/PathInContainer", json!("/dev/b")),
            ("/HostConfig/Devices/0/CgroupPermissions", json!("rw")),
            ("/HostConfig/DeviceCgroupRules", json!(["c 1:3 r"])),
            ("/HostConfig/DeviceRequests/0/Count", json!(-1)),
            ("/HostConfig/IpcMode", json!("shareable")),
            ("/HostConfig/PidMode", json!("host")),
            ("/HostConfig/UTSMode", json!("host")),
            ("/HostConfig/UsernsMode", json!("host")),
            ("/HostConfig/CgroupnsMode", json!("private")),
            ("/HostConfig/CgroupParent", json!("/parent")),
            ("/HostConfig/Runtime", json!("runc")),
            ("/HostConfig/Annotations", json!({"note": "text"})),
            ("/HostConfig/CpuShares", json!(13)),
            ("/HostConfig/CpuPeriod", json!(14_000)),
            ("/HostConfig/CpuQuota", json!(15_000)),
            ("/HostConfig/CpusetCpus", json!("0")),
            ("/HostConfig/NanoCpus", json!(500_000_000)),
            ("/HostConfig/MemorySwap", json!(64 << 20)),
            ("/HostConfig/Memory", json!(32 << 20)),
            ("/HostConfig/MemoryReservation", json!(16 << 20)),
            ("/HostConfig/MemorySwappiness", json!(17)),
            ("/HostConfig/BlkioWeight", json!(18)),
            ("/HostConfig/OomKillDisable", json!(true)),
            ("/HostConfig/PidsLimit", json!(19)),
            ("/HostConfig/LogConfig", json!({"Type": "syslog", "Config": {"tag": "t"}})),
            ("/HostConfig/RestartPolicy", json!({"Name": "on-failure", "MaximumRetryCount": 3})),
            ("/HostConfig/Links", json!(["other"])),
            ("/HostConfig/VolumesFrom", json!(["files"])),
            ("/HostConfig/StorageOpt", json!({"size": "1g"})),
        ];
        let lost: Vec<String> = wanted
            .into_iter()
            .filter(|(path, value)| made.pointer(path) != Some(value))
            .map(|(path, value)| format!("{path}: {:?}, not {value}", made.pointer(path)))
            .collect();
        assert!(lost.is_empty(), "{}", lost.join("\n"));
    }

    /// A number that is none of the kernel's does not become another one.
    #[test]
    fn a_score_out_of_range_is_refused_in_dockers_words() {
        let mut service = everything();
        Arc::make_mut(&mut service.spec.task).container.oom_score_adj = 5000;
        let containers = BTreeMap::new();
        let around =
            Around { env: vec![], identity: vec![], files: vec![], network: None, containers: &containers };
        let error = format!("{:#}", of(&service, around).expect_err("out of range"));
        assert!(
            error.contains("service web") && error.contains("range for oom score adj is [-1000, 1000]"),
            "{error}"
        );
    }
}
