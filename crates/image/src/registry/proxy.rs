//! Which requests go through which proxy. *Source:* Docker docs, "Daemon proxy configuration"; Go's
//! `golang.org/x/net/http/httpproxy`, whose rules for `NO_PROXY` operators know from dockerd.

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use std::{net::IpAddr, sync::Arc};

/// The proxies that registries, web servers and git repositories are reached through. Cheap to clone.
#[derive(Clone, Default)]
pub struct Proxies {
    rules: Option<Arc<Rules>>,
}

struct Rules {
    http: String,
    https: String,
    no: String,
    matcher: Matcher,
    /// What is reached without a proxy at one port alone: the port, and who that is.
    at_ports: Vec<(u16, Matcher)>,
}

/// Not the URL of a proxy.
#[derive(Debug, thiserror::Error)]
#[error("{shown:?} is no proxy; hint: http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")]
pub struct InvalidProxy {
    /// Without name and password.
    shown: String,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http_shown())
            .field("https", &self.https_shown())
            .field("no", &self.no())
            .finish()
    }
}

impl Proxies {
    /// `http`, `https`: the URLs of the proxies for URLs of these schemes, with name and password if they want some;
    /// empty: none. `no`: who is reached without, by commas: `HOST[:PORT]` with all that ends in `.HOST`, addresses,
    /// networks, `*`. This host itself (`localhost`, 127.0.0.0/8, `::1`) always is.
    ///
    /// # Errors
    /// One is no URL of a proxy.
    pub fn new(http: &str, https: &str, no: &str) -> Result<Self, InvalidProxy> {
        for url in [http, https].into_iter().filter(|url| !url.is_empty()) {
            let proxy = Matcher::builder().http(url.to_owned()).build();
            let proxy = proxy.intercept(&Uri::from_static("http://any.example/"));
            let scheme = proxy.as_ref().and_then(|proxy| proxy.uri().scheme_str());
            if !matches!(scheme, Some("http" | "https" | "socks5" | "socks5h")) {
                return Err(InvalidProxy { shown: masked(url) });
            }
        }
        if http.is_empty() && https.is_empty() {
            return Ok(Self::default());
        }
        let builder = || Matcher::builder().http(http.to_owned()).https(https.to_owned());
        let entries = no.split(',').map(|entry| entry.trim().trim_start_matches("*.")).collect::<Vec<_>>();
        let at_port = |entry: &str| match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                Some((port.parse().ok()?, builder().no(host.trim_matches(['[', ']']).to_owned()).build()))
            }
            _ => None,
        };
        let rules = Rules {
            http: http.to_owned(),
            https: https.to_owned(),
            no: no.to_owned(),
            matcher: builder().no(entries.join(",")).build(),
            at_ports: entries.iter().filter_map(|entry| at_port(entry)).collect(),
        };
        Ok(Self { rules: Some(Arc::new(rules)) })
    }

    /// Returns the proxy that a URL is reached through.
    pub(super) fn of(&self, uri: &Uri) -> Option<Intercept> {
        let rules = self.rules.as_ref()?;
        let host = uri.host()?.trim_matches(['[', ']']);
        if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return None;
        }
        let port = port_of(uri);
        if rules.at_ports.iter().any(|(at, matcher)| *at == port && matcher.intercept(uri).is_none()) {
            return None;
        }
        rules.matcher.intercept(uri)
    }

    /// Returns the proxy for `http` URLs without its name and password; empty: none.
    pub fn http_shown(&self) -> String {
        self.rules.as_ref().map(|rules| masked(&rules.http)).unwrap_or_default()
    }

    /// Returns the proxy for `https` URLs without its name and password; empty: none.
    pub fn https_shown(&self) -> String {
        self.rules.as_ref().map(|rules| masked(&rules.https)).unwrap_or_default()
    }

    /// Returns who is reached without a proxy, as it was set.
    pub fn no(&self) -> String {
        self.rules.as_ref().map(|rules| rules.no.clone()).unwrap_or_default()
    }

    /// Returns the same as environment variables, for a program that keeps to it. They may hold passwords.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let rules = self.rules.iter().flat_map(|rules| {
            [("http_proxy", &*rules.http), ("https_proxy", &*rules.https), ("no_proxy", &*rules.no)]
        });
        rules.filter(|(_, value)| !value.is_empty())
    }
}

/// Returns the port that a URL names or means.
pub(super) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("https") => 443,
        Some("socks5" | "socks5h") => 1080,
        _ => 80,
    })
}

/// Returns a URL with nothing of its name and password. *Source:* moby `daemon/config`, `MaskCredentials`.
fn masked(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}xxxxx:xxxxx{}", &url[..start], &url[start + at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(no: &str) -> Proxies {
        Proxies::new("http://plain.example:3128", "http://dan:se%3Acret@secure.example:3129", no).unwrap()
    }

    #[test]
    fn a_url_goes_through_the_proxy_of_its_scheme_unless_its_host_is_excepted() {
        let no =
            "registry.lan, .corp.example,*.wild.example,192.168.7.0/24,10.1.2.3,[fd00::5]:443,hub.lan:5000";
        let proxies = proxies(no);
        let through = |url: &str| {
            let uri: Uri = url.parse().unwrap();
            proxies.of(&uri).map(|proxy| proxy.uri().authority().unwrap().to_string())
        };
        for (url, proxy) in [
            ("http://registry.example/v2/", Some("plain.example:3128")),
            ("https://registry.example/v2/", Some("secure.example:3129")),
            ("https://registry.lan/v2/", None),
            ("https://eu.registry.lan:5000/v2/", None),
            ("https://notregistry.lan/v2/", Some("secure.example:3129")),
            ("https://a.corp.example/v2/", None),
            ("https://a.wild.example/v2/", None),
            ("https://192.168.7.9:5000/v2/", None),
            ("http://10.1.2.3/v2/", None),
            ("http://10.1.2.4/v2/", Some("plain.example:3128")),
            ("https://hub.lan:5000/v2/", None),
            ("https://hub.lan/v2/", Some("secure.example:3129")),
            ("https://[fd00::5]/v2/", None),
            ("https://[fd00::6]/v2/", Some("secure.example:3129")),
            // This host itself.
            ("http://localhost:5000/v2/", None),
            ("http://127.0.0.9:5000/v2/", None),
            ("http://[::1]:5000/v2/", None),
        ] {
            assert_eq!(through(url).as_deref(), proxy, "{url}");
        }
        let everyone = "https://registry.example/".parse().unwrap();
        assert!(super::Proxies::new("", "http://p:1", "*").unwrap().of(&everyone).is_none());
        assert!(Proxies::default().of(&everyone).is_none());
    }

    #[test]
    fn what_is_shown_of_a_proxy_has_no_password() {
        let proxies = proxies("x");
        assert_eq!(proxies.https_shown(), "http://xxxxx:xxxxx@secure.example:3129");
        assert_eq!(proxies.http_shown(), "http://plain.example:3128");
        assert!(!format!("{proxies:?}").contains("se%3Acret"), "{proxies:?}");
        let variables: Vec<_> = proxies.variables().collect();
        assert_eq!(variables[1], ("https_proxy", "http://dan:se%3Acret@secure.example:3129"));
    }

    #[test]
    fn what_is_no_proxy_is_refused_by_name() {
        for wrong in ["ftp://proxy.example", "socks4://proxy.example", "http://", "a b"] {
            let refused = Proxies::new("", wrong, "").unwrap_err().to_string();
            assert!(refused.contains(wrong) && refused.contains("hint"), "{refused}");
        }
        let refused = Proxies::new("ftp://dan:secret@proxy.example", "", "").unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
        for right in ["proxy.example:3128", "https://proxy.example", "socks5://u:p@proxy.example"] {
            Proxies::new(right, right, "").unwrap();
        }
    }
}
