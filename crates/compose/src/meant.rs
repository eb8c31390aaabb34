//! Services that are meant where some are named: these, and what they need. The others are read all the same, but their files
//! of variables need not be there. Source: docker/compose `cmd/compose/compose.go`: variables are read after the choice.

use crate::tree::{Entry, Node, Value, get_mut, put};
use std::collections::BTreeSet;

/// Lets the files of variables of all others be missing; `None` = all are meant.
pub(crate) fn spare_others(tree: &mut Node, named: Option<&[String]>) {
    let Some(named) = named else { return };
    let meant = with_needed(tree, named);
    let Some(Value::Map(services)) = get_mut(tree, "services").map(|services| &mut services.value) else {
        return;
    };
    for Entry { key, node, .. } in services {
        if !meant.contains(key)
            && let Some(files) = get_mut(node, "env_file")
        {
            match &mut files.value {
                Value::Seq(files) => files.iter_mut().for_each(spare),
                _ => spare(files),
            }
        }
    }
}

fn spare(file: &mut Node) {
    if let Value::Str(path) = &file.value {
        let path = Value::Str(path.clone());
        file.value = Value::Map(Vec::new());
        put(file, "path", path);
    }
    put(file, "required", Value::Bool(false));
}

fn with_needed(tree: &Node, named: &[String]) -> BTreeSet<String> {
    let mut meant = BTreeSet::new();
    let mut open = named.to_vec();
    while let Some(key) = open.pop() {
        let service = tree.get("services").and_then(|services| services.get(&key));
        if meant.insert(key) {
            open.extend(service.map(needs).unwrap_or_default());
        }
    }
    meant
}

/// Returns the services that one cannot be without.
fn needs(service: &Node) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(Value::Map(entries)) = service.get("depends_on").map(|depends| &depends.value) {
        all.extend(entries.iter().map(|entry| entry.key.clone()));
    }
    for key in ["depends_on", "links", "volumes_from"] {
        let Some(Value::Seq(items)) = service.get(key).map(|list| &list.value) else { continue };
        let names = items.iter().filter_map(Node::scalar);
        all.extend(names.filter_map(|name| name.split(':').next().map(str::to_owned)));
    }
    for key in ["network_mode", "ipc", "pid"] {
        let mode = service.get(key).and_then(Node::scalar).unwrap_or_default();
        all.extend(mode.strip_prefix("service:").map(str::to_owned));
    }
    all
}
