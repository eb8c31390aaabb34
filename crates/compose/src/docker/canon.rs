//! From what was written to the long forms, by the tables; what has no business in a file is an error.

use super::{
    ports,
    schema::{ATTACHMENT, BUILD, FILE, Field, REFERENCE, Shape, Struct, ULIMIT, VOLUME_MOUNT, Version},
};
use crate::{
    At, Error, Files, Sources,
    error::suggest,
    read::Item,
    tree::{Entry, Node, Value},
    units,
};
use std::collections::BTreeSet;

type Result<T> = std::result::Result<T, Error>;

/// What the long forms depend on besides the file.
pub(super) struct Context<'a> {
    pub(super) version: Version,
    pub(super) sources: &'a Sources,
    pub(super) files: &'a dyn Files,
}

pub(super) fn text(value: impl Into<String>, at: &At) -> Node {
    Node::new(Value::Str(value.into()), at.clone())
}

pub(super) fn entry(key: &str, node: Node) -> Entry {
    Entry { key: key.to_owned(), at: node.at.clone(), node }
}

fn wanted(item: &Item<'_>, what: &str) -> Error {
    item.invalid(format!("want {what}, not {}", item.node.kind()))
}

fn as_text(item: &Item<'_>) -> Result<String> {
    match &item.node.value {
        Value::Str(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            let quoted = item.node.scalar().unwrap_or_default();
            Err(item.invalid(format!("want a string, not {}: write it as \"{quoted}\"", item.node.kind())))
        }
        _ => Err(wanted(item, "a string")),
    }
}

fn as_whole(item: &Item<'_>) -> Result<i128> {
    match &item.node.value {
        Value::Int(number) => Ok(*number),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
            format!("{number:.0}").parse().map_err(|_| wanted(item, "a whole number"))
        }
        _ => Err(wanted(item, "a whole number")),
    }
}

fn as_flag(item: &Item<'_>) -> Result<bool> {
    match item.node.value {
        Value::Bool(flag) => Ok(flag),
        _ => Err(wanted(item, "true or false")),
    }
}

fn is_list(item: &Item<'_>) -> bool {
    matches!(item.node.value, Value::Seq(_))
}

/// Entries of a mapping; nothing is none here.
pub(super) fn mapping<'a>(item: &Item<'a>) -> Result<Vec<(&'a str, Item<'a>, &'a At)>> {
    if item.is_map() { item.entries() } else { Err(wanted(item, "a mapping")) }
}

pub(super) fn list<'a>(item: &Item<'a>) -> Result<Vec<Item<'a>>> {
    if is_list(item) { item.items() } else { Err(wanted(item, "a list")) }
}

/// A list in which nothing stands twice.
fn unique<'a>(item: &Item<'a>) -> Result<Vec<Item<'a>>> {
    let items = list(item)?;
    let same = |a: &Item<'_>, b: &Item<'_>| without_place(a.node) == without_place(b.node);
    for (place, one) in items.iter().enumerate() {
        if items[..place].iter().any(|before| same(before, one)) {
            return Err(one.invalid("stands in the list twice"));
        }
    }
    Ok(items)
}

fn without_place(node: &Node) -> String {
    let sorted = |entries: &Vec<Entry>| {
        let mut all: Vec<_> = entries.iter().map(|e| (e.key.clone(), without_place(&e.node))).collect();
        all.sort();
        format!("{all:?}")
    };
    match &node.value {
        Value::Map(entries) => sorted(entries),
        Value::Seq(items) => format!("{:?}", items.iter().map(without_place).collect::<Vec<_>>()),
        scalar => format!("{scalar:?}"),
    }
}

fn texts(items: &[Item<'_>]) -> Result<Vec<Node>> {
    items.iter().map(|i| Ok(text(as_text(i)?, &i.node.at))).collect()
}

/// Go's way to print a number.
fn printed(item: &Item<'_>) -> Option<String> {
    match &item.node.value {
        Value::Float(number) if number.abs() >= 1e21 || (*number != 0.0 && number.abs() < 1e-4) => {
            let text = format!("{number:e}");
            let (digits, exponent) = text.split_once('e')?;
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            Some(format!("{digits}e{sign}{exponent:0>2}"))
        }
        Value::Str(_) | Value::Int(_) | Value::Float(_) => item.node.scalar(),
        _ => None,
    }
}

/// Go's way to print a duration. *Unit of* `nanos`: 10^-9 s.
fn go_duration(nanos: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let decimal = |value: u64, unit: u64, name: &str| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() || unit == 1 { String::new() } else { format!(".{fraction}") };
        format!("{}{dot}{name}", value / unit)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(nanos, 1_000, "µs"),
        1_000_000..SECOND => decimal(nanos, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (nanos / (60 * SECOND), nanos % (60 * SECOND));
            let seconds = decimal(rest, SECOND, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn duration(item: &Item<'_>) -> Result<u64> {
    let text = as_text(item)?;
    // Days and weeks are ours.
    let parsed = units::duration(&text).filter(|_| !text.contains(['d', 'w']) && text.trim() == text);
    let parsed = parsed.ok_or_else(|| {
        item.invalid(format!("invalid duration {text:?}: want a number with a unit, like 1m30s or 500ms"))
    })?;
    u64::try_from(parsed.as_nanos()).map_err(|_| item.invalid("out of range"))
}

impl Context<'_> {
    /// Returns the long form of a whole file.
    pub(super) fn file(&self, tree: &Node) -> Result<Node> {
        let root = Item::root(tree);
        let mut long =
            self.of_struct(&root, &FILE)?.unwrap_or_else(|| Node::new(Value::Map(vec![]), tree.at.clone()));
        if let Value::Map(entries) = &mut long.value {
            if !entries.iter().any(|entry| entry.key == "services") {
                entries.push(entry("services", Node::new(Value::Map(vec![]), tree.at.clone())));
            }
            for section in entries {
                let Value::Map(definitions) = &mut section.node.value else { continue };
                for Entry { key, node, .. } in definitions {
                    match section.key.as_str() {
                        "services" => self.finish_service(key, node)?,
                        "networks" | "volumes" => external(&section.key, key, node)?,
                        "secrets" | "configs" => self.file_object(&section.key, key, node)?,
                        _ => {}
                    }
                }
            }
        }
        Ok(long)
    }

    fn of_struct(&self, item: &Item<'_>, form: &'static Struct) -> Result<Option<Node>> {
        if form.nullable && item.is_null() {
            return Ok(form.kept.then(|| Node::new(Value::Map(vec![]), item.at())));
        }
        let mut long = Vec::new();
        for (key, value, at) in mapping(item)? {
            let field = form.fields.iter().find(|f| f.key == key);
            let node = match field {
                Some(field) if field.since > self.version.0 => return Err(self.too_new(item, field, at)),
                Some(field) => self.of(&value, field.shape)?,
                None if form.open => continue,
                None if key.starts_with("x-")
                    && form.extras_since.is_some_and(|since| self.version.0 >= since) =>
                {
                    Some(value.node.clone())
                }
                None => {
                    let known = form.fields.iter().filter(|f| f.since <= self.version.0).map(|f| f.key);
                    return Err(Error::UnknownKey {
                        at: at.clone(),
                        path: if item.path.is_empty() { "(file)".to_owned() } else { item.path.clone() },
                        key: key.to_owned(),
                        suggestion: suggest(key, known),
                    });
                }
            };
            long.extend(node.map(|node| Entry { key: key.to_owned(), at: at.clone(), node }));
        }
        Ok((form.kept || !long.is_empty()).then(|| Node::new(Value::Map(long), item.at())))
    }

    fn too_new(&self, item: &Item<'_>, field: &Field, at: &At) -> Error {
        Error::Invalid {
            at: at.clone(),
            path: if item.path.is_empty() { "(file)".to_owned() } else { item.path.clone() },
            text: format!(
                "{:?} is there since version 3.{}, and this file says {}",
                field.key, field.since, self.version
            ),
        }
    }

    /// Returns the long form of a value; `None` if it says nothing.
    fn of(&self, item: &Item<'_>, shape: Shape) -> Result<Option<Node>> {
        let at = item.at();
        let some = |value: Value| Ok(Some(Node::new(value, at.clone())));
        let seq =
            |items: Vec<Node>| Ok((!items.is_empty()).then(|| Node::new(Value::Seq(items), at.clone())));
        match shape {
            Shape::Unused { text } => {
                if !(text && matches!(item.node.value, Value::Str(_))) {
                    as_whole(item)?;
                }
                Ok(None)
            }
            Shape::TextOrNull if item.is_null() => Ok(None),
            Shape::Text | Shape::TextOrNull | Shape::TextNoNumber => {
                let value = as_text(item)?;
                Ok((!value.is_empty()).then(|| text(value, &at)))
            }
            Shape::Flag => Ok(as_flag(item)?.then(|| Node::new(Value::Bool(true), at.clone()))),
            Shape::Choice => some(Value::Bool(as_flag(item)?)),
            Shape::Whole => {
                let number = as_whole(item)?;
                Ok((number != 0).then(|| Node::new(Value::Int(number), at.clone())))
            }
            Shape::Count => match as_whole(item)? {
                number if number < 0 => Err(item.invalid(format!("{number} is out of range"))),
                number => some(Value::Int(number)),
            },
            Shape::Ratio => match item.node.value {
                Value::Int(0) => Ok(None),
                Value::Float(0.0) => Ok(None),
                Value::Int(_) | Value::Float(_) => Ok(Some(item.node.clone())),
                _ => Err(wanted(item, "a number")),
            },
            Shape::Duration { kept } => {
                let nanos = duration(item)?;
                Ok((kept || nanos > 0).then(|| text(go_duration(nanos), &at)))
            }
            Shape::Size => {
                let given = as_text(item)?;
                let bytes = units::bytes(&given).ok_or_else(|| {
                    item.invalid(format!("invalid size {given:?}: want bytes, or a number with b, k, m or g"))
                })?;
                Ok((bytes > 0).then(|| text(bytes.to_string(), &at)))
            }
            Shape::Texts => seq(texts(&unique(item)?)?),
            Shape::TextsMayRepeat => seq(texts(&list(item)?)?),
            Shape::TextOrTexts if is_list(item) => seq(texts(&unique(item)?)?),
            Shape::TextOrTexts => seq(vec![text(as_text(item)?, &at)]),
            Shape::Command if is_list(item) => seq(texts(&list(item)?)?),
            Shape::Command => {
                let given = as_text(item)?;
                let words = units::shell_words(&given, true);
                let words = words.ok_or_else(|| item.invalid(format!("unbalanced quotes in {given:?}")))?;
                seq(words.into_iter().map(|word| text(word, &at)).collect())
            }
            Shape::HealthTest if is_list(item) => seq(texts(&list(item)?)?),
            Shape::HealthTest => seq(vec![text("CMD-SHELL", &at), text(as_text(item)?, &at)]),
            Shape::Expose => {
                let port = |i: &Item<'_>| {
                    let printed = printed(i).ok_or_else(|| wanted(i, "a number or a string"))?;
                    Ok(text(printed, &i.node.at))
                };
                seq(unique(item)?.iter().map(port).collect::<Result<_>>()?)
            }
            Shape::Pairs { null } => self.pairs(item, null),
            Shape::Hosts => seq(hosts(item)?),
            Shape::Values { null } => {
                let mut values = Vec::new();
                for (key, value, _) in mapping(item)? {
                    let printed = match printed(&value) {
                        None if null && value.is_null() => String::new(),
                        printed => printed.ok_or_else(|| wanted(&value, "a string or a number"))?,
                    };
                    values.push(entry(key, text(printed, &value.node.at)));
                }
                Ok((!values.is_empty()).then(|| Node::new(Value::Map(values), at.clone())))
            }
            Shape::Struct(form) => self.of_struct(item, form),
            Shape::Named { of, strict } => self.named(item, *of, strict),
            Shape::List(of) => {
                let items = list(item)?.iter().map(|i| self.of(i, *of)).collect::<Result<Vec<_>>>()?;
                seq(items.into_iter().flatten().collect())
            }
            Shape::Ports => seq(ports::long(&unique(item)?, |i| self.of_struct(i, &super::schema::PORT))?),
            Shape::Volumes => {
                let mount = |i: &Item<'_>| match &i.node.value {
                    Value::Str(spec) => super::services::mount(i, spec),
                    _ => self.long_mount(i),
                };
                seq(list(item)?.iter().map(mount).collect::<Result<_>>()?)
            }
            Shape::References => {
                let reference = |i: &Item<'_>| match &i.node.value {
                    Value::Str(source) => {
                        let source = entry("source", text(source.as_str(), &i.node.at));
                        Ok(Node::new(Value::Map(vec![source]), i.at()))
                    }
                    _ => Ok(self.of_struct(i, &REFERENCE)?.unwrap_or_else(|| i.node.clone())),
                };
                seq(list(item)?.iter().map(reference).collect::<Result<_>>()?)
            }
            Shape::Attachments => self.attachments(item),
            Shape::Ulimits => self.ulimits(item),
            Shape::Build if item.is_map() => {
                let open = self.version.0 >= 11;
                let known = |key: &str| BUILD.fields.iter().any(|f| f.key == key);
                let Value::Map(entries) = &item.node.value else { return Ok(None) };
                // Since 3.11 anything may be in it, of which only this is read.
                let kept = entries.iter().filter(|e| !open || known(&e.key)).cloned().collect();
                let node = Node::new(Value::Map(kept), item.at());
                self.of_struct(&Item { node: &node, path: item.path.clone() }, &BUILD)
            }
            Shape::Build => {
                let context = as_text(item)?;
                let map = Value::Map(vec![entry("context", text(context.as_str(), &at))]);
                if context.is_empty() { Ok(None) } else { some(map) }
            }
            Shape::External { strict } => match &item.node.value {
                Value::Bool(false) => Ok(None),
                Value::Bool(true) => some(Value::Bool(true)),
                // With a name: taken apart when the whole definition is known.
                Value::Map(_) => {
                    for (key, value, _) in mapping(item)? {
                        match key {
                            "name" => drop(as_text(&value)?),
                            _ if strict => return Err(value.invalid("only \"name\" belongs here")),
                            _ => {}
                        }
                    }
                    Ok(Some(item.node.clone()))
                }
                _ => Err(wanted(item, "true or false")),
            },
        }
    }

    fn named(&self, item: &Item<'_>, of: Shape, strict: bool) -> Result<Option<Node>> {
        let mut all = Vec::new();
        for (key, value, at) in mapping(item)? {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if (key.is_empty() || !key.chars().all(fine)) && strict {
                let text = format!("{key:?} is no name: use letters, digits, '.', '_' and '-'");
                return Err(Error::Invalid { at: at.clone(), path: item.path.clone(), text });
            }
            if let Some(node) = self.of(&value, of)? {
                all.push(Entry { key: key.to_owned(), at: at.clone(), node });
            }
        }
        Ok((!all.is_empty()).then(|| Node::new(Value::Map(all), item.at())))
    }

    fn pairs(&self, item: &Item<'_>, null: bool) -> Result<Option<Node>> {
        let nothing = |at: &At| if null { Node::new(Value::Null, at.clone()) } else { text("", at) };
        let mut all: Vec<Entry> = Vec::new();
        if is_list(item) {
            for one in unique(item)? {
                let given = as_text(&one)?;
                let node = |value: Option<&str>| {
                    value.map_or_else(|| nothing(&one.node.at), |v| text(v, &one.node.at))
                };
                let (key, value) =
                    given.split_once('=').map_or((given.as_str(), None), |(k, v)| (k, Some(v)));
                all.retain(|e| e.key != key);
                all.push(entry(key, node(value)));
            }
        } else if item.is_map() {
            for (key, value, _) in item.entries()? {
                let node = match printed(&value) {
                    Some(printed) => text(printed, &value.node.at),
                    None if value.is_null() => nothing(&value.node.at),
                    None => return Err(wanted(&value, "a string, a number or nothing")),
                };
                all.push(entry(key, node));
            }
        } else {
            return Err(wanted(item, "a mapping or a list"));
        }
        Ok((!all.is_empty()).then(|| Node::new(Value::Map(all), item.at())))
    }

    fn long_mount(&self, item: &Item<'_>) -> Result<Node> {
        mapping(item)?;
        if item.node.get("type").is_none() {
            return Err(item.invalid("a mount needs a \"type\": bind, volume, tmpfs or npipe"));
        }
        let long = self.of_struct(item, &VOLUME_MOUNT)?;
        Ok(long.unwrap_or_else(|| item.node.clone()))
    }

    fn attachments(&self, item: &Item<'_>) -> Result<Option<Node>> {
        let mut all = Vec::new();
        if is_list(item) {
            for one in unique(item)? {
                all.push(entry(&as_text(&one)?, Node::new(Value::Null, one.at())));
            }
        } else {
            for (key, value, _) in mapping(item)? {
                let node = if value.is_null() {
                    Some(Node::new(Value::Null, value.at()))
                } else {
                    self.of_struct(&value, &ATTACHMENT)?
                };
                all.extend(node.map(|node| entry(key, node)));
            }
        }
        Ok((!all.is_empty()).then(|| Node::new(Value::Map(all), item.at())))
    }

    fn ulimits(&self, item: &Item<'_>) -> Result<Option<Node>> {
        let mut all = Vec::new();
        for (key, value, _) in mapping(item)? {
            let node = if value.is_map() {
                for end in ["soft", "hard"] {
                    if value.node.get(end).is_none() {
                        return Err(value.invalid(format!("a limit with two ends needs {end:?}, too")));
                    }
                }
                self.of_struct(&value, &ULIMIT)?
            } else {
                match as_whole(&value)? {
                    0 => Some(Node::new(Value::Map(vec![]), value.at())),
                    number => Some(Node::new(Value::Int(number), value.at())),
                }
            };
            all.extend(node.map(|node| entry(key, node)));
        }
        Ok((!all.is_empty()).then(|| Node::new(Value::Map(all), item.at())))
    }

    fn file_object(&self, section: &str, name: &str, node: &mut Node) -> Result<()> {
        let at = node.at.clone();
        external(section, name, node)?;
        let Value::Map(entries) = &mut node.value else { return Ok(()) };
        let is = |entries: &[Entry], key: &str| entries.iter().any(|e| e.key == key);
        if is(entries, "external") {
            return Ok(());
        }
        if is(entries, "driver") {
            if is(entries, "file") {
                let path = format!("{section}.{name}");
                return Err(Error::Invalid { at, path, text: "has both a driver and a file".into() });
            }
            return Ok(());
        }
        let file = entries.iter().find(|e| e.key == "file").and_then(|e| e.node.scalar()).unwrap_or_default();
        entries.retain(|e| e.key != "file");
        entries.push(entry("file", text(self.absolute(&file), &at)));
        Ok(())
    }

    /// Returns a path as seen from the project's folder.
    pub(super) fn absolute(&self, path: &str) -> String {
        crate::read::clean(&self.sources.project_dir.join(path)).display().to_string()
    }
}

/// Takes the old `external: {name: x}` apart, and gives what is external its own name.
fn external(section: &str, name: &str, node: &mut Node) -> Result<()> {
    let at = node.at.clone();
    let fail = |text: String| Err(Error::Invalid { at: at.clone(), path: format!("{section}.{name}"), text });
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    let is = |entries: &[Entry], key: &str| entries.iter().any(|e| e.key == key);
    let Some(place) = entries.iter().position(|e| e.key == "external") else {
        // docker/cli forgets them.
        if matches!(section, "networks" | "volumes") {
            entries.retain(|e| !e.key.starts_with("x-") || e.key == "x-cluster-spec");
        }
        return Ok(());
    };
    if section == "volumes"
        && let Some(key) = ["driver", "driver_opts", "labels"].iter().find(|key| is(entries, key))
    {
        return fail(format!("something external cannot have {key:?}"));
    }
    let old_name = entries[place].node.get("name").and_then(Node::scalar).filter(|name| !name.is_empty());
    if old_name.is_some() && is(entries, "name") {
        return fail("has two names: use \"name\" alone".to_owned());
    }
    let place_at = entries[place].node.at.clone();
    entries[place].node = Node::new(Value::Bool(true), place_at.clone());
    if !is(entries, "name") {
        entries.push(entry("name", text(old_name.unwrap_or_else(|| name.to_owned()), &place_at)));
    }
    Ok(())
}

/// `host:address` texts, or a mapping.
fn hosts(item: &Item<'_>) -> Result<Vec<Node>> {
    let mut lines = Vec::new();
    if is_list(item) {
        for one in unique(item)? {
            let given = as_text(&one)?;
            let pair = given.split_once('=').or_else(|| given.split_once(':'));
            lines.extend(pair.map(|(host, address)| (format!("{host}:{address}"), one.at())));
        }
    } else if item.is_map() {
        let mut seen = BTreeSet::new();
        for (key, value, _) in item.entries()? {
            if value.is_null() {
                continue;
            }
            let printed = printed(&value).ok_or_else(|| wanted(&value, "a string or a number"))?;
            seen.insert((format!("{key}:{printed}"), value.node.at.line));
        }
        lines.extend(seen.into_iter().map(|(line, _)| (line, item.at())));
    } else {
        return Err(wanted(item, "a mapping or a list"));
    }
    let bare = |line: &str| {
        let (host, address) = line.split_once(':').unwrap_or((line, ""));
        let inner = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).filter(|a| !a.is_empty());
        format!("{host}:{}", inner.unwrap_or(address))
    };
    Ok(lines.into_iter().map(|(line, at)| text(bare(&line), &at)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (nanos, expected) in [
            (0, "0s"),
            (1_500, "1.5µs"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (250_000_000, "250ms"),
            (61_001_000_000, "1m1.001s"),
        ] {
            assert_eq!(go_duration(nanos), expected);
        }
    }
}
