//! A container with a user namespace of its own, from outside of it.
//!
//! Its first process has no right to anything of the host: it cannot look into the folders of the engine, make a node
//! or mount a layer. So a process of the host's root goes before it, the usher:
//!
//! ```text
//!   shim ---clone3---> usher: cgroup, limits, mounts of the host's files (mounts::prepare)
//!    |                   | setns(user namespace), clone3(the other namespaces, CLONE_PARENT)
//!    | <--- pidfd ------ | ------------------> child::first, with what was prepared
//!    |                 ends
//! ```

use super::{
    child::{self, First},
    conversation::{self, ChildEnds, DEADLINE},
    failure::{At, Failure},
};
use crate::{
    userns,
    wire::{self, Launch, Process},
};
use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    process::Pid,
};
use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};
use sys::process::{Cloned, SingleThreaded};

/// The user namespace that the container will have, and the ids of the host that it has.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) namespace: OwnedFd,
    pub(super) ids: wire::UserNamespace,
}

impl Users {
    /// Opens the one that is asked for, or makes it.
    pub(super) fn open(proof: SingleThreaded, asked: &wire::UserNamespace) -> Result<Self, Failure> {
        let ids = asked.clone();
        if asked.path.is_empty() {
            let step = || "cannot make a user namespace".to_owned();
            let new = u64::try_from(libc::CLONE_NEWUSER).unwrap_or(0);
            let namespace = with_dweller(
                proof,
                new,
                || {},
                |pid| {
                    userns::write_maps(pid, &ids.uids, &ids.gids).at(step)?;
                    open_namespace(format!("/proc/{}/ns/user", pid.as_raw_nonzero()))
                },
            )?;
            return Ok(Self { namespace, ids });
        }
        Ok(Self { namespace: open_namespace(OsStr::from_bytes(&asked.path))?, ids })
    }
}

/// Finds out which ids a user namespace has that is only named.
pub(super) fn complete(proof: SingleThreaded, launch: &mut Launch) -> Result<(), Failure> {
    let Some(users) = launch.users.as_mut().filter(|users| users.uids.is_empty()) else { return Ok(()) };
    let path = OsStr::from_bytes(&users.path);
    let namespace = open_namespace(path)?;
    let step = || format!("cannot read the ids of user namespace {path:?}");
    let enter = || match sys::process::join_namespaces(namespace.as_fd(), libc::CLONE_NEWUSER) {
        Ok(()) => {}
        // The map would be that of another one.
        Err(_) => sys::process::exit_now(1),
    };
    let maps = with_dweller(proof, 0, enter, |pid| {
        let map = |file| userns::read_map(pid, file).at(step);
        Ok((map("uid_map")?, map("gid_map")?))
    })?;
    (users.uids, users.gids) = maps;
    Ok(())
}

fn open_namespace(path: impl AsRef<OsStr>) -> Result<OwnedFd, Failure> {
    let path = path.as_ref();
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(|| format!("cannot open user namespace {path:?}"))
}

/// Runs `look` while a process that has done `first` waits.
fn with_dweller<T>(
    proof: SingleThreaded,
    new: u64,
    first: impl FnOnce(),
    look: impl FnOnce(Pid) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let step = || "cannot make a user namespace".to_owned();
    let (ours, theirs) = conversation::pair()?;
    match sys::process::clone3(proof, new, None).at(step)? {
        Cloned::Child => {
            drop(ours);
            first();
            // Without an answer the shim gives up by itself.
            wire::send(theirs.as_fd(), &conversation::done(), &[]).ok();
            userns::await_message(theirs.as_fd()).ok();
            sys::process::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let ended = || Failure::other(format!("{}: it cannot be joined", step()));
            let looked = conversation::hear(ours.as_fd(), DEADLINE)
                .and_then(|said| said.ok_or_else(ended))
                .and_then(|_| look(pid));
            sys::process::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
            conversation::reap(pid);
            looked
        }
    }
}

/// Refuses a process whose user or groups the container's user namespace does not have.
pub(super) fn check(ids: &wire::UserNamespace, process: &Process) -> Result<(), Failure> {
    let unmapped = |what: &str, id: u32| {
        Failure::other(format!("{what} {id} is not among the ids of the container's user namespace"))
    };
    if ids.ids(process.uid, 0).is_none() {
        return Err(unmapped("user", process.uid));
    }
    let groups = [process.gid].into_iter().chain(process.groups.iter().copied());
    groups
        .into_iter()
        .find(|gid| ids.ids(0, *gid).is_none())
        .map_or(Ok(()), |gid| Err(unmapped("group", gid)))
}

/// Gives the pipes to the container's user: the program may open /dev/stdout again.
pub(super) fn give(ends: &ChildEnds, ids: &wire::UserNamespace, process: &Process) {
    let Some((uid, gid)) = ids.ids(process.uid, process.gid) else { return };
    for pipe in [&ends.stdin, &ends.stdout, &ends.stderr].into_iter().flatten() {
        if conversation::is_pipe(pipe) {
            rustix::fs::fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).ok();
        }
    }
}

/// Makes the container's first process by an usher; `plan.prepared` is empty until then.
pub(super) fn clone_led(
    mut plan: First<'_>,
    users: &Users,
    process: &Process,
    new: u64,
    birthplace: Option<BorrowedFd<'_>>,
    ends: ChildEnds,
    theirs: OwnedFd,
) -> Result<(Pid, OwnedFd), Failure> {
    let proof = plan.proof;
    let (told, tells) = conversation::pair()?;
    match sys::process::clone3(proof, 0, birthplace).at(|| "cannot clone the usher".into())? {
        Cloned::Child => {
            drop(told);
            child::run(tells, |shim| {
                plan.prepared = Some(child::prepare(&plan, process, users)?);
                let new = new | u64::try_from(libc::CLONE_PARENT).unwrap_or(0);
                match sys::process::clone3(proof, new, None)
                    .at(|| "cannot clone the container's process".into())?
                {
                    Cloned::Child => {
                        child::run(theirs, |conversation| child::first(&plan, process, ends, conversation))
                    }
                    Cloned::Parent { pidfd, .. } => {
                        wire::send(shim, &conversation::done(), &[pidfd.as_fd()])
                            .at(|| "cannot tell the shim".into())?;
                        sys::process::exit_now(0)
                    }
                }
            })
        }
        Cloned::Parent { pid, pidfd } => {
            drop((tells, theirs, ends));
            let heard = conversation::hear(told.as_fd(), DEADLINE);
            if heard.is_err() {
                sys::process::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
            }
            conversation::reap(pid);
            let killed = || Failure::other("the container's process was killed while it was made".into());
            let made = heard?.and_then(|fds| fds.into_iter().next()).ok_or_else(killed)?;
            Ok((pid_of(&made)?, made))
        }
    }
}

/// Returns the number that a process has here, which may differ from where it was made. Source: pidfd_open(2),
/// `fdinfo`.
fn pid_of(pidfd: &OwnedFd) -> Result<Pid, Failure> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = fs::read_to_string(&path).at(|| "cannot find the container's process".into())?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number
        .and_then(Pid::from_raw)
        .ok_or_else(|| Failure::other("the container's process was killed while it was made".into()))
}
