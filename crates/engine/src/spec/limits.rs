//! Limits of a container: of its cgroup, and of its processes (ulimits).

use crate::{
    ask::config::Resources,
    error::{Error, Result, unfit},
    spec::devices::{self, HostDevice},
};
use model::Ulimit;
use runtime::config::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, PosixRlimit,
    PosixRlimitType,
};

/// Returns the limits of its cgroup, which can change while it runs.
///
/// # Errors
/// `InvalidParameter` for what a cgroup does not take.
pub(crate) fn cgroup(wanted: &Resources) -> Result<LinuxResources> {
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
    let mut cpu = LinuxCpu {
        shares: Some(cpu_shares).filter(|n| *n > 0),
        realtime_period: Some(cpu_realtime_period).filter(|n| *n > 0),
        realtime_runtime: Some(cpu_realtime_runtime).filter(|n| *n != 0),
        cpus: Some(cpuset_cpus.clone()).filter(|set| !set.is_empty()),
        mems: Some(cpuset_mems.clone()).filter(|set| !set.is_empty()),
        ..LinuxCpu::default()
    };
    if cpu_nanos > 0 {
        let cpus = std::thread::available_parallelism().map_or(u64::MAX, |n| n.get() as u64);
        if cpu_nanos < 10_000_000 || cpu_nanos > cpus.saturating_mul(1_000_000_000) {
            return Err(Error::invalid(format!(
                "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
        let period = 100_000u64;
        cpu.period = Some(period);
        cpu.quota = Some(amount(cpu_nanos.saturating_mul(period) / 1_000_000_000));
    } else {
        cpu.period = Some(cpu_period).filter(|n| *n > 0);
        cpu.quota = Some(cpu_quota).filter(|n| *n != 0);
    }
    let mut memory = LinuxMemory {
        swappiness: memory_swappiness.map(u64::from),
        reservation: Some(memory_reservation_bytes).filter(|n| *n > 0).map(amount),
        disable_oom_killer: Some(oom_kill_disable).filter(|disable| *disable),
        ..LinuxMemory::default()
    };
    if memory_bytes > 0 {
        if memory_bytes < 6 << 20 {
            return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
        }
        memory.limit = Some(amount(memory_bytes));
        // As Docker: the same amount of swap again unless said otherwise.
        let swap = match memory_swap_bytes {
            0 => amount(memory_bytes.saturating_mul(2)),
            given => given,
        };
        if swap > 0 && u64::try_from(swap).is_ok_and(|s| s < memory_bytes) {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        memory.swap = Some(swap);
    }
    Ok(LinuxResources {
        cpu: Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()),
        memory: Some(memory).filter(|memory| *memory != LinuxMemory::default()),
        pids: pids_limit.filter(|n| *n > 0).map(|limit| LinuxPids { limit }),
        block_io: Some(blkio_weight)
            .filter(|weight| *weight > 0)
            .map(|weight| LinuxBlockIo { weight: Some(weight), ..LinuxBlockIo::default() }),
        ..LinuxResources::default()
    })
}

fn amount(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Returns the limits of a container, and which devices it may use.
pub(super) fn resources(
    wanted: &Resources,
    privileged: bool,
    devices: &[HostDevice],
    rules: &[String],
) -> Result<LinuxResources> {
    let all = if privileged {
        vec![LinuxDeviceCgroup::new(true, None, None, None, "rwm")]
    } else {
        let mut all = runtime::default_device_rules();
        for HostDevice { kind, major, minor, access, .. } in devices {
            let (major, minor) = (Some((*major).into()), Some((*minor).into()));
            all.push(LinuxDeviceCgroup::new(true, Some(*kind), major, minor, access));
        }
        for rule in rules {
            all.push(devices::rule(rule)?);
        }
        all
    };
    Ok(LinuxResources { devices: Some(all), ..cgroup(wanted)? })
}

/// Returns one of the limits that its processes have.
///
/// # Errors
/// `InvalidParameter` for one that the kernel does not have, or would not take.
pub(crate) fn rlimit(limit: &Ulimit) -> Result<PosixRlimit> {
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
    let kind = PosixRlimitType::named(&format!("RLIMIT_{}", name.to_ascii_uppercase()))
        .ok_or_else(|| Error::invalid(format!("invalid ulimit type: {}", limit.name)))?;
    Ok(PosixRlimit { kind, soft: number(limit.soft), hard: number(limit.hard) })
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
        let got = cgroup(&wanted).unwrap();
        let (cpu, memory) = (got.cpu.unwrap(), got.memory.unwrap());
        assert_eq!((cpu.period, cpu.quota, cpu.shares), (Some(100_000), Some(150_000), None));
        assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(128 << 20)));
        assert_eq!((got.pids.unwrap().limit, got.block_io), (10, None));
        assert_eq!(cgroup(&Resources::default()).unwrap(), LinuxResources::default());
        assert!(cgroup(&Resources { memory_bytes: 1 << 20, ..Resources::default() }).is_err());
    }
}
