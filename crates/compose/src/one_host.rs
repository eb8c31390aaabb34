//! What a service can ask for when all of its project is on one host: names of containers, namespaces of other
//! services, addresses, ports on one address. Source: compose specification "services", "networks".

use crate::{
    Error, Provider, ServiceModel,
    definitions::Definitions,
    error::suggest,
    hooks, provide,
    read::{Item, Reader, optional},
    tree::Value,
};
use model::{ContainerRestart, Hook, Labels};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

/// Read only for [`Place::Host`](crate::Place::Host).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OneHost {
    pub container_name: Option<String>,
    /// `host`, `bridge`, `none`, `service:KEY` or `container:NAME`; `None` = the service's networks.
    pub network_mode: Option<String>,
    /// `service:KEY` or `container:NAME`; other values stand in the model's options.
    pub pid: Option<String>,
    pub ipc: Option<String>,
    /// What `deploy.restart_policy` says, else `restart`.
    pub restart: ContainerRestart,
    pub pull: Pull,
    pub ports: Vec<HostPort>,
    /// Ports that only other containers are told of, e.g. `80/tcp`.
    pub expose: Vec<String>,
    pub mac_address: Option<String>,
    /// `SERVICE[:ALIAS]`: on the host's bridge, where nobody has a name, these are found all the same.
    pub links: Vec<String>,
    /// `CONTAINER[:ALIAS]` of other projects.
    pub external_links: Vec<String>,
    /// `SERVICE[:ro]` or `container:NAME[:ro]`, whose volumes are this one's too.
    pub volumes_from: Vec<String>,
    pub storage_opts: Labels,
    /// Does `up` show its output?
    pub attach: bool,
    pub profiles: Vec<String>,
    /// Services whose restart restarts this one.
    pub restarts_with: Vec<String>,
    /// Services of `depends_on` that it can do without.
    pub optional: Vec<String>,
    pub watch: Vec<Watch>,
    /// There is no container: this provides what others need of the service.
    pub provider: Option<Provider>,
    pub models: Vec<ServiceModel>,
}

/// Source: compose specification "pull_policy".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    Always,
    Never,
    #[default]
    Missing,
    Build,
}

/// A published port. Source: docker CLI `--publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub ip: Option<IpAddr>,
    /// A port, a range `FIRST-LAST` of which one is taken, or empty: any.
    pub published: String,
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
}

/// A rule of `develop.watch`. Source: compose specification "watch".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    pub path: PathBuf,
    pub action: WatchAction,
    /// In the container.
    pub target: String,
    pub ignore: Vec<String>,
    /// If any, nothing else counts.
    pub include: Vec<String>,
    /// Copy everything when the watch begins.
    pub initial_sync: bool,
    /// What `sync+exec` runs.
    pub exec: Option<Hook>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchAction {
    Sync,
    Rebuild,
    Restart,
    SyncRestart,
    SyncExec,
}

/// What a service is on one of its networks. Source: compose specification "networks" of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Address {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub link_local: Vec<String>,
    pub mac: Option<String>,
    /// The network with the highest is joined first.
    pub priority: i64,
    /// The network with the highest has the way outside.
    pub gateway_priority: i64,
    pub driver_opts: Labels,
}

/// A network that one host makes. Source: compose specification "networks".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNetwork {
    /// Empty = the daemon's default.
    pub driver: String,
    pub options: Labels,
    pub attachable: bool,
    pub internal: bool,
    pub ipv4: Option<bool>,
    pub ipv6: Option<bool>,
    pub labels: Labels,
    /// Empty = the daemon's default.
    pub ipam_driver: String,
    pub ipam_options: Labels,
    pub subnets: Vec<Subnet>,
}

/// In the words of the file; the daemon checks them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subnet {
    pub subnet: String,
    pub gateway: String,
    pub ip_range: String,
    pub aux_addresses: Labels,
}

pub(crate) fn read(
    service: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<OneHost, Error> {
    let text = |key: &str| optional(service.get(key), Item::string);
    let list = |key: &str| optional(service.get(key), Item::strings).map(Option::unwrap_or_default);
    let shared = |key: &str| text(key).map(|value| value.filter(|value| is_shared(value)));
    Ok(OneHost {
        container_name: text("container_name")?,
        network_mode: optional(service.get("network_mode"), network_mode)?,
        pid: shared("pid")?,
        ipc: shared("ipc")?,
        restart: restart(service)?,
        pull: optional(service.get("pull_policy"), |i| pull(i, service))?.unwrap_or_default(),
        ports: optional(service.get("ports"), ports)?.unwrap_or_default(),
        expose: optional(service.get("expose"), exposed)?.unwrap_or_default(),
        links: list("links")?,
        mac_address: text("mac_address")?,
        external_links: list("external_links")?,
        storage_opts: optional(service.get("storage_opt"), Item::labels)?.unwrap_or_default(),
        attach: optional(service.get("attach"), Item::boolean)?.unwrap_or(true),
        profiles: list("profiles")?,
        restarts_with: depends_that(service, "restart", false)?,
        // Required is what does not say otherwise.
        optional: {
            let required = depends_that(service, "required", true)?;
            let mut all = depends_that(service, "", true)?;
            all.retain(|name| !required.contains(name));
            all
        },
        volumes_from: list("volumes_from")?,
        watch: optional(service.get("develop"), |i| watch(i, read))?.unwrap_or_default(),
        provider: provide::provider(service, read)?,
        models: provide::service_models(service, defined)?,
    })
}

/// Is it the namespace of another container?
pub(crate) fn is_shared(value: &str) -> bool {
    value.starts_with("service:") || value.starts_with("container:")
}

/// Returns the services that this one needs without naming them in `depends_on`: it shares something with them.
pub(crate) fn needs(service: &Item<'_>, defined: &Definitions<'_>) -> Result<BTreeSet<String>, Error> {
    let mut needs = BTreeSet::new();
    for key in ["network_mode", "pid", "ipc"] {
        let Some(item) = service.get(key) else { continue };
        if let Some(name) = item.string()?.strip_prefix("service:") {
            needs.insert(service_key(&item, name, defined)?);
        }
    }
    for key in ["links", "volumes_from"] {
        for item in service.get(key).map_or(Ok(Vec::new()), |i| i.items())? {
            let text = item.string()?;
            if key == "volumes_from" && text.starts_with("container:") {
                continue;
            }
            let name = text.split_once(':').map_or(text.as_str(), |(name, _)| name);
            needs.insert(service_key(&item, name, defined)?);
        }
    }
    Ok(needs)
}

fn service_key(item: &Item<'_>, name: &str, defined: &Definitions<'_>) -> Result<String, Error> {
    if defined.services.contains_key(name) {
        return Ok(name.to_owned());
    }
    Err(Error::Undefined {
        at: item.at(),
        path: item.path.clone(),
        kind: "service",
        name: name.to_owned(),
        suggestion: suggest(name, defined.services.keys().map(String::as_str)),
    })
}

fn network_mode(item: &Item<'_>) -> Result<String, Error> {
    let value = item.string()?;
    if is_shared(&value) || matches!(value.as_str(), "host" | "bridge" | "none") {
        return Ok(value);
    }
    Err(item.invalid(format!(
        "want host, bridge, none, service:NAME or container:NAME, not {value:?}: a network is named in \"networks\""
    )))
}

/// Source: docker/compose `pkg/compose/create.go`, `getRestartPolicy`.
fn restart(service: &Item<'_>) -> Result<ContainerRestart, Error> {
    if let Some(policy) = service.get("deploy").and_then(|deploy| deploy.get("restart_policy")) {
        let attempts = optional(policy.get("max_attempts"), Item::integer::<u32>)?.unwrap_or(0);
        let condition = optional(policy.get("condition"), Item::string)?;
        return Ok(match condition.as_deref() {
            Some("none" | "no") => ContainerRestart::No,
            Some("on-failure") => {
                ContainerRestart::OnFailure { max_retries: Some(attempts).filter(|n| *n > 0) }
            }
            _ => ContainerRestart::Always,
        });
    }
    let Some(item) = service.get("restart") else { return Ok(ContainerRestart::No) };
    match &item.node.value {
        Value::Bool(false) => Ok(ContainerRestart::No),
        _ => ContainerRestart::of_text(&item.string()?).map_err(|unfit| item.invalid(unfit.to_string())),
    }
}

fn pull(item: &Item<'_>, service: &Item<'_>) -> Result<Pull, Error> {
    match item.string()?.as_str() {
        "always" => Ok(Pull::Always),
        "never" => Ok(Pull::Never),
        "missing" | "if_not_present" => Ok(Pull::Missing),
        "build" if service.get("build").is_some() => Ok(Pull::Build),
        other => Err(item.invalid(format!(
            "want always, never, missing, if_not_present, or build beside \"build\"; {other:?} is not possible here"
        ))),
    }
}

/// Returns the services of `depends_on` that say yes to a key, or say nothing where that means yes.
fn depends_that(service: &Item<'_>, key: &str, default: bool) -> Result<Vec<String>, Error> {
    let Some(item) = service.get("depends_on").filter(Item::is_map) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for (name, entry, _) in item.entries()? {
        if optional(entry.get(key), Item::boolean)?.unwrap_or(default) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Ports and ranges of them, each port as `80/tcp`.
fn exposed(item: &Item<'_>) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for item in item.items()? {
        let text = item.string()?;
        let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let known = PROTOCOLS.iter().any(|(name, _)| *name == protocol);
        let (first, last) = range(ports)
            .filter(|_| known)
            .ok_or_else(|| item.invalid(format!("invalid port {text:?}: want PORT[-LAST][/PROTOCOL]")))?;
        all.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(all)
}

const PROTOCOLS: &[(&str, &str)] = &[("tcp", "tcp"), ("udp", "udp"), ("sctp", "sctp")];

fn ports(item: &Item<'_>) -> Result<Vec<HostPort>, Error> {
    let mut all = Vec::new();
    for item in item.items()? {
        let more = if item.is_map() { vec![long_port(&item)?] } else { short_port(&item)? };
        for port in more {
            if !all.contains(&port) {
                all.push(port);
            }
        }
    }
    Ok(all)
}

fn long_port(item: &Item<'_>) -> Result<HostPort, Error> {
    item.only(&["target", "published", "protocol", "mode", "name", "app_protocol", "host_ip"], &[])?;
    let target = item.get("target").ok_or_else(|| item.invalid("a port needs a target"))?;
    let published = optional(item.get("published"), Item::string)?.unwrap_or_default();
    if !published.is_empty() && range(&published).is_none() {
        return Err(item.invalid(format!("{published:?} is neither a port nor a range of ports")));
    }
    Ok(HostPort {
        ip: optional(item.get("host_ip"), |i| i.parsed_as("an IP address"))?,
        published,
        target: target.integer::<u16>().and_then(|port| match port {
            0 => Err(target.invalid("0 is no port")),
            port => Ok(port),
        })?,
        protocol: item.get("protocol").map_or(Ok("tcp"), |p| p.one_of(PROTOCOLS))?,
    })
}

impl Item<'_> {
    /// Reads a port in its short form.
    pub(crate) fn host_ports(&self) -> Result<Vec<HostPort>, Error> {
        short_port(self)
    }
}

/// `[[IP:]PUBLISHED:]TARGET[/PROTOCOL]`, ports or ranges. Source: docker CLI `opts/port.go`.
fn short_port(item: &Item<'_>) -> Result<Vec<HostPort>, Error> {
    let text = item.string()?;
    let bad = |why: &str| item.invalid(format!("invalid port {text:?}: {why}"));
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let protocol = PROTOCOLS.iter().find(|(name, _)| *name == protocol.to_ascii_lowercase());
    let (_, protocol) = protocol.ok_or_else(|| bad("the protocol is tcp, udp or sctp"))?;
    let (rest, target) = match ports.rsplit_once(':') {
        None => (None, ports),
        Some((rest, target)) => (Some(rest), target),
    };
    let (ip, published) = match rest {
        None => (None, ""),
        Some(rest) => match rest.rsplit_once(':') {
            None => (None, rest),
            Some((ip, published)) => (Some(ip.trim_start_matches('[').trim_end_matches(']')), published),
        },
    };
    let ip = match ip.filter(|ip| !ip.is_empty()) {
        None => None,
        Some(ip) => Some(ip.parse().map_err(|_| bad(&format!("{ip:?} is not an IP address")))?),
    };
    let form = "want [[IP:]PUBLISHED:]TARGET[/PROTOCOL]";
    let targets = range(target).ok_or_else(|| bad(form))?;
    let among = if published.is_empty() { None } else { Some(range(published).ok_or_else(|| bad(form))?) };
    let one_of_many = targets.0 == targets.1;
    if let Some((first, last)) = among
        && !one_of_many
        && last - first != targets.1 - targets.0
    {
        return Err(bad("both ranges must be of the same length"));
    }
    let port = |target: u16| HostPort {
        ip,
        published: match among {
            None => String::new(),
            Some((first, last)) if one_of_many && first != last => format!("{first}-{last}"),
            Some((first, _)) => (first + (target - targets.0)).to_string(),
        },
        target,
        protocol,
    };
    Ok((targets.0..=targets.1).map(port).collect())
}

/// Reads `8000` or `8000-8010`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

fn watch(develop: &Item<'_>, read: &Reader<'_>) -> Result<Vec<Watch>, Error> {
    develop.only(&["watch"], &[])?;
    let Some(rules) = develop.get("watch") else { return Ok(Vec::new()) };
    let rule = |item: &Item<'_>| {
        item.only(&["path", "action", "target", "ignore", "include", "initial_sync", "exec"], &[])?;
        let needed = |key: &str| {
            item.get(key).ok_or_else(|| item.invalid(format!("a rule of \"watch\" needs {key:?}")))
        };
        let action = needed("action")?.one_of(&[
            ("sync", WatchAction::Sync),
            ("rebuild", WatchAction::Rebuild),
            ("restart", WatchAction::Restart),
            ("sync+restart", WatchAction::SyncRestart),
            ("sync+exec", WatchAction::SyncExec),
        ])?;
        let syncs = !matches!(action, WatchAction::Rebuild | WatchAction::Restart);
        let exec = optional(item.get("exec"), hooks::hook)?;
        if action == WatchAction::SyncExec && exec.is_none() {
            return Err(item.invalid("\"sync+exec\" needs exec.command"));
        }
        let old = item.get("x-initialSync");
        if let Some(old) = &old {
            let text = "x-initialSync is DEPRECATED, please use the official `initial_sync` attribute";
            read.warn(&old.node.at, text.to_owned());
        }
        let initial_sync = item.get("initial_sync").or(old);
        Ok(Watch {
            path: read.path(&needed("path")?.string()?),
            action,
            target: if syncs { needed("target")?.string()? } else { String::new() },
            ignore: optional(item.get("ignore"), Item::strings_or_one)?.unwrap_or_default(),
            include: optional(item.get("include"), Item::strings_or_one)?.unwrap_or_default(),
            initial_sync: optional(initial_sync, Item::boolean)?.unwrap_or(false),
            exec,
        })
    };
    rules.items()?.iter().map(rule).collect()
}

/// Reads what a service is on a network.
pub(crate) fn address(entry: &Item<'_>) -> Result<Address, Error> {
    entry.only(
        &[
            "aliases",
            "ipv4_address",
            "ipv6_address",
            "link_local_ips",
            "mac_address",
            "priority",
            "gw_priority",
            "driver_opts",
        ],
        &[("interface_name", "interfaces are named eth0, eth1, ... in the order of the networks")],
    )?;
    Ok(Address {
        ipv4: optional(entry.get("ipv4_address"), |i| i.parsed_as("an IPv4 address"))?,
        ipv6: optional(entry.get("ipv6_address"), |i| i.parsed_as("an IPv6 address"))?,
        link_local: optional(entry.get("link_local_ips"), Item::strings)?.unwrap_or_default(),
        mac: optional(entry.get("mac_address"), Item::string)?,
        priority: optional(entry.get("priority"), Item::integer)?.unwrap_or(0),
        gateway_priority: optional(entry.get("gw_priority"), Item::integer)?.unwrap_or(0),
        driver_opts: optional(entry.get("driver_opts"), Item::labels)?.unwrap_or_default(),
    })
}

/// Reads the definition of a network that is not external.
pub(crate) fn network(item: &Item<'_>, labels: Labels) -> Result<HostNetwork, Error> {
    let flag = |key: &str| optional(item.get(key), Item::boolean);
    let text =
        |item: &Item<'_>, key: &str| optional(item.get(key), Item::string).map(Option::unwrap_or_default);
    let map =
        |item: &Item<'_>, key: &str| optional(item.get(key), Item::labels).map(Option::unwrap_or_default);
    let mut network = HostNetwork {
        driver: text(item, "driver")?,
        options: map(item, "driver_opts")?,
        attachable: flag("attachable")?.unwrap_or_default(),
        internal: flag("internal")?.unwrap_or_default(),
        ipv4: flag("enable_ipv4")?,
        ipv6: flag("enable_ipv6")?,
        labels,
        ..HostNetwork::default()
    };
    if let Some(ipam) = item.get("ipam") {
        ipam.only(&["driver", "config", "options"], &[])?;
        network.ipam_driver = text(&ipam, "driver")?;
        network.ipam_options = map(&ipam, "options")?;
        for config in ipam.get("config").map_or(Ok(Vec::new()), |c| c.items())? {
            config.only(&["subnet", "gateway", "ip_range", "aux_addresses"], &[])?;
            network.subnets.push(Subnet {
                subnet: text(&config, "subnet")?,
                gateway: text(&config, "gateway")?,
                ip_range: text(&config, "ip_range")?,
                aux_addresses: map(&config, "aux_addresses")?,
            });
        }
    }
    Ok(network)
}

/// Returns the keys that a definition of a network may have.
pub(crate) const NETWORK_KEYS: &[&str] = &[
    "name",
    "external",
    "driver",
    "driver_opts",
    "attachable",
    "internal",
    "labels",
    "ipam",
    "enable_ipv4",
    "enable_ipv6",
];
