//! Asks a registry's index which images it has: `docker search`. *Source:* moby `daemon/pkg/registry/search.go`; the
//! index's protocol is of registries of version 1, and Docker Hub still speaks it.

use crate::{
    error::{Error, Result},
    registry::{Payload, SHORT_ANSWER, Terms, is_insecure, short},
    store::{Auth, RegistryOptions, Store},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{HeaderMap, Method, StatusCode, header::AUTHORIZATION, http::HeaderValue};
use serde::Deserialize;

/// Where Docker Hub's index is.
const HUB: &str = "index.docker.io";
/// *Limit* of an index's answer. *Unit:* bytes.
const ANSWER_MAX: usize = 4 << 20;

/// An image that an index knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    #[serde(default, rename = "is_official")]
    pub official: bool,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

impl Store {
    /// Asks an index for images: that of the registry that the term begins with, else Docker Hub's.
    ///
    /// # Errors
    /// The index is not reached, or answers anything but a list.
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        auth: Option<Auth>,
        options: &RegistryOptions,
    ) -> Result<Vec<Found>> {
        let (host, term) = index_of(term);
        let insecure = is_insecure(host, &options.insecure);
        let mut headers = HeaderMap::new();
        if let Some(Auth::Basic { username, password }) = auth {
            let value = BASE64_STANDARD.encode(format!("{username}:{password}"));
            if let Ok(mut value) = HeaderValue::try_from(format!("Basic {value}")) {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        let mut last = None;
        for scheme in if insecure { &["https", "http"][..] } else { &["https"] } {
            let url = format!("{scheme}://{host}/v1/search?q={}&n={limit}", escape(term));
            match self
                .http()
                .send(&Method::GET, &url, &headers, &Payload::Empty, Terms::named(!insecure))
                .await
            {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    let failed = |reason: String| Error::Network { url: url.clone(), source: reason.into() };
                    let body = short(answer.into_body(), ANSWER_MAX, SHORT_ANSWER).await;
                    let body = body.map_err(|e| failed(e.to_string()))?;
                    let answer = serde_json::from_slice::<Answer>(&body);
                    return Ok(answer.map_err(|e| failed(format!("no list of images: {e}")))?.results);
                }
                Ok(answer) => {
                    let source = format!("Unexpected status code {}", answer.status().as_u16());
                    return Err(Error::Network { url, source: source.into() });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .unwrap_or_else(|| Error::Network { url: host.to_owned(), source: "nobody was asked".into() }))
    }
}

/// Splits `registry.example.com/web` into the index and what is looked for. As Docker names images: the first part is a
/// host if it could be no user of Docker Hub.
fn index_of(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some(("docker.io" | HUB, rest)) => (HUB, rest),
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
        _ => (HUB, term),
    }
}

/// Escapes a text for a URL's query.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinSet,
    };

    #[test]
    fn a_term_says_which_index_is_asked() {
        for (term, index, rest) in [
            ("nginx", HUB, "nginx"),
            ("library/nginx", HUB, "library/nginx"),
            ("docker.io/nginx", HUB, "nginx"),
            ("localhost:5000/web", "localhost:5000", "web"),
            ("registry.example.com/a/b", "registry.example.com", "a/b"),
        ] {
            assert_eq!(index_of(term), (index, rest));
        }
        assert_eq!(escape("a b&c"), "a%20b%26c");
    }

    #[test]
    fn an_answer_of_docker_hub_is_read() {
        let text = r#"{"num_pages":1,"results":[{"name":"nginx","description":"a server","star_count":9,"is_official":true,
                       "is_automated":false},{"name":"x/y"}]}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        let found = Found { name: "nginx".into(), description: "a server".into(), stars: 9, official: true };
        assert_eq!(answer.results[0], found);
        assert_eq!(answer.results[1].stars, 0);
    }

    /// An index on this machine, without TLS, that answers everything alike; returns its address, and what it ends with.
    async fn index(status: &'static str, body: &'static str) -> (String, JoinSet<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let count = client.read(&mut head).await.unwrap();
                if head[..count].starts_with(b"GET ") {
                    let length = body.len();
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
                    client.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        (address.to_string(), server)
    }

    #[tokio::test]
    async fn an_index_on_this_machine_may_do_without_tls() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), false).await.unwrap();
        let search = async |(host, _index): (String, JoinSet<()>)| {
            store.search(&format!("{host}/we b"), 5, None, &RegistryOptions::default()).await
        };
        let reason = |error: &Error| std::error::Error::source(error).unwrap().to_string();
        let found = search(index("200 OK", r#"{"results":[{"name":"web"}]}"#).await).await.unwrap();
        assert_eq!(found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["web"]);
        let error = search(index("404 Not Found", "").await).await.unwrap_err();
        assert_eq!(reason(&error), "Unexpected status code 404");
        let error = search(index("200 OK", "<html>").await).await.unwrap_err();
        assert!(reason(&error).starts_with("no list of images"));
    }
}
