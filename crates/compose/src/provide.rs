//! What other programs provide on one host: services without a container, and models. Source: compose specification
//! "provider", "models".

use crate::{
    Error,
    definitions::Definitions,
    error::suggest,
    read::{Item, Reader, optional},
};
use std::collections::BTreeMap;

/// A service that a program provides, in place of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Names the program.
    pub kind: String,
    /// What it is told, each perhaps several times.
    pub options: BTreeMap<String, Vec<String>>,
}

/// A model that services use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackModel {
    pub key: String,
    /// What it is called; its key, if the file gives it no name.
    pub name: String,
    /// Where it comes from.
    pub model: String,
    /// *Unit:* tokens; 0 = as the runner has it.
    pub context_size: u64,
    pub runtime_flags: Vec<String>,
}

/// How a service is told of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceModel {
    /// Key of the model.
    pub key: String,
    /// Variable that has the address of its runner.
    pub endpoint_variable: String,
    /// Variable that has its name.
    pub model_variable: String,
}

/// Keys that mean something where there is no container.
const OF_PROVIDED: &[&str] = &["provider", "depends_on", "profiles", "extends"];

pub(crate) fn provider(service: &Item<'_>, read: &Reader<'_>) -> Result<Option<Provider>, Error> {
    let Some(item) = service.get("provider") else { return Ok(None) };
    item.only(&["type", "options"], &[])?;
    let kind = item.get("type").ok_or_else(|| item.invalid("a provider needs a \"type\""))?;
    let name = kind.string()?;
    // Also what would be a path: a program is found by its name.
    if name.is_empty() || name == "compose" || name.contains('/') {
        return Err(kind.invalid(format!("{name:?} is not a valid provider type")));
    }
    let mut options = BTreeMap::new();
    for (option, value, _) in item.get("options").map_or(Ok(Vec::new()), |options| options.entries())? {
        options.insert(option.to_owned(), value.strings_or_one()?);
    }
    for (key, _, at) in service.entries()? {
        if !OF_PROVIDED.contains(&key) && !key.starts_with("x-") {
            read.warn(at, format!("{:?} has no effect: a provider makes no container", key));
        }
    }
    Ok(Some(Provider { kind: name, options }))
}

/// Reads the section `models`.
pub(crate) fn models(defined: &Definitions<'_>) -> Result<Vec<StackModel>, Error> {
    let mut models = Vec::new();
    for (key, item) in &defined.models {
        item.only(&["name", "model", "context_size", "runtime_flags"], &[])?;
        let model = item.get("model").ok_or_else(|| item.invalid("want a \"model\", such as ai/smollm2"))?;
        models.push(StackModel {
            key: key.clone(),
            name: optional(item.get("name"), Item::string)?.unwrap_or_else(|| key.clone()),
            model: model.string()?,
            context_size: optional(item.get("context_size"), Item::integer)?.unwrap_or(0),
            runtime_flags: optional(item.get("runtime_flags"), Item::strings)?.unwrap_or_default(),
        });
    }
    Ok(models)
}

/// Reads a service's `models`: a list of keys, or a mapping that names variables too. Source of their names:
/// docker/compose `pkg/compose/model.go`, `SetModelVariables`.
pub(crate) fn service_models(
    service: &Item<'_>,
    defined: &Definitions<'_>,
) -> Result<Vec<ServiceModel>, Error> {
    let Some(item) = service.get("models") else { return Ok(Vec::new()) };
    let named = |at: &Item<'_>, key: &str, endpoint: Option<String>, model: Option<String>| {
        if !defined.models.contains_key(key) {
            return Err(Error::Undefined {
                at: at.at(),
                path: at.path.clone(),
                kind: "model",
                name: key.to_owned(),
                suggestion: suggest(key, defined.models.keys().map(String::as_str)),
            });
        }
        let prefix = key.to_uppercase().replace('-', "_");
        Ok(ServiceModel {
            key: key.to_owned(),
            endpoint_variable: endpoint.unwrap_or_else(|| format!("{prefix}_URL")),
            model_variable: model.unwrap_or_else(|| format!("{prefix}_MODEL")),
        })
    };
    if !item.is_map() {
        return item.items()?.iter().map(|entry| named(entry, &entry.string()?, None, None)).collect();
    }
    let entries = item.entries()?;
    let one = |(key, entry, _): &(&str, Item<'_>, _)| {
        entry.only(&["endpoint_var", "model_var"], &[])?;
        let variable = |key: &str| optional(entry.get(key), Item::string);
        named(entry, key, variable("endpoint_var")?, variable("model_var")?)
    };
    entries.iter().map(one).collect()
}
