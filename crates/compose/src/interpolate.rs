//! `${VARIABLES}` in values. Source: compose specification "Interpolation".
//!
//! ```text
//!  $$               a dollar sign; so is one before what cannot be a name
//!  $NAME ${NAME}    the value, or nothing with a warning
//!  ${NAME:-word}    word if unset or empty      ${NAME-word}   if unset
//!  ${NAME:?text}    an error if unset or empty  ${NAME?text}   if unset
//!  ${NAME:+word}    word if set and not empty   ${NAME+word}   if set
//! ```
//! `word` may itself hold variables.

use crate::{
    At,
    error::Error,
    read::Reader,
    tree::{Node, Value},
};
use std::collections::BTreeMap;

/// A variable that a file mentions.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Variable {
    pub name: String,
    /// What stands in its place if it is not set.
    pub default: String,
    /// What stands in its place if it is set.
    pub presence: String,
    pub required: bool,
}

/// Replaces the variables in all values (not in keys) of a file.
pub(crate) fn tree(node: &mut Node, read: &Reader<'_>) -> Result<(), Error> {
    walk(node, "", read)
}

fn walk(node: &mut Node, path: &str, read: &Reader<'_>) -> Result<(), Error> {
    match &mut node.value {
        Value::Str(text) => {
            if text.contains('$') {
                let template = Template { whole: text, path, at: &node.at, read };
                let new = template.expand(text)?;
                *text = new;
            }
        }
        Value::Seq(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                walk(item, &format!("{path}[{i}]"), read)?;
            }
        }
        Value::Map(entries) => {
            for entry in entries.iter_mut().filter(|e| !(path.is_empty() && e.key.starts_with("x-"))) {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                walk(&mut entry.node, &path, read)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
    Ok(())
}

/// Adds the variables that a file mentions; what cannot be read as one is passed over.
pub(crate) fn mentioned(node: &Node, all: &mut BTreeMap<String, Variable>) {
    match &node.value {
        Value::Str(text) => mentioned_in(text, all),
        Value::Seq(items) => items.iter().for_each(|item| mentioned(item, all)),
        Value::Map(entries) => entries.iter().for_each(|entry| mentioned(&entry.node, all)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

fn mentioned_in(text: &str, all: &mut BTreeMap<String, Variable>) {
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let (name, operation) = match rest.strip_prefix('{') {
            Some(after) => {
                let Some(end) = closing_brace(after) else { return };
                rest = &after[end + 1..];
                after[..end].split_at(name_length(&after[..end]))
            }
            None => {
                let (name, after) = rest.split_at(name_length(rest));
                rest = after;
                (name, "")
            }
        };
        if name.is_empty() {
            continue;
        }
        let known = all.entry(name.to_owned()).or_default();
        known.name = name.to_owned();
        let operation = operation.strip_prefix(':').unwrap_or(operation);
        let (kind, word) = operation.split_at(operation.chars().next().map_or(0, char::len_utf8));
        match kind {
            "-" => known.default = word.to_owned(),
            "+" => known.presence = word.to_owned(),
            "?" => known.required = true,
            _ => {}
        }
        mentioned_in(word, all);
    }
}

struct Template<'a> {
    whole: &'a str,
    path: &'a str,
    at: &'a At,
    read: &'a Reader<'a>,
}

impl Template<'_> {
    fn expand(&self, text: &str) -> Result<String, Error> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            out.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let end = closing_brace(after).ok_or_else(|| self.malformed("a closing brace is missing"))?;
                out.push_str(&self.braced(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                let len = name_length(rest);
                if len == 0 {
                    // As Docker Compose, it stands for itself.
                    self.read.warn(self.at, "a $ that is no variable's is better written as $$".to_owned());
                    out.push('$');
                    continue;
                }
                out.push_str(&self.plain(&rest[..len]));
                rest = &rest[len..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Evaluates what is between the braces.
    fn braced(&self, inside: &str) -> Result<String, Error> {
        let (name, rest) = inside.split_at(name_length(inside));
        if name.is_empty() {
            return Err(self.malformed("a variable's name is letters, digits and underscores"));
        }
        if rest.is_empty() {
            return Ok(self.plain(name));
        }
        let value = self.read.env(name);
        let (value, rest) = match rest.strip_prefix(':') {
            Some(rest) => (value.filter(|v| !v.is_empty()), rest),
            None => (value, rest),
        };
        let mut chars = rest.chars();
        match (chars.next(), chars.as_str()) {
            (Some('-'), word) => value.map_or_else(|| self.expand(word), |v| Ok(v.to_owned())),
            (Some('+'), word) => {
                if value.is_some() {
                    self.expand(word)
                } else {
                    Ok(String::new())
                }
            }
            (Some('?'), text) => match value {
                Some(value) => Ok(value.to_owned()),
                None => Err(Error::RequiredVariable {
                    at: self.at.clone(),
                    path: self.path.to_owned(),
                    name: name.to_owned(),
                    message: self.expand(text)?,
                }),
            },
            _ => Err(self.malformed("want one of :- - :? ? :+ + after the name")),
        }
    }

    fn plain(&self, name: &str) -> String {
        match self.read.env(name) {
            Some(value) => value.to_owned(),
            None => {
                self.read
                    .warn(self.at, format!("the {name:?} variable is not set, defaulting to a blank string"));
                String::new()
            }
        }
    }

    fn malformed(&self, why: &str) -> Error {
        Error::Interpolation {
            at: self.at.clone(),
            path: self.path.to_owned(),
            value: self.whole.to_owned(),
            why: why.to_owned(),
        }
    }
}

fn name_length(text: &str) -> usize {
    let is_first = |c: char| c == '_' || c.is_ascii_alphabetic();
    if !text.starts_with(is_first) {
        return 0;
    }
    text.find(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).unwrap_or(text.len())
}

/// Returns where the brace closes that was opened before `text`; nested ones are passed over.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0usize, 0usize);
    while i < bytes.len() {
        match bytes[i] {
            b'$' if bytes.get(i + 1) == Some(&b'$') => i += 1,
            b'$' if bytes.get(i + 1) == Some(&b'{') => {
                depth += 1;
                i += 1;
            }
            b'}' if depth == 0 => return Some(i),
            b'}' => depth -= 1,
            _ => {}
        }
        i += 1;
    }
    None
}
