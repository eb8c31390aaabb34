//! `rswarm deploy`: a compose file becomes a stack of the swarm, as a transaction.
//!
//! ```text
//!  files -> Stack -> build -> Plan (shown, asked about) -> one write -> services run | back to the revision before
//! ```
//! Read and check everything first, say what would change, then change that and nothing else: the write carries the
//! versions that the plan was made from, and a manager refuses it if one of them is gone.

pub(crate) mod compare;
mod content;
mod failure;
mod git;
mod outlook;
mod plan;

use super::{
    build,
    converge::{CannotRun, converge},
    service::{INTERRUPTED, pinned, with_digest},
};
use crate::{
    cli::{DeployArgs, PlanFormat},
    output,
};
use anyhow::{Context, Result, bail};
use compose::{Stack, StackService};
use docker_api::{client::Client, convert, types};
use outlook::Outlook;
use plan::{Plan, Present};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::task::JoinSet;

/// Names looked for when no file is given, in this order. Source: Docker Compose.
const DEFAULT_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// What happens to images without a known digest.
const UNPINNED: &str = "what runs it keeps its digest; for what is new, each node fetches it by itself, and they may run different versions";
/// Exit code of `--plan` when something would change.
const CHANGES: u8 = 2;

/// Runs `rswarm deploy`.
///
/// # Errors
/// Something the stack refers to is missing, a manager refuses it, or its services do not run in time.
pub(crate) async fn run(client: &Client, args: &DeployArgs) -> Result<ExitCode> {
    deploy(client, args).await.map(|(_, code)| code)
}

/// Deploys; returns the stack's name as well.
pub(super) async fn deploy(client: &Client, args: &DeployArgs) -> Result<(String, ExitCode)> {
    let sources = read_all(args)?;
    let is_read = sources.files.iter().any(|(path, _)| path == Path::new("-"));
    let commit = if is_read { None } else { git::commit(&sources.project_dir) };
    // A manager answers while the files are resolved: of thousands of services, either takes a while.
    let mut asked = JoinSet::new();
    asked.spawn(Present::ask(client.clone()));
    let stack = tokio::task::spawn_blocking(move || resolve(&sources)).await??;
    let present = if !stack.services.iter().any(|s| s.build.is_some()) {
        answer(asked).await?
    } else if args.plan {
        output::warning("images are built only by a deploy: this plan is of those that were built before");
        answer(asked).await?
    } else {
        build_images(client, &stack).await?;
        // That took its time.
        Present::ask(client.clone()).await?
    };
    let mut plan = Plan::make(client, &stack, present, args.prune).await?;
    plan.apply.git = commit.unwrap_or_default();
    let code = carry_out(client, &stack, plan, args).await?;
    Ok((stack.name, code))
}

/// Returns what was asked for.
async fn answer(mut asked: JoinSet<Result<Present>>) -> Result<Present> {
    asked.join_next().await.context("nothing was asked for")??
}

/// Shows a plan, asks about it and applies it, as far as that is wanted.
async fn carry_out(client: &Client, stack: &Stack, mut plan: Plan, args: &DeployArgs) -> Result<ExitCode> {
    let outlook = if args.plan { Outlook::ask(client, &plan).await? } else { Outlook::default() };
    match args.format {
        PlanFormat::Json => {
            let mut json = plan.json();
            json["outlook"] = outlook.json();
            output::line(&serde_json::to_string_pretty(&json)?)?;
        }
        PlanFormat::Text => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            plan.lines(colour).iter().try_for_each(|line| output::styled(line))?;
            outlook.lines(plan.is_empty()).iter().try_for_each(|line| output::line(line))?;
        }
    }
    if args.plan {
        return Ok(match (outlook.all_run(), plan.is_empty()) {
            (false, _) => ExitCode::from(crate::CANNOT_RUN),
            (true, unchanged) if unchanged || args.rehearsed => ExitCode::SUCCESS,
            (true, _) => ExitCode::from(CHANGES),
        });
    }
    if !plan.is_empty() && !args.yes && !confirmed()? {
        output::line("Nothing was changed.")?;
        return Ok(ExitCode::FAILURE);
    }
    plan.apply.source = stack.to_yaml();
    plan.apply.message = args.message.clone().unwrap_or_default();
    if args.with_registry_auth {
        for service in &mut plan.apply.services {
            let container = service.spec.task_template.container_spec.as_ref();
            let image = container.map_or("", |container| container.image.as_str());
            service.registry_auth = super::image::account(image)?;
        }
    }
    apply(client, &plan, args).await
}

/// Asks a person; who is none has said yes by calling.
fn confirmed() -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Ok(true);
    }
    output::prompt("Go on? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn apply(client: &Client, plan: &Plan, args: &DeployArgs) -> Result<ExitCode> {
    // Only a stack that is not there has no revision: anything else that goes wrong would cost the way back.
    let before = match client.stack(&plan.stack).await {
        Ok(stack) => stack.revisions,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let newest = before.last().map_or(0, |r| r.number);
    // Accounts are not shown, so whether they are others is not known.
    if plan.is_empty() && newest > 0 && !args.with_registry_auth {
        return wait(client, plan, args, newest, false).await;
    }
    let stack = client.stack_apply(&plan.stack, &plan.apply).await?;
    let revision = stack.revisions.last().map_or(0, |r| r.number);
    output::line(&format!("Stack {} is at revision {revision}", plan.stack))?;
    // There is no way back to revisions that are all known not to have come up.
    let way_back = before.iter().any(|revision| revision.came_up != Some(false));
    wait(client, plan, args, revision, way_back && !args.no_rollback).await
}

/// Waits for the services of a revision, and records how it went; puts the last good revision back if they do not come
/// up and there is one.
async fn wait(
    client: &Client,
    plan: &Plan,
    args: &DeployArgs,
    revision: u64,
    way_back: bool,
) -> Result<ExitCode> {
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let all: BTreeSet<String> = plan.apply.services.iter().map(|s| s.spec.name.clone()).collect();
    let failed = tokio::select! {
        result = converge(client, &all, args.timeout) => match result {
            Ok(()) => {
                judge(client, &plan.stack, revision, true).await;
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => error,
        },
        _ = tokio::signal::ctrl_c() => {
            let back = match way_back {
                true => format!(", `rswarm stack rollback {}` takes the deploy back", plan.stack),
                false => String::new(),
            };
            output::line(&format!(
                "Not waited for: the swarm goes on to bring stack {0} up; hint: `rswarm stack ps {0}` shows it{back}",
                plan.stack
            ))?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    let hopeless = CannotRun::is_in(&failed);
    let text = format!("{failed:#}");
    let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, "mend the file and deploy again"));
    let story =
        failure::story(client, &plan.touched).await.map(|story| format!("\n{story}")).unwrap_or_default();
    // Hints come last.
    let end = |outcome: &str| {
        let text = format!("{what}{story}\n{outcome}\nhint: {hint}");
        if hopeless { anyhow::Error::new(CannotRun::new(text)) } else { anyhow::Error::msg(text) }
    };
    let name = &plan.stack;
    judge(client, name, revision, false).await;
    if !way_back {
        return Err(end(&format!("stack {name} stays as it is now")));
    }
    let back = match client.stack_rollback(name, 0, revision).await {
        Ok(stack) => stack,
        Err(error) => return Err(end(&format!("stack {name} does not go back: {error:#}"))),
    };
    let Some(newest) = back.revisions.last() else {
        return Err(end(&format!("stack {name} has no revision to go back to")));
    };
    output::warning(&format!("stack {name} goes back to revision {}", newest.restores));
    let services = newest.services.iter().cloned().collect();
    match converge(client, &services, args.timeout).await {
        Ok(()) => {
            judge(client, name, newest.number, true).await;
            Err(end(&format!("stack {name} is as it was at revision {}", newest.restores)))
        }
        Err(error) => Err(end(&format!("and going back to revision {}: {error:#}", newest.restores))),
    }
}

/// Records whether a revision came up. That it cannot be recorded is no reason to fail.
async fn judge(client: &Client, stack: &str, revision: u64, came_up: bool) {
    if let Err(error) = client.stack_judge(stack, revision, came_up).await {
        output::warning(&format!("how revision {revision} of stack {stack} went is not recorded: {error:#}"));
    }
}

/// Puts an earlier revision back and waits for it, if there is a `limit`. `wanted` 0 = the last one before the newest
/// that came up.
pub(crate) async fn rollback(
    client: &Client,
    stack: &str,
    wanted: u64,
    limit: Option<Duration>,
) -> Result<ExitCode> {
    let now = client.stack_rollback(stack, wanted, 0).await?;
    let Some(newest) = now.revisions.last() else { bail!("stack {stack} has no revisions") };
    output::line(&format!(
        "Stack {stack} is at revision {}, which puts {} back",
        newest.number, newest.restores
    ))?;
    if let Some(limit) = limit {
        let services = newest.services.iter().cloned().collect();
        let came_up = converge(client, &services, limit).await;
        judge(client, stack, newest.number, came_up.is_ok()).await;
        came_up?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks the files; nothing is asked of a daemon.
pub(super) fn load(args: &DeployArgs) -> Result<Stack> {
    resolve(&read_all(args)?)
}

/// Returns the stack that files come to as YAML; `interpolate`: with variables filled in.
///
/// # Errors
/// They cannot be deployed; without `interpolate`, they cannot be read.
pub(super) fn shown(sources: &compose::Sources, interpolate: bool) -> Result<String> {
    if interpolate {
        return Ok(resolve(sources)?.to_yaml());
    }
    let form = compose::Form { raw: true, as_written: true, ..compose::Form::default() };
    let (document, warnings) =
        compose::document(sources, &compose::Disk, form).map_err(|error| with_line(error, sources))?;
    for warning in warnings {
        output::warning(&warning.to_string());
    }
    Ok(document.to_yaml())
}

/// Reads the files that were named, or the one that is there.
fn read_all(args: &DeployArgs) -> Result<compose::Sources> {
    let mut files: Vec<PathBuf> = args.file.iter().chain(&args.files).cloned().collect();
    if files.is_empty() {
        files.push(default_file(Path::new(""))?);
    }
    for file in files.iter_mut().filter(|file| file.is_dir()) {
        *file = default_file(file)?;
    }
    let profiles = std::env::var("COMPOSE_PROFILES").unwrap_or_default();
    let profiles = profiles.split(',').filter(|p| !p.is_empty()).map(str::to_owned);
    Ok(compose::Sources {
        env_files: args.env_file.clone(),
        profiles: args.profile.iter().cloned().chain(profiles).collect(),
        lenient: args.lenient,
        ..sources(&files, args.name.clone())?
    })
}

/// Makes a stack of files, and tells what it warns of.
fn resolve(sources: &compose::Sources) -> Result<Stack> {
    let (stack, warnings) =
        compose::load(sources, &compose::Disk).map_err(|error| with_line(error, sources))?;
    for warning in warnings {
        output::warning(&warning.to_string());
    }
    Ok(stack)
}

/// Reads the files; paths in them begin at the folder of the first.
pub(super) fn sources(files: &[PathBuf], name: Option<String>) -> Result<compose::Sources> {
    let texts = files.iter().map(|path| Ok((path.clone(), read(path)?))).collect::<Result<Vec<_>>>()?;
    let project_dir = files
        .first()
        .and_then(|f| f.parent())
        .filter(|d| !d.as_os_str().is_empty())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let project_dir =
        project_dir.canonicalize().with_context(|| format!("cannot read {}", project_dir.display()))?;
    let env = std::env::vars().collect();
    Ok(compose::Sources { files: texts, project_dir, env, name, ..compose::Sources::default() })
}

/// Shows the line of the file that an error is about.
pub(super) fn with_line(error: compose::Error, sources: &compose::Sources) -> anyhow::Error {
    let shown = error.at().and_then(|at| {
        let given = sources.files.iter().find(|(path, _)| **path == *at.file).map(|(_, text)| text.clone());
        let text = given.or_else(|| std::fs::read_to_string(&at.file).ok())?;
        let line = text.lines().nth(usize::try_from(at.line).ok()?.checked_sub(1)?)?.replace('\t', " ");
        let column = usize::try_from(at.column).ok()?.saturating_sub(1);
        // Of a long line only what is around the place.
        let (first, width) = (column.saturating_sub(60), 100);
        let part: String = line.chars().skip(first).take(width).collect();
        Some(format!("{:>5} | {part}\n      | {:>width$}", at.line, "^", width = column - first + 1))
    });
    let error = anyhow::Error::new(error);
    match shown {
        None => error,
        Some(shown) => {
            let text = format!("{error:#}");
            // Hints come last.
            let (what, hint) =
                text.split_once("\nhint: ").map_or((text.as_str(), None), |(w, h)| (w, Some(h)));
            let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            anyhow::anyhow!("{what}\n{shown}{hint}")
        }
    }
}

pub(super) fn default_file(folder: &Path) -> Result<PathBuf> {
    DEFAULT_FILES.iter().map(|name| folder.join(name)).find(|f| f.exists()).with_context(|| {
        let place =
            if folder == Path::new("") { "here".to_owned() } else { format!("in {}", folder.display()) };
        format!("no compose file {place}; hint: name one, or make one of {}", DEFAULT_FILES.join(", "))
    })
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("cannot read standard input");
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Builds what is to be built, on the node that is asked; the others fetch it from there.
pub(super) async fn build_images(client: &Client, stack: &Stack) -> Result<()> {
    for service in &stack.services {
        let Some(wanted) = &service.build else { continue };
        let image = &service.spec.task.container.image;
        output::line(&format!("Building {image} for service {}", service.key))?;
        let args = build::of_service(image, wanted);
        build::run(client, &args).await.with_context(|| format!("cannot build service {}", service.key))?;
    }
    Ok(())
}

/// Returns a service in Docker's JSON, its references filled in. `images`: those that are pinned already, by name.
async fn service_json(
    client: &Client,
    service: &StackService,
    secrets: &content::Names,
    configs: &content::Names,
    images: &mut BTreeMap<String, String>,
) -> Result<types::ServiceSpec> {
    let mut spec = convert::service_spec_json(&service.spec);
    spec.task_template.networks = service
        .networks
        .iter()
        .map(|attachment| types::NetworkAttachmentConfig {
            target: attachment.network.clone(),
            aliases: attachment.aliases.clone(),
            ..Default::default()
        })
        .collect();
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.image = match images.get(&container.image) {
        Some(known) => known.clone(),
        None => {
            let known = if service.build.is_some() {
                // Only a plan before the first build finds none, and has said that it builds nothing.
                with_digest(client, &container.image).await.unwrap_or_else(|_| container.image.clone())
            } else {
                pinned(client, &container.image, UNPINNED).await
            };
            images.insert(container.image.clone(), known.clone());
            known
        }
    };
    let target = |file: &model::FileRef<String>| {
        Some(types::FileTarget {
            name: file.target.clone(),
            uid: file.uid.clone(),
            gid: file.gid.clone(),
            mode: file.mode,
        })
    };
    for file in &service.secrets {
        let (name, id) =
            secrets.get(&file.id).with_context(|| format!("secret {} is not defined", file.id))?;
        container.secrets.push(types::SecretReference {
            file: target(file),
            secret_id: id.clone(),
            secret_name: name.clone(),
        });
    }
    for file in &service.configs {
        let (name, id) =
            configs.get(&file.id).with_context(|| format!("config {} is not defined", file.id))?;
        container.configs.push(types::ConfigReference {
            file: target(file),
            runtime: None,
            config_id: id.clone(),
            config_name: name.clone(),
        });
    }
    Ok(spec)
}
