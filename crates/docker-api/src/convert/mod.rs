//! Docker's JSON to the nouns of `model`, and back.
//!
//! Requests are judged here once: what comes out is meaningful. Where Docker leaves a policy out, the model
//! holds Docker's default; so an answer shows policies even when nobody set them, and
//! `model -> JSON -> model` is the identity.

mod cluster;
mod container;
mod generic;
mod network;
mod node;
mod plugin;
mod service;
mod task;
mod user;

pub use cluster::*;
pub(crate) use container::{
    bind_recursion, bind_recursion_json, refuse_foreign_options, ulimit, ulimit_json,
};
pub use container::{container_alone, container_spec, healthcheck};
pub use generic::generic_resources_json;
pub use network::*;
pub use node::*;
pub use plugin::*;
pub use service::*;
pub use task::*;
pub use user::{audit_json, person_role, person_role_json, user_json};

use model::{Duration, Network, NetworkId};
use std::{collections::BTreeMap, sync::Arc};

/// A request that means nothing; the text is for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

pub type Result<T> = std::result::Result<T, Invalid>;

pub(crate) fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Invalid(text.into()))
}

/// The cluster's networks, for answers that show more of them than an id.
pub type Networks = BTreeMap<NetworkId, Arc<Network>>;

/// Reads Docker's nanoseconds.
pub(crate) fn duration(nanos: i64, what: &str) -> Result<Duration> {
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| Invalid(format!("{what} must not be negative")))
}

pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// `""` is "not given".
pub(crate) fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(crate) fn unsigned(value: i64, what: &str) -> Result<u64> {
    u64::try_from(value).map_err(|_| Invalid(format!("{what} must not be negative")))
}

/// Saturates: Docker's JSON has no unsigned 64-bit numbers there.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Returns the shown name of an enum's variant, or the variant of a name.
macro_rules! words {
    ($($(#[$doc:meta])* $to:ident / $from:ident : $type:ty, $what:literal { $($variant:ident = $word:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        pub fn $to(value: $type) -> &'static str {
            type T = $type;
            match value { $(T::$variant => $word),* }
        }
        $(#[$doc])*
        ///
        /// # Errors
        /// For any other word.
        pub fn $from(word: &str) -> Result<$type> {
            type T = $type;
            match word {
                $($word => Ok(T::$variant),)*
                other => invalid(format!("invalid {}: {other:?}", $what)),
            }
        }
    )*};
}

words! {
    /// Docker's word for a role.
    role_word / role: model::Role, "role" { Worker = "worker", Manager = "manager" }
    /// Docker's word for an availability.
    availability_word / availability: model::Availability, "availability" {
        Active = "active", Pause = "pause", Drain = "drain",
    }
    /// Docker's word for what an update does on failure.
    failure_action_word / failure_action: model::FailureAction, "FailureAction" {
        Pause = "pause", Continue = "continue", Rollback = "rollback",
    }
    /// Docker's word for an update order.
    order_word / order: model::UpdateOrder, "Order" { StopFirst = "stop-first", StartFirst = "start-first" }
    /// Docker's word for a restart condition.
    condition_word / condition: model::RestartCondition, "restart condition" {
        None = "none", OnFailure = "on-failure", Any = "any",
    }
    /// Docker's word for how a service is reached.
    endpoint_mode_word / endpoint_mode: model::EndpointMode, "endpoint mode" { Vip = "vip", DnsRr = "dnsrr" }
    /// Docker's word for a protocol.
    protocol_word / protocol: model::Protocol, "protocol" { Tcp = "tcp", Udp = "udp", Sctp = "sctp" }
    /// Docker's word for where a port is published.
    publish_mode_word / publish_mode: model::PublishMode, "publish mode" { Ingress = "ingress", Host = "host" }
    /// Compose's word for a dependency's condition.
    dependency_word / dependency: model::DependencyCondition, "dependency condition" {
        Started = "service_started", Healthy = "service_healthy",
        CompletedSuccessfully = "service_completed_successfully",
    }
    /// Docker's word for the state of an update.
    update_state_word / update_state: model::UpdateState, "update state" {
        Updating = "updating", Paused = "paused", Completed = "completed",
        RollbackStarted = "rollback_started", RollbackPaused = "rollback_paused",
        RollbackCompleted = "rollback_completed",
    }
    /// Docker's word for a node's state.
    node_state_word / node_state: model::NodeState, "node state" {
        Unknown = "unknown", Ready = "ready", Away = "away", Down = "down", Disconnected = "disconnected",
    }
    /// Docker's word for what is wanted of a task.
    desired_word / desired: model::Desired, "desired state" {
        Ready = "ready", Running = "running", Complete = "complete", Shutdown = "shutdown", Remove = "remove",
    }
    /// Docker's word for what is seen of a task.
    task_state_word / task_state: model::TaskState, "task state" {
        Accepted = "accepted", Preparing = "preparing", Ready = "ready", Starting = "starting",
        Running = "running", Complete = "complete", Shutdown = "shutdown", Failed = "failed",
        Rejected = "rejected", Orphaned = "orphaned",
    }
}
