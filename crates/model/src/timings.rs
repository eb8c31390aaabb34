//! How long something takes that is done again and again: for whoever watches from outside. Takes durations, and no clock.

use crate::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds. *Unit:* seconds.
const BOUNDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counts how often it took how long. Cheap to note, from any thread.
#[derive(Debug, Default)]
pub struct Timings {
    /// The last one has what took longer than the last bound.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// What was noted by some moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timing {
    /// Upper bound, and how many are between it and the one before; the last bound is infinite. *Unit:* seconds.
    pub buckets: Vec<(f64, u64)>,
    /// *Unit:* seconds.
    pub sum: f64,
    pub count: u64,
}

impl Timings {
    pub fn note(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn read(&self) -> Timing {
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = BOUNDS.into_iter().chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Timing { buckets, sum: Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64(), count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_counted_once_between_its_bounds() {
        let timings = Timings::default();
        [0, 1, 3, 3, 60_000].iter().for_each(|ms| timings.note(Duration::from_millis(*ms)));
        let read = timings.read();
        assert_eq!((read.count, read.sum), (5, 60.007));
        let counted: Vec<(f64, u64)> = read.buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(0.0005, 1), (0.001, 1), (0.005, 2), (f64::INFINITY, 1)]);
    }
}
