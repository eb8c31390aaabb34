//! Control groups: v1 (one hierarchy per controller), v2 (one for all) and hybrid hosts (v1 for the controllers)
//! behind one interface. A container has one path, e.g. `/rswarm/<id>`, below every mount point.
//!
//! The daemon decides what is written where (`launch`); the shim makes the directories and writes.

mod devices;
mod limits;
mod stats;

use crate::{Error, config::LinuxResources, spec::default_device_rules};
use shim::wire::{self, Pair};
use std::{fs, io, path::Path, sync::OnceLock};

pub(crate) use shim::cgroup::Group;
pub use stats::{IoOperation, Stats};

/// Where the kernel's control groups are mounted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hierarchies {
    /// Controllers (comma-separated; empty on v2) and mount point.
    pub(crate) mounts: Vec<Pair>,
}

impl Hierarchies {
    /// Reads them from the mount table, once per process.
    pub(crate) fn of_this_host() -> &'static Self {
        static HOST: OnceLock<Hierarchies> = OnceLock::new();
        HOST.get_or_init(|| Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
    }

    /// A host whose v1 hierarchies hold controllers is used as v1, else its cgroup2 mount as v2.
    fn parse(mountinfo: &str) -> Self {
        const CONTROLLERS: [&str; 14] = [
            "cpu",
            "cpuacct",
            "cpuset",
            "memory",
            "devices",
            "freezer",
            "blkio",
            "pids",
            "hugetlb",
            "net_cls",
            "net_prio",
            "perf_event",
            "rdma",
            "misc",
        ];
        let (mut v1, mut v2) = (Vec::<Pair>::new(), Vec::new());
        for line in mountinfo.lines() {
            // Source: proc_pid_mountinfo(5): `id parent dev root MOUNTPOINT options .. - TYPE source SUPEROPTIONS`.
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(value) = left.split(' ').nth(4).map(str::to_owned) else { continue };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) => v2.push(Pair { key: String::new(), value }),
                (Some("cgroup"), Some(options)) => {
                    let controllers: Vec<_> =
                        options.split(',').filter(|o| CONTROLLERS.contains(o)).collect();
                    let key = controllers.join(",");
                    if !key.is_empty() && !v1.iter().any(|known| known.key == key) {
                        v1.push(Pair { key, value });
                    }
                }
                _ => {}
            }
        }
        v2.truncate(1);
        Self { mounts: if v1.is_empty() { v2 } else { v1 } }
    }

    fn usable(&self) -> Result<(), String> {
        if self.mounts.is_empty() {
            return Err("no control groups are mounted: mount -t cgroup2 none /sys/fs/cgroup".into());
        }
        for mount in &self.mounts {
            let place = &mount.value;
            rustix::fs::access(place.as_str(), rustix::fs::Access::WRITE_OK).map_err(|errno| {
                format!(
                    "control groups at {place} cannot be made: {errno}; they must be mounted to be written"
                )
            })?;
        }
        Ok(())
    }

    fn v2(&self) -> bool {
        self.mounts.first().is_some_and(|mount| mount.key.is_empty())
    }

    /// Returns where the groups of a v1 controller are.
    fn v1(&self, controller: &str) -> Option<&Path> {
        let mount = self.mounts.iter().find(|mount| mount.key.split(',').any(|key| key == controller))?;
        Some(Path::new(&mount.value))
    }
}

/// Looks whether groups can be made on this host.
///
/// # Errors
/// In words: no hierarchy is mounted, or one cannot be written to.
pub fn usable() -> Result<(), String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Hierarchies::parse(&text).usable()
}

/// Returns true if groups of this host can be given CPU time for real-time tasks: version 1, and a kernel made with
/// `CONFIG_RT_GROUP_SCHED`. *Source:* kernel Documentation/scheduler/sched-rt-group.rst.
pub fn has_realtime() -> bool {
    let cpu = Hierarchies::of_this_host().v1("cpu");
    cpu.is_some_and(|mount| mount.join("cpu.rt_runtime_us").exists())
}

/// Translates a cgroup path and its limits for the shim.
///
/// # Errors
/// In words, when the path is no path or a limit makes no sense.
pub(crate) fn launch(
    path: &Path,
    resources: Option<&LinuxResources>,
    optional: bool,
) -> Result<wire::Cgroup, String> {
    let text =
        path.to_str().filter(|text| valid(text)).ok_or_else(|| format!("cgroupsPath {path:?} is no path"))?;
    let host = Hierarchies::of_this_host();
    let mut resources = resources.cloned().unwrap_or_default();
    // Without any rule it gets what every container gets, not every device. Source: runc `specconv.CreateCgroupConfig`.
    let rules =
        resources.devices.take().filter(|rules| !rules.is_empty()).unwrap_or_else(default_device_rules);
    let device_program = if host.v2() { devices::program(&rules)? } else { Vec::new() };
    resources.devices = Some(rules);
    let writes = limits::writes(&resources, host.v2())?;
    Ok(wire::Cgroup {
        path: text.to_owned(),
        writes,
        optional,
        device_program,
        hierarchies: host.mounts.clone(),
    })
}

fn valid(path: &str) -> bool {
    path.len() > 1 && path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".")
}

/// Stops every process of the container until [`unpause`]. Returns when all have stopped.
///
/// # Errors
/// When there is no such cgroup, no freezer on this host, or processes do not stop within 10 s (thawed then).
pub fn pause(cgroup: &str) -> Result<(), Error> {
    located(cgroup)?.freeze().map_err(|source| failed("freeze", cgroup, source))
}

/// Lets the container go on.
///
/// # Errors
/// As [`pause`].
pub fn unpause(cgroup: &str) -> Result<(), Error> {
    located(cgroup)?.thaw().map_err(|source| failed("thaw", cgroup, source))
}

/// Changes the limits of a running container. What `resources` does not name stays.
///
/// # Errors
/// When the kernel refuses, e.g. a memory limit below what is used; limits written before stay.
pub fn update(cgroup: &str, resources: &LinuxResources) -> Result<(), Error> {
    let group = located(cgroup)?;
    let invalid =
        |reason: String| failed("limit", cgroup, io::Error::new(io::ErrorKind::InvalidInput, reason));
    let host = Hierarchies::of_this_host();
    let writes = limits::writes(resources, host.v2()).map_err(invalid)?;
    group.update(&writes).map_err(|source| failed("limit", cgroup, source))
}

/// Finds out whether these limits could be set on a cgroup that does not exist yet; leaves nothing.
///
/// # Errors
/// What an ordinary user's container will go without: no cgroup can be made, or one lacks a controller.
pub fn try_limits(cgroup: &str, resources: &LinuxResources) -> Result<(), Error> {
    let host = Hierarchies::of_this_host();
    let invalid =
        |reason: String| failed("limit", cgroup, io::Error::new(io::ErrorKind::InvalidInput, reason));
    let writes = limits::writes(resources, host.v2()).map_err(invalid)?;
    let group = Group::new(cgroup, &host.mounts);
    let tried = group.create().and_then(|()| {
        let limited = group.limit(&writes);
        drop(group.remove());
        limited
    });
    tried.map_err(|source| failed("limit", cgroup, source))
}

/// Reads what the container uses now.
///
/// # Errors
/// When there is no such cgroup. A controller that this host lacks leaves its fields at zero.
pub fn stats(cgroup: &str) -> Result<Stats, Error> {
    stats::read(&located(cgroup)?).map_err(|source| failed("read", cgroup, source))
}

/// Kills every process in the cgroup, paused ones too.
///
/// # Errors
/// When processes remain after 10 s.
pub fn kill_all(cgroup: &str) -> Result<(), Error> {
    located(cgroup)?.kill_all().map_err(|source| failed("kill all in", cgroup, source))
}

/// Removes a parent such as `/rswarm` where no container is left in it; for a daemon that cleans up behind itself.
pub fn remove_if_empty(cgroup: &str) {
    if valid(cgroup) {
        Group::new(cgroup, &Hierarchies::of_this_host().mounts).remove_if_empty();
    }
}

fn failed(operation: &'static str, cgroup: &str, source: io::Error) -> Error {
    Error::Cgroup { operation, path: cgroup.to_owned(), source }
}

fn located(cgroup: &str) -> Result<Group, Error> {
    let group = Group::new(cgroup, &Hierarchies::of_this_host().mounts);
    if !valid(cgroup) || !group.exists() {
        return Err(failed("find", cgroup, io::ErrorKind::NotFound.into()));
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_host_is_used_as_v1_and_a_pure_one_as_v2() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  31 25 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                  32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let v2 = "33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let hybrid = Hierarchies::parse(&format!("{v1}{v2}"));
        let keys: Vec<_> = hybrid.mounts.iter().map(|mount| mount.key.as_str()).collect();
        assert_eq!((keys, hybrid.v2()), (vec!["cpu,cpuacct", "memory"], false));
        let pure = Hierarchies::parse(v2);
        assert_eq!((pure.mounts[0].value.as_str(), pure.v2()), ("/sys/fs/cgroup/unified", true));
        assert!(Hierarchies::parse("").mounts.is_empty());
    }

    #[test]
    fn a_host_without_control_groups_that_can_be_made_says_which() {
        let at = |place: &str| {
            let line = format!("33 25 0:29 / {place} rw - cgroup2 cgroup2 rw\n");
            Hierarchies::parse(&line).usable()
        };
        assert!(Hierarchies::parse("").usable().unwrap_err().contains("no control groups are mounted"));
        assert_eq!(at("/tmp"), Ok(()));
        // Hidden by what was mounted above it.
        assert!(at("/nowhere/cgroup").unwrap_err().contains("/nowhere/cgroup cannot be made: No such file"));
    }
}
