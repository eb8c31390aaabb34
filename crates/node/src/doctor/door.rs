//! The front door: its socket, who may open it, its addresses.

use super::{Finding, Found, Host, names};
use crate::settings::Door;
use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::PathBuf,
};

/// Returns the paths of every unix socket of the front door.
fn sockets(host: &Host) -> Vec<PathBuf> {
    let mut paths = vec![host.place.run_root.join("docker.sock")];
    if let Ok(doors) = host.settings.as_ref().map_err(String::as_str).and_then(|s| s.doors().map_err(|_| ""))
    {
        paths.extend(doors.into_iter().filter_map(|door| match door {
            Door::Unix(path) => Some(path),
            Door::Tcp(_) => None,
        }));
    }
    paths
}

pub(super) fn socket(host: &Host) -> Found {
    let mut fine = Vec::new();
    for path in sockets(host) {
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(host.unreadable(&path, &e)),
        };
        let shown = path.display();
        let mode = found.mode() & 0o777;
        if !found.file_type().is_socket() {
            return Ok(Finding::bad(format!("{shown} is no socket"), format!("rm {shown}")));
        }
        if found.uid() != 0 && found.uid() != host.uid {
            let owner = found.uid();
            return Ok(Finding::bad(
                format!("{shown} belongs to uid {owner}, who is root by it"),
                format!("chown root {shown}"),
            ));
        }
        if mode & 0o007 != 0 {
            return Ok(Finding::bad(
                format!("{shown} has mode {mode:o}: every user of this host is root by it"),
                format!("chmod 660 {shown}"),
            ));
        }
        fine.push(format!("{shown} ({mode:o}, group {})", found.gid()));
    }
    Ok(if fine.is_empty() {
        Finding::none("there is no socket: no daemon listens")
    } else {
        Finding::ok(names(&fine))
    })
}

/// Whoever is in the socket's group is as good as root.
pub(super) fn group(host: &Host) -> Found {
    let path = host.place.run_root.join("docker.sock");
    let gid = match fs::symlink_metadata(&path) {
        Ok(found) if found.mode() & 0o070 == 0 => return Ok(Finding::ok("the socket is open to root alone")),
        Ok(found) => found.gid(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Finding::none("there is no socket: no daemon listens"));
        }
        Err(e) => return Err(host.unreadable(&path, &e)),
    };
    let groups = host.text("/etc/group")?.unwrap_or_default();
    let accounts = host.text("/etc/passwd")?.unwrap_or_default();
    let Some((name, mut members)) = groups.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, members] = fields[..] else { return None };
        let members: Vec<&str> = members.split(',').filter(|member| !member.is_empty()).collect();
        (id.parse() == Ok(gid)).then_some((name, members))
    }) else {
        return Ok(Finding::warn(
            format!("the socket's group {gid} has no name on this host"),
            format!("chgrp root {}", path.display()),
        ));
    };
    // Whose first group it is.
    members.extend(accounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(3)?.parse() == Ok(gid)).then(|| fields[0])
    }));
    members.retain(|member| *member != "root");
    members.sort_unstable();
    members.dedup();
    Ok(if members.is_empty() {
        Finding::ok(format!("group {name}, with nobody in it but root"))
    } else {
        Finding::warn(
            format!("root on this host by group {name}: {}", names(&members)),
            format!("gpasswd -d {} {name}, for each who should not be", members[0]),
        )
    })
}

pub(super) fn tcp(host: &Host) -> Found {
    let file = host.place.config.display();
    let unknown =
        |why: &str| Finding::unknown(format!("the settings cannot be read: {why}"), format!("mend {file}"));
    let settings = host.settings.as_ref().map_err(|why| unknown(why))?;
    let doors = settings.doors().map_err(|e| unknown(&format!("{e:#}")))?;
    let tcp: Vec<String> = doors
        .into_iter()
        .filter_map(|door| match door {
            Door::Tcp(address) => Some(address),
            Door::Unix(_) => None,
        })
        .collect();
    if tcp.is_empty() {
        return Ok(Finding::ok("the front door listens on no TCP address"));
    }
    if settings.tlsverify {
        return Ok(Finding::ok(format!("{}, for those with a certificate", names(&tcp))));
    }
    let how = if settings.tls == Some(true) {
        "encrypted, but for everybody"
    } else {
        "in the clear, for everybody"
    };
    let hint = format!("tlsverify = true with tlscacert, tlscert and tlskey in {file}");
    let everywhere: Vec<&String> = tcp.iter().filter(|address| !is_loopback(address)).collect();
    Ok(if everywhere.is_empty() {
        Finding::warn(format!("every user of this host is root by {} ({how})", names(&tcp)), hint)
    } else {
        Finding::bad(format!("whoever reaches {} is root on this host ({how})", names(&everywhere)), hint)
    })
}

fn is_loopback(address: &str) -> bool {
    let literal = address.parse::<SocketAddr>().map(|address| vec![address]);
    let named = || address.starts_with("localhost:").then(|| address.to_socket_addrs().ok()).flatten();
    let all = literal.ok().or_else(|| named().map(Iterator::collect)).unwrap_or_default();
    !all.is_empty() && all.iter().all(|address| address.ip().is_loopback())
}
