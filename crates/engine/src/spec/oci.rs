//! The OCI runtime spec of a container, as Docker would write it. Pure: everything looked up before comes in by
//! [`Parts`].
//!
//! Source: OCI runtime-spec 1.2; moby `oci/defaults.go`, `daemon/oci_linux.go`.

use crate::{
    ask::{config::ContainerConfig, execs::ExecConfig, merge},
    error::{Error, Result},
    spec::{capabilities, cdi, devices, limits, mounts, namespaces, parts::Parts, security, users::Identity},
};
use runtime::config::{ConsoleSize, Hook, Hooks, Linux, Process, Root, Spec, User};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the whole spec.
///
/// # Errors
/// `InvalidParameter` for limits, capabilities or options that do not exist.
pub(crate) fn spec(parts: &Parts<'_>) -> Result<Spec> {
    let host = &parts.config.host;
    let security = security::read(&host.security_opts)?;
    let caps = capabilities::of(&host.cap_add, &host.cap_drop, host.privileged)?;
    let devices = devices::all(parts)?;
    let process = Process {
        terminal: Some(parts.config.tty),
        console_size: host.console_size.filter(|_| parts.config.tty).map(console_size),
        user: user(parts.identity, &parts.edits.additional_gids),
        args: Some(merge::command(parts.config)),
        env: Some(env(parts)),
        cwd: cwd(parts.config).into(),
        capabilities: Some(capabilities::sets(&caps, parts.identity.uid)),
        rlimits: Some(host.ulimits.iter().map(limits::rlimit).collect::<Result<_>>()?),
        no_new_privileges: Some(security.no_new_privileges),
        oom_score_adj: Some(host.oom_score_adj),
        apparmor_profile: security::apparmor(&security, host.privileged),
        ..Process::default()
    };
    let of_network = |name: &str| name.starts_with("net.") && parts.netns.is_some();
    let sysctls = host.sysctls.iter().filter(|(name, _)| !of_network(name));
    let mut linux = Linux {
        cgroups_path: Some(parts.cgroups_path.into()),
        namespaces: Some(namespaces::list(parts)),
        sysctl: Some(sysctls.map(|(name, value)| (name.clone(), value.clone())).collect()),
        resources: Some(limits::resources(
            &host.resources,
            host.privileged,
            &devices,
            &host.device_cgroup_rules,
        )?),
        devices: Some(devices::nodes(&devices)),
        masked_paths: Some(host.hidden_paths()),
        readonly_paths: Some(host.unwritable_paths()),
        ..Linux::default()
    };
    if let Some((map, _)) = parts.users {
        linux.uid_mappings = Some(namespaces::mappings(&map.uids));
        linux.gid_mappings = Some(namespaces::mappings(&map.gids));
    }
    if !host.privileged {
        linux.seccomp = security::seccomp(&security, &caps)?;
    }
    let mut whole = Spec {
        oci_version: "1.2.0".to_owned(),
        process: Some(process),
        root: Some(Root { path: "rootfs".into(), readonly: Some(host.read_only) }),
        mounts: Some(mounts::list(parts)),
        linux: Some(linux),
        annotations: Some(host.annotations.clone()),
        hooks: hooks(&parts.edits.hooks)?,
        ..Spec::default()
    };
    if host.uts_mode != "host" {
        whole.hostname = Some(parts.hostname.to_owned());
        whole.domainname = parts.config.domainname.clone().filter(|domain| !domain.is_empty());
    }
    Ok(whole)
}

/// Returns how large a terminal is: rows and columns.
fn console_size((height, width): (u16, u16)) -> ConsoleSize {
    ConsoleSize { height: height.into(), width: width.into() }
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
    Ok(Process {
        terminal: Some(exec.tty),
        console_size: console.filter(|_| exec.tty).map(console_size),
        user: user(identity, &[]),
        args: Some(exec.cmd.clone()),
        env: Some(env),
        cwd: exec.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| cwd(config)).into(),
        capabilities: Some(capabilities::sets(&caps, identity.uid)),
        no_new_privileges: Some(security::read(&host.security_opts)?.no_new_privileges),
        oom_score_adj: Some(host.oom_score_adj),
        rlimits: Some(host.ulimits.iter().map(limits::rlimit).collect::<Result<_>>()?),
        ..Process::default()
    })
}

/// Returns the hooks of devices, by when they run.
fn hooks(of_devices: &[cdi::DeviceHook]) -> Result<Option<Hooks>> {
    let mut all = Hooks::default();
    for hook in of_devices {
        let list = match hook.hook_name.as_str() {
            "prestart" => &mut all.prestart,
            "createRuntime" => &mut all.create_runtime,
            "createContainer" => &mut all.create_container,
            "startContainer" => &mut all.start_container,
            "poststart" => &mut all.poststart,
            "poststop" => &mut all.poststop,
            other => {
                return Err(Error::invalid(format!(
                    "CDI device injection failed: no such hook with name: {other:?}"
                )));
            }
        };
        list.get_or_insert_default().push(Hook {
            path: (&hook.path).into(),
            args: Some(hook.args.clone()),
            env: Some(hook.env.clone()),
            timeout: hook.timeout,
        });
    }
    Ok((!of_devices.is_empty()).then_some(all))
}

fn user(identity: &Identity, more_gids: &[u32]) -> User {
    let gids = identity.groups.iter().chain(more_gids).copied().collect();
    User { uid: identity.uid, gid: identity.gid, additional_gids: Some(gids), umask: None }
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
    use serde_json::{Value, json};
    use std::path::Path;

    fn point(destination: &str) -> MountPoint {
        MountPoint {
            kind: MountPointKind::Bind,
            name: String::new(),
            source: "/srv".into(),
            subpath: String::new(),
            destination: destination.into(),
            driver: String::new(),
            mode: String::new(),
            writable: false,
            propagation: String::new(),
            recursion: BindRecursion::Enabled,
            idmap: false,
            anonymous: false,
            image: String::new(),
        }
    }

    fn spec_of(config: &ContainerConfig, mounts: &[MountPoint]) -> Spec {
        let identity = Identity { uid: 33, gid: 33, groups: vec![40], home: "/".into() };
        let parts = Parts {
            config,
            hostname: "web",
            links: &[],
            identity: &identity,
            mounts,
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
        spec(&parts).unwrap()
    }

    #[test]
    fn the_whole_spec_is_valid() {
        let config = ContainerConfig { cmd: Some(vec!["true".into()]), ..ContainerConfig::default() };
        let spec = spec_of(&config, &[point("/a/b"), point("/a")]);
        let mounts: Vec<_> =
            spec.mounts.iter().flatten().map(|m| m.destination.display().to_string()).collect();
        assert_eq!(mounts[mounts.len() - 2..], ["/a", "/a/b"]);
        let process = spec.process.unwrap();
        assert!(process.capabilities.unwrap().effective.is_none());
        assert!(process.env.unwrap().contains(&"HOSTNAME=web".to_owned()));
    }

    /// What becomes of a key: a value that the spec shows, with what shows it there, or the file that carries it out.
    enum Told {
        Spec(Value),
        By(&'static str),
    }
    use Told::{By, Spec as Said};

    /// One line for each key of a container.
    fn told(key: &str) -> Option<Told> {
        Some(match key {
            "cmd" => Said(json!(["false"])),
            "entrypoint" => Said(json!(["/entry"])),
            "env" => Said(json!(["A=1"])),
            "working_dir" => Said(json!("/work")),
            "domainname" => Said(json!("lan")),
            "tty" => Said(json!(true)),
            "name" | "image" | "endpoints" => By("life/create.rs"),
            "user" | "hostname" | "open_stdin" | "stdin_once" | "healthcheck" => By("life/start.rs"),
            "stop_signal" | "stop_timeout" => By("life/operations.rs"),
            "exposed_ports" => By("life/start.rs"),
            "volumes" => By("files/mounts.rs"),
            "labels" => By("seen/list.rs"),
            // Shown, as Docker does: who attaches says himself to what.
            "attach_stdin" | "attach_stdout" | "attach_stderr" => By("ask/config.rs"),
            _ => return None,
        })
    }

    /// One line for each key of its part that depends on the host.
    fn told_of_host(key: &str) -> Option<Told> {
        Some(match key {
            "cap_add" => Said(json!(["SYS_ADMIN"])),
            "cap_drop" => Said(json!(["CHOWN"])),
            "privileged" | "read_only" => Said(json!(true)),
            "ulimits" => Said(json!([{"name": "nofile", "soft": 1, "hard": 2}])),
            "sysctls" => Said(json!({"kernel.shmmax": "1"})),
            "devices" => {
                Said(json!([{"host_path": "/dev/zero", "container_path": "/dev/z", "permissions": "r"}]))
            }
            "device_cgroup_rules" => Said(json!(["c 13:* rwm"])),
            "shm_size_bytes" => Said(json!(1 << 20)),
            "oom_score_adj" => Said(json!(7)),
            "security_opts" => Said(json!(["no-new-privileges"])),
            "pid_mode" | "ipc_mode" | "uts_mode" | "cgroupns_mode" => Said(json!("host")),
            "masked_paths" | "readonly_paths" => Said(json!(["/proc/x"])),
            "annotations" => Said(json!({"a": "b"})),
            "build" => Said(json!({"mounts": [{"target": "/m", "lowers": ["/l"], "scratch": null}]})),
            // Of a terminal.
            "console_size" => Said(json!([2, 3])),
            "resources" => By("spec/limits.rs"),
            "mounts" | "binds" | "volumes_from" | "tmpfs" | "volume_driver" => By("files/mounts.rs"),
            "port_bindings" | "publish_all_ports" | "network_mode" | "swarm" | "dns" | "dns_search"
            | "dns_options" | "extra_hosts" | "init" | "device_requests" | "group_add" | "files" => {
                By("life/start.rs")
            }
            "links" => By("networks/links.rs"),
            "restart" | "auto_remove" => By("life/operations.rs"),
            "log" => By("logs/driver.rs"),
            "userns_mode" => By("spec/userns.rs"),
            "cgroup_parent" => By("inner.rs"),
            // There is one of each: the gate refuses others.
            "runtime" | "isolation" => By("ask/gate.rs"),
            _ => return None,
        })
    }

    /// And of limits, all of which the spec shows.
    fn limit(key: &str) -> Option<Value> {
        Some(match key {
            "cpu_nanos" => json!(10_000_000),
            "memory_bytes" | "memory_reservation_bytes" => json!(64 << 20),
            "memory_swap_bytes" => json!(-1),
            "cpuset_cpus" | "cpuset_mems" => json!("0"),
            "oom_kill_disable" => json!(true),
            "cpu_shares"
            | "cpu_period"
            | "cpu_quota"
            | "cpu_realtime_period"
            | "cpu_realtime_runtime"
            | "memory_swappiness"
            | "pids_limit"
            | "blkio_weight" => json!(12),
            _ => return None,
        })
    }

    /// A key that is added has no line in `told`, one that is lost on the way to the spec makes no difference there.
    #[test]
    fn every_key_of_a_container_is_in_its_spec_or_carried_out_elsewhere() {
        let base = json!({
            "cmd": ["true"],
            // Swap is said beside memory, a terminal's size beside a terminal.
            "host": { "resources": { "memory_bytes": 32 << 20 } },
        });
        let with_terminal = |mut config: Value| {
            config["tty"] = true.into();
            config
        };
        let spec = |config: &Value| {
            let config: ContainerConfig = serde_json::from_value(config.clone()).expect("a configuration");
            serde_json::to_value(spec_of(&config, &[])).expect("JSON")
        };
        let keys = |of: Value| of.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let whole = serde_json::to_value(ContainerConfig::default()).expect("JSON");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut lost = Vec::new();
        let mut judge = |place: &str, key: &str, told: Option<Told>| match told {
            None => lost.push(format!("{key}: what becomes of it?")),
            Some(By(file)) => {
                let text = std::fs::read_to_string(source.join(file)).expect(file);
                let field = [format!(".{key}"), format!(" {key}"), format!("({key})")];
                if !field.iter().any(|field| text.contains(field.as_str())) {
                    lost.push(format!("{key}: {file} does not know it"));
                }
            }
            Some(Said(value)) => {
                let base = if key == "console_size" { with_terminal(base.clone()) } else { base.clone() };
                let mut config = base.clone();
                let part = match place {
                    "" => &mut config,
                    "host" => &mut config["host"],
                    _ => &mut config["host"]["resources"],
                };
                part[key] = value;
                if spec(&config) == spec(&base) {
                    lost.push(format!("{key}: not in the spec"));
                }
            }
        };
        for key in keys(whole.clone()).iter().filter(|key| *key != "host") {
            judge("", key, told(key));
        }
        for key in keys(whole["host"].clone()) {
            judge("host", &key, told_of_host(&key));
        }
        for key in keys(whole["host"]["resources"].clone()) {
            judge("resources", &key, limit(&key).map(Said));
        }
        assert!(lost.is_empty(), "{}", lost.join("\n"));
    }
}
