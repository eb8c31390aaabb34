//! Makes a container: the image's defaults merged in, mounts planned, everything checked, folder written. No process.

use crate::{
    ask::{
        config::{ContainerConfig, EndpointConfig, NetworkMode},
        gate, image_defaults, merge, names,
    },
    disk::{folders, persist},
    error::{Error, Result},
    files::{copy_up, image_mounts, init_layer, layers::Layers, mounts, secrets},
    inner::Inner,
    life::owner::Owner,
    networks::{any::AnyNetwork, endpoint, overlay},
    seen::{container::*, event::container_event},
    spec::{limits, userns},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::oneshot;

/// Makes it in a task of its own, which sees it through: a caller that goes away in the middle leaves no name taken,
/// no folder and no secret in memory, because what was made for it is removed.
pub(crate) async fn create(inner: &Arc<Inner>, config: ContainerConfig) -> Result<Created> {
    let (answer, made) = oneshot::channel();
    let (taken, is_taken) = oneshot::channel();
    let maker = inner.clone();
    inner.tasks.spawn(async move {
        let made = make_whole(&maker, config).await;
        let id = made.as_ref().ok().map(|created| created.id.clone());
        let heard = answer.send(made).is_ok() && is_taken.await.is_ok();
        if let (Some(id), false) = (id, heard) {
            tracing::info!(container.id = %id, "removed again: nobody waits for it any more");
            let removed = maker.remove(&id, RemoveOptions { force: true, volumes: true }).await;
            if let Err(error) = removed {
                tracing::warn!(container.id = %id, %error, "container that nobody waits for stays");
            }
        }
    });
    let made = made.await.map_err(|_| Error::ShuttingDown)?;
    taken.send(()).map_err(|()| Error::ShuttingDown)?;
    made
}

async fn make_whole(inner: &Arc<Inner>, mut config: ContainerConfig) -> Result<Created> {
    let image =
        inner.images.get(&config.image).await.ok_or_else(|| Error::NoSuchImage(config.image.clone()))?;
    let layers = inner
        .images
        .rootfs(&image.id)
        .await
        .map_err(|e| Error::Image { operation: format!("unpack image {}", config.image), source: e.into() })?
        .dirs;
    config = merge::merge(config, image_defaults::of(&image))?;
    inner.defaults().fill(&mut config);
    gate::check(&config)?;
    let users = userns::decide(inner, &config.host)?;
    let id = crate::random_id();
    let name = reserve_name(inner, config.name.as_deref(), &id)?;
    config.name = Some(name.clone());
    let made = async {
        inner.images.hold(&image.id, &id).await.map_err(|_| Error::NoSuchImage(config.image.clone()))?;
        make(inner, &id, &name, config, image.id.to_string(), users, layers).await
    };
    let owner = match made.await {
        Ok(owner) => owner,
        Err(e) => {
            image_mounts::release(inner, &id).await;
            inner.registry.release(&name, &id);
            return Err(e);
        }
    };
    let mut warnings = discarded_limits(&owner).await.unwrap_or_else(|error| vec![error.to_string()]);
    let endpoints = &owner.container.config.endpoints;
    warnings.extend(endpoint::warnings(endpoints.values().map(|endpoint| &endpoint.driver_opts)));
    let created = Created { id: id.clone(), warnings };
    inner.publish(container_event(&owner.container, "create", []));
    inner.tasks.spawn(owner.run());
    tracing::info!(container.id = %id, "container created");
    Ok(created)
}

/// Tells an ordinary user, whose containers run without the limits that the kernel keeps from them, which these are.
async fn discarded_limits(owner: &Owner) -> Result<Vec<String>> {
    let asked = &owner.container.config.host.resources;
    let cpu = asked.cpu_nanos > 0 || asked.cpu_period > 0 || asked.cpu_quota != 0;
    let cpuset = !asked.cpuset_cpus.is_empty() || !asked.cpuset_mems.is_empty();
    let memory = asked.memory_bytes > 0 || asked.memory_reservation_bytes > 0;
    let discarded = [
        (memory, "memory limit capabilities or the cgroup is not mounted. Limitation discarded."),
        (cpu, "CPU CFS scheduler or the cgroup is not mounted. CPU period/quota discarded."),
        (asked.cpu_shares > 0, "CPU shares or the cgroup is not mounted. Shares discarded."),
        (
            asked.cpu_realtime_period > 0 || asked.cpu_realtime_runtime != 0,
            "CPU real-time scheduler or the cgroup is not mounted. Real-time period/runtime discarded.",
        ),
        (cpuset, "cpuset or the cgroup is not mounted. CPUset discarded."),
        (
            asked.pids_limit.is_some_and(|n| n > 0),
            "PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        ),
    ];
    let texts = discarded.iter().filter(|(asked, _)| *asked);
    let texts: Vec<_> = texts.map(|(_, text)| format!("Your kernel does not support {text}")).collect();
    if texts.is_empty() || !owner.inner.userns_squash {
        return Ok(vec![]); // root is refused at the start instead
    }
    let (cgroup, limits) = (owner.cgroup(), limits::cgroup(asked)?);
    crate::blocking(move || match runtime::cgroup::try_limits(&cgroup, &limits) {
        Ok(()) => Ok(vec![]),
        Err(_) => Ok(texts),
    })
    .await
}

fn reserve_name(inner: &Inner, wanted: Option<&str>, id: &str) -> Result<String> {
    let registry = &inner.registry;
    if let Some(name) = wanted.map(|n| n.strip_prefix('/').unwrap_or(n)).filter(|n| !n.is_empty()) {
        names::check(name)?;
        registry.reserve(name, id)?;
        return Ok(name.to_owned());
    }
    let mut attempt = 0;
    loop {
        let name = names::random(attempt);
        match registry.reserve(&name, id) {
            Ok(()) => return Ok(name),
            Err(_) => attempt += 1,
        }
    }
}

async fn make(
    inner: &Arc<Inner>,
    id: &str,
    name: &str,
    mut config: ContainerConfig,
    image_id: String,
    users: Option<runtime::IdMap>,
    layers: Vec<PathBuf>,
) -> Result<Owner> {
    resolve_containers(inner, &mut config)?;
    for link in &config.host.links {
        if link.matches(':').count() > 1 {
            return Err(Error::invalid(format!("bad format for links: {link}")));
        }
        let other = link.split(':').next().unwrap_or_default();
        inner.inspect(other).map_err(|_| Error::invalid(format!("could not get container for {other}")))?;
    }
    let networks = networks(inner, &config, id).await?;
    let (maker, id, name) = (inner.clone(), id.to_owned(), name.to_owned());
    let container = crate::blocking(move || {
        let dir = maker.container_dir(&id);
        let result = make_folder(&maker, &dir, &id, name, config, image_id, users, networks, layers);
        if result.is_err() {
            // A folder without both files is also removed at the next open.
            let secrets = secrets::remove(&maker, &id);
            folders::remove_tree(&dir).map_err(Error::io("remove", &dir))?;
            secrets?;
        }
        result
    })
    .await?;
    let (owner, handle) = Owner::new(inner.clone(), container);
    inner.registry.insert(&owner.container.id, handle);
    Ok(owner)
}

/// Names of other containers become ids: they may be renamed.
fn resolve_containers(inner: &Inner, config: &mut ContainerConfig) -> Result<()> {
    if let NetworkMode::Container(other) = &mut config.host.network_mode {
        *other = inner.inspect(other)?.id.clone();
    }
    for mode in [&mut config.host.pid_mode, &mut config.host.ipc_mode] {
        if let Some(other) = mode.strip_prefix("container:") {
            *mode = format!("container:{}", inner.inspect(other)?.id);
        }
    }
    Ok(())
}

async fn networks(inner: &Inner, config: &ContainerConfig, id: &str) -> Result<BTreeMap<String, Endpoint>> {
    let mut networks = BTreeMap::new();
    let first = match &config.host.network_mode {
        NetworkMode::Bridge => Some("bridge"),
        NetworkMode::Host => Some("host"),
        NetworkMode::None => Some("none"),
        NetworkMode::Named(name) => Some(name.as_str()),
        NetworkMode::Container(_) | NetworkMode::Swarm => None,
    };
    for wanted in first.into_iter().chain(config.endpoints.keys().map(String::as_str)) {
        // Clients call the default network "default".
        let name = if wanted == "default" { "bridge" } else { wanted };
        let network = match inner.any_network(name).await {
            // Not as "no such network": clients take a 404 here for a missing image, and pull it.
            Err(Error::NoSuchNetwork(name)) => {
                return Err(Error::invalid(format!("network {name} not found")));
            }
            found => found?,
        };
        let nothing = EndpointConfig::default();
        let asked = config.endpoints.get(wanted).or_else(|| config.endpoints.get(&network.id()));
        let default = || config.endpoints.get("default").filter(|_| network.name() == "bridge");
        let asked = asked.or_else(default).unwrap_or(&nothing);
        let is_predefined = match &network {
            AnyNetwork::Local(network) => network.is_predefined(),
            AnyNetwork::Overlay(network) => overlay::check(network, asked).map(|()| false)?,
        };
        if is_predefined && (asked.ipv4_address.is_some() || asked.ipv6_address.is_some()) {
            return Err(Error::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if is_predefined && !asked.links.is_empty() {
            return Err(Error::invalid(
                "EndpointsConfig.Links are for user defined networks; hint: HostConfig.Links for the default one",
            ));
        }
        if let Some(mac) = &asked.mac_address {
            mac.parse::<network::Mac>().map_err(|e| Error::invalid(e.to_string()))?;
        }
        let mut endpoint = Endpoint::wanted(&network, asked);
        if !is_predefined && !endpoint.aliases.iter().any(|a| *a == id[..12]) {
            endpoint.aliases.push(id[..12].to_owned());
        }
        networks.entry(network.name().to_owned()).or_insert(endpoint);
    }
    for overlay in config.host.swarm.iter().flat_map(|s| &s.overlays) {
        let endpoint = Endpoint {
            network_id: overlay.network.to_string(),
            aliases: overlay.aliases.clone(),
            wanted_address: Some(overlay.address.addr()),
            ..Endpoint::default()
        };
        networks.insert(overlay.network_name.clone(), endpoint);
    }
    Ok(networks)
}

#[expect(clippy::too_many_arguments, reason = "everything a container is made of, used once")]
fn make_folder(
    inner: &Inner,
    dir: &Path,
    id: &str,
    name: String,
    config: ContainerConfig,
    image_id: String,
    users: Option<runtime::IdMap>,
    networks: BTreeMap<String, Endpoint>,
    layers: Vec<PathBuf>,
) -> Result<Container> {
    folders::close(dir, folders::PRIVATE_MODE)?;
    for folder in ["upper", "work"] {
        let path = dir.join(folder);
        fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
    }
    if config.host.build.is_none() {
        let upper = dir.join("upper");
        init_layer::make(&upper, &layers, inner.userns_squash).map_err(Error::io("fill", &upper))?;
    }
    let others = |other: &str| Ok(mounts::shareable(&*inner.inspect(other)?));
    let mut plan = mounts::Plan::of(&config, others)?;
    let anonymous = plan.name_anonymous();
    let note = dir.join(mounts::GOES_WITH_FOLDER);
    if !anonymous.is_empty() {
        persist::write_json_lazily(&note, &anonymous)?;
    }
    let _mounting = inner.mounting.blocking_read();
    let realised = plan.realise(inner)?;
    let points = realised.iter().map(|r| r.point.clone()).collect();
    let mounted = realised.iter().map(|r| r.point.image.as_str()).filter(|image| !image.is_empty());
    let held = image_mounts::hold(&inner.images, id, mounted);
    let held = tokio::runtime::Handle::current().block_on(held);
    let made =
        held.and_then(|()| fill(inner, dir, id, name, config, image_id, users, networks, layers, realised));
    inner.volumes.release(id);
    if made.is_err() {
        mounts::remove_anonymous(inner, points);
    } else if !anonymous.is_empty() {
        // From now on they are in the record.
        fs::remove_file(&note).map_err(Error::io("remove", note))?;
    }
    made
}

/// Fills the new volumes and writes the record.
#[expect(clippy::too_many_arguments, reason = "everything a container is made of, used once")]
fn fill(
    inner: &Inner,
    dir: &Path,
    id: &str,
    name: String,
    config: ContainerConfig,
    image_id: String,
    users: Option<runtime::IdMap>,
    networks: BTreeMap<String, Endpoint>,
    layers: Vec<PathBuf>,
    realised: Vec<mounts::Realised>,
) -> Result<Container> {
    let lower = Layers { folders: layers };
    for mount in realised.iter().filter(|m| m.copy_up) {
        if let Ok(volume) = inner.volumes.get(&mount.point.name) {
            inner.volumes.acquire(&volume, id)?;
        }
        copy_up::copy_up(&lower, &mount.point.destination, &mount.point.source, inner.userns_squash)
            .map_err(Error::io("copy the image's content to", &mount.point.source))?;
    }
    secrets::place(inner, id, &config.host.files, users.as_ref())?;
    let (path, args) = Owner::command_line(&config);
    let log_path =
        if config.host.log.driver == "none" { PathBuf::new() } else { dir.join(format!("{id}-json.log")) };
    let container = Container {
        id: id.to_owned(),
        name,
        created_at: crate::now(),
        image_id,
        path,
        args,
        config: Arc::new(config),
        state: ContainerState::default(),
        restart_count: 0,
        mounts: realised.into_iter().map(|r| r.point).collect(),
        networks,
        overlays: Vec::new(),
        users,
        ports: vec![],
        netns: None,
        log_path,
        hosts_path: dir.join("hosts"),
        hostname_path: dir.join("hostname"),
        resolv_conf_path: dir.join("resolv.conf"),
        exec_ids: vec![],
        exits: 0,
        manually_stopped: false,
        stopped_for_host: false,
    };
    crate::logs::driver::check(&container.config.host.log)?;
    persist::write_both(
        (&dir.join("config.json"), &*container.config),
        (&dir.join("state.json"), &container),
    )?;
    let parent = dir.parent().unwrap_or(dir);
    fs::File::open(parent).and_then(|f| f.sync_all()).map_err(Error::io("sync", parent))?;
    Ok(container)
}
