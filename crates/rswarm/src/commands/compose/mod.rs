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
mod bake;
mod body;
mod config;
mod container;
mod follow;
mod images;
mod look;
mod observe;
mod project;
mod provide;
mod publish;
mod rehearsal;
mod remote;
mod surroundings;
mod swarm;
mod up;
mod wait;
mod watch;

use crate::{
    cli::{Compose, ComposeArgs, Down, Progress, ProjectArgs, Rmi, Up},
    output,
};
use anyhow::{Context, Result, bail};
use compose::StackService;
use docker_api::client::Client;
use model::MountKind;
use project::{Project, label};
use std::{collections::BTreeSet, process::ExitCode, time::Duration};
use up::Options;

/// Exit code after Ctrl-C, as a shell has it.
const INTERRUPTED: u8 = 130;

/// Runs `rswarm compose`.
///
/// # Errors
/// The file cannot be read, or the daemon refuses what it asks for.
pub(crate) async fn run(client: &Client, args: ComposeArgs) -> Result<ExitCode> {
    let ComposeArgs { project: of, command } = args;
    let around = surroundings::Surroundings::read(&of)?;
    output::tell(match around.progress()? {
        Progress::Auto | Progress::Plain => output::Telling::Lines,
        Progress::Json => output::Telling::Json,
        Progress::Quiet => output::Telling::Nothing,
    });
    if around.tells_to_stdout()? {
        output::tell_to_stdout();
    }
    if matches!(command, Compose::Up(_)) && around.wants_menu()? {
        output::warning("COMPOSE_MENU: there is no menu of keys here");
    }
    if of.swarm {
        let name = around.name();
        let of = ProjectArgs { project_name: name, ..of };
        return swarm::run(client, &of, command).await;
    }
    let rehearsed = of.dry_run.then(|| rehearsal::client(client));
    let client = rehearsed.as_ref().unwrap_or(client);
    if of.dry_run {
        output::rehearse();
    }
    // What shows or joins containers has its own answer to Ctrl-C.
    let answers = matches!(
        command,
        Compose::Up(_)
            | Compose::Logs(_)
            | Compose::Exec(_)
            | Compose::Run(_)
            | Compose::Attach(_)
            | Compose::Watch(_)
    );
    if answers {
        return act_on(client, &of, command).await;
    }
    tokio::select! {
        done = act_on(client, &of, command) => done,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(INTERRUPTED)),
    }
}

async fn act_on(client: &Client, of: &ProjectArgs, command: Compose) -> Result<ExitCode> {
    match command {
        Compose::Up(args) => {
            let project = Project::load(of, &args.services)?;
            remote::agree(of, args.keep.yes)?;
            return bring_up(client, &project, &args).await;
        }
        Compose::Create(args) => {
            let project = Project::load(of, &args.services)?;
            let options = Options { make: Some(&args.make), keep: Some(&args.keep), ..Options::default() };
            up::converge(client, &project, &project.select(&args.services, true)?, &options).await?;
        }
        Compose::Down(args) => down(client, &Project::load_or_named(of, &args.services)?, &args).await?,
        Compose::Ps(args) => look::ps(client, &Project::load_or_named(of, &args.names)?, &args).await?,
        Compose::Logs(args) => {
            look::logs(client, &Project::load_or_named(of, &args.services)?, &args).await?
        }
        Compose::Exec(args) => {
            let project = Project::load_or_named(of, &[])?;
            let member = project.one(client, &args.service, args.index, false).await?;
            if project.dry_run && !args.detach {
                bail!("interactive exec is not supported in dry-run mode; hint: --detach");
            }
            if project.dry_run {
                output::step("Container", &member.name, &format!("Would run {}", args.command.join(" ")));
            }
            return act::exec(client, member.id, args).await;
        }
        Compose::Run(args) => {
            let project = Project::load(of, std::slice::from_ref(&args.service))?;
            remote::agree(of, args.yes)?;
            return act::run(client, &project, &args).await;
        }
        Compose::Build(args) => act::build(client, of, &Project::load(of, &args.services)?, &args).await?,
        Compose::Pull(args) => act::pull(client, &Project::load(of, &args.services)?, &args).await?,
        Compose::Restart(args) => {
            act::restart(client, &Project::load_or_named(of, &args.services)?, &args).await?;
        }
        Compose::Stop(args) => {
            let project = Project::load_or_named(of, &args.services)?;
            act::stop(client, &project, &args.services, args.timeout).await?;
        }
        Compose::Start(args) => {
            act::start(client, &Project::load_or_named(of, &args.services)?, &args).await?
        }
        Compose::Kill(args) => act::kill(client, &Project::load_or_named(of, &args.services)?, &args).await?,
        Compose::Rm(args) => {
            return act::rm(client, &Project::load_or_named(of, &args.services)?, &args).await;
        }
        Compose::Pause(args) => {
            act::each(client, &Project::load_or_named(of, &args.services)?, &args, "pause").await?;
        }
        Compose::Unpause(args) => {
            act::each(client, &Project::load_or_named(of, &args.services)?, &args, "unpause").await?;
        }
        Compose::Cp(args) => act::cp(client, &Project::load_or_named(of, &[])?, args).await?,
        Compose::Top(args) => look::top(client, &Project::load_or_named(of, &args.services)?, &args).await?,
        Compose::Port(args) => look::port(client, &Project::load_or_named(of, &[])?, &args).await?,
        Compose::Images(args) => {
            look::images(client, &Project::load_or_named(of, &args.services)?, &args).await?
        }
        Compose::Attach(args) => {
            return act::attach(client, &Project::load_or_named(of, &[])?, args).await;
        }
        Compose::Commit(args) => act::commit(client, &Project::load_or_named(of, &[])?, args).await?,
        Compose::Events(args) => observe::events(client, &Project::load_or_named(of, &[])?, &args).await?,
        Compose::Export(args) => act::export(client, &Project::load_or_named(of, &[])?, args).await?,
        Compose::Push(args) => act::push(client, &Project::load(of, &args.services)?, &args).await?,
        Compose::Scale(args) => {
            let names = args.scale.iter().map(|flag| flag.split('=').next().unwrap_or_default().to_owned());
            act::scale(client, &Project::load(of, &names.collect::<Vec<_>>())?, &args).await?;
        }
        Compose::Stats(args) => observe::stats(client, &Project::load_or_named(of, &[])?, &args).await?,
        Compose::Volumes(args) => observe::volumes(client, &Project::load_or_named(of, &[])?, &args).await?,
        Compose::Wait(args) => {
            return observe::wait(client, &Project::load_or_named(of, &args.services)?, &args).await;
        }
        Compose::Version(args) => observe::version(&args)?,
        Compose::Publish(args) => return publish::publish(client, of, &args).await,
        Compose::Config(args) => config::config(client, of, &args).await?,
        Compose::Ls(args) => look::ls(client, &args).await?,
        Compose::Watch(args) => {
            let project = Project::load(of, &args.services)?;
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
    if args.menu == Some(true) {
        bail!("--menu: there is no menu of keys here; hint: --watch, and Ctrl-C");
    }
    let services = project.select(&args.services, !args.no_deps)?;
    let named = |service: &&&StackService| args.services.is_empty() || args.services.contains(&service.key);
    // Those that were asked for; what they need runs on alone.
    let own: BTreeSet<String> = services.iter().filter(named).map(|s| s.key.clone()).collect();
    let options = Options {
        always_needed: match args.keep.always_recreate_deps {
            true => services.iter().map(|s| s.key.clone()).filter(|key| !own.contains(key)).collect(),
            false => BTreeSet::new(),
        },
        make: Some(&args.make),
        keep: Some(&args.keep),
        start: !args.no_start,
        no_deps: args.no_deps,
        timeout: args.timeout,
        limit: seconds(args.wait_timeout),
    };
    let detach = args.detach || args.no_start || args.wait || project.dry_run;
    if detach {
        up::converge(client, project, &services, &options).await?;
        if args.wait {
            for service in &services {
                wait::wait_until_up(client, project, &service.key, options.limit).await?;
            }
        }
        if project.dry_run && !args.detach {
            output::line("end of 'compose up' output, interactive run is not supported in dry-run mode")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let shown = shown(project, &services, &own, args)?;
    if let Some(service) = &args.exit_code_from {
        project.select(std::slice::from_ref(service), false)?;
    }
    let before = project.members(client).await?;
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
    };
    let look = project.look(&args.look);
    let attached = project.members(client).await?;
    let attached = attached.iter().filter(|m| !m.one_off && shown.contains(&m.service));
    let attached: Vec<String> = attached.map(|m| follow::short_name(project, m)).collect();
    if own.iter().all(|key| services.iter().any(|s| s.key == *key && provide::of(s).is_some())) {
        // No container of theirs will ever end.
        return Ok(ExitCode::SUCCESS);
    }
    if !attached.is_empty() && !output::is_silent() {
        output::line(&format!("Attaching to {}", attached.join(", ")))?;
    }
    // It ends with those that were asked for, whatever else is shown.
    let all = own.clone();
    let mut follower =
        follow::Follower::new(client, project, (all, shown), events, &before, (&look, args.timestamps))
            .await?;
    let watching = async {
        match args.watch {
            true => {
                watch::rules(client, project, &services, watch::SETTLE, watch::Rebuilding::default()).await
            }
            false => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        ended = follower.until_end(&ends) => match ended? {
            // Everything ended by itself.
            None => return Ok(ExitCode::SUCCESS),
            Some((name, code)) => {
                output::progress(&format!("Aborting on container exit: {name} has ended"));
                match &args.exit_code_from {
                    // Only who asks for a code, or for an end with a failure, gets one.
                    None if !args.abort_on_container_failure => ExitCode::SUCCESS,
                    _ => ExitCode::from(code),
                }
            }
        },
        Err(error) = watching => return Err(error),
        _ = tokio::signal::ctrl_c() => {
            output::progress("Gracefully stopping... (Ctrl-C again to kill)");
            ExitCode::from(INTERRUPTED)
        }
    };
    // Of one that is stopped because another one ended: what its end says.
    let code_of = args.exit_code_from.clone().filter(|_| ends.with_any);
    let keys: Vec<String> = match ends.with_any || ends.with_failure {
        true => services.iter().map(|s| s.key.clone()).collect(),
        false => own.iter().cloned().collect(),
    };
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
    if let Some(service) = code_of {
        let members = project.of_services(client, std::slice::from_ref(&service)).await?;
        let first = members.first().context("its container is gone")?;
        let ended = client.container(&first.id).await?.state.exit_code;
        return Ok(ExitCode::from(u8::try_from(ended).unwrap_or(1)));
    }
    Ok(code)
}

/// Returns the services whose output is shown.
fn shown(
    project: &Project,
    services: &[&StackService],
    own: &BTreeSet<String>,
    args: &Up,
) -> Result<BTreeSet<String>> {
    for name in args.attach.iter().chain(&args.no_attach) {
        project.select(std::slice::from_ref(name), false)?;
    }
    let is_shown = |service: &&&StackService| {
        let by_file = service.host.as_ref().is_none_or(|h| h.attach);
        let counts = args.attach_dependencies || own.contains(&service.key);
        let asked = args.attach.is_empty() && by_file && counts || args.attach.contains(&service.key);
        asked && !args.no_attach.contains(&service.key)
    };
    Ok(services.iter().filter(is_shown).map(|s| s.key.clone()).collect())
}

async fn down(client: &Client, project: &Project, args: &Down) -> Result<()> {
    let mut members = project.members(client).await?;
    let orphans = args.remove_orphans || project.orphans == project::Orphans::Removed;
    if !args.services.is_empty() {
        project.check_names(&members, &args.services)?;
        members.retain(|m| args.services.contains(&m.service));
    } else if project.has_file() && !orphans {
        members.retain(|m| !project.is_stranger(m));
    }
    let nothing = members.is_empty();
    // What others need goes last. What fails is told when all are gone.
    let mut failed = Ok(());
    for step in act::way_down(project, &members, &args.services) {
        let group = match step {
            act::Step::Containers(group) => group,
            act::Step::Provided(service, provider) => {
                let gone = provide::run(client, project, service, provider, provide::Event::Down).await;
                failed = failed.and(gone);
                continue;
            }
        };
        let service = |member: &project::Member| {
            project.stack().ok().and_then(|stack| stack.services.iter().find(|s| s.key == member.service))
        };
        let gone = group.into_iter().map(|member| async move {
            Ok(up::remove(client, service(member), member, args.timeout, args.volumes).await)
        });
        for removed in project.together(gone).await? {
            failed = failed.and(removed);
        }
    }
    if !args.services.is_empty() {
        return failed;
    }
    let networks = remove_networks(client, project).await?;
    if nothing && networks == 0 {
        output::warning(&format!("No resource found to remove for project {:?}.", project.name));
    }
    if args.volumes {
        remove_volumes(client, project).await?;
    }
    if let Some(which) = args.rmi {
        remove_images(client, project, which, &members).await?;
    }
    failed
}

/// Removes the project's networks; returns how many it found.
async fn remove_networks(client: &Client, project: &Project) -> Result<usize> {
    let mut found = 0;
    let filters = serde_json::json!({"label": {format!("{}={}", label::PROJECT, project.name): true}});
    for network in client.networks(&[("filters", &filters.to_string())]).await? {
        found += 1;
        match client.network_remove(&network.id).await {
            Ok(()) => output::step("Network", &network.name, "Removed"),
            Err(error) if error.is_not_found() => {}
            // Containers of others are on it.
            Err(error) if error.status().is_some_and(|s| s.as_u16() == 403) => {
                output::step("Network", &network.name, "Resource is still in use");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
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
            Ok(()) => output::step("Volume", &name, "Removed"),
            Err(error) if error.is_not_found() => {}
            Err(error) => output::warning(&format!("volume {name}: {error:#}")),
        }
    }
    Ok(())
}

/// Without a file it is the images of the containers that were there, and `local` those that are named after services.
async fn remove_images(
    client: &Client,
    project: &Project,
    which: Rmi,
    members: &[project::Member],
) -> Result<()> {
    let mut images = BTreeSet::new();
    if project.has_file() {
        let wanted = project.stack()?.services.iter().filter(|s| which == Rmi::All || project.names_image(s));
        images.extend(wanted.map(|s| s.spec.task.container.image.clone()).filter(|image| !image.is_empty()));
    } else {
        let own = |m: &project::Member| format!("{}{}{}", project.name, project.separator, m.service);
        let wanted = members.iter().filter(|m| which == Rmi::All || m.summary.image == own(m));
        images.extend(wanted.map(|m| m.summary.image.to_string()));
    }
    for image in images {
        match client.image_remove(&image, &[]).await {
            Ok(_) => output::step("Image", &image, "Removed"),
            Err(error) if error.is_not_found() => {}
            Err(error) => output::warning(&format!("image {image}: {error:#}")),
        }
    }
    Ok(())
}
