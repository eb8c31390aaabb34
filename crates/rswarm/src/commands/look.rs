//! Looking at containers and at what happens: `top port diff stats events`.

use super::target;
use crate::{
    cli::{EventsArgs, ListArgs, PortArgs, StatsArgs, TopArgs},
    list::{self, List},
    output,
};
use anyhow::{Context, Result};
use docker_api::{client::Client, types};
use futures::StreamExt as _;
use serde_json::Value;
use std::time::Duration;

/// Containers that `stats` looks at at once.
const SAMPLES_AT_ONCE: usize = 32;

pub(crate) async fn top(client: &Client, args: &TopArgs) -> Result<()> {
    let containers = target::all(client, &args.container).await?;
    for (number, container) in containers.iter().enumerate() {
        if containers.len() > 1 {
            output::line(&format!("{}{}:", if number > 0 { "\n" } else { "" }, container.title()))?;
        }
        top_of(client, &container.id, &args.ps.join(" ")).await?;
    }
    Ok(())
}

async fn top_of(client: &Client, container: &str, ps: &str) -> Result<()> {
    let query: &[(&str, &str)] = if ps.is_empty() { &[] } else { &[("ps_args", ps)] };
    let top: types::ContainerTop = client.get(&path(container, "top"), query).await?;
    let rows: Vec<&Vec<String>> = std::iter::once(&top.titles).chain(&top.processes).collect();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    for row in &rows {
        let cells = row.iter().enumerate().map(|(n, cell)| format!("{cell:<0$}", width(n)));
        output::line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn path(container: &str, what: &str) -> String {
    format!("/containers/{}/{what}", super::escape(container))
}

/// Shows where the ports of a container are published, or one of them. *Source:* docker/cli `port.go`.
pub(crate) async fn port(client: &Client, args: &PortArgs) -> Result<()> {
    let container = target::one(client, &args.container).await?;
    let container: Value = client.get(&path(&container, "json"), &[]).await?;
    let ports = container.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
    if let Some(port) = &args.port {
        let whole = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        let bindings = ports.and_then(|ports| ports.get(&whole)).and_then(Value::as_array);
        let bindings = bindings.filter(|bindings| !bindings.is_empty());
        let bindings =
            bindings.with_context(|| format!("no public port {whole:?} published for {}", args.container))?;
        return bindings.iter().try_for_each(|binding| {
            let text = |name: &str| binding[name].as_str().unwrap_or_default();
            output::line(&format!("{}:{}", text("HostIp"), text("HostPort")))
        });
    }
    for (port, bindings) in ports.into_iter().flatten() {
        for binding in bindings.as_array().into_iter().flatten() {
            let text = |name: &str| binding[name].as_str().unwrap_or_default();
            output::line(&format!("{port} -> {}:{}", text("HostIp"), text("HostPort")))?;
        }
    }
    Ok(())
}

pub(crate) async fn diff(client: &Client, container: &str) -> Result<()> {
    let container = target::one(client, container).await?;
    let changes: Vec<types::ContainerChange> = client.get(&path(&container, "changes"), &[]).await?;
    for change in changes {
        let kind = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        output::line(&format!("{kind} {}", change.path))?;
    }
    Ok(())
}

pub(crate) async fn stats(client: &Client, args: &StatsArgs) -> Result<()> {
    loop {
        let ids = sampled(client, &args.containers, args.all).await?;
        let mut table = List::new(&[
            ("CONTAINER ID", "ID"),
            ("NAME", "Name"),
            ("CPU %", "CPUPerc"),
            ("MEM USAGE / LIMIT", "MemUsage"),
            ("MEM %", "MemPerc"),
            ("NET I/O", "NetIO"),
            ("PIDS", "PIDs"),
        ]);
        // Two samples of the daemon, a second apart: a share of the processor is of a time.
        let samples = ids.iter().map(|id| {
            let path = path(id, "stats");
            async move { client.get::<Value>(&path, &[("stream", "0")]).await }
        });
        let mut samples = futures::stream::iter(samples).buffered(SAMPLES_AT_ONCE);
        while let Some(sample) = samples.next().await {
            match sample {
                Ok(sample) => table.row(sample_row(&sample, args.no_trunc)),
                // It has ended since it was found: of a service there are others.
                Err(error) if error.is_not_found() && !args.no_stream => {}
                Err(error) => return Err(error.into()),
            }
        }
        table.print(&ListArgs { quiet: false, format: args.format.clone(), filter: Vec::new() })?;
        if args.no_stream {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Returns the containers to look at; all running ones of this host where none is named.
async fn sampled(client: &Client, names: &[String], all: bool) -> Result<Vec<String>> {
    if names.is_empty() {
        let all = if all { "1" } else { "0" };
        return Ok(client
            .containers(&[("all", all)])
            .await?
            .into_iter()
            .map(|container| container.id.into_owned())
            .collect());
    }
    let mut ids = Vec::new();
    for name in names {
        ids.extend(target::all(client, name).await?.into_iter().map(|container| container.id));
    }
    Ok(ids)
}

/// Source: docker CLI `cli/command/container/stats_helpers.go`.
fn sample_row(sample: &Value, whole: bool) -> Vec<String> {
    let number = |path: &str| sample.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    let cpu = number("/cpu_stats/cpu_usage/total_usage") - number("/precpu_stats/cpu_usage/total_usage");
    let system = number("/cpu_stats/system_cpu_usage") - number("/precpu_stats/system_cpu_usage");
    let share = if system > 0.0 { cpu / system * number("/cpu_stats/online_cpus") * 100.0 } else { 0.0 };
    let (used, limit) = (number("/memory_stats/usage"), number("/memory_stats/limit"));
    let networks = sample["networks"].as_object();
    let total =
        |name: &str| -> u64 { networks.into_iter().flatten().filter_map(|(_, of)| of[name].as_u64()).sum() };
    let text = |path: &str| sample.pointer(path).and_then(Value::as_str).unwrap_or_default();
    vec![
        text("/id").chars().take(if whole { usize::MAX } else { 12 }).collect(),
        text("/name").trim_start_matches('/').to_owned(),
        format!("{share:.2}%"),
        format!("{} / {}", list::size(used as u64), list::size(limit as u64)),
        format!("{:.2}%", if limit > 0.0 { used / limit * 100.0 } else { 0.0 }),
        format!("{} / {}", list::size(total("rx_bytes")), list::size(total("tx_bytes"))),
        format!("{}", number("/pids_stats/current")),
    ]
}

pub(crate) async fn events(client: &Client, args: &EventsArgs) -> Result<()> {
    let filters = list::filters(&args.filter)?;
    let moment = |text: &Option<String>| text.as_deref().map(moment).transpose();
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    let mut query = vec![("filters", filters.as_str())];
    query.extend(since.as_deref().map(|since| ("since", since)));
    query.extend(until.as_deref().map(|until| ("until", until)));
    let mut events = client.events(&query).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        if let Some(format) = &args.format {
            output::line(&list::render(format, &serde_json::to_value(&event)?)?)?;
            continue;
        }
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(event.time_nano.into())?;
        let at = at.format(&time::format_description::well_known::Rfc3339)?;
        let attributes = event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}"));
        let attributes = attributes.collect::<Vec<_>>().join(", ");
        output::line(&format!("{at} {} {} {} ({attributes})", event.kind, event.action, event.actor.id))?;
    }
    Ok(())
}

/// Reads `10m` (ago), or passes on what the daemon reads.
fn moment(text: &str) -> Result<String> {
    let Ok(ago) = crate::cli::parse_duration(text) else { return Ok(text.to_owned()) };
    let nanos = i64::try_from(ago.as_nanos()).context("too long ago")?;
    let at = list::now().0 - nanos;
    Ok(format!("{}.{:09}", at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000)))
}
