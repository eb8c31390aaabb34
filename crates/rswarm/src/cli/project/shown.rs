//! What is shown of projects.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Default, Args)]
pub(crate) struct LogLook {
    /// Names of containers without colours.
    #[arg(long)]
    pub(crate) no_color: bool,
    /// From `--ansi always`.
    #[arg(skip)]
    pub(crate) colour: bool,
    /// Lines as they are, without the container's name.
    #[arg(long)]
    pub(crate) no_log_prefix: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ComposePs {
    /// Also those that do not run, and those of `run`.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only ids.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only the names of services.
    #[arg(long)]
    pub(crate) services: bool,
    /// Only those in a state: created, running, paused, restarting, exited, dead; may be repeated.
    #[arg(long)]
    pub(crate) status: Vec<String>,
    /// Only those in a state, as status=running.
    #[arg(long)]
    pub(crate) filter: Vec<String>,
    /// `table`, `json`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Whole ids, images and commands.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Also those of services that the file does not name.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    pub(crate) orphans: Option<bool>,
    /// All by default.
    #[arg(value_name = "SERVICE")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ComposeLogs {
    /// Go on with what comes.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show when each line was written.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) look: LogLook,
    /// So many lines from the end of each log.
    #[arg(short = 'n', long, default_value = "all")]
    pub(crate) tail: String,
    /// Lines from then on: RFC 3339, Unix seconds, or an age such as 10m.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Lines before then.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// Of several containers of a service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeEvents {
    /// A JSON object for each.
    #[arg(long)]
    pub(crate) json: bool,
    /// From then on: RFC 3339, Unix seconds, or an age such as 10m.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Until then; without it events go on.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeStats {
    /// Also those that do not run.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// One sample, then end.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Ids in full.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `json`, `table`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeVolumes {
    /// Only names.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Those that containers of these services mount; all of the project by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposePort {
    /// Of several containers of the service, this one.
    #[arg(long)]
    pub(crate) index: Option<u64>,
    /// tcp or udp.
    #[arg(long, default_value = "tcp")]
    pub(crate) protocol: String,
    /// Name of the service.
    pub(crate) service: String,
    /// Port in its container.
    pub(crate) port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeImages {
    /// Only ids.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, or a template such as '{{.Repository}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// All by default.
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeLs {
    /// Also projects of which nothing runs.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those whose name fits, as name=shop: a regular expression; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Only names.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, or a template such as '{{.Name}}'.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct ComposeConfig {
    /// Only check.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only the names of services.
    #[arg(long)]
    pub(crate) services: bool,
    /// Only the names of volumes.
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Only the names of networks.
    #[arg(long)]
    pub(crate) networks: bool,
    /// Only the names of profiles.
    #[arg(long)]
    pub(crate) profiles: bool,
    /// Only the names of images.
    #[arg(long)]
    pub(crate) images: bool,
    /// Only the names of models.
    #[arg(long)]
    pub(crate) models: bool,
    /// Only the hashes that containers of these services are labelled with, divided by commas; * stands for all.
    #[arg(long, value_name = "SERVICE")]
    pub(crate) hash: Option<String>,
    /// Only the variables that it is read with.
    #[arg(long)]
    pub(crate) environment: bool,
    /// Only the variables that the files mention, with their defaults.
    #[arg(long)]
    pub(crate) variables: bool,
    /// Keep variables as they are written.
    #[arg(long)]
    pub(crate) no_interpolate: bool,
    /// Also of what could not run: a service without an image, a name that means nothing.
    #[arg(long)]
    pub(crate) no_consistency: bool,
    /// Write out nothing that the files only imply.
    #[arg(long)]
    pub(crate) no_normalize: bool,
    /// Keep paths as they are written.
    #[arg(long)]
    pub(crate) no_path_resolution: bool,
    /// Keep `env_file` as it is, and do not read what it names.
    #[arg(long)]
    pub(crate) no_env_resolution: bool,
    /// Images with the digests that their tags stand for now.
    #[arg(long, conflicts_with = "no_interpolate")]
    pub(crate) resolve_image_digests: bool,
    /// Only the images with these digests: a file to lay over the others.
    #[arg(long, conflicts_with = "no_interpolate")]
    pub(crate) lock_image_digests: bool,
    /// YAML or JSON.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ConfigFormat,
    /// Write into a file.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// All by default.
    #[arg(value_name = "SERVICE")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ConfigFormat {
    /// YAML.
    #[default]
    Yaml,
    /// JSON.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeVersion {
    /// Only the number.
    #[arg(long)]
    pub(crate) short: bool,
    /// As a line, or as JSON.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: VersionFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum VersionFormat {
    #[default]
    Pretty,
    Json,
}
