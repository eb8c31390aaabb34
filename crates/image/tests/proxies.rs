//! Pulls that go through a proxy: one in this process, which is the registry as well, for whatever host is asked for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use image::{Error, Image, ImportOptions, Proxies, PullOptions, RegistryOptions, Store};
use std::{
    io::{self, Cursor},
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

/// What TLS begins with.
const HANDSHAKE: u8 = 0x16;

/// A proxy, and the registry behind it with the one image `team/web:1`.
struct Proxy {
    address: SocketAddr,
    image: Image,
    /// What it was asked for.
    asked: Mutex<Vec<String>>,
    store: Store,
    tls: tokio_rustls::TlsAcceptor,
    /// What its server ends with, which has no hold on it.
    serving: Mutex<JoinSet<()>>,
    _root: tempfile::TempDir,
}

impl Proxy {
    async fn start() -> Arc<Self> {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), false).await.unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, "empty", io::empty()).unwrap();
        let options =
            ImportOptions { reference: Some("team/web:1".parse().unwrap()), ..ImportOptions::default() };
        let id = store.import(Cursor::new(tar.into_inner().unwrap()), options).await.unwrap();
        let image = store.by_id(&id).await.unwrap();

        let made = rcgen::generate_simple_self_signed(["secure.example".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let proxy = Arc::new(Self {
            address,
            image,
            asked: Mutex::default(),
            store,
            tls,
            serving: Mutex::default(),
            _root: root,
        });
        let this = Arc::downgrade(&proxy);
        proxy.serving.lock().unwrap().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let Some(this) = this.upgrade() else { return };
                // A client that gives up ends its connection.
                connections.spawn(async move { this.open(stream).await.ok() });
            }
        });
        proxy
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    /// Returns what it was asked for.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn open(self: Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        match first[0] {
            5 => self.open_socks(&mut stream).await?,
            b'C' => {
                let head = head(&mut stream).await?;
                let proof = head.lines().find(|line| line.to_lowercase().starts_with("proxy-authorization"));
                self.note(format!("{} {}", head.lines().next().unwrap(), proof.unwrap_or("-")));
                if head.contains("forbidden.example") {
                    return stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
                }
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                stream.peek(&mut first).await?;
                if first[0] == HANDSHAKE && head.contains("plain.example") {
                    return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
            }
            _ => {}
        }
        stream.peek(&mut first).await?;
        if first[0] == HANDSHAKE {
            let stream = self.tls.accept(stream).await?;
            self.serve(stream).await
        } else {
            self.serve(stream).await
        }
    }

    /// *Source:* RFC 1928, RFC 1929.
    async fn open_socks(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting).await?;
        stream.write_all(&[5, greeting[2]]).await?;
        if greeting[2] == 2 {
            let (mut length, mut words) = ([0; 2], Vec::new());
            stream.read_exact(&mut length).await?;
            for next in [length[1], 0] {
                let next = if words.is_empty() { next } else { stream.read_u8().await? };
                let mut word = vec![0; next.into()];
                stream.read_exact(&mut word).await?;
                words.push(String::from_utf8(word).unwrap());
            }
            self.note(format!("socks as {}", words.join(":")));
            stream.write_all(&[1, 0]).await?;
        }
        let mut request = [0; 5];
        stream.read_exact(&mut request).await?;
        let mut host = vec![0; request[4].into()];
        stream.read_exact(&mut host).await?;
        let port = stream.read_u16().await?;
        self.note(format!("socks {}:{port}", String::from_utf8(host).unwrap()));
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await
    }

    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let serve = service_fn(move |request: Request<Incoming>| {
            let this = Arc::clone(&self);
            async move { Ok::<_, io::Error>(this.answer(&request).await) }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
        connection.await.map_err(io::Error::other)
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<http_body_util::Full<Bytes>> {
        let proof = request.headers().get("proxy-authorization").map_or("-", |proof| proof.to_str().unwrap());
        self.note(format!("GET {} {proof}", request.uri()));
        let path = request.uri().path();
        let last = path.rsplit('/').next().unwrap();
        let manifest = self.store.manifest_for(&"team/web:1".parse().unwrap()).await.unwrap();
        let mut answer = Response::new(http_body_util::Full::default());
        if path.contains("/manifests/") {
            answer.headers_mut().insert("content-type", manifest.media_type.parse().unwrap());
            *answer.body_mut() = manifest.bytes.clone().into();
        } else if path.contains("/blobs/") {
            let blob = self.store.blob_path(&last.parse().unwrap()).unwrap();
            *answer.body_mut() = std::fs::read(blob).unwrap().into();
        } else if path != "/v2/" {
            *answer.status_mut() = StatusCode::NOT_FOUND;
        }
        answer
    }
}

/// Reads to the end of a request's head.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

async fn pull(name: &str, proxies: Proxies) -> Result<Image, Error> {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open_through(root.path(), false, proxies).await.unwrap();
    let insecure = ["secure.example", "plain.example:5000"].map(str::to_owned).into();
    let options = PullOptions {
        registries: RegistryOptions { insecure, ..RegistryOptions::default() },
        ..PullOptions::default()
    };
    let (sender, _) = mpsc::channel(1);
    store.pull(&name.parse().unwrap(), options, sender).await
}

#[tokio::test]
async fn registries_are_reached_through_the_proxy_of_their_scheme() {
    let proxy = Proxy::start().await;
    let url = format!("http://dan:secret@{}", proxy.address);
    let proof = "Basic ZGFuOnNlY3JldA==";
    let proxies = Proxies::new(&url, &url, "").unwrap();
    let pulled = pull("secure.example/team/web:1", proxies.clone()).await.unwrap();
    assert_eq!(pulled.id, proxy.image.id);
    let asked = proxy.asked();
    assert!(asked[0].starts_with("CONNECT secure.example:443 HTTP/1.1 "), "{asked:?}");
    assert!(asked[0].to_lowercase().contains(&format!("proxy-authorization: {proof}").to_lowercase()));
    // Inside the tunnel a request is as to the registry itself.
    assert!(asked.contains(&"GET /v2/team/web/manifests/1 -".to_owned()), "{asked:?}");

    // One that speaks no TLS: the proxy reads the requests, which name the whole URL.
    let pulled = pull("plain.example:5000/team/web:1", proxies).await.unwrap();
    assert_eq!(pulled.id, proxy.image.id);
    let asked = proxy.asked().split_off(asked.len());
    assert!(asked[0].starts_with("CONNECT plain.example:5000 "), "{asked:?}");
    let manifest = format!("GET http://plain.example:5000/v2/team/web/manifests/1 {proof}");
    assert!(asked.contains(&manifest), "{asked:?}");
}

#[tokio::test]
async fn a_socks_proxy_leads_to_registries_too() {
    let proxy = Proxy::start().await;
    let url = format!("socks5://dan:secret@{}", proxy.address);
    let pulled = pull("secure.example/team/web:1", Proxies::new("", &url, "").unwrap()).await.unwrap();
    assert_eq!(pulled.id, proxy.image.id);
    let asked = proxy.asked();
    assert_eq!(asked[..2], ["socks as dan:secret", "socks secure.example:443"]);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let proxy = Proxy::start().await;
    let url = format!("http://dan:secret@{}", proxy.address);
    let refused =
        pull("forbidden.example/team/web:1", Proxies::new("", &url, "").unwrap()).await.unwrap_err();
    let mut said = vec![refused.to_string()];
    let mut cause = std::error::Error::source(&refused);
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    let said = said.join(": ");
    assert!(said.contains(&format!("proxy http://{}", proxy.address)), "{said}");
    assert!(!said.contains("secret"), "{said}");

    // This host itself is reached without.
    let before = proxy.asked().len();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let direct = pull(&format!("{closed}/team/web:1"), Proxies::new(&url, &url, "").unwrap()).await;
    assert!(matches!(direct, Err(Error::Network { .. })), "{direct:?}");
    assert_eq!(proxy.asked().len(), before);
}
