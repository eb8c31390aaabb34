//! The feature level of the swarm: what every manager understands. Runs on the leader only.
//!
//! ```text
//!  a manager starts with a newer version -> its node says so -> all do: the level rises, in the log like all else
//! ```
//! It never sinks: what is in the log above a level can only be read from it on. So whoever understands less is not
//! taken in ([`may_join`]), and a member that finds a level above its own applies nothing more (`store`).

use crate::{ingress, random::random_id, shared::Shared};
use model::{Change, Cluster, Duration, FEATURE_LEVEL, NetworkId, Node, Object, Role, Tables};
use std::sync::Arc;
use tonic::Status;
use tracing::{info, warn};

/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut applied = shared.store.watch();
    loop {
        applied.borrow_and_update();
        if let Some(cluster) = raised(&shared.store.view()) {
            let level = cluster.feature_level;
            let changes = random_id().map(|id| changes(&shared.store.view(), cluster, NetworkId(id)));
            match async { shared.change(changes?).await }.await {
                Ok(_) => {
                    info!(level, "every manager understands a newer feature level: it is the swarm's now")
                }
                Err(status) if status.code() == tonic::Code::Aborted => {} // changed meanwhile: looked at again
                Err(error) => {
                    warn!(%error, "cannot raise the feature level, will retry");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if applied.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Refuses a manager that does not know the rules by which the others write and apply.
///
/// # Errors
/// FAILED_PRECONDITION: it must be of a newer version.
pub(crate) fn may_join(view: &Tables, understood: u32) -> Result<(), Status> {
    let level = view.cluster.as_ref().map_or(0, |cluster| cluster.feature_level);
    if understood.max(1) >= level {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "the swarm is at feature level {level} and this manager understands up to {}; hint: install the version of \
         the other managers",
        understood.max(1)
    )))
}

/// Returns the swarm at the level that all managers understand, if that is above its own.
fn raised(view: &Tables) -> Option<Cluster> {
    let cluster = view.cluster.as_ref()?;
    // Also one that is about to join.
    let managers = view.nodes.values().filter(|n| n.manager.is_some() || n.spec.role == Role::Manager);
    let understood = |node: &Arc<Node>| node.description.as_ref().map_or(0, |d| d.feature_level).max(1);
    let level = managers.map(understood).min()?.min(FEATURE_LEVEL);
    (level > cluster.feature_level).then(|| Cluster { feature_level: level, ..Cluster::clone(cluster) })
}

/// Returns what makes the swarm one of a newer level: also what new swarms begin with and older ones do not have.
fn changes(view: &Tables, cluster: Cluster, id: NetworkId) -> Vec<Change> {
    let ingress = ingress::of_earlier(view, &cluster, id).map(|network| Object::Network(Arc::new(network)));
    std::iter::once(Object::Cluster(Arc::new(cluster))).chain(ingress).map(Change::Put).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;

    #[test]
    fn the_level_is_what_every_manager_understands_and_never_sinks() {
        let at = |swarm: u32, managers: &[Option<u32>]| {
            let mut cluster = Cluster::clone(state().cluster().tables().cluster.as_ref().unwrap());
            (cluster.meta, cluster.feature_level) = (model::Meta::default(), swarm);
            let mut state = state().put(Object::Cluster(Arc::new(cluster)));
            for (id, told) in (1..).zip(managers) {
                state = state.node(id).change_node(id, |node| {
                    node.spec.role = Role::Manager;
                    node.description = node.description.take().and_then(|mut d| {
                        d.feature_level = (*told)?;
                        Some(d)
                    });
                });
            }
            raised(&state.node(9).change_node(9, |worker| worker.description = None).tables())
                .map(|cluster| cluster.feature_level)
        };
        let newest = Some(FEATURE_LEVEL);
        assert_eq!(at(1, &[newest, newest]), newest, "workers do not count");
        assert_eq!(at(1, &[newest, Some(FEATURE_LEVEL + 5)]), newest, "but no further than this one knows");
        assert_eq!(at(1, &[newest, Some(0)]), None, "an old one");
        assert_eq!(at(1, &[newest, None]), None, "one that did not tell yet");
        assert_eq!(at(FEATURE_LEVEL, &[newest, Some(1)]), None);
        assert_eq!(at(FEATURE_LEVEL, &[newest]), None, "it is there");
    }

    #[test]
    fn a_manager_of_an_older_version_is_not_taken_in() {
        let tables = state().cluster().tables();
        assert!(may_join(&tables, FEATURE_LEVEL).is_ok() && may_join(&tables, FEATURE_LEVEL + 1).is_ok());
        for older in [0, FEATURE_LEVEL - 1] {
            let refused = may_join(&tables, older).unwrap_err();
            assert!(
                refused.message().contains("hint: install the version of the other managers"),
                "{refused}"
            );
        }
    }
}
