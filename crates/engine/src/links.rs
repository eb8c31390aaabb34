//! Docker's legacy links: a line in /etc/hosts of a container for each one that it is linked to, which follows that
//! one's address when it starts again.
//!
//! Source: moby `daemon/container_operations.go`, libnetwork `sandbox_dns_unix.go` (`updateParentHosts`).

use crate::{
    container::{Container, Endpoint},
    engine::Engine,
    error::{Error, Result},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    net::IpAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// *Limit* of an /etc/hosts that is brought up to date: a container may write there what it likes. *Unit:* bytes.
const HOSTS_BYTES_MAX: u64 = 1 << 20;

/// Held from looking an address up until it stands in a file: of two that start, the later one sees the other's.
static WRITING: Mutex<()> = Mutex::new(());

pub(crate) fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the lines for the containers that this one is linked to: names and address.
///
/// # Errors
/// One of them does not run, or shares no network with this one.
pub(crate) fn lines(engine: &Engine, container: &Container) -> Result<Vec<(String, String)>> {
    let mut lines = Vec::new();
    for link in &container.config.host.links {
        let (other, alias) = parts(link);
        let other = engine.inspect(other)?;
        if !other.state.is_running() {
            return Err(Error::Conflict(format!("Cannot link to a non running container: /{}", other.name)));
        }
        let address = address(container, &other).ok_or_else(|| {
            Error::Conflict(format!(
                "Cannot link to /{}, as it does not belong to a common network",
                other.name
            ))
        })?;
        lines.push((names(alias, &other), address.to_string()));
    }
    Ok(lines)
}

/// Writes the address of a container that has just started into the files of those that are linked to it. What cannot
/// be written is logged: it is another container's, which goes on.
pub(crate) async fn tell(engine: &Engine, started: &Container) {
    // Nearly always there are none.
    if !engine.inner.registry.linked().is_empty() {
        let (engine, started) = (engine.clone(), started.clone());
        let told = crate::blocking(move || {
            tell_all(&engine, &started);
            Ok(())
        });
        // The daemon ends: who is linked looks the address up when it starts.
        drop(told.await);
    }
}

fn tell_all(engine: &Engine, started: &Container) {
    let _writing = writing();
    for linked in engine.inner.registry.linked() {
        let mine = linked.config.host.links.iter().filter_map(|link| {
            let (other, alias) = parts(link);
            let is_it = engine.inspect(other).is_ok_and(|other| other.id == started.id);
            is_it.then(|| Some((names(alias, started), address(&linked, started)?))).flatten()
        });
        for (names, address) in mine {
            if let Err(error) = update(&linked.hosts_path, &names, address) {
                tracing::warn!(container.id = %linked.id, linked.to = %started.id, %error, "link not brought up to date");
            }
        }
    }
}

/// Splits `container[:alias]`.
fn parts(link: &str) -> (&str, &str) {
    link.split_once(':').unwrap_or((link, link))
}

/// Returns what the line of a link calls the other container.
fn names(alias: &str, other: &Container) -> String {
    let mut names = alias.to_owned();
    for name in [&other.id[..12], other.name.as_str()] {
        if !names.split(' ').any(|n| n == name) {
            names = format!("{names} {name}");
        }
    }
    names
}

/// Returns where `other` is on a network that both are on.
fn address(container: &Container, other: &Container) -> Option<IpAddr> {
    let shared = |(name, endpoint): (&String, &Endpoint)| {
        container.networks.contains_key(name).then_some(endpoint.address).flatten()
    };
    other.networks.iter().find_map(shared)
}

/// Changes the address of a line in place: the file is mounted in its container.
fn update(hosts: &Path, names: &str, address: IpAddr) -> Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(hosts) {
        Ok(file) => file,
        // It never started.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("open", hosts)(e)),
    };
    let failed = |what: &'static str| Error::io(what, hosts);
    let mut text = Vec::new();
    (&mut file).take(HOSTS_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed("read"))?;
    if text.len() as u64 > HOSTS_BYTES_MAX {
        return Err(Error::Conflict(format!("{} has more than {HOSTS_BYTES_MAX} bytes", hosts.display())));
    }
    let Some(changed) = changed(&text, names, address) else { return Ok(()) };
    rewrite(&mut file, &changed).map_err(failed("write"))
}

fn rewrite(file: &mut File, text: &[u8]) -> std::io::Result<()> {
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)
}

/// Returns the text with another address in the line that has these names, if it is not that already.
fn changed(text: &[u8], names: &str, address: IpAddr) -> Option<Vec<u8>> {
    let line = format!("{address}\t{names}\n");
    let is_its = |old: &&[u8]| {
        let old = old.strip_suffix(b"\n").unwrap_or(old);
        old.iter().position(|b| *b == b'\t').is_some_and(|tab| &old[tab + 1..] == names.as_bytes())
    };
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    let stale = lines.iter().any(|old| is_its(old) && *old != line.as_bytes());
    let keep = |old: &&[u8]| if is_its(old) { line.as_bytes().to_vec() } else { old.to_vec() };
    stale.then(|| lines.iter().flat_map(keep).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_of_the_link_changes() {
        let address: IpAddr = "172.17.0.9".parse().unwrap();
        let text =
            b"127.0.0.1\tlocalhost\n172.17.0.2\tdb 0123 store\n# by hand \xff\n172.17.0.3\tdb2 0123 store";
        let new = changed(text, "db 0123 store", address).unwrap();
        let expected =
            b"127.0.0.1\tlocalhost\n172.17.0.9\tdb 0123 store\n# by hand \xff\n172.17.0.3\tdb2 0123 store";
        assert_eq!(new, expected);
        assert_eq!(changed(&new, "db 0123 store", address), None, "it is there");
        assert_eq!(changed(&new, "db", address), None, "another's");
    }
}
