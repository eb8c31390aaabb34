//! RUN: a command in a container on the files there are; what it changed is the layer.

use super::{
    BuildLine, Scratch, agent,
    copy::{Rules, Sources, Written},
    failure::BuildError,
    stage::{Kept, Key, Layer, Origin, Stage, clamp_times},
    tree,
};
use crate::{
    ask::config::{
        BuildStep, ContainerConfig, ContainerFile, Healthcheck, HostConfig, LayerMount, LogConfig, Mount,
        MountKind as EngineMount, NetworkMode,
    },
    error::{Error, Result},
    files::{
        changes, commit,
        layers::{Found, Layers},
    },
    inner::Inner,
    life::{
        attach,
        command::Command,
        create,
        streams::{AttachOptions, Wanted},
    },
    seen::{
        container::{RemoveOptions, WaitCondition},
        waiting::Waiting,
    },
};
use image::dockerfile::{CommandLine, MountKind, Run, RunMount, Sharing, Step};
use sha2::{Digest as _, Sha256};
use std::{
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard},
    task::JoinSet,
};

/// The container of a step; removed when dropped.
pub(super) struct StepContainer {
    inner: Arc<Inner>,
    id: String,
}

impl Drop for StepContainer {
    fn drop(&mut self) {
        let (inner, id) = (self.inner.clone(), self.id.clone());
        self.inner.tasks.spawn(async move {
            let options = RemoveOptions { force: true, volumes: true };
            if let Err(error) = inner.remove(&id, options).await {
                tracing::warn!(container.id = %id, %error, "container of a build step stays until the next start");
            }
        });
    }
}

/// A command that is ready to run.
pub(super) struct Planned {
    argv: Vec<String>,
    /// Script of a here-document with a `#!` line: name and content.
    script: Option<(String, String)>,
    mounts: Vec<RunMount>,
    env: Vec<String>,
    network: NetworkMode,
    /// What its bind mounts show, and its caches begin with.
    inputs: Vec<String>,
}

impl Planned {
    /// Returns it as Docker's history and errors show it.
    pub(super) fn shown(&self) -> String {
        self.argv.join(" ")
    }

    /// What the result depends on: not what caches, secrets and proxies hold.
    pub(super) fn key(&self, stage: &Stage<'_>) -> Key {
        let config = &stage.configuration.config;
        let mut key = stage.key("RUN").field(format!("{:?}", self.argv)).field(format!("{:?}", self.env));
        key = key.field(&config.user).field(&config.working_dir).field(self.network.to_string());
        key = key.field(format!("{:?}", self.script)).field(format!("{:?}", self.mounts));
        self.inputs.iter().fold(key, Key::field)
    }
}

/// Everything of a command's mounts: what the container is told, and what must live until it has ended.
#[derive(Default)]
struct Mounts {
    layers: Vec<LayerMount>,
    binds: Vec<Mount>,
    tmpfs: Vec<(String, String)>,
    files: Vec<ContainerFile>,
    env: Vec<String>,
    targets: Vec<String>,
    scratches: Vec<Scratch>,
    /// Of caches, against being pruned and, where the mount asks for it, against others.
    shared: Vec<OwnedRwLockReadGuard<()>>,
    locks: Vec<OwnedRwLockWriteGuard<()>>,
    agents: JoinSet<()>,
}

impl Stage<'_> {
    /// Works out what is executed.
    pub(super) async fn plan_run(&self, run: &Run, step: &Step) -> Result<Planned> {
        let mut script = None;
        let config = &self.configuration.config;
        let argv = match (&run.command, &run.heredocs[..]) {
            // `RUN <<EOF`: the document is the script.
            (CommandLine::Shell(text), [only]) if is_mark(text) => {
                if only.content.starts_with("#!") {
                    script = Some((only.name.clone(), only.content.clone()));
                    vec![format!("/dev/pipes/{}", only.name)]
                } else {
                    config.command(&CommandLine::Shell(only.content.clone()))
                }
            }
            (CommandLine::Shell(text), documents) => {
                let documents = documents.iter().map(|d| format!("\n{}{}", d.content, d.name));
                config.command(&CommandLine::Shell(text.clone() + &documents.collect::<String>()))
            }
            (command, _) => config.command(command),
        };
        if argv.is_empty() {
            return Err(BuildError::step("RUN", step.line, "a command is needed").into());
        }
        let mut env = config.env.clone();
        env.extend(self.run_arguments().into_iter().map(|(name, value)| format!("{name}={value}")));
        let network = match run.network.as_deref() {
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            _ => self.build.options.network.clone(),
        };
        let mut inputs = Vec::new();
        for mount in run.mounts.iter().filter(|m| m.kind == MountKind::Bind || m.from.is_some()) {
            inputs.push(self.bind_input(mount, step).await?);
        }
        let mut mounts = run.mounts.clone();
        // Caches are locked in one order everywhere: no two commands wait for each other's.
        mounts.sort_by_key(|mount| (mount.kind == MountKind::Cache, mount.id.clone(), mount.target.clone()));
        Ok(Planned { argv, script, mounts, env, network, inputs })
    }

    /// Returns what the content of a bind mount is known by: a digest of files of the context, else the image that has
    /// them.
    async fn bind_input(&self, mount: &RunMount, step: &Step) -> Result<String> {
        let source = mount.source.clone().unwrap_or_else(|| "/".to_owned());
        match self.origin(mount.from.as_deref(), step.line).await? {
            Origin::Image(files) => Ok(format!("{files:?} {source}")),
            Origin::Context(folder) => {
                let line = step.line;
                let failed =
                    move |e: super::CopyError| Error::from(BuildError::step("RUN", line, e.to_string()));
                crate::blocking(move || {
                    let tree = tree::Tree::folder(&folder).map_err(Error::io("open", &folder))?;
                    let mut sources = Sources::default();
                    sources
                        .gather(&tree, std::slice::from_ref(&source), &Rules::default())
                        .map_err(failed)?;
                    let digest = sources.digest(Some(&tree), false).map_err(failed)?;
                    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
                })
                .await
            }
        }
    }

    /// Runs it and returns what it changed.
    pub(super) async fn run_command(&self, planned: Planned, step: &Step) -> Result<Layer> {
        let Some(files) = self.files else {
            let reason = "the stage is empty (FROM scratch): there is no program to run; COPY one first";
            return Err(BuildError::step("RUN", step.line, reason).into());
        };
        let inner = &self.build.inner;
        let lowers = self.lowers(Some(files)).await?;
        let mut mounts = Mounts::default();
        for mount in &planned.mounts {
            self.mount(mount, step, &mut mounts).await?;
        }
        if let Some((name, content)) = &planned.script {
            self.script(name, content, &mut mounts).await?;
        }
        // Only now: whoever waits for another stage or for a cache must not keep that stage from running.
        let _slot = self.build.slots.acquire().await.map_err(|_| Error::ShuttingDown)?;
        let shown = planned.shown();
        let config = self.container(files, planned, &mounts);
        let id = create::create(inner, config).await?.id;
        let container = StepContainer { inner: inner.clone(), id: id.clone() };
        self.say(format!(" ---> Running in {}\n", &id[..12])).await?;
        let ended = Waiting::begin(inner, &id, WaitCondition::NextExit)?;
        let wanted = Wanted { stdin: false, stdout: true, stderr: true };
        let streams = attach::attach(inner, &id, AttachOptions { streams: wanted }).await?;
        let started = inner.ask(&id, Command::Start).await;
        started.map_err(|e| BuildError::step("RUN", step.line, e.to_string()))?;
        tokio::try_join!(
            self.relay(streams.stdout, BuildLine::Output),
            self.relay(streams.stderr, BuildLine::Complaint)
        )?;
        let exit = ended.exit().await;
        if exit.code != 0 {
            return Err(BuildError::Command { command: shown, code: exit.code }.into());
        }
        let upper = inner.container_dir(&id).join("upper");
        let (targets, epoch) = (mounts.targets, self.clamp());
        crate::blocking(move || {
            for target in &targets {
                remove_stub(&upper, &lowers, target).map_err(Error::io("tidy up", target))?;
            }
            match epoch {
                Some(epoch) => clamp_times(&upper, epoch).map_err(Error::io("set times below", &upper)),
                None => Ok(()),
            }
        })
        .await?;
        let seen = inner.inspect(&id)?;
        let changed = changes::changes(inner, &seen).await?;
        let upper = inner.container_dir(&id).join("upper");
        let tar = commit::layer_of(inner, upper, changed);
        self.say(format!(" ---> Removed intermediate container {}\n", &id[..12])).await?;
        Ok(Layer { tar, _keep: Kept::Container(container) })
    }

    fn container(&self, files: image::Digest, planned: Planned, mounts: &Mounts) -> ContainerConfig {
        let options = &self.build.options;
        let config = &self.configuration.config;
        let mut env = planned.env;
        env.extend(self.proxies().map(|(name, value)| format!("{name}={value}")));
        env.extend(mounts.env.iter().cloned());
        ContainerConfig {
            image: files.to_string(),
            entrypoint: Some(vec![String::new()]),
            cmd: Some(planned.argv),
            env,
            user: Some(config.user.clone()),
            working_dir: Some(config.working_dir.clone()).filter(|dir| !dir.is_empty()),
            healthcheck: Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() }),
            host: HostConfig {
                network_mode: planned.network,
                extra_hosts: options.extra_hosts.clone(),
                resources: options.resources.clone(),
                ulimits: options.ulimits.clone(),
                shm_size_bytes: options.shm_size_bytes,
                log: LogConfig { driver: "none".into(), ..LogConfig::default() },
                mounts: mounts.binds.clone(),
                tmpfs: mounts.tmpfs.iter().cloned().collect(),
                files: mounts.files.clone(),
                build: Some(BuildStep { mounts: mounts.layers.clone() }),
                ..HostConfig::default()
            },
            ..ContainerConfig::default()
        }
    }

    /// Shows what the command says.
    async fn relay(
        &self,
        stream: Option<impl AsyncRead + Unpin>,
        line: fn(String) -> BuildLine,
    ) -> Result<()> {
        let Some(mut stream) = stream else { return Ok(()) };
        let mut buffer = vec![0; 16 << 10];
        let mut held = Vec::new();
        loop {
            let count =
                stream.read(&mut buffer).await.map_err(Error::io("read", "output of a build step"))?;
            held.extend_from_slice(&buffer[..count]);
            // A character may be cut in two.
            let whole = match std::str::from_utf8(&held) {
                Err(e) if e.error_len().is_none() && count > 0 => e.valid_up_to(),
                _ => held.len(),
            };
            if whole > 0 {
                self.tell(line(String::from_utf8_lossy(&held[..whole]).into_owned())).await?;
                held.drain(..whole);
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Shows the command something of the engine's own.
    fn bind(&self, source: &Path, target: &str, read_only: bool) -> Mount {
        let source = source.display().to_string();
        let idmap = self.build.inner.userns_remap.is_some();
        let kind = EngineMount::Bind {
            source,
            propagation: None,
            create: false,
            recursion: Default::default(),
            idmap,
        };
        Mount { target: target.to_owned(), read_only, kind }
    }

    async fn script(&self, name: &str, content: &str, mounts: &mut Mounts) -> Result<()> {
        let scratch = Scratch::new(&self.build.inner, &["script"]).await?;
        let path = scratch.path.join("script").join("text");
        let (file, content) = (path.clone(), content.to_owned());
        crate::blocking(move || {
            std::fs::write(&file, content).map_err(Error::io("write", &file))?;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&file, mode).map_err(Error::io("chmod", &file))
        })
        .await?;
        mounts.binds.push(self.bind(&path, &format!("/dev/pipes/{name}"), true));
        mounts.scratches.push(scratch);
        Ok(())
    }

    async fn mount(&self, mount: &RunMount, step: &Step, mounts: &mut Mounts) -> Result<()> {
        let failed = |reason: String| Error::from(BuildError::step("RUN", step.line, reason));
        let working_dir = &self.configuration.config.working_dir;
        let absolute = |path: &str| match path.starts_with('/') {
            true => tree::rooted(path),
            false => tree::rooted(&format!("{working_dir}/{path}")),
        };
        let target = mount.target.as_deref().map(|path| absolute(path).display().to_string());
        match mount.kind {
            MountKind::Tmpfs => {
                let size = mount.size_bytes.map(|size| format!(",size={size}")).unwrap_or_default();
                let target = target.unwrap_or_default();
                mounts.targets.push(target.clone());
                mounts.tmpfs.push((target, format!("exec{size}")));
            }
            MountKind::Secret => {
                let id = mount.id.clone().or_else(|| mount.source.clone());
                let named = target.as_deref().and_then(|t| t.rsplit('/').next()).map(str::to_owned);
                let id = id.or(named).ok_or_else(|| failed("a secret needs an id or a target".into()))?;
                let Some(content) = self.build.options.secrets.get(&id) else {
                    return if mount.required {
                        Err(failed(format!("secret {id}: not found")))
                    } else {
                        Ok(())
                    };
                };
                if let Some(name) = &mount.env {
                    let text = String::from_utf8(content.0.to_vec());
                    let text = text
                        .map_err(|_| failed(format!("secret {id} is no text: it fits into no variable")))?;
                    mounts.env.push(format!("{name}={text}"));
                }
                if mount.env.is_none() || target.is_some() {
                    let target = target.unwrap_or_else(|| format!("/run/secrets/{id}"));
                    mounts.targets.push(target.clone());
                    mounts.files.push(ContainerFile {
                        target,
                        uid: mount.uid,
                        gid: mount.gid,
                        mode: mount.mode.unwrap_or(0o400),
                        content: content.clone(),
                    });
                }
            }
            MountKind::Ssh => self.ssh(mount, target, mounts).await.map_err(|e| failed(e.to_string()))?,
            MountKind::Cache => {
                let target = target.unwrap_or_default();
                let folder = self.cache_folder(mount, &target, step, mounts).await?;
                mounts.targets.push(target.clone());
                mounts.binds.push(self.bind(&folder, &target, mount.writable == Some(false)));
            }
            MountKind::Bind => {
                let target = target.unwrap_or_default();
                let folders = self.source(mount.from.as_deref(), step.line).await?;
                let source = tree::rooted(mount.source.as_deref().unwrap_or("/"));
                let layers = Layers { folders };
                let looked = source.clone();
                let found =
                    crate::blocking(move || layers.find(&looked).map_err(Error::io("find", &looked))).await?;
                mounts.targets.push(target.clone());
                match found {
                    Found::Missing => {
                        return Err(failed(format!("{}: no such file or directory", source.display())));
                    }
                    Found::Other(file) => mounts.binds.push(self.bind(&file, &target, true)),
                    Found::Folder(lowers) => {
                        let mut scratch = None;
                        if mount.writable == Some(true) {
                            let made = Scratch::new(&self.build.inner, &["upper", "work"]).await?;
                            scratch = Some(made.path.clone());
                            mounts.scratches.push(made);
                        }
                        mounts.layers.push(LayerMount { target, lowers, scratch });
                    }
                }
            }
        }
        Ok(())
    }

    /// Lends the command an SSH agent of the client, if there is one.
    async fn ssh(&self, mount: &RunMount, target: Option<String>, mounts: &mut Mounts) -> Result<()> {
        let id = mount.id.clone().unwrap_or_else(|| "default".to_owned());
        let agents = match &self.build.options.ssh {
            Some(agents) if agents.has(&id).await.map_err(Error::io("ask for SSH agent", &id))? => agents,
            _ if mount.required => {
                let reason = format!("the client lends no SSH agent {id}: build with --ssh {id}");
                return Err(Error::invalid(reason));
            }
            _ => return Ok(()),
        };
        let scratch = Scratch::new(&self.build.inner, &["ssh"]).await?;
        let path = scratch.path.join("ssh").join("agent");
        let squash = self.build.inner.userns_squash;
        let owner = (mount.uid, mount.gid);
        let target = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{}", mounts.agents.len()));
        if mounts.agents.is_empty() {
            mounts.env.push(format!("SSH_AUTH_SOCK={target}"));
        }
        let mode = mount.mode.unwrap_or(0o600);
        agent::lend(&mut mounts.agents, Arc::clone(agents), id, &path, owner, mode, squash)?;
        mounts.targets.push(target.clone());
        mounts.binds.push(self.bind(&path, &target, false));
        mounts.scratches.push(scratch);
        Ok(())
    }

    /// Returns the folder of a cache mount, locked as the mount asks for.
    async fn cache_folder(
        &self,
        mount: &RunMount,
        target: &str,
        step: &Step,
        mounts: &mut Mounts,
    ) -> Result<PathBuf> {
        let mut id = mount.id.as_deref().unwrap_or(target).to_owned();
        if mount.from.is_some() {
            // What it begins with is part of what it is.
            id = format!("{id}\0{}", self.bind_input(mount, step).await?);
        }
        let name: String = Sha256::digest(id).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let root = super::folder(&self.build.inner).join("mounts");
        let builds = &self.build.inner.builds;
        let mut folder = root.join(&name);
        match mount.sharing {
            Sharing::Shared => mounts.shared.push(builds.gate(&folder).read_owned().await),
            Sharing::Locked => mounts.locks.push(builds.gate(&folder).write_owned().await),
            // Whoever finds one in use takes the next.
            Sharing::Private => {
                let mut number = 0;
                loop {
                    if let Ok(lock) = builds.gate(&folder).try_write_owned() {
                        mounts.locks.push(lock);
                        break;
                    }
                    number += 1;
                    folder = root.join(format!("{name}-{number}"));
                }
            }
        }
        // One makes it, whoever shares it.
        let _making = builds.gate(&folder.with_extension("making")).write_owned().await;
        if !folder.exists() {
            self.fill_cache(mount, step, &folder).await?;
        }
        Ok(folder)
    }

    /// Makes the folder of a cache, with what the mount's `from` has.
    async fn fill_cache(&self, mount: &RunMount, step: &Step, folder: &Path) -> Result<()> {
        let line = step.line;
        let mut from = None;
        if mount.from.is_some() {
            let source = mount.source.clone().unwrap_or_else(|| "/".to_owned());
            from = Some((self.source(mount.from.as_deref(), line).await?, source));
        }
        let scratch = Scratch::new(&self.build.inner, &["cache"]).await?;
        let (made, folder, squash) =
            (scratch.path.join("cache"), folder.to_owned(), self.build.inner.userns_squash);
        let (mode, uid, gid) = (mount.mode.unwrap_or(0o755), mount.uid, mount.gid);
        let failed = move |reason: String| Error::from(BuildError::step("RUN", line, reason));
        crate::blocking(move || {
            if let Some((folders, source)) = from {
                let tree = tree::Tree::layers(&folders, None, squash).map_err(|e| failed(e.to_string()))?;
                let target = tree::Tree::folder(&made).map_err(Error::io("open", &made))?;
                let mut sources = Sources::default();
                sources
                    .gather(&tree, std::slice::from_ref(&source), &Rules::default())
                    .map_err(|e| failed(e.to_string()))?;
                let written = Written { owner: None, mode: None, squash };
                let copied = sources.write(Some(&tree), &target, Path::new("/"), true, written);
                copied.map_err(|e| failed(e.to_string()))?;
            }
            let mode = std::fs::Permissions::from_mode(mode & 0o7777);
            std::fs::set_permissions(&made, mode).map_err(Error::io("chmod", &made))?;
            if !squash {
                chown(&made, Some(uid), Some(gid)).map_err(Error::io("chown", &made))?;
            }
            let root = folder.parent().unwrap_or(&folder);
            std::fs::create_dir_all(root).map_err(Error::io("create folder", root))?;
            std::fs::rename(&made, &folder).map_err(Error::io("move", &made))
        })
        .await
    }
}

/// Returns true if the command is nothing but the mark of a here-document.
fn is_mark(text: &str) -> bool {
    text.starts_with("<<") && !text.contains(char::is_whitespace)
}

/// Removes from the new layer the empty file or folders that a mount was put on. Blocking.
fn remove_stub(upper: &Path, lowers: &[PathBuf], target: &str) -> std::io::Result<()> {
    let below = Layers { folders: lowers.to_vec() };
    let mut path = PathBuf::from(target);
    while path.file_name().is_some() && matches!(below.find(&path)?, Found::Missing) {
        let stub = upper.join(path.strip_prefix("/").unwrap_or(&path));
        let removed = match std::fs::symlink_metadata(&stub) {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir(&stub).is_ok(),
            Ok(meta) if meta.is_file() && meta.len() == 0 => std::fs::remove_file(&stub).is_ok(),
            _ => false,
        };
        if !removed {
            break; // the command put something there
        }
        path.pop();
    }
    Ok(())
}
