//! `rswarm deploy`: a compose file becomes networks, secrets, configs and services of the swarm.
//!
//! Read and check everything first, say what would change, then change it: what the file says wrong changes
//! nothing.

use super::service::{STACK_LABEL, converge, pinned};
use crate::{cli::DeployArgs, output};
use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use compose::{Stack, StackService};
use docker_api::{
    client::{Client, Query},
    convert, types,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Names looked for when no file is given, in this order. Source: Docker Compose.
const DEFAULT_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// Runs `rswarm deploy`.
pub(crate) async fn run(client: &Client, args: &DeployArgs) -> Result<()> {
    let stack = load(args)?;
    deploy(client, &stack, args).await
}

/// Reads and checks the files; nothing is asked of a daemon yet.
fn load(args: &DeployArgs) -> Result<Stack> {
    let files = if args.files.is_empty() { vec![default_file()?] } else { args.files.clone() };
    let (stack, warnings) = compose::load(&sources(&files, args.name.clone())?, &compose::Disk)?;
    for warning in warnings {
        output::warning(&warning.to_string());
    }
    Ok(stack)
}

/// Reads the files; paths in them begin at the folder of the first.
pub(super) fn sources(files: &[PathBuf], name: Option<String>) -> Result<compose::Sources> {
    let texts = files.iter().map(|path| Ok((path.clone(), read(path)?))).collect::<Result<Vec<_>>>()?;
    let project_dir = files
        .first()
        .and_then(|f| f.parent())
        .filter(|d| !d.as_os_str().is_empty())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let project_dir =
        project_dir.canonicalize().with_context(|| format!("cannot read {}", project_dir.display()))?;
    let env = std::env::vars().collect();
    Ok(compose::Sources { files: texts, project_dir, env, name, ..compose::Sources::default() })
}

fn default_file() -> Result<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|f| f.exists()).with_context(|| {
        format!("no compose file here; hint: name one, or make one of {}", DEFAULT_FILES.join(", "))
    })
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("cannot read standard input");
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What is in the swarm under the stack's label, and what the stack refers to outside it.
struct Present {
    services: BTreeMap<String, types::Service>,
    networks: BTreeMap<String, types::Network>,
    secrets: BTreeMap<String, types::Secret>,
    configs: BTreeMap<String, types::Config>,
}

impl Present {
    async fn ask(client: &Client) -> Result<Self> {
        let all: Query<'_> = &[];
        let scope: Query<'_> = &[("filters", r#"{"scope":{"swarm":true}}"#)];
        Ok(Self {
            services: client.services(all).await?.into_iter().map(|s| (s.spec.name.clone(), s)).collect(),
            networks: client.networks(scope).await?.into_iter().map(|n| (n.name.clone(), n)).collect(),
            secrets: client.secrets(all).await?.into_iter().map(|s| (s.spec.name.clone(), s)).collect(),
            configs: client.configs(all).await?.into_iter().map(|c| (c.spec.name.clone(), c)).collect(),
        })
    }
}

/// Deploys a checked stack.
///
/// # Errors
/// Something it refers to is missing, a manager refuses a spec, or the services do not run in time.
pub(crate) async fn deploy(client: &Client, stack: &Stack, args: &DeployArgs) -> Result<()> {
    let present = Present::ask(client).await?;
    check_external(stack, &present)?;
    if args.plan {
        return print_plan(client, stack, &present, args.prune).await;
    }
    for network in stack.networks.iter().filter(|n| !n.external && !present.networks.contains_key(&n.name)) {
        let spec =
            network.spec.as_ref().with_context(|| format!("network {} has no definition", network.name))?;
        client.network_create(&convert::network_create_json(spec)).await?;
        output::line(&format!("Creating network {}", network.name))?;
    }
    let secrets = put_secrets(client, stack, &present).await?;
    let configs = put_configs(client, stack, &present).await?;
    let mut changed = BTreeSet::new();
    for service in &stack.services {
        let spec = service_json(client, service, &secrets, &configs).await?;
        changed.insert(spec.name.clone());
        match present.services.get(&spec.name) {
            None => {
                output::line(&format!("Creating service {}", spec.name))?;
                client.service_create(&spec).await?;
            }
            Some(stored) => {
                output::line(&format!("Updating service {} (id: {})", spec.name, stored.id))?;
                client.service_update(&stored.id, stored.version.index, &spec).await?;
            }
        }
    }
    if args.prune {
        for service in surplus(stack, &present) {
            output::line(&format!("Removing service {}", service.spec.name))?;
            client.service_remove(&service.id).await?;
        }
    }
    let record = types::RecordStack {
        name: stack.name.clone(),
        author: std::env::var("USER").unwrap_or_default(),
        source: stack.to_yaml(),
    };
    client.stack_record(&record).await?;
    if args.detach {
        return Ok(());
    }
    converge(client, &changed, args.timeout).await
}

fn check_external(stack: &Stack, present: &Present) -> Result<()> {
    let mut missing = Vec::new();
    for network in stack.networks.iter().filter(|n| n.external) {
        // The host's own network is everywhere.
        if !present.networks.contains_key(&network.name) && network.name != "host" {
            missing.push(format!(
                "network {:?} is declared as external, but could not be found. You need to create a swarm-scoped \
                 network before the stack is deployed",
                network.name
            ));
        }
    }
    for secret in stack.secrets.iter().filter(|s| s.external && !present.secrets.contains_key(&s.name)) {
        missing
            .push(format!("secret not found: {} (it is declared as external; create it first)", secret.name));
    }
    for config in stack.configs.iter().filter(|c| c.external && !present.configs.contains_key(&c.name)) {
        missing
            .push(format!("config not found: {} (it is declared as external; create it first)", config.name));
    }
    if missing.is_empty() { Ok(()) } else { bail!(missing.join("\n")) }
}

/// Makes the stack's secrets and returns the ids of all it uses, by name.
async fn put_secrets(client: &Client, stack: &Stack, present: &Present) -> Result<BTreeMap<String, String>> {
    let mut ids = BTreeMap::new();
    for secret in &stack.secrets {
        let id = match present.secrets.get(&secret.name) {
            // Its data cannot be read back, so whether it changed is not known: as Docker, it stays.
            Some(stored) => stored.id.clone(),
            None => {
                output::line(&format!("Creating secret {}", secret.name))?;
                let data = secret.data.as_ref().map(|d| BASE64_STANDARD.encode(&d.0)).unwrap_or_default();
                let (name, labels) = (secret.name.clone(), secret.labels.clone());
                let spec = types::SecretSpec { name, labels, data, ..Default::default() };
                client.secret_create(&spec).await?.id
            }
        };
        ids.insert(secret.name.clone(), id);
    }
    Ok(ids)
}

async fn put_configs(client: &Client, stack: &Stack, present: &Present) -> Result<BTreeMap<String, String>> {
    let mut ids = BTreeMap::new();
    for config in &stack.configs {
        let data = BASE64_STANDARD.encode(config.data.as_deref().unwrap_or_default());
        let id = match present.configs.get(&config.name) {
            Some(stored) if config.external || stored.spec.data == data => stored.id.clone(),
            Some(_) => bail!(
                "config {} has another content than the one in the swarm, and a config cannot be changed; hint: give \
                 it a new name (`name:` under configs) so that its services roll over to it",
                config.name
            ),
            None => {
                output::line(&format!("Creating config {}", config.name))?;
                let (name, labels) = (config.name.clone(), config.labels.clone());
                let spec = types::ConfigSpec { name, labels, data, ..Default::default() };
                client.config_create(&spec).await?.id
            }
        };
        ids.insert(config.name.clone(), id);
    }
    Ok(ids)
}

/// Returns a service in Docker's JSON, its references filled in.
async fn service_json(
    client: &Client,
    service: &StackService,
    secrets: &BTreeMap<String, String>,
    configs: &BTreeMap<String, String>,
) -> Result<types::ServiceSpec> {
    let mut spec = convert::service_spec_json(&service.spec);
    spec.task_template.networks = service
        .networks
        .iter()
        .map(|attachment| types::NetworkAttachmentConfig {
            target: attachment.network.clone(),
            aliases: attachment.aliases.clone(),
            ..Default::default()
        })
        .collect();
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.image = pinned(client, &container.image).await?;
    let target = |file: &model::FileRef<String>| {
        Some(types::FileTarget {
            name: file.target.clone(),
            uid: file.uid.clone(),
            gid: file.gid.clone(),
            mode: file.mode,
        })
    };
    for file in &service.secrets {
        let id = secrets.get(&file.id).with_context(|| format!("secret {} is not defined", file.id))?;
        container.secrets.push(types::SecretReference {
            file: target(file),
            secret_id: id.clone(),
            secret_name: file.id.clone(),
        });
    }
    for file in &service.configs {
        let id = configs.get(&file.id).with_context(|| format!("config {} is not defined", file.id))?;
        container.configs.push(types::ConfigReference {
            file: target(file),
            runtime: None,
            config_id: id.clone(),
            config_name: file.id.clone(),
        });
    }
    Ok(spec)
}

/// Services of the stack in the swarm that the file does not name.
fn surplus<'a>(stack: &Stack, present: &'a Present) -> Vec<&'a types::Service> {
    let named: BTreeSet<&str> = stack.services.iter().map(|s| s.spec.name.as_str()).collect();
    let of_stack = |s: &&types::Service| s.spec.labels.get(STACK_LABEL) == Some(&stack.name);
    present.services.values().filter(of_stack).filter(|s| !named.contains(s.spec.name.as_str())).collect()
}

async fn print_plan(client: &Client, stack: &Stack, present: &Present, prune: bool) -> Result<()> {
    let mut changes = 0;
    let mut say = |text: String| {
        changes += 1;
        output::line(&text)
    };
    for network in stack.networks.iter().filter(|n| !n.external && !present.networks.contains_key(&n.name)) {
        say(format!("+ network {}", network.name))?;
    }
    let mut secrets: BTreeMap<String, String> = BTreeMap::new();
    for secret in &stack.secrets {
        match present.secrets.get(&secret.name) {
            Some(stored) => drop(secrets.insert(secret.name.clone(), stored.id.clone())),
            None => {
                secrets.insert(secret.name.clone(), String::new());
                say(format!("+ secret {}", secret.name))?;
            }
        }
    }
    let mut configs: BTreeMap<String, String> = BTreeMap::new();
    for config in &stack.configs {
        match present.configs.get(&config.name) {
            Some(stored) => drop(configs.insert(config.name.clone(), stored.id.clone())),
            None => {
                configs.insert(config.name.clone(), String::new());
                say(format!("+ config {}", config.name))?;
            }
        }
    }
    for service in &stack.services {
        let spec = service_json(client, service, &secrets, &configs).await?;
        match present.services.get(&spec.name) {
            None => say(format!("+ service {}", spec.name))?,
            Some(stored) => {
                let names: BTreeMap<&str, &str> =
                    present.networks.values().map(|n| (n.id.as_str(), n.name.as_str())).collect();
                let fields = differences(&stored.spec, &spec, &names)?;
                if !fields.is_empty() {
                    say(format!("~ service {}", spec.name))?;
                    fields.iter().try_for_each(|field| output::line(&format!("    {field}")))?;
                }
            }
        }
    }
    if prune {
        for service in surplus(stack, present) {
            say(format!("- service {}", service.spec.name))?;
        }
    }
    if changes == 0 { output::line("No changes.") } else { Ok(()) }
}

/// Returns one line for each field that differs: `TaskTemplate.ContainerSpec.Image: "a" -> "b"`.
fn differences(
    old: &types::ServiceSpec,
    new: &types::ServiceSpec,
    networks: &BTreeMap<&str, &str>,
) -> Result<Vec<String>> {
    let mut old = old.clone();
    // Stored specs name networks by id.
    for network in &mut old.task_template.networks {
        if let Some(name) = networks.get(network.target.as_str()) {
            network.target = (*name).to_owned();
        }
    }
    let mut lines = Vec::new();
    diff("", &serde_json::to_value(&old)?, &serde_json::to_value(new)?, &mut lines);
    Ok(lines)
}

fn diff(path: &str, old: &serde_json::Value, new: &serde_json::Value, lines: &mut Vec<String>) {
    use serde_json::Value;
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                diff(&below, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), lines);
            }
        }
        (a, b) if a == b => {}
        (a, b) => lines.push(format!("{path}: {a} -> {b}")),
    }
}
