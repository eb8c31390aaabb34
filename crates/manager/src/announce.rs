//! Tells nodes that are not heard of that the swarm has begun anew, while this manager leads.
//!
//! Who was away when the swarm was recovered or restored may know no manager of it: a worker whose managers are all gone,
//! a former manager that comes back and finds others who are as late as itself. They are told where they are known to
//! be, again and again, until they open a session.

use crate::{InNameOf, shared::Shared};
use futures::{StreamExt as _, stream};
use model::{Duration, NodeId, NodeState, Tables};
use proto::node::{AnnounceRequest, peer_client::PeerClient};
use std::{net::SocketAddr, sync::Arc};
use tracing::debug;

const PERIOD: Duration = Duration::from_secs(3);
/// How long a node may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// *Limit* of nodes that are told at once.
const AT_ONCE: usize = 32;

pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let view = shared.store.view();
        if let Some(request) = announcement(&view) {
            let told = stream::iter(unheard(&view)).for_each_concurrent(AT_ONCE, |(node, addr)| {
                let (request, channel) =
                    (request.clone(), (shared.connect)(addr, Some(node), &InNameOf::Manager));
                async move {
                    let mut peer = PeerClient::new(channel);
                    match tokio::time::timeout(LIMIT, peer.announce(request)).await {
                        Ok(Ok(_)) => debug!(node.id = %node, "told that the swarm has begun anew"),
                        Ok(Err(error)) => debug!(node.id = %node, %error, "cannot be told of the swarm"),
                        Err(_) => debug!(node.id = %node, "cannot be told of the swarm: no answer"),
                    }
                }
            });
            told.await;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Returns what nodes are told; `None` in a swarm that has always been the same.
fn announcement(view: &Tables) -> Option<AnnounceRequest> {
    let incarnation = view.cluster.as_ref()?.incarnation?;
    let managers = view.nodes.values().filter_map(|node| Some(node.manager?.addr.to_string()));
    Some(AnnounceRequest { incarnation: Some((&incarnation).into()), managers: managers.collect() })
}

fn unheard(view: &Tables) -> Vec<(NodeId, SocketAddr)> {
    let away = view.nodes.values().filter(|n| match n.status.state {
        NodeState::Unknown | NodeState::Away | NodeState::Down => true,
        NodeState::Ready | NodeState::Disconnected => false,
    });
    away.filter_map(|n| Some((n.id, n.description.as_ref()?.addr))).collect()
}
