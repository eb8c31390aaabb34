//! What `rswarm doctor` finds on a host. `security`: each promise of the README's security table with the checks that look
//! whether this host keeps it; without that word: whether the host can do its work (`whole`). Looks, and changes nothing;
//! what takes a try (`probes`) leaves nothing behind.
//!
//! ```text
//!  Host::look ── files, kernel, the daemon's answers ──> Host ── each Check, a plain function ──> Row
//! ```
//!
//! What cannot be looked at (no daemon, not root) is said to be unknown, never to be well.
//!
//! *Start reading at* [`examine`], then `promises::SECURITY` and `whole::HOST`.

mod containers;
mod door;
mod files;
mod host;
mod kernel;
mod probes;
mod promises;
mod swarm;
#[cfg(test)]
mod tests;
mod whole;
#[cfg(test)]
mod whole_tests;

pub use host::{Answers, Asked, Daemon, Host, Place};
pub use promises::{Kept, Promise, SECURITY};
pub use whole::HOST;

/// How well a host keeps what a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Kept by the program, whatever the host.
    Program,
    /// There is nothing here that it is about.
    None,
    Ok,
    /// Could not be looked at.
    Unknown,
    /// Weaker than it could be.
    Warn,
    /// Open.
    Bad,
}

impl State {
    /// Returns the word for it in lists and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::None => "none",
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub state: State,
    /// One line.
    pub found: String,
    /// What to type; empty where there is nothing to do.
    pub hint: String,
}

/// Names in a line that lists what was found: more are counted.
const NAMED_MAX: usize = 5;

impl Finding {
    fn new(state: State, found: impl Into<String>, hint: impl Into<String>) -> Self {
        // What a container or a file is called must not break the line, nor speak to a terminal.
        let clean = |text: String| text.replace(|c: char| c.is_control(), "?");
        Self { state, found: clean(found.into()), hint: clean(hint.into()) }
    }

    fn ok(found: impl Into<String>) -> Self {
        Self::new(State::Ok, found, "")
    }

    fn none(found: impl Into<String>) -> Self {
        Self::new(State::None, found, "")
    }

    fn unknown(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(State::Unknown, why, hint)
    }

    fn warn(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(State::Warn, found, hint)
    }

    fn bad(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(State::Bad, found, hint)
    }
}

/// A finding, or why there is none: both are printed.
type Found = Result<Finding, Finding>;

/// One look at a host.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Unique among a subject's.
    pub name: &'static str,
    look: fn(&Host) -> Found,
}

impl Check {
    const fn new(name: &'static str, look: fn(&Host) -> Found) -> Self {
        Self { name, look }
    }
}

/// One line of what is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub promise: &'static str,
    pub gate: &'static str,
    /// Empty where the program keeps the promise.
    pub check: &'static str,
    pub finding: Finding,
}

/// Looks at a host for each promise, in their order.
pub fn examine(promises: &[Promise], host: &Host) -> Vec<Row> {
    let mut rows = Vec::new();
    for Promise { text, gate, kept } in promises {
        let row = |check, finding| Row { promise: text, gate, check, finding };
        match kept {
            Kept::ByProgram(why) => rows.push(row("", Finding::new(State::Program, *why, ""))),
            Kept::Checked(checks) => {
                let found = checks
                    .iter()
                    .map(|check| row(check.name, (check.look)(host).unwrap_or_else(|finding| finding)));
                rows.extend(found);
            }
        }
    }
    rows
}

/// Returns names with commas; of many, the first and how many more there are.
fn names<T: AsRef<str>>(all: &[T]) -> String {
    let shown: Vec<&str> = all.iter().take(NAMED_MAX).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
