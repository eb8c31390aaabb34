//! Dockerfiles: text to instructions, and what an instruction does to an image's configuration. Pure; whoever builds
//! runs the commands and copies the files.
//!
//! Written here rather than taken from a crate, because what Docker's tools show and keep (the text of a step, the name
//! of a here-document, which quote was escaped before a variable is replaced) does not come through the parsers there are.
//!
//! *Source:* Docker's Dockerfile reference, BuildKit `frontend/dockerfile/{parser,instructions,shell}`.

mod instruction;
mod lines;
mod pattern;
pub(crate) mod values;
mod words;

pub use instruction::{
    CommandLine, Instruction, MountKind, Run, RunMount, Sharing, Transfer, TransferSource,
};
pub use lines::Heredoc;
pub use pattern::{IgnoreList, InvalidPattern, Pattern};
pub use words::Lookup;

use std::collections::HashSet;
use words::Words;

/// *Limit* of a Dockerfile: each one is a step that images keep in their history.
const INSTRUCTIONS_MAX: usize = 10_000;

/// A Dockerfile that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {line}: {reason}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    pub reason: String,
}

impl SyntaxError {
    fn new(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    pub escape: char,
    /// The front end that `# syntax=` asks for.
    pub syntax: Option<String>,
    /// `ARG`s before the first stage: `FROM` alone sees them, and stages that declare them again.
    pub globals: Vec<Step>,
    /// At least one.
    pub stages: Vec<Stage>,
}

/// From one `FROM` to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// In lower case.
    pub name: Option<String>,
    /// Image or earlier stage; variables are still in it.
    pub base: String,
    /// Variables are still in it.
    pub platform: Option<String>,
    /// Of the `FROM`, from 1.
    pub line: usize,
    /// The `FROM` as it is written.
    pub text: String,
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// From 1.
    pub line: usize,
    /// As it is written, continued lines joined.
    pub text: String,
    pub instruction: Instruction,
}

impl Dockerfile {
    /// Reads a whole Dockerfile.
    ///
    /// # Errors
    /// The first line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let (directives, lines) = lines::read(text)?;
        let mut file = Self {
            escape: directives.escape,
            syntax: directives.syntax,
            globals: Vec::new(),
            stages: Vec::new(),
        };
        let last = lines.last().map_or(1, |line| line.number);
        if let Some(line) = lines.get(INSTRUCTIONS_MAX) {
            return Err(SyntaxError::new(line.number, format!("more than {INSTRUCTIONS_MAX} instructions")));
        }
        let mut names = HashSet::new();
        for line in lines {
            if instruction::keyword(&line.text) == "FROM" {
                let stage = instruction::from(&line, file.escape)?;
                if let Some(name) = &stage.name
                    && !names.insert(name.clone())
                {
                    return Err(SyntaxError::new(line.number, format!("duplicate name {name}")));
                }
                file.stages.push(stage);
                continue;
            }
            let step = instruction::parse(line, file.escape)?;
            match (file.stages.last_mut(), &step.instruction) {
                (Some(stage), _) => stage.steps.push(step),
                (None, Instruction::Arg(_)) => file.globals.push(step),
                (None, _) => return Err(SyntaxError::new(step.line, "no build stage in current context")),
            }
        }
        if file.stages.is_empty() {
            let nothing = file.globals.is_empty();
            let reason =
                if nothing { "file with no instructions" } else { "no build stage in current context" };
            return Err(SyntaxError::new(last, reason));
        }
        Ok(file)
    }
}

/// Reads one instruction that stands alone: an `ONBUILD` trigger, a `--change`.
///
/// # Errors
/// As [`Dockerfile::parse`]; also a `FROM`, or more than one instruction.
pub fn parse_one(text: &str, escape: char) -> Result<Step, SyntaxError> {
    let lines = lines::read_with(text, escape)?;
    match <[lines::Line; 1]>::try_from(lines) {
        Ok([line]) if instruction::keyword(&line.text) != "FROM" => instruction::parse(line, escape),
        _ => Err(SyntaxError::new(1, "one instruction other than FROM is needed")),
    }
}

/// Replaces the variables of a text as a `FROM` has them.
///
/// # Errors
/// What is wrong with the text.
pub fn expand(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    Words { escape, lookup, raw: false }.one(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<(usize, String)> {
        let file = Dockerfile::parse(file).unwrap();
        file.stages.iter().flat_map(|s| &s.steps).map(|s| (s.line, s.text.clone())).collect()
    }

    fn only(instruction: &str) -> Instruction {
        parse_one(instruction, '\\').unwrap().instruction
    }

    #[track_caller]
    fn check_error(file: &str, expected: &str) {
        assert_eq!(Dockerfile::parse(file).unwrap_err().to_string(), expected);
    }

    #[test]
    fn lines_are_joined_and_comments_go() {
        let file =
            "# a comment\nFROM a\n  RUN echo \\\n  # not this\n\n    hello # but this\n\n# end\nUSER x\n";
        assert_eq!(texts(file), [(3, "RUN echo     hello # but this".to_owned()), (9, "USER x".to_owned())]);
        assert_eq!(texts("# escape=`\nFROM a\nRUN a `\n b \\\nUSER x")[0].1, "RUN a  b \\");
        assert_eq!(texts("FROM a\nRUN a\\\\\nUSER x").len(), 2);
        assert_eq!(texts("\u{feff}FROM a\r\nRUN a \\\r\n  b\r\n")[0].1, "RUN a   b");
    }

    #[test]
    fn a_file_is_as_long_as_people_write_them() {
        let file = |count: usize| format!("FROM a{}", "\nUSER x".repeat(count - 1));
        assert!(Dockerfile::parse(&file(INSTRUCTIONS_MAX)).is_ok());
        let reason = Dockerfile::parse(&file(INSTRUCTIONS_MAX + 1)).unwrap_err().to_string();
        assert!(reason.contains("more than 10000 instructions"), "{reason}");
    }

    #[test]
    fn heredocs_are_read_with_their_names() {
        let file = "FROM a\nCOPY <<one.txt <<-\"two\" /dir/\n1 $X\none.txt\n\t2\n\ttwo\nRUN <<EOF cat\nhi\nEOF\nUSER x";
        let file = Dockerfile::parse(file).unwrap();
        let Instruction::Copy(copy) = &file.stages[0].steps[0].instruction else { panic!() };
        let inline = |name: &str, content: &str, expand| {
            TransferSource::Inline(Heredoc { name: name.into(), content: content.into(), expand })
        };
        assert_eq!(copy.sources, [inline("one.txt", "1 $X\n", true), inline("two", "2\n", false)]);
        let Instruction::Run(run) = &file.stages[0].steps[1].instruction else { panic!() };
        assert_eq!(run.heredocs[0].content, "hi\n");
        assert_eq!(file.stages[0].steps.len(), 3);
        check_error("FROM a\nRUN <<EOF\nx", "dockerfile parse error on line 2: unterminated heredoc");
    }

    #[test]
    fn stages_and_global_arguments() {
        let file = "ARG V=1\nFROM --platform=$P a:$V AS Base\nRUN x\nFROM base\nCOPY --from=base /a /b";
        let file = Dockerfile::parse(file).unwrap();
        assert_eq!(file.globals.len(), 1);
        assert_eq!(file.stages[0].name.as_deref(), Some("base"));
        assert_eq!(file.stages[0].platform.as_deref(), Some("$P"));
        let Instruction::Copy(copy) = &file.stages[1].steps[0].instruction else { panic!() };
        assert_eq!(copy.from.as_deref(), Some("base"));
        assert_eq!(copy.destination, "/b");
    }

    #[test]
    fn errors_name_the_line() {
        check_error("", "dockerfile parse error on line 1: file with no instructions");
        check_error("FROM a\n\nFOO x", "dockerfile parse error on line 3: unknown instruction: FOO");
        check_error("RUN x", "dockerfile parse error on line 1: no build stage in current context");
        check_error(
            "FROM a b",
            "dockerfile parse error on line 1: FROM requires either one or three arguments",
        );
        check_error(
            "FROM a AS 1x",
            "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        );
        check_error("FROM a AS x\nFROM b AS X", "dockerfile parse error on line 2: duplicate name x");
        check_error("FROM a\nENV", "dockerfile parse error on line 2: ENV requires at least one argument");
        check_error("FROM a\nENV x", "dockerfile parse error on line 2: ENV must have two arguments");
        check_error(
            "FROM a\nENV a=b c",
            "dockerfile parse error on line 2: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        );
        check_error(
            "FROM a\nCOPY x",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        );
        check_error("FROM a\nCOPY --form=x a b", "dockerfile parse error on line 2: unknown flag: form");
        check_error(
            "FROM a\nSHELL sh -c",
            "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
        );
        check_error(
            "FROM a\nONBUILD ONBUILD RUN x",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        );
        check_error(
            "FROM a\nONBUILD FROM x",
            "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        );
        check_error(
            "FROM a\nHEALTHCHECK --retries=x CMD y",
            "dockerfile parse error on line 2: retries is a number",
        );
        check_error(
            "FROM a\nHEALTHCHECK maybe",
            "dockerfile parse error on line 2: Unknown type \"MAYBE\" in HEALTHCHECK (try CMD)",
        );
        check_error(
            "FROM a\nRUN --mount=type=magic x",
            "dockerfile parse error on line 2: unsupported mount type \"magic\"",
        );
        check_error(
            "# escape=x\nFROM a",
            "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\",
        );
        check_error(
            "FROM a\nWORKDIR",
            "dockerfile parse error on line 2: WORKDIR requires exactly one argument",
        );
    }

    #[test]
    fn commands_are_exec_or_shell() {
        assert_eq!(
            only("CMD [\"a\", \"b c\"]"),
            Instruction::Cmd(CommandLine::Exec(vec!["a".into(), "b c".into()]))
        );
        assert_eq!(only("CMD ['a']"), Instruction::Cmd(CommandLine::Shell("['a']".into())));
        assert_eq!(only("ENTRYPOINT top -b"), Instruction::Entrypoint(CommandLine::Shell("top -b".into())));
    }

    #[test]
    fn mounts_of_run_are_read() {
        let Instruction::Run(run) = only(
            "RUN --mount=type=cache,target=/c,id=x,sharing=locked --mount=from=b,source=/s,target=/t,rw --network=none make",
        ) else {
            panic!()
        };
        assert_eq!(run.network.as_deref(), Some("none"));
        assert_eq!(run.mounts[0].kind, MountKind::Cache);
        assert_eq!(run.mounts[0].sharing, Sharing::Locked);
        assert_eq!((run.mounts[1].from.as_deref(), run.mounts[1].writable), (Some("b"), Some(true)));
        assert_eq!(run.command, CommandLine::Shell("make".into()));
    }

    #[test]
    fn a_key_of_a_mount_that_its_type_has_not_is_refused() {
        for (mount, said) in [
            ("type=bind,target=/t,mode=0700", "mode not allowed for \"bind\" type mounts"),
            ("type=bind,target=/t,sharing=locked", "sharing not allowed"),
            ("type=tmpfs,target=/t,id=x", "id not allowed for \"tmpfs\" type mounts"),
            ("type=cache,target=/t,size=1m", "size not allowed for \"cache\" type mounts"),
            ("type=cache,target=/t,required", "required not allowed"),
            ("type=cache,target=/t,source=/s", "from is required"),
            ("type=secret,id=x,from=b", "from not allowed for \"secret\" type mounts"),
            ("type=secret,id=x,source=y", "both source and id"),
            ("type=secret", "one of source, target required"),
            ("type=ssh,env=X", "env not allowed for \"ssh\" type mounts"),
        ] {
            let error =
                Dockerfile::parse(&format!("FROM a\nRUN --mount={mount} make\n")).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains('2'), "{mount}: {error}");
        }
        for mount in [
            "type=bind,from=b,source=/s,target=/t,rw",
            "type=cache,id=x,from=b,source=/s,target=/t,ro,sharing=private,mode=0700,uid=1,gid=2",
            "type=tmpfs,target=/t,size=1m",
            "type=secret,id=x,target=/t,required=true,mode=0400,uid=1,gid=2,env=X",
            "type=ssh,id=default,target=/t,required,mode=0600,uid=1,gid=2",
        ] {
            Dockerfile::parse(&format!("FROM a\nRUN --mount={mount} make\n")).unwrap();
        }
    }

    #[test]
    fn instructions_replace_variables_as_docker_does() {
        let lookup: Lookup<'_> = &|name| (name == "X").then(|| "a b".to_owned());
        let expanded = |text| only(text).expand('\\', lookup).unwrap();
        assert_eq!(
            expanded("ENV A=$X B='$X' C=\"$X c\""),
            Instruction::Env(vec![
                ("A".into(), "a b".into()),
                ("B".into(), "$X".into()),
                ("C".into(), "a b c".into()),
            ])
        );
        assert_eq!(
            expanded("ENV A $X  and \"more\""),
            Instruction::Env(vec![("A".into(), "a b  and more".into())])
        );
        assert_eq!(expanded("RUN echo $X"), only("RUN echo $X"));
        assert_eq!(expanded("CMD echo $X"), only("CMD echo $X"));
        assert_eq!(expanded("WORKDIR /$X"), Instruction::Workdir("/a b".into()));
        assert_eq!(expanded("EXPOSE $X"), Instruction::Expose(vec!["a".into(), "b".into()]));
    }
}
