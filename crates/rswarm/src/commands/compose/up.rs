//! `up` and `create`: images, networks, volumes, then services in the order of their needs.
//!
//! A container is replaced when its service says something else than the label with its hash, or its image is another:
//! the new one is made first, beside the old one, so that a service that cannot be made keeps what it has.

use super::{
    body::{self, Recipe},
    images,
    project::{Member, Orphans, Project, label},
    provide, wait,
};
use crate::{
    cli::{KeepFlags, MakeFlags},
    output,
};
use anyhow::{Context, Result, bail};
use axum::body::Body;
use compose::StackService;
use docker_api::{
    client::{Client, Demux, Frame},
    types::{self, StrSlice},
};
use futures::future::try_join_all;
use model::{Hook, MountKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    time::Duration,
};

/// *Unit:* bytes of a hook's output that an error shows.
const HOOK_OUTPUT_MAX: usize = 4096;

/// How services are brought up.
#[derive(Default)]
pub(super) struct Options<'a> {
    pub(super) make: Option<&'a MakeFlags>,
    pub(super) keep: Option<&'a KeepFlags>,
    pub(super) start: bool,
    /// Do not wait for services that others need.
    pub(super) no_deps: bool,
    /// *Unit:* seconds until SIGKILL.
    pub(super) timeout: Option<u32>,
    /// Longest wait for a service that another needs; `None` = as long as it takes.
    pub(super) limit: Option<Duration>,
    /// Services that are replaced though nothing changed: others need them.
    pub(super) always_needed: BTreeSet<String>,
}

/// Brings services to what the file says, those that others need first; returns which containers they have.
///
/// # Errors
/// Of the first thing that cannot be made or started.
pub(super) async fn converge(
    client: &Client,
    project: &Project,
    services: &[&StackService],
    options: &Options<'_>,
) -> Result<BTreeMap<String, Vec<Member>>> {
    let scale = scale(project, services, options)?;
    let containers: Vec<&StackService> =
        services.iter().copied().filter(|service| provide::of(service).is_none()).collect();
    orphans(client, project, options).await?;
    provide::models(client, project, &containers, options.make.is_some_and(|make| make.quiet_pull)).await?;
    for service in &containers {
        images::provide_image(client, project, service, options.make).await?;
    }
    networks(client, project, &containers, options).await?;
    let emptied = volumes(client, project, &containers, options).await?;
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for member in project.members(client).await?.into_iter().filter(|m| !m.one_off) {
        first.entry(member.service).or_insert(member.id);
    }
    let mut all = BTreeMap::new();
    let mut left: Vec<&StackService> = services.to_vec();
    while !left.is_empty() {
        // All that wait for none of the others.
        let waits = |service: &&StackService| {
            project.needs(service).iter().any(|(need, _)| left.iter().any(|other| other.key == *need))
        };
        let (next, later): (Vec<_>, Vec<_>) = left.iter().copied().partition(|service| !waits(service));
        let made = try_join_all(next.iter().map(|service| async {
            if let Some(provider) = provide::of(service) {
                if !options.no_deps {
                    wait::wait_for_needs(client, project, service, options.limit).await?;
                }
                provide::run(client, project, service, provider, provide::Event::Up).await?;
                return Ok((service.key.clone(), Vec::new()));
            }
            let wanted = scale.get(&service.key).copied().unwrap_or(1);
            let again = options.always_needed.contains(&service.key);
            let anew = again || named_volumes(service).any(|(name, ..)| emptied.contains(name));
            let members = bring(client, project, service, (wanted, anew), &first, options).await;
            members.map(|members| (service.key.clone(), members))
        }))
        .await?;
        for (key, members) in made {
            if let Some(member) = members.first() {
                first.insert(key.clone(), member.id.clone());
            }
            all.insert(key, members);
        }
        left = later;
    }
    Ok(all)
}

/// Returns how many containers each service has.
fn scale(
    project: &Project,
    services: &[&StackService],
    options: &Options<'_>,
) -> Result<BTreeMap<String, u64>> {
    let mut scale = BTreeMap::new();
    for service in services {
        let number = match service.spec.mode {
            model::Mode::Replicated { replicas } => replicas,
            model::Mode::ReplicatedJob { total, .. } => total,
            model::Mode::Global | model::Mode::GlobalJob => 1,
        };
        scale.insert(service.key.clone(), number);
    }
    for flag in options.keep.iter().flat_map(|keep| &keep.scale) {
        let read = flag.split_once('=').and_then(|(key, number)| Some((key, number.parse().ok()?)));
        let Some((key, number)) = read else { bail!("--scale {flag:?}: want SERVICE=NUMBER") };
        project.select(&[key.to_owned()], false)?;
        scale.insert(key.to_owned(), number);
    }
    for service in services {
        let host = service.host.as_ref();
        if let Some(name) = host.and_then(|h| h.container_name.as_ref())
            && scale.get(&service.key).is_some_and(|number| *number > 1)
        {
            bail!("service {}: its one container is called {name:?}, so there cannot be more", service.key);
        }
    }
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for service in services {
        let Some(name) = service.host.as_ref().and_then(|h| h.container_name.as_deref()) else { continue };
        if let Some(other) = names.insert(name, &service.key) {
            bail!("service {}: container name {name:?} is already in use by service {other}", service.key);
        }
    }
    Ok(scale)
}

/// Removes what the file no longer names, or tells of it.
async fn orphans(client: &Client, project: &Project, options: &Options<'_>) -> Result<()> {
    let members = project.members(client).await?;
    let orphans: Vec<Member> = members.into_iter().filter(|m| project.is_orphan(m)).collect();
    if orphans.is_empty() {
        return Ok(());
    }
    if project.orphans == Orphans::Removed || options.make.is_some_and(|make| make.remove_orphans) {
        for orphan in &orphans {
            remove(client, None, orphan, options.timeout, false).await?;
        }
        return Ok(());
    }
    if project.orphans == Orphans::Ignored {
        return Ok(());
    }
    let names: Vec<&str> = orphans.iter().map(|o| o.name.as_str()).collect();
    output::warning(&format!(
        "orphan containers, of services that the file does not name or left by `run`: {}; hint: --remove-orphans removes \
         them, COMPOSE_IGNORE_ORPHANS=true does not tell of them",
        names.join(", ")
    ));
    Ok(())
}

/// Makes the networks and volumes of a service, and nothing of its own.
pub(super) async fn surroundings(client: &Client, project: &Project, service: &StackService) -> Result<()> {
    let options = Options::default();
    networks(client, project, &[service], &options).await?;
    volumes(client, project, &[service], &options).await?;
    Ok(())
}

/// Makes the networks of services, anew if the file says otherwise than it did: their containers are stopped, and have an
/// address of the new one when they are started again. Source: docker/compose `pkg/compose/create.go`, `ensureNetwork`.
async fn networks(
    client: &Client,
    project: &Project,
    services: &[&StackService],
    options: &Options<'_>,
) -> Result<()> {
    let used: BTreeSet<&str> =
        services.iter().flat_map(|s| s.networks.iter().map(|n| n.network.as_str())).collect();
    let all = project.all_resources;
    for network in project.stack()?.networks.iter().filter(|n| all || used.contains(n.name.as_str())) {
        let wanted = network.host.as_ref().map(|wanted| network_of(network, wanted)).transpose()?;
        let mut moved = Vec::new();
        match (client.network(&network.name).await, &wanted) {
            (Ok(_), None) => continue,
            (Ok(found), Some(wanted)) => {
                if found.labels.get(label::PROJECT) != Some(&project.name) {
                    output::warning(&format!(
                        "network {} is there already and is not of this project; hint: `external: true` says that it is meant",
                        network.name
                    ));
                    continue;
                }
                // Docker Compose's own has another hash, or none: what it said is not known.
                let by_us = found.labels.contains_key(label::NETWORK_HASH);
                if !by_us || found.labels.get(label::NETWORK_HASH) == wanted.labels.get(label::NETWORK_HASH) {
                    continue;
                }
                if options.keep.is_some_and(|keep| keep.no_recreate) {
                    output::warning(&format!("network {} stays as it was: --no-recreate", network.name));
                    continue;
                }
                moved = retire(client, project, services, &found, options).await?;
            }
            (Err(error), _) if !error.is_not_found() => return Err(error.into()),
            (Err(_), Some(_)) => {}
            (Err(_), None) => {
                bail!(
                    "network {0} declared as external, but could not be found; hint: `rswarm network create {0}`",
                    network.name
                )
            }
        }
        let Some(wanted) = wanted else { continue };
        output::step("Network", &network.name, "Creating");
        client.network_create(&wanted).await.with_context(|| format!("network {}", network.name))?;
        output::step("Network", &network.name, "Created");
        for (service, member) in moved {
            let endpoints = body::endpoints(project, service)?;
            // What the file no longer attaches is made anew anyway.
            let Some((_, endpoint)) = endpoints.into_iter().find(|(name, _)| *name == network.name) else {
                continue;
            };
            let connect = types::NetworkConnect { container: member.id, endpoint_config: Some(endpoint) };
            let connected = client.network_connect(&network.name, &connect).await;
            connected.with_context(|| format!("container {}: network {}", member.name, network.name))?;
        }
    }
    Ok(())
}

/// Returns a network as it is asked for, with the hash of that.
fn network_of(
    network: &compose::StackNetwork,
    wanted: &compose::HostNetwork,
) -> Result<types::NetworkCreate> {
    let mut labels = wanted.labels.clone();
    labels.insert(label::NETWORK.to_owned(), network.key.clone());
    let subnets = wanted.subnets.iter().map(|subnet| types::IpamConfig {
        subnet: subnet.subnet.clone(),
        ip_range: subnet.ip_range.clone(),
        gateway: subnet.gateway.clone(),
        auxiliary_addresses: subnet.aux_addresses.clone(),
    });
    let ipam = types::Ipam {
        driver: wanted.ipam_driver.clone(),
        options: Some(wanted.ipam_options.clone()),
        config: subnets.collect(),
    };
    let mut create = types::NetworkCreate {
        name: network.name.clone(),
        driver: wanted.driver.clone(),
        enable_ipv4: wanted.ipv4,
        enable_ipv6: wanted.ipv6,
        ipam: Some(ipam).filter(|ipam| *ipam != types::Ipam::default()),
        internal: wanted.internal,
        attachable: wanted.attachable,
        options: wanted.options.clone(),
        labels,
        ..Default::default()
    };
    let hash = body::hash(&serde_json::to_vec(&create)?);
    create.labels.insert(label::NETWORK_HASH.to_owned(), hash);
    create.labels.insert(label::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Ok(create)
}

/// Takes a network away from its containers, which are stopped; returns them, with what the file says of them.
async fn retire<'a>(
    client: &Client,
    project: &Project,
    services: &[&'a StackService],
    network: &types::Network,
    options: &Options<'_>,
) -> Result<Vec<(&'a StackService, Member)>> {
    let members = project.members(client).await?;
    let service_of =
        |member: &Member| services.iter().copied().find(|s| s.key == member.service && !member.one_off);
    for (id, container) in &network.containers {
        if !members.iter().any(|m| m.id == *id && service_of(m).is_some()) {
            bail!(
                "network {} is something else in the file now, and container {}, which is not among the services to \
                 bring up, is on it; hint: `rswarm compose down`, or stop that container",
                network.name,
                container.name
            );
        }
    }
    // A container that does not run is on its networks too, and the network does not tell of it.
    let is_on = |member: &Member| member.summary.network_settings.networks.contains_key(&network.name);
    let mut moved = Vec::new();
    for member in members.iter().filter(|m| is_on(m)) {
        let service = service_of(member);
        stop(client, service, member, options.timeout).await?;
        let disconnect = types::NetworkDisconnect { container: member.id.clone(), force: true };
        let disconnected = client.network_disconnect(&network.id, &disconnect).await;
        disconnected.with_context(|| format!("container {}: network {}", member.name, network.name))?;
        moved.extend(service.map(|service| (service, member.clone())));
    }
    client.network_remove(&network.id).await.with_context(|| format!("network {}", network.name))?;
    output::step("Network", &network.name, "Removed");
    Ok(moved)
}

/// A named volume that a service mounts.
type NamedVolume<'a> = (&'a String, &'a Option<String>, &'a model::Labels, &'a model::Labels);

/// Returns the named volumes of a service: name, driver, its options, labels.
fn named_volumes(service: &StackService) -> impl Iterator<Item = NamedVolume<'_>> {
    service.spec.task.container.mounts.iter().filter_map(|mount| named_volume(&mount.kind))
}

fn named_volume(kind: &MountKind) -> Option<NamedVolume<'_>> {
    match kind {
        MountKind::Volume { name: Some(name), driver, driver_opts, labels, .. } => {
            Some((name, driver, driver_opts, labels))
        }
        _ => None,
    }
}

/// Makes the named volumes of services, anew if the file says otherwise than it did and the person agrees; returns the
/// names of those. Anonymous ones come with their containers.
async fn volumes(
    client: &Client,
    project: &Project,
    services: &[&StackService],
    options: &Options<'_>,
) -> Result<BTreeSet<String>> {
    let (mut seen, mut emptied) = (BTreeSet::new(), BTreeSet::new());
    let unused = project.stack()?.all_volumes.iter().filter_map(named_volume);
    for (name, driver, driver_opts, labels) in services.iter().flat_map(|s| named_volumes(s)).chain(unused) {
        if !seen.insert(name) {
            continue;
        }
        let mut create = types::VolumeCreate {
            name: name.clone(),
            driver: driver.clone().unwrap_or_default(),
            driver_opts: driver_opts.clone(),
            labels: labels.clone(),
        };
        let hash = body::hash(&serde_json::to_vec(&create)?);
        create.labels.insert(label::VOLUME_HASH.to_owned(), hash.clone());
        create.labels.insert(label::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        match client.volume(name).await {
            Ok(found) => {
                // Docker Compose's own has another hash, or none: what it said is not known.
                let known = found.labels.unwrap_or_default();
                let other = known.get(label::VOLUME_HASH).is_some_and(|known| *known != hash);
                if !other || known.get(label::PROJECT) != Some(&project.name) {
                    continue;
                }
                if !agrees(name, options)? {
                    output::warning(&format!(
                        "volume {name} stays as it was; hint: --yes makes it anew, and empty"
                    ));
                    continue;
                }
                for member in project.members(client).await? {
                    if member.summary.mounts.iter().any(|mount| mount.name == *name) {
                        let service = services.iter().find(|s| s.key == member.service).copied();
                        remove(client, service, &member, options.timeout, false).await?;
                    }
                }
                client.volume_remove(name, false).await.with_context(|| format!("volume {name}"))?;
                output::step("Volume", name, "Removed");
                emptied.insert(name.clone());
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        if !labels.contains_key(label::PROJECT) {
            bail!("volume {name} is external and is not there; hint: `rswarm volume create {name}`");
        }
        client.volume_create(&create).await.with_context(|| format!("volume {name}"))?;
        output::step("Volume", name, "Created");
    }
    Ok(emptied)
}

/// May a volume be emptied? Who cannot be asked has not agreed.
fn agrees(name: &str, options: &Options<'_>) -> Result<bool> {
    if options.keep.is_some_and(|keep| keep.yes) {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    output::prompt(&format!(
        "Volume {name} is something else in the file now. Make it anew, and lose its data? [yN] "
    ))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Brings one service to what it should be: so many containers, all of them `anew` if it must be.
async fn bring(
    client: &Client,
    project: &Project,
    service: &StackService,
    (wanted, anew): (u64, bool),
    first: &BTreeMap<String, String>,
    options: &Options<'_>,
) -> Result<Vec<Member>> {
    let recipe = body::recipe(project, service, first)?;
    let image = client.image(&recipe.body.config.image).await?.id;
    let mut members = project.members(client).await?;
    members.retain(|m| m.service == service.key && !m.one_off);
    let hash = recipe.body.config.labels.get(label::HASH);
    // Also one that somebody, or a change of a network that was cut short, took off its networks.
    let networks = &recipe.body.networking_config;
    let first = networks.iter().flat_map(|n| n.endpoints_config.keys());
    let attached: Vec<&String> = first.chain(recipe.more_networks.iter().map(|(name, _)| name)).collect();
    let is_off = |member: &Member| {
        let on = &member.summary.network_settings.networks;
        // An external one may be named by its id.
        attached
            .iter()
            .any(|name| !on.contains_key(*name) && !on.values().any(|endpoint| endpoint.network_id == **name))
    };
    let is_stale = |member: &Member| hash != Some(&member.hash) || member.image_id != image || is_off(member);
    // Those that are as the file says stay, those with the lowest numbers first.
    members.sort_by_key(|member| (is_stale(member), member.number));
    let keep = usize::try_from(wanted).unwrap_or(usize::MAX).min(members.len());
    for surplus in members.split_off(keep) {
        remove(client, Some(service), &surplus, options.timeout, false).await?;
    }
    let flag = |of: fn(&KeepFlags) -> bool| options.keep.is_some_and(of);
    let mut ids = Vec::new();
    for member in &members {
        let replace = anew || flag(|k| k.force_recreate) || (is_stale(member) && !flag(|k| k.no_recreate));
        if replace {
            ids.push(replaced(client, project, service, member, &recipe, options).await?);
        } else {
            ids.push(member.id.clone());
        }
    }
    let mut taken: BTreeSet<u64> = members.iter().map(|m| m.number).collect();
    while ids.len() < usize::try_from(wanted).unwrap_or(usize::MAX) {
        let number = (1..).find(|n| !taken.contains(n)).unwrap_or(1);
        taken.insert(number);
        let name = container_name(project, service, number);
        let id = make(client, &recipe, &name, number, &[]).await?;
        output::step("Container", &name, "Created");
        ids.push(id);
    }
    if options.start {
        if !options.no_deps {
            wait::wait_for_needs(client, project, service, options.limit).await?;
        }
        project.together(ids.iter().map(|id| start(client, service, id))).await?;
    }
    let mut members = project.members(client).await?;
    members.retain(|m| ids.contains(&m.id));
    Ok(members)
}

fn container_name(project: &Project, service: &StackService, number: u64) -> String {
    let own = service.host.as_ref().and_then(|h| h.container_name.clone());
    let between = project.separator;
    own.unwrap_or_else(|| format!("{}{between}{}{between}{number}", project.name, service.key))
}

/// Makes a container; `inherited`: volumes of the one it takes the place of.
pub(super) async fn make(
    client: &Client,
    recipe: &Recipe,
    name: &str,
    number: u64,
    inherited: &[types::MountPoint],
) -> Result<String> {
    let mut body = recipe.body.clone();
    body.config.labels.entry(label::ONE_OFF.to_owned()).or_insert_with(|| "False".to_owned());
    body.config.labels.insert(label::NUMBER.to_owned(), number.to_string());
    let mounts = &mut body.host_config.get_or_insert_default().mounts;
    for old in inherited {
        mounts.retain(|m| m.target != old.destination);
        mounts.push(types::Mount {
            kind: "volume".to_owned(),
            source: old.name.clone(),
            target: old.destination.clone(),
            read_only: !old.rw,
            ..Default::default()
        });
    }
    let created =
        client.container_create(Some(name), &body).await.with_context(|| format!("container {name}"))?;
    created.warnings.iter().for_each(|warning| output::warning(warning));
    let finish = async {
        for (network, endpoint) in &recipe.more_networks {
            let connect = types::NetworkConnect {
                container: created.id.clone(),
                endpoint_config: Some(endpoint.clone()),
            };
            client.network_connect(network, &connect).await.with_context(|| format!("network {network}"))?;
        }
        if !recipe.files.is_empty() {
            let tar = Body::from(body::tar_of(&recipe.files)?);
            let put = client.archive_put(&created.id, &[("path", "/")], tar).await;
            put.context("cannot write its secrets and configs")?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = finish.await {
        // Half a container is none.
        drop(client.container_remove(&created.id, &[("force", "1"), ("v", "1")]).await);
        return Err(error.context(format!("container {name}")));
    }
    Ok(created.id)
}

/// Makes a new container in the place of one.
async fn replaced(
    client: &Client,
    project: &Project,
    service: &StackService,
    old: &Member,
    recipe: &Recipe,
    options: &Options<'_>,
) -> Result<String> {
    output::step("Container", &old.name, "Recreate");
    let renew = options.keep.is_some_and(|keep| keep.renew_anon_volumes);
    let inherited = if renew { Vec::new() } else { anonymous_volumes(&old.summary.mounts, recipe) };
    let name = container_name(project, service, old.number);
    let beside = format!("{}_{name}", old.id.chars().take(12).collect::<String>());
    let id = make(client, recipe, &beside, old.number, &inherited).await?;
    // Its volumes stay, the new one has them.
    remove(client, Some(service), old, options.timeout, renew).await?;
    client.container_act(&id, "rename", &[("name", &name)]).await?;
    output::step("Container", &name, "Recreated");
    Ok(id)
}

/// Returns the volumes without a name of a container, where the new one has none of its own choice.
fn anonymous_volumes(mounts: &[types::MountPoint], recipe: &Recipe) -> Vec<types::MountPoint> {
    let new: &[types::Mount] = recipe.body.host_config.as_ref().map_or(&[], |host| &host.mounts);
    let is_anonymous = |m: &&types::MountPoint| {
        m.kind == "volume" && m.name.len() == 64 && m.name.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let is_free = |m: &&types::MountPoint| {
        !new.iter().any(|n| n.target == m.destination && (n.kind != "volume" || !n.source.is_empty()))
    };
    mounts.iter().filter(is_anonymous).filter(is_free).cloned().collect()
}

/// Starts a container that does not run, and runs its hooks.
pub(super) async fn start(client: &Client, service: &StackService, id: &str) -> Result<()> {
    let container = client.container(id).await?;
    if container.state.running && !container.state.paused {
        return Ok(());
    }
    let name = container.name.trim_start_matches('/').to_owned();
    let action = if container.state.paused { "unpause" } else { "start" };
    client.container_act(id, action, &[]).await.with_context(|| format!("container {name}"))?;
    for hook in &service.spec.task.container.post_start {
        run_hook(client, id, &service.key, hook)
            .await
            .with_context(|| format!("container {name}, post_start"))?;
    }
    output::step("Container", &name, "Started");
    Ok(())
}

/// Runs a command beside a container's own; returns what it said first.
///
/// # Errors
/// It ends with another code than 0; source of the words: docker/compose `pkg/compose/hook.go`.
pub(super) async fn run_hook(client: &Client, id: &str, service: &str, hook: &Hook) -> Result<Vec<u8>> {
    let exec = types::ExecCreate {
        user: hook.user.clone().unwrap_or_default(),
        privileged: hook.privileged,
        attach_stdout: true,
        attach_stderr: true,
        env: hook.env.clone(),
        working_dir: hook.working_dir.clone().unwrap_or_default(),
        cmd: StrSlice(hook.command.clone()),
        ..Default::default()
    };
    let exec = client.exec_create(id, &exec).await?.id;
    let streams = client.exec_start(&exec, &types::ExecStart::default()).await?;
    let mut frames = Demux::new(streams.io);
    let mut said = Vec::new();
    while let Some(frame) = frames.next().await? {
        let (Frame::Stdout(bytes) | Frame::Stderr(bytes) | Frame::SystemError(bytes)) = frame;
        let room = HOOK_OUTPUT_MAX.saturating_sub(said.len());
        said.extend(bytes.iter().take(room));
    }
    match client.exec_code(&exec).await? {
        0 => Ok(said),
        code => bail!(
            "{service} hook exited with status {code}: {:?}: {}",
            hook.command.join(" "),
            String::from_utf8_lossy(&said).trim_end()
        ),
    }
}

/// Stops a container that runs, after its hooks. `service`: what the file says of it, if anything.
///
/// # Errors
/// A hook failed, and the container is stopped all the same; or it cannot be stopped.
pub(super) async fn stop(
    client: &Client,
    service: Option<&StackService>,
    member: &Member,
    timeout: Option<u32>,
) -> Result<()> {
    if !member.is_running() {
        return Ok(());
    }
    let mut failed = Ok(());
    for hook in service.iter().flat_map(|s| &s.spec.task.container.pre_stop) {
        let ran = run_hook(client, &member.id, &member.service, hook).await;
        failed = failed.and(ran.map(drop).with_context(|| format!("container {}, pre_stop", member.name)));
    }
    let time = timeout.map(|t| t.to_string());
    let query: Vec<(&str, &str)> = time.iter().map(|t| ("t", t.as_str())).collect();
    client
        .container_act(&member.id, "stop", &query)
        .await
        .with_context(|| format!("container {}", member.name))?;
    output::step("Container", &member.name, "Stopped");
    failed
}

/// Stops and removes a container, with its anonymous volumes if asked.
pub(super) async fn remove(
    client: &Client,
    service: Option<&StackService>,
    member: &Member,
    timeout: Option<u32>,
    volumes: bool,
) -> Result<()> {
    // What its hooks said is told when it is gone.
    let stopped = stop(client, service, member, timeout).await;
    let volumes = if volumes { "1" } else { "0" };
    match client.container_remove(&member.id, &[("force", "1"), ("v", volumes)]).await {
        Ok(()) => {}
        // `--rm`, or somebody else.
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error).with_context(|| format!("container {}", member.name)),
    }
    output::step("Container", &member.name, "Removed");
    stopped
}
