//! Who takes part in Raft, and changing it: one member at a time, and never without the majority's consent.

use crate::{
    leadership::{TurnedAway, leader_now, leadership, turned_away},
    machine::Machine,
    supervise::Failure,
    types::{Place, TypeConfig, addr_of},
};
use model::{Duration, NodeId};
use openraft::{
    ChangeMembers, Instant as _, Raft, ServerState,
    async_runtime::watch::WatchReceiver as _,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};
use std::{collections::BTreeSet, future::Future, net::SocketAddr};
use tokio::time::{Instant, sleep, timeout};

/// A member that is far behind gets a snapshot first.
const CATCH_UP: Duration = Duration::from_secs(60);
const CHANGE: Duration = Duration::from_secs(20);
const TRANSFER: Duration = Duration::from_secs(5);
/// How long who is to lead may take before it is asked again.
const TRANSFER_AGAIN: Duration = Duration::from_secs(1);
/// A member not heard of for this long is called unreachable.
const UNREACHABLE: Duration = Duration::from_secs(3);
/// Between two looks at something that is under way.
const POLL: Duration = Duration::from_millis(50);

/// One that takes part in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub raft_id: u64,
    /// The node whose number it is; `None`: of a log written before members were bound to nodes.
    pub node: Option<NodeId>,
    pub addr: SocketAddr,
    /// False while it is catching up.
    pub voter: bool,
    pub leader: bool,
    /// Whether the leader heard of it within the last few heartbeats; only the leader knows.
    pub reachable: Option<bool>,
    /// Entries of the leader's log that it has not acknowledged; only the leader knows.
    pub behind: Option<u64>,
}

/// Why the members did not change.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("this manager is not the leader")]
    NotLeader { leader: Option<(u64, SocketAddr)> },
    #[error("member {0} did not catch up with the log in time; is its address reachable from the leader?")]
    Behind(u64),
    #[error("member {0} is the last manager: without it the swarm's state is lost")]
    Last(u64),
    #[error(
        "without member {0} the managers that can be reached are no majority: bring others back, or add one, first"
    )]
    Quorum(u64),
    #[error("no other manager can take over leadership")]
    NoSuccessor,
    #[error("the managers did not agree on the change in time; look at the members before trying again")]
    OutcomeUnknown,
    #[error("cannot change the members: {0}")]
    Refused(String),
}

type Write = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

#[derive(Clone, Debug)]
pub(crate) struct Members {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) failure: Failure,
}

impl Members {
    pub(crate) fn list(&self) -> Vec<Member> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        // What was measured before Raft stopped here says nothing of now.
        let leading = metrics.state == ServerState::Leader && !self.failure.is_set();
        let last = metrics.last_log_index.unwrap_or_default();
        let acknowledged = metrics.replication.unwrap_or_default();
        let behind = |id: &u64| {
            let matched = acknowledged.get(id).copied().flatten().map_or(0, |id| id.index);
            if *id == metrics.id { 0 } else { last.saturating_sub(matched) }
        };
        let heard = metrics.heartbeat.unwrap_or_default();
        let recent = |id: &u64| heard.get(id).copied().flatten().is_some_and(|at| at.elapsed() < UNREACHABLE);
        membership
            .nodes()
            .filter_map(|(id, node)| {
                Some(Member {
                    raft_id: *id,
                    node: node.node,
                    addr: addr_of(node)?,
                    voter: voters.contains(id),
                    leader: metrics.current_leader == Some(*id) && !self.failure.is_set(),
                    behind: leading.then(|| behind(id)),
                    reachable: leading.then(|| *id == metrics.id || recent(id)),
                })
            })
            .collect()
    }

    /// Adds a voter: first as a learner, and when it has caught up for good. Repeating it is harmless.
    pub(crate) async fn add(
        &self,
        raft_id: u64,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<(), MembershipError> {
        self.leading()?;
        let known = self.list().into_iter().find(|m| m.raft_id == raft_id);
        if let Some(other) = known.and_then(|m| m.node).filter(|other| *other != node) {
            return Err(MembershipError::Refused(format!("the number {raft_id} is node {other}'s")));
        }
        let is_here = |m: Member| m.addr == addr && m.node.is_some();
        if known.is_some_and(|m| m.voter && is_here(m)) {
            return Ok(());
        }
        let node = Place { addr: addr.to_string(), node: Some(node) };
        if known.is_some_and(|m| !is_here(m)) {
            let nodes = [(raft_id, node.clone())].into();
            self.change(|| {
                self.raft.change_membership(
                    ChangeMembers::SetNodes(std::collections::BTreeMap::clone(&nodes)),
                    true,
                )
            })
            .await?;
        }
        self.change(|| self.raft.add_learner(raft_id, node.clone(), false)).await?;
        if let Err(error) = self.caught_up(raft_id).await {
            // A learner nobody reaches would only be dead weight.
            if known.is_none() {
                self.drop_learner(raft_id).await?;
            }
            return Err(error);
        }
        self.change(|| self.raft.change_membership(ChangeMembers::AddVoterIds([raft_id].into()), true)).await
    }

    async fn drop_learner(&self, raft_id: u64) -> Result<(), MembershipError> {
        self.change(|| self.raft.change_membership(ChangeMembers::RemoveNodes([raft_id].into()), false)).await
    }

    /// Waits until a learner has all but a few entries.
    async fn caught_up(&self, raft_id: u64) -> Result<(), MembershipError> {
        let give_up = Instant::now() + CATCH_UP;
        loop {
            self.leading()?;
            let metrics = self.raft.metrics().borrow_watched().clone();
            let target = metrics.last_applied.map_or(0, |id| id.index);
            let matched = metrics.replication.and_then(|r| r.get(&raft_id).copied().flatten());
            if matched.is_some_and(|id| id.index + 100 >= target) {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(MembershipError::Behind(raft_id));
            }
            sleep(POLL).await;
        }
    }

    /// Removes a member. The leader hands leadership over first, and then says so: its successor must be asked.
    pub(crate) async fn remove(&self, raft_id: u64) -> Result<(), MembershipError> {
        self.leading()?;
        let members = self.list();
        let Some(member) = members.iter().find(|m| m.raft_id == raft_id) else { return Ok(()) };
        if !member.voter {
            return self.drop_learner(raft_id).await;
        }
        if members.iter().filter(|m| m.voter).count() == 1 {
            return Err(MembershipError::Last(raft_id));
        }
        if raft_id == *self.raft.node_id() {
            self.transfer(None).await?;
            return Err(self.not_leader());
        }
        self.keeps_quorum(raft_id).await?;
        self.change(|| self.raft.change_membership(ChangeMembers::RemoveVoters([raft_id].into()), false))
            .await
    }

    /// Waits until a majority of those who would be left is reachable; a new leader has yet to hear of them.
    async fn keeps_quorum(&self, without: u64) -> Result<(), MembershipError> {
        let give_up = Instant::now() + UNREACHABLE;
        loop {
            self.leading()?;
            let left: Vec<Member> =
                self.list().into_iter().filter(|m| m.voter && m.raft_id != without).collect();
            if left.iter().filter(|m| m.reachable == Some(true)).count() > left.len() / 2 {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(MembershipError::Quorum(without));
            }
            sleep(POLL).await;
        }
    }

    /// Hands leadership to `to`, or to the voter that is furthest. Who is asked does nothing when the request gets lost, or
    /// when he does not have all entries yet: so it is asked again.
    pub(crate) async fn transfer(&self, to: Option<u64>) -> Result<(), MembershipError> {
        let give_up = Instant::now() + TRANSFER;
        self.leading()?;
        loop {
            if self.leading().is_ok() {
                let to = self.successor(to)?;
                let trigger = self.raft.trigger().transfer_leader(to).await;
                trigger.map_err(|e| MembershipError::Refused(e.to_string()))?;
            }
            match timeout(TRANSFER_AGAIN, self.is_led_by_another()).await {
                Ok(true) => return Ok(()),
                Err(_) if Instant::now() < give_up => {}
                Ok(false) | Err(_) => return Err(MembershipError::NoSuccessor),
            }
        }
    }

    /// Returns `to` if it is a voter, else the voter that is furthest.
    fn successor(&self, to: Option<u64>) -> Result<u64, MembershipError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let me = *self.raft.node_id();
        let voters: BTreeSet<u64> =
            metrics.membership_config.membership().voter_ids().filter(|id| *id != me).collect();
        let furthest = metrics
            .replication
            .into_iter()
            .flatten()
            .filter(|(id, matched)| voters.contains(id) && matched.is_some())
            .max_by_key(|(_, matched)| matched.map(|id| id.index));
        match to {
            Some(id) if voters.contains(&id) => Ok(id),
            Some(_) => Err(MembershipError::NoSuccessor),
            None => Ok(furthest.ok_or(MembershipError::NoSuccessor)?.0),
        }
    }

    /// Waits until another member leads; false: this one has ended.
    async fn is_led_by_another(&self) -> bool {
        let mut metrics = self.raft.server_metrics();
        loop {
            let now = leadership(&metrics.borrow_and_update().clone());
            if !now.me && now.leader.is_some() {
                return true;
            }
            if metrics.changed().await.is_err() {
                return false;
            }
        }
    }

    fn leading(&self) -> Result<(), MembershipError> {
        if leader_now(&self.raft).me && !self.failure.is_set() { Ok(()) } else { Err(self.not_leader()) }
    }

    fn not_leader(&self) -> MembershipError {
        let known = leader_now(&self.raft).leader.filter(|_| !self.failure.is_set());
        MembershipError::NotLeader { leader: known }
    }

    /// Runs one change; while another is under way, waits for it.
    async fn change<T, Fut>(&self, change: impl Fn() -> Fut) -> Result<(), MembershipError>
    where
        Fut: Future<Output = Result<T, Write>>,
    {
        let attempts = async {
            loop {
                match change().await {
                    Ok(_) => return Ok(()),
                    Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                    ))) => sleep(POLL).await,
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(why))) => {
                        match turned_away(&self.raft, &why) {
                            TurnedAway::To(leader) => return Err(MembershipError::NotLeader { leader }),
                            TurnedAway::NoMajority => sleep(POLL).await,
                        }
                    }
                    Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                        return Err(MembershipError::OutcomeUnknown);
                    }
                    Err(other) => return Err(MembershipError::Refused(other.to_string())),
                }
            }
        };
        timeout(CHANGE, attempts).await.unwrap_or(Err(MembershipError::OutcomeUnknown))
    }
}
