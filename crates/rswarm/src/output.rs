//! The one place that writes to standard output: an error there (a closed pipe) ends the command quietly.

use anyhow::{Context, Result};
use std::io::Write;

/// Writes a line to standard output and flushes it.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes a warning to standard error, as Docker words it.
pub(crate) fn warning(text: &str) {
    eprintln!("WARNING: {text}");
}

/// Writes an error with all its causes to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("Error: {error:#}");
}

/// Writes a line about what happens to standard error: standard output is for what was asked for.
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// Writes a question to standard output, without ending the line.
///
/// # Errors
/// As [`line()`].
pub(crate) fn prompt(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}
