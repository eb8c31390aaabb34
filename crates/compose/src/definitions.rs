//! What the sections of a file define, and what names of them mean.

use crate::{
    Error, Place,
    error::suggest,
    read::{Item, optional},
};
use model::Labels;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

/// Source: docker/compose `pkg/api/labels.go`.
const PROJECT_LABEL: &str = "com.docker.compose.project";
const VOLUME_LABEL: &str = "com.docker.compose.volume";

pub(crate) type Section<'a> = BTreeMap<String, Item<'a>>;

/// What names may refer to.
pub(crate) struct Definitions<'a> {
    pub(crate) stack: String,
    pub(crate) place: Place,
    pub(crate) underscores: bool,
    pub(crate) services: Section<'a>,
    pub(crate) networks: Section<'a>,
    pub(crate) volumes: Section<'a>,
    pub(crate) secrets: Section<'a>,
    pub(crate) configs: Section<'a>,
    /// On one host alone.
    pub(crate) models: Section<'a>,
    /// By service: the names by which others link to it.
    pub(crate) links: BTreeMap<String, Vec<String>>,
    pub(crate) used_networks: RefCell<BTreeSet<String>>,
}

/// What a definition is called in the swarm.
pub(crate) struct Naming {
    pub(crate) name: String,
    pub(crate) external: bool,
}

impl Definitions<'_> {
    /// Returns `<stack>_<key>`.
    pub(crate) fn full_name(&self, key: &str) -> String {
        format!("{}_{key}", self.stack)
    }

    /// Returns `<project>-<key>`, or what Docker Compose 1 made of it.
    pub(crate) fn image_name(&self, key: &str) -> String {
        format!("{}{}{key}", self.stack, if self.underscores { '_' } else { '-' })
    }

    /// Adds the mark of what belongs to the stack, or to the project of one host.
    pub(crate) fn with_namespace(&self, mut labels: Labels) -> Labels {
        if self.place == Place::Host {
            labels.insert(PROJECT_LABEL.to_owned(), self.stack.clone());
            return labels;
        }
        with_namespace(labels, &self.stack)
    }

    pub(crate) fn volume_labels(&self, key: &str, item: &Item<'_>) -> Result<Labels, Error> {
        let labels = optional(item.get("labels"), Item::labels)?.unwrap_or_default();
        let mut labels = self.with_namespace(labels);
        if self.place == Place::Host {
            labels.insert(VOLUME_LABEL.to_owned(), key.to_owned());
        }
        Ok(labels)
    }

    /// Reads `name` and `external` of a definition.
    pub(crate) fn naming(&self, key: &str, item: &Item<'_>) -> Result<Naming, Error> {
        let name = optional(item.get("name"), Item::string)?;
        let (external, old_name) = match item.get("external") {
            None => (false, None),
            // The old form: `external: {name: x}`.
            Some(external) if external.is_map() => {
                external.only(&["name"], &[])?;
                (true, optional(external.get("name"), Item::string)?)
            }
            Some(external) => (external.boolean()?, None),
        };
        if external && let Some((key, _, at)) = item.entries()?.into_iter().find(|(k, _, _)| is_own(k)) {
            return Err(Error::Invalid {
                at: at.clone(),
                path: item.path.clone(),
                text: format!("{key:?} cannot be set on something external"),
            });
        }
        let default = || if external { key.to_owned() } else { self.full_name(key) };
        Ok(Naming { name: name.or(old_name).unwrap_or_else(default), external })
    }

    /// Returns the full name of a network, and notes that it is used.
    pub(crate) fn network(&self, item: &Item<'_>, key: &str) -> Result<String, Error> {
        let name = match self.networks.get(key) {
            Some(definition) => self.naming(key, definition)?.name,
            None if key == "default" => self.full_name(key),
            None => {
                return Err(Error::Undefined {
                    at: item.at(),
                    path: item.path.clone(),
                    kind: "network",
                    name: key.to_owned(),
                    suggestion: suggest(key, self.networks.keys().map(String::as_str)),
                });
            }
        };
        self.used_networks.borrow_mut().insert(key.to_owned());
        Ok(name)
    }
}

/// Keys that describe what an external object already is.
fn is_own(key: &str) -> bool {
    !matches!(key, "external" | "name") && !key.starts_with("x-")
}

/// Labels that mark what belongs to a stack.
fn namespace_label(stack: &str) -> (String, String) {
    ("com.docker.stack.namespace".to_owned(), stack.to_owned())
}

/// Adds the mark.
fn with_namespace(mut labels: Labels, stack: &str) -> Labels {
    labels.extend([namespace_label(stack)]);
    labels
}
