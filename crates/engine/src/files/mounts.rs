//! Which mounts a container gets: `-v` strings, `--mount`s, `--volumes-from`, the image's volumes. Parsing is pure;
//! [`Plan::realise`] makes volumes and folders.

use crate::{
    ask::config::{ContainerConfig, MountKind},
    error::{Error, Result, unfit},
    files::image_mounts,
    inner::Inner,
    seen::container::{Container, MountPoint, MountPointKind},
    volumes::local::VolumeConfig,
};
use model::{BindRecursion, confine};
use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

/// One mount as asked for, its destination cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) destination: String,
    pub(crate) source: Source,
    pub(crate) writable: bool,
    pub(crate) mode: String,
    pub(crate) propagation: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Bind {
        path: PathBuf,
        create: bool,
        recursion: BindRecursion,
        idmap: bool,
    },
    Volume {
        config: VolumeConfigKey,
        no_copy: bool,
        subpath: Option<String>,
    },
    /// One that another container has.
    Same(MountPoint),
    Tmpfs(String),
    Image {
        reference: String,
        subpath: String,
    },
}

/// What names a volume; an anonymous one has no name before [`Plan::name_anonymous`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumeConfigKey {
    pub(crate) name: String,
    pub(crate) anonymous: bool,
    pub(crate) driver: String,
    pub(crate) driver_opts: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl VolumeConfigKey {
    fn named(name: String) -> Self {
        Self { anonymous: name.is_empty(), name, ..Self::default() }
    }
}

/// Mounts by destination; later sources never replace earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) by_destination: BTreeMap<String, Wanted>,
}

/// A mount as made, and whether the image's content has to be copied into it.
#[derive(Debug)]
pub(crate) struct Realised {
    pub(crate) point: MountPoint,
    pub(crate) copy_up: bool,
}

impl Plan {
    /// Reads all that the configuration says. `others` resolves `--volumes-from`.
    pub(crate) fn of(
        config: &ContainerConfig,
        others: impl Fn(&str) -> Result<Vec<MountPoint>>,
    ) -> Result<Self> {
        let mut plan = Self::default();
        let driver = &config.host.volume_driver;
        for bind in &config.host.binds {
            plan.add(with_driver(parse_bind(bind)?, driver), true)?;
        }
        for mount in &config.host.mounts {
            plan.add(of_mount(mount)?, true)?;
        }
        for (path, options) in &config.host.tmpfs {
            let wanted = Wanted {
                destination: clean(path)?,
                source: Source::Tmpfs(options.clone()),
                writable: !options.split(',').any(|o| o == "ro"),
                mode: options.clone(),
                propagation: String::new(),
            };
            plan.add(wanted, true)?;
        }
        for from in &config.host.volumes_from {
            let (container, mode) = volumes_of(from)?;
            for point in others(container)? {
                let writable = point.writable && !mode.split(',').any(|o| o == "ro");
                let wanted = Wanted {
                    destination: point.destination.clone(),
                    writable,
                    mode: mode.to_owned(),
                    propagation: point.propagation.clone(),
                    source: Source::Same(point),
                };
                plan.add(wanted, false)?;
            }
        }
        for path in &config.volumes {
            let wanted = Wanted {
                destination: clean(path)?,
                source: Source::Volume {
                    config: VolumeConfigKey::named(String::new()),
                    no_copy: false,
                    subpath: None,
                },
                writable: true,
                mode: String::new(),
                propagation: String::new(),
            };
            plan.add(with_driver(wanted, driver), false)?;
        }
        Ok(plan)
    }

    fn add(&mut self, wanted: Wanted, must_be_first: bool) -> Result<()> {
        let tmpfs = match &wanted.source {
            Source::Tmpfs(options) => Some(options),
            Source::Bind { .. } | Source::Volume { .. } | Source::Same(_) | Source::Image { .. } => None,
        };
        confine::mount_target("mount", &wanted.destination, tmpfs.is_some()).map_err(unfit)?;
        if let Some(options) = tmpfs {
            confine::tmpfs_options("Tmpfs", options).map_err(unfit)?;
        }
        if !self.by_destination.contains_key(&wanted.destination) {
            self.by_destination.insert(wanted.destination.clone(), wanted);
            return Ok(());
        }
        if must_be_first {
            return Err(Error::invalid(format!("Duplicate mount point: {}", wanted.destination)));
        }
        Ok(())
    }

    /// Gives anonymous volumes their names, and returns these: to be noted before they are made.
    pub(crate) fn name_anonymous(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for wanted in self.by_destination.values_mut() {
            if let Source::Volume { config, .. } = &mut wanted.source
                && config.anonymous
            {
                config.name = crate::random_id();
                names.push(config.name.clone());
            }
        }
        names
    }

    /// Makes volumes and missing folders. Blocking. Volumes made before an error stay: they are named and reusable,
    /// anonymous ones are removed again.
    pub(crate) fn realise(self, inner: &Inner) -> Result<Vec<Realised>> {
        let mut made = Vec::new();
        for wanted in self.by_destination.into_values() {
            match realise(inner, wanted) {
                Ok(one) => made.push(one),
                Err(e) => {
                    remove_anonymous(inner, made.into_iter().map(|m: Realised| m.point).collect());
                    return Err(e);
                }
            }
        }
        Ok(made)
    }
}

/// File in a container's folder: names of anonymous volumes that go with the folder, if the daemon is killed before
/// it has done so itself. There while the container is made, and when its removal asks for it.
pub(crate) const GOES_WITH_FOLDER: &str = "volumes.json";

/// Takes back the volumes that were made for a container that did not come to be. Blocking.
pub(crate) fn remove_anonymous(inner: &Inner, points: Vec<MountPoint>) {
    for point in points.into_iter().filter(|p| p.anonymous) {
        if let Err(e) = inner.volumes.remove(&point.name, true) {
            tracing::warn!(volume = %point.name, error = %e, "anonymous volume could not be removed");
        }
    }
}

fn realise(inner: &Inner, wanted: Wanted) -> Result<Realised> {
    let Wanted { destination, source, writable, mode, propagation } = wanted;
    let mut point = MountPoint {
        kind: MountPointKind::Bind,
        name: String::new(),
        source: PathBuf::new(),
        subpath: String::new(),
        destination,
        driver: String::new(),
        mode,
        writable,
        propagation,
        recursion: BindRecursion::Enabled,
        idmap: false,
        anonymous: false,
        image: String::new(),
    };
    match source {
        Source::Bind { path, create, recursion, idmap } => {
            match fs::metadata(&path) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && create => {
                    fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
                }
                Err(_) => {
                    return Err(Error::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        path.display()
                    )));
                }
            }
            if point.propagation.is_empty() {
                point.propagation = "rprivate".into();
            }
            point.source = path;
            point.recursion = recursion;
            point.idmap = idmap;
            Ok(Realised { point, copy_up: false })
        }
        Source::Volume { config, no_copy, subpath } => {
            let VolumeConfigKey { name, anonymous, driver, driver_opts, labels } = config;
            let volume = VolumeConfig { name: name.clone(), driver, driver_opts, labels };
            let (volume, new) = inner.volumes.create_as(name, anonymous, volume)?;
            if new {
                inner.volume_event("create", &volume.name, &volume.driver, None);
            }
            point.kind = MountPointKind::Volume;
            point.idmap = true;
            if let Some(sub) = subpath {
                check_inside(&volume.mountpoint, &sub)?;
                point.subpath = sub;
            }
            point.source = volume.mountpoint;
            point.name = volume.name;
            point.driver = volume.driver;
            point.anonymous = volume.anonymous;
            // What is at a subpath has to be there already.
            let copy_up = !no_copy && point.subpath.is_empty();
            Ok(Realised { point, copy_up })
        }
        Source::Same(other) => {
            point.kind = other.kind;
            point.name = other.name;
            point.source = other.source;
            point.subpath = other.subpath;
            point.recursion = other.recursion;
            point.idmap = other.idmap;
            point.driver = other.driver;
            Ok(Realised { point, copy_up: false })
        }
        Source::Tmpfs(_) => {
            point.kind = MountPointKind::Tmpfs;
            Ok(Realised { point, copy_up: false })
        }
        Source::Image { reference, subpath } => {
            let images = inner.images.clone();
            let found = async { image_mounts::find(&images, &reference, &subpath).await };
            point.image = tokio::runtime::Handle::current().block_on(found)?.id.to_string();
            point.kind = MountPointKind::Image;
            point.name = reference;
            point.subpath = subpath;
            point.writable = false;
            Ok(Realised { point, copy_up: false })
        }
    }
}

/// Refuses a subpath that is not there or leads out of its volume; at a start it may still do so.
fn check_inside(volume: &Path, sub: &str) -> Result<()> {
    let path = volume.join(sub);
    // Docker's words, by which its CLI tells a path that is not there. Source: moby `internal/safepath`.
    let real = fs::canonicalize(&path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        Error::invalid(format!("cannot access path {}: {why}", path.display()))
    })?;
    let root = fs::canonicalize(volume).map_err(Error::io("find", volume))?;
    if real.starts_with(root) {
        Ok(())
    } else {
        Err(Error::invalid(format!("subpath {sub} leaves the volume")))
    }
}

/// Returns the mounts of a container that others may share.
pub(crate) fn shareable(container: &Container) -> Vec<MountPoint> {
    let shared = |m: &&MountPoint| !matches!(m.kind, MountPointKind::Tmpfs | MountPointKind::Image);
    container.mounts.iter().filter(shared).cloned().collect()
}

/// Makes a container path absolute and free of `.`, `..` and double slashes.
pub(crate) fn clean(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

const ACCESS: &[&str] = &["ro", "readonly", "rw"];
const PROPAGATION: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];
const COPY: &[&str] = &["nocopy", "copy"];
/// What may stand behind a bind: of each kind one.
const OPTIONS: [&[&str]; 6] =
    [ACCESS, PROPAGATION, COPY, &["z", "Z"], &["cached", "consistent", "delegated"], &["idmap"]];

/// *Source:* moby `daemon/volume/mounts/linux_parser.go`, `linuxValidMountMode`.
fn options_of(mode: &str) -> Result<Vec<&str>> {
    let options: Vec<&str> = mode.split(',').filter(|o| !o.is_empty()).collect();
    let of = |kind: &[&str]| options.iter().filter(|o| kind.contains(o)).count();
    let known: usize = OPTIONS.iter().map(|kind| of(kind)).sum();
    if known < options.len() || OPTIONS.iter().any(|kind| of(kind) > 1) {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    Ok(options)
}

/// Reads `container[:options]`, without what goes with the mounts that it has.
/// *Source:* moby `daemon/volume/mounts/linux_parser.go`, `ParseVolumesFrom`.
fn volumes_of(text: &str) -> Result<(&str, &str)> {
    if text.is_empty() {
        return Err(Error::invalid("volumes-from specification cannot be an empty string"));
    }
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    if options_of(mode)?.iter().any(|o| PROPAGATION.contains(o) || COPY.contains(o)) {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    Ok((container, mode))
}

/// Reads `source:destination[:options]` or `destination`.
fn parse_bind(text: &str) -> Result<Wanted> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let fields: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match fields[..] {
        [destination] => ("", destination, ""),
        ["", ..] => return Err(invalid()),
        [source, destination] => (source, destination, ""),
        [source, destination, options] => (source, destination, options),
        _ => return Err(invalid()),
    };
    let (mut writable, mut no_copy, mut propagation, mut idmap) = (true, false, String::new(), false);
    for option in options_of(options)? {
        match option {
            "ro" | "readonly" => writable = false,
            "rw" => writable = true,
            "nocopy" => no_copy = true,
            "idmap" => idmap = true,
            other if PROPAGATION.contains(&other) => propagation = other.to_owned(),
            _ => {}
        }
    }
    if !source.starts_with('/') && !propagation.is_empty() {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"volume\": field BindOptions must not be specified"
        )));
    }
    let source = if source.starts_with('/') {
        let path = PathBuf::from(clean(source)?);
        Source::Bind { path, create: true, recursion: BindRecursion::Enabled, idmap }
    } else {
        Source::Volume { config: VolumeConfigKey::named(source.to_owned()), no_copy, subpath: None }
    };
    Ok(Wanted { destination: clean(destination)?, source, writable, mode: options.to_owned(), propagation })
}

/// Names the driver of a volume that names none itself. *Source:* Docker API `HostConfig.VolumeDriver`.
fn with_driver(mut wanted: Wanted, default: &str) -> Wanted {
    if let Source::Volume { config, .. } = &mut wanted.source {
        config.driver = default.to_owned();
    }
    wanted
}

fn of_mount(mount: &crate::ask::config::Mount) -> Result<Wanted> {
    let mut wanted_propagation = String::new();
    let source = match &mount.kind {
        MountKind::Bind { source, propagation, create, recursion, idmap } => {
            if !source.starts_with('/') {
                return Err(Error::invalid(format!(
                    "invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
                )));
            }
            wanted_propagation = propagation.clone().unwrap_or_default();
            let word = wanted_propagation.as_str();
            if !word.is_empty() && !PROPAGATION.contains(&word) {
                return Err(Error::invalid(format!(
                    "invalid mount config for type \"bind\": invalid propagation mode: {wanted_propagation}"
                )));
            }
            Source::Bind {
                path: PathBuf::from(source),
                create: *create,
                recursion: *recursion,
                idmap: *idmap,
            }
        }
        MountKind::Volume { name, driver, driver_opts, labels, no_copy, subpath } => {
            confine::volume_subpath("mount", subpath.as_deref().unwrap_or_default()).map_err(unfit)?;
            Source::Volume {
                config: VolumeConfigKey {
                    driver: driver.clone().unwrap_or_default(),
                    driver_opts: driver_opts.clone(),
                    labels: labels.clone(),
                    ..VolumeConfigKey::named(name.clone().unwrap_or_default())
                },
                no_copy: *no_copy,
                subpath: subpath.clone(),
            }
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            let size = size_bytes.filter(|s| *s > 0).map(|s| format!("size={s}"));
            let mode = mode.filter(|m| *m > 0).map(|m| format!("mode={m:o}"));
            Source::Tmpfs([size, mode].into_iter().flatten().collect::<Vec<_>>().join(","))
        }
        MountKind::Image { reference, subpath } => {
            let subpath = subpath.clone().unwrap_or_default();
            confine::volume_subpath("mount", &subpath).map_err(unfit)?;
            Source::Image { reference: reference.clone(), subpath }
        }
    };
    Ok(Wanted {
        destination: clean(&mount.target)?,
        source,
        writable: !mount.read_only,
        mode: String::new(),
        propagation: wanted_propagation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_strings_name_paths_volumes_and_options() {
        let bind = parse_bind("/srv/../data:/x//y/:ro,z").unwrap();
        assert_eq!((bind.destination.as_str(), bind.writable), ("/x/y", false));
        assert_eq!(
            bind.source,
            Source::Bind {
                path: "/data".into(),
                create: true,
                recursion: BindRecursion::Enabled,
                idmap: false
            }
        );
        let volume = parse_bind("web:/data:nocopy").unwrap();
        assert!(matches!(volume.source, Source::Volume { no_copy: true, .. }));
        assert!(matches!(parse_bind("/anon").unwrap().source, Source::Volume { .. }));
        for bad in
            ["a:b:c:d", "v:relative", "v:/x:what", "", ":/x", "/a:/x:ro,rw", "/a:/x:z,Z", "v:/x:rshared"]
        {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_bind("/a:/x:rw,Z,rshared,cached").unwrap().propagation, "rshared");
    }

    #[test]
    fn volumes_of_another_container_are_read_as_docker_reads_them() {
        assert_eq!(volumes_of("web").unwrap(), ("web", ""));
        assert_eq!(volumes_of("web:ro,z").unwrap(), ("web", "ro,z"));
        for bad in ["", "web:what", "web:ro,rw", "web:rshared", "web:nocopy"] {
            assert_eq!(volumes_of(bad).unwrap_err().kind(), crate::ErrorKind::InvalidParameter, "{bad}");
        }
    }

    #[test]
    fn the_driver_of_the_host_configuration_is_that_of_volumes_without_one() {
        let volume = |name: &str, target: &str, driver: Option<&str>| crate::ask::config::Mount {
            target: target.into(),
            read_only: false,
            kind: MountKind::Volume {
                name: Some(name.into()),
                driver: driver.map(str::to_owned),
                driver_opts: BTreeMap::new(),
                labels: BTreeMap::new(),
                no_copy: false,
                subpath: None,
            },
        };
        let mut config = ContainerConfig::default();
        config.host.volume_driver = "far".into();
        config.host.binds = vec!["named:/a".into(), "/srv:/b".into()];
        config.volumes.insert("/c".into());
        config.host.mounts = vec![volume("plain", "/d", None), volume("own", "/e", Some("near"))];
        let plan = Plan::of(&config, |_| Ok(vec![])).unwrap();
        let driver = |target: &str| match &plan.by_destination[target].source {
            Source::Volume { config, .. } => Some(config.driver.as_str()),
            _ => None,
        };
        let drivers = ["/a", "/b", "/c", "/d", "/e"].map(driver);
        assert_eq!(drivers, [Some("far"), None, Some("far"), Some(""), Some("near")]);
    }

    #[test]
    fn the_callers_mount_wins_over_the_images_volume_and_duplicates_are_refused() {
        let mut config = ContainerConfig::default();
        config.volumes.insert("/data/".into());
        config.host.binds = vec!["named:/data".into()];
        let plan = Plan::of(&config, |_| Ok(vec![])).unwrap();
        assert_eq!(plan.by_destination.len(), 1);
        config.host.binds.push("other:/data".into());
        assert!(Plan::of(&config, |_| Ok(vec![])).is_err());
    }
}
