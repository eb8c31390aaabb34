//! Moments as Docker writes them: RFC 3339 with as many fraction digits as needed (Go's `RFC3339Nano`), UTC.

use model::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A moment; the default is Go's zero time, `0001-01-01T00:00:00Z`, which Docker writes for "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub Option<Timestamp>);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(Some(at))
    }
}

impl Time {
    /// Returns this moment, zero when there is none.
    pub fn timestamp(self) -> Timestamp {
        self.0.unwrap_or_default()
    }

    /// Reads RFC 3339 with any offset.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.starts_with("0001-01-01T00:00:00") {
            return Some(Self(None));
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        Some(Self(Some(Timestamp(i64::try_from(at.unix_timestamp_nanos()).ok()?))))
    }

    /// Returns the time since midnight 1970 in seconds.
    pub fn unix_seconds(self) -> i64 {
        self.timestamp().0.div_euclid(1_000_000_000)
    }

    /// Writes all nine fraction digits: the form of log lines.
    pub fn nano_padded(at: Timestamp) -> String {
        let (date, nanos) = seconds_and_nanos(at);
        format!("{date}.{nanos:09}Z")
    }
}

fn seconds_and_nanos(at: Timestamp) -> (String, i64) {
    let seconds = at.0.div_euclid(1_000_000_000);
    let nanos = at.0.rem_euclid(1_000_000_000);
    let t = OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .to_offset(UtcOffset::UTC);
    let date = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    );
    (date, nanos)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = self.0 else { return f.write_str("0001-01-01T00:00:00Z") };
        let (date, nanos) = seconds_and_nanos(at);
        if nanos == 0 {
            return write!(f, "{date}Z");
        }
        let digits = format!("{nanos:09}");
        write!(f, "{date}.{}Z", digits.trim_end_matches('0'))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them_and_read_back() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_500_000_000, "1970-01-01T00:00:01.5Z"),
            (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
        ] {
            let time = Time::from(Timestamp(nanos));
            assert_eq!(time.to_string(), text);
            assert_eq!(Time::parse(text), Some(time));
        }
        assert_eq!(Time::default().to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Time::parse("2023-11-14T23:13:20+01:00"), Time::parse("2023-11-14T22:13:20Z"));
        assert_eq!(Time::nano_padded(Timestamp(1_500_000_000)), "1970-01-01T00:00:01.500000000Z");
    }
}
