//! Asks the hosts of nodes that are late whether they are there, while this manager leads.

use crate::{clock::heartbeat_period, shared::Shared};
use model::NodeId;
use std::sync::Arc;
use tokio::{task::JoinSet, time::Instant};
use tracing::debug;

/// *Limit* of hosts asked at once: a descriptor each, for a heartbeat period at most. If more are late at the same time,
/// those that it does not come to in time are taken as silent.
const ASKED_AT_ONCE: usize = 128;

/// Asks until it is dropped; what it asks ends with it.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut asked: JoinSet<(NodeId, bool)> = JoinSet::new();
    loop {
        let view = shared.store.view();
        let period = heartbeat_period(&view);
        let limit = ASKED_AT_ONCE.saturating_sub(asked.len());
        for (node, addr) in shared.presence().ask_hosts(Instant::now(), period, &view, limit) {
            let answer = (shared.answers)(addr);
            asked.spawn(async move {
                // A heartbeat's period is long enough for any network that we can run on.
                (node, tokio::time::timeout(period, answer).await.unwrap_or(false))
            });
        }
        tokio::select! {
            Some(answer) = asked.join_next() => match answer {
                Ok((node, answers)) => {
                    debug!(node.id = %node, answers, "asked the host of a node that is late");
                    shared.presence().host_was_asked(Instant::now(), node, answers);
                    shared.presence_changed.notify_one();
                }
                Err(error) => debug!(%error, "a question to a host was not asked"),
            },
            () = tokio::time::sleep(period / 4) => {}
        }
    }
}
