//! mount_setattr(2), the one call of the new mount API that rustix lacks.

use rustix::io::{Errno, Result};
use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd},
};

/// What to change about a mount. Source: mount_setattr(2), `struct mount_attr`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to add.
    pub set: u64,
    /// `MOUNT_ATTR_*` to take away.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`; 0 = as it is.
    pub propagation: u64,
}

/// Changes the mount that `dir` is (with an empty `path`) or that `path` below it is; with `recursive` all mounts
/// under it too.
///
/// # Errors
/// As mount_setattr(2); nothing is changed then.
pub fn set_attributes(
    dir: BorrowedFd<'_>,
    path: &CStr,
    attributes: Attributes,
    recursive: bool,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    change(dir, path, attr, recursive)
}

/// Has the detached mount `tree` (with `recursive` all mounts under it too) show its files as those of `users`, a user
/// namespace: what belongs to id 0 on the disk belongs to its id 0, and the other way round for what is written.
/// Source: mount_setattr(2), "ID-mapped mounts".
///
/// # Errors
/// As mount_setattr(2): `INVAL` when its filesystem cannot do that, `PERM` when it is mapped already.
pub fn map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).map_err(|_| Errno::BADF)?,
    };
    change(tree, c"", attr, recursive)
}

fn change(dir: BorrowedFd<'_>, path: &CStr, attr: libc::mount_attr, recursive: bool) -> Result<()> {
    let mut flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // JUSTIFICATION: rustix has no mount_setattr.
    // SAFETY: `path` is a C string and `attr` a valid struct of the size given; both outlive the call, which
    // only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    crate::process::check(result)
        .map(|_| ())
        .map_err(|errno| if errno == Errno::NOSYS { Errno::NOTSUP } else { errno })
}
