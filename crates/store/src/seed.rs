//! A store without the members it had: its state is read from disk, and another store is made of a state.
//!
//! ```text
//!  a majority is lost   salvage(old folder) -> state -> edited by the caller -> seed(new folder)
//!  all managers are     a backup            -> state -> edited by the caller -> seed(new folder)
//! ```
//! What is seeded begins with a snapshot and an empty log behind it, whose only member is its first. Its indexes leave a
//! gap behind those of the state, so that no version is given twice to two things: a lost member may have known later
//! ones.

use crate::{
    cipher::Dek,
    machine::Machine,
    rhythm::Rhythm,
    snapshot::Snapshots,
    store::{OpenError, lock},
    types::{LogId, Membership, Place, SnapshotMeta, StoredMembership, Vote},
    wal::{Log, Opened},
};
use model::{NodeId, Tables};
use openraft::{
    EntryPayload,
    storage::{RaftLogReader as _, RaftLogStorage as _},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::Arc,
};
use sys::disk::Os;

/// Indexes that are left out behind a state that others may have gone on from: more than a swarm writes between a
/// backup and its end.
const GAP: u64 = 1_000_000_000;

/// What the disk of one member holds.
#[derive(Debug, Clone)]
pub struct Salvaged {
    pub tables: Tables,
    /// The term of its last entry.
    pub term: u64,
}

/// The first member of a store that is made.
#[derive(Debug, Clone)]
pub struct Seed {
    /// A random number; never used by another.
    pub raft_id: u64,
    pub node: NodeId,
    pub addr: SocketAddr,
    pub dek: Dek,
    /// Terms begin behind this one.
    pub term: u64,
}

/// Returns the state that the store in `dir` has on disk, with every entry of its log: which of the last ones the
/// majority had acknowledged nobody can say who has lost it, and leaving one out would lose it for sure. The store must
/// not run, and is left as it is.
///
/// # Errors
/// [`OpenError`]: it is in use or damaged, or of a version that this one does not understand.
pub async fn salvage(dir: &Path, dek: &Dek, raft_id: u64) -> Result<Salvaged, OpenError> {
    let (root, key) = (dir.to_owned(), dek.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let lock = lock(&root)?;
        let snapshots = Snapshots::open(
            Arc::new(Os),
            &root.join("snapshots"),
            &key,
            Arc::new(Rhythm::new(1, u64::MAX, u64::MAX, u64::MAX)),
        )?;
        let opened = Log::open(Arc::new(Os), &root.join("log"), &key, raft_id, Some(lock))?;
        Ok::<_, OpenError>((snapshots, opened))
    });
    let (snapshots, opened) = opening.await.map_err(|e| OpenError::Raft(e.to_string()))??;
    let (meta, tables) = snapshots.newest().unwrap_or_default();
    let mut tables = Tables::clone(&tables);
    let (from, mut term) = meta.last_log_id.map_or((0, 0), |id| (id.index + 1, **id.committed_leader_id()));
    let Opened { log, writer, .. } = opened;
    let mut reader = log.reader();
    let read = match log.purged().filter(|purged| purged.index >= from) {
        Some(purged) => Err(OpenError::NoSnapshot { dir: dir.to_owned(), purged: purged.index }),
        None => {
            let failed = |source| OpenError::Dir { dir: dir.to_owned(), source };
            reader.try_get_log_entries(from..).await.map_err(failed)
        }
    };
    drop((reader, log));
    writer.ended().await;
    for entry in read? {
        Machine::understands(&tables).map_err(|e| OpenError::Raft(e.to_string()))?;
        let index = entry.log_id.index;
        if let EntryPayload::Normal(command) = entry.payload {
            for batch in command.batches.iter() {
                // A conflict is what it was when it was first applied: nothing.
                drop(tables.apply(index, batch));
            }
        }
        tables.index = index;
        term = **entry.log_id.committed_leader_id();
    }
    Machine::understands(&tables).map_err(|e| OpenError::Raft(e.to_string()))?;
    Ok(Salvaged { tables, term })
}

/// Makes a store in `dir`, which must be empty or not there, of a state and one member. It is whole on disk when this
/// returns; what a failure leaves is of no use.
///
/// # Errors
/// [`OpenError`].
pub async fn seed(dir: &Path, seed: &Seed, mut tables: Tables) -> Result<(), OpenError> {
    let Seed { raft_id, node, addr, dek, term } = seed.clone();
    let failed = |source| OpenError::Dir { dir: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    tables.index = tables.index.saturating_add(GAP);
    let last = LogId::new_term_index(term + 1, tables.index);
    let place = Place { addr: addr.to_string(), node: Some(node) };
    let members = Membership::new(vec![BTreeSet::from([raft_id])], BTreeMap::from([(raft_id, place)]));
    let members = members.map_err(|e| OpenError::Raft(e.to_string()))?;
    let meta =
        SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), members) };
    let root = dir.to_owned();
    let opening = tokio::task::spawn_blocking(move || {
        let snapshots = Snapshots::open(
            Arc::new(Os),
            &root.join("snapshots"),
            &dek,
            Arc::new(Rhythm::new(1, u64::MAX, 0, u64::MAX)),
        )?;
        let opened = Log::open(Arc::new(Os), &root.join("log"), &dek, raft_id, None)?;
        Ok::<_, OpenError>((snapshots, opened))
    });
    let (snapshots, opened) = opening.await.map_err(|e| OpenError::Raft(e.to_string()))??;
    let Opened { mut log, writer, .. } = opened;
    let write = async {
        snapshots.save(&meta, &Arc::new(tables)).await?;
        log.save_vote(&Vote::new(term + 1, raft_id)).await?;
        log.purge(last).await
    };
    let written = write.await;
    drop(log);
    writer.ended().await;
    written.and_then(|()| sys::durable::sync_folder(dir)).map_err(failed)
}
