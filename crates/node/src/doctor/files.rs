//! Folders, keys, records and settings on disk.

use super::{Finding, Found, Host, State, names};
use engine::folders::{DATA_ROOT_MODE, PRIVATE_MODE, RUN_ROOT_MODE};
use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Folders of the data root and of the run root that nobody else may enter.
const PRIVATE: [(&str, &[&str]); 2] = [
    ("data", &["build", "containers", "images", "images/layers", "network", "networks", "swarm", "volumes"]),
    ("run", &["c", "network", "secrets"]),
];
/// How deep damaged records are looked for, and among how many files.
const DEPTH_MAX: usize = 4;
const FILES_MAX: usize = 200_000;
/// Magic numbers of file systems that are in memory only. *Source:* statfs(2).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// No more permissions than this; the file of a private key.
const KEY_MODE: u32 = 0o600;

/// Returns mode and owner; `None`: there is no such file.
fn about(host: &Host, path: &Path) -> Result<Option<(u32, u32)>, Finding> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.mode() & 0o7777, found.uid()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(host.unreadable(path, &e)),
    }
}

/// Says what is wrong with files that should have at most these modes and belong to who runs the daemon.
fn judged(
    host: &Host,
    what: &str,
    wanted: impl IntoIterator<Item = (PathBuf, u32)>,
) -> Result<Finding, Finding> {
    let (mut open, mut foreign, mut looked_at) = (Vec::new(), Vec::new(), 0);
    for (path, mode) in wanted {
        let Some((is, owner)) = about(host, &path)? else { continue };
        looked_at += 1;
        if is & 0o777 & !mode != 0 {
            open.push((path.display().to_string(), is, mode));
        }
        if owner != host.uid && owner != 0 {
            foreign.push(format!("{} belongs to uid {owner}", path.display()));
        }
    }
    if let Some((first, _, mode)) = open.first() {
        let hint = format!("chmod {mode:o} {first}");
        let all: Vec<String> = open.iter().map(|(path, is, _)| format!("{path} has mode {is:o}")).collect();
        return Ok(Finding::bad(names(&all), hint));
    }
    if !foreign.is_empty() {
        return Ok(Finding::bad(names(&foreign), format!("chown {} it, if it is the daemon's", host.uid)));
    }
    Ok(match looked_at {
        0 => Finding::none(format!("there are no {what} yet")),
        n => Finding::ok(format!("{n} {what}, closed to others")),
    })
}

pub(super) fn folders(host: &Host) -> Found {
    let place = &host.place;
    let mut wanted = vec![(place.data_root.clone(), DATA_ROOT_MODE), (place.run_root.clone(), RUN_ROOT_MODE)];
    for (root, folders) in PRIVATE {
        let root = if root == "data" { &place.data_root } else { &place.run_root };
        wanted.extend(folders.iter().map(|name| (root.join(name), PRIVATE_MODE)));
    }
    judged(host, "folders", wanted)
}

/// A setuid program of an image is the host's as soon as an ordinary user can get at it.
pub(super) fn setuid_reach(host: &Host) -> Found {
    let mut reached = Vec::new();
    for folder in ["images/layers", "containers", "volumes"] {
        let path = host.place.data_root.join(folder);
        let mut way = path.ancestors().filter(|part| !part.as_os_str().is_empty());
        let open = way.try_fold(true, |open, part| {
            Ok::<_, Finding>(open && about(host, part)?.is_some_and(|(mode, _)| mode & 0o001 != 0))
        })?;
        if open {
            reached.push(path.display().to_string());
        }
    }
    match reached.first() {
        Some(first) => Ok(Finding::bad(
            format!("every user of the host can run the files in {}", names(&reached)),
            format!("chmod o-rwx {first}, or restart the daemon, which closes its folders"),
        )),
        None => Ok(Finding::ok("no way leads an ordinary user to files of images and containers")),
    }
}

pub(super) fn key_files(host: &Host) -> Found {
    let swarm = host.place.data_root.join("swarm");
    let mut wanted = vec![
        (swarm.join("certificates"), 0o700),
        (swarm.join("certificates/node.pem"), KEY_MODE),
        (swarm.join("raft.key"), KEY_MODE),
        (swarm.join("raft"), 0o700),
    ];
    if let Ok(settings) = &host.settings {
        wanted.extend(settings.tlskey.clone().map(|key| (key, KEY_MODE)));
    }
    judged(host, "key files", wanted)
}

pub(super) fn logins(host: &Host) -> Found {
    let Some(home) = &host.home else { return Ok(Finding::none("HOME is not set: no logins are kept")) };
    let file = home.join(".config/rswarm/logins.json");
    judged(host, "file of logins", [(file, KEY_MODE)])
}

pub(super) fn secrets_in_memory(host: &Host) -> Found {
    host.together("mnt")?;
    let folder = host.place.run_root.join("secrets");
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Finding::none("there are no secrets on this host"));
        }
        entries => entries.map_err(|e| host.unreadable(&folder, &e))?,
    };
    let (mut on_disk, mut in_memory) = (Vec::new(), 0);
    for entry in entries {
        let path = entry.map_err(|e| host.unreadable(&folder, &e))?.path();
        let kind = rustix::fs::statfs(&path).map_err(|e| host.unreadable(&path, &e.into()))?.f_type;
        let empty = fs::read_dir(&path).is_ok_and(|mut inside| inside.next().is_none());
        if IN_MEMORY.contains(&kind) {
            in_memory += 1;
        } else if !empty {
            on_disk.push(path.display().to_string());
        }
    }
    match on_disk.first() {
        Some(first) => Ok(Finding::bad(
            format!("secrets lie on disk in {}", names(&on_disk)),
            format!("remove their containers, then shred the files in {first}"),
        )),
        None => Ok(Finding::ok(format!("secrets of {in_memory} containers, in memory only"))),
    }
}

pub(super) fn damaged(host: &Host) -> Found {
    let (mut found, mut left) = (Vec::new(), FILES_MAX);
    let roots = ["containers", "images", "network", "networks", "swarm", "volumes"];
    for root in roots.map(|name| host.place.data_root.join(name)) {
        // What is in a layer, a container or a volume is theirs.
        search(host, &root, DEPTH_MAX, &mut left, &mut found)?;
    }
    if let Some(first) = found.first() {
        return Ok(Finding::warn(
            format!("set aside as damaged: {}", names(&found)),
            format!("the daemon's log says what it was and how it is mended; then rm -r {first}"),
        ));
    }
    Ok(if left == 0 {
        Finding::unknown(format!("more than {FILES_MAX} files: not all were looked at"), "")
    } else {
        Finding::ok("no record is damaged")
    })
}

fn search(
    host: &Host,
    folder: &Path,
    depth: usize,
    left: &mut usize,
    found: &mut Vec<String>,
) -> Result<(), Finding> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| host.unreadable(folder, &e))?,
    };
    for entry in entries.flatten() {
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.ends_with(".damaged") {
            found.push(path.display().to_string());
            continue;
        }
        let theirs = ["layers", "upper", "work", "merged", "_data"].contains(&name.as_ref());
        if depth > 1 && !theirs && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(host, &path, depth - 1, left, found)?;
        }
    }
    Ok(())
}

pub(super) fn settings(host: &Host) -> Found {
    let file = host.place.config.display();
    let settings = match &host.settings {
        Ok(settings) => settings,
        Err(why) => {
            return Ok(Finding::bad(format!("the daemon would not start: {why}"), format!("mend {file}")));
        }
    };
    let mut weak = Vec::new();
    if !settings.insecure_registries.is_empty() {
        weak.push(format!(
            "insecure-registries: whoever is on the way to {} chooses what runs here",
            names(&settings.insecure_registries)
        ));
    }
    let plain: Vec<&String> =
        settings.registry_mirrors.iter().filter(|mirror| mirror.starts_with("http://")).collect();
    if !plain.is_empty() {
        weak.push(format!("registry-mirrors: {} is not encrypted", names(&plain)));
    }
    if settings.tlsverify && settings.tls == Some(false) {
        weak.push("tls is false beside tlsverify, which wins".to_owned());
    }
    if settings.debug {
        weak.push("debug: the log tells more than it needs to".to_owned());
    }
    let files = ["", "json-file", "local"].contains(&settings.log_driver.as_str());
    if files && !settings.log_opts.contains_key("max-size") {
        weak.push("log-opts: without max-size a container's log can fill the disk".to_owned());
    }
    // A registry that anybody can play is the one that decides what runs.
    let state =
        if settings.insecure_registries.is_empty() && plain.is_empty() { State::Warn } else { State::Bad };
    Ok(match (weak.is_empty(), state) {
        (true, _) => Finding::ok(format!("{file} weakens nothing")),
        (false, State::Bad) => Finding::bad(weak.join("; "), format!("change {file} and restart the daemon")),
        (false, _) => Finding::warn(weak.join("; "), format!("change {file} and restart the daemon")),
    })
}
