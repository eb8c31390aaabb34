//! What containers take: disk space by walking folders, CPU, memory and I/O from their cgroups.

use crate::{
    error::Result,
    files::below::folder_bytes,
    inner::Inner,
    seen::{
        container::{Container, Size},
        stats::{BlkioStats, CpuStats, MemoryStats, NetworkStats, Stats},
    },
};
use std::{collections::BTreeMap, fs};

/// Source: times(2): the kernel counts /proc/stat in 1/100 s on every architecture we run on.
const TICK_NANOS: u64 = 10_000_000;

/// Measures a container's own changes and its image.
pub(crate) async fn size(inner: &Inner, container: &Container) -> Result<Size> {
    let upper = inner.container_dir(&container.id).join("upper");
    let image = inner.images.get(&container.image_id).await.map_or(0, |i| i.size_bytes);
    crate::blocking(move || {
        let writable = folder_bytes(&upper);
        Ok(Size { writable, root: writable + image })
    })
    .await
}

/// Takes one sample; all zero for a container that does not run.
pub(crate) async fn stats(inner: &Inner, container: &Container) -> Result<Stats> {
    let Some(pid) = container.state.pid.filter(|_| container.state.is_running()) else {
        return Ok(Stats { read_at: crate::now(), ..Stats::default() });
    };
    let cgroup = inner.cgroup_path(container);
    crate::blocking(move || {
        // Without a cgroup of its own (no root) the processor and memory figures are zero.
        let used = runtime::stats(&cgroup).unwrap_or_default();
        let host_memory = rustix::system::sysinfo();
        Ok(Stats {
            read_at: crate::now(),
            cpu: CpuStats {
                total: used.cpu_usage_nanos,
                user: used.cpu_user_nanos,
                kernel: used.cpu_system_nanos,
                system: host_cpu_nanos(),
                online_cpus: std::thread::available_parallelism()
                    .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
                periods: used.periods,
                throttled_periods: used.throttled_periods,
                throttled: used.throttled_nanos,
            },
            memory: MemoryStats {
                usage: used.memory_usage_bytes,
                max_usage: used.memory_max_usage_bytes,
                limit: used
                    .memory_limit_bytes
                    .unwrap_or(host_memory.totalram as u64 * u64::from(host_memory.mem_unit)),
                stats: used.memory,
            },
            networks: network_stats(pid),
            blkio: blkio(&used.io_bytes, &used.io_operations),
            pids_current: used.pids,
            pids_limit: used.pids_limit.unwrap_or(0),
        })
    })
    .await
}

/// Returns the time all CPUs of the host were busy or idle. Source: proc_stat(5), line `cpu`.
fn host_cpu_nanos() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    ticks.filter_map(|t| t.parse::<u64>().ok()).sum::<u64>() * TICK_NANOS
}

/// Reads the counters of a process's network namespace. Source: proc_pid_net(5), `dev`.
fn network_stats(pid: u32) -> BTreeMap<String, NetworkStats> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let rows = text.lines().skip(2).filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let n: Vec<u64> = counters.split_whitespace().filter_map(|c| c.parse().ok()).collect();
        let at = |i: usize| n.get(i).copied().unwrap_or(0);
        let stats = NetworkStats {
            rx_bytes: at(0),
            rx_packets: at(1),
            rx_errors: at(2),
            rx_dropped: at(3),
            tx_bytes: at(8),
            tx_packets: at(9),
            tx_errors: at(10),
            tx_dropped: at(11),
        };
        Some((name.trim().to_owned(), stats))
    });
    rows.filter(|(name, _)| name != "lo").collect()
}

fn blkio(bytes: &[runtime::IoOperation], operations: &[runtime::IoOperation]) -> Vec<BlkioStats> {
    let mut devices: BTreeMap<(u64, u64), BlkioStats> = BTreeMap::new();
    for (rows, counts_bytes) in [(bytes, true), (operations, false)] {
        for row in rows {
            let device = devices.entry((row.major, row.minor)).or_insert_with(|| BlkioStats {
                major: row.major,
                minor: row.minor,
                ..BlkioStats::default()
            });
            match (row.operation.to_ascii_lowercase().as_str(), counts_bytes) {
                ("read", true) => device.read_bytes += row.value,
                ("write", true) => device.write_bytes += row.value,
                ("read", false) => device.read_ops += row.value,
                ("write", false) => device.write_ops += row.value,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_of_one_device_come_together() {
        let io = |operation: &str, value| runtime::IoOperation {
            major: 8,
            minor: 0,
            operation: operation.into(),
            value,
        };
        let found = blkio(&[io("Read", 10), io("Write", 20), io("Total", 30)], &[io("Read", 1)]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].read_bytes, found[0].write_bytes, found[0].read_ops), (10, 20, 1));
    }

    #[test]
    fn folders_are_counted_with_what_is_below_them() {
        let dir = std::env::temp_dir().join(format!("rswarm-usage-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/file"), vec![1u8; 10_000]).unwrap();
        assert!(folder_bytes(&dir) >= 10_000);
        fs::remove_dir_all(dir).unwrap();
    }
}
