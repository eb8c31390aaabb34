//! The container's view of files: root, mounts, devices, masked paths, pivot_root. Runs in the child, in its own
//! mount namespace; everything is placed through descriptors that were resolved inside the new root.

use super::{
    failure::{At, Failure},
    paths::{self, Kind},
    users::Users,
};
use crate::{
    cgroup::Group,
    hooks, state, userns,
    wire::{Device, Launch, Mount, Pair, Root},
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};
use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};
use sys::{
    mount::{Attributes, set_attributes},
    overlay::{Overlay, Refused},
};

const PROC_MAGIC: i64 = 0x9fa0;
/// Devices of every container.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Files in /proc that may be covered by a bind mount. Source: runc `checkProcMount`.
const PROC_FILES: [&[u8]; 11] = [
    b"/proc/cpuinfo",
    b"/proc/diskstats",
    b"/proc/meminfo",
    b"/proc/stat",
    b"/proc/swaps",
    b"/proc/uptime",
    b"/proc/loadavg",
    b"/proc/slabinfo",
    b"/proc/net/dev",
    b"/proc/sys/kernel/ns_last_pid",
    b"/proc/sys/crypto/fips_enabled",
];

/// What a process without any right on the host cannot make itself: mounts that are not attached anywhere yet.
#[derive(Debug)]
pub(super) struct Prepared {
    root: OwnedFd,
    /// One per mount of the plan, for those that show files of the host.
    trees: Vec<Option<OwnedFd>>,
    /// Nodes by their path in the container: the usual ones and those of the plan.
    nodes: Vec<(Vec<u8>, OwnedFd)>,
}

/// Folders of [`prepare`]'s workshop: where the root will be, layers and nodes while they are made.
const WORKSHOP: [&str; 3] = ["root", "layers", "nodes"];

/// Makes what the container's process will attach. Runs as the host's root, in a new mount namespace that it leaves
/// this process in; the working directory is where [`build`] goes on.
pub(super) fn prepare(launch: &Launch, dir: &Path, users: &Users) -> Result<Prepared, Failure> {
    let plan = root_of(launch)?;
    sys::process::unshare_namespaces(libc::CLONE_NEWNS).at(|| "cannot make a mount namespace".into())?;
    detach_from_host(plan)?;
    let place = dir.join(state::ROOTFS);
    let workshop = workshop(&place).at(|| format!("cannot mount a tmpfs on {}", place.display()))?;
    let layers = place.join("layers");
    let root = if plan.lowers.is_empty() {
        directory(plan, plan.map_ids.then_some(users))?
    } else {
        let (upper, work) = (plan.upper.as_slice(), plan.work.as_slice());
        mapped_overlay(&plan.lowers, Some((upper, work)), users, &layers)?
    };
    let mut trees = Vec::with_capacity(launch.mounts.len());
    for mount in &launch.mounts {
        trees.push(match mount.fstype.as_str() {
            "" => Some(bind_tree(mount, Some(users)).map_err(|failure| failure.during(&at_target(mount)))?),
            "overlay" if mount.map_ids => Some(
                overlay_of(mount, Some(users), &layers)
                    .map_err(|failure| failure.during(&at_target(mount)))?,
            ),
            _ => None,
        });
    }
    let nodes = nodes(launch, users, &workshop)?;
    // Other ways back to it are closed to the container's process.
    rustix::process::chdir(&place).at(|| format!("cannot enter {}", place.display()))?;
    Ok(Prepared { root, trees, nodes })
}

/// Mounts a small filesystem over `place`, which only this mount namespace sees.
fn workshop(place: &Path) -> Result<OwnedFd, Errno> {
    let tree = filesystem(&Mount {
        fstype: "tmpfs".into(),
        source: b"rswarm".to_vec(),
        attrs: libc::MOUNT_ATTR_NOSUID,
        options: vec![Pair { key: "mode".into(), value: "755".into() }],
        ..Mount::default()
    })?;
    attach(&tree, &rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)?;
    for name in WORKSHOP {
        rustix::fs::mkdirat(&tree, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(tree)
}

fn beneath(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::openat(folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at(|| format!("cannot open {name}"))
}

fn root_of(launch: &Launch) -> Result<&Root, Failure> {
    launch.root.as_ref().ok_or_else(|| Failure::other("the plan has no root".into()))
}

fn detach_from_host(plan: &Root) -> Result<(), Failure> {
    let propagation = Attributes { propagation: plan.propagation, ..Attributes::default() };
    set_attributes(location("/")?.as_fd(), c"", propagation, true)
        .at(|| "cannot detach from the host's mounts".into())
}

/// Mounts layers whose files belong to the container's ids on the disk. `writable`: upper and work folder.
fn mapped_overlay(
    lowers: &[Vec<u8>],
    writable: Option<(&[u8], &[u8])>,
    users: &Users,
    place: &Path,
) -> Result<OwnedFd, Failure> {
    let bottom = location(place)?;
    // Before Linux 6.15 a layer must be attached somewhere; all are, on top of each other.
    let mapped = |path: &[u8]| -> Result<OwnedFd, Failure> {
        let source = location(OsStr::from_bytes(path))?;
        let tree = copied(source.as_fd(), false).at(|| step(&format!("open_tree {}", show(path))))?;
        map_ids(&tree, path, users, false)?;
        attach(&tree, &bottom).at(|| step("move_mount"))?;
        Ok(tree)
    };
    let mut layers = lowers.iter().map(|path| mapped(path)).collect::<Result<Vec<_>, _>>()?;
    let path = |layer: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", layer.as_raw_fd()));
    let mut overlay = Overlay::begin(place).at(|| step("fsopen"))?;
    for layer in &layers {
        overlay.lower(&path(layer)).at(|| step("lowerdir"))?;
    }
    if let Some((upper, work)) = writable {
        let split = |path| {
            let path = Path::new(OsStr::from_bytes(path));
            path.parent().zip(path.file_name()).ok_or_else(|| Failure::other(step("upper and work folder")))
        };
        let ((folder, upper), (same, work)) = (split(upper)?, split(work)?);
        if folder != same {
            return Err(Failure::other(step("upper and work folder are not in one folder")));
        }
        // Both must be on the same mount.
        let both = mapped(folder.as_os_str().as_bytes())?;
        overlay.writable(&path(&both).join(upper), &path(&both).join(work)).at(|| step("upperdir"))?;
        layers.push(both);
    }
    let (uid, gid) =
        users.ids.root().ok_or_else(|| Failure::other("the user namespace has no root".into()))?;
    // Overlayfs goes on as who mounted it.
    userns::making_files_as(uid, gid, || overlay.create())
        .at(|| step("acting as the container's root"))?
        .map_err(refused)?;
    let tree = overlay.into_mount().at(|| step("fsmount"))?;
    // The overlay has copies of its own. Each layer lies on the one before.
    for layer in layers.iter().rev() {
        rustix::mount::unmount(path(layer), UnmountFlags::DETACH).at(|| step("umount"))?;
    }
    Ok(tree)
}

/// Option of a mount that names one layer. *Source:* kernel Documentation/filesystems/overlayfs.rst.
const LAYER: &str = "lowerdir+";

/// Mounts an overlay that is no root, of layers that are named one by one; `users`: whom its files belong to.
fn overlay_of(mount: &Mount, users: Option<&Users>, place: &Path) -> Result<OwnedFd, Failure> {
    let of = |key| mount.options.iter().filter(move |option| option.key == key);
    let lowers: Vec<Vec<u8>> = of(LAYER).map(|option| option.value.clone().into_bytes()).collect();
    let one = |key| of(key).next().map(|option| option.value.as_bytes());
    let writable = one("upperdir").zip(one("workdir"));
    let rest: Vec<&Pair> = mount
        .options
        .iter()
        .filter(|option| ![LAYER, "upperdir", "workdir"].contains(&option.key.as_str()))
        .collect();
    let tree = match users {
        Some(users) => mapped_overlay(&lowers, writable, users, place)?,
        None => joined(&lowers, writable, &rest, place)?,
    };
    set_attributes(tree.as_fd(), c"", attribute_change(mount.attrs), false).at(|| "mount_setattr".into())?;
    Ok(tree)
}

fn map_ids(tree: &OwnedFd, path: &[u8], users: &Users, recursive: bool) -> Result<(), Failure> {
    sys::mount::map_ids(tree.as_fd(), users.namespace.as_fd(), recursive).map_err(|errno| {
        let why = match errno {
            Errno::INVAL => {
                "its filesystem, or one below it, has no idmapped mounts; hint: another one, or the host's user namespace"
            }
            Errno::PERM => "it is on an idmapped mount already",
            _ => "mount_setattr",
        };
        Failure::at(format!("cannot show {} with the owners of the user namespace: {why}", show(path)), errno)
    })
}

/// Makes nodes of the container's devices, which belong to its users: the host's own stay as they are.
fn nodes(launch: &Launch, users: &Users, workshop: &OwnedFd) -> Result<Vec<(Vec<u8>, OwnedFd)>, Failure> {
    let folder = beneath(workshop, "nodes")?;
    let usual = DEVICES.map(|(name, major, minor)| Device {
        path: format!("/dev/{name}").into_bytes(),
        major,
        minor,
        mode: 0o666,
        ..Device::default()
    });
    let mut nodes = Vec::new();
    for (n, device) in usual.iter().chain(&launch.devices).enumerate() {
        let step = || format!("cannot make device {}", show(&device.path));
        // Whom the container does not know stays the host's, and is nobody there.
        let (uid, gid) = users.ids.ids(device.uid, device.gid).unwrap_or((device.uid, device.gid));
        let name = n.to_string();
        let made = make_node(&folder, OsStr::new(&name), &Device { uid, gid, ..device.clone() });
        let tree = match made {
            Ok(()) => beneath(&folder, &name).and_then(|node| copied(node.as_fd(), false).at(step)),
            // Rules of this host's own container.
            Err(Errno::PERM) => host_node(&device.path, device.block, device.major, device.minor).at(step),
            Err(errno) => Err(Failure::at(step(), errno)),
        };
        nodes.push((device.path.clone(), tree?));
    }
    Ok(nodes)
}

/// Builds the whole view and makes it the root of this process.
pub(super) fn build(
    launch: &Launch,
    dir: &Path,
    group: Option<&Group>,
    prepared: Option<&Prepared>,
) -> Result<(), Failure> {
    let plan = root_of(launch)?;
    detach_from_host(plan)?;
    let place = prepared.map_or_else(|| dir.join(state::ROOTFS), |_| WORKSHOP[0].into());
    let root = match prepared {
        Some(prepared) => settle(&prepared.root, &place)?,
        None => mount_root(plan, &place)?,
    };
    for (n, mount) in launch.mounts.iter().enumerate() {
        let tree = prepared.and_then(|prepared| prepared.trees[n].as_ref());
        let made = match tree {
            None if mount.options.iter().any(|option| option.key == LAYER) => {
                Some(overlay_of(mount, None, &place).map_err(|failure| failure.during(&at_target(mount)))?)
            }
            _ => None,
        };
        add(root.as_fd(), mount, launch, group, made.as_ref().or(tree))?;
    }
    devices(root.as_fd(), launch, prepared)?;
    if let Some(process) = &launch.process {
        // As runc does it. What stands in the way is told when the program is started there.
        drop(paths::ensure(root.as_fd(), &process.cwd, Kind::Directory));
    }
    if let Some(all) = &launch.hooks {
        let pid = rustix::process::getpid();
        hooks::run(&all.create_container, launch, hooks::Status::Creating, pid).map_err(Failure::other)?;
    }
    for path in &launch.masked_paths {
        mask(root.as_fd(), path)?;
    }
    for path in &launch.readonly_paths {
        make_readonly(root.as_fd(), path)?;
    }
    if plan.readonly {
        set_attributes(root.as_fd(), c"", attrs(libc::MOUNT_ATTR_RDONLY), false)
            .at(|| "cannot make the root filesystem read-only".into())?;
    }
    pivot(&root)
}

fn attrs(set: u64) -> Attributes {
    Attributes { set, ..Attributes::default() }
}

fn show(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

fn location(path: impl AsRef<Path>) -> Result<OwnedFd, Failure> {
    rustix::fs::open(path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at(|| format!("cannot open {:?}", path.as_ref()))
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags)
}

/// Copies a mount (or with `recursive` a tree of them) as a detached one.
fn copied(source: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(source, c"", flags)
}

/// Mounts the root over the empty directory `place`, which only this mount namespace sees.
fn mount_root(plan: &Root, place: &Path) -> Result<OwnedFd, Failure> {
    let tree = if plan.lowers.is_empty() { directory(plan, None)? } else { overlay(plan, place)? };
    settle(&tree, place)
}

fn directory(plan: &Root, users: Option<&Users>) -> Result<OwnedFd, Failure> {
    let directory = PathBuf::from(OsStr::from_bytes(&plan.directory));
    let source = location(&directory)?;
    let tree =
        copied(source.as_fd(), true).at(|| format!("cannot bind the root filesystem {directory:?}"))?;
    if let Some(users) = users {
        map_ids(&tree, &plan.directory, users, true)?;
    }
    Ok(tree)
}

fn settle(tree: &OwnedFd, place: &Path) -> Result<OwnedFd, Failure> {
    attach(tree, &location(place)?).at(|| "cannot attach the root filesystem".into())?;
    let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
    set_attributes(tree.as_fd(), c"", private, true)
        .at(|| "cannot make the root filesystem private".into())?;
    // Opened again: a location reached through the mount table, from which `..` and lookups behave as usual.
    location(place)
}

fn overlay(plan: &Root, place: &Path) -> Result<OwnedFd, Failure> {
    let userxattr = Pair { key: "userxattr".into(), value: String::new() };
    let rest: &[&Pair] = if plan.userxattr { &[&userxattr] } else { &[] };
    joined(&plan.lowers, Some((&plan.upper, &plan.work)), rest, place)
}

/// Mounts layers whose files belong to whom they belong on the disk. `writable`: upper and work folder; `place`: see
/// [`Overlay::begin`].
fn joined(
    lowers: &[Vec<u8>],
    writable: Option<(&[u8], &[u8])>,
    rest: &[&Pair],
    place: &Path,
) -> Result<OwnedFd, Failure> {
    let path = |bytes| Path::new(OsStr::from_bytes(bytes));
    let mut overlay = Overlay::begin(place).at(|| step("fsopen"))?;
    for lower in lowers {
        overlay.lower(path(lower)).at(|| step(&format!("lowerdir {}", show(lower))))?;
    }
    if let Some((upper, work)) = writable {
        overlay
            .writable(path(upper), path(work))
            .at(|| step(&format!("upperdir {}, workdir {}", show(upper), show(work))))?;
    }
    for Pair { key, value } in rest {
        overlay.option(key, value).at(|| step(key))?;
    }
    overlay.create().map_err(refused)?;
    overlay.into_mount().at(|| step("fsmount"))
}

/// A step of an overlay's mount, for messages.
fn step(what: &str) -> String {
    format!("cannot mount the overlay: {what}")
}

fn refused(Refused { errno, said }: Refused) -> Failure {
    let mut failure = Failure::at(step("create"), errno);
    if !said.is_empty() {
        failure.message.push_str(&format!(" ({said})"));
    }
    failure
}

/// What is done with a mount, for messages.
fn at_target(mount: &Mount) -> String {
    let what = if mount.fstype.is_empty() { show(&mount.source) } else { format!("{:?}", mount.fstype) };
    format!("error mounting {what} to rootfs at {}", show(&mount.target))
}

/// Adds one mount of the spec; `tree`: what [`prepare`] made of it.
fn add(
    root: BorrowedFd<'_>,
    mount: &Mount,
    launch: &Launch,
    group: Option<&Group>,
    tree: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let step = || at_target(mount);
    match mount.fstype.as_str() {
        "" => {
            let made;
            let bound = match tree {
                Some(tree) => bind(root, mount, tree),
                None => {
                    made = bind_tree(mount, None).map_err(|failure| failure.during(&step()))?;
                    bind(root, mount, &made)
                }
            };
            bound.map_err(|failure| failure.during(&step()))
        }
        "cgroup" | "cgroup2" => cgroups(root, mount, group).map_err(|errno| Failure::at(step(), errno)),
        "proc" | "sysfs" => {
            // CVE-2019-19921: a link in the image must not decide where these are.
            let target = paths::ensure(root, &mount.target, Kind::Directory)
                .and_then(|_| paths::open_without_links(root, &mount.target))
                .at(step)?;
            let tree = match filesystem(mount) {
                // The host's instance, where this user namespace does not own the network or process namespace.
                Err(errno @ (Errno::PERM | Errno::BUSY))
                    if launch.userns_squash || mount.fstype == "sysfs" =>
                {
                    let host = location(if mount.fstype == "proc" { "/proc" } else { "/sys" })?;
                    let tree = copied(host.as_fd(), true).map_err(|_| Failure::at(step(), errno))?;
                    set_attributes(tree.as_fd(), c"", attrs(mount.attrs), true).at(step)?;
                    tree
                }
                result => result.at(step)?,
            };
            attach(&tree, &target).at(step)
        }
        _ => {
            let target = paths::ensure(root, &mount.target, Kind::Directory).at(step)?;
            if let Some(tree) = tree {
                return attach(tree, &target).at(step);
            }
            let tree = match filesystem(mount) {
                Err(errno @ Errno::PERM) if mount.fstype == "mqueue" => {
                    let host = location("/dev/mqueue")?;
                    copied(host.as_fd(), false).map_err(|_| Failure::at(step(), errno))?
                }
                result => result.at(step)?,
            };
            attach(&tree, &target).at(step)
        }
    }
}

/// Makes a new instance of a filesystem, not attached anywhere yet.
fn filesystem(mount: &Mount) -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen(mount.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !mount.source.is_empty() {
        rustix::mount::fsconfig_set_string(&fs, "source", OsStr::from_bytes(&mount.source))?;
    }
    for option in &mount.options {
        if option.value.is_empty() {
            rustix::mount::fsconfig_set_flag(&fs, option.key.as_str())?;
        } else {
            rustix::mount::fsconfig_set_string(&fs, option.key.as_str(), option.value.as_str())?;
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    let tree = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    set_attributes(tree.as_fd(), c"", attribute_change(mount.attrs), false)?;
    Ok(tree)
}

/// Access times are a choice, not a flag: the field is cleared when one is set.
fn attribute_change(set: u64) -> Attributes {
    let atime = libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_STRICTATIME;
    let clear = if set & atime != 0 { libc::MOUNT_ATTR__ATIME } else { 0 };
    Attributes { set, clear, propagation: 0 }
}

fn bind(root: BorrowedFd<'_>, mount: &Mount, tree: &OwnedFd) -> Result<(), Failure> {
    let reason = |what: &'static str| move || what.to_owned();
    let kind = if paths::is_directory(tree).at(reason("fstat"))? { Kind::Directory } else { Kind::File };
    let target = paths::ensure(root, &mount.target, kind).at(reason("cannot make the mount point"))?;
    refuse_proc(&target, mount)?;
    attach(tree, &target).at(reason("move_mount"))
}

/// Copies what a bind mount shows, with the attributes that it shall have.
fn bind_tree(mount: &Mount, users: Option<&Users>) -> Result<OwnedFd, Failure> {
    let reason = |what: &'static str| move || what.to_owned();
    let tree = match mount.of_process {
        0 => source_of(mount)?,
        pid => elsewhere(pid, || source_of(mount))?,
    };
    if let Some(users) = users.filter(|_| mount.map_ids) {
        map_ids(&tree, &mount.source, users, mount.map_ids_recursive)?;
    }
    if mount.attrs != 0 {
        set_attributes(tree.as_fd(), c"", attribute_change(mount.attrs), mount.attrs_recursive)
            .at(reason("mount_setattr"))?;
    }
    let kind = if mount.propagation == 0 { libc::MS_PRIVATE } else { mount.propagation };
    let propagation = Attributes { propagation: kind, ..Attributes::default() };
    // A copy of a shared mount is a peer of it: whatever the container mounts there would reach the host.
    let recursive = mount.propagation == 0 || mount.propagation_recursive;
    set_attributes(tree.as_fd(), c"", propagation, recursive).at(reason("cannot set the propagation"))?;
    Ok(tree)
}

/// Copies what a bind mount shows.
fn source_of(mount: &Mount) -> Result<OwnedFd, Failure> {
    let step = || format!("cannot open {}", show(&mount.source));
    let source = if mount.of_process == 0 {
        location(OsStr::from_bytes(&mount.source))?
    } else {
        // A container's root now: a link there must not lead out of it by way of /proc.
        paths::open(location("/")?.as_fd(), &mount.source).at(step)?
    };
    let source = if mount.subdir.is_empty() {
        source
    } else {
        // CVE-2017-1002101: what is in the source is a container's, and may be a link by now.
        paths::open(source.as_fd(), &mount.subdir)
            .at(|| format!("cannot open {} in {}", show(&mount.subdir), show(&mount.source)))?
    };
    copied(source.as_fd(), mount.recursive).map_err(|errno| {
        let step = if errno == Errno::INVAL && !mount.recursive {
            // Else what they cover would come to light. Source: mount_namespaces(7), "Restrictions".
            "a tree with mounts that this user namespace did not make can only be bound whole: open_tree"
        } else {
            "open_tree"
        };
        Failure::at(step, errno)
    })
}

/// Works in the mount namespace of another process, in which alone its mounts can be copied, and comes back.
fn elsewhere<T>(pid: u32, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let step = || format!("cannot enter the files of process {pid}");
    let namespace = |of: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{of}/ns/mnt"), flags, Mode::empty()).at(step)
    };
    let (here, there) = (namespace("self")?, namespace(&pid.to_string())?);
    sys::process::join_namespaces(there.as_fd(), libc::CLONE_NEWNS).at(step)?;
    let done = work();
    sys::process::join_namespaces(here.as_fd(), libc::CLONE_NEWNS).at(step)?;
    done
}

/// CVE-2019-16884: a mount inside /proc could fake what the runtime itself writes to.
fn refuse_proc(target: &OwnedFd, mount: &Mount) -> Result<(), Failure> {
    let in_proc = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC_MAGIC);
    if in_proc(target) && !PROC_FILES.contains(&mount.target.as_slice()) {
        return Err(Failure::other(format!(
            "{} cannot be mounted because it is inside /proc",
            show(&mount.target)
        )));
    }
    Ok(())
}

/// Shows the container its own control groups, one directory per v1 hierarchy.
fn cgroups(root: BorrowedFd<'_>, mount: &Mount, group: Option<&Group>) -> Result<(), Errno> {
    let Some(group) = group else { return Ok(()) };
    let target = match paths::ensure(root, &mount.target, Kind::Directory) {
        // Without a mounted sysfs that can hold it there is no place for it.
        Err(Errno::PERM | Errno::ACCESS | Errno::ROFS) => return Ok(()),
        result => result?,
    };
    let attrs = attrs(mount.attrs);
    if group.v2() {
        for (_, dir) in group.views() {
            let tree = copied(open_dir(dir)?.as_fd(), false)?;
            set_attributes(tree.as_fd(), c"", attrs, false)?;
            attach(&tree, &target)?;
        }
        return Ok(());
    }
    let tmpfs = Mount { fstype: "tmpfs".into(), source: b"cgroup".to_vec(), ..Mount::default() };
    let tree =
        filesystem(&Mount { options: vec![Pair { key: "mode".into(), value: "755".into() }], ..tmpfs })?;
    attach(&tree, &target)?;
    for (name, dir) in group.views() {
        rustix::fs::mkdirat(&tree, name, Mode::from_raw_mode(0o755))?;
        let view = copied(open_dir(dir)?.as_fd(), false)?;
        set_attributes(view.as_fd(), c"", attrs, false)?;
        let place = rustix::fs::openat(&tree, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        attach(&view, &place)?;
        // `cpu,cpuacct` is also found by either name.
        for alias in name.split(',').filter(|alias| *alias != name) {
            paths::link(&tree, alias, name)?;
        }
    }
    set_attributes(tree.as_fd(), c"", attrs, false)
}

fn open_dir(dir: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn devices(root: BorrowedFd<'_>, launch: &Launch, prepared: Option<&Prepared>) -> Result<(), Failure> {
    let dev = paths::ensure(root, b"/dev", Kind::Directory).at(|| "cannot open /dev".into())?;
    for (name, major, minor) in DEVICES {
        if paths::has(&dev, name) {
            continue;
        }
        let path = format!("/dev/{name}").into_bytes();
        add_device(root, &Device { path, major, minor, mode: 0o666, ..Device::default() }, prepared)?;
    }
    for device in &launch.devices {
        add_device(root, device, prepared)?;
    }
    for (name, target) in LINKS {
        paths::link(&dev, name, target).at(|| format!("cannot link /dev/{name}"))?;
    }
    if Path::new("/proc/kcore").exists() {
        paths::link(&dev, "core", "/proc/kcore").at(|| "cannot link /dev/core".into())?;
    }
    Ok(())
}

fn add_device(root: BorrowedFd<'_>, device: &Device, prepared: Option<&Prepared>) -> Result<(), Failure> {
    // The last of a path is the plan's own.
    let node = prepared.and_then(|made| made.nodes.iter().rev().find(|(path, _)| *path == device.path));
    let made = match node {
        Some((path, node)) => paths::ensure(root, path, Kind::File).and_then(|target| attach(node, &target)),
        None => match make_device(root, device) {
            // A user namespace may not make nodes, and device rules may forbid it.
            Err(Errno::PERM) => host_node(&device.path, device.block, device.major, device.minor)
                .and_then(|node| attach(&node, &paths::ensure(root, &device.path, Kind::File)?)),
            result => result,
        },
    };
    made.at(|| format!("cannot make device {}", show(&device.path)))
}

/// Copies the host's node of the same path, after looking that it is the device it claims to be.
fn host_node(path: &[u8], block: bool, major: u32, minor: u32) -> Result<OwnedFd, Errno> {
    let source = rustix::fs::open(OsStr::from_bytes(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&source)?;
    let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != rustix::fs::makedev(major, minor) {
        return Err(Errno::NODEV);
    }
    node(&source)
}

/// Copies the mount of a device node of the host. Read-only: the device is written to all the same, but mode and owner
/// of the node, which is the host's, stay as they are.
fn node(source: &OwnedFd) -> Result<OwnedFd, Errno> {
    let tree = copied(source.as_fd(), false)?;
    set_attributes(tree.as_fd(), c"", attrs(libc::MOUNT_ATTR_RDONLY), false)?;
    Ok(tree)
}

fn make_device(root: BorrowedFd<'_>, device: &Device) -> Result<(), Errno> {
    let path = Path::new(OsStr::from_bytes(&device.path));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    make_node(&paths::ensure(root, parent.as_os_str().as_bytes(), Kind::Directory)?, name, device)
}

/// Makes the node of a device in a folder; one that is there stays.
fn make_node(dir: &OwnedFd, name: &OsStr, device: &Device) -> Result<(), Errno> {
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let node = rustix::fs::makedev(device.major, device.minor);
    // No chmod afterwards: that would follow a link.
    let umask = rustix::process::umask(Mode::empty());
    let made = rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(device.mode), node);
    rustix::process::umask(umask);
    match made {
        Err(Errno::EXIST) => return Ok(()),
        result => result?,
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(device.uid), rustix::fs::Gid::from_raw(device.gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Covers a path: a file with /dev/null, a directory with an empty read-only one.
fn mask(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Failure> {
    let step = || format!("cannot mask path {}", show(path));
    let target = match paths::open(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.at(step)?,
    };
    if paths::is_directory(&target).at(step)? {
        let cover = Mount {
            fstype: "tmpfs".into(),
            source: b"tmpfs".to_vec(),
            attrs: libc::MOUNT_ATTR_RDONLY,
            options: vec![Pair { key: "nr_blocks".into(), value: "1".into() }],
            ..Mount::default()
        };
        return filesystem(&cover).and_then(|tree| attach(&tree, &target)).at(step);
    }
    // CVE-2025-31133: only the real null device may cover a file.
    let null = location("/dev/null")?;
    if !paths::is_null_device(&null).at(step)? {
        return Err(Failure::other(format!("{}: the host's /dev/null is not the null device", step())));
    }
    node(&null).and_then(|tree| attach(&tree, &target)).at(step)
}

fn make_readonly(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Failure> {
    let step = || format!("cannot make {} read-only", show(path));
    let target = match paths::open(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.at(step)?,
    };
    let tree = copied(target.as_fd(), true).at(step)?;
    set_attributes(tree.as_fd(), c"", attrs(libc::MOUNT_ATTR_RDONLY), true).at(step)?;
    attach(&tree, &target).at(step)
}

/// Makes the new root the root and lets go of the old one.
fn pivot(root: &OwnedFd) -> Result<(), Failure> {
    let step = || "cannot change into the root filesystem".to_owned();
    rustix::process::fchdir(root).at(step)?;
    // The old root lands on top of the new one at `.` and is taken off there.
    rustix::process::pivot_root(".", ".").at(step)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at(step)?;
    rustix::process::chdir("/").at(step)
}
