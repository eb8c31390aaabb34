//! Messages between the daemon and a shim: prost, one per SOCK_SEQPACKET datagram, descriptors beside them.
//!
//! Daemon and shim may be of different releases: fields are only ever added, [`VERSION`] is raised when an old
//! shim would do the wrong thing with a new request. A message longer than [`INLINE_BYTES_MAX`] travels in a memfd
//! that is the first descriptor, because a datagram is limited by the socket's buffer.

use prost::Message;
use rustix::{
    fs::MemfdFlags,
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags,
    },
};
use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Seek, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Version of the protocol that this program speaks.
pub const VERSION: u32 = 1;
/// Name of the shim's socket in the state directory.
pub const SOCKET: &str = "shim.sock";
/// How long who is attached may take for the last bytes when the shim is to end. *Source:* moby `daemon/monitor.go`, which
/// waits as long for the streams of a container that has ended.
pub const LAST_FLUSH: Duration = Duration::from_secs(2);
/// Longest message inside a datagram.
pub const INLINE_BYTES_MAX: usize = 16 * 1024;
/// Longest message at all.
const MESSAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most descriptors beside one message: three streams and a memfd.
const FDS_MAX: usize = 4;

const KIND_INLINE: u8 = 0;
const KIND_MEMFD: u8 = 1;

/// Daemon to shim.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Comes back in the answer; never 0.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(oneof = "Call", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub call: Option<Call>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Call {
    #[prost(message, tag = "10")]
    Start(Empty),
    #[prost(message, tag = "11")]
    Signal(Signal),
    #[prost(message, boxed, tag = "12")]
    Exec(Box<Exec>),
    #[prost(message, tag = "13")]
    Attach(Streams),
    #[prost(message, tag = "14")]
    Resize(Resize),
    #[prost(message, tag = "15")]
    CloseStdin(Empty),
    #[prost(message, tag = "16")]
    Shutdown(Empty),
    /// The descriptors beside it are kept open in place of those kept before.
    #[prost(message, tag = "17")]
    Keep(Empty),
    /// Asks for copies of what is kept.
    #[prost(message, tag = "18")]
    Kept(Empty),
}

#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct Signal {
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// Every process of the container instead of the first one.
    #[prost(bool, tag = "2")]
    pub all: bool,
    /// This exec's first process instead of the container's.
    #[prost(string, optional, tag = "3")]
    pub exec: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Exec {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub process: Option<Process>,
    #[prost(message, optional, tag = "3")]
    pub streams: Option<Streams>,
}

/// Which descriptors came along, in this order.
#[derive(Clone, PartialEq, Message)]
pub struct Streams {
    #[prost(bool, tag = "1")]
    pub stdin: bool,
    #[prost(bool, tag = "2")]
    pub stdout: bool,
    #[prost(bool, tag = "3")]
    pub stderr: bool,
    #[prost(bool, tag = "4")]
    pub stdin_once: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resize {
    /// Absent = the container's own terminal.
    #[prost(string, optional, tag = "1")]
    pub exec: Option<String>,
    #[prost(uint32, tag = "2")]
    pub rows: u32,
    #[prost(uint32, tag = "3")]
    pub cols: u32,
}

/// Shim to daemon.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The request's; 0 = not asked for.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(oneof = "Body", tags = "10, 11, 12, 13, 14, 15, 16")]
    pub body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    #[prost(message, tag = "10")]
    Hello(Hello),
    #[prost(message, tag = "11")]
    Done(Empty),
    #[prost(message, tag = "12")]
    Failed(Failed),
    #[prost(message, tag = "13")]
    Exited(Exited),
    #[prost(message, tag = "14")]
    ExecExited(ExecExited),
    #[prost(message, tag = "15")]
    Oom(Empty),
    /// With the descriptors beside it.
    #[prost(message, tag = "16")]
    Kept(Empty),
}

/// First message on each connection: the container exists.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// Of the container's first process, as the shim sees it.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(string, repeated, tag = "3")]
    pub warnings: Vec<String>,
    /// The program was executed (it may have ended since).
    #[prost(bool, tag = "4")]
    pub started: bool,
    #[prost(uint32, tag = "5")]
    pub shim_pid: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Failed {
    #[prost(string, tag = "1")]
    pub message: String,
    /// 126 or 127 when a program could not be executed, else 0.
    #[prost(int32, tag = "2")]
    pub exec_code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Exited {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(int32, optional, tag = "2")]
    pub signal: Option<i32>,
    #[prost(bool, tag = "3")]
    pub oom: bool,
    #[prost(uint64, tag = "4")]
    pub at_nanos: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExecExited {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int32, tag = "2")]
    pub code: i32,
}

/// All that a shim needs to make a container, translated from the spec by the daemon: the file `plan`.
#[derive(Clone, PartialEq, Message)]
pub struct Launch {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub process: Option<Process>,
    #[prost(bool, tag = "4")]
    pub stdin_open: bool,
    #[prost(bool, tag = "5")]
    pub init: bool,
    #[prost(message, optional, tag = "6")]
    pub log: Option<Log>,
    #[prost(message, optional, tag = "7")]
    pub root: Option<Root>,
    #[prost(message, repeated, tag = "8")]
    pub namespaces: Vec<Namespace>,
    #[prost(message, repeated, tag = "9")]
    pub mounts: Vec<Mount>,
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub masked_paths: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub readonly_paths: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "12")]
    pub devices: Vec<Device>,
    #[prost(string, optional, tag = "13")]
    pub hostname: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub domainname: Option<String>,
    #[prost(message, repeated, tag = "15")]
    pub sysctls: Vec<Pair>,
    #[prost(message, optional, tag = "16")]
    pub cgroup: Option<Cgroup>,
    #[prost(bool, tag = "17")]
    pub userns_squash: bool,
    /// The process gets the three descriptors that wait on the daemon's connection instead of pipes.
    #[prost(bool, tag = "18")]
    pub inherit_streams: bool,
    /// Where the terminal's master is sent instead of staying with the shim; empty = it stays.
    #[prost(bytes = "vec", tag = "19")]
    pub console_socket: Vec<u8>,
    #[prost(message, optional, tag = "20")]
    pub hooks: Option<Hooks>,
    /// `None` = that of the shim.
    #[prost(message, optional, tag = "21")]
    pub users: Option<UserNamespace>,
}

/// The user namespace that owns the container's other ones.
#[derive(Clone, PartialEq, Message)]
pub struct UserNamespace {
    /// Empty = a new one.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub uids: Vec<IdRange>,
    #[prost(message, repeated, tag = "3")]
    pub gids: Vec<IdRange>,
}

/// Ids of the container and where they are on the host.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct IdRange {
    #[prost(uint32, tag = "1")]
    pub inside: u32,
    #[prost(uint32, tag = "2")]
    pub outside: u32,
    #[prost(uint32, tag = "3")]
    pub count: u32,
}

/// Programs that run while the container is made and started.
#[derive(Clone, PartialEq, Message)]
pub struct Hooks {
    #[prost(message, repeated, tag = "1")]
    pub create_runtime: Vec<Hook>,
    #[prost(message, repeated, tag = "2")]
    pub create_container: Vec<Hook>,
    #[prost(message, repeated, tag = "3")]
    pub start_container: Vec<Hook>,
    /// What they are told of the container beside its id.
    #[prost(message, repeated, tag = "4")]
    pub annotations: Vec<Pair>,
    #[prost(bytes = "vec", tag = "5")]
    pub bundle: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Hook {
    /// For messages.
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(bytes = "vec", tag = "2")]
    pub path: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub args: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub env: Vec<Vec<u8>>,
    /// How long it may take.
    #[prost(uint32, tag = "5")]
    pub seconds: u32,
}

/// What is executed, and as whom.
#[derive(Clone, PartialEq, Message)]
pub struct Process {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub args: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub env: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "3")]
    pub cwd: Vec<u8>,
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    #[prost(uint32, repeated, tag = "6")]
    pub groups: Vec<u32>,
    #[prost(uint32, optional, tag = "7")]
    pub umask: Option<u32>,
    #[prost(message, optional, tag = "8")]
    pub caps: Option<Caps>,
    #[prost(bool, tag = "9")]
    pub no_new_privs: bool,
    /// A BPF program in the kernel's layout; empty = none.
    #[prost(bytes = "vec", tag = "10")]
    pub seccomp: Vec<u8>,
    /// Flags of seccomp(2) for it.
    #[prost(uint32, tag = "11")]
    pub seccomp_flags: u32,
    #[prost(int32, optional, tag = "12")]
    pub oom_score_adj: Option<i32>,
    #[prost(message, repeated, tag = "13")]
    pub rlimits: Vec<Rlimit>,
    #[prost(bool, tag = "14")]
    pub tty: bool,
    #[prost(uint32, tag = "15")]
    pub rows: u32,
    #[prost(uint32, tag = "16")]
    pub cols: u32,
    /// Empty = none.
    #[prost(string, tag = "17")]
    pub apparmor_profile: String,
}

/// Bit n = capability n.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Caps {
    #[prost(uint64, tag = "1")]
    pub bounding: u64,
    #[prost(uint64, tag = "2")]
    pub effective: u64,
    #[prost(uint64, tag = "3")]
    pub permitted: u64,
    #[prost(uint64, tag = "4")]
    pub inheritable: u64,
    #[prost(uint64, tag = "5")]
    pub ambient: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// `u64::MAX` = unlimited.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Log {
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    #[prost(uint64, optional, tag = "2")]
    pub max_size_bytes: Option<u64>,
    #[prost(uint32, tag = "3")]
    pub max_files: u32,
    #[prost(message, repeated, tag = "4")]
    pub attrs: Vec<Pair>,
    /// Where each line goes besides.
    #[prost(message, optional, tag = "5")]
    pub forward: Option<Forward>,
}

/// A log service of the host: journald, or with a facility syslog.
#[derive(Clone, PartialEq, Message)]
pub struct Forward {
    /// Path of a unix datagram socket; empty = `udp`.
    #[prost(bytes = "vec", tag = "1")]
    pub socket: Vec<u8>,
    /// `address:port`
    #[prost(string, tag = "2")]
    pub udp: String,
    /// Of each entry in the journal, besides the message.
    #[prost(message, repeated, tag = "3")]
    pub fields: Vec<Pair>,
    /// RFC 5424, 6.2.1: 0 to 23.
    #[prost(uint32, optional, tag = "4")]
    pub facility: Option<u32>,
    #[prost(string, tag = "5")]
    pub tag: String,
    /// `rfc3164`, `rfc5424`, `rfc5424micro`; empty = as the local syslog(3).
    #[prost(string, tag = "6")]
    pub format: String,
    #[prost(string, tag = "7")]
    pub hostname: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pair {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Root {
    /// Overlay layers, top first; empty = `directory` is used.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub lowers: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "2")]
    pub upper: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub work: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub directory: Vec<u8>,
    #[prost(bool, tag = "5")]
    pub readonly: bool,
    /// `MS_SLAVE`, `MS_PRIVATE` or `MS_SHARED`.
    #[prost(uint64, tag = "6")]
    pub propagation: u64,
    /// Overlay marks live in `user.` attributes.
    #[prost(bool, tag = "7")]
    pub userxattr: bool,
    /// What is on the disk belongs to the container's ids, not to the host's.
    #[prost(bool, tag = "8")]
    pub map_ids: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    /// One `CLONE_NEW*` bit.
    #[prost(uint64, tag = "1")]
    pub flag: u64,
    /// Empty = a new one.
    #[prost(bytes = "vec", tag = "2")]
    pub path: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    /// Empty = a bind mount.
    #[prost(string, tag = "1")]
    pub fstype: String,
    #[prost(bytes = "vec", tag = "2")]
    pub source: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub target: Vec<u8>,
    /// `MOUNT_ATTR_*` to set.
    #[prost(uint64, tag = "4")]
    pub attrs: u64,
    /// The attributes reach submounts too.
    #[prost(bool, tag = "5")]
    pub attrs_recursive: bool,
    /// Submounts come along.
    #[prost(bool, tag = "6")]
    pub recursive: bool,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 = private.
    #[prost(uint64, tag = "7")]
    pub propagation: u64,
    #[prost(bool, tag = "8")]
    pub propagation_recursive: bool,
    /// Options of the filesystem; an empty value is a flag.
    #[prost(message, repeated, tag = "9")]
    pub options: Vec<Pair>,
    /// Of a bind mount: what is mounted, below the source. Looked up when it is mounted, and never outside of the source.
    #[prost(bytes = "vec", tag = "10")]
    pub subdir: Vec<u8>,
    /// Of a bind mount: a process in whose files the source is; 0 = the host's.
    #[prost(uint32, tag = "11")]
    pub of_process: u32,
    /// Of a bind mount or an overlay: what is on the disk belongs to the container's ids, not to the host's.
    #[prost(bool, tag = "12")]
    pub map_ids: bool,
    /// That holds for submounts too.
    #[prost(bool, tag = "13")]
    pub map_ids_recursive: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Device {
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub block: bool,
    #[prost(uint32, tag = "3")]
    pub major: u32,
    #[prost(uint32, tag = "4")]
    pub minor: u32,
    #[prost(uint32, tag = "5")]
    pub mode: u32,
    #[prost(uint32, tag = "6")]
    pub uid: u32,
    #[prost(uint32, tag = "7")]
    pub gid: u32,
}

/// The container's place in each hierarchy and what is written there.
#[derive(Clone, PartialEq, Message)]
pub struct Cgroup {
    /// As in the spec, e.g. `/rswarm/<id>`.
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(message, repeated, tag = "2")]
    pub writes: Vec<CgroupWrite>,
    /// Continue without, with a warning, when it cannot be made.
    #[prost(bool, tag = "3")]
    pub optional: bool,
    /// Device rules for cgroup v2: an eBPF program in the kernel's layout; empty = none.
    #[prost(bytes = "vec", tag = "4")]
    pub device_program: Vec<u8>,
    /// Controllers of a hierarchy (comma-separated; empty = the cgroup2 one) and where it is mounted.
    #[prost(message, repeated, tag = "5")]
    pub hierarchies: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CgroupWrite {
    /// v1 controller, e.g. `memory`; empty on v2.
    #[prost(string, tag = "1")]
    pub controller: String,
    #[prost(string, tag = "2")]
    pub file: String,
    #[prost(string, tag = "3")]
    pub value: String,
    /// The kernel may lack this file.
    #[prost(bool, tag = "4")]
    pub optional: bool,
}

/// Sends one message with descriptors.
///
/// # Errors
/// As sendmsg(2); `WouldBlock` when the peer does not read.
pub fn send(socket: BorrowedFd<'_>, message: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = vec![KIND_INLINE];
    message.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
    let memfd;
    let mut all = Vec::with_capacity(FDS_MAX);
    if bytes.len() > INLINE_BYTES_MAX {
        let mut file = File::from(rustix::fs::memfd_create("message", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes[1..])?;
        memfd = OwnedFd::from(file);
        all.push(memfd.as_fd());
        bytes = vec![KIND_MEMFD];
    }
    all.extend_from_slice(fds);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !all.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(io::Error::other("too many descriptors"));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )
    })?;
    Ok(())
}

/// What [`receive`] found.
#[derive(Debug)]
pub enum Received<M> {
    Message(M, Vec<OwnedFd>),
    /// Nothing there yet.
    Nothing,
    /// The peer closed.
    End,
}

/// Takes one message without waiting.
///
/// # Errors
/// As recvmsg(2); `InvalidData` when it is not a message.
pub fn receive<M: Message + Default>(socket: BorrowedFd<'_>) -> io::Result<Received<M>> {
    let mut buffer = vec![0; INLINE_BYTES_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags) {
            Ok(got) => break got,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(Received::End);
    }
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(invalid("truncated message"));
    }
    let decode =
        |bytes: &[u8]| M::decode_length_delimited(bytes).map_err(|error| invalid(&error.to_string()));
    let message = match buffer[0] {
        KIND_INLINE => decode(&buffer[1..got.bytes])?,
        KIND_MEMFD if !fds.is_empty() => {
            let mut file = File::from(fds.remove(0));
            if file.metadata()?.len() > MESSAGE_BYTES_MAX {
                return Err(invalid("message too long"));
            }
            file.rewind()?;
            let mut bytes = Vec::new();
            file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes)?;
            decode(&bytes)?
        }
        _ => return Err(invalid("unknown kind of message")),
    };
    Ok(Received::Message(message, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn messages_and_descriptors_arrive_whatever_their_length() {
        for length in [0, 10, INLINE_BYTES_MAX, 3 * INLINE_BYTES_MAX, 1 << 20] {
            let (a, b) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
            let sent = Failed { message: "x".repeat(length), exec_code: 7 };
            send(a.as_fd(), &sent, &[a.as_fd()]).unwrap();
            let Received::Message(got, fds) = receive::<Failed>(b.as_fd()).unwrap() else {
                panic!("no message")
            };
            assert_eq!((got, fds.len()), (sent, 1));
            assert!(matches!(receive::<Failed>(b.as_fd()).unwrap(), Received::Nothing));
            drop(a);
            drop(fds);
            assert!(matches!(receive::<Failed>(b.as_fd()).unwrap(), Received::End));
        }
    }
}
