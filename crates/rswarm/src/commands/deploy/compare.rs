//! `rswarm stack diff`: two revisions of a stack, as their files say, key by key.

use super::plan::{Action, Change, Field, diff, in_words};
use crate::{cli::PlanFormat, output};
use anyhow::{Context as _, Result};
use docker_api::{client::Client, types};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, io::IsTerminal as _};

/// Sections of a stack file, and what one of their members is called.
const SECTIONS: [(&str, &str); 5] = [
    ("services", "service"),
    ("networks", "network"),
    ("volumes", "volume"),
    ("secrets", "secret"),
    ("configs", "config"),
];
/// What stands in the place of a secret's text. It is not for terminals.
const HIDDEN: &str = "(not shown)";

/// Prints what is otherwise in revision `to` than in revision `from`; `None` is the newest.
///
/// # Errors
/// There is no such stack or revision.
pub(crate) async fn run(
    client: &Client,
    stack: &str,
    from: u64,
    to: Option<u64>,
    format: PlanFormat,
) -> Result<()> {
    let found = client.stack(stack).await?;
    let to = to.or(found.revisions.last().map(|newest| newest.number)).unwrap_or_default();
    let (old, new) = (file(&found, from)?, file(&found, to)?);
    let changes = changes(&old, &new);
    match format {
        PlanFormat::Json => {
            let changes: Vec<Value> = changes.iter().map(Change::json).collect();
            output::line(&serde_json::to_string_pretty(
                &json!({"stack": stack, "from": from, "to": to, "changes": changes}),
            )?)
        }
        PlanFormat::Text if changes.is_empty() => output::line("No differences."),
        PlanFormat::Text => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            in_words(&changes, colour, false).iter().try_for_each(|line| output::styled(line))
        }
    }
}

/// Returns the file of a revision.
fn file(stack: &types::Stack, number: u64) -> Result<Value> {
    let revision = stack.revisions.iter().find(|revision| revision.number == number).with_context(|| {
        let kept: Vec<String> = stack.revisions.iter().map(|revision| revision.number.to_string()).collect();
        format!("stack {} has no revision {number}; there are {}", stack.name, kept.join(", "))
    })?;
    let mut file: Value = serde_yaml::from_str(&revision.source)
        .with_context(|| format!("the file of revision {number} of stack {} cannot be read", stack.name))?;
    for secret in file["secrets"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(content) = secret.get_mut("content") {
            *content = HIDDEN.into();
        }
    }
    Ok(file)
}

fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let members = |file: &Value, section: &str| file[section].as_object().cloned().unwrap_or_default();
    let mut changes = Vec::new();
    for (section, kind) in SECTIONS {
        let (old, new) = (members(old, section), members(new, section));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let mut fields = Vec::new();
            let action = match (old.get(name), new.get(name)) {
                (Some(old), Some(new)) => {
                    diff("", old, new, &mut fields);
                    Action::Update
                }
                (None, _) => Action::Create,
                (_, None) => Action::Remove,
            };
            if action != Action::Update || !fields.is_empty() {
                changes.push(Change { action, kind, name: name.clone(), fields });
            }
        }
    }
    changes.extend(rest(old, new));
    changes
}

/// What stands beside the sections: `x-` keys and the like.
fn rest(old: &Value, new: &Value) -> Option<Change> {
    let without = |file: &Value| {
        let mut rest = file.as_object().cloned().unwrap_or_default();
        rest.retain(|key, _| !SECTIONS.iter().any(|(section, _)| section == key));
        Value::Object(rest)
    };
    let mut fields: Vec<Field> = Vec::new();
    diff("", &without(old), &without(new), &mut fields);
    let name = new["name"].as_str().unwrap_or_default().to_owned();
    (!fields.is_empty()).then_some(Change { action: Action::Update, kind: "stack", name, fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(sources: &[&str]) -> types::Stack {
        let revision = |(number, source): (u64, &&str)| types::StackRevision {
            number,
            source: (*source).to_owned(),
            ..Default::default()
        };
        let revisions = (1..).zip(sources).map(revision).collect();
        types::Stack { name: "shop".into(), revisions, ..Default::default() }
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        let stack = stack(&[old, new]);
        in_words(&changes(&file(&stack, 1).unwrap(), &file(&stack, 2).unwrap()), false, false)
    }

    #[test]
    fn revisions_differ_key_by_key_as_their_files_say() {
        let old = "name: shop\nservices: {web: {image: 'a:1', environment: {A: '1', B: x.y}}, db: {image: d}}\nsecrets: {s: \
                   {content: one}}";
        let new = "name: shop\nservices: {web: {image: 'a:2', environment: {A: '1', B: z}}, c: {image: d}}\nsecrets: {s: \
                   {content: two}}\nx-team: blue";
        let wanted = [
            "+ service c",
            "- service db",
            "~ service web",
            "    environment.B: \"x.y\" -> \"z\"",
            "    image: \"a:1\" -> \"a:2\"",
            "~ stack shop",
            "    x-team: null -> \"blue\"",
        ];
        assert_eq!(told(old, new), wanted);
        assert!(told(old, old).is_empty());
    }

    #[test]
    fn a_revision_that_is_not_there_is_named_with_those_that_are() {
        let refused = file(&stack(&["name: shop", "name: shop"]), 7).unwrap_err().to_string();
        assert_eq!(refused, "stack shop has no revision 7; there are 1, 2");
    }
}
