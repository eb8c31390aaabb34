//! The time of this host.

use model::Timestamp;

/// Returns the time of day as this host has it: for what is shown, and for the lives of certificates.
pub(crate) fn clock() -> Timestamp {
    let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}
