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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

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
