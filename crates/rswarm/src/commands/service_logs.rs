//! `rswarm service logs`: what the tasks of a service print, each line with its task and node before it.
//!
//! Source: docker/cli `cli/command/service/logs.go`.

use super::{
    logs, shown,
    target::{self, Named, Part},
};
use crate::{
    cli::{LogsArgs, ServiceLogs},
    output,
};
use anyhow::{Context, Result, bail};
use docker_api::client::{Client, Demux, Frame};
use std::collections::BTreeMap;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::StreamReader;

/// Shows the log of a service, of a slot's newest task, or of a task.
///
/// # Errors
/// There is none of that name; the log breaks off.
pub(crate) async fn run(client: &Client, args: &ServiceLogs) -> Result<()> {
    let named = target::find(client, &args.logs.name).await?;
    let named = named.with_context(|| {
        format!("no such task or service: {}; hint: `rswarm service ls` lists services", args.logs.name)
    })?;
    let log = Log::of(client, &named).await?;
    if args.raw {
        return log.copy(client, &args.logs).await;
    }
    if log.tty {
        bail!("tty service logs only supported with --raw");
    }
    log.headed(client, args).await
}

/// Shows what `rswarm logs` shows of something that is no container here: of one task what it printed, as of a container;
/// of a service its lines with their tasks.
///
/// # Errors
/// As [`run`].
pub(crate) async fn plain(client: &Client, named: &Named, args: &LogsArgs) -> Result<()> {
    let log = Log::of(client, named).await?;
    if log.tty || log.base == "tasks" {
        return log.copy(client, args).await;
    }
    let args = ServiceLogs {
        logs: args.clone(),
        no_resolve: false,
        no_task_ids: false,
        no_trunc: false,
        raw: false,
    };
    log.headed(client, &args).await
}

/// A log of the swarm.
struct Log {
    /// `services` or `tasks`, and the id there.
    base: &'static str,
    id: String,
    tty: bool,
    /// How wide the number of a replica is. *Unit:* characters.
    padding: usize,
}

impl Log {
    async fn of(client: &Client, named: &Named) -> Result<Self> {
        let service = &named.service;
        match &named.part {
            Part::All => {
                let replicas =
                    service.spec.mode.replicated.as_ref().and_then(|mode| mode.replicas).unwrap_or(1);
                let container = service.spec.task_template.container_spec.as_ref();
                let (tty, padding) = (container.is_some_and(|c| c.tty), replicas.to_string().len());
                Ok(Self { base: "services", id: service.id.clone(), tty, padding })
            }
            Part::Slot(..) | Part::Task(_) => {
                let task = named.newest(client).await?;
                let tty = task.spec.container_spec.is_some_and(|c| c.tty);
                Ok(Self { base: "tasks", id: task.id, tty, padding: 1 })
            }
        }
    }

    /// Prints it as it is.
    async fn copy(&self, client: &Client, args: &LogsArgs) -> Result<()> {
        logs::copy_logs(client, self.base, &self.id, args, args.details, self.tty).await
    }

    /// Prints it with what task each line is of.
    async fn headed(&self, client: &Client, args: &ServiceLogs) -> Result<()> {
        let body = logs::open_logs(client, self.base, &self.id, &args.logs, true).await?;
        let mut frames = Demux::new(StreamReader::new(body));
        let (tasks, nodes) = (BTreeMap::new(), BTreeMap::new());
        let mut names = Names { client, args, padding: self.padding, tasks, nodes };
        let (mut out, mut err) = (output::stream(), tokio::io::stderr());
        while let Some(frame) = frames.next().await? {
            match frame {
                Frame::Stdout(line) => {
                    out.write_all(&names.line(&line).await?).await?;
                    out.flush().await?;
                }
                Frame::Stderr(line) => {
                    err.write_all(&names.line(&line).await?).await?;
                    err.flush().await?;
                }
                Frame::SystemError(line) => bail!("{}", String::from_utf8_lossy(&line)),
            }
        }
        Ok(())
    }
}

/// What lines are headed with; names are asked for once.
struct Names<'a> {
    client: &'a Client,
    args: &'a ServiceLogs,
    /// How wide the number of a replica is. *Unit:* characters.
    padding: usize,
    /// By id: name, and what fills it up.
    tasks: BTreeMap<String, (String, String)>,
    /// By id.
    nodes: BTreeMap<String, String>,
}

/// A line of the API: `[TIME ]DETAILS MESSAGE`.
struct Line<'a> {
    time: Option<&'a str>,
    details: BTreeMap<&'a str, &'a str>,
    message: &'a [u8],
}

/// Takes a line apart; nothing if it is none with details, as a warning of the daemon's.
fn parse(line: &[u8], timestamps: bool) -> Option<Line<'_>> {
    let mut rest = line;
    let mut word = || {
        let at = rest.iter().position(|b| *b == b' ')?;
        let word = std::str::from_utf8(&rest[..at]).ok()?;
        rest = &rest[at + 1..];
        Some(word)
    };
    let time = if timestamps { Some(word()?) } else { None };
    let details: BTreeMap<&str, &str> = word()?.split(',').filter_map(|pair| pair.split_once('=')).collect();
    details.contains_key(TASK).then_some(Line { time, details, message: rest })
}

const TASK: &str = "com.docker.swarm.task.id";
const NODE: &str = "com.docker.swarm.node.id";
const SERVICE: &str = "com.docker.swarm.service.id";

impl Names<'_> {
    /// Returns a line as it is shown.
    async fn line(&mut self, line: &[u8]) -> Result<Vec<u8>> {
        let Some(parsed) = parse(line, self.args.logs.timestamps) else { return Ok(line.to_vec()) };
        let (task, node) = (parsed.details[TASK], parsed.details.get(NODE).copied().unwrap_or_default());
        let head = self.head(task, node).await?;
        let time = parsed.time.map(|time| format!("{time} ")).unwrap_or_default();
        let own = |key: &&str| [TASK, NODE, SERVICE].contains(key);
        let details = parsed.details.iter().filter(|(key, _)| self.args.logs.details && !own(key));
        let mut details = details.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        if !details.is_empty() {
            details.push(' ');
        }
        Ok([format!("{time}{head}    | {details}").as_bytes(), parsed.message].concat())
    }

    /// Returns `web.1.abc@host`, filled up to be as wide as the widest number of a replica.
    async fn head(&mut self, task: &str, node: &str) -> Result<String> {
        if !self.tasks.contains_key(task) {
            let named = self.task_name(task).await?;
            self.tasks.insert(task.to_owned(), named);
        }
        if !self.nodes.contains_key(node) && !self.args.no_resolve {
            self.nodes = shown::node_names(self.client).await?;
        }
        let (name, fill) = self.tasks.get(task).context("the task was named")?;
        Ok(format!("{name}@{}{fill}", self.nodes.get(node).map_or(node, String::as_str)))
    }

    async fn task_name(&self, id: &str) -> Result<(String, String)> {
        let short = |id: &str| if self.args.no_trunc { id.to_owned() } else { id.chars().take(12).collect() };
        // One that is gone since is named by its id.
        let Ok(task) = self.client.task(id).await else { return Ok((short(id), String::new())) };
        let service = if self.args.no_resolve {
            task.service_id.clone()
        } else {
            let found = self.client.service(&task.service_id).await;
            found.map_or_else(|_| task.service_id.clone(), |service| service.spec.name)
        };
        let slot = if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() };
        let fill = " ".repeat(self.padding.saturating_sub(task.slot.to_string().len()));
        let id = if self.args.no_task_ids { String::new() } else { format!(".{}", short(id)) };
        Ok((format!("{service}.{slot}{id}"), fill))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_as_the_daemon_puts_them_together() {
        let details = format!("a=b,{NODE}=n1,{SERVICE}=s1,{TASK}=t1");
        let line = format!("{details} hello you\n");
        let parsed = parse(line.as_bytes(), false).expect("a line");
        assert_eq!((parsed.time, parsed.message), (None, &b"hello you\n"[..]));
        assert_eq!((parsed.details["a"], parsed.details[TASK]), ("b", "t1"));
        let line = format!("2026-01-01T00:00:00Z {details} \n");
        let parsed = parse(line.as_bytes(), true).expect("a line");
        assert_eq!((parsed.time, parsed.message), (Some("2026-01-01T00:00:00Z"), &b"\n"[..]));
        assert!(parse(b"warning: incomplete log stream: web.1 on node n1: gone\n", false).is_none());
    }
}
