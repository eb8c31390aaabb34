//! What `rswarm doctor` looks at: whether a host can do its work, beside what `security` is about.

use super::{
    Check, Finding, Found, Host, Kept, Promise, kernel, names,
    probes::{Peer, Probes, Reach},
    swarm,
};
use docker_api::types;
use std::{collections::BTreeSet, time::Duration};

const fn about(text: &'static str, gate: &'static str, checks: &'static [Check]) -> Promise {
    Promise { text, gate, kept: Kept::Checked(checks) }
}

/// What `rswarm doctor` looks at.
pub const HOST: &[Promise] = &[
    about(
        "the daemon runs as it was meant to",
        "daemon",
        &[
            Check::new("daemon", daemon),
            Check::new("settings", settings),
            Check::new("descriptors", kernel::descriptors),
        ],
    ),
    about(
        "the kernel has what containers need",
        "kernel",
        &[
            Check::new("cgroups", kernel::cgroups),
            Check::new("namespaces", namespaces),
            Check::new("overlay file system", overlay),
            Check::new("seccomp", kernel::seccomp),
            Check::new("nftables", nftables),
            Check::new("connections", connections),
        ],
    ),
    about(
        "the disk is fast enough, and has room",
        "disk",
        &[Check::new("sync", sync), Check::new("space", space), Check::new("files", files)],
    ),
    about(
        "the other nodes are reached, by packets of full size",
        "network",
        &[
            Check::new("node port", node_port),
            Check::new("overlay port", overlay_port),
            Check::new("packet size", packet_size),
            Check::new("published ports", kernel::published_ports),
            Check::new("other firewalls", kernel::other_firewalls),
        ],
    ),
    about("clocks agree", "time", &[Check::new("clock", clock), Check::new("odd nodes", swarm::odd_nodes)]),
    about(
        "the swarm works, and can lose a host",
        "swarm",
        &[
            Check::new("membership", membership),
            Check::new("managers", managers),
            Check::new("nodes", nodes),
            Check::new("versions", versions),
            Check::new("node certificate", swarm::node_certificate),
        ],
    ),
];

/// A sync that takes longer holds up every write of the swarm, which waits for it on most managers.
const SYNC_SLOW: Duration = Duration::from_millis(25);
/// With this an election may come before a heartbeat is written.
const SYNC_BAD: Duration = Duration::from_millis(250);
/// Parts of a hundred that should be free, and that must be, unless so much is that no image fills it.
const FREE_LOW: u64 = 15;
const FREE_BAD: u64 = 5;
const PLENTY_BYTES: u64 = 20 << 30;
const PLENTY_FILES: u64 = 500_000;
/// Of the kernel's table of connections: more of a hundred, and soon new ones are dropped.
const CONNECTIONS_HIGH: u64 = 80;

const MIB: u64 = 1 << 20;

fn probes(host: &Host) -> Result<&Probes, Finding> {
    host.probes.as_ref().ok_or_else(|| Finding::unknown("it was not tried", ""))
}

fn daemon(host: &Host) -> Found {
    let info = host.answer(|a| &a.info)?;
    Ok(match info.warnings.as_slice() {
        [] => Finding::ok(format!("version {} answers", info.server_version)),
        warnings => Finding::warn(names(warnings), "see the daemon's log: journalctl --unit rswarm"),
    })
}

fn settings(host: &Host) -> Found {
    let file = host.place.config.display();
    Ok(match &host.settings {
        Err(why) => Finding::bad(why.clone(), format!("mend it; rswarm daemon --validate --config {file}")),
        Ok(settings) if !settings.told.is_empty() => {
            let told: Vec<String> = settings.told.iter().map(ToString::to_string).collect();
            Finding::warn(format!("left out: {}", names(&told)), format!("take these lines out of {file}"))
        }
        Ok(_) => Finding::ok(format!("all of {file} means something here")),
    })
}

fn namespaces(host: &Host) -> Found {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    let lacks: Vec<&str> = kinds
        .into_iter()
        .filter(|kind| host.path(&format!("/proc/self/ns/{kind}")).symlink_metadata().is_err())
        .collect();
    Ok(if lacks.is_empty() {
        Finding::ok(format!("namespaces: {}", kinds.join(", ")))
    } else {
        Finding::bad(
            format!("the kernel has no namespaces of kind {}", lacks.join(", ")),
            "boot a kernel with CONFIG_NAMESPACES and all that is below it, as distributions' are",
        )
    })
}

/// Mounts change after they are made since 5.12, by mount_setattr(2); whole cgroups end at once since 5.14, by
/// `cgroup.kill`. *Source:* mount_setattr(2), kernel Documentation/admin-guide/cgroup-v2.rst.
const KERNEL_SINCE: (u32, u32) = (5, 14);

/// Returns the release of a kernel, as of `6.1.0-57-cloud-amd64`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn overlay(host: &Host) -> Found {
    let kernel = host.text("/proc/sys/kernel/osrelease")?.unwrap_or_default();
    let (major, minor) = KERNEL_SINCE;
    if release(&kernel).is_some_and(|release| release < KERNEL_SINCE) {
        return Ok(Finding::bad(
            format!("no container can be run: this is Linux {}, and it takes {major}.{minor}", kernel.trim()),
            "a newer kernel, as with: apt install -t bullseye-backports linux-image-amd64",
        ));
    }
    let known = host.text("/proc/filesystems")?.unwrap_or_default();
    Ok(if known.lines().any(|line| line.split_whitespace().next_back() == Some("overlay")) {
        Finding::ok("the kernel joins layers of images (overlayfs)")
    } else {
        Finding::bad("the kernel has no overlayfs: no image can be run", "modprobe overlay")
    })
}

fn nftables(host: &Host) -> Found {
    host.together("net")?;
    match &host.guards {
        Ok(_) => Ok(Finding::ok("the kernel's packet filter answers")),
        Err(_) if host.uid != 0 => {
            Err(Finding::unknown("the packet filter cannot be read", "run this command as root"))
        }
        Err(why) => Ok(Finding::bad(
            format!("containers have no networks and no ports: {why}"),
            "modprobe nf_tables; boot a kernel with CONFIG_NF_TABLES, as distributions' are",
        )),
    }
}

/// *Source:* kernel Documentation/networking/nf_conntrack-sysctl.rst.
fn connections(host: &Host) -> Found {
    host.together("net")?;
    let number = |name: &str| -> Result<Option<u64>, Finding> {
        Ok(host.text(&format!("/proc/sys/net/netfilter/{name}"))?.and_then(|text| text.trim().parse().ok()))
    };
    let (Some(count), Some(most)) = (number("nf_conntrack_count")?, number("nf_conntrack_max")?) else {
        return Ok(Finding::none("the kernel follows no connections"));
    };
    let found = format!("the kernel follows {count} of {most} connections at most");
    Ok(if most > 0 && count.saturating_mul(100) / most >= CONNECTIONS_HIGH {
        Finding::warn(
            format!("{found}: beyond that new ones are dropped"),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(4)),
        )
    } else {
        Finding::ok(found)
    })
}

fn untried(host: &Host, what: &str, why: &str) -> Finding {
    let hint = if host.uid == 0 { "" } else { "run this command as root" };
    Finding::unknown(format!("{what} cannot be tried: {why}"), hint)
}

fn sync(host: &Host) -> Found {
    let took = probes(host)?.sync.as_ref().map_err(|why| untried(host, "the disk", why))?;
    let root = host.place.data_root.display();
    let found = format!("a sync of the disk of {root} takes {:.1} ms", took.as_secs_f64() * 1000.0);
    let hint = format!("a disk of its own for {root}, or a faster one: every write of a swarm waits for it");
    Ok(match *took {
        took if took > SYNC_BAD => Finding::bad(found, hint),
        took if took > SYNC_SLOW => Finding::warn(found, hint),
        _ => Finding::ok(found),
    })
}

fn judged(part: u64, whole: u64, plenty: u64, found: String, hint: &str) -> Finding {
    match part.saturating_mul(100) / whole.max(1) {
        _ if part >= plenty => Finding::ok(found),
        percent if percent < FREE_BAD && part < plenty / 4 => Finding::bad(found, hint),
        percent if percent < FREE_LOW => Finding::warn(found, hint),
        _ => Finding::ok(found),
    }
}

fn space(host: &Host) -> Found {
    let space = probes(host)?.space.as_ref().map_err(|why| untried(host, "the disk", why))?;
    let root = host.place.data_root.display();
    let found = format!("{} of {} MiB are free for {root}", space.free / MIB, space.bytes / MIB);
    Ok(judged(space.free, space.bytes, PLENTY_BYTES, found, "rswarm system df; rswarm system prune"))
}

fn files(host: &Host) -> Found {
    let space = probes(host)?.space.as_ref().map_err(|why| untried(host, "the disk", why))?;
    if space.files == 0 {
        return Ok(Finding::ok("this file system has no bound of files"));
    }
    let found = format!("{} of {} files can still be made", space.free_files, space.files);
    Ok(judged(
        space.free_files,
        space.files,
        PLENTY_FILES,
        found,
        "rswarm system prune; else a file system with more inodes",
    ))
}

/// Returns what `of` says of each other node that is not reached as it should be.
fn unreached(host: &Host, of: impl Fn(&Peer) -> Option<String>, well: &str) -> Result<Vec<String>, Finding> {
    host.together("net")?;
    let swarm = &host.answer(|a| &a.info)?.swarm;
    if swarm.local_node_state == "inactive" {
        return Err(Finding::none("this host is in no swarm"));
    }
    let peers = &probes(host)?.peers;
    if peers.is_empty() {
        return Err(Finding::none("this host knows of no other node that is up"));
    }
    let bad: Vec<String> = peers.iter().filter_map(of).collect();
    if bad.is_empty() { Err(Finding::ok(format!("{well} of {} other nodes", peers.len()))) } else { Ok(bad) }
}

fn node_port(host: &Host) -> Found {
    let of = |peer: &Peer| {
        let why = match &peer.node_port {
            Reach::Answers => return None,
            Reach::Refused => "refuses",
            Reach::Silent => "does not answer",
            Reach::NoWay(why) => why,
        };
        Some(format!("{} at {} {why}", peer.name, peer.node_addr))
    };
    let bad = unreached(host, of, "the port answers")?;
    Ok(Finding::bad(
        names(&bad),
        "on each of them: systemctl status rswarm; let TCP 2377 in between nodes, as with: firewall-cmd --add-port \
         2377/tcp, ufw allow 2377/tcp",
    ))
}

fn overlay_port(host: &Host) -> Found {
    let of = |peer: &Peer| {
        let why = match &peer.data_port {
            Reach::Answers | Reach::Silent => return None,
            Reach::Refused => "refuses",
            Reach::NoWay(why) => why,
        };
        Some(format!("{} at {}/udp {why}", peer.name, peer.data_addr))
    };
    let bad = unreached(host, of, "no word against packets of overlay networks")?;
    Ok(Finding::bad(
        names(&bad),
        "let UDP 4789 in between nodes, as with: firewall-cmd --add-port 4789/udp, ufw allow 4789/udp; nobody listens \
         there while a node has no task on an overlay network",
    ))
}

fn packet_size(host: &Host) -> Found {
    let of = |peer: &Peer| {
        let narrow = peer.path_mtu < peer.link_mtu;
        narrow.then(|| format!("{}: {} of {} bytes", peer.name, peer.path_mtu, peer.link_mtu))
    };
    let bad = unreached(host, of, "packets of full size go the way")?;
    Ok(Finding::bad(
        format!("somewhere on the way packets must be smaller: {}", names(&bad)),
        "ip link set dev LINK mtu BYTES, on the link that leads there, with the smaller number",
    ))
}

fn clock(host: &Host) -> Found {
    match &probes(host)?.clock_is_held {
        Ok(true) => Ok(Finding::ok("the kernel holds this host's clock to another one")),
        Ok(false) => Ok(Finding::warn(
            "nobody holds this host's clock to another one",
            "timedatectl set-ntp true, or install chrony",
        )),
        Err(why) => Err(Finding::unknown(format!("the clock cannot be asked: {why}"), "")),
    }
}

fn membership(host: &Host) -> Found {
    let swarm = &host.answer(|a| &a.info)?.swarm;
    Ok(match (swarm.local_node_state.as_str(), swarm.error.as_str()) {
        ("inactive", _) => Finding::none("this host is in no swarm"),
        ("locked", _) => Finding::bad("the swarm's keys are locked here", "rswarm swarm unlock"),
        ("active", "") => Finding::ok("this host is an active member"),
        (state, error) => Finding::bad(
            format!("this host is {state}: {error}"),
            "see that the managers are up and reached; the daemon's log says more: journalctl --unit rswarm",
        ),
    })
}

fn all_nodes(host: &Host) -> Result<&[types::Node], Finding> {
    host.manager()?;
    Ok(host.answer(|a| &a.nodes)?)
}

fn managers(host: &Host) -> Found {
    let managers: Vec<_> = all_nodes(host)?.iter().filter(|node| node.manager_status.is_some()).collect();
    let reached = |node: &&&types::Node| {
        node.manager_status
            .as_ref()
            .is_some_and(|manager| manager.reachability == "reachable" || manager.leader)
    };
    let (count, alive) = (managers.len(), managers.iter().filter(reached).count());
    let (needed, found) = (count / 2 + 1, format!("{alive} of {count} managers are reached"));
    let more = "rswarm node promote NODE, until there are three, or five";
    Ok(if alive < needed {
        Finding::bad(
            format!("{found}, {needed} are needed"),
            "start their daemons; else rswarm swarm recover",
        )
    } else if count > 1 && alive == needed && alive < count {
        Finding::bad(
            format!("{found}: with one less nothing can be changed"),
            "start the daemons of the others",
        )
    } else if count == 1 {
        Finding::warn("there is one manager: when its host is lost, so is the swarm", more)
    } else if count % 2 == 0 {
        Finding::warn(format!("{found}: an even number can lose no more than one less could"), more)
    } else {
        Finding::ok(format!("{found}; {} can be lost", alive - needed))
    })
}

fn nodes(host: &Host) -> Found {
    let all = all_nodes(host)?;
    let away: Vec<String> = all
        .iter()
        .filter(|node| node.status.state != "ready")
        .map(|node| match node.status.message.as_str() {
            "" => format!("{} is {}", node.description.hostname, node.status.state),
            why => format!("{} is {} ({why})", node.description.hostname, node.status.state),
        })
        .collect();
    Ok(if away.is_empty() {
        Finding::ok(format!("all {} nodes are ready", all.len()))
    } else {
        Finding::warn(names(&away), "start their daemons; rswarm node rm NODE, for what does not come back")
    })
}

fn versions(host: &Host) -> Found {
    let nodes = all_nodes(host)?;
    let versions: BTreeSet<&str> = nodes
        .iter()
        .map(|node| node.description.engine.engine_version.as_str())
        .filter(|version| !version.is_empty())
        .collect();
    let all: Vec<&str> = versions.into_iter().collect();
    Ok(match all.as_slice() {
        [] | [_] => Finding::ok("all nodes have the same version"),
        _ => Finding::warn(
            format!("nodes have versions {}", names(&all)),
            "upgrade the others: what is new is used when all have it",
        ),
    })
}
