//! `daemon.toml`, or Docker's `daemon.json`: what an operator sets once for a host, in Docker's words.

use anyhow::{Context, Result, bail};
use docker_api::{
    server::{ApiVersion, Group},
    tls,
};
use ipnet::{Ipv4Net, Ipv6Net};
use model::GenericResources;
use rustls::server::danger::ClientCertVerifier;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing_subscriber::filter::Targets;

/// The settings file. An unknown key is an error: a misspelt one must not be ignored. *Source:* dockerd(8),
/// "Daemon configuration file".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Where images, containers and volumes are kept.
    pub data_root: Option<PathBuf>,
    /// `host[:port]` or CIDR of registries that may be talked to without verified TLS.
    pub insecure_registries: Vec<String>,
    /// Base URLs asked before docker.io.
    pub registry_mirrors: Vec<String>,
    /// What registries, web servers and git repositories are reached through; what is not set is what the daemon's
    /// environment says: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`.
    pub proxies: Proxies,
    /// Name servers for what this host's own networks do not answer; else /etc/resolv.conf.
    pub dns: Vec<IpAddr>,
    /// More addresses for the front door: `tcp://ADDRESS[:PORT]`, `unix://PATH`.
    pub hosts: Vec<String>,
    /// Whose members may use unix sockets as root does, by name or number; else `rswarm`, if this host has it. Empty: root
    /// alone, and root's group.
    pub group: Option<String>,
    /// TLS on `tcp://` addresses. `false` (and no `tlsverify`) opens them to whoever reaches them.
    pub tls: Option<bool>,
    /// TLS on `tcp://` addresses, for clients alone whose certificate `tlscacert` has signed.
    pub tlsverify: bool,
    pub tlscacert: Option<PathBuf>,
    pub tlscert: Option<PathBuf>,
    pub tlskey: Option<PathBuf>,
    /// Of containers that name none.
    pub log_driver: String,
    pub log_opts: BTreeMap<String, String>,
    /// Of containers that do not set them; the key is the name too.
    pub default_ulimits: BTreeMap<String, Ulimit>,
    /// Subnets of networks that name none.
    pub default_address_pools: Vec<AddressPool>,
    /// The network `bridge` with its gateway's address, as in `172.17.0.1/16`.
    pub bip: Option<Ipv4Net>,
    /// IPv6 for the network `bridge`.
    pub ipv6: bool,
    /// Its IPv6 subnet, as in `fd00:17::/64`; else one of RFC 4193.
    #[serde(rename = "fixed-cidr-v6")]
    pub fixed_cidr_v6: Option<Ipv6Net>,
    /// What this host has for tasks of a swarm to reserve: `KIND=NUMBER` or `KIND=NAME`.
    pub node_generic_resources: Vec<String>,
    /// Where vendors describe their devices, beside which none are known.
    pub cdi_spec_dirs: Option<Vec<PathBuf>>,
    /// Parts of the daemon that can be turned off.
    pub features: Features,
    /// Of the network `bridge`. *Unit:* bytes.
    pub mtu: Option<u32>,
    /// Of `docker build`.
    pub builder: Builder,
    /// Whose subordinate ids are those of containers: `default`, `USER`, `UID`, either with `:GROUP`; empty = containers
    /// have the host's own.
    pub userns_remap: String,
    /// Containers always outlive the daemon here; the key is known, so that a file of Docker's can be used as it is.
    pub live_restore: Option<bool>,
    /// The oldest version of Docker's API that clients may speak, as in `1.44`.
    pub min_api_version: Option<String>,
    /// `debug`, `info`, `warn`, `error`.
    pub log_level: Option<LogLevel>,
    pub debug: bool,
}

/// *Source:* Docker docs, "Daemon proxy configuration".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Proxies {
    /// URL, with name and password if it wants some.
    pub http_proxy: String,
    pub https_proxy: String,
    /// Who is reached without: hosts, addresses, networks, by commas.
    pub no_proxy: String,
}

/// *Source:* dockerd(8), "Feature options".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Features {
    /// Vendors' devices; on unless this says `false`.
    pub cdi: Option<bool>,
}

/// *Source:* dockerd(8), "Configure builder".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Builder {
    pub gc: BuilderGc,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BuilderGc {
    /// `false` keeps the results of all builds, until a month has gone by.
    pub enabled: Option<bool>,
    /// How much of them is kept, as in `20GB`; else a tenth of the disk.
    pub default_keep_storage: Option<String>,
}

/// *Source:* Docker API, `Ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    #[serde(rename = "Name")]
    pub name: Option<String>,
    #[serde(rename = "Soft")]
    pub soft: i64,
    #[serde(rename = "Hard")]
    pub hard: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    pub base: Ipv4Net,
    pub size: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Whose members may use unix sockets when nothing else is said, if a host has it.
const DEFAULT_GROUP: &str = "rswarm";

/// One more address of the front door.
#[derive(Debug)]
pub(crate) enum Door {
    Unix(PathBuf),
    Tcp(String),
}

impl Settings {
    /// Reads the file, as JSON if its name ends so; a missing one means the defaults.
    ///
    /// # Errors
    /// It cannot be read, is not TOML or JSON, or has a key nobody knows; the text has file, line and key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let json = path.extension().is_some_and(|extension| extension == "json");
        let settings: Self = if json {
            serde_json::from_str(&text).map_err(Into::into)
        } else {
            toml::from_str(&text).map_err(anyhow::Error::from)
        }
        .with_context(|| path.display().to_string())?;
        settings.doors().with_context(|| path.display().to_string())?;
        settings.generic_resources().with_context(|| path.display().to_string())?;
        settings.min_api().with_context(|| path.display().to_string())?;
        settings.proxies(|_| None).with_context(|| path.display().to_string())?;
        if let Some(text) = &settings.builder.gc.default_keep_storage
            && engine::parse_size(text).is_none()
        {
            bail!("{}: defaultKeepStorage: {text:?} is no size such as \"20GB\"", path.display());
        }
        Ok(settings)
    }

    /// Tells whether `tcp://` addresses speak TLS.
    ///
    /// # Errors
    /// There are some, and nothing says how they are protected.
    fn encrypted(&self) -> Result<bool> {
        match self.tls {
            _ if self.tlsverify => Ok(true),
            Some(tls) => Ok(tls),
            None => bail!(
                "hosts: whoever reaches a tcp:// address is root on this host; hint: set tlsverify = true with tlscacert, \
                 tlscert and tlskey, or tls = false if that is meant"
            ),
        }
    }

    /// Returns the addresses of `hosts`.
    ///
    /// # Errors
    /// One cannot be used, or it is not said how it is protected.
    pub(crate) fn doors(&self) -> Result<Vec<Door>> {
        let door = |host: &String| {
            if let Some(path) = host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
                return Ok(Door::Unix(path.into()));
            }
            let address =
                host.strip_prefix("tcp://").filter(|address| !address.is_empty()).with_context(|| {
                    format!("hosts: {host:?} is neither tcp://ADDRESS[:PORT] nor unix:///PATH")
                })?;
            let port = if self.encrypted()? { 2376 } else { 2375 };
            let has_port = !address.ends_with(']')
                && address.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
            Ok(Door::Tcp(if has_port { address.to_owned() } else { format!("{address}:{port}") }))
        };
        self.hosts.iter().map(door).collect()
    }

    /// Returns the group that unix sockets are for; `None`: the daemon's own.
    ///
    /// # Errors
    /// There is no group of the name that is set.
    pub(crate) fn socket_group(&self) -> Result<Option<Group>> {
        match self.group.as_deref() {
            Some("") => Ok(None),
            Some(name) => {
                let group = Group::find(name).context("cannot read the groups of this host")?;
                group.map(Some).with_context(|| {
                    format!("group: there is no group {name:?} on this host; hint: groupadd --system {name}")
                })
            }
            None => Group::find(DEFAULT_GROUP).context("cannot read the groups of this host"),
        }
    }

    /// Returns the oldest version of the API that clients may speak.
    ///
    /// # Errors
    /// It is no version, or one that is not spoken here.
    pub(crate) fn min_api(&self) -> Result<ApiVersion> {
        let oldest = docker_api::server::MIN_API_VERSION;
        let Some(text) = &self.min_api_version else { return Ok(oldest) };
        let asked: ApiVersion = text.parse().map_err(|e| anyhow::anyhow!("min-api-version: {e}"))?;
        if asked < oldest || asked > docker_api::server::NEWEST {
            bail!("min-api-version: {text} is not between {oldest} and {}", docker_api::server::NEWEST);
        }
        Ok(asked)
    }

    /// Returns what registries are reached through: as set, else what a variable of the environment says.
    ///
    /// # Errors
    /// One is no proxy; the text has the key, and no password.
    pub(crate) fn proxies(&self, variable: impl Fn(&str) -> Option<String>) -> Result<image::Proxies> {
        let said = |set: &String, names: [&str; 2]| {
            let variables = names.iter().filter_map(|name| variable(name));
            Some(set.clone()).into_iter().chain(variables).find(|value| !value.is_empty()).unwrap_or_default()
        };
        let http = said(&self.proxies.http_proxy, ["HTTP_PROXY", "http_proxy"]);
        let https = said(&self.proxies.https_proxy, ["HTTPS_PROXY", "https_proxy"]);
        let no = said(&self.proxies.no_proxy, ["NO_PROXY", "no_proxy"]);
        let key =
            |key| move || format!("proxies: {key}, or the variable of this name in the daemon's environment");
        // Each for itself first, for the error to name it.
        image::Proxies::new(&http, "", "").with_context(key("http-proxy"))?;
        image::Proxies::new("", &https, "").with_context(key("https-proxy"))?;
        Ok(image::Proxies::new(&http, &https, &no)?)
    }

    /// Returns what the operator says that this host has.
    ///
    /// # Errors
    /// An item is neither counted nor named, or is both.
    pub(crate) fn generic_resources(&self) -> Result<GenericResources> {
        let items = self.node_generic_resources.iter().map(String::as_str);
        model::resource::generic_resources(items)
            .map_err(|reason| anyhow::anyhow!("node-generic-resources: {reason}"))
    }

    /// Returns the ids of the host that containers' own are; `None` = the same ones. Notes those of `default` on this
    /// host, if that is asked for and they are not there.
    ///
    /// # Errors
    /// They are not known, or containers cannot have them.
    pub(crate) fn userns_remap(&self) -> Result<Option<runtime::IdMap>> {
        let asked = Some(self.userns_remap.as_str()).filter(|asked| !asked.is_empty());
        let read = asked.map(|asked| engine::userns::read_remap(asked, Path::new("/etc")));
        Ok(read.transpose()?)
    }

    /// Returns how `tcp://` addresses are protected; `None` = not at all.
    ///
    /// # Errors
    /// A file is not named or cannot be used.
    pub(crate) fn server_tls(
        &self,
        door: impl FnOnce(Arc<dyn ClientCertVerifier>) -> Arc<dyn ClientCertVerifier>,
    ) -> Result<Option<Arc<rustls::ServerConfig>>> {
        if !self.encrypted()? {
            return Ok(None);
        }
        let file = |key: &str, value: &Option<PathBuf>| {
            value.clone().with_context(|| format!("TLS needs {key}, the path of a PEM file"))
        };
        let files = tls::Files {
            ca: if self.tlsverify { file("tlscacert", &self.tlscacert)? } else { PathBuf::new() },
            cert: file("tlscert", &self.tlscert)?,
            key: file("tlskey", &self.tlskey)?,
        };
        let operators = self.tlsverify.then(|| tls::client_verifier(&files)).transpose()?;
        let verifier = operators.map(door);
        Ok(Some(tls::server_config(&files, verifier)?))
    }

    /// Returns what holds for every container and network.
    pub(crate) fn engine_defaults(&self) -> engine::Defaults {
        engine::Defaults {
            log: engine::LogConfig { driver: self.log_driver.clone(), options: self.log_opts.clone() },
            ulimits: self
                .default_ulimits
                .iter()
                .map(|(key, limit)| model::Ulimit {
                    name: limit.name.clone().unwrap_or_else(|| key.clone()),
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            address_pools: self
                .default_address_pools
                .iter()
                .map(|pool| engine::AddressPool { base: pool.base, size: pool.size })
                .collect(),
            bridge: self.bip,
            bridge_ipv6: self.ipv6.then(|| {
                self.fixed_cidr_v6
                    .map_or(engine::BridgeIpv6::Any, |net| engine::BridgeIpv6::Subnet(net.trunc()))
            }),
            bridge_mtu_bytes: self.mtu,
            // Checked when the file was read.
            generic_resources: self.generic_resources().unwrap_or_default(),
            cdi_spec_dirs: match (&self.cdi_spec_dirs, self.features.cdi) {
                (_, Some(false)) => Vec::new(),
                (Some(dirs), _) => dirs.clone(),
                (None, _) => engine::CDI_SPEC_DIRS.map(PathBuf::from).into(),
            },
            build_cache_max_bytes: match &self.builder.gc {
                BuilderGc { enabled: Some(false), .. } => Some(u64::MAX),
                gc => gc.default_keep_storage.as_deref().and_then(engine::parse_size),
            },
        }
    }

    /// Returns the filter of the daemon's own log: `asked` (`RSWARM_LOG`, as in `debug,hyper=info`), or what the level
    /// in the settings stands for.
    ///
    /// # Errors
    /// `asked` is no list of levels and of targets with theirs.
    pub(crate) fn log_filter(&self, asked: Option<&str>) -> Result<Targets> {
        if let Some(asked) = asked.filter(|text| !text.is_empty()) {
            return asked.parse().with_context(|| {
                format!("RSWARM_LOG {asked:?} is no filter; hint: LEVEL,TARGET=LEVEL, as in debug,hyper=info")
            });
        }
        // Who did what is told whatever the level.
        let text = match self.log_level {
            _ if self.debug => "debug,openraft=info,h2=info,hyper=info",
            Some(LogLevel::Debug) => "debug,openraft=info,h2=info,hyper=info",
            None | Some(LogLevel::Info) => "info,openraft=error",
            Some(LogLevel::Warn) => "warn,openraft=error,audit=info",
            Some(LogLevel::Error) => "error,audit=info",
        };
        Ok(text.parse().expect("the filters above are filters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Settings::read(&path).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn who_did_what_is_in_the_log_at_every_level() {
        use tracing::Level;
        for level in ["debug", "info", "warn", "error"] {
            let settings = read("daemon.toml", &format!("log-level = \"{level}\"")).unwrap();
            let filter = settings.log_filter(None).unwrap();
            assert!(filter.would_enable("audit", &Level::INFO), "{level}");
            assert_eq!(filter.would_enable("node", &Level::DEBUG), level == "debug");
            assert_eq!(filter.would_enable("node", &Level::WARN), level != "error");
            assert!(!filter.would_enable("openraft::core", &Level::DEBUG), "{level}");
        }
        let filter = Settings::default().log_filter(Some("debug,hyper=info")).unwrap();
        assert!(filter.would_enable("node::executor", &Level::DEBUG));
        assert!(!filter.would_enable("hyper::proto", &Level::DEBUG));
        let refused = Settings::default().log_filter(Some("node=loud")).unwrap_err();
        assert!(refused.to_string().contains("RSWARM_LOG \"node=loud\""), "{refused}");
    }

    #[test]
    fn settings_have_dockers_names() {
        let text = "insecure-registries = [\"10.0.0.0/8\"]\ndns = [\"192.0.2.53\"]\n";
        let settings = read("daemon.toml", text).unwrap();
        assert_eq!(settings.insecure_registries, ["10.0.0.0/8"]);
        assert_eq!(settings.dns.len(), 1);
    }

    #[test]
    fn ids_of_containers_are_those_of_a_user() {
        assert!(Settings::default().userns_remap().unwrap().is_none());
        let settings = read("daemon.json", r#"{"userns-remap": "no such user"}"#).unwrap();
        let refused = settings.userns_remap().unwrap_err().to_string();
        assert!(refused.contains("userns-remap") && refused.contains("no such user"), "{refused}");
    }

    #[test]
    fn the_example_has_every_key_and_is_read() {
        let example = include_str!("../../../deploy/daemon.toml");
        assert_eq!(read("daemon.toml", example).unwrap(), Settings::default());
        // Keys are the comments that look like them.
        let is_key = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let lines: Vec<&str> = example.lines().filter_map(|l| l.strip_prefix("# ")).filter(is_key).collect();
        let settings = read("daemon.toml", &lines.join("\n")).unwrap();
        assert_eq!(settings.doors().unwrap().len(), 1);
        assert!(settings.bip.is_some() && settings.mtu.is_some() && lines.len() > 15, "{lines:?}");
    }

    #[test]
    fn a_group_that_is_set_must_be_there() {
        let group = |text: &str| read("daemon.toml", text).unwrap().socket_group();
        assert_eq!(group("group = \"root\"").unwrap().unwrap().id, 0);
        assert_eq!(group("group = \"4242\"").unwrap().unwrap().id, 4242);
        assert!(group("group = \"\"").unwrap().is_none());
        let refused = group("group = \"no-such-group\"").unwrap_err().to_string();
        assert!(refused.contains("groupadd --system no-such-group"), "{refused}");
    }

    #[test]
    fn proxies_are_those_that_are_set_else_those_of_the_environment() {
        let text = "[proxies]\nhttps-proxy = \"http://set.example:3128\"\n";
        let settings = read("daemon.toml", text).unwrap();
        let environment = |name: &str| match name {
            "HTTP_PROXY" => Some(String::new()),
            "http_proxy" => Some("http://lower.example:1".to_owned()),
            "HTTPS_PROXY" => Some("http://other.example:2".to_owned()),
            "NO_PROXY" => Some("registry.lan".to_owned()),
            _ => None,
        };
        let proxies = settings.proxies(environment).unwrap();
        assert_eq!(proxies.https_shown(), "http://set.example:3128");
        assert_eq!(
            (proxies.http_shown(), proxies.no()),
            ("http://lower.example:1".into(), "registry.lan".into())
        );
        let json = r#"{"proxies": {"http-proxy": "ftp://dan:secret@proxy.example", "no-proxy": "x"}}"#;
        let refused = read("daemon.json", json).unwrap_err();
        assert!(
            refused.contains("daemon.json: proxies: http-proxy") && !refused.contains("secret"),
            "{refused}"
        );
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        for (name, text) in
            [("daemon.toml", "\ninsecure-registry = []\n"), ("daemon.json", "{\n\"insecure-registry\": []}")]
        {
            let error = read(name, text).unwrap_err();
            assert!(error.contains("insecure-registry") && error.contains("line 2"), "{error}");
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn clients_may_be_asked_to_speak_a_newer_version() {
        let oldest =
            |text: &str| read("daemon.toml", text).map(|settings| settings.min_api().unwrap().to_string());
        assert_eq!(oldest("").unwrap(), "1.24");
        assert_eq!(oldest("min-api-version = \"1.44\"").unwrap(), "1.44");
        for wrong in ["1.12", "1.99", "x", ""] {
            let error = oldest(&format!("min-api-version = \"{wrong}\"")).unwrap_err();
            assert!(error.contains("min-api-version"), "{error}");
        }
    }

    #[test]
    fn a_file_of_dockers_is_read_as_it_is() {
        let text = r#"{
            "data-root": "/srv/docker", "registry-mirrors": ["https://mirror.example"], "live-restore": true,
            "log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"},
            "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}], "bip": "10.200.0.1/24", "mtu": 1400,
            "ipv6": true, "fixed-cidr-v6": "fd00:17::/64",
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 32000}},
            "hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0"],
            "tlsverify": true, "tlscacert": "/ca.pem", "tlscert": "/cert.pem", "tlskey": "/key.pem", "debug": true,
            "builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB"}},
            "node-generic-resources": ["NVIDIA-GPU=UUID1", "NVIDIA-GPU=UUID2"], "features": {"cdi": true},
            "cdi-spec-dirs": ["/srv/cdi"]
        }"#;
        let settings = read("daemon.json", text).unwrap();
        let defaults = settings.engine_defaults();
        assert_eq!(defaults.ulimits[0].soft, 32000);
        assert_eq!(defaults.build_cache_max_bytes, Some(20 << 30));
        assert_eq!(defaults.cdi_spec_dirs, [PathBuf::from("/srv/cdi")]);
        assert_eq!(settings.generic_resources().unwrap().len(), 1);
        let error = read("daemon.json", r#"{"node-generic-resources": ["GPU"]}"#).unwrap_err();
        assert!(
            error.contains("daemon.json: node-generic-resources") && error.contains("\"GPU\""),
            "{error}"
        );
        let error =
            read("daemon.json", r#"{"builder": {"gc": {"defaultKeepStorage": "much"}}}"#).unwrap_err();
        assert!(error.contains("defaultKeepStorage") && error.contains("much"), "{error}");
        assert_eq!(defaults.log.options["max-size"], "10m");
        assert_eq!(defaults.bridge.unwrap().to_string(), "10.200.0.1/24");
        let doors = settings.doors().unwrap();
        assert!(matches!(&doors[1], Door::Tcp(address) if address == "0.0.0.0:2376"), "{doors:?}");
        assert!(settings.server_tls(|operators| operators).unwrap_err().to_string().contains("/ca.pem"));
    }

    #[test]
    fn a_tcp_address_needs_a_word_about_who_may_come_in() {
        let error = read("daemon.toml", "hosts = [\"tcp://127.0.0.1:2375\"]\n").unwrap_err();
        assert!(error.contains("tlsverify"), "{error}");
        assert!(read("daemon.toml", "hosts = [\"tcp://127.0.0.1:2375\"]\ntls = false\n").is_ok());
        for bad in ["fd://", "tcp://", "unix://relative"] {
            let error = read("daemon.toml", &format!("tls = false\nhosts = [\"{bad}\"]\n")).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }
}
