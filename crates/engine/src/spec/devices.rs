//! Devices of the host in a container: `--device`, `--device-cgroup-rule`, and all of them for `--privileged`.

use crate::{
    ask::config::{Device, HostConfig},
    error::{Error, Result, unfit},
    spec::{cdi::DeviceNode, parts::Parts, users::Identity},
};
use model::confine;
use runtime::config::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use std::{collections::HashSet, path::Path};

/// A device of the host as a container gets it.
pub(crate) struct HostDevice {
    pub(crate) path: String,
    pub(crate) kind: LinuxDeviceType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) access: String,
}

/// Returns the devices asked for; below a folder, and for a privileged container, all there are. *Source:* runc
/// `devices.GetDevices`.
pub(crate) fn of_host(host: &HostConfig) -> Result<Vec<HostDevice>> {
    let all = Device { host_path: "/dev".into(), ..Device::default() };
    let asked = if host.privileged { std::slice::from_ref(&all) } else { &[] };
    let mut found = Vec::new();
    for device in asked.iter().chain(&host.devices) {
        let inside =
            if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        let cannot = |why: &str| {
            Error::invalid(format!(
                "error gathering device information while adding custom device \"{}\": {why}",
                device.host_path
            ))
        };
        let meta = std::fs::metadata(&device.host_path).map_err(|_| cannot("no such file or directory"))?;
        if meta.is_dir() {
            collect_devices(Path::new(&device.host_path), Path::new(inside), access, &mut found);
        } else {
            found
                .push(host_device(&meta, inside.clone(), access).ok_or_else(|| cannot("not a device node"))?);
        }
    }
    Ok(found)
}

/// Judges a device that is asked for; whether it is there is found out at the start.
///
/// # Errors
/// `InvalidParameter` for a path that climbs, or an access that is none.
pub(crate) fn check(device: &Device) -> Result<()> {
    confine::inner_path("Devices.PathOnHost", &device.host_path).map_err(unfit)?;
    if !device.container_path.is_empty() {
        confine::inner_path("Devices.PathInContainer", &device.container_path).map_err(unfit)?;
    }
    let access = &device.permissions;
    if access.len() > 3 || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(Error::invalid(format!("invalid Devices.CgroupPermissions: {access:?} is not of rwm")));
    }
    Ok(())
}

/// Returns the devices of vendors' descriptions, with what those leave open as it is on this host. *Source:* Container
/// Device Interface, SPEC.md, `deviceNodes`.
pub(crate) fn of_vendors(nodes: &[DeviceNode], identity: &Identity) -> Result<Vec<HostDevice>> {
    let mut all: Vec<HostDevice> = Vec::new();
    for node in nodes {
        let cannot = |why: &str| {
            Error::invalid(format!("CDI device injection failed: device {:?}: {why}", node.host_path()))
        };
        let access = match node.permissions.as_deref() {
            None | Some("") => "rwm",
            Some("none") => "",
            Some(access) => access,
        };
        let kind = match node.kind.as_deref() {
            None | Some("") => None,
            Some("c" | "u") => Some(LinuxDeviceType::C),
            Some("b") => Some(LinuxDeviceType::B),
            Some(other) => return Err(cannot(&format!("type {other:?} is not supported"))),
        };
        let number = |n: i64| u32::try_from(n).map_err(|_| cannot("its number is negative or too large"));
        let mut device = match (kind, node.major, node.minor) {
            (Some(kind), Some(major), Some(minor)) => HostDevice {
                path: node.path.clone(),
                kind,
                major: number(major)?,
                minor: number(minor)?,
                mode: 0o666,
                uid: 0,
                gid: 0,
                access: access.to_owned(),
            },
            _ => {
                let meta =
                    std::fs::metadata(node.host_path()).map_err(|_| cannot("no such file or directory"))?;
                let found = host_device(&meta, node.path.clone(), access)
                    .ok_or_else(|| cannot("not a device node"))?;
                if kind.is_some_and(|kind| kind != found.kind) {
                    return Err(cannot(&format!("it is of type {:?}", found.kind.as_str())));
                }
                found
            }
        };
        device.mode = node.file_mode.map_or(device.mode, |mode| mode & 0o777);
        device.uid = node.uid.unwrap_or(identity.uid);
        device.gid = node.gid.unwrap_or(identity.gid);
        all.push(device);
    }
    // Of those for one path the last one counts.
    let mut paths = HashSet::new();
    all.reverse();
    all.retain(|device| paths.insert(device.path.clone()));
    all.reverse();
    Ok(all)
}

fn host_device(meta: &std::fs::Metadata, path: String, access: &str) -> Option<HostDevice> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let kind = match meta.file_type() {
        t if t.is_char_device() => LinuxDeviceType::C,
        t if t.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let device = meta.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let (mode, uid, gid) = (meta.mode() & 0o777, meta.uid(), meta.gid());
    Some(HostDevice { path, kind, major, minor, mode, uid, gid, access: access.to_owned() })
}

/// What cannot be read is left out, and so are the folders and terminals that a container has of its own.
fn collect_devices(folder: &Path, inside: &Path, access: &str, found: &mut Vec<HostDevice>) {
    const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        // Of the link itself: a folder reached through one is not entered.
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        let inside = inside.join(&name);
        if meta.is_dir() {
            collect_devices(&entry.path(), &inside, access, found);
        } else if let Some(path) = inside.to_str() {
            found.extend(host_device(&meta, path.to_owned(), access));
        }
    }
}

/// Reads `c 13:* rwm`. *Source:* `docker run --device-cgroup-rule`.
pub(crate) fn rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let bad = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words[..] else { return Err(bad()) };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(bad()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    if access.is_empty() || access.len() > 3 || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(bad());
    }
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse::<u32>().map(|n| Some(i64::from(n))).map_err(|_| bad()),
    };
    let (major, minor) = (number(major)?, number(minor)?);
    Ok(LinuxDeviceCgroup::new(true, Some(kind), major, minor, access))
}

/// Returns the devices asked for by path and by a vendor's name; the latter win.
pub(super) fn all(parts: &Parts<'_>) -> Result<Vec<HostDevice>> {
    let of_vendors = of_vendors(&parts.edits.device_nodes, parts.identity)?;
    let mut all = of_host(&parts.config.host)?;
    let vendors: HashSet<&str> = of_vendors.iter().map(|device| device.path.as_str()).collect();
    all.retain(|device| !vendors.contains(device.path.as_str()));
    all.extend(of_vendors);
    Ok(all)
}

/// Returns the nodes that these have in the container.
pub(super) fn nodes(devices: &[HostDevice]) -> Vec<LinuxDevice> {
    let node = |d: &HostDevice| LinuxDevice {
        path: (&d.path).into(),
        kind: d.kind,
        major: d.major.into(),
        minor: d.minor.into(),
        file_mode: Some(d.mode),
        uid: Some(d.uid),
        gid: Some(d.gid),
    };
    devices.iter().map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_docker_reads_them() {
        assert_eq!(rule("c 13:* rw").unwrap().to_string(), "c 13:* rw");
        for bad in ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 rwmr", "c a:3 r", "c 1:3  r"] {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_folder_stands_for_the_devices_in_it() {
        let device = |path: &str| Device { host_path: path.into(), ..Device::default() };
        let host = HostConfig { devices: vec![device("/dev")], ..HostConfig::default() };
        let found = of_host(&host).unwrap();
        assert!(found.iter().any(|d| d.path == "/dev/null" && (d.major, d.minor) == (1, 3)));
        assert!(!found.iter().any(|d| d.path.starts_with("/dev/pts")));
        for (path, why) in [("/no/such", "no such file"), ("/etc/passwd", "not a device node")] {
            let host = HostConfig { devices: vec![device(path)], ..HostConfig::default() };
            let error = of_host(&host).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
