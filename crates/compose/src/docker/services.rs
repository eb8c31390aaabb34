//! What of a service needs more than the tables: its environment, and mounts in short form.

use super::canon::{Context, entry, text};
use crate::{
    Error,
    read::Item,
    tree::{Entry, Node, Value},
};

impl Context<'_> {
    /// Brings in environment files and the caller's environment, and makes paths absolute.
    pub(super) fn finish_service(&self, name: &str, node: &mut Node) -> Result<(), Error> {
        let at = node.at.clone();
        let Value::Map(entries) = &mut node.value else { return Ok(()) };
        let mut environment: Vec<Entry> = Vec::new();
        let mut set = |key: &str, node: Node| {
            environment.retain(|e| e.key != key);
            // What is empty comes from the caller, if it is there.
            let empty = matches!(&node.value, Value::Null) || node.value == Value::Str(String::new());
            let given = self.sources.env.get(key).filter(|_| empty);
            let node = given.map_or(node.clone(), |value| text(value.as_str(), &node.at));
            environment.push(entry(key, node));
        };
        for file in entries.iter().filter(|e| e.key == "env_file") {
            let Value::Seq(files) = &file.node.value else { continue };
            for file in files {
                let item = Item { node: file, path: format!("services.{name}.env_file") };
                for (key, value) in self.env_file(&item)? {
                    set(&key, text(value, &file.at));
                }
            }
        }
        for own in entries.iter().filter(|e| e.key == "environment") {
            let Value::Map(own) = &own.node.value else { continue };
            own.iter().for_each(|e| set(&e.key, e.node.clone()));
        }
        entries.retain(|e| e.key != "environment");
        if !environment.is_empty() {
            entries.push(entry("environment", Node::new(Value::Map(environment), at)));
        }
        for mounts in entries.iter_mut().filter(|e| e.key == "volumes") {
            let Value::Seq(mounts) = &mut mounts.node.value else { continue };
            for (place, mount) in mounts.iter_mut().enumerate() {
                self.bind_source(&format!("services.{name}.volumes[{place}]"), mount)?;
            }
        }
        Ok(())
    }

    fn bind_source(&self, path: &str, mount: &mut Node) -> Result<(), Error> {
        if mount.get("type").and_then(Node::scalar).as_deref() != Some("bind") {
            return Ok(());
        }
        let at = mount.at.clone();
        let Value::Map(entries) = &mut mount.value else { return Ok(()) };
        let source = entries.iter_mut().find(|e| e.key == "source");
        let Some(source) = source else {
            let text = "a bind needs a \"source\", a path of the host".to_owned();
            return Err(Error::Invalid { at, path: path.to_owned(), text });
        };
        let given = source.node.scalar().unwrap_or_default();
        let home = self.sources.env.get("HOME");
        let expanded = match (given.strip_prefix('~'), home) {
            (Some(rest), Some(home)) => format!("{home}{rest}"),
            _ => given,
        };
        let drive = expanded.as_bytes().get(1) == Some(&b':')
            && expanded.starts_with(|c: char| c.is_ascii_alphabetic());
        let fixed = expanded.starts_with('/') || expanded.starts_with("\\\\") || drive;
        let absolute = if fixed { expanded } else { self.absolute(&expanded) };
        source.node = text(absolute, &source.node.at);
        Ok(())
    }

    /// Reads `KEY=value` lines; what has no value has the caller's, or is left out. Source: docker/cli `pkg/kvfile`.
    fn env_file(&self, item: &Item<'_>) -> Result<Vec<(String, String)>, Error> {
        let file = std::path::PathBuf::from(self.absolute(&item.string()?));
        let bytes = self.files.read(&file).map_err(|source| Error::Read {
            at: item.at(),
            path: item.path.clone(),
            file: file.clone(),
            source,
        })?;
        let fail = |line: usize, text: String| Error::EnvFile { file: file.clone(), line, text };
        let content = String::from_utf8(bytes).map_err(|e| fail(1, format!("is not UTF-8: {e}")))?;
        let mut pairs = Vec::new();
        for (number, line) in content.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').map_or((line, None), |(k, v)| (k, Some(v)));
            if key.is_empty() || key.contains([' ', '\t']) {
                return Err(fail(number + 1, format!("{key:?} is no name of a variable")));
            }
            let value = value.or_else(|| self.sources.env.get(key).map(String::as_str));
            pairs.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        }
        Ok(pairs)
    }
}

/// `[source:]target[:options]`. Source: docker/cli `internal/volumespec`.
pub(super) fn mount(item: &Item<'_>, spec: &str) -> Result<Node, Error> {
    let at = &item.node.at;
    let invalid = |why: &str| item.invalid(format!("invalid mount {spec:?}: {why}"));
    let made = |entries: Vec<(&str, &str)>| {
        let entries = entries.into_iter().map(|(key, value)| entry(key, text(value, at))).collect();
        Node::new(Value::Map(entries), at.clone())
    };
    if spec.is_empty() {
        return Err(invalid("it is empty"));
    }
    if spec.len() < 3 {
        return Ok(made(vec![("type", "volume"), ("target", spec)]));
    }
    let parts = parts(spec);
    if parts.iter().any(|part| part.is_empty()) {
        return Err(invalid("empty section between colons"));
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => return Ok(made(vec![("type", "volume"), ("target", target)])),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, *options),
        _ => return Err(invalid("too many colons")),
    };
    let mut long = made(vec![("type", kind(source)), ("source", source), ("target", target)]);
    let Value::Map(entries) = &mut long.value else { return Ok(long) };
    let flag = |flag: bool| Node::new(Value::Bool(flag), at.clone());
    for option in options.split(',') {
        match option {
            "ro" => entries.push(entry("read_only", flag(true))),
            "rw" => entries.retain(|e| e.key != "read_only"),
            "nocopy" => {
                let nocopy = Node::new(Value::Map(vec![entry("nocopy", flag(true))]), at.clone());
                entries.push(entry("volume", nocopy));
            }
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                entries.retain(|e| e.key != "bind");
                let propagation =
                    Node::new(Value::Map(vec![entry("propagation", text(option, at))]), at.clone());
                entries.push(entry("bind", propagation));
            }
            // Docker's CLI does not mind others.
            _ => {}
        }
    }
    Ok(long)
}

/// Splits at colons, but not behind the letter of a drive.
fn parts(spec: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (place, _) in spec.match_indices(':') {
        let part = &spec[start..place];
        let drive = part.chars().count() == 1 && part.starts_with(char::is_alphabetic);
        if !drive {
            parts.push(part);
            start = place + 1;
        }
    }
    parts.push(&spec[start..]);
    parts
}

fn kind(source: &str) -> &'static str {
    let drive = source.chars().nth(1) == Some(':') && source.starts_with(char::is_alphabetic);
    let path = source.starts_with(['.', '/', '~']) || source.starts_with("\\\\") || drive;
    if path { "bind" } else { "volume" }
}
