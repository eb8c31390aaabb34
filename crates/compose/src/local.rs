//! Keys of a service that were made for one host, and what they mean on every host. Source: compose specification
//! "services".

use crate::{
    Error, one_host,
    read::{Item, Reader, optional},
    tree::Value,
};
use model::{DeviceMapping, HostOptions};

/// The keys that are read here.
pub(crate) const KEYS: &[&str] = &[
    "annotations",
    "blkio_config",
    "cgroup",
    "cgroup_parent",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpuset",
    "device_cgroup_rules",
    "devices",
    "domainname",
    "ipc",
    "isolation",
    "mem_swappiness",
    "memswap_limit",
    "oom_kill_disable",
    "pid",
    "runtime",
    "security_opt",
    "userns_mode",
    "uts",
];

/// Reads what a container shares with its host or gets of it.
pub(crate) fn read(service: &Item<'_>, read: &Reader<'_>) -> Result<Option<HostOptions>, Error> {
    let text = |key: &str| optional(service.get(key), Item::string);
    let list = |key: &str| optional(service.get(key), Item::strings).map(Option::unwrap_or_default);
    let number = |key: &str| optional(service.get(key), Item::integer::<u64>).map(Option::unwrap_or_default);
    if let Some(item) = service.get("isolation") {
        item.one_of(&[("host", ()), ("default", ())])?;
    }
    let host = HostOptions {
        devices: optional(service.get("devices"), devices)?.unwrap_or_default(),
        device_cgroup_rules: list("device_cgroup_rules")?,
        ipc: namespace(service, "ipc", &["host", "private", "shareable", "none"], read)?,
        pid: namespace(service, "pid", &["host"], read)?,
        uts: namespace(service, "uts", &["host"], read)?,
        users: namespace(service, "userns_mode", &["host", "private", "default"], read)?
            .filter(|mode| mode != "default"),
        cgroup: namespace(service, "cgroup", &["host", "private"], read)?,
        cgroup_parent: text("cgroup_parent")?,
        domainname: text("domainname")?,
        runtime: optional(service.get("runtime"), runtime)?,
        security_opts: optional(service.get("security_opt"), security)?.unwrap_or_default(),
        annotations: optional(service.get("annotations"), Item::labels)?.unwrap_or_default(),
        cpu_shares: number("cpu_shares")?,
        cpu_period: optional(service.get("cpu_period"), micros)?.unwrap_or_default(),
        cpu_quota: optional(service.get("cpu_quota"), micros)?
            .map(|quota| i64::try_from(quota).unwrap_or(i64::MAX))
            .unwrap_or_default(),
        cpuset: text("cpuset")?.unwrap_or_default(),
        memory_swap_bytes: optional(service.get("memswap_limit"), swap)?.unwrap_or_default(),
        memory_swappiness: optional(service.get("mem_swappiness"), |i| within(i, 0, 100))?,
        blkio_weight: optional(service.get("blkio_config"), weight)?.unwrap_or_default(),
        oom_kill_disable: optional(service.get("oom_kill_disable"), Item::boolean)?.unwrap_or(false),
    };
    Ok((host != HostOptions::default()).then_some(host))
}

fn namespace(
    service: &Item<'_>,
    key: &str,
    known: &[&str],
    read: &Reader<'_>,
) -> Result<Option<String>, Error> {
    let Some(item) = service.get(key) else { return Ok(None) };
    let value = item.string()?;
    if one_host::is_shared(&value) {
        if read.on_one_host() {
            return Ok(None);
        }
        return Err(
            item.unsupported(format!("{value:?} is not possible: tasks of two services may be on two hosts"))
        );
    }
    if known.contains(&value.as_str()) || value.is_empty() {
        return Ok(Some(value).filter(|v| !v.is_empty()));
    }
    Err(item.invalid(format!("want one of {}, not {value:?}", known.join(", "))))
}

/// A number, or a duration.
fn micros(item: &Item<'_>) -> Result<u64, Error> {
    match item.integer::<u64>() {
        Ok(number) => Ok(number),
        Err(_) => u64::try_from(item.duration()?.as_micros()).map_err(|_| item.invalid("out of range")),
    }
}

fn within(item: &Item<'_>, least: u32, most: u32) -> Result<u32, Error> {
    let number = item.integer::<u32>()?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(item.invalid(format!("want {least} to {most}, not {number}")))
}

/// There is one runtime, under the name that everybody writes.
fn runtime(item: &Item<'_>) -> Result<String, Error> {
    match item.string()?.as_str() {
        name @ ("runc" | "io.containerd.runc.v2") => Ok(name.to_owned()),
        other => Err(item.invalid(format!("there is no runtime {other:?}: nodes have one of their own"))),
    }
}

/// -1, or a size.
fn swap(item: &Item<'_>) -> Result<i64, Error> {
    if item.node.scalar().as_deref() == Some("-1") {
        return Ok(-1);
    }
    i64::try_from(item.bytes()?).map_err(|_| item.invalid("out of range"))
}

fn weight(item: &Item<'_>) -> Result<u32, Error> {
    const WHY: &str = "limits per device are not implemented yet";
    item.only(
        &["weight"],
        &[
            ("weight_device", WHY),
            ("device_read_bps", WHY),
            ("device_read_iops", WHY),
            ("device_write_bps", WHY),
            ("device_write_iops", WHY),
        ],
    )?;
    Ok(optional(item.get("weight"), |i| within(i, 10, 1000))?.unwrap_or(0))
}

/// `host[:container[:rwm]]`, or the long form.
fn devices(item: &Item<'_>) -> Result<Vec<DeviceMapping>, Error> {
    let one = |device: &Item<'_>| {
        if device.is_map() {
            device.only(&["source", "target", "permissions"], &[])?;
            let source = device
                .get("source")
                .ok_or_else(|| device.invalid("a device needs a \"source\""))?
                .string()?;
            return Ok(DeviceMapping {
                container_path: optional(device.get("target"), Item::string)?
                    .unwrap_or_else(|| source.clone()),
                permissions: optional(device.get("permissions"), Item::string)?
                    .unwrap_or_else(|| "rwm".to_owned()),
                host_path: source,
            });
        }
        let text = device.string()?;
        let mut parts = text.split(':');
        let host_path = parts.next().unwrap_or_default().to_owned();
        if !host_path.starts_with('/') {
            return Err(
                device.invalid(format!("{text:?} is no path of a device; CDI names are not implemented yet"))
            );
        }
        let container_path = parts.next().map_or_else(|| host_path.clone(), str::to_owned);
        let permissions = parts.next().unwrap_or("rwm").to_owned();
        if parts.next().is_some() || !permissions.chars().all(|c| "rwm".contains(c)) {
            return Err(device.invalid(format!("invalid device {text:?}: want HOST[:CONTAINER[:rwm]]")));
        }
        Ok(DeviceMapping { host_path, container_path, permissions })
    };
    item.items()?.iter().map(one).collect()
}

/// `no-new-privileges` has a field of its own.
fn security(item: &Item<'_>) -> Result<Vec<String>, Error> {
    let mut options = Vec::new();
    for option in item.items()? {
        let text = option.string()?;
        let name = text.split(['=', ':']).next().unwrap_or_default();
        match name {
            "no-new-privileges" => {}
            "seccomp" | "apparmor" | "label" | "systempaths" => options.push(text.replacen(':', "=", 1)),
            _ => return Err(option.invalid(format!("unknown security option {text:?}"))),
        }
    }
    Ok(options)
}

/// True when the options say that a program must not gain privileges.
pub(crate) fn no_new_privileges(item: &Item<'_>) -> Result<bool, Error> {
    let options = item.strings()?;
    let last = options.iter().rev().find_map(|o| o.strip_prefix("no-new-privileges"));
    Ok(last.is_some_and(|value| !value.ends_with("false")))
}

/// Keys that say something of one host's tools and nothing of a service: they are checked, and that is all.
pub(crate) fn check_tooling(service: &Item<'_>, read: &Reader<'_>) -> Result<(), Error> {
    if let Some(item) = service.get("attach") {
        item.boolean()?;
    }
    if let Some(item) = service.get("pull_policy") {
        match item.string()?.as_str() {
            // A deploy asks which image a name means now, and every node has that one.
            "always" | "missing" | "if_not_present" => {}
            "build" if service.get("build").is_some() => {}
            other => {
                return Err(item.invalid(format!(
                    "want always, missing, if_not_present, or build beside \"build\"; {other:?} is not possible here"
                )));
            }
        }
    }
    if let Some(item) = service.get("container_name") {
        item.string()?;
        read.warn(
            &item.node.at,
            "containers are named after their tasks; this is one more name on its networks".into(),
        );
    }
    if let Some(item) = service.get("develop")
        && !matches!(item.node.value, Value::Map(_))
    {
        return Err(item.invalid(format!("want a mapping, not {}", item.node.kind())));
    }
    for key in ["attach", "develop"] {
        if let Some(item) = service.get(key) {
            read.warn(&item.node.at, format!("{key:?} says nothing of a service in a swarm"));
        }
    }
    Ok(())
}
