//! Copies bytes between a process and those who are attached to it, never waiting for anyone.
//!
//! ```text
//!   source (client's stdin) --> buffer --> input  --> process
//!   sink (client's stdout)  <-- buffer <-- output <-- process
//!                               log    <--'
//! ```
//! While a sink's buffer is full its output is not read, so the process waits, as on any pipe. A sink of a
//! container that takes nothing for [`PATIENCE`] is dropped; that of an exec has all the time it wants.

use super::{
    conversation::Ends,
    log::{Log, Stream},
};
use rustix::{event::PollFlags, io::Errno};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime},
};

/// How long a full sink may block its container.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Output that may wait for one sink of a container.
const SINK_BYTES_MAX: usize = 1 << 20;
/// Output that may wait for one sink of an exec.
const EXEC_SINK_BYTES_MAX: usize = 64 * 1024;
/// Input that may wait for the process.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Most bytes read at once.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// A descriptor of a pump that can be polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Output(Stream),
    Input,
    Source(usize),
    Sink(usize),
}

/// The streams of one process.
#[derive(Debug)]
pub(super) struct Pump {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    input: Option<OwnedFd>,
    input_buffer: VecDeque<u8>,
    /// Close the input when its buffer is empty.
    input_ends: bool,
    terminal: bool,
    sources: Vec<Option<Source>>,
    sinks: Vec<Option<Sink>>,
    /// Sinks are never dropped for being slow.
    patient: bool,
}

#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    once: bool,
}

#[derive(Debug)]
struct Sink {
    fd: OwnedFd,
    stream: Stream,
    buffer: VecDeque<u8>,
    stuck_since: Option<Instant>,
    /// Nothing more comes: close when the buffer is empty.
    ends: bool,
}

impl Pump {
    /// Takes the shim's ends of a process's streams.
    pub(super) fn new(ends: Ends, patient: bool) -> io::Result<Self> {
        let terminal = ends.terminal.is_some();
        let (stdout, stderr, input) = match ends.terminal {
            Some(master) => {
                let input = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
                (Some(master), None, Some(input))
            }
            None => (ends.stdout, ends.stderr, ends.stdin),
        };
        for fd in [&stdout, &stderr, &input].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Self {
            stdout,
            stderr,
            input,
            input_buffer: VecDeque::new(),
            input_ends: false,
            terminal,
            sources: Vec::new(),
            sinks: Vec::new(),
            patient,
        })
    }

    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.stdout.as_ref().filter(|_| self.terminal).map(AsFd::as_fd)
    }

    pub(super) fn add_source(&mut self, fd: OwnedFd, once: bool) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        self.sources.push(Some(Source { fd, once }));
        Ok(())
    }

    pub(super) fn add_sink(&mut self, fd: OwnedFd, stream: Stream) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let ends = self.output(stream).is_none();
        self.sinks.push(Some(Sink { fd, stream, buffer: VecDeque::new(), stuck_since: None, ends }));
        Ok(())
    }

    pub(super) fn close_input(&mut self) {
        self.input_ends = true;
    }

    fn output(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    fn output_slot(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Returns everything to wait for.
    pub(super) fn ports(&self) -> impl Iterator<Item = (Port, BorrowedFd<'_>, PollFlags)> {
        let outputs = [Stream::Stdout, Stream::Stderr].into_iter().filter_map(|stream| {
            let fd = self.output(stream).filter(|_| !self.full(stream))?;
            Some((Port::Output(stream), fd.as_fd(), PollFlags::IN))
        });
        let input = self.input.iter().filter(|_| !self.input_buffer.is_empty());
        let input = input.map(|fd| (Port::Input, fd.as_fd(), PollFlags::OUT));
        let room = self.input_buffer.len() < INPUT_BYTES_MAX;
        let sources = self.sources.iter().enumerate().filter_map(move |(n, source)| {
            let source = source.as_ref().filter(|_| room)?;
            Some((Port::Source(n), source.fd.as_fd(), PollFlags::IN))
        });
        let sinks = self.sinks.iter().enumerate().filter_map(|(n, sink)| {
            let sink = sink.as_ref()?;
            // Without bytes to write only the end of the reader is of interest, which is always told.
            let flags = if sink.buffer.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            Some((Port::Sink(n), sink.fd.as_fd(), flags))
        });
        outputs.chain(input).chain(sources).chain(sinks)
    }

    fn full(&self, stream: Stream) -> bool {
        let max = if self.patient { EXEC_SINK_BYTES_MAX } else { SINK_BYTES_MAX };
        self.sinks.iter().flatten().any(|sink| sink.stream == stream && sink.buffer.len() >= max)
    }

    /// Does what a ready port allows.
    pub(super) fn serve(&mut self, port: Port, flags: PollFlags, log: &mut Option<Log>, chunk: &mut [u8]) {
        match port {
            Port::Output(stream) => {
                self.read_output(stream, log, chunk);
            }
            Port::Input => self.write_input(),
            Port::Source(n) => self.read_source(n, chunk),
            Port::Sink(n) => {
                let gone = flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
                if let Some(slot) = self.sinks.get_mut(n)
                    && let Some(sink) = slot
                    && (gone || !sink.write())
                {
                    *slot = None;
                }
            }
        }
    }

    /// Removes what is closed. Ports are positions, so not while some of them wait to be served.
    pub(super) fn settle(&mut self) {
        self.sources.retain(Option::is_some);
        self.sinks.retain(|sink| sink.as_ref().is_some_and(|sink| !(sink.ends && sink.buffer.is_empty())));
        if self.input_ends && self.input_buffer.is_empty() && !self.terminal {
            self.input = None;
        }
        if self.input.is_none() {
            self.sources.clear();
            self.input_buffer.clear();
        }
    }

    /// Returns when the first stuck sink is to be dropped, having dropped those that are due.
    pub(super) fn drop_stuck(&mut self, now: Instant) -> Option<Instant> {
        if self.patient {
            return None;
        }
        let mut next = None;
        for slot in &mut self.sinks {
            let Some(since) = slot.as_ref().and_then(|sink| sink.stuck_since) else { continue };
            if slot.as_ref().is_none_or(|sink| sink.buffer.len() < SINK_BYTES_MAX) {
                continue;
            }
            let due = since + PATIENCE;
            if due <= now {
                *slot = None;
            } else {
                next = Some(next.map_or(due, |next: Instant| next.min(due)));
            }
        }
        next
    }

    /// Reads what is left after the process ended, and closes: sinks get the rest and then end of file.
    pub(super) fn finish(&mut self, log: &mut Option<Log>, chunk: &mut [u8]) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.read_output(stream, log, chunk) {}
            self.end_output(stream, log);
        }
        self.input = None;
        for sink in self.sinks.iter_mut().flatten() {
            sink.ends = true;
        }
        self.settle();
    }

    /// Nothing is left to be written to anyone.
    pub(super) fn flushed(&self) -> bool {
        self.sinks.iter().flatten().all(|sink| sink.buffer.is_empty())
    }

    /// True: there may be more.
    fn read_output(&mut self, stream: Stream, log: &mut Option<Log>, chunk: &mut [u8]) -> bool {
        let Some(fd) = self.output(stream) else { return false };
        let length = match rustix::io::read(fd, &mut *chunk) {
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => return true,
            // A terminal without processes says EIO.
            Ok(0) | Err(_) => {
                self.end_output(stream, log);
                return false;
            }
            Ok(length) => length,
        };
        let bytes = &chunk[..length];
        if let Some(log) = log {
            // The container goes on when its log cannot.
            drop(log.take(stream, bytes, SystemTime::now()));
        }
        for slot in &mut self.sinks {
            if let Some(sink) = slot
                && sink.stream == stream
            {
                sink.buffer.extend(bytes);
                if !sink.write() {
                    *slot = None;
                }
            }
        }
        true
    }

    fn end_output(&mut self, stream: Stream, log: &mut Option<Log>) {
        if self.output_slot(stream).take().is_none() {
            return;
        }
        if let Some(log) = log {
            drop(log.finish(stream, SystemTime::now()));
        }
        for sink in self.sinks.iter_mut().flatten().filter(|sink| sink.stream == stream) {
            sink.ends = true;
        }
    }

    fn read_source(&mut self, n: usize, chunk: &mut [u8]) {
        let Some(slot) = self.sources.get_mut(n) else { return };
        let Some(source) = slot else { return };
        match rustix::io::read(&source.fd, &mut *chunk) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => {
                let once = source.once;
                *slot = None;
                self.input_ends |= once;
            }
            Ok(length) => {
                self.input_buffer.extend(&chunk[..length]);
                self.write_input();
            }
        }
    }

    fn write_input(&mut self) {
        let Some(fd) = &self.input else { return };
        while !self.input_buffer.is_empty() {
            match rustix::io::write(fd, self.input_buffer.as_slices().0) {
                Ok(length) => drop(self.input_buffer.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
    }
}

impl Sink {
    /// Writes what it can. False: the reader is gone.
    fn write(&mut self) -> bool {
        while !self.buffer.is_empty() {
            match rustix::io::write(&self.fd, self.buffer.as_slices().0) {
                Ok(length) => {
                    self.buffer.drain(..length);
                    self.stuck_since = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return true;
                }
                Err(_) => return false,
            }
        }
        // A flood's buffer is given back.
        if self.buffer.capacity() > 2 * CHUNK_BYTES {
            self.buffer = VecDeque::new();
        }
        self.stuck_since = None;
        true
    }
}
