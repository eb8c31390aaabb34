//! What a route takes out of a request: JSON bodies, query parameters, filters.

use super::{ApiError, Asker, BODY_MAX, Filters, Origin, State, filters::Known};
use crate::types::{Wire, parse};
use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::Timestamp;
use std::time::Duration;
use tokio::time::timeout;

/// How long a client may take to send a JSON body: it has it ready when it begins.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// A JSON body above this is read on a thread of its own. *Unit:* bytes.
const BIG_JSON: usize = 64 << 10;

/// A JSON body that says to be one; an empty one is the default value.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON body, whatever it says to be. *Source:* moby's handlers without `httputils.CheckForJSON`.
#[derive(Debug)]
pub(crate) struct AnyJson<T>(pub(crate) T);

impl<T: Wire + Default + Send + 'static, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        says_json(&request)?;
        AnyJson::from_request(request, state).await.map(|AnyJson(read)| Self(read))
    }
}

impl<T: Wire + Default + Send + 'static, S: Send + Sync> FromRequest<S> for AnyJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = whole_body(request).await?;
        if body.len() <= BIG_JSON {
            return read(&body).map(Self);
        }
        let read = image::blocking(move || read(&body)).await;
        read.map_err(|e| ApiError::internal(format!("cannot read the request: {e}")))?.map(Self)
    }
}

/// Refuses a body of another type than JSON: who sends a form has not read the API.
/// *Source:* moby `daemon/server/httputils`, `CheckForJSON`.
pub(crate) fn says_json(request: &Request) -> Result<(), ApiError> {
    let said =
        request.headers().get(CONTENT_TYPE).map(|v| v.to_str().unwrap_or_default()).unwrap_or_default();
    if said.is_empty() {
        let malformed = "malformed Content-Type header (): mime: no media type";
        let is_empty = request.body().is_end_stream();
        return if is_empty { Ok(()) } else { Err(ApiError::bad_request(malformed)) };
    }
    let media = said.split_once(';').map_or(said, |(media, _)| media).trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "unsupported Content-Type header ({said}): must be 'application/json'"
    )))
}

/// Reads the JSON body of a request, and returns the request as it was.
///
/// # Errors
/// It is too long, too slow, or no such JSON.
pub(crate) async fn look_into<T: Wire + Default>(request: Request) -> Result<(T, Request), ApiError> {
    let (parts, body) = request.into_parts();
    let body = whole_body(Request::new(body)).await?;
    let read = read(&body)?;
    Ok((read, Request::from_parts(parts, Body::from(body))))
}

/// Returns the request with a body that has come whole.
///
/// # Errors
/// It is too long or too slow.
pub(crate) async fn with_whole_body(request: Request) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    let body = whole_body(Request::new(body)).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn read<T: Wire + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    parse(body).map_err(|e| ApiError::bad_request(format!("invalid JSON: {e}")))
}

/// Waits for all of a JSON body, whatever it is to be read as.
fn whole_body(request: Request) -> BoxFuture<'static, Result<Bytes, ApiError>> {
    Box::pin(async move {
        // What says beforehand that it is too large is not waited for.
        if request.body().size_hint().lower() > BODY_MAX as u64 {
            return Err(ApiError {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                message: format!("failed to read the request: its body has more than {BODY_MAX} bytes"),
            });
        }
        let too_slow = |_| ApiError {
            status: StatusCode::REQUEST_TIMEOUT,
            message: format!("the body of the request did not come within {} s", BODY_LIMIT.as_secs()),
        };
        let body = timeout(BODY_LIMIT, Bytes::from_request(request, &())).await.map_err(too_slow)?;
        body.map_err(|e| ApiError {
            status: e.status(),
            message: format!("failed to read the request: {}", e.body_text()),
        })
    })
}

/// The query, as moby reads it.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .map_err(|e| ApiError::bad_request(e.body_text()))
    }
}

impl Params {
    /// Returns the first value that is not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect()
    }

    /// Returns true unless the value is absent or one of Docker's words for no.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "none"))
    }

    /// Returns the flag, or `default` when there is no such parameter.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        if self.get(key).is_some() { self.flag(key) } else { default }
    }

    /// Returns a number.
    ///
    /// # Errors
    /// 400 when it is not one.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.get(key)
            .map(|v| v.parse().map_err(|_| ApiError::bad_request(format!("invalid value for {key}: {v:?}"))))
            .transpose()
    }

    /// Reads the size of a terminal: rows and columns. What has more than the kernel can count has that many.
    ///
    /// # Errors
    /// 400 unless both are numbers. *Source:* moby `postContainersResize`.
    pub(crate) fn terminal_size(&self) -> Result<(u16, u16), ApiError> {
        let read = |key: &str, what: &str| {
            let text = self.get(key).unwrap_or_default();
            let number = text.parse::<u32>().map(|n| u16::try_from(n).unwrap_or(u16::MAX));
            number.map_err(|_| ApiError::bad_request(format!("invalid resize {what} {text:?}")))
        };
        Ok((read("h", "height")?, read("w", "width")?))
    }

    /// Reads Docker's `since` and `until`: seconds since 1970 with an optional fraction, or RFC 3339.
    ///
    /// # Errors
    /// 400 when it is neither.
    pub(crate) fn moment(&self, key: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(key).filter(|t| *t != "0") else { return Ok(None) };
        if let Some(time) = crate::types::Time::parse(text) {
            return Ok(Some(time.timestamp()));
        }
        let bad = || ApiError::bad_request(format!("invalid value for {key:?}: {text:?}"));
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = seconds.parse().map_err(|_| bad())?;
        let fraction = format!("{fraction:0<9}");
        let nanos: i64 = fraction.get(..9).and_then(|f| f.parse().ok()).ok_or_else(bad)?;
        Ok(Some(Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))))
    }

    /// Returns the version an update was made from.
    pub(crate) fn version(&self, what: &str) -> Result<u64, ApiError> {
        let text = self.get("version").unwrap_or_default();
        text.parse()
            .map_err(|_| ApiError::bad_request(format!("invalid {what} version '{text}': not a number")))
    }

    /// Returns the filters, of those that a route has.
    ///
    /// # Errors
    /// 400 for any other, and for a value that can fit nothing.
    pub(crate) fn filters(&self, known: &Known) -> Result<Filters, ApiError> {
        self.get("filters").map_or_else(|| Ok(Filters::default()), Filters::parse)?.judged(known)
    }
}

/// Where the request came from.
impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or(Self::Peer))
    }
}

/// What a route works with: the door, in the hands of who asks. Without a word of who that is, nobody.
#[derive(Debug)]
pub(crate) struct Use<T>(pub(crate) T);

impl FromRequestParts<State> for Use<State> {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Self::Rejection> {
        Ok(Self(state.asked_by(parts.extensions.get::<Asker>().cloned().unwrap_or_default())))
    }
}
