//! One build: what the client asks for becomes the engine's options, its folders the engine's context.

use super::{
    control,
    files::Folder,
    progress::{Progress, Transfer},
    session::Session,
};
use crate::server::{State, images};
use engine::{BuildContext, BuildError, BuildOptions, Engine};
use image::dockerfile::{Dockerfile, Instruction, MountKind};
use proto::buildkit::{
    apicaps::ApiCap,
    control::Exporter,
    gateway::{
        EvaluateRequest, EvaluateResponse, PingRequest, PongResponse, Ref, ReturnRequest, ReturnResponse,
        SolveRequest, SolveResponse, WarnRequest, WarnResponse, llb_bridge_server::LlbBridge, result,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncReadExt as _,
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{Code, Request, Response, Status};

/// What a client of LLBBridge may rely on. Source: buildkit `frontend/gateway/pb/caps.go`.
const CAPABILITIES: [&str; 5] = ["solve.base", "return", "returnmap", "proto.refarray", "gateway.evaluate"];
/// How long a call waits for the `Control.Solve` of its build: clients make them side by side.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);
/// How long one that has ended is known: a client may ask what happened only then.
const ENDED_LIMIT: Duration = Duration::from_secs(20);
/// *Limit* of builds at once.
const BUILDS_MAX: usize = 256;
/// Lines of the engine that wait to be shown.
const LINES: usize = 64;
/// *Limit* of a Dockerfile and of a .dockerignore. *Unit:* bytes.
const TEXT_MAX: u64 = 4 << 20;
/// Where buildx says that a context comes over the session.
const UPLOADS: &str = "http://buildkit-session/";

/// A build that a client has begun.
#[derive(Debug)]
pub(super) struct Build {
    pub(super) progress: Arc<Progress>,
    session: String,
    /// What the client gave back over LLBBridge: an image, nothing, or why it failed.
    returned: watch::Sender<Option<Result<Option<image::Digest>, Status>>>,
}

/// The builds that run or have just ended, by their reference.
#[derive(Debug, Default)]
pub(super) struct Builds {
    all: Mutex<BTreeMap<String, Known>>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Known {
    build: Arc<Build>,
    ended: Option<Instant>,
}

/// Keeps a build among those that run.
pub(super) struct Running<'a> {
    builds: &'a Builds,
    reference: String,
    build: Arc<Build>,
}

impl std::ops::Deref for Running<'_> {
    type Target = Build;

    fn deref(&self) -> &Build {
        &self.build
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.build.progress.end();
        if let Some(known) = self.builds.all().get_mut(&self.reference) {
            known.ended = Some(Instant::now());
        }
    }
}

impl Builds {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| known.ended.is_none_or(|at| at.elapsed() < ENDED_LIMIT));
        all
    }

    pub(super) fn begin(&self, reference: &str, session: &str) -> Result<Running<'_>, Status> {
        let build = Arc::new(Build {
            progress: Arc::default(),
            session: session.to_owned(),
            returned: watch::Sender::new(None),
        });
        let mut all = self.all();
        if all.values().filter(|known| known.ended.is_none()).count() >= BUILDS_MAX {
            return Err(Status::resource_exhausted(format!("{BUILDS_MAX} builds run already")));
        }
        if all.contains_key(reference) {
            return Err(Status::already_exists(format!("there is a build {reference} already")));
        }
        all.insert(reference.to_owned(), Known { build: Arc::clone(&build), ended: None });
        drop(all);
        self.changed.send_replace(());
        Ok(Running { builds: self, reference: reference.to_owned(), build })
    }

    /// Returns a build, which may be about to begin.
    pub(super) async fn get(&self, reference: &str) -> Result<Arc<Build>, Status> {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                let found = self.all().get(reference).map(|known| Arc::clone(&known.build));
                match found {
                    Some(build) => return Some(build),
                    None => changed.changed().await.ok()?,
                }
            }
        };
        let found = timeout(BEGIN_LIMIT, found).await.ok().flatten();
        found.ok_or_else(|| Status::not_found(format!("no such job {reference}")))
    }
}

impl Build {
    /// Waits for what the client gives back.
    pub(super) async fn returned(&self) -> Result<Option<image::Digest>, Status> {
        let mut returned = self.returned.subscribe();
        let outcome =
            returned.wait_for(Option::is_some).await.map_err(|_| Status::aborted("the build is over"))?;
        outcome.clone().unwrap_or_else(|| Err(Status::aborted("the build is over")))
    }
}

// ---- what comes out -----------------------------------------------------------------------------------

/// Returns the names that an image gets. The exporter of dockerd's own builder is the only one.
pub(super) fn names(exporters: &[Exporter]) -> Result<Vec<image::Reference>, Status> {
    let mut names = Vec::new();
    for exporter in exporters {
        if !matches!(exporter.r#type.as_str(), "moby" | "image") {
            return Err(Status::unimplemented(format!(
                "the output {:?} is not available: build an image, and take the files out with `docker cp` or `docker save`",
                exporter.r#type
            )));
        }
        let list = exporter.attrs.get("name").map(String::as_str).unwrap_or_default();
        for name in list.split(',').filter(|name| !name.is_empty()) {
            let name = images::parse(name).map_err(|e| Status::invalid_argument(e.message))?;
            let tag = name.tag.clone().unwrap_or_else(|| "latest".to_owned());
            names.push(name.with_tag(&tag));
        }
    }
    Ok(names)
}

/// Gives an image its names. Source: buildkit `exporter/containerimage/exptypes`.
pub(super) async fn export(
    engine: &Engine,
    build: &Build,
    image: image::Digest,
    names: &[image::Reference],
) -> Result<BTreeMap<String, String>, Status> {
    let step = build.progress.begin("exporting to image");
    step.status(&format!("writing image {image}"), 0, 0, true);
    for name in names {
        let named = engine.images().tag(&image.to_string(), name).await;
        if let Err(error) = named {
            let reason = format!("cannot name the image {name}: {error}");
            step.fail(&reason);
            return Err(Status::unknown(reason));
        }
        step.status(&format!("naming to {}", name.canonical()), 0, 0, true);
    }
    step.end();
    let list: Vec<String> = names.iter().map(image::Reference::canonical).collect();
    let mut response = BTreeMap::from([
        ("containerimage.digest".to_owned(), image.to_string()),
        ("containerimage.config.digest".to_owned(), image.to_string()),
    ]);
    if !list.is_empty() {
        response.insert("image.name".to_owned(), list.join(","));
    }
    Ok(response)
}

// ---- what goes in -------------------------------------------------------------------------------------

/// Builds from the folders of a client.
pub(super) async fn of_session(
    state: &State,
    build: &Build,
    mut options: BuildOptions,
) -> Result<image::Digest, Status> {
    let session = state.buildkit.sessions.get(&build.session).await?;
    if options.dockerfile.is_empty() {
        options.dockerfile = "Dockerfile".to_owned();
    }
    let name = options.dockerfile.clone();
    options.ssh = Some(Arc::new(session.clone()));
    let text = dockerfile(&session, build, &name).await?;
    prepare(&session, text, &mut options).await?;
    from_folder(state, &session, build, &name, options).await
}

/// Builds with the client's context, without what `.dockerignore` leaves out.
async fn from_folder(
    state: &State,
    session: &Session,
    build: &Build,
    dockerfile: &str,
    options: BuildOptions,
) -> Result<image::Digest, Status> {
    let exclude = ignored(session, build, dockerfile).await?;
    let context = session.folder(Folder { name: "context".into(), exclude, ..Folder::default() });
    carry_out(state, build, options, BuildContext::tar(counted(build, context))).await
}

/// Builds what the frontend's options ask for.
pub(super) async fn run(
    state: &State,
    build: &Build,
    frontend: &str,
    mut wanted: BTreeMap<String, String>,
) -> Result<image::Digest, Status> {
    if frontend != "dockerfile.v0" {
        return Err(Status::unimplemented(format!(
            "the frontend {frontend:?} is not available, only dockerfile.v0 is: leave BUILDKIT_SYNTAX out"
        )));
    }
    let session = state.buildkit.sessions.get(&build.session).await?;
    let name = wanted.remove("filename").filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "Dockerfile".to_owned());
    let remote = wanted.remove("context").filter(|context| !context.is_empty());
    // The Dockerfile of an uploaded archive is in it, unless the client has one beside.
    let has_own = remote.is_none() || wanted.contains_key("dockerfilekey");
    let mut options = options(state, wanted)?;
    options.ssh = Some(Arc::new(session.clone()));
    options.dockerfile.clone_from(&name);
    if has_own {
        let text = dockerfile(&session, build, &name).await?;
        prepare(&session, text, &mut options).await?;
    }
    match remote {
        None => from_folder(state, &session, build, &name, options).await,
        Some(url) if url.starts_with(UPLOADS) => {
            let path = url.trim_start_matches("http://buildkit-session").to_owned();
            let context = session.upload(&path, "buildkit-session");
            carry_out(state, build, options, BuildContext::tar(counted(build, context))).await
        }
        Some(url) => carry_out(state, build, options, BuildContext::Remote(url)).await,
    }
}

/// Asks the client for what a Dockerfile needs. That of an uploaded archive is known only once it is unpacked: it gets no
/// secrets and no accounts.
async fn prepare(session: &Session, text: String, options: &mut BuildOptions) -> Result<(), Status> {
    let file = Dockerfile::parse(&text).map_err(|e| Status::invalid_argument(e.to_string()))?;
    ask_for_secrets(session, &file, options).await?;
    ask_for_accounts(session, &file, options).await?;
    options.dockerfile_text = Some(text);
    Ok(())
}

/// Shows how much of the context has come.
fn counted<R>(build: &Build, context: R) -> Transfer<R> {
    let step = build.progress.begin("[internal] load build context");
    Transfer::new(context, "transferring context:", step)
}

pub(super) async fn carry_out(
    state: &State,
    build: &Build,
    options: BuildOptions,
    context: BuildContext,
) -> Result<image::Digest, Status> {
    let engine = state.engine().map_err(|e| Status::unavailable(e.message))?;
    let (said, mut lines) = mpsc::channel(LINES);
    let (built, step) = tokio::join!(engine.build(options, context, said), build.progress.show(&mut lines));
    match built {
        Ok(image) => {
            if let Some(step) = step {
                step.end();
            }
            state.image_event("build", &image.to_string(), &image.to_string());
            Ok(image)
        }
        Err(error) => {
            let reason = match &error {
                // In BuildKit's words.
                engine::Error::Build(BuildError::Command { command, code }) => {
                    format!("process {command:?} did not complete successfully: exit code: {code}")
                }
                other => other.to_string(),
            };
            if let Some(step) = step {
                step.fail(&reason);
            }
            Err(Status::unknown(reason))
        }
    }
}

/// Reads the frontend's options. Source: buildkit `frontend/dockerui/config.go`.
fn options(state: &State, wanted: BTreeMap<String, String>) -> Result<BuildOptions, Status> {
    let bad = |key: &str, value: &str| Status::invalid_argument(format!("invalid value {value:?} for {key}"));
    let mut options = BuildOptions { registries: state.registries(), ..BuildOptions::default() };
    for (key, value) in wanted {
        match key.as_str() {
            "target" => options.target = value,
            // A list of stages is taken for all of them.
            "no-cache" => options.no_cache = true,
            "image-resolve-mode" => options.pull = value == "pull",
            "platform" if value.contains(',') => {
                return Err(Status::unimplemented("one platform at a time is built here"));
            }
            "platform" if value.is_empty() => {}
            "platform" => options.platform = Some(value.parse().map_err(|_| bad(&key, &value))?),
            "force-network-mode" => options.network = value.as_str().into(),
            "add-hosts" => {
                let hosts = value.split(',').filter(|h| !h.is_empty());
                options.extra_hosts = hosts.map(|host| host.replacen('=', ":", 1)).collect();
            }
            "shm-size" => options.shm_size_bytes = Some(value.parse().map_err(|_| bad(&key, &value))?),
            "ulimit" => {
                let limits = value.split(',').filter(|l| !l.is_empty());
                options.ulimits = limits
                    .map(|l| model::Ulimit::of_text(l).ok_or_else(|| bad(&key, l)))
                    .collect::<Result<_, _>>()?;
            }
            other => {
                if let Some(name) = other.strip_prefix("build-arg:") {
                    options.args.insert(name.to_owned(), value);
                } else if let Some(name) = other.strip_prefix("label:") {
                    options.labels.insert(name.to_owned(), value);
                } else if other.starts_with("context:") {
                    return Err(Status::unimplemented(format!(
                        "additional build contexts ({other}) are not available: copy it into the context"
                    )));
                } else if !means_nothing(other) {
                    return Err(Status::unimplemented(format!(
                        "the option {other:?} of a build is not available"
                    )));
                }
            }
        }
    }
    Ok(options)
}

/// Returns true for what a client says of itself and for wishes that change no image: hints where to look for results of
/// other builds (those of this host are used by themselves), attestations, which images here do not have, and where
/// folders and sources come from.
fn means_nothing(key: &str) -> bool {
    const WORDS: [&str; 10] = [
        "cache-from",
        "cache-imports",
        "cmdline",
        "contextkey",
        "dockerfilekey",
        "frontend.caps",
        "localuniqueid",
        "multi-platform",
        "shared-session",
        "source",
    ];
    const FAMILIES: [&str; 6] =
        ["attest:", "input:", "local-sessionid:", "sharedkey:", "vcs:", "localdir-sharedkey:"];
    WORDS.contains(&key) || FAMILIES.iter().any(|family| key.starts_with(family))
}

async fn dockerfile(session: &Session, build: &Build, name: &str) -> Result<String, Status> {
    let step = build.progress.begin(format!("[internal] load build definition from {name}"));
    let folder = Folder { name: "dockerfile".into(), include: vec![name.to_owned()], ..Folder::default() };
    match text(session, folder, name).await {
        Ok(Some(text)) => {
            step.status("transferring dockerfile:", text.len() as u64, 0, true);
            step.end();
            Ok(text)
        }
        Ok(None) => {
            let reason = format!("failed to read dockerfile: open {name}: no such file or directory");
            step.fail(&reason);
            Err(Status::unknown(reason))
        }
        Err(status) => {
            step.fail(status.message());
            Err(status)
        }
    }
}

/// Returns the patterns of what the client is not to send: those beside the Dockerfile, else the context's.
async fn ignored(session: &Session, build: &Build, dockerfile: &str) -> Result<Vec<String>, Status> {
    let step = build.progress.begin("[internal] load .dockerignore");
    let beside = format!("{dockerfile}.dockerignore");
    let mut found = None;
    for (folder, name) in [("dockerfile", beside.as_str()), ("context", ".dockerignore")] {
        let folder = Folder { name: folder.into(), include: vec![name.to_owned()], ..Folder::default() };
        found = text(session, folder, name).await?;
        if found.is_some() {
            break;
        }
    }
    step.end();
    Ok(patterns(&found.unwrap_or_default()))
}

fn patterns(text: &str) -> Vec<String> {
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
    let pattern = |line: &str| match line.strip_prefix('!') {
        Some(kept) => format!("!{}", kept.trim().trim_start_matches('/')),
        None => line.trim_start_matches('/').to_owned(),
    };
    lines.map(pattern).filter(|line| !line.is_empty() && line != "!").collect()
}

/// Returns the content of one file of a folder; `None` if there is none.
async fn text(session: &Session, folder: Folder, path: &str) -> Result<Option<String>, Status> {
    let failed = |e: std::io::Error| Status::unknown(format!("cannot read {path}: {e}"));
    let mut archive = Vec::new();
    let read = session.folder(folder).take(TEXT_MAX).read_to_end(&mut archive).await.map_err(failed)?;
    if read as u64 >= TEXT_MAX {
        return Err(Status::invalid_argument(format!("{path} is larger than {TEXT_MAX} bytes")));
    }
    let mut archive = tar::Archive::new(archive.as_slice());
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if entry.path().map_err(failed)?.as_ref() == std::path::Path::new(path) {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).map_err(failed)?;
            return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(None)
}

async fn ask_for_secrets(
    session: &Session,
    file: &Dockerfile,
    options: &mut BuildOptions,
) -> Result<(), Status> {
    for id in secrets(file) {
        if let Some(secret) = session.secret(&id).await? {
            options.secrets.insert(id, secret);
        }
    }
    Ok(())
}

/// Returns the ids of the secrets that commands use. As Docker does: one without an id is called as its file.
fn secrets(file: &Dockerfile) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for step in file.stages.iter().flat_map(|stage| &stage.steps) {
        let Instruction::Run(run) = &step.instruction else { continue };
        for mount in run.mounts.iter().filter(|mount| mount.kind == MountKind::Secret) {
            let name = mount.target.as_deref().and_then(|target| target.rsplit('/').next());
            ids.extend(mount.id.as_deref().or(name).map(str::to_owned));
        }
    }
    ids
}

/// Asks for the accounts at the registries of base images. A name with variables in it is not known before the build.
async fn ask_for_accounts(
    session: &Session,
    file: &Dockerfile,
    options: &mut BuildOptions,
) -> Result<(), Status> {
    for stage in &file.stages {
        let Ok(reference) = stage.base.parse::<image::Reference>() else { continue };
        if stage.base == "scratch" || options.credentials.contains_key(&reference.registry) {
            continue;
        }
        if let Some(account) = session.account(&reference.registry).await? {
            options.credentials.insert(reference.registry.clone(), account);
        }
    }
    Ok(())
}

// ---- LLBBridge ----------------------------------------------------------------------------------------

pub(super) struct Service(pub(super) State);

impl Service {
    /// Returns the build that a call belongs to. Source: buildkit `client/buildid/metadata.go`.
    async fn build<T>(&self, request: &Request<T>) -> Result<Arc<Build>, Status> {
        let id = request.metadata().get("buildkit-controlapi-buildid").and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("no buildid found in context"))?;
        self.0.buildkit.builds.get(id).await
    }
}

#[tonic::async_trait]
impl LlbBridge for Service {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.build(&request).await?;
        let capability = |id: &str| ApiCap { id: id.to_owned(), enabled: true };
        Ok(Response::new(PongResponse {
            frontend_api_caps: CAPABILITIES.map(capability).into(),
            llb_caps: vec![capability("source.local")],
            workers: vec![control::worker()],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let build = self.build(&request).await?;
        let request = request.into_inner();
        let image = run(&self.0, &build, &request.frontend, request.frontend_opt).await?;
        let result = proto::buildkit::gateway::Result {
            result: Some(result::Result::Ref(Ref { id: image.to_string() })),
            metadata: BTreeMap::new(),
        };
        Ok(Response::new(SolveResponse { r#ref: String::new(), result: Some(result) }))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        self.build(&request).await?;
        Ok(Response::new(EvaluateResponse {})) // a solve has built it already
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let build = self.build(&request).await?;
        let request = request.into_inner();
        let outcome = match request.error {
            Some(error) => Err(Status::new(Code::from(error.code), error.message)),
            None => image_of(request.result),
        };
        build.returned.send_replace(Some(outcome));
        Ok(Response::new(ReturnResponse {}))
    }

    async fn warn(&self, _: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        Ok(Response::new(WarnResponse {}))
    }
}

/// Returns the image that a client gives back: one that we gave it.
fn image_of(result: Option<proto::buildkit::gateway::Result>) -> Result<Option<image::Digest>, Status> {
    let id = match result.and_then(|r| r.result) {
        None => return Ok(None),
        Some(result::Result::RefDeprecated(id)) => id,
        Some(result::Result::Ref(one)) => one.id,
        Some(result::Result::Refs(many)) => match many.refs.into_values().collect::<Vec<_>>().as_slice() {
            [] => return Ok(None),
            [one] => one.id.clone(),
            _ => return Err(Status::unimplemented("one platform at a time is built here")),
        },
    };
    if id.is_empty() {
        return Ok(None);
    }
    id.parse().map(Some).map_err(|_| Status::invalid_argument(format!("no such reference {id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_patterns_are_sent_as_the_client_matches_them() {
        let text = "\u{feff}# no comment\n/target\n  *.log \n\n!/keep.log\n!\n#\nsub/*\n";
        assert_eq!(patterns(text), ["target", "*.log", "!keep.log", "sub/*"]);
    }

    #[test]
    fn outputs_other_than_images_are_refused() {
        let exporter = |kind: &str, name: &str| Exporter {
            r#type: kind.into(),
            attrs: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        };
        let text = |e: &[Exporter]| {
            names(e).map(|n| n.iter().map(image::Reference::canonical).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            text(&[exporter("moby", "a,b:1")]).unwrap(),
            "docker.io/library/a:latest docker.io/library/b:1"
        );
        assert_eq!(text(&[exporter("moby", "")]).unwrap(), "");
        assert_eq!(text(&[exporter("local", "")]).unwrap_err().code(), Code::Unimplemented);
        assert_eq!(text(&[exporter("moby", "A B")]).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn what_would_change_the_outcome_is_not_passed_over() {
        for key in ["attest:provenance", "cmdline", "vcs:source", "local-sessionid:context"] {
            assert!(means_nothing(key), "{key}");
        }
        for key in ["requestid", "cgroup-parent", "hostname", "memory", "contextsubdir", "of tomorrow"] {
            assert!(!means_nothing(key), "{key}");
        }
    }

    #[tokio::test]
    async fn a_build_is_known_for_a_while_after_its_end() {
        let builds = Builds::default();
        let running = builds.begin("a", "s").unwrap();
        assert_eq!(builds.begin("a", "s").err().map(|s| s.code()), Some(Code::AlreadyExists));
        running.progress.begin("step").end();
        drop(running);
        let build = builds.get("a").await.unwrap();
        let seen = build.progress.after(0).await.unwrap();
        assert_eq!(seen.len(), 2, "began and ended");
        assert!(build.progress.after(seen.len()).await.is_none(), "nothing more will come");
        builds.all().get_mut("a").unwrap().ended = Instant::now().checked_sub(ENDED_LIMIT);
        assert!(builds.all().is_empty());
    }
}
