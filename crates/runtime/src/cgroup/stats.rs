//! What a container uses, in the units of Docker's API.

use super::Group;
use std::{collections::BTreeMap, fs, io, path::Path};

/// Usage of one container. Fields that the host cannot tell are zero or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// True on cgroup v2, where Docker's API leaves some fields out.
    pub v2: bool,
    /// CPU time since the start. *Unit:* nanoseconds.
    pub cpu_usage_nanos: u64,
    pub cpu_user_nanos: u64,
    pub cpu_system_nanos: u64,
    /// Per CPU; empty on v2. *Unit:* nanoseconds.
    pub cpu_per_cpu_nanos: Vec<u64>,
    pub throttled_periods: u64,
    pub periods: u64,
    pub throttled_nanos: u64,
    /// *Unit:* bytes, page cache included.
    pub memory_usage_bytes: u64,
    pub memory_max_usage_bytes: u64,
    /// `None` = unlimited.
    pub memory_limit_bytes: Option<u64>,
    /// Failed allocations.
    pub memory_failures: u64,
    pub oom_kills: u64,
    /// `memory.stat` as the kernel writes it.
    pub memory: BTreeMap<String, u64>,
    pub pids: u64,
    /// `None` = unlimited.
    pub pids_limit: Option<u64>,
    /// Bytes moved, per device and direction.
    pub io_bytes: Vec<IoOperation>,
    /// Operations, per device and direction.
    pub io_operations: Vec<IoOperation>,
}

/// A counter of a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoOperation {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, ...
    pub operation: String,
    pub value: u64,
}

/// Limits above this are none: v1 says "the largest page-aligned number".
const UNLIMITED_BYTES_MIN: u64 = 1 << 62;

pub(super) fn read(group: &Group) -> io::Result<Stats> {
    let mut stats = Stats { v2: group.v2(), oom_kills: group.oom_kills(), ..Stats::default() };
    if group.v2() {
        read_v2(group, &mut stats);
    } else {
        read_v1(group, &mut stats);
    }
    stats.memory_limit_bytes = stats.memory_limit_bytes.filter(|&limit| limit < UNLIMITED_BYTES_MIN);
    Ok(stats)
}

fn read_v1(group: &Group, stats: &mut Stats) {
    if let Some(dir) = group.dir("cpuacct") {
        stats.cpu_usage_nanos = number(dir, "cpuacct.usage").unwrap_or(0);
        stats.cpu_per_cpu_nanos = words(&text(dir, "cpuacct.usage_percpu"));
        // Source: cpuacct.stat counts in USER_HZ, which is 100 on every Linux that runs containers.
        let split = table(&text(dir, "cpuacct.stat"));
        let nanos = |key: &str| split.get(key).copied().unwrap_or(0) * 10_000_000;
        stats.cpu_user_nanos = nanos("user");
        stats.cpu_system_nanos = nanos("system");
    }
    if let Some(dir) = group.dir("cpu") {
        let cpu = table(&text(dir, "cpu.stat"));
        let get = |key: &str| cpu.get(key).copied().unwrap_or(0);
        stats.periods = get("nr_periods");
        stats.throttled_periods = get("nr_throttled");
        stats.throttled_nanos = get("throttled_time");
    }
    if let Some(dir) = group.dir("memory") {
        stats.memory_usage_bytes = number(dir, "memory.usage_in_bytes").unwrap_or(0);
        stats.memory_max_usage_bytes = number(dir, "memory.max_usage_in_bytes").unwrap_or(0);
        stats.memory_limit_bytes = number(dir, "memory.limit_in_bytes");
        stats.memory_failures = number(dir, "memory.failcnt").unwrap_or(0);
        stats.memory = table(&text(dir, "memory.stat"));
    }
    pids(group, stats);
    if let Some(dir) = group.dir("blkio") {
        stats.io_bytes = io_v1(&text(dir, "blkio.throttle.io_service_bytes_recursive"));
        stats.io_operations = io_v1(&text(dir, "blkio.throttle.io_serviced_recursive"));
    }
}

fn read_v2(group: &Group, stats: &mut Stats) {
    let Some(dir) = group.dir("") else { return };
    let cpu = table(&text(dir, "cpu.stat"));
    let get = |key: &str| cpu.get(key).copied().unwrap_or(0);
    stats.cpu_usage_nanos = get("usage_usec") * 1000;
    stats.cpu_user_nanos = get("user_usec") * 1000;
    stats.cpu_system_nanos = get("system_usec") * 1000;
    stats.periods = get("nr_periods");
    stats.throttled_periods = get("nr_throttled");
    stats.throttled_nanos = get("throttled_usec") * 1000;
    stats.memory_usage_bytes = number(dir, "memory.current").unwrap_or(0);
    stats.memory_max_usage_bytes = number(dir, "memory.peak").unwrap_or(0);
    stats.memory_limit_bytes = number(dir, "memory.max");
    stats.memory = table(&text(dir, "memory.stat"));
    stats.memory_failures = table(&text(dir, "memory.events")).get("max").copied().unwrap_or(0);
    pids(group, stats);
    (stats.io_bytes, stats.io_operations) = io_v2(&text(dir, "io.stat"));
}

fn pids(group: &Group, stats: &mut Stats) {
    if let Some(dir) = group.dir("pids") {
        stats.pids = number(dir, "pids.current").unwrap_or(0);
        stats.pids_limit = number(dir, "pids.max");
    }
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// `max` and files that are not there are `None`.
fn number(dir: &Path, file: &str) -> Option<u64> {
    text(dir, file).trim().parse().ok()
}

fn words(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect()
}

fn node(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 Read 4096` per line.
fn io_v1(text: &str) -> Vec<IoOperation> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = node(words.next()?)?;
        Some(IoOperation {
            major,
            minor,
            operation: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ..` per line.
fn io_v2(text: &str) -> (Vec<IoOperation>, Vec<IoOperation>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(node) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, operation) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            list.push(IoOperation { major, minor, operation: operation.to_owned(), value });
        }
    }
    (bytes, operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables_are_read() {
        assert_eq!(
            table("a 1\nb x\nc 3\n").into_iter().map(|(k, v)| format!("{k}{v}")).collect::<String>(),
            "a1c3"
        );
        assert_eq!(io_v1("8:0 Read 7\nTotal 7\n").len(), 1);
        let (bytes, operations) = io_v2("8:16 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0\n");
        assert_eq!((bytes[1].value, bytes[1].minor, operations[0].operation.as_str()), (6, 16, "Read"));
    }
}
