//! Folders of the daemon are closed to other users of the host: a container's files keep the owners and modes that
//! they have inside, so a setuid file of an image would make whoever can reach it root.
//!
//! Modes are set when a folder is made, and mended when one that is there (of an older release, or a restored backup)
//! is open wider. Only what is ours is mended: a folder of the user we run as that no symbolic link leads to, and a
//! root only if nothing else lives in it. What is left alone is told of, and harms nobody: each container, volume and
//! layer has a closed folder of its own below it.

use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

/// Mode of the data root: the group may walk through, as in Docker.
pub const DATA_ROOT_MODE: u32 = 0o710;
/// Mode of the run root: whom the socket in it lets in has to reach it.
pub const RUN_ROOT_MODE: u32 = 0o711;
/// Mode of every folder in the two.
pub const PRIVATE_MODE: u32 = 0o700;

/// What a daemon has in its two roots. Made when they are needed, some of them never.
const OWN_NAMES: [&str; 11] = [
    "build",
    "c",
    "containers",
    "daemon.lock",
    "docker.sock",
    "images",
    "network",
    "networks",
    "secrets",
    "swarm",
    "volumes",
];

/// Closes one of the daemon's two roots and every folder of ours in it. Makes the root if it is missing.
///
/// # Errors
/// When a folder of ours can neither be made nor changed.
pub fn close_root(root: &Path, mode: u32) -> Result<()> {
    if !root.exists() || is_ours_alone(root)? {
        close(root, mode)?;
    }
    for name in OWN_NAMES {
        let folder = root.join(name);
        if folder.is_dir() {
            close(&folder, PRIVATE_MODE)?;
        }
    }
    // In case the folders above are links to a place that others use too.
    for name in ["containers", "volumes", "images", "build", "c", "secrets"] {
        close_each(&root.join(name))?;
    }
    Ok(())
}

fn is_ours_alone(root: &Path) -> Result<bool> {
    for entry in fs::read_dir(root).map_err(Error::io("list", root))? {
        let name = entry.map_err(Error::io("list", root))?.file_name();
        let name = name.to_string_lossy();
        // What is being written ends so.
        let name = name.strip_suffix(".new").unwrap_or(&name);
        if !OWN_NAMES.contains(&name) && !matches!(name, "lost+found" | "docker") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Closes the folders in a folder.
fn close_each(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("list", folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        if is_folder {
            close(&path, PRIVATE_MODE)?;
        }
    }
    Ok(())
}

/// Makes a folder with this mode (parents, if they are missing, as anybody would), or takes from one that is there what
/// others may do with it beyond that.
///
/// # Errors
/// When it can neither be made nor changed. One that is not ours is left alone.
pub fn close(folder: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = folder.parent().filter(|parent| !parent.exists()) {
        fs::create_dir_all(parent).map_err(Error::io("create folder", parent))?;
    }
    match fs::DirBuilder::new().mode(mode).create(folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        made => return made.map_err(Error::io("create folder", folder)),
    }
    let left_alone = |why: &str| {
        tracing::warn!(path = %folder.display(), why, "folder is left as open to other users as it is");
        Ok(())
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let open = match rustix::fs::open(folder, flags, Mode::empty()) {
        Ok(open) => fs::File::from(open),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) if folder.is_dir() => {
            return left_alone("a symbolic link leads to it");
        }
        Err(e) => return Err(Error::io("open folder", folder)(e.into())),
    };
    let found = open.metadata().map_err(Error::io("look at", folder))?;
    let present = found.mode() & 0o7777;
    // Only ever narrower: who closed it further meant that.
    let wanted = present & (mode | 0o7000);
    if present == wanted {
        return Ok(());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return left_alone("it belongs to another user");
    }
    open.set_permissions(fs::Permissions::from_mode(wanted)).map_err(Error::io("close folder", folder))?;
    tracing::warn!(path = %folder.display(), from = format!("{present:o}"), to = format!("{wanted:o}"),
        "folder was open to other users of this host and is closed now");
    Ok(())
}

/// Prefix of folders that wait to be swept up.
pub(crate) const REMOVED: &str = ".removed-";

/// Removes a folder with everything in it; that it is missing is fine. Overlayfs leaves a folder without permissions
/// in `work`, which an ordinary user has to open first.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    let missing_is_fine = |result: std::io::Result<()>| match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match missing_is_fine(image::remove_tree(path)) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            let work = path.join("work/work");
            if work.exists() {
                fs::set_permissions(&work, fs::Permissions::from_mode(0o700))?;
            }
            missing_is_fine(image::remove_tree(path))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn made(path: &Path, mode: u32) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn folders_are_made_closed_and_mended_when_they_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("a/b");
        close(&new, PRIVATE_MODE).unwrap();
        assert_eq!(mode(&new), 0o700);
        for (before, wanted, after) in
            [(0o755, 0o700, 0o700), (0o777, 0o710, 0o710), (0o700, 0o711, 0o700), (0o2755, 0o710, 0o2710)]
        {
            let old = dir.path().join(format!("{before:o}-{wanted:o}"));
            made(&old, before);
            fs::write(old.join("kept"), "x").unwrap();
            close(&old, wanted).unwrap();
            assert_eq!(mode(&old), after, "{before:o}");
            assert!(old.join("kept").exists());
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone_and_what_lies_in_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, shared) = (dir.path().join("root"), dir.path().join("shared"));
        made(&root, 0o755);
        made(&shared, 0o755);
        made(&shared.join("web"), 0o755);
        std::os::unix::fs::symlink(&shared, root.join("volumes")).unwrap();
        close_root(&root, DATA_ROOT_MODE).unwrap();
        assert_eq!((mode(&root), mode(&shared), mode(&shared.join("web"))), (0o710, 0o755, 0o700));

        let home = dir.path().join("home");
        made(&home, 0o755);
        made(&home.join("containers"), 0o755);
        made(&home.join("photos"), 0o755);
        close_root(&home, DATA_ROOT_MODE).unwrap();
        let modes = (mode(&home), mode(&home.join("containers")), mode(&home.join("photos")));
        assert_eq!(modes, (0o755, 0o700, 0o755));
    }

    #[test]
    fn the_service_file_makes_the_same_folders() {
        let unit = include_str!("../../../../deploy/rswarm.service");
        for line in [
            format!("StateDirectoryMode=0{DATA_ROOT_MODE:o}"),
            format!("RuntimeDirectoryMode=0{RUN_ROOT_MODE:o}"),
        ] {
            assert!(unit.lines().any(|l| l == line), "{line}");
        }
    }
}
