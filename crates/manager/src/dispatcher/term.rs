//! Until when a manager may tell a node what to run.
//!
//! The leader gives a node up some periods after it was last told that somebody hears it, and what ran there runs
//! elsewhere then. A manager that is behind must not make the node begin any of it after that. So what is told has a
//! term: it begins when a report was *sent* that the leader took, and is over when the leader, who got it later, waits for
//! that node no more. If it was over before the next report was taken, the node may have been given up in between:
//! nothing is told until this replica has all that the leader had when it took that report.

use crate::presence::MISSED_PERIODS;
use model::Duration;
use tokio::time::Instant;

/// Of one session; at first there is none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Term {
    until: Option<Instant>,
    /// The least index of a view that may be told.
    index: u64,
}

impl Term {
    /// The leader took a report that was sent at `sent` and said that the node was silent for so long, and has answered
    /// with `index` by `now`.
    pub(crate) fn renew(
        &mut self,
        sent: Instant,
        now: Instant,
        silent: Duration,
        period: Duration,
        index: u64,
    ) {
        let until = sent + (period * MISSED_PERIODS).saturating_sub(silent);
        if self.is_over(now) {
            self.index = self.index.max(index);
        }
        self.until = self.until.max(Some(until));
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Returns true if a node may be told what a view says.
    pub(crate) fn may_tell(&self, now: Instant, view: u64) -> bool {
        !self.is_over(now) && view >= self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    #[test]
    fn a_manager_tells_a_node_nothing_old_that_may_have_been_given_up() {
        let (mut term, start) = (Term::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let silent = Duration::from_millis;
        assert!(!term.may_tell(start, 100), "the leader knows nothing of the session yet");
        term.renew(at(0), at(20), silent(0), PERIOD, 10);
        assert!(!term.may_tell(at(20), 9), "before what the leader had");
        assert!(term.may_tell(at(20), 10));
        // It goes on: who was heard all the time was not given up, however far this replica is.
        term.renew(at(1000), at(1020), silent(400), PERIOD, 50);
        assert!(term.may_tell(at(3500), 10));
        assert!(!term.may_tell(at(3600), 50), "the leader waits no more");
        // Taken in time, and answered when the term was over: nobody knows which came first.
        term.renew(at(3590), at(3610), silent(0), PERIOD, 60);
        assert!(!term.may_tell(at(3620), 59));
        assert!(term.may_tell(at(3620), 60));
        // A report that says that the node is silent makes no term.
        term.renew(at(7000), at(7010), silent(3100), PERIOD, 70);
        assert!(!term.may_tell(at(7010), 70));
        // An answer that comes late takes nothing back.
        term.renew(at(8000), at(8010), silent(0), PERIOD, 80);
        term.renew(at(7500), at(8020), silent(0), PERIOD, 75);
        assert!(term.may_tell(at(10_900), 80));
    }
}
