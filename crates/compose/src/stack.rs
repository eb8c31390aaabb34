//! The stack as a whole: its name, its sections, and what names in it mean.

use crate::{
    Error, HostNetwork, Place, Sources, Stack, StackConfig, StackNetwork, StackSecret, StackService,
    definitions::{Definitions, Naming, Section},
    depend,
    error::suggest,
    mounts, one_host, provide,
    read::{Item, Reader, optional},
    service,
    tree::{Node, Value},
};
use model::{Labels, NetworkDriver, NetworkSpec, SecretBytes};
use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

/// Resolves; what cannot be honoured is taken out with a warning, if the caller will have it so.
pub(crate) fn resolve_leniently(
    mut tree: Node,
    sources: &Sources,
    read: &Reader<'_>,
) -> Result<Stack, Error> {
    without_profiles(&mut tree, &sources.profiles, true)?;
    loop {
        match resolve(tree.clone(), sources, read) {
            Err(Error::UnsupportedKey { at, path, key, why })
                if sources.lenient && take_out(&mut tree, &at) =>
            {
                read.warn(&at, format!("{path}: {key:?} is left out: {why}"));
            }
            Err(Error::Unsupported { at, path, text })
                if sources.lenient && take_value_out(&mut tree, &at) =>
            {
                read.warn(&at, format!("{path} is left out: {text}"));
            }
            result => return result,
        }
    }
}

fn take_out(node: &mut Node, at: &crate::At) -> bool {
    match &mut node.value {
        Value::Map(entries) => {
            let before = entries.len();
            entries.retain(|e| e.at != *at);
            entries.len() < before || entries.iter_mut().any(|e| take_out(&mut e.node, at))
        }
        Value::Seq(items) => items.iter_mut().any(|item| take_out(item, at)),
        _ => false,
    }
}

/// Takes out the entry of a scalar, or an item of a list.
fn take_value_out(node: &mut Node, at: &crate::At) -> bool {
    match &mut node.value {
        Value::Map(entries) => {
            let before = entries.len();
            // A mapping begins where its first key does: that is not the value that is meant.
            let is_meant =
                |node: &Node| node.at == *at && !matches!(node.value, Value::Map(_) | Value::Seq(_));
            entries.retain(|e| !is_meant(&e.node));
            entries.len() < before || entries.iter_mut().any(|e| take_value_out(&mut e.node, at))
        }
        Value::Seq(items) => {
            let before = items.len();
            items.retain(|item| item.at != *at);
            items.len() < before || items.iter_mut().any(|item| take_value_out(item, at))
        }
        _ => false,
    }
}

/// Takes out the services whose profiles nobody asked for; `strict`: nobody else may need them. Source: compose
/// specification "Profiles".
pub(crate) fn without_profiles(tree: &mut Node, asked: &[String], strict: bool) -> Result<(), Error> {
    let mut off = BTreeMap::new();
    let mut needed = Vec::new();
    for (key, service, _) in Item::root(tree).get("services").map_or(Ok(Vec::new()), |s| s.entries())? {
        let profiles = optional(service.get("profiles"), Item::strings)?.unwrap_or_default();
        let on = profiles.is_empty() || profiles.iter().any(|p| asked.iter().any(|a| a == p || a == "*"));
        if on {
            if let Some(depends) = service.get("depends_on") {
                if depends.is_map() {
                    for (name, entry, _) in depends.entries()? {
                        if optional(entry.get("required"), Item::boolean)?.unwrap_or(true) {
                            needed.push((name.to_owned(), entry.at(), format!("services.{key}.depends_on")));
                        }
                    }
                } else {
                    for entry in depends.items()? {
                        needed.push((entry.string()?, entry.at(), format!("services.{key}.depends_on")));
                    }
                }
            }
        } else {
            off.insert(key.to_owned(), profiles);
        }
    }
    if strict
        && let Some((name, at, path, profiles)) =
            needed.into_iter().find_map(|(name, at, path)| Some((name.clone(), at, path, off.get(&name)?)))
    {
        let text = format!(
            "service {name:?} is there only with profile {}; hint: --profile {}",
            profiles.join(" or "),
            profiles[0]
        );
        return Err(Error::Invalid { at, path, text });
    }
    let Value::Map(sections) = &mut tree.value else { return Ok(()) };
    for section in sections.iter_mut().filter(|s| s.key == "services") {
        if let Value::Map(services) = &mut section.node.value {
            services.retain(|s| !off.contains_key(&s.key));
        }
    }
    Ok(())
}

pub(crate) fn resolve(tree: Node, sources: &Sources, read: &Reader<'_>) -> Result<Stack, Error> {
    let root = Item::root(&tree);
    let sections = ["name", "version", "services", "networks", "volumes", "secrets", "configs", "models"];
    match sources.place {
        Place::Host => root.only(&sections, &[])?,
        Place::Swarm => root.only(&sections[..7], &[("models", "nodes do not run models")])?,
    }
    if let Some(version) = root.get("version") {
        read.warn(&version.node.at, "the attribute \"version\" is obsolete and ignored".to_owned());
    }
    let section = |name: &str| -> Result<Section<'_>, Error> {
        let Some(item) = root.get(name) else { return Ok(Section::new()) };
        let entries = item.entries()?;
        Ok(entries
            .into_iter()
            .filter(|(k, _, _)| !k.starts_with("x-"))
            .map(|(k, i, _)| (k.to_owned(), i))
            .collect())
    };
    let services = section("services")?;
    let defined = Definitions {
        stack: stack_name(&root, sources)?,
        place: sources.place,
        underscores: sources.underscores,
        links: links(&services)?,
        services,
        networks: section("networks")?,
        volumes: section("volumes")?,
        secrets: section("secrets")?,
        configs: section("configs")?,
        models: section("models")?,
        used_networks: RefCell::default(),
    };
    if defined.services.is_empty() {
        return Err(root.invalid("the file defines no services"));
    }
    let mut services = Vec::new();
    for (key, item) in &defined.services {
        check_key(item, key)?;
        services.push(service::read(key, item, &defined, read)?);
    }
    refuse_circles(&root, &defined, &services)?;
    let mut all_volumes = Vec::new();
    if sources.all_resources {
        for (key, item) in &defined.volumes {
            all_volumes.push(mounts::named(item, key, false, &defined)?);
        }
    }
    let stack = Stack {
        name: defined.stack.clone(),
        all_volumes,
        networks: networks(&defined, read, sources.all_resources)?,
        secrets: secrets(&defined, read)?,
        configs: configs(&defined, read)?,
        services,
        models: provide::models(&defined)?,
        resolved: tree.clone(),
    };
    check_volumes(&defined)?;
    Ok(stack)
}

/// `links: [db:database]`: `db` has one more name on its networks.
fn links(services: &Section<'_>) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for link in services.values().filter_map(|service| service.get("links")) {
        for item in link.items()? {
            let text = item.string()?;
            let (to, alias) = text.split_once(':').unwrap_or((&text, &text));
            if !services.contains_key(to) {
                return Err(Error::Undefined {
                    at: item.at(),
                    path: item.path.clone(),
                    kind: "service",
                    name: to.to_owned(),
                    suggestion: suggest(to, services.keys().map(String::as_str)),
                });
            }
            all.entry(to.to_owned()).or_default().push(alias.to_owned());
        }
    }
    Ok(all)
}

/// Service names become DNS names.
fn check_key(item: &Item<'_>, key: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if key.is_empty() || !key.chars().all(fine) {
        return Err(item.invalid(format!("{key:?} is no name: use letters, digits, '.', '_' and '-'")));
    }
    Ok(())
}

fn refuse_circles(
    root: &Item<'_>,
    defined: &Definitions<'_>,
    services: &[StackService],
) -> Result<(), Error> {
    let key_of = |full: &str| defined.services.keys().find(|k| defined.full_name(k) == full).cloned();
    let needs = services
        .iter()
        .map(|s| (s.key.clone(), s.spec.depends_on.iter().filter_map(|d| key_of(&d.service)).collect()))
        .collect();
    depend::refuse_circles(&root.get("services").unwrap_or_else(|| root.clone()), &needs)
}

/// The caller's name, else the file's, else that of the folder.
pub(crate) fn stack_name(root: &Item<'_>, sources: &Sources) -> Result<String, Error> {
    let in_file = optional(root.get("name"), Item::string)?.filter(|n| !n.is_empty());
    let name = match sources.name.clone().or(in_file) {
        Some(name) => name,
        None => {
            let folder = sources.project_dir.file_name().map(|n| n.to_string_lossy().into_owned());
            let folder = sources.fallback_name.clone().or(folder).map(|name| name.to_lowercase());
            let fine = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
            let name: String = folder.unwrap_or_default().chars().filter(fine).collect();
            name.trim_start_matches(['-', '_']).to_owned()
        }
    };
    let first_fits = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let rest_fits =
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
    if first_fits && rest_fits { Ok(name) } else { Err(Error::Name { name }) }
}

fn networks(defined: &Definitions<'_>, read: &Reader<'_>, all: bool) -> Result<Vec<StackNetwork>, Error> {
    let mut used = defined.used_networks.borrow().clone();
    let mut networks = Vec::new();
    for (key, item) in &defined.networks {
        let network = network(key, item, defined, read)?; // also when unused: mistakes must show
        if used.remove(key) || all {
            networks.push(network);
        } else {
            read.warn(&item.node.at, format!("network {key:?} is not used by any service"));
        }
    }
    // What is left has no definition.
    networks.extend(used.into_iter().map(|key| {
        let name = defined.full_name(&key);
        let labels = defined.with_namespace(Labels::new());
        let (spec, host) = match defined.place {
            Place::Swarm => (Some(overlay(name.clone(), labels)), None),
            Place::Host => (None, Some(HostNetwork { labels, ..HostNetwork::default() })),
        };
        StackNetwork { key, name, external: false, spec, host }
    }));
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}

fn overlay(name: String, labels: Labels) -> NetworkSpec {
    NetworkSpec { labels, ..NetworkSpec::new(name, NetworkDriver::Overlay) }
}

fn network(
    key: &str,
    item: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<StackNetwork, Error> {
    let on_one_host = defined.place == Place::Host;
    let unsupported: &[_] = if on_one_host { &[] } else { &[("enable_ipv4", "not implemented yet")] };
    let known: Vec<&str> = one_host::NETWORK_KEYS
        .iter()
        .copied()
        .filter(|key| !unsupported.iter().any(|(other, _)| other == key))
        .collect();
    item.only(&known, unsupported)?;
    let Naming { name, external } = defined.naming(key, item)?;
    let mut network = StackNetwork { key: key.to_owned(), name, external, spec: None, host: None };
    if external {
        return Ok(network);
    }
    let labels = optional(item.get("labels"), Item::labels)?.unwrap_or_default();
    let labels = defined.with_namespace(labels);
    if on_one_host {
        network.host = Some(one_host::network(item, labels)?);
        return Ok(network);
    }
    let mut spec = overlay(network.name.clone(), labels);
    if let Some(driver) = item.get("driver") {
        let text = driver.string()?;
        if matches!(text.as_str(), "bridge" | "default") {
            // One host's default; here its services may be on several.
            read.warn(
                &driver.node.at,
                format!("network {key:?} is an overlay network, so that it spans all hosts"),
            );
        } else if text != "overlay" {
            let why = format!("driver {text:?} cannot be used by a stack: services need an overlay network");
            return Err(driver.invalid(why));
        }
    }
    if let Some(options) = item.get("driver_opts") {
        for (option, value, at) in options.entries()? {
            match option {
                // Present means encrypted, unless it says not.
                "encrypted" if value.is_null() || value.string()?.is_empty() || value.boolean()? => {
                    return Err(Error::UnsupportedKey {
                        at: at.clone(),
                        path: options.path.clone(),
                        key: option.to_owned(),
                        why: "packets between hosts are not encrypted yet",
                    });
                }
                "encrypted" => {}
                "com.docker.network.driver.mtu" => {
                    value.integer::<u16>()?;
                }
                _ => {
                    return Err(Error::UnknownKey {
                        at: at.clone(),
                        path: options.path.clone(),
                        key: option.to_owned(),
                        suggestion: suggest(option, ["encrypted", "com.docker.network.driver.mtu"]),
                    });
                }
            }
            spec.options.insert(
                option.to_owned(),
                optional(Some(value).filter(|v| !v.is_null()), Item::string)?.unwrap_or_default(),
            );
        }
    }
    let flag = |key: &str| optional(item.get(key), Item::boolean).map(Option::unwrap_or_default);
    spec.attachable = flag("attachable")?;
    spec.internal = flag("internal")?;
    if flag("enable_ipv6")?
        && let Some(ipv6) = item.get("enable_ipv6")
    {
        return Err(ipv6.unsupported("overlay networks have no IPv6 yet"));
    }
    if let Some(ipam) = item.get("ipam") {
        addresses(&ipam, &mut spec)?;
    }
    network.spec = Some(spec);
    Ok(network)
}

fn addresses(ipam: &Item<'_>, spec: &mut NetworkSpec) -> Result<(), Error> {
    ipam.only(&["driver", "config"], &[("options", "not implemented yet")])?;
    if let Some(driver) = ipam.get("driver")
        && driver.string()? != "default"
    {
        return Err(driver.invalid("only the default address manager exists"));
    }
    let Some(configs) = ipam.get("config") else { return Ok(()) };
    let configs = configs.items()?;
    if let Some(second) = configs.get(1) {
        return Err(second.invalid("one subnet per network is implemented"));
    }
    for config in configs {
        config.only(&["subnet", "gateway", "ip_range"], &[("aux_addresses", "not implemented yet")])?;
        spec.subnet = optional(config.get("subnet"), |i| i.parsed_as("a network such as 10.0.0.0/24"))?;
        spec.gateway = optional(config.get("gateway"), |i| i.parsed_as("an IP address"))?;
        spec.ip_range = optional(config.get("ip_range"), |i| i.parsed_as("a network such as 10.0.0.0/25"))?;
        let Some(subnet) = spec.subnet else {
            return Err(config.invalid("an address configuration needs a subnet"));
        };
        if spec.gateway.is_some_and(|g| !subnet.contains(&g))
            || spec.ip_range.is_some_and(|r| !subnet.contains(&r))
        {
            return Err(config.invalid(format!("gateway and ip_range must lie in {subnet}")));
        }
    }
    Ok(())
}

fn secrets(defined: &Definitions<'_>, read: &Reader<'_>) -> Result<Vec<StackSecret>, Error> {
    let mut secrets = Vec::new();
    for (key, item) in &defined.secrets {
        item.only(
            &["name", "external", "file", "environment", "labels", "template_driver"],
            &[("driver", "not implemented yet"), ("driver_opts", "not implemented yet")],
        )?;
        let Content { naming, labels, data, file, templated } = content(key, item, defined, read, "secrets")?;
        let data = data.map(SecretBytes);
        secrets.push(StackSecret {
            key: key.clone(),
            name: naming.name,
            external: naming.external,
            labels,
            data,
            file,
            templated,
        });
    }
    Ok(secrets)
}

fn configs(defined: &Definitions<'_>, read: &Reader<'_>) -> Result<Vec<StackConfig>, Error> {
    let mut configs = Vec::new();
    for (key, item) in &defined.configs {
        item.only(&["name", "external", "file", "content", "environment", "labels", "template_driver"], &[])?;
        let Content { naming, labels, data, file, templated } = content(key, item, defined, read, "configs")?;
        configs.push(StackConfig {
            key: key.clone(),
            name: naming.name,
            external: naming.external,
            labels,
            data,
            file,
            templated,
        });
    }
    Ok(configs)
}

struct Content {
    naming: Naming,
    labels: Labels,
    data: Option<Vec<u8>>,
    file: Option<PathBuf>,
    templated: bool,
}

/// Reads `template_driver`.
fn templated(item: &Item<'_>, defined: &Definitions<'_>) -> Result<bool, Error> {
    let Some(driver) = item.get("template_driver") else { return Ok(false) };
    match driver.string()?.as_str() {
        "golang" if defined.place == Place::Host => {
            Err(driver.invalid("only the tasks of a stack have what a template asks for"))
        }
        "golang" => Ok(true),
        other => Err(driver.invalid(format!("unknown template driver {other:?}: golang is known"))),
    }
}

/// Exactly one of `file`, `content`, `environment` and `external` says what is in it.
fn content(
    key: &str,
    item: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
    section: &str,
) -> Result<Content, Error> {
    let inline = section == "configs";
    let naming = defined.naming(key, item)?;
    if naming.external {
        return Ok(Content { naming, labels: Labels::new(), data: None, file: None, templated: false });
    }
    let words =
        if inline { "file, content, environment or external" } else { "file, environment or external" };
    let sources: Vec<_> =
        ["file", "content", "environment"].iter().filter_map(|k| Some((*k, item.get(k)?))).collect();
    let [(kind, source)] = sources.as_slice() else {
        return Err(item.invalid(format!("want exactly one of {words}")));
    };
    let text = source.string()?;
    let labels = optional(item.get("labels"), Item::labels)?.unwrap_or_default();
    let labels = defined.with_namespace(labels);
    let templated = templated(item, defined)?;
    if *kind == "file" && defined.place == Place::Host {
        return Ok(Content { naming, labels, data: None, file: Some(read.path(&text)), templated: false });
    }
    let data = match *kind {
        "file" => read.file(source, &text)?,
        "content" => text.into_bytes(),
        _ => match read.included(section, key).or_else(|| read.env(&text).map(str::to_owned)) {
            Some(value) => value.into_bytes(),
            // Looking at a project needs no secrets.
            None if defined.place == Place::Host => {
                read.warn(&source.node.at, format!("variable {text} is not set: {key:?} has no content"));
                return Ok(Content { naming, labels, data: None, file: None, templated: false });
            }
            None => {
                return Err(Error::Undefined {
                    at: source.at(),
                    path: source.path.clone(),
                    kind: "environment variable",
                    name: text,
                    suggestion: None,
                });
            }
        },
    };
    // Source: swarmkit api/validation/secrets.go and configs.
    let limit = if inline { 1000 * 1024 } else { 500 * 1024 };
    if data.len() >= limit || (data.is_empty() && !inline) {
        return Err(
            source.invalid(format!("want more than 0 and less than {limit} bytes, not {}", data.len()))
        );
    }
    Ok(Content { naming, labels, data: Some(data), file: None, templated })
}

/// Volumes are made by the nodes that use them; here they are only checked.
fn check_volumes(defined: &Definitions<'_>) -> Result<(), Error> {
    for (key, item) in &defined.volumes {
        item.only(&["driver", "driver_opts", "external", "labels", "name"], &[])?;
        defined.naming(key, item)?;
    }
    Ok(())
}
