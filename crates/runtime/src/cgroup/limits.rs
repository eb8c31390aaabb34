//! From OCI resources to the files of cgroup v1 and v2.
//!
//! Source: OCI runtime spec, "Control groups"; kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.

use crate::config::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use shim::wire::CgroupWrite;

/// Default `cpu.cfs_period_us`.
const PERIOD_MICROS: u64 = 100_000;

/// Returns what to write, in order.
///
/// # Errors
/// In words: a limit that this program does not do.
pub(super) fn writes(resources: &LinuxResources, v2: bool) -> Result<Vec<CgroupWrite>, String> {
    let mut writes = Writes { v2, list: Vec::new() };
    if let Some(memory) = &resources.memory {
        writes.memory(memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        writes.cpu(cpu)?;
    }
    if let Some(pids) = &resources.pids {
        // Source: OCI spec, "pids": 0 and below mean unlimited in Docker.
        let value = if pids.limit > 0 { pids.limit.to_string() } else { "max".into() };
        writes.add("pids", "pids.max", value);
    }
    if let Some(io) = &resources.block_io {
        writes.block_io(io);
    }
    if !v2 {
        for rule in resources.devices.iter().flatten() {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            writes.add("devices", file, rule.to_string());
        }
    }
    for limit in resources.hugepage_limits.iter().flatten() {
        let file = if v2 { "max" } else { "limit_in_bytes" };
        let value = if limit.limit < 0 { "max".to_owned() } else { limit.limit.to_string() };
        writes.add("hugetlb", &format!("hugetlb.{}.{file}", limit.page_size), value);
    }
    for (file, value) in resources.unified.iter().flatten() {
        if !v2 || file.contains('/') {
            return Err(format!("unified resource {file:?} needs cgroup v2"));
        }
        writes.add("", file, value.clone());
    }
    if resources.network.is_some() || resources.rdma.as_ref().is_some_and(|rdma| !rdma.is_empty()) {
        return Err("network and rdma resources are not supported".into());
    }
    Ok(writes.list)
}

struct Writes {
    v2: bool,
    list: Vec<CgroupWrite>,
}

impl Writes {
    fn add(&mut self, controller: &str, file: &str, value: String) {
        self.push(controller, file, value, false);
    }

    fn push(&mut self, controller: &str, file: &str, value: String, optional: bool) {
        let controller = if self.v2 { String::new() } else { controller.to_owned() };
        self.list.push(CgroupWrite { controller, file: file.to_owned(), value, optional });
    }

    fn memory(&mut self, memory: &LinuxMemory) -> Result<(), String> {
        let set = |value: Option<i64>| value.filter(|&value| value != 0);
        let amount = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
        if self.v2 {
            if let Some(limit) = set(memory.limit) {
                self.add("memory", "memory.max", amount(limit));
            }
            if let Some(swap) = set(memory.swap) {
                // v1 counts memory and swap together, v2 swap alone.
                let alone = match (swap, set(memory.limit)) {
                    (..0, _) => -1,
                    (swap, Some(limit @ 0..)) if swap >= limit => swap - limit,
                    (swap, _) => {
                        return Err(format!("memory+swap of {swap} bytes without or below a memory limit"));
                    }
                };
                self.push("memory", "memory.swap.max", amount(alone), true);
            }
            if let Some(reservation) = set(memory.reservation) {
                self.add("memory", "memory.low", amount(reservation));
            }
            return Ok(());
        }
        if let Some(limit) = set(memory.limit) {
            self.add("memory", "memory.limit_in_bytes", limit.to_string());
        }
        if let Some(swap) = set(memory.swap) {
            // Kernels may be built without swap accounting; Docker goes on then, too.
            self.push("memory", "memory.memsw.limit_in_bytes", swap.to_string(), true);
        }
        if let Some(reservation) = set(memory.reservation) {
            self.add("memory", "memory.soft_limit_in_bytes", reservation.to_string());
        }
        if let Some(swappiness) = memory.swappiness {
            self.add("memory", "memory.swappiness", swappiness.to_string());
        }
        if memory.disable_oom_killer == Some(true) {
            self.add("memory", "memory.oom_control", "1".into());
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &LinuxCpu) -> Result<(), String> {
        if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
            if self.v2 {
                self.add("cpu", "cpu.weight", weight_of_shares(shares).to_string());
            } else {
                self.add("cpu", "cpu.shares", shares.to_string());
            }
        }
        let period = cpu.period.filter(|&period| period != 0);
        let quota = cpu.quota.filter(|&quota| quota != 0);
        let realtime_period = cpu.realtime_period.filter(|&period| period != 0);
        let realtime_runtime = cpu.realtime_runtime.filter(|&runtime| runtime != 0);
        if self.v2 {
            if realtime_period.is_some() || realtime_runtime.is_some() {
                return Err("real-time CPU limits need cgroup v1".into());
            }
            if period.is_some() || quota.is_some() {
                let quota =
                    quota.filter(|&quota| quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
                self.add("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD_MICROS)));
            }
        } else {
            if let Some(period) = period {
                self.add("cpu", "cpu.cfs_period_us", period.to_string());
            }
            if let Some(quota) = quota {
                self.add("cpu", "cpu.cfs_quota_us", quota.to_string());
            }
            if let Some(period) = realtime_period {
                self.add("cpu", "cpu.rt_period_us", period.to_string());
            }
            if let Some(runtime) = realtime_runtime {
                self.add("cpu", "cpu.rt_runtime_us", runtime.to_string());
            }
        }
        for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                self.add("cpuset", file, value.clone());
            }
        }
        Ok(())
    }

    fn block_io(&mut self, io: &LinuxBlockIo) {
        if let Some(weight) = io.weight.filter(|&weight| weight != 0) {
            if self.v2 {
                self.push("io", "io.bfq.weight", weight.to_string(), true);
            } else {
                self.push("blkio", "blkio.bfq.weight", weight.to_string(), true);
            }
        }
        let v2 = self.v2;
        let mut throttle = |devices: &Option<Vec<LinuxThrottleDevice>>, v1_file: &str, v2_key: &str| {
            for device in devices.iter().flatten() {
                let node = format!("{}:{}", device.major, device.minor);
                if v2 {
                    self.add("io", "io.max", format!("{node} {v2_key}={}", device.rate));
                } else {
                    self.add("blkio", v1_file, format!("{node} {}", device.rate));
                }
            }
        };
        throttle(&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps");
        throttle(&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps");
        throttle(&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "riops");
        throttle(&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "wiops");
    }
}

/// 2..=262144 shares become a weight of 1..=10000. Source: runc and crun, the linear conversion that Docker uses.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LinuxPids;

    fn lines(v2: bool) -> Vec<String> {
        let resources = LinuxResources {
            memory: Some(LinuxMemory {
                limit: Some(64 << 20),
                swap: Some(128 << 20),
                ..LinuxMemory::default()
            }),
            cpu: Some(LinuxCpu {
                shares: Some(1024),
                quota: Some(50_000),
                period: Some(100_000),
                ..LinuxCpu::default()
            }),
            pids: Some(LinuxPids { limit: 20 }),
            ..LinuxResources::default()
        };
        writes(&resources, v2)
            .unwrap()
            .iter()
            .map(|w| format!("{}/{}={}", w.controller, w.file, w.value))
            .collect()
    }

    #[test]
    fn limits_become_files_of_either_version() {
        assert_eq!(
            lines(false),
            [
                "memory/memory.limit_in_bytes=67108864",
                "memory/memory.memsw.limit_in_bytes=134217728",
                "cpu/cpu.shares=1024",
                "cpu/cpu.cfs_period_us=100000",
                "cpu/cpu.cfs_quota_us=50000",
                "pids/pids.max=20",
            ]
        );
        assert_eq!(
            lines(true),
            [
                "/memory.max=67108864",
                "/memory.swap.max=67108864",
                "/cpu.weight=39",
                "/cpu.max=50000 100000",
                "/pids.max=20"
            ]
        );
        assert_eq!((weight_of_shares(2), weight_of_shares(262_144), weight_of_shares(0)), (1, 10_000, 1));
    }

    #[test]
    fn real_time_is_given_where_the_kernel_can_and_refused_where_it_cannot() {
        let cpu =
            LinuxCpu { realtime_period: Some(1_000), realtime_runtime: Some(500), ..LinuxCpu::default() };
        let resources = LinuxResources { cpu: Some(cpu), ..LinuxResources::default() };
        let v1 = writes(&resources, false).unwrap();
        let v1: Vec<_> = v1.iter().map(|w| format!("{}/{}={}", w.controller, w.file, w.value)).collect();
        assert_eq!(v1, ["cpu/cpu.rt_period_us=1000", "cpu/cpu.rt_runtime_us=500"]);
        assert!(writes(&resources, true).unwrap_err().contains("real-time"));
    }
}
