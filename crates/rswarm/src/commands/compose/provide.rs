//! Programs that provide what services need: a `provider:` in place of containers, and Docker's model runner for
//! `models:`. They are other people's, named by the file and found here; nothing else is run.
//!
//! ```text
//!  rswarm --docker-TYPE compose --project-name=P up --OPTION=VALUE SERVICE--> program
//!         <--------- {"type": "info|debug|error|setenv|rawsetenv", "message": ..} lines
//! ```
//! Source: docker/compose `docs/extension.md`, `pkg/compose/plugins.go`, `pkg/compose/model.go`; docker/cli
//! `cli-plugins/manager`.

use super::project::Project;
use crate::{commands::credentials, output};
use anyhow::{Context, Result, bail};
use compose::{Provider, StackModel, StackService};
use docker_api::client::Client;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

/// How long a program may take to say what it can do. What it then does may take as long as it takes, until Ctrl-C.
const SHORT: Duration = Duration::from_secs(30);
/// *Unit:* bytes of one message of a program.
const MESSAGE_MAX: u64 = 1 << 20;
/// *Unit:* bytes of a short answer.
const ANSWER_MAX: usize = 4 << 20;
/// By which Docker's CLI tells its plugins that they are plugins. Source: docker/cli `cli-plugins/metadata`.
const REEXEC: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
/// What can be told that a runner is to pass on. Source: docker/compose `pkg/compose/model.go`.
const RUNTIME_FLAGS_SINCE: [u64; 3] = [1, 0, 6];

/// What a provider is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Up,
    Down,
    Stop,
}

impl Event {
    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Stop => "stop",
        }
    }

    /// Returns how it is told: as it begins, is done, would be done.
    fn told(self) -> [&'static str; 3] {
        match self {
            Self::Up => ["Creating", "Created", "create"],
            Self::Down => ["Removing", "Removed", "remove"],
            Self::Stop => ["Stopping", "Stopped", "stop"],
        }
    }
}

/// Returns what provides a service, if it is no container.
pub(super) fn of(service: &StackService) -> Option<&Provider> {
    service.host.as_ref()?.provider.as_ref()
}

/// Has a service's provider do something; services that need it get the variables that it gives.
///
/// # Errors
/// There is no such program, it lacks an option that it says it must have, or it fails: in its own words.
pub(super) async fn run(
    client: &Client,
    project: &Project,
    service: &StackService,
    provider: &Provider,
    event: Event,
) -> Result<()> {
    let kind = &provider.kind;
    let path = program(kind, &project.env).with_context(|| {
        format!(
            "service {}: provider {kind:?} is not installed; hint: want a program docker-{kind} in a folder of Docker's \
             plugins, or {kind} in PATH",
            service.key
        )
    })?;
    let [begins, done, verb] = event.told();
    if project.dry_run {
        output::step("Service", &service.key, &format!("{} would {verb} it", path.display()));
        return Ok(());
    }
    let can = metadata(client, project, &path).await;
    // Who does not say that it can stop cannot.
    if event == Event::Stop && can["stop"].is_null() {
        return Ok(());
    }
    let arguments = arguments(project, service, provider, event, &can)?;
    output::step("Service", &service.key, begins);
    let mut command = command(client, project, &path);
    let mut running = command
        .args(&arguments)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", path.display()))?;
    let out = running.stdout.take().context("its standard output")?;
    let variables = listen(project, service, out).await?;
    let ended = running.wait().await.with_context(|| format!("cannot wait for {}", path.display()))?;
    if !ended.success() {
        bail!("service {}: failed to {verb} service provider {kind}: {ended}", service.key);
    }
    output::step("Service", &service.key, done);
    if event == Event::Up {
        project.give(service, &variables)?;
    }
    Ok(())
}

/// A variable that a provider gives, and whether its name is to be as it is.
pub(super) struct Given {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) raw: bool,
}

/// Hears a program out; returns the variables that it gives.
async fn listen(
    project: &Project,
    service: &StackService,
    out: impl tokio::io::AsyncRead + Unpin,
) -> Result<Vec<Given>> {
    let mut out = BufReader::new(out);
    let mut variables: Vec<Given> = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = (&mut out).take(MESSAGE_MAX).read_until(b'\n', &mut line).await;
        if read.with_context(|| format!("service {}: its provider", service.key))? == 0 {
            return Ok(variables);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let invalid = || {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).trim().to_owned();
            format!("service {}: invalid response from its provider: {shown}", service.key)
        };
        let told: Value = serde_json::from_slice(&line).with_context(invalid)?;
        let message = told["message"].as_str().unwrap_or_default();
        match told["type"].as_str().unwrap_or_default() {
            "error" => bail!("service {}: {message}", service.key),
            "info" => {
                output::step("Service", &service.key, message.lines().next().unwrap_or_default());
            }
            "debug" if project.verbose => output::progress(&format!("{}: {message}", service.key)),
            "debug" => {}
            kind @ ("setenv" | "rawsetenv") => {
                let (name, value) = message.split_once('=').with_context(invalid)?;
                variables.push(Given {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    raw: kind == "rawsetenv",
                });
            }
            _ => bail!(invalid()),
        }
    }
}

/// Returns what a provider says that it can do; nothing if it does not say.
async fn metadata(client: &Client, project: &Project, path: &Path) -> Value {
    let mut command = command(client, project, path);
    let said = answer(command.args(["compose", "metadata"])).await;
    let said = said.ok().and_then(|said| serde_json::from_slice(&said).ok());
    said.filter(Value::is_object).unwrap_or_default()
}

/// Returns a provider's command line. Options that it does not know are not for this event.
fn arguments(
    project: &Project,
    service: &StackService,
    provider: &Provider,
    event: Event,
    can: &Value,
) -> Result<Vec<String>> {
    let parameters = can[event.word()]["parameters"].as_array();
    let says = ["up", "down"].iter().any(|event| can[event]["parameters"].is_array())
        || can["description"].as_str().is_some_and(|text| !text.is_empty());
    let parameters = parameters.map(Vec::as_slice).unwrap_or_default();
    let name = |parameter: &Value| parameter["name"].as_str().unwrap_or_default().to_owned();
    let required = |parameter: &&Value| parameter["required"].as_bool().unwrap_or_default();
    if let Some(missing) =
        parameters.iter().filter(required).map(name).find(|name| !provider.options.contains_key(name))
    {
        bail!(
            "service {}: required parameter {missing:?} is missing from provider {:?} definition",
            service.key,
            provider.kind
        );
    }
    let known = |option: &String| !says || parameters.iter().any(|parameter| name(parameter) == *option);
    let mut arguments =
        vec!["compose".to_owned(), format!("--project-name={}", project.name), event.word().to_owned()];
    for (option, values) in provider.options.iter().filter(|(option, _)| known(option)) {
        arguments.extend(values.iter().map(|value| format!("--{option}={value}")));
    }
    arguments.push(service.key.clone());
    Ok(arguments)
}

/// Has the models of services pulled and set up, and tells the services of them.
///
/// # Errors
/// There is no model runner here, or it fails.
pub(super) async fn models(
    client: &Client,
    project: &Project,
    services: &[&StackService],
    quiet: bool,
) -> Result<()> {
    let wanted =
        |service: &&StackService| service.host.iter().flat_map(|h| h.models.clone()).collect::<Vec<_>>();
    let used: Vec<&StackModel> = project
        .stack()?
        .models
        .iter()
        .filter(|model| services.iter().any(|s| wanted(s).iter().any(|used| used.key == model.key)))
        .collect();
    let Some(first) = used.first() else { return Ok(()) };
    let path = plugin("model").with_context(|| {
        format!(
            "model {}: 'models' support requires Docker Model plugin; hint: want docker-model in a folder of Docker's \
             plugins",
            first.key
        )
    })?;
    if project.dry_run {
        for model in &used {
            output::step("Model", &model.name, &format!("{} would pull {}", path.display(), model.model));
        }
        return Ok(());
    }
    let there = answer(command(client, project, &path).args(["ls", "--json"])).await;
    let there: Value = serde_json::from_slice(&there.context("error checking available models")?)
        .context("error checking available models")?;
    let tags = |model: &Value| model["tags"].as_array().cloned().unwrap_or_default();
    let there: Vec<Value> = there.as_array().into_iter().flatten().flat_map(tags).collect();
    for model in &used {
        if !there.iter().any(|tag| tag.as_str() == Some(&model.model)) {
            output::step("Model", &model.name, "Pulling");
            let mut command = command(client, project, &path);
            command.args(["pull", &model.model]);
            if quiet || output::is_silent() {
                command.stdout(Stdio::null());
            } else {
                // What was asked for on our standard output is not its progress.
                command.stdout(std::io::stderr());
            }
            let ended = command.status().await.with_context(|| format!("cannot run {}", path.display()))?;
            if !ended.success() {
                bail!("model {}: cannot pull {}: {ended}", model.key, model.model);
            }
            output::step("Model", &model.name, "Pulled");
        }
        configure(client, project, &path, model).await?;
    }
    let status = answer(command(client, project, &path).args(["status", "--json"])).await;
    let status: Value = serde_json::from_slice(&status.context("error checking docker-model status")?)
        .context("error checking docker-model status")?;
    let endpoint = status["endpoint"].as_str().unwrap_or_default();
    for service in services {
        for told in wanted(service) {
            let Some(model) = used.iter().find(|model| model.key == told.key) else { continue };
            let variables =
                [(told.model_variable, model.model.clone()), (told.endpoint_variable, endpoint.to_owned())];
            project.tell(service, variables);
        }
    }
    Ok(())
}

async fn configure(client: &Client, project: &Project, path: &Path, model: &StackModel) -> Result<()> {
    output::step("Model", &model.name, "Configuring");
    let mut configure = command(client, project, path);
    configure.arg("configure");
    if model.context_size > 0 {
        configure.args(["--context-size", &model.context_size.to_string()]);
    }
    configure.arg(&model.model);
    if !model.runtime_flags.is_empty() {
        let said = answer(command(client, project, path).arg("docker-cli-plugin-metadata")).await;
        let said: Value = said.ok().and_then(|said| serde_json::from_slice(&said).ok()).unwrap_or_default();
        let version = said["Version"].as_str().unwrap_or_default();
        if !is_since(version, RUNTIME_FLAGS_SINCE) {
            bail!(
                "model {}: runtime_flags need docker-model 1.0.6 or later, and {} is {}",
                model.key,
                path.display(),
                if version.is_empty() { "of an unknown version" } else { version }
            );
        }
        configure.arg("--").args(&model.runtime_flags);
    }
    answer(&mut configure).await.with_context(|| format!("model {}: cannot be configured", model.key))?;
    output::step("Model", &model.name, "Configured");
    Ok(())
}

/// Is `v1.2.3` not before this one?
fn is_since(version: &str, since: [u64; 3]) -> bool {
    let numbers = version.trim_start_matches('v').split(['.', '-', '+']).take(3).map(str::parse::<u64>);
    numbers.collect::<Result<Vec<_>, _>>().is_ok_and(|numbers| numbers.as_slice() >= since.as_slice())
}

/// Returns a command that knows the project's variables and the daemon, and ends with us.
fn command(client: &Client, project: &Project, path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().envs(&project.env).env_remove(REEXEC).env("DOCKER_HOST", client.host().to_string());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command that answers at once.
///
/// # Errors
/// It cannot be run, fails, or takes or says too much.
async fn answer(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let ended = tokio::time::timeout(SHORT, command.stderr(Stdio::piped()).output()).await;
    let ended = ended.with_context(|| format!("{name} did not answer within {SHORT:?}"))?;
    let ended = ended.with_context(|| format!("cannot run {name}"))?;
    if !ended.status.success() {
        bail!("{name}: {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim());
    }
    if ended.stdout.len() > ANSWER_MAX {
        bail!("{name} says more than {ANSWER_MAX} bytes");
    }
    Ok(ended.stdout)
}

/// Finds a provider: a plugin of Docker's CLI, else a program.
fn program(kind: &str, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let folders = env.get("PATH").map(std::env::split_paths).into_iter().flatten();
    plugin(kind).or_else(|| folders.map(|folder| folder.join(kind)).find(|path| is_program(path)))
}

/// Finds a plugin of Docker's CLI. Source: docker/cli `cli-plugins/manager`, `getPluginDirs`.
fn plugin(name: &str) -> Option<PathBuf> {
    let folders = credentials::plugin_folders();
    folders.into_iter().map(|folder| folder.join(format!("docker-{name}"))).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, fits) in [
            ("v1.0.6", true),
            ("1.0.10", true),
            ("v2.0.0-rc1", true),
            ("v1.0.5", false),
            ("v0.9.9", false),
            ("", false),
            ("dev", false),
        ] {
            assert_eq!(is_since(version, RUNTIME_FLAGS_SINCE), fits, "{version}");
        }
    }
}
