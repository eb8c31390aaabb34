//! The state machine: applies committed entries to `model::Tables`, in memory, and publishes each result.

use crate::{
    feed::Ring,
    snapshot::Snapshots,
    types::{LogId, Reply, SnapshotMeta, StoredMembership, TypeConfig, entry_memory},
};
use arc_swap::ArcSwap;
use futures::{Stream, StreamExt as _};
use model::{FEATURE_LEVEL, Tables};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::SnapshotOf,
    storage::{EntryResponder, RaftStateMachine},
};
use std::{io, sync::Arc};

/// What readers see.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) view: ArcSwap<Tables>,
    pub(crate) ring: Arc<Ring>,
}

/// Owned by the Raft core; everyone else reads what it publishes.
#[derive(Debug)]
pub(crate) struct Machine {
    tables: Tables,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Snapshots,
    published: Arc<Published>,
}

impl Machine {
    /// Returns the machine as its snapshot left it; the log brings it up to date.
    pub(crate) fn new(snapshots: Snapshots) -> Self {
        let (meta, tables) = snapshots.newest().unwrap_or_default();
        let tables = (*tables).clone();
        let published = Arc::new(Published {
            view: ArcSwap::from_pointee(tables.clone()),
            ring: Arc::new(Ring::new(tables.index)),
        });
        Self { tables, applied: meta.last_log_id, membership: meta.last_membership, snapshots, published }
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// A version that does not know the rules by which the others apply an entry would go apart from them.
    pub(crate) fn understands(tables: &Tables) -> io::Result<()> {
        let level = tables.cluster.as_ref().map_or(0, |cluster| cluster.feature_level);
        if level <= FEATURE_LEVEL {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the swarm is at feature level {level} and this version understands up to {FEATURE_LEVEL}; hint: install \
             the version of the other managers"
        )))
    }

    fn snapshot_builder(&self) -> Builder {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        Builder { meta, tables: Arc::new(self.tables.clone()), snapshots: self.snapshots.clone() }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Arc<Tables>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            Self::understands(&self.tables)?;
            let index = entry.log_id.index;
            let bytes = entry_memory(&entry);
            let mut reply = Reply::default();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => {
                    reply.0 = self.tables.apply_all(index, command.batches.iter());
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            self.tables.index = index;
            self.applied = Some(entry.log_id);
            // Seen before it is answered, so that a writer reads its own write.
            self.published.view.store(Arc::new(self.tables.clone()));
            let events = reply.0.iter().flatten().flatten().cloned().collect();
            self.published.ring.push(index, events, bytes);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.snapshot_builder()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Arc<Tables>) -> io::Result<()> {
        Self::understands(&snapshot)?;
        // At the start openraft installs what this machine already read from disk.
        if self.snapshots.newest().is_none_or(|(stored, _)| stored != *meta) {
            self.snapshots.save(meta, &snapshot).await?;
        }
        self.tables = (*snapshot).clone();
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.published.view.store(snapshot.clone());
        self.published.ring.reset(self.tables.index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Arc<Tables>>>> {
        Ok(self.snapshots.newest().map(|(meta, snapshot)| SnapshotOf::<TypeConfig, _> { meta, snapshot }))
    }
}

/// Writes the state as it was when it was made.
#[derive(Debug)]
pub(crate) struct Builder {
    meta: SnapshotMeta,
    tables: Arc<Tables>,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Arc<Tables>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Arc<Tables>>> {
        let (meta, snapshot) = self.snapshots.save_if_room(&self.meta, &self.tables).await?;
        Ok(SnapshotOf::<TypeConfig, _> { meta, snapshot })
    }
}
