//! The shim's part in user namespaces: those that are made before the container, and files that are made in one.
//!
//! Source: user_namespaces(7); kernel Documentation/filesystems/idmappings.rst.

use crate::wire::{self, Received};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    process::Pid,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

/// Argument that makes the shim's program a keeper of namespaces: see `keep`.
pub const KEEPER: &str = "--namespaces";
/// Argument that makes the shim's program try the layers of a folder: see `try_layers`.
pub const TRIAL: &str = "--try-layers";

/// Runs `work` with files made as those of this user and group, and with all of the calling thread's rights. Through an
/// idmapped mount, and through an overlay on one, ids that are not mapped (the host's root) cannot make a file.
///
/// # Errors
/// When the thread may not have these ids.
pub fn making_files_as<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    use rustix::thread::{
        CapabilitiesSecureBits as Bits, capabilities_secure_bits, set_capabilities_secure_bits,
    };
    /// Takes the thread's own ids back, whatever happens meanwhile.
    struct Back(Bits);
    impl Drop for Back {
        fn drop(&mut self) {
            let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            sys::process::set_fs_ids(own.0, own.1).expect("a thread may always have its own ids");
            set_capabilities_secure_bits(self.0).expect("they could be changed a moment ago");
        }
    }
    let before = capabilities_secure_bits()?;
    // Else the change would cost the capabilities that are about files.
    set_capabilities_secure_bits(before | Bits::NO_SETUID_FIXUP)?;
    let _back = Back(before);
    sys::process::set_fs_ids(uid, gid)?;
    Ok(work())
}

/// Gives a new user namespace its ids. Source: user_namespaces(7), "Defining user and group ID mappings".
pub fn write_maps(pid: Pid, uids: &[wire::IdRange], gids: &[wire::IdRange]) -> io::Result<()> {
    let text = |ranges: &[wire::IdRange]| -> String {
        ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count)).collect()
    };
    let pid = pid.as_raw_nonzero();
    fs::write(format!("/proc/{pid}/uid_map"), text(uids))?;
    fs::write(format!("/proc/{pid}/gid_map"), text(gids))
}

/// Reads the ids that a process's user namespace has, as this process sees them.
pub(crate) fn read_map(pid: Pid, file: &str) -> io::Result<Vec<wire::IdRange>> {
    let text = fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero()))?;
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(wire::IdRange { inside: next()?, outside: next()?, count: next()? })
    };
    text.lines()
        .map(|text| line(text).ok_or_else(|| io::Error::other(format!("{text:?} in {file} is no range"))))
        .collect()
}

/// What the keeper does: makes the user namespace and has it mapped (or joins the one at `existing`), makes the network
/// namespace in it, and waits until they were taken. `args`: whether a network namespace is wanted, `existing`.
pub(crate) fn keep(daemon: BorrowedFd<'_>, args: &[OsString]) -> io::Result<()> {
    let network = args.first().is_some_and(|word| word == "network");
    let told = keep_until_told(daemon, network, args.get(1).map(Path::new));
    if let Err(error) = &told {
        let said = wire::Failed { message: error.to_string(), exec_code: 0 };
        wire::send(daemon, &said, &[])?;
    }
    told
}

fn keep_until_told(daemon: BorrowedFd<'_>, network: bool, existing: Option<&Path>) -> io::Result<()> {
    let ready = wire::Failed::default();
    match existing {
        Some(path) => sys::process::join_namespaces(File::open(path)?.as_fd(), libc::CLONE_NEWUSER)?,
        None => sys::process::unshare_namespaces(libc::CLONE_NEWUSER)?,
    }
    wire::send(daemon, &ready, &[])?;
    await_message(daemon)?;
    if network {
        // Only now: what the kernel puts in it belongs to the namespace's root, which there was not before.
        sys::process::unshare_namespaces(libc::CLONE_NEWNET)?;
    }
    wire::send(daemon, &ready, &[])?;
    await_message(daemon)
}

/// Waits for a message or the end of the conversation.
pub(crate) fn await_message(peer: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match wire::receive::<wire::Empty>(peer)? {
            Received::Message(..) | Received::End => return Ok(()),
            Received::Nothing => {
                let mut fds = [PollFd::from_borrowed_fd(peer, PollFlags::IN)];
                match rustix::event::poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
    }
}

impl wire::UserNamespace {
    /// Returns the ids of the container's root on the host.
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        self.ids(0, 0)
    }

    /// Returns where a user and a group of the container are on the host.
    pub(crate) fn ids(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let of = |ranges: &[wire::IdRange], id: u32| {
            let of =
                |r: &wire::IdRange| id.checked_sub(r.inside).filter(|n| *n < r.count).map(|n| r.outside + n);
            ranges.iter().find_map(of)
        };
        Some((of(&self.uids, uid)?, of(&self.gids, gid)?))
    }
}
