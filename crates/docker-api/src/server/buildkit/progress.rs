//! What happens in a build, as buildx shows it: vertices that begin and end, what they write, how far they are.

use engine::BuildLine;
use prost_types::Timestamp;
use proto::buildkit::control::{StatusResponse, Vertex, VertexLog, VertexStatus};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::{mpsc, watch},
};

/// *Limit* of what the steps of one build write and we keep. *Unit:* bytes. Source: buildkit `util/progress/logs`.
const LOG_MAX: usize = 2 << 20;
const STDOUT: i64 = 1;
const STDERR: i64 = 2;
/// How often it is said how far a transfer is.
const PACE: Duration = Duration::from_millis(100);

fn now() -> Option<Timestamp> {
    Some(SystemTime::now().into())
}

/// What has happened so far; those who watch are woken.
#[derive(Debug, Default)]
pub(super) struct Progress {
    inner: Mutex<Inner>,
    /// Messages so far, and whether there will be no more.
    length: watch::Sender<(usize, bool)>,
}

#[derive(Debug, Default)]
struct Inner {
    messages: Vec<StatusResponse>,
    vertices: usize,
    logged: usize,
}

/// A vertex that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    progress: Arc<Progress>,
    vertex: Vertex,
}

impl Progress {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, message: StatusResponse) {
        let mut inner = self.inner();
        inner.messages.push(message);
        let length = inner.messages.len();
        drop(inner);
        self.length.send_modify(|state| state.0 = length);
    }

    /// Nothing more will happen.
    pub(super) fn end(&self) {
        self.length.send_modify(|state| state.1 = true);
    }

    /// Returns what has happened since the first `seen` messages, once there is something; `None` at the end.
    pub(super) async fn after(&self, seen: usize) -> Option<Vec<StatusResponse>> {
        let mut length = self.length.subscribe();
        drop(length.wait_for(|(length, ended)| *length > seen || *ended).await);
        let messages = self.inner().messages.get(seen..).unwrap_or_default().to_vec();
        (!messages.is_empty()).then_some(messages)
    }

    pub(super) fn begin(self: &Arc<Self>, name: impl Into<String>) -> Begun {
        let name = name.into();
        let mut inner = self.inner();
        inner.vertices += 1;
        let digest = image::Digest::of(format!("{}:{name}", inner.vertices).as_bytes()).to_string();
        drop(inner);
        let vertex = Vertex { digest, name, started: now(), ..Vertex::default() };
        self.say(StatusResponse { vertexes: vec![vertex.clone()], ..StatusResponse::default() });
        Begun { progress: Arc::clone(self), vertex }
    }

    /// Shows the lines of the engine's builder until they end; returns the step that was not ended.
    pub(super) async fn show(self: &Arc<Self>, lines: &mut mpsc::Receiver<BuildLine>) -> Option<Begun> {
        let mut step: Option<Begun> = None;
        while let Some(line) = lines.recv().await {
            match (line, &mut step) {
                (BuildLine::Step { number, total, text }, _) => {
                    if let Some(before) = step.take() {
                        before.end();
                    }
                    // One line, however the instruction is written.
                    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    step = Some(self.begin(format!("[{number}/{total}] {text}")));
                }
                (BuildLine::Cached(_), Some(step)) => step.vertex.cached = true,
                (BuildLine::Output(text), Some(step)) => step.log(STDOUT, &text),
                (BuildLine::Complaint(text), Some(step)) => step.log(STDERR, &text),
                (BuildLine::Pull(part), Some(step)) if !part.id.is_empty() => {
                    step.status(&part.id, part.current, part.total, part.status.ends_with("complete"));
                }
                (BuildLine::Note(_) | BuildLine::Pull(_) | BuildLine::Image(_), _)
                | (BuildLine::Cached(_) | BuildLine::Output(_) | BuildLine::Complaint(_), None) => {}
            }
        }
        step
    }
}

impl Begun {
    fn log(&self, stream: i64, text: &str) {
        let mut inner = self.progress.inner();
        let before = inner.logged;
        inner.logged += text.len();
        drop(inner);
        let text = match before {
            before if before + text.len() <= LOG_MAX => text,
            before if before <= LOG_MAX => "[output clipped, log limit 2MiB reached]\n",
            _ => return,
        };
        let log = VertexLog {
            vertex: self.vertex.digest.clone(),
            timestamp: now(),
            stream,
            msg: text.as_bytes().to_vec(),
        };
        self.progress.say(StatusResponse { logs: vec![log], ..StatusResponse::default() });
    }

    /// Shows how far a part of it is; `total` 0 = unknown.
    pub(super) fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: self.vertex.digest.clone(),
            name: id.to_owned(),
            current: number(current),
            total: number(total),
            timestamp: now(),
            started: self.vertex.started,
            completed: if done { now() } else { None },
        };
        self.progress.say(StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    pub(super) fn end(mut self) {
        self.vertex.completed = now();
        self.progress.say(StatusResponse { vertexes: vec![self.vertex], ..StatusResponse::default() });
    }

    pub(super) fn fail(mut self, error: &str) {
        self.vertex.error = error.to_owned();
        self.end();
    }
}

/// A reader whose bytes are counted in a vertex, which ends with it.
#[derive(Debug)]
pub(super) struct Transfer<R> {
    reader: R,
    what: &'static str,
    step: Option<Begun>,
    bytes: u64,
    said: Instant,
}

impl<R> Transfer<R> {
    pub(super) fn new(reader: R, what: &'static str, step: Begun) -> Self {
        Self { reader, what, step: Some(step), bytes: 0, said: Instant::now() }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Transfer<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = ready!(Pin::new(&mut self.reader).poll_read(cx, to));
        let count = (to.filled().len() - before) as u64;
        self.bytes += count;
        match (&read, self.step.take()) {
            (Err(error), Some(step)) => step.fail(&error.to_string()),
            (Ok(()), Some(step)) if count == 0 => {
                step.status(self.what, self.bytes, 0, true);
                step.end();
            }
            (Ok(()), Some(step)) => {
                if self.said.elapsed() >= PACE {
                    self.said = Instant::now();
                    step.status(self.what, self.bytes, 0, false);
                }
                self.step = Some(step);
            }
            (_, None) => {}
        }
        Poll::Ready(read)
    }
}
