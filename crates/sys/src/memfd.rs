//! Files that live in memory and cannot be changed any more.

use rustix::fs::{MemfdFlags, SealFlags};
use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

/// Copies everything readable from `source` into a memory file that can be executed but never written again.
/// Source: memfd_create(2), fcntl(2) `F_ADD_SEALS`.
///
/// # Errors
/// When reading fails or memory runs out.
pub fn sealed_copy(source: &mut impl Read, name: &CStr) -> io::Result<OwnedFd> {
    // Kernels before 6.3 do not know MFD_EXEC; there a memory file is executable anyway.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC).or_else(|errno| match errno {
        rustix::io::Errno::INVAL => rustix::fs::memfd_create(name, flags),
        other => Err(other),
    })?;
    let mut file = File::from(fd);
    io::copy(source, &mut file)?;
    let fd = OwnedFd::from(file);
    rustix::fs::fcntl_add_seals(
        &fd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_is_whole_and_cannot_be_written() {
        let fd = sealed_copy(&mut &b"program"[..], c"test").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(rustix::io::pread(&fd, &mut buffer, 0).unwrap(), 7);
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0).unwrap_err(), rustix::io::Errno::PERM);
    }
}
