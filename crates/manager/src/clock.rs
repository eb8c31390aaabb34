//! The leader's time: what delays, deadlines and stored moments are measured by.
//!
//! It runs with the host's monotonic clock from the wall clock's reading at the moment when this manager began to
//! lead. When the wall clock is set while it leads, time begins anew from what it shows then, and with it every delay
//! that was under way ([`plan::Clock`]): nothing falls due, and nothing waits for a day, because a clock was wrong.

use model::{Duration, Tables, Timestamp};
use plan::Clock;
use tokio::time::Instant;

/// A wall clock that is off by less was not set: both are disciplined alike.
const STEP_MIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderClock {
    since: Timestamp,
    began: Instant,
}

/// The wall clock was set while this manager led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) by: Duration,
    pub(crate) forward: bool,
}

impl LeaderClock {
    pub(crate) fn begin(wall: Timestamp, now: Instant) -> Self {
        Self { since: wall, began: now }
    }

    /// Returns the time, and by how much the wall clock was set since it was last read, if it was.
    pub(crate) fn read(&mut self, wall: Timestamp, now: Instant) -> (Clock, Option<Set>) {
        let even = self.since.after(now.duration_since(self.began));
        let (ahead, behind) = (wall.since(even), even.since(wall));
        if ahead.max(behind) < STEP_MIN {
            return (Clock { now: even, since: self.since }, None);
        }
        *self = Self::begin(wall, now);
        let set = Set { by: ahead.max(behind), forward: ahead > behind };
        (Clock { now: wall, since: wall }, Some(set))
    }
}

/// Returns how often nodes are to be heard.
pub(crate) fn heartbeat_period(tables: &Tables) -> Duration {
    tables.cluster.as_ref().map_or(Duration::from_secs(1), |c| c.spec.heartbeat_period)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn time_runs_evenly_and_begins_anew_when_the_clock_is_set() {
        let (start, wall) = (Instant::now(), Timestamp(1_700_000_000_000_000_000));
        let mut clock = LeaderClock::begin(wall, start);
        let at = |seconds: u32| start + SECOND * seconds;
        // Read unevenly, the wall clock a little off.
        for (seconds, off) in [(1, 0), (5, 300), (6, 900), (7, 20)] {
            let read = clock.read(wall.after(SECOND * seconds + Duration::from_millis(off)), at(seconds));
            assert_eq!(read, (Clock { now: wall.after(SECOND * seconds), since: wall }, None));
        }
        let tomorrow = wall.after(DAY);
        let (read, set) = clock.read(tomorrow.after(SECOND * 8), at(8));
        assert_eq!(set, Some(Set { by: DAY, forward: true }));
        assert_eq!((read.now, read.since), (tomorrow.after(SECOND * 8), tomorrow.after(SECOND * 8)));
        let read = clock.read(tomorrow.after(SECOND * 9), at(9));
        assert_eq!(read.0, Clock { now: tomorrow.after(SECOND * 9), since: tomorrow.after(SECOND * 8) });
        let (read, set) = clock.read(wall, at(10));
        assert_eq!(set, Some(Set { by: DAY + SECOND * 10, forward: false }));
        assert_eq!((read.now, read.since), (wall, wall));
    }
}
