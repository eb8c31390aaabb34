//! What containers that run were given of the host. *Source:* CIS Docker Benchmark, section 5.

use super::{Finding, Found, Host, names};
use docker_api::types::ContainerInspect;
use std::path::Path;

/// Capabilities that lead out of a container, or near enough.
const STRONG: [&str; 11] = [
    "ALL",
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_BOOT",
    "NET_ADMIN",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "BPF",
    "PERFMON",
];
/// Folders of a host through which one is root there.
const HOST_FOLDERS: [&str; 12] =
    ["/", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sys", "/usr", "/var"];
/// Sockets of container engines.
const SOCKETS: [&str; 4] = ["docker.sock", "podman.sock", "containerd.sock", "crio.sock"];

fn running(host: &Host) -> Result<&[ContainerInspect], Finding> {
    let running = host.answer(|a| &a.containers)?;
    if running.is_empty() { Err(Finding::none("no container runs")) } else { Ok(running) }
}

fn name(container: &ContainerInspect) -> String {
    container.name.trim_start_matches('/').to_owned()
}

/// Judges what is said of each container; `said` is nothing where all is well.
fn each(
    host: &Host,
    fine: &str,
    verdict: fn(String, String) -> Finding,
    hint: &str,
    said: impl Fn(&ContainerInspect) -> Option<String>,
) -> Found {
    let running = running(host)?;
    let found: Vec<String> = running
        .iter()
        .filter_map(|container| Some((name(container), said(container)?)))
        .map(|(name, said)| if said.is_empty() { name } else { format!("{name} ({said})") })
        .collect();
    Ok(if found.is_empty() {
        Finding::ok(format!("{} containers: {fine}", running.len()))
    } else {
        verdict(names(&found), hint.to_owned())
    })
}

fn bad(found: String, hint: String) -> Finding {
    Finding::bad(found, hint)
}

fn warn(found: String, hint: String) -> Finding {
    Finding::warn(found, hint)
}

/// Returns words, if there are any.
fn some(words: Vec<String>) -> Option<String> {
    if words.is_empty() { None } else { Some(words.join(", ")) }
}

pub(super) fn privileged(host: &Host) -> Found {
    let hint = "start it anew without --privileged, with --cap-add and --device for what it needs";
    each(host, "none is privileged", bad, hint, |c| c.host_config.privileged.then(String::new))
}

pub(super) fn host_namespaces(host: &Host) -> Found {
    let hint = "start it anew without --pid host, --ipc host, --network host, --uts host";
    let modes = |c: &ContainerInspect| {
        let of = &c.host_config;
        let all = [
            ("pid", &of.pid_mode),
            ("ipc", &of.ipc_mode),
            ("network", &of.network_mode),
            ("uts", &of.uts_mode),
            ("cgroup", &of.cgroupns_mode),
        ];
        let of_host = all.into_iter().filter(|(_, mode)| mode.as_str() == "host");
        of_host.map(|(kind, _)| kind.to_owned()).collect::<Vec<_>>()
    };
    // By the host's processes a container reaches all of it; the others are less.
    let by_processes = running(host)?.iter().any(|c| modes(c).iter().any(|kind| kind == "pid"));
    let verdict = if by_processes { bad } else { warn };
    each(host, "each has namespaces of its own", verdict, hint, |c| some(modes(c)))
}

pub(super) fn socket_inside(host: &Host) -> Found {
    let hint = "start it anew without the socket: whoever is in it is root on this host";
    let own = host.place.run_root.join("docker.sock");
    each(host, "none has the daemon's socket", bad, hint, |c| {
        let sockets = c.mounts.iter().filter(|mount| {
            let path = Path::new(&mount.source);
            let file = path.file_name().map(|name| name.to_string_lossy());
            path == own || file.is_some_and(|name| SOCKETS.contains(&name.as_ref()))
        });
        some(sockets.map(|mount| mount.source.clone()).collect())
    })
}

pub(super) fn host_folders(host: &Host) -> Found {
    let hint = "start it anew with a volume, or with :ro for what it only reads";
    let own = [&host.place.data_root, &host.place.run_root];
    each(host, "none writes to a folder of the host's own", bad, hint, |c| {
        let folders = c.mounts.iter().filter(|mount| {
            let source = Path::new(&mount.source);
            let ours = own.iter().any(|root| source == root.as_path() || root.starts_with(source));
            mount.kind == "bind" && mount.rw && (ours || HOST_FOLDERS.iter().any(|f| source == Path::new(f)))
        });
        some(folders.map(|mount| mount.source.clone()).collect())
    })
}

pub(super) fn capabilities(host: &Host) -> Found {
    let hint = "start it anew without these --cap-add";
    each(host, "none has a capability that leads out", warn, hint, |c| {
        let added = c.host_config.cap_add.iter().flat_map(|caps| &caps.0);
        let words = added.map(|cap| cap.to_uppercase().trim_start_matches("CAP_").to_owned());
        some(words.filter(|cap| STRONG.contains(&cap.as_str())).collect())
    })
}

/// Returns options of a container that turn a confinement off.
fn loosened(container: &ContainerInspect) -> Vec<String> {
    let options = container.host_config.security_opt.iter().flatten();
    let off = options.filter(|option| {
        let value = option.split_once(['=', ':']).map_or("", |(_, value)| value);
        matches!(value, "unconfined" | "disable")
    });
    off.cloned().collect()
}

pub(super) fn unconfined(host: &Host) -> Found {
    let hint = "start it anew without this --security-opt, or with a profile of its own";
    each(host, "each has the default profiles", warn, hint, |c| some(loosened(c)))
}

pub(super) fn root(host: &Host) -> Found {
    let hint = "USER in its Dockerfile, or --user";
    each(host, "none runs as root", warn, hint, |c| {
        let user = c.config.user.split(':').next().unwrap_or_default();
        matches!(user, "" | "0" | "root").then(String::new)
    })
}

pub(super) fn unlimited(host: &Host) -> Found {
    let hint = "rswarm update --memory 512m --pids-limit 1000 --cpus 1 NAME";
    each(host, "each has limits of memory and processes", warn, hint, |c| {
        let limits = &c.host_config.resources;
        let mut without = Vec::new();
        if limits.memory <= 0 {
            without.push("memory".to_owned());
        }
        if limits.pids_limit.is_none_or(|limit| limit <= 0) {
            without.push("processes".to_owned());
        }
        some(without)
    })
}

pub(super) fn no_new_privileges(host: &Host) -> Found {
    let hint = "--security-opt no-new-privileges, where nothing in it needs setuid programs";
    each(host, "setuid programs give none of them more", warn, hint, |c| {
        let options = c.host_config.security_opt.iter().flatten();
        let mut set = options.filter(|option| option.starts_with("no-new-privileges"));
        let off = |option: &String| option.ends_with("false");
        set.next_back().is_none_or(off).then(String::new)
    })
}

/// Looks at the processes themselves: what a container asked for is one thing, what it got another.
pub(super) fn seccomp(host: &Host) -> Found {
    host.together("pid")?;
    let mut without = Vec::new();
    let (mut filtered, mut exempt) = (0, 0);
    for container in running(host)? {
        if container.host_config.privileged
            || loosened(container).iter().any(|option| option.contains("seccomp"))
        {
            exempt += 1;
            continue;
        }
        let pid = container.state.pid;
        // It may have ended.
        let Some(status) = host.text(&format!("/proc/{pid}/status"))? else { continue };
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
        match mode {
            Some("2") => filtered += 1,
            _ => without.push(name(container)),
        }
    }
    Ok(if without.is_empty() {
        Finding::ok(format!("{filtered} containers are filtered, {exempt} were made without on purpose"))
    } else {
        Finding::bad(
            format!("no filter is in effect in {}", names(&without)),
            "stop it, and tell us: it should not have started",
        )
    })
}
