//! What a caller is told, in Docker's words, when a store does not do what it was asked for.

use store::{MembershipError, ProposeError, ReadError};
use tonic::Status;

/// Source: moby `daemon/cluster/errors.go`, `errNoManager`... of SwarmKit's `raftproxy`.
pub(crate) const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. \
                         Make sure more than half of the managers are online.";

pub(crate) fn no_leader() -> Status {
    Status::unavailable(NO_LEADER)
}

pub(crate) fn read_error(error: ReadError) -> Status {
    match error {
        ReadError::NotLeader { .. } => no_leader(),
        ReadError::Unavailable(reason) => Status::unavailable(format!("{NO_LEADER} ({reason})")),
    }
}

/// Returns what a caller is told when a change was not made. Conflicts are the caller's to explain first.
pub(crate) fn propose_error(error: &ProposeError) -> Status {
    match error {
        ProposeError::Conflict(conflict) => conflict_error(conflict),
        ProposeError::NotLeader { .. } => no_leader(),
        ProposeError::Unavailable(reason) => Status::unavailable(format!("{NO_LEADER} ({reason})")),
        ProposeError::OutcomeUnknown => Status::deadline_exceeded(format!("{NO_LEADER} ({error})")),
        ProposeError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
    }
}

fn conflict_error(conflict: &model::Conflict) -> Status {
    use model::Conflict;
    match conflict {
        Conflict::OutOfSequence { .. } => Status::aborted("update out of sequence"),
        // Source: swarmkit `manager/controlapi/{secret,config,service}.go`.
        Conflict::NameTaken { kind: kind @ ("secret" | "config"), name, .. } => {
            Status::already_exists(format!("{kind} {name} already exists"))
        }
        Conflict::NameTaken { kind, name, .. } => Status::already_exists(format!(
            "name conflicts with an existing object: {kind} {name} already exists"
        )),
        Conflict::AddressTaken { .. }
        | Conflict::GatewayTaken { .. }
        | Conflict::VniTaken { .. }
        | Conflict::PortTaken { .. }
        | Conflict::IndexTaken { .. }
        | Conflict::Missing { .. }
        | Conflict::InUse { .. }
        | Conflict::SubnetTaken { .. }
        | Conflict::NoSubnetLeft { .. }
        | Conflict::LastManager { .. }
        | Conflict::TooMany { .. } => Status::aborted(conflict.to_string()),
    }
}

pub(crate) fn membership_error(error: &MembershipError) -> Status {
    match error {
        MembershipError::NotLeader { .. } => no_leader(),
        MembershipError::Behind(_) | MembershipError::OutcomeUnknown => {
            Status::unavailable(error.to_string())
        }
        MembershipError::Last(_) => {
            Status::failed_precondition("attempting to demote the last manager of the swarm")
        }
        MembershipError::NoSuccessor | MembershipError::Quorum(_) => Status::failed_precondition(
            "can't remove member from the raft: this would result in a loss of quorum",
        ),
        MembershipError::Refused(_) => Status::failed_precondition(error.to_string()),
    }
}
