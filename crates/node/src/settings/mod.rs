//! `daemon.toml`, or Docker's `daemon.json`: what an operator sets once for a host, in Docker's words.
//!
//! ```text
//!  text -- serde --> Settings ----> foreign: keys of dockerd's without a meaning here: told with line and reason, or refused
//!                       |---------> engine_defaults, doors, log_filter ...: what the other rooms are given
//!                       '- SIGHUP-> reload: which of them hold at once
//! ```
//!
//! *Start reading at* [`Settings::read`].

mod foreign;
mod reload;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wild;

pub use foreign::Told;
pub(crate) use reload::Reloaded;

use anyhow::{Context, Result, bail};
use docker_api::{
    server::{ApiVersion, Group},
    tls,
};
use ipnet::{Ipv4Net, Ipv6Net};
use model::GenericResources;
use rustls::server::danger::ClientCertVerifier;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use tracing_subscriber::filter::Targets;

/// The settings file. An unknown key is an error: a misspelt one must not be ignored. *Source:* dockerd(8),
/// "Daemon configuration file".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Where images, containers and volumes are kept.
    #[serde(deserialize_with = "set")]
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
    #[serde(deserialize_with = "set")]
    pub tlscacert: Option<PathBuf>,
    #[serde(deserialize_with = "set")]
    pub tlscert: Option<PathBuf>,
    #[serde(deserialize_with = "set")]
    pub tlskey: Option<PathBuf>,
    /// Of containers that name none.
    pub log_driver: String,
    pub log_opts: BTreeMap<String, String>,
    /// Of containers that do not set them; the key is the name too.
    pub default_ulimits: BTreeMap<String, Ulimit>,
    /// Subnets of networks that name none.
    pub default_address_pools: Vec<AddressPool>,
    /// The network `bridge` with its gateway's address, as in `172.17.0.1/16`.
    #[serde(deserialize_with = "set")]
    pub bip: Option<Ipv4Net>,
    /// IPv6 for the network `bridge`.
    pub ipv6: bool,
    /// Its IPv6 subnet, as in `fd00:17::/64`; else one of RFC 4193.
    #[serde(rename = "fixed-cidr-v6", deserialize_with = "set")]
    pub fixed_cidr_v6: Option<Ipv6Net>,
    /// What this host has for tasks of a swarm to reserve: `KIND=NUMBER` or `KIND=NAME`.
    pub node_generic_resources: Vec<String>,
    /// Where vendors describe their devices, beside which none are known.
    pub cdi_spec_dirs: Option<Vec<PathBuf>>,
    /// Parts of the daemon that can be turned on or off: `cdi`, vendors' devices, is on unless this says `false`.
    pub features: BTreeMap<String, bool>,
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
    #[serde(deserialize_with = "set")]
    pub log_level: Option<LogLevel>,
    /// `text`, or `json`: an object per line.
    #[serde(deserialize_with = "set")]
    pub log_format: Option<LogFormat>,
    pub debug: bool,
    /// `KEY=VALUE` each, which constraints of services may ask for: `engine.labels.KEY`.
    pub labels: Vec<String>,
    /// Layers of one image that come and go at a time, and how often one is tried.
    pub max_concurrent_downloads: Option<u32>,
    pub max_concurrent_uploads: Option<u32>,
    pub max_download_attempts: Option<u32>,
    /// How long containers may take to stop when the host goes down; longer for those whose own grace is. Negative: as
    /// long as they like. *Unit:* seconds.
    pub shutdown_timeout: Option<i64>,
    /// Where Prometheus finds this daemon's numbers, as in `127.0.0.1:9323`; whoever reaches it may read them.
    #[serde(deserialize_with = "set")]
    pub metrics_addr: Option<String>,
    /// Where this host is advertised when a swarm is made or joined and nothing is said.
    #[serde(deserialize_with = "set")]
    pub swarm_default_advertise_addr: Option<String>,
    /// Cgroup below which containers' cgroups are made, unless the flag says so.
    #[serde(deserialize_with = "set")]
    pub cgroup_parent: Option<String>,
    /// Of containers that name none.
    pub dns_search: Vec<String>,
    pub dns_opts: Vec<String>,
    pub init: bool,
    pub no_new_privileges: bool,
    /// `builtin`, `unconfined`, or the path of a profile.
    pub seccomp_profile: Option<String>,
    /// Bytes, or a text as in `64M`.
    #[serde(deserialize_with = "size")]
    pub default_shm_size: Option<Size>,
    pub default_ipc_mode: String,
    pub default_cgroupns_mode: String,
    /// Of the network `bridge`: whether containers on it reach each other, where their ports are published, the part of
    /// its subnet that is given to them.
    pub icc: Option<bool>,
    #[serde(deserialize_with = "set")]
    pub ip: Option<IpAddr>,
    #[serde(deserialize_with = "set")]
    pub fixed_cidr: Option<Ipv4Net>,
    /// Of networks that are made without them, by driver.
    pub default_network_opts: BTreeMap<String, BTreeMap<String, String>>,
    /// What `host-gateway` stands for in containers.
    #[serde(deserialize_with = "set")]
    pub host_gateway_ip: Option<IpAddr>,
    pub host_gateway_ips: Vec<IpAddr>,

    /// What of this file has no meaning here, in the file's order.
    #[serde(skip)]
    pub told: Vec<Told>,
    // Of dockerd's keys these are only judged, by `foreign`.
    storage_driver: Option<Value>,
    storage_opts: Option<Value>,
    exec_opts: Option<Value>,
    runtimes: Option<Value>,
    default_runtime: Option<Value>,
    experimental: Option<Value>,
    raw_logs: Option<Value>,
    userland_proxy: Option<Value>,
    userland_proxy_path: Option<Value>,
    iptables: Option<Value>,
    ip6tables: Option<Value>,
    firewall_backend: Option<Value>,
    ip_forward: Option<Value>,
    ip_forward_no_drop: Option<Value>,
    ip_masq: Option<Value>,
    allow_direct_routing: Option<Value>,
    bridge: Option<Value>,
    bip6: Option<Value>,
    default_gateway: Option<Value>,
    default_gateway_v6: Option<Value>,
    network_control_plane_mtu: Option<Value>,
    containerd: Option<Value>,
    containerd_namespace: Option<Value>,
    containerd_plugins_namespace: Option<Value>,
    exec_root: Option<Value>,
    pidfile: Option<Value>,
    init_path: Option<Value>,
    oom_score_adjust: Option<Value>,
    cpu_rt_period: Option<Value>,
    cpu_rt_runtime: Option<Value>,
    allow_nondistributable_artifacts: Option<Value>,
    api_cors_header: Option<Value>,
    cluster_store: Option<Value>,
    cluster_store_opts: Option<Value>,
    cluster_advertise: Option<Value>,
    disable_legacy_registry: Option<Value>,
    graph: Option<Value>,
    selinux_enabled: Option<Value>,
    authorization_plugins: Option<Value>,
}

/// A number of bytes, or Docker's text for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(*bytes),
            Self::Text(text) => engine::parse_size(text),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no format of a log; hint: text, json")),
        }
    }
}

/// Reads JSON. An error names the key it is about, and the line of that.
fn read_json(text: &str) -> Result<Settings> {
    let mut from = serde_json::Deserializer::from_str(text);
    let settings = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let path = error.path().clone();
        let key = match path.iter().next() {
            Some(serde_path_to_error::Segment::Map { key }) => key.clone(),
            _ => String::new(),
        };
        let (error, nested) = (error.into_inner(), path.iter().len() > 1);
        let said = error.to_string();
        // Where a value of the outermost table ends says less than where its key stands.
        match foreign::line_of(text, &key, true) {
            Some(line) if !nested => {
                let said = said.split(" at line ").next().unwrap_or(&said);
                anyhow::anyhow!("line {line}: {path}: {said}")
            }
            _ => anyhow::Error::new(error).context(path.to_string()),
        }
    })?;
    from.end()?;
    Ok(settings)
}

/// Reads a value that is not set if it is empty, as dockerd has it.
fn set<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(from)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|why| D::Error::custom(format!("{text:?}: {why}")))).transpose()
}

/// The same of a size; 0 is none.
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Size>, D::Error> {
    let size = Option::<Size>::deserialize(from)?;
    Ok(size.filter(|size| !matches!(size, Size::Bytes(0)) && *size != Size::Text(String::new())))
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

/// *Source:* dockerd(8), "Configure builder".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Builder {
    pub gc: BuilderGc,
    // These are only judged, by `foreign`.
    #[serde(alias = "Entitlements")]
    entitlements: Option<Value>,
    #[serde(alias = "History")]
    history: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BuilderGc {
    /// `false` keeps the results of all builds, until a month has gone by.
    pub enabled: Option<bool>,
    /// How much of them is kept, as in `20GB`; else a tenth of the disk.
    #[serde(alias = "maxUsedSpace", deserialize_with = "size")]
    pub default_keep_storage: Option<Size>,
    policy: Option<Value>,
    reserved_space: Option<Value>,
    min_free_space: Option<Value>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl FromStr for LogLevel {
    type Err = String;

    /// *Source:* containerd `log.SetLevel`, whose words dockerd takes.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "debug" | "trace" => Self::Debug,
            "info" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" | "fatal" | "panic" => Self::Error,
            _ => return Err(format!("{text:?} is no level; hint: debug, info, warn, error")),
        })
    }
}

/// *Source:* moby `daemon/config`, `DefaultShutdownTimeout`. *Unit:* seconds.
const SHUTDOWN_TIMEOUT: i64 = 15;
/// Whose members may use unix sockets when nothing else is said, if a host has it.
const DEFAULT_GROUP: &str = "rswarm";

/// One more address of the front door.
#[derive(Debug)]
pub(crate) enum Door {
    Unix(PathBuf),
    Tcp(String),
}

impl Settings {
    /// Reads the file that is meant where none is named: a missing one means the defaults.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn read_if_there(path: &Path) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Ok(_) | Err(_) => Self::read(path),
        }
    }

    /// Reads the file, as JSON if its name ends so; one without a word says nothing.
    ///
    /// # Errors
    /// It is not there or cannot be read, is not TOML or JSON, has a key nobody knows, or one that must not be left out
    /// and cannot be had here; the text has file, line and key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the settings file {}", path.display()))?;
        let json = path.extension().is_some_and(|extension| extension == "json");
        Self::of_text(&text, json).with_context(|| path.display().to_string())
    }

    fn of_text(text: &str, json: bool) -> Result<Self> {
        // As editors of Windows begin a file.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut settings: Self = if text.trim().is_empty() {
            Self::default()
        } else if json {
            read_json(text)?
        } else {
            toml::from_str(text)?
        };
        settings.judge(text, json).map_err(anyhow::Error::msg)?;
        // What is wrong is told with its key first.
        settings.check().map_err(|error| {
            let told = format!("{error:#}");
            let line = told.split([':', ',']).next().and_then(|key| foreign::line_of(text, key, json));
            match line {
                Some(line) => error.context(format!("line {line}")),
                None => error,
            }
        })?;
        Ok(settings)
    }

    /// # Errors
    /// A value that no type tells from others is none of its key's.
    fn check(&self) -> Result<()> {
        self.doors()?;
        self.generic_resources()?;
        self.min_api()?;
        self.proxies(|_| None)?;
        self.engine_labels()?;
        if let Some(size) = &self.builder.gc.default_keep_storage
            && size.bytes().is_none()
        {
            bail!("builder: gc: defaultKeepStorage: {size:?} is no size such as \"20GB\"");
        }
        if let Some(size) = &self.default_shm_size
            && size.bytes().is_none()
        {
            bail!("default-shm-size: {size:?} is no size such as \"64M\"");
        }
        match self.ip {
            Some(IpAddr::V6(address)) if !address.is_unspecified() => bail!(
                "ip: {address}: ports are published on one IPv4 address or on all; hint: --publish [{address}]:8080:80"
            ),
            Some(_) | None => {}
        }
        if let (Some(range), Some(bridge)) = (self.fixed_cidr, self.bip)
            && !bridge.contains(&range)
        {
            bail!("fixed-cidr: {range} is not in the network of bip, {}", bridge.trunc());
        }
        engine::check_defaults(&self.engine_defaults()?)?;
        Ok(())
    }

    /// Returns the labels of this host.
    ///
    /// # Errors
    /// One is not `KEY=VALUE`, or two differ about a key. *Source:* moby `opts.ValidateLabel`, `daemon/config`.
    pub(crate) fn engine_labels(&self) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for label in &self.labels {
            let (key, value) = label
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .with_context(|| format!("labels: {label:?} is no label; hint: KEY=VALUE"))?;
            if let Some(other) = all.insert(key.to_owned(), value.to_owned())
                && other != value
            {
                bail!("labels: {key} is {other:?} and {value:?}; hint: leave one out");
            }
        }
        Ok(all)
    }

    /// Tells whether a daemon could start with these: also what only this host can tell.
    ///
    /// # Errors
    /// What keeps it from that, with the key.
    pub fn try_out(&self) -> Result<()> {
        self.check()?;
        self.log_filter(None)?;
        self.socket_group()?;
        if self.doors()?.iter().any(|door| matches!(door, Door::Tcp(_))) {
            self.server_tls(|operators| operators)?;
        }
        Ok(())
    }

    /// Returns how registries are reached.
    pub(crate) fn registries(&self) -> image::RegistryOptions {
        // 0 is Docker's number.
        let number = |of: Option<u32>| of.filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
        image::RegistryOptions {
            insecure: self.insecure_registries.clone(),
            mirrors: self.registry_mirrors.clone(),
            downloads_at_once: number(self.max_concurrent_downloads),
            uploads_at_once: number(self.max_concurrent_uploads),
            attempts: self.max_download_attempts.filter(|n| *n > 0),
        }
    }

    /// Returns how long containers have to stop when the host goes down, at least; `None`: as long as they like.
    pub(crate) fn shutdown_timeout(&self) -> Option<Duration> {
        let seconds = self.shutdown_timeout.filter(|seconds| *seconds != 0).unwrap_or(SHUTDOWN_TIMEOUT);
        u64::try_from(seconds).ok().map(Duration::from_secs)
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
        // What systemd would hand over is told of in `foreign`.
        self.hosts.iter().filter(|host| !host.starts_with("fd://")).map(door).collect()
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

    /// Returns what `--security-opt seccomp=` would be given.
    ///
    /// # Errors
    /// The profile cannot be read.
    fn seccomp(&self) -> Result<Option<String>> {
        Ok(match self.seccomp_profile.as_deref() {
            None | Some("" | "builtin" | "default") => None,
            Some("unconfined") => Some("unconfined".to_owned()),
            Some(path) => {
                let read = fs::read_to_string(path);
                Some(read.with_context(|| format!("seccomp-profile: cannot read {path}"))?)
            }
        })
    }

    /// Returns what holds for every container and network.
    ///
    /// # Errors
    /// A file that it names cannot be read.
    pub(crate) fn engine_defaults(&self) -> Result<engine::Defaults> {
        Ok(engine::Defaults {
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
            bridge_mtu_bytes: self.mtu.filter(|bytes| *bytes > 0),
            generic_resources: self.generic_resources()?,
            cdi_spec_dirs: match (&self.cdi_spec_dirs, self.features.get("cdi")) {
                (_, Some(false)) => Vec::new(),
                (Some(dirs), _) => dirs.clone(),
                (None, _) => engine::CDI_SPEC_DIRS.map(PathBuf::from).into(),
            },
            build_cache_max_bytes: match &self.builder.gc {
                BuilderGc { enabled: Some(false), .. } => Some(u64::MAX),
                gc => gc.default_keep_storage.as_ref().and_then(Size::bytes),
            },
            bridge_icc: self.icc,
            bridge_binding: self.ip.and_then(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            bridge_range: self.fixed_cidr,
            network_options: self.default_network_opts.clone(),
            host_gateway: self.host_gateway_ips.iter().copied().chain(self.host_gateway_ip).collect(),
            containers: engine::ContainerDefaults {
                dns_search: self.dns_search.clone(),
                dns_options: self.dns_opts.clone(),
                init: self.init,
                no_new_privileges: self.no_new_privileges,
                seccomp: self.seccomp()?,
                shm_size_bytes: self.default_shm_size.as_ref().and_then(Size::bytes),
                ipc_mode: self.default_ipc_mode.clone(),
                cgroupns_mode: self.default_cgroupns_mode.clone(),
            },
        })
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
