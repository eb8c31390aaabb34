//! What a container may ask of its interface on a network of this host beside addresses: Docker's links, the priority of
//! the way out, and options of the driver. *Source:* Docker API `EndpointSettings`; moby `libnetwork/netlabel/labels.go`,
//! `daemon/container_operations.go`.

use crate::{Error, Result};
use model::confine;
use network::LegOptions;
use std::collections::BTreeMap;

/// Settings of the interface: `net.ipv4.conf.IFNAME.log_martians=1,...`.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// Name of the interface inside.
const IFNAME: &str = "com.docker.network.endpoint.ifname";
/// What Docker's own options begin with.
const DOCKERS: &str = "com.docker.network.";
/// *Source:* `IFNAMSIZ` without its NUL.
const IFNAME_BYTES_MAX: usize = 15;

/// Reads what is asked for.
///
/// # Errors
/// A link, a name or a setting that is none, or an option that there is not; the text names its key.
pub(crate) fn options(
    links: &[String],
    gateway_priority: i64,
    driver_opts: &BTreeMap<String, String>,
) -> Result<LegOptions> {
    let mut made = LegOptions { gateway_priority, ..LegOptions::default() };
    for text in links {
        made.links.push(link(text)?);
    }
    for (key, value) in driver_opts {
        match key.as_str() {
            SYSCTLS => made.sysctls = sysctls(value)?,
            IFNAME => made.interface = Some(interface(value)?),
            other if other.starts_with(DOCKERS) => {
                return Err(Error::invalid(format!(
                    "invalid EndpointsConfig.DriverOpts: there is no option {other:?} of an endpoint; hint: there are \
                     {SYSCTLS} and {IFNAME}"
                )));
            }
            // Another driver's: kept and shown. Who creates the container is told.
            _ => {}
        }
    }
    Ok(made)
}

/// Returns what to tell of options that no driver here knows.
pub(crate) fn warnings<'a>(all: impl Iterator<Item = &'a BTreeMap<String, String>>) -> Vec<String> {
    let known = |key: &String| key.starts_with(DOCKERS);
    let unknown = all.flat_map(BTreeMap::keys).filter(|key| !known(key));
    unknown
        .map(|key| format!("EndpointsConfig.DriverOpts: no network driver here knows {key:?}. Discarded."))
        .collect()
}

/// Returns the name by which a container is known, and its alias.
fn link(text: &str) -> Result<(String, String)> {
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let (name, alias) = (name.trim_start_matches('/'), alias.trim_start_matches('/'));
    for part in [name, alias] {
        confine::name("EndpointsConfig.Links", part).map_err(|e| Error::invalid(e.to_string()))?;
    }
    // Networks know a container by its name and by the beginning of its id.
    let is_id = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    Ok((if is_id { name[..12].to_owned() } else { name.to_owned() }, alias.to_owned()))
}

fn interface(name: &str) -> Result<String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    // Names that mean every interface, or one that is there already.
    let taken = ["lo", "ethg", "all", "default"].contains(&name);
    if name.is_empty() || name.len() > IFNAME_BYTES_MAX || !name.bytes().all(fine) || taken {
        return Err(Error::invalid(format!(
            "invalid EndpointsConfig.DriverOpts: {IFNAME}: {name:?} cannot be the name of an interface; hint: 1 to \
             {IFNAME_BYTES_MAX} letters, digits, \"-\" or \"_\""
        )));
    }
    Ok(name.to_owned())
}

/// Reads settings that are of this interface and of no other.
fn sysctls(text: &str) -> Result<Vec<(String, String)>> {
    let refused = |one: &str, why: &str| {
        Error::invalid(format!("invalid EndpointsConfig.DriverOpts: {SYSCTLS}: {one:?} {why}"))
    };
    let read = |one: &str| {
        let (key, value) = one.split_once('=').ok_or_else(|| refused(one, "is not KEY=VALUE"))?;
        let word =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let parts: Vec<&str> = key.split('.').collect();
        match parts[..] {
            ["net", family, group, "IFNAME", name] if [family, group, name].iter().all(word) => {}
            _ => {
                return Err(refused(
                    one,
                    "is no setting of an interface: net.FAMILY.GROUP.IFNAME.NAME=VALUE",
                ));
            }
        }
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(refused(one, "has no value"));
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Result<LegOptions> {
        options(&[], 3, &[(key.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn what_docker_knows_is_read() {
        let read =
            with(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2").unwrap();
        assert_eq!(read.gateway_priority, 3);
        assert_eq!(read.sysctls[1], ("net.ipv6.conf.IFNAME.accept_ra".to_owned(), "2".to_owned()));
        assert_eq!(with(IFNAME, "lan0").unwrap().interface.as_deref(), Some("lan0"));
        let id = "0123456789abcdef".repeat(4);
        let links = ["/db:store".to_owned(), "web".to_owned(), format!("{id}:x")];
        let read = options(&links, 0, &BTreeMap::new()).unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(read.links, [pair("db", "store"), pair("web", "web"), pair("0123456789ab", "x")]);
    }

    #[test]
    fn what_another_driver_may_know_is_kept_and_told_of() {
        assert!(with("org.example.colour", "red").is_ok());
        let asked = BTreeMap::from([IFNAME, "org.example.colour"].map(|key| (key.to_owned(), String::new())));
        let told = warnings([&asked].into_iter());
        assert!(matches!(&told[..], [one] if one.contains("org.example.colour")), "{told:?}");
    }

    #[test]
    fn what_is_not_of_the_interface_is_refused_by_its_key() {
        for (key, value) in [
            (SYSCTLS, "net.ipv4.ip_forward=1"),
            (SYSCTLS, "net.ipv4.conf.eth0.log_martians=1"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.../../../kernel/core_pattern=x"),
            (SYSCTLS, "kernel.x.y.IFNAME.z=1"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.log_martians"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.log_martians="),
            (IFNAME, "lo"),
            (IFNAME, "a/b"),
            (IFNAME, "sixteen-letters-"),
            (IFNAME, ""),
            ("com.docker.network.bridge.name", "br0"),
        ] {
            let refused = with(key, value).unwrap_err().to_string();
            assert!(refused.contains("EndpointsConfig.DriverOpts") && refused.contains(key), "{refused}");
        }
        let refused = options(&["db:a b".to_owned()], 0, &BTreeMap::new()).unwrap_err().to_string();
        assert!(refused.contains("EndpointsConfig.Links"), "{refused}");
    }
}
