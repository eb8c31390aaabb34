//! A project: what its file says, and which containers it has.

use super::{super::deploy, provide, surroundings::Surroundings};
use crate::{
    cli::{Ansi, LogLook, ProjectArgs},
    output,
};
use anyhow::{Context, Result, bail};
use compose::{Sources, Stack, StackService};
use docker_api::{client::Client, types};
use futures::{StreamExt, TryStreamExt};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
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
    /// What tells one container of `run` from others.
    pub(crate) const SLUG: &str = "com.docker.compose.slug";
    /// What a volume was asked for as.
    pub(crate) const VOLUME_HASH: &str = "rswarm.volume-hash";
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
    /// With which variables its files are read.
    pub(super) env: BTreeMap<String, String>,
    /// Between the parts of a container's name.
    pub(super) separator: char,
    /// How much is done at once; `None` = all of a step.
    pub(super) parallel: Option<usize>,
    pub(super) orphans: Orphans,
    /// Networks are made also where no service uses them.
    pub(super) all_resources: bool,
    pub(super) ansi: Ansi,
    /// More is told of what happens.
    pub(super) verbose: bool,
    /// Variables that services get besides the file's, by their keys: from providers, of models.
    given: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    /// Nothing happens: what is done on this machine itself, and not by the daemon, is left out.
    pub(super) dry_run: bool,
}

/// What becomes of containers that the file does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphans {
    /// They are told of.
    Told,
    /// They are no matter: COMPOSE_IGNORE_ORPHANS.
    Ignored,
    /// They go as with `--remove-orphans`: COMPOSE_REMOVE_ORPHANS.
    Removed,
}

/// A service that another one waits for.
#[derive(Debug, Clone)]
pub(super) struct Need {
    pub(super) service: String,
    pub(super) condition: model::DependencyCondition,
    /// Its restart restarts the other one.
    pub(super) restarts: bool,
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
    pub(super) summary: types::ContainerSummary<'static>,
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
        let meant = Some(wanted.to_vec()).filter(|wanted| !wanted.is_empty());
        Self::load_meant(args, wanted, meant)
    }

    /// As [`load`](Self::load); `meant`: the services whose variables matter, if not those of all do.
    pub(super) fn load_meant(
        args: &ProjectArgs,
        wanted: &[String],
        meant: Option<Vec<String>>,
    ) -> Result<Self> {
        let around = Surroundings::read(args)?;
        let files = around.files()?;
        let sources = Sources { meant, ..around.sources(&files)? };
        let all = Sources { profiles: vec!["*".to_owned()], ..sources.clone() };
        let reach = around.reach();
        let everything = compose::load(&all, &reach).ok();
        let known: BTreeSet<String> =
            everything.iter().flat_map(|(stack, _)| stack.services.iter().map(|s| s.key.clone())).collect();
        let active = compose::load(&sources, &reach).map_err(|error| deploy::with_line(error, &sources));
        let missing = match &active {
            Ok((stack, _)) => wanted.iter().any(|name| !stack.services.iter().any(|s| s.key == *name)),
            // A file whose services all have profiles.
            Err(_) => !wanted.is_empty(),
        };
        let (stack, warnings) = match everything {
            Some((everything, warnings)) if missing => {
                let active: BTreeSet<String> = active
                    .iter()
                    .flat_map(|(stack, _)| stack.services.iter().map(|s| s.key.clone()))
                    .collect();
                (with_wanted(active, everything, wanted), warnings)
            }
            _ => active?,
        };
        for warning in warnings {
            output::warning(&warning.to_string());
        }
        let known =
            if known.is_empty() { stack.services.iter().map(|s| s.key.clone()).collect() } else { known };
        let env = compose::variables(&sources, &reach)?;
        if args.verbose {
            let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
            let env_files: Vec<String> = sources.env_files.iter().map(|f| f.display().to_string()).collect();
            output::progress(&format!(
                "project {}: files {}; folder {}; variables from {}; profiles {}",
                stack.name,
                names.join(", "),
                sources.project_dir.display(),
                if env_files.is_empty() { "the shell".to_owned() } else { env_files.join(", ") },
                if sources.profiles.is_empty() { "none".to_owned() } else { sources.profiles.join(", ") },
            ));
        }
        let (folder, all_resources) = (sources.project_dir, sources.all_resources);
        Self::of(
            &around,
            Self {
                name: stack.name.clone(),
                stack: Some(stack),
                known,
                files,
                folder,
                env,
                all_resources,
                ..Self::bare()
            },
        )
    }

    fn bare() -> Self {
        Self {
            name: String::new(),
            stack: None,
            known: BTreeSet::new(),
            files: Vec::new(),
            folder: PathBuf::new(),
            env: BTreeMap::new(),
            separator: '-',
            parallel: None,
            orphans: Orphans::Told,
            all_resources: false,
            ansi: Ansi::Auto,
            verbose: false,
            given: Mutex::default(),
            dry_run: false,
        }
    }

    /// Adds how the project is spoken of.
    fn of(around: &Surroundings<'_>, project: Self) -> Result<Self> {
        let orphans = match (around.removes_orphans()?, around.ignores_orphans()?) {
            (true, _) => Orphans::Removed,
            (false, true) => Orphans::Ignored,
            (false, false) => Orphans::Told,
        };
        Ok(Self {
            separator: if around.underscores()? { '_' } else { '-' },
            parallel: around.parallel()?,
            ansi: around.ansi()?,
            verbose: around.is_verbose(),
            dry_run: around.is_rehearsed(),
            orphans,
            ..project
        })
    }

    /// As [`load`](Self::load); a project that is named by flag, and has no file by flag, needs none, and one that a
    /// variable names has one if it is there. What only acts on containers needs nobody's variables. Source: docker/compose `cmd/compose/compose.go`, `projectOrName`.
    pub(super) fn load_or_named(args: &ProjectArgs, wanted: &[String]) -> Result<Self> {
        let around = Surroundings::read(args)?;
        let of_file = || Self::load_meant(args, wanted, Some(Vec::new()));
        let Some(name) = around.name() else { return of_file() };
        let by_flag = args.project_name.is_some() && args.file.is_empty();
        if by_flag || (args.file.is_empty() && around.files().is_err()) {
            return Self::of(&around, Self { name, ..Self::bare() });
        }
        of_file()
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

    /// Gives the variables of a service's provider to those that need it, under its name unless they are to be as they are.
    pub(super) fn give(&self, from: &StackService, variables: &[provide::Given]) -> Result<()> {
        let prefix = format!("{}_", from.key.to_uppercase());
        for service in &self.stack()?.services {
            if !self.needs(service).iter().any(|(need, _)| *need == from.key) {
                continue;
            }
            for variable in variables {
                let provide::Given { name, value, raw } = variable;
                let other = self.environment(service).into_iter().find_map(|entry| {
                    let (known, other) = entry.split_once('=').unwrap_or((&entry, ""));
                    (known == name).then(|| other.to_owned())
                });
                if *raw && other.is_some_and(|other| other != *value) {
                    output::warning(&format!(
                        "provider {:?} overrides environment variable {name:?} in service {:?}",
                        from.key, service.key
                    ));
                }
                let name = if *raw { name.clone() } else { format!("{prefix}{name}") };
                self.tell(service, [(name, value.clone())]);
            }
        }
        Ok(())
    }

    /// Gives a service more variables.
    pub(super) fn tell(&self, service: &StackService, variables: impl IntoIterator<Item = (String, String)>) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry(service.key.clone()).or_default().extend(variables);
    }

    /// Returns the variables of a service: the file's, and over them those that it was given.
    pub(super) fn environment(&self, service: &StackService) -> Vec<String> {
        let mut all = service.spec.task.container.env.clone();
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in given.get(&service.key).into_iter().flatten() {
            all.retain(|entry| entry.split('=').next() != Some(name));
            all.push(format!("{name}={value}"));
        }
        all
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

    /// Returns the services that a container's service waits for: what the file says, else what it was made with.
    pub(super) fn needs_of(&self, member: &Member) -> Vec<Need> {
        if let Some(service) =
            self.stack.iter().flat_map(|stack| &stack.services).find(|s| s.key == member.service)
        {
            let restarts =
                |key: &String| service.host.as_ref().is_some_and(|h| h.restarts_with.contains(key));
            let needs = self.all_needs(service).into_iter();
            return needs
                .map(|(service, condition)| Need { restarts: restarts(&service), service, condition })
                .collect();
        }
        let listed = member.summary.labels.get(label::DEPENDS).map(String::as_str).unwrap_or_default();
        listed.split(',').filter_map(need).collect()
    }

    /// Returns what a service needs, and what the providers need that it needs: they have no container that stands between.
    pub(super) fn all_needs(&self, service: &StackService) -> Vec<(String, model::DependencyCondition)> {
        let mut all = self.needs(service);
        let mut open = vec![service];
        while let Some(service) = open.pop() {
            for (need, _) in self.needs(service) {
                let mut services = self.stack.iter().flat_map(|stack| &stack.services);
                let Some(provided) = services.find(|s| s.key == need && provide::of(s).is_some()) else {
                    continue;
                };
                all.extend(self.needs(provided));
                open.push(provided);
            }
        }
        all
    }

    /// Returns services, and those that they wait for, and so on.
    pub(super) fn with_needed(&self, members: &[Member], services: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut open = services.to_vec();
        while let Some(service) = open.pop() {
            if all.contains(&service) {
                continue;
            }
            if let Some(member) = members.iter().find(|m| m.service == service && !m.one_off) {
                open.extend(self.needs_of(member).into_iter().map(|need| need.service));
            }
            all.push(service);
        }
        all
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
        self.check_names(&members, services)?;
        let known = |m: &Member| self.stack.is_none() || self.known.contains(&m.service);
        members.retain(|m| if services.is_empty() { known(m) } else { services.contains(&m.service) });
        Ok(members)
    }

    /// Refuses services that neither the file nor a container knows.
    pub(super) fn check_names(&self, members: &[Member], services: &[String]) -> Result<()> {
        for name in services {
            if !self.known.contains(name) && !members.iter().any(|m| m.service == *name) {
                bail!("no such service: {name}");
            }
        }
        Ok(())
    }

    /// Returns one container of a service: that of a number, else the first one, else one of `run`.
    ///
    /// # Errors
    /// It has none such that runs, or that is there if `also_ended`.
    pub(super) async fn one(
        &self,
        client: &Client,
        service: &str,
        index: Option<u64>,
        also_ended: bool,
    ) -> Result<Member> {
        let members = self.members(client).await?;
        self.check_names(&members, std::slice::from_ref(&service.to_owned()))?;
        // Those of `run` come last; beside one that runs may be its successor, which does not yet.
        let fits = |m: &&Member| m.service == service && index.is_none_or(|n| m.number == n && !m.one_off);
        let one = members.iter().filter(fits).find(|m| m.is_running());
        let one = one.or_else(|| members.iter().find(fits).filter(|_| also_ended)).cloned();
        one.with_context(|| match index {
            Some(index) => format!("service {service:?} is not running container #{index}"),
            None => format!("service {service:?} is not running"),
        })
    }

    /// Is it a service that the file does not name, or a container of `run` that has ended?
    pub(super) fn is_orphan(&self, member: &Member) -> bool {
        if member.one_off {
            return matches!(member.state.as_str(), "exited" | "dead");
        }
        self.is_stranger(member)
    }

    /// Does the file not name its service?
    pub(super) fn is_stranger(&self, member: &Member) -> bool {
        self.stack.is_some() && !self.known.contains(&member.service)
    }

    /// Returns how lines of containers look: as was asked for with the word, else for the project.
    pub(super) fn look(&self, asked: &LogLook) -> LogLook {
        LogLook {
            no_color: asked.no_color || self.ansi == Ansi::Never,
            colour: self.ansi == Ansi::Always,
            no_log_prefix: asked.no_log_prefix,
        }
    }

    /// Is a service's image named after it, because the file gives it no name?
    pub(super) fn names_image(&self, service: &StackService) -> bool {
        let name = format!("{}{}{}", self.name, self.separator, service.key);
        service.build.is_some() && service.spec.task.container.image == name
    }

    /// Does all of a step, so much at once as was asked for.
    ///
    /// # Errors
    /// Of the first that fails.
    pub(super) async fn together<T, F: Future<Output = Result<T>>>(
        &self,
        all: impl IntoIterator<Item = F>,
    ) -> Result<Vec<T>> {
        let all: Vec<F> = all.into_iter().collect();
        let limit = self.parallel.unwrap_or(all.len()).max(1);
        futures::stream::iter(all).buffered(limit).try_collect().await
    }
}

/// Reads `KEY:CONDITION:RESTARTS` of a label.
fn need(text: &str) -> Option<Need> {
    let mut parts = text.split(':');
    let service = parts.next().filter(|s| !s.is_empty())?.to_owned();
    let condition = match parts.next() {
        Some("service_healthy") => model::DependencyCondition::Healthy,
        Some("service_completed_successfully") => model::DependencyCondition::CompletedSuccessfully,
        _ => model::DependencyCondition::Started,
    };
    Some(Need { service, condition, restarts: parts.next() == Some("true") })
}

/// Takes the services that were asked for by name, and what they need, from those of all profiles.
fn with_wanted(active: BTreeSet<String>, everything: Stack, wanted: &[String]) -> Stack {
    let prefix = format!("{}_", everything.name);
    let mut keys = active;
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

fn member(summary: types::ContainerSummary<'static>) -> Member {
    let of = |key: &str| summary.labels.get(key).cloned().unwrap_or_default();
    Member {
        id: summary.id.to_string(),
        name: summary.names.first().map(|n| n.trim_start_matches('/').to_owned()).unwrap_or_default(),
        service: of(label::SERVICE),
        number: of(label::NUMBER).parse().unwrap_or(0),
        one_off: of(label::ONE_OFF).eq_ignore_ascii_case("true"),
        hash: of(label::HASH),
        image_id: summary.image_id.to_string(),
        state: summary.state.to_string(),
        summary,
    }
}
