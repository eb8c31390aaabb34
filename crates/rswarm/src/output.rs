//! The one place that writes to standard output: an error there (a closed pipe) ends the command quietly.
//!
//! What objects are called, what is in their labels and what servers say was written by others. On a terminal it does
//! not steer: control characters are shown, not sent. What a container prints is passed on as it is, as Docker does it.

use anyhow::{Context, Result};
use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
};

/// Writes a line to standard output and flushes it.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn line(text: &str) -> Result<()> {
    let terminal = std::io::stdout().is_terminal();
    styled(&for_terminal(text, terminal))
}

/// Writes a line with colours of ours in it, or what a container printed. Whatever else is in it passed [`visible`].
///
/// # Errors
/// As [`line()`].
pub(crate) fn styled(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes a warning to standard error, as Docker words it.
pub(crate) fn warning(text: &str) {
    progress(&format!("WARNING: {text}"));
}

/// Writes an error with all its causes to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    progress(&format!("Error: {error:#}"));
}

/// Writes a line about what happens to standard error: standard output is for what was asked for.
pub(crate) fn progress(text: &str) {
    eprintln!("{}", for_terminal(text, std::io::stderr().is_terminal()));
}

/// Writes a question to standard output, without ending the line.
///
/// # Errors
/// As [`line()`].
pub(crate) fn prompt(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let text = for_terminal(text, out.is_terminal());
    write!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Pipes and files get what there is, byte for byte.
fn for_terminal(text: &str, terminal: bool) -> Cow<'_, str> {
    if terminal { visible(text) } else { Cow::Borrowed(text) }
}

/// Returns the text with what would steer a terminal, or turn around how a line reads, written out. Line breaks and tabs
/// stay. Source: ECMA-48, C0 and C1; Unicode TR 9, explicit directional formatting.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().map(|c| if steers(c) { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_steer_a_terminal() {
        for (given, shown) in [
            ("web \u{1b}]0;root\u{7}", "web \\u{1b}]0;root\\u{7}"),
            ("\u{1b}[2J\u{1b}[H", "\\u{1b}[2J\\u{1b}[H"),
            ("a\rb\u{8}c\u{7f}", "a\\rb\\u{8}c\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("user\u{202e}nimda", "user\\u{202e}nimda"),
            ("NAME\tID\nweb\té", "NAME\tID\nweb\té"),
        ] {
            assert_eq!(for_terminal(given, true), shown);
            assert_eq!(for_terminal(given, false), given, "a pipe gets what there is");
        }
    }
}
