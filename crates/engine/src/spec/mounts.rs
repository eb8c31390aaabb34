//! The mounts of a container: what every one has, then its own, parents first.

use crate::{
    ask::config::LayerMount,
    seen::container::{MountPoint, MountPointKind},
    spec::parts::Parts,
};
use model::BindRecursion;
use runtime::config::Mount;
use std::{os::unix::ffi::OsStrExt as _, path::Path};

const SHM_BYTES: u64 = 64 << 20;

/// Returns them.
pub(super) fn list(parts: &Parts<'_>) -> Vec<Mount> {
    let host = &parts.config.host;
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        written(destination, kind, source.as_ref(), options.iter().map(|&option| option.to_owned()).collect())
    };
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
        own.retain(|m| m.destination.as_os_str() != device.container_path.as_str());
        let mut options: Vec<&str> = device.options.iter().map(String::as_str).collect();
        if device.kind.is_empty() && !options.iter().any(|o| matches!(*o, "bind" | "rbind")) {
            options.push("rbind");
        }
        let kind = if device.kind.is_empty() { "bind" } else { &device.kind };
        own.push(mount(&device.container_path, kind, &device.host_path, &options));
    }
    // Parents before what lies in them; the sort is stable.
    own.sort_by_key(|m| m.destination.as_os_str().as_bytes().iter().filter(|b| **b == b'/').count());
    mounts.extend(own);
    mounts
}

fn written(destination: &str, kind: &str, source: &Path, options: Vec<String>) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: Some(options),
        ..Mount::default()
    }
}

fn layer_mount(layers: &LayerMount, squash: bool, idmap: bool) -> Mount {
    let (kind, source, mut options) = match (&layers.lowers[..], &layers.scratch) {
        // Overlayfs wants two folders, or one to write to.
        ([only], None) => ("bind", only.as_path(), vec!["rbind".to_owned(), "rro".to_owned()]),
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
            ("overlay", Path::new("overlay"), options)
        }
    };
    options.extend(idmap.then(|| "idmap".to_owned()));
    written(&layers.target, kind, source, options)
}
