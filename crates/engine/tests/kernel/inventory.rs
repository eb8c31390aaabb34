//! What a test's host has of the kernel's things, asked of the kernel and not of the code under test.

use crate::kit::{Host, eventually};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
        },
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
};

impl Host {
    /// Names of its network links.
    pub(crate) fn links(&self) -> Vec<String> {
        let text = self.inside(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
        let mut names: Vec<String> = text.lines().filter_map(name).collect();
        names.sort();
        names
    }

    /// Bytes of its nftables rules and of the elements of its sets and maps, where published ports are.
    pub(crate) fn rules(&self) -> usize {
        const KINDS: u16 = 10 << 8;
        let dump = |kind, body: &[u8]| {
            ask_kernel(SockProtocol::NetlinkNetFilter, KINDS | kind, REQUEST | DUMP, body)
        };
        self.inside(|| {
            let rules = dump(7, &[0; 4]);
            // Of a set, table and name are the first attributes, and those are what asks for its elements.
            let sets = dump(10, &[0; 4]).into_iter().map(|set| {
                let end = ATTRIBUTES + attribute(&set[ATTRIBUTES..]);
                let end = end + attribute(&set[end..]);
                dump(13, &set[..end])
            });
            sets.flatten().chain(rules).map(|answer| answer.len()).sum()
        })
    }

    /// Its cgroups, in all hierarchies.
    pub(crate) fn cgroups(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut of = |root: &Path| {
            let parent = root.join(self.cgroup());
            walk(&parent, &mut |path| path.is_dir(), &mut found);
            found.remove(&parent);
        };
        of(Path::new("/sys/fs/cgroup"));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten() {
            of(&hierarchy.unwrap().path());
        }
        found
    }

    /// Mount points in its folders.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.path("").display().to_string();
        let points = text.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| point.starts_with(&root)).map(str::to_owned).collect()
    }

    /// Shims and whatever lives below them, by command line. A zombie is listed if its parent lives.
    pub(crate) fn processes(&self) -> Vec<String> {
        self.pids().into_iter().map(|pid| command_line(pid).join(" ")).collect()
    }

    fn pids(&self) -> BTreeSet<i32> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        let parents: BTreeMap<i32, i32> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
        let root = self.path("").display().to_string();
        let is_shim = |pid: i32| command_line(pid).iter().any(|word| word.contains(&root));
        let mut found: BTreeSet<i32> = parents.keys().copied().filter(|pid| is_shim(*pid)).collect();
        loop {
            let known = found.len();
            found.extend(
                parents
                    .iter()
                    .filter(|(_, parent)| found.contains(parent))
                    .map(|(pid, _)| *pid)
                    .collect::<Vec<_>>(),
            );
            if found.len() == known {
                return found;
            }
        }
    }

    /// What the network service finds missing, wrong or surplus in the kernel.
    pub(crate) fn audit(&self) -> Vec<String> {
        let report = self.on(async |engine| engine.network_service().audit_now().await.unwrap());
        [report.repairs, report.errors].concat()
    }

    /// What is gone after a power cut: programs, mounts, links, and all under the run root.
    pub(crate) fn power_cut(&mut self) {
        for pid in self.pids() {
            let pid = Pid::from_raw(pid);
            kill(pid, Signal::SIGKILL).ok(); // it may have gone with its parent
            eventually("the process is gone", || {
                waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok(); // this program is everybody's last parent
                !Path::new(&format!("/proc/{pid}")).exists()
            });
        }
        for point in self.mounts().iter().rev() {
            umount2(point.as_str(), MntFlags::MNT_DETACH).unwrap();
        }
        fs::remove_dir_all(self.path("run")).unwrap();
        self.new_netns();
    }
}

/// Collects what is below a path, as far as it is wanted.
pub(crate) fn walk(path: &Path, wanted: &mut impl FnMut(&Path) -> bool, found: &mut BTreeSet<PathBuf>) {
    if !path.exists() || !wanted(path) {
        return;
    }
    found.insert(path.to_owned());
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), wanted, found);
        }
    }
}

/// Where the attributes of an nftables message begin.
const ATTRIBUTES: usize = 4;

/// Length of the attribute at the beginning, padding included.
fn attribute(bytes: &[u8]) -> usize {
    usize::from(u16::from_ne_bytes(bytes[..2].try_into().unwrap())).next_multiple_of(4)
}

fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A mount that ends with the test.
pub(crate) struct Mounted(PathBuf);

/// Mounts a tmpfs.
pub(crate) fn mount_tmpfs(point: &Path) -> Mounted {
    mount(Some("test"), point, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    Mounted(point.to_owned())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok(); // its folder may have gone with the host's
    }
}

/// A network namespace with its loopback up.
pub(crate) fn new_netns() -> File {
    /// `RTM_NEWLINK` for link 1 with `IFF_UP`. Source: rtnetlink(7).
    const NEWLINK: u16 = 16;
    const UP: u32 = 1;
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root in their user namespace");
        let body = [[0; 4], 1i32.to_ne_bytes(), UP.to_ne_bytes(), UP.to_ne_bytes()].concat();
        ask_kernel(SockProtocol::NetlinkRoute, NEWLINK, REQUEST | ACK, &body);
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    made.join().unwrap()
}

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

/// Sends a request and returns the bodies of the answers. Source: netlink(7).
fn ask_kernel(protocol: SockProtocol, kind: u16, flags: u16, body: &[u8]) -> Vec<Vec<u8>> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const HEAD: usize = 16;
    let len = u32::try_from(HEAD + body.len()).unwrap();
    let mut message = [len.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    message.extend([0; 8]); // sequence, port
    message.extend(body);
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty()).unwrap();
    let mut answers = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let got = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let mut rest = &buffer[..got];
        while rest.len() >= HEAD {
            let len = usize::try_from(u32::from_ne_bytes(rest[..4].try_into().unwrap())).unwrap();
            let body = &rest[HEAD..len];
            match u16::from_ne_bytes(rest[4..6].try_into().unwrap()) {
                DONE => return answers,
                ERROR => {
                    assert_eq!(body[..4], [0; 4], "the kernel refuses");
                    return answers;
                }
                _ => answers.push(body.to_vec()),
            }
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        }
    }
}
