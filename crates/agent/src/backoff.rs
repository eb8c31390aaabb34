//! Waiting longer after each failure, never in step with others.

use model::Duration;

/// Delays that double from `first` to `last`, each shortened by up to half at random.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// Returns how long to wait now.
    pub(crate) fn delay(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.last);
        let half = full / 2;
        let jitter = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(random() % jitter)
    }
}

/// Returns 64 random bits; a fixed value when the kernel has none, which only costs the jitter.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_last_and_start_again_after_a_reset() {
        let (first, last) = (Duration::from_millis(100), Duration::from_secs(8));
        let mut backoff = Backoff::new(first, last);
        let mut full = first;
        for _ in 0..12 {
            let delay = backoff.delay();
            assert!(delay >= full / 2 && delay <= full, "{delay:?} for {full:?}");
            full = (full * 2).min(last);
        }
        backoff.reset();
        assert!(backoff.delay() <= first);
    }
}
