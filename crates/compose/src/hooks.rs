//! Commands that run in a container beside its own.

use crate::{
    Error,
    read::{Item, optional},
};
use model::Hook;

/// Source: compose specification "post_start", "pre_stop".
pub(crate) fn hooks(item: &Item<'_>) -> Result<Vec<Hook>, Error> {
    item.items()?.iter().map(hook).collect()
}

/// One of them. `watch` has such, too.
pub(crate) fn hook(hook: &Item<'_>) -> Result<Hook, Error> {
    hook.only(&["command", "user", "privileged", "working_dir", "environment"], &[])?;
    let command = hook.get("command").ok_or_else(|| hook.invalid("a hook needs a \"command\""))?.command()?;
    let pairs = optional(hook.get("environment"), Item::pairs)?.unwrap_or_default();
    Ok(Hook {
        command,
        user: optional(hook.get("user"), Item::string)?,
        privileged: optional(hook.get("privileged"), Item::boolean)?.unwrap_or(false),
        working_dir: optional(hook.get("working_dir"), Item::string)?,
        env: pairs.into_iter().map(|(k, v)| v.map_or(k.clone(), |v| format!("{k}={v}"))).collect(),
    })
}
