//! Resources beside CPUs and memory. Source: Docker API `GenericResources`.

use super::{Result, invalid, signed};
use crate::types::{DiscreteResource, GenericResource, NamedResource};
use model::{GenericRequests, GenericResources, Supply, Want};
use std::collections::BTreeSet;

/// Says "all" in place of a number. Source: Docker API `DeviceRequest.Count`.
const ALL: i64 = -1;

pub(super) fn generic_requests(from: Vec<GenericResource>) -> Result<GenericRequests> {
    let mut out = GenericRequests::new();
    for resource in from {
        let (kind, want) = match resource {
            GenericResource { named: Some(named), discrete: None } => {
                (named.kind, Want::These(BTreeSet::from([named.value])))
            }
            GenericResource { named: None, discrete: Some(discrete) } => {
                let want = match (discrete.value, u64::try_from(discrete.value)) {
                    (ALL, _) => Want::All,
                    (_, Ok(n)) if n > 0 => Want::Count(n),
                    (n, _) => {
                        return invalid(format!(
                            "invalid generic resource {}={n}: at least 1",
                            discrete.kind
                        ));
                    }
                };
                (discrete.kind, want)
            }
            _ => {
                return invalid(
                    "GenericResources: each is either a NamedResourceSpec or a DiscreteResourceSpec",
                );
            }
        };
        let want = match out.remove(&kind) {
            None => want,
            Some(before) => match together(before, want) {
                Some(both) => both,
                None => {
                    return invalid(format!(
                        "generic resource {kind}: all of it ({ALL}) and something of it"
                    ));
                }
            },
        };
        out.insert(kind, want);
    }
    Ok(out)
}

/// Adds up two requests for one kind; `None`: one of them wants all that there is.
fn together(one: Want, other: Want) -> Option<Want> {
    let parts = |want: Want| match want {
        Want::Count(n) => Some((BTreeSet::new(), n)),
        Want::These(names) => Some((names, 0)),
        Want::TheseAndMore { names, more } => Some((names, more)),
        Want::All => None,
    };
    let ((mut names, more), (other_names, other_more)) = (parts(one)?, parts(other)?);
    names.extend(other_names);
    Some(match more.saturating_add(other_more) {
        0 => Want::These(names),
        more if names.is_empty() => Want::Count(more),
        more => Want::TheseAndMore { names, more },
    })
}

pub(super) fn generic_requests_json(from: &GenericRequests) -> Vec<GenericResource> {
    from.iter()
        .flat_map(|(kind, want)| match want {
            Want::Count(n) => vec![discrete(kind, signed(*n))],
            Want::All => vec![discrete(kind, ALL)],
            Want::These(names) => names.iter().map(|name| named(kind, name)).collect(),
            Want::TheseAndMore { names, more } => {
                let certain = names.iter().map(|name| named(kind, name));
                std::iter::once(discrete(kind, signed(*more))).chain(certain).collect()
            }
        })
        .collect()
}

/// Writes what a node has or a task was given.
pub fn generic_resources_json(from: &GenericResources) -> Vec<GenericResource> {
    from.iter()
        .flat_map(|(kind, supply)| match supply {
            Supply::Count(n) => vec![discrete(kind, signed(*n))],
            Supply::Named(names) => names.iter().map(|name| named(kind, name)).collect(),
        })
        .collect()
}

fn discrete(kind: &str, value: i64) -> GenericResource {
    GenericResource { named: None, discrete: Some(DiscreteResource { kind: kind.to_owned(), value }) }
}

fn named(kind: &str, name: &str) -> GenericResource {
    let named = NamedResource { kind: kind.to_owned(), value: name.to_owned() };
    GenericResource { named: Some(named), discrete: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_as_they_were_sent() {
        let sent = r#"[{"DiscreteResourceSpec":{"Kind":"a","Value":2}},{"DiscreteResourceSpec":{"Kind":"b","Value":-1}},
            {"NamedResourceSpec":{"Kind":"c","Value":"x"}},{"NamedResourceSpec":{"Kind":"c","Value":"y"}},
            {"DiscreteResourceSpec":{"Kind":"d","Value":1}},{"NamedResourceSpec":{"Kind":"d","Value":"x"}}]"#;
        let parsed: Vec<GenericResource> = crate::types::parse(sent.as_bytes()).unwrap();
        let read = generic_requests(parsed.clone()).unwrap();
        assert_eq!(read["a"], Want::Count(2));
        assert_eq!(read["b"], Want::All);
        assert_eq!(read["c"], Want::These(["x".to_owned(), "y".to_owned()].into()));
        assert_eq!(read["d"], Want::TheseAndMore { names: ["x".to_owned()].into(), more: 1 });
        assert_eq!(generic_requests_json(&read), parsed);
        let twice = r#"[{"DiscreteResourceSpec":{"Kind":"a","Value":1}},{"DiscreteResourceSpec":{"Kind":"a","Value":2}}]"#;
        let read = generic_requests(crate::types::parse(twice.as_bytes()).unwrap()).unwrap();
        assert_eq!(read["a"], Want::Count(3));
    }

    #[test]
    fn requests_without_meaning_are_refused() {
        for bad in [
            r#"[{}]"#,
            r#"[{"DiscreteResourceSpec":{"Kind":"a","Value":0}}]"#,
            r#"[{"DiscreteResourceSpec":{"Kind":"a","Value":-2}}]"#,
            r#"[{"DiscreteResourceSpec":{"Kind":"a","Value":1}},{"DiscreteResourceSpec":{"Kind":"a","Value":-1}}]"#,
            r#"[{"DiscreteResourceSpec":{"Kind":"a","Value":-1}},{"NamedResourceSpec":{"Kind":"a","Value":"x"}}]"#,
        ] {
            assert!(generic_requests(crate::types::parse(bad.as_bytes()).unwrap()).is_err(), "{bad}");
        }
    }
}
