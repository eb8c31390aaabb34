//! Whom this node lets in and whom it calls on: by the state on a manager, by what sessions told on a worker.
//!
//! A worker that hears no manager believes what it last heard. Once a node was told to be a manager no more, it is none
//! until a session says otherwise, whatever certificate it shows.
//!
//! Tasks (of tokio): [`Gate::watch`] closes the connections of nodes that were removed or are managers no more, both
//! those that they opened and those that this node opened to them.

use arc_swap::{ArcSwap, ArcSwapOption};
use manager::standing::{Known, Standing, Told};
use model::{ClusterId, Incarnation, NodeId, Role, Tables};
use pki::Guests;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Between two looks at a state that changes all the time.
const GATHER: Duration = Duration::from_millis(100);

/// Knows who is who. Shared by the services of a member and its connections.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Of a manager.
    store: ArcSwapOption<store::Handle>,
    /// Of a worker; of a manager until it has a state.
    told: ArcSwap<Word>,
    news: Notify,
    /// Every connection from or to another node.
    pub(crate) guests: Guests,
    /// The latest life of the swarm that was heard of.
    pub(crate) incarnation: watch::Sender<Option<Incarnation>>,
    /// Managers that said that the swarm has begun anew with them; taken by the keeper.
    announced: Mutex<Option<Vec<SocketAddr>>>,
    /// This manager is about to go on without the others.
    pub(crate) recovering: Arc<AtomicBool>,
}

/// What sessions told.
#[derive(Debug, Clone)]
struct Word {
    told: Told,
    /// Were managers once, by word of a session, and are not now.
    former: BTreeSet<NodeId>,
}

impl Gate {
    pub(crate) fn new(cluster: ClusterId) -> Self {
        let told = Told { cluster, managers: BTreeSet::new(), removed: BTreeSet::new() };
        Self {
            store: ArcSwapOption::empty(),
            told: ArcSwap::from_pointee(Word { told, former: BTreeSet::new() }),
            news: Notify::new(),
            guests: Guests::default(),
            incarnation: watch::Sender::new(None),
            announced: Mutex::default(),
            recovering: Arc::default(),
        }
    }

    /// Notes that the swarm has begun anew with these managers, unless that was before what is known.
    pub(crate) fn hear_announcement(&self, incarnation: Incarnation, managers: Vec<SocketAddr>) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if Some(incarnation) >= *self.incarnation.borrow() {
            *announced = Some(managers);
            self.raise(Some(incarnation));
        }
    }

    /// Returns the managers that announced themselves since it was last asked.
    pub(crate) fn take_announced(&self) -> Option<Vec<SocketAddr>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes a life of the swarm, and returns the latest that is known.
    pub(crate) fn raise(&self, heard: Option<Incarnation>) -> Option<Incarnation> {
        self.incarnation.send_if_modified(|latest| {
            let later = heard > *latest;
            *latest = heard.max(*latest);
            later
        });
        *self.incarnation.borrow()
    }

    /// Judges by this state from now on.
    pub(crate) fn judge_by(&self, store: &store::Handle) {
        self.store.store(Some(Arc::new(store.clone())));
    }

    /// Takes over what a session told. Nothing told yet (an older manager): nothing is taken over.
    pub(crate) fn hear(&self, managers: &BTreeSet<NodeId>, removed: &BTreeSet<NodeId>) {
        let before = self.told.load_full();
        if managers.is_empty() || (before.told.managers == *managers && before.told.removed == *removed) {
            return;
        }
        let mut former: BTreeSet<NodeId> = before.former.union(&before.told.managers).copied().collect();
        former.retain(|node| !managers.contains(node));
        let cluster = before.told.cluster;
        let told = Told { cluster, managers: managers.clone(), removed: removed.clone() };
        self.told.store(Arc::new(Word { told, former }));
        self.news.notify_one();
    }

    /// Returns what `judge` says by what is known now.
    pub(crate) fn judge<T>(&self, judge: impl FnOnce(&Known<'_>) -> T) -> T {
        match self.state() {
            Some(tables) => judge(&Known::State(&tables)),
            None => judge(&Known::Told(&self.told.load().told)),
        }
    }

    /// Returns the state, on a manager.
    fn state(&self) -> Option<Arc<Tables>> {
        self.store.load().as_ref().map(|store| store.view())
    }

    /// Returns true if a node may be called on, as a manager or for itself. Who is not known may have joined, or been
    /// promoted, a moment ago.
    pub(crate) fn may_be_called(&self, node: NodeId, as_manager: bool) -> bool {
        let (standing, former) = match self.state().filter(|tables| tables.cluster.is_some()) {
            Some(tables) => {
                let standing = Known::State(&tables).standing(node);
                (standing, standing == Standing::Worker)
            }
            None => {
                let word = self.told.load();
                (Known::Told(&word.told).standing(node), word.former.contains(&node))
            }
        };
        match standing {
            Standing::Removed | Standing::Left => false,
            Standing::Unknown | Standing::Worker | Standing::Manager | Standing::Member => {
                !(as_manager && former)
            }
        }
    }

    /// Closes the connections of nodes that were removed, left, or are managers no more, each time that this becomes
    /// known, until cancelled; then those of everybody.
    pub(crate) async fn watch(self: Arc<Self>, cancel: CancellationToken) {
        let mut applied = self.store.load().as_ref().map(|store| store.watch());
        let mut managers = BTreeSet::new();
        loop {
            if let Some(applied) = &mut applied {
                applied.borrow_and_update();
            }
            let now = self.managers();
            let demoted: BTreeSet<NodeId> = managers.difference(&now).copied().collect();
            managers = now;
            let closed = self.judge(|known| {
                self.guests.keep(|guest| match known.standing(guest.node) {
                    Standing::Removed | Standing::Left => false,
                    Standing::Unknown | Standing::Worker | Standing::Manager | Standing::Member => {
                        !demoted.contains(&guest.node)
                    }
                })
            });
            if closed > 0 {
                tracing::info!(
                    closed,
                    "connections of nodes closed that were removed or are managers no more"
                );
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.news.notified() => {}
                () = changed(&mut applied) => tokio::time::sleep(GATHER).await,
            }
        }
        self.guests.keep(|_| false);
    }

    fn managers(&self) -> BTreeSet<NodeId> {
        match self.state() {
            Some(tables) => {
                let managers = tables.nodes.values().filter(|n| n.spec.role == Role::Manager);
                managers.map(|n| n.id).collect()
            }
            None => self.told.load().told.managers.clone(),
        }
    }
}

/// Waits for the next change of the state; for ever where there is none, or no more.
async fn changed(applied: &mut Option<watch::Receiver<u64>>) {
    match applied {
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                *applied = None;
            }
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u128]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_former_manager_is_not_called_on_until_it_is_one_again() {
        let gate = Gate::new(ClusterId(1));
        let may = |node, as_manager| gate.may_be_called(NodeId(node), as_manager);
        assert!(may(1, true), "nothing was told yet: the one it joined through");
        gate.hear(&set(&[1, 2]), &set(&[]));
        gate.hear(&set(&[1]), &set(&[3]));
        assert!(may(1, true));
        assert!(!may(2, true), "demoted");
        assert!(may(2, false), "a worker that has images");
        assert!(!may(3, false) && !may(3, true), "removed");
        assert!(may(4, true), "promoted a moment ago");
        gate.hear(&set(&[]), &set(&[]));
        assert!(!may(2, true), "nothing told is no news");
        gate.hear(&set(&[1, 2]), &set(&[3]));
        assert!(may(2, true));
    }
}
