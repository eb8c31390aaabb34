//! Reads what containers wrote: Docker's json-file format, rotated files oldest first, followed by inotify.
//!
//! Source: Docker docs, "JSON File logging driver"; rotation: `x`, `x.1` (older), `x.2`, ..., possibly gzipped.

use crate::{
    error::{Error, Result},
    inner::Inner,
    seen::container::Container,
};
use bytes::Bytes;
use model::Timestamp;
use rustix::fs::inotify;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
};

/// Registers a descriptor whose readiness is waited for.
#[expect(
    deprecated,
    reason = "its successor is unsafe; an owned descriptor stays open for as long as it is registered"
)]
pub(crate) fn wait_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Which entries. Source: Docker API `ContainerLogs`.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    /// Entries at or after.
    pub since: Option<Timestamp>,
    /// Entries at or before.
    pub until: Option<Timestamp>,
    /// Only the last n; `None` = all.
    pub tail: Option<usize>,
    pub follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// One line, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub stream: LogStream,
    pub at: Timestamp,
    /// With its newline, if it ended.
    pub line: Bytes,
    /// Labels and variables that the log options chose.
    pub attrs: BTreeMap<String, String>,
}

/// Entries as they come; ends by `None`. Dropping it ends the reading.
pub type Logs = mpsc::Receiver<Result<LogEntry>>;

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

pub(crate) fn parse(line: &str) -> Option<LogEntry> {
    // A power cut leaves a part of the last entry, or zeros in its place, and the next one follows without a line's end.
    // Within an entry its quotation marks are escaped.
    let whole = || line.rfind("{\"log\":").and_then(|begin| serde_json::from_str(&line[begin..]).ok());
    let line: Line = serde_json::from_str(line).ok().or_else(whole)?;
    let at = OffsetDateTime::parse(&line.time, &Rfc3339).ok()?.unix_timestamp_nanos();
    Some(LogEntry {
        stream: if line.stream == "stderr" { LogStream::Stderr } else { LogStream::Stdout },
        at: Timestamp(i64::try_from(at).unwrap_or(i64::MAX)),
        line: Bytes::from(line.log),
        attrs: line.attrs,
    })
}

impl LogOptions {
    fn wants(&self, entry: &LogEntry) -> bool {
        let stream = match entry.stream {
            LogStream::Stdout => self.stdout,
            LogStream::Stderr => self.stderr,
        };
        stream && self.since.is_none_or(|t| entry.at >= t) && self.until.is_none_or(|t| entry.at <= t)
    }
}

pub(crate) fn open(
    inner: &Inner,
    view: watch::Receiver<Arc<Container>>,
    options: LogOptions,
) -> Result<Logs> {
    let container = view.borrow().clone();
    if container.log_path.as_os_str().is_empty() {
        return Err(Error::Conflict("configured logging driver does not support reading".into()));
    }
    if !options.stdout && !options.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let (sender, receiver) = mpsc::channel(256);
    let reader = Reader { path: container.log_path.clone(), options, sender, follow_from: None };
    let cancel = inner.cancel.clone();
    inner.tasks.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = reader.run(view) => {}
        }
    });
    Ok(receiver)
}

/// Where following goes on.
#[derive(Debug)]
struct Place {
    file: BufReader<File>,
    inode: u64,
    /// *Unit:* bytes.
    read: u64,
    /// The beginning of a line whose end is not written yet.
    partial: String,
}

struct Reader {
    path: PathBuf,
    options: LogOptions,
    sender: mpsc::Sender<Result<LogEntry>>,
    follow_from: Option<Place>,
}

impl Reader {
    async fn run(self, view: watch::Receiver<Arc<Container>>) {
        // The watch comes first: what is written while the past is read is not missed.
        let watch = self.options.follow.then(|| watch_folder(&self.path)).transpose();
        let sender = self.sender.clone();
        let result = match watch {
            Ok(watch) => self.past().await.map(|reader| (reader, watch)),
            Err(e) => Err(e),
        };
        let outcome = match result {
            Ok((reader, Some(watch))) => reader.follow(watch, view).await,
            Ok((_, None)) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = outcome {
            sender.send(Err(e)).await.ok(); // nobody listens any more: then nobody minds
        }
    }

    /// Sends what is in the files, on a thread where blocking is fine.
    async fn past(mut self) -> Result<Self> {
        crate::blocking(move || {
            let path = self.path.clone();
            let failed = Error::io("read log", &path);
            self.read_past().map_err(failed)?;
            Ok(self)
        })
        .await
    }

    fn read_past(&mut self) -> io::Result<()> {
        let mut last = VecDeque::new();
        let current = open_current(&self.path)?;
        let mut files = rotated(&self.path)?;
        let tail = self.options.tail;
        if tail == Some(0) {
            files.clear();
        }
        for file in files {
            for line in file.split(b'\n') {
                if !self.take(&String::from_utf8_lossy(&line?), &mut last) {
                    return Ok(());
                }
            }
        }
        if let Some(mut place) = current {
            if tail == Some(0) {
                place.read = place.file.seek(SeekFrom::End(0))?;
            } else {
                while let Some(line) = place.next_line()? {
                    if !self.take(&line, &mut last) {
                        return Ok(());
                    }
                }
            }
            self.follow_from = Some(place);
        }
        for entry in last {
            if self.sender.blocking_send(Ok(entry)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns false when nobody listens any more.
    fn take(&self, line: &str, last: &mut VecDeque<LogEntry>) -> bool {
        let Some(entry) = parse(line).filter(|e| self.options.wants(e)) else { return true };
        match self.options.tail {
            None => self.sender.blocking_send(Ok(entry)).is_ok(),
            Some(n) => {
                last.push_back(entry);
                if last.len() > n {
                    last.pop_front();
                }
                true
            }
        }
    }

    async fn follow(
        mut self,
        watch: AsyncFd<OwnedFd>,
        mut view: watch::Receiver<Arc<Container>>,
    ) -> Result<()> {
        loop {
            // Looked at before reading: what was written before the end is then read.
            let ended = {
                let now = view.borrow_and_update();
                let running = now.state.is_running();
                drop(now);
                !running || view.has_changed().is_err()
            };
            let (reader, more) = self.read_new().await?;
            self = reader;
            if !more || ended {
                return Ok(());
            }
            tokio::select! {
                ready = watch.ready(Interest::READABLE) => {
                    if let Ok(mut guard) = ready {
                        drain(watch.get_ref());
                        guard.clear_ready();
                    }
                }
                changed = view.changed() => {
                    if changed.is_err() {
                        let (_, _) = self.read_new().await?;
                        return Ok(());
                    }
                }
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    /// Sends what was written since; false = the reader is done.
    async fn read_new(mut self) -> Result<(Self, bool)> {
        crate::blocking(move || {
            let path = self.path.clone();
            let failed = Error::io("read log", &path);
            let more = self.send_new().map_err(failed)?;
            Ok((self, more))
        })
        .await
    }

    fn send_new(&mut self) -> io::Result<bool> {
        loop {
            if self.follow_from.is_none() {
                self.follow_from = open_current(&self.path)?;
            }
            let Some(place) = &mut self.follow_from else { return Ok(true) };
            while let Some(line) = place.next_line()? {
                let Some(entry) = parse(&line) else { continue };
                if self.options.until.is_some_and(|t| entry.at > t) {
                    return Ok(false);
                }
                if self.options.wants(&entry) && self.sender.blocking_send(Ok(entry)).is_err() {
                    return Ok(false);
                }
            }
            if place.begin_again_if_cut()? {
                continue;
            }
            // Rotated away? Then the rest is in the new file.
            match std::fs::symlink_metadata(&self.path) {
                Ok(meta) if meta.ino() == place.inode => return Ok(true),
                Ok(_) => {
                    // Between the last read and the rename a line may have been written.
                    if let Some(line) = place.next_line()? {
                        if let Some(entry) = parse(&line).filter(|e| self.options.wants(e))
                            && self.sender.blocking_send(Ok(entry)).is_err()
                        {
                            return Ok(false);
                        }
                        continue;
                    }
                    self.follow_from = None;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
                Err(e) => return Err(e),
            }
        }
    }
}

impl Place {
    /// Returns the next whole line, without its end.
    fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        self.read += self.file.read_until(b'\n', &mut bytes)? as u64;
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        if !self.partial.ends_with('\n') {
            return Ok(None);
        }
        self.partial.pop();
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    /// Goes back to the beginning of a file that somebody has cut (logrotate's `copytruncate`); returns true if so.
    fn begin_again_if_cut(&mut self) -> io::Result<bool> {
        let cut = self.file.get_ref().metadata()?.len() < self.read;
        if cut {
            self.read = self.file.seek(SeekFrom::Start(0))?;
            self.partial.clear();
        }
        Ok(cut)
    }
}

fn open_current(path: &Path) -> io::Result<Option<Place>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(Place { file: BufReader::new(file), inode, read: 0, partial: String::new() }))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The older files, oldest first.
fn rotated(path: &Path) -> io::Result<Vec<BufReader<File>>> {
    let mut files = Vec::new();
    for n in 1.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        match File::open(&name) {
            Ok(file) => files.push(BufReader::new(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(e),
        }
    }
    files.reverse();
    Ok(files)
}

/// Watches the folder: the file itself may not exist yet, or be rotated away.
fn watch_folder(path: &Path) -> Result<AsyncFd<OwnedFd>> {
    use inotify::{CreateFlags, WatchFlags};
    let folder = path.parent().unwrap_or(path);
    let watched = || -> io::Result<AsyncFd<OwnedFd>> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
        inotify::add_watch(&fd, folder, flags)?;
        wait_readable(fd)
    };
    watched().map_err(Error::io("watch", folder))
}

/// What happened does not matter, only that something did.
fn drain(fd: &OwnedFd) {
    let mut events = [0u8; 4096];
    while rustix::io::read(fd, &mut events).is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, second: u32, stream: &str) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.000000001Z\"}}\n"
        )
    }

    async fn read(path: &Path, options: LogOptions) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(256);
        let reader = Reader { path: path.to_owned(), options, sender, follow_from: None };
        drop(reader.past().await.unwrap());
        let mut lines = vec![];
        while let Some(entry) = receiver.recv().await {
            lines.push(String::from_utf8_lossy(&entry.unwrap().line).trim_end().to_owned());
        }
        lines
    }

    fn both() -> LogOptions {
        LogOptions { stdout: true, stderr: true, ..LogOptions::default() }
    }

    #[tokio::test]
    async fn rotated_files_come_first_and_tail_stream_and_time_choose() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(dir.path().join("x-json.log.2"), line("a", 1, "stdout")).unwrap();
        std::fs::write(dir.path().join("x-json.log.1"), line("b", 2, "stderr")).unwrap();
        std::fs::write(&path, line("c", 3, "stdout") + &line("d", 4, "stdout") + "{\"half").unwrap();
        assert_eq!(read(&path, both()).await, ["a", "b", "c", "d"]);
        assert_eq!(read(&path, LogOptions { tail: Some(2), ..both() }).await, ["c", "d"]);
        assert_eq!(read(&path, LogOptions { tail: Some(0), ..both() }).await, Vec::<String>::new());
        assert_eq!(read(&path, LogOptions { stdout: false, ..both() }).await, ["b"]);
        let at = |second: i64| Some(Timestamp(1_767_225_600_000_000_001 + second * 1_000_000_000));
        assert_eq!(read(&path, LogOptions { since: at(2), until: at(3), ..both() }).await, ["b", "c"]);
    }

    #[tokio::test]
    async fn what_a_power_cut_leaves_of_an_entry_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        let (before, after) = (line("a", 1, "stdout"), line("{\\\"log\\\":", 3, "stdout"));
        let lost = line("lost \u{20ac}", 2, "stdout");
        for len in 0..lost.len() - 1 {
            for room in [0, lost.len() - len] {
                let torn = [&lost.as_bytes()[..len], &vec![0; room]].concat();
                let all = [before.as_bytes(), &torn, after.as_bytes()].concat();
                std::fs::write(dir.path().join("x-json.log.1"), &all).unwrap();
                std::fs::write(&path, &all).unwrap();
                let twice = ["a", "{\"log\":", "a", "{\"log\":"];
                assert_eq!(read(&path, both()).await, twice, "{len} bytes and {room} zeros");
            }
        }
    }

    #[tokio::test]
    async fn following_begins_again_in_a_file_that_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(&path, line("a", 1, "stdout") + &line("b", 2, "stdout") + "{\"half").unwrap();
        let (sender, mut receiver) = mpsc::channel(256);
        let reader = Reader { path: path.clone(), options: both(), sender, follow_from: None };
        let reader = reader.past().await.unwrap();
        let cut = std::fs::OpenOptions::new().write(true).truncate(true).open(&path);
        cut.and_then(|mut f| io::Write::write_all(&mut f, line("c", 3, "stdout").as_bytes())).unwrap();
        let (reader, more) = reader.read_new().await.unwrap();
        assert!(more);
        drop(reader);
        let mut lines = vec![];
        while let Some(entry) = receiver.recv().await {
            lines.push(entry.unwrap().line);
        }
        assert_eq!(lines, ["a\n", "b\n", "c\n"]);
    }

    #[tokio::test]
    async fn following_goes_on_in_the_new_file_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(&path, line("a", 1, "stdout")).unwrap();
        let (sender, mut receiver) = mpsc::channel(256);
        let reader = Reader { path: path.clone(), options: both(), sender, follow_from: None };
        let reader = reader.past().await.unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut f| io::Write::write_all(&mut f, line("b", 2, "stdout").as_bytes()))
            .unwrap();
        std::fs::rename(&path, dir.path().join("x-json.log.1")).unwrap();
        std::fs::write(&path, line("c", 3, "stdout")).unwrap();
        let (reader, more) = reader.read_new().await.unwrap();
        assert!(more);
        drop(reader);
        let mut lines = vec![];
        while let Some(entry) = receiver.recv().await {
            lines.push(entry.unwrap().line);
        }
        assert_eq!(lines, ["a\n", "b\n", "c\n"]);
    }
}
