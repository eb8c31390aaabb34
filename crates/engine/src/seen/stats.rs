//! What a container consumes now. Source: Docker API `ContainerStats`.

use model::Timestamp;
use std::collections::BTreeMap;

/// One sample. Rates are the reader's business: it takes two.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    pub read_at: Timestamp,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    /// By interface name in the container.
    pub networks: BTreeMap<String, NetworkStats>,
    pub blkio: Vec<BlkioStats>,
    pub pids_current: u64,
    /// 0 = unlimited.
    pub pids_limit: u64,
}

/// *Unit:* nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStats {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    /// All CPUs of the host together.
    pub system: u64,
    pub online_cpus: u32,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

/// *Unit:* bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStats {
    pub usage: u64,
    pub max_usage: u64,
    /// The container's limit, else the host's memory.
    pub limit: u64,
    /// The kernel's `memory.stat`.
    pub stats: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// One device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlkioStats {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
}
