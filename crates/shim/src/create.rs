//! Making the container's first process and further ones: the shim's side of it.

use super::{
    child,
    conversation::{self, ChildEnds, DEADLINE, Ends, done, hear, pipes, reap},
    failure::{At, Failure},
    users::{self, Users},
};
use crate::{
    cgroup::{Group, OomWatch},
    hooks, state,
    wire::{self, Launch, Process},
};
use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketFlags, SocketType},
    process::Pid,
};
use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};
use sys::process::{Cloned, SingleThreaded};

/// A process that the shim made, and the shim's ends of its streams.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) ends: Ends,
}

/// The container, its program not executed yet.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) init: Made,
    /// The waiting child's end of the conversation; taken by the start.
    pub(super) waiting: Option<OwnedFd>,
    pub(super) group: Option<Group>,
    pub(super) oom_watch: Option<OomWatch>,
    pub(super) warnings: Vec<String>,
}

/// Makes the container up to the point where its program could be executed. On failure nothing is left.
pub(super) fn create(
    proof: SingleThreaded,
    launch: &Launch,
    dir: &Path,
    inherited: Option<ChildEnds>,
) -> Result<Container, Failure> {
    let mut warnings = Vec::new();
    let group = make_group(launch, &mut warnings)?;
    match create_in(proof, launch, dir, group.as_ref(), inherited) {
        Ok((init, waiting)) => {
            let oom_watch = group.as_ref().and_then(|group| group.watch_oom().ok());
            let container = Container { init, waiting: Some(waiting), group, oom_watch, warnings };
            record(&container, dir).inspect_err(|_| destroy(&container))?;
            Ok(container)
        }
        Err(failure) => {
            if let Some(group) = group {
                // The reason for which nothing works is the one to tell.
                drop(group.remove());
            }
            Err(failure)
        }
    }
}

/// Kills what [`create`] made and removes its cgroups.
pub(super) fn destroy(container: &Container) {
    sys::process::send_signal(container.init.pidfd.as_fd(), libc::SIGKILL).ok();
    reap(container.init.pid);
    if let Some(group) = &container.group {
        drop(group.remove());
    }
}

fn make_group(launch: &Launch, warnings: &mut Vec<String>) -> Result<Option<Group>, Failure> {
    let Some(plan) = &launch.cgroup else { return Ok(None) };
    let group = Group::new(&plan.path, &plan.hierarchies);
    let limited = group.create().and_then(|()| {
        let limited = group.limit(&plan.writes).and_then(|()| {
            if plan.device_program.is_empty() {
                Ok(())
            } else {
                group.attach_device_program(&plan.device_program)
            }
        });
        if limited.is_err() {
            drop(group.remove());
        }
        limited
    });
    match limited {
        Ok(()) => Ok(Some(group)),
        Err(error) if plan.optional => {
            warnings.push(format!("no resource limits and usage: cannot use cgroups: {error}"));
            Ok(None)
        }
        Err(error) => Err(Failure::other(format!("cannot apply cgroup configuration: {error}"))),
    }
}

fn record(container: &Container, dir: &Path) -> Result<(), Failure> {
    let init = container.init.pid.as_raw_nonzero().get();
    let shim = rustix::process::getpid().as_raw_nonzero().get();
    let pids = state::Pids {
        init,
        init_start: state::start_time(init).unwrap_or(0),
        shim,
        shim_start: state::start_time(shim).unwrap_or(0),
    };
    state::write_pids(dir, pids).at(|| format!("cannot write in {}", dir.display()))
}

fn create_in(
    proof: SingleThreaded,
    launch: &Launch,
    dir: &Path,
    group: Option<&Group>,
    inherited: Option<ChildEnds>,
) -> Result<(Made, OwnedFd), Failure> {
    let process = launch.process.as_ref().ok_or_else(|| Failure::other("the plan has no process".into()))?;
    let mut new = 0;
    let mut joined = Vec::new();
    let mut new_cgroup_namespace = false;
    for namespace in &launch.namespaces {
        let flag = i32::try_from(namespace.flag).unwrap_or(0);
        if !namespace.path.is_empty() {
            let path = OsStr::from_bytes(&namespace.path);
            let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .at(|| format!("cannot open namespace {path:?}"))?;
            joined.push((flag, fd));
        } else if flag == libc::CLONE_NEWCGROUP {
            // Its root is where the process is when it is made: after entering the cgroup.
            new_cgroup_namespace = true;
        } else {
            new |= namespace.flag;
        }
    }
    // The child is always alone with its mounts, whatever the spec says.
    new |= u64::try_from(libc::CLONE_NEWNS).unwrap_or(0);
    // A process namespace is joined by children only, so it is the shim that joins.
    if let Some(at) = joined.iter().position(|(flag, _)| *flag == libc::CLONE_NEWPID) {
        let (flag, fd) = joined.remove(at);
        sys::process::join_namespaces(fd.as_fd(), flag).at(|| "cannot join the pid namespace".into())?;
    }
    let rootfs = dir.join(state::ROOTFS);
    match fs::create_dir(&rootfs) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.at(|| format!("cannot make {}", rootfs.display()))?,
    }
    let (ends, child_ends) = match inherited {
        Some(ends) if !process.tty => (Ends::default(), ends),
        _ => pipes(process.tty, launch.stdin_open, true, true)?,
    };
    let (ours, theirs) = conversation::pair()?;
    let birthplace = birthplace(group)?;
    let into = birthplace.as_ref().map(AsFd::as_fd);
    let users = launch.users.as_ref().map(|asked| Users::open(proof, asked)).transpose()?;
    let plan = child::First { launch, dir, group, joined, new_cgroup_namespace, proof, prepared: None };
    let (pid, pidfd) = if let Some(users) = &users {
        users::check(&users.ids, process)?;
        users::give(&child_ends, &users.ids, process);
        users::clone_led(plan, users, process, new, into, child_ends, theirs)?
    } else {
        match sys::process::clone3(proof, new, into).at(|| "cannot clone the container's process".into())? {
            Cloned::Child => {
                drop(ours);
                child::run(theirs, |conversation| child::first(&plan, process, child_ends, conversation))
            }
            Cloned::Parent { pid, pidfd } => {
                drop((theirs, child_ends));
                (pid, pidfd)
            }
        }
    };
    let abandon = |pidfd: &OwnedFd| {
        sys::process::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
        reap(pid);
    };
    run_hooks(launch, &ours, pid).inspect_err(|_| abandon(&pidfd))?;
    let limit = DEADLINE + hooks::creation_limit(launch);
    let mut made = await_ready(&ours, pid, pidfd, ends, true, limit).inspect_err(|_| reap(pid))?;
    if let Some(master) = made.ends.terminal.take_if(|_| !launch.console_socket.is_empty()) {
        send_console(&launch.console_socket, &master).inspect_err(|_| abandon(&made.pidfd))?;
    }
    let pid_namespace = u64::try_from(libc::CLONE_NEWPID).unwrap_or(0);
    if new & pid_namespace != 0 {
        // From now on the shim's children are born in the container: its execs.
        let result = sys::process::join_namespaces(made.pidfd.as_fd(), libc::CLONE_NEWPID);
        if let Err(errno) = result {
            abandon(&made.pidfd);
            return Err(Failure::at("cannot join the container's pid namespace", errno));
        }
    }
    Ok((made, ours))
}

/// Runs the hooks that come between the namespaces and the container's root; the child waits for them.
fn run_hooks(launch: &Launch, ours: &OwnedFd, pid: Pid) -> Result<(), Failure> {
    let Some(hooks) = launch.hooks.as_ref().filter(|hooks| !hooks.create_runtime.is_empty()) else {
        return Ok(());
    };
    if hear(ours.as_fd(), DEADLINE)?.is_none() {
        return Err(Failure::other("the container's process was killed while it was made".into()));
    }
    hooks::run(&hooks.create_runtime, launch, hooks::Status::Creating, pid).map_err(Failure::other)?;
    wire::send(ours.as_fd(), &done(), &[]).at(|| "cannot tell the container that its hooks ran".into())
}

/// Sends the terminal's master to who wants to drive it. Source: runc `docs/terminals.md`.
fn send_console(socket: &[u8], master: &OwnedFd) -> Result<(), Failure> {
    let step = || "cannot send the terminal to the console socket".to_owned();
    let address = rustix::net::SocketAddrUnix::new(OsStr::from_bytes(socket)).at(step)?;
    let stream =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .at(step)?;
    rustix::net::connect(&stream, &address).at(step)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
    let name = [io::IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(&stream, &name, &mut control, rustix::net::SendFlags::NOSIGNAL).at(step)?;
    Ok(())
}

/// Has the waiting child execute the program. An error means that it has ended.
pub(super) fn start(waiting: &OwnedFd) -> Result<(), Failure> {
    wire::send(waiting.as_fd(), &done(), &[]).at(|| "cannot tell the container to start".into())?;
    await_executed(waiting.as_fd())
}

/// Makes one more process in the container and executes its program.
pub(super) fn exec(
    proof: SingleThreaded,
    launch: &Launch,
    container: &Container,
    process: &Process,
    streams: wire::Streams,
) -> Result<Made, Failure> {
    let (ends, child_ends) = pipes(process.tty, streams.stdin, streams.stdout, streams.stderr)?;
    if let Some(ids) = &launch.users {
        users::check(ids, process)?;
        users::give(&child_ends, ids, process);
    }
    let (ours, theirs) = conversation::pair()?;
    let birthplace = birthplace(container.group.as_ref())?;
    let into = birthplace.as_ref().map(AsFd::as_fd);
    match sys::process::clone3(proof, 0, into).at(|| "cannot clone a process".into())? {
        Cloned::Child => {
            drop(ours);
            let plan = child::Further {
                launch,
                group: container.group.as_ref(),
                init: container.init.pidfd.as_fd(),
                proof,
            };
            child::run(theirs, |conversation| child::further(&plan, process, child_ends, conversation))
        }
        Cloned::Parent { pid, pidfd } => {
            drop((theirs, child_ends));
            let made =
                await_ready(&ours, pid, pidfd, ends, process.tty, DEADLINE).inspect_err(|_| reap(pid))?;
            await_executed(ours.as_fd()).inspect_err(|_| {
                sys::process::send_signal(made.pidfd.as_fd(), libc::SIGKILL).ok();
                reap(pid);
            })?;
            Ok(made)
        }
    }
}

fn birthplace(group: Option<&Group>) -> Result<Option<OwnedFd>, Failure> {
    Ok(group.map(Group::birthplace).transpose().at(|| "cannot open the cgroup".into())?.flatten())
}

/// Waits until the child has built its world (and, with `asks`, sent its terminal).
fn await_ready(
    ours: &OwnedFd,
    pid: Pid,
    pidfd: OwnedFd,
    mut ends: Ends,
    asks: bool,
    limit: Duration,
) -> Result<Made, Failure> {
    if asks {
        match hear(ours.as_fd(), limit) {
            Ok(Some(fds)) => ends.terminal = fds.into_iter().next(),
            Ok(None) => {
                return Err(Failure::other("the container's process was killed while it was made".into()));
            }
            Err(failure) => {
                sys::process::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
                return Err(failure);
            }
        }
    }
    Ok(Made { pid, pidfd, ends })
}

/// Waits for the end of the conversation: exec closes it.
fn await_executed(ours: BorrowedFd<'_>) -> Result<(), Failure> {
    while hear(ours, DEADLINE)?.is_some() {}
    Ok(())
}
