//! Docker's legacy links: a line in /etc/hosts of a container for each one that it is linked to, which follows that
//! one's address when it starts again; and variables that tell of its ports and environment.
//!
//! Source: moby `daemon/container_operations.go`, `daemon/links/links.go`, `daemon/delete.go` (`rmLink`); libnetwork
//! `sandbox_dns_unix.go` (`updateParentHosts`).

use crate::{
    ask::config::{ContainerConfig, Port},
    error::{Error, Result},
    inner::Inner,
    seen::container::{Container, Endpoint},
};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
pub(crate) fn lines(inner: &Inner, container: &Container) -> Result<Vec<(String, String)>> {
    let found = linked_to(inner, container)?;
    Ok(found.iter().map(|(alias, other, address)| (names(alias, other), address.to_string())).collect())
}

/// Returns the variables that a container gets for those that it is linked to.
///
/// # Errors
/// As [`lines`].
pub(crate) fn environment(inner: &Inner, container: &Container) -> Result<Vec<String>> {
    let found = linked_to(inner, container)?;
    Ok(found
        .iter()
        .flat_map(|(alias, other, at)| variables(&container.name, alias, &other.config, *at))
        .collect())
}

/// What a container is linked to: the alias, who it is, and where.
type Linked = (String, Arc<Container>, IpAddr);

fn linked_to(inner: &Inner, container: &Container) -> Result<Vec<Linked>> {
    let mut found = Vec::new();
    for link in &container.config.host.links {
        let (other, alias) = parts(link);
        let other = inner.inspect(other)?;
        if !other.state.is_running() {
            return Err(Error::Conflict(format!("Cannot link to a non running container: /{}", other.name)));
        }
        let address = address(container, &other).ok_or_else(|| {
            Error::Conflict(format!(
                "Cannot link to /{}, as it does not belong to a common network",
                other.name
            ))
        })?;
        found.push((alias.to_owned(), other, address));
    }
    Ok(found)
}

/// Returns what one link brings into the environment.
fn variables(name: &str, alias: &str, other: &ContainerConfig, address: IpAddr) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<Port> = other.exposed_ports.iter().copied().collect();
    ports.sort_by_key(|port| (port.protocol, port.number));
    let mut env = Vec::new();
    let words = |port: &Port| {
        let text = port.to_string();
        let protocol = text.rsplit_once('/').map_or("tcp", |(_, protocol)| protocol).to_owned();
        (format!("{prefix}_PORT_{}_{}", port.number, protocol.to_uppercase()), protocol)
    };
    if let Some(first) = ports.first() {
        env.push(format!("{prefix}_PORT={}://{address}:{}", words(first).1, first.number));
    }
    for port in &ports {
        let (of_port, protocol) = words(port);
        env.push(format!("{of_port}={protocol}://{address}:{}", port.number));
        env.push(format!("{of_port}_ADDR={address}"));
        env.push(format!("{of_port}_PORT={}", port.number));
        env.push(format!("{of_port}_PROTO={protocol}"));
    }
    for run in ports.chunk_by(|a, b| a.protocol == b.protocol && a.number.checked_add(1) == Some(b.number)) {
        let [first, .., last] = run else { continue };
        let (of_port, protocol) = words(first);
        for (which, port) in [("START", first), ("END", last)] {
            env.push(format!("{of_port}_{which}={protocol}://{address}:{}", port.number));
            env.push(format!("{of_port}_PORT_{which}={}", port.number));
        }
    }
    env.push(format!("{prefix}_NAME=/{name}/{alias}"));
    let told = other.env.iter().filter_map(|variable| variable.split_once('='));
    // What each container has anyway says nothing of this one.
    let told = told.filter(|(key, _)| !matches!(*key, "HOME" | "PATH"));
    env.extend(told.map(|(key, value)| format!("{prefix}_ENV_{key}={value}")));
    env
}

/// Returns the links without that of an alias, and that.
pub(crate) fn without(links: Vec<String>, alias: &str) -> (Vec<String>, Option<String>) {
    let (mut gone, kept): (Vec<_>, Vec<_>) = links.into_iter().partition(|link| parts(link).1 == alias);
    (kept, gone.pop())
}

/// Removes the line of a link that is no more. Blocking.
pub(crate) fn forget(inner: &Inner, hosts: &Path, link: &str) -> Result<()> {
    let (other, alias) = parts(link);
    // Without the other one there is no line that could lead to it.
    let Ok(other) = inner.inspect(other) else { return Ok(()) };
    let _writing = writing();
    change(hosts, |text| without_line(text, &names(alias, &other)))
}

/// Returns the names that containers have through links, by id.
pub(crate) fn names_of_all(inner: &Inner) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for linked in inner.registry.linked() {
        for link in &linked.config.host.links {
            let (other, alias) = parts(link);
            if let Ok(other) = inner.inspect(other) {
                all.entry(other.id.clone()).or_default().push(format!("{}/{alias}", linked.name));
            }
        }
    }
    all
}

/// Writes the address of a container that has just started into the files of those that are linked to it. What cannot
/// be written is logged: it is another container's, which goes on.
pub(crate) async fn tell(inner: &Arc<Inner>, started: &Container) {
    // Nearly always there are none.
    if !inner.registry.linked().is_empty() {
        let (inner, started) = (inner.clone(), started.clone());
        let told = crate::blocking(move || {
            tell_all(&inner, &started);
            Ok(())
        });
        // The daemon ends: who is linked looks the address up when it starts.
        drop(told.await);
    }
}

fn tell_all(inner: &Inner, started: &Container) {
    let _writing = writing();
    for linked in inner.registry.linked() {
        let mine = linked.config.host.links.iter().filter_map(|link| {
            let (other, alias) = parts(link);
            let is_it = inner.inspect(other).is_ok_and(|other| other.id == started.id);
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
    let (other, alias) = link.split_once(':').unwrap_or((link, link));
    (other, alias.trim_start_matches('/'))
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

/// Changes the address of a line.
fn update(hosts: &Path, names: &str, address: IpAddr) -> Result<()> {
    change(hosts, |text| changed(text, names, address))
}

/// Changes a file in place: it is mounted in its container.
fn change(hosts: &Path, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Result<()> {
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
    let Some(changed) = change(&text) else { return Ok(()) };
    rewrite(&mut file, &changed).map_err(failed("write"))
}

fn rewrite(file: &mut File, text: &[u8]) -> std::io::Result<()> {
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)
}

/// Returns true for the line that has these names.
fn has_names(line: &[u8], names: &str) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.iter().position(|b| *b == b'\t').is_some_and(|tab| &line[tab + 1..] == names.as_bytes())
}

/// Returns the text without the line that has these names, if there is one.
fn without_line(text: &[u8], names: &str) -> Option<Vec<u8>> {
    let lines = text.split_inclusive(|b| *b == b'\n');
    let kept: Vec<u8> = lines.filter(|line| !has_names(line, names)).flatten().copied().collect();
    (kept.len() < text.len()).then_some(kept)
}

/// Returns the text with another address in the line that has these names, if it is not that already.
fn changed(text: &[u8], names: &str, address: IpAddr) -> Option<Vec<u8>> {
    let line = format!("{address}\t{names}\n");
    let is_its = |old: &&[u8]| has_names(old, names);
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
        let without = without_line(&new, "db 0123 store").unwrap();
        assert_eq!(without, b"127.0.0.1\tlocalhost\n# by hand \xff\n172.17.0.3\tdb2 0123 store");
        assert_eq!(without_line(&without, "db 0123 store"), None);
    }

    #[test]
    fn a_link_is_taken_away_by_its_alias() {
        let links = ["db:store", "cache", "web:/front"].map(str::to_owned).to_vec();
        let (kept, gone) = without(links.clone(), "store");
        assert_eq!((kept.len(), gone.as_deref()), (2, Some("db:store")));
        assert_eq!(without(links.clone(), "front").1.as_deref(), Some("web:/front"));
        assert_eq!(without(links.clone(), "cache").1.as_deref(), Some("cache"));
        assert_eq!(without(links.clone(), "db"), (links, None));
    }

    #[test]
    fn variables_tell_of_ports_and_environment() {
        let other = ContainerConfig {
            env: ["PATH=/bin", "HOME=/", "USER=me=you", "BARE"].map(str::to_owned).to_vec(),
            exposed_ports: ["5433/tcp", "5432/tcp", "5432/udp"].map(|p| p.parse().unwrap()).into(),
            ..ContainerConfig::default()
        };
        let env = variables("web", "my-db", &other, "172.17.0.2".parse().unwrap());
        for expected in [
            "MY_DB_PORT=tcp://172.17.0.2:5432",
            "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
            "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
            "MY_DB_PORT_5432_UDP_PROTO=udp",
            "MY_DB_PORT_5433_TCP_PORT=5433",
            "MY_DB_PORT_5432_TCP_START=tcp://172.17.0.2:5432",
            "MY_DB_PORT_5432_TCP_PORT_END=5433",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_USER=me=you",
        ] {
            assert!(env.iter().any(|variable| variable == expected), "{expected}: {env:?}");
        }
        assert!(
            !env.iter().any(|v| v.contains("PATH=") || v.contains("HOME") || v.contains("BARE")),
            "{env:?}"
        );
    }
}
