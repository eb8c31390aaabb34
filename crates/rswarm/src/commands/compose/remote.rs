//! Projects that a registry keeps, as `oci://REGISTRY/REPOSITORY[:TAG]`: how they are put there, and fetched for reading.
//!
//! A project is an OCI manifest whose layers are its files, under Docker Compose's media types: either reads what the
//! other published. What was fetched is kept below the person's cache, by its digest.
//!
//! Source: docker/compose `internal/oci/push.go`, `pkg/remote/oci.go`; OCI image-spec `manifest.md`.

use super::surroundings::Surroundings;
use crate::{cli::ProjectArgs, commands::credentials::Credentials, list::List, output};
use anyhow::{Context, Result, bail};
use compose::{Files, OCI_PREFIX};
use image::{Auth, Digest, Manifest, Reference, RegistryOptions, Repository};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

const PROJECT: &str = "application/vnd.docker.compose.project";
const FILE: &str = "application/vnd.docker.compose.file+yaml";
const ENV_FILE: &str = "application/vnd.docker.compose.envfile";
/// Of the configuration where a registry knows no types of artifacts.
const CONFIG_1_0: &str = "application/vnd.docker.compose.config.empty.v1+json";
const CONFIG_1_1: &str = "application/vnd.oci.empty.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OF_FILE: &str = "com.docker.compose.file";
const OF_ENV_FILE: &str = "com.docker.compose.envfile";
const OF_EXTENDS: &str = "com.docker.compose.extends";
const VERSION: &str = "com.docker.compose.version";
/// *Unit:* bytes of one file, and of all of a project.
const FILE_MAX: u64 = 4 << 20;
const ALL_MAX: u64 = 64 << 20;
/// How many files a project may have.
const FILES_MAX: usize = 256;
/// Turns off what this is for. Source: docker/compose `pkg/remote/oci.go`.
const ENABLED: &str = "COMPOSE_EXPERIMENTAL_OCI_REMOTE";

/// Which form a manifest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V1_0,
    V1_1,
}

/// A file of a project, as it is published.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    media_type: &'static str,
    annotations: BTreeMap<&'static str, String>,
    content: Vec<u8>,
}

impl Layer {
    /// A compose file; `extended`: one that others take services from, under this name.
    pub(super) fn file(name: &str, content: Vec<u8>, extended: bool) -> Self {
        let mut layer = Self::of(FILE, OF_FILE, name, content);
        if extended {
            layer.annotations.insert(OF_EXTENDS, "true".to_owned());
        }
        layer
    }

    pub(super) fn env_file(name: &str, content: Vec<u8>) -> Self {
        Self::of(ENV_FILE, OF_ENV_FILE, name, content)
    }

    fn of(media_type: &'static str, key: &'static str, name: &str, content: Vec<u8>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { media_type, annotations: [(VERSION, version), (key, name.to_owned())].into(), content }
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type, "digest": Digest::of(&self.content).to_string(),
            "size": self.content.len(), "annotations": self.annotations,
        })
    }
}

/// Puts a project into a registry; where no form is asked for, the older one if the registry does not take the newer.
///
/// # Errors
/// The registry cannot be reached, or refuses.
pub(super) async fn publish(
    reference: &Reference,
    layers: &[Layer],
    form: Option<Form>,
    insecure: &[String],
) -> Result<()> {
    let repository = open(reference, true, insecure).await?;
    for layer in layers {
        repository.put_blob(layer.content.clone().into()).await?;
    }
    repository.put_blob(b"{}".to_vec().into()).await?;
    let put = repository.put_manifest(&manifest(layers, form.unwrap_or(Form::V1_1))).await;
    match put {
        Err(image::Error::Registry { status, .. })
            if form.is_none() && (400..500).contains(&status) && ![401, 403, 407].contains(&status) =>
        {
            Ok(repository.put_manifest(&manifest(layers, Form::V1_0)).await?)
        }
        put => Ok(put?),
    }
}

fn manifest(layers: &[Layer], form: Form) -> Manifest {
    let created =
        time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let created = created.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let config = match form {
        Form::V1_0 => CONFIG_1_0,
        Form::V1_1 => CONFIG_1_1,
    };
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": config, "digest": Digest::of(b"{}").to_string(), "size": 2, "data": "e30="},
        "layers": layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        "annotations": {"org.opencontainers.image.created": created},
    });
    if form == Form::V1_1 {
        document["artifactType"] = json!(PROJECT);
    }
    Manifest::new(MANIFEST, document.to_string().into_bytes().into())
}

async fn open(reference: &Reference, writes: bool, insecure: &[String]) -> Result<Repository> {
    let name = reference.canonical();
    let account = Credentials::read()?.of_image(&reference.to_string())?;
    let auth = account.and_then(|account| match account {
        a if !a.identity_token.is_empty() => Some(Auth::Identity(a.identity_token)),
        a if !a.registry_token.is_empty() => Some(Auth::Bearer(a.registry_token)),
        a if !a.username.is_empty() => Some(Auth::Basic { username: a.username, password: a.password }),
        _ => None,
    });
    let options = RegistryOptions { insecure: insecure.to_vec(), ..RegistryOptions::default() };
    Repository::open(reference, writes, auth, &options).await.with_context(|| format!("cannot reach {name}"))
}

/// The files of this machine, and those of registries.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    /// Registries without (verified) TLS.
    pub(super) insecure: Vec<String>,
}

impl Files for Reach {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        compose::Disk.read(path)
    }

    fn fetch(&self, url: &str) -> io::Result<PathBuf> {
        // Reading files is not a thing that waits: this one has a thread and a runtime to itself, and whoever asks for it
        // has nothing else to do meanwhile.
        let fetching = || -> Result<PathBuf> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(fetch(url, &self.insecure))
        };
        let fetched = std::thread::scope(|scope| scope.spawn(fetching).join());
        let fetched = fetched.map_err(|_| io::Error::other("fetching it panicked"))?;
        fetched.map_err(|error| io::Error::other(format!("{error:#}")))
    }
}

/// Is it a project of a registry?
pub(super) fn is_remote(file: &Path) -> bool {
    file.to_str().is_some_and(|text| text.starts_with(OCI_PREFIX))
}

/// Says where a project of a registry is now, and asks whether what it takes from here may go into it. Source:
/// docker/compose `cmd/compose/options.go`, `checksForRemoteStack`.
///
/// # Errors
/// Nobody agreed.
pub(super) fn agree(of: &ProjectArgs, yes: bool) -> Result<()> {
    let around = Surroundings::read(of)?;
    let files = around.files()?;
    let Some(url) = files.first().filter(|file| is_remote(file)) else { return Ok(()) };
    let sources = around.sources(&files)?;
    let folder = sources.files.first().and_then(|(file, _)| file.parent()).unwrap_or(Path::new("/"));
    output::progress(&format!("Your compose stack {:?} is stored in {folder:?}", url.display().to_string()));
    let mentioned = compose::mentioned(&sources)?;
    if yes || mentioned.is_empty() {
        return Ok(());
    }
    let mut table = List::new(&[
        ("VARIABLE", "Name"),
        ("VALUE", "Value"),
        ("SOURCE", "Source"),
        ("REQUIRED", "Required"),
        ("DEFAULT", "Default"),
    ]);
    let env = compose::variables(&sources, &around.reach())?;
    for variable in mentioned.into_values() {
        let (value, source) = match env.get(&variable.name) {
            Some(value) => (value.clone(), "environment"),
            None if !variable.default.is_empty() => (variable.default.clone(), "compose file"),
            None => ("<unset>".to_owned(), "none"),
        };
        let required = if variable.required { "yes" } else { "no" };
        table.row(vec![variable.name, value, source.to_owned(), required.to_owned(), variable.default]);
    }
    output::line(&format!("\nFound the following variables in configuration:\n{}", table.table()))?;
    output::prompt("\nDo you want to proceed with these variables? [Y/n]: ")?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    // Where nobody can be asked nobody has agreed.
    if read == 0 || !matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes") {
        bail!("operation cancelled by user");
    }
    Ok(())
}

/// Fetches a project, unless it is here already; returns its compose file.
async fn fetch(url: &str, insecure: &[String]) -> Result<PathBuf> {
    if std::env::var(ENABLED).is_ok_and(|value| matches!(value.as_str(), "0" | "f" | "false" | "False")) {
        bail!("OCI remote resource is disabled by {ENABLED:?}");
    }
    let name = url.strip_prefix(OCI_PREFIX).unwrap_or(url);
    let reference: Reference =
        name.parse().with_context(|| format!("{url}: not the name of a repository"))?;
    let repository = open(&reference, false, insecure).await?;
    let failed = || format!("failed to pull OCI resource {:?}", reference.canonical());
    let mut manifest = repository.manifest(None).await.with_context(failed)?;
    let folder = cache()?.join(manifest.digest.to_string().replace(':', "-"));
    let file = folder.join("compose.yaml");
    if file.is_file() {
        return Ok(file);
    }
    if manifest.is_index() {
        let index: Value = serde_json::from_slice(&manifest.bytes).with_context(failed)?;
        let of_project = |entry: &&Value| entry["artifactType"].as_str() == Some(PROJECT);
        let entry = index["manifests"].as_array().into_iter().flatten().find(of_project);
        let entry = entry.with_context(|| format!("OCI index {url} doesn't refer to compose artifacts"))?;
        manifest = repository.manifest(Some(digest(entry)?)).await.with_context(failed)?;
    }
    let document: Value = serde_json::from_slice(&manifest.bytes).with_context(failed)?;
    let kind = document["artifactType"].as_str().unwrap_or_default();
    let config = document["config"]["mediaType"].as_str().unwrap_or_default();
    if kind != PROJECT && !(kind.is_empty() && config == CONFIG_1_0) {
        bail!(
            "{url} is not a compose project OCI artifact, but {:?}",
            if kind.is_empty() { config } else { kind }
        );
    }
    let files = files(&repository, &document).await.with_context(failed)?;
    keep(&folder, &files).with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(file)
}

/// Returns the files of a project, by their names. Those of the project itself are documents of one.
async fn files(repository: &Repository, document: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
    let layers = document["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if layers.len() > FILES_MAX {
        bail!("it has {} files, and a project may have {FILES_MAX}", layers.len());
    }
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut all = 0;
    for layer in layers {
        let (size, note) = (layer["size"].as_u64().unwrap_or(u64::MAX), &layer["annotations"]);
        all += size.min(ALL_MAX);
        if size > FILE_MAX || all > ALL_MAX {
            bail!("a file has at most {FILE_MAX} bytes, and all of a project {ALL_MAX}");
        }
        let name = match layer["mediaType"].as_str().unwrap_or_default() {
            FILE if note[OF_EXTENDS].is_null() => "compose.yaml",
            FILE => note[OF_FILE].as_str().unwrap_or_default(),
            ENV_FILE => note[OF_ENV_FILE].as_str().unwrap_or_default(),
            _ => continue,
        };
        // It is somebody else's word: it names a file of this folder, and no other.
        if name.is_empty() || name.contains(['/', '\\', '\0']) || matches!(name, "." | "..") {
            bail!("invalid OCI artifact: {name:?} is no name of a file");
        }
        let content = repository.blob(&digest(layer)?, size).await?;
        let file = files.entry(name.to_owned()).or_default();
        if name == "compose.yaml" && !file.is_empty() {
            file.extend_from_slice(b"\n---\n");
        }
        file.extend_from_slice(&content);
    }
    if !files.contains_key("compose.yaml") {
        bail!("invalid OCI artifact: it has no compose file");
    }
    Ok(files)
}

fn digest(descriptor: &Value) -> Result<Digest> {
    let text = descriptor["digest"].as_str().unwrap_or_default();
    text.parse().with_context(|| format!("{text:?} is no digest"))
}

/// Writes the files into a folder that is there with all of them, or not at all.
fn keep(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let parent = folder.parent().context("a folder")?;
    fs::create_dir_all(parent)?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    for (name, content) in files {
        let mut file = fs::File::create_new(new.path().join(name))?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    let new = new.keep();
    match fs::rename(&new, folder) {
        Ok(()) => Ok(()),
        // Somebody else was faster: what has this digest is the same.
        Err(_) if folder.join("compose.yaml").is_file() => Ok(fs::remove_dir_all(&new)?),
        Err(error) => {
            drop(fs::remove_dir_all(&new));
            Err(error.into())
        }
    }
}

/// Source: XDG Base Directory Specification.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("rswarm/compose"))
}
