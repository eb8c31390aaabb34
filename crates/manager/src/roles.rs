//! What each node is to be and what it is in Raft are brought together, again and again. Runs on the leader only.
//!
//! ```text
//!  role       in Raft as        the state says     what is done
//!  worker     a member          that member        take it out of Raft, then out of the state
//!  any        nothing           some member        take it out of the state
//!  manager    a voter           nothing            write it into the state: a join whose last step was lost
//!  worker     a member          nothing            take it out of Raft: it was demoted while it joined
//!  any        a member          nothing            take it out of Raft: a join that was given up, or an earlier life
//! ```
//! A demoted manager leaves Raft first; only then does it get a worker's certificate (`ca`), whatever is recorded of it.
//! A leader that is to be none hands leadership over first. Promotion needs nothing
//! here: the node sees its new role, gets a certificate and asks to join Raft. A node that is to be a manager and finds
//! itself out of Raft joins anew, under another number. So every order of demotions, promotions, leaves and removals ends
//! in what was said last.

use crate::{refusals::membership_error, shared::Shared, trouble::Trouble};
use model::{Change, Duration, ManagerStatus, Node, NodeId, NodeState, Object, Role, Tables};
use std::{collections::BTreeMap, sync::Arc};
use store::Member;
use tokio::time::Instant;
use tonic::Status;
use tracing::info;

const PERIOD: Duration = Duration::from_secs(2);
/// Between two looks while the state changes all the time.
const GATHER: Duration = Duration::from_millis(100);
/// How long a demoted manager is still told what the others agree on: it hears of its demotion by Raft itself, and its
/// sessions go elsewhere, before Raft forgets it.
const NOTICE: Duration = Duration::from_millis(600);
/// How long the state and Raft may differ while a join is under way that another leader began.
const DOUBT: Duration = Duration::from_secs(1);

/// Something that brings Raft and the state together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Takes a demoted manager out of Raft.
    Demote(NodeId, u64),
    /// Takes it out of the state: it is in Raft no more.
    Forget(NodeId, u64),
    /// Writes a voter into the state.
    Adopt(NodeId, u64),
    /// Takes a member out of Raft whose node is not to be a manager.
    Dismiss(u64),
    /// Takes a member out of Raft that is no node's.
    Expel(u64),
}

impl Step {
    fn ends_membership_of(self, me: u64) -> bool {
        match self {
            Self::Demote(_, raft_id) | Self::Dismiss(raft_id) | Self::Expel(raft_id) => raft_id == me,
            Self::Forget(..) | Self::Adopt(..) => false,
        }
    }
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut applied = shared.store.watch();
    let mut doubts = BTreeMap::new();
    let mut trouble = Trouble::new("roles and Raft cannot be brought together");
    loop {
        applied.borrow_and_update();
        match reconcile(&shared, &mut doubts).await {
            Ok(()) => trouble.is_over(),
            Err(status) => trouble.note(&status.message()),
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Returns what is to be done, demotions first, and of these the leader's own last: leadership goes with it.
fn steps(view: &Tables, members: &[Member], me: u64) -> Vec<Step> {
    let is_member = |raft_id: u64| members.iter().any(|m| m.raft_id == raft_id);
    let named = view.nodes.values().filter_map(|n| Some((n, n.manager?.raft_id)));
    let mut steps: Vec<Step> = named
        .filter_map(|(node, raft_id)| match (is_to_be_manager(node), is_member(raft_id)) {
            (true, true) => None,
            (false, true) => Some(Step::Demote(node.id, raft_id)),
            (_, false) => Some(Step::Forget(node.id, raft_id)),
        })
        .collect();
    let is_named =
        |raft_id: u64| view.nodes.values().any(|n| n.manager.is_some_and(|m| m.raft_id == raft_id));
    for member in members.iter().filter(|m| !is_named(m.raft_id)) {
        let node = member.node.and_then(|id| view.nodes.get(&id));
        match node.filter(|n| is_to_be_manager(n) && n.manager.is_none() && member.voter) {
            Some(node) => steps.push(Step::Adopt(node.id, member.raft_id)),
            // The only one there is has nobody to hand over to.
            None if member.raft_id == me && !members.iter().any(|m| m.voter && m.raft_id != me) => {}
            None if node.is_some_and(|n| !is_to_be_manager(n)) => steps.push(Step::Dismiss(member.raft_id)),
            None => steps.push(Step::Expel(member.raft_id)),
        }
    }
    steps.sort_by_key(|step| (step.ends_membership_of(me), *step));
    steps
}

fn is_to_be_manager(node: &Node) -> bool {
    node.spec.role == Role::Manager && node.status.state != NodeState::Disconnected
}

/// Does what is to be done; goes on after a failure, and returns the first.
async fn reconcile(shared: &Shared, doubts: &mut BTreeMap<Step, Instant>) -> Result<(), Status> {
    let look = || steps(&shared.store.view(), &shared.store.members(), shared.store.raft_id());
    let mut found = look();
    if found.iter().any(|step| matches!(step, Step::Demote(..))) {
        tokio::time::sleep(NOTICE).await;
        // It may have been promoted again.
        found = look();
    }
    doubts.retain(|step, _| found.contains(step));
    let mut outcome = Ok(());
    for step in found {
        let since = doubts.entry(step).or_insert_with(Instant::now).elapsed();
        let done = match step {
            Step::Demote(node, raft_id) => demote(shared, node, raft_id).await,
            Step::Forget(node, raft_id) => forget(shared, node, raft_id).await,
            Step::Adopt(..) | Step::Expel(_) if since < DOUBT => Ok(()),
            Step::Adopt(_, raft_id) | Step::Expel(raft_id) | Step::Dismiss(raft_id)
                if shared.joining().contains(&raft_id) =>
            {
                Ok(())
            }
            Step::Adopt(node, raft_id) => adopt(shared, node, raft_id).await,
            Step::Dismiss(raft_id) | Step::Expel(raft_id) => expel(shared, raft_id).await,
        };
        outcome = outcome.and(done);
    }
    outcome
}

async fn demote(shared: &Shared, id: NodeId, raft_id: u64) -> Result<(), Status> {
    // When it is this manager, leadership goes first, this loop with it, and the next leader goes on.
    shared.remove_member(raft_id).await.map_err(|e| membership_error(&e))?;
    forget(shared, id, raft_id).await?;
    info!(node.id = %id, raft.id = raft_id, "manager demoted");
    Ok(())
}

async fn forget(shared: &Shared, id: NodeId, raft_id: u64) -> Result<(), Status> {
    write(shared, id, |node| {
        (node.manager?.raft_id == raft_id).then(|| Node { manager: None, ..node.clone() })
    })
    .await
}

async fn adopt(shared: &Shared, id: NodeId, raft_id: u64) -> Result<(), Status> {
    let Some(member) = shared.store.members().into_iter().find(|m| m.raft_id == raft_id && m.voter) else {
        return Ok(());
    };
    let manager = Some(ManagerStatus { raft_id, addr: member.addr, seen: None });
    let is_wanted = |node: &Node| is_to_be_manager(node) && node.manager.is_none();
    write(shared, id, |node| is_wanted(node).then(|| Node { manager, ..node.clone() })).await?;
    info!(node.id = %id, raft.id = raft_id, "a join that was not finished is");
    Ok(())
}

async fn expel(shared: &Shared, raft_id: u64) -> Result<(), Status> {
    shared.remove_member(raft_id).await.map_err(|e| membership_error(&e))?;
    info!(raft.id = raft_id, "Raft member of no node removed");
    Ok(())
}

/// Writes what `change` makes of a node; whoever else writes to it meanwhile only costs another look.
async fn write(shared: &Shared, id: NodeId, change: impl Fn(&Node) -> Option<Node>) -> Result<(), Status> {
    let decide = |view: &Tables| {
        let changed = view.nodes.get(&id).and_then(|node| change(node));
        Ok(((), changed.into_iter().map(|node| Change::Put(Object::Node(Arc::new(node)))).collect()))
    };
    shared.decide(0, decide).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;

    fn member(raft_id: u64, node: u128, voter: bool) -> Member {
        Member {
            raft_id,
            node: Some(NodeId(node)),
            addr: "192.0.2.1:2377".parse().unwrap(),
            voter,
            leader: raft_id == 1,
            reachable: Some(true),
            behind: Some(0),
        }
    }

    /// Node 1 leads as member 1; node 2 has this role, and is this member by the state and that one in Raft.
    fn check(role: Role, recorded: Option<u64>, in_raft: Option<(u64, bool)>) -> Vec<Step> {
        let manager = |raft_id| {
            move |n: &mut Node| {
                n.spec.role = Role::Manager;
                n.manager =
                    Some(ManagerStatus { raft_id, addr: "192.0.2.1:2377".parse().unwrap(), seen: None });
            }
        };
        let tables = state().node(1).node(2).change_node(1, manager(1)).change_node(2, |n| {
            if let Some(raft_id) = recorded {
                manager(raft_id)(n);
            }
            n.spec.role = role;
        });
        let mut members = vec![member(1, 1, true)];
        members.extend(in_raft.map(|(raft_id, voter)| member(raft_id, 2, voter)));
        steps(&tables.tables(), &members, 1)
    }

    #[test]
    fn what_differs_is_brought_together_and_nothing_else_touched() {
        use Role::{Manager, Worker};
        let two = NodeId(2);
        assert_eq!(check(Manager, Some(2), Some((2, true))), []);
        assert_eq!(check(Worker, None, None), []);
        assert_eq!(check(Worker, Some(2), Some((2, true))), [Step::Demote(two, 2)]);
        assert_eq!(check(Worker, Some(2), None), [Step::Forget(two, 2)]);
        assert_eq!(check(Manager, Some(2), None), [Step::Forget(two, 2)], "it joins anew");
        assert_eq!(check(Manager, None, Some((2, true))), [Step::Adopt(two, 2)]);
        assert_eq!(check(Manager, None, Some((2, false))), [Step::Expel(2)], "it never caught up");
        assert_eq!(check(Worker, None, Some((2, true))), [Step::Dismiss(2)]);
        assert_eq!(check(Manager, Some(3), Some((2, true))), [Step::Forget(two, 3), Step::Expel(2)]);
    }

    #[test]
    fn a_leader_that_joined_while_it_was_demoted_hands_over_last_of_all() {
        let tables = state().node(1).node(2).change_node(2, |n| n.spec.role = Role::Worker).tables();
        let leader = Member { node: Some(NodeId(2)), ..member(2, 2, true) };
        assert_eq!(steps(&tables, &[leader], 2), [], "nobody else could lead");
        let others = [leader, member(1, 1, true), member(9, 9, true)];
        let found = steps(&tables, &others, 2);
        assert_eq!(found.last(), Some(&Step::Dismiss(2)), "{found:?}");
        assert!(found.contains(&Step::Expel(9)), "{found:?}");
    }
}
