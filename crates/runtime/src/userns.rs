//! User namespaces: which ids of the host a container's ids are, and namespaces that are made before the container.
//!
//! Root of a container with one is an ordinary user of the host. What lies on the disk belongs to the ids that the
//! container sees; idmapped mounts show it so (see `shim::mounts`), and nothing is copied or changed owner.
//!
//! Source: user_namespaces(7); kernel Documentation/filesystems/idmappings.rst.

use crate::{Error, ShimProgram, client::DEADLINE};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
    process::{Pid, PidfdFlags},
};
use serde::{Deserialize, Serialize};
use shim::{
    state,
    userns::{KEEPER, TRIAL, write_maps},
    wire::{self, Received},
};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Instant,
};

/// Most ranges of one map. Source: user_namespaces(7).
const RANGES_MAX: usize = 340;

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id as the container sees it.
    pub inside: u32,
    /// First id as the host sees it.
    pub outside: u32,
    pub count: u32,
}

/// Which ids of the host a container's users and groups are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    let of = |r: &IdRange| id.checked_sub(r.inside).filter(|n| *n < r.count).map(|n| r.outside + n);
    ranges.iter().find_map(of)
}

fn inside(ranges: &[IdRange], id: u32) -> Option<u32> {
    let of = |r: &IdRange| id.checked_sub(r.outside).filter(|n| *n < r.count).map(|n| r.inside + n);
    ranges.iter().find_map(of)
}

impl IdMap {
    /// Returns the host's id of a user of the container; `None` = it has none.
    #[must_use]
    pub fn uid_outside(&self, uid: u32) -> Option<u32> {
        outside(&self.uids, uid)
    }

    /// As [`uid_outside`](Self::uid_outside), of a group.
    #[must_use]
    pub fn gid_outside(&self, gid: u32) -> Option<u32> {
        outside(&self.gids, gid)
    }

    /// Returns the container's id of a user of the host; `None` = it is nobody there.
    #[must_use]
    pub fn uid_inside(&self, uid: u32) -> Option<u32> {
        inside(&self.uids, uid)
    }

    /// As [`uid_inside`](Self::uid_inside), of a group.
    #[must_use]
    pub fn gid_inside(&self, gid: u32) -> Option<u32> {
        inside(&self.gids, gid)
    }

    /// Refuses a map that the kernel would not take, or without root.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        for (what, ranges) in [("uids", &self.uids), ("gids", &self.gids)] {
            if ranges.len() > RANGES_MAX {
                return Err(format!("more than {RANGES_MAX} ranges of {what}"));
            }
            for (n, range) in ranges.iter().enumerate() {
                let IdRange { inside, outside, count } = *range;
                let whole =
                    count > 0 && inside.checked_add(count).is_some() && outside.checked_add(count).is_some();
                if !whole {
                    return Err(format!("{what} {inside}:{outside}:{count} are no range"));
                }
                let apart = |a: u32, b: u32, count_b: u32| a + count <= b || b + count_b <= a;
                if let Some(other) = ranges[..n].iter().find(|other| {
                    !apart(inside, other.inside, other.count) || !apart(outside, other.outside, other.count)
                }) {
                    let (a, b, c) = (other.inside, other.outside, other.count);
                    return Err(format!("{what} {inside}:{outside}:{count} overlap {a}:{b}:{c}"));
                }
            }
            if self::outside(ranges, 0).is_none() {
                return Err(format!("{what} do not have root, id 0"));
            }
        }
        Ok(())
    }
}

/// A user namespace, and perhaps a network namespace that it owns. They end with the last descriptor, process or mount
/// that has them.
#[derive(Debug)]
pub struct UserNamespace {
    user: OwnedFd,
    network: Option<OwnedFd>,
}

impl UserNamespace {
    /// Makes them by a process of `program` that is gone again when this returns: only a process with one thread can
    /// make a user namespace.
    ///
    /// # Errors
    /// When the map is none, the kernel refuses, or it takes longer than 10 s.
    pub fn new(program: &ShimProgram, map: &IdMap, network: bool) -> Result<Self, Error> {
        map.check().map_err(|reason| Error::Users { source: io::Error::other(reason) })?;
        let prepare = |pid| write_maps(pid, &ranges_of(&map.uids), &ranges_of(&map.gids));
        Self::by_keeper(program, None, network, prepare).map_err(|source| Error::Users { source })
    }

    /// Takes the user namespace at `path`, and makes a network namespace in it.
    ///
    /// # Errors
    /// As [`new`](Self::new); when there is no user namespace at `path`.
    pub fn of(program: &ShimProgram, path: &Path, network: bool) -> Result<Self, Error> {
        let made = match network {
            true => Self::by_keeper(program, Some(path), true, |_| Ok(())),
            false => File::open(path).map(|file| Self { user: file.into(), network: None }),
        };
        made.map_err(|source| Error::Users { source })
    }

    fn by_keeper(
        program: &ShimProgram,
        existing: Option<&Path>,
        network: bool,
        prepare: impl FnOnce(Pid) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = program.command();
        command.arg(KEEPER).arg(if network { "network" } else { "none" }).args(existing);
        let mut keeper =
            command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let pid = i32::try_from(keeper.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let made = Self::from_keeper(&ours, pid, network, prepare);
        // It ends by itself when nobody listens; if it hangs, it shall not.
        drop(ours);
        keeper.kill().ok();
        keeper.wait()?;
        made
    }

    fn from_keeper(
        ours: &OwnedFd,
        pid: Pid,
        network: bool,
        prepare: impl FnOnce(Pid) -> io::Result<()>,
    ) -> io::Result<Self> {
        let until = Instant::now() + DEADLINE;
        let next = |ours: &OwnedFd| -> io::Result<()> {
            loop {
                match wire::receive::<wire::Failed>(ours.as_fd())? {
                    Received::Message(said, _) if said.message.is_empty() => return Ok(()),
                    Received::Message(said, _) => return Err(io::Error::other(said.message)),
                    Received::End => return Err(io::Error::other("the process that makes it ended")),
                    Received::Nothing => {
                        let left = until.saturating_duration_since(Instant::now());
                        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
                        let mut fds = [PollFd::new(ours, PollFlags::IN)];
                        match rustix::event::poll(&mut fds, Some(&timeout)) {
                            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                            Ok(_) | Err(Errno::INTR) => {}
                            Err(errno) => return Err(errno.into()),
                        }
                    }
                }
            }
        };
        next(ours)?;
        prepare(pid)?;
        wire::send(ours.as_fd(), &wire::Empty {}, &[])?;
        next(ours)?;
        let open = |of: &str| File::open(namespace_file(pid, of)).map(OwnedFd::from);
        Ok(Self { user: open("user")?, network: network.then(|| open("net")).transpose()? })
    }

    /// Returns a path by which another process of root on this host can open it as long as `self` lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let pid = rustix::process::getpid().as_raw_nonzero();
        PathBuf::from(format!("/proc/{pid}/fd/{}", self.user.as_raw_fd()))
    }

    /// Takes out the network namespace.
    pub fn take_network(&mut self) -> Option<OwnedFd> {
        self.network.take()
    }

    /// Tries whether files below `folder` can be shown as those of other ids.
    ///
    /// # Errors
    /// When its filesystem, or the kernel, cannot do that.
    pub fn try_map(&self, folder: &Path) -> io::Result<()> {
        use rustix::mount::OpenTreeFlags;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(rustix::fs::CWD, folder, flags)?;
        Ok(sys::mount::map_ids(tree.as_fd(), self.user.as_fd(), false)?)
    }
}

/// Tries whether a container with these ids can have layers below `folder`: makes some there, mounts them as a
/// container's would be, and takes them away again. Blocking.
///
/// # Errors
/// When the kernel or the filesystem cannot do that, with the step.
pub fn try_layers(program: &ShimProgram, map: &IdMap, folder: &Path) -> Result<(), Error> {
    map.check().map_err(|reason| Error::Users { source: io::Error::other(reason) })?;
    let tried = mount_layers(program, map, folder);
    let removed = match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Remove { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    };
    tried.and(removed)
}

fn mount_layers(program: &ShimProgram, map: &IdMap, folder: &Path) -> Result<(), Error> {
    let prepare = |source| Error::Prepare { dir: folder.to_owned(), source };
    let bytes = |path: PathBuf| path.into_os_string().into_vec();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| folder.join(name));
    for path in [&lower, &upper, &work, &folder.join(state::ROOTFS)] {
        fs::create_dir_all(path).map_err(prepare)?;
    }
    let launch = wire::Launch {
        version: wire::VERSION,
        root: Some(wire::Root {
            lowers: vec![bytes(lower)],
            upper: bytes(upper),
            work: bytes(work),
            propagation: libc::MS_SLAVE,
            map_ids: true,
            ..wire::Root::default()
        }),
        users: Some(wire::UserNamespace {
            path: Vec::new(),
            uids: ranges_of(&map.uids),
            gids: ranges_of(&map.gids),
        }),
        ..wire::Launch::default()
    };
    fs::write(folder.join(state::PLAN), prost::Message::encode_to_vec(&launch)).map_err(prepare)?;
    let said = folder.join(state::STDERR);
    let stderr = File::create(&said).map_err(prepare)?;
    let mut command = program.command();
    command.arg(TRIAL).arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut trial = command.spawn().map_err(|source| Error::Users { source })?;
    let ended = wait(&mut trial).map_err(|source| Error::Users { source })?;
    if ended.success() {
        return Ok(());
    }
    let message = fs::read_to_string(&said).unwrap_or_default();
    Err(Error::Create { message: message.trim().to_owned() })
}

/// Waits for the end of a process, which is killed when it takes too long.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let until = Instant::now() + DEADLINE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => continue,
            Ok(0) => child.kill()?,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        return child.wait();
    }
}

fn ranges_of(ranges: &[IdRange]) -> Vec<wire::IdRange> {
    let of = |r: &IdRange| wire::IdRange { inside: r.inside, outside: r.outside, count: r.count };
    ranges.iter().map(of).collect()
}

fn namespace_file(pid: Pid, of: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/ns/{of}", pid.as_raw_nonzero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    #[test]
    fn ids_are_found_in_both_directions() {
        let ranges = vec![range(0, 100_000, 1000), range(1000, 500_000, 10)];
        let map = IdMap { uids: ranges.clone(), gids: ranges };
        map.check().unwrap();
        assert_eq!(map.uid_outside(0), Some(100_000));
        assert_eq!(map.gid_outside(1009), Some(500_009));
        assert_eq!(map.uid_outside(1010), None);
        assert_eq!(map.uid_inside(100_999), Some(999));
        assert_eq!(map.gid_inside(500_000), Some(1000));
        assert_eq!(map.uid_inside(0), None, "the host's root is nobody inside");
    }

    #[test]
    fn maps_that_the_kernel_would_not_take_are_refused() {
        let checked = |ranges: &[IdRange]| {
            IdMap { uids: ranges.to_vec(), gids: vec![range(0, 100_000, 65_536)] }.check().unwrap_err()
        };
        assert!(checked(&[]).contains("root"));
        assert!(checked(&[range(1, 100_000, 5)]).contains("root"));
        assert!(checked(&[range(0, 100_000, 0)]).contains("no range"));
        assert!(checked(&[range(0, u32::MAX, 2)]).contains("no range"));
        assert!(checked(&[range(0, 100_000, 10), range(5, 200_000, 10)]).contains("overlap"));
        assert!(checked(&[range(0, 100_000, 10), range(10, 100_009, 10)]).contains("overlap"));
    }
}
