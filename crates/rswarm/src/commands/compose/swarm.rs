//! `rswarm compose --swarm`: the same words for a stack of the swarm, on whatever nodes its tasks are.

use super::follow::{self, Which};
use crate::{
    cli::{
        Compose, ComposeExec, ComposeLogs, ComposePs, ComposeRestart, ComposeRun, DeployArgs, ListArgs,
        LogLook, ProjectArgs, Stack, TasksShown, Up,
    },
    commands::{create, deploy, logs, pairs, service, stack},
    output,
};
use anyhow::{Context, Result, bail};
use axum::http::HeaderMap;
use docker_api::{client::Client, types};
use std::{process::ExitCode, time::Duration};
use tokio::task::JoinSet;

/// Time between two looks at the task of `run`.
const PERIOD: Duration = Duration::from_millis(200);

pub(super) async fn run(client: &Client, of: &ProjectArgs, command: Compose) -> Result<ExitCode> {
    refuse(&[
        ("--ansi and --verbose", of.ansi.is_some() || of.verbose),
        ("--compatibility", of.compatibility),
        ("--parallel", of.parallel.is_some()),
        ("--all-resources", of.all_resources),
        ("--insecure-registry", !of.insecure_registry.is_empty()),
    ])?;
    if of.dry_run {
        output::rehearse();
    }
    let args = deploy_args(of);
    let name = || match (&of.project_name, of.file.is_empty()) {
        // What is deployed needs no file any more.
        (Some(name), true) => Ok(name.clone()),
        _ => deploy::load(&args).map(|stack| stack.name),
    };
    let changes = matches!(command, Compose::Exec(_) | Compose::Run(_) | Compose::Build(_));
    if of.dry_run && changes {
        bail!("--dry-run: of a stack `up`, `down` and `restart` can be gone through");
    }
    match command {
        Compose::Up(up) => return bring_up(client, args, &up).await,
        Compose::Down(down) => {
            let partly = !down.services.is_empty() || down.remove_orphans || down.timeout.is_some();
            if partly || down.volumes || down.rmi.is_some() {
                bail!("a stack goes as a whole, and its volumes and images stay on their nodes");
            }
            if of.dry_run {
                return stack::would_go(client, &name()?).await.map(|()| ExitCode::SUCCESS);
            }
            return stack::run(client, Stack::Rm { stacks: vec![name()?], detach: false }).await;
        }
        Compose::Ps(ps) => return tasks(client, name()?, ps).await,
        Compose::Logs(logs) => show_logs(client, &name()?, &logs).await?,
        Compose::Exec(exec) => return run_in_task(client, &name()?, exec).await,
        Compose::Run(run) => return one_off(client, &name()?, &run).await,
        Compose::Build(build) => {
            let more = build.print || build.provenance.is_some() || build.sbom.is_some() || build.check;
            let more = more || build.memory.is_some() || build.builder.is_some() || build.ssh.is_some();
            let flags =
                build.no_cache || build.pull || build.push || build.quiet || build.with_dependencies || more;
            refuse(&[
                ("flags of `build`", flags || !build.build_arg.is_empty()),
                ("a choice of services", !build.services.is_empty()),
            ])?;
            deploy::build_images(client, &deploy::load(&args)?).await?;
        }
        Compose::Restart(restart) => force(client, &name()?, &restart, of.dry_run).await?,
        Compose::Config(config) => {
            let only = config.services
                || config.volumes
                || config.networks
                || config.profiles
                || config.images
                || config.models
                || config.environment
                || config.variables
                || config.no_interpolate
                || config.no_consistency
                || config.no_normalize
                || config.no_path_resolution
                || config.no_env_resolution
                || config.resolve_image_digests
                || config.lock_image_digests
                || config.hash.is_some();
            let json = config.format != crate::cli::ConfigFormat::Yaml;
            refuse(&[
                ("flags of `config`", only || json || config.output.is_some()),
                ("a choice of services", !config.names.is_empty()),
            ])?;
            let yaml = deploy::load(&args)?.to_yaml();
            if !config.quiet {
                output::line(yaml.trim_end())?;
            }
        }
        Compose::Ls(_) => return stack::run(client, Stack::Ls(ListArgs::default())).await,
        _ => bail!(
            "there is no such thing for a stack of the swarm; hint: `rswarm service` and `rswarm stack` have what there is"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing that was typed is passed over.
fn refuse(typed: &[(&str, bool)]) -> Result<()> {
    match typed.iter().find(|(_, there)| *there) {
        Some((what, _)) => bail!("there is no such thing for a stack of the swarm: {what}"),
        None => Ok(()),
    }
}

fn deploy_args(of: &ProjectArgs) -> DeployArgs {
    DeployArgs {
        env_file: of.env_file.clone(),
        profile: of.profile.clone(),
        lenient: of.lenient,
        name: of.project_name.clone(),
        plan: of.dry_run,
        rehearsed: of.dry_run,
        ..DeployArgs::unattended(of.file.clone(), service::CONVERGE_LIMIT)
    }
}

async fn bring_up(client: &Client, args: DeployArgs, up: &Up) -> Result<ExitCode> {
    if !up.services.is_empty() || up.no_start || up.no_deps || !up.keep.scale.is_empty() {
        bail!("a stack is deployed as a whole; hint: `rswarm scale` changes how many tasks a service has");
    }
    let (make, keep) = (&up.make, &up.keep);
    refuse(&[
        ("--build: `up` builds always", make.build),
        ("--no-build", make.no_build),
        ("--pull and --quiet-pull: nodes fetch what they lack", make.pull.is_some() || make.quiet_pull),
        ("--force-recreate; hint: `restart`", keep.force_recreate),
        ("--no-recreate", keep.no_recreate),
        ("--renew-anon-volumes", keep.renew_anon_volumes),
        ("--timeout; hint: `stop_grace_period` in the file", up.timeout.is_some()),
        ("--abort-on-container-exit", up.abort_on_container_exit || up.abort_on_container_failure),
        ("--exit-code-from", up.exit_code_from.is_some()),
        ("--attach and --no-attach; hint: `logs SERVICE`", !up.attach.is_empty() || !up.no_attach.is_empty()),
        ("--watch", up.watch),
        ("--always-recreate-deps", keep.always_recreate_deps),
        ("--attach-dependencies", up.attach_dependencies),
        ("--quiet-build", make.quiet_build),
        ("--menu", up.menu == Some(true)),
    ])?;
    let timeout = super::seconds(up.wait_timeout).unwrap_or(args.timeout);
    let args = DeployArgs { prune: up.make.remove_orphans, timeout, ..args };
    let (name, code) = deploy::deploy(client, &args).await?;
    if up.detach || up.wait || args.plan {
        return Ok(code);
    }
    let logs = ComposeLogs {
        follow: true,
        tail: "all".to_owned(),
        timestamps: up.timestamps,
        look: LogLook {
            no_color: up.look.no_color,
            no_log_prefix: up.look.no_log_prefix,
            ..Default::default()
        },
        ..ComposeLogs::default()
    };
    show_logs(client, &name, &logs).await?;
    output::progress(&format!(
        "Stack {name} goes on in the swarm; hint: `rswarm compose --swarm down` removes it"
    ));
    Ok(code)
}

async fn tasks(client: &Client, stack: String, ps: ComposePs) -> Result<ExitCode> {
    refuse(&[
        ("--services; hint: `rswarm stack services`", ps.services),
        ("--status and --filter", !ps.status.is_empty() || !ps.filter.is_empty()),
        ("a choice of services; hint: `rswarm service ps`", !ps.names.is_empty()),
    ])?;
    let filter = if ps.all { Vec::new() } else { vec!["desired-state=running".to_owned()] };
    let list = ListArgs { quiet: ps.quiet, format: ps.format, filter };
    let shown = TasksShown { no_trunc: ps.no_trunc, no_resolve: false };
    stack::run(client, Stack::Ps { stack, list, shown }).await
}

/// Returns services of a stack: short name and service.
async fn services(client: &Client, stack: &str, wanted: &[String]) -> Result<Vec<(String, types::Service)>> {
    let filters = serde_json::json!({"label": {format!("{}={stack}", service::STACK_LABEL): true}});
    let found = client.services(&[("filters", &filters.to_string())]).await?;
    let short = |name: &str| name.strip_prefix(&format!("{stack}_")).unwrap_or(name).to_owned();
    let all: Vec<_> = found.into_iter().map(|s| (short(&s.spec.name), s)).collect();
    if all.is_empty() {
        bail!("nothing found in stack: {stack}");
    }
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|(key, _)| key == *name)) {
        bail!("no such service: {unknown}");
    }
    Ok(all.into_iter().filter(|(key, _)| wanted.is_empty() || wanted.contains(key)).collect())
}

async fn show_logs(client: &Client, stack: &str, args: &ComposeLogs) -> Result<()> {
    refuse(&[("--index", args.index.is_some())])?;
    let services = services(client, stack, &args.services).await?;
    let which = Which {
        follow: args.follow,
        tail: args.tail.clone(),
        since: logs::moment(args.since.as_deref())?,
        until: logs::moment(args.until.as_deref())?,
        timestamps: args.timestamps,
    };
    let sources =
        services.into_iter().map(|(key, service)| follow::Source::service(key, service.id)).collect();
    tokio::select! {
        shown = follow::logs(client, sources, &which, &args.look) => shown,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn run_in_task(client: &Client, stack: &str, args: ComposeExec) -> Result<ExitCode> {
    let found = services(client, stack, std::slice::from_ref(&args.service)).await?;
    let (key, service) = found.first().context("a service")?;
    let filters = serde_json::json!({"service": {&service.id: true}, "desired-state": {"running": true}});
    let mut tasks = client.tasks(&[("filters", &filters.to_string())]).await?;
    tasks
        .retain(|task| task.status.state == "running" && (args.index.is_none_or(|index| task.slot == index)));
    tasks.sort_by_key(|task| task.slot);
    let task = tasks.first().with_context(|| match args.index {
        Some(index) => format!("service {key:?} has no running task #{index}"),
        None => format!("service {key:?} has no running task"),
    })?;
    // The id of a task names no container; that of its container is known on every node.
    let container = task.status.container_status.clone().unwrap_or_default().container_id;
    super::act::exec(client, container, args).await
}

/// Replaces the tasks of services by new ones of the same.
async fn force(client: &Client, stack: &str, args: &ComposeRestart, dry_run: bool) -> Result<()> {
    refuse(&[
        ("--timeout; hint: `stop_grace_period` in the file", args.timeout.is_some()),
        ("--no-deps", args.no_deps),
    ])?;
    let mut names = std::collections::BTreeSet::new();
    for (_, service) in services(client, stack, &args.services).await? {
        let mut spec = service.spec;
        if dry_run {
            output::step("Service", &spec.name, "Would be restarted");
            continue;
        }
        spec.task_template.force_update += 1;
        client.service_update(&service.id, service.version.index, &spec, HeaderMap::new()).await?;
        names.insert(spec.name);
    }
    if dry_run {
        return Ok(());
    }
    crate::commands::converge::converge(client, &names, service::CONVERGE_LIMIT).await
}

/// Runs a command once, as a job made of a service: with its image, networks, secrets and volumes.
async fn one_off(client: &Client, stack: &str, args: &ComposeRun) -> Result<ExitCode> {
    let make = &args.make;
    refuse(&[
        ("--detach", args.detach),
        ("--yes", args.yes),
        ("--publish and --service-ports", args.service_ports || !args.publish.is_empty()),
        ("--volume", !args.volume.is_empty()),
        ("--name", args.name.is_some()),
        ("--use-aliases", args.use_aliases),
        ("--env-from-file", !args.env_from_file.is_empty()),
        (
            "--build, --no-build, --pull and --quiet-pull",
            make.build || make.no_build || make.pull.is_some() || make.quiet_pull,
        ),
        ("--remove-orphans", make.remove_orphans),
    ])?;
    let found = services(client, stack, std::slice::from_ref(&args.service)).await?;
    let (key, service) = found.into_iter().next().context("a service")?;
    let mut spec = types::ServiceSpec {
        name: format!("{stack}_{key}-run-{}", super::random_suffix()?),
        mode: types::ServiceMode {
            replicated_job: Some(types::ReplicatedJob {
                max_concurrent: Some(1),
                total_completions: Some(1),
            }),
            ..Default::default()
        },
        update_config: None,
        rollback_config: None,
        endpoint_spec: None,
        depends_on: Vec::new(),
        ..service.spec
    };
    spec.labels.remove(service::STACK_LABEL);
    spec.task_template.restart_policy =
        Some(types::TaskRestartPolicy { condition: "none".to_owned(), ..Default::default() });
    for network in &mut spec.task_template.networks {
        // Nobody is to find this task when looking for the service.
        network.aliases.clear();
    }
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.healthcheck = None;
    if !args.command.is_empty() {
        container.args.clone_from(&args.command);
    }
    if let Some(entrypoint) = &args.entrypoint {
        container.command = entrypoint.split_whitespace().map(str::to_owned).collect();
        container.args.clone_from(&args.command);
    }
    container.env.extend(create::environment(&[], &args.env)?);
    container.labels.extend(pairs(&args.label));
    container.capability_add.extend(create::capabilities(&args.cap_add));
    container.capability_drop.extend(create::capabilities(&args.cap_drop));
    if let Some(user) = &args.user {
        container.user.clone_from(user);
    }
    if let Some(folder) = &args.workdir {
        container.dir.clone_from(folder);
    }
    let id = client.service_create(&spec, HeaderMap::new()).await?.id;
    let ended = tokio::select! {
        ended = to_its_end(client, &key, &id) => ended,
        _ = tokio::signal::ctrl_c() => Ok(super::INTERRUPTED),
    };
    client.service_remove(&id).await?;
    ended.map(ExitCode::from)
}

/// Shows the output of a job with one task; returns its exit code.
async fn to_its_end(client: &Client, key: &str, id: &str) -> Result<u8> {
    let filters = serde_json::json!({"service": {id: true}}).to_string();
    let mut shown = JoinSet::new();
    loop {
        let tasks = client.tasks(&[("filters", &filters)]).await?;
        let Some(task) = tasks.first() else {
            tokio::time::sleep(PERIOD).await;
            continue;
        };
        let started = matches!(task.status.state.as_str(), "running" | "complete" | "failed");
        if started && shown.is_empty() {
            let (client, source) = (client.clone(), follow::Source::service(key.to_owned(), id.to_owned()));
            let which = Which { follow: true, tail: "all".to_owned(), ..Which::default() };
            let look = LogLook { no_log_prefix: true, ..Default::default() };
            shown.spawn(async move { follow::logs(&client, vec![source], &which, &look).await });
        }
        match task.status.state.as_str() {
            "complete" | "failed" => {
                // The log ends with its task.
                drop(tokio::time::timeout(follow::LAST_WORDS, shown.join_next()).await);
                let code = task.status.container_status.as_ref().map_or(0, |c| c.exit_code);
                if task.status.state == "failed" && code == 0 {
                    bail!("{}", task.status.err);
                }
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            "rejected" | "orphaned" | "shutdown" | "remove" => {
                bail!("the task was {}: {}", task.status.state, task.status.err)
            }
            _ => tokio::time::sleep(PERIOD).await,
        }
    }
}
