//! Reading values out of the tree: the right type, or an error that says where and what was wanted.

use crate::{
    At, Files, Place, Sources, Warning, dotenv,
    error::{Error, suggest},
    tree::{Entry, Node, Value},
    units,
};
use model::{Duration, Labels};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    str::FromStr,
};

/// What reading needs besides the tree.
pub(crate) struct Reader<'a> {
    files: &'a dyn Files,
    project_dir: PathBuf,
    env: BTreeMap<String, String>,
    place: Place,
    /// Files are read as they are written.
    raw: bool,
    warnings: Rc<RefCell<Vec<Warning>>>,
    /// What the variables of an included file's secrets and configs were there, by section and key.
    included: Rc<RefCell<BTreeMap<(String, String), String>>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(sources: &Sources, files: &'a dyn Files, env: BTreeMap<String, String>) -> Self {
        Self {
            files,
            project_dir: sources.project_dir.clone(),
            env,
            place: sources.place,
            raw: false,
            warnings: Rc::default(),
            included: Rc::default(),
        }
    }

    pub(crate) fn project_dir(&self) -> &Path {
        &self.project_dir
    }

    /// Returns a reader that knows these variables where the caller has none.
    pub(crate) fn with_defaults(&self, defaults: &BTreeMap<String, String>) -> Self {
        let mut env = defaults.clone();
        env.extend(self.env.clone());
        Self {
            files: self.files,
            project_dir: self.project_dir.clone(),
            env,
            place: self.place,
            raw: self.raw,
            warnings: self.warnings.clone(),
            included: self.included.clone(),
        }
    }

    pub(crate) fn keep_variables(&mut self, raw: bool) {
        self.raw = raw;
    }

    pub(crate) fn keeps_variables(&self) -> bool {
        self.raw
    }

    /// Notes what the secrets and configs of an included file take from its own variables.
    pub(crate) fn note_included(&self, tree: &Node) {
        for section in ["secrets", "configs"] {
            let Some(Value::Map(entries)) = tree.get(section).map(|node| &node.value) else { continue };
            for entry in entries {
                let name = entry.node.get("environment").and_then(Node::scalar);
                if let Some(value) = name.and_then(|name| self.env(&name)) {
                    let key = (section.to_owned(), entry.key.clone());
                    self.included.borrow_mut().entry(key).or_insert_with(|| value.to_owned());
                }
            }
        }
    }

    /// Returns what a variable of an included file's secret or config was there.
    pub(crate) fn included(&self, section: &str, key: &str) -> Option<String> {
        self.included.borrow().get(&(section.to_owned(), key.to_owned())).cloned()
    }

    /// The same with the `.env` of a folder.
    pub(crate) fn with_folder(&self, folder: &Path) -> Result<Self, Error> {
        Ok(self.with_defaults(&dotenv::read_folder(folder, self.files, &self.env)?))
    }

    pub(crate) fn on_one_host(&self) -> bool {
        self.place == Place::Host
    }

    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    pub(crate) fn warn(&self, at: &At, text: String) {
        let warning = Warning { at: Some(at.clone()), text };
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        self.warnings.take()
    }

    /// Returns a path as the project means it: `~` is the caller's home, relative ones start at the project.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.path_in(&self.project_dir, text)
    }

    /// The same for a file whose relative paths start elsewhere.
    pub(crate) fn path_in(&self, dir: &Path, text: &str) -> PathBuf {
        let home = || self.env("HOME").map(PathBuf::from);
        let path = match text.strip_prefix('~') {
            Some("") => home().unwrap_or_else(|| PathBuf::from(text)),
            Some(rest) if rest.starts_with('/') => {
                home().map_or_else(|| PathBuf::from(text), |h| h.join(rest.trim_start_matches('/')))
            }
            _ => dir.join(text),
        };
        clean(&path)
    }

    /// Reads a file a stack file names.
    pub(crate) fn file(&self, item: &Item<'_>, text: &str) -> Result<Vec<u8>, Error> {
        self.file_at(item, &self.path(text))
    }

    /// Returns where a compose file is that another one names, whose relative paths begin at `dir`.
    pub(crate) fn named(&self, item: &Item<'_>, dir: &Path) -> Result<PathBuf, Error> {
        let text = item.string()?;
        if !text.starts_with(crate::OCI_PREFIX) {
            return Ok(clean(&dir.join(text)));
        }
        self.files.fetch(&text).map_err(|source| Error::Read {
            at: item.node.at.clone(),
            path: item.path.clone(),
            file: text.into(),
            source,
        })
    }

    /// The same with the whole path.
    pub(crate) fn file_at(&self, item: &Item<'_>, file: &Path) -> Result<Vec<u8>, Error> {
        let read = self.files.read(file);
        read.map_err(|source| Error::Read {
            at: item.node.at.clone(),
            path: item.path.clone(),
            file: file.to_owned(),
            source,
        })
    }

    /// Reads the variables of a file below a folder.
    pub(crate) fn env_file_in(&self, item: &Item<'_>, dir: &Path) -> Result<Vec<(String, String)>, Error> {
        let path = self.path_in(dir, &item.string()?);
        let pairs = dotenv::parse(&path, &self.file_at(item, &path)?, &self.env)?;
        Ok(pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
    }

    /// Reads an entry of `env_file`: a path, or a path with what else is said of it.
    pub(crate) fn variables_of(&self, file: &Item<'_>) -> Result<Vec<(String, Option<String>)>, Error> {
        self.listed(file).map_err(|error| match error {
            Error::Read { at, path, file, source } if source.kind() == std::io::ErrorKind::NotFound => {
                Error::NoEnvFile { at, path, file }
            }
            error => error,
        })
    }

    fn listed(&self, file: &Item<'_>) -> Result<Vec<(String, Option<String>)>, Error> {
        if !file.is_map() {
            return self.env_file(file, &file.string()?, true);
        }
        file.only(&["path", "required", "format"], &[])?;
        let path = file.get("path").ok_or_else(|| file.invalid("an env_file needs a path"))?.string()?;
        let required = optional(file.get("required"), Item::boolean)?.unwrap_or(true);
        let raw = optional(file.get("format"), |f| f.one_of(&[("raw", true), ("", false)]))?;
        if !raw.unwrap_or(false) {
            return self.env_file(file, &path, required);
        }
        match self.file(file, &path) {
            Ok(bytes) => dotenv::parse_raw(&self.path(&path), &bytes),
            Err(Error::Read { source, .. }) if !required && source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads an environment file; `None` if it is missing and need not be there.
    pub(crate) fn env_file(
        &self,
        item: &Item<'_>,
        text: &str,
        required: bool,
    ) -> Result<Vec<(String, Option<String>)>, Error> {
        match self.file(item, text) {
            Ok(bytes) => dotenv::parse(&self.path(text), &bytes, &self.env),
            Err(Error::Read { source, .. }) if !required && source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// Takes `.` and `..` out of a path without looking at the disk.
pub(crate) fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// A node and the path to it.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
}

impl<'a> Item<'a> {
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    pub(crate) fn at(&self) -> At {
        self.node.at.clone()
    }

    pub(crate) fn invalid(&self, text: impl Into<String>) -> Error {
        Error::Invalid { at: self.at(), path: self.shown_path(), text: text.into() }
    }

    /// What `--lenient` leaves out.
    pub(crate) fn unsupported(&self, text: impl Into<String>) -> Error {
        Error::Unsupported { at: self.at(), path: self.shown_path(), text: text.into() }
    }

    fn shown_path(&self) -> String {
        if self.path.is_empty() { "(file)".to_owned() } else { self.path.clone() }
    }

    fn wanted(&self, what: &str) -> Error {
        self.invalid(format!("want {what}, not {}", self.node.kind()))
    }

    fn child(&self, entry: &'a Entry) -> Self {
        let path =
            if self.path.is_empty() { entry.key.clone() } else { format!("{}.{}", self.path, entry.key) };
        Self { node: &entry.node, path }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Returns the value of a key, unless it is missing or empty.
    pub(crate) fn get(&self, key: &str) -> Option<Item<'a>> {
        match &self.node.value {
            Value::Map(entries) => {
                entries.iter().find(|e| e.key == key).map(|e| self.child(e)).filter(|i| !i.is_null())
            }
            _ => None,
        }
    }

    /// Checks that this is a mapping with no other keys than these. Keys of the second list exist in the
    /// compose specification, but cannot be honoured.
    pub(crate) fn only(&self, known: &[&str], unsupported: &[(&str, &'static str)]) -> Result<(), Error> {
        for (key, _, at) in self.entries()? {
            if known.contains(&key) || key.starts_with("x-") {
                continue;
            }
            if let Some((_, why)) = unsupported.iter().find(|(name, _)| *name == key) {
                let key = key.to_owned();
                return Err(Error::UnsupportedKey { at: at.clone(), path: self.shown_path(), key, why });
            }
            return Err(Error::UnknownKey {
                at: at.clone(),
                path: self.shown_path(),
                key: key.to_owned(),
                suggestion: suggest(key, known.iter().copied()),
            });
        }
        Ok(())
    }

    /// Returns the entries of a mapping; nothing counts as an empty one.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Item<'a>, &'a At)>, Error> {
        match &self.node.value {
            Value::Map(entries) => {
                Ok(entries.iter().map(|e| (e.key.as_str(), self.child(e), &e.at)).collect())
            }
            Value::Null => Ok(Vec::new()),
            _ => Err(self.wanted("a mapping")),
        }
    }

    pub(crate) fn items(&self) -> Result<Vec<Item<'a>>, Error> {
        match &self.node.value {
            Value::Seq(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(i, node)| Item { node, path: format!("{}[{i}]", self.path) })
                .collect()),
            Value::Null => Ok(Vec::new()),
            _ => Err(self.wanted("a list")),
        }
    }

    /// Returns a list, taking a single value as a list of one.
    pub(crate) fn items_or_one(&self) -> Result<Vec<Item<'a>>, Error> {
        match &self.node.value {
            Value::Seq(_) | Value::Null => self.items(),
            _ => Ok(vec![self.clone()]),
        }
    }

    pub(crate) fn string(&self) -> Result<String, Error> {
        self.node.scalar().ok_or_else(|| self.wanted("a string"))
    }

    pub(crate) fn strings(&self) -> Result<Vec<String>, Error> {
        self.items()?.iter().map(Item::string).collect()
    }

    pub(crate) fn strings_or_one(&self) -> Result<Vec<String>, Error> {
        self.items_or_one()?.iter().map(Item::string).collect()
    }

    pub(crate) fn boolean(&self) -> Result<bool, Error> {
        match &self.node.value {
            Value::Bool(b) => Ok(*b),
            // What a variable gave, in the words of YAML 1.1.
            Value::Str(s) => match s.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" | "on" | "1" => Ok(true),
                "false" | "no" | "n" | "off" | "0" => Ok(false),
                _ => Err(self.invalid(format!("want true or false, not {s:?}"))),
            },
            _ => Err(self.wanted("true or false")),
        }
    }

    pub(crate) fn integer<T: TryFrom<i128>>(&self) -> Result<T, Error> {
        let number = match &self.node.value {
            Value::Int(i) => Some(*i),
            Value::Str(s) => s.trim().parse().ok(),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e15 => format!("{f:.0}").parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.wanted_value("a whole number"))?;
        T::try_from(number).map_err(|_| self.invalid(format!("{number} is out of range")))
    }

    fn wanted_value(&self, what: &str) -> Error {
        match &self.node.value {
            Value::Str(s) => self.invalid(format!("want {what}, not {s:?}")),
            Value::Float(f) => self.invalid(format!("want {what}, not {f}")),
            _ => self.wanted(what),
        }
    }

    pub(crate) fn duration(&self) -> Result<Duration, Error> {
        let text = self.string()?;
        units::duration(&text).ok_or_else(|| {
            self.invalid(format!("invalid duration {text:?}: want a number with a unit, like 1m30s or 500ms"))
        })
    }

    /// *Unit:* bytes.
    pub(crate) fn bytes(&self) -> Result<u64, Error> {
        let text = self.string()?;
        units::bytes(&text).ok_or_else(|| {
            self.invalid(format!("invalid size {text:?}: want bytes, or a number with b, k, m or g"))
        })
    }

    /// *Unit:* 10^-9 of a CPU.
    pub(crate) fn cpus(&self) -> Result<u64, Error> {
        let text = self.string()?;
        units::cpu_nanos(&text).ok_or_else(|| self.invalid(format!("invalid number of CPUs {text:?}")))
    }

    /// Returns one of a few words.
    pub(crate) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Error> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.invalid(format!("want one of {}, not {text:?}", all.join(", ")))
        })
    }

    /// The same for a type whose errors say nothing.
    pub(crate) fn parsed_as<T: FromStr>(&self, what: &str) -> Result<T, Error> {
        let text = self.string()?;
        text.parse().map_err(|_| self.invalid(format!("want {what}, not {text:?}")))
    }

    pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(&self) -> Result<T, Error> {
        self.string()?.parse().map_err(|e: T::Err| self.invalid(e.to_string()))
    }

    /// Returns `key: value` pairs from a mapping, or from a list of `key=value`; a missing value is `None`.
    pub(crate) fn pairs(&self) -> Result<Vec<(String, Option<String>)>, Error> {
        if let Value::Seq(_) = &self.node.value {
            let items = self.strings()?;
            let split = |text: String| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            return Ok(items.into_iter().map(split).collect());
        }
        let entries = self.entries()?;
        entries
            .into_iter()
            .map(|(key, item, _)| {
                Ok((key.to_owned(), if item.is_null() { None } else { Some(item.string()?) }))
            })
            .collect()
    }

    pub(crate) fn labels(&self) -> Result<Labels, Error> {
        Ok(self.pairs()?.into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect())
    }

    /// Returns the words of a command: a list as it is, a string split as a shell would.
    pub(crate) fn command(&self) -> Result<Vec<String>, Error> {
        match &self.node.value {
            Value::Seq(_) => self.strings(),
            _ => {
                let text = self.string()?;
                units::shell_words(&text, false)
                    .ok_or_else(|| self.invalid(format!("unbalanced quotes in {text:?}")))
            }
        }
    }
}

/// Reads an optional key: `optional(service.get("init"), Item::boolean)?`.
pub(crate) fn optional<'a, T>(
    item: Option<Item<'a>>,
    read: impl FnOnce(&Item<'a>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    item.as_ref().map(read).transpose()
}
