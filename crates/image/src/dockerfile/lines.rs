//! Splits the text of a Dockerfile into instructions: directives, comments, continued lines, here-documents.
//!
//! *Source:* BuildKit `frontend/dockerfile/parser`, Docker's Dockerfile reference "Format", "Parser directives",
//! "Here-Documents".

use super::{
    SyntaxError,
    words::{Words, split},
};

/// An instruction as it is written, with continued lines joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its end mark; of COPY: the file's name.
    pub name: String,
    pub content: String,
    /// Variables in it are replaced: its mark was not quoted.
    pub expand: bool,
}

/// What a whole Dockerfile says before its first instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) escape: char,
    pub(super) syntax: Option<String>,
}

/// Splits a whole Dockerfile.
pub(super) fn read(text: &str) -> Result<(Directives, Vec<Line>), SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let directives = directives(text)?;
    let lines = read_with(text, directives.escape)?;
    Ok((directives, lines))
}

/// As [`read`], with an escape character that is known; of instructions that stand alone.
pub(super) fn read_with(text: &str, escape: char) -> Result<Vec<Line>, SyntaxError> {
    let mut found = Vec::new();
    let mut physical = text.split_inclusive('\n').enumerate();
    while let Some((at, first)) = physical.next() {
        let (mut line, mut continued) = continued(without_comment(first.trim_start()), escape);
        if line.is_empty() && !continued {
            continue;
        }
        while continued {
            let Some((_, next)) = physical.next() else { break };
            let next = without_comment(next);
            if next.trim().is_empty() {
                continue; // a comment or an empty line does not end the instruction
            }
            let more;
            (more, continued) = self::continued(next, escape);
            line.push_str(&more);
        }
        let number = at + 1;
        let line = line.trim().to_owned();
        if line.is_empty() {
            continue;
        }
        let mut heredocs = marks(&line, escape);
        for (heredoc, tabs) in &mut heredocs {
            loop {
                let Some((_, next)) = physical.next() else {
                    return Err(SyntaxError::new(number, "unterminated heredoc"));
                };
                let end = next.trim_end_matches(['\n', '\r']);
                if (if *tabs { end.trim_start_matches('\t') } else { end }) == heredoc.name {
                    break;
                }
                heredoc.content.push_str(if *tabs { next.trim_start_matches('\t') } else { next });
            }
        }
        let heredocs = heredocs.into_iter().map(|(heredoc, _)| heredoc).collect();
        found.push(Line { number, text: line, heredocs });
    }
    Ok(found)
}

/// Returns `(text, true)` if the line goes on.
fn continued(line: &str, escape: char) -> (String, bool) {
    let line = line.trim_end_matches(['\n', '\r']);
    let ended = line.trim_end_matches([' ', '\t']);
    match ended.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with('#') { "" } else { line }
}

fn directives(text: &str) -> Result<Directives, SyntaxError> {
    let mut directives = Directives { escape: '\\', syntax: None };
    let mut seen: Vec<String> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let pair = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((name, value)) = pair.map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim())) else { break };
        if value.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            break;
        }
        match name.as_str() {
            "escape" => match value {
                "\\" => directives.escape = '\\',
                "`" => directives.escape = '`',
                _ => {
                    let reason = format!("invalid escape token '{value}' does not match ` or \\");
                    return Err(SyntaxError::new(at + 1, reason));
                }
            },
            // There is one front end here; it reads the newest syntax.
            "syntax" => directives.syntax = Some(value.to_owned()),
            "check" => {}
            _ => break,
        }
        if seen.contains(&name) {
            return Err(SyntaxError::new(at + 1, format!("only one {name} parser directive can be used")));
        }
        seen.push(name);
    }
    Ok(directives)
}

/// Returns the here-documents that a line announces, and whether leading tabs of theirs go.
fn marks(line: &str, escape: char) -> Vec<(Heredoc, bool)> {
    let mut keyword = line.split_whitespace().map(str::to_ascii_uppercase).find(|word| word != "ONBUILD");
    let may_have = matches!(keyword.take().as_deref(), Some("ADD" | "COPY" | "RUN"));
    if !may_have || !line.contains("<<") {
        return Vec::new();
    }
    let unset: super::Lookup<'_> = &|_| None;
    split(line, escape)
        .iter()
        .filter_map(|word| {
            let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
            let (rest, tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
            if rest.is_empty() || rest.contains('<') {
                return None;
            }
            let plain = Words { escape, lookup: unset, raw: false }.many(rest).ok()?;
            let [name] = <[String; 1]>::try_from(plain).ok()?;
            let expand = name == rest;
            Some((Heredoc { name, content: String::new(), expand }, tabs))
        })
        .collect()
}
