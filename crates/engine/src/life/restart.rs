//! When a container that ended is started again, and after how long. Pure.
//!
//! Source: Docker's restart manager: 100 ms, doubled up to 1 min, back to 100 ms after 10 s of running.

use model::ContainerRestart;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The memory of one container's restarts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// Returns the wait before the next start, or `None` if it stays down.
    pub(crate) fn after_exit(
        &mut self,
        policy: ContainerRestart,
        exit_code: i32,
        restarts: u32,
        ran_for: Duration,
        manually_stopped: bool,
    ) -> Option<Duration> {
        let again = !manually_stopped
            && match policy {
                ContainerRestart::No => false,
                ContainerRestart::Always | ContainerRestart::UnlessStopped => true,
                ContainerRestart::OnFailure { max_retries } => {
                    exit_code != 0 && max_retries.is_none_or(|max| max == 0 || restarts < max)
                }
            };
        if !again {
            return None;
        }
        let wait = match self.last {
            Some(last) if ran_for < LONG_ENOUGH => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some(wait);
        Some(wait)
    }
}

/// Returns true if a container that was down already when the last engine went is to be started by the next one.
/// `was_waiting`: a restart was due. One that ended in between is judged by [`Backoff::after_exit`], as any end is.
pub(crate) fn at_open(policy: ContainerRestart, manually_stopped: bool, was_waiting: bool) -> bool {
    match policy {
        ContainerRestart::No => false,
        ContainerRestart::Always => true,
        ContainerRestart::UnlessStopped => !manually_stopped,
        ContainerRestart::OnFailure { .. } => was_waiting && !manually_stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_over_after_a_long_run() {
        let mut backoff = Backoff::default();
        let mut next =
            |ran| backoff.after_exit(ContainerRestart::Always, 0, 0, ran, false).unwrap().as_millis();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..11).map(|_| next(short)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000]);
        assert_eq!(next(Duration::from_secs(11)), 100);
    }

    #[test]
    fn policies_decide_by_exit_code_count_and_person() {
        let decide = |policy, code, restarts, stopped| {
            Backoff::default().after_exit(policy, code, restarts, Duration::ZERO, stopped).is_some()
        };
        let on_failure = ContainerRestart::OnFailure { max_retries: Some(2) };
        assert!(!decide(ContainerRestart::No, 1, 0, false));
        assert!(decide(ContainerRestart::Always, 0, 9, false));
        assert!(!decide(ContainerRestart::Always, 0, 0, true));
        assert!(!decide(on_failure, 0, 0, false));
        assert!(decide(on_failure, 1, 1, false));
        assert!(!decide(on_failure, 1, 2, false));
        assert!(decide(ContainerRestart::OnFailure { max_retries: None }, 1, 99, false));
    }
}
