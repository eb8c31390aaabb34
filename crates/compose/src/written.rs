//! A file as it is written, for who passes it on: what it names, where, and the same text with other names. Source:
//! docker/compose `pkg/compose/publish.go`, `pkg/compose/transform`.

use crate::{
    At, Error, Files, Sources, interpolate,
    read::{Item, Reader, optional},
    tree::{self, Node},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// One file of a project; nothing that it names is read.
#[derive(Debug, Clone)]
pub struct Written {
    text: String,
    services: BTreeMap<String, WrittenService>,
    includes: Vec<String>,
    contents: BTreeMap<String, String>,
}

/// What one service says there.
#[derive(Debug, Clone, Default)]
pub struct WrittenService {
    /// Files of variables.
    pub env_files: Vec<Named>,
    /// The file of the service that it extends, if that is another one.
    pub extends: Option<Named>,
    /// Variables with values of their own, as they are written: `${NAME}` stays.
    pub environment: BTreeMap<String, String>,
}

/// A file that is named.
#[derive(Debug, Clone)]
pub struct Named {
    pub at: At,
    /// As it is meant: an absolute path, or a URL.
    pub path: PathBuf,
}

impl Written {
    /// Reads a file whose relative paths begin at `dir`.
    ///
    /// # Errors
    /// It is no YAML, or a value has a form that nothing has.
    pub fn read(
        path: &Path,
        text: &str,
        dir: &Path,
        sources: &Sources,
        files: &dyn Files,
    ) -> Result<Self, Error> {
        let read = Reader::new(sources, files, crate::variables(sources, files)?);
        let mut written = Self {
            text: text.to_owned(),
            services: BTreeMap::new(),
            includes: Vec::new(),
            contents: BTreeMap::new(),
        };
        for tree in tree::parse(path, text)? {
            let mut meant = tree.clone();
            interpolate::tree(&mut meant, &read)?;
            written.note(&tree, &meant, dir, &read)?;
        }
        Ok(written)
    }

    fn note(&mut self, raw: &Node, meant: &Node, dir: &Path, read: &Reader<'_>) -> Result<(), Error> {
        let (raw, meant) = (Item::root(raw), Item::root(meant));
        for include in meant.get("include").map_or(Ok(Vec::new()), |include| include.items_or_one())? {
            let paths = if include.is_map() { include.get("path") } else { Some(include) };
            for path in paths.map_or(Ok(Vec::new()), |paths| paths.items_or_one())? {
                self.includes.push(path.string()?);
            }
        }
        let named = |item: &Item<'_>| -> Result<Named, Error> {
            let text = item.string()?;
            let path = if text.contains("://") { PathBuf::from(text) } else { read.path_in(dir, &text) };
            Ok(Named { at: item.at(), path })
        };
        for (key, service, _) in meant.get("services").map_or(Ok(Vec::new()), |s| s.entries())? {
            let known = self.services.entry(key.to_owned()).or_default();
            for file in service.get("env_file").map_or(Ok(Vec::new()), |files| files.items_or_one())? {
                let file = if file.is_map() { file.get("path") } else { Some(file) };
                known.env_files.extend(file.as_ref().map(named).transpose()?);
            }
            let file = service.get("extends").and_then(|extends| extends.get("file"));
            known.extends = optional(file, named)?.or(known.extends.take());
        }
        for (key, service, _) in raw.get("services").map_or(Ok(Vec::new()), |s| s.entries())? {
            let known = self.services.entry(key.to_owned()).or_default();
            let pairs = optional(service.get("environment"), Item::pairs)?.unwrap_or_default();
            known.environment.extend(pairs.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        for (key, config, _) in raw.get("configs").map_or(Ok(Vec::new()), |c| c.entries())? {
            let content = optional(config.get("content"), Item::string)?;
            self.contents.extend(content.map(|content| (key.to_owned(), content)));
        }
        Ok(())
    }

    pub fn services(&self) -> &BTreeMap<String, WrittenService> {
        &self.services
    }

    /// Returns what it includes: paths and URLs as they are written, with their variables.
    pub fn includes(&self) -> &[String] {
        &self.includes
    }

    /// Returns the content of configs that have it in the file, as it is written.
    pub fn contents(&self) -> &BTreeMap<String, String> {
        &self.contents
    }

    /// Returns the text with other names for the files that stand at these places; all else stays as it is.
    ///
    /// # Errors
    /// A name does not stand on one line.
    pub fn with_names<'a>(
        &self,
        names: impl IntoIterator<Item = (&'a At, &'a str)>,
    ) -> Result<String, Error> {
        let mut places: Vec<(usize, usize, &str)> = Vec::new();
        for (at, name) in names {
            let (start, end) = scalar_at(&self.text, at).ok_or_else(|| Error::Invalid {
                at: at.clone(),
                path: "(file)".to_owned(),
                text: "a name that is to be replaced stands on one line, without an alias".to_owned(),
            })?;
            places.push((start, end, name));
        }
        // From the end, so that places before stay where they are; what has an anchor is named twice at one place.
        places.sort_unstable();
        places.dedup_by_key(|(start, ..)| *start);
        let mut text = self.text.clone();
        for (start, end, name) in places.into_iter().rev() {
            text.replace_range(start..end, name);
        }
        Ok(text)
    }
}

/// Returns where a scalar of one line begins and ends. *Unit:* bytes of the text.
fn scalar_at(text: &str, at: &At) -> Option<(usize, usize)> {
    let number = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let line_start: usize = text.split_inclusive('\n').take(number).map(str::len).sum();
    let line = text.get(line_start..)?.lines().next()?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let start = line.char_indices().nth(column)?.0;
    let rest = &line[start..];
    let length = match rest.chars().next()? {
        quote @ ('"' | '\'') => {
            let inner = &rest[1..];
            // Neither escapes nor doubled quotes: no path needs them.
            let end = inner.find(quote).filter(|end| !inner[..*end].contains('\\'))?;
            let doubled = quote == '\'' && inner[end + 1..].starts_with('\'');
            (!doubled).then_some(end + 2)?
        }
        '&' | '*' | '|' | '>' | '!' => return None,
        _ => {
            let ends = [" #", ", ", "]", "}"].iter().filter_map(|end| rest.find(end));
            let flow = ends.min().unwrap_or(rest.len());
            rest[..flow].trim_end().trim_end_matches(',').len()
        }
    };
    (length > 0).then_some((line_start + start, line_start + start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_where_they_stand() {
        let text = "services:\n  a:\n    env_file: [one.env, './two.env'] # mine\n  b:\n    env_file:\n      - path: \"ü.env\"\n        \
                    required: false\n    extends: {file: base.yaml, service: x}\n    environment: {A: one.env}\n";
        let sources = Sources { project_dir: "/srv".into(), ..Sources::default() };
        let none: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        let written =
            Written::read(Path::new("c.yaml"), text, Path::new("/srv"), &sources, &none).expect("a file");
        let services = written.services();
        let files: Vec<String> = services
            .values()
            .flat_map(|s| s.env_files.iter().chain(&s.extends))
            .map(|named| named.path.display().to_string())
            .collect();
        assert_eq!(files, ["/srv/one.env", "/srv/two.env", "/srv/ü.env", "/srv/base.yaml"]);
        let places: Vec<&At> =
            services.values().flat_map(|s| s.env_files.iter().chain(&s.extends)).map(|n| &n.at).collect();
        let names = places.into_iter().zip(["1", "2", "3", "4"]);
        assert_eq!(
            written.with_names(names).expect("names on one line"),
            "services:\n  a:\n    env_file: [1, 2] # mine\n  b:\n    env_file:\n      - path: 3\n        required: false\n    \
             extends: {file: 4, service: x}\n    environment: {A: one.env}\n"
        );
    }
}
