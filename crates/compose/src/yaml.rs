//! The resolved file as canonical YAML: mapping keys in order, two spaces, plain where that is safe.

use crate::tree::{Node, Value};

pub(crate) fn write(node: &Node) -> String {
    let mut out = String::new();
    block(node, 0, &mut out);
    out
}

fn block(node: &Node, indent: usize, out: &mut String) {
    let pad = "  ".repeat(indent);
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            for entry in entries {
                out.push_str(&pad);
                out.push_str(&text(&entry.key));
                out.push(':');
                nested(&entry.node, indent, out);
            }
        }
        Value::Seq(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&pad);
                out.push('-');
                match &item.value {
                    Value::Map(entries) if !entries.is_empty() => {
                        // The first key stands behind the dash.
                        let mut inner = String::new();
                        block(item, indent + 1, &mut inner);
                        out.push(' ');
                        out.push_str(inner.trim_start());
                    }
                    _ => nested(item, indent, out),
                }
            }
        }
        _ => {
            out.push_str(&pad);
            out.push_str(&scalar(node));
            out.push('\n');
        }
    }
}

fn nested(node: &Node, indent: usize, out: &mut String) {
    let is_block = match &node.value {
        Value::Map(entries) => !entries.is_empty(),
        Value::Seq(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        block(node, indent + 1, out);
    } else {
        out.push(' ');
        out.push_str(&scalar(node));
        out.push('\n');
    }
}

fn scalar(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Str(s) => text(s),
        Value::Map(_) => "{}".to_owned(),
        Value::Seq(_) => "[]".to_owned(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => node.scalar().unwrap_or_default(),
    }
}

/// Quotes what would read as something else than this string.
fn text(s: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+' | '=' | ',');
    let looks_typed = s.parse::<f64>().is_ok()
        || s.starts_with(['-', '.', '=', '+', ',', '0'])
        || matches!(
            s.to_ascii_lowercase().as_str(),
            "" | "null" | "~" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | ".nan" | ".inf"
        );
    // A colon or space inside is safe unless they meet.
    let inner = |c: char| plain(c) || c == ' ' || c == ':' || c == '@';
    // A variable that stays as it is written: behind its dollar sign a brace begins no mapping.
    let whole = s;
    let s = variable_name(s).unwrap_or(s);
    let safe = s.starts_with(plain)
        && s.chars().all(inner)
        && !s.contains(": ")
        && !s.ends_with([':', ' '])
        && !s.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | '-'));
    if safe && !looks_typed { whole.to_owned() } else { quoted(whole) }
}

/// Returns NAME of `$NAME` or `${NAME}`, if that is all.
fn variable_name(s: &str) -> Option<&str> {
    let rest = s.strip_prefix('$')?;
    let name = rest.strip_prefix('{').and_then(|inside| inside.strip_suffix('}')).unwrap_or(rest);
    name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()).then_some(name)
}

fn quoted(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
