//! YAML as a tree in which every node knows its place.

use crate::error::{At, Error};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};
use std::{fmt, path::Path, sync::Arc};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

impl serde::Serialize for Node {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => to.serialize_unit(),
            Value::Bool(value) => to.serialize_bool(*value),
            Value::Int(value) => match i64::try_from(*value) {
                Ok(value) => to.serialize_i64(value),
                Err(_) => to.serialize_str(&value.to_string()),
            },
            Value::Float(value) => to.serialize_f64(*value),
            Value::Str(value) => to.serialize_str(value),
            Value::Seq(items) => to.collect_seq(items),
            Value::Map(entries) => to.collect_map(entries.iter().map(|e| (&e.key, &e.node))),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: At,
    pub(crate) tag: Tag,
}

/// Ten thousand services have less.
const BYTES_MAX: usize = 5_000_000;

/// What a later file wants with the value of an earlier one. Source: compose specification "Reset value".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tag {
    /// To be merged with it.
    #[default]
    Merge,
    /// `!reset`: gone.
    Reset,
    /// `!override`: replaced.
    Override,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: At,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn new(value: Value, at: At) -> Self {
        Self { value, at, tag: Tag::Merge }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// Says what kind of value it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Returns a scalar as the text people meant.
    pub(crate) fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Bool(b) => Some(b.to_string()),
            Value::Int(i) => Some(i.to_string()),
            Value::Float(f) => Some(f.to_string()),
            Value::Str(s) => Some(s.clone()),
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }
}

pub(crate) fn get_mut<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|e| e.key == key).map(|e| &mut e.node),
        _ => None,
    }
}

/// Sets a key, or adds it.
pub(crate) fn put(node: &mut Node, key: &str, value: Value) {
    let at = node.at.clone();
    if let Value::Null = node.value {
        node.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut node.value else { return };
    let new = Node::new(value, at.clone());
    match entries.iter_mut().find(|e| e.key == key) {
        Some(entry) => entry.node = new,
        None => entries.push(Entry { key: key.to_owned(), at, node: new }),
    }
}

/// Parses the documents of one stack file, one at least. Anchors and merge keys are resolved; a duplicate key is an error.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Node>, Error> {
    if text.len() > BYTES_MAX {
        let at = At { file: file.into(), line: 1, column: 1 };
        let text = format!("the file has {} bytes, and stack files may have {BYTES_MAX}", text.len());
        return Err(Error::Yaml { at, text });
    }
    let options = serde_yaml::options! {
        legacy_octal_numbers: true,
        strict_booleans: true,
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: 500_000 },
        // Enough for ten thousand services, and no more than some hundred megabytes. One anchor may be used by all of
        // them: what aliases come to is bounded above.
        budget: serde_yaml::budget! {
            max_events: 2_000_000,
            max_nodes: 600_000,
            max_merge_keys: 100_000,
            max_aliases: 200_000,
            enforce_alias_anchor_ratio: false,
        },
    };
    let file: Arc<Path> = file.into();
    let raw: Vec<Spanned<Raw>> = serde_yaml::from_multiple_with_options(text, options).map_err(|error| {
        let start = At { file: file.clone(), line: 1, column: 1 };
        let at = error.location().map_or(start, |l| whereabouts(l, &file));
        let text = strip_position(&error.without_snippet().to_string());
        Error::Yaml { at, text: in_plain_words(text) }
    })?;
    let start = At { file: file.clone(), line: 1, column: 1 };
    let mut trees: Vec<Node> = raw.into_iter().map(|raw| place(raw, &file)).collect();
    if trees.is_empty() {
        trees.push(Node::new(Value::Null, start));
    }
    if text.contains("!reset") || text.contains("!override") {
        let lines: Vec<&str> = text.lines().collect();
        trees.iter_mut().for_each(|tree| tag(tree, &lines));
    }
    Ok(trees)
}

/// The deserializer drops tags that it does not know: they stand right before a node, or where it begins.
fn tag(node: &mut Node, lines: &[&str]) {
    node.tag = tag_at(&node.at, lines);
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().for_each(|e| tag(&mut e.node, lines)),
        Value::Seq(items) => items.iter_mut().for_each(|item| tag(item, lines)),
        _ => {}
    }
}

fn tag_at(at: &At, lines: &[&str]) -> Tag {
    let Some(place) = (at.line as usize).checked_sub(1).filter(|place| *place < lines.len()) else {
        return Tag::Merge;
    };
    let line = lines[place];
    let column = (at.column as usize).saturating_sub(1);
    let column = line.char_indices().nth(column).map_or(line.len(), |(byte, _)| byte);
    let (before, after) = line.split_at(column);
    let of = |word: &str| match word {
        "!reset" => Tag::Reset,
        "!override" => Tag::Override,
        _ => Tag::Merge,
    };
    let here = of(after.split([' ', ',', ']', '}']).next().unwrap_or_default());
    if here != Tag::Merge {
        return here;
    }
    let word_before = |text: &str| of(text.rsplit([' ', '[', '{', ',']).next().unwrap_or_default());
    if !before.trim().is_empty() {
        return word_before(before.trim_end());
    }
    // A block begins below the line that names it.
    let named =
        lines[..place].iter().rev().find(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    named.map_or(Tag::Merge, |line| word_before(line.trim_end()))
}

/// The position stands in front already.
fn strip_position(text: &str) -> String {
    let first = text.lines().next().unwrap_or(text);
    let cut = first.find(" at line ").or_else(|| first.find(" (line "));
    let without = cut.map_or(first, |cut| &first[..cut]);
    let without = without.strip_prefix("error: ").unwrap_or(without);
    // Advice to programmers.
    let without = without.split_once(", set DuplicateKeyPolicy").map_or(without, |(text, _)| text);
    match without.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest.to_owned(),
        None => without.to_owned(),
    }
}

/// What the parser says to programmers, for who wrote the file.
fn in_plain_words(text: String) -> String {
    let hint = match text.as_str() {
        t if t.starts_with("budget breached") => {
            return format!("the file is larger or deeper than any stack is ({t})");
        }
        t if t.starts_with("recursive references") => return "an anchor holds itself".to_owned(),
        t if t.starts_with("mapping values are not allowed") => {
            "is a line indented too far, or is a colon or the space behind one missing on the line before?"
        }
        t if t.contains("did not find expected key") => "do the keys of this mapping begin in one column?",
        t if t.contains("unknown escape character") => "in single quotes a backslash is a backslash",
        t if t.contains("tab") => "indent with spaces",
        t if t.contains("unknown anchor") => "an anchor (&name) must stand before what refers to it (*name)",
        _ => return text,
    };
    format!("{text}\nhint: {hint}")
}

fn place(raw: Spanned<Raw>, file: &Arc<Path>) -> Node {
    let at = whereabouts(raw.defined, file);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(b) => Value::Bool(b),
        Raw::Int(i) => Value::Int(i),
        Raw::Float(f) => Value::Float(f),
        Raw::Str(s) => Value::Str(s),
        Raw::Seq(items) => Value::Seq(items.into_iter().map(|i| place(i, file)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, node)| Entry {
                    at: whereabouts(key.defined, file),
                    key: key.value,
                    node: place(node, file),
                })
                .collect(),
        ),
    };
    Node::new(value, at)
}

fn whereabouts(location: Location, file: &Arc<Path>) -> At {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    At { file: file.clone(), line: number(location.line()), column: number(location.column()) }
}

/// What the deserializer gives.
enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Seq(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Str(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Str(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::Seq(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
