//! What the kernel gives and holds: filters of the network, limits, modules, settings.

use super::{Finding, Found, Host, names};
use network::{Guard, Guards};

/// Of a daemon with fewer, few containers start beside a flood. *Source:* README, "Limits".
const DESCRIPTORS_MIN: u64 = 4096;
/// Controllers that a container's limits need. *Source:* kernel Documentation/admin-guide/cgroup-v2.rst.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

fn guard(host: &Host, of: fn(&Guards) -> &Guard, fine: &str) -> Found {
    host.together("net")?;
    let guards = host.guards.as_ref().map_err(|why| {
        let hint = if host.uid == 0 { "" } else { "run this command as root" };
        Finding::unknown(format!("the network cannot be looked at: {why}"), hint)
    })?;
    Ok(match of(guards) {
        Guard::NotNeeded => Finding::none("nothing on this host needs it now"),
        Guard::InForce => Finding::ok(fine),
        Guard::Broken(what) => Finding::bad(
            what.clone(),
            "systemctl restart rswarm: it mends its rules; then find out who changes nftables",
        ),
    })
}

pub(super) fn tunnel_filter(host: &Host) -> Found {
    guard(host, |guards| &guards.tunnel, "tunnel packets are taken from nodes of the swarm only")
}

pub(super) fn local_ports(host: &Host) -> Found {
    guard(host, |guards| &guards.local_ports, "each is held to its container's addresses")
}

pub(super) fn overlay_ports(host: &Host) -> Found {
    guard(host, |guards| &guards.overlay_ports, "each is held to its task's addresses")
}

pub(super) fn published_ports(host: &Host) -> Found {
    guard(host, |guards| &guards.host, "table inet rswarm is as it should be")
}

/// Reads a number of /proc/sys; `None`: this kernel has no such setting.
fn number(host: &Host, path: &str) -> Result<Option<i64>, Finding> {
    Ok(host.text(path)?.and_then(|text| text.trim().parse().ok()))
}

pub(super) fn loopback_routing(host: &Host) -> Found {
    host.together("net")?;
    // Ours are set for our own links, whose neighbours the table keeps out.
    for scope in ["all", "default"] {
        if number(host, &format!("/proc/sys/net/ipv4/conf/{scope}/route_localnet"))? == Some(1) {
            return Ok(Finding::warn(
                format!(
                    "net.ipv4.conf.{scope}.route_localnet is 1: who is next door can reach 127.0.0.1 here"
                ),
                format!("sysctl -w net.ipv4.conf.{scope}.route_localnet=0"),
            ));
        }
    }
    Ok(Finding::ok("127.0.0.1 is routed for no link of the host's own"))
}

pub(super) fn descriptors(host: &Host) -> Found {
    let Some(pid) = host.place.daemon else {
        return Err(Finding::unknown(
            "needs the daemon: none answers on this host",
            "systemctl start rswarm",
        ));
    };
    let limits = host.text(&format!("/proc/{pid}/limits"))?.unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let Some(soft) = line.and_then(|line| line.split_whitespace().next()) else {
        return Err(Finding::unknown(
            format!("the limits of process {pid} cannot be read"),
            "run this command as root",
        ));
    };
    Ok(match soft.parse::<u64>() {
        Ok(limit) if limit < DESCRIPTORS_MIN => Finding::warn(
            format!("the daemon may open {limit} files: a flood leaves few for containers"),
            "LimitNOFILE=1048576 in the unit file, as deploy/rswarm.service has it",
        ),
        Ok(limit) => Finding::ok(format!("the daemon may open {limit} files")),
        Err(_) => Finding::ok("the daemon may open any number of files"),
    })
}

pub(super) fn seccomp(host: &Host) -> Found {
    let actions = host.text("/proc/sys/kernel/seccomp/actions_avail")?.unwrap_or_default();
    Ok(if actions.split_whitespace().any(|action| action == "errno") {
        Finding::ok("the kernel filters system calls")
    } else {
        Finding::bad(
            "the kernel filters no system calls",
            "a kernel with CONFIG_SECCOMP_FILTER: containers reach all of this one",
        )
    })
}

pub(super) fn swap(host: &Host) -> Found {
    let swaps = host.text("/proc/swaps")?.unwrap_or_default();
    let used: Vec<&str> = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    // zram is memory; what is behind a device mapper may be encrypted.
    let on_disk: Vec<&str> =
        used.into_iter().filter(|name| !name.contains("zram") && !name.contains("/dm-")).collect();
    Ok(if on_disk.is_empty() {
        Finding::ok("no swap that secrets could be written to in the clear")
    } else {
        Finding::warn(
            format!("memory, and secrets with it, may be written to {}", names(&on_disk)),
            "swapoff -a, or encrypt it",
        )
    })
}

pub(super) fn cgroups(host: &Host) -> Found {
    let mounts = host.text("/proc/self/mounts")?.unwrap_or_default();
    let (mut has, mut unified) = (Vec::new(), None);
    for mount in mounts.lines() {
        // Source: proc_pid_mounts(5): `source MOUNTPOINT TYPE OPTIONS ..`.
        let fields: Vec<&str> = mount.split(' ').collect();
        match fields[..] {
            [_, _, "cgroup", options, ..] => has.extend(options.split(',').map(str::to_owned)),
            [_, place, "cgroup2", ..] => unified = Some(place),
            _ => {}
        }
    }
    let version = if has.is_empty() { "v2" } else { "v1" };
    if let Some(place) = unified.filter(|_| has.is_empty()) {
        let controllers = host.text(&format!("{place}/cgroup.controllers"))?.unwrap_or_default();
        has.extend(controllers.split_whitespace().map(str::to_owned));
    }
    let missing: Vec<&str> =
        CONTROLLERS.into_iter().filter(|wanted| !has.iter().any(|has| has == wanted)).collect();
    Ok(if missing.is_empty() {
        Finding::ok(format!("cgroup {version} with {}", CONTROLLERS.join(", ")))
    } else {
        Finding::bad(
            format!("no control groups for {}: such limits of containers are not kept", missing.join(", ")),
            "boot without cgroup_disable=, with cgroup v2 at /sys/fs/cgroup and Delegate=yes in the unit file",
        )
    })
}

pub(super) fn apparmor(host: &Host) -> Found {
    let enabled = host.text("/sys/module/apparmor/parameters/enabled")?.unwrap_or_default();
    if enabled.trim() != "Y" {
        return Ok(Finding::warn(
            "the kernel has no AppArmor: a container's programs are not confined by it",
            "boot with apparmor=1 security=apparmor",
        ));
    }
    let profiles = host.text("/sys/kernel/security/apparmor/profiles")?.unwrap_or_default();
    let loaded = profiles.lines().any(|line| line.starts_with("docker-default ("));
    Ok(if loaded {
        Finding::ok("profile docker-default is loaded, and applied to containers")
    } else {
        Finding::warn(
            "profile docker-default is not loaded: containers are not confined by AppArmor",
            "apparmor_parser -r with a profile of this name, as Docker's packages bring it",
        )
    })
}

pub(super) fn user_namespaces(host: &Host) -> Found {
    let remapped = host.answer(|a| &a.info)?.security_options.iter().any(|option| option == "name=userns");
    if remapped {
        return Ok(Finding::ok("containers have ids of their own: userns-remap is set"));
    }
    let pid = host.place.daemon.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let map = host.text(&format!("/proc/{pid}/uid_map"))?.unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    Ok(if whole {
        Finding::warn(
            "root of a container is root of the host: only capabilities and filters are between them",
            "userns-remap = \"default\" in the settings, or run --userns private; images with a USER of their own; a daemon \
             that an ordinary user starts is in a user namespace",
        )
    } else {
        Finding::ok("the daemon and its containers are in a user namespace of their own")
    })
}

pub(super) fn settings(host: &Host) -> Found {
    let off: fn(i64) -> bool = |n| n == 0;
    let on: fn(i64) -> bool = |n| n > 0;
    // Key, value that is as wanted, what the other means.
    let wanted = [
        ("kernel.unprivileged_userns_clone", off, "every user may make user namespaces"),
        ("kernel.unprivileged_bpf_disabled", on, "every user may load programs into the kernel"),
        ("kernel.kptr_restrict", on, "every user sees addresses of the kernel"),
        ("kernel.dmesg_restrict", on, "every user reads the kernel's log"),
        ("fs.protected_hardlinks", on, "hard links lead to other users' files"),
    ];
    let (mut weak, mut hints) = (Vec::new(), Vec::new());
    for (key, good, means) in wanted {
        let value = number(host, &format!("/proc/sys/{}", key.replace('.', "/")))?;
        if value.is_some_and(|value| !good(value)) {
            weak.push(format!("{key}: {means}"));
            hints.push(format!("{key}={}", i64::from(key != "kernel.unprivileged_userns_clone")));
        }
    }
    Ok(if weak.is_empty() {
        Finding::ok("nothing that a container's escape would find open")
    } else {
        Finding::warn(weak.join("; "), format!("sysctl -w {}", hints.join(" ")))
    })
}

pub(super) fn forward_policy(host: &Host) -> Found {
    host.together("net")?;
    if number(host, "/proc/sys/net/ipv4/ip_forward")? != Some(1) {
        return Ok(Finding::none("this host forwards nothing"));
    }
    match &host.forward_dropped {
        Ok(true) => Ok(Finding::ok("what this host forwards is judged by a policy of its own that drops")),
        Ok(false) => Ok(Finding::warn(
            "this host forwards between all its links, also what has nothing to do with containers",
            "a table of the host's own whose chain of hook forward has policy drop and accepts our links",
        )),
        Err(why) => {
            Err(Finding::unknown(format!("nftables cannot be read: {why}"), "run this command as root"))
        }
    }
}

/// What is published and stopped weakens nothing, but whoever opens the other firewall in a hurry opens all of it.
pub(super) fn other_firewalls(host: &Host) -> Found {
    host.together("net")?;
    let others = host.other_firewalls.as_ref().map_err(|why| {
        Finding::unknown(format!("nftables cannot be read: {why}"), "run this command as root")
    })?;
    let (certain, perhaps): (Vec<_>, Vec<_>) = others.stopped.iter().partition(|s| s.certain);
    let said = |all: &[&network::Stopped]| names(&all.iter().map(ToString::to_string).collect::<Vec<_>>());
    let remedies = |all: &[&network::Stopped]| {
        let mut lines: Vec<String> = all.iter().map(|s| s.remedy.clone()).collect();
        lines.dedup();
        format!("let it through there, as with: {}", names(&lines))
    };
    Ok(match (certain.as_slice(), perhaps.as_slice()) {
        ([], []) if others.old_tables => Finding::unknown(
            "the old xtables filter on this host, and what they stop is not looked at",
            "iptables-legacy -S FORWARD",
        ),
        ([], []) => Finding::ok("no other firewall stops what is published or what containers send"),
        ([], perhaps) => Finding::warn(said(perhaps), remedies(perhaps)),
        (certain, _) => Finding::warn(said(certain), remedies(certain)),
    })
}

pub(super) fn bridge_filtering(host: &Host) -> Found {
    host.together("net")?;
    Ok(match number(host, "/proc/sys/net/bridge/bridge-nf-call-iptables")? {
        Some(1) => Finding::ok("frames between containers pass the host's own firewall too"),
        Some(_) | None => Finding::ok("frames between containers are judged by table bridge rswarm alone"),
    })
}
