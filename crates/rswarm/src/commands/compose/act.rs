//! What is done to containers that are there, and containers of `run`.

use super::{
    bake, body, config, images,
    project::{Member, Orphans, Project, label},
    provide,
    up::{self, Options},
    wait,
};
use crate::{
    cli::{
        AttachArgs, CommitArgs, ComposeAttach, ComposeBuild, ComposeCommit, ComposeCp, ComposeExec,
        ComposeExport, ComposeKill, ComposePull, ComposePush, ComposeRestart, ComposeRm, ComposeRun,
        ComposeScale, ComposeStart, CpArgs, ExecArgs, ExportArgs, KeepFlags, LeaveFlags, ProjectArgs,
        PullPolicy, PushArgs, Services,
    },
    commands::{build, container, copy, create, image, pairs},
    output,
};
use anyhow::{Context, Result, bail};
use compose::{Provider, StackService};
use docker_api::{
    client::Client,
    types::{self, StrSlice},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    process::ExitCode,
};

pub(super) async fn exec(client: &Client, container: String, args: ComposeExec) -> Result<ExitCode> {
    let interactive = !args.detach && args.interactive != Some(false);
    let wanted = !args.no_tty && args.tty != Some(false) && !args.detach;
    let tty = wanted && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let args = ExecArgs {
        detach: args.detach,
        interactive,
        tty,
        leave: LeaveFlags::default(),
        privileged: args.privileged,
        env: args.env,
        env_file: Vec::new(),
        user: args.user,
        workdir: args.workdir,
        container,
        command: args.command,
    };
    container::exec(client, args).await
}

/// `SERVICE:PATH` is a path in that service's container: what is copied into it goes into all it has.
pub(super) async fn cp(client: &Client, project: &Project, args: ComposeCp) -> Result<()> {
    let CpArgs { source, destination, .. } = &args.paths;
    if let Some((service, path)) = copy::container_path(source) {
        let member = project.one(client, service, args.index, true).await?;
        let source = format!("{}:{path}", member.id);
        if project.dry_run && destination != "-" {
            client
                .archive_stat(&member.id, path)
                .await?
                .with_context(|| format!("could not find the file {path} in container {}", member.name))?;
            output::step("Container", &member.name, &format!("Would be copied to {destination}"));
            return Ok(());
        }
        return copy::cp(client, &CpArgs { source, ..args.paths.clone() }).await;
    }
    let Some((service, path)) = copy::container_path(destination) else {
        // Neither end is a container, which it says.
        return copy::cp(client, &args.paths).await;
    };
    let members = match args.index {
        Some(index) => vec![project.one(client, service, Some(index), true).await?],
        None => {
            let mut members = project.members(client).await?;
            project.check_names(&members, std::slice::from_ref(&service.to_owned()))?;
            members.retain(|m| m.service == service && (args.all || !m.one_off));
            members
        }
    };
    if members.is_empty() {
        bail!("no container found for service {service:?}");
    }
    if source == "-" && members.len() > 1 {
        bail!("standard input can be read once, and service {service:?} has more containers; hint: --index");
    }
    for member in members {
        if project.dry_run {
            output::step("Container", &member.name, &format!("Would get a copy of {source}"));
        }
        let destination = format!("{}:{path}", member.id);
        copy::cp(client, &CpArgs { destination, ..args.paths.clone() }).await?;
    }
    Ok(())
}

pub(super) async fn attach(client: &Client, project: &Project, args: ComposeAttach) -> Result<ExitCode> {
    let container = project.one(client, &args.service, args.index, false).await?.id;
    let ComposeAttach { no_stdin, signals, leave, .. } = args;
    container::attach(client, &AttachArgs { signals, no_stdin, leave, container }).await
}

pub(super) async fn commit(client: &Client, project: &Project, args: ComposeCommit) -> Result<()> {
    let member = project.one(client, &args.service, args.index, true).await?;
    if project.dry_run {
        let name = args.reference.as_deref().unwrap_or("an image without a name");
        output::step("Container", &member.name, &format!("Would be committed to {name}"));
        return Ok(());
    }
    let container = member.id;
    let args = CommitArgs {
        author: args.author,
        message: args.message,
        change: args.change,
        pause: true,
        no_pause: args.pause == Some(false),
        container,
        reference: args.reference,
    };
    image::commit(client, &args).await
}

pub(super) async fn export(client: &Client, project: &Project, args: ComposeExport) -> Result<()> {
    let member = project.one(client, &args.service, args.index, true).await?;
    if let (true, Some(file)) = (project.dry_run, &args.output) {
        output::step("Container", &member.name, &format!("Would be exported to {}", file.display()));
        return Ok(());
    }
    let container = member.id;
    image::export(client, &ExportArgs { output: args.output, container }).await
}

/// Changes how many containers services have; what they need is brought to what the file says.
pub(super) async fn scale(client: &Client, project: &Project, args: &ComposeScale) -> Result<()> {
    let names = args.scale.iter().map(|flag| flag.split('=').next().unwrap_or_default().to_owned());
    let services = project.select(&names.collect::<Vec<_>>(), !args.no_deps)?;
    let keep = KeepFlags { scale: args.scale.clone(), ..KeepFlags::default() };
    let options = Options { keep: Some(&keep), start: true, no_deps: args.no_deps, ..Options::default() };
    up::converge(client, project, &services, &options).await.map(drop)
}

/// Pushes the images that are built here under a name of the file.
pub(super) async fn push(client: &Client, project: &Project, args: &ComposePush) -> Result<()> {
    let mut failed = Vec::new();
    for service in project.select(&args.services, args.include_deps)? {
        let image = service.spec.task.container.image.clone();
        if service.build.is_none() || project.names_image(service) {
            continue;
        }
        output::step("Image", &image, "Pushing");
        match image::push(client, &PushArgs { image: image.clone(), quiet: args.quiet }).await {
            Ok(()) => output::step("Image", &image, "Pushed"),
            Err(error) => failed.push(format!("{image}: {error:#}")),
        }
    }
    if failed.is_empty() || args.ignore_push_failures {
        failed.iter().for_each(|text| output::warning(text));
        return Ok(());
    }
    bail!("{}", failed.join("\n"))
}

/// Runs a command in a container of its own.
pub(super) async fn run(client: &Client, project: &Project, args: &ComposeRun) -> Result<ExitCode> {
    if args.quiet {
        output::tell(output::Telling::Nothing);
    }
    let keep = KeepFlags { no_recreate: true, ..KeepFlags::default() };
    let options = Options { make: Some(&args.make), keep: Some(&keep), start: true, ..Options::default() };
    let with_needed = project.select(std::slice::from_ref(&args.service), true)?;
    let (service, needed) = with_needed.split_last().context("a service")?;
    if let Some(provider) = provide::of(service) {
        bail!("service {}: provider {:?} makes no container to run a command in", service.key, provider.kind);
    }
    let needed = if args.no_deps { &[] } else { needed };
    up::converge(client, project, needed, &options).await?;
    provide::models(client, project, &[*service], args.make.quiet_pull).await?;
    images::provide_image(client, project, service, options.make).await?;
    up::surroundings(client, project, service).await?;
    if !args.no_deps {
        wait::wait_for_needs(client, project, service, None).await?;
    }
    // Also those that were there before, which --no-deps leaves alone.
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for member in project.members(client).await?.into_iter().filter(|m| !m.one_off) {
        first.entry(member.service).or_insert(member.id);
    }
    let mut recipe = body::recipe(project, service, &first)?;
    if !args.use_aliases {
        recipe.more_networks.iter_mut().for_each(|(_, endpoint)| make_anonymous(endpoint));
    }
    let tty =
        !args.no_tty && !args.detach && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    customize(&mut recipe.body, project, args, tty)?;
    let (suffix, between) = (super::random_suffix()?, project.separator);
    let named = || format!("{}{between}{}{between}run{between}{suffix}", project.name, service.key);
    let name = args.name.clone().unwrap_or_else(named);
    recipe.body.config.labels.insert(label::SLUG.to_owned(), suffix.clone());
    let id = up::make(client, &recipe, &name, 1, &[]).await?;
    if project.dry_run {
        output::step("Container", &name, "Would be run");
    }
    if project.dry_run && !args.detach {
        bail!("interactive run is not supported in dry-run mode; hint: --detach");
    }
    if args.detach {
        client.container_act(&id, "start", &[]).await?;
        output::line(&name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let how = container::Attached {
        tty,
        stdin: args.interactive != Some(false),
        stdout: true,
        stderr: true,
        removed: args.rm,
        // Source: docker/compose `pkg/compose/run.go`, `ForwardAllSignals`.
        signals: true,
        leave: LeaveFlags::default(),
    };
    container::attached(client, &id, how).await
}

/// Makes of a service's container one for a command.
fn customize(
    body: &mut types::ContainerCreate,
    project: &Project,
    args: &ComposeRun,
    tty: bool,
) -> Result<()> {
    let config = &mut body.config;
    config.tty = tty;
    // Also where nobody writes to it: what reads it does not end at once. Source: docker/compose `pkg/compose/run.go`.
    let interactive = args.interactive != Some(false);
    config.open_stdin = interactive;
    config.stdin_once = !args.detach && interactive;
    config.attach_stdin = !args.detach && interactive;
    config.attach_stdout = !args.detach;
    config.attach_stderr = !args.detach;
    config.labels.insert(label::ONE_OFF.to_owned(), "True".to_owned());
    config.labels.extend(pairs(&args.label));
    let own = |name: &str| project.env.get(name).map(|value| format!("{name}={value}"));
    let asked = args.env.iter().filter_map(|entry| match entry.contains('=') {
        true => Some(entry.clone()),
        false => own(entry),
    });
    for entry in create::environment(&args.env_from_file, &[])?.into_iter().chain(asked) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        config.env.retain(|known| known.split('=').next() != Some(name.as_str()));
        config.env.push(entry);
    }
    if !args.command.is_empty() {
        config.cmd = Some(StrSlice(args.command.clone()));
    }
    if let Some(entrypoint) = &args.entrypoint {
        config.entrypoint = Some(StrSlice(entrypoint.split_whitespace().map(str::to_owned).collect()));
        config.cmd = Some(StrSlice(args.command.clone()));
    }
    if let Some(user) = &args.user {
        config.user.clone_from(user);
    }
    if let Some(folder) = &args.workdir {
        config.working_dir.clone_from(folder);
    }
    let host = body.host_config.get_or_insert_default();
    host.auto_remove = args.rm;
    host.restart_policy = types::RestartPolicy { name: "no".to_owned(), maximum_retry_count: 0 };
    if !args.service_ports {
        host.port_bindings.clear();
        body.config.exposed_ports.clear();
    }
    let (exposed, bindings) = create::published_ports(&args.publish)?;
    body.config.exposed_ports.extend(exposed);
    host.port_bindings.extend(bindings);
    let (binds, anonymous) = create::volumes(&args.volume);
    // What is mounted by hand takes the place of what the file mounts there.
    let target = |bind: &String| bind.split(':').nth(1).map(str::to_owned);
    let taken: BTreeSet<String> = binds.iter().filter_map(target).collect();
    host.mounts.retain(|m| !taken.contains(&m.target));
    host.binds = (!binds.is_empty()).then_some(binds);
    body.config.volumes = (!anonymous.is_empty()).then_some(anonymous);
    let caps = |known: &mut Option<StrSlice>, more: &[String]| {
        if !more.is_empty() {
            known.get_or_insert_with(|| StrSlice(Vec::new())).0.extend(create::capabilities(more));
        }
    };
    caps(&mut host.cap_add, &args.cap_add);
    caps(&mut host.cap_drop, &args.cap_drop);
    if !args.use_aliases {
        let endpoints = body.networking_config.iter_mut().flat_map(|n| n.endpoints_config.values_mut());
        endpoints.flatten().for_each(make_anonymous);
    }
    Ok(())
}

/// Nobody is to find a container of `run` when looking for the service; its address may be taken as well.
fn make_anonymous(endpoint: &mut types::EndpointSettings) {
    endpoint.aliases = None;
    endpoint.ipam_config = None;
    endpoint.mac_address = String::new();
}

pub(super) async fn build(
    client: &Client,
    of: &ProjectArgs,
    project: &Project,
    args: &ComposeBuild,
) -> Result<()> {
    for (flag, value) in [("--provenance", &args.provenance), ("--sbom", &args.sbom)] {
        if let Some(value) = value.as_deref().filter(|value| !matches!(*value, "false" | "0")) {
            bail!("{flag}={value}: builds make no attestations here; hint: leave it out, or {flag}=false");
        }
    }
    if args.ssh.is_some() {
        bail!(
            "--ssh: builds of ours have no SSH agent; hint: `docker build --ssh` has, and this daemon answers it"
        );
    }
    if let Some(builder) = args.builder.as_deref().filter(|name| !matches!(*name, "default" | "")) {
        bail!("--builder={builder}: this daemon builds; hint: --builder=default, or `docker buildx build`");
    }
    if args.print {
        let services = project.select(&args.services, args.with_dependencies)?;
        let built: Vec<_> = services.into_iter().filter(|service| service.build.is_some()).collect();
        return output::line(&bake::print(project, &config::shown(of)?, &built, args)?);
    }
    let mut built = false;
    for service in project.select(&args.services, args.with_dependencies)? {
        let Some(wanted) = &service.build else { continue };
        built = true;
        if args.check {
            let image = &service.spec.task.container.image;
            let checked = build::check(&build::of_service(image, wanted));
            checked.with_context(|| format!("service {}", service.key))?;
            output::step("Image", image, "Checked");
            continue;
        }
        images::build_image(client, project, service, wanted, args).await?;
        if args.push && !project.names_image(service) {
            let image = service.spec.task.container.image.clone();
            image::push(client, &PushArgs { image, quiet: args.quiet }).await?;
        }
    }
    if !built {
        output::warning("no service to build");
    }
    Ok(())
}

pub(super) async fn pull(client: &Client, project: &Project, args: &ComposePull) -> Result<()> {
    if !matches!(args.policy, None | Some(PullPolicy::Always | PullPolicy::Missing)) {
        bail!("--policy is always or missing: this command is there to pull");
    }
    let mut seen = BTreeSet::new();
    let (mut failed, mut to_build) = (Vec::new(), Vec::new());
    for service in project.select(&args.services, args.include_deps)? {
        let image = &service.spec.task.container.image;
        if provide::of(service).is_some()
            || !seen.insert(image)
            || (service.build.is_some() && args.ignore_buildable)
        {
            continue;
        }
        let there = client.image(image).await.is_ok();
        if args.policy == Some(PullPolicy::Missing) && there {
            continue;
        }
        match images::pull(client, project, service, args.quiet).await {
            Ok(()) => {}
            // It is ours, and no registry need know it.
            Err(_) if service.build.is_some() => to_build.push(service.key.as_str()),
            Err(error) => failed.push(format!("{image}: {error:#}")),
        }
    }
    if !to_build.is_empty() {
        output::warning(&format!(
            "Some service image(s) must be built from source by running:\n    rswarm compose build {}",
            to_build.join(" ")
        ));
    }
    if failed.is_empty() || args.ignore_pull_failures {
        failed.iter().for_each(|text| output::warning(text));
        return Ok(());
    }
    bail!("{}", failed.join("\n"))
}

/// Returns what the file says of a container's service, if it says anything.
fn service_of<'a>(project: &'a Project, member: &Member) -> Option<&'a StackService> {
    project.stack().ok()?.services.iter().find(|s| s.key == member.service)
}

/// A step on the way down.
pub(super) enum Step<'a> {
    /// At once: nothing of these is needed by another one of them.
    Containers(Vec<&'a Member>),
    /// What a program provides.
    Provided(&'a StackService, &'a Provider),
}

/// Returns containers and what programs provide of some services (all if none is named), what others need last.
pub(super) fn way_down<'a>(
    project: &'a Project,
    members: &'a [Member],
    services: &[String],
) -> Vec<Step<'a>> {
    // In the order of their needs: what goes first stands last.
    let ordered = project.select(&[], true).unwrap_or_default();
    let named = |service: &&StackService| services.is_empty() || services.contains(&service.key);
    let mut provided: Vec<(&StackService, &Provider)> = ordered
        .into_iter()
        .filter(named)
        .filter_map(|service| provide::of(service).map(|provider| (service, provider)))
        .collect();
    let mut steps = Vec::new();
    for group in by_needs(project, members).into_iter().rev() {
        // Before what it needs itself goes. Those that need it are gone by then: they need that too.
        let (now, later) = provided.into_iter().partition(|(service, _)| {
            let needs = project.all_needs(service);
            needs.iter().any(|(need, _)| group.iter().any(|member| member.service == *need))
        });
        provided = later;
        let now: Vec<_> = now;
        steps.extend(now.into_iter().rev().map(|(service, provider)| Step::Provided(service, provider)));
        steps.push(Step::Containers(group));
    }
    steps.extend(provided.into_iter().rev().map(|(service, provider)| Step::Provided(service, provider)));
    steps
}

/// Stops containers, those that others need last.
pub(super) async fn stop(
    client: &Client,
    project: &Project,
    services: &[String],
    timeout: Option<u32>,
) -> Result<()> {
    let members = project.of_services(client, services).await?;
    for step in way_down(project, &members, services) {
        match step {
            Step::Containers(group) => {
                let stopped = group.into_iter().map(|m| up::stop(client, service_of(project, m), m, timeout));
                project.together(stopped).await?;
            }
            Step::Provided(service, provider) => {
                provide::run(client, project, service, provider, provide::Event::Stop).await?;
            }
        }
    }
    Ok(())
}

/// Returns containers service by service, what others need first.
pub(super) fn by_needs<'a>(project: &Project, members: &'a [Member]) -> Vec<Vec<&'a Member>> {
    let mut groups: Vec<Vec<&Member>> = Vec::new();
    let mut left: Vec<&Member> = members.iter().collect();
    while !left.is_empty() {
        let waits = |member: &&Member| {
            let needs = project.needs_of(member);
            left.iter().any(|other| {
                other.service != member.service && needs.iter().any(|n| n.service == other.service)
            })
        };
        let (mut next, mut later): (Vec<_>, Vec<_>) = left.iter().copied().partition(|member| !waits(member));
        // Labels of several files may go round in a circle.
        if next.is_empty() {
            std::mem::swap(&mut next, &mut later);
        }
        groups.push(next);
        left = later;
    }
    groups
}

/// Starts services that have containers, and what they need.
pub(super) async fn start(client: &Client, project: &Project, args: &ComposeStart) -> Result<()> {
    let mut members = project.members(client).await?;
    project.check_names(&members, &args.services)?;
    members.retain(|m| !m.one_off && !project.is_orphan(m));
    if !args.services.is_empty() {
        let wanted = project.with_needed(&members, &args.services);
        members.retain(|m| wanted.contains(&m.service));
    }
    for name in &args.services {
        if !members.iter().any(|m| m.service == *name) {
            bail!("service {name:?} has no container to start; hint: `rswarm compose up {name}`");
        }
    }
    if members.is_empty() {
        bail!("there are no containers to start; hint: `rswarm compose up`");
    }
    for group in by_needs(project, &members) {
        project.together(group.into_iter().map(|member| start_one(client, project, member))).await?;
    }
    if args.wait {
        let names: BTreeSet<String> = members.into_iter().map(|member| member.service).collect();
        let limit = super::seconds(args.wait_timeout);
        for name in names {
            wait::wait_until_up(client, project, &name, limit).await?;
        }
    }
    Ok(())
}

async fn start_one(client: &Client, project: &Project, member: &Member) -> Result<()> {
    match service_of(project, member) {
        Some(service) => {
            wait::wait_for_needs(client, project, service, None).await?;
            up::start(client, service, &member.id).await
        }
        None => {
            for need in project.needs_of(member) {
                wait::wait_for(client, project, &need.service, need.condition, None).await?;
            }
            client.container_act(&member.id, "start", &[]).await.or_else(|e| match e.status() {
                Some(status) if status.as_u16() == 304 => Ok(()),
                _ => Err(e),
            })?;
            output::step("Container", &member.name, "Started");
            Ok(())
        }
    }
}

pub(super) async fn restart(client: &Client, project: &Project, args: &ComposeRestart) -> Result<()> {
    let mut services = args.services.clone();
    if !services.is_empty() && !args.no_deps {
        // Those that restart with one of them, and so on.
        let members = project.of_services(client, &[]).await?;
        loop {
            let with = |m: &&Member| {
                !services.contains(&m.service)
                    && project
                        .needs_of(m)
                        .iter()
                        .any(|need| need.restarts && services.contains(&need.service))
            };
            let Some(next) = members.iter().find(with) else { break };
            services.push(next.service.clone());
        }
    }
    let members = project.of_services(client, &services).await?;
    let groups = by_needs(project, &members);
    for group in groups.iter().rev() {
        let stopped = group.iter().map(|member| {
            output::step("Container", &member.name, "Restarting");
            up::stop(client, service_of(project, member), member, args.timeout)
        });
        project.together(stopped).await?;
    }
    for group in groups {
        project.together(group.into_iter().map(|member| start_one(client, project, member))).await?;
    }
    Ok(())
}

/// Kills containers; strangers too if they are to go. Source: docker/compose `pkg/compose/kill.go`.
pub(super) async fn kill(client: &Client, project: &Project, args: &ComposeKill) -> Result<()> {
    kill_all(client, project, &args.services, &args.signal).await?;
    if args.services.is_empty() && (args.remove_orphans || project.orphans == Orphans::Removed) {
        let members = project.members(client).await?;
        for member in members.iter().filter(|m| project.is_stranger(m) && m.is_running()) {
            client.container_act(&member.id, "kill", &[("signal", &args.signal)]).await?;
            output::step("Container", &member.name, "Killed");
        }
    }
    Ok(())
}

pub(super) async fn kill_all(
    client: &Client,
    project: &Project,
    services: &[String],
    signal: &str,
) -> Result<()> {
    let members = project.of_services(client, services).await?;
    for member in members.iter().filter(|m| m.is_running()) {
        client.container_act(&member.id, "kill", &[("signal", signal)]).await?;
        output::step("Container", &member.name, "Killed");
    }
    Ok(())
}

pub(super) async fn rm(client: &Client, project: &Project, args: &ComposeRm) -> Result<ExitCode> {
    if args.stop {
        stop(client, project, &args.services, None).await?;
    }
    let mut members = project.of_services(client, &args.services).await?;
    members.retain(|m| !m.is_running());
    if members.is_empty() {
        output::progress("No stopped containers");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force && std::io::stdin().is_terminal() {
        let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
        output::prompt(&format!("Going to remove {}. Are you sure? [yN] ", names.join(", ")))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(ExitCode::FAILURE);
        }
    }
    for member in &members {
        up::remove(client, None, member, None, args.volumes).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does one thing to every container that runs.
pub(super) async fn each(client: &Client, project: &Project, args: &Services, action: &str) -> Result<()> {
    for member in project.of_services(client, &args.services).await?.iter().filter(|m| m.is_running()) {
        client.container_act(&member.id, action, &[]).await?;
        output::step("Container", &member.name, &format!("{action}d"));
    }
    Ok(())
}
