//! What takes a try to know: how fast the disk is, and whether others are reached. Nothing is left behind.

use super::{
    Asked,
    host::{Answers, Daemon, Host},
};
use futures::StreamExt as _;
use rustix::net::sockopt;
use std::{
    fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};
use tokio::net::{TcpStream, UdpSocket};

/// Where nodes speak with each other, unless a node says otherwise; and where overlays' packets go.
const NODE_PORT: u16 = 2377;
const DATA_PORT: u16 = 4789;
/// How long another host may take to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a refusal, or word of a narrow place on the way, may take to come back.
const WORD_LIMIT: Duration = Duration::from_millis(400);
/// Hosts that are tried at the same time, and *limit* of those that are tried.
const AT_ONCE: usize = 32;
const PEERS_MAX: usize = 200;
const SYNCS: usize = 16;
/// *Unit:* bytes. *Source:* RFC 791, RFC 8200, RFC 768.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// What the file system of the data root has. *Unit:* bytes, files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) bytes: u64,
    pub(super) free: u64,
    /// 0: it has no bound.
    pub(super) files: u64,
    pub(super) free_files: u64,
}

/// How a port of another host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    Answers,
    /// Nobody listens there, or a firewall says so.
    Refused,
    /// No word: the host is away, or a firewall drops what is sent.
    Silent,
    /// This host itself knows no way.
    NoWay(String),
}

/// Another node of the swarm as it is reached from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) node_addr: SocketAddr,
    pub(super) node_port: Reach,
    pub(super) data_addr: SocketAddr,
    /// UDP: that nothing came back says that nobody refused.
    pub(super) data_port: Reach,
    /// Largest packet that this host would send there, and the largest that came through as far as the way told.
    /// *Unit:* bytes.
    pub(super) link_mtu: u32,
    pub(super) path_mtu: u32,
}

/// What was tried.
#[derive(Debug)]
pub(super) struct Probes {
    /// Median of some syncs of a small file.
    pub(super) sync: Asked<Duration>,
    pub(super) space: Asked<Space>,
    /// The kernel holds this host's clock to another one.
    pub(super) clock_is_held: Asked<bool>,
    pub(super) peers: Vec<Peer>,
}

impl Host {
    /// Tries what [`HOST`](super::HOST) is about beyond what was looked at.
    pub async fn try_out(&mut self) {
        let root = self.place.data_root.clone();
        let disk = tokio::task::spawn_blocking(move || (sync(&root), space(&root))).await;
        let failed = |e: &io::Error| e.to_string();
        let (sync, space) = match disk {
            Ok((sync, space)) => (sync.map_err(|e| failed(&e)), space.map_err(|e| failed(&e))),
            Err(error) => (Err(error.to_string()), Err(error.to_string())),
        };
        let others = match &self.daemon {
            Daemon::Up(answers) => others(answers),
            Daemon::Down(_) => Vec::new(),
        };
        // What is seen from here is not what the daemon sees.
        let others = if self.apart.contains(&"net") { Vec::new() } else { others };
        let peers = futures::stream::iter(others.into_iter().take(PEERS_MAX).map(reach)).buffered(AT_ONCE);
        self.probes = Some(Probes {
            sync,
            space,
            clock_is_held: sys::clock::is_held().map_err(|e| failed(&e.into())),
            peers: peers.collect().await,
        });
    }
}

/// Returns the other nodes with their addresses: all of them on a manager, the managers on a worker.
fn others(answers: &Answers) -> Vec<(String, SocketAddr, SocketAddr)> {
    let Ok(info) = &answers.info else { return Vec::new() };
    let swarm = &info.swarm;
    let port = swarm.cluster.as_ref().and_then(|cluster| u16::try_from(cluster.data_path_port).ok());
    let data_port = port.filter(|port| *port > 0).unwrap_or(DATA_PORT);
    let with = |name: &str, node: SocketAddr| (name.to_owned(), node, SocketAddr::new(node.ip(), data_port));
    if let Ok(nodes) = &answers.nodes
        && swarm.control_available
    {
        // Also those that are down: a firewall may be why.
        let others = nodes.iter().filter(|node| node.id != swarm.node_id);
        let addressed = others.filter_map(|node| {
            let manager = node.manager_status.as_ref().and_then(|manager| manager.addr.parse().ok());
            let ip = || node.status.addr.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, NODE_PORT));
            Some(with(&node.description.hostname, manager.or_else(ip)?))
        });
        return addressed.collect();
    }
    let managers = swarm.remote_managers.iter().filter(|manager| manager.node_id != swarm.node_id);
    managers.filter_map(|manager| Some(with("a manager", manager.addr.parse().ok()?))).collect()
}

async fn reach((name, node_addr, data_addr): (String, SocketAddr, SocketAddr)) -> Peer {
    let (node_port, (data_port, link_mtu, path_mtu)) = tokio::join!(connects(node_addr), async {
        datagram(data_addr).await.unwrap_or_else(|e| (no_way(&e), 0, 0))
    });
    Peer { name, node_addr, node_port, data_addr, data_port, link_mtu, path_mtu }
}

fn no_way(error: &io::Error) -> Reach {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reach::Refused,
        io::ErrorKind::TimedOut => Reach::Silent,
        _ => Reach::NoWay(error.to_string()),
    }
}

async fn connects(to: SocketAddr) -> Reach {
    match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(to)).await {
        Ok(Ok(_)) => Reach::Answers,
        Ok(Err(error)) => no_way(&error),
        Err(_) => Reach::Silent,
    }
}

/// Sends a packet of full size, which is no packet of a network's, and listens for what comes back of it.
async fn datagram(to: SocketAddr) -> io::Result<(Reach, u32, u32)> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    let mtu = || if to.is_ipv4() { sockopt::ip_mtu(&socket) } else { sockopt::ipv6_mtu(&socket) };
    let link = mtu()?;
    let headers = if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let size = usize::try_from(link).unwrap_or(0).saturating_sub(headers);
    socket.send(&vec![0; size.clamp(8, 65_000)]).await?;
    let word = tokio::time::timeout(WORD_LIMIT, socket.recv(&mut [0; 16])).await;
    let reach = match word {
        Err(_) | Ok(Ok(_)) => Reach::Answers,
        // That it is too large is what the size tells.
        Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
            Reach::Answers
        }
        Ok(Err(error)) => no_way(&error),
    };
    Ok((reach, link, mtu()?))
}

/// Returns how long a sync of a small file takes on the disk of a folder.
fn sync(folder: &Path) -> io::Result<Duration> {
    let mut file = tempfile(folder)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}

/// Makes a file without a name: it is gone when it is closed, whatever happens. *Source:* open(2), `O_TMPFILE`.
fn tempfile(folder: &Path) -> io::Result<fs::File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(open(folder, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn space(folder: &Path) -> io::Result<Space> {
    let disk = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Space {
        bytes: bytes(disk.f_blocks),
        free: bytes(disk.f_bavail),
        files: disk.f_files,
        free_files: disk.f_favail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_answers_refuses_or_has_no_way() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        assert_eq!(connects(open).await, Reach::Answers);
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (reach, link, path) = datagram(udp.local_addr().unwrap()).await.unwrap();
        assert_eq!((reach, link), (Reach::Answers, path));
        let closed = udp.local_addr().unwrap();
        drop((listener, udp));
        assert_eq!(connects(open).await, Reach::Refused);
        assert_eq!(datagram(closed).await.unwrap().0, Reach::Refused);
    }

    #[test]
    fn a_folder_is_as_it_was_after_its_disk_was_tried() {
        let folder = tempfile::tempdir().unwrap();
        // Some file systems have no files without names.
        match sync(folder.path()) {
            Ok(took) => assert!(took < Duration::from_secs(10), "{took:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let space = space(folder.path()).unwrap();
        assert!(space.bytes >= space.free && space.bytes > 0, "{space:?}");
    }
}
