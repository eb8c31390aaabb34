//! The one place that writes to standard output: an error there (a closed pipe) ends the command quietly.
//!
//! What objects are called, what is in their labels and what servers say was written by others. On a terminal it does
//! not steer: control characters are shown, not sent. What a container prints is passed on as it is, as Docker does it.

use anyhow::{Context as _, Result};
use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;

/// Whoever read our standard output does so no more: what `| head -1` does when it has its line.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
struct Closed;

/// Exit code of a command whose standard output was closed: what a shell shows of one that SIGPIPE ended, as it ends
/// Docker's CLI.
pub(crate) const CLOSED: u8 = 128 + 13;

/// Says whether an error is only that nobody reads standard output any more.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.into_iter().any(|cause| cause.get_ref().is_some_and(|inner| inner.is::<Closed>()))
}

/// Tells an error of standard output from one of a connection, which may be a broken pipe too.
fn of_stdout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::other(Closed) } else { error }
}

/// Writes bytes to standard output as they are, and flushes it.
///
/// # Errors
/// As [`line()`].
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(of_stdout).context("cannot write to standard output")
}

/// Returns standard output for a stream of bytes.
pub(crate) fn stream() -> Stream {
    Stream(tokio::io::stdout())
}

/// See [`stream`].
pub(crate) struct Stream(tokio::io::Stdout);

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll_write(context, bytes)).map_err(of_stdout))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll_flush(context)).map_err(of_stdout))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll_shutdown(context)).map_err(of_stdout))
    }
}

/// How what happens is told: a thing of the whole program, as its standard error is.
static TELLING: AtomicU8 = AtomicU8::new(Telling::Lines as u8);

/// How what happens is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Telling {
    Lines,
    /// A JSON object for each thing done.
    Json,
    /// Only warnings and errors.
    Nothing,
}

/// Sets how [`step`] and [`progress`] tell what happens.
pub(crate) fn tell(how: Telling) {
    TELLING.store(how as u8, Ordering::Relaxed);
}

/// What happens is told on standard output: a thing of the whole program, as [`TELLING`].
static TO_STDOUT: AtomicBool = AtomicBool::new(false);

/// Tells what happens on standard output from now on; warnings and errors stay where they are.
pub(crate) fn tell_to_stdout() {
    TO_STDOUT.store(true, Ordering::Relaxed);
}

/// What is told did not happen: a thing of the whole program, as [`TELLING`].
static REHEARSED: AtomicBool = AtomicBool::new(false);

/// Marks all that [`step`] tells as what would be done. Source of the mark: docker/compose `pkg/api`, `DRYRUN_PREFIX`.
pub(crate) fn rehearse() {
    REHEARSED.store(true, Ordering::Relaxed);
}

/// Is nothing told of what happens?
pub(crate) fn is_silent() -> bool {
    TELLING.load(Ordering::Relaxed) == Telling::Nothing as u8
}

/// Tells what was done to an object, as ` Container shop-web-1  Started`. Source: docker/compose `pkg/progress`.
pub(crate) fn step(kind: &str, name: &str, done: &str) {
    told(&format!("{kind} {name}"), "  ", done);
}

/// The same of what has no kind, as ` shop.example/app:1 published`.
pub(crate) fn deed(name: &str, done: &str) {
    told(name, " ", done);
}

fn told(name: &str, between: &str, done: &str) {
    match TELLING.load(Ordering::Relaxed) {
        how if how == Telling::Nothing as u8 => {}
        how if how == Telling::Json as u8 => {
            let mut told = serde_json::json!({"id": name, "text": done});
            if REHEARSED.load(Ordering::Relaxed) {
                told["dry-run"] = true.into();
            }
            status(&told.to_string());
        }
        _ if REHEARSED.load(Ordering::Relaxed) => status(&format!(" DRY-RUN MODE -  {name}{between}{done}")),
        _ => status(&format!(" {name}{between}{done}")),
    }
}

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
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a warning to standard error, as Docker words it.
pub(crate) fn warning(text: &str) {
    to_stderr(&format!("WARNING: {text}"));
}

/// Writes an error with all its causes to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    to_stderr(&format!("Error: {}", at_hand(&format!("{error:#}"))));
}

/// Returns what a daemon says with the command that is at hand: it says word for word what Docker does, since clients
/// act on it, and so names Docker's commands.
fn at_hand(text: &str) -> String {
    let known = ["swarm", "node", "service", "stack"];
    known.iter().fold(text.to_owned(), |text, word| {
        text.replace(&format!("docker {word} "), &format!("rswarm {word} "))
    })
}

/// Writes a line about what happens to standard error: standard output is for what was asked for.
pub(crate) fn progress(text: &str) {
    match TELLING.load(Ordering::Relaxed) {
        how if how == Telling::Nothing as u8 => {}
        how if how == Telling::Json as u8 => status(&serde_json::json!({"text": text.trim()}).to_string()),
        _ => status(text),
    }
}

fn status(text: &str) {
    if TO_STDOUT.load(Ordering::Relaxed) {
        // Who does not read it any more finds out by what was asked for.
        drop(line(text));
    } else {
        to_stderr(text);
    }
}

fn to_stderr(text: &str) {
    let mut err = io::stderr().lock();
    let text = for_terminal(text, err.is_terminal());
    // Where it cannot be said there is nobody to tell.
    drop(writeln!(err, "{text}"));
}

/// Writes a line that a container wrote to its standard error, with colours of ours in front.
///
/// # Errors
/// When standard error is closed or full.
pub(crate) fn styled_error(text: &str) -> Result<()> {
    let mut out = std::io::stderr().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard error")
}

/// Writes a question to standard output, without ending the line.
///
/// # Errors
/// As [`line()`].
pub(crate) fn prompt(text: &str) -> Result<()> {
    bytes(for_terminal(text, std::io::stdout().is_terminal()).as_bytes())
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
    fn errors_name_the_command_at_hand() {
        let said = "remove a: This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                    connect this node to swarm; hint: remove it (docker node rm) and see docs.docker.com";
        let shown = at_hand(said);
        assert!(!shown.contains("docker swarm") && !shown.contains("docker node"), "{shown}");
        assert!(shown.contains("Use \"rswarm swarm init\"") && shown.contains("docs.docker.com"), "{shown}");
    }

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
