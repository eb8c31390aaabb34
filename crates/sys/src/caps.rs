//! Capabilities of the calling thread, by number: bit n of a mask is capability n.

use crate::process::check;
use rustix::io::{Errno, Result};

/// Takes a capability out of the bounding set, for ever. Unknown numbers are none. Source: prctl(2)
/// `PR_CAPBSET_DROP`.
///
/// # Errors
/// `PERM` without CAP_SETPCAP.
pub fn drop_from_bounding_set(capability: u32) -> Result<()> {
    // JUSTIFICATION: rustix takes an enum that newer capabilities are missing from.
    // SAFETY: this prctl has no memory arguments.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    match check(result.into()) {
        Ok(_) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Sets the thread's sets. Source: capset(2), version 3.
///
/// # Errors
/// `PERM` when `permitted` has what the thread lacks.
pub fn set(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Sets {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let sets = [half(0), half(32)];
    // JUSTIFICATION: rustix's flags are missing newer capabilities.
    // SAFETY: version 3 reads a header and two structs of three words, which is what is passed.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    check(result).map(|_| ())
}

/// Adds a capability to the ambient set. Source: prctl(2) `PR_CAP_AMBIENT_RAISE`.
///
/// # Errors
/// `PERM` when it is not permitted and inheritable.
pub fn raise_ambient(capability: u32) -> Result<()> {
    // JUSTIFICATION: as above.
    // SAFETY: this prctl has no memory arguments.
    let result = unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, libc::c_ulong::from(capability), 0, 0)
    };
    check(result.into()).map(|_| ())
}
