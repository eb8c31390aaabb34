//! Talks to registries: finds the scheme, follows redirects, retries, proves who we are, gives manifests and blobs.
//!
//! *Source:* OCI distribution-spec; distribution `spec/auth/token.md`; Docker's daemon docs on insecure registries and
//! `certs.d`.

mod auth;
mod http;
mod proxy;
mod tls;

pub(crate) use auth::parse_parameters;
pub(crate) use http::{Http, Payload, Terms};
pub use proxy::{InvalidProxy, Proxies};

use crate::{
    digest::Digest,
    error::{Error, Result},
    manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Manifest, OCI_INDEX, OCI_MANIFEST},
    reference::Reference,
    source::{BlobSource, BoxAsyncRead, SourceError},
    store::{Auth, RegistryOptions},
};
use auth::Scope;
use futures::TryStreamExt;
use http_body_util::{BodyDataStream, BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

const MAX_MANIFEST_BYTES: usize = 4 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;
pub(crate) const MAX_TRIES: u32 = 5;
const MAX_REDIRECTS: u32 = 8;
/// Longest time for all of a short answer: a manifest, a token, a reason.
pub(crate) const SHORT_ANSWER: Duration = Duration::from_secs(60);
/// Longest wait a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// One repository at one registry (or mirror of it).
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    http: Http,
    /// `https://registry-1.docker.io`
    base: String,
    /// Whether certificates are checked.
    verify: bool,
    pub(crate) repository: String,
    scope: Scope,
    auth: Option<Auth>,
    authorization: Arc<Mutex<Option<HeaderValue>>>,
    attempts: u32,
}

/// What to do to a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Access {
    /// Nothing: only who we are is asked.
    Account,
    Pull,
    /// Push, and pull from these other repositories to mount their blobs.
    Push {
        mount_from: Vec<String>,
    },
    /// The same of Docker's plugins, which token servers keep apart. *Source:* moby `plugin/registry.go`, `scope`.
    PullPlugin,
    PushPlugin,
}

impl Endpoint {
    /// Finds out how to talk to the registry of `reference`.
    ///
    /// # Errors
    /// Nobody answers there.
    pub(crate) async fn of(
        http: &Http,
        reference: &Reference,
        access: Access,
        auth: Option<Auth>,
        options: &RegistryOptions,
    ) -> Result<Self> {
        let host =
            if reference.registry == "docker.io" { "registry-1.docker.io" } else { &reference.registry };
        let insecure = is_insecure(host, &options.insecure);
        let candidates = if insecure { vec!["https", "http"] } else { vec!["https"] };
        let mut last = None;
        for scheme in candidates {
            let base = format!("{scheme}://{host}");
            let endpoint =
                Self::new(http, base, !insecure, &reference.repository, access.clone(), auth.clone())
                    .tried(options);
            match endpoint.http.is_known(&endpoint.base) {
                Some(true) => return Ok(endpoint),
                Some(false) => continue,
                None => {}
            }
            match endpoint.ping().await {
                Ok(()) => {
                    http.remember(&endpoint.base, true);
                    return Ok(endpoint);
                }
                Err(error) => last = Some(error),
            }
            if insecure
                && scheme == "https"
                && matches!(&last, Some(Error::Network { source, .. }) if http::is_not_tls(source))
            {
                http.remember(&endpoint.base, false);
            }
        }
        Err(last.unwrap_or_else(|| Error::ManifestUnknown { reference: reference.to_string() }))
    }

    /// A mirror by its base URL; never gets credentials.
    pub(crate) fn mirror(http: &Http, base: &str, reference: &Reference, options: &RegistryOptions) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        let host = base.split("://").nth(1).unwrap_or(&base).to_owned();
        let verify = !is_insecure(&host, &options.insecure);
        Self::new(http, base, verify, &reference.repository, Access::Pull, None).tried(options)
    }

    fn new(
        http: &Http,
        base: String,
        verify: bool,
        repository: &str,
        access: Access,
        auth: Option<Auth>,
    ) -> Self {
        let scope = Scope::new(repository, &access);
        let repository = repository.to_owned();
        let (http, authorization) = (http.clone(), Arc::default());
        Self { http, base, verify, repository, scope, auth, authorization, attempts: MAX_TRIES }
    }

    /// The same, asked as often as the operator says.
    fn tried(self, options: &RegistryOptions) -> Self {
        Self { attempts: options.attempts.unwrap_or(MAX_TRIES).max(1), ..self }
    }

    async fn ping(&self) -> Result<()> {
        let url = format!("{}/v2/", self.base);
        let response = self
            .http
            .send(&Method::GET, &url, &HeaderMap::new(), &Payload::Empty, Terms::named(self.verify))
            .await?;
        match response.status() {
            StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(()),
            _ => Err(failure(&Method::GET, &url, response).await),
        }
    }

    /// Succeeds when the registry takes our account. *Source:* distribution-spec, "API version check".
    pub(crate) async fn prove_account(&self) -> Result<()> {
        let url = format!("{}/v2/", self.base);
        let response = self.request(Method::GET, &url, HeaderMap::new(), Payload::Empty).await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            _ => Err(failure(&Method::GET, &url, response).await),
        }
    }

    /// Sends a request about this repository: with proof of who we are if it is asked for, again if the server is busy.
    /// The status may be anything the caller has to judge, except 401, 429 and 5xx.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        payload: Payload,
    ) -> Result<Response<Incoming>> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}/v2/{}{path}", self.base, self.repository)
        };
        may_lead(&method, &self.base, &url)?;
        let mut proven = false;
        let mut tries = 0;
        loop {
            let sent = self.send_following(&method, &url, &headers, &payload).await;
            let wait = match sent {
                Ok((response, own)) if response.status() == StatusCode::UNAUTHORIZED => {
                    // Who is only led to has no business with our account, whatever token server it names.
                    if proven || !own {
                        return Err(self.denied(&method, &url, response).await);
                    }
                    proven = true;
                    let challenges = response.headers().get_all(WWW_AUTHENTICATE);
                    let challenges: Vec<String> = challenges
                        .iter()
                        .filter_map(|value| value.to_str().ok())
                        .map(str::to_owned)
                        .collect();
                    let basic = |challenge: &String| {
                        challenge.split(' ').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
                    };
                    match self.prove(&challenges).await? {
                        Some(header) => self.set_authorization(Some(header)),
                        // In Docker's words.
                        None if self.auth.is_none() && challenges.iter().any(basic) => {
                            let reason = "no basic auth credentials".to_owned();
                            let repository = self.familiar();
                            return Err(Error::Denied { push: self.scope.pushes(), repository, reason });
                        }
                        None => return Err(self.denied(&method, &url, response).await),
                    }
                    continue;
                }
                Ok((response, _)) if is_busy(response.status()) => {
                    let wait = retry_after(response.headers()).unwrap_or_else(|| backoff(tries));
                    if tries + 1 >= self.attempts {
                        return Err(failure(&method, &url, response).await);
                    }
                    wait
                }
                Ok((response, _)) => return Ok(response),
                Err(error @ Error::Network { .. }) if tries + 1 >= self.attempts => return Err(error),
                Err(Error::Network { url, source }) => {
                    tracing::debug!(url, error = %source, "registry does not answer; trying again");
                    backoff(tries)
                }
                Err(other) => return Err(other),
            };
            tries += 1;
            tokio::time::sleep(wait).await;
        }
    }

    fn set_authorization(&self, header: Option<HeaderValue>) {
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = header;
    }

    async fn prove(&self, challenges: &[String]) -> Result<Option<HeaderValue>> {
        // A token that was just refused is of no use to anyone.
        let refused = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).take();
        auth::answer(
            &self.http,
            challenges,
            &self.base,
            &self.scope,
            self.auth.as_ref(),
            refused.as_ref(),
            Terms { verify: self.verify, near: self.is_near().await },
        )
        .await
    }

    /// Tells whether the registry is near itself, and may so lead to what is.
    async fn is_near(&self) -> bool {
        let base = self.base.parse::<hyper::Uri>();
        let host = base.as_ref().ok().and_then(hyper::Uri::host).unwrap_or_default();
        http::is_near_host(host).await
    }

    /// Returns on which terms whoever answers a URL is spoken with, and whether that is the registry itself.
    async fn terms_with(&self, url: &str) -> (Terms, bool) {
        if origin(url) == origin(&self.base) {
            return (Terms::named(self.verify), true);
        }
        (Terms { verify: true, near: self.is_near().await }, false)
    }

    /// Returns the answer, and whether the registry itself gave it and none that it leads to.
    async fn send_following(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        payload: &Payload,
    ) -> Result<(Response<Incoming>, bool)> {
        let mut url = url.to_owned();
        let mut headers = headers.clone();
        for _ in 0..MAX_REDIRECTS {
            let (terms, ours) = self.terms_with(&url).await;
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match authorization.filter(|_| ours) {
                Some(value) => drop(headers.insert(AUTHORIZATION, value)),
                // Never to another host: a storage server would take it for a signature, or keep it.
                None => drop(headers.remove(AUTHORIZATION)),
            }
            let response = self.http.send(method, &url, &headers, payload, terms).await?;
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.headers().get(LOCATION).filter(|_| moved) else {
                return Ok((response, ours));
            };
            let Ok(location) = location.to_str() else { return Ok((response, ours)) };
            let next = absolute(&url, location);
            may_lead(method, &url, &next)?;
            url = next;
        }
        Err(Error::Registry {
            method: method.to_string(),
            url,
            reason: "too many redirects".to_owned(),
            status: 0,
        })
    }

    /// Returns the repository as people write it.
    fn familiar(&self) -> String {
        self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
    }

    async fn denied(&self, method: &Method, url: &str, response: Response<Incoming>) -> Error {
        let familiar = self.familiar();
        match failure(method, url, response).await {
            Error::Registry { mut reason, status, .. } => {
                if status == StatusCode::UNAUTHORIZED.as_u16() && !reason.contains(':') {
                    // An answer to HEAD has no words of its own. Source: distribution `registry/api/errcode`.
                    reason = "unauthorized: authentication required".to_owned();
                }
                Error::Denied { push: self.scope.pushes(), repository: familiar, reason }
            }
            other => other,
        }
    }

    /// Turns an answer that is no success into an error.
    pub(crate) async fn refuse(&self, method: &Method, path: &str, response: Response<Incoming>) -> Error {
        match response.status() {
            StatusCode::FORBIDDEN => self.denied(method, path, response).await,
            _ => failure(method, path, response).await,
        }
    }

    /// Returns a URL from a `Location` header.
    pub(crate) fn absolute(&self, location: &str) -> String {
        absolute(&self.base, location)
    }

    pub(crate) async fn manifest(&self, wanted: &str) -> Result<Option<Manifest>> {
        let mut headers = HeaderMap::new();
        for media_type in [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST] {
            headers.append(ACCEPT, HeaderValue::from_static(media_type));
        }
        let path = format!("/manifests/{wanted}");
        let response = self.request(Method::GET, &path, headers, Payload::Empty).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refuse(&Method::GET, &path, response).await),
        }
        let media_type = response.headers().get(hyper::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let url = format!("{}{path}", self.base);
        let body = short(response.into_body(), MAX_MANIFEST_BYTES, SHORT_ANSWER).await;
        let body = body.map_err(|source| Error::Network { url, source })?;
        Ok(Some(Manifest::new(&media_type, body)))
    }

    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Option<BoxAsyncRead>> {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range =
                HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are a header value");
            headers.insert(RANGE, range);
        }
        let path = format!("/blobs/{digest}");
        let response = self.request(Method::GET, &path, headers, Payload::Empty).await?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => 0,
            // A server without ranges: read past what is here already.
            StatusCode::OK => offset,
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Some(Box::pin(tokio::io::empty()))),
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refuse(&Method::GET, &path, response).await),
        };
        let stream = BodyDataStream::new(response.into_body()).map_err(std::io::Error::other);
        let mut reader: BoxAsyncRead = Box::pin(StreamReader::new(stream));
        if skip > 0 {
            let skipped = tokio::io::copy(&mut (&mut reader).take(skip), &mut tokio::io::sink()).await;
            skipped.map_err(|e| Error::Network { url: format!("{}{path}", self.base), source: e.into() })?;
        }
        Ok(Some(reader))
    }
}

#[async_trait::async_trait]
impl BlobSource for Endpoint {
    async fn resolve(&self, reference: &Reference) -> Result<Option<Manifest>, SourceError> {
        Ok(self.manifest(&reference.wanted()).await?)
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<Option<BoxAsyncRead>, SourceError> {
        Ok(self.blob(digest, offset).await?)
    }

    fn name(&self) -> String {
        self.base.clone()
    }

    fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// `host[:port]` listed, its address in a listed CIDR, or this machine.
pub(crate) fn is_insecure(host: &str, insecure: &[String]) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or(host),
    };
    let address = name.parse::<IpAddr>().ok();
    if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    insecure.iter().any(|entry| {
        entry == host
            || entry == name
            || address.is_some_and(|a| entry.parse::<ipnet::IpNet>().is_ok_and(|net| net.contains(&a)))
    })
}

fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// 0.2, 0.4, 0.8 ... seconds, a little apart for each of many nodes.
pub(crate) fn backoff(tries: u32) -> Duration {
    let base = 200_u64 << tries.min(6);
    let jitter = getrandom::u64().unwrap_or(0) % (base / 2);
    Duration::from_millis((base + jitter).min(10_000))
}

/// Seconds, or an HTTP date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let rfc2822 = &time::format_description::well_known::Rfc2822;
            let at = time::OffsetDateTime::parse(&text.replace("GMT", "+0000"), rfc2822).ok()?;
            (at - time::OffsetDateTime::now_utc()).try_into().ok()?
        }
    };
    Some(wait.min(MAX_WAIT))
}

/// Refuses a way, by redirect or as the place of an upload, that leaves TLS or the web.
fn may_lead(method: &Method, from: &str, to: &str) -> Result<()> {
    // What a signed URL's query says is not to be read by others.
    let shown = |url: &str| url.split('?').next().unwrap_or(url).to_owned();
    let refuse = |why: &str| {
        let reason = format!("{} {why}", shown(to));
        Err(Error::Registry { method: method.to_string(), url: shown(from), reason, status: 0 })
    };
    let is =
        |url: &str, scheme: &str| url.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    match (is(from, "https:"), is(to, "https:"), is(to, "http:")) {
        (_, true, _) | (false, _, true) => Ok(()),
        (true, ..) => refuse("is where it leads, which would leave TLS"),
        (false, ..) => refuse("is where it leads, which is no web server"),
    }
}

fn origin(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    url[after_scheme..].find('/').map_or(url, |end| &url[..after_scheme + end])
}

/// Tells whether a location names its server, and not only has a URL in its query. Source: RFC 3986, 3.1.
fn has_scheme(location: &str) -> bool {
    let is_of_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    location
        .split_once("://")
        .is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.bytes().all(is_of_scheme))
}

fn absolute(base: &str, location: &str) -> String {
    if has_scheme(location) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", base.split(':').next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin(base))
    } else {
        let path = base.split('?').next().unwrap_or(base);
        let directory =
            path.rfind('/').filter(|end| *end >= origin(base).len()).map_or(path, |end| &path[..end]);
        format!("{directory}/{location}")
    }
}

/// Reads an answer that is held in memory: of `limit` bytes at most, and whole before the deadline, so that a server
/// that lets it drip holds nobody up.
pub(crate) async fn short<B>(body: B, limit: usize, deadline: Duration) -> Result<Bytes, SourceError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<SourceError>,
{
    let whole = tokio::time::timeout(deadline, Limited::new(body, limit).collect()).await;
    let late = |_| SourceError::from(format!("the answer was not whole within {} s", deadline.as_secs()));
    Ok(whole.map_err(late)??.to_bytes())
}

/// Reads the registry's own words: `{"errors":[{"code":..,"message":..}]}`.
async fn failure(method: &Method, url: &str, response: Response<Incoming>) -> Error {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<Fault>,
    }
    #[derive(serde::Deserialize)]
    struct Fault {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let body = short(response.into_body(), MAX_ERROR_BYTES, SHORT_ANSWER).await;
    let words = serde_json::from_slice::<Answer>(&body.unwrap_or_else(|_| Bytes::new())).ok().map(|answer| {
        let faults =
            answer.errors.iter().map(|fault| format!("{}: {}", fault.code.to_lowercase(), fault.message));
        faults.collect::<Vec<_>>().join(", ")
    });
    let reason = words.filter(|words| !words.is_empty()).unwrap_or_else(|| status.to_string());
    // A signed URL's query is a credential.
    let url = url.split('?').next().unwrap_or(url).to_owned();
    Error::Registry { method: method.to_string(), url, reason, status: status.as_u16() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_listed_hosts_may_go_without_tls() {
        let listed = ["reg.example:5000".to_owned(), "plain.example".to_owned(), "10.1.0.0/16".to_owned()];
        for host in
            ["localhost:1", "127.9.9.9:5000", "[::1]:5000", "reg.example:5000", "plain.example:7", "10.1.2.3"]
        {
            assert!(is_insecure(host, &listed), "{host}");
        }
        for host in ["reg.example:5001", "10.2.0.1:5000", "localhost.evil.example", "127.evil.example"] {
            assert!(!is_insecure(host, &listed), "{host}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_drips_or_does_not_end_is_given_up() {
        let drips = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from_static(b"{"))), ()))
        });
        let body = Box::pin(http_body_util::StreamBody::new(drips));
        let error = short(body, MAX_MANIFEST_BYTES, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "the answer was not whole within 1 s");
        let floods = futures::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from_static(&[b' '; 4096])))
        });
        let error = short(http_body_util::StreamBody::new(floods), 64 << 10, SHORT_ANSWER).await.unwrap_err();
        assert!(error.to_string().contains("length limit exceeded"), "{error}");
    }

    #[test]
    fn locations_are_resolved_against_where_they_came_from() {
        let base = "http://r:5000/v2/a/blobs/uploads/";
        assert_eq!(absolute(base, "/v2/x?y=1"), "http://r:5000/v2/x?y=1");
        assert_eq!(absolute(base, "https://s3/x"), "https://s3/x");
        assert_eq!(absolute(base, "/v2/x?to=https://s3/x"), "http://r:5000/v2/x?to=https://s3/x");
        assert_eq!(absolute(base, "//cdn/x"), "http://cdn/x");
        assert_eq!(absolute(base, "u1"), "http://r:5000/v2/a/blobs/uploads/u1");
        assert_eq!(absolute("http://r:5000", "u1"), "http://r:5000/u1");
        assert_ne!(origin("https://r:5000/a"), origin("https://r:5001/a"));
    }

    #[test]
    fn no_way_leads_out_of_tls_or_to_no_web_server() {
        let led = |from: &str, to: &str| may_lead(&Method::PUT, from, to).map_err(|e| e.to_string());
        for (from, to) in
            [("https://r", "https://s3/x?sig=1"), ("http://r", "http://s3/x"), ("http://r", "https://s3/x")]
        {
            led(from, to).expect("a way");
        }
        for (from, to, words) in [
            ("https://r", "http://s3/x?signed=secret", "would leave TLS"),
            ("https://r", "HTTP://s3/x", "would leave TLS"),
            ("https://r", "file:///etc/passwd", "would leave TLS"),
            ("http://r", "file:///etc/passwd", "no web server"),
            ("http://r", "gopher://127.0.0.1:6379/_FLUSHALL", "no web server"),
        ] {
            let error = led(from, to).expect_err(to);
            assert!(error.contains(words) && !error.contains("secret"), "{error}");
        }
    }

    fn endpoint(base: &str) -> Endpoint {
        let auth = Auth::Basic { username: "ann".into(), password: "secret".into() };
        Endpoint::new(&Http::default(), base.to_owned(), false, "team/demo", Access::Pull, Some(auth))
    }

    /// The place of an upload is said by the registry, as a redirect is.
    #[tokio::test]
    async fn an_upload_does_not_leave_tls() {
        let uploaded = endpoint("https://127.0.0.1:1")
            .request(
                Method::PUT,
                "http://127.0.0.1:1/upload",
                HeaderMap::new(),
                Payload::Bytes("layer".into()),
            )
            .await;
        let error = uploaded.map(|answer| answer.status()).expect_err("a refusal").to_string();
        assert!(error.contains("would leave TLS"), "{error}");
    }

    #[tokio::test]
    async fn a_registry_elsewhere_does_not_lead_here_and_one_beside_us_may() {
        let far = endpoint("http://192.0.2.1:5000");
        let own = Terms { verify: false, near: true };
        assert_eq!(far.terms_with("http://192.0.2.1:5000/v2/x").await, (own, true));
        let led = Terms { verify: true, near: false };
        for url in
            ["http://192.0.2.1:5001/x", "https://192.0.2.1:5000/x", "http://192.0.2.1:5000@127.0.0.1/x"]
        {
            assert_eq!(far.terms_with(url).await, (led, false), "{url}");
        }
        let near = endpoint("http://127.0.0.1:5000");
        assert_eq!(near.terms_with("http://127.0.0.1:9000/x").await, (Terms { near: true, ..led }, false));
    }

    #[test]
    fn servers_may_ask_for_patience_within_bounds() {
        let wait = |text: &'static str| {
            retry_after(&[(RETRY_AFTER, HeaderValue::from_static(text))].into_iter().collect::<HeaderMap>())
        };
        assert_eq!(wait("3"), Some(Duration::from_secs(3)));
        assert_eq!(wait("86400"), Some(MAX_WAIT));
        assert_eq!(wait("Fri, 31 Dec 2999 23:59:59 GMT"), Some(MAX_WAIT));
        assert_eq!(wait("soon"), None);
    }
}
