//! The images of a project's services: there, pulled or built, as file and flags say.

use super::project::{Project, label};
use crate::{
    cli::{MakeFlags, PullArgs, PullPolicy},
    commands::{build, image},
    output,
};
use anyhow::{Context, Result, bail};
use compose::{Pull, StackService};
use docker_api::client::Client;

async fn has_image(client: &Client, name: &str) -> Result<bool> {
    match client.image(name).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Builds or pulls the image of a service, where that is needed or asked for.
pub(super) async fn provide_image(
    client: &Client,
    project: &Project,
    service: &StackService,
    make: Option<&MakeFlags>,
) -> Result<()> {
    let image = &service.spec.task.container.image;
    let asked = make.and_then(|make| make.pull);
    let in_file = service.host.as_ref().map(|h| h.pull).unwrap_or_default();
    let policy = match asked {
        None => in_file,
        Some(PullPolicy::Always) => Pull::Always,
        Some(PullPolicy::Missing) => Pull::Missing,
        Some(PullPolicy::Never) => Pull::Never,
        Some(PullPolicy::Build) => Pull::Build,
    };
    let there = has_image(client, image).await?;
    let quiet = make.is_some_and(|make| make.quiet_pull);
    if let Some(wanted) = &service.build {
        let build = make.is_some_and(|make| make.build) || policy == Pull::Build || !there;
        if build && make.is_some_and(|make| make.no_build) {
            if there {
                return Ok(());
            }
            bail!("service {}: image {image} is not there, and --no-build forbids to build it", service.key);
        }
        if build {
            let quiet = make.is_some_and(|make| make.quiet_build);
            let flags = crate::cli::ComposeBuild { quiet, ..Default::default() };
            return build_image(client, project, service, wanted, &flags).await;
        }
        return Ok(());
    }
    match policy {
        Pull::Always => pull(client, project, service, quiet).await,
        Pull::Missing | Pull::Build if !there => pull(client, project, service, quiet).await,
        Pull::Never if !there => {
            bail!("service {}: image {image} is not there, and its pull policy is \"never\"", service.key)
        }
        _ => Ok(()),
    }
}

pub(super) async fn pull(
    client: &Client,
    project: &Project,
    service: &StackService,
    quiet: bool,
) -> Result<()> {
    let image = service.spec.task.container.image.clone();
    output::step("Image", &image, "Pulling");
    let args = PullArgs { image, quiet: quiet || output::is_silent(), platform: None };
    image::pull_for(client, &args, &platform(project, service)).await?;
    output::step("Image", &args.image, "Pulled");
    Ok(())
}

/// Returns `os/architecture` of a service's image, else what DOCKER_DEFAULT_PLATFORM says; empty if any will do.
pub(super) fn platform(project: &Project, service: &StackService) -> String {
    let platform = service.spec.task.placement.platforms.first();
    let own = platform.map(|p| format!("{}/{}", p.os, p.architecture));
    own.or_else(|| project.env.get("DOCKER_DEFAULT_PLATFORM").cloned()).unwrap_or_default()
}

/// Builds the image of a service.
pub(super) async fn build_image(
    client: &Client,
    project: &Project,
    service: &StackService,
    wanted: &compose::StackBuild,
    flags: &crate::cli::ComposeBuild,
) -> Result<()> {
    let image = &service.spec.task.container.image;
    output::step("Image", image, "Building");
    let mut args = build::of_service(image, wanted);
    args.no_cache |= flags.no_cache;
    args.pull |= flags.pull;
    args.quiet |= flags.quiet || output::is_silent();
    args.limits.resources.memory.clone_from(&flags.memory);
    args.platform = Some(platform(project, service)).filter(|p| !p.is_empty());
    args.build_arg.extend(flags.build_arg.iter().cloned());
    args.label.push(format!("{}={}", label::PROJECT, project.name));
    args.label.push(format!("{}={}", label::SERVICE, service.key));
    build::run(client, &args).await.with_context(|| format!("cannot build service {}", service.key))?;
    if !args.quiet && !project.dry_run {
        // As BuildKit's plain progress says it last.
        output::line(&format!("naming to {image} done"))?;
    }
    output::step("Image", image, "Built");
    Ok(())
}
