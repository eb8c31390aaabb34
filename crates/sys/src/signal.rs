//! Signal dispositions, which survive execve when they are "ignore", and signal masks, which always do.

use crate::process::check;
use rustix::io::Result;
use std::{mem::MaybeUninit, ptr};

/// Highest signal number. Source: signal(7).
const HIGHEST: i32 = 64;

/// Gives every signal its default action and blocks none: what a fresh program expects.
pub fn reset_all() {
    // `struct kernel_sigaction`: handler, flags, restorer, mask; all zero is SIG_DFL with an empty mask.
    let default = [0_u64; 4];
    for signal in 1..=HIGHEST {
        // JUSTIFICATION: std sets SIGPIPE to "ignore", and an ignored signal stays ignored through execve; libc's
        // own function refuses two signals that a parent may have ignored all the same.
        // SAFETY: SIG_DFL runs no code of ours; the kernel reads a struct of 32 bytes with a mask of 8. SIGKILL and
        // SIGSTOP are refused, which is fine.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8) };
    }
    set_mask(false).expect("an empty mask cannot be refused");
}

/// Blocks all signals: they stay pending for [`wait_any`].
///
/// # Errors
/// Never on Linux.
pub fn block_all() -> Result<()> {
    set_mask(true)
}

fn set_mask(full: bool) -> Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // JUSTIFICATION: sigset_t is opaque and only libc fills it.
    // SAFETY: both functions initialise the set they are given.
    let filled = unsafe { (if full { libc::sigfillset } else { libc::sigemptyset })(set.as_mut_ptr()) };
    check(filled.into())?;
    // JUSTIFICATION: rustix has no sigprocmask outside its experimental `runtime` module.
    // SAFETY: the set was initialised above; the old mask is not asked for.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) };
    check(result.into()).map(|_| ())
}

/// Waits for one of the blocked signals and returns its number. Source: sigwaitinfo(2).
///
/// # Errors
/// `INTR` when something else woke it.
pub fn wait_any() -> Result<i32> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // JUSTIFICATION: sigset_t is opaque and only libc fills it.
    // SAFETY: sigfillset initialises the set.
    let filled = unsafe { libc::sigfillset(set.as_mut_ptr()) };
    check(filled.into())?;
    // JUSTIFICATION: a pid 1 without a poll loop needs to wait for signals.
    // SAFETY: the set was initialised above; a null siginfo is allowed.
    let result = unsafe { libc::sigwaitinfo(set.as_ptr(), ptr::null_mut()) };
    check(result.into()).map(|signal| i32::try_from(signal).unwrap_or_default())
}

/// Ignores broken pipes, child ends and hang-ups: for a supervisor that learns all of that from descriptors.
pub fn ignore_for_supervisor() {
    for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2] {
        // JUSTIFICATION: no safe function sets a disposition.
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
