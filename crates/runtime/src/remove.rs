//! Taking away what is left of a container, whatever state it was in.

use crate::{
    Error,
    cgroup::{Group, Hierarchies},
    state,
};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use std::{
    fs, io,
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long to wait for killed processes to be gone.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often to begin again because a shim is still at work.
const ATTEMPTS_MAX: u32 = 16;

/// Kills the container and its shim if they still live, removes its cgroups and the runtime's files in `dir`, and
/// `dir` itself when nothing else is in it. Repeatable; also for containers whose shim was killed.
///
/// `cgroup` is `linux.cgroupsPath` of its spec.
///
/// # Errors
/// Everything that could not be taken away; the rest is gone.
pub fn remove(dir: &Path, cgroup: Option<&str>) -> Result<(), Vec<Error>> {
    let mut errors = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        if remove_once(dir, cgroup, &mut errors) {
            break;
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Returns false if a shim that was still making its container has written to `dir` meanwhile. Once `dir` is gone such
/// a shim cannot write where it is, and gives up by itself.
fn remove_once(dir: &Path, cgroup: Option<&str>, errors: &mut Vec<Error>) -> bool {
    if let Some(pids) = state::take_pids(dir) {
        for (pid, started) in [(pids.init, pids.init_start), (pids.shim, pids.shim_start)] {
            if let Err(source) = kill(pid, started) {
                errors.push(Error::Remove { path: format!("/proc/{pid}").into(), source });
            }
        }
    }
    if let Some(cgroup) = cgroup {
        let group = Group::new(cgroup, &Hierarchies::of_this_host().mounts);
        if group.exists() {
            if let Err(source) = group.kill_all() {
                errors.push(Error::Cgroup { operation: "kill all in", path: cgroup.to_owned(), source });
            }
            let failed = group.remove().err().unwrap_or_default();
            errors.extend(failed.into_iter().map(|(path, source)| Error::Remove { path, source }));
        }
    }
    for file in state::FILES {
        missing_is_fine(fs::remove_file(dir.join(file)), &dir.join(file), errors);
    }
    missing_is_fine(fs::remove_dir(dir.join(state::ROOTFS)), &dir.join(state::ROOTFS), errors);
    match fs::remove_dir(dir) {
        // The engine may keep files of its own there.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            !state::FILES.iter().chain([&state::PID]).any(|file| dir.join(file).exists())
        }
        result => {
            missing_is_fine(result, dir, errors);
            true
        }
    }
}

fn missing_is_fine(result: io::Result<()>, path: &Path, errors: &mut Vec<Error>) {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            errors.push(Error::Remove { path: path.to_owned(), source });
        }
        _ => {}
    }
}

/// Kills a process if it is still the one that started at `started`, and waits until it is gone.
fn kill(pid: i32, started: u64) -> io::Result<()> {
    let Some(raw) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else { return Ok(()) };
    // The descriptor holds the process; only now does its start time prove anything.
    if state::start_time(pid) != Some(started) {
        return Ok(());
    }
    match sys::process::send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) => {}
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let until = Instant::now() + DEADLINE;
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    while Instant::now() < until {
        let timeout = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => thread::yield_now(),
            Ok(_) => {
                // A daemon that is pid 1 of its namespace is everybody's last parent; any other is told it is not.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).ok();
                return Ok(());
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
