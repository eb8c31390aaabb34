//! Containers, services and tasks.

use super::{Field, Invalid, Problem, enums, messages, public, take};
use crate::types;
use model::{BindRecursion, ConfigId, FileRef, MountKind, ResourceRequirements, SecretId};
use std::collections::BTreeSet;

messages! {
    model::Meta => Meta { version, created, created_at, updated_at }
    model::ContainerSpec => ContainerSpec {
        image, labels, command, args, env, hostname, working_dir, user, groups, tty, open_stdin, read_only,
        mounts, stop_signal, stop_grace_period, healthcheck, hosts, dns, secrets, configs, init, sysctls, cap_add,
        cap_drop, ulimits, privileged, no_new_privileges, shm_size_bytes, oom_score_adj, host,
        post_start, pre_stop,
    }
    model::Hook => Hook { command, user, privileged, working_dir, env }
    model::HostOptions => HostOptions {
        devices, device_cgroup_rules, ipc, pid, uts, cgroup, cgroup_parent, domainname, runtime, security_opts,
        annotations, cpu_shares, cpu_period, cpu_quota, cpuset, memory_swap_bytes, memory_swappiness, blkio_weight,
        oom_kill_disable, users,
    }
    model::DeviceMapping => DeviceMapping { host_path, container_path, permissions }
    model::Healthcheck => Healthcheck { test, interval, timeout, start_period, start_interval, retries }
    model::DnsConfig => DnsConfig { nameservers, search, options }
    FileRef<SecretId> => FileRef { id, name, target, uid, gid, mode }
    FileRef<ConfigId> => FileRef { id, name, target, uid, gid, mode }
    model::Ulimit => Ulimit { name, soft, hard }
    model::Resources => Resources { cpu_nanos, memory_bytes, pids }
    model::LogDriver => LogDriver { name, options }

    model::ServiceSpec => ServiceSpec { name, labels, task, mode, update, rollback, endpoint, depends_on, said }
    model::Dependency => Dependency { service, condition }
    model::NetworkAttachmentSpec => NetworkAttachmentSpec { network, aliases, driver_opts }
    model::PlacementSpec => PlacementSpec { constraints, spread, max_replicas_per_node, platforms }
    model::Platform => Platform { os, architecture }
    model::Constraint => Constraint { key, equal, value }
    model::RestartPolicy => RestartPolicy { condition, delay, max_attempts, window }
    model::UpdatePolicy => UpdatePolicy {
        parallelism, delay, monitor, on_failure, max_failure_ratio_ppm, order, progress_deadline,
    }
    model::Service => Service {
        id, meta, spec, spec_version, previous, stack, endpoint, update, pending_delete, job_iteration,
        registry_auth,
    }
    model::Endpoint => Endpoint { vips, ports }
    model::Vip => Vip { network, address }
    model::UpdateStatus => UpdateStatus { state, started_at, completed_at, message }

    model::Task => Task {
        id, meta, service, service_name, service_labels, slot, spec, spec_version, job_iteration, host_ports, placement,
        desired, attachments, gateway_address, status, desired_at, attaches, generic, log_driver,
        node_network,
    }
    model::TaskStatus => TaskStatus { state, at, message, error, container }
    model::ContainerStatus => ContainerStatus { container_id, pid, exit_code, oom_killed }
    model::Attachment => Attachment { network, address, aliases }
}

enums! {
    DependencyCondition { Started, Healthy, CompletedSuccessfully }
    RestartCondition { None, OnFailure, Any }
    FailureAction { Pause, Continue, Rollback }
    UpdateOrder { StopFirst, StartFirst }
    BindRecursion { Enabled, Disabled, Writable, ReadOnly }
    UpdateState { Updating, Paused, Completed, RollbackStarted, RollbackPaused, RollbackCompleted }
    Desired { Ready, Running, Complete, Shutdown, Remove }
    TaskState {
        Accepted, Preparing, Ready, Starting, Running, Complete, Shutdown, Failed, Rejected, Orphaned,
    }
}

public! {
    model::TaskSpec => types::TaskSpec,
    model::Mount => types::Mount,
    model::Mode => types::Mode,
    model::Slot => types::Slot,
    model::Placement => types::Placement,
}

/// 0: the agent has not spoken.
impl Field<u32> for model::Said {
    fn put(&self) -> u32 {
        self.bits()
    }
    fn take(wire: u32) -> Result<Self, Invalid> {
        Self::from_bits(wire).ok_or_else(|| Problem::OutOfRange(u64::from(wire)).of(""))
    }
}

impl Field<i32> for Option<model::TaskState> {
    fn put(&self) -> i32 {
        self.as_ref().map_or(0, Field::put)
    }
    fn take(wire: i32) -> Result<Self, Invalid> {
        if wire == 0 { Ok(None) } else { model::TaskState::take(wire).map(Some) }
    }
}

/// 0: the swarm's.
impl Field<i32> for Option<model::NodeNetwork> {
    fn put(&self) -> i32 {
        self.as_ref().map_or(0, Field::put)
    }
    fn take(wire: i32) -> Result<Self, Invalid> {
        if wire == 0 { Ok(None) } else { model::NodeNetwork::take(wire).map(Some) }
    }
}

impl Field<types::TaskSpec> for model::TaskSpec {
    fn put(&self) -> types::TaskSpec {
        types::TaskSpec {
            container: self.container.put(),
            limits: self.resources.limits.put(),
            reservations: self.resources.reservations.put(),
            restart: self.restart.put(),
            placement: self.placement.put(),
            networks: self.networks.put(),
            log_driver: self.log_driver.put(),
            force_update: self.force_update,
            generic: self.resources.generic.put(),
        }
    }
    fn take(wire: types::TaskSpec) -> Result<Self, Invalid> {
        Ok(Self {
            container: take("container", wire.container)?,
            resources: ResourceRequirements {
                limits: take("limits", wire.limits)?,
                reservations: take("reservations", wire.reservations)?,
                generic: take("generic", wire.generic)?,
            },
            restart: take("restart", wire.restart)?,
            placement: take("placement", wire.placement)?,
            networks: take("networks", wire.networks)?,
            log_driver: take("log_driver", wire.log_driver)?,
            force_update: wire.force_update,
        })
    }
}

impl Field<types::GenericWant> for model::Want {
    fn put(&self) -> types::GenericWant {
        use types::generic_want::Want;
        let want = match self {
            Self::Count(n) => Want::Count(*n),
            Self::All => Want::All(true),
            Self::These(names) => Want::Names(names.put()),
            Self::TheseAndMore { names, more } => Want::NamesAndMore(types::NamesAndMore {
                names: names.iter().cloned().collect(),
                more: *more,
            }),
        };
        types::GenericWant { want: Some(want) }
    }
    fn take(wire: types::GenericWant) -> Result<Self, Invalid> {
        use types::generic_want::Want;
        Ok(match wire.want.ok_or_else(|| Problem::Missing.of(""))? {
            Want::Count(n) => Self::Count(n),
            Want::All(_) => Self::All,
            Want::Names(names) => Self::These(Field::take(names)?),
            Want::NamesAndMore(types::NamesAndMore { names, more }) => {
                Self::TheseAndMore { names: names.into_iter().collect(), more }
            }
        })
    }
}

impl Field<types::GenericSupply> for model::Supply {
    fn put(&self) -> types::GenericSupply {
        use types::generic_supply::Supply;
        let supply = match self {
            Self::Count(n) => Supply::Count(*n),
            Self::Named(names) => Supply::Names(names.put()),
        };
        types::GenericSupply { supply: Some(supply) }
    }
    fn take(wire: types::GenericSupply) -> Result<Self, Invalid> {
        use types::generic_supply::Supply;
        Ok(match wire.supply.ok_or_else(|| Problem::Missing.of(""))? {
            Supply::Count(n) => Self::Count(n),
            Supply::Names(names) => Self::Named(Field::take(names)?),
        })
    }
}

impl Field<types::Names> for BTreeSet<String> {
    fn put(&self) -> types::Names {
        types::Names { names: self.iter().cloned().collect() }
    }
    fn take(wire: types::Names) -> Result<Self, Invalid> {
        Ok(wire.names.into_iter().collect())
    }
}

impl Field<types::Mount> for model::Mount {
    fn put(&self) -> types::Mount {
        use types::mount::Kind;
        let kind = match self.kind.clone() {
            MountKind::Bind { source, propagation, create, recursion } => {
                let recursion = Some(recursion).filter(|r| *r != BindRecursion::Enabled);
                Kind::Bind(types::BindMount { source, propagation, create, recursion: recursion.put() })
            }
            MountKind::Volume { name, driver, driver_opts, labels, no_copy } => {
                Kind::Volume(types::VolumeMount { name, driver, driver_opts, labels, no_copy })
            }
            MountKind::Tmpfs { size_bytes, mode } => Kind::Tmpfs(types::TmpfsMount { size_bytes, mode }),
        };
        types::Mount { target: self.target.clone(), read_only: self.read_only, kind: Some(kind) }
    }
    fn take(wire: types::Mount) -> Result<Self, Invalid> {
        use types::mount::Kind;
        let kind = match wire.kind.ok_or_else(|| Problem::Missing.of("kind"))? {
            Kind::Bind(types::BindMount { source, propagation, create, recursion }) => {
                let recursion: Option<BindRecursion> = take("recursion", recursion)?;
                MountKind::Bind { source, propagation, create, recursion: recursion.unwrap_or_default() }
            }
            Kind::Volume(types::VolumeMount { name, driver, driver_opts, labels, no_copy }) => {
                MountKind::Volume { name, driver, driver_opts, labels, no_copy }
            }
            Kind::Tmpfs(types::TmpfsMount { size_bytes, mode }) => MountKind::Tmpfs { size_bytes, mode },
        };
        Ok(Self { kind, target: wire.target, read_only: wire.read_only })
    }
}

impl Field<types::Mode> for model::Mode {
    fn put(&self) -> types::Mode {
        use types::mode::Mode;
        let mode = match *self {
            Self::Replicated { replicas } => Mode::Replicas(replicas),
            Self::Global => Mode::Global(true),
            Self::ReplicatedJob { max_concurrent, total } => {
                Mode::ReplicatedJob(types::ReplicatedJob { max_concurrent, total })
            }
            Self::GlobalJob => Mode::GlobalJob(true),
        };
        types::Mode { mode: Some(mode) }
    }
    fn take(wire: types::Mode) -> Result<Self, Invalid> {
        use types::mode::Mode;
        Ok(match wire.mode.ok_or_else(|| Problem::Missing.of(""))? {
            Mode::Replicas(replicas) => Self::Replicated { replicas },
            Mode::Global(_) => Self::Global,
            Mode::ReplicatedJob(types::ReplicatedJob { max_concurrent, total }) => {
                Self::ReplicatedJob { max_concurrent, total }
            }
            Mode::GlobalJob(_) => Self::GlobalJob,
        })
    }
}

impl Field<types::Slot> for model::Slot {
    fn put(&self) -> types::Slot {
        let slot = match self {
            Self::Replica(n) => types::slot::Slot::Replica(*n),
            Self::Node(node) => types::slot::Slot::Node(node.put()),
        };
        types::Slot { slot: Some(slot) }
    }
    fn take(wire: types::Slot) -> Result<Self, Invalid> {
        Ok(match wire.slot.ok_or_else(|| Problem::Missing.of(""))? {
            types::slot::Slot::Replica(n) => Self::Replica(n),
            types::slot::Slot::Node(node) => Self::Node(take("node", node)?),
        })
    }
}

impl Field<types::Placement> for model::Placement {
    fn put(&self) -> types::Placement {
        use types::placement::Placement;
        let placement = match self {
            Self::Unallocated => Placement::Unallocated(true),
            Self::Pending { reason } => Placement::Pending(reason.clone()),
            Self::On(node) => Placement::Node(node.put()),
        };
        types::Placement { placement: Some(placement) }
    }
    fn take(wire: types::Placement) -> Result<Self, Invalid> {
        use types::placement::Placement;
        Ok(match wire.placement.ok_or_else(|| Problem::Missing.of(""))? {
            Placement::Unallocated(_) => Self::Unallocated,
            Placement::Pending(reason) => Self::Pending { reason },
            Placement::Node(node) => Self::On(take("node", node)?),
        })
    }
}
