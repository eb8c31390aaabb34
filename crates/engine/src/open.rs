//! Opening the engine over what an earlier one left: nothing that runs is disturbed, nothing half-made stays.

use crate::{
    disk::{
        folders::{self, REMOVED, remove_tree},
        persist,
    },
    error::{Error, Result},
    files::{mounts::GOES_WITH_FOLDER, secrets},
    inner::{Inner, Options},
    life::{
        owner::{Owner, lost},
        registry::Registry,
        restart,
    },
    networks::local::LocalNetworks,
    seen::{container::*, event::Events},
    spec::userns,
    volumes::local::Volumes,
};
use futures::StreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
};
use tokio::time::Instant;

/// Containers looked after at once.
const AT_ONCE: usize = 8;

pub(crate) async fn open(options: Options) -> Result<Arc<Inner>> {
    let Options {
        data_root,
        run_root,
        images,
        network,
        shim,
        userns_squash,
        userns_remap,
        hostname,
        cgroup_parent,
        defaults,
    } = options;
    crate::ask::defaults_gate::check(&defaults)?;
    for folder in [data_root.join("containers"), run_root.join("c"), run_root.join("secrets")] {
        folders::close(&folder, folders::PRIVATE_MODE)?;
    }
    let plugins = data_root.join("plugins");
    folders::close(&plugins, folders::PRIVATE_MODE)?;
    let opened = |e: image::Error| Error::Image { operation: "open plugins".to_owned(), source: e.into() };
    let inner = Inner {
        plugins: image::Plugins::open(&plugins, &images).await.map_err(opened)?,
        volumes: Volumes::open(data_root.join("volumes"))?,
        mounting: Default::default(),
        trees: Default::default(),
        networks: LocalNetworks::open(data_root.join("networks"))?,
        overlays: Default::default(),
        builds: crate::build::open(&data_root)?,
        data_root,
        run_root,
        images,
        network,
        shim,
        userns_squash,
        userns_remap,
        hostname,
        cgroup_parent: if cgroup_parent.is_empty() { "rswarm".into() } else { cgroup_parent },
        defaults: std::sync::RwLock::new(Arc::new(defaults)),
        host_goes: Default::default(),
        registry: Registry::default(),
        execs: Default::default(),
        exec_ended: tokio::sync::watch::Sender::new(()),
        events: Events::default(),
        counting: Default::default(),
        tasks: Default::default(),
        cancel: Default::default(),
    };
    let inner = Arc::new(inner);
    if let Some(map) = inner.userns_remap.clone() {
        if userns_squash {
            return Err(Error::invalid(
                "userns-remap: this daemon runs in a user namespace with one id, and so do its containers; hint: leave \
                 it out",
            ));
        }
        let tried = inner.clone();
        crate::blocking(move || userns::try_folders(&tried, &map)).await?;
    }
    inner.builds.hold_all(&inner.images).await;
    let known = inner.clone();
    let Found { containers, unreadable } = crate::blocking(move || read_containers(&known)).await?;
    let ids: BTreeSet<String> =
        containers.iter().map(|c| c.id.clone()).chain(unreadable.iter().cloned()).collect();
    inner.registry.note_unreadable(unreadable);
    let sandboxes =
        inner.network.sandboxes().await.map_err(crate::networks::local::failed("list sandboxes"))?;
    let sandboxes: BTreeMap<String, network::SandboxInfo> =
        sandboxes.into_iter().map(|s| (s.id.clone(), s)).collect();
    sweep(&inner, |id| !ids.contains(id), sandboxes.keys()).await;
    // All are known before any is started again: one may name another.
    let mut owners = Vec::new();
    for mut container in containers {
        hold_image(&inner, &container).await;
        if inner.registry.reserve(&container.name, &container.id).is_err() {
            container.name = container.id.clone(); // cannot happen while this engine alone writes here
        }
        let (owner, handle) = Owner::new(inner.clone(), container);
        inner.registry.insert(&owner.container.id, handle);
        owners.push(owner);
    }
    crate::networks::api::configure_default_bridge(&inner).await?;
    let recovered = futures::stream::iter(owners);
    let recovered = recovered.map(|owner| recover(owner, &sandboxes)).buffer_unordered(AT_ONCE);
    let recovered: Vec<Owner> = recovered.collect().await;
    let mut steps = Vec::new();
    for owner in recovered {
        if owner.container.config.host.build.is_some() {
            steps.push(owner.container.id.clone());
        }
        inner.tasks.spawn(owner.run());
    }
    let tidied = inner.clone();
    crate::blocking(move || {
        tidied.volumes.unmount_unused();
        Ok(())
    })
    .await?;
    for id in steps {
        let removed = inner.remove(&id, RemoveOptions { force: true, volumes: true }).await;
        if let Err(error) = removed {
            tracing::warn!(container.id = %id, %error, "container of a killed daemon's build stays");
        }
    }
    Ok(inner)
}

/// What the containers' folder holds.
#[derive(Debug, Default)]
struct Found {
    containers: Vec<Container>,
    /// Ids of those whose record cannot be understood: nothing of them is touched.
    unreadable: Vec<String>,
}

/// Returns the containers on disk; removes folders that are not whole.
fn read_containers(inner: &Inner) -> Result<Found> {
    let root = inner.data_root.join("containers");
    let (mut found, mut half_made) = (Found::default(), Vec::new());
    for entry in fs::read_dir(&root).map_err(Error::io("list", &root))? {
        let dir = entry.map_err(Error::io("list", &root))?.path();
        match read_container(&dir) {
            Ok(Some(container)) => {
                // Its volumes are in its record by now.
                if let Err(e) = fs::remove_file(dir.join(GOES_WITH_FOLDER))
                    && e.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %dir.join(GOES_WITH_FOLDER).display(), error = %e, "a note stays");
                }
                found.containers.push(container);
            }
            Ok(None) => half_made.push(dir),
            Err(e) => {
                tracing::error!(
                    path = %dir.display(), error = model::with_causes(&e),
                    hint = "mend its record and restart the daemon, or remove the container by its id, with force",
                    "container cannot be read and is left alone"
                );
                found.unreadable.extend(dir.file_name().map(|id| id.to_string_lossy().into_owned()));
            }
        }
    }
    for dir in half_made {
        match give_up(inner, &dir, &found.containers) {
            Ok(()) => tracing::info!(path = %dir.display(), "half-made container removed"),
            Err(e) => tracing::warn!(path = %dir.display(), error = %e, "half-made container stays"),
        }
    }
    Ok(found)
}

/// Removes the folder of a container that is not whole, and the volumes that go with it if no other container has
/// them.
fn give_up(inner: &Inner, dir: &Path, others: &[Container]) -> Result<()> {
    let volumes = persist::read_json::<Vec<String>>(&dir.join(GOES_WITH_FOLDER))?.unwrap_or_default();
    for name in volumes.iter().filter(|v| others.iter().all(|c| c.mounts.iter().all(|m| m.name != **v))) {
        inner.volumes.remove(name, true)?;
    }
    remove_tree(dir).map_err(Error::io("remove", dir))
}

/// `None` = it was being made or removed.
fn read_container(dir: &Path) -> Result<Option<Container>> {
    let id = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if id.starts_with(REMOVED) {
        return Ok(None);
    }
    let (config, state) = (
        persist::read_json(&dir.join("config.json"))?,
        persist::read_last_json::<Container>(&dir.join("state.json"))?,
    );
    let (Some(config), Some(mut container)) = (config, state) else { return Ok(None) };
    container.config = Arc::new(config);
    // The data root may have been moved.
    container.hosts_path = dir.join("hosts");
    container.hostname_path = dir.join("hostname");
    container.resolv_conf_path = dir.join("resolv.conf");
    if !container.log_path.as_os_str().is_empty() {
        container.log_path = dir.join(format!("{id}-json.log"));
    }
    Ok(Some(container))
}

/// Keeps the image of a container from being pruned.
async fn hold_image(inner: &Inner, container: &Container) {
    let held = match container.image_id.parse() {
        Ok(image) => inner.images.hold(&image, &container.id).await.map_err(|e| e.to_string()),
        Err(_) => Err(format!("{:?} is no image id", container.image_id)),
    };
    let mounted = container.mounts.iter().map(|point| point.image.as_str()).filter(|id| !id.is_empty());
    let mounted = crate::files::image_mounts::hold(&inner.images, &container.id, mounted).await;
    let held = held.and(mounted.map_err(|error| error.to_string()));
    if let Err(reason) = held {
        tracing::warn!(container.id = %container.id, reason, "image of a container is gone: it cannot start again");
    }
}

/// Removes run folders, cgroups, sandboxes and secrets of those that are orphans.
async fn sweep<'a>(
    inner: &Inner,
    orphan: impl Fn(&String) -> bool,
    sandboxes: impl Iterator<Item = &'a String>,
) {
    let run_folders = fs::read_dir(inner.run_root.join("c")).into_iter().flatten();
    for id in run_folders.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(&orphan) {
        tracing::info!(container.id = %id, "leftover of a run removed");
        let (dir, cgroup) = (inner.run_dir(&id), format!("/{}/{id}", inner.cgroup_parent));
        let swept = crate::blocking(move || {
            if let Ok(shim) = runtime::Shim::connect(&dir)
                && let Err(e) = shim.shutdown()
            {
                tracing::warn!(error = %e, "shim did not end");
            }
            Ok(runtime::remove(&dir, Some(&cgroup)))
        })
        .await;
        for error in swept.ok().and_then(Result::err).into_iter().flatten() {
            tracing::warn!(container.id = %id, error = %error, "leftover stays");
        }
    }
    for id in secrets::ids(inner).into_iter().filter(&orphan) {
        if let Err(e) = secrets::remove(inner, &id) {
            tracing::warn!(container.id = %id, error = %e, "leftover stays");
        }
    }
    for id in sandboxes.filter(|id| orphan(id)) {
        for error in inner.network.remove_sandbox(id).await.err().into_iter().flatten() {
            tracing::warn!(container.id = %id, %error, "sandbox stays");
        }
    }
}

/// Removes a container whose record cannot be understood, with all that its id leads to: processes, sandbox, secrets,
/// folder. Volumes stay: only the record would tell which go with it.
pub(crate) async fn remove_unreadable(inner: &Inner, id: &str) -> Result<()> {
    let sandboxes =
        inner.network.sandboxes().await.map_err(crate::networks::local::failed("list sandboxes"))?;
    sweep(inner, |orphan| orphan == id, sandboxes.iter().map(|s| &s.id)).await;
    let dir = inner.container_dir(id);
    let gone = dir.clone();
    crate::blocking(move || remove_tree(&gone).map_err(Error::io("remove", &gone))).await?;
    crate::files::image_mounts::release(inner, id).await;
    inner.registry.forget_unreadable(id);
    tracing::info!(container.id = %id, "unreadable container removed");
    Ok(())
}

/// Finds out what became of one container while nobody looked.
async fn recover(mut owner: Owner, sandboxes: &BTreeMap<String, network::SandboxInfo>) -> Owner {
    let run_dir = owner.run_dir.clone();
    let was_running = owner.container.state.is_running();
    let was_removing = owner.container.state.status == Status::Removing;
    let connected = crate::blocking(move || Ok(runtime::Shim::connect(&run_dir)))
        .await
        .and_then(|shim| shim.map_err(|e| crate::error::runtime_failed("adopt", "", e)));
    match connected {
        Ok(shim) if shim.started() => {
            let sandbox = sandboxes.get(&owner.container.id);
            adopt(&mut owner, shim, sandbox).await;
        }
        Ok(shim) => {
            // Made, but not started, when the daemon was killed: the caller never got an answer.
            owner.shim = Some(Arc::new(std::sync::Mutex::new(shim)));
            owner.take_down().await;
        }
        Err(_) if was_running => {
            let exit = runtime::read_exit(&owner.run_dir).unwrap_or_else(lost);
            owner.ended(exit).await;
        }
        Err(_) => {
            if let Some(exit) = runtime::read_exit(&owner.run_dir) {
                owner.ended(exit).await;
            } else if owner.run_dir.exists() || sandboxes.contains_key(&owner.container.id) {
                // Killed in the middle of a start.
                owner.take_down().await;
            } else {
                // Or the host went down, and the note of the start with it: where the host is a container itself, control
                // groups outlive that.
                owner.end_run().await;
            }
        }
    }
    if was_removing && !owner.gone {
        if let Err(e) = owner.remove_now(RemoveOptions { force: true, volumes: false }).await {
            tracing::warn!(container.id = %owner.container.id, error = %e, "removal not finished");
        }
        return owner;
    }
    if owner.gone || was_running || owner.container.state.is_running() {
        return owner; // if it has ended meanwhile, that was judged above
    }
    let was_waiting = owner.container.state.status == Status::Restarting || owner.container.stopped_for_host;
    let ran_before = was_waiting || owner.container.state.started_at.is_some();
    let host = &owner.container.config.host;
    if host.auto_remove {
        // Whoever made it waited for its end, and is gone with the daemon it asked.
        if let Err(e) = owner.remove_now(RemoveOptions { force: true, volumes: true }).await {
            tracing::warn!(container.id = %owner.container.id, error = %e, "container not removed");
        }
    } else if ran_before && restart::at_open(host.restart, owner.container.manually_stopped, was_waiting) {
        owner.restart_at = Some(Instant::now());
        owner.container.state.status = Status::Restarting;
        owner.publish();
    }
    owner
}

async fn adopt(owner: &mut Owner, shim: runtime::Shim, sandbox: Option<&network::SandboxInfo>) {
    let pid = shim.pid();
    if let Err(e) = owner.adopt(shim) {
        tracing::error!(container.id = %owner.container.id, error = %e, "container not adopted");
        return;
    }
    let state = &mut owner.container.state;
    if !state.is_running() {
        // Killed between the program's start and the note of it.
        state.status = Status::Running;
        state.started_at = Some(crate::now());
    }
    state.pid = Some(pid);
    let started_at = state.started_at.unwrap_or_else(crate::now);
    let ran_for = crate::now().since(started_at);
    owner.started = Instant::now().checked_sub(ran_for).or_else(|| Some(Instant::now()));
    if let Some(info) = sandbox {
        owner.take_network(info);
    }
    let (inner, volumes, id) = (owner.inner.clone(), owner.volumes(), owner.container.id.clone());
    let kept = crate::blocking(move || volumes.iter().try_for_each(|v| inner.volumes.acquire(v, &id)));
    if let Err(e) = kept.await {
        tracing::warn!(container.id = %owner.container.id, error = %e, "a volume is not mounted for others");
    }
    owner.begin_health();
    owner.publish();
    tracing::info!(container.id = %owner.container.id, "container adopted");
    owner.hear_shim().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::earlier;

    /// Adds what a newer version might say to a record, line by line.
    fn with_news(path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        let newer = text.lines().filter(|line| !line.is_empty()).map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["not_known_yet"] = serde_json::json!({"a": [1]});
            format!("\n{record}\n")
        });
        fs::write(path, newer.collect::<String>()).unwrap();
    }

    /// Three containers (one on its own network with a volume, one that never ran, one of a service), a volume and a
    /// network.
    #[test]
    fn records_of_earlier_versions_are_read_and_what_newer_ones_add_is_no_damage() {
        for commit in earlier::COMMITS {
            let root = tempfile::tempdir().unwrap();
            let root = root.path();
            earlier::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/earlier").join(commit), root);
            for _ in 0..2 {
                let mut containers = Vec::new();
                for entry in fs::read_dir(root.join("containers")).unwrap() {
                    let dir = entry.unwrap().path();
                    containers.push(read_container(&dir).unwrap().unwrap());
                    with_news(&dir.join("config.json"));
                    with_news(&dir.join("state.json"));
                }
                containers.sort_by(|a, b| a.name.cmp(&b.name));
                let [kept, made, task] = containers.as_slice() else { panic!("{commit}: {containers:?}") };
                assert_eq!((&*kept.name, &*made.name), ("kept", "made"), "{commit}");
                assert_eq!(made.state.status, Status::Created, "{commit}");
                assert!(kept.state.is_running() && task.state.is_running(), "{commit}");
                assert_eq!(kept.config.env, ["A=1"], "{commit}");
                assert_eq!(kept.config.host.resources.memory_bytes, 64 << 20, "{commit}");
                assert_eq!(kept.mounts.len(), 1, "{commit}");
                assert!(kept.networks.contains_key("front") && kept.health().is_some(), "{commit}");
                assert!(task.name.starts_with("web.1.") && task.config.host.swarm.is_some(), "{commit}");

                let networks = LocalNetworks::open(root.join("networks")).unwrap();
                let names: Vec<String> = networks.all().into_iter().map(|network| network.name).collect();
                assert!(names.len() == 4 && names.contains(&"front".to_owned()), "{commit}: {names:?}");
                let volumes = Volumes::open(root.join("volumes")).unwrap();
                assert_eq!(volumes.get("vol").unwrap().labels["tier"], "gold", "{commit}");
                for entry in fs::read_dir(root.join("networks")).unwrap() {
                    with_news(&entry.unwrap().path());
                }
                with_news(&root.join("volumes/vol/volume.json"));
            }
            for part in ["networks", "volumes/vol"] {
                let entries = fs::read_dir(root.join(part)).unwrap();
                let aside =
                    entries.filter(|e| e.as_ref().unwrap().path().extension() == Some("damaged".as_ref()));
                assert_eq!(aside.count(), 0, "{commit}: {part}");
            }
        }
    }
}
