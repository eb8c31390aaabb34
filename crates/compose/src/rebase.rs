//! Relative paths of a file that another one names begin at its own folder: here they become absolute.

use crate::{
    read::Reader,
    tree::{Node, Value},
};
use std::path::Path;

/// All services, secrets and configs of an included file.
pub(crate) fn file(tree: &mut Node, dir: &Path, read: &Reader<'_>) {
    each(tree, |section, node| match section {
        "services" => each(node, |_, node| service(node, dir, read)),
        "secrets" | "configs" => each(node, |_, node| at(node, "file", &|text| path(text, dir, read))),
        _ => {}
    });
}

/// A service that was taken from another file.
pub(crate) fn service(node: &mut Node, dir: &Path, read: &Reader<'_>) {
    let absolute = |text: &mut String| path(text, dir, read);
    let context = |text: &mut String| {
        if !is_remote(text) {
            path(text, dir, read);
        }
    };
    each(node, |key, node| match key {
        "build" => {
            scalar(node, &context);
            at(node, "context", &context);
        }
        "env_file" | "label_file" => one_or_all(node, &|node| {
            scalar(node, &absolute);
            at(node, "path", &absolute);
        }),
        "volumes" => one_or_all(node, &|node| {
            scalar(node, &|text| {
                if text.starts_with('.')
                    && let Some((source, rest)) = text.split_once(':')
                {
                    let mut source = source.to_owned();
                    path(&mut source, dir, read);
                    *text = format!("{source}:{rest}");
                }
            });
            if node.get("type").and_then(Node::scalar).as_deref() == Some("bind") {
                at(node, "source", &absolute);
            }
        }),
        _ => {}
    });
}

/// A repository or an archive somewhere else.
pub(crate) fn is_remote(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
}

fn path(text: &mut String, dir: &Path, read: &Reader<'_>) {
    if !text.starts_with(['/', '~']) && !text.is_empty() {
        *text = read.path_in(dir, text).display().to_string();
    }
}

fn each(node: &mut Node, mut change: impl FnMut(&str, &mut Node)) {
    if let Value::Map(entries) = &mut node.value {
        entries.iter_mut().for_each(|e| change(&e.key, &mut e.node));
    }
}

fn at(node: &mut Node, key: &str, change: &dyn Fn(&mut String)) {
    each(node, |k, node| {
        if k == key {
            scalar(node, change);
        }
    });
}

fn scalar(node: &mut Node, change: &dyn Fn(&mut String)) {
    if let Value::Str(text) = &mut node.value {
        change(text);
    }
}

fn one_or_all(node: &mut Node, change: &dyn Fn(&mut Node)) {
    match &mut node.value {
        Value::Seq(items) => items.iter_mut().for_each(change),
        _ => change(node),
    }
}
