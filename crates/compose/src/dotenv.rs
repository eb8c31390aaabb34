//! Environment files: `.env` beside the stack file, and `env_file`. Source: compose specification
//! "Env_file format".

use crate::{Error, Files, Sources};
use std::{collections::BTreeMap, io, path::Path};

/// Reads the files that the caller names, else `.env` of the project directory, if there is one.
pub(crate) fn read_default(sources: &Sources, files: &dyn Files) -> Result<BTreeMap<String, String>, Error> {
    if sources.env_files.is_empty() && sources.no_default_env {
        return Ok(BTreeMap::new());
    }
    if sources.env_files.is_empty() {
        return read_folder(&sources.project_dir, files, &sources.env);
    }
    let mut all = BTreeMap::new();
    for file in &sources.env_files {
        let fail = |source| Error::ReadDefaultEnv { file: file.clone(), source };
        all.extend(known(parse(file, &files.read(file).map_err(fail)?, &sources.env)?));
    }
    Ok(all)
}

fn known(entries: Vec<(String, Option<String>)>) -> impl Iterator<Item = (String, String)> {
    entries.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// Reads `.env` of a folder, if there is one.
pub(crate) fn read_folder(
    folder: &Path,
    files: &dyn Files,
    env: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Error> {
    let file = folder.join(".env");
    match files.read(&file) {
        Ok(bytes) => Ok(known(parse(&file, &bytes, env)?).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(Error::ReadDefaultEnv { file, source }),
    }
}

/// Parses `KEY=value` lines; a bare `KEY` has no value. Values in double quotes know `\n` and variables, in
/// single quotes nothing; others end at ` #`.
pub(crate) fn parse(
    file: &Path,
    bytes: &[u8],
    env: &BTreeMap<String, String>,
) -> Result<Vec<(String, Option<String>)>, Error> {
    let fail = |line: usize, text: String| Error::EnvFile { file: file.to_path_buf(), line, text };
    let text = std::str::from_utf8(bytes).map_err(|e| fail(1, format!("is not UTF-8: {e}")))?;
    let mut entries: Vec<(String, Option<String>)> = Vec::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim_end(), Some(value)),
            None => (line.trim_end(), None),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(fail(number + 1, format!("unexpected character in variable name {key:?}")));
        }
        let value = match value {
            None => None,
            Some(value) => {
                let mut value = value.trim_start().to_owned();
                if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
                    // A quoted value may go over several lines.
                    while closing_quote(&value, quote).is_none() {
                        let (_, more) = lines
                            .next()
                            .ok_or_else(|| fail(number + 1, format!("unterminated quoted value of {key}")))?;
                        value.push('\n');
                        value.push_str(more);
                    }
                }
                Some(evaluate(&value, &|name| lookup(&entries, env, name)))
            }
        };
        entries.push((key.to_owned(), value));
    }
    Ok(entries)
}

/// Parses `KEY=value` lines whose values are all that stands behind the `=`: quotes and dollar signs are part of them.
/// Source: compose specification "env_file", `format: raw`.
pub(crate) fn parse_raw(file: &Path, bytes: &[u8]) -> Result<Vec<(String, Option<String>)>, Error> {
    let fail = |line: usize, text: String| Error::EnvFile { file: file.to_path_buf(), line, text };
    let text = std::str::from_utf8(bytes).map_err(|e| fail(1, format!("is not UTF-8: {e}")))?;
    let mut entries = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.to_owned())),
            None => (line.trim(), None),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(fail(number + 1, format!("unexpected character in variable name {key:?}")));
        }
        entries.push((key.to_owned(), value));
    }
    Ok(entries)
}

fn lookup(
    entries: &[(String, Option<String>)],
    env: &BTreeMap<String, String>,
    name: &str,
) -> Option<String> {
    let earlier = || entries.iter().rev().find(|(k, _)| k == name).and_then(|(_, v)| v.clone());
    env.get(name).cloned().or_else(earlier)
}

fn closing_quote(value: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    value.char_indices().skip(1).find_map(|(i, c)| {
        if escaped {
            escaped = false;
            return None;
        }
        escaped = c == '\\' && quote == '"';
        (c == quote).then_some(i)
    })
}

fn evaluate(value: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    match value.chars().next() {
        Some('\'') => {
            let end = closing_quote(value, '\'').unwrap_or(value.len());
            value[1..end].to_owned()
        }
        Some('"') => {
            let end = closing_quote(value, '"').unwrap_or(value.len());
            expand(&value[1..end], true, env)
        }
        _ => {
            let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
            expand(value[..end].trim_end(), false, env)
        }
    }
}

/// Replaces `$NAME`, `${NAME}`, `${NAME:-default}` and, in quotes, escapes.
fn expand(text: &str, escapes: bool, env: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' if escapes => {
                let next = rest.chars().next();
                rest = next.map_or(rest, |n| &rest[n.len_utf8()..]);
                match next {
                    Some('n') => out.push('\n'),
                    Some('r') => out.push('\r'),
                    Some('t') => out.push('\t'),
                    Some(other @ ('"' | '\\' | '$')) => out.push(other),
                    Some(other) => out.extend(['\\', other]),
                    None => out.push('\\'),
                }
            }
            '$' => {
                let (name, default, after) = variable(rest);
                if name.is_empty() {
                    out.push('$');
                    continue;
                }
                let value = env(name).filter(|v| default.is_none() || !v.is_empty());
                out.push_str(&value.unwrap_or_else(|| default.unwrap_or_default().to_owned()));
                rest = after;
            }
            c => out.push(c),
        }
    }
    out
}

/// Splits what follows a dollar sign into name, default and rest.
fn variable(text: &str) -> (&str, Option<&str>, &str) {
    let name_end = |t: &str| t.find(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).unwrap_or(t.len());
    let braced = text.strip_prefix('{').and_then(|inside| inside.split_once('}'));
    match braced {
        Some((inside, after)) => {
            let (name, rest) = inside.split_at(name_end(inside));
            (name, rest.strip_prefix(":-").or_else(|| rest.strip_prefix('-')), after)
        }
        None => {
            let (name, after) = text.split_at(name_end(text));
            (name, None, after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        let env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        let seen = parse(Path::new(".env"), text.as_bytes(), &env).unwrap();
        let seen: Vec<_> = seen.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn values_are_plain_or_quoted() {
        check(
            "A=1\n# no\n\nexport B = two words # three\nC",
            &[("A", Some("1")), ("B", Some("two words")), ("C", None)],
        );
        check(
            "A='$HOME #x' # y\nB=\"$HOME\\n#x\"\nC=a#b",
            &[("A", Some("$HOME #x")), ("B", Some("/root\n#x")), ("C", Some("a#b"))],
        );
        check("A=\"one\ntwo\"\nB=${A}${X:-d}", &[("A", Some("one\ntwo")), ("B", Some("one\ntwod"))]);
        check("A=", &[("A", Some(""))]);
    }

    #[test]
    fn raw_values_are_all_that_stands_there() {
        let text = b"# no\nA='{\"k\": \"$v\"}'\nB= x # y\nC\n";
        let seen = parse_raw(Path::new("raw.env"), text).unwrap();
        let expected = [("A", Some("'{\"k\": \"$v\"}'")), ("B", Some(" x # y")), ("C", None)];
        assert_eq!(seen, expected.map(|(k, v)| (k.to_owned(), v.map(str::to_owned))));
        let error = parse_raw(Path::new("raw.env"), b"A B=1").unwrap_err();
        assert_eq!(error.to_string(), "raw.env:1: unexpected character in variable name \"A B\"");
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse(Path::new(".env"), b"A=1\nB C=2", &BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), ".env:2: unexpected character in variable name \"B C\"");
        let error = parse(Path::new(".env"), b"A=\"1", &BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), ".env:1: unterminated quoted value of A");
    }
}
