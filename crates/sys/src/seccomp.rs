//! Installing a seccomp filter.

use crate::process::check;
use rustix::io::{Errno, Result};

/// One BPF instruction. Source: linux/filter.h `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// Gives this thread and all its descendants the filter, for ever. Needs CAP_SYS_ADMIN or no_new_privs.
/// Source: seccomp(2) `SECCOMP_SET_MODE_FILTER`.
///
/// # Errors
/// As seccomp(2): `INVAL` for a program that the kernel does not accept.
pub fn install(program: &[Instruction], flags: u32) -> Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // JUSTIFICATION: no crate in use installs a prepared program.
    // SAFETY: `Instruction` has the layout of `sock_filter`; the kernel copies `len` of them and writes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    check(result).map(|_| ())
}
