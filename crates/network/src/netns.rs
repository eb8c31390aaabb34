//! Network namespaces pinned by a file, and stepping into them. Only the worker thread and threads made
//! for the purpose ever change theirs.

use crate::spec::Error;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

/// An open namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    pub(crate) file: File,
}

impl Netns {
    /// Opens the namespace of the calling thread.
    pub(crate) fn own() -> Result<Self, Error> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::file("open network namespace", path))?;
        Ok(Self { file })
    }

    /// Makes a namespace, or takes the one that was `made` already, and pins it by a bind mount on `path`.
    pub(crate) fn create(path: &Path, made: Option<OwnedFd>) -> Result<Self, Error> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(Error::file("make directory", parent))?;
        File::create(path).map_err(Error::file("make file", path))?;
        let pin = |namespace: &Path, path: &Path| -> io::Result<()> {
            Ok(mount(Some(namespace), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        };
        let pinned = match made {
            Some(made) => pin(&Path::new("/proc/self/fd").join(made.as_raw_fd().to_string()), path),
            None => {
                let target = path.to_owned();
                let make = move || -> io::Result<()> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    pin(Path::new("/proc/thread-self/ns/net"), &target)
                };
                let thread = thread::Builder::new().name("rswarm-netns".into()).spawn(make);
                let panicked = |_| Err(io::Error::other("thread panicked"));
                thread.and_then(|thread| thread.join().unwrap_or_else(panicked))
            }
        };
        if let Err(source) = pinned {
            // The file alone means nothing; failing to remove it changes nothing.
            drop(fs::remove_file(path));
            return Err(Error::File { what: "make network namespace", path: path.to_owned(), source });
        }
        Self::open(path)
    }

    /// Runs `work` with the calling thread inside, and steps back to `home`.
    ///
    /// # Panics
    /// When stepping back fails: a thread that is lost must not go on.
    pub(crate) fn within<T>(&self, home: &Self, work: impl FnOnce() -> T) -> io::Result<T> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        let result = work();
        setns(&home.file, CloneFlags::CLONE_NEWNET).expect("the way home was open a moment ago");
        Ok(result)
    }

    /// Moves the calling thread in for good.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::kernel("enter network namespace")(e.into()))
    }
}

/// In the folder of the namespaces when we made it: then all that is in there is ours to remove.
const MARK: &str = ".rswarm";

/// Makes the folder of the namespaces, or has a look at the one that is there. `known` = names of ours: with nothing
/// else in it, it can be no one else's.
pub(crate) fn prepare_folder(dir: &Path, known: impl Fn(&str) -> bool) -> Result<(), Error> {
    let mark = dir.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(Error::file("make directory", dir))?;
    let entries = fs::read_dir(dir).map_err(Error::file("read directory", dir))?;
    if entries.flatten().all(|entry| known(&entry.file_name().to_string_lossy())) {
        File::create(&mark).map_err(Error::file("make file", &mark))?;
    }
    Ok(())
}

/// Names in the folder that are ours to remove.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    if !dir.join(MARK).exists() {
        tracing::debug!(path = %dir.display(), "namespaces of others are in this folder, too");
        return Vec::new();
    }
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != MARK).collect()
}

/// Removes the folder if it is ours and empty.
pub(crate) fn remove_folder(dir: &Path) {
    if dir.join(MARK).exists() && names(dir).is_empty() {
        drop(fs::remove_file(dir.join(MARK)));
        drop(fs::remove_dir(dir));
    }
}

/// Unpins a namespace; it ends with the last process in it. Fine when it is gone already.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a plain file, as after a reboot.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(e) => return Err(Error::file("unpin network namespace", path)(e.into())),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Writes a setting of the calling thread's namespace when it differs. `key` has dots or slashes.
/// Source: kernel Documentation/networking/ip-sysctl.rst.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<(), Error> {
    let path = sysctl_path(key);
    if fs::read_to_string(&path).is_ok_and(|now| now.split_whitespace().eq(value.split_whitespace())) {
        return Ok(());
    }
    fs::write(&path, value).map_err(Error::file("write setting", &path))
}

/// Has the interfaces of the calling thread's namespace that take their routes from routers go on doing so when the
/// host forwards: by default that ends it, and with it the host's own IPv6.
/// Source: kernel Documentation/networking/ip-sysctl.rst, `accept_ra`.
pub(crate) fn keep_router_advertisements() {
    let conf = Path::new("/proc/sys/net/ipv6/conf");
    // Those that come later are made by who knows.
    if fs::read_to_string(conf.join("all/forwarding")).is_ok_and(|now| now.trim() == "1") {
        return;
    }
    let Ok(entries) = fs::read_dir(conf) else { return };
    for entry in entries.flatten() {
        let says = |file: &str, value: &str| {
            fs::read_to_string(entry.path().join(file)).is_ok_and(|now| now.trim() == value)
        };
        let template = ["all", "default"].iter().any(|name| entry.file_name() == *name);
        if !template && says("accept_ra", "1") && says("forwarding", "0") {
            let path = entry.path().join("accept_ra");
            if let Err(error) = fs::write(&path, "2") {
                tracing::warn!(path = %path.display(), %error, "routes from IPv6 routers end on this interface");
            }
        }
    }
}

/// `net.ipv4.conf.eth0.rp_filter` -> file. A slash in a key stands for a dot in a name, as for `sysctl`.
fn sysctl_path(key: &str) -> PathBuf {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    Path::new("/proc/sys").join(key.chars().map(swap).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_in_the_folder_is_not_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("netns");
        prepare_folder(&folder, |_| false).unwrap();
        File::create(folder.join("orphan")).unwrap();
        assert_eq!(names(&folder), ["orphan"], "in a folder of our making");
        fs::remove_file(folder.join("orphan")).unwrap();
        remove_folder(&folder);
        assert!(!folder.exists());

        fs::create_dir(&folder).unwrap();
        File::create(folder.join("blue")).unwrap();
        File::create(folder.join("own")).unwrap();
        prepare_folder(&folder, |name| name == "own").unwrap();
        assert_eq!(names(&folder), [""; 0]);
        remove_folder(&folder);
        assert!(folder.join("blue").exists());
        // As an earlier release left it.
        fs::remove_file(folder.join("blue")).unwrap();
        prepare_folder(&folder, |name| name == "own").unwrap();
        assert_eq!(names(&folder), ["own"]);
    }

    #[test]
    fn setting_names_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), Path::new("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/5.rp_filter"),
            Path::new("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
    }
}
