//! `deploy`. Source: compose deploy specification; docker/cli `cli/compose/convert/service.go`.

use crate::{
    Error, devices,
    read::{Item, Reader, optional},
};
use model::{
    ContainerRestart, Duration, EndpointMode, FailureAction, Labels, Mode, PlacementSpec, Platform,
    ResourceRequirements, Resources, RestartCondition, RestartPolicy, UpdateOrder, UpdatePolicy,
};

#[derive(Default)]
pub(crate) struct Deploy {
    pub(crate) mode: Option<Mode>,
    pub(crate) labels: Labels,
    pub(crate) update: UpdatePolicy,
    pub(crate) rollback: UpdatePolicy,
    pub(crate) resources: ResourceRequirements,
    pub(crate) placement: PlacementSpec,
    pub(crate) restart: RestartPolicy,
    pub(crate) endpoint_mode: EndpointMode,
}

pub(crate) fn read(service: &Item<'_>, read: &Reader<'_>) -> Result<Deploy, Error> {
    let mut out = Deploy { mode: scale(service)?, ..Deploy::default() };
    limits_of_service(service, &mut out.resources)?;
    if let Some(item) = service.get("gpus") {
        devices::gpus(&item, &mut out.resources.generic)?;
    }
    if let Some(restart) = service.get("restart") {
        out.restart = local_restart(&restart)?;
    }
    if let Some(platform) = service.get("platform") {
        out.placement.platforms = vec![platform_of(&platform.string()?)];
    }
    let Some(deploy) = service.get("deploy") else { return Ok(out) };
    deploy.only(
        &[
            "mode",
            "replicas",
            "labels",
            "update_config",
            "rollback_config",
            "resources",
            "restart_policy",
            "placement",
            "endpoint_mode",
        ],
        &[],
    )?;
    if let Some(mode) = mode(&deploy, out.mode)? {
        out.mode = Some(mode);
    }
    out.labels = optional(deploy.get("labels"), Item::labels)?.unwrap_or_default();
    out.update = optional(deploy.get("update_config"), policy)?.unwrap_or_default();
    out.rollback = optional(deploy.get("rollback_config"), policy)?.unwrap_or_default();
    if out.rollback.on_failure == FailureAction::Rollback {
        let item = deploy.get("rollback_config").unwrap_or(deploy);
        return Err(item.invalid("a rollback cannot be rolled back: failure_action is pause or continue"));
    }
    if let Some(item) = deploy.get("resources") {
        resources(&item, read, &mut out.resources)?;
    }
    if let Some(item) = deploy.get("restart_policy") {
        out.restart = restart(&item)?;
    }
    if let Some(item) = deploy.get("placement") {
        placement(&item, &mut out.placement)?;
    }
    if let Some(item) = deploy.get("endpoint_mode") {
        out.endpoint_mode = item.one_of(&[("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::DnsRr)])?;
    }
    Ok(out)
}

/// `scale: 3`, the short form of `deploy.replicas`.
fn scale(service: &Item<'_>) -> Result<Option<Mode>, Error> {
    let replicas = optional(service.get("scale"), Item::integer::<u64>)?;
    Ok(replicas.map(|replicas| Mode::Replicated { replicas }))
}

fn mode(deploy: &Item<'_>, scale: Option<Mode>) -> Result<Option<Mode>, Error> {
    let replicas_item = deploy.get("replicas");
    let replicas = optional(replicas_item.clone(), Item::integer::<u64>)?;
    let global = |mode: Mode| match &replicas_item {
        Some(item) => Err(item.invalid("replicas can only be used with replicated mode")),
        None => Ok(Some(mode)),
    };
    let kind = optional(deploy.get("mode"), |m| {
        m.one_of(&[("replicated", 'r'), ("global", 'g'), ("replicated-job", 'j'), ("global-job", 'a')])
    })?;
    let total = replicas.unwrap_or(1);
    match kind {
        None | Some('r') => match (replicas, scale) {
            (Some(replicas), Some(other)) if other != (Mode::Replicated { replicas }) => {
                Err(deploy.invalid("scale and deploy.replicas say different numbers"))
            }
            (Some(replicas), _) => Ok(Some(Mode::Replicated { replicas })),
            (None, _) => Ok(None),
        },
        Some('g') => global(Mode::Global),
        Some('a') => global(Mode::GlobalJob),
        Some(_) => Ok(Some(Mode::ReplicatedJob { max_concurrent: total, total })),
    }
}

/// Not in the Compose specification: how long an update waits for a node to take a task up.
const PROGRESS_DEADLINE: &str = "x-progress-deadline";

fn policy(item: &Item<'_>) -> Result<UpdatePolicy, Error> {
    item.only(&["parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"], &[])?;
    let progress_deadline = optional(item.get(PROGRESS_DEADLINE), |item| {
        Some(item.duration()?)
            .filter(|deadline| !deadline.is_zero())
            .ok_or_else(|| item.invalid("a progress deadline is longer than nothing"))
    })?;
    let default = UpdatePolicy::default();
    Ok(UpdatePolicy {
        parallelism: optional(item.get("parallelism"), Item::integer)?.unwrap_or(default.parallelism),
        delay: optional(item.get("delay"), Item::duration)?.unwrap_or(default.delay),
        monitor: optional(item.get("monitor"), Item::duration)?
            .filter(|m| *m > Duration::ZERO)
            .unwrap_or(default.monitor),
        on_failure: optional(item.get("failure_action"), |i| {
            i.one_of(&[
                ("pause", FailureAction::Pause),
                ("continue", FailureAction::Continue),
                ("rollback", FailureAction::Rollback),
            ])
        })?
        .unwrap_or(default.on_failure),
        max_failure_ratio_ppm: optional(item.get("max_failure_ratio"), ratio)?.unwrap_or(0),
        order: optional(item.get("order"), |i| {
            i.one_of(&[("stop-first", UpdateOrder::StopFirst), ("start-first", UpdateOrder::StartFirst)])
        })?
        .unwrap_or(default.order),
        progress_deadline,
    })
}

/// Returns millionths.
fn ratio(item: &Item<'_>) -> Result<u32, Error> {
    let text = item.string()?;
    let nanos = crate::units::cpu_nanos(&text).filter(|n| *n <= 1_000_000_000);
    let nanos = nanos.ok_or_else(|| item.invalid(format!("want a number from 0 to 1, not {text:?}")))?;
    u32::try_from(nanos / 1000).map_err(|_| item.invalid("out of range"))
}

fn resources(item: &Item<'_>, read: &Reader<'_>, out: &mut ResourceRequirements) -> Result<(), Error> {
    item.only(&["limits", "reservations"], &[])?;
    if let Some(limits) = item.get("limits") {
        limits.only(&["cpus", "memory", "pids"], &[])?;
        amounts(&limits, &mut out.limits)?;
        if let Some(pids) = limits.get("pids") {
            out.limits.pids = pids.integer()?;
        }
    }
    if let Some(reservations) = item.get("reservations") {
        reservations.only(&["cpus", "memory", "generic_resources", "devices"], &[])?;
        amounts(&reservations, &mut out.reservations)?;
        if let Some(wanted) = reservations.get("devices") {
            devices::devices(&wanted, &mut out.generic)?;
        }
        if let Some(wanted) = reservations.get("generic_resources") {
            let counted = devices::generic_resources(&wanted)?;
            if read.on_one_host() {
                let text = "\"generic_resources\" has no effect on one host: it counts nothing";
                read.warn(&wanted.at(), text.to_owned());
            } else {
                devices::add_all(&wanted, counted, &mut out.generic)?;
            }
        }
    }
    Ok(())
}

fn amounts(item: &Item<'_>, out: &mut Resources) -> Result<(), Error> {
    if let Some(cpus) = item.get("cpus") {
        out.cpu_nanos = cpus.cpus()?;
    }
    if let Some(memory) = item.get("memory") {
        out.memory_bytes = memory.bytes()?;
    }
    Ok(())
}

/// The keys of the service itself that mean the same.
fn limits_of_service(service: &Item<'_>, out: &mut ResourceRequirements) -> Result<(), Error> {
    if let Some(cpus) = service.get("cpus") {
        out.limits.cpu_nanos = cpus.cpus()?;
    }
    if let Some(memory) = service.get("mem_limit") {
        out.limits.memory_bytes = memory.bytes()?;
    }
    if let Some(memory) = service.get("mem_reservation") {
        out.reservations.memory_bytes = memory.bytes()?;
    }
    if let Some(pids) = service.get("pids_limit") {
        out.limits.pids = match pids.integer::<i64>()? {
            // Docker's word for no limit.
            -1 => 0,
            number => u64::try_from(number)
                .map_err(|_| pids.invalid(format!("want a number of processes, or -1, not {number}")))?,
        };
    }
    Ok(())
}

fn restart(item: &Item<'_>) -> Result<RestartPolicy, Error> {
    item.only(&["condition", "delay", "max_attempts", "window"], &[])?;
    let default = RestartPolicy::default();
    Ok(RestartPolicy {
        condition: optional(item.get("condition"), |i| {
            i.one_of(&[
                ("none", RestartCondition::None),
                ("on-failure", RestartCondition::OnFailure),
                ("any", RestartCondition::Any),
                // The words of one host.
                ("always", RestartCondition::Any),
                ("unless-stopped", RestartCondition::Any),
            ])
        })?
        .unwrap_or(default.condition),
        delay: optional(item.get("delay"), Item::duration)?.unwrap_or(default.delay),
        max_attempts: optional(item.get("max_attempts"), Item::integer)?.unwrap_or(0),
        window: optional(item.get("window"), Item::duration)?.unwrap_or(default.window),
    })
}

/// `restart: unless-stopped` and its like, for files written for one host.
fn local_restart(item: &Item<'_>) -> Result<RestartPolicy, Error> {
    let text = match &item.node.value {
        crate::tree::Value::Bool(false) => "no".to_owned(),
        _ => item.string()?,
    };
    Ok(ContainerRestart::of_text(&text).map_err(|unfit| item.invalid(unfit.to_string()))?.of_tasks())
}

fn placement(item: &Item<'_>, out: &mut PlacementSpec) -> Result<(), Error> {
    item.only(&["constraints", "preferences", "max_replicas_per_node"], &[])?;
    if let Some(constraints) = item.get("constraints") {
        for constraint in constraints.items()? {
            out.constraints.push(constraint.parsed()?);
        }
    }
    if let Some(preferences) = item.get("preferences") {
        for preference in preferences.items()? {
            preference.only(&["spread"], &[])?;
            let spread = preference
                .get("spread")
                .ok_or_else(|| preference.invalid("only \"spread\" is a preference"))?;
            let key = spread.string()?;
            if !["node.labels.", "engine.labels."].iter().any(|p| key.len() > p.len() && key.starts_with(p)) {
                return Err(spread.invalid(format!("want node.labels.KEY or engine.labels.KEY, not {key:?}")));
            }
            out.spread.push(key);
        }
    }
    out.max_replicas_per_node = optional(item.get("max_replicas_per_node"), Item::integer)?.unwrap_or(0);
    Ok(())
}

/// `linux/arm64/v8`; the variant is not looked at.
fn platform_of(text: &str) -> Platform {
    let mut parts = text.split('/');
    let os = parts.next().unwrap_or_default().to_owned();
    Platform { os, architecture: parts.next().unwrap_or_default().to_owned() }
}
