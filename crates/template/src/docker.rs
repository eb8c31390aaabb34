//! The functions that Docker adds where its CLI and its log drivers take templates.
//! Source: docker/cli `templates/templates.go`; moby `daemon/logger/templates`.

use crate::{Value, Words, plain};

const NAMES: [&str; 8] = ["json", "split", "join", "title", "lower", "upper", "pad", "truncate"];

/// Says whether Docker has a function of that name.
#[must_use]
pub fn knows(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls one of Docker's functions.
///
/// # Errors
/// It does not take these arguments.
pub fn call(name: &str, args: &[&Value]) -> Result<Value, String> {
    match (name, args) {
        ("json", [value]) => Ok(value.to_string().into()),
        ("split", [Value::String(text), Value::String(separator)]) => {
            let parts: Vec<String> = match separator.as_str() {
                "" => text.chars().map(String::from).take(PARTS_MAX + 1).collect(),
                separator => text.split(separator).map(str::to_owned).take(PARTS_MAX + 1).collect(),
            };
            if parts.len() > PARTS_MAX {
                return Err(format!("it makes more than {PARTS_MAX} parts"));
            }
            Ok(parts.into())
        }
        ("join", [all, Value::String(separator)]) => join(all, separator).map(Value::from),
        ("title", [Value::String(text)]) => Ok(title(text).into()),
        ("lower", [Value::String(text)]) => Ok(text.to_lowercase().into()),
        ("upper", [Value::String(text)]) => Ok(text.to_uppercase().into()),
        ("pad", [Value::String(text), before, after]) => {
            let count = |value: &Value| {
                let count = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= PAD_MAX);
                count.ok_or_else(|| format!("it takes at most {PAD_MAX} blanks, not {}", plain(value)))
            };
            let (before, after) = (" ".repeat(count(before)?), " ".repeat(count(after)?));
            Ok(if text.is_empty() { Value::from("") } else { format!("{before}{text}{after}").into() })
        }
        ("truncate", [Value::String(text), length]) => {
            let length =
                length.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("a length is a number from 0")?;
            // Docker cuts bytes; half a character would be none.
            let end = (0..=length.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            Ok(text[..end].into())
        }
        (_, args) => {
            let given: Vec<&str> = args.iter().map(|value| crate::verbs::kind(value)).collect();
            Err(format!("it does not take ({})", given.join(", ")))
        }
    }
}

/// *Limit* of `split`.
const PARTS_MAX: usize = 100_000;

/// *Limit* of `pad`, on each side.
const PAD_MAX: usize = 10_000;

fn join(all: &Value, separator: &str) -> Result<String, String> {
    match all {
        Value::Null => Ok(String::new()),
        Value::Array(all) => Ok(all.iter().map(plain).collect::<Vec<_>>().join(separator)),
        Value::Object(all) => {
            let mut all: Vec<String> = all.values().map(plain).collect();
            all.sort();
            Ok(all.join(separator))
        }
        other => Err(format!("expected slice, got {}", crate::verbs::kind(other))),
    }
}

/// Writes the first letter of each word as a capital.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        if before.is_alphanumeric() || matches!(before, '_' | '\'') {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        before = c;
    }
    out
}

/// Docker's functions and nothing else; a field that is not there is a mistake.
#[derive(Debug, Clone, Copy)]
pub struct Docker;

impl Words for Docker {
    fn knows(&self, name: &str) -> bool {
        knows(name)
    }

    fn call(&self, name: &str, args: &[&Value]) -> Result<Value, String> {
        call(name, args)
    }
}
