//! What can be typed of containers that exist; [`flags`](super::flags) has those of `run` and `create`.

use super::{CreateArgs, InspectArgs, LimitFlags, ListArgs, PruneArgs, RunArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

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
