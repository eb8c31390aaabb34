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
            "tags",
        ],
        &[
            ("additional_contexts", NOT_YET),
            ("cache_from", NOT_YET),
            ("cache_to", NOT_YET),
            ("extra_hosts", NOT_YET),
            ("isolation", "it is for Windows"),
            ("platforms", "images are built for the node that builds them"),
            ("privileged", NOT_YET),
            ("provenance", NOT_YET),
            ("sbom", NOT_YET),
            ("secrets", NOT_YET),
            ("shm_size", NOT_YET),
            ("ssh", NOT_YET),
            ("ulimits", NOT_YET),
            ("entitlements", NOT_YET),
        ],
    )?;
    let text = |key: &str| optional(item.get(key), Item::string).map(Option::unwrap_or_default);
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
    })
}
