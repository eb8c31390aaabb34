//! Making processes: clone3, execve, namespaces, and what a new process must put in order before it executes.

use rustix::{
    io::{Errno, Result},
    process::Pid,
};
use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// Turns the result of a raw system call into a `Result`.
pub(crate) fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result >= 0 {
        return Ok(result);
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(Errno::from_raw_os_error(errno))
}

/// Proof that this process has one thread.
///
/// A copy of such a process has consistent memory: no lock (of the allocator, say) is held by a thread that the
/// copy lacks. So the copy may run ordinary code, and [`clone3`] can be a safe function.
#[derive(Debug, Clone, Copy)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Looks whether there is one thread only. Whoever holds the proof must not start threads afterwards; in
    /// safe code that would still be sound for everything but [`clone3`], whose copy could hang.
    ///
    /// # Errors
    /// When there are more, or `/proc` cannot be read.
    pub fn prove() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            n => Err(io::Error::other(format!("{n} threads where one is needed"))),
        }
    }
}

/// Source: linux/sched.h; libc's constant overflows.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What [`clone3`] returned in.
#[derive(Debug)]
pub enum Cloned {
    /// The new process; end it with [`exec`](execve) or [`exit_now`].
    Child,
    /// The old one, with the child's id in this pid namespace and a descriptor for it.
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// Copies this process: fork with namespaces. `flags` are `CLONE_NEW*` bits, and `CLONE_PARENT` for a child of this
/// process's own parent; `into_cgroup` is a directory of a cgroup2 mount. The child's end is told by SIGCHLD.
/// Source: clone(2).
///
/// # Errors
/// As clone(2), e.g. `NOSPC` for too many namespaces, `PERM`.
pub fn clone3(_proof: SingleThreaded, flags: u64, into_cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    const ALLOWED: i32 = libc::CLONE_PARENT
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUSER;
    if flags & !(ALLOWED as u64) != 0 {
        return Err(Errno::INVAL);
    }
    // A sibling's end is told as this process's own is, and nothing else may be asked for.
    let told_by = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: told_by,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // JUSTIFICATION: no crate offers clone3 with a pidfd and a cgroup as a safe function.
    // SAFETY: without CLONE_VM the child has its own copy of memory and returns on its copy of this stack (stack
    // = 0); the proof says no other thread exists, so no lock is left held in the copy. `args` and `pidfd` live
    // through the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    let pid = check(result)?;
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(Cloned::Child) };
    // JUSTIFICATION: the kernel hands the pidfd out as a number.
    // SAFETY: CLONE_PIDFD stored a new descriptor there that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid, pidfd })
}

/// Argument and environment vectors as execve wants them.
#[derive(Debug)]
pub struct Vectors {
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Vectors {
    /// Keeps the strings and a null-terminated list of pointers to them.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        // The heap buffer of a CString does not move when the CString does.
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// Replaces this process's program. Returns only on failure. Source: execve(2).
#[must_use]
pub fn execve(path: &CStr, args: &Vectors, env: &Vectors) -> Errno {
    // JUSTIFICATION: rustix offers execve only in its unsafe, experimental `runtime` module.
    // SAFETY: the path is a C string; both vectors are null-terminated lists of C strings that they own.
    let result = unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    check(result.into()).err().unwrap_or(Errno::IO)
}

/// Ends this process at once: no destructors, no exit handlers, no flushing. Source: _exit(2).
pub fn exit_now(code: i32) -> ! {
    // JUSTIFICATION: std's exit runs handlers that belong to the process this one was copied from.
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on close-on-exec. Source: close_range(2).
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // JUSTIFICATION: rustix has no close_range.
    // SAFETY: the call only sets a flag; no descriptor is closed under an owner.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result).map(|_| ())
}

/// Closes every descriptor but the standard three, then runs `then` for the rest of this process's life.
///
/// For a copy of a process that becomes an init: nothing of the original's descriptors may stay open in it.
pub fn close_all_and_become(then: fn(i32) -> std::convert::Infallible, argument: i32) -> ! {
    // JUSTIFICATION: the copy's owners of these descriptors are on stack frames that never run again.
    // SAFETY: control never returns to code that owns a descriptor: `then` is a plain function that can capture
    // none, and it does not return.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    match then(argument) {}
}

/// Leaves namespaces for new ones. Source: unshare(2).
///
/// # Errors
/// As unshare(2); `INVAL` for anything but namespace bits.
pub fn unshare_namespaces(flags: libc::c_int) -> Result<()> {
    let allowed = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUSER;
    if flags & !allowed != 0 {
        return Err(Errno::INVAL);
    }
    // JUSTIFICATION: rustix marks unshare unsafe because of CLONE_FILES, which is excluded here.
    // SAFETY: changing namespaces does not touch memory or descriptors.
    let result = unsafe { libc::unshare(flags) };
    check(result.into()).map(|_| ())
}

/// Joins namespaces: `fd` is a namespace file (`flags` = its kind or 0) or a pidfd (`flags` = which ones).
/// Source: setns(2).
///
/// # Errors
/// As setns(2).
pub fn join_namespaces(fd: BorrowedFd<'_>, flags: libc::c_int) -> Result<()> {
    // JUSTIFICATION: one function for both kinds of descriptor; rustix splits them into two flag types.
    // SAFETY: setns has no memory arguments.
    let result = unsafe { libc::setns(fd.as_raw_fd(), flags) };
    check(result.into()).map(|_| ())
}

/// Sends any signal number (0 and real-time ones included) to a process. Source: pidfd_send_signal(2).
///
/// # Errors
/// `SRCH` when it has ended, `INVAL` for no signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // JUSTIFICATION: rustix's Signal type has no real-time signals.
    // SAFETY: a null siginfo is allowed and means "as kill(2)".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(|_| ())
}

/// Sets a resource limit by its raw number. `u64::MAX` = unlimited. Source: prlimit(2).
///
/// # Errors
/// As prlimit(2).
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // JUSTIFICATION: rustix's Resource is an enum; the plan holds the kernel's number.
    // SAFETY: `limit` is valid for reading through the call, and the old limit is not asked for.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, ptr::null_mut::<libc::rlimit64>())
    };
    check(result).map(|_| ())
}

/// Returns a resource limit by its raw number: soft, hard. `u64::MAX` = unlimited. Source: prlimit(2).
///
/// # Errors
/// As prlimit(2).
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // JUSTIFICATION: as for `set_rlimit`.
    // SAFETY: `limit` is valid for writing through the call, and no new limit is given.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, ptr::null::<libc::rlimit64>(), &raw mut limit)
    };
    check(result).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// Sets the ids with which the calling thread makes files; its other ids stay. Source: setfsuid(2).
///
/// # Errors
/// `PERM` when it may not have them.
pub fn set_fs_ids(uid: u32, gid: u32) -> Result<()> {
    // JUSTIFICATION: rustix has no setfsuid.
    // SAFETY: no memory arguments.
    unsafe { libc::setfsgid(gid) };
    // JUSTIFICATION: as above.
    // SAFETY: as above.
    unsafe { libc::setfsuid(uid) };
    // The calls tell nothing but what was set before; -1 is no id and changes nothing.
    // JUSTIFICATION: as above.
    // SAFETY: as above.
    let gid_now = unsafe { libc::setfsgid(u32::MAX) };
    // JUSTIFICATION: as above.
    // SAFETY: as above.
    let uid_now = unsafe { libc::setfsuid(u32::MAX) };
    if (uid_now.cast_unsigned(), gid_now.cast_unsigned()) == (uid, gid) { Ok(()) } else { Err(Errno::PERM) }
}

/// Sets the size of a terminal. Source: ioctl_tty(2), `TIOCSWINSZ`.
///
/// # Errors
/// `NOTTY` when it is none.
pub fn set_terminal_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<()> {
    rustix::termios::tcsetwinsize(
        terminal,
        rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 },
    )
}

/// How a process ended, known to anyone who holds a pidfd, also after its parent has reaped it (Linux 6.15).
/// The value is wait(2)'s status; `None` = it still runs, or this kernel does not tell.
/// Source: ioctl_pidfd(2), `PIDFD_GET_INFO`.
#[must_use]
pub fn exit_status_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `struct pidfd_info`, first published size.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroupid: u64,
        pid: u32,
        tgid: u32,
        ppid: u32,
        ruid: u32,
        rgid: u32,
        euid: u32,
        egid: u32,
        suid: u32,
        sgid: u32,
        fsuid: u32,
        fsgid: u32,
        exit_code: i32,
    }
    /// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)`.
    const PIDFD_GET_INFO: libc::c_ulong =
        (3 << 30) | ((size_of::<Info>() as libc::c_ulong) << 16) | (0xff << 8) | 11;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // JUSTIFICATION: no crate knows this ioctl.
    // SAFETY: the request number carries the size of `info`; the kernel writes at most that much.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn exit_status_is_known_to_whoever_holds_a_pidfd() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read x; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        assert_eq!(exit_status_of(pidfd.as_fd()), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        // Kernels before 6.15 do not tell.
        assert!(matches!(exit_status_of(pidfd.as_fd()), Some(0x700) | None));
        assert_eq!(send_signal(pidfd.as_fd(), 0).unwrap_err(), Errno::SRCH);
    }

    #[test]
    fn only_namespaces_can_be_asked_for() {
        assert_eq!(unshare_namespaces(libc::CLONE_FILES).unwrap_err(), Errno::INVAL);
    }
}
