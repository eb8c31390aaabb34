//! `build`. Source: compose specification "build".

use crate::{
    Error, StackBuild,
    definitions::Definitions,
    error::suggest,
    hosts,
    read::{Item, Reader, optional},
    rebase, ulimits,
};
use model::SecretBytes;

const NOT_YET: &str = "not implemented yet";

pub(crate) fn read(
    item: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<StackBuild, Error> {
    let place = |text: String| {
        if rebase::is_remote(&text) { text } else { read.path(&text).display().to_string() }
    };
    if !item.is_map() {
        return Ok(StackBuild { context: place(item.string()?), ..StackBuild::default() });
    }
    item.only(
        &[
            "context",
            "dockerfile",
            "dockerfile_inline",
            "args",
            "target",
            "network",
            "no_cache",
            "pull",
            "labels",
            "tags",
            "secrets",
            "extra_hosts",
            "cache_from",
            "cache_to",
            "provenance",
            "sbom",
            "shm_size",
            "ulimits",
        ],
        &[
            ("additional_contexts", NOT_YET),
            ("isolation", "it is for Windows"),
            ("platforms", "images are built for the node that builds them"),
            ("privileged", NOT_YET),
            ("ssh", NOT_YET),
            ("entitlements", NOT_YET),
        ],
    )?;
    for (key, value, at) in item.entries()? {
        // That nothing is attested is what is done.
        if matches!(key, "provenance" | "sbom") && !value.is_null() && value.boolean().unwrap_or(true) {
            let (at, path, key) = (at.clone(), item.path.clone(), key.to_owned());
            return Err(Error::UnsupportedKey { at, path, key, why: "builds make no attestations" });
        }
    }
    for key in ["cache_from", "cache_to"] {
        if let Some(cache) = item.get(key) {
            read.warn(&cache.node.at, format!("{key:?} has no effect: each node keeps a cache of its own"));
        }
    }
    let text = |key: &str| optional(item.get(key), Item::string).map(Option::unwrap_or_default);
    let host = |line: String| line.split_once(' ').map(|(ip, name)| format!("{name}:{ip}"));
    let flag = |key: &str| optional(item.get(key), Item::boolean).map(Option::unwrap_or_default);
    let pairs = |key: &str| optional(item.get(key), Item::pairs).map(Option::unwrap_or_default);
    Ok(StackBuild {
        context: place(optional(item.get("context"), Item::string)?.unwrap_or_else(|| ".".to_owned())),
        dockerfile: text("dockerfile")?,
        dockerfile_inline: optional(item.get("dockerfile_inline"), Item::string)?,
        args: pairs("args")?
            .into_iter()
            // A bare name takes the caller's value, if there is one.
            .filter_map(|(name, value)| Some((value.or_else(|| read.env(&name).map(str::to_owned))?, name)))
            .map(|(value, name)| (name, value))
            .collect(),
        target: text("target")?,
        network: text("network")?,
        no_cache: flag("no_cache")?,
        pull: flag("pull")?,
        labels: pairs("labels")?.into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect(),
        tags: optional(item.get("tags"), Item::strings)?.unwrap_or_default(),
        secrets: optional(item.get("secrets"), |i| secrets(i, defined, read))?.unwrap_or_default(),
        extra_hosts: optional(item.get("extra_hosts"), hosts::hosts)?
            .unwrap_or_default()
            .into_iter()
            .filter_map(host)
            .collect(),
        shm_size_bytes: optional(item.get("shm_size"), Item::bytes)?,
        ulimits: optional(item.get("ulimits"), ulimits::ulimits)?.unwrap_or_default(),
    })
}

/// Secrets of the file, by the ids under which `RUN` mounts them.
fn secrets(
    item: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<Vec<(String, SecretBytes)>, Error> {
    let secret = |entry: &Item<'_>| {
        let (source, id) = if entry.is_map() {
            entry.only(&["source", "target", "uid", "gid", "mode"], &[])?;
            let source =
                entry.get("source").ok_or_else(|| entry.invalid("a secret needs a source"))?.string()?;
            let id = optional(entry.get("target"), Item::string)?.unwrap_or_else(|| source.clone());
            (source, id)
        } else {
            (entry.string()?, entry.string()?)
        };
        let undefined = |kind, name: &str, suggestion| Error::Undefined {
            at: entry.at(),
            path: entry.path.clone(),
            kind,
            name: name.to_owned(),
            suggestion,
        };
        let Some(definition) = defined.secrets.get(&source) else {
            let known = defined.secrets.keys().map(String::as_str);
            return Err(undefined("secret", &source, suggest(&source, known)));
        };
        let data = match (definition.get("file"), definition.get("environment")) {
            (Some(file), _) => read.file(&file, &file.string()?)?,
            (None, Some(name)) => {
                let name = name.string()?;
                let value = read.included("secrets", &source).or_else(|| read.env(&name).map(str::to_owned));
                value.ok_or_else(|| undefined("environment variable", &name, None))?.into_bytes()
            }
            (None, None) => {
                return Err(entry.invalid("a build has only secrets with a file or an environment"));
            }
        };
        Ok((id, SecretBytes(data)))
    };
    item.items()?.iter().map(secret).collect()
}
