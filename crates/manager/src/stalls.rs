//! Time in which this process stood still: a host under load lets it wait for seconds. Who was to be heard in that time
//! was not silent; what it said waits in a socket.

use model::Duration;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;

/// How often the time is looked at.
const BEAT: Duration = Duration::from_millis(100);
/// A beat that comes later than this is a stall; less is how clocks tick.
const SLACK: Duration = Duration::from_millis(200);

/// How long this process has stood still since it began, in all.
#[derive(Debug, Default)]
pub(crate) struct Stalls(AtomicU64);

impl Stalls {
    pub(crate) fn total(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }

    /// Notes how late a beat came; returns it if that was a stall.
    fn beat(&self, late: Duration) -> Option<Duration> {
        (late > SLACK).then(|| {
            self.0.fetch_add(u64::try_from(late.as_millis()).unwrap_or(u64::MAX), Relaxed);
            late
        })
    }

    /// Measures until cancelled, and tells each stall.
    pub(crate) async fn measure(&self, told: impl Fn(Duration)) {
        loop {
            let due = Instant::now() + BEAT;
            tokio::time::sleep_until(due).await;
            if let Some(late) = self.beat(due.elapsed()) {
                told(late);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_late_counts() {
        let stalls = Stalls::default();
        assert_eq!(stalls.beat(Duration::from_millis(3)), None);
        assert_eq!(stalls.beat(Duration::from_millis(1500)), Some(Duration::from_millis(1500)));
        stalls.beat(Duration::from_millis(500));
        assert_eq!(stalls.total(), Duration::from_millis(2000));
    }
}
