//! From the flags of `service create` and `service update` to a service's spec. *Source:* docker/cli
//! `cli/command/service/opts.go`, `update.go`; where one of its rules is not plain, it is named beside it.

use super::{create, pairs};
use crate::cli::{ServiceCreate, ServiceFlags, ServiceUpdate};
use anyhow::{Context as _, Result, bail, ensure};
use docker_api::{client::Client, types};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Returns the spec of a new service. `image`: as its tasks name it.
///
/// # Errors
/// A flag cannot be read, or names a secret, config or network that is not there.
pub(super) async fn created(
    client: &Client,
    args: ServiceCreate,
    image: String,
) -> Result<types::ServiceSpec> {
    let mut container = types::ContainerSpec {
        image,
        env: create::environment(&args.env_file, &args.env)?,
        args: args.command,
        labels: pairs(&args.container_label),
        mounts: args.mount.iter().map(|text| create::mount(text)).collect::<Result<_>>()?,
        groups: args.group,
        hosts: args.add_host.iter().map(|text| host(text)).collect::<Result<_>>()?,
        sysctls: pairs(&args.sysctl),
        ulimits: args.ulimit.iter().map(|text| create::ulimit(text)).collect::<Result<_>>()?,
        ..Default::default()
    };
    let dns = types::DnsConfig { nameservers: args.dns, search: args.dns_search, options: args.dns_option };
    container.dns_config = Some(dns).filter(|dns| *dns != types::DnsConfig::default());
    for text in &args.secret {
        container.secrets.push(secret(client, text).await?);
    }
    for text in &args.config {
        container.configs.push(config(client, text).await?);
    }
    let placement = types::Placement {
        constraints: args.constraint,
        preferences: args.placement_pref.iter().map(|text| preference(text)).collect::<Result<_>>()?,
        ..Default::default()
    };
    let mut ports = Vec::new();
    for text in &args.publish {
        ports.extend(published(text)?);
    }
    let mut spec = types::ServiceSpec {
        name: args.name.unwrap_or_default(),
        labels: pairs(&args.label),
        task_template: types::TaskSpec {
            container_spec: Some(container),
            placement: Some(placement),
            networks: args.network.iter().map(|text| network(text)).collect::<Result<_>>()?,
            ..Default::default()
        },
        mode: mode(&args.mode),
        endpoint_spec: Some(types::EndpointSpec { mode: "vip".to_owned(), ports }),
        ..Default::default()
    };
    if !args.generic_resource.is_empty() {
        let reserved = reservations(&mut spec.task_template);
        reserved.generic_resources =
            args.generic_resource.iter().map(|text| generic(text)).collect::<Result<_>>()?;
    }
    apply(&mut spec, &args.flags, None)?;
    Ok(spec)
}

/// Returns the spec that a service has after a change. `image`: another one, as its tasks shall name it.
///
/// # Errors
/// As [`created`].
pub(super) async fn changed(
    client: &Client,
    mut spec: types::ServiceSpec,
    args: ServiceUpdate,
    image: Option<String>,
) -> Result<types::ServiceSpec> {
    let name = args.service.clone();
    relabel(&mut spec.labels, &args.label_add, &args.label_rm);
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    republish(&mut endpoint.ports, &args.publish_add, &args.publish_rm)?;
    let task = &mut spec.task_template;
    if args.force {
        task.force_update += 1;
    }
    let container = task.container_spec.get_or_insert_default();
    if let Some(image) = image {
        container.image = image;
    }
    if let Some(text) = &args.args {
        container.args = words("--args", text)?;
    }
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let added = create::environment(&[], &args.env_add)?;
    let gone: BTreeSet<String> = args.env_rm.iter().chain(&added).map(|entry| key(entry)).collect();
    container.env.retain(|entry| !gone.contains(&key(entry)));
    container.env.extend(added);
    relabel(&mut container.labels, &args.container_label_add, &args.container_label_rm);
    relabel(&mut container.sysctls, &args.sysctl_add, &args.sysctl_rm);
    relist(&mut container.groups, args.group_add, &args.group_rm);
    remount(&mut container.mounts, &args.mount_add, &args.mount_rm)?;
    rehost(&mut container.hosts, &args.host_add, &args.host_rm)?;
    for text in args.ulimit_add.iter().map(|text| create::ulimit(text)) {
        let limit = text?;
        container.ulimits.retain(|old| old.name != limit.name);
        container.ulimits.push(limit);
    }
    container.ulimits.retain(|limit| !args.ulimit_rm.contains(&limit.name));
    let mut dns = container.dns_config.take().unwrap_or_default();
    relist(&mut dns.nameservers, args.dns_add, &args.dns_rm);
    relist(&mut dns.search, args.dns_search_add, &args.dns_search_rm);
    relist(&mut dns.options, args.dns_option_add, &args.dns_option_rm);
    container.dns_config = Some(dns).filter(|dns| *dns != types::DnsConfig::default());
    container.secrets.retain(|secret| !args.secret_rm.contains(&secret.secret_name));
    for text in &args.secret_add {
        let new = secret(client, text).await?;
        let target = |secret: &types::SecretReference| secret.file.as_ref().map(|file| file.name.clone());
        container.secrets.retain(|old| target(old) != target(&new));
        container.secrets.push(new);
    }
    container.configs.retain(|config| !args.config_rm.contains(&config.config_name));
    for text in &args.config_add {
        let new = config(client, text).await?;
        let target = |config: &types::ConfigReference| config.file.as_ref().map(|file| file.name.clone());
        container.configs.retain(|old| target(old) != target(&new));
        container.configs.push(new);
    }
    let mut placement = task.placement.take().unwrap_or_default();
    relist(&mut placement.constraints, args.constraint_add, &args.constraint_rm);
    let gone = args.placement_pref_rm.iter().map(|text| preference(text)).collect::<Result<Vec<_>>>()?;
    placement.preferences.retain(|old| !gone.contains(old));
    for text in &args.placement_pref_add {
        placement.preferences.push(preference(text)?);
    }
    task.placement = Some(placement);
    if !args.generic_resource_add.is_empty() || !args.generic_resource_rm.is_empty() {
        let reserved = reservations(task);
        let kind = |resource: &types::GenericResource| {
            let discrete = resource.discrete.as_ref().map(|resource| resource.kind.clone());
            discrete
                .or_else(|| resource.named.as_ref().map(|resource| resource.kind.clone()))
                .unwrap_or_default()
        };
        reserved.generic_resources.retain(|old| !args.generic_resource_rm.contains(&kind(old)));
        for new in args.generic_resource_add.iter().map(|text| generic(text)) {
            let new = new?;
            reserved.generic_resources.retain(|old| kind(old) != kind(&new));
            reserved.generic_resources.push(new);
        }
    }
    renetwork(client, task, &args.network_add, &args.network_rm).await?;
    apply(&mut spec, &args.flags, Some(&name))?;
    Ok(spec)
}

/// Refuses what would be said in vain beside `--rollback`. *Source:* docker/cli `update.go`.
///
/// # Errors
/// Something else was typed too.
pub(super) fn alone(args: &ServiceUpdate) -> Result<()> {
    let said = format!("{args:?}");
    let bare = ServiceUpdate {
        service: args.service.clone(),
        flags: ServiceFlags {
            quiet: args.flags.quiet,
            detach: args.flags.detach,
            timeout: args.flags.timeout,
            ..bare().flags
        },
        rollback: true,
        ..bare()
    };
    ensure!(said == format!("{bare:?}"), "other flags may not be combined with --rollback");
    Ok(())
}

/// What `service update` is when nothing is said.
fn bare() -> ServiceUpdate {
    #[derive(clap::Parser)]
    struct Bare {
        #[command(flatten)]
        update: ServiceUpdate,
    }
    <Bare as clap::Parser>::parse_from(["update", "service"]).update
}

/// Sets what was said; `name`: of a service that is there.
fn apply(spec: &mut types::ServiceSpec, flags: &ServiceFlags, name: Option<&str>) -> Result<()> {
    count(&mut spec.mode, flags, name)?;
    if let Some(mode) = &flags.endpoint_mode {
        spec.endpoint_spec.get_or_insert_default().mode.clone_from(mode);
    }
    let update = Rollout {
        parallelism: flags.update_parallelism,
        delay: flags.update_delay,
        failure_action: &flags.update_failure_action,
        max_failure_ratio: flags.update_max_failure_ratio,
        monitor: flags.update_monitor,
        order: &flags.update_order,
        progress_deadline: flags.update_progress_deadline,
    };
    update.apply(&mut spec.update_config)?;
    let rollback = Rollout {
        parallelism: flags.rollback_parallelism,
        delay: flags.rollback_delay,
        failure_action: &flags.rollback_failure_action,
        max_failure_ratio: flags.rollback_max_failure_ratio,
        monitor: flags.rollback_monitor,
        order: &flags.rollback_order,
        progress_deadline: None,
    };
    rollback.apply(&mut spec.rollback_config)?;

    let task = &mut spec.task_template;
    if let Some(most) = flags.replicas_max_per_node {
        let counted = spec.mode.replicated.is_some() || spec.mode.replicated_job.is_some();
        ensure!(counted, "replicas-max-per-node can only be used with replicated or replicated-job mode");
        task.placement.get_or_insert_default().max_replicas = most;
    }
    resources(task, flags)?;
    restart(task, flags)?;
    if let Some(driver) = &flags.log_driver {
        task.log_driver = Some(types::LogDriver { name: driver.clone(), options: pairs(&flags.log_opt) });
    }
    let container = task.container_spec.get_or_insert_default();
    if let Some(text) = &flags.entrypoint {
        container.command = words("--entrypoint", text)?;
    }
    let set = |field: &mut String, said: &Option<String>| {
        if let Some(text) = said {
            field.clone_from(text);
        }
    };
    set(&mut container.user, &flags.user);
    set(&mut container.dir, &flags.workdir);
    set(&mut container.hostname, &flags.hostname);
    set(&mut container.stop_signal, &flags.stop_signal);
    container.tty = flags.tty.unwrap_or(container.tty);
    container.read_only = flags.read_only.unwrap_or(container.read_only);
    container.init = flags.init.or(container.init);
    container.oom_score_adj = flags.oom_score_adj.unwrap_or(container.oom_score_adj);
    if let Some(period) = flags.stop_grace_period {
        container.stop_grace_period = Some(nanos(period)?);
    }
    capabilities(container, &flags.cap_add, &flags.cap_drop);
    health(&mut container.healthcheck, flags)
}

fn nanos(duration: Duration) -> Result<i64> {
    i64::try_from(duration.as_nanos()).with_context(|| format!("{duration:?} is out of range"))
}

fn mode(word: &str) -> types::ServiceMode {
    let none = types::ServiceMode::default();
    let empty = Some(types::Empty::default());
    match word {
        "global" => types::ServiceMode { global: empty, ..none },
        "global-job" => types::ServiceMode { global_job: empty, ..none },
        "replicated-job" => {
            let once = types::ReplicatedJob { max_concurrent: None, total_completions: Some(1) };
            types::ServiceMode { replicated_job: Some(once), ..none }
        }
        _ => types::ServiceMode { replicated: Some(types::Replicated { replicas: Some(1) }), ..none },
    }
}

fn count(mode: &mut types::ServiceMode, flags: &ServiceFlags, name: Option<&str>) -> Result<()> {
    let of = name.map(|name| format!("{name}: ")).unwrap_or_default();
    if let Some(job) = &mut mode.replicated_job {
        job.total_completions = flags.replicas.or(job.total_completions);
        // At once by default: all of a new job.
        let all = if name.is_none() { job.total_completions } else { job.max_concurrent };
        job.max_concurrent = flags.max_concurrent.or(all);
        return Ok(());
    }
    ensure!(flags.max_concurrent.is_none(), "{of}max-concurrent can only be used with replicated-job mode");
    match (&mut mode.replicated, flags.replicas) {
        (Some(mode), Some(replicas)) => mode.replicas = Some(replicas),
        (None, Some(_)) => bail!("{of}replicas can only be used with replicated or replicated-job mode"),
        (_, None) => {}
    }
    Ok(())
}

/// What was said of how tasks are replaced.
struct Rollout<'a> {
    parallelism: Option<u64>,
    delay: Option<Duration>,
    failure_action: &'a Option<String>,
    max_failure_ratio: Option<f64>,
    monitor: Option<Duration>,
    order: &'a Option<String>,
    progress_deadline: Option<Duration>,
}

impl Rollout<'_> {
    fn apply(&self, config: &mut Option<types::UpdateConfig>) -> Result<()> {
        let Self { parallelism, delay, failure_action, max_failure_ratio, monitor, order, progress_deadline } =
            self;
        let silent = parallelism.is_none()
            && delay.is_none()
            && failure_action.is_none()
            && max_failure_ratio.is_none()
            && monitor.is_none()
            && order.is_none()
            && progress_deadline.is_none();
        if silent {
            return Ok(());
        }
        // Source: swarmkit `api/defaults/service.go`.
        let config = config.get_or_insert_with(|| types::UpdateConfig {
            parallelism: 1,
            failure_action: "pause".to_owned(),
            monitor: 5_000_000_000,
            order: "stop-first".to_owned(),
            ..Default::default()
        });
        config.parallelism = parallelism.unwrap_or(config.parallelism);
        config.max_failure_ratio = max_failure_ratio.unwrap_or(config.max_failure_ratio);
        if let Some(delay) = delay {
            config.delay = nanos(*delay)?;
        }
        if let Some(monitor) = monitor {
            config.monitor = nanos(*monitor)?;
        }
        if let Some(deadline) = progress_deadline {
            config.progress_deadline = nanos(*deadline)?;
        }
        if let Some(action) = failure_action {
            config.failure_action.clone_from(action);
        }
        if let Some(order) = order {
            config.order.clone_from(order);
        }
        Ok(())
    }
}

fn reservations(task: &mut types::TaskSpec) -> &mut types::ResourceReservation {
    task.resources.get_or_insert_default().reservations.get_or_insert_default()
}

fn resources(task: &mut types::TaskSpec, flags: &ServiceFlags) -> Result<()> {
    let cpus = |flag: &str, text: &str| -> Result<i64> {
        let nanos = compose::cpu_nanos(text).and_then(|nanos| i64::try_from(nanos).ok());
        nanos.with_context(|| format!("{flag} {text:?} is no number of CPUs such as 1.5"))
    };
    if let Some(text) = &flags.limit_cpu {
        limits(task).nano_cpus = cpus("--limit-cpu", text)?;
    }
    if flags.limit_memory.is_some() {
        limits(task).memory_bytes = create::bytes("--limit-memory", flags.limit_memory.as_deref())?;
    }
    if let Some(pids) = flags.limit_pids {
        limits(task).pids = pids;
    }
    if let Some(text) = &flags.reserve_cpu {
        reservations(task).nano_cpus = cpus("--reserve-cpu", text)?;
    }
    if flags.reserve_memory.is_some() {
        reservations(task).memory_bytes = create::bytes("--reserve-memory", flags.reserve_memory.as_deref())?;
    }
    Ok(())
}

fn limits(task: &mut types::TaskSpec) -> &mut types::ResourceLimit {
    task.resources.get_or_insert_default().limits.get_or_insert_default()
}

fn restart(task: &mut types::TaskSpec, flags: &ServiceFlags) -> Result<()> {
    let silent = flags.restart_condition.is_none()
        && flags.restart_delay.is_none()
        && flags.restart_max_attempts.is_none()
        && flags.restart_window.is_none();
    if silent {
        return Ok(());
    }
    let policy = task.restart_policy.get_or_insert_default();
    if let Some(condition) = &flags.restart_condition {
        policy.condition.clone_from(condition);
    }
    if let Some(delay) = flags.restart_delay {
        policy.delay = Some(nanos(delay)?);
    }
    if let Some(window) = flags.restart_window {
        policy.window = Some(nanos(window)?);
    }
    policy.max_attempts = flags.restart_max_attempts.or(policy.max_attempts);
    Ok(())
}

/// What forgets the capabilities that were added or dropped before. *Source:* docker/cli `opts/capabilities.go`.
const RESET: &str = "CAP_RESET";

/// *Source:* docker/cli `update.go`, `updateCapabilities`: to add what was dropped, or to drop what was added, is to have
/// it as by default again; of what is said both ways, adding wins.
fn capabilities(container: &mut types::ContainerSpec, add: &[String], drop: &[String]) {
    if add.is_empty() && drop.is_empty() {
        return;
    }
    let (mut add, mut drop): (BTreeSet<String>, BTreeSet<String>) =
        (create::capabilities(add).into_iter().collect(), create::capabilities(drop).into_iter().collect());
    let mut added: BTreeSet<String> = create::capabilities(&container.capability_add).into_iter().collect();
    let mut dropped: BTreeSet<String> =
        create::capabilities(&container.capability_drop).into_iter().collect();
    if add.remove(RESET) {
        added.clear();
    }
    if drop.remove(RESET) {
        dropped.clear();
    }
    for name in drop.difference(&add) {
        if !added.remove(name) {
            dropped.insert(name.clone());
        }
    }
    for name in add {
        if !dropped.remove(&name) {
            added.insert(name);
        }
    }
    container.capability_add = added.into_iter().collect();
    container.capability_drop = dropped.into_iter().collect();
}

fn health(check: &mut Option<types::Health>, flags: &ServiceFlags) -> Result<()> {
    let durations =
        [flags.health_interval, flags.health_timeout, flags.health_start_period, flags.health_start_interval];
    let asked =
        flags.health_cmd.is_some() || flags.health_retries.is_some() || durations.iter().any(Option::is_some);
    ensure!(!(flags.no_healthcheck && asked), "--no-healthcheck conflicts with --health-* options");
    if flags.no_healthcheck {
        *check = Some(types::Health { test: vec!["NONE".to_owned()], ..Default::default() });
        return Ok(());
    }
    if !asked {
        return Ok(());
    }
    let check = check.get_or_insert_default();
    // What was switched off is on again.
    if check.test.first().is_some_and(|word| word == "NONE") {
        check.test.clear();
    }
    if let Some(line) = &flags.health_cmd {
        check.test = if line.is_empty() { Vec::new() } else { vec!["CMD-SHELL".to_owned(), line.clone()] };
    }
    check.retries = flags.health_retries.unwrap_or(check.retries);
    let fields =
        [&mut check.interval, &mut check.timeout, &mut check.start_period, &mut check.start_interval];
    for (field, said) in fields.into_iter().zip(durations) {
        if let Some(duration) = said {
            *field = nanos(duration)?;
        }
    }
    Ok(())
}

/// Splits a text as a shell does.
fn words(flag: &str, text: &str) -> Result<Vec<String>> {
    shlex::split(text).with_context(|| format!("{flag} {text:?}: a quote in it is not closed"))
}

fn relabel(labels: &mut BTreeMap<String, String>, add: &[String], rm: &[String]) {
    labels.retain(|key, _| !rm.contains(key));
    labels.extend(pairs(add));
}

fn relist(list: &mut Vec<String>, add: Vec<String>, rm: &[String]) {
    list.retain(|old| !rm.contains(old));
    for new in add {
        if !list.contains(&new) {
            list.push(new);
        }
    }
}

fn remount(mounts: &mut Vec<types::Mount>, add: &[String], rm: &[String]) -> Result<()> {
    for new in add.iter().map(|text| create::mount(text)) {
        let new = new?;
        mounts.retain(|old| old.target != new.target);
        mounts.push(new);
    }
    mounts.retain(|mount| !rm.contains(&mount.target));
    Ok(())
}

/// Turns `NAME:ADDRESS` into a line of a hosts file, as specs have it.
fn host(text: &str) -> Result<String> {
    let (name, address) = text
        .split_once([':', '='])
        .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        .with_context(|| format!("bad format for add-host: {text:?} (want NAME:ADDRESS)"))?;
    let address = address.trim_matches(['[', ']']);
    address
        .parse::<std::net::IpAddr>()
        .with_context(|| format!("invalid IP address in add-host: {address:?}"))?;
    Ok(format!("{address} {name}"))
}

/// *Source:* docker/cli `update.go`, `updateHosts`: a name goes with all its addresses, or with the one that is named.
fn rehost(hosts: &mut Vec<String>, add: &[String], rm: &[String]) -> Result<()> {
    for text in rm {
        let (name, address) = match text.split_once(':') {
            Some((name, address)) => (name, Some(address.trim_matches(['[', ']']))),
            None => (text.as_str(), None),
        };
        hosts.retain_mut(|line| {
            let mut parts = line.split_whitespace();
            let of = parts.next().unwrap_or_default().to_owned();
            let names: Vec<&str> = parts.collect();
            if address.is_some_and(|address| address != of) || !names.contains(&name) {
                return true;
            }
            let left: Vec<&str> = names.into_iter().filter(|other| *other != name).collect();
            let (stays, text) = (!left.is_empty(), format!("{of} {}", left.join(" ")));
            *line = text;
            stays
        });
    }
    for text in add {
        let line = host(text)?;
        if !hosts.contains(&line) {
            hosts.push(line);
        }
    }
    Ok(())
}

fn preference(text: &str) -> Result<types::PlacementPreference> {
    let (strategy, over) =
        text.split_once('=').with_context(|| format!("placement preference {text:?} is not spread=..."))?;
    ensure!(strategy == "spread", "unsupported placement preference {strategy} (only spread is supported)");
    Ok(types::PlacementPreference { spread: Some(types::SpreadOver { spread_descriptor: over.to_owned() }) })
}

/// *Source:* docker/cli `generic_resource_opts.go`: what has a name of its own is a node's to say.
fn generic(text: &str) -> Result<types::GenericResource> {
    let (kind, count) =
        text.split_once('=').with_context(|| format!("generic resource {text:?} is not KIND=COUNT"))?;
    let value = count.parse().with_context(|| {
        format!("invalid generic-resource request `{text}`: a service asks for a number of them, not for one by its name")
    })?;
    Ok(types::GenericResource {
        named: None,
        discrete: Some(types::DiscreteResource { kind: kind.to_owned(), value }),
    })
}

/// Reads `[PUBLISHED:]TARGET[/PROTOCOL]`, where both may be ranges, or
/// `published=8080,target=80,protocol=tcp,mode=host`. *Source:* docker/cli `opts/port.go`.
pub(super) fn published(text: &str) -> Result<Vec<types::PortConfig>> {
    let ingress = || types::PortConfig {
        protocol: "tcp".to_owned(),
        publish_mode: "ingress".to_owned(),
        ..Default::default()
    };
    let number = |what: &str, text: &str| -> Result<u32> {
        let port = text.parse::<u16>().with_context(|| format!("invalid {what} port {text:?}"))?;
        Ok(u32::from(port))
    };
    if text.contains('=') {
        let mut port = ingress();
        for field in text.split(',') {
            let (key, value) = field
                .split_once('=')
                .with_context(|| format!("--publish {text}: {field:?} is not KEY=VALUE"))?;
            match key {
                "target" => port.target_port = number("target", value)?,
                "published" => port.published_port = number("published", value)?,
                "protocol" if matches!(value, "tcp" | "udp" | "sctp") => value.clone_into(&mut port.protocol),
                "protocol" => bail!("invalid protocol value {value:?} in {text:?}"),
                "mode" if matches!(value, "ingress" | "host") => value.clone_into(&mut port.publish_mode),
                "mode" => bail!("invalid publish mode value ({value}): must be either 'ingress' or 'host'"),
                other => bail!("invalid field key {other} in {text:?}"),
            }
        }
        ensure!(port.target_port != 0, "missing mandatory field \"target\" in {text:?}");
        return Ok(vec![port]);
    }
    let mut ports = Vec::new();
    for (target, binding) in create::publish(text)? {
        ensure!(
            binding.host_ip.is_empty(),
            "{text:?}: a service is published on every address of its nodes, and not on {} alone",
            binding.host_ip
        );
        let (target, protocol) = target.split_once('/').unwrap_or((&target, "tcp"));
        ensure!(
            !binding.host_port.contains('-'),
            "{text:?}: which port of the range is not chosen for a service"
        );
        let published =
            if binding.host_port.is_empty() { 0 } else { number("published", &binding.host_port)? };
        ports.push(types::PortConfig {
            target_port: number("target", target)?,
            published_port: published,
            protocol: protocol.to_owned(),
            ..ingress()
        });
    }
    Ok(ports)
}

/// *Source:* docker/cli `update.go`, `updatePorts`: what is added comes in the place of what has its target, protocol
/// and published port.
fn republish(ports: &mut Vec<types::PortConfig>, add: &[String], rm: &[String]) -> Result<()> {
    for text in rm {
        for gone in published(text)? {
            let same = |port: &types::PortConfig| {
                (port.target_port, port.protocol.as_str()) == (gone.target_port, gone.protocol.as_str())
            };
            ports.retain(|port| !same(port));
        }
    }
    for text in add {
        for new in published(text)? {
            ports.retain(|port| {
                (port.target_port, port.published_port, &port.protocol)
                    != (new.target_port, new.published_port, &new.protocol)
            });
            ports.push(new);
        }
    }
    Ok(())
}

/// Reads a network, or `name=NETWORK,alias=NAME,driver-opt=KEY=VALUE`. *Source:* docker/cli `opts/network.go`.
fn network(text: &str) -> Result<types::NetworkAttachmentConfig> {
    let mut attachment = types::NetworkAttachmentConfig::default();
    if !text.contains('=') {
        text.clone_into(&mut attachment.target);
        return Ok(attachment);
    }
    for field in create::csv(text) {
        let (key, value) = create::split(&field, '=');
        match key.as_str() {
            "name" => attachment.target = value,
            "alias" => attachment.aliases.push(value),
            "driver-opt" => attachment.driver_opts.extend([create::split(&value, '=')]),
            other => bail!("--network {text}: invalid field key {other}"),
        }
    }
    ensure!(!attachment.target.is_empty(), "--network {text}: name= is missing");
    Ok(attachment)
}

/// Specs name networks by what was typed, or by id.
async fn renetwork(client: &Client, task: &mut types::TaskSpec, add: &[String], rm: &[String]) -> Result<()> {
    for text in rm {
        let id = client.network(text).await?.id;
        task.networks.retain(|network| network.target != *text && network.target != id);
    }
    for text in add {
        let new = network(text)?;
        let id = client.network(&new.target).await?.id;
        task.networks.retain(|network| network.target != new.target && network.target != id);
        task.networks.push(new);
    }
    Ok(())
}

/// Where something of the swarm's is put in a container.
struct File {
    source: String,
    target: types::FileTarget,
}

/// Reads a name, or `source=NAME,target=FILE,uid=0,gid=0,mode=0444`. *Source:* docker/cli `opts/secret.go`.
fn file(flag: &str, text: &str) -> Result<File> {
    let mut source = String::new();
    let mut target =
        types::FileTarget { name: String::new(), uid: "0".to_owned(), gid: "0".to_owned(), mode: 0o444 };
    if !text.contains(['=', ',']) {
        text.clone_into(&mut source);
    } else {
        for field in create::csv(text) {
            let (key, value) = create::split(&field, '=');
            match key.as_str() {
                "source" | "src" => source = value,
                "target" => target.name = value,
                "uid" => target.uid = value,
                "gid" => target.gid = value,
                "mode" => {
                    target.mode = u32::from_str_radix(&value, 8)
                        .with_context(|| format!("{flag} {text}: invalid mode specified: {value}"))?;
                }
                other => bail!("{flag} {text}: invalid field key {other}"),
            }
        }
    }
    ensure!(!source.is_empty(), "{flag} {text}: source is required");
    Ok(File { source, target })
}

async fn secret(client: &Client, text: &str) -> Result<types::SecretReference> {
    let File { source, mut target } = file("--secret", text)?;
    let found = client.secret(&source).await?;
    if target.name.is_empty() {
        target.name.clone_from(&found.spec.name);
    }
    Ok(types::SecretReference { file: Some(target), secret_id: found.id, secret_name: found.spec.name })
}

async fn config(client: &Client, text: &str) -> Result<types::ConfigReference> {
    let File { source, mut target } = file("--config", text)?;
    let found = client.config(&source).await?;
    if target.name.is_empty() {
        target.name.clone_from(&found.spec.name);
    }
    Ok(types::ConfigReference {
        file: Some(target),
        config_id: found.id,
        config_name: found.spec.name,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Cli, Command, Service};
    use clap::FromArgMatches as _;

    fn flags(words: &[&str]) -> ServiceUpdate {
        let typed = [&["rswarm", "service", "update", "web"], words].concat();
        let matches = cli::command().try_get_matches_from(typed).unwrap();
        match Cli::from_arg_matches(&matches).unwrap().command {
            Command::Service(Service::Update(update)) => *update,
            other => panic!("{other:?}"),
        }
    }

    /// The spec of a plain service after these flags.
    fn after(words: &[&str]) -> types::ServiceSpec {
        let mut spec = types::ServiceSpec { mode: mode("replicated"), ..Default::default() };
        apply(&mut spec, &flags(words).flags, Some("web")).unwrap();
        spec
    }

    #[test]
    fn what_is_said_is_set_and_nothing_else() {
        let silent = after(&[]);
        assert!(silent.update_config.is_none() && silent.task_template.resources.is_none());
        assert!(silent.task_template.restart_policy.is_none() && silent.task_template.log_driver.is_none());
        let spec = after(&[
            "--replicas=3",
            "--update-delay=2s",
            "--update-order=start-first",
            "--rollback-monitor=9s",
            "--limit-cpu=1.5",
            "--limit-memory=64m",
            "--reserve-memory=32m",
            "--restart-condition=on-failure",
            "--restart-max-attempts=4",
            "--log-driver=json-file",
            "--log-opt=max-size=1m",
            "--tty",
            "--init=false",
            "--stop-grace-period=3s",
            "--entrypoint=sh -c 'a b'",
            "--health-cmd=true",
            "--health-interval=7s",
            "--replicas-max-per-node=2",
            "--endpoint-mode=dnsrr",
            "--user=1:2",
        ]);
        let update = spec.update_config.unwrap();
        assert_eq!(
            (update.delay, update.order.as_str(), update.parallelism),
            (2_000_000_000, "start-first", 1)
        );
        assert_eq!(spec.rollback_config.unwrap().monitor, 9_000_000_000);
        assert_eq!(spec.mode.replicated.unwrap().replicas, Some(3));
        assert_eq!(spec.endpoint_spec.unwrap().mode, "dnsrr");
        let task = spec.task_template;
        let limits = task.resources.as_ref().unwrap().limits.as_ref().unwrap();
        assert_eq!((limits.nano_cpus, limits.memory_bytes), (1_500_000_000, 64 << 20));
        assert_eq!(task.resources.unwrap().reservations.unwrap().memory_bytes, 32 << 20);
        assert_eq!(task.placement.unwrap().max_replicas, 2);
        let policy = task.restart_policy.unwrap();
        assert_eq!(
            (policy.condition.as_str(), policy.max_attempts, policy.delay),
            ("on-failure", Some(4), None)
        );
        assert_eq!(task.log_driver.unwrap().options["max-size"], "1m");
        let container = task.container_spec.unwrap();
        assert_eq!(container.command, ["sh", "-c", "a b"]);
        assert_eq!((container.tty, container.init, container.user.as_str()), (true, Some(false), "1:2"));
        assert_eq!(container.stop_grace_period, Some(3_000_000_000));
        let check = container.healthcheck.unwrap();
        assert_eq!(
            (check.test.as_slice(), check.interval),
            (&["CMD-SHELL".to_owned(), "true".to_owned()][..], 7_000_000_000)
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = |mode_word: &str, words: &[&str]| {
            let mut spec = types::ServiceSpec { mode: mode(mode_word), ..Default::default() };
            apply(&mut spec, &flags(words).flags, None).unwrap_err().to_string()
        };
        assert!(refused("global", &["--replicas=2"]).contains("replicas can only be used with replicated"));
        assert!(refused("replicated", &["--max-concurrent=2"]).contains("replicated-job mode"));
        assert!(refused("global", &["--replicas-max-per-node=2"]).contains("replicas-max-per-node"));
        assert!(refused("replicated", &["--no-healthcheck", "--health-cmd=x"]).contains("conflicts with"));
        assert!(refused("replicated", &["--limit-cpu=x"]).contains("--limit-cpu"));
        assert!(refused("replicated", &["--entrypoint='x"]).contains("not closed"));
        assert!(
            alone(&flags(&["--rollback", "--image=x"])).is_err()
                && alone(&flags(&["--rollback", "-d"])).is_ok()
        );
        assert!(alone(&flags(&["--rollback", "--tty=false"])).is_err());
    }

    #[test]
    fn a_job_runs_all_at_once_unless_told_otherwise() {
        let job = |words: &[&str]| {
            let mut mode = mode("replicated-job");
            count(&mut mode, &flags(words).flags, None).unwrap();
            let job = mode.replicated_job.unwrap();
            (job.total_completions, job.max_concurrent)
        };
        assert_eq!(job(&[]), (Some(1), Some(1)));
        assert_eq!(job(&["--replicas=5"]), (Some(5), Some(5)));
        assert_eq!(job(&["--replicas=5", "--max-concurrent=2"]), (Some(5), Some(2)));
    }

    #[test]
    fn ports_are_read_in_both_words_and_replaced_by_target() {
        let port = |text: &str| {
            let of = |p: types::PortConfig| {
                format!("{}:{}/{} {}", p.published_port, p.target_port, p.protocol, p.publish_mode)
            };
            published(text).unwrap().into_iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(port("80"), ["0:80/tcp ingress"]);
        assert_eq!(port("8080:80/udp"), ["8080:80/udp ingress"]);
        assert_eq!(port("8080-8081:80-81"), ["8080:80/tcp ingress", "8081:81/tcp ingress"]);
        assert_eq!(port("target=80,published=8080,mode=host"), ["8080:80/tcp host"]);
        for bad in [
            "127.0.0.1:80:80",
            "x",
            "published=80",
            "target=80,mode=x",
            "target=80,colour=red",
            "8000-8009:80",
        ] {
            assert!(published(bad).is_err(), "{bad}");
        }
        let mut ports = published("8080:80").unwrap();
        republish(&mut ports, &["8080:80".into(), "9090:90/udp".into()], &[]).unwrap();
        assert_eq!(ports.len(), 2);
        republish(&mut ports, &[], &["80".into(), "90".into()]).unwrap();
        assert_eq!(ports.iter().map(|p| p.target_port).collect::<Vec<_>>(), [90], "90/tcp is another port");
    }

    #[test]
    fn names_capabilities_and_files_are_added_and_taken_away() {
        let mut hosts = vec!["1.2.3.4 a b".to_owned(), "5.6.7.8 a".to_owned()];
        rehost(&mut hosts, &["c:9.9.9.9".into()], &["a:5.6.7.8".into(), "b".into()]).unwrap();
        assert_eq!(hosts, ["1.2.3.4 a", "9.9.9.9 c"]);
        assert!(rehost(&mut hosts, &["c:x".into()], &[]).is_err());

        let mut container =
            types::ContainerSpec { capability_drop: vec!["CAP_KILL".into()], ..Default::default() };
        let mut say = |add: &[&str], drop: &[&str]| {
            let words = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            capabilities(&mut container, &words(add), &words(drop));
            (container.capability_add.join(" "), container.capability_drop.join(" "))
        };
        let pair = |add: &str, drop: &str| (add.to_owned(), drop.to_owned());
        assert_eq!(say(&["kill", "NET_ADMIN"], &["chown", "NET_ADMIN"]), pair("CAP_NET_ADMIN", "CAP_CHOWN"));
        assert_eq!(say(&[], &["CAP_NET_ADMIN"]), pair("", "CAP_CHOWN"));
        assert_eq!(say(&["ALL"], &["RESET"]), pair("ALL", ""));
        assert_eq!(say(&["RESET", "KILL"], &[]), pair("CAP_KILL", ""));

        let read = file("--secret", "source=db,target=/run/x,uid=5,mode=0400").unwrap();
        assert_eq!(
            (read.source.as_str(), read.target.name.as_str(), read.target.mode),
            ("db", "/run/x", 0o400)
        );
        assert_eq!(file("--secret", "db").unwrap().target.mode, 0o444);
        assert!(file("--secret", "target=x").is_err() && file("--secret", "source=a,colour=red").is_err());
        let read = network("name=back,alias=db,\"driver-opt=a=b\"").unwrap();
        assert_eq!((read.target.as_str(), read.aliases.as_slice()), ("back", &["db".to_owned()][..]));
        assert_eq!(generic("gpu=2").unwrap().discrete.unwrap().value, 2);
        assert!(generic("gpu=UUID-1").is_err() && preference("binpack=x").is_err());
    }
}
