//! What a node has beside CPUs and memory, and what a task wants of it: GPUs, licences, anything that can be
//! counted or named.
//!
//! Source: swarmkit `api/genericresource`; dockerd `--node-generic-resource`; Docker API `GenericResources`.

use std::collections::{BTreeMap, BTreeSet};

/// What there is, or what a task was given, by kind: `bandwidth`, or `nvidia.com/gpu` for devices that a node
/// finds by itself (Container Device Interface).
pub type GenericResources = BTreeMap<String, Supply>;

/// What a task wants, by kind. `gpu` stands for any vendor's: see [`serves`].
pub type GenericRequests = BTreeMap<String, Want>;

/// How much there is of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supply {
    /// Alike ones ("discrete").
    Count(u64),
    /// Ones with a name each, which is what a task is told.
    Named(BTreeSet<String>),
}

/// How much is wanted of one kind, from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// At least 1.
    Count(u64),
    /// All that the node has, none of it in use, and at least one.
    All,
    These(BTreeSet<String>),
    /// These, and as many others of the kind.
    TheseAndMore {
        names: BTreeSet<String>,
        more: u64,
    },
}

/// The first feature level at which there is [`Want::TheseAndMore`].
pub const TOGETHER_LEVEL: u32 = 3;

impl Supply {
    /// Returns true if it is nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Count(n) => *n == 0,
            Self::Named(names) => names.is_empty(),
        }
    }

    /// Adds what another holds; `Named` wins over a count, which a node cannot mix.
    pub fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(mine), Self::Count(more)) => *mine = mine.saturating_add(*more),
            (Self::Named(mine), Self::Named(more)) => mine.extend(more.iter().cloned()),
            (Self::Named(_), Self::Count(_)) => {}
            (mine, more) => *mine = more.clone(),
        }
    }

    /// Returns true if all of it is in `whole`.
    pub fn is_within(&self, whole: &Self) -> bool {
        match (self, whole) {
            (Self::Count(part), Self::Count(all)) => part <= all,
            (Self::Named(part), Self::Named(all)) => part.is_subset(all),
            _ => self.is_empty(),
        }
    }
}

/// Returns true if a request for the kind `wanted` may be served from `kind`: the same, or a vendor's kind of that
/// class (`nvidia.com/gpu` for `gpu`).
pub fn serves(kind: &str, wanted: &str) -> bool {
    kind == wanted || kind.rsplit_once('/').is_some_and(|(_, class)| class == wanted)
}

/// Returns the place of a kind among those that could serve a request: Docker asks for NVIDIA's, then AMD's.
pub fn rank(kind: &str) -> (usize, &str) {
    const FIRST: [&str; 2] = ["nvidia.com/", "amd.com/"];
    let place = FIRST.iter().position(|vendor| kind.starts_with(vendor));
    (place.unwrap_or(FIRST.len()), kind)
}

/// Reads what an operator says a node has: `KIND=NUMBER` or, once per name, `KIND=NAME`.
///
/// # Errors
/// With the item and what is wrong with it. *Source:* dockerd `--node-generic-resource`.
pub fn generic_resources<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<GenericResources, String> {
    let mut out = GenericResources::new();
    for item in items {
        let bad = |why: &str| Err(format!("invalid generic resource {item:?}: {why}"));
        let Some((kind, value)) =
            item.split_once('=').filter(|(kind, value)| is_word(kind) && is_word(value))
        else {
            return bad("it must be KIND=NUMBER or KIND=NAME");
        };
        let supply = match value.parse::<i64>() {
            Ok(n) => match u64::try_from(n) {
                Ok(n) if n > 0 => Supply::Count(n),
                _ => return bad("the number must be greater than 0"),
            },
            Err(_) => Supply::Named(BTreeSet::from([value.to_owned()])),
        };
        match (out.get_mut(kind), supply) {
            (None, supply) => {
                out.insert(kind.to_owned(), supply);
            }
            (Some(Supply::Named(names)), Supply::Named(more)) => names.extend(more),
            (Some(_), _) => return bad("a kind is either one number or a list of names"),
        }
    }
    Ok(out)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == ',' || c == '=' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Supply {
        Supply::Named(names.iter().map(|n| (*n).to_owned()).collect())
    }

    #[test]
    fn what_a_node_has_is_counted_or_named() {
        let found = generic_resources(["GPU=b", "bandwidth=10", "GPU=a"]).unwrap();
        let expected = GenericResources::from([
            ("GPU".into(), named(&["a", "b"])),
            ("bandwidth".into(), Supply::Count(10)),
        ]);
        assert_eq!(found, expected);
        for bad in ["GPU", "=a", "GPU=", "GPU=a b", "GPU=a=b", "GPU=-1", "GPU=0"] {
            assert!(generic_resources([bad]).unwrap_err().contains(&format!("{bad:?}")), "{bad}");
        }
        for mixed in [["GPU=a", "GPU=3"], ["GPU=3", "GPU=a"], ["GPU=3", "GPU=3"]] {
            assert!(generic_resources(mixed).unwrap_err().contains("either"), "{mixed:?}");
        }
    }

    #[test]
    fn a_class_is_served_by_any_vendor() {
        assert!(serves("gpu", "gpu") && serves("nvidia.com/gpu", "gpu"));
        assert!(serves("nvidia.com/gpu", "nvidia.com/gpu"));
        assert!(rank("nvidia.com/gpu") < rank("amd.com/gpu") && rank("amd.com/gpu") < rank("a.com/gpu"));
        assert!(!serves("nvidia.com/gpu", "amd.com/gpu") && !serves("gpu", "nvidia.com/gpu"));
    }

    #[test]
    fn a_part_is_within_the_whole() {
        assert!(named(&["a"]).is_within(&named(&["a", "b"])) && !named(&["c"]).is_within(&named(&["a"])));
        assert!(
            Supply::Count(2).is_within(&Supply::Count(2)) && !Supply::Count(3).is_within(&Supply::Count(2))
        );
        assert!(!named(&["a"]).is_within(&Supply::Count(9)) && Supply::Count(0).is_within(&named(&[])));
    }
}
