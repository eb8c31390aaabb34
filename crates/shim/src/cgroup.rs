//! The directories of one control group: made, filled, frozen, killed, removed.

use crate::wire::{CgroupWrite, Pair};
use rustix::{
    event::EventfdFlags,
    fs::inotify,
    io::Errno,
    process::{Pid, Signal},
};
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long freezing, killing and removing may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a group is begun anew whose empty parent is removed meanwhile.
const ATTEMPTS: u32 = 50;
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// One cgroup, by its path below every hierarchy.
#[derive(Debug, Clone)]
pub struct Group {
    /// Controllers (comma-separated; empty = v2), mount point, directory.
    dirs: Vec<(String, PathBuf, PathBuf)>,
}

impl Group {
    pub fn new(path: &str, mounts: &[Pair]) -> Self {
        let relative = path.trim_start_matches('/');
        let dirs = mounts
            .iter()
            .map(|mount| {
                (mount.key.clone(), PathBuf::from(&mount.value), Path::new(&mount.value).join(relative))
            })
            .collect();
        Self { dirs }
    }

    pub fn v2(&self) -> bool {
        self.dirs.first().is_some_and(|(key, ..)| key.is_empty())
    }

    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|(.., dir)| dir.is_dir())
    }

    /// Returns each directory with the name it has below `/sys/fs/cgroup`; v2 has none.
    pub fn views(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.dirs.iter().map(|(key, mount, dir)| {
            let name = mount.file_name().and_then(|name| name.to_str()).unwrap_or(key);
            (if key.is_empty() { "" } else { name }, dir.as_path())
        })
    }

    /// Returns the directory where a controller's files are.
    pub fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs
            .iter()
            .find(|(key, ..)| key.is_empty() || key.split(',').any(|name| name == controller))
            .map(|(.., dir)| dir.as_path())
    }

    /// Makes the directories; takes them away again when one cannot be made.
    pub fn create(&self) -> io::Result<()> {
        if self.dirs.is_empty() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no cgroup hierarchy is mounted"));
        }
        let made = self.dirs.iter().try_for_each(|(key, mount, dir)| {
            // Someone may remove the empty parent just then: it is not there, or its files are those of none any more.
            let is_gone =
                |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV));
            let mut attempts = 0;
            loop {
                match make(key, mount, dir) {
                    Err(error) if is_gone(&error) && attempts < ATTEMPTS => attempts += 1,
                    result => return result.map_err(|error| named(&error, dir)),
                }
            }
        });
        if made.is_err() {
            drop(self.remove());
        }
        made
    }

    /// Writes limits in the order given.
    pub fn limit(&self, writes: &[CgroupWrite]) -> io::Result<()> {
        writes.iter().try_for_each(|write| self.write(write))
    }

    fn write(&self, write: &CgroupWrite) -> io::Result<()> {
        let Some(dir) = self.dir(&write.controller) else {
            let text = format!("no {} controller on this host", write.controller);
            return if write.optional {
                Ok(())
            } else {
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            };
        };
        let file = dir.join(&write.file);
        match fs::write(&file, &write.value) {
            // A file that is not there cannot be made either, which is what the kernel complains about.
            Err(_) if !file.exists() && write.optional => Ok(()),
            Err(_) if !file.exists() => {
                let text = format!("{}: its controller is not available here", file.display());
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
            Err(error) => Err(named(&error, &file)),
            Ok(()) => Ok(()),
        }
    }

    /// As [`limit`](Self::limit) on a living group, where memory and memory+swap must never cross on v1.
    pub fn update(&self, writes: &[CgroupWrite]) -> io::Result<()> {
        let mut order: Vec<&CgroupWrite> = writes.iter().collect();
        let number = |file: &str| -> Option<i128> {
            fs::read_to_string(self.dir("memory")?.join(file)).ok()?.trim().parse().ok()
        };
        let limit = order.iter().position(|write| write.file == "memory.limit_in_bytes");
        let swap = order.iter().position(|write| write.file == "memory.memsw.limit_in_bytes");
        if let (Some(limit), Some(swap), Some(now)) = (limit, swap, number("memory.memsw.limit_in_bytes")) {
            let wanted =
                order[limit].value.parse::<i128>().map_or(i128::MAX, |n| if n < 0 { i128::MAX } else { n });
            if wanted > now && limit < swap {
                order.swap(limit, swap);
            }
        }
        order.into_iter().try_for_each(|write| self.write(write))
    }

    /// Attaches the device rules of a v2 group.
    pub fn attach_device_program(&self, program: &[u8]) -> io::Result<()> {
        let Some((.., dir)) = self.dirs.first() else { return Ok(()) };
        let dir = fs::File::open(dir)?;
        Ok(sys::bpf::attach_device_program(dir.as_fd(), program)?)
    }

    /// Opens the directory that a new process can be born in: v2 only. Being moved there later would cost it a
    /// grace period of the kernel.
    pub fn birthplace(&self) -> io::Result<Option<OwnedFd>> {
        let dir = self.dirs.first().filter(|_| self.v2()).map(|(.., dir)| dir);
        dir.map(|dir| fs::File::open(dir).map(OwnedFd::from)).transpose()
    }

    /// Puts the calling process into the group, where it was not born in it.
    pub fn enter(&self) -> io::Result<()> {
        if self.v2() {
            return Ok(());
        }
        self.dirs.iter().try_for_each(|(.., dir)| {
            let file = dir.join("cgroup.procs");
            fs::write(&file, "0").map_err(|error| named(&error, &file))
        })
    }

    /// Returns the processes in the group and below, as this pid namespace sees them.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for (.., dir) in &self.dirs {
            walk(dir, &mut |dir| {
                let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0));
            });
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Stops all processes; thaws them again when they do not all stop in time.
    pub fn freeze(&self) -> io::Result<()> {
        self.set_frozen(true).inspect_err(|_| drop(self.set_frozen(false)))
    }

    pub fn thaw(&self) -> io::Result<()> {
        self.set_frozen(false)
    }

    /// Tells whether processes of the group are stopped or about to be.
    pub fn is_frozen(&self) -> bool {
        let Some(dir) = self.dir("freezer") else { return false };
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        if self.v2() {
            read("cgroup.freeze").trim() == "1"
        } else {
            !matches!(read("freezer.state").trim(), "THAWED" | "")
        }
    }

    fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "no freezer controller on this host");
        let dir = self.dir("freezer").ok_or_else(unsupported)?;
        if self.v2() {
            fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
            let wanted = if frozen { "frozen 1" } else { "frozen 0" };
            return until(|| {
                Ok(fs::read_to_string(dir.join("cgroup.events"))?.lines().any(|line| line == wanted))
            });
        }
        let (state, wanted) = (dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" });
        until(|| {
            // While freezing, the kernel wants to be asked again for processes born meanwhile.
            fs::write(&state, wanted)?;
            Ok(fs::read_to_string(&state)?.trim() == wanted)
        })
    }

    /// Sends a signal to all processes of the group.
    pub fn signal_all(&self, signal: i32) -> io::Result<()> {
        for pid in self.processes() {
            let Some(pid) = Pid::from_raw(pid) else { continue };
            let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
                continue;
            };
            match sys::process::send_signal(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Kills all processes and waits until none is left.
    pub fn kill_all(&self) -> io::Result<()> {
        let kill_file = self.dirs.first().filter(|_| self.v2()).map(|(.., dir)| dir.join("cgroup.kill"));
        until(|| {
            if self.processes().is_empty() {
                return Ok(true);
            }
            match &kill_file {
                Some(file) if file.exists() => fs::write(file, "1")?,
                _ => {
                    self.signal_all(Signal::KILL.as_raw())?;
                    // A frozen process dies only when it thaws; a host without freezer has none.
                    drop(self.set_frozen(false));
                }
            }
            Ok(self.processes().is_empty())
        })
    }

    /// Returns how many processes of the group the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.v2() { "memory.events" } else { "memory.oom_control" };
        let Some(dir) = self.dir("memory") else { return 0 };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Returns a descriptor that becomes readable when memory ran out.
    pub fn watch_oom(&self) -> io::Result<OomWatch> {
        let dir = self.dir("memory").ok_or(io::ErrorKind::Unsupported)?;
        if self.v2() {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            inotify::add_watch(&fd, dir.join("memory.events"), inotify::WatchFlags::MODIFY)?;
            return Ok(OomWatch { fd });
        }
        // Source: kernel Documentation/admin-guide/cgroup-v1/memory.rst, section 10.
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = fs::File::open(dir.join("memory.oom_control"))?;
        fs::write(dir.join("cgroup.event_control"), format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
        Ok(OomWatch { fd })
    }

    /// Removes the directories and what the container made below them. All are tried; one error per failure.
    pub fn remove(&self) -> Result<(), Vec<(PathBuf, io::Error)>> {
        let mut errors = Vec::new();
        for (.., dir) in &self.dirs {
            if !dir.exists() {
                continue;
            }
            // A process that has just been killed keeps the directory busy until it is gone.
            let removed = until(|| match remove_tree(dir) {
                Ok(()) => Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
                Err(error) => Err(error),
            });
            if let Err(error) = removed {
                errors.push((dir.clone(), error));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    pub fn remove_if_empty(&self) {
        for (.., dir) in &self.dirs {
            // Not empty, not there, not ours: all the same.
            drop(fs::remove_dir(dir));
        }
    }
}

/// Readable when the group ran out of memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OomWatch {
    /// Forgets what has been told so far. False: the group is gone and will tell nothing more.
    pub fn acknowledge(&self) -> bool {
        let mut buffer = [0; 4096];
        !matches!(rustix::io::read(&self.fd, &mut buffer), Err(errno) if errno != Errno::AGAIN && errno != Errno::INTR)
    }
}

fn make(key: &str, mount: &Path, dir: &Path) -> io::Result<()> {
    let cpuset = key.split(',').any(|name| name == "cpuset");
    // Another shim may have made a cpuset just now and not filled it yet, so those are always looked into.
    if !cpuset && dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if parent != mount {
        make(key, mount, parent)?;
    }
    if key.is_empty() {
        delegate(parent);
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if cpuset {
        // A new cpuset is empty and takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                fs::write(dir.join(file), fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

/// Hands the controllers of a v2 group down to its children; those that cannot be are missed where a limit for
/// them is written.
fn delegate(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let control = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).unwrap_or_default();
    for name in available
        .split_ascii_whitespace()
        .filter(|name| !enabled.split_ascii_whitespace().any(|e| e == *name))
    {
        drop(fs::write(&control, format!("+{name}")));
    }
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    visit(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Asks again and again, first often, until it is true or the deadline is over.
fn until(mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = PAUSE_MIN;
    while !done()? {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Ok(())
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, process::Command};

    /// A v2 group where this host lets us make one: its core files need no controllers.
    fn v2_group(name: &str) -> Option<Group> {
        let value = testkit::v2_hierarchy()?;
        let group = Group::new(&testkit::fresh_group(name), &[Pair { key: String::new(), value }]);
        group.create().ok().map(|()| group)
    }

    #[test]
    fn v2_group_freezes_and_kills() {
        let Some(group) = v2_group("core") else { return };
        let file = group.dir("").unwrap().join("cgroup.procs");
        let script = format!("echo $$ > {} && exec sleep 1000", file.display());
        let mut child = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
        until(|| Ok(!group.processes().is_empty())).unwrap();
        group.freeze().unwrap();
        assert!(group.is_frozen());
        group.thaw().unwrap();
        assert!(!group.is_frozen());
        group.freeze().unwrap();
        // A zombie stays in the list until it is waited for.
        let waiter = thread::spawn(move || child.wait().unwrap().signal());
        group.kill_all().unwrap();
        assert_eq!(waiter.join().unwrap(), Some(9));
        group.remove().unwrap();
        assert!(!group.exists());
    }

    #[test]
    fn a_group_is_made_while_its_empty_parent_is_removed() {
        let cpuset = testkit::v1_hierarchy("cpuset").map(|mount| ("cpuset", mount));
        let v2 = testkit::v2_hierarchy().map(|mount| ("", mount));
        for (key, value) in cpuset.into_iter().chain(v2) {
            let parent = testkit::fresh_group("parent");
            let group = |name: &str| {
                Group::new(&format!("{parent}{name}"), &[Pair { key: key.to_owned(), value: value.clone() }])
            };
            if group("/first").create().is_err() {
                continue; // not ours to make groups in
            }
            group("/first").remove().unwrap();
            thread::scope(|scope| {
                for name in ["/one", "/two", "/three"] {
                    scope.spawn(move || {
                        for _ in 0..200 {
                            group(name).create().unwrap();
                            group(name).remove().unwrap();
                            group("").remove_if_empty();
                        }
                    });
                }
            });
            group("").remove_if_empty();
        }
    }
}
