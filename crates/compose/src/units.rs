//! Values with units, and commands as strings.

use model::Duration;

/// Parses Go's form of durations: `1h30m`, `1.5s`, `300ms`, `10us`, `5ns`, `0`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return None,
        };
        nanos = nanos.checked_add(scaled(number, factor)?)?;
        rest = after;
    }
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Parses Docker's sizes: `512`, `64m`, `1.5gb`, `10KiB`; units are powers of 1024.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u128 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    u64::try_from(scaled(number, factor)?).ok()
}

/// Parses a number of CPUs, `0.5`, into 10^-9 of a CPU.
#[must_use]
pub fn cpu_nanos(text: &str) -> Option<u64> {
    u64::try_from(scaled(text.trim(), 1_000_000_000)?).ok()
}

/// Returns a decimal number times a factor, rounded down, without going through floats.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 || whole.len() > 20 {
        return None;
    }
    let parse = |digits: &str| if digits.is_empty() { Some(0u128) } else { digits.parse::<u128>().ok() };
    let power = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole = parse(whole)?.checked_mul(factor)?;
    let fraction = parse(fraction)?.checked_mul(factor)? / power;
    whole.checked_add(fraction)
}

/// Splits a command line as a POSIX shell does; `None` if a quote is left open. With `comments`, a word that begins
/// with `#` ends the line.
pub(crate) fn shell_words(text: &str, comments: bool) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            '#' if comments && word.is_none() => drop(chars.find(|c| *c == '\n')),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        };
        check("10s", Some(10_000));
        check("1m30s", Some(90_000));
        check("1.5h", Some(5_400_000));
        check("300ms", Some(300));
        check("0", Some(0));
        check("0s", Some(0));
        check("10", None);
        check("", None);
        check("s", None);
        check("-1s", None);
        check("1x", None);
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, expected) in [
            ("512", Some(512)),
            ("64m", Some(64 << 20)),
            ("1.5GB", Some(3 << 29)),
            ("10KiB", Some(10 << 10)),
            ("1 g", Some(1 << 30)),
            ("b", None),
            ("1x", None),
            ("-1", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(cpu_nanos("0.1"), Some(100_000_000));
        assert_eq!(cpu_nanos("2"), Some(2_000_000_000));
        assert_eq!(cpu_nanos(".25"), Some(250_000_000));
        assert_eq!(cpu_nanos("two"), None);
    }

    #[test]
    fn commands_split_as_in_a_shell() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let seen = shell_words(text, false);
            let seen: Option<Vec<&str>> = seen.as_ref().map(|w| w.iter().map(String::as_str).collect());
            assert_eq!(seen.as_deref(), expected, "{text:?}");
        };
        check("sleep 10", Some(&["sleep", "10"]));
        check("sh -c 'echo \"a  b\" $X'", Some(&["sh", "-c", "echo \"a  b\" $X"]));
        check("a\\ b \"c \\\"d\\\" \\n\" ''", Some(&["a b", "c \"d\" \\n", ""]));
        check("  ", Some(&[]));
        check("a 'b", None);
    }
}
