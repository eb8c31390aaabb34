//! Proves who we are: Basic, or a bearer token from the server the registry names.
//!
//! *Source:* distribution `spec/auth/token.md`, `spec/auth/oauth.md`; RFC 7235.

use super::{Access, Http, Payload, failure, http::Terms};
use crate::{
    error::{Error, Result},
    store::Auth,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap, Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const MAX_TOKEN_BYTES: usize = 1 << 20;
/// *Source:* token.md: a token without `expires_in` lives 60 seconds.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(10);

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    pub(super) fn new(repository: &str, access: &Access) -> Self {
        match access {
            Access::Account => Self(Vec::new()),
            Access::Pull => Self(vec![format!("repository:{repository}:pull")]),
            Access::Push { mount_from } => {
                let others = mount_from.iter().map(|other| format!("repository:{other}:pull"));
                Self(std::iter::once(format!("repository:{repository}:pull,push")).chain(others).collect())
            }
            Access::PullPlugin => Self(vec![format!("repository(plugin):{repository}:pull")]),
            Access::PushPlugin => Self(vec![format!("repository(plugin):{repository}:pull,push")]),
        }
    }

    /// Says whether it is about giving an image to the registry.
    pub(super) fn pushes(&self) -> bool {
        self.0.first().is_some_and(|scope| scope.ends_with(":pull,push"))
    }
}

/// Tokens that may still be good, by server, service, scope and account.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<Key, (HeaderValue, Instant)>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    realm: String,
    service: String,
    scope: Scope,
    account: String,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

/// Returns the header that answers one of the challenges; `None` if we have no answer. `terms` are the registry's own,
/// and say whether it may name a token server that is near.
pub(super) async fn answer(
    http: &Http,
    challenges: &[String],
    registry: &str,
    scope: &Scope,
    auth: Option<&Auth>,
    refused: Option<&HeaderValue>,
    terms: Terms,
) -> Result<Option<HeaderValue>> {
    if let Some(Auth::Bearer(token)) = auth {
        return Ok(header("Bearer", token));
    }
    for challenge in challenges {
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        let parameters = parse_parameters(parameters);
        let parameter = |name: &str| parameters.get(name).cloned().unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") && parameters.contains_key("realm") {
            let account = match auth {
                Some(Auth::Basic { username, password }) => format!("{username}:{password}"),
                Some(Auth::Identity(token)) => token.clone(),
                Some(Auth::Bearer(_)) | None => String::new(),
            };
            let key = Key {
                realm: parameter("realm"),
                service: parameter("service"),
                scope: scope.clone(),
                account,
            };
            if registry.starts_with("https:") && !key.realm.starts_with("https:") {
                let reason = "the token server it names is not reached by TLS".to_owned();
                return Err(Error::Denied { push: scope.pushes(), repository: registry.to_owned(), reason });
            }
            // That this host may go unchecked says nothing of another that it names, which gets the password.
            let own = host(&key.realm) == host(registry);
            let terms = Terms { verify: terms.verify || !own, near: terms.near || own };
            return token(http, key, auth, refused, terms).await.map(Some);
        }
        if let (true, Some(Auth::Basic { username, password })) = (scheme.eq_ignore_ascii_case("basic"), auth)
        {
            return Ok(header("Basic", &BASE64_STANDARD.encode(format!("{username}:{password}"))));
        }
    }
    Ok(None)
}

/// Returns the host of a URL, without its port.
fn host(url: &str) -> Option<String> {
    url.parse::<hyper::Uri>().ok()?.host().map(str::to_ascii_lowercase)
}

fn header(scheme: &str, value: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {value}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

async fn token(
    http: &Http,
    key: Key,
    auth: Option<&Auth>,
    refused: Option<&HeaderValue>,
    terms: Terms,
) -> Result<HeaderValue> {
    let cached = {
        let mut tokens = http.tokens().0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (token, until)| *until > Instant::now() && Some(&*token) != refused);
        tokens.get(&key).map(|(token, _)| token.clone())
    };
    if let Some(token) = cached {
        return Ok(token);
    }
    let granted = fetch(http, &key, auth, terms).await?;
    let text = if granted.token.is_empty() { &granted.access_token } else { &granted.token };
    let denied = || Error::Denied {
        push: key.scope.pushes(),
        repository: key.realm.clone(),
        reason: "the token server gave no token".to_owned(),
    };
    let token = header("Bearer", text).filter(|_| !text.is_empty()).ok_or_else(denied)?;
    let life = granted.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).saturating_sub(MARGIN);
    let mut tokens = http.tokens().0.lock().unwrap_or_else(PoisonError::into_inner);
    tokens.insert(key, (token.clone(), Instant::now() + life.min(Duration::from_secs(24 * 3600))));
    Ok(token)
}

async fn fetch(http: &Http, key: &Key, auth: Option<&Auth>, terms: Terms) -> Result<Granted> {
    let mut headers = HeaderMap::new();
    let mut fields = vec![("service", key.service.clone())];
    let (method, payload, url) = if let Some(Auth::Identity(refresh)) = auth {
        let scope = key.scope.0.join(" ");
        fields.extend([
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", "rswarm".to_owned()),
            ("refresh_token", refresh.clone()),
            ("scope", scope),
        ]);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        (Method::POST, Payload::Bytes(form(&fields).into()), key.realm.clone())
    } else {
        if let Some(Auth::Basic { username, password }) = auth {
            fields.push(("account", username.clone()));
            let basic = header("Basic", &BASE64_STANDARD.encode(format!("{username}:{password}")));
            headers.extend(basic.map(|value| (AUTHORIZATION, value)));
        }
        fields.extend(key.scope.0.iter().map(|scope| ("scope", scope.clone())));
        let separator = if key.realm.contains('?') { '&' } else { '?' };
        (Method::GET, Payload::Empty, format!("{}{separator}{}", key.realm, form(&fields)))
    };
    let response = http.send(&method, &url, &headers, &payload, terms).await?;
    if !response.status().is_success() {
        let reason = match failure(&method, &url, response).await {
            Error::Registry { reason, .. } => reason,
            other => other.to_string(),
        };
        return Err(Error::Denied { push: key.scope.pushes(), repository: key.realm.clone(), reason });
    }
    let body = super::short(response.into_body(), MAX_TOKEN_BYTES, super::SHORT_ANSWER).await;
    let body = body.map_err(|source| Error::Network { url: key.realm.clone(), source })?;
    let digest = crate::Digest::of(&body);
    serde_json::from_slice(&body).map_err(|source| Error::Document { what: "token", digest, source })
}

fn form(fields: &[(&str, String)]) -> String {
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
    };
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// `realm="https://a/token",service="r",scope="x:y:pull,push"`
pub(crate) fn parse_parameters(text: &str) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(name, value.trim().to_owned());
        rest = next;
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_with_commas_in_quotes_are_read() {
        let text =
            r#"realm="https://auth.example/token",service="reg", scope="repository:a/b:pull,push", n=1"#;
        let parameters = parse_parameters(text);
        assert_eq!(parameters["realm"], "https://auth.example/token");
        assert_eq!(parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(parameters["n"], "1");
    }

    #[test]
    fn what_a_registry_names_is_its_own_host_or_another() {
        assert_eq!(host("http://Reg.example:5000"), host("https://reg.example/token?x=y"));
        assert_ne!(host("https://127.0.0.1:5000"), host("https://auth.example/token"));
        assert_ne!(host("https://reg.example@evil.example/"), host("https://reg.example"));
        assert_eq!(host("/token"), None);
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull,push".into())]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
    }
}
