//! Which stages a build needs, and where each takes its files from. Pure.

use super::failure::BuildError;
use image::dockerfile::{self, Dockerfile, Instruction, Lookup};
use std::collections::{BTreeSet, HashMap};

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    Image {
        name: String,
        platform: Option<String>,
    },
}

/// Where COPY and mounts of RUN take files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Context,
    Stage(usize),
    Image(String),
}

/// What has to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Graph {
    /// By stage; of those that are not needed too.
    pub(super) bases: Vec<Base>,
    /// In the order of the file: a stage only ever needs earlier ones.
    pub(super) needed: Vec<usize>,
    pub(super) target: usize,
}

impl Graph {
    /// Plans a build of one target (empty: the last stage).
    pub(super) fn plan(file: &Dockerfile, target: &str, globals: Lookup<'_>) -> Result<Self, BuildError> {
        let target = match target {
            "" => file.stages.len() - 1,
            name => {
                let named = stage_called(file, name, file.stages.len());
                named.ok_or_else(|| BuildError::NoTarget(name.to_owned()))?
            }
        };
        let (mut bases, mut names) = (Vec::new(), HashMap::new());
        for (at, stage) in file.stages.iter().enumerate() {
            let expand = |text: &str| {
                let failed = |reason| BuildError::step("FROM", stage.line, reason);
                dockerfile::expand(text, file.escape, globals).map_err(failed)
            };
            let name = expand(&stage.base)?;
            let platform = stage.platform.as_deref().map(expand).transpose()?.filter(|p| !p.is_empty());
            let earlier = names.get(&*name.to_ascii_lowercase());
            bases.push(match earlier {
                Some(stage) => Base::Stage(*stage),
                None if name == "scratch" => Base::Scratch,
                None if name.is_empty() => {
                    let reason = format!("base name ({}) should not be blank", stage.base);
                    return Err(BuildError::step("FROM", stage.line, reason));
                }
                None => Base::Image { name, platform },
            });
            if let Some(name) = stage.name.as_deref() {
                names.entry(name).or_insert(at);
            }
        }
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(at) = open.pop() {
            if !needed.insert(at) {
                continue;
            }
            open.extend(stages_read(file, at));
            if let Base::Stage(base) = bases[at] {
                open.push(base);
            }
        }
        Ok(Self { bases, needed: needed.into_iter().collect(), target })
    }
}

fn stages_read(file: &Dockerfile, at: usize) -> Vec<usize> {
    let mut found = Vec::new();
    for step in &file.stages[at].steps {
        let names: Vec<&str> = match &step.instruction {
            Instruction::Copy(transfer) => transfer.from.iter().map(String::as_str).collect(),
            Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect(),
            _ => Vec::new(),
        };
        for name in names {
            if let Source::Stage(stage) = source(file, Some(name), at) {
                found.push(stage);
            }
        }
    }
    found
}

/// Returns the stage before `before` that is called so, by name or number.
fn stage_called(file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    let named = file.stages[..before].iter().position(|stage| stage.name.as_deref() == Some(&*lower));
    named.or_else(|| name.parse().ok().filter(|number| *number < before))
}

/// Tells what `--from` means in the stage `at`.
pub(super) fn source(file: &Dockerfile, from: Option<&str>, at: usize) -> Source {
    match from {
        None | Some("") => Source::Context,
        Some(name) => match stage_called(file, name, at) {
            Some(stage) => Source::Stage(stage),
            None => Source::Image(name.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, target: &str) -> Result<Graph, BuildError> {
        Graph::plan(&Dockerfile::parse(text).unwrap(), target, &|name| (name == "V").then(|| "7".into()))
    }

    #[test]
    fn only_stages_that_the_target_needs_are_built() {
        let file = "FROM a AS one\nFROM b AS two\nFROM one AS three\nCOPY --from=two /x /\nFROM c AS four\n\
                    FROM d:$V\nRUN --mount=from=1,target=/m x\nCOPY --from=image /x /";
        assert_eq!(plan(file, "").unwrap().needed, [1, 4]);
        assert_eq!(plan(file, "THREE").unwrap().needed, [0, 1, 2]);
        assert_eq!(plan(file, "0").unwrap().needed, [0]);
        assert_eq!(plan(file, "").unwrap().bases[4], Base::Image { name: "d:7".into(), platform: None });
        assert_eq!(
            plan(file, "none").unwrap_err().to_string(),
            "failed to reach build target none in Dockerfile"
        );
    }

    #[test]
    fn a_base_is_an_earlier_stage_an_image_or_nothing() {
        let graph = plan("FROM scratch AS a\nFROM A\nFROM busybox", "").unwrap();
        assert_eq!(graph.bases[..2], [Base::Scratch, Base::Stage(0)]);
        assert!(plan("FROM $NONE", "").unwrap_err().to_string().contains("should not be blank"));
        let file = Dockerfile::parse("FROM a AS a\nFROM b").unwrap();
        assert_eq!(source(&file, Some("a"), 1), Source::Stage(0));
        assert_eq!(source(&file, Some("1"), 1), Source::Image("1".into()));
        assert_eq!(source(&file, None, 1), Source::Context);
    }
}
