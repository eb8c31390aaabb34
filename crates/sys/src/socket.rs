//! What a socket tells about its other end.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Returns how much of what was written the other end has not read yet; 0 = all is read.
///
/// *Unit:* bytes of kernel memory, not of data: for comparing with 0 only.
/// Source: unix(7), `SIOCOUTQ` of connected stream sockets (`unix_outq_len` in the kernel).
///
/// # Errors
/// When it is no connected stream socket.
pub fn unread(socket: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // JUSTIFICATION: no crate wraps SIOCOUTQ, which is TIOCOUTQ by another name.
    // SAFETY: the descriptor is borrowed for the call, and the kernel writes one int to where `count` is.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut count) };
    if result == 0 { Ok(usize::try_from(count).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Source: socket(7), `SO_PEERGROUPS`; kernel include/uapi/asm-generic/socket.h. `libc` has no name for it.
const SO_PEERGROUPS: libc::c_int = 59;
/// *Limit* of groups that one process has. Source: credentials(7), `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65_536;

/// Returns the supplementary groups of the process at the other end of a unix socket, as they were when it connected:
/// unlike what /proc says of its number, which may be another's by now.
///
/// # Errors
/// It is no connected unix socket; before Linux 4.13.
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut groups: Vec<u32> = vec![0; GROUPS_MAX];
    let bytes = size_of::<u32>();
    let mut length = libc::socklen_t::try_from(groups.len() * bytes).map_err(io::Error::other)?;
    // JUSTIFICATION: no crate wraps SO_PEERGROUPS.
    // SAFETY: the descriptor is borrowed for the call, and the kernel writes no more than `length` bytes to `groups`,
    // which has as many, and then to `length`.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / bytes);
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    #[test]
    fn the_groups_of_the_other_end_are_those_of_its_process() {
        let (near, _far) = UnixStream::pair().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = line.split_whitespace().map(|group| group.parse().unwrap()).collect();
        let mut told = peer_groups(&near).unwrap();
        own.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, own);
        assert!(peer_groups(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn what_the_other_end_has_not_read_is_counted() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(unread(&near).unwrap(), 0);
        near.write_all(b"hello").unwrap();
        assert!(unread(&near).unwrap() > 0);
        far.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unread(&near).unwrap(), 0);
    }
}
