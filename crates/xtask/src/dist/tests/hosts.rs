//! A host to install on: a copy of this machine's root, whose changes are kept in memory.

use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{PoisonError, RwLock},
};

/// All hosts see this machine's processes: whoever starts what a script looks for has the machine alone.
static PROCESSES: RwLock<()> = RwLock::new(());

/// Ends with its test.
pub(super) struct Host {
    folder: tempfile::TempDir,
}

/// What a command said, and whether it could.
pub(super) struct Said {
    pub(super) well: bool,
    pub(super) text: String,
}

impl Said {
    #[track_caller]
    pub(super) fn ok(self) -> String {
        assert!(self.well, "{}", self.text);
        self.text
    }

    #[track_caller]
    pub(super) fn fails(self) -> String {
        assert!(!self.well, "{}", self.text);
        self.text
    }
}

/// Mounts a filesystem of a kind; `options` as mount(8) takes them.
#[track_caller]
fn mount(kind: &str, options: &str, at: &Path) {
    let options = std::ffi::CString::new(options).unwrap();
    let mounted = rustix::mount::mount(kind, at, kind, MountFlags::empty(), options.as_c_str());
    mounted.unwrap_or_else(|e| panic!("{kind} on {at:?} with {options:?}: {e}"));
}

/// Mounts a small filesystem on a folder until this goes.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    #[track_caller]
    pub(super) fn on(at: &Path) -> Self {
        mount("tmpfs", "", at);
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Who is tried may have taken it off.
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

/// Where programs and their libraries are; some are links to others on most machines.
const PROGRAMS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

impl Host {
    /// Returns a host on which nothing of ours is. It has this machine's programs, no systemd, and nearly no settings.
    pub(super) fn new() -> Self {
        let host = Self::with(&PROGRAMS);
        for (path, text) in [("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"), ("etc/group", "root:x:0:\n")] {
            host.write(path, text, 0o644);
        }
        for folder in ["etc/apparmor.d", "var/lib"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        host
    }

    /// Returns one that knows this machine's packages, too. It takes root: in a namespace of a user's own, what is mounted
    /// below these folders cannot be left out.
    pub(super) fn with_packages() -> Self {
        let host = Self::with(&[&PROGRAMS[..], &["etc", "var"]].concat());
        let group = fs::read_to_string(host.path("etc/group")).unwrap();
        let group: Vec<&str> = group.lines().filter(|line| !line.starts_with("rswarm:")).collect();
        host.write("etc/group", &(group.join("\n") + "\n"), 0o644);
        for path in [
            "etc/systemd/system/rswarm.service",
            "etc/rswarm",
            "etc/apparmor.d/docker-default",
            "var/lib/rswarm",
        ] {
            host.without(path);
        }
        host
    }

    /// Takes away what this machine may have.
    fn without(&self, path: &str) {
        let path = self.path(path);
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        assert!(gone.is_ok() || !path.exists(), "{path:?}: {gone:?}");
    }

    /// Returns a host whose only program is busybox, under all its names.
    pub(super) fn with_busybox(busybox: &str) -> Self {
        let host = Self::with(&[]);
        for folder in ["bin", "etc", "proc", "dev", "tmp", "run", "usr/bin", "usr/local/bin", "var/lib"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        testkit::copy_program(Path::new(busybox), &host.path("bin/busybox"), 0o755);
        host.write("etc/passwd", "root:x:0:0:root:/:/bin/sh\n", 0o644);
        host.write("etc/group", "root:x:0:\n", 0o644);
        host.enter();
        host.run_bare(&["/bin/busybox", "--install", "-s", "/bin"]).ok();
        host
    }

    /// Returns one with these folders of this machine.
    fn with(folders: &[&str]) -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        let above = host.folder.path();
        mount("tmpfs", "", above);
        fs::create_dir(host.root()).unwrap();
        for folder in folders {
            let ours = Path::new("/").join(folder);
            if let Ok(to) = fs::read_link(&ours) {
                std::os::unix::fs::symlink(to, host.path(folder)).unwrap();
            } else if ours.is_dir() {
                for part in ["upper", "work", "root"] {
                    fs::create_dir_all(above.join(part).join(folder)).unwrap();
                }
                let layers = format!(
                    "lowerdir={0},upperdir={1}/upper/{folder},workdir={1}/work/{folder}",
                    ours.display(),
                    above.display()
                );
                mount("overlay", &layers, &host.path(folder));
            }
        }
        if !folders.is_empty() {
            for folder in ["proc", "dev", "tmp", "run"] {
                fs::create_dir(host.path(folder)).unwrap();
            }
            host.enter();
            host.without("usr/bin/rswarm");
            // Nothing of this machine's, and ours to write in, whoever we are.
            mount("tmpfs", "", &host.path("usr/local"));
            for folder in ["bin", "share"] {
                fs::create_dir(host.path("usr/local").join(folder)).unwrap();
            }
        }
        host
    }

    fn enter(&self) {
        for folder in ["dev", "proc"] {
            rustix::mount::mount_bind_recursive(Path::new("/").join(folder), self.path(folder)).unwrap();
        }
        for folder in ["tmp", "run"] {
            mount("tmpfs", "", &self.path(folder));
        }
        fs::create_dir(self.path("tmp/fake")).unwrap();
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Returns where a file of the host is to us.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(super) fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        testkit::write_program(&path, text, mode);
    }

    pub(super) fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode()
            & 0o7777
    }

    /// Has a program of the host answer otherwise.
    pub(super) fn fake(&self, program: &str, script: &str) {
        self.write(&format!("tmp/fake/{program}"), &format!("#!/bin/sh\n{script}\n"), 0o755);
    }

    /// Has systemd run, as far as a script can see: `tmp/systemctl` tells what it was asked for.
    pub(super) fn boot(&self) {
        fs::create_dir_all(self.path("run/systemd/system")).unwrap();
        self.fake(
            "systemctl",
            // Links are made without a systemd that runs.
            "case $1 in --root=*) exec /usr/bin/systemctl \"$@\" ;; esac\n\
             echo \"$*\" >>/tmp/systemctl\n\
             case \"$*\" in\n\
             *is-active*) [ -e /tmp/active ] ;;\n\
             'restart rswarm.service') touch /tmp/active ;;\n\
             'disable --now rswarm.service') rm -f /tmp/active ;;\n\
             esac",
        );
    }

    /// Gives the host a folder.
    pub(super) fn bring(&self, from: &Path, to: &str) {
        let to = self.path(to);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }

    /// Runs a command as root of the host.
    pub(super) fn run(&self, words: &[&str]) -> Said {
        self.run_with(&[], words)
    }

    pub(super) fn run_with(&self, variables: &[(&str, &str)], words: &[&str]) -> Said {
        let _others = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
        self.run_in(variables, words)
    }

    /// Runs a command while `other` does; that ends with it.
    pub(super) fn run_beside(&self, other: &mut Command, words: &[&str]) -> Said {
        let _alone = PROCESSES.write().unwrap_or_else(PoisonError::into_inner);
        let mut other = other.spawn().unwrap();
        let said = self.run_in(&[], words);
        other.kill().unwrap();
        other.wait().unwrap();
        said
    }

    fn run_in(&self, variables: &[(&str, &str)], words: &[&str]) -> Said {
        let path = "PATH=/tmp/fake:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let variables: Vec<String> =
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut all = vec!["/usr/bin/env", "-i", path];
        all.extend(variables.iter().map(String::as_str));
        all.extend(words);
        // A link there leads to nothing here.
        if fs::symlink_metadata(self.path("usr/bin/env")).is_err() {
            all[0] = "/bin/env";
        }
        self.run_bare(&all)
    }

    fn run_bare(&self, words: &[&str]) -> Said {
        let said = Command::new("chroot").arg(self.root()).args(words).output().unwrap();
        let text =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        Said { well: said.status.success(), text }
    }

    /// Returns all that is other than at the beginning, with what is in it: nothing in folders and links.
    pub(super) fn changes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (upper, root) = (self.folder.path().join("upper"), self.root());
        let mut changes = BTreeMap::new();
        // What is no copy of this machine's is all ours.
        let own = ["etc", "var", "usr/local"].map(|name| root.join(name));
        let mut folders: Vec<PathBuf> = own.into_iter().chain([upper.clone()]).collect();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let copied = path.strip_prefix(&upper).map(|below| Path::new("/").join(below));
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    folders.push(path.clone());
                    // One that was there is copied as soon as a file comes and goes in it.
                    if copied.is_ok_and(|there| there.is_dir()) {
                        continue;
                    }
                }
                changes
                    .insert(path.clone(), if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() });
            }
        }
        changes
    }

    /// Sees that nothing is other than it was then.
    #[track_caller]
    pub(super) fn is_as(&self, then: &BTreeMap<PathBuf, Vec<u8>>, after: &str) {
        let now = self.changes();
        let paths: std::collections::BTreeSet<&PathBuf> = now.keys().chain(then.keys()).collect();
        let other: Vec<_> = paths.into_iter().filter(|path| now.get(*path) != then.get(*path)).collect();
        assert!(other.is_empty(), "{after} changed {other:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // With all that is mounted in it.
        let ended = rustix::mount::unmount(self.folder.path(), UnmountFlags::DETACH);
        assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
    }
}
