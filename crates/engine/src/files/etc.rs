//! The files of /etc that a container gets from its engine: hosts, hostname, resolv.conf. Pure text.

use std::net::IpAddr;

/// Returns /etc/hosts: Docker's fixed lines, the extra hosts, then the container's own addresses.
pub(crate) fn hosts(extra: &[(String, String)], own: &[IpAddr], hostname: &str, domainname: &str) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        text += &format!("{address}\t{name}\n");
    }
    let names = if domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{domainname} {hostname}")
    };
    for address in own {
        text += &format!("{address}\t{names}\n");
    }
    text
}

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Resolver {
    /// Reads a host's resolv.conf without its loopback name servers, which a container cannot reach.
    pub(crate) fn of_host(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found
                    .servers
                    .extend(words.next().and_then(|w| w.parse().ok()).filter(|a: &IpAddr| !a.is_loopback())),
                Some("search") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }

    /// Returns this one with what the caller asked for in place of the host's.
    pub(crate) fn overridden(mut self, servers: &[IpAddr], search: &[String], options: &[String]) -> Self {
        if !servers.is_empty() {
            self.servers = servers.to_vec();
        }
        if !search.is_empty() {
            // `.` means: none
            self.search = search.iter().filter(|s| *s != ".").cloned().collect();
        }
        if !options.is_empty() {
            self.options = options.to_vec();
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text += &format!("nameserver {server}\n");
        }
        if !self.search.is_empty() {
            text += &format!("search {}\n", self.search.join(" "));
        }
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_resolvers_of_the_host_are_left_out_and_overrides_win() {
        let host =
            Resolver::of_host("# c\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a b\noptions edns0\n");
        assert_eq!(host.text(), "nameserver 10.0.0.2\nsearch a b\noptions edns0\n");
        let mine = host.overridden(&["9.9.9.9".parse().unwrap()], &[".".into()], &[]);
        assert_eq!(mine.text(), "nameserver 9.9.9.9\noptions edns0\n");
    }

    #[test]
    fn hosts_end_with_the_containers_own_line() {
        let text = hosts(&[("db".into(), "10.0.0.5".into())], &["172.17.0.2".parse().unwrap()], "web", "lan");
        assert!(text.ends_with("ff02::2\tip6-allrouters\n10.0.0.5\tdb\n172.17.0.2\tweb.lan web\n"));
    }
}
