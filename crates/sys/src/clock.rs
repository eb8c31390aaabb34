//! The time of day, as this process takes it: that of the host, or ahead of it where a test says so. Clocks of hosts
//! that differ are so shown on one machine, which has but one (a time namespace moves monotonic clocks only,
//! time_namespaces(7)).

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The longest way that a clock can be set ahead, or behind. *Unit:* seconds; ten years.
pub const AHEAD_MAX_SECONDS: i64 = 10 * 365 * 24 * 3600;

static AHEAD_SECONDS: AtomicI64 = AtomicI64::new(0);

/// Sets the clock of this process ahead of the host's, or behind it: by no more than [`AHEAD_MAX_SECONDS`], which
/// stands for more.
pub fn set_ahead(seconds: i64) {
    AHEAD_SECONDS.store(seconds.clamp(-AHEAD_MAX_SECONDS, AHEAD_MAX_SECONDS), Ordering::Relaxed);
}

/// Returns the time.
pub fn now() -> SystemTime {
    shifted(SystemTime::now(), AHEAD_SECONDS.load(Ordering::Relaxed))
}

/// Returns the time. *Unit:* nanoseconds since 1970; 0 before, and the greatest number when it is too late for one.
pub fn nanos() -> i64 {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns true while something (NTP) holds this host's clock to another one. Source: adjtimex(2), `STA_UNSYNC`.
///
/// # Errors
/// The kernel does not say.
pub fn is_held() -> rustix::io::Result<bool> {
    // JUSTIFICATION: rustix has no adjtimex.
    // SAFETY: all zero is a valid `timex`, and asks only.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // JUSTIFICATION: as above.
    // SAFETY: the kernel writes into the struct that is given, and changes nothing when `modes` is 0.
    let state = unsafe { libc::adjtimex(&raw mut asked) };
    crate::process::check(state.into())?;
    Ok(asked.status & libc::STA_UNSYNC == 0)
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 { time.checked_sub(by) } else { time.checked_add(by) };
    shifted.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_far_ahead_as_was_said_or_behind() {
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(shifted(time, 0), time);
        assert_eq!(shifted(time, 3600), UNIX_EPOCH + Duration::from_secs(1_700_003_600));
        assert_eq!(shifted(time, -60), UNIX_EPOCH + Duration::from_secs(1_699_999_940));
        assert_eq!(shifted(time, i64::MAX), time, "there is no such time");
    }
}
