//! Making sure of a Raft member that this manager does not know: by asking those that it does know.
//!
//! A manager that was away knows the members of that time, one that has no state yet the managers that it joins through.
//! Any of them may say that another one joined since: they could have made it a member themselves. Who is none of theirs
//! and cannot name itself one of them finds nobody to speak for it.

use crate::{Connect, InNameOf};
use futures::{StreamExt as _, stream::FuturesUnordered};
use model::{Duration, NodeId};
use proto::{
    WireId as _,
    ca::{VouchRequest, membership_client::MembershipClient},
};
use std::{net::SocketAddr, sync::Arc};
use tracing::{debug, warn};

/// How long the others have to answer: a candidate waits a second for a vote.
const LIMIT: Duration = Duration::from_millis(800);

/// Returns how this manager's store makes sure of members that it does not know. `seeds`: the managers that its node last
/// heard of. Those that are members by its log may all be gone by now.
pub fn voucher(
    store: store::Handle,
    connect: Connect,
    seeds: impl Fn() -> Vec<SocketAddr> + Send + Sync + 'static,
) -> store::Vouch {
    Arc::new(move |node, raft_id| {
        let me = store.raft_id();
        let known = store.members().into_iter().filter(|m| m.raft_id != me && m.raft_id != raft_id);
        let mut known: Vec<(SocketAddr, Option<NodeId>)> =
            known.map(|m| (m.addr, m.node.or_else(|| store.member_node(m.raft_id)))).collect();
        let heard_of = seeds().into_iter().filter(|addr| known.iter().all(|(member, _)| member != addr));
        let heard_of: Vec<_> = heard_of.map(|addr| (addr, None)).collect();
        known.extend(heard_of);
        let request = VouchRequest { node: node.to_wire(), raft_id };
        let asked: FuturesUnordered<_> = known
            .into_iter()
            .map(|(addr, at)| {
                let (mut manager, request) =
                    (MembershipClient::new(connect(addr, at, &InNameOf::Manager)), request.clone());
                async move { (addr, manager.vouch(request).await) }
            })
            .collect();
        Box::pin(async move {
            let answer = tokio::time::timeout(LIMIT, any_yes(asked)).await;
            let is = answer.unwrap_or(false);
            if is {
                debug!(node.id = %node, raft.id = raft_id, "a member that is new here");
            } else {
                warn!(node.id = %node, raft.id = raft_id, "Raft messages of somebody whom no known manager takes for a member");
            }
            is
        })
    })
}

async fn any_yes(
    mut asked: FuturesUnordered<
        impl Future<Output = (SocketAddr, Result<tonic::Response<proto::ca::VouchReply>, tonic::Status>)>,
    >,
) -> bool {
    while let Some((addr, answer)) = asked.next().await {
        match answer {
            Ok(reply) if reply.get_ref().member => return true,
            Ok(_) => {}
            Err(error) => debug!(manager.addr = %addr, %error, "cannot be asked who is a member"),
        }
    }
    false
}
