//! How Go prints values: `%v` and its siblings. Source: Go's `fmt` (doc.go, print.go, format.go).

use crate::FUEL;
use serde_json::{Number, Value};
use std::fmt::Write;

/// Widths and precisions beyond this are refused, as Go does. *Unit:* characters.
const WIDTH_MAX: usize = 1_000_000;

/// Returns a value as `%v` prints it. *Lists* are `[a b]`, *objects* `map[key:value]`, sorted.
#[must_use]
pub fn plain(value: &Value) -> String {
    let mut out = String::new();
    write_plain(&mut out, value);
    out
}

fn write_plain(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Number(number) => out.push_str(&general(number)),
        other => nested(out, other, &mut |out, inner| write_plain(out, inner)),
    }
}

/// Prints a list or an object, its members by `each`.
fn nested(out: &mut String, value: &Value, each: &mut dyn FnMut(&mut String, &Value)) {
    match value {
        Value::Array(all) => {
            out.push('[');
            for (i, inner) in all.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                each(out, inner);
            }
            out.push(']');
        }
        Value::Object(all) => {
            let mut sorted: Vec<_> = all.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            out.push_str("map[");
            for (i, (key, inner)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                each(out, &Value::from(key.as_str()));
                out.push(':');
                each(out, inner);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Returns a duration as Go prints one: `1h30m0s`, `1.5s`, `10ms`. `nanos`: *Unit:* nanoseconds.
/// Source: Go's `time.Duration.String`.
#[must_use]
pub fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    // With as many digits behind the point as say something.
    let decimal = |unit: u64| {
        let text = format!("{}.{:0width$}", nanos / unit, nanos % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}\u{b5}s", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Returns a time, given as JSON has it, as Go prints one: `2026-12-01 10:00:00.5 +0000 UTC`; `None`: it is no time.
/// Source: Go's `time.Time.String`; RFC 3339.
#[must_use]
pub fn time(text: &str) -> Option<String> {
    let (day, clock) = text.split_once('T')?;
    let at = clock.find(['Z', '+', '-'])?;
    let (clock, zone) = clock.split_at(at);
    let clock = match clock.split_once('.') {
        Some((whole, part)) => format!("{whole}.{}", part.trim_end_matches('0')),
        None => clock.to_owned(),
    };
    let zone = match zone {
        "Z" => "+0000 UTC".to_owned(),
        zone => format!("{0} {0}", zone.replace(':', "")),
    };
    Some(format!("{day} {} {zone}", clock.trim_end_matches('.')))
}

/// Returns Go's name of a value's type, as errors show it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Prints a number as `%v`: one with a point as `%g`, with an exponent below -4 and from 6 on.
fn general(number: &Number) -> String {
    let Some(value) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    let short = format!("{value:e}");
    let exponent: i32 = short.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    if (-4..6).contains(&exponent) { format!("{value}") } else { go_exponent(&short) }
}

/// Makes Rust's `1e-7` Go's `1e-07`.
fn go_exponent(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Prints as Go's `Sprint`: a blank between two values of which none is a text.
pub(crate) fn print(args: &[&Value]) -> String {
    let mut out = String::new();
    for (i, value) in args.iter().enumerate() {
        if i > 0 && !value.is_string() && !args[i - 1].is_string() {
            out.push(' ');
        }
        write_plain(&mut out, value);
    }
    out
}

/// Prints as Go's `Sprintln`: a blank between all, a line break at the end.
pub(crate) fn println(args: &[&Value]) -> String {
    args.iter().map(|value| plain(value)).collect::<Vec<_>>().join(" ") + "\n"
}

/// What stands between `%` and the verb.
#[derive(Debug, Default, Clone)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Returns the verb that prints argument number `at`, `*` where it is a width; `None`: there is none.
pub(crate) fn asked(format: &str, at: usize) -> Option<char> {
    let mut verbs = Vec::new();
    let mut chars = format.chars();
    while chars.find(|c| *c == '%').is_some() {
        for c in chars.by_ref() {
            match c {
                '*' => verbs.push(c),
                '-' | '+' | '#' | ' ' | '.' | '0'..='9' => continue,
                '%' => break,
                verb => {
                    verbs.push(verb);
                    break;
                }
            }
        }
    }
    verbs.get(at).copied()
}

/// Prints as Go's `Sprintf`; mistakes are shown in the text, as Go does.
///
/// # Errors
/// `%[n]`, which is not supported.
pub(crate) fn printf(format: &str, args: &[&Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                _ => break,
            }
            chars.next();
        }
        flags.width = count(&mut chars, args, &mut next, &mut out, "WIDTH");
        if chars.next_if_eq(&'.').is_some() {
            flags.precision = Some(count(&mut chars, args, &mut next, &mut out, "PREC").unwrap_or(0));
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        match verb {
            '%' => out.push('%'),
            '[' => return Err("%[n] in a format is not supported".to_owned()),
            _ => {
                match args.get(next) {
                    Some(value) => verb_of(&mut out, verb, value, &flags),
                    None => write!(out, "%!{verb}(MISSING)").unwrap_or_default(),
                }
                next += 1;
                if out.len() > FUEL {
                    return Err(format!("it costs more than {FUEL} bytes"));
                }
            }
        }
    }
    if next < args.len() {
        let extra: Vec<String> = args[next..]
            .iter()
            .map(|v| if v.is_null() { "<nil>".to_owned() } else { format!("{}={}", kind(v), plain(v)) })
            .collect();
        write!(out, "%!(EXTRA {})", extra.join(", ")).unwrap_or_default();
    }
    Ok(out)
}

/// Reads a width or a precision: digits, or `*` for the next argument.
fn count(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    args: &[&Value],
    next: &mut usize,
    out: &mut String,
    what: &str,
) -> Option<usize> {
    let mut given: Option<usize> = None;
    let star = chars.next_if_eq(&'*').is_some();
    if star {
        given = args.get(*next).and_then(|v| v.as_u64()).and_then(|n| usize::try_from(n).ok());
        *next += 1;
    } else {
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            given = Some(given.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
            chars.next();
        }
    }
    let fits = given.filter(|n| *n <= WIDTH_MAX);
    if fits.is_none() && (star || given.is_some()) {
        write!(out, "%!(BAD{what})").unwrap_or_default(); // a String takes everything
    }
    fits
}

fn verb_of(out: &mut String, verb: char, value: &Value, flags: &Flags) {
    if out.len() > FUEL {
        return; // an error, as soon as this value is through
    }
    if verb == 'T' {
        return padded(out, kind(value), flags, false);
    }
    match value {
        Value::Array(_) | Value::Object(_) => {
            nested(out, value, &mut |out, inner| verb_of(out, verb, inner, flags));
        }
        _ => match scalar(verb, value, flags) {
            Some((text, number)) => padded(out, &text, flags, number),
            None if value.is_null() => write!(out, "%!{verb}(<nil>)").unwrap_or_default(),
            None => write!(out, "%!{verb}({}={})", kind(value), plain(value)).unwrap_or_default(),
        },
    }
}

/// Returns the text of a value by a verb, and whether it is a number; nothing if they do not fit.
fn scalar(verb: char, value: &Value, flags: &Flags) -> Option<(String, bool)> {
    let signed = |text: String| match (text.starts_with('-'), flags.plus, flags.space) {
        (false, true, _) => format!("+{text}"),
        (false, false, true) => format!(" {text}"),
        _ => text,
    };
    match (value, verb) {
        (Value::Null, 'v') => Some(("<nil>".to_owned(), false)),
        (Value::Bool(b), 'v' | 't') => Some((b.to_string(), false)),
        (Value::String(text), _) => {
            let cut: String = match flags.precision {
                Some(n) => text.chars().take(n).collect(),
                None => text.clone(),
            };
            let hex = |upper: bool| {
                cut.bytes()
                    .map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") })
                    .collect::<String>()
            };
            match verb {
                'v' if flags.sharp => Some((quote(&cut), false)),
                'v' | 's' => Some((cut, false)),
                'q' => Some((quote(&cut), false)),
                'x' => Some((hex(false), false)),
                'X' => Some((hex(true), false)),
                _ => None,
            }
        }
        (Value::Number(number), _) if number.is_f64() => {
            let value = number.as_f64()?;
            let text = match verb {
                'f' | 'F' => format!("{value:.*}", flags.precision.unwrap_or(6)),
                'e' => go_exponent(&format!("{value:.*e}", flags.precision.unwrap_or(6))),
                'v' | 'g' if flags.precision.is_none() => general(number),
                _ => return None,
            };
            Some((signed(text), true))
        }
        (Value::Number(number), _) => {
            let value = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))?;
            let digits = |text: String| match flags.precision {
                Some(n) => format!("{text:0>n$}"),
                None => text,
            };
            let magnitude = value.unsigned_abs();
            let text = match verb {
                'v' | 'd' => digits(magnitude.to_string()),
                'x' if flags.sharp => format!("0x{}", digits(format!("{magnitude:x}"))),
                'X' if flags.sharp => format!("0X{}", digits(format!("{magnitude:X}"))),
                'x' => digits(format!("{magnitude:x}")),
                'X' => digits(format!("{magnitude:X}")),
                'o' => digits(format!("{magnitude:o}")),
                'b' => digits(format!("{magnitude:b}")),
                'c' => return Some((char::from_u32(u32::try_from(value).ok()?)?.to_string(), false)),
                'q' => return Some((format!("'{}'", char::from_u32(u32::try_from(value).ok()?)?), false)),
                'U' => return Some((format!("U+{magnitude:04X}"), false)),
                _ => return None,
            };
            Some((signed(if value < 0 { format!("-{text}") } else { text }), true))
        }
        _ => None,
    }
}

fn padded(out: &mut String, text: &str, flags: &Flags, number: bool) {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = |out: &mut String, with: char| out.extend(std::iter::repeat_n(with, missing));
    if flags.minus {
        out.push_str(text);
        fill(out, ' ');
    } else if flags.zero && !(number && flags.precision.is_some()) {
        let (sign, digits) = match text.chars().next().filter(|c| number && matches!(c, '+' | '-' | ' ')) {
            Some(sign) => (Some(sign), &text[1..]),
            None => (None, text),
        };
        out.extend(sign);
        fill(out, '0');
        out.push_str(digits);
    } else {
        fill(out, ' ');
        out.push_str(text);
    }
}

/// Quotes a text as Go's `%q`.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x80 && c.is_control() => {
                write!(out, "\\x{:02x}", c as u32).unwrap_or_default()
            }
            c if c.is_control() => write!(out, "\\u{:04x}", c as u32).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
