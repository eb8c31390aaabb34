//! `rswarm compose`: a compose file's containers on one host, under Docker Compose's words, names and labels.
//!
//! ```text
//!  files -> Project -> Recipe of each service -> converge (images, networks, volumes, containers) -> follow
//! ```
//! Nothing is kept beside the containers: which project, service and version of the file one belongs to stands in its
//! labels. With `--swarm` the same words reach the project's stack instead.
//!
//! *Start reading at* [`run`].

mod act;
mod body;
mod follow;
mod look;
mod project;
mod swarm;
mod up;
mod watch;

use crate::{
    cli::{Compose, ComposeArgs, Down, Rmi, Up},
    output,
};
use anyhow::{Result, bail};
use compose::StackService;
use docker_api::client::Client;
use model::MountKind;
use project::{Project, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};
use up::Options;

/// Exit code after Ctrl-C, as a shell has it.
const INTERRUPTED: u8 = 130;

/// Runs `rswarm compose`.
///
/// # Errors
/// The file cannot be read, or the daemon refuses what it asks for.
pub(crate) async fn run(client: &Client, args: ComposeArgs) -> Result<ExitCode> {
    let ComposeArgs { project: of, command } = args;
    if of.swarm {
        return swarm::run(client, &of, command).await;
    }
    match command {
        Compose::Up(args) => return bring_up(client, &Project::load(&of, &args.services)?, &args).await,
        Compose::Create(args) => {
            let project = Project::load(&of, &args.services)?;
            let options = Options { make: Some(&args.make), keep: Some(&args.keep), ..Options::default() };
            up::converge(client, &project, &project.select(&args.services, true)?, &options).await?;
        }
        Compose::Down(args) => down(client, &Project::load_or_named(&of, &args.services)?, &args).await?,
        Compose::Ps(args) => look::ps(client, &Project::load_or_named(&of, &args.names)?, &args).await?,
        Compose::Logs(args) => {
            look::logs(client, &Project::load_or_named(&of, &args.services)?, &args).await?
        }
        Compose::Exec(args) => {
            let project = Project::load_or_named(&of, &[])?;
            let container = project.running(client, &args.service, args.index).await?.id;
            return act::exec(client, container, args).await;
        }
        Compose::Run(args) => {
            let project = Project::load(&of, std::slice::from_ref(&args.service))?;
            return act::run(client, &project, &args).await;
        }
        Compose::Build(args) => act::build(client, &Project::load(&of, &args.services)?, &args).await?,
        Compose::Pull(args) => act::pull(client, &Project::load(&of, &args.services)?, &args).await?,
        Compose::Restart(args) => {
            act::restart(client, &Project::load_or_named(&of, &args.services)?, &args).await?;
        }
        Compose::Stop(args) => {
            let project = Project::load_or_named(&of, &args.services)?;
            act::stop(client, &project, &args.services, args.timeout).await?;
        }
        Compose::Start(args) => {
            act::start(client, &Project::load_or_named(&of, &args.services)?, &args).await?
        }
        Compose::Kill(args) => {
            act::kill(client, &Project::load_or_named(&of, &args.services)?, &args).await?
        }
        Compose::Rm(args) => {
            return act::rm(client, &Project::load_or_named(&of, &args.services)?, &args).await;
        }
        Compose::Pause(args) => {
            act::each(client, &Project::load_or_named(&of, &args.services)?, &args, "pause").await?;
        }
        Compose::Unpause(args) => {
            act::each(client, &Project::load_or_named(&of, &args.services)?, &args, "unpause").await?;
        }
        Compose::Cp(args) => act::cp(client, &Project::load_or_named(&of, &[])?, args).await?,
        Compose::Top(args) => look::top(client, &Project::load_or_named(&of, &args.services)?, &args).await?,
        Compose::Port(args) => look::port(client, &Project::load_or_named(&of, &[])?, &args).await?,
        Compose::Images(args) => {
            look::images(client, &Project::load_or_named(&of, &args.services)?, &args).await?
        }
        Compose::Config(args) => look::config(&Project::load(&of, &args.names)?, &args)?,
        Compose::Ls(args) => look::ls(client, &args).await?,
        Compose::Watch(args) => {
            let project = Project::load(&of, &args.services)?;
            return watch::run(client, &project, &args).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn seconds(number: u64) -> Option<Duration> {
    (number > 0).then(|| Duration::from_secs(number))
}

/// Returns what tells one container of `run` from others.
fn random_suffix() -> Result<String> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

async fn bring_up(client: &Client, project: &Project, args: &Up) -> Result<ExitCode> {
    let services = project.select(&args.services, !args.no_deps)?;
    let options = Options {
        make: Some(&args.make),
        keep: Some(&args.keep),
        start: !args.no_start,
        no_deps: args.no_deps,
        timeout: args.timeout,
        limit: seconds(args.wait_timeout),
    };
    let detach = args.detach || args.no_start || args.wait;
    if detach {
        up::converge(client, project, &services, &options).await?;
        if args.wait {
            up::wait_until_up(client, project, &services, options.limit).await?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let shown = shown(project, &services, args)?;
    if let Some(service) = &args.exit_code_from {
        project.select(std::slice::from_ref(service), false)?;
    }
    let before = project.members(client).await?;
    let before = before.into_iter().filter(project::Member::is_running).map(|m| m.id).collect();
    let filters = serde_json::json!({
        "type": {"container": true},
        "event": {"start": true, "die": true},
        "label": {format!("{}={}", label::PROJECT, project.name): true},
    });
    let events = client.events(&[("filters", &filters.to_string())]).await?;
    up::converge(client, project, &services, &options).await?;
    let ends = follow::Ends {
        with_any: args.abort_on_container_exit || args.exit_code_from.is_some(),
        with_failure: args.abort_on_container_failure,
        code_of: args.exit_code_from.clone(),
    };
    let look = (&args.look, args.timestamps);
    let all = services.iter().map(|s| s.key.clone()).collect();
    let mut follower = follow::Follower::new(client, project, (all, shown), events, &before, look).await?;
    let watching = async {
        match args.watch {
            true => watch::rules(client, project, &services, watch::SETTLE).await,
            false => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        ended = follower.until_end(&ends) => match ended? {
            // Everything ended by itself.
            None => return Ok(ExitCode::SUCCESS),
            Some((name, code)) => {
                output::progress(&format!("Stopping: {name} has ended"));
                ExitCode::from(code)
            }
        },
        Err(error) = watching => return Err(error),
        _ = tokio::signal::ctrl_c() => {
            output::progress("Gracefully stopping... (Ctrl-C again to kill)");
            ExitCode::from(INTERRUPTED)
        }
    };
    let keys: Vec<String> = services.iter().map(|s| s.key.clone()).collect();
    let stopping = async {
        tokio::select! {
            stopped = act::stop(client, project, &keys, args.timeout) => stopped,
            _ = tokio::signal::ctrl_c() => act::kill_all(client, project, &keys, "SIGKILL").await,
        }
    };
    // What they say on the way is shown, until all are gone.
    let last = follow::Ends::default();
    let mut stopping = std::pin::pin!(stopping);
    tokio::select! {
        stopped = &mut stopping => stopped?,
        shown = follower.until_end(&last) => {
            shown?;
            stopping.await?;
        }
    }
    Ok(code)
}

/// Returns the services whose output is shown.
fn shown(project: &Project, services: &[&StackService], args: &Up) -> Result<BTreeSet<String>> {
    for name in args.attach.iter().chain(&args.no_attach) {
        project.select(std::slice::from_ref(name), false)?;
    }
    let is_shown = |service: &&&StackService| {
        let by_file = service.host.as_ref().is_none_or(|h| h.attach);
        let asked = args.attach.is_empty() && by_file || args.attach.contains(&service.key);
        asked && !args.no_attach.contains(&service.key)
    };
    Ok(services.iter().filter(is_shown).map(|s| s.key.clone()).collect())
}

async fn down(client: &Client, project: &Project, args: &Down) -> Result<()> {
    let mut members = project.members(client).await?;
    if !args.services.is_empty() {
        project.of_services(client, &args.services).await?;
        members.retain(|m| args.services.contains(&m.service));
    } else if project.has_file() && !args.remove_orphans {
        members.retain(|m| !project.is_orphan(m));
    }
    if members.is_empty() && !project.has_file() {
        bail!("project {} has no containers here; hint: `rswarm compose ls -a`", project.name);
    }
    // What others need goes last.
    let mut groups: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    let order: Vec<&StackService> = if project.has_file() { project.select(&[], true)? } else { Vec::new() };
    for member in &members {
        let place = order.iter().position(|s| s.key == member.service);
        groups.entry(place.map_or(usize::MAX, |p| p)).or_default().push(member);
    }
    for (place, group) in groups.iter().rev() {
        let service = order.get(*place).copied();
        let gone = group.iter().map(|member| up::remove(client, service, member, args.timeout, args.volumes));
        futures::future::try_join_all(gone).await?;
    }
    if !args.services.is_empty() {
        return Ok(());
    }
    remove_networks(client, project).await?;
    if args.volumes {
        remove_volumes(client, project).await?;
    }
    if let Some(which) = args.rmi {
        remove_images(client, project, which).await?;
    }
    Ok(())
}

async fn remove_networks(client: &Client, project: &Project) -> Result<()> {
    let filters = serde_json::json!({"label": {format!("{}={}", label::PROJECT, project.name): true}});
    for network in client.networks(&[("filters", &filters.to_string())]).await? {
        match client.network_remove(&network.id).await {
            Ok(()) => output::progress(&format!(" Network {}  Removed", network.name)),
            Err(error) if error.is_not_found() => {}
            // Containers of others are on it.
            Err(error) if error.status().is_some_and(|s| s.as_u16() == 403) => {
                output::progress(&format!(" Network {}  Resource is still in use", network.name));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Those that the file names, and those that were made for the project.
async fn remove_volumes(client: &Client, project: &Project) -> Result<()> {
    let filters = serde_json::json!({"label": {format!("{}={}", label::PROJECT, project.name): true}});
    let mut names: BTreeSet<String> = client
        .volumes(&[("filters", &filters.to_string())])
        .await?
        .volumes
        .into_iter()
        .map(|v| v.name)
        .collect();
    if project.has_file() {
        let mounts = project.stack()?.services.iter().flat_map(|s| &s.spec.task.container.mounts);
        names.extend(mounts.filter_map(|mount| match &mount.kind {
            MountKind::Volume { name: Some(name), labels, .. } if labels.contains_key(label::PROJECT) => {
                Some(name.clone())
            }
            _ => None,
        }));
    }
    for name in names {
        match client.volume_remove(&name, false).await {
            Ok(()) => output::progress(&format!(" Volume {name}  Removed")),
            Err(error) if error.is_not_found() => {}
            Err(error) => output::warning(&format!("volume {name}: {error:#}")),
        }
    }
    Ok(())
}

async fn remove_images(client: &Client, project: &Project, which: Rmi) -> Result<()> {
    for service in &project.stack()?.services {
        let image = &service.spec.task.container.image;
        let built_here = service.build.is_some() && *image == format!("{}-{}", project.name, service.key);
        if which == Rmi::Local && !built_here {
            continue;
        }
        match client.image_remove(image, &[]).await {
            Ok(_) => output::progress(&format!(" Image {image}  Removed")),
            Err(error) if error.is_not_found() => {}
            Err(error) => output::warning(&format!("image {image}: {error:#}")),
        }
    }
    Ok(())
}
