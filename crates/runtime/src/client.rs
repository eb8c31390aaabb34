//! The daemon's handle on one shim.
//!
//! A handle may be dropped and made again with [`Shim::connect`] at any time; the shim does not mind. Answers and
//! events come on one connection: an event that arrives while an answer is awaited is kept for
//! [`Shim::next_event`], so ask that after every call as well as when the descriptor is readable.

use crate::{ContainerPlan, Error, Event, ExecPlan, ExitStatus, launch, state};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    net::{AddressFamily, SocketFlags, SocketType},
};
use shim::{
    hooks,
    wire::{self, Answer, Body, Call, Received, Request},
};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The small shim that a release build carries (see `build.rs`); empty in others.
static CARRIED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rswarm-shim"));

/// How long any call may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// How much longer than its last bytes may take the shim's end may.
const LAST_FLUSH_SLACK: Duration = Duration::from_millis(500);

/// The program that is started as a shim: `path args_prefix.. <state directory>`.
#[derive(Debug)]
pub struct ShimProgram {
    path: PathBuf,
    args_prefix: Vec<OsString>,
    /// Soft limit of descriptors of the shim and what it starts, if it is not to be this process's.
    descriptors: Option<u64>,
    /// Keeps `/proc/self/fd/N` alive.
    _memfd: Option<OwnedFd>,
}

impl ShimProgram {
    /// Uses the file as it is.
    #[must_use]
    pub fn plain(path: PathBuf, args_prefix: Vec<OsString>) -> Self {
        Self { path, args_prefix, descriptors: None, _memfd: None }
    }

    /// Has containers begin with this soft limit of descriptors, which this process had before it raised its own:
    /// programs that close or select them all must not find a million.
    #[must_use]
    pub fn with_descriptors(mut self, soft: u64) -> Self {
        self.descriptors = Some(soft);
        self
    }

    /// Uses the small shim that this program carries inside, or this program itself with `args_prefix` if it
    /// carries none (debug builds). In sealed memory either way.
    ///
    /// # Errors
    /// As [`sealed`](Self::sealed).
    pub fn of_this_program(args_prefix: Vec<OsString>) -> io::Result<Self> {
        if CARRIED.is_empty() {
            return Self::sealed(Path::new("/proc/self/exe"), args_prefix);
        }
        Self::from_memory(&mut &*CARRIED, Vec::new())
    }

    /// Copies the file into sealed memory once, so that no container can overwrite it and an upgrade of the file
    /// does not matter. Normally `/proc/self/exe` with `["shim"]`.
    ///
    /// # Errors
    /// When the file cannot be read or there is not enough memory.
    pub fn sealed(path: &Path, args_prefix: Vec<OsString>) -> io::Result<Self> {
        Self::from_memory(&mut File::open(path)?, args_prefix)
    }

    /// Returns the command that starts it, without what it is to do.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args_prefix).env_clear();
        command
    }

    fn from_memory(source: &mut impl io::Read, args_prefix: Vec<OsString>) -> io::Result<Self> {
        let memfd = sys::memfd::sealed_copy(source, c"rswarm-shim")?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", memfd.as_raw_fd()));
        Ok(Self { path, args_prefix, descriptors: None, _memfd: Some(memfd) })
    }
}

/// Who has the ends of a container's standard streams.
#[derive(Debug)]
pub(crate) enum Streams<'a> {
    /// The shim: log, attached clients.
    Shim,
    /// The container has the caller's own.
    Inherited([BorrowedFd<'a>; 3]),
    /// Whoever listens on this socket gets the terminal's master. Source: runc `docs/terminals.md`.
    Console(&'a Path),
}

/// A connection to the shim of one container.
#[derive(Debug)]
pub struct Shim {
    socket: OwnedFd,
    pid: u32,
    shim_pid: u32,
    started: bool,
    warnings: Vec<String>,
    conversation: Mutex<Conversation>,
}

#[derive(Debug, Default)]
struct Conversation {
    seq: u64,
    events: VecDeque<Event>,
}

impl AsFd for Shim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Shim {
    /// Starts a shim in a session of its own and has it make the container up to the point before its program is
    /// executed (OCI "create"). Writes `config.json`, `plan` and what the shim leaves into `plan.dir`.
    ///
    /// # Errors
    /// When the spec is invalid or a step fails, with the step's name and cause; what was made is gone then, but
    /// call [`remove`](crate::remove()) for the directory.
    pub fn spawn(program: &ShimProgram, plan: &ContainerPlan) -> Result<Self, Error> {
        Self::spawn_with(program, plan, &Streams::Shim)
    }

    /// As [`spawn`](Self::spawn), with a choice of who has the streams.
    pub(crate) fn spawn_with(
        program: &ShimProgram,
        plan: &ContainerPlan,
        streams: &Streams<'_>,
    ) -> Result<Self, Error> {
        let mut launch = launch::translate(plan)?;
        match streams {
            Streams::Shim => {}
            Streams::Inherited(_) => launch.inherit_streams = true,
            Streams::Console(socket) => launch.console_socket = socket.as_os_str().as_bytes().to_vec(),
        }
        let prepare = |source| Error::Prepare { dir: plan.dir.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&plan.dir).map_err(prepare)?;
        state::forget(&plan.dir).map_err(prepare)?;
        let config = plan.spec.to_json().map_err(prepare)?;
        fs::write(plan.dir.join(state::CONFIG), config).map_err(prepare)?;
        fs::write(plan.dir.join(state::PLAN), prost::Message::encode_to_vec(&launch)).map_err(prepare)?;
        let stderr = File::create(plan.dir.join(state::STDERR)).map_err(prepare)?;

        let spawn = |source| Error::Spawn { id: plan.id.clone(), source };
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| spawn(errno.into()))?;
        if let Streams::Inherited(fds) = streams {
            wire::send(ours.as_fd(), &wire::Empty {}, fds).map_err(spawn)?;
        }
        // The shim gets the connection as its standard input: no descriptor has to survive exec by chance.
        // It forks once and its parent ends at once, so that it is nobody's zombie.
        let mut child = program
            .command()
            .arg(&plan.dir)
            .envs(program.descriptors.map(|soft| (state::DESCRIPTORS, soft.to_string())))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(stderr))
            .spawn()
            .map_err(spawn)?;
        let status = child.wait().map_err(spawn)?;
        if !status.success() {
            let said = fs::read_to_string(plan.dir.join(state::STDERR)).unwrap_or_default();
            return Err(spawn(io::Error::other(format!("shim ended with {status}: {}", said.trim()))));
        }
        match Self::greet(ours, DEADLINE + hooks::creation_limit(&launch)) {
            Err(Error::Gone) => {
                let said = fs::read_to_string(plan.dir.join(state::STDERR)).unwrap_or_default();
                Err(Error::Create { message: format!("the shim ended: {}", said.trim()) })
            }
            other => other,
        }
    }

    /// Connects to the shim that lives in `dir`: how a restarted daemon adopts its containers. If the container
    /// has ended meanwhile, [`Event::Exited`] is the first event.
    ///
    /// # Errors
    /// [`Error::Connect`] when there is none; then [`read_exit`](crate::read_exit) may know how it ended.
    pub fn connect(dir: &Path) -> Result<Self, Error> {
        let connect = |source: io::Error| Error::Connect { dir: dir.to_owned(), source };
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|errno| connect(errno.into()))?;
        let (address, _dir) = state::socket_address(dir).map_err(connect)?;
        rustix::net::connect(&socket, &address).map_err(|errno| connect(errno.into()))?;
        Self::greet(socket, DEADLINE)
    }

    fn greet(socket: OwnedFd, limit: Duration) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| Error::Talk { source: errno.into() })?;
        let mut shim = Self {
            socket,
            pid: 0,
            shim_pid: 0,
            started: false,
            warnings: Vec::new(),
            conversation: Mutex::default(),
        };
        let until = Instant::now() + limit;
        let (answer, _) = shim.receive_until(until, "hello")?;
        if answer.version > wire::VERSION {
            let reason = format!("it speaks protocol {}, this program {}", answer.version, wire::VERSION);
            return Err(Error::Protocol { reason });
        }
        match answer.body {
            Some(Body::Hello(hello)) => {
                shim.pid = hello.pid;
                shim.shim_pid = hello.shim_pid;
                shim.started = hello.started;
                shim.warnings = hello.warnings;
                Ok(shim)
            }
            Some(Body::Failed(failed)) if failed.exec_code != 0 => {
                Err(Error::Exec { message: failed.message, code: failed.exec_code })
            }
            Some(Body::Failed(failed)) => Err(Error::Create { message: failed.message }),
            other => Err(Error::Protocol { reason: format!("expected a greeting, got {other:?}") }),
        }
    }

    /// Executes the container's program.
    ///
    /// # Errors
    /// [`Error::Exec`] when the program cannot be executed: the container has then ended with that code, and
    /// [`Event::Exited`] follows.
    pub fn start(&mut self) -> Result<(), Error> {
        self.call("start", Call::Start(wire::Empty {}), &[])?;
        self.started = true;
        Ok(())
    }

    /// Returns the process id of the container's first process in the daemon's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the process id of the shim itself.
    #[must_use]
    pub fn shim_pid(&self) -> u32 {
        self.shim_pid
    }

    /// Tells whether the program was executed already, e.g. under an earlier daemon.
    #[must_use]
    pub fn started(&self) -> bool {
        self.started
    }

    /// Returns what was left out because the host does not allow it, e.g. resource limits without a writable
    /// cgroup.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Sends a signal to the container's first process, or to all of its processes.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended.
    pub fn signal(&self, sig: i32, all: bool) -> Result<(), Error> {
        self.call("signal", Call::Signal(wire::Signal { number: sig, all, exec: None }), &[])
    }

    /// Sends a signal to the first process of an exec.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended.
    pub fn signal_exec(&self, exec: &str, sig: i32) -> Result<(), Error> {
        let signal = wire::Signal { number: sig, all: false, exec: Some(exec.to_owned()) };
        self.call("signal", Call::Signal(signal), &[])
    }

    /// Starts one more process in the container; returns when its program was executed.
    ///
    /// # Errors
    /// [`Error::Exec`] when the program cannot be executed; [`Error::Refused`] when the container does not run
    /// or the id is taken.
    pub fn exec(&self, exec: ExecPlan) -> Result<(), Error> {
        let process = launch::process(&exec.process, exec.process.terminal.unwrap_or(false))
            .map_err(|reason| Error::Spec { id: exec.id.clone(), reason })?;
        let (streams, fds) = streams(&exec.stdio);
        self.call(
            "exec",
            Call::Exec(Box::new(wire::Exec { id: exec.id, process: Some(process), streams: Some(streams) })),
            &fds,
        )
    }

    /// Gives the shim descriptors to copy the container's output to, beside the log, and its input from. Works
    /// before [`start`](Self::start) too, so that nothing is missed. They are closed when the container ends.
    /// A reader that takes nothing for two seconds while a mebibyte waits is dropped.
    ///
    /// # Errors
    /// [`Error::Refused`] when the container has ended.
    pub fn attach(&self, stdio: crate::AttachFds) -> Result<(), Error> {
        let (streams, fds) = streams(&stdio);
        self.call("attach", Call::Attach(streams), &fds)
    }

    /// Sets the size of the container's terminal, or of an exec's.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such terminal.
    pub fn resize(&self, exec: Option<&str>, rows: u16, cols: u16) -> Result<(), Error> {
        let call = wire::Resize { exec: exec.map(str::to_owned), rows: rows.into(), cols: cols.into() };
        self.call("resize", Call::Resize(call), &[])
    }

    /// Closes the container's standard input once everything attached so far was written to it.
    ///
    /// # Errors
    /// As every call.
    pub fn close_stdin(&self) -> Result<(), Error> {
        self.call("close stdin", Call::CloseStdin(wire::Empty {}), &[])
    }

    /// Returns the next event, or `None` when there is none now. Never waits.
    ///
    /// # Errors
    /// [`Error::Gone`] when the shim has ended.
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.conversation().events.pop_front() {
                return Ok(Some(event));
            }
            match wire::receive::<Answer>(self.socket.as_fd()).map_err(|source| Error::Talk { source })? {
                Received::Message(answer, _) => self.keep_event(answer),
                Received::Nothing => return Ok(None),
                Received::End => return Err(Error::Gone),
            }
        }
    }

    /// Has the shim keep copies of descriptors open, whatever becomes of this process, until the shim ends or other
    /// ones are given. *Range:* at most 3.
    ///
    /// # Errors
    /// [`Error::Refused`] by a shim of a release that does not know this.
    pub fn keep(&self, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.call("keep", Call::Keep(wire::Empty {}), fds)
    }

    /// Returns copies of what [`keep`](Self::keep) gave, in that order.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn kept(&self) -> Result<Vec<OwnedFd>, Error> {
        self.ask("kept", Call::Kept(wire::Empty {}), &[])
    }

    /// Ends the shim; kills the container first if it still runs. Call it after the exit was collected. Who is attached
    /// and reads slowly gets the last bytes first, for as long as [`wire::LAST_FLUSH`]: the shim is waited for until then.
    ///
    /// # Errors
    /// As every call; a shim that has ended already is none.
    pub fn shutdown(&self) -> Result<(), Error> {
        match self.call("shutdown", Call::Shutdown(wire::Empty {}), &[]) {
            Ok(()) => {
                let until = Instant::now() + wire::LAST_FLUSH + LAST_FLUSH_SLACK;
                while let Ok((answer, _)) = self.receive_until(until, "shutdown") {
                    self.keep_event(answer);
                }
                Ok(())
            }
            Err(Error::Gone) => Ok(()),
            Err(Error::Talk { source }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_event(&self, answer: Answer) {
        let event = match answer.body {
            Some(Body::Exited(exited)) => Event::Exited(ExitStatus {
                code: exited.code,
                signal: exited.signal,
                oom: exited.oom,
                at: ExitStatus::at_from_nanos(exited.at_nanos),
            }),
            Some(Body::ExecExited(exited)) => Event::ExecExited { id: exited.id, code: exited.code },
            Some(Body::Oom(_)) => Event::Oom,
            // An answer that came after its caller's deadline, or something that a newer shim tells.
            Some(Body::Hello(_) | Body::Done(_) | Body::Failed(_) | Body::Kept(_)) | None => return,
        };
        self.conversation().events.push_back(event);
    }

    fn call(&self, name: &'static str, call: Call, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.ask(name, call, fds).map(drop)
    }

    /// Asks and waits for the answer to that very question; returns the descriptors beside it. One question at a time
    /// per handle.
    fn ask(&self, name: &'static str, call: Call, fds: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>, Error> {
        let until = Instant::now() + DEADLINE;
        let seq = {
            let mut conversation = self.conversation();
            conversation.seq += 1;
            conversation.seq
        };
        let request = Request { version: wire::VERSION, seq, call: Some(call) };
        loop {
            match wire::send(self.socket.as_fd(), &request, fds) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, until, name)?
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Error::Gone),
                Err(source) => return Err(Error::Talk { source }),
            }
        }
        loop {
            let (answer, fds) = self.receive_until(until, name)?;
            if answer.seq != seq {
                self.keep_event(answer);
                continue;
            }
            return match answer.body {
                Some(Body::Done(_) | Body::Kept(_)) => Ok(fds),
                Some(Body::Failed(failed)) if failed.exec_code != 0 => {
                    Err(Error::Exec { message: failed.message, code: failed.exec_code })
                }
                Some(Body::Failed(failed)) => Err(Error::Refused { message: failed.message }),
                other => Err(Error::Protocol { reason: format!("unexpected answer to {name}: {other:?}") }),
            };
        }
    }

    fn receive_until(&self, until: Instant, call: &'static str) -> Result<(Answer, Vec<OwnedFd>), Error> {
        loop {
            match wire::receive::<Answer>(self.socket.as_fd()).map_err(|source| Error::Talk { source })? {
                Received::Message(answer, fds) => return Ok((answer, fds)),
                Received::Nothing => self.wait(PollFlags::IN, until, call)?,
                Received::End => return Err(Error::Gone),
            }
        }
    }

    fn wait(&self, flags: PollFlags, until: Instant, call: &'static str) -> Result<(), Error> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Error::Timeout { call })?;
        match rustix::event::poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
            Ok(0) => Err(Error::Timeout { call }),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::Talk { source: errno.into() }),
        }
    }
}

fn streams(stdio: &crate::AttachFds) -> (wire::Streams, Vec<BorrowedFd<'_>>) {
    let fds = [&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten().map(AsFd::as_fd).collect();
    let streams = wire::Streams {
        stdin: stdio.stdin.is_some(),
        stdout: stdio.stdout.is_some(),
        stderr: stdio.stderr.is_some(),
        stdin_once: stdio.stdin_once,
    };
    (streams, fds)
}
