//! The OCI runtime spec of a container, as Docker would write it. Pure: everything looked up before comes in by
//! [`Parts`]. Written as JSON and parsed, because that is how the specification and every example show it.
//!
//! Source: OCI runtime-spec 1.2; moby `oci/defaults.go`, `daemon/oci_linux.go`.

use crate::{
    ask::{config::ContainerConfig, execs::ExecConfig, merge},
    error::{Error, Result},
    spec::{
        capabilities, cdi, devices, limits, mounts, namespaces, parsed, parts::Parts, security,
        users::Identity,
    },
};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the whole spec.
///
/// # Errors
/// `InvalidParameter` for limits, capabilities or options that do not exist.
pub(crate) fn spec(parts: &Parts<'_>) -> Result<Spec> {
    let host = &parts.config.host;
    let security = security::read(&host.security_opts)?;
    let caps = capabilities::of(&host.cap_add, &host.cap_drop, host.privileged)?;
    let mut process = json!({
        "terminal": parts.config.tty,
        "consoleSize": host.console_size.filter(|_| parts.config.tty).map(console_size),
        "user": user_with(parts.identity, &parts.edits.additional_gids),
        "args": merge::command(parts.config),
        "env": env(parts),
        "cwd": cwd(parts.config),
        "capabilities": capabilities::sets(&caps, parts.identity.uid),
        "rlimits": host.ulimits.iter().map(limits::rlimit).collect::<Result<Vec<_>>>()?,
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    });
    if let Some(profile) = security::apparmor(&security, host.privileged) {
        process["apparmorProfile"] = profile.into();
    }
    let mut linux = json!({
        "cgroupsPath": parts.cgroups_path,
        "namespaces": namespaces::list(parts),
        "sysctl": host.sysctls.iter().filter(|(k, _)| !(k.starts_with("net.") && parts.netns.is_some())).collect::<std::collections::BTreeMap<_, _>>(),
        "resources": limits::resources(&host.resources, host.privileged, parts)?,
        "devices": devices::nodes(parts)?,
        "maskedPaths": host.hidden_paths(),
        "readonlyPaths": host.unwritable_paths(),
    });
    if let Some((map, _)) = parts.users {
        linux["uidMappings"] = namespaces::mappings(&map.uids);
        linux["gidMappings"] = namespaces::mappings(&map.gids);
    }
    if !host.privileged
        && let Some(filter) = security::seccomp(&security, &caps, parts.id)?
    {
        linux["seccomp"] = filter;
    }
    let own_uts = host.uts_mode != "host";
    let mut whole = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": { "path": "rootfs", "readonly": host.read_only },
        "mounts": mounts::list(parts),
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
    let caps = capabilities::of(&host.cap_add, &host.cap_drop, host.privileged || exec.privileged)?;
    let mut env = base_env(config, hostname, identity, exec.tty, links);
    env = merge::merge_env(&env, &exec.env);
    let process = json!({
        "terminal": exec.tty,
        "consoleSize": console.filter(|_| exec.tty).map(console_size),
        "user": user(identity),
        "args": exec.cmd,
        "env": env,
        "cwd": exec.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| cwd(config)),
        "capabilities": capabilities::sets(&caps, identity.uid),
        "noNewPrivileges": security::read(&host.security_opts)?.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": host.ulimits.iter().map(limits::rlimit).collect::<Result<Vec<_>>>()?,
    });
    parsed(process, "exec")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::container::{MountPoint, MountPointKind};
    use model::BindRecursion;
    use std::path::Path;

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
