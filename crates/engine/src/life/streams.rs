//! The ends of a container's (or exec's) stdio that a client holds.
//!
//! They are socketpairs whose other ends belong to the shim, so bytes do not pass through the engine.

use std::{fmt, io, os::fd::OwnedFd};
use tokio::net::UnixStream;

/// What a client of attach or exec holds. With a TTY everything comes on `stdout`.
/// Dropping one detaches it; the container does not notice. Shutting down the write half of `stdin` is end of file.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdin: Option<UnixStream>,
    pub stdout: Option<UnixStream>,
    pub stderr: Option<UnixStream>,
}

/// Which streams to open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Source: Docker API `ContainerAttach`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    pub streams: Wanted,
}

/// The shim's ends of what [`pair`] made.
#[derive(Default)]
pub(crate) struct ShimEnds {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl fmt::Debug for ShimEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShimEnds").finish_non_exhaustive()
    }
}

impl ShimEnds {
    /// Turns them into what the shim takes. With `stdin_once` the end of this stdin is the end of the container's.
    pub(crate) fn attached(self, stdin_once: bool) -> runtime::AttachFds {
        runtime::AttachFds { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr, stdin_once }
    }
}

/// Makes the socketpairs. With `tty` stderr does not exist.
pub(crate) fn pair(wanted: Wanted, tty: bool) -> io::Result<(Streams, ShimEnds)> {
    let one = |want: bool| -> io::Result<(Option<UnixStream>, Option<OwnedFd>)> {
        if !want {
            return Ok((None, None));
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Some(UnixStream::from_std(ours)?), Some(OwnedFd::from(theirs))))
    };
    let (stdin, shim_stdin) = one(wanted.stdin)?;
    let (stdout, shim_stdout) = one(wanted.stdout || (tty && wanted.stderr))?;
    let (stderr, shim_stderr) = one(wanted.stderr && !tty)?;
    Ok((
        Streams { stdin, stdout, stderr },
        ShimEnds { stdin: shim_stdin, stdout: shim_stdout, stderr: shim_stderr },
    ))
}
