//! What a deploy would change, and nothing else: made from a look at the swarm, shown, and carried out as it is.

use super::{content, service_json};
use crate::{commands::service::STACK_LABEL, output};
use anyhow::{Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use compose::Stack;
use docker_api::{
    client::{Client, Query},
    convert, types,
};
use model::MountKind;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What is in the swarm.
pub(super) struct Present {
    /// Boxed: kilobytes each, and thousands of them.
    services: BTreeMap<String, Box<types::Service>>,
    networks: BTreeMap<String, types::Network>,
    secrets: BTreeMap<String, types::Secret>,
    configs: BTreeMap<String, types::Config>,
}

impl Present {
    pub(super) async fn ask(client: Client) -> Result<Self> {
        let all: Query<'_> = &[];
        let scope: Query<'_> = &[("filters", r#"{"scope":{"swarm":true}}"#)];
        let services = client.services(all).await?;
        Ok(Self {
            services: services.into_iter().map(|s| (s.spec.name.clone(), Box::new(s))).collect(),
            networks: client.networks(scope).await?.into_iter().map(|n| (n.name.clone(), n)).collect(),
            secrets: client.secrets(all).await?.into_iter().map(|s| (s.spec.name.clone(), s)).collect(),
            configs: client.configs(all).await?.into_iter().map(|c| (c.spec.name.clone(), c)).collect(),
        })
    }

    /// Refuses a stack that refers to what is not there.
    fn check_external(&self, stack: &Stack) -> Result<()> {
        let mut missing = Vec::new();
        for network in stack.networks.iter().filter(|n| n.external) {
            // The host's own network is everywhere.
            if !self.networks.contains_key(&network.name) && network.name != "host" {
                missing.push(format!(
                    "network {:?} is declared as external, but could not be found. You need to create a swarm-scoped \
                     network before the stack is deployed",
                    network.name
                ));
            }
        }
        let secrets = stack.secrets.iter().filter(|s| s.external && !self.secrets.contains_key(&s.name));
        let configs = stack.configs.iter().filter(|c| c.external && !self.configs.contains_key(&c.name));
        let names = secrets.map(|s| ("secret", &s.name)).chain(configs.map(|c| ("config", &c.name)));
        missing.extend(names.map(|(kind, name)| {
            format!("{kind} not found: {name} (it is declared as external; create it first)")
        }));
        if missing.is_empty() { Ok(()) } else { bail!(missing.join("\n")) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Update,
    Remove,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
        }
    }

    /// The sign of a diff, and its colour on a terminal.
    fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Create => ("+", "\x1b[32m"),
            Self::Update => ("~", "\x1b[33m"),
            Self::Remove => ("-", "\x1b[31m"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Change {
    pub(super) action: Action,
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
}

impl Change {
    /// Returns it for programs.
    pub(super) fn json(&self) -> Value {
        let field = |f: &Field| json!({"path": f.path, "old": f.old, "new": f.new});
        let fields: Vec<Value> = self.fields.iter().map(field).collect();
        json!({"action": self.action.word(), "kind": self.kind, "name": self.name, "fields": fields})
    }
}

/// Returns changes for people. `replacing`: also which of them replace tasks.
pub(super) fn in_words(changes: &[Change], colour: bool, replacing: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for change in changes {
        let (sign, on) = change.action.sign();
        let (on, off) = if colour { (on, "\x1b[0m") } else { ("", "") };
        let replaces = replacing && change.fields.iter().any(Field::replaces_tasks);
        let note = if replaces { " (its tasks are replaced)" } else { "" };
        let name = output::visible(&change.name);
        lines.push(format!("{on}{sign} {} {name}{off}{note}", change.kind));
        for field in &change.fields {
            let mark = if replaces && field.replaces_tasks() { "!" } else { " " };
            lines.extend(field.lines().iter().map(|line| format!("  {mark} {}", output::visible(line))));
        }
    }
    lines
}

#[derive(Debug)]
pub(super) struct Field {
    path: String,
    old: Value,
    new: Value,
}

impl Field {
    /// Where a task may run is no reason to replace it.
    fn replaces_tasks(&self) -> bool {
        self.path.starts_with("TaskTemplate.") && !self.path.starts_with("TaskTemplate.Placement")
    }

    fn lines(&self) -> Vec<String> {
        if let (Value::Array(old), Value::Array(new)) = (&self.old, &self.new) {
            let gone = old.iter().filter(|v| !new.contains(v)).map(|v| format!("{}: - {v}", self.path));
            let come = new.iter().filter(|v| !old.contains(v)).map(|v| format!("{}: + {v}", self.path));
            let lines: Vec<String> = gone.chain(come).collect();
            if !lines.is_empty() {
                return lines;
            }
        }
        vec![format!("{}: {} -> {}", self.path, self.old, self.new)]
    }
}

/// A deploy before it happens.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) stack: String,
    changes: Vec<Change>,
    /// What is sent: with the versions that this plan was made from.
    pub(super) apply: types::ApplyStack,
    /// Its services that are new or changed.
    pub(super) touched: BTreeSet<String>,
}

impl Plan {
    /// Compares a checked stack with the swarm. What is sent lacks the source still, which a plan does not need.
    ///
    /// # Errors
    /// Something it refers to is missing, or a manager cannot be asked.
    pub(super) async fn make(
        client: &Client,
        stack: &Stack,
        mut present: Present,
        prune: bool,
    ) -> Result<Self> {
        present.check_external(stack)?;
        let mut plan = Self {
            stack: stack.name.clone(),
            changes: Vec::new(),
            apply: types::ApplyStack::default(),
            touched: BTreeSet::new(),
        };
        plan.networks(stack, &present);
        let (secrets, configs) = (plan.secrets(stack, &present)?, plan.configs(stack, &present)?);
        plan.volumes(stack, &present);
        let names = network_names(client, stack, &present).await?;
        let mut images = BTreeMap::new();
        for service in &stack.services {
            let mut spec = service_json(client, service, &secrets, &configs, &mut images).await?;
            let stored = present.services.remove(&spec.name);
            let mut version = 0;
            if let Some(stored) = &stored {
                version = stored.version.index;
                keep(&mut spec.task_template, &stored.spec.task_template);
            }
            let fields = stored.map(|stored| differences(stored.spec, &spec, &names)).transpose()?;
            match fields {
                None => plan.note(Action::Create, "service", &spec.name, Vec::new()),
                Some(fields) if fields.is_empty() => {}
                Some(fields) => plan.note(Action::Update, "service", &spec.name, fields),
            }
            plan.apply.services.push(types::PlannedService { version, spec, ..Default::default() });
        }
        if prune {
            plan.surplus(&present.services);
        }
        Ok(plan)
    }

    fn note(&mut self, action: Action, kind: &'static str, name: &str, fields: Vec<Field>) {
        if kind == "service" && action != Action::Remove {
            self.touched.insert(name.to_owned());
        }
        self.changes.push(Change { action, kind, name: name.to_owned(), fields });
    }

    fn networks(&mut self, stack: &Stack, present: &Present) {
        for network in stack.networks.iter().filter(|n| !n.external) {
            let Some(wanted) = network.spec.as_ref().map(convert::network_create_json) else { continue };
            if let Some(stored) = present.networks.get(&network.name) {
                if let Some(text) = stays(&stack.name, stored, &wanted) {
                    output::warning(&text);
                }
                continue;
            }
            self.note(Action::Create, "network", &network.name, Vec::new());
            self.apply.networks.push(wanted);
        }
    }

    /// Returns name and id of each secret by the name in the file; the id is empty while it is to be made.
    fn secrets(&mut self, stack: &Stack, present: &Present) -> Result<content::Names> {
        let mut names = content::Names::new();
        for secret in &stack.secrets {
            let Some(data) = secret.data.as_ref().map(|d| &d.0) else {
                let id = present.secrets.get(&secret.name).map(|s| s.id.clone()).unwrap_or_default();
                names.insert(secret.name.clone(), (secret.name.clone(), id));
                continue;
            };
            let stored = present.secrets.values().map(|s| content::Stored {
                id: &s.id,
                name: &s.spec.name,
                stack: s.spec.labels.get(STACK_LABEL).map(String::as_str),
                same: content::is_secret(&s.spec.labels, data)
                    .map(|same| same && s.spec.templating.is_some() == secret.templated),
            });
            let own = secret.name == format!("{}_{}", stack.name, secret.key);
            match content::find(&stack.name, &secret.name, own, stored, "secret")? {
                content::Found::There { name, id } => {
                    self.apply.kept.push(id.clone());
                    names.insert(secret.name.clone(), (name, id));
                }
                content::Found::New { first } => {
                    let (label, hash) = content::secret_label(data)?;
                    let name = if first { secret.name.clone() } else { format!("{}-{hash}", secret.name) };
                    let mut labels = secret.labels.clone();
                    labels.insert(content::LABEL.to_owned(), label);
                    self.note(Action::Create, "secret", &name, Vec::new());
                    let data = BASE64_STANDARD.encode(data);
                    let templating = types::DriverState::golang(secret.templated);
                    let spec = types::SecretSpec {
                        name: name.clone(),
                        labels,
                        data,
                        templating,
                        ..Default::default()
                    };
                    self.apply.secrets.push(spec);
                    names.insert(secret.name.clone(), (name, String::new()));
                }
            }
        }
        Ok(names)
    }

    fn configs(&mut self, stack: &Stack, present: &Present) -> Result<content::Names> {
        let mut names = content::Names::new();
        for config in &stack.configs {
            let Some(data) = &config.data else {
                let id = present.configs.get(&config.name).map(|c| c.id.clone()).unwrap_or_default();
                names.insert(config.name.clone(), (config.name.clone(), id));
                continue;
            };
            let encoded = BASE64_STANDARD.encode(data);
            let stored = present.configs.values().map(|c| content::Stored {
                id: &c.id,
                name: &c.spec.name,
                stack: c.spec.labels.get(STACK_LABEL).map(String::as_str),
                same: Some(c.spec.data == encoded && c.spec.templating.is_some() == config.templated),
            });
            let own = config.name == format!("{}_{}", stack.name, config.key);
            match content::find(&stack.name, &config.name, own, stored, "config")? {
                content::Found::There { name, id } => {
                    self.apply.kept.push(id.clone());
                    names.insert(config.name.clone(), (name, id));
                }
                content::Found::New { first } => {
                    let hash = content::short(data);
                    let name = if first { config.name.clone() } else { format!("{}-{hash}", config.name) };
                    self.note(Action::Create, "config", &name, Vec::new());
                    let labels = config.labels.clone();
                    let templating = types::DriverState::golang(config.templated);
                    let spec = types::ConfigSpec { name: name.clone(), labels, data: encoded, templating };
                    self.apply.configs.push(spec);
                    names.insert(config.name.clone(), (name, String::new()));
                }
            }
        }
        Ok(names)
    }

    /// The stack's volumes that no service of the swarm has yet. Nothing is sent for them: a node makes one when the
    /// first task that mounts it comes, and keeps it.
    fn volumes(&mut self, stack: &Stack, present: &Present) {
        let stored = present.services.values().filter_map(|s| s.spec.task_template.container_spec.as_ref());
        let stored = stored.flat_map(|c| &c.mounts).filter(|m| m.kind == "volume");
        let known: BTreeSet<&str> = stored.map(|m| m.source.as_str()).collect();
        let mounts = stack.services.iter().flat_map(|s| &s.spec.task.container.mounts);
        let new: BTreeSet<&str> = mounts
            .filter_map(|mount| match &mount.kind {
                // Volumes from outside do not have the stack's label.
                MountKind::Volume { name: Some(name), labels, .. } if labels.contains_key(STACK_LABEL) => {
                    Some(name.as_str())
                }
                MountKind::Volume { .. } | MountKind::Bind { .. } | MountKind::Tmpfs { .. } => None,
            })
            .collect();
        for name in new.difference(&known) {
            self.note(Action::Create, "volume", name, Vec::new());
        }
    }

    /// Removes the stack's services among those that the file does not name.
    fn surplus(&mut self, unnamed: &BTreeMap<String, Box<types::Service>>) {
        for (name, service) in unnamed {
            if service.spec.labels.get(STACK_LABEL) == Some(&self.stack) {
                self.note(Action::Remove, "service", name, Vec::new());
                let (id, version) = (service.id.clone(), service.version.index);
                self.apply.removed.push(types::PlannedRemoval { id, version });
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns it for people.
    pub(super) fn lines(&self, colour: bool) -> Vec<String> {
        let mut lines = in_words(&self.changes, colour, true);
        let count = |action| self.changes.iter().filter(|c| c.action == action).count();
        lines.push(if self.is_empty() {
            "No changes.".to_owned()
        } else {
            format!(
                "Plan: {} to create, {} to update, {} to remove.",
                count(Action::Create),
                count(Action::Update),
                count(Action::Remove)
            )
        });
        lines
    }

    /// Returns it for programs.
    pub(super) fn json(&self) -> Value {
        let field = |f: &Field| json!({"path": f.path, "old": f.old, "new": f.new, "replacesTasks": f.replaces_tasks()});
        let change = |c: &Change| {
            json!({
                "action": c.action.word(), "kind": c.kind, "name": c.name,
                "replacesTasks": c.fields.iter().any(Field::replaces_tasks),
                "fields": c.fields.iter().map(field).collect::<Vec<_>>(),
            })
        };
        json!({"stack": self.stack, "changes": self.changes.iter().map(change).collect::<Vec<_>>()})
    }
}

/// Returns the names of the networks that the stack's services are on, by id. Those of every host are in no list.
async fn network_names(
    client: &Client,
    stack: &Stack,
    present: &Present,
) -> Result<BTreeMap<String, String>> {
    let mut names: BTreeMap<String, String> =
        present.networks.values().map(|n| (n.id.clone(), n.name.clone())).collect();
    let stored = stack.services.iter().filter_map(|s| present.services.get(&s.spec.name));
    for network in stored.flat_map(|s| &s.spec.task_template.networks) {
        if !names.contains_key(&network.target) {
            let found = client.network(&network.target).await?;
            names.insert(network.target.clone(), found.name);
        }
    }
    Ok(names)
}

/// Says what of a stored network is not as the file has it now: a network of the swarm cannot be changed.
fn stays(stack: &str, stored: &types::Network, wanted: &types::NetworkCreate) -> Option<String> {
    let name = &stored.name;
    if stored.labels.get(STACK_LABEL).is_none_or(|of| of != stack) {
        return Some(format!(
            "network {name} is there already and is not of this stack; hint: `external: true` says that it is meant"
        ));
    }
    let addresses = |ipam: &types::Ipam| ipam.config.first().cloned().unwrap_or_default();
    let (is, says) = (addresses(&stored.ipam), addresses(&wanted.ipam.clone().unwrap_or_default()));
    let mut options = stored.options.clone();
    // The swarm's own word.
    options.remove(convert::VNI_OPTION);
    // Where a file says no address, the swarm took one.
    let differs = [
        ("driver", stored.driver != wanted.driver),
        ("subnet", !says.subnet.is_empty() && says.subnet != is.subnet),
        ("gateway", !says.gateway.is_empty() && says.gateway != is.gateway),
        ("ip_range", says.ip_range != is.ip_range),
        ("internal", stored.internal != wanted.internal),
        ("attachable", stored.attachable != wanted.attachable),
        ("enable_ipv6", stored.enable_ipv6 != wanted.enable_ipv6.unwrap_or(false)),
        ("driver_opts", options != wanted.options),
        ("labels", stored.labels != wanted.labels),
    ];
    let differs: Vec<&str> =
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect();
    (!differs.is_empty()).then(|| {
        format!(
            "network {name} stays as it is, though the file says otherwise now ({}); hint: a network with another \
             `name` is made, or remove the stack before it is deployed",
            differs.join(", ")
        )
    })
}

/// Takes over what no file says and what, set back, would replace tasks for nothing: restarts that were asked for
/// (source: docker CLI `stack deploy`), and the digest of an image that nobody can tell at the moment.
fn keep(new: &mut types::TaskSpec, stored: &types::TaskSpec) {
    new.force_update = stored.force_update;
    if let (Some(new), Some(stored)) = (&mut new.container_spec, &stored.container_spec)
        && stored.image.split_once('@').is_some_and(|(name, _)| name == new.image)
    {
        new.image.clone_from(&stored.image);
    }
}

/// Returns the fields that differ.
fn differences(
    old: types::ServiceSpec,
    new: &types::ServiceSpec,
    networks: &BTreeMap<String, String>,
) -> Result<Vec<Field>> {
    let (mut old, new) = (by_names(old), by_names(new.clone()));
    // Stored specs name networks by id, and refer to secrets and configs by id too: names say it all.
    for network in &mut old.task_template.networks {
        if let Some(name) = networks.get(&network.target) {
            network.target.clone_from(name);
        }
    }
    let mut fields = Vec::new();
    // Most services of a large stack are as they were.
    if old != new {
        diff("", &serde_json::to_value(old)?, &serde_json::to_value(new)?, &mut fields);
    }
    Ok(fields)
}

fn by_names(mut spec: types::ServiceSpec) -> types::ServiceSpec {
    if let Some(container) = &mut spec.task_template.container_spec {
        container.secrets.iter_mut().for_each(|s| s.secret_id.clear());
        container.configs.iter_mut().for_each(|c| c.config_id.clear());
    }
    spec
}

/// Notes where two values differ, as paths below `path`.
pub(super) fn diff(path: &str, old: &Value, new: &Value, fields: &mut Vec<Field>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                diff(&below, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), fields);
            }
        }
        (a, b) if a == b => {}
        (a, b) => fields.push(Field { path: path.to_owned(), old: a.clone(), new: b.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Meta, Network, NetworkAllocation, NetworkDriver, NetworkSpec};

    fn spec(image: &str, env: &[&str]) -> types::ServiceSpec {
        let container = types::ContainerSpec {
            image: image.into(),
            env: env.iter().map(|e| (*e).to_owned()).collect(),
            ..types::ContainerSpec::default()
        };
        let mut spec = types::ServiceSpec { name: "shop_web".into(), ..types::ServiceSpec::default() };
        spec.task_template.container_spec = Some(container);
        spec
    }

    #[test]
    fn a_plan_says_which_fields_replace_tasks() {
        let fields =
            differences(spec("a:1", &["A=1", "B=2"]), &spec("a:2", &["A=1", "B=3"]), &BTreeMap::new())
                .unwrap();
        assert!(fields.iter().all(Field::replaces_tasks));
        let lines: Vec<String> = fields.iter().flat_map(Field::lines).collect();
        assert_eq!(
            lines,
            [
                "TaskTemplate.ContainerSpec.Env: - \"B=2\"",
                "TaskTemplate.ContainerSpec.Env: + \"B=3\"",
                "TaskTemplate.ContainerSpec.Image: \"a:1\" -> \"a:2\"",
            ]
        );
    }

    #[test]
    fn a_registry_out_of_reach_is_no_reason_to_replace_tasks() {
        let kept = |new: &str, stored: &str| {
            let (mut new, stored) = (spec(new, &[]), spec(stored, &[]));
            keep(&mut new.task_template, &stored.task_template);
            new.task_template.container_spec.unwrap().image
        };
        assert_eq!(kept("a:1", "a:1@sha256:12"), "a:1@sha256:12");
        assert_eq!(kept("a:2", "a:1@sha256:12"), "a:2");
        assert_eq!(kept("a:1@sha256:34", "a:1@sha256:12"), "a:1@sha256:34", "it has moved");
    }

    #[test]
    fn a_network_that_the_file_says_otherwise_now_is_told() {
        let labels = [(STACK_LABEL.to_owned(), "shop".to_owned())].into();
        let wanted = NetworkSpec { labels, ..NetworkSpec::new("shop_back", NetworkDriver::Overlay) };
        let allocation = NetworkAllocation {
            vni: 4097,
            subnet: "10.0.1.0/24".parse().unwrap(),
            gateway: "10.0.1.1".parse().unwrap(),
        };
        let stored = convert::network_json(&Network {
            id: "a".repeat(25).parse().unwrap(),
            meta: Meta::default(),
            spec: wanted.clone(),
            allocation: Some(allocation),
            pending_delete: false,
        });
        let told = |stack: &str, change: &dyn Fn(&mut NetworkSpec)| {
            let mut wanted = wanted.clone();
            change(&mut wanted);
            stays(stack, &stored, &convert::network_create_json(&wanted)).unwrap_or_default()
        };
        assert_eq!(told("shop", &|_| {}), "");
        assert_eq!(told("shop", &|n| n.subnet = Some(allocation.subnet)), "");
        let said = told("shop", &|n| {
            n.subnet = Some("10.0.2.0/24".parse().unwrap());
            n.encrypted = true;
        });
        assert!(said.contains("(subnet, driver_opts)"), "{said}");
        assert!(told("other", &|_| {}).contains("is not of this stack"));
    }

    #[test]
    fn the_same_spec_is_no_change() {
        assert!(
            differences(spec("a:1", &["A=1"]), &spec("a:1", &["A=1"]), &BTreeMap::new()).unwrap().is_empty()
        );
    }
}
