//! Brings the kernel's networks to the newest tables, one at a time, and says which it has accepted.

use crate::{Executor, TaskError, backoff::Backoff};
use model::{Duration, IngressTable, NetworkId, NetworkTable};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, warn};

/// A network, or (`None`) the routing mesh.
pub(crate) type Subject = Option<NetworkId>;

#[derive(Debug, Clone)]
pub(crate) enum Update {
    Table(Box<NetworkTable>),
    Ingress(Box<IngressTable>),
    /// The network, and the index at which the managers said that it is not needed; 0: they did not, it is not theirs.
    Gone(NetworkId, u64),
}

impl Update {
    fn subject(&self) -> Subject {
        match self {
            Self::Table(table) => Some(table.network),
            Self::Gone(network, _) => Some(*network),
            Self::Ingress(_) => None,
        }
    }
}

/// The kernel holds this version, or (`gone`) has dropped the network, as it was told to at this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) subject: Subject,
    pub(crate) version: u64,
    pub(crate) gone: bool,
}

/// Handle: queues tables, newest of each subject wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    queue: Arc<(Mutex<BTreeMap<Subject, Update>>, Notify)>,
}

impl Tables {
    pub(crate) fn push(&self, update: Update) {
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner).insert(update.subject(), update);
        self.queue.1.notify_one();
    }

    fn take(&self) -> BTreeMap<Subject, Update> {
        std::mem::take(&mut *self.queue.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a failed update back, unless a newer one came.
    fn put_back(&self, update: Update) {
        let mut queue = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.entry(update.subject()).or_insert(update);
    }

    /// Applies what is queued, for ever; `held` is the set of networks whose table was applied. Nothing is
    /// applied before the host is `configured`.
    pub(crate) async fn run(
        self,
        executor: Arc<dyn Executor>,
        mut configured: watch::Receiver<bool>,
        held: watch::Sender<BTreeSet<NetworkId>>,
        accepted: mpsc::Sender<Accepted>,
    ) {
        if configured.wait_for(|done| *done).await.is_err() {
            return;
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let queued = self.take();
            if queued.is_empty() {
                self.queue.1.notified().await;
                continue;
            }
            let mut failed = false;
            for update in queued.into_values() {
                if let Err(error) = apply(&*executor, &update, &held, &accepted).await {
                    warn!(network.id = ?update.subject(), %error, "cannot apply a network's table, will retry");
                    self.put_back(update);
                    failed = true;
                }
            }
            if failed {
                tokio::time::sleep(backoff.delay()).await;
            } else {
                backoff.reset();
            }
        }
    }
}

async fn apply(
    executor: &dyn Executor,
    update: &Update,
    held: &watch::Sender<BTreeSet<NetworkId>>,
    accepted: &mpsc::Sender<Accepted>,
) -> Result<(), TaskError> {
    let (version, gone) = match update {
        Update::Table(table) => {
            executor.apply_network((**table).clone()).await?;
            held.send_if_modified(|set| set.insert(table.network));
            (table.version, false)
        }
        Update::Ingress(table) => {
            executor.apply_ingress((**table).clone()).await?;
            (table.version, false)
        }
        Update::Gone(network, index) => {
            held.send_if_modified(|set| set.remove(network));
            executor.drop_network(*network).await?;
            (*index, true)
        }
    };
    debug!(network.id = ?update.subject(), version, gone, "network table applied");
    if accepted.send(Accepted { subject: update.subject(), version, gone }).await.is_err() {
        debug!("the agent is ending, nobody takes the acknowledgement");
    }
    Ok(())
}
