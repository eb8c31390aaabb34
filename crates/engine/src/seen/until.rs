//! Moments as filters say them.

use crate::{
    error::{Error, Result},
    seen::container::Filters,
};
use model::Timestamp;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Returns what filter `until` says, if it is there.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    filters.get("until").first().map(|text| read_until(text)).transpose()
}

/// Reads a moment as filters say it: RFC 3339, a day or a time of UTC without its zone, seconds since 1970, or an age
/// (`10m`, `1h30m`, `1.5h`). *Source:* moby `api/types/time`.
///
/// # Errors
/// `InvalidParameter` for anything else.
pub fn read_until(text: &str) -> Result<Timestamp> {
    let invalid = || Error::invalid(format!("invalid until filter: {text}"));
    if let Some(at) = seconds_since_1970(text).or_else(|| moment(text)) {
        return Ok(at);
    }
    let age = age(text).ok_or_else(invalid)?;
    Ok(Timestamp(crate::now().0.saturating_sub(age)))
}

fn seconds_since_1970(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.is_empty() || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

fn moment(text: &str) -> Option<Timestamp> {
    let zoned = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = zoned(text)
        .or_else(|| zoned(&format!("{text}Z")))
        .or_else(|| zoned(&format!("{text}:00Z")))
        .or_else(|| zoned(&format!("{text}T00:00:00Z")))?;
    i64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp)
}

/// Reads a duration as Go writes it, and days. *Unit:* nanoseconds.
fn age(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_ends);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let nanos: i64 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut part = nanos.checked_mul(whole.parse().ok()?)?;
        let mut digit = nanos;
        for c in fraction.chars() {
            digit /= 10;
            part = part.checked_add(digit.checked_mul(i64::from(c.to_digit(10)?))?)?;
        }
        (total, rest) = (total.checked_add(part)?, tail);
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn filter(text: &str) -> Filters {
        Filters(BTreeMap::from([("until".to_owned(), vec![text.to_owned()])]))
    }

    #[test]
    fn until_takes_times_and_ages() {
        assert_eq!(until(&filter("100")).unwrap(), Some(Timestamp(100_000_000_000)));
        assert_eq!(until(&filter("1970-01-01T00:00:01Z")).unwrap(), Some(Timestamp(1_000_000_000)));
        let age = crate::now().since(until(&filter("1h30m")).unwrap().unwrap()).as_secs();
        assert!((5399..=5401).contains(&age));
        let age = crate::now().since(until(&filter("1.5h0m0s500ms")).unwrap().unwrap()).as_secs();
        assert!((5400..=5402).contains(&age));
        let day = Timestamp(1_767_225_600_000_000_000);
        for text in ["2026-01-01", "2026-01-01T00:00", "2026-01-01T00:00:00", "2026-01-01T01:00:00+01:00"] {
            assert_eq!(until(&filter(text)).unwrap(), Some(day), "{text}");
        }
        for text in
            ["soon", "", "inf", "NaN", "1", "9999999999h", "99999999999999", "h", "1h2", "1.2.3h", "-1h"]
        {
            let read = until(&filter(text));
            assert!(read.is_err() || text == "1", "{text:?}: {read:?}");
        }
        assert_eq!(until(&Filters::default()).unwrap(), None);
    }
}
