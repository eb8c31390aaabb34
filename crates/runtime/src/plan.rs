//! What the engine asks for: one container, one more process in it, where its output goes.

use crate::config::{Process, Spec};
use shim::ExitStatus;
use std::{os::fd::OwnedFd, path::PathBuf};

/// Everything needed to make one container.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// 64 hex digits.
    pub id: String,
    /// State directory of this container under the run root: socket, pid, exit file, OCI `config.json`. Made if
    /// it is missing. May be longer than a socket address allows.
    pub dir: PathBuf,
    /// Process, mounts, capabilities, seccomp, namespaces (paths to join inside), rlimits, sysctls, masked paths,
    /// `cgroupsPath` and resources. `root.path` is ignored in favour of `rootfs`; `root.readonly` counts.
    pub spec: Spec,
    pub rootfs: Rootfs,
    pub log: LogTarget,
    /// Gives the process a terminal; `process.terminal` of the spec is ignored in favour of this.
    pub tty: bool,
    /// Keeps standard input open although nobody is attached; otherwise it is `/dev/null`.
    pub stdin_open: bool,
    /// Runs our own small init as pid 1.
    pub init: bool,
    /// Running as uid 0 of a user namespace that maps one uid: ids that cannot be taken are skipped and cgroup
    /// failures become [`warnings`](crate::Shim::warnings).
    pub userns_squash: bool,
}

/// Where the container's `/` comes from.
#[derive(Debug, Clone)]
pub enum Rootfs {
    /// Mounted inside the container's own mount namespace, so the host never sees it. `lowers`: top layer first.
    Overlay { lowers: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// A directory of the host as it is.
    Directory(PathBuf),
}

/// What happens to the output besides attached clients.
#[derive(Debug, Clone)]
pub enum LogTarget {
    None,
    /// Docker's json-file format. Source: Docker docs, "JSON File logging driver".
    JsonFile {
        path: PathBuf,
        /// Rotates when the next line would make the file larger. `None` = never.
        max_size_bytes: Option<u64>,
        /// Files kept, the current one included; at least 1.
        max_files: u32,
        /// Written into each line, sorted by key.
        attrs: Vec<(String, String)>,
        /// Where each line goes besides.
        forward: Option<LogService>,
    },
}

/// A log service of the host. What it does not take at once it does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogService {
    /// Source: systemd "Native Journal Protocol".
    Journald {
        socket: PathBuf,
        /// Of each entry, besides `MESSAGE` and `PRIORITY`: upper case, digits and `_`.
        fields: Vec<(String, String)>,
    },
    Syslog {
        to: SyslogAddress,
        /// *Range:* 0 to 23. Source: RFC 5424, 6.2.1.
        facility: u32,
        tag: String,
        /// `rfc3164`, `rfc5424`, `rfc5424micro`; empty = as syslog(3) writes locally.
        format: String,
        hostname: String,
    },
}

/// Where a syslog service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// Path of a datagram socket.
    Unix(PathBuf),
    Udp(std::net::SocketAddr),
}

/// One more process in a running container.
#[derive(Debug)]
pub struct ExecPlan {
    /// Unique within the container.
    pub id: String,
    /// `terminal` gives it a PTY; capabilities as listed; seccomp and cgroup are the container's.
    pub process: Process,
    /// Output is held back when the reader is slow: nothing is dropped.
    pub stdio: AttachFds,
}

/// File descriptors that the shim copies from and to: sockets or pipes. `None` = not attached.
/// With a terminal everything comes on `stdout`.
#[derive(Debug, Default)]
pub struct AttachFds {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// End of file on `stdin` closes the container's standard input too (Docker's `StdinOnce`). For an exec it
    /// always does.
    pub stdin_once: bool,
}

/// What the shim tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The container's first process ended; its output is in the log, the exit file is written.
    Exited(ExitStatus),
    /// `code` as in [`ExitStatus::code`].
    ExecExited { id: String, code: i32 },
    /// The kernel killed a process of the container for want of memory.
    Oom,
}
