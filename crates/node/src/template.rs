//! Docker's service templates: `{{.Task.Slot}}` and its siblings in hostname, environment and mount sources.
//!
//! Source: Docker "service create", section "Create services using templates".

use model::{Slot, Task};
use std::collections::BTreeMap;

/// What the placeholders of one task stand for.
#[derive(Debug, Clone)]
pub(crate) struct Values(BTreeMap<&'static str, String>);

/// A placeholder that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown placeholder {{{{{0}}}}}: known are .Service.ID .Service.Name .Node.ID .Node.Hostname .Node.Platform.OS .Node.Platform.Architecture .Task.ID .Task.Name .Task.Slot"
)]
pub(crate) struct UnknownPlaceholder(String);

impl Values {
    pub(crate) fn new(task: &Task, node: model::NodeId, hostname: &str) -> Self {
        let slot = match task.slot {
            Slot::Replica(n) => n.to_string(),
            Slot::Node(node) => node.to_string(),
        };
        Self(BTreeMap::from([
            (".Service.ID", task.service.to_string()),
            (".Service.Name", task.service_name.clone()),
            (".Node.ID", node.to_string()),
            (".Node.Hostname", hostname.to_owned()),
            (".Node.Platform.OS", "linux".to_owned()),
            (".Node.Platform.Architecture", architecture().to_owned()),
            (".Task.ID", task.id.to_string()),
            (".Task.Name", task.container_name()),
            (".Task.Slot", slot),
        ]))
    }

    /// Returns the text with every placeholder filled in.
    ///
    /// # Errors
    /// Names the first placeholder that does not exist.
    pub(crate) fn fill(&self, text: &str) -> Result<String, UnknownPlaceholder> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            out.push_str(before);
            let Some((name, tail)) = after.split_once("}}") else {
                // Not a placeholder: JSON in an environment value, for instance.
                out.push_str("{{");
                rest = after;
                continue;
            };
            match self.0.get(name.trim()) {
                Some(value) => out.push_str(value),
                None if name.trim().starts_with('.') => {
                    return Err(UnknownPlaceholder(name.trim().to_owned()));
                }
                None => {
                    out.push_str("{{");
                    out.push_str(name);
                    out.push_str("}}");
                }
            }
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Returns this machine's architecture as Docker's node description words it.
pub(crate) fn architecture() -> &'static str {
    std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values(BTreeMap::from([(".Task.Slot", "3".to_owned()), (".Node.Hostname", "a".to_owned())]))
    }

    #[test]
    fn placeholders_are_filled_and_other_braces_left_alone() {
        for (text, filled) in [
            ("web-{{.Task.Slot}}", "web-3"),
            ("{{ .Node.Hostname }}/{{.Task.Slot}}", "a/3"),
            ("plain", "plain"),
            ("{\"a\":{{1}}}", "{\"a\":{{1}}}"),
            ("open {{ end", "open {{ end"),
        ] {
            assert_eq!(values().fill(text), Ok(filled.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_unknown_placeholder_is_an_error_that_names_it() {
        assert_eq!(values().fill("{{.Task.Nope}}"), Err(UnknownPlaceholder(".Task.Nope".into())));
    }
}
