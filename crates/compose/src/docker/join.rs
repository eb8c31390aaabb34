//! Two files in long form become one. Source: docker/cli `cli/compose/loader/merge.go`.
//!
//! Sections are joined by name, services key by key. Lists grow, health tests too; commands are replaced; ports,
//! mounts and references are known by one of their keys, and sorted by it.

use super::schema::{FILE, SERVICE, Shape, Struct};
use crate::tree::{Entry, Node, Value};

/// Joins a later file to those before it.
pub(super) fn files(base: Node, over: Node) -> Node {
    let (at, mut entries) = taken(base);
    for mut section in taken(over).1 {
        if section.key.starts_with("x-") {
            continue;
        }
        let services = section.key == "services";
        match entries.iter_mut().find(|e| e.key == section.key) {
            None if FILE.fields.iter().any(|f| f.key == section.key) => entries.push(section),
            None => {}
            Some(there) => {
                let definitions = taken(std::mem::replace(&mut section.node, nothing(&at))).1;
                let Value::Map(known) = &mut there.node.value else { continue };
                for definition in definitions {
                    match known.iter_mut().find(|e| e.key == definition.key) {
                        None => known.push(definition),
                        Some(old) if services => {
                            let base = std::mem::replace(&mut old.node, nothing(&at));
                            old.node = of_struct(base, definition.node, &SERVICE);
                        }
                        Some(old) => old.node = definition.node,
                    }
                }
            }
        }
    }
    Node::new(Value::Map(entries), at)
}

fn nothing(at: &crate::At) -> Node {
    Node::new(Value::Null, at.clone())
}

fn taken(node: Node) -> (crate::At, Vec<Entry>) {
    match node.value {
        Value::Map(entries) => (node.at, entries),
        _ => (node.at, Vec::new()),
    }
}

fn of_struct(base: Node, over: Node, form: &Struct) -> Node {
    let (at, base) = taken(base);
    let mut over = taken(over).1;
    let mut joined: Vec<Entry> = Vec::new();
    for Entry { key, at: key_at, node } in base {
        let shape = form.fields.iter().find(|f| f.key == key).map(|f| f.shape);
        let other = over.iter().position(|e| e.key == key).map(|place| over.remove(place).node);
        let node = match (other, shape) {
            (Some(other), Some(shape)) => of(node, other, shape),
            (Some(other), None) => other,
            // These are sorted, and known by their key, also when the later file says nothing.
            (None, Some(shape)) => known_by(shape).map_or(node.clone(), |key| by(&node, None, key)),
            (None, None) => node,
        };
        joined.push(Entry { key, at: key_at, node });
    }
    joined.extend(over);
    Node::new(Value::Map(joined), at)
}

fn known_by(shape: Shape) -> Option<&'static str> {
    match shape {
        Shape::Ports => Some("published"),
        Shape::Volumes => Some("target"),
        Shape::References => Some("source"),
        _ => None,
    }
}

fn of(base: Node, over: Node, shape: Shape) -> Node {
    match shape {
        Shape::Texts
        | Shape::TextsMayRepeat
        | Shape::TextOrTexts
        | Shape::HealthTest
        | Shape::Expose
        | Shape::Hosts
        | Shape::List(_) => match (base.value, over.value) {
            (Value::Seq(mut items), Value::Seq(more)) => {
                items.extend(more);
                Node::new(Value::Seq(items), base.at)
            }
            (_, more) => Node::new(more, over.at),
        },
        // False and zero do not win over something.
        Shape::Choice if over.value == Value::Bool(false) => base,
        Shape::Duration { .. } if over.value == Value::Str("0s".to_owned()) => base,
        Shape::Pairs { null: false } | Shape::Values { .. } | Shape::Ulimits => {
            named(base, over, |_, over| over)
        }
        Shape::Pairs { null: true } => named(base, over, |base, over| {
            let empty = over.value == Value::Null || over.value == Value::Str(String::new());
            let keeps = empty && (base.value != Value::Null || over.value == Value::Null);
            if keeps { base } else { over }
        }),
        Shape::Attachments => named(base, over, attachment),
        Shape::Struct(form) if std::ptr::eq(form, &raw const super::schema::LOGGING) => logging(base, over),
        Shape::Struct(form) => of_struct(base, over, form),
        Shape::Build => of_struct(base, over, &super::schema::BUILD),
        Shape::Ports | Shape::Volumes | Shape::References => {
            by(&base, Some(&over), known_by(shape).unwrap_or_default())
        }
        _ => over,
    }
}

fn named(base: Node, over: Node, join: impl Fn(Node, Node) -> Node) -> Node {
    let (at, mut entries) = taken(base);
    for new in taken(over).1 {
        match entries.iter_mut().find(|e| e.key == new.key) {
            None => entries.push(new),
            Some(old) => {
                let base = std::mem::replace(&mut old.node, nothing(&at));
                old.node = join(base, new.node);
            }
        }
    }
    Node::new(Value::Map(entries), at)
}

fn attachment(base: Node, over: Node) -> Node {
    if over.value == Value::Null {
        return base;
    }
    if base.value == Value::Null {
        return over;
    }
    let (at, mut entries) = taken(base);
    entries.retain(|e| e.key != "aliases");
    for new in taken(over).1.into_iter().filter(|e| e.key != "driver_opts") {
        entries.retain(|e| e.key != new.key);
        entries.push(new);
    }
    Node::new(Value::Map(entries), at)
}

/// Options of another driver mean nothing; and where there were none before, docker/cli loses the new ones.
fn logging(base: Node, over: Node) -> Node {
    let driver = |node: &Node| node.get("driver").and_then(Node::scalar).unwrap_or_default();
    let (old, new) = (driver(&base), driver(&over));
    if old != new && !old.is_empty() && !new.is_empty() {
        return over;
    }
    let (at, mut entries) = taken(base);
    for more in taken(over).1 {
        match (more.key.as_str(), entries.iter_mut().find(|e| e.key == more.key)) {
            ("driver", None) => entries.push(more),
            ("options", Some(options)) => {
                let base = std::mem::replace(&mut options.node, nothing(&at));
                options.node = named(base, more.node, |_, over| over);
            }
            _ => {}
        }
    }
    Node::new(Value::Map(entries), at)
}

/// Joins lists whose items are known by one of their keys; a later one replaces an earlier one.
fn by(base: &Node, over: Option<&Node>, key: &str) -> Node {
    let mut all: Vec<Node> = Vec::new();
    let value = |node: &Node| node.get(key).map_or(Value::Null, |n| n.value.clone());
    for list in std::iter::once(base).chain(over) {
        let Value::Seq(items) = &list.value else { continue };
        for item in items {
            all.retain(|there| value(there) != value(item));
            all.push(item.clone());
        }
    }
    all.sort_by_key(|item| match value(item) {
        Value::Int(number) => (number, String::new()),
        Value::Str(text) => (0, text),
        _ => (0, String::new()),
    });
    Node::new(Value::Seq(all), base.at.clone())
}
