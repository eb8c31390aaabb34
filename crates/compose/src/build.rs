//! `build`. Source: compose specification "build".

use crate::{
    Error, StackBuild,
    read::{Item, Reader, optional},
    rebase,
};

const NOT_YET: &str = "not implemented yet";

pub(crate) fn read(item: &Item<'_>, read: &Reader<'_>) -> Result<StackBuild, Error> {
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
            "cache_from",
            "shm_size",
            "extra_hosts",
            "tags",
            "secrets",
            "platforms",
            "cache_to",
            "privileged",
            "isolation",
            "provenance",
            "sbom",
        ],
        &[
            ("additional_contexts", NOT_YET),
            ("ssh", NOT_YET),
            ("ulimits", NOT_YET),
            ("entitlements", NOT_YET),
        ],
    )?;
    let text = |key: &str| optional(item.get(key), Item::string).map(Option::unwrap_or_default);
    let flag = |key: &str| optional(item.get(key), Item::boolean).map(Option::unwrap_or_default);
    let pairs = |key: &str| optional(item.get(key), Item::pairs).map(Option::unwrap_or_default);
    if let Some(platforms) = item.get("platforms")
        && platforms.strings()?.len() > 1
    {
        return Err(platforms.invalid("one platform per build is implemented"));
    }
    let secrets = match item.get("secrets") {
        None => Vec::new(),
        Some(secrets) => secrets
            .items()?
            .iter()
            .map(|s| {
                if s.is_map() {
                    s.get("source").map_or_else(|| Err(s.invalid("a secret needs a source")), |n| n.string())
                } else {
                    s.string()
                }
            })
            .collect::<Result<_, _>>()?,
    };
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
        cache_from: optional(item.get("cache_from"), Item::strings)?.unwrap_or_default(),
        tags: optional(item.get("tags"), Item::strings)?.unwrap_or_default(),
        secrets,
    })
}
