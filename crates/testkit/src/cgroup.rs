//! Control groups of tests, which make them beside each other.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// Returns where this host has a cgroup v2 hierarchy, or `None`.
///
/// # Panics
/// When the kernel's list of mounts cannot be read.
pub fn v2_hierarchy() -> Option<String> {
    mounted(|line| line.contains(" - cgroup2 "))
}

/// Returns where this host has the v1 hierarchy of a controller, or `None`.
///
/// # Panics
/// When the kernel's list of mounts cannot be read.
pub fn v1_hierarchy(controller: &str) -> Option<String> {
    mounted(|line| {
        let options = line.rsplit(' ').next().unwrap_or_default();
        line.contains(" - cgroup ") && options.split(',').any(|name| name == controller)
    })
}

/// *Source:* proc_pid_mountinfo(5).
fn mounted(is: impl Fn(&str) -> bool) -> Option<String> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("the kernel's list of mounts");
    let line = mountinfo.lines().find(|line| is(line))?;
    line.split(' ').nth(4).map(str::to_owned)
}

/// Returns the path of a group in its hierarchy that no other test has, such as `/rswarm-test-core-18..`.
pub fn fresh_group(name: &str) -> String {
    // Process ids are no names where every test program is pid 1 of its own namespace.
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("/rswarm-test-{name}-{unique}")
}
