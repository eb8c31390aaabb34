//! Devices that vendors describe in files, GPUs above all: the nodes below `/dev` together with the libraries, hooks
//! and variables that a program needs beside them.
//!
//! Files are read anew each time: a driver that is updated writes them anew, and they are few and small.
//! *Source:* Container Device Interface 1.0, SPEC.md; dockerd(8), `cdi-spec-dirs`.

use crate::{
    ask::config::DeviceRequest,
    error::{Error, Result},
};
use model::resource::rank;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Where files are looked for; a later folder wins.
pub const CDI_SPEC_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Larger ones are no descriptions of devices. *Unit:* bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// *Limit* of what is looked at in one folder: each container that asks for devices reads all of it.
const FILES_MAX: usize = 1000;

/// Says "all" in place of a number. Source: Docker API `DeviceRequest.Count`.
const ALL: i64 = -1;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What is changed in a container's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    pub(crate) device_nodes: Vec<DeviceNode>,
    pub(crate) mounts: Vec<DeviceMount>,
    pub(crate) hooks: Vec<DeviceHook>,
    #[serde(rename = "additionalGids")]
    pub(crate) additional_gids: Vec<u32>,
    intel_rdt: Option<serde::de::IgnoredAny>,
    net_devices: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceNode {
    pub(crate) path: String,
    host_path: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) file_mode: Option<u32>,
    pub(crate) permissions: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl DeviceNode {
    pub(crate) fn host_path(&self) -> &str {
        self.host_path.as_deref().filter(|p| !p.is_empty()).unwrap_or(&self.path)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceMount {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    #[serde(default)]
    pub(crate) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceHook {
    pub(crate) hook_name: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
    /// *Unit:* seconds.
    pub(crate) timeout: Option<i64>,
}

impl Edits {
    fn append(&mut self, more: &Self) {
        self.env.extend(more.env.iter().cloned());
        self.device_nodes.extend(more.device_nodes.iter().cloned());
        self.mounts.extend(more.mounts.iter().cloned());
        self.hooks.extend(more.hooks.iter().cloned());
        self.additional_gids.extend(more.additional_gids.iter().filter(|gid| **gid > 0));
        self.intel_rdt = self.intel_rdt.or(more.intel_rdt);
        self.net_devices.extend(more.net_devices.iter().copied());
    }

    fn unsupported(&self) -> Option<&'static str> {
        match self {
            Self { intel_rdt: Some(_), .. } => Some("intelRdt"),
            Self { net_devices, .. } if !net_devices.is_empty() => Some("netDevices"),
            _ => None,
        }
    }

    /// What tells two names of one device from two devices.
    fn nodes(&self) -> BTreeSet<&str> {
        self.device_nodes.iter().map(DeviceNode::host_path).collect()
    }
}

/// All devices described on this host.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    files: Vec<(PathBuf, Description)>,
    /// `vendor.com/class` -> name -> (file, device in it); `None` if two files of one folder describe it.
    kinds: BTreeMap<String, BTreeMap<String, Option<(usize, usize)>>>,
    /// Files that cannot be used, with the reason.
    pub(crate) problems: Vec<String>,
}

impl Inventory {
    pub(crate) fn read(folders: &[PathBuf]) -> Self {
        let mut all = Self::default();
        // A later folder wins, so its devices are there first and keep their place.
        for folder in folders.iter().rev() {
            let before = all.files.len();
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.take(FILES_MAX + 1).map(|entry| entry.path()).collect();
            if paths.len() > FILES_MAX {
                // Which of them were left out would be chance.
                let path = folder.display();
                all.problems.push(format!("{path}: more than {FILES_MAX} files, of which none is read"));
                continue;
            }
            paths.sort();
            for path in paths {
                match description(&path) {
                    Ok(Some(found)) => all.add(path, found, before),
                    Ok(None) => {}
                    Err(reason) => all.problems.push(format!("{}: {reason}", path.display())),
                }
            }
        }
        all
    }

    fn add(&mut self, path: PathBuf, found: Description, first_of_folder: usize) {
        let file = self.files.len();
        let names = self.kinds.entry(found.kind.clone()).or_default();
        for (at, device) in found.devices.iter().enumerate() {
            match names.get_mut(&device.name) {
                None => {
                    names.insert(device.name.clone(), Some((file, at)));
                }
                Some(Some((other, _))) if *other < first_of_folder => {}
                Some(both) => {
                    *both = None;
                    let name = format!("{}={}", found.kind, device.name);
                    self.problems.push(format!("{}: {name} is described elsewhere, too", path.display()));
                }
            }
        }
        self.files.push((path, found));
    }

    fn device(&self, kind: &str, name: &str) -> Option<(usize, &Device)> {
        let (file, at) = (*self.kinds.get(kind)?.get(name)?)?;
        Some((file, self.files[file].1.devices.get(at)?))
    }

    /// Returns a name for each device of a kind, in the order of their numbers. One device may have several names (a
    /// number and a UUID), and `all` is none of them unless there is nothing else.
    pub(crate) fn distinct(&self, kind: &str) -> Vec<String> {
        let Some(names) = self.kinds.get(kind) else { return Vec::new() };
        let mut names: Vec<&String> =
            names.iter().filter(|(_, place)| place.is_some()).map(|(n, _)| n).collect();
        if names.len() > 1 {
            names.retain(|name| *name != "all");
        }
        names.sort_by_key(|name| (name.len(), *name));
        let mut seen = BTreeSet::new();
        names.retain(|name| {
            let nodes = self.device(kind, name).map(|(_, device)| device.container_edits.nodes());
            nodes.is_none_or(|nodes| nodes.is_empty() || seen.insert(nodes))
        });
        names.into_iter().cloned().collect()
    }

    /// Returns the kinds that are meant when somebody asks for a class of devices. What `management.nvidia.com/gpu`
    /// describes beside `nvidia.com/gpu` is not one more device; it can be asked for by its name.
    fn offered(&self) -> impl Iterator<Item = &String> {
        let is_part = |kind: &str, of: &str| kind.strip_suffix(of).is_some_and(|p| p.ends_with('.'));
        self.kinds.keys().filter(move |kind| !self.kinds.keys().any(|other| is_part(kind, other)))
    }

    /// Returns the names for each kind that has devices.
    pub(crate) fn all(&self) -> BTreeMap<String, BTreeSet<String>> {
        let kinds = self.offered().map(|kind| (kind.clone(), self.distinct(kind).into_iter().collect()));
        kinds.filter(|(_, names): &(_, BTreeSet<String>)| !names.is_empty()).collect()
    }

    /// Returns what a container gets that asks for devices.
    ///
    /// # Errors
    /// In Docker's words, for what this host does not have.
    pub(crate) fn edits(&self, requests: &[DeviceRequest]) -> Result<Edits> {
        let mut edits = Edits::default();
        let mut used = BTreeSet::new();
        for request in requests {
            for (kind, name) in self.named(request)? {
                let Some((file, device)) = self.device(&kind, &name) else {
                    let hint = self.problems.first().map_or_else(String::new, |p| format!(" ({p})"));
                    return Err(Error::invalid(format!(
                        "CDI device injection failed: unresolvable CDI devices {kind}={name}{hint}"
                    )));
                };
                let (path, description) = &self.files[file];
                if used.insert((file, String::new())) {
                    edits.append(&description.container_edits);
                }
                if used.insert((file, name.clone())) {
                    edits.append(&device.container_edits);
                }
                if let Some(what) = edits.unsupported() {
                    return Err(Error::invalid(format!(
                        "CDI device injection failed: {kind}={name} needs {what}, which is not supported ({})",
                        path.display()
                    )));
                }
            }
        }
        Ok(edits)
    }

    fn named(&self, request: &DeviceRequest) -> Result<Vec<(String, String)>> {
        if request.driver == "cdi" {
            let qualified = |id: &String| {
                parse_qualified(id).ok_or_else(|| {
                    Error::invalid(format!("CDI device injection failed: {id:?} is no VENDOR/CLASS=NAME"))
                })
            };
            return request.device_ids.iter().map(qualified).collect();
        }
        let words = &request.capabilities;
        let kinds = self.offered().filter(|kind| serves(kind, &request.driver, words));
        let Some(kind) = kinds.min_by_key(|kind| rank(kind)) else {
            let lists: Vec<String> = words.iter().map(|list| format!("[{}]", list.join(" "))).collect();
            return Err(Error::invalid(format!(
                "could not select device driver {:?} with capabilities: [{}]",
                request.driver,
                lists.join(" ")
            )));
        };
        if !request.device_ids.is_empty() {
            return Ok(request.device_ids.iter().map(|id| (kind.clone(), id.clone())).collect());
        }
        let mut names = self.distinct(kind);
        if request.count != ALL {
            let wanted = usize::try_from(request.count).unwrap_or(0);
            if wanted > names.len() {
                return Err(Error::invalid(format!(
                    "{wanted} devices of {kind} are asked for, and this host has {}",
                    names.len()
                )));
            }
            names.truncate(wanted);
        }
        Ok(names.into_iter().map(|name| (kind.clone(), name)).collect())
    }
}

/// Returns true if devices of `kind` are what a driver's name (`nvidia`, or none) and capabilities (one of the lists
/// must hold; `[[gpu utility]]`) mean: the kind's class is one of the capabilities, or there are none.
fn serves(kind: &str, driver: &str, capabilities: &[Vec<String>]) -> bool {
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let of_driver = driver.is_empty() || vendor == driver || vendor.strip_suffix(".com") == Some(driver);
    let mut asked = capabilities.iter().flatten().peekable();
    let any = !driver.is_empty() && asked.peek().is_none();
    of_driver && (any || asked.any(|word| word == class))
}

/// Reads `vendor.com/class=name`.
pub(crate) fn parse_qualified(text: &str) -> Option<(String, String)> {
    let (kind, name) = text.split_once('=')?;
    (is_kind(kind) && is_name(name, "_-.:")).then(|| (kind.to_owned(), name.to_owned()))
}

fn is_kind(kind: &str) -> bool {
    kind.split_once('/').is_some_and(|(vendor, class)| {
        let lettered = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
        lettered(vendor) && lettered(class) && is_name(vendor, "_-.") && is_name(class, "_-.")
    })
}

/// Source: SPEC.md, "Kind" and "CDI Devices".
fn is_name(text: &str, inside: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || inside.contains(c))
}

fn description(path: &Path) -> std::result::Result<Option<Description>, String> {
    let json = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => true,
        Some("yaml") => false,
        _ => return Ok(None),
    };
    let text = text(path)?;
    let found: Description = if json {
        serde_json::from_str(&text).map_err(|e| e.to_string())?
    } else {
        serde_yaml::from_str(&text).map_err(|e| e.to_string())?
    };
    if !is_kind(&found.kind) {
        return Err(format!("kind {:?} is no VENDOR/CLASS", found.kind));
    }
    if let Some(device) = found.devices.iter().find(|device| !is_name(&device.name, "_-.:")) {
        return Err(format!("{:?} is no name of a device", device.name));
    }
    Ok(Some(found))
}

/// Reads a file that may be anything: what is judged is what is read, and neither a pipe nor a device keeps anybody.
fn text(path: &Path) -> std::result::Result<String, String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| e.to_string())?;
    let file = fs::File::from(file);
    if !file.metadata().map_err(|e| e.to_string())?.is_file() {
        return Err("it is no ordinary file".into());
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FileType;

    const GPUS: &str = "
cdiVersion: 0.6.0
kind: nvidia.com/gpu
containerEdits:
  env: [DRIVER=1]
  deviceNodes: [{path: /dev/nvidiactl, hostPath: /dev/null}]
  mounts: [{hostPath: /usr, containerPath: /lib/driver, options: [ro, rbind]}]
  hooks: [{hookName: createContainer, path: /bin/true, args: [true, a]}]
devices:
- {name: '0', containerEdits: {env: [GPU=0], deviceNodes: [{path: /dev/nvidia0}]}}
- {name: '1', containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}}
- {name: '10', containerEdits: {deviceNodes: [{path: /dev/nvidia10}]}}
- {name: GPU-5a-1, containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}}
- {name: all, containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: /dev/nvidia1}, {path: /dev/nvidia10}]}}
";

    fn inventory(files: &[(&str, &str)]) -> Inventory {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Inventory::read(&[dir.path().join("etc"), dir.path().join("run")])
    }

    fn asks(driver: &str, count: i64, ids: &[&str], capabilities: &[&str]) -> DeviceRequest {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        DeviceRequest {
            driver: driver.into(),
            count,
            device_ids: words(ids),
            capabilities: vec![words(capabilities)],
        }
    }

    #[test]
    fn a_device_with_several_names_is_one() {
        let all = inventory(&[("etc/nvidia.yaml", GPUS)]);
        assert_eq!(all.distinct("nvidia.com/gpu"), ["0", "1", "10"]);
        // As on WSL, where there is no more than that.
        let one = "{cdiVersion: 0.6.0, kind: nvidia.com/gpu, devices: [{name: all}]}";
        assert_eq!(inventory(&[("etc/a.yaml", one)]).distinct("nvidia.com/gpu"), ["all"]);
    }

    #[test]
    fn requests_find_their_devices() {
        let all = inventory(&[("etc/nvidia.yaml", GPUS)]);
        let nodes = |request: &DeviceRequest| -> Vec<String> {
            let edits = all.edits(std::slice::from_ref(request)).unwrap();
            edits.device_nodes.iter().map(|node| node.path.clone()).collect()
        };
        let shared = "/dev/nvidiactl";
        assert_eq!(
            nodes(&asks("", -1, &[], &["gpu"])),
            [shared, "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia10"]
        );
        assert_eq!(nodes(&asks("nvidia", 1, &[], &["gpu", "utility"])), [shared, "/dev/nvidia0"]);
        assert_eq!(nodes(&asks("", 0, &["1", "1"], &["gpu"])), [shared, "/dev/nvidia1"]);
        assert_eq!(nodes(&asks("cdi", 0, &["nvidia.com/gpu=10"], &[])), [shared, "/dev/nvidia10"]);
        let edits = all.edits(&[asks("", 1, &[], &["gpu"])]).unwrap();
        assert_eq!(edits.env, ["DRIVER=1", "GPU=0"]);
        assert_eq!((edits.mounts.len(), edits.hooks.len()), (1, 1));
    }

    #[test]
    fn one_vendors_devices_are_chosen() {
        let of = |kind: &str| format!("{{cdiVersion: 0.6.0, kind: {kind}, devices: [{{name: all}}]}}");
        let kinds = ["management.nvidia.com/gpu", "nvidia.com/gpu", "amd.com/gpu", "a.com/gpu", "a.com/nic"];
        let texts = kinds.map(of);
        let paths = ["etc/1.yaml", "etc/2.yaml", "etc/3.yaml", "etc/4.yaml", "etc/5.yaml"];
        let files: Vec<(&str, &str)> = paths.into_iter().zip(texts.iter().map(String::as_str)).collect();
        let all = inventory(&files);
        let kind = |request: &DeviceRequest| all.named(request).unwrap()[0].0.clone();
        assert_eq!(kind(&asks("", -1, &[], &["gpu"])), "nvidia.com/gpu");
        assert_eq!(kind(&asks("a", -1, &[], &["gpu"])), "a.com/gpu");
        assert_eq!(kind(&asks("amd", -1, &[], &[])), "amd.com/gpu");
        assert_eq!(kind(&asks("", -1, &[], &["nic"])), "a.com/nic");
        assert!(!all.all().contains_key("management.nvidia.com/gpu"));
        all.edits(&[asks("cdi", 0, &["management.nvidia.com/gpu=all"], &[])]).unwrap();
    }

    #[test]
    fn what_is_not_there_is_told_in_dockers_words() {
        let all = inventory(&[("etc/nvidia.yaml", GPUS)]);
        for (request, words) in [
            (asks("", -1, &[], &["tpu"]), "could not select device driver \"\" with capabilities: [[tpu]]"),
            (
                asks("amd", 1, &[], &["gpu"]),
                "could not select device driver \"amd\" with capabilities: [[gpu]]",
            ),
            (asks("cdi", 0, &["nvidia.com/gpu=7"], &[]), "unresolvable CDI devices nvidia.com/gpu=7"),
            (asks("cdi", 0, &["gpu7"], &[]), "\"gpu7\" is no VENDOR/CLASS=NAME"),
            (asks("", 4, &[], &["gpu"]), "4 devices of nvidia.com/gpu are asked for, and this host has 3"),
        ] {
            let error = all.edits(&[request]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_later_folder_wins_and_two_files_of_one_folder_do_not_agree() {
        let of = |value: &str| {
            format!(
                "{{cdiVersion: 0.6.0, kind: a.b/c, devices: [{{name: x, containerEdits: {{env: [V={value}]}}}}]}}"
            )
        };
        let request = asks("cdi", 0, &["a.b/c=x"], &[]);
        let (early, late) = (of("1"), of("2"));
        let all = inventory(&[("etc/a.yaml", &early), ("run/a.yaml", &late)]);
        assert_eq!(all.edits(std::slice::from_ref(&request)).unwrap().env, ["V=2"]);
        let both = inventory(&[("etc/a.yaml", &early), ("etc/b.yaml", &late)]);
        let error = both.edits(&[request]).unwrap_err().to_string();
        assert!(error.contains("a.b/c=x is described elsewhere, too"), "{error}");
        assert!(both.all().is_empty());
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let all = inventory(&[
            ("etc/a.json", "{"),
            ("etc/b.yaml", "{cdiVersion: 0.6.0, kind: gpu, devices: []}"),
            ("etc/c.yaml", "{cdiVersion: 0.6.0, kind: a.b/gpu, devices: [{name: '../x'}]}"),
            ("etc/d.txt", "{"),
            ("etc/e.yaml/file", ""),
        ]);
        assert_eq!(all.problems.len(), 4, "{:?}", all.problems);
        assert!(all.problems[3].ends_with("e.yaml: it is no ordinary file"), "{:?}", all.problems);
        assert!(all.problems[1].contains("b.yaml: kind \"gpu\" is no VENDOR/CLASS"), "{:?}", all.problems);
    }

    /// Opening a device can do something by itself: a watchdog's starts it.
    #[test]
    fn what_is_no_file_keeps_nobody_and_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("a.json"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("b.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("c.yaml")).unwrap();
        std::os::unix::fs::symlink(at("d.json"), at("d.json")).unwrap();
        fs::File::create(at("e.json")).unwrap().set_len(1 << 40).unwrap();
        fs::write(at("f.yaml"), GPUS).unwrap();
        // Links to links: each doubles what the one before it is.
        let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            let before = n - 1;
            format!("{text}a{n}: &a{n} [*a{before}, *a{before}]\n")
        });
        fs::write(at("g.yaml"), format!("kind: a.b/c\ncdiVersion: 0.6.0\n{bomb}")).unwrap();
        fs::write(at("h.json"), "{\"x\": ".to_owned() + &"[".repeat(1 << 20)).unwrap();
        let all = Inventory::read(&[dir.path().to_owned()]);
        assert_eq!(all.distinct("nvidia.com/gpu"), ["0", "1", "10"], "the others cost themselves only");
        let of = |name: &str| all.problems.iter().find(|p| p.contains(name)).cloned().unwrap_or_default();
        for (name, why) in [
            ("a.json", "no ordinary file"),
            ("c.yaml", "no ordinary file"),
            ("d.json", "levels of symbolic links"),
            ("e.json", "more than 4194304 bytes"),
            ("h.json", "EOF while parsing"),
        ] {
            assert!(of(name).contains(why), "{name}: {:?}", all.problems);
        }
        assert!(!of("b.json").is_empty() && !of("g.yaml").is_empty(), "{:?}", all.problems);
    }

    #[test]
    fn a_folder_with_more_files_than_anybody_has_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), GPUS).unwrap();
        (0..FILES_MAX).for_each(|n| fs::write(dir.path().join(format!("{n}.json")), "").unwrap());
        let all = Inventory::read(&[dir.path().to_owned()]);
        assert!(all.all().is_empty());
        assert!(all.problems[0].contains("more than 1000 files"), "{:?}", all.problems);
    }
}
