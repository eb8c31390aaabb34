//! The namespaces of a container: its own, and those that it joins.

use crate::spec::parts::Parts;
use runtime::config::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};
use std::path::PathBuf;

/// Returns them.
pub(super) fn list(parts: &Parts<'_>) -> Vec<LinuxNamespace> {
    let host = &parts.config.host;
    let own = |kind| LinuxNamespace { kind, path: None };
    let joined = |kind, path: PathBuf| LinuxNamespace { kind, path: Some(path) };
    let of_process = |kind, file: &str, pid: u32| joined(kind, format!("/proc/{pid}/ns/{file}").into());
    let mut namespaces = vec![own(LinuxNamespaceType::Mount)];
    if let Some((_, path)) = parts.users {
        namespaces.push(joined(LinuxNamespaceType::User, path.to_owned()));
    }
    if let Some(path) = parts.netns {
        namespaces.push(joined(LinuxNamespaceType::Network, path.to_owned()));
    }
    match parts.pid_of {
        Some(pid) => namespaces.push(of_process(LinuxNamespaceType::Pid, "pid", pid)),
        None if host.pid_mode != "host" => namespaces.push(own(LinuxNamespaceType::Pid)),
        None => {}
    }
    match parts.ipc_of {
        Some(pid) => namespaces.push(of_process(LinuxNamespaceType::Ipc, "ipc", pid)),
        None if host.ipc_mode != "host" => namespaces.push(own(LinuxNamespaceType::Ipc)),
        None => {}
    }
    if host.uts_mode != "host" {
        namespaces.push(own(LinuxNamespaceType::Uts));
    }
    if host.cgroupns_mode != "host" {
        namespaces.push(own(LinuxNamespaceType::Cgroup));
    }
    namespaces
}

/// Says which ids of the host are those of a user namespace.
pub(super) fn mappings(ranges: &[runtime::IdRange]) -> Vec<LinuxIdMapping> {
    let range =
        |r: &runtime::IdRange| LinuxIdMapping { container_id: r.inside, host_id: r.outside, size: r.count };
    ranges.iter().map(range).collect()
}
