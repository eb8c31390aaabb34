//! What a container changed: its upper folder compared with the image's layers.
//!
//! Source: moby `pkg/archive/changes`: a path in the upper folder is added if no layer has it, else modified; a
//! whiteout is a deletion; folders on the way count as modified.

use crate::{
    error::{Error, Result},
    files::{
        below::Below,
        init_layer,
        layers::{self, Found},
    },
    inner::Inner,
    seen::container::{Change, ChangeKind, Container},
};
use rustix::fs::FileType;
use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Mount points that the runtime makes: not the container's doing.
const OURS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

pub(crate) async fn changes(inner: &Inner, container: &Container) -> Result<Vec<Change>> {
    let folders = layers::of_container(inner, container).await?;
    let mut ours: Vec<String> =
        OURS.iter().chain(&init_layer::PATHS).map(|path| (*path).to_owned()).collect();
    ours.extend(container.mounts.iter().map(|m| m.destination.clone()));
    ours.extend(container.config.host.files.iter().map(|f| f.target.clone()));
    let built = container.config.host.build.iter().flat_map(|step| &step.mounts);
    ours.extend(built.map(|mount| mount.target.clone()));
    crate::blocking(move || compare(&folders, &ours)).await
}

/// Compares the first folder with the others, top first; `ours` are paths that do not count. Blocking.
pub(crate) fn compare(folders: &[PathBuf], ours: &[String]) -> Result<Vec<Change>> {
    let mut found = Vec::new();
    let upper = &folders[0];
    let inside = walk(upper, &folders[1..], &mut found).map_err(Error::io("compare", upper))?;
    let ours: HashSet<&str> = ours.iter().map(String::as_str).collect();
    found.retain(|c| !is_ours(&c.path, &ours));
    keep_meaningful_folders(&mut found, &inside);
    found.sort();
    Ok(found)
}

/// Returns true if the path or a folder that it is in is one of ours.
fn is_ours(path: &str, ours: &HashSet<&str>) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).any(|folder| ours.contains(folder))
}

/// A folder that only holds mount points of ours was not changed by the container.
fn keep_meaningful_folders(found: &mut Vec<Change>, folders: &HashSet<String>) {
    let paths: BTreeSet<String> = found.iter().map(|c| c.path.clone()).collect();
    found.retain(|c| {
        let is_folder = folders.contains(&c.path);
        let prefix = format!("{}/", c.path);
        let holds = || paths.range(prefix.clone()..).next().is_some_and(|path| path.starts_with(&prefix));
        !is_folder || c.kind == ChangeKind::Added || holds()
    });
}

/// Returns which of the paths are folders. Not recursive: folders nest as deep as somebody likes.
fn walk(upper: &Path, lowers: &[PathBuf], found: &mut Vec<Change>) -> io::Result<HashSet<String>> {
    let below = Below::of(upper)?;
    let mut inside = HashSet::new();
    let mut open = vec![(PathBuf::new(), lowers.to_vec())];
    while let Some((folder, lowers)) = open.pop() {
        let held = match below.hold(&folder) {
            // Gone meanwhile, or something else by now; it is told of already.
            Err(_) if !folder.as_os_str().is_empty() => continue,
            held => held?,
        };
        for seen in held.names()? {
            let name = seen.path.file_name().unwrap_or_default().to_owned();
            let path = format!("/{}", seen.path.to_string_lossy());
            let there = if lowers.is_empty() { Found::Missing } else { layers::child(&lowers, &name)? };
            let way = held.way_to(&name);
            let Ok(meta) = fs::symlink_metadata(&way) else { continue };
            let kind = match (&there, layers::is_whiteout(&way, &meta)) {
                (_, true) => ChangeKind::Deleted,
                (Found::Missing, false) => ChangeKind::Added,
                (Found::Folder(_) | Found::Other(_), false) => ChangeKind::Modified,
            };
            found.push(Change { path: path.clone(), kind });
            if seen.kind() == FileType::Directory {
                let deeper = match there {
                    Found::Folder(folders) if !layers::is_opaque(&way) => folders,
                    _ => vec![],
                };
                open.push((seen.path, deeper));
                inside.insert(path);
            }
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_and_modified_paths_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("u"), dir.path().join("l"));
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::write(upper.join("etc/passwd"), "").unwrap();
        fs::write(lower.join("etc/passwd"), "x").unwrap();
        fs::write(upper.join("etc/new"), "").unwrap();
        let mut found = vec![];
        let folders = walk(&upper, &[lower], &mut found).unwrap();
        assert_eq!(folders, ["/etc".to_owned()].into());
        found.sort();
        let show: Vec<_> = found.iter().map(|c| (c.path.as_str(), c.kind)).collect();
        assert_eq!(
            show,
            [
                ("/etc", ChangeKind::Modified),
                ("/etc/new", ChangeKind::Added),
                ("/etc/passwd", ChangeKind::Modified),
            ]
        );
    }

    /// The container runs, and puts a way to the host where a folder was, over and over.
    #[test]
    fn a_link_that_takes_a_folders_place_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, outside) = (dir.path().join("u"), dir.path().join("outside"));
        fs::create_dir_all(upper.join("d/inside")).unwrap();
        fs::create_dir_all(outside.join("of-the-host")).unwrap();
        std::os::unix::fs::symlink(&outside, upper.join("link")).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                let (one, other) = (upper.join("d"), upper.join("link"));
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, exchange)
                        .unwrap();
                }
            });
            let mut looked_inside = 0;
            for _ in 0..3000 {
                let mut found = vec![];
                let walked = walk(&upper, &[], &mut found);
                let of_the_host = found.iter().find(|c| c.path.contains("of-the-host"));
                looked_inside += usize::from(found.iter().any(|c| c.path.ends_with("/inside")));
                if walked.is_err() || of_the_host.is_some() {
                    over.store(true, std::sync::atomic::Ordering::Relaxed);
                    panic!("{walked:?} {found:?}");
                }
                crate::files::below::folder_bytes(&upper);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(looked_inside > 0, "the folder is looked into when it is one");
        });
    }
}
