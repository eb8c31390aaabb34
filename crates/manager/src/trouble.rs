//! Trouble that lasts is told when it begins, seldom while it goes on, and when it is over: a manager that cannot
//! write for an hour does not fill its disk with one line.

use std::fmt::Display;
use tokio::time::Instant;
use tracing::{info, warn};

#[derive(Debug)]
pub(crate) struct Trouble {
    what: &'static str,
    since: Option<Instant>,
    times: u64,
}

impl Trouble {
    /// `what` is not as it should be while it lasts.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, since: None, times: 0 }
    }

    /// Counts a failure; tells of the first one, and of each after which there are twice as many as told before.
    pub(crate) fn note(&mut self, error: &impl Display) {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.times += 1;
        if self.is_told() {
            warn!(%error, times = self.times, for_seconds = since.elapsed().as_secs(), "{}", self.what);
        }
    }

    fn is_told(&self) -> bool {
        self.times.is_power_of_two() && (self.times == 1 || self.times >= 64)
    }

    pub(crate) fn is_over(&mut self) {
        if let Some(since) = self.since.take() {
            let for_seconds = since.elapsed().as_secs();
            info!(times = self.times, for_seconds, "over: {}", self.what);
            self.times = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_goes_on_is_told_once_and_then_ever_more_seldom() {
        let mut trouble = Trouble::new("nothing works");
        let mut told = Vec::new();
        for time in 1..=1000 {
            trouble.note(&"no");
            told.extend(trouble.is_told().then_some(time));
        }
        assert_eq!(told, [1, 64, 128, 256, 512]);
        trouble.is_over();
        trouble.note(&"again");
        assert!(trouble.is_told());
    }
}
