//! Each line of output once more to the host's log service: journald or syslog. Never waits: what the service does not
//! take at once it does not get. The log file has every line.
//!
//! *Source:* systemd "Native Journal Protocol"; RFC 3164, RFC 5424; moby `daemon/logger/{journald,syslog}`.

use super::log::{Stream, date};
use crate::wire;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::UdpSocket,
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

/// Severities of the two streams. Source: RFC 5424, 6.2.1.
const ERROR: u32 = 3;
const INFORMATIONAL: u32 = 6;

/// The way to a log service.
#[derive(Debug)]
pub(super) struct Forward {
    plan: wire::Forward,
    to: To,
}

#[derive(Debug)]
enum To {
    /// Found anew for each line: the service may have been restarted.
    Unix(OwnedFd, SocketAddrUnix),
    Udp(UdpSocket),
}

impl Forward {
    pub(super) fn open(plan: &wire::Forward) -> io::Result<Self> {
        let to = if plan.udp.is_empty() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
            To::Unix(socket, SocketAddrUnix::new(plan.socket.as_slice())?)
        } else {
            let any = if plan.udp.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(&plan.udp)?;
            To::Udp(socket)
        };
        Ok(Self { plan: plan.clone(), to })
    }

    /// Sends a line, or with `partial` a piece of one that goes on.
    pub(super) fn send(&self, stream: Stream, line: &[u8], partial: bool, now: SystemTime) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let severity = if stream == Stream::Stderr { ERROR } else { INFORMATIONAL };
        let message = match self.plan.facility {
            None => self.journal(severity, line, partial),
            Some(facility) => self.syslog(facility * 8 + severity, line, now),
        };
        // Lost if nobody listens; there is nobody to tell.
        drop(self.deliver(&message));
    }

    fn deliver(&self, message: &[u8]) -> io::Result<()> {
        match &self.to {
            To::Unix(socket, address) => {
                match rustix::net::sendto(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, address)
                {
                    Ok(_) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
            // The first answer may be that an earlier datagram was refused.
            To::Udp(socket) => match socket.send(message) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    socket.send(message).map(drop)
                }
                result => result.map(drop),
            },
        }
    }

    fn journal(&self, severity: u32, line: &[u8], partial: bool) -> Vec<u8> {
        let mut message = format!("PRIORITY={severity}\n").into_bytes();
        let mut field = |name: &str, value: &[u8]| {
            message.extend(name.as_bytes());
            if value.contains(&b'\n') {
                message.push(b'\n');
                message.extend((value.len() as u64).to_le_bytes());
            } else {
                message.push(b'=');
            }
            message.extend(value);
            message.push(b'\n');
        };
        field("MESSAGE", line);
        if partial {
            field("CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        for pair in &self.plan.fields {
            field(&pair.key, pair.value.as_bytes());
        }
        message
    }

    fn syslog(&self, priority: u32, line: &[u8], now: SystemTime) -> Vec<u8> {
        let wire::Forward { tag, hostname, format, .. } = &self.plan;
        let pid = std::process::id();
        let mut message = Vec::new();
        let head = match format.as_str() {
            "rfc5424" => format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", timestamp(now, false)),
            "rfc5424micro" => {
                format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", timestamp(now, true))
            }
            "rfc3164" => format!("<{priority}>{} {hostname} {tag}[{pid}]: ", stamp(now)),
            _ => format!("<{priority}>{} {tag}[{pid}]: ", stamp(now)),
        };
        // A Vec takes everything.
        drop(message.write_all(head.as_bytes()));
        message.extend(line);
        message
    }
}

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    micros: u32,
}

/// In UTC: the zone of the host is the log service's business.
fn civil(now: SystemTime) -> Civil {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Civil { year, month, day, hour, minute, second, micros: since.subsec_micros() }
}

/// RFC 5424, 6.2.3.
fn timestamp(now: SystemTime, micros: bool) -> String {
    let Civil { year, month, day, hour, minute, second, micros: fraction } = civil(now);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if micros {
        write!(text, ".{fraction:06}").expect("a String takes everything");
    }
    text.push('Z');
    text
}

/// RFC 3164, 4.1.2.
fn stamp(now: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Civil { month, day, hour, minute, second, .. } = civil(now);
    let month = usize::try_from(month).ok().and_then(|m| MONTHS.get(m.wrapping_sub(1))).unwrap_or(&"Jan");
    format!("{month} {day:>2} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{ffi::OsStrExt, net::UnixDatagram};

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(1_700_000_005, 123_456_000)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn service() -> (tempfile::TempDir, UnixDatagram, wire::Forward) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let plan = wire::Forward { socket: path.as_os_str().as_bytes().to_vec(), ..wire::Forward::default() };
        (dir, socket, plan)
    }

    #[test]
    fn journald_gets_fields_and_whole_values() {
        let (_dir, socket, mut plan) = service();
        plan.fields = vec![wire::Pair { key: "CONTAINER_NAME".into(), value: "two\nlines".into() }];
        let forward = Forward::open(&plan).unwrap();
        forward.send(Stream::Stderr, b"hello\n", false, at());
        assert_eq!(
            received(&socket),
            "PRIORITY=3\nMESSAGE=hello\nCONTAINER_NAME\n\u{9}\0\0\0\0\0\0\0two\nlines\n"
        );
        forward.send(Stream::Stdout, b"part", true, at());
        assert!(received(&socket).starts_with("PRIORITY=6\nMESSAGE=part\nCONTAINER_PARTIAL_MESSAGE=true\n"));
    }

    #[test]
    fn syslog_gets_the_format_that_was_asked_for() {
        let (_dir, socket, plan) = service();
        let plan = wire::Forward { facility: Some(3), tag: "web".into(), hostname: "h".into(), ..plan };
        let pid = std::process::id();
        for (format, expected) in [
            ("", format!("<30>Nov 14 22:13:25 web[{pid}]: hi")),
            ("rfc3164", format!("<30>Nov 14 22:13:25 h web[{pid}]: hi")),
            ("rfc5424", format!("<30>1 2023-11-14T22:13:25Z h web {pid} web - hi")),
            ("rfc5424micro", format!("<30>1 2023-11-14T22:13:25.123456Z h web {pid} web - hi")),
        ] {
            let plan = wire::Forward { format: format.into(), ..plan.clone() };
            Forward::open(&plan).unwrap().send(Stream::Stdout, b"hi\n", false, at());
            assert_eq!(received(&socket), expected);
        }
    }

    #[test]
    fn udp_and_a_service_that_is_away_delay_nobody() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let udp = server.local_addr().unwrap().to_string();
        let plan = wire::Forward { udp, facility: Some(1), tag: "t".into(), ..wire::Forward::default() };
        let forward = Forward::open(&plan).unwrap();
        forward.send(Stream::Stdout, b"one\n", false, at());
        let mut bytes = [0; 100];
        let count = server.recv(&mut bytes).unwrap();
        assert!(bytes[..count].starts_with(b"<14>") && bytes[..count].ends_with(b": one"));
        drop(server);
        for _ in 0..10 {
            forward.send(Stream::Stdout, b"nobody\n", false, at());
        }
        let (dir, socket, plan) = service();
        let forward = Forward::open(&plan).unwrap();
        drop(socket);
        forward.send(Stream::Stdout, b"nobody\n", false, at());
        // Back again, at the same place.
        std::fs::remove_file(dir.path().join("socket")).unwrap();
        let socket = UnixDatagram::bind(dir.path().join("socket")).unwrap();
        forward.send(Stream::Stdout, b"back\n", false, at());
        assert!(received(&socket).contains("MESSAGE=back"));
    }
}
