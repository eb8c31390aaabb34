//! `volumes` and `tmpfs`. Source: compose specification "volumes"; docker/cli `cli/compose/loader/volume.go`.

use crate::{
    Error,
    definitions::Definitions,
    error::suggest,
    read::{Item, Reader, optional},
    tree::{Node, Value},
};
use model::{BindRecursion, Labels, Mount, MountKind};

pub(crate) fn read(
    service: &Item<'_>,
    defined: &Definitions<'_>,
    read: &Reader<'_>,
) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    if let Some(volumes) = service.get("volumes") {
        for item in volumes.items()? {
            mounts.push(if item.is_map() {
                long(&item, defined, read)?
            } else {
                short(&item, defined, read)?
            });
        }
    }
    if let Some(tmpfs) = service.get("tmpfs") {
        for item in tmpfs.items_or_one()? {
            mounts.push(memory(&item)?);
        }
    }
    // On one host the daemon takes them from the containers, those without a name too.
    if let Some(services) = service.get("volumes_from").filter(|_| !read.on_one_host()) {
        for item in services.items()? {
            for mount in from_service(&item, defined, read)? {
                if !mounts.iter().any(|m| m.target == mount.target) {
                    mounts.push(mount);
                }
            }
        }
    }
    for (i, mount) in mounts.iter().enumerate() {
        if mounts[..i].iter().any(|m| m.target == mount.target) {
            return Err(service.invalid(format!("duplicate mount point: {}", mount.target)));
        }
    }
    Ok(mounts)
}

/// `SERVICE[:ro]`: the mounts that another service names itself.
fn from_service(item: &Item<'_>, defined: &Definitions<'_>, read: &Reader<'_>) -> Result<Vec<Mount>, Error> {
    let text = item.string()?;
    if text.starts_with("container:") {
        return Err(item.invalid(format!("{text:?} is no service of this file")));
    }
    let (name, mode) = text.split_once(':').unwrap_or((&text, "rw"));
    let Some(other) = defined.services.get(name) else {
        return Err(Error::Undefined {
            at: item.at(),
            path: item.path.clone(),
            kind: "service",
            name: name.to_owned(),
            suggestion: suggest(name, defined.services.keys().map(String::as_str)),
        });
    };
    if other.get("volumes_from").is_some() {
        return Err(
            item.invalid(format!("service {name:?} has its volumes from another one itself: name that one"))
        );
    }
    let mut mounts = self::read(other, defined, read)?;
    mounts.iter_mut().for_each(|m| m.read_only |= mode == "ro");
    Ok(mounts)
}

/// Returns where a mount appears in the container; for merging.
pub(crate) fn target_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Map(_) => node.get("target").and_then(Node::scalar),
        _ => {
            let text = node.scalar()?;
            let parts: Vec<&str> = text.split(':').collect();
            Some((*parts.get(1).unwrap_or(parts.first()?)).to_owned())
        }
    }
}

/// `[SOURCE:]TARGET[:OPTIONS]`. A source that looks like a path is a bind, another the name of a volume.
fn short(item: &Item<'_>, defined: &Definitions<'_>, read: &Reader<'_>) -> Result<Mount, Error> {
    let text = item.string()?;
    let parts: Vec<&str> = text.split(':').collect();
    let bad = |why: String| item.invalid(format!("invalid volume {text:?}: {why}"));
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(bad("want [SOURCE:]TARGET[:OPTIONS]".to_owned())),
    };
    if source.is_some_and(str::is_empty) || !target.starts_with('/') {
        return Err(bad("the target must be an absolute path".to_owned()));
    }
    let (mut read_only, mut no_copy, mut propagation) = (false, false, None);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => no_copy = true,
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                propagation = Some(option.to_owned());
            }
            "cached" | "delegated" | "consistent" | "z" | "Z" => {
                read.warn(&item.node.at, format!("{option:?} has no effect here"));
            }
            other => return Err(bad(format!("unknown option {other:?}"))),
        }
    }
    let kind = match source {
        None => volume(None, no_copy),
        Some(source) if is_path(source) => MountKind::Bind {
            source: read.path(source).to_string_lossy().into_owned(),
            propagation,
            create: true,
            recursion: BindRecursion::Enabled,
        },
        Some(name) => named(item, name, no_copy, defined)?,
    };
    Ok(Mount { kind, target: target.to_owned(), read_only })
}

fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

fn volume(name: Option<String>, no_copy: bool) -> MountKind {
    MountKind::Volume { name, driver: None, driver_opts: Labels::new(), labels: Labels::new(), no_copy }
}

/// A volume from the top-level section.
pub(crate) fn named(
    item: &Item<'_>,
    key: &str,
    no_copy: bool,
    defined: &Definitions<'_>,
) -> Result<MountKind, Error> {
    let Some(definition) = defined.volumes.get(key) else {
        return Err(Error::Undefined {
            at: item.at(),
            path: item.path.clone(),
            kind: "volume",
            name: key.to_owned(),
            suggestion: suggest(key, defined.volumes.keys().map(String::as_str)),
        });
    };
    definition.only(&["driver", "driver_opts", "external", "labels", "name"], &[])?;
    let naming = defined.naming(key, definition)?;
    if naming.external {
        return Ok(volume(Some(naming.name), no_copy));
    }
    Ok(MountKind::Volume {
        name: Some(naming.name),
        driver: optional(definition.get("driver"), Item::string)?,
        driver_opts: optional(definition.get("driver_opts"), Item::labels)?.unwrap_or_default(),
        labels: defined.volume_labels(key, definition)?,
        no_copy,
    })
}

fn long(item: &Item<'_>, defined: &Definitions<'_>, read: &Reader<'_>) -> Result<Mount, Error> {
    item.only(
        &["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs"],
        &[("image", "image mounts are not implemented yet")],
    )?;
    let target = item.get("target").ok_or_else(|| item.invalid("a mount needs a target"))?;
    let source = optional(item.get("source"), Item::string)?;
    let kind = item.get("type").ok_or_else(|| item.invalid("a mount needs a type: bind, volume or tmpfs"))?;
    if item.get("consistency").is_some() {
        read.warn(&item.node.at, "\"consistency\" has no effect on Linux".to_owned());
    }
    let unused = |key: &str, kind: &str| match item.get(key) {
        Some(found) => Err(found.invalid(format!("{key:?} options do not belong to a {kind} mount"))),
        None => Ok(()),
    };
    let kind = match kind.one_of(&[("bind", 'b'), ("volume", 'v'), ("tmpfs", 't')])? {
        'b' => {
            unused("volume", "bind")?;
            unused("tmpfs", "bind")?;
            let source = source.ok_or_else(|| item.invalid("a bind mount needs a source"))?;
            let options = item.get("bind");
            if let Some(options) = &options {
                options.only(
                    &["propagation", "create_host_path", "recursive"],
                    &[("selinux", "relabelling is not implemented")],
                )?;
            }
            let option = |key: &str| options.as_ref().and_then(|o| o.get(key));
            MountKind::Bind {
                source: read.path(&source).to_string_lossy().into_owned(),
                propagation: optional(option("propagation"), Item::string)?,
                create: optional(option("create_host_path"), Item::boolean)?.unwrap_or(true),
                recursion: recursion(item, option("recursive"))?,
            }
        }
        'v' => {
            unused("bind", "volume")?;
            unused("tmpfs", "volume")?;
            let options = item.get("volume");
            if let Some(options) = &options {
                options.only(
                    &["nocopy"],
                    &[("subpath", "not implemented yet"), ("labels", "label the volume itself")],
                )?;
            }
            let no_copy = options.and_then(|o| o.get("nocopy"));
            let no_copy = optional(no_copy, Item::boolean)?.unwrap_or(false);
            match source {
                None => volume(None, no_copy),
                Some(name) => {
                    named(&item.get("source").unwrap_or_else(|| item.clone()), &name, no_copy, defined)?
                }
            }
        }
        _ => {
            unused("bind", "tmpfs")?;
            unused("volume", "tmpfs")?;
            if source.is_some() {
                return Err(item.invalid("a tmpfs mount has no source"));
            }
            let options = item.get("tmpfs");
            if let Some(options) = &options {
                options.only(&["size", "mode"], &[])?;
            }
            let option = |key: &str| options.as_ref().and_then(|o| o.get(key));
            MountKind::Tmpfs {
                size_bytes: optional(option("size"), Item::bytes)?,
                mode: optional(option("mode"), Item::integer::<u32>)?,
            }
        }
    };
    let path = target.string()?;
    if !path.starts_with('/') {
        return Err(target.invalid(format!("the target must be an absolute path, not {path:?}")));
    }
    let read_only = optional(item.get("read_only"), Item::boolean)?.unwrap_or(false);
    Ok(Mount { kind, target: path, read_only })
}

/// What becomes of the mounts below the source. Source: compose specification "volumes", `bind.recursive`.
fn recursion(mount: &Item<'_>, option: Option<Item<'_>>) -> Result<BindRecursion, Error> {
    let Some(option) = option else { return Ok(BindRecursion::Enabled) };
    use BindRecursion::{Disabled, Enabled, ReadOnly, Writable};
    let wanted = option.one_of(&[Enabled, Disabled, Writable, ReadOnly].map(|one| (one.word(), one)))?;
    let read_only = optional(mount.get("read_only"), Item::boolean)?.unwrap_or(false);
    if matches!(wanted, Writable | ReadOnly) && !read_only {
        return Err(option.invalid(format!("{:?} needs read_only: true beside it", wanted.word())));
    }
    Ok(wanted)
}

/// `/run` or `/run:size=64m,mode=1777`.
fn memory(item: &Item<'_>) -> Result<Mount, Error> {
    let text = item.string()?;
    let (target, options) = text.split_once(':').unwrap_or((&text, ""));
    let bad = |why: String| item.invalid(format!("invalid tmpfs {text:?}: {why}"));
    if !target.starts_with('/') {
        return Err(bad("the target must be an absolute path".to_owned()));
    }
    let (mut size_bytes, mut mode, mut read_only) = (None, None, false);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => {
                size_bytes =
                    Some(crate::units::bytes(size).ok_or_else(|| bad(format!("bad size {size:?}")))?);
            }
            Some(("mode", bits)) => {
                let bits = u32::from_str_radix(bits, 8).map_err(|_| bad(format!("bad mode {bits:?}")))?;
                mode = Some(bits);
            }
            None if option == "ro" => read_only = true,
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => return Err(bad(format!("unknown option {option:?}"))),
        }
    }
    Ok(Mount { kind: MountKind::Tmpfs { size_bytes, mode }, target: target.to_owned(), read_only })
}
