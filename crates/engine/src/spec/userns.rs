//! Which containers have a user namespace of their own, and which ids of the host are theirs: the daemon's
//! `userns-remap`, a container's `--userns`.
//!
//! | `--userns` | with `userns-remap` | without |
//! |---|---|---|
//! | (none) | its ids | none |
//! | `host` | none | none |
//! | `private` | its ids | those that `userns-remap: default` would have |
//!
//! What is on the disk belongs to the ids that the container sees, with and without: images, files of containers and
//! volumes are shown to the one as its own by idmapped mounts. A container keeps the ids that it was made with.
//!
//! *Source:* dockerd(8), "Daemon user namespace options"; subuid(5); moby `daemon/daemon_unix.go`.

use crate::{
    ask::config::{HostConfig, MountKind, NetworkMode},
    disk::folders::REMOVED,
    error::{Error, Result},
    inner::Inner,
    seen::container::Container,
};
use runtime::{IdMap, IdRange, UserNamespace};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Whose ids `default` means, as in Docker.
const DEFAULT_USER: &str = "dockremap";
/// First id and number of ids that are given out here. Source: login.defs(5), `SUB_UID_MIN`, `SUB_UID_COUNT`.
const FIRST: u32 = 100_000;
const COUNT: u32 = 65_536;

/// Reads `userns-remap`: `default`, `USER`, `UID`, either with `:GROUP`. The ids are those that subuid(5) and subgid(5)
/// give to that user; for `default`, whose user need not exist, the next free ones are noted there if there are none.
/// `etc` = `/etc`.
///
/// # Errors
/// `InvalidParameter` when the user or group is not known or has no ids, or is root.
pub fn read_remap(asked: &str, etc: &Path) -> Result<IdMap> {
    let (user, group) = match asked.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (asked, None),
    };
    let cannot = |why: String| Error::invalid(format!("userns-remap: {asked}: {why}"));
    if user == "default" {
        if group.is_some() {
            return Err(cannot("default has no group".into()));
        }
        return Ok(IdMap { uids: own_ids(&etc.join("subuid"))?, gids: own_ids(&etc.join("subgid"))? });
    }
    if user.is_empty() || group.is_some_and(str::is_empty) {
        return Err(cannot("it is to be default, USER, UID, USER:GROUP or UID:GID".into()));
    }
    let names = |file: &str, key: &str| entry(&etc.join(file), key);
    let user_names = names("passwd", user)?.ok_or_else(|| cannot(format!("there is no user {user:?}")))?;
    if user_names.number == "0" {
        // Docker's words, up to what it does then: it goes on without.
        return Err(cannot("root cannot be remapped with itself".into()));
    }
    let mut of_groups = user_names.clone();
    if let Some(group) = group {
        of_groups = names("group", group)?.ok_or_else(|| cannot(format!("there is no group {group:?}")))?;
    }
    let given = |file: &str, whose: &Entry| ranges(&etc.join(file), whose);
    let uids = given("subuid", &user_names)?;
    let mut gids = given("subgid", &user_names)?;
    if gids.is_empty() {
        gids = given("subgid", &of_groups)?;
    }
    for (found, file, kind) in [(&uids, "subuid", "uid"), (&gids, "subgid", "gid")] {
        if found.is_empty() {
            let path = etc.join(file);
            return Err(cannot(format!(
                "No sub{kind} ranges found for user {user:?} in {path}; hint: echo {user}:{FIRST}:{COUNT} >> {path}, \
                 with ids that nobody else has",
                path = path.display()
            )));
        }
    }
    let map = IdMap { uids: consecutive(uids), gids: consecutive(gids) };
    map.check().map_err(cannot)?;
    Ok(map)
}

/// A user or group.
#[derive(Debug, Clone)]
struct Entry {
    name: String,
    number: String,
}

/// Finds a name, or a number, in passwd(5) or group(5). A number needs no entry.
fn entry(file: &Path, key: &str) -> Result<Option<Entry>> {
    let text = read(file)?;
    let number = key.parse::<u32>().ok().map(|n| n.to_string());
    let of = |line: &str| {
        let mut fields = line.split(':');
        Some(Entry { name: fields.next()?.to_owned(), number: fields.nth(1)?.to_owned() })
    };
    let entries = || text.lines().filter_map(of);
    let found =
        entries().find(|e| e.name == key).or_else(|| entries().find(|e| Some(&e.number) == number.as_ref()));
    Ok(found.or_else(|| number.map(|number| Entry { name: number.clone(), number })))
}

/// Returns a file's text; a missing one is empty.
fn read(file: &Path) -> Result<String> {
    match fs::read_to_string(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(Error::io("read", file)),
    }
}

/// First id and number of ids: those of everybody, with the owner.
fn all_ranges(file: &Path) -> Result<Vec<(String, u32, u32)>> {
    let text = read(file)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split(':');
            let read = (|| {
                let owner = fields.next()?.to_owned();
                Some((owner, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
            })();
            read.ok_or_else(|| {
                Error::invalid(format!("{}: {line:?} is not NAME:FIRST:COUNT", file.display()))
            })
        })
        .collect()
}

fn ranges(file: &Path, whose: &Entry) -> Result<Vec<(u32, u32)>> {
    let theirs = |(owner, first, count): (String, u32, u32)| {
        (owner == whose.name || owner == whose.number).then_some((first, count))
    };
    Ok(all_ranges(file)?.into_iter().filter_map(theirs).collect())
}

/// Gives a container's ids, from 0 on, to ranges of the host, the lowest first.
fn consecutive(mut ranges: Vec<(u32, u32)>) -> Vec<IdRange> {
    ranges.sort_unstable();
    let mut next = 0_u32;
    let place = |(outside, count): (u32, u32)| {
        let inside = next;
        next = next.saturating_add(count);
        IdRange { inside, outside, count }
    };
    ranges.into_iter().map(place).collect()
}

/// Returns the ids of [`DEFAULT_USER`]; notes some if it has none.
fn own_ids(file: &Path) -> Result<Vec<IdRange>> {
    let all = all_ranges(file)?;
    let ours: Vec<_> =
        all.iter().filter(|(owner, ..)| owner == DEFAULT_USER).map(|(_, a, n)| (*a, *n)).collect();
    if !ours.is_empty() {
        return Ok(consecutive(ours));
    }
    let first = all.iter().map(|(_, first, count)| first.saturating_add(*count)).fold(FIRST, u32::max);
    if first.checked_add(COUNT).is_none() {
        return Err(Error::invalid(format!(
            "{}: no {COUNT} ids are free after the last range",
            file.display()
        )));
    }
    let ends = read(file)?;
    let line_end = if ends.is_empty() || ends.ends_with('\n') { "" } else { "\n" };
    let appended = fs::OpenOptions::new().append(true).create(true).open(file).and_then(|mut out| {
        out.write_all(format!("{line_end}{DEFAULT_USER}:{first}:{COUNT}\n").as_bytes())?;
        out.sync_all()
    });
    appended.map_err(Error::io("note ids of containers in", file))?;
    tracing::info!(path = %file.display(), first, count = COUNT, "ids reserved for containers");
    Ok(consecutive(vec![(first, COUNT)]))
}

/// Decides which ids a new container has; `None` = those of the host.
///
/// # Errors
/// `InvalidParameter` for what cannot be together with a user namespace, in Docker's words.
pub(crate) fn decide(inner: &Inner, host: &HostConfig) -> Result<Option<IdMap>> {
    let map = match host.userns_mode.as_str() {
        "host" => None,
        "private" => match &inner.userns_remap {
            Some(map) => Some(map.clone()),
            None if inner.userns_squash => {
                return Err(Error::invalid(
                    "invalid UsernsMode: private: this daemon runs in a user namespace with one id; all containers are \
                     in that",
                ));
            }
            None => Some(read_remap("default", Path::new("/etc"))?),
        },
        _ => inner.userns_remap.clone(),
    };
    let Some(map) = map else {
        return if asks_for_idmap(host) {
            Err(Error::invalid(
                "invalid mode: idmap: the container has no user namespace; hint: --userns private",
            ))
        } else {
            Ok(None)
        };
    };
    if host.privileged {
        return Err(Error::invalid(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace \
             when running privileged mode",
        ));
    }
    if host.network_mode == NetworkMode::Host {
        return Err(Error::invalid(
            "cannot share the host's network namespace when user namespaces are enabled",
        ));
    }
    if host.pid_mode == "host" {
        return Err(Error::invalid("cannot share the host PID namespace when user namespaces are enabled"));
    }
    for (kind, other) in joined(host) {
        let other = inner.inspect(other)?;
        if other.users.as_ref() != Some(&map) {
            return Err(Error::invalid(format!(
                "cannot share the {kind} namespace of container {}: it has other ids, and to share a namespace is to \
                 share the user namespace; hint: the same --userns for both",
                other.name
            )));
        }
    }
    Ok(Some(map))
}

fn asks_for_idmap(host: &HostConfig) -> bool {
    let word =
        |bind: &String| bind.rsplit(':').next().is_some_and(|opts| opts.split(',').any(|o| o == "idmap"));
    host.binds.iter().any(|bind| bind.matches(':').count() == 2 && word(bind))
        || host.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Bind { idmap: true, .. }))
}

/// Containers whose namespaces a container shares, and which.
fn joined(host: &HostConfig) -> impl Iterator<Item = (&'static str, &str)> {
    let network = match &host.network_mode {
        NetworkMode::Container(other) => Some(("network", other.as_str())),
        _ => None,
    };
    let pid = host.pid_mode.strip_prefix("container:").map(|other| ("PID", other));
    let ipc = host.ipc_mode.strip_prefix("container:").map(|other| ("IPC", other));
    [network, pid, ipc].into_iter().flatten()
}

/// Makes the user namespace of a container that is about to start (or takes the one of a container with which it shares
/// a namespace), with a network namespace in it if it has one of its own. Blocking.
///
/// # Errors
/// `Conflict` when it shares with two containers that have one each, or one of them does not run.
pub(crate) fn open(inner: &Inner, container: &Container, map: &IdMap) -> Result<UserNamespace> {
    let host = &container.config.host;
    let mut shared: Option<PathBuf> = None;
    for (kind, other) in joined(host) {
        let other = inner.inspect(other)?;
        let pid = other.state.pid.ok_or_else(|| {
            Error::Conflict(format!("cannot join {kind} namespace of a non running container: {}", other.id))
        })?;
        let path = PathBuf::from(format!("/proc/{pid}/ns/user"));
        let inode =
            |path: &Path| fs::metadata(path).map(|found| found.ino()).map_err(Error::io("look at", path));
        if let Some(first) = &shared
            && inode(first)? != inode(&path)?
        {
            return Err(Error::Conflict(format!(
                "cannot share namespaces of two containers that have a user namespace each: {} is the second",
                other.name
            )));
        }
        shared = Some(path);
    }
    let own_network = !matches!(host.network_mode, NetworkMode::Container(_) | NetworkMode::Host);
    let made = match &shared {
        Some(path) => UserNamespace::of(&inner.shim, path, own_network),
        None => UserNamespace::new(&inner.shim, map, own_network),
    };
    made.map_err(|e| crate::error::runtime_failed("start", &container.id, e))
}

/// Tries whether files of these folders can be shown with other owners. Blocking.
///
/// # Errors
/// `InvalidParameter` with the folder where they cannot.
pub(crate) fn try_folders(inner: &Inner, map: &IdMap) -> Result<()> {
    let failed = |folder: &Path, why: String| {
        Error::invalid(format!(
            "userns-remap: files in {} cannot be shown with other owners (idmapped mounts): {why}; hint: Linux 5.19 or \
             newer, and a filesystem like ext4, xfs or btrfs",
            folder.display()
        ))
    };
    let data = &inner.data_root;
    let users =
        UserNamespace::new(&inner.shim, map, false).map_err(|e| failed(data, model::with_causes(&e)))?;
    for folder in ["containers", "images", "volumes", "build"].map(|name| data.join(name)) {
        users.try_map(&folder).map_err(|e| failed(&folder, e.to_string()))?;
    }
    // Swept up with others of its name, should this be the end of the daemon.
    let trial = data.join("containers").join(format!("{REMOVED}trial"));
    runtime::try_layers(&inner.shim, map, &trial).map_err(|e| failed(&trial, model::with_causes(&e)))
}

/// Returns the owner on the host of a file that is a container's user's.
///
/// # Errors
/// `InvalidParameter` when the container has no such user or group.
pub(crate) fn owner(users: Option<&IdMap>, uid: u32, gid: u32) -> Result<(u32, u32)> {
    let Some(map) = users else { return Ok((uid, gid)) };
    let ids = map.uid_outside(uid).zip(map.gid_outside(gid));
    ids.ok_or_else(|| {
        Error::invalid(format!("{uid}:{gid} are not among the ids of the container's user namespace"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etc(subuid: &str, subgid: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("passwd", "root:x:0:0::/root:/bin/sh\ndan:x:1000:1000::/home/dan:/bin/sh\n");
        write("group", "root:x:0:\ndan:x:1000:\nops:x:50:dan\n");
        write("subuid", subuid);
        write("subgid", subgid);
        dir
    }

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    #[test]
    fn a_users_ranges_follow_each_other() {
        let dir = etc("dan:300000:10\n# c\nann:1:5\n1000:100000:65536\n", "dan:200000:65536\n");
        for asked in ["dan", "1000", "dan:ops", "1000:50", "dan:dan"] {
            let map = read_remap(asked, dir.path()).unwrap();
            assert_eq!(map.uids, [range(0, 100_000, 65_536), range(65_536, 300_000, 10)], "{asked}");
            assert_eq!(map.gids, [range(0, 200_000, 65_536)], "{asked}");
        }
        let of_group = etc("dan:100000:65536\n", "ops:5000:1000");
        assert_eq!(read_remap("dan:ops", of_group.path()).unwrap().gids, [range(0, 5000, 1000)]);
        let of_number = etc("1234:100000:65536\n", "1234:100000:65536\n");
        read_remap("1234:1234", of_number.path()).unwrap();
    }

    #[test]
    fn the_default_users_ranges_are_noted_once_after_those_of_others() {
        let dir = etc("dan:100000:65536\nann:165536:65536", "");
        let map = read_remap("default", dir.path()).unwrap();
        assert_eq!(map.uids, [range(0, 231_072, 65_536)]);
        assert_eq!(map.gids, [range(0, 100_000, 65_536)]);
        let text = || fs::read_to_string(dir.path().join("subuid")).unwrap();
        assert_eq!(text(), "dan:100000:65536\nann:165536:65536\ndockremap:231072:65536\n");
        assert_eq!(read_remap("default", dir.path()).unwrap(), map);
        assert_eq!(text().matches("dockremap").count(), 1);
        fs::remove_file(dir.path().join("subuid")).unwrap();
        assert_eq!(read_remap("default", dir.path()).unwrap().uids, [range(0, 100_000, 65_536)]);
    }

    #[test]
    fn what_cannot_be_honoured_says_why() {
        let dir = etc("dan:100000:65536\nbad:100000:1\nbad:100000:1\n", "");
        for (asked, why) in [
            ("root", "root cannot be remapped"),
            ("0:0", "root cannot be remapped"),
            ("nobody", "there is no user \"nobody\""),
            ("dan:nobody", "there is no group"),
            ("dan", "No subgid ranges found for user \"dan\""),
            ("1001", "No subuid ranges found"),
            ("", "it is to be"),
            ("dan:", "it is to be"),
            ("default:x", "no group"),
        ] {
            let error = read_remap(asked, dir.path()).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("userns-remap"), "{asked}: {error}");
        }
        let broken = etc("dan:x:65536\n", "");
        let error = read_remap("dan", broken.path()).unwrap_err().to_string();
        assert!(error.contains("subuid") && error.contains("dan:x:65536"), "{error}");
        let twice = etc("dan:100000:10\ndan:100005:10\n", "dan:100000:10\n");
        assert!(read_remap("dan", twice.path()).unwrap_err().to_string().contains("overlap"));
    }
}
