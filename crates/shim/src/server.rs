//! The shim's loop: clients, the container, its execs and their streams, all waited for in one `poll`.
//!
//! ```text
//!   Created --start--> Running --ends--> Exited --shutdown--> (the shim ends)
//!      `------------------ends--------------^
//! ```

use super::{
    create::{self, Container},
    log::{Log, Stream},
    streams::{CHUNK_BYTES, Port, Pump},
};
use crate::{
    ExitStatus, state,
    wire::{self, Answer, Body, Call, Launch, Received, Request},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::SocketFlags,
    process::{Pid, WaitOptions, WaitStatus},
};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};
use sys::process::SingleThreaded;

/// Most messages that wait for one client; who does not take them is disconnected and finds out by reconnecting.
const QUEUE_MAX: usize = 256;
/// Most exits of execs that are kept for a daemon that is away.
const UNDELIVERED_MAX: usize = 1024;
/// How often orphans are looked for when the container has no init of its own.
const ORPHANS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
enum State {
    Created,
    Running,
    Exited(ExitStatus),
}

/// What became ready. `usize` of a stream: 0 = the container, n = exec n-1.
#[derive(Debug, Clone, Copy)]
enum Token {
    Listener,
    Client(usize),
    Child,
    Oom,
    Stream(usize, Port),
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    queue: VecDeque<(Answer, Vec<OwnedFd>)>,
    gone: bool,
}

#[derive(Debug)]
struct Exec {
    id: String,
    pid: Pid,
    pidfd: OwnedFd,
    pump: Pump,
    ended: bool,
}

/// Everything the shim knows.
#[derive(Debug)]
pub(super) struct Server {
    proof: SingleThreaded,
    dir: PathBuf,
    launch: Launch,
    container: Container,
    state: State,
    /// The code of a container whose program could not be executed.
    start_failed: Option<i32>,
    pump: Pump,
    log: Option<Log>,
    execs: Vec<Exec>,
    listener: OwnedFd,
    clients: Vec<Client>,
    undelivered: VecDeque<wire::ExecExited>,
    oom_told: bool,
    /// Who waits for the end, with the sequence number of the question.
    shutting_down: Vec<(usize, u64)>,
    ends_at: Option<Instant>,
    /// Open for the daemon while there is none.
    kept: Vec<OwnedFd>,
    chunk: Vec<u8>,
}

fn answer(seq: u64, body: Body) -> Answer {
    Answer { version: wire::VERSION, seq, body: Some(body) }
}

fn refused(message: impl Into<String>) -> Body {
    Body::Failed(wire::Failed { message: message.into(), exec_code: 0 })
}

impl Server {
    pub(super) fn new(
        proof: SingleThreaded,
        dir: PathBuf,
        mut launch: Launch,
        mut container: Container,
        listener: OwnedFd,
    ) -> io::Result<Self> {
        let log = launch.log.as_ref().map(Log::open).transpose()?;
        let pump = Pump::new(std::mem::take(&mut container.init.ends), false)?;
        // Only what an exec needs stays in memory.
        launch.mounts = Vec::new();
        launch.root = None;
        launch.cgroup = None;
        Ok(Self {
            proof,
            dir,
            launch,
            container,
            state: State::Created,
            start_failed: None,
            pump,
            log,
            execs: Vec::new(),
            listener,
            clients: Vec::new(),
            undelivered: VecDeque::new(),
            oom_told: false,
            shutting_down: Vec::new(),
            ends_at: None,
            kept: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    /// Serves until the container has ended and a client has asked for the end.
    pub(super) fn run(mut self, daemon: OwnedFd) -> io::Result<()> {
        self.welcome(daemon);
        while !self.finished() {
            let now = Instant::now();
            let stuck = self.pump.drop_stuck(now);
            let ready = self.wait(stuck)?;
            let children = ready.iter().any(|(token, _)| matches!(token, Token::Child));
            for (token, flags) in ready {
                self.serve(token, flags);
            }
            if children || self.may_adopt() {
                self.reap();
            }
            self.settle();
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        let Some(at) = self.ends_at else { return false };
        let flushed = self.pump.flushed() && self.execs.iter().all(|exec| exec.pump.flushed());
        (flushed && self.clients.iter().all(|client| client.queue.is_empty())) || Instant::now() >= at
    }

    /// Without a process namespace of its own the container's orphans become the shim's children.
    fn may_adopt(&self) -> bool {
        !self.launch.namespaces.iter().any(|namespace| {
            i32::try_from(namespace.flag) == Ok(libc::CLONE_NEWPID) && namespace.path.is_empty()
        })
    }

    fn wait(&self, stuck: Option<Instant>) -> io::Result<Vec<(Token, PollFlags)>> {
        let mut tokens = vec![Token::Listener];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for (n, client) in self.clients.iter().enumerate() {
            let flags = if client.queue.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            tokens.push(Token::Client(n));
            fds.push(PollFd::new(&client.socket, flags));
        }
        if !matches!(self.state, State::Exited(_)) {
            tokens.push(Token::Child);
            fds.push(PollFd::new(&self.container.init.pidfd, PollFlags::IN));
            if let Some(watch) = &self.container.oom_watch {
                tokens.push(Token::Oom);
                fds.push(PollFd::new(watch, PollFlags::IN));
            }
        }
        for exec in self.execs.iter().filter(|exec| !exec.ended) {
            tokens.push(Token::Child);
            fds.push(PollFd::new(&exec.pidfd, PollFlags::IN));
        }
        let pumps = [&self.pump].into_iter().chain(self.execs.iter().map(|exec| &exec.pump));
        for (who, pump) in pumps.enumerate() {
            for (port, fd, flags) in pump.ports() {
                tokens.push(Token::Stream(who, port));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let orphans = self.may_adopt().then(|| Instant::now() + ORPHANS_EVERY);
        let until = [stuck, self.ends_at, orphans].into_iter().flatten().min();
        let timeout = until.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let ready = tokens.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn serve(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Client(n) => {
                if flags.contains(PollFlags::OUT) {
                    self.clients[n].flush();
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.hear(n);
                }
            }
            // Collected together after all else.
            Token::Child => {}
            Token::Oom => {
                if self.container.oom_watch.as_ref().is_some_and(|watch| !watch.acknowledge()) {
                    self.container.oom_watch = None;
                }
                self.tell_oom();
            }
            Token::Stream(0, port) => self.pump.serve(port, flags, &mut self.log, &mut self.chunk),
            Token::Stream(n, port) => self.execs[n - 1].pump.serve(port, flags, &mut None, &mut self.chunk),
        }
    }

    /// Removes what has ended. Not before all that became ready was served, because tokens are positions.
    fn settle(&mut self) {
        self.pump.settle();
        for exec in &mut self.execs {
            exec.pump.settle();
        }
        self.execs.retain(|exec| !exec.ended || !exec.pump.flushed());
        if self.clients.iter().any(|client| client.gone) {
            // Positions change; whoever waits for the end is told as long as it is there.
            let places: Vec<usize> = (0..self.clients.len()).filter(|&n| !self.clients[n].gone).collect();
            self.shutting_down.retain_mut(|(client, _)| {
                places.iter().position(|n| n == client).is_some_and(|new| {
                    *client = new;
                    true
                })
            });
            self.clients.retain(|client| !client.gone);
        }
    }

    fn accept(&mut self) {
        loop {
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.welcome(socket),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    fn welcome(&mut self, socket: OwnedFd) {
        if rustix::io::ioctl_fionbio(&socket, true).is_err() {
            return;
        }
        let mut client = Client { socket, queue: VecDeque::new(), gone: false };
        client.send(answer(
            0,
            Body::Hello(wire::Hello {
                pid: pid_number(self.container.init.pid),
                id: self.launch.id.clone(),
                warnings: self.container.warnings.clone(),
                started: !matches!(self.state, State::Created),
                shim_pid: pid_number(rustix::process::getpid()),
            }),
        ));
        for exited in self.undelivered.drain(..) {
            client.send(answer(0, Body::ExecExited(exited)));
        }
        if let State::Exited(status) = self.state {
            client.send(answer(0, exited(status)));
        }
        self.clients.push(client);
    }

    fn hear(&mut self, n: usize) {
        loop {
            match wire::receive::<Request>(self.clients[n].socket.as_fd()) {
                Ok(Received::Message(request, fds)) => {
                    let seq = request.seq;
                    if let Some(body) = self.obey(n, request, fds) {
                        self.clients[n].send(answer(seq, body));
                    }
                }
                Ok(Received::Nothing) => return,
                Ok(Received::End) | Err(_) => {
                    self.clients[n].gone = true;
                    return;
                }
            }
        }
    }

    /// Returns the answer, unless it has to wait.
    fn obey(&mut self, client: usize, request: Request, fds: Vec<OwnedFd>) -> Option<Body> {
        let done = Body::Done(wire::Empty {});
        Some(match request.call {
            Some(Call::Keep(_)) => {
                self.kept = fds;
                done
            }
            Some(Call::Kept(_)) => match self.kept.iter().map(OwnedFd::try_clone).collect() {
                Ok(copies) => {
                    let kept = answer(request.seq, Body::Kept(wire::Empty {}));
                    self.clients[client].send_with(kept, copies);
                    return None;
                }
                Err(error) => refused(format!("cannot copy a descriptor: {error}")),
            },
            Some(Call::Start(_)) => self.start(),
            Some(Call::Signal(signal)) => self.signal(&signal),
            Some(Call::Exec(exec)) => self.exec(*exec, fds),
            Some(Call::Attach(streams)) => match self.state {
                State::Exited(_) => refused("container is not running"),
                State::Created | State::Running => {
                    match attach(&mut self.pump, &streams, fds, streams.stdin_once) {
                        Ok(()) => done,
                        Err(error) => refused(format!("cannot attach: {error}")),
                    }
                }
            },
            Some(Call::Resize(resize)) => self.resize(&resize),
            Some(Call::CloseStdin(_)) => {
                self.pump.close_input();
                done
            }
            Some(Call::Shutdown(_)) => {
                if let State::Exited(_) = self.state {
                    self.ends_at = Some(Instant::now() + wire::LAST_FLUSH);
                    return Some(done);
                }
                sys::process::send_signal(self.container.init.pidfd.as_fd(), libc::SIGKILL).ok();
                if let Some(group) = &self.container.group {
                    // A paused container dies when it thaws. A host without freezer has no paused ones.
                    drop(group.thaw());
                }
                self.shutting_down.push((client, request.seq));
                return None;
            }
            None => refused("this shim does not know the request"),
        })
    }

    fn start(&mut self) -> Body {
        let Some(waiting) = self.container.waiting.take() else {
            return refused("container was started already");
        };
        if let State::Exited(_) = self.state {
            return refused("container has ended");
        }
        match create::start(&waiting) {
            Ok(()) => {
                self.state = State::Running;
                Body::Done(wire::Empty {})
            }
            Err(failure) => {
                self.start_failed = Some(if failure.exec_code == 0 { 128 } else { failure.exec_code });
                sys::process::send_signal(self.container.init.pidfd.as_fd(), libc::SIGKILL).ok();
                Body::Failed(wire::Failed { message: failure.message, exec_code: failure.exec_code })
            }
        }
    }

    fn signal(&self, signal: &wire::Signal) -> Body {
        if let State::Exited(_) = self.state {
            return refused("container is not running");
        }
        if let Some(id) = &signal.exec {
            let Some(exec) = self.execs.iter().find(|exec| exec.id == *id && !exec.ended) else {
                return refused(format!("exec {id} is not running"));
            };
            return match sys::process::send_signal(exec.pidfd.as_fd(), signal.number) {
                Ok(()) => Body::Done(wire::Empty {}),
                Err(error) => refused(format!("cannot send signal {}: {error}", signal.number)),
            };
        }
        let result = match &self.container.group {
            Some(group) if signal.all => group.signal_all(signal.number),
            _ => sys::process::send_signal(self.container.init.pidfd.as_fd(), signal.number)
                .map_err(Into::into),
        };
        match result {
            Ok(()) => Body::Done(wire::Empty {}),
            Err(error) => refused(format!("cannot send signal {}: {error}", signal.number)),
        }
    }

    fn exec(&mut self, exec: wire::Exec, fds: Vec<OwnedFd>) -> Body {
        if !matches!(self.state, State::Running) {
            return refused("container is not running");
        }
        if self.container.group.as_ref().is_some_and(|group| group.is_frozen()) {
            // The new process would stop in there, and the shim with it.
            return refused("container is paused");
        }
        if self.execs.iter().any(|known| known.id == exec.id) {
            return refused(format!("exec {} exists already", exec.id));
        }
        let (Some(process), streams) = (exec.process, exec.streams.unwrap_or_default()) else {
            return refused("exec without process");
        };
        let made = create::exec(self.proof, &self.launch, &self.container, &process, streams.clone());
        let made = match made {
            Ok(made) => made,
            Err(failure) => {
                return Body::Failed(wire::Failed { message: failure.message, exec_code: failure.exec_code });
            }
        };
        let pump = Pump::new(made.ends, true).and_then(|mut pump| {
            attach(&mut pump, &streams, fds, true)?;
            Ok(pump)
        });
        match pump {
            Ok(pump) => {
                self.execs.push(Exec { id: exec.id, pid: made.pid, pidfd: made.pidfd, pump, ended: false });
                Body::Done(wire::Empty {})
            }
            Err(error) => {
                sys::process::send_signal(made.pidfd.as_fd(), libc::SIGKILL).ok();
                refused(format!("cannot attach: {error}"))
            }
        }
    }

    fn resize(&self, resize: &wire::Resize) -> Body {
        let pump = match &resize.exec {
            None => Some(&self.pump),
            Some(id) => self.execs.iter().find(|exec| exec.id == *id).map(|exec| &exec.pump),
        };
        let Some(terminal) = pump.and_then(Pump::terminal) else { return refused("no such terminal") };
        let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        match sys::process::set_terminal_size(terminal, cells(resize.rows), cells(resize.cols)) {
            Ok(()) => Body::Done(wire::Empty {}),
            Err(errno) => refused(format!("cannot resize: {errno}")),
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.container.init.pid {
                self.container_ended(status);
            } else if let Some(n) = self.execs.iter().position(|exec| exec.pid == pid && !exec.ended) {
                self.exec_ended(n, status);
            }
        }
    }

    fn exec_ended(&mut self, n: usize, status: WaitStatus) {
        let exec = &mut self.execs[n];
        exec.ended = true;
        exec.pump.finish(&mut None, &mut self.chunk);
        let exited = wire::ExecExited { id: exec.id.clone(), code: code_of(status) };
        if self.clients.iter().all(|client| client.gone) {
            if self.undelivered.len() == UNDELIVERED_MAX {
                self.undelivered.pop_front();
            }
            self.undelivered.push_back(exited);
        } else {
            self.broadcast(&Body::ExecExited(exited));
        }
    }

    fn container_ended(&mut self, status: WaitStatus) {
        let at = SystemTime::now();
        self.pump.finish(&mut self.log, &mut self.chunk);
        self.container.waiting = None;
        if self.may_adopt()
            && let Some(group) = &self.container.group
        {
            // No process namespace ends the others. What remains for lack of permission, removal will name.
            drop(group.signal_all(libc::SIGKILL));
        }
        let oom = self.container.group.as_ref().is_some_and(|group| group.oom_kills() > 0);
        if oom && !self.oom_told {
            self.tell_oom();
        }
        let code = self.start_failed.unwrap_or_else(|| code_of(status));
        let signal = status.terminating_signal().filter(|_| self.start_failed.is_none());
        let status = ExitStatus { code, signal, oom, at };
        // First on disk: whoever hears of it may ask for it.
        if let Err(error) = state::write_exit(&self.dir, status) {
            eprintln!("cannot write the exit file: {error}");
        }
        self.state = State::Exited(status);
        self.broadcast(&exited(status));
        if !self.shutting_down.is_empty() {
            self.ends_at = Some(Instant::now() + wire::LAST_FLUSH);
            for (client, seq) in std::mem::take(&mut self.shutting_down) {
                self.clients[client].send(answer(seq, Body::Done(wire::Empty {})));
            }
        }
    }

    fn tell_oom(&mut self) {
        self.oom_told = true;
        self.broadcast(&Body::Oom(wire::Empty {}));
    }

    fn broadcast(&mut self, body: &Body) {
        for client in &mut self.clients {
            client.send(answer(0, body.clone()));
        }
    }
}

impl Client {
    fn send(&mut self, answer: Answer) {
        self.send_with(answer, Vec::new());
    }

    fn send_with(&mut self, answer: Answer, fds: Vec<OwnedFd>) {
        if self.queue.len() >= QUEUE_MAX {
            self.gone = true;
        }
        if self.gone {
            return;
        }
        self.queue.push_back((answer, fds));
        self.flush();
    }

    fn flush(&mut self) {
        while let Some((answer, fds)) = self.queue.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match wire::send(self.socket.as_fd(), answer, &fds) {
                Ok(()) => {
                    self.queue.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    self.queue.clear();
                    return;
                }
            }
        }
    }
}

fn attach(pump: &mut Pump, streams: &wire::Streams, fds: Vec<OwnedFd>, once: bool) -> io::Result<()> {
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| io::Error::other("a descriptor is missing"));
    if streams.stdin {
        pump.add_source(next()?, once)?;
    }
    if streams.stdout {
        pump.add_sink(next()?, Stream::Stdout)?;
    }
    if streams.stderr {
        pump.add_sink(next()?, Stream::Stderr)?;
    }
    Ok(())
}

fn exited(status: ExitStatus) -> Body {
    Body::Exited(wire::Exited {
        code: status.code,
        signal: status.signal,
        oom: status.oom,
        at_nanos: status.at_nanos(),
    })
}

fn code_of(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
}

fn pid_number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
