//! Limits of a container: of its cgroup, and of its processes (ulimits).

use crate::{
    ask::config::Resources,
    error::{Error, Result, unfit},
    spec::{devices, parsed, parts::Parts},
};
use model::Ulimit;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

/// Builds the cgroup limits for a live update.
///
/// # Errors
/// `InvalidParameter` for what a cgroup does not take.
pub(crate) fn cgroup(resources_wanted: &Resources) -> Result<LinuxResources> {
    parsed(Value::Object(limit_map(resources_wanted)?), "update")
}

fn limit_map(wanted: &Resources) -> Result<serde_json::Map<String, Value>> {
    let Resources {
        cpu_nanos,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        ref cpuset_cpus,
        ref cpuset_mems,
        memory_bytes,
        memory_reservation_bytes,
        memory_swap_bytes,
        memory_swappiness,
        pids_limit,
        blkio_weight,
        oom_kill_disable,
    } = *wanted;
    let mut cpu = serde_json::Map::new();
    if cpu_shares > 0 {
        cpu.insert("shares".into(), cpu_shares.into());
    }
    if cpu_nanos > 0 {
        let cpus = std::thread::available_parallelism().map_or(u64::MAX, |n| n.get() as u64);
        if cpu_nanos < 10_000_000 || cpu_nanos > cpus.saturating_mul(1_000_000_000) {
            return Err(Error::invalid(format!(
                "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
        let period = 100_000u64;
        let quota = i64::try_from(cpu_nanos.saturating_mul(period) / 1_000_000_000).unwrap_or(i64::MAX);
        cpu.insert("period".into(), period.into());
        cpu.insert("quota".into(), quota.into());
    } else {
        if cpu_period > 0 {
            cpu.insert("period".into(), cpu_period.into());
        }
        if cpu_quota != 0 {
            cpu.insert("quota".into(), cpu_quota.into());
        }
    }
    if cpu_realtime_period > 0 {
        cpu.insert("realtimePeriod".into(), cpu_realtime_period.into());
    }
    if cpu_realtime_runtime != 0 {
        cpu.insert("realtimeRuntime".into(), cpu_realtime_runtime.into());
    }
    if !cpuset_cpus.is_empty() {
        cpu.insert("cpus".into(), cpuset_cpus.clone().into());
    }
    if !cpuset_mems.is_empty() {
        cpu.insert("mems".into(), cpuset_mems.clone().into());
    }
    let mut memory = serde_json::Map::new();
    if memory_bytes > 0 {
        if memory_bytes < 6 << 20 {
            return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
        }
        memory.insert("limit".into(), memory_bytes.into());
        // As Docker: the same amount of swap again unless said otherwise.
        let swap = match memory_swap_bytes {
            0 => i64::try_from(memory_bytes.saturating_mul(2)).unwrap_or(i64::MAX),
            given => given,
        };
        if swap > 0 && u64::try_from(swap).is_ok_and(|s| s < memory_bytes) {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        memory.insert("swap".into(), swap.into());
    }
    if let Some(swappiness) = memory_swappiness {
        memory.insert("swappiness".into(), swappiness.into());
    }
    if memory_reservation_bytes > 0 {
        memory.insert("reservation".into(), memory_reservation_bytes.into());
    }
    if oom_kill_disable {
        memory.insert("disableOOMKiller".into(), true.into());
    }
    let mut map = serde_json::Map::new();
    if !cpu.is_empty() {
        map.insert("cpu".into(), cpu.into());
    }
    if !memory.is_empty() {
        map.insert("memory".into(), memory.into());
    }
    if let Some(limit) = pids_limit.filter(|n| *n > 0) {
        map.insert("pids".into(), json!({ "limit": limit }));
    }
    if blkio_weight > 0 {
        map.insert("blockIO".into(), json!({ "weight": blkio_weight }));
    }
    Ok(map)
}

/// Writes the limits of a container, and which devices it may use.
pub(super) fn resources(wanted: &Resources, privileged: bool, parts: &Parts<'_>) -> Result<Value> {
    let mut map = limit_map(wanted)?;
    let mut rules = vec![];
    if privileged {
        rules.push(json!({ "allow": true, "access": "rwm" }));
    } else {
        rules.push(json!({ "allow": false, "access": "rwm" }));
        for (kind, major, minor) in [
            ("c", Some(1), Some(3)),
            ("c", Some(1), Some(5)),
            ("c", Some(1), Some(7)),
            ("c", Some(1), Some(8)),
            ("c", Some(1), Some(9)),
            ("c", Some(5), Some(0)),
            ("c", Some(5), Some(1)),
            ("c", Some(5), Some(2)),
            ("c", Some(136), None),
        ] {
            let mut rule = json!({ "allow": true, "type": kind, "access": "rwm" });
            if let Some(major) = major {
                rule["major"] = major.into();
            }
            if let Some(minor) = minor {
                rule["minor"] = minor.into();
            }
            rules.push(rule);
        }
        for kind in ["c", "b"] {
            rules.push(json!({ "allow": true, "type": kind, "access": "m" }));
        }
        for device in devices::all(parts)? {
            rules.push(
                json!({ "allow": true, "type": device.kind, "major": device.major, "minor": device.minor,
                "access": device.access }),
            );
        }
        for rule in &parts.config.host.device_cgroup_rules {
            rules.push(devices::rule(rule)?);
        }
    }
    map.insert("devices".into(), rules.into());
    Ok(Value::Object(map))
}

/// Writes one of the limits that its processes have.
///
/// # Errors
/// `InvalidParameter` for one that the kernel does not have, or would not take.
pub(crate) fn rlimit(limit: &Ulimit) -> Result<Value> {
    limit.check("Ulimits").map_err(unfit)?;
    let number = |n: i64| u64::try_from(n).unwrap_or(u64::MAX); // -1 = unlimited
    let name = limit.name.to_ascii_lowercase();
    // What only this host knows.
    if name == "nofile"
        && let Some(max) = files_max()
        && limit.hard != -1
        && number(limit.hard) > max
    {
        return Err(Error::invalid(format!(
            "invalid ulimit nofile: {} is more than this host allows a process (fs.nr_open: {max})",
            limit.hard
        )));
    }
    let name = format!("RLIMIT_{}", name.to_ascii_uppercase());
    Ok(json!({ "type": name, "soft": number(limit.soft), "hard": number(limit.hard) }))
}

/// Descriptors that the kernel lets a process have at most; `None` = nobody says.
fn files_max() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_cgroup_values() {
        let wanted = Resources {
            cpu_nanos: 1_500_000_000,
            memory_bytes: 64 << 20,
            pids_limit: Some(10),
            ..Resources::default()
        };
        let got = Value::Object(limit_map(&wanted).unwrap());
        assert_eq!(got["cpu"], json!({ "period": 100_000, "quota": 150_000 }));
        assert_eq!(got["memory"], json!({ "limit": 64 << 20, "swap": 128 << 20 }));
        assert_eq!(got["pids"]["limit"], 10);
        assert!(cgroup(&wanted).is_ok());
        assert!(limit_map(&Resources { memory_bytes: 1 << 20, ..Resources::default() }).is_err());
    }
}
