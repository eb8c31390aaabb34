//! Services: the spec both ways, the stored service outward.

use super::{
    Invalid, Networks, Result, condition, condition_word,
    container::{container_spec, container_spec_json},
    dependency, dependency_word, duration, endpoint_mode, endpoint_mode_word, failure_action,
    failure_action_word,
    generic::{generic_requests, generic_requests_json},
    invalid, nanos, order, order_word, protocol, protocol_word, publish_mode, publish_mode_word, signed,
    unsigned, update_state_word,
};
use crate::types::{self, ObjectVersion};
use model::{
    Dependency, EndpointSpec, FailureAction, LogDriver, Mode, NetworkAttachmentSpec, NetworkId,
    PlacementSpec, Platform, PortConfig, ResourceRequirements, Resources, RestartPolicy, Said, Service,
    ServiceSpec, TaskSpec, UpdateOrder, UpdatePolicy,
};
use std::sync::Arc;

/// Reads a service as a person asks for it. `network` finds a network by name or id.
pub fn service_spec(
    from: types::ServiceSpec,
    network: impl Fn(&str) -> Option<NetworkId>,
) -> Result<ServiceSpec> {
    let types::ServiceSpec {
        name,
        labels,
        task_template: mut template,
        mode: wanted_mode,
        update_config,
        rollback_config,
        networks,
        endpoint_spec: endpoint,
        depends_on,
    } = from;
    check_name(&name)?;
    let outside = template.networks.is_empty() && !networks.is_empty();
    if outside {
        template.networks = networks;
    }
    let zero_window = template.restart_policy.as_ref().is_some_and(|policy| policy.window == Some(0));
    let no_selinux = template
        .container_spec
        .as_mut()
        .and_then(|container| container.privileges.as_mut())
        .and_then(|privileges| privileges.selinux_context.take_if(|context| only_disables(context)))
        .is_some();
    let said = Said::default()
        .with(Said::NO_SELINUX, no_selinux)
        .with(Said::NO_UPDATE, update_config.is_none())
        .with(Said::NO_ROLLBACK, rollback_config.is_none())
        .with(Said::ZERO_WINDOW, zero_window)
        .with(Said::NETWORKS_OUTSIDE, outside);
    let endpoint = endpoint.map(endpoint_spec).transpose()?.unwrap_or_default();
    if endpoint.mode == model::EndpointMode::DnsRr
        && endpoint.ports.iter().any(|p| p.mode == model::PublishMode::Ingress)
    {
        return invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    }
    let rollback = update_policy(rollback_config)?;
    if rollback.on_failure == FailureAction::Rollback {
        return invalid("invalid RollbackConfig.FailureAction: \"rollback\"");
    }
    Ok(ServiceSpec {
        name,
        labels,
        task: Arc::new(task_spec(template, network)?),
        mode: mode(wanted_mode)?,
        update: update_policy(update_config)?,
        rollback,
        endpoint,
        depends_on: depends_on
            .into_iter()
            .map(|types::DependsOn { service, condition }| {
                let condition = if condition.is_empty() { "service_started" } else { condition.as_str() };
                Ok(Dependency { condition: dependency(condition)?, service })
            })
            .collect::<Result<_>>()?,
        said,
    })
}

/// Writes a service as a person asks for it.
pub fn service_spec_json(from: &ServiceSpec) -> types::ServiceSpec {
    let mut to = whole_spec_json(from);
    if from.said.has(Said::NO_UPDATE) {
        to.update_config = None;
    }
    if from.said.has(Said::NO_ROLLBACK) {
        to.rollback_config = None;
    }
    to
}

/// Writes a service with the defaults of what was not said. *Source:* Docker API `ServiceInspect`, `insertDefaults`.
pub fn whole_spec_json(from: &ServiceSpec) -> types::ServiceSpec {
    let ServiceSpec { name, labels, task, mode, update, rollback, endpoint, depends_on, said } = from;
    let mut template = task_spec_json(task);
    if said.has(Said::ZERO_WINDOW)
        && let Some(policy) = &mut template.restart_policy
    {
        policy.window = policy.window.or(Some(0));
    }
    if said.has(Said::NO_SELINUX)
        && let Some(container) = &mut template.container_spec
    {
        let privileges = container.privileges.get_or_insert_default();
        privileges.selinux_context = Some(serde_json::json!({ "Disable": true }));
    }
    let outside = said.has(Said::NETWORKS_OUTSIDE);
    let networks = if outside { std::mem::take(&mut template.networks) } else { Vec::new() };
    types::ServiceSpec {
        name: name.clone(),
        labels: labels.clone(),
        task_template: template,
        mode: mode_json(*mode),
        update_config: Some(update_policy_json(update)),
        rollback_config: Some(update_policy_json(rollback)),
        networks,
        endpoint_spec: Some(endpoint_spec_json(endpoint)),
        depends_on: depends_on
            .iter()
            .map(|Dependency { service, condition }| types::DependsOn {
                service: service.clone(),
                condition: dependency_word(*condition).into(),
            })
            .collect(),
    }
}

/// Returns true for a context of SELinux that is to be off, and says nothing else.
fn only_disables(context: &serde_json::Value) -> bool {
    let nothing = |value: &serde_json::Value| value.is_null() || value == "" || value == false;
    let Some(members) = context.as_object() else { return false };
    members.iter().all(|(name, value)| if name == "Disable" { value == true } else { nothing(value) })
        && members.contains_key("Disable")
}

/// Returns Docker's rule for names of services, secrets, configs and networks.
///
/// # Errors
/// In SwarmKit's words. *Source:* swarmkit `manager/controlapi/common.go`, `validateAnnotations`.
pub fn check_name(name: &str) -> Result<()> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if name.is_empty() {
        return invalid("meta: name must be provided");
    }
    let ends = [name.as_bytes().first(), name.as_bytes().last()];
    if !name.bytes().all(ok) || !ends.iter().flatten().all(|b| b.is_ascii_alphanumeric()) {
        return invalid(format!(
            "invalid name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9-_.]*[a-zA-Z0-9] are allowed"
        ));
    }
    if name.len() > 63 {
        return invalid("name must be 63 characters or fewer");
    }
    Ok(())
}

fn mode(from: types::ServiceMode) -> Result<Mode> {
    let types::ServiceMode { replicated, global, replicated_job, global_job } = from;
    match (replicated, global, replicated_job, global_job) {
        (replicated, None, None, None) => {
            let types::Replicated { replicas } = replicated.unwrap_or_default();
            Ok(Mode::Replicated { replicas: replicas.unwrap_or(1) })
        }
        (None, Some(types::Empty {}), None, None) => Ok(Mode::Global),
        (None, None, Some(types::ReplicatedJob { max_concurrent, total_completions }), None) => {
            let max_concurrent = max_concurrent.unwrap_or(1);
            Ok(Mode::ReplicatedJob { max_concurrent, total: total_completions.unwrap_or(max_concurrent) })
        }
        (None, None, None, Some(types::Empty {})) => Ok(Mode::GlobalJob),
        _ => invalid("must specify only one service mode"),
    }
}

fn mode_json(from: Mode) -> types::ServiceMode {
    let mut to = types::ServiceMode::default();
    match from {
        Mode::Replicated { replicas } => {
            to.replicated = Some(types::Replicated { replicas: Some(replicas) });
        }
        Mode::Global => to.global = Some(types::Empty {}),
        Mode::ReplicatedJob { max_concurrent, total } => {
            to.replicated_job = Some(types::ReplicatedJob {
                max_concurrent: Some(max_concurrent),
                total_completions: Some(total),
            });
        }
        Mode::GlobalJob => to.global_job = Some(types::Empty {}),
    }
    to
}

fn update_policy(from: Option<types::UpdateConfig>) -> Result<UpdatePolicy> {
    let default = UpdatePolicy::default();
    let Some(from) = from else { return Ok(default) };
    let types::UpdateConfig {
        parallelism,
        delay,
        failure_action: on_failure,
        monitor,
        max_failure_ratio,
        order: wanted_order,
        progress_deadline,
    } = from;
    if !(0.0..=1.0).contains(&max_failure_ratio) {
        return invalid("TaskSpec: max-failure-ratio cannot be less than 0 or bigger than 1");
    }
    let monitor = duration(monitor, "TaskSpec: update-monitor")?;
    let progress_deadline = duration(progress_deadline, "TaskSpec: ProgressDeadline")?;
    Ok(UpdatePolicy {
        parallelism,
        delay: duration(delay, "TaskSpec: update-delay")?,
        monitor: if monitor.is_zero() { default.monitor } else { monitor },
        on_failure: match on_failure.as_str() {
            "" => default.on_failure,
            word => failure_action(word)?,
        },
        max_failure_ratio_ppm: ppm(max_failure_ratio),
        order: match wanted_order.as_str() {
            "" => UpdateOrder::StopFirst,
            word => order(word)?,
        },
        progress_deadline: (!progress_deadline.is_zero()).then_some(progress_deadline),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ratio is in 0..=1")]
fn ppm(ratio: f64) -> u32 {
    (ratio * 1e6).round() as u32
}

fn update_policy_json(from: &UpdatePolicy) -> types::UpdateConfig {
    let UpdatePolicy {
        parallelism,
        delay,
        monitor,
        on_failure,
        max_failure_ratio_ppm,
        order,
        progress_deadline,
    } = *from;
    types::UpdateConfig {
        parallelism,
        delay: nanos(delay),
        failure_action: failure_action_word(on_failure).into(),
        monitor: nanos(monitor),
        max_failure_ratio: f64::from(max_failure_ratio_ppm) / 1e6,
        order: order_word(order).into(),
        progress_deadline: progress_deadline.map_or(0, nanos),
    }
}

fn endpoint_spec(from: types::EndpointSpec) -> Result<EndpointSpec> {
    let types::EndpointSpec { mode, ports } = from;
    Ok(EndpointSpec {
        mode: if mode.is_empty() { model::EndpointMode::Vip } else { endpoint_mode(&mode)? },
        ports: ports.into_iter().map(port).collect::<Result<_>>()?,
    })
}

fn endpoint_spec_json(from: &EndpointSpec) -> types::EndpointSpec {
    let EndpointSpec { mode, ports } = from;
    types::EndpointSpec {
        mode: endpoint_mode_word(*mode).into(),
        ports: ports.iter().map(port_json).collect(),
    }
}

fn port(from: types::PortConfig) -> Result<PortConfig> {
    let types::PortConfig { name, protocol: word, target_port, published_port, publish_mode: mode } = from;
    let number = |value: u32, what: &str| {
        u16::try_from(value).map_err(|_| Invalid(format!("invalid {what} port: {value}")))
    };
    if target_port == 0 {
        return invalid("EndpointSpec: target port must be given");
    }
    Ok(PortConfig {
        name,
        protocol: if word.is_empty() { model::Protocol::Tcp } else { protocol(&word)? },
        target: number(target_port, "target")?,
        published: number(published_port, "published")?,
        mode: if mode.is_empty() { model::PublishMode::Ingress } else { publish_mode(&mode)? },
    })
}

pub(super) fn port_json(from: &PortConfig) -> types::PortConfig {
    let PortConfig { name, protocol, target, published, mode } = from;
    types::PortConfig {
        name: name.clone(),
        protocol: protocol_word(*protocol).into(),
        target_port: u32::from(*target),
        published_port: u32::from(*published),
        publish_mode: publish_mode_word(*mode).into(),
    }
}

fn task_spec(from: types::TaskSpec, network: impl Fn(&str) -> Option<NetworkId>) -> Result<TaskSpec> {
    let types::TaskSpec {
        container_spec: container,
        resources: wanted,
        restart_policy: restart,
        placement: places,
        networks,
        log_driver,
        force_update,
        runtime,
    } = from;
    if !matches!(runtime.as_str(), "" | "container") {
        return invalid(format!("unsupported task runtime {runtime:?}"));
    }
    let Some(container) = container else {
        return invalid("TaskSpec: missing runtime: a ContainerSpec is needed");
    };
    let attachment = |from: types::NetworkAttachmentConfig| {
        let types::NetworkAttachmentConfig { target, aliases, driver_opts } = from;
        let network = network(&target).ok_or_else(|| Invalid(format!("network {target} not found")))?;
        Ok(NetworkAttachmentSpec { network, aliases, driver_opts })
    };
    Ok(TaskSpec {
        container: container_spec(container)?,
        resources: resources(wanted.unwrap_or_default())?,
        restart: restart_policy(restart)?,
        placement: placement(places.unwrap_or_default())?,
        networks: networks.into_iter().map(attachment).collect::<Result<_>>()?,
        log_driver: log_driver.map(|types::LogDriver { name, options }| LogDriver { name, options }),
        force_update,
    })
}

/// Writes a task's template.
pub fn task_spec_json(from: &TaskSpec) -> types::TaskSpec {
    let TaskSpec { container, resources, restart, placement, networks, log_driver, force_update } = from;
    let attachment = |from: &NetworkAttachmentSpec| {
        let NetworkAttachmentSpec { network, aliases, driver_opts } = from;
        types::NetworkAttachmentConfig {
            target: network.to_string(),
            aliases: aliases.clone(),
            driver_opts: driver_opts.clone(),
        }
    };
    let log = |LogDriver { name, options }: &LogDriver| types::LogDriver {
        name: name.clone(),
        options: options.clone(),
    };
    types::TaskSpec {
        container_spec: Some(container_spec_json(container)),
        resources: Some(resources_json(resources)),
        restart_policy: Some(restart_policy_json(restart)),
        placement: Some(placement_json(placement)),
        networks: networks.iter().map(attachment).collect(),
        log_driver: log_driver.as_ref().map(log),
        force_update: *force_update,
        runtime: "container".into(),
    }
}

/// Returns what to tell whoever makes or changes a service: options for drivers of networks that no driver here knows.
pub fn service_warnings(spec: &ServiceSpec) -> Vec<String> {
    let keys = spec.task.networks.iter().flat_map(|attachment| attachment.driver_opts.keys());
    keys.map(|key| format!("Networks.DriverOpts: no network driver here knows {key:?}. Discarded.")).collect()
}

fn resources(from: types::ResourceRequirements) -> Result<ResourceRequirements> {
    let types::ResourceRequirements { limits, reservations, swap_bytes, memory_swappiness } = from;
    for (name, given) in [("SwapBytes", swap_bytes), ("MemorySwappiness", memory_swappiness)] {
        if given.is_some() {
            return invalid(format!("Resources.{name} is not supported in services"));
        }
    }
    let types::ResourceLimit { nano_cpus, memory_bytes, pids } = limits.unwrap_or_default();
    let limits = Resources {
        cpu_nanos: unsigned(nano_cpus, "NanoCPUs")?,
        memory_bytes: unsigned(memory_bytes, "MemoryBytes")?,
        pids: unsigned(pids, "Pids")?,
    };
    let types::ResourceReservation { nano_cpus, memory_bytes, generic_resources } =
        reservations.unwrap_or_default();
    let reservations = Resources {
        cpu_nanos: unsigned(nano_cpus, "NanoCPUs")?,
        memory_bytes: unsigned(memory_bytes, "MemoryBytes")?,
        pids: 0,
    };
    Ok(ResourceRequirements { limits, reservations, generic: generic_requests(generic_resources)? })
}

fn resources_json(from: &ResourceRequirements) -> types::ResourceRequirements {
    let ResourceRequirements { limits, reservations, generic } = from;
    let none = Resources::default();
    let limit = |Resources { cpu_nanos, memory_bytes, pids }| types::ResourceLimit {
        nano_cpus: signed(cpu_nanos),
        memory_bytes: signed(memory_bytes),
        pids: signed(pids),
    };
    // `pids`: of limits only.
    let reservation = |Resources { cpu_nanos, memory_bytes, pids: _ }| types::ResourceReservation {
        nano_cpus: signed(cpu_nanos),
        memory_bytes: signed(memory_bytes),
        generic_resources: generic_requests_json(generic),
    };
    types::ResourceRequirements {
        limits: (*limits != none).then(|| limit(*limits)),
        reservations: (*reservations != none || !generic.is_empty()).then(|| reservation(*reservations)),
        swap_bytes: None, // what is refused
        memory_swappiness: None,
    }
}

fn restart_policy(from: Option<types::TaskRestartPolicy>) -> Result<RestartPolicy> {
    let default = RestartPolicy::default();
    let Some(from) = from else { return Ok(default) };
    let types::TaskRestartPolicy { condition: on, delay, max_attempts, window } = from;
    let time = |given: Option<i64>, what: &str, default| {
        given.map(|nanos| duration(nanos, what)).transpose().map(|given| given.unwrap_or(default))
    };
    Ok(RestartPolicy {
        condition: match on.as_str() {
            "" => default.condition,
            word => condition(word)?,
        },
        delay: time(delay, "TaskSpec: restart-delay", default.delay)?,
        max_attempts: max_attempts.unwrap_or_default(),
        window: time(window, "TaskSpec: restart-window", default.window)?,
    })
}

fn restart_policy_json(from: &RestartPolicy) -> types::TaskRestartPolicy {
    let RestartPolicy { condition, delay, max_attempts, window } = from;
    types::TaskRestartPolicy {
        condition: condition_word(*condition).into(),
        delay: Some(nanos(*delay)),
        max_attempts: Some(*max_attempts),
        window: (!window.is_zero()).then(|| nanos(*window)),
    }
}

fn placement(from: types::Placement) -> Result<PlacementSpec> {
    let types::Placement { constraints, preferences, max_replicas, platforms } = from;
    let constraint = |c: &String| c.parse().map_err(|e: model::InvalidConstraint| Invalid(e.to_string()));
    Ok(PlacementSpec {
        constraints: constraints.iter().map(constraint).collect::<Result<_>>()?,
        spread: preferences
            .into_iter()
            .filter_map(|types::PlacementPreference { spread }| spread)
            .map(|types::SpreadOver { spread_descriptor }| spread_descriptor)
            .collect(),
        max_replicas_per_node: max_replicas,
        platforms: platforms
            .into_iter()
            .map(|types::Platform { architecture, os }| Platform { os, architecture })
            .collect(),
    })
}

fn placement_json(from: &PlacementSpec) -> types::Placement {
    let PlacementSpec { constraints, spread, max_replicas_per_node, platforms } = from;
    let over = |label: &String| types::PlacementPreference {
        spread: Some(types::SpreadOver { spread_descriptor: label.clone() }),
    };
    let platform = |Platform { os, architecture }: &Platform| types::Platform {
        architecture: architecture.clone(),
        os: os.clone(),
    };
    types::Placement {
        constraints: constraints.iter().map(ToString::to_string).collect(),
        preferences: spread.iter().map(over).collect(),
        max_replicas: *max_replicas_per_node,
        platforms: platforms.iter().map(platform).collect(),
    }
}

/// Writes a stored service.
pub fn service_json(from: &Service, networks: &Networks) -> types::Service {
    let is_job = matches!(from.spec.mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob);
    types::Service {
        id: from.id.to_string(),
        // Of the spec: an update must name it, and only another change of the spec makes it stale.
        version: ObjectVersion { index: from.spec_version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        spec: service_spec_json(&from.spec),
        previous_spec: from.previous.as_deref().map(service_spec_json),
        endpoint: types::ServiceEndpoint {
            spec: endpoint_spec_json(&from.spec.endpoint),
            ports: from.endpoint.ports.iter().map(port_json).collect(),
            virtual_ips: from
                .endpoint
                .vips
                .iter()
                .map(|vip| {
                    let prefix = networks
                        .get(&vip.network)
                        .and_then(|n| n.allocation)
                        .map_or(String::new(), |a| format!("/{}", a.subnet.prefix_len()));
                    types::VirtualIp {
                        network_id: vip.network.to_string(),
                        addr: format!("{}{prefix}", vip.address),
                    }
                })
                .collect(),
        },
        update_status: from.update.as_ref().map(|u| types::UpdateStatus {
            state: update_state_word(u.state).into(),
            started_at: Some(u.started_at.into()),
            completed_at: u.completed_at.map(Into::into),
            message: u.message.clone(),
        }),
        service_status: None,
        job_status: is_job.then_some(types::JobStatus {
            job_iteration: ObjectVersion { index: from.job_iteration },
            last_execution: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ContainerSpec, Duration, FileRef, Mount, MountKind, RestartCondition, SecretId};

    fn round_trip(spec: &ServiceSpec) -> ServiceSpec {
        let text = serde_json::to_vec(&service_spec_json(spec)).unwrap();
        service_spec(types::parse(&text).unwrap(), |id| id.parse().ok()).unwrap()
    }

    fn full() -> ServiceSpec {
        let container = ContainerSpec {
            image: "web:1@sha256:00".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            command: vec!["/bin/web".into()],
            args: vec!["-v".into()],
            env: vec!["NAME=x".into(), "GONE".into()],
            hostname: Some("{{.Task.Slot}}".into()),
            working_dir: Some("/srv".into()),
            user: Some("web:web".into()),
            groups: vec!["7".into()],
            tty: true,
            open_stdin: true,
            read_only: true,
            mounts: vec![
                Mount {
                    kind: MountKind::Bind {
                        source: "/a".into(),
                        propagation: Some("rshared".into()),
                        create: true,
                        recursion: model::BindRecursion::ReadOnly,
                    },
                    target: "/b".into(),
                    read_only: true,
                },
                Mount {
                    kind: MountKind::Volume {
                        name: Some("v".into()),
                        driver: Some("local".into()),
                        driver_opts: [("o".to_owned(), "bind".to_owned())].into(),
                        labels: [("l".to_owned(), "m".to_owned())].into(),
                        no_copy: true,
                    },
                    target: "/c".into(),
                    read_only: false,
                },
                Mount {
                    kind: MountKind::Tmpfs { size_bytes: Some(4096), mode: Some(0o1777) },
                    target: "/d".into(),
                    read_only: false,
                },
            ],
            stop_signal: Some("SIGINT".into()),
            stop_grace_period: Some(Duration::from_millis(1500)),
            healthcheck: Some(model::Healthcheck {
                test: vec!["CMD".into(), "true".into()],
                interval: Some(Duration::from_secs(2)),
                timeout: Some(Duration::from_secs(1)),
                start_period: Some(Duration::from_secs(3)),
                start_interval: Some(Duration::from_millis(100)),
                retries: Some(4),
            }),
            hosts: vec!["1.2.3.4 db".into()],
            dns: model::DnsConfig {
                nameservers: vec!["8.8.8.8".parse().unwrap()],
                search: vec!["example.org".into()],
                options: vec!["ndots:2".into()],
            },
            secrets: vec![FileRef {
                id: SecretId(7),
                name: "token".into(),
                target: "/run/secrets/token".into(),
                uid: "1".into(),
                gid: "2".into(),
                mode: 0o440,
            }],
            configs: Vec::new(),
            init: Some(true),
            sysctls: [("net.core.somaxconn".to_owned(), "1024".to_owned())].into(),
            cap_add: vec!["CAP_NET_ADMIN".into()],
            cap_drop: vec!["ALL".into()],
            ulimits: vec![model::Ulimit { name: "nofile".into(), soft: 1, hard: 2 }],
            privileged: true,
            no_new_privileges: true,
            shm_size_bytes: Some(1 << 20),
            oom_score_adj: -5,
            host: Some(model::HostOptions {
                devices: vec![model::DeviceMapping {
                    host_path: "/dev/fuse".into(),
                    container_path: "/dev/fuse".into(),
                    permissions: "rwm".into(),
                }],
                ipc: Some("host".into()),
                memory_swap_bytes: -1,
                ..model::HostOptions::default()
            }),
            post_start: vec![model::Hook { command: vec!["/warm".into()], ..model::Hook::default() }],
            pre_stop: Vec::new(),
        };
        ServiceSpec {
            name: "stack_web".into(),
            labels: [("com.docker.stack.namespace".to_owned(), "stack".to_owned())].into(),
            task: Arc::new(TaskSpec {
                container,
                resources: ResourceRequirements {
                    limits: Resources { cpu_nanos: 500_000_000, memory_bytes: 1 << 26, pids: 100 },
                    reservations: Resources { cpu_nanos: 1, memory_bytes: 2, pids: 0 },
                    generic: [("gpu".to_owned(), model::Want::Count(2))].into(),
                },
                restart: RestartPolicy {
                    condition: RestartCondition::OnFailure,
                    delay: Duration::ZERO,
                    max_attempts: 3,
                    window: Duration::from_secs(10),
                },
                placement: PlacementSpec {
                    constraints: vec!["node.role==worker".parse().unwrap()],
                    spread: vec!["node.labels.rack".into()],
                    max_replicas_per_node: 2,
                    platforms: vec![Platform { os: "linux".into(), architecture: "amd64".into() }],
                },
                networks: vec![NetworkAttachmentSpec {
                    network: NetworkId(9),
                    aliases: vec!["web".into()],
                    driver_opts: [("org.example.colour".to_owned(), "red".to_owned())].into(),
                }],
                log_driver: Some(LogDriver { name: "json-file".into(), options: types::StringMap::new() }),
                force_update: 3,
            }),
            mode: Mode::Replicated { replicas: 0 },
            update: UpdatePolicy {
                parallelism: 0,
                delay: Duration::from_secs(1),
                monitor: Duration::from_secs(2),
                on_failure: FailureAction::Rollback,
                max_failure_ratio_ppm: 123_456,
                order: UpdateOrder::StartFirst,
                progress_deadline: Some(Duration::from_secs(90)),
            },
            rollback: UpdatePolicy::default(),
            endpoint: EndpointSpec {
                mode: model::EndpointMode::Vip,
                ports: vec![PortConfig {
                    name: "http".into(),
                    protocol: model::Protocol::Udp,
                    target: 80,
                    published: 8080,
                    mode: model::PublishMode::Host,
                }],
            },
            depends_on: vec![Dependency {
                service: "stack_db".into(),
                condition: model::DependencyCondition::Healthy,
            }],
            said: Said::default(),
        }
    }

    #[test]
    fn a_service_spec_survives_docker_json() {
        assert_eq!(round_trip(&full()), full());
        for mode in [
            Mode::Global,
            Mode::GlobalJob,
            Mode::ReplicatedJob { max_concurrent: 2, total: 5 },
            Mode::Replicated { replicas: 3 },
        ] {
            let mut spec = full();
            spec.mode = mode;
            assert_eq!(round_trip(&spec).mode, mode);
        }
    }

    #[test]
    fn what_docker_leaves_out_gets_dockers_defaults() {
        let shows = |json: &[u8]| {
            let spec = service_spec(types::parse(json).unwrap(), |id| id.parse().ok()).unwrap();
            let shown = serde_json::to_value(service_spec_json(&spec)).unwrap();
            (spec, shown)
        };
        let (spec, shown) = shows(
            br#"{"Name":"w","TaskTemplate":{"ContainerSpec":{"Image":"x","Privileges":{"SELinuxContext":{"Disable":true,
                "User":""}}},"RestartPolicy":{"Window":0}},
                "Networks":[{"Target":"0000000000000000000000009"}]}"#,
        );
        assert_eq!(shown.get("UpdateConfig"), None, "what was not said is not shown");
        assert_eq!(shown.get("RollbackConfig"), None);
        assert_eq!(shown["TaskTemplate"]["RestartPolicy"]["Window"], 0);
        assert_eq!(shown["Networks"][0]["Target"], "0000000000000000000000009");
        let privileges = &shown["TaskTemplate"]["ContainerSpec"]["Privileges"];
        assert_eq!(privileges["SELinuxContext"]["Disable"], true);
        assert_eq!(
            shown["TaskTemplate"].get("Networks"),
            None,
            "networks are shown once, where they were said"
        );
        assert_eq!(round_trip(&spec), spec);
        let whole = serde_json::to_value(whole_spec_json(&spec)).unwrap();
        assert_eq!(whole["RollbackConfig"]["Parallelism"], 1);
        let json = br#"{"Name":"w","Labels":null,"TaskTemplate":{"ContainerSpec":{"Image":"x"}},"Mode":{}}"#;
        let spec = service_spec(types::parse(json).unwrap(), |_| None).unwrap();
        assert_eq!(spec.mode, Mode::Replicated { replicas: 1 });
        assert_eq!(spec.update, UpdatePolicy::default());
        assert_eq!(spec.task.restart, RestartPolicy::default());
        assert_eq!(round_trip(&spec), spec);
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_reason() {
        let check = |json: &str, want: &str| {
            let spec = types::parse(json.as_bytes()).unwrap();
            let got = service_spec(spec, |_| None).unwrap_err().to_string();
            assert!(got.contains(want), "{got} does not contain {want}");
        };
        check(r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}}}"#, "name must be provided");
        check(r#"{"Name":"a b","TaskTemplate":{"ContainerSpec":{"Image":"x"}}}"#, "invalid name");
        check(r#"{"Name":"a"}"#, "ContainerSpec");
        check(
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x",
                "Privileges":{"SELinuxContext":{"Disable":true,"Type":"t"}}}}}"#,
            "SELinuxContext is not supported",
        );
        check(r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{}}}"#, "image reference");
        check(
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"},"Networks":[{"Target":"no"}]}}"#,
            "network no not found",
        );
        check(
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"},"Placement":{"Constraints":["a"]}}}"#,
            "invalid constraint",
        );
        check(
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"}},"Mode":{"Global":{},"Replicated":{}}}"#,
            "only one service mode",
        );
    }
}
