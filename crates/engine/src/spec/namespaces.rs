//! The namespaces of a container: its own, and those that it joins.

use crate::spec::parts::Parts;
use serde_json::{Value, json};

/// Returns them.
pub(super) fn list(parts: &Parts<'_>) -> Vec<Value> {
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

/// Writes which ids of the host are those of a user namespace.
pub(super) fn mappings(ranges: &[runtime::IdRange]) -> Value {
    let range =
        |r: &runtime::IdRange| json!({ "containerID": r.inside, "hostID": r.outside, "size": r.count });
    ranges.iter().map(range).collect()
}
