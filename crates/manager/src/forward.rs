//! Finding the leader, and waiting for its answer.

use crate::{
    authorize::{Caller, MALFORMED_CALLER, Method, Who},
    refusals::{NO_LEADER, no_leader, read_error},
    shared::Shared,
    under_way::Account,
};
use model::NodeId;
use tonic::{Status, transport::Channel};

/// In whose name a manager calls on another. What it says itself keeps the swarm together, and must not wait behind what it
/// passes on: whoever has a connection for one of these uses it for no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InNameOf {
    /// The manager itself.
    Manager,
    /// A node that asks for something of its own.
    Node(NodeId),
    Person(Account),
    /// Somebody who has a password to show, or nothing: also what the leader is told of such people.
    Stranger,
    /// A host that has no certificate yet.
    Joiner,
}

impl InNameOf {
    /// Returns in whose name a call is passed on.
    pub(crate) fn caller(method: Method, caller: &Caller) -> Self {
        match &caller.who {
            _ if method == Method::Login => Self::Stranger,
            Who::Person(_) => Self::Person(caller.account()),
            Who::Node { id, .. } => Self::Node(*id),
            Who::Nobody => Self::Joiner,
        }
    }
}

/// Where a decision is to be made.
pub(crate) enum Leader {
    Me,
    At(Channel),
}

/// Returns what a leader of another version says of a caller that it cannot read, with what to do about it. One of this
/// version reads what is passed on here.
fn of_another_version(status: Status) -> Status {
    if status.code() != tonic::Code::InvalidArgument || !status.message().starts_with(MALFORMED_CALLER) {
        return status;
    }
    Status::unavailable(format!(
        "the leader is of another version, and does not know who asks through this manager ({}); hint: ask at the \
         leader's host, or finish the upgrade",
        status.message()
    ))
}

impl Shared {
    /// Returns where the leader is, and the way that a call of this caller takes there.
    ///
    /// # Errors
    /// UNAVAILABLE: there is none, or whoever forwarded this was wrong about us.
    pub(crate) fn leader(&self, method: Method, caller: &Caller) -> Result<Leader, Status> {
        let now = self.store.leader_now();
        if now.me {
            return Ok(Leader::Me);
        }
        #[cfg(test)]
        if crate::planted::reads_of_its_own() && matches!(method, Method::Get | Method::List) {
            return Ok(Leader::Me);
        }
        match now.leader {
            Some((raft_id, addr)) if !caller.forwarded => {
                Ok(Leader::At(self.member(raft_id, addr, &InNameOf::caller(method, caller))))
            }
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
                None => of_another_version(status),
            }),
            _ = leadership.wait_for(|now| now.leader.is_some() && now.leader != before) => Err(no_leader()),
        }
    }

    /// Waits until this leader's view has every change acknowledged so far.
    ///
    /// # Errors
    /// UNAVAILABLE when it cannot be sure.
    pub(crate) async fn fresh(&self) -> Result<u64, Status> {
        #[cfg(test)]
        if crate::planted::reads_of_its_own() && !self.store.leader_now().me {
            return Ok(self.store.view().index);
        }
        self.store.read_index().await.map_err(read_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_of_another_version_is_told_from_a_mistake_of_who_asks() {
        let older = of_another_version(Status::invalid_argument("malformed caller"));
        assert_eq!(older.code(), tonic::Code::Unavailable);
        assert!(older.message().contains("hint: ask at the leader's host"), "{older}");
        let wrong = of_another_version(Status::invalid_argument("invalid mount target"));
        assert_eq!((wrong.code(), wrong.message()), (tonic::Code::InvalidArgument, "invalid mount target"));
    }
}
