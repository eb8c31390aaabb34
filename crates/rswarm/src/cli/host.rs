//! What can be typed of a host: its daemon, what it takes, what happens on it.

use super::FormatArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Where everything is kept; else the settings' `data-root`, else /var/lib/rswarm.
    #[arg(long)]
    pub(crate) data_root: Option<PathBuf>,
    /// Where sockets and what is gone after a restart of the host are.
    #[arg(long, default_value = "/run/rswarm")]
    pub(crate) run_root: PathBuf,
    /// Settings file: TOML, or JSON as Docker's daemon.json if its name ends so; flags win over it. Else
    /// /etc/rswarm/daemon.toml, if it is there. SIGHUP has it read anew.
    #[arg(long, visible_alias = "config-file")]
    pub(crate) config: Option<PathBuf>,
    /// Only look whether the settings can be used, and say what of them has no meaning here.
    #[arg(long)]
    pub(crate) validate: bool,
    /// Whose members may use the unix socket as root does; else the settings' `group`, else rswarm if it is there.
    #[arg(short = 'G', long)]
    pub(crate) group: Option<String>,
    /// Give containers the subordinate ids of a user (/etc/subuid, /etc/subgid) instead of the host's own, so that root
    /// in them is nobody on the host: default, USER, UID, USER:GROUP or UID:GID. For `default` they are noted for the
    /// user dockremap. `run --userns host` is the way around it.
    #[arg(long)]
    pub(crate) userns_remap: Option<String>,
    /// Name of this host in the swarm.
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Cgroup below which containers' cgroups are made; else the settings' `cgroup-parent`, else rswarm.
    #[arg(long)]
    pub(crate) cgroup_parent: Option<String>,
    /// Seconds that this daemon's clock is ahead of the host's, for tests of hosts whose clocks differ.
    #[arg(long, hide = true, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) clock_offset: i64,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
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
    /// Stop this host's containers because it goes down, and have the swarm run their tasks elsewhere.
    ///
    /// Each gets its stop signal and its grace. They start again with the next daemon, as their restart policies say;
    /// this one starts nothing any more. For whoever shuts the host down: systemd does it by rswarm-host.service.
    Shutdown,
}

// Without a word more: whether this host can do its work. What is shown of it stands with the command.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Doctor {
    #[command(subcommand)]
    pub(crate) about: Option<DoctorAbout>,
    #[command(flatten)]
    pub(crate) args: DoctorArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DoctorAbout {
    /// Show which promises of security this host keeps, and what to type where it does not.
    ///
    /// The exit code is 1 if something is open to somebody it should not be open to.
    Security(DoctorArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print an array of JSON objects.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the daemon keeps everything; else what the running one was started with.
    #[arg(long)]
    pub(crate) data_root: Option<PathBuf>,
    /// Else what the running daemon was started with, or the folder of its socket.
    #[arg(long)]
    pub(crate) run_root: Option<PathBuf>,
    /// Its settings file; else what the running one was started with, or /etc/rswarm/daemon.toml.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// A Go template of fields: {{.Type}}, {{.Size}} ...
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Each image, container, volume and result of a build.
    #[arg(short, long, conflicts_with = "format")]
    pub(crate) verbose: bool,
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
