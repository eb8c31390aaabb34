//! Waiting for containers to be as others need them, or as whoever asked for them wants to see them.

use super::project::{Member, Project};
use crate::output;
use anyhow::{Context, Result, bail};
use compose::StackService;
use docker_api::{client::Client, types};
use model::DependencyCondition;
use std::time::{Duration, Instant};

/// Time between two looks at a container that is waited for.
const PERIOD: Duration = Duration::from_millis(200);
/// How long a container may take to end at once, which says more than that it has no health check. Source: docker/compose
/// `pkg/compose/convergence.go` looks for the first time after as long.
const SETTLE: Duration = Duration::from_millis(500);
/// Waits until what a service needs is as it wants it.
pub(super) async fn wait_for_needs(
    client: &Client,
    project: &Project,
    service: &StackService,
    limit: Option<Duration>,
) -> Result<()> {
    for (need, condition) in project.needs(service) {
        let optional = service.host.as_ref().is_some_and(|h| h.optional.contains(&need));
        match wait_for(client, project, &need, condition, limit).await {
            Err(error) if optional => {
                output::warning(&format!("optional dependency {need:?} failed to start: {error:#}"));
            }
            waited => waited.context("dependency failed to start")?,
        }
    }
    Ok(())
}

/// Waits until the containers of a service started, are healthy, or ended well.
///
/// # Errors
/// They cannot come there any more, or the time is over.
pub(super) async fn wait_for(
    client: &Client,
    project: &Project,
    key: &str,
    condition: DependencyCondition,
    limit: Option<Duration>,
) -> Result<()> {
    // What did not start never ends, and says of itself what it is.
    if project.dry_run {
        return Ok(());
    }
    let start = Instant::now();
    let mut told = false;
    loop {
        let mut members = project.members(client).await?;
        members.retain(|m| m.service == key && !m.one_off);
        let mut open = Vec::new();
        for member in &members {
            let state = client.container(&member.id).await?.state;
            if !is_there(member, &state, condition, start.elapsed() >= SETTLE)? {
                open.push(member.name.clone());
            }
        }
        if open.is_empty() {
            if told {
                for member in &members {
                    output::step("Container", &member.name, reached(condition));
                }
            }
            return Ok(());
        }
        if !told {
            told = true;
            open.iter().for_each(|name| output::step("Container", name, "Waiting"));
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            bail!(
                "application not healthy after {}s: service {key} is not {}",
                limit.unwrap_or_default().as_secs(),
                reached(condition).to_lowercase(),
            );
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn reached(condition: DependencyCondition) -> &'static str {
    match condition {
        DependencyCondition::Started => "Started",
        DependencyCondition::Healthy => "Healthy",
        DependencyCondition::CompletedSuccessfully => "Exited",
    }
}

/// Is a container as it is waited for? `settled`: it had the time to end, if it was to end at once.
fn is_there(
    member: &Member,
    state: &types::ContainerState,
    condition: DependencyCondition,
    settled: bool,
) -> Result<bool> {
    let name = &member.name;
    let ended = state.status == "exited" && !state.restarting;
    match condition {
        DependencyCondition::Started => Ok(true),
        DependencyCondition::CompletedSuccessfully if ended && state.exit_code != 0 => {
            bail!(
                "service {:?} didn't complete successfully: container {name} ended with {}",
                member.service,
                state.exit_code
            )
        }
        DependencyCondition::CompletedSuccessfully => Ok(ended),
        DependencyCondition::Healthy => match state.health.as_ref().map(|h| h.status.as_str()) {
            _ if ended => bail!("container {name} exited ({})", state.exit_code),
            None | Some("none" | "") if !settled => Ok(false),
            None | Some("none" | "") => {
                bail!(
                    "container {name} has no healthcheck configured, and another service waits until it is healthy"
                )
            }
            Some("unhealthy") => bail!("container {name} is unhealthy"),
            Some(status) => Ok(status == "healthy"),
        },
    }
}

/// Waits until a service runs, and is healthy where it can say so.
///
/// # Errors
/// As [`wait_for`].
pub(super) async fn wait_until_up(
    client: &Client,
    project: &Project,
    service: &str,
    limit: Option<Duration>,
) -> Result<()> {
    let members = project.of_services(client, &[service.to_owned()]).await?;
    let Some(member) = members.first() else { return Ok(()) };
    let state = client.container(&member.id).await?.state;
    let condition = match state.health {
        Some(health) if !matches!(health.status.as_str(), "" | "none") => DependencyCondition::Healthy,
        _ if state.status == "exited" => DependencyCondition::CompletedSuccessfully,
        _ => DependencyCondition::Started,
    };
    wait_for(client, project, service, condition, limit).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_at_once_is_told_to_have_ended_and_not_to_lack_a_health_check() {
        let member = Member {
            id: "1".to_owned(),
            name: "db-1".to_owned(),
            service: "db".to_owned(),
            number: 1,
            one_off: false,
            hash: String::new(),
            image_id: String::new(),
            state: "running".to_owned(),
            summary: types::ContainerSummary::default(),
        };
        let state = |status: &str| types::ContainerState {
            status: status.to_owned(),
            exit_code: 1,
            ..types::ContainerState::default()
        };
        let said = |status: &str, settled: bool| {
            let there = is_there(&member, &state(status), DependencyCondition::Healthy, settled);
            there.map_err(|error| error.to_string())
        };
        assert_eq!(said("running", false), Ok(false));
        assert_eq!(said("exited", false), Err("container db-1 exited (1)".to_owned()));
        assert!(said("running", true).is_err_and(|error| error.contains("no healthcheck configured")));
    }
}
