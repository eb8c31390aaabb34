//! Capabilities by number, and those that Docker gives every container.

use oci_spec::runtime::{Capabilities, Capability};

/// In the kernel's order. Source: linux/capability.h.
const BY_NUMBER: [Capability; shim::CAPABILITIES as usize] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Returns the set as a mask: bit n = capability n.
pub(crate) fn mask(capabilities: &Capabilities) -> u64 {
    BY_NUMBER
        .iter()
        .enumerate()
        .filter(|(_, name)| capabilities.contains(name))
        .fold(0, |mask, (n, _)| mask | 1 << n)
}

/// Returns Docker's 14. Source: moby `daemon/pkg/oci/caps/defaults.go`.
#[must_use]
pub fn default_caps() -> Capabilities {
    Capabilities::from([
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fsetid,
        Capability::Fowner,
        Capability::Mknod,
        Capability::NetRaw,
        Capability::Setgid,
        Capability::Setuid,
        Capability::Setfcap,
        Capability::Setpcap,
        Capability::NetBindService,
        Capability::SysChroot,
        Capability::Kill,
        Capability::AuditWrite,
    ])
}

/// Returns every capability: what `--privileged` gives.
#[must_use]
pub fn all_caps() -> Capabilities {
    BY_NUMBER.into_iter().collect()
}

/// Returns those that this process can pass on: in the sandboxes of some hosts even root lacks a few. Source:
/// proc_pid_status(5), `CapBnd`.
#[must_use]
pub fn held_caps() -> Capabilities {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let bounding =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok());
    // Without /proc the kernel will say what is missing.
    let bounding = bounding.unwrap_or(u64::MAX);
    BY_NUMBER.into_iter().enumerate().filter(|(n, _)| bounding & (1 << n) != 0).map(|(_, cap)| cap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_default_is_the_well_known_mask() {
        assert_eq!(mask(&default_caps()), 0x0000_0000_a804_25fb);
        assert_eq!(mask(&all_caps()), 0x0000_01ff_ffff_ffff);
    }
}
