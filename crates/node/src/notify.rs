//! What the service manager is told of this daemon: that it is ready, reads its settings anew, or stops. Nothing is sent
//! where nobody listens. *Source:* sd_notify(3), whose protocol is one datagram of `KEY=VALUE` lines.

use rustix::time::{ClockId, clock_gettime};
use std::{
    ffi::OsStr,
    fmt::Display,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
};

/// Names the socket, in the environment.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Says that the daemon is ready, and what it is about.
pub(crate) fn ready(status: impl Display) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// Says that the settings are read anew; [`ready`] follows, whatever came of it.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the settings anew"));
}

/// Says that the daemon stops.
pub(crate) fn stopping(status: impl Display) {
    tell(&format!("STOPPING=1\nSTATUS={status}"));
}

/// Says what the daemon is about.
pub(crate) fn status(status: impl Display) {
    tell(&format!("STATUS={status}"));
}

fn tell(message: &str) {
    let Some(socket) = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, message) {
        tracing::warn!(%error, socket = %socket.display(), "the service manager is not told of this daemon's state");
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(Path::new(socket))?,
        _ => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a path nor begins with @"));
        }
    };
    let sender = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the daemon up.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_as_one_datagram_at_either_kind_of_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@{}", path.display());
        let abstract_address = SocketAddr::from_abstract_name(path.as_os_str().as_bytes()).unwrap();
        for (listener, socket) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), OsStr::new(&name)),
        ] {
            send(socket, "READY=1\nSTATUS=x").unwrap();
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=x");
        }
        assert_eq!(send(OsStr::new("vsock:2:1234"), "").unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert!(send(folder.path().join("nobody").as_os_str(), "READY=1").is_err());
    }
}
