//! `depends_on`. Source: compose specification "depends_on".

use crate::{
    Error,
    definitions::Definitions,
    error::suggest,
    one_host,
    read::{Item, Reader, optional},
};
use model::{Dependency, DependencyCondition};
use std::collections::BTreeMap;

pub(crate) fn read(
    service: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<Vec<Dependency>, Error> {
    let mut dependencies = Vec::new();
    let Some(item) = service.get("depends_on") else {
        add_needs(service, defined, read, &mut dependencies)?;
        return Ok(dependencies);
    };
    if item.is_map() {
        for (name, entry, at) in item.entries()? {
            let (condition, required) = long(&entry, read)?;
            if !required && !defined.services.contains_key(name) {
                read.warn(at, format!("optional dependency {name:?} is not defined"));
                continue;
            }
            dependencies.push(dependency(&entry, name, condition, defined)?);
        }
    } else {
        for entry in item.items()? {
            let name = entry.string()?;
            dependencies.push(dependency(&entry, &name, DependencyCondition::Started, defined)?);
        }
    }
    add_needs(service, defined, read, &mut dependencies)?;
    Ok(dependencies)
}

/// On one host what a service shares with another must be there before it.
fn add_needs(
    service: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
    dependencies: &mut Vec<Dependency>,
) -> Result<(), Error> {
    if !read.on_one_host() {
        return Ok(());
    }
    for need in one_host::needs(service, defined)? {
        let service = defined.full_name(&need);
        if !dependencies.iter().any(|d| d.service == service) {
            dependencies.push(Dependency { service, condition: DependencyCondition::Started });
        }
    }
    Ok(())
}

fn long(entry: &Item<'_>, read: &Reader<'_>) -> Result<(DependencyCondition, bool), Error> {
    entry.only(&["condition", "required", "restart"], &[])?;
    if let Some(restart) = entry.get("restart")
        && restart.boolean()?
        && !read.on_one_host()
    {
        return Err(restart.invalid("restarting with a dependency is not implemented yet"));
    }
    let condition = optional(entry.get("condition"), |c| {
        c.one_of(&[
            ("service_started", DependencyCondition::Started),
            ("service_healthy", DependencyCondition::Healthy),
            ("service_completed_successfully", DependencyCondition::CompletedSuccessfully),
        ])
    })?;
    let required = optional(entry.get("required"), Item::boolean)?.unwrap_or(true);
    Ok((condition.unwrap_or(DependencyCondition::Started), required))
}

fn dependency(
    entry: &Item<'_>,
    name: &str,
    condition: DependencyCondition,
    defined: &Definitions<'_>,
) -> Result<Dependency, Error> {
    if defined.services.contains_key(name) {
        return Ok(Dependency { service: defined.full_name(name), condition });
    }
    Err(Error::Undefined {
        at: entry.at(),
        path: entry.path.clone(),
        kind: "service",
        name: name.to_owned(),
        suggestion: suggest(name, defined.services.keys().map(String::as_str)),
    })
}

/// Services that wait for each other would never start.
pub(crate) fn refuse_circles(
    services: &Item<'_>,
    needs: &BTreeMap<String, Vec<String>>,
) -> Result<(), Error> {
    for start in needs.keys() {
        if let Some(mut circle) = circle_through(start, needs) {
            circle.push(start.clone());
            let item = services.get(start).unwrap_or_else(|| services.clone());
            let item = item.get("depends_on").unwrap_or(item);
            return Err(Error::Circle {
                at: item.at(),
                path: item.path.clone(),
                circle: circle.join(" -> "),
            });
        }
    }
    Ok(())
}

/// Returns the way from a service back to itself.
fn circle_through(start: &str, needs: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen: Vec<String> = Vec::new();
    while let Some(way) = ways.pop() {
        let next = needs.get(way.last()?).into_iter().flatten();
        for name in next {
            if name == start {
                return Some(way);
            }
            if !seen.contains(name) {
                seen.push(name.clone());
                let mut longer = way.clone();
                longer.push(name.clone());
                ways.push(longer);
            }
        }
    }
    None
}
