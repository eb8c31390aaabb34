//! A project: what its file says, and which containers it has.

use super::super::deploy;
use crate::{cli::ProjectArgs, output};
use anyhow::{Context, Result, bail};
use compose::{Place, Sources, Stack, StackService};
use docker_api::{client::Client, types};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Labels of Docker Compose: its projects and ours see each other's containers. Source: docker/compose
/// `pkg/api/labels.go`.
pub(super) mod label {
    pub(crate) const PROJECT: &str = "com.docker.compose.project";
    pub(crate) const SERVICE: &str = "com.docker.compose.service";
    pub(crate) const NUMBER: &str = "com.docker.compose.container-number";
    pub(crate) const ONE_OFF: &str = "com.docker.compose.oneoff";
    /// What a network was asked for as. Docker Compose has a hash of its own under another name.
    pub(crate) const NETWORK_HASH: &str = "rswarm.network-hash";
    pub(crate) const HASH: &str = "com.docker.compose.config-hash";
    pub(crate) const NETWORK: &str = "com.docker.compose.network";
    pub(crate) const FOLDER: &str = "com.docker.compose.project.working_dir";
    pub(crate) const FILES: &str = "com.docker.compose.project.config_files";
    pub(crate) const DEPENDS: &str = "com.docker.compose.depends_on";
    pub(crate) const VERSION: &str = "com.docker.compose.version";
}

pub(super) struct Project {
    pub(super) name: String,
    /// `None` if there is no file: then it is known by its containers.
    stack: Option<Stack>,
    /// Services of all profiles.
    known: BTreeSet<String>,
    pub(super) files: Vec<PathBuf>,
    pub(super) folder: PathBuf,
}

/// A container of the project.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) service: String,
    pub(super) number: u64,
    /// Of `run`.
    pub(super) one_off: bool,
    pub(super) hash: String,
    pub(super) image_id: String,
    pub(super) state: String,
    pub(super) summary: types::ContainerSummary,
}

impl Member {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "restarting" | "paused")
    }
}

impl Project {
    /// Reads the file; `wanted` services bring their profiles along.
    ///
    /// # Errors
    /// There is no file, or it cannot be read.
    pub(super) fn load(args: &ProjectArgs, wanted: &[String]) -> Result<Self> {
        let files = files(args)?;
        let sources = sources(args, &files)?;
        let all = Sources { profiles: vec!["*".to_owned()], ..sources.clone() };
        let everything = compose::load(&all, &compose::Disk).ok();
        let known: BTreeSet<String> =
            everything.iter().flat_map(|(stack, _)| stack.services.iter().map(|s| s.key.clone())).collect();
        let (mut stack, warnings) =
            compose::load(&sources, &compose::Disk).map_err(|error| deploy::with_line(error, &sources))?;
        let missing = wanted.iter().any(|name| !stack.services.iter().any(|s| s.key == *name));
        if missing && let Some((everything, _)) = everything {
            stack = with_wanted(stack, everything, wanted);
        }
        for warning in warnings {
            output::warning(&warning.to_string());
        }
        let known =
            if known.is_empty() { stack.services.iter().map(|s| s.key.clone()).collect() } else { known };
        Ok(Self { name: stack.name.clone(), stack: Some(stack), known, files, folder: sources.project_dir })
    }

    /// As [`load`](Self::load); a project that is named needs no file.
    pub(super) fn load_or_named(args: &ProjectArgs, wanted: &[String]) -> Result<Self> {
        match &args.project_name {
            Some(name) if args.file.is_empty() && files(args).is_err() => Ok(Self {
                name: name.clone(),
                stack: None,
                known: BTreeSet::new(),
                files: Vec::new(),
                folder: PathBuf::new(),
            }),
            _ => Self::load(args, wanted),
        }
    }

    /// Returns what the file says.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn stack(&self) -> Result<&Stack> {
        self.stack
            .as_ref()
            .with_context(|| format!("project {} is known by its name alone: this needs its file", self.name))
    }

    pub(super) fn has_file(&self) -> bool {
        self.stack.is_some()
    }

    /// Returns services by name, all if none is named, those that others need first.
    ///
    /// # Errors
    /// The file has no such service.
    pub(super) fn select(&self, names: &[String], with_needed: bool) -> Result<Vec<&StackService>> {
        let stack = self.stack()?;
        let by_key: BTreeMap<&str, &StackService> =
            stack.services.iter().map(|s| (s.key.as_str(), s)).collect();
        if let Some(unknown) = names.iter().find(|name| !by_key.contains_key(name.as_str())) {
            bail!("no such service: {unknown}");
        }
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        if names.is_empty() || with_needed {
            let all: Vec<String> = stack.services.iter().map(|s| s.key.clone()).collect();
            for name in if names.is_empty() { &all } else { names } {
                self.visit(name, &by_key, &mut seen, &mut order);
            }
        } else {
            for service in &stack.services {
                self.visit(&service.key, &by_key, &mut seen, &mut order);
            }
            order.retain(|service| names.contains(&service.key));
        }
        Ok(order)
    }

    /// Adds a service behind those it needs.
    fn visit<'a>(
        &self,
        key: &str,
        by_key: &BTreeMap<&str, &'a StackService>,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<&'a StackService>,
    ) {
        let Some(service) = by_key.get(key) else { return };
        if !seen.insert(key.to_owned()) {
            return;
        }
        for (need, _) in self.needs(service) {
            self.visit(&need, by_key, seen, order);
        }
        order.push(service);
    }

    /// Returns the services that a service waits for, by their keys.
    pub(super) fn needs(&self, service: &StackService) -> Vec<(String, model::DependencyCondition)> {
        let prefix = format!("{}_", self.name);
        let key = |full: &str| full.strip_prefix(&prefix).unwrap_or(full).to_owned();
        service.spec.depends_on.iter().map(|d| (key(&d.service), d.condition)).collect()
    }

    /// Returns the project's containers in the order of their services and numbers.
    pub(super) async fn members(&self, client: &Client) -> Result<Vec<Member>> {
        let filters = serde_json::json!({"label": {format!("{}={}", label::PROJECT, self.name): true}});
        let found = client.containers(&[("all", "1"), ("filters", &filters.to_string())]).await?;
        let mut members: Vec<Member> = found.into_iter().map(member).collect();
        members.sort_by(|a, b| (&a.service, a.one_off, a.number).cmp(&(&b.service, b.one_off, b.number)));
        Ok(members)
    }

    /// Returns the containers of some services, of all that the project has if none is named; not those of `run`.
    ///
    /// # Errors
    /// No such service.
    pub(super) async fn of_services(&self, client: &Client, services: &[String]) -> Result<Vec<Member>> {
        let mut members = self.members(client).await?;
        members.retain(|m| !m.one_off);
        for name in services {
            if !self.known.contains(name) && !members.iter().any(|m| m.service == *name) {
                bail!("no such service: {name}");
            }
        }
        let known = |m: &Member| self.stack.is_none() || self.known.contains(&m.service);
        members.retain(|m| if services.is_empty() { known(m) } else { services.contains(&m.service) });
        Ok(members)
    }

    /// Returns one container of a service.
    ///
    /// # Errors
    /// It has none of that number that runs.
    pub(super) async fn running(&self, client: &Client, service: &str, index: u64) -> Result<Member> {
        let members = self.of_services(client, &[service.to_owned()]).await?;
        let mut running = members.into_iter().filter(Member::is_running);
        // Number 1 may have been replaced by a higher one.
        let found = if index <= 1 { running.next() } else { running.find(|m| m.number == index) };
        found.with_context(|| format!("service {service:?} is not running container #{index}"))
    }

    /// Is it a service that the file does not name?
    pub(super) fn is_orphan(&self, member: &Member) -> bool {
        self.stack.is_some() && !self.known.contains(&member.service)
    }
}

/// Takes the services that were asked for by name, and what they need, from those of all profiles.
fn with_wanted(active: Stack, everything: Stack, wanted: &[String]) -> Stack {
    let prefix = format!("{}_", everything.name);
    let mut keys: BTreeSet<String> = active.services.iter().map(|s| s.key.clone()).collect();
    let mut open: Vec<String> = wanted.to_vec();
    while let Some(key) = open.pop() {
        let Some(service) = everything.services.iter().find(|s| s.key == key) else { continue };
        if keys.insert(key) {
            let needs = service.spec.depends_on.iter();
            open.extend(needs.filter_map(|d| d.service.strip_prefix(&prefix).map(str::to_owned)));
        }
    }
    let mut stack = everything;
    stack.services.retain(|s| keys.contains(&s.key));
    let used: BTreeSet<String> =
        stack.services.iter().flat_map(|s| s.networks.iter().map(|n| n.network.clone())).collect();
    stack.networks.retain(|n| used.contains(&n.name));
    stack
}

fn member(summary: types::ContainerSummary) -> Member {
    let of = |key: &str| summary.labels.get(key).cloned().unwrap_or_default();
    Member {
        id: summary.id.clone(),
        name: summary.names.first().map(|n| n.trim_start_matches('/').to_owned()).unwrap_or_default(),
        service: of(label::SERVICE),
        number: of(label::NUMBER).parse().unwrap_or(0),
        one_off: of(label::ONE_OFF).eq_ignore_ascii_case("true"),
        hash: of(label::HASH),
        image_id: summary.image_id.clone(),
        state: summary.state.clone(),
        summary,
    }
}

/// Returns the files that were named, else that of this folder or of one above it, with its override beside it.
/// Source: docker/compose, `COMPOSE_FILE` and the search of `compose.yaml`.
fn files(args: &ProjectArgs) -> Result<Vec<PathBuf>> {
    if !args.file.is_empty() {
        return Ok(args.file.clone());
    }
    if let Some(listed) = std::env::var_os("COMPOSE_FILE").filter(|v| !v.is_empty()) {
        return Ok(std::env::split_paths(&listed).collect());
    }
    let start = match &args.project_directory {
        Some(folder) => folder.clone(),
        None => std::env::current_dir().context("there is no current folder")?,
    };
    let found = start.ancestors().find_map(|folder| deploy::default_file(folder).ok());
    let Some(file) = found else {
        deploy::default_file(Path::new(""))?;
        bail!("no compose file here");
    };
    let mut files = vec![file.clone()];
    let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = ["yml", "yaml"].map(|ending| file.with_file_name(format!("{stem}.override.{ending}")));
    files.extend(beside.into_iter().find(|f| f.exists()));
    Ok(files)
}

fn sources(args: &ProjectArgs, files: &[PathBuf]) -> Result<Sources> {
    let profiles = std::env::var("COMPOSE_PROFILES").unwrap_or_default();
    let profiles = profiles.split(',').filter(|p| !p.is_empty()).map(str::to_owned);
    let sources = deploy::sources(files, args.project_name.clone())?;
    let project_dir = match &args.project_directory {
        Some(folder) => folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?,
        None => sources.project_dir,
    };
    Ok(Sources {
        env_files: args.env_file.clone(),
        profiles: args.profile.iter().cloned().chain(profiles).collect(),
        lenient: args.lenient,
        place: Place::Host,
        project_dir,
        ..sources
    })
}
