//! Managers that are gone for long are taken out of the majority that the others need, where the swarm's settings say so
//! (`ClusterSpec::dead_manager_after`). Runs on the leader only.
//!
//! A dead manager costs: of four with a dead one, three must agree, so that the next loss but one is the last. But who is
//! made a worker does not count when it comes back, so nobody is while it could be needed: never below three managers,
//! never without a majority, and only one whose host is given up.

use crate::{
    notes::{self, Kind, Note},
    shared::Shared,
    trouble::Trouble,
};
use model::{Change, Duration, Node, NodeId, NodeState, Object, Role, Tables};
use std::{collections::BTreeMap, sync::Arc};
use store::Member;
use tokio::time::Instant;
use tonic::Status;
use tracing::warn;

const PERIOD: Duration = Duration::from_secs(1);
/// *Limit* of managers that are left, at least: with two the loss of either is the loss of the majority.
const LEFT_MIN: usize = 3;

pub(crate) async fn run(shared: Arc<Shared>) {
    // This leader's own time: what another one has seen does not count.
    let mut silent_since: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut trouble = Trouble::new("a dead manager cannot be taken out of the majority");
    loop {
        tokio::time::sleep(PERIOD).await;
        let (view, members, now) = (shared.store.view(), shared.store.members(), Instant::now());
        let silent = |id: &u64| members.iter().any(|m| m.raft_id == *id && m.reachable == Some(false));
        silent_since.retain(|id, _| silent(id));
        for member in members.iter().filter(|m| silent(&m.raft_id)) {
            silent_since.entry(member.raft_id).or_insert(now);
        }
        let Some(after) = view.cluster.as_ref().and_then(|c| c.spec.dead_manager_after) else { continue };
        let dead = |id: u64| silent_since.get(&id).is_some_and(|since| now.duration_since(*since) >= after);
        let Some(node) = dismissible(&view, &members, dead) else { continue };
        match dismiss(&shared, node, after).await {
            Ok(()) => trouble.is_over(),
            Err(status) => trouble.note(&status.message()),
        }
    }
}

/// Returns a dead manager that the others can do without, if there is one.
fn dismissible(view: &Tables, members: &[Member], is_dead: impl Fn(u64) -> bool) -> Option<NodeId> {
    let voters: Vec<&Member> = members.iter().filter(|m| m.voter).collect();
    let alive = voters.iter().filter(|m| m.reachable == Some(true)).count();
    let left = voters.len().checked_sub(1)?;
    if left < LEFT_MIN || alive <= voters.len() / 2 {
        return None;
    }
    let mut dead = voters.iter().filter(|m| is_dead(m.raft_id)).filter_map(|m| view.nodes.get(&m.node?));
    dead.find(|n| n.status.state == NodeState::Down && n.spec.role == Role::Manager).map(|n| n.id)
}

async fn dismiss(shared: &Shared, id: NodeId, after: Duration) -> Result<(), Status> {
    let decide = |view: &Tables| {
        let Some(node) = view.nodes.get(&id).filter(|n| n.spec.role == Role::Manager) else {
            return Ok(((), Vec::new()));
        };
        let name = node.display_name();
        let note = Note {
            kind: Kind::Refusal,
            person: "swarm".to_owned(),
            from: "the leader".to_owned(),
            via: Some(shared.node),
            action: "demote".to_owned(),
            object: format!("node {name}"),
            message: format!("not heard of for {} s", after.as_secs()),
        };
        let record = notes::record(note, (shared.clock)())?;
        let mut worker = Node::clone(node);
        worker.spec.role = Role::Worker;
        let objects = [Object::Node(Arc::new(worker)), Object::Audit(Arc::new(record))];
        Ok(((), objects.into_iter().map(Change::Put).collect()))
    };
    shared.decide(0, decide).await?;
    warn!(node.id = %id, ?after, "a manager that was not heard of for long is a worker from now on");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::ManagerStatus;

    /// Managers, one letter each: `a`live, `d`ead for long, `s`ilent not for long, `w` silent while its host answers.
    fn check(managers: &str) -> Option<u128> {
        let (mut built, mut members) = (state().cluster(), Vec::new());
        for (id, letter) in (1..).zip(managers.chars()) {
            built = built.node(u128::from(id)).change_node(u128::from(id), |n| {
                n.spec.role = Role::Manager;
                let addr = "192.0.2.1:2377".parse().unwrap();
                n.manager = Some(ManagerStatus { raft_id: id, addr, seen: None });
                n.status.state = match letter {
                    'a' => NodeState::Ready,
                    'w' => NodeState::Away,
                    _ => NodeState::Down,
                };
            });
            members.push(Member {
                raft_id: id,
                node: Some(NodeId(u128::from(id))),
                addr: "192.0.2.1:2377".parse().unwrap(),
                voter: true,
                leader: id == 1,
                reachable: Some(letter == 'a'),
                behind: Some(0),
            });
        }
        let is_dead = |id: u64| matches!(managers.as_bytes()[usize::try_from(id).unwrap() - 1], b'd' | b'w');
        dismissible(&built.tables(), &members, is_dead).map(|node| node.0)
    }

    #[test]
    fn a_dead_manager_goes_only_where_the_others_can_do_without_it() {
        assert_eq!(check("aaad"), Some(4));
        assert_eq!(check("aaadd"), Some(4), "one after the other");
        assert_eq!(check("aaaaa"), None);
        assert_eq!(check("aaas"), None, "not for long enough");
        assert_eq!(check("aaaw"), None, "its host answers");
        assert_eq!(check("aad"), None, "two would be left");
        assert_eq!(check("ad"), None);
        assert_eq!(check("aadd"), None, "there is no majority now");
    }
}
