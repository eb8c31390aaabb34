//! What shows a project and changes nothing.

use super::{
    follow,
    project::{Member, Project, label},
};
use crate::{
    cli::{ComposeImages, ComposeLogs, ComposeLs, ComposePort, ComposePs, ListArgs, Services, TopArgs},
    commands::{container, logs, look},
    list::{self, List},
    output,
};
use anyhow::{Context, Result, bail};
use docker_api::client::Client;
use regex_lite::Regex;
use std::collections::{BTreeMap, BTreeSet};

pub(super) async fn ps(client: &Client, project: &Project, args: &ComposePs) -> Result<()> {
    let mut members = project.members(client).await?;
    project.check_names(&members, &args.names)?;
    members.retain(|m| args.names.is_empty() || args.names.contains(&m.service));
    if !args.all {
        members.retain(|m| !m.one_off);
    }
    if args.orphans == Some(false) {
        members.retain(|m| !project.is_stranger(m));
    }
    let mut states = args.status.clone();
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("status", state)) => states.push(state.to_owned()),
            _ => bail!("unknown filter {filter:?}: there is status=STATE"),
        }
    }
    if states.is_empty() {
        members.retain(|m| args.all || m.is_running());
    } else {
        members.retain(|m| states.contains(&m.state));
    }
    if args.services {
        let names: BTreeSet<&str> = members.iter().map(|m| m.service.as_str()).collect();
        return names.into_iter().try_for_each(output::line);
    }
    if args.quiet {
        return members.iter().try_for_each(|m| output::line(&m.id));
    }
    let mut table = List::new(&[
        ("NAME", "Name"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("SERVICE", "Service"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("PORTS", "Ports"),
    ]);
    let now = list::now().0 / 1_000_000_000;
    for member in &members {
        let summary = &member.summary;
        let age = std::time::Duration::from_secs(u64::try_from(now - summary.created).unwrap_or(0));
        let command = match args.no_trunc {
            true => summary.command.clone(),
            false => shortened(&summary.command, 20),
        };
        let image = summary.image.split('@').next().unwrap_or_default().to_owned();
        let ports = container::ports(summary);
        let value = serde_json::json!({
            "ID": member.id, "Name": member.name, "Image": image, "Command": summary.command,
            "Project": project.name, "Service": member.service, "State": member.state,
            "Status": summary.status, "Health": health(&summary.status), "ExitCode": exit_code(&summary.status),
            "Ports": ports, "Labels": summary.labels,
            "Publishers": summary.ports.iter().map(|p| serde_json::json!({
                "URL": p.ip, "TargetPort": p.private_port, "PublishedPort": p.public_port, "Protocol": p.kind,
            })).collect::<Vec<_>>(),
        });
        let values = vec![
            member.name.clone(),
            image,
            format!("{command:?}"),
            member.service.clone(),
            format!("{} ago", list::human(age)),
            summary.status.clone(),
            ports,
        ];
        table.row_as(values, value);
    }
    table.print(&ListArgs { format: args.format.clone(), ..ListArgs::default() })
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Reads `healthy` of `Up 2 minutes (healthy)`.
fn health(status: &str) -> &str {
    let inside = status.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or_default();
    match inside.trim_start_matches("health: ") {
        word @ ("healthy" | "unhealthy" | "starting") => word,
        _ => "",
    }
}

/// Reads 3 of `Exited (3) 2 minutes ago`.
fn exit_code(status: &str) -> i64 {
    let inside = status.strip_prefix("Exited (").and_then(|rest| rest.split_once(')'));
    inside.and_then(|(code, _)| code.parse().ok()).unwrap_or(0)
}

pub(super) async fn logs(client: &Client, project: &Project, args: &ComposeLogs) -> Result<()> {
    let mut members = project.members(client).await?;
    project.check_names(&members, &args.services)?;
    members.retain(|m| args.services.is_empty() || args.services.contains(&m.service));
    if let Some(index) = args.index {
        members.retain(|m| m.number == index && !m.one_off);
        if members.is_empty() {
            bail!("no such container: #{index}");
        }
    }
    let which = follow::Which {
        follow: args.follow,
        tail: args.tail.clone(),
        since: logs::moment(args.since.as_deref())?,
        until: logs::moment(args.until.as_deref())?,
        timestamps: args.timestamps,
    };
    let look = project.look(&args.look);
    if args.follow && args.index.is_none() {
        let services = args.services.iter().cloned().collect();
        return tokio::select! {
            shown = follow::logs_of_all(client, project, services, &which, &look) => shown,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
    }
    let sources = members.iter().map(|m| follow::Source::container(project, m)).collect();
    tokio::select! {
        shown = follow::logs(client, sources, &which, &look) => shown,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

pub(super) async fn top(client: &Client, project: &Project, args: &Services) -> Result<()> {
    for member in project.of_services(client, &args.services).await?.iter().filter(|m| m.is_running()) {
        output::line(&member.name)?;
        look::top(client, &TopArgs { container: member.id.clone(), ps: Vec::new() }).await?;
        output::line("")?;
    }
    Ok(())
}

pub(super) async fn port(client: &Client, project: &Project, args: &ComposePort) -> Result<()> {
    let member = project.one(client, &args.service, args.index, false).await?;
    let of = |p: &&docker_api::types::SummaryPort| {
        p.private_port == args.port && p.kind == args.protocol && p.public_port != 0
    };
    let found =
        member.summary.ports.iter().find(of).with_context(|| {
            format!("no port {}/{} for container {}", args.port, args.protocol, member.name)
        })?;
    output::line(&format!("{}:{}", found.ip, found.public_port))
}

pub(super) async fn images(client: &Client, project: &Project, args: &ComposeImages) -> Result<()> {
    let members = project.of_services(client, &args.services).await?;
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    if args.quiet {
        let ids: BTreeSet<String> = members.iter().map(|m| short(&m.image_id)).collect();
        return ids.iter().try_for_each(|id| output::line(id));
    }
    let mut table = List::new(&[
        ("CONTAINER", "ContainerName"),
        ("REPOSITORY", "Repository"),
        ("TAG", "Tag"),
        ("IMAGE ID", "ID"),
        ("SIZE", "Size"),
    ]);
    for Member { name, image_id, summary, .. } in &members {
        let size = client.image(image_id).await.map(|image| image.size).unwrap_or_default();
        let (repository, tag) = match summary.image.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (&*summary.image, "latest"),
        };
        table.row(vec![
            name.clone(),
            repository.to_owned(),
            tag.to_owned(),
            short(image_id),
            list::size(u64::try_from(size).unwrap_or(0)),
        ]);
    }
    table.print(&ListArgs { format: args.format.clone(), ..ListArgs::default() })
}

pub(super) async fn ls(client: &Client, args: &ComposeLs) -> Result<()> {
    let mut names = Vec::new();
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("name", pattern)) => names.push(
                Regex::new(pattern).with_context(|| format!("--filter {filter:?}: no regular expression"))?,
            ),
            _ => bail!("unknown filter {filter:?}: there is name=PATTERN"),
        }
    }
    let filters = serde_json::json!({"label": {label::PROJECT: true}});
    // What has ended is counted where it is asked for. Source: docker/compose `pkg/compose/ls.go`.
    let all = if args.all { "1" } else { "0" };
    let found = client.containers(&[("all", all), ("filters", &filters.to_string())]).await?;
    let mut projects: BTreeMap<String, (BTreeMap<String, usize>, String)> = BTreeMap::new();
    for container in found {
        let of = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
        let entry = projects.entry(of(label::PROJECT)).or_default();
        *entry.0.entry(container.state.to_string()).or_default() += 1;
        entry.1 = of(label::FILES);
    }
    let mut table = List::new(&[("NAME", "Name"), ("STATUS", "Status"), ("CONFIG FILES", "ConfigFiles")]);
    for (name, (states, files)) in projects {
        if names.is_empty() || names.iter().any(|pattern| pattern.is_match(&name)) {
            let status: Vec<String> =
                states.iter().map(|(state, count)| format!("{state}({count})")).collect();
            table.row(vec![name, status.join(", "), files]);
        }
    }
    table.print(&ListArgs { quiet: args.quiet, format: args.format.clone(), ..ListArgs::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_out_of_the_words_for_people() {
        assert_eq!(health("Up 2 minutes (healthy)"), "healthy");
        assert_eq!(health("Up 2 seconds (health: starting)"), "starting");
        assert_eq!(health("Up 2 minutes (Paused)"), "");
        assert_eq!((exit_code("Exited (137) 1 minute ago"), exit_code("Up 1 minute")), (137, 0));
        assert_eq!(shortened("abcdef", 4), "abc…");
    }
}
