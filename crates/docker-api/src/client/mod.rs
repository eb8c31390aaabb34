//! A client of the Docker Engine REST API, for our own commands.
//!
//! One connection per request: a request never waits behind another, and a daemon that restarts is met anew.
//! A connection's driver task belongs to the body of its answer and ends with it ([`Answer`]).

mod answer;
mod api;
mod dial;
mod stand_in;
mod stream;

pub use answer::Answer;
pub use api::Exposed;
pub use dial::Connection;
pub use stream::{Demux, Frame, Hijacked, JsonLines, Kind, StreamError};

use crate::types::{ErrorBody, Text, Wire, Written, parse};
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path`
    Unix(PathBuf),
    /// `tcp://host:port`
    Tcp(String),
    /// `ssh://[user@]host[:port]`: as the rswarm of that host reaches it.
    Ssh { destination: String, port: Option<u16> },
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(addr) => write!(f, "tcp://{addr}"),
            Self::Ssh { destination, port: None } => write!(f, "ssh://{destination}"),
            Self::Ssh { destination, port: Some(port) } => write!(f, "ssh://{destination}:{port}"),
        }
    }
}

impl std::str::FromStr for Host {
    type Err = Error;

    /// Reads `unix:///path`, `tcp://host[:port]` (port 2375 by default), `ssh://[user@]host[:port]` or an absolute path.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::read(text, 2375)
    }
}

impl Host {
    fn read(text: &str, default_port: u16) -> Result<Self, Error> {
        let bad = || Error::Host(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.starts_with('/').then_some(text)) {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(destination) = text.strip_prefix("ssh://") {
            let destination = destination.trim_end_matches('/');
            let (destination, port) = match destination.rsplit_once(':') {
                Some((host, port)) if !destination.ends_with(']') => {
                    (host, Some(port.parse().map_err(|_| bad())?))
                }
                _ => (destination, None),
            };
            // A path would be another socket there, which nothing here can name.
            if destination.is_empty() || destination.contains('/') {
                return Err(bad());
            }
            return Ok(Self::Ssh { destination: destination.to_owned(), port });
        }
        let schemes = ["tcp://", "http://", "https://"];
        let addr = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).ok_or_else(bad)?;
        let addr = addr.trim_end_matches('/');
        if addr.is_empty() {
            return Err(bad());
        }
        let has_port = addr
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok() && !addr.ends_with(']'));
        Ok(Self::Tcp(if has_port { addr.to_owned() } else { format!("{addr}:{default_port}") }))
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unable to parse docker host `{0}`")]
    Host(String),
    #[error("Cannot connect to the daemon at {host}. Is `rswarm daemon` running?")]
    Connect {
        host: Host,
        #[source]
        source: std::io::Error,
    },
    /// The daemon's refusal, in its own words.
    #[error("{message}")]
    Api { status: StatusCode, message: String },
    #[error("connection to the daemon failed")]
    Http(#[from] hyper::Error),
    #[error("connection to the daemon failed")]
    Io(#[from] std::io::Error),
    #[error("invalid request")]
    Request(#[from] hyper::http::Error),
    #[error("the daemon's answer is not what it should be")]
    Json(#[from] serde_json::Error),
    #[error("the daemon did not answer within {0:?}")]
    Timeout(Duration),
    #[error("the daemon would not switch the connection over (HTTP {0})")]
    NotUpgraded(StatusCode),
    #[error("the command's streams have ended, and the daemon does not say with which code it did for {0:?}")]
    Unended(Duration),
    #[error("the answer of the daemon is larger than {0} bytes")]
    TooLarge(usize),
}

impl Error {
    /// Returns the status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns true if the daemon said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Returns true if what was to be changed has another version by now. *Source:* SwarmKit `store.ErrSequenceConflict`,
    /// which Docker answers with status 500.
    pub fn is_out_of_sequence(&self) -> bool {
        matches!(self, Self::Api { message, .. } if message.ends_with("update out of sequence"))
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The largest answer that is read as one JSON value. *Unit:* bytes.
const ANSWER_MAX: usize = 256 << 20;
/// The largest backup of a swarm. *Unit:* bytes.
const BACKUP_MAX: usize = 1 << 30;
/// A refusal is never longer. *Unit:* bytes.
const REFUSAL_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one daemon; cheap to clone.
///
/// ```no_run
/// # async fn f() -> Result<(), docker_api::client::Error> {
/// let client = docker_api::client::Client::new("unix:///run/rswarm/docker.sock")?;
/// for service in client.services(&[]).await? {
///     println!("{}", service.spec.name);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    host: Host,
    /// For `tcp://`.
    tls: Option<Arc<rustls::ClientConfig>>,
    /// Of a user of the swarm.
    token: Option<HeaderValue>,
    /// `1.51` for example.
    version: Arc<str>,
    /// Answers in the daemon's place.
    stand_in: Option<stand_in::StandIn>,
}

/// A query: pairs that are escaped for the URL.
pub type Query<'a> = &'a [(&'a str, &'a str)];

impl Client {
    /// Returns a client of the daemon at `host`; connects at each request.
    ///
    /// # Errors
    /// When `host` is neither `unix://` nor `tcp://` nor `ssh://`.
    pub fn new(host: &str) -> Result<Self> {
        Ok(Self {
            host: host.parse()?,
            tls: None,
            token: None,
            version: crate::server::API_VERSION.into(),
            stand_in: None,
        })
    }

    /// Returns a client that speaks TLS where `host` is `tcp://`, on port 2376 by default.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_tls(host: &str, config: Arc<rustls::ClientConfig>) -> Result<Self> {
        Ok(Self {
            host: Host::read(host, 2376)?,
            tls: Some(config),
            token: None,
            version: crate::server::API_VERSION.into(),
            stand_in: None,
        })
    }

    /// Speaks this version of the API, such as `1.41`, to a daemon that knows no newer one.
    #[must_use]
    pub fn with_version(self, version: &str) -> Self {
        Self { version: version.into(), ..self }
    }

    /// Asks as the user of the swarm whose token this is.
    ///
    /// # Errors
    /// The text cannot be a token.
    pub fn with_token(self, token: &str) -> Result<Self> {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(hyper::http::Error::from)?;
        value.set_sensitive(true);
        Ok(Self { token: Some(value), ..self })
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Sends a request and returns the answer, whatever its status; its body is still to be read.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Answer>> {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        exchange(TokioIo::new(self.dial().await?), request).await
    }

    /// Sends and returns the answer if it is a success (or 304).
    ///
    /// # Errors
    /// [`Error::Api`] with the daemon's message otherwise.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Answer>> {
        let mut request =
            Request::builder().method(method).uri(url(&self.version, path, query)).body(body)?;
        *request.headers_mut() = headers;
        accept(self.send(request).await?).await
    }

    /// GET of a JSON value.
    pub async fn get<T: Wire>(&self, path: &str, query: Query<'_>) -> Result<T> {
        json(self.request(Method::GET, path, query, HeaderMap::new(), Body::empty()).await?).await
    }

    /// GET of a JSON value, with more headers.
    pub async fn get_with<T: Wire>(&self, path: &str, query: Query<'_>, headers: HeaderMap) -> Result<T> {
        json(self.request(Method::GET, path, query, headers, Body::empty()).await?).await
    }

    /// POST of a JSON value with more headers, answered by one.
    pub async fn post_with<T: Wire>(
        &self,
        path: &str,
        query: Query<'_>,
        headers: HeaderMap,
        body: &impl Written,
    ) -> Result<T> {
        json(self.post_raw(path, query, headers, body).await?).await
    }

    /// POST of a JSON value, answered by one.
    pub async fn post<T: Wire>(&self, path: &str, query: Query<'_>, body: &impl Written) -> Result<T> {
        json(self.post_raw(path, query, HeaderMap::new(), body).await?).await
    }

    /// POST of a JSON value whose answer does not matter.
    pub async fn post_empty(&self, path: &str, query: Query<'_>, body: &impl Written) -> Result<()> {
        self.post_raw(path, query, HeaderMap::new(), body).await?.into_body().collect().await?;
        Ok(())
    }

    /// POST of a JSON value with more headers; the answer's body is still to be read.
    pub async fn post_raw(
        &self,
        path: &str,
        query: Query<'_>,
        mut headers: HeaderMap,
        body: &impl Written,
    ) -> Result<Response<Answer>> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Body::from(Text::of(body));
        self.request(Method::POST, path, query, headers, body).await
    }

    /// DELETE; the answer, if any, is JSON.
    pub async fn delete(&self, path: &str, query: Query<'_>) -> Result<Bytes> {
        let answer = self.request(Method::DELETE, path, query, HeaderMap::new(), Body::empty()).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    /// Sends a body of any length (a tar archive) and reads the answer as JSON lines.
    pub async fn upload<T: Wire>(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<JsonLines<T>> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        Ok(JsonLines::new(self.request(method, path, query, headers, body).await?.into_body()))
    }

    /// A request answered by JSON lines that come over time: events, pulls.
    pub async fn lines<T: Wire>(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        headers: HeaderMap,
    ) -> Result<JsonLines<T>> {
        Ok(JsonLines::new(self.request(method, path, query, headers, Body::empty()).await?.into_body()))
    }

    /// POSTs and turns the connection into a byte stream both ways: attach, exec.
    ///
    /// # Errors
    /// The daemon's refusal, or [`Error::NotUpgraded`].
    pub async fn hijack(&self, path: &str, query: Query<'_>, body: &impl Written) -> Result<Hijacked> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url(&self.version, path, query))
            .body(Body::from(Text::of(body)))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
        let mut answer = accept(self.send(request).await?).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::NotUpgraded(answer.status()));
        }
        let kind = Kind::of(answer.headers());
        Ok(Hijacked { io: TokioIo::new(hyper::upgrade::on(&mut answer).await?), kind })
    }
}

async fn exchange<I>(io: I, mut request: Request<Body>) -> Result<Response<Answer>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = %error, "connection to a daemon ended early");
        }
    });
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("docker"));
    Ok(sender.send_request(request).await?.map(|body| Answer::new(body, driver)))
}

async fn accept(answer: Response<Answer>) -> Result<Response<Answer>> {
    let status = answer.status();
    if status.is_success() || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS) {
        return Ok(answer);
    }
    let body = read(answer.into_body(), REFUSAL_MAX).await.unwrap_or_default();
    let message = match parse::<ErrorBody>(&body) {
        Ok(refusal) if !refusal.message.is_empty() => refusal.message,
        _ if body.is_empty() => format!("the daemon answered {status}"),
        _ => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    Err(Error::Api { status, message })
}

async fn json<T: Wire>(answer: Response<Answer>) -> Result<T> {
    Ok(parse(&read(answer.into_body(), ANSWER_MAX).await?)?)
}

async fn read(body: Answer, max: usize) -> Result<Bytes> {
    http_body_util::Limited::new(body, max).collect().await.map(http_body_util::Collected::to_bytes).map_err(
        |error| match error.downcast::<hyper::Error>() {
            Ok(http) => Error::Http(*http),
            Err(_) => Error::TooLarge(max),
        },
    )
}

/// Returns `/v<version><path>?<query>` with the query escaped.
fn url(version: &str, path: &str, query: Query<'_>) -> String {
    let mut url = format!("/v{version}{path}");
    for (n, (key, value)) in query.iter().enumerate() {
        url.push(if n == 0 { '?' } else { '&' });
        url.push_str(&escape(key));
        url.push('=');
        url.push_str(&escape(value));
    }
    url
}

/// Escapes a text for a URL's query or one segment of its path.
pub fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.~:@/".contains(&b) {
            out.push(char::from(b));
        } else {
            write!(out, "%{b:02X}").expect("writing to a String cannot fail");
        }
        out
    })
}

/// Returns the `X-Registry-Auth` header for a registry: base64url JSON.
///
/// # Errors
/// Never in practice: base64 is a header's value.
pub fn registry_auth(auth: &crate::types::AuthConfig) -> Result<(HeaderName, HeaderValue)> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE};
    let value = URL_SAFE.encode(Text::of(auth));
    Ok((
        HeaderName::from_static("x-registry-auth"),
        HeaderValue::from_str(&value).map_err(hyper::http::Error::from)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("unix:///run/a.sock", "unix:///run/a.sock"),
            ("/run/a.sock", "unix:///run/a.sock"),
            ("tcp://10.0.0.1", "tcp://10.0.0.1:2375"),
            ("tcp://[::1]:99/", "tcp://[::1]:99"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("ssh://me@far/", "ssh://me@far"),
            ("ssh://far:22", "ssh://far:22"),
            ("ssh://[::1]", "ssh://[::1]"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), want);
        }
        for bad in ["", "ssh://", "ssh://far/path", "ssh://far:x", "unix://", "tcp://"] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    /// A client whose daemon says that a command runs so many times, and then `last`.
    fn asks_about_a_command(running: usize, last: &'static str) -> Client {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        Client::new("unix:///nowhere").unwrap().answered_by(move |_| {
            let said = if asked.fetch_add(1, Relaxed) < running { "null" } else { last };
            let answer = hyper::Response::new(format!(r#"{{"ID":"e","ExitCode":{said}}}"#).into());
            Box::pin(std::future::ready(answer))
        })
    }

    #[tokio::test]
    async fn a_command_whose_code_is_not_known_has_not_succeeded() {
        assert_eq!(asks_about_a_command(3, "7").exec_code("e").await.unwrap(), 7);
        assert_eq!(asks_about_a_command(0, "0").exec_code("e").await.unwrap(), 0);
        let unknown = asks_about_a_command(usize::MAX, "0").exec_code_within("e", Duration::ZERO).await;
        assert!(matches!(unknown, Err(Error::Unended(_))), "{unknown:?}");
    }

    #[test]
    fn answers_may_have_nulls() {
        let plain = parse::<crate::types::ServiceSpec>(br#"{"Name":"web","Labels":{}}"#).unwrap();
        let nulls = parse(br#"{"Name":"web","Labels":null,"TaskTemplate":null}"#).unwrap();
        assert_eq!(plain, nulls);
    }

    #[test]
    fn queries_are_escaped() {
        let got = url("1.51", "/x", &[("filters", r#"{"a":["b c"]}"#), ("t", "1&2")]);
        assert!(got.ends_with("/x?filters=%7B%22a%22:%5B%22b%20c%22%5D%7D&t=1%262"), "{got}");
    }
}
