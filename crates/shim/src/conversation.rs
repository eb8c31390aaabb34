//! What the shim and a process that it makes have between them: a conversation of few words, and the process's streams.

use super::failure::{At, Failure};
use crate::wire::{self, Answer, Body, Received};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
    pipe::PipeFlags,
    process::{Pid, WaitOptions},
};
use std::{
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// How long a child may take for a step that the shim waits for.
pub(super) const DEADLINE: Duration = Duration::from_secs(9);

/// The shim's ends. With a terminal only that, else the pipes that exist.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
}

/// The child's ends of its streams; what is missing is `/dev/null`.
#[derive(Debug, Default)]
pub(super) struct ChildEnds {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// Streams of the caller may be anything, the host's /dev/null for one.
pub(super) fn is_pipe(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

pub(super) fn pipes(
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
) -> Result<(Ends, ChildEnds), Failure> {
    let (mut ends, mut child) = (Ends::default(), ChildEnds::default());
    if tty {
        return Ok((ends, child));
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(|| "cannot make a pipe".into());
    if stdin {
        let (read, write) = pipe()?;
        (child.stdin, ends.stdin) = (Some(read), Some(write));
    }
    if stdout {
        let (read, write) = pipe()?;
        (ends.stdout, child.stdout) = (Some(read), Some(write));
    }
    if stderr {
        let (read, write) = pipe()?;
        (ends.stderr, child.stderr) = (Some(read), Some(write));
    }
    Ok((ends, child))
}

pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .at(|| "cannot make a socketpair".into())
}

pub(super) fn done() -> Answer {
    Answer { version: wire::VERSION, seq: 0, body: Some(Body::Done(wire::Empty {})) }
}

/// Waits for one message of the child: `Some` = done, with what came along; `None` = it closed.
pub(super) fn hear(ours: BorrowedFd<'_>, limit: Duration) -> Result<Option<Vec<OwnedFd>>, Failure> {
    let until = Instant::now() + limit;
    loop {
        match wire::receive::<Answer>(ours).at(|| "cannot hear the container's process".into())? {
            Received::Message(Answer { body: Some(Body::Failed(failed)), .. }, _) => {
                return Err(Failure { message: failed.message, exec_code: failed.exec_code });
            }
            Received::Message(_, fds) => return Ok(Some(fds)),
            Received::End => return Ok(None),
            Received::Nothing => {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
                match rustix::event::poll(
                    &mut [PollFd::from_borrowed_fd(ours, PollFlags::IN)],
                    Some(&timeout),
                ) {
                    Ok(0) => return Err(Failure::other("the container's process took too long".into())),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(Failure::at("poll", errno)),
                }
            }
        }
    }
}

pub(super) fn reap(pid: Pid) {
    while matches!(rustix::process::waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
}
