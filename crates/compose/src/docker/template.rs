//! Variables as Docker's stack files know them. Source: docker/cli `cli/compose/template`, `loader/interpolate.go`.
//!
//! Other than in the compose specification, a default may follow a name without braces (`$NAME-default`), and a
//! default ends at the first brace.

use crate::{
    Error,
    tree::{Node, Value},
};
use std::collections::BTreeMap;

type Env = BTreeMap<String, String>;

/// Replaces the variables in all values, and brings what they gave to the type of its place.
pub(super) fn tree(node: &mut Node, env: &Env) -> Result<(), Error> {
    walk(node, &mut Vec::new(), env)
}

fn walk(node: &mut Node, path: &mut Vec<String>, env: &Env) -> Result<(), Error> {
    match &mut node.value {
        Value::Str(text) => {
            let failed = |why: String| Error::Interpolation {
                at: node.at.clone(),
                path: path.join("."),
                value: text.clone(),
                why,
            };
            let new = substitute(text, env).map_err(failed)?;
            if new != *text {
                node.value = match cast(path) {
                    None => Value::Str(new),
                    Some(cast) => {
                        cast(&new).ok_or_else(|| failed(format!("{new:?} is not what belongs here")))?
                    }
                };
            }
        }
        Value::Seq(items) => {
            for item in items {
                path.push("[]".to_owned());
                walk(item, path, env)?;
                path.pop();
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                path.push(entry.key.clone());
                walk(&mut entry.node, path, env)?;
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
    Ok(())
}

type Cast = fn(&str) -> Option<Value>;

fn whole(text: &str) -> Option<Value> {
    text.parse::<i64>().ok().map(|number| Value::Int(number.into()))
}

fn ratio(text: &str) -> Option<Value> {
    text.parse().ok().map(Value::Float)
}

fn flag(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" | "on" => Some(Value::Bool(true)),
        "n" | "no" | "false" | "off" => Some(Value::Bool(false)),
        _ => None,
    }
}

fn cast(path: &[String]) -> Option<Cast> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    Some(match path.as_slice() {
        ["services", _, rest @ ..] => match rest {
            ["configs" | "secrets", "[]", "mode"]
            | ["healthcheck", "retries"]
            | ["deploy", "replicas"]
            | ["deploy", "update_config" | "rollback_config", "parallelism"]
            | ["deploy", "restart_policy", "max_attempts"]
            | ["deploy", "placement", "max_replicas_per_node"]
            | ["ports", "[]", "target" | "published"]
            | ["ulimits", _]
            | ["ulimits", _, "hard" | "soft"]
            | ["oom_score_adj"] => whole,
            ["deploy", "update_config" | "rollback_config", "max_failure_ratio"] => ratio,
            ["healthcheck", "disable"]
            | ["privileged" | "read_only" | "stdin_open" | "tty"]
            | ["volumes", "[]", "read_only"]
            | ["volumes", "[]", "volume", "nocopy"] => flag,
            _ => return None,
        },
        ["networks", _, "external" | "internal" | "attachable"]
        | ["volumes" | "secrets" | "configs", _, "external"] => flag,
        _ => return None,
    })
}

fn substitute(text: &str, env: &Env) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let named = word(rest);
        let braced = rest.strip_prefix('{').and_then(|inside| {
            let len = word(inside);
            inside[len..].starts_with('}').then_some(len)
        });
        if named > 0 {
            out.push_str(&value(&rest[..named], env)?);
            rest = &rest[named..];
        } else if let Some(len) = braced.filter(|len| *len > 0) {
            out.push_str(&value(&rest[1..=len], env)?);
            rest = &rest[len + 2..];
        } else {
            return Err("you may need to escape any $ with another $".to_owned());
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Length of a name with what follows it up to a closing brace: `[_a-z][_a-z0-9]*(?::?[-?][^}]*)?`.
fn word(text: &str) -> usize {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(first) {
        return 0;
    }
    let name = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let rest = &text[name..];
    let operator = rest.strip_prefix(':').unwrap_or(rest);
    if operator.starts_with(['-', '?']) { text.find('}').unwrap_or(text.len()) } else { name }
}

/// The first of `:-`, `-`, `:?` and `?` that is anywhere in it decides.
fn value(word: &str, env: &Env) -> Result<String, String> {
    let missing =
        |name: &str, message: &str| Err(format!("required variable {name} is missing a value: {message}"));
    let get = |name: &str| env.get(name);
    Ok(if let Some((name, default)) = word.split_once(":-") {
        get(name).filter(|v| !v.is_empty()).map_or(default, String::as_str).to_owned()
    } else if let Some((name, default)) = word.split_once('-') {
        get(name).map_or(default, String::as_str).to_owned()
    } else if let Some((name, message)) = word.split_once(":?") {
        match get(name).filter(|v| !v.is_empty()) {
            Some(value) => value.clone(),
            None => return missing(name, message),
        }
    } else if let Some((name, message)) = word.split_once('?') {
        match get(name) {
            Some(value) => value.clone(),
            None => return missing(name, message),
        }
    } else {
        get(word).cloned().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<String, String> {
        let env = [("A", "a"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        substitute(text, &env)
    }

    #[test]
    fn variables_are_replaced_as_dockers_cli_does() {
        for (text, expected) in [
            ("$A ${A} $$A ${B}", "a a $A "),
            ("${B:-x} ${EMPTY:-x} ${EMPTY-x} ${B-x}", "x x  x"),
            ("${A?no} ${A:?no}", "a a"),
            // Quirks: a default without braces, and one that ends at the first brace.
            ("$B-the rest", "the rest"),
            ("${B:-${A}}", "${A}"),
        ] {
            assert_eq!(given(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["${A:+x}", "${", "$1", "${B:?gone}", "${1}"] {
            assert!(given(text).is_err(), "{text}");
        }
    }
}
