//! What a text of a request must be before it goes into a file, a command line or a path of a host: the rules that
//! containers, services and stack files share. Pure; each function names the key that it judges.

use crate::Duration;
use ipnet::IpNet;
use std::net::IpAddr;

/// A value that a container may not be given; the text names its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {key}: {why}")]
pub struct Unfit {
    pub key: &'static str,
    pub why: String,
}

pub(crate) fn unfit(key: &'static str, why: impl Into<String>) -> Unfit {
    Unfit { key, why: why.into() }
}

/// Longest name of a host. Source: `HOST_NAME_MAX`, sethostname(2).
const HOST_NAME_BYTES_MAX: usize = 64;
/// Longest string of a process. Source: execve(2), `MAX_ARG_STRLEN`.
const ARGUMENT_BYTES_MAX: usize = 128 << 10;

/// Judges a name that is written into /etc/hosts or resolv.conf, or given to the kernel as a host's name.
///
/// # Errors
/// It has whitespace or control characters, or does not begin and end as a name does.
pub fn name(key: &'static str, text: &str) -> Result<(), Unfit> {
    let good = !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || !b.is_ascii())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if good { Ok(()) } else { Err(unfit(key, format!("{text:?} is no name of a host"))) }
}

/// Judges a container's own host name or its domain.
///
/// # Errors
/// As [`name`]; longer than the kernel takes.
pub fn hostname(key: &'static str, text: &str) -> Result<(), Unfit> {
    name(key, text)?;
    if text.len() > HOST_NAME_BYTES_MAX {
        return Err(unfit(key, format!("{} bytes are more than {HOST_NAME_BYTES_MAX}", text.len())));
    }
    Ok(())
}

/// Judges which user namespace a container asks for; empty = as its node has it. Words of other engines (`auto`,
/// `keep-id`) would each need a range of ids of its own.
///
/// # Errors
/// It is none of the words. Source: Docker API, `UsernsMode`; podman-run(1) for `private`.
pub fn user_namespace(key: &'static str, mode: &str) -> Result<(), Unfit> {
    if matches!(mode, "" | "host" | "private") {
        return Ok(());
    }
    Err(unfit(
        key,
        format!(
            "invalid user namespace mode: {mode}; hint: host, or private for a user namespace of its own; which ids it has \
             is said by the daemon's userns-remap"
        ),
    ))
}

/// Judges a word of resolv.conf: a search domain or an option.
///
/// # Errors
/// It is empty, or is more than one word.
pub fn word(key: &'static str, text: &str) -> Result<(), Unfit> {
    if text.is_empty() || text.len() > 255 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(unfit(key, format!("{text:?} is not one word")));
    }
    Ok(())
}

/// Longest name that people give to an object of theirs.
const OBJECT_NAME_BYTES_MAX: usize = 255;

/// Judges the name of a network, which is shown to people and logged: Docker takes nearly anything.
///
/// # Errors
/// It is blank, longer than 255 bytes, or has control characters.
pub fn object_name(key: &'static str, text: &str) -> Result<(), Unfit> {
    if text.trim().is_empty() {
        return Err(unfit(key, "name is empty"));
    }
    if text.len() > OBJECT_NAME_BYTES_MAX {
        let length = text.len();
        return Err(unfit(key, format!("{length} bytes are more than {OBJECT_NAME_BYTES_MAX}")));
    }
    if text.chars().any(char::is_control) {
        return Err(unfit(key, format!("{text:?} has control characters")));
    }
    Ok(())
}

/// Addresses that no network of containers can have: hosts reach themselves by them, or nobody.
/// Source: RFC 6890; kernel `ipv4_is_zeronet`, `ipv4_is_loopback`, `ipv4_is_multicast`, `ipv6_addr_type`.
const RESERVED: [&str; 8] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/127",
    "::ffff:0:0/96",
    "ff00::/8",
    "fe80::/10",
];

/// Judges the addresses of a network.
///
/// # Errors
/// They meet those of a host itself, of a link, of groups, or of nobody.
pub fn subnet(key: &'static str, subnet: IpNet) -> Result<(), Unfit> {
    let reserved = RESERVED.iter().filter_map(|net| net.parse::<IpNet>().ok());
    for net in reserved {
        if net.contains(&subnet) || subnet.contains(&net) {
            return Err(unfit(key, format!("{subnet} meets {net}, which no network can have")));
        }
    }
    Ok(())
}

/// Tells whether an address is the host's own, or of the link beside it: loopback, link-local, and what means either.
/// Who may not reach into a host does not have it send there. Source: RFC 6890; RFC 4291, 2.5.5.
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

/// Judges arguments and variables of a process.
///
/// # Errors
/// NUL, which ends a string for the kernel, or more bytes than it takes.
pub fn argument(key: &'static str, text: &str) -> Result<(), Unfit> {
    if text.contains('\0') {
        return Err(unfit(key, format!("{:?} holds NUL", text.chars().take(40).collect::<String>())));
    }
    if text.len() >= ARGUMENT_BYTES_MAX {
        return Err(unfit(
            key,
            format!("{} bytes are more than the kernel takes ({ARGUMENT_BYTES_MAX})", text.len()),
        ));
    }
    Ok(())
}

/// Judges a variable `NAME=value` or `NAME`.
///
/// # Errors
/// As [`argument`]; without a name.
pub fn variable(key: &'static str, text: &str) -> Result<(), Unfit> {
    argument(key, text)?;
    if text.is_empty() || text.starts_with('=') {
        return Err(unfit(key, format!("environment variable {text:?} has no name")));
    }
    Ok(())
}

/// Judges a path inside of a container.
///
/// # Errors
/// It is not absolute, holds NUL, or climbs by `..`.
pub fn inner_path(key: &'static str, path: &str) -> Result<(), Unfit> {
    if !path.starts_with('/') {
        return Err(unfit(key, format!("{path:?} is not an absolute path")));
    }
    if path.contains('\0') || path.len() > 4095 {
        return Err(unfit(key, format!("{:?} is no path", path.chars().take(80).collect::<String>())));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(unfit(key, format!("{path:?} must not contain \"..\"")));
    }
    Ok(())
}

/// Judges a working directory.
///
/// # Errors
/// As [`inner_path`], but for `..`; and descriptors of a process, which may lead to the host.
pub fn working_directory(key: &'static str, path: &str) -> Result<(), Unfit> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4095 {
        return Err(unfit(
            key,
            format!("the working directory '{path}' is invalid, it needs to be an absolute path"),
        ));
    }
    let parts = clean(path);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let leads_away = match parts[..] {
        ["proc", ref rest @ ..] => rest.iter().any(|p| matches!(*p, "fd" | "fdinfo" | "cwd" | "root")),
        ["dev", "fd", ..] => true,
        _ => false,
    };
    if leads_away {
        return Err(unfit(key, format!("{path:?} leads through a process' descriptors")));
    }
    Ok(())
}

/// The parts of a path, without `.`, with `..` taken as going up.
fn clean(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name.to_owned()),
        }
    }
    parts
}

/// Files in /proc that may be covered by a mount. Source: runc `checkProcMount`.
const PROC_FILES: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Judges where something is mounted in a container. `filesystem`: a tmpfs, which covers no single file.
///
/// # Errors
/// `/` itself, and what is in /proc but for the files that runc lets be covered (CVE-2019-16884, CVE-2025-31133).
pub fn mount_target(key: &'static str, path: &str, filesystem: bool) -> Result<(), Unfit> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4095 {
        return Err(unfit(key, format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    let path = format!("/{}", clean(path).join("/"));
    if path == "/" {
        return Err(unfit(key, "invalid specification: destination can't be '/'"));
    }
    let in_proc = path == "/proc" || path.starts_with("/proc/");
    if in_proc && (filesystem || !PROC_FILES.contains(&path.as_str())) {
        return Err(unfit(key, format!("{path:?} cannot be mounted because it is inside /proc")));
    }
    Ok(())
}

/// Judges what of a volume is mounted.
///
/// # Errors
/// A path that is not below the volume's root, as Docker words it. Source: moby `volume/mounts`, `errInvalidSubpath`.
pub fn volume_subpath(key: &'static str, path: &str) -> Result<(), Unfit> {
    let leads_out = path.split('/').scan(0_i32, |depth, part| {
        *depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        Some(*depth)
    });
    if path.starts_with('/') || path.contains('\0') || leads_out.into_iter().any(|depth| depth < 0) {
        return Err(unfit(
            key,
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
        ));
    }
    Ok(())
}

/// Judges the options of a tmpfs, as `size=64m,mode=1777`.
///
/// # Errors
/// One that is not a tmpfs' own, nor an attribute that a mount of a container may have.
pub fn tmpfs_options(key: &'static str, text: &str) -> Result<(), Unfit> {
    const FLAGS: [&str; 19] = [
        "ro",
        "rw",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
    ];
    for option in text.split(',').filter(|o| !o.is_empty()) {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let size = |text: &str| {
            let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', '%']);
            !digits.is_empty() && text.len() - digits.len() <= 1 && digits.bytes().all(|b| b.is_ascii_digit())
        };
        let good = match (name, value) {
            ("size" | "nr_inodes" | "nr_blocks", Some(value)) => size(value),
            ("mode", Some(value)) => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
            ("uid" | "gid", Some(value)) => value.parse::<u32>().is_ok_and(|id| id <= ID_MAX),
            ("mpol", Some(value)) => value.bytes().all(|b| b.is_ascii_alphanumeric() || b":=-".contains(&b)),
            (flag, None) => FLAGS.contains(&flag),
            _ => false,
        };
        if !good {
            return Err(unfit(key, format!("invalid tmpfs option {option:?}")));
        }
    }
    Ok(())
}

/// Highest user and group. Source: runc `libcontainer/user`, 2^31 - 1.
const ID_MAX: u32 = 0x7fff_ffff;

/// Judges `user[:group]`, names or numbers.
///
/// # Errors
/// A number that is out of range (in runc's words), or what is neither.
pub fn user(key: &'static str, text: &str) -> Result<(), Unfit> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 2 {
        return Err(unfit(key, format!("{text:?} is not user[:group]")));
    }
    for part in parts.into_iter().filter(|p| !p.is_empty()) {
        let numeric = part.strip_prefix(['-', '+']).unwrap_or(part).bytes().all(|b| b.is_ascii_digit());
        if numeric && part.parse::<u32>().ok().is_none_or(|id| id > ID_MAX) {
            return Err(unfit(key, format!("uids and gids must be in range 0-{ID_MAX}, not {part}")));
        }
        if part.starts_with(['-', '+'])
            || part.contains('/')
            || part.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(unfit(key, format!("{part:?} is no name of a user or group")));
        }
    }
    Ok(())
}

/// Judges the cgroup below which a container's own is made.
///
/// # Errors
/// It climbs by `..`, or is no path of plain names.
pub fn cgroup_parent(key: &'static str, path: &str) -> Result<(), Unfit> {
    let good = |part: &str| {
        !matches!(part, "." | "..")
            && !part.chars().any(|c| c.is_control() || c.is_whitespace())
            && part.len() <= 255
    };
    if path.len() > 1024 || !path.split('/').all(good) {
        return Err(unfit(key, format!("{path:?} is no path of a cgroup below the host's")));
    }
    Ok(())
}

/// Judges a list of CPUs or memory nodes, as `0-3,7`.
///
/// # Errors
/// It is no list, or names one beyond any machine. In Docker's words.
pub fn cpu_list(key: &'static str, text: &str) -> Result<(), Unfit> {
    /// Source: Linux `CONFIG_NR_CPUS`, largest.
    const CPUS_MAX: u32 = 8192;
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < CPUS_MAX && !text.starts_with('+'));
    let range = |text: &str| match text.split_once('-') {
        None => number(text).is_some(),
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
    };
    if text.is_empty() || text.trim().split(',').all(range) {
        Ok(())
    } else {
        Err(unfit(key, format!("Invalid value {text} for {key}")))
    }
}

/// Judges the times of a healthcheck: between probes, to answer, of the start, between probes in that. None, or zero,
/// is "as the image says". *Source:* moby `daemon/container.go`, `validateHealthCheck`.
///
/// # Errors
/// For one that is shorter than a millisecond.
pub fn health_times(times: [Option<Duration>; 4]) -> Result<(), Unfit> {
    for (name, time) in ["Interval", "Timeout", "StartPeriod", "StartInterval"].iter().zip(times) {
        if time.is_some_and(|time| !time.is_zero() && time < Duration::from_millis(1)) {
            return Err(unfit("Healthcheck", format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    Ok(())
}

/// Reads how readily the kernel ends a container when memory runs out. *Source:* proc(5), `oom_score_adj`.
///
/// # Errors
/// For what is not between -1000 and 1000.
pub fn oom_score_adj(key: &'static str, score: i64) -> Result<i32, Unfit> {
    let read = i32::try_from(score).ok().filter(|score| (-1000..=1000).contains(score));
    read.ok_or_else(|| unfit(key, format!("Invalid value {score}, range for oom score adj is [-1000, 1000]")))
}

/// Reads how readily a container's memory is swapped; `None` and -1 = as its host has it. *Source:* moby
/// `daemon/daemon_unix.go`, `verifyPlatformContainerResources`.
///
/// # Errors
/// For what is not between 0 and 100.
pub fn memory_swappiness(key: &'static str, given: Option<i64>) -> Result<Option<u8>, Unfit> {
    let Some(given) = given.filter(|n| *n != -1) else { return Ok(None) };
    let read = u8::try_from(given).ok().filter(|n| *n <= 100);
    let range = || format!("Invalid value: {given}, valid memory swappiness range is 0-100");
    read.map(Some).ok_or_else(|| unfit(key, range()))
}

/// Judges a container's share of the disks; 0 = not given. *Source:* as [`memory_swappiness`].
///
/// # Errors
/// For what is not between 10 and 1000.
pub fn blkio_weight(key: &'static str, weight: u32) -> Result<(), Unfit> {
    if weight == 0 || (10..=1000).contains(&weight) {
        return Ok(());
    }
    Err(unfit(key, "Range of blkio weight is from 10 to 1000"))
}

/// Judges the size of a file system in memory. *Unit:* bytes.
///
/// # Errors
/// For more than the kernel can count.
pub fn memory_size(key: &'static str, bytes: Option<u64>) -> Result<(), Unfit> {
    match bytes.map(i64::try_from) {
        Some(Err(_)) => Err(unfit(key, "more bytes than there can be")),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Judges a text that stays on its line.
pub(crate) fn line(key: &'static str, text: &str) -> Result<(), Unfit> {
    if text.chars().any(char::is_control) {
        return Err(unfit(key, format!("{text:?} holds control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerSpec, Healthcheck};

    #[track_caller]
    fn check(judge: impl Fn(&str) -> Result<(), Unfit>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(judge(text), Ok(()), "{text:?}");
        }
        for text in bad {
            let error = judge(text).expect_err(&format!("{text:?}")).to_string();
            assert!(error.contains("Key"), "{error}");
        }
    }

    #[test]
    fn nothing_leaves_its_line() {
        check(
            |t| hostname("Key", t),
            &["web", "web-1.example", "a_b"],
            &["", "a\nb", "a b", "a\0", &"a".repeat(65)],
        );
        check(|t| word("Key", t), &["example.org", "ndots:2", "."], &["", "a b", "a\nnameserver 6.6.6.6"]);
        check(
            |t| variable("Key", t),
            &["A=b", "A", "A=1\nB=2", "A="],
            &["", "=x", "A=\0", &"x".repeat(128 << 10)],
        );
    }

    #[test]
    fn nothing_leaves_its_folder() {
        check(
            |t| mount_target("Key", t, false),
            &["/data", "/sys/fs/bpf", "/proc/uptime", "/procs", "/x/../y"],
            &[
                "/",
                "/..",
                "relative",
                "/proc",
                "/proc/sys",
                "/proc/self/attr",
                "/a/../proc/sys",
                "/./proc//self",
                "",
            ],
        );
        check(|t| mount_target("Key", t, true), &["/run", "/sys"], &["/proc", "/proc/uptime"]);
        check(
            |t| volume_subpath("Key", t),
            &["", "a", "a/b", "./a", "a/../b"],
            &["/a", "..", "a/../../b", "../a/b"],
        );
        check(|t| inner_path("Key", t), &["/dev/x"], &["dev/x", "/../x", "/a/../../b", "/a\0"]);
        check(
            |t| working_directory("Key", t),
            &["/", "/srv", "/proc", "/a/../b"],
            &[
                "",
                "../..",
                "/proc/self/fd/5",
                "/proc/1/root/x",
                "/x/../proc/self/cwd",
                "/dev/fd/7",
                "/proc/self/task/1/fd/3",
            ],
        );
        check(|t| cgroup_parent("Key", t), &["/a/b", "x.slice", ""], &["../..", "/a/../b", "a/./b", "a\nb"]);
    }

    #[test]
    fn a_service_is_judged_as_a_container_is() {
        let refused = |change: &dyn Fn(&mut ContainerSpec), key: &str| {
            let mut spec = ContainerSpec::default();
            assert_eq!(spec.check(true), Ok(()));
            change(&mut spec);
            let error = spec.check(true).expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        };
        let sysctl =
            |name: &'static str| move |s: &mut ContainerSpec| drop(s.sysctls.insert(name.into(), "1".into()));
        refused(&sysctl("kernel.core_pattern"), "Sysctls");
        refused(&sysctl("net.core.somaxconn"), "not allowed in host network namespace");
        refused(&|s| s.hosts = vec!["1.2.3.4 a\n6.6.6.6 b".into()], "Hosts");
        refused(&|s| s.hosts = vec!["evil b".into()], "Hosts");
        refused(&|s| s.dns.search = vec!["a\nnameserver 6.6.6.6".into()], "Search");
        refused(&|s| s.hostname = Some("{{.Task.Slot}}\nx".into()), "Hostname");
        refused(&|s| s.working_dir = Some("/proc/self/fd/7".into()), "Dir");
        refused(&|s| s.user = Some("4294967296".into()), "User");
        refused(&|s| s.oom_score_adj = 2000, "OomScoreAdj");
        let soon = Some(Duration::from_nanos(5));
        refused(
            &|s| s.healthcheck = Some(Healthcheck { start_interval: soon, ..Healthcheck::default() }),
            "StartInterval in Healthcheck cannot be less than 1ms",
        );
        let templates =
            ContainerSpec { hostname: Some("web-{{ .Task.Slot }}".into()), ..ContainerSpec::default() };
        assert_eq!(templates.check(false), Ok(()));
    }

    #[test]
    fn numbers_are_within_their_range() {
        check(
            |t| user("Key", t),
            &["", "root", "0:0", "www-data:video", "2147483647", "domain.user"],
            &["-1", "4294967295", "4294967296", "root:99999999999", "../../etc/passwd", "a:b:c", "a b"],
        );
        check(|t| cpu_list("Key", t), &["", "0", "0-3,7"], &["0-999999999", "x", "3-1", "1,,2", "-1"]);
        check(
            |t| tmpfs_options("Key", t),
            &["", "size=64m,mode=1777,noexec", "uid=5,gid=6,nr_inodes=10k", "size=50%"],
            &["context=evil", "size=1m,size=x", "source=/etc", "mode=9", "bind", "size"],
        );
    }
    #[test]
    fn a_network_has_a_name_to_show_and_addresses_of_its_own() {
        let long = "a".repeat(256);
        check(
            |t| object_name("Key", t),
            &["web", "my net", "a/b", "é", "proj_default"],
            &["", "  ", "a\nb", "a\u{1b}[2J", "a\u{9b}", long.as_str()],
        );
        check(
            |t| subnet("Key", t.parse().unwrap()),
            &["10.0.0.0/8", "172.17.0.0/16", "169.254.7.0/24", "100.64.0.0/10", "fd00::/8", "2001:db8::/64"],
            &[
                "0.0.0.0/0",
                "0.0.0.0/8",
                "127.0.0.0/8",
                "127.7.0.0/16",
                "64.0.0.0/2",
                "239.1.0.0/16",
                "::/0",
                "::1/128",
                "::ffff:10.0.0.0/104",
                "ff02::/64",
                "fe80::/64",
            ],
        );
    }
}
