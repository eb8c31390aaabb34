//! The OCI runtime spec of a container, as Docker would write it. Pure: everything looked up before comes in by
//! [`Parts`]. Written as JSON and parsed, because that is how the specification and every example show it.
//!
//! Source: OCI runtime-spec 1.2; moby `oci/defaults.go`, `daemon/oci_linux.go`.

use crate::{
    cdi,
    config::{ContainerConfig, HostConfig, LayerMount, Resources, Ulimit},
    container::{MountPoint, MountPointKind},
    devices,
    error::{Error, Result},
    execs::ExecConfig,
    merge,
    users::Identity,
};
use model::BindRecursion;
use oci_spec::runtime::{Capability, LinuxResources, LinuxSeccomp, Process, Spec};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHM_BYTES: u64 = 64 << 20;

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const DEFAULT_CAPS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const ALL_CAPS: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// A tmpfs to be mounted, with its options.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tmpfs {
    pub(crate) destination: String,
    pub(crate) options: String,
}

/// What was looked up for the spec.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) hostname: &'a str,
    /// Variables that tell of what it is linked to.
    pub(crate) links: &'a [String],
    pub(crate) identity: &'a Identity,
    pub(crate) mounts: &'a [MountPoint],
    /// What is seen of images.
    pub(crate) images: &'a [LayerMount],
    pub(crate) tmpfs: &'a [Tmpfs],
    /// hosts, hostname, resolv.conf, secrets: (host path, container path, writable).
    pub(crate) files: &'a [(PathBuf, String, bool)],
    /// What the devices that were asked for bring along.
    pub(crate) edits: &'a cdi::Edits,
    /// `None` = the host's own network.
    pub(crate) netns: Option<&'a Path>,
    /// Pids of containers whose namespaces are joined.
    pub(crate) pid_of: Option<u32>,
    pub(crate) ipc_of: Option<u32>,
    pub(crate) cgroups_path: &'a str,
    pub(crate) userns_squash: bool,
    /// The ids that it has on the host and the user namespace that they are in, where it has one.
    pub(crate) users: Option<(&'a runtime::IdMap, &'a Path)>,
}

/// Returns the capabilities of a container.
///
/// # Errors
/// `InvalidParameter` for a name that does not exist.
pub(crate) fn capabilities(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<String>> {
    // Everything means everything that there is to give; a name that is asked for must be given.
    let all = || {
        let held = runtime::held_caps();
        let held = move |cap: &&str| capability(cap).is_some_and(|cap| held.contains(&cap));
        ALL_CAPS.iter().copied().filter(held)
    };
    if privileged {
        return Ok(all().map(str::to_owned).collect());
    }
    let known = |name: &String| -> Result<String> {
        let upper = name.to_ascii_uppercase();
        let full = if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if full == "ALL" || ALL_CAPS.contains(&full.as_str()) {
            Ok(full)
        } else {
            Err(Error::invalid(format!("invalid capability: \"{name}\"")))
        }
    };
    let add = add.iter().map(known).collect::<Result<Vec<_>>>()?;
    let drop = drop.iter().map(known).collect::<Result<Vec<_>>>()?;
    let has = |list: &[String], cap: &str| list.iter().any(|c| c == cap);
    if has(&add, "ALL") {
        return Ok(all().filter(|cap| !has(&drop, cap) || has(&add, cap)).map(str::to_owned).collect());
    }
    let granted = |cap: &&str| {
        let by_default = !has(&drop, "ALL") && DEFAULT_CAPS.contains(cap);
        has(&add, cap) || (by_default && !has(&drop, cap))
    };
    Ok(ALL_CAPS.iter().filter(|c| granted(c)).map(|c| (*c).to_owned()).collect())
}

/// Reads a name of [`ALL_CAPS`]; the crate's own reader knows names without their prefix only.
fn capability(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_")?.parse().ok()
}

/// What the security options say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp,
    pub(crate) unmask: bool,
    /// `Some("")` = none; `None` = what there is by default.
    pub(crate) apparmor: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    Unconfined,
    /// JSON of `linux.seccomp`.
    Custom(String),
}

/// Name of an AppArmor profile; namespaces of profiles are not for containers to choose.
fn is_profile(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-/+".contains(&b);
    !name.is_empty() && name.len() < 256 && name.bytes().all(allowed)
}

/// Refuses what this host cannot honour: nothing that was asked for is dropped.
///
/// # Errors
/// `InvalidParameter`.
pub(crate) fn check_security(security: &Security, caps: &[String]) -> Result<()> {
    if let Some(profile) = security.apparmor.as_deref().filter(|p| !p.is_empty()) {
        let cannot = |why: &str| {
            Error::invalid(format!(
                "invalid --security-opt apparmor={profile}: {why}; hint: apparmor=unconfined, or leave it out"
            ))
        };
        if !runtime::apparmor_enabled() {
            return Err(cannot("AppArmor is not enabled on this host"));
        }
        if runtime::apparmor_loaded(profile) == Some(false) {
            return Err(cannot("no profile of this name is loaded"));
        }
    }
    if let Seccomp::Custom(text) = &security.seccomp {
        custom_seccomp(text, caps)?;
    }
    Ok(())
}

/// Reads a profile as `docker run --security-opt seccomp=FILE` sends it, for a container with these capabilities.
fn custom_seccomp(text: &str, caps: &[String]) -> Result<LinuxSeccomp> {
    let held = caps.iter().filter_map(|cap| capability(cap)).collect();
    runtime::read_seccomp(text, &held).map_err(|why| {
        Error::invalid(format!("Decoding seccomp profile failed: invalid --security-opt seccomp: {why}"))
    })
}

/// Profile that Docker's containers have.
const APPARMOR_DEFAULT: &str = "docker-default";

/// What AppArmor does for containers that ask for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel has it not, or it is off.
    Off,
    /// Nothing: the profile `docker-default` is not loaded, or this process cannot see whether it is.
    NotLoaded,
    /// It confines them by `docker-default`.
    Confines,
}

/// Returns what is in effect on this host now. The profile has to be compiled by AppArmor's own tools, which load it
/// before the daemon starts (`deploy/rswarm.service`); an operator who has Docker has it, too.
#[must_use]
pub fn apparmor_in_effect() -> AppArmor {
    match (runtime::apparmor_enabled(), runtime::apparmor_loaded(APPARMOR_DEFAULT)) {
        (false, _) => AppArmor::Off,
        (true, Some(true)) => AppArmor::Confines,
        (true, Some(false) | None) => AppArmor::NotLoaded,
    }
}

/// Returns the AppArmor profile of a container; `None` = none.
fn apparmor(security: &Security, privileged: bool) -> Option<String> {
    match &security.apparmor {
        Some(profile) => Some(profile.clone()).filter(|p| !p.is_empty()),
        None if privileged => None,
        None => (apparmor_in_effect() == AppArmor::Confines).then(|| APPARMOR_DEFAULT.to_owned()),
    }
}

/// # Errors
/// `InvalidParameter` for an option that does not exist.
pub(crate) fn security(options: &[String]) -> Result<Security> {
    let mut security = Security::default();
    for option in options {
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin" | "default") => security.seccomp = Seccomp::Default,
            ("seccomp", json) if json.trim_start().starts_with('{') => {
                security.seccomp = Seccomp::Custom(json.to_owned());
            }
            ("seccomp", "") => return Err(Error::invalid("invalid --security-opt: seccomp has no profile")),
            ("systempaths", "unconfined") => security.unmask = true,
            ("apparmor", "unconfined") => security.apparmor = Some(String::new()),
            ("apparmor", profile) if is_profile(profile) => security.apparmor = Some(profile.to_owned()),
            ("label", "disable") => {}
            ("label", _) => {
                return Err(Error::invalid(format!(
                    "invalid --security-opt {option:?}: label needs SELinux, which is not supported here; hint: label=disable"
                )));
            }
            _ => return Err(Error::invalid(format!("invalid --security-opt: {option:?}"))),
        }
    }
    Ok(security)
}

/// Builds the whole spec.
///
/// # Errors
/// `InvalidParameter` for limits, capabilities or options that do not exist.
pub(crate) fn spec(parts: &Parts<'_>) -> Result<Spec> {
    let host = &parts.config.host;
    let security = security(&host.security_opts)?;
    let caps = capabilities(&host.cap_add, &host.cap_drop, host.privileged)?;
    let mut process = json!({
        "terminal": parts.config.tty,
        "consoleSize": host.console_size.filter(|_| parts.config.tty).map(console_size),
        "user": user_with(parts.identity, &parts.edits.additional_gids),
        "args": merge::command(parts.config),
        "env": env(parts),
        "cwd": cwd(parts.config),
        "capabilities": capability_sets(&caps, parts.identity.uid),
        "rlimits": host.ulimits.iter().map(rlimit).collect::<Result<Vec<_>>>()?,
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    });
    if let Some(profile) = apparmor(&security, host.privileged) {
        process["apparmorProfile"] = profile.into();
    }
    let mut linux = json!({
        "cgroupsPath": parts.cgroups_path,
        "namespaces": namespaces(parts),
        "sysctl": host.sysctls.iter().filter(|(k, _)| !(k.starts_with("net.") && parts.netns.is_some())).collect::<std::collections::BTreeMap<_, _>>(),
        "resources": resources(&host.resources, host.privileged, parts)?,
        "devices": devices(parts)?,
        "maskedPaths": host.hidden_paths(),
        "readonlyPaths": host.unwritable_paths(),
    });
    if let Some((map, _)) = parts.users {
        linux["uidMappings"] = mappings(&map.uids);
        linux["gidMappings"] = mappings(&map.gids);
    }
    if !host.privileged {
        match &security.seccomp {
            Seccomp::Default => linux["seccomp"] = seccomp(&caps, parts.id)?,
            Seccomp::Unconfined => {}
            Seccomp::Custom(text) => {
                linux["seccomp"] = seccomp_json(custom_seccomp(text, &caps)?, parts.id)?;
            }
        }
    }
    let own_uts = host.uts_mode != "host";
    let mut whole = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": { "path": "rootfs", "readonly": host.read_only },
        "mounts": mounts(parts),
        "linux": linux,
        "annotations": host.annotations,
    });
    let hooks = hooks(&parts.edits.hooks)?;
    if !hooks.is_empty() {
        whole["hooks"] = hooks.into();
    }
    if own_uts {
        whole["hostname"] = parts.hostname.into();
        if let Some(domain) = parts.config.domainname.as_deref().filter(|d| !d.is_empty()) {
            whole["domainname"] = domain.into();
        }
    }
    parsed(whole, parts.id)
}

/// Returns how large a terminal is: rows and columns.
fn console_size((height, width): (u16, u16)) -> Value {
    json!({ "height": height, "width": width })
}

/// Builds the process of an exec.
pub(crate) fn exec_process(
    config: &ContainerConfig,
    identity: &Identity,
    exec: &ExecConfig,
    hostname: &str,
    links: &[String],
    console: Option<(u16, u16)>,
) -> Result<Process> {
    let host = &config.host;
    let caps = capabilities(&host.cap_add, &host.cap_drop, host.privileged || exec.privileged)?;
    let mut env = base_env(config, hostname, identity, exec.tty, links);
    env = merge::merge_env(&env, &exec.env);
    let process = json!({
        "terminal": exec.tty,
        "consoleSize": console.filter(|_| exec.tty).map(console_size),
        "user": user(identity),
        "args": exec.cmd,
        "env": env,
        "cwd": exec.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| cwd(config)),
        "capabilities": capability_sets(&caps, identity.uid),
        "noNewPrivileges": security(&host.security_opts)?.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": host.ulimits.iter().map(rlimit).collect::<Result<Vec<_>>>()?,
    });
    parsed(process, "exec")
}

/// Builds the cgroup limits for a live update.
pub(crate) fn limits(resources_wanted: &Resources) -> Result<LinuxResources> {
    parsed(Value::Object(limit_map(resources_wanted)?), "update")
}

fn mappings(ranges: &[runtime::IdRange]) -> Value {
    let range =
        |r: &runtime::IdRange| json!({ "containerID": r.inside, "hostID": r.outside, "size": r.count });
    ranges.iter().map(range).collect()
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value, id: &str) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|source| Error::Spec { id: id.to_owned(), source: oci_spec::OciSpecError::SerDe(source) })
}

/// Returns the hooks of devices, by when they run.
fn hooks(of_devices: &[cdi::DeviceHook]) -> Result<serde_json::Map<String, Value>> {
    const NAMES: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let mut all = serde_json::Map::new();
    for hook in of_devices {
        if !NAMES.contains(&hook.hook_name.as_str()) {
            return Err(Error::invalid(format!(
                "CDI device injection failed: no such hook with name: {:?}",
                hook.hook_name
            )));
        }
        let mut entry = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
        if let Some(seconds) = hook.timeout {
            entry["timeout"] = seconds.into();
        }
        if let Value::Array(list) = all.entry(hook.hook_name.clone()).or_insert_with(|| json!([])) {
            list.push(entry);
        }
    }
    Ok(all)
}

fn user_with(identity: &Identity, gids: &[u32]) -> Value {
    let mut value = user(identity);
    if let Value::Array(groups) = &mut value["additionalGids"] {
        groups.extend(gids.iter().map(|gid| Value::from(*gid)));
    }
    value
}

fn user(identity: &Identity) -> Value {
    json!({ "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups })
}

fn capability_sets(caps: &[String], uid: u32) -> Value {
    // As Docker: an ordinary user starts without effective capabilities, but may get them from file capabilities.
    if uid == 0 {
        json!({ "bounding": caps, "effective": caps, "permitted": caps })
    } else {
        json!({ "bounding": caps })
    }
}

fn cwd(config: &ContainerConfig) -> String {
    config.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| "/".into())
}

fn env(parts: &Parts<'_>) -> Vec<String> {
    let env = base_env(parts.config, parts.hostname, parts.identity, parts.config.tty, parts.links);
    merge::merge_env(&env, &parts.edits.env)
}

fn base_env(
    config: &ContainerConfig,
    hostname: &str,
    identity: &Identity,
    tty: bool,
    links: &[String],
) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".into());
    }
    env.extend_from_slice(links);
    env = merge::merge_env(&env, &config.env);
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    env
}

pub(crate) fn rlimit(limit: &Ulimit) -> Result<Value> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let name = limit.name.to_ascii_lowercase();
    if !NAMES.contains(&name.as_str()) {
        return Err(Error::invalid(format!("invalid ulimit type: {}", limit.name)));
    }
    if limit.soft < -1 || limit.hard < -1 {
        return Err(Error::invalid(format!("invalid ulimit {name}: less than -1 (unlimited)")));
    }
    let number = |n: i64| u64::try_from(n).unwrap_or(u64::MAX); // -1 = unlimited
    if number(limit.soft) > number(limit.hard) {
        return Err(Error::invalid("ulimit soft limit must be less than or equal to hard limit"));
    }
    if name == "nofile"
        && let Some(max) = files_max()
        && limit.hard != -1
        && number(limit.hard) > max
    {
        return Err(Error::invalid(format!(
            "invalid ulimit nofile: {} is more than this host allows a process (fs.nr_open: {max})",
            limit.hard
        )));
    }
    let name = format!("RLIMIT_{}", name.to_ascii_uppercase());
    Ok(json!({ "type": name, "soft": number(limit.soft), "hard": number(limit.hard) }))
}

/// Descriptors that the kernel lets a process have at most; `None` = nobody says.
fn files_max() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}

fn namespaces(parts: &Parts<'_>) -> Vec<Value> {
    let host = &parts.config.host;
    let joined =
        |kind: &str, file: &str, pid: u32| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") });
    let mut namespaces = vec![json!({ "type": "mount" })];
    if let Some((_, path)) = parts.users {
        namespaces.push(json!({ "type": "user", "path": path }));
    }
    if let Some(path) = parts.netns {
        namespaces.push(json!({ "type": "network", "path": path }));
    }
    match parts.pid_of {
        Some(pid) => namespaces.push(joined("pid", "pid", pid)),
        None if host.pid_mode != "host" => namespaces.push(json!({ "type": "pid" })),
        None => {}
    }
    match parts.ipc_of {
        Some(pid) => namespaces.push(joined("ipc", "ipc", pid)),
        None if host.ipc_mode != "host" => namespaces.push(json!({ "type": "ipc" })),
        None => {}
    }
    if host.uts_mode != "host" {
        namespaces.push(json!({ "type": "uts" }));
    }
    if host.cgroupns_mode != "host" {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    namespaces
}

fn limit_map(wanted: &Resources) -> Result<serde_json::Map<String, Value>> {
    let mut cpu = serde_json::Map::new();
    if wanted.cpu_shares > 0 {
        cpu.insert("shares".into(), wanted.cpu_shares.into());
    }
    if wanted.cpu_nanos > 0 {
        let cpus = std::thread::available_parallelism().map_or(u64::MAX, |n| n.get() as u64);
        if wanted.cpu_nanos < 10_000_000 || wanted.cpu_nanos > cpus.saturating_mul(1_000_000_000) {
            return Err(Error::invalid(format!(
                "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
        let period = 100_000u64;
        let quota =
            i64::try_from(wanted.cpu_nanos.saturating_mul(period) / 1_000_000_000).unwrap_or(i64::MAX);
        cpu.insert("period".into(), period.into());
        cpu.insert("quota".into(), quota.into());
    } else {
        if wanted.cpu_period > 0 {
            cpu.insert("period".into(), wanted.cpu_period.into());
        }
        if wanted.cpu_quota != 0 {
            cpu.insert("quota".into(), wanted.cpu_quota.into());
        }
    }
    if wanted.cpu_realtime_period > 0 {
        cpu.insert("realtimePeriod".into(), wanted.cpu_realtime_period.into());
    }
    if wanted.cpu_realtime_runtime != 0 {
        cpu.insert("realtimeRuntime".into(), wanted.cpu_realtime_runtime.into());
    }
    if !wanted.cpuset_cpus.is_empty() {
        cpu.insert("cpus".into(), wanted.cpuset_cpus.clone().into());
    }
    if !wanted.cpuset_mems.is_empty() {
        cpu.insert("mems".into(), wanted.cpuset_mems.clone().into());
    }
    let mut memory = serde_json::Map::new();
    if wanted.memory_bytes > 0 {
        if wanted.memory_bytes < 6 << 20 {
            return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
        }
        memory.insert("limit".into(), wanted.memory_bytes.into());
        // As Docker: the same amount of swap again unless said otherwise.
        let swap = match wanted.memory_swap_bytes {
            0 => i64::try_from(wanted.memory_bytes.saturating_mul(2)).unwrap_or(i64::MAX),
            given => given,
        };
        if swap > 0 && u64::try_from(swap).is_ok_and(|s| s < wanted.memory_bytes) {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        memory.insert("swap".into(), swap.into());
    }
    if let Some(swappiness) = wanted.memory_swappiness {
        memory.insert("swappiness".into(), swappiness.into());
    }
    if wanted.memory_reservation_bytes > 0 {
        memory.insert("reservation".into(), wanted.memory_reservation_bytes.into());
    }
    if wanted.oom_kill_disable {
        memory.insert("disableOOMKiller".into(), true.into());
    }
    let mut map = serde_json::Map::new();
    if !cpu.is_empty() {
        map.insert("cpu".into(), cpu.into());
    }
    if !memory.is_empty() {
        map.insert("memory".into(), memory.into());
    }
    if let Some(limit) = wanted.pids_limit.filter(|n| *n > 0) {
        map.insert("pids".into(), json!({ "limit": limit }));
    }
    if wanted.blkio_weight > 0 {
        map.insert("blockIO".into(), json!({ "weight": wanted.blkio_weight }));
    }
    Ok(map)
}

fn resources(wanted: &Resources, privileged: bool, parts: &Parts<'_>) -> Result<Value> {
    let mut map = limit_map(wanted)?;
    let mut rules = vec![];
    if privileged {
        rules.push(json!({ "allow": true, "access": "rwm" }));
    } else {
        rules.push(json!({ "allow": false, "access": "rwm" }));
        for (kind, major, minor) in [
            ("c", Some(1), Some(3)),
            ("c", Some(1), Some(5)),
            ("c", Some(1), Some(7)),
            ("c", Some(1), Some(8)),
            ("c", Some(1), Some(9)),
            ("c", Some(5), Some(0)),
            ("c", Some(5), Some(1)),
            ("c", Some(5), Some(2)),
            ("c", Some(136), None),
        ] {
            let mut rule = json!({ "allow": true, "type": kind, "access": "rwm" });
            if let Some(major) = major {
                rule["major"] = major.into();
            }
            if let Some(minor) = minor {
                rule["minor"] = minor.into();
            }
            rules.push(rule);
        }
        for kind in ["c", "b"] {
            rules.push(json!({ "allow": true, "type": kind, "access": "m" }));
        }
        for device in all_devices(parts)? {
            rules.push(
                json!({ "allow": true, "type": device.kind, "major": device.major, "minor": device.minor,
                "access": device.access }),
            );
        }
        for rule in &parts.config.host.device_cgroup_rules {
            rules.push(devices::rule(rule)?);
        }
    }
    map.insert("devices".into(), rules.into());
    Ok(Value::Object(map))
}

/// Returns the devices asked for by path and by a vendor's name; the latter win.
fn all_devices(parts: &Parts<'_>) -> Result<Vec<devices::HostDevice>> {
    let of_vendors = devices::of_vendors(&parts.edits.device_nodes, parts.identity)?;
    let mut all = devices::of_host(&parts.config.host)?;
    let vendors: HashSet<&str> = of_vendors.iter().map(|device| device.path.as_str()).collect();
    all.retain(|device| !vendors.contains(device.path.as_str()));
    all.extend(of_vendors);
    Ok(all)
}

fn devices(parts: &Parts<'_>) -> Result<Vec<Value>> {
    Ok(all_devices(parts)?
        .iter()
        .map(|d| {
            json!({ "path": d.path, "type": d.kind, "major": d.major, "minor": d.minor, "fileMode": d.mode,
                "uid": d.uid, "gid": d.gid })
        })
        .collect())
}

impl HostConfig {
    /// Returns what is hidden in the container: what was asked for, else Docker's list.
    #[must_use]
    pub fn hidden_paths(&self) -> Vec<String> {
        self.paths(self.masked_paths.as_ref(), &MASKED)
    }

    /// Returns what can only be read in the container.
    #[must_use]
    pub fn unwritable_paths(&self) -> Vec<String> {
        self.paths(self.readonly_paths.as_ref(), &READ_ONLY)
    }

    fn paths(&self, wanted: Option<&Vec<String>>, default: &[&str]) -> Vec<String> {
        let open = self.privileged || security(&self.security_opts).is_ok_and(|s| s.unmask);
        match wanted {
            Some(paths) => paths.clone(),
            None if open => vec![],
            None => default.iter().map(|p| (*p).to_owned()).collect(),
        }
    }
}

fn seccomp(caps: &[String], id: &str) -> Result<Value> {
    let set = caps.iter().filter_map(|cap| capability(cap)).collect();
    seccomp_json(runtime::default_seccomp(&set), id)
}

fn seccomp_json(profile: LinuxSeccomp, id: &str) -> Result<Value> {
    serde_json::to_value(profile)
        .map_err(|source| Error::Spec { id: id.to_owned(), source: oci_spec::OciSpecError::SerDe(source) })
}

fn mounts(parts: &Parts<'_>) -> Vec<Value> {
    let host = &parts.config.host;
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let system_access = if host.privileged { "rw" } else { "ro" };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let has_tty_group = parts.users.is_none_or(|(map, _)| map.gid_outside(5).is_some());
    if !parts.userns_squash && has_tty_group {
        pts.push("gid=5");
    }
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
    ];
    if parts.netns.is_none() && parts.userns_squash {
        // sysfs shows a network namespace: only its owner may mount it.
        mounts.push(mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "rro"]));
    } else {
        mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", system_access]));
    }
    mounts.push(mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", system_access],
    ));
    let has = |path: &str| {
        parts.mounts.iter().any(|m| m.destination == path)
            || parts.tmpfs.iter().any(|t| t.destination == path)
    };
    if !has("/dev/mqueue") {
        if host.ipc_mode == "host" && Path::new("/dev/mqueue").exists() {
            mounts.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"]));
        } else {
            mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
        }
    }
    if !has("/dev/shm") {
        let size = format!("size={}", host.shm_size_bytes.filter(|s| *s > 0).unwrap_or(SHM_BYTES));
        match (host.ipc_mode.as_str(), parts.ipc_of) {
            ("none", _) => {}
            ("host", _) => {
                mounts.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]))
            }
            (_, Some(pid)) => {
                let of = format!("X-rswarm.of-process={pid}");
                let options = ["rbind", "nosuid", "noexec", "nodev", &of];
                mounts.push(mount("/dev/shm", "bind", "/dev/shm", &options));
            }
            _ => mounts.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            )),
        }
    }
    let mut own = vec![];
    for (source, destination, writable) in parts.files {
        let access = if *writable { "rw" } else { "rro" };
        let source = source.to_string_lossy();
        own.push(mount(destination, "bind", &source, &["rbind", "rprivate", access]));
    }
    for tmpfs in parts.tmpfs {
        let mut options = vec!["nosuid", "nodev", "noexec"];
        for option in tmpfs.options.split(',').filter(|o| !o.is_empty()) {
            match option {
                "exec" => options.retain(|o| *o != "noexec"),
                "dev" => options.retain(|o| *o != "nodev"),
                "suid" => options.retain(|o| *o != "nosuid"),
                other if !options.contains(&other) => options.push(other),
                _ => {}
            }
        }
        own.push(mount(&tmpfs.destination, "tmpfs", "tmpfs", &options));
    }
    let of_host = |m: &&MountPoint| !matches!(m.kind, MountPointKind::Tmpfs | MountPointKind::Image);
    for point in parts.mounts.iter().filter(of_host) {
        let (bind, read_only) = match point.recursion {
            BindRecursion::Enabled | BindRecursion::ReadOnly => ("rbind", "rro"),
            BindRecursion::Disabled => ("bind", "rro"),
            BindRecursion::Writable => ("rbind", "ro"),
        };
        let access = if point.writable { "rw" } else { read_only };
        let propagation = if point.propagation.is_empty() { "rprivate" } else { &point.propagation };
        let subdir = format!("X-mount.subdir={}", point.subpath);
        let mut options = vec![bind, propagation, access];
        options.extend((!point.subpath.is_empty()).then_some(subdir.as_str()));
        // A record of an earlier release says nothing of volumes.
        let idmap = point.idmap || point.kind == MountPointKind::Volume;
        options.extend((idmap && parts.users.is_some()).then_some("ridmap"));
        own.push(mount(&point.destination, "bind", &point.source.to_string_lossy(), &options));
    }
    for layers in host.build.iter().flat_map(|step| &step.mounts).chain(parts.images) {
        own.push(layer_mount(layers, parts.userns_squash, parts.users.is_some()));
    }
    for device in &parts.edits.mounts {
        own.retain(|m| m["destination"] != device.container_path.as_str());
        let mut options: Vec<&str> = device.options.iter().map(String::as_str).collect();
        if device.kind.is_empty() && !options.iter().any(|o| matches!(*o, "bind" | "rbind")) {
            options.push("rbind");
        }
        let kind = if device.kind.is_empty() { "bind" } else { &device.kind };
        own.push(mount(&device.container_path, kind, &device.host_path, &options));
    }
    // Parents before what lies in them; the sort is stable.
    own.sort_by_key(|m| m["destination"].as_str().map_or(0, |d| d.matches('/').count()));
    mounts.extend(own);
    mounts
}

fn layer_mount(layers: &LayerMount, squash: bool, idmap: bool) -> Value {
    let (kind, source, mut options) = match (&layers.lowers[..], &layers.scratch) {
        // Overlayfs wants two folders, or one to write to.
        ([only], None) => ("bind", only.to_string_lossy(), vec!["rbind".to_owned(), "rro".to_owned()]),
        (lowers, scratch) => {
            let mut options: Vec<String> =
                lowers.iter().map(|lower| format!("lowerdir+={}", lower.display())).collect();
            match scratch {
                Some(scratch) => {
                    options.push(format!("upperdir={}", scratch.join("upper").display()));
                    options.push(format!("workdir={}", scratch.join("work").display()));
                }
                None => options.push("ro".to_owned()),
            }
            if squash {
                options.push("userxattr".to_owned());
            }
            ("overlay", "overlay".into(), options)
        }
    };
    options.extend(idmap.then(|| "idmap".to_owned()));
    json!({ "destination": layers.target, "type": kind, "source": source, "options": options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        capabilities(&own(add), &own(drop), false).unwrap()
    }

    #[test]
    fn capabilities_are_dockers_default_with_what_is_added_and_dropped() {
        assert_eq!(caps(&[], &[]).len(), 14);
        assert!(caps(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!caps(&[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(caps(&["SYS_TIME"], &["ALL"]), ["CAP_SYS_TIME"]);
        let all = caps(&["ALL"], &[]);
        assert_eq!(all.len(), runtime::held_caps().len());
        let but_one: Vec<_> = all.into_iter().filter(|cap| cap != "CAP_SYS_CHROOT").collect();
        assert_eq!(caps(&["ALL"], &["SYS_CHROOT"]), but_one);
        assert!(capabilities(&["NO_SUCH".to_owned()], &[], false).is_err());
        let unknown: Vec<_> = ALL_CAPS.iter().filter(|cap| capability(cap).is_none()).collect();
        assert!(unknown.is_empty(), "the seccomp profile does not know {unknown:?}");
    }

    #[test]
    fn security_options_are_understood_or_refused() {
        let of = |text: &str| security(&[text.to_owned()]);
        assert!(of("no-new-privileges").unwrap().no_new_privileges);
        assert!(of("no-new-privileges:true").unwrap().no_new_privileges);
        assert_eq!(of("seccomp=unconfined").unwrap().seccomp, Seccomp::Unconfined);
        assert!(of("seccomp=nonsense").is_err());
        assert!(of("frobnicate").is_err());
    }

    #[test]
    fn the_profile_that_the_unit_loads_is_the_one_that_containers_get() {
        let profile = include_str!("../../../deploy/apparmor/docker-default");
        let head = format!("profile {APPARMOR_DEFAULT} flags=(attach_disconnected,mediate_deleted) {{");
        assert!(profile.lines().any(|line| line == head));
        let unit = include_str!("../../../deploy/rswarm.service");
        let loads = format!("ExecStartPre=-/sbin/apparmor_parser -r -W /etc/apparmor.d/{APPARMOR_DEFAULT}");
        assert!(unit.lines().any(|line| line == loads));
    }

    #[test]
    fn limits_become_cgroup_values() {
        let wanted = Resources {
            cpu_nanos: 1_500_000_000,
            memory_bytes: 64 << 20,
            pids_limit: Some(10),
            ..Resources::default()
        };
        let got = Value::Object(limit_map(&wanted).unwrap());
        assert_eq!(got["cpu"], json!({ "period": 100_000, "quota": 150_000 }));
        assert_eq!(got["memory"], json!({ "limit": 64 << 20, "swap": 128 << 20 }));
        assert_eq!(got["pids"]["limit"], 10);
        assert!(limits(&wanted).is_ok());
        assert!(limit_map(&Resources { memory_bytes: 1 << 20, ..Resources::default() }).is_err());
    }

    #[test]
    fn the_whole_spec_is_valid() {
        let config = ContainerConfig { cmd: Some(vec!["true".into()]), ..ContainerConfig::default() };
        let identity = Identity { uid: 33, gid: 33, groups: vec![40], home: "/".into() };
        let point = MountPoint {
            kind: MountPointKind::Bind,
            name: String::new(),
            source: "/srv".into(),
            subpath: String::new(),
            destination: "/a/b".into(),
            driver: String::new(),
            mode: String::new(),
            writable: false,
            propagation: String::new(),
            recursion: BindRecursion::Enabled,
            idmap: false,
            anonymous: false,
            image: String::new(),
        };
        let shallow = MountPoint { destination: "/a".into(), ..point.clone() };
        let parts = Parts {
            id: "x",
            config: &config,
            hostname: "web",
            links: &[],
            identity: &identity,
            mounts: &[point, shallow],
            images: &[],
            tmpfs: &[],
            files: &[],
            edits: &cdi::Edits::default(),
            netns: Some(Path::new("/run/ns")),
            pid_of: None,
            ipc_of: None,
            cgroups_path: "/rswarm/x",
            userns_squash: false,
            users: None,
        };
        let spec = spec(&parts).unwrap();
        let mounts: Vec<_> =
            spec.mounts().as_ref().unwrap().iter().map(|m| m.destination().display().to_string()).collect();
        assert_eq!(mounts[mounts.len() - 2..], ["/a", "/a/b"]);
        let process = spec.process().as_ref().unwrap();
        assert!(process.capabilities().as_ref().unwrap().effective().is_none());
        assert!(process.env().as_ref().unwrap().contains(&"HOSTNAME=web".to_owned()));
    }
}
