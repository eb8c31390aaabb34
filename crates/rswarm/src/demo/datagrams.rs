//! UDP in the hello program: `hello echo PORT` answers each datagram with its host name; `hello ask ADDRESS` goes on
//! asking over one socket and prints each answer behind the time it came, in milliseconds of the Unix epoch.

use anyhow::{Context, Result};
use std::{
    io::ErrorKind,
    net::{ToSocketAddrs, UdpSocket},
    time::{Duration, SystemTime},
};

/// Between two questions, and how long an answer is waited for.
const PERIOD: Duration = Duration::from_millis(50);

/// Runs `hello echo PORT` until SIGTERM.
pub(crate) fn echo(port: u16) -> Result<()> {
    let socket =
        UdpSocket::bind(("0.0.0.0", port)).with_context(|| format!("cannot listen on port {port}"))?;
    let host = std::fs::read_to_string("/etc/hostname").context("cannot read /etc/hostname")?;
    crate::output::line(&format!("listening on port {port}"))?;
    loop {
        let (_, from) = socket.recv_from(&mut [0; 64])?;
        // Whoever asked may be gone.
        drop(socket.send_to(host.trim().as_bytes(), from));
    }
}

/// Runs `hello ask ADDRESS` until SIGTERM.
pub(crate) fn ask(address: &str) -> Result<()> {
    let to = address.to_socket_addrs().with_context(|| format!("cannot resolve {address}"))?.next();
    let to = to.with_context(|| format!("{address} has no address"))?;
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
    socket.connect(to).with_context(|| format!("cannot reach {address}"))?;
    socket.set_read_timeout(Some(PERIOD))?;
    let mut answer = [0; 256];
    loop {
        // Nobody there, or no way there: said by the next call as an error, and no reason to stop.
        drop(socket.send(b"?"));
        match socket.recv(&mut answer) {
            Ok(length) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
                crate::output::line(&format!("{now} {}", String::from_utf8_lossy(&answer[..length])))?;
                std::thread::sleep(PERIOD);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => std::thread::sleep(PERIOD),
        }
    }
}
