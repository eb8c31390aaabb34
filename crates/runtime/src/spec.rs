//! What Docker gives a container that asks for nothing special.

use crate::{
    caps,
    config::{
        Linux, LinuxCapabilities, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType,
        LinuxResources, Mount, Process, Root, Spec,
    },
    seccomp,
};

/// Returns the spec of an unprivileged container with private namespaces that runs `args` as root in `/`, with
/// Docker's default mounts, capabilities, device rules, seccomp profile, masked and read-only paths.
/// Source: moby `daemon/pkg/oci/defaults.go`.
#[must_use]
pub fn default_spec(args: Vec<String>) -> Spec {
    let caps = caps::default_caps();
    let process = Process {
        args: Some(args),
        env: Some(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]),
        cwd: "/".into(),
        capabilities: Some(LinuxCapabilities {
            bounding: Some(caps),
            effective: Some(caps),
            permitted: Some(caps),
            inheritable: Some(caps),
            ambient: None,
        }),
        ..Process::default()
    };
    let namespaces = [
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ]
    .map(|kind| LinuxNamespace { kind, path: None });
    let linux = Linux {
        namespaces: Some(namespaces.to_vec()),
        resources: Some(LinuxResources {
            devices: Some(default_device_rules()),
            ..LinuxResources::default()
        }),
        seccomp: Some(seccomp::default_seccomp(caps)),
        masked_paths: Some(default_masked_paths()),
        readonly_paths: Some(default_readonly_paths()),
        ..Linux::default()
    };
    Spec {
        oci_version: "1.2.0".to_owned(),
        root: Some(Root { path: "rootfs".into(), readonly: Some(false) }),
        process: Some(process),
        mounts: Some(default_mounts()),
        linux: Some(linux),
        ..Spec::default()
    }
}

/// Returns `/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm` as Docker mounts them.
#[must_use]
pub fn default_mounts() -> Vec<Mount> {
    [
        ("/proc", "proc", "proc", "nosuid noexec nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
        ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
        ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
        ("/sys/fs/cgroup", "cgroup", "cgroup", "ro nosuid noexec nodev"),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
        ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=67108864"),
    ]
    .map(|(destination, kind, source, options)| Mount {
        destination: destination.into(),
        kind: Some(kind.to_owned()),
        source: Some(source.into()),
        options: Some(options.split(' ').map(str::to_owned).collect()),
        ..Mount::default()
    })
    .to_vec()
}

/// Returns the paths that a container sees empty. Source: moby `defaults.go`.
#[must_use]
pub fn default_masked_paths() -> Vec<String> {
    [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Returns the paths that a container cannot write, whoever it is. Source: moby `defaults.go`.
#[must_use]
pub fn default_readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).to_vec()
}

/// Everything denied but making nodes, the harmless devices and terminals.
#[must_use]
pub fn default_device_rules() -> Vec<LinuxDeviceCgroup> {
    let rule =
        |allow, kind, major, minor, access| LinuxDeviceCgroup::new(allow, Some(kind), major, minor, access);
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    for (major, minor) in [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ] {
        rules.push(rule(true, LinuxDeviceType::C, Some(major), minor, "rwm"));
    }
    rules
}
