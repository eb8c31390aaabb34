//! Secrets and configs of containers: files in a tmpfs of the host, one per container, so their content is never on
//! a disk and survives a restart of the daemon.
//!
//! `RUN_ROOT/secrets/<id>/` is the mount; a container whose mount is gone (the host was rebooted) cannot start.

use crate::{
    ask::config::ContainerFile,
    disk::folders,
    error::{Error, Result},
    inner::Inner,
    spec::userns,
};
use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

fn folder(inner: &Inner, id: &str) -> PathBuf {
    inner.run_root.join("secrets").join(id)
}

/// Mounts the tmpfs and writes the files. Blocking. After an error nothing is left.
pub(crate) fn place(
    inner: &Inner,
    id: &str,
    files: &[ContainerFile],
    users: Option<&runtime::IdMap>,
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let result = place_in(&folder(inner, id), files, inner.userns_squash, users);
    if result.is_err() {
        remove(inner, id)?;
    }
    result
}

fn place_in(
    folder: &Path,
    files: &[ContainerFile],
    squash: bool,
    users: Option<&runtime::IdMap>,
) -> Result<()> {
    folders::close(folder, folders::PRIVATE_MODE)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("rswarm-secrets", folder, "tmpfs", flags, Some(c"mode=0700"))
        .map_err(|e| Error::io("mount tmpfs on", folder)(e.into()))?;
    for (n, file) in files.iter().enumerate() {
        let path = folder.join(n.to_string());
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("write", &path))?;
        out.write_all(&file.content.0).map_err(Error::io("write", &path))?;
        // With one uid there is nobody else to give it to.
        if !squash {
            let (uid, gid) = userns::owner(users, file.uid, file.gid)?;
            std::os::unix::fs::fchown(&out, Some(uid), Some(gid)).map_err(Error::io("chown", &path))?;
        }
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(file.mode & 0o7777);
        out.set_permissions(mode).map_err(Error::io("chmod", &path))?;
    }
    Ok(())
}

/// Returns the bind mounts of the files: (host path, container path, writable).
///
/// # Errors
/// When the files are gone.
pub(crate) fn binds(
    inner: &Inner,
    id: &str,
    files: &[ContainerFile],
) -> Result<Vec<(PathBuf, String, bool)>> {
    let folder = folder(inner, id);
    let bind = |(n, file): (usize, &ContainerFile)| {
        let path = folder.join(n.to_string());
        if !path.exists() {
            return Err(Error::Conflict(format!(
                "the content of {} is no longer in memory (was this host rebooted?); create the container again",
                file.target
            )));
        }
        Ok((path, file.target.clone(), false))
    };
    files.iter().enumerate().map(bind).collect()
}

/// Removes the files of a container; that there are none is fine.
pub(crate) fn remove(inner: &Inner, id: &str) -> Result<()> {
    let folder = folder(inner, id);
    match rustix::mount::unmount(&folder, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
        Err(e) => return Err(Error::io("unmount", &folder)(e.into())),
    }
    match fs::remove_dir(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &folder)(e)),
        _ => Ok(()),
    }
}

/// Returns the ids of containers that have files.
pub(crate) fn ids(inner: &Inner) -> Vec<String> {
    let Ok(entries) = fs::read_dir(inner.run_root.join("secrets")) else { return vec![] };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()
}
