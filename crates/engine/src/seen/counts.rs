//! What was done since the engine was opened, and how long it took. *Source:* moby `daemon/metrics.go`.

use model::{Timing, Timings};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

/// What is timed of containers; in Docker's words [`Action::word`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Changes,
    Commit,
    Create,
    Delete,
    Start,
}

impl Action {
    const ALL: [Self; 5] = [Self::Changes, Self::Commit, Self::Create, Self::Delete, Self::Start];

    fn word(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Commit => "commit",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Start => "start",
        }
    }
}

/// Counts while the engine runs.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    actions: [Timings; Action::ALL.len()],
    pub(crate) health_checks: AtomicU64,
    pub(crate) health_checks_failed: AtomicU64,
}

/// What was counted by some moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// By Docker's word; those that failed are not among them.
    pub actions: Vec<(&'static str, Timing)>,
    pub health_checks: u64,
    pub health_checks_failed: u64,
    pub events: u64,
}

impl Counting {
    /// Does something and notes how long it took, if it was done.
    pub(crate) async fn timed<T, E>(
        &self,
        action: Action,
        doing: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let done = doing.await;
        if done.is_ok() {
            self.actions[action as usize].note(begun.elapsed());
        }
        done
    }

    pub(crate) fn read(&self, events: u64) -> Counts {
        let of = |action: Action| (action.word(), self.actions[action as usize].read());
        Counts {
            actions: Action::ALL.into_iter().map(of).collect(),
            health_checks: self.health_checks.load(Relaxed),
            health_checks_failed: self.health_checks_failed.load(Relaxed),
            events,
        }
    }
}
