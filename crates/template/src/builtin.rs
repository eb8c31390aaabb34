//! The functions that every Go template has. Source: Go's `text/template/funcs.go`.

use crate::{run::truth, verbs};
use serde_json::Value;
use std::{borrow::Cow, cmp::Ordering, fmt::Write};

type Result<T> = std::result::Result<T, String>;

/// `and` and `or` are not called: they look at no more than decides.
const NAMES: [&str; 17] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "eq", "ne", "lt", "le", "gt",
    "ge", "html", "urlquery",
];

pub(crate) fn knows(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Says whether a function makes a text of its argument number `at` as that prints itself. The verbs of numbers ask for
/// what is behind it.
pub(crate) fn prints_as_text(name: &str, args: &[Cow<'_, Value>], at: usize) -> bool {
    match (name, args.first().map(|first| &**first)) {
        ("print" | "println", _) => true,
        ("printf", Some(Value::String(format))) => {
            at > 0 && verbs::asked(format, at - 1).is_some_and(|verb| "svq".contains(verb))
        }
        _ => false,
    }
}

/// Calls one of Go's own functions.
///
/// # Errors
/// It does not take these arguments.
pub(crate) fn call(name: &str, args: &[&Value]) -> Result<Value> {
    match (name, args) {
        ("not", [value]) => Ok((!truth(value)).into()),
        ("len", [value]) => len(value).map(Value::from),
        ("index", [of, keys @ ..]) => {
            let found = keys.iter().try_fold(Cow::Borrowed(*of), |of, key| match of {
                Cow::Borrowed(of) => index(of, key),
                Cow::Owned(of) => index(&of, key).map(|found| Cow::Owned(found.into_owned())),
            });
            found.map(Cow::into_owned)
        }
        ("slice", [of, bounds @ ..]) if bounds.len() < 4 => slice(of, bounds),
        ("print", args) => Ok(verbs::print(args).into()),
        ("println", args) => Ok(verbs::println(args).into()),
        ("printf", [format, args @ ..]) => match format {
            Value::String(format) => verbs::printf(format, args).map(Value::from),
            other => Err(format!("wrong type for value; expected string; got {}", verbs::kind(other))),
        },
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            for other in others {
                if equal(first, other)? {
                    return Ok(true.into());
                }
            }
            Ok(false.into())
        }
        ("ne", [a, b]) => equal(a, b).map(|same| (!same).into()),
        ("lt", [a, b]) => order(a, b).map(|o| (o == Ordering::Less).into()),
        ("le", [a, b]) => order(a, b).map(|o| (o != Ordering::Greater).into()),
        ("gt", [a, b]) => order(a, b).map(|o| (o == Ordering::Greater).into()),
        ("ge", [a, b]) => order(a, b).map(|o| (o != Ordering::Less).into()),
        ("html", args) => Ok(html(&verbs::print(args)).into()),
        ("urlquery", args) => Ok(urlquery(&verbs::print(args)).into()),
        _ => Err(format!("wrong number of args: got {}", args.len())),
    }
}

/// Returns how long a text (in bytes), a list or an object is.
fn len(value: &Value) -> Result<usize> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(all) => Ok(all.len()),
        Value::Object(all) => Ok(all.len()),
        other => Err(format!("len of type {}", verbs::kind(other))),
    }
}

fn index<'v>(of: &'v Value, key: &Value) -> Result<Cow<'v, Value>> {
    match (of, key) {
        (Value::Object(all), Value::String(key)) => Ok(match all.get(key) {
            Some(found) => Cow::Borrowed(found),
            // Go's answer is the zero value of what the map holds: a map of strings has the empty one.
            None if all.values().all(Value::is_string) => Cow::Owned("".into()),
            None => Cow::Owned(Value::Null),
        }),
        (Value::Array(all), Value::Number(_)) => {
            let at = bound(key, all.len())?;
            all.get(at).map(Cow::Borrowed).ok_or_else(|| format!("index out of range: {at}"))
        }
        (Value::String(text), Value::Number(_)) => {
            let at = bound(key, text.len())?;
            let byte = text.as_bytes().get(at).map(|b| Cow::Owned(Value::from(*b)));
            byte.ok_or_else(|| format!("index out of range: {at}"))
        }
        (Value::Null, _) => Err("index of untyped nil".to_owned()),
        (of, key) => Err(format!("cannot index {} with {}", verbs::kind(of), verbs::kind(key))),
    }
}

fn bound(value: &Value, max: usize) -> Result<usize> {
    let at = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= max);
    at.ok_or_else(|| format!("index out of range: {}", verbs::plain(value)))
}

fn slice(of: &Value, bounds: &[&Value]) -> Result<Value> {
    let whole = match of {
        Value::String(text) => text.len(),
        Value::Array(all) => all.len(),
        other => return Err(format!("can't slice item of type {}", verbs::kind(other))),
    };
    let from = bounds.first().map_or(Ok(0), |b| bound(b, whole))?;
    let to = bounds.get(1).map_or(Ok(whole), |b| bound(b, whole))?;
    if bounds.len() > 2 {
        return Err("cannot 3-index slice a copy".to_owned());
    }
    let invalid = || format!("invalid slice index: {from} > {to}");
    match of {
        Value::String(text) => text.get(from..to).map(Value::from).ok_or_else(invalid),
        Value::Array(all) => all.get(from..to).map(|part| Value::from(part.to_vec())).ok_or_else(invalid),
        _ => Err(invalid()),
    }
}

fn equal(a: &Value, b: &Value) -> Result<bool> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => Ok(match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x == y,
            _ => x.as_f64() == y.as_f64(),
        }),
        (Value::Null, _) | (_, Value::Null) => Ok(a.is_null() && b.is_null()),
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => Ok(a == b),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            Err("non-comparable type".to_owned())
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering> {
    let incompatible = || "incompatible types for comparison".to_owned();
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Ok(x.cmp(&y)),
            _ => x.as_f64().partial_cmp(&y.as_f64()).ok_or_else(incompatible),
        },
        _ => Err(incompatible()),
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => write!(out, "%{byte:02X}").unwrap_or_default(), // a String takes everything
        }
    }
    out
}
