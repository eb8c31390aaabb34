//! Reads stack files: compose text, environment, `.env` and the files it names, into specs of the model.
//!
//! ```text
//!  text --tree--> nodes with positions --interpolate--> --project: extends, include, merge--> one tree --resolve--> Stack
//! ```
//!
//! Names, labels, aliases and defaults are those of `docker stack deploy` (docker/cli `cli/compose/convert`).
//! Nothing is ignored silently: a key that is unknown, or that this version cannot honour, is an error with
//! file, line, column and path; what is harmless is a [`Warning`].
//!
//! Invariants: reads the world only through [`Files`]; the same sources give the same stack.
//!
//! *Start reading at* [`load`].

mod build;
mod canonical;
mod definitions;
mod depend;
mod deploy;
mod devices;
pub mod docker;
mod dotenv;
mod error;
mod hooks;
mod hosts;
mod interpolate;
mod local;
mod meant;
mod merge;
mod mounts;
mod one_host;
mod ports;
mod project;
mod provide;
mod read;
mod rebase;
mod service;
mod stack;
mod tree;
mod ulimits;
mod units;
mod written;
mod yaml;

pub use canonical::{Document, Form, document, mentioned, variables};
pub use error::{At, Error};
pub use interpolate::Variable;
pub use one_host::{Address, HostNetwork, HostPort, OneHost, Pull, Subnet, Watch, WatchAction};
pub use provide::{Provider, ServiceModel, StackModel};
pub use units::{bytes, cpu_nanos, duration};
pub use written::{Named, Written, WrittenService};

use model::{FileRef, Labels, MountKind, NetworkSpec, SecretBytes, ServiceSpec};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// What a stack is made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Stack files with their text; later ones are merged over earlier ones.
    pub files: Vec<(PathBuf, String)>,
    /// Relative paths are looked up here; its `.env` is read. Its name is the stack's, if nothing else is.
    pub project_dir: PathBuf,
    /// The caller's environment; it wins over `.env`.
    pub env: BTreeMap<String, String>,
    /// The stack's name, if the caller gave one.
    pub name: Option<String>,
    /// Files with variables, instead of `.env`; later ones win.
    pub env_files: Vec<PathBuf>,
    /// `.env` is not read, also where no other files are named.
    pub no_default_env: bool,
    /// Services that are meant, if not all are: the files of variables of those that they do not need may be missing.
    pub meant: Option<Vec<String>>,
    /// Services with a profile are there only with one of these; `*` stands for all.
    pub profiles: Vec<String>,
    /// What cannot be honoured is left out with a warning, instead of an error.
    pub lenient: bool,
    /// Where it is to run: on one host some keys mean more.
    pub place: Place,
    /// What the stack is called if neither the caller nor a file says: the folder's name, if this says nothing either.
    pub fallback_name: Option<String>,
    /// On one host: networks and volumes are there also where no service uses them.
    pub all_resources: bool,
    /// On one host: images that are built are named with an underscore, as Docker Compose 1 did.
    pub underscores: bool,
}

/// Where a project is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// As services of a swarm, under the names and labels of `docker stack deploy`.
    #[default]
    Swarm,
    /// As containers of one host, under those of `docker compose`.
    Host,
}

/// Reads the files that stack files name.
pub trait Files {
    /// Returns the content of a file.
    ///
    /// # Errors
    /// As `std::fs::read`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Returns where the compose file that a URL such as `oci://registry/repository:tag` stands for is now; what belongs to
    /// it is beside it.
    ///
    /// # Errors
    /// It cannot be had, or nothing is fetched here.
    fn fetch(&self, url: &str) -> io::Result<PathBuf> {
        let why = format!("{url} is not fetched here; hint: `rswarm compose` does");
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }
}

/// Names a project that a registry keeps. Source: docker/compose `pkg/remote/oci.go`.
pub const OCI_PREFIX: &str = "oci://";

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

impl Files for BTreeMap<PathBuf, Vec<u8>> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// Something the author should know, that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub at: Option<At>,
    pub text: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.at {
            Some(at) => write!(f, "{at}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Everything a stack file asks for, resolved; names are full (`<stack>_<key>`) unless they are external.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    pub name: String,
    /// Only those that a service uses.
    pub networks: Vec<StackNetwork>,
    pub secrets: Vec<StackSecret>,
    pub configs: Vec<StackConfig>,
    pub services: Vec<StackService>,
    /// On one host alone.
    pub models: Vec<StackModel>,
    /// The volumes that the file defines, if [`Sources::all_resources`] asks for them.
    pub all_volumes: Vec<MountKind>,
    resolved: tree::Node,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StackNetwork {
    /// Name in the file.
    pub key: String,
    /// Name in the swarm.
    pub name: String,
    /// Must exist already.
    pub external: bool,
    /// `None` if external, and on one host.
    pub spec: Option<NetworkSpec>,
    /// On one host, instead of `spec`.
    pub host: Option<HostNetwork>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StackSecret {
    pub key: String,
    pub name: String,
    pub external: bool,
    pub labels: Labels,
    /// `None` if external, or in a file of one host.
    pub data: Option<SecretBytes>,
    /// On one host: the file that is mounted.
    pub file: Option<PathBuf>,
    /// `template_driver: golang`: the data is filled in for each task.
    pub templated: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StackConfig {
    pub key: String,
    pub name: String,
    pub external: bool,
    pub labels: Labels,
    /// `None` if external, or in a file of one host.
    pub data: Option<Vec<u8>>,
    /// On one host: the file that is mounted.
    pub file: Option<PathBuf>,
    /// `template_driver: golang`: the data is filled in for each task.
    pub templated: bool,
}

/// A service whose references are still names: whoever creates it looks up the ids.
#[derive(Debug, Clone, PartialEq)]
pub struct StackService {
    /// Name in the file; `spec.name` is the full one.
    pub key: String,
    /// `task.networks`, `container.secrets` and `container.configs` are empty.
    pub spec: ServiceSpec,
    /// Its image is to be built before.
    pub build: Option<StackBuild>,
    /// In the order of their full names.
    pub networks: Vec<StackAttachment>,
    /// By full name.
    pub secrets: Vec<FileRef<String>>,
    pub configs: Vec<FileRef<String>>,
    /// What only one host can give it.
    pub host: Option<OneHost>,
}

/// How an image comes to be. Source: compose specification "build".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StackBuild {
    /// An absolute path, or what is fetched: a repository, an archive.
    pub context: String,
    /// Below the context; empty = `Dockerfile`.
    pub dockerfile: String,
    /// Its text, instead.
    pub dockerfile_inline: Option<String>,
    pub args: BTreeMap<String, String>,
    /// Empty = the last stage.
    pub target: String,
    pub network: String,
    pub no_cache: bool,
    pub pull: bool,
    pub labels: Labels,
    /// Names of the image besides the service's.
    pub tags: Vec<String>,
    /// For `RUN --mount=type=secret`, by id.
    pub secrets: Vec<(String, SecretBytes)>,
    /// `HOST:IP` for `RUN`.
    pub extra_hosts: Vec<String>,
    /// Of the `/dev/shm` that `RUN` has.
    pub shm_size_bytes: Option<u64>,
    pub ulimits: Vec<model::Ulimit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackAttachment {
    /// Full name.
    pub network: String,
    pub aliases: Vec<String>,
    /// Of its own choice; on one host alone.
    pub address: Address,
}

impl Stack {
    /// Returns the merged, interpolated file as canonical YAML: keys in order, comments and anchors gone.
    pub fn to_yaml(&self) -> String {
        yaml::write(&self.resolved)
    }

    /// Returns the same as data.
    pub fn resolved(&self) -> impl serde::Serialize + '_ {
        &self.resolved
    }

    /// Returns the keys of the volumes that the file defines.
    pub fn volumes(&self) -> Vec<&str> {
        match self.resolved.get("volumes").map(|node| &node.value) {
            Some(tree::Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
            _ => Vec::new(),
        }
    }
}

/// Reads a stack.
///
/// # Errors
/// The first [`Error`] found; nothing has been done.
///
/// ```
/// let sources = compose::Sources {
///     files: vec![("stack.yml".into(), "services: {web: {image: nginx, ports: ['80:80']}}".into())],
///     project_dir: "/srv/shop".into(),
///     ..compose::Sources::default()
/// };
/// let no_files = std::collections::BTreeMap::new();
/// let (stack, warnings) = compose::load(&sources, &no_files)?;
/// assert_eq!(stack.services[0].spec.name, "shop_web");
/// assert!(warnings.is_empty());
/// # Ok::<(), compose::Error>(())
/// ```
pub fn load(sources: &Sources, files: &dyn Files) -> Result<(Stack, Vec<Warning>), Error> {
    let env = variables(sources, files)?;
    let read = read::Reader::new(sources, files, env);
    let mut tree = project::load(&sources.files, &read)?;
    meant::spare_others(&mut tree, sources.meant.as_deref());
    let stack = stack::resolve_leniently(tree, sources, &read)?;
    Ok((stack, read.into_warnings()))
}
