//! What a service has of its node for itself beside CPUs and memory: `gpus`, `deploy.resources.reservations.devices`
//! and `.generic_resources`. Source: compose specification, "gpus", "devices"; compose file version 3.5 and later,
//! "generic_resources".

use crate::{Error, read::Item};
use model::{GenericRequests, Want};

/// Says "all" in place of a number. Source: Docker API `DeviceRequest.Count`.
const ALL: i64 = -1;

/// Reads `gpus: all` and `gpus: [{count: 1}]`.
pub(crate) fn gpus(item: &Item<'_>, out: &mut GenericRequests) -> Result<(), Error> {
    if item.items().is_err() {
        if item.string()? != "all" {
            return Err(item.invalid("want all, or a list of requests such as {count: 1}"));
        }
        return add(item, out, "gpu".to_owned(), Want::All);
    }
    item.items()?.iter().try_for_each(|request| device(request, Some("gpu"), out))
}

/// Reads `devices`, which name what they are for.
pub(crate) fn devices(item: &Item<'_>, out: &mut GenericRequests) -> Result<(), Error> {
    item.items()?.iter().try_for_each(|request| device(request, None, out))
}

/// Reads `generic_resources`, which are counted.
pub(crate) fn generic_resources(item: &Item<'_>) -> Result<GenericRequests, Error> {
    let mut out = GenericRequests::new();
    for resource in item.items()? {
        resource.only(&["discrete_resource_spec"], &[])?;
        let Some(spec) = resource.get("discrete_resource_spec") else {
            return Err(resource.invalid("want a discrete_resource_spec"));
        };
        spec.only(&["kind", "value"], &[])?;
        let (Some(kind), Some(value)) = (spec.get("kind"), spec.get("value")) else {
            return Err(spec.invalid("want a kind and a value"));
        };
        add(&spec, &mut out, kind.string()?, Want::Count(at_least_one(&value)?))?;
    }
    Ok(out)
}

/// Adds what is not asked for yet.
pub(crate) fn add_all(
    item: &Item<'_>,
    from: GenericRequests,
    out: &mut GenericRequests,
) -> Result<(), Error> {
    from.into_iter().try_for_each(|(kind, want)| add(item, out, kind, want))
}

/// `class` is what is meant when no capabilities are given.
fn device(item: &Item<'_>, class: Option<&str>, out: &mut GenericRequests) -> Result<(), Error> {
    item.only(
        &["capabilities", "driver", "count", "device_ids"],
        &[("options", "no driver takes options: vendors describe their devices to the node")],
    )?;
    let capabilities = item.get("capabilities").map(|c| c.strings()).transpose()?.unwrap_or_default();
    let driver = item.get("driver").map(|d| d.string()).transpose()?.unwrap_or_default();
    let ids = item.get("device_ids").map(|ids| ids.strings()).transpose()?.unwrap_or_default();
    let count = item.get("count");
    if count.is_some() && !ids.is_empty() {
        return Err(item.invalid("want either count or device_ids, not both"));
    }
    if driver == "cdi" {
        for id in &ids {
            let Some((kind, name)) = id.split_once('=').filter(|(kind, _)| kind.contains('/')) else {
                return Err(item.invalid(format!("want VENDOR/CLASS=NAME as an id of a device, not {id:?}")));
            };
            add_name(item, out, kind, name)?;
        }
        return if ids.is_empty() { Err(item.invalid("the driver cdi wants device_ids")) } else { Ok(()) };
    }
    // `[gpu, utility]`: what is said beside the class is what a driver of NVIDIA's offers anyway.
    let gpu = capabilities.iter().find(|word| *word == "gpu").or(capabilities.first());
    let Some(class) = gpu.map(String::as_str).or(class) else {
        return Err(item.invalid("want capabilities, such as [gpu]"));
    };
    let kind = match driver.as_str() {
        "" => class.to_owned(),
        vendor if vendor.contains('.') => format!("{vendor}/{class}"),
        vendor => format!("{vendor}.com/{class}"),
    };
    if !ids.is_empty() {
        return ids.iter().try_for_each(|id| add_name(item, out, &kind, id));
    }
    let want = match count {
        None => Want::All,
        Some(count) if count.string()? == "all" || count.integer::<i64>()? == ALL => Want::All,
        Some(count) => Want::Count(at_least_one(&count)?),
    };
    add(item, out, kind, want)
}

fn at_least_one(item: &Item<'_>) -> Result<u64, Error> {
    match item.integer::<u64>()? {
        0 => Err(item.invalid("want at least 1")),
        n => Ok(n),
    }
}

fn add(item: &Item<'_>, out: &mut GenericRequests, kind: String, want: Want) -> Result<(), Error> {
    if out.contains_key(&kind) {
        return Err(item.invalid(format!("{kind} is asked for twice")));
    }
    out.insert(kind, want);
    Ok(())
}

fn add_name(item: &Item<'_>, out: &mut GenericRequests, kind: &str, name: &str) -> Result<(), Error> {
    match out.get_mut(kind) {
        Some(Want::These(names)) => {
            names.insert(name.to_owned());
            Ok(())
        }
        _ => add(item, out, kind.to_owned(), Want::These([name.to_owned()].into())),
    }
}
