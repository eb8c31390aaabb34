//! Volumes that are a filesystem of their own: `type=nfs o=addr=192.0.2.1,rw device=:/export`, `type=tmpfs
//! device=tmpfs`. Mounted over the volume's folder while a container runs with it. *Source:* moby
//! `volume/local/local_unix.go`.
//!
//! Containers have copies of the mount, so nothing is taken from them when it goes, not even after a daemon was
//! killed: [`Volumes::unmount_unused`] tidies at the next open.

use crate::{
    error::{Error, Result},
    volumes::local::{Volume, Volumes},
};
use rustix::{
    fs::{AtFlags, CWD, StatxFlags},
    mount::{MountFlags, UnmountFlags},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    net::{IpAddr, ToSocketAddrs as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Who uses each volume that is a filesystem.
pub(crate) type Users = BTreeMap<String, UsersOfOne>;

#[derive(Debug, Default)]
pub(crate) struct UsersOfOne {
    /// Ids of containers, and of what else looks into it.
    ids: BTreeSet<String>,
    /// Held while it is mounted or unmounted: that may take as long as a server likes, and concerns this volume alone.
    gate: Arc<Mutex<()>>,
}

/// Source: linux/stat.h, `STATX_ATTR_MOUNT_ROOT`.
const MOUNT_ROOT: u64 = 0x2000;

/// Tells whether a volume with these options is a filesystem to mount, and not a folder of this host.
///
/// # Errors
/// `InvalidParameter` with what is missing.
pub(crate) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    for wanted in ["type", "device"] {
        if options.get(wanted).is_none_or(String::is_empty) {
            return Err(Error::invalid(format!("missing required option: \"{wanted}\"")));
        }
    }
    if options.contains_key("size") {
        return Err(Error::invalid("quota size requested but no quota support"));
    }
    Ok(())
}

impl Volumes {
    /// Mounts a volume for a user, unless it is a folder or mounted already. Blocking; a server that does not answer
    /// may take minutes. A user that was released meanwhile gets nothing.
    ///
    /// # Errors
    /// `Io` when the kernel refuses, with the volume's device.
    pub(crate) fn acquire(&self, volume: &Volume, user: &str) -> Result<()> {
        if !volume.is_filesystem() {
            return Ok(());
        }
        let gate = {
            let mut all = self.users();
            let one = all.entry(volume.name.clone()).or_default();
            one.ids.insert(user.to_owned());
            Arc::clone(&one.gate)
        };
        let _held = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mounted = if is_mount(&volume.mountpoint) { Ok(()) } else { mount(volume) };
        if mounted.is_err()
            && let Some(one) = self.users().get_mut(&volume.name)
        {
            one.ids.remove(user);
        }
        // Who released it while the gate was closed left the rest to us.
        self.unmount_if_unused(volume);
        mounted
    }

    /// Unmounts what nobody else uses of the volumes that `user` had. Does not wait for servers.
    pub(crate) fn release(&self, user: &str) {
        let mut unused = Vec::new();
        for (name, one) in self.users().iter_mut() {
            if one.ids.remove(user) && one.ids.is_empty() {
                unused.push((name.clone(), Arc::clone(&one.gate)));
            }
        }
        for (name, gate) in unused {
            if let (Ok(volume), Ok(_held)) = (self.get(&name), gate.try_lock()) {
                self.unmount_if_unused(&volume);
            }
        }
    }

    /// Unmounts what a killed daemon left mounted and no container runs with. Blocking.
    pub(crate) fn unmount_unused(&self) {
        for volume in self.list(&crate::seen::container::Filters::default()) {
            if volume.is_filesystem() {
                self.unmount_if_unused(&volume);
            }
        }
    }

    /// To be called with the volume's gate held, or before anybody uses volumes.
    fn unmount_if_unused(&self, volume: &Volume) {
        let used = self.users().get(&volume.name).is_some_and(|one| !one.ids.is_empty());
        if !used && is_mount(&volume.mountpoint) {
            unmount(volume);
        }
    }
}

fn is_mount(folder: &Path) -> bool {
    rustix::fs::statx(CWD, folder, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.bits() & MOUNT_ROOT != 0)
}

fn unmount(volume: &Volume) {
    // At once, whoever still looks into it.
    if let Err(error) = rustix::mount::unmount(&volume.mountpoint, UnmountFlags::DETACH) {
        tracing::warn!(volume = %volume.name, %error, "volume not unmounted");
    }
}

fn mount(volume: &Volume) -> Result<()> {
    let option = |key: &str| volume.options.get(key).map_or("", String::as_str);
    let (device, kind) = (option("device"), option("type"));
    let failed = |e: std::io::Error| {
        let e = std::io::Error::other(format!("volume {}: {kind} {device}: {e}", volume.name));
        Error::io("mount", &volume.mountpoint)(e)
    };
    let (flags, data) = parse(option("o"));
    let data = with_address(kind, data).map_err(failed)?;
    let data = CString::new(data).map_err(|e| failed(e.into()))?;
    rustix::mount::mount(device, &volume.mountpoint, kind, flags, data.as_c_str())
        .map_err(|e| failed(e.into()))
}

/// Splits mount options into flags and what the filesystem is told. *Source:* moby/sys `mountinfo` `mount.MergeTmpfsOptions`;
/// mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS".
fn parse(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for word in options.split(',').filter(|w| !w.is_empty()) {
        let (flag, on) = match word {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "relatime" => (MountFlags::RELATIME, true),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "defaults" => continue,
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, data.join(","))
}

/// Replaces the name in `addr=` by its address: the kernel knows no names. *Source:* moby
/// `volume/local.getAddress`.
fn with_address(kind: &str, data: String) -> std::io::Result<String> {
    if !matches!(kind, "nfs" | "nfs4" | "cifs") {
        return Ok(data);
    }
    let words = data.split(',').map(|word| match word.strip_prefix("addr=") {
        Some(name) if name.parse::<IpAddr>().is_err() => {
            let mut found = (name, 0).to_socket_addrs()?;
            let address =
                found.next().ok_or_else(|| std::io::Error::other(format!("no address of {name}")))?;
            Ok(format!("addr={}", address.ip()))
        }
        _ => Ok(word.to_owned()),
    });
    words.collect::<std::io::Result<Vec<_>>>().map(|words| words.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_kernels_or_the_filesystems() {
        let (flags, data) = parse("addr=192.0.2.1,ro,nolock,noexec,soft,rw");
        assert_eq!(flags, MountFlags::NOEXEC);
        assert_eq!(data, "addr=192.0.2.1,nolock,soft");
        assert_eq!(
            with_address("nfs", "addr=localhost,soft".into()).unwrap().replace("::1", "127.0.0.1"),
            "addr=127.0.0.1,soft"
        );
        assert_eq!(with_address("tmpfs", "addr=localhost".into()).unwrap(), "addr=localhost");
    }

    #[test]
    fn a_server_that_takes_its_time_holds_up_its_own_volume_only() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path().to_owned()).unwrap();
        let driver_opts =
            [("type", "nfs"), ("device", ":/x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let config = crate::VolumeConfig { name: "slow".into(), driver_opts, ..Default::default() };
        let (volume, _) = volumes.create(config).unwrap();
        volumes.users().entry(volume.name.clone()).or_default().ids.insert("one".into());
        let gate = Arc::clone(&volumes.users()["slow"].gate);
        let _mounting = gate.lock().unwrap();
        // Both return although that volume is being mounted.
        volumes.release("another");
        volumes.release("one");
        assert!(volumes.users()["slow"].ids.is_empty());
    }

    #[test]
    fn type_and_device_go_together() {
        let options =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        check(&options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")])).unwrap();
        for missing in ["type", "device"] {
            let mut all: BTreeMap<String, String> = options(&[("type", "nfs"), ("device", ":/x")]);
            all.remove(missing);
            assert!(check(&all).unwrap_err().to_string().contains(missing));
        }
    }
}
