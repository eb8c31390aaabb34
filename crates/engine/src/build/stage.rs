//! One stage of a build: its instructions in order, each from the cache or carried out.

use super::{
    Build, BuildLine, Scratch,
    copy::{CopyError, Rules, Sources, Written},
    failure::BuildError,
    graph::{self, Base, Source},
    remote,
    run::StepContainer,
    tree::{self, Tree},
};
use crate::{
    error::{Error, Result},
    files::{archive::ArchiveReader, changes, commit, layers::Layers},
    spec::users,
};
use image::{
    Digest, HistoryEntry, ImageConfiguration,
    dockerfile::{self, IgnoreList, Instruction, Step, Transfer, TransferSource},
};
use rustix::fs::{AtFlags, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::mpsc;

/// Arguments every RUN sees when they are given, without being declared; they are no part of the image.
pub(super) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Tells images between steps from the finished one that may look the same.
const INTERMEDIATE: &str = "build cache";

/// A stage that has been built.
#[derive(Debug)]
pub(super) struct Done {
    /// The image that has its layers; `None` = it is empty.
    pub(super) files: Option<Digest>,
    pub(super) configuration: ImageConfiguration,
}

/// What a step changed, and what keeps it until it is in the store.
pub(super) struct Layer {
    pub(super) tar: Option<ArchiveReader>,
    pub(super) _keep: Kept,
}

/// Where the files of a new layer are.
#[expect(dead_code, reason = "held for what happens when they are dropped")]
pub(super) enum Kept {
    Container(StepContainer),
    Folder(Scratch),
    Nothing,
}

/// What files are taken from.
pub(super) enum Origin {
    Context(PathBuf),
    /// An image that has them; `None` = there are none yet.
    Image(Option<Digest>),
}

/// A stage that is being built.
pub(super) struct Stage<'a> {
    pub(super) build: &'a Build,
    at: usize,
    said: mpsc::Sender<BuildLine>,
    /// Number of its `FROM` among all steps.
    first: usize,
    total: usize,
    pub(super) files: Option<Digest>,
    pub(super) configuration: ImageConfiguration,
    /// Declared so far, with their values.
    args: BTreeMap<String, Option<String>>,
    command_set: bool,
}

/// A digest of all that a step depends on.
pub(super) struct Key(Sha256);

impl Key {
    pub(super) fn field(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.update((bytes.as_ref().len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        build: &'a Build,
        at: usize,
        said: mpsc::Sender<BuildLine>,
        first: usize,
        total: usize,
    ) -> Self {
        let (files, configuration, args) = (None, ImageConfiguration::default(), BTreeMap::new());
        Self { build, at, said, first, total, files, configuration, args, command_set: false }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        let stage = &self.build.file.stages[self.at];
        self.begins(self.first, &stage.text).await?;
        self.begin(stage.line).await?;
        self.triggers().await?;
        for (n, step) in stage.steps.iter().enumerate() {
            self.begins(self.first + n + 1, &step.text).await?;
            self.step(step).await?;
        }
        if self.at == self.build.graph.target && !self.build.options.labels.is_empty() {
            let pairs = self.build.options.labels.clone().into_iter().collect();
            let instruction = Instruction::Label(pairs);
            let text = described(&instruction, &[]);
            self.begins(self.total, &text).await?;
            self.configure(&instruction, stage.line)?;
            self.settled().await?;
        }
        let done = Done { files: self.files, configuration: self.configuration };
        self.build.done[self.at].send_replace(Some(Arc::new(done)));
        Ok(())
    }

    async fn begins(&self, number: usize, text: &str) -> Result<()> {
        self.tell(BuildLine::Step { number, total: self.total, text: text.to_owned() }).await
    }

    pub(super) async fn say(&self, text: impl Into<String>) -> Result<()> {
        self.tell(BuildLine::Note(text.into())).await
    }

    pub(super) async fn tell(&self, line: BuildLine) -> Result<()> {
        Ok(self.said.send(line).await.map_err(|_| BuildError::Abandoned)?)
    }

    /// Begins with what `FROM` names.
    async fn begin(&mut self, line: usize) -> Result<()> {
        match &self.build.graph.bases[self.at] {
            Base::Scratch => {
                let platform = self.build.options.platform.clone().unwrap_or_default();
                self.configuration.os = platform.os;
                self.configuration.architecture = platform.architecture;
                self.configuration.variant = platform.variant;
                self.say(" ---> \n").await?;
            }
            Base::Stage(other) => {
                let done = self.wait_for(*other, line).await?;
                if let Some(files) = done.files {
                    self.use_files(files).await?;
                }
                self.configuration = done.configuration.clone();
            }
            Base::Image { name, platform } => {
                let image = self.image(name, platform.as_deref(), line).await?;
                self.use_files(image.id).await?;
                self.configuration = image.config.as_ref().clone();
                // The base was committed from a container, what is built on it was not.
                self.configuration.container.clear();
                self.configuration.container_config = image::Origin::default();
                self.configuration.comment.clear();
                self.configuration.parent.clear();
                self.configuration.container.clear();
                self.say(format!(" ---> {}\n", image.id.short())).await?;
            }
        }
        let env = &mut self.configuration.config.env;
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        Ok(())
    }

    async fn wait_for(&self, stage: usize, line: usize) -> Result<Arc<Done>> {
        if !self.build.graph.needed.contains(&stage) {
            let reason =
                "a trigger of the base image needs a stage that is not built: name it in a COPY --from";
            return Err(BuildError::step("ONBUILD", line, reason).into());
        }
        let mut done = self.build.done[stage].subscribe();
        let done = done.wait_for(Option::is_some).await.map_err(|_| Error::ShuttingDown)?;
        Ok(Arc::clone(done.as_ref().expect("waited for")))
    }

    /// Returns an image, pulling it if it is not here, is for another platform, or is to be asked for.
    async fn image(&self, name: &str, platform: Option<&str>, line: usize) -> Result<image::Image> {
        let failed = |reason: String| Error::from(BuildError::step("FROM", line, reason));
        let options = &self.build.options;
        let platform = match platform {
            Some(text) => Some(text.parse().map_err(|e: image::InvalidPlatform| failed(e.to_string()))?),
            None => options.platform.clone(),
        };
        let images = &self.build.inner.images;
        let here = images.get(name).await.filter(|image| {
            platform.as_ref().is_none_or(|p: &image::Platform| p.architecture == image.config.architecture)
        });
        let is_id = name.parse::<Digest>().is_ok();
        if let Some(image) = here.filter(|_| is_id || !options.pull) {
            return Ok(image);
        }
        let reference: image::Reference = name
            .parse()
            .map_err(|e: image::InvalidReference| failed(format!("invalid reference format: {e}")))?;
        let (progress, mut steps) = mpsc::channel(64);
        let pull = image::PullOptions {
            auth: options.credentials.get(&reference.registry).cloned(),
            platform,
            registries: options.registries.clone(),
            ..image::PullOptions::default()
        };
        let show = async {
            while let Some(step) = steps.recv().await {
                // A slow client misses hints of a pull, never a line of its build.
                drop(self.said.try_send(BuildLine::Pull(step)));
            }
        };
        let (pulled, ()) = tokio::join!(images.pull(&reference, pull, progress), show);
        pulled.map_err(|e| Error::Image { operation: format!("pull {reference}"), source: e.into() })
    }

    /// Carries out what the base image asks of images built on it.
    async fn triggers(&mut self) -> Result<()> {
        let triggers = std::mem::take(&mut self.configuration.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() == 1 { "" } else { "s" };
        self.say(format!("# Executing {} build trigger{plural}\n", triggers.len())).await?;
        let line = self.build.file.stages[self.at].line;
        for text in triggers {
            let parsed = dockerfile::parse_one(&text, self.build.file.escape);
            let parsed = parsed.map_err(|error| BuildError::step("ONBUILD", line, error.reason))?;
            self.step(&Step { line, ..parsed }).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let keyword = step.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let instruction = {
            // Of the environment, else of an argument.
            let variables = self.configuration.config.variables();
            let of_environment = |name: &str| variables.get(name).map(|value| (*value).to_owned());
            let lookup = |name: &str| of_environment(name).or_else(|| self.args.get(name).cloned().flatten());
            step.instruction.expand(self.build.file.escape, &lookup)
        };
        let instruction = instruction.map_err(|reason| BuildError::step(&keyword, step.line, reason))?;
        match &instruction {
            Instruction::Arg(args) => {
                for (name, default) in args {
                    self.declare(name, default.clone());
                }
                self.note(described(&instruction, &self.configuration.config.shell()), true, None);
                self.settled().await
            }
            Instruction::Maintainer(author) => {
                self.configuration.author.clone_from(author);
                self.note(described(&instruction, &self.configuration.config.shell()), true, None);
                self.settled().await
            }
            Instruction::Workdir(_) => {
                self.check(&instruction, step.line)?;
                self.work_dir(&instruction, step).await
            }
            Instruction::Copy(transfer) => self.transfer(transfer, step, false).await,
            Instruction::Add(transfer) => self.transfer(transfer, step, true).await,
            Instruction::Run(run) => self.command(run, step).await,
            _ => {
                self.configure(&instruction, step.line)?;
                self.settled().await
            }
        }
    }

    fn declare(&mut self, name: &str, default: Option<String>) {
        let given = self.build.options.args.get(name).cloned();
        if given.is_some() {
            let mut consumed = self.build.consumed.lock().unwrap_or_else(PoisonError::into_inner);
            consumed.insert(name.to_owned());
        }
        let value = given.or(default).or_else(|| self.build.globals.get(name).cloned());
        self.args.insert(name.to_owned(), value);
    }

    fn check(&mut self, instruction: &Instruction, line: usize) -> Result<()> {
        let failed = |reason: &str| BuildError::step(described(instruction, &[]), line, reason);
        self.configuration.config.apply(instruction).map_err(failed)?;
        Ok(())
    }

    /// Carries out an instruction that is about the configuration alone.
    fn configure(&mut self, instruction: &Instruction, line: usize) -> Result<()> {
        self.check(instruction, line)?;
        let shell = self.configuration.config.shell();
        match instruction {
            Instruction::Cmd(_) => self.command_set = true,
            // An entry point of its own does not take the arguments of the base's.
            Instruction::Entrypoint(_) if !self.command_set => self.configuration.config.cmd.clear(),
            _ => {}
        }
        let shown = match instruction {
            Instruction::Cmd(_) => dockerfile_list("CMD", &self.configuration.config.cmd, &shell),
            Instruction::Entrypoint(_) => {
                dockerfile_list("ENTRYPOINT", &self.configuration.config.entrypoint, &shell)
            }
            _ => described(instruction, &shell),
        };
        self.note(shown, true, None);
        Ok(())
    }

    /// Writes a line of the history.
    fn note(&mut self, created_by: String, empty_layer: bool, created: Option<String>) {
        let created = Some(created.unwrap_or_else(|| self.now()));
        let author = self.configuration.author.clone();
        self.configuration.history.push(HistoryEntry {
            created,
            author,
            created_by,
            comment: String::new(),
            empty_layer,
        });
    }

    /// The moment every build of the same input says it happened. Source: reproducible-builds.org.
    fn epoch(&self) -> Option<OffsetDateTime> {
        epoch(self.build)
    }

    fn now(&self) -> String {
        moment(self.build)
    }

    /// Begins the key of a step on the files there are.
    pub(super) fn key(&self, kind: &str) -> Key {
        let files = self.files.map(|id| id.to_string()).unwrap_or_default();
        let epoch = self.epoch().map(|at| at.unix_timestamp().to_string()).unwrap_or_default();
        Key(Sha256::new()).field("1").field(kind).field(files).field(epoch)
    }

    /// Takes the result of an earlier build, if there is one.
    async fn cached(&mut self, key: &str, created_by: &str) -> Result<bool> {
        if self.build.options.no_cache {
            return Ok(false);
        }
        let inner = &self.build.inner;
        let Some(image) = inner.builds.get(&inner.images, key).await else { return Ok(false) };
        let before = match self.files {
            Some(id) => inner.images.by_id(&id).await.map_or(0, |image| image.layers.len()),
            None => 0,
        };
        self.note(created_by.to_owned(), image.layers.len() == before, image.config.created.clone());
        self.use_files(image.id).await?;
        self.tell(BuildLine::Cached(image.id.short().to_string())).await?;
        Ok(true)
    }

    /// Ends a step that is about the configuration alone: it is said whether an earlier build came to the same one.
    async fn settled(&mut self) -> Result<()> {
        let Some(files) = self.files else { return Ok(()) };
        let mut timeless = self.configuration.clone();
        timeless.created = None;
        timeless.history.iter_mut().for_each(|entry| entry.created = None);
        let text = serde_json::to_vec(&timeless).expect("a configuration is plain JSON");
        let key = self.key("CONFIGURATION").field(text).finish();
        let (builds, images) = (&self.build.inner.builds, &self.build.inner.images);
        if !self.build.options.no_cache && builds.get(images, &key).await.is_some() {
            return self.tell(BuildLine::Cached(files.short().to_string())).await;
        }
        builds.put(images, &key, &files, "configuration", false).await
    }

    /// Keeps what a step changed.
    async fn keep(&mut self, key: &str, created_by: String, description: &str, layer: Layer) -> Result<()> {
        let created = self.now();
        self.note(created_by, layer.tar.is_none(), Some(created.clone()));
        let images = &self.build.inner.images;
        let configuration = ImageConfiguration {
            created: Some(created),
            comment: INTERMEDIATE.to_owned(),
            ..self.configuration.clone()
        };
        let Layer { tar, _keep } = layer;
        let id = images.derive(self.files.as_ref(), tar, configuration, None).await;
        let id =
            id.map_err(|e| Error::Image { operation: "keep the layer of a step".into(), source: e.into() })?;
        self.build.inner.builds.put(images, key, &id, description, true).await?;
        self.use_files(id).await?;
        self.say(format!(" ---> {}\n", id.short())).await
    }

    /// Goes on with the files of an image, which nobody can remove while the build needs it.
    async fn use_files(&mut self, image: Digest) -> Result<()> {
        let held = self.build.inner.images.hold(&image, &self.build.holder(self.at)).await;
        held.map_err(|_| Error::NoSuchImage(image.to_string()))?;
        self.files = Some(image);
        Ok(())
    }

    /// Returns the folders of an image's layers, top first.
    pub(super) async fn lowers(&self, files: Option<Digest>) -> Result<Vec<PathBuf>> {
        let Some(id) = files else { return Ok(Vec::new()) };
        let layers = self.build.inner.images.rootfs(&id).await;
        let operation = || format!("unpack image {id}");
        Ok(layers.map_err(|e| Error::Image { operation: operation(), source: e.into() })?.dirs)
    }

    /// Finds what files are taken from; waits for the stage that makes them.
    pub(super) async fn origin(&self, from: Option<&str>, line: usize) -> Result<Origin> {
        Ok(match graph::source(&self.build.file, from, self.at) {
            Source::Context => Origin::Context(self.build.scratch.path.join("context")),
            Source::Stage(stage) => Origin::Image(self.wait_for(stage, line).await?.files),
            Source::Image(name) => Origin::Image(Some(self.image(&name, None, line).await?.id)),
        })
    }

    /// Returns the folders that a source is made of.
    pub(super) async fn source(&self, from: Option<&str>, line: usize) -> Result<Vec<PathBuf>> {
        match self.origin(from, line).await? {
            Origin::Context(folder) => Ok(vec![folder]),
            Origin::Image(files) => self.lowers(files).await,
        }
    }

    async fn work_dir(&mut self, instruction: &Instruction, step: &Step) -> Result<()> {
        let path = self.configuration.config.working_dir.clone();
        let created_by = format!("{} #(nop) WORKDIR {path}", self.configuration.config.shell().join(" "));
        let lowers = self.lowers(self.files).await?;
        let looked = path.clone();
        let there = Layers { folders: lowers.clone() };
        let exists = crate::blocking(move || {
            let found = there.find(Path::new(&looked)).map_err(Error::io("find", &looked))?;
            Ok(matches!(found, crate::files::layers::Found::Folder(_)))
        })
        .await?;
        if exists {
            self.note(created_by, true, None);
            return Ok(());
        }
        let key = self.key("WORKDIR").field(&path).finish();
        if self.cached(&key, &created_by).await? {
            return Ok(());
        }
        let failed = |reason: io::Error| {
            Error::from(BuildError::step(described(instruction, &[]), step.line, reason.to_string()))
        };
        let layer = self.write(lowers, move |target| target.make_folders(Path::new(&path), None).map(drop));
        let layer = layer.await.map_err(|e: Failed<io::Error>| e.or(failed))?;
        self.keep(&key, created_by, &step.text, layer).await
    }

    /// Lets `work` write into the files there are, and returns what it changed.
    async fn write<E: Send + 'static>(
        &self,
        lowers: Vec<PathBuf>,
        work: impl FnOnce(&Tree) -> Result<(), E> + Send + 'static,
    ) -> Result<Layer, Failed<E>> {
        let inner = &self.build.inner;
        let scratch = Scratch::new(inner, &["upper", "work"]).await.map_err(Failed::Engine)?;
        let (folder, squash, epoch) = (scratch.path.clone(), inner.userns_squash, self.epoch());
        let written = crate::blocking(move || {
            let tree = match Tree::layers(&lowers, Some(&folder), squash) {
                Ok(tree) => tree,
                Err(e) => return Err(Error::io("mount", &folder)(e)),
            };
            if let Err(e) = work(&tree) {
                return Ok(Err(e));
            }
            drop(tree);
            let upper = folder.join("upper");
            if let Some(epoch) = epoch {
                clamp_times(&upper, epoch).map_err(Error::io("set times below", &upper))?;
            }
            let folders: Vec<PathBuf> = std::iter::once(upper.clone()).chain(lowers).collect();
            changes::compare(&folders, &[]).map(Ok)
        });
        let changed = written.await.map_err(Failed::Engine)?.map_err(Failed::Work)?;
        let tar = commit::layer_of(inner, scratch.path.join("upper"), changed);
        Ok(Layer { tar, _keep: Kept::Folder(scratch) })
    }

    async fn transfer(&mut self, transfer: &Transfer, step: &Step, add: bool) -> Result<()> {
        let name = if add { "ADD" } else { "COPY" };
        let failed = |reason: String| Error::from(BuildError::step(name, step.line, reason));
        let folder = transfer.destination.ends_with('/')
            || transfer.destination.ends_with("/.")
            || transfer.destination == ".";
        let destination = match transfer.destination.starts_with('/') {
            true => tree::rooted(&transfer.destination),
            false => {
                tree::rooted(&format!("{}/{}", self.configuration.config.working_dir, transfer.destination))
            }
        };
        let lowers = self.lowers(self.files).await?;
        let mode = transfer.chmod.as_ref().map(|text| {
            let octal = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            octal.ok_or_else(|| {
                failed(format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                ))
            })
        });
        let mode = mode.transpose()?;
        let owner = match &transfer.chown {
            Some(user) => {
                // As Docker: a user alone stands for the group of that name too.
                let pair = if user.contains(':') { user.clone() } else { format!("{user}:{user}") };
                let layers = Layers { folders: lowers.clone() };
                let identity = crate::blocking(move || users::resolve(&layers, &pair, &[])).await;
                let identity = identity.map_err(|e| failed(e.to_string()))?;
                Some((identity.uid, identity.gid))
            }
            // Files of the context are root's; those of a stage keep their owners.
            None if transfer.from.is_none() => Some((0, 0)),
            None => None,
        };
        let (sources, tree, shown) = self.sources(transfer, step, add).await?;
        let digest = hex(&sources.1);
        // Docker writes no blank after it.
        let chown = transfer.chown.as_ref().map(|user| format!("--chown={user}")).unwrap_or_default();
        let created_by = format!(
            "{} #(nop) {name} {chown}{shown}:{digest} in {} ",
            self.configuration.config.shell().join(" "),
            transfer.destination
        );
        let key = self
            .key(name)
            .field(sources.1)
            .field(destination.as_os_str().as_encoded_bytes())
            .field([u8::from(folder)])
            .field(format!("{owner:?} {mode:?}"))
            .finish();
        if self.cached(&key, &created_by).await? {
            return Ok(());
        }
        let _slot = self.build.slots.acquire().await.map_err(|_| Error::ShuttingDown)?;
        let written = Written { owner, mode, squash: self.build.inner.userns_squash };
        let (gathered, downloads) = (sources.0, sources.2);
        let layer = self.write(lowers, move |target| {
            let _downloads = downloads;
            gathered.write(tree.as_ref(), target, &destination, folder, written)
        });
        let layer = layer.await.map_err(|e: Failed<CopyError>| e.or(|e| failed(e.to_string())))?;
        self.keep(&key, created_by, &step.text, layer).await
    }

    /// Finds what is to be copied: with its digest, what was downloaded for it, its tree, and the kind Docker shows.
    async fn sources(
        &self,
        transfer: &Transfer,
        step: &Step,
        add: bool,
    ) -> Result<((Sources, [u8; 32], Option<Scratch>), Option<Tree>, &'static str)> {
        let name = if add { "ADD" } else { "COPY" };
        let failed = move |line: usize, reason: String| Error::from(BuildError::step(name, line, reason));
        let line = step.line;
        let mut from = self.source(transfer.from.as_deref(), line).await?;
        let exclude = IgnoreList::new(transfer.exclude.iter().map(String::as_str));
        let rules = Rules {
            exclude: exclude.map_err(|e| failed(line, e.to_string()))?,
            parents: transfer.parents,
            unpack: add && transfer.unpack != Some(false),
        };
        let mut sources = Sources::default();
        let mut downloads = None;
        let mut paths = Vec::new();
        for source in &transfer.sources {
            match source {
                TransferSource::Inline(heredoc) => sources
                    .add_bytes(&heredoc.name, heredoc.content.clone().into_bytes())
                    .map_err(|e| failed(line, e.to_string()))?,
                TransferSource::Path(url) if add && remote::is_repository(url) => {
                    if transfer.sources.len() > 1 {
                        let reason = format!("{url}: a repository is added alone, without other sources");
                        return Err(failed(line, reason));
                    }
                    let folder = Scratch::new(&self.build.inner, &["urls"]).await?;
                    self.say(format!("Fetching {url}\n")).await?;
                    let fetched =
                        remote::fetch_repository(&self.build.inner, url, &folder.path.join("urls")).await;
                    from = vec![fetched.map_err(|e| failed(line, e.to_string()))?];
                    paths.push(".".to_owned());
                    downloads = Some(folder);
                }
                TransferSource::Path(url)
                    if add && (url.starts_with("http://") || url.starts_with("https://")) =>
                {
                    if downloads.is_none() {
                        downloads = Some(Scratch::new(&self.build.inner, &["urls"]).await?);
                    }
                    let folder = downloads.as_ref().map(|d| d.path.join("urls")).unwrap_or_default();
                    let file = folder.join(&crate::random_id()[..16]);
                    self.say(format!("Downloading {url}\n")).await?;
                    let got = self.build.inner.images.download(url, &file).await;
                    let got = got.map_err(|e| failed(line, model::with_causes(&e)))?;
                    if let Some(wanted) =
                        transfer.checksum.as_ref().filter(|wanted| **wanted != got.digest.to_string())
                    {
                        return Err(failed(
                            line,
                            format!("{url}: checksum mismatch: expected {wanted}, got {}", got.digest),
                        ));
                    }
                    if got.name.is_empty() && transfer.destination.ends_with('/') {
                        return Err(failed(line, format!("cannot determine filename for source {url}")));
                    }
                    let modified = got.modified.map(OffsetDateTime::unix_timestamp);
                    let unpack = transfer.unpack == Some(true);
                    sources
                        .add_host(&got.name, file, modified, unpack)
                        .map_err(|e| failed(line, e.to_string()))?;
                }
                TransferSource::Path(path) => paths.push(path.clone()),
            }
        }
        let owners = transfer.from.is_some() && transfer.chown.is_none();
        let squash = self.build.inner.userns_squash;
        let many = transfer.sources.len() > 1;
        let gathered = crate::blocking(move || {
            let mut tree = None;
            if !paths.is_empty() {
                tree = Some(Tree::layers(&from, None, squash).map_err(|e| failed(line, e.to_string()))?);
            }
            if let Some(tree) = &tree {
                sources.gather(tree, &paths, &rules).map_err(|e| failed(line, e.to_string()))?;
            }
            let digest = sources.digest(tree.as_ref(), owners).map_err(|e| failed(line, e.to_string()))?;
            let shown = sources.shown(many);
            Ok((sources, digest, tree, shown))
        });
        let (sources, digest, tree, shown) = gathered.await?;
        Ok(((sources, digest, downloads), tree, shown))
    }

    async fn command(&mut self, run: &dockerfile::Run, step: &Step) -> Result<()> {
        let planned = self.plan_run(run, step).await?;
        let shown = planned.shown();
        let args = self.run_arguments();
        let created_by = match args.len() {
            // As Docker: a proxy is an argument, but none that the history shows.
            0 if self.proxies().next().is_none() => shown.clone(),
            count => {
                let pairs: String = args.iter().map(|(name, value)| format!("{name}={value} ")).collect();
                format!("|{count} {pairs}{shown}")
            }
        };
        let key = planned.key(self).finish();
        if self.cached(&key, &created_by).await? {
            return Ok(());
        }
        let layer = self.run_command(planned, step).await?;
        self.keep(&key, created_by, &step.text, layer).await
    }

    /// Arguments that a RUN sees: those declared, with a value, and not hidden by the environment.
    pub(super) fn run_arguments(&self) -> Vec<(String, String)> {
        let seen = self.args.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        let variables = self.configuration.config.variables();
        seen.filter(|(name, _)| !variables.contains_key(name.as_str())).collect()
    }

    /// Proxies that were given and not declared: seen by RUN, and nowhere else.
    pub(super) fn proxies(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let undeclared = |name: &String| PREDEFINED.contains(&name.as_str()) && !self.args.contains_key(name);
        let given = self.build.options.args.iter().filter(move |(name, _)| undeclared(name));
        given.map(|(name, value)| (name.clone(), value.clone()))
    }

    pub(super) fn clamp(&self) -> Option<OffsetDateTime> {
        self.epoch()
    }
}

/// What a write came to.
enum Failed<E> {
    Engine(Error),
    Work(E),
}

impl<E> Failed<E> {
    fn or(self, work: impl FnOnce(E) -> Error) -> Error {
        match self {
            Self::Engine(error) => error,
            Self::Work(error) => work(error),
        }
    }
}

impl Done {
    /// Makes the finished image; one that an earlier build made of the same is taken as it is.
    pub(super) async fn finish(&self, build: &Build) -> Result<Digest> {
        let images = &build.inner.images;
        let mut timeless = self.configuration.clone();
        timeless.created = None;
        timeless.history.iter_mut().for_each(|entry| entry.created = None);
        timeless.rootfs = image::RootFs::default();
        let text = serde_json::to_vec(&timeless).expect("a configuration is plain JSON");
        let files = self.files.map(|id| id.to_string()).unwrap_or_default();
        let epoch = epoch(build).map(|at| at.unix_timestamp().to_string()).unwrap_or_default();
        let key = Key(Sha256::new()).field("1").field("image").field(files).field(epoch).field(text).finish();
        if !build.options.no_cache
            && let Some(image) = build.inner.builds.get(images, &key).await
        {
            return Ok(image.id);
        }
        let configuration = ImageConfiguration { created: Some(moment(build)), ..self.configuration.clone() };
        let made = images.derive(self.files.as_ref(), None::<ArchiveReader>, configuration, None).await;
        let id = made.map_err(|e| Error::Image { operation: "make the image".into(), source: e.into() })?;
        build.inner.builds.put(images, &key, &id, "image", false).await?;
        Ok(id)
    }
}

fn epoch(build: &Build) -> Option<OffsetDateTime> {
    let text = build.options.args.get("SOURCE_DATE_EPOCH")?;
    OffsetDateTime::from_unix_timestamp(text.parse().ok()?).ok()
}

fn moment(build: &Build) -> String {
    let at = epoch(build).unwrap_or_else(OffsetDateTime::now_utc);
    at.format(&Rfc3339).expect("every time of this era has an RFC 3339 form")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sets times that are later than `epoch` to it. Blocking.
pub(super) fn clamp_times(folder: &Path, epoch: OffsetDateTime) -> io::Result<()> {
    let at = Timespec { tv_sec: epoch.unix_timestamp(), tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let stat = rustix::fs::lstat(&path)?;
            if stat.st_mtime > at.tv_sec || (stat.st_mtime == at.tv_sec && stat.st_mtime_nsec > 0) {
                rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if tree::kind(&stat) == rustix::fs::FileType::Directory {
                open.push(path);
            }
        }
    }
    Ok(())
}

fn dockerfile_list(name: &str, words: &[String], shell: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("{} #(nop)  {name} [{}]", shell.join(" "), quoted.join(" "))
}

/// Returns a step as Docker's history shows it; without a shell, as a Dockerfile has it.
fn described(instruction: &Instruction, shell: &[String]) -> String {
    let pairs = |pairs: &[(String, String)]| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let text = match instruction {
        Instruction::Arg(args) => {
            let shown = args.iter().map(|(name, value)| match value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            format!("ARG {}", shown.collect::<Vec<_>>().join(" "))
        }
        Instruction::Env(list) => format!("ENV {}", pairs(list)),
        Instruction::Label(list) => format!("LABEL {}", pairs(list)),
        Instruction::Expose(ports) => format!("EXPOSE {}", ports.join(" ")),
        Instruction::Volume(paths) => format!("VOLUME [{}]", paths.join(" ")),
        Instruction::Shell(words) => format!("SHELL [{}]", words.join(" ")),
        Instruction::User(user) => format!("USER {user}"),
        Instruction::Workdir(path) => format!("WORKDIR {path}"),
        Instruction::Stopsignal(signal) => format!("STOPSIGNAL {signal}"),
        Instruction::Onbuild(trigger) => format!("ONBUILD {trigger}"),
        Instruction::Maintainer(name) => format!("MAINTAINER {name}"),
        Instruction::Healthcheck(check) => format!("HEALTHCHECK {:?}", check.test),
        Instruction::Cmd(_) => "CMD".to_owned(),
        Instruction::Entrypoint(_) => "ENTRYPOINT".to_owned(),
        Instruction::Run(_) => "RUN".to_owned(),
        Instruction::Add(_) => "ADD".to_owned(),
        Instruction::Copy(_) => "COPY".to_owned(),
    };
    if shell.is_empty() { text } else { format!("{} #(nop)  {text}", shell.join(" ")) }
}
