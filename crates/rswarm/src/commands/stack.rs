//! `rswarm stack ...`

use super::{
    deploy,
    service::{CONVERGE_LIMIT, STACK_LABEL, print_services, print_tasks},
};
use crate::{
    cli::{DeployArgs, Stack, StackConfig},
    list::{self, List},
    output,
};
use anyhow::{Result, bail};
use docker_api::client::Client;
use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Prints what `docker stack config` prints; where Docker's CLI refuses what `rswarm deploy` takes, the stack that this
/// would deploy. No daemon is asked.
///
/// # Errors
/// `rswarm deploy` would refuse the files too; with `--docker`, Docker's CLI would.
pub(crate) fn config(args: &StackConfig) -> Result<()> {
    let sources = deploy::sources(&args.compose_file, None)?;
    let yaml = match compose::docker::config(&sources, &compose::Disk, !args.skip_interpolation) {
        Ok(yaml) => yaml,
        Err(error) if args.docker => return Err(deploy::with_line(error, &sources)),
        Err(refused) => {
            let ours = deploy::shown(&sources, !args.skip_interpolation)?;
            output::warning(&format!(
                "shown as `rswarm deploy` reads it: `docker stack deploy` would refuse it ({refused}); hint: --docker says \
                 where"
            ));
            ours
        }
    };
    output::line(yaml.trim_end())
}

/// Digits of a commit that a table shows.
const COMMIT_SHOWN: usize = 9;

pub(crate) async fn run(client: &Client, command: Stack) -> Result<ExitCode> {
    let of = |stack: &str| serde_json::json!({"label": {format!("{STACK_LABEL}={stack}"): true}}).to_string();
    match command {
        Stack::Deploy { compose_file, detach, prune, quiet, with_registry_auth, stack } => {
            if quiet {
                output::tell(output::Telling::Nothing);
            }
            let args = DeployArgs {
                name: Some(stack),
                detach,
                prune,
                with_registry_auth,
                ..DeployArgs::unattended(compose_file, CONVERGE_LIMIT)
            };
            return deploy::run(client, &args).await;
        }
        Stack::Config(args) => config(&args)?,
        Stack::History { stack, list: args } => {
            let found = client.stack(&stack).await?;
            let mut table = List::new(&[
                ("REVISION", "Revision"),
                ("DEPLOYED", "Deployed"),
                ("AUTHOR", "Author"),
                ("SERVICES", "Services"),
                ("STATUS", "Status"),
                ("GIT", "Git"),
                ("NOTE", "Note"),
            ]);
            let now = list::now();
            for revision in found.revisions.iter().rev() {
                let ago = format!("{} ago", list::human(now.since(revision.at.timestamp())));
                let note = match revision.restores {
                    0 => revision.message.clone(),
                    number => format!("puts {number} back"),
                };
                let services = revision.services.len().to_string();
                let status = match revision.came_up {
                    Some(true) => "came up",
                    Some(false) => "failed",
                    None => "",
                };
                let (number, author) = (revision.number.to_string(), revision.author.clone());
                let git = revision.git.chars().take(COMMIT_SHOWN).collect();
                // For programs: moments, and what people see shortened or put into words.
                let whole = serde_json::json!({
                    "DeployedAt": revision.at, "Message": revision.message, "Git": revision.git,
                    "Restores": revision.restores, "CameUp": revision.came_up,
                });
                table.row_with(vec![number, ago, author, services, status.to_owned(), git, note], whole);
            }
            table.print(&args)?;
        }
        Stack::Diff { stack, from, to, format } => {
            deploy::compare::run(client, &stack, from, to, format).await?;
        }
        Stack::Rollback { stack, revision, detach, timeout } => {
            let limit = (!detach).then_some(timeout);
            return deploy::rollback(client, &stack, revision.unwrap_or(0), limit).await;
        }
        Stack::Ls(args) => {
            let mut stacks: BTreeMap<String, usize> = BTreeMap::new();
            for service in client.services(&[]).await? {
                if let Some(stack) = service.spec.labels.get(STACK_LABEL) {
                    *stacks.entry(stack.clone()).or_default() += 1;
                }
            }
            let mut table = List::new(&[("NAME", "Name"), ("SERVICES", "Services")]);
            for (name, services) in stacks {
                table.row(vec![name, services.to_string()]);
            }
            table.sort_by("Name");
            table.print(&args)?;
        }
        Stack::Ps { stack, list: args, shown } => {
            let services = client.services(&[("filters", &of(&stack))]).await?;
            if services.is_empty() {
                bail!("nothing found in stack: {stack}");
            }
            let ids = services.into_iter().map(|s| (s.id, true.into())).collect();
            let filters = list::with_filter(&list::filters(&args.filter)?, "service", ids)?;
            print_tasks(client, &filters, &args, shown).await?;
        }
        Stack::Services { stack, list: args } => print_services(client, &of(&stack), &args).await?,
        Stack::Rm { stacks, detach } => {
            for stack in &stacks {
                remove_stack(client, stack, &of(stack), detach).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells what a removal of a stack would remove.
pub(crate) async fn would_go(client: &Client, stack: &str) -> Result<()> {
    let filters = serde_json::json!({"label": {format!("{STACK_LABEL}={stack}"): true}}).to_string();
    let query: docker_api::client::Query<'_> = &[("filters", &filters)];
    let mut all: Vec<(&str, String)> = Vec::new();
    all.extend(client.services(query).await?.into_iter().map(|service| ("Service", service.spec.name)));
    all.extend(client.secrets(query).await?.into_iter().map(|secret| ("Secret", secret.spec.name)));
    all.extend(client.configs(query).await?.into_iter().map(|config| ("Config", config.spec.name)));
    all.extend(client.networks(query).await?.into_iter().map(|network| ("Network", network.name)));
    if all.is_empty() {
        return output::line(&format!("Nothing found in stack: {stack}"));
    }
    all.iter().for_each(|(kind, name)| output::step(kind, name, "Removed"));
    Ok(())
}

async fn remove_stack(client: &Client, stack: &str, filters: &str, detach: bool) -> Result<()> {
    let query: docker_api::client::Query<'_> = &[("filters", filters)];
    let services = client.services(query).await?;
    let secrets = client.secrets(query).await?;
    let configs = client.configs(query).await?;
    let networks = client.networks(query).await?;
    if services.is_empty() && secrets.is_empty() && configs.is_empty() && networks.is_empty() {
        return output::line(&format!("Nothing found in stack: {stack}"));
    }
    for service in &services {
        output::line(&format!("Removing service {}", service.spec.name))?;
        client.service_remove(&service.id).await?;
    }
    for secret in &secrets {
        output::line(&format!("Removing secret {}", secret.spec.name))?;
        client.secret_remove(&secret.id).await?;
    }
    for config in &configs {
        output::line(&format!("Removing config {}", config.spec.name))?;
        client.config_remove(&config.id).await?;
    }
    for network in &networks {
        output::line(&format!("Removing network {}", network.name))?;
        client.network_remove(&network.id).await?;
    }
    client.stack_remove(stack).await.or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) })?;
    if detach {
        return Ok(());
    }
    let deadline = Instant::now() + CONVERGE_LIMIT;
    loop {
        let services = client.services(query).await?.len();
        let networks = client.networks(query).await?.len();
        // The name is free again when the stack itself is gone.
        if services + networks == 0 && matches!(client.stack(stack).await, Err(e) if e.is_not_found()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "stack {stack} is not gone within {CONVERGE_LIMIT:?}: {services} services and {networks} networks left"
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
