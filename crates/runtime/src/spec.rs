//! What Docker gives a container that asks for nothing special.

use crate::{caps, seccomp};
use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Mount, MountBuilder, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};

/// Returns the spec of an unprivileged container with private namespaces that runs `args` as root in `/`, with
/// Docker's default mounts, capabilities, device rules, seccomp profile, masked and read-only paths.
/// Source: moby `daemon/pkg/oci/defaults.go`.
///
/// # Panics
/// Never: every field that the builders ask for is given.
#[must_use]
pub fn default_spec(args: Vec<String>) -> Spec {
    const COMPLETE: &str = "every field has a default";
    let caps = caps::default_caps();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(caps.clone())
        .effective(caps.clone())
        .permitted(caps.clone())
        .inheritable(caps.clone())
        .ambient(oci_spec::runtime::Capabilities::new())
        .build()
        .expect(COMPLETE);
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build().expect(COMPLETE))
        .args(args)
        .env(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
        .cwd("/")
        .capabilities(capabilities)
        .rlimits(Vec::new())
        .no_new_privileges(false)
        .oom_score_adj(0)
        .build()
        .expect(COMPLETE);
    let namespaces = [
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ]
    .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build().expect(COMPLETE));
    let linux = LinuxBuilder::default()
        .namespaces(namespaces.to_vec())
        .resources(LinuxResourcesBuilder::default().devices(default_device_rules()).build().expect(COMPLETE))
        .seccomp(seccomp::default_seccomp(&caps))
        .masked_paths(default_masked_paths())
        .readonly_paths(default_readonly_paths())
        .build()
        .expect(COMPLETE);
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path("rootfs").readonly(false).build().expect(COMPLETE))
        .process(process)
        .mounts(default_mounts())
        .linux(linux)
        .build()
        .expect(COMPLETE);
    // The builder's defaults are another project's.
    spec.set_hostname(None);
    spec.set_annotations(None);
    spec
}

/// Returns `/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm` as Docker mounts them.
///
/// # Panics
/// Never, as [`default_spec`].
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
    .map(|(destination, typ, source, options)| {
        MountBuilder::default()
            .destination(destination)
            .typ(typ)
            .source(source)
            .options(options.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .build()
            .expect("destination is given")
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
pub(crate) fn default_device_rules() -> Vec<LinuxDeviceCgroup> {
    let rule = |allow, typ, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(typ).access(access);
        if let Some(major) = major {
            builder = builder.major(major);
        }
        if let Some(minor) = minor {
            builder = builder.minor(minor);
        }
        builder.build().expect("every field has a default")
    };
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
