//! `rswarm service ...`, `rswarm scale`.

use super::{
    causes,
    converge::{converge, converge_back},
    each, explain, image, inspect, service_logs, service_spec, shown,
};
use crate::{
    cli::{ListArgs, ScaleArgs, Service, ServiceCreate, ServiceUpdate, TasksShown},
    list::{self, List},
    output,
};
use anyhow::{Context, Result, bail};
use axum::http::HeaderMap;
use docker_api::{client::Client, types};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};

/// Label that says which stack an object belongs to.
pub(crate) const STACK_LABEL: &str = "com.docker.stack.namespace";
/// How long commands that change a service wait for it, as Docker's CLI does for ever.
pub(super) const CONVERGE_LIMIT: Duration = Duration::from_secs(600);
/// Exit code after Ctrl-C, as a shell has it.
pub(super) const INTERRUPTED: u8 = 130;

pub(crate) async fn run(client: &Client, command: Service) -> Result<ExitCode> {
    match command {
        Service::Ls(args) => {
            let filters = list::filters(&args.filter)?;
            print_services(client, &filters, &args).await?;
        }
        Service::Ps { services, list: args, shown } => {
            let mut ids = serde_json::Map::new();
            for name in &services {
                ids.insert(client.service(name).await?.id, true.into());
            }
            let filters = list::with_filter(&list::filters(&args.filter)?, "service", ids)?;
            print_tasks(client, &filters, &args, shown).await?;
        }
        Service::Explain { name } => explain::run(client, &name).await?,
        Service::Inspect(args) => inspect(client, "services", &args).await?,
        Service::Create(args) => return create(client, *args).await,
        Service::Update(args) => return update(client, *args).await,
        Service::Scale(args) => return scale(client, &args).await,
        Service::Rollback { service, detach, quiet, timeout } => {
            if quiet {
                output::tell(output::Telling::Nothing);
            }
            let found = client.service(&service).await?;
            client.service_rollback(&found.id, found.version.index, &found.spec).await?;
            output::line(&service)?;
            let names = BTreeSet::from([service.clone()]);
            let wait = converge_back(client, &names, timeout);
            return wait_unless(detach, &[service], wait).await;
        }
        Service::Logs(args) => service_logs::run(client, &args).await?,
        Service::Rm(names) => {
            each(&names.names, async |name| {
                Ok(client.service_remove(&client.service(name).await?.id).await?)
            })
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until services run what they should, unless that is not wanted.
///
/// # Errors
/// As [`converge`].
async fn wait_for(detach: bool, client: &Client, services: &[String], limit: Duration) -> Result<ExitCode> {
    let names: BTreeSet<String> = services.iter().cloned().collect();
    wait_unless(detach, services, converge(client, &names, limit)).await
}

/// Waits for the end of `wait`, unless that is not wanted. After Ctrl-C it says what goes on without it.
async fn wait_unless(
    detach: bool,
    services: &[String],
    wait: impl Future<Output = Result<()>>,
) -> Result<ExitCode> {
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        result = wait => result.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => {
            let (what, which) = if services.len() == 1 { ("service", "it") } else { ("services", "them") };
            let names = services.join(" ");
            output::line(&format!(
                "Not waited for: the swarm goes on to bring {what} {names} up; hint: `rswarm service ps {names}` \
                 shows {which}, `rswarm service rollback NAME` takes a change back"
            ))?;
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn create(client: &Client, args: ServiceCreate) -> Result<ExitCode> {
    let (quiet, detach, timeout) = (args.flags.quiet, args.flags.detach, args.flags.timeout);
    let headers = account(args.flags.with_registry_auth, &args.image)?;
    let image = resolved(client, &args.image, args.flags.no_resolve_image).await;
    let spec = service_spec::created(client, args, image).await?;
    let created = client.service_create(&spec, headers).await?;
    created.warnings.iter().for_each(|warning| output::warning(warning));
    output::line(&created.id)?;
    if quiet {
        output::tell(output::Telling::Nothing);
    }
    wait_for(detach, client, &[created.id], timeout).await
}

/// Returns the image as the spec names it: with its digest, unless that is not wanted.
async fn resolved(client: &Client, image: &str, as_named: bool) -> String {
    if as_named { image.to_owned() } else { pinned(client, image, UNPINNED).await }
}

/// What happens to an image that [`pinned`] finds no digest for.
const UNPINNED: &str = "each node fetches it by itself, and they may run different versions";

/// Returns the image with the digest it has now, so that every task runs the same one. Where it has none, that is a
/// warning with `otherwise`: what happens then.
pub(crate) async fn pinned(client: &Client, image: &str, otherwise: &str) -> String {
    with_digest(client, image).await.unwrap_or_else(|error| {
        output::warning(&format!("no digest of image {image} can be told: {error}; {otherwise}"));
        image.to_owned()
    })
}

/// Returns the header that proves our account at an image's registry, if the nodes are to have it.
fn account(wanted: bool, image: &str) -> Result<HeaderMap> {
    if wanted { image::credentials(image) } else { Ok(HeaderMap::new()) }
}

/// Returns the image with the digest it has now.
///
/// # Errors
/// It is not known anywhere yet, or its registry is out of reach.
pub(crate) async fn with_digest(client: &Client, image: &str) -> docker_api::client::Result<String> {
    if image.contains("@sha256:") {
        return Ok(image.to_owned());
    }
    // An account that cannot be read is as good as none: the registry says whether it takes one.
    let headers = image::credentials(image).unwrap_or_default();
    Ok(format!("{image}@{}", client.distribution(image, headers).await?.descriptor.digest))
}

async fn update(client: &Client, args: ServiceUpdate) -> Result<ExitCode> {
    let service = client.service(&args.service).await?;
    let (name, detach, timeout) = (args.service.clone(), args.flags.detach, args.flags.timeout);
    if args.flags.quiet {
        output::tell(output::Telling::Nothing);
    }
    if args.rollback {
        service_spec::alone(&args)?;
        client.service_rollback(&service.id, service.version.index, &service.spec).await?;
        output::line(&name)?;
        let names = BTreeSet::from([name.clone()]);
        return wait_unless(detach, &[name], converge_back(client, &names, timeout)).await;
    }
    let image = match &args.image {
        Some(image) => Some(resolved(client, image, args.flags.no_resolve_image).await),
        None => None,
    };
    let with_registry_auth = args.flags.with_registry_auth;
    let spec = service_spec::changed(client, service.spec, args, image).await?;
    let image = spec.task_template.container_spec.as_ref().map_or("", |container| container.image.as_str());
    let headers = account(with_registry_auth, image)?;
    let said = client.service_update(&service.id, service.version.index, &spec, headers).await?;
    said.warnings.iter().for_each(|warning| output::warning(warning));
    output::line(&name)?;
    wait_for(detach, client, &[name], timeout).await
}

fn set_replicas(spec: &mut types::ServiceSpec, name: &str, replicas: u64) -> Result<()> {
    match &mut spec.mode.replicated {
        Some(mode) => mode.replicas = Some(replicas),
        None => bail!("{name}: scale can only be used with replicated mode"),
    }
    Ok(())
}

pub(crate) async fn scale(client: &Client, args: &ScaleArgs) -> Result<ExitCode> {
    let mut wanted = Vec::new();
    for text in &args.services {
        let (name, replicas) = text
            .split_once('=')
            .with_context(|| format!("invalid scale specifier {text:?} (want SERVICE=REPLICAS)"))?;
        let replicas: u64 =
            replicas.parse().with_context(|| format!("invalid number of replicas in {text:?}"))?;
        wanted.push((name.to_owned(), replicas));
    }
    for (name, replicas) in &wanted {
        let service = client.service(name).await?;
        let mut spec = service.spec;
        set_replicas(&mut spec, name, *replicas)?;
        client.service_update(&service.id, service.version.index, &spec, HeaderMap::new()).await?;
        output::line(&format!("{name} scaled to {replicas}"))?;
    }
    let names: Vec<String> = wanted.into_iter().map(|(name, _)| name).collect();
    wait_for(args.detach, client, &names, args.timeout).await
}

pub(super) async fn print_services(client: &Client, filters: &str, args: &ListArgs) -> Result<()> {
    let services = client.services(&[("filters", filters), ("status", "true")]).await?;
    let mut table = List::new(&[
        ("ID", "ID"),
        ("NAME", "Name"),
        ("MODE", "Mode"),
        ("REPLICAS", "Replicas"),
        ("IMAGE", "Image"),
        ("PORTS", "Ports"),
    ]);
    for service in services {
        let replicas = replicas(&service);
        let mode = match &service.spec.mode {
            mode if mode.global.is_some() => "global",
            mode if mode.replicated_job.is_some() => "replicated job",
            mode if mode.global_job.is_some() => "global job",
            _ => "replicated",
        };
        let image = service.spec.task_template.container_spec.map(|c| c.image).unwrap_or_default();
        let ports = service.endpoint.ports.iter().filter(|p| p.publish_mode != "host");
        let ports: Vec<String> =
            ports.map(|p| format!("*:{}->{}/{}", p.published_port, p.target_port, p.protocol)).collect();
        table.row(vec![
            service.id.chars().take(12).collect(),
            service.spec.name,
            mode.to_owned(),
            replicas,
            image.split('@').next().unwrap_or_default().to_owned(),
            ports.join(", "),
        ]);
    }
    table.sort_by("Name");
    table.print(args)
}

/// Returns how many tasks run, of how many that should; of a job also how many are done. *Source:* docker CLI
/// `cli/command/service/formatter.go`.
fn replicas(service: &types::Service) -> String {
    let status = service.service_status.clone().unwrap_or_default();
    let (running, desired, completed) = (status.running_tasks, status.desired_tasks, status.completed_tasks);
    let mode = &service.spec.mode;
    let most = service.spec.task_template.placement.as_ref().map_or(0, |placement| placement.max_replicas);
    let total = match (&mode.replicated_job, &mode.global_job) {
        (Some(job), _) => job.total_completions.unwrap_or_default(),
        (None, Some(_)) => desired + completed,
        (None, None) if mode.replicated.is_some() && most > 0 => {
            return format!("{running}/{desired} (max {most} per node)");
        }
        (None, None) => return format!("{running}/{desired}"),
    };
    format!("{running}/{desired} ({completed}/{total} completed)")
}

/// Prints tasks, newest of each slot first, as `docker service ps` does.
pub(crate) async fn print_tasks(
    client: &Client,
    filters: &str,
    args: &ListArgs,
    shown: TasksShown,
) -> Result<()> {
    task_list(client, filters, shown).await?.print(args)
}

/// Returns the tasks that match as a list.
pub(crate) async fn task_list(client: &Client, filters: &str, shown: TasksShown) -> Result<List> {
    let TasksShown { no_trunc, no_resolve } = shown;
    let mut tasks = client.tasks(&[("filters", filters)]).await?;
    // What has no name here is shown by its id.
    let (mut nodes, mut services) = (BTreeMap::new(), BTreeMap::new());
    if !no_resolve {
        nodes = shown::node_names(client).await?;
        services.extend(client.services(&[]).await?.into_iter().map(|s| (s.id, s.spec.name)));
    }
    tasks.sort_by(|a, b| {
        let key = |t: &types::Task| (services.get(&t.service_id).cloned(), t.slot, t.node_id.clone());
        let by_slot =
            if a.slot == 0 { key(a).cmp(&key(b)) } else { (key(a).0, a.slot).cmp(&(key(b).0, b.slot)) };
        by_slot.then(b.created_at.timestamp().cmp(&a.created_at.timestamp()))
    });
    let mut table = List::new(&[
        ("ID", "ID"),
        ("NAME", "Name"),
        ("IMAGE", "Image"),
        ("NODE", "Node"),
        ("DESIRED STATE", "DesiredState"),
        ("CURRENT STATE", "CurrentState"),
        ("ERROR", "Error"),
    ]);
    let now = list::now();
    let mut last = String::new();
    for task in tasks {
        let service = services.get(&task.service_id).cloned().unwrap_or_else(|| task.service_id.clone());
        let slot = if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() };
        let mut name = format!("{service}.{slot}");
        if name == last {
            name = format!(" \\_ {name}");
        } else {
            last.clone_from(&name);
        }
        let image = task.spec.container_spec.map(|c| c.image).unwrap_or_default();
        let age = now.since(task.status.timestamp.timestamp());
        let error = task.status.err;
        // Of what is cut short the cause is to be seen, and not what is around it.
        let shown = if no_trunc || error.chars().count() <= 40 { error } else { causes::plain(&error) };
        let short = if no_trunc || shown.chars().count() <= 40 {
            shown
        } else {
            format!("{}…", shown.chars().take(39).collect::<String>())
        };
        table.row(vec![
            if no_trunc { task.id } else { task.id.chars().take(12).collect() },
            name,
            image.split('@').next().unwrap_or_default().to_owned(),
            nodes.get(&task.node_id).cloned().unwrap_or(task.node_id),
            shown::capitalised(&task.desired_state),
            format!("{} {} ago", shown::capitalised(&task.status.state), list::human(age).to_lowercase()),
            if short.is_empty() { short } else { format!("\"{short}\"") },
        ]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_how_many_run_and_how_many_may() {
        let shown = |mode: types::ServiceMode, max_replicas: u64| {
            let mut service = types::Service::default();
            service.spec.mode = mode;
            service.spec.task_template.placement =
                Some(types::Placement { max_replicas, ..types::Placement::default() });
            let (running_tasks, desired_tasks, completed_tasks) = (1, 3, 2);
            service.service_status =
                Some(types::ServiceStatus { running_tasks, desired_tasks, completed_tasks });
            replicas(&service)
        };
        let mode = types::ServiceMode::default;
        let replicated =
            || types::ServiceMode { replicated: Some(types::Replicated { replicas: Some(3) }), ..mode() };
        let global = types::ServiceMode { global: Some(types::Empty::default()), ..mode() };
        let job = types::ReplicatedJob { total_completions: Some(5), ..types::ReplicatedJob::default() };
        let job = types::ServiceMode { replicated_job: Some(job), ..mode() };
        assert_eq!(shown(replicated(), 0), "1/3");
        assert_eq!(shown(replicated(), 2), "1/3 (max 2 per node)");
        assert_eq!(shown(global, 2), "1/3", "there is one on each node anyway");
        assert_eq!(shown(job, 2), "1/3 (2/5 completed)");
    }
}
