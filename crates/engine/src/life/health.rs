//! When a container is healthy. Pure: the owner runs the probes.
//!
//! Source: moby `daemon/health.go`: every 30 s (5 s while starting up, if there is a start period), 30 s to answer,
//! three failures in a row make it unhealthy, failures in the start period do not count.

use crate::{
    ask::config::Healthcheck,
    seen::container::{Health, HealthProbe, HealthStatus},
};
use std::time::Duration;

/// Results kept.
const KEPT: usize = 5;
/// Bytes of output kept per result.
pub(crate) const OUTPUT_BYTES: usize = 4096;

/// A healthcheck with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

impl Plan {
    /// Returns what to probe, `None` if nothing is configured or it is switched off.
    pub(crate) fn of(check: Option<&Healthcheck>) -> Option<Self> {
        let check = check?;
        let command = match check.test.first().map(String::as_str) {
            Some("CMD") => check.test[1..].to_vec(),
            Some("CMD-SHELL") => vec!["/bin/sh".into(), "-c".into(), check.test.get(1)?.clone()],
            Some(_) | None => return None,
        };
        let or = |given: Option<Duration>, default| {
            given.filter(|d| !d.is_zero()).unwrap_or(Duration::from_secs(default))
        };
        (!command.is_empty()).then(|| Self {
            command,
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            start_period: check.start_period.unwrap_or_default(),
            start_interval: or(check.start_interval, 5),
            retries: check.retries.filter(|r| *r > 0).unwrap_or(3),
        })
    }

    /// Returns the time from one probe to the next.
    pub(crate) fn pause(&self, status: HealthStatus, ran_for: Duration) -> Duration {
        if status == HealthStatus::Starting && ran_for < self.start_period {
            self.start_interval.min(self.interval)
        } else {
            self.interval
        }
    }
}

/// Returns the health after one more probe.
pub(crate) fn judge(mut health: Health, probe: HealthProbe, plan: &Plan, ran_for: Duration) -> Health {
    if probe.exit_code == 0 {
        health.status = HealthStatus::Healthy;
        health.failing_streak = 0;
    } else if !(health.status == HealthStatus::Starting && ran_for < plan.start_period) {
        health.failing_streak += 1;
        if health.failing_streak >= plan.retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(KEPT);
    health.log.drain(..surplus);
    health
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn probe(exit_code: i32) -> HealthProbe {
        HealthProbe { start: Timestamp(0), end: Timestamp(0), exit_code, output: String::new() }
    }

    fn plan(start_period: u64) -> Plan {
        Plan::of(Some(&Healthcheck {
            test: vec!["CMD-SHELL".into(), "exit 1".into()],
            start_period: Some(Duration::from_secs(start_period)),
            ..Healthcheck::default()
        }))
        .unwrap()
    }

    #[track_caller]
    fn check(start_period: u64, results: &[(i32, u64)], status: HealthStatus, streak: u32) {
        let mut health = Health { status: HealthStatus::Starting, failing_streak: 0, log: vec![] };
        for (code, at) in results {
            health = judge(health, probe(*code), &plan(start_period), Duration::from_secs(*at));
        }
        assert_eq!((health.status, health.failing_streak), (status, streak));
    }

    #[test]
    fn three_failures_make_it_unhealthy_and_one_success_healthy_again() {
        check(0, &[(1, 1), (1, 2)], HealthStatus::Starting, 2);
        check(0, &[(1, 1), (-1, 2), (1, 3)], HealthStatus::Unhealthy, 3);
        check(0, &[(1, 1), (1, 2), (1, 3), (0, 4)], HealthStatus::Healthy, 0);
        check(0, &[(0, 1), (1, 2), (1, 3)], HealthStatus::Healthy, 2);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_it_was_healthy() {
        check(10, &[(1, 1), (1, 2), (1, 3), (1, 4)], HealthStatus::Starting, 0);
        check(10, &[(1, 1), (1, 11), (1, 12), (1, 13)], HealthStatus::Unhealthy, 3);
        check(10, &[(0, 1), (1, 2), (1, 3), (1, 4)], HealthStatus::Unhealthy, 3);
    }

    #[test]
    fn only_five_results_are_kept() {
        let mut health = Health { status: HealthStatus::Starting, failing_streak: 0, log: vec![] };
        for n in 0..9 {
            health = judge(health, probe(n), &plan(0), Duration::ZERO);
        }
        assert_eq!(health.log.iter().map(|p| p.exit_code).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn none_switches_it_off() {
        let none = Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() };
        assert_eq!(Plan::of(Some(&none)), None);
        assert_eq!(Plan::of(None), None);
    }
}
