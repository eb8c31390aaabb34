//! Waiting until services run what they should, and showing the way there: on a terminal a table that is drawn anew,
//! elsewhere a line for each change.

use crate::{output, terminal};
use anyhow::{Result, bail};
use docker_api::{client::Client, types};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(100);
/// A global service that wants no task yet may just have been made: the manager has this long to look at the nodes.
const GLOBAL_GRACE: Duration = Duration::from_secs(2);
/// Looks that may fail one after the other: a leader may be changing; what was asked for is in the log already.
const MISSES_MAX: u32 = 30;
/// Up to this many services are asked for by name, more in one go with all others.
const NAMED_MAX: usize = 50;
/// Rows of the table; what still waits comes first.
const ROWS_MAX: usize = 20;

/// A service on its way.
struct Row {
    service: types::Service,
    /// Tasks that run as it is written now; of a job those that are done.
    there: u64,
    wanted: u64,
    /// Its other tasks, by state; a pull says how far it is.
    others: BTreeMap<String, u64>,
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
            (_, states) => states,
        }
    }
}

/// Waits until every named service runs what it should.
///
/// # Errors
/// When an update pauses or rolls back, or `limit` has passed; with the newest task error of each service that
/// is not there yet.
pub(crate) async fn converge(client: &Client, names: &BTreeSet<String>, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let mut progress = Progress::default();
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
            Ok(rows) => {
                misses = 0;
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
            judge(client, row, !progress.is_new()).await?;
        }
        progress.show(&rows)?;
        let waiting: Vec<&Row> = rows.iter().filter(|row| !row.is_done()).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if start.elapsed() > limit {
            let mut text = format!("not converged within {limit:?}:");
            for row in waiting {
                text +=
                    &format!("\n  {}{}", row.service.spec.name, newest_error(client, &row.service.id).await);
            }
            text += "\nhint: `rswarm service ps NAME --no-trunc` shows every task";
            bail!(text);
        }
        // Thousands of services take their time to be listed: managers are to do more than answer this.
        tokio::time::sleep(PERIOD.max(asked.elapsed() * 4)).await;
    }
}

async fn look(client: &Client, names: &BTreeSet<String>, young: bool) -> Result<Vec<Row>> {
    let mut filters = serde_json::json!({"desired-state": {"running": true}});
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

/// Tasks of the spec before this one run too; they do not count. Where a task may run is no reason to replace it, so
/// placement is left out of the comparison.
fn row(tasks: Vec<types::Task>, service: types::Service, young: bool) -> Row {
    let status = service.service_status.clone().unwrap_or_default();
    let job = service.spec.mode.replicated_job.is_some() || service.spec.mode.global_job.is_some();
    let wanted = types::TaskSpec { placement: None, ..service.spec.task_template.clone() };
    let (mut there, mut others) = (0, BTreeMap::new());
    for task in tasks {
        let pulling = task.status.state == "preparing" && task.status.message.starts_with("pulling ");
        let state = if pulling { task.status.message } else { task.status.state };
        if state == "running" && !job && (types::TaskSpec { placement: None, ..task.spec }) == wanted {
            there += 1;
        } else {
            *others.entry(state).or_default() += 1;
        }
    }
    if job {
        there = status.completed_tasks;
    }
    let global = service.spec.mode.global.is_some() || service.spec.mode.global_job.is_some();
    let wanted = if global && young { status.desired_tasks.max(1) } else { status.desired_tasks };
    Row { service, there, wanted, others }
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

async fn newest_error(client: &Client, service: &str) -> String {
    let filters = serde_json::json!({"service": {service: true}}).to_string();
    let Ok(mut tasks) = client.tasks(&[("filters", &filters)]).await else { return String::new() };
    tasks.sort_by_key(|t| t.status.timestamp.timestamp());
    let found = tasks.iter().rev().find(|t| !t.status.err.is_empty());
    if let Some(task) = found {
        return format!(": {}", task.status.err);
    }
    let pending = tasks.iter().rev().find(|t| t.status.state == "pending" && !t.status.message.is_empty());
    pending.map(|t| format!(": {}", t.status.message)).unwrap_or_default()
}

/// What stands on the screen.
#[derive(Default)]
struct Progress {
    /// By service.
    shown: BTreeMap<String, String>,
    table: Vec<String>,
}

impl Progress {
    fn is_new(&self) -> bool {
        self.shown.is_empty()
    }

    fn show(&mut self, rows: &[Row]) -> Result<()> {
        let live = std::io::stdout().is_terminal();
        for row in rows {
            let line = row.line();
            if self.shown.get(&row.service.id) != Some(&line) {
                if !live {
                    output::line(&line)?;
                }
                self.shown.insert(row.service.id.clone(), line);
            }
        }
        if !live {
            return Ok(());
        }
        let width = terminal::size().map_or(80, |(_, columns)| usize::from(columns));
        let table = table(rows, width);
        if table == self.table {
            return Ok(());
        }
        // Back to where the table begins, and away with it.
        let back =
            if self.table.is_empty() { String::new() } else { format!("\x1b[{}A\x1b[J", self.table.len()) };
        output::styled(&format!("{back}{}", output::visible(&table.join("\n"))))?;
        self.table = table;
        Ok(())
    }
}

/// Returns the lines of the table, none wider than the terminal.
fn table(rows: &[Row], width: usize) -> Vec<String> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| (row.is_done(), row.service.spec.name.clone()));
    let name = rows.iter().map(|row| row.service.spec.name.len()).max().unwrap_or(0).max("SERVICE".len());
    let mut lines = vec![format!("{:name$}  {:>9}  STATE", "SERVICE", "RUNNING")];
    for row in rows.iter().take(ROWS_MAX) {
        let state = if row.is_done() { "done".to_owned() } else { row.states() };
        let count = format!("{}/{}", row.there, row.wanted);
        lines.push(format!("{:name$}  {count:>9}  {state}", row.service.spec.name));
    }
    if rows.len() > ROWS_MAX {
        let done = rows.iter().skip(ROWS_MAX).filter(|row| row.is_done()).count();
        lines.push(format!("and {} more, of which {done} are done", rows.len() - ROWS_MAX));
    }
    lines.into_iter().map(|line| line.chars().take(width.max(20)).collect()).collect()
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
        assert_eq!(row.states(), "1 pulling 1.5 MB of 20.0 MB");
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
}
