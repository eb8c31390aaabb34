//! The output of several containers as one: each line with its container's name in front.

use super::project::{Member, Project, label};
use crate::{cli::LogLook, output};
use anyhow::Result;
use docker_api::{
    client::{Client, Demux, Frame, JsonLines},
    types,
};
use futures::StreamExt;
use http_body_util::BodyExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tokio_util::io::StreamReader;

/// Lines on their way to the terminal.
const QUEUE: usize = 1024;
/// How long the last lines of a container that has ended are waited for.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long nothing happens until nothing is expected any more, when no container runs.
const QUIET: Duration = Duration::from_millis(500);
/// *Unit:* bytes; a line that is longer is shown in pieces.
const LINE_MAX: usize = 64 << 10;
/// Colours of names, by turns. Source: ECMA-48 SGR.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Which lines of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct Which {
    pub(super) follow: bool,
    pub(super) tail: String,
    /// Empty, or as the API has it.
    pub(super) since: String,
    pub(super) until: String,
    pub(super) timestamps: bool,
}

/// A line of a container, by the stream that it came from.
#[derive(Debug)]
pub(super) enum Line {
    Out(String),
    Err(String),
}

/// Writes lines of many containers.
pub(super) struct Printer {
    prefix: bool,
    colour: bool,
    width: usize,
    colours: BTreeMap<String, u8>,
}

impl Printer {
    pub(super) fn new(look: &LogLook, names: impl Iterator<Item = String>) -> Self {
        let names: Vec<String> = names.collect();
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let on_terminal = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let colour = !look.no_color && (look.colour || on_terminal);
        let mut printer = Self { prefix: !look.no_log_prefix, colour, width, colours: BTreeMap::new() };
        names.iter().for_each(|name| printer.know(name));
        printer
    }

    fn know(&mut self, name: &str) {
        let next = COLOURS[self.colours.len() % COLOURS.len()];
        self.colours.entry(name.to_owned()).or_insert(next);
    }

    /// Writes a line where its container wrote it.
    pub(super) fn line(&mut self, name: &str, line: &Line) -> Result<()> {
        let (text, styled) = match line {
            Line::Out(text) => (text, output::styled as fn(&str) -> Result<()>),
            Line::Err(text) => (text, output::styled_error as fn(&str) -> Result<()>),
        };
        if !self.prefix {
            return styled(text);
        }
        self.know(name);
        let padded = format!("{name:width$}  | ", width = self.width);
        match self.colours.get(name) {
            Some(colour) if self.colour => styled(&format!("\x1b[{colour}m{padded}\x1b[0m{text}")),
            _ => styled(&format!("{padded}{text}")),
        }
    }
}

/// Returns how a container is called in front of its lines.
pub(super) fn short_name(project: &Project, member: &Member) -> String {
    let prefix = format!("{}{}", project.name, project.separator);
    member.name.strip_prefix(&prefix).unwrap_or(&member.name).to_owned()
}

/// Where lines come from.
pub(super) struct Source {
    /// In front of its lines.
    name: String,
    /// `containers` or `services` of the API.
    base: &'static str,
    id: String,
}

impl Source {
    pub(super) fn container(project: &Project, member: &Member) -> Self {
        Self { name: short_name(project, member), base: "containers", id: member.id.clone() }
    }

    /// All tasks of a service.
    pub(super) fn service(name: String, id: String) -> Self {
        Self { name, base: "services", id }
    }
}

/// Shows logs until all of them end.
pub(super) async fn logs(client: &Client, sources: Vec<Source>, which: &Which, look: &LogLook) -> Result<()> {
    let mut printer = Printer::new(look, sources.iter().map(|s| s.name.clone()));
    let (sender, mut lines) = mpsc::channel(QUEUE);
    let mut readers = JoinSet::new();
    for source in sources {
        let (client, which, sender) = (client.clone(), which.clone(), sender.clone());
        readers.spawn(async move { read(&client, source, &which, &sender).await });
    }
    drop(sender);
    while let Some((name, line)) = lines.recv().await {
        printer.line(&name, &line)?;
    }
    while let Some(read) = readers.join_next().await {
        read??;
    }
    Ok(())
}

type Lines = mpsc::Sender<(Arc<str>, Line)>;

/// Shows logs of containers that are there and of those that start later, until nobody wants them any more.
pub(super) async fn logs_of_all(
    client: &Client,
    project: &Project,
    services: BTreeSet<String>,
    which: &Which,
    look: &LogLook,
) -> Result<()> {
    let filters = serde_json::json!({
        "type": {"container": true},
        "event": {"start": true},
        "label": {format!("{}={}", label::PROJECT, project.name): true},
    });
    let mut events = client.events(&[("filters", &filters.to_string())]).await?;
    // Who starts from here on is heard of; who did before is listed.
    let mut members = project.members(client).await?;
    members.retain(|m| services.is_empty() || services.contains(&m.service));
    let mut printer = Printer::new(look, members.iter().map(|m| short_name(project, m)));
    let (sender, mut lines) = mpsc::channel(QUEUE);
    let mut readers = JoinSet::new();
    let mut read_all = |source: Source, which: Which| {
        let (client, sender) = (client.clone(), sender.clone());
        readers.spawn(async move {
            let name = Arc::from(source.name.as_str());
            if let Err(error) = read(&client, source, &which, &sender).await {
                let line = format!("its output is not shown: {error:#}");
                send(line.as_bytes(), &name, Line::Err, &sender).await;
            }
        });
    };
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for member in &members {
        if member.is_running() {
            let started = client.container(&member.id).await?.state.started_at.timestamp().0;
            shown.insert(member.id.clone(), started);
        }
        // One that does not run says nothing more until it starts.
        let which = Which { follow: member.is_running(), ..which.clone() };
        read_all(Source::container(project, member), which);
    }
    loop {
        let event = tokio::select! {
            Some((name, line)) = lines.recv() => {
                printer.line(&name, &line)?;
                continue;
            }
            event = events.next() => event.transpose()?,
        };
        let Some(event) = event else { return Ok(()) };
        let of = |key: &str| event.actor.attributes.get(key).cloned().unwrap_or_default();
        if !services.is_empty() && !services.contains(&of(label::SERVICE)) {
            continue;
        }
        let id = event.actor.id.clone();
        // It may be gone already.
        let Ok(container) = client.container(&id).await else { continue };
        let started = container.state.started_at.timestamp().0;
        if shown.insert(id.clone(), started) == Some(started) {
            continue;
        }
        let whole = of("name");
        let prefix = format!("{}{}", project.name, project.separator);
        let name = whole.strip_prefix(&prefix).unwrap_or(&whole).to_owned();
        let source = Source { name, base: "containers", id };
        // Of one that ran before, what it said then is shown.
        read_all(source, Which { since: seconds(started), tail: "all".to_owned(), ..which.clone() });
    }
}

/// Reads the log of a container line by line.
async fn read(client: &Client, source: Source, which: &Which, lines: &Lines) -> Result<()> {
    let Source { name, base, id } = source;
    let name = &Arc::from(name);
    let flag = |on| if on { "1" } else { "0" };
    let mut query = vec![
        ("stdout", "1"),
        ("stderr", "1"),
        ("follow", flag(which.follow)),
        ("timestamps", flag(which.timestamps)),
        ("tail", which.tail.as_str()),
    ];
    let bounds = [("since", which.since.as_str()), ("until", which.until.as_str())];
    query.extend(bounds.into_iter().filter(|(_, at)| !at.is_empty()));
    // The log of a container with a terminal has no frames.
    let raw = base == "containers" && client.container(&id).await?.config.tty;
    let answer = client.logs(base, &id, &query).await?;
    let body = answer.into_body().into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
    let mut reader = StreamReader::new(body);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    if raw {
        let mut piece = vec![0; 16 << 10];
        loop {
            let read = reader.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            split(&mut out, &piece[..read], name, Line::Out, lines).await;
        }
    } else {
        let mut frames = Demux::new(reader);
        while let Some(frame) = frames.next().await? {
            match frame {
                Frame::Stdout(bytes) => split(&mut out, &bytes, name, Line::Out, lines).await,
                Frame::Stderr(bytes) | Frame::SystemError(bytes) => {
                    split(&mut err, &bytes, name, Line::Err, lines).await
                }
            }
        }
    }
    for (rest, stream) in [(out, Line::Out as fn(String) -> Line), (err, Line::Err)] {
        if !rest.is_empty() {
            send(&rest, name, stream, lines).await;
        }
    }
    Ok(())
}

/// Sends whole lines; the rest waits for more.
async fn split(rest: &mut Vec<u8>, bytes: &[u8], name: &Arc<str>, stream: fn(String) -> Line, lines: &Lines) {
    rest.extend_from_slice(bytes);
    while let Some(end) =
        rest.iter().position(|b| *b == b'\n').or((rest.len() > LINE_MAX).then_some(LINE_MAX))
    {
        let line: Vec<u8> = rest.drain(..=end).collect();
        send(&line, name, stream, lines).await;
    }
}

async fn send(line: &[u8], name: &Arc<str>, stream: fn(String) -> Line, lines: &Lines) {
    let text = String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned();
    // Nobody reads any more: the command ends.
    drop(lines.send((name.clone(), stream(text))).await);
}

/// How `up` ends by itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    /// With any container.
    pub(super) with_any: bool,
    /// With one that fails.
    pub(super) with_failure: bool,
}

/// The output of a project's services while they run: of what starts later too.
pub(super) struct Follower<'a> {
    client: &'a Client,
    project: &'a Project,
    /// Services whose end counts.
    services: BTreeSet<String>,
    /// Those among them whose output is shown.
    shown: BTreeSet<String>,
    events: JsonLines<types::EventMessage>,
    printer: Printer,
    timestamps: bool,
    sender: Lines,
    lines: mpsc::Receiver<(Arc<str>, Line)>,
    /// By container.
    readers: JoinSet<()>,
    /// By container, while it runs.
    reading: BTreeMap<String, AbortHandle>,
    /// Containers that were there before, or were read from already: what they said in earlier runs is known.
    known: BTreeSet<String>,
}

impl<'a> Follower<'a> {
    /// `events` were asked for before anything was started; of the containers that were there already then only what is new
    /// is shown.
    ///
    /// # Errors
    /// The daemon cannot be asked.
    pub(super) async fn new(
        client: &'a Client,
        project: &'a Project,
        (services, shown): (BTreeSet<String>, BTreeSet<String>),
        events: JsonLines<types::EventMessage>,
        before: &[Member],
        (look, timestamps): (&LogLook, bool),
    ) -> Result<Self> {
        let members = project.of_services(client, &[]).await?;
        let (sender, lines) = mpsc::channel(QUEUE);
        let printer = Printer::new(look, members.iter().map(|m| short_name(project, m)));
        let (readers, reading) = (JoinSet::new(), BTreeMap::new());
        let known = before.iter().map(|member| member.id.clone()).collect();
        let mut follower = Self {
            client,
            project,
            services,
            shown,
            events,
            printer,
            timestamps,
            sender,
            lines,
            readers,
            reading,
            known,
        };
        let ran = |m: &&Member| before.iter().any(|known| known.id == m.id && known.is_running());
        for member in members.iter().filter(ran) {
            if follower.shown.contains(&member.service) {
                follower.read_from(member.id.clone(), short_name(project, member), true);
            }
        }
        Ok(follower)
    }

    fn read_from(&mut self, id: String, name: String, new_only: bool) {
        let (client, sender, timestamps) = (self.client.clone(), self.sender.clone(), self.timestamps);
        let container = id.clone();
        let is_known = !self.known.insert(id.clone());
        let reading = async move |name: String| -> Result<()> {
            let state = client.container(&id).await?.state;
            let (started, ended) = (state.started_at.timestamp().0, state.finished_at.timestamp().0);
            // It may have ended again by now.
            let before = if ended > started { started } else { ended };
            let which = Which {
                follow: true,
                tail: if new_only { "0" } else { "all" }.to_owned(),
                // Of a container that ran before, what it said then is known.
                since: if is_known && before > 0 { seconds(before) } else { String::new() },
                until: String::new(),
                timestamps,
            };
            read(&client, Source { name, base: "containers", id }, &which, &sender).await
        };
        let complaints = self.sender.clone();
        while self.readers.try_join_next().is_some() {}
        let reader = self.readers.spawn(async move {
            if let Err(error) = reading(name.clone()).await {
                let line = format!("its output is not shown: {error:#}");
                send(line.as_bytes(), &name.into(), Line::Err, &complaints).await;
            }
        });
        self.reading.insert(container, reader);
    }

    /// Shows output until nothing runs any more, or something has ended that ends everything: its name and exit code.
    ///
    /// # Errors
    /// Standard output is closed, or the daemon is gone.
    pub(super) async fn until_end(&mut self, ends: &Ends) -> Result<Option<(String, u8)>> {
        let mut quiet: Option<tokio::time::Instant> = None;
        loop {
            let event = tokio::select! {
                Some((name, line)) = self.lines.recv() => {
                    self.printer.line(&name, &line)?;
                    continue;
                }
                () = tokio::time::sleep_until(quiet.unwrap_or_else(tokio::time::Instant::now)), if quiet.is_some() => {
                    return Ok(None);
                }
                event = self.events.next() => event.transpose()?,
            };
            let Some(event) = event else { return Ok(None) };
            let of = |key: &str| event.actor.attributes.get(key).cloned().unwrap_or_default();
            let service = of(label::SERVICE);
            let (counts, shown) = (self.services.contains(&service), self.shown.contains(&service));
            if of(label::ONE_OFF).eq_ignore_ascii_case("true") || !(counts || shown) {
                continue;
            }
            let whole = of("name");
            let prefix = format!("{}{}", self.project.name, self.project.separator);
            let name = whole.strip_prefix(&prefix).unwrap_or(&whole).to_owned();
            match event.action.as_str() {
                "start" if shown => self.read_from(event.actor.id.clone(), name, false),
                "die" => {
                    self.last_words(&event.actor.id).await?;
                    let code: u8 = of("exitCode").parse().unwrap_or(1);
                    if shown {
                        output::line(&format!("{name} exited with code {code}"))?;
                    }
                    if ends.with_any || (ends.with_failure && code != 0) {
                        return Ok(Some((name, code)));
                    }
                    let left = self.project.of_services(self.client, &[]).await?;
                    // Others may have ended too, whose events are still to come.
                    let runs = left.iter().any(|m| m.is_running() && self.services.contains(&m.service));
                    quiet = (!runs).then(|| tokio::time::Instant::now() + QUIET);
                }
                _ => {}
            }
        }
    }

    /// Shows what a container said last: it comes before that it is gone.
    async fn last_words(&mut self, id: &str) -> Result<()> {
        let deadline = Instant::now() + LAST_WORDS;
        let reader = self.reading.remove(id);
        while reader.as_ref().is_some_and(|r| !r.is_finished()) && Instant::now() < deadline {
            if let Ok(Some((name, line))) = tokio::time::timeout(LAST_WORDS / 40, self.lines.recv()).await {
                self.printer.line(&name, &line)?;
            }
        }
        while let Ok((name, line)) = self.lines.try_recv() {
            self.printer.line(&name, &line)?;
        }
        Ok(())
    }
}

/// *Unit:* nanoseconds in, Unix seconds with a fraction out, as the API has them.
fn seconds(nanos: i64) -> String {
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}
