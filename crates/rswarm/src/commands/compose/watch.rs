//! `develop.watch`: changes of files here become changes in containers.
//!
//! Changes are gathered until nothing has changed for a moment, then each rule does its part once. Source: compose
//! specification "watch"; docker/compose `pkg/watch`.

use super::{
    bring_up, images,
    project::{Member, Project},
    up::{self, Options},
};
use crate::{
    cli::{ComposeBuild, ComposeWatch, KeepFlags, MakeFlags, Up},
    output,
};
use anyhow::{Context, Result, bail};
use axum::body::Body;
use compose::{StackService, Watch, WatchAction};
use docker_api::{client::Client, types};
use image::dockerfile::IgnoreList;
use notify::{RecursiveMode, Watcher};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How long files must be left alone before their changes count.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// So many times that, at most.
const RESTLESS: u32 = 4;
/// Names of changed files on their way; when more change at once, all files are looked at.
const QUEUE: usize = 4096;
/// What editors and version control write beside the files that count. Source: docker/compose
/// `pkg/watch/ephemeral.go`.
const NEVER: &[&str] = &["**/.git", "**/*.swp", "**/*.swx", "**/.#*", "**/*~", "**/.DS_Store", "**/4913"];

/// How images are made anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rebuilding {
    /// No output of builds is shown.
    pub(super) quiet: bool,
    /// The images of before, which have no name any more, go.
    pub(super) prune: bool,
}

impl Default for Rebuilding {
    fn default() -> Self {
        Self { quiet: false, prune: true }
    }
}

/// A rule and whose it is.
struct Rule<'a> {
    service: &'a StackService,
    watch: &'a Watch,
    ignored: IgnoreList,
    included: Option<IgnoreList>,
}

impl Rule<'_> {
    /// Does a change of this file count?
    fn takes(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.watch.path) else { return false };
        let below = below.to_string_lossy();
        let included = self.included.as_ref().is_none_or(|list| list.ignores(&below));
        // A file that is watched itself is called nothing below itself.
        below.is_empty() || (included && !self.ignored.ignores(&below))
    }

    /// Where a file is in the container.
    fn target(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.watch.path).unwrap_or(Path::new(""));
        let target = Path::new(&self.watch.target);
        if below.as_os_str().is_empty() { target.to_owned() } else { target.join(below) }
    }
}

pub(super) async fn run(client: &Client, project: &Project, args: &ComposeWatch) -> Result<ExitCode> {
    let services = project.select(&args.services, false)?;
    if !args.no_up {
        let make = MakeFlags { quiet_build: args.quiet, quiet_pull: args.quiet, ..MakeFlags::default() };
        let up = Up { detach: true, services: args.services.clone(), make, ..Up::default() };
        bring_up(client, project, &up).await?;
    }
    let rebuilding = Rebuilding { quiet: args.quiet, prune: args.prune != Some(false) };
    tokio::select! {
        ended = rules(client, project, &services, args.settle, rebuilding) => ended?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Follows the rules of services; returns only with an error.
pub(super) async fn rules(
    client: &Client,
    project: &Project,
    services: &[&StackService],
    settle: Duration,
    rebuilding: Rebuilding,
) -> Result<()> {
    let mut rules = Vec::new();
    for service in services {
        for watch in service.host.iter().flat_map(|h| &h.watch) {
            rules.push(rule(service, watch)?);
        }
    }
    if rules.is_empty() {
        bail!("no service has rules in \"develop.watch\"");
    }
    let (told, mut changes) = changes();
    let mut watcher = notify::recommended_watcher(told).context("cannot watch files")?;
    let roots: BTreeSet<&Path> = rules.iter().map(|r| watched(&r.watch.path)).collect();
    for root in roots {
        watcher
            .watch(root, RecursiveMode::Recursive)
            .with_context(|| format!("cannot watch {}", root.display()))?;
    }
    for rule in rules.iter().filter(|r| r.watch.initial_sync && r.watch.action != WatchAction::Rebuild) {
        sync(client, project, rule, &files_below(rule, rule.watch.path.clone())).await?;
    }
    output::progress("Watch enabled");
    let mut failed = BTreeSet::new();
    while let Some(Settled { mut paths, missed }) = changes.settled(settle).await {
        paths.retain(|path| rules.iter().any(|rule| rule.takes(path)));
        if missed {
            paths.extend(rules.iter().flat_map(|rule| files_below(rule, rule.watch.path.clone())));
        }
        if paths.is_empty() {
            continue;
        }
        // This change may be what the last ones lacked.
        paths.append(&mut failed);
        let start = Instant::now();
        let followed = follow(client, project, &rules, &paths, rebuilding).await;
        if project.verbose {
            let (took, count) = (start.elapsed(), paths.len());
            output::progress(&format!("batch complete: duration[{took:?}] count[{count}]"));
        }
        if let Err(error) = followed {
            output::warning(&format!("{error:#}\nhint: this is tried again with the next change"));
            failed = paths;
        }
    }
    bail!("files are watched no longer")
}

/// What changes on its way from the watcher.
struct Changes {
    paths: mpsc::Receiver<PathBuf>,
    missed: Arc<AtomicBool>,
}

/// What changed until nothing did for a moment.
struct Settled {
    paths: BTreeSet<PathBuf>,
    /// More changed than was told of.
    missed: bool,
}

/// Returns what a watcher tells, and the place to hear of it.
fn changes() -> (impl Fn(notify::Result<notify::Event>) + Send + 'static, Changes) {
    let (sender, paths) = mpsc::channel(QUEUE);
    let missed = Arc::new(AtomicBool::new(false));
    let changes = Changes { paths, missed: Arc::clone(&missed) };
    let told = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if event.need_rescan() {
            // The kernel's own queue was full. An empty path only wakes the reader.
            missed.store(true, Ordering::Release);
            drop(sender.try_send(PathBuf::new()));
        }
        if !event.kind.is_access() {
            for path in event.paths {
                if sender.try_send(path).is_err() {
                    missed.store(true, Ordering::Release);
                }
            }
        }
    };
    (told, changes)
}

impl Changes {
    /// Waits for changes; `None` when there will be no more.
    async fn settled(&mut self, settle: Duration) -> Option<Settled> {
        let mut paths = BTreeSet::from([self.paths.recv().await?]);
        // What never rests is followed all the same.
        let latest = Instant::now() + settle * RESTLESS;
        while Instant::now() < latest
            && let Ok(Some(next)) = tokio::time::timeout(settle, self.paths.recv()).await
        {
            paths.insert(next);
        }
        Some(Settled { paths, missed: self.missed.swap(false, Ordering::Acquire) })
    }
}

/// A file is watched in its folder: editors put a new one in its place.
fn watched(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

fn rule<'a>(service: &'a StackService, watch: &'a Watch) -> Result<Rule<'a>> {
    let list = |patterns: Vec<&str>| {
        IgnoreList::parse(&patterns.join("\n"))
            .map_err(|error| anyhow::anyhow!("service {}: {error}", service.key))
    };
    let own = watch.ignore.iter().map(String::as_str);
    Ok(Rule {
        service,
        watch,
        ignored: list(NEVER.iter().copied().chain(own).collect())?,
        included: match watch.include.is_empty() {
            true => None,
            false => Some(list(watch.include.iter().map(String::as_str).collect())?),
        },
    })
}

/// Does what the rules say of changed files, each action of a service once.
async fn follow(
    client: &Client,
    project: &Project,
    rules: &[Rule<'_>],
    changed: &BTreeSet<PathBuf>,
    rebuilding: Rebuilding,
) -> Result<()> {
    let mut rebuild = BTreeMap::new();
    let mut restart = BTreeMap::new();
    for rule in rules {
        // A new folder may have had files before it was watched.
        let (folders, mut files): (Vec<PathBuf>, Vec<PathBuf>) =
            changed.iter().filter(|path| rule.takes(path)).cloned().partition(|path| path.is_dir());
        for folder in folders {
            files.extend(files_below(rule, folder.clone()));
            // And it may be empty; that which is watched itself is there.
            files.extend(Some(folder).filter(|folder| *folder != rule.watch.path));
        }
        files.sort();
        files.dedup();
        if files.is_empty() {
            continue;
        }
        let service = rule.service;
        match rule.watch.action {
            WatchAction::Rebuild => {
                rebuild.insert(&service.key, service);
            }
            WatchAction::Restart => {
                restart.insert(&service.key, service);
            }
            WatchAction::Sync => sync(client, project, rule, &files).await?,
            WatchAction::SyncRestart => {
                sync(client, project, rule, &files).await?;
                restart.insert(&service.key, service);
            }
            WatchAction::SyncExec => {
                sync(client, project, rule, &files).await?;
                for member in running(client, project, service).await? {
                    if let Some(hook) = &rule.watch.exec {
                        let said = up::run_hook(client, &member.id, &service.key, hook).await?;
                        for line in String::from_utf8_lossy(&said).lines() {
                            let name = super::follow::short_name(project, &member);
                            output::styled(&format!("{name} ->  | {line}"))?;
                        }
                    }
                }
            }
        }
    }
    let names = |services: Vec<&&String>| format!("{services:?}");
    if !rebuild.is_empty() {
        let names = names(rebuild.keys().collect());
        output::progress(&format!("Rebuilding service(s) {names} after changes were detected..."));
    }
    for service in rebuild.values() {
        if let Some(wanted) = &service.build {
            let flags = ComposeBuild { quiet: rebuilding.quiet, ..ComposeBuild::default() };
            images::build_image(client, project, service, wanted, &flags).await?;
        }
        let keep = KeepFlags::default();
        let options = Options { keep: Some(&keep), start: true, no_deps: true, ..Options::default() };
        up::converge(client, project, &[service], &options).await?;
    }
    if !rebuild.is_empty() {
        output::progress(&format!("service(s) {} successfully built", names(rebuild.keys().collect())));
        if rebuilding.prune {
            prune(client, project).await?;
        }
    }
    restart.retain(|key, _| !rebuild.contains_key(key));
    for service in restart.values() {
        for member in running(client, project, service).await? {
            up::stop(client, Some(service), &member, None).await?;
            up::start(client, service, &member.id).await?;
        }
    }
    if !restart.is_empty() {
        output::progress(&format!("service(s) {} restarted", names(restart.keys().collect())));
    }
    Ok(())
}

/// Removes the project's images that have no name any more. Source: docker/compose `pkg/compose/watch.go`,
/// `pruneDanglingImagesOnRebuild`.
async fn prune(client: &Client, project: &Project) -> Result<()> {
    let filters = serde_json::json!({
        "dangling": {"true": true},
        "label": {format!("{}={}", super::label::PROJECT, project.name): true},
    });
    for image in client.images(&[("filters", &filters.to_string())]).await? {
        match client.image_remove(&image.id, &[]).await {
            Ok(_) => {}
            // A container that is not made anew has it still.
            Err(error) if error.is_not_found() || error.status().is_some_and(|s| s.as_u16() == 409) => {}
            Err(error) => output::warning(&format!("image {}: {error:#}", image.id)),
        }
    }
    Ok(())
}

async fn running(client: &Client, project: &Project, service: &StackService) -> Result<Vec<Member>> {
    let mut members = project.of_services(client, std::slice::from_ref(&service.key)).await?;
    members.retain(Member::is_running);
    Ok(members)
}

/// Brings files into the containers of a service; what is gone here goes there.
async fn sync(client: &Client, project: &Project, rule: &Rule<'_>, files: &[PathBuf]) -> Result<()> {
    let (there, gone): (Vec<&PathBuf>, Vec<&PathBuf>) =
        files.iter().partition(|f| f.symlink_metadata().is_ok());
    let members = running(client, project, rule.service).await?;
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    for file in &there {
        let target = rule.target(file);
        let inside = target.strip_prefix("/").unwrap_or(&target);
        tar.append_path_with_name(file, inside).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let tar = tar.into_inner()?;
    for member in &members {
        client.archive_put(&member.id, &[("path", "/")], Body::from(tar.clone())).await?;
        if !gone.is_empty() {
            let targets = gone.iter().map(|file| rule.target(file).display().to_string());
            let command = ["rm", "-rf", "--"].map(str::to_owned).into_iter().chain(targets).collect();
            let exec = types::ExecCreate { cmd: types::StrSlice(command), ..Default::default() };
            let exec = client.exec_create(&member.id, &exec).await?.id;
            client.exec_start_detached(&exec).await?;
        }
    }
    let count = files.len();
    let key = &rule.service.key;
    output::progress(&format!("Syncing service {key:?} after {count} changes were detected"));
    Ok(())
}

/// Returns all files below a folder that a rule takes.
fn files_below(rule: &Rule<'_>, folder: PathBuf) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder];
    while let Some(path) = open.pop() {
        if !rule.takes(&path) {
            continue;
        }
        match std::fs::read_dir(&path) {
            Ok(entries) if !path.is_symlink() => open.extend(entries.flatten().map(|e| e.path())),
            _ => files.push(path),
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::{Event, EventKind, event::Flag};

    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_does_not_fit_is_looked_for() {
        let (told, mut changes) = changes();
        told(Ok(Event::new(EventKind::Any).add_path("/a".into())));
        let few = changes.settled(MOMENT).await.unwrap();
        assert_eq!((few.paths.len(), few.missed), (1, false));

        (0..=QUEUE).for_each(|n| told(Ok(Event::new(EventKind::Any).add_path(n.to_string().into()))));
        assert!(changes.settled(MOMENT).await.unwrap().missed);

        let mut of_the_kernel = Event::new(EventKind::Other);
        of_the_kernel.attrs.set_flag(Flag::Rescan);
        let (told, mut changes) = super::changes();
        told(Ok(of_the_kernel));
        assert!(changes.settled(MOMENT).await.unwrap().missed);
        drop(told);
        assert!(changes.settled(MOMENT).await.is_none());
    }
}
