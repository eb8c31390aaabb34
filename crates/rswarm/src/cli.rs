//! What can be typed: clap types and nothing else. Words, flags and defaults are Docker's where Docker has them.
//!
//! What stands above a struct of arguments is an ordinary comment: clap would take a documentation of it for the line
//! of the command that it belongs to.
//!
//! *Start reading at* [`Command`].

mod cluster;
mod container;
mod context;
mod flags;
mod help;
mod host;
mod image;
mod objects;
mod oci;
mod project;
mod service;
mod switches;
mod user;

pub(crate) use cluster::{
    DeployArgs, JoinToken, Node, NodeUpdate, PlanFormat, ScaleArgs, Service, Stack, StackConfig, Swarm,
    SwarmBackup, SwarmCa, SwarmInit, SwarmJoin, SwarmReaddress, SwarmRecover, SwarmRestore, SwarmUpdate,
    TasksShown, UnlockKey,
};
pub(crate) use container::{
    AttachArgs, CommitArgs, Container, CpArgs, ExecArgs, ExportArgs, KillArgs, LogsArgs, OneContainer,
    PortArgs, PsArgs, RenameArgs, RmArgs, ServiceLogs, StartArgs, StatsArgs, StopArgs, TopArgs, UpdateArgs,
};
pub(crate) use context::{Context, ContextCreate, ContextUpdate};
pub(crate) use flags::{
    ContainerFlags, CreateArgs, LeaveFlags, LimitFlags, Pull, ResourceFlags, RunArgs, SignalFlags, StartFlags,
};
pub(crate) use host::{
    DaemonArgs, DfArgs, Doctor, DoctorAbout, DoctorArgs, EventsArgs, PruneArgs, System, SystemPruneArgs,
};
pub(crate) use image::{
    BuildArgs, BuildLimits, Builder, HistoryArgs, Image, ImagesArgs, ImportArgs, LoadArgs, LoginArgs,
    LogoutArgs, PullArgs, PushArgs, RmiArgs, SaveArgs, SearchArgs, TagArgs,
};
pub(crate) use objects::{Blob, Network, NetworkAddresses, Volume};
pub(crate) use oci::{LogFormat, OciArgs, OciVerb};
pub(crate) use project::{
    Ansi, Compose, ComposeArgs, ComposeAttach, ComposeBuild, ComposeCommit, ComposeConfig, ComposeCp,
    ComposeEvents, ComposeExec, ComposeExport, ComposeImages, ComposeKill, ComposeLogs, ComposeLs,
    ComposePort, ComposePs, ComposePublish, ComposePull, ComposePush, ComposeRestart, ComposeRm, ComposeRun,
    ComposeScale, ComposeStart, ComposeStats, ComposeVersion, ComposeVolumes, ComposeWait, ComposeWatch,
    ConfigFormat, Down, KeepFlags, LogLook, MakeFlags, OciVersion, Progress, ProjectArgs, PullPolicy, Rmi,
    Services, Up, VersionFormat,
};
pub(crate) use service::{ServiceCreate, ServiceFlags, ServiceUpdate};
pub(crate) use user::{
    AuditArgs, Life, User, UserAdd, UserCert, UserLogin, UserPasswd, UserRevoke, UserToken,
};

use crate::demo;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Where help shows what can be typed with every command: below all else.
const GLOBAL: &str = "Global options";
/// Behind all that has no place of its own.
const LAST: usize = 1000;

/// Returns the command line as it is parsed. What can be typed behind a command is made when that command is typed:
/// there are some thousand flags, and each start of the program would pay for all of them.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Returns all of the command line, with its help as people look for it.
pub(crate) fn whole() -> clap::Command {
    let mut command = command();
    command.build();
    let command =
        command.mut_subcommand("compose", |compose| help::grouped(compose, help::COMPOSE, "Options"));
    help::grouped(command, help::ROOT, GLOBAL)
}

/// Reads what was typed; answers by itself, and ends, where that is no command or asks for help.
pub(crate) fn read(args: &[std::ffi::OsString]) -> clap::ArgMatches {
    switches::parse(command, whole, args).unwrap_or_else(|_| whole().get_matches_from(args))
}

/// A handful of Linux hosts as one machine for containers.
#[derive(Debug, Parser)]
#[command(
    name = "rswarm",
    version,
    long_version = crate::build::LONG,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// The daemon's socket: unix://PATH, tcp://HOST:PORT or ssh://USER@HOST; of `daemon`, one more to listen at.
    #[arg(short = 'H', long, global = true, env = "RSWARM_HOST", help_heading = GLOBAL, display_order = LAST)]
    pub(crate) host: Option<String>,
    /// The daemon, by its name in `rswarm context ls`; else DOCKER_CONTEXT, else what `context use` says.
    // `build` has an argument of that name.
    #[arg(id = "daemon_context", long = "context", global = true, value_name = "NAME", help_heading = GLOBAL, display_order = LAST)]
    pub(crate) context: Option<String>,
    /// As --context, in front of the command.
    #[arg(short = 'c', value_name = "NAME", conflicts_with = "daemon_context", help_heading = GLOBAL, display_order = LAST)]
    pub(crate) context_before: Option<String>,
    /// Print version.
    #[arg(short = 'v', action = clap::ArgAction::Version, help_heading = GLOBAL, display_order = LAST)]
    short_version: Option<bool>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// Speak TLS to a tcp:// daemon and believe it only with a certificate that the CA has signed.
    #[arg(long, global = true, help_heading = GLOBAL, display_order = LAST)]
    pub(crate) tlsverify: bool,
    /// Who signs the daemon's certificate; else `ca.pem` in $DOCKER_CERT_PATH or ~/.docker.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true, help_heading = GLOBAL, display_order = LAST)]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Our certificate; else `cert.pem` there.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true, help_heading = GLOBAL, display_order = LAST)]
    pub(crate) tlscert: Option<PathBuf>,
    /// Its key; else `key.pem` there.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true, help_heading = GLOBAL, display_order = LAST)]
    pub(crate) tlskey: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Run the engine of this host.
    Daemon(DaemonArgs),
    /// Deploy a compose file to the swarm.
    Deploy(DeployArgs),
    /// Docker Compose's commands: a compose file's containers on one host.
    Compose(Box<ComposeArgs>),
    /// A cluster of hosts in namespaces, to try things on; no root needed.
    Demo(demo::DemoArgs),
    /// Scale services: SERVICE=REPLICAS...
    Scale(ScaleArgs),
    /// Make, join, change and leave a swarm.
    #[command(subcommand)]
    Swarm(Swarm),
    /// The hosts of the swarm.
    #[command(subcommand)]
    Node(Node),
    /// Services: containers that the swarm keeps running.
    #[command(subcommand)]
    Service(Service),
    /// People who may use the swarm, and as whom one is logged in.
    #[command(subcommand)]
    User(User),
    /// Show what was done to the swarm, and by whom.
    Audit(AuditArgs),
    /// Look for what is wrong with this host, and say what to type.
    ///
    /// The exit code is 1 if something keeps it from its work.
    Doctor(Doctor),
    /// Stacks: what was deployed together, and its history.
    #[command(subcommand)]
    Stack(Stack),
    /// Images of this host.
    #[command(subcommand)]
    Image(Image),
    /// Secrets: files that only the tasks which use them can read.
    #[command(subcommand)]
    Secret(Blob),
    /// Configs: files for tasks, kept by the managers.
    #[command(subcommand)]
    Config(Blob),
    /// Networks of this host and of the swarm.
    #[command(subcommand)]
    Network(Network),
    /// Volumes of this host.
    #[command(subcommand)]
    Volume(Volume),
    /// Containers of this host, each command also without this word.
    #[command(subcommand)]
    Container(Container),
    /// What builds left behind.
    #[command(subcommand)]
    Builder(Builder),
    /// Daemons with names; Docker's CLI knows the same ones.
    #[command(subcommand)]
    Context(Context),
    /// This host as a whole: what it is, what it holds, what happens on it.
    #[command(subcommand)]
    System(System),
    /// List containers.
    Ps(PsArgs),
    /// Create and run a container.
    Run(Box<RunArgs>),
    /// Create a container.
    Create(Box<CreateArgs>),
    /// Run a command in a running container, task or service, on whichever node.
    Exec(ExecArgs),
    /// Show the logs of a container, task or service.
    Logs(LogsArgs),
    /// Start stopped containers.
    Start(StartArgs),
    /// Stop containers.
    Stop(StopArgs),
    /// Stop and start containers.
    Restart(StopArgs),
    /// Kill containers.
    Kill(KillArgs),
    /// Freeze all processes of containers.
    Pause(Names),
    /// Let paused containers go on.
    Unpause(Names),
    /// Give a container another name.
    Rename(RenameArgs),
    /// Wait until containers stop; print their exit codes.
    Wait(Names),
    /// Show the processes of a container.
    Top(TopArgs),
    /// Show the published ports of a container.
    Port(PortArgs),
    /// Show what a container changed in its file system.
    Diff(OneContainer),
    /// Show what containers take, once or every second.
    Stats(StatsArgs),
    /// Join this terminal with a running container.
    Attach(AttachArgs),
    /// Copy files between a container and this machine.
    Cp(CpArgs),
    /// Write a container's file system as a tar.
    Export(ExportArgs),
    /// Make an image of what a container changed.
    Commit(CommitArgs),
    /// Remove containers.
    Rm(RmArgs),
    /// Build an image from a Dockerfile.
    Build(Box<BuildArgs>),
    /// Pull an image from a registry.
    Pull(PullArgs),
    /// Push an image to a registry.
    Push(PushArgs),
    /// Write images as an archive.
    Save(SaveArgs),
    /// Show how an image was made.
    History(HistoryArgs),
    /// Prove an account to a registry and keep it in Docker's config.json.
    Login(LoginArgs),
    /// Forget a registry's account.
    Logout(LogoutArgs),
    /// Show what happens on this host.
    Events(EventsArgs),
    /// List images.
    Images(ImagesArgs),
    /// Remove images.
    Rmi(RmiArgs),
    /// Look for images at a registry's index; Docker Hub's unless TERM begins with a host.
    Search(SearchArgs),
    /// Change the limits of containers.
    Update(Box<UpdateArgs>),
    /// Load images from an archive.
    Load(LoadArgs),
    /// Make an image from a root file system.
    Import(ImportArgs),
    /// Add a name to an image.
    Tag(TagArgs),
    /// Show what an object is, as JSON.
    Inspect(InspectAnyArgs),
    /// Show what this host and its swarm are.
    Info(FormatArgs),
    /// Show the versions of client and daemon.
    Version(FormatArgs),
    /// Print what makes a shell complete our commands: `source <(rswarm completion bash)`.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Show the help of a command.
    Help {
        /// The command, e.g. `service create`.
        command: Vec<String>,
    },
    /// Write the manual's pages, one for each command, for man(1).
    Man {
        /// Folder for them, made if it is not there, e.g. /usr/local/share/man/man1.
        folder: PathBuf,
    },
    /// Hosts in namespaces, driven over standard input; for tests.
    #[command(hide = true)]
    Lab(demo::LabArgs),
    #[command(hide = true)]
    LabHost(demo::host::HostArgs),
    /// The OCI runtime's verbs, as runc(8) has them: for other engines, and to compare us with other runtimes.
    #[command(hide = true)]
    Oci(OciArgs),
    /// The program in the hello image.
    #[command(hide = true)]
    Hello { args: Vec<String> },
}

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// `json`, or a template such as '{{.ID}}'.
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ListArgs {
    /// Only ids.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `json`, `table`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Only what matches, e.g. name=web; may be repeated.
    #[arg(short, long)]
    pub(crate) filter: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Names or ids.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names or ids.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// `json`, or a template such as '{{.ID}}'.
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectAnyArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
    /// Look among objects of this kind alone.
    #[arg(
        long = "type",
        value_parser = [
            "container", "image", "network", "volume", "service", "task", "node", "secret", "config"
        ]
    )]
    pub(crate) kind: Option<String>,
    /// Of containers also how much they have written, and how much there is.
    #[arg(short, long)]
    pub(crate) size: bool,
}

/// Reads `90s`, `10m`, `1h30m`, `500ms`.
pub(crate) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    compose::duration(text).ok_or_else(|| format!("{text:?} is not a duration such as 90s or 10m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_the_command_line_is_known_behind_the_command_too() {
        for typed in [&["rswarm", "-H", "unix:///a", "daemon"], &["rswarm", "daemon", "-H", "unix:///a"]] {
            let matches = command().get_matches_from(typed);
            assert_eq!(
                matches.value_source("host"),
                Some(clap::parser::ValueSource::CommandLine),
                "{typed:?}"
            );
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        whole().debug_assert();
    }

    /// What a command's arguments are made of may be used by others, and says nothing of the command.
    #[test]
    fn each_commands_line_is_its_own() {
        fn look(typed: &clap::Command, whole: &clap::Command) {
            for below in typed.get_subcommands() {
                let name = below.get_name();
                let made = whole.find_subcommand(name).unwrap();
                assert_eq!(made.get_about(), below.get_about(), "{name}");
                assert_eq!(made.get_long_about(), below.get_long_about(), "{name}");
                look(below, made);
            }
        }
        let whole = whole();
        look(&command(), &whole);
        let compose = <Compose as Subcommand>::augment_subcommands(clap::Command::new("compose"));
        look(&compose, whole.find_subcommand("compose").unwrap());
    }

    #[test]
    fn whatever_can_be_typed_has_its_line() {
        fn look(command: &clap::Command, path: &str, mute: &mut Vec<String>) {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                if arg.get_help().is_none_or(|help| help.to_string().trim().is_empty()) {
                    mute.push(format!("{path}: {}", arg.get_id()));
                }
            }
            for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
                let path = format!("{path} {}", below.get_name());
                if below.get_about().is_none_or(|about| about.to_string().trim().is_empty()) {
                    mute.push(path.clone());
                }
                look(below, &path, mute);
            }
        }
        let mut mute = Vec::new();
        look(&whole(), "rswarm", &mut mute);
        assert!(mute.is_empty(), "without a line of help:\n{}", mute.join("\n"));
    }

    /// Returns the commands that a text names between backticks.
    fn named(text: &str) -> Vec<String> {
        // Fenced blocks are typed by a test of the whole program.
        let outside: String = text.split("```").step_by(2).collect();
        let spans = outside
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "));
        spans
            .map(|span| span.strip_prefix("sudo ").map(str::to_owned).unwrap_or(span))
            .filter(|span| span.starts_with("rswarm "))
            .collect()
    }

    #[test]
    fn what_the_readme_names_can_be_typed() {
        use clap::error::ErrorKind::{
            DisplayHelpOnMissingArgumentOrSubcommand, InvalidValue, MissingRequiredArgument,
            MissingSubcommand,
        };
        let all = named(include_str!("../../../README.md"));
        assert!(all.len() > 20, "{all:?}");
        for line in all {
            // What a shell does with it, and what is only said to be possible.
            let typed = line.split(['>', '|', '#']).next().unwrap_or_default();
            let words = typed.split(' ').filter(|word| !word.is_empty() && !word.starts_with('['));
            let words: Vec<&str> = words.map(|word| word.trim_matches(['\'', '"'])).collect();
            if words.iter().any(|word| word.contains("...")) {
                continue;
            }
            if let Err(error) = command().try_get_matches_from(&words) {
                // A command may be named without what it is given.
                let kind = error.kind();
                let named = matches!(
                    kind,
                    MissingRequiredArgument | MissingSubcommand | DisplayHelpOnMissingArgumentOrSubcommand
                );
                // And a flag without its value.
                let flag = kind == InvalidValue && words.last().is_some_and(|word| word.starts_with("--"));
                assert!(named || flag, "README: {line}\n{error}");
            }
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [("90s", 90_000), ("10m", 600_000), ("1h30m", 5_400_000), ("250ms", 250)] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
        for bad in ["", "5", "s", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
