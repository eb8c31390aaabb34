//! What can be typed of containers that exist; [`flags`](super::flags) has those of `run` and `create`.

use super::{
    CreateArgs, InspectArgs, LeaveFlags, LimitFlags, ListArgs, Names, PruneArgs, RunArgs, SignalFlags,
};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Container {
    /// List containers.
    #[command(visible_alias = "list")]
    Ls(PsArgs),
    /// Remove those that nothing uses.
    Prune(PruneArgs),
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
    /// Remove containers.
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Give a container another name.
    Rename(RenameArgs),
    /// Change the limits of containers.
    Update(Box<UpdateArgs>),
    /// Wait until containers stop; print their exit codes.
    Wait(Names),
    /// Join this terminal with a running container.
    Attach(AttachArgs),
    /// Copy files between a container and this machine.
    Cp(CpArgs),
    /// Show what a container changed in its file system.
    Diff(OneContainer),
    /// Write a container's file system as a tar.
    Export(ExportArgs),
    /// Make an image of what a container changed.
    Commit(CommitArgs),
    /// Show the published ports of a container.
    Port(PortArgs),
    /// Show what containers take, once or every second.
    Stats(StatsArgs),
    /// Show the processes of a container.
    Top(TopArgs),
    /// Show what containers are, as JSON.
    Inspect(ContainerInspectArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OneContainer {
    /// Name or id of the container.
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Name or id of the container.
    pub(crate) container: String,
    /// Its new name.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Name or id of a container or service, or a task such as web.2.
    pub(crate) container: String,
    /// One of its own ports alone: 80 or 80/udp.
    pub(crate) port: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Name or id of a container or service, or a task such as web.2.
    pub(crate) container: String,
    /// What of ps(1) is asked for, e.g. -o pid,comm.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) ps: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ContainerInspectArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
    /// Also how much they have written, and how much there is.
    #[arg(short, long)]
    pub(crate) size: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also those that do not run.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Those of all nodes of the swarm: to admins all, to other users those of tasks.
    #[arg(long, conflicts_with_all = ["last", "latest"])]
    pub(crate) all_nodes: bool,
    /// The newest ones alone, so many, running or not.
    #[arg(short = 'n', long, value_name = "COUNT", conflicts_with = "latest")]
    pub(crate) last: Option<u32>,
    /// The newest one alone, running or not.
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Ids and commands in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Also how much they have written, and how much there is.
    #[arg(short, long)]
    pub(crate) size: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Do not wait for its end.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep standard input open.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Give it all rights.
    #[arg(long)]
    pub(crate) privileged: bool,
    /// `KEY=VALUE`, or `KEY` for the value it has here; may be repeated.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// File of such lines; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Who runs it: `USER` or `UID`, either with `:GROUP`.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Folder in the container that it begins in.
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    #[command(flatten)]
    pub(crate) leave: LeaveFlags,
    /// Name or id of a container or service, or a task such as web.2.
    pub(crate) container: String,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what comes.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// So many lines from the end.
    #[arg(short = 'n', long, default_value = "all")]
    pub(crate) tail: String,
    /// Begin each line with its time.
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
    /// Name or id of a container or service, or a task such as web.2.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceLogs {
    #[command(flatten)]
    pub(crate) logs: LogsArgs,
    /// Ids instead of names.
    #[arg(long)]
    pub(crate) no_resolve: bool,
    /// Names of tasks without their ids.
    #[arg(long)]
    pub(crate) no_task_ids: bool,
    /// Whole ids.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// What was printed and nothing else; what a service with a terminal has.
    #[arg(long)]
    pub(crate) raw: bool,
}

// Limits that a container gets while it runs.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Names or ids of containers.
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
    /// `no`, `on-failure`, `on-failure:3`, `always`, `unless-stopped`.
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
    #[command(flatten)]
    pub(crate) leave: LeaveFlags,
    /// Names or ids of containers.
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// One sample, then end.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Also those that do not run.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Ids in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Containers, services, or tasks such as web.2; all running containers of this host by default.
    pub(crate) containers: Vec<String>,
    /// `json`, `table`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pub(crate) signals: SignalFlags,
    /// Output only.
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) leave: LeaveFlags,
    /// Name or id of a container or service, or a task such as web.2.
    pub(crate) container: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CpArgs {
    /// What is copied into a container is its user's, if it has one of its own.
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Of a link the file or folder that it leads to.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// CONTAINER:PATH (or a task's or service's), a path here, or `-` for a tar on standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) source: String,
    /// CONTAINER:PATH (or a task's or service's), a path here, or `-` for a tar on standard output.
    #[arg(allow_hyphen_values = true)]
    pub(crate) destination: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// File to write; standard output by default.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Name or id of the container.
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Who made the image.
    #[arg(short, long)]
    pub(crate) author: Option<String>,
    /// What was changed; shown by `rswarm history`.
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// An instruction of a Dockerfile, e.g. 'ENV A=1'; may be repeated.
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    /// Pause the container meanwhile, as without this flag; --pause=false does not.
    #[arg(
        short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL"
    )]
    pub(crate) pause: bool,
    /// Do not pause the container meanwhile.
    #[arg(long)]
    pub(crate) no_pause: bool,
    /// Name or id of the container.
    pub(crate) container: String,
    /// Name of the image; without one it has only its id.
    pub(crate) reference: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds until SIGKILL; -1 is never.
    #[arg(short = 't', long, alias = "time", allow_negative_numbers = true)]
    pub(crate) timeout: Option<i64>,
    /// What they are told to end with, instead of what they are made with.
    #[arg(short, long)]
    pub(crate) signal: Option<String>,
    /// Names or ids of containers, or tasks such as web.2.
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Name or number of the signal.
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: String,
    /// Names or ids of containers, or tasks such as web.2.
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Also those that run: they are killed.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Their anonymous volumes too.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Names or ids of containers.
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}
