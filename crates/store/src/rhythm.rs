//! When snapshots are made and how many are kept. The swarm's settings say so and may change while Raft runs, which
//! Raft's own policy may not.

use crate::{machine::Machine, types::TypeConfig};
use openraft::{Raft, async_runtime::watch::WatchReceiver as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct Rhythm {
    /// Entries between two snapshots; not 0.
    interval: AtomicU64,
    /// Kept beside the newest.
    old: AtomicU64,
    changed: Notify,
}

impl Rhythm {
    pub(crate) fn new(interval: u64, old: u64) -> Self {
        let (interval, old) = (AtomicU64::new(interval.max(1)), AtomicU64::new(old));
        Self { interval, old, changed: Notify::new() }
    }

    pub(crate) fn set(&self, interval: u64, old: u64) {
        self.old.store(old, Relaxed);
        if self.interval.swap(interval.max(1), Relaxed) != interval.max(1) {
            self.changed.notify_one();
        }
    }

    /// Returns how many snapshots are kept beside the newest.
    pub(crate) fn old(&self) -> usize {
        usize::try_from(self.old.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// Tells whether a snapshot is due. `asked` is the entry at which the last one was asked for: one that failed, or
    /// is still being made, is not asked for again before as many entries more.
    fn is_due(&self, applied: u64, snapshot: u64, asked: u64) -> bool {
        applied.saturating_sub(snapshot.max(asked)) >= self.interval.load(Relaxed)
    }
}

/// Has snapshots made until cancelled.
pub(crate) async fn run(
    raft: Raft<TypeConfig, Machine>,
    rhythm: std::sync::Arc<Rhythm>,
    cancel: CancellationToken,
) {
    let mut metrics = raft.data_metrics();
    let mut asked = 0;
    loop {
        // Cloned at once: holding the borrow would block the Raft core.
        let now = metrics.borrow_and_update().clone();
        let index = |id: Option<openraft::alias::LogIdOf<TypeConfig>>| id.map_or(0, |id| id.index);
        let applied = index(now.last_applied);
        if rhythm.is_due(applied, index(now.snapshot), asked) {
            asked = applied;
            if raft.trigger().snapshot().await.is_err() {
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
        let rhythm = Rhythm::new(100, 0);
        assert!(!rhythm.is_due(99, 0, 0));
        assert!(rhythm.is_due(100, 0, 0));
        assert!(!rhythm.is_due(150, 0, 100), "it is being made");
        assert!(!rhythm.is_due(150, 100, 100));
        rhythm.set(10, 3);
        assert!(rhythm.is_due(150, 100, 100));
        assert_eq!(rhythm.old(), 3);
        rhythm.set(0, 3);
        assert!(!rhythm.is_due(100, 100, 100), "0 would be always");
    }
}
