//! What is done in one of a project's containers, and with its files.

use crate::cli::{CpArgs, LeaveFlags, SignalFlags};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ComposeExec {
    /// Do not wait for its end.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// `KEY=VALUE`, or `KEY` for the value it has here; may be repeated.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// No terminal; else there is one if standard output is one.
    #[arg(short = 'T', long, alias = "no-TTY")]
    pub(crate) no_tty: bool,
    /// Keep standard input open, as without this flag.
    #[arg(
        short, long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true"
    )]
    pub(crate) interactive: Option<bool>,
    /// A terminal, as without this flag if standard output is one.
    #[arg(
        short, long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true"
    )]
    pub(crate) tty: Option<bool>,
    /// Give it all rights.
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Who runs it: `USER` or `UID`, either with `:GROUP`.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Folder in the container that it begins in.
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// Name of the service.
    pub(crate) service: String,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeAttach {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// Output only.
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) signals: SignalFlags,
    #[command(flatten)]
    pub(crate) leave: LeaveFlags,
    /// Name of the service.
    pub(crate) service: String,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeCommit {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// Who made it, as in 'Ann <ann@example.org>'.
    #[arg(short, long)]
    pub(crate) author: Option<String>,
    /// What is to be said of it in the history of the image.
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// An instruction of a Dockerfile, e.g. 'ENV A=1'; may be repeated.
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    /// Pause the container meanwhile.
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    pub(crate) pause: Option<bool>,
    /// Name of the service.
    pub(crate) service: String,
    /// Name of the image, with or without a tag; none by default.
    pub(crate) reference: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeExport {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// File to write; standard output by default.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Name of the service.
    pub(crate) service: String,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeCp {
    /// Of several containers of the service, this one; all of them by default when copying into them.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// Also containers of `run`.
    #[arg(long, conflicts_with = "index")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) paths: CpArgs,
}
