//! What a project does and uses: its events, its volumes, what its containers use, when they end; and our version.

use super::{
    down,
    project::{Project, label},
};
use crate::{
    cli::{
        ComposeEvents, ComposeStats, ComposeVersion, ComposeVolumes, ComposeWait, Down, ListArgs, StatsArgs,
        VersionFormat,
    },
    commands::{logs, look},
    list::List,
    output,
};
use anyhow::{Result, bail};
use docker_api::client::Client;
use futures::{StreamExt, stream::FuturesUnordered};
use std::{collections::BTreeSet, process::ExitCode};

pub(super) async fn stats(client: &Client, project: &Project, args: &ComposeStats) -> Result<()> {
    let mut members = project.of_services(client, &args.services).await?;
    members.retain(|member| args.all || member.is_running());
    if members.is_empty() {
        bail!("project {} has no container that runs; hint: --all", project.name);
    }
    let containers = members.into_iter().map(|member| member.id).collect();
    let stats = StatsArgs {
        no_stream: args.no_stream,
        containers,
        format: args.format.clone(),
        all: false,
        no_trunc: args.no_trunc,
    };
    look::stats(client, &stats).await
}

/// Shows what happens to containers as Docker Compose does. Source: docker/compose `cmd/compose/events.go`.
pub(super) async fn events(client: &Client, project: &Project, args: &ComposeEvents) -> Result<()> {
    project.check_names(&project.members(client).await?, &args.services)?;
    let filters = serde_json::json!({
        "type": {"container": true},
        "label": {format!("{}={}", label::PROJECT, project.name): true},
    })
    .to_string();
    let (since, until) = (logs::moment(args.since.as_deref())?, logs::moment(args.until.as_deref())?);
    let mut query = vec![("filters", filters.as_str())];
    query.extend(
        [("since", since.as_str()), ("until", until.as_str())].into_iter().filter(|(_, at)| !at.is_empty()),
    );
    let mut events = client.events(&query).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let of = |key: &str| event.actor.attributes.get(key).cloned().unwrap_or_default();
        let service = of(label::SERVICE);
        // Those of `run` belong to nobody's service.
        let one_off = of(label::ONE_OFF).eq_ignore_ascii_case("true");
        if one_off || !(args.services.is_empty() || args.services.contains(&service)) {
            continue;
        }
        let attributes: std::collections::BTreeMap<&str, &str> = event
            .actor
            .attributes
            .iter()
            .filter(|(key, _)| !key.starts_with("com.docker.compose."))
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(event.time_nano.into())?;
        let at = at.format(&time::format_description::well_known::Rfc3339)?;
        if args.json {
            let shown = serde_json::json!({
                "time": at, "type": event.kind, "service": service, "id": event.actor.id,
                "action": event.action, "attributes": attributes,
            });
            output::line(&shown.to_string())?;
            continue;
        }
        let attributes: Vec<String> =
            attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        output::line(&format!(
            "{at} {} {} {} ({})",
            event.kind,
            event.action,
            event.actor.id,
            attributes.join(", ")
        ))?;
    }
    Ok(())
}

pub(super) async fn volumes(client: &Client, project: &Project, args: &ComposeVolumes) -> Result<()> {
    let filters = serde_json::json!({"label": {format!("{}={}", label::PROJECT, project.name): true}});
    let mut found = client.volumes(&[("filters", &filters.to_string())]).await?.volumes;
    if !args.services.is_empty() {
        let members = project.of_services(client, &args.services).await?;
        let mounted: BTreeSet<&str> =
            members.iter().flat_map(|m| &m.summary.mounts).map(|mount| mount.name.as_str()).collect();
        found.retain(|volume| mounted.contains(volume.name.as_str()));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if args.quiet {
        return found.iter().try_for_each(|volume| output::line(&volume.name));
    }
    let mut table = List::new(&[("DRIVER", "Driver"), ("VOLUME NAME", "Name")]);
    for volume in found {
        table.row(vec![volume.driver, volume.name]);
    }
    table.print(&ListArgs { format: args.format.clone(), ..ListArgs::default() })
}

/// Waits for the end of containers; ends with the exit code of the last one, or of the first if that takes the project
/// down.
pub(super) async fn wait(client: &Client, project: &Project, args: &ComposeWait) -> Result<ExitCode> {
    let members = project.of_services(client, &args.services).await?;
    if members.is_empty() {
        bail!("services {} have no containers; hint: `rswarm compose up`", args.services.join(", "));
    }
    let mut ends: FuturesUnordered<_> = members
        .iter()
        .map(|member| async {
            let waiting = client.container_wait(&member.id, "not-running").await?;
            anyhow::Ok((&member.name, Client::wait_answer(waiting).await?.status_code))
        })
        .collect();
    let mut last = 0;
    while let Some(ended) = ends.next().await {
        let (name, code) = ended?;
        output::line(&format!("container {name:?} exited with status code {code}"))?;
        last = code;
        if args.down_project {
            down(client, project, &Down { remove_orphans: true, ..Down::default() }).await?;
            break;
        }
    }
    Ok(ExitCode::from(u8::try_from(last).unwrap_or(1)))
}

pub(super) fn version(args: &ComposeVersion) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match args.format {
        _ if args.short => output::line(version),
        VersionFormat::Pretty => output::line(&format!("rswarm compose version v{version}")),
        VersionFormat::Json => {
            output::line(&serde_json::json!({"version": format!("v{version}")}).to_string())
        }
    }
}
