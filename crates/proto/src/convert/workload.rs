//! Containers, services and tasks.

use super::{Field, Invalid, Problem, enums, messages, public, take};
use crate::types;
use model::{BindRecursion, ConfigId, FileRef, MountKind, ResourceRequirements, SecretId};
use std::collections::BTreeSet;

messages! {
    model::Meta => Meta
    model::ContainerSpec => ContainerSpec
    model::Hook => Hook
    model::HostOptions => HostOptions
    model::DeviceMapping => DeviceMapping
    model::Healthcheck => Healthcheck
    model::DnsConfig => DnsConfig
    FileRef<SecretId> => FileRef
    FileRef<ConfigId> => FileRef
    model::Ulimit => Ulimit
    model::Resources => Resources
    model::LogDriver => LogDriver

    model::ServiceSpec => ServiceSpec
    model::Dependency => Dependency
    model::NetworkAttachmentSpec => NetworkAttachmentSpec
    model::PlacementSpec => PlacementSpec
    model::Platform => Platform
    model::Constraint => Constraint
    model::RestartPolicy => RestartPolicy
    model::UpdatePolicy => UpdatePolicy
    model::Service => Service
    model::Endpoint => Endpoint
    model::Vip => Vip
    model::UpdateStatus => UpdateStatus

    model::Task => Task
    model::TaskStatus => TaskStatus
    model::ContainerStatus => ContainerStatus
    model::Attachment => Attachment
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
        let Self { container, resources, restart, placement, networks, log_driver, force_update } = self;
        let ResourceRequirements { limits, reservations, generic } = resources;
        types::TaskSpec {
            container: container.put(),
            limits: limits.put(),
            reservations: reservations.put(),
            restart: restart.put(),
            placement: placement.put(),
            networks: networks.put(),
            log_driver: log_driver.put(),
            force_update: *force_update,
            generic: generic.put(),
        }
    }
    fn take(wire: types::TaskSpec) -> Result<Self, Invalid> {
        let types::TaskSpec {
            container,
            limits,
            reservations,
            restart,
            placement,
            networks,
            log_driver,
            force_update,
            generic,
        } = wire;
        Ok(Self {
            container: take("container", container)?,
            resources: ResourceRequirements {
                limits: take("limits", limits)?,
                reservations: take("reservations", reservations)?,
                generic: take("generic", generic)?,
            },
            restart: take("restart", restart)?,
            placement: take("placement", placement)?,
            networks: take("networks", networks)?,
            log_driver: take("log_driver", log_driver)?,
            force_update,
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
        let Self { kind, target, read_only } = self;
        let kind = match kind.clone() {
            MountKind::Bind { source, propagation, create, recursion } => {
                let recursion = Some(recursion).filter(|r| *r != BindRecursion::Enabled);
                Kind::Bind(types::BindMount { source, propagation, create, recursion: recursion.put() })
            }
            MountKind::Volume { name, driver, driver_opts, labels, no_copy } => {
                Kind::Volume(types::VolumeMount { name, driver, driver_opts, labels, no_copy })
            }
            MountKind::Tmpfs { size_bytes, mode } => Kind::Tmpfs(types::TmpfsMount { size_bytes, mode }),
        };
        types::Mount { target: target.clone(), read_only: *read_only, kind: Some(kind) }
    }
    fn take(wire: types::Mount) -> Result<Self, Invalid> {
        use types::mount::Kind;
        let types::Mount { target, read_only, kind } = wire;
        let kind = match kind.ok_or_else(|| Problem::Missing.of("kind"))? {
            Kind::Bind(types::BindMount { source, propagation, create, recursion }) => {
                let recursion: Option<BindRecursion> = take("recursion", recursion)?;
                MountKind::Bind { source, propagation, create, recursion: recursion.unwrap_or_default() }
            }
            Kind::Volume(types::VolumeMount { name, driver, driver_opts, labels, no_copy }) => {
                MountKind::Volume { name, driver, driver_opts, labels, no_copy }
            }
            Kind::Tmpfs(types::TmpfsMount { size_bytes, mode }) => MountKind::Tmpfs { size_bytes, mode },
        };
        Ok(Self { kind, target, read_only })
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
