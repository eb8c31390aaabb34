//! Demotion, and cleaning up after joins that were never finished. Runs on the leader only.
//!
//! A demoted manager leaves Raft first; only then does it get a worker's certificate (`ca`). Promotion needs
//! nothing here: the node sees its new role, gets a certificate and asks to join Raft.

use crate::shared::Shared;
use model::{Change, Duration, Node, Object, Role};
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::Instant;
use tracing::{info, warn};

const PERIOD: Duration = Duration::from_secs(5);
/// How long a demoted manager is still told what the others agree on: it hears of its demotion by Raft itself, and its
/// sessions go elsewhere, before Raft forgets it.
const NOTICE: Duration = Duration::from_millis(600);
/// A Raft member that belongs to no node is removed after this long.
const STRAY_LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut applied = shared.store.watch();
    let mut strays = BTreeMap::new();
    loop {
        applied.borrow_and_update();
        let view = shared.store.view();
        for node in view.nodes.values().filter(|n| n.spec.role == Role::Worker && n.manager.is_some()) {
            demote(&shared, node).await;
        }
        remove_strays(&shared, &mut strays).await;
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn demote(shared: &Shared, node: &Node) {
    let Some(manager) = node.manager else { return };
    tokio::time::sleep(NOTICE).await;
    // When it is this manager, leadership goes first, this loop with it, and the next leader goes on.
    if let Err(error) = shared.store.remove_member(manager.raft_id).await {
        warn!(node.id = %node.id, %error, "cannot take the demoted manager out of Raft, will retry");
        return;
    }
    let change = Change::Put(Object::Node(Arc::new(Node { manager: None, ..node.clone() })));
    match shared.change(vec![change]).await {
        Ok(_) => info!(node.id = %node.id, "manager demoted"),
        Err(error) => warn!(node.id = %node.id, %error, "cannot record the demotion, will retry"),
    }
}

async fn remove_strays(shared: &Shared, strays: &mut BTreeMap<u64, Instant>) {
    let view = shared.store.view();
    let known = |raft_id: u64| view.nodes.values().any(|n| n.manager.is_some_and(|m| m.raft_id == raft_id));
    let members = shared.store.members();
    strays.retain(|id, _| !known(*id) && members.iter().any(|m| m.raft_id == *id));
    for member in members.iter().filter(|m| !known(m.raft_id) && m.raft_id != shared.store.raft_id()) {
        let since = *strays.entry(member.raft_id).or_insert_with(Instant::now);
        if since.elapsed() < STRAY_LIMIT || shared.joining().contains(&member.raft_id) {
            continue;
        }
        match shared.store.remove_member(member.raft_id).await {
            Ok(()) => info!(raft.id = member.raft_id, "Raft member of no node removed"),
            Err(error) => warn!(raft.id = member.raft_id, %error, "cannot remove a Raft member of no node"),
        }
    }
}
