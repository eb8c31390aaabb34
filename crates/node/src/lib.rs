//! The hall of the house: reads the settings, starts engine, front door and (in a swarm) agent and manager, joins
//! and stops them.
//!
//! ```text
//!  run ── image store, network service, engine          this host's containers; always there
//!      ── NodeSwarm + supervisor ── Member               certificate, gRPC server, agent, manager + store
//!      ── FrontDoor                                      RUN_ROOT/docker.sock, and tunnels from other nodes
//! ```
//!
//! Tasks (of tokio): the supervisor and one server per listening socket of the front door, in one `JoinSet`. They
//! end at SIGTERM or SIGINT in this order: front door, member, engine, network. Containers keep running: that their host
//! goes down is said by somebody else (`going`). SIGHUP reads the settings anew (`signals`). One chore beside them gives
//! free memory back. The supervisor and all that a member runs have threads of their own (`control`).
//!
//! *Start reading at* [`run`], then `member::Member::start`.

mod address;
mod attach;
mod beginnings;
mod clock;
mod connect;
mod control;
mod descriptors;
pub mod doctor;
mod door;
mod executor;
mod gate;
mod going;
mod hooks;
mod images;
mod lock;
mod managers;
mod member;
mod metrics;
mod notify;
mod peer;
mod port;
mod record;
mod recover;
mod repeats;
mod settings;
mod signals;
mod strangers;
mod swarm;
mod swarm_events;
mod task_container;
mod waiting;

pub use settings::{Settings, Told};

use anyhow::{Context, Result};
use docker_api::server::{FrontDoor, Listener};
use engine::folders;
use signals::{Signal, live, log, reload, tell};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often free memory goes back to the system.
const MEMORY_IS_GIVEN_BACK: std::time::Duration = std::time::Duration::from_secs(60);

/// What a daemon is started with.
#[derive(Debug)]
pub struct Options {
    /// Survives reboots.
    pub data_root: PathBuf,
    /// Gone after a reboot.
    pub run_root: PathBuf,
    pub hostname: String,
    /// Cgroup below which containers' cgroups are made.
    pub cgroup_parent: String,
    pub settings: Settings,
    /// Reads the settings anew, as they were read for `settings`.
    pub reread: Reread,
    /// How far this daemon's clock is ahead of the host's, for tests of hosts whose clocks differ: for the swarm's
    /// time, certificates, and what containers' records say. Shims and image downloads go by the host's. *Unit:*
    /// seconds, up to [`sys::clock::AHEAD_MAX_SECONDS`] either way.
    pub clock_ahead_seconds: i64,
}

/// What reads the settings.
pub struct Reread(pub Box<dyn Fn() -> Result<Settings> + Send + Sync>);

impl std::fmt::Debug for Reread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reread(..)")
    }
}

/// The settings that hold: those that were read last, as far as they can be taken over by a daemon that runs.
pub(crate) type InForce = Arc<arc_swap::ArcSwap<Settings>>;

/// Sets what must be set before a daemon has threads: that they share memory.
pub fn prepare() {
    if let Err(error) = sys::memory::share_arenas() {
        // No reason not to run: it takes more of it.
        eprintln!("rswarm: threads do not share memory: {error}");
    }
}

/// Runs a daemon until SIGTERM or SIGINT. Call [`prepare`] first.
///
/// # Errors
/// Another daemon uses the same roots, or a part cannot start; the text names it.
pub async fn run(options: Options) -> Result<()> {
    let log_level = log(&options.settings)?;
    tell(&options.settings);
    if options.clock_ahead_seconds != 0 {
        sys::clock::set_ahead(options.clock_ahead_seconds);
        tracing::warn!(seconds = options.clock_ahead_seconds, "this daemon's clock is set off, for a test");
    }
    pki::install_crypto();
    let soft = descriptors::raise();
    // Taken first: one that comes while the daemon starts neither ends it nor is lost.
    let mut signals = signals::Signals::listen()?;

    // Folders inside containers get the modes that are said, whatever started this daemon.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let data_root = closed(&options.data_root, folders::DATA_ROOT_MODE)?;
    let run_root = closed(&options.run_root, folders::RUN_ROOT_MODE)?;
    let _lock = lock(&data_root)?;
    for folder in ["build", "images", "images/layers", "network"]
        .map(|name| data_root.join(name))
        .iter()
        .chain([&run_root.join("network")])
    {
        folders::close(folder, folders::PRIVATE_MODE)?;
    }
    let squash = runtime::single_uid();
    if squash {
        tracing::info!(
            "running in a user namespace with one uid: file owners are squashed, limits are best effort"
        );
    }

    let proxies = options.settings.proxies(|name| std::env::var(name).ok())?;
    let images = image::Store::open_through(&data_root.join("images"), squash, proxies).await;
    let images = images.context("cannot open the image store")?;
    let mut network_options = network::Options::new(run_root.join("network"), data_root.join("network"));
    network_options.rootless = squash;
    let shims = run_root.clone();
    network_options.name_sockets = tokio::task::spawn_blocking(move || engine::kept_name_sockets(&shims))
        .await
        .context("cannot ask the shims for name server sockets")?;
    if !options.settings.dns.is_empty() {
        network_options.resolvers = Some(options.settings.dns.clone());
    }
    let network =
        network::Network::start(network_options).await.context("cannot start the network service")?;
    let shim = runtime::ShimProgram::of_this_program(vec!["shim".into()])
        .context("cannot copy this program for its shims")?
        .with_descriptors(soft);
    let engine = engine::Engine::open(engine::Options {
        data_root: data_root.clone(),
        run_root: run_root.clone(),
        images,
        network: network.clone(),
        shim,
        userns_squash: squash,
        userns_remap: options.settings.userns_remap().context("cannot give containers ids of their own")?,
        hostname: options.hostname.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        defaults: options.settings.engine_defaults()?,
    })
    .await
    .context("cannot start the engine")?;
    if engine::apparmor_in_effect() == engine::AppArmor::NotLoaded {
        tracing::warn!(
            "AppArmor confines no container: its profile docker-default is not loaded; hint: install deploy/apparmor, \
             then apparmor_parser -r -W /etc/apparmor.d/docker-default"
        );
    }

    let swarm_threads = control::Threads::start()?;
    let cancel = CancellationToken::new();
    let settings: InForce = Arc::new(arc_swap::ArcSwap::from_pointee(options.settings.clone()));
    let door_cell = Arc::new(OnceLock::new());
    let waiting = Arc::new(waiting::Waiting::default());
    let (node_swarm, supervisor) = swarm::NodeSwarm::new(swarm::Parts {
        folder: record::Folder::new(&data_root),
        engine: engine.clone(),
        hostname: options.hostname.clone(),
        settings: Arc::clone(&settings),
        door: Arc::clone(&door_cell),
        waiting: Arc::clone(&waiting),
        work: tokio::runtime::Handle::current(),
    });
    engine.set_overlays(Arc::new(attach::SwarmOverlays { swarm: node_swarm.clone(), waiting }));
    let door_cancel = CancellationToken::new();
    let door = FrontDoor::new(
        docker_api::server::Options {
            engine: Some(engine.clone()),
            swarm: Arc::new(node_swarm.clone()),
            hostname: options.hostname,
            data_root: data_root.clone(),
            live: live(&settings),
            connections_max: descriptors::for_clients(),
            min_api: options.settings.min_api()?,
        },
        door_cancel.clone(),
    );
    if door_cell.set(door.clone()).is_err() {
        unreachable!("the cell is filled once, here");
    }
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    tasks.spawn_on(supervisor.run(cancel.clone()), swarm_threads.handle());
    let mut chores = JoinSet::new();
    chores.spawn(give_memory_back());
    chores.spawn(node_swarm.clone().follow_address());
    let sources = metrics::Sources {
        engine: engine.clone(),
        swarm: node_swarm.clone(),
        data_root: data_root.clone(),
        turn: Arc::default(),
    };
    let _metrics = match &options.settings.metrics_addr {
        Some(address) => Some(metrics::serve(address, sources).await?),
        None => None,
    };
    let mut doors = JoinSet::new();
    let socket = run_root.join("docker.sock");
    // The usual socket last: whoever finds it finds the others.
    let mut listeners = Vec::new();
    for door in options.settings.doors()? {
        listeners.push(listen(&door, &options.settings, &node_swarm).await?);
    }
    listeners.push(listen(&settings::Door::Unix(socket.clone()), &options.settings, &node_swarm).await?);
    for listener in listeners {
        let door = door.clone();
        doors.spawn(async move { door.serve(listener).await });
    }
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    for why in engine.unfit() {
        tracing::error!(why, "no containers can run on this host");
    }
    notify::ready(format_args!("answers at {}", socket.display()));

    let result = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break Ok(()),
                Signal::Reload => {
                    notify::reloading();
                    let reloaded = reload(&options.reread, &settings, &log_level, &engine);
                    notify::ready(format_args!("answers at {}; {reloaded}", socket.display()));
                }
            },
            Some(ended) = tasks.join_next() => break ended.context("the swarm supervisor failed").and_then(|r| r),
        }
    };
    tracing::info!("stopping; containers keep running");
    notify::stopping("stopping; containers keep running");
    door_cancel.cancel();
    while doors.join_next().await.is_some() {}
    cancel.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.context("the swarm supervisor failed").and_then(|r| r) {
            tracing::warn!(error = format!("{error:#}"), "not stopped cleanly");
        }
    }
    drop(swarm_threads);
    engine.shutdown().await;
    network.shutdown().await;
    result
}

/// Gives memory that was freed back to the system, until it is dropped: what a moment of much work took is for others
/// to have when that is done.
async fn give_memory_back() {
    loop {
        tokio::time::sleep(MEMORY_IS_GIVEN_BACK).await;
        if tokio::task::spawn_blocking(sys::memory::give_back).await.is_err() {
            return;
        }
    }
}

async fn listen(door: &settings::Door, settings: &Settings, swarm: &swarm::NodeSwarm) -> Result<Listener> {
    match door {
        settings::Door::Unix(path) => {
            // Who knows one user knows no other group.
            let one_user = settings.group.is_none() && runtime::single_uid();
            let group = if one_user { None } else { settings.socket_group()? };
            Listener::unix(path, group).await.with_context(|| format!("cannot listen on {}", path.display()))
        }
        settings::Door::Tcp(address) => {
            if !settings.tlsverify {
                tracing::warn!(address, "whoever reaches this address is root on this host");
            }
            let mut keeper = None;
            let swarm = swarm.clone();
            let doorkeeper = |operators| {
                let made = Arc::new(door::Doorkeeper::new(operators, Arc::new(move || swarm.credentials())));
                keeper = Some(Arc::clone(&made));
                made as _
            };
            match settings.server_tls(doorkeeper)? {
                // Without a check of clients nobody shows a certificate.
                Some(config) => {
                    let whose = keeper.as_ref().map_or_else(|| Arc::new(|_: &_| None) as _, door::whose);
                    Listener::tls(address, config, whose).await
                }
                None => Listener::tcp(address).await,
            }
        }
        .with_context(|| format!("cannot listen on {address}")),
    }
}

/// Makes a root, or closes the one that is there to other users; returns its real path.
fn closed(path: &Path, mode: u32) -> Result<PathBuf> {
    if !path.exists() {
        folders::close_root(path, mode)?;
    }
    let real = path.canonicalize().with_context(|| format!("cannot use {}", path.display()))?;
    folders::close_root(&real, mode)?;
    Ok(real)
}

/// Keeps a second daemon off the same data root for as long as the file is open.
fn lock(data_root: &Path) -> Result<fs::File> {
    let path = data_root.join("daemon.lock");
    let file = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).with_context(|| {
        format!(
            "another daemon uses {}; hint: give this one its own --data-root and --run-root",
            data_root.display()
        )
    })?;
    Ok(file)
}
