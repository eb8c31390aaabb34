//! `docker build`: a context and its Dockerfile become an image.
//!
//! ```text
//!   context.tar --> scratch/context       Dockerfile --> graph (pure): which stages, in which order
//!                                             |
//!             one future per needed stage, all at once; a stage waits for those it takes files from
//!                     |                                            |
//!                 copy: COPY, ADD, WORKDIR                     run: RUN, in a container of the engine
//!                     '--- changes --> a layer --> an image that the cache holds <--- '
//! ```
//!
//! A step's result is found again by a digest of what it depends on (`cache`): the image below, the command with its
//! environment, or the bytes that are copied. Steps that only change the configuration cost nothing and spoil no cache.
//!
//! *Invariants.* A build that fails or whose client goes away leaves nothing but results that the next one can use.
//! What a killed daemon leaves (`DATA_ROOT/build/tmp`, containers marked as a step's) is removed when the engine opens.
//!
//! *Source:* Docker API `ImageBuild`; Docker's Dockerfile reference.

mod agent;
pub(crate) mod cache;
mod copy;
pub(crate) mod failure;
mod graph;
mod remote;
mod run;
mod stage;
mod tree;

pub use agent::{AgentIo, SshAgents};
use cache::Cache;
pub use copy::CopyError;

use crate::{
    ask::config::{NetworkMode, Resources, SecretBytes},
    error::{Error, Result},
    inner::Inner,
    seen::container::Filters,
};
use failure::BuildError;
use graph::Graph;
use image::dockerfile::Dockerfile;
use model::{Timestamp, Ulimit};
use stage::{Done, Stage};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::AsyncRead,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::io::SyncIoBridge;
use tree::Tree;

/// *Limit* of a Dockerfile. *Unit:* bytes.
const DOCKERFILE_MAX: u64 = 4 << 20;
/// *Limit* of lines of one stage that wait for an earlier stage's to be shown.
const LINES: usize = 1024;

/// How to build. *Source:* query of Docker API `ImageBuild`.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Path in the context; empty = `Dockerfile`.
    pub dockerfile: String,
    /// What that file says, if it is not to be read from the context.
    pub dockerfile_text: Option<String>,
    /// Names the image gets.
    pub tags: Vec<image::Reference>,
    /// `--build-arg`
    pub args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Stage to build; empty = the last.
    pub target: String,
    /// `None` = this machine's.
    pub platform: Option<image::Platform>,
    /// Use no result of earlier builds.
    pub no_cache: bool,
    /// Ask registries even for images that are here.
    pub pull: bool,
    /// Network of RUN.
    pub network: NetworkMode,
    /// `host:ip`
    pub extra_hosts: Vec<String>,
    pub resources: Resources,
    pub ulimits: Vec<Ulimit>,
    /// *Unit:* bytes.
    pub shm_size_bytes: Option<u64>,
    /// For `RUN --mount=type=secret`, by id.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// For `RUN --mount=type=ssh`.
    pub ssh: Option<Arc<dyn SshAgents>>,
    /// By registry host.
    pub credentials: BTreeMap<String, image::Auth>,
    pub registries: image::RegistryOptions,
}

/// What a build says on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildLine {
    /// A step begins, counted from 1; `text` is its instruction.
    Step { number: usize, total: usize, text: String },
    /// The step's result was there already: an image, by its short id.
    Cached(String),
    /// What the builder itself says of a step, in the classic builder's words.
    Note(String),
    /// What a command writes.
    Output(String),
    /// What it writes to its standard error.
    Complaint(String),
    /// Of a base image that is pulled.
    Pull(image::Progress),
    /// The image, at the end.
    Image(image::Digest),
}

impl BuildLine {
    /// Returns a line as the classic builder shows it; `None` for what is not text.
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Self::Step { number, total, text } => format!("Step {number}/{total} : {text}\n"),
            Self::Cached(image) => format!(" ---> Using cache\n ---> {image}\n"),
            Self::Note(text) | Self::Output(text) => text.clone(),
            // In red. *Source:* moby `builder/dockerfile`, `stderrFormatter`.
            Self::Complaint(text) => format!("\x1b[91m{text}\x1b[0m"),
            Self::Pull(_) | Self::Image(_) => return None,
        })
    }
}

/// A result that builds can use again. *Source:* Docker API `BuildCache`.
#[derive(Debug, Clone)]
pub struct CachedStep {
    pub id: String,
    pub description: String,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
    pub uses: u64,
    /// *Unit:* bytes of its topmost layer.
    pub size_bytes: u64,
}

/// A folder of a running build; removed when dropped.
#[derive(Debug)]
struct Scratch {
    inner: Arc<Inner>,
    path: PathBuf,
}

impl Scratch {
    /// Makes a folder with these folders in it.
    async fn new(inner: &Arc<Inner>, folders: &'static [&'static str]) -> Result<Self> {
        let path = folder(inner).join("tmp").join(&crate::random_id()[..16]);
        let scratch = Self { inner: inner.clone(), path: path.clone() };
        crate::blocking(move || {
            for name in folders {
                let path = path.join(name);
                std::fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
            }
            Ok(())
        })
        .await?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = self.path.clone();
        self.inner.tasks.spawn_blocking(move || {
            if let Err(error) = crate::disk::folders::remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "folder of a build stays until the next start");
            }
        });
    }
}

/// Where builds keep what is theirs.
fn folder(inner: &Inner) -> PathBuf {
    inner.data_root.join("build")
}

/// Opens the cache and removes what builds of a killed daemon left. Blocking.
pub(crate) fn open(data_root: &Path) -> Result<Cache> {
    let tmp = data_root.join("build/tmp");
    crate::disk::folders::remove_tree(&tmp).map_err(Error::io("remove", &tmp))?;
    Cache::open(data_root.join("build/cache"))
}

/// One build.
struct Build {
    inner: Arc<Inner>,
    options: BuildOptions,
    file: Dockerfile,
    graph: Graph,
    scratch: Scratch,
    /// `ARG`s before the first stage, and those that are always there.
    globals: BTreeMap<String, String>,
    /// By stage.
    done: Vec<watch::Sender<Option<Arc<Done>>>>,
    /// Steps that may run at once.
    slots: Semaphore,
    /// `--build-arg`s that were asked for.
    consumed: Mutex<BTreeSet<String>>,
    /// The stage that could not be built.
    failed: Mutex<Option<usize>>,
}

impl Inner {
    pub(crate) async fn build(
        self: &Arc<Self>,
        options: BuildOptions,
        context: BuildContext,
        lines: mpsc::Sender<BuildLine>,
    ) -> Result<image::Digest> {
        let scratch = Scratch::new(self, &["context", "remote"]).await?;
        let folder = scratch.path.join("context");
        let lone = context.open(self, &folder, &scratch.path.join("remote")).await?;
        let file = match options.dockerfile_text.as_ref().or(lone.as_ref()) {
            Some(text) => Dockerfile::parse(text).map_err(BuildError::Syntax)?,
            None => {
                let file = read_dockerfile(&folder, &options.dockerfile).await?;
                hide_ignored(&folder, &options.dockerfile).await?;
                file
            }
        };
        let globals = globals(&file, &options)?;
        let graph = Graph::plan(&file, &options.target, &|name| globals.get(name).cloned())?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let build = Build {
            inner: self.clone(),
            done: file.stages.iter().map(|_| watch::Sender::new(None)).collect(),
            slots: Semaphore::new(cores),
            consumed: Mutex::default(),
            failed: Mutex::default(),
            options,
            file,
            graph,
            scratch,
            globals,
        };
        let built = build.run(&lines).await;
        // Whoever prunes after the answer finds nothing in use.
        build.release().await;
        let image = built?;
        let images = &self.images;
        for tag in &build.options.tags {
            let operation = || format!("tag the image as {tag}");
            let tagged = images.tag(&image.to_string(), tag).await;
            tagged.map_err(|e| Error::Image { operation: operation(), source: e.into() })?;
        }
        self.builds.tidy(images, self.build_cache_max()).await?;
        let mut last = vec![BuildLine::Image(image)];
        last.extend(build.unused_arguments().map(BuildLine::Note));
        last.push(BuildLine::Note(format!("Successfully built {}\n", image.short())));
        let tags = build.options.tags.iter();
        last.extend(tags.map(|tag| BuildLine::Note(format!("Successfully tagged {tag}\n"))));
        for line in last {
            lines.send(line).await.map_err(|_| BuildError::Abandoned)?;
        }
        Ok(image)
    }

    /// Returns how large the cache may be: as the operator says, else a tenth of the disk. *Unit:* bytes.
    fn build_cache_max(&self) -> u64 {
        let tenth = || {
            let disk = rustix::fs::statvfs(&self.data_root).ok()?;
            Some(disk.f_blocks.saturating_mul(disk.f_frsize) / 10)
        };
        self.defaults().build_cache_max_bytes.or_else(tenth).unwrap_or(u64::MAX)
    }

    pub(crate) fn build_cache(&self) -> Vec<CachedStep> {
        let mut steps = Vec::new();
        for (id, record) in self.builds.list().into_iter().filter(|(_, record)| record.holds) {
            steps.push(CachedStep {
                id,
                description: record.description,
                created_at: record.created_at,
                last_used_at: record.last_used_at,
                uses: record.uses,
                size_bytes: record.bytes,
            });
        }
        steps
    }

    pub(crate) async fn prune_builds(
        &self,
        filters: &Filters,
        kept_bytes: u64,
    ) -> Result<(Vec<String>, u64)> {
        self.builds.prune(&self.images, filters, kept_bytes).await
    }
}

/// What a build takes its files from.
pub enum BuildContext {
    /// A tar, compressed or not.
    Tar(Box<dyn AsyncRead + Send + Unpin>),
    /// A git repository (`https://host/name.git#branch:folder`), or the URL of a tar or of a Dockerfile.
    Remote(String),
}

impl std::fmt::Debug for BuildContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tar(_) => f.write_str("Tar"),
            Self::Remote(url) => f.debug_tuple("Remote").field(url).finish(),
        }
    }
}

impl BuildContext {
    pub fn tar(stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::Tar(Box::new(stream))
    }

    /// Fills the context's folder; returns the Dockerfile if that is all there is.
    async fn open(self, inner: &Inner, folder: &Path, downloads: &Path) -> Result<Option<String>> {
        let url = match self {
            Self::Tar(stream) => return unpack(stream, folder.to_owned()).await.map(|()| None),
            Self::Remote(url) => url,
        };
        let file = match remote::fetch(inner, &url, downloads).await? {
            remote::Fetched::Folder(found) => {
                tokio::fs::remove_dir(folder).await.map_err(Error::io("remove", folder))?;
                tokio::fs::rename(&found, folder).await.map_err(Error::io("move", &found))?;
                return Ok(None);
            }
            remote::Fetched::File(file) => file,
        };
        let archive = tokio::fs::File::open(&file).await.map_err(Error::io("open", &file))?;
        match unpack(archive, folder.to_owned()).await {
            Err(Error::Build(BuildError::NoArchive)) => {}
            other => return other.map(|()| None),
        }
        crate::blocking(move || {
            let text = std::fs::File::open(&file).and_then(|file| {
                let mut text = Vec::new();
                file.take(DOCKERFILE_MAX).read_to_end(&mut text)?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            });
            text.map(Some).map_err(Error::io("read", &file))
        })
        .await
    }
}

/// Unpacks the context; its files are this user's whoever they were.
async fn unpack(context: impl AsyncRead + Send + Unpin + 'static, into: PathBuf) -> Result<()> {
    let tar = SyncIoBridge::new(context);
    crate::blocking(move || {
        let plain = image::plain_tar(tar).map_err(|e| BuildError::Context(std::io::Error::other(e)))?;
        let plain = plain.ok_or(BuildError::NoArchive)?;
        let root = crate::files::archive::Root::of(&into).map_err(Error::io("open", &into))?;
        Ok(crate::files::archive::unpack(&root, plain, false, true, None).map_err(BuildError::Context)?)
    })
    .await
}

async fn read_dockerfile(context: &Path, named: &str) -> Result<Dockerfile> {
    let name = if named.is_empty() { "Dockerfile".to_owned() } else { named.to_owned() };
    let context = context.to_owned();
    crate::blocking(move || {
        let tree = Tree::folder(&context).map_err(Error::io("open", &context))?;
        let file = tree.open(&tree::rooted(&name), rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK);
        let file = file.map_err(|_| BuildError::NoDockerfile(name.clone()))?;
        let mut text = Vec::new();
        let read = std::fs::File::from(file).take(DOCKERFILE_MAX).read_to_end(&mut text);
        read.map_err(Error::io("read", &name))?;
        Ok(Dockerfile::parse(&String::from_utf8_lossy(&text)).map_err(BuildError::Syntax)?)
    })
    .await
}

/// Takes the Dockerfile and `.dockerignore` out of the context, if the latter says so: clients send them all the same.
/// *Source:* moby `builder/remotecontext`, `removeDockerfile`.
async fn hide_ignored(context: &Path, named: &str) -> Result<()> {
    const IGNORE: &str = ".dockerignore";
    let dockerfile = if named.is_empty() { "Dockerfile".to_owned() } else { named.to_owned() };
    let context = context.to_owned();
    crate::blocking(move || {
        let tree = Tree::folder(&context).map_err(Error::io("open", &context))?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let Ok(file) = tree.open(&tree::rooted(IGNORE), flags) else { return Ok(()) };
        let mut text = Vec::new();
        let read = std::fs::File::from(file).take(DOCKERFILE_MAX).read_to_end(&mut text);
        read.map_err(Error::io("read", IGNORE))?;
        let ignored = image::dockerfile::IgnoreList::parse(&String::from_utf8_lossy(&text))
            .map_err(|e| BuildError::Context(std::io::Error::other(e)))?;
        for name in [IGNORE, &dockerfile] {
            let path = tree::rooted(name);
            let relative = path.strip_prefix("/").unwrap_or(&path);
            if ignored.ignores(&relative.to_string_lossy()) {
                tree.remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    })
    .await
}

/// What a `FROM` can use, and what a stage gets when it declares it again.
fn globals(file: &Dockerfile, options: &BuildOptions) -> Result<BTreeMap<String, String>> {
    let ours = image::Platform::default();
    let target = options.platform.clone().unwrap_or_default();
    let mut globals = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &ours), ("TARGET", &target)] {
        globals.insert(format!("{prefix}PLATFORM"), platform.to_string());
        globals.insert(format!("{prefix}OS"), platform.os.clone());
        globals.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        globals.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    for step in &file.globals {
        let failed = |reason| BuildError::step("ARG", step.line, reason);
        let lookup = |name: &str| globals.get(name).cloned();
        let image::dockerfile::Instruction::Arg(args) =
            step.instruction.expand(file.escape, &lookup).map_err(failed)?
        else {
            continue;
        };
        for (name, default) in args {
            if let Some(value) = options.args.get(&name).cloned().or(default) {
                globals.insert(name, value);
            }
        }
    }
    Ok(globals)
}

/// A build that is given up lets go of its images too.
impl Drop for Build {
    fn drop(&mut self) {
        self.inner.tasks.spawn(self.release());
    }
}

impl Build {
    /// Builds all needed stages and returns the target's image.
    async fn run(&self, lines: &mpsc::Sender<BuildLine>) -> Result<image::Digest> {
        let extra = usize::from(!self.options.labels.is_empty());
        let count = |at: &usize| 1 + self.file.stages[*at].steps.len();
        let total = self.graph.needed.iter().map(count).sum::<usize>() + extra;
        let mut first = 1;
        let (mut stages, mut outputs) = (Vec::new(), Vec::new());
        for at in &self.graph.needed {
            let (said, output) = mpsc::channel(LINES);
            let stage = Stage::new(self, *at, said, first, total);
            stages.push(async move {
                let built = stage.run().await;
                if built.is_err() {
                    *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(*at);
                }
                built
            });
            outputs.push((*at, output));
            first += count(at);
        }
        // Stage by stage, as if they ran one after the other.
        let show = async move {
            for (at, mut output) in outputs {
                // After a failure only the stages before it are worth reading.
                if self.failed().is_some_and(|failed| at > failed) {
                    return;
                }
                while let Some(line) = output.recv().await {
                    if lines.send(line).await.is_err() {
                        return;
                    }
                }
            }
        };
        let (built, ()) = tokio::join!(futures::future::try_join_all(stages), show);
        built?;
        let target = self.done[self.graph.target].borrow().clone();
        target.expect("its stage has ended well").finish(self).await
    }

    /// Lets go of what the stages build on.
    fn release(&self) -> impl Future<Output = ()> + Send + use<> {
        let holders: Vec<String> = self.graph.needed.iter().map(|stage| self.holder(*stage)).collect();
        let images = self.inner.images.clone();
        async move {
            for holder in holders {
                images.release(&holder).await;
            }
        }
    }

    /// Under which name the image store keeps what a stage builds on.
    fn holder(&self, stage: usize) -> String {
        format!("build:{}:{stage}", self.scratch.path.file_name().unwrap_or_default().to_string_lossy())
    }

    fn failed(&self) -> Option<usize> {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unused_arguments(&self) -> Option<String> {
        let consumed = self.consumed.lock().unwrap_or_else(PoisonError::into_inner);
        let global = |name: &String| {
            self.file.globals.iter().any(|step| matches!(&step.instruction, image::dockerfile::Instruction::Arg(args) if args.iter().any(|(n, _)| n == name)))
        };
        let known = |name: &String| {
            consumed.contains(name) || global(name) || stage::PREDEFINED.contains(&name.as_str())
        };
        let unused: Vec<&str> = self.options.args.keys().filter(|n| !known(n)).map(String::as_str).collect();
        let text = format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "));
        (!unused.is_empty()).then_some(text)
    }
}
