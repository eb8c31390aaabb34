//! A file from a web server: `ADD https://..`, `docker import https://..`.

use crate::{
    digest::{Digest, Hasher},
    error::{Error, Result},
    registry::{Payload, Terms},
    store::Store,
};
use futures::TryStreamExt;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_DISPOSITION, LAST_MODIFIED, LOCATION},
};
use std::{path::Path, time::Duration};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::StreamReader;

const REDIRECTS_MAX: usize = 10;
/// A server that sends nothing for so long has gone away.
const STALL: Duration = Duration::from_secs(60);

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    pub digest: Digest,
    /// What the server calls it, else the last part of the URL's path; empty if that has none.
    pub name: String,
    /// As the server says.
    pub modified: Option<OffsetDateTime>,
}

impl Store {
    /// Writes what a URL (`http`, `https`) gives to a new file; follows ten redirects.
    ///
    /// # Errors
    /// Anything but an answer 200 that comes whole; the file may be half there then.
    pub async fn download(&self, url: &str, file: &Path) -> Result<Downloaded> {
        let mut at = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let failed = |reason: String| Error::Network { url: at.clone(), source: reason.into() };
            let answer = self
                .http()
                .send(&Method::GET, &at, &HeaderMap::new(), &Payload::Empty, Terms::named(true))
                .await?;
            if answer.status().is_redirection() {
                let next = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                at = joined(&at, next.ok_or_else(|| failed("redirect without a target".into()))?);
                continue;
            }
            if answer.status() != StatusCode::OK {
                return Err(failed(format!("the server answers {}", answer.status())));
            }
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            let name = header(CONTENT_DISPOSITION).and_then(disposition).unwrap_or_else(|| last_part(&at));
            let modified = header(LAST_MODIFIED).and_then(|text| {
                OffsetDateTime::parse(
                    &text.replace("GMT", "+0000"),
                    &time::format_description::well_known::Rfc2822,
                )
                .ok()
            });
            let body = answer.into_body().into_data_stream().map_err(std::io::Error::other);
            let mut body = StreamReader::new(body);
            let mut out = tokio::fs::File::create_new(file).await.map_err(Error::io("make", file))?;
            let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 128 << 10]);
            loop {
                let read = tokio::time::timeout(STALL, body.read(&mut buffer)).await;
                let count = read
                    .map_err(|_| failed("nothing came for 60 s".into()))?
                    .map_err(|e| failed(e.to_string()))?;
                if count == 0 {
                    break;
                }
                hasher.update(&buffer[..count]);
                out.write_all(&buffer[..count]).await.map_err(Error::io("write", file))?;
            }
            out.flush().await.map_err(Error::io("write", file))?;
            return Ok(Downloaded { digest: hasher.finish(), name, modified });
        }
        Err(Error::Network { url: url.to_owned(), source: "more than ten redirects".into() })
    }
}

/// A target of a redirect may be a path.
fn joined(base: &str, target: &str) -> String {
    if target.contains("://") {
        return target.to_owned();
    }
    let authority = base.find("://").map_or(0, |at| at + 3);
    let root = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    match target.starts_with('/') {
        true => format!("{}{target}", &base[..root]),
        false => format!("{}/{target}", base.rsplit_once('/').map_or(base, |(folder, _)| folder)),
    }
}

fn disposition(header: &str) -> Option<String> {
    let name = header.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    let name = name.trim_matches('"').rsplit('/').next()?;
    (!name.is_empty() && name != "..").then(|| name.to_owned())
}

fn last_part(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    path.split_once('/').and_then(|(_, path)| path.rsplit('/').next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_server_or_the_url() {
        assert_eq!(last_part("https://h/a/b.tar.gz?x=/y"), "b.tar.gz");
        assert_eq!(last_part("https://h"), "");
        assert_eq!(last_part("https://h/a/"), "");
        assert_eq!(disposition("attachment; filename=\"../x.txt\"").as_deref(), Some("x.txt"));
        assert_eq!(disposition("inline"), None);
        assert_eq!(joined("http://h:1/a/b", "/c"), "http://h:1/c");
        assert_eq!(joined("http://h/a/b", "c"), "http://h/a/c");
        assert_eq!(joined("http://h/a", "https://g/c"), "https://g/c");
    }
}
