//! One service. Source: compose specification "services"; docker/cli `cli/compose/convert/service.go`.

use crate::{
    Error, StackAttachment, StackService, build,
    definitions::Definitions,
    depend, deploy,
    error::suggest,
    hooks, hosts, local, mounts, one_host, ports,
    read::{Item, Reader, optional},
    tree::Value,
    ulimits,
};
use model::{
    ContainerSpec, DnsConfig, EndpointSpec, FileRef, Healthcheck, Labels, LogDriver, Mode, ServiceSpec,
    TaskSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Besides [`local::KEYS`].
const KNOWN: &[&str] = &[
    "attach",
    "build",
    "cap_add",
    "cap_drop",
    "command",
    "configs",
    "container_name",
    "cpus",
    "depends_on",
    "deploy",
    "develop",
    "dns",
    "dns_opt",
    "dns_search",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extra_hosts",
    "gpus",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "label_file",
    "labels",
    "links",
    "logging",
    "mem_limit",
    "mem_reservation",
    "network_mode",
    "networks",
    "oom_score_adj",
    "pids_limit",
    "platform",
    "ports",
    "post_start",
    "pre_stop",
    "privileged",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "scale",
    "secrets",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "volumes",
    "volumes_from",
    "working_dir",
];

const NOT_YET: &str = "not implemented yet";

const UNSUPPORTED: &[(&str, &str)] = &[
    ("cpu_count", "it is for Windows"),
    ("cpu_percent", "it is for Windows"),
    ("cpu_rt_period", NOT_YET),
    ("cpu_rt_runtime", NOT_YET),
    ("credential_spec", "it is for Windows"),
    ("external_links", "services on one network find each other by name"),
    ("mac_address", "addresses are given out by the swarm"),
    ("models", "nodes do not run models"),
    ("pre_start", NOT_YET),
    ("provider", "nodes run no other programs"),
    ("storage_opt", NOT_YET),
    ("use_api_socket", NOT_YET),
];

/// What only one host can give.
const ONE_HOST: &[&str] = &["external_links", "mac_address", "models", "provider", "storage_opt"];

pub(crate) fn read(
    key: &str,
    service: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<StackService, Error> {
    let host = if read.on_one_host() {
        let known = [KNOWN, local::KEYS, ONE_HOST].concat();
        let unsupported: Vec<_> =
            UNSUPPORTED.iter().filter(|(key, _)| !ONE_HOST.contains(key)).copied().collect();
        service.only(&known, &unsupported)?;
        Some(one_host::read(service, defined, read)?)
    } else {
        service.only(&[KNOWN, local::KEYS].concat(), UNSUPPORTED)?;
        local::check_tooling(service, read)?;
        None
    };
    let deploy = deploy::read(service, read)?;
    let container = container(key, service, defined, read)?;
    let mut labels = defined.with_namespace(deploy.labels.clone());
    labels.insert("com.docker.stack.image".to_owned(), container.image.clone());
    let endpoint = EndpointSpec {
        mode: deploy.endpoint_mode,
        ports: match service.get("ports") {
            Some(ports) if host.is_none() => ports::read(&ports)?,
            _ => Vec::new(),
        },
    };
    if endpoint.mode == model::EndpointMode::DnsRr
        && endpoint.ports.iter().any(|p| p.mode == model::PublishMode::Ingress)
    {
        return Err(service.invalid("endpoint_mode dnsrr cannot publish ports in ingress mode"));
    }
    let task = TaskSpec {
        container,
        resources: deploy.resources,
        restart: deploy.restart,
        placement: deploy.placement,
        networks: Vec::new(),
        log_driver: optional(service.get("logging"), logging)?,
        force_update: 0,
    };
    let spec = ServiceSpec {
        name: defined.full_name(key),
        labels,
        task: Arc::new(task),
        mode: deploy.mode.unwrap_or(Mode::Replicated { replicas: 1 }),
        update: deploy.update,
        rollback: deploy.rollback,
        endpoint,
        depends_on: depend::read(service, defined, read)?,
        said: model::Said::default(),
    };
    Ok(StackService {
        key: key.to_owned(),
        spec,
        networks: networks(key, service, defined, read)?,
        build: optional(service.get("build"), |b| build::read(b, defined, read))?,
        secrets: files(service, "secrets", &defined.secrets, defined)?,
        configs: files(service, "configs", &defined.configs, defined)?,
        host,
    })
}

fn container(
    key: &str,
    service: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<ContainerSpec, Error> {
    let image = optional(service.get("image"), Item::string)?.filter(|i| !i.is_empty());
    // What is built has the service's name, if no other.
    let built = || match read.on_one_host() {
        true => defined.image_name(key),
        false => defined.full_name(key),
    };
    let image = image.or_else(|| service.get("build").map(|_| built()));
    let image = image.or_else(|| service.get("provider").map(|_| String::new()));
    let text = |key: &str| optional(service.get(key), Item::string);
    let list = |key: &str| optional(service.get(key), Item::strings).map(Option::unwrap_or_default);
    let flag = |key: &str| optional(service.get(key), Item::boolean).map(Option::unwrap_or_default);
    if let Some(expose) = service.get("expose") {
        expose.strings()?; // on an overlay network every port is open
    }
    Ok(ContainerSpec {
        image: image.ok_or_else(|| service.invalid("a service needs an image"))?,
        labels: defined.with_namespace(labels(service, read)?),
        command: optional(service.get("entrypoint"), Item::command)?.unwrap_or_default(),
        args: optional(service.get("command"), Item::command)?.unwrap_or_default(),
        env: environment(service, read)?,
        hostname: text("hostname")?,
        working_dir: text("working_dir")?,
        user: text("user")?,
        groups: list("group_add")?,
        tty: flag("tty")?,
        open_stdin: flag("stdin_open")?,
        read_only: flag("read_only")?,
        mounts: mounts::read(service, defined, read)?,
        stop_signal: text("stop_signal")?,
        stop_grace_period: optional(service.get("stop_grace_period"), Item::duration)?,
        healthcheck: optional(service.get("healthcheck"), healthcheck)?,
        hosts: optional(service.get("extra_hosts"), hosts::hosts)?.unwrap_or_default(),
        dns: DnsConfig {
            nameservers: optional(service.get("dns"), nameservers)?.unwrap_or_default(),
            search: optional(service.get("dns_search"), Item::strings_or_one)?.unwrap_or_default(),
            options: optional(service.get("dns_opt"), Item::strings_or_one)?.unwrap_or_default(),
        },
        secrets: Vec::new(),
        configs: Vec::new(),
        init: optional(service.get("init"), Item::boolean)?,
        sysctls: sysctls(service)?,
        cap_add: capabilities(list("cap_add")?),
        cap_drop: capabilities(list("cap_drop")?),
        ulimits: optional(service.get("ulimits"), ulimits::ulimits)?.unwrap_or_default(),
        privileged: flag("privileged")?,
        no_new_privileges: optional(service.get("security_opt"), local::no_new_privileges)?
            .unwrap_or_default(),
        shm_size_bytes: optional(service.get("shm_size"), Item::bytes)?,
        oom_score_adj: optional(service.get("oom_score_adj"), Item::integer)?.unwrap_or(0),
        host: local::read(service, read)?,
        post_start: optional(service.get("post_start"), hooks::hooks)?.unwrap_or_default(),
        pre_stop: optional(service.get("pre_stop"), hooks::hooks)?.unwrap_or_default(),
    })
}

/// Only those of namespaces that the container has to itself.
fn sysctls(service: &Item<'_>) -> Result<Labels, Error> {
    let Some(item) = service.get("sysctls") else { return Ok(Labels::new()) };
    let mode = |key: &str| Ok(optional(service.get(key), Item::string)?.unwrap_or_default());
    let (network, ipc) = (mode("network_mode")?, mode("ipc")?);
    let shared =
        |mode: &str| mode == "host" || mode.starts_with("service:") || mode.starts_with("container:");
    let own =
        model::OwnNamespaces { network: !shared(&network), ipc: !shared(&ipc), uts: mode("uts")? != "host" };
    let wanted = item.labels()?;
    for (name, value) in &wanted {
        model::sysctl_path(name, value, own).map_err(|error| item.invalid(error.to_string()))?;
    }
    Ok(wanted)
}

/// `label_file` first, `labels` over it.
fn labels(service: &Item<'_>, read: &Reader<'_>) -> Result<Labels, Error> {
    let mut labels = Labels::new();
    if let Some(files) = service.get("label_file") {
        for file in files.items_or_one()? {
            let pairs = read.env_file(&file, &file.string()?, true)?;
            labels.extend(pairs.into_iter().map(|(name, value)| (name, value.unwrap_or_default())));
        }
    }
    labels.extend(optional(service.get("labels"), Item::labels)?.unwrap_or_default());
    Ok(labels)
}

/// `env_file` first, `environment` over it. A name without a value takes the caller's; where the caller has
/// none, it removes the image's. Sorted by name, as Docker does.
fn environment(service: &Item<'_>, read: &Reader<'_>) -> Result<Vec<String>, Error> {
    let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
    let own = |name: &str| read.env(name).map(str::to_owned);
    if let Some(files) = service.get("env_file") {
        for file in files.items_or_one()? {
            for (name, value) in read.variables_of(&file)? {
                let value = value.or_else(|| own(&name));
                // A bare name in a file that the caller does not set means nothing.
                if value.is_some() {
                    all.insert(name, value);
                }
            }
        }
    }
    if let Some(environment) = service.get("environment") {
        for (name, value) in environment.pairs()? {
            if name.is_empty() {
                return Err(environment.invalid("a variable needs a name"));
            }
            let value = value.or_else(|| own(&name));
            all.insert(name, value);
        }
    }
    Ok(all.into_iter().map(|(k, v)| v.map_or(k.clone(), |v| format!("{k}={v}"))).collect())
}

fn healthcheck(item: &Item<'_>) -> Result<Healthcheck, Error> {
    item.only(&["test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"], &[])?;
    let disabled = optional(item.get("disable"), Item::boolean)?.unwrap_or(false);
    let test = match item.get("test") {
        Some(_) if disabled => return Err(item.invalid("\"test\" and \"disable: true\" exclude each other")),
        None if disabled => vec!["NONE".to_owned()],
        None => Vec::new(),
        Some(test) => match &test.node.value {
            Value::Seq(_) => {
                let words = test.strings()?;
                let kind = words.first().map(String::as_str);
                if !matches!(kind, None | Some("NONE" | "CMD" | "CMD-SHELL")) {
                    return Err(test.invalid("the first word of a test is NONE, CMD or CMD-SHELL"));
                }
                words
            }
            _ => vec!["CMD-SHELL".to_owned(), test.string()?],
        },
    };
    Ok(Healthcheck {
        test,
        interval: optional(item.get("interval"), Item::duration)?,
        timeout: optional(item.get("timeout"), Item::duration)?,
        start_period: optional(item.get("start_period"), Item::duration)?,
        start_interval: optional(item.get("start_interval"), Item::duration)?,
        retries: optional(item.get("retries"), Item::integer)?,
    })
}

fn logging(item: &Item<'_>) -> Result<LogDriver, Error> {
    item.only(&["driver", "options"], &[])?;
    Ok(LogDriver {
        name: optional(item.get("driver"), Item::string)?.unwrap_or_default(),
        options: optional(item.get("options"), Item::labels)?.unwrap_or_default(),
    })
}

fn nameservers(item: &Item<'_>) -> Result<Vec<IpAddr>, Error> {
    item.items_or_one()?
        .iter()
        .map(|i| {
            let text = i.string()?;
            text.parse().map_err(|_| i.invalid(format!("{text:?} is not an IP address")))
        })
        .collect()
}

/// Returns names in capitals with `CAP_`, each once, as Docker stores them.
fn capabilities(names: Vec<String>) -> Vec<String> {
    let full = |name: String| {
        let name = name.to_ascii_uppercase();
        if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
    };
    names.into_iter().map(full).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Each network with the service's short name as an alias, in the order of the networks' full names.
fn networks(
    key: &str,
    service: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<Vec<StackAttachment>, Error> {
    if service.get("provider").is_some() {
        return Ok(Vec::new());
    }
    if let Some(item) = service.get("network_mode") {
        if let Some(networks) = service.get("networks") {
            return Err(networks.invalid("\"networks\" and \"network_mode\" exclude each other"));
        }
        if read.on_one_host() {
            return Ok(Vec::new());
        }
        return match item.string()?.as_str() {
            "none" if service.get("ports").is_some() => {
                Err(item.invalid("what has no network cannot publish ports"))
            }
            // The host's own network is everywhere, and so is none at all.
            mode @ ("host" | "none") => {
                let (aliases, address) = (Vec::new(), one_host::Address::default());
                Ok(vec![StackAttachment { network: mode.to_owned(), aliases, address }])
            }
            // A way outside, and nothing else.
            "bridge" => Ok(Vec::new()),
            other if one_host::is_shared(other) => Err(item.unsupported(format!(
                "{other:?} is not possible: tasks of two services may be on two hosts"
            ))),
            other => Err(item.invalid(format!(
                "want host, bridge or none, not {other:?}: a network is named in \"networks\""
            ))),
        };
    }
    let own_name = optional(service.get("container_name"), Item::string)?;
    let linked = defined.links.get(key).map(Vec::as_slice).unwrap_or_default();
    let mut attachments = Vec::new();
    let mut attach =
        |item: &Item<'_>, network: &str, mut aliases: Vec<String>, address| -> Result<(), Error> {
            let full = defined.network(item, network)?;
            for name in
                own_name.iter().map(String::as_str).chain(linked.iter().map(String::as_str)).chain([key])
            {
                if !aliases.iter().any(|a| a == name) {
                    aliases.push(name.to_owned());
                }
            }
            attachments.push(StackAttachment { network: full, aliases, address });
            Ok(())
        };
    match service.get("networks") {
        None => attach(service, "default", Vec::new(), one_host::Address::default())?,
        Some(item) if item.is_map() => {
            for (name, entry, _) in item.entries()? {
                let aliases = optional(entry.get("aliases"), Item::strings)?.unwrap_or_default();
                if read.on_one_host() {
                    attach(&entry, name, aliases, one_host::address(&entry)?)?;
                    continue;
                }
                entry.only(
                    &["aliases"],
                    &[
                        ("ipv4_address", "addresses are given out by the swarm"),
                        ("ipv6_address", "addresses are given out by the swarm"),
                        ("link_local_ips", NOT_YET),
                        ("mac_address", "addresses are given out by the swarm"),
                        ("priority", NOT_YET),
                        ("gw_priority", NOT_YET),
                        ("interface_name", NOT_YET),
                        ("driver_opts", NOT_YET),
                    ],
                )?;
                attach(&entry, name, aliases, one_host::Address::default())?;
            }
        }
        Some(item) => {
            for entry in item.items()? {
                attach(&entry, &entry.string()?, Vec::new(), one_host::Address::default())?;
            }
        }
    }
    attachments.sort_by(|a, b| a.network.cmp(&b.network));
    if let Some(twice) = attachments.windows(2).find(|w| w[0].network == w[1].network) {
        return Err(service.invalid(format!("network {:?} is named twice", twice[0].network)));
    }
    Ok(attachments)
}

/// `secrets` and `configs` of a service.
fn files(
    service: &Item<'_>,
    section: &'static str,
    known: &BTreeMap<String, Item<'_>>,
    defined: &Definitions<'_>,
) -> Result<Vec<FileRef<String>>, Error> {
    let Some(item) = service.get(section) else { return Ok(Vec::new()) };
    let kind = section.trim_end_matches('s');
    let mut refs: Vec<FileRef<String>> = Vec::new();
    for entry in item.items()? {
        let is_long = entry.is_map();
        if is_long {
            entry.only(&["source", "target", "uid", "gid", "mode"], &[])?;
        }
        let source = if is_long {
            entry.get("source").ok_or_else(|| entry.invalid(format!("a {kind} needs a source")))?.string()?
        } else {
            entry.string()?
        };
        let Some(definition) = known.get(&source) else {
            return Err(Error::Undefined {
                at: entry.at(),
                path: entry.path.clone(),
                kind: if section == "secrets" { "secret" } else { "config" },
                suggestion: suggest(&source, known.keys().map(String::as_str)),
                name: source,
            });
        };
        let name = defined.naming(&source, definition)?.name;
        let text = |key: &str, default: &str| {
            optional(entry.get(key), Item::string).map(|v| v.unwrap_or_else(|| default.to_owned()))
        };
        let file = FileRef {
            id: name.clone(),
            name,
            target: if is_long { text("target", &source)? } else { source.clone() },
            uid: if is_long { text("uid", "0")? } else { "0".to_owned() },
            gid: if is_long { text("gid", "0")? } else { "0".to_owned() },
            mode: if is_long { optional(entry.get("mode"), Item::integer)?.unwrap_or(0o444) } else { 0o444 },
        };
        if refs.iter().any(|r| r.target == file.target) {
            return Err(entry.invalid(format!("target {:?} is used twice", file.target)));
        }
        refs.push(file);
    }
    refs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(refs)
}

#[cfg(test)]
mod tests {
    use super::{KNOWN, ONE_HOST, local};
    use crate::{Place, Sources, StackService, load};
    use std::{collections::BTreeMap, path::PathBuf};

    const REST: &str = "  db: {image: b, volumes: ['data:/db']}
networks: {back: {}}
volumes: {data: {}}
secrets: {key: {file: /srv/key}}
configs: {motd: {file: /srv/key}}
";

    /// A value of each key that makes a difference.
    fn sample(key: &str) -> &'static str {
        match key {
            "annotations" | "labels" => "{a: b}",
            "attach" => "false",
            "blkio_config" => "{weight: 20}",
            "build" => ".",
            "cap_add" | "cap_drop" => "[KILL]",
            "cgroup" => "host",
            "ipc" | "uts" | "userns_mode" | "network_mode" | "pid" => "host",
            "configs" => "[motd]",
            "secrets" => "[key]",
            "cpu_period" => "20000",
            "cpu_quota" | "cpu_shares" | "pids_limit" | "mem_swappiness" | "oom_score_adj" | "scale" => "12",
            "cpus" => "'0.5'",
            "cpuset" => "'0'",
            "depends_on" | "links" | "volumes_from" => "[db]",
            "deploy" => "{labels: {a: b}}",
            "develop" => "{watch: [{path: ., action: rebuild}]}",
            "device_cgroup_rules" => "['c 1:3 r']",
            "devices" => "[/dev/fuse]",
            "dns" => "10.0.0.1",
            "dns_opt" => "['ndots:1']",
            "env_file" | "label_file" => "/srv/e.env",
            "environment" => "{A: b}",
            "expose" | "ports" => "['80']",
            "external_links" => "[other]",
            "extra_hosts" => "['db:10.0.0.1']",
            "gpus" => "all",
            "healthcheck" => "{test: [CMD, 'true']}",
            "init" | "oom_kill_disable" | "privileged" | "read_only" | "stdin_open" | "tty" => "true",
            "logging" => "{driver: none}",
            "mac_address" => "02:00:00:00:00:01",
            "mem_limit" | "mem_reservation" | "memswap_limit" | "shm_size" => "64m",
            "models" => "[llm]",
            "networks" => "[back]",
            "platform" => "linux/arm64",
            "post_start" | "pre_stop" => "[{command: [a]}]",
            "profiles" => "[debug]",
            "provider" => "{type: p}",
            "pull_policy" => "always",
            "restart" => "on-failure",
            "runtime" => "runc",
            "security_opt" => "['seccomp=unconfined']",
            "stop_grace_period" => "7s",
            "storage_opt" => "{size: 1g}",
            "sysctls" => "{net.core.somaxconn: 1}",
            "tmpfs" => "/t",
            "ulimits" => "{nofile: 9}",
            "volumes" => "['data:/data']",
            "command" | "container_name" | "dns_search" | "domainname" | "entrypoint" | "hostname"
            | "image" | "stop_signal" | "user" => "word",
            "cgroup_parent" | "working_dir" => "/word",
            "group_add" => "[word]",
            "isolation" => "default",
            other => panic!("no sample of {other}"),
        }
    }

    fn web(place: Place, keys: &str) -> (Option<StackService>, usize) {
        let image = if keys.contains("image:") || keys.contains("provider:") { "" } else { "image: a, " };
        let models = if place == Place::Host { "models: {llm: {model: m}}\n" } else { "" };
        let text = format!("name: shop\nservices:\n  web: {{{image}{keys}}}\n{REST}{models}");
        let files: BTreeMap<PathBuf, Vec<u8>> =
            ["/srv/key", "/srv/e.env"].map(|path| (path.into(), b"A=1\n".to_vec())).into();
        let sources = Sources {
            files: vec![("/srv/compose.yml".into(), text.clone())],
            project_dir: "/srv".into(),
            place,
            profiles: vec!["*".to_owned()],
            ..Sources::default()
        };
        let (stack, warnings) = load(&sources, &files).unwrap_or_else(|error| panic!("{text}: {error}"));
        (stack.services.into_iter().find(|service| service.key == "web"), warnings.len())
    }

    /// A key is read, and changes what is asked for; or it is warned of; or it stands here why it need not.
    #[test]
    fn no_key_is_taken_without_effect() {
        let without = |place, key: &str| match (place, key) {
            // There is one isolation, and its name may be said.
            (_, "isolation") => true,
            // On an overlay network every port is open, and a link is a name that is there.
            (Place::Swarm, "expose" | "links") => true,
            // A deploy asks which image a name means now; an active profile is what deploy asks for.
            (Place::Swarm, "pull_policy" | "profiles") => true,
            _ => false,
        };
        let mut lost = Vec::new();
        for place in [Place::Host, Place::Swarm] {
            let own: &[&str] = if place == Place::Host { ONE_HOST } else { &[] };
            let plain = web(place, "");
            for key in [KNOWN, local::KEYS, own].concat() {
                let with = web(place, &format!("{key}: {}", sample(key)));
                if (with == plain) != without(place, key) {
                    lost.push(format!("{key} ({place:?}): {}", if with == plain { "lost" } else { "works" }));
                }
            }
        }
        assert!(lost.is_empty(), "{}", lost.join("\n"));
    }
}
