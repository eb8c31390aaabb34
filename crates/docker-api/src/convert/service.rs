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
    check_name(&from.name)?;
    let mut template = from.task_template;
    let outside = template.networks.is_empty() && !from.networks.is_empty();
    if outside {
        template.networks = from.networks;
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
        .with(Said::NO_UPDATE, from.update_config.is_none())
        .with(Said::NO_ROLLBACK, from.rollback_config.is_none())
        .with(Said::ZERO_WINDOW, zero_window)
        .with(Said::NETWORKS_OUTSIDE, outside);
    let endpoint = from.endpoint_spec.map(endpoint_spec).transpose()?.unwrap_or_default();
    if endpoint.mode == model::EndpointMode::DnsRr
        && endpoint.ports.iter().any(|p| p.mode == model::PublishMode::Ingress)
    {
        return invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    }
    let rollback = update_policy(from.rollback_config)?;
    if rollback.on_failure == FailureAction::Rollback {
        return invalid("invalid RollbackConfig.FailureAction: \"rollback\"");
    }
    Ok(ServiceSpec {
        name: from.name,
        labels: from.labels,
        task: Arc::new(task_spec(template, network)?),
        mode: mode(from.mode)?,
        update: update_policy(from.update_config)?,
        rollback,
        endpoint,
        depends_on: from
            .depends_on
            .into_iter()
            .map(|d| {
                let condition = if d.condition.is_empty() { "service_started" } else { d.condition.as_str() };
                Ok(Dependency { condition: dependency(condition)?, service: d.service })
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
    let mut template = task_spec_json(&from.task);
    if from.said.has(Said::ZERO_WINDOW)
        && let Some(policy) = &mut template.restart_policy
    {
        policy.window = policy.window.or(Some(0));
    }
    if from.said.has(Said::NO_SELINUX)
        && let Some(container) = &mut template.container_spec
    {
        let privileges = container.privileges.get_or_insert_default();
        privileges.selinux_context = Some(serde_json::json!({ "Disable": true }));
    }
    let outside = from.said.has(Said::NETWORKS_OUTSIDE);
    let networks = if outside { std::mem::take(&mut template.networks) } else { Vec::new() };
    types::ServiceSpec {
        name: from.name.clone(),
        labels: from.labels.clone(),
        task_template: template,
        mode: mode_json(from.mode),
        update_config: Some(update_policy_json(&from.update)),
        rollback_config: Some(update_policy_json(&from.rollback)),
        networks,
        endpoint_spec: Some(endpoint_spec_json(&from.endpoint)),
        depends_on: from
            .depends_on
            .iter()
            .map(|d| types::DependsOn {
                service: d.service.clone(),
                condition: dependency_word(d.condition).into(),
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
    let given = [
        from.replicated.is_some(),
        from.global.is_some(),
        from.replicated_job.is_some(),
        from.global_job.is_some(),
    ];
    if given.iter().filter(|g| **g).count() > 1 {
        return invalid("must specify only one service mode");
    }
    if from.global.is_some() {
        return Ok(Mode::Global);
    }
    if from.global_job.is_some() {
        return Ok(Mode::GlobalJob);
    }
    if let Some(job) = from.replicated_job {
        let max_concurrent = job.max_concurrent.unwrap_or(1);
        return Ok(Mode::ReplicatedJob {
            max_concurrent,
            total: job.total_completions.unwrap_or(max_concurrent),
        });
    }
    Ok(Mode::Replicated { replicas: from.replicated.and_then(|r| r.replicas).unwrap_or(1) })
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
    if !(0.0..=1.0).contains(&from.max_failure_ratio) {
        return invalid("TaskSpec: max-failure-ratio cannot be less than 0 or bigger than 1");
    }
    let monitor = duration(from.monitor, "TaskSpec: update-monitor")?;
    let progress_deadline = duration(from.progress_deadline, "TaskSpec: ProgressDeadline")?;
    Ok(UpdatePolicy {
        parallelism: from.parallelism,
        delay: duration(from.delay, "TaskSpec: update-delay")?,
        monitor: if monitor.is_zero() { default.monitor } else { monitor },
        on_failure: match from.failure_action.as_str() {
            "" => default.on_failure,
            word => failure_action(word)?,
        },
        max_failure_ratio_ppm: ppm(from.max_failure_ratio),
        order: match from.order.as_str() {
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
    types::UpdateConfig {
        parallelism: from.parallelism,
        delay: nanos(from.delay),
        failure_action: failure_action_word(from.on_failure).into(),
        monitor: nanos(from.monitor),
        max_failure_ratio: f64::from(from.max_failure_ratio_ppm) / 1e6,
        order: order_word(from.order).into(),
        progress_deadline: from.progress_deadline.map_or(0, nanos),
    }
}

fn endpoint_spec(from: types::EndpointSpec) -> Result<EndpointSpec> {
    Ok(EndpointSpec {
        mode: if from.mode.is_empty() { model::EndpointMode::Vip } else { endpoint_mode(&from.mode)? },
        ports: from.ports.into_iter().map(port).collect::<Result<_>>()?,
    })
}

fn endpoint_spec_json(from: &EndpointSpec) -> types::EndpointSpec {
    types::EndpointSpec {
        mode: endpoint_mode_word(from.mode).into(),
        ports: from.ports.iter().map(port_json).collect(),
    }
}

fn port(from: types::PortConfig) -> Result<PortConfig> {
    let number = |value: u32, what: &str| {
        u16::try_from(value).map_err(|_| Invalid(format!("invalid {what} port: {value}")))
    };
    if from.target_port == 0 {
        return invalid("EndpointSpec: target port must be given");
    }
    Ok(PortConfig {
        name: from.name,
        protocol: if from.protocol.is_empty() { model::Protocol::Tcp } else { protocol(&from.protocol)? },
        target: number(from.target_port, "target")?,
        published: number(from.published_port, "published")?,
        mode: if from.publish_mode.is_empty() {
            model::PublishMode::Ingress
        } else {
            publish_mode(&from.publish_mode)?
        },
    })
}

pub(super) fn port_json(from: &PortConfig) -> types::PortConfig {
    types::PortConfig {
        name: from.name.clone(),
        protocol: protocol_word(from.protocol).into(),
        target_port: u32::from(from.target),
        published_port: u32::from(from.published),
        publish_mode: publish_mode_word(from.mode).into(),
    }
}

fn task_spec(from: types::TaskSpec, network: impl Fn(&str) -> Option<NetworkId>) -> Result<TaskSpec> {
    if !matches!(from.runtime.as_str(), "" | "container") {
        return invalid(format!("unsupported task runtime {:?}", from.runtime));
    }
    let Some(container) = from.container_spec else {
        return invalid("TaskSpec: missing runtime: a ContainerSpec is needed");
    };
    Ok(TaskSpec {
        container: container_spec(container)?,
        resources: resources(from.resources.unwrap_or_default())?,
        restart: restart_policy(from.restart_policy)?,
        placement: placement(from.placement.unwrap_or_default())?,
        networks: from
            .networks
            .into_iter()
            .map(|n| {
                let id =
                    network(&n.target).ok_or_else(|| Invalid(format!("network {} not found", n.target)))?;
                Ok(NetworkAttachmentSpec { network: id, aliases: n.aliases, driver_opts: n.driver_opts })
            })
            .collect::<Result<_>>()?,
        log_driver: from.log_driver.map(|l| LogDriver { name: l.name, options: l.options }),
        force_update: from.force_update,
    })
}

/// Writes a task's template.
pub fn task_spec_json(from: &TaskSpec) -> types::TaskSpec {
    types::TaskSpec {
        container_spec: Some(container_spec_json(&from.container)),
        resources: Some(resources_json(&from.resources)),
        restart_policy: Some(restart_policy_json(&from.restart)),
        placement: Some(placement_json(&from.placement)),
        networks: from
            .networks
            .iter()
            .map(|n| types::NetworkAttachmentConfig {
                target: n.network.to_string(),
                aliases: n.aliases.clone(),
                driver_opts: n.driver_opts.clone(),
            })
            .collect(),
        log_driver: from
            .log_driver
            .as_ref()
            .map(|l| types::LogDriver { name: l.name.clone(), options: l.options.clone() }),
        force_update: from.force_update,
        runtime: "container".into(),
    }
}

/// Returns what to tell whoever makes or changes a service: options for drivers of networks that no driver here knows.
pub fn service_warnings(spec: &ServiceSpec) -> Vec<String> {
    let keys = spec.task.networks.iter().flat_map(|attachment| attachment.driver_opts.keys());
    keys.map(|key| format!("Networks.DriverOpts: no network driver here knows {key:?}. Discarded.")).collect()
}

fn resources(from: types::ResourceRequirements) -> Result<ResourceRequirements> {
    for (name, given) in [("SwapBytes", from.swap_bytes), ("MemorySwappiness", from.memory_swappiness)] {
        if given.is_some() {
            return invalid(format!("Resources.{name} is not supported in services"));
        }
    }
    let limits = from.limits.unwrap_or_default();
    let reserved = from.reservations.unwrap_or_default();
    Ok(ResourceRequirements {
        limits: Resources {
            cpu_nanos: unsigned(limits.nano_cpus, "NanoCPUs")?,
            memory_bytes: unsigned(limits.memory_bytes, "MemoryBytes")?,
            pids: unsigned(limits.pids, "Pids")?,
        },
        reservations: Resources {
            cpu_nanos: unsigned(reserved.nano_cpus, "NanoCPUs")?,
            memory_bytes: unsigned(reserved.memory_bytes, "MemoryBytes")?,
            pids: 0,
        },
        generic: generic_requests(reserved.generic_resources)?,
    })
}

fn resources_json(from: &ResourceRequirements) -> types::ResourceRequirements {
    let none = Resources::default();
    types::ResourceRequirements {
        limits: (from.limits != none).then(|| types::ResourceLimit {
            nano_cpus: signed(from.limits.cpu_nanos),
            memory_bytes: signed(from.limits.memory_bytes),
            pids: signed(from.limits.pids),
        }),
        reservations: (from.reservations != none || !from.generic.is_empty()).then(|| {
            types::ResourceReservation {
                nano_cpus: signed(from.reservations.cpu_nanos),
                memory_bytes: signed(from.reservations.memory_bytes),
                generic_resources: generic_requests_json(&from.generic),
            }
        }),
        ..types::ResourceRequirements::default()
    }
}

fn restart_policy(from: Option<types::TaskRestartPolicy>) -> Result<RestartPolicy> {
    let default = RestartPolicy::default();
    let Some(from) = from else { return Ok(default) };
    Ok(RestartPolicy {
        condition: match from.condition.as_str() {
            "" => default.condition,
            word => condition(word)?,
        },
        delay: from
            .delay
            .map(|d| duration(d, "TaskSpec: restart-delay"))
            .transpose()?
            .unwrap_or(default.delay),
        max_attempts: from.max_attempts.unwrap_or_default(),
        window: from
            .window
            .map(|w| duration(w, "TaskSpec: restart-window"))
            .transpose()?
            .unwrap_or(default.window),
    })
}

fn restart_policy_json(from: &RestartPolicy) -> types::TaskRestartPolicy {
    types::TaskRestartPolicy {
        condition: condition_word(from.condition).into(),
        delay: Some(nanos(from.delay)),
        max_attempts: Some(from.max_attempts),
        window: (!from.window.is_zero()).then(|| nanos(from.window)),
    }
}

fn placement(from: types::Placement) -> Result<PlacementSpec> {
    Ok(PlacementSpec {
        constraints: from
            .constraints
            .iter()
            .map(|c| c.parse().map_err(|e: model::InvalidConstraint| Invalid(e.to_string())))
            .collect::<Result<_>>()?,
        spread: from.preferences.into_iter().filter_map(|p| p.spread).map(|s| s.spread_descriptor).collect(),
        max_replicas_per_node: from.max_replicas,
        platforms: from
            .platforms
            .into_iter()
            .map(|p| Platform { os: p.os, architecture: p.architecture })
            .collect(),
    })
}

fn placement_json(from: &PlacementSpec) -> types::Placement {
    types::Placement {
        constraints: from.constraints.iter().map(ToString::to_string).collect(),
        preferences: from
            .spread
            .iter()
            .map(|s| types::PlacementPreference {
                spread: Some(types::SpreadOver { spread_descriptor: s.clone() }),
            })
            .collect(),
        max_replicas: from.max_replicas_per_node,
        platforms: from
            .platforms
            .iter()
            .map(|p| types::Platform { architecture: p.architecture.clone(), os: p.os.clone() })
            .collect(),
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
