//! The person's terminal: raw while a container has it, and as it was afterwards.

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Puts the terminal back when dropped.
#[derive(Debug)]
pub(crate) struct Raw(Termios);

/// Makes standard input raw if `wanted`.
///
/// # Errors
/// Docker's words when standard input is no terminal.
pub(crate) fn raw_if(wanted: bool) -> Result<Option<Raw>> {
    if !wanted {
        return Ok(None);
    }
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        anyhow::bail!("the input device is not a TTY");
    }
    let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &raw).context("cannot make the terminal raw")?;
    Ok(Some(Raw(before)))
}

/// Stops showing what is typed, for a password; standard input that is no terminal shows nothing anyway.
///
/// # Errors
/// The terminal refuses.
pub(crate) fn silent() -> Result<Option<Raw>> {
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        return Ok(None);
    }
    let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
    let mut silent = before.clone();
    silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &silent).context("cannot silence the terminal")?;
    Ok(Some(Raw(before)))
}

impl Drop for Raw {
    fn drop(&mut self) {
        if tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0).is_err() {
            // The terminal has gone; nobody is left to see it raw.
        }
    }
}

/// Returns rows and columns, if standard output is a terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0).then_some((size.ws_row, size.ws_col))
}
