//! What a shell is offered where a name is typed: the names that the daemon has just now.
//!
//! The scripts of `rswarm completion` call this program with [`VARIABLE`] and the words typed so far. It is never slow
//! and never says anything: where the daemon does not answer at once there is nothing to offer.

use crate::cli;
use clap::{Arg, ArgMatches, Command, FromArgMatches as _, parser::ValueSource};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use docker_api::client::{Client, Host};
use std::{collections::BTreeSet, time::Duration};

/// What tells this program that a shell asks.
pub(crate) const VARIABLE: &str = "RSWARM_COMPLETE";
/// *Limit* of the time that a person waits at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// *Limit* of names that are offered.
const NAMES_MAX: usize = 1000;

/// What has names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Containers,
    Tasks,
    Images,
    Networks,
    Volumes,
    Services,
    /// As `SERVICE=`, of which the number is to be typed.
    Scales,
    Stacks,
    Nodes,
    Secrets,
    Configs,
    Contexts,
    Users,
    Commands,
}

/// Returns what is named by an argument of a command; `path`: below `rswarm`.
fn kinds(path: &[&str], id: &str) -> &'static [Kind] {
    use Kind::{
        Commands, Configs, Containers, Contexts, Images, Networks, Nodes, Scales, Secrets, Services, Stacks,
        Tasks, Users, Volumes,
    };
    // Those of one host, with `container` in front or without.
    let host = if let ["container", rest @ ..] = path { rest } else { path };
    match (host, id) {
        (_, "daemon_context" | "context_before") => &[Contexts],
        (["help"], "command") => &[Commands],
        (["exec"], "container") | (["logs"], "name") => &[Containers, Tasks],
        (["pause" | "unpause" | "wait"], "names") => &[Containers],
        (["inspect"], "names") if path.first() != Some(&"container") => {
            &[Containers, Images, Networks, Volumes, Services, Nodes, Secrets, Configs]
        }
        (["inspect"], "names") => &[Containers],
        (["run" | "create"], "words") => &[Images],
        (["run" | "create"] | ["service", "create"], "network") => &[Networks],
        (["service", "update"], "network_add" | "network_rm") => &[Networks],
        (["run" | "create"], "volumes_from") => &[Containers],
        (["service", "create"], "secret") | (["service", "update"], "secret_add" | "secret_rm") => &[Secrets],
        (["service", "create"], "config") | (["service", "update"], "config_add" | "config_rm") => &[Configs],
        (["service", "create"] | ["pull" | "push" | "history"], "image") => &[Images],
        (["service", "update"], "image") => &[Images],
        (["image", "pull" | "push" | "history"], "image") => &[Images],
        (["images" | "rmi"] | ["image", "ls" | "rm"], "repository" | "images") => &[Images],
        (["save"] | ["image", "save"], "images") => &[Images],
        (["tag"] | ["image", "tag"], "source") => &[Images],
        (["image", "inspect"], "names") => &[Images],
        (["scale"] | ["service", "scale"], "services") => &[Scales],
        (["service", "explain" | "logs"], "name") => &[Services, Tasks],
        (["service", "inspect" | "rm"], "names") | (["service", _], "service" | "services") => &[Services],
        (["stack", _], "stack" | "stacks") => &[Stacks],
        (["node", _], "node" | "nodes" | "names") => &[Nodes],
        (["network", "connect" | "disconnect"], "network") | (["network", "inspect" | "rm"], "names") => {
            &[Networks]
        }
        (["volume", "inspect" | "rm"], "names") => &[Volumes],
        (["volume", "export" | "import"], "name") | (["volume", "cp"], "source" | "target") => &[Volumes],
        (["secret", "inspect" | "rm"], "names") => &[Secrets],
        (["config", "inspect" | "rm"], "names") => &[Configs],
        (["context", "inspect" | "rm"], "names") => &[Contexts],
        (["context", "use" | "update" | "export"], "name") | (["context", "create"], "from") => &[Contexts],
        (["user", "update" | "passwd" | "cert" | "revoke" | "login"], "name") => &[Users],
        (["user", "inspect" | "rm"], "names") | (["user", ..], "user" | "users") => &[Users],
        // A project has services of its own, and containers by their names.
        (["compose", ..], _) => &[],
        (_, "container" | "containers") => &[Containers],
        _ => &[],
    }
}

/// Returns the command line with what can be offered for its arguments.
pub(crate) fn taught(command: Command) -> Command {
    teach(command, &mut Vec::new())
}

fn teach(command: Command, path: &mut Vec<String>) -> Command {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let command = command.mut_args(|arg| match kinds(&words, arg.get_id().as_str()) {
        [] => arg,
        kinds => candidates(arg, kinds),
    });
    command.mut_subcommands(|below| {
        path.push(below.get_name().to_owned());
        let below = teach(below, path);
        path.pop();
        below
    })
}

fn candidates(arg: Arg, kinds: &'static [Kind]) -> Arg {
    arg.add(ArgValueCandidates::new(move || offered(kinds)))
}

fn offered(kinds: &[Kind]) -> Vec<CompletionCandidate> {
    if kinds == [Kind::Commands] {
        let command = cli::command();
        let names = command.get_subcommands().filter(|below| !below.is_hide_set());
        return names.map(|below| CompletionCandidate::new(below.get_name())).collect();
    }
    // The words that are typed stand behind the first `--`.
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let typed = cli::command().ignore_errors(true).try_get_matches_from(words);
    let names = typed.map_err(anyhow::Error::from).and_then(|typed| names(&typed, kinds));
    names.unwrap_or_default().into_iter().take(NAMES_MAX).map(CompletionCandidate::new).collect()
}

fn names(typed: &ArgMatches, kinds: &[Kind]) -> anyhow::Result<BTreeSet<String>> {
    if kinds == [Kind::Contexts] {
        let (stored, _) = super::contexts::Store::open()?.all()?;
        let names = stored.into_iter().map(|context| context.name);
        return Ok(names.chain([super::contexts::DEFAULT.to_owned()]).collect());
    }
    let text = |id: &str| typed.get_one::<String>(id).cloned();
    let by_hand = typed.value_source("host") == Some(ValueSource::CommandLine);
    let context = text("daemon_context").or_else(|| text("context_before"));
    let said = super::contexts::Said::gather(text("host"), by_hand, context)?;
    let client = crate::client(&said, &cli::TlsArgs::from_arg_matches(typed)?)?;
    // It may ask for a password, and there is nobody to see that.
    if matches!(client.host(), Host::Ssh { .. }) {
        return Ok(BTreeSet::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = runtime.block_on(async {
        let asked = async {
            let mut all = BTreeSet::new();
            for kind in kinds {
                // On a host in no swarm there are no services, and containers all the same.
                all.extend(of_kind(&client, *kind).await.unwrap_or_default());
            }
            all
        };
        tokio::time::timeout(PATIENCE, asked).await
    });
    runtime.shutdown_background();
    Ok(all.unwrap_or_default())
}

async fn of_kind(client: &Client, kind: Kind) -> docker_api::client::Result<Vec<String>> {
    Ok(match kind {
        Kind::Containers => {
            let all = client.containers(&[("all", "1")]).await?;
            all.into_iter()
                .flat_map(|c| c.names)
                .map(|name| name.trim_start_matches('/').to_owned())
                .collect()
        }
        Kind::Tasks => {
            let running = serde_json::json!({"desired-state": {"running": true}}).to_string();
            let services = client.services(&[]).await?;
            let name = |id: &str| services.iter().find(|s| s.id == id).map(|s| s.spec.name.clone());
            let tasks =
                client.tasks(&[("filters", &running)]).await?.into_iter().filter(|task| task.slot != 0);
            tasks.filter_map(|task| Some(format!("{}.{}", name(&task.service_id)?, task.slot))).collect()
        }
        Kind::Images => {
            let all = client.images(&[]).await?.into_iter().flat_map(|image| image.repo_tags);
            all.filter(|name| name != "<none>:<none>").collect()
        }
        Kind::Networks => client.networks(&[]).await?.into_iter().map(|network| network.name).collect(),
        Kind::Volumes => client.volumes(&[]).await?.volumes.into_iter().map(|volume| volume.name).collect(),
        Kind::Services => client.services(&[]).await?.into_iter().map(|service| service.spec.name).collect(),
        Kind::Scales => {
            let all = client.services(&[]).await?.into_iter();
            all.filter(|s| s.spec.mode.replicated.is_some()).map(|s| format!("{}=", s.spec.name)).collect()
        }
        Kind::Stacks => {
            let label = super::service::STACK_LABEL;
            let all = client.services(&[]).await?.into_iter();
            all.filter_map(|mut service| service.spec.labels.remove(label)).collect()
        }
        Kind::Nodes => client.nodes(&[]).await?.into_iter().map(|node| node.description.hostname).collect(),
        Kind::Secrets => client.secrets(&[]).await?.into_iter().map(|secret| secret.spec.name).collect(),
        Kind::Configs => client.configs(&[]).await?.into_iter().map(|config| config.spec.name).collect(),
        Kind::Users => client.users(&[]).await?.into_iter().map(|user| user.spec.name).collect(),
        Kind::Contexts | Kind::Commands => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments for which there is nothing to offer but what the shell has: files, folders and new names.
    const FREE: &[&str] = &[
        "deploy files",
        "demo file",
        "swarm join remote",
        "swarm restore file",
        "swarm readdress advertise_addr",
        "service create command",
        "user add name",
        "user token rm tokens",
        "stack diff from",
        "stack diff to",
        "stack rollback revision",
        "image build context",
        "image import file",
        "image import reference",
        "image tag target",
        "secret create name",
        "secret create file",
        "config create name",
        "config create file",
        "network create name",
        "volume create name",
        "container exec command",
        "container rename name",
        "container cp source",
        "container cp destination",
        "container commit reference",
        "container port port",
        "container top ps",
        "builder build context",
        "context create name",
        "context export file",
        "context import name",
        "context import file",
        "exec command",
        "rename name",
        "top ps",
        "port port",
        "cp source",
        "cp destination",
        "commit reference",
        "build context",
        "login server",
        "logout server",
        "search term",
        "import file",
        "import reference",
        "tag target",
        "man folder",
    ];

    #[test]
    fn what_is_taught_is_consistent() {
        taught(cli::whole()).debug_assert();
    }

    #[test]
    fn each_argument_has_names_to_offer_or_none() {
        fn look(command: &Command, path: &mut Vec<String>, found: &mut Vec<String>) {
            let words: Vec<&str> = path.iter().map(String::as_str).collect();
            for arg in command.get_positionals() {
                let words_known = !arg.get_possible_values().is_empty();
                if kinds(&words, arg.get_id().as_str()).is_empty() && !words_known {
                    found.push(format!("{} {}", words.join(" "), arg.get_id()));
                }
            }
            for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                if path.is_empty() && below.get_name() == "compose" {
                    continue;
                }
                path.push(below.get_name().to_owned());
                look(below, path, found);
                path.pop();
            }
        }
        let mut found = Vec::new();
        look(&cli::whole(), &mut Vec::new(), &mut found);
        assert_eq!(found, FREE);
    }
}
