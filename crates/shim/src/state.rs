//! The files of a container's state directory.
//!
//! | file | written by | what |
//! |---|---|---|
//! | `config.json` | daemon | the OCI spec |
//! | `plan` | daemon | the spec translated for the shim |
//! | `pid` | shim | `pid start-time shim-pid` |
//! | `shim.sock` | shim | its socket |
//! | `exit` | shim | how the container ended, whole or not at all, before anyone is told |
//! | `rootfs/` | shim | empty; mount point inside the container's mount namespace |
//! | `shim.log` | shim | its panics |

use crate::wire;
use rustix::net::SocketAddrUnix;
use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, SystemTime},
};

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// 0..=255; 128 + signal when it was killed.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom: bool,
    pub at: SystemTime,
}

impl ExitStatus {
    /// *Unit:* nanoseconds since the epoch.
    pub fn at_nanos(self) -> u64 {
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the time that [`at_nanos`](Self::at_nanos) wrote.
    pub fn at_from_nanos(nanos: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }
}

pub const CONFIG: &str = "config.json";
/// Remembers the bundle of a container that has one.
pub const BUNDLE: &str = "bundle";
pub const PLAN: &str = "plan";
pub const PID: &str = "pid";
pub const EXIT: &str = "exit";
pub const ROOTFS: &str = "rootfs";
pub const STDERR: &str = "shim.log";
/// Environment variable of a new shim: the soft limit of descriptors that it begins with.
pub const DESCRIPTORS: &str = "RSWARM_DESCRIPTORS";
const PID_TAKEN: &str = "pid.taken";
/// All but the one that [`take_pids`] takes, for removal; also what a writer that was killed has not finished.
pub const FILES: [&str; 8] = [CONFIG, PLAN, EXIT, STDERR, wire::SOCKET, "pid.part", "exit.part", PID_TAKEN];

/// Returns how the container in `dir` ended, if it has.
#[must_use]
pub fn read_exit(dir: &Path) -> Option<ExitStatus> {
    parse_exit(&fs::read_to_string(dir.join(EXIT)).ok()?)
}

fn parse_exit(text: &str) -> Option<ExitStatus> {
    let mut words = text.split_ascii_whitespace();
    let code = words.next()?.parse().ok()?;
    let signal = words.next()?.parse().ok().filter(|&signal| signal != 0);
    let oom = words.next()? == "1";
    let at = ExitStatus::at_from_nanos(words.next()?.parse().ok()?);
    Some(ExitStatus { code, signal, oom, at })
}

/// Writes the exit file: `code signal oom nanoseconds-since-epoch`, signal 0 = none.
pub fn write_exit(dir: &Path, status: ExitStatus) -> io::Result<()> {
    let text = format!(
        "{} {} {} {}\n",
        status.code,
        status.signal.unwrap_or(0),
        u8::from(status.oom),
        status.at_nanos()
    );
    write_whole(&dir.join(EXIT), text.as_bytes())
}

/// The container's first process and its shim. A process id alone may have been given to another process since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pids {
    pub init: i32,
    pub init_start: u64,
    pub shim: i32,
    pub shim_start: u64,
}

/// Returns who runs, and takes the file that says so away, at once: what is written later is not lost with it.
pub fn take_pids(dir: &Path) -> Option<Pids> {
    let taken = dir.join(PID_TAKEN);
    fs::rename(dir.join(PID), &taken).ok()?;
    parse_pids(&fs::read_to_string(taken).ok()?)
}

fn parse_pids(text: &str) -> Option<Pids> {
    let mut words = text.split_ascii_whitespace();
    Some(Pids {
        init: words.next()?.parse().ok()?,
        init_start: words.next()?.parse().ok()?,
        shim: words.next()?.parse().ok()?,
        shim_start: words.next()?.parse().ok()?,
    })
}

pub fn write_pids(dir: &Path, pids: Pids) -> io::Result<()> {
    let text = format!("{} {} {} {}\n", pids.init, pids.init_start, pids.shim, pids.shim_start);
    write_whole(&dir.join(PID), text.as_bytes())
}

/// Returns when a process started, in clock ticks since boot: with its id that names it for ever.
/// Source: proc_pid_stat(5), field 22.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Takes away what an earlier run of the same container left.
pub fn forget(dir: &Path) -> io::Result<()> {
    for file in [PID, EXIT, wire::SOCKET] {
        match fs::remove_file(dir.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the address of the socket in `dir`, by way of a descriptor when the path is too long for an address,
/// and that descriptor.
pub fn socket_address(dir: &Path) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    if let Ok(address) = SocketAddrUnix::new(dir.join(wire::SOCKET)) {
        return Ok((address, None));
    }
    let fd = OwnedFd::from(File::open(dir)?);
    let short = format!("/proc/self/fd/{}/{}", fd.as_raw_fd(), wire::SOCKET);
    Ok((SocketAddrUnix::new(short)?, Some(fd)))
}

/// Writes a file so that a reader sees all of it or nothing.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    File::create(&part)?.write_all(bytes)?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_file_reads_back_and_half_a_line_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        for status in [
            ExitStatus { code: 137, signal: Some(9), oom: true, at },
            ExitStatus { code: 3, signal: None, oom: false, at },
        ] {
            write_exit(dir.path(), status).unwrap();
            assert_eq!(read_exit(dir.path()), Some(status));
        }
        assert_eq!(parse_exit("137 9"), None);
        assert_eq!(parse_exit(""), None);
    }
}
