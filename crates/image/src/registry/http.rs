//! One HTTP client for all registries: pooled connections, own resolver, streams in and out.

use super::{
    proxy::{Proxies, port_of},
    tls,
};
use crate::{
    error::{Error, Result},
    source::SourceError,
};
use futures::{TryStreamExt, future::BoxFuture};
use hickory_resolver::{TokioResolver, net::runtime::TokioRuntimeProvider};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            Connected, Connection,
            proxy::{SocksV5, Tunnel},
        },
    },
    rt::{TokioExecutor, TokioIo},
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OnceCell,
};
use tokio_rustls::TlsConnector;
use tokio_util::io::ReaderStream;
use tower::Service as _;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the answer's headers are here; large uploads are read by the server before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// *Limit* of hosts whose connections are kept: redirects name any number of them.
const CLIENTS_MAX: usize = 64;
/// *Limit* of base URLs of which is known whether a registry speaks there.
const KNOWN_MAX: usize = 1024;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// On which terms somebody is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    /// Its certificate is checked.
    pub(crate) verify: bool,
    /// It may be this host itself, or on the link beside it. Not those whom a registry elsewhere names: what listens
    /// there takes us for one of its own.
    pub(crate) near: bool,
}

impl Terms {
    /// For whom a person or the operator has named.
    pub(crate) fn named(verify: bool) -> Self {
        Self { verify, near: true }
    }
}

/// What to send; made anew for each try.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    File(PathBuf),
}

/// The client: cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Http {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By host and terms: each may have its own certificates.
    clients: Mutex<HashMap<(String, Terms), Client<Connector, Body>>>,
    /// Base URLs tried before.
    known: Mutex<HashMap<String, bool>>,
    pub(super) tokens: super::auth::Tokens,
    proxies: Proxies,
}

impl Http {
    pub(crate) fn new(proxies: Proxies) -> Self {
        Self { inner: Arc::new(Inner { proxies, ..Inner::default() }) }
    }

    pub(crate) fn proxies(&self) -> &Proxies {
        &self.inner.proxies
    }

    pub(super) fn tokens(&self) -> &super::auth::Tokens {
        &self.inner.tokens
    }

    /// Whether a registry speaks there, if that is known.
    pub(super) fn is_known(&self, base: &str) -> Option<bool> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner).get(base).copied()
    }

    pub(super) fn remember(&self, base: &str, speaks: bool) {
        let mut known = self.inner.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            // Found out again when it is needed.
            known.clear();
        }
        known.insert(base.to_owned(), speaks);
    }

    /// Sends one request and waits for the headers of the answer.
    pub(crate) async fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        payload: &Payload,
        terms: Terms,
    ) -> Result<Response<Incoming>> {
        let shown = url.split('?').next().unwrap_or(url).to_owned();
        let network = |source: SourceError| Error::Network { url: shown.clone(), source };
        let uri: Uri = url.parse().map_err(|e: hyper::http::uri::InvalidUri| network(e.into()))?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let client = self.client(&host, terms).map_err(|e| network(e.into()))?;
        let (body, length, timeout) = payload.body().await?;
        // Through a tunnel the proxy sees nothing of a request; it is named where the tunnel is asked for.
        let proxy = self.inner.proxies.of(&uri).filter(|_| uri.scheme_str() == Some("http"));
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        if let Some(proof) = proxy.as_ref().and_then(|proxy| proxy.basic_auth()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, proof.clone());
        }
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("rswarm/", env!("CARGO_PKG_VERSION"))));
        if let Some(length) = length {
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        match tokio::time::timeout(timeout, client.request(request)).await {
            Ok(answer) => answer.map_err(|e| network(e.into())),
            Err(elapsed) => Err(network(elapsed.into())),
        }
    }

    fn client(&self, host: &str, terms: Terms) -> io::Result<Client<Connector, Body>> {
        let mut clients = self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), terms);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        if clients.len() >= CLIENTS_MAX {
            // Answers under way keep theirs.
            clients.clear();
        }
        let direct = Direct { tls: tls::connector(host, terms.verify)?, near: terms.near };
        let connector = Connector { direct, proxies: self.inner.proxies.clone() };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        clients.insert(key, client.clone());
        Ok(client)
    }
}

impl Payload {
    async fn body(&self) -> Result<(Body, Option<u64>, Duration)> {
        let full = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        Ok(match self {
            Self::Empty => (full(Bytes::new()), None, ANSWER_TIMEOUT),
            Self::Bytes(bytes) => (full(bytes.clone()), Some(bytes.len() as u64), ANSWER_TIMEOUT),
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await.map_err(Error::io("open", path))?;
                let length = file.metadata().await.map_err(Error::io("open", path))?.len();
                let stream = ReaderStream::with_capacity(file, 128 << 10).map_ok(Frame::data);
                (StreamBody::new(stream).boxed_unsync(), Some(length), UPLOAD_TIMEOUT)
            }
        })
    }
}

/// Tells whether a TLS handshake found something else at the other end.
pub(super) fn is_not_tls(error: &SourceError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(current) = cause {
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = current.downcast_ref::<rustls::Error>().or_else(|| inner?.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidMessage(_))) {
            return true;
        }
        cause = current.source();
    }
    false
}

/// Opens connections, through a proxy where one leads there.
#[derive(Debug, Clone)]
struct Connector {
    direct: Direct,
    proxies: Proxies,
}

/// Opens connections: resolves, connects, and does the handshake.
#[derive(Debug, Clone)]
struct Direct {
    tls: TlsConnectorDebug,
    /// See [`Terms::near`].
    near: bool,
}

/// A proxy was not reached, or does not open the way.
#[derive(Debug, thiserror::Error)]
#[error("proxy {proxy}")]
struct ProxyFailed {
    proxy: String,
    #[source]
    source: SourceError,
}

/// `TlsConnector`, which cannot be shown.
#[derive(Clone)]
pub(super) struct TlsConnectorDebug(pub(super) TlsConnector);

impl std::fmt::Debug for TlsConnectorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no connection within 10 s");
            let open = tokio::time::timeout(CONNECT_TIMEOUT, this.open(&uri));
            open.await.map_err(|_| timed_out())?.map(TokioIo::new)
        })
    }
}

impl Connector {
    async fn open(&self, uri: &Uri) -> io::Result<Stream> {
        let Some(proxy) = self.proxies.of(uri) else { return self.direct.open(uri).await };
        // The proxy looks names up itself; what this host knows of them is all that can be judged here.
        if !self.direct.near && is_near_host(host_of(uri)?).await {
            return Err(leads_near(host_of(uri)?));
        }
        let at = proxy.uri().clone();
        let shown = at.to_string().trim_end_matches('/').to_owned();
        let failed = |source: SourceError| io::Error::other(ProxyFailed { proxy: shown, source });
        // A proxy shows a certificate of its own.
        let host = at.authority().map(ToString::to_string).unwrap_or_default();
        let mut to_proxy = Direct { tls: tls::connector(&host, true)?, near: true };
        let secure = uri.scheme_str() == Some("https");
        let way = match at.scheme_str() {
            Some("socks5" | "socks5h") => {
                let mut socks = SocksV5::new(at, to_proxy);
                if let Some((name, password)) = proxy.raw_auth() {
                    socks = socks.with_auth(name.to_owned(), password.to_owned());
                }
                socks.call(with_port(uri)?).await.map_err(|e| failed(e.into()))?.into_inner()
            }
            _ if secure => {
                let mut tunnel = Tunnel::new(at, to_proxy);
                if let Some(proof) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(proof.clone());
                }
                tunnel.call(with_port(uri)?).await.map_err(|e| failed(e.into()))?.into_inner()
            }
            _ => {
                // The proxy reads the requests themselves.
                let way = to_proxy.call(at).await.map_err(|e| failed(e.into()))?.into_inner();
                return Ok(Stream { proxied: true, ..way });
            }
        };
        if secure { self.direct.encrypt(uri, way).await } else { Ok(way) }
    }
}

impl tower::Service<Uri> for Direct {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.open(&uri).await.map(TokioIo::new) })
    }
}

fn host_of(uri: &Uri) -> io::Result<&str> {
    let host = uri.host().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "URL without a host"))?;
    Ok(host.trim_matches(['[', ']']))
}

/// Returns the same address with its port said: proxies are asked for it.
fn with_port(uri: &Uri) -> io::Result<Uri> {
    let host = uri.host().unwrap_or_default();
    let scheme = uri.scheme_str().unwrap_or("http");
    format!("{scheme}://{host}:{}/", port_of(uri)).parse().map_err(io::Error::other)
}

impl Direct {
    async fn open(&self, uri: &Uri) -> io::Result<Stream> {
        let host = host_of(uri)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no address for {host}"));
        for address in addresses(host).await? {
            // Judged as it is connected to: a name may mean something else each time it is looked up.
            if !self.near && is_near(address) {
                last = leads_near(&address.to_string());
                continue;
            }
            match TcpStream::connect(SocketAddr::new(address, port_of(uri))).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let stream = Stream { io: Box::new(stream), proxied: false };
                    return match uri.scheme_str() {
                        Some("https") => self.encrypt(uri, stream).await,
                        _ => Ok(stream),
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn encrypt(&self, uri: &Uri, stream: Stream) -> io::Result<Stream> {
        let name =
            rustls_pki_types::ServerName::try_from(host_of(uri)?.to_owned()).map_err(io::Error::other)?;
        let stream = self.tls.0.connect(name, stream).await?;
        Ok(Stream { io: Box::new(stream), proxied: false })
    }
}

fn leads_near(place: &str) -> io::Error {
    let what = format!("{place} is this host or on its link, where a registry elsewhere may not lead");
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

/// Tells whether a host, by name or address, is this one or on a link beside it. What cannot be looked up is not.
pub(super) async fn is_near_host(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    addresses(host).await.is_ok_and(|all| all.into_iter().any(is_near))
}

/// Where a cloud's host asks who it is, by IPv6: no link's address, but nobody else's either.
/// Source: Amazon EC2, "Instance metadata".
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Loopback, the link beside it (a cloud's metadata among them), and what means either. Source: RFC 6890; RFC 4291, 2.5.5.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == METADATA
        }
    }
}

/// Resolves without libc, whose resolver a static program cannot rely on.
async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    static RESOLVER: OnceCell<TokioResolver> = OnceCell::const_new();
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let make = || async {
        TokioResolver::builder(TokioRuntimeProvider::default()).and_then(|builder| builder.build())
    };
    let resolver = RESOLVER.get_or_try_init(make).await.map_err(io::Error::other)?;
    let found = resolver.lookup_ip(host).await;
    Ok(found.map_err(|error| unresolved(host, error.is_no_records_found(), &error))?.iter().collect())
}

/// Says in Go's words why a name has no address; the resolver's own are its innards.
fn unresolved(host: &str, unknown: bool, error: &dyn std::fmt::Display) -> io::Error {
    match unknown {
        true => io::Error::new(io::ErrorKind::NotFound, format!("lookup {host}: no such host")),
        false => io::Error::other(format!("lookup {host}: {error}")),
    }
}

/// What bytes go through.
trait Io: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Io for T {}

/// A connection, encrypted or not.
#[derive(Debug)]
struct Stream {
    io: Box<dyn Io>,
    /// It ends at a proxy that reads requests, which then name the whole URL.
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    #[test]
    fn a_name_without_an_address_is_told_of_by_itself() {
        let told = |unknown| unresolved("a.invalid", unknown, &"Query { .. }").to_string();
        assert_eq!(
            (told(true), told(false)),
            ("lookup a.invalid: no such host".to_owned(), "lookup a.invalid: Query { .. }".to_owned(),)
        );
    }

    #[test]
    fn hosts_without_end_are_not_all_kept() {
        let http = Http::default();
        for n in 0..2 * CLIENTS_MAX {
            http.client(&format!("h{n}.example"), Terms::named(true)).unwrap();
            http.remember(&format!("https://h{n}.example"), true);
        }
        assert!(http.inner.clients.lock().unwrap().len() <= CLIENTS_MAX);
        (0..2 * KNOWN_MAX).for_each(|n| http.remember(&format!("http://h{n}.example"), false));
        assert!(http.inner.known.lock().unwrap().len() <= KNOWN_MAX);
    }

    /// A program of the host that answers whoever asks from the host, how often it was asked, and what it ends with.
    async fn bystander() -> (u16, Arc<std::sync::atomic::AtomicUsize>, JoinSet<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let mut program = JoinSet::new();
        program.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // A server that does not read what it is asked takes its answer back with the connection.
                tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await.ok();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.ok();
            }
        });
        (port, asked, program)
    }

    #[tokio::test]
    async fn who_may_not_be_near_is_not_connected_to_by_whatever_name() {
        let (port, asked, _program) = bystander().await;
        let (http, headers) = (Http::default(), HeaderMap::new());
        let ask = async |host: &str, near: bool| {
            let (url, terms) =
                (format!("http://{host}:{port}/latest/meta-data"), Terms { verify: true, near });
            http.send(&Method::GET, &url, &headers, &Payload::Empty, terms).await
        };
        for host in ["127.0.0.1", "localhost", "127.9.9.9", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]"]
        {
            let error = ask(host, false).await.expect_err(host);
            let text = chain_of(&error);
            assert!(text.contains("where a registry elsewhere may not lead"), "{host}: {text}");
        }
        for host in ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"] {
            assert!(is_near_host(host).await, "{host}");
            ask(host, false).await.expect_err(host);
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0, "nobody was asked");
        ask("127.0.0.1", true).await.expect("whom a person names may be near");
        for host in ["192.0.2.1", "10.0.0.1", "[2001:db8::1]", "[::ffff:192.0.2.1]"] {
            assert!(!is_near_host(host).await, "{host}");
        }
    }

    fn chain_of(error: &Error) -> String {
        std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }
}
