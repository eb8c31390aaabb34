//! What can be typed: clap types and nothing else. Words, flags and defaults are Docker's where Docker has them.

mod flags;

pub(crate) use flags::{ContainerFlags, CreateArgs, LimitFlags, Pull, RunArgs};

use crate::demo;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A handful of Linux hosts as one machine for containers.
#[derive(Debug, Parser)]
#[command(name = "rswarm", version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The daemon's socket: unix://PATH, tcp://HOST:PORT or ssh://USER@HOST.
    #[arg(short = 'H', long, global = true, env = "RSWARM_HOST")]
    pub(crate) host: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// Speak TLS to a tcp:// daemon and believe it only with a certificate that the CA has signed.
    #[arg(long, global = true)]
    pub(crate) tlsverify: bool,
    /// Who signs the daemon's certificate; else `ca.pem` in $DOCKER_CERT_PATH or ~/.docker.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Our certificate; else `cert.pem` there.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) tlscert: Option<PathBuf>,
    /// Its key; else `key.pem` there.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) tlskey: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine of this host.
    Daemon(DaemonArgs),
    /// Deploy a compose file to the swarm.
    Deploy(DeployArgs),
    /// A cluster of hosts in namespaces, to try things on; no root needed.
    Demo(demo::DemoArgs),
    /// Scale services: SERVICE=REPLICAS...
    Scale(ScaleArgs),
    #[command(subcommand)]
    Swarm(Swarm),
    #[command(subcommand)]
    Node(Node),
    #[command(subcommand)]
    Service(Service),
    #[command(subcommand)]
    Stack(Stack),
    #[command(subcommand)]
    Image(Image),
    #[command(subcommand)]
    Secret(Blob),
    #[command(subcommand)]
    Config(Blob),
    #[command(subcommand)]
    Network(Network),
    #[command(subcommand)]
    Volume(Volume),
    #[command(subcommand)]
    Container(Container),
    #[command(subcommand)]
    Builder(Builder),
    #[command(subcommand)]
    System(System),
    /// List containers.
    Ps(PsArgs),
    /// Create and run a container.
    Run(Box<RunArgs>),
    /// Create a container.
    Create(Box<CreateArgs>),
    /// Run a command in a running container or task.
    Exec(ExecArgs),
    /// Show the logs of a container or task.
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
    Rename { container: String, name: String },
    /// Wait until containers stop; print their exit codes.
    Wait(Names),
    /// Show the processes of a container.
    Top { container: String },
    /// Show the published ports of a container.
    Port { container: String },
    /// Show what a container changed in its file system.
    Diff { container: String },
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
    Build(BuildArgs),
    /// Pull an image from a registry.
    Pull(PullArgs),
    /// Push an image to a registry.
    Push(PullArgs),
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
    Images(ListArgs),
    /// Remove images.
    Rmi(RmiArgs),
    /// Change the limits of containers.
    Update(Box<UpdateArgs>),
    /// Load images from an archive.
    Load(LoadArgs),
    /// Make an image from a root file system.
    Import(ImportArgs),
    /// Add a name to an image.
    Tag(TagArgs),
    /// Show what an object is, as JSON.
    Inspect(InspectArgs),
    /// Show what this host and its swarm are.
    Info(FormatArgs),
    /// Show the versions of client and daemon.
    Version(FormatArgs),
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
pub(crate) struct OciArgs {
    /// Where the state of containers is.
    #[arg(long, default_value = "/run/rswarm/oci")]
    pub(crate) root: PathBuf,
    /// Where an error is told too; standard error always has it.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) verb: OciVerb,
}

/// Of an OCI runtime's log.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    /// A line as containerd reads it.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OciVerb {
    /// Make the container of a bundle; its program waits for `start`.
    Create {
        id: String,
        /// Folder with `config.json`.
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// Socket that gets the terminal.
        #[arg(long)]
        console_socket: Option<PathBuf>,
        /// File that gets the process id.
        #[arg(long)]
        pid_file: Option<PathBuf>,
    },
    /// Execute the program of a created container.
    Start { id: String },
    /// Print a container's state as JSON.
    State { id: String },
    /// Send a signal to the first process of a container.
    Kill {
        id: String,
        #[arg(default_value = "TERM")]
        signal: String,
        /// To all of its processes.
        #[arg(short, long)]
        all: bool,
    },
    /// Remove stopped containers.
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Kill what runs; a container that does not exist is no error.
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Where everything is kept; else the settings' `data-root`, else /var/lib/rswarm.
    #[arg(long)]
    pub(crate) data_root: Option<PathBuf>,
    #[arg(long, default_value = "/run/rswarm")]
    pub(crate) run_root: PathBuf,
    /// Settings file: TOML, or JSON as Docker's daemon.json if its name ends so; flags win over it.
    #[arg(long, default_value = "/etc/rswarm/daemon.toml")]
    pub(crate) config: PathBuf,
    /// Name of this host in the swarm.
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Cgroup below which containers' cgroups are made.
    #[arg(long, default_value = "rswarm")]
    pub(crate) cgroup_parent: String,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// Compose files, merged in order; `compose.yaml` and its siblings by default.
    pub(crate) files: Vec<PathBuf>,
    /// Name of the stack; else the file's `name:`, else its folder's.
    #[arg(long, value_name = "STACK")]
    pub(crate) name: Option<String>,
    /// Show what would change and change nothing.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not wait until the services run.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// How long to wait, e.g. 90s or 10m.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: std::time::Duration,
    /// Remove services that the file no longer names.
    #[arg(long)]
    pub(crate) prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    pub(crate) services: Vec<String>,
    #[arg(short, long)]
    pub(crate) detach: bool,
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
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// `json`, or a template such as '{{.ID}}'.
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Swarm {
    /// Make a new swarm with this host as its first manager.
    Init(SwarmInit),
    /// Join a swarm.
    Join(SwarmJoin),
    /// Show or change the token hosts join with.
    JoinToken(JoinToken),
    /// Leave the swarm.
    Leave {
        /// Also when this is a manager.
        #[arg(short, long)]
        force: bool,
    },
    /// Open the state of a manager that restarted with autolock on.
    Unlock,
    /// Show the root certificate.
    Ca,
    /// Change the swarm's settings.
    Update(SwarmUpdate),
}

#[derive(Debug, Args)]
pub(crate) struct SwarmInit {
    #[arg(long)]
    pub(crate) advertise_addr: Option<String>,
    #[arg(long, default_value = "0.0.0.0:2377")]
    pub(crate) listen_addr: String,
    #[arg(long)]
    pub(crate) data_path_addr: Option<String>,
    #[arg(long)]
    pub(crate) data_path_port: Option<u16>,
    #[arg(long)]
    pub(crate) default_addr_pool: Vec<String>,
    #[arg(long, default_value_t = 24)]
    pub(crate) default_addr_pool_mask_length: u8,
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    pub(crate) availability: String,
    #[arg(long)]
    pub(crate) force_new_cluster: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmJoin {
    /// From `swarm join-token`.
    #[arg(long)]
    pub(crate) token: String,
    #[arg(long)]
    pub(crate) advertise_addr: Option<String>,
    #[arg(long, default_value = "0.0.0.0:2377")]
    pub(crate) listen_addr: String,
    #[arg(long)]
    pub(crate) data_path_addr: Option<String>,
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    pub(crate) availability: String,
    /// A manager; port 2377 unless named.
    #[arg(required = true, value_name = "HOST:PORT")]
    pub(crate) remote: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    #[arg(value_parser = ["worker", "manager"])]
    pub(crate) role: String,
    /// Only the token.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make a new one; the old one no longer lets anybody in.
    #[arg(long)]
    pub(crate) rotate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmUpdate {
    #[arg(long)]
    pub(crate) task_history_limit: Option<i64>,
    #[arg(long, value_parser = parse_duration)]
    pub(crate) cert_expiry: Option<std::time::Duration>,
    #[arg(long)]
    pub(crate) snapshot_interval: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    /// Tasks on a node; this one by default.
    Ps {
        #[arg(default_value = "self")]
        node: String,
        #[command(flatten)]
        list: ListArgs,
    },
    Update(NodeUpdate),
    Promote(Names),
    Demote(Names),
    Rm {
        #[arg(required = true)]
        nodes: Vec<String>,
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeUpdate {
    pub(crate) node: String,
    #[arg(long, value_parser = ["active", "pause", "drain"])]
    pub(crate) availability: Option<String>,
    #[arg(long, value_parser = ["worker", "manager"])]
    pub(crate) role: Option<String>,
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label_add: Vec<String>,
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Ps {
        #[arg(required = true)]
        services: Vec<String>,
        #[command(flatten)]
        list: ListArgs,
        #[arg(long)]
        no_trunc: bool,
    },
    Inspect(InspectArgs),
    Create(ServiceCreate),
    Update(ServiceUpdate),
    Scale(ScaleArgs),
    Rollback {
        service: String,
        #[arg(short, long)]
        detach: bool,
    },
    Logs(LogsArgs),
    #[command(visible_alias = "remove")]
    Rm(Names),
}

#[derive(Debug, Args)]
pub(crate) struct ServiceCreate {
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[arg(long, default_value_t = 1)]
    pub(crate) replicas: u64,
    #[arg(long, default_value = "replicated", value_parser = ["replicated", "global"])]
    pub(crate) mode: String,
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// `[PUBLISHED:]TARGET[/PROTOCOL]`
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    #[arg(long)]
    pub(crate) network: Vec<String>,
    #[arg(long)]
    pub(crate) constraint: Vec<String>,
    #[arg(short, long)]
    pub(crate) label: Vec<String>,
    #[arg(short, long)]
    pub(crate) detach: bool,
    pub(crate) image: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceUpdate {
    pub(crate) service: String,
    #[arg(long)]
    pub(crate) image: Option<String>,
    #[arg(long)]
    pub(crate) replicas: Option<u64>,
    #[arg(long)]
    pub(crate) env_add: Vec<String>,
    #[arg(long)]
    pub(crate) env_rm: Vec<String>,
    /// Replace the tasks although nothing else changes.
    #[arg(long)]
    pub(crate) force: bool,
    #[arg(short, long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Stack {
    Deploy {
        #[arg(short = 'c', long = "compose-file", required = true)]
        compose_file: Vec<PathBuf>,
        #[arg(short, long)]
        detach: bool,
        #[arg(long)]
        prune: bool,
        stack: String,
    },
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Ps {
        stack: String,
        #[command(flatten)]
        list: ListArgs,
        #[arg(long)]
        no_trunc: bool,
    },
    Services {
        stack: String,
        #[command(flatten)]
        list: ListArgs,
    },
    #[command(visible_aliases = ["remove", "down"])]
    Rm {
        #[arg(required = true)]
        stacks: Vec<String>,
        /// Do not wait until everything is gone.
        #[arg(short, long)]
        detach: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Build(BuildArgs),
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    Pull(PullArgs),
    Load(LoadArgs),
    Import(ImportArgs),
    Tag(TagArgs),
    /// Load rswarm/hello, the image of the examples, which this program carries.
    Hello,
    Inspect(InspectArgs),
    Rm(RmiArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Builder {
    /// Forget results of earlier builds.
    Prune(PruneArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Show what takes space on this host.
    Df(DfArgs),
    /// Join standard input and output with the daemon's socket, for ssh://.
    DialStdio,
    /// Remove what nothing uses.
    Prune(SystemPruneArgs),
    /// Show what happens on this host.
    Events(EventsArgs),
    /// Show what this host and its swarm are.
    Info(FormatArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// A Go template of fields: {{.Type}}, {{.Size}} ...
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Not only dangling images, not only anonymous volumes.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// KEY=VALUE: until, label.
    #[arg(long)]
    pub(crate) filter: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SystemPruneArgs {
    /// Also images that have names, if no container uses them.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also anonymous volumes.
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// KEY=VALUE: until, label.
    #[arg(long)]
    pub(crate) filter: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Folder that is sent to the daemon; - reads a Dockerfile or a tar from standard input.
    pub(crate) context: String,
    /// The Dockerfile; - is standard input. CONTEXT/Dockerfile by default.
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// Name of the image, with or without :TAG.
    #[arg(short, long)]
    pub(crate) tag: Vec<String>,
    /// NAME=VALUE of an ARG; NAME alone takes it from the environment.
    #[arg(long)]
    pub(crate) build_arg: Vec<String>,
    /// NAME=VALUE to add to the image.
    #[arg(long)]
    pub(crate) label: Vec<String>,
    /// Stage to build; the last by default.
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// os/architecture[/variant] of the image.
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Network of RUN.
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// HOST:IP for RUN.
    #[arg(long)]
    pub(crate) add_host: Vec<String>,
    /// id=NAME,src=FILE or id=NAME,env=VARIABLE, for RUN --mount=type=secret.
    #[arg(long)]
    pub(crate) secret: Vec<String>,
    /// Use no result of earlier builds.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask registries even for images that are here.
    #[arg(long)]
    pub(crate) pull: bool,
    /// File that gets the image's id.
    #[arg(long)]
    pub(crate) iidfile: Option<PathBuf>,
    /// How progress is shown; there is one way: plain.
    #[arg(long, value_parser = ["auto", "plain"], default_value = "auto")]
    pub(crate) progress: String,
    /// Print the image's id alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    pub(crate) image: String,
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// File to write; standard output by default.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    #[arg(short, long)]
    pub(crate) password: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Docker Hub by default.
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// From then on, e.g. 10m (ago), 2026-01-31T12:00:00Z or seconds since 1970.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Until then; without it events go on.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// Only what matches, e.g. type=container; may be repeated.
    #[arg(short, long)]
    pub(crate) filter: Vec<String>,
    /// `json`, or a template such as '{{.Action}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive to read; standard input by default.
    #[arg(short, long)]
    pub(crate) input: Option<PathBuf>,
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A tarball, or - for standard input.
    pub(crate) file: PathBuf,
    pub(crate) reference: Option<String>,
    /// Dockerfile instruction to apply, e.g. 'CMD ["sh"]'.
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    #[arg(short, long, default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    pub(crate) source: String,
    pub(crate) target: String,
}

/// Secrets and configs have the same verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Blob {
    Create {
        name: String,
        /// - for standard input.
        file: PathBuf,
        #[arg(short, long)]
        label: Vec<String>,
    },
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    Rm(Names),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    Create {
        #[arg(short, long, default_value = "bridge")]
        driver: String,
        #[arg(long)]
        subnet: Option<String>,
        #[arg(long)]
        gateway: Option<String>,
        #[arg(long)]
        attachable: bool,
        #[arg(long)]
        internal: bool,
        #[arg(long)]
        label: Vec<String>,
        #[arg(short = 'o', long = "opt")]
        options: Vec<String>,
        name: String,
    },
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    Rm(Names),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    Create {
        #[arg(long)]
        label: Vec<String>,
        name: Option<String>,
    },
    /// Write what a volume holds as a tar.
    Export {
        /// File to write; standard output by default.
        #[arg(short, long)]
        output: Option<PathBuf>,
        name: String,
    },
    /// Fill a volume from a tar (plain, gzip or zstd); make it if it is not there.
    Import {
        /// File to read; standard input by default.
        #[arg(short, long)]
        input: Option<PathBuf>,
        /// Replace what the volume holds.
        #[arg(short, long)]
        force: bool,
        name: String,
    },
    /// Make a volume with what another one on this host holds.
    Cp {
        /// Replace what the target holds.
        #[arg(short, long)]
        force: bool,
        source: String,
        target: String,
    },
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    #[command(visible_alias = "list")]
    Ls(PsArgs),
    /// Remove those that nothing uses.
    Prune(PruneArgs),
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Exec(ExecArgs),
    Logs(LogsArgs),
    Stop(StopArgs),
    Kill(KillArgs),
    Rm(RmArgs),
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also those that do not run.
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Do not wait for its end.
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[arg(short, long)]
    pub(crate) interactive: bool,
    #[arg(short, long)]
    pub(crate) tty: bool,
    #[arg(long)]
    pub(crate) privileged: bool,
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    pub(crate) container: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[arg(short = 'n', long, default_value = "all")]
    pub(crate) tail: String,
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Lines from then on: RFC 3339, Unix seconds, or an age such as 10m.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Lines before then.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// Show what `--log-opt` asked to be logged with each line.
    #[arg(long)]
    pub(crate) details: bool,
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Limits that a container gets while it runs.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Join its standard input too.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Show its output until it ends, and end with its exit code.
    #[arg(short, long)]
    pub(crate) attach: bool,
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// One sample, then end.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// All running ones by default.
    pub(crate) containers: Vec<String>,
    /// `json`, `table`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Output only.
    #[arg(long)]
    pub(crate) no_stdin: bool,
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// CONTAINER:PATH, a path here, or `-` for a tar on standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) source: String,
    /// CONTAINER:PATH, a path here, or `-` for a tar on standard output.
    #[arg(allow_hyphen_values = true)]
    pub(crate) destination: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// File to write; standard output by default.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    #[arg(short, long)]
    pub(crate) author: Option<String>,
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// An instruction of a Dockerfile, e.g. 'ENV A=1'; may be repeated.
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    /// Do not pause the container meanwhile.
    #[arg(long)]
    pub(crate) no_pause: bool,
    pub(crate) container: String,
    pub(crate) reference: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds until SIGKILL.
    #[arg(short = 't', long)]
    pub(crate) time: Option<u32>,
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: String,
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Their anonymous volumes too.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

/// Reads `90s`, `10m`, `1h30m`, `500ms`.
pub(crate) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    compose::duration(text).ok_or_else(|| format!("{text:?} is not a duration such as 90s or 10m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
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
