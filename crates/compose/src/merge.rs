//! Several stack files become one. Source: compose specification "Merge and override".
//!
//! Mappings merge key by key, lists grow, values are replaced; commands and health tests are replaced whole;
//! what may be written as list or mapping is brought to one form first.

use crate::{
    mounts,
    tree::{Entry, Node, Tag, Value},
};

pub(crate) fn files(base: Node, over: Node) -> Node {
    merge(&mut Vec::new(), base, over)
}

/// Lays a service over the one that it extends.
pub(crate) fn service(base: Node, over: Node) -> Node {
    merge(&mut vec!["services".to_owned(), String::new()], base, over)
}

/// How the values of one key come together.
enum Rule {
    Deep,
    Replace,
    /// `A=b` lists or mappings.
    Pairs,
    /// Lists of names, or mappings by name.
    Names,
    /// As names, with a condition.
    Dependencies,
    /// Entries are known by where they appear in the container.
    ByTarget(fn(&Node) -> Option<String>),
    /// One value or a list.
    Grow,
    /// `host:address` lists or mappings.
    Hosts,
    /// Options of another driver mean nothing.
    Logging,
}

fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"] => Rule::Replace,
        ["services", _, "environment" | "labels" | "sysctls"]
        | ["services", _, "deploy", "labels"]
        | ["networks" | "volumes" | "secrets" | "configs", _, "labels"] => Rule::Pairs,
        ["services", _, "networks"] => Rule::Names,
        ["services", _, "depends_on"] => Rule::Dependencies,
        ["services", _, "volumes"] => Rule::ByTarget(mounts::target_of),
        ["services", _, "secrets" | "configs"] => Rule::ByTarget(file_target),
        ["services", _, "env_file" | "dns" | "dns_search" | "dns_opt" | "tmpfs"] => Rule::Grow,
        ["services", _, "extra_hosts"] => Rule::Hosts,
        ["services", _, "logging"] => Rule::Logging,
        _ => Rule::Deep,
    }
}

fn merge(path: &mut Vec<String>, base: Node, over: Node) -> Node {
    match over.tag {
        Tag::Merge => {}
        Tag::Reset | Tag::Override => return over,
    }
    if over.value == Value::Null {
        return base;
    }
    if base.value == Value::Null {
        return over;
    }
    match rule(path) {
        Rule::Replace => over,
        Rule::Pairs => deep(path, pairs(base), pairs(over)),
        Rule::Names => deep(path, names(base, None), names(over, None)),
        Rule::Dependencies => {
            let condition = Some("service_started");
            deep(path, names(base, condition), names(over, condition))
        }
        Rule::ByTarget(target) => by_target(base, over, target),
        Rule::Grow => grow(listed(base), listed(over)),
        Rule::Hosts => grow(hosts(base), hosts(over)),
        Rule::Logging => {
            let (old, new) = (base.get("driver").cloned(), over.get("driver").cloned());
            let same = match (&old, &new) {
                (Some(old), Some(new)) => old.value == new.value,
                _ => true,
            };
            if same { deep(path, base, over) } else { over }
        }
        Rule::Deep => deep(path, base, over),
    }
}

fn deep(path: &mut Vec<String>, base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(new)) => {
            for entry in new {
                match entries.iter_mut().find(|e| e.key == entry.key) {
                    Some(old) => {
                        path.push(entry.key.clone());
                        let place = old.node.at.clone();
                        let was = std::mem::replace(&mut old.node, Node::new(Value::Null, place));
                        old.node = merge(path, was, entry.node);
                        path.pop();
                    }
                    None => entries.push(entry),
                }
            }
            Node::new(Value::Map(entries), over.at)
        }
        (base_value @ Value::Seq(_), over_value @ Value::Seq(_)) => {
            grow(Node::new(base_value, base.at), Node::new(over_value, over.at))
        }
        (_, value) => Node::new(value, over.at),
    }
}

/// Appends what is not there yet.
fn grow(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::Seq(mut items), Value::Seq(new)) => {
            for node in new {
                if !items.iter().any(|i| same_value(i, &node)) {
                    items.push(node);
                }
            }
            Node::new(Value::Seq(items), over.at)
        }
        (_, value) => Node::new(value, over.at),
    }
}

pub(crate) fn same_value(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Seq(a), Value::Seq(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter().all(|e| b.iter().any(|f| e.key == f.key && same_value(&e.node, &f.node)))
        }
        (a, b) => a == b,
    }
}

fn by_target(base: Node, over: Node, target: fn(&Node) -> Option<String>) -> Node {
    match (base.value, over.value) {
        (Value::Seq(mut items), Value::Seq(new)) => {
            for node in new {
                let wanted = target(&node);
                match items.iter_mut().find(|i| wanted.is_some() && target(i) == wanted) {
                    Some(old) => *old = node,
                    None => items.push(node),
                }
            }
            Node::new(Value::Seq(items), over.at)
        }
        (_, value) => Node::new(value, over.at),
    }
}

/// Returns under which name a secret or config appears in the container.
fn file_target(node: &Node) -> Option<String> {
    node.scalar().or_else(|| node.get("target").or_else(|| node.get("source")).and_then(Node::scalar))
}

fn listed(node: Node) -> Node {
    match node.value {
        Value::Seq(_) => node,
        _ => {
            let at = node.at.clone();
            Node::new(Value::Seq(vec![node]), at)
        }
    }
}

/// `["A=b"]` becomes `{A: b}`.
fn pairs(node: Node) -> Node {
    let Value::Seq(items) = node.value else { return node };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(text) = item.scalar() else { continue };
        let at = item.at.clone();
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Value::Str(value.to_owned())),
            None => (text, Value::Null),
        };
        entries.retain(|e| e.key != key);
        entries.push(Entry { key, at: at.clone(), node: Node::new(value, at) });
    }
    Node::new(Value::Map(entries), node.at)
}

/// `[a, b]` becomes `{a:, b:}`.
fn names(node: Node, condition: Option<&str>) -> Node {
    let Value::Seq(items) = node.value else { return node };
    let entries = items
        .into_iter()
        .filter_map(|item| {
            let key = item.scalar()?;
            let at = item.at.clone();
            let value = match condition {
                None => Value::Null,
                Some(condition) => Value::Map(vec![Entry {
                    key: "condition".to_owned(),
                    at: at.clone(),
                    node: Node::new(Value::Str(condition.to_owned()), at.clone()),
                }]),
            };
            Some(Entry { key, at: at.clone(), node: Node::new(value, at) })
        })
        .collect();
    Node::new(Value::Map(entries), node.at)
}

/// `{host: address}` becomes `["host=address"]`.
fn hosts(node: Node) -> Node {
    let Value::Map(entries) = node.value else { return node };
    let items = entries
        .into_iter()
        .flat_map(|e| {
            let key = e.key;
            let addresses = match listed(e.node).value {
                Value::Seq(items) => items,
                _ => Vec::new(),
            };
            addresses.into_iter().filter_map(move |a| {
                let text = format!("{key}={}", a.scalar()?);
                Some(Node::new(Value::Str(text), a.at))
            })
        })
        .collect();
    Node::new(Value::Seq(items), node.at)
}
