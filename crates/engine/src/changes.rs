//! What a container changed: its upper folder compared with the image's layers.
//!
//! Source: moby `pkg/archive/changes`: a path in the upper folder is added if no layer has it, else modified; a
//! whiteout is a deletion; folders on the way count as modified.

use crate::{
    container::{Change, ChangeKind, Container},
    engine::Engine,
    error::{Error, Result},
    exec, init_layer,
    layers::{self, Found},
};
use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Mount points that the runtime makes: not the container's doing.
const OURS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

pub(crate) async fn changes(engine: &Engine, container: &Container) -> Result<Vec<Change>> {
    let folders = exec::folders(engine, container).await?;
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
    walk(upper, &folders[1..], "", &mut found).map_err(Error::io("compare", upper))?;
    let ours: HashSet<&str> = ours.iter().map(String::as_str).collect();
    found.retain(|c| !is_ours(&c.path, &ours));
    keep_meaningful_folders(&mut found, upper);
    found.sort();
    Ok(found)
}

/// Returns true if the path or a folder that it is in is one of ours.
fn is_ours(path: &str, ours: &HashSet<&str>) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).any(|folder| ours.contains(folder))
}

/// A folder that only holds mount points of ours was not changed by the container.
fn keep_meaningful_folders(found: &mut Vec<Change>, upper: &Path) {
    let paths: BTreeSet<String> = found.iter().map(|c| c.path.clone()).collect();
    found.retain(|c| {
        let is_folder = upper.join(c.path.trim_start_matches('/')).is_dir();
        let prefix = format!("{}/", c.path);
        let holds = || paths.range(prefix.clone()..).next().is_some_and(|path| path.starts_with(&prefix));
        !is_folder || c.kind == ChangeKind::Added || holds()
    });
}

/// Not recursive: folders nest as deep as somebody likes.
fn walk(upper: &Path, lowers: &[PathBuf], path: &str, found: &mut Vec<Change>) -> io::Result<()> {
    let mut open = vec![(upper.to_owned(), lowers.to_vec(), path.to_owned())];
    while let Some((upper, lowers, path)) = open.pop() {
        for entry in fs::read_dir(upper)? {
            let entry = entry?;
            let name = entry.file_name();
            let path = format!("{path}/{}", name.to_string_lossy());
            let meta = entry.metadata()?;
            let below = if lowers.is_empty() { Found::Missing } else { layers::child(&lowers, &name)? };
            let kind = match (&below, layers::is_whiteout(&entry.path(), &meta)) {
                (_, true) => ChangeKind::Deleted,
                (Found::Missing, false) => ChangeKind::Added,
                (Found::Folder(_) | Found::Other(_), false) => ChangeKind::Modified,
            };
            found.push(Change { path: path.clone(), kind });
            if meta.is_dir() {
                let deeper = match below {
                    Found::Folder(folders) if !layers::is_opaque(&entry.path()) => folders,
                    _ => vec![],
                };
                open.push((entry.path(), deeper, path));
            }
        }
    }
    Ok(())
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
        walk(&upper, &[lower], "", &mut found).unwrap();
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
}
