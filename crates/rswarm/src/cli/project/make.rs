//! What makes a project's containers and starts them.

use super::shown::LogLook;
use crate::cli::parse_duration;
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub(crate) struct ComposeStart {
    /// Wait until services run or are healthy.
    #[arg(long)]
    pub(crate) wait: bool,
    /// *Unit:* seconds; 0 = as long as it takes.
    #[arg(long, default_value_t = 0)]
    pub(crate) wait_timeout: u64,
    /// All by default.
    pub(crate) services: Vec<String>,
}

// What makes containers; of `up`, `create` and `run`.
#[derive(Debug, Default, Args)]
pub(crate) struct MakeFlags {
    /// Build images first, also those that are there.
    #[arg(long)]
    pub(crate) build: bool,
    /// Build nothing, also where an image is missing.
    #[arg(long, conflicts_with = "build")]
    pub(crate) no_build: bool,
    /// When images are pulled, whatever the file says.
    #[arg(long, value_enum)]
    pub(crate) pull: Option<PullPolicy>,
    /// Show no progress of pulls.
    #[arg(long)]
    pub(crate) quiet_pull: bool,
    /// Show no output of builds.
    #[arg(long)]
    pub(crate) quiet_build: bool,
    /// Remove containers of services that the file no longer names, and those of `run`; else COMPOSE_REMOVE_ORPHANS.
    #[arg(long)]
    pub(crate) remove_orphans: bool,
}

// How containers that are there already are kept; of `up` and `create`.
#[derive(Debug, Default, Args)]
pub(crate) struct KeepFlags {
    /// Replace containers even if nothing changed.
    #[arg(long)]
    pub(crate) force_recreate: bool,
    /// Keep containers even if something changed.
    #[arg(long, conflicts_with = "force_recreate")]
    pub(crate) no_recreate: bool,
    /// Replace what others need too, even if nothing changed there.
    #[arg(long, conflicts_with = "no_recreate")]
    pub(crate) always_recreate_deps: bool,
    /// Give replaced containers new anonymous volumes.
    #[arg(short = 'V', long)]
    pub(crate) renew_anon_volumes: bool,
    /// How many containers of a service there are, whatever the file says.
    #[arg(long, value_name = "SERVICE=NUMBER")]
    pub(crate) scale: Vec<String>,
    /// Do not ask: volumes that the file describes otherwise now are made anew, and lose what is in them; a project of a
    /// registry has the variables that it mentions.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Each time.
    Always,
    /// If it is not here.
    Missing,
    /// What is not here is an error.
    Never,
    /// Build it instead.
    Build,
}

#[derive(Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) make: MakeFlags,
    #[command(flatten)]
    pub(crate) keep: KeepFlags,
    /// Show no output; the containers go on alone.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Not the services that these depend on.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Make, and start nothing.
    #[arg(long)]
    pub(crate) no_start: bool,
    /// Wait until services run or are healthy; implies --detach.
    #[arg(long)]
    pub(crate) wait: bool,
    /// *Unit:* seconds; what depends on others waits as long too. 0 = as long as it takes.
    #[arg(long, default_value_t = 0)]
    pub(crate) wait_timeout: u64,
    /// Seconds until SIGKILL when containers are stopped.
    #[arg(short, long)]
    pub(crate) timeout: Option<u32>,
    /// Stop everything when a container ends.
    #[arg(long, conflicts_with = "detach")]
    pub(crate) abort_on_container_exit: bool,
    /// Stop everything when a container fails.
    #[arg(long, conflicts_with = "detach")]
    pub(crate) abort_on_container_failure: bool,
    /// End with the exit code of a service; implies --abort-on-container-exit.
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    pub(crate) exit_code_from: Option<String>,
    /// Show the output of these alone.
    #[arg(long, value_name = "SERVICE")]
    pub(crate) attach: Vec<String>,
    /// Show the output of what they need too.
    #[arg(long, conflicts_with = "attach")]
    pub(crate) attach_dependencies: bool,
    /// Do not show the output of these.
    #[arg(long, value_name = "SERVICE")]
    pub(crate) no_attach: Vec<String>,
    /// There is no menu of keys here, so only --menu=false is taken.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    pub(crate) menu: Option<bool>,
    /// Show when each line was written.
    #[arg(long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) look: LogLook,
    /// Watch files as `compose watch` does.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) make: MakeFlags,
    #[command(flatten)]
    pub(crate) keep: KeepFlags,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct ComposeRun {
    #[command(flatten)]
    pub(crate) make: MakeFlags,
    /// Print the container's name and leave it alone.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not ask whether a project of a registry may have the variables that it mentions.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// NAME=VALUE; NAME alone takes it from the shell, else from `.env`.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Variables of a file; may be repeated, and --env wins.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_from_file: Vec<PathBuf>,
    /// `KEY=VALUE`; may be repeated.
    #[arg(short, long)]
    pub(crate) label: Vec<String>,
    /// The program, instead of the service's entrypoint.
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Capability it has besides, e.g. NET_ADMIN; may be repeated.
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    /// Capability it does not have, e.g. CHOWN; may be repeated.
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// Keep standard input open, as without this flag; -i=false does not.
    #[arg(
        short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true", value_name = "BOOL"
    )]
    pub(crate) interactive: Option<bool>,
    /// Name of the container; a chosen one by default.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// No terminal; else there is one if standard output is one.
    #[arg(short = 'T', long, alias = "no-TTY")]
    pub(crate) no_tty: bool,
    /// Nothing of our own is shown.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Not the services that this one depends on.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Publish a port, e.g. 8080:80; may be repeated.
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    /// Publish the service's ports.
    #[arg(short = 'P', long)]
    pub(crate) service_ports: bool,
    /// Remove the container when it has ended.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Answer to the service's names on its networks.
    #[arg(long)]
    pub(crate) use_aliases: bool,
    /// Who runs it: `USER` or `UID`, either with `:GROUP`.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// `/here:/there` or `name:/there`; may be repeated.
    #[arg(short, long, alias = "volumes")]
    pub(crate) volume: Vec<String>,
    /// Folder in the container that it begins in.
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// Name of the service.
    pub(crate) service: String,
    /// What is run, instead of the service's command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeScale {
    /// Not the services that these depend on.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Services, each with the number of its containers.
    #[arg(required = true, value_name = "SERVICE=NUMBER")]
    pub(crate) scale: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeWatch {
    /// Do not bring the project up first.
    #[arg(long)]
    pub(crate) no_up: bool,
    /// Remove the project's images that a rebuild leaves without a name, as without this flag; --prune=false keeps them.
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        value_name = "BOOL"
    )]
    pub(crate) prune: Option<bool>,
    /// Show no output of builds.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// How long a file must be left alone before its change counts.
    #[arg(long, default_value = "500ms", value_parser = parse_duration, hide = true)]
    pub(crate) settle: Duration,
    /// All that have rules by default.
    pub(crate) services: Vec<String>,
}
