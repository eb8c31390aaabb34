//! Hosts as network namespaces on one switch, a client outside the cluster, and a `Network` per host.

use crate::by_hand;
use ::network::*;
use model::{
    IngressBackend, IngressTable, MeshNode, NetworkAllocation, NetworkEndpoint, NetworkId, NetworkService,
    NetworkTable, NodeId, Protocol, ServiceId, TaskId,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare},
    sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn},
    unistd::Pid,
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = testkit::on_a_shared_machine(Duration::from_secs(10));
/// Somebody outside the cluster (TEST-NET-2).
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

/// Runs `work` on a thread inside a namespace.
pub(crate) fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).unwrap_or_else(|e| panic!("{}: {e}", netns.display()));
    thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("these tests need root in their user namespace");
        work()
    })
    .join()
    .expect("the work inside a namespace panicked")
}

/// The same, always on the same processor: what is sent so is taken in the order in which it was sent. Each processor
/// has a queue of packets of its own, and a busy one may be late.
fn in_order<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    inside(netns, move || {
        let this = Pid::from_raw(0);
        let allowed = sched_getaffinity(this).unwrap();
        let mut first = CpuSet::new();
        let number = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap());
        first.set(number.expect("a processor")).unwrap();
        sched_setaffinity(this, &first).unwrap();
        work()
    })
}

/// Tries until `check` gives something.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A namespace of a lab with one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Host 1.
    Host,
    /// Where host 1 has its overlay networks.
    Data,
    /// The sandbox `a` of host 1.
    Task,
    Client,
}

/// A switch with hosts and a client.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
}

impl Lab {
    /// Hosts are numbered from 1 and have 192.168.77.1<n>.
    pub(crate) fn new(hosts: u8) -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        // In memory: hosts sync what they record, and nobody wants it when the test is over.
        mount(Some("tmpfs"), lab.dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        lab.namespace("sw");
        by_hand::add_bridge(&lab.netns("sw"), "sw0");
        by_hand::set_up(&lab.netns("sw"), "sw0");
        for host in 1..=hosts {
            lab.join(&format!("h{host}"), 10 + host);
            by_hand::add_route(&lab.host(host), &format!("{OUTSIDE}/32"), "192.168.77.100");
        }
        lab.join("client", 100);
        by_hand::add_address(&lab.client(), "lo", &format!("{OUTSIDE}/32"));
        lab
    }

    fn namespace(&self, name: &str) {
        let path = self.netns(name);
        File::create(&path).unwrap();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root in their user namespace");
            let own = Path::new("/proc/thread-self/ns/net");
            mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        })
        .join()
        .unwrap();
        by_hand::set_up(&self.netns(name), "lo");
    }

    fn join(&self, name: &str, last: u8) {
        self.namespace(name);
        let (here, switch) = (self.netns(name), self.netns("sw"));
        let port = format!("p-{name}");
        by_hand::add_veth(&here, "eth0", (&port, &switch));
        by_hand::plug(&switch, &port, "sw0");
        by_hand::add_address(&here, "eth0", &format!("192.168.77.{last}/24"));
        by_hand::set_up(&here, "eth0");
    }

    /// Takes the cable of a host out of the switch.
    pub(crate) fn unplug(&self, host: u8) {
        by_hand::set_down(&self.netns("sw"), &format!("p-h{host}"));
    }

    pub(crate) fn netns(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn host(&self, number: u8) -> PathBuf {
        self.netns(&format!("h{number}"))
    }

    pub(crate) fn client(&self) -> PathBuf {
        self.netns("client")
    }

    pub(crate) fn at(&self, at: At) -> PathBuf {
        match at {
            At::Host => self.host(1),
            At::Data => self.pinned(1, "rswarm-data"),
            At::Task => self.pinned(1, "a"),
            At::Client => self.client(),
        }
    }

    pub(crate) fn run_root(&self, host: u8) -> PathBuf {
        self.dir.path().join(format!("run{host}"))
    }

    /// Path of a pinned namespace of a host's daemon.
    pub(crate) fn pinned(&self, host: u8, name: &str) -> PathBuf {
        self.run_root(host).join("netns").join(name)
    }

    pub(crate) fn options(&self, host: u8) -> Options {
        Options {
            resolvers: Some(vec![OUTSIDE.into()]),
            host_netns: Some(self.host(host)),
            ..Options::new(self.run_root(host), self.dir.path().join(format!("state{host}")))
        }
    }

    pub(crate) async fn start(&self, host: u8) -> Network {
        Network::start(self.options(host)).await.unwrap()
    }

    /// A daemon that has joined the swarm, knowing all `hosts`.
    pub(crate) async fn node(&self, host: u8) -> Network {
        let network = self.start(host).await;
        network.join_swarm(identity(host)).await.unwrap();
        network
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // With all namespaces in it. What a test that failed leaves ends with the program's mount namespace.
        umount2(self.dir.path(), MntFlags::MNT_DETACH).ok();
    }
}

pub(crate) fn underlay(host: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 77, 10 + host).into()
}

pub(crate) fn identity(host: u8) -> NodeIdentity {
    NodeIdentity {
        node: NodeId(host.into()),
        index: host.into(),
        data_addr: underlay(host),
        data_port: 4789,
        mesh_subnet: "10.254.0.0/16".parse().unwrap(),
        task_pool: "10.255.0.0/16".parse().unwrap(),
    }
}

/// A network table made by words.
pub(crate) struct Overlay(pub(crate) NetworkTable);

pub(crate) const WEB: ServiceId = ServiceId(500);

impl Overlay {
    /// Subnet 10.0.1.0/24; the service "web" has the VIP 10.0.1.200.
    pub(crate) fn new(id: u128) -> Self {
        let service = NetworkService {
            name: "web".into(),
            vip: Some("10.0.1.200".parse().unwrap()),
            aliases: vec!["www".into()],
        };
        Self(NetworkTable {
            network: NetworkId(id),
            name: format!("net{id}"),
            version: 1,
            allocation: NetworkAllocation {
                vni: 4096 + u32::try_from(id).unwrap(),
                subnet: "10.0.1.0/24".parse().unwrap(),
                gateway: "10.0.1.1".parse().unwrap(),
            },
            internal: false,
            mtu_bytes: 1450,
            endpoints: [].into(),
            services: [(WEB, service)].into(),
        })
    }

    /// Task `last` with address 10.0.1.`last` on a host, of the service "web" when `backend`.
    pub(crate) fn task(mut self, host: u8, last: u8, backend: bool) -> Self {
        self.0.endpoints.insert(
            TaskId(last.into()),
            NetworkEndpoint {
                address: Ipv4Addr::new(10, 0, 1, last).into(),
                node: NodeId(host.into()),
                vtep: underlay(host),
                service: if backend { WEB } else { ServiceId(1000 + u128::from(last)) },
                names: vec![format!("web.{last}.x")],
                ready: true,
                lost: false,
            },
        );
        self
    }

    pub(crate) fn without(mut self, last: u8) -> Self {
        self.0.endpoints.remove(&TaskId(last.into()));
        self
    }

    pub(crate) fn next(&self) -> Self {
        Self(NetworkTable { version: self.0.version + 1, ..self.0.clone() })
    }
}

/// A sandbox with one leg at 10.0.1.`last` in each network, and a gateway 10.255.`host`.`last`.
pub(crate) fn task_sandbox(id: &str, host: u8, last: u8, networks: &[u128]) -> SandboxSpec {
    SandboxSpec {
        id: id.into(),
        hostname: id.into(),
        attachments: networks
            .iter()
            .map(|network| SandboxAttachment::Overlay {
                network: NetworkId(*network),
                task: TaskId(last.into()),
                address: format!("10.0.1.{last}/24").parse().unwrap(),
                aliases: vec![],
            })
            .collect(),
        gateway: Some(Gateway { address: Ipv4Addr::new(10, 255, host, last).into() }),
        ports: vec![],
        dns: DnsOptions::default(),
        sysctls: vec![],
    }
}

pub(crate) fn bridge(id: &str, subnet: &str) -> BridgeSpec {
    BridgeSpec {
        id: id.into(),
        name: format!("{id}-net"),
        subnet: subnet.parse().unwrap(),
        gateway: None,
        ip_range: None,
        ipv6: None,
        aux_addresses: vec![],
        macvlan: None,
        internal: false,
        icc: true,
        mtu_bytes: None,
        interface: None,
    }
}

pub(crate) fn bridge_sandbox(id: &str, networks: &[&str]) -> SandboxSpec {
    let attachment = |network: &&str| SandboxAttachment::Bridge {
        network: (*network).into(),
        address: None,
        address6: None,
        mac: None,
        names: vec![id.into()],
        options: LegOptions::default(),
    };
    SandboxSpec {
        id: id.into(),
        hostname: id.into(),
        attachments: networks.iter().map(attachment).collect(),
        gateway: None,
        ports: vec![],
        dns: DnsOptions::default(),
        sysctls: vec![],
    }
}

pub(crate) fn tcp_port(host_port: Option<u16>, container_port: u16) -> PortBinding {
    PortBinding { protocol: Protocol::Tcp, host_ip: None, host_port, container_port }
}

/// A TCP server in a namespace that greets with its name and the peer's address, then echoes lines.
pub(crate) struct Server {
    netns: PathBuf,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(netns: &Path, name: &str, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (name, stopping) = (name.to_owned(), stop.clone());
        let address = inside(netns, move || {
            let listener = TcpListener::bind(("::", port)).unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let (stream, name) = (stream.unwrap(), name.clone());
                    thread::spawn(move || drop(serve(stream, &name)));
                }
            });
            address
        });
        Self { netns: netns.to_owned(), address, stop }
    }
}

fn serve(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    writeln!(stream, "{name} {}", stream.peer_addr()?.ip().to_canonical())?;
    let reader = BufReader::new(stream.try_clone()?);
    for line in reader.lines() {
        writeln!(stream, "{name}:{}", line?)?;
    }
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let address = self.address;
        if self.netns.exists() {
            inside(&self.netns, move || {
                drop(TcpStream::connect_timeout(&address, Duration::from_millis(200)))
            });
        }
    }
}

/// A client's open connection.
pub(crate) struct Talk {
    stream: BufReader<TcpStream>,
    pub(crate) greeting: String,
}

impl Talk {
    /// Connects from inside a namespace and reads the greeting.
    pub(crate) fn open(netns: &Path, to: &str) -> Result<Self, std::io::Error> {
        let to: SocketAddr = to.parse().unwrap();
        inside(netns, move || {
            let stream =
                TcpStream::connect_timeout(&to, testkit::on_a_shared_machine(Duration::from_secs(2)))?;
            stream.set_read_timeout(Some(testkit::on_a_shared_machine(Duration::from_secs(3))))?;
            let mut stream = BufReader::new(stream);
            let mut greeting = String::new();
            stream.read_line(&mut greeting)?;
            Ok(Self { stream, greeting: greeting.trim().to_owned() })
        })
    }

    /// The same from one port, which may have other connections to elsewhere.
    pub(crate) fn open_from(netns: &Path, port: u16, to: &str) -> Result<Self, std::io::Error> {
        let to: SocketAddrV4 = to.parse().unwrap();
        inside(netns, move || {
            let kind = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
            let socket = socket::socket(AddressFamily::Inet, kind.0, kind.1, None)?;
            socket::setsockopt(&socket, socket::sockopt::ReuseAddr, &true)?;
            socket::bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
            let stream = TcpStream::from(socket);
            // Connecting is sending, too.
            let limit = Some(testkit::on_a_shared_machine(Duration::from_secs(3)));
            stream.set_write_timeout(limit)?;
            stream.set_read_timeout(limit)?;
            socket::connect(stream.as_raw_fd(), &SockaddrIn::from(to))?;
            let mut stream = BufReader::new(stream);
            let mut greeting = String::new();
            stream.read_line(&mut greeting)?;
            Ok(Self { stream, greeting: greeting.trim().to_owned() })
        })
    }

    /// Asks for a connection and does not wait: who is asked is, from now on, by every packet of it.
    pub(crate) fn asked_for(netns: &Path, to: &str) -> TcpStream {
        let to: SocketAddrV4 = to.parse().unwrap();
        inside(netns, move || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            let asked = socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to));
            assert_eq!(asked, Err(nix::errno::Errno::EINPROGRESS));
            TcpStream::from(socket)
        })
    }

    /// Waits until somebody has answered, and reads the greeting.
    pub(crate) fn answered(who: &str, stream: TcpStream) -> Self {
        let greeting = eventually(&format!("{who}: somebody answers"), || {
            let mut line = [0; 64];
            match stream.peek(&mut line) {
                Ok(length) if line[..length].contains(&b'\n') => Some(line[..length].to_vec()),
                _ => None,
            }
        });
        let greeting = String::from_utf8(greeting).unwrap();
        Self { stream: BufReader::new(stream), greeting: greeting.trim().to_owned() }
    }

    /// Returns the next line.
    pub(crate) fn listen(&mut self) -> Result<String, std::io::Error> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
    }

    /// Sends a line and returns who answered.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String, std::io::Error> {
        writeln!(self.stream.get_mut(), "{line}")?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        Ok(answer.split(':').next().unwrap_or_default().to_owned())
    }
}

/// Greeting of a server, once it is reachable.
#[track_caller]
pub(crate) fn greet(netns: &Path, to: &str) -> String {
    match Talk::open(netns, to) {
        Ok(talk) => talk.greeting,
        Err(e) => panic!("{to}: {e}"),
    }
}

pub(crate) fn refused_at_once(netns: &Path, to: &str) -> bool {
    let began = Instant::now();
    let error = Talk::open(netns, to).err().map(|e| e.kind());
    let at_once = testkit::on_a_shared_machine(Duration::from_secs(1));
    error == Some(std::io::ErrorKind::ConnectionRefused) && began.elapsed() < at_once
}

pub(crate) fn unreachable(netns: &Path, to: &str) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    inside(netns, move || TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_err())
}

/// Asserts that nobody gets from there to there. All at once: that no answer comes takes its time.
#[track_caller]
pub(crate) fn all_unreachable<'a>(ways: impl IntoIterator<Item = (&'a Path, &'a str)>) {
    let reached: Vec<_> = thread::scope(|scope| {
        let tries: Vec<_> = ways
            .into_iter()
            .map(|(from, to)| (from, to, scope.spawn(move || unreachable(from, to))))
            .collect();
        let reached = tries.into_iter().filter_map(|(from, to, failed)| {
            (!failed.join().expect("an attempt to connect")).then(|| format!("{to} from {}", from.display()))
        });
        reached.collect()
    });
    assert_eq!(reached, Vec::<String>::new());
}

/// Asks 127.0.0.11 in a sandbox, over UDP: (response code, answers as text).
pub(crate) fn resolve(netns: &Path, name: &str, kind: &str) -> (u8, Vec<String>) {
    let question = question(name, kind);
    let answer = inside(netns, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket.send(&question).unwrap();
        let mut answer = vec![0; 4096];
        let len = socket.recv(&mut answer).expect("an answer of the name server");
        answer.truncate(len);
        answer
    });
    read_answer(&answer)
}

/// The same over TCP.
pub(crate) fn resolve_tcp(netns: &Path, name: &str, kind: &str) -> (u8, Vec<String>) {
    let question = question(name, kind);
    let answer = inside(netns, move || {
        let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
        stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&question).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    read_answer(&answer)
}

fn question(name: &str, kind: &str) -> Vec<u8> {
    use hickory_proto::{op, rr};
    let mut message = op::Message::query();
    message.metadata.recursion_desired = true;
    let name = rr::Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).unwrap();
    message.add_query(op::Query::query(name, kind.parse().unwrap()));
    message.to_vec().unwrap()
}

fn read_answer(bytes: &[u8]) -> (u8, Vec<String>) {
    let message = hickory_proto::op::Message::from_vec(bytes).unwrap();
    let mut answers: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    answers.sort();
    (message.metadata.response_code.low(), answers)
}

/// A name server outside that answers every A question with 203.0.113.7.
pub(crate) fn outside_name_server(netns: &Path) {
    use hickory_proto::{op, rr};
    inside(netns, || {
        let socket = UdpSocket::bind((OUTSIDE, 53)).unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let query = op::Message::from_vec(&buffer[..len]).unwrap();
                let mut reply = op::Message::response(query.metadata.id, op::OpCode::Query);
                reply.add_queries(query.queries.clone());
                let data = rr::RData::A(rr::rdata::A(Ipv4Addr::new(203, 0, 113, 7)));
                reply.add_answer(rr::Record::from_rdata(query.queries[0].name().clone(), 9, data));
                socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
            }
        });
    });
}

/// Answers every datagram with its number.
pub(crate) fn udp_server(netns: &Path, number: u8) {
    inside(netns, move || {
        let socket = UdpSocket::bind("[::]:82").unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                drop(socket.send_to(&[number], from));
            }
        });
    });
}

pub(crate) fn udp_client(netns: &Path, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    inside(netns, move || {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.connect(to).unwrap();
        socket
    })
}

/// A socket that keeps what arrives at a UDP port.
pub(crate) fn udp_ear(netns: &Path, port: u16) -> UdpSocket {
    inside(netns, move || {
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

/// Next datagram of a [`udp_ear`], as text.
pub(crate) fn heard(ear: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    let len = ear.recv(&mut buffer).expect("a datagram");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// Sends one datagram, after those that were sent before; nobody may be there.
pub(crate) fn udp_send(netns: &Path, to: &str, payload: Vec<u8>) {
    let to: SocketAddr = to.parse().unwrap();
    in_order(netns, move || drop(UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&payload, to)));
}

/// Sends a frame out of an interface as it is, after what was sent before, by a raw socket: what every container may
/// do.
pub(crate) fn send_frame(netns: &Path, interface: &str, frame: Vec<u8>) {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};
    use std::os::fd::AsRawFd;
    let interface = interface.to_owned();
    in_order(netns, move || {
        let address = nix::ifaddrs::getifaddrs().unwrap().find_map(|one| {
            let address = one.address.filter(|_| one.interface_name == interface)?;
            address.as_link_addr().copied()
        });
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &address.expect("the interface")).unwrap();
        send(fd.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
    });
}

pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// "`claimed` is at `at`", told to `to`.
pub(crate) fn arp_reply(at: [u8; 6], claimed: Ipv4Addr, (to_mac, to): ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    [&head[..], &at, &claimed.octets(), &to_mac, &to.octets()].concat()
}

/// An IPv4 packet with a UDP datagram, without the datagram's checksum.
pub(crate) fn ipv4_udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).unwrap();
    let udp =
        [&9999u16.to_be_bytes()[..], &port.to_be_bytes(), &udp_len.to_be_bytes(), &[0, 0], payload].concat();
    let mut head = vec![0x45, 0];
    head.extend((20 + udp_len).to_be_bytes());
    head.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    head.extend(from.octets());
    head.extend(to.octets());
    let sum = checksum(&head);
    head[10..12].copy_from_slice(&sum);
    [head, udp].concat()
}

/// Source: RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |two: &[u8]| u32::from(two[0]) << 8 | two.get(1).map_or(0, |byte| u32::from(*byte));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

/// An IPv6 packet with a message of ICMPv6, from a neighbour.
pub(crate) fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], body].concat();
    let len = u16::try_from(message.len()).unwrap().to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 0], &len, &[0, 0, 0, 58], &message].concat();
    message[2..4].copy_from_slice(&checksum(&pseudo));
    [&[0x60, 0, 0, 0][..], &len, &[58, 255], &from.octets(), &to.octets(), &message].concat()
}

/// Number of the server that answers; `None` when nobody does.
pub(crate) fn udp_ask(socket: &UdpSocket) -> Option<u8> {
    socket.send(b"?").ok()?;
    let mut answer = [0];
    socket.recv(&mut answer).ok().map(|_| answer[0])
}

/// 8080 on every of `hosts` leads to port 80 of tasks 10.255.<host>.<last>.
pub(crate) fn ingress(version: u64, hosts: u8, tasks: &[(u8, u8)]) -> IngressTable {
    let node = |host: u8| (NodeId(host.into()), MeshNode { index: host.into(), vtep: underlay(host) });
    let backend = |(host, last): &(u8, u8)| IngressBackend {
        task: TaskId(u128::from(*host) * 1000 + u128::from(*last)),
        node: NodeId((*host).into()),
        address: Ipv4Addr::new(10, 255, *host, *last).into(),
        port: 80,
    };
    IngressTable {
        version,
        nodes: (1..=hosts).map(node).collect(),
        ports: [((Protocol::Tcp, 8080), tasks.iter().map(backend).collect())].into(),
        lost: [].into(),
    }
}
