//! How well this member knows what the managers agree on: when it last heard its leader, and how long it has been
//! behind what the leader then said.

use model::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// What the leader's messages told.
#[derive(Debug, Default)]
pub(crate) struct Contact(Mutex<Told>);

#[derive(Debug, Default, Clone, Copy)]
struct Told {
    heard_at: Option<Instant>,
    /// An index that was agreed on, and since when this member has been without it.
    owed: Option<(u64, Instant)>,
}

impl Contact {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a message of the leader: it says that everything up to `committed` is agreed on; this member has
    /// `applied`.
    pub(crate) fn hear(&self, now: Instant, committed: u64, applied: u64) {
        let mut told = self.lock();
        told.heard_at = Some(now);
        if told.owed.is_none_or(|(index, _)| index <= applied) {
            told.owed = (committed > applied).then_some((committed, now));
        }
    }

    /// Tells whether the leader was heard within `lease`, and nothing of what it said has been missing for longer.
    pub(crate) fn is_current(&self, now: Instant, lease: Duration, applied: u64) -> bool {
        let told = *self.lock();
        let recent = |at: Instant| now.saturating_duration_since(at) < lease;
        told.heard_at.is_some_and(recent)
            && told.owed.is_none_or(|(index, since)| index <= applied || recent(since))
    }

    /// Tells whether the leader was heard within `lease`, and everything that it said is agreed on is applied here.
    pub(crate) fn is_caught_up(&self, now: Instant, lease: Duration, applied: u64) -> bool {
        let told = *self.lock();
        told.heard_at.is_some_and(|at| now.saturating_duration_since(at) < lease)
            && told.owed.is_none_or(|(index, _)| index <= applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    #[test]
    fn a_member_is_current_while_it_hears_the_leader_and_keeps_up() {
        let (contact, start) = (Contact::default(), Instant::now());
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!contact.is_current(start, LEASE, 0), "it has heard nobody");
        contact.hear(start, 5, 5);
        assert!(contact.is_current(after(2), LEASE, 5));
        assert!(!contact.is_current(after(3), LEASE, 5), "silence");
        contact.hear(after(10), 9, 5);
        assert!(contact.is_current(after(12), LEASE, 5), "a little behind");
        assert!(!contact.is_caught_up(after(12), LEASE, 8) && contact.is_caught_up(after(12), LEASE, 9));
        assert!(!contact.is_caught_up(after(13), LEASE, 9), "silence");
        contact.hear(after(12), 20, 8);
        assert!(!contact.is_current(after(13), LEASE, 8), "entry 9 is three seconds late");
        assert!(contact.is_current(after(13), LEASE, 9));
        contact.hear(after(14), 30, 9);
        assert!(contact.is_current(after(16), LEASE, 10), "what it was told at 14 s may still come");
        assert!(!contact.is_current(after(17), LEASE, 10));
    }
}
