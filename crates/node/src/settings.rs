//! `daemon.toml`: what an operator sets once for a host. Docker's names where Docker has the key.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::{fs, io, net::IpAddr, path::Path};

/// The settings file. An unknown key is an error: a misspelt one must not be ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// `host[:port]` or CIDR of registries that may be talked to without verified TLS.
    pub insecure_registries: Vec<String>,
    /// Base URLs asked before docker.io.
    pub registry_mirrors: Vec<String>,
    /// Name servers for what this host's own networks do not answer; else /etc/resolv.conf.
    pub dns: Vec<IpAddr>,
    /// More addresses for the front door, e.g. `tcp://127.0.0.1:2375`. There is no access control on them.
    pub hosts: Vec<String>,
}

impl Settings {
    /// Reads the file; a missing one means the defaults.
    ///
    /// # Errors
    /// It cannot be read, is not TOML, or has a key nobody knows; the text has file, line and key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        toml::from_str(&text).with_context(|| format!("{}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_dockers_names() {
        let settings: Settings =
            toml::from_str("insecure-registries = [\"10.0.0.0/8\"]\ndns = [\"192.0.2.53\"]\n").unwrap();
        assert_eq!(settings.insecure_registries, ["10.0.0.0/8"]);
        assert_eq!(settings.dns.len(), 1);
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        let error = toml::from_str::<Settings>("\ninsecure-registry = []\n").unwrap_err().to_string();
        assert!(error.contains("insecure-registry") && error.contains("line 2"), "{error}");
    }
}
