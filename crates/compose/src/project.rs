//! One tree from a stack file and those it names: `include`, `extends`, several files. Source: compose specification
//! "Include", "extends", "Merge and override".

use crate::{
    Error, interpolate, merge,
    read::{Item, Reader, optional},
    rebase,
    tree::{self, Entry, Node, Tag, Value},
};
use std::path::{Path, PathBuf};

/// How deep files may name files.
const DEPTH_MAX: usize = 16;

/// Where relative paths of a file begin, and which files led to it.
struct Place<'a> {
    dir: &'a Path,
    trail: &'a [PathBuf],
}

/// Reads the caller's files, each laid over those before it.
pub(crate) fn load(files: &[(PathBuf, String)], read: &Reader<'_>) -> Result<Node, Error> {
    let mut merged: Option<Node> = None;
    for (path, text) in files {
        let place = Place { dir: read.project_dir(), trail: std::slice::from_ref(path) };
        let tree = file(path, text, &place, read)?;
        merged = Some(match merged {
            Some(base) => merge::files(base, tree),
            None => tree,
        });
    }
    let mut tree = merged.ok_or(Error::NoFiles)?;
    without_resets(&mut tree);
    Ok(tree)
}

fn parsed(path: &Path, text: &str, read: &Reader<'_>) -> Result<Node, Error> {
    // Documents are as files, one over the other. Source: docker/compose.
    let mut merged: Option<Node> = None;
    for mut tree in tree::parse(path, text)? {
        if !read.keeps_variables() {
            interpolate::tree(&mut tree, read)?;
        }
        merged = Some(match merged {
            Some(base) => merge::files(base, tree),
            None => tree,
        });
    }
    merged.ok_or(Error::NoFiles)
}

fn file(path: &Path, text: &str, place: &Place<'_>, read: &Reader<'_>) -> Result<Node, Error> {
    let mut tree = parsed(path, text, read)?;
    extend_services(&mut tree, path, place, read)?;
    let includes = take(&mut tree, "include");
    if let Some(includes) = includes {
        let root = Item { node: &includes, path: "include".to_owned() };
        for item in root.items()? {
            let included = include(&item, place, read)?;
            join(&mut tree, included)?;
        }
    }
    Ok(tree)
}

fn take(tree: &mut Node, key: &str) -> Option<Node> {
    let Value::Map(entries) = &mut tree.value else { return None };
    let at = entries.iter().position(|e| e.key == key)?;
    Some(entries.remove(at).node)
}

/// One entry of `include`: a path, or paths with a folder and variables of their own.
fn include(item: &Item<'_>, place: &Place<'_>, read: &Reader<'_>) -> Result<Node, Error> {
    let mut paths = Vec::new();
    let mut folder = None;
    let mut own = None;
    if item.is_map() {
        item.only(&["path", "project_directory", "env_file"], &[])?;
        let list = item.get("path").ok_or_else(|| item.invalid("want a \"path\" to include"))?;
        paths.extend(list.items_or_one()?);
        folder = optional(item.get("project_directory"), Item::string)?.map(|f| place.dir.join(f));
        if let Some(files) = item.get("env_file") {
            let files = files.items_or_one()?;
            let pairs =
                files.iter().map(|f| read.env_file_in(f, place.dir)).collect::<Result<Vec<_>, _>>()?;
            own = Some(pairs.into_iter().flatten().collect());
        }
    } else {
        paths.push(item.clone());
    }
    let mut tree: Option<Node> = None;
    for path in &paths {
        let named = read.named(path, place.dir)?;
        let text = text_of(path, &named, place, read)?;
        let dir = folder.clone().or_else(|| named.parent().map(Path::to_path_buf)).unwrap_or_default();
        let mut trail = place.trail.to_vec();
        trail.push(named.clone());
        let read = match &own {
            Some(own) => &read.with_defaults(own),
            // The folder's own `.env` gives what nobody has set.
            None => &read.with_folder(&dir)?,
        };
        let mut next = file(&named, &text, &Place { dir: &dir, trail: &trail }, read)?;
        rebase::file(&mut next, &dir, read);
        read.note_included(&next);
        tree = Some(match tree {
            Some(base) => merge::files(base, next),
            None => next,
        });
    }
    tree.ok_or_else(|| item.invalid("want a \"path\" to include"))
}

/// Reads a file that another one names, unless that goes round in a circle.
fn text_of(item: &Item<'_>, path: &Path, place: &Place<'_>, read: &Reader<'_>) -> Result<String, Error> {
    let known = |p: &PathBuf| crate::read::clean(&read.project_dir().join(p)) == path;
    if place.trail.iter().any(known) || place.trail.len() > DEPTH_MAX {
        let trail = place.trail.iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        return Err(item.invalid(format!(
            "files name each other in a circle: {} -> {}",
            trail.join(" -> "),
            path.display()
        )));
    }
    let bytes = read.file_at(item, path)?;
    String::from_utf8(bytes).map_err(|_| item.invalid(format!("{} is not UTF-8", path.display())))
}

/// Adds what an included file defines; what is there already must be the same.
fn join(tree: &mut Node, included: Node) -> Result<(), Error> {
    let (Value::Map(sections), Value::Map(new)) = (&mut tree.value, included.value) else { return Ok(()) };
    for section in new {
        let named = matches!(
            section.key.as_str(),
            "services" | "networks" | "volumes" | "secrets" | "configs" | "models"
        );
        let Some(there) = sections.iter_mut().find(|s| s.key == section.key) else {
            if named {
                sections.push(section);
            }
            continue;
        };
        let (Value::Map(known), Value::Map(more)) = (&mut there.node.value, section.node.value) else {
            continue;
        };
        for entry in more.into_iter().filter(|_| named) {
            match known.iter().find(|k| k.key == entry.key) {
                None => known.push(entry),
                Some(old) if merge::same_value(&old.node, &entry.node) => {}
                Some(old) => {
                    let text = format!("an included file defines it too, and differently: {}", entry.at);
                    let path = format!("{}.{}", section.key, entry.key);
                    return Err(Error::Invalid { at: old.at.clone(), path, text });
                }
            }
        }
    }
    Ok(())
}

/// Brings into each service what it extends.
fn extend_services(tree: &mut Node, path: &Path, place: &Place<'_>, read: &Reader<'_>) -> Result<(), Error> {
    let Some(Node { value: Value::Map(services), .. }) = tree.get("services") else { return Ok(()) };
    let names: Vec<String> =
        services.iter().filter(|s| s.node.get("extends").is_some()).map(|s| s.key.clone()).collect();
    let mut whole = Vec::new();
    for name in names {
        let root = Item::root(tree);
        let from = root.get("services").unwrap_or(root);
        whole.push((name.clone(), service(tree, path, place.dir, &from, &name, &mut Vec::new(), read)?));
    }
    let Value::Map(sections) = &mut tree.value else { return Ok(()) };
    for section in sections.iter_mut().filter(|s| s.key == "services") {
        let Value::Map(services) = &mut section.node.value else { continue };
        for (name, node) in whole.drain(..) {
            services.iter_mut().filter(|s| s.key == name).for_each(|s| s.node = node.clone());
        }
    }
    Ok(())
}

/// Returns a service with all that it extends in it.
fn service(
    tree: &Node,
    path: &Path,
    dir: &Path,
    asked: &Item<'_>,
    name: &str,
    trail: &mut Vec<(PathBuf, String)>,
    read: &Reader<'_>,
) -> Result<Node, Error> {
    let services = tree.get("services");
    let Some(own) = services.and_then(|s| s.get(name)) else {
        let known: Vec<&str> = match services.map(|s| &s.value) {
            Some(Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
            _ => Vec::new(),
        };
        return Err(Error::Undefined {
            at: asked.at(),
            path: asked.path.clone(),
            kind: "service",
            name: name.to_owned(),
            suggestion: crate::error::suggest(name, known),
        });
    };
    let item = Item { node: own, path: format!("services.{name}") };
    let Some(extends) = item.get("extends") else { return Ok(own.clone()) };
    let step = (path.to_owned(), name.to_owned());
    trail.push(step.clone());
    if trail.iter().filter(|t| **t == step).count() > 1 {
        let names: Vec<&str> = trail.iter().map(|(_, name)| name.as_str()).collect();
        return Err(
            extends.invalid(format!("services extend each other in a circle: {}", names.join(" -> ")))
        );
    }
    let (wanted, file) = if extends.is_map() {
        extends.only(&["service", "file"], &[])?;
        let service =
            extends.get("service").ok_or_else(|| extends.invalid("want a \"service\" to extend"))?;
        (service.string()?, extends.get("file"))
    } else {
        (extends.string()?, None)
    };
    let base = match file {
        None => service(tree, path, dir, &extends, &wanted, trail, read)?,
        Some(file) => {
            let named = read.named(&file, dir)?;
            let bytes = read.file_at(&file, &named)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| file.invalid(format!("{} is not UTF-8", named.display())))?;
            let other = parsed(&named, &text, read)?;
            let folder = named.parent().unwrap_or(Path::new("/")).to_path_buf();
            let mut base = service(&other, &named, &folder, &extends, &wanted, trail, read)?;
            if folder != dir {
                rebase::service(&mut base, &folder, read);
            }
            base
        }
    };
    trail.pop();
    let mut own = own.clone();
    take(&mut own, "extends");
    Ok(merge::service(base, own))
}

/// Takes out what a file wants gone.
fn without_resets(node: &mut Node) {
    match &mut node.value {
        Value::Map(entries) => {
            entries.retain(|e: &Entry| e.node.tag != Tag::Reset);
            entries.iter_mut().for_each(|e| without_resets(&mut e.node));
        }
        Value::Seq(items) => {
            items.retain(|i| i.tag != Tag::Reset);
            items.iter_mut().for_each(without_resets);
        }
        _ => {}
    }
}
