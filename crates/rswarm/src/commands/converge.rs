//! Waiting until services run what they should, and showing the way there: on a terminal a table that is drawn anew,
//! elsewhere a line for each change. What does not run has its [`causes`] below it.

use super::{
    causes::{self, Attempts, Cause},
    last_words,
};
use crate::{output, terminal};
use anyhow::{Error, Result, bail};
use docker_api::{client::Client, types};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(100);
/// The longest that it becomes where managers are slow to answer: a cause is to be told soon nevertheless.
const PERIOD_MAX: Duration = Duration::from_secs(1);
/// A global service that wants no task yet may just have been made: the manager has this long to look at the nodes.
const GLOBAL_GRACE: Duration = Duration::from_secs(2);
/// Looks that may fail one after the other: a leader may be changing; what was asked for is in the log already.
const MISSES_MAX: u32 = 30;
/// Time between two looks for causes, which are of all tasks that are remembered.
const CAUSES_PERIOD: Duration = Duration::from_millis(500);
/// What stands before a cause in the table.
const INDENT: &str = "  ";
/// Causes of one service that are shown.
const CAUSES_MAX: usize = 3;
/// What has come up must have stood for so long, for what fails at once has run for a moment, too.
const STEADY: Duration = Duration::from_secs(1);
/// The same after a failure was seen. *Source:* Docker's CLI, which takes this long each time.
const STEADY_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Up to this many services are asked for by name, more in one go with all others.
const NAMED_MAX: usize = 50;
/// Causes that are told as lines: some have something else in them each time, such as a port.
const TOLD_MAX: usize = 200;
/// Rows of the table; what still waits comes first.
const ROWS_MAX: usize = 20;
/// How often the log of what failed is asked for: there may be nothing in it.
const WORDS_ASKED_MAX: u32 = 3;
/// How long that may take: there is more to look at.
const WORDS_PATIENCE: Duration = Duration::from_secs(1);
/// Characters of it that are shown.
const WORDS_MAX: usize = 200;
/// Pulls of one service that are shown.
const PULLS_MAX: usize = 4;
/// What is left of a line for how a service stands, however long its name. *Unit:* characters.
const STATE_ROOM: usize = 40;
/// Where lines are printed, something is said at least so often: who reads them takes silence for a hang.
const SILENCE: Duration = Duration::from_secs(30);

/// A service on its way.
struct Row {
    service: types::Service,
    /// Tasks that run as it is written now; of a job those that are done.
    there: u64,
    wanted: u64,
    /// Its other tasks, by state; a pull says how far it is.
    others: BTreeMap<String, u64>,
    /// Why they are not there.
    causes: Vec<String>,
    /// Images that nodes fetch for it.
    pulls: Vec<Pull>,
    /// The tasks that are there, by id, and whether a health check has found them well; of a job none.
    running: BTreeMap<String, bool>,
}

/// An image on its way to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pull {
    image: String,
    /// Its name; its id before that is known.
    node: String,
    /// `1.5 MB of 20.0 MB`.
    progress: String,
}

impl Pull {
    fn line(&self) -> String {
        format!("pulling {} on {}: {}", self.image, self.node, self.progress)
    }
}

/// A wait that was given up, or led nowhere, because of something that waiting does not cure.
#[derive(Debug)]
pub(crate) struct CannotRun(String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

impl CannotRun {
    /// `text`: what cannot run, why, and what to do.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns true if this is why something failed.
    pub(crate) fn is_in(error: &Error) -> bool {
        error.downcast_ref::<Self>().is_some()
    }
}

impl Row {
    fn update(&self) -> &str {
        self.service.update_status.as_ref().map(|u| u.state.as_str()).unwrap_or_default()
    }

    fn is_done(&self) -> bool {
        self.there >= self.wanted && !matches!(self.update(), "updating" | "rollback_started")
    }

    fn line(&self) -> String {
        format!("{}: {}/{}", self.service.spec.name, self.there, self.wanted)
    }

    /// What the tasks do that are not there yet.
    fn states(&self) -> String {
        let others: Vec<String> =
            self.others.iter().map(|(state, count)| format!("{count} {state}")).collect();
        match (self.update(), others.join(", ")) {
            ("updating" | "rollback_started", states) => {
                format!("{} {states}", self.update()).trim_end().to_owned()
            }
            // One attempt has ended, and the next has not begun.
            (_, states) if states.is_empty() && !self.is_done() && !self.causes.is_empty() => {
                "between two attempts".to_owned()
            }
            (_, states) => states,
        }
    }
}

/// What was asked of the services that are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Change,
    /// Their specs before the last change: that an update is rolled back is no failure then.
    WayBack,
}

/// Waits until every named service runs what it should again, after its last change was taken back.
///
/// # Errors
/// As [`converge`].
pub(crate) async fn converge_back(client: &Client, names: &BTreeSet<String>, limit: Duration) -> Result<()> {
    wait(client, names, limit, Asked::WayBack).await
}

/// Waits until every named service runs what it should, and has for a moment.
///
/// # Errors
/// When an update pauses or rolls back, or `limit` has passed; with the causes of each service that is not there yet.
/// [`CannotRun`] before that, when a service's tasks are rejected for a reason that waiting does not cure.
pub(crate) async fn converge(client: &Client, names: &BTreeSet<String>, limit: Duration) -> Result<()> {
    wait(client, names, limit, Asked::Change).await
}

async fn wait(client: &Client, names: &BTreeSet<String>, limit: Duration, asked_for: Asked) -> Result<()> {
    let start = Instant::now();
    let mut steady = Steady::default();
    let mut progress = Progress::default();
    let mut detective = Detective::default();
    let mut misses = 0;
    loop {
        let asked = Instant::now();
        let young = start.elapsed() < GLOBAL_GRACE;
        let rows = match look(client, names, young).await {
            Ok(rows) if rows.len() < names.len() => {
                let there = |name: &&String| {
                    rows.iter().any(|r| r.service.spec.name == **name || r.service.id == **name)
                };
                let gone: Vec<&str> = names.iter().filter(|n| !there(n)).map(String::as_str).collect();
                bail!("no such service: {}: removed by someone while it came up", gone.join(", "));
            }
            Ok(mut rows) => {
                misses = 0;
                detective.look(client, &mut rows).await;
                rows
            }
            Err(_) if misses < MISSES_MAX => {
                misses += 1;
                tokio::time::sleep(PERIOD * 5).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        for row in &rows {
            judge(client, row, !progress.is_new() && asked_for == Asked::Change).await?;
        }
        progress.show(&rows)?;
        if let Some((service, cause)) = &detective.hopeless {
            let hint = causes::hint(cause).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            return Err(CannotRun(format!("service {service} cannot run: {cause}{hint}")).into());
        }
        let waiting: Vec<&Row> = rows.iter().filter(|row| !row.is_done()).collect();
        if steady.look(&rows, detective.saw_failures) {
            return Ok(());
        }
        if start.elapsed() > limit && !waiting.is_empty() {
            let mut text = format!("not converged within {limit:?}:");
            for row in waiting {
                let why = row.causes.first().map(|cause| format!(": {cause}")).unwrap_or_default();
                text += &format!("\n  {}{why}", row.service.spec.name);
            }
            text += "\nhint: `rswarm service ps NAME --no-trunc` shows every task";
            bail!(text);
        }
        if start.elapsed() > limit + STEADY_AFTER_FAILURE * 2 {
            bail!(
                "not converged within {limit:?}: tasks come up, but do not stay\nhint: `rswarm service ps NAME --no-trunc` \
                 shows every task"
            );
        }
        // Thousands of services take their time to be listed: managers are to do more than answer this.
        tokio::time::sleep(PERIOD.max(asked.elapsed() * 4).min(PERIOD_MAX)).await;
    }
}

async fn look(client: &Client, names: &BTreeSet<String>, young: bool) -> Result<Vec<Row>> {
    // Tasks of jobs are to end.
    let mut filters = serde_json::json!({"desired-state": {"running": true, "complete": true}});
    if names.len() <= NAMED_MAX {
        filters["service"] = names.iter().map(|name| (name.clone(), serde_json::Value::Bool(true))).collect();
    }
    let services = client.services(&[("status", "true")]).await?;
    let mut tasks: BTreeMap<String, Vec<types::Task>> = BTreeMap::new();
    for task in client.tasks(&[("filters", &filters.to_string())]).await? {
        tasks.entry(task.service_id.clone()).or_default().push(task);
    }
    let named = services.into_iter().filter(|s| names.contains(&s.spec.name) || names.contains(&s.id));
    Ok(named.map(|service| row(tasks.remove(&service.id).unwrap_or_default(), service, young)).collect())
}

/// Tasks of the spec before this one run too; they do not count.
fn row(tasks: Vec<types::Task>, service: types::Service, young: bool) -> Row {
    let status = service.service_status.clone().unwrap_or_default();
    let mode = &service.spec.mode;
    let job = mode.replicated_job.is_some() || mode.global_job.is_some();
    let wanted = as_wanted(&service.spec.task_template);
    let (mut there, mut others, mut running) = (0, BTreeMap::new(), BTreeMap::new());
    let mut pulls = Vec::new();
    for task in tasks {
        if job && matches!(task.status.state.as_str(), "complete" | "failed" | "rejected" | "shutdown") {
            // It has ended, of this run of the job or one before.
            continue;
        }
        if task.status.state == "running" && !job && as_wanted(&task.spec) == wanted {
            there += 1;
            let container = task.spec.container_spec.as_ref();
            let is_well = container.is_some_and(|container| is_checked(container.healthcheck.as_ref()));
            running.insert(task.id, is_well);
            continue;
        }
        let pulled =
            task.status.message.strip_prefix("pulling ").filter(|_| task.status.state == "preparing");
        let state = match pulled {
            None => task.status.state,
            Some(progress) => {
                let image = task.spec.container_spec.map(|container| container.image).unwrap_or_default();
                let image = image.split('@').next().unwrap_or_default().to_owned();
                let pull = Pull { image, node: task.node_id, progress: progress.to_owned() };
                // Tasks of one node wait for the same pull.
                if !pulls.iter().any(|other: &Pull| (&other.image, &other.node) == (&pull.image, &pull.node))
                {
                    pulls.push(pull);
                }
                "pulling".to_owned()
            }
        };
        *others.entry(state).or_default() += 1;
    }
    if job {
        there = status.completed_tasks;
    }
    let global = mode.global.is_some();
    let wanted = match &mode.replicated_job {
        // Managers tell how many of a job are to run at once.
        Some(job) => job.total_completions.or(job.max_concurrent).unwrap_or(1),
        // Of a global job they tell those that are not done yet.
        None if job => (status.desired_tasks + status.completed_tasks).max(u64::from(young)),
        None if global && young => status.desired_tasks.max(1),
        None => status.desired_tasks,
    };
    Row { service, there, wanted, others, causes: Vec::new(), pulls, running }
}

/// Does a spec have a health check? Tasks with one run when it has found them well.
fn is_checked(check: Option<&types::Health>) -> bool {
    check.is_some_and(|check| check.test.first().is_some_and(|first| first != "NONE"))
}

/// Ends the waiting for an update that has given up.
async fn judge(client: &Client, row: &Row, seen_before: bool) -> Result<()> {
    let (name, update) = (&row.service.spec.name, row.update());
    match update {
        "paused" | "rollback_paused" => {
            let message = row.service.update_status.as_ref().map(|u| u.message.clone()).unwrap_or_default();
            bail!("service {name} {update}: {message}{}", newest_error(client, &row.service.id).await)
        }
        "rollback_completed" if seen_before => {
            let why = newest_error(client, &row.service.id).await;
            bail!("service {name} rolled back: its new tasks failed{why}")
        }
        _ => Ok(()),
    }
}

/// Returns what the newest failure of a service says, as an addition to a sentence.
async fn newest_error(client: &Client, service: &str) -> String {
    let filters = serde_json::json!({"service": {service: true}}).to_string();
    let Ok(mut tasks) = client.tasks(&[("filters", &filters)]).await else { return String::new() };
    tasks.sort_by_key(|t| t.status.timestamp.timestamp());
    let found = tasks.iter().rev().find(|t| !t.status.err.is_empty());
    found.map(|task| format!(": {}", causes::plain(&task.status.err))).unwrap_or_default()
}

/// Whether what is there stays there.
#[derive(Default)]
struct Steady {
    /// The tasks that are there, by id, and since when we see them: while others come up, they stand already.
    since: BTreeMap<String, Instant>,
    looked: bool,
}

impl Steady {
    /// Returns true if all services are complete, and each of their tasks has stood for long enough, or was found well by
    /// its health check. What was so at the first look is old.
    fn look(&mut self, rows: &[Row], after_failure: bool) -> bool {
        let first = !std::mem::replace(&mut self.looked, true);
        let running: BTreeMap<&String, bool> =
            rows.iter().flat_map(|row| row.running.iter().map(|(id, is_well)| (id, *is_well))).collect();
        self.since.retain(|id, _| running.contains_key(id));
        for id in running.keys() {
            self.since.entry((*id).clone()).or_insert_with(Instant::now);
        }
        if !rows.iter().all(Row::is_done) {
            return false;
        }
        let stands = |id: &String, is_well: bool| match after_failure {
            true => self.since[id].elapsed() >= STEADY_AFTER_FAILURE,
            false => is_well || self.since[id].elapsed() >= STEADY,
        };
        first || running.into_iter().all(|(id, is_well)| stands(id, is_well))
    }
}

/// Finds out why services are not there.
#[derive(Default)]
struct Detective {
    asked: Option<Instant>,
    /// By service, as they were found last.
    causes: BTreeMap<String, Vec<String>>,
    attempts: BTreeMap<String, Attempts>,
    /// A task of the present spec failed, or was rejected.
    saw_failures: bool,
    /// A service that waiting does not help, and why.
    hopeless: Option<(String, String)>,
    /// Names of nodes, by id.
    hosts: BTreeMap<String, String>,
    /// What containers printed last that ended for a cause, by service and cause.
    words: BTreeMap<(String, String), Words>,
}

/// The last line of a container that failed, once it is known.
#[derive(Default)]
struct Words {
    line: Option<String>,
    asked: u32,
}

impl Detective {
    /// Puts the causes into the rows. Where managers do not answer, the ones known before stay.
    async fn look(&mut self, client: &Client, rows: &mut [Row]) {
        if self.asked.is_none_or(|asked| asked.elapsed() >= CAUSES_PERIOD) {
            let waiting: Vec<&Row> = rows.iter().filter(|row| !row.is_done()).take(NAMED_MAX).collect();
            if let Err(error) = self.ask(client, &waiting).await {
                tracing::debug!(error = %error, "managers do not say why tasks do not run");
            }
            self.asked = Some(Instant::now());
        }
        for row in rows.iter_mut().filter(|row| !row.is_done()) {
            row.causes = self.causes.get(&row.service.id).cloned().unwrap_or_default();
        }
        for pull in rows.iter_mut().flat_map(|row| &mut row.pulls) {
            if let Some(host) = self.hosts.get(&pull.node) {
                pull.node.clone_from(host);
            }
        }
    }

    async fn ask(&mut self, client: &Client, waiting: &[&Row]) -> docker_api::client::Result<()> {
        let names: serde_json::Map<_, _> =
            waiting.iter().map(|row| (row.service.id.clone(), serde_json::Value::Bool(true))).collect();
        if names.is_empty() {
            return Ok(());
        }
        let filters = serde_json::json!({"service": names}).to_string();
        let tasks = client.tasks(&[("filters", &filters)]).await?;
        let nodes = client.nodes(&[]).await?;
        let able = nodes.iter().filter(|n| n.status.state == "ready" && n.spec.availability == "active");
        let able: BTreeSet<String> = able.map(|node| node.id.clone()).collect();
        self.hosts = nodes.into_iter().map(|node| (node.id, node.description.hostname)).collect();
        for row in waiting {
            let wanted = as_wanted(&row.service.spec.task_template);
            let of_it = tasks.iter().filter(|task| task.service_id == row.service.id);
            let current: Vec<types::Task> =
                of_it.filter(|task| as_wanted(&task.spec) == wanted).cloned().collect();
            let found: Vec<Cause> = causes::of(&current);
            self.saw_failures |= found
                .iter()
                .any(|cause| matches!(cause.state, causes::State::Failed | causes::State::Rejected));
            let mut lines = Vec::new();
            for cause in found.iter().take(CAUSES_MAX) {
                let words = self.last_words(client, &row.service.id, cause).await;
                lines.push(cause.with_words(words.as_deref()).line(&self.hosts));
            }
            self.causes.insert(row.service.id.clone(), lines);
            let attempts = self.attempts.entry(row.service.id.clone()).or_default();
            if let Some(cause) = attempts.note(&current, &able) {
                self.hopeless.get_or_insert((row.service.spec.name.clone(), cause));
            }
        }
        Ok(())
    }
}

impl Detective {
    /// Returns what a container printed last that an exit code is the cause of; for each cause the first one's will do.
    async fn last_words(&mut self, client: &Client, service: &str, cause: &Cause) -> Option<String> {
        if !cause.says_little() {
            return None;
        }
        let words = self.words.entry((service.to_owned(), cause.text.clone())).or_default();
        if words.line.is_none() && words.asked < WORDS_ASKED_MAX {
            words.asked += 1;
            let log = tokio::time::timeout(WORDS_PATIENCE, last_words::of(client, &cause.task, 1)).await;
            let log = log.map(Result::unwrap_or_default).unwrap_or_default();
            let line = log.lines().rfind(|line| !line.trim().is_empty());
            words.line = line.map(|line| line.trim().chars().take(WORDS_MAX).collect());
        }
        words.line.clone()
    }
}

/// Returns what of a spec has tasks replaced: where a task may run is no reason.
fn as_wanted(spec: &types::TaskSpec) -> types::TaskSpec {
    types::TaskSpec { placement: None, ..spec.clone() }
}

/// What stands on the screen.
#[derive(Default)]
struct Progress {
    /// By service.
    shown: BTreeMap<String, String>,
    /// Causes and pulls that were told as lines.
    told: BTreeSet<(String, String)>,
    table: Vec<String>,
    /// When a line was printed last.
    said: Option<Instant>,
}

/// Is there a person before a screen that can be drawn on? Logs of builds keep what is drawn over.
fn is_live() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stdout().is_terminal() && set("CI").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

impl Progress {
    fn is_new(&self) -> bool {
        self.shown.is_empty()
    }

    fn show(&mut self, rows: &[Row]) -> Result<()> {
        if output::is_silent() {
            return Ok(());
        }
        if is_live() { self.draw(rows) } else { self.print(rows) }
    }

    /// Draws the table where it stands. What is written over is not wiped before: that would flicker.
    fn draw(&mut self, rows: &[Row]) -> Result<()> {
        self.shown.extend(rows.iter().map(|row| (row.service.id.clone(), row.line())));
        let (height, width) =
            terminal::size().map_or((24, 80), |(height, width)| (usize::from(height), usize::from(width)));
        let mut table = table(rows, width);
        // What has left the screen cannot be drawn anew.
        table.truncate(height.saturating_sub(1).max(2));
        if table == self.table {
            return Ok(());
        }
        output::bytes(redrawn(self.table.len(), &table).as_bytes())?;
        self.table = table;
        Ok(())
    }

    /// Prints a line for each change.
    fn print(&mut self, rows: &[Row]) -> Result<()> {
        for row in rows {
            let line = row.line();
            if self.shown.get(&row.service.id) != Some(&line) {
                self.say(&line)?;
                self.shown.insert(row.service.id.clone(), line);
            }
            self.tell(row)?;
        }
        if self.said.is_some_and(|said| said.elapsed() >= SILENCE) {
            for row in rows.iter().filter(|row| !row.is_done()).take(ROWS_MAX) {
                self.say(&still(row))?;
            }
            self.said = Some(Instant::now());
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.said = Some(Instant::now());
        output::line(line)
    }

    /// Writes the pulls and causes of a service that are new. How far a pull is, and how many tasks have a cause and where,
    /// is told once: it changes all the time.
    fn tell(&mut self, row: &Row) -> Result<()> {
        let pulls = row.pulls.iter().map(|pull| (format!("{} {}", pull.image, pull.node), pull.line()));
        let causes = row.causes.iter().map(|cause| {
            let text = cause.rsplit_once(" (").map_or(cause.as_str(), |(text, _)| text);
            (text.to_owned(), cause.clone())
        });
        for (what, line) in pulls.chain(causes) {
            if self.told.len() < TOLD_MAX && self.told.insert((row.service.id.clone(), what)) {
                self.say(&format!("{}: {line}", row.service.spec.name))?;
            }
        }
        Ok(())
    }
}

/// Returns what of a service is said after a long silence.
fn still(row: &Row) -> String {
    let states = [row.states()].into_iter().chain(row.pulls.iter().take(PULLS_MAX).map(Pull::line));
    let states: Vec<String> = states.filter(|state| !state.is_empty()).collect();
    let states = if states.is_empty() { "waits".to_owned() } else { states.join(", ") };
    format!("{}, {states}", row.line())
}

/// Returns what draws a table over one of `before` lines, above the cursor: line by line, then away with what is left of it.
fn redrawn(before: usize, table: &[String]) -> String {
    let back = if before == 0 { String::new() } else { format!("\x1b[{before}A") };
    let lines = table.iter().map(|line| format!("{}\x1b[K\n", output::visible(line)));
    let rest = if before > table.len() { "\x1b[J" } else { "" };
    back + &lines.collect::<String>() + rest
}

/// Returns the lines of the table, none wider than the terminal.
fn table(rows: &[Row], width: usize) -> Vec<String> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| (row.is_done(), row.service.spec.name.clone()));
    let shown = rows.iter().take(ROWS_MAX);
    let longest = shown.map(|row| row.service.spec.name.chars().count()).max().unwrap_or(0);
    let room = longest.min(width.saturating_sub(STATE_ROOM)).max("SERVICE".len());
    let mut lines = vec![format!("{:room$}  {:>9}  STATE", "SERVICE", "RUNNING")];
    for row in rows.iter().take(ROWS_MAX) {
        let state = if row.is_done() { "done".to_owned() } else { row.states() };
        let count = format!("{}/{}", row.there, row.wanted);
        lines.push(format!("{:room$}  {count:>9}  {state}", cut(&row.service.spec.name, room)));
        let pulls = row.pulls.iter().take(PULLS_MAX).map(Pull::line);
        let more = row.pulls.len().saturating_sub(PULLS_MAX);
        let more = (more > 0).then(|| format!("and {more} more pulls"));
        let causes = row.causes.iter().map(|cause| format!("! {cause}"));
        lines.extend(causes.chain(pulls).chain(more).flat_map(|line| wrapped(&line, width)));
    }
    if rows.len() > ROWS_MAX {
        let done = rows.iter().skip(ROWS_MAX).filter(|row| row.is_done()).count();
        lines.push(format!("and {} more, of which {done} are done", rows.len() - ROWS_MAX));
    }
    lines.into_iter().map(|line| line.chars().take(width.max(20)).collect()).collect()
}

/// Returns a name that fits: its end tells services of one stack apart.
fn cut(name: &str, room: usize) -> String {
    let count = name.chars().count();
    if count <= room {
        return name.to_owned();
    }
    let end: String = name.chars().skip(count + 1 - room).collect();
    format!("…{end}")
}

/// Returns a cause in lines that fit, below its service: what does not fit is what one wants to read.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let room = width.max(20).saturating_sub(INDENT.len());
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut word: String = word.into();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(&word);
                continue;
            }
            _ => {}
        }
        while word.chars().count() > room {
            lines.push(word.chars().take(room).collect());
            word = word.chars().skip(room).collect();
        }
        lines.push(word);
    }
    lines.into_iter().map(|line| format!("{INDENT}{line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, wanted: u64) -> types::Service {
        let mut service = types::Service { id: name.into(), ..types::Service::default() };
        service.spec.name = name.into();
        service.service_status = Some(types::ServiceStatus { desired_tasks: wanted, ..Default::default() });
        service
    }

    fn task(state: &str) -> types::Task {
        let mut task = types::Task::default();
        task.status.state = state.into();
        task
    }

    #[test]
    fn a_global_service_is_not_done_before_the_manager_has_looked() {
        let mut new = service("agent", 0);
        new.spec.mode.global = Some(types::Empty::default());
        assert!(!row(Vec::new(), new.clone(), true).is_done());
        assert!(row(Vec::new(), new, false).is_done(), "no node fits");
    }

    #[test]
    fn a_pull_says_how_far_it_is() {
        let mut pulling = task("preparing");
        pulling.status.message = "pulling 1.5 MB of 20.0 MB".into();
        let row = row(vec![pulling, task("running")], service("web", 2), false);
        assert_eq!(row.states(), "1 pulling");
        assert_eq!(row.pulls[0].progress, "1.5 MB of 20.0 MB");
    }

    #[test]
    fn each_image_on_its_way_to_a_node_has_a_line() {
        let pulling = |node: &str, message: &str| {
            let mut task = task("preparing");
            task.node_id = node.into();
            task.status.message = message.into();
            let image = "shop/web:2@sha256:12".to_owned();
            task.spec.container_spec = Some(types::ContainerSpec { image, ..Default::default() });
            task
        };
        let tasks = ["n1", "n2", "n2", "n3"].map(|node| pulling(node, "pulling 1.5 MB of 20.0 MB"));
        let row = row(tasks.into(), service("web", 4), false);
        assert_eq!(row.states(), "4 pulling");
        let lines = table(&[row], 80);
        let pull = |node: &str| format!("  pulling shop/web:2 on {node}: 1.5 MB of 20.0 MB");
        assert_eq!(lines[2..], [pull("n1"), pull("n2"), pull("n3")]);
    }

    #[test]
    fn a_job_is_done_when_all_of_it_is() {
        let job = |completed| {
            let mut service = service("job", 0);
            // As many as run at once.
            let (desired_tasks, completed_tasks) = (2, completed);
            service.service_status =
                Some(types::ServiceStatus { desired_tasks, completed_tasks, ..Default::default() });
            let (max_concurrent, total_completions) = (Some(2), Some(5));
            service.spec.mode.replicated_job =
                Some(types::ReplicatedJob { max_concurrent, total_completions });
            let ended = (0..completed).map(|_| task("complete"));
            let runs = (0..u64::min(2, 5 - completed)).map(|_| task("running"));
            row(ended.chain(runs).collect(), service, false)
        };
        assert_eq!((job(2).line(), job(2).states()), ("job: 2/5".to_owned(), "2 running".to_owned()));
        assert_eq!(
            [1, 2, 3, 4, 5].map(|completed| job(completed).is_done()),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn a_global_job_is_done_when_it_is_on_every_node() {
        let job = |desired_tasks, completed_tasks, young| {
            let mut service = service("job", 0);
            service.service_status =
                Some(types::ServiceStatus { desired_tasks, completed_tasks, ..Default::default() });
            service.spec.mode.global_job = Some(types::Empty::default());
            let row = row(Vec::new(), service, young);
            (row.line(), row.is_done())
        };
        assert_eq!(job(0, 0, true), ("job: 0/1".into(), false), "nobody has looked at the nodes yet");
        assert_eq!(job(2, 1, false), ("job: 1/3".into(), false));
        assert_eq!(job(0, 3, false), ("job: 3/3".into(), true));
    }

    #[test]
    fn a_table_is_drawn_over_line_by_line_and_fits_a_narrow_terminal() {
        let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(redrawn(0, &lines(&["a", "b"])), "a\x1b[K\nb\x1b[K\n");
        assert_eq!(redrawn(2, &lines(&["a", "c"])), "\x1b[2Aa\x1b[K\nc\x1b[K\n");
        assert_eq!(redrawn(2, &lines(&["a"])), "\x1b[2Aa\x1b[K\n\x1b[J");
        assert_eq!(redrawn(0, &lines(&["\x1b[2J"])), "\\u{1b}[2J\x1b[K\n", "names do not steer");
        let long = format!("{}web", "a-very-long-name-of-a-stack_".repeat(4));
        let lines = table(&[row(vec![task("preparing")], service(&long, 1), false)], 80);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
        assert!(lines[1].contains("stack_web        0/1  1 preparing"), "{lines:?}");
    }

    #[test]
    fn who_reads_lines_is_told_that_it_goes_on() {
        let mut progress = Progress::default();
        let rows = [row(vec![task("preparing")], service("web", 2), false)];
        progress.print(&rows).expect("standard output");
        let first = progress.said.expect("a line");
        progress.print(&rows).expect("standard output");
        assert_eq!(progress.said, Some(first), "nothing new");
        progress.said = Some(Instant::now() - SILENCE);
        progress.print(&rows).expect("standard output");
        assert!(progress.said > Some(first));
        assert_eq!(still(&rows[0]), "web: 0/2, 1 preparing");
    }

    #[test]
    fn what_waits_stands_above_what_is_done() {
        let rows = [
            row(vec![task("running")], service("a", 1), false),
            row(vec![task("running"), task("preparing"), task("preparing")], service("web", 3), false),
        ];
        let lines = table(&rows, 80);
        let words: Vec<Vec<&str>> = lines.iter().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["web", "1/3", "2", "preparing"]);
        assert_eq!(words[2], ["a", "1/1", "done"]);
        assert!(table(&rows, 20).iter().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn what_has_just_come_up_is_not_trusted_at_once() {
        let running = |ids: &[&str], wanted| {
            let tasks = ids.iter().map(|id| types::Task { id: (*id).into(), ..task("running") });
            [row(tasks.collect(), service("web", wanted), false)]
        };
        let waits = [row(vec![task("starting")], service("web", 1), false)];
        assert!(Steady::default().look(&running(&["old"], 1), false), "it was there before");
        let mut steady = Steady::default();
        assert!(!steady.look(&waits, false));
        assert!(!steady.look(&running(&["a"], 1), false), "it may fail in a moment");
        let first = steady.since["a"];
        assert!(!steady.look(&running(&["a", "b"], 3), false));
        assert_eq!(steady.since["a"], first, "it stands while others come");
        assert!(!steady.look(&running(&["b", "c"], 2), false));
        assert!(!steady.since.contains_key("a"), "another one begins anew");
        let age = |steady: &mut Steady, id: &str| {
            steady.since.insert(id.to_owned(), Instant::now() - STEADY);
        };
        age(&mut steady, "b");
        assert!(!steady.look(&running(&["b", "c"], 2), false), "the last one has not stood for long");
        age(&mut steady, "c");
        assert!(!steady.look(&running(&["b", "c"], 2), true), "after a failure it takes longer");
        assert!(steady.look(&running(&["b", "c"], 2), false));
    }

    #[test]
    fn what_its_health_check_found_well_is_trusted_at_once() {
        let checked = |test: &[&str]| {
            let mut task = types::Task { id: "a".into(), ..task("running") };
            let test = test.iter().map(|word| (*word).to_owned()).collect();
            let healthcheck = Some(types::Health { test, ..Default::default() });
            let mut service = service("web", 1);
            let container = types::ContainerSpec { healthcheck, ..Default::default() };
            task.spec.container_spec = Some(container.clone());
            service.spec.task_template.container_spec = Some(container);
            [row(vec![task], service, false)]
        };
        let waits = [row(vec![task("starting")], service("web", 1), false)];
        let trusted = |rows: &[Row], after_failure| {
            let mut steady = Steady::default();
            steady.look(&waits, false);
            steady.look(rows, after_failure)
        };
        assert!(trusted(&checked(&["CMD", "/hello", "check"]), false));
        assert!(!trusted(&checked(&["CMD", "/hello", "check"]), true));
        assert!(!trusted(&checked(&["NONE"]), false));
        assert!(!trusted(&checked(&[]), false));
    }

    #[test]
    fn a_cause_stands_below_its_service_and_is_not_cut() {
        let mut waits = row(vec![task("pending")], service("web", 1), false);
        waits.causes = vec!["insufficient resources on 3 nodes (1 task waits)".to_owned()];
        let lines = table(&[waits], 40);
        assert_eq!(lines[2..], ["  ! insufficient resources on 3 nodes (1", "  task waits)"]);
        let mut ended = row(Vec::new(), service("web", 1), false);
        ended.causes = vec!["No such image: a:1 (1 task rejected on host1)".to_owned()];
        assert_eq!(ended.states(), "between two attempts");
        let word = "x".repeat(100);
        assert!(wrapped(&word, 40).iter().all(|line| line.chars().count() <= 40));
        assert_eq!(wrapped(&word, 40).join("").matches('x').count(), 100);
    }
}
