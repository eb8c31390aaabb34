//! The wires between the hosts of a storm: what is sent arrives later, sometimes much later, or not until a wire is whole
//! again; and who is at the other end is known without certificates.

use super::Random;
use hyper_util::rt::TokioIo;
use model::Duration;
use pki::{Identity, tls::Peer};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint, server::Connected},
};

/// As a node waits.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const BUFFER: usize = 64 << 10;

/// A connection as the host sees it that was dialled.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: DuplexStream,
    peer: Peer,
}

impl Connected for Incoming {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

type Door = mpsc::Sender<io::Result<Incoming>>;

#[derive(Debug)]
struct State {
    random: Random,
    doors: BTreeMap<SocketAddr, Door>,
    /// Hosts without power: nothing is heard of them, not even that they are gone.
    dark: BTreeSet<IpAddr>,
    /// Nothing comes through from the one to the other.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Some of what is sent is sent again.
    loses: bool,
    tasks: JoinSet<()>,
}

/// All wires.
#[derive(Debug, Clone)]
pub(super) struct Net {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Net {
    pub(super) fn new(random: Random) -> Self {
        let state = State {
            random,
            doors: BTreeMap::new(),
            dark: BTreeSet::new(),
            cut: BTreeSet::new(),
            loses: true,
            tasks: JoinSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.changed.send_modify(|times| *times += 1);
        outcome
    }

    /// Takes connections at an address, until what it returns is dropped.
    pub(super) fn listen(&self, at: SocketAddr) -> mpsc::Receiver<io::Result<Incoming>> {
        let (door, incoming) = mpsc::channel(64);
        self.lock().doors.insert(at, door);
        incoming
    }

    /// Returns false if a host's power was so already.
    pub(super) fn set_power(&self, host: IpAddr, on: bool) -> bool {
        self.change(|state| if on { state.dark.remove(&host) } else { state.dark.insert(host) })
    }

    /// Cuts a wire one way.
    pub(super) fn cut(&self, from: IpAddr, to: IpAddr) {
        self.change(|state| state.cut.insert((from, to)));
    }

    /// Puts all wires that end at a host in order again.
    pub(super) fn mend(&self, host: IpAddr) {
        self.change(|state| state.cut.retain(|(from, to)| *from != host && *to != host));
    }

    /// All wires are whole from now on, and lose nothing.
    pub(super) fn calm(&self) {
        self.change(|state| {
            state.cut.clear();
            state.loses = false;
        });
    }

    /// Does anything come through from the one to the other?
    pub(super) fn passes(&self, from: IpAddr, to: IpAddr) -> bool {
        let state = self.lock();
        from == to && !state.dark.contains(&from)
            || !(state.dark.contains(&from) || state.dark.contains(&to) || state.cut.contains(&(from, to)))
    }

    async fn until_passes(&self, from: IpAddr, to: IpAddr) {
        let mut changed = self.changed.subscribe();
        // The sender is in `self`.
        drop(changed.wait_for(|_| self.passes(from, to)).await);
    }

    /// Returns how long what is sent takes: a moment, and now and then as long as it takes to send it again.
    fn delay(&self) -> Duration {
        let mut state = self.lock();
        let usual = Duration::from_micros(200 + state.random.below(1500) as u64);
        if state.loses && state.random.once_in(300) { usual + state.random.millis(200, 700) } else { usual }
    }

    async fn connect(
        &self,
        from: IpAddr,
        identity: Option<Identity>,
        to: SocketAddr,
    ) -> io::Result<DuplexStream> {
        tokio::time::sleep(self.delay()).await;
        let through = async {
            self.until_passes(from, to.ip()).await;
            self.until_passes(to.ip(), from).await;
        };
        tokio::time::timeout(CONNECT_LIMIT, through).await?;
        let Some(door) = self.lock().doors.get(&to).cloned() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let ((near, near_wire), (far, far_wire)) = (tokio::io::duplex(BUFFER), tokio::io::duplex(BUFFER));
        let peer = Peer { identity, expired: None, addr: SocketAddr::new(from, 40_000) };
        let taken = door.send(Ok(Incoming { stream: far, peer })).await;
        taken.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let net = self.clone();
        let mut state = self.lock();
        while state.tasks.try_join_next().is_some() {}
        state.tasks.spawn(async move {
            let (near_in, near_out) = tokio::io::split(near_wire);
            let (far_in, far_out) = tokio::io::split(far_wire);
            tokio::join!(
                net.carry(near_in, far_out, from, to.ip()),
                net.carry(far_in, near_out, to.ip(), from)
            );
        });
        Ok(near)
    }

    /// Carries what is sent one way, and that nothing more will be.
    async fn carry(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        source: IpAddr,
        target: IpAddr,
    ) {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let length = from.read(&mut chunk).await.unwrap_or(0);
            self.until_passes(source, target).await;
            tokio::time::sleep(self.delay()).await;
            self.until_passes(source, target).await;
            if length == 0 || to.write_all(&chunk[..length]).await.is_err() {
                break;
            }
        }
        // The other end may be gone.
        drop(to.shutdown().await);
    }

    /// Returns a channel as a node opens one.
    pub(super) fn channel(&self, from: IpAddr, identity: Option<Identity>, to: SocketAddr) -> Channel {
        Endpoint::from_shared(format!("http://{to}"))
            .unwrap()
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(Dialler { net: self.clone(), from, identity })
    }
}

#[derive(Debug, Clone)]
struct Dialler {
    net: Net,
    from: IpAddr,
    identity: Option<Identity>,
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let to = uri.authority().expect("an address").as_str().parse().expect("an address");
            this.net.connect(this.from, this.identity, to).await.map(TokioIo::new)
        })
    }
}
