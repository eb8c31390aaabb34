//! `/_ping /version /info /auth /system/df`

use super::answer::Answer;
use super::{
    API_VERSION, ApiError, HostGone, State, SwarmStatus,
    request::{AnyJson as Body, Params, Use},
    routing::{door, get, post},
};
use crate::{convert::generic_resources_json, types};
use axum::{
    Router,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse as _, Response},
};
use engine::{AppArmor, ListOptions, Status};
use model::{Role, Supply};
use serde_json::json;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/_ping", get(ping).head(door(ping)))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/system/df", get(disk_usage))
        .route("/auth", post(authenticate))
        .route("/rswarm/host/shutdown", post(shut_down))
}

async fn ping(Use(state): Use<State>) -> Response {
    let swarm = match state.swarm().status() {
        SwarmStatus::Inactive => "inactive",
        SwarmStatus::Locked => "locked",
        SwarmStatus::Failed(_) => "error",
        SwarmStatus::Active(me) if !me.error.is_empty() => "error",
        SwarmStatus::Active(me) => match me.role {
            Role::Worker => "active/worker",
            Role::Manager => "active/manager",
        },
    };
    let mut answer = "OK".into_response();
    let headers = answer.headers_mut();
    headers.insert("Swarm", HeaderValue::from_static(swarm));
    // 1 = the classic builder; 2 would be BuildKit.
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert("Pragma", HeaderValue::from_static("no-cache"));
    answer
}

/// Returns Docker's word for this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel_version() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

async fn version(Use(state): Use<State>) -> Answer<types::Version> {
    let oldest = state.options.min_api.to_string();
    let version = env!("CARGO_PKG_VERSION");
    Answer(types::Version {
        platform: types::PlatformName { name: "rswarm".into() },
        components: vec![types::Component {
            name: "Engine".into(),
            version: version.into(),
            details: [
                ("ApiVersion", API_VERSION),
                ("MinAPIVersion", &oldest),
                ("Arch", architecture()),
                ("Os", "linux"),
                ("KernelVersion", &kernel_version()),
                ("Experimental", "false"),
                ("GitCommit", ""),
                ("GoVersion", ""),
                ("BuildTime", ""),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        }],
        version: version.into(),
        api_version: API_VERSION.into(),
        min_api_version: oldest,
        os: "linux".into(),
        arch: architecture().into(),
        kernel_version: kernel_version(),
        ..types::Version::default()
    })
}

/// Source: moby `daemon/info_unix.go`: what confines containers that ask for nothing else.
fn security_options(apparmor: AppArmor) -> Vec<String> {
    let profile = (apparmor == AppArmor::Confines).then_some("name=apparmor");
    profile.into_iter().chain(["name=seccomp,profile=builtin"]).map(str::to_owned).collect()
}

/// Source: moby `daemon/pkg/registry`, `newServiceConfig`: who is on this host is talked to without verified TLS.
fn registry_config(from: &image::RegistryOptions) -> types::RegistryConfig {
    let (networks, hosts): (Vec<_>, Vec<_>) = from.insecure.iter().partition(|entry| entry.contains('/'));
    let index = |name: &str, mirrors: &[String], official: bool| {
        let json = json!({ "Name": name, "Mirrors": mirrors, "Secure": official, "Official": official });
        (name.to_owned(), json)
    };
    let insecure = hosts.into_iter().map(|host| index(host, &[], false));
    let loopback = ["::1/128", "127.0.0.0/8"].map(str::to_owned);
    types::RegistryConfig {
        insecure_registry_cidrs: loopback.into_iter().chain(networks.into_iter().cloned()).collect(),
        index_configs: insecure.chain([index("docker.io", &from.mirrors, true)]).collect(),
        mirrors: from.mirrors.clone(),
    }
}

/// Not in Docker, whose daemon stops containers whenever it stops.
async fn shut_down(Use(state): Use<State>) -> Result<Answer<types::HostShutdown>, ApiError> {
    state.of_the_host()?;
    let HostGone { told, stopped, left } = state.swarm().go_down().await?;
    let (swarm_told, swarm_error) = match told {
        None => (false, String::new()),
        Some(Ok(())) => (true, String::new()),
        Some(Err(why)) => (false, why),
    };
    let left = left.into_iter().map(|(name, reason)| types::ContainerLeft { name, reason }).collect();
    Ok(Answer(types::HostShutdown { stopped: stopped as u64, left, swarm_told, swarm_error }))
}

async fn info(Use(state): Use<State>) -> Result<Answer<types::Info>, ApiError> {
    let (apparmor, live) = (engine::apparmor_in_effect(), (state.options.live)());
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = |key: &str| {
        let line = os_release.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or_default();
    let cgroup2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut to = types::Info {
        id: state.options.hostname.clone(),
        name: state.options.hostname.clone(),
        driver: "overlay2".into(),
        plugins: types::PluginsInfo {
            volume: words(&["local"]),
            network: words(&["bridge", "host", "macvlan", "null", "overlay"]),
            authorization: Vec::new(),
            log: words(&engine::LOG_DRIVERS),
        },
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: true,
        system_time: types::Time::from(now()).to_string(),
        logging_driver: state.engine().map_or_else(|_| "json-file".into(), |engine| engine.log_driver()),
        cgroup_driver: "cgroupfs".into(),
        cgroup_version: if cgroup2 { "2" } else { "1" }.into(),
        kernel_version: kernel_version(),
        operating_system: os("PRETTY_NAME"),
        os_version: os("VERSION_ID"),
        os_type: "linux".into(),
        architecture: std::env::consts::ARCH.into(),
        index_server_address: "https://index.docker.io/v1/".into(),
        registry_config: registry_config(&live.registries),
        ncpu: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        mem_total: memory_kib * 1024,
        docker_root_dir: state.options.data_root.display().to_string(),
        server_version: env!("CARGO_PKG_VERSION").into(),
        // Under the names that clients look for; the path says whose it is.
        runtimes: engine::RUNTIMES
            .map(|name| (name.to_owned(), types::RuntimeInfo { path: "rswarm".into() }))
            .into(),
        default_runtime: engine::RUNTIMES[0].into(),
        live_restore_enabled: true,
        labels: live.labels,
        debug: live.debug,
        security_options: security_options(apparmor),
        swarm: state.swarm_info().await,
        ..types::Info::default()
    };
    if apparmor == AppArmor::NotLoaded {
        to.warnings
            .push("WARNING: AppArmor confines no container: its profile docker-default is not loaded".into());
    }
    if let Ok(engine) = state.engine() {
        to.warnings
            .extend(engine.unfit().iter().map(|why| format!("WARNING: no containers can run here: {why}")));
        let proxies = engine.images().proxies();
        to.http_proxy = proxies.http_shown();
        to.https_proxy = proxies.https_shown();
        to.no_proxy = proxies.no();
        to.security_options.extend(engine.userns_remap().map(|_| "name=userns".to_owned()));
        let (resources, problems) = engine.generic_resources().await?;
        to.generic_resources = generic_resources_json(&resources);
        to.warnings.extend(problems.iter().map(|p| format!("WARNING: devices are not known: {p}")));
        to.cdi_spec_dirs = engine.cdi_spec_dirs().iter().map(|dir| dir.display().to_string()).collect();
        for (kind, supply) in resources.iter().filter(|(kind, _)| kind.contains('/')) {
            let Supply::Named(names) = supply else { continue };
            to.discovered_devices.extend(
                names
                    .iter()
                    .map(|name| types::DeviceInfo { source: "cdi".into(), id: format!("{kind}={name}") }),
            );
        }
        let all = ListOptions { all: true, ..ListOptions::default() };
        for container in engine.list(all).await? {
            to.containers += 1;
            match container.state.status {
                Status::Running | Status::Restarting => to.containers_running += 1,
                Status::Paused => to.containers_paused += 1,
                Status::Created | Status::Removing | Status::Exited | Status::Dead => {
                    to.containers_stopped += 1;
                }
            }
        }
        to.images = engine.images().list().await.len() as u64;
    }
    Ok(Answer(to))
}

/// Returns the time of this host's clock.
pub(super) fn now() -> model::Timestamp {
    model::Timestamp(sys::clock::nanos())
}

/// Source: Docker API `SystemDataUsage`; `type` may be given several times.
async fn disk_usage(Use(state): Use<State>, params: Params) -> Result<Response, ApiError> {
    let kinds = params.all("type");
    let wanted = |kind: &str| kinds.is_empty() || kinds.iter().any(|k| k == kind);
    if let Some(unknown) =
        kinds.iter().find(|k| !matches!(k.as_str(), "container" | "image" | "volume" | "build-cache"))
    {
        return Err(ApiError::bad_request(format!("unknown object type: {unknown}")));
    }
    let engine = state.engine()?;
    let containers = engine.list(ListOptions { all: true, ..ListOptions::default() }).await?;
    let mut usage = types::DiskUsage::default();
    if wanted("image") {
        let layers = engine.images().layer_usage();
        usage.layers_size = i64::try_from(layers.total_bytes).unwrap_or(i64::MAX);
        for image in engine.images().list().await.iter().filter(|image| !image.intermediate) {
            let users = containers.iter().filter(|c| c.image_id == image.id.to_string()).count();
            let mut row = super::images::summary(image);
            row.containers = i64::try_from(users).unwrap_or(i64::MAX);
            let shared = layers.shared_bytes.get(&image.id).copied().unwrap_or(0);
            row.shared_size = i64::try_from(shared).unwrap_or(i64::MAX);
            usage.images.push(row);
        }
    }
    if wanted("container") {
        for container in &containers {
            // One that is removed meanwhile takes nothing.
            let size = engine.size(&container.id).await.unwrap_or_default();
            usage.containers.push(super::container_json::summary(container, size));
        }
    }
    if wanted("build-cache") {
        for step in engine.build_cache() {
            usage.build_cache.push(types::BuildCache {
                id: step.id.chars().take(25).collect(),
                kind: "regular".into(),
                description: step.description,
                size: i64::try_from(step.size_bytes).unwrap_or(i64::MAX),
                created_at: step.created_at.into(),
                last_used_at: step.last_used_at.into(),
                usage_count: step.uses,
                ..types::BuildCache::default()
            });
        }
    }
    if wanted("volume") {
        for used in engine.volume_usage().await? {
            let mut row = super::volumes::json(used.volume);
            row.usage_data = Some(types::VolumeUsage {
                size: i64::try_from(used.size).unwrap_or(i64::MAX),
                ref_count: i64::try_from(used.containers).unwrap_or(i64::MAX),
            });
            usage.volumes.push(row);
        }
    }
    Ok(Answer(usage).into_response())
}

/// Source: Docker API `SystemAuth`.
async fn authenticate(
    Use(state): Use<State>,
    Body(config): Body<types::AuthConfig>,
) -> Result<Answer<types::AuthAnswer>, ApiError> {
    // Clients name Docker Hub by its old index.
    let server = config.server_address.trim_end_matches('/');
    let registry = server.trim_start_matches("https://").trim_start_matches("http://");
    let registry = registry.split('/').next().unwrap_or_default();
    let registry =
        if registry.is_empty() || registry == "index.docker.io" { "docker.io" } else { registry }.to_owned();
    let credentials = super::images::credentials(config)
        .ok_or_else(|| ApiError::bad_request("no username and password, and no token"))?;
    let images = state.engine()?.images();
    match images.login(&registry, credentials, &state.registries()).await {
        Ok(()) => Ok(Answer(types::AuthAnswer { status: "Login Succeeded".into(), ..Default::default() })),
        Err(image::Error::Denied { reason, .. }) => Err(ApiError {
            status: StatusCode::UNAUTHORIZED,
            message: format!("login attempt to {registry} failed: {reason}"),
        }),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_talked_to_without_verified_tls_is_shown() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let shown = registry_config(&image::RegistryOptions {
            insecure: words(&["registry.lan:5000", "10.0.0.0/8"]),
            mirrors: words(&["https://mirror.example"]),
            ..image::RegistryOptions::default()
        });
        assert_eq!(shown.insecure_registry_cidrs, ["::1/128", "127.0.0.0/8", "10.0.0.0/8"]);
        assert_eq!(shown.index_configs["registry.lan:5000"]["Secure"], false);
        let hub = &shown.index_configs["docker.io"];
        assert_eq!((&hub["Official"], &hub["Mirrors"][0]), (&json!(true), &json!("https://mirror.example")));
    }
}
