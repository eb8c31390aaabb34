//! From an OCI spec to the plain data that a shim executes. Pure but for reading which cgroups the host has.

use crate::{
    ContainerPlan, Error, LogService, LogTarget, Rootfs, SyslogAddress,
    caps::Capabilities,
    cgroup,
    config::{self as oci, LinuxNamespaceType, LinuxSeccomp, Spec},
    hooks, seccomp,
};
use shim::wire::{
    Caps, Device, Forward, IdRange, Launch, Log, Mount, Namespace, Pair, Process, Rlimit, Root,
    UserNamespace, VERSION,
};
use std::{
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Translates the plan. Refuses what the shim cannot do rather than leaving it out.
pub(crate) fn translate(plan: &ContainerPlan) -> Result<Launch, Error> {
    translated(plan).map_err(|reason| Error::Spec { id: plan.id.clone(), reason })
}

fn translated(plan: &ContainerPlan) -> Result<Launch, String> {
    let spec = &plan.spec;
    if !plan.dir.is_absolute() {
        return Err(format!("state directory {:?} is not absolute", plan.dir));
    }
    refuse_unsupported(spec)?;
    let linux = spec.linux.as_ref().ok_or("no linux section")?;
    let mut process = process(spec.process.as_ref().ok_or("no process")?, plan.tty)?;
    if let Some(profile) = &linux.seccomp {
        let compiled = compiled(profile)?;
        process.seccomp.clone_from(&compiled.0);
        process.seccomp_flags = compiled.1;
    }
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty());
    let domainname = spec.domainname.clone().filter(|name| !name.is_empty());
    let own_names =
        linux.namespaces.iter().flatten().any(|namespace| namespace.kind == LinuxNamespaceType::Uts);
    if !own_names && (hostname.is_some() || domainname.is_some()) {
        return Err("unable to set hostname without a private UTS namespace".into());
    }
    let sysctls = sysctls(linux)?;
    let users = users(linux)?;
    if users.is_some() && plan.userns_squash {
        return Err("a user namespace in one with a single uid is not supported".into());
    }
    let mounts: Vec<Mount> =
        spec.mounts.iter().flatten().map(|m| mount(m, plan.userns_squash)).collect::<Result<_, _>>()?;
    if let Some(mount) = mounts.iter().find(|mount| mount.map_ids && users.is_none()) {
        let target = String::from_utf8_lossy(&mount.target);
        return Err(format!("mount at {target:?} has idmap, and the container has no user namespace"));
    }
    let others = |namespace: &&oci::LinuxNamespace| namespace.kind != LinuxNamespaceType::User;
    Ok(Launch {
        version: VERSION,
        id: plan.id.clone(),
        process: Some(process),
        stdin_open: plan.stdin_open,
        init: plan.init,
        log: log(&plan.log),
        root: Some(root(plan, users.is_some())?),
        namespaces: linux
            .namespaces
            .iter()
            .flatten()
            .filter(others)
            .map(namespace)
            .collect::<Result<_, _>>()?,
        mounts,
        masked_paths: linux.masked_paths.iter().flatten().map(|path| path.clone().into_bytes()).collect(),
        readonly_paths: linux.readonly_paths.iter().flatten().map(|path| path.clone().into_bytes()).collect(),
        devices: linux.devices.iter().flatten().map(device).collect::<Result<_, _>>()?,
        hostname,
        domainname,
        sysctls,
        cgroup: match &linux.cgroups_path {
            None => None,
            Some(path) => Some(cgroup::launch(path, linux.resources.as_ref(), plan.userns_squash)?),
        },
        userns_squash: plan.userns_squash,
        inherit_streams: false,
        console_socket: Vec::new(),
        hooks: hooks::translate(spec, &plan.dir)?,
        users,
    })
}

/// Returns the user namespace that is asked for.
fn users(linux: &oci::Linux) -> Result<Option<UserNamespace>, String> {
    let ranges = |mappings: &Option<Vec<oci::LinuxIdMapping>>| -> Vec<crate::IdRange> {
        let range = |m: &oci::LinuxIdMapping| crate::IdRange {
            inside: m.container_id,
            outside: m.host_id,
            count: m.size,
        };
        mappings.iter().flatten().map(range).collect()
    };
    let map = crate::IdMap { uids: ranges(&linux.uid_mappings), gids: ranges(&linux.gid_mappings) };
    let none = map.uids.is_empty() && map.gids.is_empty();
    let asked = linux.namespaces.iter().flatten().find(|asked| asked.kind == LinuxNamespaceType::User);
    let Some(asked) = asked else {
        return if none { Ok(None) } else { Err("linux.uidMappings without a user namespace".into()) };
    };
    let path = asked.path.as_deref();
    if let Some(path) = path.filter(|path| is_ours(path, "user")) {
        return Err(format!("user namespace {path:?} is the host's, or cannot be looked at"));
    }
    if !none || path.is_none() {
        map.check().map_err(|reason| format!("linux.uidMappings, linux.gidMappings: {reason}"))?;
    }
    let sent = |ranges: &[crate::IdRange]| -> Vec<IdRange> {
        let of = |r: &crate::IdRange| IdRange { inside: r.inside, outside: r.outside, count: r.count };
        ranges.iter().map(of).collect()
    };
    let path = path.map(bytes).unwrap_or_default();
    Ok(Some(UserNamespace { path, uids: sent(&map.uids), gids: sent(&map.gids) }))
}

/// Returns the kernel parameters as files below `/proc/sys`. The last gate: a bundle may come from anybody.
fn sysctls(linux: &oci::Linux) -> Result<Vec<Pair>, String> {
    let owns = |kind: LinuxNamespaceType, file: &str| {
        let asked = linux.namespaces.iter().flatten().find(|namespace| namespace.kind == kind);
        // One that is joined may be the host's under another name.
        asked.is_some_and(|namespace| match &namespace.path {
            None => true,
            Some(path) => !is_ours(path, file),
        })
    };
    let own = model::OwnNamespaces {
        network: owns(LinuxNamespaceType::Network, "net"),
        ipc: owns(LinuxNamespaceType::Ipc, "ipc"),
        uts: owns(LinuxNamespaceType::Uts, "uts"),
    };
    let mut all = Vec::new();
    for (name, value) in linux.sysctl.iter().flatten() {
        let key = model::sysctl_path(name, value, own).map_err(|error| error.to_string())?;
        all.push(Pair { key, value: value.clone() });
    }
    all.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(all)
}

/// Is this the namespace that this process, which belongs to the host, is in itself? So is one that cannot be told.
fn is_ours(path: &Path, file: &str) -> bool {
    let of = |path: &Path| rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let ours = of(&Path::new("/proc/self/ns").join(file));
    of(path).is_none_or(|there| Some(there) == ours)
}

fn refuse_unsupported(spec: &Spec) -> Result<(), String> {
    let refuse =
        |there: bool, what: &str| if there { Err(format!("{what} is not supported")) } else { Ok(()) };
    let linux = spec.linux.as_ref();
    refuse(linux.is_some_and(|l| l.mount_label.as_ref().is_some_and(|m| !m.is_empty())), "linux.mountLabel")?;
    refuse(linux.is_some_and(|l| l.personality.is_some()), "linux.personality")?;
    refuse(linux.is_some_and(|l| l.intel_rdt.is_some()), "linux.intelRdt")?;
    refuse(linux.is_some_and(|l| l.time_offsets.is_some()), "linux.timeOffsets")?;
    refuse(linux.is_some_and(|l| l.memory_policy.is_some()), "linux.memoryPolicy")?;
    refuse(linux.is_some_and(|l| l.net_devices.is_some()), "linux.netDevices")?;
    let process = spec.process.as_ref();
    refuse(
        process.is_some_and(|p| p.selinux_label.as_ref().is_some_and(|label| !label.is_empty())),
        "process.selinuxLabel",
    )?;
    refuse(process.is_some_and(|p| p.scheduler.is_some()), "process.scheduler")?;
    refuse(process.is_some_and(|p| p.exec_cpu_affinity.is_some()), "process.execCPUAffinity")?;
    refuse(process.is_some_and(|p| p.io_priority.is_some()), "process.ioPriority")
}

/// Translates a process without its seccomp filter, which is the container's.
pub(crate) fn process(process: &oci::Process, tty: bool) -> Result<Process, String> {
    let args: Vec<Vec<u8>> = process.args.iter().flatten().map(|arg| arg.clone().into_bytes()).collect();
    if args.is_empty() {
        return Err("process.args is empty".into());
    }
    let env: Vec<Vec<u8>> = process.env.iter().flatten().map(|value| value.clone().into_bytes()).collect();
    if args.iter().chain(&env).any(|value| value.contains(&0)) {
        return Err("process.args and process.env cannot hold NUL".into());
    }
    if !process.cwd.is_absolute() {
        return Err(format!("process.cwd {:?} is not absolute", process.cwd.display()));
    }
    let user = &process.user;
    let set = |of: Option<Capabilities>| of.map_or(0, Capabilities::mask);
    let caps = process.capabilities.as_ref().map_or_else(Caps::default, |caps| Caps {
        bounding: set(caps.bounding),
        effective: set(caps.effective),
        permitted: set(caps.permitted),
        inheritable: set(caps.inheritable),
        ambient: set(caps.ambient),
    });
    let size = process.console_size.unwrap_or_default();
    let cells = |n: u64| u32::try_from(n).unwrap_or_default();
    Ok(Process {
        args,
        env,
        cwd: process.cwd.as_os_str().as_bytes().to_vec(),
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone().unwrap_or_default(),
        umask: user.umask,
        caps: Some(caps),
        no_new_privs: process.no_new_privileges.unwrap_or(false),
        seccomp: Vec::new(),
        seccomp_flags: 0,
        oom_score_adj: process.oom_score_adj,
        rlimits: process.rlimits.iter().flatten().map(rlimit).collect(),
        tty,
        rows: cells(size.height),
        cols: cells(size.width),
        apparmor_profile: apparmor(process)?,
    })
}

fn apparmor(process: &oci::Process) -> Result<String, String> {
    let Some(profile) = process.apparmor_profile.as_ref().filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    if profile == "unconfined" {
        return Ok(String::new());
    }
    if !crate::apparmor_enabled() {
        return Err(format!(
            "apparmor profile {profile:?} cannot be applied: apparmor is not enabled on this host"
        ));
    }
    if profile.contains(['\0', '\n']) {
        return Err(format!("{profile:?} is no name of an apparmor profile"));
    }
    Ok(profile.clone())
}

fn rlimit(limit: &oci::PosixRlimit) -> Rlimit {
    Rlimit { resource: limit.kind as u32, soft: limit.soft, hard: limit.hard }
}

type Compiled = Arc<(Vec<u8>, u32)>;

/// Nearly all containers of a host have the same profile, so the last one is kept.
fn compiled(profile: &Arc<LinuxSeccomp>) -> Result<Compiled, String> {
    static LAST: Mutex<Option<(Arc<LinuxSeccomp>, Compiled)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, compiled)) = last.as_ref()
        && (Arc::ptr_eq(known, profile) || known == profile)
    {
        return Ok(Arc::clone(compiled));
    }
    let (program, flags) = seccomp::compile(profile)?;
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_le_bytes());
        bytes.extend([instruction.jump_true, instruction.jump_false]);
        bytes.extend(instruction.k.to_le_bytes());
    }
    let compiled = Arc::new((bytes, flags));
    *last = Some((Arc::clone(profile), Arc::clone(&compiled)));
    Ok(compiled)
}

fn log(target: &LogTarget) -> Option<Log> {
    match target {
        LogTarget::None => None,
        LogTarget::JsonFile { path, max_size_bytes, max_files, attrs, forward } => Some(Log {
            path: bytes(path),
            max_size_bytes: *max_size_bytes,
            max_files: (*max_files).max(1),
            attrs: pairs(attrs.iter().map(|(key, value)| (key, value))),
            forward: forward.as_ref().map(log_service),
        }),
    }
}

fn log_service(service: &LogService) -> Forward {
    match service {
        LogService::Journald { socket, fields } => Forward {
            socket: bytes(socket),
            fields: pairs(fields.iter().map(|(key, value)| (key, value))),
            ..Forward::default()
        },
        LogService::Syslog { to, facility, tag, format, hostname } => {
            let (socket, udp) = match to {
                SyslogAddress::Unix(path) => (bytes(path), String::new()),
                SyslogAddress::Udp(address) => (Vec::new(), address.to_string()),
            };
            let (tag, format, hostname) = (tag.clone(), format.clone(), hostname.clone());
            Forward { socket, udp, facility: Some(*facility), tag, format, hostname, ..Forward::default() }
        }
    }
}

fn root(plan: &ContainerPlan, users: bool) -> Result<Root, String> {
    let readonly = plan.spec.root.as_ref().and_then(|root| root.readonly).unwrap_or(false);
    let linux = plan.spec.linux.as_ref();
    let propagation = match linux.and_then(|l| l.rootfs_propagation.as_deref()) {
        None | Some("" | "slave" | "rslave") => libc::MS_SLAVE,
        Some("private" | "rprivate") => libc::MS_PRIVATE,
        Some("shared" | "rshared") => libc::MS_SHARED,
        Some(other) => return Err(format!("linux.rootfsPropagation {other:?} is not supported")),
    };
    let mut root = Root { readonly, propagation, userxattr: plan.userns_squash, ..Root::default() };
    match &plan.rootfs {
        Rootfs::Overlay { lowers, upper, work } => {
            if lowers.is_empty() {
                return Err("overlay without layers".into());
            }
            root.lowers = lowers.iter().map(|path| bytes(path)).collect();
            root.map_ids = users;
            root.upper = bytes(upper);
            root.work = bytes(work);
        }
        Rootfs::Directory(path) => root.directory = bytes(path),
    }
    Ok(root)
}

fn namespace(namespace: &oci::LinuxNamespace) -> Result<Namespace, String> {
    let flag = match namespace.kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::User | LinuxNamespaceType::Time => {
            return Err(format!("namespace {:?} is not supported", namespace.kind));
        }
    };
    let path = namespace.path.as_deref().map(bytes).unwrap_or_default();
    if namespace.kind == LinuxNamespaceType::Mount && !path.is_empty() {
        return Err("joining a mount namespace is not supported".into());
    }
    Ok(Namespace { flag: u64::try_from(flag).map_err(|_| "namespace flag")?, path })
}

fn device(device: &oci::LinuxDevice) -> Result<Device, String> {
    let block = match device.kind {
        oci::LinuxDeviceType::B => true,
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => false,
        other => {
            return Err(format!("device type {:?} of {:?} is not supported", other.as_str(), device.path));
        }
    };
    let number =
        |n: i64| u32::try_from(n).map_err(|_| format!("device {:?} has a negative number", device.path));
    Ok(Device {
        path: bytes(&device.path),
        block,
        major: number(device.major)?,
        minor: number(device.minor)?,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// Option of a bind mount: what is mounted, below its source. Source: mount(8), `X-mount.subdir`.
const SUBDIR: &str = "X-mount.subdir=";
/// Option of a bind mount: process in whose files its source is looked up. Ours.
const OF_PROCESS: &str = "X-rswarm.of-process=";

/// Sorts the options of a mount into attributes of the mount and options of the filesystem.
/// Source: OCI runtime spec, "Linux mount options"; mount(8).
pub(crate) fn mount(mount: &oci::Mount, userns_squash: bool) -> Result<Mount, String> {
    let fstype = mount.kind.clone().unwrap_or_default();
    let mut to = Mount {
        source: mount.source.as_deref().map(bytes).unwrap_or_default(),
        target: bytes(&mount.destination),
        ..Mount::default()
    };
    if mount.uid_mappings.is_some() || mount.gid_mappings.is_some() {
        return Err(format!(
            "mount at {:?} has mappings of its own, which are not supported; hint: the option idmap, for those of the \
             container",
            mount.destination
        ));
    }
    if !mount.destination.is_absolute() {
        return Err(format!("mount target {:?} is not absolute", mount.destination));
    }
    let mut bind = fstype == "bind";
    for option in mount.options.iter().flatten() {
        let (attrs, clears, recursive) = match option.as_str() {
            "bind" => {
                bind = true;
                continue;
            }
            "rbind" => {
                bind = true;
                to.recursive = true;
                continue;
            }
            "ro" => (libc::MOUNT_ATTR_RDONLY, false, false),
            "rw" => (libc::MOUNT_ATTR_RDONLY, true, false),
            "rro" => (libc::MOUNT_ATTR_RDONLY, false, true),
            "nosuid" => (libc::MOUNT_ATTR_NOSUID, false, false),
            "suid" => (libc::MOUNT_ATTR_NOSUID, true, false),
            "nodev" => (libc::MOUNT_ATTR_NODEV, false, false),
            "dev" => (libc::MOUNT_ATTR_NODEV, true, false),
            "noexec" => (libc::MOUNT_ATTR_NOEXEC, false, false),
            "exec" => (libc::MOUNT_ATTR_NOEXEC, true, false),
            "noatime" => (libc::MOUNT_ATTR_NOATIME, false, false),
            "strictatime" => (libc::MOUNT_ATTR_STRICTATIME, false, false),
            "nodiratime" => (libc::MOUNT_ATTR_NODIRATIME, false, false),
            "nosymfollow" => (libc::MOUNT_ATTR_NOSYMFOLLOW, false, false),
            "relatime" | "atime" | "diratime" | "defaults" | "async" => continue,
            "idmap" | "ridmap" => {
                to.map_ids = true;
                to.map_ids_recursive = option == "ridmap";
                continue;
            }
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable"
            | "runbindable" => {
                (to.propagation, to.propagation_recursive) = propagation(option);
                continue;
            }
            other => {
                if let Some(subdir) = other.strip_prefix(SUBDIR) {
                    to.subdir = subdir.as_bytes().to_vec();
                } else if let Some(pid) = other.strip_prefix(OF_PROCESS) {
                    to.of_process = pid.parse().map_err(|_| format!("{other:?} names no process"))?;
                } else {
                    to.options.push(filesystem_option(other));
                }
                continue;
            }
        };
        if clears {
            to.attrs &= !attrs;
        } else {
            to.attrs |= attrs;
        }
        to.attrs_recursive |= recursive;
    }
    if bind {
        if let Some(option) = to.options.first() {
            return Err(format!("bind mount at {:?} has unknown option {:?}", mount.destination, option.key));
        }
    } else if to.map_ids && fstype != "overlay" {
        return Err(format!("mount at {:?} has idmap and is neither bind nor overlay", mount.destination));
    } else if !to.subdir.is_empty() || to.of_process != 0 {
        let destination = &mount.destination;
        return Err(format!(
            "mount at {destination:?} has {SUBDIR:?} or {OF_PROCESS:?} and is no bind mount"
        ));
    } else {
        to.fstype = if fstype.is_empty() {
            return Err(format!("mount at {:?} has no type", mount.destination));
        } else {
            fstype
        };
    }
    if userns_squash && to.fstype == "devpts" {
        // Group `tty` is not mapped; the owner of the terminal is then the only user there is.
        to.options.retain(|option| option.key != "gid" && option.key != "uid");
    }
    Ok(to)
}

fn propagation(option: &str) -> (u64, bool) {
    let (kind, recursive) = match option.strip_prefix('r') {
        Some(kind) => (kind, true),
        None => (option, false),
    };
    let flag = match kind {
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => libc::MS_PRIVATE,
    };
    (flag, recursive)
}

fn filesystem_option(option: &str) -> Pair {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    Pair { key: key.to_owned(), value: value.to_owned() }
}

fn pairs<'a>(from: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<Pair> {
    from.map(|(key, value)| Pair { key: key.clone(), value: value.clone() }).collect()
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    fn mounted(kind: &str, options: &[&str]) -> Result<Mount, String> {
        let asked = oci::Mount {
            destination: "/there".into(),
            source: Some("/here".into()),
            kind: Some(kind.to_owned()),
            options: Some(options.iter().map(|&option| option.to_owned()).collect()),
            ..oci::Mount::default()
        };
        mount(&asked, false)
    }

    #[test]
    fn mount_options_are_sorted_into_attributes_and_filesystem_options() {
        let shm = mounted("tmpfs", &["nosuid", "noexec", "mode=1777", "size=64m"]).unwrap();
        assert_eq!(shm.attrs, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC);
        assert_eq!(shm.options.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["mode", "size"]);

        let bind = mounted("bind", &["rbind", "ro"]).unwrap();
        assert!(bind.recursive && !bind.attrs_recursive && bind.attrs == libc::MOUNT_ATTR_RDONLY);
        let bind = mounted("bind", &["rbind", "rro", "rslave"]).unwrap();
        assert_eq!((bind.fstype.as_str(), bind.recursive, bind.attrs_recursive), ("", true, true));
        assert_eq!((bind.propagation, bind.propagation_recursive), (libc::MS_SLAVE, true));

        let part = mounted("bind", &["rbind", "X-mount.subdir=a/b"]).unwrap();
        assert_eq!(
            (part.source.as_slice(), part.subdir.as_slice()),
            (b"/here".as_slice(), b"a/b".as_slice())
        );

        assert!(mounted("bind", &["rbind", "zoom"]).unwrap_err().contains("zoom"));
        assert_eq!(mounted("bind", &["X-rswarm.of-process=7"]).unwrap().of_process, 7);
        for option in ["X-mount.subdir=a", "X-rswarm.of-process=7"] {
            assert!(mounted("tmpfs", &[option]).unwrap_err().contains("no bind mount"));
        }
    }
}
