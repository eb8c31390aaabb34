//! What ends a project's containers, removes them, or waits for their end.

use clap::{Args, ValueEnum};

#[derive(Debug, Default, Args)]
pub(crate) struct Down {
    /// Remove the file's volumes and anonymous ones too.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Remove images: `local` = those without a name of their own in the file, `all`.
    #[arg(long, value_enum)]
    pub(crate) rmi: Option<Rmi>,
    /// Remove containers of services that the file does not name.
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// Seconds until SIGKILL.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// All by default, with the networks.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rmi {
    /// Those with names of their own too.
    All,
    /// Those without a name of their own in the file.
    Local,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeRestart {
    /// Seconds until SIGKILL.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// Not the services that restart with these.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeStop {
    /// Seconds until SIGKILL.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeKill {
    /// Name or number of the signal.
    #[arg(short, long, default_value = "SIGKILL")]
    pub(crate) signal: String,
    /// Also those of services that the file does not name; else COMPOSE_REMOVE_ORPHANS.
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeRm {
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Stop those that run first.
    #[arg(short, long)]
    pub(crate) stop: bool,
    /// Their anonymous volumes too.
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeWait {
    /// Take the project down when the first of them has ended.
    #[arg(long)]
    pub(crate) down_project: bool,
    /// Names of services.
    #[arg(required = true)]
    pub(crate) services: Vec<String>,
}
