//! When snapshots are made, how many are kept, and how much of the log stays behind one. The swarm's settings say so and
//! may change while Raft runs, which Raft's own policy may not: it knows numbers of entries only, and ten thousand large
//! ones fill a disk.

use crate::{machine::Machine, types::TypeConfig, wal::Reader};
use openraft::{Raft, async_runtime::watch::WatchReceiver as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct Rhythm {
    /// Entries between two snapshots; not 0.
    interval: AtomicU64,
    /// Log between two snapshots, whatever the settings say. *Unit:* bytes.
    log_bytes: u64,
    /// Kept beside the newest.
    old: AtomicU64,
    /// Entries that stay behind a snapshot, as far as their bytes are not too many.
    behind: AtomicU64,
    changed: Notify,
}

impl Rhythm {
    pub(crate) fn new(interval: u64, log_bytes: u64, old: u64, behind: u64) -> Self {
        let (interval, old) = (AtomicU64::new(interval.max(1)), AtomicU64::new(old));
        Self { interval, log_bytes, old, behind: AtomicU64::new(behind), changed: Notify::new() }
    }

    /// Returns how much of the log stays behind a snapshot, at most, for members that are a little late. *Unit:* bytes.
    fn kept_bytes(&self) -> u64 {
        self.log_bytes / 4
    }

    pub(crate) fn set(&self, interval: u64, old: u64, behind: u64) {
        self.old.store(old, Relaxed);
        let behind_before = self.behind.swap(behind, Relaxed);
        if self.interval.swap(interval.max(1), Relaxed) != interval.max(1) || behind_before != behind {
            self.changed.notify_one();
        }
    }

    /// Returns the last entry that may go now that a snapshot has those up to `snapshot`; `too_large`: the last one that
    /// must go for the bytes of what is behind it.
    fn droppable(&self, snapshot: u64, too_large: Option<u64>) -> Option<u64> {
        let too_many = snapshot.checked_sub(self.behind.load(Relaxed)).filter(|upto| *upto > 0);
        too_many.max(too_large)
    }

    /// Returns how many snapshots are kept beside the newest.
    pub(crate) fn old(&self) -> usize {
        usize::try_from(self.old.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// Tells whether a snapshot is due. `asked` is the entry at which the last one was asked for: one that failed, or
    /// is still being made, is not asked for again before as much more. `bytes`: what entries behind one index up to
    /// another take in the log.
    fn is_due(&self, applied: u64, snapshot: u64, asked: u64, bytes: impl Fn(u64, u64) -> u64) -> bool {
        let from = snapshot.max(asked);
        let entries = applied.saturating_sub(from);
        entries >= self.interval.load(Relaxed) || (entries > 0 && bytes(from, applied) >= self.log_bytes)
    }
}

/// Has snapshots made until cancelled.
pub(crate) async fn run(
    raft: Raft<TypeConfig, Machine>,
    rhythm: std::sync::Arc<Rhythm>,
    log: Reader,
    cancel: CancellationToken,
) {
    let mut metrics = raft.data_metrics();
    let (mut asked, mut dropped) = (0, 0);
    loop {
        // Cloned at once: holding the borrow would block the Raft core.
        let now = metrics.borrow_and_update().clone();
        let index = |id: Option<openraft::alias::LogIdOf<TypeConfig>>| id.map_or(0, |id| id.index);
        let applied = index(now.last_applied);
        let snapshot = index(now.snapshot);
        if rhythm.is_due(applied, snapshot, asked, |after, upto| log.bytes_between(after, upto)) {
            asked = applied;
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        let too_large = log.surplus(snapshot, rhythm.kept_bytes());
        if let Some(upto) = rhythm.droppable(snapshot, too_large).filter(|upto| *upto > dropped) {
            dropped = upto;
            if raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = rhythm.changed.notified() => {}
            changed = metrics.changed() => if changed.is_err() { return }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_after_as_many_entries_as_the_settings_say() {
        let small = |after: u64, upto: u64| upto - after;
        let rhythm = Rhythm::new(100, u64::MAX, 0, 5);
        assert!(!rhythm.is_due(99, 0, 0, small));
        assert!(rhythm.is_due(100, 0, 0, small));
        assert!(!rhythm.is_due(150, 0, 100, small), "it is being made");
        assert!(!rhythm.is_due(150, 100, 100, small));
        rhythm.set(10, 3, 5);
        assert!(rhythm.is_due(150, 100, 100, small));
        assert_eq!(rhythm.old(), 3);
        rhythm.set(0, 3, 5);
        assert!(!rhythm.is_due(100, 100, 100, small), "0 would be always");
    }

    #[test]
    fn as_many_entries_stay_behind_a_snapshot_as_the_settings_say_unless_they_are_large() {
        let rhythm = Rhythm::new(100, u64::MAX, 0, 5);
        assert_eq!(rhythm.droppable(0, None), None, "no snapshot");
        assert_eq!(rhythm.droppable(5, None), None);
        assert_eq!(rhythm.droppable(100, None), Some(95));
        assert_eq!(rhythm.droppable(100, Some(98)), Some(98));
        rhythm.set(100, 0, 50);
        assert_eq!(rhythm.droppable(100, None), Some(50));
        assert_eq!(rhythm.droppable(100, Some(3)), Some(50));
        rhythm.set(100, 0, 0);
        assert_eq!(rhythm.droppable(100, None), Some(100));
    }

    #[test]
    fn a_snapshot_is_due_when_the_log_is_large_however_few_its_entries() {
        let rhythm = Rhythm::new(10_000, 800, 0, 5);
        let large = |after: u64, upto: u64| (upto - after) * 100;
        assert!(!rhythm.is_due(7, 0, 0, large));
        assert!(rhythm.is_due(8, 0, 0, large));
        assert!(!rhythm.is_due(15, 0, 8, large), "it is being made, or there was no room for it");
        assert!(rhythm.is_due(16, 0, 8, large));
        assert!(!rhythm.is_due(16, 10, 8, large));
        assert!(!rhythm.is_due(16, 16, 8, |_, _| u64::MAX), "nothing new");
    }
}
