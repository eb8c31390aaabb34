//! From a service of the file to what the Docker API makes a container of.

use super::{
    project::{Project, label},
    remote,
};
use crate::output;
use anyhow::{Context, Result, bail};
use compose::StackService;
use docker_api::{
    convert,
    types::{self, StrSlice},
};
use image::Digest;
use model::FileRef;
use std::collections::BTreeMap;

/// What a container is made of.
pub(super) struct Recipe {
    pub(super) body: types::ContainerCreate,
    /// Networks besides the first, which a daemon before API 1.44 takes one by one.
    pub(super) more_networks: Vec<(String, types::EndpointSettings)>,
    /// Written into it before it starts: path in the container, who may read it, content.
    pub(super) files: Vec<(FileRef<String>, Vec<u8>)>,
}

/// Returns what a service's containers are made of. `containers`: the first container of each service so far.
///
/// # Errors
/// Something that the service refers to is not there.
pub(super) fn recipe(
    project: &Project,
    service: &StackService,
    containers: &BTreeMap<String, String>,
) -> Result<Recipe> {
    let spec = convert::service_spec_json(&service.spec);
    let from = spec.task_template.container_spec.unwrap_or_default();
    let host = service.host.clone().unwrap_or_default();
    let options = from.host.clone().unwrap_or_default();
    let task = &service.spec.task;
    let (own_files, file_mounts) = files(project, service)?;
    // It would have no effect; a stack of a swarm with it is taken.
    let check = task.container.healthcheck.as_ref();
    if check.is_some_and(|check| check.start_interval.is_some() && check.start_period.is_none()) {
        bail!(
            "service {}: healthcheck.start_interval requires healthcheck.start_period to be set",
            service.key
        );
    }

    let mut labels = from.labels.clone();
    labels.extend(identity(project, service));
    let mut exposed = BTreeMap::new();
    let mut bindings: BTreeMap<String, Option<Vec<types::PortBinding>>> = BTreeMap::new();
    for port in &host.ports {
        let name = format!("{}/{}", port.target, port.protocol);
        exposed.insert(name.clone(), types::Empty::default());
        bindings.entry(name).or_default().get_or_insert_default().push(types::PortBinding {
            host_ip: port.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: port.published.clone(),
        });
    }
    for port in &host.expose {
        let name = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        exposed.insert(name, types::Empty::default());
    }
    let words = |words: &[String]| (!words.is_empty()).then(|| StrSlice(words.to_vec()));
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let config = types::ContainerConfig {
        image: from.image.clone(),
        entrypoint: words(&from.command),
        cmd: words(&from.args),
        env: project.environment(service),
        labels,
        user: from.user.clone(),
        working_dir: from.dir.clone(),
        hostname: from.hostname.clone(),
        domainname: options.domainname.clone(),
        tty: from.tty,
        open_stdin: from.open_stdin,
        stop_signal: from.stop_signal.clone(),
        stop_timeout: task.container.stop_grace_period.and_then(|d| i64::try_from(d.as_secs()).ok()),
        healthcheck: from.healthcheck.clone(),
        exposed_ports: exposed,
        ..Default::default()
    };
    let dns = from.dns_config.clone().unwrap_or_default();
    let mut security = options.security_opt.clone();
    if from.privileges.as_ref().is_some_and(|p| p.no_new_privileges) {
        security.push("no-new-privileges:true".to_owned());
    }
    let mut networks = endpoints(project, service)?;
    if let (Some((_, first)), Some(mac)) = (networks.first_mut(), &host.mac_address) {
        first.mac_address.clone_from(mac);
    }
    let network_mode = match &host.network_mode {
        Some(mode) => shared(mode, "network namespace", containers)?,
        None => networks.first().map_or_else(|| "none".to_owned(), |(name, _)| name.clone()),
    };
    let namespace = |own: &str, other: Option<&String>, what: &str| match other {
        Some(other) => shared(other, what, containers),
        None => Ok(own.to_owned()),
    };
    // On networks of their own services are found by name; on the host's bridge only by a link.
    let mut links = host.external_links.clone();
    if host.network_mode.as_deref() == Some("bridge") {
        for link in &host.links {
            let (service, alias) = link.split_once(':').unwrap_or((link, link));
            links.push(format!("{}:{alias}", first_of(service, "links", containers)?));
        }
    }
    let mut volumes_from = Vec::new();
    for from in &host.volumes_from {
        volumes_from.push(match from.strip_prefix("container:") {
            Some(other) => other.to_owned(),
            None => {
                let (service, mode) = from.split_once(':').unwrap_or((from, "rw"));
                format!("{}:{mode}", first_of(service, "volume", containers)?)
            }
        });
    }
    let log = spec.task_template.log_driver.clone().unwrap_or_default();
    let host_config = types::HostConfig {
        mounts: from.mounts.iter().cloned().chain(file_mounts).collect(),
        port_bindings: bindings,
        network_mode,
        restart_policy: types::RestartPolicy {
            name: host.restart.word().to_owned(),
            maximum_retry_count: host.restart.retries().into(),
        },
        log_config: types::LogConfig { kind: log.name, config: log.options },
        annotations: options.annotations.clone(),
        cap_add: words(&from.capability_add),
        cap_drop: words(&from.capability_drop),
        dns: dns.nameservers,
        dns_search: dns.search,
        dns_options: dns.options,
        extra_hosts: some(&from.hosts.iter().map(|line| host_entry(line)).collect::<Vec<_>>()),
        group_add: some(&from.groups),
        links: some(&links),
        volumes_from: some(&volumes_from),
        privileged: from.privileged,
        readonly_rootfs: from.read_only,
        init: from.init,
        security_opt: some(&security),
        sysctls: from.sysctls.clone(),
        storage_opt: host.storage_opts.clone(),
        pid_mode: namespace(&options.pid_mode, host.pid.as_ref(), "pid namespace")?,
        ipc_mode: namespace(&options.ipc_mode, host.ipc.as_ref(), "ipc namespace")?,
        uts_mode: options.uts_mode.clone(),
        userns_mode: options.userns_mode.clone(),
        cgroupns_mode: options.cgroupns_mode.clone(),
        shm_size: i64::try_from(from.shm_size).unwrap_or(i64::MAX),
        oom_score_adj: i32::try_from(from.oom_score_adj).unwrap_or_default(),
        runtime: options.runtime.clone(),
        resources: resources(&spec.task_template.resources.unwrap_or_default(), &from.ulimits, &options),
        ..Default::default()
    };
    let mut networks = networks.into_iter();
    let mut body = types::ContainerCreate {
        config,
        host_config: Some(host_config),
        networking_config: networks.next().map(|(name, endpoint)| types::NetworkingConfig {
            endpoints_config: [(name, Some(endpoint))].into(),
        }),
    };
    let more_networks: Vec<_> = networks.collect();
    let mut hashed = serde_json::to_vec(&(&body, &more_networks))?;
    for (file, data) in &own_files {
        hashed.extend(format!("{}{:?}", file.target, file.mode).into_bytes());
        hashed.extend(data);
    }
    body.config.labels.insert(label::HASH.to_owned(), hash(&hashed));
    Ok(Recipe { body, more_networks, files: own_files })
}

/// Returns what tells one wish from another, in hexadecimal digits.
pub(super) fn hash(wanted: &[u8]) -> String {
    let digest = Digest::of(wanted).to_string();
    digest.rsplit(':').next().unwrap_or_default().to_owned()
}

/// Returns the labels that say whose container it is.
fn identity(project: &Project, service: &StackService) -> Vec<(String, String)> {
    let condition = |condition| match condition {
        model::DependencyCondition::Started => "service_started",
        model::DependencyCondition::Healthy => "service_healthy",
        model::DependencyCondition::CompletedSuccessfully => "service_completed_successfully",
    };
    let restarts = |key: &String| service.host.as_ref().is_some_and(|h| h.restarts_with.contains(key));
    let needs = project.needs(service);
    let needs = needs.iter().map(|(key, c)| format!("{key}:{}:{}", condition(*c), restarts(key)));
    let files = project.files.iter().map(|f| match remote::is_remote(f) {
        true => f.display().to_string(),
        false => std::path::absolute(f).unwrap_or_else(|_| f.clone()).display().to_string(),
    });
    [
        (label::PROJECT, project.name.clone()),
        (label::SERVICE, service.key.clone()),
        (label::FOLDER, project.folder.display().to_string()),
        (label::FILES, files.collect::<Vec<_>>().join(",")),
        (label::DEPENDS, needs.collect::<Vec<_>>().join(",")),
        (label::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
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

/// `IP host` of the model is `host:IP` of the API.
fn host_entry(line: &str) -> String {
    line.split_once(' ').map_or_else(|| line.to_owned(), |(ip, host)| format!("{host}:{ip}"))
}

fn resources(
    wanted: &types::ResourceRequirements,
    ulimits: &[types::Ulimit],
    options: &types::HostOptions,
) -> types::ContainerResources {
    let limits = wanted.limits.clone().unwrap_or_default();
    let reserved = wanted.reservations.clone().unwrap_or_default();
    types::ContainerResources {
        memory: limits.memory_bytes,
        nano_cpus: limits.nano_cpus,
        pids_limit: (limits.pids != 0).then_some(limits.pids),
        memory_reservation: reserved.memory_bytes,
        memory_swap: options.memory_swap,
        memory_swappiness: options.memory_swappiness.map(i64::from),
        cpu_shares: i64::try_from(options.cpu_shares).unwrap_or(i64::MAX),
        cpu_period: i64::try_from(options.cpu_period).unwrap_or(i64::MAX),
        cpu_quota: options.cpu_quota,
        cpuset_cpus: options.cpuset_cpus.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        blkio_weight: u16::try_from(options.blkio_weight).unwrap_or(u16::MAX),
        devices: options.devices.clone(),
        device_requests: device_requests(&reserved.generic_resources),
        device_cgroup_rules: (!options.device_cgroup_rules.is_empty())
            .then(|| options.device_cgroup_rules.clone()),
        oom_kill_disable: options.oom_kill_disable.then_some(true),
        ulimits: (!ulimits.is_empty()).then(|| ulimits.to_vec()),
        ..Default::default()
    }
}

/// Returns what a service asks of vendors' devices as a container does it: what a swarm counts, one host only shares.
fn device_requests(wanted: &[types::GenericResource]) -> Option<Vec<types::DeviceRequest>> {
    let mut all: BTreeMap<&str, types::DeviceRequest> = BTreeMap::new();
    for resource in wanted {
        let (kind, count, id) = match (&resource.discrete, &resource.named) {
            (Some(some), _) => (&some.kind, some.value, None),
            (None, Some(one)) => (&one.kind, 0, Some(one.value.clone())),
            (None, None) => continue,
        };
        let (vendor, class) = kind.split_once('/').unwrap_or(("", kind));
        let request = all.entry(kind).or_insert_with(|| types::DeviceRequest {
            // Docker knows the vendors that it knows by their short names.
            driver: vendor.strip_suffix(".com").unwrap_or(vendor).to_owned(),
            capabilities: Some(vec![vec![class.to_owned()]]),
            ..Default::default()
        });
        request.count = count;
        if let Some(id) = id {
            request.device_ids.get_or_insert_default().push(id);
        }
    }
    (!all.is_empty()).then(|| all.into_values().collect())
}

/// Returns the networks of a service, that with the highest priority first.
pub(super) fn endpoints(
    project: &Project,
    service: &StackService,
) -> Result<Vec<(String, types::EndpointSettings)>> {
    let mut attachments: Vec<_> = service.networks.iter().collect();
    attachments.sort_by_key(|a| std::cmp::Reverse(a.address.priority));
    let stack = project.stack()?;
    let endpoint = |attachment: &&compose::StackAttachment| {
        let address = &attachment.address;
        let ipam = types::EndpointIpam {
            ipv4_address: address.ipv4.map(|ip| ip.to_string()).unwrap_or_default(),
            ipv6_address: address.ipv6.map(|ip| ip.to_string()).unwrap_or_default(),
            link_local_ips: address.link_local.clone(),
        };
        let endpoint = types::EndpointSettings {
            ipam_config: Some(ipam).filter(|ipam| *ipam != types::EndpointIpam::default()),
            aliases: Some(attachment.aliases.clone()),
            mac_address: address.mac.clone().unwrap_or_default(),
            gw_priority: address.gateway_priority,
            driver_opts: (!address.driver_opts.is_empty()).then(|| address.driver_opts.clone()),
            ..Default::default()
        };
        (attachment.network.clone(), endpoint)
    };
    debug_assert!(attachments.iter().all(|a| stack.networks.iter().any(|n| n.name == a.network)));
    Ok(attachments.iter().map(endpoint).collect())
}

type Files = (Vec<(FileRef<String>, Vec<u8>)>, Vec<types::Mount>);

/// Secrets and configs: a file of this host is mounted, other content is written into the container.
fn files(project: &Project, service: &StackService) -> Result<Files> {
    let stack = project.stack()?;
    let (mut written, mut mounted) = (Vec::new(), Vec::new());
    let mut add = |wanted: &FileRef<String>,
                   folder: &str,
                   file: Option<&std::path::PathBuf>,
                   data: Option<&[u8]>| {
        let target = match wanted.target.starts_with('/') {
            true => wanted.target.clone(),
            false => format!("{folder}{}", wanted.target),
        };
        if file.is_some() && (wanted.mode != 0o444 || wanted.uid != "0" || wanted.gid != "0") {
            output::warning(&format!(
                "service {}: {} is mounted, and keeps the owner and mode that it has here",
                service.key, wanted.name
            ));
        }
        match (file, data) {
            (Some(file), _) => {
                if !file.exists() {
                    bail!("service {}: {} is missing", service.key, file.display());
                }
                mounted.push(types::Mount {
                    kind: "bind".to_owned(),
                    source: file.display().to_string(),
                    target,
                    read_only: true,
                    ..Default::default()
                });
            }
            (None, Some(data)) => written.push((FileRef { target, ..wanted.clone() }, data.to_vec())),
            (None, None) => bail!(
                "service {}: {} has no content; hint: one host keeps no external ones, and a variable must be set",
                service.key,
                wanted.name
            ),
        }
        Ok(())
    };
    for wanted in &service.secrets {
        let secret =
            stack.secrets.iter().find(|s| s.name == wanted.id).context("a secret without definition")?;
        add(wanted, "/run/secrets/", secret.file.as_ref(), secret.data.as_ref().map(|d| d.0.as_slice()))?;
    }
    for wanted in &service.configs {
        let config =
            stack.configs.iter().find(|c| c.name == wanted.id).context("a config without definition")?;
        add(wanted, "/", config.file.as_ref(), config.data.as_deref())?;
    }
    Ok((written, mounted))
}

/// Returns a tar of files, by their paths from the root.
///
/// # Errors
/// An owner that is no number.
pub(super) fn tar_of(files: &[(FileRef<String>, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (file, data) in files {
        let number = |text: &str| -> Result<u64> {
            text.parse().with_context(|| format!("{}: owner {text:?} is no number", file.name))
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(number(&file.uid)?);
        header.set_gid(number(&file.gid)?);
        tar.append_data(&mut header, file.target.trim_start_matches('/'), data.as_slice())?;
    }
    Ok(tar.into_inner()?)
}
