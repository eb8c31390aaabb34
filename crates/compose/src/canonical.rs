//! A project as `docker compose config` shows it: one tree, in long forms, with what the files only imply written out.
//!
//! Nothing is judged here: a service without an image, or a name that means nothing, is shown as it is. Source:
//! compose-go `loader/normalize.go`, `transform`.
//!
//! *Start reading at* [`document`].

use crate::{
    Error, Files, Sources, Warning, dotenv,
    interpolate::{self, Variable},
    meant, project,
    read::{Item, Reader, optional},
    rebase, stack,
    tree::{self, Entry, Node, Value, get_mut, put},
    units, yaml,
};
use std::collections::{BTreeMap, BTreeSet};

/// How a project is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form {
    /// Variables stay as they are written.
    pub raw: bool,
    /// Nothing is written out that the files only imply.
    pub as_written: bool,
    /// Paths stay as they are written.
    pub keep_paths: bool,
    /// What `env_file` names is not read: it stays beside `environment`.
    pub keep_env_files: bool,
}

/// A project's files as one tree.
#[derive(Debug, Clone)]
pub struct Document {
    tree: Node,
    /// Variables stay as they are written, and sections in the order of their names.
    raw: bool,
}

/// Sections in the order in which Docker Compose prints them.
const SECTIONS: &[&str] = &["name", "services", "networks", "volumes", "secrets", "configs", "models"];

/// Reads a project's files, without a judgement.
///
/// # Errors
/// A file cannot be read, or is no YAML.
pub fn document(sources: &Sources, files: &dyn Files, form: Form) -> Result<(Document, Vec<Warning>), Error> {
    let env = crate::variables(sources, files)?;
    let mut read = Reader::new(sources, files, env);
    read.keep_variables(form.raw);
    let mut tree = project::load(&sources.files, &read)?;
    meant::spare_others(&mut tree, sources.meant.as_deref());
    // A disabled service that another one needs is shown as missing, not refused.
    if !form.raw {
        stack::without_profiles(&mut tree, &sources.profiles, false)?;
    }
    let name = stack::stack_name(&Item::root(&tree), sources)?;
    put(&mut tree, "name", Value::Str(name.clone()));
    remove(&mut tree, "version");
    if !form.as_written {
        normalize(&mut tree, &name, &Shown { read: &read, form })?;
    }
    Ok((Document { tree, raw: form.raw }, read.into_warnings()))
}

/// Returns the variables that a project's files mention, by name.
///
/// # Errors
/// A file cannot be read, or is no YAML.
pub fn mentioned(sources: &Sources) -> Result<BTreeMap<String, Variable>, Error> {
    let mut all = BTreeMap::new();
    for (path, text) in &sources.files {
        for tree in tree::parse(path, text)? {
            interpolate::mentioned(&tree, &mut all);
        }
    }
    Ok(all)
}

/// Returns the variables that files are read with: those of `.env` or of the files that the caller names, and over them
/// the caller's own.
///
/// # Errors
/// A file of variables cannot be read.
pub fn variables(sources: &Sources, files: &dyn Files) -> Result<BTreeMap<String, String>, Error> {
    let mut env = dotenv::read_default(sources, files)?;
    env.extend(sources.env.clone());
    Ok(env)
}

impl Document {
    /// Returns it as YAML: sections in Docker Compose's order, keys in order.
    pub fn to_yaml(&self) -> String {
        let Value::Map(entries) = &self.tree.value else { return String::new() };
        let mut entries: Vec<&Entry> = entries.iter().collect();
        let place = |key: &str| SECTIONS.iter().position(|s| *s == key).unwrap_or(SECTIONS.len());
        entries.sort_by(|a, b| {
            let by_name = a.key.cmp(&b.key);
            let by_place = if self.raw {
                (a.key != "name").cmp(&(b.key != "name"))
            } else {
                place(&a.key).cmp(&place(&b.key))
            };
            by_place.then(by_name)
        });
        let one = |entry: &Entry| {
            let map = Value::Map(vec![entry.clone()]);
            yaml::write(&Node::new(map, self.tree.at.clone()))
        };
        entries.into_iter().map(one).collect()
    }

    /// Returns it as data.
    pub fn data(&self) -> impl serde::Serialize + '_ {
        &self.tree
    }

    /// Returns the keys of a section: `services`, `networks`, `volumes`, `models`.
    pub fn keys(&self, section: &str) -> BTreeSet<&str> {
        match self.tree.get(section).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Returns what one service says, in bytes that are the same for the same words.
    pub fn service(&self, key: &str) -> Option<String> {
        Some(yaml::write(self.tree.get("services")?.get(key)?))
    }

    /// Returns one value of each entry of a section that has it, e.g. the models of `models`.
    pub fn values(&self, section: &str, key: &str) -> BTreeSet<String> {
        match self.tree.get(section).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.iter().filter_map(|e| e.node.get(key)?.scalar()).collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Gives services other images.
    pub fn put_images(&mut self, images: &BTreeMap<String, String>) {
        let Some(Node { value: Value::Map(services), .. }) = get_mut(&mut self.tree, "services") else {
            return;
        };
        for entry in services {
            if let Some(image) = images.get(&entry.key) {
                put(&mut entry.node, "image", text(image.clone()));
            }
        }
    }

    /// Keeps of everything the images of services alone: what pins them when it is laid over the file.
    pub fn keep_images(&mut self) {
        if let Value::Map(sections) = &mut self.tree.value {
            sections.retain(|section| section.key == "services");
        }
        let Some(Node { value: Value::Map(services), .. }) = get_mut(&mut self.tree, "services") else {
            return;
        };
        for entry in services.iter_mut() {
            if let Value::Map(keys) = &mut entry.node.value {
                keys.retain(|key| key.key == "image");
            }
        }
        services.retain(|entry| entry.node.get("image").is_some());
    }

    /// Keeps these services alone.
    pub fn keep_services(&mut self, keys: &[String]) {
        if let Some(services) = get_mut(&mut self.tree, "services")
            && let Value::Map(entries) = &mut services.value
        {
            entries.retain(|entry| keys.contains(&entry.key));
        }
    }
}

fn remove(node: &mut Node, key: &str) {
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|e| e.key != key);
    }
}

fn put_if_missing(node: &mut Node, key: &str, value: Value) {
    if node.get(key).is_none() {
        put(node, key, value);
    }
}

/// Does to each entry of a mapping.
fn each(node: &mut Node, mut change: impl FnMut(&str, &mut Node) -> Result<(), Error>) -> Result<(), Error> {
    match &mut node.value {
        Value::Map(entries) => entries
            .iter_mut()
            .filter(|e| !e.key.starts_with("x-"))
            .try_for_each(|e| change(&e.key, &mut e.node)),
        _ => Ok(()),
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::Str(text.into())
}

/// What the written-out form depends on besides the files.
struct Shown<'a> {
    read: &'a Reader<'a>,
    form: Form,
}

impl Shown<'_> {
    /// Makes a path absolute. One that begins with a variable may be so.
    fn absolute(&self, node: &mut Node) {
        if let Value::Str(path) = &mut node.value
            && !path.starts_with('$')
        {
            *path = self.path(path);
        }
    }

    fn path(&self, path: &str) -> String {
        if self.form.keep_paths { path.to_owned() } else { self.read.path(path).display().to_string() }
    }
}

fn normalize(tree: &mut Node, project: &str, shown: &Shown<'_>) -> Result<(), Error> {
    let mut with_default = false;
    if let Some(services) = get_mut(tree, "services") {
        each(services, |_, node| {
            service(node, shown)?;
            with_default |= node.get("networks").is_some_and(|n| n.get("default").is_some());
            Ok(())
        })?;
    }
    if with_default {
        put_if_missing(tree, "networks", Value::Map(Vec::new()));
        if let Some(networks) = get_mut(tree, "networks") {
            put_if_missing(networks, "default", Value::Null);
        }
    }
    for section in ["networks", "volumes", "secrets", "configs"] {
        let Some(definitions) = get_mut(tree, section) else { continue };
        each(definitions, |key, node| {
            let external = node.get("external").is_some_and(|e| e.value != Value::Bool(false));
            let name = if external { key.to_owned() } else { format!("{project}_{key}") };
            put_if_missing(node, "name", text(name));
            if let Some(file) = get_mut(node, "file") {
                shown.absolute(file);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn service(node: &mut Node, shown: &Shown<'_>) -> Result<(), Error> {
    if let Some(build) = get_mut(node, "build") {
        self::build(build, shown);
    }
    if let Some(networks) = get_mut(node, "networks") {
        names_as_mapping(networks, || Value::Null);
    } else if node.get("network_mode").is_none() && node.get("provider").is_none() {
        let at = node.at.clone();
        let default = Entry { key: "default".to_owned(), at: at.clone(), node: Node::new(Value::Null, at) };
        put(node, "networks", Value::Map(vec![default]));
    }
    for key in ["command", "entrypoint"] {
        let Some(command) = get_mut(node, key) else { continue };
        if let Value::Str(line) = &command.value
            && let Some(words) = units::shell_words(line, false)
        {
            let at = command.at.clone();
            command.value = Value::Seq(words.into_iter().map(|w| Node::new(text(w), at.clone())).collect());
        }
    }
    environment(node, shown)?;
    for key in ["labels", "annotations", "sysctls", "extra_hosts"] {
        if let Some(list) = get_mut(node, key).filter(|_| key != "extra_hosts") {
            pairs_as_mapping(list);
        }
    }
    labels_of_files(node, shown)?;
    if let Some(Value::Seq(rules)) =
        get_mut(node, "develop").and_then(|develop| get_mut(develop, "watch")).map(|rules| &mut rules.value)
    {
        rules.iter_mut().filter_map(|rule| get_mut(rule, "path")).for_each(|path| shown.absolute(path));
    }
    if let Some(depends) = get_mut(node, "depends_on") {
        names_as_mapping(depends, || Value::Map(Vec::new()));
        each(depends, |_, entry| {
            put_if_missing(entry, "condition", text("service_started"));
            put_if_missing(entry, "required", Value::Bool(true));
            Ok(())
        })?;
    }
    if let Some(ports) = get_mut(node, "ports") {
        long_ports(ports);
    }
    if let Some(Value::Seq(volumes)) = get_mut(node, "volumes").map(|v| &mut v.value) {
        volumes.iter_mut().for_each(|volume| long_volume(volume, shown));
    }
    for key in ["secrets", "configs"] {
        let Some(Value::Seq(items)) = get_mut(node, key).map(|v| &mut v.value) else { continue };
        for item in items {
            if let Value::Str(source) = &item.value {
                let source = text(source.clone());
                item.value = Value::Map(Vec::new());
                put(item, "source", source);
            }
        }
    }
    Ok(())
}

fn build(node: &mut Node, shown: &Shown<'_>) {
    if let Value::Str(context) = &node.value {
        let context = text(context.clone());
        node.value = Value::Map(Vec::new());
        put(node, "context", context);
    }
    put_if_missing(node, "context", text("."));
    if let Some(context) = get_mut(node, "context")
        && !context.scalar().is_some_and(|c| rebase::is_remote(&c))
    {
        shown.absolute(context);
    }
    if node.get("dockerfile_inline").is_none() {
        put_if_missing(node, "dockerfile", text("Dockerfile"));
    }
    if let Some(args) = get_mut(node, "args") {
        pairs_as_mapping(args);
    }
    if let Some(labels) = get_mut(node, "labels") {
        pairs_as_mapping(labels);
    }
}

/// `[a, b]` as `{a: .., b: ..}`.
fn names_as_mapping(node: &mut Node, value: impl Fn() -> Value) {
    if let Value::Seq(items) = &node.value {
        let entry = |item: &Node| {
            let node = Node::new(value(), item.at.clone());
            Some(Entry { key: item.scalar()?, at: item.at.clone(), node })
        };
        node.value = Value::Map(items.iter().filter_map(entry).collect());
    }
}

/// `[A=1, B]` as `{A: "1", B: null}`.
fn pairs_as_mapping(node: &mut Node) {
    if let Value::Seq(items) = &node.value {
        let entry = |item: &Node| {
            let line = item.scalar()?;
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key.to_owned(), text(value)),
                None => (line, Value::Null),
            };
            Some(Entry { key, at: item.at.clone(), node: Node::new(value, item.at.clone()) })
        };
        node.value = Value::Map(items.iter().filter_map(entry).collect());
    }
}

/// `env_file` and `environment` as one mapping; a bare name has the caller's value.
fn environment(node: &mut Node, shown: &Shown<'_>) -> Result<(), Error> {
    let Shown { read, form } = shown;
    if form.keep_env_files {
        if let Some(files) = get_mut(node, "env_file") {
            long_env_files(files, shown);
        }
        if let Some(environment) = get_mut(node, "environment") {
            pairs_as_mapping(environment);
        }
        return Ok(());
    }
    if read.keeps_variables() {
        return Ok(());
    }
    let mut all: BTreeMap<String, Node> = BTreeMap::new();
    let own = |name: &str| read.env(name).map_or(Value::Null, text);
    let service = Item::root(node);
    if let Some(files) = service.get("env_file") {
        for file in files.items_or_one()? {
            for (name, value) in read.variables_of(&file)? {
                let value = value.map_or_else(|| own(&name), text);
                all.insert(name, Node::new(value, file.at()));
            }
        }
    }
    for (name, value) in optional(service.get("environment"), Item::pairs)?.unwrap_or_default() {
        let value = value.map_or_else(|| own(&name), text);
        all.insert(name, Node::new(value, node.at.clone()));
    }
    remove(node, "env_file");
    if !all.is_empty() {
        let at = node.at.clone();
        let entries = all.into_iter().map(|(key, node)| Entry { key, at: at.clone(), node });
        put(node, "environment", Value::Map(entries.collect()));
    }
    Ok(())
}

/// Files of variables in words: what is not said of one is that it has to be there.
fn long_env_files(node: &mut Node, shown: &Shown<'_>) {
    let alone = Node::new(Value::Seq(Vec::new()), node.at.clone());
    if !matches!(node.value, Value::Seq(_)) {
        let file = std::mem::replace(node, alone);
        node.value = Value::Seq(vec![file]);
    }
    let Value::Seq(files) = &mut node.value else { return };
    for file in files {
        if let Value::Str(path) = &file.value {
            let path = text(path.clone());
            file.value = Value::Map(Vec::new());
            put(file, "path", path);
        }
        if let Some(path) = get_mut(file, "path") {
            shown.absolute(path);
        }
        put_if_missing(file, "required", Value::Bool(true));
    }
}

/// What stands in the files of labels, below what `labels` says itself.
fn labels_of_files(node: &mut Node, shown: &Shown<'_>) -> Result<(), Error> {
    if shown.read.keeps_variables() {
        return Ok(());
    }
    let mut all: BTreeMap<String, Node> = BTreeMap::new();
    let service = Item::root(node);
    let Some(files) = service.get("label_file") else { return Ok(()) };
    for file in files.items_or_one()? {
        for (name, value) in shown.read.env_file(&file, &file.string()?, true)? {
            all.insert(name, Node::new(text(value.unwrap_or_default()), file.at()));
        }
    }
    for (name, value) in optional(service.get("labels"), Item::pairs)?.unwrap_or_default() {
        all.insert(name, Node::new(text(value.unwrap_or_default()), node.at.clone()));
    }
    remove(node, "label_file");
    let at = node.at.clone();
    let entries = all.into_iter().map(|(key, node)| Entry { key, at: at.clone(), node });
    put(node, "labels", Value::Map(entries.collect()));
    Ok(())
}

/// `[[IP:]PUBLISHED:]TARGET[/PROTOCOL]` in words; what is not so simple stays as it is.
fn long_ports(node: &mut Node) {
    let Value::Seq(items) = &mut node.value else { return };
    let mut all = Vec::new();
    for item in items.drain(..) {
        let parts = if item.kind() == "a mapping" { None } else { Item::root(&item).host_ports().ok() };
        let Some(ports) = parts else {
            all.push(item);
            continue;
        };
        for port in ports {
            let mut long = Node::new(Value::Map(Vec::new()), item.at.clone());
            put(&mut long, "mode", text("ingress"));
            if let Some(ip) = port.ip {
                put(&mut long, "host_ip", text(ip.to_string()));
            }
            put(&mut long, "target", Value::Int(port.target.into()));
            if !port.published.is_empty() {
                put(&mut long, "published", text(port.published));
            }
            put(&mut long, "protocol", text(port.protocol));
            all.push(long);
        }
    }
    *items = all;
}

/// `[SOURCE:]TARGET[:MODE]` in words.
fn long_volume(node: &mut Node, shown: &Shown<'_>) {
    if node.get("type").and_then(Node::scalar).as_deref() == Some("bind")
        && let Some(source) = get_mut(node, "source")
    {
        shown.absolute(source);
    }
    let Value::Str(line) = &node.value else { return };
    // A variable may have colons in it.
    if line.contains("${") {
        return;
    }
    let line = line.clone();
    let parts: Vec<&str> = line.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return,
    };
    let is_path = source.is_some_and(|s| s.starts_with(['/', '.', '~']));
    node.value = Value::Map(Vec::new());
    put(node, "type", text(if is_path { "bind" } else { "volume" }));
    if let Some(source) = source {
        let source = if is_path { shown.path(source) } else { source.to_owned() };
        put(node, "source", text(source));
    }
    put(node, "target", text(target));
    if options.split(',').any(|o| o == "ro") {
        put(node, "read_only", Value::Bool(true));
    }
    put(node, if is_path { "bind" } else { "volume" }, Value::Map(Vec::new()));
}
