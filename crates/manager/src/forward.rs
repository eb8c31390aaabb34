//! Finding the leader, and saying what Docker says when there is none.

use crate::{authorize::Caller, shared::Shared};
use store::{MembershipError, ProposeError, ReadError};
use tonic::{Status, transport::Channel};

/// Source: moby `daemon/cluster/errors.go`, `errNoManager`... of SwarmKit's `raftproxy`.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. \
                         Make sure more than half of the managers are online.";

/// Where a decision is to be made.
pub(crate) enum Leader {
    Me,
    At(Channel),
}

impl Shared {
    /// Returns where the leader is.
    ///
    /// # Errors
    /// UNAVAILABLE: there is none, or whoever forwarded this was wrong about us.
    pub(crate) fn leader(&self, caller: &Caller) -> Result<Leader, Status> {
        let now = self.store.leader_now();
        if now.me {
            return Ok(Leader::Me);
        }
        match now.leader {
            Some((raft_id, addr)) if !caller.forwarded => Ok(Leader::At(self.member(raft_id, addr))),
            Some(_) | None => Err(no_leader()),
        }
    }

    /// Waits for the leader's answer, but not longer than it leads: one that was killed or cut off never answers.
    ///
    /// # Errors
    /// The leader's own; UNAVAILABLE when it cannot be reached or another one leads now. What was asked for may have
    /// been done then.
    pub(crate) async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut leadership = self.store.leader();
        let before = leadership.borrow_and_update().leader;
        tokio::select! {
            answer = asked => answer.map_err(|status| match std::error::Error::source(&status) {
                // Only a status made on this side has a cause: the connection failed.
                Some(cause) => Status::unavailable(format!("{NO_LEADER} (the last one known: {cause})")),
                None => status,
            }),
            _ = leadership.wait_for(|now| now.leader.is_some() && now.leader != before) => Err(no_leader()),
        }
    }

    /// Waits until this leader's view has every change acknowledged so far.
    ///
    /// # Errors
    /// UNAVAILABLE when it cannot be sure.
    pub(crate) async fn fresh(&self) -> Result<u64, Status> {
        self.store.read_index().await.map_err(read_error)
    }
}

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
        ProposeError::OutcomeUnknown => Status::deadline_exceeded(error.to_string()),
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
