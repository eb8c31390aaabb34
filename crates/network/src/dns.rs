//! Names for containers: one server per sandbox on 127.0.0.11, its sockets made inside the sandbox by the
//! worker thread and served here on tokio.
//!
//! Names of the sandbox's networks are answered from a [`View`], a value the worker replaces; everything
//! else goes as it is to the container's or the host's name servers, from the host's namespace: for containers that
//! have a way out, as a question carries whatever its name says. *Source:* CVE-2024-29018.
//! A name we know that has no address of the family asked for is answered empty and never forwarded.

use crate::{
    address::{self, v4},
    asking::{Asking, Share},
    spec::{Error, NameSockets, SandboxAttachment},
    state::{self, Overlay, State},
    worker::Job,
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// How long a client may keep an answer. Addresses move with tasks. *Unit:* seconds.
const TTL_SECONDS: u32 = 5;
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(2);
const TCP_PATIENCE: Duration = Duration::from_secs(10);
/// Questions of one sandbox under way; more are dropped, and asked again by the client.
const QUESTIONS_MAX: usize = 256;
const CONNECTIONS_MAX: usize = 32;
const DATAGRAM_BYTES: usize = 4096;
const PLAIN_DATAGRAM_BYTES: u16 = 512;

/// The names of one network.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    names: BTreeMap<String, Addresses>,
    /// What a name stands for among services of one stack, by how the names of its services begin (`shop_`): on a
    /// network of several stacks a service means its own stack's `db`.
    of_stacks: BTreeMap<String, BTreeMap<String, Vec<IpAddr>>>,
    addresses: BTreeMap<IpAddr, String>,
    subnets: Vec<IpNet>,
}

/// Each once, in the order in which they were added.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Addresses {
    list: Vec<IpAddr>,
    known: BTreeSet<IpAddr>,
}

/// What one sandbox can resolve.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    /// In order of the interfaces: the first that knows a name answers.
    pub(crate) zones: Vec<Arc<Zone>>,
    /// What this container alone calls others: a name, and under which name in which zone they are known. Lower case.
    pub(crate) links: Vec<(String, Arc<Zone>, String)>,
    /// Asked for the rest; empty = the host's.
    pub(crate) servers: Vec<IpAddr>,
    /// Name of the service that the container is a task of, in lower case; empty: of none.
    pub(crate) service: String,
    /// The container has a way out: what it asks may leave this host, too.
    pub(crate) outside: bool,
}

impl Zone {
    fn add(&mut self, name: &str, address: impl Into<IpAddr>) {
        let address = address.into();
        let addresses = self.names.entry(name.to_ascii_lowercase()).or_default();
        if addresses.known.insert(address) {
            addresses.list.push(address);
        }
    }

    /// Makes `name` and `name.<network>` answer alike, as Docker does.
    fn add_qualified(&mut self, name: &str, network: &str, address: impl Into<IpAddr>) {
        let address = address.into();
        self.add(name, address);
        self.add(&format!("{name}.{network}"), address);
    }

    /// As [`Zone::add_qualified`], for those alone whose service's name begins like this. Without any address the name is
    /// known and stands for nothing: another stack's is no replacement.
    fn set_of_stack(&mut self, stack: &str, name: &str, network: &str, addresses: &[IpAddr]) {
        for name in [name.to_owned(), format!("{name}.{network}")] {
            let stacks = self.of_stacks.entry(name.to_ascii_lowercase()).or_default();
            stacks.insert(stack.to_ascii_lowercase(), addresses.to_vec());
        }
    }

    /// Returns what a name stands for in the stack of a service.
    fn of_stack(&self, service: &str, name: &str) -> Option<&Vec<IpAddr>> {
        let stacks = self.of_stacks.get(name)?;
        let own = stacks.iter().filter(|(stack, _)| service.starts_with(stack.as_str()));
        own.max_by_key(|(stack, _)| stack.len()).map(|(_, addresses)| addresses)
    }

    /// Returns what a name stands for, whoever asks.
    fn of_all(&self, name: &str) -> Option<&Vec<IpAddr>> {
        self.names.get(name).map(|addresses| &addresses.list)
    }

    fn know(&mut self, name: &str, network: &str) {
        for name in [name.to_owned(), format!("{name}.{network}")] {
            self.names.entry(name.to_ascii_lowercase()).or_default();
        }
    }
}

/// Services, their tasks and aliases on an overlay network.
pub(crate) fn zone_of_overlay(state: &State, overlay: &Overlay) -> Zone {
    let table = &overlay.table;
    let network = table.name.as_str();
    let mut zone = Zone::default();
    zone.subnets.push(table.allocation.subnet);
    let address_of = |endpoint: &model::NetworkEndpoint| v4(endpoint.address, "endpoints").ok();
    let ready = state::ready(table);
    for (id, service) in &table.services {
        let members = || ready.get(id).into_iter().flatten().copied();
        let vip = service.vip.and_then(|vip| v4(vip, "virtual addresses").ok());
        for name in std::iter::once(&service.name).chain(&service.aliases) {
            zone.know(name, network);
            let tasks = format!("tasks.{name}");
            zone.know(&tasks, network);
            members().for_each(|address| zone.add_qualified(&tasks, network, address));
            match vip {
                Some(vip) => zone.add_qualified(name, network, vip),
                None => members().for_each(|address| zone.add_qualified(name, network, address)),
            }
            // Only an alias can be: of the whole name nothing is left before it.
            let Some(stack) = service.name.strip_suffix(name.as_str()).filter(|s| s.ends_with('_')) else {
                continue;
            };
            let members: Vec<IpAddr> = members().map(IpAddr::from).collect();
            zone.set_of_stack(stack, &tasks, network, &members);
            zone.set_of_stack(stack, name, network, &vip.map_or(members, |vip| vec![vip.into()]));
        }
        if let Some(vip) = vip {
            zone.addresses.insert(vip.into(), format!("{}.{network}", service.name));
        }
    }
    let services: BTreeSet<String> = zone.names.keys().cloned().collect();
    // Ready ones first: a name several tasks share leads to those that work, if any does.
    let mut led = BTreeSet::new();
    for ready in [true, false] {
        for endpoint in table.endpoints.values().filter(|e| e.ready == ready) {
            let Some(address) = address_of(endpoint) else { continue };
            if let Some(name) = endpoint.names.first() {
                zone.addresses.entry(address.into()).or_insert_with(|| format!("{name}.{network}"));
            }
            for name in &endpoint.names {
                let is_service = services.contains(&name.to_ascii_lowercase());
                if !is_service && (ready || !led.contains(name)) {
                    zone.add_qualified(name, network, address);
                }
            }
        }
        led.extend(table.endpoints.values().filter(|e| e.ready).flat_map(|e| e.names.iter().cloned()));
    }
    // Containers of this host only: not in any table when started by hand.
    for leg in state.sandboxes.values().flat_map(|s| &s.legs) {
        if let SandboxAttachment::Overlay { network: id, aliases, .. } = &leg.attachment
            && *id == table.network
        {
            for name in aliases.iter().filter(|n| !services.contains(&n.to_ascii_lowercase())) {
                zone.add_qualified(name, network, leg.address);
            }
        }
    }
    zone
}

/// Containers on a local bridge.
pub(crate) fn zone_of_bridge(state: &State, id: &str) -> Zone {
    let mut zone = Zone::default();
    let Some(bridge) = state.bridges.get(id) else { return zone };
    zone.subnets = state::subnets(&bridge.spec).collect();
    for (_, leg) in state.on_bridge(id) {
        if let SandboxAttachment::Bridge { names, .. } = &leg.attachment {
            for address in
                std::iter::once(leg.address.into()).chain(leg.address6.map(|net| net.addr().into()))
            {
                for name in names {
                    zone.add_qualified(name, &bridge.spec.name, address);
                }
                if let Some(name) = names.first() {
                    zone.addresses.insert(address, format!("{name}.{}", bridge.spec.name));
                }
            }
        }
    }
    zone
}

enum Answer {
    /// Records, possibly none.
    Known(Vec<RData>),
    /// There is no such name, and nobody else may be asked.
    Nothing,
    /// Ask the outside.
    Foreign,
}

impl View {
    fn answer(&self, query: &Query, turn: usize) -> Answer {
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        if query.query_class() != DNSClass::IN {
            return Answer::Foreign;
        }
        if query.query_type() == RecordType::PTR {
            return self.reverse(query.name());
        }
        let linked = || {
            let mut links = self.links.iter().filter(|(alias, ..)| alias == name);
            links.find_map(|(_, zone, known)| zone.of_all(known))
        };
        let of_stack = || self.zones.iter().find_map(|zone| zone.of_stack(&self.service, name));
        let of_all = || self.zones.iter().find_map(|zone| zone.of_all(name));
        let Some(addresses) = linked().or_else(of_stack).or_else(of_all) else {
            return Answer::Foreign;
        };
        let record = |address: &IpAddr| match (address, query.query_type()) {
            (IpAddr::V4(v4), RecordType::A) => Some(RData::A(rdata::A(*v4))),
            (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(rdata::AAAA(*v6))),
            _ => None,
        };
        let mut records: Vec<RData> = addresses.iter().filter_map(record).collect();
        // Each answer begins with another one.
        let first = turn.checked_rem(records.len()).unwrap_or(0);
        records.rotate_left(first);
        Answer::Known(records)
    }

    fn reverse(&self, name: &Name) -> Answer {
        let Ok(net) = name.parse_arpa_name() else { return Answer::Foreign };
        let address = net.addr();
        if let Some(name) = self.zones.iter().find_map(|zone| zone.addresses.get(&address)) {
            return match Name::from_labels(name.split('.').map(str::as_bytes)) {
                Ok(name) => Answer::Known(vec![RData::PTR(rdata::PTR(name))]),
                Err(_) => Answer::Nothing,
            };
        }
        // Addresses of ours mean nothing outside.
        let ours = self.zones.iter().flat_map(|z| &z.subnets).any(|subnet| subnet.contains(&address));
        if ours { Answer::Nothing } else { Answer::Foreign }
    }
}

/// Sockets made in a sandbox, not yet served.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Sockets {
    /// Opens UDP and TCP on 127.0.0.11 in the calling thread's namespace, on `wanted` if it is free: then
    /// flows tracked to it go on.
    pub(crate) fn open(wanted: u16) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in [wanted, 0, 0, 0, 0] {
            match Self::open_at(port) {
                Ok(sockets) => return Ok(sockets),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn open_at(port: u16) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind((crate::address::DNS, port))?;
        let tcp = std::net::TcpListener::bind(udp.local_addr()?)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// Takes over sockets that somebody kept.
    pub(crate) fn kept(kept: &NameSockets) -> io::Result<Self> {
        let [udp, tcp] = kept.as_fds();
        let udp = std::net::UdpSocket::from(udp.try_clone_to_owned()?);
        let tcp = std::net::TcpListener::from(tcp.try_clone_to_owned()?);
        let (address, other) = (udp.local_addr()?, tcp.local_addr()?);
        if address != other || address.ip() != address::DNS {
            let reason = format!("kept sockets are of {address} and {other}, not of a name server");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        Ok(Self { udp, tcp })
    }

    /// Returns copies for whoever is to keep them.
    pub(crate) fn copies(&self) -> io::Result<NameSockets> {
        Ok(NameSockets::new(self.udp.try_clone()?.into(), self.tcp.try_clone()?.into()))
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.udp.local_addr()?.port())
    }
}

/// Where foreign questions go.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    /// `None` = /etc/resolv.conf of the host.
    pub(crate) resolvers: Option<Vec<IpAddr>>,
    /// The worker, when the host's namespace is not that of this process.
    pub(crate) worker: Option<mpsc::Sender<Job>>,
    /// What all containers ask for at once.
    pub(crate) asking: Asking,
}

/// A sandbox's server; ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    view: watch::Sender<Arc<View>>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Serves `sockets` on the runtime until dropped.
    pub(crate) fn start(
        runtime: &Handle,
        sockets: Sockets,
        view: View,
        upstream: Upstream,
    ) -> Result<Self, Error> {
        let _inside = runtime.enter();
        let failed = || Error::kernel("serve names");
        let udp = UdpSocket::from_std(sockets.udp).map_err(failed())?;
        let tcp = TcpListener::from_std(sockets.tcp).map_err(failed())?;
        let (sender, receiver) = watch::channel(Arc::new(view));
        let stop = CancellationToken::new();
        let resolver = Arc::new(Resolver::new(receiver, upstream));
        runtime.spawn(serve(udp, tcp, resolver, stop.clone()));
        Ok(Self { view: sender, stop })
    }

    pub(crate) fn show(&self, view: View) {
        self.view.send_replace(Arc::new(view));
    }
}

async fn serve(udp: UdpSocket, tcp: TcpListener, resolver: Arc<Resolver>, stop: CancellationToken) {
    let udp = Arc::new(udp);
    let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        tokio::select! {
            biased; // once stopped, no question is taken that would not be answered
            () = stop.cancelled() => return,
            Some(_) = tasks.join_next() => {}
            received = udp.recv_from(&mut buffer) => match received {
                Ok((len, from)) => {
                    let Ok(permit) = questions.clone().try_acquire_owned() else { continue };
                    let (udp, resolver, question) = (udp.clone(), resolver.clone(), buffer[..len].to_vec());
                    tasks.spawn(async move {
                        if let Some(answer) = resolver.resolve(&question, Transport::Udp).await
                            && let Err(error) = udp.send_to(&answer, from).await
                        {
                            debug!(%error, "cannot answer a name query");
                        }
                        drop(permit);
                    });
                }
                // An earlier answer met a closed port.
                Err(error) => debug!(%error, "cannot receive a name query"),
            },
            accepted = tcp.accept() => match accepted {
                Ok((stream, _)) => {
                    let (Ok(permit), Some(place)) =
                        (connections.clone().try_acquire_owned(), resolver.share.begin())
                    else {
                        continue;
                    };
                    let resolver = resolver.clone();
                    tasks.spawn(async move {
                        if let Err(error) = converse(stream, &resolver).await {
                            debug!(%error, "name query over TCP ended");
                        }
                        drop((permit, place));
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a name query over TCP");
                    // Out of descriptors: others need the time to close some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn converse(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let question = match timeout(TCP_PATIENCE, read_framed(&mut stream)).await {
            Ok(Ok(question)) => question,
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Ok(()),
        };
        if let Some(answer) = resolver.resolve(&question, Transport::Tcp).await {
            write_framed(&mut stream, &answer).await?;
        }
    }
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

#[derive(Debug)]
struct Resolver {
    view: watch::Receiver<Arc<View>>,
    upstream: Upstream,
    share: Share,
    turn: AtomicUsize,
}

impl Resolver {
    fn new(view: watch::Receiver<Arc<View>>, upstream: Upstream) -> Self {
        let share = upstream.asking.share();
        Self { view, upstream, share, turn: AtomicUsize::new(0) }
    }

    /// Answers one message; `None` when it is not even a question.
    async fn resolve(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).ok()?;
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let view = self.view.borrow().clone();
        let answer = match request.queries.as_slice() {
            [query] if request.metadata.op_code == OpCode::Query => {
                view.answer(query, self.turn.fetch_add(1, Ordering::Relaxed))
            }
            _ => return encode(&reply(&request, ResponseCode::NotImp), transport, &request),
        };
        let message = match answer {
            Answer::Known(records) => {
                let mut message = reply(&request, ResponseCode::NoError);
                let name = request.queries[0].name();
                message.add_answers(
                    records.into_iter().map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data)),
                );
                message
            }
            Answer::Nothing => reply(&request, ResponseCode::NXDomain),
            Answer::Foreign if !view.outside => reply(&request, ResponseCode::ServFail),
            Answer::Foreign => match self.ask(&view, question, transport).await {
                Some(answer) => return Some(answer),
                None => reply(&request, ResponseCode::ServFail),
            },
        };
        encode(&message, transport, &request)
    }

    /// Asks the outside; the answer is passed on as it came. `None`: nobody answers, or too much is asked already.
    async fn ask(&self, view: &View, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let _place = self.share.begin()?;
        let servers = if view.servers.is_empty() { self.upstream.servers() } else { view.servers.clone() };
        for server in servers.iter().chain(&servers) {
            let asked = match transport {
                Transport::Udp => timeout(UPSTREAM_PATIENCE, self.upstream.ask_udp(*server, question)).await,
                Transport::Tcp => timeout(UPSTREAM_PATIENCE, self.upstream.ask_tcp(*server, question)).await,
            };
            match asked {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => debug!(%server, %error, "name server failed"),
                Err(_) => debug!(%server, "name server is silent"),
            }
        }
        None
    }
}

fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut message = Message::error_msg(request.metadata.id, request.metadata.op_code, code);
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = code == ResponseCode::NoError;
    message.add_queries(request.queries.iter().cloned());
    message
}

fn encode(message: &Message, transport: Transport, request: &Message) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    let limit =
        request.edns.as_ref().map_or(PLAIN_DATAGRAM_BYTES, |e| e.max_payload().max(PLAIN_DATAGRAM_BYTES));
    if transport == Transport::Udp && bytes.len() > usize::from(limit) {
        return message.truncate().to_vec().ok();
    }
    Some(bytes)
}

impl Upstream {
    fn servers(&self) -> Vec<IpAddr> {
        match &self.resolvers {
            Some(servers) => servers.clone(),
            None => std::fs::read_to_string("/etc/resolv.conf").map(|t| name_servers(&t)).unwrap_or_default(),
        }
    }

    async fn ask_udp(&self, server: IpAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = match &self.worker {
            None => UdpSocket::bind(any).await?,
            Some(_) => {
                let socket = self.in_host(move || std::net::UdpSocket::bind(any)).await?;
                socket.set_nonblocking(true)?;
                UdpSocket::from_std(socket)?
            }
        };
        socket.connect(SocketAddr::new(server, 53)).await?;
        socket.send(question).await?;
        let mut answer = vec![0; usize::from(u16::MAX)];
        loop {
            let len = socket.recv(&mut answer).await?;
            // Somebody guessing would have to hit the identifier.
            if answer.get(..2) == question.get(..2) {
                answer.truncate(len);
                return Ok(answer);
            }
        }
    }

    async fn ask_tcp(&self, server: IpAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let v4 = server.is_ipv4();
        let make = move || if v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = match &self.worker {
            None => make()?,
            Some(_) => self.in_host(make).await?,
        };
        let mut stream = socket.connect(SocketAddr::new(server, 53)).await?;
        write_framed(&mut stream, question).await?;
        read_framed(&mut stream).await
    }

    /// Makes a socket on the worker thread, which is at home in the host's namespace.
    async fn in_host<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let stopped = || io::Error::other(Error::Stopped);
        let worker = self.worker.as_ref().ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |_| drop(answer.send(make())));
        worker.send(job).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

/// Reads `nameserver` lines. Our own address is left out: it would ask itself.
fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse().ok())
        .filter(|address| *address != IpAddr::V4(crate::address::DNS))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::Ipv4Addr,
        task::{Context, Waker},
    };

    fn view() -> View {
        let mut zone = Zone {
            subnets: ["10.0.1.0/24", "fd00:1::/64"].map(|net| net.parse().unwrap()).into(),
            ..Zone::default()
        };
        zone.add_qualified("web", "front", Ipv4Addr::new(10, 0, 1, 200));
        zone.addresses.insert(Ipv4Addr::new(10, 0, 1, 200).into(), "web.front".into());
        zone.add("both", Ipv4Addr::new(10, 0, 1, 4));
        zone.add("both", "fd00:1::4".parse::<IpAddr>().unwrap());
        zone.addresses.insert("fd00:1::4".parse().unwrap(), "both.front".into());
        zone.add("tasks.web", Ipv4Addr::new(10, 0, 1, 2));
        zone.add("tasks.web", Ipv4Addr::new(10, 0, 1, 3));
        let zone = Arc::new(zone);
        let links = [("store", "both"), ("gone", "nobody")];
        let links = links.map(|(alias, known)| (alias.to_owned(), Arc::clone(&zone), known.to_owned()));
        let (links, servers, service) = (links.into(), vec![], String::new());
        View { zones: vec![zone], links, servers, service, outside: true }
    }

    fn ask(name: &str, kind: RecordType, turn: usize) -> Answer {
        view().answer(&Query::query(Name::from_ascii(name).unwrap(), kind), turn)
    }

    fn first(answer: Answer) -> Option<String> {
        match answer {
            Answer::Known(records) => records.first().map(ToString::to_string),
            Answer::Nothing | Answer::Foreign => panic!("not known"),
        }
    }

    #[test]
    fn a_link_is_another_name_that_only_its_container_knows() {
        assert_eq!(first(ask("Store.", RecordType::A, 0)).as_deref(), Some("10.0.1.4"));
        assert_eq!(first(ask("store.", RecordType::AAAA, 0)).as_deref(), Some("fd00:1::4"));
        assert!(matches!(ask("gone.", RecordType::A, 0), Answer::Foreign), "who is not there has no name");
        let without = View { links: vec![], ..view() };
        let query = Query::query(Name::from_ascii("store.").unwrap(), RecordType::A);
        assert!(matches!(without.answer(&query, 0), Answer::Foreign));
        // A link goes before a name of the network, as Docker has it.
        let mut shadowed = view();
        shadowed.links.push(("web".to_owned(), Arc::clone(&shadowed.zones[0]), "both".to_owned()));
        let query = Query::query(Name::from_ascii("web.").unwrap(), RecordType::A);
        assert_eq!(first(shadowed.answer(&query, 0)).as_deref(), Some("10.0.1.4"));
    }

    /// What is asked outside is asked by the worker, which here never does.
    #[tokio::test]
    async fn who_has_no_way_out_or_asks_too_much_has_nothing_asked_for_him() {
        let question = Message::new(7, MessageType::Query, OpCode::Query);
        let mut question = question;
        question.add_query(Query::query(Name::from_ascii("secret.example.com.").unwrap(), RecordType::A));
        let question = question.to_vec().unwrap();
        let (worker, mut jobs) = mpsc::channel(16);
        let upstream = Upstream {
            resolvers: Some(vec![Ipv4Addr::new(192, 0, 2, 53).into()]),
            worker: Some(worker),
            asking: Asking::new(4),
        };
        let resolver = |outside| {
            let view = View { outside, servers: vec![Ipv4Addr::new(192, 0, 2, 54).into()], ..view() };
            Resolver::new(watch::channel(Arc::new(view)).1, upstream.clone())
        };
        let code =
            |answer: Option<Vec<u8>>| Message::from_vec(&answer.unwrap()).unwrap().metadata.response_code;
        for transport in [Transport::Udp, Transport::Tcp] {
            let answer = resolver(false).resolve(&question, transport).await;
            assert_eq!(code(answer), ResponseCode::ServFail);
            assert!(jobs.try_recv().is_err(), "it left");
        }

        let free = resolver(true);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut one, mut two) = (
            Box::pin(free.resolve(&question, Transport::Udp)),
            Box::pin(free.resolve(&question, Transport::Tcp)),
        );
        assert!(one.as_mut().poll(&mut cx).is_pending() && two.as_mut().poll(&mut cx).is_pending());
        assert!(jobs.try_recv().is_ok() && jobs.try_recv().is_ok(), "both are asked");
        let third = free.resolve(&question, Transport::Udp).await;
        assert_eq!(code(third), ResponseCode::ServFail);
        assert!(jobs.try_recv().is_err(), "two of four are half");
        let other = resolver(true);
        let mut others = Box::pin(other.resolve(&question, Transport::Udp));
        assert!(others.as_mut().poll(&mut cx).is_pending(), "another container still asks");
        drop(one);
        let mut next = Box::pin(free.resolve(&question, Transport::Udp));
        assert!(next.as_mut().poll(&mut cx).is_pending(), "its place is free again");
    }

    #[test]
    fn names_answer_in_any_case_and_with_their_network() {
        assert_eq!(first(ask("WEB.", RecordType::A, 0)).as_deref(), Some("10.0.1.200"));
        assert_eq!(first(ask("web.front.", RecordType::A, 0)).as_deref(), Some("10.0.1.200"));
    }

    #[test]
    fn on_a_network_of_several_stacks_a_name_is_that_of_the_own_stack() {
        let mut zone = Zone::default();
        for (stack, last) in [("one_", 1), ("two_", 2), ("two_a_", 3)] {
            let address = Ipv4Addr::new(10, 0, 1, last);
            zone.add_qualified("api", "shared", address);
            zone.set_of_stack(stack, "api", "shared", &[address.into()]);
        }
        // Its tasks do not run.
        zone.set_of_stack("down_", "api", "shared", &[]);
        let private = Arc::new(Zone::default());
        let asked = |service: &str, name: &str| {
            let view = View {
                zones: vec![private.clone(), Arc::new(zone.clone())],
                service: service.to_owned(),
                ..View::default()
            };
            let query = Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
            let answers = (0..3).filter_map(|turn| first(view.answer(&query, turn)));
            answers.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(asked("two_app", "api."), "10.0.1.2");
        assert_eq!(asked("one_app", "API.shared."), "10.0.1.1");
        assert_eq!(asked("two_a_app", "api."), "10.0.1.3", "of stack two_a");
        assert_eq!(asked("down_app", "api."), "", "not another's");
        // A container that is in no stack, and a service that is not with either.
        assert_eq!(asked("", "api."), "10.0.1.1 10.0.1.2 10.0.1.3");
        assert_eq!(asked("three_app", "api."), "10.0.1.1 10.0.1.2 10.0.1.3");
    }

    /// The names of a network are made anew with each of its tables: a service of many tasks, and many of few.
    #[test]
    fn the_names_of_a_large_network_are_made_in_proportion() {
        let address = |n: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n));
        let service = |n: u32| model::ServiceId(u128::from(n));
        let (tasks, services) = (30_000, 3000);
        let mut table = model::NetworkTable {
            network: model::NetworkId(1),
            name: "net".into(),
            version: 1,
            allocation: model::NetworkAllocation {
                vni: 4097,
                subnet: "10.0.0.0/8".parse().unwrap(),
                gateway: address(1),
            },
            internal: false,
            mtu_bytes: 1450,
            endpoints: BTreeMap::new(),
            services: BTreeMap::new(),
        };
        for n in 0..services {
            let vip = (n > 0).then(|| address(1_000_000 + n));
            let named = model::NetworkService { name: format!("s{n}"), vip, aliases: vec!["all".into()] };
            table.services.insert(service(n), named);
        }
        for n in 0..tasks + services {
            let endpoint = model::NetworkEndpoint {
                address: address(10 + n),
                node: model::NodeId(1),
                vtep: address(2),
                service: service(n.saturating_sub(tasks)),
                names: vec![format!("t{n}")],
                ready: true,
                lost: false,
            };
            table.endpoints.insert(model::TaskId(u128::from(n)), endpoint);
        }
        let begun = std::time::Instant::now();
        let mut state = State::default();
        state.put_table(table);
        let zone = zone_of_overlay(&state, &state.tables[&model::NetworkId(1)]);
        let took = begun.elapsed();
        let count = |name: &str| zone.of_all(name).map_or(0, Vec::len);
        assert_eq!((count("s0"), count("tasks.s0.net"), count("t7.net")), (30_001, 30_001, 1));
        assert_eq!((count("s5"), count("tasks.s5"), count("tasks.all")), (1, 1, 33_000));
        assert_eq!(state.tables[&model::NetworkId(1)].backends[&service(5)].members().len(), 1);
        assert!(took < Duration::from_secs(20), "{took:?}: each task is looked at for each other");
    }

    #[test]
    fn answers_take_turns() {
        assert_eq!(first(ask("tasks.web.", RecordType::A, 0)).as_deref(), Some("10.0.1.2"));
        assert_eq!(first(ask("tasks.web.", RecordType::A, 1)).as_deref(), Some("10.0.1.3"));
    }

    #[test]
    fn known_names_have_ipv6_where_their_container_has_and_unknown_ones_are_foreign() {
        assert_eq!(first(ask("both.", RecordType::AAAA, 1)).as_deref(), Some("fd00:1::4"));
        assert_eq!(first(ask("both.", RecordType::A, 1)).as_deref(), Some("10.0.1.4"));
        assert_eq!(first(ask("web.", RecordType::AAAA, 0)), None);
        assert!(matches!(ask("example.org.", RecordType::A, 0), Answer::Foreign));
    }

    #[test]
    fn reverse_names_of_our_subnets_are_never_forwarded() {
        assert_eq!(first(ask("200.1.0.10.in-addr.arpa.", RecordType::PTR, 0)).as_deref(), Some("web.front."));
        assert!(matches!(ask("9.1.0.10.in-addr.arpa.", RecordType::PTR, 0), Answer::Nothing));
        let nibbles = "4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!(first(ask(nibbles, RecordType::PTR, 0)).as_deref(), Some("both.front."));
        assert!(matches!(ask("9.9.9.9.in-addr.arpa.", RecordType::PTR, 0), Answer::Foreign));
    }

    #[test]
    fn name_servers_are_read_but_not_ourselves() {
        let text = "# x\nnameserver 127.0.0.11\n nameserver 192.0.2.53\nsearch corp\nnameserver fe80::1\n";
        let read = name_servers(text);
        assert_eq!(read, ["192.0.2.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }
}
