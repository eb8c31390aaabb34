//! The version of the API that a client speaks: `/v1.43` before a path. What changed its meaning asks for it as an
//! extension of the request; without a prefix it is the newest.

use super::{ApiError, NEWEST};
use axum::http::Uri;
use std::{fmt, str::FromStr};

/// `1.43`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// It is not of the form `1.43`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid API version {0:?}")]
pub struct InvalidVersion(String);

impl FromStr for ApiVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let numbers = text.split_once('.').map(|(major, minor)| (major.parse(), minor.parse()));
        match numbers {
            Some((Ok(major), Ok(minor))) => Ok(Self(major, minor)),
            _ => Err(InvalidVersion(text.to_owned())),
        }
    }
}

/// Takes `/v1.43` off the path, and tells the version.
///
/// # Errors
/// 400: it is no version, or not between `oldest` and the newest.
pub(super) fn without_version(uri: &Uri, oldest: ApiVersion) -> Result<(Uri, ApiVersion), ApiError> {
    let text = uri.path_and_query().map_or("/", |p| p.as_str());
    let (plain, version) = match text.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        Some((version, rest)) if version.starts_with(|c: char| c.is_ascii_digit()) => {
            let version: ApiVersion =
                version.parse().map_err(|e: InvalidVersion| ApiError::bad_request(e.to_string()))?;
            (format!("/{rest}"), version)
        }
        _ => (text.to_owned(), NEWEST),
    };
    if version < oldest {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too old. Minimum supported API version is {oldest}, please upgrade your client to a newer version"
        )));
    }
    if version > NEWEST {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too new. Maximum supported API version is {NEWEST}"
        )));
    }
    let uri = plain.parse().map_err(|_| ApiError::bad_request("invalid path"))?;
    Ok((uri, version))
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn the_version_prefix_is_optional_and_judged() {
        let read = |text: &str| {
            without_version(&text.parse().unwrap(), MIN_API_VERSION).map(|(uri, v)| (uri.to_string(), v))
        };
        let is = |text: &str, plain: &str, version| {
            assert_eq!(read(text).unwrap(), (plain.to_owned(), version), "{text}");
        };
        is("/v1.43/info?x=1", "/info?x=1", ApiVersion(1, 43));
        is("/v1.24/info", "/info", ApiVersion(1, 24));
        is("/volumes/v1", "/volumes/v1", NEWEST);
        is("/version", "/version", NEWEST);
        assert!(read("/v1.23/info").unwrap_err().message.contains("too old"));
        assert!(read("/v1.99/info").unwrap_err().message.contains("too new"));
        assert!(read("/v1.x/info").unwrap_err().message.contains("invalid API version"));
        assert_eq!(NEWEST.to_string(), API_VERSION);
    }

    #[test]
    fn an_operator_may_ask_for_newer_clients() {
        let uri = "/v1.43/info".parse().unwrap();
        let refused = without_version(&uri, ApiVersion(1, 44)).unwrap_err();
        assert!(refused.message.contains("Minimum supported API version is 1.44"), "{}", refused.message);
    }
}
